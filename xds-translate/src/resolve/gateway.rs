//! Gateways and their listeners: which are ours, what can be programmed, who may attach.
use std::collections::{BTreeMap, BTreeSet};

use gateway_api::{
    gatewayclasses::GatewayClassParametersRef,
    gateways::{
        GatewayListeners, GatewayListenersAllowedRoutesNamespacesFrom as FromNamespaces,
        GatewayListenersAllowedRoutesNamespacesSelector as Selector, GatewayListenersTlsMode, GatewaySpec,
    },
};
use policy_model::NamespacedName;
use serde_json::Value;

use super::{
    grant::Grants,
    tls::{RefError, TlsOutcome, listener_tls},
};
use crate::{
    ClientCertificates, Condition, ListenerTls, ObjectRef, ObjectStatus, Objects, Options, Protocol, Scope,
    objects::{GATEWAY_GROUP, Unreadable},
};

/// A Gateway of ours.
pub(super) struct GatewayState<'a> {
    pub(super) generation: Option<i64>,
    /// All that the object has, in its order.
    pub(super) listeners: Vec<ListenerState<'a>>,
}

/// One listener.
pub(super) struct ListenerState<'a> {
    pub(super) spec: &'a GatewayListeners,
    pub(super) port: Option<u16>,
    /// Lower case; `None`: any.
    pub(super) hostname: Option<String>,
    /// What it serves, where it can.
    pub(super) serves: Option<(Protocol, Option<ListenerTls>)>,
    conditions: Vec<Condition>,
    takes_http_routes: bool,
}

/// Our GatewayClasses, by name; with their statuses.
pub(super) fn classes<'a>(
    objects: &'a Objects,
    options: &Options,
    statuses: &mut Vec<ObjectStatus>,
) -> BTreeSet<&'a str> {
    let mut ours = BTreeSet::new();
    for (name, entry) in &objects.classes {
        if let Ok(spec) = &entry.spec
            && spec.controller_name == options.controller_name
        {
            ours.insert(name.name.as_str());
            let accepted = match &spec.parameters_ref {
                Some(parameters) if !is_config_map(parameters) => Condition::no(
                    "Accepted",
                    "InvalidParameters",
                    "parametersRef must name a ConfigMap (group ``) and its namespace; change it",
                ),
                _ => Condition::yes("Accepted", "Accepted", "its Gateways are served"),
            };
            statuses.push(ObjectStatus::new(
                ObjectRef::new(GATEWAY_GROUP, "GatewayClass", name),
                Scope::Object,
                entry.meta.generation,
                vec![accepted],
            ));
        }
    }
    ours
}

/// Whether parameters are of the kind that the controller reads; what is in them is its matter.
fn is_config_map(parameters: &GatewayClassParametersRef) -> bool {
    parameters.group.is_empty()
        && parameters.kind == "ConfigMap"
        && parameters.namespace.as_deref().is_some_and(|namespace| !namespace.is_empty())
}

/// The Gateways of these classes.
pub(super) fn gateways<'a>(
    objects: &'a Objects,
    grants: &Grants<'_>,
    classes: &BTreeSet<&str>,
    statuses: &mut Vec<ObjectStatus>,
) -> BTreeMap<&'a NamespacedName, GatewayState<'a>> {
    let mut found = BTreeMap::new();
    for (name, entry) in &objects.gateways {
        match &entry.spec {
            Ok(spec) if classes.contains(spec.gateway_class_name.as_str()) => {
                found.insert(name, GatewayState::new(objects, grants, name, entry.meta.generation, spec));
            }
            Ok(_) => {}
            Err(unreadable) => {
                if unread_class(unreadable).is_some_and(|class| classes.contains(class)) {
                    let message = format!("cannot be read: {}", unreadable.message);
                    statuses.push(ObjectStatus::new(
                        ObjectRef::new(GATEWAY_GROUP, "Gateway", name),
                        Scope::Object,
                        entry.meta.generation,
                        vec![
                            Condition::no("Accepted", "Invalid", &message),
                            Condition::no("Programmed", "Invalid", message),
                        ],
                    ));
                }
            }
        }
    }
    found
}

