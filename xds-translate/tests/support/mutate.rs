//! Changes that no author of an object had in mind.
use proptest::{prelude::*, sample::Index};
use serde_json::Value;

/// Changes one value somewhere in an object to another.
pub(crate) fn mutate(value: &mut Value, path: &[Index], to: &Value) {
    let Some((first, rest)) = path.split_first() else {
        *value = to.clone();
        return;
    };
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let key = fields.keys().nth(first.index(fields.len())).unwrap().clone();
            mutate(&mut fields[&key], rest, to);
        }
        Value::Array(items) if !items.is_empty() => {
            let index = first.index(items.len());
            mutate(&mut items[index], rest, to);
        }
        other => *other = to.clone(),
    }
}

pub(crate) fn junk() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop_oneof![Just(0), Just(-1), Just(65536), Just(i64::MAX), Just(443), Just(10001)]
            .prop_map(Value::from),
        prop_oneof![
            Just(""),
            Just("*"),
            Just("*."),
            Just("/"),
            Just("//"),
            Just("("),
            Just("HTTPS"),
            Just("TLS"),
            Just("quickstart-ns"),
            Just("local-mcp-backend"),
            Just("RegularExpression"),
            Just("ExternalAuth"),
            Just("v1"),
            Just("All"),
            Just("é\u{0}"),
        ]
        .prop_map(Value::from),
        Just(serde_json::json!([])),
        Just(serde_json::json!({})),
        Just(serde_json::json!([null, {}, ""])),
        Just(serde_json::json!({"name": "x", "type": "Exact"})),
    ]
}
