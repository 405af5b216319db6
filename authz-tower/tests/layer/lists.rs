//! Tools left out of lists.
use std::task::Poll;

use authz_core::BackendKind;
use authz_tower::Context;
use http::{HeaderValue, Response};
use policy_model::{Condition, TargetKind};

use super::support::{
    Outcomes, TestBody, call, context, get, one_tool, poll_once, post, rule, send_for, text, tools, v0,
    with_options,
};

const LIST: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
const FAILURE: &str =
    r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"the list of tools cannot be read"}}"#;
const ALL: &str =
    r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"get-sum"},{"name":"echo"}],"n":1.50}}"#;
const SUM: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"get-sum"}],"n":1.50}}"#;

fn filtering() -> Context {
    with_options(one_tool(), |options| options.filter_lists = true)
}

fn answer(content_type: &'static str, body: impl Into<TestBody>) -> Response<TestBody> {
    let response = Response::builder().header("content-type", content_type);
    response
        .header("content-length", "9999")
        .header("etag", "\"x\"")
        .header("x-kept", "1")
        .body(body.into())
        .unwrap()
}

async fn list(answer: Response<TestBody>) -> Outcomes {
    send_for(filtering(), post(LIST), answer).await
}

#[tokio::test]
async fn a_json_list_is_filtered_and_asked_for_uncompressed() {
    let (first, second) = ALL.split_at(30);
    let mut request = post(LIST);
    request.headers_mut().insert("accept-encoding", HeaderValue::from_static("gzip"));
    let outcomes =
        send_for(filtering(), request, answer("application/json", TestBody::of([first, second]))).await;
    assert_eq!(outcomes.forwarded.unwrap().headers()["accept-encoding"], "identity");
    let headers = outcomes.response.headers();
    assert_eq!((headers.len(), &headers["x-kept"]), (2, &HeaderValue::from_static("1")));
    assert_eq!(text(outcomes.response.into_body()).await, SUM);
}

#[tokio::test]
async fn without_the_option_nothing_is_touched() {
    let mut request = post(LIST);
    request.headers_mut().insert("accept-encoding", HeaderValue::from_static("gzip"));
    let outcomes = send_for(one_tool(), request, answer("application/json", ALL)).await;
    assert_eq!(outcomes.forwarded.unwrap().headers()["accept-encoding"], "gzip");
    assert_eq!(outcomes.response.headers()["etag"], "\"x\"");
    assert_eq!(text(outcomes.response.into_body()).await, ALL);
}

#[tokio::test]
async fn what_may_be_delegated_stays_in() {
    let rules = vec![
        rule("ext", Condition::ExternalAuth(super::support::external(None))),
        rule("sum", tools(&["get-sum"])),
    ];
    let context = context(vec![v0(TargetKind::XBackend, rules)], BackendKind::XBackendMcp);
    let context = with_options(context, |options| options.filter_lists = true);
    let outcomes = send_for(context, post(LIST), answer("application/json", ALL)).await;
    assert_eq!(text(outcomes.response.into_body()).await, ALL);
}

