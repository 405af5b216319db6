//! Sets of objects of every kind, that refer to each other and to what is not there, from few names.
use std::sync::OnceLock;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Value, json};

const NETWORKING: &str = "agentic.networking.x-k8s.io";
const PROTOTYPE: &str = "agentic.prototype.x-k8s.io";

fn namespace() -> impl Strategy<Value = &'static str> {
    select(&["a", "b"][..])
}

fn name() -> impl Strategy<Value = &'static str> {
    select(&["x", "y"][..])
}

fn group() -> impl Strategy<Value = &'static str> {
    prop_oneof![3 => Just(NETWORKING), 1 => Just(PROTOTYPE)]
}

/// A certificate and its key, PEM.
fn pem() -> &'static (String, String) {
    static PEM: OnceLock<(String, String)> = OnceLock::new();
    PEM.get_or_init(|| {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec!["x.example".to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    })
}

/// An object with what API servers and clients add to it.
fn object(api_version: &str, kind: &str, namespace: &str, name: &str, contents: Value) -> Value {
    let mut object = json!({
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "uid": format!("{kind}-{namespace}-{name}"),
            "resourceVersion": "7",
            "annotations": {"note": "of no concern"},
            "managedFields": [{"manager": "kubectl", "operation": "Apply"}],
            "finalizers": ["example.com/wait"],
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}],
        },
        "status": {"conditions": []},
    });
    if !namespace.is_empty() {
        object["metadata"]["namespace"] = json!(namespace);
    }
    for (field, value) in contents.as_object().unwrap() {
        object[field] = value.clone();
    }
    object
}

/// Leaves out what is null.
fn without_nulls(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(|value| *value = without_nulls(value.take()));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = without_nulls(item.take())),
        _ => {}
    }
    value
}

pub(crate) fn class(name: &str, controller: &str) -> Value {
    let spec = json!({"controllerName": controller});
    object("gateway.networking.k8s.io/v1", "GatewayClass", "", name, json!({"spec": spec}))
}

fn gateway() -> impl Strategy<Value = Value> {
    let certificate = (option::of(namespace()), name());
    let listener = (
        select(&[80, 443][..]),
        prop_oneof![1 => Just("HTTP"), 3 => Just("HTTPS")],
        option::of(select(&["x.example", "*.example"][..])),
        vec(certificate, 0..2),
        option::of(select(&["Same", "All", "Selector"][..])),
    );
    let frontend = option::weighted(0.2, (option::of(namespace()), name()));
    let class = prop_oneof![4 => Just("ours"), 1 => Just("theirs")];
    (namespace(), name(), class, vec(listener, 1..4), frontend).prop_map(
        |(namespace, name, class, listeners, frontend)| {
            let listeners: Vec<_> = listeners
                .into_iter()
                .enumerate()
                .map(|(index, (port, protocol, hostname, certificates, from))| {
                    let certificates: Vec<_> = certificates
                        .into_iter()
                        .map(|(namespace, name)| json!({"namespace": namespace, "name": name}))
                        .collect();
                    let selector = (from == Some("Selector"))
                        .then(|| json!({"matchLabels": {"team": "red"}}));
                    json!({
                        "name": format!("l{index}"), "port": port, "protocol": protocol, "hostname": hostname,
                        "tls": (!certificates.is_empty()).then(|| json!({"certificateRefs": certificates})),
                        "allowedRoutes": from.map(|from| json!({"namespaces": {"from": from, "selector": selector}})),
                    })
                })
                .collect();
            let tls = frontend.map(|(namespace, name)| {
                let ca = json!({"group": "", "kind": "ConfigMap", "namespace": namespace, "name": name});
                json!({"frontend": {"default": {"validation": {"caCertificateRefs": [ca]}}}})
            });
            let spec = json!({"gatewayClassName": class, "listeners": listeners, "tls": tls});
            object("gateway.networking.k8s.io/v1", "Gateway", namespace, name, without_nulls(json!({"spec": spec})))
        },
    )
}

