//! One client connection, and what becomes of each request on it.
use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use authz_tower::{Context, Peer, Rejection, ResponseBody, authorize};
use http::{HeaderValue, Request, Response, StatusCode, Version, header, request::Parts};
use hyper::body::Incoming;
use policy_model::NamespacedName;
use spiffe_id::SpiffeId;
use tokio::{sync::watch, time::Instant};
use xds_translate::ClientCertificates;

use crate::{
    forward::{Carrier, Direct, Forward, Unseen, plain},
    pipeline::{self, Arrival, Plan, Planned, Sessions},
    runtime::{GatewayRuntime, Runtime},
    session::SessionKeys,
    telemetry::{Line, Record, RequestLabels, Telemetry},
    upstream::{ClientBody, UpstreamBody},
};

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) runtime: ArcSwap<Runtime>,
    /// Ticks when the runtime was replaced.
    pub(crate) changes: watch::Sender<u64>,
    pub(crate) options: Arc<authz_tower::Options>,
    pub(crate) keys: ArcSwap<SessionKeys>,
    pub(crate) telemetry: Telemetry,
    pub(crate) body_timeout: Duration,
    /// Random per process; with the count it makes request ids.
    pub(crate) instance: u64,
    pub(crate) count: AtomicU64,
}

/// One client connection.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The Gateway that it belongs to, where the port alone does not say it.
    pub(crate) gateway: Option<NamespacedName>,
    /// The listener's port in the Gateway (not what the socket is bound to).
    pub(crate) port: u16,
    pub(crate) peer: SocketAddr,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) tls: bool,
    /// For TLS: the listener that SNI chose, and on which terms the client was let in.
    pub(crate) admitted: Option<(Arc<str>, Arc<ClientCertificates>)>,
    pub(crate) identity: Option<Arc<SpiffeId>>,
    /// The peer's address as a header value.
    pub(crate) forwarded_for: HeaderValue,
    /// The backend that its requests go to whatever the routes' weights say, where somebody else routed them.
    pub(crate) backend: Option<String>,
    /// Whether a request has come.
    pub(crate) used: AtomicBool,
    /// Whether it is to end: clients are told so with each response.
    pub(crate) closing: AtomicBool,
}

type GatewayResponse = Response<ResponseBody<UpstreamBody>>;

/// The service of one connection.
#[derive(Clone)]
pub(crate) struct ConnectionService {
    pub(crate) shared: Arc<Shared>,
    pub(crate) connection: Arc<Connection>,
}

impl hyper::service::Service<Request<Incoming>> for ConnectionService {
    type Response = GatewayResponse;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<GatewayResponse, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let this = self.clone();
        let pause = this.shared.body_timeout;
        let request = request.map(|body| ClientBody::new(body, pause));
        // HTTP/2 has GOAWAY for that.
        let has_header = request.version() < Version::HTTP_2;
        let connection = Arc::clone(&this.connection);
        Box::pin(async move {
            let mut response = this.serve(request, Direct).await;
            if has_header && connection.closing.load(Ordering::Relaxed) {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response)
        })
    }
}

/// What the log says of where a request went.
#[derive(Default)]
struct Went {
    listener: Option<Arc<str>>,
    planned: Option<(Arc<xds_translate::RouteRule>, Arc<crate::upstream::Upstream>)>,
}

/// What logs and metrics are told of one request: once, also if it ends before its response, which a server may then have
/// seen all the same.
struct Account {
    shared: Arc<Shared>,
    received: Instant,
    record: Arc<Record>,
    /// `None`: nobody reads lines.
    line: Option<Line>,
    went: Went,
    is_given: bool,
}

impl Account {
    /// `None`: there is no response. `Some(None)`: one that is not seen here.
    fn give(&mut self, response: Option<Option<StatusCode>>) {
        if std::mem::replace(&mut self.is_given, true) {
            return;
        }
        if response.is_none() {
            self.record.ended_early();
        }
        let took = self.received.elapsed();
        let (decision, reason) = self.record.summary();
        let telemetry = &self.shared.telemetry;
        telemetry.metrics.request(
            &RequestLabels {
                listener: self.went.listener.clone().unwrap_or_else(|| Arc::from("")),
                decision,
                reason,
                status: response.map_or("none", |status| status.map_or("unseen", class)),
            },
            took,
        );
        let Some(mut line) = self.line.take() else { return };
        if let Some(listener) = &self.went.listener {
            line.field("listener", listener);
        }
        if let Some((rule, upstream)) = &self.went.planned {
            line.field("route", &rule.route.name).field("route_namespace", &rule.route.namespace);
            line.field("backend", upstream.name());
        }
        self.record.write(&mut line);
        if let Some(Some(status)) = response {
            line.number("status", u64::from(status.as_u16()));
        }
        line.number("duration_us", u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        telemetry.access_log.write(line);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.give(None);
    }
}

impl ConnectionService {
    /// Serves one request; what is allowed, `carrier` takes to its backend.
    pub(crate) async fn serve<C: Carrier>(self, request: Request<C::Body>, carrier: C) -> GatewayResponse {
        let now = SystemTime::now();
        self.connection.used.store(true, Ordering::Relaxed);
        let mut account = self.account(now, &request);
        let response = self.decide(request, carrier, now, &mut account).await;
        // What nobody here sees has no status.
        let status = response.extensions().get::<Unseen>().is_none().then(|| response.status());
        account.give(Some(status));
        response
    }

