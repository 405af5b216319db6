//! Structural schemas (`openAPIV3Schema` of a CustomResourceDefinition), enforced as an API server enforces them.
mod check;
mod node;

use std::fmt;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use kube::core::cel::{CompiledSchema, Validator, compile_schema};
use serde_json::Value;

use self::node::Node;

/// What is wrong with an object, and where.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Violation {
    /// The field, as in `spec.rules[0].name`; empty for the object as a whole.
    pub path: String,
    /// What is wrong with it; lower case unless it is the message of a CRD's validation rule.
    pub message: String,
}

impl Violation {
    /// A violation at a path.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

impl fmt::Display for Violation {
    /// `path: message`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}

/// A schema that cannot be enforced: a fault of the definition, not of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaError {
    path: String,
    reason: String,
}

impl SchemaError {
    fn new(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { path: path.into(), reason: reason.into() }
    }
}

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "schema cannot be enforced at `{}`: {}", self.path, self.reason)
    }
}

impl std::error::Error for SchemaError {}

/// A compiled structural schema with its CEL validation rules. Compile it once and keep it.
pub struct Schema {
    root: Node,
    rules: CompiledSchema,
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schema").finish_non_exhaustive()
    }
}

impl Schema {
    /// Compiles an `openAPIV3Schema`.
    ///
    /// # Errors
    /// A keyword of the wrong form, a pattern that is no regular expression, a CEL rule that does not compile, or
    /// `$ref`, which structural schemas do not have.
    pub fn compile(schema: &Value) -> Result<Self, SchemaError> {
        let root = Node::compile(schema, "")?;
        let rules = compile_schema(schema);
        match rule_error(&rules, String::new()) {
            Some(error) => Err(error),
            None => Ok(Self { root, rules }),
        }
    }

    /// Compiles the schema of one version of a definition.
    ///
    /// # Errors
    /// As [`Schema::compile`]; also if the definition has no such version, or the version has no schema.
    pub fn of_crd(crd: &CustomResourceDefinition, version: &str) -> Result<Self, SchemaError> {
        let schema = crd
            .spec
            .versions
            .iter()
            .find(|candidate| candidate.name == version)
            .and_then(|version| version.schema.as_ref()?.open_api_v3_schema.as_ref())
            .ok_or_else(|| SchemaError::new("", format!("there is no schema of version `{version}`")))?;
        let schema = serde_json::to_value(schema).map_err(|error| SchemaError::new("", error.to_string()))?;
        Self::compile(&schema)
    }

    /// Compiles the schema of a derived custom resource, of `gateway_api` for instance.
    ///
    /// # Errors
    /// As [`Schema::compile`].
    pub fn of_resource<K: CustomResourceExt>() -> Result<Self, SchemaError> {
        let crd = K::crd();
        let version = crd.spec.versions.first().map(|version| version.name.clone()).unwrap_or_default();
        Self::of_crd(&crd, &version)
    }

    /// Checks an object as a creation would be checked: `metadata`, unknown fields, structure, CEL rules. `status` is
    /// neither checked nor kept, as it is not part of a creation. Returns the object with defaults filled in.
    ///
    /// Without a fault of structure the CEL rules are evaluated; with one they are not, as they could not be trusted.
    ///
    /// # Errors
    /// Every violation found, in the order of the schema.
    pub fn read(&self, object: &Value) -> Result<Value, Vec<Violation>> {
        let mut object = object.clone();
        if let Some(fields) = object.as_object_mut() {
            fields.remove("status");
        }
        self.root.fill_defaults(&mut object);
        let mut found = check::Found::default();
        check::metadata(&object, &mut found);
        self.root.check_root(&object, &mut found);
        if !found.structure
            && let Err(errors) = Validator::new().validate_compiled(&self.rules, &object, None)
        {
            let broken = errors.into_vec().into_iter();
            found.violations.extend(broken.map(|error| Violation::new(error.field_path, error.message)));
        }
        if found.violations.is_empty() { Ok(object) } else { Err(found.violations) }
    }
}

/// The first CEL rule that does not compile.
fn rule_error(rules: &CompiledSchema, path: String) -> Option<SchemaError> {
    if let Some(error) = rules.compilation_errors().first() {
        return Some(SchemaError::new(path, error.to_string()));
    }
    let properties = rules.properties.iter().map(|(name, child)| (format!("{path}.{name}"), child));
    let items = rules.items.iter().map(|child| (format!("{path}[]"), child.as_ref()));
    let values = rules.additional_properties.iter().map(|child| (format!("{path}.*"), child.as_ref()));
    properties.chain(items).chain(values).find_map(|(path, child)| rule_error(child, path))
}

#[cfg(test)]
mod tests;
