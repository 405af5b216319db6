use std::{sync::Arc, time::Duration};

use rcgen::{
    CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData,
    SigningKey,
};
use serde_json::{Value, json};

use super::*;

/// `envoy-proxy-` and the first 12 hex digits of `printf quickstart-ns/agentic-net-gateway | sha256sum`.
const PROXY: &str = "envoy-proxy-3e11a0abd055";
const NOW: &str = "2026-08-01T12:00:00.7Z";
const CA_END: &str = "2036-08-01T00:00:00Z";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn settings() -> Settings {
    Settings {
        namespace: "agentic-net-system".to_owned(),
        service_account: "agentic-controller".to_owned(),
        trust_domain: "cluster.local".parse().unwrap(),
        lifetime: Duration::from_secs(24 * 3600),
        dns_names: Vec::new(),
        spread: Duration::from_secs(60),
        counts: Arc::default(),
    }
}

fn csr(key: &KeyPair) -> Vec<u8> {
    CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
}

fn bytes(bytes: &[u8]) -> Value {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes).into()
}

/// A world in which the request is signed; each test changes one thing.
struct World {
    request: Value,
    pod: Value,
    service_account: Value,
    node: Value,
    replica_set: Value,
    deployment: Value,
    gateway: Value,
    gateways: Vec<&'static str>,
    ca_end: &'static str,
}

fn world() -> World {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    World {
        request: json!({
            "metadata": {"namespace": "quickstart-ns", "name": "req"},
            "spec": {
                "signerName": "kube-agentic-networking.sigs.k8s.io/identity",
                "podName": "agent-1", "podUID": "pod-uid",
                "serviceAccountName": "adk-agent-sa", "serviceAccountUID": "sa-uid",
                "nodeName": "node-1", "nodeUID": "node-uid",
                "maxExpirationSeconds": 86400,
                "stubPKCS10Request": bytes(&csr(&key)),
            },
        }),
        pod: json!({
            "metadata": {"namespace": "quickstart-ns", "name": "agent-1", "uid": "pod-uid"},
            "spec": {
                "serviceAccountName": "adk-agent-sa", "nodeName": "node-1", "containers": [],
                "volumes": [
                    {"name": "other", "emptyDir": {}},
                    {"name": "identity", "projected": {"sources": [
                        {"clusterTrustBundle": {"path": "x"}},
                        {"podCertificate": {
                            "signerName": "kube-agentic-networking.sigs.k8s.io/identity", "keyType": "ECDSAP256",
                        }},
                    ]}},
                ],
            },
            "status": {"phase": "Pending"},
        }),
        service_account: json!({"name": "adk-agent-sa", "uid": "sa-uid"}),
        node: json!({"name": "node-1", "uid": "node-uid"}),
        replica_set: Value::Null,
        deployment: Value::Null,
        gateway: Value::Null,
        gateways: vec!["agentic-net-gateway"],
        ca_end: CA_END,
    }
}

/// The same for a proxy of the Gateway `quickstart-ns/agentic-net-gateway`.
fn proxy_world() -> World {
    let mut world = world();
    world.request["spec"]["serviceAccountName"] = PROXY.into();
    world.service_account["name"] = PROXY.into();
    world.pod["spec"]["serviceAccountName"] = PROXY.into();
    world.pod["metadata"]["ownerReferences"] = json!([
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "rs-uid", "controller": true},
    ]);
    world.replica_set = json!({
        "name": "rs", "uid": "rs-uid",
        "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "Deployment", "name": PROXY, "uid": "deploy-uid", "controller": true},
        ],
    });
    world.deployment = json!({
        "name": PROXY, "uid": "deploy-uid",
        "ownerReferences": [{
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "name": "agentic-net-gateway",
            "uid": "gateway-uid",
        }],
    });
    world.gateway = json!({"name": "agentic-net-gateway", "uid": "gateway-uid"});
    world
}

impl World {
    fn decide(self) -> Verdict {
        fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
            serde_json::from_value(value).unwrap()
        }
        let live = Live {
            pod: read(self.pod),
            service_account: read(self.service_account),
            node: read(self.node),
            owners: Owners {
                replica_set: read(self.replica_set),
                deployment: read(self.deployment),
                gateway: read(self.gateway),
            },
        };
        let gateways =
            self.gateways.into_iter().map(|name| NamespacedName::new("quickstart-ns", name)).collect();
        decide(&read(self.request), &live, &gateways, at(self.ca_end), &settings(), at(NOW))
    }
}

