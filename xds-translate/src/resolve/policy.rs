//! Policies: which targets exist, whether their authorizers resolve, and what the engine's compiler made of them.
use std::collections::BTreeMap;

use authz_core::{Acceptance, Compiled, Fault, Input, PolicyEntry, PolicyStatus};
use policy_model::{
    Action, AgenticGroup, ExternalAuth, NamespacedName, Policy, PolicyKey, Target, TargetKind, read_policy,
};

use super::{
    Note,
    backend::{Backends, Unusable},
    gateway::GatewayState,
    grant::{From, Grants, To},
};
use crate::{
    AuthorizerBackend, BackendId, Condition, Destination, ObjectRef, ObjectStatus, Objects, Options, Scope,
    objects::GATEWAY_GROUP,
};

/// What policies may target and refer to.
pub(super) struct Surroundings<'a, 'b> {
    pub(super) objects: &'a Objects,
    pub(super) grants: &'b Grants<'a>,
    pub(super) backends: &'b Backends<'a>,
    pub(super) gateways: &'b BTreeMap<&'a NamespacedName, GatewayState<'a>>,
}

/// How a target stands.
enum Found {
    /// It exists.
    Yes,
    /// It belongs to somebody else: a Gateway of another class.
    Foreign,
    /// It does not; what to do.
    No(String),
}

impl Surroundings<'_, '_> {
    /// Compiles all policies; with a status for each target of each.
    pub(super) fn compile(
        &self,
        options: &Options,
        statuses: &mut Vec<ObjectStatus>,
        notes: &mut Vec<Note>,
    ) -> Compiled {
        let mut policies = Vec::new();
        for (key, entry) in &self.objects.policies {
            policies.push(match &entry.spec {
                Ok(policy) => {
                    let targets =
                        policy.targets.iter().filter(|target| matches!(self.find(target), Found::Yes));
                    PolicyEntry::Policy {
                        policy: policy.clone(),
                        fault: self.fault(policy),
                        targets: targets.cloned().collect(),
                    }
                }
                Err(unreadable) => {
                    let key = key.clone();
                    let message = unreadable.message.clone();
                    let targets = readable_targets(&unreadable.value);
                    if targets.is_empty() {
                        PolicyEntry::UnreadableNamespace { key, message }
                    } else {
                        PolicyEntry::Unreadable { key, targets, message }
                    }
                }
            });
        }
        let input = Input {
            policies,
            trust_domain: options.trust_domain.clone(),
            default_action: options.default_action,
        };
        let compiled = authz_core::compile(input);
        self.statuses(&compiled, statuses, notes);
        compiled
    }

    fn find(&self, target: &Target) -> Found {
        match target.kind {
            TargetKind::Gateway => {
                let name = &target.object;
                let section = target.section_name.as_deref();
                let Some(gateway) = self.gateways.get(name) else {
                    return match self.objects.gateways.get(name) {
                        None => Found::No(format!(
                            "Gateway `{name}` does not exist; create it or change targetRefs"
                        )),
                        // One that cannot be read may be ours.
                        Some(entry) if entry.spec.is_err() => Found::Yes,
                        Some(_) => Found::Foreign,
                    };
                };
                match section {
                    Some(section)
                        if !gateway.listeners.iter().any(|listener| listener.spec.name == section) =>
                    {
                        Found::No(format!(
                            "Gateway `{name}` has no listener named `{section}`; change sectionName or add the listener"
                        ))
                    }
                    _ => Found::Yes,
                }
            }
            // Sections are a Gateway's; on an XBackend one is no reason to apply to less.
            TargetKind::XBackend if self.backends.has_x_backend(&target.object) => Found::Yes,
            TargetKind::XBackend => Found::No(format!(
                "XBackend `{}` does not exist; create it or change targetRefs",
                target.object
            )),
        }
    }

    /// A target names an XBackend whatever the group: the ancestor is the one that exists, of the policy's own group first.
    fn scope(&self, key: &PolicyKey, target: &Target) -> Scope {
        let (group, kind) = match target.kind {
            TargetKind::Gateway => (GATEWAY_GROUP, "Gateway"),
            TargetKind::XBackend => {
                let other = match key.group {
                    AgenticGroup::Networking => AgenticGroup::Prototype,
                    AgenticGroup::Prototype => AgenticGroup::Networking,
                };
                let exists = |group| self.objects.backends.contains_key(&(target.object.clone(), group));
                let group = if !exists(key.group) && exists(other) { other } else { key.group };
                (group.name(), "XBackend")
            }
        };
        Scope::Ancestor {
            group: group.to_owned(),
            kind: kind.to_owned(),
            name: target.object.clone(),
            section: target.section_name.clone(),
        }
    }

