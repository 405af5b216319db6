//! ReferenceGrants: who may refer to what in another namespace.
use std::collections::BTreeMap;

use gateway_api::referencegrants::ReferenceGrantSpec;
use policy_model::NamespacedName;

use crate::{Objects, objects::GATEWAY_GROUP};

/// Both groups name the same kinds.
pub(super) const AGENTIC_GROUPS: [&str; 2] = ["agentic.networking.x-k8s.io", "agentic.prototype.x-k8s.io"];
const GATEWAY_GROUPS: [&str; 1] = [GATEWAY_GROUP];
const CORE_GROUPS: [&str; 1] = [""];

/// Where a reference comes from: the kind, with the groups under which a grant may name it.
#[derive(Debug, Clone, Copy)]
pub(super) struct From {
    groups: &'static [&'static str],
    kind: &'static str,
}

impl From {
    pub(super) const GATEWAY: Self = Self { groups: &GATEWAY_GROUPS, kind: "Gateway" };
    pub(super) const ROUTE: Self = Self { groups: &GATEWAY_GROUPS, kind: "HTTPRoute" };
    pub(super) const POLICY: Self = Self { groups: &AGENTIC_GROUPS, kind: "XAccessPolicy" };
}

/// What a reference leads to.
#[derive(Debug, Clone, Copy)]
pub(super) struct To {
    groups: &'static [&'static str],
    kind: &'static str,
}

impl To {
    pub(super) const SERVICE: Self = Self { groups: &CORE_GROUPS, kind: "Service" };
    pub(super) const SECRET: Self = Self { groups: &CORE_GROUPS, kind: "Secret" };
    pub(super) const CONFIG_MAP: Self = Self { groups: &CORE_GROUPS, kind: "ConfigMap" };
    pub(super) const X_BACKEND: Self = Self { groups: &AGENTIC_GROUPS, kind: "XBackend" };
}

/// All grants that can be read, by the namespace that gives them.
#[derive(Debug)]
pub(super) struct Grants<'a> {
    by_namespace: BTreeMap<&'a str, Vec<(&'a NamespacedName, &'a ReferenceGrantSpec)>>,
}

impl<'a> Grants<'a> {
    pub(super) fn new(objects: &'a Objects) -> Self {
        let mut by_namespace: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for (name, entry) in &objects.grants {
            // A grant with a field that is not known may grant less than it seems to.
            if let Ok(spec) = &entry.spec
                && entry.unknown.is_empty()
            {
                by_namespace.entry(&name.namespace).or_default().push((name, spec));
            }
        }
        Self { by_namespace }
    }

    /// Whether `from` in `namespace` may refer to `object`. Its own namespace it always may.
    ///
    /// # Errors
    /// What to do, with the grant to add.
    pub(super) fn permits(
        &self,
        from: From,
        namespace: &str,
        to: To,
        object: &NamespacedName,
    ) -> Result<(), String> {
        if namespace == object.namespace {
            return Ok(());
        }
        let granted = self.permitting(from, namespace, to, object).next().is_some();
        if granted { Ok(()) } else { Err(missing(from, namespace, to, object)) }
    }

    /// The grants that permit `from` in `namespace` to refer to `object` in another one.
    pub(super) fn permitting(
        &self,
        from: From,
        namespace: &str,
        to: To,
        object: &NamespacedName,
    ) -> impl Iterator<Item = &'a NamespacedName> {
        let grants = self.by_namespace.get(object.namespace.as_str()).into_iter().flatten();
        let granting = grants.filter(move |(_, grant)| {
            grant.from.iter().any(|entry| {
                from.groups.contains(&entry.group.as_str())
                    && entry.kind == from.kind
                    && entry.namespace == namespace
            }) && grant.to.iter().any(|entry| {
                to.groups.contains(&entry.group.as_str())
                    && entry.kind == to.kind
                    && entry.name.as_deref().is_none_or(|name| name.is_empty() || name == object.name)
            })
        });
        granting.map(|(name, _)| *name)
    }
}

/// What to do about a missing grant: the grant, ready to apply.
fn missing(from: From, namespace: &str, to: To, object: &NamespacedName) -> String {
    let (from_group, to_group) = (from.groups.first().unwrap_or(&""), to.groups.first().unwrap_or(&""));
    format!(
        "{to_kind} `{object}` is in another namespace and no ReferenceGrant there permits {from_kind} of `{namespace}` to \
         refer to it; apply:\n\
         apiVersion: gateway.networking.k8s.io/v1beta1\n\
         kind: ReferenceGrant\n\
         metadata:\n  name: {from_name}-{namespace}-to-{name}\n  namespace: {to_namespace}\n\
         spec:\n  from:\n  - group: {from_group}\n    kind: {from_kind}\n    namespace: {namespace}\n  \
         to:\n  - group: {to_group:?}\n    kind: {to_kind}\n    name: {name}\n",
        to_kind = to.kind,
        from_kind = from.kind,
        from_name = from.kind.to_ascii_lowercase(),
        name = object.name,
        to_namespace = object.namespace,
    )
}
