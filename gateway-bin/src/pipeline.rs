//! From a request's head to what is to be done with it: pure, and the same for a live request and for `explain`.
mod answer;
mod path;

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

use authz_core::BackendKind;
use authz_tower::{Rejection, check_target, request_host};
use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, request::Parts};
use mcp_jsonrpc::Revision;
use xds_translate::{RouteFailure, RouteRequest, RouteRule, WeightedBackend};

pub(crate) use self::answer::add_cors_headers;
use crate::{
    runtime::GatewayRuntime,
    session::{MCP_SESSION_ID, Session, SessionKeys},
    upstream::Upstream,
};

/// How a request arrived.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival<'a> {
    /// The listener's port.
    pub(crate) port: u16,
    /// For TLS: the listener that SNI chose.
    pub(crate) listener: Option<usize>,
    /// The verified identity.
    pub(crate) identity: Option<&'a str>,
    /// Whether the connection is TLS.
    pub(crate) tls: bool,
    /// For a request that is with a backend already (an open event stream, or one that somebody else routed): that
    /// backend or none.
    pub(crate) with_backend: Option<&'a str>,
}

/// How session ids are read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sessions<'a> {
    /// They are opened.
    Sealed(&'a SessionKeys),
    /// `explain`: whatever is given is the caller's own.
    CallersOwn,
}

/// What is to be done with a request.
#[derive(Debug)]
pub(crate) enum Plan {
    /// Refused before policy; the listener's index, if one was found.
    Refused(Rejection, Option<usize>),
    /// Answered here, before policy: a redirect, or a CORS preflight.
    Answered(Response<Bytes>, usize),
    /// To be decided on, then forwarded.
    Forward(Planned),
}

/// A request that has a backend.
#[derive(Debug)]
pub(crate) struct Planned {
    /// The rule of the route.
    pub(crate) rule: Arc<RouteRule>,
    /// Index in `rule.backends`.
    pub(crate) backend: usize,
    /// Its connections.
    pub(crate) upstream: Arc<Upstream>,
    /// What it is, for policies.
    pub(crate) kind: BackendKind,
    /// Index of the listener.
    pub(crate) listener: usize,
    /// The path after rewrites, if it changes.
    pub(crate) path: Option<String>,
    /// Its session.
    pub(crate) session: SessionState,
}

/// What is known of a request's MCP session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SessionState {
    /// The backend is no XBackend: the header passes untouched.
    Untouched,
    /// An XBackend, and no session (yet).
    None,
    /// A stateless revision: the header is dropped in both directions.
    Stateless,
    /// The caller's own, opened.
    Open {
        /// What the id was sealed around.
        session: Box<Session>,
        /// The id as the client has it.
        sealed: HeaderValue,
    },
    /// Not the caller's, not of this backend, of an endpoint that is gone, or no session id at all: 404 after policy.
    Unknown,
}

impl Planned {
    /// The chosen backend.
    pub(crate) fn weighted(&self) -> Option<&WeightedBackend> {
        self.rule.backends.get(self.backend)
    }

    /// The endpoint that its session is at (`Some(None)`: the one that a host name is); `None`: any will do.
    pub(crate) fn pinned(&self) -> Option<Option<SocketAddr>> {
        match &self.session {
            SessionState::Open { session, .. } => Some(session.endpoint),
            SessionState::Untouched
            | SessionState::None
            | SessionState::Stateless
            | SessionState::Unknown => None,
        }
    }
}

/// Routes a request and finds out all that does not need its body.
pub(crate) fn plan(
    gateway: &GatewayRuntime,
    arrival: &Arrival<'_>,
    parts: &Parts,
    sessions: Sessions<'_>,
) -> Plan {
    if let Err(rejection) = check_target(parts) {
        return Plan::Refused(rejection, arrival.listener);
    }
    if parts.method == Method::CONNECT || parts.method == Method::TRACE {
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "CONNECT and TRACE are not served", arrival.listener);
    }
    let host = request_host(parts).unwrap_or_default();
    let name = without_port(host);
    if arrival.listener.is_some() && gateway.router.listener(arrival.port, Some(name)) != arrival.listener {
        return misdirected(arrival);
    }
    let route = RouteRequest {
        host: name,
        path: parts.uri.path(),
        query: parts.uri.query(),
        method: parts.method.as_str(),
        headers: &parts.headers,
    };
    let routed = match gateway.router.route(arrival.port, arrival.listener, &route) {
        Ok(routed) => routed,
        Err(RouteFailure::NoListener) if arrival.listener.is_some() => return misdirected(arrival),
        Err(RouteFailure::NoListener) => {
            return refuse(StatusCode::NOT_FOUND, "no listener takes this host", arrival.listener);
        }
        Err(_) => return refuse(StatusCode::NOT_FOUND, "no route matches", arrival.listener),
    };
    let rule = routed.rule;
    let listener = routed.listener;
    if let Some(cors) = &rule.filters.cors
        && answer::is_preflight(parts)
    {
        return Plan::Answered(answer::preflight(cors, parts), listener);
    }
    if let Some(redirect) = &rule.filters.redirect {
        return match answer::redirect(redirect, parts, host, routed.matched_prefix, arrival) {
            Some(response) => Plan::Answered(response, listener),
            None => refuse(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the redirect has no valid location",
                Some(listener),
            ),
        };
    }
    let header = SessionHeader::read(parts);
    let opened = match (&header, sessions) {
        (SessionHeader::One(value), Sessions::Sealed(keys)) => keys.open(value.as_bytes()),
        _ => None,
    };
    let Some(at) = choose(gateway, rule, arrival, opened.as_ref()) else {
        return refuse(StatusCode::INTERNAL_SERVER_ERROR, "the route has no backend", Some(listener));
    };
    let chosen = rule.backends.get(at).and_then(|weighted| {
        let upstream = gateway.upstreams.get(weighted.backend.as_ref()?)?;
        Some((weighted, upstream))
    });
    let Some((weighted, upstream)) = chosen else {
        return refuse(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the route's backend does not resolve",
            Some(listener),
        );
    };
    let rewrite = weighted.filters.path.as_ref().or(rule.filters.path.as_ref());
    let path = rewrite.map(|rewrite| path::rewrite(rewrite, routed.matched_prefix, parts.uri.path()));
    let forwarded_path = path.as_deref().unwrap_or(parts.uri.path());
    let kind = match &upstream.backend().kind {
        xds_translate::BackendKind::Service => BackendKind::Service,
        xds_translate::BackendKind::XBackend { path } if path == forwarded_path => BackendKind::XBackendMcp,
        xds_translate::BackendKind::XBackend { .. }
            if parts.method == Method::GET && forwarded_path.starts_with("/.well-known/") =>
        {
            BackendKind::XBackendWellKnown
        }
        xds_translate::BackendKind::XBackend { .. } => {
            return refuse(
                StatusCode::NOT_FOUND,
                "only the MCP path of this backend is reachable",
                Some(listener),
            );
        }
    };
    let session = match kind {
        BackendKind::Service => SessionState::Untouched,
        _ => session_state(&header, opened, parts, upstream, arrival, sessions),
    };
    Plan::Forward(Planned {
        rule: Arc::clone(rule),
        backend: at,
        upstream: Arc::clone(upstream),
        kind,
        listener,
        path,
        session,
    })
}