    /// Why a policy cannot be enforced as written: its authorizers.
    fn fault(&self, policy: &Policy) -> Option<Fault> {
        authorizers(policy).find_map(|authorizer| self.authorizer_fault(&policy.key, authorizer))
    }

    fn authorizer_fault(&self, policy: &PolicyKey, authorizer: &ExternalAuth) -> Option<Fault> {
        let reference = &authorizer.backend;
        let name = &reference.object;
        if !reference.group.is_empty() || reference.kind != "Service" {
            let message =
                format!("externalAuth.backendRef must name a Service, not `{}`; change it", reference.kind);
            return Some(Fault::BackendNotFound { message });
        }
        if let Err(message) = self.grants.permits(From::POLICY, &policy.namespace, To::SERVICE, name) {
            return Some(Fault::RefNotPermitted { message });
        }
        let Some(port) = reference.port else {
            let message = "externalAuth.backendRef has no port; add the Service's port".to_owned();
            return Some(Fault::BackendNotFound { message });
        };
        match self.backends.backend(&BackendId::Service(name.clone(), port)) {
            Err(Unusable::Reference(error)) => Some(Fault::BackendNotFound { message: error.message }),
            Err(Unusable::Tls) => Some(Fault::BackendNotFound {
                message: format!(
                    "a BackendTLSPolicy that targets Service `{name}` cannot be enforced; see its status"
                ),
            }),
            // Plain text where an object asks for TLS would be worse than no answer.
            Ok(backend) if backend.tls.is_some() => Some(Fault::BackendNotFound {
                message: format!(
                    "a BackendTLSPolicy asks for TLS to Service `{name}`, and authorizers are asked without TLS; \
                     delete it, or refer to a Service without one"
                ),
            }),
            Ok(_) => None,
        }
    }

    /// The endpoints of the engine's authorizers, in its order.
    pub(super) fn authorizers(
        &self,
        authorizers: &[ExternalAuth],
    ) -> Vec<(AuthorizerBackend, Option<BackendId>)> {
        let resolved = authorizers.iter().map(|authorizer| {
            let reference = &authorizer.backend;
            let name = &reference.object;
            let id = reference.port.map(|port| BackendId::Service(name.clone(), port));
            let is_service = reference.group.is_empty() && reference.kind == "Service";
            let backend = id.clone().filter(|_| is_service).and_then(|id| self.backends.backend(&id).ok());
            let authority = format!("{}.{}.svc", name.name, name.namespace);
            match backend {
                Some(backend) => {
                    let endpoints = match backend.destination {
                        Destination::Endpoints(endpoints) => endpoints,
                        Destination::Hostname { .. } => Vec::new(),
                    };
                    (AuthorizerBackend { authority, endpoints }, id)
                }
                None => (AuthorizerBackend { authority, endpoints: Vec::new() }, None),
            }
        });
        resolved.collect()
    }

    fn statuses(&self, compiled: &Compiled, statuses: &mut Vec<ObjectStatus>, notes: &mut Vec<Note>) {
        // By target without its section: the compiler answers once for the object.
        let answers: BTreeMap<_, _> = compiled
            .statuses
            .iter()
            .map(|status| ((&status.key, status.target.kind, &status.target.object), status))
            .rev()
            .collect();
        for (key, entry) in &self.objects.policies {
            let object = policy_ref(key);
            let (targets, policy) = match &entry.spec {
                Ok(policy) => (policy.targets.clone(), Some(policy)),
                Err(unreadable) => (readable_targets(&unreadable.value), None),
            };
            let unreadable = entry.spec.as_ref().err();
            if let (true, Some(unreadable)) = (targets.is_empty(), unreadable) {
                let message = format!(
                    "cannot be read, nor can its targets: every target in its namespace is closed: {}",
                    unreadable.message
                );
                let conditions = vec![
                    Condition::no("Accepted", "Invalid", &message),
                    Condition::no("Enforced", "FailsClosed", message),
                ];
                statuses.push(ObjectStatus::new(
                    object.clone(),
                    Scope::Object,
                    entry.meta.generation,
                    conditions,
                ));
            }
            let fault = policy.and_then(|policy| self.fault(policy));
            for target in &targets {
                let conditions = match self.find(target) {
                    Found::Foreign => {
                        let message = format!(
                            "targets Gateway `{}`, whose GatewayClass is missing or not of this controller; it has no effect there",
                            target.object
                        );
                        notes.push(Note { object: object.clone(), message });
                        continue;
                    }
                    Found::No(message) => vec![Condition::no("Accepted", "TargetNotFound", message)],
                    Found::Yes => {
                        match answers.get(&(key, target.kind, &target.object)) {
                            Some(status) => conditions(status, fault.as_ref()),
                            // Every target that exists has been given to the compiler; without an answer nothing is known to be enforced.
                            None => vec![Condition::no("Accepted", "Invalid", "was not compiled")],
                        }
                    }
                };
                statuses.push(ObjectStatus::new(
                    object.clone(),
                    self.scope(key, target),
                    entry.meta.generation,
                    conditions,
                ));
            }
        }
    }
}

