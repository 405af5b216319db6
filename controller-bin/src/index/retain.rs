//! What is kept of an object as it was given: no more than statuses need, since there may be very many.
use serde_json::{Map, Value, json};
use xds_translate::ObjectRef;

/// Group of EndpointSlices.
pub(super) const SLICE_GROUP: &str = "discovery.k8s.io";
/// Kind of EndpointSlices.
pub(super) const SLICE: &str = "EndpointSlice";
const SERVICE_NAME: &str = "/metadata/labels/kubernetes.io~1service-name";
/// What the names of all proxies begin with.
const PROXIES: &str = "envoy-proxy-";
/// How large a ConfigMap with parameters may be, in bytes of JSON: of larger ones nothing is kept.
pub(super) const PARAMETERS: usize = 8 * 1024;

/// What is kept, if anything.
pub(super) fn given(reference: &ObjectRef, object: &Value) -> Option<Value> {
    match reference.kind.as_str() {
        "GatewayClass" | "Gateway" => {
            let mut object = object.clone();
            if let Some(metadata) = object.pointer_mut("/metadata").and_then(Value::as_object_mut) {
                metadata.remove("managedFields");
            }
            Some(object)
        }
        "HTTPRoute" | "BackendTLSPolicy" | "XAccessPolicy" | "XBackend" => {
            let mut kept = Map::new();
            for field in ["apiVersion", "kind", "status"] {
                kept.extend(object.get(field).map(|value| (field.to_owned(), value.clone())));
            }
            let metadata = object.get("metadata")?.as_object()?;
            let fields = [
                "name",
                "namespace",
                "uid",
                "generation",
                "resourceVersion",
                "deletionTimestamp",
                "finalizers",
            ];
            let metadata = metadata.iter().filter(|(field, _)| fields.contains(&field.as_str()));
            let metadata = metadata.map(|(field, value)| (field.clone(), value.clone())).collect();
            kept.insert("metadata".to_owned(), Value::Object(metadata));
            Some(Value::Object(kept))
        }
        "Service" if reference.name.starts_with(PROXIES) => {
            let balancer = object.pointer("/status/loadBalancer")?;
            Some(json!({"status": {"loadBalancer": balancer}}))
        }
        "ConfigMap" => {
            let mut object = object.clone();
            let fields = object.as_object_mut()?;
            fields.retain(|field, _| matches!(field.as_str(), "data" | "binaryData"));
            let is_small = object.to_string().len() <= PARAMETERS;
            Some(if is_small { object } else { Value::Null })
        }
        SLICE if service(object)?.starts_with(PROXIES) => {
            let labels = object.pointer("/metadata/labels");
            Some(json!({"metadata": {"labels": labels}, "endpoints": object.get("endpoints")}))
        }
        _ => None,
    }
}

fn service(slice: &Value) -> Option<&str> {
    slice.pointer(SERVICE_NAME)?.as_str()
}

/// Whether an EndpointSlice is of that Service and has an endpoint that is ready; one that does not say so is.
pub(super) fn has_ready_endpoint(slice: &Value, of: &str) -> bool {
    let endpoints = slice.get("endpoints").and_then(Value::as_array);
    let ready = |endpoint: &Value| endpoint.pointer("/conditions/ready") != Some(&Value::Bool(false));
    service(slice) == Some(of) && endpoints.is_some_and(|endpoints| endpoints.iter().any(ready))
}
