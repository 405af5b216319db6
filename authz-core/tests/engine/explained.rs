//! What `explain` says of each rule, and why. That its decision is `decide`'s, every other test checks.
use authz_core::{BackendKind::Service, Explanation, Fault, PolicyEntry, RuleOutcome};
use policy_model::{
    Condition, HeaderMatch, HostMatch, HttpMethod, Inline, McpMatch, McpMethodMatch, PathMatch, Policy, Rule,
    Source, StringMatch,
};

use crate::common::*;

fn explained(policies: Vec<PolicyEntry>, ask: &Ask) -> Explanation {
    let engine = of_entries(policies, authz_core::DefaultAction::Allow).engine;
    let levels = ask.levels(&engine);
    ask.with(|request| engine.explain(levels, request))
}

/// `matches`, `differs: …`, `error: …`, `counts as matching: …`, `-`.
fn in_words(outcome: &RuleOutcome) -> String {
    match outcome {
        RuleOutcome::Matches => "matches".to_owned(),
        RuleOutcome::Differs(how) => format!("differs: {how}"),
        RuleOutcome::Error { error, counts_as_matching: false } => format!("error: {error}"),
        RuleOutcome::Error { error, counts_as_matching: true } => format!("counts as matching: {error}"),
        _ => "-".to_owned(),
    }
}

/// The Gateway's policies, a line for each policy with its state and one for each of its rules.
fn lines(policies: Vec<PolicyEntry>, ask: &Ask) -> Vec<String> {
    let mut lines = Vec::new();
    for policy in explained(policies, ask).gateway.policies {
        let name = &policy.policy.name;
        lines.push(format!("{name}: {}", policy.state));
        lines.extend(
            policy.rules.iter().map(|rule| format!("{name}/{}: {}", rule.rule, in_words(&rule.outcome))),
        );
    }
    lines
}

#[track_caller]
fn check(policies: Vec<PolicyEntry>, ask: &Ask, expected: &[&str]) {
    assert_eq!(lines(policies, ask), expected, "{ask:?}");
}

/// What comes of the one rule of an Allow policy.
#[track_caller]
fn check_rule(source: Source, condition: Condition, ask: &Ask, expected: &str) {
    // The kinds of rules that only v0alpha0 has.
    let is_v0 =
        matches!(condition, Condition::Tools(_) | Condition::NotToolCall | Condition::ExternalAuth(_));
    let policy = if is_v0 { v0 } else { v1 }("p", 1, on_gateway(), vec![rule("r", source, condition)]);
    check(vec![entry(policy)], ask, &["p: enforced", &format!("p/r: {expected}")]);
}

fn inline(part: impl FnOnce(&mut Inline)) -> Condition {
    let mut inline = Inline::default();
    part(&mut inline);
    Condition::Inline(Box::new(inline))
}

fn header(name: &str, value: StringMatch) -> Condition {
    inline(|i| i.headers = Some(vec![HeaderMatch { name: name.into(), value }]))
}

fn method(name: &str, params: &[&str]) -> Condition {
    let params = Some(params.iter().map(|param| (*param).to_owned()).collect());
    let methods = Some(vec![McpMethodMatch { name: name.into(), params }]);
    inline(|i| i.mcp = Some(McpMatch { match_base_protocol: false, methods }))
}

