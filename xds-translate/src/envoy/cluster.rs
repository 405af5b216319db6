//! Clusters and their endpoints.
use std::{collections::BTreeSet, net::SocketAddr};

use serde_json::{Value, json};

use super::{
    Engine, Policy, Processor, Resource, ResourceKind, Settings, Translation,
    json::{address, any, duration, extension, pipe, set},
    listener::max_headers,
    processor::{ENDPOINT, NAMESPACE, cluster_name},
    tls,
};
use crate::{Backend, BackendId, Destination, Snapshot};

/// The cluster of the external processor. Names of backends' clusters have a `/`.
pub(super) const PROCESSOR: &str = "processor";

/// How long an unused connection to a backend is kept; as our own gateway.
const IDLE: &str = "60s";

/// What is in the way of nobody: limits are the listener's.
const UNLIMITED: u32 = u32::MAX;

/// The clusters of a Gateway.
pub(super) struct Clusters<'a> {
    snapshot: &'a Snapshot,
    settings: &'a Settings,
}

impl<'a> Clusters<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, settings: &'a Settings) -> Self {
        Self { snapshot, settings }
    }

    /// Adds them all.
    pub(super) fn add(&self, translation: &mut Translation) {
        let resources = &mut translation.resources;
        let routed: BTreeSet<&BackendId> = self
            .snapshot
            .rules
            .iter()
            .flat_map(|rule| &rule.backends)
            .filter_map(|weighted| weighted.backend.as_ref())
            .collect();
        // Authorizers are asked by the processor; with filters they have clusters of their own.
        for backend in self.snapshot.backends.values().filter(|backend| routed.contains(&backend.id)) {
            self.add_backend(backend, resources);
        }
        if let Policy::Engine(engine) = &self.settings.policy
            && let Ok((cluster, secret)) = processor(engine, self.settings)
        {
            resources.push(Resource::new(ResourceKind::Cluster, PROCESSOR, cluster));
            resources.extend(secret);
        }
    }

    fn add_backend(&self, backend: &Backend, resources: &mut Vec<Resource>) {
        let name = cluster_name(&backend.id);
        let mut cluster = json!({
            "name": name,
            "connect_timeout": duration(self.settings.connect_timeout),
            "circuit_breakers": unlimited(self.retries(backend)),
            "typed_extension_protocol_options": http_options(backend, self.settings),
        });
        if let Some(tls) = &backend.tls {
            set(&mut cluster, "transport_socket", tls::upstream(tls, self.settings));
        }
        match &backend.destination {
            Destination::Endpoints(endpoints) => {
                set(&mut cluster, "type", json!("EDS"));
                set(
                    &mut cluster,
                    "eds_cluster_config",
                    json!({"eds_config": from_ads(), "service_name": name}),
                );
                match &self.settings.policy {
                    Policy::Engine(_) => set(&mut cluster, "load_balancing_policy", chosen_endpoint()),
                    Policy::Filters(_) => set(&mut cluster, "lb_policy", json!("ROUND_ROBIN")),
                }
                let endpoints = endpoints.iter().map(|endpoint| endpoint.socket_addr());
                resources.push(Resource::new(
                    ResourceKind::Endpoints,
                    name.clone(),
                    assignment(&name, endpoints.map(address)),
                ));
            }
            Destination::Hostname { host, port } => match &self.settings.policy {
                // The processor resolves the name and refuses loopback and link-local addresses; what it checked is
                // what is connected to, nothing is resolved twice.
                Policy::Engine(_) => {
                    set(&mut cluster, "type", json!("ORIGINAL_DST"));
                    set(&mut cluster, "lb_policy", json!("CLUSTER_PROVIDED"));
                    set(&mut cluster, "original_dst_lb_config", json!({"metadata_key": endpoint_key()}));
                }
                Policy::Filters(_) => {
                    let (kind, addresses) = self.resolved(host, *port);
                    set(&mut cluster, "type", json!(kind));
                    set(&mut cluster, "load_assignment", assignment(&name, addresses));
                }
            },
        }
        resources.push(Resource::new(ResourceKind::Cluster, name, cluster));
    }

    /// How many requests may be with a second endpoint at the same time, because a first one took no connection: any number,
    /// where there can be a second one.
    fn retries(&self, backend: &Backend) -> u32 {
        match (&self.settings.policy, &backend.destination) {
            (Policy::Engine(_), Destination::Endpoints(_)) => UNLIMITED,
            _ => 0,
        }
    }

    /// A host name for Envoy's own DNS, or the addresses that were given for it.
    fn resolved(&self, host: &str, port: u16) -> (&'static str, Vec<Value>) {
        let given: Vec<SocketAddr> = self
            .settings
            .resolve
            .iter()
            .filter(|entry| entry.host.eq_ignore_ascii_case(host) && entry.port == port)
            .map(|entry| entry.address)
            .collect();
        if given.is_empty() {
            let name = json!({"socket_address": {"address": host, "port_value": port}});
            ("LOGICAL_DNS", vec![name])
        } else {
            ("STATIC", given.into_iter().map(address).collect())
        }
    }
}

