//! Whatever arrives: no panic, and never more than what it says.
#![cfg(feature = "kube")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what a test calls may fail as the test may"
)]
use policy_model::{Condition, Dialect, Source, read_backend, read_policy};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Names that occur in policies, so that random objects come near to being one.
const WORDS: &[&str] = &[
    "apiVersion",
    "kind",
    "metadata",
    "spec",
    "name",
    "namespace",
    "targetRefs",
    "group",
    "sectionName",
    "rules",
    "action",
    "source",
    "type",
    "serviceAccount",
    "spiffe",
    "authorization",
    "tools",
    "cel",
    "expression",
    "externalAuth",
    "protocol",
    "grpc",
    "http",
    "backendRef",
    "port",
    "methods",
    "paths",
    "headers",
    "hosts",
    "ports",
    "mcp",
    "params",
    "value",
    "creationTimestamp",
    "status",
    "XAccessPolicy",
    "XBackend",
    "Gateway",
    "agentic.networking.x-k8s.io/v1alpha1",
    "agentic.prototype.x-k8s.io/v0alpha0",
    "agentic.networking.x-k8s.io",
    "gateway.networking.k8s.io",
    "Allow",
    "ExternalAuth",
    "Inline",
    "CEL",
    "InlineTools",
    "ServiceAccount",
    "SPIFFE",
    "spiffe://a/b",
    "GRPC",
    "HTTP",
    "GET",
    "tools/call",
    "/mcp",
    "serviceName",
    "hostname",
    "",
];

