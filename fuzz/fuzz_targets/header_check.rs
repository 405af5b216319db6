//! Lines of headers and a body: nothing panics, and what is admitted under a stateless revision mirrors the body.
//!
//! Input: field lines `v:`, `m:`, `n:` (version, method, name), an empty line, the body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_jsonrpc::{Kind, Limits, MirroredHeaders, Target, parse};

fuzz_target!(|bytes: &[u8]| {
    let (mut version, mut method, mut name) = (Vec::new(), Vec::new(), Vec::new());
    let mut rest = bytes;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, tail) = rest.split_at(end);
        rest = &tail[1..];
        match line {
            [] => break,
            [b'v', b':', value @ ..] => version.push(value),
            [b'm', b':', value @ ..] => method.push(value),
            [b'n', b':', value @ ..] => name.push(value),
            _ => {}
        }
    }
    let headers = MirroredHeaders { protocol_version: &version, method: &method, name: &name };
    let alone = headers.revision();
    let Ok(body) = parse(rest, &Limits::default()) else { return };
    match headers.check(&body) {
        Ok(revision) => {
            assert_eq!(alone, Ok(revision));
            assert!(!body.is_batch() || revision.has_batches());
            for message in body.messages() {
                assert_eq!(message.meta_protocol_version().is_some(), revision.is_stateless());
                if !revision.is_stateless() {
                    continue;
                }
                assert_ne!(message.kind(), Kind::Response);
                assert_eq!(message.meta_protocol_version(), Some(revision.name()));
                assert_eq!(method.len(), 1);
                assert_eq!(method[0].trim_ascii(), message.method().as_bytes());
                if let (Target::Name(target), [line]) = (message.target(), name.as_slice())
                    && !line.trim_ascii().starts_with(b"=?base64?")
                {
                    assert_eq!(line.trim_ascii(), target.as_bytes());
                }
            }
        }
        Err(error) => {
            assert!(matches!(error.code(), -32020 | -32022 | -32600));
            assert!(!error.to_string().is_empty());
        }
    }
});
