//! What an HTTP authorizer writes into its connection, any bytes, through the real client over loopback: only a whole answer 200
//! allows, and nothing is copied from it that is not listed or may not be set.
#![no_main]

#[path = "../support/verdict.rs"]
mod expected;

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use ext_authz::{Check, Client, Peer, Protocol, Settings, Verdict};
use http::HeaderMap;
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

/// Copied from an answer if it may be: some of these may not.
const LISTED: [&str; 6] = ["x-user", "x-tenant", "host", "content-length", "mcp-session-id", "connection"];
const STATUS_OK: [&[u8]; 2] = [b"HTTP/1.1 200", b"HTTP/1.0 200"];

/// Answers whatever it is asked with the bytes that were given last.
struct Authorizer {
    port: u16,
    answer: Arc<Mutex<Vec<u8>>>,
}

static AUTHORIZER: LazyLock<Authorizer> = LazyLock::new(|| {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let answer = Arc::new(Mutex::new(Vec::new()));
    let given = Arc::clone(&answer);
    std::thread::spawn(move || {
        for mut connection in listener.incoming().filter_map(Result::ok) {
            let answer = given.lock().unwrap_or_else(PoisonError::into_inner).clone();
            // A client that has gone away is none of our business here.
            let _gone = serve(&mut connection, &answer);
        }
    });
    Authorizer { port, answer }
});

fn serve(connection: &mut TcpStream, answer: &[u8]) -> std::io::Result<()> {
    connection.set_read_timeout(Some(Duration::from_secs(5)))?;
    let (mut request, mut chunk) = (Vec::new(), [0; 1024]);
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = connection.read(&mut chunk)?;
        if read == 0 {
            return Ok(());
        }
        request.extend_from_slice(&chunk[..read]);
    }
    connection.write_all(answer)?;
    connection.shutdown(Shutdown::Write)?;
    while connection.read(&mut chunk)? > 0 {}
    Ok(())
}

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_all().build().expect("a runtime"));

fuzz_target!(|bytes: &[u8]| {
    *AUTHORIZER.answer.lock().unwrap_or_else(PoisonError::into_inner) = bytes.to_vec();
    let verdict = RUNTIME.block_on(ask(endpoint()));
    match verdict {
        Verdict::Allowed(allowed) => {
            let at = STATUS_OK.iter().any(|line| bytes.windows(line.len()).any(|part| part == *line));
            assert!(at, "an answer that is not 200 allowed");
            assert!(allowed.response_headers.is_empty() && allowed.query_set.is_empty());
            for change in &allowed.request_headers {
                let name = change.name().as_str();
                assert!(LISTED.contains(&name) && expected::may_change(name), "{name}");
            }
        }
        Verdict::Denied(denied) => {
            assert!((300..=499).contains(&denied.status.as_u16()));
            expected::is_clean(&denied.headers);
        }
        Verdict::Unreachable(_) => {}
    }
});

/// Another address of loopback each time: connections that were closed occupy theirs for a while.
fn endpoint() -> SocketAddr {
    static NEXT: Mutex<u16> = Mutex::new(0);
    let mut next = NEXT.lock().unwrap_or_else(PoisonError::into_inner);
    *next = next.wrapping_add(1);
    let [high, low] = next.to_be_bytes();
    (Ipv4Addr::new(127, 1, high, low), AUTHORIZER.port).into()
}

async fn ask(endpoint: SocketAddr) -> Verdict {
    let client = Client::new(Settings {
        protocol: Protocol::Http {
            path: "/check".to_owned(),
            allowed_headers: Vec::new(),
            allowed_response_headers: LISTED.map(str::to_owned).to_vec(),
        },
        authority: "authorizer.ns.svc".to_owned(),
        endpoints: vec![endpoint],
        forward_body: None,
        timeout: Duration::from_secs(5),
    });
    client
        .check(&Check {
            source: Peer::default(),
            destination: Peer::default(),
            request_id: "1",
            method: "POST",
            path_and_query: "/mcp",
            host: "gw.example",
            scheme: "https",
            http_version: "HTTP/1.1",
            headers: &HeaderMap::new(),
            body: &Bytes::new(),
            message: None,
            time: SystemTime::UNIX_EPOCH,
        })
        .await
}
