//! Responses: only those that something is done with come by.
use envoy_types::pb::envoy::{
    extensions::filters::http::ext_proc::v3::processing_mode::{BodySendMode, HeaderSendMode::Send},
    service::ext_proc::v3::{
        HttpTrailers, ProcessingRequest, processing_request::Request as Message,
        processing_response::Response as Kind,
    },
};

use crate::{
    envoy::{Call, chunk, replaced},
    support::{
        AGENT, ENDPOINT, World, changed, check_mode, common, lines, opened, post, refusal, request, response,
        response_lines, sealed, tool,
    },
};

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}"#;
const LIST: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
const TOOLS: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"get-sum","inputSchema":{}},{"name":"echo","inputSchema":{}}]}}"#;
const FILTERED: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"get-sum","inputSchema":{}}]}}"#;
const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn a_session_is_sealed_with_the_endpoint_that_opened_it() {
    let world = World::start(&[]).await;
    let (answer, mut call) = world.decide(&post("/mcp", &[]), Some(INITIALIZE)).await;
    assert!(answer.dynamic_metadata.is_some());
    let given = [JSON, ("mcp-session-id", "server-own")];
    let answer = call.exchange(response(&given, Some(ENDPOINT), false)).await;
    assert_eq!(answer.mode_override, None, "the body is nobody's business");
    let after = changed(&response_lines(&given), common(&answer).header_mutation.as_ref());
    let [status, content_type, session] = after.try_into().unwrap();
    assert_eq!((status.1.as_str(), content_type.1.as_str()), ("200", "application/json"));
    let session = opened(&session.1);
    assert_eq!((session.server_id.as_str(), session.backend.as_str()), ("server-own", "xbackend/ns/server"));
    assert_eq!(session.endpoint, Some(ENDPOINT.parse().unwrap()));
    assert_eq!(session.identity.as_deref(), Some(AGENT));
    call.ends().await;
}

#[tokio::test]
async fn a_session_that_begins_in_another_is_the_new_one() {
    let world = World::start(&[]).await;
    let old = sealed(ENDPOINT);
    let (answer, mut call) = world.decide(&post("/mcp", &[("mcp-session-id", &old)]), Some(INITIALIZE)).await;
    assert!(answer.dynamic_metadata.is_some());
    let given = [JSON, ("mcp-session-id", "server-new")];
    let answer = call.exchange(response(&given, Some(ENDPOINT), false)).await;
    let after = changed(&response_lines(&given), common(&answer).header_mutation.as_ref());
    let new = after.iter().find(|(name, _)| name == "mcp-session-id").unwrap();
    assert_eq!(opened(&new.1).server_id, "server-new");
    call.ends().await;
}

#[tokio::test]
async fn a_session_whose_endpoint_is_not_known_is_none() {
    let world = World::start(&[]).await;
    for endpoint in [None, Some("10.0.0.2:3001"), Some("nonsense")] {
        let (_, mut call) = world.decide(&post("/mcp", &[]), Some(INITIALIZE)).await;
        let given = [JSON, ("mcp-session-id", "server-own")];
        let answer = call.exchange(response(&given, endpoint, false)).await;
        assert_eq!(refusal(&answer), (502, "the backend failed".to_owned()), "{endpoint:?}");
        call.ends().await;
    }
    // Where there is none to be sealed, it does not matter.
    let (_, mut call) = world.decide(&post("/mcp", &[]), Some(INITIALIZE)).await;
    let answer = call.exchange(response(&[JSON], None, false)).await;
    assert_eq!(common(&answer).header_mutation, None);
    call.ends().await;
}

#[tokio::test]
async fn stateless_revisions_have_no_sessions() {
    let world = World::start(&[]).await;
    let meta = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}"#;
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"get-sum","arguments":{{}},"_meta":{meta}}}}}"#
    );
    let head = post(
        "/mcp",
        &[
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-method", "tools/call"),
            ("mcp-name", "get-sum"),
            ("mcp-session-id", &sealed(ENDPOINT)),
        ],
    );
    let (answer, mut call) = world.decide(&head, Some(&body)).await;
    let after = changed(&head, common(&answer).header_mutation.as_ref());
    assert!(after.iter().all(|(name, _)| name != "mcp-session-id"), "{after:?}");
    let given = [JSON, ("mcp-session-id", "server-own")];
    let answer = call.exchange(response(&given, Some(ENDPOINT), false)).await;
    let after = changed(&response_lines(&given), common(&answer).header_mutation.as_ref());
    assert!(after.iter().all(|(name, _)| name != "mcp-session-id"), "{after:?}");
}

