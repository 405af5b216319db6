//! One policy: its rules compiled, what is wrong with it, what its author should know.
use std::collections::HashMap;

use policy_model::{
    Action, Condition as Model, Dialect, ExternalAuth, Inline as InlineModel, Policy, PolicyKey,
    Rule as RuleModel, Source as SourceModel,
};
use spiffe_id::{SpiffeId, TrustDomain};

use super::Fault;
use crate::{
    AuthorizerId,
    cel::Expression,
    level::CompiledPolicy,
    rule::{Condition, HttpMatch, Inline, McpMatcher, Rule, Source},
};

/// Authorizers, each once, in the order in which policies name them.
#[derive(Default)]
pub(super) struct Authorizers {
    list: Vec<ExternalAuth>,
    ids: HashMap<ExternalAuth, AuthorizerId>,
}

impl Authorizers {
    fn id(&mut self, authorizer: &ExternalAuth) -> AuthorizerId {
        if let Some(id) = self.ids.get(authorizer) {
            return *id;
        }
        // More authorizers than u32 counts do not fit in memory.
        let id = AuthorizerId(u32::try_from(self.list.len()).unwrap_or(u32::MAX));
        self.list.push(authorizer.clone());
        self.ids.insert(authorizer.clone(), id);
        id
    }

    pub(super) fn into_list(self) -> Vec<ExternalAuth> {
        self.list
    }
}

/// Whether a policy counts toward the limit of one with ExternalAuth.
pub(super) fn is_external(policy: &Policy) -> bool {
    matches!(policy.action, Action::ExternalAuth(_)) || external_rules(policy).next().is_some()
}

fn external_rules(policy: &Policy) -> impl Iterator<Item = &RuleModel> {
    policy.rules.iter().filter(|rule| matches!(rule.condition, Model::ExternalAuth(_)))
}

impl CompiledPolicy {
    /// What is known of a policy that cannot be read: it only closes.
    pub(super) fn unreadable(key: PolicyKey) -> Self {
        Self {
            key,
            dialect: Dialect::V1Alpha1,
            delegates_to: None,
            rules: Box::default(),
            needs_body: true,
            written: None,
        }
    }
}

/// Compiles a policy; also the first thing that keeps it from being enforced as written. Rules of a policy that
/// is broken (`is_broken` from outside, or found here) are kept by name only.
pub(super) fn compile_policy(
    policy: Policy,
    is_broken: bool,
    trust_domain: &TrustDomain,
    authorizers: &mut Authorizers,
) -> (CompiledPolicy, Option<Fault>) {
    let expected = checked_shape(&policy)
        .and_then(|()| policy.rules.iter().map(conditions).collect::<Result<Vec<_>, _>>());
    let needs_body = policy.dialect == Dialect::V0Alpha0
        || matches!(policy.action, Action::ExternalAuth(_))
        || policy.rules.iter().any(|rule| match &rule.condition {
            Model::Anything => false,
            Model::Inline(inline) => inline.mcp.is_some(),
            _ => true,
        });
    let (compiled, fault) = match expected {
        Ok(compiled) => (compiled, None),
        Err(fault) => (Vec::new(), Some(fault)),
    };
    let rules = if is_broken || fault.is_some() {
        // They are never evaluated; should they be, they match nothing.
        let by_name = |rule: &RuleModel| Rule {
            name: rule.name.as_str().into(),
            source: source(rule, trust_domain),
            condition: Condition::Tools(Box::default()),
        };
        policy.rules.iter().map(by_name).collect()
    } else {
        let with_authorizer = |(rule, condition): (&RuleModel, Compiled)| Rule {
            name: rule.name.as_str().into(),
            source: source(rule, trust_domain),
            condition: match condition {
                Compiled::Local(condition) => condition,
                Compiled::Delegated(to) => Condition::Delegated(authorizers.id(&to)),
            },
        };
        policy.rules.iter().zip(compiled).map(with_authorizer).collect()
    };
    let delegates_to = match &policy.action {
        Action::Allow => None,
        // Of a broken policy nobody is asked; what it is must still be seen.
        Action::ExternalAuth(_) if is_broken || fault.is_some() => Some(AuthorizerId(u32::MAX)),
        Action::ExternalAuth(to) => Some(authorizers.id(to)),
    };
    let (key, dialect) = (policy.key.clone(), policy.dialect);
    (CompiledPolicy { key, dialect, delegates_to, rules, needs_body, written: Some(policy) }, fault)
}

