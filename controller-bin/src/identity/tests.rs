use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1beta1::ClusterTrustBundle;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConnection,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use serde_json::json;
use spiffe_id::{CaPool, SpiffeId, SvidRequest, identity_of};

use super::{
    bundle::{desired, fingerprint, fingerprints, schedule, signer, signs_from},
    pool::{new_pool, pool_secret},
    *,
};

const NOW: &str = "2026-08-01T12:00:00.7Z";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn domain() -> TrustDomain {
    "cluster.local".parse().unwrap()
}

fn settings() -> Settings {
    Settings {
        namespace: "agentic-net-system".to_owned(),
        service_account: "agentic-controller".to_owned(),
        trust_domain: domain(),
        lifetime: Duration::from_secs(24 * 3600),
        dns_names: vec!["agentic-controller.agentic-net-system.svc".to_owned()],
        spread: Duration::from_secs(60),
        counts: Arc::default(),
    }
}

/// A pool of the CAs of these pools, in this order.
fn joined(pools: &[&CaPool]) -> CaPool {
    let cas: Vec<serde_json::Value> = pools
        .iter()
        .zip(1..)
        .map(|(pool, number)| {
            let mut ca = serde_json::from_str::<serde_json::Value>(&pool.to_json()).unwrap()["cas"][0].take();
            ca["id"] = format!("{number}").into();
            ca
        })
        .collect();
    CaPool::from_json(json!({ "cas": cas }).to_string().as_bytes()).unwrap()
}

#[test]
fn keys_of_sessions_are_the_ones_of_rfc_5869() {
    // Computed with Python's hmac: HKDF-SHA256 without salt, info the label and then the Gateway's name.
    let hex = |key: &[u8; 32]| key.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let keys = |name: &str| -> Vec<String> {
        session_keys(&[[7; 32], [8; 32]], &NamespacedName::new("quickstart-ns", name))
            .iter()
            .map(hex)
            .collect()
    };
    assert_eq!(
        keys("agentic-net-gateway"),
        [
            "7bb568929e10a6b547e1c3ed2e6d6a7a2004c2404a001834bb37e09bad6e2c48",
            "68c61750030e8df93c7b78affa4e92088eba7749eea9a0728e64555c0aad05a7",
        ]
    );
    assert_eq!(keys("other")[0], "19562f6ccd880f81fbb3cc335f3f8c93413b630e9151f86e3ca86da5d91a88b1");
}

#[test]
fn a_new_pool_comes_back_from_its_secret_and_vouches_for_its_domain_alone() {
    let pool = new_pool(&domain(), at(NOW)).unwrap();
    let secret = pool_secret("agentic-net-system", &pool);
    assert_eq!(secret.metadata.name.as_deref(), Some("agentic-identity-ca-pool"));
    assert_eq!(secret.data.as_ref().unwrap().keys().collect::<Vec<_>>(), ["ca-pool.json"]);
    let read = pool::read_pool(&secret, &domain()).unwrap();
    assert_eq!(read.roots_pem(), pool.roots_pem());
    assert_eq!(read.cas().next().unwrap().id(), "ca-1785585600");
    assert_eq!(Timestamp::try_from(read.not_after()).unwrap(), at("2036-07-29T12:00:00Z"));

    let error = pool::read_pool(&secret, &"example.org".parse().unwrap()).unwrap_err();
    assert!(error.contains("`cluster.local`") && error.contains("`--trust-domain example.org`"), "{error}");
    let mut damaged = secret;
    damaged.data.as_mut().unwrap().get_mut("ca-pool.json").unwrap().0.truncate(100);
    assert!(pool::read_pool(&damaged, &domain()).unwrap_err().contains("not JSON"));
    damaged.data = None;
    assert!(pool::read_pool(&damaged, &domain()).unwrap_err().contains("no key `ca-pool.json`"));
}

#[test]
fn from_when_roots_may_sign() {
    #[track_caller]
    fn check(roots: &[&str], known: Option<&[(&str, &str)]>, expected: &[(&str, &str)]) {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, Timestamp> {
            pairs.iter().map(|(root, from)| ((*root).to_owned(), at(from))).collect()
        };
        let roots: Vec<String> = roots.iter().map(|root| (*root).to_owned()).collect();
        let known = known.map(map);
        let scheduled = schedule(&roots, known.as_ref(), at(NOW), SignedDuration::from_secs(60));
        assert_eq!(scheduled, map(expected));
    }
    const OLD: (&str, &str) = ("old", "2026-01-01T00:00:00Z");
    const WAITS: &str = "2026-08-01T12:01:00Z";
    // The first start: at once.
    check(&["a", "b"], None, &[("a", "2026-08-01T12:00:00Z"), ("b", "2026-08-01T12:00:00Z")]);
    // A bundle without a word on its roots, by another controller.
    check(&["a"], Some(&[]), &[("a", WAITS)]);
    // Added, at the end or at the front.
    check(&["old", "new"], Some(&[OLD]), &[OLD, ("new", WAITS)]);
    check(&["new", "old"], Some(&[OLD]), &[OLD, ("new", WAITS)]);
    // Time passes for a root that was published.
    check(&["new", "old"], Some(&[OLD, ("new", WAITS)]), &[OLD, ("new", WAITS)]);
    // Removed, and replaced without notice.
    check(&["new"], Some(&[OLD, ("new", WAITS)]), &[("new", WAITS)]);
    check(&["new"], Some(&[OLD]), &[("new", WAITS)]);
}

