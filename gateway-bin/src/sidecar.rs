//! Plain HTTP on loopback in, mTLS with this pod's identity out.
//!
//! It is no policy point: what it lets through is decided by the gateway. It only makes sure that those who use the
//! pod's identity are in the pod, and no web page that talked a browser into it.
use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    path::Path,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use authz_tower::{RequestBody, check_target, origin_matches, request_host};
use http::{HeaderValue, Request, Response, StatusCode, Uri, header, uri::PathAndQuery};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, watch},
    task::JoinHandle,
};

use crate::{
    cli::SidecarArgs,
    config::Watch,
    forward::{plain, remove_hop_by_hop},
    gateway::loopback_only,
    listen::Phase,
    pipeline::without_port,
    tls::{ExtraRoots, IdentityFiles, Material, sidecar_config},
    upstream::{Address, ClientBody, Dialer, EndpointPool, Resolver, UpstreamBody, UpstreamSettings},
};

/// Connections of agents that are served at a time.
const MAX_CONNECTIONS: usize = 1024;

/// A sidecar that serves.
#[derive(Debug)]
pub struct Sidecar {
    address: SocketAddr,
    phase: watch::Sender<Phase>,
    ended: mpsc::Receiver<()>,
    accepting: JoinHandle<()>,
    rotating: JoinHandle<()>,
    drain_timeout: Duration,
}

#[derive(Debug)]
struct Inner {
    pool: Arc<EndpointPool>,
    /// Host of the gateway, as requests name it.
    host: HeaderValue,
    own: SocketAddr,
    allowed_origins: Vec<String>,
}

impl Sidecar {
    /// Reads the identity, binds the address and serves, within the current tokio runtime.
    ///
    /// # Errors
    /// An address that is not on loopback or cannot be bound, a URL that is not `https://HOST[:PORT]`, an identity
    /// that cannot be used.
    pub async fn start(args: &SidecarArgs) -> anyhow::Result<Self> {
        loopback_only(args.listen, "the sidecar")?;
        let (host, port) = gateway_of(&args.to)?;
        let files = IdentityFiles { dir: Some(args.identity_dir.clone()), bundles: Vec::new() };
        let material = files.read()?;
        let settings = UpstreamSettings {
            resolver: Arc::new(Resolver::lenient(args.resolve.clone())),
            roots: ExtraRoots::read(&args.extra_ca)?,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
        };
        let config = sidecar_config(&material, args.gateway_id.as_ref(), &settings.roots)
            .map_err(|error| anyhow!("`{}`: {error}", args.identity_dir.display()))?;
        let dialer =
            Dialer::new(Some((config, host.clone())), false, &settings).map_err(|error| anyhow!(error))?;
        let pool =
            Arc::new(EndpointPool::new(Address::Name(host.to_ascii_lowercase(), port), Arc::new(dialer)));
        let listener = TcpListener::bind(args.listen)
            .await
            .with_context(|| format!("cannot listen on {}", args.listen))?;
        let address = listener.local_addr().context("the socket has no address")?;
        let authority = args.to.authority().context("the URL has no host")?;
        let inner = Arc::new(Inner {
            pool: Arc::clone(&pool),
            host: HeaderValue::from_str(authority.as_str()).context("the host is no header value")?,
            own: address,
            allowed_origins: args.allowed_origins.iter().map(|origin| origin.to_ascii_lowercase()).collect(),
        });
        let phase = watch::Sender::new(Phase::Serving);
        let (alive, ended) = mpsc::channel(1);
        let accepting = tokio::spawn(accept(listener, inner, phase.subscribe(), alive));
        let rotating = tokio::spawn(rotate(args.clone(), files, material, pool, settings.roots));
        Ok(Self { address, phase, ended, accepting, rotating, drain_timeout: args.drain_timeout })
    }

    /// Where agents connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts no more, and lets open requests end for the drain timeout.
    pub async fn shutdown(mut self) {
        self.accepting.abort();
        self.phase.send_replace(Phase::Draining);
        if tokio::time::timeout(self.drain_timeout, self.ended.recv()).await.is_err() {
            tracing::warn!("the drain timeout is over; open requests are cut off");
        }
        self.phase.send_replace(Phase::Ended);
        self.rotating.abort();
    }
}

fn gateway_of(uri: &Uri) -> anyhow::Result<(String, u16)> {
    let bare = uri.path_and_query().is_none_or(|path| path.as_str() == "/");
    match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(host)) if bare => {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            Ok((host.to_owned(), uri.port_u16().unwrap_or(443)))
        }
        _ => bail!("`{uri}` is not https://HOST[:PORT]; the path is the agent's to choose"),
    }
}

/// Puts new certificates in force: connections from then on use them, those under way end by themselves.
async fn rotate(
    args: SidecarArgs,
    files: IdentityFiles,
    mut current: Material,
    pool: Arc<EndpointPool>,
    roots: ExtraRoots,
) {
    let watch = Watch::new(files.folders().map(Path::new));
    let mut last_error = String::new();
    loop {
        watch.changed().await;
        let read = files.read().and_then(|material| {
            if material.is_same_as(&current) {
                return Ok(None);
            }
            let config = sidecar_config(&material, args.gateway_id.as_ref(), &roots)
                .map_err(|error| anyhow!(error))?;
            Ok(Some((material, config)))
        });
        match read {
            Ok(None) => {}
            Ok(Some((material, config))) => {
                pool.dialer().use_tls(config);
                pool.retire();
                current = material;
                last_error.clear();
                tracing::info!("a new identity is in force");
            }
            Err(error) => {
                let error = format!("{error:#}");
                if error != last_error {
                    tracing::error!(
                        error,
                        "the identity files cannot be used; the identity before stays in force"
                    );
                    last_error = error;
                }
            }
        }
    }
}

