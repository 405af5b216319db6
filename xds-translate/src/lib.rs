#![doc = include_str!("../README.md")]
#![warn(missing_docs, clippy::missing_errors_doc, clippy::missing_panics_doc)]

pub mod envoy;
pub mod native;
mod objects;
mod resolve;
mod router;
mod snapshot;
mod status;

pub use crate::objects::{Inserted, LoadError, Objects, Violation};
pub use crate::resolve::{Note, Options, Resolution, named_secrets, resolve};
pub use crate::router::{RouteFailure, RouteRequest, Routed, Router};
pub use crate::snapshot::{
    AuthorizerBackend, Backend, BackendId, BackendKind, CertificateAndKey, ClientCertificates, CorsFilter,
    Destination, Endpoint, Filters, HeaderFilter, Listener, ListenerTls, PathRewrite, Protocol, Redirect,
    RouteRule, RuleId, Snapshot, Timeouts, UpstreamTls, WeightedBackend,
};
pub use crate::status::{Condition, ConditionStatus, ObjectRef, ObjectStatus, ParentRef, Scope};
