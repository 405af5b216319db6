//! Requests made to get something past the gateway, byte for byte as an attacker would write them. Every request
//! carries an id: one that begins with `no` must never be seen by a server, whatever the client is told; the others
//! must be seen exactly once where the table says so.
use bytes::Bytes;
use http::{Method, Request, Version};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::{
    wire::{Reply, exchange, replies},
    world::{CASE_ID, Feed, Running, Seen, World},
};

const AGENT: &str = "spiffe://cluster.local/ns/quickstart-ns/sa/adk-agent-sa";
const OTHER: &str = "spiffe://cluster.local/ns/quickstart-ns/sa/other-sa";
/// `get-sum` and base protocol for both agents, on every backend; on the Service, besides, whatever goes to /svc/open.
const POLICY: &str = r#"
apiVersion: agentic.networking.x-k8s.io/v1alpha1
kind: XAccessPolicy
metadata: {name: gw, namespace: quickstart-ns}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: agentic-net-gateway}]
  action: Allow
  rules:
  - name: agent
    source: {type: ServiceAccount, serviceAccount: {name: adk-agent-sa}}
    authorization: &mcp {type: Inline, mcp: {methods: [{name: tools/call, params: [get-sum]}], mcpBaseProtocolMethodsOption: MATCH_BASE_PROTOCOL_METHODS}}
  - name: other
    source: {type: ServiceAccount, serviceAccount: {name: other-sa}}
    authorization: *mcp
  - name: open
    authorization: {type: Inline, paths: [{type: Exact, value: /svc/open}]}
"#;
const SUM: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get-sum"}}"#;
const ECHO: &str = r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"echo"}}"#;
/// As rows spell it out.
const SUM_LENGTH: usize = 74;
/// The size that is allowed.
const LIMIT: usize = 4096;

async fn start(world: &World) -> Running<'_> {
    // No policy here delegates: an authorizer that allows everything must not come into it.
    world.memory.authorizers_allow(true);
    let flags = [
        format!("--max-body-bytes={LIMIT}"),
        "--header-timeout=5s".to_owned(),
        "--body-timeout=2s".to_owned(),
    ];
    world.gateway("adversary", &Feed::Files, POLICY, &flags).await
}

/// Sends bytes on a connection of its own, and gives what came back and what the servers saw.
async fn send(gateway: &Running<'_>, identity: &str, bytes: &[u8]) -> (Vec<u8>, Vec<Seen>) {
    gateway.world.memory.take_seen();
    let mut wire = gateway.connect("https", Some(identity), "localhost").await.unwrap();
    let received = exchange(&mut *wire, bytes).await.unwrap();
    (received, gateway.world.memory.take_seen())
}

fn ids(seen: &[Seen]) -> Vec<String> {
    seen.iter().map(Seen::id).collect()
}

/// A POST with these header lines and body, and its length.
fn post(path: &str, id: &str, lines: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\n{CASE_ID}: {id}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n{lines}\r\n{body}",
        body.len()
    )
}

/// The last request of a connection.
fn closing(path: &str, id: &str, lines: &str, body: &str) -> String {
    post(path, id, &format!("{lines}connection: close\r\n"), body)
}

/// A POST whose framing is what the lines say; the body follows as it is.
fn framed(path: &str, id: &str, lines: &str, rest: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\n{CASE_ID}: {id}\r\ncontent-type: application/json\r\n{lines}\r\n{rest}"
    )
}

/// What `expected` says of a row: the ids that the servers must have seen, in order; `None`: any but those with `no`.
struct Row {
    name: &'static str,
    bytes: Vec<u8>,
    expected: Option<&'static [&'static str]>,
}

