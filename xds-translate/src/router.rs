//! Which rule a request takes: HTTPRoute matching with its precedence rules (Gateway API, HTTPRouteRule.matches).
use std::sync::Arc;

use http::HeaderMap;

use crate::{RouteRule, Snapshot};

/// The parts of a request that routing looks at.
#[derive(Debug, Clone, Copy)]
pub struct RouteRequest<'a> {
    /// Host without port, any case; `None` where there is none.
    pub host: &'a str,
    /// Path without query, as received.
    pub path: &'a str,
    /// Query without `?`.
    pub query: Option<&'a str>,
    /// Method.
    pub method: &'a str,
    /// Headers.
    pub headers: &'a HeaderMap,
}

/// A routed request.
#[derive(Debug, Clone)]
pub struct Routed<'r> {
    /// The rule.
    pub rule: &'r Arc<RouteRule>,
    /// The prefix that matched (for ReplacePrefixMatch); empty where the match was no prefix.
    pub matched_prefix: &'r str,
    /// Index in `Snapshot::listeners` of the listener whose host name is most specific.
    pub listener: usize,
}

/// Why there is no route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RouteFailure {
    /// No listener on the port takes this host.
    NoListener,
    /// No rule matches: 404.
    NoRule,
}

/// Compiled matchers of all listeners of a snapshot; regexes are compiled once. A rule whose regex does not compile matches nothing.
#[derive(Debug)]
pub struct Router {
    _private: (),
}

impl Router {
    /// Compiles the matchers.
    pub fn new(snapshot: &Snapshot) -> Self {
        let _ = snapshot;
        todo!()
    }

    /// The most specific listener on `port` for a host (also for SNI, before any request).
    pub fn listener(&self, port: u16, host: Option<&str>) -> Option<usize> {
        let _ = (port, host);
        todo!()
    }

    /// Routes a request that arrived on `port`. With `within`, only that listener (by index) is considered (HTTPS: the one that SNI chose).
    ///
    /// # Errors
    /// No listener, or no rule.
    pub fn route(&self, port: u16, within: Option<usize>, request: &RouteRequest<'_>) -> Result<Routed<'_>, RouteFailure> {
        let _ = (port, within, request);
        todo!()
    }
}
