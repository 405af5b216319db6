//! The specification read once more, sentence by sentence, with no thought of speed: what the engine decides, by which
//! policy and rule, must be what this decides, for any policies and request.
use authz_core::{BackendKind, DefaultAction, Effect, PolicyEntry, Reason, Request, Traffic};
use mcp_jsonrpc::{Kind, Target as About};
use policy_model::{
    Action, Condition, Dialect, HeaderMatch, HostMatch, Inline, McpMatch, McpMethodMatch, NamespacedName,
    PathMatch, Policy, PolicyKey, Rule, Source, StringMatch, Target, TargetKind, Timestamp,
};
use proptest::{collection::vec, prelude::*};

use crate::{common::*, generators::*};

/// Whether a condition holds, if that can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Truth {
    No,
    Untold,
    Yes,
}
use Truth::{No, Untold, Yes};

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Yes } else { No }
    }
}

fn all(parts: impl IntoIterator<Item = Truth>) -> Truth {
    let parts: Vec<_> = parts.into_iter().collect();
    if parts.contains(&No) {
        No
    } else if parts.contains(&Untold) {
        Untold
    } else {
        Yes
    }
}

fn any_of(parts: impl IntoIterator<Item = Truth>) -> Truth {
    let parts: Vec<_> = parts.into_iter().collect();
    if parts.contains(&Yes) {
        Yes
    } else if parts.contains(&Untold) {
        Untold
    } else {
        No
    }
}

/// What a rule is asked about: one message of one method, or something that is no message.
#[derive(Debug, Clone, PartialEq)]
enum Subject {
    Message {
        method: String,
        value: Option<String>,
        is_base: bool,
        is_task: bool,
    },
    /// Known to be no MCP traffic, and so no `tools/call`.
    NotMcp,
    /// A body that nobody parsed.
    Unknown,
}

const BASE: [&str; 10] = [
    "initialize",
    "server/discover",
    "ping",
    "tools/list",
    "completion/complete",
    "logging/setLevel",
    "tasks/get",
    "tasks/result",
    "tasks/update",
    "tasks/cancel",
];

fn message(method: &str, value: Option<String>) -> Subject {
    Subject::Message {
        method: method.into(),
        value,
        is_base: BASE.contains(&method),
        is_task: method.starts_with("tasks/") && method != "tasks/list",
    }
}

/// Each of these is decided on its own (`subscriptions/listen`).
fn subjects(traffic: &Traffic<'_>) -> Vec<Subject> {
    let base =
        |method: &str| Subject::Message { method: method.into(), value: None, is_base: true, is_task: false };
    let one = match traffic {
        Traffic::EventStream | Traffic::EndSession => base(""),
        Traffic::OtherJson | Traffic::NoBody => Subject::NotMcp,
        Traffic::Unparsed => Subject::Unknown,
        Traffic::Message(given) => match (given.kind(), given.target()) {
            (Kind::Response | Kind::Notification, _) => base(given.method()),
            (_, About::Subscriptions { resources, tasks }) if !(resources.is_empty() && tasks.is_empty()) => {
                let mut each: Vec<_> = resources
                    .iter()
                    .map(|uri| message("resources/subscribe", Some(uri.clone().into_owned())))
                    .collect();
                if !tasks.is_empty() {
                    each.push(message("tasks/get", None));
                }
                return each;
            }
            (_, About::Subscriptions { .. }) => base("subscriptions/listen"),
            (_, About::Name(value) | About::Uri(value)) => {
                message(given.method(), Some(value.clone().into_owned()))
            }
            _ => message(given.method(), None),
        },
    };
    vec![one]
}

fn is_tool_call(subject: &Subject) -> Truth {
    match subject {
        Subject::Message { method, .. } => (method == "tools/call").into(),
        Subject::NotMcp => No,
        Subject::Unknown => Untold,
    }
}

