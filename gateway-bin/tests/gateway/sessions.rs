//! Sealed sessions: semantics, section 3.
use http::Response;

use crate::support::{AGENT, OTHER, Upstream, World, allow_tools, call, full, manifests, session_upstream};

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#;

async fn world() -> (Upstream, World) {
    let upstream = session_upstream().await;
    let world = World::start(&manifests(upstream.address, &allow_tools("get-sum"))).await;
    (upstream, world)
}

#[tokio::test]
async fn a_session_is_its_openers_own() {
    let (upstream, world) = world().await;
    let mut agent = world.client(AGENT).await;
    let opened = agent.mcp(INITIALIZE, &[]).await.unwrap();
    let id = opened.headers["mcp-session-id"].to_str().unwrap().to_owned();
    assert!(!id.contains("server-side-id"), "{id}");

    let reply = agent.mcp(&call("get-sum"), &[("mcp-session-id", &id)]).await.unwrap();
    assert_eq!(reply.status.as_u16(), 200);
    assert_eq!(reply.headers["mcp-session-id"], *id, "the client's id stays the same");
    assert_eq!(upstream.seen().last().unwrap().headers["mcp-session-id"], "server-side-id");
    let before = upstream.seen().len();

    let list = r#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#;
    let mut other = world.client(OTHER).await;
    let mut plain = world.plain_client().await;
    for client in [&mut other, &mut plain] {
        let reply = client.mcp(list, &[("mcp-session-id", &id)]).await.unwrap();
        assert_eq!(reply.status.as_u16(), 404);
        assert_eq!(
            reply.body,
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32001,"message":"Session not found"}}"#
        );
    }
    for forged in ["server-side-id", "", &id[1..], &format!("{id}A")] {
        let reply = agent.mcp(list, &[("mcp-session-id", forged)]).await.unwrap();
        assert_eq!(reply.status.as_u16(), 404, "{forged}");
    }
    let twice = [("mcp-session-id", id.as_str()), ("mcp-session-id", id.as_str())];
    assert_eq!(agent.mcp(list, &twice).await.unwrap().status.as_u16(), 400);
    assert_eq!(upstream.seen().len(), before, "none of these reached the server");
}

#[tokio::test]
async fn policy_comes_before_the_session() {
    let (upstream, world) = world().await;
    let mut agent = world.client(AGENT).await;
    let reply = agent.mcp(&call("echo"), &[("mcp-session-id", "nonsense")]).await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.body.as_str()), (200, crate::support::DENIED));
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn on_a_service_the_header_passes_untouched() {
    let (upstream, world) = world().await;
    let mut plain = world.plain_client().await;
    let reply = plain.request("GET", "/svc/x", &[("mcp-session-id", "mine")], "").await.unwrap();
    assert_eq!(reply.headers["mcp-session-id"], "mine");
    assert_eq!(upstream.seen()[0].headers["mcp-session-id"], "mine");
}

#[tokio::test]
async fn a_shared_key_opens_sessions_of_another_replica_and_of_the_process_before() {
    let upstream = Upstream::start(|_| {
        Response::builder()
            .header("content-type", "application/json")
            .header("mcp-session-id", "server-side-id")
            .body(full("{}"))
            .unwrap()
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    std::fs::write(&key, "00".repeat(31) + "01").unwrap();
    let text = manifests(upstream.address, &allow_tools("get-sum"));
    let flags = ["--session-key-file", key.to_str().unwrap()];
    let (one, two) = (World::start_with(&text, &flags).await, World::start_with(&text, &flags).await);
    let opened = one.client(AGENT).await.mcp(INITIALIZE, &[]).await.unwrap();
    let id = opened.headers["mcp-session-id"].to_str().unwrap().to_owned();
    let reply = two.client(AGENT).await.mcp(&call("get-sum"), &[("mcp-session-id", &id)]).await.unwrap();
    assert_eq!(reply.status.as_u16(), 200);
    let stranger = World::start(&text).await;
    let reply = stranger.client(AGENT).await.mcp(&call("get-sum"), &[("mcp-session-id", &id)]).await.unwrap();
    assert_eq!(reply.status.as_u16(), 404, "a process with a key of its own");
}
