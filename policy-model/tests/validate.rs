//! What is refused, where, and with which words; and that the CRD's own rules are what refuses it.
#![cfg(feature = "kube")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what a test calls may fail as the test may"
)]
use std::sync::LazyLock;

use kube::core::cel::{CompiledSchema, Validator, compile_schema};
use policy_model::crd::crds;
use policy_model::{ReadError, read_backend, read_policy};
use serde_json::{Value, json};

/// A change to a valid object: a JSON pointer and what stands there then; `None` takes it away.
type Change<'a> = (&'a str, Option<Value>);

fn object(yaml: &str) -> Value {
    serde_yaml_ng::from_str(yaml).unwrap()
}

fn v0() -> Value {
    object(
        "
apiVersion: agentic.networking.x-k8s.io/v0alpha0
kind: XAccessPolicy
metadata: {name: p, namespace: team}
spec:
  targetRefs: [{group: agentic.networking.x-k8s.io, kind: XBackend, name: b}]
  rules:
  - name: tools
    source: {type: ServiceAccount, serviceAccount: {name: agent}}
    authorization: {type: InlineTools, tools: [add]}
  - name: asked
    source: {type: SPIFFE, spiffe: 'spiffe://cluster.local/ns/team/sa/agent'}
    authorization:
      type: ExternalAuth
      externalAuth: {protocol: GRPC, grpc: {}, backendRef: {name: authz, port: 50051}}
  - name: cel
    source: {type: ServiceAccount, serviceAccount: {name: agent, namespace: other}}
    authorization: {type: CEL, cel: {expression: 'true', message: why}}
",
    )
}

fn v1() -> Value {
    object(
        "
apiVersion: agentic.networking.x-k8s.io/v1alpha1
kind: XAccessPolicy
metadata: {name: p, namespace: team}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g, sectionName: https}]
  action: Allow
  rules:
  - name: inline
    source: {type: ServiceAccount, serviceAccount: {name: agent}}
    authorization:
      type: Inline
      methods: [POST]
      paths: [{value: /mcp}]
      headers: [{name: X-Tenant, value: a}]
      hosts: ['*.example.com']
      ports: [443]
      mcp: {methods: [{name: tools/call, params: [add]}]}
  - name: cel
    authorization: {type: CEL, cel: {expression: 'true'}, ports: [443]}
",
    )
}

fn delegating() -> Value {
    object(
        "
apiVersion: agentic.networking.x-k8s.io/v1alpha1
kind: XAccessPolicy
metadata: {name: p, namespace: team}
spec:
  targetRefs: [{group: agentic.prototype.x-k8s.io, kind: XBackend, name: b}]
  action: ExternalAuth
  externalAuth: {protocol: HTTP, http: {path: /check}, backendRef: {name: authz, port: 8080}}
",
    )
}

fn backend() -> Value {
    object(
        "
apiVersion: agentic.networking.x-k8s.io/v0alpha0
kind: XBackend
metadata: {name: b, namespace: team}
spec: {mcp: {serviceName: mcp, port: 3001}}
",
    )
}

#[track_caller]
fn changed(mut object: Value, changes: &[Change<'_>]) -> Value {
    for (pointer, value) in changes {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        match (object.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent}")), value) {
            (Value::Object(fields), Some(value)) => {
                fields.insert(name.replace("~1", "/"), value.clone());
            }
            (Value::Object(fields), None) => assert!(fields.remove(name).is_some(), "no {pointer}"),
            (Value::Array(items), Some(value)) if name == "-" => items.push(value.clone()),
            (Value::Array(items), Some(value)) => items[name.parse::<usize>().unwrap()] = value.clone(),
            (parent, _) => panic!("{pointer}: {parent}"),
        }
    }
    object
}

fn said(error: &ReadError) -> Vec<String> {
    error.violations().iter().map(ToString::to_string).collect()
}

