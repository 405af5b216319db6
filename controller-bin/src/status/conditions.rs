//! Conditions as Kubernetes has them (metav1.Condition), from ours and from those that an object has.
use serde_json::{Value, json};
use xds_translate::{Condition, ConditionStatus, ObjectStatus};

/// The longest message that metav1.Condition admits, in characters.
const MESSAGE: usize = 32768;

/// The types that are ours where other controllers may have conditions too: these are replaced, others are kept.
const OURS: [&str; 8] = [
    "Accepted",
    "Programmed",
    "ResolvedRefs",
    "Conflicted",
    "Enforced",
    "PartiallyInvalid",
    "InsecureFrontendValidationMode",
    "SupportedVersion",
];

/// The conditions of the object itself, with those of other controllers.
pub(super) fn of_object(statuses: &[ObjectStatus], given: &Value, now: &str) -> Value {
    let known = given.pointer("/status/conditions");
    let own = statuses.iter().find(|status| status.scope.is_object());
    let desired = own.map(|own| own.conditions.as_slice()).unwrap_or_default();
    with_others(desired, own.and_then(|own| own.observed_generation), known, now)
}

/// The same, of given conditions.
pub(super) fn with_others(
    desired: &[Condition],
    generation: Option<i64>,
    known: Option<&Value>,
    now: &str,
) -> Value {
    let Value::Array(mut conditions) = conditions(desired, generation, known, now) else {
        return Value::Null;
    };
    let others = array(known).iter().filter(|condition| {
        condition.get("type").and_then(Value::as_str).is_some_and(|r#type| !OURS.contains(&r#type))
    });
    conditions.extend(others.cloned());
    Value::Array(conditions)
}

/// Conditions, of which those that are `known` with the same status keep their `lastTransitionTime`.
pub(super) fn conditions(
    desired: &[Condition],
    generation: Option<i64>,
    known: Option<&Value>,
    now: &str,
) -> Value {
    let condition = |desired: &Condition| {
        let status = match desired.status {
            ConditionStatus::True => "True",
            ConditionStatus::False => "False",
            ConditionStatus::Unknown => "Unknown",
        };
        let since = find(known, &desired.r#type)
            .filter(|known| text(known, "status") == Some(status))
            .and_then(|known| text(known, "lastTransitionTime"));
        let mut condition = json!({
            "type": desired.r#type,
            "status": status,
            "reason": desired.reason,
            "message": bounded(&desired.message),
            "lastTransitionTime": since.unwrap_or(now),
        });
        if let (Some(fields), Some(generation)) = (condition.as_object_mut(), generation) {
            fields.insert("observedGeneration".to_owned(), generation.into());
        }
        condition
    };
    Value::Array(desired.iter().map(condition).collect())
}

/// The condition of a type.
pub(super) fn find<'a>(conditions: Option<&'a Value>, r#type: &str) -> Option<&'a Value> {
    array(conditions).iter().find(|condition| text(condition, "type") == Some(r#type))
}

pub(super) fn text<'a>(value: &'a Value, field: &str) -> Option<&'a str> {
    value.get(field)?.as_str()
}

pub(super) fn array(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn bounded(message: &str) -> &str {
    match message.char_indices().nth(MESSAGE) {
        Some((end, _)) => message.get(..end).unwrap_or_default(),
        None => message,
    }
}
