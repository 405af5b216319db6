//! Connections to one endpoint: idle HTTP/1.1 ones, and at most one HTTP/2 one for new requests.
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use http::{HeaderValue, Request, Response, Uri, Version, header::HOST, uri::PathAndQuery};
use hyper::client::conn::{http1, http2};

use super::{
    OutBody, UpstreamBody, UpstreamError,
    dial::{Address, Dialer, Sender},
};

/// Idle connections that are kept per endpoint.
const MAX_IDLE: usize = 256;
/// A connection that the backend closed just before a request was written is replaced this many times.
const MAX_STALE: usize = 4;

/// One endpoint's connections.
#[derive(Debug)]
pub(crate) struct EndpointPool {
    address: Address,
    dialer: Arc<Dialer>,
    idle: Mutex<Vec<Idle>>,
    http2: Mutex<Option<http2::SendRequest<OutBody>>>,
    /// Held while a connection is made that may turn out to serve everybody.
    connecting: tokio::sync::Mutex<()>,
    /// The last connection spoke HTTP/1.1: nobody needs to wait for another's.
    speaks_http1: AtomicBool,
}

#[derive(Debug)]
struct Idle {
    sender: http1::SendRequest<OutBody>,
    since: Instant,
}

/// An HTTP/1.1 connection whose response is still being read.
#[derive(Debug)]
pub(crate) struct Lease {
    sender: http1::SendRequest<OutBody>,
    pool: Arc<EndpointPool>,
}

impl Lease {
    /// The response has ended: the connection can serve the next request.
    pub(super) fn give_back(self) {
        if self.sender.is_closed() {
            return;
        }
        let mut idle = self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let limit = self.pool.dialer.idle_timeout;
        // The oldest stand first.
        while idle
            .first()
            .is_some_and(|first| now.duration_since(first.since) > limit || first.sender.is_closed())
        {
            idle.remove(0);
        }
        if idle.len() < MAX_IDLE {
            idle.push(Idle { sender: self.sender, since: now });
        }
    }
}

type Unsent = (UpstreamError, Option<Box<Request<OutBody>>>);

impl EndpointPool {
    pub(crate) fn new(address: Address, dialer: Arc<Dialer>) -> Self {
        Self {
            address,
            dialer,
            idle: Mutex::default(),
            http2: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            speaks_http1: AtomicBool::new(false),
        }
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    pub(crate) fn dialer(&self) -> &Arc<Dialer> {
        &self.dialer
    }

    /// New requests get new connections; those under way keep theirs.
    pub(crate) fn retire(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        *self.http2.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.speaks_http1.store(false, Ordering::Relaxed);
    }

    /// Sends a request. With the error comes the request, if nothing of it was sent.
    pub(crate) async fn send(
        self: &Arc<Self>,
        request: Request<OutBody>,
    ) -> Result<Response<UpstreamBody>, Unsent> {
        let mut request = request;
        let mut stale = 0;
        loop {
            let sender = match self.checkout().await {
                Ok(sender) => sender,
                Err(error) => return Err((UpstreamError::Connect(error), Some(Box::new(request)))),
            };
            let failure = match sender {
                Sender::Http1(mut sender) => {
                    *request.version_mut() = Version::HTTP_11;
                    match sender.try_send_request(request).await {
                        Ok(response) => {
                            let lease = Lease { sender, pool: Arc::clone(self) };
                            return Ok(response.map(|body| UpstreamBody::incoming(body, Some(lease))));
                        }
                        Err(failure) => failure,
                    }
                }
                Sender::Http2(mut sender) => {
                    make_absolute(&mut request, &self.dialer);
                    match sender.try_send_request(request).await {
                        Ok(response) => return Ok(response.map(|body| UpstreamBody::incoming(body, None))),
                        Err(failure) => {
                            if sender.is_closed() {
                                self.forget_http2();
                            }
                            failure
                        }
                    }
                }
            };
            let mut failure = failure;
            match failure.take_message() {
                Some(unsent) if stale < MAX_STALE => {
                    request = make_relative(unsent);
                    stale += 1;
                }
                _ => return Err((UpstreamError::Failed(failure.into_error()), None)),
            }
        }
    }

    async fn checkout(&self) -> Result<Sender, String> {
        if let Some(sender) = self.ready() {
            return Ok(sender);
        }
        if !self.dialer.may_be_http2() || self.speaks_http1.load(Ordering::Relaxed) {
            return self.dialer.connect(&self.address).await;
        }
        let _connecting = self.connecting.lock().await;
        if let Some(sender) = self.ready() {
            return Ok(sender);
        }
        let sender = self.dialer.connect(&self.address).await?;
        self.speaks_http1.store(matches!(sender, Sender::Http1(_)), Ordering::Relaxed);
        if let Sender::Http2(sender) = &sender {
            *self.http2.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender.clone());
        }
        Ok(sender)
    }

    fn ready(&self) -> Option<Sender> {
        if self.dialer.may_be_http2() {
            let mut http2 = self.http2.lock().unwrap_or_else(PoisonError::into_inner);
            match &*http2 {
                Some(sender) if !sender.is_closed() => return Some(Sender::Http2(sender.clone())),
                Some(_) => *http2 = None,
                None => {}
            }
        }
        let now = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|idle| !idle.sender.is_closed());
        // The latest used first, so that the others can time out.
        let at = idle.iter().rposition(|idle| idle.sender.is_ready())?;
        let idle = idle.remove(at);
        (now.duration_since(idle.since) <= self.dialer.idle_timeout).then_some(Sender::Http1(idle.sender))
    }

    fn forget_http2(&self) {
        let mut http2 = self.http2.lock().unwrap_or_else(PoisonError::into_inner);
        if http2.as_ref().is_some_and(http2::SendRequest::is_closed) {
            *http2 = None;
        }
    }
}

/// HTTP/2 has the host in `:authority`.
fn make_absolute(request: &mut Request<OutBody>, dialer: &Dialer) {
    *request.version_mut() = Version::HTTP_2;
    let Some(host) = request.headers_mut().remove(HOST) else { return };
    let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let uri = Uri::builder().scheme(dialer.scheme()).authority(host.as_bytes()).path_and_query(path).build();
    match uri {
        Ok(uri) => *request.uri_mut() = uri,
        // Not an authority: it goes as it is, and the backend refuses it.
        Err(_) => {
            request.headers_mut().insert(HOST, host);
        }
    }
}

/// Back to how requests come in, for another connection may speak HTTP/1.1.
fn make_relative(mut request: Request<OutBody>) -> Request<OutBody> {
    if let Some(authority) = request.uri().authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        request.headers_mut().insert(HOST, host);
        *request.uri_mut() = Uri::from(path);
    }
    request
}
