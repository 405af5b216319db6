//! Who the client is, as far as Envoy says it, and where it came.
use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use spiffe_id::SvidRequest;
use xds_translate::{
    ClientCertificates,
    envoy::processor::{
        BACKEND, CLIENTS, DESTINATION, GATEWAY, LISTENER, PEER_CERTIFICATE, PEER_CHAIN, PEER_NOT_AFTER, PORT,
        SOURCE, clients_digest,
    },
};

use crate::envoy::escaped;
use crate::support::{
    AGENT, HOUR, LATER, World, ca, certificate, changed, common, lines, plain_metadata, post, refusal,
    request, tls_metadata, wants_body,
};

type Metadata = Vec<(&'static str, String)>;

/// What a request to a Service, which needs nothing but to arrive, comes to: 200 is let through.
async fn arrives(world: &World, metadata: &Metadata) -> i32 {
    let mut call = world.envoy.call(metadata).await.unwrap();
    let answer = call.exchange(request(&lines("GET", "/svc", &[]), true)).await;
    if answer.dynamic_metadata.is_some() { 200 } else { refusal(&answer).0 }
}

/// With a value in the place of another; `None`: without it.
fn with(mut metadata: Metadata, key: &'static str, value: Option<&str>) -> Metadata {
    metadata.retain(|(name, _)| *name != key);
    metadata.extend(value.map(|value| (key, value.to_owned())));
    metadata
}

fn twice(mut metadata: Metadata, key: &'static str) -> Metadata {
    let again = metadata.iter().find(|(name, _)| *name == key).unwrap().clone();
    metadata.push(again);
    metadata
}

#[tokio::test]
async fn what_envoy_says_of_a_connection() {
    let world = World::start(&[]).await;
    let (tls, plain) = (|| tls_metadata(AGENT), plain_metadata);
    let optional = clients_digest(&ClientCertificates::SpiffeOptional);
    let elsewhere = certificate(&ca("example.org"), "spiffe://example.org/agent");
    let cases = [
        ("TLS", tls(), 200),
        ("plain", plain(), 200),
        ("nothing", Vec::new(), 500),
        ("no port", with(tls(), PORT, None), 500),
        ("a port that is none", with(tls(), PORT, Some("x")), 500),
        ("a dash is nothing", with(tls(), PORT, Some("-")), 500),
        ("an unknown port", with(plain(), PORT, Some("1")), 421),
        ("no source", with(tls(), SOURCE, None), 500),
        ("a source that is none", with(tls(), SOURCE, Some("unix")), 500),
        ("no destination", with(tls(), DESTINATION, None), 200),
        ("no Gateway", with(tls(), GATEWAY, None), 200),
        ("another Gateway", with(tls(), GATEWAY, Some("ns/other")), 421),
        ("a Gateway that is none", with(tls(), GATEWAY, Some("gw")), 500),
        ("an unknown listener", with(tls(), LISTENER, Some("other")), 421),
        ("a plain listener over TLS", with(with(tls(), LISTENER, Some("plain")), PORT, Some("10002")), 421),
        // Its identity is nobody's business, and TLS is what gives one.
        ("TLS without a listener", with(tls(), LISTENER, None), 500),
        ("plain, where TLS is", with(plain(), PORT, Some("10001")), 500),
        ("plain with an identity", with(plain(), PEER_CERTIFICATE, Some(&certificate(world.ca, AGENT))), 500),
        ("plain with terms", with(plain(), CLIENTS, Some(&optional)), 500),
        ("no terms", with(tls(), CLIENTS, None), 421),
        ("other terms", with(tls(), CLIENTS, Some(&optional)), 421),
        ("no identity", with(tls(), PEER_CERTIFICATE, None), 403),
        ("a dash for an identity", with(tls(), PEER_CERTIFICATE, Some("-")), 403),
        ("a trust domain without a bundle", with(tls(), PEER_CERTIFICATE, Some(&elsewhere)), 403),
        ("expired", with(tls(), PEER_NOT_AFTER, Some("1000000000")), 403),
        ("an end that is none", with(tls(), PEER_NOT_AFTER, Some("soon")), 500),
        ("two identities", twice(tls(), PEER_CERTIFICATE), 500),
        ("two ports", twice(tls(), PORT), 500),
        ("a backend", with(tls(), BACKEND, Some("service/ns/server:3001")), 200),
        ("another backend", with(tls(), BACKEND, Some("xbackend/ns/server")), 500),
    ];
    for (name, metadata, expected) in cases {
        assert_eq!(arrives(&world, &metadata).await, expected, "{name}");
    }
}

fn pem(ca: &spiffe_id::CaPool, from: SystemTime, to: SystemTime) -> String {
    let id = AGENT.parse().unwrap();
    ca.issue(&SvidRequest::new(&id, from, to)).unwrap().chain_pem()
}

#[tokio::test]
async fn a_certificate_is_verified_here() {
    let world = World::start(&[]).await;
    let now = SystemTime::now();
    let good = pem(world.ca, now - HOUR, now + HOUR);
    let cases = [
        ("good", escaped(&good), 200),
        ("another CA", escaped(&pem(&ca("cluster.local"), now - HOUR, now + HOUR)), 403),
        ("another trust domain's CA", escaped(&good.replace('A', "B")), 403),
        ("expired", escaped(&pem(world.ca, now - HOUR, now - HOUR / 2)), 403),
        ("not yet", escaped(&pem(world.ca, now + HOUR / 2, now + HOUR)), 403),
        ("two", escaped(&format!("{good}{good}")), 403),
        ("none", "x".to_owned(), 403),
        ("a broken escape", "%4".to_owned(), 403),
    ];
    for (name, certificate, expected) in cases {
        let metadata = with(tls_metadata(AGENT), PEER_CERTIFICATE, Some(&certificate));
        for end in [None, Some(LATER)] {
            let metadata = with(metadata.clone(), PEER_NOT_AFTER, end);
            assert_eq!(arrives(&world, &metadata).await, expected, "{name}");
        }
        let over = with(metadata, PEER_NOT_AFTER, Some("1000000000"));
        assert_eq!(arrives(&world, &over).await, 403, "{name}, and Envoy says that it is over");
    }
}

#[tokio::test]
async fn what_a_client_has_shown_leads_to_a_root_and_says_nothing_else() {
    let ca_params = || {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    };
    let leaf = |issuer: &Issuer<'_, KeyPair>| {
        let mut leaf = CertificateParams::default();
        leaf.subject_alt_names = vec![SanType::URI(AGENT.try_into().unwrap())];
        leaf.signed_by(&KeyPair::generate().unwrap(), issuer).unwrap().pem()
    };
    let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let root_pem = ca_params().self_signed(&root_key).unwrap().pem();
    let root = Issuer::new(ca_params(), root_key);
    let intermediate_pem = ca_params().signed_by(&key, &root).unwrap().pem();
    let by_intermediate = leaf(&Issuer::new(ca_params(), key));
    let forger_key = KeyPair::generate().unwrap();
    let forger_pem = ca_params().self_signed(&forger_key).unwrap().pem();
    let forged = leaf(&Issuer::new(ca_params(), forger_key));

    let roots = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(roots.path(), root_pem).unwrap();
    let flag = format!("cluster.local={}", roots.path().display());
    let world = World::start(&["--trust-bundle", &flag]).await;
    let header = |shown: &[&str]| format!("Hash=00;Chain=\"{}\"", escaped(&shown.concat()));
    let many = vec![intermediate_pem.as_str(); 9];
    let cases = [
        ("signed by a root", leaf(&root), None, 200),
        ("its chain", by_intermediate.clone(), Some(header(&[&by_intermediate, &intermediate_pem])), 200),
        ("its chain without itself", by_intermediate.clone(), Some(header(&[&intermediate_pem])), 200),
        ("no chain", by_intermediate.clone(), None, 403),
        ("a chain that leads nowhere", by_intermediate.clone(), Some(header(&[&forger_pem])), 403),
        ("of another", forged.clone(), Some(header(&[&by_intermediate, &intermediate_pem])), 403),
        ("a root of its own", forged.clone(), Some(header(&[&forged, &forger_pem])), 403),
        ("a claim", forged, Some(format!("Hash=00;URI={AGENT}")), 403),
        ("a broken chain", by_intermediate.clone(), Some("Chain=\"%4\"".to_owned()), 403),
        ("too many", by_intermediate, Some(header(&many)), 403),
    ];
    for (name, certificate, shown, expected) in &cases {
        let metadata = with(tls_metadata(AGENT), PEER_CERTIFICATE, Some(&escaped(certificate)));
        let forwarded: Vec<_> = shown.iter().map(|shown| (PEER_CHAIN, shown.as_str())).collect();
        let head = lines("GET", "/svc", &forwarded);
        // Once more for what is remembered of the first time.
        for time in ["first", "second"] {
            let mut call = world.envoy.call(&metadata).await.unwrap();
            let answer = call.exchange(request(&head, true)).await;
            let found = if answer.dynamic_metadata.is_some() { 200 } else { refusal(&answer).0 };
            assert_eq!(found, *expected, "{name}, the {time} time");
            if found == 200 {
                let sent = changed(&head, common(&answer).header_mutation.as_ref());
                assert!(sent.iter().all(|(name, _)| name != PEER_CHAIN), "{name}: it is sent to the server");
            }
        }
    }
}