    fn account<B>(&self, now: SystemTime, request: &Request<B>) -> Account {
        let logged = self.shared.telemetry.access_log.is_on();
        Account {
            shared: Arc::clone(&self.shared),
            received: Instant::now(),
            record: Arc::new(Record::new(Arc::clone(&self.shared.telemetry.metrics), logged)),
            line: logged.then(|| self.begin_line(now, request)),
            went: Went::default(),
            is_given: false,
        }
    }

    fn begin_line<B>(&self, now: SystemTime, request: &Request<B>) -> Line {
        let mut line = Line::new(now);
        line.field("client", self.connection.forwarded_for.to_str().unwrap_or_default());
        if let Some(identity) = &self.connection.identity {
            line.field("identity", identity.as_str());
        }
        line.field("method", request.method().as_str()).field("path", request.uri().path());
        line
    }

    async fn decide<C: Carrier>(
        &self,
        request: Request<C::Body>,
        carrier: C,
        now: SystemTime,
        account: &mut Account,
    ) -> GatewayResponse {
        let (record, received) = (Arc::clone(&account.record), account.received);
        // Before the runtime, so that no change is missed.
        let generation = *self.shared.changes.borrow();
        let runtime = self.shared.runtime.load();
        let Some((gateway, listener)) = self.connection.place(&runtime) else {
            let gone = "the listener of this connection is gone or asks for other certificates; connect anew";
            let mut response = plain(StatusCode::MISDIRECTED_REQUEST, gone);
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            record.refused("listener_changed");
            return response.map(ResponseBody::Inner);
        };
        let (parts, body) = request.into_parts();
        let arrival = self.connection.arrival(listener);
        let name = |at: Option<usize>| {
            at.and_then(|at| gateway.listeners.get(at)).map(|listener| Arc::clone(&listener.name))
        };
        let planned =
            match pipeline::plan(&gateway, &arrival, &parts, Sessions::Sealed(&self.shared.keys.load())) {
                Plan::Refused(rejection, at) => {
                    record.rejected(&rejection.detail);
                    account.went.listener = name(at);
                    return refusal(rejection);
                }
                Plan::Answered(response, at) => {
                    record.refused("answer");
                    account.went.listener = name(Some(at));
                    return response.map(|body| ResponseBody::Inner(UpstreamBody::Full(Some(body))));
                }
                Plan::Forward(planned) => planned,
            };
        let request_id = self.shared.request_id();
        if let Some(line) = &mut account.line {
            line.field("request_id", &request_id);
        }
        account.went = Went {
            listener: name(Some(planned.listener)),
            planned: Some((Arc::clone(&planned.rule), Arc::clone(&planned.upstream))),
        };
        let Some(mut context) = self.context(&runtime, &gateway, &planned, request_id, now) else {
            record.failed("the route has no backend".to_owned());
            return plain(StatusCode::INTERNAL_SERVER_ERROR, "the route has no backend")
                .map(ResponseBody::Inner);
        };
        let backend = Arc::clone(&planned.upstream);
        context.recheck = Some(Arc::new(OpenRequest { service: self.clone(), generation, backend }));
        context.observer = Some(Arc::clone(&record) as _);
        let cors = planned.rule.filters.cors.clone();
        // Only browsers' requests need them after the request is gone.
        let origin = cors.as_ref().and_then(|_| parts.headers.get(header::ORIGIN).cloned());
        let timeout = planned.rule.timeouts.request;
        let forward = Forward {
            shared: Arc::clone(&self.shared),
            connection: Arc::clone(&self.connection),
            work: Some((planned, carrier)),
            adds_cors: origin.is_some(),
            record: Arc::clone(&record),
            received,
        };
        let request = Request::from_parts(parts, body);
        let authorized = authorize(context, request, forward);
        let result = match timeout {
            None => authorized.await,
            Some(timeout) => match tokio::time::timeout_at(received + timeout, authorized).await {
                Ok(result) => result,
                Err(_) => {
                    record.failed("the route's timeout is over".to_owned());
                    Ok(plain(StatusCode::GATEWAY_TIMEOUT, "the request took too long")
                        .map(ResponseBody::Inner))
                }
            },
        };
        let mut response = match result {
            Ok(response) => response,
            Err(never) => match never {},
        };
        if let (Some(cors), Some(origin)) = (cors, origin) {
            let mut request = http::HeaderMap::with_capacity(1);
            request.insert(header::ORIGIN, origin);
            pipeline::add_cors_headers(&cors, &request, response.headers_mut());
        }
        response
    }

