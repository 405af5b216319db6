//! What a data plane is sent gives it what all objects would, and nothing of others.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on should fail there"
)]
#[path = "support/generate.rs"]
mod generate;
#[path = "support/mutate.rs"]
mod mutate;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write as _,
};

use authz_core::{BackendKind, Http, LevelDecision, Levels, Request, Traffic};
use http::HeaderMap;
use policy_model::NamespacedName;
use proptest::{prelude::*, sample::Index};
use prost::Message as _;
use serde_json::{Value, json};
use xds_translate::{ObjectRef, Objects, Options, Snapshot, native, resolve};

use self::mutate::{junk, mutate};

fn set<'v>(objects: impl IntoIterator<Item = &'v Value>) -> Objects {
    let mut set = Objects::default();
    for object in objects {
        set.insert(object);
    }
    set
}

/// As a data plane receives it.
fn sent(object: &Value) -> Value {
    let bytes = native::Object::new(object).encode_to_vec();
    native::Object::decode(bytes.as_slice()).unwrap().value().unwrap()
}

/// By what they are; the last of one name stands. What has no name is nobody's.
fn by_ref(objects: &[Value]) -> BTreeMap<ObjectRef, &Value> {
    objects.iter().filter_map(|object| Some((native::object_ref(object)?, object))).collect()
}

