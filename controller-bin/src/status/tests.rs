use std::time::Duration;

use serde::Deserialize as _;
use serde_json::json;
use xds_translate::{Options, native};

use super::*;
use crate::{index::Settings, provision::proxy_name};

const OURS: &str = "sigs.k8s.io/kube-agentic-networking-controller";
const BEFORE: &str = "2026-01-01T00:00:00Z";
const NOW: &str = "2026-01-02T00:00:00Z";

const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: ours, generation: 1, resourceVersion: '1', uid: class}
spec: {controllerName: sigs.k8s.io/kube-agentic-networking-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: g, namespace: ns, generation: 2, resourceVersion: '1', uid: gateway}
spec:
  gatewayClassName: ours
  listeners:
  - {name: https, protocol: HTTPS, port: 443}
  - {name: tcp, protocol: TCP, port: 9000}
";

fn index(yaml: &str) -> Index {
    let mut index = Index::new(Settings { options: Options::default() });
    for document in serde_yaml_ng::Deserializer::from_str(yaml) {
        let object = Value::deserialize(document).unwrap();
        assert!(index.apply(&object), "{object}");
    }
    index
}

fn gateway() -> NamespacedName {
    NamespacedName::new("ns", "g")
}

fn reference(group: &str, kind: &str, namespace: &str, name: &str) -> ObjectRef {
    ObjectRef {
        group: group.to_owned(),
        kind: kind.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

/// The write of an object, if there is one.
fn written(index: &Index, observed: &Observed, kind: &str, name: &str) -> Option<Value> {
    let mut writes = writes(index, &index.outcome(), observed, NOW);
    writes.retain(|write| write.object.kind == kind && write.object.name == name);
    assert!(writes.len() < 2, "{writes:?}");
    writes.pop().map(|write| write.status)
}

/// A condition as `Type=Status/Reason generation since`.
fn line(condition: &Value) -> String {
    let since = match condition["lastTransitionTime"].as_str().unwrap() {
        NOW => "now",
        BEFORE => "before",
        other => other,
    };
    let text = |field: &str| condition[field].as_str().unwrap();
    let generation = &condition["observedGeneration"];
    format!("{}={}/{} {generation} {since}", text("type"), text("status"), text("reason"))
}

fn lines(conditions: &Value) -> Vec<String> {
    conditions.as_array().unwrap().iter().map(line).collect()
}

fn service(ingress: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": proxy_name(&gateway()), "namespace": "ns"},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 443}]}, "status": {"loadBalancer": {"ingress": ingress}},
    })
}

fn slice(service: &str, ready: &Value) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "slice", "namespace": "ns", "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "ports": [{"port": 443}], "endpoints": [{"addresses": ["10.0.0.1"], "conditions": ready}],
    })
}

/// Everything that makes the Gateway programmed.
fn served() -> (Index, Observed) {
    let mut index = index(GATEWAY);
    index.apply(&service(&json!([{"ip": "192.0.2.1"}])));
    index.apply(&slice(&proxy_name(&gateway()), &json!({"ready": true})));
    let observed = acknowledging(&index);
    (index, observed)
}

fn version(index: &Index) -> String {
    index.outcome().gateways[&gateway()].resources.version_of(native::OBJECT).to_string()
}

fn acknowledging(index: &Index) -> Observed {
    let proxies = Proxies { acknowledged: BTreeSet::from([version(index)]), refused: vec![] };
    Observed { proxies: BTreeMap::from([(gateway(), proxies)]), ..Observed::default() }
}

/// `Status/Reason: message` of the Gateway's Programmed.
#[track_caller]
fn check_programmed((index, observed): &(Index, Observed), expected: &str, message: &str) {
    let status = written(index, observed, "Gateway", "g").unwrap();
    let of = |conditions: &Value| {
        conditions
            .as_array()
            .unwrap()
            .iter()
            .find(|condition| condition["type"] == "Programmed")
            .unwrap()
            .clone()
    };
    let own = of(&status["conditions"]);
    let found = format!("{}/{}", own["status"].as_str().unwrap(), own["reason"].as_str().unwrap());
    assert_eq!(found, expected, "{own}");
    assert!(own["message"].as_str().unwrap().contains(message), "{own}");
    // The listener that can be served follows.
    assert_eq!(of(&status["listeners"][0]["conditions"])["status"], own["status"]);
    assert_eq!(of(&status["listeners"][1]["conditions"])["reason"], "Invalid");
}

