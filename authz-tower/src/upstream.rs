//! What the inner service gets: the request as received, less what must not be forwarded, plus what authorizers set.
use authz_core::BackendKind;
use ext_authz::HeaderChange;
use http::{
    HeaderMap, HeaderName, HeaderValue, Uri,
    header::{ACCEPT_ENCODING, CONTENT_LENGTH, EXPECT, TRAILER, TRANSFER_ENCODING},
    request::Parts,
    uri::PathAndQuery,
};

use crate::{
    admission::{MCP_METHOD, MCP_NAME, MCP_SESSION_ID},
    ask::{Granted, Protocol},
};

/// Never forwarded: they make a server run another method, or believe in an identity.
pub static NOT_FORWARDED: [HeaderName; 4] = [
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-method-override"),
    HeaderName::from_static("x-forwarded-client-cert"),
];

/// Everything that depends on what was decided on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) backend: BackendKind,
    pub(crate) protocol: Protocol,
    /// The answer is to be read here.
    pub(crate) uncompressed: bool,
    /// Bytes of the body, where it was read whole.
    pub(crate) length: Option<usize>,
}

/// Makes the head of the upstream request.
pub(crate) fn prepare(parts: &mut Parts, plan: Plan, granted: &mut Granted) {
    for change in granted.request_headers.drain(..) {
        if may_change(change.name()) {
            change.apply(&mut parts.headers);
        }
    }
    if let Some(uri) = granted.uri.take() {
        parts.uri = uri;
    }
    let headers = &mut parts.headers;
    for name in &NOT_FORWARDED {
        headers.remove(name);
    }
    match (plan.protocol, plan.backend) {
        (Protocol::Stateless, BackendKind::XBackendMcp) => {
            headers.remove(&MCP_SESSION_ID);
        }
        // Nobody may take them for what was decided on.
        (Protocol::Stateful, _) => {
            headers.remove(&MCP_METHOD);
            headers.remove(&MCP_NAME);
        }
        _ => {}
    }
    if let Some(length) = plan.length {
        headers.remove(TRANSFER_ENCODING);
        headers.remove(TRAILER);
        headers.remove(EXPECT);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    if plan.uncompressed {
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
}

/// Makes an authorizer's changes to the response.
pub(crate) fn change_response(headers: &mut HeaderMap, changes: Vec<HeaderChange>) {
    for change in changes {
        if may_change(change.name()) {
            change.apply(headers);
        }
    }
}

/// Whatever an [`crate::Ask`] hands over: no authorizer sets these (semantics, section 4).
fn may_change(name: &HeaderName) -> bool {
    let name = name.as_str();
    const FIXED: [&str; 10] = [
        "host",
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "proxy-authorization",
    ];
    !name.starts_with("mcp-") && !name.starts_with("content-") && !FIXED.contains(&name)
}

/// The same target with query parameters set and removed; `None` where they do not fit.
pub(crate) fn with_query(uri: &Uri, set: &[(String, String)], remove: &[String]) -> Option<Uri> {
    let changed = |pair: &&str| {
        let name = pair.split_once('=').map_or(*pair, |(name, _)| name);
        let is = |other: &str| unescaped_equals(name, other);
        set.iter().any(|(name, _)| is(name)) || remove.iter().any(|name| is(name))
    };
    let mut query = String::new();
    let mut push = |name: &str, value: Option<&str>, raw: bool| {
        if !query.is_empty() {
            query.push('&');
        }
        if raw {
            query.push_str(name)
        } else {
            escape_into(name, &mut query)
        }
        if let Some(value) = value {
            query.push('=');
            escape_into(value, &mut query);
        }
    };
    let old = uri.query().unwrap_or_default();
    for pair in old.split('&').filter(|pair| !pair.is_empty() && !changed(pair)) {
        push(pair, None, true);
    }
    for (at, (name, value)) in set.iter().enumerate() {
        // Of several for one name the last holds; one that is set is not removed.
        if !set.iter().skip(at + 1).any(|(later, _)| later == name) {
            push(name, Some(value), false);
        }
    }
    let path_and_query =
        if query.is_empty() { uri.path().to_owned() } else { format!("{}?{query}", uri.path()) };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path_and_query).ok()?);
    Uri::from_parts(parts).ok()
}

/// Whether a query parameter's name, as it stands, is `name` for a server that decodes it.
fn unescaped_equals(raw: &str, name: &str) -> bool {
    let mut rest = raw.as_bytes();
    let mut wanted = name.bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let byte = match byte {
            b'+' => b' ',
            b'%' => {
                let escape = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
                match escape.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
                    Some(byte) => {
                        rest = rest.get(2..).unwrap_or_default();
                        byte
                    }
                    None => b'%',
                }
            }
            byte => byte,
        };
        if wanted.next() != Some(byte) {
            return false;
        }
    }
    wanted.next().is_none()
}

