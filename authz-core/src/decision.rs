//! Decisions: never a bool.
use policy_model::PolicyKey;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Forward it.
    Allow,
    /// Refuse it.
    Deny,
    /// Forward it if every authorizer named allows it.
    Delegate,
}

/// Index of an authorizer in [`Engine::authorizer`](crate::Engine::authorizer).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AuthorizerId(pub u32);

/// The policy and rule that determined a level's decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Determining<'e> {
    /// The policy.
    pub policy: &'e PolicyKey,
    /// The rule; `None` where the policy as a whole decided (it has no rules, or it fails closed).
    pub rule: Option<&'e str>,
}

/// Why a level decided as it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// No policy targets the level.
    NoPolicy,
    /// A rule allows it.
    Allowed,
    /// Base protocol, which v0alpha0 lets through.
    BaseProtocol,
    /// A rule or policy delegates it.
    Delegated,
    /// The level has no Allow rules, and none of its ExternalAuth policies matches: it lets the request pass.
    NotDelegated,
    /// The level has Allow rules and none matches.
    NoRuleMatches,
    /// A policy that cannot be enforced as written closes the level.
    FailsClosed,
    /// It would have been delegated by a policy over the per-target limit.
    OverLimit,
    /// `--default-action deny`.
    DefaultDeny,
}

/// One level's part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LevelDecision<'e> {
    /// What the level says.
    pub effect: Effect,
    /// Why.
    pub reason: Reason,
    /// By which policy and rule.
    pub determining: Option<Determining<'e>>,
    /// Whom to ask (when `effect` is `Delegate`).
    pub authorizer: Option<AuthorizerId>,
}

/// The decision on one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision<'e> {
    /// Both levels together.
    pub effect: Effect,
    /// The Gateway's policies.
    pub gateway: LevelDecision<'e>,
    /// The XBackend's policies; a Service has none.
    pub backend: LevelDecision<'e>,
}

impl<'e> Decision<'e> {
    /// The authorizers to ask, the Gateway's first; empty unless `Delegate`.
    pub fn authorizers(&self) -> impl Iterator<Item = AuthorizerId> + use<> {
        let ask = self.effect == Effect::Delegate;
        [self.gateway.authorizer, self.backend.authorizer].into_iter().flatten().filter(move |_| ask)
    }

    /// The level that decided: the one that denies, else the one that delegates, else the backend's if it has a policy, else the Gateway's.
    pub fn determining_level(&self) -> &LevelDecision<'e> {
        let levels = [&self.gateway, &self.backend];
        let first = |effect| levels.into_iter().find(|level| level.effect == effect);
        first(Effect::Deny).or_else(|| first(Effect::Delegate)).unwrap_or({
            if self.backend.reason == Reason::NoPolicy { &self.gateway } else { &self.backend }
        })
    }
}