fn row(name: &'static str, bytes: impl Into<Vec<u8>>, expected: Option<&'static [&'static str]>) -> Row {
    Row { name, bytes: bytes.into(), expected }
}

/// Runs a table and lists every row that fails.
async fn run(rows: Vec<Row>) {
    let world = World::start().await;
    let gateway = start(&world).await;
    let mut failures = Vec::new();
    for row in rows {
        let (received, seen) = send(&gateway, AGENT, &row.bytes).await;
        let ids = ids(&seen);
        // An id that was dropped, doubled or joined is none of those that were sent.
        let leaked = ids.iter().any(|id| !id.starts_with("ok") || id.contains(';'));
        if leaked || row.expected.is_some_and(|expected| ids != expected) {
            let received = replies(&received, false)
                .map(|replies| replies.iter().map(|reply| (reply.status, reply.text())).collect::<Vec<_>>());
            failures.push(format!("{}: the servers saw {seen:#?}; the client got {received:?}", row.name));
        }
        if received.windows(12).any(|window| window == b"HTTP/1.1 101") {
            failures.push(format!("{}: the protocol was switched", row.name));
        }
    }
    gateway.stop().await;
    assert_eq!(world.memory.take_asked(), Vec::<String>::new());
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
}

const SEEN: Option<&[&str]> = Some(&["ok"]);
const NONE: Option<&[&str]> = Some(&[]);

/// Two servers that disagree on where a request ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn framing() {
    assert_eq!(SUM.len(), SUM_LENGTH);
    // A request that must not come through, hidden behind one that may: for a server that splits otherwise.
    let hidden = closing("/local/mcp", "no-hidden", "", ECHO);
    let chunk = |body: &str| format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let sum = chunk(SUM);
    let mut rows = Vec::new();
    for path in ["/local/mcp", "/svc/open"] {
        for (name, lines) in [
            ("chunked after identity", "transfer-encoding: identity, chunked\r\n"),
            ("chunked before identity", "transfer-encoding: chunked, identity\r\n"),
            ("chunked twice", "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n"),
            ("chunked after gzip", "transfer-encoding: gzip, chunked\r\n"),
            ("nearly chunked", "transfer-encoding: xchunked\r\n"),
            ("chunked with a parameter", "transfer-encoding: chunked;x=y\r\n"),
            ("chunked in quotes", "transfer-encoding: \"chunked\"\r\n"),
            ("chunked after a vertical tab", "transfer-encoding: \x0bchunked\r\n"),
            ("space before the colon", "transfer-encoding : chunked\r\n"),
            ("folded", "transfer-encoding:\r\n chunked\r\n"),
            ("bare carriage return", "x: y\rtransfer-encoding: chunked\r\n"),
        ] {
            rows.push(row(name, framed(path, "no-framing", lines, &format!("{sum}{hidden}")), NONE));
        }
        for (name, lines) in [
            ("two lengths", "content-length: 5\r\ncontent-length: 6\r\n"),
            ("a list of lengths", "content-length: 74, 74\r\n"),
            ("a length with a sign", "content-length: +74\r\n"),
            ("a negative length", "content-length: -1\r\n"),
            ("a length in hexadecimal", "content-length: 0x4a\r\n"),
            ("no length", "content-length: \r\n"),
            ("a length beyond all", "content-length: 99999999999999999999999\r\n"),
            ("a length with a space in it", "content-length: 7 4\r\n"),
        ] {
            rows.push(row(name, framed(path, "no-length", lines, &format!("{SUM}{hidden}")), NONE));
        }
        for (name, body) in [
            ("a chunk size beyond all", format!("fffffffffffffffff\r\n{SUM}\r\n0\r\n\r\n{hidden}")),
            ("a negative chunk size", format!("-1\r\n{SUM}\r\n0\r\n\r\n{hidden}")),
            ("a chunk size with 0x", format!("0x4a\r\n{SUM}\r\n0\r\n\r\n{hidden}")),
            ("a chunk that is longer than its size", format!("4\r\n{SUM}\r\n0\r\n\r\n{hidden}")),
            ("no last chunk", format!("{:x}\r\n{SUM}\r\n", SUM.len())),
        ] {
            let bytes =
                framed(path, "no-chunk", "transfer-encoding: chunked\r\nconnection: close\r\n", &body);
            // To a Service that nobody looks into a body streams: its head may be seen, what is hidden may not.
            rows.push(row(
                name,
                if path == "/svc/open" { bytes.replace("no-chunk", "ok") } else { bytes },
                None,
            ));
        }
        // What is allowed arrives once, and what follows is a request of its own, which is decided on.
        rows.push(row(
            "chunked",
            framed(path, "ok", "transfer-encoding: chunked\r\n", &format!("{sum}{hidden}")),
            SEEN,
        ));
        let equal =
            framed(path, "no", "content-length: 74\r\ncontent-length: 74\r\n", &format!("{SUM}{hidden}"));
        rows.push(row("two equal lengths", equal, NONE));
        let bare = framed(path, "ok", "x: y\ntransfer-encoding: chunked\r\n", &format!("{sum}{hidden}"));
        rows.push(row("a bare line feed ends a line", bare, SEEN));
        rows.push(row("pipelined", format!("{}{hidden}", post(path, "ok", "", SUM)), SEEN));
    }
    rows.push(row(
        "chunk extensions",
        framed(
            "/local/mcp",
            "ok",
            "transfer-encoding: chunked\r\n",
            &format!("{:x};a=b\r\n{SUM}\r\n0;c\r\n\r\n{hidden}", SUM.len()),
        ),
        None,
    ));
    rows.push(row(
        "trailers are no headers",
        framed(
            "/local/mcp",
            "ok",
            "transfer-encoding: chunked\r\ntrailer: x-case-id, mcp-session-id\r\n",
            &format!("{:x}\r\n{SUM}\r\n0\r\n{CASE_ID}: no-trailer\r\nmcp-session-id: s\r\ncontent-length: 3\r\n\r\n{hidden}", SUM.len()),
        ),
        None,
    ));
    rows.push(row(
        "allowed, denied, allowed on one connection",
        format!(
            "{}{}{}",
            post("/local/mcp", "ok-1", "", SUM),
            post("/local/mcp", "no", "", ECHO),
            closing("/local/mcp", "ok-2", "", SUM)
        ),
        Some(&["ok-1", "ok-2"]),
    ));
    run(rows).await;
}

