//! The layer, and the function under it.
use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context as TaskContext, Poll, ready},
};

use authz_core::{BackendKind, Effect};
use bytes::Bytes;
use ext_authz::HeaderChange;
use http::{
    HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_TYPE, ETAG, LAST_MODIFIED},
    request::Parts,
};
use http_body::Body;
use mcp_jsonrpc::error_code;
use pin_project_lite::pin_project;
use policy_model::ExternalAuth;
use tower_service::Service;

use crate::{
    Admission, Admitted, Context, Rejection, RequestBody, ResponseBody, Subject,
    admission::{self, admit_body, admit_head},
    ask::{Asked, Carries, Granted, Protocol, ask_all, lists_tools, wants_body},
    body::{CollectError, Collector, GuardedBody, ListFilter, Received, Watch},
    decide::decide_locally,
    upstream,
};

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
        // The service that was polled ready is the one that is called; the clone is for the next request.
        let clone = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, clone);
        let (parts, body) = request.into_parts();
        let context = (self.context)(&parts);
        AuthorizeFuture { state: admit(Work { context, parts, inner: ready }, body) }
    }
}

pin_project! {
    /// One request on its way: buffer, parse, decide, ask, then the inner service or a denial. Polled again after it
    /// was ready, it stays pending.
    pub struct AuthorizeFuture<S, B>
    where
        S: Service<Request<RequestBody<B>>>,
    {
        #[pin]
        state: State<S, B, S::Future>,
    }
}

impl<S, B> fmt::Debug for AuthorizeFuture<S, B>
where
    S: Service<Request<RequestBody<B>>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Refused { .. } => "refused",
            State::Collecting { .. } => "collecting",
            State::Asking { .. } => "asking",
            State::Forwarding { .. } => "forwarding",
            State::Answering { .. } => "answering",
            State::Done => "done",
        };
        f.debug_struct("AuthorizeFuture").field("state", &state).finish_non_exhaustive()
    }
}

pin_project! {
    #[project = StateNow]
    #[project_replace = StateOwned]
    enum State<S, B, F> {
        Refused { response: Response<Bytes> },
        Collecting { work: Work<S>, body: B, collector: Collector, purpose: Purpose },
        Asking { asking: Pin<Box<dyn Future<Output = Asked> + Send>>, inner: S, payload: Payload<B>, facts: Facts },
        Forwarding { inner: S, request: Request<RequestBody<B>>, after: After },
        Answering { #[pin] answer: F, after: After },
        Done,
    }
}

/// A request and what it is for.
struct Work<S> {
    context: Context,
    parts: Parts,
    inner: S,
}

/// Why a body is collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// To be parsed and decided on.
    Parse,
    /// To be shown to an authorizer, and to nobody else.
    Show,
}

/// The body on its way.
enum Payload<B> {
    Whole(Bytes),
    Stream(B),
}

/// What is left of the subject when the body goes on its way.
struct Facts {
    has_body: bool,
    protocol: Protocol,
    list: Option<List>,
    /// The response may begin a session, whatever session the request was in.
    initializes: bool,
}

/// Tools are to be left out of the response.
struct List {
    /// Takes the place of a list that cannot be read; empty where no list was asked for here.
    failure: Bytes,
}

/// Extension of a request that the layer hands on: it will look at the response or change it (a list to filter, headers
/// of an authorizer's), or the response to `initialize` may begin a session. An inner service that could leave the
/// response to somebody else must not do so then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseMatters;

/// What is to be done with the response.
struct After {
    context: Context,
    received: Option<Received>,
    list: Option<List>,
    asked: Vec<ExternalAuth>,
    response_headers: Vec<HeaderChange>,
}