/// The class that a Gateway names which cannot be read.
pub(super) fn unread_class(unreadable: &Unreadable) -> Option<&str> {
    unreadable.value.pointer("/spec/gatewayClassName").and_then(Value::as_str)
}

fn listeners<'a>(
    objects: &Objects,
    grants: &Grants<'_>,
    gateway: &NamespacedName,
    spec: &'a GatewaySpec,
) -> Vec<ListenerState<'a>> {
    let places: Vec<_> = spec.listeners.iter().map(Place::of).collect();
    let mut names = BTreeSet::new();
    spec.listeners
        .iter()
        .zip(&places)
        .map(|(listener, place)| {
            let conflict = if names.insert(&listener.name) {
                place.conflict(&places)
            } else {
                Some(RefError::new(
                    "HostnameConflict",
                    format!("another listener is named `{}`; rename one", listener.name),
                ))
            };
            let outcome = Outcome::of(objects, grants, &gateway.namespace, spec, listener, conflict);
            ListenerState {
                spec: listener,
                port: place.port,
                hostname: place.hostname.clone(),
                takes_http_routes: outcome.takes_http_routes,
                conditions: outcome.conditions,
                serves: outcome.serves,
            }
        })
        .collect()
}

/// What can conflict about listeners.
struct Place {
    port: Option<u16>,
    protocol: Option<Protocol>,
    hostname: Option<String>,
}

impl Place {
    fn of(listener: &GatewayListeners) -> Self {
        Self {
            port: u16::try_from(listener.port).ok().filter(|port| *port > 0),
            protocol: match listener.protocol.as_str() {
                "HTTP" => Some(Protocol::Http),
                "HTTPS" => Some(Protocol::Https),
                _ => None,
            },
            hostname: listener
                .hostname
                .as_ref()
                .filter(|name| !name.is_empty())
                .map(|name| name.to_ascii_lowercase()),
        }
    }

    /// Both sides of a conflict are refused: which of them was meant is unclear.
    fn conflict(&self, all: &[Self]) -> Option<RefError> {
        let port = self.port?;
        let protocol = self.protocol?;
        let on_port = || all.iter().filter(|other| other.port == Some(port) && other.protocol.is_some());
        if on_port().any(|other| other.protocol != Some(protocol)) {
            let message = format!("port {port} has HTTP and HTTPS listeners; give one of them another port");
            return Some(RefError::new("ProtocolConflict", message));
        }
        if on_port().filter(|other| other.hostname == self.hostname).count() > 1 {
            let host = self.hostname.as_deref().unwrap_or("*");
            let message = format!("port {port} has several listeners for host `{host}`; keep one");
            return Some(RefError::new("HostnameConflict", message));
        }
        None
    }
}

/// What becomes of one listener.
struct Outcome {
    serves: Option<(Protocol, Option<ListenerTls>)>,
    conditions: Vec<Condition>,
    takes_http_routes: bool,
}

