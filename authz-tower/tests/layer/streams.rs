//! Event streams: passed on frame by frame, and ended when a change of policy would now deny them.
use std::{
    sync::{Arc, Mutex},
    task::{Poll, Wake, Waker},
};

use authz_core::BackendKind;
use authz_tower::{Context, Recheck, ResponseBody};
use ext_authz::{Allowed, Verdict};
use http::{HeaderValue, Request, Response, request::Parts};
use http_body::Body;
use policy_model::{Condition, TargetKind};
use tokio::sync::{mpsc, watch};

use super::support::{
    Authorizers, Broken, TestBody, call, context, external, external_at, get, one_tool, poll_once, post,
    rule, send, send_for, text, tools, v0,
};

/// Gives the context that the test says, and notes what it was asked about.
#[derive(Debug)]
struct Policies {
    ticks: watch::Sender<u64>,
    now: Mutex<Option<Context>>,
    asked: Mutex<Vec<String>>,
}

impl Policies {
    fn new(now: Context) -> Arc<Self> {
        Arc::new(Self { ticks: watch::Sender::new(0), now: Mutex::new(Some(now)), asked: Mutex::default() })
    }

    fn change(&self, now: Option<Context>) {
        *self.now.lock().unwrap() = now;
        self.ticks.send_modify(|tick| *tick += 1);
    }
}

impl Recheck for Policies {
    fn has_changed(&self) -> bool {
        *self.ticks.borrow() > 0
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.ticks.subscribe()
    }

    fn context(&self, parts: &Parts) -> Option<Context> {
        self.asked.lock().unwrap().push(format!("{} {} {}", parts.method, parts.uri, parts.headers.len()));
        self.now.lock().unwrap().clone()
    }
}

struct Stream {
    policies: Arc<Policies>,
    server: mpsc::UnboundedSender<Result<bytes::Bytes, Broken>>,
    body: ResponseBody<TestBody>,
}

async fn open(context: Context, request: Request<TestBody>) -> Stream {
    let policies = Policies::new(context.clone());
    let context = Context { recheck: Some(policies.clone()), ..context };
    let (server, body) = TestBody::live();
    let answer =
        Response::builder().header("content-type", "text/event-stream; charset=utf-8").body(body).unwrap();
    let outcomes = send_for(context, request, answer).await;
    assert_eq!(outcomes.response.status(), 200);
    Stream { policies, server, body: outcomes.response.into_body() }
}

impl Stream {
    fn passes(&mut self, event: &str) {
        self.server.send(Ok(event.to_owned().into())).unwrap();
        assert_eq!(poll_once(&mut self.body), Poll::Ready(Some(Ok(event.to_owned().into()))));
        assert_eq!(poll_once(&mut self.body), Poll::Pending);
    }

    fn has_ended(&mut self) {
        assert_eq!(poll_once(&mut self.body), Poll::Ready(None));
        assert!(self.body.is_end_stream());
        // The server is told, by dropping its response.
        assert!(self.server.is_closed());
        assert_eq!(poll_once(&mut self.body), Poll::Ready(None));
    }
}

/// The agent may call other tools.
fn other_tool() -> Context {
    context(vec![v0(TargetKind::XBackend, vec![rule("x", tools(&["other"]))])], BackendKind::XBackendMcp)
}

/// The XBackend's policy names somebody else, and no base protocol.
fn closed() -> Context {
    use policy_model::{Action, Dialect, Rule, Source};
    let somebody = Rule {
        name: "somebody".to_owned(),
        source: Source::Spiffe("spiffe://cluster.local/ns/x/sa/somebody".to_owned()),
        condition: Condition::Anything,
    };
    let policy =
        super::support::policy("p", TargetKind::XBackend, Dialect::V1Alpha1, Action::Allow, vec![somebody]);
    context(vec![policy], BackendKind::XBackendMcp)
}

#[tokio::test]
async fn events_pass_one_by_one() {
    let mut stream = open(one_tool(), post(call("1", "get-sum"))).await;
    assert_eq!(poll_once(&mut stream.body), Poll::Pending);
    stream.passes("data: 1\n\n");
    stream.passes("data: half");
    stream.passes("\n\n");
    drop(stream.server);
    assert_eq!(poll_once(&mut stream.body), Poll::Ready(None));
}

