//! Policies as Envoy's own filters: a subset, for those who want Envoy alone. What is outside is refused and closed.
use super::{Filters, Settings, http::Http};
use crate::{Listener, Snapshot, status::ObjectStatus};

/// A snapshot's policies, classified once for all listeners.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    snapshot: &'a Snapshot,
    settings: &'a Settings,
    filters: &'a Filters,
}

impl<'a> Plan<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, filters: &'a Filters, settings: &'a Settings) -> Self {
        Self { snapshot, settings, filters }
    }

    /// For one filter chain: the HTTPS listener that it is of, or all HTTP listeners of a port.
    pub(super) fn http(&self, listeners: &[&Listener]) -> Http {
        let _ = (self.snapshot, self.settings, self.filters, listeners);
        todo!("filters")
    }

    /// Policies that are not in the subset.
    pub(super) fn refused(&self) -> Vec<ObjectStatus> {
        todo!("filters")
    }
}