impl<S, B, R> Future for AuthorizeFuture<S, B>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>>,
    B: Body<Data = Bytes> + Unpin,
    R: Body<Data = Bytes>,
{
    type Output = Result<Response<ResponseBody<R>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateNow::Refused { .. } => {
                    let StateOwned::Refused { response } = state.as_mut().project_replace(State::Done) else {
                        return Poll::Pending;
                    };
                    return Poll::Ready(Ok(response.map(ResponseBody::from)));
                }
                StateNow::Collecting { body, collector, .. } => {
                    let collected = ready!(collector.poll_collect(body, cx));
                    let StateOwned::Collecting { work, purpose, .. } =
                        state.as_mut().project_replace(State::Done)
                    else {
                        return Poll::Pending;
                    };
                    collected_body(work, purpose, collected)
                }
                StateNow::Asking { asking, .. } => {
                    let asked = ready!(asking.as_mut().poll(cx));
                    let StateOwned::Asking { inner, payload, facts, .. } =
                        state.as_mut().project_replace(State::Done)
                    else {
                        return Poll::Pending;
                    };
                    match asked.verdict {
                        Err(response) => State::Refused { response },
                        Ok(granted) => {
                            let work = Work { context: asked.context, parts: asked.parts, inner };
                            forward(work, payload, facts, granted)
                        }
                    }
                }
                StateNow::Forwarding { inner, .. } => {
                    if let Err(error) = ready!(inner.poll_ready(cx)) {
                        state.set(State::Done);
                        return Poll::Ready(Err(error));
                    }
                    let StateOwned::Forwarding { mut inner, request, after } =
                        state.as_mut().project_replace(State::Done)
                    else {
                        return Poll::Pending;
                    };
                    State::Answering { answer: inner.call(request), after }
                }
                StateNow::Answering { answer, .. } => {
                    let answer = ready!(answer.poll(cx));
                    let StateOwned::Answering { after, .. } = state.as_mut().project_replace(State::Done)
                    else {
                        return Poll::Pending;
                    };
                    return Poll::Ready(answer.map(|response| finish(response, after)));
                }
                StateNow::Done => return Poll::Pending,
            };
            state.set(next);
        }
    }
}

/// What the layer does, for callers that have the context at hand (a gateway that routed first). `request` is the one
/// as received: rewrites are `inner`'s business. `inner` is polled ready before it is called, and is called at most
/// once: not at all when the request is refused.
pub fn authorize<S, B, R>(context: Context, request: Request<B>, inner: S) -> AuthorizeFuture<S, B>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>>,
    B: Body<Data = Bytes> + Unpin,
{
    let (parts, body) = request.into_parts();
    AuthorizeFuture { state: admit(Work { context, parts, inner }, body) }
}

fn admit<S, B, F>(work: Work<S>, body: B) -> State<S, B, F>
where
    B: Body<Data = Bytes> + Unpin,
{
    let has_body = !body.is_end_stream();
    match admit_head(&work.parts, has_body, &work.context) {
        Err(rejection) => reject(&work.context, rejection),
        Ok(Admission::Head(head)) => decide(work, Payload::Stream(body), &Subject::Head(head)),
        Ok(Admission::StreamBody) => decide(work, Payload::Stream(body), &Subject::Unread),
        Ok(Admission::ReadBody) => collect(work, body, Purpose::Parse),
    }
}

fn reject<S, B, F>(context: &Context, rejection: Rejection) -> State<S, B, F> {
    context.observe_rejection(&rejection);
    State::Refused { response: rejection.into_response() }
}

fn collect<S, B, F>(work: Work<S>, body: B, purpose: Purpose) -> State<S, B, F>
where
    B: Body<Data = Bytes>,
{
    let limit = work.context.options.limits.max_bytes;
    if usize::try_from(body.size_hint().lower()).map_or(true, |announced| announced > limit) {
        let rejection = Rejection::too_large(&work.context.options);
        return reject(&work.context, rejection);
    }
    State::Collecting { work, body, collector: Collector::new(limit), purpose }
}

fn collected_body<S, B, F>(
    mut work: Work<S>,
    purpose: Purpose,
    collected: Result<Bytes, CollectError>,
) -> State<S, B, F> {
    let body = match collected {
        Ok(body) => body,
        Err(CollectError::TooLarge) => {
            let rejection = Rejection::too_large(&work.context.options);
            return reject(&work.context, rejection);
        }
        Err(CollectError::Broken) => {
            let rejection =
                Rejection::plain(StatusCode::BAD_REQUEST, "the body ended before it was complete");
            return reject(&work.context, rejection);
        }
    };
    let admitted_again = match renew(&mut work) {
        Ok(admission) => admission,
        Err(rejection) => return reject(&work.context, rejection),
    };
    match (purpose, admitted_again) {
        (Purpose::Show, None) => ask(work, Payload::Whole(body), &Subject::Unread),
        // What was decided at the head is decided anew.
        (Purpose::Show, Some(Admission::Head(_) | Admission::StreamBody)) => {
            decide_whole(work, body, &Subject::Unread)
        }
        (Purpose::Show, Some(Admission::ReadBody)) | (Purpose::Parse, _) => {
            let bytes = body.clone();
            match admit_body(&work.parts, &bytes, work.context.backend, &work.context.options) {
                Err(rejection) => reject(&work.context, rejection),
                Ok(admitted) => decide_whole(work, body, &Subject::Body(admitted)),
            }
        }
    }
}

