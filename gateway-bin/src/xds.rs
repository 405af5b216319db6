//! Configuration from a controller: the reduced objects of one Gateway over incremental ADS, put together as files are.
//!
//! [`Mirror`] holds what the controller sent and knows no network; [`Client`] is the network and knows no objects;
//! [`Saved`] is the last good configuration on disk.
mod client;
mod mirror;
mod saved;

use std::collections::HashMap;

use bytes::Bytes;
use tokio::sync::oneshot;

pub(crate) use self::{
    client::{Client, ClientSettings},
    mirror::Mirror,
    saved::{Saved, StateFile},
};

/// What one response changes: put in force as a whole, or not at all.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) set: Vec<Sent>,
    /// Names of resources that are gone.
    pub(crate) removed: Vec<String>,
}

/// One resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) name: String,
    pub(crate) version: String,
    /// The message, without the `Any` around it.
    pub(crate) body: Bytes,
}

/// What the client tells whoever keeps the configuration.
#[derive(Debug)]
pub(crate) enum Message {
    /// A stream begins: what is in force is asked for.
    Connecting(oneshot::Sender<Versions>),
    /// Objects came; the answer says whether they are in force, or why they are not.
    Objects(Changes, oneshot::Sender<Result<(), String>>),
    /// Session keys came.
    SessionKeys(Changes, oneshot::Sender<Result<(), String>>),
}

/// The versions in force, by the name of the resource (`initial_resource_versions`).
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Versions {
    pub(crate) objects: HashMap<String, String>,
    pub(crate) session_keys: HashMap<String, String>,
}
