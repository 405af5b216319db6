//! Policies as Envoy's own filters: a subset, for those who want Envoy alone. What is outside is refused and closed.
//!
//! The filters of a chain, in order: CORS; Envoy's MCP filter, which parses messages and refuses what is none; the URI SANs
//! of the client's certificate as filter state, where they give an identity; Lua, which copies the message to where
//! authorizers read it; three RBAC filters (what is refused before policy, the Gateway's policies, the backend's); one
//! ext_authz per authorizer; the router. Each backend of a route tells the RBAC filters its own rules; without they deny.
//!
//! **Invariant**: a filter that knows nothing denies, or asks. RBAC has no rules of its own; an authorizer is asked unless
//! RBAC said that a request is not delegated.
mod authorizer;
mod chain;
mod cors;
mod level;
mod mcp;
mod path;
mod regex;
mod routes;
mod rules;
mod test;

use std::collections::{BTreeMap, BTreeSet};

use authz_core::{Fate, Levels, WrittenPolicy};
use policy_model::{PolicyKey, Target, TargetKind};
use serde_json::json;

use self::{chain::Chain, level::Level, mcp::Kind, rules::Place};
use super::{Filters, Resource, Settings, http::Http, json::extension, processor::NAMESPACE as OWN};
use crate::{Condition, Listener, ObjectRef, Router, Scope, Snapshot, status::ObjectStatus};

/// A snapshot's policies, classified once for all listeners.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    snapshot: &'a Snapshot,
    settings: &'a Settings,
    filters: &'a Filters,
    router: Router,
    refused: Vec<ObjectStatus>,
}

/// Which of the two levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Gateway,
    Backend,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Backend => "backend",
        }
    }

    /// The RBAC filter with its rules.
    fn filter(self) -> &'static str {
        match self {
            Self::Gateway => "agentic.gateway",
            Self::Backend => "agentic.backend",
        }
    }

    /// Before the keys of what its shadow rules found.
    fn prefix(self) -> &'static str {
        match self {
            Self::Gateway => "gateway_",
            Self::Backend => "backend_",
        }
    }
}

impl<'a> Plan<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, filters: &'a Filters, settings: &'a Settings) -> Self {
        let mut plan =
            Self { snapshot, settings, filters, router: Router::new(snapshot), refused: Vec::new() };
        plan.refused = if plan.is_supported() { plan.outside() } else { vec![plan.too_old()] };
        plan
    }

    /// For one filter chain: the HTTPS listener that it is of, or all HTTP listeners of a port.
    pub(super) fn http(&self, listeners: &[&Listener]) -> Http {
        if self.is_supported() { Chain::new(self, listeners).http() } else { closed(listeners) }
    }

    /// Policies that are not in the subset.
    pub(super) fn refused(&self) -> Vec<ObjectStatus> {
        self.refused.clone()
    }

    /// The clusters of authorizers.
    pub(super) fn clusters(&self) -> Vec<Resource> {
        if self.is_supported() { authorizer::clusters(self.snapshot, self.settings) } else { Vec::new() }
    }

    fn is_supported(&self) -> bool {
        self.settings.version.minor() >= Filters::FIRST_MINOR
    }

    fn too_old(&self) -> ObjectStatus {
        let message = format!(
            "policies as filters need Envoy 1.{} or later, not {}: everything is denied; use a later Envoy, or the engine beside it",
            Filters::FIRST_MINOR,
            self.settings.version
        );
        let object = ObjectRef::new("gateway.networking.k8s.io", "Gateway", &self.snapshot.gateway);
        let condition = Condition::no("Accepted", "UnsupportedValue", message);
        ObjectStatus::new(object, Scope::Object, None, vec![condition])
    }

    /// The policies of this Gateway and its backends that cannot be told to Envoy, each target once.
    fn outside(&self) -> Vec<ObjectStatus> {
        let own = self.snapshot.engine.levels(&self.snapshot.gateway, None);
        let backends = self.snapshot.rules.iter().flat_map(|rule| &rule.backends);
        let levels = std::iter::once(own).chain(backends.map(|weighted| weighted.levels));
        let targets = self.targets();
        let mut seen: BTreeSet<&PolicyKey> = BTreeSet::new();
        let mut statuses = BTreeMap::new();
        for policy in levels.flat_map(|levels| self.of(levels)) {
            if !seen.insert(policy.key()) {
                continue;
            }
            // Whatever the place: what is refused is refused everywhere.
            let place = Place { kind: Kind::Mcp, port: 0, identities: true };
            let Err(message) = Level::of(std::iter::once(policy), place) else { continue };
            let written = policy.policy();
            let of_policy = written.into_iter().flat_map(|written| &written.targets);
            for target in of_policy.filter(|target| targets.contains(&(target.kind, &target.object))) {
                let status = refusal(policy, target, &message);
                statuses.insert((policy.key(), target), status);
            }
        }
        statuses.into_values().collect()
    }

    fn of(&self, levels: Levels) -> impl Iterator<Item = WrittenPolicy<'a>> {
        let policies = self.snapshot.engine.written(levels).into_iter().flatten();
        policies.filter(|policy| !matches!(policy.fate(), Fate::Closed(_)))
    }

    /// The Gateway and the XBackends that it reaches.
    fn targets(&self) -> BTreeSet<(TargetKind, &'a policy_model::NamespacedName)> {
        let mut targets = BTreeSet::from([(TargetKind::Gateway, &self.snapshot.gateway)]);
        for id in self.snapshot.backends.keys() {
            if let crate::BackendId::XBackend(name) = id {
                targets.insert((TargetKind::XBackend, name));
            }
        }
        targets
    }
}

fn refusal(policy: WrittenPolicy<'_>, target: &Target, message: &str) -> ObjectStatus {
    let key = policy.key();
    let object = ObjectRef {
        group: key.group.name().to_owned(),
        kind: "XAccessPolicy".to_owned(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
    };
    let (group, kind) = match target.kind {
        TargetKind::Gateway => ("gateway.networking.k8s.io", "Gateway"),
        TargetKind::XBackend => (key.group.name(), "XBackend"),
    };
    let scope = Scope::Ancestor {
        group: group.to_owned(),
        kind: kind.to_owned(),
        name: target.object.clone(),
        section: target.section_name.clone(),
    };
    let enforced = "it cannot be told to Envoy: everything that the target receives is denied until it is mended or deleted";
    let conditions = vec![
        Condition::no("Accepted", "UnsupportedValue", message),
        Condition::no("Enforced", "FailsClosed", enforced),
    ];
    ObjectStatus::new(object, scope, policy.policy().and_then(|policy| policy.generation), conditions)
}

/// A chain that denies everything.
fn closed(listeners: &[&Listener]) -> Http {
    let names: Vec<&str> = listeners.iter().map(|listener| listener.name.as_str()).collect();
    let routes = json!({
        "name": format!("closed/{}", names.join("+")),
        "virtual_hosts": [{
            "name": "all",
            "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 403}}],
        }],
    });
    let router =
        extension("envoy.filters.http.router", "envoy.extensions.filters.http.router.v3.Router", json!({}));
    Http { filters: vec![router], routes, client_chain: false, local_replies: None }
}
