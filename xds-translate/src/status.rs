//! Conditions, as the controller would write them; without timestamps (the writer keeps those).
use std::fmt;

use policy_model::NamespacedName;

/// Which object, or which part of its status.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    /// API group; empty for core.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// `True`, `False`, `Unknown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConditionStatus {
    /// True
    True,
    /// False
    False,
    /// Unknown
    Unknown,
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// `Accepted`, `ResolvedRefs`, `Programmed`, `Enforced`, `Conflicted`, `PartiallyInvalid`, `InsecureFrontendValidationMode`.
    pub r#type: String,
    /// Status.
    pub status: ConditionStatus,
    /// CamelCase reason.
    pub reason: String,
    /// For people: what to do.
    pub message: String,
}

/// Which part of an object's status conditions are of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// The object itself.
    Object,
    /// The listener of that name, of a Gateway.
    Listener(String),
    /// A parent of a route.
    Parent {
        /// The Gateway that it names.
        gateway: NamespacedName,
        /// The parentRef as the route has it.
        reference: ParentRef,
    },
    /// What a policy applies to.
    Ancestor {
        /// API group; empty for core.
        group: String,
        /// Kind.
        kind: String,
        /// Namespace and name.
        name: NamespacedName,
        /// A listener of a Gateway, a port of a Service.
        section: Option<String>,
    },
}

impl Scope {
    /// Whether the conditions are of the object itself.
    pub fn is_object(&self) -> bool {
        *self == Self::Object
    }
}

impl fmt::Display for Scope {
    /// Nothing for the object itself; `listener NAME`; `parent Gateway ns/name[/section][:port]`; `ancestor Kind ns/name[/section]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let section = match self {
            Self::Object => return Ok(()),
            Self::Listener(name) => return write!(f, "listener {name}"),
            Self::Parent { gateway, reference } => {
                write!(f, "parent Gateway {gateway}")?;
                reference.section()
            }
            Self::Ancestor { kind, name, section, .. } => {
                write!(f, "ancestor {kind} {name}")?;
                section.as_deref()
            }
        };
        if let Some(section) = section {
            write!(f, "/{section}")?;
        }
        match self {
            Self::Parent { reference: ParentRef { port: Some(port), .. }, .. } => write!(f, ":{port}"),
            _ => Ok(()),
        }
    }
}

/// A parentRef of a route, as it is written there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParentRef {
    /// `group`
    pub group: Option<String>,
    /// `kind`
    pub kind: Option<String>,
    /// `namespace`
    pub namespace: Option<String>,
    /// `name`
    pub name: String,
    /// `sectionName`
    pub section_name: Option<String>,
    /// `port`
    pub port: Option<i32>,
}

impl ParentRef {
    fn section(&self) -> Option<&str> {
        self.section_name.as_deref().filter(|section| !section.is_empty())
    }
}

/// The conditions of one object under one parent (a Gateway's listener, a route's parentRef, a policy's ancestor) or of the object itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectStatus {
    /// The object.
    pub object: ObjectRef,
    /// The part of its status.
    pub scope: Scope,
    /// metadata.generation
    pub observed_generation: Option<i64>,
    /// Conditions in a fixed order.
    pub conditions: Vec<Condition>,
    /// For listeners: attachedRoutes.
    pub attached_routes: Option<u32>,
    /// For listeners: the kinds of `supportedKinds` (of group `gateway.networking.k8s.io`).
    pub supported_kinds: Vec<String>,
}

impl ObjectStatus {
    pub(crate) fn new(
        object: ObjectRef,
        scope: Scope,
        observed_generation: Option<i64>,
        conditions: Vec<Condition>,
    ) -> Self {
        Self {
            object,
            scope,
            observed_generation,
            conditions,
            attached_routes: None,
            supported_kinds: Vec::new(),
        }
    }

    /// Whether every condition is as a healthy object's (Accepted, ResolvedRefs, Enforced… True; Conflicted and
    /// PartiallyInvalid False). `InsecureFrontendValidationMode` only informs.
    pub fn is_accepted(&self) -> bool {
        self.conditions.iter().all(|condition| match condition.r#type.as_str() {
            "Conflicted" | "PartiallyInvalid" => condition.status == ConditionStatus::False,
            "InsecureFrontendValidationMode" => true,
            _ => condition.status == ConditionStatus::True,
        })
    }
}

impl Condition {
    pub(crate) fn new(
        r#type: &str,
        status: ConditionStatus,
        reason: &str,
        message: impl Into<String>,
    ) -> Self {
        Self { r#type: r#type.to_owned(), status, reason: reason.to_owned(), message: message.into() }
    }

    pub(crate) fn yes(r#type: &str, reason: &str, message: impl Into<String>) -> Self {
        Self::new(r#type, ConditionStatus::True, reason, message)
    }

    pub(crate) fn no(r#type: &str, reason: &str, message: impl Into<String>) -> Self {
        Self::new(r#type, ConditionStatus::False, reason, message)
    }
}

impl ObjectRef {
    pub(crate) fn new(group: &str, kind: &str, name: &NamespacedName) -> Self {
        Self {
            group: group.to_owned(),
            kind: kind.to_owned(),
            namespace: name.namespace.clone(),
            name: name.name.clone(),
        }
    }
}
