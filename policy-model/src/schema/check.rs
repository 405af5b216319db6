//! An object held against a schema.
use std::collections::HashSet;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::Violation;
use super::node::{Format, Kind, List, Node, Rest};

/// Violations found so far.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) violations: Vec<Violation>,
    /// Whether there is one that is not just an unknown field.
    pub(super) structure: bool,
}

impl Found {
    fn fault(&mut self, path: &str, message: impl Into<String>) {
        self.structure = true;
        self.violations.push(Violation::new(path, message));
    }

    fn unknown<'a>(&mut self, path: &str, name: &str, known: impl Iterator<Item = &'a str>) {
        let near = known.map(|known| (distance(name, known), known)).min();
        let message = match near {
            Some((steps, known)) if steps <= 2 && steps < known.len() => {
                format!("unknown field; did you mean `{known}`?")
            }
            _ => "unknown field; remove it".to_owned(),
        };
        self.violations.push(Violation::new(path, message));
    }
}

/// The fields of `metadata` that Kubernetes knows.
const METADATA: [&str; 15] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Checks what every object has: `apiVersion`, `kind`, `metadata`.
pub(super) fn metadata(object: &Value, found: &mut Found) {
    for field in ["apiVersion", "kind"] {
        if object.get(field).and_then(Value::as_str).is_none_or(str::is_empty) {
            found.fault(field, "required, a string");
        }
    }
    let Some(metadata) = object.get("metadata").and_then(Value::as_object) else {
        return found.fault("metadata", "required, an object");
    };
    for name in metadata.keys().filter(|name| !METADATA.contains(&name.as_str())) {
        found.unknown(&format!("metadata.{name}"), name, METADATA.into_iter());
    }
    match metadata.get("name") {
        Some(Value::String(name)) if is_dns_name(name, 253, true) => {}
        Some(Value::String(name)) => found.fault(
            "metadata.name",
            format!("must be a DNS name (lower-case letters, digits, `-`, `.`) of at most 253 characters, is `{}`", shown(name)),
        ),
        _ => found.fault("metadata.name", "required, a string"),
    }
    match metadata.get("namespace") {
        None => {}
        Some(Value::String(name)) if is_dns_name(name, 63, false) => {}
        Some(other) => found.fault(
            "metadata.namespace",
            format!(
                "must be a DNS label (lower-case letters, digits, `-`) of at most 63 characters, is {}",
                described(other)
            ),
        ),
    }
    match metadata.get("creationTimestamp") {
        None | Some(Value::Null) => {}
        Some(Value::String(time)) if time.parse::<Timestamp>().is_ok() => {}
        Some(other) => found.fault(
            "metadata.creationTimestamp",
            format!("must be an RFC 3339 time such as `2026-01-31T12:00:00Z`, is {}", described(other)),
        ),
    }
    if let Some(other) =
        metadata.get("generation").filter(|value| !value.is_null() && value.as_i64().is_none())
    {
        found.fault("metadata.generation", format!("must be an integer, is {}", described(other)));
    }
    for field in ["labels", "annotations"] {
        match metadata.get(field) {
            None | Some(Value::Null) => {}
            Some(Value::Object(entries)) => {
                for (name, value) in entries.iter().filter(|(_, value)| !value.is_string()) {
                    found.fault(
                        &format!("metadata.{field}[{name}]"),
                        format!("must be a string, is {}", described(value)),
                    );
                }
            }
            Some(other) => found
                .fault(&format!("metadata.{field}"), format!("must be an object, is {}", described(other))),
        }
    }
}

fn is_dns_name(name: &str, longest: usize, dots: bool) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    name.len() <= longest && if dots { name.split('.').all(label) } else { label(name) }
}

impl Node {
    /// Checks an object; `apiVersion`, `kind` and `metadata` are known without being in the schema.
    pub(super) fn check_root(&self, object: &Value, found: &mut Found) {
        let Some(fields) = object.as_object() else {
            return found.fault("", format!("must be an object, is {}", described(object)));
        };
        let body: Map<String, Value> = fields
            .iter()
            .filter(|(name, _)| !matches!(name.as_str(), "apiVersion" | "kind" | "metadata"))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        self.check_object("", &body, true, found, &["apiVersion", "kind", "metadata", "status"]);
    }