fn word() -> impl Strategy<Value = String> {
    prop_oneof![4 => prop::sample::select(WORDS).prop_map(str::to_owned), 1 => ".{0,8}"]
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0..70_000i64).prop_map(Value::from),
        word().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 48, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(word(), inner, 0..6).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn valid() -> impl Strategy<Value = Value> {
    let targets = json!([{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g", "sectionName": "https"}]);
    let authorizer = json!({"protocol": "GRPC", "grpc": {"allowedHeaders": ["a"]}, "backendRef": {"name": "z", "port": 1}});
    let source = json!({"type": "ServiceAccount", "serviceAccount": {"name": "agent"}});
    let v0 = json!({
        "apiVersion": "agentic.networking.x-k8s.io/v0alpha0", "kind": "XAccessPolicy",
        "metadata": {"name": "p", "namespace": "team", "creationTimestamp": "2026-01-31T12:00:00Z"},
        "spec": {"targetRefs": targets, "rules": [
            {"name": "a", "source": source, "authorization": {"type": "InlineTools", "tools": ["add"]}},
            {"name": "b", "source": {"type": "SPIFFE", "spiffe": "spiffe://a/b"},
                "authorization": {"type": "ExternalAuth", "externalAuth": authorizer}},
            {"name": "c", "source": source, "authorization": {"type": "CEL", "cel": {"expression": "true", "message": "m"}}},
        ]},
    });
    let v1 = json!({
        "apiVersion": "agentic.networking.x-k8s.io/v1alpha1", "kind": "XAccessPolicy",
        "metadata": {"name": "p", "namespace": "team"},
        "spec": {"targetRefs": targets, "action": "Allow", "rules": [
            {"name": "a", "source": source, "authorization": {"type": "Inline", "methods": ["GET"],
                "paths": [{"type": "Exact", "value": "/a"}], "headers": [{"name": "a", "value": "b"}], "hosts": ["*.a"],
                "ports": [1], "mcp": {"mcpBaseProtocolMethodsOption": "MATCH_BASE_PROTOCOL_METHODS",
                    "methods": [{"name": "tools/call", "params": ["add"]}]}}},
            {"name": "b", "source": source, "authorization": {"type": "CEL", "cel": {"expression": "true"}, "ports": [1]}},
        ]},
    });
    let delegating = json!({
        "apiVersion": "agentic.networking.x-k8s.io/v1alpha1", "kind": "XAccessPolicy",
        "metadata": {"name": "p", "namespace": "team"},
        "spec": {"targetRefs": targets, "action": "ExternalAuth", "externalAuth": authorizer,
            "rules": [{"name": "a", "source": source}]},
    });
    prop::sample::select(vec![v0, v1, delegating])
}

/// Every pointer into a value, of objects and lists too.
fn pointers(value: &Value, at: &str, into: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(name, child)| (name.clone(), child)).collect(),
        Value::Array(items) => {
            items.iter().enumerate().map(|(index, child)| (index.to_string(), child)).collect()
        }
        _ => vec![],
    };
    for (name, child) in children {
        let at = format!("{at}/{name}");
        pointers(child, &at, into);
        into.push(at);
    }
}

/// A valid policy of which one part was put in another's place.
fn broken() -> impl Strategy<Value = Value> {
    (valid(), any::<prop::sample::Index>(), any_json()).prop_map(|(mut object, index, value)| {
        let mut all = vec![];
        pointers(&object, "", &mut all);
        let at = &all[index.index(all.len())];
        *object.pointer_mut(at).unwrap() = value;
        object
    })
}

/// A valid policy of which one field was taken out or given another name.
fn renamed() -> impl Strategy<Value = (Value, String)> {
    (valid(), any::<prop::sample::Index>(), any::<bool>()).prop_map(|(mut object, index, keep)| {
        let mut all = vec![];
        pointers(&object, "", &mut all);
        all.retain(|at| object.pointer(at.rsplit_once('/').unwrap().0).unwrap().is_object());
        let at = all.swap_remove(index.index(all.len()));
        let (parent, name) = at.rsplit_once('/').unwrap();
        let fields = object.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        let value = fields.remove(name).unwrap();
        if keep {
            fields.insert(format!("{name}X"), value);
        }
        (object, at)
    })
}

fn check_error(object: &Value) -> Result<(), TestCaseError> {
    let Err(error) = read_policy(object) else { return Ok(()) };
    prop_assert!(!error.violations().is_empty());
    // Every target that is closed is named in the object, and is in the policy's own namespace.
    let named: Vec<&str> = object
        .pointer("/spec/targetRefs")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|reference| reference.get("name")?.as_str())
        .collect();
    for target in error.readable_targets() {
        prop_assert!(named.contains(&target.object.name.as_str()));
        prop_assert_eq!(target.object.namespace.as_str(), error.namespace());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_json_never_panics(value in any_json()) {
        prop_assert!(read_policy(&value).is_err() || value["kind"] == "XAccessPolicy");
        prop_assert!(read_backend(&value).is_err() || value["kind"] == "XBackend");
        check_error(&value)?;
    }

    #[test]
    fn a_broken_policy_is_refused_or_says_no_more_than_it_says(object in broken()) {
        check_error(&object)?;
        if let Ok(policy) = read_policy(&object) {
            // Reading is a function of the object, and the shape decides.
            prop_assert_eq!(&read_policy(&object).unwrap(), &policy);
            prop_assert_eq!(policy.dialect == Dialect::V1Alpha1, object["spec"].get("action").is_some());
            prop_assert_eq!(policy.targets.len(), object["spec"]["targetRefs"].as_array().unwrap().len());
            let rules = object["spec"]["rules"].as_array().cloned().unwrap_or_default();
            prop_assert_eq!(policy.rules.len(), rules.len());
            for (rule, given) in policy.rules.iter().zip(&rules) {
                prop_assert_eq!(rule.source == Source::Anyone, given.get("source").is_none());
                prop_assert_eq!(matches!(rule.condition, Condition::Anything), given.get("authorization").is_none() && policy.dialect == Dialect::V1Alpha1);
            }
        }
    }

    /// A misspelt field is never an absent one.
    #[test]
    fn a_field_under_another_name_is_an_error((object, at) in renamed()) {
        check_error(&object)?;
        let (parent, name) = at.rsplit_once('/').unwrap();
        if object.pointer(parent).unwrap().get(format!("{name}X")).is_some() {
            prop_assert!(read_policy(&object).is_err(), "{} was ignored", at);
        }
    }
}
