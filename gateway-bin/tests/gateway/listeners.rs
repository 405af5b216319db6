//! Which clients a listener lets in, and which listener a client is on.
use std::time::{Duration, SystemTime};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use spiffe_id::IssuedSvid;

use crate::support::{AGENT, Client, DENIED, Upstream, World, allow_tools, ca, call, manifests, svid};

const HOUR: Duration = Duration::from_secs(3600);

/// A CA with a certificate that is for no SPIFFE ID.
fn corporate() -> (String, IssuedSvid) {
    let root_key = KeyPair::generate().unwrap();
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_pem = root.self_signed(&root_key).unwrap().pem();
    let issuer = Issuer::new(root, root_key);
    let key = KeyPair::generate().unwrap();
    let leaf =
        CertificateParams::new(vec!["laptop.test".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    (root_pem, IssuedSvid { chain: vec![leaf.der().clone()], key_pem: Some(key.serialize_pem()) })
}

/// Serves the listener `https` with a certificate of its own, and with what `frontend` says of clients.
async fn world(upstream: &Upstream, frontend: &str, more: &str) -> World {
    // The certificate of the Secret is of another CA than that of the identities.
    let issuer = ca("servers.test");
    let own = svid(&issuer, "spiffe://servers.test/web", SystemTime::now() + HOUR);
    let text = manifests(upstream.address, &allow_tools("get-sum"))
        .replace(
            "{name: https, protocol: HTTPS, port: 10001}",
            "{name: https, protocol: HTTPS, port: 10001, tls: {certificateRefs: [{name: web}]}}",
        )
        .replace("  gatewayClassName", &format!("{frontend}  gatewayClassName"));
    let secret = format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: web, namespace: ns}}\ntype: kubernetes.io/tls\ndata:\n  tls.crt: {}\n  tls.key: {}\n---\n{more}",
        STANDARD.encode(own.chain_pem()),
        STANDARD.encode(own.key_pem.as_ref().unwrap()),
    );
    let mut world = World::start(&format!("{text}{secret}")).await;
    world.server_roots = Some(issuer.roots_pem());
    world
}

/// What a call gets: its body, or nothing where the connection was refused.
async fn outcome(world: &World, svid: Option<&IssuedSvid>) -> Option<String> {
    let mut client = world.try_client(svid).await.ok()?;
    client.mcp(&call("get-sum"), &[]).await.ok().map(|reply| reply.body)
}

#[tokio::test]
async fn with_a_certificate_of_its_own_a_listener_asks_for_identities_and_does_not_require_them() {
    let upstream = Upstream::json().await;
    let world = world(&upstream, "", "").await;
    let agent = svid(&world.ca, AGENT, SystemTime::now() + HOUR);
    assert_eq!(
        outcome(&world, Some(&agent)).await.as_deref(),
        Some(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#)
    );
    assert_eq!(outcome(&world, None).await.as_deref(), Some(DENIED));
    let forged = svid(&ca("cluster.local"), AGENT, SystemTime::now() + HOUR);
    assert_eq!(outcome(&world, Some(&forged)).await, None);
    assert_eq!(outcome(&world, Some(&corporate().1)).await, None);
    assert_eq!(upstream.seen().len(), 1);
}

fn frontend(mode: &str) -> String {
    format!(
        "  tls: {{frontend: {{default: {{validation: {{mode: {mode}, caCertificateRefs: [{{group: \"\", kind: ConfigMap, name: clients}}]}}}}}}}}\n"
    )
}

fn config_map(root: &str) -> String {
    let indented: String = root.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: clients, namespace: ns}}\ndata:\n  ca.crt: |\n{indented}"
    )
}

#[tokio::test]
async fn a_frontend_ca_gives_a_connection_and_no_identity() {
    let upstream = Upstream::json().await;
    let (root, laptop) = corporate();
    let world = world(&upstream, &frontend("AllowValidOnly"), &config_map(&root)).await;
    assert_eq!(outcome(&world, Some(&laptop)).await.as_deref(), Some(DENIED));
    assert_eq!(outcome(&world, None).await, None);
    let agent = svid(&world.ca, AGENT, SystemTime::now() + HOUR);
    assert_eq!(outcome(&world, Some(&agent)).await, None, "the frontend CA did not sign it");
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn insecure_fallback_admits_everybody_as_nobody() {
    let upstream = Upstream::json().await;
    let (root, laptop) = corporate();
    let world = world(&upstream, &frontend("AllowInsecureFallback"), &config_map(&root)).await;
    let forged = svid(&ca("cluster.local"), AGENT, SystemTime::now() + HOUR);
    for client in [None, Some(&laptop), Some(&forged)] {
        assert_eq!(outcome(&world, client).await.as_deref(), Some(DENIED));
    }
    assert!(upstream.seen().is_empty());
    let agent = svid(&world.ca, AGENT, SystemTime::now() + HOUR);
    assert_eq!(
        outcome(&world, Some(&agent)).await.as_deref(),
        Some(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#),
        "a trust bundle vouches for it"
    );
}

#[tokio::test]
async fn the_tls_server_name_chooses_the_listener_and_binds_the_host() {
    let upstream = Upstream::json().await;
    let text = manifests(upstream.address, &allow_tools("get-sum")).replace(
        "{name: https, protocol: HTTPS, port: 10001}",
        "{name: a, protocol: HTTPS, port: 10001, hostname: gateway.test}\n  - {name: b, protocol: HTTPS, port: 10001, hostname: other.test}",
    );
    let world = World::start(&text).await;
    let mut agent = world.client(AGENT).await;
    assert_eq!(agent.call("get-sum").await.status.as_u16(), 200);
    for host in ["other.test", "unknown.test"] {
        let request = http::Request::builder()
            .method("POST")
            .uri("/mcp")
            .header("host", host)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .body(http_body_util::Full::new(bytes::Bytes::from(call("get-sum"))))
            .unwrap();
        let mut agent = world.client(AGENT).await;
        assert_eq!(agent.send(request).await.unwrap().status().as_u16(), 421, "{host}");
    }
    assert_eq!(upstream.seen().len(), 1);
    let own = svid(&world.ca, AGENT, SystemTime::now() + HOUR);
    let unknown =
        Client::tls(world.address(10001), &world.ca.roots_pem(), Some(&own), "unknown.test", false).await;
    assert!(unknown.is_err(), "no listener is for this name");
}
