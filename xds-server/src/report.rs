//! What clients said about what they got.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::watch;

/// Bytes kept of a client's message.
const MAX_MESSAGE: usize = 1024;
/// Bytes kept of what it calls its cluster.
const MAX_CLUSTER: usize = 256;

/// What one connected client last acknowledged and refused. A client with several streams has a report for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The group that it was admitted to.
    pub group: Arc<str>,
    /// Its address as the server sees it.
    pub address: IpAddr,
    /// What it calls the cluster that it belongs to (`node.cluster`): its own word, by which nobody is admitted to anything.
    pub cluster: Arc<str>,
    /// URLs of the types that it is subscribed to something of.
    pub asked: BTreeSet<Arc<str>>,
    /// By type URL: [`ResourceSet::version_of`](crate::ResourceSet::version_of) of the last set that it acknowledged as
    /// a whole. A client that is subscribed to some names of a type acknowledges a set when it has what the set says
    /// about these names.
    pub acknowledged: BTreeMap<Arc<str>, Arc<str>>,
    /// By type URL: the last refusal, until something newer of that type is acknowledged.
    pub refused: BTreeMap<Arc<str>, Nack>,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nack {
    /// The set that was refused ([`ResourceSet::version_of`](crate::ResourceSet::version_of)).
    pub version: Arc<str>,
    /// What the client said; clients name the resource in it. At most 1024 bytes of it are kept.
    pub message: String,
}

impl Nack {
    pub(crate) fn new(version: Arc<str>, mut message: String) -> Self {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE));
        Self { version, message }
    }
}

/// How much was sent since the start, for metrics and tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Streams opened by admitted clients.
    pub streams: u64,
    /// Connections refused: no TLS, no certificate that verifies, no group for it, or too many connections.
    pub refused: u64,
    /// Responses sent.
    pub responses: u64,
    /// Resources in them, removals included.
    pub resources: u64,
    /// Acknowledgements received.
    pub acknowledged: u64,
    /// Refusals received.
    pub nacks: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) streams: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) responses: AtomicU64,
    pub(crate) resources: AtomicU64,
    pub(crate) acknowledged: AtomicU64,
    pub(crate) nacks: AtomicU64,
}

impl Counters {
    pub(crate) fn read(&self) -> Counts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            streams: of(&self.streams),
            refused: of(&self.refused),
            responses: of(&self.responses),
            resources: of(&self.resources),
            acknowledged: of(&self.acknowledged),
            nacks: of(&self.nacks),
        }
    }
}

/// The reports of all open streams.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    streams: Mutex<BTreeMap<u64, Report>>,
    changed: watch::Sender<u64>,
    next: AtomicU64,
}

impl Registry {
    pub(crate) fn register(this: &Arc<Self>, report: Report) -> Registration {
        let id = this.next.fetch_add(1, Ordering::Relaxed);
        this.streams().insert(id, report);
        this.wake();
        Registration { registry: Arc::clone(this), id }
    }

    pub(crate) fn reports(&self) -> Vec<Report> {
        self.streams().values().cloned().collect()
    }

    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn wake(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn streams(&self) -> MutexGuard<'_, BTreeMap<u64, Report>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream's place among the reports, until it is dropped.
#[derive(Debug)]
pub(crate) struct Registration {
    registry: Arc<Registry>,
    id: u64,
}

impl Registration {
    /// Says what the client calls its cluster.
    pub(crate) fn name(&self, cluster: &str) {
        let cluster = cluster.get(..cluster.floor_char_boundary(MAX_CLUSTER)).unwrap_or_default();
        let mut streams = self.registry.streams();
        let Some(report) = streams.get_mut(&self.id).filter(|report| *report.cluster != *cluster) else {
            return;
        };
        report.cluster = cluster.into();
        drop(streams);
        self.registry.wake();
    }

    /// Says what the client asks for, has acknowledged and refused by now.
    pub(crate) fn update(
        &self,
        asked: BTreeSet<Arc<str>>,
        acknowledged: BTreeMap<Arc<str>, Arc<str>>,
        refused: BTreeMap<Arc<str>, Nack>,
    ) {
        let mut streams = self.registry.streams();
        let Some(report) = streams.get_mut(&self.id) else { return };
        if report.asked == asked && report.acknowledged == acknowledged && report.refused == refused {
            return;
        }
        report.asked = asked;
        report.acknowledged = acknowledged;
        report.refused = refused;
        drop(streams);
        self.registry.wake();
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.streams().remove(&self.id);
        self.registry.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_cut_between_characters() {
        let said = |message: &str| Nack::new("v".into(), message.to_owned()).message;
        assert_eq!(said("route `a` is no good"), "route `a` is no good");
        assert_eq!(said(&"x".repeat(5000)), "x".repeat(1024));
        assert_eq!(said(&"ü".repeat(5000)), "ü".repeat(512));
        assert_eq!(said(&format!("x{}", "ü".repeat(5000))), format!("x{}", "ü".repeat(511)));
    }

    #[test]
    fn reports_come_change_and_go_with_their_streams() {
        let registry = Arc::new(Registry::default());
        let mut changed = registry.changed();
        let asked = BTreeSet::from([Arc::from("t")]);
        let report = Report {
            asked: BTreeSet::new(),
            group: "g".into(),
            address: [192, 0, 2, 1].into(),
            cluster: "".into(),
            acknowledged: BTreeMap::new(),
            refused: BTreeMap::new(),
        };
        let registration = Registry::register(&registry, report.clone());
        assert!(changed.has_changed().unwrap());
        assert_eq!(registry.reports(), std::slice::from_ref(&report));
        changed.mark_unchanged();
        registration.update(BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
        assert!(!changed.has_changed().unwrap(), "nothing changed");
        let acknowledged = BTreeMap::from([("t".into(), "v".into())]);
        registration.update(asked.clone(), acknowledged.clone(), BTreeMap::new());
        assert!(changed.has_changed().unwrap());
        assert_eq!(registry.reports(), [Report { asked, acknowledged, ..report }]);
        changed.mark_unchanged();
        registration.name("");
        assert!(!changed.has_changed().unwrap(), "it is called so already");
        registration.name("c");
        assert!(changed.has_changed().unwrap());
        assert_eq!(*registry.reports()[0].cluster, *"c");
        changed.mark_unchanged();
        drop(registration);
        assert!(changed.has_changed().unwrap());
        assert!(registry.reports().is_empty());
    }
}
