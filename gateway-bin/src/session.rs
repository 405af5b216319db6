//! Sealed MCP sessions (semantics, section 3): what a client holds as `Mcp-Session-Id` is the server's own id, the
//! backend, the endpoint that opened it and the caller's identity, encrypted and authenticated. The gateway keeps no
//! state; replicas that share a key open each other's sessions.
use std::{fmt, net::SocketAddr, path::Path};

use anyhow::{Context as _, bail};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chacha20poly1305::{
    Key, XChaCha20Poly1305, XNonce,
    aead::{Aead, KeyInit, Payload},
};

/// `Mcp-Session-Id`
pub const MCP_SESSION_ID: http::HeaderName = http::HeaderName::from_static("mcp-session-id");

/// The first byte of a sealed id, and part of what is authenticated.
const VERSION: u8 = 1;
const AAD: &[u8] = b"agentic-gateway mcp session 1";
const NONCE_LENGTH: usize = 24;
/// A sealed id that is longer was not made here.
const MAX_SEALED: usize = 8 * 1024;

/// What a session is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The id that the server gave.
    pub server_id: String,
    /// The backend, as [`xds_translate::BackendId`] writes itself.
    pub backend: String,
    /// The endpoint; `None` where the backend is a host name.
    pub endpoint: Option<SocketAddr>,
    /// The caller's SPIFFE ID; `None` where the connection had none.
    pub identity: Option<String>,
}

/// Seals with the first key, opens with any.
#[derive(Clone)]
pub struct SessionKeys {
    ciphers: Vec<XChaCha20Poly1305>,
}

impl fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionKeys").field("keys", &self.ciphers.len()).finish_non_exhaustive()
    }
}

impl SessionKeys {
    /// One random key: sessions end with the process.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn random() -> anyhow::Result<Self> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)
            .map_err(|error| anyhow::anyhow!("the system gives no randomness: {error}"))?;
        Ok(Self::new([key]))
    }

    /// The first key seals, all open.
    pub fn new(keys: impl IntoIterator<Item = [u8; 32]>) -> Self {
        Self { ciphers: keys.into_iter().map(|key| XChaCha20Poly1305::new(Key::from_slice(&key))).collect() }
    }

    /// Reads a key file: 32 raw bytes, or a key a line in base64 (either alphabet) or hex.
    ///
    /// # Errors
    /// A file that cannot be read, no key, or a line that is none.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        parse_keys(&bytes).map(Self::new).with_context(|| format!("`{}`", path.display()))
    }

    /// Seals a session. `None` only if there is no randomness: then the session must not be used.
    pub fn seal(&self, session: &Session) -> Option<String> {
        let mut plain = Vec::with_capacity(256);
        push(&mut plain, session.server_id.as_bytes());
        push(&mut plain, session.backend.as_bytes());
        push_option(&mut plain, session.endpoint.map(|endpoint| endpoint.to_string()).as_deref());
        push_option(&mut plain, session.identity.as_deref());
        let mut nonce = [0; NONCE_LENGTH];
        getrandom::fill(&mut nonce).ok()?;
        let cipher = self.ciphers.first()?;
        let sealed = cipher.encrypt(XNonce::from_slice(&nonce), Payload { msg: &plain, aad: AAD }).ok()?;
        let mut out = Vec::with_capacity(1 + NONCE_LENGTH + sealed.len());
        out.push(VERSION);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        Some(URL_SAFE_NO_PAD.encode(out))
    }

    /// Opens what [`seal`](Self::seal) made; `None`: it was made with another key, changed, or is none.
    pub fn open(&self, sealed: &[u8]) -> Option<Session> {
        if sealed.len() > MAX_SEALED {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (version, rest) = bytes.split_first()?;
        if *version != VERSION {
            return None;
        }
        let (nonce, sealed) = rest.split_at_checked(NONCE_LENGTH)?;
        let plain = self.ciphers.iter().find_map(|cipher| {
            cipher.decrypt(XNonce::from_slice(nonce), Payload { msg: sealed, aad: AAD }).ok()
        })?;
        let mut rest = plain.as_slice();
        let session = Session {
            server_id: take(&mut rest)?,
            backend: take(&mut rest)?,
            endpoint: match take_option(&mut rest)? {
                Some(endpoint) => Some(endpoint.parse().ok()?),
                None => None,
            },
            identity: take_option(&mut rest)?,
        };
        rest.is_empty().then_some(session)
    }
}

fn push(out: &mut Vec<u8>, part: &[u8]) {
    let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(part);
}

/// Absent and empty are told apart.
fn push_option(out: &mut Vec<u8>, part: Option<&str>) {
    out.push(u8::from(part.is_some()));
    push(out, part.unwrap_or_default().as_bytes());
}

