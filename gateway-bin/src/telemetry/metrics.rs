//! Metrics in the OpenMetrics text format. No label has values that clients choose.
use std::{
    sync::atomic::AtomicU64,
    time::{Duration, SystemTime},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// Of one request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    pub(crate) listener: std::sync::Arc<str>,
    /// `allow`, `deny`, `reject`, `answer`, `error`.
    pub(crate) decision: &'static str,
    /// Why.
    pub(crate) reason: &'static str,
    /// `2xx`, ...; `none`: it ended before its response; `unseen`: somebody else has the response.
    pub(crate) status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MessageLabels {
    method: &'static str,
    decision: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// All metrics of the process.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    messages: Family<MessageLabels, Counter>,
    authorizer_calls: Family<ResultLabel, Counter>,
    duration: Histogram,
    reloads: Family<ResultLabel, Counter>,
    handshakes: Family<ResultLabel, Counter>,
    pub(crate) connections: Gauge,
    failed_connections: Family<ReasonLabel, Counter>,
    pub(crate) broken_responses: Counter,
    pub(crate) generation: Gauge<u64, AtomicU64>,
    pub(crate) identity_expiry: Gauge,
    pub(crate) xds_connected: Gauge,
    pub(crate) xds_refused: Counter,
    xds_update: Gauge<f64, AtomicU64>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("agentic_gateway");
        let requests = Family::default();
        registry.register(
            "requests",
            "Requests by listener, decision, reason and status class",
            requests.clone(),
        );
        let messages = Family::default();
        registry.register("mcp_messages", "MCP messages by method and decision", messages.clone());
        let authorizer_calls = Family::default();
        registry.register(
            "authorizer_calls",
            "Questions to external authorizers by result",
            authorizer_calls.clone(),
        );
        // 50 us to 13 s in steps of 4.
        let buckets = std::iter::successors(Some(0.000_05), |bound| Some(bound * 4.0)).take(10);
        let duration = Histogram::new(buckets);
        registry.register(
            "request_duration_seconds",
            "From a request's head to its response's head",
            duration.clone(),
        );
        let reloads = Family::default();
        registry.register("config_reloads", "Configurations read, by result", reloads.clone());
        let handshakes = Family::default();
        registry.register("tls_handshakes", "TLS handshakes of clients, by result", handshakes.clone());
        let connections = Gauge::default();
        registry.register("connections", "Open client connections", connections.clone());
        let failed_connections = Family::default();
        registry.register(
            "connections_failed",
            "Client connections that did not end well, by reason",
            failed_connections.clone(),
        );
        let broken_responses = Counter::default();
        registry.register(
            "responses_broken",
            "Responses of backends that broke off after their head",
            broken_responses.clone(),
        );
        let generation = Gauge::default();
        registry.register(
            "config_generation",
            "Counts the configurations that were put in force",
            generation.clone(),
        );
        let identity_expiry = Gauge::default();
        registry.register(
            "identity_expiry_seconds",
            "When the gateway's own certificate expires, in Unix time",
            identity_expiry.clone(),
        );
        let xds_connected = Gauge::default();
        registry.register("xds_connected", "Whether the controller is followed", xds_connected.clone());
        let xds_refused = Counter::default();
        registry.register(
            "xds_refused",
            "Responses of the controller that could not be put in force",
            xds_refused.clone(),
        );
        let xds_update = Gauge::default();
        registry.register(
            "xds_last_update_seconds",
            "When something that the controller sent was last put in force, in Unix time",
            xds_update.clone(),
        );
        Self {
            registry,
            requests,
            messages,
            authorizer_calls,
            duration,
            reloads,
            handshakes,
            connections,
            failed_connections,
            broken_responses,
            generation,
            identity_expiry,
            xds_connected,
            xds_refused,
            xds_update,
        }
    }

    pub(crate) fn request(&self, labels: &RequestLabels, took: Duration) {
        self.requests.get_or_create(labels).inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// `method`: `None` for what is no MCP message, or of a method that is not known.
    pub(crate) fn message(&self, method: Option<mcp_jsonrpc::Method>, decision: &'static str) {
        let method = method.map_or("other", mcp_jsonrpc::Method::name);
        self.messages.get_or_create(&MessageLabels { method, decision }).inc();
    }

    pub(crate) fn authorizer(&self, result: &'static str) {
        self.authorizer_calls.get_or_create(&ResultLabel { result }).inc();
    }

    pub(crate) fn reload(&self, result: &'static str) {
        self.reloads.get_or_create(&ResultLabel { result }).inc();
    }

    /// Something that the controller sent is in force.
    pub(crate) fn xds_updated(&self, now: SystemTime) {
        self.xds_update.set(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64());
    }

    pub(crate) fn handshake(&self, result: &'static str) {
        self.handshakes.get_or_create(&ResultLabel { result }).inc();
    }

    /// A client connection, after its handshake.
    pub(crate) fn connection_failed(&self, reason: &'static str) {
        self.failed_connections.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// The text that a scraper gets.
    pub(crate) fn encode(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _never = prometheus_client::encoding::text::encode(&mut out, &self.registry).is_err();
        out
    }
}
