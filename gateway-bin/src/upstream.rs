//! Connections to backends: endpoints, pools, TLS.
mod body;
mod dial;
mod pool;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use authz_tower::RequestBody;
use http::{Request, Response};
use xds_translate::{
    Backend, Destination,
    envoy::processor::{MAX_ENDPOINTS, cluster_name},
};

pub(crate) use self::{
    body::{ClientBody, RelayedBody, Told, UpstreamBody},
    dial::{Address, Dialer, Resolver},
    pool::EndpointPool,
};
use crate::tls::{ExtraRoots, upstream_config};

/// The body of a request on its way to a backend.
pub(crate) type OutBody = RequestBody<ClientBody>;

/// How long a host name's address is believed by those who send many requests to it.
const RESOLVED_FOR: Duration = Duration::from_secs(5);

/// Why a backend gave no response.
#[derive(Debug)]
pub(crate) enum UpstreamError {
    /// It has no ready endpoint.
    NoEndpoint,
    /// No connection could be made; nothing was sent.
    Connect(String),
    /// The connection failed after the request was begun.
    Failed(hyper::Error),
    /// The proxy that sends requests does not say what became of this one.
    Lost(&'static str),
    /// The configured time is over.
    TimedOut,
}

impl std::fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoEndpoint => f.write_str("the backend has no ready endpoint"),
            Self::Connect(error) => write!(f, "no connection to the backend: {error}"),
            Self::Failed(error) => write!(f, "the backend failed: {error}"),
            Self::Lost(what) => f.write_str(what),
            Self::TimedOut => f.write_str("the backend took too long"),
        }
    }
}

/// What all upstreams share.
#[derive(Debug)]
pub(crate) struct UpstreamSettings {
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) roots: ExtraRoots,
    pub(crate) connect_timeout: Duration,
    pub(crate) idle_timeout: Duration,
}

/// One backend with its connections.
#[derive(Debug)]
pub(crate) struct Upstream {
    backend: Backend,
    /// What a session's sealed id says, made once.
    name: String,
    endpoints: Vec<Arc<EndpointPool>>,
    next: AtomicUsize,
    /// Where a host name is, and until when that is believed.
    resolved: ArcSwap<Option<(SocketAddr, Instant)>>,
    /// TLS settings that cannot be used: every request fails.
    fault: Option<String>,
}

impl Upstream {
    /// A backend's connections; those of `previous` are kept where the endpoint and its TLS are the same.
    pub(crate) fn new(backend: &Backend, settings: &UpstreamSettings, previous: Option<&Self>) -> Self {
        let same_dial = previous
            .filter(|previous| previous.backend.tls == backend.tls && previous.backend.h2c == backend.h2c)
            .filter(|previous| previous.fault.is_none());
        let mut kept: HashMap<&Address, &Arc<EndpointPool>> = same_dial
            .map(|previous| previous.endpoints.iter().map(|pool| (pool.address(), pool)).collect())
            .unwrap_or_default();
        let mut fault = None;
        let dialer = match same_dial.and_then(|previous| previous.endpoints.first()) {
            Some(pool) => Arc::clone(pool.dialer()),
            None => {
                let tls = match &backend.tls {
                    None => None,
                    Some(tls) => match upstream_config(tls, &settings.roots) {
                        Ok(config) => Some((config, tls.server_name.clone())),
                        Err(error) => {
                            fault = Some(error);
                            None
                        }
                    },
                };
                match Dialer::new(tls, backend.h2c, settings) {
                    Ok(dialer) => Arc::new(dialer),
                    Err(error) => {
                        return Self::faulty(backend, error);
                    }
                }
            }
        };
        if let Some(error) = fault {
            return Self::faulty(backend, error);
        }
        let addresses: Vec<Address> = match &backend.destination {
            Destination::Endpoints(endpoints) => {
                endpoints.iter().map(|endpoint| Address::Socket(endpoint.socket_addr())).collect()
            }
            Destination::Hostname { host, port } => vec![Address::Name(host.to_ascii_lowercase(), *port)],
        };
        let endpoints = addresses
            .into_iter()
            .map(|address| match kept.remove(&address) {
                Some(pool) => Arc::clone(pool),
                None => Arc::new(EndpointPool::new(address, Arc::clone(&dialer))),
            })
            .collect();
        Self {
            backend: backend.clone(),
            name: cluster_name(&backend.id),
            endpoints,
            next: AtomicUsize::new(0),
            resolved: ArcSwap::default(),
            fault: None,
        }
    }

