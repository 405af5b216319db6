//! Policies at random.
use authz_core::{Fault, PolicyEntry};
use policy_model::{
    Action, AgenticGroup, Condition, Dialect, HeaderMatch, HostMatch, HttpMethod, Inline, McpMatch,
    McpMethodMatch, NamespacedName, PathMatch, Policy, PolicyKey, Rule, Source, StringMatch, Target,
    Timestamp,
};
use proptest::{collection::vec, option, prelude::*, sample::select};

use crate::words::{
    AGENT, NS, account, authorizer, backend, cel, entry, key, on_backend, on_gateway, on_listener, rule, v0,
};

fn texts(of: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    vec(select(of).prop_map(str::to_owned), 0..3)
}

fn any_source() -> impl Strategy<Value = Source> {
    let spiffe = |id: &str| Source::Spiffe(id.into());
    prop_oneof![
        2 => Just(Source::Anyone),
        4 => Just(account("agent")),
        1 => Just(account("other")),
        1 => Just(Source::ServiceAccount(NamespacedName::new("else", "agent"))),
        1 => Just(spiffe(AGENT)),
        // Near misses: another path below, another trust domain, no path.
        1 => select(vec!["/x", "x"]).prop_map(move |tail| spiffe(&format!("{AGENT}{tail}"))),
        1 => Just(spiffe("spiffe://other.domain/ns/ns/sa/agent")),
        1 => Just(spiffe("spiffe://cluster.local")),
    ]
}

