//! Limits, policies that cannot be enforced as written, and what is reported.
use authz_core::{
    Acceptance,
    BackendKind::Service,
    Compiled, DefaultAction,
    Effect::{Allow, Deny},
    Fault, PolicyEntry, Reason,
};
use policy_model::{
    Action, Condition, Dialect, HostMatch, HttpMethod, Inline, McpMatch, NamespacedName, PathMatch, Policy,
    Source,
};

use crate::common::*;

fn acceptances(compiled: &Compiled) -> Vec<(&str, &str)> {
    let short = |acceptance: &Acceptance| match acceptance {
        Acceptance::Accepted => "accepted",
        Acceptance::LimitPerTargetExceeded { .. } => "limit",
        Acceptance::FailsClosed(_) => "closed",
        Acceptance::Unreadable { .. } => "unreadable",
    };
    compiled.statuses.iter().map(|status| (status.key.name.as_str(), short(&status.acceptance))).collect()
}

fn one(name: &str, created: i64, tool: &str) -> Policy {
    v1(name, created, on_backend(), vec![rule("r", account("agent"), tools(&[tool]))])
}

#[test]
fn five_policies_per_target_the_oldest_win() {
    let mut policies: Vec<Policy> = (1..=6).map(|n| one(&format!("p{n}"), n, &format!("t{n}"))).collect();
    policies[0].created = None; // p1 is the youngest
    let compiled_all = compiled(policies.clone());
    assert_eq!(
        acceptances(&compiled_all),
        [
            ("p2", "accepted"),
            ("p3", "accepted"),
            ("p4", "accepted"),
            ("p5", "accepted"),
            ("p6", "accepted"),
            ("p1", "limit")
        ]
    );
    check(&compiled_all.engine, &Ask::call(AGENT, "t6"), Allow);
    check(&compiled_all.engine, &Ask::call(AGENT, "t1"), Deny);
    policies.remove(3);
    check(&compiled(policies).engine, &Ask::call(AGENT, "t1"), Allow);
}

#[test]
fn an_over_limit_policy_still_has_allow_rules() {
    // The limit is the Gateway's; the five older ones are all another listener's.
    let rules = || vec![rule("r", account("agent"), tools(&["t"]))];
    let on = |name: &str, created, listener| v1(name, created, on_listener(listener), rules());
    let older = |count| (1..=count).map(|n| on(&format!("p{n}"), n, "plain")).collect::<Vec<_>>();
    for (count, expected) in [(5, Deny), (4, Allow)] {
        let mut policies = older(count);
        policies.push(on("late", 9, "https"));
        check(&compiled(policies).engine, &Ask::call(AGENT, "t"), expected);
    }
    // Without it, nothing would be left on that listener, and the level would be open.
    check(&compiled(older(5)).engine, &Ask::call(AGENT, "t"), Allow);
    // A v0alpha0 policy over the limit lets no base protocol through either.
    let mut policies = older(5);
    policies.push(v0("late", 9, on_listener("https"), rules()));
    check(&compiled(policies).engine, &Ask::mcp(Some(AGENT), "ping", "{}"), Deny);
}

