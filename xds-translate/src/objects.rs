//! The objects of semantics section 1, typed, and how they are read from files and from an API server.
use std::{collections::BTreeMap, fmt};

use gateway_api::{
    backendtlspolicies::BackendTlsPolicySpec, gatewayclasses::GatewayClassSpec, gateways::GatewaySpec,
    referencegrants::ReferenceGrantSpec,
};
use k8s_openapi::api::{core::v1::ServiceSpec, discovery::v1::EndpointSlice};
use policy_model::{AgenticGroup, NamespacedName, Policy, PolicyKey, XBackend};
use serde_json::Value;

use crate::{
    ObjectRef,
    objects::{
        decode::{FieldError, Meta},
        kind::{Kind, Recognized},
        route::Route,
    },
};

mod agentic;
pub(crate) mod decode;
pub(crate) mod kind;
mod read;
pub(crate) mod route;
pub(crate) mod rules;
mod yaml;

pub(crate) use self::kind::GATEWAY_GROUP;

/// A fault in a file or object: what an API server would refuse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// File name as given to [`Objects::add_yaml`].
    pub file: String,
    /// Number of the document in the file, from 1.
    pub document: usize,
    /// `Kind namespace/name`, as far as known.
    pub object: String,
    /// Path of the field, empty for the whole object.
    pub field: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Violation {
    /// `file, document 2, Gateway ns/name, spec.listeners[0].port: must be 1 to 65535, not `0``
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, document {}", self.file, self.document)?;
        if !self.object.is_empty() {
            write!(f, ", {}", self.object)?;
        }
        if !self.field.is_empty() {
            write!(f, ", {}", self.field)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// All that was wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadError {
    /// At least one.
    pub violations: Vec<Violation>,
}

impl fmt::Display for LoadError {
    /// One line per violation.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, violation) in self.violations.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            violation.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for LoadError {}

/// What became of an object given to [`Objects::insert`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Inserted {
    /// It is kept.
    Stored,
    /// It cannot be read and is kept as such: what it would have opened stays closed, what it would have closed is closed.
    Unreadable {
        /// What is wrong with it.
        message: String,
    },
    /// It is of a kind that is not looked at.
    OtherKind,
    /// It has no name, or an apiVersion of a known kind that is not served; nothing was kept.
    Refused {
        /// What is wrong with it.
        message: String,
    },
}

/// An object: its metadata, and its contents if they can be read.
#[derive(Debug, Clone)]
pub(crate) struct Entry<T> {
    pub(crate) meta: Meta,
    pub(crate) spec: Result<T, Unreadable>,
    /// Fields that the type does not know. A file with any is refused; an API server may know more than we.
    pub(crate) unknown: Vec<String>,
}

/// An object that arrived but cannot be read, kept so that nothing opens because of it.
#[derive(Clone)]
pub(crate) struct Unreadable {
    pub(crate) message: String,
    /// As it arrived; it may be a Secret.
    pub(crate) value: Value,
}

impl fmt::Debug for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unreadable").field("message", &self.message).finish_non_exhaustive()
    }
}

/// `data` of a Secret or ConfigMap. Its contents do not appear in debug output.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Data(pub(crate) BTreeMap<String, Vec<u8>>);

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A set of objects: at most one per kind, group, namespace and name.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    pub(crate) classes: BTreeMap<NamespacedName, Entry<GatewayClassSpec>>,
    pub(crate) gateways: BTreeMap<NamespacedName, Entry<GatewaySpec>>,
    pub(crate) routes: BTreeMap<NamespacedName, Entry<Route>>,
    pub(crate) grants: BTreeMap<NamespacedName, Entry<ReferenceGrantSpec>>,
    pub(crate) tls_policies: BTreeMap<NamespacedName, Entry<BackendTlsPolicySpec>>,
    pub(crate) backends: BTreeMap<(NamespacedName, AgenticGroup), Entry<XBackend>>,
    pub(crate) policies: BTreeMap<PolicyKey, Entry<Policy>>,
    pub(crate) services: BTreeMap<NamespacedName, Entry<ServiceSpec>>,
    pub(crate) slices: BTreeMap<NamespacedName, Entry<EndpointSlice>>,
    pub(crate) secrets: BTreeMap<NamespacedName, Entry<Data>>,
    pub(crate) config_maps: BTreeMap<NamespacedName, Entry<Data>>,
    pub(crate) namespaces: BTreeMap<NamespacedName, Entry<()>>,
}

