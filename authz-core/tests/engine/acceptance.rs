//! Limits, policies that cannot be enforced as written, and what is reported.
use authz_core::{
    Acceptance,
    BackendKind::Service,
    Compiled, DefaultAction,
    Effect::{Allow, Deny},
    Fault, PolicyEntry, Reason,
};
use policy_model::{Condition, Inline, McpMatch, PathMatch, Policy, Source};

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

#[test]
fn warnings() {
    let empty = Condition::Inline(Box::new(Inline {
        mcp: Some(McpMatch { match_base_protocol: false, methods: Some(vec![]) }),
        ..Inline::default()
    }));
    let warned = |policy| compiled([policy]).statuses[0].warnings.join("; ");
    let one = |source, condition| v1("p", 1, on_backend(), vec![rule("r", source, condition)]);
    assert!(warned(one(Source::Anyone, empty)).contains("match nothing"));
    assert!(warned(one(Source::Spiffe("spiffe:/x".into()), Condition::Anything)).contains("match nothing"));
    assert_eq!(warned(one(account("agent"), Condition::Anything)), "");
    let rules = vec![rule("r", Source::Anyone, Condition::Anything)];
    assert!(warned(ext("e", 1, on_backend(), rules)).contains("pass without"));
    assert_eq!(warned(ext("e", 1, on_backend(), vec![])), "");
}