#[track_caller]
fn accepted(base: Value, changes: &[Change<'_>]) {
    let object = changed(base, changes);
    if let Err(error) = read_policy(&object) {
        panic!("{error}");
    }
}

#[track_caller]
fn refused(base: Value, changes: &[Change<'_>], expected: &[&str]) {
    let object = changed(base, changes);
    let error = read_policy(&object).unwrap_err();
    assert_eq!(said(&error), expected);
    refused_by_the_crd(&object, &POLICY_RULES, &error);
}

#[track_caller]
fn backend_refused(changes: &[Change<'_>], expected: &[&str]) {
    let object = changed(backend(), changes);
    let error = read_backend(&object).unwrap_err();
    assert_eq!(said(&error), expected);
    refused_by_the_crd(&object, &BACKEND_RULES, &error);
}

/// A kind's schema as text, and its validation rules alone.
type Rules = LazyLock<(String, CompiledSchema)>;

static POLICY_RULES: Rules = LazyLock::new(|| rules_of("xaccesspolicies"));
static BACKEND_RULES: Rules = LazyLock::new(|| rules_of("xbackends"));

fn rules_of(plural: &str) -> (String, CompiledSchema) {
    let crd = crds().into_iter().find(|crd| crd.spec.names.plural == plural).unwrap();
    let schema = crd.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
    let schema = serde_json::to_value(schema).unwrap();
    (schema.to_string(), compile_schema(&schema))
}

/// What a validation rule of the CRD says, the rule engine alone says too, of the object as it stands.
#[track_caller]
fn refused_by_the_crd(object: &Value, rules: &Rules, error: &ReadError) {
    let (text, compiled) = &**rules;
    let from_rules: Vec<&str> = error
        .violations()
        .iter()
        .map(|violation| violation.message.as_str())
        .filter(|message| text.contains(&format!("\"message\":{}", Value::from(*message))))
        .collect();
    if !from_rules.is_empty() {
        let errors = Validator::new().validate_compiled(compiled, object, None).unwrap_err();
        let alone: Vec<&str> = errors.as_slice().iter().map(|error| error.message.as_str()).collect();
        assert_eq!(from_rules, alone);
    }
}

#[test]
fn valid_objects_are_accepted() {
    accepted(v0(), &[]);
    accepted(v1(), &[]);
    accepted(delegating(), &[]);
    read_backend(&backend()).unwrap();
    // The shape decides, not the apiVersion.
    accepted(v0(), &[("/apiVersion", Some(json!("agentic.networking.x-k8s.io/v1alpha1")))]);
    accepted(v0(), &[("/apiVersion", Some(json!("agentic.prototype.x-k8s.io/v0alpha0")))]);
    accepted(v1(), &[("/apiVersion", Some(json!("agentic.networking.x-k8s.io/v0alpha0")))]);
    accepted(v1(), &[("/apiVersion", Some(json!("agentic.prototype.x-k8s.io/v0alpha0")))]);
    // What an API server adds.
    accepted(
        v1(),
        &[
            (
                "/metadata",
                Some(
                    json!({"name": "p", "namespace": "team", "uid": "u", "resourceVersion": "7", "generation": 3,
                    "creationTimestamp": "2026-01-31T12:00:00Z", "labels": {"a": "b"}, "annotations": {},
                    "managedFields": [{"manager": "kubectl"}], "finalizers": ["f"], "ownerReferences": []}),
                ),
            ),
            ("/status", Some(json!({"ancestors": "not looked at"}))),
        ],
    );
    // Edges of limits.
    accepted(v1(), &[("/spec/rules", None)]);
    accepted(v1(), &[("/spec/rules", Some(json!([])))]);
    accepted(v0(), &[("/spec/rules/0/authorization/tools", Some(json!([])))]);
    accepted(v0(), &[("/spec/rules/0/authorization", None)]);
    accepted(v1(), &[("/spec/rules/0/authorization/mcp/methods", Some(json!([])))]);
    accepted(v1(), &[("/spec/rules/0/authorization/mcp/methods/0/params", Some(json!(["p".repeat(128)])))]);
    accepted(v1(), &[("/spec/rules/0/authorization/ports", Some(json!([1, 65535])))]);
    accepted(
        v1(),
        &[(
            "/spec/rules/0/authorization/paths/0",
            Some(json!({"type": "RegularExpression", "value": "(unclosed"})),
        )],
    );
    accepted(v1(), &[("/spec/rules/0/name", Some(json!("n".repeat(63))))]);
    accepted(v0(), &[("/spec/rules/2/authorization/cel/expression", Some(json!("not CEL ((")))]);
}

#[test]
fn the_object_as_a_whole() {
    refused(v0(), &[("/kind", Some(json!("AccessPolicy")))], &["kind: must be `XAccessPolicy`"]);
    refused(v0(), &[("/kind", None)], &["kind: must be `XAccessPolicy`"]);
    let versions = "apiVersion: must be `agentic.networking.x-k8s.io/v1alpha1`, `agentic.networking.x-k8s.io/v0alpha0` or \
                    `agentic.prototype.x-k8s.io/v0alpha0`";
    refused(v0(), &[("/apiVersion", Some(json!("agentic.networking.x-k8s.io/v1")))], &[versions]);
    refused(v0(), &[("/apiVersion", Some(json!("agentic.prototype.x-k8s.io/v1alpha1")))], &[versions]);
    refused(v0(), &[("/apiVersion", Some(json!(1)))], &[versions]);
    refused(v0(), &[("/spec", None)], &["spec: required"]);
    refused(v0(), &[("/spec", Some(json!([])))], &["spec: must be an object, is a list"]);
    refused(v0(), &[("/spce", Some(json!({})))], &["spce: unknown field; did you mean `spec`?"]);
    refused(v0(), &[("/metadata", None)], &["metadata: required, an object"]);
    refused(v0(), &[("/metadata/name", None)], &["metadata.name: required, a string"]);
    refused(
        v0(),
        &[("/metadata/name", Some(json!("Upper")))],
        &[
            "metadata.name: must be a DNS name (lower-case letters, digits, `-`, `.`) of at most 253 characters, is `Upper`",
        ],
    );
    refused(
        v0(),
        &[("/metadata/namespace", Some(json!("a.b")))],
        &[
            "metadata.namespace: must be a DNS label (lower-case letters, digits, `-`) of at most 63 characters, is `a.b`",
        ],
    );
    refused(
        v0(),
        &[("/metadata/namespce", Some(json!("team")))],
        &["metadata.namespce: unknown field; did you mean `namespace`?"],
    );
    refused(
        v0(),
        &[("/metadata/creationTimestamp", Some(json!("yesterday")))],
        &[
            "metadata.creationTimestamp: must be an RFC 3339 time such as `2026-01-31T12:00:00Z`, is `yesterday`",
        ],
    );
    refused(
        v0(),
        &[("/metadata/labels", Some(json!({"a": 1})))],
        &["metadata.labels[a]: must be a string, is `1`"],
    );
    refused(
        v0(),
        &[("/metadata/generation", Some(json!("1")))],
        &["metadata.generation: must be an integer, is `1`"],
    );
    refused(
        v0(),
        &[("/metadata/annotations", Some(json!(["a"])))],
        &["metadata.annotations: must be an object, is a list"],
    );
    // A name so long is no misspelling of anything.
    let long = "rules".repeat(13);
    refused(
        v0(),
        &[(&format!("/spec/{long}"), Some(json!([])))],
        &[&format!("spec.{long}: unknown field; remove it")],
    );
}

#[test]
fn target_refs() {
    const GROUP_AND_KIND: &str = "spec.targetRefs: TargetRef must have group agentic.networking.x-k8s.io and kind XBackend, or \
                                  group gateway.networking.k8s.io and kind Gateway";
    let gateway = json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g"});
    for base in [v0, v1, delegating] {
        refused(base(), &[("/spec/targetRefs", None)], &["spec.targetRefs: required"]);
        refused(
            base(),
            &[("/spec/targetRefs", Some(json!([])))],
            &["spec.targetRefs: must have at least 1 items, has 0"],
        );
        let eleven: Vec<Value> = (0..11).map(|_| gateway.clone()).collect();
        refused(
            base(),
            &[("/spec/targetRefs", Some(json!(eleven)))],
            &["spec.targetRefs: must have at most 10 items, has 11"],
        );
        refused(base(), &[("/spec/targetRefs/0/kind", Some(json!("Service")))], &[GROUP_AND_KIND]);
        refused(base(), &[("/spec/targetRefs/0/group", Some(json!("apps")))], &[GROUP_AND_KIND]);
        refused(base(), &[("/spec/targetRefs/0/group", Some(json!("")))], &[GROUP_AND_KIND]);
        refused(base(), &[("/spec/targetRefs/0/group", None)], &["spec.targetRefs[0].group: required"]);
        refused(base(), &[("/spec/targetRefs/0/kind", None)], &["spec.targetRefs[0].kind: required"]);
        refused(base(), &[("/spec/targetRefs/0/name", None)], &["spec.targetRefs[0].name: required"]);
        refused(
            base(),
            &[("/spec/targetRefs/0/name", Some(json!("")))],
            &["spec.targetRefs[0].name: must have at least 1 characters, has 0"],
        );
        refused(
            base(),
            &[("/spec/targetRefs/0/namespace", Some(json!("other")))],
            &["spec.targetRefs[0].namespace: unknown field; remove it"],
        );
    }
    refused(
        v0(),
        &[("/spec/targetRefs/-", Some(gateway))],
        &["spec.targetRefs: All targetRefs must have the same Kind"],
    );
    for base in [v0, delegating] {
        refused(
            base(),
            &[("/spec/targetRefs/0/sectionName", Some(json!("https")))],
            &["spec.targetRefs: sectionName may only be specified for a Gateway"],
        );
    }
    refused(
        v1(),
        &[("/spec/targetRefs/0/sectionName", Some(json!("HTTPS")))],
        &[
            r"spec.targetRefs[0].sectionName: must match `^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`, is `HTTPS`",
        ],
    );
}

#[test]
fn actions_and_mixtures_of_shapes() {
    refused(
        v1(),
        &[("/spec/action", Some(json!("Deny")))],
        &["spec.action: must be one of `Allow`, `ExternalAuth`, is `Deny`"],
    );
    refused(v1(), &[("/spec/action", Some(Value::Null))], &["spec.action: must be a string, is `null`"]);
    refused(
        delegating(),
        &[("/spec/externalAuth", None)],
        &["spec: externalAuth must be specified when action is set to 'ExternalAuth'"],
    );
    refused(
        delegating(),
        &[("/spec/action", Some(json!("Allow")))],
        &["spec: externalAuth may only be specified when action is set to 'ExternalAuth'"],
    );
    refused(
        delegating(),
        &[("/spec/action", None)],
        &[
            "spec: rules must be specified when action is not set",
            "spec: externalAuth may only be specified when action is set to 'ExternalAuth'",
        ],
    );
    for rules in [None, Some(json!([]))] {
        refused(v0(), &[("/spec/rules", rules)], &["spec: rules must be specified when action is not set"]);
    }
    refused(
        v0(),
        &[("/spec/rules/0/source", None)],
        &["spec: source must be specified in every rule when action is not set"],
    );
    refused(
        v0(),
        &[("/spec/action", Some(json!("Allow")))],
        &[
            "spec: authorization type must be 'Inline' or 'CEL' when action is set",
            "spec: cel.message may only be specified when action is not set",
        ],
    );
    refused(
        v1(),
        &[("/spec/action", None)],
        &[
            "spec: source must be specified in every rule when action is not set",
            "spec: authorization type must be 'InlineTools', 'ExternalAuth' or 'CEL' when action is not set",
            "spec: methods, paths, headers, hosts, ports and mcp may only be specified when action is set",
        ],
    );
    refused(
        v1(),
        &[("/spec/rules/1/authorization/cel/message", Some(json!("m")))],
        &["spec: cel.message may only be specified when action is not set"],
    );
    for (field, value) in [
        ("methods", json!(["GET"])),
        ("paths", json!([])),
        ("headers", json!([])),
        ("hosts", json!(["a"])),
        ("ports", json!([1])),
        ("mcp", json!({})),
    ] {
        refused(
            v0(),
            &[(&format!("/spec/rules/0/authorization/{field}"), Some(value))],
            &["spec: methods, paths, headers, hosts, ports and mcp may only be specified when action is set"],
        );
    }
}

#[test]
fn rules() {
    for base in [v0, v1] {
        refused(base(), &[("/spec/rules/0/name", None)], &["spec.rules[0].name: required"]);
        refused(
            base(),
            &[("/spec/rules/0/name", Some(json!("cel")))],
            &["spec.rules: AccessRule names must be unique"],
        );
        refused(
            base(),
            &[("/spec/rules/0/name", Some(json!("n".repeat(64))))],
            &["spec.rules[0].name: must have at most 63 characters, has 64"],
        );
        refused(
            base(),
            &[("/spec/rules/0/name", Some(json!("No")))],
            &[
                r"spec.rules[0].name: must match `^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`, is `No`",
            ],
        );
        let eleven: Vec<Value> = (0..11).map(|number| json!({"name": format!("r{number}")})).collect();
        refused(
            base(),
            &[("/spec/rules", Some(json!(eleven)))],
            &["spec.rules: must have at most 10 items, has 11"],
        );
        refused(
            base(),
            &[("/spec/rules/0/sorce", Some(json!({})))],
            &["spec.rules[0].sorce: unknown field; did you mean `source`?"],
        );
        refused(
            base(),
            &[("/spec/rules/0/authorization/type", None)],
            &["spec.rules[0].authorization.type: required"],
        );
        refused(
            base(),
            &[("/spec/rules/0/authorization/type", Some(json!("Deny")))],
            &[
                "spec.rules[0].authorization.type: must be one of `InlineTools`, `ExternalAuth`, `CEL`, `Inline`, is `Deny`",
            ],
        );
        refused(
            base(),
            &[("/spec/rules/0/authorization", Some(Value::Null))],
            &["spec.rules[0].authorization: must be an object, is `null`"],
        );
    }
    let authorizer = v0()["spec"]["rules"][1]["authorization"].clone();
    refused(
        v0(),
        &[("/spec/rules/0/authorization", Some(authorizer))],
        &["spec.rules: a maximum of one rule per policy can specify 'ExternalAuth' authorization type"],
    );
}

#[test]
fn sources() {
    for base in [v0, v1] {
        let at = "/spec/rules/0/source";
        let says = |message: &str| format!("spec.rules[0].source{message}");
        for (source, message) in [
            (json!({}), ".type: required"),
            (json!({"serviceAccount": {"name": "a"}}), ".type: required"),
            (json!({"type": "Anyone"}), ".type: must be one of `ServiceAccount`, `SPIFFE`, is `Anyone`"),
            (
                json!({"type": "ServiceAccount"}),
                ": serviceAccount must be specified when type is set to 'ServiceAccount'",
            ),
            (json!({"type": "SPIFFE"}), ": spiffe must be specified when type is set to 'SPIFFE'"),
            (
                json!({"type": "SPIFFE", "spiffe": "spiffe://a/b", "serviceAccount": {"name": "a"}}),
                ": serviceAccount may only be specified when type is set to 'ServiceAccount'",
            ),
            (
                json!({"type": "ServiceAccount", "spiffe": "spiffe://a/b", "serviceAccount": {"name": "a"}}),
                ": spiffe may only be specified when type is set to 'SPIFFE'",
            ),
            (json!({"type": "ServiceAccount", "serviceAccount": {}}), ".serviceAccount.name: required"),
            (
                json!({"type": "ServiceAccount", "serviceAccount": {"name": ""}}),
                ".serviceAccount.name: must have at least 1 characters, has 0",
            ),
            (
                json!({"type": "ServiceAccount", "serviceAccount": {"name": "a", "namespace": "A/b"}}),
                ".serviceAccount.namespace: must match `^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`, is `A/b`",
            ),
            (
                json!({"type": "ServiceAccount", "serviceAccount": {"name": "a", "namspace": "b"}}),
                ".serviceAccount.namspace: unknown field; did you mean `namespace`?",
            ),
            (
                json!({"type": "SPIFFE", "spiffe": "not-a-spiffe-id"}),
                ".spiffe: must match `^spiffe://[a-z0-9._-]+(?:/[A-Za-z0-9._-]+)*$`, is `not-a-spiffe-id`",
            ),
        ] {
            let message = says(message);
            // A source with two faults says both, the length first.
            let also = r".serviceAccount.name: must match `^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`, is ``";
            let empty_name = source["serviceAccount"]["name"] == "";
            let expected = if empty_name { vec![message, says(also)] } else { vec![message] };
            let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
            refused(base(), &[(at, Some(source))], &expected);
        }
    }
}

#[test]
fn authorizations() {
    let at = "/spec/rules/0/authorization";
    for (authorization, message) in [
        (json!({"type": "InlineTools"}), ": tools must be specified when type is set to 'InlineTools'"),
        (json!({"type": "CEL"}), ": cel must be specified when type is set to 'CEL'"),
        (
            json!({"type": "CEL", "cel": {"expression": "true"}, "tools": []}),
            ": tools may only be specified when type is set to 'InlineTools'",
        ),
        (
            json!({"type": "InlineTools", "tools": [], "cel": {"expression": "true"}}),
            ": cel may only be specified when type is set to 'CEL'",
        ),
        (json!({"type": "CEL", "cel": {}}), ".cel.expression: required"),
        (
            json!({"type": "CEL", "cel": {"expression": ""}}),
            ".cel.expression: must have at least 1 characters, has 0",
        ),
        (json!({"type": "CEL", "cel": {"expression": true}}), ".cel.expression: must be a string, is `true`"),
        (
            json!({"type": "InlineTools", "tools": ["a", "b", "a"]}),
            ".tools[2]: duplicate of `\"a\"`; list it once",
        ),
        (json!({"type": "InlineTools", "tools": "a"}), ".tools: must be a list, is `a`"),
        (json!({"type": "InlineTools", "tools": [1]}), ".tools[0]: must be a string, is `1`"),
    ] {
        refused(v0(), &[(at, Some(authorization))], &[&format!("spec.rules[0].authorization{message}")]);
    }
    refused(
        v0(),
        &[("/spec/rules/1/authorization/externalAuth", None)],
        &["spec.rules[1].authorization: externalAuth must be specified when type is set to 'ExternalAuth'"],
    );
    let authorizer = v0()["spec"]["rules"][1]["authorization"]["externalAuth"].clone();
    refused(
        v0(),
        &[("/spec/rules/0/authorization/externalAuth", Some(authorizer))],
        &[
            "spec.rules[0].authorization: externalAuth may only be specified when type is set to 'ExternalAuth'",
        ],
    );
    let at = "/spec/rules/1/authorization";
    for (authorization, message) in [
        (json!({"type": "CEL", "methods": ["GET"]}), ": cel must be specified when type is set to 'CEL'"),
        (
            json!({"type": "Inline", "cel": {"expression": "true"}}),
            ": cel may only be specified when type is set to 'CEL'",
        ),
        (
            json!({"type": "Inline", "tools": ["a"]}),
            ": tools may only be specified when type is set to 'InlineTools'",
        ),
    ] {
        refused(v1(), &[(at, Some(authorization))], &[&format!("spec.rules[1].authorization{message}")]);
    }
}

#[test]
fn inline_fields() {
    const TOKEN: &str = r"^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$";
    const HOST: &str = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
    let methods = "`GET`, `HEAD`, `POST`, `PUT`, `DELETE`, `CONNECT`, `OPTIONS`, `TRACE`, `PATCH`";
    let eleven = |item: Value| Value::Array(vec![item; 11]);
    for (field, value, message) in [
        ("methods", json!(["get"]), format!("[0]: must be one of {methods}, is `get`")),
        ("methods", json!(["GET", "GET"]), "[1]: duplicate of `\"GET\"`; list it once".to_owned()),
        ("methods", Value::Array(vec![json!("GET"); 10]), ": must have at most 9 items, has 10".to_owned()),
        ("paths", eleven(json!({"value": "/"})), ": must have at most 10 items, has 11".to_owned()),
        ("paths", json!([{"type": "Exact"}]), "[0].value: required".to_owned()),
        ("paths", json!([{"value": ""}]), "[0].value: must have at least 1 characters, has 0".to_owned()),
        ("paths", json!([{"value": "/".repeat(1025)}]), "[0].value: must have at most 1024 characters, has 1025".to_owned()),
        (
            "paths",
            json!([{"type": "Glob", "value": "/"}]),
            "[0].type: must be one of `Exact`, `PathPrefix`, `RegularExpression`, is `Glob`".to_owned(),
        ),
        (
            "paths",
            json!([{"value": "mcp"}]),
            "[0]: value must be an absolute path and start with '/' when type is 'Exact' or 'PathPrefix'".to_owned(),
        ),
        ("headers", eleven(json!({"name": "a", "value": "b"})), ": must have at most 10 items, has 11".to_owned()),
        ("headers", json!([{"name": "a"}]), "[0].value: required".to_owned()),
        ("headers", json!([{"value": "a"}]), "[0].name: required".to_owned()),
        ("headers", json!([{"name": "a b", "value": "c"}]), format!("[0].name: must match `{TOKEN}`, is `a b`")),
        ("headers", json!([{"name": "a", "value": ""}]), "[0].value: must have at least 1 characters, has 0".to_owned()),
        (
            "headers",
            json!([{"name": "a", "value": "b", "type": "Prefix"}]),
            "[0].type: must be one of `Exact`, `RegularExpression`, is `Prefix`".to_owned(),
        ),
        ("hosts", json!(["a.*.b"]), format!("[0]: must match `{HOST}`, is `a.*.b`")),
        ("hosts", json!(["*"]), format!("[0]: must match `{HOST}`, is `*`")),
        ("hosts", json!(["a:80"]), format!("[0]: must match `{HOST}`, is `a:80`")),
        ("hosts", json!(["a", "a"]), "[1]: duplicate of `\"a\"`; list it once".to_owned()),
        ("hosts", eleven(json!("a")), ": must have at most 10 items, has 11".to_owned()),
        ("ports", json!([0]), "[0]: must be at least 1, is `0`".to_owned()),
        ("ports", json!([65536]), "[0]: must be at most 65535, is `65536`".to_owned()),
        ("ports", json!(["443"]), "[0]: must be an integer, is `443`".to_owned()),
        ("ports", json!([443.5]), "[0]: must be an integer, is `443.5`".to_owned()),
        ("ports", json!([443, 443]), "[1]: duplicate of `443`; list it once".to_owned()),
        ("mcp", json!({"method": []}), ".method: unknown field; did you mean `methods`?".to_owned()),
        (
            "mcp",
            json!({"mcpBaseProtocolMethodsOption": "MATCH"}),
            ".mcpBaseProtocolMethodsOption: must be one of `SKIP_BASE_PROTOCOL_METHODS`, `MATCH_BASE_PROTOCOL_METHODS`, is `MATCH`"
                .to_owned(),
        ),
        (
            "mcp",
            json!({"methods": [{"name": "tools/run"}]}),
            ".methods[0].name: must be one of `tools`, `prompts`, `resources`, `prompts/list`, `tools/list`, `resources/list`, \
             `resources/templates/list`, `prompts/get`, `tools/call`, `resources/subscribe`, `resources/unsubscribe`, \
             `resources/read`, is `tools/run`"
                .to_owned(),
        ),
        ("mcp", json!({"methods": [{"params": ["a"]}]}), ".methods[0].name: required".to_owned()),
        (
            "mcp",
            json!({"methods": [{"name": "tools"}, {"name": "tools"}]}),
            ".methods[1]: duplicate of `[\"tools\"]`; list it once".to_owned(),
        ),
        (
            "mcp",
            json!({"methods": [{"name": "tools/call", "params": ["p".repeat(129)]}]}),
            ".methods[0].params[0]: must have at most 128 characters, has 129".to_owned(),
        ),
        (
            "mcp",
            json!({"methods": [{"name": "tools/call", "params": ["a", "a"]}]}),
            ".methods[0].params[1]: duplicate of `\"a\"`; list it once".to_owned(),
        ),
    ] {
        let expected = format!("spec.rules[0].authorization.{field}{message}");
        refused(v1(), &[(&format!("/spec/rules/0/authorization/{field}"), Some(value))], &[&expected]);
    }
    for name in [
        "tools",
        "prompts",
        "resources",
        "prompts/list",
        "tools/list",
        "resources/list",
        "resources/templates/list",
    ] {
        for params in [json!(["a"]), json!([])] {
            refused(
                v1(),
                &[(
                    "/spec/rules/0/authorization/mcp/methods/0",
                    Some(json!({"name": name, "params": params})),
                )],
                &[
                    "spec.rules[0].authorization.mcp.methods[0]: Params can only be specified for get, call, subscribe, \
                   unsubscribe, or read methods",
                ],
            );
        }
    }
    for name in
        ["prompts/get", "tools/call", "resources/read", "resources/subscribe", "resources/unsubscribe"]
    {
        accepted(
            v1(),
            &[("/spec/rules/0/authorization/mcp/methods/0", Some(json!({"name": name, "params": ["a"]})))],
        );
    }
}

#[test]
fn external_auth() {
    for (base, at, path) in [
        (v0(), "/spec/rules/1/authorization/externalAuth", "spec.rules[1].authorization.externalAuth"),
        (delegating(), "/spec/externalAuth", "spec.externalAuth"),
    ] {
        let reference = json!({"name": "authz", "port": 1});
        for (auth, message) in [
            (json!({"grpc": {}, "backendRef": reference}), ".protocol: required"),
            (
                json!({"protocol": "TCP", "backendRef": reference}),
                ".protocol: must be one of `HTTP`, `GRPC`, is `TCP`",
            ),
            (
                json!({"protocol": "GRPC", "backendRef": reference}),
                ": grpc must be specified when protocol is set to 'GRPC'",
            ),
            (
                json!({"protocol": "HTTP", "backendRef": reference}),
                ": http must be specified when protocol is set to 'HTTP'",
            ),
            (
                json!({"protocol": "GRPC", "grpc": {}, "http": {}, "backendRef": reference}),
                ": protocol must be 'HTTP' when http is set",
            ),
            (
                json!({"protocol": "HTTP", "grpc": {}, "http": {}, "backendRef": reference}),
                ": protocol must be 'GRPC' when grpc is set",
            ),
            (json!({"protocol": "GRPC", "grpc": {}}), ".backendRef: required"),
            (
                json!({"protocol": "GRPC", "grpc": {}, "backendRef": {"name": "authz"}}),
                ".backendRef: Must have port for Service reference",
            ),
            (
                json!({"protocol": "GRPC", "grpc": {}, "backendRef": {"port": 1}}),
                ".backendRef.name: required",
            ),
            (
                json!({"protocol": "GRPC", "grpc": {}, "backendRef": {"name": "authz", "port": 0}}),
                ".backendRef.port: must be at least 1, is `0`",
            ),
            (
                json!({"protocol": "GRPC", "grpc": {"allowedHeaders": ["a", "a"]}, "backendRef": reference}),
                ".grpc.allowedHeaders[1]: duplicate of `\"a\"`; list it once",
            ),
            (
                json!({"protocol": "HTTP", "http": {"allowedResponseHeaders": vec!["a"; 65]}, "backendRef": reference}),
                ".http.allowedResponseHeaders: must have at most 64 items, has 65",
            ),
            (
                json!({"protocol": "HTTP", "http": {"path": "check"}, "backendRef": reference}),
                r".http.path: must match `^$|^/[!-\x22$->@-~]*$`, is `check`",
            ),
            (
                json!({"protocol": "GRPC", "grpc": {}, "backendRef": reference, "forwardBody": {"maxSize": -1}}),
                ".forwardBody.maxSize: must be at least 0, is `-1`",
            ),
            (
                json!({"protocol": "GRPC", "grpc": {}, "backendRef": reference, "forwardBody": {"maxSize": 65536}}),
                ".forwardBody.maxSize: must be at most 65535, is `65536`",
            ),
        ] {
            refused(base.clone(), &[(at, Some(auth))], &[&format!("{path}{message}")]);
        }
        // Not a Service: a port is not required; such a reference just never resolves.
        let elsewhere = json!({"protocol": "GRPC", "grpc": {}, "backendRef": {"group": "example.org", "kind": "Authorizer", "name": "a"}});
        accepted(base, &[(at, Some(elsewhere))]);
    }
}

#[test]
fn backends() {
    const NAME: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
    let versions =
        "apiVersion: must be `agentic.networking.x-k8s.io/v0alpha0` or `agentic.prototype.x-k8s.io/v0alpha0`";
    backend_refused(&[("/apiVersion", Some(json!("agentic.networking.x-k8s.io/v1alpha1")))], &[versions]);
    backend_refused(&[("/kind", Some(json!("Backend")))], &["kind: must be `XBackend`"]);
    backend_refused(&[("/spec/mcp", None)], &["spec.mcp: required"]);
    let both = "spec.mcp: exactly one of serviceName and hostname must be set";
    backend_refused(&[("/spec/mcp/hostname", Some(json!("example.com")))], &[both]);
    backend_refused(&[("/spec/mcp/serviceName", None)], &[both]);
    backend_refused(&[("/spec/mcp/port", None)], &["spec.mcp.port: required"]);
    backend_refused(&[("/spec/mcp/port", Some(json!(0)))], &["spec.mcp.port: must be at least 1, is `0`"]);
    backend_refused(
        &[("/spec/mcp/port", Some(json!(65536)))],
        &["spec.mcp.port: must be at most 65535, is `65536`"],
    );
    backend_refused(
        &[("/spec/mcp/port", Some(json!("80")))],
        &["spec.mcp.port: must be an integer, is `80`"],
    );
    backend_refused(
        &[("/spec/mcp/serviceName", Some(json!("a_b")))],
        &[&format!("spec.mcp.serviceName: must match `{NAME}`, is `a_b`")],
    );
    backend_refused(
        &[("/spec/mcp/serviceName", None), ("/spec/mcp/hostname", Some(json!("https://a")))],
        &[&format!("spec.mcp.hostname: must match `{NAME}`, is `https://a`")],
    );
    for path in ["mcp", "/mcp?a=b", "/mcp#a", "/m cp", "/\u{e9}"] {
        let expected = format!(r"spec.mcp.path: must match `^/[!-\x22$->@-~]*$`, is `{path}`");
        backend_refused(&[("/spec/mcp/path", Some(json!(path)))], &[&expected]);
    }
    backend_refused(
        &[("/spec/mcp/prot", Some(json!(1)))],
        &["spec.mcp.prot: unknown field; did you mean `port`?"],
    );
}

#[test]
fn every_fault_is_named() {
    let error = read_policy(&changed(
        v0(),
        &[
            ("/spec/rules/0/source/type", None),
            ("/spec/rules/1/nmae", Some(json!("x"))),
            ("/spec/rules/2/authorization/cel", Some(json!({}))),
            ("/spec/targetRefs/0/port", Some(json!(1))),
        ],
    ))
    .unwrap_err();
    assert_eq!(
        said(&error),
        [
            "spec.rules[0].source.type: required",
            "spec.rules[1].nmae: unknown field; did you mean `name`?",
            "spec.rules[2].authorization.cel.expression: required",
            "spec.targetRefs[0].port: unknown field; remove it",
        ]
    );
    assert_eq!(
        error.to_string(),
        "spec.rules[0].source.type: required; spec.rules[1].nmae: unknown field; did you mean `name`?; \
         spec.rules[2].authorization.cel.expression: required; spec.targetRefs[0].port: unknown field; remove it"
    );
}

#[test]
fn rules_are_evaluated_beside_unknown_fields() {
    refused(
        v0(),
        &[("/spec/rules/0/name", Some(json!("cel"))), ("/spec/x", Some(json!(1)))],
        &["spec.x: unknown field; remove it", "spec.rules: AccessRule names must be unique"],
    );
}

/// Within seconds, where comparing each target with all before it would take minutes.
#[test]
fn any_number_of_targets_fails_closed_in_linear_time() {
    let target = |at: usize| json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": format!("g{at}")});
    let targets: Vec<Value> = (0..200_000).map(|at| target(at % 100_000)).collect();
    let error = read_policy(&changed(v0(), &[("/spec/targetRefs", Some(Value::from(targets)))])).unwrap_err();
    assert_eq!(said(&error), ["spec.targetRefs: must have at most 10 items, has 200000"]);
    let names: Vec<String> = error.readable_targets().into_iter().map(|target| target.object.name).collect();
    assert!(names.iter().enumerate().all(|(at, name)| *name == format!("g{at}")));
    assert_eq!(names.len(), 100_000);
}
