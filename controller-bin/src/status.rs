//! Statuses: what is to be written, computed synchronously; written by the leader alone.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use policy_model::NamespacedName;
use serde_json::{Map, Value};
use xds_translate::{ObjectRef, ObjectStatus};

use crate::index::{Index, Outcome};

mod conditions;
mod entries;
mod features;
mod gateway;
mod refused;
mod writer;

pub use self::writer::write_all;

/// What is known about the proxies of a Gateway, from all replicas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// Versions of object sets that some connected proxy acknowledged; of Envoy, where it and the engine beside it have
    /// acknowledged everything, the version of that.
    pub acknowledged: BTreeSet<String>,
    /// What proxies refused: version and message.
    pub refused: Vec<(String, String)>,
}

/// What the proxies of a Gateway that Envoy serves are to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvoyVersion {
    /// The version of all that Envoy is to have, as [`Proxies::acknowledged`] has it.
    pub all: String,
    /// Whether an engine is beside it, which is to have the objects.
    pub with_engine: bool,
}

/// What the status of Gateways depends on besides objects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// By Gateway.
    pub proxies: BTreeMap<NamespacedName, Proxies>,
    /// What provisioning could not do, by Gateway.
    pub provisioning: BTreeMap<NamespacedName, String>,
    /// By Gateway that Envoy serves: what its proxies are to have. Of other Gateways it is the version of the objects.
    pub envoy: BTreeMap<NamespacedName, EnvoyVersion>,
    /// By Gateway: listeners that its data plane cannot serve as they are meant, and why.
    pub unserved: BTreeMap<NamespacedName, BTreeMap<String, String>>,
    /// By Gateway: statuses of policies that its data plane cannot be told, and of itself where it can be told nothing.
    pub refused: BTreeMap<NamespacedName, Arc<[ObjectStatus]>>,
    /// By Gateway: for how long its current version has been current and not acknowledged by any proxy that is connected. A
    /// Gateway that is not named here has no [`GRACE`].
    pub current_for: BTreeMap<NamespacedName, Duration>,
}

/// How long a Gateway that was programmed stays so while its proxies have not acknowledged a new version: each change of a
/// policy is a new version for some milliseconds, and proxies connect again when a replica goes or a certificate is renewed. [`writes`] is to be asked again when it has passed.
pub const GRACE: Duration = Duration::from_secs(15);

/// A status to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// Whose.
    pub object: ObjectRef,
    /// `group/version` in which it was read.
    pub api_version: String,
    /// Of the object that it was computed from: a conflict means that it is computed again.
    pub resource_version: String,
    /// The whole `status`.
    pub status: Value,
}

const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

/// The statuses that differ from what the objects have; those of classes and Gateways first. Conditions that do not change
/// keep their `lastTransitionTime`; `observedGeneration` is always set; entries of other controllers are kept as they are,
/// ours without a cause are removed. `now` in RFC 3339, seconds.
pub fn writes(index: &Index, outcome: &Outcome, observed: &Observed, now: &str) -> Vec<Write> {
    let statuses = refused::with_refused(&outcome.statuses, &observed.refused);
    let by_object = Statuses::new(&statuses);
    let mut writes = Vec::new();
    let mut compare = |object: &ObjectRef, desired: &dyn Fn(&Value) -> Map<String, Value>| {
        writes.extend(index.object(object).and_then(|given| write(object, given, desired(given))));
    };
    for (object, statuses) in by_object.of(GATEWAY_GROUP, "GatewayClass") {
        compare(object, &|given| {
            let conditions = conditions::of_object(statuses, given, now);
            Map::from_iter([
                ("conditions".to_owned(), conditions),
                ("supportedFeatures".to_owned(), features::supported()),
            ])
        });
    }
    for (object, statuses) in by_object.of(GATEWAY_GROUP, "Gateway") {
        compare(object, &|given| gateway::status(index, object, statuses, given, outcome, observed, now));
    }
    for kind in crate::watch::kinds() {
        match kind.kind.as_str() {
            "HTTPRoute" | "BackendTLSPolicy" | "XAccessPolicy" => {
                for object in index.names(&kind) {
                    let statuses = by_object.get(object);
                    compare(object, &|given| {
                        entries::status(index.controller_name(), object, statuses, given, now)
                    });
                }
            }
            "XBackend" => {
                for (object, statuses) in by_object.of(&kind.group, &kind.kind) {
                    compare(object, &|given| {
                        let conditions = conditions::of_object(statuses, given, now);
                        Map::from_iter([("conditions".to_owned(), conditions)])
                    });
                }
            }
            _ => {}
        }
    }
    writes
}

/// The write that gives an object these fields of its status; none if it has them.
fn write(object: &ObjectRef, given: &Value, fields: Map<String, Value>) -> Option<Write> {
    let before = given.get("status").and_then(Value::as_object);
    let is_empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
    let differs = fields.iter().any(|(field, value)| match before.and_then(|before| before.get(field)) {
        Some(known) => known != value,
        None => !is_empty(value),
    });
    if !differs {
        return None;
    }
    let mut status = before.cloned().unwrap_or_default();
    status.extend(fields);
    let text = |value: Option<&Value>| Some(value?.as_str()?.to_owned());
    Some(Write {
        object: object.clone(),
        api_version: text(given.get("apiVersion"))?,
        resource_version: text(given.pointer("/metadata/resourceVersion"))?,
        status: Value::Object(status),
    })
}

/// The statuses of each object: they stand together.
struct Statuses<'a>(BTreeMap<&'a ObjectRef, &'a [ObjectStatus]>);

impl<'a> Statuses<'a> {
    fn new(statuses: &'a [ObjectStatus]) -> Self {
        let of_one = statuses.chunk_by(|one, other| one.object == other.object);
        Self(of_one.filter_map(|statuses| Some((&statuses.first()?.object, statuses))).collect())
    }

    fn get(&self, object: &ObjectRef) -> &'a [ObjectStatus] {
        self.0.get(object).copied().unwrap_or_default()
    }

    fn of(&self, group: &str, kind: &str) -> impl Iterator<Item = (&'a ObjectRef, &'a [ObjectStatus])> {
        self.0
            .iter()
            .map(|(object, statuses)| (*object, *statuses))
            .filter(move |(object, _)| object.group == group && object.kind == kind)
    }
}

#[cfg(test)]
mod tests;
