#![doc = include_str!("../README.md")]
#![warn(missing_docs, clippy::missing_errors_doc, clippy::missing_panics_doc)]

#[cfg(feature = "kube")]
pub mod crd;
mod model;
#[cfg(feature = "kube")]
mod read;
#[cfg(feature = "kube")]
mod schema;

pub use crate::model::{
    Action, AgenticGroup, AuthorizerProtocol, BackendAddress, Condition, Dialect, ExternalAuth, HeaderMatch,
    HostMatch, HttpMethod, Inline, McpMatch, McpMethodMatch, NamespacedName, ObjectName, PathMatch, Policy,
    PolicyKey, Rule, ServiceRef, Source, StringMatch, Target, TargetKind, Timestamp, XBackend,
};
#[cfg(feature = "kube")]
pub use crate::read::{ReadError, read_backend, read_policy};
#[cfg(feature = "kube")]
pub use crate::schema::{Schema, SchemaError, Violation};
