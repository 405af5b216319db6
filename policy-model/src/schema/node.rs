//! One node of a compiled schema.
use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Map, Value};

use super::SchemaError;

/// The JSON type that a node asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Any,
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
    IntOrString,
}

/// What may stand in an object besides its properties.
#[derive(Debug)]
pub(super) enum Rest {
    /// Nothing: a field that is no property is unknown.
    Nothing,
    /// Anything (`x-kubernetes-preserve-unknown-fields`, `additionalProperties: true`).
    Anything,
    /// Values of this schema: the object is a map.
    Each(Box<Node>),
}

/// `x-kubernetes-list-type`.
#[derive(Debug)]
pub(super) enum List {
    Atomic,
    Set,
    Map(Vec<String>),
}

/// Formats that restrict a value; others are notes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Int32,
    DateTime,
}

/// One node of a compiled schema.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) nullable: bool,
    pub(super) default: Option<Value>,
    pub(super) choices: Option<Vec<Value>>,
    pub(super) format: Option<Format>,

    pub(super) properties: BTreeMap<String, Self>,
    pub(super) required: Vec<String>,
    pub(super) rest: Rest,
    pub(super) min_properties: Option<u64>,
    pub(super) max_properties: Option<u64>,

    pub(super) items: Option<Box<Self>>,
    pub(super) list: List,
    pub(super) unique: bool,
    pub(super) min_items: Option<u64>,
    pub(super) max_items: Option<u64>,

    pub(super) min_length: Option<u64>,
    pub(super) max_length: Option<u64>,
    pub(super) pattern: Option<Regex>,

    pub(super) minimum: Option<f64>,
    pub(super) maximum: Option<f64>,
    pub(super) exclusive_minimum: bool,
    pub(super) exclusive_maximum: bool,
    pub(super) multiple_of: Option<f64>,

    pub(super) all_of: Vec<Self>,
    pub(super) any_of: Vec<Self>,
    pub(super) one_of: Vec<Self>,
    pub(super) not: Option<Box<Self>>,
}

impl Node {
    pub(super) fn compile(schema: &Value, path: &str) -> Result<Self, SchemaError> {
        let Some(fields) = schema.as_object() else {
            return Err(SchemaError::new(path, "a schema is an object"));
        };
        if fields.contains_key("$ref") {
            return Err(SchemaError::new(path, "`$ref` is not supported; inline the schema"));
        }
        let keywords = Keywords { fields, path };
        let map_values = match fields.get("additionalProperties") {
            None | Some(Value::Bool(false)) => Rest::Nothing,
            Some(Value::Bool(true)) => Rest::Anything,
            Some(values) => Rest::Each(Box::new(Self::compile(values, &format!("{path}.*"))?)),
        };
        let preserves = keywords.flag("x-kubernetes-preserve-unknown-fields")?;
        let mut properties = BTreeMap::new();
        if let Some(children) = keywords.object("properties")? {
            for (name, child) in children {
                properties.insert(name.clone(), Self::compile(child, &format!("{path}.{name}"))?);
            }
        }
        Ok(Self {
            kind: keywords.kind()?,
            nullable: keywords.flag("nullable")?,
            default: fields.get("default").cloned(),
            choices: keywords.array("enum")?.cloned(),
            format: match keywords.text("format")? {
                Some("int32") => Some(Format::Int32),
                Some("date-time") => Some(Format::DateTime),
                _ => None,
            },
            properties,
            required: keywords.texts("required")?,
            rest: if preserves { Rest::Anything } else { map_values },
            min_properties: keywords.count("minProperties")?,
            max_properties: keywords.count("maxProperties")?,
            items: match fields.get("items") {
                Some(items) => Some(Box::new(Self::compile(items, &format!("{path}[]"))?)),
                None => None,
            },
            list: match keywords.text("x-kubernetes-list-type")? {
                None | Some("atomic") => List::Atomic,
                Some("set") => List::Set,
                Some("map") => List::Map(keywords.texts("x-kubernetes-list-map-keys")?),
                Some(other) => return Err(keywords.error(&format!("unknown list type `{other}`"))),
            },
            unique: keywords.flag("uniqueItems")?,
            min_items: keywords.count("minItems")?,
            max_items: keywords.count("maxItems")?,
            min_length: keywords.count("minLength")?,
            max_length: keywords.count("maxLength")?,
            pattern: match keywords.text("pattern")? {
                Some(pattern) => {
                    Some(Regex::new(pattern).map_err(|error| keywords.error(&error.to_string()))?)
                }
                None => None,
            },
            minimum: keywords.number("minimum")?,
            maximum: keywords.number("maximum")?,
            exclusive_minimum: keywords.flag("exclusiveMinimum")?,
            exclusive_maximum: keywords.flag("exclusiveMaximum")?,
            multiple_of: keywords.number("multipleOf")?,
            all_of: keywords.branches("allOf")?,
            any_of: keywords.branches("anyOf")?,
            one_of: keywords.branches("oneOf")?,
            not: match fields.get("not") {
                Some(branch) => Some(Box::new(Self::compile(branch, path)?)),
                None => None,
            },
        })
    }

