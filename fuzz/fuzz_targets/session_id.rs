//! Sealed session ids: no text opens that was not sealed here, and one that was opens as what was sealed and as nothing else: not
//! with another key, not changed, not cut.
#![no_main]

#[path = "../../gateway-bin/src/session.rs"]
#[allow(dead_code, reason = "sessions, without the gateway")]
mod session;

use std::net::{IpAddr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use session::{Session, SessionKeys};

const KEY: [u8; 32] = [7; 32];

/// Ids that were sealed with the key: inputs of the corpus, from which the fuzzer tries to make another that opens.
const SEALED: [&[u8]; 2] =
    [include_bytes!("../corpus/session_id/sealed"), include_bytes!("../corpus/session_id/sealed_bare")];

fuzz_target!(|bytes: &[u8]| {
    let keys = SessionKeys::new([KEY]);
    let opened = keys.open(bytes);
    assert_eq!(opened.is_some(), SEALED.contains(&bytes), "a text that nobody sealed opens");

    let Some((&[how, at, bits, kind], text)) = bytes.split_first_chunk() else { return };
    let text = String::from_utf8_lossy(text);
    let mut parts = text.splitn(3, '\n').map(str::to_owned);
    let mut part = || parts.next().unwrap_or_default();
    let session = Session {
        server_id: part(),
        backend: part(),
        endpoint: match kind % 3 {
            0 => None,
            1 => Some(SocketAddr::new(IpAddr::from([10, 0, at, bits]), u16::from(how) << 8)),
            _ => Some(SocketAddr::new(IpAddr::from([u16::from(at), 0, 0, 0, 0, 0, 0, u16::from(bits)]), 443)),
        },
        identity: (kind & 0x80 == 0).then(part),
    };
    let sealed = keys.seal(&session).expect("randomness");
    assert!(sealed.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
    let rotated = SessionKeys::new([[8; 32], KEY]);
    // What is too long to have been sealed here is not even tried.
    let expected = (sealed.len() <= 8 * 1024).then_some(session);
    assert_eq!(keys.open(sealed.as_bytes()), expected);
    assert_eq!(rotated.open(sealed.as_bytes()), expected);
    assert_eq!(SessionKeys::new([[8; 32]]).open(sealed.as_bytes()), None);

    let mut changed = sealed.clone().into_bytes();
    let at = usize::from(how) << 8 | usize::from(at);
    let at = at % changed.len();
    changed[at] ^= bits.max(1);
    assert_eq!(keys.open(&changed), None, "changed at {at}");
    assert_eq!(keys.open(&sealed.as_bytes()[..at]), None, "cut at {at}");
    assert_eq!(keys.open([sealed.as_bytes(), &changed[..at]].concat().as_slice()).filter(|_| at > 0), None);
});
