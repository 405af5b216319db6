//! Agents without certificates.
use agentic_gateway::{
    Sidecar,
    cli::{Cli, Command, SidecarArgs},
};
use clap::Parser;

use crate::support::{
    AGENT, Client, DENIED, OTHER, Upstream, World, allow_tools, call, eventually, manifests, write_identity,
};

fn args(world: &World, identity: &std::path::Path, more: &[&str]) -> SidecarArgs {
    let resolve = format!("gateway.test:10001:{}", world.address(10001));
    let mut arguments = vec![
        "agentic-gateway",
        "sidecar",
        "--to",
        "https://gateway.test:10001",
        "--identity-dir",
        identity.to_str().unwrap(),
        "--listen",
        "127.0.0.1:0",
        "--resolve",
        &resolve,
    ];
    arguments.extend(more);
    match Cli::try_parse_from(arguments).unwrap().command {
        Command::Sidecar(args) => args,
        other => panic!("{other:?}"),
    }
}

const GATEWAY: &str = "spiffe://cluster.local/ns/ns/sa/gateway";

#[tokio::test]
async fn plain_agents_have_the_pods_identity_and_it_rotates() {
    let upstream = Upstream::json().await;
    let world = World::start(&manifests(upstream.address, &allow_tools("get-sum"))).await;
    let identity = tempfile::tempdir().unwrap();
    write_identity(identity.path(), &world.ca, AGENT);
    let sidecar = Sidecar::start(&args(&world, identity.path(), &["--gateway-id", GATEWAY])).await.unwrap();
    let host = sidecar.address().to_string();
    let headers = [
        ("host", host.as_str()),
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
    ];
    let post = async |client: &mut Client, headers: &[(&str, &str)], tool: &str| {
        let mut request = http::Request::builder().method("POST").uri("/mcp");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = http_body_util::Full::new(bytes::Bytes::from(call(tool)));
        let (parts, body) = client.send(request.body(body).unwrap()).await.unwrap().into_parts();
        let body = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
        (parts.status.as_u16(), String::from_utf8(body.to_vec()).unwrap())
    };
    let mut agent = Client::plain(sidecar.address()).await;
    assert_eq!(post(&mut agent, &headers, "get-sum").await.0, 200);
    assert_eq!(post(&mut agent, &headers, "echo").await, (200, DENIED.to_owned()));
    assert_eq!(upstream.seen()[0].headers["host"], "gateway.test:10001");

    // A page of another site, and one whose name was rebound to loopback.
    let page = [("host", host.as_str()), ("origin", "https://evil.example")];
    assert_eq!(post(&mut agent, &page, "get-sum").await.0, 403);
    let rebound = format!("evil.example:{}", sidecar.address().port());
    assert_eq!(post(&mut agent, &[("host", rebound.as_str())], "get-sum").await.0, 421);
    assert_eq!(upstream.seen().len(), 1);

    // The pod is given another identity: the same agent's connection goes on, as somebody else.
    write_identity(identity.path(), &world.ca, OTHER);
    let agent = tokio::sync::Mutex::new(agent);
    eventually("the new identity is in force", || async {
        post(&mut *agent.lock().await, &headers, "get-sum").await.1 == DENIED
    })
    .await;
    sidecar.shutdown().await;
}

#[tokio::test]
async fn a_gateway_that_is_somebody_else_is_not_talked_to() {
    let upstream = Upstream::json().await;
    let world = World::start(&manifests(upstream.address, &allow_tools("get-sum"))).await;
    let identity = tempfile::tempdir().unwrap();
    write_identity(identity.path(), &world.ca, AGENT);
    for flags in [&["--gateway-id", OTHER][..], &[]] {
        let sidecar = Sidecar::start(&args(&world, identity.path(), flags)).await.unwrap();
        let host = sidecar.address().to_string();
        let mut agent = Client::plain(sidecar.address()).await;
        let request = http::Request::builder().uri("/mcp").header("host", host);
        let response = agent.send(request.body(http_body_util::Full::default()).unwrap()).await.unwrap();
        assert_eq!(response.status().as_u16(), 502, "{flags:?}");
    }
    let roots = identity.path().join("cluster.local.trust-bundle.pem");
    let by_name = args(&world, identity.path(), &["--extra-ca", roots.to_str().unwrap()]);
    let sidecar = Sidecar::start(&by_name).await.unwrap();
    let host = sidecar.address().to_string();
    let mut agent = Client::plain(sidecar.address()).await;
    let request = http::Request::builder().uri("/mcp").header("host", host);
    let response = agent.send(request.body(http_body_util::Full::default()).unwrap()).await.unwrap();
    assert_eq!(response.status().as_u16(), 406, "the gateway's own answer: its DNS name matches");
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn it_listens_on_loopback_only() {
    let upstream = Upstream::json().await;
    let world = World::start(&manifests(upstream.address, "")).await;
    let identity = tempfile::tempdir().unwrap();
    write_identity(identity.path(), &world.ca, AGENT);
    let mut open = args(&world, identity.path(), &[]);
    open.listen = "0.0.0.0:0".parse().unwrap();
    assert!(Sidecar::start(&open).await.is_err());
}
