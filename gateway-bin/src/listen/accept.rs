//! From an accepted socket to a served connection.
use std::{
    error::Error as _,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::HeaderValue;
use hyper_util::{rt::TokioIo, server::conn::auto};
use prometheus_client::metrics::gauge::Gauge;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::OwnedSemaphorePermit,
    time::Instant,
};
use xds_translate::Protocol;

use super::{Acceptor, NOTICE, Phase, framing::FramingGuard, tls};
use crate::connection::{Connection, ConnectionService};

/// Accepts until it is aborted.
pub(super) async fn accept(acceptor: Arc<Acceptor>, listener: TcpListener, port: u16) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // The limit makes clients wait, all but this one in the kernel's queue; it refuses nobody who can wait. A
                // listener that has nobody to serve takes no permit from the others.
                let Ok(permit) = Arc::clone(&acceptor.connections).acquire_owned().await else { return };
                tokio::spawn(serve(Arc::clone(&acceptor), stream, peer, port, permit));
            }
            Err(error) => {
                tracing::warn!(port, %error, "cannot accept");
                // Out of file descriptors, most likely: trying again at once would only burn time.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve(
    acceptor: Arc<Acceptor>,
    stream: TcpStream,
    peer: SocketAddr,
    port: u16,
    permit: OwnedSemaphorePermit,
) {
    let _open = Open::new(acceptor.shared.telemetry.metrics.connections.clone());
    let alive = acceptor.alive.clone();
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "cannot set TCP_NODELAY");
    }
    let https = acceptor
        .shared
        .runtime
        .load()
        .on_port(port)
        .and_then(|gateway| gateway.snapshot.listeners.iter().find(|listener| listener.port == port))
        .map(|listener| listener.protocol == Protocol::Https);
    match https {
        // The port was closed since.
        None => {}
        Some(true) => Box::pin(tls::serve(&acceptor, stream, peer, port)).await,
        Some(false) => {
            let connection = Connection {
                gateway: None,
                port,
                peer,
                local: stream.local_addr().ok(),
                tls: false,
                admitted: None,
                identity: None,
                forwarded_for: address_value(peer),
                backend: None,
                used: AtomicBool::new(false),
                closing: AtomicBool::new(false),
            };
            Box::pin(serve_http(&acceptor, &acceptor.http.any, stream, connection, None)).await;
        }
    }
    drop((alive, permit));
}

/// Counts one open connection, however it ends.
struct Open(Gauge);

impl Open {
    fn new(connections: Gauge) -> Self {
        connections.inc();
        Self(connections)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

pub(crate) fn address_value(peer: SocketAddr) -> HeaderValue {
    HeaderValue::try_from(peer.ip().to_canonical().to_string())
        .unwrap_or_else(|_error| HeaderValue::from_static("unknown"))
}

/// Serves requests until the client goes, the process drains, or `ends` has passed.
pub(super) async fn serve_http<IO>(
    acceptor: &Acceptor,
    http: &auto::Builder<hyper_util::rt::TokioExecutor>,
    io: IO,
    connection: Connection,
    ends: Option<Duration>,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = Arc::new(connection);
    let metrics = &acceptor.shared.telemetry.metrics;
    let service =
        ConnectionService { shared: Arc::clone(&acceptor.shared), connection: Arc::clone(&connection) };
    let mut serving = pin!(http.serve_connection(TokioIo::new(FramingGuard::new(io)), service));
    let mut phase = acceptor.phase.clone();
    let mut first_request = pin!(tokio::time::sleep(acceptor.header_timeout));
    let mut waiting = true;
    let mut expiry = pin!(tokio::time::sleep(ends.unwrap_or(Duration::from_secs(31_536_000))));
    let mut draining = *phase.borrow_and_update() != Phase::Serving;
    connection.closing.store(draining, Ordering::Relaxed);
    let mut notice = pin!(tokio::time::sleep(NOTICE));
    let mut told = false;
    loop {
        tokio::select! {
            biased;
            ended = serving.as_mut() => {
                if let Err(error) = ended {
                    let reason = failure(error.as_ref());
                    metrics.connection_failed(reason);
                    tracing::debug!(peer = %connection.peer, reason, %error, "a client connection failed");
                }
                return;
            }
            // Neither the preface of HTTP/2 nor the first byte of a request is waited for any longer.
            () = first_request.as_mut(), if waiting => {
                waiting = false;
                if !connection.used.load(Ordering::Relaxed) {
                    metrics.connection_failed("timeout");
                    return;
                }
            }
            () = expiry.as_mut(), if ends.is_some() => {
                metrics.connection_failed("expired");
                tracing::info!(peer = %connection.peer, "closed: the client's certificate has expired");
                return;
            }
            // An idle connection that is closed at once may be one on which a request is under way.
            () = notice.as_mut(), if draining && !told => {
                told = true;
                serving.as_mut().graceful_shutdown();
            }
            changed = phase.changed() => {
                let now = if changed.is_ok() { *phase.borrow_and_update() } else { Phase::Ended };
                if now == Phase::Ended {
                    return;
                }
                if now == Phase::Draining && !draining {
                    draining = true;
                    connection.closing.store(true, Ordering::Relaxed);
                    notice.as_mut().reset(Instant::now() + NOTICE);
                }
            }
        }
    }
}

/// Why HTTP on a client connection failed: a label.
fn failure(error: &(dyn std::error::Error + 'static)) -> &'static str {
    let Some(error) = error.downcast_ref::<hyper::Error>() else { return "lost" };
    let http2 = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    match http2 {
        Some(http2) if http2.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM) => "flood",
        Some(http2) if http2.is_io() || http2.is_remote() => "lost",
        Some(_) => "malformed",
        None if error.is_timeout() => "timeout",
        None if error.is_parse_too_large() => "head_too_large",
        None if error.is_parse() => "malformed",
        None if error.is_user() => "response_broken",
        // In the middle of a message, or of nothing.
        None => "lost",
    }
}
