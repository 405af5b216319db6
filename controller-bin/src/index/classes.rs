//! Parameters of GatewayClasses of ours.
use std::collections::BTreeMap;

use serde_json::Value;
use xds_translate::ObjectRef;

use super::{Index, gateways::Fault, retain::PARAMETERS};
use crate::provision::Parameters;

/// By the name of the class.
pub(super) struct Classes(BTreeMap<String, Result<Parameters, String>>);

impl Classes {
    pub(super) fn read(index: &Index) -> Self {
        let classes = ours(index).map(|(object, class)| (object.name.clone(), parameters(index, class)));
        Self(classes.collect())
    }

    /// # Errors
    /// Why proxies of this class cannot be provisioned.
    pub(super) fn parameters(&self, class: &str) -> Result<&Parameters, String> {
        match self.0.get(class) {
            Some(Ok(parameters)) => Ok(parameters),
            Some(Err(message)) => Err(format!(
                "the parameters of GatewayClass `{class}` are invalid, and its proxies stay as they are: {message}"
            )),
            None => Err(format!("GatewayClass `{class}` does not exist")),
        }
    }

    /// The classes that are not accepted.
    pub(super) fn faults(&self) -> impl Iterator<Item = (ObjectRef, Fault)> {
        self.0.iter().filter_map(|(name, parameters)| {
            let message = parameters.as_ref().err()?.clone();
            let class = ObjectRef {
                group: "gateway.networking.k8s.io".to_owned(),
                kind: "GatewayClass".to_owned(),
                namespace: String::new(),
                name: name.clone(),
            };
            Some((class, Fault { reason: "InvalidParameters", message }))
        })
    }
}

/// Whether an object holds the parameters of a class of ours.
pub(super) fn are_parameters(index: &Index, object: &ObjectRef) -> bool {
    object.kind == "ConfigMap"
        && ours(index).any(|(_, class)| {
            let text = |field: &str| class.pointer("/spec/parametersRef")?.get(field)?.as_str();
            text("name") == Some(&object.name) && text("namespace") == Some(&object.namespace)
        })
}

/// The GatewayClasses that are ours.
fn ours(index: &Index) -> impl Iterator<Item = (&ObjectRef, &Value)> {
    let classes = index.from("gateway.networking.k8s.io", "GatewayClass", "");
    classes.filter_map(|(object, entry)| Some((object, entry.given.as_ref()?))).filter(|(_, class)| {
        let controller = class.pointer("/spec/controllerName").and_then(Value::as_str);
        controller == Some(index.controller_name())
    })
}

fn config_map(namespace: &str, name: &str) -> ObjectRef {
    ObjectRef {
        group: String::new(),
        kind: "ConfigMap".to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

fn parameters(index: &Index, class: &Value) -> Result<Parameters, String> {
    let Some(reference) = class.pointer("/spec/parametersRef").filter(|value| !value.is_null()) else {
        return Ok(Parameters::default());
    };
    let text = |field: &str| reference.get(field).and_then(Value::as_str).unwrap_or_default();
    let (group, kind, namespace, name) = (text("group"), text("kind"), text("namespace"), text("name"));
    if !group.is_empty() || kind != "ConfigMap" {
        return Err(format!(
            "spec.parametersRef must name a ConfigMap, not `{kind}` of group `{group}`; change it"
        ));
    }
    if namespace.is_empty() {
        return Err("spec.parametersRef has no namespace; add that of the ConfigMap".to_owned());
    }
    let Some(map) = index.object(&config_map(namespace, name)) else {
        return Err(format!(
            "ConfigMap `{namespace}/{name}` does not exist; create it or change spec.parametersRef"
        ));
    };
    if map.is_null() {
        return Err(format!(
            "ConfigMap `{namespace}/{name}` is larger than {PARAMETERS} bytes; take out what are no parameters"
        ));
    }
    if map.get("binaryData").and_then(Value::as_object).is_some_and(|data| !data.is_empty()) {
        return Err(format!(
            "ConfigMap `{namespace}/{name}` has binaryData; write the parameters as text in data"
        ));
    }
    let mut data = BTreeMap::new();
    for (key, value) in map.get("data").and_then(Value::as_object).into_iter().flatten() {
        let text =
            value.as_str().ok_or_else(|| format!("`{key}` of ConfigMap `{namespace}/{name}` is no text"))?;
        data.insert(key.clone(), text.to_owned());
    }
    Parameters::read(&data).map_err(|message| format!("ConfigMap `{namespace}/{name}`: {message}"))
}