    /// Fills in defaults as an API server does: where a field is absent, or `null` without being nullable; from the
    /// outside in, so that the defaults of a default are filled in too.
    pub(super) fn fill_defaults(&self, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for (name, child) in &self.properties {
                    let absent = fields.get(name).is_none_or(|value| value.is_null() && !child.nullable);
                    if let (true, Some(default)) = (absent, &child.default) {
                        fields.insert(name.clone(), default.clone());
                    }
                }
                for (name, value) in fields.iter_mut() {
                    match (self.properties.get(name), &self.rest) {
                        (Some(child), _) => child.fill_defaults(value),
                        (None, Rest::Each(child)) => child.fill_defaults(value),
                        (None, Rest::Nothing | Rest::Anything) => {}
                    }
                }
            }
            Value::Array(items) => {
                if let Some(child) = &self.items {
                    items.iter_mut().for_each(|item| child.fill_defaults(item));
                }
            }
            _ => {}
        }
    }
}

/// The keywords of one schema object.
struct Keywords<'a> {
    fields: &'a Map<String, Value>,
    path: &'a str,
}

impl<'a> Keywords<'a> {
    fn error(&self, reason: &str) -> SchemaError {
        SchemaError::new(self.path, reason)
    }

    fn typed<T>(
        &self,
        name: &str,
        what: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, SchemaError> {
        match self.fields.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                read(value).map(Some).ok_or_else(|| self.error(&format!("`{name}` must be {what}")))
            }
        }
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>, SchemaError> {
        self.typed(name, "a string", Value::as_str)
    }

    fn flag(&self, name: &str) -> Result<bool, SchemaError> {
        Ok(self.typed(name, "a boolean", Value::as_bool)?.unwrap_or(false))
    }

    fn number(&self, name: &str) -> Result<Option<f64>, SchemaError> {
        self.typed(name, "a number", Value::as_f64)
    }

    fn count(&self, name: &str) -> Result<Option<u64>, SchemaError> {
        self.typed(name, "a whole number", Value::as_u64)
    }

    fn array(&self, name: &str) -> Result<Option<&'a Vec<Value>>, SchemaError> {
        self.typed(name, "a list", Value::as_array)
    }

    fn object(&self, name: &str) -> Result<Option<&'a Map<String, Value>>, SchemaError> {
        self.typed(name, "an object", Value::as_object)
    }

    fn texts(&self, name: &str) -> Result<Vec<String>, SchemaError> {
        let texts = self
            .array(name)?
            .map(|values| values.iter().map(|value| value.as_str().map(str::to_owned)).collect());
        match texts {
            None => Ok(Vec::new()),
            Some(texts) => Option::<Vec<String>>::ok_or_else(texts, || {
                self.error(&format!("`{name}` must be a list of strings"))
            }),
        }
    }

    fn branches(&self, name: &str) -> Result<Vec<Node>, SchemaError> {
        self.array(name)?.into_iter().flatten().map(|branch| Node::compile(branch, self.path)).collect()
    }

    fn kind(&self) -> Result<Kind, SchemaError> {
        if self.flag("x-kubernetes-int-or-string")? {
            return Ok(Kind::IntOrString);
        }
        Ok(match self.text("type")? {
            None => Kind::Any,
            Some("object") => Kind::Object,
            Some("array") => Kind::Array,
            Some("string") => Kind::String,
            Some("integer") => Kind::Integer,
            Some("number") => Kind::Number,
            Some("boolean") => Kind::Boolean,
            Some(other) => return Err(self.error(&format!("unknown type `{other}`"))),
        })
    }
}
