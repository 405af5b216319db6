//! CA pools and what they issue, checked with a TLS verifier that is not this crate's.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "helpers of tests, which may panic as the tests do"
)]
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData, SanType,
};
use rustls::{
    RootCertStore,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::WebPkiClientVerifier,
};
use serde_json::{Value, json};
use spiffe_id::{
    CaPool, IssueError, IssuedSvid, KeyKind, SpiffeId, SvidRequest, TrustBundle, TrustDomain, identity_of,
};
use x509_parser::{extensions::ParsedExtension, prelude::X509Certificate};

mod held_key;
mod pool_file;

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
/// Some moment; nothing here asks a clock.
const NOW: u64 = 1_780_000_000;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn domain() -> TrustDomain {
    "example.org".parse().unwrap()
}

fn agent() -> SpiffeId {
    "spiffe://example.org/ns/quickstart-ns/sa/adk-agent-sa".parse().unwrap()
}

fn pool(kind: KeyKind) -> CaPool {
    CaPool::generate("1", &domain(), kind, at(NOW), at(NOW + 365 * DAY)).unwrap()
}

fn day(id: &SpiffeId) -> SvidRequest<'_> {
    SvidRequest::new(id, at(NOW - 120), at(NOW + DAY))
}

fn roots(pem: &str) -> Arc<RootCertStore> {
    let mut store = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        store.add(root.unwrap()).unwrap();
    }
    Arc::new(store)
}

/// What a TLS server says of the chain at that moment.
fn as_client(roots_pem: &str, chain: &[CertificateDer<'static>], now: u64) -> Result<(), rustls::Error> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots(roots_pem), Arc::new(default_provider()))
            .build()
            .unwrap();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
    verifier.verify_client_cert(&chain[0], &chain[1..], now).map(|_verified| ())
}

/// What a TLS client says of the chain, for that host name.
fn as_server(roots_pem: &str, chain: &[CertificateDer<'static>], host: &str) -> Result<(), rustls::Error> {
    let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(
        roots(roots_pem),
        Arc::new(default_provider()),
    )
    .build()
    .unwrap();
    let host = ServerName::try_from(host.to_owned()).unwrap();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(NOW));
    rustls::client::danger::ServerCertVerifier::verify_server_cert(
        &*verifier,
        &chain[0],
        &chain[1..],
        &host,
        &[],
        now,
    )
    .map(|_verified| ())
}

fn parse(der: &[u8]) -> X509Certificate<'_> {
    let (rest, certificate) = x509_parser::parse_x509_certificate(der).unwrap();
    assert!(rest.is_empty());
    certificate
}

#[test]
fn issued_chains_verify_with_the_roots_and_carry_the_identity() {
    for kind in [KeyKind::Ed25519, KeyKind::EcdsaP256] {
        let pool = pool(kind);
        let svid = pool.issue(&day(&agent())).unwrap();
        assert_eq!(svid.chain.len(), 1, "{kind:?}: the root stays out of the chain");
        assert_eq!(identity_of(&svid.chain[0]).unwrap(), agent());
        as_client(&pool.roots_pem(), &svid.chain, NOW).unwrap();
        let bundle = TrustBundle::from_pem(domain(), pool.roots_pem().as_bytes()).unwrap();
        assert_eq!(bundle.roots(), [pool.cas().next().unwrap().root().clone()]);
    }
}

#[test]
fn another_pool_or_another_time_refuses_them() {
    let (own, other) = (pool(KeyKind::Ed25519), pool(KeyKind::Ed25519));
    let svid = own.issue(&day(&agent())).unwrap();
    as_client(&own.roots_pem(), &svid.chain, NOW + DAY).unwrap();
    as_client(&other.roots_pem(), &svid.chain, NOW).unwrap_err();
    for moment in [NOW - 121, NOW + DAY + 1] {
        as_client(&own.roots_pem(), &svid.chain, moment).unwrap_err();
    }
}

