//! Delegated requests: who is asked what, in which order, and what the client gets of the answer.
use std::sync::Arc;

use authz_core::BackendKind;
use authz_tower::{Context, RequestBody, authorize};
use bytes::Bytes;
use ext_authz::{Allowed, Denied, HeaderChange, Unreachable, Verdict};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use policy_model::{Action, Condition, Dialect, TargetKind};
use tower_test::mock;

use super::support::{
    AGENT, Authorizers, FORBIDDEN, Recorder, TestBody, call, context, external, external_at, get, policy,
    post, rule, send, send_for, text, tools, v0,
};

fn allowed() -> Verdict {
    Verdict::Allowed(Allowed::default())
}

fn denied(status: u16, headers: &[(&'static str, &'static str)], body: &'static str) -> Verdict {
    let headers: HeaderMap = headers
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect();
    Verdict::Denied(Denied {
        status: StatusCode::from_u16(status).unwrap(),
        headers,
        body: Bytes::from_static(body.as_bytes()),
        reason: Some("because".to_owned()),
    })
}

/// The XBackend's policy delegates every `tools/call`.
fn delegating(authorizers: &Arc<Authorizers>) -> Context {
    let rules = vec![rule("ext", Condition::ExternalAuth(external(None)))];
    let context = context(vec![v0(TargetKind::XBackend, rules)], BackendKind::XBackendMcp);
    Context { ask: authorizers.clone(), ..context }
}

/// Both levels delegate, each to an authorizer of its own.
fn delegating_twice(authorizers: &Arc<Authorizers>) -> Context {
    let delegate = |name, kind| {
        let action = Action::ExternalAuth(external_at(name, None));
        policy(name, kind, Dialect::V1Alpha1, action, vec![])
    };
    let policies = vec![delegate("b", TargetKind::XBackend), delegate("g", TargetKind::Gateway)];
    Context { ask: authorizers.clone(), ..context(policies, BackendKind::XBackendMcp) }
}

