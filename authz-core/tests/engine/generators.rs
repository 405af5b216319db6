//! Near misses: policies and requests that differ in one thing, from few names so that they meet; and how many of them.
use authz_core::{BackendKind, Fault, PolicyEntry};
use policy_model::{
    Action, AgenticGroup, Condition, Dialect, HeaderMatch, HostMatch, HttpMethod, Inline, McpMatch,
    McpMethodMatch, NamespacedName, PathMatch, Policy, PolicyKey, Rule, Source, StringMatch, Target,
    Timestamp,
};
use proptest::{collection::vec, option, prelude::*, sample::select};

use crate::{
    common::*,
    naive::{BROKEN, EXPRESSIONS},
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
        1 => Just(spiffe("spiffe://other/ns/ns/sa/agent")),
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

fn any_expression() -> impl Strategy<Value = String> {
    prop_oneof![
        60 => select(EXPRESSIONS.map(|(text, _)| text).to_vec()),
        1 => select(BROKEN.to_vec()),
    ]
    .prop_map(str::to_owned)
}

fn any_condition(dialect: Dialect) -> BoxedStrategy<Condition> {
    match dialect {
        Dialect::V0Alpha0 => prop_oneof![
            2 => Just(Condition::NotToolCall),
            4 => texts(&["t1", "t2", "T1"]).prop_map(|listed| {
                if listed.is_empty() { Condition::NotToolCall } else { Condition::Tools(listed) }
            }),
            1 => any_expression().prop_map(|text| cel(&text)),
            1 => Just(Condition::ExternalAuth(authorizer("v0"))),
        ]
        .boxed(),
        Dialect::V1Alpha1 => prop_oneof![
            1 => Just(Condition::Anything),
            6 => any_inline().prop_map(|inline| Condition::Inline(Box::new(inline))),
            1 => (any_expression(), option::weighted(0.4, any_inline().prop_map(Box::new)))
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

fn any_policy() -> impl Strategy<Value = Policy> {
    prop_oneof![
        2 => policy_of(Dialect::V0Alpha0, None),
        2 => policy_of(Dialect::V1Alpha1, None),
        1 => policy_of(Dialect::V1Alpha1, Some("v1")),
    ]
}

fn policy_of(dialect: Dialect, asks: Option<&'static str>) -> impl Strategy<Value = Policy> {
    let least = usize::from(dialect == Dialect::V0Alpha0);
    let rules = vec((any_source(), any_condition(dialect)), least..4);
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

/// Mostly few policies, so that single rules decide; sometimes enough to be over the limits.
pub(crate) fn any_policies() -> impl Strategy<Value = Vec<PolicyEntry>> {
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
    let arriving = |count| vec((any_policy(), arrival.clone()), count);
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

fn any_carries() -> impl Strategy<Value = (BackendKind, &'static str, Carries)> {
    let request = |method: &str, params: &str| {
        Carries::Mcp(format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#))
    };
    let calls: Vec<Carries> =
        ["{}", r#"{"n":2}"#, r#"{"n":1}"#, r#"{"n":1.5}"#, r#"{"n":-1e3}"#, r#"{"n":"2"}"#, r#"{"n":null}"#]
            .into_iter()
            .chain([r#"{"n":18446744073709551615}"#])
            .flat_map(|arguments| {
                ["t1", "t2"].map(|tool| format!(r#"{{"name":"{tool}","arguments":{arguments}}}"#))
            })
            .chain([r#"{"name":"t1"}"#, r#"{"name":"T1"}"#, r#"{"name":"t3"}"#].map(str::to_owned))
            .map(|params| request("tools/call", &params))
            .collect();
    let listen = |notifications: &str| {
        request("subscriptions/listen", &format!(r#"{{"notifications":{notifications}}}"#))
    };
    let others = vec![
        request("initialize", "{}"),
        request("server/discover", "{}"),
        request("ping", "{}"),
        request("tools/list", "{}"),
        request("prompts/list", "{}"),
        request("resources/list", "{}"),
        request("resources/templates/list", "{}"),
        request("completion/complete", r#"{"ref":{"type":"ref/prompt","name":"t1"}}"#),
        request("logging/setLevel", "{}"),
        request("prompts/get", r#"{"name":"t1"}"#),
        request("resources/read", r#"{"uri":"u1"}"#),
        request("resources/read", r#"{"uri":"u2","name":"u1"}"#),
        request("resources/subscribe", r#"{"uri":"u1"}"#),
        request("resources/unsubscribe", r#"{"uri":"u1"}"#),
        request("tasks/get", r#"{"taskId":"t"}"#),
        request("tasks/result", r#"{"taskId":"t1"}"#),
        request("tasks/update", r#"{"taskId":"t"}"#),
        request("tasks/cancel", r#"{"taskId":"t"}"#),
        request("tasks/list", "{}"),
        request("Tools/call", "{}"),
        request("tools", "{}"),
        request("tools/", "{}"),
        request("toolset/list", "{}"),
        request("unknown", "{}"),
        request("notifications/initialized", "{}"),
        listen("{}"),
        listen(r#"{"toolsListChanged":true}"#),
        listen(r#"{"resourceSubscriptions":["u1"]}"#),
        listen(r#"{"resourceSubscriptions":["u1","u2"]}"#),
        listen(r#"{"resourceSubscriptions":["u1"],"taskIds":["t"]}"#),
        listen(r#"{"resourceSubscriptions":[],"taskIds":["t"]}"#),
        Carries::Mcp(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.to_owned()),
        Carries::Mcp(r#"{"jsonrpc":"2.0","method":"notifications/tools/call"}"#.to_owned()),
        Carries::Mcp(r#"{"jsonrpc":"2.0","id":"a","result":{}}"#.to_owned()),
        Carries::Mcp(r#"{"jsonrpc":"2.0","id":7,"error":{"code":1,"message":"no"}}"#.to_owned()),
    ];
    let (xbackend, service) = (BackendKind::XBackendMcp, BackendKind::Service);
    let posted = prop_oneof![select::<Carries>(calls), select(others)];
    prop_oneof![
        12 => (select(vec![xbackend, xbackend, service]), posted).prop_map(|(to, carries)| (to, "POST", carries)),
        1 => Just((xbackend, "GET", Carries::EventStream)),
        1 => Just((xbackend, "DELETE", Carries::EndSession)),
        1 => Just((BackendKind::XBackendWellKnown, "GET", Carries::NoBody)),
        1 => Just((service, "POST", Carries::OtherJson)),
        1 => (select(vec!["GET", "POST", "DELETE"])).prop_map(move |method| (service, method, Carries::NoBody)),
        1 => (select(vec!["GET", "POST"])).prop_map(move |method| (service, method, Carries::Unparsed)),
    ]
}

pub(crate) fn any_ask() -> impl Strategy<Value = Ask> {
    let tenants = vec(
        select(vec![b"a".to_vec(), b"b".to_vec(), b"ab".to_vec(), b"A".to_vec(), b"\xff".to_vec()]),
        0..3,
    );
    let identities = vec![
        None,
        Some(AGENT),
        Some(AGENT),
        Some(OTHER),
        Some("spiffe://other/ns/ns/sa/agent"),
        Some("spiffe://cluster.local/agent"),
    ];
    let hosts = vec![
        "a.example",
        "A.EXAMPLE:80",
        "b.a.example",
        "xa.example",
        "example:80",
        "a.example.",
        "x@a.example",
    ];
    (
        select(identities),
        select(vec![("https", 10001), ("plain", 10002)]),
        select(vec!["/a", "/a?q=/b", "/a/", "/a/b?q", "/ab", "/b", "/c"]),
        select(hosts),
        tenants,
        any_carries(),
    )
        .prop_map(|(identity, (listener, port), path, host, tenants, (backend, method, carries))| Ask {
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

/// Ten thousand cases, unless `PROPTEST_CASES` says otherwise.
pub(crate) fn config() -> ProptestConfig {
    let given = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_some() {
        given
    } else {
        ProptestConfig { cases: 10_000, ..given }
    }
}
