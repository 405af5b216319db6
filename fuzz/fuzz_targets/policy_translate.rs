//! Manifests as YAML, on top of a Gateway and its backends, on their way to a data plane: what is sent to our own, resolved
//! there, is what was resolved here; what is sent to Envoy, decided by the engine or by Envoy's own filters, is as Envoy's
//! definitions have it, and decodes to what was meant.
#![no_main]

#[path = "../support/cel_parser.rs"]
mod cel_parser;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::LazyLock,
};

use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde::Deserialize as _;
use serde_json::Value;
use xds_translate::{
    Objects, Options, Snapshot,
    envoy::{Engine, Filters, OwnCertificate, Policy, Processor, Settings, bootstrap, translate},
    native, resolve,
};

const BASE: &str = include_str!("../../gateway-bin/tests/cases/base.yaml");

/// What the controller encodes by.
static DEFINITIONS: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let bytes = include_bytes!("../../controller-bin/src/envoy/descriptors.binpb");
    DescriptorPool::decode(bytes.as_slice()).expect("definitions")
});

static SETTINGS: LazyLock<[Settings; 4]> = LazyLock::new(|| {
    let elsewhere = Processor::Mtls {
        address: (IpAddr::from([10, 0, 0, 1]), 1).into(),
        id: "spiffe://cluster.local/ns/a/sa/b".to_owned(),
    };
    let deny = authz_core::DefaultAction::Deny;
    [
        (Policy::Engine(Engine::default()), true),
        (Policy::Engine(Engine { processor: elsewhere, ..Engine::default() }), false),
        (Policy::Filters(Filters::default()), true),
        (Policy::Filters(Filters { default_action: deny, ..Filters::default() }), false),
    ]
    .map(|(policy, has_identity)| Settings {
        policy,
        own: has_identity.then(|| OwnCertificate {
            chain: "/run/id/credential-bundle.pem".to_owned(),
            key: "/run/id/credential-bundle.pem".to_owned(),
            watched: Some("/run/id".to_owned()),
        }),
        bundles: [("cluster.local".to_owned(), "ROOT\n".to_owned())].into(),
        ..Settings::default()
    })
});

thread_local! {
    static OBJECTS: RefCell<Objects> = RefCell::new(base());
}

fn base() -> Objects {
    let mut objects = Objects::default();
    assert_eq!(objects.add_yaml("base", BASE).expect("the base is valid"), Vec::<String>::new());
    objects
}

fuzz_target!(init: cel_parser::forgive(), |bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut objects = OBJECTS.with_borrow(Objects::clone);
    if let Err(error) = objects.add_yaml("fuzz", text) {
        return assert!(!error.to_string().is_empty());
    }
    // One of them each time: translating and encoding is what takes the time here.
    let settings = &SETTINGS[text.len() % SETTINGS.len()];
    let resolution = resolve(&objects, &Options::default());
    for snapshot in resolution.gateways.values() {
        is_envoys(snapshot, settings);
    }
    as_sent(text, settings);
});

/// What our own data plane is sent, resolved there, configures an Envoy as what is here does.
fn as_sent(text: &str, settings: &Settings) {
    let mut objects = BTreeMap::new();
    for document in [BASE, text].into_iter().flat_map(serde_yaml_ng::Deserializer::from_str) {
        let Ok(object) = Value::deserialize(document) else { return };
        if let Some(name) = native::object_ref(&object) {
            objects.insert(name, object);
        }
    }
    let set = |objects: &mut dyn Iterator<Item = Value>| {
        let mut set = Objects::default();
        for object in objects {
            set.insert(&object);
        }
        set
    };
    let options = Options::default();
    let all = set(&mut objects.values().cloned());
    let resolution = resolve(&all, &options);
    let selector = native::Selector::new(&all, &options);
    for (gateway, here) in &resolution.gateways {
        let selected = selector.select(gateway);
        let there = resolve(&set(&mut selected.iter().map(|name| sent(&objects[name]))), &options);
        let there = &there.gateways[gateway];
        assert_eq!(there.listeners, here.listeners);
        assert_eq!(translate(there, settings), translate(here, settings));
    }
}

fn sent(object: &Value) -> Value {
    let bytes = native::Object::new(object).encode_to_vec();
    let object = native::Object::decode(bytes.as_slice()).expect("what was encoded");
    object.value().expect("JSON")
}

fn is_envoys(snapshot: &Snapshot, settings: &Settings) {
    let translation = translate(snapshot, settings);
    let mut seen = BTreeSet::new();
    for resource in &translation.resources {
        assert!(seen.insert((resource.kind, &resource.name)), "two resources `{}`", resource.name);
        let name = resource.kind.type_url().rsplit('/').next().expect("a name");
        let definition = DEFINITIONS.get_message_by_name(name).expect("a definition");
        let meant = DynamicMessage::deserialize(definition.clone(), &resource.json)
            .unwrap_or_else(|error| panic!("`{}`: {error}: {:#}", resource.name, resource.json));
        let sent = meant.encode_to_vec();
        let decoded = DynamicMessage::decode(definition, sent.as_slice()).expect("what was encoded");
        let json = |message: &DynamicMessage| serde_json::to_value(message).expect("JSON");
        assert_eq!(json(&decoded), json(&meant));
    }
    for status in &translation.refused {
        assert!(!status.is_accepted());
    }
    for unserved in &translation.unserved {
        assert!(!unserved.reason.is_empty());
    }
    assert!(nothing_to_discover(&bootstrap(&translation, "127.0.0.1:15000")));
}

/// A bootstrap is all that Envoy gets where nothing is discovered.
fn nothing_to_discover(bootstrap: &Value) -> bool {
    match bootstrap {
        Value::Array(items) => items.iter().all(nothing_to_discover),
        Value::Object(fields) => fields.iter().all(|(name, value)| {
            !matches!(name.as_str(), "rds" | "eds_cluster_config" | "sds_config")
                && nothing_to_discover(value)
        }),
        _ => true,
    }
}