    fn faulty(backend: &Backend, fault: String) -> Self {
        tracing::error!(
            backend = cluster_name(&backend.id),
            error = fault,
            "the backend's TLS settings cannot be used"
        );
        Self {
            backend: backend.clone(),
            name: cluster_name(&backend.id),
            endpoints: Vec::new(),
            next: AtomicUsize::new(0),
            resolved: ArcSwap::default(),
            fault: Some(fault),
        }
    }

    /// The backend.
    pub(crate) fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Its name in sealed sessions and logs: cannot collide.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether a session of this endpoint can go on.
    pub(crate) fn has_endpoint(&self, endpoint: Option<SocketAddr>) -> bool {
        self.pool_of(endpoint).is_some()
    }

    fn pool_of(&self, endpoint: Option<SocketAddr>) -> Option<&Arc<EndpointPool>> {
        self.endpoints.iter().find(|pool| pool.address().socket() == endpoint)
    }

    /// Sends a request (path in its URI, host in its Host header) to an endpoint: `pinned`, or one in turn. Another
    /// endpoint is tried only while no connection was made, so that nothing is ever sent twice.
    pub(crate) async fn send(
        &self,
        request: Request<OutBody>,
        pinned: Option<Option<SocketAddr>>,
    ) -> Result<(Response<UpstreamBody>, Option<SocketAddr>), UpstreamError> {
        let mut request = request;
        let mut last = UpstreamError::NoEndpoint;
        for pool in self.in_turn(pinned)? {
            match pool.send(request).await {
                Ok(response) => return Ok((response, pool.address().socket())),
                Err((error, None)) => return Err(error),
                Err((error, Some(unsent))) => {
                    request = *unsent;
                    last = error;
                }
            }
        }
        Err(last)
    }

    /// The endpoints to try, in this order.
    fn in_turn(
        &self,
        pinned: Option<Option<SocketAddr>>,
    ) -> Result<impl Iterator<Item = &Arc<EndpointPool>>, UpstreamError> {
        if let Some(fault) = &self.fault {
            return Err(UpstreamError::Connect(fault.clone()));
        }
        let count = self.endpoints.len();
        let (start, attempts) = match pinned {
            Some(endpoint) => (self.endpoints.iter().position(|pool| pool.address().socket() == endpoint), 1),
            None => (self.next.fetch_add(1, Ordering::Relaxed).checked_rem(count), count.min(MAX_ENDPOINTS)),
        };
        let start = start.ok_or(UpstreamError::NoEndpoint)?;
        Ok(self.endpoints.iter().cycle().skip(start).take(attempts))
    }

    /// Where a request goes that somebody else sends: `pinned`, or an endpoint in turn and, should no connection be made,
    /// those after it; a host name is resolved, at most once in [`RESOLVED_FOR`]. There is at least one.
    pub(crate) async fn choose(
        &self,
        pinned: Option<Option<SocketAddr>>,
    ) -> Result<Vec<SocketAddr>, UpstreamError> {
        let pools: Vec<_> = self.in_turn(pinned)?.collect();
        let addresses: Vec<_> = pools.iter().filter_map(|pool| pool.address().socket()).collect();
        if !addresses.is_empty() {
            return Ok(addresses);
        }
        let pool = pools.first().ok_or(UpstreamError::NoEndpoint)?;
        if let Some((address, until)) = **self.resolved.load()
            && Instant::now() < until
        {
            return Ok(vec![address]);
        }
        let addresses = pool.dialer().addresses(pool.address()).await.map_err(UpstreamError::Connect)?;
        let address = addresses.first().copied().ok_or(UpstreamError::NoEndpoint)?;
        self.resolved.store(Arc::new(Some((address, Instant::now() + RESOLVED_FOR))));
        Ok(vec![address])
    }
}
