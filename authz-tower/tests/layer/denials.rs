//! What a client sees of a denial by local rules (semantics, section 5).
use authz_core::BackendKind;
use authz_tower::Context;
use http::Request;
use policy_model::{Condition, TargetKind};

use super::support::{
    FORBIDDEN, TestBody, call, context, delete, get, one_tool, policy, post, rule, send, text, tools, v0,
    with_options,
};

async fn denied(context: Context, request: Request<TestBody>, status: u16, body: &str, observed: &[&str]) {
    let outcomes = send(context, request).await;
    assert!(outcomes.forwarded.is_none(), "{body}");
    assert_eq!(outcomes.response.status(), status, "{body}");
    let json = body.starts_with(['{', '[']);
    let content_type = if json { "application/json" } else { "text/plain; charset=utf-8" };
    assert_eq!(outcomes.response.headers()["content-type"], content_type);
    assert_eq!(outcomes.response.headers().len(), 1);
    assert_eq!(text(outcomes.response.into_body()).await, body);
    assert_eq!(outcomes.observed, observed);
}

fn error(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":403,"message":"{FORBIDDEN}"}}}}"#)
}

fn error_without_id() -> String {
    format!(r#"{{"jsonrpc":"2.0","error":{{"code":403,"message":"{FORBIDDEN}"}}}}"#)
}

/// Everything that targets the XBackend is denied: nobody may do anything.
fn closed() -> Context {
    use policy_model::{Action, Dialect, Rule, Source};
    let nobody = Rule {
        name: "nobody".to_owned(),
        source: Source::Spiffe("spiffe://cluster.local/ns/x/sa/nobody".to_owned()),
        condition: Condition::Anything,
    };
    let policy = policy("closed", TargetKind::XBackend, Dialect::V1Alpha1, Action::Allow, vec![nobody]);
    context(vec![policy], BackendKind::XBackendMcp)
}

#[tokio::test]
async fn a_request_gets_its_id_token_back() {
    for id in ["1", "12345678901234567890", "1.50", "-0", "1e3", r#""7""#, r#""\u0061\/""#] {
        denied(one_tool(), post(call(id, "echo")), 200, &error(id), &["deny|tools/call|echo|-|-|decided"])
            .await;
    }
}

#[tokio::test]
async fn messages_without_a_request() {
    let notification = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    let response = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
    let observed = ["deny|notifications/initialized|-|-|-|decided"];
    denied(closed(), post(notification), 403, &error_without_id(), &observed).await;
    denied(closed(), post(response), 403, &error_without_id(), &["deny||-|-|-|decided"]).await;
}

#[tokio::test]
async fn what_is_no_message() {
    denied(closed(), get("text/event-stream"), 403, FORBIDDEN, &["deny||-|-|-|decided"]).await;
    denied(closed(), delete(), 403, FORBIDDEN, &["deny||-|-|-|decided"]).await;
    let rules = vec![rule("sum", tools(&["get-sum"]))];
    let service = || context(vec![v0(TargetKind::Gateway, rules.clone())], BackendKind::Service);
    denied(service(), post(r#"{"a":1}"#), 403, FORBIDDEN, &["deny||-|-|-|decided"]).await;
    denied(service(), get("*/*"), 403, FORBIDDEN, &["deny||-|-|-|decided"]).await;
    let mut form = post("a=1");
    form.headers_mut().insert("content-type", "text/plain".parse().unwrap());
    denied(service(), form, 403, FORBIDDEN, &["deny||-|-|-|decided"]).await;
    denied(service(), post(call("1", "echo")), 200, &error("1"), &["deny|tools/call|echo|-|-|decided"]).await;
}

#[tokio::test]
async fn batches() {
    let company = "another message of the batch was denied";
    let notification = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    let body = format!("[{},{notification},{}]", call("1", "get-sum"), call("\"b\"", "echo"));
    denied(
        one_tool(),
        post(body),
        200,
        &format!("[{},{}]", error("1"), error("\"b\"")),
        &[
            &format!("deny|tools/call|get-sum|-|{company}|decided"),
            &format!("deny|notifications/initialized|-|-|{company}|decided"),
            "deny|tools/call|echo|-|-|decided",
        ],
    )
    .await;
    denied(
        one_tool(),
        post(format!("[{}]", call("1", "echo"))),
        200,
        &format!("[{}]", error("1")),
        &["deny|tools/call|echo|-|-|decided"],
    )
    .await;
    denied(
        closed(),
        post(format!("[{notification}]")),
        403,
        &error_without_id(),
        &["deny|notifications/initialized|-|-|-|decided"],
    )
    .await;
}

#[tokio::test]
async fn the_message_is_configurable_and_escaped() {
    let context = with_options(one_tool(), |options| options.denial_message = "no \"tool\"".to_owned());
    let body = r#"{"jsonrpc":"2.0","id":1,"error":{"code":403,"message":"no \"tool\""}}"#;
    denied(context, post(call("1", "echo")), 200, body, &["deny|tools/call|echo|-|-|decided"]).await;
}

#[tokio::test]
async fn no_identity_is_nobody() {
    let context = Context { identity: None, ..one_tool() };
    denied(context, post(call("1", "get-sum")), 200, &error("1"), &["deny|tools/call|get-sum|-|-|decided"])
        .await;
}