#[test]
fn how_a_rule_differs() {
    let call = Ask::call(AGENT, "t");
    let list = Ask::mcp(Some(AGENT), "prompts/list", "{}");
    let json = Ask::new(Some(AGENT), Carries::OtherJson).to(Service);
    let unparsed = Ask::new(Some(AGENT), Carries::Unparsed).to(Service);
    let agent = || account("agent");
    for source in [account("other"), Source::Spiffe("spiffe://cluster.local/ns/ns/sa".into())] {
        check_rule(source, tools(&["t"]), &call, "differs: another identity, or none");
    }
    let delegated = || Condition::ExternalAuth(authorizer("a"));
    for (condition, ask, expected) in [
        (tools(&["s", "t"]), &call, "matches"),
        (tools(&["s", "tt"]), &call, "differs: a tool that is not listed"),
        (tools(&["t"]), &list, "differs: not a tools/call"),
        (delegated(), &call, "matches"),
        (delegated(), &json, "differs: not a tools/call"),
        (Condition::NotToolCall, &call, "differs: a tools/call"),
        (Condition::NotToolCall, &list, "matches"),
        (Condition::NotToolCall, &json, "matches"),
        (Condition::NotToolCall, &unparsed, "differs: the body was not parsed"),
        (inline(|i| i.methods = Some(vec![HttpMethod("GET".into())])), &call, "differs: another HTTP method"),
        (inline(|i| i.paths = Some(vec![PathMatch::Exact("/x".into())])), &call, "differs: another path"),
        (inline(|i| i.hosts = Some(vec![HostMatch::Exact("x".into())])), &call, "differs: another host"),
        (inline(|i| i.ports = Some(vec![1])), &call, "differs: another listener's port"),
        (
            header("x", StringMatch::Exact("a".into())),
            &call,
            "differs: a header is missing or has another value",
        ),
        (method("tools/call", &["t"]), &call, "matches"),
        (method("tools/call", &["t"]), &json, "differs: not an MCP message"),
        (method("tools/call", &["t"]), &list, "differs: an MCP method that is not listed"),
        (method("tools/call", &["s"]), &call, "differs: a name or uri that is not listed"),
        (cel("request.mcp.tool_name == 's'"), &call, "differs: the CEL expression is false"),
        (cel("request.mcp.tool_name == 't'"), &list, "differs: not a tools/call"),
    ] {
        check_rule(agent(), condition, ask, expected);
    }
}

#[test]
fn why_it_cannot_be_told() {
    let call = Ask::call(AGENT, "t");
    let unparsed = Ask::new(Some(AGENT), Carries::Unparsed).to(Service);
    let regex = || StringMatch::Regex("[ab]*a[ab]{1000}c".into());
    for (condition, ask, why) in [
        (method("tools/call", &["t"]), unparsed.clone(), "the body was not parsed"),
        (cel("true"), unparsed, "the body was not parsed"),
        (header("x", regex()), call.clone().header("x", b"\xff"), "a header's value is not text"),
        (
            header("mcp-name", StringMatch::Exact("t".into())),
            call.clone().header("mcp-name", b"t"),
            "a header mirrors the body, and this revision does not compare them",
        ),
        (
            header("x", regex()),
            call.clone().header("x", &b"ab".repeat(30_000)),
            "the path or a header is too long for the regular expression",
        ),
        (
            inline(|i| i.hosts = Some(vec![HostMatch::Exact("gw.example".into())])),
            Ask { host: "gw.example.".into(), ..call.clone() },
            "the host is not a plain name or address",
        ),
        (cel("request.headers['x'] == 'a'"), call, "CEL: no such key: `x`"),
    ] {
        check_rule(account("agent"), condition.clone(), &ask, &format!("error: {why}"));
        let policy = ext("e", 1, on_gateway(), vec![rule("r", account("agent"), condition)]);
        check(vec![entry(policy)], &ask, &["e: enforced", &format!("e/r: counts as matching: {why}")]);
    }
}

