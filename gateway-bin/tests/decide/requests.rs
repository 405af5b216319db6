//! From a request's head to the answer that decides.
use envoy_types::pb::envoy::{
    config::core::v3::{HeaderMap as EnvoyHeaders, HeaderValue as EnvoyHeader},
    extensions::filters::http::ext_proc::v3::processing_mode::{
        BodySendMode::{Buffered, None as NoBody},
        HeaderSendMode::{Send, Skip},
    },
    service::ext_proc::v3::{
        HttpTrailers, ProcessingRequest, processing_request::Request as Message,
        processing_response::Response as Kind,
    },
};

use crate::{
    envoy::{Lines, chunk, fields},
    support::{
        ENDPOINT, World, changed, check_denied, check_mode, common, immediate, lines, plain_metadata, post,
        refusal, request, response, sealed, tool,
    },
};

#[tokio::test]
async fn a_body_is_asked_for_and_nothing_is_decided_before_it() {
    let world = World::start(&[]).await;
    let mut call = world.call().await;
    let asked = call.exchange(request(&post("/mcp", &[]), false)).await;
    check_mode(&asked, Buffered, Send, NoBody);
    assert_eq!((asked.dynamic_metadata.as_ref(), common(&asked).clear_route_cache), (None, false));
    assert_eq!(common(&asked).header_mutation, None);

    let denied = call.exchange(chunk(Message::RequestBody, tool("echo").as_bytes(), true)).await;
    check_denied(&denied);
    let headers = immediate(&denied).headers.clone();
    let expected = [("content-type".to_owned(), "application/json".to_owned())];
    assert_eq!(changed(&Lines::new(), headers.as_ref()), expected);
    call.ends().await;
}

