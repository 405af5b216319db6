//! What people see of statuses, and manifests that are read or refused.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::{fs, path::PathBuf};

use command_line::{
    BundleFile, ManifestError, contents, default_action, load, parse, status_text, status_word,
};
use xds_translate::{Condition, ConditionStatus, ObjectRef, ObjectStatus, Scope};

fn condition(of: &str, status: ConditionStatus, reason: &str, message: &str) -> Condition {
    Condition { r#type: of.to_owned(), status, reason: reason.to_owned(), message: message.to_owned() }
}

#[track_caller]
fn check(namespace: &str, scope: Scope, conditions: Vec<Condition>, expected: &str) {
    let status = ObjectStatus {
        object: ObjectRef {
            group: "gateway.networking.k8s.io".to_owned(),
            kind: "Gateway".to_owned(),
            namespace: namespace.to_owned(),
            name: "agents".to_owned(),
        },
        scope,
        observed_generation: Some(1),
        conditions,
        attached_routes: None,
        supported_kinds: Vec::new(),
    };
    assert_eq!(status_text(&status), expected);
}

#[test]
fn a_status_is_a_line_with_what_is_to_be_done_below() {
    use ConditionStatus::{False, True, Unknown};
    check(
        "default",
        Scope::Object,
        vec![condition("Accepted", True, "Accepted", "all is well")],
        "ok   Gateway default/agents  Accepted=True/Accepted\n",
    );
    check(
        "",
        Scope::Listener("https".to_owned()),
        vec![
            condition("Accepted", True, "Accepted", "a warning: it matches nothing"),
            condition("Conflicted", False, "NoConflicts", "none"),
        ],
        "ok   Gateway agents (listener https)  Accepted=True/Accepted  Conflicted=False/NoConflicts\n       a warning: it \
         matches nothing\n",
    );
    check(
        "default",
        Scope::Object,
        vec![
            condition("Accepted", False, "Invalid", "write\nthis"),
            condition("ResolvedRefs", Unknown, "Pending", ""),
            condition("Conflicted", True, "HostnameConflict", "another listener has it"),
        ],
        "FAIL Gateway default/agents  Accepted=False/Invalid  ResolvedRefs=Unknown/Pending  \
         Conflicted=True/HostnameConflict\n       write\n       this\n       another listener has it\n",
    );
    assert_eq!([True, False, Unknown].map(status_word), ["True", "False", "Unknown"]);
}

const BACKEND: &str = "apiVersion: agentic.networking.x-k8s.io/v0alpha0\nkind: XBackend\nmetadata: {name: weather, \
                       namespace: default}\nspec: {mcp: {serviceName: weather, port: PORT}}\n";

#[test]
fn manifests_of_files_are_read_together() {
    let folder = tempfile::tempdir().unwrap();
    let [good, other, bad, binary] =
        ["a.yaml", "b.yaml", "c.yaml", "d.yaml"].map(|name| folder.path().join(name));
    fs::write(&good, BACKEND.replace("PORT", "3001")).unwrap();
    fs::write(&other, "apiVersion: batch/v1\nkind: Job\nmetadata: {name: x, namespace: y}\n").unwrap();
    let read = load(&[other.clone(), good.clone()]).unwrap();
    assert_eq!(read.skipped.len(), 1, "{:?}", read.skipped);
    assert!(read.skipped.iter().all(|skipped| skipped.contains("Job")), "{:?}", read.skipped);

    let files: Vec<PathBuf> =
        contents(&[other, good.clone()]).unwrap().into_iter().map(|(file, _)| file).collect();
    assert_eq!(files.first(), Some(&good));

    // All faults of all files.
    fs::write(&bad, [BACKEND.replace("PORT", "0"), BACKEND.replace("PORT", "x")].join("---\n")).unwrap();
    let error = load(&[good, bad]).unwrap_err();
    assert!(matches!(&error, ManifestError::Invalid(error) if error.violations.len() == 2), "{error}");
    assert!(error.to_string().lines().all(|line| line.contains("c.yaml")), "{error}");

    fs::write(&binary, b"\xff").unwrap();
    let error = load(&[binary]).unwrap_err();
    assert!(matches!(error, ManifestError::Read(_)));
    assert!(
        error.to_string().contains("d.yaml` is not UTF-8; write manifests as plain YAML or JSON"),
        "{error}"
    );

    let missing = folder.path().join("missing.yaml");
    let error = load(&[missing]).unwrap_err().to_string();
    assert!(error.starts_with("cannot read `") && error.contains("missing.yaml`: "), "{error}");
    let empty = tempfile::tempdir().unwrap();
    let error = contents(&[empty.path().to_owned()]).unwrap_err().to_string();
    assert!(error.ends_with("` holds no manifest (*.yaml, *.yml, *.json)"), "{error}");
    assert!(parse(&Vec::new()).unwrap().skipped.is_empty());
}

#[test]
fn values_of_flags() {
    let bundle: BundleFile = "example.org=/etc/roots=1.pem".parse().unwrap();
    assert_eq!(
        (bundle.trust_domain.to_string(), bundle.path),
        ("example.org".to_owned(), "/etc/roots=1.pem".into())
    );
    let error = "example.org".parse::<BundleFile>().unwrap_err();
    assert_eq!(error, "`example.org` is not DOMAIN=FILE, as `example.org=/etc/roots.pem`");
    assert_eq!(default_action("Allow").unwrap_err(), "`Allow` is neither `allow` nor `deny`");
    assert!(default_action("allow").is_ok() && default_action("deny").is_ok());
    assert_ne!(default_action("allow"), default_action("deny"));
}
