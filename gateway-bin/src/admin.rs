//! /healthz, /readyz and /metrics.
use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    time::timeout,
};

use crate::{connection::Shared, listen::Phase};

/// Connections that are served at a time.
const MAX_CONNECTIONS: usize = 64;

/// Whether the gateway serves.
#[derive(Debug, Default)]
pub(crate) struct Health {
    ready: AtomicBool,
}

impl Health {
    /// Whether [`become_ready`](Self::become_ready) was called.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// A configuration is in force.
    pub(crate) fn become_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }
}

/// What is served at an address.
#[derive(Debug, Clone)]
pub(crate) enum Pages {
    /// `--admin-addr`: health and metrics.
    All(Arc<Shared>),
    /// `--health-addr`: health alone.
    Health,
}

/// How long clients may take.
#[derive(Debug, Clone, Copy)]
struct Times {
    header: Duration,
    /// One request, then; `None`: as many as it likes.
    connection: Option<Duration>,
}

impl Pages {
    fn times(&self) -> Times {
        match self {
            Self::All(_) => Times { header: Duration::from_secs(10), connection: None },
            // Whoever reaches the Pod reaches it: none may keep a place that a probe needs.
            Self::Health => {
                Times { header: Duration::from_secs(2), connection: Some(Duration::from_secs(5)) }
            }
        }
    }

    fn flag(&self) -> &'static str {
        match self {
            Self::All(_) => "--admin-addr",
            Self::Health => "--health-addr",
        }
    }
}

/// Binds the address; the future serves.
pub(crate) async fn serve(
    address: SocketAddr,
    pages: Pages,
    health: Arc<Health>,
    phase: watch::Receiver<Phase>,
) -> anyhow::Result<(SocketAddr, impl Future<Output = ()>)> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} for {}", pages.flag()))?;
    let bound = listener.local_addr().context("the admin socket has no address")?;
    if !bound.ip().is_loopback() && matches!(pages, Pages::All(_)) {
        tracing::warn!(address = %bound, "the admin address is not on loopback: anybody who reaches it reads the metrics");
    }
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let times = pages.times();
    let serving = async move {
        loop {
            let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let (pages, health, phase) = (pages.clone(), Arc::clone(&health), phase.clone());
            tokio::spawn(async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let ready = health.is_ready() && *phase.borrow() == Phase::Serving;
                    let response = answer(&request, &pages, ready);
                    async move { Ok::<_, Infallible>(response) }
                });
                let mut http = http1::Builder::new();
                http.timer(TokioTimer::new())
                    .header_read_timeout(times.header)
                    .keep_alive(times.connection.is_none());
                let serving = http.serve_connection(TokioIo::new(stream), service);
                let served = match times.connection {
                    Some(limit) => timeout(limit, serving).await.unwrap_or(Ok(())),
                    None => serving.await,
                };
                if let Err(error) = served {
                    tracing::debug!(%error, "an admin connection failed");
                }
                drop(permit);
            });
        }
    };
    Ok((bound, serving))
}

fn answer(request: &Request<Incoming>, pages: &Pages, ready: bool) -> Response<Full<Bytes>> {
    let (status, content_type, body) = match (request.method(), request.uri().path(), pages) {
        (&Method::GET | &Method::HEAD, "/healthz", _) => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
        (&Method::GET | &Method::HEAD, "/readyz", _) if ready => {
            (StatusCode::OK, "text/plain", "ready\n".to_owned())
        }
        (&Method::GET | &Method::HEAD, "/readyz", _) => {
            (StatusCode::SERVICE_UNAVAILABLE, "text/plain", "not ready\n".to_owned())
        }
        (&Method::GET | &Method::HEAD, "/metrics", Pages::All(shared)) => {
            let mut text = shared.telemetry.metrics.encode();
            let dropped = shared.telemetry.access_log.dropped();
            if let Some(end) = text.rfind("# EOF") {
                text.insert_str(
                    end,
                    &format!(
                        "# HELP agentic_gateway_access_log_dropped Log lines that nobody read in time.\n\
                         # TYPE agentic_gateway_access_log_dropped counter\n\
                         agentic_gateway_access_log_dropped_total {dropped}\n"
                    ),
                );
            }
            (StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", text)
        }
        (_, "/healthz" | "/readyz", _) | (_, "/metrics", Pages::All(_)) => {
            (StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET\n".to_owned())
        }
        (_, _, Pages::All(_)) => {
            (StatusCode::NOT_FOUND, "text/plain", "/healthz, /readyz, /metrics\n".to_owned())
        }
        (_, _, Pages::Health) => (StatusCode::NOT_FOUND, "text/plain", "/healthz, /readyz\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