#[tokio::test]
async fn an_allowed_call_of_an_open_session_is_over_with_its_body() {
    let world = World::start(&[]).await;
    let sealed = sealed(ENDPOINT);
    let head = post("/mcp", &[("mcp-session-id", &sealed), ("content-length", "74")]);
    let (answer, call) = world.decide(&head, Some(&tool("get-sum"))).await;
    let metadata = fields(answer.dynamic_metadata.as_ref().unwrap(), "agentic");
    assert_eq!(
        (metadata("decided"), metadata("endpoint"), metadata("session")),
        (Some("1".to_owned()), Some(ENDPOINT.to_owned()), Some(sealed))
    );
    assert_eq!(answer.mode_override, None);
    assert!(common(&answer).clear_route_cache);
    let after = changed(&head, common(&answer).header_mutation.as_ref());
    let expected = [
        (":authority", "gw.test"),
        (":method", "POST"),
        (":path", "/mcp"),
        (":scheme", "https"),
        ("accept", "application/json, text/event-stream"),
        ("content-length", "74"),
        ("content-type", "application/json"),
        ("mcp-session-id", "server-own"),
        ("x-agentic-cluster", "xbackend/ns/server"),
        ("x-forwarded-for", "192.0.2.7"),
        ("x-forwarded-proto", "https"),
    ];
    assert_eq!(after, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    call.ends().await;
}

#[tokio::test]
async fn what_needs_no_body_is_decided_at_its_head() {
    let world = World::start(&[]).await;
    let sealed = sealed(ENDPOINT);
    let session = ("mcp-session-id", sealed.as_str());
    let stream = lines("GET", "/mcp", &[("accept", "text/event-stream"), session]);
    let delete = lines("DELETE", "/mcp", &[session]);
    let service = lines("GET", "/svc/x?y=1", &[]);
    // A Service's own traffic streams, whatever its length.
    let upload = lines("PUT", "/svc/x", &[("content-length", "99999999")]);
    for (lines, ends, cluster) in [
        (stream, true, "xbackend/ns/server"),
        (delete, true, "xbackend/ns/server"),
        (service, true, "service/ns/server:3001"),
        (upload, false, "service/ns/server:3001"),
    ] {
        let mut call = world.call().await;
        let answer = call.exchange(request(&lines, ends)).await;
        check_mode(&answer, NoBody, Skip, NoBody);
        assert!(common(&answer).clear_route_cache);
        let metadata = fields(answer.dynamic_metadata.as_ref().unwrap(), "agentic");
        assert_eq!((metadata("decided"), metadata("endpoint")), (Some("1".into()), Some(ENDPOINT.into())));
        let after = changed(&lines, common(&answer).header_mutation.as_ref());
        assert!(after.contains(&("x-agentic-cluster".to_owned(), cluster.to_owned())), "{after:?}");
        call.ends().await;
    }
}

type Headers<'a> = &'a [(&'a str, &'a str)];

#[tokio::test]
async fn what_a_request_becomes() {
    let world = World::start(&[]).await;
    let cases: [(&str, Headers<'_>, Headers<'_>); 6] = [
        // Nobody outside tells Envoy what to do, or who he is.
        (
            "/mcp",
            &[
                ("x-envoy-retry-on", "5xx"),
                ("x-envoy-upstream-rq-timeout-ms", "1"),
                ("x-envoy-upstream-stream-duration-ms", "1"),
                ("x-agentic-cluster", "evil"),
                ("x-agentic-cluster", "evil2"),
                ("x-forwarded-client-cert", "URI=spiffe://cluster.local/ns/ns/sa/agent"),
                ("x-http-method-override", "DELETE"),
            ],
            &[],
        ),
        // Lines stay lines, in order.
        ("/mcp", &[("x-a", "1"), ("x-a", "2"), ("x-b", "")], &[("x-a", "1"), ("x-a", "2"), ("x-b", "")]),
        ("/mcp", &[("keep-alive", "5"), ("te", "gzip"), ("upgrade", "x"), ("expect", "100-continue")], &[]),
        // What a client says of those before it stays before what is known.
        ("/mcp", &[("x-forwarded-for", "192.0.2.1")], &[("x-forwarded-for", "192.0.2.1")]),
        // What was decided on stands in the body.
        ("/mcp", &[("mcp-method", "tools/call"), ("mcp-name", "echo")], &[]),
        ("/rewritten", &[("x-set", "0"), ("x-set", "00"), ("x-gone", "1")], &[("x-set", "1")]),
    ];
    for (path, more, expected) in cases {
        let head = post(path, more);
        let (answer, _call) = world.decide(&head, Some(&tool("get-sum"))).await;
        let mut after = changed(&head, common(&answer).header_mutation.as_ref());
        let rewritten = path == "/rewritten";
        let host = if rewritten { "server.test" } else { "gw.test" };
        let mut all = vec![
            (":authority", host),
            (":method", "POST"),
            (":path", "/mcp"),
            (":scheme", "https"),
            ("accept", "application/json, text/event-stream"),
            ("content-type", "application/json"),
            ("x-agentic-cluster", "xbackend/ns/server"),
        ];
        all.extend(expected);
        all.extend([("x-forwarded-for", "192.0.2.7"), ("x-forwarded-proto", "https")]);
        all.sort_by_key(|(name, _)| *name);
        // From the request's end, and from its begin: one that does not end, ends.
        for name in ["x-envoy-upstream-rq-timeout-ms", "x-envoy-upstream-stream-duration-ms"] {
            let timeout = after.iter().position(|(found, _)| found == name);
            assert_eq!(timeout.is_some(), rewritten, "{path} {more:?}");
            if let Some(at) = timeout {
                let left: u64 = after.remove(at).1.parse().unwrap();
                assert!((1..=10_000).contains(&left), "{name}: {left}");
            }
        }
        let all: Vec<_> = all.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        assert_eq!(after, all, "{path} {more:?}");
    }
}

#[tokio::test]
async fn what_is_refused_and_how() {
    let world = World::start(&[]).await;
    let foreign = sealed("10.0.0.2:3001");
    let cases: [(Lines, Option<&str>, i32); 10] = [
        (lines("GET", "/nowhere", &[]), None, 404),
        (lines("GET", "/svc/../mcp", &[]), None, 400),
        (lines("GET", "/mcp", &[]), None, 406),
        (lines("TRACE", "/svc", &[]), None, 405),
        (post("/mcp", &[]), Some("{"), 400),
        (post("/mcp", &[("content-encoding", "gzip")]), Some("{}"), 415),
        (post("/mcp", &[("origin", "https://evil.test")]), Some("{}"), 403),
        // A session that is not at this backend any more.
        (
            post("/mcp", &[("mcp-session-id", &foreign)]),
            Some(&*Box::leak(tool("get-sum").into_boxed_str())),
            404,
        ),
        (lines("GET", "/none", &[]), None, 503),
        (
            lines(
                "OPTIONS",
                "/cors",
                &[("origin", "https://evil.test"), ("access-control-request-method", "POST")],
            ),
            None,
            403,
        ),
    ];
    for (lines, body, status) in cases {
        let (answer, call) = world.decide(&lines, body).await;
        assert_eq!(refusal(&answer).0, status, "{lines:?}");
        call.ends().await;
    }
}

#[tokio::test]
async fn header_lines_over_the_limit() {
    let world = World::start(&[]).await;
    // The host is one too; what Envoy adds is none.
    let envoys = [
        ("x-forwarded-proto", "https"),
        ("x-envoy-external-address", "192.0.2.7"),
        ("x-forwarded-client-cert", ""),
    ];
    for (sent, status) in [(99, None), (100, Some(431))] {
        let names: Vec<String> = (0..sent).map(|number| format!("x-{number}")).collect();
        let mut more: Vec<_> = names.iter().map(|name| (name.as_str(), "1")).collect();
        more.extend(envoys);
        let mut call = world.call().await;
        let answer = call.exchange(request(&lines("GET", "/svc/x", &more), true)).await;
        match status {
            None => assert!(answer.dynamic_metadata.is_some(), "{sent}: {answer:?}"),
            Some(status) => assert_eq!(refusal(&answer).0, status),
        }
        call.ends().await;
    }
}

#[tokio::test]
async fn bodies_over_the_limit() {
    let world = World::start(&["--max-body-bytes=1000"]).await;
    let over =
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"a":"{}"}}}}"#, "x".repeat(1000));
    // Announced: nobody asks for it.
    let mut call = world.call().await;
    let answer = call.exchange(request(&post("/mcp", &[("content-length", "1001")]), false)).await;
    assert_eq!(refusal(&answer).0, 413);
    call.ends().await;
    // Not announced: it is seen when it has come.
    let (answer, call) = world.decide(&post("/mcp", &[]), Some(&over)).await;
    assert_eq!(refusal(&answer).0, 413);
    call.ends().await;
    // Far over: the message itself is too large, and the stream does not end well.
    let mut call = world.call().await;
    call.exchange(request(&post("/mcp", &[]), false)).await;
    call.send(chunk(Message::RequestBody, &vec![b' '; 3 << 20], true));
    match call.answer().await {
        Err(_) => {}
        Ok(answer) => assert!(refusal(&answer.unwrap()).0 >= 400),
    }
}