impl Outcome {
    fn of(
        objects: &Objects,
        grants: &Grants<'_>,
        namespace: &str,
        gateway: &GatewaySpec,
        listener: &GatewayListeners,
        conflict: Option<RefError>,
    ) -> Self {
        let mut accepted = None;
        let mut refs = None;
        let mut serves = None;
        match listener.protocol.as_str() {
            "HTTP" => serves = Some((Protocol::Http, None)),
            "HTTPS" => {
                let outcome = listener_tls(objects, grants, namespace, gateway, listener);
                let TlsOutcome { tls, refs: tls_refs, accepted: tls_accepted } = outcome;
                refs = tls_refs;
                accepted = tls_accepted;
                serves = tls.map(|tls| (Protocol::Https, Some(tls)));
                if listener
                    .tls
                    .as_ref()
                    .is_some_and(|tls| tls.mode == Some(GatewayListenersTlsMode::Passthrough))
                {
                    accepted = Some(RefError::new(
                        "UnsupportedValue",
                        "tls mode must be Terminate for protocol HTTPS",
                    ));
                }
            }
            other => {
                let message = format!("protocol `{other}` is not served; use HTTP or HTTPS");
                accepted = Some(RefError::new("UnsupportedProtocol", message));
            }
        }
        if !(1..=65535).contains(&listener.port) {
            accepted = Some(RefError::new(
                "PortUnavailable",
                format!("port must be 1 to 65535, not `{}`", listener.port),
            ));
        }
        let (takes_http_routes, kinds) = route_kinds(listener);
        // A certificate that does not resolve is told before a route kind that is not known.
        let refs = refs.or(kinds);
        let accepted = accepted.or_else(|| conflict.clone());
        if accepted.is_some() {
            serves = None;
        }
        let programmed = serves.is_some();
        let conditions = vec![
            match &accepted {
                None => Condition::yes("Accepted", "Accepted", "the listener is accepted"),
                Some(error) => Condition::no("Accepted", error.reason, &error.message),
            },
            match &conflict {
                None => Condition::no("Conflicted", "NoConflicts", "no other listener is in its way"),
                Some(error) => Condition::yes("Conflicted", error.reason, &error.message),
            },
            match &refs {
                None => Condition::yes("ResolvedRefs", "ResolvedRefs", "all references resolve"),
                Some(error) => Condition::no("ResolvedRefs", error.reason, &error.message),
            },
            if programmed {
                Condition::yes("Programmed", "Programmed", "the listener is served")
            } else {
                Condition::no("Programmed", "Invalid", "the listener is not served; see the other conditions")
            },
        ];
        Self { serves, conditions, takes_http_routes }
    }
}

/// Whether HTTPRoutes may attach, and what is wrong with `allowedRoutes.kinds`.
fn route_kinds(listener: &GatewayListeners) -> (bool, Option<RefError>) {
    if !matches!(listener.protocol.as_str(), "HTTP" | "HTTPS") {
        return (false, None);
    }
    let kinds =
        listener.allowed_routes.as_ref().and_then(|allowed| allowed.kinds.as_deref()).unwrap_or_default();
    if kinds.is_empty() {
        return (true, None);
    }
    let is_http = |group: Option<&str>, kind: &str| {
        group.unwrap_or(GATEWAY_GROUP) == GATEWAY_GROUP && kind == "HTTPRoute"
    };
    let takes = kinds.iter().any(|kind| is_http(kind.group.as_deref(), &kind.kind));
    let other = kinds.iter().find(|kind| !is_http(kind.group.as_deref(), &kind.kind)).map(|kind| {
        let message = format!("routes of kind `{}` are not served; use HTTPRoute", kind.kind);
        RefError::new("InvalidRouteKinds", message)
    });
    (takes, other)
}

impl ListenerState<'_> {
    pub(super) fn is_programmed(&self) -> bool {
        self.serves.is_some()
    }

    /// Whether HTTPRoutes of that namespace may attach.
    pub(super) fn allows(&self, objects: &Objects, gateway: &NamespacedName, route_namespace: &str) -> bool {
        if !self.takes_http_routes {
            return false;
        }
        let namespaces = self.spec.allowed_routes.as_ref().and_then(|allowed| allowed.namespaces.as_ref());
        match namespaces.and_then(|namespaces| namespaces.from.as_ref()) {
            None | Some(FromNamespaces::Same) => route_namespace == gateway.namespace,
            Some(FromNamespaces::All) => true,
            Some(FromNamespaces::Selector) => namespaces
                .and_then(|namespaces| namespaces.selector.as_ref())
                .is_some_and(|selector| selects(objects, selector, route_namespace)),
        }
    }

    /// Whether labels of namespaces say who may attach.
    pub(super) fn selects_namespaces(&self) -> bool {
        let namespaces = self.spec.allowed_routes.as_ref().and_then(|allowed| allowed.namespaces.as_ref());
        namespaces.is_some_and(|namespaces| namespaces.from == Some(FromNamespaces::Selector))
    }

    pub(super) fn status(
        &self,
        gateway: &NamespacedName,
        generation: Option<i64>,
        attached: u32,
    ) -> ObjectStatus {
        ObjectStatus {
            object: ObjectRef::new(GATEWAY_GROUP, "Gateway", gateway),
            scope: Scope::Listener(self.spec.name.clone()),
            observed_generation: generation,
            conditions: self.conditions.clone(),
            attached_routes: Some(attached),
            supported_kinds: if self.takes_http_routes { vec!["HTTPRoute".to_owned()] } else { Vec::new() },
        }
    }
}

