//! What is told about requests: one JSON line each, and metrics. Never arguments, bodies, queries or tokens.
mod access_log;
mod json;
mod metrics;
mod record;

use std::sync::Arc;

pub use self::access_log::AccessLog;
pub(crate) use self::{
    access_log::Line,
    metrics::{Metrics, RequestLabels},
    record::Record,
};

/// Logs and metrics of one process.
#[derive(Debug)]
pub(crate) struct Telemetry {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) access_log: AccessLog,
}
