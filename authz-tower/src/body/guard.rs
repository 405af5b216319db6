//! Responses that do not pass untouched: filtered lists, and event streams that end when they would now be denied.
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Uri, Version, request::Parts};
use http_body::{Body, Frame, SizeHint};
use policy_model::ExternalAuth;
use tokio::sync::watch::Receiver;

use super::list::{Filtered, ListFilter};
use crate::{Admission, Context, Recheck, Subject, admit_body, admit_head, ask::is_still_allowed};

/// The body of a response that is looked at: see [`crate::ResponseBody::Guarded`].
pub struct GuardedBody<B> {
    /// `None` once it has ended.
    inner: Option<B>,
    context: Context,
    filter: Option<ListFilter>,
    watch: Option<Watch>,
}

impl<B> GuardedBody<B> {
    pub(crate) fn new(inner: B, context: Context, filter: Option<ListFilter>, watch: Option<Watch>) -> Self {
        Self { inner: Some(inner), context, filter, watch }
    }

    /// Whether its bytes may differ from the inner body's. If not, all that it does is to end earlier: whoever passes the
    /// bytes on elsewhere has only to poll it, with an inner body that never ends, and to end with it.
    pub fn is_filtered(&self) -> bool {
        self.filter.is_some()
    }
}

impl<B> fmt::Debug for GuardedBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedBody")
            .field("ended", &self.inner.is_none())
            .field("filtered", &self.filter.is_some())
            .field("watched", &self.watch.is_some())
            .finish_non_exhaustive()
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for GuardedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        if let Some(watch) = &mut this.watch
            && this.inner.is_some()
            && !watch.poll_allowed(&mut this.context, cx)
        {
            // Dropping it tells the server that nobody listens any more.
            this.inner = None;
            this.watch = None;
        }
        loop {
            let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
            let frame = ready!(Pin::new(&mut *inner).poll_frame(cx));
            let Some(filter) = &mut this.filter else {
                if frame.is_none() {
                    this.inner = None;
                    this.watch = None;
                }
                return Poll::Ready(frame);
            };
            let passed = match frame {
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                // Trailers are about bytes that may have changed, and are left out.
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => filter.push(data, inner.size_hint().lower(), &this.context),
                    Err(_) => continue,
                },
                None => Filtered::Last(filter.finish(&this.context)),
            };
            let bytes = match passed {
                Filtered::Some(bytes) => bytes,
                Filtered::Last(bytes) => {
                    this.inner = None;
                    this.watch = None;
                    bytes
                }
            };
            if !bytes.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_none()
    }

    /// Unknown: it may be shortened or cut off.
    fn size_hint(&self) -> SizeHint {
        SizeHint::new()
    }
}

/// A request as it was received, kept for as long as its event stream is open.
#[derive(Debug)]
pub(crate) struct Received {
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
    has_body: bool,
    /// `None` where it was not read.
    body: Option<Bytes>,
}

impl Received {
    pub(crate) fn new(parts: &Parts, has_body: bool, body: Option<Bytes>) -> Self {
        Self {
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            version: parts.version,
            headers: parts.headers.clone(),
            has_body,
            body,
        }
    }
}

/// Waits for changes of policy.
pub(crate) struct Watch {
    recheck: Arc<dyn Recheck>,
    /// `None` when there will be no more of them.
    changed: Option<NextChange>,
    /// What was decided on may be older than the first change that can be seen.
    first: bool,
    parts: Parts,
    has_body: bool,
    body: Option<Bytes>,
    asked: Vec<ExternalAuth>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("recheck", &self.recheck).finish_non_exhaustive()
    }
}

impl Watch {
    pub(crate) fn new(recheck: Arc<dyn Recheck>, received: Received, asked: Vec<ExternalAuth>) -> Self {
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.method = received.method;
        parts.uri = received.uri;
        parts.version = received.version;
        parts.headers = received.headers;
        let changed = Some(next_change(recheck.changes()));
        Self { recheck, changed, first: true, parts, has_body: received.has_body, body: received.body, asked }
    }

    /// Whether the stream may go on. Wakes the task at the next change.
    fn poll_allowed(&mut self, context: &mut Context, cx: &mut TaskContext<'_>) -> bool {
        let mut changed = false;
        while let Some(future) = &mut self.changed {
            match future.as_mut().poll(cx) {
                Poll::Pending => break,
                Poll::Ready(receiver) => {
                    changed = receiver.is_some();
                    self.changed = receiver.map(next_change);
                }
            }
        }
        let first = std::mem::take(&mut self.first);
        if !changed && !first {
            return true;
        }
        let Some(now) = self.recheck.context(&self.parts) else { return false };
        let same = Arc::ptr_eq(&now.engine, &context.engine)
            && now.levels == context.levels
            && now.backend == context.backend;
        let is_as_decided = first && !changed && same;
        if !is_as_decided && !self.is_allowed(&now) {
            return false;
        }
        *context = now;
        true
    }

    fn is_allowed(&self, context: &Context) -> bool {
        let subject = match admit_head(&self.parts, self.has_body, context) {
            Err(_) => return false,
            Ok(Admission::Head(head)) => Subject::Head(head),
            Ok(Admission::StreamBody) => Subject::Unread,
            // A body that would have to be read now and was not kept cannot be decided on.
            Ok(Admission::ReadBody) => {
                let Some(body) = &self.body else { return false };
                match admit_body(&self.parts, body, context.backend, &context.options) {
                    Ok(admitted) => Subject::Body(admitted),
                    Err(_) => return false,
                }
            }
        };
        is_still_allowed(context, &self.parts, &subject, &self.asked)
    }
}

/// Yields the receiver again, or `None` when there will be no more changes.
type NextChange = Pin<Box<dyn Future<Output = Option<Receiver<u64>>> + Send>>;

fn next_change(mut changes: Receiver<u64>) -> NextChange {
    Box::pin(async move { changes.changed().await.ok().map(|()| changes) })
}