fn question(authorizer: u32, tool: &str, body: usize) -> String {
    format!(r#"{authorizer} POST /mcp h https {AGENT} {{"name":"{tool}"}} body={body}"#)
}

#[tokio::test]
async fn the_authorizer_sees_the_message_and_allows() {
    let authorizers = Authorizers::answering([allowed()]);
    let body = call("1", "echo");
    let outcomes = send(delegating(&authorizers), post(body.clone())).await;
    assert_eq!(text(outcomes.response.into_body()).await, "upstream");
    assert_eq!(text(outcomes.forwarded.unwrap().into_body()).await, body);
    assert_eq!(authorizers.asked(), [question(0, "echo", body.len())]);
    assert_eq!(outcomes.observed, ["allow|tools/call|echo|allowed|-|decided"]);
}

#[tokio::test]
async fn what_is_not_delegated_is_not_asked() {
    let authorizers = Authorizers::answering([]);
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    assert!(send(delegating(&authorizers), post(list)).await.forwarded.is_some());
    assert!(send(delegating(&authorizers), get("text/event-stream")).await.forwarded.is_some());
    let nobody = Context { identity: None, ..delegating(&authorizers) };
    assert!(send(nobody, post(call("1", "echo"))).await.forwarded.is_none());
    assert!(authorizers.asked().is_empty());
}

/// Which authorizer of the engine is the Service of that name.
fn id_of(context: &Context, name: &str) -> u32 {
    let found = context.engine.authorizers().iter().position(|auth| auth.backend.object.name == name);
    u32::try_from(found.unwrap()).unwrap()
}

#[tokio::test]
async fn the_gateways_authorizer_is_asked_first_and_its_denial_ends_it() {
    let authorizers = Authorizers::answering([allowed(), allowed()]);
    let context = delegating_twice(&authorizers);
    let (gateway, backend) = (id_of(&context, "g"), id_of(&context, "b"));
    let body = call("1", "echo");
    assert!(send(context, post(body.clone())).await.forwarded.is_some());
    let asked = [question(gateway, "echo", body.len()), question(backend, "echo", body.len())];
    assert_eq!(authorizers.asked(), asked);

    let authorizers = Authorizers::answering([denied(403, &[], "")]);
    let outcomes = send(delegating_twice(&authorizers), post(body)).await;
    assert!(outcomes.forwarded.is_none());
    assert_eq!(authorizers.asked(), asked[..1]);
}

#[tokio::test]
async fn verdicts_that_deny() {
    let unreachable = |why| Verdict::Unreachable(why);
    for (verdict, word, detail) in [
        (denied(403, &[("x-reason", "secret")], "secret"), "denied", "because"),
        (unreachable(Unreachable::Failed("no endpoint".to_owned())), "unreachable", "no endpoint"),
        (unreachable(Unreachable::TimedOut), "timeout", "-"),
        (unreachable(Unreachable::Nonsense("no status".to_owned())), "nonsense", "no status"),
        (unreachable(Unreachable::Unjudgeable("too deep")), "unjudgeable", "too deep"),
    ] {
        let authorizers = Authorizers::answering([verdict]);
        let outcomes = send(delegating(&authorizers), post(call("7", "echo"))).await;
        assert!(outcomes.forwarded.is_none());
        assert_eq!(outcomes.response.status(), 200);
        assert_eq!(outcomes.response.headers().len(), 1);
        assert_eq!(
            text(outcomes.response.into_body()).await,
            format!(r#"{{"jsonrpc":"2.0","id":7,"error":{{"code":403,"message":"{FORBIDDEN}"}}}}"#)
        );
        assert_eq!(outcomes.observed, [format!("deny|tools/call|echo|{word}|{detail}|decided")]);
    }
}

#[tokio::test]
async fn answers_of_the_authorizer_that_the_client_must_see() {
    for (status, headers) in [
        (401, &[("www-authenticate", "Bearer"), ("x-a", "b")][..]),
        (403, &[("www-authenticate", "Bearer error=\"insufficient_scope\"")]),
        (302, &[("location", "https://login.example/")]),
        (429, &[]),
    ] {
        let authorizers = Authorizers::answering([denied(status, headers, "theirs")]);
        let outcomes = send(delegating(&authorizers), post(call("7", "echo"))).await;
        assert!(outcomes.forwarded.is_none());
        assert_eq!(outcomes.response.status(), status);
        assert_eq!(outcomes.response.headers().len(), headers.len());
        for (name, value) in headers {
            assert_eq!(outcomes.response.headers()[*name], value);
        }
        assert_eq!(text(outcomes.response.into_body()).await, "theirs");
        assert_eq!(outcomes.observed, ["deny|tools/call|echo|denied|because|decided"]);
    }
}

#[tokio::test]
async fn what_an_authorizer_could_not_see_is_denied_unasked() {
    let deep = |levels: usize| format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels));
    // The message is depth 1, `params` 2, `arguments` 3.
    for (arguments, judged) in [
        (r#"{"n":9007199254740992}"#.to_owned(), true),
        (r#"{"n":9007199254740993}"#.to_owned(), false),
        (r#"{"n":-9007199254740993}"#.to_owned(), false),
        (deep(30), true),
        (deep(31), false),
    ] {
        let authorizers = Authorizers::answering([]);
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"echo","arguments":{arguments}}}}}"#
        );
        let outcomes = send(delegating(&authorizers), post(body)).await;
        assert_eq!(outcomes.forwarded.is_some(), judged, "{arguments}");
        assert_eq!(authorizers.asked().len(), usize::from(judged), "{arguments}");
        let [observed] = &outcomes.observed[..] else { panic!("one message") };
        assert_eq!(observed.contains("|unjudgeable|"), !judged, "{observed}");
    }
}

