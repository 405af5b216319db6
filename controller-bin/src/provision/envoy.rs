//! Envoy, with our engine beside it or alone: what it begins with, and how it runs in a Pod.
//!
//! Everything else Envoy gets by discovery, as the identity that the Pod has, from a server with the controller's SPIFFE ID.
use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use xds_translate::envoy::{OwnCertificate, overload_manager};

use super::{
    Envoy, EnvoyPolicy, Proxy, Settings,
    objects::{
        DRAIN_SECONDS, IDENTITY_DIR, LINGER_SECONDS, Ports, container, gateway_arguments, mounts, probe,
        secured,
    },
    proxy_name,
};

/// Where the files of [`files`] are.
const CONFIG_DIR: &str = "/etc/envoy";
const BOOTSTRAP: &str = "envoy.json";
const CERTIFICATE: &str = "certificate.json";
const ROOTS: &str = "roots.json";
/// The folder that both containers share: where the engine listens.
const SOCKET_DIR: &str = "/run/agentic-decide";
/// Where the engine listens.
const SOCKET: &str = "/run/agentic-decide/decide.sock";
const CREDENTIALS: &str = "/run/gateway-identity-mtls/credential-bundle.pem";
/// What an Envoy that is alone calls its cluster: it has nobody to ask, whatever the class says meanwhile.
pub const ALONE: &str = "envoy-alone";
/// How long clients of an Envoy that is alone keep a connection. Nobody tells it that its Pod goes; but within this time
/// after its address is taken from the Service, all have gone.
pub const ALONE_CONNECTION: Duration = Duration::from_secs(60);
/// How long what runs on a connection may take after that, in seconds.
const LAST_REQUESTS: u32 = 10;
/// How long Envoy may wait for its first configuration before it is started anew, in seconds.
const STARTUP: u32 = 300;

/// Where Envoy in these Pods finds the proxy's own certificate.
pub fn own_certificate() -> OwnCertificate {
    OwnCertificate {
        chain: CREDENTIALS.to_owned(),
        key: CREDENTIALS.to_owned(),
        watched: Some(IDENTITY_DIR.to_owned()),
    }
}

/// Path of the unix socket on which the engine listens in these Pods.
pub fn decide_socket() -> &'static str {
    SOCKET
}

/// Files of the ConfigMap that Envoy reads, by name.
pub(super) fn files(proxy: &Proxy, settings: &Settings, ports: &Ports) -> BTreeMap<String, String> {
    let text = |json: &Value| json.to_string();
    BTreeMap::from([
        (BOOTSTRAP.to_owned(), text(&bootstrap(proxy, settings, ports))),
        (CERTIFICATE.to_owned(), text(&certificate())),
        (ROOTS.to_owned(), text(&roots(settings))),
    ])
}

/// How long an Envoy may go on after its deletion was asked for, in seconds. It ends at once when it is told to.
pub(super) fn end_seconds(envoy: &Envoy) -> u32 {
    match envoy.policy {
        // The engine, which is told after the time to linger, has it end its requests, and then has it end.
        EnvoyPolicy::Engine => LINGER_SECONDS + DRAIN_SECONDS + 1,
        EnvoyPolicy::Filters => {
            let connection = u32::try_from(ALONE_CONNECTION.as_secs()).unwrap_or(u32::MAX);
            LINGER_SECONDS.saturating_add(connection).saturating_add(LAST_REQUESTS)
        }
    }
}

/// The containers: Envoy first.
pub(super) fn containers(envoy: &Envoy, proxy: &Proxy, settings: &Settings, ports: &Ports) -> Vec<Value> {
    let image = envoy.image.as_ref().unwrap_or(&settings.envoy_image);
    let mut own_mounts = vec![
        json!({"name": "identity", "mountPath": IDENTITY_DIR, "readOnly": true}),
        json!({"name": "envoy", "mountPath": CONFIG_DIR, "readOnly": true}),
    ];
    if envoy.policy == EnvoyPolicy::Engine {
        own_mounts.push(json!({"name": "decide", "mountPath": SOCKET_DIR, "readOnly": true}));
    }
    let own = json!({
        "name": "envoy",
        "image": image.image,
        // Of Envoy's images some have a shell before the program and some do not: both take arguments alone.
        "args": [
            "-c", format!("{CONFIG_DIR}/{BOOTSTRAP}"),
            // Shares memory with a successor, of which there is none.
            "--disable-hot-restart",
            "--log-level", log_level(proxy),
            "--drain-strategy", "immediate",
            "--drain-time-s", DRAIN_SECONDS.to_string(),
        ],
        "ports": [{"name": "ready", "containerPort": ports.envoy_health, "protocol": "TCP"}],
        "startupProbe": probe("ready", "/ready", 1, STARTUP),
        "readinessProbe": probe("ready", "/ready", 2, 3),
        "livenessProbe": probe("ready", "/live", 10, 3),
        "lifecycle": {"preStop": {"sleep": {"seconds": end_seconds(envoy)}}},
        "resources": {
            "requests": {"cpu": "100m", "memory": "128Mi"},
            "limits": {"memory": "1Gi"},
        },
        "volumeMounts": own_mounts,
    });
    if envoy.policy == EnvoyPolicy::Filters {
        return vec![secured(own)];
    }
    let mut args = vec!["decide".to_owned(), format!("--listen=unix:{SOCKET}")];
    args.extend(gateway_arguments(proxy, settings, ports));
    args.push(format!("--envoy-admin=127.0.0.1:{}", ports.envoy_admin));
    let mut mounts = mounts();
    mounts.push(json!({"name": "decide", "mountPath": SOCKET_DIR}));
    let decide = container("decide", proxy, settings, &args, &mounts, ports);
    vec![secured(own), decide]
}