/// A length beside chunks, or two lengths: 400, and nothing after them on the connection is taken for a request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn length_and_chunks() {
    let world = World::start().await;
    let gateway = start(&world).await;
    let after = closing("/local/mcp", "no-after", "", SUM);
    for path in ["/local/mcp", "/svc/open"] {
        for lines in [
            "content-length: 5\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
            "content-length: 0\r\ntransfer-encoding: chunked\r\n",
            "content-length: 74\r\nx: y\r\ncontent-length: 74\r\n",
        ] {
            let rest = format!("{:x}\r\n{SUM}\r\n0\r\n\r\n{after}", SUM.len());
            // Also as the second request of a connection.
            for (first, answers) in [(String::new(), 1), (post(path, "ok", "", SUM), 2)] {
                let bytes = format!("{first}{}", framed(path, "no", lines, &rest));
                let (received, seen) = send(&gateway, AGENT, bytes.as_bytes()).await;
                assert_eq!(seen.len(), answers - 1, "{path} {lines}: {seen:?}");
                assert!(seen.iter().all(|seen| seen.id() == "ok"), "{path} {lines}: {seen:?}");
                let replies = replies(&received, false).unwrap();
                let statuses: Vec<_> = replies.iter().map(|reply| reply.status).collect();
                assert_eq!(
                    (statuses.len(), statuses.last().copied()),
                    (answers, Some(400)),
                    "{path} {lines}"
                );
            }
        }
    }
    gateway.stop().await;
}

