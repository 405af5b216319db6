//! The file form of a CA pool.
use super::*;

#[test]
fn pools_come_back_from_json() {
    for kind in [KeyKind::Ed25519, KeyKind::EcdsaP256] {
        let pool = pool(kind);
        let file: Value = serde_json::from_str(&pool.to_json()).unwrap();
        let ca = &file["cas"][0];
        assert_eq!(ca["id"], "1");
        assert_eq!(ca["intermediateCertificatesDER"], json!([]));
        let root = STANDARD.decode(ca["rootCertificateDER"].as_str().unwrap()).unwrap();
        assert_eq!(root, pool.cas().next().unwrap().root().to_vec());
        let key =
            KeyPair::try_from(STANDARD.decode(ca["signingKeyPKCS8"].as_str().unwrap()).unwrap()).unwrap();
        assert_eq!(key.subject_public_key_info(), parse(&root).public_key().raw);

        let again = CaPool::from_json(pool.to_json().as_bytes()).unwrap();
        assert_eq!(again.to_json(), pool.to_json());
        assert_eq!(again.roots_pem(), pool.roots_pem());
        let svid = again.issue(&day(&agent())).unwrap();
        as_client(&pool.roots_pem(), &svid.chain, NOW).unwrap();
    }
}

/// A pool as the Go implementation writes it: made with Go's `crypto/x509`-like means (no subject, version 1 PKCS#8
/// of the bare Ed25519 seed), in the field names of `encoding/json`.
#[test]
fn pools_of_the_go_implementation_are_read() {
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let mut params = ca_params("");
    params.distinguished_name = DistinguishedName::new();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
    let root = params.self_signed(&key).unwrap();
    // PrivateKeyInfo: version 0, id-Ed25519, the seed; what ring writes holds the seed at the same place.
    let seed = key.serialized_der()[16..48].to_vec();
    let version_1 =
        [&[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20][..], &seed].concat();
    let file = json!({ "CAs": [{
        "ID": "1",
        "SigningKeyPKCS8": STANDARD.encode(version_1),
        "RootCertificateDER": STANDARD.encode(root.der()),
        "IntermediateCertificatesDER": null,
    }]});
    let pool = CaPool::from_json(file.to_string().as_bytes()).unwrap();
    assert_eq!(pool.trust_domain(), None);
    // Its root names no trust domain: any ID goes.
    for id in ["spiffe://cluster.local/ns/a/sa/b", "spiffe://example.org/x"] {
        let id: SpiffeId = id.parse().unwrap();
        let svid = pool.issue(&day(&id)).unwrap();
        assert_eq!(identity_of(&svid.chain[0]).unwrap(), id);
        as_client(&pool.roots_pem(), &svid.chain, NOW).unwrap();
    }
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = at(NOW).into();
    params.not_after = at(NOW + 365 * DAY).into();
    params
}

/// A root and two intermediates below each other, with their keys.
struct Hierarchy {
    root: Vec<u8>,
    upper: Vec<u8>,
    lower: Vec<u8>,
    root_key: KeyPair,
    lower_key: KeyPair,
}

fn hierarchy(change_upper: impl FnOnce(&mut CertificateParams)) -> Hierarchy {
    let [root_key, upper_key, lower_key] = [(); 3].map(|()| KeyPair::generate().unwrap());
    let mut upper = ca_params("upper");
    upper.use_authority_key_identifier_extension = true;
    upper.not_after = at(NOW + 30 * DAY).into();
    change_upper(&mut upper);
    let root = ca_params("root");
    Hierarchy {
        root: root.self_signed(&root_key).unwrap().der().to_vec(),
        upper: upper.signed_by(&upper_key, &Issuer::from_params(&root, &root_key)).unwrap().der().to_vec(),
        lower: ca_params("lower")
            .signed_by(&lower_key, &Issuer::from_params(&upper, &upper_key))
            .unwrap()
            .der()
            .to_vec(),
        root_key,
        lower_key,
    }
}

fn ca_file(id: &str, key: &KeyPair, root: &[u8], intermediates: &[&[u8]]) -> Value {
    let intermediates: Vec<_> = intermediates.iter().map(|der| STANDARD.encode(der)).collect();
    json!({
        "id": id,
        "signingKeyPKCS8": STANDARD.encode(key.serialized_der()),
        "rootCertificateDER": STANDARD.encode(root),
        "intermediateCertificatesDER": intermediates,
    })
}

