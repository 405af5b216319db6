//! Snapshots as Envoy's configuration, the engine beside it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on should fail there"
)]
use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use policy_model::NamespacedName;
use proptest::prelude::*;
use serde_json::{Value, json};
use xds_translate::{
    Backend, BackendId, BackendKind, CertificateAndKey, ClientCertificates, Destination, Endpoint, Listener,
    ListenerTls, Objects, Options, Protocol, Snapshot, UpstreamTls,
    envoy::{
        Engine, Filters, OwnCertificate, Policy, Processor, Resolve, Resource, ResourceKind, Settings,
        Translation, Unserved, Version, bootstrap, translate,
    },
    resolve,
};

const SEED: &str = include_str!("manifests/seed.yaml");

fn snapshot() -> Snapshot {
    let mut objects = Objects::default();
    objects.add_yaml("seed.yaml", SEED).unwrap();
    resolve(&objects, &Options::default()).gateways.into_values().next().unwrap()
}

fn settings() -> Settings {
    Settings {
        own: Some(OwnCertificate {
            chain: "/run/id/credential-bundle.pem".to_owned(),
            key: "/run/id/credential-bundle.pem".to_owned(),
            watched: Some("/run/id".to_owned()),
        }),
        bundles: [("cluster.local".to_owned(), "ROOT\n".to_owned())].into(),
        ..Settings::default()
    }
}

fn named<'a>(translation: &'a Translation, kind: ResourceKind, name: &str) -> &'a Value {
    let found = translation.resources.iter().find(|resource| resource.kind == kind && resource.name == name);
    &found.unwrap_or_else(|| panic!("no {kind:?} `{name}` in {:#?}", names(translation))).json
}

fn names(translation: &Translation) -> Vec<(ResourceKind, &str)> {
    translation.resources.iter().map(|resource| (resource.kind, resource.name.as_str())).collect()
}

/// The HTTP connection manager of a filter chain.
fn manager(chain: &Value) -> &Value {
    &chain["filters"][0]["typed_config"]
}

/// What the processor is told of connections of a filter chain.
fn told(chain: &Value) -> Vec<(&str, &str)> {
    let metadata = &manager(chain)["http_filters"][1]["typed_config"]["grpc_service"]["initial_metadata"];
    metadata
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["key"].as_str().unwrap(), entry["value"].as_str().unwrap()))
        .collect()
}

/// The whole of the seed, line by line: the file is read by people when it changes.
#[test]
fn the_seed() {
    let translation = translate(&snapshot(), &settings());
    assert_eq!((translation.refused.len(), translation.unserved.len()), (0, 0));
    let generated = format!("{:#}\n", bootstrap(&translation, "127.0.0.1:15000"));
    let golden = include_str!("golden/seed-engine.json");
    for (number, (generated, golden)) in generated.lines().zip(golden.lines()).enumerate() {
        assert_eq!(generated, golden, "line {} of the bootstrap:\n{generated}", number + 1);
    }
    assert_eq!(generated.lines().count(), golden.lines().count());
}

