//! /healthz, /readyz and /metrics.
use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};

use super::metrics::Metrics;

/// Connections that are served at a time.
const MAX_CONNECTIONS: usize = 64;

/// How long a request's head, and a connection as a whole, may take: every Pod reaches this port, and the kubelet's probes
/// are to find a place.
const HEADER: Duration = Duration::from_secs(2);
const WHOLE: Duration = Duration::from_secs(5);

/// How far the start is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Starting,
    /// Every kind was listed, and what follows from it is known.
    Reconciled,
    /// Discovery is served too.
    Ready,
}

/// Whether the controller is ready.
#[derive(Debug)]
pub(super) struct Health {
    stage: watch::Sender<Stage>,
}

impl Default for Health {
    fn default() -> Self {
        Self { stage: watch::Sender::new(Stage::Starting) }
    }
}

impl Health {
    pub(super) fn become_reconciled(&self) {
        self.reach(Stage::Reconciled);
    }

    pub(super) fn become_ready(&self) {
        self.reach(Stage::Ready);
    }

    fn reach(&self, stage: Stage) {
        self.stage.send_if_modified(|now| {
            let further = *now < stage;
            if further {
                *now = stage;
            }
            further
        });
    }

    /// Waits until everything was listed and reconciled once.
    pub(super) async fn reconciled(&self) {
        // The sender lives in `self`.
        drop(self.stage.subscribe().wait_for(|stage| *stage >= Stage::Reconciled).await);
    }

    fn is_ready(&self) -> bool {
        *self.stage.borrow() == Stage::Ready
    }
}

/// Serves until the process ends.
pub(super) async fn serve(
    listener: TcpListener,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
) -> anyhow::Result<()> {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let permit = Arc::clone(&connections).acquire_owned().await?;
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: others may be closed soon.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (health, metrics) = (Arc::clone(&health), Arc::clone(&metrics));
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let response = answer(request.method(), request.uri().path(), health.is_ready(), &metrics);
                async move { Ok::<_, Infallible>(response) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .keep_alive(false)
                .header_read_timeout(HEADER)
                .serve_connection(TokioIo::new(stream), service);
            match tokio::time::timeout(WHOLE, served).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "an admin connection failed"),
                Err(_elapsed) => tracing::debug!("an admin connection took too long"),
            }
            drop(permit);
        });
    }
}

fn answer(method: &Method, path: &str, ready: bool, metrics: &Metrics) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain";
    let (status, content_type, body) = match (method, path) {
        (&Method::GET | &Method::HEAD, "/healthz") => (StatusCode::OK, TEXT, "ok\n".to_owned()),
        (&Method::GET | &Method::HEAD, "/readyz") if ready => (StatusCode::OK, TEXT, "ready\n".to_owned()),
        (&Method::GET | &Method::HEAD, "/readyz") => {
            (StatusCode::SERVICE_UNAVAILABLE, TEXT, "not ready\n".to_owned())
        }
        (&Method::GET | &Method::HEAD, "/metrics") => {
            (StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", metrics.encode())
        }
        (_, "/healthz" | "/readyz" | "/metrics") => {
            (StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n".to_owned())
        }
        _ => (StatusCode::NOT_FOUND, TEXT, "/healthz, /readyz, /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use xds_server::Cache;

    use super::*;

    #[test]
    fn stages_only_go_forward() {
        let health = Health::default();
        assert!(!health.is_ready());
        health.become_ready();
        health.become_reconciled();
        assert!(health.is_ready());
    }

    #[test]
    fn answers() {
        let metrics = Metrics::new(Cache::default(), Arc::default());
        #[track_caller]
        fn check(metrics: &Metrics, method: Method, path: &str, ready: bool, expected: u16) {
            assert_eq!(answer(&method, path, ready, metrics).status().as_u16(), expected, "{method} {path}");
        }
        check(&metrics, Method::GET, "/healthz", false, 200);
        check(&metrics, Method::GET, "/readyz", false, 503);
        check(&metrics, Method::GET, "/readyz", true, 200);
        check(&metrics, Method::GET, "/metrics", false, 200);
        check(&metrics, Method::POST, "/metrics", true, 405);
        check(&metrics, Method::GET, "/config_dump", true, 404);
    }
}
