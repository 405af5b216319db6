//! External authorizers: Envoy's ext_authz filter and the cluster that it asks.
use std::collections::BTreeMap;

use policy_model::{AuthorizerProtocol, ExternalAuth};
use serde_json::{Value, json};

use super::{
    super::{
        Resource, ResourceKind, Settings,
        cluster::{assignment, from_ads, options, unlimited},
        json::{address, any, duration, extension, set},
    },
    Side,
    test::MCP,
};
use crate::{AuthorizerBackend, Snapshot};

/// The namespace that authorizers of earlier versions of Envoy read.
pub(super) const COMPATIBLE: &str = "mcp_proxy";

/// What no authorizer sets: what was decided on, what frames a message, and whose message it is.
const PROTECTED: &str =
    "(?i)(?:mcp-|content-|proxy-).*|connection|keep-alive|te|trailer|transfer-encoding|upgrade|host";

/// An authorizer that some level of a chain may ask.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Asked<'a> {
    pub(super) side: Side,
    /// Index in [`Snapshot::authorizers`].
    pub(super) index: usize,
    pub(super) authorizer: &'a ExternalAuth,
    pub(super) backend: &'a AuthorizerBackend,
}

/// Everybody whom a snapshot's policies may ask.
pub(super) fn all<'a>(snapshot: &'a Snapshot, side: Side) -> impl Iterator<Item = Asked<'a>> {
    let known = snapshot.engine.authorizers().iter().zip(&snapshot.authorizers).enumerate();
    known.map(move |(index, (authorizer, backend))| Asked { side, index, authorizer, backend })
}

impl Asked<'_> {
    /// The filter's name.
    pub(super) fn name(&self) -> String {
        format!("agentic.ext_authz.{}.{}", self.side.name(), self.index)
    }

    fn cluster_name(&self) -> String {
        let reference = &self.authorizer.backend;
        let protocol = match self.authorizer.protocol {
            AuthorizerProtocol::Grpc { .. } => "grpc",
            AuthorizerProtocol::Http { .. } => "http",
        };
        format!("authorizer/{protocol}/{}:{}", reference.object, reference.port.unwrap_or_default())
    }

    /// The filter. It asks unless RBAC found that this request is not delegated; routes that do not know this authorizer turn it off.
    pub(super) fn filter(&self, settings: &Settings) -> Value {
        let timeout = duration(settings.authorizer_timeout);
        let mut filter = json!({
            "stat_prefix": self.name(),
            "transport_api_version": "V3",
            "failure_mode_allow": false,
            "status_on_error": {"code": "Forbidden"},
            "metadata_context_namespaces": [MCP, COMPATIBLE],
            "include_peer_certificate": true,
            "validate_mutations": true,
            "decoder_header_mutation_rules": {
                "disallow_system": true,
                "disallow_expression": {"regex": PROTECTED},
            },
            "filter_enabled_metadata": {
                "filter": "envoy.filters.http.rbac",
                "path": [{"key": format!("{}shadow_engine_result", self.side.prefix())}],
                "value": {"string_match": {"exact": "denied"}},
                "invert": true,
            },
        });
        let exactly = |names: &[String]| -> Value {
            let patterns: Vec<_> =
                names.iter().map(|name| json!({"exact": name, "ignore_case": true})).collect();
            // Envoy refuses an empty list; no header has no name.
            let none = || vec![json!({"exact": ":"})];
            json!({"patterns": if patterns.is_empty() { none() } else { patterns }})
        };
        match &self.authorizer.protocol {
            AuthorizerProtocol::Grpc { allowed_headers } => {
                let envoy = json!({"cluster_name": self.cluster_name(), "authority": self.backend.authority});
                set(&mut filter, "grpc_service", json!({"envoy_grpc": envoy, "timeout": timeout}));
                if let Some(names) = allowed_headers {
                    set(&mut filter, "allowed_headers", exactly(names));
                }
            }
            AuthorizerProtocol::Http { path, allowed_headers, allowed_response_headers } => {
                let uri = json!({
                    "uri": format!("http://{}", self.backend.authority),
                    "cluster": self.cluster_name(),
                    "timeout": timeout,
                });
                let mut service = json!({
                    "server_uri": uri,
                    "authorization_response": {"allowed_upstream_headers": exactly(allowed_response_headers)},
                });
                if !path.is_empty() {
                    set(&mut service, "path_prefix", json!(path));
                }
                set(&mut filter, "http_service", service);
                if !allowed_headers.is_empty() {
                    set(&mut filter, "allowed_headers", exactly(allowed_headers));
                }
            }
        }
        if let Some(bytes) = self.authorizer.forward_body.filter(|bytes| *bytes > 0) {
            let body =
                json!({"max_request_bytes": bytes, "allow_partial_message": true, "pack_as_bytes": true});
            set(&mut filter, "with_request_body", body);
        }
        extension(&self.name(), "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz", filter)
    }

    /// The filter on a route that does not ask this authorizer.
    pub(super) fn off() -> Value {
        any("envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute", json!({"disabled": true}))
    }
}

/// The clusters of all authorizers, with their endpoints.
pub(super) fn clusters(snapshot: &Snapshot, settings: &Settings) -> Vec<Resource> {
    let mut resources: BTreeMap<String, [Resource; 2]> = BTreeMap::new();
    for asked in all(snapshot, Side::Gateway) {
        let name = asked.cluster_name();
        let http = match asked.authorizer.protocol {
            AuthorizerProtocol::Grpc { .. } => json!({"http2_protocol_options": {}}),
            AuthorizerProtocol::Http { .. } => json!({"http_protocol_options": {}}),
        };
        let cluster = json!({
            "name": name,
            "type": "EDS",
            "eds_cluster_config": {"eds_config": from_ads(), "service_name": name},
            "connect_timeout": duration(settings.authorizer_timeout),
            "circuit_breakers": unlimited(0),
            "typed_extension_protocol_options": options(json!({"explicit_http_config": http})),
        });
        let endpoints = asked.backend.endpoints.iter().map(|endpoint| address(endpoint.socket_addr()));
        let endpoints = assignment(&name, endpoints);
        resources.insert(
            name.clone(),
            [
                Resource::new(ResourceKind::Cluster, name.clone(), cluster),
                Resource::new(ResourceKind::Endpoints, name, endpoints),
            ],
        );
    }
    resources.into_values().flatten().collect()
}
