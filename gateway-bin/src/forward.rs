//! The inner service: what a request that was allowed goes through on its way to its backend and back.
mod headers;

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use authz_tower::{RequestBody, ResponseMatters, request_host};
use bytes::Bytes;
use http::{
    HeaderValue, Request, Response, StatusCode, Uri, Version,
    header::{CONTENT_TYPE, HOST},
    request::Parts,
    uri::PathAndQuery,
};
use http_body::Body;
use mcp_jsonrpc::{ReplyId, error_reply};
use tokio::time::Instant;
use tower_service::Service;
use xds_translate::Destination;

pub(crate) use self::headers::{remove_hop_by_hop, remove_request_headers};
use crate::{
    connection::{Connection, Shared},
    pipeline::{Planned, SessionState},
    session::{MCP_SESSION_ID, Session},
    telemetry::Record,
    upstream::{ClientBody, Told, UpstreamBody, UpstreamError},
};

/// A session id of a server that is longer is not sealed.
const MAX_SERVER_SESSION_ID: usize = 2048;

/// Who takes an allowed request to its backend: this process, or the proxy that asked it to decide.
pub(crate) trait Carrier: Send + 'static {
    /// The client's body.
    type Body: Body<Data = Bytes> + Send + Unpin + 'static;

    /// Takes one request (path in its URI, host in its Host header) to the backend. With the response comes the endpoint
    /// that gave it; `None` where the backend is a host name.
    fn carry(
        self,
        request: Request<RequestBody<Self::Body>>,
        way: Way<'_>,
    ) -> impl Future<Output = Result<(Response<UpstreamBody>, Option<SocketAddr>), UpstreamError>> + Send;
}

/// What a carrier is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way<'a> {
    pub(crate) planned: &'a Planned,
    /// When the response must have ended.
    pub(crate) deadline: Option<Instant>,
    /// Whether anything is done with the response here. If not, the carrier may return an [`Unseen`] one: an event stream
    /// that never ends, so that it is known when the real one must, should it be one.
    pub(crate) response_matters: bool,
}

/// Extension of a response that stands for one that is not seen here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unseen;

/// This process sends the request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Direct;

impl Carrier for Direct {
    type Body = ClientBody;

    async fn carry(
        self,
        request: Request<RequestBody<ClientBody>>,
        way: Way<'_>,
    ) -> Result<(Response<UpstreamBody>, Option<SocketAddr>), UpstreamError> {
        way.planned.upstream.send(request, way.planned.pinned()).await
    }
}

/// Forwards one request.
pub(crate) struct Forward<C> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) connection: Arc<Connection>,
    pub(crate) work: Option<(Planned, C)>,
    /// Whether the response gets CORS headers.
    pub(crate) adds_cors: bool,
    pub(crate) record: Arc<Record>,
    pub(crate) received: Instant,
}

impl<C: Carrier> Service<Request<RequestBody<C::Body>>> for Forward<C> {
    type Response = Response<UpstreamBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<UpstreamBody>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    /// Serves one request: it was made for it.
    fn call(&mut self, request: Request<RequestBody<C::Body>>) -> Self::Future {
        let work = self.work.take();
        let adds_cors = self.adds_cors;
        let shared = Arc::clone(&self.shared);
        let connection = Arc::clone(&self.connection);
        let record = Arc::clone(&self.record);
        let received = self.received;
        Box::pin(async move {
            let response = match work {
                Some((planned, carrier)) => {
                    let matters = adds_cors || response_matters(&planned, request.extensions());
                    let sending = Sending { planned: &planned, received, response_matters: matters };
                    forward(&shared, &connection, sending, &record, carrier, request).await
                }
                None => plain(StatusCode::INTERNAL_SERVER_ERROR, "the request was sent before"),
            };
            Ok(response)
        })
    }
}

