//! Bodies on both sides, each with the time it may take.
use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use prometheus_client::metrics::counter::Counter;
use tokio::{
    sync::mpsc,
    time::{Instant, Sleep},
};

use super::{Upstream, pool::Lease};

/// Why a body ended early.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// The connection failed.
    Http(hyper::Error),
    /// The client paused for too long.
    Paused,
    /// The route's timeout is over.
    TimedOut,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(error) => write!(f, "{error}"),
            Self::Paused => f.write_str("the client paused for too long while sending its body"),
            Self::TimedOut => f.write_str("the route's timeout is over"),
        }
    }
}

impl std::error::Error for BodyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Http(error) => Some(error),
            Self::Paused | Self::TimedOut => None,
        }
    }
}

/// A client's body: a pause of more than the limit ends it.
#[derive(Debug)]
pub(crate) struct ClientBody {
    inner: Incoming,
    pause: Duration,
    /// Only while the client is being waited for.
    timer: Option<Pin<Box<Sleep>>>,
}

impl ClientBody {
    pub(crate) fn new(inner: Incoming, pause: Duration) -> Self {
        Self { inner, pause, timer: None }
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(frame) => {
                self.timer = None;
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Http)))
            }
            Poll::Pending => {
                let pause = self.pause;
                let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
                match timer.as_mut().poll(cx) {
                    Poll::Ready(()) => Poll::Ready(Some(Err(BodyError::Paused))),
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
}

/// A backend's body, or one that was made here. When it has ended, its HTTP/1.1 connection goes back to the pool.
#[derive(Debug)]
pub(crate) enum UpstreamBody {
    Full(Option<Bytes>),
    Incoming { inner: Incoming, lease: Option<Lease>, deadline: Option<Pin<Box<Sleep>>>, told: Option<Told> },
    Relayed(RelayedBody),
}

/// Who is told if a body breaks off.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) broken: Counter,
    pub(crate) backend: Arc<Upstream>,
}

impl Told {
    fn tell(self, error: &BodyError) {
        self.broken.inc();
        tracing::info!(backend = self.backend.name(), %error, "a response broke off");
    }
}

/// A body that is elsewhere; what of it must be looked at is sent here.
#[derive(Debug)]
pub(crate) struct RelayedBody {
    chunks: mpsc::UnboundedReceiver<Bytes>,
    is_empty: bool,
}

impl RelayedBody {
    /// The body, and where its bytes are to be sent; it ends when that is dropped.
    pub(crate) fn new(is_empty: bool) -> (Self, mpsc::UnboundedSender<Bytes>) {
        let (sender, chunks) = mpsc::unbounded_channel();
        (Self { chunks, is_empty }, sender)
    }
}

impl UpstreamBody {
    pub(super) fn incoming(inner: Incoming, lease: Option<Lease>) -> Self {
        let mut body = Self::Incoming { inner, lease, deadline: None, told: None };
        body.give_back_at_end();
        body
    }

    /// The body fails if it has not ended by then.
    pub(crate) fn ends_by(&mut self, at: Instant) {
        if let Self::Incoming { deadline, inner, .. } = self
            && !inner.is_end_stream()
        {
            *deadline = Some(Box::pin(tokio::time::sleep_until(at)));
        }
    }

    /// Whom to tell if the body breaks off.
    pub(crate) fn tell(&mut self, whom: Told) {
        if let Self::Incoming { told, .. } = self {
            *told = Some(whom);
        }
    }

    fn give_back_at_end(&mut self) {
        if let Self::Incoming { inner, lease, .. } = self
            && inner.is_end_stream()
            && let Some(lease) = lease.take()
        {
            lease.give_back();
        }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Full(bytes) => Poll::Ready(
                bytes.take().filter(|bytes| !bytes.is_empty()).map(|bytes| Ok(Frame::data(bytes))),
            ),
            Self::Relayed(body) => {
                body.chunks.poll_recv(cx).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
            }
            Self::Incoming { inner, lease, deadline, told } => {
                let polled = Pin::new(inner).poll_frame(cx);
                match &polled {
                    Poll::Pending => {
                        if deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready()) {
                            // The connection still holds the rest of a body: it cannot be used again.
                            *lease = None;
                            if let Some(told) = told.take() {
                                told.tell(&BodyError::TimedOut);
                            }
                            return Poll::Ready(Some(Err(BodyError::TimedOut)));
                        }
                    }
                    Poll::Ready(None) => {
                        if let Some(lease) = lease.take() {
                            lease.give_back();
                        }
                    }
                    Poll::Ready(Some(Ok(_))) => self.give_back_at_end(),
                    Poll::Ready(Some(Err(_))) => *lease = None,
                }
                let polled = polled.map(|frame| frame.map(|frame| frame.map_err(BodyError::Http)));
                if let (Poll::Ready(Some(Err(error))), Self::Incoming { told, .. }) = (&polled, &mut *self)
                    && let Some(told) = told.take()
                {
                    told.tell(error);
                }
                polled
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Relayed(body) if body.is_empty => SizeHint::with_exact(0),
            Self::Relayed(_) => SizeHint::default(),
            Self::Incoming { inner, .. } => inner.size_hint(),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Relayed(body) => body.is_empty,
            Self::Incoming { inner, .. } => inner.is_end_stream(),
        }
    }
}