fn route() -> impl Strategy<Value = Value> {
    let parent = (option::of(namespace()), name(), option::weighted(0.2, select(&["l0", "l1"][..])));
    let backend =
        (prop_oneof![2 => Just("XBackend"), 1 => Just("Service")], group(), option::of(namespace()), name());
    let rule = (vec(backend, 0..3), prop::bool::weighted(0.1));
    (namespace(), select(&["r", "s", "t"][..]), vec(parent, 1..3), vec(rule, 1..3)).prop_map(
        |(namespace, name, parents, rules)| {
            let parents: Vec<_> = parents
                .into_iter()
                .map(|(namespace, name, section)| json!({"namespace": namespace, "name": name, "sectionName": section}))
                .collect();
            let rules: Vec<_> = rules
                .into_iter()
                .map(|(backends, mirrors)| {
                    let backends: Vec<_> = backends
                        .into_iter()
                        .map(|(kind, group, namespace, name)| {
                            let (group, port) = if kind == "Service" { ("", Some(80)) } else { (group, None) };
                            json!({"group": group, "kind": kind, "namespace": namespace, "name": name, "port": port})
                        })
                        .collect();
                    let filters = mirrors.then(|| json!([{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "x", "port": 80}}}]));
                    json!({"backendRefs": backends, "filters": filters})
                })
                .collect();
            let spec = json!({"parentRefs": parents, "rules": rules});
            object("gateway.networking.k8s.io/v1", "HTTPRoute", namespace, name, without_nulls(json!({"spec": spec})))
        },
    )
}

fn grant() -> impl Strategy<Value = Value> {
    let from = select(
        &[
            ("gateway.networking.k8s.io", "Gateway"),
            ("gateway.networking.k8s.io", "HTTPRoute"),
            (NETWORKING, "XAccessPolicy"),
        ][..],
    );
    let to = select(
        &[
            ("", "Secret"),
            ("", "ConfigMap"),
            ("", "Service"),
            (NETWORKING, "XBackend"),
            (PROTOTYPE, "XBackend"),
        ][..],
    );
    (namespace(), select(&["g", "h", "i"][..]), from, namespace(), to, option::of(name())).prop_map(
        |(namespace, name, from, from_namespace, to, to_name)| {
            let spec = json!({
                "from": [{"group": from.0, "kind": from.1, "namespace": from_namespace}],
                "to": [{"group": to.0, "kind": to.1, "name": to_name}],
            });
            object(
                "gateway.networking.k8s.io/v1beta1",
                "ReferenceGrant",
                namespace,
                name,
                without_nulls(json!({"spec": spec})),
            )
        },
    )
}

fn backend() -> impl Strategy<Value = Value> {
    let to = prop_oneof![name().prop_map(|name| ("serviceName", name)), Just(("hostname", "mcp.example"))];
    (group(), namespace(), name(), to).prop_map(|(group, namespace, name, (field, to))| {
        let spec = json!({"mcp": {field: to, "port": 80}});
        object(&format!("{group}/v0alpha0"), "XBackend", namespace, name, json!({"spec": spec}))
    })
}

fn service() -> impl Strategy<Value = Value> {
    let kind = option::weighted(0.1, Just("ExternalName"));
    (namespace(), name(), kind, option::weighted(0.1, Just("https"))).prop_map(|(namespace, name, kind, protocol)| {
        let spec = json!({
            "type": kind, "clusterIP": "10.96.0.1", "selector": {"app": name},
            "ports": [{"name": "p", "port": 80, "targetPort": 8080, "appProtocol": protocol}, {"name": "q", "port": 81}],
        });
        object("v1", "Service", namespace, name, without_nulls(json!({"spec": spec, "status": {"loadBalancer": {}}})))
    })
}

