//! What each group of clients is to have.
use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

/// One resource: the value of its `Any`, and a version that is a function of its content alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Content hash (lower-case hexadecimal).
    pub version: Arc<str>,
    /// The serialized message, without the `Any` around it.
    pub body: Bytes,
}

impl Resource {
    /// A resource with the hash of its body as its version.
    pub fn new(body: impl Into<Bytes>) -> Self {
        let _body: Bytes = body.into();
        todo!()
    }
}

/// Everything that one group of clients is to have: resources by type URL and name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceSet {
    /// By type URL, then by name.
    pub types: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Resource>>,
}

impl ResourceSet {
    /// Hash of the names and versions of all resources of a type; a type without resources has one too.
    pub fn version_of(&self, _type_url: &str) -> Arc<str> {
        todo!()
    }
}

/// The sets of all groups; cheap to clone, all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Cache {}

impl Cache {
    /// Replaces what a group is to have. Clients get what differs, in one response per type: a response is applied as a
    /// whole, so that no client ever sees half of a change.
    pub fn publish(&self, _group: &str, _set: Arc<ResourceSet>) {
        todo!()
    }

    /// Forgets a group: its clients' streams end, and nobody of that group is served.
    pub fn remove(&self, _group: &str) {
        todo!()
    }

    /// What a group has now.
    pub fn set(&self, _group: &str) -> Option<Arc<ResourceSet>> {
        todo!()
    }
}
