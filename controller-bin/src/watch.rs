//! The asynchronous edge: watches of every kind, and Secrets fetched one by one.
use std::collections::BTreeSet;

use anyhow::Context as _;
use policy_model::NamespacedName;
use serde_json::Value;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use xds_translate::{ObjectRef, native};

use crate::index::Kind;

mod follow;
mod raw;
mod secrets;
mod synced;

pub use self::synced::Synced;

/// Something that was seen.
#[derive(Clone, PartialEq)]
pub enum Event {
    /// An object that is new or changed.
    Apply(Box<Value>),
    /// An object that is gone.
    Delete(ObjectRef),
    /// All objects of a kind, at the end of a list (the first, or after a watch expired: 410). A kind whose CRD is not
    /// installed lists as empty, and is watched for.
    Reset(Kind, Vec<Value>),
}

impl std::fmt::Debug for Event {
    /// Without the objects: one may be a Secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Apply(object) => f.debug_tuple("Apply").field(&native::object_ref(object)).finish(),
            Self::Delete(object) => f.debug_tuple("Delete").field(object).finish(),
            Self::Reset(kind, objects) => f.debug_tuple("Reset").field(kind).field(&objects.len()).finish(),
        }
    }
}

const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";
const NETWORKING_GROUP: &str = "agentic.networking.x-k8s.io";
const PROTOTYPE_GROUP: &str = "agentic.prototype.x-k8s.io";

/// A kind, and the versions in which it is asked for: the first that is served.
#[derive(Debug)]
struct Watched {
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    versions: &'static [&'static str],
}

const fn watched(
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    versions: &'static [&'static str],
) -> Watched {
    Watched { group, kind, plural, versions }
}

/// Both versions of `agentic.networking.x-k8s.io` are one CRD with one schema: an object comes whole in either.
static WATCHED: [Watched; 13] = [
    watched(GATEWAY_GROUP, "GatewayClass", "gatewayclasses", &["v1"]),
    watched(GATEWAY_GROUP, "Gateway", "gateways", &["v1"]),
    watched(GATEWAY_GROUP, "HTTPRoute", "httproutes", &["v1"]),
    watched(GATEWAY_GROUP, "ReferenceGrant", "referencegrants", &["v1", "v1beta1"]),
    watched(GATEWAY_GROUP, "BackendTLSPolicy", "backendtlspolicies", &["v1"]),
    watched(NETWORKING_GROUP, "XAccessPolicy", "xaccesspolicies", &["v1alpha1"]),
    watched(PROTOTYPE_GROUP, "XAccessPolicy", "xaccesspolicies", &["v0alpha0"]),
    watched(NETWORKING_GROUP, "XBackend", "xbackends", &["v0alpha0"]),
    watched(PROTOTYPE_GROUP, "XBackend", "xbackends", &["v0alpha0"]),
    watched("", "Service", "services", &["v1"]),
    watched("discovery.k8s.io", "EndpointSlice", "endpointslices", &["v1"]),
    watched("", "ConfigMap", "configmaps", &["v1"]),
    watched("", "Namespace", "namespaces", &["v1"]),
];

impl Watched {
    fn kind(&self) -> Kind {
        Kind { group: self.group.to_owned(), kind: self.kind.to_owned() }
    }
}

/// The kinds that are watched, in one version each.
pub fn kinds() -> Vec<Kind> {
    WATCHED.iter().map(Watched::kind).collect()
}

/// The plural of a kind that is watched, as it stands in paths.
pub(crate) fn plural(group: &str, kind: &str) -> Option<&'static str> {
    WATCHED
        .iter()
        .find(|watched| watched.group == group && watched.kind == kind)
        .map(|watched| watched.plural)
}

/// Watches everything until the receiver of `events` is gone, through outages and expired watches. `wanted` names the
/// Secrets to fetch; they are fetched at once when the set changes, and looked at again every few seconds.
///
/// # Errors
/// Only what waiting cannot mend.
pub async fn watch_all(
    client: kube::Client,
    wanted: watch::Receiver<BTreeSet<NamespacedName>>,
    events: mpsc::Sender<Event>,
) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    for watched in &WATCHED {
        tasks.spawn(follow::follow(client.clone(), watched, events.clone()));
    }
    tasks.spawn(secrets::follow(client, wanted, events));
    // Each ends only when nobody listens any more.
    while let Some(ended) = tasks.join_next().await {
        ended.context("a watch failed")?;
    }
    Ok(())
}

/// The receiver of the events is gone.
struct Closed;

async fn send(events: &mpsc::Sender<Event>, event: Event) -> Result<(), Closed> {
    events.send(event).await.map_err(|_gone| Closed)
}

/// Waits; not longer than somebody listens.
async fn pause(events: &mpsc::Sender<Event>, wait: std::time::Duration) -> Result<(), Closed> {
    tokio::select! {
        () = tokio::time::sleep(wait) => Ok(()),
        () = events.closed() => Err(Closed),
    }
}

#[cfg(test)]
mod tests;
