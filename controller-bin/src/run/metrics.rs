//! Metrics in the OpenMetrics text format.
use std::sync::{Arc, atomic::AtomicU64};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use xds_server::{Cache, Counts};

use crate::identity;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

/// One of the discovery service's counts.
type Read = fn(&Counts) -> u64;

/// All metrics of the process.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    cache: Cache,
    discovery: Vec<(Gauge<u64, AtomicU64>, Read)>,
    identities: Arc<identity::Counts>,
    certificates: Family<ResultLabel, Gauge<u64, AtomicU64>>,
    /// Events from the API server that were taken up.
    pub(super) events: Counter,
    /// Recomputations of what follows from the objects.
    pub(super) reconciliations: Histogram,
    pub(super) gateways: Gauge<u64, AtomicU64>,
    pub(super) leader: Gauge<u64, AtomicU64>,
    statuses: Family<ResultLabel, Counter>,
}

impl Metrics {
    pub(super) fn new(cache: Cache, identities: Arc<identity::Counts>) -> Self {
        let mut registry = Registry::with_prefix("agentic_controller");
        let events = Counter::default();
        registry.register("events", "Events from the API server", events.clone());
        let reconciliations = Histogram::new(exponential_buckets(0.0005, 2.0, 14));
        registry.register(
            "reconciliation_seconds",
            "Time to compute what follows from the objects",
            reconciliations.clone(),
        );
        let gateways = Gauge::default();
        registry.register("gateways", "Gateways that are served", gateways.clone());
        let leader = Gauge::default();
        registry.register(
            "leader",
            "Whether this replica writes statuses and provisions proxies",
            leader.clone(),
        );
        let statuses = Family::default();
        registry.register("status_writes", "Statuses written", statuses.clone());
        let certificates = Family::default();
        registry.register(
            "certificate_requests",
            "PodCertificateRequests that were answered",
            certificates.clone(),
        );
        let mut discovery: Vec<(Gauge<u64, AtomicU64>, Read)> = Vec::new();
        let counts: [(&str, &str, Read); 6] = [
            ("xds_streams", "Streams that proxies opened", |counts| counts.streams),
            ("xds_connections_refused", "Connections without an identity that is served", |counts| {
                counts.refused
            }),
            ("xds_responses", "Responses sent to proxies", |counts| counts.responses),
            ("xds_resources", "Resources in them, removals included", |counts| counts.resources),
            ("xds_acknowledged", "Responses that proxies acknowledged", |counts| counts.acknowledged),
            ("xds_refusals", "Responses that proxies refused", |counts| counts.nacks),
        ];
        for (name, help, value) in counts {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            discovery.push((gauge, value));
        }
        Self {
            registry,
            cache,
            discovery,
            identities,
            certificates,
            events,
            reconciliations,
            gateways,
            leader,
            statuses,
        }
    }

    /// A status was written, or not.
    pub(super) fn status(&self, result: &'static str) {
        self.statuses.get_or_create(&ResultLabel { result }).inc();
    }

    /// The text.
    pub(super) fn encode(&self) -> String {
        let counts = self.cache.counts();
        for (gauge, value) in &self.discovery {
            gauge.set(value(&counts));
        }
        for (result, count) in [
            ("issued", self.identities.issued()),
            ("denied", self.identities.denied()),
            ("failed", self.identities.failed()),
        ] {
            self.certificates.get_or_create(&ResultLabel { result }).set(count);
        }
        let mut text = String::new();
        if text::encode(&mut text, &self.registry).is_err() {
            // Writing to a string does not fail.
            tracing::error!("the metrics cannot be encoded");
        }
        text
    }
}