fn source_matches(source: &Source, request: &Request<'_>) -> bool {
    let identity = request.identity.map(ToString::to_string);
    match source {
        Source::Anyone => true,
        Source::Spiffe(id) => identity.as_ref() == Some(id),
        Source::ServiceAccount(account) => {
            let id = format!("spiffe://cluster.local/ns/{}/sa/{}", account.namespace, account.name);
            identity == Some(id)
        }
    }
}

/// Whom the rule names, if it is a rule about somebody.
fn names(source: &Source, request: &Request<'_>) -> bool {
    *source != Source::Anyone && source_matches(source, request)
}

fn method_matches(wanted: &McpMethodMatch, subject: &Subject) -> Truth {
    let Subject::Message { method, value, .. } = subject else { return is_tool_call(subject) };
    let named = match wanted.name.as_str() {
        family @ ("tools" | "prompts" | "resources") => {
            method.split_once('/').is_some_and(|(first, rest)| first == family && !rest.is_empty())
        }
        whole => whole == method,
    };
    let params = wanted.params.as_deref().unwrap_or_default();
    let fits = params.is_empty() || value.as_ref().is_some_and(|value| params.contains(value));
    (named && fits).into()
}

fn mcp_matches(wanted: &McpMatch, subject: &Subject) -> Truth {
    let Subject::Message { is_base, .. } = subject else {
        let nothing = wanted.methods.as_ref().is_some_and(Vec::is_empty) && !wanted.match_base_protocol;
        return if nothing { No } else { is_tool_call(subject) };
    };
    match &wanted.methods {
        None if !wanted.match_base_protocol => Yes,
        methods => {
            let listed = methods.iter().flatten().map(|method| method_matches(method, subject));
            any_of(listed.chain([(wanted.match_base_protocol && *is_base).into()]))
        }
    }
}

/// Patterns that the generators use, by hand.
fn text_matches(pattern: &str, text: &str) -> bool {
    match pattern {
        "[ab]" => ["a", "b"].contains(&text),
        "/[ab]" => ["/a", "/b"].contains(&text),
        "a|ab" => ["a", "ab"].contains(&text),
        ".+" => !text.is_empty(),
        "/a.*" => text.starts_with("/a"),
        "/a/." => text.strip_prefix("/a/").is_some_and(|rest| rest.chars().count() == 1),
        other => panic!("`{other}` has no meaning here"),
    }
}

fn path_matches(wanted: &PathMatch, path: &str) -> bool {
    match wanted {
        PathMatch::Exact(exact) => exact == path,
        PathMatch::Prefix(prefix) => {
            let elements = |path: &str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
            elements(path).starts_with(&elements(prefix.strip_suffix('/').unwrap_or(prefix)))
        }
        PathMatch::Regex(pattern) => text_matches(pattern, path),
    }
}

fn header_matches(wanted: &HeaderMatch, request: &Request<'_>) -> Truth {
    let lines: Vec<_> = request.http.headers.get_all(&wanted.name).iter().collect();
    if lines.is_empty() {
        return No;
    }
    all(lines.into_iter().map(|line| match (&wanted.value, std::str::from_utf8(line.as_bytes())) {
        (StringMatch::Exact(exact), _) => (exact.as_bytes() == line.as_bytes()).into(),
        (StringMatch::Regex(pattern), Ok(text)) => text_matches(pattern, text).into(),
        (StringMatch::Regex(_), Err(_)) => Untold,
    }))
}

fn hosts_match(wanted: &[HostMatch], host: &str) -> Truth {
    let host = host.split(':').next().unwrap_or_default().to_ascii_lowercase();
    if wanted.is_empty() {
        return No;
    }
    if host.contains('@') || host.split('.').any(str::is_empty) {
        return Untold;
    }
    let matches = |one: &HostMatch| match one {
        HostMatch::Exact(exact) => *exact == host,
        HostMatch::Wildcard(suffix) => {
            host.strip_suffix(suffix).is_some_and(|labels| labels.len() > 1 && labels.ends_with('.'))
        }
    };
    wanted.iter().any(matches).into()
}