fn slice() -> impl Strategy<Value = Value> {
    (namespace(), select(&["e", "f", "g"][..]), option::weighted(0.9, name()), vec((1..5u8, option::of(any::<bool>())), 0..4)).prop_map(
        |(namespace, name, service, endpoints)| {
            let endpoints: Vec<_> = endpoints
                .into_iter()
                .map(|(last, ready)| {
                    json!({"addresses": [format!("10.0.0.{last}")], "conditions": {"ready": ready, "serving": true}, "nodeName": "n"})
                })
                .collect();
            let contents = json!({"addressType": "IPv4", "ports": [{"name": "p", "port": 8080}], "endpoints": endpoints});
            let mut slice = object("discovery.k8s.io/v1", "EndpointSlice", namespace, name, contents);
            slice.as_object_mut().unwrap().remove("status");
            slice["metadata"]["generation"] = json!(9);
            slice["metadata"]["labels"] = json!({"app": "x"});
            if let Some(service) = service {
                slice["metadata"]["labels"]["kubernetes.io/service-name"] = json!(service);
            }
            without_nulls(slice)
        },
    )
}

/// Both shapes; `(kind of target, names, section)`.
fn policy() -> impl Strategy<Value = Value> {
    let targets = (
        select(&["Gateway", "XBackend"][..]),
        vec(name(), 1..3),
        option::weighted(0.2, select(&["l0", "l1", "l9"][..])),
    );
    let authorizer = (option::of(namespace()), name(), select(&[80, 81, 99][..]));
    let what = select(&["tools", "none", "cel", "bad cel", "external"][..]);
    (
        (group(), namespace(), 0..8u8, option::of(0..5u8)),
        targets,
        any::<bool>(),
        option::of(select(&["one", "two"][..])),
        what,
        authorizer,
    )
        .prop_map(|((group, namespace, number, created), (kind, names, section), new, source, what, authorizer)| {
            let target_group = if kind == "Gateway" { "gateway.networking.k8s.io" } else { group };
            let section = section.filter(|_| kind == "Gateway");
            let targets: Vec<_> = names
                .into_iter()
                .map(|name| json!({"group": target_group, "kind": kind, "name": name, "sectionName": section}))
                .collect();
            let source = json!({"type": "ServiceAccount", "serviceAccount": {"name": source.unwrap_or("one")}});
            let (in_namespace, authorizer, port) = authorizer;
            let authorizer = json!({
                "protocol": "GRPC", "grpc": {},
                "backendRef": {"kind": "Service", "namespace": in_namespace, "name": authorizer, "port": port},
            });
            let expression = if what == "cel" { "request.mcp.tool_name == 'echo'" } else { "request.nothing" };
            let spec = if new && group == NETWORKING {
                let authorization = match what {
                    "tools" => json!({"type": "Inline", "mcp": {"methods": [{"name": "tools/call", "params": ["echo"]}]}}),
                    "cel" | "bad cel" => json!({"type": "CEL", "cel": {"expression": expression}}),
                    _ => Value::Null,
                };
                let external = what == "external";
                json!({
                    "targetRefs": targets,
                    "action": if external { "ExternalAuth" } else { "Allow" },
                    "externalAuth": external.then_some(authorizer),
                    "rules": [{"name": "r", "source": source, "authorization": authorization}],
                })
            } else {
                let authorization = match what {
                    "tools" => json!({"type": "InlineTools", "tools": ["echo"]}),
                    "cel" | "bad cel" => json!({"type": "CEL", "cel": {"expression": expression}}),
                    "external" => json!({"type": "ExternalAuth", "externalAuth": authorizer}),
                    _ => Value::Null,
                };
                json!({"targetRefs": targets, "rules": [{"name": "r", "source": source, "authorization": authorization}]})
            };
            let version = if spec.get("action").is_some() { "v1alpha1" } else { "v0alpha0" };
            let contents = without_nulls(json!({"spec": spec}));
            let mut policy =
                object(&format!("{group}/{version}"), "XAccessPolicy", namespace, &format!("p{number}"), contents);
            if let Some(day) = created {
                policy["metadata"]["creationTimestamp"] = json!(format!("2026-01-0{}T00:00:00Z", day + 1));
            }
            policy
        })
}