enum SessionHeader<'a> {
    None,
    One(&'a HeaderValue),
    /// Repeated: not clear which.
    Several,
}

impl<'a> SessionHeader<'a> {
    fn read(parts: &'a Parts) -> Self {
        let mut lines = parts.headers.get_all(MCP_SESSION_ID).iter();
        match (lines.next(), lines.next()) {
            (None, _) => Self::None,
            (Some(one), None) => Self::One(one),
            (Some(_), Some(_)) => Self::Several,
        }
    }
}

fn session_state(
    header: &SessionHeader<'_>,
    opened: Option<Session>,
    parts: &Parts,
    upstream: &Upstream,
    arrival: &Arrival<'_>,
    sessions: Sessions<'_>,
) -> SessionState {
    if is_stateless(parts) {
        return SessionState::Stateless;
    }
    match (header, sessions, opened) {
        (SessionHeader::None, ..) | (SessionHeader::One(_), Sessions::CallersOwn, _) => SessionState::None,
        (SessionHeader::One(sealed), Sessions::Sealed(_), Some(session))
            if session.backend == upstream.name()
                && session.identity.as_deref() == arrival.identity
                && upstream.has_endpoint(session.endpoint) =>
        {
            SessionState::Open { session: Box::new(session), sealed: (*sealed).clone() }
        }
        _ => SessionState::Unknown,
    }
}

/// Whether the request names a revision without sessions.
fn is_stateless(parts: &Parts) -> bool {
    parts
        .headers
        .get("mcp-protocol-version")
        .and_then(|version| version.to_str().ok())
        .and_then(Revision::from_name)
        .is_some_and(Revision::is_stateless)
}

/// Which backend: the one that the request is with or that its session belongs to, else by weight.
fn choose(
    gateway: &GatewayRuntime,
    rule: &RouteRule,
    arrival: &Arrival<'_>,
    session: Option<&Session>,
) -> Option<usize> {
    let named = |name: &str| {
        rule.backends.iter().position(|weighted| {
            let upstream = weighted.backend.as_ref().and_then(|id| gateway.upstreams.get(id));
            upstream.is_some_and(|upstream| upstream.name() == name)
        })
    };
    if let Some(backend) = arrival.with_backend {
        return named(backend);
    }
    let total: u64 = rule.backends.iter().map(|backend| u64::from(backend.weight)).sum();
    if let [only] = rule.backends.as_slice() {
        return (only.weight > 0).then_some(0);
    }
    if let Some(own) = session.and_then(|session| named(&session.backend)) {
        return Some(own);
    }
    // Multiplying by an odd constant spreads the turns, so that a weight of 1 in 100 is not 100 in a row.
    let turn = gateway.turn.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 16;
    let mut at = turn.checked_rem(total)?;
    rule.backends.iter().position(|backend| {
        let weight = u64::from(backend.weight);
        let chosen = at < weight;
        at = at.wrapping_sub(weight);
        chosen
    })
}

/// The name in `name`, `name:port`, `[address]:port`.
pub(crate) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !port.is_empty() => name,
        _ => host,
    }
}

fn misdirected(arrival: &Arrival<'_>) -> Plan {
    let text = "this host is not served on this connection; connect with it as the TLS server name";
    refuse(StatusCode::MISDIRECTED_REQUEST, text, arrival.listener)
}

fn refuse(status: StatusCode, text: &'static str, listener: Option<usize>) -> Plan {
    Plan::Refused(
        Rejection {
            status,
            body: Bytes::from_static(text.as_bytes()),
            json: false,
            allow: None,
            detail: text.to_owned(),
        },
        listener,
    )
}
