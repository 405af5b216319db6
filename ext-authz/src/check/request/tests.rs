use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use mcp_jsonrpc::{Body, Limits, parse};
use prost::Message as _;
use serde_json::json;

use super::*;

struct Question {
    headers: HeaderMap,
    body: Bytes,
}

impl Question {
    fn new(body: &str) -> Self {
        Self { headers: HeaderMap::new(), body: Bytes::copy_from_slice(body.as_bytes()) }
    }

    fn header(mut self, name: &'static str, value: &[u8]) -> Self {
        self.headers.append(name, HeaderValue::from_bytes(value).unwrap());
        self
    }

    /// Asks about the body as an MCP message.
    fn ask<T>(&self, ask: impl FnOnce(&Check<'_>) -> T) -> T {
        let body = parse(&self.body, &Limits::default()).unwrap();
        let Body::One(message) = &body else { panic!("a batch") };
        ask(&Check { message: Some(message), ..self.check() })
    }

    fn check(&self) -> Check<'_> {
        Check {
            source: Peer {
                address: Some("[2001:db8::1]:4711".parse().unwrap()),
                principal: Some("spiffe://cluster.local/ns/a/sa/b"),
            },
            destination: Peer { address: Some("192.0.2.2:443".parse().unwrap()), principal: None },
            request_id: "r-1",
            method: "POST",
            path_and_query: "/mcp?x=1",
            host: "example.org:8443",
            scheme: "https",
            http_version: "HTTP/2",
            headers: &self.headers,
            body: &self.body,
            message: None,
            time: UNIX_EPOCH + Duration::from_millis(1500),
        }
    }

    fn sent(&self, forward_body: Option<u32>, allowed: Option<&[&str]>) -> attribute_context::HttpRequest {
        let allowed: Option<Vec<String>> =
            allowed.map(|names| names.iter().copied().map(ToOwned::to_owned).collect());
        let request = self.check().to_request(forward_body, allowed.as_deref()).unwrap();
        request.attributes.unwrap().request.unwrap().http.unwrap()
    }
}

#[test]
fn numbers_are_the_doubles_that_others_read() {
    for token in ["9007199254740991.0", "8007199254740993.0", "123456789012345.0000", "-123456789012345.0000"]
    {
        let body = format!(r#"{{"jsonrpc":"2.0","id":{token},"method":"x","params":{{"n":{token}}}}}"#);
        let request = Question::new(&body).ask(|check| check.to_request(None, None)).unwrap();
        let mut metadata = request.attributes.unwrap().metadata_context.unwrap();
        let whole = json::from_struct(&metadata.filter_metadata.remove("mcp_proxy").unwrap());
        let expected: f64 = token.parse().unwrap();
        assert_eq!(whole.pointer("/params/n").unwrap().as_f64(), Some(expected), "{token}");
        assert_eq!(whole.pointer("/id").unwrap().as_f64(), Some(expected), "{token}");
    }
}

/// Mirrored headers say something only where the revision has them checked against the body.
#[test]
fn mirrored_headers_are_sent_only_where_they_were_checked() {
    let legacy = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"danger"}}"#;
    let modern = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"safe",
        "_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
    let mirrored = ["mcp-method", "mcp-name", "mcp-param-path"];
    let others = ["mcp-protocol-version", "mcp-session-id", "x-team"];
    let listed = [&mirrored[..], &others].concat().into_iter().map(str::to_owned).collect::<Vec<_>>();
    for (body, sent) in
        [(legacy, others.to_vec()), (modern, [&mirrored[..], &others].concat()), ("{}", others.to_vec())]
    {
        let question = listed
            .iter()
            .fold(Question::new(body), |question, name| question.header(name.clone().leak(), b"safe"));
        let check = |check: &Check<'_>| {
            for allowed in [None, Some(&*listed)] {
                let request = check.to_request(None, allowed).unwrap();
                let headers = request.attributes.unwrap().request.unwrap().http.unwrap().headers;
                let mut names: Vec<&str> = headers.keys().map(String::as_str).collect();
                names.sort_unstable();
                assert_eq!(names, sent, "{body}");
            }
        };
        if body == "{}" { check(&question.check()) } else { question.ask(check) }
    }
}

