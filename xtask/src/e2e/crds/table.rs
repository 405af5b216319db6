//! Rows of rules: what must be accepted, what refused, and what the refusal says.
use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, ensure};
use kube::core::Status;
use serde_json::{Map, Value, json};

use super::{
    api::{Answer, Resource},
    rules,
};

/// What stands in a field; `null` takes it out.
type Edit = (String, Value);

/// One object to send.
#[derive(Debug)]
pub(crate) struct Case {
    about: String,
    pub(crate) object: Value,
    /// It is about the status.
    pub(crate) status: bool,
    /// Unknown fields are errors.
    pub(crate) strict: bool,
    expected: Expected,
}

#[derive(Debug)]
enum Expected {
    Accepted,
    /// With this at a pointer of what comes back.
    Gives(String, Value),
    /// A cause at this field or below it that says this, and none elsewhere but one that says `also`.
    Refused {
        field: String,
        says: String,
        also: Option<&'static str>,
    },
    /// As a whole, since the object cannot be read.
    Unreadable {
        says: String,
    },
}

/// Examples and rows of one kind.
#[derive(Debug, Default)]
pub(crate) struct Table {
    examples: BTreeMap<&'static str, Value>,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    example: &'static str,
    /// Where the rule is, as a pointer into the example.
    at: String,
    rule: String,
    accepted: Vec<Vec<Edit>>,
    refused: Vec<Vec<Edit>>,
    /// Of every refusal.
    says: String,
    /// The start of what a rule elsewhere says too, where that cannot be helped.
    also: Option<&'static str>,
    /// Where a default appears, and which.
    default: Option<(String, Value)>,
}

impl Table {
    /// An object that is accepted as it stands. Together the examples have every field.
    pub(crate) fn example(&mut self, name: &'static str, object: Value) {
        self.examples.insert(name, object);
    }

    /// Rows for rules at a pointer of an example.
    pub(crate) fn at(&mut self, example: &'static str, at: impl Into<String>) -> Rows<'_> {
        Rows { table: self, example, at: at.into() }
    }

    /// What speaks against this table for a schema: a rule without a row, a row without a rule, a field that no example has.
    pub(crate) fn missing(&self, schema: &Value) -> Vec<String> {
        let rules = rules::rules(schema);
        let rows: BTreeSet<rules::Rule> =
            self.rows.iter().map(|row| (field(&row.at, true), row.rule.clone())).collect();
        let fields: BTreeSet<String> = self.examples.values().flat_map(present).collect();
        let no_row = rules.difference(&rows).map(|(at, rule)| format!("no row for `{rule}` at `{at}`"));
        let no_rule = rows.difference(&rules);
        let no_rule =
            no_rule.map(|(at, rule)| format!("a row for `{rule}` at `{at}`, where there is no such rule"));
        let all = rules::fields(schema);
        let no_field = all.difference(&fields).map(|field| format!("no example has `{field}`"));
        no_row.chain(no_rule).chain(no_field).collect()
    }

    /// An object to store, whose status can then be written.
    pub(crate) fn for_status(&self) -> anyhow::Result<Value> {
        let (_, example) = self.examples.first_key_value().context("a table without examples")?;
        Ok(json!({"spec": example.get("spec")}))
    }

    /// Everything to send for a version.
    pub(crate) fn cases(&self, resource: &Resource) -> anyhow::Result<Vec<Case>> {
        let mut cases = Vec::new();
        let mut add =
            |about: String, name: &str, at: &str, edits: &[Edit], strict: bool, expected: Expected| {
                let example = self.examples.get(name).with_context(|| format!("no example `{name}`"))?;
                let mut object = example.clone();
                for (pointer, value) in edits {
                    set(&mut object, pointer, value.clone())
                        .with_context(|| format!("{about}: `{pointer}`"))?;
                }
                let object = resource.object("tried", &object);
                cases.push(Case { about, object, status: at.starts_with("/status"), strict, expected });
                anyhow::Ok(())
            };
        for row in &self.rows {
            let about = format!("{} ({})", row.rule, field(&row.at, false));
            for edits in &row.accepted {
                let expected = match &row.default {
                    Some((at, value)) => Expected::Gives(at.clone(), value.clone()),
                    None => Expected::Accepted,
                };
                add(about.clone(), row.example, &row.at, edits, true, expected)?;
            }
            for edits in &row.refused {
                let expected = Expected::Refused {
                    field: field(&row.at, false),
                    says: row.says.clone(),
                    also: row.also,
                };
                add(about.clone(), row.example, &row.at, edits, true, expected)?;
            }
        }
        let mut seen = BTreeSet::new();
        for (name, example) in &self.examples {
            add(format!("example {name}"), name, "", &[], true, Expected::Accepted)?;
            for (at, value) in nodes(example) {
                // Once for each place of the schema.
                if !seen.insert(field(&at, true)) {
                    continue;
                }
                let shown = field(&at, false);
                let (wrong, right) = of_another_type(&value);
                // The API server says this of a format as well.
                let right = if at.ends_with("/lastTransitionTime") { "date-time" } else { right };
                let says = format!("must be of type {right}");
                let refused = Expected::Refused { field: shown.clone(), says, also: None };
                add(format!("type of {shown}"), name, &at, &[(at.clone(), wrong)], true, refused)?;
                if value.is_object() {
                    let unknown = [(format!("{at}/unheardOf"), json!("of"))];
                    let says = format!("unknown field \"{shown}.unheardOf\"");
                    let refused = Expected::Unreadable { says };
                    add(format!("unknown in {shown}"), name, &at, &unknown, true, refused)?;
                    let pruned = Expected::Gives(at.clone(), value);
                    add(format!("unknown in {shown}, ignored"), name, &at, &unknown, false, pruned)?;
                }
            }
        }
        Ok(cases)
    }
}

/// Builds rows for one place.
#[derive(Debug)]
pub(crate) struct Rows<'a> {
    table: &'a mut Table,
    example: &'static str,
    at: String,
}

