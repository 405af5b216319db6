use serde_json::{Value, json};

use super::*;

/// The violations of `spec` under a schema of `spec`.
#[track_caller]
fn check(schema: Value, spec: Value, expected: &[&str]) {
    let schema = Schema::compile(&json!({"type": "object", "properties": {"spec": schema}})).unwrap();
    let object = json!({"apiVersion": "v1", "kind": "K", "metadata": {"name": "n"}, "spec": spec});
    let found: Vec<String> = match schema.read(&object) {
        Ok(_) => vec![],
        Err(violations) => violations.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(found, expected);
}

#[test]
fn types() {
    for (kind, good, bad, message) in [
        ("string", json!("a"), json!(1), "spec: must be a string, is `1`"),
        ("integer", json!(1), json!(1.0), "spec: must be an integer, is `1.0`"),
        ("integer", json!(u64::MAX), json!(true), "spec: must be an integer, is `true`"),
        ("number", json!(0.5), json!("0.5"), "spec: must be a number, is `0.5`"),
        ("boolean", json!(false), json!(0), "spec: must be a boolean, is `0`"),
        ("object", json!({}), json!([]), "spec: must be an object, is a list"),
        ("array", json!([]), json!({}), "spec: must be a list, is an object"),
    ] {
        check(json!({"type": kind}), good, &[]);
        check(json!({"type": kind}), bad, &[message]);
    }
    let either = json!({"x-kubernetes-int-or-string": true});
    check(either.clone(), json!(80), &[]);
    check(either.clone(), json!("80%"), &[]);
    check(either, json!(0.5), &["spec: must be an integer or a string, is `0.5`"]);
}

#[test]
fn null() {
    check(json!({"type": "string", "nullable": true, "enum": ["a", null]}), Value::Null, &[]);
    check(json!({"type": "string"}), Value::Null, &["spec: must be a string, is `null`"]);
    // A default stands in for a null that is not allowed.
    check(json!({"type": "string", "default": "a"}), Value::Null, &[]);
}

#[test]
fn strings_and_numbers() {
    let name = json!({"type": "string", "minLength": 2, "maxLength": 3, "pattern": "^[^b]*$"});
    check(name.clone(), json!("äöü"), &[]);
    check(name.clone(), json!("ä"), &["spec: must have at least 2 characters, has 1"]);
    check(
        name,
        json!("abcd"),
        &["spec: must have at most 3 characters, has 4", "spec: must match `^[^b]*$`, is `abcd`"],
    );
    check(json!({"type": "string", "pattern": "^a$"}), json!("b\n"), &[r"spec: must match `^a$`, is `b\n`"]);
    let long = "x".repeat(65);
    check(
        json!({"type": "string", "pattern": "^a$"}),
        json!(long),
        &[&format!("spec: must match `^a$`, is `{}…`", "x".repeat(64))],
    );
    let time = json!({"type": "string", "format": "date-time"});
    check(time.clone(), json!("2026-01-31T12:00:00Z"), &[]);
    check(time, json!("noon"), &["spec: must be an RFC 3339 time, is `noon`"]);
    let port = json!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 10, "multipleOf": 2});
    check(port.clone(), json!(10), &[]);
    check(port.clone(), json!(0), &["spec: must be at least 1, is `0`"]);
    check(
        port.clone(),
        json!(11),
        &["spec: must be at most 10, is `11`", "spec: must be a multiple of 2, is `11`"],
    );
    check(
        port,
        json!(3_000_000_000_u32),
        &["spec: must be a 32-bit integer, is `3000000000`", "spec: must be at most 10, is `3000000000`"],
    );
    check(
        json!({"type": "number", "minimum": 1, "exclusiveMinimum": true}),
        json!(1),
        &["spec: must be at least 1, is `1`"],
    );
    check(
        json!({"type": "number", "maximum": 1, "exclusiveMaximum": true}),
        json!(1),
        &["spec: must be at most 1, is `1`"],
    );
    check(
        json!({"type": "string", "enum": ["a", "b"]}),
        json!("c"),
        &["spec: must be one of `a`, `b`, is `c`"],
    );
}

#[test]
fn lists() {
    let numbers = |more: Value| {
        let mut schema = json!({"type": "array", "items": {"type": "integer"}});
        schema.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        schema
    };
    check(numbers(json!({})), json!([1, 1]), &[]);
    check(numbers(json!({})), json!([1, "a"]), &["spec[1]: must be an integer, is `a`"]);
    check(numbers(json!({"minItems": 1})), json!([]), &["spec: must have at least 1 items, has 0"]);
    check(numbers(json!({"maxItems": 1})), json!([1, "a"]), &["spec: must have at most 1 items, has 2"]);
    for set in [json!({"x-kubernetes-list-type": "set"}), json!({"uniqueItems": true})] {
        check(numbers(set), json!([1, 2, 1]), &["spec[2]: duplicate of `1`; list it once"]);
    }
    let map = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a", "b"],
        "items": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer", "default": 1}}}});
    check(map.clone(), json!([{"a": "x"}, {"a": "x", "b": 2}, {"a": "y"}]), &[]);
    check(map, json!([{"a": "x"}, {"a": "x", "b": 1}]), &["spec[1]: duplicate of `[\"x\",1]`; list it once"]);
}