/// Targets, versions, methods and heads that not everybody reads alike.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads() {
    let with = |line: &str, headers: &str, body: &str| {
        format!(
            "{line}\r\n{headers}content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
    };
    let host = format!("host: localhost\r\n{CASE_ID}: no\r\n");
    let ok = format!("host: localhost\r\n{CASE_ID}: ok\r\n");
    let denied = [
        ("absolute form", "POST https://localhost/local/mcp HTTP/1.1"),
        ("a double space", "POST  /local/mcp HTTP/1.1"),
        ("a tab", "POST\t/local/mcp HTTP/1.1"),
        ("no version", "POST /local/mcp"),
        ("version 0.9", "POST /local/mcp HTTP/0.9"),
        ("version 1.0", "POST /local/mcp HTTP/1.0"),
        ("version 2.0", "POST /local/mcp HTTP/2.0"),
        ("version 1.2", "POST /local/mcp HTTP/1.2"),
        ("a fragment", "POST /local/mcp#x HTTP/1.1"),
        ("an empty line before", "\r\nPOST /local/mcp HTTP/1.1"),
    ];
    let mut rows: Vec<Row> =
        denied.iter().map(|(name, line)| row(name, with(line, &host, ECHO), NONE)).collect();
    // Even what would be allowed is refused in these forms.
    for (name, line) in [
        ("absolute form of another host", "POST https://evil.example/local/mcp HTTP/1.1"),
        ("absolute form with a user", "POST https://user@localhost/local/mcp HTTP/1.1"),
        ("a path without a slash", "POST local/mcp HTTP/1.1"),
        ("authority form", "CONNECT localhost:443 HTTP/1.1"),
        ("CONNECT with a path", "CONNECT /svc/open HTTP/1.1"),
        ("TRACE", "TRACE /svc/open HTTP/1.1"),
        ("asterisk form", "OPTIONS * HTTP/1.1"),
        ("lower case", "post /local/mcp HTTP/1.1"),
        ("another method", "POSTS /local/mcp HTTP/1.1"),
        ("PRI", "PRI * HTTP/2.0"),
        ("bytes beyond ASCII", "POST /local/mcp\u{e9} HTTP/1.1"),
        ("a control character", "POST /local/mcp\x01 HTTP/1.1"),
    ] {
        rows.push(row(name, with(line, &host, SUM), NONE));
    }
    for (name, headers) in [
        ("no Host", format!("{CASE_ID}: no\r\n")),
        ("an empty Host", format!("host: \r\n{CASE_ID}: no\r\n")),
        ("two Hosts", format!("host: localhost\r\nHost: localhost\r\n{CASE_ID}: no\r\n")),
        ("Host with a user", format!("host: a@localhost\r\n{CASE_ID}: no\r\n")),
        ("Host with a path", format!("host: localhost/svc\r\n{CASE_ID}: no\r\n")),
        ("two in Host", format!("host: localhost, evil\r\n{CASE_ID}: no\r\n")),
        ("folded", format!("host: localhost\r\n{CASE_ID}: no\r\nx: a\r\n b\r\n")),
        ("a space in a name", format!("{host}x y: a\r\n")),
        ("a zero byte", format!("{host}x: a\0b\r\n")),
        ("a name that is empty", format!("{host}: a\r\n")),
    ] {
        rows.push(row(name, with("POST /local/mcp HTTP/1.1", &headers, SUM), NONE));
    }
    rows.push(row(
        "HTTP/1.0 without Host",
        with("POST /local/mcp HTTP/1.0", &format!("{CASE_ID}: no\r\n"), SUM),
        NONE,
    ));
    rows.push(row("HTTP/1.0", with("POST /local/mcp HTTP/1.0", &ok, SUM), SEEN));
    rows.push(row(
        "absolute form of the same host",
        with("POST https://localhost/local/mcp HTTP/1.1", &ok, SUM),
        SEEN,
    ));
    run(rows).await;
}

