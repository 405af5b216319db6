use std::{future::pending, net::SocketAddr, time::Duration};

use bytes::Bytes;
use ext_authz::{Check, Client, HeaderChange, Peer, Protocol, Settings, Unreachable, Verdict};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, request::Parts};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use proptest::prelude::*;
use tokio::task::JoinSet;

use crate::peers::{
    Seen, Server, ask, ask_about, assert_allowed, assert_failed, assert_nonsense, assert_timed_out, body,
    client, hanging, listen, listen_on, refusing, settings,
};

fn http() -> Protocol {
    Protocol::Http {
        path: "/auth".to_owned(),
        allowed_headers: ["x-team", "te", "x-forwarded-client-cert", "content-length", "expect"]
            .map(ToOwned::to_owned)
            .to_vec(),
        allowed_response_headers: ["x-user", "x-many", "host", "mcp-session-id", "content-length", "x-hop"]
            .map(ToOwned::to_owned)
            .to_vec(),
    }
}

/// Answers 200, shows the requests.
async fn watching() -> (Server, Seen<(Parts, Bytes)>) {
    let seen = Seen::nothing();
    let requests = seen.clone();
    let server = Server::http(listen().await, move |request: Request<Incoming>| {
        let seen = requests.clone();
        async move {
            let (parts, body) = request.into_parts();
            seen.see((parts, body.collect().await.unwrap().to_bytes()));
            Response::new(self::body(""))
        }
    });
    (server, seen)
}

fn fields(headers: &HeaderMap) -> Vec<(&str, &str)> {
    let mut fields: Vec<_> =
        headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    fields.sort_unstable();
    fields
}

#[tokio::test]
async fn the_request() {
    let (server, seen) = watching().await;
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("authorization", "Bearer x"),
        ("content-type", "application/json"),
        ("content-length", "4711"),
        ("x-team", "blue"),
        ("x-other", "1"),
        ("te", "trailers"),
        ("expect", "100-continue"),
        ("x-forwarded-client-cert", "URI=spiffe://cluster.local/ns/evil/sa/evil"),
        ("host", "other.example"),
    ] {
        headers.append(name, HeaderValue::from_static(value));
    }
    headers.append("x-team", HeaderValue::from_static("green"));
    assert_allowed(&ask_about(&client(http(), &[server.address]), &headers, crate::peers::CALL).await);
    let (request, body) = seen.take();
    assert_eq!((request.method.as_str(), request.uri.to_string()), ("POST", "/auth/mcp?x=1".to_owned()));
    assert_eq!(
        fields(&request.headers),
        [
            ("authorization", "Bearer x"),
            ("content-length", "0"),
            ("host", "example.org"),
            ("x-team", "blue"),
            ("x-team", "green"),
        ]
    );
    assert_eq!(body, "");

    // With a body, whole and cut.
    let whole = u32::try_from(crate::peers::CALL.len()).unwrap();
    for (limit, partial) in [(whole, None), (7, Some("true"))] {
        let settings = Settings { forward_body: Some(limit), ..settings(http(), &[server.address]) };
        assert_allowed(&ask_about(&Client::new(settings), &headers, crate::peers::CALL).await);
        let (request, body) = seen.take();
        assert_eq!(*body, crate::peers::CALL.as_bytes()[..usize::try_from(limit).unwrap()]);
        let header = |name: &str| request.headers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(header("content-length"), Some(limit.to_string().as_str()));
        assert_eq!(header("content-type"), Some("application/json"));
        assert_eq!(header("x-envoy-auth-partial-body"), partial);
    }
}

async fn answered_with(status: u16, headers: &[(&'static str, &'static str)], text: &'static str) -> Verdict {
    let headers = headers.to_vec();
    let server = Server::http(listen().await, move |_| {
        let mut answer = Response::builder().status(status);
        for (name, value) in &headers {
            answer = answer.header(*name, *value);
        }
        let answer = answer.body(body(text)).unwrap();
        async move { answer }
    });
    ask(&client(http(), &[server.address])).await
}

