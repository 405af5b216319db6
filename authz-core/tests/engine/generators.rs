//! Policies and requests at random, from few names so that they meet.
use authz_core::{BackendKind, Fault, PolicyEntry};
use policy_model::{
    Action, AgenticGroup, Condition, Dialect, HeaderMatch, HostMatch, HttpMethod, Inline, McpMatch,
    McpMethodMatch, PathMatch, Policy, PolicyKey, Rule, Source, StringMatch, Target, Timestamp,
};
use proptest::{collection::vec, option, prelude::*, sample::select};

use crate::common::*;

fn sources() -> impl Strategy<Value = Source> {
    prop_oneof![
        Just(Source::Anyone),
        select(vec!["agent", "other"]).prop_map(account),
        Just(Source::Spiffe(AGENT.into())),
    ]
}

fn names() -> impl Strategy<Value = Vec<String>> {
    vec(select(vec!["t1", "t2", "u1", "u2"]).prop_map(str::to_owned), 0..3)
}

const METHODS: [&str; 7] = [
    "tools",
    "resources",
    "tools/call",
    "tools/list",
    "resources/read",
    "resources/subscribe",
    "prompts/get",
];

fn inlines() -> impl Strategy<Value = Inline> {
    let mcp = (
        any::<bool>(),
        option::of(vec(
            (select(METHODS.to_vec()), option::of(names()))
                .prop_map(|(name, params)| McpMethodMatch { name: name.into(), params }),
            0..3,
        )),
    )
        .prop_map(|(match_base_protocol, methods)| McpMatch { match_base_protocol, methods });
    let header = select(vec![StringMatch::Exact("a".to_owned()), StringMatch::Regex("[ab]".to_owned())])
        .prop_map(|value| HeaderMatch { name: "x-tenant".into(), value });
    (
        option::weighted(0.2, vec(select(vec!["GET", "POST"]).prop_map(|m| HttpMethod(m.into())), 0..2)),
        option::weighted(
            0.2,
            vec(
                select(vec![
                    PathMatch::Exact("/a".into()),
                    PathMatch::Prefix("/a".into()),
                    PathMatch::Regex("/[ab]".into()),
                ]),
                0..2,
            ),
        ),
        option::weighted(0.2, vec(header, 0..2)),
        option::weighted(0.2, vec(Just(HostMatch::Wildcard("example".into())), 1..2)),
        option::weighted(0.2, vec(select(vec![10001_u16, 10002]), 1..2)),
        option::weighted(0.7, mcp),
    )
        .prop_map(|(methods, paths, headers, hosts, ports, mcp)| Inline {
            methods,
            paths,
            headers,
            hosts,
            ports,
            mcp,
        })
}

fn expressions() -> impl Strategy<Value = String> {
    select(vec![
        "true",
        "request.mcp.tool_name == 't1'",
        "request.mcp.arguments.n > 1",
        "request.headers['x-tenant'] == 'a'",
    ])
    .prop_map(str::to_owned)
}

fn conditions(dialect: Dialect) -> BoxedStrategy<Condition> {
    match dialect {
        Dialect::V0Alpha0 => prop_oneof![
            Just(Condition::NotToolCall),
            names().prop_map(Condition::Tools),
            expressions().prop_map(|e| cel(&e)),
            Just(Condition::ExternalAuth(authorizer("v0"))),
        ]
        .boxed(),
        Dialect::V1Alpha1 => prop_oneof![
            Just(Condition::Anything),
            inlines().prop_map(|inline| Condition::Inline(Box::new(inline))),
            (expressions(), option::of(inlines().prop_map(Box::new)))
                .prop_map(|(expression, inline)| Condition::Cel { expression, inline }),
        ]
        .boxed(),
    }
}

fn targets() -> impl Strategy<Value = Vec<Target>> {
    prop_oneof![
        3 => Just(vec![on_backend()]),
        2 => Just(vec![on_gateway()]),
        1 => Just(vec![on_listener("https")]),
        1 => Just(vec![on_listener("plain"), on_listener("https")]),
    ]
}

