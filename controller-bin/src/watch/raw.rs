//! An object as the API server gives it, whatever is in it.
use std::{borrow::Cow, fmt};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Resource,
    core::{ApiResource, DynamicResourceScope},
};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Any object. Nothing in it can make it unreadable: one that could not be read would be one that is not enforced.
#[derive(Clone)]
pub(super) struct Raw {
    /// Name, namespace and resourceVersion alone.
    meta: ObjectMeta,
    value: Value,
}

impl Raw {
    /// The object, with the apiVersion and kind that items of lists do not have; without `managedFields`.
    pub(super) fn into_value(self, resource: &ApiResource) -> Value {
        let mut value = self.value;
        if let Some(fields) = value.as_object_mut() {
            fields.insert("apiVersion".to_owned(), Value::from(resource.api_version.as_str()));
            fields.insert("kind".to_owned(), Value::from(resource.kind.as_str()));
        }
        value
    }
}

impl fmt::Debug for Raw {
    /// Without the contents: it may be a Secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Raw").field("name", &self.meta.name).finish_non_exhaustive()
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        let metadata = value.get_mut("metadata").and_then(Value::as_object_mut);
        let mut meta = ObjectMeta::default();
        if let Some(metadata) = metadata {
            metadata.remove("managedFields");
            let text = |field: &str| metadata.get(field).and_then(Value::as_str).map(str::to_owned);
            meta.name = text("name");
            meta.namespace = text("namespace");
            meta.resource_version = text("resourceVersion");
        }
        Ok(Self { meta, value })
    }
}

impl Resource for Raw {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn api_version(resource: &ApiResource) -> Cow<'_, str> {
        resource.api_version.as_str().into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}
