//! What an API server gives: kept even where it cannot be read.
use xds_translate::{Inserted, ObjectRef, Objects};

#[test]
fn objects_of_an_api_server_are_never_skipped() {
    let mut objects = Objects::default();
    let policy = serde_json::json!({
        "apiVersion": "agentic.networking.x-k8s.io/v1alpha1", "kind": "XAccessPolicy",
        "metadata": {"name": "p", "namespace": "n"},
        "spec": {"action": "Perhaps", "targetRefs": []},
    });
    assert!(matches!(objects.insert(&policy), Inserted::Unreadable { .. }));
    assert_eq!(objects.len(), 1);
    let pod = serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}});
    assert_eq!(objects.insert(&pod), Inserted::OtherKind);
    let nameless = serde_json::json!({"apiVersion": "v1", "kind": "Service", "metadata": {}});
    assert!(matches!(objects.insert(&nameless), Inserted::Refused { .. }));
    let service = serde_json::json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "n", "newField": 1}, "spec": {"newField": 1},
    });
    // An API server may know fields that we do not.
    assert_eq!(objects.insert(&service), Inserted::Stored);
    assert_eq!(objects.insert(&service), Inserted::Stored);
    assert_eq!(objects.len(), 2);

    let reference = |group: &str, kind: &str, name: &str| ObjectRef {
        group: group.to_owned(),
        kind: kind.to_owned(),
        namespace: "n".to_owned(),
        name: name.to_owned(),
    };
    assert!(objects.remove(&reference("agentic.networking.x-k8s.io", "XAccessPolicy", "p")));
    assert!(!objects.remove(&reference("agentic.prototype.x-k8s.io", "XAccessPolicy", "p")));
    assert!(objects.remove(&reference("", "Service", "s")));
    assert!(objects.is_empty());
}

/// One object of each kind: each is kept, counted and removed for itself.
#[test]
fn every_kind_is_kept_and_removed() {
    let kinds = [
        ("gateway.networking.k8s.io", "v1", "GatewayClass"),
        ("gateway.networking.k8s.io", "v1", "Gateway"),
        ("gateway.networking.k8s.io", "v1", "HTTPRoute"),
        ("gateway.networking.k8s.io", "v1beta1", "ReferenceGrant"),
        ("gateway.networking.k8s.io", "v1alpha3", "BackendTLSPolicy"),
        ("agentic.networking.x-k8s.io", "v0alpha0", "XBackend"),
        ("agentic.prototype.x-k8s.io", "v0alpha0", "XBackend"),
        ("agentic.networking.x-k8s.io", "v1alpha1", "XAccessPolicy"),
        ("agentic.prototype.x-k8s.io", "v0alpha0", "XAccessPolicy"),
        ("", "v1", "Service"),
        ("discovery.k8s.io", "v1", "EndpointSlice"),
        ("", "v1", "Secret"),
        ("", "v1", "ConfigMap"),
        ("", "v1", "Namespace"),
    ];
    let mut objects = Objects::default();
    let mut references = Vec::new();
    for (group, version, kind) in kinds {
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        let namespaced = !matches!(kind, "GatewayClass" | "Namespace");
        let mut object = serde_json::json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "o"}, "spec": 1});
        if namespaced {
            object["metadata"]["namespace"] = "n".into();
        }
        // `spec` is wrong for each kind that has one, and unknown to the others: none is lost.
        let inserted = objects.insert(&object);
        let expected_stored = matches!(kind, "Secret" | "ConfigMap" | "EndpointSlice");
        assert_eq!(inserted == Inserted::Stored, expected_stored, "{kind}: {inserted:?}");
        references.push(ObjectRef {
            group: group.to_owned(),
            kind: kind.to_owned(),
            namespace: if namespaced { "n".to_owned() } else { String::new() },
            name: "o".to_owned(),
        });
    }
    assert_eq!(objects.len(), kinds.len());
    for (index, reference) in references.iter().enumerate() {
        let other = ObjectRef { name: "p".to_owned(), ..reference.clone() };
        assert!(!objects.remove(&other), "{other:?}");
        assert!(objects.remove(reference), "{reference:?}");
        assert!(!objects.remove(reference), "{reference:?}");
        assert_eq!(objects.len(), kinds.len() - index - 1);
    }
    assert!(objects.is_empty());
    let pod = ObjectRef {
        group: String::new(),
        kind: "Pod".to_owned(),
        namespace: "n".to_owned(),
        name: "o".to_owned(),
    };
    assert!(!objects.remove(&pod));
}

/// What cannot be read whole is kept under its name, with what is wrong with it.
#[test]
fn metadata_that_cannot_be_read() {
    let check = |metadata: serde_json::Value, expected: Inserted, kept: usize| {
        let mut objects = Objects::default();
        let policy = serde_json::json!({
            "apiVersion": "agentic.networking.x-k8s.io/v1alpha1", "kind": "XAccessPolicy", "metadata": metadata, "spec": {},
        });
        assert_eq!(objects.insert(&policy), expected);
        assert_eq!(objects.len(), kept);
    };
    let unreadable = |message: &str| Inserted::Unreadable { message: message.to_owned() };
    let refused = |message: &str| Inserted::Refused { message: message.to_owned() };
    check(
        serde_json::json!({"name": "p", "namespace": "n", "labels": []}),
        unreadable("metadata.labels: invalid type: sequence, expected a map"),
        1,
    );
    check(
        serde_json::json!({"name": "p", "generation": "1"}),
        unreadable("metadata.generation: invalid type: string \"1\", expected a whole number"),
        1,
    );
    check(
        serde_json::json!({"name": "p", "namespace": 1}),
        unreadable("metadata.namespace: invalid type: integer `1`, expected a string"),
        1,
    );
    // Without a name there is nothing to keep it under.
    check(serde_json::json!({"name": ""}), refused("metadata.name: is missing; give the object a name"), 0);
    check(
        serde_json::json!({"name": 1}),
        refused("metadata.name: invalid type: integer `1`, expected a string"),
        0,
    );
    check(serde_json::json!([]), refused("metadata: invalid type: sequence, expected ObjectMeta"), 0);
}
