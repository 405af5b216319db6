//! Statuses with one entry for each parent or ancestor and controller: HTTPRoutes and policies.
use serde_json::{Map, Value, json};
use xds_translate::{ObjectRef, ObjectStatus, ParentRef, Scope};

use super::{
    GATEWAY_GROUP,
    conditions::{self, array, text},
};

/// `parents` of an HTTPRoute, `ancestors` of a policy.
pub(super) fn status(
    controller: &str,
    object: &ObjectRef,
    statuses: &[ObjectStatus],
    given: &Value,
    now: &str,
) -> Map<String, Value> {
    // The most entries that the definitions admit.
    let (list, reference, limit) = match object.kind.as_str() {
        "HTTPRoute" => ("parents", "parentRef", 32),
        _ => ("ancestors", "ancestorRef", 16),
    };
    let mut ours: Vec<(Value, &ObjectStatus)> = Vec::new();
    for status in statuses {
        if let Some(about) = about(object, &status.scope)
            && !ours.iter().any(|(known, _)| is_same(object, known, &about))
        {
            ours.push((about, status));
        }
    }
    let entry = |about: Value, status: &ObjectStatus, known: Option<&Value>| {
        let known = known.and_then(|known| known.get("conditions"));
        json!({
            reference: about,
            "controllerName": controller,
            "conditions": conditions::conditions(&status.conditions, status.observed_generation, known, now),
        })
    };
    let mut entries = Vec::new();
    for known in array(given.pointer("/status").and_then(|status| status.get(list))) {
        if text(known, "controllerName") != Some(controller) {
            entries.push(known.clone());
            continue;
        }
        let Some(about) = known.get(reference) else { continue };
        if let Some(found) = ours.iter().position(|(ours, _)| is_same(object, ours, about)) {
            let (_, status) = ours.remove(found);
            // The reference as it is: the API server may have filled in defaults.
            entries.push(entry(about.clone(), status, Some(known)));
        }
    }
    let room = usize::saturating_sub(limit, entries.len());
    entries.extend(ours.into_iter().take(room).map(|(about, status)| entry(about, status, None)));
    Map::from_iter([(list.to_owned(), Value::Array(entries))])
}

/// The reference of an entry; `None` where there is none of ours.
fn about(object: &ObjectRef, scope: &Scope) -> Option<Value> {
    match scope {
        Scope::Parent { reference, .. } => Some(parent(reference)),
        // A BackendTLSPolicy is ours to speak of under Gateways and XBackends: anything else may be another controller's.
        Scope::Ancestor { kind, .. }
            if object.kind == "BackendTLSPolicy" && !matches!(kind.as_str(), "Gateway" | "XBackend") =>
        {
            None
        }
        Scope::Ancestor { group, kind, name, section } => {
            let mut about =
                json!({"group": group, "kind": kind, "namespace": name.namespace, "name": name.name});
            if let (Some(fields), Some(section)) = (about.as_object_mut(), section) {
                fields.insert("sectionName".to_owned(), section.as_str().into());
            }
            Some(about)
        }
        // Not even a target can be read: what it closes is its namespace.
        Scope::Object if object.kind == "XAccessPolicy" => {
            Some(json!({"group": "", "kind": "Namespace", "name": object.namespace}))
        }
        Scope::Object | Scope::Listener(_) => None,
    }
}

/// As the route has it.
fn parent(reference: &ParentRef) -> Value {
    let texts = [
        ("group", &reference.group),
        ("kind", &reference.kind),
        ("namespace", &reference.namespace),
        ("sectionName", &reference.section_name),
    ];
    let texts =
        texts.into_iter().filter_map(|(field, text)| Some((field.to_owned(), text.as_deref()?.into())));
    let mut fields: Map<String, Value> = texts.collect();
    fields.insert("name".to_owned(), reference.name.as_str().into());
    fields.extend(reference.port.map(|port| ("port".to_owned(), port.into())));
    Value::Object(fields)
}

/// Whether two references of an object name the same, whether defaults are written out or not.
fn is_same(object: &ObjectRef, one: &Value, other: &Value) -> bool {
    let parts = |reference: &Value| {
        let text = |field: &str| text(reference, field).map(str::to_owned);
        let namespace = text("namespace").unwrap_or_else(|| object.namespace.clone());
        (
            text("group").unwrap_or_else(|| GATEWAY_GROUP.to_owned()),
            text("kind").unwrap_or_else(|| "Gateway".to_owned()),
            namespace,
            text("name"),
            text("sectionName").filter(|section| !section.is_empty()),
            reference.get("port").and_then(Value::as_i64),
        )
    };
    parts(one) == parts(other)
}