/// Requests that tell policies apart, each as one line of what became of it.
fn decisions(snapshot: &Snapshot, levels: Levels) -> String {
    let headers = HeaderMap::new();
    let parse =
        |body: &'static str| mcp_jsonrpc::parse(body.as_bytes(), &mcp_jsonrpc::Limits::default()).unwrap();
    let bodies = [
        parse(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo"}}"#),
        parse(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#),
    ];
    let messages = bodies.iter().map(|body| {
        let mcp_jsonrpc::Body::One(message) = body else { panic!("no single message") };
        Traffic::Message(message)
    });
    let traffic: Vec<_> =
        messages.chain([Traffic::EventStream, Traffic::NoBody, Traffic::Unparsed]).collect();
    let identities = [None, Some(("a", "one")), Some(("b", "two"))];
    let mut found = String::new();
    let authorizer = |level: &LevelDecision<'_>| {
        let id = level.authorizer?;
        Some((snapshot.engine.authorizer(id)?, snapshot.authorizers.get(usize::try_from(id.0).unwrap())?))
    };
    for account in identities {
        let identity = account.map(|(namespace, name)| {
            format!("spiffe://cluster.local/ns/{namespace}/sa/{name}").parse().unwrap()
        });
        for listener in ["l0", "l1", "l2"] {
            for traffic in &traffic {
                for backend in [BackendKind::XBackendMcp, BackendKind::Service] {
                    let request = Request {
                        identity: identity.as_ref(),
                        listener,
                        port: 443,
                        http: Http {
                            method: "POST",
                            path_and_query: "/",
                            host: "x.example",
                            headers: &headers,
                        },
                        backend,
                        traffic: *traffic,
                        now_unix_nanos: 0,
                    };
                    let decision = snapshot.engine.decide(levels, &request);
                    let explanation = snapshot.engine.explain(levels, &request);
                    writeln!(
                        found,
                        "{:?} {:?} {:?} {explanation:?}",
                        decision.effect,
                        authorizer(&decision.gateway),
                        authorizer(&decision.backend),
                    )
                    .unwrap();
                }
            }
            write!(found, "{}", snapshot.engine.needs_body(levels, listener)).unwrap();
        }
    }
    found
}

/// All that requests can see of a snapshot.
fn visible(snapshot: &Snapshot) -> String {
    let mut found = String::new();
    let mut known = HashMap::new();
    let mut named = BTreeSet::new();
    for rule in &snapshot.rules {
        writeln!(
            found,
            "{} {:?} {} {:?} {:?} {:?} {:?}",
            rule.route, rule.created, rule.index, rule.name, rule.matches, rule.filters, rule.timeouts
        )
        .unwrap();
        for backend in &rule.backends {
            let number = known.len();
            let number = *known.entry(backend.levels).or_insert_with(|| {
                writeln!(found, "{}", decisions(snapshot, backend.levels)).unwrap();
                number
            });
            writeln!(found, "{:?} {} {:?} levels {number}", backend.backend, backend.weight, backend.filters)
                .unwrap();
            named.extend(&backend.backend);
        }
    }
    // What answers for the Gateway itself, with a route or without.
    writeln!(found, "{}", decisions(snapshot, snapshot.engine.levels(&snapshot.gateway, None))).unwrap();
    for id in named {
        writeln!(found, "{:?}", snapshot.backends[id]).unwrap();
    }
    found
}

#[track_caller]
fn assert_same(found: &Snapshot, expected: &Snapshot) {
    assert_eq!(found.listeners, expected.listeners);
    assert_eq!(visible(found), visible(expected));
}

/// The Secrets that a Gateway's listeners name.
fn named_secrets(gateway: &Value) -> BTreeSet<(String, String)> {
    let own = gateway["metadata"]["namespace"].as_str().unwrap_or("default");
    let listeners = gateway["spec"]["listeners"].as_array().into_iter().flatten();
    listeners
        .flat_map(|listener| listener["tls"]["certificateRefs"].as_array().into_iter().flatten())
        .filter_map(|reference| {
            let namespace = reference["namespace"].as_str().unwrap_or(own);
            Some((namespace.to_owned(), reference["name"].as_str()?.to_owned()))
        })
        .collect()
}

/// `left_out`: which of the objects that are not selected stay away; the others are there though they do not matter.
fn check(objects: &[Value], left_out: &[bool]) {
    let options = Options::default();
    let by_ref = by_ref(objects);
    let all = set(by_ref.values().copied());
    let resolution = resolve(&all, &options);
    let selector = native::Selector::new(&all, &options);
    for name in all_gateways(&by_ref) {
        let selected = selector.select(&name);
        for object in &selected {
            assert!(by_ref.contains_key(object), "{object:?} is selected and not there");
        }
        let gateway = ObjectRef {
            group: "gateway.networking.k8s.io".to_owned(),
            kind: "Gateway".to_owned(),
            namespace: name.namespace.clone(),
            name: name.name.clone(),
        };
        let secrets = selected.iter().filter(|object| object.kind == "Secret");
        let named = named_secrets(by_ref[&gateway]);
        for secret in secrets {
            assert!(
                named.contains(&(secret.namespace.clone(), secret.name.clone())),
                "{secret:?} is no concern of {name}"
            );
        }
        assert_eq!(
            selected.iter().filter(|object| object.kind == "Gateway").count(),
            usize::from(!selected.is_empty())
        );

        let needed = by_ref.iter().filter(|(object, _)| selected.contains(object));
        let reduced: Vec<_> = needed.map(|(_, object)| sent(object)).collect();
        let mut alone = resolve(&set(&reduced), &options);
        let Some(expected) = resolution.gateways.get(&name) else {
            assert!(alone.gateways.is_empty());
            continue;
        };
        assert_eq!(alone.gateways.len(), 1);
        assert_same(&alone.gateways.remove(&name).unwrap(), expected);

        let mut flags = left_out.iter().copied().cycle();
        let some: Vec<_> = by_ref
            .iter()
            .filter(|(object, _)| selected.contains(object) || !flags.next().unwrap_or(true))
            .map(|(_, object)| *object)
            .collect();
        let mut some = resolve(&set(some), &options);
        assert_same(&some.gateways.remove(&name).unwrap(), expected);
    }
}

fn all_gateways(objects: &BTreeMap<ObjectRef, &Value>) -> Vec<NamespacedName> {
    let gateways = objects.keys().filter(|object| object.kind == "Gateway");
    gateways.map(|object| NamespacedName::new(&object.namespace, &object.name)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_sent_is_what_matters(
        objects in generate::objects(),
        left_out in prop::collection::vec(any::<bool>(), 1..40),
    ) {
        check(&objects, &left_out);
    }

    /// The same where some objects are not as any author meant them, many of which cannot be read.
    #[test]
    fn what_cannot_be_read_closes_the_same(
        mut objects in generate::objects(),
        mutations in prop::collection::vec((any::<Index>(), prop::collection::vec(any::<Index>(), 1..8), junk()), 1..8),
        left_out in prop::collection::vec(any::<bool>(), 1..40),
    ) {
        for (object, path, to) in &mutations {
            let index = object.index(objects.len());
            mutate(&mut objects[index], path, to);
        }
        for object in &objects {
            let (reduced, whole) = (sent(object), Objects::default());
            let kind = |object: &Value| std::mem::discriminant(&whole.clone().insert(object));
            prop_assert_eq!(kind(&reduced), kind(object), "{}", object);
            prop_assert_eq!(&sent(&reduced), &reduced, "{}", object);
            prop_assert_eq!(native::object_ref(&reduced), native::object_ref(object));
        }
        check(&objects, &left_out);
    }
}

#[track_caller]
fn check_reduced(object: Value, expected: Value) {
    assert_eq!(native::reduce(&object), expected);
}

#[test]
fn objects_are_reduced_to_what_is_read() {
    let noise = |object: Value| {
        let mut object = object;
        for (field, value) in [
            ("resourceVersion", json!("1")),
            ("annotations", json!({"kubectl.kubernetes.io/last-applied-configuration": "{}"})),
            ("managedFields", json!([{"manager": "m", "operation": "Update"}])),
            ("finalizers", json!(["f"])),
            ("ownerReferences", json!([{"apiVersion": "v1", "kind": "K", "name": "n", "uid": "u"}])),
        ] {
            object["metadata"][field] = value;
        }
        object
    };
    let gateway = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "g", "namespace": "a", "uid": "u", "generation": 3, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"gatewayClassName": "c", "listeners": [], "infrastructure": {"labels": {"a": "b"}}},
    });
    let mut full = noise(gateway.clone());
    full["status"] = json!({"addresses": []});
    full["metadata"]["labels"] = json!({"a": "b"});
    check_reduced(full, gateway);
    check_reduced(
        noise(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "a", "labels": {"a": "b"}},
            "spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.1", "ports": [{"name": "p", "port": 1, "targetPort": 2, "nodePort": 30000, "appProtocol": "https"}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}},
        })),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "a"},
            "spec": {"type": "LoadBalancer", "ports": [{"name": "p", "port": 1, "appProtocol": "https"}]},
        }),
    );
    check_reduced(
        noise(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "s", "namespace": "a", "generation": 8, "labels": {"kubernetes.io/service-name": "s", "a": "b"}},
            "addressType": "IPv4", "ports": [{"name": "p", "port": 1, "protocol": "TCP"}],
            "endpoints": [
                {"addresses": ["10.0.0.1"], "conditions": {"ready": true, "serving": true}, "nodeName": "n"},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
                {"addresses": ["10.0.0.3"]},
            ],
        })),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "s", "namespace": "a", "labels": {"kubernetes.io/service-name": "s"}},
            "addressType": "IPv4", "ports": [{"name": "p", "port": 1, "protocol": "TCP"}],
            "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.3"]}],
        }),
    );
    check_reduced(
        noise(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "a"}, "type": "kubernetes.io/tls",
            "data": {"tls.crt": "YQ==", "tls.key": "Yg==", "password": "Yw=="},
        })),
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "a"},
            "data": {"tls.crt": "YQ==", "tls.key": "Yg=="},
        }),
    );
    check_reduced(
        noise(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "s", "namespace": "a"},
            "data": {"ca.crt": "PEM", "other": "text"},
        })),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "s", "namespace": "a"}, "data": {"ca.crt": "PEM"}}),
    );
    check_reduced(
        noise(json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "labels": {"team": "red"}},
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
        })),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "labels": {"team": "red"}}}),
    );
}

