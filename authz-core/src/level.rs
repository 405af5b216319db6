//! One level: the policies of one Gateway or XBackend, in policy order, and its decision.
use std::sync::Arc;

use policy_model::{Dialect, Policy, PolicyKey};
use spiffe_id::SpiffeId;

use crate::{
    AuthorizerId, BackendKind, Determining, Effect, LevelDecision, Reason,
    act::{Act, Case},
    rule::{Condition, Match, Rule},
};

/// The policies that target one object.
#[derive(Debug)]
pub(crate) struct Level {
    pub(crate) policies: Box<[Applied]>,
}

/// A policy on one target.
#[derive(Debug)]
pub(crate) struct Applied {
    pub(crate) policy: Arc<CompiledPolicy>,
    /// The listeners it is limited to; `None`: all.
    pub(crate) listeners: Option<Box<[Box<str>]>>,
    pub(crate) state: State,
}

/// What a policy does on one target.
#[derive(Debug, Clone)]
pub(crate) enum State {
    Enforced,
    OverLimit,
    /// It cannot be enforced as written, and why.
    Closed(Arc<str>),
}

/// A policy; shared by its targets.
#[derive(Debug)]
pub(crate) struct CompiledPolicy {
    pub(crate) key: PolicyKey,
    pub(crate) dialect: Dialect,
    /// v1alpha1 `action: ExternalAuth`.
    pub(crate) delegates_to: Option<AuthorizerId>,
    pub(crate) rules: Box<[Rule]>,
    /// Whether its decisions, or its authorizer's, may depend on the body.
    pub(crate) needs_body: bool,
    /// As it was given; `None`: it could not be read.
    pub(crate) written: Option<Policy>,
}

impl CompiledPolicy {
    /// Whether its rules are Allow rules.
    pub(crate) fn allows(&self) -> bool {
        self.delegates_to.is_none()
    }

    /// v1alpha1 `action: Allow` without rules: one rule that matches everything.
    pub(crate) fn allows_everything(&self) -> bool {
        self.dialect == Dialect::V1Alpha1 && self.allows() && self.rules.is_empty()
    }

    /// Whether it lets base protocol messages through by itself.
    pub(crate) fn admits_base_protocol(&self) -> bool {
        self.dialect == Dialect::V0Alpha0
    }

    /// The rule by which it delegates (`None`: it has none, and delegates everything) and to whom.
    fn delegation<'e>(&'e self, case: &Case<'_>, acts: usize) -> Option<(Option<&'e Rule>, AuthorizerId)> {
        let each = (0..acts).map(|index| case.act(index));
        if let Some(authorizer) = self.delegates_to {
            if self.rules.is_empty() {
                return Some((None, authorizer));
            }
            let rule =
                self.rules.iter().find(|rule| each.clone().any(|act| rule.matches(case, act).may_be()));
            return rule.map(|rule| (Some(rule), authorizer));
        }
        self.rules.iter().find_map(|rule| match rule.condition {
            Condition::Delegated(authorizer) if each.clone().any(|act| rule.matches(case, act).is_yes()) => {
                Some((Some(rule), authorizer))
            }
            _ => None,
        })
    }

    fn determining<'e>(&'e self, rule: Option<&'e Rule>) -> Option<Determining<'e>> {
        Some(Determining { policy: &self.key, rule: rule.map(|rule| &*rule.name) })
    }
}

impl Applied {
    pub(crate) fn applies_to(&self, listener: &str) -> bool {
        self.listeners.as_deref().is_none_or(|names| names.iter().any(|name| **name == *listener))
    }

    pub(crate) fn is_enforced(&self) -> bool {
        matches!(self.state, State::Enforced)
    }
}

/// A level's decision before `--default-action`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome<'e> {
    pub(crate) decision: LevelDecision<'e>,
    pub(crate) has_allow_rules: bool,
}

pub(crate) const NO_POLICY: Outcome<'static> = Outcome {
    decision: LevelDecision {
        effect: Effect::Allow,
        reason: Reason::NoPolicy,
        determining: None,
        authorizer: None,
    },
    has_allow_rules: false,
};

impl Level {
    pub(crate) fn applicable(&self, listener: &str) -> impl Iterator<Item = &Applied> + Clone {
        self.policies.iter().filter(move |applied| applied.applies_to(listener))
    }

    fn enforced(&self, listener: &str) -> impl Iterator<Item = &CompiledPolicy> + Clone {
        self.applicable(listener).filter(|applied| applied.is_enforced()).map(|applied| &*applied.policy)
    }

