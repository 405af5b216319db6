//! Path, Host and framing: what is refused on every route, before routing.
use http::{
    HeaderMap, Version,
    header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, ORIGIN, TRANSFER_ENCODING},
    request::Parts,
};

use super::Rejection;

/// Refuses, on every route and before routing, a request whose target could mean different things to different
/// servers (semantics, last row of section 5): a path with dot segments (percent-encoded ones included), `%2f`,
/// `%5c`, `%00`, a backslash, `//` or a broken escape; a Host that is missing, repeated, no `host[:port]`, or that
/// differs from the authority of the request line or of HTTP/2; Content-Length beside Transfer-Encoding; and a
/// Connection header that would have headers dropped on the way which were decided on.
///
/// # Errors
/// A 400 with a short plain text.
pub fn check_target(parts: &Parts) -> Result<(), Rejection> {
    let fault = host_fault(parts)
        .or_else(|| path_fault(parts.uri.path()))
        .or_else(|| framing_fault(&parts.headers))
        .or_else(|| connection_fault(&parts.headers));
    match fault {
        None => Ok(()),
        Some(fault) => Err(Rejection::plain(http::StatusCode::BAD_REQUEST, fault)),
    }
}

/// The host that a request is for, as received, with port: HTTP/2's `:authority` (or the authority of an absolute
/// request line), else the Host header. Unique where [`check_target`] passed.
pub fn request_host(parts: &Parts) -> Option<&str> {
    match parts.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => parts.headers.get(HOST).and_then(|value| value.to_str().ok()),
    }
}

fn host_fault(parts: &Parts) -> Option<&'static str> {
    let mut lines = parts.headers.get_all(HOST).iter();
    let line = lines.next();
    if lines.next().is_some() {
        return Some("the Host header is repeated; send it once");
    }
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    let line = line.map(http::HeaderValue::as_bytes);
    let host = match (authority, line) {
        (Some(authority), Some(line)) if !authority.eq_ignore_ascii_case(line) => {
            return Some("the Host header differs from the request's authority; send the same in both");
        }
        (None, None) => return Some("the Host header is missing"),
        (Some(_), None) if parts.version < Version::HTTP_2 => return Some("the Host header is missing"),
        (Some(host), _) | (None, Some(host)) => host,
    };
    (!is_host(host)).then_some("the Host header is no host name with an optional port")
}

/// `name`, `name:port`, `address`, `[address]:port`; no user, no empty port.
fn is_host(host: &[u8]) -> bool {
    let (name, port) = match host.strip_prefix(b"[") {
        Some(rest) => {
            let Some(end) = memchr::memchr(b']', rest) else { return false };
            let (address, port) = rest.split_at(end);
            if address.is_empty()
                || !address.iter().all(|byte| byte.is_ascii_hexdigit() || b":.".contains(byte))
            {
                return false;
            }
            (address, port.get(1..).filter(|port| !port.is_empty()))
        }
        None => match memchr::memchr(b':', host) {
            Some(colon) => (host.get(..colon).unwrap_or_default(), host.get(colon..)),
            None => (host, None),
        },
    };
    let port_ok = port.is_none_or(|port| {
        port.strip_prefix(b":").and_then(|digits| std::str::from_utf8(digits).ok()).is_some_and(|digits| {
            digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok()
        })
    });
    let name_ok = host.first() == Some(&b'[')
        || !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(byte));
    name_ok && port_ok
}

fn path_fault(path: &str) -> Option<&'static str> {
    let Some(path) = path.strip_prefix('/') else {
        return Some("the request target is no path; send one that begins with `/`");
    };
    let mut segments = path.split('/').peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() && segments.peek().is_some() {
            return Some("the path holds `//`");
        }
        if let Some(fault) = segment_fault(segment.as_bytes()) {
            return Some(fault);
        }
    }
    None
}

