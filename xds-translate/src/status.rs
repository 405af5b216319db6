//! Conditions, as the controller would write them; without timestamps (the writer keeps those).
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

/// The conditions of one object under one parent (a Gateway's listener, a route's parentRef, a policy's ancestor) or of the object itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectStatus {
    /// The object.
    pub object: ObjectRef,
    /// `""` for the object itself; `listener NAME`; `parent Gateway ns/name[/section][:port]`; `ancestor Kind ns/name[/section]`.
    pub scope: String,
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
        scope: impl Into<String>,
        observed_generation: Option<i64>,
        conditions: Vec<Condition>,
    ) -> Self {
        let scope = scope.into();
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
