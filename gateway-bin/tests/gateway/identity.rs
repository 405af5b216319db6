//! Who a caller is: semantics, section 2.
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use spiffe_id::IssuedSvid;

use crate::support::{
    AGENT, Client, DENIED, OTHER, Upstream, World, allow_tools, ca, eventually, manifests, svid,
};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn the_certificate_decides_and_nothing_in_the_request() {
    let upstream = Upstream::json().await;
    let world = World::start(&manifests(upstream.address, &allow_tools("get-sum"))).await;

    let mut agent = world.client(AGENT).await;
    let reply = agent.call("get-sum").await;
    assert_eq!(
        (reply.status.as_u16(), reply.body.as_str()),
        (200, r#"{"jsonrpc":"2.0","id":1,"result":{}}"#)
    );
    let reply = agent.call("echo").await;
    assert_eq!((reply.status.as_u16(), reply.body.as_str()), (200, DENIED));

    let claims = format!("By=x;URI={AGENT}");
    let mut other = world.client(OTHER).await;
    let reply =
        other.mcp(&crate::support::call("get-sum"), &[("x-forwarded-client-cert", &claims)]).await.unwrap();
    assert_eq!(reply.body, DENIED);
    let mut plain = world.plain_client().await;
    let reply =
        plain.mcp(&crate::support::call("get-sum"), &[("x-forwarded-client-cert", &claims)]).await.unwrap();
    assert_eq!(reply.body, DENIED);

    assert_eq!(upstream.seen().len(), 1, "only the allowed call was forwarded");
}

#[tokio::test]
async fn http2_is_spoken_where_the_client_offers_it() {
    let upstream = Upstream::json().await;
    let world = World::start(&manifests(upstream.address, &allow_tools("get-sum"))).await;
    let own = svid(&world.ca, AGENT, SystemTime::now() + HOUR);
    let mut agent =
        Client::tls(world.address(10001), &world.ca.roots_pem(), Some(&own), "gateway.test", true)
            .await
            .unwrap();
    assert_eq!(agent.call("get-sum").await.status.as_u16(), 200);
    assert_eq!(agent.call("echo").await.body, DENIED);
    let [seen] = upstream.seen().try_into().unwrap();
    assert_eq!(seen.headers["host"], "gateway.test");
}

#[tokio::test]
async fn connections_without_an_identity_are_refused() {
    let upstream = Upstream::json().await;
    let world = World::start(&manifests(upstream.address, &allow_tools("get-sum"))).await;
    let later = SystemTime::now() + HOUR;
    let foreign = ca("cluster.local");
    let elsewhere = ca("example.org");
    let expired = svid(&world.ca, AGENT, SystemTime::now() - Duration::from_secs(60));
    let cases = [
        ("no certificate", None),
        ("another CA that claims the same trust domain", Some(svid(&foreign, AGENT, later))),
        ("a trust domain without a bundle", Some(svid(&elsewhere, "spiffe://example.org/agent", later))),
        ("expired", Some(expired)),
    ];
    for (name, svid) in cases {
        // With TLS 1.3 a client learns that it was refused with its first request.
        let outcome = match world.try_client(svid.as_ref()).await {
            Err(error) => Err(error),
            Ok(mut client) => client
                .mcp(&crate::support::call("get-sum"), &[])
                .await
                .map(|_| ())
                .map_err(|error| error.to_string()),
        };
        assert!(outcome.is_err(), "{name}");
    }
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn a_ca_vouches_for_its_own_trust_domain_only() {
    let upstream = Upstream::json().await;
    // A CA that says nothing of a trust domain, and so could sign anything.
    let root_key = KeyPair::generate().unwrap();
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_pem = root.self_signed(&root_key).unwrap().pem();
    let issuer = Issuer::new(root, root_key);
    let sign = |id: &str| {
        let key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::default();
        leaf.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        let leaf = leaf.signed_by(&key, &issuer).unwrap();
        IssuedSvid { chain: vec![leaf.der().clone()], key_pem: Some(key.serialize_pem()) }
    };
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("roots.pem");
    std::fs::write(&bundle, root_pem).unwrap();
    let flag = format!("example.org={}", bundle.display());
    let world =
        World::start_with(&manifests(upstream.address, &allow_tools("get-sum")), &["--trust-bundle", &flag])
            .await;

    let foreign = sign("spiffe://example.org/ns/ns/sa/agent");
    let mut client = world.try_client(Some(&foreign)).await.unwrap();
    assert_eq!(client.call("get-sum").await.body, DENIED, "another trust domain's agent is another agent");

    let forged = sign(AGENT);
    let outcome = match world.try_client(Some(&forged)).await {
        Err(_) => Err(()),
        Ok(mut client) => client.mcp(&crate::support::call("get-sum"), &[]).await.map(|_| ()).map_err(|_| ()),
    };
    assert_eq!(outcome, Err(()));
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn a_connection_ends_with_its_clients_certificate() {
    let upstream = Upstream::json().await;
    let world = World::start(&manifests(upstream.address, &allow_tools("get-sum"))).await;
    let brief = svid(&world.ca, AGENT, SystemTime::now() + Duration::from_secs(3));
    let mut client = world.try_client(Some(&brief)).await.unwrap();
    assert_eq!(client.call("get-sum").await.status.as_u16(), 200);
    let client = tokio::sync::Mutex::new(client);
    eventually("the connection is closed", || async {
        client.lock().await.mcp(&crate::support::call("get-sum"), &[]).await.is_err()
    })
    .await;
}