fn inline_matches(inline: &Inline, subject: &Subject, request: &Request<'_>) -> Truth {
    let mut parts = Vec::new();
    if let Some(methods) = &inline.methods {
        parts.push(methods.iter().any(|method| method.0 == request.http.method).into());
    }
    if let Some(paths) = &inline.paths {
        let path = request.http.path_and_query.split('?').next().unwrap_or_default();
        parts.push(paths.iter().any(|wanted| path_matches(wanted, path)).into());
    }
    parts.extend(inline.headers.iter().flatten().map(|header| header_matches(header, request)));
    if let Some(hosts) = &inline.hosts {
        parts.push(hosts_match(hosts, request.http.host));
    }
    if let Some(ports) = &inline.ports {
        parts.push(ports.contains(&request.port).into());
    }
    if let Some(mcp) = &inline.mcp {
        parts.push(mcp_matches(mcp, subject));
    }
    all(parts)
}

/// What an expression sees of a call.
pub(crate) struct Call<'a> {
    tool: &'a str,
    arguments: Option<&'a str>,
    request: &'a Request<'a>,
}

impl Call<'_> {
    /// `request.mcp.arguments.n > limit`; `None`: an error.
    fn n_over_one(&self) -> Option<bool> {
        match self.arguments? {
            r#"{"n":2}"# | r#"{"n":1.5}"# | r#"{"n":18446744073709551615}"# => Some(true),
            r#"{"n":1}"# | r#"{"n":-1e3}"# => Some(false),
            _ => None,
        }
    }
    fn tenant(&self) -> Option<String> {
        let lines: Vec<_> = self.request.http.headers.get_all("x-tenant").iter().collect();
        if lines.is_empty() {
            return None;
        }
        let texts: Option<Vec<_>> =
            lines.iter().map(|line| std::str::from_utf8(line.as_bytes()).ok()).collect();
        Some(texts?.join(","))
    }
    fn is(&self, wanted: &str) -> bool {
        self.tool == wanted
    }
}