fn segment_fault(segment: &[u8]) -> Option<&'static str> {
    // Some servers take `..;x` for `..`: what follows a semicolon does not make a segment another one.
    let (mut dots, mut others, mut parameters) = (0_u32, false, false);
    let mut rest = segment;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let byte = match byte {
            b'%' => {
                let [high, low, tail @ ..] = rest else {
                    return Some("the path holds a broken percent-escape");
                };
                let (Some(high), Some(low)) = (hex(*high), hex(*low)) else {
                    return Some("the path holds a broken percent-escape");
                };
                rest = tail;
                match high << 4 | low {
                    b'/' => return Some("the path holds `%2f`"),
                    b'\\' => return Some("the path holds `%5c`"),
                    0 => return Some("the path holds `%00`"),
                    byte => byte,
                }
            }
            b'\\' => return Some("the path holds a backslash"),
            byte => byte,
        };
        match byte {
            b';' => parameters = true,
            _ if parameters => {}
            b'.' => dots = dots.saturating_add(1),
            _ => others = true,
        }
    }
    (!others && (1..=2).contains(&dots)).then_some("the path holds a dot segment")
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Two ways to tell where the body ends: two servers may choose differently (RFC 9112, section 6.3).
fn framing_fault(headers: &HeaderMap) -> Option<&'static str> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    match (lengths.next(), lengths.next()) {
        (None, _) => None,
        (Some(_), Some(_)) => Some("the Content-Length header is repeated; send it once"),
        (Some(_), None) if headers.contains_key(TRANSFER_ENCODING) => {
            Some("Content-Length and Transfer-Encoding exclude each other; send one of them")
        }
        (Some(length), None) => {
            let digits = length.as_bytes();
            let ok = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
            (!ok).then_some("the Content-Length header is no number")
        }
    }
}

