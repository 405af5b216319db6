//! /healthz, /readyz and /metrics.
use std::{
    convert::Infallible,
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
    task::JoinHandle,
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
    /// A configuration is in force and all sockets are bound.
    pub(crate) fn become_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }
}

/// Binds the address and serves.
pub(crate) async fn serve(
    address: SocketAddr,
    shared: Arc<Shared>,
    health: Arc<Health>,
    phase: watch::Receiver<Phase>,
) -> anyhow::Result<(SocketAddr, JoinHandle<()>)> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} for --admin-addr"))?;
    let bound = listener.local_addr().context("the admin socket has no address")?;
    if !bound.ip().is_loopback() {
        tracing::warn!(address = %bound, "the admin address is not on loopback: anybody who reaches it reads the metrics");
    }
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let task = tokio::spawn(async move {
        loop {
            let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let (shared, health, phase) = (Arc::clone(&shared), Arc::clone(&health), phase.clone());
            tokio::spawn(async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let ready = health.ready.load(Ordering::Acquire) && *phase.borrow() == Phase::Serving;
                    let response = answer(&request, &shared, ready);
                    async move { Ok::<_, Infallible>(response) }
                });
                let served = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(Duration::from_secs(10))
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
                if let Err(error) = served {
                    tracing::debug!(%error, "an admin connection failed");
                }
                drop(permit);
            });
        }
    });
    Ok((bound, task))
}

fn answer(request: &Request<Incoming>, shared: &Shared, ready: bool) -> Response<Full<Bytes>> {
    let (status, content_type, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/healthz") => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
        (&Method::GET | &Method::HEAD, "/readyz") if ready => {
            (StatusCode::OK, "text/plain", "ready\n".to_owned())
        }
        (&Method::GET | &Method::HEAD, "/readyz") => {
            (StatusCode::SERVICE_UNAVAILABLE, "text/plain", "not ready\n".to_owned())
        }
        (&Method::GET | &Method::HEAD, "/metrics") => {
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
        (_, "/healthz" | "/readyz" | "/metrics") => {
            (StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET\n".to_owned())
        }
        _ => (StatusCode::NOT_FOUND, "text/plain", "/healthz, /readyz, /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