/// Whether [`finish`] or the layer may change a response.
fn response_matters(planned: &Planned, request: &http::Extensions) -> bool {
    let filters = planned.weighted().map(|weighted| &weighted.filters.response_headers);
    let begins_session = match &planned.session {
        SessionState::None | SessionState::Stateless => true,
        SessionState::Untouched | SessionState::Open { .. } | SessionState::Unknown => false,
    };
    begins_session
        || request.get::<ResponseMatters>().is_some()
        || [Some(&planned.rule.filters.response_headers), filters]
            .into_iter()
            .flatten()
            .any(|filter| !filter.set.is_empty() || !filter.add.is_empty() || !filter.remove.is_empty())
}

/// A request that is to be sent.
struct Sending<'a> {
    planned: &'a Planned,
    received: Instant,
    response_matters: bool,
}

async fn forward<C: Carrier>(
    shared: &Shared,
    connection: &Connection,
    sending: Sending<'_>,
    record: &Record,
    carrier: C,
    request: Request<RequestBody<C::Body>>,
) -> Response<UpstreamBody> {
    let Sending { planned, received, response_matters } = sending;
    if planned.session == SessionState::Unknown {
        return unknown_session();
    }
    let (mut parts, body) = request.into_parts();
    if let Err(why) = rewrite(&mut parts, planned, connection) {
        record.failed(why.to_owned());
        return plain(StatusCode::INTERNAL_SERVER_ERROR, why);
    }
    let timeouts = planned.rule.timeouts;
    let deadline = [
        timeouts.request.map(|timeout| received + timeout),
        timeouts.backend_request.map(|timeout| Instant::now() + timeout),
    ]
    .into_iter()
    .flatten()
    .min();
    let way = Way { planned, deadline, response_matters };
    let sent = carrier.carry(Request::from_parts(parts, body), way);
    let sent = match deadline {
        None => sent.await,
        Some(deadline) => {
            tokio::time::timeout_at(deadline, sent).await.unwrap_or(Err(UpstreamError::TimedOut))
        }
    };
    match sent {
        Ok((mut response, endpoint)) => {
            response.body_mut().tell(Told {
                broken: shared.telemetry.metrics.broken_responses.clone(),
                backend: Arc::clone(&planned.upstream),
            });
            if let Some(deadline) = deadline {
                response.body_mut().ends_by(deadline);
            }
            match finish(shared, connection, planned, &mut response, endpoint) {
                Ok(()) => response,
                Err(why) => {
                    record.failed(why.to_owned());
                    plain(StatusCode::BAD_GATEWAY, why)
                }
            }
        }
        Err(error) => {
            record.failed(error.to_string());
            match error {
                UpstreamError::NoEndpoint | UpstreamError::Connect(_) => {
                    plain(StatusCode::SERVICE_UNAVAILABLE, "the backend cannot be reached")
                }
                UpstreamError::Failed(_) | UpstreamError::Lost(_) => {
                    plain(StatusCode::BAD_GATEWAY, "the backend failed")
                }
                UpstreamError::TimedOut => plain(StatusCode::GATEWAY_TIMEOUT, "the backend took too long"),
            }
        }
    }
}

