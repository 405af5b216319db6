//! What reaches the inner service, and how tower sees the layer.
use std::{convert::Infallible, task::Poll};

use authz_core::BackendKind;
use authz_tower::{AuthorizeFuture, AuthzLayer, Context, RequestBody, ResponseBody};
use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body::Body;
use tower::{ServiceExt, service_fn};
use tower_test::mock;

use super::support::{TestBody, call, context, delete, get, one_tool, post, send, text};

#[tokio::test]
async fn the_bytes_that_were_decided_on_are_forwarded() {
    let body = format!("  {} \n", call("1", "get-sum"));
    let (first, second) = body.split_at(20);
    for frames in [TestBody::from(&*body), TestBody::of([first, "", second])] {
        let mut request = post(frames);
        request.headers_mut().insert("transfer-encoding", HeaderValue::from_static("chunked"));
        let outcomes = send(one_tool(), request).await;
        let forwarded = outcomes.forwarded.unwrap();
        assert_eq!(forwarded.headers()["content-length"], body.len().to_string().as_str());
        assert!(!forwarded.headers().contains_key("transfer-encoding"));
        assert_eq!(forwarded.body().size_hint().exact(), u64::try_from(body.len()).ok());
        assert_eq!(text(forwarded.into_body()).await, body);
        assert_eq!(outcomes.observed, ["allow|tools/call|get-sum|-|-|decided"]);
    }
}

#[tokio::test]
async fn a_body_of_one_frame_is_not_copied() {
    let bytes = Bytes::from(call("1", "get-sum"));
    let at = bytes.as_ptr();
    let frames = TestBody::Frames { frames: [bytes].into(), announced: None };
    let forwarded = send(one_tool(), post(frames)).await.forwarded.unwrap();
    let RequestBody::Buffered(Some(bytes)) = forwarded.into_body() else { panic!("it was read") };
    assert_eq!(bytes.as_ptr(), at);
}

