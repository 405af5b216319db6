use serde_json::json;
use xds_translate::envoy::ResourceKind;

use super::*;

fn secret(fields: Value) -> envoy::Resource {
    envoy::Resource { kind: ResourceKind::Secret, name: "own".to_owned(), json: fields }
}

#[test]
fn bytes_are_protobufs() {
    let encoded = resource(&secret(json!({"name": "own"}))).unwrap();
    // Field 1, length-delimited, 3 bytes.
    assert_eq!(&*encoded.body, b"\x0a\x03own");
}

#[test]
fn the_version_is_that_of_the_content() {
    let version = |name: &str| resource(&secret(json!({"name": name}))).unwrap().version;
    assert_eq!(version("a"), version("a"));
    assert_ne!(version("a"), version("b"));
}

#[track_caller]
fn refused(fields: Value, expected: &str) {
    let error = resource(&secret(fields)).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn what_envoy_does_not_know_is_an_error() {
    refused(json!({"nome": "own"}), "nome");
    refused(json!({"name": 7}), "`own`");
    refused(json!({"tls_certificate": {"certificate_chain": {"file": "x"}}}), "file");
    let any = json!({"@type": "type.googleapis.com/envoy.no.such.Message"});
    refused(json!({"generic_secret": {"secret": any}}), "@type");
    let unknown = envoy::Resource {
        kind: ResourceKind::Cluster,
        name: "c".to_owned(),
        json: json!({"transport_socket": {"name": "x", "typed_config": any}}),
    };
    assert!(resource(&unknown).unwrap_err().to_string().contains("envoy.no.such.Message"));
}

/// The quickstart as Envoy gets it.
fn quickstart(policy: envoy::Policy) -> envoy::Translation {
    let mut objects = xds_translate::Objects::default();
    for text in [
        include_str!("../../../../examples/quickstart/backends.yaml"),
        include_str!("../../../../examples/quickstart/endpoints.yaml"),
        include_str!("../../../../examples/quickstart/gateway.yaml"),
        include_str!("../../../../examples/quickstart/policies.yaml"),
        include_str!("../../../../examples/quickstart/reference-grant.yaml"),
        include_str!("../../../../examples/quickstart/routes.yaml"),
        include_str!("../../../../examples/quickstart/services.yaml"),
    ] {
        objects.add_yaml("quickstart", text).unwrap();
    }
    let resolution = xds_translate::resolve(&objects, &xds_translate::Options::default());
    let settings = envoy::Settings {
        policy,
        own: Some(envoy::OwnCertificate {
            chain: "/c".to_owned(),
            key: "/k".to_owned(),
            watched: Some("/".to_owned()),
        }),
        bundles: [("cluster.local".to_owned(), "ROOT".to_owned())].into(),
        ..envoy::Settings::default()
    };
    envoy::translate(resolution.gateways.values().next().unwrap(), &settings)
}

fn policies() -> [envoy::Policy; 3] {
    let elsewhere =
        envoy::Processor::Mtls { address: "10.0.0.1:1".parse().unwrap(), id: "spiffe://a/b".to_owned() };
    [
        envoy::Policy::Engine(envoy::Engine::default()),
        envoy::Policy::Engine(envoy::Engine { processor: elsewhere, ..envoy::Engine::default() }),
        envoy::Policy::Filters(envoy::Filters {
            max_connection: Some(std::time::Duration::from_secs(60)),
            ..envoy::Filters::default()
        }),
    ]
}

/// There is a definition of all that a translation holds, and what is decoded is what was meant.
#[test]
fn translations_are_encoded_whole() {
    for policy in policies() {
        let translation = quickstart(policy);
        assert!(translation.resources.len() > 5);
        for resource in &translation.resources {
            let meant = message(resource.kind.type_url(), &resource.json).unwrap();
            let definition = definition(resource.kind.type_url()).unwrap();
            let decoded = DynamicMessage::decode(definition, meant.encode_to_vec().as_slice()).unwrap();
            assert_eq!(serde_json::to_value(&decoded).unwrap(), serde_json::to_value(&meant).unwrap());
        }
    }
}

/// As others read it who have Envoy's definitions by another way.
#[test]
fn others_read_the_bytes() {
    use envoy_types::pb::envoy::{
        config::{
            cluster::v3::{Cluster, cluster::ClusterDiscoveryType, cluster::DiscoveryType},
            listener::v3::{Listener, filter::ConfigType},
        },
        extensions::{
            filters::{
                http::ext_proc::v3::{ExternalProcessor, processing_mode::BodySendMode},
                network::http_connection_manager::v3::{
                    HttpConnectionManager, http_filter::ConfigType as HttpConfigType,
                },
            },
            transport_sockets::tls::v3::{Secret, secret},
        },
    };
    let translation = quickstart(envoy::Policy::Engine(envoy::Engine::default()));
    let bytes = |kind: ResourceKind, name: &str| {
        let found = translation.resources.iter().find(|found| found.kind == kind && found.name == name);
        resource(found.unwrap()).unwrap().body
    };
    let cluster = "xbackend/quickstart-ns/remote-mcp-backend";
    let cluster = Cluster::decode(bytes(ResourceKind::Cluster, cluster)).unwrap();
    assert_eq!(cluster.name, "xbackend/quickstart-ns/remote-mcp-backend");
    assert_eq!(cluster.connect_timeout.unwrap().seconds, 5);
    assert_eq!(
        cluster.cluster_discovery_type,
        Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst.into()))
    );

    let Some(secret::Type::TlsCertificate(own)) =
        Secret::decode(bytes(ResourceKind::Secret, "own")).unwrap().r#type
    else {
        panic!("no certificate");
    };
    assert_eq!(own.watched_directory.unwrap().path, "/");

    let listener = Listener::decode(bytes(ResourceKind::Listener, "port-10001")).unwrap();
    let Some(ConfigType::TypedConfig(manager)) = listener.filter_chains[0].filters[0].config_type.clone()
    else {
        panic!("no filter");
    };
    let manager = HttpConnectionManager::decode(manager.value.as_slice()).unwrap();
    let Some(HttpConfigType::TypedConfig(processor)) = manager.http_filters[1].config_type.clone() else {
        panic!("no filter");
    };
    let processor = ExternalProcessor::decode(processor.value.as_slice()).unwrap();
    assert!(!processor.failure_mode_allow && processor.allow_mode_override);
    assert_eq!(processor.message_timeout.unwrap().seconds, 10);
    let mode = processor.processing_mode.unwrap();
    assert_eq!(mode.request_body_mode, i32::from(BodySendMode::None));
}
