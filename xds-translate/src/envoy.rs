//! A [`Snapshot`] as Envoy's configuration: listeners, routes, clusters, endpoints and secrets, in the JSON form of
//! Envoy's protobuf messages, for Envoy 1.36 to 1.40.
//!
//! Two ways, [`Policy`]. With [`Policy::Engine`] every request is decided by `agentic-gateway decide` beside Envoy, the
//! same engine and the same code as in our own gateway, [`processor`] is what both agree on. With [`Policy::Filters`]
//! policies become Envoy's own filters: a documented subset, closed where it ends.
mod engine;
mod filters;
mod http;
pub mod processor;
mod settings;

use serde_json::Value;

pub use self::settings::{Engine, Filters, OwnCertificate, Policy, Processor, Resolve, Settings, Version};
use crate::{Snapshot, status::ObjectStatus};

/// A resource of Envoy's.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// Which of the discovery services' types.
    pub kind: ResourceKind,
    /// Its name; two objects never share one.
    pub name: String,
    /// The message in protobuf's JSON form, with snake_case field names, without `@type`.
    pub json: Value,
}

/// The types of resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceKind {
    /// `envoy.config.cluster.v3.Cluster`
    Cluster,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment`
    Endpoints,
    /// `envoy.config.listener.v3.Listener`
    Listener,
    /// `envoy.config.route.v3.RouteConfiguration`
    Routes,
    /// `envoy.extensions.transport_sockets.tls.v3.Secret`
    Secret,
}

impl ResourceKind {
    /// The type URL.
    pub fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Routes => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        }
    }
}

/// What came of a translation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Translation {
    /// By type, then by name: the same for the same snapshot, whatever the order of objects.
    pub resources: Vec<Resource>,
    /// With [`Policy::Filters`]: policies that are outside the subset (`Accepted=False`, `UnsupportedValue`); what they
    /// target is closed.
    pub refused: Vec<ObjectStatus>,
}

/// Translates one Gateway. Total: what cannot be said to Envoy is closed there, or left out and said in `refused`.
pub fn translate(snapshot: &Snapshot, settings: &Settings) -> Translation {
    let _ = (snapshot, settings);
    todo!("translate")
}

/// A bootstrap with these resources as static ones (routes and endpoints inline), which `envoy -c` runs as is.
/// `admin`: where Envoy's own pages are, a loopback address or the path of a unix socket.
pub fn bootstrap(translation: &Translation, admin: &str) -> Value {
    let _ = (translation, admin);
    todo!("translate")
}
