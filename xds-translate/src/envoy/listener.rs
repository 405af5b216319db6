//! Listeners: one per port, a filter chain per HTTPS listener of the Gateway, one for all its HTTP listeners.
use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use serde_json::{Value, json};

use super::{
    Decider, Policy, Resource, ResourceKind, Settings, Translation, Unserved, cluster,
    http::Http,
    json::{address, duration, extension, set},
    processor::MAX_HEADERS,
    tls,
};
use crate::{Listener, Protocol, Snapshot};

/// Bytes of a request's head, and requests at a time on one HTTP/2 connection; as our own gateway.
const MAX_HEADER_KIB: u32 = 64;
const MAX_STREAMS: u32 = 128;
/// How long a request's head may take, and how long a connection without requests is kept; as our own gateway.
const HEADER_TIMEOUT: &str = "60s";
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: &str = "10s";
/// How long a client may pause while it sends a body. The route of decided requests has no such limit: event streams
/// are silent for long.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// By how much a body may exceed the limit and still reach whoever decides, who answers it with the right error.
const BODY_SLACK: u32 = 64 << 10;

/// Adds the listeners of all ports, and says which cannot be served.
pub(super) fn listeners(
    snapshot: &Snapshot,
    settings: &Settings,
    decider: &Decider<'_>,
    translation: &mut Translation,
) {
    let mut ports: BTreeMap<u16, Vec<&Listener>> = BTreeMap::new();
    for listener in &snapshot.listeners {
        ports.entry(listener.port).or_default().push(listener);
    }
    // Without a way to the processor nothing can be decided.
    let unreachable = match &settings.policy {
        Policy::Engine(engine) => cluster::processor(engine, settings).err(),
        Policy::Filters(_) => None,
    };
    for (port, listeners) in ports {
        let mut chains = Chains::default();
        let unserved =
            |listener: &Listener, reason: String| Unserved { listener: listener.name.clone(), reason };
        if let Some(reason) = &unreachable {
            translation.unserved.extend(listeners.iter().map(|listener| unserved(listener, reason.clone())));
            continue;
        }
        for &listener in listeners.iter().filter(|listener| listener.protocol == Protocol::Https) {
            let http = decider.http(snapshot, &[listener]);
            if let Err(reason) = chains.add_https(listener, http, settings) {
                translation.unserved.push(unserved(listener, reason));
            }
        }
        let plain: Vec<&Listener> =
            listeners.iter().copied().filter(|listener| listener.protocol == Protocol::Http).collect();
        if !plain.is_empty() {
            chains.add_http(port, decider.http(snapshot, &plain), settings);
        }
        if let Some(resource) = chains.listener(port, settings) {
            translation.resources.push(resource);
            translation.resources.append(&mut chains.resources);
        }
    }
}

/// The filter chains of one port, and the resources that they name.
#[derive(Default)]
struct Chains {
    chains: Vec<Value>,
    tls: bool,
    resources: Vec<Resource>,
}

impl Chains {
    fn add_https(&mut self, listener: &Listener, http: Http, settings: &Settings) -> Result<(), String> {
        let tls = listener.tls.as_ref().ok_or("its TLS settings do not resolve")?;
        let (socket, secrets) = tls::downstream(listener, tls, settings)?;
        let mut chain = json!({
            "name": listener.name,
            "transport_socket": socket,
            "transport_socket_connect_timeout": HANDSHAKE_TIMEOUT,
            "filters": [self.manager(&listener.name, http, settings)],
        });
        let mut matched = json!({"transport_protocol": "tls"});
        if let Some(hostname) = &listener.hostname {
            set(&mut matched, "server_names", json!([hostname]));
        }
        set(&mut chain, "filter_chain_match", matched);
        self.chains.push(chain);
        self.tls = true;
        self.resources.extend(secrets);
        Ok(())
    }

    fn add_http(&mut self, port: u16, http: Http, settings: &Settings) {
        let name = format!("http-{port}");
        let mut chain = json!({"name": name, "filters": [self.manager(&name, http, settings)]});
        if self.tls {
            set(&mut chain, "filter_chain_match", json!({"transport_protocol": "raw_buffer"}));
        }
        self.chains.push(chain);
    }