#[tokio::test]
async fn a_change_that_denies_ends_the_stream() {
    let mut stream = open(one_tool(), post(call("1", "get-sum"))).await;
    stream.passes("data: 1\n\n");
    stream.policies.change(Some(one_tool()));
    stream.passes("data: 2\n\n");
    stream.policies.change(Some(other_tool()));
    // What the server still had to say is not passed on.
    stream.server.send(Ok("data: 3\n\n".into())).unwrap();
    stream.has_ended();
}

#[tokio::test]
async fn the_event_stream_of_a_get_ends_too_and_a_route_that_went_away_ends_it() {
    let mut stream = open(one_tool(), get("text/event-stream")).await;
    stream.passes("data: 1\n\n");
    // Base protocol: another tool list changes nothing.
    stream.policies.change(Some(other_tool()));
    stream.passes("data: 2\n\n");
    stream.policies.change(Some(closed()));
    stream.has_ended();

    let mut stream = open(one_tool(), get("text/event-stream")).await;
    stream.passes("data: 1\n\n");
    stream.policies.change(None);
    stream.has_ended();
    let asked = stream.policies.asked.lock().unwrap().clone();
    assert_eq!(asked, ["GET /mcp 2", "GET /mcp 2"]);
}

#[tokio::test]
async fn a_change_before_the_response_came_counts() {
    let policies = Policies::new(closed());
    let context = Context { recheck: Some(policies), ..one_tool() };
    let (server, body) = TestBody::live();
    server.send(Ok("data: 1\n\n".into())).unwrap();
    let answer = Response::builder().header("content-type", "text/event-stream").body(body).unwrap();
    let mut body = send_for(context, post(call("1", "get-sum")), answer).await.response.into_body();
    assert_eq!(poll_once(&mut body), Poll::Ready(None));
}

#[tokio::test]
async fn a_request_that_would_be_refused_now_ends() {
    let mut request = get("text/event-stream");
    request.headers_mut().insert("origin", HeaderValue::from_static("https://app.example"));
    let cors: Arc<[String]> = Arc::new(["https://app.example".to_owned()]);
    let mut stream = open(Context { cors_origins: Some(cors), ..one_tool() }, request).await;
    stream.passes("data: 1\n\n");
    stream.policies.change(Some(one_tool()));
    stream.has_ended();
}

#[tokio::test]
async fn a_waiting_client_is_woken() {
    #[derive(Debug, Default)]
    struct Woken(std::sync::atomic::AtomicBool);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, std::sync::atomic::Ordering::SeqCst);
        }
    }
    let mut stream = open(one_tool(), post(call("1", "get-sum"))).await;
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let mut cx = std::task::Context::from_waker(&waker);
    assert!(std::pin::Pin::new(&mut stream.body).poll_frame(&mut cx).is_pending());
    assert!(!woken.0.load(std::sync::atomic::Ordering::SeqCst));
    stream.policies.change(Some(other_tool()));
    assert!(woken.0.load(std::sync::atomic::Ordering::SeqCst));
}

#[tokio::test]
async fn delegated_streams_are_not_asked_about_again_but_need_the_same_authorizer() {
    let delegating = |name: &str| {
        let rules = vec![rule("ext", Condition::ExternalAuth(external_at(name, None)))];
        context(vec![v0(TargetKind::XBackend, rules)], BackendKind::XBackendMcp)
    };
    let authorizers = Authorizers::answering([Verdict::Allowed(Allowed::default())]);
    let with = |context| Context { ask: authorizers.clone(), ..context };
    let mut stream = open(with(delegating("one")), post(call("1", "x"))).await;
    stream.passes("data: 1\n\n");
    stream.policies.change(Some(with(delegating("one"))));
    stream.passes("data: 2\n\n");
    assert_eq!(authorizers.asked().len(), 1);
    stream.policies.change(Some(with(delegating("two"))));
    stream.has_ended();
    assert_eq!(authorizers.asked().len(), 1);

    // Allowed locally before, delegated now: nobody was asked.
    let mut stream = open(one_tool(), post(call("1", "get-sum"))).await;
    stream.passes("data: 1\n\n");
    let rules = vec![rule("ext", Condition::ExternalAuth(external(None)))];
    stream.policies.change(Some(context(vec![v0(TargetKind::XBackend, rules)], BackendKind::XBackendMcp)));
    stream.has_ended();
}

