//! What no authorizer may touch, by the specification alone.
use http::{HeaderMap, HeaderName, HeaderValue};

const UNTOUCHED: HeaderValue = HeaderValue::from_static("untouched");

const FRAMING: [&str; 8] = [
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "proxy-connection",
    "content-length",
];

/// `mcp-*`, `content-*`, authority, pseudo and hop-by-hop headers are not an authorizer's.
pub fn may_change(name: &str) -> bool {
    !name.starts_with(':')
        && !name.starts_with("mcp-")
        && !name.starts_with("content-")
        && !["host", "authority"].contains(&name)
        && !FRAMING.contains(&name)
}

/// A request with these headers.
#[allow(dead_code, reason = "of one of the targets")]
pub fn protected() -> HeaderMap {
    let names =
        ["host", "content-type", "mcp-session-id", "mcp-protocol-version", "mcp-method", "mcp-param-x"];
    names.into_iter().chain(FRAMING).map(|name| (HeaderName::from_static(name), UNTOUCHED)).collect()
}

/// Whether the headers of [`protected`] are as they were.
#[allow(dead_code, reason = "of one of the targets")]
pub fn is_untouched(headers: &HeaderMap) -> bool {
    protected().keys().all(|name| headers.get_all(name).iter().eq([&UNTOUCHED]))
}

/// A denial's headers frame nothing and say nothing of a session.
pub fn is_clean(headers: &HeaderMap) {
    for name in headers.keys() {
        let name = name.as_str();
        assert!(!FRAMING.contains(&name) && !name.starts_with("mcp-") && name != "host", "{name}");
    }
}