fn any_inline() -> impl Strategy<Value = Inline> {
    let wanted = select(vec![
        "tools",
        "prompts",
        "resources",
        "tools/call",
        "tools/list",
        "prompts/list",
        "resources/list",
        "prompts/get",
        "resources/templates/list",
        "resources/read",
        "resources/subscribe",
        "resources/unsubscribe",
    ]);
    let method = (wanted, option::of(texts(&["t1", "T1", "u1", "u2", "t"])))
        .prop_map(|(name, params)| McpMethodMatch { name: name.into(), params });
    let mcp = (prop::bool::weighted(0.3), option::weighted(0.8, vec(method, 0..4)))
        .prop_map(|(match_base_protocol, methods)| McpMatch { match_base_protocol, methods });
    let value = select(vec![
        StringMatch::Exact("a".to_owned()),
        StringMatch::Exact("ab".to_owned()),
        StringMatch::Regex("[ab]".to_owned()),
        StringMatch::Regex("a|ab".to_owned()),
        StringMatch::Regex(".+".to_owned()),
    ]);
    let header = (select(vec!["x-tenant", "x-tenants"]), value)
        .prop_map(|(name, value)| HeaderMatch { name: name.into(), value });
    let path = select(vec![
        PathMatch::Exact("/a".to_owned()),
        PathMatch::Exact("/a/".to_owned()),
        PathMatch::Prefix("/".to_owned()),
        PathMatch::Prefix("/a".to_owned()),
        PathMatch::Prefix("/a/".to_owned()),
        PathMatch::Prefix("/a/b".to_owned()),
        PathMatch::Regex("/[ab]".to_owned()),
        PathMatch::Regex("/a.*".to_owned()),
        PathMatch::Regex("/a/.".to_owned()),
    ]);
    let host = select(vec![
        HostMatch::Wildcard("example".to_owned()),
        HostMatch::Wildcard("a.example".to_owned()),
        HostMatch::Exact("a.example".to_owned()),
        HostMatch::Exact("example".to_owned()),
    ]);
    let method = select(vec!["GET", "POST", "DELETE"]).prop_map(|name| HttpMethod(name.into()));
    (
        option::weighted(0.2, vec(method, 0..3)),
        option::weighted(0.2, vec(path, 0..3)),
        option::weighted(0.2, vec(header, 0..3)),
        option::weighted(0.2, vec(host, 0..3)),
        option::weighted(0.2, vec(select(vec![10001_u16, 10002]), 0..2)),
        option::weighted(0.8, mcp),
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

fn any_condition(dialect: Dialect, expression: &BoxedStrategy<String>) -> BoxedStrategy<Condition> {
    match dialect {
        Dialect::V0Alpha0 => prop_oneof![
            2 => Just(Condition::NotToolCall),
            4 => texts(&["t1", "t2", "T1"]).prop_map(|listed| {
                if listed.is_empty() { Condition::NotToolCall } else { Condition::Tools(listed) }
            }),
            1 => expression.clone().prop_map(|text| cel(&text)),
            1 => Just(Condition::ExternalAuth(authorizer("v0"))),
        ]
        .boxed(),
        Dialect::V1Alpha1 => prop_oneof![
            1 => Just(Condition::Anything),
            6 => any_inline().prop_map(|inline| Condition::Inline(Box::new(inline))),
            1 => (expression.clone(), option::weighted(0.4, any_inline().prop_map(Box::new)))
                .prop_map(|(expression, inline)| Condition::Cel { expression, inline }),
        ]
        .boxed(),
    }
}

fn any_targets() -> impl Strategy<Value = Vec<Target>> {
    let elsewhere = NamespacedName::new("else", "be");
    prop_oneof![
        6 => Just(vec![on_backend()]),
        4 => Just(vec![on_gateway()]),
        1 => Just(vec![on_listener("https")]),
        1 => Just(vec![on_listener("plain")]),
        1 => Just(vec![on_listener("plain"), on_listener("https")]),
        1 => Just(vec![Target { object: elsewhere, ..on_backend() }, on_backend()]),
        1 => Just(vec![Target { object: backend(), ..on_gateway() }]),
    ]
}

fn any_policy(expression: &BoxedStrategy<String>) -> BoxedStrategy<Policy> {
    prop_oneof![
        2 => policy_of(Dialect::V0Alpha0, None, expression),
        2 => policy_of(Dialect::V1Alpha1, None, expression),
        2 => policy_of(Dialect::V1Alpha1, Some("v1"), expression),
    ]
    .boxed()
}

fn policy_of(
    dialect: Dialect,
    asks: Option<&'static str>,
    expression: &BoxedStrategy<String>,
) -> impl Strategy<Value = Policy> + use<> {
    let least = usize::from(dialect == Dialect::V0Alpha0);
    let rules = vec((any_source(), any_condition(dialect, expression)), least..4);
    (option::weighted(0.9, 0..4_i64), any_targets(), rules).prop_map(move |(created, targets, rules)| {
        Policy {
            dialect,
            action: asks.map_or(Action::Allow, |name| Action::ExternalAuth(authorizer(name))),
            created: created.map(Timestamp),
            targets,
            ..v0("", 0, on_backend(), numbered(rules))
        }
    })
}

fn numbered(rules: Vec<(Source, Condition)>) -> Vec<Rule> {
    let named = |(n, (source, condition))| rule(&format!("r{n}"), source, condition);
    rules.into_iter().enumerate().map(named).collect()
}

/// Policies of both API shapes on the Gateway, its listeners and the XBackend, with rules of all kinds; CEL expressions are
/// the given ones. Mostly few policies, so that single rules decide; sometimes enough to be over the limits. Authorizers are
/// `v0` for rules and `v1` for policies.
pub fn any_policies(
    expression: impl Strategy<Value = impl Into<String> + std::fmt::Debug + 'static> + 'static,
) -> impl Strategy<Value = Vec<PolicyEntry>> {
    let policy = any_policy(&expression.prop_map(Into::into).boxed());
    #[derive(Debug, Clone, Copy)]
    enum Arrival {
        Whole,
        Faulty,
        Unreadable,
        UnreadableNamespace,
    }
    let arrival = prop_oneof![
        120 => Just(Arrival::Whole),
        1 => Just(Arrival::Faulty),
        1 => Just(Arrival::Unreadable),
        1 => Just(Arrival::UnreadableNamespace),
    ];
    let arriving = |count| vec((policy.clone(), arrival.clone()), count);
    prop_oneof![6 => arriving(0..4_usize), 1 => arriving(4..10)].prop_map(|all| {
        let numbered = all.into_iter().enumerate().map(|(n, (mut policy, arrival))| {
            let group = if n % 2 == 0 { AgenticGroup::Prototype } else { AgenticGroup::Networking };
            policy.key = PolicyKey { group, ..key(&format!("p{}", 9 - n / 2)) };
            let message = "mend it".to_owned();
            match arrival {
                Arrival::Whole => entry(policy),
                Arrival::Faulty => PolicyEntry::Policy {
                    targets: policy.targets.clone(),
                    policy,
                    fault: Some(Fault::BackendNotFound { message }),
                },
                Arrival::Unreadable => {
                    PolicyEntry::Unreadable { key: policy.key, targets: policy.targets, message }
                }
                Arrival::UnreadableNamespace => {
                    // Half of them in a namespace that no request meets.
                    let namespace = if n % 2 == 0 { NS } else { "else" };
                    let key = PolicyKey { namespace: namespace.into(), ..policy.key };
                    PolicyEntry::UnreadableNamespace { key, message }
                }
            }
        });
        numbered.collect()
    })
}
