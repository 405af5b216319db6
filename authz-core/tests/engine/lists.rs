//! `--filter-lists`: the tools that a caller is shown.
use authz_core::DefaultAction;
use policy_model::{Condition, HttpMethod, Inline, McpMatch, McpMethodMatch, Policy, Source};

use crate::common::*;

const ASKED: &str = "spiffe://cluster.local/ns/ns/sa/asked";
/// Without a namespace or service account.
const PLAIN: &str = "spiffe://cluster.local/plain";

#[track_caller]
fn check_shown(
    policies: &[Policy],
    default: DefaultAction,
    caller: Option<&str>,
    tool: &str,
    expected: bool,
) {
    let engine = of_entries(policies.iter().cloned().map(entry).collect(), default).engine;
    let levels = engine.levels(&gateway(), Some(&backend()));
    let by = Ask::new(caller, Carries::NoBody);
    let shown = by.with(|request| engine.could_call(levels, request.identity, request.listener, tool));
    assert_eq!(shown, expected, "{caller:?}, `{tool}`, {default:?}: {policies:?}");
}

#[track_caller]
fn check(policies: &[Policy], caller: &str, tool: &str, expected: bool) {
    check_shown(policies, DefaultAction::Allow, Some(caller), tool, expected);
}

fn inline(inline: Inline) -> Condition {
    Condition::Inline(Box::new(inline))
}

fn calls_of(tool: &str) -> Option<McpMatch> {
    let call = McpMethodMatch { name: "tools/call".into(), params: Some(vec![tool.into()]) };
    Some(McpMatch { match_base_protocol: false, methods: Some(vec![call]) })
}

#[test]
fn what_some_rule_could_allow_is_shown() {
    let policies = [v0(
        "p",
        1,
        on_backend(),
        vec![
            rule("listed", account("agent"), tools(&["get-sum"])),
            rule("by-name", account("agent"), cel("request.mcp.tool_name == 'by-name'")),
            rule(
                "by-argument",
                account("agent"),
                cel("request.mcp.tool_name == 'arg' && request.mcp.arguments.a == 1"),
            ),
            rule("delegated", account("asked"), Condition::ExternalAuth(authorizer("authz"))),
            rule("other", account("plain"), Condition::NotToolCall),
        ],
    )];
    for (caller, tool, expected) in [
        (Some(AGENT), "get-sum", true),
        (Some(AGENT), "by-name", true),
        (Some(AGENT), "arg", true),
        (Some(AGENT), "echo", false),
        (Some(OTHER), "get-sum", false),
        (Some(ASKED), "anything", true),
        (Some("spiffe://cluster.local/ns/ns/sa/plain"), "get-sum", false),
        (None, "get-sum", false),
    ] {
        check_shown(&policies, DefaultAction::Allow, caller, tool, expected);
    }
}

#[test]
fn what_only_errors_could_come_of_is_not_shown() {
    let by_namespace = rule("r", Source::Anyone, cel("source.namespace == 'ns'"));
    let allow = [v1("p", 1, on_backend(), vec![by_namespace.clone()])];
    check(&allow, AGENT, "t", true);
    check(&allow, PLAIN, "t", false);
    // In an ExternalAuth policy an error counts as matching, and the authorizer may allow it.
    check(&[ext("e", 1, on_backend(), vec![by_namespace])], PLAIN, "t", true);
}

#[test]
fn a_call_is_a_post() {
    for (methods, expected) in [(&["GET", "POST"][..], true), (&["GET"], false), (&[], false)] {
        let methods = Some(methods.iter().map(|method| HttpMethod((*method).into())).collect());
        let condition = inline(Inline { methods, mcp: calls_of("t"), ..Inline::default() });
        let policies = [v1("p", 1, on_backend(), vec![rule("r", Source::Anyone, condition)])];
        check(&policies, AGENT, "t", expected);
        check(&policies, AGENT, "other", false);
    }
    let nowhere = inline(Inline { ports: Some(vec![]), ..Inline::default() });
    check(&[v1("p", 1, on_backend(), vec![rule("r", Source::Anyone, nowhere)])], AGENT, "t", false);
}

