//! Conditions, as the controller would write them; without timestamps (the writer keeps those).

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
    /// `Accepted`, `ResolvedRefs`, `Programmed`, `Enforced`, `Conflicted`.
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
    /// `""` for the object itself; `listener NAME`; `parent Gateway ns/name[/section]`; `ancestor Kind ns/name`.
    pub scope: String,
    /// metadata.generation
    pub observed_generation: Option<i64>,
    /// Conditions in a fixed order.
    pub conditions: Vec<Condition>,
    /// For listeners: attachedRoutes.
    pub attached_routes: Option<u32>,
}

impl ObjectStatus {
    /// Whether every condition is as a healthy object's (Accepted, ResolvedRefs, Enforced… True; Conflicted False).
    pub fn is_accepted(&self) -> bool {
        todo!()
    }
}
