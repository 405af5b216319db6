//! What is refused before policy.
use std::sync::Arc;

use authz_core::BackendKind;
use authz_tower::{Context, admit, admit_head};
use http::{HeaderName, HeaderValue, Request};
use policy_model::{Condition, TargetKind};

use super::support::{
    TestBody, call, context, get, one_tool, post, rule, send, text, tools, v0, with_options,
};

#[track_caller]
fn header(request: &mut Request<TestBody>, name: &'static str, values: &[&str]) {
    let name = HeaderName::from_static(name);
    request.headers_mut().remove(&name);
    for value in values {
        request.headers_mut().append(&name, HeaderValue::from_str(value).unwrap());
    }
}

fn with(mut request: Request<TestBody>, name: &'static str, values: &[&str]) -> Request<TestBody> {
    header(&mut request, name, values);
    request
}

/// It is refused with this status, its body begins so, and the inner service never sees it.
async fn refused_in(
    context: Context,
    request: Request<TestBody>,
    status: u16,
    begins: &str,
) -> Option<String> {
    let name = format!("{} {:?}", request.method(), request.headers());
    let outcomes = send(context, request).await;
    assert_eq!(outcomes.response.status(), status, "{name}");
    assert!(outcomes.forwarded.is_none(), "{name}");
    let [observed] = &outcomes.observed[..] else { panic!("{name}: {:?}", outcomes.observed) };
    assert!(observed.starts_with("reject||-|-|") && observed.ends_with("|undecided"), "{observed}");
    let json = begins.starts_with('{');
    let content_type = if json { "application/json" } else { "text/plain; charset=utf-8" };
    assert_eq!(outcomes.response.headers()["content-type"], content_type, "{name}");
    let allow = outcomes.response.headers().get("allow").map(|allow| allow.to_str().unwrap().to_owned());
    let body = text(outcomes.response.into_body()).await;
    assert!(body.starts_with(begins), "{name}: {body}");
    allow
}

async fn refused(request: Request<TestBody>, status: u16, begins: &str) {
    assert_eq!(refused_in(one_tool(), request, status, begins).await, None);
}

const INVALID: &str = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"#;
const UNREADABLE: &str = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"#;

fn sum() -> Request<TestBody> {
    post(call("1", "get-sum"))
}

#[tokio::test]
async fn content_types_of_a_post() {
    for bad in [
        &[][..],
        &["text/plain"],
        &["application/json", "application/json"],
        &["application/json;charset=latin1"],
    ] {
        refused(with(sum(), "content-type", bad), 415, INVALID).await;
    }
    for good in ["application/json", "Application/Json; charset=UTF-8"] {
        assert!(send(one_tool(), with(sum(), "content-type", &[good])).await.forwarded.is_some());
    }
}

#[tokio::test]
async fn codings_of_a_post() {
    refused(with(sum(), "content-encoding", &["gzip"]), 415, INVALID).await;
    refused(with(sum(), "content-encoding", &["identity", "br"]), 415, INVALID).await;
    refused(with(sum(), "transfer-encoding", &["gzip, chunked"]), 400, INVALID).await;
    assert!(send(one_tool(), with(sum(), "content-encoding", &["identity"])).await.forwarded.is_some());
}

#[tokio::test]
async fn other_methods() {
    for method in ["PUT", "PATCH", "OPTIONS", "HEAD", "post", "TRACE"] {
        let mut request = sum();
        *request.method_mut() = method.parse().unwrap();
        let allow = refused_in(one_tool(), request, 405, INVALID).await;
        assert_eq!(allow.as_deref(), Some("GET, POST, DELETE"));
    }
    for request in [get("text/event-stream"), super::support::delete()] {
        let request = with(request, "mcp-protocol-version", &["2026-07-28"]);
        assert_eq!(refused_in(one_tool(), request, 405, INVALID).await.as_deref(), Some("POST"));
    }
}

#[tokio::test]
async fn gets_and_deletes() {
    refused(get("*/*"), 406, INVALID).await;
    refused(get("text/event-stream;q=0"), 406, INVALID).await;
    refused(with(get("x/y"), "accept", &[]), 406, INVALID).await;
    for sessions in [&[][..], &[""]] {
        refused(with(super::support::delete(), "mcp-session-id", sessions), 400, INVALID).await;
    }
    for request in [super::support::delete(), get("text/event-stream"), sum()] {
        refused(with(request, "mcp-session-id", &["a", "b"]), 400, INVALID).await;
    }
    for mut request in [super::support::delete(), get("text/event-stream")] {
        *request.body_mut() = TestBody::from("x");
        refused(request, 400, INVALID).await;
    }
}