    /// Checks a value. In the branches of `allOf` and the like (not `whole`) other fields are not unknown.
    fn check(&self, path: &str, value: &Value, whole: bool, found: &mut Found) {
        if value.is_null() && self.nullable {
            return;
        }
        if !self.is_kind(value) {
            return found.fault(path, format!("must be {}, is {}", self.kind.name(), described(value)));
        }
        if let Some(choices) = self.choices.as_ref().filter(|choices| !choices.contains(value)) {
            let names: Vec<String> =
                choices.iter().filter(|choice| !choice.is_null()).map(described).collect();
            found.fault(path, format!("must be one of {}, is {}", names.join(", "), described(value)));
        }
        match value {
            Value::String(text) => self.check_string(path, text, found),
            Value::Number(number) => self.check_number(path, number, found),
            Value::Array(items) => self.check_array(path, items, whole, found),
            Value::Object(fields) => self.check_object(path, fields, whole, found, &[]),
            Value::Null | Value::Bool(_) => {}
        }
        self.check_branches(path, value, found);
    }

    fn is_kind(&self, value: &Value) -> bool {
        match self.kind {
            Kind::Any => true,
            Kind::Object => value.is_object(),
            Kind::Array => value.is_array(),
            Kind::String => value.is_string(),
            Kind::Integer => value.is_i64() || value.is_u64(),
            Kind::Number => value.is_number(),
            Kind::Boolean => value.is_boolean(),
            Kind::IntOrString => value.is_i64() || value.is_u64() || value.is_string(),
        }
    }

    fn check_string(&self, path: &str, text: &str, found: &mut Found) {
        let length = text.chars().count();
        if self.min_length.is_some_and(|least| exceeds(least, length)) {
            let least = self.min_length.unwrap_or_default();
            found.fault(path, format!("must have at least {least} characters, has {length}"));
        }
        if let Some(most) = self.max_length.filter(|most| below(*most, length)) {
            found.fault(path, format!("must have at most {most} characters, has {length}"));
        }
        if let Some(pattern) = self.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
            found.fault(path, format!("must match `{pattern}`, is `{}`", shown(text)));
        }
        if self.format == Some(Format::DateTime) && text.parse::<Timestamp>().is_err() {
            found.fault(path, format!("must be an RFC 3339 time, is `{}`", shown(text)));
        }
    }

    fn check_number(&self, path: &str, number: &serde_json::Number, found: &mut Found) {
        if self.format == Some(Format::Int32)
            && number.as_i64().is_none_or(|number| i32::try_from(number).is_err())
        {
            found.fault(path, format!("must be a 32-bit integer, is `{number}`"));
        }
        let Some(size) = number.as_f64() else {
            return found.fault(path, format!("must be a number in range, is `{number}`"));
        };
        if let Some(least) =
            self.minimum.filter(|least| size < *least || (self.exclusive_minimum && size <= *least))
        {
            found.fault(path, format!("must be at least {least}, is `{number}`"));
        }
        if let Some(most) =
            self.maximum.filter(|most| size > *most || (self.exclusive_maximum && size >= *most))
        {
            found.fault(path, format!("must be at most {most}, is `{number}`"));
        }
        if let Some(step) = self.multiple_of.filter(|step| (size / step).fract() != 0.0) {
            found.fault(path, format!("must be a multiple of {step}, is `{number}`"));
        }
    }

    fn check_array(&self, path: &str, items: &[Value], whole: bool, found: &mut Found) {
        if let Some(least) = self.min_items.filter(|least| exceeds(*least, items.len())) {
            found.fault(path, format!("must have at least {least} items, has {}", items.len()));
        }
        if let Some(most) = self.max_items.filter(|most| below(*most, items.len())) {
            // What is over the limit is not looked at: the work stays bounded.
            return found.fault(path, format!("must have at most {most} items, has {}", items.len()));
        }
        if let Some(node) = &self.items {
            for (index, item) in items.iter().enumerate() {
                node.check(&format!("{path}[{index}]"), item, whole, found);
            }
        }
        let mut seen = HashSet::new();
        for (index, item) in items.iter().enumerate() {
            let key = match &self.list {
                List::Map(keys) => Value::Array(
                    keys.iter().map(|key| item.get(key).cloned().unwrap_or(Value::Null)).collect(),
                ),
                List::Set => item.clone(),
                List::Atomic if self.unique => item.clone(),
                List::Atomic => continue,
            };
            let key = key.to_string();
            if seen.contains(&key) {
                found.fault(
                    &format!("{path}[{index}]"),
                    format!("duplicate of `{}`; list it once", shown(&key)),
                );
            }
            seen.insert(key);
        }
    }

    fn check_object(
        &self,
        path: &str,
        fields: &Map<String, Value>,
        whole: bool,
        found: &mut Found,
        elsewhere: &[&str],
    ) {
        let within = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        for name in self
            .required
            .iter()
            .filter(|name| !fields.contains_key(*name) && !elsewhere.contains(&name.as_str()))
        {
            found.fault(&within(name), "required");
        }
        if let Some(least) = self.min_properties.filter(|least| exceeds(*least, fields.len())) {
            found.fault(path, format!("must have at least {least} fields, has {}", fields.len()));
        }
        if let Some(most) = self.max_properties.filter(|most| below(*most, fields.len())) {
            found.fault(path, format!("must have at most {most} fields, has {}", fields.len()));
        }
        for (name, value) in fields {
            match (self.properties.get(name), &self.rest) {
                (Some(node), _) => node.check(&within(name), value, whole, found),
                (None, Rest::Each(node)) => node.check(&format!("{path}[{name}]"), value, whole, found),
                (None, Rest::Nothing) if whole => {
                    let known = self.properties.keys().map(String::as_str).chain(elsewhere.iter().copied());
                    found.unknown(&within(name), name, known);
                }
                (None, Rest::Nothing | Rest::Anything) => {}
            }
        }
    }

    fn check_branches(&self, path: &str, value: &Value, found: &mut Found) {
        for branch in &self.all_of {
            branch.check(path, value, false, found);
        }
        let admits = |branch: &&Self| {
            let mut aside = Found::default();
            branch.check(path, value, false, &mut aside);
            aside.violations.is_empty()
        };
        if !self.any_of.is_empty() && !self.any_of.iter().any(|branch| admits(&branch)) {
            found.fault(path, "must have one of the forms that the schema lists");
        }
        if !self.one_of.is_empty() && self.one_of.iter().filter(admits).count() != 1 {
            found.fault(path, "must have exactly one of the forms that the schema lists");
        }
        if self.not.as_deref().is_some_and(|branch| admits(&branch)) {
            found.fault(path, "has a form that the schema rules out");
        }
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Any => "anything",
            Self::Object => "an object",
            Self::Array => "a list",
            Self::String => "a string",
            Self::Integer => "an integer",
            Self::Number => "a number",
            Self::Boolean => "a boolean",
            Self::IntOrString => "an integer or a string",
        }
    }
}