impl Rows<'_> {
    fn row(self, rule: &str, says: &str, accepted: Vec<Value>, refused: Vec<Value>) -> Self {
        let edits = |values: Vec<Value>| -> Vec<Vec<Edit>> {
            values.into_iter().map(|value| vec![(self.at.clone(), value)]).collect()
        };
        let (accepted, refused) = (edits(accepted), edits(refused));
        self.push(rule, says, accepted, refused)
    }

    fn push(self, rule: &str, says: &str, accepted: Vec<Vec<Edit>>, refused: Vec<Vec<Edit>>) -> Self {
        self.table.rows.push(Row {
            example: self.example,
            at: self.at.clone(),
            rule: rule.to_owned(),
            accepted,
            refused,
            says: says.to_owned(),
            also: None,
            default: None,
        });
        self
    }

    /// A rule in CEL, by its message. Each value stands for the whole of this place.
    pub(crate) fn cel(self, message: &str, accepted: Vec<Value>, refused: Vec<Value>) -> Self {
        self.row(message, message, accepted, refused)
    }

    /// As [`Rows::cel`]; each list of edits (pointers from this place) makes one object of the example.
    pub(crate) fn cel_edits(
        self,
        message: &str,
        accepted: &[&[(&str, Value)]],
        refused: &[&[(&str, Value)]],
    ) -> Self {
        let full = |lists: &[&[(&str, Value)]]| -> Vec<Vec<Edit>> {
            let full = |(below, value): &(&str, Value)| (format!("{}{below}", self.at), value.clone());
            lists.iter().map(|edits| edits.iter().map(full).collect()).collect()
        };
        let (accepted, refused) = (full(accepted), full(refused));
        self.push(message, message, accepted, refused)
    }

    pub(crate) fn pattern(self, accepted: &[&str], refused: &[&str]) -> Self {
        let values = |texts: &[&str]| texts.iter().map(|text| json!(text)).collect();
        self.row("pattern", "should match '", values(accepted), values(refused))
    }

    /// Both bounds of a text's length in characters, of which the lower is one, with a text for every length.
    pub(crate) fn length(self, most: usize, text: impl Fn(usize) -> String) -> Self {
        self.not_blank(&text(1)).longest(most, text)
    }

    /// The lower bound only, which is one.
    pub(crate) fn not_blank(self, accepted: &str) -> Self {
        self.row("minLength", "should be at least 1 chars long", vec![json!(accepted)], vec![json!("")])
    }

    /// The upper bound only.
    pub(crate) fn longest(self, most: usize, text: impl Fn(usize) -> String) -> Self {
        let says = format!("may not be more than {most} bytes");
        self.row("maxLength", &says, vec![json!(text(most))], vec![json!(text(most + 1))])
    }

    /// The upper bound, where the longest text is refused for another reason; `accepted` is not.
    pub(crate) fn too_long(self, accepted: &str, most: usize) -> Self {
        let says = format!("may not be more than {most} bytes");
        self.row("maxLength", &says, vec![json!(accepted)], vec![json!("a".repeat(most + 1))])
    }

    pub(crate) fn range(self, least: i64, most: i64) -> Self {
        let rows = self.at_least(least);
        let says = format!("should be less than or equal to {most}");
        rows.row("maximum", &says, vec![json!(most)], vec![json!(most + 1)])
    }

    pub(crate) fn at_least(self, least: i64) -> Self {
        let says = format!("should be greater than or equal to {least}");
        self.row("minimum", &says, vec![json!(least)], vec![json!(least - 1)])
    }

    /// An enum, with all of its values.
    pub(crate) fn one_of(self, values: &[&str], refused: &[&str]) -> Self {
        let listed: Vec<String> = values.iter().map(|value| format!("\"{value}\"")).collect();
        let says = format!("supported values: {}", listed.join(", "));
        let json = |texts: &[&str]| texts.iter().map(|text| json!(text)).collect();
        self.row("enum", &says, json(values), json(refused))
    }

    /// As [`Rows::one_of`], without a field beside it that not all values admit.
    pub(crate) fn one_of_without(self, beside: &str, values: &[&str], refused: &[&str]) -> Self {
        let beside =
            self.at.rsplit_once('/').map(|(parent, _)| format!("{parent}/{beside}")).unwrap_or_default();
        let rows = self.one_of(values, refused);
        if let Some(row) = rows.table.rows.last_mut() {
            for edits in row.accepted.iter_mut().chain(&mut row.refused) {
                edits.push((beside.clone(), Value::Null));
            }
        }
        rows
    }

    /// An enum whose values need other fields besides: only the example's own is accepted here, by `accepted`.
    pub(crate) fn one_of_these(self, values: &[&str], accepted: &str, refused: &[&str]) -> Self {
        let listed: Vec<String> = values.iter().map(|value| format!("\"{value}\"")).collect();
        let says = format!("supported values: {}", listed.join(", "));
        self.row("enum", &says, vec![json!(accepted)], refused.iter().map(|text| json!(text)).collect())
    }

    /// The most items, of which there is one for every number.
    pub(crate) fn items(self, most: usize, item: impl Fn(usize) -> Value) -> Self {
        let list = |count| (0..count).map(&item).collect();
        let says = format!("must have at most {most} items");
        self.row("maxItems", &says, vec![list(most)], vec![list(most + 1)])
    }

    /// The least is one.
    pub(crate) fn not_empty(self, item: Value) -> Self {
        self.row("minItems", "should have at least 1 items", vec![json!([item])], vec![json!([])])
    }

    /// No two of the list are equal (in their keys).
    pub(crate) fn unique(self, one: Value, other: Value, equal: Value) -> Self {
        self.row("unique", "Duplicate value", vec![json!([one, other])], vec![json!([one, other, equal])])
    }

    pub(crate) fn date_time(self, accepted: &[&str], refused: &[&str]) -> Self {
        let values = |texts: &[&str]| texts.iter().map(|text| json!(text)).collect();
        self.row("format", "must be of type date-time", values(accepted), values(refused))
    }

    /// A rule elsewhere refuses what the row before this refuses too, and says this.
    pub(crate) fn also(self, says: &'static str) -> Self {
        if let Some(row) = self.table.rows.last_mut() {
            row.also = Some(says);
        }
        self
    }

    /// Fields that must be there, as they are in the example.
    pub(crate) fn required(mut self, names: &[&str]) -> Self {
        for name in names {
            let gone = vec![vec![(format!("{}/{name}", self.at), Value::Null)]];
            self = self.push(&format!("required {name}"), "Required value", vec![Vec::new()], gone);
        }
        self
    }

    /// What a field is when it is left out. (Nothing is refused here.)
    pub(crate) fn default(self, value: Value) -> Self {
        let gone = vec![vec![(self.at.clone(), Value::Null)]];
        let given = Some((self.at.clone(), value));
        let rows = self.push("default", "", gone, Vec::new());
        if let Some(row) = rows.table.rows.last_mut() {
            row.default = given;
        }
        rows
    }
}