    fn context(
        &self,
        runtime: &Runtime,
        gateway: &GatewayRuntime,
        planned: &Planned,
        request_id: Arc<str>,
        now: SystemTime,
    ) -> Option<Context> {
        let listener = gateway.listeners.get(planned.listener)?;
        Some(Context {
            engine: Arc::clone(&gateway.snapshot.engine),
            levels: planned.weighted()?.levels,
            identity: self.connection.identity.clone(),
            listener: Arc::clone(&listener.name),
            port: self.connection.port,
            backend: planned.kind,
            cors_origins: planned
                .rule
                .filters
                .cors
                .as_ref()
                .map(|cors| Arc::from(cors.allow_origins.as_slice())),
            options: Arc::clone(&self.shared.options),
            ask: Arc::clone(&gateway.authorizers) as _,
            peer: Peer {
                source: Some(self.connection.peer),
                destination: self.connection.local,
                destination_id: runtime.material.own_id.clone(),
                tls: self.connection.tls,
            },
            recheck: None,
            observer: None,
            request_id,
            now,
        })
    }
}

impl std::fmt::Debug for ConnectionService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectionService").field("connection", &self.connection).finish_non_exhaustive()
    }
}

/// A request that may outlive a change of policy.
#[derive(Debug)]
struct OpenRequest {
    service: ConnectionService,
    /// The configuration that it began with.
    generation: u64,
    /// Whom it is with: the policies of another backend of the same rule say nothing about it.
    backend: Arc<crate::upstream::Upstream>,
}

impl authz_tower::Recheck for OpenRequest {
    fn has_changed(&self) -> bool {
        *self.service.shared.changes.borrow() != self.generation
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.service.shared.changes.subscribe()
    }

    /// The same request as if it came now, on the configuration in force now.
    fn context(&self, parts: &Parts) -> Option<Context> {
        let ConnectionService { shared, connection } = &self.service;
        let runtime = shared.runtime.load();
        let (gateway, listener) = connection.place(&runtime)?;
        let arrival = Arrival { with_backend: Some(self.backend.name()), ..connection.arrival(listener) };
        match pipeline::plan(&gateway, &arrival, parts, Sessions::Sealed(&shared.keys.load())) {
            Plan::Forward(planned) => {
                self.service.context(&runtime, &gateway, &planned, Arc::from(""), SystemTime::now())
            }
            Plan::Refused(..) | Plan::Answered(..) => None,
        }
    }
}

impl Shared {
    fn request_id(&self) -> Arc<str> {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let mut id = [0_u8; 24];
        let halves = self.instance.wrapping_add(count >> 32).to_be_bytes();
        let low = u32::try_from(count & 0xFFFF_FFFF).unwrap_or_default().to_be_bytes();
        for (pair, byte) in id.chunks_mut(2).zip(halves.iter().chain(&low)) {
            if let [high, low] = pair {
                *high = hex(byte >> 4);
                *low = hex(byte & 15);
            }
        }
        Arc::from(std::str::from_utf8(&id).unwrap_or_default())
    }
}

fn hex(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
}

impl Connection {
    /// The Gateway and listener of this connection in a configuration; `None` where the listener is gone or asks
    /// other things of its clients than it did when this one was let in.
    fn place(&self, runtime: &Runtime) -> Option<(Arc<GatewayRuntime>, Option<usize>)> {
        let gateway = runtime.on_port(self.port)?;
        if self.gateway.as_ref().is_some_and(|own| *own != gateway.snapshot.gateway) {
            return None;
        }
        let listener = match &self.admitted {
            None => None,
            Some((name, clients)) => {
                let at = gateway.listener_index(self.port, name)?;
                let tls = gateway.listeners.get(at)?.tls.as_ref()?;
                Arc::ptr_eq(&tls.clients, clients).then_some(at)?;
                Some(at)
            }
        };
        Some((Arc::clone(gateway), listener))
    }

    fn arrival(&self, listener: Option<usize>) -> Arrival<'_> {
        Arrival {
            port: self.port,
            listener,
            identity: self.identity.as_ref().map(|identity| identity.as_str()),
            tls: self.tls,
            with_backend: self.backend.as_deref(),
        }
    }
}

fn refusal(rejection: Rejection) -> GatewayResponse {
    rejection.into_response().map(|body| ResponseBody::Inner(UpstreamBody::Full(Some(body))))
}

fn class(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_classes() {
        for (status, expected) in [(200, "2xx"), (204, "2xx"), (302, "3xx"), (404, "4xx"), (503, "5xx")] {
            assert_eq!(class(StatusCode::from_u16(status).unwrap()), expected);
        }
    }
}
