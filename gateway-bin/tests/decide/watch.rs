//! Event streams end when a changed policy would deny them.
use std::time::Duration;

use envoy_types::pb::envoy::service::ext_proc::v3::{
    HttpTrailers, ProcessingRequest, processing_request::Request as Message,
    processing_response::Response as Kind,
};
use xds_translate::envoy::processor::WATCH;

use crate::{
    envoy::{Call, chunk, fields},
    support::{
        ENDPOINT, World, check_denied, common, lines, post, refusal, request, response, sealed, tool,
        wants_body,
    },
};

const EVENTS: (&str, &str) = ("content-type", "text/event-stream");
const LIST: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;

/// Cannot be enforced: its target is closed.
const CLOSED: &str = r#"
apiVersion: agentic.networking.x-k8s.io/v0alpha0
kind: XAccessPolicy
metadata: {name: closed, namespace: ns}
spec:
  targetRefs: [{group: agentic.networking.x-k8s.io, kind: XBackend, name: server}]
  rules:
  - name: broken
    source: {type: ServiceAccount, serviceAccount: {name: agent, namespace: ns}}
    authorization: {type: CEL, cel: {expression: no_such_variable}}
"#;
/// Of another backend.
const HARMLESS: &str = r#"
apiVersion: agentic.networking.x-k8s.io/v0alpha0
kind: XAccessPolicy
metadata: {name: harmless, namespace: ns}
spec:
  targetRefs: [{group: agentic.networking.x-k8s.io, kind: XBackend, name: remote}]
  rules:
  - name: agent
    source: {type: ServiceAccount, serviceAccount: {name: agent, namespace: ns}}
    authorization: {type: InlineTools, tools: [echo]}
"#;

/// Asks about the event stream that answers the request of this name.
async fn watch(world: &World, name: &str) -> Call {
    let call = world.envoy.call(&[(WATCH, format!("of/{name}"))]).await.unwrap();
    call.send(response(&[EVENTS], None, false));
    call
}

/// The head of the event stream goes on, and nothing else comes.
async fn goes_on(call: &mut Call) {
    let answer = call.answer().await.unwrap().unwrap();
    assert_eq!((common(&answer).header_mutation.as_ref(), answer.mode_override), (None, None));
    stays(call).await;
}

async fn stays(call: &mut Call) {
    tokio::select! {
        answer = call.answer() => panic!("{answer:?}"),
        () = tokio::time::sleep(Duration::from_millis(100)) => {}
    }
}

async fn is_cut_off(mut call: Call) {
    let answer = call.answer().await.unwrap().unwrap();
    assert_eq!(refusal(&answer), (403, "Forbidden\n".to_owned()));
    call.ends().await;
}

/// Lets a request through; its name, and its stream.
async fn let_through(world: &World, session: Option<&str>, body: Option<&str>) -> (String, Call) {
    let session: Vec<_> = session.iter().map(|id| ("mcp-session-id", *id)).collect();
    let head = match body {
        Some(_) => post("/mcp", &session),
        None => lines("GET", "/mcp", &[&[("accept", "text/event-stream")], session.as_slice()].concat()),
    };
    let mut call = world.call().await;
    let mut answer = call.exchange(request(&head, body.is_none())).await;
    if let (Some(body), true) = (body, wants_body(&answer)) {
        answer = call.exchange(chunk(Message::RequestBody, body.as_bytes(), true)).await;
    }
    let metadata = fields(answer.dynamic_metadata.as_ref().unwrap(), "agentic");
    (metadata("watched").unwrap(), call)
}

#[tokio::test]
async fn what_nobody_sees_ends_when_it_would_be_denied() {
    let session = sealed(ENDPOINT);
    for body in [Some(tool("get-sum")), None] {
        let world = World::start(&[]).await;
        let (name, call) = let_through(&world, Some(&session), body.as_deref()).await;
        call.ends().await;
        let mut call = watch(&world, &name).await;
        goes_on(&mut call).await;
        world.change(HARMLESS).await;
        stays(&mut call).await;
        world.change(CLOSED).await;
        is_cut_off(call).await;
    }
}