#[test]
fn programmed() {
    check_programmed(&served(), "True/Programmed", "a proxy serves");

    let mut no_address = served();
    no_address.0.apply(&service(&json!([])));
    check_programmed(&no_address, "False/AddressNotAssigned", &proxy_name(&gateway()));

    let mut not_ready = served();
    not_ready.0.apply(&slice(&proxy_name(&gateway()), &json!({"ready": false})));
    check_programmed(&not_ready, "False/Pending", "no proxy is ready");

    let mut says_nothing = served();
    says_nothing.0.apply(&slice(&proxy_name(&gateway()), &json!({})));
    check_programmed(&says_nothing, "True/Programmed", "");

    let mut another = served();
    another.0.apply(&slice("envoy-proxy-another", &json!({"ready": true})));
    check_programmed(&another, "False/Pending", "no proxy is ready");

    let silent = (served().0, Observed::default());
    check_programmed(&silent, "False/Pending", "acknowledged");

    let mut stale = served();
    stale.1.proxies.get_mut(&gateway()).unwrap().acknowledged = BTreeSet::from(["an older one".to_owned()]);
    check_programmed(&stale, "False/Pending", "acknowledged");

    let mut refused = served();
    let nack = (version(&refused.0), "resource `x/y/z`: no good".to_owned());
    refused.1.proxies.get_mut(&gateway()).unwrap().refused.push(nack);
    check_programmed(&refused, "False/Invalid", "resource `x/y/z`: no good");

    let mut refused_before = served();
    let nack = ("an older one".to_owned(), "no good".to_owned());
    refused_before.1.proxies.get_mut(&gateway()).unwrap().refused.push(nack);
    check_programmed(&refused_before, "True/Programmed", "");

    // Nothing is ready, and this is why; what is ready serves on.
    let mut not_provisioned = served();
    not_provisioned.1.provisioning.insert(gateway(), "Deployment: quota exceeded".to_owned());
    check_programmed(&not_provisioned, "True/Programmed", "a proxy serves");
    not_provisioned.0.apply(&slice(&proxy_name(&gateway()), &json!({"ready": false})));
    check_programmed(&not_provisioned, "False/NoResources", "quota exceeded");
}

#[test]
fn programmed_where_envoy_serves() {
    let acknowledging = |versions: &[&str], with_engine| {
        let (index, mut observed) = served();
        let objects = version(&index);
        let acknowledged = versions.iter().map(|&known| match known {
            "objects" => objects.clone(),
            other => other.to_owned(),
        });
        observed.proxies.get_mut(&gateway()).unwrap().acknowledged = acknowledged.collect();
        observed.envoy.insert(gateway(), EnvoyVersion { all: "all".to_owned(), with_engine });
        (index, observed)
    };
    check_programmed(&acknowledging(&["objects", "all"], true), "True/Programmed", "");
    check_programmed(&acknowledging(&["all"], true), "False/Pending", "acknowledged");
    check_programmed(&acknowledging(&["objects"], true), "False/Pending", "acknowledged");
    // Nobody beside it takes the objects.
    check_programmed(&acknowledging(&["all"], false), "True/Programmed", "");
    check_programmed(&acknowledging(&["objects"], false), "False/Pending", "acknowledged");
    let mut refused = acknowledging(&["all"], false);
    let nack = ("all".to_owned(), "Envoy, of listeners: no good".to_owned());
    refused.1.proxies.get_mut(&gateway()).unwrap().refused.push(nack);
    check_programmed(&refused, "False/Invalid", "no good");
}