pub(crate) type Meaning = fn(&Call<'_>) -> Option<bool>;

/// Expressions and what they mean; `None`: the evaluation fails.
pub(crate) const EXPRESSIONS: [(&str, Meaning); 16] = [
    ("true", |_| Some(true)),
    ("request.mcp.tool_name == 't1'", |call| Some(call.is("t1"))),
    ("request.mcp.arguments.n > 1", |call| call.n_over_one()),
    ("!(request.mcp.arguments.n > 1)", |call| call.n_over_one().map(|over| !over)),
    ("request.headers['x-tenant'] == 'a'", |call| call.tenant().map(|tenant| tenant == "a")),
    ("!has(request.headers.authorization)", |_| Some(true)),
    ("request.mcp.tool_name == 't1' || request.mcp.arguments.n > 1", |call| {
        if call.is("t1") { Some(true) } else { call.n_over_one() }
    }),
    ("request.mcp.arguments.n > 1 || request.mcp.tool_name == 't1'", |call| {
        if call.is("t1") { Some(true) } else { call.n_over_one() }
    }),
    ("request.mcp.arguments.n > 1 && request.mcp.tool_name == 't1'", |call| {
        if call.is("t1") { call.n_over_one() } else { Some(false) }
    }),
    ("request.mcp.tool_name == 't1' ? true : request.mcp.arguments.n > 1", |call| {
        if call.is("t1") { Some(true) } else { call.n_over_one() }
    }),
    ("has(request.mcp.arguments.n)", |call| call.arguments.map(|text| text.contains("\"n\""))),
    ("source.service_account == 'agent'", |call| {
        let identity = call.request.identity?.to_string();
        identity.contains("/ns/ns/sa/").then(|| identity.ends_with("/sa/agent"))
    }),
    ("request.method == 'POST' && request.mcp.method == 'tools/call'", |call| {
        Some(call.request.http.method == "POST")
    }),
    ("request.host == 'a.example' && request.url_path == '/a'", |call| {
        let path = call.request.http.path_and_query;
        Some(call.request.http.host == "a.example" && (path == "/a" || path.starts_with("/a?")))
    }),
    ("request.path == '/a/b?q'", |call| Some(call.request.http.path_and_query == "/a/b?q")),
    // Non-bools where only the evaluation can tell.
    ("request.mcp.arguments.n", |_| None),
];

/// Expressions that do not compile.
pub(crate) const BROKEN: [&str; 4] = ["request.foo == 'a'", "request.path", "(", "tool_name == 't1'"];

fn cel_matches(expression: &str, subject: &Subject, request: &Request<'_>) -> Truth {
    match is_tool_call(subject) {
        Yes => {}
        other => return other,
    }
    let Traffic::Message(given) = request.traffic else { panic!("a call is a message") };
    let About::Name(tool) = given.target() else { panic!("a call has a name") };
    let call = Call { tool, arguments: given.arguments(), request };
    let (_, meaning) = EXPRESSIONS.iter().find(|(text, _)| *text == expression).unwrap();
    meaning(&call).map_or(Untold, Into::into)
}

fn condition_matches(condition: &Condition, subject: &Subject, request: &Request<'_>) -> Truth {
    match condition {
        Condition::Anything => Yes,
        Condition::NotToolCall => match is_tool_call(subject) {
            Yes => No,
            No => Yes,
            Untold => Untold,
        },
        Condition::Tools(listed) => match subject {
            Subject::Message { method, value: Some(name), .. } if method == "tools/call" => {
                listed.contains(name).into()
            }
            _ => No,
        },
        Condition::Cel { expression, inline } => all([
            cel_matches(expression, subject, request),
            inline.as_ref().map_or(Yes, |inline| inline_matches(inline, subject, request)),
        ]),
        Condition::ExternalAuth(_) => is_tool_call(subject),
        Condition::Inline(inline) => inline_matches(inline, subject, request),
    }
}

fn rule_matches(rule: &Rule, subject: &Subject, request: &Request<'_>) -> Truth {
    if source_matches(&rule.source, request) {
        condition_matches(&rule.condition, subject, request)
    } else {
        No
    }
}

fn delegates(policy: &Policy) -> bool {
    matches!(policy.action, Action::ExternalAuth(_))
        || policy.rules.iter().any(|rule| matches!(rule.condition, Condition::ExternalAuth(_)))
}

/// Whether the policy itself asks an authorizer about one of the subjects; and the first rule by which it does, if it
/// takes one.
fn delegation<'p>(
    policy: &'p Policy,
    subjects: &[Subject],
    request: &Request<'_>,
) -> Option<Option<&'p Rule>> {
    let asks = |rule: &&Rule| {
        subjects.iter().any(|subject| match policy.action {
            Action::ExternalAuth(_) => rule_matches(rule, subject, request) != No,
            Action::Allow => {
                matches!(rule.condition, Condition::ExternalAuth(_))
                    && rule_matches(rule, subject, request) == Yes
            }
        })
    };
    if matches!(policy.action, Action::ExternalAuth(_)) && policy.rules.is_empty() {
        return Some(None);
    }
    policy.rules.iter().find(asks).map(Some)
}

fn cannot_be_enforced(policy: &Policy) -> bool {
    let asked = |rule: &&Rule| matches!(rule.condition, Condition::ExternalAuth(_));
    policy.rules.iter().filter(asked).count() > 1
        || policy.rules.iter().any(|rule| match &rule.condition {
            Condition::Cel { expression, .. } => BROKEN.contains(&expression.as_str()),
            _ => false,
        })
}

