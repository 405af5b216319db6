//! The v0alpha0 shape.
use authz_core::{
    BackendKind::{Service, XBackendMcp, XBackendWellKnown},
    Effect::{Allow, Delegate, Deny},
    Engine, Reason,
};
use policy_model::{Condition, Source};

use crate::common::*;

fn combined() -> Engine {
    compiled([v0(
        "combined",
        1,
        on_backend(),
        vec![
            rule("inline", account("agent"), tools(&["get-sum"])),
            rule("ext", account("ext"), Condition::ExternalAuth(authorizer("authz"))),
            rule("none", account("none"), Condition::NotToolCall),
            rule(
                "cel",
                account("cel"),
                cel("request.mcp.tool_name == 'get-sum' && request.mcp.arguments.a > 1"),
            ),
            rule("spiffe", Source::Spiffe("spiffe://other.domain/agent/7".into()), tools(&["echo"])),
        ],
    )])
    .engine
}

fn sa(name: &str) -> String {
    format!("spiffe://cluster.local/ns/ns/sa/{name}")
}

#[test]
fn rules_of_every_kind() {
    let engine = combined();
    for (identity, tool, arguments, expected) in [
        ("agent", "get-sum", "{}", Allow),
        ("agent", "echo", "{}", Deny),
        ("agent", "get-sum2", "{}", Deny),
        ("agent", "Get-Sum", "{}", Deny),
        ("agent2", "get-sum", "{}", Deny),
        ("ext", "anything", "{}", Delegate),
        ("none", "get-sum", "{}", Deny),
        ("cel", "get-sum", r#"{"a":2}"#, Allow),
        ("cel", "get-sum", r#"{"a":1}"#, Deny),
        ("cel", "get-sum", r#"{"a":"2"}"#, Deny),
        ("cel", "get-sum", "{}", Deny),
    ] {
        check(&engine, &Ask::call_with(&sa(identity), tool, arguments), expected);
    }
    check(&engine, &Ask::call("spiffe://other.domain/agent/7", "echo"), Allow);
    check(&engine, &Ask::call("spiffe://cluster.local/agent/7", "echo"), Deny);
    for (identity, method, params, expected) in [
        ("ext", "prompts/get", r#"{"name":"p"}"#, Deny),
        ("none", "prompts/list", "{}", Allow),
        ("none", "resources/read", r#"{"uri":"u"}"#, Allow),
        ("agent", "prompts/list", "{}", Deny),
        ("cel", "prompts/get", r#"{"name":"get-sum"}"#, Deny),
    ] {
        check(&engine, &Ask::mcp(Some(&sa(identity)), method, params), expected);
    }
    check_by(
        &engine,
        &Ask::call(&sa("ext"), "x"),
        (Delegate, Reason::Delegated, Some(("combined", Some("ext")))),
    );
    check_by(
        &engine,
        &Ask::call(AGENT, "get-sum"),
        (Allow, Reason::Allowed, Some(("combined", Some("inline")))),
    );
}

#[test]
fn what_is_not_a_tool_call() {
    let engine = combined();
    let none = sa("none");
    for (carries, at, expected) in [
        (Carries::OtherJson, Service, Allow),
        (Carries::NoBody, XBackendWellKnown, Allow),
        (Carries::Unparsed, XBackendMcp, Deny),
        (Carries::EventStream, XBackendMcp, Allow),
    ] {
        // The policy is the backend's: a Service has none.
        let expected = if at == Service { Allow } else { expected };
        check(&engine, &Ask::new(Some(&none), carries).to(at), expected);
    }
    check(&engine, &Ask::new(Some(AGENT), Carries::NoBody).to(XBackendWellKnown), Deny);
}

#[test]
fn base_protocol() {
    let policy = |target| {
        v0(
            "p",
            1,
            target,
            vec![
                rule("inline", account("agent"), tools(&["get-sum"])),
                rule("rest", account("rest"), Condition::NotToolCall),
            ],
        )
    };
    let on_backend = compiled([policy(on_backend())]).engine;
    let on_gateway = compiled([policy(on_gateway())]).engine;
    let agent = Some(AGENT);
    let nobody = None;
    let rest = sa("rest");
    for (identity, method, params, at_mcp, at_service) in [
        (nobody, "tools/list", "{}", Allow, Deny),
        (nobody, "ping", "{}", Allow, Deny),
        (Some(OTHER), "initialize", r#"{"protocolVersion":"2025-11-25"}"#, Allow, Deny),
        (agent, "tools/list", "{}", Allow, Allow),
        (Some(rest.as_str()), "tools/list", "{}", Allow, Allow),
        (Some(OTHER), "tasks/get", r#"{"taskId":"t"}"#, Deny, Deny),
        (nobody, "tasks/cancel", r#"{"taskId":"t"}"#, Deny, Deny),
        (agent, "tasks/get", r#"{"taskId":"t"}"#, Allow, Allow),
        (agent, "tasks/list", "{}", Deny, Deny),
        (agent, "completion/evil", "{}", Deny, Deny),
        (agent, "notifications/x", "{}", Deny, Deny),
        (agent, "prompts/list", "{}", Deny, Deny),
        (nobody, "subscriptions/listen", r#"{"notifications":{}}"#, Allow, Deny),
        (Some(OTHER), "subscriptions/listen", r#"{"notifications":{"taskIds":["t"]}}"#, Deny, Deny),
        (agent, "subscriptions/listen", r#"{"notifications":{"taskIds":["t"]}}"#, Allow, Allow),
        (agent, "subscriptions/listen", r#"{"notifications":{"resourceSubscriptions":["u"]}}"#, Deny, Deny),
        (
            Some(rest.as_str()),
            "subscriptions/listen",
            r#"{"notifications":{"resourceSubscriptions":["u"],"taskIds":["t"]}}"#,
            Allow,
            Allow,
        ),
    ] {
        let ask = Ask::mcp(identity, method, params);
        check(&on_backend, &ask, at_mcp);
        check(&on_gateway, &ask, at_mcp);
        check(&on_gateway, &ask.to(Service), at_service);
    }
    for carries in [Carries::EventStream, Carries::EndSession] {
        check(&on_backend, &Ask::new(None, carries.clone()), Allow);
        check(&on_gateway, &Ask::new(None, carries.clone()).to(Service), Deny);
        check(&on_gateway, &Ask::new(agent, carries).to(Service), Deny);
    }
    check_by(
        &on_backend,
        &Ask::mcp(None, "tools/list", "{}"),
        (Allow, Reason::BaseProtocol, Some(("p", None))),
    );
}

#[test]
fn the_authorizer_is_asked_even_when_another_rule_matches() {
    let engine = compiled([
        v0("a", 1, on_backend(), vec![rule("local", account("agent"), tools(&["get-sum"]))]),
        v0(
            "b",
            2,
            on_backend(),
            vec![rule("ext", account("agent"), Condition::ExternalAuth(authorizer("authz")))],
        ),
    ])
    .engine;
    let ask = Ask::call(AGENT, "get-sum");
    check_by(&engine, &ask, (Delegate, Reason::Delegated, Some(("b", Some("ext")))));
    let decision = ask.decide(&engine);
    let asked: Vec<_> = decision.authorizers().map(|id| engine.authorizer(id).unwrap().clone()).collect();
    assert_eq!(asked, [authorizer("authz")]);
    check(&engine, &Ask::mcp(Some(AGENT), "ping", "{}"), Allow);
}
