//! A [`Snapshot`] as Envoy's configuration: listeners, routes, clusters, endpoints and secrets, in the JSON form of
//! Envoy's protobuf messages, for Envoy 1.36 to 1.40.
//!
//! Two ways, [`Policy`]. With [`Policy::Engine`] every request is decided by `agentic-gateway decide` beside Envoy, the
//! same engine and the same code as in our own gateway, [`processor`] is what both agree on. With [`Policy::Filters`]
//! policies become Envoy's own filters: a documented subset, closed where it ends.
mod bootstrap;
mod cluster;
mod engine;
mod filters;
mod http;
mod json;
mod listener;
pub mod processor;
mod settings;
mod tls;

use serde_json::Value;

pub use self::bootstrap::{bootstrap, overload_manager};
pub use self::settings::{Engine, Filters, OwnCertificate, Policy, Processor, Resolve, Settings, Version};
use self::{cluster::Clusters, filters::Plan, http::Http};
use crate::{Listener, Snapshot, status::ObjectStatus};

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

impl Resource {
    fn new(kind: ResourceKind, name: impl Into<String>, json: Value) -> Self {
        Self { kind, name: name.into(), json }
    }
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
    /// All of them, in the order of [`Translation::resources`].
    pub const ALL: [Self; 5] = [Self::Cluster, Self::Endpoints, Self::Listener, Self::Routes, Self::Secret];

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
    /// Listeners that are not served, and what to do about it.
    pub unserved: Vec<Unserved>,
}

/// A listener that is left out because Envoy could not serve it as it is meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unserved {
    /// Its name.
    pub listener: String,
    /// For people: why, and what to do.
    pub reason: String,
}

/// Translates one Gateway. Total: what cannot be said to Envoy is closed there, or left out and said in
/// [`refused`](Translation::refused) and [`unserved`](Translation::unserved).
pub fn translate(snapshot: &Snapshot, settings: &Settings) -> Translation {
    let decider = Decider::new(snapshot, settings);
    let mut translation = Translation::default();
    listener::listeners(snapshot, settings, &decider, &mut translation);
    Clusters::new(snapshot, settings).add(&mut translation);
    if let Decider::Filters(plan) = &decider {
        translation.refused = plan.refused();
        translation.resources.extend(plan.clusters());
    }
    let resources = &mut translation.resources;
    resources.sort_by(|one, other| (one.kind, &one.name).cmp(&(other.kind, &other.name)));
    // Listeners share the proxy's own certificate.
    resources.dedup();
    translation.unserved.sort();
    translation
}

/// Who decides, prepared for all listeners.
enum Decider<'a> {
    Engine {
        engine: &'a Engine,
        /// Bytes of a body that Envoy holds.
        held: u32,
    },
    Filters(Plan<'a>),
}

impl<'a> Decider<'a> {
    fn new(snapshot: &'a Snapshot, settings: &'a Settings) -> Self {
        match &settings.policy {
            Policy::Engine(engine) => Self::Engine { engine, held: listener::buffer_limit(settings) },
            Policy::Filters(filters) => Self::Filters(Plan::new(snapshot, filters, settings)),
        }
    }

    fn http(&self, snapshot: &Snapshot, listeners: &[&Listener]) -> Http {
        match self {
            Self::Engine { engine, held } => engine::http(snapshot, listeners, engine, *held),
            Self::Filters(plan) => plan.http(listeners),
        }
    }
}
