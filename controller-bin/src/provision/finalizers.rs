//! Finalizers that the other implementation of this API leaves behind.
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use serde_json::{Value, json};

use super::{FIELD_MANAGER, apply::describe};

/// Upstream's finalizers. Whoever changes from upstream's controller to this one has them on objects whose deletion nobody
/// would ever finish.
const FINALIZERS: [&str; 3] = [
    "kube-agentic-networking.sigs.k8s.io/gatewayclass-finalizer",
    "kube-agentic-networking.sigs.k8s.io/gateway-finalizer",
    "kube-agentic-networking.sigs.k8s.io/xbackend-finalizer",
];

/// Removes upstream's finalizers from a GatewayClass, Gateway or XBackend, given as it was seen. Whether it had any. This
/// matters most for objects that are being deleted, and is cheap to ask for any other.
///
/// # Errors
/// For people: which object, and what the API server said; a change in between is one (look again, and ask again).
pub async fn release(client: &kube::Client, object: &Value) -> Result<bool, String> {
    let Some(patch) = patch(object) else { return Ok(false) };
    let text = |at: &str| object.pointer(at).and_then(Value::as_str).unwrap_or_default();
    let (group, version) = text("/apiVersion").split_once('/').unwrap_or(("", text("/apiVersion")));
    let kind = text("/kind");
    let plural = match kind {
        "GatewayClass" => "gatewayclasses",
        "Gateway" => "gateways",
        "XBackend" => "xbackends",
        _ => return Ok(false),
    };
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    let api: kube::Api<DynamicObject> = if namespace.is_empty() {
        kube::Api::all_with(client.clone(), &resource)
    } else {
        kube::Api::namespaced_with(client.clone(), namespace, &resource)
    };
    let patch = serde_json::from_value(patch).map_err(|error| format!("no JSON patch: {error}"))?;
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    match api.patch(name, &params, &Patch::<Value>::Json(patch)).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(true),
        Err(error) => Err(describe("remove upstream's finalizer of", kind, name, &error)),
    }
}

/// A JSON patch (RFC 6902) that tests for the finalizers as they were seen and leaves those that are not upstream's.
fn patch(object: &Value) -> Option<Value> {
    let seen = object.pointer("/metadata/finalizers")?;
    let finalizers = seen.as_array()?;
    let kept: Vec<&Value> = finalizers
        .iter()
        .filter(|finalizer| !finalizer.as_str().is_some_and(|finalizer| FINALIZERS.contains(&finalizer)))
        .collect();
    if kept.len() == finalizers.len() {
        return None;
    }
    Some(json!([
        {"op": "test", "path": "/metadata/finalizers", "value": seen},
        {"op": "replace", "path": "/metadata/finalizers", "value": kept},
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(finalizers: Option<Value>, expected: Option<Value>) {
        let mut object = json!({"metadata": {"name": "g"}});
        if let Some(finalizers) = finalizers {
            object["metadata"]["finalizers"] = finalizers;
        }
        assert_eq!(patch(&object), expected);
    }

    #[test]
    fn only_upstreams_finalizers_go() {
        let gateway = "kube-agentic-networking.sigs.k8s.io/gateway-finalizer";
        check(None, None);
        check(Some(json!([])), None);
        check(Some(json!(["foregroundDeletion", "kube-agentic-networking.sigs.k8s.io/other"])), None);
        check(
            Some(json!([gateway])),
            Some(json!([
                {"op": "test", "path": "/metadata/finalizers", "value": [gateway]},
                {"op": "replace", "path": "/metadata/finalizers", "value": []},
            ])),
        );
        check(
            Some(json!(["a.example/b", gateway, "foregroundDeletion"])),
            Some(json!([
                {"op": "test", "path": "/metadata/finalizers", "value": ["a.example/b", gateway, "foregroundDeletion"]},
                {"op": "replace", "path": "/metadata/finalizers", "value": ["a.example/b", "foregroundDeletion"]},
            ])),
        );
    }
}
