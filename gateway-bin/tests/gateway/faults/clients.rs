//! Clients that are slow, break off, or come in numbers.
use std::{
    io::BufRead as _,
    net::SocketAddr,
    path::Path,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
};

use super::serves_others;
use crate::support::{
    AGENT, Client, DENIED, Upstream, World, allow_tools, call, eventually, manifests, metric, svid,
};

const LEFT: &str = "the request ended before its response";

/// How a client ends its connection.
#[derive(Debug, Clone, Copy)]
enum End {
    /// It says that nothing more comes, and still reads.
    Half,
    /// It closes.
    Closed,
    /// It resets the connection.
    Reset,
}

/// Ends a connection; what still came.
async fn end(mut stream: TcpStream, how: End) -> String {
    let mut answer = Vec::new();
    match how {
        End::Half => {
            stream.shutdown().await.unwrap();
            let read = stream.read_to_end(&mut answer);
            // A connection that the gateway resets ends, too.
            drop(tokio::time::timeout(Duration::from_secs(5), read).await.expect("it is left open"));
        }
        End::Closed => drop(stream),
        End::Reset => {
            stream.set_zero_linger().unwrap();
            drop(stream);
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_body_that_breaks_off_reaches_nobody_and_is_counted() {
    let upstream = Upstream::json().await;
    // Without policies: all of it would be let through.
    let world = World::start(&manifests(upstream.address, "")).await;
    let head = "POST /mcp HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
                accept: application/json, text/event-stream\r\n";
    let message = call("get-sum");
    let (half, _) = message.split_at(message.len() / 2);
    let mut sent = 0;
    for (name, text) in [
        ("a length", format!("{head}content-length: {}\r\n\r\n{half}", message.len())),
        ("chunks", format!("{head}transfer-encoding: chunked\r\n\r\n{:x}\r\n{half}", message.len())),
        // All of the message is there, and nothing says so.
        (
            "no last chunk",
            format!("{head}transfer-encoding: chunked\r\n\r\n{:x}\r\n{message}\r\n", message.len()),
        ),
    ] {
        for how in [End::Half, End::Closed, End::Reset] {
            let mut stream = TcpStream::connect(world.address(10002)).await.unwrap();
            stream.write_all(text.as_bytes()).await.unwrap();
            sent += 1;
            // It waits for the rest.
            eventually("the request has come", || async {
                world.metric("agentic_gateway_connections").await >= 1
            })
            .await;
            let answer = end(stream, how).await;
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{name}, {how:?}: {answer}");
            eventually("the connection is gone", || async {
                world.metric("agentic_gateway_connections").await == 0
            })
            .await;
        }
    }
    assert!(upstream.seen().is_empty(), "{:?}", upstream.seen());
    serves_others(&world).await;
    eventually("each was counted", || async { world.requests().await == sent + 1 }).await;
}

#[tokio::test]
async fn a_head_that_breaks_off_reaches_nobody() {
    let upstream = Upstream::json().await;
    let world = World::start(&manifests(upstream.address, "")).await;
    for text in ["", "G", "GET /svc/x HTTP/1.1\r\nhost: a\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        for how in [End::Half, End::Closed, End::Reset] {
            let mut stream = TcpStream::connect(world.address(10002)).await.unwrap();
            stream.write_all(text.as_bytes()).await.unwrap();
            end(stream, how).await;
        }
    }
    eventually("the connections are gone", || async {
        world.metric("agentic_gateway_connections").await == 0
    })
    .await;
    assert!(upstream.seen().is_empty());
    serves_others(&world).await;
}

/// A head is awaited for so long in all, however it drips: the first of a connection, and any after it.
#[tokio::test]
async fn a_head_that_drips_is_not_awaited() {
    let upstream = Upstream::json().await;
    let world = World::start_with(&manifests(upstream.address, ""), &["--header-timeout", "500ms"]).await;
    for (count, before) in [(1, ""), (2, "GET /svc/x HTTP/1.1\r\nhost: a\r\n\r\n")] {
        let (mut read, mut write) = TcpStream::connect(world.address(10002)).await.unwrap().into_split();
        write.write_all(before.as_bytes()).await.unwrap();
        let dripping = tokio::spawn(async move {
            let head = format!("GET /svc/x HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(10_000));
            let mut beats = tokio::time::interval(Duration::from_millis(20));
            for byte in head.bytes() {
                beats.tick().await;
                if write.write_all(&[byte]).await.is_err() {
                    return;
                }
            }
        });
        let mut answer = Vec::new();
        let read = read.read_to_end(&mut answer);
        drop(tokio::time::timeout(Duration::from_secs(10), read).await.expect("it is still awaited"));
        dripping.abort();
        let answers = String::from_utf8_lossy(&answer).matches("HTTP/1.1 200").count();
        assert_eq!((answers, upstream.seen().len()), (count - 1, count - 1));
        let timeouts = r#"agentic_gateway_connections_failed_total{reason="timeout"}"#;
        eventually("it is counted", || async { world.metric(timeouts).await == count as u64 }).await;
    }
    serves_others(&world).await;
}

/// What a server did for a client that did not wait is in the log all the same.
#[tokio::test]
async fn a_client_that_leaves_is_accounted_for() {
    let upstream = Upstream::silent().await;
    let text = manifests(upstream.address, &allow_tools("get-sum"));
    let (world, mut lines) = World::start_logged(&text).await;
    for (count, http2) in [(1, false), (2, true)] {
        let own = svid(&world.ca, AGENT, SystemTime::now() + Duration::from_secs(60));
        let address = world.address(10001);
        let mut agent =
            Client::tls(address, &world.ca.roots_pem(), Some(&own), "gateway.test", http2).await.unwrap();
        let message = call("get-sum");
        tokio::select! {
            reply = agent.mcp(&message, &[]) => panic!("an answer: {}", reply.unwrap().body),
            () = eventually("the server has it", || async { upstream.seen().len() == count }) => {}
        }
        drop(agent);
        let line = tokio::time::timeout(Duration::from_secs(10), lines.recv()).await.unwrap().unwrap();
        let line: Value = serde_json::from_str(&line).unwrap();
        let expected = json!({
            "identity": AGENT, "mcp_method": "tools/call", "tool": "get-sum", "decision": "allow",
            "backend": "xbackend/ns/server", "policy": "ns/tools", "error": LEFT,
        });
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(&line[key], value, "`{key}` of {line}");
        }
        assert!(line.get("status").is_none(), "{line}");
    }
    assert_eq!(upstream.seen().len(), 2);
    let counted =
        r#"agentic_gateway_requests_total{listener="https",decision="allow",reason="allowed",status="none"}"#;
    assert_eq!(world.metric(counted).await, 2);
}

/// Over HTTP/1.1 a client that half closes its connection counts as gone: it has its answer before that, or none.
#[tokio::test]
async fn half_closed_after_the_request() {
    let upstream = Upstream::json().await;
    let world = World::start(&manifests(upstream.address, &allow_tools("get-sum"))).await;
    for _ in 0..10 {
        let message = call("echo");
        let text = format!(
            "POST /mcp HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
             accept: application/json, text/event-stream\r\ncontent-length: {}\r\n\r\n{message}",
            message.len()
        );
        let mut stream = TcpStream::connect(world.address(10002)).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let answer = end(stream, End::Half).await;
        assert!(answer.is_empty() || answer.ends_with(DENIED), "{answer}");
    }
    assert!(upstream.seen().is_empty());
    serves_others(&world).await;
    eventually("each was counted", || async { world.requests().await == 11 }).await;
}

/// The server of a stream whose client is gone is told so.
#[tokio::test]
async fn a_stream_that_nobody_reads_any_more_ends() {
    let (sender, gone) = mpsc::unbounded_channel::<()>();
    let upstream = Upstream::start(move |_| {
        let alive = Alive(sender.clone());
        let mut first = Some(Frame::data(Bytes::from_static(b"data: 1\n\n")));
        let frames = futures_util::stream::poll_fn(move |_| {
            let _alive = &alive;
            match first.take() {
                Some(frame) => std::task::Poll::Ready(Some(Ok(frame))),
                None => std::task::Poll::Pending,
            }
        });
        Response::builder()
            .header("content-type", "text/event-stream")
            .body(http_body_util::BodyExt::boxed(StreamBody::new(frames)))
            .unwrap()
    })
    .await;
    let world = World::start(&manifests(upstream.address, &allow_tools("get-sum"))).await;
    let mut gone = gone;
    for http2 in [false, true] {
        let own = svid(&world.ca, AGENT, SystemTime::now() + Duration::from_secs(60));
        let address = world.address(10001);
        let mut agent =
            Client::tls(address, &world.ca.roots_pem(), Some(&own), "gateway.test", http2).await.unwrap();
        let request = http::Request::builder()
            .method("POST")
            .uri(if http2 { "https://gateway.test/mcp" } else { "/mcp" })
            .header("host", "gateway.test")
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .body(http_body_util::Full::new(Bytes::from(call("get-sum"))))
            .unwrap();
        let mut body = agent.send(request).await.unwrap().into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "data: 1\n\n");
        // Over HTTP/2 this resets the stream and keeps the connection.
        drop(body);
        if !http2 {
            drop(agent);
        }
        tokio::time::timeout(Duration::from_secs(10), gone.recv())
            .await
            .expect("the server goes on")
            .unwrap();
    }
    let broken = world.metric("agentic_gateway_responses_broken_total").await;
    assert_eq!(broken, 0, "that is no fault of the server's");
}

/// Tells when it is dropped.
struct Alive(mpsc::UnboundedSender<()>);

impl Drop for Alive {
    fn drop(&mut self) {
        // The test may be over.
        let _over = self.0.send(()).is_err();
    }
}

/// Clients beyond the limit wait in the kernel; they are refused nothing, and served when there is room.
#[tokio::test]
async fn more_connections_than_the_limit_wait() {
    let upstream = Upstream::json().await;
    let flags = ["--max-connections", "8"];
    let world = World::start_with(&manifests(upstream.address, ""), &flags).await;
    let mut idle = Vec::new();
    for _ in 0..8 {
        idle.push(TcpStream::connect(world.address(10002)).await.unwrap());
    }
    eventually("all are open", || async { world.metric("agentic_gateway_connections").await == 8 }).await;
    let mut waiting = TcpStream::connect(world.address(10002)).await.unwrap();
    waiting.write_all(b"GET /svc/x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let early = tokio::time::timeout(Duration::from_millis(300), waiting.read_buf(&mut answer)).await;
    assert!(early.is_err(), "served over the limit: {early:?}");
    assert_eq!(world.metric("agentic_gateway_connections").await, 8);
    idle.pop();
    let read = waiting.read_to_end(&mut answer);
    tokio::time::timeout(Duration::from_secs(10), read).await.unwrap().unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}

/// The program itself, as a service manager starts it.
struct Program(std::process::Child);

impl Program {
    /// Under this shell command's limits; it, and the addresses of its plain listener and of its metrics.
    fn start(limit: &str, manifests: &Path) -> (Self, SocketAddr, SocketAddr) {
        let mut child = std::process::Command::new("sh")
            .args([
                "-c",
                &format!(r#"{limit}; exec "$@""#),
                "sh",
                env!("CARGO_BIN_EXE_agentic-gateway"),
                "run",
            ])
            .args([
                "--listen",
                "10002=127.0.0.1:0",
                "--admin-addr",
                "127.0.0.1:0",
                "--no-access-log",
                "--manifests",
            ])
            .arg(manifests)
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines();
        let program = Self(child);
        let mut lines = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
        let mut said = |message: &str, field: &str| -> SocketAddr {
            let line = lines.find(|line| line["message"] == message).unwrap();
            line[field].as_str().unwrap().parse().unwrap()
        };
        let found = (said("listening", "address"), said("ready", "admin"));
        // It must not wait for a reader.
        std::thread::spawn(move || lines.count());
        (program, found.0, found.1)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Connections of idle clients do not use up what others need: a limit that may be raised is, and under one that may not be
/// fewer are taken.
#[tokio::test]
async fn idle_clients_leave_files_for_the_others() {
    let upstream = Upstream::json().await;
    let text =
        manifests(upstream.address, "").replace("  - {name: https, protocol: HTTPS, port: 10001}\n", "");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("all.yaml");
    std::fs::write(&file, text).unwrap();
    for (limit, open) in [("ulimit -S -n 100", 121), ("ulimit -n 100", (100 - 64) / 2)] {
        let (_program, address, admin) = Program::start(limit, &file);
        let mut early = Client::plain(address).await;
        assert_eq!(early.request("GET", "/svc/x", &[], "").await.unwrap().status.as_u16(), 200);
        let mut idle = Vec::new();
        // No more than fit in any kernel's queue.
        for _ in 0..120 {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        eventually("as many as there may be are open", || async {
            metric(admin, "agentic_gateway_connections").await == open
        })
        .await;
        assert_eq!(early.request("GET", "/svc/x", &[], "").await.unwrap().status.as_u16(), 200, "{limit}");
        drop(idle);
        assert_eq!(
            Client::plain(address).await.request("GET", "/svc/x", &[], "").await.unwrap().status.as_u16(),
            200
        );
    }
}
