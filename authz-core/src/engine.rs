//! The compiled policies.
use std::collections::HashMap;

use policy_model::{ExternalAuth, NamespacedName, TargetKind};
use spiffe_id::SpiffeId;

use crate::{
    AuthorizerId, Decision, Effect, Explanation, LevelDecision, Reason, Request,
    act::Case,
    explain::explain_level,
    level::{Level, NO_POLICY, Outcome},
};

/// What happens where no level has an Allow rule and nothing is delegated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DefaultAction {
    /// Allowed (the seed's behaviour).
    #[default]
    Allow,
    /// Denied (`--default-action deny`).
    Deny,
}

/// Which two levels apply to a request. Made once per route and backend, not per request.
///
/// Only for the engine that made it: with another engine it names other policies, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Levels {
    pub(crate) gateway: Option<u32>,
    pub(crate) backend: Option<u32>,
}

/// Compiled policies: shared, immutable.
#[derive(Debug)]
pub struct Engine {
    pub(crate) default_action: DefaultAction,
    pub(crate) levels: Vec<Level>,
    pub(crate) gateways: HashMap<NamespacedName, u32, foldhash::fast::RandomState>,
    pub(crate) backends: HashMap<NamespacedName, u32, foldhash::fast::RandomState>,
    /// Namespaces that a policy closes whose targets could not be read: the level of what no other policy targets.
    pub(crate) closed_namespaces: HashMap<String, u32, foldhash::fast::RandomState>,
    pub(crate) authorizers: Vec<ExternalAuth>,
}

impl Engine {
    /// The levels for a Gateway, and the XBackend that a route chose (`None`: a Service).
    pub fn levels(&self, gateway: &NamespacedName, backend: Option<&NamespacedName>) -> Levels {
        Levels {
            gateway: self.level_of(TargetKind::Gateway, gateway),
            backend: backend.and_then(|backend| self.level_of(TargetKind::XBackend, backend)),
        }
    }

    fn level_of(&self, kind: TargetKind, object: &NamespacedName) -> Option<u32> {
        let targeted = match kind {
            TargetKind::Gateway => &self.gateways,
            TargetKind::XBackend => &self.backends,
        };
        targeted.get(object).or_else(|| self.closed_namespaces.get(&object.namespace)).copied()
    }

    pub(crate) fn level(&self, index: Option<u32>) -> Option<&Level> {
        self.levels.get(usize::try_from(index?).ok()?)
    }

    /// Decides on one message. Does not allocate unless CEL over arguments is involved (or an expression that
    /// itself builds a string, list or map).
    pub fn decide(&self, levels: Levels, request: &Request<'_>) -> Decision<'_> {
        let case = Case::new(request);
        let outcome = |index| self.level(index).map_or(NO_POLICY, |level| level.decide(&case));
        let (gateway, backend) = (outcome(levels.gateway), outcome(levels.backend));
        let (gateway, backend) = self.with_default(gateway, backend);
        Decision { effect: both(gateway.effect, backend.effect), gateway, backend }
    }

    /// `--default-action deny`: what no level has an Allow rule for and nobody is asked about.
    fn with_default<'e>(
        &self,
        gateway: Outcome<'e>,
        backend: Outcome<'e>,
    ) -> (LevelDecision<'e>, LevelDecision<'e>) {
        let unguarded =
            |outcome: &Outcome<'_>| !outcome.has_allow_rules && outcome.decision.effect == Effect::Allow;
        let (mut first, mut second) = (gateway.decision, backend.decision);
        if self.default_action == DefaultAction::Deny && unguarded(&gateway) && unguarded(&backend) {
            for decision in [&mut first, &mut second] {
                decision.effect = Effect::Deny;
                decision.reason = Reason::DefaultDeny;
            }
        }
        (first, second)
    }

    /// The whole evaluation in order; its decision equals [`decide`](Self::decide).
    pub fn explain(&self, levels: Levels, request: &Request<'_>) -> Explanation {
        let case = Case::new(request);
        let mut gateway = explain_level(self.level(levels.gateway), &case);
        let mut backend = explain_level(self.level(levels.backend), &case);
        if self.default_action == DefaultAction::Deny
            && [&gateway, &backend]
                .iter()
                .all(|level| level.effect == Effect::Allow && !level.has_allow_rules)
        {
            for level in [&mut gateway, &mut backend] {
                level.effect = Effect::Deny;
                level.reason = Reason::DefaultDeny;
            }
        }
        Explanation { effect: both(gateway.effect, backend.effect), gateway, backend }
    }

    /// Whether a body must be parsed for these levels: on a Service, when an applicable policy (this
    /// listener's) looks at MCP attributes.
    pub fn needs_body(&self, levels: Levels, listener: &str) -> bool {
        [levels.gateway, levels.backend]
            .into_iter()
            .filter_map(|index| self.level(index))
            .flat_map(|level| level.applicable(listener))
            .any(|applied| applied.policy.needs_body)
    }

    /// Whether some rule could let this identity call this tool, whatever the rest of the request
    /// (`--filter-lists`): what cannot be decided without the call counts as could.
    pub fn could_call(
        &self,
        levels: Levels,
        identity: Option<&SpiffeId>,
        listener: &str,
        tool: &str,
    ) -> bool {
        let possible = [levels.gateway, levels.backend].map(|index| {
            self.level(index).map(|level| level.could_call(identity, listener, tool)).unwrap_or_default()
        });
        let denied = possible.iter().any(|level| level.denied);
        let unguarded = possible.iter().all(|level| !level.has_allow_rules && !level.may_be_delegated);
        !(denied || unguarded && self.default_action == DefaultAction::Deny)
    }

    /// The authorizer of that id.
    pub fn authorizer(&self, id: AuthorizerId) -> Option<&ExternalAuth> {
        self.authorizers.get(usize::try_from(id.0).ok()?)
    }

    /// All authorizers, in the order of their ids.
    pub fn authorizers(&self) -> &[ExternalAuth] {
        &self.authorizers
    }
}

/// Both levels must allow; what one denies nobody is asked about.
fn both(gateway: Effect, backend: Effect) -> Effect {
    let either = |effect| gateway == effect || backend == effect;
    if either(Effect::Deny) {
        Effect::Deny
    } else if either(Effect::Delegate) {
        Effect::Delegate
    } else {
        Effect::Allow
    }
}
