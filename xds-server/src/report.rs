//! What clients said about what they got.
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

/// What one connected client last acknowledged and refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The group that it was admitted to.
    pub group: Arc<str>,
    /// Its address as the server sees it.
    pub address: IpAddr,
    /// By type URL: [`ResourceSet::version_of`](crate::ResourceSet::version_of) of the last set that it acknowledged as a whole.
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

/// How much was sent since the start, for metrics and tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Streams opened by admitted clients.
    pub streams: u64,
    /// Connections refused: no certificate that verifies, or no group for it.
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