/// The cluster of the external processor, with the secret that it names.
///
/// # Errors
/// What is missing; then no listener can be served.
pub(super) fn processor(engine: &Engine, settings: &Settings) -> Result<(Value, Option<Resource>), String> {
    let mut cluster = json!({
        "name": PROCESSOR,
        "type": "STATIC",
        "connect_timeout": "1s",
        // One stream per request, for as long as its response takes.
        "circuit_breakers": unlimited(0),
        "typed_extension_protocol_options": options(
            json!({"explicit_http_config": {"http2_protocol_options": {}}}),
        ),
    });
    let (at, secret) = match &engine.processor {
        Processor::Socket(path) => (pipe(path), None),
        Processor::Mtls { address: at, id } => {
            let (socket, secret) = tls::processor(id, settings)?;
            set(&mut cluster, "transport_socket", socket);
            (address(*at), Some(secret))
        }
    };
    set(&mut cluster, "load_assignment", assignment(PROCESSOR, [at]));
    Ok((cluster, secret))
}

/// A `ConfigSource` that is the stream which everything comes by.
pub(super) fn from_ads() -> Value {
    json!({"ads": {}, "resource_api_version": "V3"})
}

/// Where in the dynamic metadata the processor says which endpoint it is to be.
fn endpoint_key() -> Value {
    json!({"key": NAMESPACE, "path": [{"key": ENDPOINT}]})
}

/// The endpoints that the processor named, one after the other while none takes a connection (a session stays on the one
/// that opened it), and no other: where Envoy knows none of them, nothing is sent (503). A balancer that finds no subset is
/// how Envoy is told so.
fn chosen_endpoint() -> Value {
    let in_turn = extension(
        "envoy.load_balancing_policies.round_robin",
        "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin",
        json!({}),
    );
    let no_other = extension(
        "envoy.load_balancing_policies.subset",
        "envoy.extensions.load_balancing_policies.subset.v3.Subset",
        json!({
            "fallback_policy": "NO_FALLBACK",
            "subset_selectors": [{"keys": ["none"]}],
            "subset_lb_policy": {"policies": [{"typed_extension_config": in_turn}]},
        }),
    );
    let named = extension(
        "envoy.load_balancing_policies.override_host",
        "envoy.extensions.load_balancing_policies.override_host.v3.OverrideHost",
        json!({
            "override_host_sources": [{"metadata": endpoint_key()}],
            "fallback_policy": {"policies": [{"typed_extension_config": no_other}]},
        }),
    );
    json!({"policies": [{"typed_extension_config": named}]})
}

pub(super) fn assignment(name: &str, addresses: impl IntoIterator<Item = Value>) -> Value {
    let endpoints: Vec<_> =
        addresses.into_iter().map(|address| json!({"endpoint": {"address": address}})).collect();
    if endpoints.is_empty() {
        return json!({"cluster_name": name});
    }
    json!({"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]})
}

/// Without limits other than of retries.
pub(super) fn unlimited(retries: u32) -> Value {
    json!({"thresholds": [{
        "max_connections": UNLIMITED,
        "max_pending_requests": UNLIMITED,
        "max_requests": UNLIMITED,
        "max_retries": retries,
    }]})
}

/// HTTP/2 where it is agreed on (ALPN) or asked for (h2c), else HTTP/1.1.
fn http_options(backend: &Backend, settings: &Settings) -> Value {
    let http2 = json!({"connection_keepalive": {"interval": "20s", "timeout": "10s"}});
    let mut http = if backend.tls.is_some() {
        json!({"auto_config": {"http_protocol_options": {}, "http2_protocol_options": http2}})
    } else if backend.h2c {
        json!({"explicit_http_config": {"http2_protocol_options": http2}})
    } else {
        json!({"explicit_http_config": {"http_protocol_options": {}}})
    };
    let mut common = json!({"idle_timeout": IDLE});
    if let Policy::Engine(_) = settings.policy {
        set(&mut common, "max_headers_count", json!(max_headers(settings)));
    }
    set(&mut http, "common_http_protocol_options", common);
    options(http)
}

pub(super) fn options(http: Value) -> Value {
    let message = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    json!({message: any(message, http)})
}