#[tokio::test]
async fn a_list_in_a_batch() {
    let batch = format!("[{},{LIST}]", call("7", "get-sum"));
    let both = format!(r#"[{{"jsonrpc":"2.0","id":7,"result":{{"content":[]}}}},{ALL}]"#);
    let outcomes = send_for(filtering(), post(batch.clone()), answer("application/json", both.clone())).await;
    assert_eq!(text(outcomes.response.into_body()).await, both.replace(ALL, SUM));
    let outcomes = send_for(filtering(), post(batch), answer("text/html", "x")).await;
    assert_eq!(text(outcomes.response.into_body()).await, format!("[{FAILURE}]"));
}

#[tokio::test]
async fn a_list_that_cannot_be_read_is_not_passed_on() {
    let twice = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[],"tools":[{"name":"echo"}]}}"#;
    let mut compressed = answer("application/json", ALL);
    compressed.headers_mut().insert("content-encoding", HeaderValue::from_static("gzip"));
    let mut compressed_events = answer("text/event-stream", format!("data: {ALL}\n\n"));
    compressed_events.headers_mut().insert("content-encoding", HeaderValue::from_static("br"));
    let mut untyped = answer("text/plain", ALL);
    untyped.headers_mut().remove("content-type");
    for answer in [
        answer("application/json", "{"),
        answer("application/json", twice),
        answer("application/json", r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"title":"nameless"}]}}"#),
        answer("application/json; charset=utf-16", ALL),
        answer("text/plain", ALL),
        untyped,
        compressed,
        compressed_events,
    ] {
        let name = format!("{answer:?}");
        let outcomes = list(answer).await;
        assert_eq!(outcomes.response.status(), 200, "{name}");
        assert_eq!(outcomes.response.headers()["content-type"], "application/json", "{name}");
        assert!(!outcomes.response.headers().contains_key("content-encoding"), "{name}");
        assert!(!outcomes.response.headers().contains_key("content-length"), "{name}");
        assert_eq!(text(outcomes.response.into_body()).await, FAILURE, "{name}");
    }
}

#[tokio::test]
async fn other_statuses_keep_their_meaning() {
    let with_status = |status: u16, mut answer: Response<TestBody>| {
        *answer.status_mut() = status.try_into().unwrap();
        answer
    };
    let error = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"no session"}}"#;
    for (answer, expected) in [
        (with_status(404, answer("application/json", error)), error),
        (with_status(503, answer("text/html", "<p>")), "<p>"),
        (with_status(400, answer("application/json", ALL)), SUM),
        (with_status(400, answer("application/json; charset=latin1", ALL)), FAILURE),
        (with_status(204, answer("application/json", TestBody::empty())), ""),
        (with_status(202, Response::new(TestBody::empty())), ""),
    ] {
        let status = answer.status();
        let outcomes = list(answer).await;
        assert_eq!(outcomes.response.status(), status);
        assert_eq!(text(outcomes.response.into_body()).await, expected);
    }
}

#[tokio::test]
async fn events_are_filtered_as_they_come() {
    let (sender, body) = TestBody::live();
    let outcomes = list(answer("text/event-stream", body)).await;
    assert!(!outcomes.response.headers().contains_key("content-length"));
    let mut body = outcomes.response.into_body();
    let mut step = |sent: &str| {
        sender.send(Ok(sent.to_owned().into())).unwrap();
        match poll_once(&mut body) {
            Poll::Pending => String::new(),
            Poll::Ready(Some(Ok(bytes))) => String::from_utf8(bytes.to_vec()).unwrap(),
            Poll::Ready(other) => panic!("{other:?}"),
        }
    };
    // Other events pass as they are, at once.
    let ping = ": ping\n\n";
    assert_eq!(step(ping), ping);
    let progress =
        "event: message\r\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"}\r\n\r\n";
    assert_eq!(step(progress), progress);
    // A list comes in pieces, and goes out when it is whole.
    let event = format!("id: 7\nevent: message\ndata: {ALL}\n\n");
    let (first, second) = event.split_at(40);
    assert_eq!(step(first), "");
    assert_eq!(step(second), format!("id: 7\nevent: message\ndata: {SUM}\n\n"));
    // Spread over lines, it is one list still.
    let lines = ALL.replace("[{", "[\ndata: {");
    let filtered = step(&format!("data: {lines}\n\n"));
    assert!(filtered.contains("get-sum") && !filtered.contains("echo"), "{filtered}");
    assert!(filtered.lines().all(|line| line.is_empty() || line.starts_with("data: ")), "{filtered}");
    // A list that needs no change keeps its bytes.
    let allowed = format!("data:{SUM}\n\n");
    assert_eq!(step(&allowed), allowed);
    // A key that is spelt with an escape is the key.
    let escaped = ALL.replace("\"tools\"", "\"\\u0074ools\"");
    assert!(!escaped.contains("tools"));
    let filtered = step(&format!("data: {escaped}\n\n"));
    assert_eq!(filtered, format!("data: {}\n\n", SUM.replace("\"tools\"", "\"\\u0074ools\"")));
    // What never ended is no event.
    assert_eq!(step("data: {\"tools\""), "");
    drop(sender);
    assert_eq!(poll_once(&mut body), Poll::Ready(None));
}