/// Makes the request that was received into the one that is sent.
fn rewrite(parts: &mut Parts, planned: &Planned, connection: &Connection) -> Result<(), &'static str> {
    let weighted = planned.weighted().ok_or("the route has no backend")?;
    let host = match weighted.filters.hostname.as_ref().or(planned.rule.filters.hostname.as_ref()) {
        Some(host) => HeaderValue::from_str(host),
        None => match &planned.upstream.backend().destination {
            // What stands behind a public name knows itself by that name only.
            Destination::Hostname { host, port: 443 } => HeaderValue::from_str(host),
            Destination::Hostname { host, port } => HeaderValue::try_from(format!("{host}:{port}")),
            Destination::Endpoints(_) => HeaderValue::from_str(request_host(parts).unwrap_or_default()),
        },
    };
    let host = host.map_err(|_error| "the host is no header value")?;
    // The query is the request's own: an authorizer may have changed it.
    let path_and_query = match (&planned.path, parts.uri.query()) {
        (None, _) => parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")),
        (Some(path), None) => {
            PathAndQuery::try_from(path.as_str()).map_err(|_error| "the rewritten path is no path")?
        }
        (Some(path), Some(query)) => PathAndQuery::try_from(format!("{path}?{query}"))
            .map_err(|_error| "the rewritten path is no path")?,
    };
    parts.uri = Uri::from(path_and_query);
    remove_request_headers(&mut parts.headers);
    match &planned.session {
        SessionState::Stateless => {
            parts.headers.remove(MCP_SESSION_ID);
        }
        SessionState::Open { session, .. } => {
            let id = HeaderValue::from_str(&session.server_id)
                .map_err(|_error| "the session id is no header value")?;
            parts.headers.insert(MCP_SESSION_ID, id);
        }
        SessionState::Untouched | SessionState::None | SessionState::Unknown => {}
    }
    headers::apply(&planned.rule.filters.request_headers, &mut parts.headers);
    headers::apply(&weighted.filters.request_headers, &mut parts.headers);
    headers::add_forwarded(&mut parts.headers, connection);
    parts.headers.insert(HOST, host);
    Ok(())
}

/// Makes the backend's response into the one that the client gets.
fn finish(
    shared: &Shared,
    connection: &Connection,
    planned: &Planned,
    response: &mut Response<UpstreamBody>,
    endpoint: Option<SocketAddr>,
) -> Result<(), &'static str> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err("the backend switched protocols unasked");
    }
    *response.version_mut() = Version::HTTP_11;
    remove_hop_by_hop(response.headers_mut());
    seal_session(shared, connection, planned, response, endpoint)?;
    headers::apply(&planned.rule.filters.response_headers, response.headers_mut());
    if let Some(weighted) = planned.weighted() {
        headers::apply(&weighted.filters.response_headers, response.headers_mut());
    }
    Ok(())
}

fn seal_session(
    shared: &Shared,
    connection: &Connection,
    planned: &Planned,
    response: &mut Response<UpstreamBody>,
    endpoint: Option<SocketAddr>,
) -> Result<(), &'static str> {
    if planned.session == SessionState::Untouched {
        return Ok(());
    }
    let http::header::Entry::Occupied(mut given) = response.headers_mut().entry(MCP_SESSION_ID) else {
        return Ok(());
    };
    if planned.session == SessionState::Stateless {
        given.remove();
        return Ok(());
    }
    if given.iter().count() > 1 {
        return Err("the backend gave more than one session id");
    }
    let server_id = given
        .get()
        .to_str()
        .ok()
        .filter(|id| !id.is_empty() && id.len() <= MAX_SERVER_SESSION_ID)
        .ok_or("the backend gave a session id that cannot be one")?;
    if let SessionState::Open { session, sealed } = &planned.session
        && session.server_id == server_id
    {
        // The client keeps the id it has.
        given.insert(sealed.clone());
        return Ok(());
    }
    let session = Session {
        server_id: server_id.to_owned(),
        backend: planned.upstream.name().to_owned(),
        endpoint,
        identity: connection.identity.as_ref().map(|identity| identity.as_str().to_owned()),
    };
    let sealed = shared.keys.load().seal(&session).ok_or("the session id cannot be sealed")?;
    given.insert(HeaderValue::try_from(sealed).map_err(|_error| "the sealed session id is no header value")?);
    Ok(())
}

/// 404 makes MCP clients begin a new session.
fn unknown_session() -> Response<UpstreamBody> {
    let body = error_reply(ReplyId::Null, -32001, "Session not found");
    let mut response = Response::new(UpstreamBody::Full(Some(Bytes::from(body))));
    *response.status_mut() = StatusCode::NOT_FOUND;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

pub(crate) fn plain(status: StatusCode, text: &'static str) -> Response<UpstreamBody> {
    let mut response = Response::new(UpstreamBody::Full(Some(Bytes::from_static(text.as_bytes()))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