/// What Connection names is dropped before the request is forwarded (RFC 9110, section 7.6.1): the server must not
/// lose the headers that say what the body is, or who asks.
fn connection_fault(headers: &HeaderMap) -> Option<&'static str> {
    let end_to_end = |name: &str| {
        let name = name.trim_matches([' ', '\t']);
        let begins =
            |prefix: &str| name.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix));
        begins("mcp-")
            || begins("content-")
            || [HOST, AUTHORIZATION, ORIGIN].iter().any(|header| name.eq_ignore_ascii_case(header.as_str()))
    };
    headers.get_all(CONNECTION).iter().find_map(|line| match line.to_str() {
        Err(_) => Some("the Connection header is not ASCII"),
        Ok(line) => line
            .split(',')
            .any(end_to_end)
            .then_some("the Connection header names a header that the server must see; leave it out"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_options() {
        let with =
            |line: &'static str| http::Request::get("/").header("host", "a").header("connection", line);
        for ok in ["close", "keep-alive", "Upgrade, HTTP2-Settings", "te", "x-own", "mcp", ""] {
            check(with(ok), None);
        }
        for named in [
            "mcp-protocol-version",
            "close, Mcp-Session-Id",
            "x,\tcontent-type ",
            "Content-Length",
            "HOST",
            "authorization",
            "origin",
        ] {
            check(with(named), Some("names a header that the server must see"));
        }
        check(
            with("close").header("connection", "mcp-name"),
            Some("names a header that the server must see"),
        );
    }

    #[track_caller]
    fn check(request: http::request::Builder, fault: Option<&str>) {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let found = check_target(&parts).err().map(|rejection| {
            assert_eq!(rejection.status, 400);
            assert!(!rejection.json);
            rejection.detail
        });
        match fault {
            None => assert_eq!(found, None),
            Some(fault) => {
                let found = found.expect("it must be refused");
                assert!(found.contains(fault), "`{found}` does not say `{fault}`");
            }
        }
    }

    #[track_caller]
    fn path(path: &str, fault: Option<&str>) {
        check(http::Request::get(path).header("host", "a"), fault);
    }

    #[test]
    fn paths() {
        for ok in [
            "/",
            "/mcp",
            "/mcp/",
            "/a.b/c",
            "/...",
            "/.a",
            "/a.",
            "/..a",
            "/a;b",
            "/a%2eb",
            "/%2e%2e%2e",
            "/%20",
            "/a?x=//..%2f",
            "/%252f",
            "/.well-known/oauth-protected-resource",
        ] {
            path(ok, None);
        }
        for (bad, fault) in [
            ("/a/../mcp", "dot segment"),
            ("/..", "dot segment"),
            ("/.", "dot segment"),
            ("/a/./b", "dot segment"),
            ("/a/%2e/b", "dot segment"),
            ("/a/%2E%2e/b", "dot segment"),
            ("/a/.%2E", "dot segment"),
            ("/a/..;x=1/b", "dot segment"),
            ("/a/..%3bx/b", "dot segment"),
            ("/local%2fmcp", "%2f"),
            ("/local%2Fmcp", "%2f"),
            ("/a%5cb", "%5c"),
            ("/a%5Cb", "%5c"),
            ("/a%00", "%00"),
            ("/a\\b", "backslash"),
            ("//mcp", "//"),
            ("/a//b", "//"),
            ("/a//", "//"),
            ("/a%2", "broken"),
            ("/a%", "broken"),
            ("/a%zz", "broken"),
            ("*", "no path"),
        ] {
            path(bad, Some(fault));
        }
    }

    fn with_hosts(version: Version, uri: &str, hosts: &[&str]) -> http::request::Builder {
        let request = http::Request::get(uri).version(version);
        hosts.iter().fold(request, |request, host| request.header("host", *host))
    }

    #[test]
    fn hosts() {
        let (one, two) = (Version::HTTP_11, Version::HTTP_2);
        for ok in ["a", "A.example.com", "a_b:8080", "127.0.0.1:1", "[::1]", "[::1]:443", "xn--a"] {
            check(with_hosts(one, "/", &[ok]), None);
            check(with_hosts(two, &format!("https://{ok}/"), &[]), None);
        }
        for bad in [
            "", "a:", "a:x", "a:99999", "a:+1", "u@a", "a,b", "a b", "a/b", "[::1", "[]", "[::1]x", "[x]",
            ":80",
        ] {
            check(with_hosts(one, "/", &[bad]), Some("no host name"));
        }
        check(with_hosts(one, "/", &[]), Some("missing"));
        check(with_hosts(Version::HTTP_10, "/", &[]), Some("missing"));
        check(with_hosts(one, "/", &["a", "a"]), Some("repeated"));
        check(with_hosts(one, "/", &["a", "b"]), Some("repeated"));
        check(with_hosts(one, "http://a/", &["A"]), None);
        check(with_hosts(one, "http://a/", &["b"]), Some("differs"));
        check(with_hosts(one, "http://a/", &[]), Some("missing"));
        check(with_hosts(two, "/", &[]), Some("missing"));
        check(with_hosts(two, "/", &["a"]), None);
        check(with_hosts(two, "https://a:1/", &["a:1"]), None);
        check(with_hosts(two, "https://a:1/", &["a"]), Some("differs"));
        check(with_hosts(two, "https://a/", &["a", "a"]), Some("repeated"));
    }

    #[test]
    fn the_host_is_the_authority_else_the_header() {
        for (version, uri, hosts, expected) in [
            (Version::HTTP_11, "/", &["A:1"][..], Some("A:1")),
            (Version::HTTP_2, "https://b/", &[][..], Some("b")),
            (Version::HTTP_2, "/", &[][..], None),
        ] {
            let (parts, ()) = with_hosts(version, uri, hosts).body(()).unwrap().into_parts();
            assert_eq!(request_host(&parts), expected);
        }
    }

    #[test]
    fn framing() {
        let with = |headers: &[(&str, &str)]| {
            headers.iter().fold(http::Request::post("/").header("host", "a"), |request, (name, value)| {
                request.header(*name, *value)
            })
        };
        check(with(&[("content-length", "5")]), None);
        check(with(&[("transfer-encoding", "chunked")]), None);
        check(with(&[("content-length", "5"), ("transfer-encoding", "chunked")]), Some("exclude"));
        check(with(&[("content-length", "5"), ("content-length", "5")]), Some("repeated"));
        check(with(&[("content-length", "5, 5")]), Some("no number"));
        check(with(&[("content-length", "+5")]), Some("no number"));
        check(with(&[("content-length", "")]), Some("no number"));
    }
}
