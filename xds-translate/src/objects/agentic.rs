//! XAccessPolicy and XBackend: `policy_model` reads them, with their CRDs' validation.
use policy_model::{Policy, ReadError, XBackend, read_backend, read_policy};
use serde_json::Value;

use crate::objects::decode::{Decoded, FieldError};

pub(super) fn policy(value: &Value) -> Result<Decoded<Policy>, Vec<FieldError>> {
    decoded(read_policy(value))
}

pub(super) fn backend(value: &Value) -> Result<Decoded<XBackend>, Vec<FieldError>> {
    decoded(read_backend(value))
}

/// Unknown fields are errors there: a policy that is not wholly understood cannot be enforced as written.
fn decoded<T>(read: Result<T, ReadError>) -> Result<Decoded<T>, Vec<FieldError>> {
    read.map(|value| Decoded { value, unknown: Vec::new() }).map_err(|error| {
        error
            .violations()
            .iter()
            .map(|violation| FieldError::new(&violation.path, &violation.message))
            .collect()
    })
}