#[tokio::test]
async fn the_target_stays_as_received_and_other_headers_pass() {
    let mut request = post(call("1", "get-sum"));
    *request.uri_mut() = "https://h/local/mcp?x=%20".parse().unwrap();
    for (name, value) in
        [("authorization", "Bearer t"), ("mcp-param-x", "1"), ("mcp-session-id", "s"), ("mcp-name", "lie")]
    {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let forwarded = send(one_tool(), request).await.forwarded.unwrap();
    assert_eq!(forwarded.uri(), "https://h/local/mcp?x=%20");
    for (name, value) in [("authorization", "Bearer t"), ("mcp-param-x", "1"), ("mcp-session-id", "s")] {
        assert_eq!(forwarded.headers()[name], value);
    }
    assert!(!forwarded.headers().contains_key("mcp-name"));
}

#[tokio::test]
async fn heads_are_forwarded_without_a_body() {
    for request in [get("text/event-stream"), delete()] {
        let outcomes = send(one_tool(), request).await;
        assert!(outcomes.forwarded.unwrap().body().is_end_stream());
        assert_eq!(outcomes.observed, ["allow||-|-|-|decided"]);
    }
}

#[tokio::test]
async fn a_body_that_nobody_reads_is_streamed() {
    let (sender, body) = TestBody::live();
    let mut request = post(body);
    request.headers_mut().insert("content-type", HeaderValue::from_static("application/octet-stream"));
    let forwarded = send(context(vec![], BackendKind::Service), request).await.forwarded.unwrap();
    let mut body = forwarded.into_body();
    assert!(super::support::poll_once(&mut body).is_pending());
    sender.send(Ok("a".into())).unwrap();
    assert_eq!(super::support::poll_once(&mut body), Poll::Ready(Some(Ok("a".into()))));
    drop(sender);
    assert_eq!(super::support::poll_once(&mut body), Poll::Ready(None));
}

#[tokio::test]
async fn the_layer_takes_its_context_from_the_head() {
    let layer = AuthzLayer::new(|parts: &http::request::Parts| {
        let identity = one_tool().identity.filter(|_| parts.headers.contains_key("x-known"));
        Context { identity, ..one_tool() }
    });
    let (mut service, mut handle) =
        mock::spawn_layer::<Request<RequestBody<TestBody>>, Response<TestBody>, _>(layer);
    // Back-pressure of the inner service is the layer's own.
    handle.allow(0);
    assert!(service.poll_ready().is_pending());
    handle.allow(1);
    assert!(service.poll_ready().is_ready());
    let mut known = post(call("1", "get-sum"));
    known.headers_mut().insert("x-known", HeaderValue::from_static("1"));
    let expected = post(TestBody::empty()).into_parts().0;
    let call_ = tokio::spawn(service.call(known));
    let (request, reply) = handle.next_request().await.unwrap();
    assert_eq!(request.uri(), &expected.uri);
    reply.send_response(Response::new(TestBody::from("upstream")));
    let response = call_.await.unwrap().unwrap();
    assert!(matches!(response.body(), ResponseBody::Inner(_)));

    handle.allow(1);
    assert!(service.poll_ready().is_ready());
    let response = service.call(post(call("1", "get-sum"))).await.unwrap();
    assert!(text(response.into_body()).await.contains("403"));
}

#[tokio::test]
async fn errors_of_the_inner_service_pass() {
    let (service, mut handle) = mock::pair::<Request<RequestBody<TestBody>>, Response<TestBody>>();
    let authorized = tokio::spawn(authz_tower::authorize(one_tool(), post(call("1", "get-sum")), service));
    let (_, reply) = handle.next_request().await.unwrap();
    reply.send_error("the server is gone");
    assert_eq!(authorized.await.unwrap().unwrap_err().to_string(), "the server is gone");

    let (service, mut handle) = mock::pair::<Request<RequestBody<TestBody>>, Response<TestBody>>();
    handle.send_error("not ready");
    let error = authz_tower::authorize(one_tool(), post(call("1", "get-sum")), service).await.unwrap_err();
    assert_eq!(error.to_string(), "not ready");
}

#[tokio::test]
async fn plain_responses_pass_untouched() {
    let mut answer = Response::new(TestBody::of(["a", "b"]));
    *answer.status_mut() = http::StatusCode::IM_A_TEAPOT;
    answer.headers_mut().insert("etag", HeaderValue::from_static("\"x\""));
    let outcomes = super::support::send_for(one_tool(), post(call("1", "get-sum")), answer).await;
    assert_eq!(outcomes.response.status(), 418);
    assert_eq!(outcomes.response.headers()["etag"], "\"x\"");
    assert_eq!(outcomes.response.body().size_hint().exact(), Some(2));
    assert_eq!(text(outcomes.response.into_body()).await, "ab");
}

#[tokio::test]
async fn any_tower_service_will_do() {
    let service = service_fn(|request: Request<RequestBody<TestBody>>| async move {
        Ok::<_, Infallible>(Response::new(request.into_body()))
    });
    let response = tower::Layer::layer(&AuthzLayer::new(|_: &http::request::Parts| one_tool()), service)
        .oneshot(post(call("1", "get-sum")))
        .await
        .unwrap();
    assert_eq!(text(response.into_body()).await, call("1", "get-sum"));
}

#[test]
fn the_future_stays_small_and_can_move_between_threads() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    let service = service_fn(|_: Request<RequestBody<TestBody>>| {
        std::future::ready(Ok::<_, Infallible>(Response::new(TestBody::empty())))
    });
    let future = is_send(authz_tower::authorize(one_tool(), post(""), service));
    assert!(format!("{future:?}").contains("collecting"));
    // The request and its context are most of it; what is inside must not sneak in twice.
    let budget = size_of::<Context>() + 2 * size_of::<Request<RequestBody<TestBody>>>() + 256;
    assert!(size_of_val(&future) <= budget, "{} of {budget}", size_of_val(&future));
    assert!(size_of_val(&future) <= 1024, "{}", size_of_val(&future));
    drop::<AuthorizeFuture<_, TestBody>>(future);
}
