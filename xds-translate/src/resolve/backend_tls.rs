//! BackendTLSPolicies: TLS to Services and XBackends. One that cannot be enforced keeps requests away; never plain text instead.
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use gateway_api::backendtlspolicies::{
    BackendTlsPolicySpec, BackendTlsPolicyTargetRefs,
    BackendTlsPolicyValidationSubjectAltNamesType as SanType,
};
use k8s_openapi::api::core::v1::ServicePort;
use policy_model::{AgenticGroup, NamespacedName};
use serde_json::Value;

use super::{
    grant::AGENTIC_GROUPS,
    tls::{RefError, ca_of_config_map},
};
use crate::{
    Condition, ObjectRef, ObjectStatus, Objects, Scope, UpstreamTls,
    objects::{Entry, GATEWAY_GROUP},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TargetKind {
    Service,
    XBackend,
}

/// A policy, read.
struct TlsPolicy<'a> {
    name: &'a NamespacedName,
    entry: &'a Entry<BackendTlsPolicySpec>,
    outcome: Outcome,
}

/// What a policy asks for, and what is wrong with it.
struct Outcome {
    /// `None`: what it targets is kept from requests.
    tls: Option<UpstreamTls>,
    accepted: Option<RefError>,
    refs: Option<RefError>,
}

/// One target of a policy.
struct Claim {
    policy: usize,
    section: Option<String>,
}

/// All policies, by what they target.
pub(super) struct TlsPolicies<'a> {
    policies: Vec<TlsPolicy<'a>>,
    /// The first policy of a target and section is the one that counts.
    claims: BTreeMap<(TargetKind, NamespacedName), Vec<Claim>>,
    /// Policies that lost a target to an older one.
    conflicted: BTreeSet<usize>,
    /// Namespaces with a policy of which not even a target can be read.
    closed_namespaces: BTreeMap<&'a str, usize>,
    /// By policy: the Gateways that reach a backend under it.
    used_by: RefCell<BTreeMap<usize, BTreeSet<NamespacedName>>>,
}

/// A policy that cannot be enforced targets the backend.
pub(super) struct Closed;

impl<'a> TlsPolicies<'a> {
    pub(super) fn new(objects: &'a Objects) -> Self {
        let mut entries: Vec<_> = objects.tls_policies.iter().collect();
        // The oldest first; one without a time is the youngest.
        entries.sort_by_key(|(name, entry)| (entry.meta.created.is_none(), entry.meta.created, *name));
        let mut this = Self {
            policies: Vec::new(),
            claims: BTreeMap::new(),
            conflicted: BTreeSet::new(),
            closed_namespaces: BTreeMap::new(),
            used_by: RefCell::default(),
        };
        for (name, entry) in entries {
            let index = this.policies.len();
            let targets = targets(entry);
            this.policies.push(TlsPolicy { name, entry, outcome: Outcome::of(objects, name, entry) });
            if targets.is_empty() {
                this.closed_namespaces.entry(&name.namespace).or_insert(index);
            }
            for target in targets {
                let Some(kind) = target_kind(&target) else { continue };
                let key = (kind, NamespacedName::new(&name.namespace, &target.name));
                let section = target.section_name.filter(|section| !section.is_empty());
                let claims = this.claims.entry(key).or_default();
                if claims.iter().any(|claim| claim.section == section) {
                    this.conflicted.insert(index);
                } else {
                    claims.push(Claim { policy: index, section });
                }
            }
        }
        this
    }

    /// The TLS of a Service's port.
    pub(super) fn for_service(
        &self,
        name: &NamespacedName,
        port: &ServicePort,
    ) -> Result<Option<UpstreamTls>, Closed> {
        self.tls(self.service_policy(name, port))
    }

    /// The TLS of an XBackend.
    pub(super) fn for_x_backend(&self, name: &NamespacedName) -> Result<Option<UpstreamTls>, Closed> {
        self.tls(self.policy(TargetKind::XBackend, name, None))
    }

    /// Notes that a Gateway reaches a Service's port.
    pub(super) fn use_service(&self, name: &NamespacedName, port: &ServicePort, gateway: &NamespacedName) {
        self.mark(self.service_policy(name, port), gateway);
    }

    /// Notes that a Gateway reaches an XBackend.
    pub(super) fn use_x_backend(&self, name: &NamespacedName, gateway: &NamespacedName) {
        self.mark(self.policy(TargetKind::XBackend, name, None), gateway);
    }

    fn mark(&self, policy: Option<usize>, gateway: &NamespacedName) {
        if let Some(policy) = policy {
            self.used_by.borrow_mut().entry(policy).or_default().insert(gateway.clone());
        }
    }