fn take(rest: &mut &[u8]) -> Option<String> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let (part, after) = after.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    *rest = after;
    String::from_utf8(part.to_vec()).ok()
}

fn take_option(rest: &mut &[u8]) -> Option<Option<String>> {
    let (present, after) = rest.split_first()?;
    *rest = after;
    let part = take(rest)?;
    Some((*present == 1).then_some(part))
}

fn parse_keys(bytes: &[u8]) -> anyhow::Result<Vec<[u8; 32]>> {
    if let Ok(raw) = <[u8; 32]>::try_from(bytes)
        && !raw.iter().all(u8::is_ascii_graphic)
    {
        return Ok(vec![raw]);
    }
    let text = std::str::from_utf8(bytes).context(
        "it is neither 32 raw bytes nor text; write each key as base64 or hex on a line of its own",
    )?;
    let mut keys = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match parse_key(line) {
            Some(key) => keys.push(key),
            None => bail!("line {number} is no key; write 32 bytes as 44 characters of base64 or 64 of hex"),
        }
    }
    if keys.is_empty() {
        bail!("it holds no key; `openssl rand -base64 32` makes one");
    }
    Ok(keys)
}

fn parse_key(line: &str) -> Option<[u8; 32]> {
    if line.len() == 64 {
        let mut key = [0; 32];
        for (byte, pair) in key.iter_mut().zip(line.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        // `from_str_radix` takes a sign, hex digits do not.
        return line.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(key);
    }
    let plain = line.trim_end_matches('=').replace('+', "-").replace('/', "_");
    URL_SAFE_NO_PAD.decode(plain).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        Session {
            server_id: "1868a90c-1111-4aaa".to_owned(),
            backend: "xbackend/ns/everything".to_owned(),
            endpoint: Some("10.0.0.1:3001".parse().unwrap()),
            identity: Some("spiffe://cluster.local/ns/a/sa/b".to_owned()),
        }
    }

    #[test]
    fn what_was_sealed_opens_with_every_key_that_could_have_sealed_it() {
        let (old, new) = ([1; 32], [2; 32]);
        for session in [
            session(),
            Session { endpoint: None, identity: None, ..session() },
            Session {
                identity: Some(String::new()),
                endpoint: Some("[::1]:1".parse().unwrap()),
                ..session()
            },
        ] {
            let sealed = SessionKeys::new([old]).seal(&session).unwrap();
            assert_eq!(SessionKeys::new([new, old]).open(sealed.as_bytes()), Some(session.clone()));
            assert_eq!(SessionKeys::new([new]).open(sealed.as_bytes()), None);
            // Header values: visible ASCII, as MCP wants session ids.
            assert!(sealed.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
        }
    }

    #[test]
    fn two_seals_of_one_session_differ() {
        let keys = SessionKeys::random().unwrap();
        assert_ne!(keys.seal(&session()), keys.seal(&session()));
    }

    #[test]
    fn no_change_to_a_sealed_id_opens() {
        let keys = SessionKeys::new([[7; 32]]);
        let sealed = keys.seal(&session()).unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(&sealed).unwrap();
        for at in 0..bytes.len() {
            for bit in [1, 0x80] {
                let mut changed = bytes.clone();
                changed[at] ^= bit;
                assert_eq!(keys.open(URL_SAFE_NO_PAD.encode(changed).as_bytes()), None, "byte {at}");
            }
            assert_eq!(keys.open(URL_SAFE_NO_PAD.encode(&bytes[..at]).as_bytes()), None, "cut at {at}");
        }
        for other in ["", "abc", "1868a90c-1111-4aaa", &format!("{sealed}="), &"A".repeat(100_000)] {
            assert_eq!(keys.open(other.as_bytes()), None);
        }
    }

    #[test]
    fn key_files() {
        let key: [u8; 32] = std::array::from_fn(|at| u8::try_from(at * 7 + 3).unwrap_or(255));
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        let standard = base64::engine::general_purpose::STANDARD.encode(key);
        let url = URL_SAFE_NO_PAD.encode(key);
        assert_eq!(parse_keys(&key).unwrap(), [key]);
        assert_eq!(parse_keys(hex.as_bytes()).unwrap(), [key]);
        assert_eq!(parse_keys(format!("# new\n{standard}\n\n{url}\n{hex}").as_bytes()).unwrap(), [key; 3]);
        for bad in ["", "# nothing\n", "short", &hex.replace('0', "+"), &format!("{hex}\nshort")] {
            assert!(parse_keys(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(parse_keys(&key[..31]).is_err());
    }
}
