//! Definitions that other crates derive are enforced as well.
#![cfg(feature = "kube")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "what a test calls may fail as the test may")]
use gateway_api::{
    backendtlspolicies::BackendTlsPolicy, gatewayclasses::GatewayClass, gateways::Gateway,
    httproutes::HttpRoute, referencegrants::ReferenceGrant,
};
use policy_model::Schema;
use serde_json::Value;

#[track_caller]
fn check(schema: &Schema, yaml: &str, expected: &[&str]) {
    let object: Value = serde_yaml_ng::from_str(yaml).unwrap();
    let found: Vec<String> = match schema.read(&object) {
        Ok(_) => vec![],
        Err(violations) => violations.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(found, expected);
}

#[test]
fn gateways() {
    let schema = Schema::of_resource::<Gateway>().unwrap();
    let gateway = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: g, namespace: team}
spec:
  gatewayClassName: c
  listeners: [{name: https, protocol: HTTPS, port: 10001, allowedRoutes: {namespaces: {from: Same}}}]
";
    check(&schema, gateway, &[]);
    check(
        &schema,
        &gateway.replace("allowedRoutes", "allowedRoute"),
        &["spec.listeners[0].allowedRoute: unknown field; did you mean `allowedRoutes`?"],
    );
    check(
        &schema,
        &gateway.replace("from: Same", "from: Some"),
        &[
            "spec.listeners[0].allowedRoutes.namespaces.from: must be one of `All`, `Selector`, `Same`, is `Some`",
        ],
    );
    check(
        &schema,
        &gateway.replace("port: 10001", "port: http"),
        &["spec.listeners[0].port: must be an integer, is `http`"],
    );
}

#[test]
fn routes() {
    let schema = Schema::of_resource::<HttpRoute>().unwrap();
    let route = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: team}
spec:
  parentRefs: [{name: g}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /local/mcp}}]
    filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /mcp}}}]
    backendRefs: [{group: agentic.networking.x-k8s.io, kind: XBackend, name: b}]
";
    check(&schema, route, &[]);
    check(
        &schema,
        &route.replace("value:", "vale:"),
        &["spec.rules[0].matches[0].path.vale: unknown field; did you mean `value`?"],
    );
}

#[test]
fn the_other_kinds_compile() {
    Schema::of_resource::<GatewayClass>().unwrap();
    Schema::of_resource::<ReferenceGrant>().unwrap();
    Schema::of_resource::<BackendTlsPolicy>().unwrap();
}