#[test]
fn a_bootstrap_discovers_nothing() {
    for policy in [Policy::Engine(Engine::default()), Policy::Filters(Filters::default())] {
        let translation = translate(&snapshot(), &Settings { policy, ..settings() });
        let text = bootstrap(&translation, "/run/admin.sock").to_string();
        for word in ["\"ads\"", "sds_config", "rds", "eds_cluster_config", "\"EDS\""] {
            assert!(!text.contains(word), "{word} in {text}");
        }
        assert!(text.contains(r#""admin":{"address":{"pipe":{"path":"/run/admin.sock"}}}"#), "{text}");
    }
}

/// What becomes of one HTTPS listener, by what it asks of its clients.
#[track_caller]
fn clients(policy: Policy, tls: ListenerTls, expected: &Value) {
    let mut snapshot = snapshot();
    snapshot.listeners[0].tls = Some(tls);
    let engine = matches!(policy, Policy::Engine(_));
    let translation = translate(&snapshot, &Settings { policy, ..settings() });
    let chain = &named(&translation, ResourceKind::Listener, "port-10001")["filter_chains"][0];
    let context = &chain["transport_socket"]["typed_config"];
    let validation = &context["common_tls_context"]["validation_context"];
    let found = json!({
        "required": context["require_client_certificate"],
        "spiffe": validation["custom_validator_config"]["typed_config"]["trust_domains"],
        "ca": validation["trusted_ca"]["inline_string"],
        "unverified": validation["trust_chain_verification"],
    });
    assert_eq!(found, *expected);
    assert_eq!(context["disable_stateless_session_resumption"], true);
    assert_eq!(context["disable_stateful_session_resumption"], true);
    // The engine verifies identities itself, from what the client has shown; Envoy alone is told nothing.
    let manager = manager(chain);
    let shown = json!([manager["forward_client_cert_details"], manager["set_current_client_cert_details"]]);
    if engine {
        assert_eq!(shown, json!(["SANITIZE_SET", {"chain": true}]));
        let peers: Vec<_> =
            told(chain).into_iter().filter(|(key, _)| key.starts_with("x-agentic-peer")).collect();
        assert_eq!(
            peers,
            [
                ("x-agentic-peer-certificate", "%DOWNSTREAM_PEER_CERT%"),
                ("x-agentic-peer-not-after", "%DOWNSTREAM_PEER_CERT_V_END(%s)%"),
            ]
        );
    } else {
        assert_eq!(shown, json!(["SANITIZE", null]));
    }
}

#[test]
fn clients_are_verified_as_the_listener_says() {
    let spiffe = json!([{"name": "cluster.local", "trust_bundle": {"inline_string": "ROOT\n"}}]);
    let frontend = |insecure_fallback| ClientCertificates::Frontend {
        ca_pem: vec![b"ONE".to_vec(), b"TWO\n".to_vec()],
        insecure_fallback,
    };
    let engine = || Policy::Engine(Engine::default());
    let filters = || Policy::Filters(Filters::default());
    for (policy, tls, expected) in [
        (
            engine(),
            ClientCertificates::SpiffeRequired,
            json!({"required": true, "spiffe": spiffe, "ca": null, "unverified": null}),
        ),
        // Envoy's validator would require one.
        (
            engine(),
            ClientCertificates::SpiffeOptional,
            json!({"required": false, "spiffe": null, "ca": null, "unverified": "ACCEPT_UNTRUSTED"}),
        ),
        // Nobody else is there to verify it.
        (
            filters(),
            ClientCertificates::SpiffeOptional,
            json!({"required": false, "spiffe": spiffe, "ca": null, "unverified": null}),
        ),
        // The roots are not ours: nothing that they vouch for is an identity.
        (
            engine(),
            frontend(false),
            json!({"required": true, "spiffe": null, "ca": "ONE\nTWO\n", "unverified": null}),
        ),
        (
            engine(),
            frontend(true),
            json!({"required": false, "spiffe": null, "ca": "ONE\nTWO\n", "unverified": "ACCEPT_UNTRUSTED"}),
        ),
    ] {
        clients(policy, ListenerTls { certificates: Vec::new(), clients: tls }, &expected);
    }
}

fn https(name: &str, hostname: Option<&str>, certificates: usize, clients: ClientCertificates) -> Listener {
    let pair = CertificateAndKey { certificate_pem: b"CERT".to_vec(), key_pem: b"KEY".to_vec() };
    Listener {
        name: name.to_owned(),
        port: 443,
        protocol: Protocol::Https,
        hostname: hostname.map(str::to_owned),
        tls: Some(ListenerTls { certificates: vec![pair; certificates], clients }),
        routes: Vec::new(),
    }
}

fn http(name: &str, port: u16) -> Listener {
    Listener {
        name: name.to_owned(),
        port,
        protocol: Protocol::Http,
        hostname: None,
        tls: None,
        routes: Vec::new(),
    }
}

fn with_listeners(listeners: Vec<Listener>) -> Snapshot {
    Snapshot { listeners, ..snapshot() }
}

#[test]
fn one_listener_per_port_and_one_chain_per_https_listener() {
    let required = || ClientCertificates::SpiffeRequired;
    let snapshot = with_listeners(vec![
        https("any", None, 0, required()),
        http("one", 80),
        https("wild", Some("*.example.com"), 2, ClientCertificates::SpiffeOptional),
        http("two", 80),
    ]);
    let elsewhere: SocketAddr = "127.0.0.1:8443".parse().unwrap();
    let settings = Settings { listen: [(443, elsewhere)].into(), ..settings() };
    let translation = translate(&snapshot, &settings);
    assert_eq!(translation.unserved, []);
    let tls = named(&translation, ResourceKind::Listener, "port-443");
    assert_eq!(tls["address"]["socket_address"], json!({"address": "127.0.0.1", "port_value": 8443}));
    let chains: Vec<_> = tls["filter_chains"]
        .as_array()
        .unwrap()
        .iter()
        .map(|chain| {
            let common = &chain["transport_socket"]["typed_config"]["common_tls_context"];
            let secrets: Vec<_> = common["tls_certificate_sds_secret_configs"]
                .as_array()
                .unwrap()
                .iter()
                .map(|secret| secret["name"].as_str().unwrap())
                .collect();
            assert_eq!(chain["filter_chain_match"]["transport_protocol"], "tls");
            assert!(told(chain).contains(&("x-agentic-port", "443")));
            assert!(told(chain).contains(&("x-agentic-listener", chain["name"].as_str().unwrap())));
            (chain["name"].as_str().unwrap(), chain["filter_chain_match"]["server_names"].clone(), secrets)
        })
        .collect();
    assert_eq!(
        chains,
        [
            ("any", Value::Null, vec!["own"]),
            ("wild", json!(["*.example.com"]), vec!["certificate/wild/0", "certificate/wild/1"]),
        ]
    );
    let plain = named(&translation, ResourceKind::Listener, "port-80");
    assert_eq!(plain["address"]["socket_address"], json!({"address": "0.0.0.0", "port_value": 80}));
    assert_eq!(plain["filter_chains"].as_array().unwrap().len(), 1);
    assert_eq!(plain["listener_filters"], Value::Null);
    // Nothing of TLS, and no listener: the host says which one it is.
    let keys: Vec<_> = told(&plain["filter_chains"][0]).into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["x-agentic-gateway", "x-agentic-source", "x-agentic-destination", "x-agentic-port"]);
}

#[track_caller]
fn unserved(listeners: Vec<Listener>, settings: &Settings, expected: &[(&str, &str)]) {
    let translation = translate(&with_listeners(listeners), settings);
    assert_eq!(translation.unserved.len(), expected.len(), "{:?}", translation.unserved);
    for (Unserved { listener, reason }, (name, what)) in translation.unserved.iter().zip(expected) {
        assert!(listener == name && reason.contains(what), "{listener}: {reason}");
    }
    for (_, name) in names(&translation).into_iter().filter(|(kind, _)| *kind == ResourceKind::Listener) {
        assert!(name != "port-443", "a listener that is not served is there");
    }
}

#[test]
fn a_listener_that_cannot_be_served_as_meant_is_left_out() {
    let without_own = Settings { own: None, ..settings() };
    let without_roots = Settings { bundles: [].into(), ..settings() };
    let required = || vec![https("x", None, 0, ClientCertificates::SpiffeRequired), http("plain", 80)];
    unserved(required(), &without_own, &[("x", "--identity-dir")]);
    unserved(required(), &without_roots, &[("x", "--trust-bundle")]);
    let policy = Policy::Filters(Filters::default());
    let optional = vec![https("x", None, 1, ClientCertificates::SpiffeOptional)];
    unserved(optional.clone(), &Settings { policy, ..without_roots.clone() }, &[("x", "--trust-bundle")]);
    // The engine has bundles of its own, or lets in those without a certificate.
    assert_eq!(translate(&with_listeners(optional), &without_roots).unserved, []);
    let no_tls = Listener { tls: None, ..https("x", None, 0, ClientCertificates::SpiffeRequired) };
    unserved(vec![no_tls], &settings(), &[("x", "do not resolve")]);
    let processor = Processor::Mtls { address: "10.0.0.1:1".parse().unwrap(), id: "spiffe://a/b".to_owned() };
    let policy = Policy::Engine(Engine { processor, ..Engine::default() });
    let no_way = Settings { policy, ..without_own };
    unserved(required(), &no_way, &[("plain", "--identity-dir"), ("x", "--identity-dir")]);
}

#[test]
fn a_processor_elsewhere_is_verified_by_its_identity() {
    let id = "spiffe://cluster.local/ns/a/sa/decide".to_owned();
    let processor = Processor::Mtls { address: "10.0.0.1:9000".parse().unwrap(), id: id.clone() };
    let policy = Policy::Engine(Engine { processor, message_timeout: Duration::from_millis(1500) });
    let translation = translate(&snapshot(), &Settings { policy, ..settings() });
    let cluster = named(&translation, ResourceKind::Cluster, "processor");
    let tls = &cluster["transport_socket"]["typed_config"]["common_tls_context"];
    assert_eq!(
        tls["validation_context"]["match_typed_subject_alt_names"],
        json!([{"san_type": "URI", "matcher": {"exact": id}}])
    );
    assert_eq!(tls["tls_certificate_sds_secret_configs"][0]["name"], "own");
    let domains = &tls["validation_context"]["custom_validator_config"]["typed_config"]["trust_domains"];
    assert_eq!(domains[0]["name"], "cluster.local");
    let chain = &named(&translation, ResourceKind::Listener, "port-10001")["filter_chains"][0];
    assert_eq!(manager(chain)["http_filters"][1]["typed_config"]["message_timeout"], "1.500000000s");
}

/// The cluster of one backend that a route names, and its endpoints.
fn cluster(
    destination: Destination,
    tls: Option<UpstreamTls>,
    h2c: bool,
    settings: &Settings,
) -> Translation {
    let mut snapshot = snapshot();
    let id = BackendId::XBackend(NamespacedName::new("quickstart-ns", "local-mcp-backend"));
    let kind = BackendKind::XBackend { path: "/mcp".to_owned() };
    assert!(snapshot.backends.insert(id.clone(), Backend { id, kind, destination, tls, h2c }).is_some());
    translate(&snapshot, settings)
}

const LOCAL: &str = "xbackend/quickstart-ns/local-mcp-backend";

#[test]
fn endpoints_are_discovered_and_chosen_by_the_processor() {
    let endpoint = |address: &str, port| Endpoint { address: address.parse().unwrap(), port };
    let endpoints = vec![endpoint("10.0.0.1", 1), endpoint("fd00::1", 2)];
    let translation = cluster(Destination::Endpoints(endpoints), None, true, &settings());
    let found = named(&translation, ResourceKind::Cluster, LOCAL);
    assert_eq!(found["eds_cluster_config"]["service_name"], LOCAL);
    let policy = &found["load_balancing_policy"]["policies"][0]["typed_extension_config"]["typed_config"];
    assert_eq!(
        policy["override_host_sources"],
        json!([{"metadata": {"key": "agentic", "path": [{"key": "endpoint"}]}}])
    );
    let options =
        &found["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
    assert!(options["explicit_http_config"]["http2_protocol_options"].is_object());
    let addresses: Vec<_> =
        named(&translation, ResourceKind::Endpoints, LOCAL)["endpoints"][0]["lb_endpoints"]
            .as_array()
            .unwrap()
            .iter()
            .map(|endpoint| endpoint["endpoint"]["address"]["socket_address"].clone())
            .collect();
    assert_eq!(
        addresses,
        [json!({"address": "10.0.0.1", "port_value": 1}), json!({"address": "fd00::1", "port_value": 2})]
    );
    let none = cluster(Destination::Endpoints(Vec::new()), None, false, &settings());
    assert_eq!(*named(&none, ResourceKind::Endpoints, LOCAL), json!({"cluster_name": LOCAL}));
}

/// How the certificate of a backend is verified.
#[track_caller]
fn verified(tls: UpstreamTls, settings: &Settings, sni: &Value, roots: &Value, names: &Value) {
    let to = Destination::Hostname { host: "mcp.example.com".to_owned(), port: 443 };
    let translation = cluster(to, Some(tls), false, settings);
    let context = &named(&translation, ResourceKind::Cluster, LOCAL)["transport_socket"]["typed_config"];
    let validation = &context["common_tls_context"]["validation_context"];
    assert_eq!(context["sni"], *sni);
    assert_eq!(validation["trusted_ca"], *roots);
    assert_eq!(validation["match_typed_subject_alt_names"], *names);
}

#[test]
fn backends_are_verified() {
    let plain = UpstreamTls {
        server_name: "mcp.example.com".to_owned(),
        ca_pem: Vec::new(),
        san_names: Vec::new(),
        san_uris: Vec::new(),
    };
    let system = json!({"filename": "/etc/ssl/certs/ca-certificates.crt"});
    let own_name = json!([{"san_type": "DNS", "matcher": {"exact": "mcp.example.com"}}]);
    verified(plain.clone(), &settings(), &json!("mcp.example.com"), &system, &own_name);
    let more = Settings { extra_roots: "MORE\n".to_owned(), ..settings() };
    verified(plain.clone(), &more, &json!("mcp.example.com"), &json!({"inline_string": "MORE\n"}), &own_name);
    let given = UpstreamTls {
        ca_pem: vec![b"CA".to_vec()],
        san_names: vec!["a.example".to_owned()],
        san_uris: vec!["spiffe://a/b".to_owned()],
        ..plain.clone()
    };
    let names = json!([
        {"san_type": "DNS", "matcher": {"exact": "a.example"}},
        {"san_type": "URI", "matcher": {"exact": "spiffe://a/b"}},
    ]);
    // Roots of the object are not added to others.
    verified(given, &more, &json!("mcp.example.com"), &json!({"inline_string": "CA\n"}), &names);
    let address = UpstreamTls { server_name: "10.0.0.1".to_owned(), ..plain };
    let names = json!([{"san_type": "IP_ADDRESS", "matcher": {"exact": "10.0.0.1"}}]);
    verified(address, &settings(), &Value::Null, &system, &names);
}

#[test]
fn who_resolves_host_names() {
    let to = || Destination::Hostname { host: "mcp.example.com".to_owned(), port: 443 };
    let engine = cluster(to(), None, false, &settings());
    let found = named(&engine, ResourceKind::Cluster, LOCAL);
    assert_eq!(found["type"], "ORIGINAL_DST");
    assert_eq!(
        found["original_dst_lb_config"],
        json!({"metadata_key": {"key": "agentic", "path": [{"key": "endpoint"}]}})
    );
    let policy = Policy::Filters(Filters::default());
    let filters = Settings { policy, ..settings() };
    let dns = cluster(to(), None, false, &filters);
    assert_eq!(named(&dns, ResourceKind::Cluster, LOCAL)["type"], "LOGICAL_DNS");
    let given =
        Resolve { host: "MCP.example.com".to_owned(), port: 443, address: "127.0.0.1:9".parse().unwrap() };
    let fixed = cluster(to(), None, false, &Settings { resolve: vec![given], ..filters });
    let found = named(&fixed, ResourceKind::Cluster, LOCAL);
    assert_eq!(found["type"], "STATIC");
    assert_eq!(
        found["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"],
        json!({"address": "127.0.0.1", "port_value": 9})
    );
}

#[test]
fn authorizers_have_no_cluster_with_the_engine() {
    let snapshot = snapshot();
    let authorizer = BackendId::Service(NamespacedName::new("quickstart-ns", "authz"), 50051);
    assert!(snapshot.backends.contains_key(&authorizer));
    let translation = translate(&snapshot, &settings());
    let clusters: Vec<_> = names(&translation)
        .into_iter()
        .filter(|(kind, _)| *kind == ResourceKind::Cluster)
        .map(|(_, name)| name)
        .collect();
    assert_eq!(
        clusters,
        [
            "processor",
            "service/quickstart-ns/mcp-two-svc:3002",
            LOCAL,
            "xbackend/quickstart-ns/remote-mcp-backend"
        ]
    );
}

/// Of bodies, so much is held that the processor sees one that is just over the limit, and no more.
#[test]
fn bodies_are_held_up_to_a_limit() {
    for (max_body_bytes, expected) in [(0, 65_536), (1 << 20, (1 << 20) + 65_536), (u32::MAX, 0x7FFF_FFFF)] {
        let translation = translate(&snapshot(), &Settings { max_body_bytes, ..settings() });
        let listener = named(&translation, ResourceKind::Listener, "port-10001");
        assert_eq!(listener["per_connection_buffer_limit_bytes"], expected);
        let http2 = &manager(&listener["filter_chains"][0])["http2_protocol_options"];
        assert_eq!(http2["initial_stream_window_size"], expected);
    }
}

/// Whoever decides has to be done before a stream counts as idle.
#[test]
fn deciding_takes_less_than_idling() {
    for (seconds, expected) in [(1, "30s"), (25, "30s"), (60, "65s")] {
        let policy =
            Policy::Engine(Engine { message_timeout: Duration::from_secs(seconds), ..Engine::default() });
        let translation = translate(&snapshot(), &Settings { policy, ..settings() });
        let chain = &named(&translation, ResourceKind::Listener, "port-10001")["filter_chains"][0];
        assert_eq!(manager(chain)["stream_idle_timeout"], expected);
    }
}

#[test]
fn types_of_resources() {
    let urls = ResourceKind::ALL.map(ResourceKind::type_url);
    let messages = [
        "cluster.v3.Cluster",
        "endpoint.v3.ClusterLoadAssignment",
        "listener.v3.Listener",
        "route.v3.RouteConfiguration",
    ];
    let mut expected = messages.map(|name| format!("type.googleapis.com/envoy.config.{name}")).to_vec();
    expected.push("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret".to_owned());
    assert_eq!(urls.to_vec(), expected);
}

#[track_caller]
fn version(text: &str, expected: Option<u8>) {
    assert_eq!(text.parse::<Version>().ok().map(Version::minor), expected, "{text}");
}

#[test]
fn versions() {
    for (text, expected) in [
        ("1.36", Some(36)),
        ("1.36.4", Some(36)),
        ("1.37.1", Some(37)),
        ("1.38.3", Some(38)),
        ("1.39", Some(39)),
        ("1.40.0", Some(40)),
        ("1.37", None),
        ("1.37.0", None),
        ("1.35.9", None),
        ("1.41", None),
        ("2.40", None),
        ("1", None),
        ("1.40.0.1", None),
        ("1.40.x", None),
        ("v1.40", None),
        ("", None),
    ] {
        version(text, expected);
    }
    let error = "1.37.0".parse::<Version>().unwrap_err();
    assert!(error.contains("1.37.0") && error.contains("duplicate keys"), "{error}");
    assert_eq!(Version::NEWEST.to_string(), "1.40");
}

fn objects() -> Vec<Value> {
    let text =
        concat!(include_str!("manifests/seed.yaml"), "---\n", include_str!("manifests/two-gateways.yaml"));
    let documents = serde_yaml_ng::Deserializer::from_str(text);
    documents.map(|document| serde::Deserialize::deserialize(document).unwrap()).collect()
}

fn translated(objects: &[Value], policy: &Policy) -> Vec<Translation> {
    let mut set = Objects::default();
    for object in objects {
        set.insert(object);
    }
    let settings = Settings { policy: policy.clone(), ..settings() };
    resolve(&set, &Options::default())
        .gateways
        .values()
        .map(|snapshot| translate(snapshot, &settings))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The order of objects does not matter, and no two resources of a type have one name.
    #[test]
    fn translations_are_functions_of_the_objects(
        shuffled in Just(objects()).prop_shuffle(),
        filters in any::<bool>(),
    ) {
        let policy = if filters {
            Policy::Filters(Filters { default_action: authz_core::DefaultAction::Deny, ..Filters::default() })
        } else {
            Policy::Engine(Engine::default())
        };
        let translations = translated(&shuffled, &policy);
        prop_assert_eq!(&translations, &translated(&objects(), &policy));
        prop_assert!(!translations.is_empty());
        for Translation { resources, .. } in &translations {
            let unique: BTreeSet<_> = resources.iter().map(|Resource { kind, name, .. }| (kind, name)).collect();
            prop_assert_eq!(unique.len(), resources.len());
        }
    }
}
