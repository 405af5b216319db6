//! Policies, contexts, bodies and a recording inner service.
use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context as TaskContext, Poll},
    time::{Duration, UNIX_EPOCH},
};

use authz_core::{AuthorizerId, BackendKind, Engine, Input, Levels, PolicyEntry, compile};
use authz_tower::{Ask, Context, Observer, Options, Outcome, Peer, RequestBody, ResponseBody, authorize};
use bytes::Bytes;
use ext_authz::{Allowed, Verdict};
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use policy_model::{
    Action, AgenticGroup, AuthorizerProtocol, Condition, Dialect, ExternalAuth, NamespacedName, Policy,
    PolicyKey, Rule, ServiceRef, Source, Target, TargetKind,
};
use tokio::sync::mpsc;
use tower_test::mock;

pub(crate) const AGENT: &str = "spiffe://cluster.local/ns/agents/sa/agent";
pub(crate) const FORBIDDEN: &str = "Access to this tool is forbidden.";

pub(crate) fn rule(name: &str, condition: Condition) -> Rule {
    Rule { name: name.to_owned(), source: Source::Spiffe(AGENT.to_owned()), condition }
}

pub(crate) fn tools(names: &[&str]) -> Condition {
    Condition::Tools(names.iter().map(|name| (*name).to_owned()).collect())
}

pub(crate) fn external(forward_body: Option<u32>) -> ExternalAuth {
    external_at("authorizer", forward_body)
}

pub(crate) fn external_at(name: &str, forward_body: Option<u32>) -> ExternalAuth {
    ExternalAuth {
        backend: ServiceRef {
            group: String::new(),
            kind: "Service".to_owned(),
            object: NamespacedName::new("ns", name),
            port: Some(9000),
        },
        protocol: AuthorizerProtocol::Grpc { allowed_headers: None },
        forward_body,
    }
}

fn target(kind: TargetKind) -> Target {
    let name = match kind {
        TargetKind::Gateway => "gateway",
        TargetKind::XBackend => "backend",
    };
    Target { kind, object: NamespacedName::new("ns", name), section_name: None }
}

pub(crate) fn policy(
    name: &str,
    kind: TargetKind,
    dialect: Dialect,
    action: Action,
    rules: Vec<Rule>,
) -> Policy {
    Policy {
        key: PolicyKey { namespace: "ns".to_owned(), name: name.to_owned(), group: AgenticGroup::Networking },
        created: None,
        generation: None,
        targets: vec![target(kind)],
        dialect,
        action,
        rules,
    }
}

pub(crate) fn v0(kind: TargetKind, rules: Vec<Rule>) -> Policy {
    policy("v0", kind, Dialect::V0Alpha0, Action::Allow, rules)
}

/// An engine, and its levels for an XBackend or a Service behind the one Gateway.
pub(crate) fn engine(policies: Vec<Policy>, backend: BackendKind) -> (Arc<Engine>, Levels) {
    let policies = policies
        .into_iter()
        .map(|policy| PolicyEntry::Policy { targets: policy.targets.clone(), policy, fault: None })
        .collect();
    let engine = compile(Input { policies, ..Input::default() }).engine;
    let xbackend = NamespacedName::new("ns", "backend");
    let xbackend = Some(&xbackend).filter(|_| backend != BackendKind::Service);
    let levels = engine.levels(&NamespacedName::new("ns", "gateway"), xbackend);
    (Arc::new(engine), levels)
}

/// A context in which the agent speaks to the backend, under these policies.
pub(crate) fn context(policies: Vec<Policy>, backend: BackendKind) -> Context {
    let (engine, levels) = engine(policies, backend);
    Context {
        engine,
        levels,
        identity: Some(Arc::new(AGENT.parse().unwrap())),
        listener: "https".into(),
        port: 443,
        backend,
        cors_origins: None,
        options: Arc::new(Options::default()),
        ask: Arc::new(Authorizers::default()),
        peer: Peer { tls: true, ..Peer::default() },
        recheck: None,
        observer: None,
        request_id: "request-1".into(),
        now: UNIX_EPOCH + Duration::from_secs(1_800_000_000),
    }
}

/// The agent may call `get-sum` on the XBackend, and nothing else.
pub(crate) fn one_tool() -> Context {
    let rules = vec![rule("sum", tools(&["get-sum"]))];
    context(vec![v0(TargetKind::XBackend, rules)], BackendKind::XBackendMcp)
}

pub(crate) fn with_options(mut context: Context, change: impl FnOnce(&mut Options)) -> Context {
    let mut options = Options::clone(&context.options);
    change(&mut options);
    context.options = Arc::new(options);
    context
}

pub(crate) fn call(id: &str, tool: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}"}}}}"#)
}

pub(crate) fn post(body: impl Into<TestBody>) -> Request<TestBody> {
    Request::post("https://h/mcp")
        .version(http::Version::HTTP_2)
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .body(body.into())
        .unwrap()
}

pub(crate) fn get(accept: &str) -> Request<TestBody> {
    Request::get("/mcp").header("host", "h").header("accept", accept).body(TestBody::empty()).unwrap()
}

pub(crate) fn delete() -> Request<TestBody> {
    Request::delete("/mcp").header("host", "h").header("mcp-session-id", "s").body(TestBody::empty()).unwrap()
}

/// A body whose frames the test hands out.
#[derive(Debug)]
pub(crate) enum TestBody {
    Frames { frames: VecDeque<Bytes>, announced: Option<u64> },
    Live(mpsc::UnboundedReceiver<Result<Bytes, Broken>>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken;
impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection broke")
    }
}
impl std::error::Error for Broken {}

impl TestBody {
    pub(crate) fn empty() -> Self {
        Self::of([])
    }

