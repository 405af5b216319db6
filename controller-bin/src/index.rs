//! The cluster as it was last seen, and what follows from it: synchronous, without a client, a clock or a runtime.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use policy_model::NamespacedName;
use serde_json::Value;
use xds_server::ResourceSet;
use xds_translate::{ObjectRef, ObjectStatus};

use crate::provision::Proxy;

/// A kind that is watched. Kinds are kept apart: a relist of one never drops another's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind {
    /// API group; empty for core.
    pub group: String,
    /// Kind, as `XAccessPolicy`.
    pub kind: String,
}

/// Everything that was seen.
#[derive(Debug)]
pub struct Index {}

/// Settings of an index.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Of the resolution.
    pub options: xds_translate::Options,
}

/// What follows from the objects: a pure function of them, whatever their order.
#[derive(Debug)]
pub struct Outcome {
    /// What each Gateway of ours gets. Gateways that are being deleted are not among them.
    pub gateways: BTreeMap<NamespacedName, GatewayOutcome>,
    /// As resolve gives them, `Programmed` included as "there is something to program".
    pub statuses: Vec<ObjectStatus>,
    /// Secrets that Gateways of ours may name (their own namespace, or with a ReferenceGrant): nobody may watch Secrets, so these are fetched one by one.
    pub secrets: BTreeSet<NamespacedName>,
}

/// Of one Gateway.
#[derive(Debug, Clone)]
pub struct GatewayOutcome {
    /// What its proxies get.
    pub resources: Arc<ResourceSet>,
    /// How its proxies are to run; an error where they cannot be provisioned (the message is for the Gateway's status).
    pub proxy: Result<Proxy, String>,
}

impl Index {
    /// An empty index.
    pub fn new(_settings: Settings) -> Self {
        todo!()
    }

    /// Adds or replaces an object, as the API server gives it. Whether anything that matters changed (resourceVersion and
    /// managedFields do not matter).
    pub fn apply(&mut self, _object: &Value) -> bool {
        todo!()
    }

    /// Removes an object. Whether it was there.
    pub fn delete(&mut self, _object: &ObjectRef) -> bool {
        todo!()
    }

    /// Replaces all objects of a kind. Whether anything that matters changed.
    pub fn reset(&mut self, _kind: &Kind, _objects: &[Value]) -> bool {
        todo!()
    }

    /// The object as the API server gave it last, status and resourceVersion included.
    pub fn object(&self, _object: &ObjectRef) -> Option<&Value> {
        todo!()
    }

    /// What follows.
    pub fn outcome(&self) -> Outcome {
        todo!()
    }
}