#[tokio::test]
async fn a_200_allows() {
    let headers = [
        ("x-user", "alice"),
        ("x-many", "1"),
        ("x-many", "2"),
        ("x-unlisted", "1"),
        ("host", "evil"),
        ("mcp-session-id", "evil"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
    ];
    let Verdict::Allowed(mut allowed) = answered_with(200, &headers, "fine").await else { panic!() };
    allowed.request_headers.sort_by_key(|change| change.name().as_str() == "x-user");
    let value = HeaderValue::from_static;
    let (user, many) = (HeaderName::from_static("x-user"), HeaderName::from_static("x-many"));
    let expected = [
        HeaderChange::Set(many.clone(), value("1")),
        HeaderChange::Append(many, value("2")),
        HeaderChange::Set(user, value("alice")),
    ];
    assert_eq!(allowed.request_headers, expected);
    assert_eq!(allowed.response_headers, []);
}

#[tokio::test]
async fn all_else_denies() {
    for (status, expected) in [
        (201, 403),
        (202, 403),
        (204, 403),
        (206, 403),
        (301, 301),
        (302, 302),
        (400, 400),
        (401, 401),
        (403, 403),
        (404, 404),
        (429, 429),
        (499, 499),
        (600, 403),
        (999, 403),
    ] {
        let verdict = answered_with(status, &[], "").await;
        let Verdict::Denied(denied) = &verdict else { panic!("{status}: {verdict:?}") };
        assert_eq!(denied.status.as_u16(), expected, "{status}");
    }
    for status in [500, 502, 503, 504, 599] {
        assert_failed(&answered_with(status, &[], "").await);
    }
    let headers = [
        ("www-authenticate", "Bearer"),
        ("set-cookie", "a"),
        ("set-cookie", "b"),
        ("content-type", "text/plain"),
        ("mcp-session-id", "evil"),
        ("keep-alive", "timeout=5"),
        ("x-ext-auth-reason", "expired"),
        ("date", "x"),
    ];
    let Verdict::Denied(denied) = answered_with(401, &headers, "who?").await else { panic!() };
    assert_eq!(
        fields(&denied.headers),
        [
            ("content-type", "text/plain"),
            ("date", "x"),
            ("set-cookie", "a"),
            ("set-cookie", "b"),
            ("www-authenticate", "Bearer"),
            ("x-ext-auth-reason", "expired"),
        ]
    );
    assert_eq!((denied.status, denied.body), (StatusCode::UNAUTHORIZED, Bytes::from_static(b"who?")));
    assert_eq!(denied.reason.as_deref(), Some("expired"));
}

#[tokio::test]
async fn connections_are_used_again() {
    let (server, _) = watching().await;
    let client = client(http(), &[server.address]);
    for _ in 0..10 {
        assert_allowed(&ask(&client).await);
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn the_next_endpoint_when_one_refuses() {
    let (refusing, _bound) = refusing();
    let (server, _) = watching().await;
    let both = client(http(), &[refusing, server.address]);
    for _ in 0..4 {
        assert_allowed(&ask(&both).await);
    }
    assert_failed(&ask(&client(http(), &[refusing])).await);
    assert_failed(&ask(&client(http(), &[])).await);
}

#[tokio::test]
async fn the_next_endpoint_when_one_hangs() {
    let (hanging, _listener, _waiting) = hanging().await;
    let (live, _) = watching().await;
    let within = |endpoints: &[SocketAddr]| {
        Client::new(Settings { timeout: Duration::from_secs(1), ..settings(http(), endpoints) })
    };
    assert_allowed(&ask(&within(&[hanging, live.address])).await);
    assert_timed_out(&ask(&within(&[hanging])).await);
}

#[tokio::test]
async fn killed_and_back() {
    let (server, _) = watching().await;
    let client = client(http(), &[server.address]);
    assert_allowed(&ask(&client).await);
    let address = server.kill().await;
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let client = client.clone();
        calls.spawn(async move { ask(&client).await });
    }
    calls.join_all().await.iter().for_each(assert_failed);
    let _server = Server::http(listen_on(address).await, |_| async { Response::new(body("")) });
    assert_allowed(&ask(&client).await);
}

#[tokio::test]
async fn too_slow() {
    let hasty = |address| {
        Client::new(Settings { timeout: Duration::from_millis(150), ..settings(http(), &[address]) })
    };
    let silent = Server::silent(listen().await);
    assert_timed_out(&ask(&hasty(silent.address)).await);
    // A 200 that does not come to its end.
    let server = Server::http(listen().await, |_| async {
        let stream = tokio_stream::pending::<Result<Frame<Bytes>, _>>();
        Response::new(http_body_util::StreamBody::new(stream).boxed_unsync())
    });
    assert_timed_out(&ask(&hasty(server.address)).await);
    let server = Server::http(listen().await, |_| pending());
    assert_timed_out(&ask(&hasty(server.address)).await);
}

async fn answered_with_bytes(bytes: Vec<u8>) -> Verdict {
    let server = Server::bytes(listen().await, bytes);
    ask(&client(http(), &[server.address])).await
}

#[tokio::test]
async fn answers_that_are_none() {
    assert_allowed(&answered_with_bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec()).await);
    for bytes in [
        &b""[..],
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ] {
        assert_failed(&answered_with_bytes(bytes.to_vec()).await);
    }
    for bytes in [
        &b"200 OK\r\n\r\n"[..],
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nx y: z\r\n\r\n",
    ] {
        assert_nonsense(&answered_with_bytes(bytes.to_vec()).await);
    }
    let mut long = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec();
    long.resize(2 << 20, b'x');
    assert_nonsense(&answered_with_bytes(long).await);
    let mut headers = b"HTTP/1.1 200 OK\r\nx: ".to_vec();
    headers.resize(1 << 20, b'x');
    let verdict = answered_with_bytes(headers).await;
    assert!(matches!(verdict, Verdict::Unreachable(_)), "{verdict:?}");
}

/// An HTTP authorizer sees no message, so what names the tool must not be what the client likes.
#[tokio::test]
async fn a_header_that_nobody_checked_names_no_tool() {
    let (server, seen) = watching().await;
    let protocol = || Protocol::Http {
        path: String::new(),
        allowed_headers: vec!["mcp-name".to_owned(), "mcp-method".to_owned()],
        allowed_response_headers: Vec::new(),
    };
    let mut headers = HeaderMap::new();
    headers.insert("mcp-name", HeaderValue::from_static("read"));
    let modern = crate::peers::CALL.replace(
        "params\":{",
        r#"params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"},"#,
    );
    for (body, expected) in [(crate::peers::CALL, None), (&*modern, Some("read"))] {
        assert_allowed(&ask_about(&client(protocol(), &[server.address]), &headers, body).await);
        let (request, _) = seen.take();
        assert_eq!(request.headers.get("mcp-name").map(|name| name.to_str().unwrap()), expected);
    }
}

#[tokio::test]
async fn requests_that_cannot_be_carried() {
    let (server, seen) = watching().await;
    let path = "/a b\u{7f}".to_owned();
    let protocol = Protocol::Http { path, allowed_headers: Vec::new(), allowed_response_headers: Vec::new() };
    let verdict = ask(&client(protocol, &[server.address])).await;
    assert!(matches!(verdict, Verdict::Unreachable(Unreachable::Unjudgeable(_))), "{verdict:?}");
    // Nor can this one be judged, although an HTTP authorizer without a body would not even look at it.
    let big = crate::peers::CALL.replace(r#""a/b""#, "9007199254740993");
    let verdict = ask_about(&client(http(), &[server.address]), &HeaderMap::new(), &big).await;
    assert!(matches!(verdict, Verdict::Unreachable(Unreachable::Unjudgeable(_))), "{verdict:?}");
    // Nor a CONNECT, which would go out without its path.
    let check = Check {
        source: Peer::default(),
        destination: Peer::default(),
        request_id: "r-1",
        method: "CONNECT",
        path_and_query: "/mcp",
        host: "example.org",
        scheme: "https",
        http_version: "HTTP/1.1",
        headers: &HeaderMap::new(),
        body: &Bytes::new(),
        message: None,
        time: std::time::UNIX_EPOCH,
    };
    let verdict = client(http(), &[server.address]).check(&check).await;
    assert!(matches!(verdict, Verdict::Unreachable(Unreachable::Unjudgeable(_))), "{verdict:?}");
    assert!(seen.is_nothing());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever comes back allows only if it starts as a 200 does and has the end of a head.
    #[test]
    fn arbitrary_bytes(
        start in prop::sample::select(
            &["", "HTTP/1.1 ", "HTTP/1.1 20", "HTTP/1.1 200 OK\r\n", "HTTP/1.0 200\r\n", "HTTP/1.1 204 \r\n\r\n",
              "HTTP/1.1 403 \r\n\r\n", "HTTP/1.1 100 \r\n\r\n"] as &[&str]
        ),
        rest in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            "[ -~\r\n]{0,40}".prop_map(String::into_bytes),
        ],
    ) {
        let bytes = [start.as_bytes(), &rest].concat();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let verdict = runtime.block_on(answered_with_bytes(bytes.clone()));
        if let Verdict::Allowed(_) = verdict {
            let text = String::from_utf8_lossy(&bytes);
            prop_assert!(text.contains("HTTP/1.1 200") || text.contains("HTTP/1.0 200"), "{text:?}");
            prop_assert!(text.contains("\n\n") || text.contains("\n\r\n"), "{text:?}");
        }
    }
}
