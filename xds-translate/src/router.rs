//! Which rule a request takes: HTTPRoute matching with its precedence rules (Gateway API, HTTPRouteRule.matches).
use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use gateway_api::httproutes::HttpRouteRulesMatches;
use http::HeaderMap;

use crate::{
    RouteRule, Snapshot,
    router::{host::Hosts, path::PathTable},
};

mod host;
mod matcher;
mod path;

pub(crate) use self::host::{Specificity, covers};

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
    /// The prefix that matched (for ReplacePrefixMatch), without a trailing slash other than `/` itself; empty where the
    /// match was no prefix.
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
///
/// Precedence: the most specific host name (of the listener, then of the route), then the path (Exact, then
/// RegularExpression, then the longest PathPrefix), then a method, the number of headers, the number of query parameters,
/// the oldest HTTPRoute, its `namespace/name`, and the order within it.
#[derive(Debug)]
pub struct Router {
    rules: Vec<Arc<RouteRule>>,
    listeners: Vec<ListenerTable>,
}

#[derive(Debug)]
struct ListenerTable {
    port: u16,
    hostname: Option<String>,
    hosts: Hosts<PathTable>,
}

impl Router {
    /// Compiles the matchers.
    pub fn new(snapshot: &Snapshot) -> Self {
        let listeners = snapshot.listeners.iter().map(|listener| {
            let mut hosts: Hosts<PathTable> = Hosts::default();
            for (id, names) in &listener.routes {
                let Some(index) = usize::try_from(id.0).ok() else { continue };
                let Some(rule) = snapshot.rules.get(index) else { continue };
                if names.is_empty() {
                    hosts.entry(None).add(index, rule);
                }
                for name in names {
                    hosts.entry(Some(name)).add(index, rule);
                }
            }
            hosts.each(|table| table.sort(&snapshot.rules));
            ListenerTable { port: listener.port, hostname: listener.hostname.clone(), hosts }
        });
        Self { rules: snapshot.rules.clone(), listeners: listeners.collect() }
    }

    /// The most specific listener on `port` for a host (also for SNI, before any request).
    pub fn listener(&self, port: u16, host: Option<&str>) -> Option<usize> {
        let host = host.map(normalized).unwrap_or_default();
        let on_port = self.listeners.iter().enumerate().filter(|(_, listener)| listener.port == port);
        let matching = on_port.filter_map(|(index, listener)| {
            Some((host::specificity(listener.hostname.as_deref(), &host)?, index))
        });
        // The first of equals: there are none among the listeners that `resolve` admits.
        matching
            .max_by_key(|&(specificity, index)| (specificity, std::cmp::Reverse(index)))
            .map(|(_, index)| index)
    }

    /// Of a listener (by index): for each host pattern (`None`: any) the matches (index in [`Snapshot::rules`], position
    /// among the rule's) in order of precedence. Where none of a pattern matches, those of the next less specific one may.
    pub(crate) fn matches(&self, listener: usize) -> BTreeMap<Option<String>, Vec<(usize, usize)>> {
        let table = self.listeners.get(listener).into_iter();
        table.flat_map(|table| table.hosts.patterns()).map(|(host, table)| (host, table.in_order())).collect()
    }

    /// Routes a request that arrived on `port`. With `within`, only that listener (by index) is considered (HTTPS: the one
    /// that SNI chose): a request whose host belongs to another listener is not routed, whatever connection it came on.
    ///
    /// # Errors
    /// No listener, or no rule.
    pub fn route(
        &self,
        port: u16,
        within: Option<usize>,
        request: &RouteRequest<'_>,
    ) -> Result<Routed<'_>, RouteFailure> {
        let host = normalized(request.host);
        let chosen = self.listener(port, Some(&host)).ok_or(RouteFailure::NoListener)?;
        if within.is_some_and(|within| within != chosen) {
            return Err(RouteFailure::NoListener);
        }
        let listener = self.listeners.get(chosen).ok_or(RouteFailure::NoListener)?;
        let mut tables = listener.hosts.matching(&host);
        let found = tables.find_map(|table| table.find(request)).ok_or(RouteFailure::NoRule)?;
        let rule = self.rules.get(found.rule).ok_or(RouteFailure::NoRule)?;
        Ok(Routed { rule, matched_prefix: found.matched_prefix, listener: chosen })
    }
}

/// Lower case, without a trailing dot.
fn normalized(host: &str) -> Cow<'_, str> {
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

/// What of these matches does not compile.
pub(crate) fn match_errors<'m>(
    matches: impl Iterator<Item = &'m HttpRouteRulesMatches>,
) -> impl Iterator<Item = String> {
    matches.filter_map(|one| matcher::compile(one).err())
}