    fn service_policy(&self, name: &NamespacedName, port: &ServicePort) -> Option<usize> {
        self.policy(TargetKind::Service, name, port.name.as_deref())
    }

    /// The policy for a section is before that for the whole; without either, one that closes the namespace.
    fn policy(&self, kind: TargetKind, name: &NamespacedName, section: Option<&str>) -> Option<usize> {
        let claims = self.claims.get(&(kind, name.clone())).map(Vec::as_slice).unwrap_or_default();
        let of_section = claims.iter().find(|claim| section.is_some() && claim.section.as_deref() == section);
        let of_whole = || claims.iter().find(|claim| claim.section.is_none());
        let claimed = of_section.or_else(of_whole).map(|claim| claim.policy);
        claimed.or_else(|| self.closed_namespaces.get(name.namespace.as_str()).copied())
    }

    fn tls(&self, policy: Option<usize>) -> Result<Option<UpstreamTls>, Closed> {
        match policy.and_then(|index| self.policies.get(index)) {
            None => Ok(None),
            Some(policy) => policy.outcome.tls.clone().map(Some).ok_or(Closed),
        }
    }

    /// The statuses of all policies: under each Gateway that uses them, or else under their targets.
    pub(super) fn statuses(&self, objects: &Objects, statuses: &mut Vec<ObjectStatus>) {
        let used_by = self.used_by.borrow();
        for (index, policy) in self.policies.iter().enumerate() {
            let object = ObjectRef::new(GATEWAY_GROUP, "BackendTLSPolicy", policy.name);
            let mut push = |scope: Scope, conditions: Vec<Condition>| {
                let generation = policy.entry.meta.generation;
                statuses.push(ObjectStatus::new(object.clone(), scope, generation, conditions));
            };
            if let Some(gateways) = used_by.get(&index) {
                for gateway in gateways {
                    let scope = Scope::Ancestor {
                        group: GATEWAY_GROUP.to_owned(),
                        kind: "Gateway".to_owned(),
                        name: gateway.clone(),
                        section: None,
                    };
                    push(scope, self.conditions(index, policy));
                }
                continue;
            }
            let targets = targets(policy.entry);
            if targets.is_empty() {
                push(Scope::Object, self.conditions(index, policy));
            }
            for target in targets {
                let name = NamespacedName::new(&policy.name.namespace, &target.name);
                let section = target.section_name.as_deref().filter(|section| !section.is_empty());
                let scope = Scope::Ancestor {
                    group: target.group.clone(),
                    kind: target.kind.clone(),
                    name: name.clone(),
                    section: section.map(str::to_owned),
                };
                match missing(objects, &target, &name, section) {
                    None => push(scope, self.conditions(index, policy)),
                    Some(message) => push(scope, vec![Condition::no("Accepted", "TargetNotFound", message)]),
                }
            }
        }
    }

    fn conditions(&self, index: usize, policy: &TlsPolicy<'_>) -> Vec<Condition> {
        let accepted = match &policy.outcome.accepted {
            Some(error) => Condition::no("Accepted", error.reason, &error.message),
            None if self.conflicted.contains(&index) => {
                let message = "an older BackendTLSPolicy has the same target; delete one of them";
                Condition::no("Accepted", "Conflicted", message)
            }
            None => Condition::yes("Accepted", "Accepted", "the policy is accepted"),
        };
        let refs = match &policy.outcome.refs {
            Some(error) => Condition::no("ResolvedRefs", error.reason, &error.message),
            None => Condition::yes("ResolvedRefs", "ResolvedRefs", "all references resolve"),
        };
        vec![accepted, refs]
    }
}

