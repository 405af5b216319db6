//! The objects of a Gateway's proxies: a pure function.
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    DataPlane, GATEWAY_LABEL, PROXY_LABEL, Proxy, Settings, drift, envoy, gateway_label, proxy_name,
};
use crate::identity::BUNDLE;

/// On a proxy's Pods: the hash of the ConfigMap that they read.
const CONFIGURATION: &str = "agentic.networking.x-k8s.io/configuration";
/// Where certificate and bundle are mounted: upstream's path.
pub(super) const IDENTITY_DIR: &str = "/run/gateway-identity-mtls";
/// Where the proxy keeps the last good configuration, for a warm start.
const STATE_DIR: &str = "/var/lib/agentic-gateway";
/// Of the image, and of what the kubelet writes for it.
const USER: u32 = 65532;
/// Where the proxy answers probes, unless a listener has the port.
const HEALTH_PORT: u16 = 15021;
/// Where the proxy answers people, on loopback, unless a listener has the port.
const ADMIN_PORT: u16 = 15000;
/// How long open requests may take to end.
pub(super) const DRAIN_SECONDS: u32 = 30;
/// How long the proxy goes on accepting after its deletion was asked for: load balancers learn of it that late.
pub(super) const LINGER_SECONDS: u32 = 5;

/// The Pod's own ports, none of them a listener's.
pub(super) struct Ports {
    health: u16,
    admin: u16,
    pub(super) envoy_health: u16,
    pub(super) envoy_admin: u16,
}

impl Ports {
    /// A new listener must not be a new rollout, so the Pod does not list listeners' ports and goes out of their way.
    fn new(listeners: &[u16]) -> Self {
        let health = free_port(HEALTH_PORT, listeners);
        let admin = free_port(ADMIN_PORT, listeners);
        let mut taken = listeners.to_vec();
        taken.extend([health, admin]);
        let envoy_health = free_port(HEALTH_PORT, &taken);
        let envoy_admin = free_port(ADMIN_PORT, &taken);
        Self { health, admin, envoy_health, envoy_admin }
    }
}

/// The objects to apply, in order: ServiceAccount, ConfigMap, Deployment, PodDisruptionBudget and, if there is a port,
/// Service.
///
/// Who a proxy is and whom it listens to are its arguments. The ConfigMap holds what the class's parameters set, and what
/// Envoy begins with; containers name each key that they read, so that a key that somebody adds sets nothing.
pub fn objects(proxy: &Proxy, settings: &Settings) -> Vec<Value> {
    let ports = Ports::new(&proxy.ports);
    let data = data(proxy, settings, &ports);
    let mut objects = vec![
        object("v1", "ServiceAccount", proxy, json!({"automountServiceAccountToken": false})),
        object("v1", "ConfigMap", proxy, json!({"data": data})),
        object("apps/v1", "Deployment", proxy, json!({"spec": deployment(proxy, settings, &ports, &data)})),
        object(
            "policy/v1",
            "PodDisruptionBudget",
            proxy,
            json!({"spec": {
                // Not `minAvailable: 1`: with one replica that would block the draining of its node for ever.
                "maxUnavailable": 1,
                "selector": {"matchLabels": selector(proxy)},
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
            }}),
        ),
    ];
    // The API server refuses a Service without ports.
    if !proxy.ports.is_empty() {
        objects.push(object("v1", "Service", proxy, json!({"spec": service(proxy)})));
    }
    for object in &mut objects {
        drift::seal(object);
    }
    objects
}

fn object(api_version: &str, kind: &str, proxy: &Proxy, rest: Value) -> Value {
    let mut metadata = json!({
        "name": proxy_name(&proxy.gateway),
        "namespace": proxy.gateway.namespace,
        "labels": labels(proxy),
        // The garbage collector deletes all of it with the Gateway: there is no finalizer to wait for.
        "ownerReferences": [{
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "name": proxy.gateway.name,
            "uid": proxy.uid,
            "controller": true,
            "blockOwnerDeletion": true,
        }],
    });
    if let (Some(metadata), false) = (metadata.as_object_mut(), proxy.annotations.is_empty()) {
        metadata.insert("annotations".to_owned(), json!(proxy.annotations));
    }
    let mut object = Map::from_iter([
        ("apiVersion".to_owned(), json!(api_version)),
        ("kind".to_owned(), json!(kind)),
        ("metadata".to_owned(), metadata),
    ]);
    if let Value::Object(rest) = rest {
        object.extend(rest);
    }
    Value::Object(object)
}

