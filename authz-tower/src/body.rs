//! Bodies: an enum, not a box.
mod collect;
mod guard;
mod list;

use std::{
    pin::Pin,
    task::{Context as TaskContext, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

pub use self::guard::GuardedBody;
pub(crate) use self::{
    collect::{CollectError, Collector},
    guard::{Received, Watch},
    list::ListFilter,
};

/// The body that the inner service gets.
#[derive(Debug)]
pub enum RequestBody<B> {
    /// Buffered whole: the bytes that were decided on (send with Content-Length).
    Buffered(Option<Bytes>),
    /// Not looked at.
    Streaming(B),
}

/// The body that the client gets.
#[derive(Debug)]
#[non_exhaustive]
pub enum ResponseBody<B> {
    /// Made here.
    Full(Option<Bytes>),
    /// The inner service's, untouched.
    Inner(B),
    /// The inner service's, with tools left out of lists, or ended when a change of policy would now deny it.
    Guarded(Box<GuardedBody<B>>),
}

impl<B> From<Bytes> for ResponseBody<B> {
    fn from(bytes: Bytes) -> Self {
        Self::Full(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }
}

fn next_of<E>(bytes: &mut Option<Bytes>) -> Poll<Option<Result<Frame<Bytes>, E>>> {
    Poll::Ready(bytes.take().filter(|bytes| !bytes.is_empty()).map(|bytes| Ok(Frame::data(bytes))))
}

fn size_of(bytes: Option<&Bytes>) -> SizeHint {
    SizeHint::with_exact(bytes.map_or(0, |bytes| u64::try_from(bytes.len()).unwrap_or(u64::MAX)))
}

impl<B: Body<Data = Bytes> + Unpin> Body for RequestBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.get_mut() {
            Self::Buffered(bytes) => next_of(bytes),
            Self::Streaming(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Buffered(bytes) => size_of(bytes.as_ref()),
            Self::Streaming(body) => body.size_hint(),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Buffered(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Streaming(body) => body.is_end_stream(),
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for ResponseBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.get_mut() {
            Self::Full(bytes) => next_of(bytes),
            Self::Inner(body) => Pin::new(body).poll_frame(cx),
            Self::Guarded(body) => Pin::new(&mut **body).poll_frame(cx),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => size_of(bytes.as_ref()),
            Self::Inner(body) => body.size_hint(),
            Self::Guarded(body) => body.size_hint(),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Inner(body) => body.is_end_stream(),
            Self::Guarded(body) => body.is_end_stream(),
        }
    }
}
