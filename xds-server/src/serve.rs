//! The server: connections, who they are, and how long they last.
mod ads;
mod peer;

use std::{
    collections::HashMap,
    future::{Future, pending},
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use spiffe_id::SpiffeId;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use self::{ads::Ads, peer::Peer};
use crate::Cache;

/// Handshakes at a time; more wait in the socket's backlog.
const MAX_HANDSHAKES: usize = 256;
/// Handshakes of one address at a time; more are closed at once.
const MAX_HANDSHAKES_OF_ADDRESS: usize = 16;
/// Connections of admitted clients.
const MAX_CONNECTIONS: usize = 8192;
const MAX_STREAMS: u32 = 8;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may take to open a stream.
const FIRST_STREAM: Duration = Duration::from_secs(10);
/// How long a connection that is to end may take to say good-bye.
const GOODBYE: Duration = Duration::from_secs(1);
const MAX_HEADERS: u32 = 16 << 10;
/// A client that comes back names all that it has, with versions: about 100 bytes for each resource.
const MAX_REQUEST: usize = 16 << 20;
const MAX_RESPONSE: usize = 256 << 20;
/// Pause after the system could not give a connection (it has no file descriptors left, for one).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// So many failures in a row are for good.
const ACCEPT_FAILURES: u32 = 100;

/// Which group a verified identity belongs to; `None` refuses it. Asked at each connection, each stream, each request
/// and each publication: it has to be cheap, and must not wait.
pub type Admit = Arc<dyn Fn(&SpiffeId) -> Option<Arc<str>> + Send + Sync>;

/// Why the server ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The socket.
    #[error("the discovery service cannot accept connections: {0}")]
    Accept(#[from] std::io::Error),
}

type Tls = watch::Receiver<Arc<rustls::ServerConfig>>;

/// What all connections share.
#[derive(Clone)]
struct Server {
    tls: Tls,
    admit: Admit,
    cache: Cache,
    connections: Arc<Semaphore>,
    /// Turns true when the server ends.
    ending: watch::Receiver<bool>,
}

/// Handshakes in progress, by address.
type Handshakes = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// One of them; it ends when this goes.
struct Handshaking {
    all: Handshakes,
    address: IpAddr,
}

impl Handshaking {
    /// `None`: the address has too many.
    fn begin(all: &Handshakes, address: IpAddr) -> Option<Self> {
        let mut counts = all.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= MAX_HANDSHAKES_OF_ADDRESS {
            return None;
        }
        *count += 1;
        Some(Self { all: Arc::clone(all), address })
    }
}

impl Drop for Handshaking {
    fn drop(&mut self) {
        let mut counts = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// Serves ADS until `shutdown` ends. `tls` is read at each new connection: a configuration that requires and verifies
/// client certificates (the leaf's SPIFFE ID is read here, after rustls verified the chain) and offers ALPN `h2`.
/// Reports and counts are read from the cache.
///
/// Connections end with the certificate that they began with, and when `tls` changes: streams end with `UNAVAILABLE`, and
/// clients that come back are verified by the roots of now. When `shutdown` ends, streams end with `UNAVAILABLE`, so
/// that clients go elsewhere, and connections within a second.
///
/// # Errors
/// A socket that fails for good.
pub async fn serve(
    listener: TcpListener,
    tls: watch::Receiver<Arc<rustls::ServerConfig>>,
    admit: Admit,
    cache: Cache,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let (end, ending) = watch::channel(false);
    let server = Server { tls, admit, cache, connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)), ending };
    let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    let by_address = Handshakes::default();
    let mut tasks = JoinSet::new();
    let mut failures = 0;
    let mut shutdown = pin!(shutdown);
    let result = loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break Ok(()),
            Some(ended) = tasks.join_next() => {
                log_panic(ended);
                continue;
            }
            accepted = accept(&listener, &handshakes) => accepted,
        };
        match accepted {
            Ok((stream, address, permit)) => {
                failures = 0;
                let address = address.ip().to_canonical();
                let Some(handshaking) = Handshaking::begin(&by_address, address) else {
                    server.cache.counters().refused.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(%address, "a connection was refused: too many handshakes at a time");
                    continue;
                };
                let server = server.clone();
                tasks.spawn(async move {
                    let handshaken = server.handshake(stream).await;
                    drop((permit, handshaking));
                    match handshaken {
                        Ok((stream, peer, tls)) => server.connection(stream, peer, tls).await,
                        Err(reason) => {
                            server.cache.counters().refused.fetch_add(1, Ordering::Relaxed);
                            tracing::info!(reason, "a connection was refused");
                        }
                    }
                });
            }
            Err(error) if failures >= ACCEPT_FAILURES => break Err(error.into()),
            Err(error) => {
                failures += 1;
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    };
    drop(listener);
    end.send_replace(true);
    while let Some(ended) = tasks.join_next().await {
        log_panic(ended);
    }
    result
}

async fn accept(
    listener: &TcpListener,
    handshakes: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, SocketAddr, Option<OwnedSemaphorePermit>)> {
    // The semaphore is never closed.
    let permit = Arc::clone(handshakes).acquire_owned().await.ok();
    let (stream, address) = listener.accept().await?;
    Ok((stream, address, permit))
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task failed");
    }
}