impl Outcome {
    fn of(objects: &Objects, name: &NamespacedName, entry: &Entry<BackendTlsPolicySpec>) -> Self {
        let refused = |reason: &'static str, message: String| Self {
            tls: None,
            accepted: Some(RefError::new(
                reason,
                format!("{message}; until then its targets receive nothing"),
            )),
            refs: None,
        };
        let spec = match &entry.spec {
            Ok(spec) => spec,
            Err(unreadable) => return refused("Invalid", format!("cannot be read: {}", unreadable.message)),
        };
        if let Some(field) = entry.unknown.first() {
            return refused("Invalid", format!("`{field}` is not supported; remove it"));
        }
        if let Some(option) = spec.options.iter().flatten().map(|(key, _)| key).next() {
            return refused("Invalid", format!("option `{option}` is not supported; remove it"));
        }
        let validation = &spec.validation;
        let references = validation.ca_certificate_refs.as_deref().unwrap_or_default();
        let well_known = validation.well_known_ca_certificates.as_deref().unwrap_or_default();
        let mut refs = None;
        let mut ca_pem = Vec::new();
        for reference in references {
            let ca = if reference.group.is_empty() && reference.kind == "ConfigMap" {
                ca_of_config_map(objects, &NamespacedName::new(&name.namespace, &reference.name))
            } else {
                let message = format!("caCertificateRefs must name a ConfigMap, not `{}`", reference.kind);
                Err(RefError::new("InvalidKind", message))
            };
            match ca {
                Ok(ca) => ca_pem.push(ca),
                Err(error) => refs = refs.or(Some(error)),
            }
        }
        match (references.is_empty(), well_known) {
            (true, "System") => {}
            (true, "") => {
                return refused(
                    "Invalid",
                    "has no CA; give caCertificateRefs or wellKnownCACertificates".to_owned(),
                );
            }
            (true, other) => {
                return refused(
                    "Invalid",
                    format!("wellKnownCACertificates `{other}` is not supported; use `System`"),
                );
            }
            (false, other) if !other.is_empty() => {
                return refused(
                    "Invalid",
                    "has caCertificateRefs and wellKnownCACertificates; give one".to_owned(),
                );
            }
            (false, _) if ca_pem.is_empty() => {
                let message = "no CA certificate reference resolves; mend one".to_owned();
                return Self { refs, ..refused("NoValidCACertificate", message) };
            }
            (false, _) => {}
        }
        let mut tls = UpstreamTls {
            server_name: validation.hostname.clone(),
            ca_pem,
            san_names: Vec::new(),
            san_uris: Vec::new(),
        };
        for san in validation.subject_alt_names.iter().flatten() {
            let (value, list) = match san.r#type {
                SanType::Hostname => (&san.hostname, &mut tls.san_names),
                SanType::Uri => (&san.uri, &mut tls.san_uris),
            };
            match value.as_ref().filter(|value| !value.is_empty()) {
                Some(value) => list.push(value.clone()),
                None => {
                    return refused(
                        "Invalid",
                        "a subjectAltNames entry has no value; give it one".to_owned(),
                    );
                }
            }
        }
        if tls.server_name.is_empty() {
            return refused(
                "Invalid",
                "validation.hostname is empty; give the name of the server".to_owned(),
            );
        }
        Self { tls: Some(tls), accepted: None, refs }
    }
}

/// The targets, as far as they can be read.
pub(super) fn targets(entry: &Entry<BackendTlsPolicySpec>) -> Vec<BackendTlsPolicyTargetRefs> {
    match &entry.spec {
        Ok(spec) => spec.target_refs.clone(),
        Err(unreadable) => {
            let targets = unreadable.value.pointer("/spec/targetRefs").and_then(Value::as_array);
            let text =
                |target: &Value, field: &str| target.get(field).and_then(Value::as_str).map(str::to_owned);
            targets
                .into_iter()
                .flatten()
                .filter_map(|target| {
                    Some(BackendTlsPolicyTargetRefs {
                        group: text(target, "group")?,
                        kind: text(target, "kind")?,
                        name: text(target, "name")?,
                        section_name: text(target, "sectionName"),
                    })
                })
                .collect()
        }
    }
}

pub(super) fn target_kind(target: &BackendTlsPolicyTargetRefs) -> Option<TargetKind> {
    match (target.group.as_str(), target.kind.as_str()) {
        ("", "Service") => Some(TargetKind::Service),
        (group, "XBackend") if AGENTIC_GROUPS.contains(&group) => Some(TargetKind::XBackend),
        _ => None,
    }
}

/// What a target lacks, if anything.
fn missing(
    objects: &Objects,
    target: &BackendTlsPolicyTargetRefs,
    name: &NamespacedName,
    section: Option<&str>,
) -> Option<String> {
    match target_kind(target) {
        None => Some(format!(
            "`{}` of `{}` cannot be targeted; use a Service or an XBackend",
            target.kind, target.group
        )),
        Some(TargetKind::Service) => {
            let Some(service) = objects.services.get(name).and_then(|entry| entry.spec.as_ref().ok()) else {
                return Some(format!("Service `{name}` does not exist; create it or change the target"));
            };
            let section = section?;
            let found = service.ports.iter().flatten().any(|port| port.name.as_deref() == Some(section));
            (!found).then(|| format!("Service `{name}` has no port named `{section}`; change sectionName"))
        }
        Some(TargetKind::XBackend) => {
            let exists = [AgenticGroup::Networking, AgenticGroup::Prototype]
                .into_iter()
                .any(|group| objects.backends.contains_key(&(name.clone(), group)));
            match (exists, section) {
                (false, _) => {
                    Some(format!("XBackend `{name}` does not exist; create it or change the target"))
                }
                (true, Some(section)) => {
                    Some(format!("an XBackend has no sections; remove sectionName `{section}`"))
                }
                (true, None) => None,
            }
        }
    }
}