/// Bodies and their descriptions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies() {
    let mut rows = Vec::new();
    let typed = |path: &str, id: &str, lines: &str, body: &[u8]| {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\n{CASE_ID}: {id}\r\n{lines}content-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    };
    for (name, lines) in [
        ("no type", ""),
        ("an empty type", "content-type: \r\n"),
        ("text", "content-type: text/plain\r\n"),
        ("a form", "content-type: application/x-www-form-urlencoded\r\n"),
        ("upper case", "content-type: APPLICATION/JSON\r\n"),
        ("UTF-16", "content-type: application/json; charset=utf-16\r\n"),
        ("two types", "content-type: application/json\r\ncontent-type: text/plain\r\n"),
        ("two types, the other way", "content-type: text/plain\r\ncontent-type: application/json\r\n"),
        ("two types in a line", "content-type: text/plain, application/json\r\n"),
        ("a list of one", "content-type: application/json,\r\n"),
        ("a parameter that hides the type", "content-type: text/plain; x=\"application/json\r\n"),
        ("JSON of some kind", "content-type: application/vnd.api+json\r\n"),
        ("JSON lines", "content-type: application/x-ndjson\r\n"),
        ("bytes beyond ASCII", "content-type: application/json\u{a0}\r\n"),
        ("gzip", "content-type: application/json\r\ncontent-encoding: gzip\r\n"),
        ("a coding that is unknown", "content-type: application/json\r\ncontent-encoding: x\r\n"),
        (
            "two codings",
            "content-type: application/json\r\ncontent-encoding: identity\r\ncontent-encoding: gzip\r\n",
        ),
    ] {
        for path in ["/local/mcp", "/svc/mcp"] {
            rows.push(row(name, typed(path, "no", lines, ECHO.as_bytes()), NONE));
        }
    }
    let json = "content-type: application/json\r\n";
    let utf16: Vec<u8> = SUM.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let raw = |text: &str, bytes: &[u8]| {
        let at = SUM.find(text).unwrap() + text.len();
        [&SUM.as_bytes()[..at], bytes, &SUM.as_bytes()[at..]].concat()
    };
    for (name, body) in [
        ("a byte-order mark", [b"\xef\xbb\xbf", SUM.as_bytes()].concat()),
        ("UTF-16 body", utf16),
        ("invalid UTF-8", raw("get-sum", b"\xff")),
        ("an overlong slash", raw("get-sum", b"\xc0\xaf")),
        ("a surrogate in UTF-8", raw("get-sum", b"\xed\xa0\x80")),
        ("a zero byte in a name", raw("get-sum", b"\0")),
        ("a zero byte at the end", [SUM.as_bytes(), b"\0"].concat()),
        ("a form feed before", [b"\x0c", SUM.as_bytes()].concat()),
        ("a no-break space before", [b"\xc2\xa0", SUM.as_bytes()].concat()),
        ("two messages, one a line", format!("{SUM}\n{ECHO}").into_bytes()),
        ("nothing", Vec::new()),
        ("white space", b"  ".to_vec()),
        ("over the limit", format!("{SUM}{}", " ".repeat(LIMIT + 1 - SUM.len())).into_bytes()),
    ] {
        for path in ["/local/mcp", "/svc/mcp"] {
            rows.push(row(name, typed(path, "no", json, &body), NONE));
        }
    }
    rows.push(row(
        "at the limit",
        typed("/local/mcp", "ok", json, format!("{SUM}{}", " ".repeat(LIMIT - SUM.len())).as_bytes()),
        SEEN,
    ));
    let long = format!("{SUM}{}", " ".repeat(LIMIT));
    let chunked = framed(
        "/local/mcp",
        "no",
        "transfer-encoding: chunked\r\nconnection: close\r\n",
        &format!("{:x}\r\n{long}\r\n0\r\n\r\n", long.len()),
    );
    rows.push(row("over the limit without saying so", chunked, NONE));
    rows.push(row(
        "less than was announced",
        framed("/local/mcp", "no", "content-length: 500\r\n", SUM).into_bytes(),
        NONE,
    ));
    rows.push(row(
        "a continuation that is awaited, denied",
        closing("/local/mcp", "no", "expect: 100-continue\r\n", ECHO),
        NONE,
    ));
    rows.push(row(
        "a continuation that is awaited",
        closing("/local/mcp", "ok", "expect: 100-continue\r\n", SUM),
        SEEN,
    ));
    run(rows).await;
}

