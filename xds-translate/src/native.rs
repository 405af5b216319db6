//! What our own data plane gets over xDS: the user's objects, each reduced to what matters, of one Gateway.
//!
//! A data plane puts them into [`Objects`] and calls [`resolve`](crate::resolve()): the code that reads files. One change of
//! the user's is then one resource that changes.
mod reduce;

use std::{collections::BTreeSet, fmt::Write as _};

use policy_model::NamespacedName;
use serde_json::Value;

pub use crate::resolve::Selector;
use crate::{ObjectRef, Objects, Options, objects::kind};

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

impl Object {
    /// The resource of an object: [reduced](reduce), as JSON.
    pub fn new(object: &Value) -> Self {
        // `Value`'s Display is JSON, and cannot fail.
        Self { json: reduce(object).to_string().into_bytes() }
    }

    /// The object.
    ///
    /// # Errors
    /// Bytes that are no JSON.
    pub fn value(&self) -> Result<Value, serde_json::Error> {
        serde_json::from_slice(&self.json)
    }
}

/// The parts of an object that a decision, a route or a status depends on: apiVersion, kind, of the metadata name,
/// namespace, uid, generation, creationTimestamp, and everything else but `status`. Of Kubernetes' own kinds less:
///
/// - Secret: `tls.crt` and `tls.key`; ConfigMap: `ca.crt` (parameters of a GatewayClass are not a data plane's matter);
/// - Service: type and ports; EndpointSlice: the addresses that are ready, ports, the label that names its Service;
/// - Namespace: labels.
///
/// The same parts always give the same value, and reducing twice changes nothing. What [`Objects::insert`] cannot read it
/// cannot read of the reduced object either, and what such an object closes is the same.
pub fn reduce(object: &Value) -> Value {
    reduce::reduce(object)
}

/// What an object is, if it is of a kind that [`Objects`] keeps (in a version that is read) and has a name. A namespaced
/// object without a namespace is in `default`.
pub fn object_ref(object: &Value) -> Option<ObjectRef> {
    kind::object_ref(object)
}

/// Name of an object's resource: `group/Kind/namespace/name`, with `%`, `/` and what is no printable ASCII percent-encoded
/// in each part, so that names cannot collide.
pub fn resource_name(object: &ObjectRef) -> String {
    let parts = [&object.group, &object.kind, &object.namespace, &object.name];
    let mut name = String::with_capacity(parts.iter().map(|part| part.len() + 1).sum());
    for (index, part) in parts.into_iter().enumerate() {
        if index > 0 {
            name.push('/');
        }
        for byte in part.bytes() {
            match byte {
                b'%' | b'/' => encode(byte, &mut name),
                b'!'..=b'~' => name.push(char::from(byte)),
                _ => encode(byte, &mut name),
            }
        }
    }
    name
}

fn encode(byte: u8, into: &mut String) {
    // Writing to a String cannot fail.
    let _ok = write!(into, "%{byte:02X}");
}

/// The objects that can matter to a Gateway of ours, itself and its class included: resolving these alone gives the same
/// [`Snapshot`](crate::Snapshot) of that Gateway (decisions, routes, backends) as resolving all of them.
/// Nothing of other Gateways is in it: no Secret that only they name, no policy that only they need.
///
/// For several Gateways make one [`Selector`].
pub fn select(objects: &Objects, gateway: &NamespacedName, options: &Options) -> BTreeSet<ObjectRef> {
    Selector::new(objects, options).select(gateway)
}