/// Whether a limit is above a length.
fn exceeds(limit: u64, length: usize) -> bool {
    u64::try_from(length).is_ok_and(|length| limit > length)
}

/// Whether a limit is below a length.
fn below(limit: u64, length: usize) -> bool {
    u64::try_from(length).is_ok_and(|length| limit < length)
}

/// A value for a message: scalars as they are, others by kind.
fn described(value: &Value) -> String {
    match value {
        Value::Object(_) => "an object".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::String(text) => format!("`{}`", shown(text)),
        scalar => format!("`{scalar}`"),
    }
}

/// Text for a message: at most 64 characters of it, control characters escaped.
fn shown(text: &str) -> String {
    const LONGEST: usize = 64;
    let mut shown: String = text
        .chars()
        .take(LONGEST)
        .flat_map(|letter| {
            let escaped = letter.is_control();
            letter
                .escape_default()
                .filter(move |_| escaped)
                .chain(std::iter::once(letter).filter(move |_| !escaped))
        })
        .collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

/// Levenshtein distance, in characters; names longer than 64 bytes are far from everything.
fn distance(left: &str, right: &str) -> usize {
    if left.len() > 64 || right.len() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=right.chars().count()).collect();
    for (above, a) in left.chars().enumerate() {
        let mut diagonal = above;
        let mut previous = above + 1;
        let mut next = vec![previous];
        for (b, &up) in right.chars().zip(row.iter().skip(1)) {
            previous = (diagonal + usize::from(a != b)).min(previous + 1).min(up + 1);
            diagonal = up;
            next.push(previous);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}
