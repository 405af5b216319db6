//! Configurations that change while the gateway runs.
use std::fs;

use agentic_gateway::{AccessLog, Gateway};
use tokio::net::TcpListener;

use crate::support::{
    AGENT, DENIED, Upstream, World, allow_tools, ca, eventually, manifests, metric, run_args, write_identity,
};

#[tokio::test]
async fn a_change_of_policy_shows_on_an_open_connection() {
    let upstream = Upstream::json().await;
    let world = World::start(&manifests(upstream.address, &allow_tools("get-sum"))).await;
    let agent = tokio::sync::Mutex::new(world.client(AGENT).await);
    assert_ne!(agent.lock().await.call("get-sum").await.body, DENIED);
    fs::write(world.manifests(), manifests(upstream.address, &allow_tools("echo"))).unwrap();
    eventually("the new policy is in force", || async {
        agent.lock().await.call("get-sum").await.body == DENIED
    })
    .await;
    assert_ne!(agent.lock().await.call("echo").await.body, DENIED);
}

#[tokio::test]
async fn an_invalid_file_never_replaces_a_good_configuration() {
    let upstream = Upstream::json().await;
    let world = World::start(&manifests(upstream.address, &allow_tools("get-sum"))).await;
    let mut agent = world.client(AGENT).await;
    let mut generation = world.gateway.generation();
    let first = *generation.borrow_and_update();
    let admin = world.gateway.admin_address();
    for bad in [
        "kind: [",
        "apiVersion: agentic.networking.x-k8s.io/v0alpha0\nkind: XAccessPolicy\nmetadata: {name: x, namespace: ns}\nspec: {rulez: []}\n",
    ] {
        let refused = refusals(admin).await;
        fs::write(world.manifests(), bad).unwrap();
        eventually("the file was read and refused", || async { refusals(admin).await > refused }).await;
        assert_ne!(agent.call("get-sum").await.body, DENIED);
        assert_eq!(agent.call("echo").await.body, DENIED);
    }
    assert_eq!(*generation.borrow_and_update(), first);
    fs::write(world.manifests(), manifests(upstream.address, &allow_tools("echo"))).unwrap();
    generation.changed().await.unwrap();
    assert_ne!(agent.call("echo").await.body, DENIED);
}

async fn refusals(admin: std::net::SocketAddr) -> u64 {
    metric(admin, r#"agentic_gateway_config_reloads_total{result="refused"}"#).await
}

#[tokio::test]
async fn what_a_full_disk_leaves_of_a_file_is_refused() {
    let upstream = Upstream::json().await;
    let world = World::start(&manifests(upstream.address, "")).await;
    let policies = world.dir.path().join("manifests/policies.yaml");
    let policy = allow_tools("get-sum");
    let mut generation = world.gateway.generation();
    generation.borrow_and_update();
    fs::write(&policies, &policy).unwrap();
    generation.changed().await.unwrap();
    generation.borrow_and_update();
    let mut agent = world.client(AGENT).await;
    let admin = world.gateway.admin_address();
    // Written in place by somebody who may write so many blocks of 512 bytes and then no more. In 512 bytes is all of the
    // policy but its last line; before it, a comment makes up for what is missing.
    let longer = format!("# {}{policy}", "x".repeat(540 - policy.len()));
    for blocks in ["0", "1"] {
        let refused = refusals(admin).await;
        let script = r#"trap '' XFSZ; ulimit -f "$2" && printf %s "$3" >"$1""#;
        let arguments = ["-c", script, "sh", policies.to_str().unwrap(), blocks, &longer];
        let written = std::process::Command::new("sh").args(arguments).output().unwrap();
        assert!(!written.status.success(), "{written:?}");
        assert!(fs::read(&policies).unwrap().len() < longer.len());
        eventually("the file was read and refused", || async { refusals(admin).await > refused }).await;
        assert_eq!(agent.call("echo").await.body, DENIED, "{blocks}");
        assert_ne!(agent.call("get-sum").await.body, DENIED, "{blocks}");
    }
    assert!(!generation.has_changed().unwrap());
    fs::write(&policies, allow_tools("echo")).unwrap();
    generation.changed().await.unwrap();
    assert_ne!(agent.call("echo").await.body, DENIED);
}

#[tokio::test]
async fn ports_come_and_go_without_touching_others() {
    let upstream = Upstream::json().await;
    let text = manifests(upstream.address, &allow_tools("get-sum"));
    let world = World::start(&text).await;
    let mut agent = world.client(AGENT).await;
    let (https, plain) = (world.address(10001), world.address(10002));

    let moved = text
        .replace("{name: plain, protocol: HTTP, port: 10002}", "{name: plain, protocol: HTTP, port: 10003}");
    fs::write(world.manifests(), moved).unwrap();
    eventually("the new port is open", || async { world.gateway.bound().contains_key(&10003) }).await;
    assert_eq!(world.gateway.bound().get(&10002), None);
    assert_eq!(world.address(10001), https);
    assert_ne!(agent.call("get-sum").await.body, DENIED, "the open connection goes on");
    eventually("the old port is closed", || async { tokio::net::TcpStream::connect(plain).await.is_err() })
        .await;
}

#[tokio::test]
async fn bundles_and_certificates_rotate_without_dropping_connections() {
    let upstream = Upstream::json().await;
    let mut world = World::start(&manifests(upstream.address, &allow_tools("get-sum"))).await;
    let mut old = world.client(AGENT).await;
    assert_ne!(old.call("get-sum").await.body, DENIED);
    let next = ca("cluster.local");
    // Manifests that are wrong do not hold certificates up.
    fs::write(world.manifests(), "kind: [").unwrap();
    write_identity(&world.dir.path().join("identity"), &next, "spiffe://cluster.local/ns/ns/sa/gateway");
    world.ca = next;
    let id = crate::support::svid(
        &world.ca,
        AGENT,
        std::time::SystemTime::now() + std::time::Duration::from_secs(60),
    );
    eventually("the new CA is in force", || async { world.try_client(Some(&id)).await.is_ok() }).await;
    assert_ne!(world.client(AGENT).await.call("get-sum").await.body, DENIED);
    assert_ne!(old.call("get-sum").await.body, DENIED, "the open connection goes on");
}

#[tokio::test]
async fn a_certificate_that_disappears_closes_nothing() {
    let upstream = Upstream::json().await;
    let world = World::start(&manifests(upstream.address, &allow_tools("get-sum"))).await;
    let mut generation = world.gateway.generation();
    generation.mark_unchanged();
    fs::remove_file(world.dir.path().join("identity/credential-bundle.pem")).unwrap();
    generation.changed().await.unwrap();
    assert_ne!(world.client(AGENT).await.call("get-sum").await.body, DENIED);
}

#[tokio::test]
async fn files_must_be_good_at_first() {
    let world = World::start(&manifests("127.0.0.1:1".parse().unwrap(), &allow_tools("get-sum"))).await;
    let path = world.manifests();
    let World { gateway, ca: _ca, dir, .. } = world;
    gateway.shutdown().await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("10004={}", taken.local_addr().unwrap());
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("port: 10002", "port: 10004")).unwrap();
    let args = run_args(dir.path(), &["--listen", &at]);
    let error = Gateway::start(&args, AccessLog::Off).await.unwrap_err().to_string();
    assert!(error.contains("port 10004"), "{error}");
    drop(taken);
    fs::remove_file(dir.path().join("identity/credential-bundle.pem")).unwrap();
    let error = Gateway::start(&args, AccessLog::Off).await.unwrap_err().to_string();
    assert!(error.contains("listener `https` of Gateway `ns/gw`"), "{error}");
}
