//! Replicas and their leader, by Leases (coordination.k8s.io/v1) in the controller's namespace.
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use policy_model::NamespacedName;
use tokio::sync::watch;

use crate::status::Proxies;

/// Settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Namespace of the Leases.
    pub namespace: String,
    /// This replica: its Pod's name.
    pub identity: String,
    /// How long a Lease holds without renewal; renewed every third of it. Default 15 s.
    pub duration: Duration,
}

/// What this replica knows of the others, and of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Membership {
    /// Whether this replica leads. Given up at the latest when the Lease could not be renewed for its duration.
    pub leader: bool,
    /// All replicas with a Lease that holds, this one included.
    pub replicas: BTreeSet<String>,
    /// What the proxies of each Gateway said to any replica (from the replicas' Leases).
    pub proxies: BTreeMap<NamespacedName, Proxies>,
}

/// Takes part until it is dropped: renews this replica's Lease (`agentic-controller-replica-<identity>`, with `published`
/// in the annotation `agentic.networking.x-k8s.io/proxies` as JSON, bounded in size), tries for the leader's
/// (`agentic-controller-leader`), watches the others'. On shutdown (`stop` turns true) both are given up.
///
/// # Errors
/// Only what waiting cannot mend.
pub async fn take_part(
    _client: kube::Client,
    _settings: Settings,
    _published: watch::Receiver<BTreeMap<NamespacedName, Proxies>>,
    _membership: watch::Sender<Membership>,
    _stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    todo!()
}

/// The replica that does a piece of work, by rendezvous hashing: when replicas come or go, only their share moves.
pub fn owner<'r>(_replicas: &'r BTreeSet<String>, _work: &str) -> Option<&'r str> {
    todo!()
}
