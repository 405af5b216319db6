//! HTTP at its edges.
use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::support::{AGENT, Client, Upstream, World, allow_tools, call, check_headers, manifests, raw};

#[tokio::test]
async fn requests_that_servers_could_read_differently_are_refused() {
    let upstream = Upstream::json().await;
    let world = World::start(&manifests(upstream.address, "")).await;
    let head = "POST /svc/x HTTP/1.1\r\nhost: a\r\n";
    for (name, request) in [
        ("two lengths", format!("{head}content-length: 5\r\ncontent-length: 6\r\n\r\nhello!")),
        ("no host", "GET /svc/x HTTP/1.1\r\n\r\n".to_owned()),
        ("two hosts", "GET /svc/x HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n".to_owned()),
        ("dot segments", "GET /svc/../x HTTP/1.1\r\nhost: a\r\n\r\n".to_owned()),
        ("an encoded slash", "GET /svc%2fx HTTP/1.1\r\nhost: a\r\n\r\n".to_owned()),
        ("two slashes", "GET /svc//x HTTP/1.1\r\nhost: a\r\n\r\n".to_owned()),
    ] {
        let answer = raw(world.address(10002), request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{name}: {answer}");
    }
    assert!(upstream.seen().is_empty());
}

/// A length beside chunks is refused, and the connection ends: what comes after it is nobody's request.
#[tokio::test]
async fn a_request_with_two_framings_is_refused() {
    let upstream = Upstream::json().await;
    let world = World::start(&manifests(upstream.address, "")).await;
    let hidden = "GET /svc/smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    let length = format!("content-length: {}\r\n", 5 + hidden.len());
    let chunked = "transfer-encoding: chunked\r\n";
    for (first, second) in [(length.as_str(), chunked), (chunked, length.as_str())] {
        let request = format!("POST /svc/x HTTP/1.1\r\nhost: a\r\n{first}{second}\r\n0\r\n\r\n{hidden}");
        let answer = raw(world.address(10002), request.as_bytes()).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn what_is_forwarded_is_what_was_meant_for_the_backend() {
    let upstream = Upstream::json().await;
    let world = World::start(&manifests(upstream.address, &allow_tools("get-sum"))).await;
    let mut agent = world.client(AGENT).await;
    let headers = [
        ("authorization", "Bearer t"),
        ("x-forwarded-client-cert", "URI=spiffe://cluster.local/ns/ns/sa/other"),
        ("x-http-method-override", "DELETE"),
        ("connection", "x-mine"),
        ("x-mine", "1"),
        ("x-request", "kept"),
    ];
    let body = call("get-sum");
    assert_eq!(agent.mcp(&body, &headers).await.unwrap().status.as_u16(), 200);
    let [seen] = upstream.seen().try_into().unwrap();
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/mcp"));
    assert_eq!(seen.body, body);
    check_headers(
        &seen.headers,
        &[
            ("host", Some("gateway.test")),
            ("authorization", Some("Bearer t")),
            ("x-request", Some("kept")),
            ("x-forwarded-for", Some("127.0.0.1")),
            ("x-forwarded-proto", Some("https")),
            ("content-length", Some(&body.len().to_string())),
            ("x-forwarded-client-cert", None),
            ("x-http-method-override", None),
            ("x-mine", None),
            ("connection", None),
            ("transfer-encoding", None),
        ],
    );
}

#[tokio::test]
async fn only_the_mcp_path_of_an_xbackend_is_reachable() {
    let upstream = Upstream::json().await;
    let world = World::start(&manifests(upstream.address, "")).await;
    let mut plain = world.plain_client().await;
    for (method, path, status) in [
        ("GET", "/mcp/admin", 404),
        ("GET", "/mcp/", 404),
        ("GET", "/nowhere", 404),
        ("PUT", "/mcp", 405),
        ("GET", "/mcp", 406),
    ] {
        let reply = plain.request(method, path, &[], "").await.unwrap();
        assert_eq!(reply.status.as_u16(), status, "{method} {path}: {}", reply.body);
    }
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn a_backend_that_cannot_be_reached_is_503_and_one_that_breaks_off_is_502() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    let world = World::start(&manifests(address, "")).await;
    assert_eq!(world.plain_client().await.call("x").await.status.as_u16(), 503);

    let rude = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::start(&manifests(rude.local_addr().unwrap(), "")).await;
    let task = tokio::spawn(async move {
        let (mut stream, _) = rude.accept().await.unwrap();
        let mut some = [0; 16];
        stream.read_exact(&mut some).await.unwrap();
    });
    assert_eq!(world.plain_client().await.call("x").await.status.as_u16(), 502);
    task.await.unwrap();
}

#[tokio::test]
async fn a_body_over_the_limit_is_413() {
    let upstream = Upstream::json().await;
    let world = World::start_with(&manifests(upstream.address, ""), &["--max-body-bytes", "200"]).await;
    let mut plain = world.plain_client().await;
    let small = call("x");
    assert!(small.len() < 200);
    assert_eq!(plain.mcp(&small, &[]).await.unwrap().status.as_u16(), 200);
    assert_eq!(plain.mcp(&call(&"x".repeat(200)), &[]).await.unwrap().status.as_u16(), 413);
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn slow_clients_do_not_hold_connections() {
    let upstream = Upstream::json().await;
    let flags = ["--header-timeout", "300ms", "--handshake-timeout", "300ms", "--body-timeout", "300ms"];
    let world = World::start_with(&manifests(upstream.address, ""), &flags).await;
    let begun_body = "POST /mcp HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
                      accept: application/json, text/event-stream\r\ncontent-length: 100\r\n\r\n{";
    for (name, port, sent) in [
        ("nothing", 10002, ""),
        ("a byte that could begin either version", 10002, "P"),
        ("half a head", 10002, "GET / HTTP/1.1\r\nhost:"),
        ("half a body", 10002, begun_body),
        ("no handshake", 10001, ""),
        ("half a handshake", 10001, "\u{16}\u{3}\u{1}"),
    ] {
        let mut stream = TcpStream::connect(world.address(port)).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "{name}: the connection is still open");
    }
    assert!(upstream.seen().is_empty());
    assert_eq!(world.metric(r#"agentic_gateway_tls_handshakes_total{result="timeout"}"#).await, 2);
    assert_eq!(world.metric(r#"agentic_gateway_connections_failed_total{reason="timeout"}"#).await, 3);
    let refused = r#"agentic_gateway_requests_total{listener="plain",decision="reject",reason="rejected",status="4xx"}"#;
    assert_eq!(world.metric(refused).await, 1, "the body that did not come");
}

#[tokio::test]
async fn the_admin_address_answers() {
    let upstream = Upstream::json().await;
    let world = World::start(&manifests(upstream.address, &allow_tools("get-sum"))).await;
    world.client(AGENT).await.call("echo").await;
    let mut admin = Client::plain(world.gateway.admin_address()).await;
    for (path, status) in [("/healthz", 200), ("/readyz", 200), ("/", 404)] {
        assert_eq!(admin.request("GET", path, &[], "").await.unwrap().status.as_u16(), status, "{path}");
    }
    let metrics = admin.request("GET", "/metrics", &[], "").await.unwrap().body;
    for line in [
        r#"agentic_gateway_requests_total{listener="https",decision="deny",reason="no_rule_matches",status="2xx"} 1"#,
        r#"agentic_gateway_mcp_messages_total{method="tools/call",decision="deny"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    assert!(metrics.ends_with("# EOF\n"));
}
