//! The filters and the one route table with the engine beside Envoy ([`super::processor`]).
use super::{Engine, Settings, http::Http};
use crate::{Listener, Snapshot};

/// For one filter chain: the HTTPS listener that it is of, or all HTTP listeners of a port.
pub(super) fn http(
    snapshot: &Snapshot,
    listeners: &[&Listener],
    engine: &Engine,
    settings: &Settings,
) -> Http {
    let _ = (snapshot, listeners, engine, settings);
    todo!("translate")
}
