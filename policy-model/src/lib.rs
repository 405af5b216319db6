#![doc = include_str!("../README.md")]
#![warn(missing_docs, clippy::missing_errors_doc, clippy::missing_panics_doc)]

mod model;

pub use crate::model::{
    Action, AgenticGroup, AuthorizerProtocol, BackendAddress, Condition, Dialect, ExternalAuth, HeaderMatch, HostMatch, HttpMethod,
    Inline, McpMatch, McpMethodMatch, NamespacedName, ObjectName, PathMatch, Policy, PolicyKey, Rule, ServiceRef, Source,
    StringMatch, Target, TargetKind, Timestamp, XBackend,
};