#[test]
fn a_leaf_is_as_the_specification_wants_it() {
    let pool = pool(KeyKind::EcdsaP256);
    let svid = pool.issue(&day(&agent())).unwrap();
    let leaf = parse(&svid.chain[0]);
    let root = parse(pool.cas().next().unwrap().root());
    assert_eq!(leaf.subject().iter().count(), 0);
    assert_eq!(leaf.issuer(), root.subject());
    assert_eq!(u64::try_from(leaf.validity().not_before.timestamp()).unwrap(), NOW - 120);
    assert_eq!(u64::try_from(leaf.validity().not_after.timestamp()).unwrap(), NOW + DAY);
    leaf.verify_signature(Some(root.public_key())).unwrap();

    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(names.critical, "without a subject the SAN is critical");
    assert_eq!(names.value.general_names.len(), 1);
    let usage = leaf.key_usage().unwrap().unwrap();
    assert!(usage.critical);
    assert_eq!(usage.value.flags, 1, "digitalSignature and nothing else");
    let extended = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.server_auth && extended.client_auth && !extended.any && extended.other.is_empty());
    let constraints = leaf.basic_constraints().unwrap().unwrap();
    assert!(!constraints.value.ca);

    let key_id = |certificate: &X509Certificate<'_>| {
        certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        })
    };
    let authority = leaf.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
        _ => None,
    });
    assert!(key_id(&leaf).is_some());
    assert_eq!(authority, key_id(&root));

    assert!(root.basic_constraints().unwrap().unwrap().value.ca);
    assert!(root.key_usage().unwrap().unwrap().value.key_cert_sign());
    assert!(identity_of(pool.cas().next().unwrap().root()).is_err(), "a root is no identity");
}

#[test]
fn serial_numbers_are_random_even_for_one_key() {
    let pool = pool(KeyKind::EcdsaP256);
    let key = KeyPair::generate().unwrap().subject_public_key_info();
    let serials: std::collections::HashSet<Vec<u8>> = (0..20)
        .map(|_| {
            let svid = pool.issue_for_public_key(&key, &day(&agent())).unwrap();
            let serial = parse(&svid.chain[0]).raw_serial().to_vec();
            assert_eq!(serial.len(), 16);
            assert!((0x40..0x80).contains(&serial[0]), "positive, in the shortest form");
            serial
        })
        .collect();
    assert_eq!(serials.len(), 20);
}

#[test]
fn dns_names_stand_beside_the_id() {
    let pool = pool(KeyKind::Ed25519);
    let id = agent();
    let names = ["gateway.example.org".to_owned(), "*.apps.example.org".to_owned()];
    let svid = pool.issue(&day(&id).with_dns_names(&names)).unwrap();
    assert_eq!(identity_of(&svid.chain[0]).unwrap(), id);
    for host in ["gateway.example.org", "x.apps.example.org"] {
        as_server(&pool.roots_pem(), &svid.chain, host).unwrap();
    }
    as_server(&pool.roots_pem(), &svid.chain, "other.example.org").unwrap_err();

    for bad in ["", "*", "*.", "a b", "a..b", "*.*.x", "x.*.y", "127.0.0.1", "\u{e4}.org", "a\n.org", "-"] {
        let names = [bad.to_owned()];
        let error = pool.issue(&day(&id).with_dns_names(&names)).unwrap_err();
        assert!(error.is_bad_request(), "{bad:?}: {error}");
    }
}

#[test]
fn the_key_comes_with_the_chain_where_it_was_made() {
    let pool = pool(KeyKind::Ed25519);
    let svid = pool.issue(&day(&agent())).unwrap();
    let bundle = svid.credential_bundle_pem().unwrap();
    assert!(bundle.starts_with("-----BEGIN PRIVATE KEY-----\n"));
    let key = KeyPair::from_pem(svid.key_pem.as_ref().unwrap()).unwrap();
    assert_eq!(key.subject_public_key_info(), parse(&svid.chain[0]).public_key().raw);
    assert_eq!(key.algorithm(), &PKCS_ECDSA_P256_SHA256);
    // As a TLS stack reads the file.
    PrivateKeyDer::from_pem_slice(bundle.as_bytes()).unwrap();
    let chain: Vec<_> = CertificateDer::pem_slice_iter(bundle.as_bytes()).collect::<Result<_, _>>().unwrap();
    assert_eq!(chain, svid.chain);
    assert!(bundle.lines().all(|line| line.len() <= 64));

    let shown = format!("{svid:?} {pool:?}");
    assert!(!shown.contains("PRIVATE") && shown.len() < 300, "{shown}");
    let other = pool.issue_for_public_key(&key.subject_public_key_info(), &day(&agent())).unwrap();
    assert!(other.key_pem.is_none());
    assert!(other.credential_bundle_pem().is_err());
}