impl Case {
    /// Whether the answer is the expected one.
    pub(crate) fn judge(&self, answer: Answer) -> anyhow::Result<()> {
        let about = &self.about;
        match (&self.expected, answer) {
            (Expected::Accepted, Ok(_)) => Ok(()),
            (Expected::Gives(pointer, expected), Ok(object)) => {
                let found = object.pointer(pointer);
                ensure!(found == Some(expected), "{about}: gives {found:?}, not {expected}");
                Ok(())
            }
            (Expected::Accepted | Expected::Gives(..), Err(status)) => {
                anyhow::bail!("{about}: refused, though it should be accepted: {}", status.message)
            }
            (Expected::Refused { .. } | Expected::Unreadable { .. }, Ok(_)) => {
                anyhow::bail!("{about}: accepted, though it should be refused: {}", self.object)
            }
            (Expected::Unreadable { says }, Err(status)) => {
                // The status is patched; a patch that makes an object unreadable is invalid.
                let code = if self.status { 422 } else { 400 };
                ensure!(status.code == code, "{about}: {}, not {code}: {}", status.code, status.message);
                ensure!(status.message.contains(says), "{about}: does not say `{says}`: {}", status.message);
                Ok(())
            }
            (Expected::Refused { field, says, also }, Err(status)) => {
                ensure!(status.code == 422, "{about}: {}, not 422: {}", status.code, status.message);
                refused_for(&status, field, says, *also)
                    .with_context(|| format!("{about}: {}", status.message))
            }
        }
    }
}

