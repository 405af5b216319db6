use std::{
    convert::Infallible,
    future::pending,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::{BufMut, Bytes, BytesMut};
use envoy_types::pb::{envoy::service::auth::v3::CheckResponse, google::rpc::Status};
use ext_authz::{
    Allowed, Authorizer, CheckedRequest, Client, Denied, HeaderChange, Protocol, Settings, Unreachable,
    Verdict, authorizer_service,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper::service::{Service as _, service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use proptest::prelude::*;
use prost::Message;
use tokio::{net::TcpListener, sync::Notify, task::JoinSet};

use crate::peers::{
    Body, Seen, Server, ask, ask_about, assert_allowed, assert_failed, assert_nonsense, assert_timed_out,
    body, client, grpc, hanging, listen, listen_on, refusing, settings,
};

/// Allows `a/b`, remembers what it was asked.
struct OneRepository(Seen<CheckedRequest>);

impl Authorizer for OneRepository {
    async fn check(&self, request: CheckedRequest) -> Result<Allowed, Denied> {
        let mcp = request.mcp().unwrap();
        let is_allowed = mcp["params"]["arguments"]["repoName"] == "a/b";
        self.0.see(request);
        if is_allowed {
            let name = HeaderName::from_static("x-user");
            let set = HeaderChange::Set(name, HeaderValue::from_static("alice"));
            return Ok(Allowed { request_headers: vec![set], ..Allowed::default() });
        }
        let mut headers = HeaderMap::new();
        headers.insert("www-authenticate", HeaderValue::from_static("Bearer"));
        Err(Denied {
            status: StatusCode::UNAUTHORIZED,
            headers,
            body: "who?".into(),
            reason: Some("no".to_owned()),
        })
    }
}

fn serve(listener: TcpListener) -> (Server, Seen<CheckedRequest>) {
    let (server, seen, _) = serve_and_watch(listener);
    (server, seen)
}

/// A real authorizer; shows the questions and the HTTP/2 requests they came in.
fn serve_and_watch(listener: TcpListener) -> (Server, Seen<CheckedRequest>, Seen<http::request::Parts>) {
    let (questions, requests) = (Seen::nothing(), Seen::nothing());
    let service = TowerToHyperService::new(authorizer_service(OneRepository(questions.clone())));
    let seen = requests.clone();
    let server = Server::http(listener, move |request: Request<Incoming>| {
        let (parts, body) = request.into_parts();
        seen.see(parts.clone());
        let answer = service.call(Request::from_parts(parts, body));
        async move { answer.await.unwrap().map(|body| body.map_err(Into::into).boxed_unsync()) }
    });
    (server, questions, requests)
}

#[tokio::test]
async fn allows_and_denies() {
    let (server, questions, requests) = serve_and_watch(listen().await);
    let client = client(grpc(), &[server.address]);
    let mut headers = HeaderMap::new();
    headers.insert("authorization", HeaderValue::from_static("Bearer x"));
    let Verdict::Allowed(allowed) = ask_about(&client, &headers, crate::peers::CALL).await else { panic!() };
    let name = HeaderName::from_static("x-user");
    assert_eq!(allowed.request_headers, [HeaderChange::Set(name, HeaderValue::from_static("alice"))]);
    let question = questions.take();
    assert_eq!(question.principal(), Some("spiffe://cluster.local/ns/a/sa/b"));
    let input = question.authorino_input();
    assert_eq!(input["metadata"]["filter_metadata"]["mcp_proxy"]["params"]["arguments"]["repoName"], "a/b");
    assert_eq!(input["request"]["headers"]["authorization"], "Bearer x");
    let request = requests.take();
    assert_eq!(request.uri.authority().unwrap(), "authz.default.svc:9001");
    assert_eq!(request.uri.path(), "/envoy.service.auth.v3.Authorization/Check");
    assert_eq!(request.version, http::Version::HTTP_2);
    // Whatever unit it has, it is what was left of 20 seconds.
    let timeout = request.headers["grpc-timeout"].to_str().unwrap();
    let micros = match timeout.split_at(timeout.len() - 1) {
        (number, "n") => number.parse::<u64>().unwrap() / 1_000,
        (number, "u") => number.parse().unwrap(),
        (number, "m") => number.parse::<u64>().unwrap() * 1_000,
        (number, "S") => number.parse::<u64>().unwrap() * 1_000_000,
        _ => panic!("{timeout}"),
    };
    assert!((10_000_000..=20_000_000).contains(&micros), "{timeout}");

    let other = crate::peers::CALL.replace("a/b", "a/c");
    let Verdict::Denied(denied) = ask_about(&client, &headers, &other).await else { panic!() };
    assert_eq!((denied.status, &*denied.body), (StatusCode::UNAUTHORIZED, b"who?".as_slice()));
    assert_eq!(denied.headers["www-authenticate"], "Bearer");
    assert_eq!(denied.reason.as_deref(), Some("no"));
}

#[tokio::test]
async fn a_list_of_headers_restricts() {
    let (server, questions) = serve(listen().await);
    let protocol = Protocol::Grpc { allowed_headers: Some(vec!["x-team".to_owned()]) };
    let mut headers = HeaderMap::new();
    headers.insert("authorization", HeaderValue::from_static("Bearer x"));
    headers.insert("x-team", HeaderValue::from_static("blue"));
    assert_allowed(&ask_about(&client(protocol, &[server.address]), &headers, crate::peers::CALL).await);
    let input = questions.take().authorino_input();
    assert_eq!(input["request"]["headers"], serde_json::json!({"x-team": "blue"}));
}

#[tokio::test]
async fn what_cannot_be_judged_is_not_asked() {
    let (server, questions) = serve(listen().await);
    let client = client(grpc(), &[server.address]);
    let call = crate::peers::CALL.replace(r#""a/b""#, r#""a/b","n":9007199254740993"#);
    let deep = crate::peers::CALL.replace(r#""a/b""#, &format!("{}{}", "[".repeat(30), "]".repeat(30)));
    for call in [call, deep] {
        let verdict = ask_about(&client, &HeaderMap::new(), &call).await;
        assert!(matches!(verdict, Verdict::Unreachable(Unreachable::Unjudgeable(_))), "{verdict:?}");
    }
    assert!(questions.is_nothing());
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn one_connection_for_all() {
    let (server, _) = serve(listen().await);
    let client = client(grpc(), &[server.address]);
    let mut calls = JoinSet::new();
    for _ in 0..100 {
        let client = client.clone();
        calls.spawn(async move { ask(&client).await });
    }
    calls.join_all().await.iter().for_each(assert_allowed);
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn endpoints_in_turn() {
    let (one, _) = serve(listen().await);
    let (two, _) = serve(listen().await);
    let client = client(grpc(), &[one.address, two.address]);
    for _ in 0..4 {
        assert_allowed(&ask(&client).await);
    }
    assert_eq!((one.connections(), two.connections()), (1, 1));
}

#[tokio::test]
async fn the_next_endpoint_when_one_refuses_or_closes() {
    let (refusing, _bound) = refusing();
    let closing = Server::on(listen().await, |stream| async move { drop(stream) });
    let (live, _) = serve(listen().await);
    let client = client(grpc(), &[refusing, closing.address, live.address]);
    for _ in 0..6 {
        assert_allowed(&ask(&client).await);
    }
}

#[tokio::test]
async fn the_next_endpoint_when_one_hangs() {
    let (hanging, _listener, _waiting) = hanging().await;
    let (live, _) = serve(listen().await);
    let endpoints = [hanging, live.address];
    let client = Client::new(Settings { timeout: Duration::from_secs(1), ..settings(grpc(), &endpoints) });
    assert_allowed(&ask(&client).await);
}

/// An endpoint that failed comes last for a second.
#[tokio::test]
async fn what_failed_is_avoided() {
    let closing = Server::on(listen().await, |stream| async move { drop(stream) });
    let (live, _) = serve(listen().await);
    let client = client(grpc(), &[closing.address, live.address]);
    let start = Instant::now();
    for _ in 0..10 {
        assert_allowed(&ask(&client).await);
    }
    let connections = closing.connections();
    // On a machine so slow that the second has passed there is nothing to see.
    assert!(connections == 1 || start.elapsed() > Duration::from_secs(1), "{connections}");
}

#[tokio::test]
async fn nobody_there() {
    assert_failed(&ask(&client(grpc(), &[])).await);
    let (refusing, _bound) = refusing();
    assert_failed(&ask(&client(grpc(), &[refusing, refusing])).await);
    let no_authority = Settings { authority: "a b".to_owned(), ..settings(grpc(), &[refusing]) };
    assert_failed(&ask(&Client::new(no_authority)).await);
}

/// Every question while it is down is denied; the first one after it is back is answered.
#[tokio::test]
async fn killed_and_back() {
    let (server, _) = serve(listen().await);
    let mut address = server.address;
    let client = client(grpc(), &[address]);
    let mut server = Some(server);
    for _ in 0..5 {
        assert_allowed(&ask(&client).await);
        if let Some(server) = server.take() {
            address = server.kill().await;
        }
        for _ in 0..10 {
            assert_failed(&ask(&client).await);
        }
        server = Some(serve(listen_on(address).await).0);
    }
    assert_allowed(&ask(&client).await);
}

/// Questions that are under way when it dies come to an end, without being allowed.
#[tokio::test]
async fn killed_while_asked() {
    struct Never(tokio::sync::mpsc::Sender<()>);
    impl Authorizer for Never {
        async fn check(&self, _: CheckedRequest) -> Result<Allowed, Denied> {
            self.0.send(()).await.unwrap();
            pending().await
        }
    }
    let (sender, mut asked) = tokio::sync::mpsc::channel(1);
    let service = TowerToHyperService::new(authorizer_service(Never(sender)));
    let server = Server::http(listen().await, move |request| {
        let answer = service.call(request);
        async move { answer.await.unwrap().map(|body| body.map_err(Into::into).boxed_unsync()) }
    });
    let client = client(grpc(), &[server.address]);
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let client = client.clone();
        calls.spawn(async move { ask(&client).await });
    }
    for _ in 0..20 {
        asked.recv().await.unwrap();
    }
    server.kill().await;
    calls.join_all().await.iter().for_each(assert_failed);
}

/// A connection on which the last answer was well, and which breaks under the next question, is replaced.
#[tokio::test]
async fn a_used_connection_breaks() {
    let listener = listen().await;
    let server = Server::on(listener, |stream| async move {
        let broken = Arc::new(Notify::new());
        let (breaks, asked) = (Arc::clone(&broken), Arc::new(AtomicUsize::new(0)));
        let service = service_fn(move |_: Request<Incoming>| {
            let is_first = asked.fetch_add(1, Ordering::SeqCst) == 0;
            let breaks = Arc::clone(&breaks);
            async move {
                if !is_first {
                    breaks.notify_one();
                    pending::<()>().await;
                }
                Ok::<_, Infallible>(answer(200, "application/grpc", frame(YES), Some("0")))
            }
        });
        let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        tokio::select! {
            _ = http.serve_connection(TokioIo::new(stream), service) => {}
            () = broken.notified() => {}
        }
    });
    let client = client(grpc(), &[server.address]);
    for expected in 1..5 {
        assert_allowed(&ask(&client).await);
        assert_eq!(server.connections(), expected);
    }
}

fn hasty(endpoint: SocketAddr) -> Client {
    Client::new(Settings { timeout: Duration::from_millis(150), ..settings(grpc(), &[endpoint]) })
}

#[tokio::test]
async fn too_slow() {
    let silent = Server::silent(listen().await);
    assert_timed_out(&ask(&hasty(silent.address)).await);
    let server = Server::http(listen().await, |_| pending());
    assert_timed_out(&ask(&hasty(server.address)).await);
    // Headers, and then nothing.
    let server = Server::http(listen().await, |_| async {
        let stream = tokio_stream::pending::<Result<Frame<Bytes>, _>>();
        let body = http_body_util::StreamBody::new(stream).boxed_unsync();
        Response::builder().header("content-type", "application/grpc").body(body).unwrap()
    });
    assert_timed_out(&ask(&hasty(server.address)).await);
}

/// A peer that fell silent is not asked over the same connection for ever.
#[tokio::test]
async fn a_silent_connection_is_given_up() {
    let silent = Server::silent(listen().await);
    let client = hasty(silent.address);
    assert_timed_out(&ask(&client).await);
    assert_timed_out(&ask(&client).await);
    assert_eq!(silent.connections(), 2);
    let address = silent.kill().await;
    let (_server, _) = serve(listen_on(address).await);
    assert_allowed(&ask(&client).await);
}

/// A gRPC answer of these parts.
fn answer(
    status: u16,
    content_type: &'static str,
    bytes: Bytes,
    grpc_status: Option<&'static str>,
) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    if let Some(grpc_status) = grpc_status {
        trailers.insert("grpc-status", HeaderValue::from_static(grpc_status));
    }
    let body = Full::new(bytes).with_trailers(std::future::ready(Some(Ok::<_, Infallible>(trailers))));
    Response::builder()
        .status(status)
        .header("content-type", content_type)
        .body(body.map_err(Into::into).boxed_unsync())
        .unwrap()
}

fn frame(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.len().try_into().unwrap());
    frame.put(message);
    frame.freeze()
}

/// `status { code: 0 }`, by hand.
const YES: &[u8] = &[0x0a, 0x00];

async fn answered_with(
    status: u16,
    content_type: &'static str,
    bytes: Bytes,
    grpc_status: Option<&'static str>,
) -> Verdict {
    let server = Server::http(listen().await, move |_| {
        let answer = answer(status, content_type, bytes.clone(), grpc_status);
        async move { answer }
    });
    ask(&client(grpc(), &[server.address])).await
}

#[tokio::test]
async fn answers_that_are_not_a_clear_yes() {
    const GRPC: &str = "application/grpc";
    assert_allowed(&answered_with(200, GRPC, frame(YES), Some("0")).await);
    assert_allowed(&answered_with(200, "application/grpc+proto", frame(YES), Some("0")).await);
    // The call failed, whatever its message says.
    for code in ["1", "2", "7", "13", "14", "16", "99", "x"] {
        assert_failed(&answered_with(200, GRPC, frame(YES), Some(code)).await);
    }
    assert_timed_out(&answered_with(200, GRPC, frame(YES), Some("4")).await);
    assert_failed(&answered_with(200, GRPC, frame(YES), None).await);
    assert_failed(&answered_with(200, GRPC, Bytes::new(), Some("0")).await);
    assert_failed(&answered_with(503, GRPC, frame(YES), None).await);
    assert_failed(&answered_with(403, "text/plain", "no".into(), None).await);
    assert_nonsense(&answered_with(200, "application/json", frame(YES), Some("0")).await);
    assert_nonsense(&answered_with(200, "text/html", "<html>".into(), None).await);
    assert_nonsense(&answered_with(200, GRPC, frame(b""), Some("0")).await);
    assert_nonsense(&answered_with(200, GRPC, frame(b"\xff\xff"), Some("0")).await);
    // A yes, but a long one.
    let status = Status { code: 0, message: "x".repeat(2 << 20), details: Vec::new() };
    let long = CheckResponse { status: Some(status), ..CheckResponse::default() };
    assert_nonsense(&answered_with(200, GRPC, frame(&long.encode_to_vec()), Some("0")).await);
    // Two answers to one question, whichever comes first.
    let no = CheckResponse {
        status: Some(Status { code: 7, message: String::new(), details: Vec::new() }),
        ..CheckResponse::default()
    };
    let no = frame(&no.encode_to_vec());
    for (first, second) in [(frame(YES), no.clone()), (no, frame(YES)), (frame(YES), frame(YES))] {
        let both = [first, second].concat().into();
        assert_nonsense(&answered_with(200, GRPC, both, Some("0")).await);
    }
    // A frame that claims more than there is; one that claims to be compressed.
    let mut cut = frame(YES).to_vec();
    cut[4] = 200;
    assert_failed(&answered_with(200, GRPC, cut.into(), Some("0")).await);
    let mut compressed = frame(YES).to_vec();
    compressed[0] = 1;
    assert_failed(&answered_with(200, GRPC, compressed.into(), Some("0")).await);
    let many = Server::http(listen().await, |_| async {
        let mut answer = answer(200, GRPC, frame(YES), Some("0"));
        answer.headers_mut().insert("x-long", HeaderValue::try_from("x".repeat(100_000)).unwrap());
        answer
    });
    let verdict = ask(&client(grpc(), &[many.address])).await;
    assert!(matches!(verdict, Verdict::Unreachable(_)), "{verdict:?}");
}

#[tokio::test]
async fn peers_that_do_not_speak_http_2() {
    for bytes in
        [&b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"[..], b"", b"\0\0\0\0\0\0\0\0\0", b"SSH-2.0-x\r\n"]
    {
        let server = Server::bytes(listen().await, bytes.to_vec());
        assert_failed(&ask(&client(grpc(), &[server.address])).await);
    }
    // HTTP/1 only, as most web servers.
    let server = Server::on(listen().await, |stream| async move {
        let service = service_fn(|_| async { Ok::<_, Infallible>(Response::new(body("yes"))) });
        let http = hyper::server::conn::http1::Builder::new();
        drop(http.serve_connection(TokioIo::new(stream), service).await);
    });
    assert_failed(&ask(&client(grpc(), &[server.address])).await);
}

/// Starts of answers: `OK`, denied, `ok_response`, `denied_response`.
const STARTS: &[&[u8]] = &[YES, b"\x0a\x02\x08\x07", b"\x1a\x00", b"\x12\x00"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Whatever comes back allows only if it is a message whose status is there and `OK`, read by prost alone.
    #[test]
    fn arbitrary_messages(
        message in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..32),
            (prop::sample::select(STARTS),
             prop::collection::vec(any::<u8>(), 0..8)).prop_map(|(start, rest)| [start, &rest].concat()),
        ],
        framed in prop::bool::weighted(0.8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let bytes = if framed { frame(&message) } else { message.clone().into() };
        let verdict = runtime.block_on(answered_with(200, "application/grpc", bytes, Some("0")));
        if let Verdict::Allowed(_) = verdict {
            let response = CheckResponse::decode(&*message);
            prop_assert!(framed);
            prop_assert_eq!(response.unwrap().status.map(|status| status.code), Some(0));
        }
    }
}
