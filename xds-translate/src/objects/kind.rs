//! Which kinds are looked at, by apiVersion and kind.
use policy_model::AgenticGroup;
use serde_json::Value;

use crate::{ObjectRef, objects::decode::FieldError};

pub(crate) const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";
pub(crate) const DISCOVERY_GROUP: &str = "discovery.k8s.io";

/// Other kinds of the Gateway API's group, which are not looked at.
const OTHER_GATEWAY_KINDS: [&str; 8] = [
    "GRPCRoute",
    "TLSRoute",
    "TCPRoute",
    "UDPRoute",
    "ListenerSet",
    "BackendLBPolicy",
    "XMesh",
    "XListenerSet",
];

/// A kind that is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    GatewayClass,
    Gateway,
    HttpRoute,
    ReferenceGrant,
    BackendTlsPolicy,
    XBackend(AgenticGroup),
    XAccessPolicy(AgenticGroup),
    Service,
    EndpointSlice,
    Secret,
    ConfigMap,
    Namespace,
}

/// What an object is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Recognized {
    Kind(Kind),
    Other,
}

impl Kind {
    pub(crate) fn of(group: &str, kind: &str) -> Option<Self> {
        Some(match (group, kind) {
            (GATEWAY_GROUP, "GatewayClass") => Self::GatewayClass,
            (GATEWAY_GROUP, "Gateway") => Self::Gateway,
            (GATEWAY_GROUP, "HTTPRoute") => Self::HttpRoute,
            (GATEWAY_GROUP, "ReferenceGrant") => Self::ReferenceGrant,
            (GATEWAY_GROUP, "BackendTLSPolicy") => Self::BackendTlsPolicy,
            ("", "Service") => Self::Service,
            ("", "Secret") => Self::Secret,
            ("", "ConfigMap") => Self::ConfigMap,
            ("", "Namespace") => Self::Namespace,
            (DISCOVERY_GROUP, "EndpointSlice") => Self::EndpointSlice,
            (group, "XBackend") => Self::XBackend(AgenticGroup::from_name(group)?),
            (group, "XAccessPolicy") => Self::XAccessPolicy(AgenticGroup::from_name(group)?),
            _ => return None,
        })
    }

    pub(crate) fn is_namespaced(self) -> bool {
        !matches!(self, Self::GatewayClass | Self::Namespace)
    }

    /// The versions that are read.
    fn versions(self) -> &'static [&'static str] {
        match self {
            Self::ReferenceGrant => &["v1", "v1beta1"],
            Self::BackendTlsPolicy => &["v1", "v1alpha3"],
            Self::XBackend(_) | Self::XAccessPolicy(AgenticGroup::Prototype) => &["v0alpha0"],
            Self::XAccessPolicy(AgenticGroup::Networking) => &["v0alpha0", "v1alpha1"],
            Self::GatewayClass
            | Self::Gateway
            | Self::HttpRoute
            | Self::Service
            | Self::EndpointSlice
            | Self::Secret
            | Self::ConfigMap
            | Self::Namespace => &["v1"],
        }
    }
}

/// The kind of an object.
///
/// # Errors
/// It has no apiVersion or kind, or one that an API server with our CRDs would not know.
pub(crate) fn recognize(object: &Value) -> Result<Recognized, FieldError> {
    if !object.is_object() {
        return Err(FieldError::new(
            "",
            "is no object; a document must be a mapping with apiVersion, kind and metadata",
        ));
    }
    let text = |field: &str| object.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    let Some(api_version) = text("apiVersion") else {
        return Err(FieldError::new("apiVersion", "is missing; give the object an apiVersion"));
    };
    let Some(kind) = text("kind") else {
        return Err(FieldError::new("kind", "is missing; give the object a kind"));
    };
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    match Kind::of(group, kind) {
        Some(known) if known.versions().contains(&version) => Ok(Recognized::Kind(known)),
        Some(known) => {
            let versions = known.versions().join("` or `");
            Err(FieldError::new(
                "apiVersion",
                format!("`{version}` of {kind} is not served; use `{versions}`"),
            ))
        }
        None if AgenticGroup::from_name(group).is_some() => Err(FieldError::new(
            "kind",
            format!("there is no `{kind}` in `{group}`; use XAccessPolicy or XBackend"),
        )),
        None if group == GATEWAY_GROUP && !OTHER_GATEWAY_KINDS.contains(&kind) => {
            Err(FieldError::new("kind", format!("there is no `{kind}` in `{group}`; check the spelling")))
        }
        None => Ok(Recognized::Other),
    }
}

/// What an object is, if it is of a kind that is looked at and has a name.
pub(crate) fn object_ref(object: &Value) -> Option<ObjectRef> {
    let Ok(Recognized::Kind(kind)) = recognize(object) else { return None };
    let metadata = |field: &str| object.get("metadata")?.get(field)?.as_str().filter(|text| !text.is_empty());
    let namespace = if kind.is_namespaced() { metadata("namespace").unwrap_or("default") } else { "" };
    let (group, _) = object.get("apiVersion")?.as_str()?.split_once('/').unwrap_or_default();
    Some(ObjectRef {
        group: group.to_owned(),
        kind: object.get("kind")?.as_str()?.to_owned(),
        namespace: namespace.to_owned(),
        name: metadata("name")?.to_owned(),
    })
}

/// `Kind namespace/name`, as far as known.
pub(crate) fn describe(object: &Value) -> String {
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
    let metadata =
        |field: &str| object.get("metadata").and_then(|metadata| metadata.get(field)).and_then(Value::as_str);
    let name = metadata("name").unwrap_or_default();
    let api_version = object.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    let (group, _) = api_version.split_once('/').unwrap_or(("", api_version));
    let namespaced = Kind::of(group, kind).is_none_or(Kind::is_namespaced);
    let name = match metadata("namespace") {
        Some(namespace) if !namespace.is_empty() => format!("{namespace}/{name}"),
        _ if namespaced && Kind::of(group, kind).is_some() && !name.is_empty() => format!("default/{name}"),
        _ => name.to_owned(),
    };
    format!("{kind} {name}").trim().to_owned()
}