/// The Gateway was programmed at a generation; a new version is acknowledged by nobody.
#[track_caller]
fn check_grace(was_generation: i64, current_for: Option<Duration>, expected: &str) {
    let (mut index, mut observed) = served();
    observed.proxies.clear();
    observed.current_for = current_for.map(|time| (gateway(), time)).into_iter().collect();
    let mut object = index.object(&reference(GATEWAY_GROUP, "Gateway", "ns", "g")).unwrap().clone();
    object["status"] = json!({"conditions": [{
        "type": "Programmed", "status": "True", "reason": "Programmed", "message": "", "lastTransitionTime": BEFORE,
        "observedGeneration": was_generation,
    }]});
    index.apply(&object);
    let status = written(&index, &observed, "Gateway", "g").unwrap();
    assert!(lines(&status["conditions"]).contains(&expected.to_owned()), "{status}");
}

#[test]
fn what_was_programmed_stays_so_for_a_moment() {
    check_grace(2, Some(Duration::ZERO), "Programmed=True/Programmed 2 before");
    check_grace(2, Some(GRACE - Duration::from_millis(1)), "Programmed=True/Programmed 2 before");
    check_grace(2, Some(GRACE), "Programmed=False/Pending 2 now");
    check_grace(2, None, "Programmed=False/Pending 2 now");
    // A new generation was never programmed.
    check_grace(1, Some(Duration::ZERO), "Programmed=False/Pending 2 now");
}

#[test]
fn a_gateway() {
    let (mut index, observed) = served();
    index.apply(&service(&json!([{"ip": "192.0.2.1"}, {"hostname": "lb.example"}, {}])));
    let status = written(&index, &observed, "Gateway", "g").unwrap();
    assert_eq!(
        status["addresses"],
        json!([{"type": "IPAddress", "value": "192.0.2.1"}, {"type": "Hostname", "value": "lb.example"}])
    );
    assert_eq!(
        lines(&status["conditions"]),
        ["Accepted=True/ListenersNotValid 2 now", "Programmed=True/Programmed 2 now"]
    );
    let listeners = status["listeners"].as_array().unwrap();
    assert_eq!(listeners.len(), 2);
    assert_eq!(listeners[0]["name"], "https");
    assert_eq!(listeners[0]["attachedRoutes"], 0);
    assert_eq!(listeners[0]["supportedKinds"], json!([{"group": GATEWAY_GROUP, "kind": "HTTPRoute"}]));
    assert_eq!(
        lines(&listeners[0]["conditions"]),
        [
            "Accepted=True/Accepted 2 now",
            "Conflicted=False/NoConflicts 2 now",
            "ResolvedRefs=True/ResolvedRefs 2 now",
            "Programmed=True/Programmed 2 now",
        ]
    );
    assert_eq!(listeners[1]["name"], "tcp");
    assert_eq!(listeners[1]["supportedKinds"], json!([]));
    assert_eq!(
        lines(&listeners[1]["conditions"]),
        [
            "Accepted=False/UnsupportedProtocol 2 now",
            "Conflicted=False/NoConflicts 2 now",
            "ResolvedRefs=True/ResolvedRefs 2 now",
            "Programmed=False/Invalid 2 now",
        ]
    );
}

#[test]
fn a_gateway_that_is_being_deleted() {
    let (mut index, observed) = served();
    let mut object = index.object(&reference(GATEWAY_GROUP, "Gateway", "ns", "g")).unwrap().clone();
    object["metadata"]["deletionTimestamp"] = json!(BEFORE);
    assert!(index.apply(&object));
    // What changes still reaches its proxies, which are not set up any more.
    let outcome = index.outcome();
    assert_eq!(outcome.gateways[&gateway()].proxy, Err("is being deleted".to_owned()));
    assert!(!outcome.gateways[&gateway()].resources.types.is_empty());
    check_programmed(&(index, observed), "False/Pending", "being deleted");
}

#[test]
fn classes_of_ours_alone() {
    let others = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: theirs, generation: 1, resourceVersion: '1'}
spec: {controllerName: example.com/other}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: h, namespace: ns, generation: 1, resourceVersion: '1'}
spec: {gatewayClassName: theirs, listeners: [{name: http, protocol: HTTP, port: 80}]}
";
    let index = index(&format!("{GATEWAY}---{others}"));
    let observed = Observed::default();
    let status = written(&index, &observed, "GatewayClass", "ours").unwrap();
    assert_eq!(lines(&status["conditions"]), ["Accepted=True/Accepted 1 now"]);
    assert!(status["supportedFeatures"].as_array().unwrap().contains(&json!({"name": "HTTPRoute"})));
    assert_eq!(written(&index, &observed, "GatewayClass", "theirs"), None);
    assert_eq!(written(&index, &observed, "Gateway", "h"), None);
    let order: Vec<_> =
        writes(&index, &index.outcome(), &observed, NOW).into_iter().map(|write| write.object.kind).collect();
    assert_eq!(order, ["GatewayClass", "Gateway"]);
}

