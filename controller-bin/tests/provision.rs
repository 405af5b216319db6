//! What runs for a Gateway, against a reviewed file, and what must hold whatever the Gateway.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "clippy knows the functions of tests, not what they share"
)]
use std::collections::BTreeMap;

use agentic_controller::{
    identity::SIGNER,
    provision::{
        ALONE, ALONE_CONNECTION, DataPlane, Envoy, EnvoyImage, EnvoyPolicy, Proxy, Settings, gateway_label,
        objects, proxy_name,
    },
};
use policy_model::NamespacedName;
use proptest::prelude::*;
use serde::Deserialize as _;
use serde_json::{Value, json};

fn settings() -> Settings {
    Settings {
        gateway_image: "ghcr.io/agentic-access/agentic-gateway:0.1.0".to_owned(),
        envoy_image: EnvoyImage::read("docker.io/envoyproxy/envoy:distroless-v1.40.0", None).unwrap(),
        xds_host: "agentic-controller.agentic-net-system.svc".to_owned(),
        xds_port: 15010,
        xds_server_id: "spiffe://cluster.local/ns/agentic-net-system/sa/agentic-controller".to_owned(),
        trust_domain: "cluster.local".to_owned(),
        signer: SIGNER.to_owned(),
        flags: vec!["--default-action=deny".to_owned()],
    }
}

fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn proxy() -> Proxy {
    Proxy {
        gateway: NamespacedName::new("team-a", "front"),
        uid: "6f1c2b1e-0000-4000-8000-000000000001".to_owned(),
        labels: map(&[("team", "a")]),
        annotations: map(&[("example.com/load-balancer", "internal")]),
        ports: vec![443, 10001],
        data_plane: DataPlane::Native,
        image: None,
        replicas: 2,
        flags: vec!["--filter-lists".to_owned(), "--max-body-bytes=65536".to_owned()],
    }
}

const APPLIED: &str = "agentic.networking.x-k8s.io/applied";

