//! Which headers go where.
use std::collections::HashSet;

use http::{HeaderMap, HeaderName, header};

/// Headers of one connection (RFC 9110 section 7.6.1), whatever `Connection` names besides.
pub(crate) fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection" | "keep-alive" | "te" | "trailer" | "transfer-encoding" | "upgrade" | "http2-settings"
    ) || name.starts_with("proxy-")
}

/// What is never told to an authorizer: headers of the connection, and what only a proxy may say about the client.
pub(crate) fn is_private(name: &str) -> bool {
    is_hop_by_hop(name) || matches!(name, "x-forwarded-client-cert" | "x-envoy-auth-partial-body")
}

/// Headers that mirror the body of an MCP message (SEP-2243).
pub(crate) fn is_mirrored(name: &str) -> bool {
    matches!(name, "mcp-method" | "mcp-name") || name.starts_with("mcp-param-")
}

/// What an authorizer may neither set nor remove.
pub(crate) fn is_protected(name: &str) -> bool {
    name.starts_with(':')
        || name.starts_with("mcp-")
        || name.starts_with("content-")
        || matches!(name, "host" | "authority" | "x-forwarded-client-cert" | "x-http-method-override")
        || is_hop_by_hop(name)
}

/// What of a denial's headers does not reach the client.
fn is_dropped_from_denial(name: &str) -> bool {
    is_protected(name)
        && !matches!(
            name,
            "content-type" | "content-language" | "content-encoding" | "content-security-policy"
        )
}

/// Removes from a denial's headers what describes its connection, its framing, or the MCP session.
pub(crate) fn clean_denial(headers: &mut HeaderMap) {
    let nominated = nominated_by_connection(headers);
    let dropped: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_dropped_from_denial(name.as_str()) || nominated.contains(*name))
        .cloned()
        .collect();
    for name in dropped {
        headers.remove(name);
    }
}

/// The headers that `Connection` declares to be of this connection only.
pub(crate) fn nominated_by_connection(headers: &HeaderMap) -> HashSet<HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect()
}

/// Whether a list of header names holds this one.
pub(crate) fn lists(names: &[String], name: &HeaderName) -> bool {
    names.iter().any(|listed| listed.eq_ignore_ascii_case(name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, private: bool, protected: bool, dropped_from_denial: bool) {
        assert_eq!(is_private(name), private, "{name}: private");
        assert_eq!(is_protected(name), protected, "{name}: protected");
        assert_eq!(is_dropped_from_denial(name), dropped_from_denial, "{name}: dropped from a denial");
    }

    #[test]
    fn names() {
        for name in [
            "connection",
            "keep-alive",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
            "proxy-authorization",
        ] {
            check(name, true, true, true);
        }
        check("proxy-connection", true, true, true);
        check("x-forwarded-client-cert", true, true, true);
        check("x-envoy-auth-partial-body", true, false, false);
        for name in
            [":path", ":authority", "host", "mcp-session-id", "mcp-name", "content-length", "content-range"]
        {
            check(name, false, true, true);
        }
        for name in ["content-type", "content-language", "content-encoding"] {
            check(name, false, true, false);
        }
        for name in [
            "authorization",
            "www-authenticate",
            "location",
            "set-cookie",
            "x-user",
            "mcp",
            "contents",
            "hostname",
        ] {
            check(name, false, false, false);
        }
    }

    #[test]
    fn connection_nominates() {
        let mut headers = HeaderMap::new();
        headers.append("connection", "close, X-Secret ,,b@d".parse().unwrap());
        headers.append("connection", "x-other".parse().unwrap());
        let expected = ["close", "x-secret", "x-other"].map(HeaderName::from_static);
        assert_eq!(nominated_by_connection(&headers), HashSet::from(expected));
        headers.insert("x-secret", "1".parse().unwrap());
        headers.insert("www-authenticate", "Bearer".parse().unwrap());
        headers.insert("content-length", "3".parse().unwrap());
        clean_denial(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["www-authenticate"]);
    }
}