/// Shapes that no API version can express, and that no evaluation is defined for.
fn checked_shape(policy: &Policy) -> Result<(), Fault> {
    let refuse = |rule: &str, message: &str| {
        Err(Fault::UnsupportedValue { rule: rule.to_owned(), message: message.to_owned() })
    };
    let mut external = external_rules(policy);
    match (policy.dialect, &policy.action, external.next(), external.next()) {
        (Dialect::V0Alpha0, Action::ExternalAuth(_), ..) => {
            refuse("", "a policy without `action` cannot delegate as a whole; give it an ExternalAuth rule")
        }
        (Dialect::V1Alpha1, _, Some(rule), _) => {
            refuse(&rule.name, "a policy with `action` has no ExternalAuth rules; use `action: ExternalAuth`")
        }
        (_, _, _, Some(second)) => refuse(
            &second.name,
            "a maximum of one rule per policy can specify 'ExternalAuth' authorization type; move it to another policy",
        ),
        _ => Ok(()),
    }
}

fn source(rule: &RuleModel, trust_domain: &TrustDomain) -> Source {
    match &rule.source {
        SourceModel::Anyone => Source::Anyone,
        SourceModel::Spiffe(id) => Source::Identity(id.as_str().into()),
        SourceModel::ServiceAccount(account) => Source::Identity(
            format!("{}/ns/{}/sa/{}", trust_domain.uri(), account.namespace, account.name).into(),
        ),
    }
}

/// A condition before its authorizer has an id.
enum Compiled {
    Local(Condition),
    Delegated(ExternalAuth),
}

fn conditions(rule: &RuleModel) -> Result<Compiled, Fault> {
    Ok(Compiled::Local(match &rule.condition {
        Model::Anything => Condition::Anything,
        Model::NotToolCall => Condition::NotToolCall,
        Model::Tools(tools) => {
            let mut sorted: Vec<Box<str>> = tools.iter().map(|tool| tool.as_str().into()).collect();
            sorted.sort_unstable();
            Condition::Tools(sorted.into())
        }
        Model::ExternalAuth(to) => return Ok(Compiled::Delegated(to.clone())),
        Model::Inline(inline) => Condition::Inline(Box::new(compile_inline(rule, inline)?)),
        Model::Cel { expression, inline } => {
            let mut compiled = match inline {
                Some(inline) => compile_inline(rule, inline)?,
                None => Inline::default(),
            };
            let expression = Expression::compile(expression)
                .map_err(|error| Fault::InvalidCel { rule: rule.name.clone(), message: error.to_string() })?;
            compiled.cel = Some(expression);
            Condition::Inline(Box::new(compiled))
        }
    }))
}

fn compile_inline(rule: &RuleModel, inline: &InlineModel) -> Result<Inline, Fault> {
    let unsupported = |message| Fault::UnsupportedValue { rule: rule.name.clone(), message };
    let http = HttpMatch::new(inline).map_err(unsupported)?;
    Ok(Inline { http, mcp: inline.mcp.as_ref().map(McpMatcher::new), cel: None })
}

/// Things a policy author should know.
pub(super) fn warnings(policy: &Policy, trust_domain: &TrustDomain) -> Vec<String> {
    let mut warnings = Vec::new();
    if matches!(policy.action, Action::ExternalAuth(_)) && !policy.rules.is_empty() {
        warnings.push(
            "requests that no rule matches pass without the authorizer being asked; leave out `rules` to have it \
             asked about everything"
                .to_owned(),
        );
    }
    for rule in &policy.rules {
        let mut warn = |why: String| warnings.push(format!("rule `{}` can match nothing: {why}", rule.name));
        match &rule.source {
            SourceModel::Anyone => {}
            SourceModel::Spiffe(id) => {
                if let Err(error) = id.parse::<SpiffeId>() {
                    warn(format!("`{id}` is not a SPIFFE ID that a certificate can carry: {error}"));
                }
            }
            SourceModel::ServiceAccount(account) => {
                let id = SpiffeId::for_service_account(trust_domain, &account.namespace, &account.name);
                if let Err(error) = id {
                    warn(format!("`{account}` is not a ServiceAccount that a certificate can name: {error}"));
                }
            }
        }
        let (inline, is_cel) = match &rule.condition {
            Model::Inline(inline) => (Some(inline), false),
            Model::Cel { inline, .. } => (inline.as_ref(), true),
            Model::Tools(tools) if tools.is_empty() => {
                warn("its list of tools is empty".to_owned());
                continue;
            }
            _ => continue,
        };
        let Some(inline) = inline else { continue };
        if inline.mcp.as_ref().is_some_and(|mcp| McpMatcher::new(mcp).matches_nothing()) {
            warn("`mcp.methods` is empty, and SKIP_BASE_PROTOCOL_METHODS leaves no other message".to_owned());
        }
        if let Ok(Some(http)) = HttpMatch::new(inline) {
            if let Some(list) = http.empty_list() {
                warn(format!("`{list}` is empty; leave it out to match any"));
            } else if is_cel && !http.could_be_a_call() {
                warn("CEL is about tools/call, which is a POST; add POST to `methods`".to_owned());
            }
        }
    }
    warnings
}