/// `spec.infrastructure.labels` and ours; ours win.
fn labels(proxy: &Proxy) -> BTreeMap<String, String> {
    let mut labels = proxy.labels.clone();
    labels.extend([
        (GATEWAY_LABEL.to_owned(), gateway_label(&proxy.gateway)),
        (PROXY_LABEL.to_owned(), proxy_name(&proxy.gateway)),
        ("app.kubernetes.io/name".to_owned(), program(&proxy.data_plane).to_owned()),
        ("app.kubernetes.io/managed-by".to_owned(), super::FIELD_MANAGER.to_owned()),
    ]);
    labels
}

fn selector(proxy: &Proxy) -> Value {
    json!({PROXY_LABEL: proxy_name(&proxy.gateway)})
}

fn program(data_plane: &DataPlane) -> &'static str {
    match data_plane {
        DataPlane::Native => "agentic-gateway",
        DataPlane::Envoy(_) => "envoy",
    }
}

fn service(proxy: &Proxy) -> Value {
    let ports: Vec<Value> = proxy
        .ports
        .iter()
        .map(|port| json!({"name": format!("port-{port}"), "port": port, "protocol": "TCP", "targetPort": port}))
        .collect();
    json!({"type": "LoadBalancer", "selector": selector(proxy), "ports": ports})
}