#[tokio::test]
async fn every_message_of_a_batch_is_asked_about() {
    let both = format!("[{},{}]", call("1", "one"), call("2", "two"));
    let authorizers = Authorizers::answering([allowed(), allowed()]);
    assert!(send(delegating(&authorizers), post(both.clone())).await.forwarded.is_some());
    assert_eq!(authorizers.asked(), [question(0, "one", both.len()), question(0, "two", both.len())]);

    let authorizers = Authorizers::answering([allowed(), denied(403, &[], "")]);
    let outcomes = send(delegating(&authorizers), post(both)).await;
    assert!(outcomes.forwarded.is_none());
    assert_eq!(outcomes.response.status(), 200);
    let error =
        |id| format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":403,"message":"{FORBIDDEN}"}}}}"#);
    assert_eq!(text(outcomes.response.into_body()).await, format!("[{},{}]", error(1), error(2)));
    assert_eq!(
        outcomes.observed,
        [
            "deny|tools/call|one|allowed|another message of the batch was denied|decided",
            "deny|tools/call|two|denied|because|decided",
        ]
    );
}

#[tokio::test]
async fn the_first_denial_in_a_batch_ends_the_asking() {
    let authorizers = Authorizers::answering([denied(403, &[], ""), allowed()]);
    let both = format!("[{},{}]", call("1", "one"), call("2", "two"));
    let outcomes = send(delegating(&authorizers), post(both.clone())).await;
    assert!(outcomes.forwarded.is_none());
    assert_eq!(authorizers.asked(), [question(0, "one", both.len())]);
    assert_eq!(
        outcomes.observed,
        [
            "deny|tools/call|one|denied|because|decided",
            "deny|tools/call|two|-|another message of the batch was denied|decided",
        ]
    );
}

#[tokio::test]
async fn a_local_denial_in_a_batch_asks_nobody() {
    let authorizers = Authorizers::answering([]);
    let body = format!(
        r#"[{},{{"jsonrpc":"2.0","id":2,"method":"prompts/get","params":{{"name":"p"}}}}]"#,
        call("1", "a")
    );
    let outcomes = send(delegating(&authorizers), post(body)).await;
    assert!(outcomes.forwarded.is_none());
    assert!(authorizers.asked().is_empty());
}