#[test]
fn attributes() {
    let request = Question::new("{}").check().to_request(None, None).unwrap();
    let attributes = request.attributes.unwrap();
    let peer = |peer: Option<attribute_context::Peer>| {
        let peer = peer.unwrap();
        let Some(address::Address::SocketAddress(socket)) = peer.address.unwrap().address else { panic!() };
        assert_eq!(socket.protocol, i32::from(socket_address::Protocol::Tcp));
        (socket.address, socket.port_specifier.unwrap(), peer.principal)
    };
    assert_eq!(
        peer(attributes.source),
        (
            "2001:db8::1".to_owned(),
            PortSpecifier::PortValue(4711),
            "spiffe://cluster.local/ns/a/sa/b".to_owned()
        )
    );
    assert_eq!(
        peer(attributes.destination),
        ("192.0.2.2".to_owned(), PortSpecifier::PortValue(443), String::new())
    );
    let request = attributes.request.unwrap();
    assert_eq!(request.time, Some(Timestamp { seconds: 1, nanos: 500_000_000 }));
    let expected = attribute_context::HttpRequest {
        id: "r-1".to_owned(),
        method: "POST".to_owned(),
        path: "/mcp?x=1".to_owned(),
        host: "example.org:8443".to_owned(),
        scheme: "https".to_owned(),
        protocol: "HTTP/2".to_owned(),
        size: 2,
        ..Default::default()
    };
    assert_eq!(request.http, Some(expected));
    assert_eq!(attributes.metadata_context.unwrap(), Metadata::default());
}

#[test]
fn headers_that_are_sent() {
    let question = Question::new("{}")
        .header("authorization", b"Bearer x")
        .header("accept", b"application/json")
        .header("accept", b"text/event-stream")
        .header("cookie", b"a=1")
        .header("cookie", b"b=2")
        .header("content-type", b"application/json")
        .header("content-length", b"2")
        .header("connection", b"keep-alive, x-drop")
        .header("x-drop", b"1")
        .header("keep-alive", b"timeout=5")
        .header("te", b"trailers")
        .header("proxy-authorization", b"Basic x")
        .header("x-forwarded-client-cert", b"URI=spiffe://cluster.local/ns/evil/sa/evil")
        .header("x-envoy-auth-partial-body", b"true");
    let check = |forward_body, allowed: Option<&[&str]>, expected: &[(&str, &str)]| {
        let mut sent: Vec<_> = question.sent(forward_body, allowed).headers.into_iter().collect();
        sent.sort();
        let expected: Vec<_> = expected.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert_eq!(sent, expected, "{forward_body:?} {allowed:?}");
    };
    check(
        None,
        None,
        &[
            ("accept", "application/json,text/event-stream"),
            ("authorization", "Bearer x"),
            ("content-length", "2"),
            ("content-type", "application/json"),
            ("cookie", "a=1; b=2"),
        ],
    );
    check(None, Some(&["Authorization", "x-none"]), &[("authorization", "Bearer x")]);
    check(None, Some(&[]), &[]);
    check(None, Some(&["x-drop", "te", "x-forwarded-client-cert", "connection"]), &[]);
    check(Some(10), Some(&[]), &[("content-length", "2"), ("content-type", "application/json")]);
    check(
        Some(1),
        Some(&[]),
        &[
            ("content-length", "2"),
            ("content-type", "application/json"),
            ("x-envoy-auth-partial-body", "true"),
        ],
    );
}

#[test]
fn header_that_no_string_can_hold() {
    let question = Question::new("{}").header("x-name", b"J\xf6rg");
    assert_eq!(
        question.check().to_request(None, None),
        Err(Unreachable::Unjudgeable("a header is not UTF-8"))
    );
    assert!(question.check().to_request(None, Some(&[])).is_ok(), "not sent, not looked at");
    let question = Question::new("{}").header("x-name", "Jörg".as_bytes());
    assert_eq!(question.sent(None, None).headers["x-name"], "Jörg");
}

