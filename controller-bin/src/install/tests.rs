use std::collections::BTreeSet;

use clap::Parser as _;
use policy_model::NamespacedName;
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::*;
use crate::provision::{self, DataPlane, EnvoyImage, Proxy, Settings};

fn args(more: &[&str]) -> Result<InstallArgs, clap::Error> {
    let line = ["agentic-controller", "install"].iter().chain(more);
    match crate::Args::try_parse_from(line)?.command {
        crate::cli::Command::Install(args) => Ok(args),
        other => panic!("{other:?}"),
    }
}

fn printed(more: &[&str]) -> Vec<Value> {
    let mut out = Vec::new();
    install(&args(more).unwrap(), &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    serde_yaml_ng::Deserializer::from_str(&text)
        .map(|document| Value::deserialize(document).unwrap())
        .collect()
}

fn one<'o>(objects: &'o [Value], kind: &str) -> &'o Value {
    let mut of_kind = objects.iter().filter(|object| object["kind"] == kind);
    let object = of_kind.next().unwrap_or_else(|| panic!("no {kind}"));
    assert!(of_kind.next().is_none(), "two of {kind}");
    object
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|item| item.as_str().unwrap()).collect()
}

/// What a role grants, one by one: group, resource, verb, name (empty: any).
fn grants(role: &Value) -> BTreeSet<(String, String, String, String)> {
    let mut grants = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        let names = rule.get("resourceNames").map_or(vec![""], strings);
        for group in strings(&rule["apiGroups"]) {
            for resource in strings(&rule["resources"]) {
                for verb in strings(&rule["verbs"]) {
                    for name in &names {
                        grants.insert((group.into(), resource.into(), verb.into(), (*name).into()));
                    }
                }
            }
        }
    }
    grants
}

fn has(role: &Value, group: &str, resource: &str, verb: &str) -> bool {
    grants(role).contains(&(group.to_owned(), resource.to_owned(), verb.to_owned(), String::new()))
}

#[test]
fn everything_is_there_in_order() {
    let objects = printed(&[]);
    let kinds: Vec<&str> = objects.iter().map(|object| object["kind"].as_str().unwrap()).collect();
    let rest = [
        "Namespace",
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
        "Role",
        "RoleBinding",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "Service",
        "Deployment",
        "PodDisruptionBudget",
        "GatewayClass",
    ];
    assert_eq!(kinds[..4], ["CustomResourceDefinition"; 4]);
    assert_eq!(kinds[4..], rest);
    let without: Vec<Value> = printed(&["--without-crds"]);
    assert_eq!(without[..], objects[4..]);
}

#[test]
fn settings_arrive_where_they_belong() {
    let objects = printed(&[
        "--image=registry.example/c:1",
        "--gateway-image=registry.example/g:1",
        "--envoy-image=registry.example/envoy:v1.39.1",
        "--namespace=elsewhere",
        "--replicas=3",
        "--trust-domain=example.org",
        "--default-action=deny",
        "--without-crds",
    ]);
    for object in &objects {
        if let Some(namespace) = object["metadata"].get("namespace") {
            assert_eq!(namespace, "elsewhere", "{object}");
        }
    }
    assert_eq!(one(&objects, "Namespace")["metadata"]["name"], "elsewhere");
    assert_eq!(one(&objects, "ClusterRoleBinding")["subjects"][0]["namespace"], "elsewhere");
    let deployment = one(&objects, "Deployment");
    assert_eq!(deployment["spec"]["replicas"], 3);
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "registry.example/c:1");
    assert_eq!(
        strings(&container["args"]),
        [
            "run",
            "--gateway-image=registry.example/g:1",
            "--envoy-image=registry.example/envoy:v1.39.1",
            "--trust-domain=example.org",
            "--default-action=deny",
            "--service=agentic-controller.elsewhere.svc",
        ]
    );
    let text = serde_json::to_string(&objects).unwrap();
    assert!(text.contains("system:serviceaccount:elsewhere:agentic-controller"));
    assert!(!text.contains("agentic-net-system"));
}

#[test]
fn settings_that_would_not_be_plain_yaml_are_refused() {
    for bad in [
        "--image=a b",
        "--image=a\nb: c",
        "--gateway-image=",
        "--envoy-image=registry.example/envoy:latest",
        "--namespace=A",
        "--namespace=0",
        "--namespace=a-",
        "--namespace=a.b",
        "--replicas=0",
        "--trust-domain=a b",
        "--default-action=maybe",
    ] {
        assert!(args(&[bad]).is_err(), "{bad}");
    }
}