    /// The level's part of a decision.
    pub(crate) fn decide(&self, case: &Case<'_>) -> Outcome<'_> {
        let listener = case.request.listener;
        if self.applicable(listener).next().is_none() {
            return NO_POLICY;
        }
        let has_allow_rules = self.applicable(listener).any(|applied| applied.policy.allows());
        let outcome = |effect, reason, determining, authorizer| Outcome {
            decision: LevelDecision { effect, reason, determining, authorizer },
            has_allow_rules,
        };
        let deny = |reason, determining| outcome(Effect::Deny, reason, determining, None);

        // 1. A policy that cannot be enforced as written.
        for applied in self.applicable(listener) {
            if let State::Closed(_) = applied.state {
                return deny(Reason::FailsClosed, applied.policy.determining(None));
            }
        }
        let Some(acts) = case.acts() else { return deny(Reason::NoRuleMatches, None) };
        for applied in self.applicable(listener) {
            if let State::OverLimit = applied.state
                && let Some((rule, _)) = applied.policy.delegation(case, acts)
            {
                return deny(Reason::OverLimit, applied.policy.determining(rule));
            }
        }
        // 2. Allow.
        let mut allowed = (Reason::NotDelegated, None);
        if has_allow_rules {
            // The last act first, so that the first one's rule is reported.
            for index in (0..acts).rev() {
                match self.first_match(case, case.act(index)) {
                    Some((reason, policy, rule)) => allowed = (reason, policy.determining(rule)),
                    None => return deny(Reason::NoRuleMatches, None),
                }
            }
        }
        // 3. ExternalAuth.
        for policy in self.enforced(listener) {
            if let Some((rule, authorizer)) = policy.delegation(case, acts) {
                return outcome(
                    Effect::Delegate,
                    Reason::Delegated,
                    policy.determining(rule),
                    Some(authorizer),
                );
            }
        }
        let (reason, determining) = allowed;
        outcome(Effect::Allow, reason, determining, None)
    }

    /// The first Allow rule that matches, in policy order, then rule order.
    fn first_match(&self, case: &Case<'_>, act: Act<'_>) -> Option<(Reason, &CompiledPolicy, Option<&Rule>)> {
        let listener = case.request.listener;
        self.enforced(listener).filter(|policy| policy.allows()).find_map(|policy| {
            if policy.admits_base_protocol() && self.is_base_protocol(case, act) {
                return Some((Reason::BaseProtocol, policy, None));
            }
            if policy.allows_everything() {
                return Some((Reason::Allowed, policy, None));
            }
            let rule = policy.rules.iter().find(|rule| rule.matches(case, act).is_yes())?;
            Some((Reason::Allowed, policy, Some(rule)))
        })
    }

    /// v0alpha0: a base protocol message that matches without a rule.
    pub(crate) fn is_base_protocol(&self, case: &Case<'_>, act: Act<'_>) -> bool {
        let Act::Message(mcp) = act else { return false };
        let from_anyone = case.request.backend == BackendKind::XBackendMcp && !mcp.is_task;
        mcp.is_base && (from_anyone || self.names(case.request.identity, case.request.listener))
    }

    /// Whether some Allow rule of the level names this identity.
    fn names(&self, identity: Option<&SpiffeId>, listener: &str) -> bool {
        let mut rules =
            self.enforced(listener).filter(|policy| policy.allows()).flat_map(|policy| policy.rules.iter());
        rules.any(|rule| rule.source.names(identity))
    }

    /// Whether a call of this tool could pass.
    pub(crate) fn could_call(&self, identity: Option<&SpiffeId>, listener: &str, tool: &str) -> PossibleCall {
        let mut possible = PossibleCall::default();
        let mut some_rule_could = false;
        for applied in self.applicable(listener) {
            let policy = &applied.policy;
            let matches = || policy.rules.iter().map(|rule| (rule, rule.matches_tool(identity, tool)));
            possible.has_allow_rules |= policy.allows();
            match applied.state {
                State::Closed(_) => return PossibleCall { denied: true, ..possible },
                State::OverLimit => {
                    let delegated = if policy.allows() {
                        matches().any(|(rule, m)| rule.is_delegating() && m.is_yes())
                    } else {
                        policy.rules.is_empty() || matches().any(|(_, m)| is_sure(&m))
                    };
                    if delegated {
                        return PossibleCall { denied: true, ..possible };
                    }
                }
                State::Enforced if policy.allows() => {
                    some_rule_could |=
                        policy.allows_everything() || matches().any(|(_, m)| could_be_true(&m));
                    possible.may_be_delegated |=
                        matches().any(|(rule, m)| rule.is_delegating() && m.is_yes());
                }
                State::Enforced => {
                    possible.may_be_delegated |=
                        policy.rules.is_empty() || matches().any(|(_, m)| m.may_be());
                }
            }
        }
        possible.denied = possible.has_allow_rules && !some_rule_could;
        possible
    }
}

/// What is known of a call before it is made.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PossibleCall {
    pub(crate) denied: bool,
    pub(crate) has_allow_rules: bool,
    pub(crate) may_be_delegated: bool,
}

/// An Allow rule that matches, or may with the rest of the request.
fn could_be_true(m: &Match<'_>) -> bool {
    use crate::{cel::EvalError, rule::Why};
    match m {
        Match::Yes | Match::Unknown(Why::RestOfRequest | Why::Cel(EvalError::TooManySteps)) => true,
        Match::No(_) | Match::Unknown(_) => false,
    }
}

/// An ExternalAuth rule that matches whatever the rest of the request is.
fn is_sure(m: &Match<'_>) -> bool {
    use crate::rule::Why;
    match m {
        Match::Yes => true,
        Match::Unknown(why) => !matches!(why, Why::RestOfRequest),
        Match::No(_) => false,
    }
}

impl Rule {
    pub(crate) fn is_delegating(&self) -> bool {
        matches!(self.condition, Condition::Delegated(_))
    }
}