/// Whether a refusal has a cause at the field that says this, and none elsewhere but one that starts with `also`.
fn refused_for(status: &Status, field: &str, says: &str, also: Option<&str>) -> anyhow::Result<()> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let (here, elsewhere): (Vec<_>, Vec<_>) = causes
        // Rules in CEL are not looked at where the schema refuses already; the API server says so.
        .filter(|cause| !cause.message.contains("some validation rules were not checked"))
        .filter(|cause| !also.is_some_and(|also| cause.message.contains(also)))
        .partition(|cause| cause.field.starts_with(field));
    ensure!(here.iter().any(|cause| cause.message.contains(says)), "no cause at `{field}` says `{says}`");
    ensure!(elsewhere.is_empty(), "refused for something else too: {elsewhere:?}");
    Ok(())
}

/// `/spec/rules/0/name` as the API server writes it, `spec.rules[0].name`, or as a place of the schema, `spec.rules[].name`.
fn field(pointer: &str, schema: bool) -> String {
    let mut field = String::new();
    for part in pointer.split('/').filter(|part| !part.is_empty()) {
        if part.bytes().all(|byte| byte.is_ascii_digit()) {
            field.push_str(&if schema { "[]".to_owned() } else { format!("[{part}]") });
        } else {
            if !field.is_empty() {
                field.push('.');
            }
            field.push_str(part);
        }
    }
    field
}