/// What one level says.
#[derive(Debug, PartialEq, Eq)]
struct Level {
    effect: Effect,
    reason: Reason,
    /// The policy and the rule that determined it, if one did.
    by: Option<(PolicyKey, Option<String>)>,
    authorizer: Option<String>,
}

/// The place of a policy in policy order: the oldest first, those without a time last, then by name.
fn place(created: Option<Timestamp>, key: &PolicyKey) -> impl Ord + use<> {
    (created.map_or((true, 0), |at| (false, at.0)), key.clone())
}

fn by(policy: &Policy, rule: Option<&Rule>) -> Option<(PolicyKey, Option<String>)> {
    Some((policy.key.clone(), rule.map(|rule| rule.name.clone())))
}

/// What one level says, and whether it has Allow rules.
fn level(
    entries: &[PolicyEntry],
    kind: TargetKind,
    object: &NamespacedName,
    request: &Request<'_>,
) -> (Level, bool) {
    let is_object = |target: &Target| target.kind == kind && target.object == *object;
    let here = |target: &Target| {
        let section = target.section_name.as_deref().filter(|_| kind == TargetKind::Gateway);
        is_object(target) && section.is_none_or(|section| section == request.listener)
    };
    let mut on_object: Vec<_> = entries
        .iter()
        .filter_map(|entry| match entry {
            PolicyEntry::Policy { policy, fault, targets } if targets.iter().any(is_object) => {
                Some((policy, fault.is_some(), targets))
            }
            _ => None,
        })
        .collect();
    on_object.sort_by_key(|(policy, ..)| place(policy.created, &policy.key));

    // What cannot be read has no time.
    let mut closing: Vec<_> = entries
        .iter()
        .filter_map(|entry| match entry {
            PolicyEntry::Unreadable { key, targets, .. } => targets.iter().any(here).then_some(key),
            PolicyEntry::UnreadableNamespace { key, .. } => {
                (key.namespace == object.namespace).then_some(key)
            }
            PolicyEntry::Policy { .. } => None,
        })
        .map(|key| (place(None, key), key))
        .collect();
    let (mut within, mut within_delegating) = (0, 0);
    let mut accepted = Vec::new();
    let mut over = Vec::new();
    for (policy, has_fault, targets) in on_object {
        let is_within = within < 5 && !(delegates(policy) && within_delegating > 0);
        if is_within {
            within += 1;
            within_delegating += usize::from(delegates(policy));
        }
        if !targets.iter().any(here) {
            continue;
        }
        if has_fault || cannot_be_enforced(policy) {
            closing.push((place(policy.created, &policy.key), &policy.key));
        }
        if is_within { accepted.push(policy) } else { over.push(policy) }
    }

    let is_local = |policy: &&&Policy| policy.action == Action::Allow;
    let has_allow_rules = accepted.iter().chain(&over).any(|policy| is_local(&policy));
    let says = |effect, reason, by| (Level { effect, reason, by, authorizer: None }, has_allow_rules);
    if let Some((_, key)) = closing.into_iter().min_by(|(one, _), (other, _)| one.cmp(other)) {
        return says(Effect::Deny, Reason::FailsClosed, Some((key.clone(), None)));
    }
    if accepted.is_empty() && over.is_empty() {
        return says(Effect::Allow, Reason::NoPolicy, None);
    }
    let subjects = subjects(&request.traffic);
    let delegating = |policy: &&&Policy| {
        delegation(policy, &subjects, request).map(|rule| (by(policy, rule), policy.action.clone()))
    };
    if let Some((by, _)) = over.iter().find_map(|policy| delegating(&policy)) {
        return says(Effect::Deny, Reason::OverLimit, by);
    }

    let is_named = accepted
        .iter()
        .filter(is_local)
        .any(|policy| policy.rules.iter().any(|rule| names(&rule.source, request)));
    // The first rule that lets the subject through.
    let allowing = |subject: &Subject| {
        accepted.iter().filter(is_local).find_map(|policy| {
            if policy.dialect == Dialect::V1Alpha1 && policy.rules.is_empty() {
                return Some((Reason::Allowed, by(policy, None)));
            }
            let from_anyone = |is_task: bool| request.backend == BackendKind::XBackendMcp && !is_task;
            match subject {
                Subject::Message { is_base: true, is_task, .. }
                    if policy.dialect == Dialect::V0Alpha0 && (is_named || from_anyone(*is_task)) =>
                {
                    Some((Reason::BaseProtocol, by(policy, None)))
                }
                _ => {
                    let rule =
                        policy.rules.iter().find(|rule| rule_matches(rule, subject, request) == Yes)?;
                    Some((Reason::Allowed, by(policy, Some(rule))))
                }
            }
        })
    };
    let allowed: Vec<_> = subjects.iter().map(allowing).collect();
    if has_allow_rules && allowed.contains(&None) {
        return says(Effect::Deny, Reason::NoRuleMatches, None);
    }
    if let Some((by, action)) = accepted.iter().find_map(|policy| delegating(&policy)) {
        let authorizer = match action {
            Action::ExternalAuth(authorizer) => authorizer.backend.object.name,
            Action::Allow => "v0".to_owned(),
        };
        let (level, _) = says(Effect::Delegate, Reason::Delegated, by);
        return (Level { authorizer: Some(authorizer), ..level }, has_allow_rules);
    }
    let (reason, by) = allowed.into_iter().next().flatten().unwrap_or((Reason::NotDelegated, None));
    says(Effect::Allow, reason, by)
}

