//! Header changes on the way.
use authz_tower::NOT_FORWARDED;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        CONNECTION, EXPECT, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    },
};
use xds_translate::HeaderFilter;

use crate::connection::Connection;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Removes what concerns one connection only (RFC 9110, section 7.6.1). `te: trailers` stays.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in [
        KEEP_ALIVE,
        PROXY_CONNECTION,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ] {
        headers.remove(name);
    }
    if headers.get_all(TE).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"trailers")) {
        headers.remove(TE);
    }
}

/// Removes from a request what is not forwarded.
pub(crate) fn remove_request_headers(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    // The body was read, or is read as it comes: the expectation was met here.
    headers.remove(EXPECT);
    for name in &NOT_FORWARDED {
        headers.remove(name);
    }
}

/// Adds the client's address to `x-forwarded-for`, and says in `x-forwarded-proto` how it came.
pub(super) fn add_forwarded(headers: &mut HeaderMap, connection: &Connection) {
    headers.append(X_FORWARDED_FOR, connection.forwarded_for.clone());
    headers
        .insert(X_FORWARDED_PROTO, HeaderValue::from_static(if connection.tls { "https" } else { "http" }));
}

/// Set, add, remove, in this order.
pub(super) fn apply(filter: &HeaderFilter, headers: &mut HeaderMap) {
    for (name, value) in &filter.set {
        headers.insert(name.clone(), value.clone());
    }
    for (name, value) in &filter.add {
        headers.append(name.clone(), value.clone());
    }
    for name in &filter.remove {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap()))
            .collect()
    }

    #[test]
    fn what_is_not_forwarded() {
        let mut headers = map(&[
            ("connection", "close, X-Mine"),
            ("connection", "x-other"),
            ("x-mine", "1"),
            ("x-other", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic x"),
            ("te", "gzip"),
            ("trailer", "x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("expect", "100-continue"),
            ("x-forwarded-client-cert", "URI=spiffe://cluster.local/ns/a/sa/b"),
            ("x-http-method-override", "DELETE"),
            ("x-http-method", "DELETE"),
            ("x-method-override", "DELETE"),
            ("authorization", "Bearer t"),
            ("mcp-session-id", "s"),
            ("last-event-id", "7"),
        ]);
        remove_request_headers(&mut headers);
        let left = map(&[("authorization", "Bearer t"), ("mcp-session-id", "s"), ("last-event-id", "7")]);
        assert_eq!(headers, left);
    }

    #[test]
    fn trailers_may_be_asked_for() {
        let mut headers = map(&[("te", "trailers")]);
        remove_request_headers(&mut headers);
        assert_eq!(headers, map(&[("te", "trailers")]));
        let mut headers = map(&[("te", "trailers"), ("te", "gzip")]);
        remove_request_headers(&mut headers);
        assert_eq!(headers, HeaderMap::new());
    }

    #[test]
    fn modifiers_set_add_and_remove() {
        let mut headers = map(&[("a", "1"), ("a", "2"), ("b", "1"), ("c", "1")]);
        let pair = |name: &str, value: &str| (name.parse().unwrap(), value.parse().unwrap());
        let filter = HeaderFilter {
            set: vec![pair("a", "3")],
            add: vec![pair("b", "2")],
            remove: vec!["c".parse().unwrap()],
        };
        apply(&filter, &mut headers);
        assert_eq!(headers, map(&[("a", "3"), ("b", "1"), ("b", "2")]));
    }
}
