//! Policies in few words.
use authz_core::PolicyEntry;
use policy_model::{
    Action, AgenticGroup, AuthorizerProtocol, Condition, Dialect, ExternalAuth, NamespacedName, Policy,
    PolicyKey, Rule, ServiceRef, Source, Target, TargetKind, Timestamp,
};

/// The namespace of everything.
pub const NS: &str = "ns";
/// Who mostly asks.
pub const AGENT: &str = "spiffe://cluster.local/ns/ns/sa/agent";
/// Somebody else of the same namespace.
pub const OTHER: &str = "spiffe://cluster.local/ns/ns/sa/other";

/// The Gateway that requests come to.
pub fn gateway() -> NamespacedName {
    NamespacedName::new(NS, "gw")
}
/// The XBackend that they are for.
pub fn backend() -> NamespacedName {
    NamespacedName::new(NS, "be")
}
/// The Gateway as a target.
pub fn on_gateway() -> Target {
    Target { kind: TargetKind::Gateway, object: gateway(), section_name: None }
}
/// One listener of the Gateway as a target.
pub fn on_listener(name: &str) -> Target {
    Target { section_name: Some(name.into()), ..on_gateway() }
}
/// The XBackend as a target.
pub fn on_backend() -> Target {
    Target { kind: TargetKind::XBackend, object: backend(), section_name: None }
}

/// A policy of that name.
pub fn key(name: &str) -> PolicyKey {
    PolicyKey { namespace: NS.into(), name: name.into(), group: AgenticGroup::Networking }
}
/// A service account of the namespace.
pub fn account(name: &str) -> Source {
    Source::ServiceAccount(NamespacedName::new(NS, name))
}
/// A rule.
pub fn rule(name: &str, source: Source, condition: Condition) -> Rule {
    Rule { name: name.into(), source, condition }
}
/// Calls of these tools.
pub fn tools(names: &[&str]) -> Condition {
    Condition::Tools(names.iter().map(|name| (*name).to_owned()).collect())
}
/// Calls of which the expression is true.
pub fn cel(expression: &str) -> Condition {
    Condition::Cel { expression: expression.into(), inline: None }
}
/// The authorizer behind the Service of that name, over gRPC.
pub fn authorizer(name: &str) -> ExternalAuth {
    ExternalAuth {
        backend: ServiceRef {
            group: String::new(),
            kind: "Service".into(),
            object: NamespacedName::new(NS, name),
            port: Some(50051),
        },
        protocol: AuthorizerProtocol::Grpc { allowed_headers: None },
        forward_body: None,
    }
}

/// A v0alpha0 policy, created at that second.
pub fn v0(name: &str, created: i64, target: Target, rules: Vec<Rule>) -> Policy {
    Policy {
        key: key(name),
        created: Some(Timestamp(created)),
        generation: Some(1),
        targets: vec![target],
        dialect: Dialect::V0Alpha0,
        action: Action::Allow,
        rules,
    }
}
/// A v1alpha1 Allow policy.
pub fn v1(name: &str, created: i64, target: Target, rules: Vec<Rule>) -> Policy {
    Policy { dialect: Dialect::V1Alpha1, ..v0(name, created, target, rules) }
}
/// A v1alpha1 ExternalAuth policy.
pub fn ext(name: &str, created: i64, target: Target, rules: Vec<Rule>) -> Policy {
    Policy { action: Action::ExternalAuth(authorizer(name)), ..v1(name, created, target, rules) }
}
/// A policy that arrived whole.
pub fn entry(policy: Policy) -> PolicyEntry {
    PolicyEntry::Policy { targets: policy.targets.clone(), policy, fault: None }
}