#[tokio::test]
async fn protocol_versions() {
    let unknown = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32022,"#;
    refused(with(get("text/event-stream"), "mcp-protocol-version", &["2027-01-01"]), 400, unknown).await;
    refused(with(super::support::delete(), "mcp-protocol-version", &["1"]), 400, unknown).await;
    let with_id = r#"{"jsonrpc":"2.0","id":1.50,"error":{"code":-32022,"#;
    refused(with(post(call("1.50", "get-sum")), "mcp-protocol-version", &["2027-01-01"]), 400, with_id).await;
    let differs = r#"{"jsonrpc":"2.0","id":"7","error":{"code":-32020,"#;
    refused(with(post(call("\"7\"", "get-sum")), "mcp-protocol-version", &["2026-07-28"]), 400, differs)
        .await;
    let batch = post(format!("[{}]", call("1", "get-sum")));
    refused(with(batch, "mcp-protocol-version", &["2025-11-25"]), 400, INVALID).await;
}

#[tokio::test]
async fn mirrored_headers() {
    let body = r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"get-sum","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#;
    let request = |method: &[&str], name: &[&str]| {
        let request = with(post(body), "mcp-protocol-version", &["2026-07-28"]);
        with(with(request, "mcp-method", method), "mcp-name", name)
    };
    assert!(send(one_tool(), request(&["tools/call"], &["get-sum"])).await.forwarded.is_some());
    let mismatch = r#"{"jsonrpc":"2.0","id":"a","error":{"code":-32020,"#;
    refused(request(&["tools/call"], &["echo"]), 400, mismatch).await;
    refused(request(&["tools/list"], &["get-sum"]), 400, mismatch).await;
    refused(request(&[], &["get-sum"]), 400, mismatch).await;
    refused(request(&["tools/call"], &["get-sum", "get-sum"]), 400, mismatch).await;
}

#[tokio::test]
async fn bodies() {
    let no_id = r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"get-sum"}}"#;
    let twice = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get-sum","name":"echo"}}"#;
    refused(post(""), 400, UNREADABLE).await;
    refused(post(TestBody::empty()), 400, UNREADABLE).await;
    refused(post("{"), 400, UNREADABLE).await;
    refused(post(twice), 400, UNREADABLE).await;
    refused(post(b"\xef\xbb\xbf{}".to_vec()), 400, UNREADABLE).await;
    refused(post(no_id), 400, INVALID).await;
    refused(post("{}"), 400, INVALID).await;
    refused(post("[]"), 400, INVALID).await;
}

#[tokio::test]
async fn bodies_over_the_limit() {
    let context = || with_options(one_tool(), |options| options.limits.max_bytes = 80);
    let long = format!("{}{}", call("1", "get-sum"), " ".repeat(80));
    assert_eq!(refused_in(context(), post(long.clone()), 413, INVALID).await, None);
    let (first, second) = long.split_at(70);
    assert_eq!(refused_in(context(), post(TestBody::of([first, second])), 413, INVALID).await, None);
    // Announced too long: not a byte is read.
    assert_eq!(refused_in(context(), post(TestBody::announcing(81)), 413, INVALID).await, None);
    let (sender, body) = TestBody::live();
    drop(sender);
    let request = with(post(body), "content-length", &["81"]);
    assert_eq!(refused_in(context(), request, 413, INVALID).await, None);
    let request = with(sum(), "content-length", &["99999999999999999999999"]);
    assert_eq!(refused_in(context(), request, 413, INVALID).await, None);
}

#[tokio::test]
async fn a_body_that_runs_past_the_limit_is_not_read_on() {
    let context = with_options(one_tool(), |options| options.limits.max_bytes = 80);
    let (sender, body) = TestBody::live();
    for _ in 0..10 {
        sender.send(Ok(vec![b' '; 30].into())).unwrap();
    }
    // The sender stays open: whoever read to the end would wait for ever.
    assert_eq!(refused_in(context, post(body), 413, INVALID).await, None);
    assert!(sender.is_closed());
}

#[tokio::test]
async fn a_body_that_breaks_off() {
    let (sender, body) = TestBody::live();
    sender.send(Ok("{".into())).unwrap();
    sender.send(Err(super::support::Broken)).unwrap();
    refused(post(body), 400, "the body ended").await;
}

#[tokio::test]
async fn origins() {
    let forbidden = r#"{"jsonrpc":"2.0","error":{"code":-32600,"#;
    let cors: Arc<[String]> = Arc::new(["https://*.cors.example".to_owned()]);
    let context = || {
        let context = with_options(one_tool(), |options| {
            options.allowed_origins = vec!["https://allowed.example".to_owned()];
        });
        Context { cors_origins: Some(cors.clone()), ..context }
    };
    for (origins, admitted) in [
        (&[][..], true),
        (&["https://h"], true),
        (&["https://H:443"], true),
        (&["https://allowed.example"], true),
        (&["https://a.cors.example"], true),
        (&["http://h"], false),
        (&["https://h:8443"], false),
        (&["https://evil.example"], false),
        (&["http://allowed.example"], false),
        (&["https://cors.example"], false),
        (&["null"], false),
        (&["https://h", "https://h"], false),
        (&[""], false),
    ] {
        let request = with(sum(), "origin", origins);
        if admitted {
            assert!(send(context(), request).await.forwarded.is_some(), "{origins:?}");
        } else {
            assert_eq!(refused_in(context(), request, 403, forbidden).await, None);
        }
    }
    let mut anyone = with_options(one_tool(), |options| options.allowed_origins = vec!["*".to_owned()]);
    assert!(send(anyone.clone(), with(sum(), "origin", &["https://evil.example"])).await.forwarded.is_some());
    assert_eq!(refused_in(anyone.clone(), with(sum(), "origin", &["null"]), 403, forbidden).await, None);
    // Plain HTTP: the own origin is of that scheme.
    anyone.options = one_tool().options;
    anyone.peer.tls = false;
    assert!(send(anyone.clone(), with(sum(), "origin", &["http://h"])).await.forwarded.is_some());
    assert_eq!(refused_in(anyone, with(sum(), "origin", &["https://h"]), 403, forbidden).await, None);
}