#[test]
fn both_levels_must_let_it_through() {
    let allow = |name, target, tool| v1(name, 1, target, vec![rule("r", account("agent"), tools(&[tool]))]);
    let policies = [allow("gw", on_gateway(), "t"), allow("be", on_backend(), "t")];
    check(&policies, AGENT, "t", true);
    let policies = [allow("gw", on_gateway(), "u"), allow("be", on_backend(), "t")];
    check(&policies, AGENT, "t", false);
    check(&policies, AGENT, "u", false);
    // An authorizer is asked in addition: it allows nothing by itself.
    let policies = [allow("be", on_backend(), "t"), ext("ask", 1, on_backend(), vec![])];
    check(&policies, AGENT, "t", true);
    check(&policies, AGENT, "u", false);
}

#[test]
fn by_default_action() {
    let asks = |condition| [ext("e", 1, on_backend(), vec![rule("r", account("agent"), condition)])];
    for (policies, caller, tool, if_denied) in [
        (&[][..], AGENT, "t", false),
        (&[v1("p", 1, on_backend(), vec![])], AGENT, "t", true),
        (&[ext("e", 1, on_backend(), vec![])], AGENT, "t", true),
        (&asks(Condition::Anything), AGENT, "t", true),
        (&asks(Condition::Anything), OTHER, "t", false),
        (&asks(inline(Inline { mcp: calls_of("t"), ..Inline::default() })), AGENT, "t", true),
        (&asks(inline(Inline { mcp: calls_of("t"), ..Inline::default() })), AGENT, "u", false),
        (&asks(cel("request.mcp.arguments.a == 1")), AGENT, "t", true),
    ] {
        check_shown(policies, DefaultAction::Allow, Some(caller), tool, true);
        check_shown(policies, DefaultAction::Deny, Some(caller), tool, if_denied);
    }
}

/// Of a policy over the limit nothing is allowed, and what it would have delegated is denied whatever else allows it.
#[test]
fn over_the_limit() {
    // The limit is the Gateway's: the older policy is another listener's.
    let older = ext("older", 1, on_listener("plain"), vec![]);
    let open = v1("open", 2, on_gateway(), vec![]);
    let late = |rules| [older.clone(), open.clone(), ext("late", 3, on_listener("https"), rules)];
    let one = |condition| late(vec![rule("r", account("agent"), condition)]);
    check(&late(vec![]), AGENT, "t", false);
    check(&one(Condition::Anything), AGENT, "t", false);
    check(&one(Condition::Anything), OTHER, "t", true);
    check(&one(inline(Inline { mcp: calls_of("t"), ..Inline::default() })), AGENT, "t", false);
    check(&one(inline(Inline { mcp: calls_of("t"), ..Inline::default() })), AGENT, "u", true);
    // Some calls would have been delegated, others not.
    check(&one(cel("request.mcp.arguments.a == 1")), AGENT, "t", true);
    // Every call would have been: an error counts as matching.
    let errs = late(vec![rule("r", Source::Anyone, cel("source.namespace == 'ns'"))]);
    check(&errs, AGENT, "t", false);
    check(&errs, PLAIN, "t", false);
    check(&errs, "spiffe://cluster.local/ns/else/sa/agent", "t", true);

    let late = v0(
        "late",
        3,
        on_listener("https"),
        vec![
            rule("listed", account("agent"), tools(&["t"])),
            rule("asks", account("asked"), Condition::ExternalAuth(authorizer("authz"))),
        ],
    );
    let policies = [older.clone(), open, late.clone()];
    check(&policies, AGENT, "t", true);
    check(&policies, AGENT, "u", true);
    check(&policies, ASKED, "t", false);
    check(&policies, OTHER, "t", true);
    // Alone on its listener it is one more policy with Allow rules, of which none matches.
    check(&[older, late], AGENT, "t", false);
}