#[test]
fn an_id_of_another_trust_domain_is_refused() {
    let pool = pool(KeyKind::Ed25519);
    assert_eq!(pool.trust_domain(), Some(&domain()));
    for id in ["spiffe://cluster.local/ns/a/sa/b", "spiffe://sub.example.org/a", "spiffe://example.orga/b"] {
        let id: SpiffeId = id.parse().unwrap();
        let error = pool.issue(&day(&id)).unwrap_err();
        assert!(error.is_bad_request());
        assert_eq!(
            error.to_string(),
            format!("`{id}` is not of the trust domain `example.org`, the only one that this CA vouches for")
        );
    }
    // Written and read again, it still knows.
    let again = CaPool::from_json(pool.to_json().as_bytes()).unwrap();
    assert!(again.issue(&day(&"spiffe://cluster.local/ns/a/sa/b".parse().unwrap())).is_err());
}

#[test]
fn times_that_make_no_certificate_are_refused() {
    let pool = pool(KeyKind::EcdsaP256);
    let id = agent();
    let end = NOW + 365 * DAY;
    assert_eq!(pool.not_after(), at(end));
    let issue = |from: SystemTime, to: SystemTime| pool.issue(&SvidRequest::new(&id, from, to));
    issue(at(NOW), at(end)).unwrap();
    // Fractions of a second are no reason to refuse.
    issue(at(NOW), at(end) + Duration::from_millis(999)).unwrap();
    let error = issue(at(NOW), at(end + 1)).unwrap_err();
    assert!(error.is_beyond_ca() && error.is_bad_request(), "{error}");
    let before_1970 = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
    for (from, to) in [
        (at(NOW), at(NOW)),
        (at(NOW + 1), at(NOW)),
        (at(NOW), at(NOW) + Duration::from_millis(1)),
        (before_1970, at(NOW)),
        (before_1970, before_1970),
        (at(NOW), at(253_402_300_800)),
        (at(NOW), at(1 << 40)),
    ] {
        let error = issue(from, to).unwrap_err();
        assert!(error.is_bad_request() && !error.is_beyond_ca(), "{error}");
    }
    let ca = |from: u64, to: u64| CaPool::generate("1", &domain(), KeyKind::Ed25519, at(from), at(to));
    ca(NOW, 253_402_300_799).unwrap();
    ca(NOW, 253_402_300_800).unwrap_err();
    ca(NOW, NOW).unwrap_err();
}

fn csr(key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut params = CertificateParams::default();
    change(&mut params);
    params.serialize_request(key).unwrap().der().to_vec()
}

#[test]
fn of_a_certificate_request_only_the_key_is_taken() {
    let pool = pool(KeyKind::Ed25519);
    for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let greedy = csr(&key, |params| {
            params.distinguished_name.push(DnType::CommonName, "admin");
            params.subject_alt_names =
                vec![SanType::URI("spiffe://example.org/ns/kube-system/sa/admin".try_into().unwrap())];
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        });
        let svid = pool.issue_for_csr(&greedy, &day(&agent())).unwrap();
        let leaf = parse(&svid.chain[0]);
        assert_eq!(leaf.public_key().raw, key.subject_public_key_info());
        assert_eq!(leaf.subject().iter().count(), 0);
        assert_eq!(identity_of(&svid.chain[0]).unwrap(), agent());
        assert!(svid.key_pem.is_none());
        as_client(&pool.roots_pem(), &svid.chain, NOW).unwrap();
    }
}

