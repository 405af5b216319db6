//! Replicas and their leader, by Leases (coordination.k8s.io/v1) in the controller's namespace.
//!
//! # Who may think that it leads
//!
//! As in client-go's leader election, time is never compared between machines: a candidate waits until it has seen no
//! change of the leader's Lease for the whole duration that stands in it, by its own monotonic clock, counted from when
//! it saw the last change; the leader counts from before it sent its last renewal. So, with clocks that run at about the
//! same rate, the leader's time is over before anybody else's begins. It gives up after two thirds of the duration
//! (client-go's renew deadline), so that what it has begun by then has the last third to end.
//!
//! Two leaders are still possible where a process stands still (a paused virtual machine: monotonic clocks stand still
//! too) between looking at [`Membership::leader`] and writing. What the leader writes has to be harmless then: statuses
//! are computed from objects, and written with the `resourceVersion` that they were computed from, so that the API server
//! refuses what is out of date; server-side apply of the same objects changes nothing.
mod election;
mod part;
mod replicas;
mod said;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use policy_model::NamespacedName;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use crate::status::Proxies;

/// The Lease of the leader.
const LEADER: &str = "agentic-controller-leader";
/// The Leases of the replicas begin with this; their Pods' names follow.
const REPLICA: &str = "agentic-controller-replica-";
/// Where a replica's Lease says what its proxies said.
const PROXIES: &str = "agentic.networking.x-k8s.io/proxies";

/// Settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Namespace of the Leases.
    pub namespace: String,
    /// This replica: its Pod's name.
    pub identity: String,
    /// How long a Lease holds without renewal, in whole seconds; renewed every third of it. Default 15 s.
    pub duration: Duration,
}

impl Settings {
    /// How often a Lease is renewed: every 5 s of 15.
    fn renewal(&self) -> Duration {
        self.duration / 3
    }

    /// How long the API server may take: 3 s of 15, so that one answer that never comes does not cost the leadership.
    fn patience(&self) -> Duration {
        self.duration / 5
    }

    /// How soon what failed is tried again: 2 s of 15.
    fn retry(&self) -> Duration {
        self.duration * 2 / 15
    }
}

/// What this replica knows of the others, and of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Membership {
    /// Whether this replica leads. Given up when the Lease could not be renewed for two thirds of its duration, when it
    /// is another's, and when [`take_part`] ends or is dropped.
    pub leader: bool,
    /// All replicas with a Lease that holds, and this one in any case.
    pub replicas: BTreeSet<String>,
    /// What the proxies of each Gateway said to any replica (from the replicas' Leases).
    pub proxies: BTreeMap<NamespacedName, Proxies>,
}

/// Takes part until it is dropped: renews this replica's Lease (`agentic-controller-replica-<identity>`, with `published`
/// in the annotation `agentic.networking.x-k8s.io/proxies` as JSON, at most 64 KiB: messages are cut first), tries for
/// the leader's (`agentic-controller-leader`), watches the others'. On shutdown (`stop` turns true) the leader's Lease is
/// released, so that another replica takes over at once, and this replica's is deleted.
///
/// An API server that cannot be reached, or refuses, is tried again for ever. Rights needed in the namespace: `get`,
/// `list`, `watch`, `create`, `update` and `delete` of `leases`.
///
/// # Errors
/// Only what waiting cannot mend: a duration under a second, or of more seconds than a Lease can say.
pub async fn take_part(
    client: kube::Client,
    settings: Settings,
    published: watch::Receiver<BTreeMap<NamespacedName, Proxies>>,
    membership: watch::Sender<Membership>,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    part::take_part(client, settings, published, membership, stop).await
}

/// The replica that does a piece of work, by rendezvous hashing: when replicas come or go, only their share moves.
pub fn owner<'r>(replicas: &'r BTreeSet<String>, work: &str) -> Option<&'r str> {
    let weight = |replica: &&String| {
        // A Pod's name has no NUL, so no two pairs read alike.
        Sha256::new()
            .chain_update(replica.as_bytes())
            .chain_update([0])
            .chain_update(work.as_bytes())
            .finalize()
    };
    replicas.iter().max_by_key(weight).map(String::as_str)
}
