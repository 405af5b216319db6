use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::HeaderMap;
use mcp_jsonrpc::{Limits, parse};
use serde_json::json;

use super::percent_decoded;
use crate::{Check, CheckedRequest, Peer};

fn asked(path: &str, body: &Bytes, forward_body: Option<u32>) -> CheckedRequest {
    let message = parse(body, &Limits::default()).ok();
    let mut headers = HeaderMap::new();
    headers.insert("user-agent", "test/1".parse().unwrap());
    headers.insert("referer", "https://example.org/".parse().unwrap());
    let check = Check {
        source: Peer {
            address: Some("192.0.2.1:4711".parse().unwrap()),
            principal: Some("spiffe://cluster.local/ns/a/sa/b"),
        },
        destination: Peer { address: Some("192.0.2.2:443".parse().unwrap()), principal: None },
        request_id: "r-1",
        method: "POST",
        path_and_query: path,
        host: "example.org",
        scheme: "https",
        http_version: "HTTP/2",
        headers: &headers,
        body,
        message: message.as_ref().and_then(|body| body.messages().first()),
        time: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
    };
    CheckedRequest { request: check.to_request(forward_body, None).unwrap() }
}

#[test]
fn as_authorino_shows_it() {
    let body = Bytes::from_static(
        br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read","arguments":{"repoName":"a/b","n":[2]}}}"#,
    );
    let request = asked("/a%20b/mcp?x=%20", &body, None);
    let mcp = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "read", "arguments": {"repoName": "a/b", "n": [2]}}});
    let metadata = json!({"filter_metadata": {"mcp_proxy": mcp, "envoy.filters.http.mcp": mcp}});
    let headers = json!({"user-agent": "test/1", "referer": "https://example.org/"});
    let expected = json!({
        "metadata": metadata,
        "request": {
            "id": "r-1", "time": {"seconds": 1_700_000_000}, "method": "POST", "path": "/a%20b/mcp?x=%20",
            "url_path": "/a b/mcp", "query": "x=%20", "host": "example.org", "scheme": "https",
            "protocol": "HTTP/2", "headers": headers, "referer": "https://example.org/", "user_agent": "test/1",
            "size": body.len(),
        },
        "source": {"address": "192.0.2.1", "port": 4711, "principal": "spiffe://cluster.local/ns/a/sa/b"},
        "destination": {"address": "192.0.2.2", "port": 443},
        "context": {
            "source": {
                "address": {"Address": {"SocketAddress": {"address": "192.0.2.1", "PortSpecifier": {"PortValue": 4711}}}},
                "principal": "spiffe://cluster.local/ns/a/sa/b",
            },
            "destination": {
                "address": {"Address": {"SocketAddress": {"address": "192.0.2.2", "PortSpecifier": {"PortValue": 443}}}},
            },
            "request": {
                "time": {"seconds": 1_700_000_000},
                "http": {
                    "id": "r-1", "method": "POST", "path": "/a%20b/mcp?x=%20", "host": "example.org", "scheme": "https",
                    "protocol": "HTTP/2", "headers": headers, "size": body.len(),
                },
            },
            "metadata_context": metadata,
        },
        "auth": {},
    });
    assert_eq!(request.authorino_input(), expected);
    assert_eq!(request.mcp(), Some(mcp));
    assert_eq!(request.principal(), Some("spiffe://cluster.local/ns/a/sa/b"));
}

#[test]
fn bodies() {
    #[track_caller]
    fn check(body: &'static [u8], text: Option<&str>, raw: Option<&str>) {
        let input = asked("/", &Bytes::from_static(body), Some(100)).authorino_input();
        let field = |name: &str| input["request"].get(name).and_then(|field| field.as_str());
        assert_eq!((field("body"), field("raw_body")), (text, raw));
    }
    check(b"hello", Some("hello"), None);
    check(b"\xff\x00", None, Some("/wA="));
    check(b"", None, None);
}

#[test]
fn nothing_in_it() {
    let request = CheckedRequest { request: Default::default() };
    assert_eq!(
        request.authorino_input(),
        json!({"metadata": {}, "request": {}, "source": {}, "destination": {}, "context": {}, "auth": {}})
    );
    assert_eq!(request.mcp(), None);
    assert_eq!(request.principal(), None);
}

#[test]
fn percent_escapes() {
    for (path, expected) in [
        ("/a", "/a"),
        ("/%41%2f", "/A/"),
        ("/%c3%b6", "/ö"),
        ("/%ff", "/%ff"),
        ("/%", "/%"),
        ("/%4", "/%4"),
        ("/%zz", "/%zz"),
    ] {
        assert_eq!(percent_decoded(path), expected);
    }
}