/// Whether a label selector selects a namespace. One that is not there, or cannot be read, is never selected.
fn selects(objects: &Objects, selector: &Selector, namespace: &str) -> bool {
    let Some(entry) = objects.namespaces.get(&NamespacedName::new("", namespace)) else { return false };
    if entry.spec.is_err() {
        return false;
    }
    let label = |key: &str| match key {
        // The API server sets this one on every namespace.
        "kubernetes.io/metadata.name" => Some(namespace),
        _ => entry.meta.labels.get(key).map(String::as_str),
    };
    let labels = selector.match_labels.iter().flatten().all(|(key, value)| label(key) == Some(value));
    let expressions = selector.match_expressions.iter().flatten().all(|expression| {
        let found = label(&expression.key);
        let among = |value: &str| expression.values.iter().flatten().any(|listed| listed == value);
        match expression.operator.as_str() {
            "In" => found.is_some_and(among),
            "NotIn" => !found.is_some_and(among),
            "Exists" => found.is_some(),
            "DoesNotExist" => found.is_none(),
            _ => false,
        }
    });
    labels && expressions
}

impl<'a> GatewayState<'a> {
    pub(super) fn new(
        objects: &Objects,
        grants: &Grants<'_>,
        name: &NamespacedName,
        generation: Option<i64>,
        spec: &'a GatewaySpec,
    ) -> Self {
        Self { generation, listeners: listeners(objects, grants, name, spec) }
    }

    /// The status of the Gateway itself.
    pub(super) fn status(&self, name: &NamespacedName) -> ObjectStatus {
        let bad: Vec<_> = self.listeners.iter().filter(|listener| !listener.is_programmed()).collect();
        let names: Vec<_> = bad.iter().map(|listener| format!("`{}`", listener.spec.name)).collect();
        let message = format!("not served: listener {}; see its conditions", names.join(", "));
        let none_served = bad.len() == self.listeners.len();
        let mut conditions = vec![
            match (bad.is_empty(), none_served) {
                (_, true) => Condition::no(
                    "Accepted",
                    "ListenersNotValid",
                    "no listener can be served; see their conditions",
                ),
                (true, false) => Condition::yes("Accepted", "Accepted", "the Gateway is accepted"),
                (false, false) => Condition::yes("Accepted", "ListenersNotValid", message),
            },
            if none_served {
                Condition::no("Programmed", "Invalid", "no listener can be served; see their conditions")
            } else {
                Condition::yes("Programmed", "Programmed", "the Gateway is served")
            },
        ];
        let insecure = |listener: &&ListenerState<'_>| {
            matches!(
                &listener.serves,
                Some((
                    _,
                    Some(ListenerTls {
                        clients: ClientCertificates::Frontend { insecure_fallback: true, .. },
                        ..
                    })
                ))
            )
        };
        if self.listeners.iter().any(|listener| insecure(&listener)) {
            let message = "AllowInsecureFallback admits clients whose certificate did not verify; they have no identity";
            conditions.push(Condition::yes(
                "InsecureFrontendValidationMode",
                "ConfigurationChanged",
                message,
            ));
        }
        let object = ObjectRef::new(GATEWAY_GROUP, "Gateway", name);
        ObjectStatus::new(object, Scope::Object, self.generation, conditions)
    }
}
