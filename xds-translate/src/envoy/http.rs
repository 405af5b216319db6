//! What the two ways of deciding put into a listener's HTTP connection manager.
use serde_json::Value;

/// The part of an HTTP connection manager that depends on who decides.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Http {
    /// `http_filters`, the router last.
    pub(super) filters: Vec<Value>,
    /// A `RouteConfiguration`; its name says whose it is.
    pub(super) routes: Value,
    /// Whether the filters are to find the client's certificates in `x-forwarded-client-cert`, as Envoy writes it.
    pub(super) client_chain: bool,
    /// `local_reply_config`, if any.
    pub(super) local_replies: Option<Value>,
}
