//! From policies to an engine, and what became of each policy.
mod policy;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
};

use policy_model::{NamespacedName, Policy, PolicyKey, Target, TargetKind};
use spiffe_id::TrustDomain;

use self::policy::{Authorizers, compile_policy};
use crate::{
    DefaultAction, Engine,
    level::{Applied, CompiledPolicy, Level, State},
};

/// Policies that one target may have (semantics, section 4).
const MAX_POLICIES: usize = 5;

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
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all entries are policies: a box would be one more for each"
)]
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

impl Fault {
    /// What is wrong and what to do.
    pub fn message(&self) -> &str {
        match self {
            Self::InvalidCel { message, .. }
            | Self::UnsupportedValue { message, .. }
            | Self::BackendNotFound { message }
            | Self::RefNotPermitted { message } => message,
        }
    }
}
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidCel { rule, message } => {
                write!(f, "rule `{rule}`: the CEL expression does not compile: {message}")
            }
            Self::UnsupportedValue { rule, message } => write!(f, "rule `{rule}`: {message}"),
            Self::BackendNotFound { message } | Self::RefNotPermitted { message } => f.write_str(message),
        }
    }
}

/// A policy on its way into levels.
struct Entry {
    key: PolicyKey,
    compiled: Arc<CompiledPolicy>,
    /// Why it closes its targets, if it does.
    broken: Option<Broken>,
    /// Sorted, each once.
    targets: Vec<Target>,
    closes_namespace: bool,
    is_readable: bool,
    is_external: bool,
    warnings: Vec<String>,
}

enum Broken {
    Fault(Fault),
    Unreadable(String),
}

impl Entry {
    fn new(entry: PolicyEntry, trust_domain: &TrustDomain, authorizers: &mut Authorizers) -> Self {
        match entry {
            PolicyEntry::Policy { policy, fault, mut targets } => {
                targets.sort_unstable();
                targets.dedup();
                let (is_external, warnings) =
                    (policy::is_external(&policy), policy::warnings(&policy, trust_domain));
                let key = policy.key.clone();
                let (compiled, found) = compile_policy(policy, fault.is_some(), trust_domain, authorizers);
                Self {
                    is_external,
                    warnings,
                    key,
                    compiled: Arc::new(compiled),
                    broken: found.or(fault).map(Broken::Fault),
                    targets,
                    closes_namespace: false,
                    is_readable: true,
                }
            }
            PolicyEntry::Unreadable { key, mut targets, message } => {
                targets.sort_unstable();
                targets.dedup();
                Self::unreadable(key, targets, false, message)
            }
            PolicyEntry::UnreadableNamespace { key, message } => {
                Self::unreadable(key, Vec::new(), true, message)
            }
        }
    }

    fn unreadable(key: PolicyKey, targets: Vec<Target>, closes_namespace: bool, message: String) -> Self {
        Self {
            compiled: Arc::new(CompiledPolicy::unreadable(key.clone())),
            key,
            broken: Some(Broken::Unreadable(message)),
            targets,
            closes_namespace,
            is_readable: false,
            is_external: false,
            warnings: Vec::new(),
        }
    }

    fn applied(&self, listeners: Option<Box<[Box<str>]>>, is_over: bool) -> Applied {
        let state = match &self.broken {
            Some(Broken::Fault(fault)) => State::Closed(fault.to_string().into()),
            Some(Broken::Unreadable(message)) => {
                State::Closed(format!("the policy cannot be read: {message}").into())
            }
            None if is_over => State::OverLimit,
            None => State::Enforced,
        };
        Applied { policy: Arc::clone(&self.compiled), listeners, state }
    }

    fn acceptance(&self, over_limit: Option<&String>) -> Acceptance {
        match (&self.broken, over_limit) {
            (Some(Broken::Fault(fault)), _) => Acceptance::FailsClosed(fault.clone()),
            (Some(Broken::Unreadable(message)), _) => Acceptance::Unreadable { message: message.clone() },
            (None, Some(message)) => Acceptance::LimitPerTargetExceeded { message: message.clone() },
            (None, None) => Acceptance::Accepted,
        }
    }
}

/// An object that policies target.
type Object = (TargetKind, NamespacedName);

/// A policy among those of one object.
struct OnObject {
    /// Its place in policy order.
    entry: usize,
    /// `None`: all of it.
    sections: Option<Vec<Box<str>>>,
    /// Why it is over a limit there.
    over_limit: Option<String>,
}