#[test]
fn metadata_that_cannot_be_read_keeps_an_object_unread() {
    let policy = json!({
        "apiVersion": "agentic.networking.x-k8s.io/v0alpha0", "kind": "XAccessPolicy",
        "metadata": {"name": "p", "namespace": "a", "labels": {"a": 1}, "resourceVersion": "5"},
        "spec": {"targetRefs": [{"group": "agentic.networking.x-k8s.io", "kind": "XBackend", "name": "b"}], "rules": []},
    });
    check_reduced(policy.clone(), policy);
    let mut secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "a"},
        "data": {"tls.crt": "YQ==", "tls.key": "Yg==", "password": 7},
    });
    check_reduced(secret.clone(), secret.clone());
    secret["data"]["password"] = json!("not base64");
    check_reduced(secret.clone(), secret);
}

#[track_caller]
fn check_name([group, kind, namespace, name]: [&str; 4], expected: &str) {
    let object = ObjectRef {
        group: group.to_owned(),
        kind: kind.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    assert_eq!(native::resource_name(&object), expected);
}

#[test]
fn names_of_resources() {
    check_name(
        ["agentic.networking.x-k8s.io", "XAccessPolicy", "a", "p.1"],
        "agentic.networking.x-k8s.io/XAccessPolicy/a/p.1",
    );
    check_name(["", "Service", "a", "s"], "/Service/a/s");
    check_name(["", "Namespace", "", "a"], "/Namespace//a");
    check_name(["g", "K", "a/b", "c"], "g/K/a%2Fb/c");
    check_name(["g", "K", "a", "b/c"], "g/K/a/b%2Fc");
    check_name(["g", "K", "a%2Fb", "é "], "g/K/a%252Fb/%C3%A9%20");
}

/// Two Gateways of one namespace that share a Service: each gets its own and what is shared, and what closes them both.
#[test]
fn each_gateway_gets_its_own() {
    let text = include_str!("manifests/two-gateways.yaml");
    let documents = serde_yaml_ng::Deserializer::from_str(text);
    let objects: Vec<Value> =
        documents.map(|document| serde::Deserialize::deserialize(document).unwrap()).collect();
    check(&objects, &[true]);
    check(&objects, &[false, true]);
    let selected = |gateway: &str| -> Vec<String> {
        let gateway = NamespacedName::new("team", gateway);
        let selected = native::select(&set(&objects), &gateway, &Options::default());
        selected.iter().map(native::resource_name).collect()
    };
    let shared = [
        "/ConfigMap/shared/ca",
        "/Namespace//team",
        "/Service/shared/authz",
        "agentic.networking.x-k8s.io/XAccessPolicy/team/unreadable",
        "discovery.k8s.io/EndpointSlice/shared/authz-1",
        "gateway.networking.k8s.io/BackendTLSPolicy/shared/to-authz",
        "gateway.networking.k8s.io/GatewayClass//ours",
        "gateway.networking.k8s.io/ReferenceGrant/shared/policies-of-team",
    ];
    let with = |own: &[&str]| {
        let mut all: Vec<_> = shared.iter().chain(own).map(|name| (*name).to_owned()).collect();
        all.sort();
        all
    };
    let mut found = selected("one");
    found.sort();
    assert_eq!(
        found,
        with(&[
            "/Secret/team/one",
            "agentic.networking.x-k8s.io/XAccessPolicy/team/on-one",
            "agentic.networking.x-k8s.io/XBackend/team/wiki",
            "agentic.prototype.x-k8s.io/XAccessPolicy/team/on-wiki",
            "agentic.prototype.x-k8s.io/XBackend/team/wiki",
            "gateway.networking.k8s.io/Gateway/team/one",
            "gateway.networking.k8s.io/HTTPRoute/team/wiki",
        ])
    );
    let mut found = selected("two");
    found.sort();
    assert_eq!(
        found,
        with(&[
            "/Secret/shared/two",
            "agentic.networking.x-k8s.io/XAccessPolicy/team/on-two",
            "gateway.networking.k8s.io/Gateway/team/two",
            "gateway.networking.k8s.io/HTTPRoute/team/to-authz",
            "gateway.networking.k8s.io/ReferenceGrant/shared/secret-two",
        ])
    );
    assert_eq!(selected("foreign"), Vec::<String>::new());
    assert_eq!(selected("nobody"), Vec::<String>::new());
}
