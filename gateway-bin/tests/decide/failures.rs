//! Every way in which a stream can go wrong: none of them lets a request through.
use envoy_types::pb::envoy::service::ext_proc::v3::{
    ProcessingRequest, processing_request::Request as Message,
};
use tonic::Code;

use crate::{
    envoy::chunk,
    support::{ENDPOINT, World, common, post, refusal, request, response, tool},
};

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn a_stream_that_is_not_begun_with_a_head_ends_with_an_error() {
    let world = World::start(&[]).await;
    let observing = ProcessingRequest { observability_mode: true, ..request(&post("/svc", &[]), true) };
    let firsts = [
        chunk(Message::RequestBody, b"{}", true),
        response(&[JSON], Some(ENDPOINT), false),
        ProcessingRequest::default(),
        // It would wait for no answer.
        observing,
    ];
    for first in firsts {
        let mut call = world.call().await;
        call.send(first.clone());
        let error = call.answer().await.expect_err("a stream that ends well lets the request through");
        assert_eq!(error.code(), Code::Internal, "{first:?}");
    }
}

#[tokio::test]
async fn a_head_that_cannot_be_read_is_refused() {
    let world = World::start(&[]).await;
    let head = post("/mcp", &[]);
    let without = |name: &str| head.iter().filter(|line| line.0 != name).cloned().collect::<Vec<_>>();
    let with = |name: &str, value: &[u8]| {
        let mut head = head.clone();
        head.push((name.to_owned(), value.to_vec()));
        head
    };
    let heads = [
        without(":method"),
        without(":path"),
        without(":authority"),
        with(":path", b"/svc"),
        with(":method", b"GET"),
        with(":authority", b"other.test"),
        with("host", b"other.test"),
        with("a b", b""),
        with("x", b"\n"),
    ];
    for head in heads {
        let mut call = world.call().await;
        let answer = call.exchange(request(&head, true)).await;
        assert_eq!(refusal(&answer).0, 400, "{head:?}");
        call.ends().await;
    }
}

#[tokio::test]
async fn a_message_out_of_turn_lets_nothing_through() {
    let world = World::start(&[]).await;
    let seconds = [
        request(&post("/svc", &[]), true),
        chunk(Message::ResponseBody, b"{}", true),
        ProcessingRequest::default(),
    ];
    for second in seconds {
        let mut call = world.call().await;
        call.exchange(request(&post("/mcp", &[]), false)).await;
        let answer = call.exchange(second.clone()).await;
        assert_eq!(refusal(&answer).0, 400, "{second:?}");
    }
    // After the decision, before the response.
    let (_, mut call) = world.decide(&post("/mcp", &[]), Some(&tool("get-sum"))).await;
    call.send(chunk(Message::ResponseBody, b"{}", true));
    let error = call.answer().await.expect_err("the response was not looked at");
    assert_eq!(error.code(), Code::Internal);
}

#[tokio::test]
async fn where_the_proxy_answers_by_itself_there_is_nothing_to_decide() {
    let world = World::start(&[]).await;
    let mut call = world.call().await;
    call.exchange(request(&post("/mcp", &[]), false)).await;
    // Its own 413: the body is too large for it.
    let answer = call.exchange(response(&[], None, true)).await;
    assert_eq!((common(&answer).header_mutation.as_ref(), answer.dynamic_metadata.as_ref()), (None, None));
    // And the request's body, had it come after all, is not decided on any more.
    call.send(chunk(Message::RequestBody, tool("get-sum").as_bytes(), true));
    call.send(ProcessingRequest::default());
    tokio::select! {
        answer = call.answer() => panic!("{answer:?}"),
        () = tokio::time::sleep(std::time::Duration::from_millis(200)) => {}
    }
}

#[tokio::test]
async fn a_proxy_that_goes_away_leaves_no_trace() {
    let world = World::start(&[]).await;
    for _ in 0..50 {
        let mut call = world.call().await;
        call.exchange(request(&post("/mcp", &[]), false)).await;
        drop(call);
    }
    let (answer, _call) = world.decide(&post("/mcp", &[]), Some(&tool("get-sum"))).await;
    assert!(answer.dynamic_metadata.is_some());
    let World { processor, envoy, .. } = world;
    drop((envoy, _call));
    assert!(processor.shutdown().await, "every stream has ended");
}