    pub(crate) fn of<const N: usize>(frames: [&str; N]) -> Self {
        let frames: VecDeque<Bytes> =
            frames.iter().map(|frame| Bytes::copy_from_slice(frame.as_bytes())).collect();
        Self::Frames { frames, announced: None }
    }

    pub(crate) fn live() -> (mpsc::UnboundedSender<Result<Bytes, Broken>>, Self) {
        let (send, receive) = mpsc::unbounded_channel();
        (send, Self::Live(receive))
    }

    pub(crate) fn announcing(bytes: u64) -> Self {
        Self::Frames { frames: VecDeque::from([Bytes::from_static(b"{}")]), announced: Some(bytes) }
    }
}

impl From<&str> for TestBody {
    fn from(body: &str) -> Self {
        Self::of([body])
    }
}
impl From<String> for TestBody {
    fn from(body: String) -> Self {
        Self::of([&*body])
    }
}
impl From<Vec<u8>> for TestBody {
    fn from(body: Vec<u8>) -> Self {
        Self::Frames { frames: VecDeque::from([Bytes::from(body)]), announced: None }
    }
}

impl Body for TestBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Frames { frames, .. } => {
                Poll::Ready(frames.pop_front().map(|frame| Ok(Frame::data(frame))))
            }
            Self::Live(frames) => frames.poll_recv(cx).map(|frame| frame.map(|frame| frame.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Frames { frames, .. } if frames.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Frames { frames, announced } => {
                let length = frames.iter().map(|frame| u64::try_from(frame.len()).unwrap()).sum();
                SizeHint::with_exact(announced.unwrap_or(length))
            }
            Self::Live(_) => SizeHint::default(),
        }
    }
}

/// Answers from a list, and remembers the questions.
#[derive(Debug, Default)]
pub(crate) struct Authorizers {
    pub(crate) verdicts: Mutex<VecDeque<Verdict>>,
    pub(crate) questions: Mutex<Vec<String>>,
    /// Set: asked questions stay open.
    pub(crate) silent: bool,
}

impl Authorizers {
    pub(crate) fn answering(verdicts: impl IntoIterator<Item = Verdict>) -> Arc<Self> {
        Arc::new(Self { verdicts: Mutex::new(verdicts.into_iter().collect()), ..Self::default() })
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.questions.lock().unwrap().clone()
    }
}

impl Ask for Authorizers {
    fn ask<'a>(
        &'a self,
        authorizer: AuthorizerId,
        check: ext_authz::Check<'a>,
    ) -> Pin<Box<dyn Future<Output = Verdict> + Send + 'a>> {
        let question = format!(
            "{} {} {} {} {} {} {} body={}",
            authorizer.0,
            check.method,
            check.path_and_query,
            check.host,
            check.scheme,
            check.source.principal.unwrap_or("nobody"),
            check.message.map_or("", |message| message.params().unwrap_or("no params")),
            check.body.len(),
        );
        self.questions.lock().unwrap().push(question);
        if self.silent {
            return Box::pin(std::future::pending());
        }
        let verdict = self.verdicts.lock().unwrap().pop_front();
        Box::pin(std::future::ready(verdict.unwrap_or(Verdict::Allowed(Allowed::default()))))
    }
}

/// Writes down what it is told.
#[derive(Debug, Default)]
pub(crate) struct Recorder(Mutex<Vec<String>>);

impl Recorder {
    pub(crate) fn seen(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl Observer for Recorder {
    fn decided(&self, outcome: &Outcome<'_>) {
        let words = [
            outcome.effect,
            outcome.method,
            outcome.target.unwrap_or("-"),
            outcome.authorizer.unwrap_or("-"),
            outcome.detail.unwrap_or("-"),
            if outcome.decision.is_some() { "decided" } else { "undecided" },
        ];
        self.0.lock().unwrap().push(words.join("|"));
    }
}

/// What came of one request.
#[derive(Debug)]
pub(crate) struct Outcomes {
    pub(crate) response: Response<ResponseBody<TestBody>>,
    pub(crate) forwarded: Option<Request<RequestBody<TestBody>>>,
    pub(crate) observed: Vec<String>,
}

/// Sends one request through [`authorize`], over a mock that answers with `answer`.
pub(crate) async fn send_for(
    mut context: Context,
    request: Request<TestBody>,
    answer: Response<TestBody>,
) -> Outcomes {
    let recorder = Arc::new(Recorder::default());
    context.observer = Some(recorder.clone());
    let (service, mut handle) = mock::pair::<Request<RequestBody<TestBody>>, Response<TestBody>>();
    let serve = async {
        let (request, reply) = handle.next_request().await?;
        reply.send_response(answer);
        Some(request)
    };
    let authorized = async { authorize(context, request, service).await };
    let (response, forwarded) = tokio::join!(authorized, serve);
    Outcomes { response: response.unwrap(), forwarded, observed: recorder.seen() }
}

pub(crate) async fn send(context: Context, request: Request<TestBody>) -> Outcomes {
    send_for(context, request, Response::new(TestBody::from("upstream"))).await
}

pub(crate) async fn text<B>(body: B) -> String
where
    B: Body<Data = Bytes>,
    B::Error: std::fmt::Debug,
{
    let bytes = body.collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Polls a body once.
pub(crate) fn poll_once<B: Body<Data = Bytes> + Unpin>(
    body: &mut B,
) -> Poll<Option<Result<Bytes, B::Error>>> {
    let mut cx = TaskContext::from_waker(std::task::Waker::noop());
    Pin::new(body)
        .poll_frame(&mut cx)
        .map(|frame| frame.map(|frame| frame.map(|frame| frame.into_data().unwrap_or_default())))
}
