//! The validation rules of a schema, found by walking it.
use std::collections::BTreeSet;

use serde_json::Value;

/// Where a rule is (`spec.rules[].name`; empty for the object itself) and what it is: a keyword of the schema,
/// `required NAME`, `unique` for lists that are sets or maps, or the message of a CEL rule.
pub(crate) type Rule = (String, String);

/// Keywords that describe, or that say nothing by themselves.
const NO_RULES: [&str; 9] = [
    "description",
    "type",
    "properties",
    "items",
    "required",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-validations",
    "format",
];

/// The versions of a definition.
pub(crate) fn versions(definition: &Value) -> Vec<&Value> {
    definition.pointer("/spec/versions").and_then(Value::as_array).into_iter().flatten().collect()
}

/// Every rule of a schema. A keyword that this program has not heard of is one.
pub(crate) fn rules(schema: &Value) -> BTreeSet<Rule> {
    let mut rules = BTreeSet::new();
    visit(schema, "", &mut |path, node| {
        let mut add = |rule: String| rules.insert((path.to_owned(), rule));
        for keyword in node.as_object().into_iter().flat_map(|node| node.keys()) {
            if !NO_RULES.contains(&keyword.as_str()) {
                add(keyword.clone());
            }
        }
        // Of formats, the API server checks this; those of integers are their size.
        if text(node, "format") == Some("date-time") {
            add("format".to_owned());
        }
        if matches!(text(node, "x-kubernetes-list-type"), Some("set" | "map")) {
            add("unique".to_owned());
        }
        for name in list(node, "required").filter_map(Value::as_str) {
            add(format!("required {name}"));
        }
        for rule in list(node, "x-kubernetes-validations") {
            add(text(rule, "message").unwrap_or("a CEL rule without a message").to_owned());
        }
    });
    rules
}

/// Every field of a schema: `spec`, `spec.rules`, `spec.rules[]`, `spec.rules[].name`.
pub(crate) fn fields(schema: &Value) -> BTreeSet<String> {
    let mut fields = BTreeSet::new();
    visit(schema, "", &mut |path, _| {
        fields.insert(path.to_owned());
    });
    fields.remove("");
    fields
}

fn visit<'a>(node: &'a Value, path: &str, see: &mut dyn FnMut(&str, &'a Value)) {
    see(path, node);
    for (name, child) in node.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let dot = if path.is_empty() { "" } else { "." };
        visit(child, &format!("{path}{dot}{name}"), see);
    }
    if let Some(items) = node.get("items") {
        visit(items, &format!("{path}[]"), see);
    }
}

fn text<'a>(node: &'a Value, name: &str) -> Option<&'a str> {
    node.get(name)?.as_str()
}

fn list<'a>(node: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    node.get(name).and_then(Value::as_array).into_iter().flatten()
}
