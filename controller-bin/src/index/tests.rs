use serde::Deserialize as _;
use serde_json::json;
use xds_translate::{ConditionStatus, Options};

use super::*;
use crate::provision::DataPlane;

const CLASS: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: ours}
spec:
  controllerName: sigs.k8s.io/kube-agentic-networking-controller
  parametersRef: {group: '', kind: ConfigMap, name: parameters, namespace: system}
";

const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: g, namespace: ns, uid: u-1}
spec:
  gatewayClassName: ours
  infrastructure: {labels: {team: red}, annotations: {note: kept}}
  listeners:
  - {name: b, protocol: HTTP, port: 8080}
  - {name: a, protocol: HTTPS, port: 443}
  - {name: c, protocol: HTTP, port: 8080, hostname: c.example}
  - {name: tcp, protocol: TCP, port: 9000}
";

fn value(yaml: &str) -> Value {
    Value::deserialize(serde_yaml_ng::Deserializer::from_str(yaml)).unwrap()
}

fn index(objects: &[&Value]) -> Index {
    let mut index = Index::new(Settings { options: Options::default() });
    for object in objects {
        assert!(index.apply(object), "{object}");
    }
    index
}

fn parameters(data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "parameters", "namespace": "system"}, "data": data})
}

fn name() -> NamespacedName {
    NamespacedName::new("ns", "g")
}

fn proxy(index: &Index) -> Result<Proxy, String> {
    index.outcome().gateways[&name()].proxy.clone()
}