async fn accept(
    listener: TcpListener,
    inner: Arc<Inner>,
    phase: watch::Receiver<Phase>,
    alive: mpsc::Sender<()>,
) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(60));
    http.http2().timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(30));
    let http = Arc::new(http);
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let (http, inner, mut phase, alive) =
            (Arc::clone(&http), Arc::clone(&inner), phase.clone(), alive.clone());
        tokio::spawn(async move {
            let mut serving = pin!(http.serve_connection(TokioIo::new(stream), SidecarService(inner)));
            loop {
                tokio::select! {
                    ended = serving.as_mut() => {
                        if let Err(error) = ended {
                            tracing::debug!(%error, "an agent's connection failed");
                        }
                        break;
                    }
                    changed = phase.changed() => {
                        if changed.is_err() || *phase.borrow_and_update() == Phase::Ended {
                            break;
                        }
                        serving.as_mut().graceful_shutdown();
                    }
                }
            }
            drop((permit, alive));
        });
    }
}

#[derive(Debug, Clone)]
struct SidecarService(Arc<Inner>);

impl hyper::service::Service<Request<Incoming>> for SidecarService {
    type Response = Response<UpstreamBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<UpstreamBody>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { Ok(inner.serve(request).await) })
    }
}

impl Inner {
    async fn serve(&self, request: Request<Incoming>) -> Response<UpstreamBody> {
        let (mut parts, body) = request.into_parts();
        if let Err(rejection) = check_target(&parts) {
            return rejection.into_response().map(|body| UpstreamBody::Full(Some(body)));
        }
        if !is_own_host(request_host(&parts).unwrap_or_default(), self.own) {
            return plain(
                StatusCode::MISDIRECTED_REQUEST,
                "the sidecar is reached as localhost or 127.0.0.1 only",
            );
        }
        if let Some(origin) = parts.headers.get(header::ORIGIN) {
            let own = origin
                .to_str()
                .ok()
                .and_then(|origin| origin.strip_prefix("http://"))
                .is_some_and(|host| is_own_host(host, self.own));
            if !own && !origin_matches(origin, &self.allowed_origins) {
                return plain(
                    StatusCode::FORBIDDEN,
                    "this origin may not use the sidecar; see --allowed-origins",
                );
            }
            // The gateway is another host: there, the origin that was let in here would be a foreign one.
            if own {
                parts.headers.remove(header::ORIGIN);
            }
        }
        let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        parts.uri = Uri::from(path);
        remove_hop_by_hop(&mut parts.headers);
        parts.headers.remove(header::EXPECT);
        parts.headers.insert(header::HOST, self.host.clone());
        let body = RequestBody::Streaming(ClientBody::new(body, Duration::from_secs(60)));
        match self.pool.send(Request::from_parts(parts, body)).await {
            Ok(mut response) => {
                *response.version_mut() = http::Version::HTTP_11;
                remove_hop_by_hop(response.headers_mut());
                response
            }
            Err((error, _)) => {
                tracing::warn!(%error, "the gateway gave no response");
                plain(StatusCode::BAD_GATEWAY, "the gateway cannot be reached")
            }
        }
    }
}

/// A name for loopback with the sidecar's own port: what a page that was rebound by DNS cannot send.
fn is_own_host(host: &str, own: SocketAddr) -> bool {
    let name = without_port(host);
    let port = host.get(name.len()..).and_then(|rest| rest.strip_prefix(':'));
    let port = match port {
        None => own.port() == 80,
        Some(port) => port.parse() == Ok(own.port()),
    };
    let name_is_own = name.eq_ignore_ascii_case("localhost")
        || name
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.to_canonical().is_loopback());
    port && name_is_own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_hosts() {
        let own = "127.0.0.1:15001".parse().unwrap();
        for host in ["localhost:15001", "LocalHost:15001", "127.0.0.1:15001", "[::1]:15001"] {
            assert!(is_own_host(host, own), "{host}");
        }
        for host in [
            "localhost",
            "localhost:80",
            "localhost:15002",
            "evil.example:15001",
            "localhost.evil.example:15001",
            "10.0.0.1:15001",
            "",
            "127.0.0.1.evil.example:15001",
            "[::1]",
        ] {
            assert!(!is_own_host(host, own), "{host}");
        }
        assert!(is_own_host("localhost", "127.0.0.1:80".parse().unwrap()));
    }

    #[test]
    fn gateways() {
        let gateway = |text: &str| gateway_of(&text.parse().unwrap()).ok();
        assert_eq!(gateway("https://gw.example"), Some(("gw.example".to_owned(), 443)));
        assert_eq!(gateway("https://gw.example:10001/"), Some(("gw.example".to_owned(), 10001)));
        assert_eq!(gateway("https://[::1]:1"), Some(("::1".to_owned(), 1)));
        for text in ["http://gw.example", "https://gw.example/mcp", "gw.example", "/x"] {
            assert_eq!(gateway(text), None, "{text}");
        }
    }
}