#[test]
fn the_controllers_args_are_the_controllers() {
    let objects = printed(&["--without-crds"]);
    let container = &one(&objects, "Deployment")["spec"]["template"]["spec"]["containers"][0];
    let args = strings(&container["args"]);
    let line = ["agentic-controller"].into_iter().chain(args).chain(["--pod-name=agentic-controller-0"]);
    crate::Args::try_parse_from(line).unwrap();
}

#[test]
fn pods_run_with_as_little_as_they_can() {
    let objects = printed(&["--without-crds"]);
    let pod = &one(&objects, "Deployment")["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let container = &pod["containers"][0];
    assert_eq!(
        container["securityContext"],
        json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true})
    );
    assert_eq!(container["readinessProbe"]["httpGet"], json!({"path": "/readyz", "port": "admin"}));
}

#[test]
fn no_right_is_a_wildcard_and_secrets_are_only_fetched() {
    let objects = printed(&["--without-crds"]);
    for kind in ["ClusterRole", "Role"] {
        for (group, resource, verb, name) in grants(one(&objects, kind)) {
            for word in [&group, &resource, &verb, &name] {
                assert!(!word.contains('*'), "{kind}: {group}/{resource} {verb}");
            }
            let may = match (kind, resource.as_str()) {
                ("ClusterRole", "secrets") => &["get"][..],
                ("Role", "secrets") => &["create"],
                // Rights over rights, or to act as another.
                (
                    _,
                    "clusterroles" | "clusterrolebindings" | "roles" | "rolebindings" | "users" | "groups",
                ) => &[],
                (_, "serviceaccounts/token" | "pods/exec" | "pods/portforward" | "nodes/proxy") => &[],
                _ => continue,
            };
            assert!(may.contains(&verb.as_str()), "{kind}: {resource} {verb}");
        }
    }
}

#[test]
fn every_rule_has_its_reason() {
    let lines: Vec<&str> = MANIFESTS.lines().collect();
    let mut rules = 0;
    for (at, line) in lines.iter().enumerate() {
        if !line.starts_with("- apiGroups:") {
            continue;
        }
        rules += 1;
        assert!(lines[at - 1].starts_with('#'), "line {}", at + 1);
    }
    assert!(rules > 10);
}

#[test]
fn what_is_watched_may_be_watched() {
    let objects = printed(&["--without-crds"]);
    let role = one(&objects, "ClusterRole");
    let kinds = crate::watch::kinds();
    assert!(kinds.len() > 10);
    for kind in kinds {
        for verb in ["get", "list", "watch"] {
            assert!(has(role, &kind.group, &plural(&kind.kind), verb), "{verb} {kind:?}");
        }
    }
}

/// The plural of a kind, as far as these kinds go.
fn plural(kind: &str) -> String {
    let lower = kind.to_lowercase();
    if let Some(stem) = lower.strip_suffix('y').filter(|stem| !stem.ends_with('a')) {
        format!("{stem}ies")
    } else if lower.ends_with('s') {
        format!("{lower}es")
    } else {
        format!("{lower}s")
    }
}

#[test]
fn what_is_applied_may_be_applied() {
    let proxy = Proxy {
        gateway: NamespacedName::new("a", "b"),
        uid: "u".to_owned(),
        labels: std::collections::BTreeMap::new(),
        annotations: std::collections::BTreeMap::new(),
        ports: vec![80],
        data_plane: DataPlane::Native,
        image: None,
        replicas: 1,
        flags: Vec::new(),
    };
    let settings = Settings {
        gateway_image: "g".to_owned(),
        envoy_image: EnvoyImage::read("docker.io/envoyproxy/envoy:distroless-v1.40.0", None).unwrap(),
        xds_host: "c".to_owned(),
        xds_port: 15010,
        xds_server_id: "spiffe://a/b".to_owned(),
        trust_domain: "a".to_owned(),
        signer: identity::SIGNER.to_owned(),
        flags: Vec::new(),
    };
    let objects = printed(&["--without-crds"]);
    let role = one(&objects, "ClusterRole");
    let applied = provision::objects(&proxy, &settings);
    assert_eq!(applied.len(), 5);
    for object in &applied {
        let api_version = object["apiVersion"].as_str().unwrap();
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let resource = plural(object["kind"].as_str().unwrap());
        for verb in ["get", "create", "patch", "delete"] {
            assert!(has(role, group, &resource, verb), "{verb} {group}/{resource}");
        }
        // And may not be blocked by our own admission policy, which goes by the name.
        assert_eq!(object["metadata"]["name"].as_str().unwrap().len(), "envoy-proxy-".len() + 12);
    }
}