fn decide(entries: &[PolicyEntry], default: DefaultAction, request: &Request<'_>) -> (Effect, [Level; 2]) {
    let first = level(entries, TargetKind::Gateway, &gateway(), request);
    let second = if request.backend == BackendKind::Service {
        (Level { effect: Effect::Allow, reason: Reason::NoPolicy, by: None, authorizer: None }, false)
    } else {
        level(entries, TargetKind::XBackend, &backend(), request)
    };
    let unguarded =
        |(level, has_allow_rules): &(Level, bool)| !has_allow_rules && level.effect == Effect::Allow;
    let denies = default == DefaultAction::Deny && unguarded(&first) && unguarded(&second);
    let mut levels = [first.0, second.0];
    if denies {
        // Reported on both.
        for level in &mut levels {
            (level.effect, level.reason) = (Effect::Deny, Reason::DefaultDeny);
        }
    }
    let is = |effect| levels.iter().any(|level| level.effect == effect);
    let effect = if is(Effect::Deny) {
        Effect::Deny
    } else if is(Effect::Delegate) {
        Effect::Delegate
    } else {
        Effect::Allow
    };
    (effect, levels)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_engine_decides_as_the_specification_reads(
        entries in any_policies(),
        default in prop_oneof![Just(DefaultAction::Allow), Just(DefaultAction::Deny)],
        asks in vec(any_ask(), 3),
    ) {
        let engine = of_entries(entries.clone(), default).engine;
        for ask in asks {
            let (effect, levels) = ask.with(|request| decide(&entries, default, request));
            let decision = ask.decide(&engine);
            let decided = [decision.gateway, decision.backend].map(|level| Level {
                effect: level.effect,
                reason: level.reason,
                by: level.determining.map(|by| (by.policy.clone(), by.rule.map(str::to_owned))),
                authorizer: level
                    .authorizer
                    .and_then(|id| Some(engine.authorizer(id)?.backend.object.name.clone())),
            });
            prop_assert_eq!(&decided, &levels, "{:?} of {:?}", ask, entries);
            prop_assert_eq!(decision.effect, effect, "{:?} of {:?}", ask, entries);
            // What one level denies nobody is asked about.
            let asked = levels.iter().filter(|level| level.authorizer.is_some()).count();
            prop_assert_eq!(decision.authorizers().count(), if effect == Effect::Delegate { asked } else { 0 });
        }
    }
}
