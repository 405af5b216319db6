//! Clients whose certificates are not what they should be.
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use spiffe_id::IssuedSvid;

use super::serves_others;
use crate::support::{DENIED, Upstream, World, call, eventually, manifests};

const MINUTE: Duration = Duration::from_secs(60);
const ID: &str = "spiffe://example.org/ns/ns/sa/agent";
/// Whoever is `ID` may call `get-sum`.
const POLICY: &str = "
apiVersion: agentic.networking.x-k8s.io/v0alpha0
kind: XAccessPolicy
metadata: {name: tools, namespace: ns}
spec:
  targetRefs: [{group: agentic.networking.x-k8s.io, kind: XBackend, name: server}]
  rules:
  - name: agent
    source: {type: SPIFFE, spiffe: spiffe://example.org/ns/ns/sa/agent}
    authorization: {type: InlineTools, tools: [get-sum]}
";

/// Of the CA of `example.org`, valid from a minute ago for an hour, for these names.
fn params(uris: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
    params.not_before = (SystemTime::now() - MINUTE).into();
    params.not_after = (SystemTime::now() + 60 * MINUTE).into();
    params
}

#[tokio::test]
async fn a_certificate_that_gives_no_identity_gives_no_connection() {
    let upstream = Upstream::json().await;
    // A CA that says nothing of a trust domain, and so could sign anything.
    let root_key = KeyPair::generate().unwrap();
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let (root_pem, impostor) = (root.self_signed(&root_key).unwrap().pem(), root.clone());
    let issuer = Issuer::new(root, root_key);
    // Of the same name, with another key.
    let impostor = Issuer::new(impostor, KeyPair::generate().unwrap());
    let sign = |params: &CertificateParams, issuer: &Issuer<'_, KeyPair>| {
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, issuer).unwrap();
        IssuedSvid { chain: vec![leaf.der().clone()], key_pem: Some(key.serialize_pem()) }
    };
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("roots.pem");
    std::fs::write(&bundle, root_pem).unwrap();
    let flag = format!("example.org={}", bundle.display());
    let world = World::start_with(&manifests(upstream.address, POLICY), &["--trust-bundle", &flag]).await;

    let good = sign(&params(&[ID]), &issuer);
    let mut agent = world.try_client(Some(&good)).await.unwrap();
    assert_ne!(agent.call("get-sum").await.body, DENIED);
    assert_eq!(upstream.seen().len(), 1);

    let with = |change: fn(&mut CertificateParams)| {
        let mut params = params(&[ID]);
        change(&mut params);
        sign(&params, &issuer)
    };
    let cases = [
        ("two SANs", sign(&params(&[ID, "spiffe://example.org/other"]), &issuer)),
        ("the same SAN twice", sign(&params(&[ID, ID]), &issuer)),
        ("a SAN that is no SPIFFE ID", sign(&params(&["https://example.org/ns/ns/sa/agent"]), &issuer)),
        ("a SPIFFE ID without a path", sign(&params(&["spiffe://example.org"]), &issuer)),
        ("another trust domain", sign(&params(&["spiffe://cluster.local/ns/ns/sa/agent"]), &issuer)),
        ("a trust domain nobody knows", sign(&params(&["spiffe://example.com/ns/ns/sa/agent"]), &issuer)),
        ("no SAN", sign(&params(&[]), &issuer)),
        (
            "the ID as a DNS name",
            with(|params| {
                params.subject_alt_names = vec![SanType::DnsName("example.org".try_into().unwrap())]
            }),
        ),
        ("a CA", with(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))),
        ("expired", with(|params| params.not_after = (SystemTime::now() - Duration::from_secs(2)).into())),
        // A clock that is ahead of ours has signed it.
        ("not yet valid", with(|params| params.not_before = (SystemTime::now() + MINUTE).into())),
        ("the wrong CA", sign(&params(&[ID]), &impostor)),
    ];
    let refused = r#"agentic_gateway_tls_handshakes_total{result="failed"}"#;
    for (count, (name, svid)) in (1..).zip(cases) {
        // With TLS 1.3 a client learns that it was refused with its first request.
        if let Ok(mut client) = world.try_client(Some(&svid)).await {
            let reply = client.mcp(&call("get-sum"), &[]).await;
            assert!(reply.is_err(), "{name}: {}", reply.unwrap().body);
        }
        eventually(name, || async { world.metric(refused).await == count }).await;
    }
    assert_eq!(upstream.seen().len(), 1, "the good one's");
    serves_others(&world).await;
}