#[tokio::test]
async fn what_begins_a_session_ends_when_it_would_be_denied() {
    let world = World::start(&[]).await;
    let (name, mut call) = let_through(&world, None, Some(&tool("get-sum"))).await;
    call.exchange(response(&[EVENTS], Some(ENDPOINT), false)).await;
    call.ends().await;
    let mut call = watch(&world, &name).await;
    goes_on(&mut call).await;
    world.change(CLOSED).await;
    is_cut_off(call).await;
}

#[tokio::test]
async fn a_change_before_it_begins_counts() {
    let world = World::start(&[]).await;
    let (name, _call) = let_through(&world, Some(&sealed(ENDPOINT)), Some(&tool("get-sum"))).await;
    world.change(CLOSED).await;
    is_cut_off(watch(&world, &name).await).await;
}

#[tokio::test]
async fn what_is_filtered_ends_where_it_is_filtered() {
    let world = World::start(&["--filter-lists"]).await;
    let (name, mut call) = let_through(&world, Some(&sealed(ENDPOINT)), Some(LIST)).await;
    call.exchange(response(&[EVENTS], Some(ENDPOINT), false)).await;
    let mut other = watch(&world, &name).await;
    common(&other.answer().await.unwrap().unwrap());
    other.ends().await;
    let event = chunk(Message::ResponseBody, b"data: {}\n\n", false);
    call.exchange(event).await;
    world.change(HARMLESS).await;
    stays(&mut call).await;
    world.change(CLOSED).await;
    is_cut_off(call).await;
}

#[tokio::test]
async fn what_is_not_known_ends_with_any_change() {
    let world = World::start(&[]).await;
    let (name, _call) = let_through(&world, Some(&sealed(ENDPOINT)), Some(&tool("get-sum"))).await;
    let mut known = watch(&world, &name).await;
    goes_on(&mut known).await;
    // The same once more, another process's, nonsense.
    for (name, allowed) in [(name.as_str(), "a"), ("0000000000000000-1", "b"), ("nonsense", "c")] {
        let mut unknown = watch(&world, name).await;
        goes_on(&mut unknown).await;
        world.change(&HARMLESS.replace("echo", allowed)).await;
        is_cut_off(unknown).await;
    }
    stays(&mut known).await;
}

#[tokio::test]
async fn what_needs_no_watching_is_left_alone() {
    let world = World::start(&[]).await;
    for name in ["", "-"] {
        let mut call = watch(&world, name).await;
        common(&call.answer().await.unwrap().unwrap());
        call.ends().await;
    }
}

#[tokio::test]
async fn trailers_end_it_well_and_so_does_the_process() {
    let world = World::start(&[]).await;
    let session = sealed(ENDPOINT);
    let (name, _call) = let_through(&world, Some(&session), Some(&tool("get-sum"))).await;
    let mut call = watch(&world, &name).await;
    goes_on(&mut call).await;
    let trailers = Message::ResponseTrailers(HttpTrailers::default());
    call.send(ProcessingRequest { request: Some(trailers), ..ProcessingRequest::default() });
    let answer = call.answer().await.unwrap().unwrap();
    assert!(matches!(answer.response, Some(Kind::ResponseTrailers(_))), "{answer:?}");
    call.ends().await;

    let (name, _call) = let_through(&world, Some(&session), Some(&tool("get-sum"))).await;
    let mut call = watch(&world, &name).await;
    goes_on(&mut call).await;
    let World { processor, .. } = world;
    assert!(processor.shutdown().await, "an event stream holds nobody up");
}

#[tokio::test]
async fn a_body_is_decided_by_the_policies_of_when_it_is_there() {
    let world = World::start(&[]).await;
    let mut call = world.call().await;
    let asked = call.exchange(request(&post("/mcp", &[]), false)).await;
    assert!(wants_body(&asked), "{asked:?}");
    world.change(CLOSED).await;
    let denied = call.exchange(chunk(Message::RequestBody, tool("get-sum").as_bytes(), true)).await;
    check_denied(&denied);
    call.ends().await;
}