/// A client may take its time with a body: it is decided by the policies that are in force when it is there. What its head
/// comes to by them, where they may be others than before.
fn renew<S>(work: &mut Work<S>) -> Result<Option<Admission>, Rejection> {
    let Some(recheck) = work.context.recheck.as_ref().filter(|recheck| recheck.has_changed()) else {
        return Ok(None);
    };
    let Some(now) = recheck.context(&work.parts) else {
        let gone = "the route of this request changed while it was sent; send it again";
        return Err(Rejection::plain(StatusCode::SERVICE_UNAVAILABLE, gone));
    };
    let before = std::mem::replace(&mut work.context, now);
    work.context.recheck = before.recheck;
    work.context.observer = before.observer;
    work.context.request_id = before.request_id;
    admit_head(&work.parts, true, &work.context).map(Some)
}

fn decide_whole<S, B, F>(work: Work<S>, body: Bytes, subject: &Subject<'_>) -> State<S, B, F> {
    match decide_locally(&work.context, &work.parts, subject) {
        Effect::Allow => {
            let facts = Facts::of(&work, true, subject);
            forward(work, Payload::Whole(body), facts, Granted::default())
        }
        Effect::Delegate => ask(work, Payload::Whole(body), subject),
        Effect::Deny => State::Refused { response: subject.denial(&work.context.options) },
    }
}