#[test]
fn objects() {
    let closed = json!({"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "size": {"type": "integer"}}});
    check(closed.clone(), json!({"name": "a"}), &[]);
    check(closed.clone(), json!({}), &["spec.name: required"]);
    check(closed.clone(), json!({"name": "a", "nam": 1}), &["spec.nam: unknown field; did you mean `name`?"]);
    check(closed.clone(), json!({"name": "a", "colour": 1}), &["spec.colour: unknown field; remove it"]);
    check(closed, json!({"name": "a", "sizes": [{}]}), &["spec.sizes: unknown field; did you mean `size`?"]);
    let map = json!({"type": "object", "maxProperties": 1, "additionalProperties": {"type": "object", "properties": {"a": {"type": "integer"}}}});
    check(map.clone(), json!({"k": {"a": 1}}), &[]);
    check(map.clone(), json!({"k": {"b": 1}}), &["spec[k].b: unknown field; remove it"]);
    check(map, json!({"k": {}, "l": {}}), &["spec: must have at most 1 fields, has 2"]);
    check(
        json!({"type": "object", "minProperties": 1}),
        json!({}),
        &["spec: must have at least 1 fields, has 0"],
    );
    check(
        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
        json!({"any": {"thing": 1}}),
        &[],
    );
    check(json!({"type": "object", "additionalProperties": true}), json!({"any": 1}), &[]);
}

#[test]
fn branches() {
    let one = json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}]});
    check(one.clone(), json!({"a": 1}), &[]);
    for spec in [json!({}), json!({"a": 1, "b": 1})] {
        check(one.clone(), spec, &["spec: must have exactly one of the forms that the schema lists"]);
    }
    let any = json!({"type": "integer", "anyOf": [{"maximum": 1}, {"minimum": 5}]});
    check(any.clone(), json!(7), &[]);
    check(any, json!(3), &["spec: must have one of the forms that the schema lists"]);
    check(
        json!({"type": "integer", "allOf": [{"maximum": 1}]}),
        json!(3),
        &["spec: must be at most 1, is `3`"],
    );
    check(
        json!({"type": "string", "not": {"enum": ["a"]}}),
        json!("a"),
        &["spec: has a form that the schema rules out"],
    );
}

#[test]
fn rules() {
    let schema = json!({"type": "object", "properties": {"min": {"type": "integer"}, "max": {"type": "integer", "default": 5}},
        "x-kubernetes-validations": [{"rule": "self.min <= self.max", "message": "min must not exceed max"}]});
    check(schema.clone(), json!({"min": 5}), &[]);
    check(schema.clone(), json!({"min": 6}), &["spec: min must not exceed max"]);
    // Not of an object whose structure is at fault.
    check(schema, json!({"min": "6"}), &["spec.min: must be an integer, is `6`"]);
}

#[test]
fn defaults_are_filled_in() {
    let schema = Schema::compile(&json!({"type": "object", "properties": {
        "spec": {"type": "object", "default": {}, "properties": {
            "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "integer", "default": 1}}}},
            "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"b": {"type": "string", "default": "x"}}}},
            "deep": {"type": "object", "default": {}, "properties": {"c": {"type": "boolean", "default": true}}},
            "kept": {"type": "string", "nullable": true, "default": "y"},
        }},
        "status": {"type": "object"},
    }}))
    .unwrap();
    let head = json!({"apiVersion": "v1", "kind": "K", "metadata": {"name": "n"}});
    let object = |spec: Option<Value>| {
        let mut object = head.clone();
        if let Some(spec) = spec {
            object["spec"] = spec;
        }
        object
    };
    assert_eq!(schema.read(&object(None)).unwrap()["spec"], json!({"deep": {"c": true}, "kept": "y"}));
    assert_eq!(
        schema
            .read(&object(Some(
                json!({"list": [{}, {"a": 2}], "map": {"k": {}}, "deep": {"c": null}, "kept": null})
            )))
            .unwrap()["spec"],
        json!({"list": [{"a": 1}, {"a": 2}], "map": {"k": {"b": "x"}}, "deep": {"c": true}, "kept": null})
    );
    let mut with_status = object(None);
    with_status["status"] = json!("anything");
    assert!(schema.read(&with_status).unwrap().get("status").is_none());
}

#[test]
fn a_schema_that_cannot_be_enforced_is_refused() {
    for (schema, message) in [
        (json!(true), "schema cannot be enforced at `.spec`: a schema is an object"),
        (json!({"type": "text"}), "schema cannot be enforced at `.spec`: unknown type `text`"),
        (
            json!({"$ref": "#/a"}),
            "schema cannot be enforced at `.spec`: `$ref` is not supported; inline the schema",
        ),
        (
            json!({"maxLength": "9"}),
            "schema cannot be enforced at `.spec`: `maxLength` must be a whole number",
        ),
        (
            json!({"required": [1]}),
            "schema cannot be enforced at `.spec`: `required` must be a list of strings",
        ),
        (
            json!({"x-kubernetes-list-type": "bag"}),
            "schema cannot be enforced at `.spec`: unknown list type `bag`",
        ),
    ] {
        let error = Schema::compile(&json!({"type": "object", "properties": {"spec": schema}})).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
    for schema in [
        json!({"type": "string", "pattern": "("}),
        json!({"type": "string", "x-kubernetes-validations": [{"rule": "self =="}]}),
        json!({"type": "array", "items": {"type": "string", "x-kubernetes-validations": [{"rule": "self =="}]}}),
    ] {
        let error = Schema::compile(&json!({"type": "object", "properties": {"spec": schema}})).unwrap_err();
        assert!(error.to_string().starts_with("schema cannot be enforced at `.spec"), "{error}");
    }
    assert!(Schema::of_crd(&CustomResourceDefinition::default(), "v1").is_err());
}

#[test]
fn derived_resources() {
    let schema = Schema::of_resource::<crate::crd::XBackend>().unwrap();
    let object = json!({"apiVersion": "v1", "kind": "K", "metadata": {"name": "n"}, "spec": {"mcp": {"hostname": "h", "port": 0}}});
    assert_eq!(
        schema.read(&object),
        Err(vec![Violation::new("spec.mcp.port", "must be at least 1, is `0`")])
    );
}