#[test]
fn which_ca_signs() {
    #[track_caller]
    fn check(published: &[(&str, &str)], expected: Result<usize, Option<&str>>) {
        let roots = ["new".to_owned(), "old".to_owned()];
        let published = published.iter().map(|(root, from)| ((*root).to_owned(), at(from))).collect();
        assert_eq!(signer(&roots, &published, at(NOW)), expected.map_err(|from| from.map(at)));
    }
    const PAST: &str = "2026-08-01T12:00:00Z";
    const FUTURE: &str = "2026-08-01T12:00:01Z";
    check(&[("new", PAST), ("old", PAST)], Ok(0));
    check(&[("new", FUTURE), ("old", PAST)], Ok(1));
    check(&[("old", PAST)], Ok(1));
    check(&[("new", FUTURE)], Err(Some(FUTURE)));
    check(&[("new", "2027-01-01T00:00:00Z"), ("old", FUTURE)], Err(Some(FUTURE)));
    check(&[("gone", PAST)], Err(None));
    check(&[], Err(None));
}

#[test]
fn the_bundle_says_what_pods_select_by_and_when_its_roots_were_published() {
    let pool = new_pool(&domain(), at(NOW)).unwrap();
    let root = fingerprint(pool.cas().next().unwrap().root());
    let from = BTreeMap::from([(root.clone(), at("2026-08-01T12:00:00Z"))]);
    let bundle = desired(None, &pool, &from, &domain()).unwrap();
    assert_eq!(
        serde_json::to_value(&bundle).unwrap(),
        json!({
            "apiVersion": "certificates.k8s.io/v1beta1", "kind": "ClusterTrustBundle",
            "metadata": {
                "name": "kube-agentic-networking.sigs.k8s.io:identity:primary-bundle",
                "labels": {
                    "kube-agentic-networking.sigs.k8s.io/canarying": "live",
                    "kube-agentic-networking.sigs.k8s.io/workload-trust-domain": "cluster.local",
                    "kube-agentic-networking.sigs.k8s.io/peer-trust-domain": "cluster.local",
                },
                "annotations": {
                    "agentic.networking.x-k8s.io/signs-from": format!("{{\"{root}\":\"2026-08-01T12:00:00Z\"}}"),
                },
            },
            "spec": {
                "signerName": "kube-agentic-networking.sigs.k8s.io/identity",
                "trustBundle": pool.roots_pem(),
            },
        })
    );
    assert_eq!(signs_from(&bundle, &domain()), from);

    // What is right is not written again; what others wrote stays.
    let mut there = bundle;
    there.metadata.resource_version = Some("7".to_owned());
    there.metadata.labels.as_mut().unwrap().insert("theirs".to_owned(), "1".to_owned());
    there.metadata.annotations.as_mut().unwrap().insert("theirs".to_owned(), "1".to_owned());
    assert_eq!(desired(Some(&there), &pool, &from, &domain()), None);
    let changes: [fn(&mut ClusterTrustBundle); 3] = [
        |bundle| bundle.spec.trust_bundle.push('x'),
        |bundle| drop(bundle.metadata.annotations.as_mut().unwrap().remove(bundle::SIGNS_FROM)),
        |bundle| {
            let label = "kube-agentic-networking.sigs.k8s.io/canarying";
            bundle.metadata.labels.as_mut().unwrap().insert(label.to_owned(), "preview".to_owned());
        },
    ];
    for change in changes {
        let mut changed = there.clone();
        change(&mut changed);
        assert_eq!(desired(Some(&changed), &pool, &from, &domain()), Some(there.clone()));
    }
}