/// Compiles policies. Never fails: what cannot be enforced as written closes its target and says so in its status.
///
/// The result does not depend on the order of `input.policies`. A policy of
/// [`PolicyEntry::UnreadableNamespace`] has no target and so no status.
pub fn compile(input: Input) -> Compiled {
    let Input { mut policies, trust_domain, default_action } = input;
    policies.sort_by_cached_key(|entry| {
        let (created, key) = match entry {
            PolicyEntry::Policy { policy, .. } => (policy.created, &policy.key),
            PolicyEntry::Unreadable { key, .. } | PolicyEntry::UnreadableNamespace { key, .. } => (None, key),
        };
        (created.is_none(), created, key.clone())
    });
    let mut authorizers = Authorizers::default();
    let entries: Vec<Entry> =
        policies.into_iter().map(|entry| Entry::new(entry, &trust_domain, &mut authorizers)).collect();

    let mut objects: BTreeMap<Object, Vec<OnObject>> = BTreeMap::new();
    let mut closed: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, entry) in entries.iter().enumerate() {
        for target in &entry.targets {
            attach(objects.entry((target.kind, target.object.clone())).or_default(), index, target);
        }
        if entry.closes_namespace {
            closed.entry(&entry.key.namespace).or_default().push(index);
        }
    }
    for policies in objects.values_mut() {
        mark_over_limit(policies, &entries);
    }

    let mut engine = Engine {
        default_action,
        levels: Vec::new(),
        gateways: HashMap::default(),
        backends: HashMap::default(),
        closed_namespaces: HashMap::default(),
        authorizers: authorizers.into_list(),
    };
    let closing = |namespace: &str| {
        let closing = closed.get(namespace).into_iter().flatten();
        closing.filter_map(|index| Some((*index, entries.get(*index)?.applied(None, false))))
    };
    for ((kind, object), policies) in &objects {
        let on_object = policies.iter().filter_map(|on| {
            let listeners = on.sections.clone().map(Vec::into_boxed_slice);
            Some((on.entry, entries.get(on.entry)?.applied(listeners, on.over_limit.is_some())))
        });
        let level = engine.add_level(on_object.chain(closing(&object.namespace)).collect());
        match kind {
            TargetKind::Gateway => engine.gateways.insert(object.clone(), level),
            TargetKind::XBackend => engine.backends.insert(object.clone(), level),
        };
    }
    for namespace in closed.keys() {
        let level = engine.add_level(closing(namespace).collect());
        engine.closed_namespaces.insert((*namespace).to_owned(), level);
    }
    Compiled { engine, statuses: statuses(&entries, &objects) }
}

impl Engine {
    fn add_level(&mut self, mut policies: Vec<(usize, Applied)>) -> u32 {
        policies.sort_by_key(|(entry, _)| *entry);
        // More levels than u32 counts do not fit in memory.
        let index = u32::try_from(self.levels.len()).unwrap_or(u32::MAX);
        self.levels.push(Level { policies: policies.into_iter().map(|(_, applied)| applied).collect() });
        index
    }
}

/// Adds one target of a policy; several sections of one object are one attachment.
fn attach(policies: &mut Vec<OnObject>, entry: usize, target: &Target) {
    // Listeners are a Gateway's; on an XBackend a section is no reason to apply to less.
    let section = target.section_name.as_deref().filter(|_| target.kind == TargetKind::Gateway);
    let sections = section.map(|section| vec![section.into()]);
    match policies.last_mut().filter(|last| last.entry == entry) {
        Some(last) => {
            last.sections = last.sections.take().zip(sections).map(|(mut all, more)| {
                all.extend(more);
                all
            });
        }
        None => policies.push(OnObject { entry, sections, over_limit: None }),
    }
}

/// The oldest win: five policies, one with ExternalAuth. Only policies within both limits count.
fn mark_over_limit(policies: &mut [OnObject], entries: &[Entry]) {
    let mut within: Vec<&Entry> = Vec::new();
    for on in policies {
        let Some(entry) = entries.get(on.entry).filter(|entry| entry.is_readable) else { continue };
        let external = within.iter().find(|older| older.is_external).filter(|_| entry.is_external);
        on.over_limit = if let Some(older) = external {
            Some(format!(
                "the older policy `{}` already uses ExternalAuth on this target, and one policy may; until it goes, \
                 what this policy would delegate is denied: put both into one policy, or target something else",
                older.key
            ))
        } else if within.len() >= MAX_POLICIES {
            let names: Vec<String> = within.iter().map(|older| format!("`{}`", older.key)).collect();
            Some(format!(
                "the target has {MAX_POLICIES} older policies ({}), which is the limit; this policy's rules match \
                 nothing until one goes: merge policies",
                names.join(", ")
            ))
        } else {
            within.push(entry);
            None
        };
    }
}

fn statuses(entries: &[Entry], objects: &BTreeMap<Object, Vec<OnObject>>) -> Vec<PolicyStatus> {
    let status = |index: usize, entry: &Entry, target: &Target| {
        let policies = objects.get(&(target.kind, target.object.clone()));
        let on = policies.into_iter().flatten().find(|on| on.entry == index);
        PolicyStatus {
            key: entry.key.clone(),
            target: target.clone(),
            acceptance: entry.acceptance(on.and_then(|on| on.over_limit.as_ref())),
            warnings: entry.warnings.clone(),
        }
    };
    let of_entry = |(index, entry): (usize, &Entry)| {
        entry.targets.iter().map(|target| status(index, entry, target)).collect::<Vec<_>>()
    };
    entries.iter().enumerate().flat_map(of_entry).collect()
}