fn entry(reference: &str, about: &Value, controller: &str) -> Value {
    json!({reference: about, "controllerName": controller, "conditions": [{
        "type": "Accepted", "status": "True", "reason": "Old", "message": "", "lastTransitionTime": BEFORE,
        "observedGeneration": 1,
    }]})
}

/// Gives an object a status.
fn with_status(index: &mut Index, object: &ObjectRef, yaml: &str, status: Value) {
    let documents =
        serde_yaml_ng::Deserializer::from_str(yaml).map(|document| Value::deserialize(document).unwrap());
    let found = documents.filter(|value| native::object_ref(value).as_ref() == Some(object));
    let mut value = found.last().unwrap();
    value["status"] = status;
    assert!(index.apply(&value));
}

/// `reference controller: conditions` of each entry.
fn entries(list: &Value, reference: &str) -> Vec<String> {
    let one = |entry: &Value| {
        let controller = entry["controllerName"].as_str().unwrap();
        format!("{} {controller}: {}", entry[reference], lines(&entry["conditions"]).join(", "))
    };
    list.as_array().unwrap().iter().map(one).collect()
}

#[test]
fn routes() {
    let yaml = format!(
        "{GATEWAY}---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: r, namespace: ns, generation: 5, resourceVersion: '1'}}
spec:
  parentRefs:
  - {{name: g, sectionName: https}}
  - {{name: g, port: 1}}
  - {{name: missing}}
  rules: [{{backendRefs: [{{name: s, port: 1}}]}}]
"
    );
    let mut index = index(&yaml);
    let observed = Observed::default();
    let other = entry("parentRef", &json!({"name": "g", "sectionName": "https"}), "example.com/other");
    let status = json!({"parents": [
        entry("parentRef", &json!({"name": "stale"}), OURS),
        other,
        // With the defaults that the API server fills in.
        entry("parentRef", &json!({"group": GATEWAY_GROUP, "kind": "Gateway", "namespace": "ns", "name": "g", "sectionName": "https"}), OURS),
    ]});
    let route = reference(GATEWAY_GROUP, "HTTPRoute", "ns", "r");
    with_status(&mut index, &route, &yaml, status);
    let status = written(&index, &observed, "HTTPRoute", "r").unwrap();
    assert_eq!(status["parents"][0], other);
    let of = |parent: Value| format!("{parent} {OURS}:");
    let listener = of(
        json!({"group": GATEWAY_GROUP, "kind": "Gateway", "namespace": "ns", "name": "g", "sectionName": "https"}),
    );
    let port = of(json!({"name": "g", "port": 1}));
    assert_eq!(
        entries(&status["parents"], "parentRef")[1..],
        [
            format!("{listener} Accepted=True/Accepted 5 before, ResolvedRefs=False/BackendNotFound 5 now"),
            format!("{port} Accepted=False/NoMatchingParent 5 now, ResolvedRefs=False/BackendNotFound 5 now"),
        ]
    );
    // The Gateway is gone: what was ours is, too.
    index.delete(&reference(GATEWAY_GROUP, "Gateway", "ns", "g"));
    with_status(&mut index, &route, &yaml, status);
    let status = written(&index, &observed, "HTTPRoute", "r").unwrap();
    assert_eq!(status, json!({"parents": [other]}));
}

const POLICY: &str = "
apiVersion: agentic.prototype.x-k8s.io/v0alpha0
kind: XBackend
metadata: {name: b, namespace: ns, generation: 1, resourceVersion: '1'}
spec: {mcp: {hostname: mcp.example.com, port: 443}}
---
apiVersion: agentic.networking.x-k8s.io/v1alpha1
kind: XAccessPolicy
metadata: {name: p, namespace: ns, generation: 4, resourceVersion: '1'}
spec:
  action: Allow
  targetRefs:
  - {group: agentic.networking.x-k8s.io, kind: XBackend, name: b}
  - {group: agentic.networking.x-k8s.io, kind: XBackend, name: missing}
  rules:
  - {name: r, authorization: {type: CEL, cel: {expression: 'true &&'}}}
