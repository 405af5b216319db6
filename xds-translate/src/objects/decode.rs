//! JSON values to typed parts, with the path of every field that is wrong or unknown.
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use policy_model::{NamespacedName, Timestamp};
use serde::de::DeserializeOwned;
use serde_ignored::Path;
use serde_json::Value;

/// What is wrong with one field: its path, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FieldError {
    pub(crate) field: String,
    pub(crate) message: String,
}

impl FieldError {
    pub(crate) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// The parts of `metadata` that matter here.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Meta {
    pub(crate) name: NamespacedName,
    pub(crate) generation: Option<i64>,
    pub(crate) created: Option<Timestamp>,
    pub(crate) labels: BTreeMap<String, String>,
}

/// A decoded value and the paths of the fields that its type does not know.
pub(crate) struct Decoded<T> {
    pub(crate) value: T,
    pub(crate) unknown: Vec<String>,
}

/// Decodes `value`; `at` is its path in the object (`spec`, or empty for the whole object).
pub(crate) fn decode<T: DeserializeOwned>(value: &Value, at: &str) -> Result<Decoded<T>, FieldError> {
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(value, &mut track);
    let decoded = serde_ignored::deserialize(tracked, |path| unknown.push(join(at, &ignored_path(&path))));
    match decoded {
        Ok(value) => Ok(Decoded { value, unknown }),
        Err(error) => {
            let path = track.path();
            let inner = path.iter().fold(String::new(), |path, segment| match segment {
                serde_path_to_error::Segment::Seq { index } => format!("{path}[{index}]"),
                serde_path_to_error::Segment::Map { key } => join(&path, key),
                serde_path_to_error::Segment::Enum { variant } => join(&path, variant),
                serde_path_to_error::Segment::Unknown => path,
            });
            Err(FieldError::new(join(at, &inner), readable(&error.to_string())))
        }
    }
}

/// Serde's words without Rust type names.
fn readable(message: &str) -> String {
    message
        .replace("i32", "a whole number")
        .replace("i64", "a whole number")
        .replace("unknown variant", "unsupported value")
}

pub(crate) fn join(parent: &str, field: &str) -> String {
    match (parent.is_empty(), field.is_empty()) {
        (true, _) => field.to_owned(),
        (_, true) => parent.to_owned(),
        _ if field.starts_with('[') => format!("{parent}{field}"),
        _ => format!("{parent}.{field}"),
    }
}

fn ignored_path(path: &Path<'_>) -> String {
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", ignored_path(parent)),
        Path::Map { parent, key } => join(&ignored_path(parent), key),
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            ignored_path(parent)
        }
    }
}

/// The metadata of an object; a namespaced object without a namespace is in `default`, as with `kubectl`.
pub(crate) fn meta(value: &Value, namespaced: bool) -> Result<Decoded<Meta>, FieldError> {
    let Some(metadata) = value.get("metadata") else {
        return Err(FieldError::new("metadata.name", "is missing; give the object a name"));
    };
    let Decoded { value: metadata, unknown } = decode::<ObjectMeta>(metadata, "metadata")?;
    let name = metadata.name.unwrap_or_default();
    if name.is_empty() {
        return Err(FieldError::new("metadata.name", "is missing; give the object a name"));
    }
    let namespace = match (namespaced, metadata.namespace.filter(|namespace| !namespace.is_empty())) {
        (true, namespace) => namespace.unwrap_or_else(|| "default".to_owned()),
        (false, None) => String::new(),
        (false, Some(namespace)) => {
            return Err(FieldError::new(
                "metadata.namespace",
                format!("this kind has no namespace; remove `{namespace}`"),
            ));
        }
    };
    Ok(Decoded {
        value: Meta {
            name: NamespacedName::new(namespace, name),
            generation: metadata.generation,
            created: metadata.creation_timestamp.map(|time| Timestamp(time.0.as_second())),
            labels: metadata.labels.unwrap_or_default(),
        },
        unknown,
    })
}