#[tokio::test]
async fn an_event_that_cannot_be_read_ends_the_stream_with_an_error() {
    let (sender, body) = TestBody::live();
    let outcomes = list(answer("text/event-stream", body)).await;
    let mut body = outcomes.response.into_body();
    let bad = r#"data: {"jsonrpc":"2.0","id":1,"result":{"tools":[],"t\u006fols":[{"name":"echo"}]}}"#;
    sender.send(Ok(format!(": a\n\n{bad}\n\ndata: never\n\n").into())).unwrap();
    let Poll::Ready(Some(Ok(bytes))) = poll_once(&mut body) else { panic!("an error") };
    assert_eq!(bytes, format!(": a\n\nevent: message\ndata: {FAILURE}\n\n"));
    assert_eq!(poll_once(&mut body), Poll::Ready(None));
    assert!(sender.is_closed());
}

#[tokio::test]
async fn a_resumed_stream_is_filtered_too() {
    for request in [get("text/event-stream"), post(call("7", "get-sum"))] {
        let answer = answer("text/event-stream", format!("data: {ALL}\n\n"));
        let outcomes = send_for(filtering(), request, answer).await;
        assert_eq!(text(outcomes.response.into_body()).await, format!("data: {SUM}\n\n"));
    }
    // Without an id to answer, it just ends.
    let answer_ = answer("text/event-stream", "data: {\"tools\":1\n\ndata: x\n\n");
    let outcomes = send_for(filtering(), get("text/event-stream"), answer_).await;
    assert_eq!(text(outcomes.response.into_body()).await, "");
    let mut compressed = answer("text/event-stream", "x");
    compressed.headers_mut().insert("content-encoding", HeaderValue::from_static("gzip"));
    let outcomes = send_for(filtering(), get("text/event-stream"), compressed).await;
    assert_eq!(outcomes.response.status(), 502);
    assert_eq!(text(outcomes.response.into_body()).await, "");
}

#[tokio::test]
async fn other_answers_are_not_filtered() {
    let outcomes = send_for(filtering(), post(call("7", "get-sum")), answer("application/json", ALL)).await;
    assert_eq!(outcomes.response.headers()["etag"], "\"x\"");
    assert_eq!(text(outcomes.response.into_body()).await, ALL);
}

#[tokio::test]
async fn a_list_over_the_bound_is_an_error() {
    let huge =
        format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"tools":[],"x":"{}"}}}}"#, "x".repeat(16 << 20));
    let outcomes = list(answer("application/json", huge.clone())).await;
    assert_eq!(text(outcomes.response.into_body()).await, FAILURE);
    let outcomes = list(answer("text/event-stream", format!("data: {huge}\n\n"))).await;
    assert_eq!(text(outcomes.response.into_body()).await, format!("event: message\ndata: {FAILURE}\n\n"));
}

#[tokio::test]
async fn an_error_of_the_body_passes() {
    for content_type in ["application/json", "text/event-stream"] {
        let (sender, body) = TestBody::live();
        sender.send(Ok("data: x\n\n".into())).unwrap();
        sender.send(Err(super::support::Broken)).unwrap();
        let outcomes = list(answer(content_type, body)).await;
        let error = http_body_util::BodyExt::collect(outcomes.response.into_body()).await.unwrap_err();
        assert_eq!(error, super::support::Broken);
    }
}