#[tokio::test]
async fn changes_that_an_authorizer_asks_for() {
    let set = |name: &'static str, value: &'static str| {
        HeaderChange::Set(HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    let verdict = Verdict::Allowed(Allowed {
        request_headers: vec![
            set("x-user", "alice"),
            HeaderChange::Remove(HeaderName::from_static("x-drop")),
            set("mcp-session-id", "stolen"),
            set("x-http-method-override", "DELETE"),
        ],
        response_headers: vec![set("x-seen", "yes"), set("content-type", "text/event-stream")],
        query_set: vec![("k".to_owned(), "v w".to_owned())],
        query_remove: vec!["secret".to_owned()],
        decision_id: None,
    });
    let authorizers = Authorizers::answering([verdict]);
    let mut request = post(call("1", "echo"));
    *request.uri_mut() = "https://h/mcp?secret=1&a=b".parse().unwrap();
    request.headers_mut().insert("x-drop", HeaderValue::from_static("x"));
    request.headers_mut().insert("x-user", HeaderValue::from_static("mallory"));
    let outcomes = send(delegating(&authorizers), request).await;
    let forwarded = outcomes.forwarded.unwrap();
    assert_eq!(forwarded.uri(), "https://h/mcp?a=b&k=v%20w");
    assert_eq!(forwarded.headers()["x-user"], "alice");
    for name in ["x-drop", "mcp-session-id", "x-http-method-override"] {
        assert!(!forwarded.headers().contains_key(name), "{name}");
    }
    assert_eq!(outcomes.response.headers()["x-seen"], "yes");
    assert!(!outcomes.response.headers().contains_key("content-type"));
}

#[tokio::test]
async fn a_query_that_does_not_fit_is_denied() {
    let query_set = vec![("k".to_owned(), "x".repeat(1 << 16))];
    let authorizers = Authorizers::answering([Verdict::Allowed(Allowed { query_set, ..Allowed::default() })]);
    let outcomes = send(delegating(&authorizers), post(call("1", "echo"))).await;
    assert!(outcomes.forwarded.is_none());
    let observed = "deny|tools/call|echo|nonsense|its query parameters do not fit into the request|decided";
    assert_eq!(outcomes.observed, [observed]);
}

/// A Service whose Gateway delegates everything, to an authorizer that wants so much of the body.
fn delegating_service(authorizers: &Arc<Authorizers>, forward_body: Option<u32>) -> Context {
    let action = Action::ExternalAuth(external(forward_body));
    let policies = vec![policy("g", TargetKind::Gateway, Dialect::V1Alpha1, action, vec![])];
    Context { ask: authorizers.clone(), ..context(policies, BackendKind::Service) }
}

fn form(body: impl Into<TestBody>) -> Request<TestBody> {
    let request = Request::put("/form").header("host", "h").header("content-type", "text/plain");
    request.body(body.into()).unwrap()
}

#[tokio::test]
async fn a_body_that_nobody_reads_is_held_only_for_an_authorizer_that_wants_it() {
    let authorizers = Authorizers::answering([]);
    let outcomes = send(delegating_service(&authorizers, None), form("a=1")).await;
    assert!(matches!(outcomes.forwarded.unwrap().body(), RequestBody::Streaming(_)));
    let outcomes = send(delegating_service(&authorizers, Some(2)), form("a=1")).await;
    assert!(matches!(outcomes.forwarded.as_ref().unwrap().body(), RequestBody::Buffered(_)));
    assert_eq!(text(outcomes.forwarded.unwrap().into_body()).await, "a=1");
    let question = |body| format!("0 PUT /form h https {AGENT}  body={body}");
    assert_eq!(authorizers.asked(), [question(0), question(3)]);
    // Over the limit of what is held: refused, and nobody is asked.
    let long = form(" ".repeat((1 << 20) + 1));
    let outcomes = send(delegating_service(&authorizers, Some(2)), long).await;
    assert_eq!(outcomes.response.status(), 413);
    assert_eq!(authorizers.asked().len(), 2);
}

#[tokio::test]
async fn a_client_that_leaves_while_the_authorizer_is_asked_reaches_nobody() {
    let authorizers = Arc::new(Authorizers { silent: true, ..Authorizers::default() });
    let recorder = Arc::new(Recorder::default());
    let context = Context { observer: Some(recorder.clone()), ..delegating(&authorizers) };
    let (service, mut handle) = mock::pair::<Request<RequestBody<TestBody>>, Response<TestBody>>();
    let mut pending = Box::pin(authorize(context, post(call("1", "echo")), service));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(pending.as_mut().poll(&mut cx).is_pending());
    assert_eq!(authorizers.asked().len(), 1);
    assert!(format!("{pending:?}").contains("asking"));
    drop(pending);
    assert!(handle.next_request().await.is_none());
    assert!(recorder.seen().is_empty());
}

#[tokio::test]
async fn both_allow_and_delegate_of_a_level_must_agree() {
    let authorizers = Authorizers::answering([denied(403, &[], "")]);
    let rules = vec![rule("inline", tools(&["echo"])), rule("ext", Condition::ExternalAuth(external(None)))];
    let context = context(vec![v0(TargetKind::XBackend, rules)], BackendKind::XBackendMcp);
    let context = Context { ask: authorizers.clone(), ..context };
    let answer = Response::new(TestBody::empty());
    assert!(send_for(context, post(call("1", "echo")), answer).await.forwarded.is_none());
    assert_eq!(authorizers.asked().len(), 1);
}