fn escape_into(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or('0').to_ascii_uppercase();
            out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn query(uri: &str, set: &[(&str, &str)], remove: &[&str], expected: &str) {
        let set: Vec<_> = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let remove: Vec<_> = remove.iter().map(|name| (*name).to_owned()).collect();
        let uri = uri.parse().unwrap();
        assert_eq!(with_query(&uri, &set, &remove).unwrap().to_string(), expected);
    }

    #[test]
    fn query_parameters() {
        query("/a", &[("x", "1")], &[], "/a?x=1");
        query("/a?x=0&y=2&x=3", &[("x", "1")], &[], "/a?y=2&x=1");
        query("/a?x=0&y=2", &[], &["x"], "/a?y=2");
        query("/a?x=0", &[], &["x"], "/a");
        query("/a?%78=0&y", &[], &["x"], "/a?y");
        query("/a?a+b=0&a%20b=1&a%2Bb=2", &[], &["a b"], "/a?a%2Bb=2");
        query("/a?x%=1&x%zz=2", &[], &["x%"], "/a?x%zz=2");
        query("/a?y=%20", &[("k&", "v= é")], &[], "/a?y=%20&k%26=v%3D%20%C3%A9");
        query("/a", &[("x", "1"), ("x", "2")], &["x"], "/a?x=2");
        query("https://h:1/a?q", &[("x", "")], &[], "https://h:1/a?q&x=");
    }

    #[test]
    fn a_query_that_does_not_fit_is_no_request() {
        let long = "x".repeat(1 << 16);
        assert_eq!(with_query(&"/a".parse().unwrap(), &[("x".to_owned(), long)], &[]), None);
    }

    fn plan(backend: BackendKind, protocol: Protocol) -> Plan {
        Plan { backend, protocol, uncompressed: false, length: None }
    }

    #[track_caller]
    fn check(plan: Plan, changes: Vec<HeaderChange>, before: &[(&str, &str)], after: &[(&str, &str)]) {
        let request = before
            .iter()
            .fold(http::Request::post("/"), |request, (name, value)| request.header(*name, *value));
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        prepare(&mut parts, plan, &mut Granted { request_headers: changes, ..Granted::default() });
        let mut found: Vec<_> =
            parts.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        found.sort_unstable();
        assert_eq!(found, after);
    }

    #[test]
    fn headers_that_are_not_forwarded() {
        let mirrored = [("mcp-method", "a"), ("mcp-name", "b"), ("mcp-session-id", "s")];
        let (method, name, session) = (mirrored[0], mirrored[1], mirrored[2]);
        check(plan(BackendKind::XBackendMcp, Protocol::Stateful), vec![], &mirrored, &[session]);
        check(plan(BackendKind::XBackendMcp, Protocol::Stateless), vec![], &mirrored, &[method, name]);
        check(plan(BackendKind::Service, Protocol::Stateful), vec![], &mirrored, &[session]);
        check(plan(BackendKind::Service, Protocol::Stateless), vec![], &mirrored, &mirrored);
        check(plan(BackendKind::Service, Protocol::None), vec![], &mirrored, &mirrored);
        let overrides = [
            ("x-forwarded-client-cert", "URI=spiffe://a/b"),
            ("x-http-method", "DELETE"),
            ("x-http-method-override", "DELETE"),
            ("x-method-override", "DELETE"),
        ];
        check(plan(BackendKind::Service, Protocol::None), vec![], &overrides, &[]);
    }

    #[test]
    fn a_body_that_was_read_has_a_length() {
        let plan = Plan {
            length: Some(7),
            uncompressed: true,
            ..plan(BackendKind::XBackendMcp, Protocol::Stateful)
        };
        check(
            plan,
            vec![],
            &[
                ("transfer-encoding", "chunked"),
                ("trailer", "x"),
                ("expect", "100-continue"),
                ("accept-encoding", "br"),
            ],
            &[("accept-encoding", "identity"), ("content-length", "7")],
        );
    }

    #[test]
    fn authorizers_change_only_what_they_may() {
        let set = |name: &'static str| {
            HeaderChange::Set(HeaderName::from_static(name), HeaderValue::from_static("theirs"))
        };
        let kept =
            [("content-type", "application/json"), ("host", "ours"), ("mcp-protocol-version", "2025-11-25")];
        let changes = [
            "content-type",
            "host",
            "mcp-protocol-version",
            "mcp-session-id",
            "connection",
            "transfer-encoding",
            "x-http-method-override",
        ];
        let remove = HeaderChange::Remove(HeaderName::from_static("host"));
        let changes = changes.map(set).into_iter().chain([remove, set("x-user")]).collect();
        let mut expected = kept.to_vec();
        expected.push(("x-user", "theirs"));
        check(plan(BackendKind::XBackendMcp, Protocol::Stateful), changes, &kept, &expected);
    }
}