fn of_kind<'o>(objects: &'o [Value], kind: &str) -> &'o Value {
    objects.iter().find(|object| object["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

#[test]
fn the_reviewed_objects() {
    let golden: Vec<Value> = serde_yaml_ng::Deserializer::from_str(include_str!("golden/proxy.yaml"))
        .map(|document| Value::deserialize(document).unwrap())
        .collect();
    let mut made = objects(&proxy(), &settings());
    for object in &mut made {
        let annotations = object["metadata"]["annotations"].as_object_mut().unwrap();
        let applied = annotations.remove(APPLIED).unwrap();
        assert_eq!(applied.as_str().map(str::len), Some(16));
    }
    assert_eq!(made.len(), golden.len());
    for (made, golden) in made.iter().zip(&golden) {
        assert_eq!(made, golden, "\n{}", serde_yaml_ng::to_string(made).unwrap());
    }
}

/// Expected: `printf 'NS/NAME' | sha256sum | cut -c1-12`.
#[track_caller]
fn named(namespace: &str, name: &str, expected: &str) {
    assert_eq!(proxy_name(&NamespacedName::new(namespace, name)), expected);
}

#[test]
fn names_are_upstreams() {
    named("quickstart-ns", "agentic-net-gateway", "envoy-proxy-3e11a0abd055");
    named("ns", "gw", "envoy-proxy-057713b22de2");
    named("team-a", "front", "envoy-proxy-33f1e84483e3");
}

#[track_caller]
fn labelled(name: &str, expected: &str) {
    assert_eq!(gateway_label(&NamespacedName::new("ns", name)), expected);
}

#[test]
fn long_names_fit_into_a_label() {
    labelled("front", "front");
    let longest = "a".repeat(63);
    labelled(&longest, &longest);
    // printf 'a%.0s' {1..64} | sha256sum | cut -c1-12
    labelled(&"a".repeat(64), &format!("{}-ffe054fe7ae0", "a".repeat(50)));
    // The part before the hash does not end with a dot: printf '%s.b...' | sha256sum
    let dotted = format!("{}.{}", "a".repeat(49), "b".repeat(20));
    let label = gateway_label(&NamespacedName::new("ns", &dotted));
    assert!(label.starts_with(&format!("{}-", "a".repeat(49))) && label.len() == 49 + 1 + 12, "{label}");
}

#[test]
fn ours_win_over_infrastructure() {
    let taken = Proxy {
        labels: map(&[
            ("gateway.networking.k8s.io/gateway-name", "other"),
            ("agentic.networking.x-k8s.io/proxy", "other"),
            ("app.kubernetes.io/managed-by", "other"),
            ("mine", "kept"),
        ]),
        annotations: map(&[
            (APPLIED, "x"),
            ("agentic.networking.x-k8s.io/configuration", "x"),
            ("mine", "kept"),
        ]),
        ..proxy()
    };
    for object in objects(&taken, &settings()) {
        let pod = &object["spec"]["template"]["metadata"];
        for metadata in [&object["metadata"], pod].into_iter().filter(|metadata| !metadata.is_null()) {
            let labels = &metadata["labels"];
            assert_eq!(labels["gateway.networking.k8s.io/gateway-name"], "front");
            assert_eq!(labels["agentic.networking.x-k8s.io/proxy"], "envoy-proxy-33f1e84483e3");
            assert_eq!(labels["app.kubernetes.io/managed-by"], "agentic-controller");
            assert_eq!(labels["mine"], "kept");
            assert_eq!(metadata["annotations"]["mine"], "kept");
        }
        assert_ne!(object["metadata"]["annotations"][APPLIED], "x");
        if !pod.is_null() {
            assert_ne!(pod["annotations"]["agentic.networking.x-k8s.io/configuration"], "x");
        }
    }
}

#[test]
fn probes_and_admin_stay_out_of_the_listeners_way() {
    let busy = Proxy { ports: vec![80, 15000, 15021, 15022], ..proxy() };
    let made = objects(&busy, &settings());
    let container = &of_kind(&made, "Deployment")["spec"]["template"]["spec"]["containers"][0];
    let args: Vec<&str> = container["args"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(args.contains(&"--health-addr=0.0.0.0:15023"), "{args:?}");
    assert!(args.contains(&"--admin-addr=127.0.0.1:15001"), "{args:?}");
    assert_eq!(container["ports"][0]["containerPort"], 15023);
}

#[test]
fn without_ports_there_is_no_service() {
    let made = objects(&Proxy { ports: Vec::new(), ..proxy() }, &settings());
    let kinds: Vec<&str> = made.iter().filter_map(|object| object["kind"].as_str()).collect();
    assert_eq!(kinds, ["ServiceAccount", "ConfigMap", "Deployment", "PodDisruptionBudget"]);
}

/// Listeners come and go, and Pods keep running: a port is no reason for a rollout.
#[test]
fn a_port_is_not_a_rollout_and_a_setting_is_one() {
    let template =
        |proxy: &Proxy| of_kind(&objects(proxy, &settings()), "Deployment")["spec"]["template"].clone();
    let before = template(&proxy());
    assert_eq!(before, template(&Proxy { ports: vec![80, 443], ..proxy() }));
    assert_eq!(before, template(&Proxy { replicas: 5, ..proxy() }));
    assert_ne!(before, template(&Proxy { image: Some("g:2".to_owned()), ..proxy() }));
    let mut flags = proxy().flags;
    flags.push("--log=debug".to_owned());
    assert_ne!(before, template(&Proxy { flags, ..proxy() }));
    // A value alone: the variables have the same names.
    let flags = vec!["--filter-lists".to_owned(), "--max-body-bytes=1024".to_owned()];
    assert_ne!(before, template(&Proxy { flags, ..proxy() }));
}

fn any_proxy() -> impl Strategy<Value = Proxy> {
    let entries = || prop::collection::btree_map("[a-z]{1,8}(/[a-z]{1,8})?", "[a-z0-9]{0,8}", 0..3);
    (
        entries(),
        entries(),
        prop::collection::btree_set(1..=u16::MAX, 0..5),
        prop::option::of("[a-z]{1,8}:[0-9]{1,3}"),
        1..=100_u32,
        prop::collection::vec(
            prop_oneof![Just("--filter-lists".to_owned()), Just("--log=debug".to_owned())],
            0..2,
        ),
    )
        .prop_map(|(labels, annotations, ports, image, replicas, flags)| Proxy {
            labels,
            annotations,
            ports: ports.into_iter().collect(),
            image,
            replicas,
            flags,
            ..proxy()
        })
}

proptest! {
    #[test]
    fn whatever_changes_the_selector_does_not(one in any_proxy()) {
        let made = objects(&one, &settings());
        prop_assert_eq!(&made, &objects(&one, &settings()));
        let selector = json!({"agentic.networking.x-k8s.io/proxy": "envoy-proxy-33f1e84483e3"});
        let deployment = of_kind(&made, "Deployment");
        prop_assert_eq!(&deployment["spec"]["selector"], &json!({"matchLabels": selector}));
        prop_assert_eq!(&of_kind(&made, "PodDisruptionBudget")["spec"]["selector"], &json!({"matchLabels": selector}));
        let labels = &deployment["spec"]["template"]["metadata"]["labels"];
        prop_assert_eq!(&labels["agentic.networking.x-k8s.io/proxy"], "envoy-proxy-33f1e84483e3");
        for object in &made {
            prop_assert_eq!(&object["metadata"]["name"], "envoy-proxy-33f1e84483e3");
            prop_assert_eq!(&object["metadata"]["namespace"], "team-a");
            prop_assert_eq!(&object["metadata"]["ownerReferences"][0]["uid"], "6f1c2b1e-0000-4000-8000-000000000001");
            prop_assert!(object["metadata"].get("finalizers").is_none());
        }
    }
}

fn with_envoy() -> Proxy {
    let image = EnvoyImage::read("registry.example/envoy:v1.38.3", None).unwrap();
    Proxy {
        data_plane: DataPlane::Envoy(Envoy { image: Some(image), policy: EnvoyPolicy::Engine }),
        ..proxy()
    }
}

#[test]
fn envoy_beside_the_engine() {
    let golden: Value = serde_yaml_ng::from_str(include_str!("golden/envoy.yaml")).unwrap();
    let made = objects(&with_envoy(), &settings());
    let spec = &of_kind(&made, "Deployment")["spec"]["template"]["spec"];
    for part in ["containers", "volumes"] {
        assert_eq!(spec[part], golden[part], "\n{}", serde_yaml_ng::to_string(&spec[part]).unwrap());
    }
    // Everything else is as it is with our own gateway: the data plane is changed in place.
    let rest = |objects: &[Value]| {
        let mut deployment = of_kind(objects, "Deployment").clone();
        let template = deployment["spec"]["template"].as_object_mut().unwrap();
        let spec = template["spec"].as_object_mut().unwrap();
        spec.retain(|field, _| !["containers", "volumes"].contains(&field.as_str()));
        template.remove("metadata");
        deployment["spec"].clone()
    };
    let native = objects(&proxy(), &settings());
    assert_eq!(rest(&made), rest(&native));
    for kind in ["ServiceAccount", "PodDisruptionBudget", "Service"] {
        assert_eq!(of_kind(&made, kind)["spec"], of_kind(&native, kind)["spec"]);
    }
    // What only one of them needs goes with it.
    let keys = |objects: &[Value]| -> Vec<String> {
        of_kind(objects, "ConfigMap")["data"].as_object().unwrap().keys().cloned().collect()
    };
    let variables = ["AGENTIC_GATEWAY_FILTER_LISTS", "AGENTIC_GATEWAY_MAX_BODY_BYTES"];
    assert_eq!(keys(&native), variables);
    assert_eq!(keys(&made), [&variables[..], &["certificate.json", "envoy.json", "roots.json"]].concat());
}

/// A file of the ConfigMap.
fn file(proxy: &Proxy, name: &str) -> Value {
    let made = objects(proxy, &settings());
    serde_json::from_str(of_kind(&made, "ConfigMap")["data"][name].as_str().unwrap()).unwrap()
}

#[test]
fn envoy_takes_its_configuration_from_the_controller_alone() {
    let bootstrap = file(&with_envoy(), "envoy.json");
    let ads = &bootstrap["dynamic_resources"];
    assert_eq!(ads["ads_config"]["api_type"], "DELTA_GRPC");
    let name = &ads["ads_config"]["grpc_services"][0]["envoy_grpc"]["cluster_name"];
    let clusters = bootstrap["static_resources"]["clusters"].as_array().unwrap();
    let controller = clusters.iter().find(|cluster| cluster["name"] == *name).unwrap();
    let address = &controller["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"];
    let address = &address["socket_address"];
    assert_eq!(address["address"], "agentic-controller.agentic-net-system.svc");
    assert_eq!(address["port_value"], 15010);
    let tls = &controller["transport_socket"]["typed_config"]["common_tls_context"];
    // The controller's server speaks nothing older.
    assert_eq!(tls["tls_params"]["tls_maximum_protocol_version"], "TLSv1_3");
    let path =
        |source: &Value| source["sds_config"]["path_config_source"]["path"].as_str().unwrap().to_owned();
    assert_eq!(path(&tls["tls_certificate_sds_secret_configs"][0]), "/etc/envoy/certificate.json");
    assert_eq!(path(&tls["validation_context_sds_secret_config"]), "/etc/envoy/roots.json");
    let watched = json!({"path": "/run/gateway-identity-mtls"});
    let roots = &file(&with_envoy(), "roots.json")["resources"][0]["validation_context"];
    assert_eq!(roots["trusted_ca"]["filename"], "/run/gateway-identity-mtls/cluster.local.trust-bundle.pem");
    assert_eq!(roots["watched_directory"], watched);
    let id = "spiffe://cluster.local/ns/agentic-net-system/sa/agentic-controller";
    let only = json!([{"san_type": "URI", "matcher": {"exact": id}}]);
    assert_eq!(roots["match_typed_subject_alt_names"], only);
    let certificate = &file(&with_envoy(), "certificate.json")["resources"][0]["tls_certificate"];
    assert_eq!(certificate["watched_directory"], watched);
    let bundle = json!({"filename": "/run/gateway-identity-mtls/credential-bundle.pem"});
    assert_eq!((&certificate["certificate_chain"], &certificate["private_key"]), (&bundle, &bundle));
}

#[test]
fn of_envoys_own_pages_a_pod_shows_whether_it_serves() {
    let busy = Proxy { ports: vec![15000, 15001, 15021, 15022, 15023], ..with_envoy() };
    let bootstrap = file(&busy, "envoy.json");
    let address = |of: &Value| {
        let address = &of["address"]["socket_address"];
        (address["address"].as_str().unwrap().to_owned(), address["port_value"].as_u64().unwrap())
    };
    assert_eq!(address(&bootstrap["admin"]), ("127.0.0.1".to_owned(), 15003));
    let probes = &bootstrap["static_resources"]["listeners"][0];
    assert_eq!(address(probes), ("0.0.0.0".to_owned(), 15025));
    let http = &probes["filter_chains"][0]["filters"][0]["typed_config"];
    let routes = http["route_config"]["virtual_hosts"][0]["routes"].as_array().unwrap();
    let to_admin: Vec<_> = routes.iter().filter(|route| route.get("route").is_some()).collect();
    assert_eq!(to_admin.len(), 1);
    assert_eq!(to_admin[0]["match"], json!({"path": "/ready"}));
    let made = objects(&busy, &settings());
    let containers = &of_kind(&made, "Deployment")["spec"]["template"]["spec"]["containers"];
    assert_eq!(containers[0]["ports"][0]["containerPort"], 15025);
    assert_eq!(containers[1]["ports"][0]["containerPort"], 15024);
}

#[test]
fn the_controllers_image_of_envoy_and_the_classs_log_level() {
    let mut proxy = with_envoy();
    proxy.data_plane = DataPlane::Envoy(Envoy { image: None, policy: EnvoyPolicy::Engine });
    proxy.flags.push("--log=debug".to_owned());
    let made = objects(&proxy, &settings());
    let envoy = &of_kind(&made, "Deployment")["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(envoy["image"], "docker.io/envoyproxy/envoy:distroless-v1.40.0");
    let args: Vec<&str> = envoy["args"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(args.windows(2).any(|pair| pair == ["--log-level", "debug"]), "{args:?}");
}

fn alone() -> Proxy {
    Proxy { data_plane: DataPlane::Envoy(Envoy { image: None, policy: EnvoyPolicy::Filters }), ..proxy() }
}

#[test]
fn envoy_alone() {
    let golden: Value = serde_yaml_ng::from_str(include_str!("golden/alone.yaml")).unwrap();
    let made = objects(&alone(), &settings());
    let spec = &of_kind(&made, "Deployment")["spec"]["template"]["spec"];
    for part in ["containers", "volumes"] {
        assert_eq!(spec[part], golden[part], "\n{}", serde_yaml_ng::to_string(&spec[part]).unwrap());
    }
    // Longer than any connection: nobody has it end its requests.
    let seconds = |value: &Value| value.as_u64().unwrap();
    let pause = seconds(&spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]);
    assert!(pause > ALONE_CONNECTION.as_secs(), "{pause}");
    assert!(seconds(&spec["terminationGracePeriodSeconds"]) > pause);
    // The selector, the account and the Service stay: the data plane is changed in place.
    let native = objects(&proxy(), &settings());
    assert_eq!(
        of_kind(&made, "Deployment")["spec"]["selector"],
        of_kind(&native, "Deployment")["spec"]["selector"]
    );
    assert_eq!(spec["serviceAccountName"], "envoy-proxy-33f1e84483e3");
    for kind in ["ServiceAccount", "PodDisruptionBudget", "Service"] {
        assert_eq!(of_kind(&made, kind)["spec"], of_kind(&native, kind)["spec"]);
    }
    assert_eq!(file(&alone(), "envoy.json")["node"]["cluster"], ALONE);
    assert_ne!(file(&with_envoy(), "envoy.json")["node"]["cluster"], ALONE);
    // It hears of settings by discovery: none of them is a rollout.
    let map = of_kind(&made, "ConfigMap")["data"].as_object().unwrap();
    assert_eq!(map.keys().collect::<Vec<_>>(), ["certificate.json", "envoy.json", "roots.json"]);
    let other = Proxy { flags: vec!["--max-body-bytes=1024".to_owned()], ..alone() };
    let template =
        |proxy: &Proxy| of_kind(&objects(proxy, &settings()), "Deployment")["spec"]["template"].clone();
    assert_eq!(template(&alone()), template(&other));
}
