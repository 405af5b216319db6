//! The HTTP form: the client's request, without its body, to a path of the authorizer.
use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use ::http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header,
    uri::{Authority, PathAndQuery, Scheme},
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{self, Client},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tower_service::Service;

use super::{
    MAX_ANSWER, MAX_ANSWER_HEADERS, Settings,
    endpoints::{self, Endpoints},
};
use crate::{
    Allowed, Check, Denied, HeaderChange, Unreachable, Verdict,
    check::PARTIAL_BODY,
    headers,
    verdict::answer::{self, REASON},
};

/// Connections that are kept per endpoint.
const MAX_IDLE: usize = 64;
/// For how long they are kept: less than what servers commonly allow, so that they seldom close one in use.
const IDLE_FOR: Duration = Duration::from_secs(4);

/// A pool of connections per endpoint.
#[derive(Debug)]
pub(super) struct HttpAuthorizer {
    endpoints: Endpoints<Pool>,
}

#[derive(Debug)]
struct Pool {
    address: SocketAddr,
    client: Client<Connector, Full<Bytes>>,
}

/// The client's request as the authorizer gets it: the path is prefixed, the URI has no authority yet.
pub(super) fn to_request(
    check: &Check<'_>,
    prefix: &str,
    allowed: &[String],
    forward_body: Option<u32>,
) -> Result<Request<Bytes>, Unreachable> {
    let path = format!("{}{}", prefix.trim_end_matches('/'), check.path_and_query);
    let (body, cut) = forward_body.map_or((Bytes::new(), false), |limit| check.forwarded_body(limit));
    let mut request = Request::new(body);
    *request.method_mut() = Method::from_bytes(check.method.as_bytes())
        .ok()
        // A CONNECT has no path to tell.
        .filter(|method| method != Method::CONNECT)
        .ok_or(Unreachable::Unjudgeable("the method is not one that HTTP can carry"))?;
    let path = PathAndQuery::try_from(path)
        .or(Err(Unreachable::Unjudgeable("the path is not one that HTTP can carry")))?;
    let host = HeaderValue::from_str(check.host)
        .or(Err(Unreachable::Unjudgeable("the host is not one that HTTP can carry")))?;
    *request.uri_mut() = path.into();
    let fields = request.headers_mut();
    let nominated = headers::nominated_by_connection(check.headers);
    for (name, value) in check.headers {
        let sent = *name == header::AUTHORIZATION
            || (forward_body.is_some() && *name == header::CONTENT_TYPE)
            || headers::lists(allowed, name);
        let ours = [header::HOST, header::CONTENT_LENGTH, header::EXPECT].contains(name);
        if sent && !ours && check.may_tell(name) && !nominated.contains(name) {
            fields.append(name, value.clone());
        }
    }
    fields.insert(header::HOST, host);
    fields.insert(header::CONTENT_LENGTH, request_length(forward_body, check));
    if cut {
        fields.insert(PARTIAL_BODY, HeaderValue::from_static("true"));
    }
    Ok(request)
}

fn request_length(forward_body: Option<u32>, check: &Check<'_>) -> HeaderValue {
    forward_body.map_or(0, |limit| check.forwarded_body(limit).0.len()).into()
}

impl HttpAuthorizer {
    pub(super) fn new(settings: &Settings) -> Self {
        let share = u32::try_from(settings.endpoints.len()).unwrap_or(u32::MAX).max(1);
        let connect_within = settings.timeout / share;
        let pool = |address| Pool {
            address,
            client: Client::builder(TokioExecutor::new())
                .pool_idle_timeout(IDLE_FOR)
                .pool_max_idle_per_host(MAX_IDLE)
                .pool_timer(TokioTimer::new())
                .http1_max_buf_size(MAX_ANSWER_HEADERS)
                .build(Connector { address, connect_within }),
        };
        Self { endpoints: Endpoints::new(settings.endpoints.iter().copied().map(pool), Instant::now()) }
    }

    pub(super) async fn ask(
        &self,
        request: &Request<Bytes>,
        allowed_response_headers: &[String],
        deadline: Instant,
    ) -> Result<Verdict, Unreachable> {
        timeout_at(deadline, self.ask_in_turn(request, allowed_response_headers))
            .await
            .unwrap_or(Err(Unreachable::TimedOut))
    }