#[tokio::test]
async fn no_response_outlives_the_identity() {
    let world = World::start(&[]).await;
    let clock = SystemTime::now();
    let now = clock.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let (minute, year) = ((now + 60).to_string(), (now + 400 * 24 * 3600).to_string());
    let certificate = escaped(&pem(world.ca, clock - HOUR, clock + HOUR));
    let long = || tls_metadata(AGENT);
    let short = || with(long(), PEER_CERTIFICATE, Some(&certificate));
    let (in_a_minute, in_an_hour) = (Some(50_000..=61_000), Some(3_590_000..=3_601_000));
    let cases = [
        (with(long(), PEER_NOT_AFTER, Some(&minute)), in_a_minute.clone()),
        (with(long(), PEER_NOT_AFTER, Some(&year)), None),
        // The end that is in the certificate counts too.
        (with(short(), PEER_NOT_AFTER, None), in_an_hour.clone()),
        (with(short(), PEER_NOT_AFTER, Some(&year)), in_an_hour),
        (with(short(), PEER_NOT_AFTER, Some(&minute)), in_a_minute),
    ];
    for (metadata, expected) in cases {
        let mut call = world.envoy.call(&metadata).await.unwrap();
        let head = lines("GET", "/svc", &[]);
        let answer = call.exchange(request(&head, true)).await;
        let after = changed(&head, common(&answer).header_mutation.as_ref());
        let timeout = after.iter().find(|(name, _)| name == "x-envoy-upstream-rq-timeout-ms");
        let left: Option<u64> = timeout.map(|(_, value)| value.parse().unwrap());
        let fits = match &expected {
            Some(range) => left.is_some_and(|left| range.contains(&left)),
            None => left.is_none(),
        };
        assert!(fits, "{left:?} is not {expected:?}: {metadata:?}");
    }
}

#[tokio::test]
async fn nothing_is_decided_for_an_identity_that_ended_while_the_body_came() {
    let world = World::start(&[]).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let mut metadata = tls_metadata(AGENT);
    metadata.retain(|(key, _)| *key != PEER_NOT_AFTER);
    // A certificate is valid to the end of its last second.
    metadata.push((PEER_NOT_AFTER, (now + 1).to_string()));
    let mut call = world.envoy.call(&metadata).await.unwrap();
    let asked = call.exchange(request(&post("/mcp", &[]), false)).await;
    assert!(wants_body(&asked), "{asked:?}");
    // The body does not come, or only later.
    let refused = call.answer().await.unwrap().unwrap();
    assert_eq!(refusal(&refused), (403, "the client's certificate gives no identity".to_owned()));
    let ended = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    assert!(ended.as_secs() >= now + 2, "not before its end");
    call.ends().await;
}