/// The targets of a policy that cannot be read, as far as they can.
pub(super) fn readable_targets(value: &serde_json::Value) -> Vec<Target> {
    read_policy(value).err().map(|error| error.readable_targets()).unwrap_or_default()
}

pub(super) fn policy_ref(key: &PolicyKey) -> ObjectRef {
    let group: AgenticGroup = key.group;
    ObjectRef {
        group: group.name().to_owned(),
        kind: "XAccessPolicy".to_owned(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
    }
}

/// Every authorizer that a policy names.
pub(super) fn authorizers(policy: &Policy) -> impl Iterator<Item = &ExternalAuth> {
    let of_policy = match &policy.action {
        Action::ExternalAuth(authorizer) => Some(authorizer),
        Action::Allow => None,
    };
    let of_rules = policy.rules.iter().filter_map(|rule| match &rule.condition {
        policy_model::Condition::ExternalAuth(authorizer) => Some(authorizer),
        _ => None,
    });
    of_policy.into_iter().chain(of_rules)
}

/// The conditions of a policy on a target that exists.
fn conditions(status: &PolicyStatus, reference_fault: Option<&Fault>) -> Vec<Condition> {
    let warnings = status.warnings.join("; ");
    let with_warnings = |message: &str| match warnings.as_str() {
        "" => message.to_owned(),
        warnings => format!("{message}; {warnings}"),
    };
    let fault = match &status.acceptance {
        Acceptance::FailsClosed(fault) => Some(fault),
        _ => None,
    };
    let accepted = match &status.acceptance {
        Acceptance::Accepted => {
            Condition::yes("Accepted", "Accepted", with_warnings("the policy is accepted"))
        }
        Acceptance::LimitPerTargetExceeded { message } => {
            Condition::no("Accepted", "LimitPerTargetExceeded", with_warnings(message))
        }
        Acceptance::Unreadable { message } => Condition::no("Accepted", "Invalid", message),
        Acceptance::FailsClosed(Fault::InvalidCel { rule, message }) => {
            Condition::no("Accepted", "InvalidCEL", format!("rule `{rule}`: {message}"))
        }
        Acceptance::FailsClosed(Fault::UnsupportedValue { rule, message }) => {
            Condition::no("Accepted", "UnsupportedValue", format!("rule `{rule}`: {message}"))
        }
        Acceptance::FailsClosed(Fault::BackendNotFound { .. } | Fault::RefNotPermitted { .. }) => {
            Condition::yes("Accepted", "Accepted", with_warnings("the policy is accepted; see ResolvedRefs"))
        }
        Acceptance::FailsClosed(_) => Condition::no("Accepted", "Invalid", "cannot be enforced as written"),
    };
    let reference = fault.filter(|fault| is_reference(fault)).or(reference_fault);
    let resolved = match reference {
        Some(Fault::BackendNotFound { message }) => Condition::no("ResolvedRefs", "BackendNotFound", message),
        Some(Fault::RefNotPermitted { message }) => Condition::no("ResolvedRefs", "RefNotPermitted", message),
        _ => Condition::yes("ResolvedRefs", "ResolvedRefs", "all references resolve"),
    };
    let enforced = match &status.acceptance {
        Acceptance::Accepted => Condition::yes("Enforced", "Enforced", "the policy is enforced"),
        Acceptance::LimitPerTargetExceeded { .. } => Condition::no(
            "Enforced",
            "LimitPerTargetExceeded",
            "its rules match nothing, and what it would have delegated is denied",
        ),
        _ => Condition::no(
            "Enforced",
            "FailsClosed",
            "it cannot be enforced as written: everything that the target receives is denied until it is mended or deleted",
        ),
    };
    vec![accepted, resolved, enforced]
}

fn is_reference(fault: &Fault) -> bool {
    matches!(fault, Fault::BackendNotFound { .. } | Fault::RefNotPermitted { .. })
}