    /// The HTTP connection manager of a chain. Where the engine decides, its route table never changes and stands in it.
    fn manager(&mut self, name: &str, http: Http, settings: &Settings) -> Value {
        let window = buffer_limit(settings);
        let mut manager = json!({
            "stat_prefix": name,
            "codec_type": "AUTO",
            "http_filters": http.filters,
            // What a client says of who it is and where it comes from: `x-envoy-*` goes, `x-forwarded-proto` is as it is,
            // `x-forwarded-for` is judged as received and completed afterwards.
            "use_remote_address": true,
            "skip_xff_append": true,
            "forward_client_cert_details": if http.client_chain { "SANITIZE_SET" } else { "SANITIZE" },
            "generate_request_id": false,
            "server_header_transformation": "PASS_THROUGH",
            "scheme_header_transformation": {"match_upstream": true},
            // Paths are judged and forwarded as received; whoever decides refuses the ambiguous ones.
            "normalize_path": false,
            "merge_slashes": false,
            "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
            "max_request_headers_kb": MAX_HEADER_KIB,
            "common_http_protocol_options": {
                "max_headers_count": max_headers(settings),
                "idle_timeout": HEADER_TIMEOUT,
                "headers_with_underscores_action": "ALLOW",
            },
            // What a host is asked for stands in the Host header alone; as it is judged.
            "http_protocol_options": {"allow_absolute_url": false},
            "http2_protocol_options": {
                // A malformed request ends its stream, not everybody's on the connection.
                "override_stream_error_on_invalid_http_message": true,
                "max_concurrent_streams": MAX_STREAMS,
                // Also how much of a body is held while it is decided.
                "initial_stream_window_size": window,
                "initial_connection_window_size": window.saturating_mul(4).min(MAX_WINDOW),
                "connection_keepalive": {"interval": "30s", "timeout": "20s"},
            },
            "request_headers_timeout": HEADER_TIMEOUT,
            "stream_idle_timeout": duration(idle_timeout(settings)),
        });
        if http.client_chain {
            set(&mut manager, "set_current_client_cert_details", json!({"chain": true}));
        }
        if let Some(replies) = http.local_replies {
            set(&mut manager, "local_reply_config", replies);
        }
        match &settings.policy {
            Policy::Engine(_) => set(&mut manager, "route_config", http.routes),
            Policy::Filters(filters) => {
                if let Some(longest) = filters.max_connection {
                    if let Some(options) = manager.get_mut("common_http_protocol_options") {
                        set(options, "max_connection_duration", json!(duration(longest)));
                    }
                    // A response says that it is the last one; no request is cut off.
                    set(&mut manager, "http1_safe_max_connection_duration", json!(true));
                }
                let name = http.routes.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
                set(
                    &mut manager,
                    "rds",
                    json!({"config_source": cluster::from_ads(), "route_config_name": name}),
                );
                self.resources.push(Resource::new(ResourceKind::Routes, name, http.routes));
            }
        }
        extension(
            "envoy.filters.network.http_connection_manager",
            "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            manager,
        )
    }

    /// The listener with these chains; none: no listener.
    fn listener(&mut self, port: u16, settings: &Settings) -> Option<Resource> {
        if self.chains.is_empty() {
            return None;
        }
        let at = settings
            .listen
            .get(&port)
            .copied()
            .unwrap_or_else(|| SocketAddr::new(settings.listen_address, port));
        let name = format!("port-{port}");
        let mut listener = json!({
            "name": name,
            "address": address(at),
            "traffic_direction": "INBOUND",
            "filter_chains": self.chains,
            // How much of a body is held while it is decided, with HTTP/1.1.
            "per_connection_buffer_limit_bytes": buffer_limit(settings),
        });
        if self.tls {
            set(
                &mut listener,
                "listener_filters",
                json!([extension(
                    "envoy.filters.listener.tls_inspector",
                    "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
                    json!({}),
                )]),
            );
            set(&mut listener, "listener_filters_timeout", json!(HANDSHAKE_TIMEOUT));
        }
        Some(Resource::new(ResourceKind::Listener, name, listener))
    }
}

/// The largest window of HTTP/2 (RFC 9113, section 6.9.1), and the smallest that Envoy takes.
const MAX_WINDOW: u32 = (1 << 31) - 1;
const MIN_WINDOW: u32 = 65_535;

/// How many header lines a message may have. With the engine, which refuses (431) what has more than our own gateway takes,
/// there is room for what it adds: Envoy holds a message to this limit once more when it was changed, pseudo headers included.
pub(super) fn max_headers(settings: &Settings) -> usize {
    match settings.policy {
        Policy::Engine(_) => 2 * MAX_HEADERS,
        Policy::Filters(_) => MAX_HEADERS,
    }
}

/// How long nothing may happen on a stream that is not decided. Whoever decides must be done before.
fn idle_timeout(settings: &Settings) -> Duration {
    let deciding = match &settings.policy {
        Policy::Engine(engine) => engine.message_timeout,
        Policy::Filters(_) => settings.authorizer_timeout,
    };
    BODY_TIMEOUT.max(deciding.saturating_add(Duration::from_secs(5)))
}

/// How many bytes of a body are held while it is decided, in bytes.
pub(super) fn buffer_limit(settings: &Settings) -> u32 {
    settings.max_body_bytes.saturating_add(BODY_SLACK).clamp(MIN_WINDOW, MAX_WINDOW)
}
