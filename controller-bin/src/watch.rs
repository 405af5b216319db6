//! The asynchronous edge: watches of every kind, and Secrets fetched one by one.
use std::collections::BTreeSet;

use policy_model::NamespacedName;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use xds_translate::ObjectRef;

use crate::index::Kind;

/// Something that was seen.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// An object that is new or changed.
    Apply(Box<Value>),
    /// An object that is gone.
    Delete(ObjectRef),
    /// All objects of a kind, at the end of a list (the first, or after a watch expired: 410). A kind whose CRD is not
    /// installed lists as empty, and is watched for.
    Reset(Kind, Vec<Value>),
}

/// The kinds that are watched, in one version each.
pub fn kinds() -> Vec<Kind> {
    todo!()
}

/// Watches everything until the receiver of `events` is gone, through outages and expired watches. `wanted` names the
/// Secrets to fetch; they are fetched at once when the set changes, and looked at again every few seconds.
///
/// # Errors
/// Only what waiting cannot mend.
pub async fn watch_all(
    _client: kube::Client,
    _wanted: watch::Receiver<BTreeSet<NamespacedName>>,
    _events: mpsc::Sender<Event>,
) -> anyhow::Result<()> {
    todo!()
}
