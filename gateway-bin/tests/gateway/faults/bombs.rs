//! Much in a little, and a lot of it.
use std::time::{Duration, Instant};

use super::serves_others;
use crate::support::{Upstream, World, call, manifests, raw};

const HEAD: &str = "POST /mcp HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
                    accept: application/json, text/event-stream\r\n";

fn post(body: &str) -> String {
    format!("{HEAD}content-length: {}\r\n\r\n{body}", body.len())
}

/// A message of 1 MiB, less a little, whose arguments are `text` as often as it fits.
fn filled(begin: &str, text: impl Fn(usize) -> String, end: &str) -> String {
    let open = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","arguments":"#;
    let mut body = format!("{open}{begin}");
    for count in 0.. {
        let more = text(count);
        if body.len() + more.len() + end.len() + 2 > 1 << 20 {
            break;
        }
        body.push_str(&more);
    }
    format!("{body}{end}}}}}")
}

/// Whatever it is, it is answered soon, with this status.
#[tokio::test]
async fn heads_and_bodies() {
    let upstream = Upstream::json().await;
    let world = World::start(&manifests(upstream.address, "")).await;
    let get = |lines: &str| format!("GET /svc/x HTTP/1.1\r\nhost: a\r\n{lines}\r\n");
    let batch = |count: usize| format!("[{}]", vec![call("x"); count].join(","));
    let legacy = |body: &str| {
        format!("{HEAD}mcp-protocol-version: 2025-03-26\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    let cases = [
        ("a line of 100 kB", get(&format!("x: {}\r\n", "y".repeat(100_000))), 431),
        ("a name of 100 kB", get(&format!("{}: y\r\n", "x".repeat(100_000))), 431),
        ("101 lines", get(&"x: y\r\n".repeat(100)), 431),
        ("a hundred thousand lines", get(&"x: y\r\n".repeat(100_000)), 431),
        ("a target of 100 kB", format!("GET /svc/{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(100_000)), 431),
        ("a target of 100 kB, and no more", format!("GET /svc/{}", "x".repeat(100_000)), 431),
        ("an announced terabyte", format!("{HEAD}content-length: 1099511627776\r\n\r\n{{"), 413),
        (
            "chunks without end",
            format!(
                "{HEAD}transfer-encoding: chunked\r\n\r\n{}",
                format!("400\r\n{}\r\n", " ".repeat(1024)).repeat(2000)
            ),
            413,
        ),
        (
            "a chunk's extension without end",
            format!("{HEAD}transfer-encoding: chunked\r\n\r\n1;{}", "x".repeat(1 << 20)),
            400,
        ),
        (
            "trailers without end",
            format!(
                "{HEAD}transfer-encoding: chunked\r\n\r\n{:x}\r\n{}\r\n0\r\n{}",
                call("x").len(),
                call("x"),
                "x: y\r\n".repeat(100_000)
            ),
            400,
        ),
        ("half a megabyte of depth", post(&"[".repeat(500_000)), 400),
        ("depth in arguments", post(&filled("{\"a\":", |_| "[".to_owned(), "}")), 400),
        ("two hundred thousand equal keys", post(&filled("{", |_| "\"a\":1,".to_owned(), "\"a\":1}")), 400),
        ("a batch of 33", legacy(&batch(33)), 400),
        ("a batch of ten thousand", legacy(&batch(10_000)), 400),
        ("a number of a megabyte", post(&filled("{\"a\":", |_| "9".to_owned(), "}")), 400),
    ];
    let mut slowest = (Duration::ZERO, "");
    for (name, request, status) in &cases {
        let began = Instant::now();
        let answer = raw(world.address(10002), request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {answer}");
        slowest = slowest.max((began.elapsed(), name));
    }
    assert!(upstream.seen().is_empty(), "{:?}", upstream.seen());
    // One second of that is ours, who wait for more.
    assert!(slowest.0 < Duration::from_secs(10), "{slowest:?}");
    assert!(world.metric(r#"agentic_gateway_connections_failed_total{reason="head_too_large"}"#).await >= 4);
    serves_others(&world).await;
}

/// As large as may be, and as hard to read; it is let through, and took no more time than that.
#[tokio::test]
async fn what_is_within_the_limits_costs_little() {
    let upstream = Upstream::json().await;
    let world = World::start(&manifests(upstream.address, "")).await;
    for (name, body) in [
        ("keys that differ", filled("{", |count| format!("\"{count}\":1,"), "\"a\":1}")),
        ("keys that are escaped", filled("{", |count| format!("\"\\u0061{count}\":1,"), "\"a\":1}")),
        ("objects in a list", filled("{\"a\":[", |_| "{\"a\":1},".to_owned(), "{}]}")),
        ("one string of escapes", filled("{\"a\":\"", |_| "\\u0061".to_owned(), "\"}")),
    ] {
        let began = Instant::now();
        let mut client = world.plain_client().await;
        let reply = client.mcp(&body, &[]).await.unwrap();
        assert_eq!(reply.status.as_u16(), 200, "{name}: {}", reply.body);
        // Milliseconds where it is built for speed.
        assert!(began.elapsed() < Duration::from_secs(5), "{name}: {:?}", began.elapsed());
        assert_eq!(upstream.seen().last().unwrap().body, body);
    }
}