";

#[test]
fn policies() {
    let mut index = index(POLICY);
    let observed = Observed::default();
    let policy = reference("agentic.networking.x-k8s.io", "XAccessPolicy", "ns", "p");
    let target = |name: &str, group: &str| json!({"group": group, "kind": "XBackend", "namespace": "ns", "name": name});
    let expected = [
        format!(
            "{} {OURS}: Accepted=False/InvalidCEL 4 now, ResolvedRefs=True/ResolvedRefs 4 now, Enforced=False/FailsClosed 4 now",
            target("b", "agentic.prototype.x-k8s.io")
        ),
        format!(
            "{} {OURS}: Accepted=False/TargetNotFound 4 now",
            target("missing", "agentic.networking.x-k8s.io")
        ),
    ];
    let status = written(&index, &observed, "XAccessPolicy", "p").unwrap();
    assert_eq!(entries(&status["ancestors"], "ancestorRef"), expected);

    // Others have their place, and no more than 16 may be there.
    let others: Vec<_> = (0..15)
        .map(|n| entry("ancestorRef", &json!({"name": format!("g{n}")}), "example.com/other"))
        .collect();
    with_status(&mut index, &policy, POLICY, json!({"ancestors": others}));
    let status = written(&index, &observed, "XAccessPolicy", "p").unwrap();
    assert_eq!(status["ancestors"].as_array().unwrap()[..15], others);
    assert_eq!(entries(&status["ancestors"], "ancestorRef")[15..], expected[..1]);
}

const OUTSIDE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: other, namespace: ns, generation: 1, resourceVersion: '1', uid: other}
spec:
  gatewayClassName: ours
  listeners: [{name: https, protocol: HTTPS, port: 443}]
---
apiVersion: agentic.networking.x-k8s.io/v0alpha0
kind: XBackend
metadata: {name: b, namespace: ns, generation: 1, resourceVersion: '1'}
spec: {mcp: {hostname: mcp.example.com, port: 443}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: ns, generation: 1, resourceVersion: '1'}
spec:
  parentRefs: [{name: g}, {name: other}]
  rules: [{backendRefs: [{group: agentic.networking.x-k8s.io, kind: XBackend, name: b}]}]
---
apiVersion: agentic.networking.x-k8s.io/v1alpha1
kind: XAccessPolicy
metadata: {name: on-gateways, namespace: ns, generation: 4, resourceVersion: '1'}
spec:
  targetRefs:
  - {group: gateway.networking.k8s.io, kind: Gateway, name: g}
  - {group: gateway.networking.k8s.io, kind: Gateway, name: other}
  action: Allow
  rules: [{name: r, authorization: {type: CEL, cel: {expression: 'request.mcp.arguments.amount < 100'}}}]
---
apiVersion: agentic.networking.x-k8s.io/v1alpha1
kind: XAccessPolicy
metadata: {name: on-backend, namespace: ns, generation: 4, resourceVersion: '1'}
spec:
  targetRefs: [{group: agentic.prototype.x-k8s.io, kind: XBackend, name: b}]
  action: Allow
  rules: [{name: r, authorization: {type: CEL, cel: {expression: 'request.mcp.arguments.amount < 100'}}}]
---
apiVersion: agentic.networking.x-k8s.io/v1alpha1
kind: XAccessPolicy
metadata: {name: inside, namespace: ns, generation: 4, resourceVersion: '1'}
spec:
  targetRefs: [{group: agentic.networking.x-k8s.io, kind: XBackend, name: b}]
  action: Allow
  rules: [{name: r, authorization: {type: Inline, methods: [POST]}}]
";