#[test]
fn a_certificate_request_that_its_key_did_not_sign_is_refused() {
    let pool = pool(KeyKind::Ed25519);
    let (own, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let good = csr(&own, |_| {});
    pool.issue_for_csr(&good, &day(&agent())).unwrap();

    // Somebody else's public key in a request of one's own: same length, so the DER stays well formed.
    let mut stolen = good.clone();
    let (from, to) = (own.der_bytes(), other.der_bytes());
    let place = good.windows(from.len()).position(|bytes| bytes == from).unwrap();
    stolen[place..place + to.len()].copy_from_slice(to);
    let mut damaged = good.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let trailing = [good.clone(), vec![0]].concat();
    for bad in [
        stolen,
        damaged,
        trailing,
        good[..good.len() - 1].to_vec(),
        Vec::new(),
        own.subject_public_key_info(),
    ] {
        let error = pool.issue_for_csr(&bad, &day(&agent())).unwrap_err();
        assert!(error.is_bad_request(), "{error}");
    }
}

/// Public keys made with `openssl genpkey` and `openssl pkey -pubout -outform DER`.
fn public_key(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/keys/{name}.der", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).unwrap()
}

#[test]
fn public_keys_by_kind() {
    let pool = pool(KeyKind::EcdsaP256);
    for name in ["p256", "p384", "ed25519", "rsa2048"] {
        let key = public_key(name);
        let svid =
            pool.issue_for_public_key(&key, &day(&agent())).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(parse(&svid.chain[0]).public_key().raw, key, "{name}");
        as_client(&pool.roots_pem(), &svid.chain, NOW).unwrap();
    }
    for name in ["rsa1024", "p521", "p256-compressed", "secp256k1", "x25519", "ed448"] {
        let error = pool.issue_for_public_key(&public_key(name), &day(&agent())).unwrap_err();
        assert!(error.is_bad_request(), "{name}: {error}");
    }
    let key = public_key("p256");
    // The same point in hybrid form, and with a bit of it declared unused: each is read as another key by some.
    let point = key.len() - 65;
    let (mut hybrid, mut unused) = (key.clone(), key.clone());
    hybrid[point] = 6 | (key[key.len() - 1] & 1);
    unused[point - 1] = 1;
    *unused.last_mut().unwrap() &= 0xfe;
    let (trailing, short) = ([key.clone(), vec![0]].concat(), key[..key.len() - 1].to_vec());
    for bad in [Vec::new(), vec![0x30, 0], trailing, short, hybrid, unused] {
        let error = pool.issue_for_public_key(&bad, &day(&agent())).unwrap_err();
        assert!(error.is_bad_request(), "{error}");
    }
}

#[test]
fn pools_and_svids_go_between_threads() {
    fn sent<T: Send + Sync>() {}
    sent::<CaPool>();
    sent::<IssuedSvid>();
    sent::<IssueError>();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_id_comes_back_from_its_certificate(path in "(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,40}){1,6}", hours in 1_u64..1000) {
        static POOL: std::sync::LazyLock<CaPool> = std::sync::LazyLock::new(|| pool(KeyKind::Ed25519));
        let id: SpiffeId = format!("spiffe://example.org{path}").parse().unwrap();
        let svid = POOL.issue(&SvidRequest::new(&id, at(NOW), at(NOW + hours * HOUR))).unwrap();
        prop_assert_eq!(identity_of(&svid.chain[0]).unwrap(), id);
        prop_assert!(as_client(&POOL.roots_pem(), &svid.chain, NOW + hours * HOUR).is_ok());
        prop_assert!(as_client(&POOL.roots_pem(), &svid.chain, NOW + hours * HOUR + 1).is_err());
    }

    #[test]
    fn any_bytes_are_decided_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        static POOL: std::sync::LazyLock<CaPool> = std::sync::LazyLock::new(|| pool(KeyKind::Ed25519));
        prop_assert!(POOL.issue_for_csr(&bytes, &day(&agent())).is_err());
        prop_assert!(POOL.issue_for_public_key(&bytes, &day(&agent())).is_err());
        prop_assert!(CaPool::from_json(&bytes).is_err());
    }
}