/// The Accepted of an object: `Status/Reason`.
fn accepted(index: &Index, kind: &str) -> String {
    let outcome = index.outcome();
    let status =
        outcome.statuses.iter().find(|status| status.object.kind == kind && status.scope.is_object());
    let condition =
        status.unwrap().conditions.iter().find(|condition| condition.r#type == "Accepted").unwrap();
    let status = if condition.status == ConditionStatus::True { "True" } else { "False" };
    format!("{status}/{}", condition.reason)
}

#[test]
fn how_proxies_run() {
    let index = index(&[
        &value(CLASS),
        &value(GATEWAY),
        &parameters(&json!({"replicas": "3", "image": "registry.example/gateway:1"})),
    ]);
    let expected = Proxy {
        gateway: name(),
        uid: "u-1".to_owned(),
        labels: BTreeMap::from([("team".to_owned(), "red".to_owned())]),
        annotations: BTreeMap::from([("note".to_owned(), "kept".to_owned())]),
        ports: vec![443, 8080],
        data_plane: DataPlane::Native,
        image: Some("registry.example/gateway:1".to_owned()),
        replicas: 3,
        flags: vec![],
    };
    assert_eq!(proxy(&index), Ok(expected));
    assert_eq!(accepted(&index, "GatewayClass"), "True/Accepted");
}

/// The class is not accepted and its Gateways are not provisioned, with this in the message.
#[track_caller]
fn check_parameters(class: &Value, map: Option<&Value>, message: &str) {
    let mut index = index(&[class, &value(GATEWAY)]);
    if let Some(map) = map {
        assert!(index.apply(map));
    }
    assert_eq!(accepted(&index, "GatewayClass"), "False/InvalidParameters");
    let error = proxy(&index).unwrap_err();
    assert!(error.contains(message), "{error}");
    // What runs is still served.
    assert!(!index.outcome().gateways[&name()].resources.types[native::OBJECT].is_empty());
}

#[test]
fn parameters_that_are_wrong() {
    let class = value(CLASS);
    check_parameters(&class, None, "ConfigMap `system/parameters` does not exist");
    check_parameters(&class, Some(&parameters(&json!({"replica": "3"}))), "replica");
    check_parameters(&class, Some(&parameters(&json!({"replicas": "many"}))), "many");
    let large = parameters(&json!({"replicas": "3", "comment": "x".repeat(10_000)}));
    check_parameters(&class, Some(&large), "larger than 8192 bytes");
    let mut binary = parameters(&json!({}));
    binary["binaryData"] = json!({"replicas": "Mw=="});
    check_parameters(&class, Some(&binary), "binaryData");
    let mut elsewhere = class.clone();
    elsewhere["spec"]["parametersRef"]["kind"] = json!("Secret");
    check_parameters(&elsewhere, None, "must name a ConfigMap");
    let mut nowhere = class;
    nowhere["spec"]["parametersRef"].as_object_mut().unwrap().remove("namespace");
    check_parameters(&nowhere, None, "namespace");
}

#[test]
fn parameters_that_change() {
    let mut index = index(&[&value(CLASS), &value(GATEWAY), &parameters(&json!({"replicas": "3"}))]);
    assert_eq!(proxy(&index).unwrap().replicas, 3);
    assert!(index.apply(&parameters(&json!({"replicas": "4"}))));
    assert_eq!(proxy(&index).unwrap().replicas, 4);
    assert!(!index.apply(&parameters(&json!({"replicas": "4"}))));
    let map = native::object_ref(&parameters(&json!({}))).unwrap();
    assert!(index.delete(&map) && !index.delete(&map));
    assert!(proxy(&index).is_err());
}

/// What the Gateway asks for is refused, and its proxies are not provisioned.
#[track_caller]
fn check_refused(at: &str, asked: Value, expected: &str) {
    let mut gateway = value(GATEWAY);
    gateway["spec"][at] = asked;
    let mut class = value(CLASS);
    class["spec"].as_object_mut().unwrap().remove("parametersRef");
    let index = index(&[&class, &gateway]);
    assert_eq!(accepted(&index, "Gateway"), expected);
    assert_eq!(proxy(&index).is_err(), expected.starts_with("False"), "{:?}", proxy(&index));
}

#[test]
fn what_a_gateway_may_not_ask_for() {
    let parameters = json!({"parametersRef": {"group": "", "kind": "ConfigMap", "name": "m"}});
    check_refused("infrastructure", parameters, "False/InvalidParameters");
    check_refused(
        "addresses",
        json!([{"type": "IPAddress", "value": "192.0.2.1"}]),
        "False/UnsupportedAddress",
    );
    check_refused("addresses", json!([{"type": "Hostname"}]), "False/UnsupportedAddress");
    // One listener of the Gateway is not valid, which is all that is said of it.
    check_refused("addresses", json!([]), "True/ListenersNotValid");
}

#[test]
fn changes_that_do_not_matter() {
    let class = value(CLASS);
    let mut service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "ns", "resourceVersion": "1"}, "spec": {"ports": [{"port": 1}]}});
    let mut index = index(&[&class, &value(GATEWAY), &service]);
    let before = index.outcome();
    service["metadata"]["resourceVersion"] = json!("2");
    service["metadata"]["managedFields"] = json!([{"manager": "kubectl"}]);
    assert!(!index.apply(&service));
    // The status of a Gateway is compared with what is to be written; its resourceVersion is what a write holds for.
    let mut gateway = value(GATEWAY);
    gateway["metadata"]["resourceVersion"] = json!("2");
    gateway["metadata"]["managedFields"] = json!([{"manager": "kubectl"}]);
    assert!(index.apply(&gateway));
    gateway["metadata"]["managedFields"] = json!([]);
    assert!(!index.apply(&gateway));
    let after = index.outcome();
    assert!(Arc::ptr_eq(&before.statuses, &after.statuses), "nothing was resolved again");
    let resources = |outcome: &Outcome| Arc::clone(&outcome.gateways[&name()].resources);
    // Another Gateway is resolved, and nothing of it is sent to this one.
    gateway["metadata"]["name"] = json!("other");
    assert!(index.apply(&gateway));
    let outcome = index.outcome();
    assert_eq!(outcome.gateways.len(), 2);
    assert!(
        Arc::ptr_eq(&resources(&before), &resources(&outcome)),
        "the same resources are the same allocation"
    );
}

#[test]
fn what_is_no_object_of_ours() {
    let mut index = index(&[]);
    for object in [
        json!({}),
        json!({"apiVersion": "v1", "kind": "Service"}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "ns"}}),
        json!({"apiVersion": "agentic.networking.x-k8s.io/v9", "kind": "XBackend", "metadata": {"name": "b", "namespace": "ns"}}),
    ] {
        assert!(!index.apply(&object), "{object}");
    }
    let services = Kind { group: String::new(), kind: "Service".to_owned() };
    let map = parameters(&json!({}));
    assert!(!index.reset(&services, &[map]), "a list of Services holds no ConfigMap");
}
