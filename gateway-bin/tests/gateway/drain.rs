//! The end of a gateway.
use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::{Notify, mpsc};

use crate::support::{AGENT, Client, Upstream, World, allow_tools, call, eventually, manifests};

/// An upstream whose body ends when it is told to.
async fn slow() -> (Upstream, mpsc::UnboundedSender<&'static str>, Arc<Notify>) {
    let (send, receive) = mpsc::unbounded_channel::<&'static str>();
    let receive = std::sync::Mutex::new(Some(receive));
    let arrived = Arc::new(Notify::new());
    let tell = Arc::clone(&arrived);
    let upstream = Upstream::start(move |_| {
        tell.notify_one();
        let mut receive = receive.lock().unwrap().take().unwrap();
        let frames = futures_util::stream::poll_fn(move |cx| {
            receive
                .poll_recv(cx)
                .map(|text| text.map(|text| Ok(Frame::data(Bytes::from_static(text.as_bytes())))))
        });
        Response::builder()
            .header("content-type", "text/event-stream")
            .body(BodyExt::boxed(StreamBody::new(frames)))
            .unwrap()
    })
    .await;
    (upstream, send, arrived)
}

#[tokio::test]
async fn a_request_that_was_begun_is_finished() {
    let (upstream, send, arrived) = slow().await;
    let world = World::start(&manifests(upstream.address, &allow_tools("get-sum"))).await;
    let (address, admin) = (world.address(10001), world.gateway.admin_address());
    let mut agent = world.client(AGENT).await;
    let reply = tokio::spawn(async move { agent.mcp(&call("get-sum"), &[]).await });
    arrived.notified().await;

    let World { gateway, .. } = world;
    let shutdown = tokio::spawn(gateway.shutdown());
    eventually("it is not ready any more", || async {
        Client::plain(admin).await.request("GET", "/readyz", &[], "").await.unwrap().status.as_u16() == 503
    })
    .await;
    eventually("it accepts no more", || async { tokio::net::TcpStream::connect(address).await.is_err() })
        .await;
    assert!(!shutdown.is_finished());
    send.send("data: {}\n\n").unwrap();
    drop(send);
    let reply = reply.await.unwrap().unwrap();
    assert_eq!((reply.status.as_u16(), reply.body.as_str()), (200, "data: {}\n\n"));
    assert!(shutdown.await.unwrap(), "everything ended by itself");
}

#[tokio::test]
async fn a_client_of_many_requests_is_told_before_its_connection_closes() {
    let upstream = Upstream::json().await;
    let world = World::start(&manifests(upstream.address, &allow_tools("get-sum"))).await;
    let admin = world.gateway.admin_address();
    let mut agent = world.client(AGENT).await;
    let before = agent.mcp(&call("get-sum"), &[]).await.unwrap();
    assert_eq!(before.headers.get("connection"), None);

    let World { gateway, .. } = world;
    let shutdown = tokio::spawn(gateway.shutdown());
    eventually("it is not ready any more", || async {
        Client::plain(admin).await.request("GET", "/readyz", &[], "").await.unwrap().status.as_u16() == 503
    })
    .await;
    let after = agent.mcp(&call("get-sum"), &[]).await.unwrap();
    assert_eq!(after.status, before.status);
    assert_eq!(after.headers.get("connection").unwrap(), "close");
    assert!(agent.mcp(&call("get-sum"), &[]).await.is_err(), "it closes the connection itself");
    assert!(shutdown.await.unwrap(), "everything ended by itself");
}

#[tokio::test]
async fn what_does_not_end_is_cut_off_after_the_drain_timeout() {
    let (upstream, send, arrived) = slow().await;
    let text = manifests(upstream.address, &allow_tools("get-sum"));
    let world = World::start_with(&text, &["--drain-timeout", "100ms"]).await;
    let mut agent = world.client(AGENT).await;
    let reply = tokio::spawn(async move { agent.mcp(&call("get-sum"), &[]).await });
    arrived.notified().await;
    let World { gateway, .. } = world;
    assert!(!gateway.shutdown().await);
    assert!(tokio::time::timeout(Duration::from_secs(5), reply).await.unwrap().unwrap().is_err());
    drop(send);
}

#[tokio::test]
async fn an_event_stream_ends_when_a_new_policy_would_deny_it() {
    let (upstream, send, _) = slow().await;
    let world = World::start(&manifests(upstream.address, &allow_tools("get-sum"))).await;
    let mut agent = world.client(AGENT).await;
    let request = http::Request::builder()
        .method("POST")
        .uri("/mcp")
        .header("host", "gateway.test")
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .body(http_body_util::Full::new(Bytes::from(call("get-sum"))))
        .unwrap();
    let mut body = agent.send(request).await.unwrap().into_body();
    send.send("data: 1\n\n").unwrap();
    assert!(body.frame().await.unwrap().is_ok());
    std::fs::write(world.manifests(), manifests(upstream.address, &allow_tools("echo"))).unwrap();
    let end = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.unwrap();
    assert!(!matches!(end, Some(Ok(_))), "no event comes any more");
    drop(send);
}

#[tokio::test]
async fn events_arrive_as_they_are_sent() {
    let (upstream, send, _) = slow().await;
    let world = World::start(&manifests(upstream.address, &allow_tools("get-sum"))).await;
    let mut agent = world.client(AGENT).await;
    let request = http::Request::builder()
        .method("POST")
        .uri("/mcp")
        .header("host", "gateway.test")
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .body(http_body_util::Full::new(Bytes::from(call("get-sum"))))
        .unwrap();
    let mut body = agent.send(request).await.unwrap().into_body();
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        send.send(event).unwrap();
        let frame =
            tokio::time::timeout(Duration::from_secs(5), body.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), event);
    }
    drop(send);
    assert!(body.frame().await.is_none());
}