#[test]
fn body_is_cut() {
    #[track_caller]
    fn check(body: &[u8], limit: Option<u32>, text: &str, raw: &[u8], cut: bool) {
        let question = Question { headers: HeaderMap::new(), body: Bytes::copy_from_slice(body) };
        let http = question.sent(limit, None);
        assert_eq!((http.body.as_str(), &*http.raw_body), (text, raw));
        assert_eq!(http.headers.get("x-envoy-auth-partial-body").map(String::as_str), cut.then_some("true"));
        assert_eq!(usize::try_from(http.size), Ok(body.len()), "the size of the whole");
    }
    check(b"hello", None, "", b"", false);
    check(b"hello", Some(5), "hello", b"", false);
    check(b"hello", Some(u32::MAX), "hello", b"", false);
    check(b"hello", Some(4), "hell", b"", true);
    check(b"hello", Some(0), "", b"", true);
    check(b"", Some(0), "", b"", false);
    check("aöb".as_bytes(), Some(2), "a", b"", true);
    check("aöb".as_bytes(), Some(3), "aö", b"", true);
    check(b"a\xffb", Some(2), "", b"a\xff", true);
    check(b"a\xff", Some(9), "", b"a\xff", false);
    check(b"a\xc3", Some(9), "", b"a\xc3", false);
}

#[test]
fn message_goes_whole() {
    #[track_caller]
    fn check(body: &str, expected: serde_json::Value) {
        let request = Question::new(body).ask(|check| check.to_request(None, None)).unwrap();
        let metadata = request.attributes.unwrap().metadata_context.unwrap().filter_metadata;
        assert_eq!(metadata.len(), 2);
        for name in ["mcp_proxy", "envoy.filters.http.mcp"] {
            assert_eq!(json::from_struct(&metadata[name]), expected, "{name}");
        }
    }
    check(
        r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"x","arguments":{"repoName":"a/b",
           "list":[1,-2.5,"x",null,true,[],{"y":[{}]}]},"_meta":{"progressToken":1}}}"#,
        json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "x",
            "arguments": {"repoName": "a/b", "list": [1, -2.5, "x", null, true, [], {"y": [{}]}]},
            "_meta": {"progressToken": 1}}}),
    );
    check(
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
    );
    check(r#"{"jsonrpc":"2.0","id":"s\u0031","result":{}}"#, json!({"jsonrpc": "2.0", "id": "s1"}));
    check(
        r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#,
        json!({"jsonrpc": "2.0", "id": 1.5, "method": "ping"}),
    );
    check(
        r#"{"jsonrpc":"2.0","id":12345678901234567890,"method":"ping"}"#,
        json!({"jsonrpc": "2.0", "id": "12345678901234567890", "method": "ping"}),
    );
    check(
        r#"{"jsonrpc":"2.0","id":123456789012345678901234567890,"method":"ping"}"#,
        json!({"jsonrpc": "2.0", "id": "123456789012345678901234567890", "method": "ping"}),
    );
}

/// A tools/call whose `params` reach this depth, the message object being depth 1.
fn nested(depth: usize, open: &str, close: &str) -> String {
    // The message, `params` and `arguments` are three.
    let (open, close) = (open.repeat(depth - 3), close.repeat(depth - 3));
    format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"x","arguments":{{"a":{open}1{close}}}}}}}"#
    )
}

#[test]
fn what_cannot_be_judged() {
    #[track_caller]
    fn check(body: &str, expected: Result<(), &'static str>) {
        assert_eq!(
            Question::new(body).ask(|check| check.judgeable()),
            expected.map_err(Unreachable::Unjudgeable)
        );
    }
    let big = Err("an integer in `params` is beyond 2^53");
    let deep = Err("`params` nest deeper than 32");
    let call = |number: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"x","arguments":{{"n":[{number}]}}}}}}"#
        )
    };
    check(&call("9007199254740992"), Ok(()));
    check(&call("9007199254740993"), big);
    check(&call("-9007199254740993"), big);
    check(&call("1e3"), Ok(()));
    check(r#"{"jsonrpc":"2.0","id":9007199254740993,"method":"ping"}"#, Ok(()));
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        check(&nested(32, open, close), Ok(()));
        check(&nested(33, open, close), deep);
    }
}

/// Readers of protobuf stop at 100 levels, and one of JSON takes up to three.
#[test]
fn what_can_be_judged_can_be_read() {
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let request =
            Question::new(&nested(32, open, close)).ask(|check| check.to_request(None, None)).unwrap();
        assert_eq!(CheckRequest::decode(&*request.encode_to_vec()), Ok(request));
    }
}