/// A policy; its key is set by [`policies`].
pub(crate) fn policy() -> impl Strategy<Value = Policy> {
    let dialect = select(vec![Dialect::V0Alpha0, Dialect::V1Alpha1]);
    (dialect, any::<bool>(), option::weighted(0.9, 0..4_i64), targets())
        .prop_flat_map(|(dialect, delegates, created, targets)| {
            let action = match dialect {
                Dialect::V1Alpha1 if delegates => Action::ExternalAuth(authorizer("v1")),
                _ => Action::Allow,
            };
            (Just((dialect, action, created, targets)), vec((sources(), conditions(dialect)), 0..4))
        })
        .prop_map(|((dialect, action, created, targets), rules)| Policy {
            key: key(""),
            created: created.map(Timestamp),
            generation: None,
            targets,
            dialect,
            action,
            rules: rules
                .into_iter()
                .enumerate()
                .map(|(n, (source, condition))| Rule { name: format!("r{n}"), source, condition })
                .collect(),
        })
}

/// Policies with keys of their own, some broken.
pub(crate) fn policies() -> impl Strategy<Value = Vec<PolicyEntry>> {
    vec((policy(), prop::bool::weighted(0.06)), 0..9).prop_map(|policies| {
        let numbered = policies.into_iter().enumerate().map(|(n, (mut policy, is_broken))| {
            let group = if n % 2 == 0 { AgenticGroup::Networking } else { AgenticGroup::Prototype };
            policy.key = PolicyKey { namespace: NS.into(), name: format!("p{}", n / 2), group };
            let fault = is_broken.then(|| Fault::BackendNotFound { message: "no such Service".into() });
            PolicyEntry::Policy { targets: policy.targets.clone(), policy, fault }
        });
        numbered.collect()
    })
}

fn bodies() -> impl Strategy<Value = Carries> {
    let message = |method: &str, params: &str| {
        Carries::Mcp(format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#))
    };
    select(vec![
        message("tools/call", r#"{"name":"t1","arguments":{"n":2}}"#),
        message("tools/call", r#"{"name":"t1","arguments":{"n":"x"}}"#),
        message("tools/call", r#"{"name":"t2"}"#),
        message("tools/list", "{}"),
        message("ping", "{}"),
        message("prompts/list", "{}"),
        message("resources/read", r#"{"uri":"u1"}"#),
        message("resources/subscribe", r#"{"uri":"u2"}"#),
        message("tasks/get", r#"{"taskId":"t"}"#),
        message("subscriptions/listen", r#"{"notifications":{"resourceSubscriptions":["u1","u2"]}}"#),
        message(
            "subscriptions/listen",
            r#"{"notifications":{"resourceSubscriptions":["u1"],"taskIds":["t"]}}"#,
        ),
        message("unknown/method", "{}"),
        Carries::EventStream,
        Carries::EndSession,
        Carries::OtherJson,
        Carries::NoBody,
        Carries::Unparsed,
    ])
}

/// A request.
pub(crate) fn asks() -> impl Strategy<Value = Ask> {
    (
        select(vec![None, Some(AGENT), Some(OTHER)]),
        select(vec![("https", 10001), ("plain", 10002)]),
        select(vec!["GET", "POST"]),
        select(vec!["/a", "/a/b?q", "/b", "/c"]),
        select(vec!["a.example", "example:80", "a.example."]),
        vec(select(vec![b"a".to_vec(), b"b".to_vec(), b"\xff".to_vec()]), 0..3),
        select(vec![BackendKind::XBackendMcp, BackendKind::XBackendWellKnown, BackendKind::Service]),
        bodies(),
    )
        .prop_map(|(identity, (listener, port), method, path, host, tenants, backend, carries)| Ask {
            identity: identity.map(str::to_owned),
            listener: listener.into(),
            port,
            method: method.into(),
            path: path.into(),
            host: host.into(),
            headers: tenants.into_iter().map(|value| ("x-tenant".to_owned(), value)).collect(),
            backend,
            carries,
        })
}
