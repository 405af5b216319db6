//! What could not be read, and what has to fail closed for it.
use std::collections::HashSet;
use std::fmt;

use serde_json::Value;

use crate::model::{AgenticGroup, NamespacedName, PolicyKey, Target, TargetKind};
use crate::schema::Violation;

/// The namespace of an object that names none.
pub(super) const DEFAULT_NAMESPACE: &str = "default";

/// An object that cannot be read.
///
/// A policy that cannot be read is not a policy that is absent: [`ReadError::readable_targets`] says what fails closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadError(Box<Inner>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    group: Option<AgenticGroup>,
    object: Option<NamespacedName>,
    namespace: String,
    targets: Vec<Target>,
    violations: Vec<Violation>,
}

impl ReadError {
    pub(super) fn new(object: &Value, group: Option<AgenticGroup>, violations: Vec<Violation>) -> Self {
        let namespace = namespace_of(object);
        let name = object.pointer("/metadata/name").and_then(Value::as_str).filter(|name| !name.is_empty());
        let refs = object
            .pointer("/spec/targetRefs")
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let mut seen = HashSet::new();
        let targets = refs
            .iter()
            .filter_map(|reference| readable_target(reference, &namespace))
            .filter(|target| seen.insert(target.clone()))
            .collect();
        // An apiVersion that is not served may still name a group.
        let group = group.or_else(|| {
            let (group, _) = object.get("apiVersion")?.as_str()?.split_once('/')?;
            AgenticGroup::from_name(group)
        });
        let object = name.map(|name| NamespacedName::new(namespace.clone(), name));
        Self(Box::new(Inner { group, object, namespace, targets, violations }))
    }

    /// What is wrong; never empty.
    pub fn violations(&self) -> &[Violation] {
        &self.0.violations
    }

    /// The key of the policy, if its group and name can be read.
    pub fn key(&self) -> Option<PolicyKey> {
        let NamespacedName { namespace, name } = self.0.object.clone()?;
        Some(PolicyKey { namespace, name, group: self.0.group? })
    }

    /// Namespace and name of the object, if it has a name.
    pub fn object(&self) -> Option<&NamespacedName> {
        self.0.object.as_ref()
    }

    /// The namespace of the object; `default` if it has none that can be read.
    pub fn namespace(&self) -> &str {
        &self.0.namespace
    }

    /// The targets of a policy that can be read nevertheless. Each of them fails closed; if there is none, every
    /// target in [`ReadError::namespace`] does.
    ///
    /// A reference is readable if its name is, and if group and kind, as far as they are given, name a Gateway or an
    /// XBackend. A section name that cannot be read leaves the whole object as the target.
    pub fn readable_targets(&self) -> Vec<Target> {
        self.0.targets.clone()
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, violation) in self.0.violations.iter().enumerate() {
            write!(f, "{}{violation}", if index == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl std::error::Error for ReadError {}

pub(super) fn namespace_of(object: &Value) -> String {
    let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str);
    namespace.filter(|namespace| !namespace.is_empty()).unwrap_or(DEFAULT_NAMESPACE).to_owned()
}

fn readable_target(reference: &Value, namespace: &str) -> Option<Target> {
    let by_group = match reference.get("group") {
        None | Some(Value::Null) => None,
        Some(group) => Some(kind_of_group(group.as_str()?)?),
    };
    let by_kind = match reference.get("kind") {
        None | Some(Value::Null) => None,
        Some(kind) => Some(kind_of_name(kind.as_str()?)?),
    };
    let kind = match (by_group, by_kind) {
        (Some(group), Some(kind)) if group != kind => return None,
        (group, kind) => group.or(kind)?,
    };
    let name = reference.get("name")?.as_str().filter(|name| !name.is_empty())?;
    let section_name = match kind {
        TargetKind::Gateway => {
            reference.get("sectionName").and_then(Value::as_str).filter(|name| !name.is_empty())
        }
        TargetKind::XBackend => None,
    };
    Some(Target {
        kind,
        object: NamespacedName::new(namespace, name),
        section_name: section_name.map(str::to_owned),
    })
}

/// The kind of target that a group has.
fn kind_of_group(group: &str) -> Option<TargetKind> {
    if group == "gateway.networking.k8s.io" {
        return Some(TargetKind::Gateway);
    }
    AgenticGroup::from_name(group).map(|_| TargetKind::XBackend)
}

fn kind_of_name(kind: &str) -> Option<TargetKind> {
    match kind {
        "Gateway" => Some(TargetKind::Gateway),
        "XBackend" => Some(TargetKind::XBackend),
        _ => None,
    }
}

/// The kind of target that a reference names, where the schema has already checked it.
pub(super) fn target_kind(group: &str, kind: &str) -> Option<TargetKind> {
    let by_group = kind_of_group(group)?;
    (kind_of_name(kind)? == by_group).then_some(by_group)
}