fn read(cas: &[Value]) -> Result<CaPool, IssueError> {
    CaPool::from_json(json!({ "cas": cas }).to_string().as_bytes())
}

#[test]
fn intermediates_go_with_the_leaf_whatever_their_order_in_the_file() {
    let ca = hierarchy(|_| {});
    for order in [[&*ca.lower, &*ca.upper], [&*ca.upper, &*ca.lower]] {
        let pool = read(&[ca_file("1", &ca.lower_key, &ca.root, &order)]).unwrap();
        assert_eq!(pool.not_after(), at(NOW + 30 * DAY), "the shortest of the chain");
        let svid = pool.issue(&day(&agent())).unwrap();
        let chain: Vec<&[u8]> = svid.chain.iter().skip(1).map(|der| &**der).collect();
        assert_eq!(chain, [&*ca.lower, &*ca.upper]);
        as_client(&pool.roots_pem(), &svid.chain, NOW).unwrap();
        as_client(&pool.roots_pem(), &svid.chain[..1], NOW).unwrap_err();
        assert_eq!(
            CaPool::from_json(pool.to_json().as_bytes()).unwrap().to_json(),
            pool.to_json(),
            "the file keeps its order"
        );
    }
}

#[track_caller]
fn refuses_pool(cas: &[Value], expected: &str) {
    let message = read(cas).unwrap_err().to_string();
    assert!(message.contains(expected), "{message}");
}

