//! Servers that break off, or answer what is no answer.
use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

use crate::support::{AGENT, TlsUpstream, World, allow_tools, call, manifests};

/// What a server sends once it has the whole request: the rest when the client has the first part of it. Then it ends the
/// connection.
#[derive(Debug, Clone, Default)]
struct Answer {
    first: String,
    rest: Option<String>,
    resets: bool,
}

#[derive(Default)]
struct Server {
    answer: Mutex<Answer>,
    go_on: Notify,
}

impl Server {
    async fn start() -> (std::net::SocketAddr, Arc<Self>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Arc::new(Self::default());
        let serving = Arc::clone(&server);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let server = Arc::clone(&serving);
                tokio::spawn(async move { server.answer(stream).await });
            }
        });
        (address, server)
    }

    async fn answer(&self, mut stream: TcpStream) {
        let mut request = Vec::new();
        while !request.ends_with(b"}}") {
            if stream.read_buf(&mut request).await.unwrap() == 0 {
                return;
            }
        }
        let Answer { first, rest, resets } = self.answer.lock().unwrap().clone();
        drop(stream.write_all(first.as_bytes()).await);
        if let Some(rest) = rest {
            self.go_on.notified().await;
            drop(stream.write_all(rest.as_bytes()).await);
        }
        if resets {
            stream.set_zero_linger().unwrap();
        }
    }

    /// A call that is answered so: status, body as far as it came, and whether it came to its end. The server goes on
    /// when this much of the body has come.
    async fn ask(&self, world: &World, answer: Answer, until: usize) -> (u16, String, bool) {
        *self.answer.lock().unwrap() = answer;
        let mut agent = world.client(AGENT).await;
        let request = http::Request::builder()
            .method("POST")
            .uri("/mcp")
            .header("host", "gateway.test")
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .body(Full::new(Bytes::from(call("get-sum"))))
            .unwrap();
        let (parts, mut body) = agent.send(request).await.unwrap().into_parts();
        let mut text = String::new();
        let is_whole = loop {
            match tokio::time::timeout(Duration::from_secs(10), body.frame()).await.expect("it hangs") {
                None => break true,
                Some(Err(_)) => break false,
                Some(Ok(frame)) => {
                    text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
                    if text.len() >= until {
                        self.go_on.notify_one();
                    }
                }
            }
        };
        (parts.status.as_u16(), text, is_whole)
    }

    /// It is a server as any other.
    async fn is_well(&self, world: &World) {
        let good = Answer { first: GOOD.to_owned(), ..Answer::default() };
        assert_eq!(self.ask(world, good, usize::MAX).await, (200, "{}".to_owned(), true));
    }
}

const GOOD: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";

#[tokio::test]
async fn answers_that_are_none_are_502() {
    let (address, server) = Server::start().await;
    let world = World::start(&manifests(address, &allow_tools("get-sum"))).await;
    let json = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    let mut failed = 0;
    for (name, bytes) in [
        ("nothing", String::new()),
        ("half a head", "HTTP/1.1 200 OK\r\ncontent-ty".to_owned()),
        ("another protocol", "SSH-2.0-x\r\n".to_owned()),
        ("a head without end", format!("{json}x: {}\r\n\r\n{{}}", "y".repeat(1 << 20))),
        ("a thousand lines", format!("{json}{}content-length: 2\r\n\r\n{{}}", "x: y\r\n".repeat(1000))),
        ("two lengths", format!("{json}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}")),
        ("a length that is none", format!("{json}content-length: -1\r\n\r\n{{}}")),
        ("a folded line", format!("{json}x: y\r\n\0z\r\ncontent-length: 2\r\n\r\n{{}}")),
        (
            "another protocol, unasked",
            "HTTP/1.1 101 X\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n".to_owned(),
        ),
    ] {
        for resets in [false, true] {
            let answer = Answer { first: bytes.clone(), rest: None, resets };
            let (status, text, is_whole) = server.ask(&world, answer, usize::MAX).await;
            assert_eq!((status, is_whole), (502, true), "{name}: {text}");
            failed += 1;
        }
    }
    let counted =
        r#"agentic_gateway_requests_total{listener="https",decision="allow",reason="allowed",status="5xx"}"#;
    assert_eq!(world.metric(counted).await, failed);
    server.is_well(&world).await;
}

#[tokio::test]
async fn a_body_that_breaks_off_ends_as_broken() {
    let (address, server) = Server::start().await;
    let text = manifests(address, &allow_tools("get-sum"));
    for flags in [&[][..], &["--filter-lists"]] {
        let world = World::start_with(&text, flags).await;
        let events =
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        let whole = "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}\n\n";
        let half = "data: {\"jsonrpc\":\"2.0\",\"id\":7,\"resu";
        let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
        let (begun, short) = (format!("{events}{}", chunk(whole)), GOOD.replace("length: 2", "length: 3"));
        let mut broken = 0;
        for (name, first, rest, came) in [
            ("before its length", &short, String::new(), "{}"),
            ("between events", &begun, String::new(), whole),
            ("in an event", &begun, chunk(half), whole),
            ("in a chunk", &begun, format!("ff\r\n{half}"), whole),
            ("a chunk that is none", &begun, format!("zz\r\n{half}\r\n"), whole),
        ] {
            for resets in [false, true] {
                let answer = Answer { first: first.clone(), rest: Some(rest.clone()), resets };
                let (status, text, is_whole) = server.ask(&world, answer, came.len()).await;
                assert!(status == 200 && text.starts_with(came) && !is_whole, "{name}: {status} {text}");
                broken += 1;
            }
        }
        assert_eq!(world.metric("agentic_gateway_responses_broken_total").await, broken);
        server.is_well(&world).await;
    }
}

/// The clocks of the two differ, or nobody renewed it.
#[tokio::test]
async fn a_certificate_out_of_its_time_is_no_certificate() {
    const HOUR: Duration = Duration::from_secs(3600);
    let now = SystemTime::now();
    let (name, minute) = ("mcp.example.test", Duration::from_secs(60));
    for (from, to, status) in
        [(now - HOUR, now - minute, 503), (now + minute, now + HOUR, 503), (now - minute, now + HOUR, 200)]
    {
        let upstream = TlsUpstream::valid(name, from, to).await;
        let text = manifests(upstream.address, &allow_tools("get-sum")).replace(
            &format!("serviceName: server, port: {}", upstream.address.port()),
            &format!("hostname: {name}, port: 443"),
        );
        let resolve = format!("{name}:443:{}", upstream.address);
        let flags = ["--resolve", &resolve, "--extra-ca", upstream.roots.to_str().unwrap()];
        let world = World::start_with(&text, &flags).await;
        assert_eq!(world.client(AGENT).await.call("get-sum").await.status.as_u16(), status);
        assert_eq!(upstream.seen().len(), usize::from(status == 200));
    }
}
