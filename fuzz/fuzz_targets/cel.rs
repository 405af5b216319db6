//! A line with a tool's arguments, then a CEL expression: it compiles or is refused with a reason, its evaluation ends, and what
//! comes of it is what a rule of either action makes of true, false and an error.
#![no_main]

#[path = "../support/cel_parser.rs"]
mod cel_parser;

use std::sync::LazyLock;

use authz_core::{
    Acceptance, BackendKind, Effect, Fault, Http, Input, PolicyEntry, Request, RuleOutcome, Traffic, compile,
};
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use mcp_jsonrpc::{Limits, parse};
use policy_model::{
    Action, AgenticGroup, AuthorizerProtocol, Condition, Dialect, ExternalAuth, NamespacedName, Policy,
    PolicyKey, Rule, ServiceRef, Source, Target, TargetKind,
};
use spiffe_id::SpiffeId;

static IDENTITY: LazyLock<SpiffeId> =
    LazyLock::new(|| "spiffe://cluster.local/ns/quickstart-ns/sa/adk-agent-sa".parse().expect("an ID"));

static HEADERS: LazyLock<HeaderMap> = LazyLock::new(|| {
    let mut headers = HeaderMap::new();
    for (name, value) in
        [("x-tenant", "a"), ("x-tenant", "b"), ("mcp-protocol-version", "2025-11-25"), ("mcp-name", "other")]
    {
        headers.append(name, HeaderValue::from_static(value));
    }
    headers.append("x-bytes", HeaderValue::from_bytes(b"\xff").expect("a value"));
    headers
});

fuzz_target!(init: cel_parser::forgive(), |bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (arguments, expression) = text.split_once('\n').unwrap_or(("{}", text));
    let call = |arguments: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"get-sum","arguments":{arguments}}}}}"#
        )
    };
    let limits = Limits::default();
    let given = call(arguments);
    let body = if parse(given.as_bytes(), &limits).is_ok() { given } else { call("{}") };
    let body = parse(body.as_bytes(), &limits).expect("a call");

    let policies = ["allows", "asks"].map(|name| policy(name, expression));
    let compiled = compile(Input { policies: policies.into(), ..Input::default() });
    let accepted = compiled.statuses.iter().map(|status| match &status.acceptance {
        Acceptance::Accepted => true,
        Acceptance::FailsClosed(Fault::InvalidCel { message, .. }) => {
            assert!(!message.is_empty());
            false
        }
        other => panic!("{other:?}"),
    });
    let accepted: Vec<bool> = accepted.collect();
    assert_eq!(accepted, [accepted[0]; 2], "the same for either action");

    for message in body.messages() {
        let decide = |backend: &str| {
            let request = Request {
                identity: Some(&IDENTITY),
                listener: "https",
                port: 443,
                http: Http {
                    method: "POST",
                    path_and_query: "/local/mcp?a=b",
                    host: "gw.example:8443",
                    headers: &HEADERS,
                },
                backend: BackendKind::XBackendMcp,
                traffic: Traffic::Message(message),
                now_unix_nanos: 1_700_000_000_123_456_789,
            };
            let levels = compiled.engine.levels(&object("gateway"), Some(&object(backend)));
            let decision = compiled.engine.decide(levels, &request);
            let explanation = compiled.engine.explain(levels, &request);
            assert_eq!(decision.effect, explanation.effect);
            assert_eq!(decision.backend.reason, explanation.backend.reason);
            let could = compiled.engine.could_call(levels, Some(&IDENTITY), "https", "get-sum");
            assert!(could || decision.effect == Effect::Deny, "a tool that was called is not in the list");
            (decision.effect, explanation.backend.policies[0].rules[0].outcome.clone())
        };
        let (allows, asks) = (decide("allows"), decide("asks"));
        if !accepted[0] {
            assert_eq!((allows.0, asks.0), (Effect::Deny, Effect::Deny), "fails closed");
            continue;
        }
        match (allows.1, asks.1) {
            (RuleOutcome::Matches, RuleOutcome::Matches) => {
                assert_eq!((allows.0, asks.0), (Effect::Allow, Effect::Delegate));
            }
            (RuleOutcome::Differs(_), RuleOutcome::Differs(_)) => {
                assert_eq!((allows.0, asks.0), (Effect::Deny, Effect::Allow));
            }
            (
                RuleOutcome::Error { error, counts_as_matching: false },
                RuleOutcome::Error { error: same, counts_as_matching: true },
            ) => {
                assert_eq!(error, same);
                assert_eq!((allows.0, asks.0), (Effect::Deny, Effect::Delegate));
            }
            other => panic!("{other:?}"),
        }
    }
});

fn object(name: &str) -> NamespacedName {
    NamespacedName::new("quickstart-ns", name)
}

/// A policy with one rule on the XBackend of its name.
fn policy(name: &str, expression: &str) -> PolicyEntry {
    let target = Target { kind: TargetKind::XBackend, object: object(name), section_name: None };
    let action = match name {
        "asks" => Action::ExternalAuth(ExternalAuth {
            backend: ServiceRef {
                group: String::new(),
                kind: "Service".to_owned(),
                object: object("authorizer"),
                port: Some(9001),
            },
            protocol: AuthorizerProtocol::Grpc { allowed_headers: None },
            forward_body: None,
        }),
        _ => Action::Allow,
    };
    let policy = Policy {
        key: PolicyKey {
            namespace: "quickstart-ns".to_owned(),
            name: name.to_owned(),
            group: AgenticGroup::Networking,
        },
        created: None,
        generation: None,
        targets: vec![target.clone()],
        dialect: Dialect::V1Alpha1,
        action,
        rules: vec![Rule {
            name: "r".to_owned(),
            source: Source::Anyone,
            condition: Condition::Cel { expression: expression.to_owned(), inline: None },
        }],
    };
    PolicyEntry::Policy { policy, fault: None, targets: vec![target] }
}
