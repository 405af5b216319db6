//! Bodies: an enum, not a box.
use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

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
pub enum ResponseBody<B> {
    /// Made here.
    Full(Option<Bytes>),
    /// The inner service's, untouched.
    Inner(B),
}

impl<B: Body<Data = Bytes> + Unpin> Body for RequestBody<B> {
    type Data = Bytes;
    type Error = B::Error;
    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        todo!()
    }
    fn size_hint(&self) -> SizeHint {
        todo!()
    }
    fn is_end_stream(&self) -> bool {
        todo!()
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for ResponseBody<B> {
    type Data = Bytes;
    type Error = B::Error;
    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        todo!()
    }
}