/// Of the two Gateways one is Envoy's alone: what that refuses is said of what it closes, and of nothing else.
#[test]
fn policies_that_envoy_alone_cannot_be_told() {
    use xds_translate::envoy::{Filters, Policy, Settings, translate};
    let index = index(&format!("{GATEWAY}\n---\n{OUTSIDE}"));
    let settings = Settings { policy: Policy::Filters(Filters::default()), ..Settings::default() };
    let refused = translate(&index.snapshots()[&gateway()], &settings).refused;
    let observed = Observed { refused: [(gateway(), refused.into())].into(), ..Observed::default() };
    let of = |name: &str| written(&index, &observed, "XAccessPolicy", name).unwrap()["ancestors"].clone();
    let accepted =
        "Accepted=True/Accepted 4 now, ResolvedRefs=True/ResolvedRefs 4 now, Enforced=True/Enforced 4 now";
    let outside = "Accepted=False/UnsupportedValue 4 now, ResolvedRefs=True/ResolvedRefs 4 now, Enforced=False/FailsClosed 4 now";
    let about = |group: &str, kind: &str, name: &str, conditions: &str| {
        let about = json!({"group": group, "kind": kind, "namespace": "ns", "name": name});
        format!("{about} {OURS}: {conditions}")
    };
    let on_gateways = of("on-gateways");
    assert_eq!(
        entries(&on_gateways, "ancestorRef"),
        [about(GATEWAY_GROUP, "Gateway", "g", outside), about(GATEWAY_GROUP, "Gateway", "other", accepted)]
    );
    let message = on_gateways[0]["conditions"][0]["message"].as_str().unwrap();
    assert!(message.contains("rule `r`") && message.contains("only tests of text"), "{message}");
    // The group of the backend that is there, whatever the policy calls it.
    let on_backend = of("on-backend");
    let group = "agentic.networking.x-k8s.io";
    assert_eq!(entries(&on_backend, "ancestorRef"), [about(group, "XBackend", "b", outside)]);
    for condition in [0, 2] {
        let message = on_backend[0]["conditions"][condition]["message"].as_str().unwrap();
        assert!(message.starts_with("behind Gateway `ns/g`: "), "{message}");
    }
    assert_eq!(entries(&of("inside"), "ancestorRef"), [about(group, "XBackend", "b", accepted)]);

    let old = Settings { version: "1.36".parse().unwrap(), ..settings };
    let refused = translate(&index.snapshots()[&gateway()], &old).refused;
    let observed = Observed { refused: [(gateway(), refused.into())].into(), ..Observed::default() };
    let status = written(&index, &observed, "Gateway", "g").unwrap();
    assert!(
        lines(&status["conditions"]).contains(&"Accepted=False/UnsupportedValue 2 now".to_owned()),
        "{status}"
    );
}

#[test]
fn a_policy_of_which_not_even_a_target_can_be_read() {
    let index = index(
        "
apiVersion: agentic.networking.x-k8s.io/v1alpha1
kind: XAccessPolicy
metadata: {name: p, namespace: ns, generation: 4, resourceVersion: '1'}
spec: {rules: everything}
",
    );
    let status = written(&index, &Observed::default(), "XAccessPolicy", "p").unwrap();
    let namespace = json!({"group": "", "kind": "Namespace", "name": "ns"});
    assert_eq!(
        entries(&status["ancestors"], "ancestorRef"),
        [format!("{namespace} {OURS}: Accepted=False/Invalid 4 now, Enforced=False/FailsClosed 4 now")]
    );
    let message = status["ancestors"][0]["conditions"][0]["message"].as_str().unwrap();
    assert!(message.contains("every target in its namespace is closed"), "{message}");
}

#[test]
fn backends() {
    let mut index = index(POLICY);
    let observed = Observed::default();
    let status = written(&index, &observed, "XBackend", "b").unwrap();
    assert_eq!(
        lines(&status["conditions"]),
        ["Accepted=True/Accepted 1 now", "ResolvedRefs=True/ResolvedRefs 1 now"]
    );
    // What did not change keeps its time, even with another reason; what is of others stays.
    let condition = |r#type: &str, status: &str| json!({"type": r#type, "status": status, "reason": "Old", "message": "", "lastTransitionTime": BEFORE});
    let conditions = [
        condition("Accepted", "True"),
        condition("ResolvedRefs", "False"),
        condition("example.com/Audited", "True"),
    ];
    let backend = reference("agentic.prototype.x-k8s.io", "XBackend", "ns", "b");
    with_status(&mut index, &backend, POLICY, json!({"conditions": conditions}));
    let status = written(&index, &observed, "XBackend", "b").unwrap();
    assert_eq!(
        lines(&status["conditions"]),
        [
            "Accepted=True/Accepted 1 before",
            "ResolvedRefs=True/ResolvedRefs 1 now",
            "example.com/Audited=True/Old null before",
        ]
    );
    with_status(&mut index, &backend, POLICY, status);
    assert_eq!(written(&index, &observed, "XBackend", "b"), None);
}