#[tokio::test]
async fn hosts_are_resolved_here() {
    let world = World::start(&["--resolve=mcp.example.com:443:192.0.2.9"]).await;
    let (answer, _call) = world.decide(&post("/remote", &[]), Some(&tool("get-sum"))).await;
    let metadata = fields(answer.dynamic_metadata.as_ref().unwrap(), "agentic");
    assert_eq!(metadata("endpoint").as_deref(), Some("192.0.2.9:443"));
    let after = changed(&post("/remote", &[]), common(&answer).header_mutation.as_ref());
    assert!(after.contains(&(":authority".to_owned(), "mcp.example.com".to_owned())), "{after:?}");

    // A name must not lead to this machine.
    let (answer, call) = world.decide(&post("/loopback", &[]), Some(&tool("get-sum"))).await;
    assert_eq!(refusal(&answer), (503, "the backend cannot be reached".to_owned()));
    call.ends().await;
}

#[tokio::test]
async fn a_plain_listener_gives_no_identity() {
    let world = World::start(&[]).await;
    let mut call = world.envoy.call(&plain_metadata()).await.unwrap();
    call.exchange(request(&post("/mcp", &[]), false)).await;
    check_denied(&call.exchange(chunk(Message::RequestBody, tool("get-sum").as_bytes(), true)).await);
}