/// Other protocols, and headers that speak of the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_and_hops() {
    let get = |path: &str, id: &str, lines: &str| {
        format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{CASE_ID}: {id}\r\n{lines}\r\n").into_bytes()
    };
    let websocket = "connection: upgrade, close\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let h2c =
        "connection: upgrade, http2-settings, close\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n";
    let rows = vec![
        row("websocket on the MCP path", get("/local/mcp", "no", websocket), NONE),
        row("websocket on a Service that is closed", get("/svc/closed", "no", websocket), NONE),
        row("websocket on a Service", get("/svc/open", "ok", websocket), SEEN),
        row("h2c on a Service", get("/svc/open", "ok", h2c), SEEN),
        row("h2c on the MCP path", closing("/local/mcp", "no", "upgrade: h2c\r\n", ECHO), NONE),
        row(
            "a method in a header",
            closing(
                "/svc/open",
                "ok",
                "x-http-method-override: DELETE\r\nx-http-method: PUT\r\nx-method-override: PUT\r\n",
                "{}",
            ),
            SEEN,
        ),
        row(
            "a length that is no hop",
            closing("/local/mcp", "no", "connection: content-length, host\r\n", SUM),
            NONE,
        ),
        row(
            "a body that is no hop",
            closing("/local/mcp", "no", "connection: transfer-encoding, content-type\r\n", SUM),
            NONE,
        ),
        row(
            "a revision that is decided on and then hidden",
            closing(
                "/local/mcp",
                "no",
                "mcp-protocol-version: 2025-11-25\r\nconnection: MCP-Protocol-Version\r\n",
                SUM,
            ),
            NONE,
        ),
    ];
    run(rows).await;

    // What is forwarded speaks of one connection only, and has everything that was decided on.
    let world = World::start().await;
    let gateway = start(&world).await;
    for (name, bytes) in [
        ("websocket", get("/svc/open", "ok", websocket)),
        ("h2c", get("/svc/open", "ok", h2c)),
        ("override", closing("/svc/open", "ok", "x-http-method-override: DELETE\r\nproxy-authorization: Basic x\r\nx-forwarded-client-cert: URI=spiffe://cluster.local/a\r\n", "{}").into_bytes()),
        ("version", closing("/local/mcp", "ok", "connection: keep-alive\r\nmcp-protocol-version: 2025-11-25\r\n", SUM).into_bytes()),
    ] {
        let (_, seen) = send(&gateway, AGENT, &bytes).await;
        let [seen] = seen.as_slice() else { panic!("{name}: {seen:?}") };
        for header in ["connection", "upgrade", "http2-settings", "x-http-method-override", "proxy-authorization", "x-forwarded-client-cert"] {
            assert_eq!(seen.header(header), None, "{name}: {header}");
        }
        assert_eq!(seen.header("host"), Some("localhost"), "{name}");
        let get = bytes.starts_with(b"GET");
        assert_eq!(seen.method, if get { "GET" } else { "POST" }, "{name}");
        assert_eq!(seen.upstream, if seen.path == "/mcp" { "mcp-everything-svc" } else { "mcp-two-svc" }, "{name}");
        if seen.path == "/mcp" {
            assert_eq!((&*seen.body, seen.header("mcp-protocol-version")), (SUM.as_bytes(), Some("2025-11-25")));
        }
    }
    gateway.stop().await;
}