fn decide<S, B, F>(work: Work<S>, payload: Payload<B>, subject: &Subject<'_>) -> State<S, B, F>
where
    B: Body<Data = Bytes> + Unpin,
{
    match decide_locally(&work.context, &work.parts, subject) {
        Effect::Allow => {
            let facts = Facts::of(&work, *subject == Subject::Unread, subject);
            forward(work, payload, facts, Granted::default())
        }
        Effect::Delegate => match payload {
            Payload::Stream(body) if wants_body(&work.context, &work.parts, subject) => {
                collect(work, body, Purpose::Show)
            }
            payload => ask(work, payload, subject),
        },
        Effect::Deny => State::Refused { response: subject.denial(&work.context.options) },
    }
}

fn ask<S, B, F>(work: Work<S>, payload: Payload<B>, subject: &Subject<'_>) -> State<S, B, F> {
    let has_body = !matches!(subject, Subject::Head(_));
    let facts = Facts::of(&work, has_body, subject);
    let body = match &payload {
        Payload::Whole(body) => body.clone(),
        Payload::Stream(_) => Bytes::new(),
    };
    let Work { context, parts, inner } = work;
    let asking = Box::pin(ask_all(context, parts, body, Carries::of(subject)));
    State::Asking { asking, inner, payload, facts }
}

impl Facts {
    fn of<S>(work: &Work<S>, has_body: bool, subject: &Subject<'_>) -> Self {
        Self {
            has_body,
            protocol: Protocol::of(subject),
            list: List::of(&work.context, &work.parts, subject),
            initializes: initializes(subject),
        }
    }
}

fn initializes(subject: &Subject<'_>) -> bool {
    let Subject::Body(Admitted::Mcp { body, .. }) = subject else { return false };
    body.messages().iter().any(|message| message.known_method() == Some(mcp_jsonrpc::Method::Initialize))
}

impl List {
    /// `Some` where the response must be looked at: a list was asked for, or (on an MCP path) a resumed event stream
    /// could carry one.
    fn of(context: &Context, parts: &Parts, subject: &Subject<'_>) -> Option<Self> {
        if !context.options.filter_lists {
            return None;
        }
        let failure = match subject {
            Subject::Body(Admitted::Mcp { body, .. }) => {
                let text = "the list of tools cannot be read";
                admission::errors(body, lists_tools, error_code::INTERNAL_ERROR, text)
            }
            _ => None,
        };
        let could_resume = context.backend == BackendKind::XBackendMcp && parts.method != Method::DELETE;
        (failure.is_some() || could_resume).then(|| Self { failure: failure.unwrap_or_default().into() })
    }

    fn is_asked_for(&self) -> bool {
        !self.failure.is_empty()
    }
}

fn forward<S, B, F>(
    work: Work<S>,
    payload: Payload<B>,
    facts: Facts,
    mut granted: Granted,
) -> State<S, B, F> {
    let Work { context, mut parts, inner } = work;
    let whole = match &payload {
        Payload::Whole(body) => Some(body.clone()),
        Payload::Stream(_) => None,
    };
    let length = whole.as_ref().map(Bytes::len);
    let received = context.recheck.is_some().then(|| Received::new(&parts, facts.has_body, whole));
    let plan = upstream::Plan {
        backend: context.backend,
        protocol: facts.protocol,
        uncompressed: facts.list.is_some(),
        length,
    };
    upstream::prepare(&mut parts, plan, &mut granted);
    if facts.list.is_some() || facts.initializes || !granted.response_headers.is_empty() {
        parts.extensions.insert(ResponseMatters);
    }
    let body = match payload {
        Payload::Whole(body) => RequestBody::Buffered(Some(body)),
        Payload::Stream(body) => RequestBody::Streaming(body),
    };
    let after = After {
        context,
        received,
        list: facts.list,
        asked: granted.asked,
        response_headers: granted.response_headers,
    };
    State::Forwarding { inner, request: Request::from_parts(parts, body), after }
}

/// They describe bytes that are not passed on as they were.
static OF_THE_WHOLE: [HeaderName; 8] = [
    CONTENT_LENGTH,
    ETAG,
    LAST_MODIFIED,
    ACCEPT_RANGES,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

fn finish<R>(response: Response<R>, after: After) -> Response<ResponseBody<R>>
where
    R: Body<Data = Bytes>,
{
    let (mut parts, body) = response.into_parts();
    let After { context, received, list, asked, response_headers } = after;
    upstream::change_response(&mut parts.headers, response_headers);
    let is_stream = admission::is_event_stream(&parts.headers);
    let is_plain = admission::has_identity_coding(&parts.headers);
    let names_json = admission::names_json(&parts.headers);
    let is_list = list.as_ref().is_some_and(List::is_asked_for);
    let filter = match list {
        None => None,
        Some(_) if body.is_end_stream() => None,
        Some(list) if is_stream && is_plain => Some(ListFilter::events(list.failure)),
        Some(list) if is_list && is_plain && admission::is_strict_json(&parts.headers) => {
            Some(ListFilter::json(list.failure))
        }
        // A list that cannot be read, or an error page: no client takes that for a list.
        Some(list) if is_stream || is_list && (parts.status.is_success() || !is_plain || names_json) => {
            tracing::warn!(
                status = parts.status.as_u16(),
                "a response that may hold a list of tools cannot be read"
            );
            unreadable(&mut parts, list.failure.is_empty());
            return Response::from_parts(parts, ResponseBody::from(list.failure));
        }
        Some(_) => None,
    };
    if filter.is_some() {
        for name in &OF_THE_WHOLE {
            parts.headers.remove(name);
        }
    }
    let watch = match (received, &context.recheck) {
        (Some(received), Some(recheck)) if is_stream => Some(Watch::new(recheck.clone(), received, asked)),
        _ => None,
    };
    let body = if filter.is_none() && watch.is_none() {
        ResponseBody::Inner(body)
    } else {
        ResponseBody::Guarded(Box::new(GuardedBody::new(body, context, filter, watch)))
    };
    Response::from_parts(parts, body)
}

/// The head of the error that takes the place of a list.
fn unreadable(parts: &mut http::response::Parts, is_empty: bool) {
    for name in &OF_THE_WHOLE {
        parts.headers.remove(name);
    }
    parts.headers.remove(http::header::CONTENT_ENCODING);
    if is_empty {
        parts.status = StatusCode::BAD_GATEWAY;
        parts.headers.remove(CONTENT_TYPE);
    } else {
        parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
}
