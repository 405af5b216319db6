//! Where requests go.
use std::{fs, net::SocketAddr};

use crate::support::{
    AGENT, TlsUpstream, Upstream, World, allow_tools, call, eventually, manifests, session_upstream,
};

/// The Service has these endpoints, each in an EndpointSlice of its own.
fn with_endpoints(first: SocketAddr, others: &[SocketAddr]) -> String {
    let mut text = manifests(first, &allow_tools("get-sum"));
    for (at, other) in others.iter().enumerate() {
        text.push_str(&format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: more-{at}, namespace: ns, labels: {{kubernetes.io/service-name: server}}}}\naddressType: IPv4\nports: [{{name: mcp, port: {}}}]\nendpoints: [{{addresses: [\"127.0.0.1\"]}}]\n",
            other.port()
        ));
    }
    text
}

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#;

#[tokio::test]
async fn a_session_stays_on_its_endpoint_and_ends_with_it() {
    let (one, two) = (session_upstream().await, session_upstream().await);
    let world = World::start(&with_endpoints(one.address, &[two.address])).await;
    let mut agent = world.client(AGENT).await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        let opened = agent.mcp(INITIALIZE, &[]).await.unwrap();
        ids.push(opened.headers["mcp-session-id"].to_str().unwrap().to_owned());
    }
    assert_eq!((one.seen().len(), two.seen().len()), (2, 2), "new sessions take turns");
    for id in &ids {
        let before = (one.seen().len(), two.seen().len());
        for _ in 0..3 {
            assert_eq!(
                agent.mcp(&call("get-sum"), &[("mcp-session-id", id)]).await.unwrap().status.as_u16(),
                200
            );
        }
        let after = (one.seen().len() - before.0, two.seen().len() - before.1);
        assert!(after == (3, 0) || after == (0, 3), "{after:?}");
    }
    // The second endpoint goes: its sessions are over, the others are not.
    let mut generation = world.gateway.generation();
    generation.borrow_and_update();
    fs::write(world.manifests(), with_endpoints(one.address, &[])).unwrap();
    generation.changed().await.unwrap();
    let mut statuses = Vec::new();
    for id in &ids {
        let reply = agent.mcp(&call("get-sum"), &[("mcp-session-id", id)]).await.unwrap();
        statuses.push(reply.status.as_u16());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 404, 404]);
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_is_passed_over() {
    let upstream = Upstream::json().await;
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = gone.local_addr().unwrap();
    drop(gone);
    let world = World::start(&with_endpoints(upstream.address, &[dead])).await;
    let mut agent = world.client(AGENT).await;
    for _ in 0..4 {
        assert_eq!(agent.call("get-sum").await.status.as_u16(), 200);
    }
    assert_eq!(upstream.seen().len(), 4);
}

#[tokio::test]
async fn a_host_name_is_reached_by_verified_tls_under_its_own_name() {
    let upstream = TlsUpstream::start("mcp.example.test").await;
    let text = manifests(upstream.address, &allow_tools("get-sum")).replace(
        &format!("serviceName: server, port: {}", upstream.address.port()),
        "hostname: mcp.example.test, port: 443",
    );
    let resolve = format!("mcp.example.test:443:{}", upstream.address);
    let trusting =
        World::start_with(&text, &["--resolve", &resolve, "--extra-ca", upstream.roots.to_str().unwrap()])
            .await;
    let reply = trusting.client(AGENT).await.call("get-sum").await;
    assert_eq!((reply.status.as_u16(), reply.body.as_str()), (200, "{}"));
    let [seen] = upstream.seen().try_into().unwrap();
    assert_eq!(seen.headers["host"], "mcp.example.test");

    let wary = World::start_with(&text, &["--resolve", &resolve]).await;
    assert_eq!(wary.client(AGENT).await.call("get-sum").await.status.as_u16(), 503, "an unknown CA");
    let other = TlsUpstream::start("other.example.test").await;
    let resolve = format!("mcp.example.test:443:{}", other.address);
    let misled =
        World::start_with(&text, &["--resolve", &resolve, "--extra-ca", other.roots.to_str().unwrap()]).await;
    assert_eq!(misled.client(AGENT).await.call("get-sum").await.status.as_u16(), 503, "another name");
    assert!(other.seen().is_empty());
    eventually("nothing more came", || async { upstream.seen().len() == 1 }).await;
}