#[test]
fn every_policy_with_its_state() {
    let one = |name: &'static str, who| -> Vec<Rule> { vec![rule(name, account(who), Condition::Anything)] };
    let policies: Vec<Policy> = vec![
        ext("first", 1, on_listener("plain"), one("a", "agent")),
        v1("second", 2, on_gateway(), vec![]),
        v1("third", 3, on_gateway(), [one("b", "other"), one("c", "agent")].concat()),
        ext("fourth", 4, on_listener("https"), [one("d", "other"), one("e", "agent")].concat()),
    ];
    let call = Ask::call(AGENT, "t");
    let mut entries: Vec<PolicyEntry> = policies.into_iter().map(entry).collect();
    let enforced = [
        "second: enforced",
        "third: enforced",
        "third/b: differs: another identity, or none",
        "third/c: matches",
    ];
    let first = ["first: other listener", "first/a: -"];
    let fourth = ["fourth: over limit", "fourth/d: differs: another identity, or none", "fourth/e: matches"];
    check(entries.clone(), &call, &[&first[..], &enforced, &fourth].concat());

    // Of a policy over the limit only what it would have delegated is looked at.
    let asks = Condition::ExternalAuth(authorizer("a"));
    let rules = vec![rule("x", account("agent"), tools(&["t"])), rule("y", account("agent"), asks)];
    entries.push(entry(v0("fifth", 5, on_listener("https"), rules)));
    let fifth = ["fifth: over limit", "fifth/x: -", "fifth/y: matches"];
    // A policy that closes its target says why, and no rule of it is looked at; the others' are.
    entries.push(PolicyEntry::Policy {
        policy: v1("sixth", 6, on_gateway(), vec![rule("z", Source::Anyone, Condition::Anything)]),
        fault: Some(Fault::BackendNotFound { message: "create the Service".into() }),
        targets: vec![on_gateway()],
    });
    let sixth = ["sixth: fails closed: create the Service", "sixth/z: -"];
    entries.push(PolicyEntry::Unreadable {
        key: key("seventh"),
        targets: vec![on_gateway()],
        message: "spec.rules: not a list".into(),
    });
    let seventh = ["seventh: fails closed: the policy cannot be read: spec.rules: not a list"];
    check(entries, &call, &[&first[..], &enforced, &fourth, &fifth, &sixth, &seventh].concat());

    // One whose expression does not compile: which rule, and the names that there are.
    let got =
        lines(vec![entry(v1("p", 1, on_gateway(), vec![rule("z", Source::Anyone, cel("nope"))]))], &call);
    assert_eq!((got.len(), &*got[1]), (2, "p/z: -"));
    let why = "p: fails closed: rule `z`: the CEL expression does not compile: there is no variable `nope`";
    assert!(got[0].starts_with(why), "{}", got[0]);
}

#[test]
fn a_rule_on_several_resources() {
    let listen = Ask::mcp(
        Some(AGENT),
        "subscriptions/listen",
        r#"{"notifications":{"resourceSubscriptions":["a","b"]}}"#,
    );
    let subscribe = |uri: &str| method("resources/subscribe", &[uri]);
    let agent = || account("agent");
    let rules = vec![
        rule("first", agent(), subscribe("a")),
        rule("second", agent(), subscribe("b")),
        rule("neither", agent(), subscribe("c")),
        rule("calls", agent(), method("tools/call", &["a"])),
    ];
    check(
        vec![entry(v1("p", 1, on_gateway(), rules))],
        &listen,
        &[
            "p: enforced",
            "p/first: matches",
            "p/second: matches",
            "p/neither: differs: a name or uri that is not listed",
            "p/calls: differs: an MCP method that is not listed",
        ],
    );
}

#[test]
fn whether_a_level_has_allow_rules() {
    let call = Ask::call(AGENT, "t");
    let has = |policies: Vec<Policy>| {
        let explanation = explained(policies.into_iter().map(entry).collect(), &call);
        (explanation.gateway.has_allow_rules, explanation.backend.has_allow_rules)
    };
    assert_eq!(has(vec![]), (false, false));
    assert_eq!(has(vec![ext("e", 1, on_gateway(), vec![])]), (false, false));
    assert_eq!(has(vec![v1("p", 1, on_listener("plain"), vec![])]), (false, false));
    assert_eq!(has(vec![v1("p", 1, on_listener("https"), vec![])]), (true, false));
    assert_eq!(has(vec![v0("p", 1, on_backend(), vec![])]), (false, true));
}