#[test]
fn one_policy_with_external_auth_per_target() {
    let v0_ext = v0(
        "late",
        3,
        on_backend(),
        vec![rule("x", account("agent"), Condition::ExternalAuth(authorizer("b")))],
    );
    let compiled_three = compiled([
        v1("open", 1, on_backend(), vec![]),
        ext("early", 2, on_backend(), vec![rule("r", account("other"), Condition::Anything)]),
        v0_ext,
    ]);
    assert_eq!(
        acceptances(&compiled_three),
        [("open", "accepted"), ("early", "accepted"), ("late", "limit")]
    );
    check_by(
        &compiled_three.engine,
        &Ask::call(AGENT, "x"),
        (Deny, Reason::OverLimit, Some(("late", Some("x")))),
    );
    check(&compiled_three.engine, &Ask::mcp(Some(AGENT), "prompts/list", "{}"), Allow);
    // A v1alpha1 policy over the limit denies what it would have delegated, no more.
    let engine = compiled([
        ext("early", 1, on_backend(), vec![rule("r", account("other"), Condition::Anything)]),
        ext("late", 2, on_backend(), vec![rule("r", account("agent"), cel("request.mcp.arguments.x == 1"))]),
    ])
    .engine;
    check(&engine, &Ask::call_with(AGENT, "t", r#"{"x":1}"#), Deny);
    check(&engine, &Ask::call_with(AGENT, "t", r#"{"x":2}"#), Allow);
    check(&engine, &Ask::call_with(AGENT, "t", "{}"), Deny);
    // One over the first limit does not count toward the five.
    let mut policies = vec![ext("e1", 1, on_backend(), vec![]), ext("e2", 2, on_backend(), vec![])];
    policies.extend((3..=6).map(|n| one(&format!("p{n}"), n, "t")));
    assert_eq!(
        acceptances(&compiled(policies))[1..],
        [("e2", "limit"), ("p3", "accepted"), ("p4", "accepted"), ("p5", "accepted"), ("p6", "accepted")]
    );
}

#[test]
fn what_cannot_be_enforced_closes_its_target() {
    let bad_cel = v1("bad", 9, on_backend(), vec![rule("r", Source::Anyone, cel("request.nope == 1"))]);
    let bad_regex = v1(
        "bad",
        9,
        on_backend(),
        vec![rule(
            "r",
            Source::Anyone,
            Condition::Inline(Box::new(Inline {
                paths: Some(vec![PathMatch::Regex("(".into())]),
                ..Inline::default()
            })),
        )],
    );
    let not_found = PolicyEntry::Policy {
        policy: ext("bad", 9, on_backend(), vec![]),
        fault: Some(Fault::BackendNotFound { message: "no Service `ns/bad`; create it".into() }),
        targets: vec![on_backend()],
    };
    let unreadable = PolicyEntry::Unreadable {
        key: key("bad"),
        targets: vec![on_backend()],
        message: "spec.rules: not a list".into(),
    };
    for bad in [entry(bad_cel), entry(bad_regex), not_found, unreadable] {
        let compiled =
            of_entries(vec![entry(v1("open", 1, on_backend(), vec![])), bad], DefaultAction::Allow);
        for ask in [Ask::call(AGENT, "x"), Ask::mcp(None, "ping", "{}"), Ask::new(None, Carries::EventStream)]
        {
            check_by(&compiled.engine, &ask, (Deny, Reason::FailsClosed, Some(("bad", None))));
        }
        check(&compiled.engine, &Ask::call(AGENT, "x").to(Service), Allow);
        assert_ne!(compiled.statuses[1].acceptance, Acceptance::Accepted);
        assert_eq!(compiled.statuses[0].acceptance, Acceptance::Accepted);
        let levels = compiled.engine.levels(&gateway(), Some(&backend()));
        let agent = AGENT.parse().unwrap();
        assert!(!compiled.engine.could_call(levels, Some(&agent), "https", "x"));
    }
}

#[test]
fn a_listener_limits_what_is_closed() {
    let bad = v1("bad", 1, on_listener("plain"), vec![rule("r", Source::Anyone, cel("nope"))]);
    let engine = compiled([bad]).engine;
    check(&engine, &Ask::call(AGENT, "x").on("plain"), Deny);
    check(&engine, &Ask::call(AGENT, "x").on("https"), Allow);
    // The same policy on two listeners of one Gateway, which is one target.
    let mut two = v1("two", 1, on_listener("a"), vec![rule("r", account("agent"), tools(&["t"]))]);
    two.targets.push(on_listener("b"));
    let compiled_two = compiled([two]);
    assert_eq!(compiled_two.statuses.len(), 2);
    for (listener, expected) in [("a", Deny), ("b", Deny), ("c", Allow)] {
        check(&compiled_two.engine, &Ask::call(OTHER, "t").on(listener), expected);
    }
    // With the whole Gateway beside a listener, it is the whole.
    let mut whole = v1("whole", 1, on_listener("a"), vec![rule("r", account("agent"), tools(&["t"]))]);
    whole.targets.push(on_gateway());
    check(&compiled([whole]).engine, &Ask::call(OTHER, "t").on("c"), Deny);
}

#[test]
fn a_policy_without_readable_targets_closes_its_namespace() {
    let unreadable = PolicyEntry::UnreadableNamespace { key: key("bad"), message: "no JSON".into() };
    for entries in [vec![unreadable.clone()], vec![unreadable, entry(v1("open", 1, on_gateway(), vec![]))]] {
        let compiled = of_entries(entries, DefaultAction::Allow);
        check(&compiled.engine, &Ask::call(AGENT, "x"), Deny);
        check(&compiled.engine, &Ask::call(AGENT, "x").to(Service), Deny);
        assert!(compiled.statuses.iter().all(|status| status.key.name != "bad"));
    }
}

#[test]
fn a_fault_is_its_own_reason_over_the_limit_too() {
    let mut policies: Vec<Policy> = (1..=5).map(|n| one(&format!("p{n}"), n, "t")).collect();
    policies.push(v1("bad", 9, on_backend(), vec![rule("r", Source::Anyone, cel("1 +"))]));
    let compiled = compiled(policies);
    let last = compiled.statuses.last().unwrap();
    let Acceptance::FailsClosed(Fault::InvalidCel { rule, message }) = &last.acceptance else {
        panic!("{:?}", last.acceptance)
    };
    assert_eq!(rule, "r");
    assert!(message.contains("column"), "{message}");
    check(&compiled.engine, &Ask::call(AGENT, "t"), Deny);
}

/// The schema admits none of these; should one arrive all the same, it closes its target and says why.
#[test]
fn shapes_of_no_version_are_not_enforced() {
    let asks =
        |rule_name: &str| rule(rule_name, account("agent"), Condition::ExternalAuth(authorizer("authz")));
    let whole = |policy: Policy| Policy { action: Action::ExternalAuth(authorizer("authz")), ..policy };
    let listed = || rule("listed", account("agent"), tools(&["t"]));
    for (policy, expected) in [
        (whole(v0("p", 1, on_backend(), vec![])), Some(("", "give it an ExternalAuth rule"))),
        (v1("p", 1, on_backend(), vec![listed(), asks("x")]), Some(("x", "use `action: ExternalAuth`"))),
        (whole(v1("p", 1, on_backend(), vec![asks("x")])), Some(("x", "use `action: ExternalAuth`"))),
        (
            v0("p", 1, on_backend(), vec![asks("x"), listed(), asks("y")]),
            Some(("y", "a maximum of one rule per policy can specify 'ExternalAuth'")),
        ),
        (v0("p", 1, on_backend(), vec![listed(), asks("x")]), None),
    ] {
        let compiled = compiled([policy]);
        let acceptance = &compiled.statuses[0].acceptance;
        let Some((rule_name, why)) = expected else {
            assert_eq!(*acceptance, Acceptance::Accepted);
            check(&compiled.engine, &Ask::mcp(None, "ping", "{}"), Allow);
            continue;
        };
        let Acceptance::FailsClosed(Fault::UnsupportedValue { rule, message }) = acceptance else {
            panic!("{acceptance:?}")
        };
        assert_eq!(rule, rule_name);
        assert!(message.contains(why), "{message}");
        check(&compiled.engine, &Ask::mcp(None, "ping", "{}"), Deny);
        check(&compiled.engine, &Ask::call(AGENT, "t"), Deny);
    }
}

/// Its reference may be one that nobody permitted.
#[test]
fn the_authorizer_of_a_broken_policy_is_not_asked() {
    let not_permitted = || Some(Fault::RefNotPermitted { message: "add a ReferenceGrant".into() });
    let asks = |name: &str| vec![rule("r", account("agent"), Condition::ExternalAuth(authorizer(name)))];
    let entry_with =
        |policy: Policy, fault| PolicyEntry::Policy { targets: policy.targets.clone(), policy, fault };
    let bad_cel = || vec![rule("r", Source::Anyone, cel("nope"))];
    let compiled = of_entries(
        vec![
            entry_with(ext("a", 1, on_backend(), vec![]), not_permitted()),
            entry_with(v0("b", 2, on_gateway(), asks("b")), not_permitted()),
            entry(ext("c", 3, on_listener("x"), bad_cel())),
            entry_with(ext("d", 4, on_listener("x"), bad_cel()), not_permitted()),
            entry(v0("e", 5, on_listener("x"), [asks("e"), bad_cel()].concat())),
        ],
        DefaultAction::Allow,
    );
    assert_eq!(compiled.engine.authorizers(), []);
    let with_another = of_entries(
        vec![
            entry_with(ext("a", 1, on_backend(), vec![]), not_permitted()),
            entry(ext("f", 6, on_gateway(), vec![])),
        ],
        DefaultAction::Allow,
    );
    assert_eq!(with_another.engine.authorizers(), [authorizer("f")]);
}

#[test]
fn faults_say_what_to_do() {
    for (fault, message, whole) in [
        (Fault::BackendNotFound { message: "create it".into() }, "create it", "create it"),
        (Fault::RefNotPermitted { message: "grant it".into() }, "grant it", "grant it"),
        (
            Fault::UnsupportedValue { rule: "r".into(), message: "write it otherwise".into() },
            "write it otherwise",
            "rule `r`: write it otherwise",
        ),
        (
            Fault::InvalidCel { rule: "r".into(), message: "there is no `x`".into() },
            "there is no `x`",
            "rule `r`: the CEL expression does not compile: there is no `x`",
        ),
    ] {
        assert_eq!((fault.message(), &*fault.to_string()), (message, whole));
    }
}

#[test]
fn warnings() {
    #[track_caller]
    fn check(policy: Policy, expected: &[&str]) {
        let warnings = compiled([policy]).statuses.remove(0).warnings;
        assert_eq!(warnings.len(), expected.len(), "{warnings:?}");
        for (warning, expected) in warnings.iter().zip(expected) {
            assert!(warning.contains(expected), "`{expected}`: {warning}");
        }
    }
    let one = |source, condition| v1("p", 1, on_backend(), vec![rule("r", source, condition)]);
    let with = |part: &dyn Fn(&mut Inline)| {
        let mut inline = Inline::default();
        part(&mut inline);
        Condition::Inline(Box::new(inline))
    };
    let mcp = |match_base_protocol, methods| {
        with(&|i| i.mcp = Some(McpMatch { match_base_protocol, methods: Option::clone(&methods) }))
    };
    let get = || Some(vec![HttpMethod("GET".into())]);
    let get_and_post = || Some(vec![HttpMethod("GET".into()), HttpMethod("POST".into())]);
    let true_where = |methods| Condition::Cel {
        expression: "true".into(),
        inline: Some(Box::new(Inline { methods, ..Inline::default() })),
    };
    // A rule that can match nothing, and which.
    for (condition, expected) in [
        (Condition::Anything, &[][..]),
        (tools(&[]), &["rule `r` can match nothing: its list of tools is empty"]),
        (tools(&["t"]), &[]),
        (mcp(false, Some(vec![])), &["rule `r` can match nothing: `mcp.methods` is empty"]),
        (mcp(true, Some(vec![])), &[]),
        (mcp(false, None), &[]),
        (with(&|i| i.methods = Some(vec![])), &["can match nothing: `methods` is empty"]),
        (with(&|i| i.paths = Some(vec![])), &["can match nothing: `paths` is empty"]),
        (with(&|i| i.hosts = Some(vec![])), &["can match nothing: `hosts` is empty"]),
        (with(&|i| i.ports = Some(vec![])), &["can match nothing: `ports` is empty"]),
        (with(&|i| i.methods = get()), &[]),
        (with(&|i| i.paths = Some(vec![PathMatch::Exact("/".into())])), &[]),
        (with(&|i| i.hosts = Some(vec![HostMatch::Exact("h".into())])), &[]),
        (with(&|i| i.ports = Some(vec![1])), &[]),
        (cel("true"), &[]),
        (true_where(None), &[]),
        (true_where(get()), &["add POST to `methods`"]),
        (true_where(get_and_post()), &[]),
        (true_where(Some(vec![])), &["can match nothing: `methods` is empty"]),
    ] {
        let dialect =
            if matches!(condition, Condition::Tools(_)) { Dialect::V0Alpha0 } else { Dialect::V1Alpha1 };
        check(Policy { dialect, ..one(account("agent"), condition) }, expected);
    }
    // A source that no certificate can carry.
    let no_account = Source::ServiceAccount(NamespacedName::new("ns", "not an account"));
    for (source, expected) in [
        (Source::Anyone, &[][..]),
        (Source::Spiffe(AGENT.into()), &[]),
        (Source::Spiffe("spiffe:/x".into()), &["`spiffe:/x` is not a SPIFFE ID"]),
        (no_account, &["`ns/not an account` is not a ServiceAccount"]),
    ] {
        check(one(source, Condition::Anything), expected);
    }
    // What passes without the authorizer.
    let rules = || vec![rule("r", Source::Anyone, Condition::Anything)];
    check(ext("e", 1, on_backend(), rules()), &["pass without"]);
    check(ext("e", 1, on_backend(), vec![]), &[]);
    check(v1("p", 1, on_backend(), rules()), &[]);
}
