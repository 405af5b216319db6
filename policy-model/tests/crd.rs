//! The generated definitions, whole and rule by rule.
#![cfg(feature = "kube")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what a test calls may fail as the test may"
)]
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::core::cel::{compile_schema, estimate_rule_cost};
use policy_model::{
    Schema,
    crd::{HttpMethod, McpMethodName, crds},
};
use serde_json::{Value, json};

/// Read and reviewed by people. When a type changes, change these by hand or with `agentic-controller crds`, and
/// review the difference: it is what clusters will see.
const GOLDEN: [&str; 4] = [
    include_str!("golden/xaccesspolicies.agentic.networking.x-k8s.io.yaml"),
    include_str!("golden/xbackends.agentic.networking.x-k8s.io.yaml"),
    include_str!("golden/xaccesspolicies.agentic.prototype.x-k8s.io.yaml"),
    include_str!("golden/xbackends.agentic.prototype.x-k8s.io.yaml"),
];

#[test]
fn the_definitions_are_the_reviewed_ones() {
    let generated = crds();
    assert_eq!(generated.len(), GOLDEN.len());
    for (generated, golden) in generated.iter().zip(GOLDEN) {
        let golden: CustomResourceDefinition = serde_yaml_ng::from_str(golden).unwrap();
        let name = golden.metadata.name.clone().unwrap();
        // Line by line, so that a failure is readable.
        let generated = serde_yaml_ng::to_string(generated).unwrap();
        let golden = serde_yaml_ng::to_string(&golden).unwrap();
        for (number, (generated, golden)) in generated.lines().zip(golden.lines()).enumerate() {
            assert_eq!(generated, golden, "{name}, line {}", number + 1);
        }
        assert_eq!(generated.len(), golden.len(), "{name}: one is longer");
    }
}

#[test]
fn versions_share_one_schema_and_one_is_stored() {
    for crd in crds() {
        let name = crd.metadata.name.clone().unwrap();
        assert_eq!(name, format!("{}.{}", crd.spec.names.plural, crd.spec.group));
        let versions: Vec<&str> = crd.spec.versions.iter().map(|version| version.name.as_str()).collect();
        let stored: Vec<&str> = crd
            .spec
            .versions
            .iter()
            .filter(|version| version.storage)
            .map(|version| version.name.as_str())
            .collect();
        if name == "xaccesspolicies.agentic.networking.x-k8s.io" {
            assert_eq!((versions, stored), (vec!["v0alpha0", "v1alpha1"], vec!["v1alpha1"]));
        } else {
            assert_eq!((versions, stored), (vec!["v0alpha0"], vec!["v0alpha0"]), "{name}");
        }
        for version in &crd.spec.versions {
            assert!(version.served);
            assert_eq!(version.schema, crd.spec.versions[0].schema, "{name}: a field would be pruned");
            assert!(version.subresources.as_ref().unwrap().status.is_some());
        }
    }
}

fn schemas() -> Vec<Value> {
    crds()
        .iter()
        .flat_map(|crd| &crd.spec.versions)
        .map(|version| {
            serde_json::to_value(version.schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap())
                .unwrap()
        })
        .collect()
}

fn visit(node: &Value, path: &str, see: &mut dyn FnMut(&Value, &str)) {
    see(node, path);
    for (name, child) in node["properties"].as_object().into_iter().flatten() {
        visit(child, &format!("{path}.{name}"), see);
    }
    if node.get("items").is_some() {
        visit(&node["items"], &format!("{path}[]"), see);
    }
}

/// What an API server asks of a structural schema, and what keeps the cost of rules bounded.
#[test]
fn schemas_are_structural_and_bounded() {
    for schema in schemas() {
        visit(&schema, "", &mut |node, path| {
            for keyword in
                ["anyOf", "oneOf", "allOf", "not", "$ref", "nullable", "additionalProperties", "title"]
            {
                assert!(node.get(keyword).is_none(), "{path}: {keyword}");
            }
            match node["type"].as_str() {
                Some("array") => {
                    assert!(node["maxItems"].is_u64(), "{path}: no maxItems");
                    assert!(node["x-kubernetes-list-type"].is_string(), "{path}: no list type");
                    for key in node["x-kubernetes-list-map-keys"].as_array().into_iter().flatten() {
                        assert!(
                            node["items"]["required"].as_array().unwrap().contains(key),
                            "{path}: key {key} is optional"
                        );
                    }
                }
                Some("string") => {
                    let bounded = node["maxLength"].is_u64()
                        || node["enum"].is_array()
                        || node["format"] == "date-time";
                    assert!(bounded, "{path}: no maxLength");
                    assert!(
                        !node["enum"].as_array().into_iter().flatten().any(Value::is_null),
                        "{path}: null"
                    );
                }
                Some("integer") => {
                    assert!(["int32", "int64"].contains(&node["format"].as_str().unwrap()), "{path}");
                }
                Some("object") => assert!(node["properties"].is_object(), "{path}: an object of nothing"),
                other => panic!("{path}: {other:?}"),
            }
            assert!(
                node["description"].is_string() || path.ends_with("[]") || path.is_empty(),
                "{path}: no description"
            );
        });
    }
}

#[test]
fn rules_compile_stay_in_budget_and_say_what_is_wrong() {
    let mut rules = 0;
    for schema in schemas() {
        Schema::compile(&schema).unwrap();
        visit(&schema, "", &mut |node, path| {
            let compiled = compile_schema(node);
            for rule in node["x-kubernetes-validations"].as_array().into_iter().flatten() {
                rules += 1;
                assert!(
                    rule["message"].as_str().is_some_and(|message| !message.is_empty()),
                    "{path}: {rule}"
                );
                let text = rule["rule"].as_str().unwrap();
                assert!(!text.contains("oldSelf"), "{path}: a rule on changes does not hold for files");
                let warnings = estimate_rule_cost(text, &compiled);
                assert!(warnings.is_empty(), "{path}: {warnings:?}");
            }
        });
    }
    // Each version of XAccessPolicy: spec 8, targetRefs 3, rules 2, source 4, authorization 6, paths 1, mcp.methods 1,
    // externalAuth 5 in two places. Each XBackend: 1.
    assert_eq!(rules, 3 * 35 + 2);
}

#[test]
fn methods_are_named_as_they_are_written() {
    for name in ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"] {
        assert_eq!(serde_json::from_value::<HttpMethod>(json!(name)).unwrap().as_str(), name);
    }
    for name in [
        "tools",
        "prompts",
        "resources",
        "prompts/list",
        "tools/list",
        "resources/list",
        "resources/templates/list",
        "prompts/get",
        "tools/call",
        "resources/subscribe",
        "resources/unsubscribe",
        "resources/read",
    ] {
        assert_eq!(serde_json::from_value::<McpMethodName>(json!(name)).unwrap().as_str(), name);
    }
    for name in ["get", "Tools", "tools/", "initialize", ""] {
        assert!(serde_json::from_value::<HttpMethod>(json!(name)).is_err(), "{name}");
        assert!(serde_json::from_value::<McpMethodName>(json!(name)).is_err(), "{name}");
    }
}
