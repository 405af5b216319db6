//! From policies to an engine, and what became of each policy.
use policy_model::{NamespacedName, Policy, PolicyKey, Target};
use spiffe_id::TrustDomain;

use crate::{DefaultAction, Engine};

/// What is compiled.
#[derive(Debug, Clone, Default)]
pub struct Input {
    /// In any order.
    pub policies: Vec<PolicyEntry>,
    /// For ServiceAccount sources.
    pub trust_domain: TrustDomain,
    /// Where no level has an Allow rule.
    pub default_action: DefaultAction,
}

/// A policy, or what is known of one that cannot be read.
#[derive(Debug, Clone)]
pub enum PolicyEntry {
    /// A policy that could be read.
    Policy {
        /// The policy.
        policy: Policy,
        /// Why it cannot be enforced as written, beyond what compiling finds (an authorizer reference that does not resolve).
        fault: Option<Fault>,
        /// Targets that exist and are meant (`sectionName` names a listener); the others are `TargetNotFound` and left out.
        targets: Vec<Target>,
    },
    /// A policy that arrived but cannot be read.
    Unreadable {
        /// Its key.
        key: PolicyKey,
        /// The targets that can be read from it; they fail closed.
        targets: Vec<Target>,
        /// What is wrong.
        message: String,
    },
    /// As above where no target could be read: every target in its namespace fails closed.
    UnreadableNamespace {
        /// Its key.
        key: PolicyKey,
        /// What is wrong.
        message: String,
    },
}

/// Why a policy cannot be enforced as written. Its targets fail closed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// A CEL expression does not compile: which rule, and what to do. `Accepted=False/InvalidCEL`.
    InvalidCel {
        /// The rule.
        rule: String,
        /// For people.
        message: String,
    },
    /// A regular expression does not compile, or another value cannot be used. `Accepted=False/UnsupportedValue`.
    UnsupportedValue {
        /// The rule.
        rule: String,
        /// For people.
        message: String,
    },
    /// The authorizer reference does not resolve (`ResolvedRefs=False/BackendNotFound`).
    BackendNotFound {
        /// For people.
        message: String,
    },
    /// No ReferenceGrant permits it (`ResolvedRefs=False/RefNotPermitted`).
    RefNotPermitted {
        /// For people, with the grant to add.
        message: String,
    },
}

/// Whether a policy is accepted on one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acceptance {
    /// It is enforced.
    Accepted,
    /// Over the per-target limit: its rules match nothing, what it would have delegated is denied.
    LimitPerTargetExceeded {
        /// For people.
        message: String,
    },
    /// It closes the target.
    FailsClosed(Fault),
    /// It could not be read; it closes the target.
    Unreadable {
        /// For people.
        message: String,
    },
}

/// What became of a policy on one target (the object, whatever the `sectionName`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyStatus {
    /// The policy.
    pub key: PolicyKey,
    /// The target.
    pub target: Target,
    /// What became of it there.
    pub acceptance: Acceptance,
    /// Things a policy author should know (a rule that can match nothing, an ExternalAuth policy whose rules let others pass).
    pub warnings: Vec<String>,
}

/// An engine and the statuses that explain it.
#[derive(Debug)]
pub struct Compiled {
    /// Decides.
    pub engine: Engine,
    /// In policy order, then target order.
    pub statuses: Vec<PolicyStatus>,
}

/// Compiles policies. Never fails: what cannot be enforced as written closes its target and says so in its status.
pub fn compile(input: Input) -> Compiled {
    let _ = input;
    let _: Option<NamespacedName> = None;
    todo!()
}
