//! MCP messages as Envoy's MCP filter shows them to RBAC: what is refused before policy, and the parts of rules that look at messages.
use policy_model::{McpMatch, McpMethodMatch};
use serde_json::{Value, json};

use super::test::{
    Test, Text, header, header_present, message, message_has, message_has_number, method, own_flag, path,
};

/// The methods that rules compare `params.name` with, those with `params.uri`, and those with `params.taskId`.
const NAMED: [&str; 2] = ["tools/call", "prompts/get"];
const LOCATED: [&str; 3] = ["resources/read", "resources/subscribe", "resources/unsubscribe"];
const TASKS: [&str; 4] = ["tasks/get", "tasks/result", "tasks/update", "tasks/cancel"];
/// Base protocol requests other than those of [`TASKS`]. `subscriptions/listen` is none here: Envoy does not see what it names.
const BASE: [&str; 6] =
    ["initialize", "server/discover", "ping", "tools/list", "completion/complete", "logging/setLevel"];
/// Revisions with sessions. The stateless one wants headers compared with the body.
const REVISIONS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

/// Headers of the protocol of which a second line could say something else.
pub(super) const SINGLE: [&str; 5] =
    ["content-encoding", "content-type", "mcp-protocol-version", "mcp-session-id", "origin"];

/// What a request is, as far as the route tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An XBackend's MCP path.
    Mcp,
    /// GET under `/.well-known/` of an XBackend.
    WellKnown,
    /// A POST of JSON to a Service whose policies look at messages.
    Message,
    /// Anything else to a Service: its body is not read.
    Unread,
}

/// `parser_config`: what RBAC, and authorizers, are to see.
pub(super) fn parser_config(arguments: bool) -> Value {
    let rules = |paths: &[&str]| paths.iter().map(|path| json!({"path": path})).collect::<Vec<_>>();
    let mut methods = Vec::new();
    for name in NAMED {
        let paths: &[&str] = if arguments {
            &["params.name", "params.arguments", "params._meta"]
        } else {
            &["params.name", "params._meta"]
        };
        methods.push(json!({"method": name, "extraction_rules": rules(paths)}));
    }
    for name in LOCATED {
        methods.push(json!({"method": name, "extraction_rules": rules(&["params.uri", "params._meta"])}));
    }
    for name in TASKS {
        methods.push(json!({"method": name, "extraction_rules": rules(&["params.taskId", "params._meta"])}));
    }
    let reference = ["params.ref", "params._meta"];
    methods.push(json!({"method": "completion/complete", "extraction_rules": rules(&reference)}));
    json!({"methods": methods})
}

fn is(name: &str) -> Test {
    message(&["method"], Text::exact(name))
}

fn one_of(names: &[&str]) -> Test {
    Test::any(names.iter().map(|name| is(name)))
}

pub(super) fn is_call(kind: Kind) -> Test {
    if is_message(kind) == Test::Always { is("tools/call") } else { Test::Never }
}

fn is_notification() -> Test {
    message(&["method"], Text::regex("(?s)notifications/.+")).and(message_has(&["id"]).negated())
}

/// What is refused before policy, as far as Envoy can tell (semantics, section 3).
pub(super) fn admitted(kind: Kind) -> Test {
    let single = own_flag("single");
    match kind {
        Kind::Mcp => single.and(Test::any([post(), event_stream(), end_of_session()])),
        Kind::Message => single.and(post()),
        Kind::WellKnown => single.and(method("GET")).and(no_body()),
        Kind::Unread => Test::Always,
    }
}

fn no_body() -> Test {
    let length = header("content-length", Text::exact("0")).or(header_present("content-length").negated());
    length.and(own_flag("bodiless"))
}

/// A header that is absent, or one of these values; repeated lines are none of them.
fn absent_or(name: &str, pattern: &str) -> Test {
    header_present(name).negated().or(header(name, Text::regex(pattern)))
}