#[tokio::test]
async fn filters_of_the_route_change_the_response() {
    let world = World::start(&[]).await;
    let sealed = sealed(ENDPOINT);
    let session = ("mcp-session-id", sealed.as_str());
    let (_, mut call) = world.decide(&post("/rewritten", &[session]), Some(&tool("get-sum"))).await;
    let given = [JSON, ("server", "x"), ("set-cookie", "a"), ("set-cookie", "b")];
    let answer = call.exchange(response(&given, Some(ENDPOINT), false)).await;
    let after = changed(&response_lines(&given), common(&answer).header_mutation.as_ref());
    let expected = [(":status", "200"), JSON, ("set-cookie", "a"), ("set-cookie", "b"), ("x-set", "2")];
    assert_eq!(after, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    call.ends().await;

    let origin = ("origin", "https://app.test");
    let (_, mut call) = world.decide(&post("/cors", &[session, origin]), Some(&tool("get-sum"))).await;
    let answer = call.exchange(response(&[JSON], Some(ENDPOINT), false)).await;
    let after = changed(&response_lines(&[JSON]), common(&answer).header_mutation.as_ref());
    let allowed = ("access-control-allow-origin".to_owned(), "https://app.test".to_owned());
    assert!(after.contains(&allowed), "{after:?}");
    call.ends().await;
}

/// A list that was asked for, and the answer to its head; the list has this many bytes, if it says so.
async fn list(world: &World, announced: Option<usize>) -> Call {
    let sealed = sealed(ENDPOINT);
    let head = post("/mcp", &[("mcp-session-id", &sealed), ("accept-encoding", "br")]);
    let (answer, mut call) = world.decide(&head, Some(LIST)).await;
    let after = changed(&head, common(&answer).header_mutation.as_ref());
    assert!(after.contains(&("accept-encoding".to_owned(), "identity".to_owned())), "{after:?}");
    let length = announced.map(|length| length.to_string());
    let mut given = vec![JSON];
    given.extend(length.iter().map(|length| ("content-length", length.as_str())));
    let answer = call.exchange(response(&given, Some(ENDPOINT), false)).await;
    check_mode(&answer, BodySendMode::None, Send, BodySendMode::Streamed);
    let after = changed(&response_lines(&given), common(&answer).header_mutation.as_ref());
    assert!(after.iter().all(|(name, _)| name != "content-length"), "{after:?}");
    call
}

async fn check_chunk(call: &mut Call, bytes: &str, is_last: bool, expected: &str) {
    let answer = call.exchange(chunk(Message::ResponseBody, bytes.as_bytes(), is_last)).await;
    assert_eq!(replaced(answer).unwrap(), expected);
}

fn trailers() -> ProcessingRequest {
    ProcessingRequest {
        request: Some(Message::ResponseTrailers(HttpTrailers::default())),
        ..ProcessingRequest::default()
    }
}

#[tokio::test]
async fn lists_are_filtered_whole() {
    let world = World::start(&["--filter-lists"]).await;
    let mut call = list(&world, Some(TOOLS.len())).await;
    check_chunk(&mut call, TOOLS, true, FILTERED).await;
    call.ends().await;

    // Envoy would not hold as much as the filter: it passes all of it on, and gets it with the last chunk.
    let mut call = list(&world, None).await;
    let (head, tail) = TOOLS.split_at(TOOLS.len() - 2);
    check_chunk(&mut call, head, false, "").await;
    check_chunk(&mut call, tail, false, "").await;
    check_chunk(&mut call, "", true, FILTERED).await;
    call.ends().await;

    // Trailers come after the last chunk, which does not say that it is the last one.
    let mut call = list(&world, Some(TOOLS.len())).await;
    check_chunk(&mut call, head, false, "").await;
    check_chunk(&mut call, tail, false, FILTERED).await;
    let answer = call.exchange(trailers()).await;
    assert!(matches!(answer.response, Some(Kind::ResponseTrailers(_))), "{answer:?}");
    call.ends().await;
}

#[tokio::test]
async fn a_list_that_ends_unannounced_with_trailers_breaks_off() {
    let world = World::start(&["--filter-lists"]).await;
    let mut call = list(&world, None).await;
    check_chunk(&mut call, TOOLS, false, "").await;
    let answer = call.exchange(trailers()).await;
    assert_eq!(refusal(&answer).0, 403);
    call.ends().await;
}

#[tokio::test]
async fn a_list_that_is_too_long_is_an_error() {
    let world = World::start(&["--filter-lists"]).await;
    let mut call = list(&world, None).await;
    let much = "x".repeat(1 << 20);
    for _ in 0..17 {
        check_chunk(&mut call, &much, false, "").await;
    }
    let answer = call.exchange(chunk(Message::ResponseBody, b"", true)).await;
    let text = String::from_utf8(replaced(answer).unwrap().into()).unwrap();
    assert!(text.contains(r#""id":1,"error":{"code":-32603"#), "{text}");
    call.ends().await;
}

#[tokio::test]
async fn a_list_that_cannot_be_read_is_an_error() {
    let world = World::start(&["--filter-lists"]).await;
    let sealed = sealed(ENDPOINT);
    let (_, mut call) = world.decide(&post("/mcp", &[("mcp-session-id", &sealed)]), Some(LIST)).await;
    let given = [JSON, ("content-encoding", "br")];
    let answer = call.exchange(response(&given, Some(ENDPOINT), false)).await;
    let (status, text) = refusal(&answer);
    assert_eq!(status, 200);
    assert!(text.contains(r#""id":1,"error":{"code":-32603"#), "{text}");
    call.ends().await;
}

#[tokio::test]
async fn event_streams_are_filtered_as_they_come() {
    let world = World::start(&["--filter-lists"]).await;
    let sealed = sealed(ENDPOINT);
    let (_, mut call) = world.decide(&post("/mcp", &[("mcp-session-id", &sealed)]), Some(LIST)).await;
    let answer =
        call.exchange(response(&[("content-type", "text/event-stream")], Some(ENDPOINT), false)).await;
    check_mode(&answer, BodySendMode::None, Send, BodySendMode::Streamed);
    let progress = "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"}\n\n";
    let answer = call.exchange(chunk(Message::ResponseBody, progress.as_bytes(), false)).await;
    assert_eq!(replaced(answer).unwrap(), progress, "an event does not wait for the next");
    let (first, second) = TOOLS.split_at(50);
    let answer =
        call.exchange(chunk(Message::ResponseBody, format!("data: {first}").as_bytes(), false)).await;
    assert_eq!(replaced(answer).unwrap(), "");
    let answer = call.exchange(chunk(Message::ResponseBody, format!("{second}\n\n").as_bytes(), true)).await;
    assert_eq!(replaced(answer).unwrap(), format!("data: {FILTERED}\n\n"));
    call.ends().await;
}

#[tokio::test]
async fn streams_that_may_resume_a_list_are_filtered_too() {
    let world = World::start(&["--filter-lists"]).await;
    let sealed = sealed(ENDPOINT);
    let head = lines("GET", "/mcp", &[("accept", "text/event-stream"), ("mcp-session-id", &sealed)]);
    let mut call = world.call().await;
    let answer = call.exchange(request(&head, true)).await;
    check_mode(&answer, BodySendMode::None, Send, BodySendMode::None);
    let answer =
        call.exchange(response(&[("content-type", "text/event-stream")], Some(ENDPOINT), false)).await;
    check_mode(&answer, BodySendMode::None, Send, BodySendMode::Streamed);
    let event = format!("data: {TOOLS}\n\n");
    let answer = call.exchange(chunk(Message::ResponseBody, event.as_bytes(), false)).await;
    assert_eq!(replaced(answer).unwrap(), format!("data: {FILTERED}\n\n"));
}