#[test]
fn pools_whose_parts_do_not_fit_are_refused() {
    let ca = hierarchy(|_| {});
    let stranger = hierarchy(|_| {});
    let key = KeyPair::generate().unwrap();
    let mismatch = "is not the key of its root";
    refuses_pool(&[ca_file("1", &key, &ca.root, &[])], mismatch);
    refuses_pool(&[ca_file("1", &ca.lower_key, &ca.root, &[])], mismatch);
    refuses_pool(&[ca_file("1", &ca.root_key, &ca.root, &[&ca.upper, &ca.lower])], mismatch);
    let no_path = "do not lead, all of them";
    refuses_pool(&[ca_file("1", &ca.lower_key, &ca.root, &[&ca.lower])], no_path);
    refuses_pool(&[ca_file("1", &ca.lower_key, &stranger.root, &[&ca.lower, &ca.upper])], no_path);
    refuses_pool(&[ca_file("1", &ca.lower_key, &ca.root, &[&ca.lower, &stranger.upper])], no_path);
    refuses_pool(&[ca_file("1", &ca.lower_key, &ca.root, &[&ca.lower, &ca.upper, &stranger.upper])], no_path);
    refuses_pool(&[ca_file("1", &ca.lower_key, &ca.root, &[&ca.lower, &ca.upper, &ca.upper])], no_path);
    let short = hierarchy(|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    refuses_pool(
        &[ca_file("1", &short.lower_key, &short.root, &[&short.lower, &short.upper])],
        "path length",
    );

    let leaf = pool(KeyKind::EcdsaP256).issue(&day(&agent())).unwrap();
    let leaf_key = KeyPair::from_pem(leaf.key_pem.as_ref().unwrap()).unwrap();
    refuses_pool(&[ca_file("1", &leaf_key, &leaf.chain[0], &[])], "its root is no CA certificate");
    refuses_pool(
        &[ca_file("1", &ca.lower_key, &ca.root, &[&ca.lower, &leaf.chain[0]])],
        "its intermediate 2 is no CA",
    );
    refuses_pool(
        &[ca_file("1", &ca.root_key, &ca.root[1..], &[])],
        "its root: the certificate is no single X.509",
    );

    let good = ca_file("1", &ca.root_key, &ca.root, &[]);
    read(std::slice::from_ref(&good)).unwrap();
    refuses_pool(&[], "holds no CA");
    refuses_pool(&[good.clone(), good], "has `1` more than once");
}

#[test]
fn a_subject_that_cannot_be_written_again_is_refused() {
    let key = KeyPair::generate().unwrap();
    // Two attributes of one type: rcgen takes only one, so the second is put there by hand (O becomes CN).
    let mut params = ca_params("name");
    params.distinguished_name.push(DnType::OrganizationName, "name");
    let root = params.self_signed(&key).unwrap().der().to_vec();
    let organization = [6, 3, 0x55, 4, 10];
    let mut twice = root.clone();
    for place in 0..root.len() - organization.len() {
        if root[place..].starts_with(&organization) {
            twice[place + 4] = 3;
        }
    }
    read(&[ca_file("1", &key, &root, &[])]).unwrap();
    refuses_pool(&[ca_file("1", &key, &twice, &[])], "cannot be written again as it is");

    // A text in constructed form (UTF8String, 0x2c) is read, and would be written as 0x0c.
    let name = [&[6, 3, 0x55, 4, 3, 0x0c, 4][..], b"name"].concat();
    let mut constructed = root.clone();
    for place in 0..root.len() - name.len() {
        if root[place..].starts_with(&name) {
            constructed[place + 5] = 0x2c;
        }
    }
    assert_ne!(constructed, root);
    refuses_pool(&[ca_file("1", &key, &constructed, &[])], "cannot be written again as it is");
}

#[test]
fn a_pool_is_for_one_trust_domain() {
    let named = |id: &str, uris: &[&str]| {
        let key = KeyPair::generate().unwrap();
        let mut params = ca_params("root");
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        ca_file(id, &key, params.self_signed(&key).unwrap().der(), &[])
    };
    let one = read(&[
        named("1", &["spiffe://example.org"]),
        named("2", &[]),
        named("3", &["spiffe://example.org/ca"]),
    ]);
    assert_eq!(one.unwrap().trust_domain(), Some(&domain()));
    // The signing root names none, but the one beside it does.
    let second =
        read(&[named("1", &["https://example.org"]), named("2", &["spiffe://example.org"])]).unwrap();
    assert!(second.issue(&day(&"spiffe://td/x".parse().unwrap())).is_err());
    refuses_pool(
        &[named("1", &["spiffe://example.org"]), named("2", &["spiffe://td"])],
        "roots of the trust domains `example.org` and `td`; keep a pool for each",
    );
    refuses_pool(&[named("1", &["spiffe://"])], "the name of the trust domain is missing");
    refuses_pool(&[named("1", &["spiffe://a", "spiffe://a"])], "more than one SPIFFE ID");
}

#[test]
fn the_first_signs_and_all_are_trusted() {
    let (old, new) = (pool(KeyKind::EcdsaP256), pool(KeyKind::Ed25519));
    let of = |pool: &CaPool, id: &str| {
        let mut ca = serde_json::from_str::<Value>(&pool.to_json()).unwrap()["cas"][0].take();
        ca["id"] = json!(id);
        ca
    };
    let both = read(&[of(&new, "new"), of(&old, "old"), of(&old, "old again")]).unwrap();
    assert_eq!(both.cas().map(spiffe_id::Ca::id).collect::<Vec<_>>(), ["new", "old", "old again"]);
    assert_eq!(both.roots_pem(), new.roots_pem() + &old.roots_pem(), "each root once");
    let svid = both.issue(&day(&agent())).unwrap();
    as_client(&new.roots_pem(), &svid.chain, NOW).unwrap();
    as_client(&old.roots_pem(), &svid.chain, NOW).unwrap_err();
    as_client(&both.roots_pem(), &old.issue(&day(&agent())).unwrap().chain, NOW).unwrap();
}

#[test]
fn another_ca_can_be_made_to_sign() {
    let (old, new) = (pool(KeyKind::EcdsaP256), pool(KeyKind::Ed25519));
    let of = |pool: &CaPool, id: &str| {
        let mut ca = serde_json::from_str::<Value>(&pool.to_json()).unwrap()["cas"][0].take();
        ca["id"] = json!(id);
        ca
    };
    let all = || read(&[of(&new, "new"), of(&old, "old"), of(&new, "third")]).unwrap();
    let turned = all().signing_with("old").unwrap();
    assert_eq!(turned.cas().map(spiffe_id::Ca::id).collect::<Vec<_>>(), ["old", "new", "third"]);
    as_client(&old.roots_pem(), &turned.issue(&day(&agent())).unwrap().chain, NOW).unwrap();
    let same = all().signing_with("new").unwrap();
    assert_eq!(same.cas().map(spiffe_id::Ca::id).collect::<Vec<_>>(), ["new", "old", "third"]);
    assert!(all().signing_with("").is_none());
}

#[test]
fn secrets_are_derived_from_the_key_alone() {
    let (one, other) = (pool(KeyKind::Ed25519), pool(KeyKind::Ed25519));
    let derive = |pool: &CaPool, info: &[u8]| pool.cas().next().unwrap().derive(info).unwrap();
    let again = CaPool::from_json(one.to_json().as_bytes()).unwrap();
    assert_eq!(derive(&one, b"a"), derive(&again, b"a"));
    assert_ne!(derive(&one, b"a"), derive(&one, b"b"));
    assert_ne!(derive(&one, b"a"), derive(&other, b"a"));
}

#[test]
fn files_that_are_no_pool_are_refused_without_a_word_of_their_secrets() {
    let secret = STANDARD.encode("top secret");
    for file in [
        String::new(),
        "[]".to_owned(),
        "{}".to_owned(),
        format!("{{\"cas\": \"{secret}\"}}"),
        format!("{{\"cas\":[{{\"id\":\"1\",\"signingKeyPKCS8\":\"{secret}\"}}]}}"),
        format!(
            "{{\"cas\":[{{\"id\":\"1\",\"signingKeyPKCS8\":\"{secret}\",\"rootCertificateDER\":\"\"}}]}}"
        ),
        format!(
            "{{\"cas\":[{{\"id\":\"1\",\"signingKeyPKCS8\":\"{secret}!\",\"rootCertificateDER\":\"\"}}]}}"
        ),
        format!("{{\"cas\":[],\"{secret}\":1}}"),
        format!("{{\"cas\":[{{\"id\":[\"{secret}\"]}}]}}"),
        "{\"cas\":[],\"cas\":[]}".to_owned(),
        "{\"cas\":[]} x".to_owned(),
    ] {
        let error = CaPool::from_json(file.as_bytes()).unwrap_err();
        assert!(!error.is_bad_request());
        assert!(!error.to_string().contains(&secret), "{error}");
    }
    let good = pool(KeyKind::Ed25519).to_json();
    CaPool::from_json(good.as_bytes()).unwrap();
    let unknown = good.replacen("{\"id\"", "{\"extra\":1,\"id\"", 1);
    assert_ne!(unknown, good);
    CaPool::from_json(unknown.as_bytes()).unwrap_err();
}

#[test]
fn names_of_cas() {
    let named = |id: &str| CaPool::generate(id, &domain(), KeyKind::Ed25519, at(NOW), at(NOW + DAY));
    for id in ["1", "prod.2026-07_a", &"x".repeat(64)] {
        assert_eq!(named(id).unwrap().cas().next().unwrap().id(), id);
    }
    for id in ["", "a b", "a/b", "a\n", "\u{e4}", &"x".repeat(65)] {
        named(id).unwrap_err();
    }
}

/// The signing library cannot write such a name again, and would panic.
#[test]
fn a_root_whose_name_cannot_be_written_again_is_refused() {
    for first in [120, 127, 128, 158, 255] {
        let mut file: Value = serde_json::from_str(&pool(KeyKind::Ed25519).to_json()).unwrap();
        let root = &mut file["cas"][0]["rootCertificateDER"];
        let mut der = STANDARD.decode(root.as_str().unwrap()).unwrap();
        // The type of the common name, 2.5.4.3, in issuer and subject.
        let common_name = [6, 3, 0x55, 4, 3];
        let found: Vec<usize> =
            (0..der.len() - 5).filter(|at| der[*at..at + 5] == common_name).map(|at| at + 2).collect();
        assert_eq!(found.len(), 2);
        for at in found {
            der[at] = first;
        }
        *root = json!(STANDARD.encode(der));
        CaPool::from_json(file.to_string().as_bytes()).unwrap_err();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A pool with some bytes of its root changed: read or refused, and what it then issues is no panic either.
    #[test]
    fn damaged_roots_are_decided_without_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        static GOOD: std::sync::LazyLock<Value> = std::sync::LazyLock::new(|| {
            serde_json::from_str(&pool(KeyKind::Ed25519).to_json()).unwrap()
        });
        let mut file = GOOD.clone();
        let root = &mut file["cas"][0]["rootCertificateDER"];
        let mut der = STANDARD.decode(root.as_str().unwrap()).unwrap();
        for (at, value) in changes {
            let at = at.index(der.len());
            der[at] = value;
        }
        *root = json!(STANDARD.encode(der));
        if let Ok(pool) = CaPool::from_json(file.to_string().as_bytes()) {
            match pool.issue(&day(&agent())) {
                Ok(svid) => prop_assert_eq!(identity_of(&svid.chain[0]).unwrap(), agent()),
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }
    }
}
