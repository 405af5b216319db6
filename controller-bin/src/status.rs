//! Statuses: what is to be written, computed synchronously; written by the leader alone.
use std::collections::{BTreeMap, BTreeSet};

use policy_model::NamespacedName;
use serde_json::Value;
use xds_translate::ObjectRef;

use crate::index::{Index, Outcome};

/// What is known about the proxies of a Gateway, from all replicas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// Versions of object sets that some connected proxy acknowledged.
    pub acknowledged: BTreeSet<String>,
    /// What proxies refused: version and message.
    pub refused: Vec<(String, String)>,
}

/// What the status of Gateways depends on besides objects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// By Gateway.
    pub proxies: BTreeMap<NamespacedName, Proxies>,
    /// What provisioning could not do, by Gateway.
    pub provisioning: BTreeMap<NamespacedName, String>,
}

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

/// The statuses that differ from what the objects have. Conditions that do not change keep their `lastTransitionTime`;
/// `observedGeneration` is always set; entries of other controllers are kept as they are, ours without a cause are removed.
/// `now` in RFC 3339, seconds.
pub fn writes(_index: &Index, _outcome: &Outcome, _observed: &Observed, _now: &str) -> Vec<Write> {
    todo!()
}
