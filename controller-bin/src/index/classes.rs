//! Parameters of GatewayClasses of ours.
use std::collections::BTreeMap;

use serde_json::Value;
use xds_translate::ObjectRef;

use super::{Index, Kind, gateways::Fault};
use crate::provision::Parameters;

/// By the name of the class.
pub(super) struct Classes(BTreeMap<String, Result<Parameters, String>>);

impl Classes {
    pub(super) fn read(index: &Index) -> Self {
        let kind = Kind { group: "gateway.networking.k8s.io".to_owned(), kind: "GatewayClass".to_owned() };
        let classes = index.of_kind(&kind).filter_map(|(object, entry)| {
            let class = entry.given.as_ref()?;
            let controller = class.pointer("/spec/controllerName")?.as_str()?;
            (controller == index.controller_name()).then(|| (object.name.clone(), parameters(index, class)))
        });
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
    let object = ObjectRef {
        group: String::new(),
        kind: "ConfigMap".to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    let Some(map) = index.reduced(&object) else {
        return Err(format!(
            "ConfigMap `{namespace}/{name}` does not exist; create it or change spec.parametersRef"
        ));
    };
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
