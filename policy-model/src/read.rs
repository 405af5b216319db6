//! Objects as they arrive, read into the neutral model. There is one way in, for files and for an API server: what
//! the schema does not know is an error, and the error says what has to fail closed.
mod convert;
mod error;

use std::sync::OnceLock;

use serde_json::Value;

pub use self::error::ReadError;
use crate::crd;
use crate::model::{AgenticGroup, Policy, XBackend};
use crate::schema::{Schema, SchemaError, Violation};

/// Reads an XAccessPolicy of any accepted group and version.
///
/// The object is checked as an API server checks a creation (structure, CEL rules, unknown fields), and defaults are
/// filled in. `spec.action` decides which shape it has, not its apiVersion. A missing namespace is `default`.
///
/// # Errors
/// Everything that is wrong with it, each with its path, and the targets that must fail closed.
pub fn read_policy(object: &Value) -> Result<Policy, ReadError> {
    static SCHEMA: OnceLock<Result<Schema, SchemaError>> = OnceLock::new();
    let schema = SCHEMA.get_or_init(|| compiled("xaccesspolicies"));
    checked(object, "XAccessPolicy", policy_group, schema)
        .and_then(|(object, group)| convert::policy(&object, group))
        .map_err(|violations| ReadError::new(object, policy_group(object), violations))
}

/// Reads an XBackend of either group.
///
/// Checked as [`read_policy`] does.
///
/// # Errors
/// Everything that is wrong with it, each with its path.
pub fn read_backend(object: &Value) -> Result<XBackend, ReadError> {
    static SCHEMA: OnceLock<Result<Schema, SchemaError>> = OnceLock::new();
    let schema = SCHEMA.get_or_init(|| compiled("xbackends"));
    checked(object, "XBackend", backend_group, schema)
        .and_then(|(object, group)| convert::backend(&object, group))
        .map_err(|violations| ReadError::new(object, backend_group(object), violations))
}

/// The schema of a kind; the same in every group and version.
fn compiled(plural: &str) -> Result<Schema, SchemaError> {
    let crd = crd::crds().into_iter().find(|crd| crd.spec.names.plural == plural).unwrap_or_default();
    Schema::of_crd(&crd, "v0alpha0")
}

fn checked(
    object: &Value,
    kind: &str,
    group_of: fn(&Value) -> Option<AgenticGroup>,
    schema: &Result<Schema, SchemaError>,
) -> Result<(Value, AgenticGroup), Vec<Violation>> {
    if object.get("kind").and_then(Value::as_str) != Some(kind) {
        return Err(vec![Violation::new("kind", format!("must be `{kind}`"))]);
    }
    let Some(group) = group_of(object) else {
        return Err(vec![Violation::new("apiVersion", format!("must be {}", api_versions(kind)))]);
    };
    let schema = schema.as_ref().map_err(|error| vec![Violation::new("", error.to_string())])?;
    Ok((schema.read(object)?, group))
}

fn api_versions(kind: &str) -> &'static str {
    if kind == "XBackend" {
        "`agentic.networking.x-k8s.io/v0alpha0` or `agentic.prototype.x-k8s.io/v0alpha0`"
    } else {
        "`agentic.networking.x-k8s.io/v1alpha1`, `agentic.networking.x-k8s.io/v0alpha0` or `agentic.prototype.x-k8s.io/v0alpha0`"
    }
}

fn policy_group(object: &Value) -> Option<AgenticGroup> {
    match object.get("apiVersion")?.as_str()? {
        "agentic.networking.x-k8s.io/v0alpha0" | "agentic.networking.x-k8s.io/v1alpha1" => {
            Some(AgenticGroup::Networking)
        }
        "agentic.prototype.x-k8s.io/v0alpha0" => Some(AgenticGroup::Prototype),
        _ => None,
    }
}

fn backend_group(object: &Value) -> Option<AgenticGroup> {
    match object.get("apiVersion")?.as_str()? {
        "agentic.networking.x-k8s.io/v0alpha0" => Some(AgenticGroup::Networking),
        "agentic.prototype.x-k8s.io/v0alpha0" => Some(AgenticGroup::Prototype),
        _ => None,
    }
}
