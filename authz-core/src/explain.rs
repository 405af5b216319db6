//! Why a request was decided as it was.
use policy_model::PolicyKey;

use crate::{Effect, Reason};

/// The whole evaluation, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// Equals the decision's.
    pub effect: Effect,
    /// The Gateway's policies.
    pub gateway: LevelExplanation,
    /// The XBackend's policies.
    pub backend: LevelExplanation,
}

/// One level.
#[derive(Debug, Clone, PartialEq)]
pub struct LevelExplanation {
    /// What the level says.
    pub effect: Effect,
    /// Why.
    pub reason: Reason,
    /// The determining policy and rule.
    pub determining: Option<(PolicyKey, Option<String>)>,
    /// Every policy that applies, in policy order.
    pub policies: Vec<PolicyExplanation>,
}

/// One policy.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyExplanation {
    /// The policy.
    pub policy: PolicyKey,
    /// `enforced`, `over limit`, `fails closed: …`, `other listener`.
    pub state: String,
    /// Every rule, in order.
    pub rules: Vec<RuleExplanation>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleExplanation {
    /// Its name.
    pub rule: String,
    /// What came of it.
    pub outcome: RuleOutcome,
}

/// What came of a rule.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum RuleOutcome {
    /// It matches.
    Matches,
    /// It does not: which part did not (for people).
    Differs(String),
    /// A condition could not be evaluated: the error; counts as false in an Allow rule, as matching in an ExternalAuth policy.
    Error {
        /// The error.
        error: String,
        /// Whether it counts as matching.
        counts_as_matching: bool,
    },
    /// Not looked at.
    NotEvaluated,
}