#[track_caller]
fn signs(world: World) -> Grant {
    match world.decide() {
        Verdict::Sign(grant) => *grant,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn denies(reason: &str, message_part: &str, base: World, change: impl FnOnce(&mut World)) {
    let mut world = base;
    change(&mut world);
    match world.decide() {
        Verdict::Refuse(refusal) => {
            assert_eq!((refusal.outcome, refusal.reason), (Refused::Denied, reason), "{}", refusal.message);
            assert!(refusal.message.contains(message_part), "{}", refusal.message);
        }
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn waits(message_part: &str, base: World, change: impl FnOnce(&mut World)) {
    let mut world = base;
    change(&mut world);
    match world.decide() {
        Verdict::Wait(why) => assert!(why.contains(message_part), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_true_request_is_signed() {
    let grant = signs(world());
    assert_eq!(grant.id.as_str(), "spiffe://cluster.local/ns/quickstart-ns/sa/adk-agent-sa");
    assert_eq!(grant.not_before, at("2026-08-01T11:58:00Z"));
    assert_eq!(grant.not_after, at("2026-08-02T11:58:00Z"));
    assert_eq!(grant.begin_refresh_at, at("2026-08-01T23:58:00Z"));

    let grant = signs(proxy_world());
    assert_eq!(grant.id.as_str(), format!("spiffe://cluster.local/ns/quickstart-ns/sa/{PROXY}"));
}

#[test]
fn what_is_not_ours_or_is_answered_is_left_alone() {
    let status = |status: Value| {
        move |world: &mut World| {
            world.request["status"] = status;
        }
    };
    let condition = |type_: &str| {
        json!({"conditions": [{
            "type": type_, "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-08-01T12:00:00Z",
        }]})
    };
    let mut other = world();
    other.request["spec"]["signerName"] = "example.org/other".into();
    assert_eq!(other.decide(), Verdict::NotOurs);
    for answered in
        [condition("Issued"), condition("Denied"), condition("Failed"), json!({"certificateChain": "x"})]
    {
        let mut world = world();
        status(answered)(&mut world);
        assert_eq!(world.decide(), Verdict::NotOurs);
    }
    let mut open = world();
    status(json!({"conditions": []}))(&mut open);
    signs(open);
}

#[test]
fn requests_that_do_not_fit_the_live_pod_are_denied() {
    let refuse = |reason, part, change: &dyn Fn(&mut World)| denies(reason, part, world(), change);
    refuse("PodNotFound", "`agent-1`", &|w| w.pod = Value::Null);
    for (field, value, part) in [
        ("podUID", "another", "the UID of the Pod `agent-1` is `pod-uid`, not `another`"),
        (
            "serviceAccountName",
            "someone",
            "the ServiceAccount of the Pod `agent-1` is `adk-agent-sa`, not `someone`",
        ),
        ("serviceAccountUID", "another", "the UID of the ServiceAccount of the Pod `agent-1` is `sa-uid`"),
        ("nodeName", "node-2", "the node of the Pod `agent-1` is `node-1`, not `node-2`"),
        ("nodeUID", "another", "the UID of the node of the Pod `agent-1` is `node-uid`"),
    ] {
        refuse("PodMismatch", part, &|w| w.request["spec"][field] = value.into());
    }
    refuse("PodMismatch", "the node", &|w| w.pod["spec"]["nodeName"] = Value::Null);
    refuse("PodMismatch", "the UID of the Pod", &|w| w.pod["metadata"]["uid"] = Value::Null);
    refuse("PodMismatch", "ServiceAccount", &|w| w.service_account = Value::Null);
    refuse("PodMismatch", "ServiceAccount", &|w| w.service_account["uid"] = "new".into());
    refuse("PodMismatch", "node", &|w| w.node = Value::Null);
    refuse("PodFinished", "being deleted", &|w| {
        w.pod["metadata"]["deletionTimestamp"] = "2026-08-01T12:00:00Z".into();
    });
    for phase in ["Succeeded", "Failed"] {
        refuse("PodFinished", phase, &|w| w.pod["status"]["phase"] = phase.into());
    }
}

#[test]
fn a_pod_that_mounts_no_certificate_of_ours_gets_none() {
    denies("NotMounted", "podCertificate", world(), |w| w.pod["spec"]["volumes"] = json!([]));
    denies("NotMounted", "podCertificate", world(), |w| {
        w.pod["spec"]["volumes"][1]["projected"]["sources"][1]["podCertificate"]["signerName"] =
            "a.org/b".into();
    });
}

#[test]
fn annotations_that_nobody_knows_are_denied() {
    denies("InvalidUnverifiedUserAnnotations", "`a.org/x`", world(), |w| {
        w.request["spec"]["unverifiedUserAnnotations"] = json!({"a.org/x": "1"});
    });
}

#[test]
fn nobody_gets_the_controllers_identity() {
    denies("ReservedIdentity", "the controller", world(), |w| {
        w.request["metadata"]["namespace"] = "agentic-net-system".into();
        w.request["spec"]["serviceAccountName"] = "agentic-controller".into();
        w.pod["spec"]["serviceAccountName"] = "agentic-controller".into();
    });
    // The same name in another namespace is another identity.
    let mut elsewhere = world();
    elsewhere.request["spec"]["serviceAccountName"] = "agentic-controller".into();
    elsewhere.pod["spec"]["serviceAccountName"] = "agentic-controller".into();
    signs(elsewhere);
}

#[test]
fn a_proxys_identity_goes_only_to_pods_of_its_deployment() {
    let refuse = |part, change: &dyn Fn(&mut World)| denies("ReservedIdentity", part, proxy_world(), change);
    refuse("no ReplicaSet", &|w| w.pod["metadata"]["ownerReferences"] = json!([]));
    refuse("no ReplicaSet", &|w| w.pod["metadata"]["ownerReferences"][0]["controller"] = false.into());
    refuse("no ReplicaSet", &|w| w.pod["metadata"]["ownerReferences"][0]["uid"] = "another".into());
    refuse("no ReplicaSet", &|w| w.pod["metadata"]["ownerReferences"][0]["apiVersion"] = "a.org/v1".into());
    refuse("no ReplicaSet", &|w| w.pod["metadata"]["ownerReferences"][0]["kind"] = "Job".into());
    refuse("no ReplicaSet", &|w| w.replica_set = Value::Null);
    refuse("Deployment", &|w| w.replica_set["ownerReferences"] = json!([]));
    refuse("Deployment", &|w| w.deployment = Value::Null);
    refuse("Deployment", &|w| w.deployment["uid"] = "another".into());
    refuse("Deployment", &|w| {
        w.deployment["name"] = "foreign".into();
        w.replica_set["ownerReferences"][0]["name"] = "foreign".into();
    });
    refuse("no Gateway", &|w| w.deployment["ownerReferences"] = json!([]));
    refuse("no Gateway", &|w| w.gateway = Value::Null);
    refuse("no Gateway", &|w| w.gateway["uid"] = "its successor's".into());
    refuse("no Gateway", &|w| w.deployment["ownerReferences"][0]["apiVersion"] = "a.org/v1".into());
    // A Deployment under the name of one Gateway's, owned by another.
    refuse("no Gateway", &|w| {
        w.gateway["name"] = "other".into();
        w.deployment["ownerReferences"][0]["name"] = "other".into();
    });
    // The name is reserved even where no Gateway has it.
    denies("ReservedIdentity", "no ReplicaSet", world(), |w| {
        w.request["spec"]["serviceAccountName"] = "envoy-proxy-0123456789ab".into();
        w.pod["spec"]["serviceAccountName"] = "envoy-proxy-0123456789ab".into();
    });
    // Not seen yet, or no longer ours: nothing final.
    waits("`quickstart-ns/agentic-net-gateway`", proxy_world(), |w| w.gateways.clear());
}

#[test]
fn names_of_proxies() {
    for (name, expected) in [
        ("envoy-proxy-0123456789ab", true),
        (PROXY, true),
        ("envoy-proxy-0123456789aB", false),
        ("envoy-proxy-0123456789a", false),
        ("envoy-proxy-0123456789abc", false),
        ("envoy-proxy-", false),
        ("envoy-proxy", false),
        ("x-envoy-proxy-0123456789ab", false),
    ] {
        assert_eq!(is_proxy_name(name), expected, "{name}");
    }
}

#[test]
fn both_forms_of_keys_are_verified() {
    for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut stub = world();
        stub.request["spec"]["stubPKCS10Request"] = bytes(&csr(&key));
        assert_eq!(signs(stub).key.spki_der(), key.subject_public_key_info());

        let mut forged = csr(&key);
        *forged.last_mut().unwrap() ^= 1;
        denies("InvalidRequest", "sign it with the key", world(), |w| {
            w.request["spec"]["stubPKCS10Request"] = bytes(&forged);
        });
    }
    denies("InvalidRequest", "PKCS#10", world(), |w| w.request["spec"]["stubPKCS10Request"] = bytes(b"x"));
    denies("InvalidRequest", "PKCS#10", world(), |w| w.request["spec"]["stubPKCS10Request"] = Value::Null);
}

/// A request in the older form.
fn by_public_key(key: &[u8], proof: &[u8]) -> World {
    let mut world = world();
    world.request["spec"]["stubPKCS10Request"] = Value::Null;
    world.request["spec"]["pkixPublicKey"] = bytes(key);
    world.request["spec"]["proofOfPossession"] = bytes(proof);
    world
}

#[test]
fn a_public_key_comes_with_a_signature_of_the_pods_uid() {
    // rcgen signs for P-384 with SHA-384, where KEP-4317 has SHA-256: that form is tested in `spiffe-id`.
    for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let spki = key.subject_public_key_info();
        let grant = signs(by_public_key(&spki, &key.sign(b"pod-uid").unwrap()));
        assert_eq!(grant.key.spki_der(), spki);
        for proof in [key.sign(b"another").unwrap(), Vec::new()] {
            denies("InvalidRequest", "possession", by_public_key(&spki, &proof), |_| {});
        }
        let other = KeyPair::generate_for(algorithm).unwrap();
        let stolen = by_public_key(&spki, &other.sign(b"pod-uid").unwrap());
        denies("InvalidRequest", "possession", stolen, |_| {});
    }
}

#[test]
fn unsupported_keys_are_denied_with_what_to_use() {
    for (name, message) in
        [("p521", "use ECDSA on P-256"), ("secp256k1", "use ECDSA on P-256"), ("rsa2048", "PKCS#10")]
    {
        let path = format!("{}/../spiffe-id/tests/keys/{name}.der", env!("CARGO_MANIFEST_DIR"));
        let world = by_public_key(&std::fs::read(path).unwrap(), b"proof");
        denies("UnsupportedKeyType", message, world, |_| {});
    }
}

#[test]
fn lifetimes() {
    #[track_caller]
    fn check(max_seconds: Value, ca_end: &'static str, not_after: &str, begin_refresh_at: &str) {
        let mut world = world();
        world.request["spec"]["maxExpirationSeconds"] = max_seconds;
        world.ca_end = ca_end;
        let grant = signs(world);
        assert_eq!(grant.not_before, at("2026-08-01T11:58:00Z"));
        assert_eq!(grant.not_after, at(not_after));
        assert_eq!(grant.begin_refresh_at, at(begin_refresh_at));
    }
    check(Value::Null, CA_END, "2026-08-02T11:58:00Z", "2026-08-01T23:58:00Z");
    check(7_862_400.into(), CA_END, "2026-08-02T11:58:00Z", "2026-08-01T23:58:00Z");
    check(7200.into(), CA_END, "2026-08-01T13:58:00Z", "2026-08-01T12:58:00Z");
    check(3600.into(), CA_END, "2026-08-01T12:58:00Z", "2026-08-01T12:28:00Z");
    check(3601.into(), CA_END, "2026-08-01T12:58:01Z", "2026-08-01T12:28:00Z");
    check(86400.into(), "2026-08-01T14:58:00.9Z", "2026-08-01T14:58:00Z", "2026-08-01T13:28:00Z");

    waits("rotate the CA pool", world(), |w| w.ca_end = "2026-08-01T12:57:59Z");
    waits("rotate the CA pool", world(), |w| w.ca_end = "2020-01-01T00:00:00Z");

    let mut short = world();
    short.request["spec"]["maxExpirationSeconds"] = 3599.into();
    let Verdict::Refuse(refusal) = short.decide() else { panic!("signed") };
    assert_eq!(refusal.outcome, Refused::Failed);
}