impl Server {
    /// The connection, who is there, and what tells when another configuration than its own is to be used.
    async fn handshake(&self, stream: TcpStream) -> Result<(TlsStream<TcpStream>, Peer, Tls), String> {
        let address = stream.peer_addr().map_err(|error| error.to_string())?.ip();
        let refused = |reason: &dyn std::fmt::Display| format!("{address}: {reason}");
        if let Err(error) = stream.set_nodelay(true) {
            return Err(refused(&error));
        }
        let mut tls = self.tls.clone();
        let config = Arc::clone(&tls.borrow_and_update());
        let mut ending = self.ending.clone();
        let handshake = timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(stream));
        let stream = tokio::select! {
            handshaken = handshake => match handshaken {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return Err(refused(&error)),
                Err(_) => return Err(refused(&"the handshake took too long")),
            },
            _ = ending.wait_for(|ending| *ending) => return Err(refused(&"the server ends")),
        };
        let connection = stream.get_ref().1;
        if connection.alpn_protocol() != Some(b"h2") {
            return Err(refused(&"the client does not speak HTTP/2 (ALPN `h2`)"));
        }
        let peer = Peer::admitted(connection.peer_certificates(), address, &self.admit)
            .map_err(|reason| refused(&reason))?;
        Ok((stream, peer, tls))
    }

    /// One client's connection, to its end.
    async fn connection(&self, stream: TlsStream<TcpStream>, peer: Peer, tls: Tls) {
        let counters = self.cache.counters();
        let Ok(_permit) = self.connections.try_acquire() else {
            counters.refused.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(client = %peer.id, "a connection was refused: there are too many");
            return;
        };
        let (client, expires) = (peer.id.clone(), peer.expires);
        tracing::debug!(%client, address = %peer.address, group = %peer.group, "connected");
        let (end, ending) = watch::channel(false);
        let used = Arc::new(AtomicBool::new(false));
        let ads = Ads::new(self.cache.clone(), Arc::clone(&self.admit), peer, ending, Arc::clone(&used));
        let service = AggregatedDiscoveryServiceServer::new(ads)
            .max_decoding_message_size(MAX_REQUEST)
            .max_encoding_message_size(MAX_RESPONSE);
        let mut http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEADERS)
            .keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT);
        let mut serving =
            pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)));
        let result = tokio::select! {
            result = &mut serving => result,
            reason = self.ended(tls, expires, &used) => {
                tracing::debug!(%client, reason, "a connection is ended");
                // Its streams end by themselves, with a reason.
                end.send_replace(true);
                serving.as_mut().graceful_shutdown();
                timeout(GOODBYE, serving).await.unwrap_or(Ok(()))
            }
        };
        match result {
            Ok(()) => tracing::debug!(%client, "disconnected"),
            Err(error) => tracing::debug!(%client, %error, "disconnected"),
        }
    }

    /// Waits until a connection has to end; why.
    async fn ended(&self, mut tls: Tls, expires: Instant, used: &AtomicBool) -> &'static str {
        let mut ending = self.ending.clone();
        let replaced = async {
            // Without its sender the configuration never changes.
            if tls.changed().await.is_err() {
                pending().await
            }
        };
        let unused = async {
            sleep(FIRST_STREAM).await;
            if used.load(Ordering::Relaxed) {
                pending().await
            }
        };
        tokio::select! {
            _ = ending.wait_for(|ending| *ending) => "the server ends",
            () = sleep_until(expires) => "the client's certificate has expired",
            () = replaced => "the TLS configuration changed",
            () = unused => "it opened no stream",
        }
    }
}