fn tls_policy() -> impl Strategy<Value = Value> {
    let target = (prop_oneof![Just(("", "Service")), group().prop_map(|group| (group, "XBackend"))], name());
    (namespace(), select(&["t", "u", "v"][..]), vec(target, 0..3), name(), option::of(0..5u8)).prop_map(
        |(namespace, name, targets, ca, created)| {
            let targets: Vec<_> = targets
                .into_iter()
                .map(|((group, kind), name)| json!({"group": group, "kind": kind, "name": name}))
                .collect();
            let validation = json!({"hostname": "x.example", "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": ca}]});
            let spec = json!({"targetRefs": targets, "validation": validation});
            let mut policy =
                object("gateway.networking.k8s.io/v1", "BackendTLSPolicy", namespace, name, json!({"spec": spec}));
            if let Some(day) = created {
                policy["metadata"]["creationTimestamp"] = json!(format!("2026-01-0{}T00:00:00Z", day + 1));
            }
            policy
        },
    )
}

fn secret() -> impl Strategy<Value = Value> {
    (namespace(), name(), prop::bool::weighted(0.9)).prop_map(|(namespace, name, good)| {
        let (certificate, key) = pem();
        let certificate = if good { certificate.as_str() } else { "no certificate" };
        let data = json!({
            "tls.crt": STANDARD.encode(certificate), "tls.key": STANDARD.encode(key),
            "other": STANDARD.encode(format!("of nobody's concern in {namespace}/{name}")),
        });
        let mut secret =
            object("v1", "Secret", namespace, name, json!({"type": "kubernetes.io/tls", "data": data}));
        secret.as_object_mut().unwrap().remove("status");
        secret
    })
}

fn config_map() -> impl Strategy<Value = Value> {
    (namespace(), name(), prop::bool::weighted(0.8)).prop_map(|(namespace, name, good)| {
        let ca = if good { pem().0.as_str() } else { "no certificate" };
        let mut map =
            object("v1", "ConfigMap", namespace, name, json!({"data": {"ca.crt": ca, "other": "text"}}));
        map.as_object_mut().unwrap().remove("status");
        map
    })
}

fn labelled_namespace() -> impl Strategy<Value = Value> {
    (namespace(), select(&["red", "blue"][..])).prop_map(|(name, team)| {
        let mut namespace =
            object("v1", "Namespace", "", name, json!({"spec": {"finalizers": ["kubernetes"]}}));
        namespace["metadata"]["labels"] = json!({"team": team});
        namespace["status"] = json!({"phase": "Active"});
        namespace
    })
}

/// A set of objects; later ones replace earlier ones of the same name.
pub(crate) fn objects() -> impl Strategy<Value = Vec<Value>> {
    let any = (
        vec(gateway(), 1..4),
        vec(route(), 0..7),
        vec(grant(), 0..7),
        vec(backend(), 0..6),
        vec(service(), 0..5),
        vec(slice(), 0..4),
        vec(policy(), 0..16),
        vec(tls_policy(), 0..4),
        vec(secret(), 0..5),
        vec(config_map(), 0..5),
        vec(labelled_namespace(), 0..3),
    );
    any.prop_map(
        |(gateways, routes, grants, backends, services, slices, policies, tls, secrets, maps, namespaces)| {
            let classes = vec![
                class("ours", "sigs.k8s.io/kube-agentic-networking-controller"),
                class("theirs", "example.com/controller"),
            ];
            [
                classes, gateways, routes, grants, backends, services, slices, policies, tls, secrets, maps,
                namespaces,
            ]
            .concat()
        },
    )
}