fn deployment(proxy: &Proxy, settings: &Settings, ports: &Ports, data: &BTreeMap<String, String>) -> Value {
    let mut annotations = proxy.annotations.clone();
    // A change of the ConfigMap is a rollout.
    annotations.insert(CONFIGURATION.to_owned(), drift::hash(&json!(data)));
    let containers = match &proxy.data_plane {
        DataPlane::Native => {
            let mut args = vec!["run".to_owned()];
            args.extend(gateway_arguments(proxy, settings, ports));
            vec![container("agentic-gateway", proxy, settings, &args, &mounts(), ports)]
        }
        DataPlane::Envoy(own) => envoy::containers(own, proxy, settings, ports),
    };
    let end = match &proxy.data_plane {
        DataPlane::Envoy(own) if proxy.data_plane.is_alone() => envoy::end_seconds(own),
        DataPlane::Envoy(_) | DataPlane::Native => DRAIN_SECONDS + LINGER_SECONDS,
    };
    let mut volumes = vec![json!({"name": "identity", "projected": {"sources": [
        {"podCertificate": {
            "signerName": settings.signer,
            "keyType": "ECDSAP256",
            "credentialBundlePath": "credential-bundle.pem",
        }},
        {"clusterTrustBundle": {
            "name": BUNDLE,
            "path": format!("{}.trust-bundle.pem", settings.trust_domain),
        }},
    ]}})];
    if !proxy.data_plane.is_alone() {
        volumes.push(json!({"name": "state", "emptyDir": {"sizeLimit": "256Mi"}}));
    }
    if let DataPlane::Envoy(own) = &proxy.data_plane {
        volumes.extend(envoy::volumes(own, proxy));
    }
    json!({
        "replicas": proxy.replicas,
        "revisionHistoryLimit": 3,
        "selector": {"matchLabels": selector(proxy)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "template": {
            "metadata": {"labels": labels(proxy), "annotations": annotations},
            "spec": {
                "serviceAccountName": proxy_name(&proxy.gateway),
                // The proxy never speaks to the API server.
                "automountServiceAccountToken": false,
                "enableServiceLinks": false,
                "terminationGracePeriodSeconds": end + 10,
                "securityContext": {
                    "runAsNonRoot": true,
                    "runAsUser": USER,
                    "runAsGroup": USER,
                    "fsGroup": USER,
                    "seccompProfile": {"type": "RuntimeDefault"},
                    // A safe sysctl, of the Pod's own network: listeners on 80 and 443 without a capability.
                    "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}],
                },
                // Also for one replica, where it means nothing, so that scaling is not a rollout.
                "topologySpreadConstraints": [{
                    "maxSkew": 1,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": selector(proxy)},
                }],
                "containers": containers,
                "volumes": volumes,
            },
        },
    })
}

/// What our gateway is started with in a cluster, whatever it does there.
pub(super) fn gateway_arguments(proxy: &Proxy, settings: &Settings, ports: &Ports) -> Vec<String> {
    let mut args = vec![
        format!("--xds=https://{}:{}", settings.xds_host, settings.xds_port),
        format!("--xds-server-id={}", settings.xds_server_id),
        format!("--xds-state={STATE_DIR}/configuration"),
        format!("--gateway={}", proxy.gateway),
        format!("--identity-dir={IDENTITY_DIR}"),
        format!("--trust-domain={}", settings.trust_domain),
        format!("--health-addr=0.0.0.0:{}", ports.health),
        format!("--admin-addr=127.0.0.1:{}", ports.admin),
        format!("--drain-timeout={DRAIN_SECONDS}s"),
    ];
    args.extend(settings.flags.iter().cloned());
    args
}

/// What our gateway reads and writes.
pub(super) fn mounts() -> Vec<Value> {
    vec![
        json!({"name": "identity", "mountPath": IDENTITY_DIR, "readOnly": true}),
        json!({"name": "state", "mountPath": STATE_DIR}),
    ]
}

/// A probe of the port with this name.
pub(super) fn probe(port: &str, path: &str, period: u32, failures: u32) -> Value {
    json!({
        "httpGet": {"path": path, "port": port},
        "periodSeconds": period,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
    })
}

/// A container of our gateway's.
pub(super) fn container(
    name: &str,
    proxy: &Proxy,
    settings: &Settings,
    args: &[String],
    mounts: &[Value],
    ports: &Ports,
) -> Value {
    let map = proxy_name(&proxy.gateway);
    let env: Vec<Value> = variables(proxy)
        .keys()
        .map(|key| json!({"name": key, "valueFrom": {"configMapKeyRef": {"name": map, "key": key}}}))
        .collect();
    secured(json!({
        "name": name,
        "image": proxy.image.as_ref().unwrap_or(&settings.gateway_image),
        "args": args,
        "env": env,
        "ports": [{"name": "health", "containerPort": ports.health, "protocol": "TCP"}],
        "startupProbe": probe("health", "/healthz", 1, 60),
        "readinessProbe": probe("health", "/readyz", 2, 3),
        "livenessProbe": probe("health", "/healthz", 10, 3),
        "lifecycle": {"preStop": {"sleep": {"seconds": LINGER_SECONDS}}},
        "resources": {
            "requests": {"cpu": "100m", "memory": "128Mi"},
            "limits": {"memory": "1Gi"},
        },
        "volumeMounts": mounts,
    }))
}

/// A container that may do nothing that it does not need.
pub(super) fn secured(mut container: Value) -> Value {
    if let Some(container) = container.as_object_mut() {
        container.insert(
            "securityContext".to_owned(),
            json!({
                "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": true,
            }),
        );
    }
    container
}

/// What the ConfigMap holds.
fn data(proxy: &Proxy, settings: &Settings, ports: &Ports) -> BTreeMap<String, String> {
    // Envoy alone hears of all settings by discovery: a change of one is no rollout.
    let mut data = if proxy.data_plane.is_alone() { BTreeMap::new() } else { variables(proxy) };
    if matches!(proxy.data_plane, DataPlane::Envoy(_)) {
        data.extend(envoy::files(proxy, settings, ports));
    }
    data
}

/// The flags of the class's parameters as the gateway's environment: `--max-body-bytes=1` is
/// `AGENTIC_GATEWAY_MAX_BODY_BYTES=1`, and `--filter-lists` is `AGENTIC_GATEWAY_FILTER_LISTS=true`.
fn variables(proxy: &Proxy) -> BTreeMap<String, String> {
    let variable = |flag: &String| {
        let (name, value) = flag.split_once('=').unwrap_or((flag, "true"));
        let name = name.trim_start_matches("--").replace('-', "_").to_ascii_uppercase();
        (format!("AGENTIC_GATEWAY_{name}"), value.to_owned())
    };
    proxy.flags.iter().map(variable).collect()
}

/// The first port from `wanted` on that no listener has.
fn free_port(wanted: u16, taken: &[u16]) -> u16 {
    (wanted..=u16::MAX).find(|port| !taken.contains(port)).unwrap_or(wanted)
}
