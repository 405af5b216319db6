//! Objects cut down to what is read of them.
use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, Namespace, Secret, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{
    objects::kind::{self, Kind, Recognized},
    resolve::SERVICE_NAME_LABEL,
};

/// What an API server or a client writes into metadata that is not read here.
const NOT_READ: [&str; 10] = [
    "annotations",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "labels",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
];

/// See [`reduce`](super::reduce).
pub(super) fn reduce(object: &Value) -> Value {
    let Ok(Recognized::Kind(kind)) = kind::recognize(object) else { return object.clone() };
    match kind {
        Kind::GatewayClass
        | Kind::Gateway
        | Kind::HttpRoute
        | Kind::ReferenceGrant
        | Kind::BackendTlsPolicy
        | Kind::XBackend(_)
        | Kind::XAccessPolicy(_) => custom(object),
        Kind::Service => built_in::<Service>(object, &[], |fields| service(fields.get("spec"))),
        Kind::EndpointSlice => built_in::<EndpointSlice>(object, &[SERVICE_NAME_LABEL], slice),
        Kind::Secret => built_in::<Secret>(object, &[], |fields| {
            data(fields, &["data", "stringData"], &["tls.crt", "tls.key"])
        }),
        Kind::ConfigMap => {
            built_in::<ConfigMap>(object, &[], |fields| data(fields, &["data", "binaryData"], &["ca.crt"]))
        }
        Kind::Namespace => {
            let mut reduced = built_in::<Namespace>(object, &[], |_| Map::new());
            if let (Some(metadata), Some(labels)) = (
                reduced.get_mut("metadata").and_then(Value::as_object_mut),
                object.pointer("/metadata/labels"),
            ) {
                metadata.insert("labels".to_owned(), labels.clone());
            }
            reduced
        }
    }
}

/// A kind of a CRD: all of it but its status, which is never read.
fn custom(object: &Value) -> Value {
    let Some(fields) = object.as_object() else { return object.clone() };
    let kept = fields.iter().filter(|(name, _)| name.as_str() != "status");
    let reduced = kept.map(|(name, value)| match name.as_str() {
        "metadata" => (name.clone(), metadata(value)),
        _ => (name.clone(), value.clone()),
    });
    reduced.collect()
}

/// Metadata that can be read, without what is not read. What cannot stays as it is: it makes the object unreadable.
fn metadata(metadata: &Value) -> Value {
    match metadata {
        Value::Object(fields) if reads::<ObjectMeta>(metadata) => {
            let kept = fields.iter().filter(|(name, _)| !NOT_READ.contains(&name.as_str()));
            kept.map(|(name, value)| (name.clone(), value.clone())).collect()
        }
        unread => unread.clone(),
    }
}

/// A kind of Kubernetes' own. One that cannot be read as a whole is left as it is.
fn built_in<K: DeserializeOwned>(
    object: &Value,
    labels: &[&str],
    contents: impl FnOnce(&Map<String, Value>) -> Map<String, Value>,
) -> Value {
    let Some(fields) = object.as_object().filter(|_| reads::<K>(object)) else { return object.clone() };
    let mut reduced = pick(fields, &["apiVersion", "kind"]);
    if let Some(Value::Object(from)) = fields.get("metadata") {
        let mut metadata = pick(from, &["name", "namespace", "uid", "creationTimestamp"]);
        if let Some(Value::Object(all)) = from.get("labels") {
            let kept = pick(all, labels);
            if !kept.is_empty() {
                metadata.insert("labels".to_owned(), kept.into());
            }
        }
        reduced.insert("metadata".to_owned(), metadata.into());
    }
    reduced.extend(contents(fields));
    reduced.into()
}

fn reads<T: DeserializeOwned>(value: &Value) -> bool {
    T::deserialize(value).is_ok()
}

/// Some fields, where they are.
fn pick(fields: &Map<String, Value>, names: &[&str]) -> Map<String, Value> {
    let found = names.iter().filter_map(|name| Some(((*name).to_owned(), fields.get(*name)?.clone())));
    found.collect()
}

/// The fields of each object of a list.
fn pick_each(list: Option<&Value>, names: &[&str]) -> Value {
    let items = list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object);
    items.map(|item| Value::from(pick(item, names))).collect()
}

fn service(spec: Option<&Value>) -> Map<String, Value> {
    let mut reduced = Map::new();
    if let Some(Value::Object(spec)) = spec {
        let mut kept = pick(spec, &["type"]);
        kept.insert(
            "ports".to_owned(),
            pick_each(spec.get("ports"), &["name", "port", "protocol", "appProtocol"]),
        );
        reduced.insert("spec".to_owned(), kept.into());
    }
    reduced
}

/// Addresses that are ready, and ports.
fn slice(fields: &Map<String, Value>) -> Map<String, Value> {
    let mut reduced = pick(fields, &["addressType"]);
    reduced.insert("ports".to_owned(), pick_each(fields.get("ports"), &["name", "port", "protocol"]));
    let endpoints = fields.get("endpoints").and_then(Value::as_array).into_iter().flatten();
    let is_ready =
        |endpoint: &&Value| endpoint.pointer("/conditions/ready").and_then(Value::as_bool).unwrap_or(true);
    let endpoints = endpoints.filter(is_ready).filter_map(Value::as_object);
    let endpoints: Value = endpoints.map(|endpoint| Value::from(pick(endpoint, &["addresses"]))).collect();
    reduced.insert("endpoints".to_owned(), endpoints);
    reduced
}

/// Some keys of a Secret or ConfigMap.
fn data(fields: &Map<String, Value>, maps: &[&str], keys: &[&str]) -> Map<String, Value> {
    let found = maps.iter().filter_map(|name| {
        let kept = pick(fields.get(*name)?.as_object()?, keys);
        Some(((*name).to_owned(), kept.into()))
    });
    found.collect()
}
