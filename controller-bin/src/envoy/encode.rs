//! Envoy's resources as ADS sends them: from protobuf's JSON form to bytes, by the definitions of the messages.
use std::{fmt, sync::OnceLock};

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use serde_json::Value;
use xds_translate::envoy;

/// Envoy's definitions of all messages that a translation holds; written by `cargo xtask descriptors`.
static DEFINITIONS: &[u8] = include_bytes!("descriptors.binpb");

/// Why a message could not be encoded: a field that Envoy does not know, or a value that it cannot have. Either is a bug.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodeError(String);

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for EncodeError {}

/// A resource as the xDS server sends it. Its version is the hash of its JSON form: of the bytes there are several (maps
/// have no order), of the JSON form one.
///
/// # Errors
/// What is not as Envoy's definitions have it.
pub fn resource(resource: &envoy::Resource) -> Result<xds_server::Resource, EncodeError> {
    let explain = |error: String| EncodeError(format!("`{}`: {error}", resource.name));
    let body = message(resource.kind.type_url(), &resource.json).map_err(explain)?.encode_to_vec();
    let canonical = serde_json::to_vec(&resource.json).map_err(|error| explain(error.to_string()))?;
    Ok(xds_server::Resource { version: xds_server::Resource::new(canonical).version, body: body.into() })
}

/// Reads a message in its JSON form; a field that is not known is an error.
fn message(type_url: &str, json: &Value) -> Result<DynamicMessage, String> {
    DynamicMessage::deserialize(definition(type_url)?, json).map_err(|error| error.to_string())
}

fn definition(type_url: &str) -> Result<MessageDescriptor, String> {
    static POOL: OnceLock<Result<DescriptorPool, String>> = OnceLock::new();
    let pool = POOL.get_or_init(|| DescriptorPool::decode(DEFINITIONS).map_err(|error| error.to_string()));
    let name = type_url.rsplit('/').next().unwrap_or_default();
    pool.as_ref()
        .map_err(Clone::clone)?
        .get_message_by_name(name)
        .ok_or_else(|| format!("there is no definition of `{name}`"))
}

#[cfg(test)]
mod tests;