fn post() -> Test {
    let target = |methods: &[&str], field: &str| {
        one_of(methods).negated().or(message(&["params", field], Text::regex(r"[^\x00-\x1f\x7f]+")))
    };
    let id = message(&["id"], Text::regex("(?s).*")).or(message_has_number(&["id"])).or(is_notification());
    Test::all([
        method("POST"),
        own_flag("strict"),
        message(&["jsonrpc"], Text::exact("2.0")),
        message(&["method"], Text::regex(r"[^\x00-\x1f\x7f]+")),
        header("content-type", Text::regex(r#"(?i)application/json(?:\s*;\s*charset=(?:utf-8|"utf-8"))?"#)),
        absent_or("content-encoding", "(?i)identity"),
        absent_or("mcp-session-id", "[^,]+"),
        absent_or("mcp-protocol-version", &REVISIONS.join("|")),
        id,
        target(&NAMED, "name"),
        target(&LOCATED, "uri"),
        target(&TASKS, "taskId"),
        is("completion/complete").negated().or(Test::any(
            [("ref/prompt", "name"), ("ref/resource", "uri")].map(|(r#type, field)| {
                let target = message(&["params", "ref", field], Text::regex(r"[^\x00-\x1f\x7f]+"));
                message(&["params", "ref", "type"], Text::exact(r#type)).and(target)
            }),
        )),
        is("subscriptions/listen").negated(),
    ])
}

fn event_stream() -> Test {
    Test::all([
        method("GET"),
        no_body(),
        header(
            "accept",
            Text::regex(
                r"(?i)(?:[^\x22]*,)?\s*text/event-stream\s*(?:;\s*q=(?:1(?:\.0{0,3})?|0\.\d{0,2}[1-9]))?\s*(?:,[^\x22]*)?",
            ),
        ),
        // Named again with a weight of zero.
        header("accept", Text::regex(r"(?i).*text/event-stream[^,]*;\s*q\s*=\s*[0.]*\s*(?:,.*)?")).negated(),
        absent_or("mcp-session-id", "[^,]+"),
        absent_or("mcp-protocol-version", &REVISIONS.join("|")),
    ])
}

fn end_of_session() -> Test {
    Test::all([
        method("DELETE"),
        no_body(),
        header("mcp-session-id", Text::regex("[^,]+")),
        absent_or("mcp-protocol-version", &REVISIONS.join("|")),
    ])
}

/// An MCP message of any kind.
fn is_message(kind: Kind) -> Test {
    Test::when(matches!(kind, Kind::Mcp | Kind::Message))
}

/// Base protocol; without tasks/* where not everybody may ask for them.
fn is_base(kind: Kind, tasks: bool) -> Test {
    let tasks = if tasks { one_of(&TASKS) } else { Test::Never };
    let messages = Test::any([one_of(&BASE), is_notification(), tasks]);
    match kind {
        Kind::Mcp => Test::any([method("GET"), method("DELETE"), messages]),
        Kind::Message => messages,
        Kind::WellKnown | Kind::Unread => Test::Never,
    }
}

/// v0alpha0's base protocol, where `named` is whether some rule of the level names the identity.
pub(super) fn base_protocol(kind: Kind, named: &Test) -> Test {
    match kind {
        Kind::Mcp => is_base(kind, false).or(is_base(kind, true).and(named.clone())),
        _ => is_base(kind, true).and(named.clone()),
    }
}

/// v0alpha0's "what is not a tools/call": a body that was parsed and is none, or no body.
pub(super) fn not_a_call(kind: Kind) -> Test {
    match kind {
        Kind::Mcp | Kind::Message => is_call(kind).negated(),
        Kind::WellKnown => Test::Always,
        Kind::Unread => is_unread(kind).negated(),
    }
}

/// A call of one of these tools.
pub(super) fn calls_one_of(kind: Kind, tools: &[String]) -> Test {
    is_call(kind).and(Test::any(tools.iter().map(|tool| message(&["params", "name"], Text::exact(tool)))))
}

/// Whether there is a body that was not read: then what looks at it cannot be told.
pub(super) fn is_unread(kind: Kind) -> Test {
    let bodiless = ["GET", "HEAD", "DELETE", "OPTIONS"].map(method);
    match kind {
        Kind::Unread => no_body().and(Test::any(bodiless)).negated(),
        _ => Test::Never,
    }
}

/// v1alpha1 `mcp`.
pub(super) fn matches(kind: Kind, mcp: &McpMatch) -> Test {
    let base = if mcp.match_base_protocol { is_base(kind, true) } else { Test::Never };
    let methods = match &mcp.methods {
        None if mcp.match_base_protocol => Test::Never,
        None => is_message(kind),
        Some(methods) => Test::any(methods.iter().map(one_method)).and(is_message(kind)),
    };
    base.or(methods)
}

fn one_method(of: &McpMethodMatch) -> Test {
    let named = match of.name.as_str() {
        category @ ("tools" | "prompts" | "resources") => {
            message(&["method"], Text::regex(&format!("(?s){category}/.+")))
        }
        exact => is(exact),
    };
    let Some(params) = of.params.as_deref().filter(|params| !params.is_empty()) else { return named };
    let target = |methods: &[&str], field: &str| {
        let values = params.iter().map(|param| message(&["params", field], Text::exact(param)));
        one_of(methods).and(Test::any(values))
    };
    named.and(Test::any([target(&NAMED, "name"), target(&LOCATED, "uri")]))
}

/// A call that an authorizer sees whole, or no call.
pub(super) fn is_whole(kind: Kind) -> Test {
    own_flag("whole").or(is_call(kind).negated())
}

/// A path as a policy's PathPrefix has it.
pub(super) fn below(prefix: &str) -> Test {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    let itself = if prefix.is_empty() { Test::Never } else { path(Text::exact(prefix)) };
    itself.or(path(Text::prefix(&format!("{prefix}/"))))
}