#[tokio::test]
async fn other_endpoints_are_named_for_the_case_that_one_is_dead() {
    let world = World::start(&[]).await;
    let slice = r#"
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: none-1, namespace: ns, labels: {kubernetes.io/service-name: none}}
addressType: IPv4
ports: [{name: mcp, port: 3001}]
endpoints: [{addresses: ["10.0.1.1"]}, {addresses: ["10.0.1.2"]}, {addresses: ["10.0.1.3"]}, {addresses: ["10.0.1.4"]}]
"#;
    world.change(slice).await;
    let mut firsts = Vec::new();
    for _ in 0..4 {
        let (answer, _call) = world.decide(&lines("GET", "/none", &[]), None).await;
        let named = fields(answer.dynamic_metadata.as_ref().unwrap(), "agentic")("endpoint").unwrap();
        let named: Vec<&str> = named.split(',').collect();
        let all = ["10.0.1.1:3001", "10.0.1.2:3001", "10.0.1.3:3001", "10.0.1.4:3001"];
        let at = all.iter().position(|one| *one == named[0]).unwrap();
        let expected: Vec<&str> = all.iter().cycle().skip(at).take(3).copied().collect();
        assert_eq!(named, expected);
        firsts.push(at);
    }
    firsts.sort_unstable();
    assert_eq!(firsts, [0, 1, 2, 3], "each in turn");
}

#[tokio::test]
async fn trailers_of_a_body_that_was_read_are_dropped() {
    let world = World::start(&[]).await;
    let trailers = || {
        let header = |key: &str| EnvoyHeader { key: key.to_owned(), ..EnvoyHeader::default() };
        let headers = Some(EnvoyHeaders { headers: vec![header("x-late"), header("authorization")] });
        let trailers = Message::RequestTrailers(HttpTrailers { trailers: headers });
        ProcessingRequest { request: Some(trailers), ..ProcessingRequest::default() }
    };
    let session = sealed(ENDPOINT);
    for session in [Some(session.as_str()), None] {
        let more: Vec<_> = session.iter().map(|id| ("mcp-session-id", *id)).collect();
        let mut call = world.call().await;
        call.exchange(request(&post("/mcp", &more), false)).await;
        // The body does not end the request: trailers follow.
        let answer = call.exchange(chunk(Message::RequestBody, tool("get-sum").as_bytes(), false)).await;
        assert!(answer.dynamic_metadata.is_some());
        let answer = call.exchange(trailers()).await;
        let Some(Kind::RequestTrailers(answer)) = answer.response else { panic!("{answer:?}") };
        assert_eq!(answer.header_mutation.unwrap().remove_headers, ["x-late", "authorization"]);
        if session.is_none() {
            call.exchange(response(&[("content-type", "application/json")], Some(ENDPOINT), false)).await;
        }
        call.ends().await;
    }
    // What is denied is denied, whatever follows.
    let mut call = world.call().await;
    call.exchange(request(&post("/mcp", &[]), false)).await;
    check_denied(&call.exchange(chunk(Message::RequestBody, tool("echo").as_bytes(), false)).await);
    call.ends().await;
}
