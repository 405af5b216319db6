//! Where an allowed request goes: on in Envoy.
use std::{
    fmt,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use authz_core::BackendKind;
use authz_tower::RequestBody;
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response,
    header::{CONTENT_TYPE, HOST},
    request::Parts,
};
use http_body::{Body, Frame, SizeHint};
use tokio::{sync::Mutex, time::Instant};
use xds_translate::{Destination, envoy::processor::CLUSTER_HEADER};

use super::{
    answer,
    exchange::{Broken, Exchange},
    lines,
};
use crate::{
    forward::{Carrier, Unseen, Way},
    pipeline::SessionState,
    session::MCP_SESSION_ID,
    upstream::{UpstreamBody, UpstreamError},
};

/// Envoy, for one request.
#[derive(Debug)]
pub(super) struct Envoy {
    pub(super) exchange: Arc<Mutex<Exchange>>,
    /// Until when the caller's identity lasts: nothing outlives it, event streams and uploads included.
    pub(super) until: Option<Instant>,
}

/// Asks for a body.
type Asked = dyn Future<Output = Result<Bytes, Broken>> + Send;

/// A request's body, which Envoy holds until it is asked for.
pub(super) struct HeldBody {
    /// `None`: there is none, or it has been read.
    asked: Option<Pin<Box<Asked>>>,
    /// What Content-Length says.
    announced: Option<u64>,
}

impl HeldBody {
    pub(super) fn new(exchange: &Arc<Mutex<Exchange>>, announced: Option<u64>) -> Self {
        let exchange = Arc::clone(exchange);
        Self { asked: Some(Box::pin(async move { exchange.lock().await.body().await })), announced }
    }

    pub(super) fn none() -> Self {
        Self { asked: None, announced: None }
    }
}

impl fmt::Debug for HeldBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldBody").field("announced", &self.announced).finish_non_exhaustive()
    }
}

impl Body for HeldBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let Some(asked) = &mut self.asked else { return Poll::Ready(None) };
        let body = ready!(asked.as_mut().poll(cx));
        self.asked = None;
        self.announced = None;
        Poll::Ready(Some(body.map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.asked, self.announced) {
            (None, _) => SizeHint::with_exact(0),
            (Some(_), Some(announced)) => SizeHint::with_exact(announced),
            (Some(_), None) => SizeHint::default(),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.asked.is_none()
    }
}

impl Carrier for Envoy {
    type Body = HeldBody;

    async fn carry(
        self,
        request: Request<RequestBody<HeldBody>>,
        way: Way<'_>,
    ) -> Result<(Response<UpstreamBody>, Option<SocketAddr>), UpstreamError> {
        let upstream = &way.planned.upstream;
        let endpoints = upstream.choose(way.planned.pinned()).await?;
        let session = match &way.planned.session {
            // Where the response comes by here, its own id is looked at.
            SessionState::Open { sealed, .. } if !way.response_matters => sealed.to_str().ok(),
            _ => None,
        };
        let (parts, _) = request.into_parts();
        let mut exchange = self.exchange.lock().await;
        let end = [way.deadline, self.until].into_iter().flatten().min();
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        let change = change(exchange.request(), parts, upstream.name(), left).map_err(UpstreamError::Lost)?;
        let watched = exchange.is_watched();
        let metadata = answer::metadata(&endpoints, session, &watched);
        exchange.let_through(change, metadata, way.response_matters).await.map_err(lost)?;
        if !way.response_matters {
            let mut response = Response::new(exchange.unseen());
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
            response.extensions_mut().insert(Unseen);
            return Ok((response, None));
        }
        let (response, came_from) = exchange.response().await.map_err(lost)?;
        let has_session = way.planned.kind != BackendKind::Service
            && way.planned.session != SessionState::Stateless
            && response.headers().contains_key(MCP_SESSION_ID);
        let endpoint = match &upstream.backend().destination {
            Destination::Hostname { .. } => None,
            // A session that is sealed with another endpoint than the one that has it would be lost, or another's.
            Destination::Endpoints(_)
                if has_session && (came_from.is_none() || !upstream.has_endpoint(came_from)) =>
            {
                return Err(UpstreamError::Lost("the proxy does not say which endpoint opened the session"));
            }
            Destination::Endpoints(_) => came_from,
        };
        Ok((response, endpoint))
    }
}

fn lost(broken: Broken) -> UpstreamError {
    UpstreamError::Lost(broken.0)
}

/// Counts from the request's end, and answers 504.
const TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-timeout-ms");
/// Counts from the request's begin: one that does not end, ends.
const STREAM_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-upstream-stream-duration-ms");
const CLUSTER: HeaderName = HeaderName::from_static(CLUSTER_HEADER);
/// What ends later is not told to Envoy: no connection lasts so long.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// What Envoy has to change of a request so that it is sent as `wanted`.
fn change(
    before: &[lines::Line],
    wanted: Parts,
    cluster: &str,
    left: Option<Duration>,
) -> Result<envoy_types::pb::envoy::service::ext_proc::v3::HeaderMutation, &'static str> {
    let mut headers = wanted.headers;
    let host = headers.remove(HOST).ok_or("the request has no host")?;
    let path = wanted.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    remove_envoys_own(&mut headers);
    headers.insert(
        CLUSTER,
        HeaderValue::from_str(cluster).map_err(|_error| "the backend's name is no header value")?,
    );
    if let Some(left) = left.filter(|left| *left < LONGEST) {
        let left = left.as_millis().max(1);
        let left = HeaderValue::from(u64::try_from(left).unwrap_or(u64::MAX));
        headers.insert(STREAM_TIMEOUT, left.clone());
        headers.insert(TIMEOUT, left);
    }
    let pseudo = [
        (":method", wanted.method.as_str().as_bytes()),
        (":path", path.as_bytes()),
        (":authority", host.as_bytes()),
    ];
    Ok(lines::difference(before, &headers, &pseudo, &lines::FRAMING))
}

/// They tell Envoy what to do (retries, timeouts, the cluster): nobody outside may.
fn remove_envoys_own(headers: &mut HeaderMap) {
    let own: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("x-envoy-") || **name == CLUSTER)
        .cloned()
        .collect();
    for name in own {
        headers.remove(name);
    }
}