/// The volumes that they need besides those of our own gateway.
pub(super) fn volumes(envoy: &Envoy, proxy: &Proxy) -> Vec<Value> {
    let items = [BOOTSTRAP, CERTIFICATE, ROOTS].map(|name| json!({"key": name, "path": name}));
    let mut volumes =
        vec![json!({"name": "envoy", "configMap": {"name": proxy_name(&proxy.gateway), "items": items}})];
    if envoy.policy == EnvoyPolicy::Engine {
        volumes.push(json!({"name": "decide", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}));
    }
    volumes
}

/// Envoy's name of the level that the class's parameters set for all.
fn log_level(proxy: &Proxy) -> &str {
    proxy.flags.iter().find_map(|flag| flag.strip_prefix("--log=")).unwrap_or("warn")
}

fn bootstrap(proxy: &Proxy, settings: &Settings, ports: &Ports) -> Value {
    let ads = json!({"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"});
    let cluster = match &proxy.data_plane {
        data_plane if data_plane.is_alone() => ALONE.to_owned(),
        _ => proxy_name(&proxy.gateway),
    };
    json!({
        // Who it is says its certificate; this is for people, and says that there is no engine beside it.
        "node": {"id": proxy.gateway.to_string(), "cluster": cluster},
        "admin": {
            "address": address("127.0.0.1", ports.envoy_admin),
            "ignore_global_conn_limit": true,
        },
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{"envoy_grpc": {"cluster_name": "agentic-controller"}}],
            },
            "cds_config": ads,
            "lds_config": ads,
        },
        "static_resources": {
            "clusters": [controller(settings), admin(ports)],
            "listeners": [probes(ports)],
        },
        "overload_manager": overload_manager(),
    })
}

fn address(host: &str, port: u16) -> Value {
    json!({"socket_address": {"address": host, "port_value": port}})
}

/// A cluster with one address.
fn cluster(name: &str, kind: &str, address: &Value) -> serde_json::Map<String, Value> {
    let cluster = json!({
        "name": name,
        "type": kind,
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    });
    cluster.as_object().cloned().unwrap_or_default()
}

/// The discovery service, over mTLS: nobody else's configuration is taken, whatever host name its certificate has.
fn controller(settings: &Settings) -> Value {
    let sds = |file: &str| {
        json!({
            "path_config_source": {"path": format!("{CONFIG_DIR}/{file}")},
            "resource_api_version": "V3",
        })
    };
    let mut cluster =
        cluster("agentic-controller", "STRICT_DNS", &address(&settings.xds_host, settings.xds_port));
    cluster.insert(
        "typed_extension_protocol_options".to_owned(),
        json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {
                // A controller that is gone without a word is noticed.
                "connection_keepalive": {"interval": "20s", "timeout": "10s"},
            }},
        }}),
    );
    cluster.insert(
        "transport_socket".to_owned(),
        json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": settings.xds_host,
                "common_tls_context": {
                    "alpn_protocols": ["h2"],
                    "tls_params": {
                        "tls_minimum_protocol_version": "TLSv1_3",
                        "tls_maximum_protocol_version": "TLSv1_3",
                    },
                    "tls_certificate_sds_secret_configs": [{"name": "certificate", "sds_config": sds(CERTIFICATE)}],
                    // With the name in it: what it is checked against must not come from elsewhere.
                    "validation_context_sds_secret_config": {"name": "roots", "sds_config": sds(ROOTS)},
                },
            },
        }),
    );
    Value::Object(cluster)
}

/// Envoy's own pages, for the probes.
fn admin(ports: &Ports) -> Value {
    Value::Object(cluster("admin", "STATIC", &address("127.0.0.1", ports.envoy_admin)))
}

/// What a kubelet asks: of Envoy's own pages the one that says whether it serves, and nothing else.
fn probes(ports: &Ports) -> Value {
    json!({
        "name": "probes",
        "address": address("0.0.0.0", ports.envoy_health),
        "ignore_global_conn_limit": true,
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "probes",
                "codec_type": "HTTP1",
                // Whoever reaches the Pod reaches it: none may keep a place that a probe needs.
                "common_http_protocol_options": {
                    "max_connection_duration": "5s",
                    "idle_timeout": "2s",
                    "max_requests_per_connection": 1,
                },
                "request_timeout": "2s",
                "request_headers_timeout": "2s",
                "route_config": {"name": "probes", "virtual_hosts": [{
                    "name": "probes",
                    "domains": ["*"],
                    "routes": [
                        {"match": {"path": "/ready"}, "route": {"cluster": "admin", "timeout": "2s"}},
                        {"match": {"path": "/live"}, "direct_response": {"status": 200}},
                    ],
                }]},
                "http_filters": [{
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
                }],
            },
        }]}],
    })
}

/// The proxy's certificate, as a file that is read again whenever the kubelet has written the other files anew.
fn certificate() -> Value {
    json!({"resources": [{
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        "name": "certificate",
        "tls_certificate": {
            "certificate_chain": {"filename": CREDENTIALS},
            "private_key": {"filename": CREDENTIALS},
            "watched_directory": {"path": IDENTITY_DIR},
        },
    }]})
}

/// Whom the proxy takes its configuration from.
fn roots(settings: &Settings) -> Value {
    json!({"resources": [{
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        "name": "roots",
        "validation_context": {
            "trusted_ca": {"filename": format!("{IDENTITY_DIR}/{}.trust-bundle.pem", settings.trust_domain)},
            "watched_directory": {"path": IDENTITY_DIR},
            "match_typed_subject_alt_names": [
                {"san_type": "URI", "matcher": {"exact": settings.xds_server_id}},
            ],
        },
    }]})
}