#[test]
fn only_roots_that_the_bundle_holds_count_as_published() {
    let (old, new) = (new_pool(&domain(), at(NOW)).unwrap(), new_pool(&domain(), at(NOW)).unwrap());
    let both = joined(&[&old, &new]);
    let roots = fingerprints(&both);
    let from: BTreeMap<_, _> = roots.iter().map(|root| (root.clone(), at("2026-08-01T12:00:00Z"))).collect();
    let bundle = desired(None, &both, &from, &domain()).unwrap();
    assert_eq!(signs_from(&bundle, &domain()), from);

    let mut shortened = bundle.clone();
    shortened.spec.trust_bundle = old.roots_pem();
    assert_eq!(signs_from(&shortened, &domain()).into_keys().collect::<Vec<_>>(), [roots[0].clone()]);
    for text in ["", "no JSON", "[]", "{\"x\": 1}"] {
        let mut silent = bundle.clone();
        silent.metadata.annotations =
            Some(BTreeMap::from([(bundle::SIGNS_FROM.to_owned(), text.to_owned())]));
        assert_eq!(signs_from(&silent, &domain()), BTreeMap::new(), "{text}");
    }
}

/// A handshake in memory. What the server knows of the client, and the client of the server: the leaf certificates.
fn handshake(
    serving: &Serving,
    client: ClientConfig,
    host: &'static str,
) -> Result<(CertificateDer<'static>, CertificateDer<'static>), rustls::Error> {
    let mut server = ServerConnection::new(Arc::clone(&serving.tls))?;
    let mut client = ClientConnection::new(Arc::new(client), host.try_into().unwrap())?;
    for _flight in 0..4 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
    }
    assert!(!server.is_handshaking() && !client.is_handshaking());
    assert_eq!(server.alpn_protocol(), Some(b"h2".as_slice()));
    Ok((server.peer_certificates().unwrap()[0].clone(), client.peer_certificates().unwrap()[0].clone()))
}

/// A client with the certificate of this pool, if any, that trusts these roots.
fn client(own: Option<&CaPool>, trusted: &CaPool) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for ca in trusted.cas() {
        roots.add(ca.root().clone()).unwrap();
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(pool) => {
            let id: SpiffeId = "spiffe://cluster.local/ns/a/sa/b".parse().unwrap();
            let now = Timestamp::now();
            let end = now + SignedDuration::from_hours(1);
            let svid = pool.issue(&SvidRequest::new(&id, now.into(), end.into())).unwrap();
            let key = PrivateKeyDer::from_pem_slice(svid.key_pem.unwrap().as_bytes()).unwrap();
            builder.with_client_auth_cert(svid.chain, key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

#[test]
fn the_serving_certificate_is_the_controllers_and_clients_must_have_one_of_the_pools() {
    const HOST: &str = "agentic-controller.agentic-net-system.svc";
    let now = Timestamp::now();
    let (old, new) = (new_pool(&domain(), now).unwrap(), new_pool(&domain(), now).unwrap());
    let both = joined(&[&old, &new]);
    let (made, renew_at) = serving::serving(&both, &settings(), now).unwrap();
    // From two minutes ago for 24 hours; anew after half of that.
    assert_eq!(
        renew_at.as_second(),
        (now - SignedDuration::from_mins(2) + SignedDuration::from_hours(12)).as_second()
    );

    // Clients of every root of the pool come in; the first CA has signed the server's certificate.
    for own in [&old, &new] {
        let (of_client, of_server) = handshake(&made, client(Some(own), &old), HOST).unwrap();
        assert_eq!(identity_of(&of_client).unwrap().as_str(), "spiffe://cluster.local/ns/a/sa/b");
        assert_eq!(
            identity_of(&of_server).unwrap().as_str(),
            "spiffe://cluster.local/ns/agentic-net-system/sa/agentic-controller"
        );
    }
    handshake(&made, client(Some(&old), &new), HOST).unwrap_err();
    handshake(&made, client(Some(&old), &old), "elsewhere.example.org").unwrap_err();
    handshake(&made, client(None, &both), HOST).unwrap_err();
    let stranger = new_pool(&domain(), now).unwrap();
    handshake(&made, client(Some(&stranger), &both), HOST).unwrap_err();

    // After the spread the other one signs; every seed is there still, the signer's first.
    let turned = both.signing_with("2").unwrap();
    let (turned, _) = serving::serving(&turned, &settings(), now).unwrap();
    handshake(&turned, client(Some(&old), &new), HOST).unwrap();
    assert_eq!(turned.seeds.to_vec(), [made.seeds[1], made.seeds[0]]);
    assert_ne!(made.seeds[0], made.seeds[1]);
}

#[test]
fn a_ca_that_is_over_serves_nothing_and_one_that_ends_soon_is_not_outlived() {
    let pool = new_pool(&domain(), at("2016-08-01T12:00:00Z")).unwrap();
    assert_eq!(Timestamp::try_from(pool.not_after()).unwrap(), at("2026-07-30T12:00:00Z"));
    let (_made, renew_at) = serving::serving(&pool, &settings(), at("2026-07-30T11:42:00Z")).unwrap();
    assert_eq!(renew_at, at("2026-07-30T11:50:00Z"));
    let error = serving::serving(&pool, &settings(), at("2026-07-30T12:00:00Z")).unwrap_err();
    assert!(error.to_string().contains("rotate"), "{error}");
}