#[tokio::test]
async fn targets_on_every_route() {
    for backend in [BackendKind::XBackendMcp, BackendKind::XBackendWellKnown, BackendKind::Service] {
        for path in ["/a/../mcp", "/a/%2e%2e/mcp", "//mcp", "/mcp%2f", "/mcp%5C", "/mcp%00", "/a\\b"] {
            let request = Request::get(path).header("host", "h").body(TestBody::empty()).unwrap();
            assert_eq!(refused_in(context(vec![], backend), request, 400, "the path").await, None);
        }
        for hosts in [&[][..], &["a", "b"]] {
            let request = with(get("text/event-stream"), "host", hosts);
            assert_eq!(refused_in(context(vec![], backend), request, 400, "the Host header").await, None);
        }
    }
}

#[tokio::test]
async fn well_known() {
    let context = || context(vec![], BackendKind::XBackendWellKnown);
    assert!(send(context(), get("*/*")).await.forwarded.is_some());
    assert_eq!(refused_in(context(), sum(), 405, "only GET").await.as_deref(), Some("GET"));
    let foreign = with(get("*/*"), "origin", &["https://evil.example"]);
    assert_eq!(refused_in(context(), foreign, 403, "the Origin").await, None);
    let mut request = get("*/*");
    *request.body_mut() = TestBody::from("x");
    assert_eq!(refused_in(context(), request, 400, "a GET has no body").await, None);
}

/// A Service under a v0alpha0 policy of the Gateway.
fn service() -> Context {
    let rules = vec![rule("sum", tools(&["get-sum"])), rule("rest", Condition::NotToolCall)];
    context(vec![v0(TargetKind::Gateway, rules)], BackendKind::Service)
}

#[tokio::test]
async fn a_service_whose_policy_looks_at_messages() {
    let twice = r#"{"a":1,"a":2}"#;
    let almost = r#"{"Method":"tools/call"}"#;
    let refused = async |request, status, begins| {
        assert_eq!(refused_in(service(), request, status, begins).await, None);
    };
    refused(post(twice), 400, UNREADABLE).await;
    refused(post("{"), 400, UNREADABLE).await;
    refused(post(almost), 400, INVALID).await;
    refused(with(post("{}"), "content-encoding", &["gzip"]), 415, INVALID).await;
    refused(with(post(twice), "content-type", &["application/problem+json"]), 400, UNREADABLE).await;
    // A message is held to the content type of messages; other JSON is not.
    for content_type in
        [&["application/json; charset=latin1"][..], &["application/vnd.x+json"], &["text/json"]]
    {
        refused(with(sum(), "content-type", content_type), 415, INVALID).await;
        let other = with(post(r#"{"a":1}"#), "content-type", content_type);
        assert!(send(service(), other).await.forwarded.is_some());
    }
    // So is the revision.
    let unknown = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32022,"#;
    refused(with(sum(), "mcp-protocol-version", &["2027-01-01"]), 400, unknown).await;
}

#[tokio::test]
async fn a_service_whose_policies_do_not_look_at_messages_gets_what_it_gets() {
    let outcomes = send(context(vec![], BackendKind::Service), post(r#"{"a":1,"a":2}"#)).await;
    let forwarded = outcomes.forwarded.unwrap();
    assert!(matches!(forwarded.body(), authz_tower::RequestBody::Streaming(_)));
    assert_eq!(text(forwarded.into_body()).await, r#"{"a":1,"a":2}"#);
}

#[test]
fn explaining_uses_the_same_checks() {
    let (parts, _) = sum().into_parts();
    let body = call("1", "get-sum");
    let context = one_tool();
    let subject = admit(&parts, Some(body.as_bytes()), &context).unwrap();
    let [traffic] = subject.traffic().collect::<Vec<_>>()[..] else { panic!("one message") };
    let request = context.request(&parts, traffic);
    assert_eq!((request.http.method, request.http.path_and_query, request.http.host), ("POST", "/mcp", "h"));
    let explanation = context.engine.explain(context.levels, &request);
    assert_eq!(explanation.effect, authz_core::Effect::Allow);
    assert_eq!(admit(&parts, None, &context).unwrap_err(), admit_head(&parts, false, &context).unwrap_err());
    assert_eq!(admit(&parts, Some(b"{"), &context).unwrap_err().status, 400);
}
