//! The policies of a level as they were written, for those who enforce them by other means than the engine.
use policy_model::{Policy, PolicyKey};

use crate::{
    CelTest, Engine, Levels,
    level::{Applied, State},
    rule::{Condition, Source},
};

/// A policy on one level.
#[derive(Debug, Clone, Copy)]
pub struct WrittenPolicy<'e>(&'e Applied);

/// What a policy does on one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate<'e> {
    /// Its rules hold.
    Enforced,
    /// Its rules match nothing but count as Allow rules; what it would have delegated is denied.
    OverLimit,
    /// It closes the target; why.
    Closed(&'e str),
}

impl Engine {
    /// The policies of the Gateway's level and of the backend's, each in policy order.
    pub fn written(&self, levels: Levels) -> [Vec<WrittenPolicy<'_>>; 2] {
        [levels.gateway, levels.backend].map(|index| {
            let level = self.level(index);
            level.into_iter().flat_map(|level| level.policies.iter().map(WrittenPolicy)).collect()
        })
    }
}

impl<'e> WrittenPolicy<'e> {
    /// Which.
    pub fn key(self) -> &'e PolicyKey {
        &self.0.policy.key
    }

    /// As it was given; `None`: it could not be read, and closes the target.
    pub fn policy(self) -> Option<&'e Policy> {
        self.0.policy.written.as_ref()
    }

    /// Whether it applies to requests of that listener.
    pub fn applies_to(self, listener: &str) -> bool {
        self.0.applies_to(listener)
    }

    /// What it does here.
    pub fn fate(self) -> Fate<'e> {
        match &self.0.state {
            State::Enforced => Fate::Enforced,
            State::OverLimit => Fate::OverLimit,
            State::Closed(why) => Fate::Closed(why),
        }
    }

    /// Whether its rules are Allow rules of the level.
    pub fn allows(self) -> bool {
        self.0.policy.allows()
    }

    /// Whether its decisions, or its authorizer's, may depend on the body.
    pub fn needs_body(self) -> bool {
        self.0.policy.needs_body
    }

    /// The SPIFFE ID that the rule of this index is about; `None`: anyone.
    pub fn identity(self, rule: usize) -> Option<&'e str> {
        match &self.0.policy.rules.get(rule)?.source {
            Source::Anyone => None,
            Source::Identity(id) => Some(id),
        }
    }

    /// The CEL of the rule of this index as plain tests; `None`: it has none.
    ///
    /// # Errors
    /// What of it is no plain test.
    pub fn cel(self, rule: usize) -> Option<Result<CelTest, &'static str>> {
        match &self.0.policy.rules.get(rule)?.condition {
            Condition::Inline(inline) => inline.cel.as_ref().map(crate::cel::Expression::plain),
            _ => None,
        }
    }
}
