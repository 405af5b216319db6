//! Gateways: whether the current configuration is in force, and where.
use policy_model::NamespacedName;
use serde_json::{Map, Value, json};
use xds_translate::{Condition, ConditionStatus, ObjectRef, ObjectStatus, Scope, native};

use super::{
    GATEWAY_GROUP, GRACE, Observed, Proxies,
    conditions::{self, array, text},
};
use crate::{
    index::{Index, Outcome},
    provision::proxy_name,
};

const PROGRAMMED: &str = "Programmed";

/// `addresses`, `conditions`, `listeners`.
pub(super) fn status(
    index: &Index,
    object: &ObjectRef,
    statuses: &[ObjectStatus],
    given: &Value,
    outcome: &Outcome,
    observed: &Observed,
    now: &str,
) -> Map<String, Value> {
    let name = NamespacedName::new(&object.namespace, &object.name);
    let addresses = addresses(index, &name);
    let own = statuses.iter().find(|status| status.scope.is_object());
    let generation = own.and_then(|own| own.observed_generation);
    let mut desired = own.map(|own| own.conditions.clone()).unwrap_or_default();
    let was = conditions::find(given.pointer("/status/conditions"), PROGRAMMED).is_some_and(|known| {
        text(known, "status") == Some("True")
            && known.get("observedGeneration").and_then(Value::as_i64) == generation
    });
    let has_address = !addresses.is_empty();
    let deleting = given.pointer("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null());
    let gateway = State { index, name: &name, outcome, observed, deleting, has_address, was };
    let programmed = desired.iter_mut().find(|condition| condition.r#type == PROGRAMMED).map(|condition| {
        if condition.status == ConditionStatus::True {
            *condition = gateway.programmed();
        }
        condition.clone()
    });
    let known = given.pointer("/status/listeners");
    let unserved = observed.unserved.get(&name);
    let listeners = statuses.iter().filter_map(|status| {
        let Scope::Listener(name) = &status.scope else { return None };
        let known = array(known).iter().find(|known| text(known, "name") == Some(name));
        let unserved = unserved.and_then(|unserved| unserved.get(name)).map(|reason| {
            condition(ConditionStatus::False, "Invalid", format!("Envoy cannot serve it: {reason}"))
        });
        Some(listener(name, status, unserved.as_ref().or(programmed.as_ref()), known, now))
    });
    Map::from_iter([
        ("addresses".to_owned(), Value::Array(addresses)),
        (
            "conditions".to_owned(),
            conditions::with_others(&desired, generation, given.pointer("/status/conditions"), now),
        ),
        ("listeners".to_owned(), listeners.collect()),
    ])
}

/// Of the load balancer in front of its proxies; at most 16, as the API has it.
fn addresses(index: &Index, gateway: &NamespacedName) -> Vec<Value> {
    let service = ObjectRef {
        group: String::new(),
        kind: "Service".to_owned(),
        namespace: gateway.namespace.clone(),
        name: proxy_name(gateway),
    };
    let service = index.object(&service);
    let ingress = array(service.and_then(|service| service.pointer("/status/loadBalancer/ingress")));
    let address = |ingress: &Value| {
        let of = |r#type: &str, field: &str| Some(json!({"type": r#type, "value": text(ingress, field)?}));
        of("IPAddress", "ip").or_else(|| of("Hostname", "hostname"))
    };
    ingress.iter().filter_map(address).take(16).collect()
}

/// What decides whether a Gateway is programmed.
struct State<'a> {
    index: &'a Index,
    name: &'a NamespacedName,
    outcome: &'a Outcome,
    observed: &'a Observed,
    deleting: bool,
    has_address: bool,
    /// Whether its status says that this generation is programmed.
    was: bool,
}

impl State<'_> {
    /// The condition, of a Gateway that has something to program.
    fn programmed(&self) -> Condition {
        let no = |reason: &str, message: String| condition(ConditionStatus::False, reason, message);
        let Some(outcome) = self.outcome.gateways.get(self.name).filter(|_| !self.deleting) else {
            return no("Pending", "is being deleted".to_owned());
        };
        if let Err(message) = &outcome.proxy {
            return no("Invalid", message.clone());
        }
        // With Envoy it has its part, and the engine beside it the objects.
        let objects = outcome.resources.version_of(native::OBJECT).to_string();
        let envoy = self.observed.envoy.get(self.name);
        let version = envoy.map_or(&objects, |envoy| &envoy.all);
        let nobody = Proxies::default();
        let proxies = self.observed.proxies.get(self.name).unwrap_or(&nobody);
        let refused = proxies.refused.iter().find(|(refused, _)| refused == version);
        if let Some((_, message)) = refused {
            return no("Invalid", format!("a proxy refused the configuration: {message}"));
        }
        let service = NamespacedName::new(&self.name.namespace, proxy_name(self.name));
        let is_ready = self.index.has_ready_proxy(self.name);
        let fresh = self.observed.current_for.get(self.name).is_some_and(|current| *current < GRACE);
        let has = |version: &String| proxies.acknowledged.contains(version);
        let has_objects = envoy.is_some_and(|envoy| !envoy.with_engine) || has(&objects);
        let serves = (has_objects && has(version)) || (self.was && fresh);
        // What was set up serves on, whatever the API server said when it was looked at again.
        if let Some(message) = self.observed.provisioning.get(self.name)
            && !(is_ready && serves)
        {
            return no("NoResources", format!("its proxies cannot be set up: {message}"));
        }
        if !is_ready {
            let message = format!("no proxy is ready: Service `{service}` has no ready endpoint");
            return no("Pending", message);
        }
        if !serves {
            return no("Pending", "no proxy has acknowledged the current configuration yet".to_owned());
        }
        if !self.has_address {
            let message = format!(
                "the load balancer of Service `{service}` has no address yet; see the events of the Service"
            );
            return no("AddressNotAssigned", message);
        }
        condition(ConditionStatus::True, PROGRAMMED, "a proxy serves the current configuration".to_owned())
    }
}

fn condition(status: ConditionStatus, reason: &str, message: String) -> Condition {
    Condition { r#type: PROGRAMMED.to_owned(), status, reason: reason.to_owned(), message }
}

/// One listener; what can be served is programmed when the Gateway is.
fn listener(
    name: &str,
    status: &ObjectStatus,
    gateway: Option<&Condition>,
    known: Option<&Value>,
    now: &str,
) -> Value {
    let mut desired = status.conditions.clone();
    for own in
        desired.iter_mut().filter(|own| own.r#type == PROGRAMMED && own.status == ConditionStatus::True)
    {
        if let Some(gateway) = gateway.filter(|gateway| gateway.status != ConditionStatus::True) {
            let reason = if gateway.reason == "Invalid" { "Invalid" } else { "Pending" };
            *own = condition(gateway.status, reason, gateway.message.clone());
        }
    }
    let known = known.and_then(|known| known.get("conditions"));
    let kinds = status.supported_kinds.iter().map(|kind| json!({"group": GATEWAY_GROUP, "kind": kind}));
    json!({
        "name": name,
        "supportedKinds": kinds.collect::<Vec<_>>(),
        "attachedRoutes": status.attached_routes.unwrap_or_default(),
        "conditions": conditions::conditions(&desired, status.observed_generation, known, now),
    })
}