/// Sets what a pointer names, or takes it out (`null`).
fn set(object: &mut Value, pointer: &str, value: Value) -> anyhow::Result<()> {
    let (parent, name) = pointer.rsplit_once('/').context("no pointer")?;
    match object.pointer_mut(parent).context("there is no such place")? {
        Value::Object(fields) if value.is_null() => {
            fields.remove(name).context("there is no such field")?;
        }
        Value::Object(fields) => {
            fields.insert(name.to_owned(), value);
        }
        Value::Array(items) => {
            *items.get_mut(name.parse::<usize>()?).context("there is no such item")? = value;
        }
        _ => anyhow::bail!("it lies in no object"),
    }
    Ok(())
}

/// Everything in an example with its pointer, but not the example itself.
fn nodes(example: &Value) -> Vec<(String, Value)> {
    let mut nodes = Vec::new();
    let mut open = vec![(String::new(), example)];
    while let Some((pointer, value)) = open.pop() {
        match value {
            Value::Object(fields) => {
                open.extend(fields.iter().map(|(name, child)| (format!("{pointer}/{name}"), child)));
            }
            Value::Array(items) => {
                open.extend(items.iter().enumerate().map(|(at, child)| (format!("{pointer}/{at}"), child)));
            }
            _ => {}
        }
        if !pointer.is_empty() {
            nodes.push((pointer, value.clone()));
        }
    }
    nodes
}

/// The places of the schema that an example has.
fn present(example: &Value) -> Vec<String> {
    nodes(example).iter().map(|(pointer, _)| field(pointer, true)).collect()
}

/// A value of another type, and what the right type is called.
fn of_another_type(value: &Value) -> (Value, &'static str) {
    match value {
        Value::String(_) => (json!(42), "string"),
        Value::Number(_) => (json!("42"), "integer"),
        Value::Array(_) => (json!("none"), "array"),
        Value::Object(_) => (json!("none"), "object"),
        Value::Bool(_) | Value::Null => (Value::Object(Map::new()), "boolean"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_as_fields() {
        assert_eq!(field("/spec/rules/0/name", false), "spec.rules[0].name");
        assert_eq!(field("/spec/rules/0/name", true), "spec.rules[].name");
        assert_eq!(field("", true), "");
    }

    #[test]
    fn edits() {
        let mut object = json!({"a": [{"b": 1}]});
        set(&mut object, "/a/0/c", json!(2)).unwrap();
        set(&mut object, "/a/0/b", Value::Null).unwrap();
        assert_eq!(object, json!({"a": [{"c": 2}]}));
        for missing in ["/x/y", "/a/1", "/a/0/b"] {
            assert!(set(&mut object, missing, Value::Null).is_err(), "{missing}");
        }
    }

    fn status(causes: Value) -> Status {
        serde_json::from_value(json!({"code": 422, "details": {"causes": causes}})).unwrap()
    }

    #[test]
    fn a_refusal_counts_for_its_own_reason_only() {
        let cause = |field: &str, message: &str| json!({"field": field, "message": message});
        for (causes, good) in [
            (json!([cause("spec.a[0]", "Duplicate value")]), true),
            (json!([cause("spec.b", "Duplicate value")]), false),
            (json!([cause("spec.a", "Too long")]), false),
            (json!([cause("spec.a", "Duplicate value"), cause("spec.b", "Required value")]), false),
            (
                json!([
                    cause("spec.a", "Duplicate value"),
                    cause("<nil>", "some validation rules were not checked")
                ]),
                true,
            ),
            (json!([]), false),
        ] {
            assert_eq!(
                refused_for(&status(causes.clone()), "spec.a", "Duplicate", None).is_ok(),
                good,
                "{causes}"
            );
        }
    }
}