#[test]
fn tls_policies_that_a_gateway_of_ours_uses() {
    let yaml = "
apiVersion: v1
kind: Service
metadata: {name: s, namespace: ns}
spec: {ports: [{name: https, port: 443}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: t, namespace: ns, generation: 3, resourceVersion: '1'}
spec:
  targetRefs: [{group: '', kind: Service, name: s}]
  validation: {hostname: s.example, wellKnownCACertificates: System}
";
    let mut index = index(&format!("{GATEWAY}---{yaml}"));
    let observed = Observed::default();
    // It may be another controller's.
    assert_eq!(written(&index, &observed, "BackendTLSPolicy", "t"), None);
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "r", "namespace": "ns", "resourceVersion": "1"},
        "spec": {"parentRefs": [{"name": "g"}], "rules": [{"backendRefs": [{"name": "s", "port": 443}]}]},
    });
    index.apply(&route);
    let status = written(&index, &observed, "BackendTLSPolicy", "t").unwrap();
    let ancestor = json!({"group": GATEWAY_GROUP, "kind": "Gateway", "namespace": "ns", "name": "g"});
    assert_eq!(
        entries(&status["ancestors"], "ancestorRef"),
        [format!("{ancestor} {OURS}: Accepted=True/Accepted 3 now, ResolvedRefs=True/ResolvedRefs 3 now")]
    );
}

#[test]
fn messages_have_a_longest_length() {
    let condition = |message: String| xds_translate::Condition {
        r#type: "Accepted".to_owned(),
        status: xds_translate::ConditionStatus::False,
        reason: "Invalid".to_owned(),
        message,
    };
    let long = conditions::conditions(&[condition("é".repeat(40_000))], Some(1), None, NOW);
    assert_eq!(long[0]["message"], "é".repeat(32_768));
    let short = conditions::conditions(&[condition("é".repeat(32_768))], Some(1), None, NOW);
    assert_eq!(short[0]["message"], "é".repeat(32_768));
}

#[test]
fn a_gateway_whose_class_is_another_controllers_is_abandoned() {
    let (mut index, _) = served();
    assert_eq!(index.outcome().abandoned, BTreeSet::new());
    let mut object = index.object(&reference(GATEWAY_GROUP, "Gateway", "ns", "g")).unwrap().clone();
    object["spec"]["gatewayClassName"] = json!("theirs");
    assert!(index.apply(&object));
    assert!(index.outcome().gateways.is_empty());
    assert_eq!(index.outcome().abandoned, BTreeSet::from([gateway()]));
    // Nothing of ours runs for it any more.
    let service = reference("", "Service", "ns", &proxy_name(&gateway()));
    assert!(index.delete(&service));
    assert_eq!(index.outcome().abandoned, BTreeSet::new());
}

#[test]
fn a_missing_certificate_costs_no_port() {
    let (mut index, _) = served();
    let before = index.outcome().gateways[&gateway()].proxy.clone().unwrap().ports;
    let mut object = index.object(&reference(GATEWAY_GROUP, "Gateway", "ns", "g")).unwrap().clone();
    let listener = json!({
        "name": "https", "protocol": "HTTPS", "port": 8443,
        "tls": {"certificateRefs": [{"name": "not-there"}]},
    });
    object["spec"]["listeners"].as_array_mut().unwrap().push(listener);
    assert!(index.apply(&object));
    let mut expected = before;
    expected.push(8443);
    assert_eq!(index.outcome().gateways[&gateway()].proxy.clone().unwrap().ports, expected);
}