/// Session ids belong to whom, where and what opened them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions() {
    let world = World::start().await;
    let gateway = start(&world).await;
    let initialize = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}"#;
    let (received, _) = send(&gateway, AGENT, closing("/local/mcp", "ok", "", initialize).as_bytes()).await;
    let sealed = first(&received).header("mcp-session-id").unwrap().to_owned();
    let flipped = {
        let mut bytes = sealed.clone().into_bytes();
        let middle = bytes.len() / 2;
        bytes[middle] = if bytes[middle] == b'A' { b'B' } else { b'A' };
        String::from_utf8(bytes).unwrap()
    };
    let (own, theirs) = ("mcp-everything-svc-session", "the server's own id");
    for (name, identity, path, session, body, status, forwarded) in [
        ("its own", AGENT, "/local/mcp", sealed.as_str(), SUM, 200, true),
        ("another agent", OTHER, "/local/mcp", &sealed, SUM, 404, false),
        ("another backend", AGENT, "/remote/mcp", &sealed, SUM, 404, false),
        ("changed", AGENT, "/local/mcp", &flipped, SUM, 404, false),
        ("cut off", AGENT, "/local/mcp", &sealed[..sealed.len() - 1], SUM, 404, false),
        (theirs, AGENT, "/local/mcp", own, SUM, 404, false),
        ("a foreign session on a denied call is a denial", OTHER, "/local/mcp", &sealed, ECHO, 200, false),
        ("empty", AGENT, "/local/mcp", "", SUM, 404, false),
    ] {
        let bytes = closing(path, "ok", &format!("mcp-session-id: {session}\r\n"), body);
        let (received, seen) = send(&gateway, identity, bytes.as_bytes()).await;
        let reply = first(&received);
        assert_eq!(
            (reply.status, seen.len()),
            (status, usize::from(forwarded)),
            "{name}: {reply:?} {seen:?}"
        );
        if forwarded {
            assert_eq!(seen[0].header("mcp-session-id"), Some(own), "{name}");
        }
    }
    let twice = format!("mcp-session-id: {sealed}\r\nmcp-session-id: {sealed}\r\n");
    let (received, seen) = send(&gateway, AGENT, closing("/local/mcp", "no", &twice, SUM).as_bytes()).await;
    assert_eq!((first(&received).status, seen.len()), (400, 0));
    gateway.stop().await;
}

fn first(received: &[u8]) -> Reply {
    replies(received, false).unwrap().into_iter().next().unwrap()
}

/// HTTP/2 has two places for a host, and lengths that can lie.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2() {
    let world = World::start().await;
    let gateway = start(&world).await;
    for (name, method, uri, lines, body, status, forwarded) in [
        ("allowed", Method::POST, "https://localhost/local/mcp", &[][..], SUM, Some(200), true),
        ("denied", Method::POST, "https://localhost/local/mcp", &[], ECHO, Some(200), false),
        (
            "the same host twice",
            Method::POST,
            "https://localhost/local/mcp",
            &[("host", "localhost")],
            SUM,
            Some(200),
            true,
        ),
        (
            "another host",
            Method::POST,
            "https://localhost/local/mcp",
            &[("host", "evil.example")],
            SUM,
            Some(400),
            false,
        ),
        (
            "two hosts",
            Method::POST,
            "https://localhost/local/mcp",
            &[("host", "localhost"), ("host", "localhost")],
            SUM,
            Some(400),
            false,
        ),
        ("dot segments", Method::POST, "https://localhost/x/../local/mcp", &[], SUM, Some(400), false),
        (
            "a length that lies",
            Method::POST,
            "https://localhost/local/mcp",
            &[("content-length", "3")],
            SUM,
            None,
            false,
        ),
        ("TRACE", Method::TRACE, "https://localhost/svc/open", &[], "", Some(405), false),
        (
            "two session ids",
            Method::POST,
            "https://localhost/local/mcp",
            &[("mcp-session-id", "a"), ("mcp-session-id", "a")],
            SUM,
            Some(400),
            false,
        ),
    ] {
        world.memory.take_seen();
        let mut config = (*world.client(AGENT)).clone();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = tokio::net::TcpStream::connect(gateway.address("https")).await.unwrap();
        let server = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let stream = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config))
            .connect(server, stream)
            .await
            .unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .version(Version::HTTP_2)
            .header(CASE_ID, "ok")
            .header("content-type", "application/json");
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        let response = sender.send_request(request.body(Full::new(Bytes::from(body))).unwrap()).await;
        let got = match response {
            Ok(response) => {
                let status = response.status().as_u16();
                let _body = response.into_body().collect().await;
                Some(status)
            }
            Err(_) => None,
        };
        let seen = world.memory.take_seen();
        assert_eq!(seen.len(), usize::from(forwarded), "{name}: {got:?} {seen:?}");
        assert!(status.is_none() || got == status, "{name}: {got:?}");
        connection.abort();
    }
    gateway.stop().await;
}