    async fn ask_in_turn(
        &self,
        request: &Request<Bytes>,
        allowed_response_headers: &[String],
    ) -> Result<Verdict, Unreachable> {
        let mut failure = Unreachable::Failed("the authorizer has no ready endpoint".to_owned());
        for endpoint in self.endpoints.in_turn(Instant::now()) {
            let address = endpoint.via.address;
            match endpoint.via.client.request(addressed(request, address)?).await {
                Ok(response) => return to_verdict(response, allowed_response_headers).await,
                Err(error) if error.is_connect() => {
                    self.endpoints.avoid(endpoint, Instant::now());
                    failure = if is_timeout(&error) {
                        Unreachable::TimedOut
                    } else {
                        Unreachable::Failed(format!("no connection to `{address}`: {}", causes(&error)))
                    };
                }
                Err(error) => return Err(unanswered(address, &error)),
            }
        }
        Err(failure)
    }
}

/// The request with an absolute URI, which is what tells the client's connections apart.
fn addressed(request: &Request<Bytes>, address: SocketAddr) -> Result<Request<Full<Bytes>>, Unreachable> {
    let mut parts = request.uri().clone().into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Authority::try_from(address.to_string()).ok();
    let uri = Uri::from_parts(parts)
        .or(Err(Unreachable::Unjudgeable("the path is not one that HTTP can carry")))?;
    let mut addressed = Request::new(Full::new(request.body().clone()));
    *addressed.method_mut() = request.method().clone();
    *addressed.uri_mut() = uri;
    *addressed.headers_mut() = request.headers().clone();
    Ok(addressed)
}

fn unanswered(address: SocketAddr, error: &legacy::Error) -> Unreachable {
    let text = format!("no answer from `{address}`: {}", causes(error));
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = source {
        if cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
            return Unreachable::Nonsense(text);
        }
        source = cause.source();
    }
    Unreachable::Failed(text)
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn is_timeout(error: &legacy::Error) -> bool {
    std::error::Error::source(error)
        .and_then(|cause| cause.downcast_ref::<io::Error>())
        .is_some_and(|cause| cause.kind() == io::ErrorKind::TimedOut)
}

async fn to_verdict(
    response: Response<Incoming>,
    allowed_response_headers: &[String],
) -> Result<Verdict, Unreachable> {
    let (mut parts, body) = response.into_parts();
    if parts.status.is_server_error() {
        return Err(Unreachable::Failed(format!("it answered `{}`", parts.status)));
    }
    // Also what allows is read to its end: half an answer is none.
    let body = match Limited::new(body, MAX_ANSWER).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            return Err(answer::nonsense(format!("the answer is over {MAX_ANSWER} bytes")));
        }
        Err(error) => return Err(Unreachable::Failed(format!("the answer broke off: {error}"))),
    };
    if parts.status == StatusCode::OK {
        let request_headers = copied(&parts.headers, allowed_response_headers);
        return Ok(Verdict::Allowed(Allowed { request_headers, ..Allowed::default() }));
    }
    let reason =
        parts.headers.get(REASON).map(|reason| String::from_utf8_lossy(reason.as_bytes()).into_owned());
    headers::clean_denial(&mut parts.headers);
    Ok(Verdict::Denied(Denied {
        status: answer::denial_status(Some(parts.status.as_u16())),
        headers: parts.headers,
        body,
        reason,
    }))
}

/// The headers of a 200 answer that go to the upstream.
fn copied(fields: &HeaderMap, allowed: &[String]) -> Vec<HeaderChange> {
    let nominated = headers::nominated_by_connection(fields);
    let is_copied = |name: &&::http::HeaderName| {
        headers::lists(allowed, name) && !headers::is_protected(name.as_str()) && !nominated.contains(*name)
    };
    let mut changes = Vec::new();
    for name in fields.keys().filter(is_copied) {
        for (index, value) in fields.get_all(name).iter().enumerate() {
            let (name, value) = (name.clone(), value.clone());
            changes.push(match index {
                0 => HeaderChange::Set(name, value),
                _ => HeaderChange::Append(name, value),
            });
        }
    }
    changes
}

/// Connects to one address, whatever the URI says.
#[derive(Debug, Clone)]
struct Connector {
    address: SocketAddr,
    connect_within: Duration,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<TcpStream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { address, connect_within } = *self;
        Box::pin(async move {
            endpoints::connect(address, Instant::now() + connect_within).await.map(TokioIo::new)
        })
    }
}