#[tokio::test]
async fn a_body_that_was_not_kept_and_would_be_looked_at_now_ends() {
    let mut stream = open(context(vec![], BackendKind::Service), post(call("1", "get-sum"))).await;
    stream.passes("data: 1\n\n");
    let rules = vec![rule("sum", tools(&["get-sum"]))];
    stream.policies.change(Some(context(vec![v0(TargetKind::Gateway, rules)], BackendKind::Service)));
    stream.has_ended();
}

#[tokio::test]
async fn policies_that_will_not_change_any_more_leave_it_open() {
    let mut stream = open(one_tool(), post(call("1", "get-sum"))).await;
    stream.passes("data: 1\n\n");
    let (ticks, _) = watch::channel(0);
    let receiver = ticks.subscribe();
    drop(ticks);
    assert!(receiver.has_changed().is_err());
    #[derive(Debug)]
    struct Gone(watch::Receiver<u64>);
    impl Recheck for Gone {
        fn has_changed(&self) -> bool {
            false
        }
        fn changes(&self) -> watch::Receiver<u64> {
            self.0.clone()
        }
        fn context(&self, _: &Parts) -> Option<Context> {
            Some(one_tool())
        }
    }
    let context = Context { recheck: Some(Arc::new(Gone(receiver))), ..one_tool() };
    let answer =
        Response::builder().header("content-type", "text/event-stream").body(TestBody::from("data: 1\n\n"));
    let outcomes = send_for(context, post(call("1", "get-sum")), answer.unwrap()).await;
    assert_eq!(text(outcomes.response.into_body()).await, "data: 1\n\n");
}

#[tokio::test]
async fn other_responses_are_not_watched() {
    let policies = Policies::new(one_tool());
    let context = Context { recheck: Some(policies.clone()), ..one_tool() };
    let outcomes = send_for(context, post(call("1", "get-sum")), Response::new(TestBody::from("x"))).await;
    assert!(matches!(outcomes.response.body(), ResponseBody::Inner(_)));
    assert!(policies.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_filtered_list_follows_the_policies() {
    let filtering = |context| super::support::with_options(context, |options| options.filter_lists = true);
    let mut stream = open(filtering(one_tool()), get("text/event-stream")).await;
    let list = |tools: &str| {
        format!("data: {{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{{\"tools\":[{tools}]}}}}\n\n")
    };
    let both = list(r#"{"name":"get-sum"},{"name":"other"}"#);
    let mut step = |expected: &str| {
        stream.server.send(Ok(both.clone().into())).unwrap();
        assert_eq!(poll_once(&mut stream.body), Poll::Ready(Some(Ok(expected.to_owned().into()))));
    };
    step(&list(r#"{"name":"get-sum"}"#));
    stream.policies.change(Some(filtering(other_tool())));
    step(&list(r#"{"name":"other"}"#));
}

/// A body that is there only after policies changed to `now`: whether it is forwarded, and the status otherwise.
async fn after_a_change(before: Context, now: Option<Context>) -> Result<(), u16> {
    let policies = Policies::new(before.clone());
    let context = Context { recheck: Some(policies.clone()), ..before };
    let (client, body) = TestBody::live();
    let change = async {
        client.send(Ok(call("1", "get-sum").into())).unwrap();
        policies.change(now);
        drop(client);
    };
    let (outcomes, ()) = tokio::join!(send(context, post(body)), change);
    assert_eq!(outcomes.observed.len(), 1, "{:?}", outcomes.observed);
    match outcomes.forwarded {
        Some(_) => Ok(()),
        None => Err(outcomes.response.status().as_u16()),
    }
}

#[tokio::test]
async fn a_body_is_decided_by_the_policies_of_when_it_is_there() {
    assert_eq!(after_a_change(one_tool(), Some(one_tool())).await, Ok(()));
    assert_eq!(after_a_change(other_tool(), Some(one_tool())).await, Ok(()));
    // A denial of a message is a JSON-RPC error.
    assert_eq!(after_a_change(one_tool(), Some(other_tool())).await, Err(200));
    assert_eq!(after_a_change(one_tool(), Some(closed())).await, Err(200));
    assert_eq!(after_a_change(one_tool(), None).await, Err(503));
}
