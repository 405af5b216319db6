//! The layer, and the function under it.
use std::{
    future::Future,
    marker::PhantomData,
    pin::Pin,
    task::{Context as TaskContext, Poll},
};

use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body::Body;
use tower_service::Service;

use crate::{Context, RequestBody, ResponseBody};

/// Wraps services so that requests reach them only as policies allow. `F` gives the context of a request.
#[derive(Debug, Clone)]
pub struct AuthzLayer<F> {
    context: F,
}

impl<F> AuthzLayer<F>
where
    F: Fn(&Parts) -> Context,
{
    /// A layer whose requests get their context from `context`.
    pub fn new(context: F) -> Self {
        Self { context }
    }
}

impl<S, F: Clone> tower_layer::Layer<S> for AuthzLayer<F> {
    type Service = AuthzService<S, F>;
    fn layer(&self, inner: S) -> Self::Service {
        AuthzService { inner, context: self.context.clone() }
    }
}

/// The service of [`AuthzLayer`].
#[derive(Debug, Clone)]
pub struct AuthzService<S, F> {
    inner: S,
    context: F,
}

impl<S, F, B, R> Service<Request<B>> for AuthzService<S, F>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>> + Clone,
    F: Fn(&Parts) -> Context,
    B: Body<Data = Bytes> + Unpin,
    R: Body<Data = Bytes>,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = AuthorizeFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let _ = (request, &self.context);
        todo!()
    }
}

/// One request on its way: buffer, parse, decide, ask, then the inner service or a denial.
#[derive(Debug)]
pub struct AuthorizeFuture<S, B> {
    _private: PhantomData<(S, B)>,
}

impl<S, B, R> Future for AuthorizeFuture<S, B>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>>,
{
    type Output = Result<Response<ResponseBody<R>>, S::Error>;
    fn poll(self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<Self::Output> {
        todo!()
    }
}

/// What the layer does, for callers that have the context at hand (a gateway that routed first).
pub fn authorize<S, B, R>(context: Context, request: Request<B>, inner: S) -> AuthorizeFuture<S, B>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>>,
    B: Body<Data = Bytes> + Unpin,
{
    let _ = (context, request, inner);
    todo!()
}
