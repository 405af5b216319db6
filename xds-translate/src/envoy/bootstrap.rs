//! Everything in one file that Envoy runs as it is.
use std::{collections::BTreeMap, net::SocketAddr};

use serde_json::{Map, Value, json};

use super::{
    ResourceKind, Translation,
    json::{address, extension, pipe},
};

/// Open client connections, all listeners together; as our own gateway.
const MAX_CONNECTIONS: u32 = 10_000;

/// A bootstrap with these resources as static ones (routes and endpoints inline), which `envoy -c` runs as is.
/// `admin`: where Envoy's own pages are, a loopback address (`IP:PORT`) or the path of a unix socket.
pub fn bootstrap(translation: &Translation, admin: &str) -> Value {
    let of = |kind: ResourceKind| translation.resources.iter().filter(move |resource| resource.kind == kind);
    let inlined = Inlined {
        endpoints: of(ResourceKind::Endpoints)
            .map(|resource| (resource.name.as_str(), &resource.json))
            .collect(),
        routes: of(ResourceKind::Routes).map(|resource| (resource.name.as_str(), &resource.json)).collect(),
    };
    let all = |kind: ResourceKind| -> Vec<Value> {
        of(kind).map(|resource| inlined.without_discovery(&resource.json)).collect()
    };
    let admin = admin.parse::<SocketAddr>().map_or_else(|_error| pipe(admin), address);
    json!({
        "admin": {"address": admin},
        "overload_manager": overload_manager(),
        "static_resources": {
            "listeners": all(ResourceKind::Listener),
            "clusters": all(ResourceKind::Cluster),
            "secrets": all(ResourceKind::Secret),
        },
    })
}

/// The `overload_manager` of a bootstrap: as many open client connections as our own gateway has, all listeners together.
pub fn overload_manager() -> Value {
    json!({"resource_monitors": [extension(
        "envoy.resource_monitors.global_downstream_max_connections",
        "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
        json!({"max_active_downstream_connections": MAX_CONNECTIONS}),
    )]})
}

/// What is referred to by name and stands in its place in a bootstrap.
struct Inlined<'a> {
    endpoints: BTreeMap<&'a str, &'a Value>,
    routes: BTreeMap<&'a str, &'a Value>,
}

impl Inlined<'_> {
    /// The same without anything to be discovered.
    fn without_discovery(&self, value: &Value) -> Value {
        match value {
            Value::Array(items) => items.iter().map(|item| self.without_discovery(item)).collect(),
            Value::Object(fields) => {
                let mut found = Map::new();
                for (name, value) in fields {
                    match name.as_str() {
                        // A secret without a source is a static one.
                        "sds_config" => {}
                        "rds" => {
                            let routes = value.get("route_config_name").and_then(Value::as_str);
                            let routes = routes.and_then(|name| self.routes.get(name));
                            found.insert(
                                "route_config".to_owned(),
                                routes.map_or(Value::Null, |routes| (*routes).clone()),
                            );
                        }
                        "eds_cluster_config" => {
                            let service =
                                value.get("service_name").and_then(Value::as_str).unwrap_or_default();
                            let endpoints = self.endpoints.get(service);
                            let endpoints = endpoints
                                .map_or_else(|| json!({"cluster_name": service}), |found| (*found).clone());
                            found.insert("type".to_owned(), json!("STATIC"));
                            found.insert("load_assignment".to_owned(), endpoints);
                        }
                        "type" if fields.contains_key("eds_cluster_config") => {}
                        _ => {
                            found.insert(name.clone(), self.without_discovery(value));
                        }
                    }
                }
                Value::Object(found)
            }
            other => other.clone(),
        }
    }
}