impl Objects {
    /// Adds every document of a YAML (or JSON) text; `List` kinds are unrolled. Unknown kinds of other groups
    /// (Deployment, ServiceAccount, …) are skipped and returned as `Kind namespace/name` for a note to the user.
    /// A namespaced object without a namespace is in `default`.
    ///
    /// # Errors
    /// What an API server would refuse: YAML, unknown fields or wrong types, CRD validation; two objects of the same name.
    /// All violations of the text are reported; on error nothing of it is added.
    pub fn add_yaml(&mut self, file: &str, text: &str) -> Result<Vec<String>, LoadError> {
        let mut skipped = Vec::new();
        let mut violations = Vec::new();
        let mut added = self.clone();
        for document in yaml::documents(text) {
            let mut report = |object: String, error: FieldError| {
                violations.push(Violation {
                    file: file.to_owned(),
                    document: document.number,
                    object,
                    field: error.field,
                    message: error.message,
                });
            };
            let content = match document.content {
                Ok(content) => content,
                Err(message) => {
                    report(String::new(), FieldError::new("", message));
                    continue;
                }
            };
            for object in unrolled(content) {
                let name = kind::describe(&object);
                match kind::recognize(&object) {
                    Err(error) => report(name, error),
                    Ok(Recognized::Other) => skipped.push(name),
                    Ok(Recognized::Kind(kind)) => {
                        for error in added.add_strict(kind, &object) {
                            report(name.clone(), error);
                        }
                    }
                }
            }
        }
        if violations.is_empty() {
            *self = added;
            Ok(skipped)
        } else {
            Err(LoadError { violations })
        }
    }

    /// Adds or replaces one object, as an API server gives it. It is never skipped because it cannot be read: see [`Inserted::Unreadable`].
    pub fn insert(&mut self, object: &Value) -> Inserted {
        match kind::recognize(object) {
            Err(error) => Inserted::Refused { message: format!("{}: {}", error.field, error.message) },
            Ok(Recognized::Other) => Inserted::OtherKind,
            Ok(Recognized::Kind(kind)) => self.add_lenient(kind, object),
        }
    }

    /// Removes an object. Whether it was there.
    pub fn remove(&mut self, object: &ObjectRef) -> bool {
        let name = NamespacedName::new(object.namespace.clone(), object.name.clone());
        match Kind::of(&object.group, &object.kind) {
            None => false,
            Some(Kind::GatewayClass) => self.classes.remove(&name).is_some(),
            Some(Kind::Gateway) => self.gateways.remove(&name).is_some(),
            Some(Kind::HttpRoute) => self.routes.remove(&name).is_some(),
            Some(Kind::ReferenceGrant) => self.grants.remove(&name).is_some(),
            Some(Kind::BackendTlsPolicy) => self.tls_policies.remove(&name).is_some(),
            Some(Kind::XBackend(group)) => self.backends.remove(&(name, group)).is_some(),
            Some(Kind::XAccessPolicy(group)) => {
                let key = PolicyKey { namespace: name.namespace, name: name.name, group };
                self.policies.remove(&key).is_some()
            }
            Some(Kind::Service) => self.services.remove(&name).is_some(),
            Some(Kind::EndpointSlice) => self.slices.remove(&name).is_some(),
            Some(Kind::Secret) => self.secrets.remove(&name).is_some(),
            Some(Kind::ConfigMap) => self.config_maps.remove(&name).is_some(),
            Some(Kind::Namespace) => self.namespaces.remove(&name).is_some(),
        }
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        [
            self.classes.len(),
            self.gateways.len(),
            self.routes.len(),
            self.grants.len(),
            self.tls_policies.len(),
            self.backends.len(),
            self.policies.len(),
            self.services.len(),
            self.slices.len(),
            self.secrets.len(),
            self.config_maps.len(),
            self.namespaces.len(),
        ]
        .iter()
        .sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The items of a `List`, or the object itself.
fn unrolled(object: Value) -> Vec<Value> {
    let is_list = object.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List"));
    match object {
        Value::Object(mut fields) if is_list && fields.get("items").is_some_and(Value::is_array) => {
            match fields.remove("items") {
                Some(Value::Array(items)) => items.into_iter().flat_map(unrolled).collect(),
                _ => Vec::new(),
            }
        }
        object => vec![object],
    }
}
