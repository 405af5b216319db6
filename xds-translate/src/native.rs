//! What our own data plane gets over xDS: the user's objects, each reduced to what matters, of one Gateway.
//!
//! A data plane puts them into [`Objects`] and calls [`resolve`](crate::resolve()): the code that reads files. One change of
//! the user's is then one resource that changes.
use std::collections::BTreeSet;

use policy_model::NamespacedName;
use serde_json::Value;

use crate::{ObjectRef, Objects, Options};

/// Type URL of [`Object`] resources. All objects are of this one type, so that each response is one consistent change.
pub const OBJECT: &str = "type.googleapis.com/agentic.gateway.v1.Object";

/// Type URL of [`SessionKeys`] resources; there is one, named `session-keys`.
pub const SESSION_KEYS: &str = "type.googleapis.com/agentic.gateway.v1.SessionKeys";

/// A user's object: message `agentic.gateway.v1.Object`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Object {
    /// JSON of the object, reduced ([`reduce`]).
    #[prost(bytes = "vec", tag = "1")]
    pub json: Vec<u8>,
}

/// The keys that seal session ids, shared by the proxies of a Gateway: message `agentic.gateway.v1.SessionKeys`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SessionKeys {
    /// 32 bytes each; the first seals, all open.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub keys: Vec<Vec<u8>>,
}

/// The parts of an object that a decision or a status depends on: apiVersion, kind, of the metadata name, namespace,
/// uid, generation, creationTimestamp (and a Namespace's labels), and everything else but `status`. The same object
/// always gives the same value.
pub fn reduce(_object: &Value) -> Value {
    todo!()
}

/// Name of an object's resource: `group/Kind/namespace/name`, parts percent-encoded where needed, so that names cannot collide.
pub fn resource_name(_object: &ObjectRef) -> String {
    todo!()
}

/// The objects that can matter to a Gateway of ours, itself and its class included: resolving these alone gives the same
/// [`Snapshot`](crate::Snapshot) of that Gateway (decisions, routes, backends) as resolving all of them.
/// Nothing of other Gateways is in it: no Secret that only they name, no policy that only they need.
pub fn select(_objects: &Objects, _gateway: &NamespacedName, _options: &Options) -> BTreeSet<ObjectRef> {
    todo!()
}
