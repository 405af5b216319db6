//! What a Gateway asks of its proxies, and what of it cannot be done.
use std::collections::{BTreeMap, BTreeSet};

use policy_model::NamespacedName;
use serde_json::Value;
use xds_translate::{Condition, ConditionStatus, ObjectRef, ObjectStatus};

use super::classes::Classes;
use crate::provision::{DataPlane, Proxy};

/// Why a Gateway or GatewayClass is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Fault {
    /// Says so in the status.
    pub(super) fn refuse(&self, status: &mut ObjectStatus) {
        if let Some(accepted) = status.conditions.iter_mut().find(|condition| condition.r#type == "Accepted")
        {
            *accepted = Condition {
                r#type: "Accepted".to_owned(),
                status: ConditionStatus::False,
                reason: self.reason.to_owned(),
                message: self.message.clone(),
            };
        }
    }
}

pub(super) fn reference(gateway: &NamespacedName) -> ObjectRef {
    ObjectRef {
        group: "gateway.networking.k8s.io".to_owned(),
        kind: "Gateway".to_owned(),
        namespace: gateway.namespace.clone(),
        name: gateway.name.clone(),
    }
}

/// What a Gateway asks for that is not there. Reasons as Gateway API has them for `Accepted`.
pub(super) fn fault(gateway: &Value) -> Option<Fault> {
    if let Some(parameters) =
        gateway.pointer("/spec/infrastructure/parametersRef").filter(|value| !value.is_null())
    {
        let kind = parameters.get("kind").and_then(Value::as_str).unwrap_or_default();
        return Some(Fault {
            reason: "InvalidParameters",
            message: format!(
                "spec.infrastructure.parametersRef (`{kind}`) is not supported; remove it, and give parameters to the GatewayClass"
            ),
        });
    }
    let addresses = gateway.pointer("/spec/addresses").and_then(Value::as_array)?;
    let first = addresses.first()?;
    let text = |field: &str| first.get(field).and_then(Value::as_str);
    let kind = text("type").unwrap_or("IPAddress");
    let value = text("value").map(|value| format!(" `{value}`")).unwrap_or_default();
    Some(Fault {
        reason: "UnsupportedAddress",
        message: format!(
            "spec.addresses ({kind}{value}) is not supported: the address is the load balancer's; remove it"
        ),
    })
}

/// The ports of its listeners, whether they can be served now or not: a certificate that is missing for a moment does not
/// cost a Gateway its address.
fn ports(gateway: &Value) -> Vec<u16> {
    let listeners = gateway.pointer("/spec/listeners").and_then(Value::as_array);
    let is_served = |listener: &&Value| {
        matches!(listener.get("protocol").and_then(Value::as_str), Some("HTTP" | "HTTPS"))
    };
    let ports: BTreeSet<u16> = listeners
        .into_iter()
        .flatten()
        .filter(is_served)
        .filter_map(|listener| u16::try_from(listener.get("port")?.as_u64()?).ok())
        .filter(|port| *port > 0)
        .collect();
    ports.into_iter().collect()
}

/// How the proxies of a Gateway are to run.
pub(super) fn proxy(name: &NamespacedName, gateway: &Value, classes: &Classes) -> Result<Proxy, String> {
    let class = gateway.pointer("/spec/gatewayClassName").and_then(Value::as_str).unwrap_or_default();
    let parameters = classes.parameters(class)?;
    let texts = |field: &str| -> BTreeMap<String, String> {
        let entries =
            gateway.pointer("/spec/infrastructure").and_then(|of| of.get(field)).and_then(Value::as_object);
        let entries = entries.into_iter().flatten();
        entries.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
    };
    let uid = gateway.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
    Ok(Proxy {
        gateway: name.clone(),
        uid: uid.to_owned(),
        labels: texts("labels"),
        annotations: texts("annotations"),
        ports: ports(gateway),
        data_plane: parameters.data_plane.clone().unwrap_or(DataPlane::Native),
        image: parameters.image.clone(),
        replicas: parameters.replicas.unwrap_or(1),
        flags: parameters.flags.clone(),
    })
}
