//! Whether an object is as it was applied.
use kube::api::DynamicObject;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The hash of all that was applied. What an object no longer should have (a port, a label) is still in the live
/// object; this tells that something else was applied then.
const APPLIED: &str = "agentic.networking.x-k8s.io/applied";

/// Writes the hash of the object into it.
pub(super) fn seal(object: &mut Value) {
    let hash = hash(object);
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.insert(APPLIED.to_owned(), hash.into());
        }
    }
}

/// Whether an object was applied by this controller.
pub(super) fn is_sealed(object: &DynamicObject) -> bool {
    object.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(APPLIED))
}

/// The first 16 hex digits of the SHA-256 of the JSON, whose keys are sorted.
pub(super) fn hash(value: &Value) -> String {
    super::hex(&Sha256::digest(value.to_string().as_bytes()), 8)
}

/// Whether `live` has everything that `applied` says. What is applied empty may be absent. Lists of plain values are equal, lists of objects hold every object
/// in some order, so that what the API server fills in and what others add (where server-side apply would leave it
/// alone) is no drift.
pub(super) fn has(live: &Value, applied: &Value) -> bool {
    match (live, applied) {
        (Value::Object(live), Value::Object(applied)) => applied
            .iter()
            .all(|(name, applied)| live.get(name).map_or(is_empty(applied), |live| has(live, applied))),
        (Value::Array(live), Value::Array(applied)) if applied.iter().all(Value::is_object) => {
            applied.iter().all(|applied| live.iter().any(|live| has(live, applied)))
        }
        _ => live == applied,
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(serde_json::Map::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(live: Value, applied: Value, expected: bool) {
        assert_eq!(has(&live, &applied), expected, "{live} has {applied}");
    }

    #[test]
    fn what_counts_as_drift() {
        check(json!({"a": 1, "b": 2}), json!({"a": 1}), true);
        check(json!({"a": 1}), json!({"a": 2}), false);
        check(json!({}), json!({"a": 1}), false);
        check(json!({"args": ["a", "b"]}), json!({"args": ["a", "b"]}), true);
        check(json!({"args": ["b", "a"]}), json!({"args": ["a", "b"]}), false);
        check(json!({"args": ["a", "b", "c"]}), json!({"args": ["a", "b"]}), false);
        check(
            json!({"ports": [{"port": 2}, {"port": 1, "nodePort": 9}]}),
            json!({"ports": [{"port": 1}]}),
            true,
        );
        check(json!({"ports": [{"port": 2}]}), json!({"ports": [{"port": 1}]}), false);
        check(json!({}), json!({"env": [], "data": {}}), true);
        check(json!({}), json!({"name": ""}), false);
        check(json!(null), json!({"a": 1}), false);
    }

    #[test]
    fn the_seal_tells_what_was_applied() {
        let sealed = |mut object: Value| {
            seal(&mut object);
            object["metadata"]["annotations"][APPLIED].as_str().unwrap().to_owned()
        };
        let with = json!({"metadata": {"labels": {"a": "b"}}});
        assert_eq!(sealed(with.clone()), sealed(with.clone()));
        assert_ne!(sealed(with), sealed(json!({"metadata": {"labels": {}}})));
        let mut annotated = json!({"metadata": {"annotations": {"of": "theirs"}}});
        seal(&mut annotated);
        assert_eq!(annotated["metadata"]["annotations"]["of"], "theirs");
    }
}
