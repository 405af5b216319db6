//! Requests to the API server as they go over the wire: typed clients would lose what this is about.
use std::fmt;

use anyhow::{Context as _, anyhow};
use http::{Method, Request};
use kube::{Client, core::Status};
use serde_json::{Value, json};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const MERGE: &str = "application/merge-patch+json";

/// One version of a kind, in a namespace.
#[derive(Debug, Clone)]
pub(crate) struct Resource {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    path: String,
}

impl Resource {
    /// Of a definition and one of its versions.
    pub(crate) fn new(namespace: &str, definition: &Value, version: &Value) -> anyhow::Result<Self> {
        let text = |pointer: &str| definition.pointer(pointer).and_then(Value::as_str).context("no name");
        let version = version.get("name").and_then(Value::as_str).context("a version without a name")?;
        let (group, plural) = (text("/spec/group")?, text("/spec/names/plural")?);
        Ok(Self {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: text("/spec/names/kind")?.to_owned(),
            path: format!("/apis/{group}/{version}/namespaces/{namespace}/{plural}"),
        })
    }

    /// The whole object of a `spec` (and whatever else there is).
    pub(crate) fn object(&self, name: &str, content: &Value) -> Value {
        let mut object = content.clone();
        if let Some(fields) = object.as_object_mut() {
            fields.insert("apiVersion".to_owned(), format!("{}/{}", self.group, self.version).into());
            fields.insert("kind".to_owned(), self.kind.clone().into());
            fields.insert("metadata".to_owned(), json!({"name": name}));
        }
        object
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.group, self.version)
    }
}

/// What the API server says: the object, or why not.
pub(crate) type Answer = Result<Value, Box<Status>>;

/// A client.
#[derive(Clone)]
pub(crate) struct Api(Client);

impl Api {
    pub(crate) fn new(client: Client) -> Self {
        Self(client)
    }

    /// A new namespace's name.
    pub(crate) async fn namespace(&self) -> anyhow::Result<String> {
        let object = json!({"metadata": {"generateName": "crds-"}});
        let made = good(self.send(Method::POST, "/api/v1/namespaces", None, &object).await?)?;
        Ok(made.pointer("/metadata/name").and_then(Value::as_str).context("no name")?.to_owned())
    }

    pub(crate) async fn delete(&self, path: &str) -> anyhow::Result<()> {
        good(self.send(Method::DELETE, path, None, &json!({})).await?).map(drop)
    }

    pub(crate) async fn definition(&self, name: &str) -> anyhow::Result<Value> {
        let found = self.send(Method::GET, &format!("{DEFINITIONS}/{name}"), None, &Value::Null).await?;
        good(found).with_context(|| format!("the definition of `{name}`"))
    }

    /// What creating an object would give.
    pub(crate) async fn dry_run(
        &self,
        resource: &Resource,
        object: &Value,
        strict: bool,
    ) -> anyhow::Result<Answer> {
        let path = format!("{}?dryRun=All&fieldValidation={}", resource.path, validation(strict));
        self.send(Method::POST, &path, None, object).await
    }

    /// What writing the status of the stored object (which is named as the version) would give.
    pub(crate) async fn dry_run_status(
        &self,
        resource: &Resource,
        object: &Value,
        strict: bool,
    ) -> anyhow::Result<Answer> {
        let (name, validation) = (&resource.version, validation(strict));
        let path = format!("{}/{name}/status?dryRun=All&fieldValidation={validation}", resource.path);
        let status = json!({"status": object.get("status")});
        self.send(Method::PATCH, &path, Some(MERGE), &status).await
    }

    /// Stores an object for good.
    pub(crate) async fn create(&self, resource: &Resource, object: &Value) -> anyhow::Result<Value> {
        let path = format!("{}?fieldValidation=Strict", resource.path);
        good(self.send(Method::POST, &path, None, object).await?)
            .with_context(|| format!("{resource} cannot be created"))
    }

    pub(crate) async fn read(&self, resource: &Resource, name: &str) -> anyhow::Result<Value> {
        good(self.send(Method::GET, &format!("{}/{name}", resource.path), None, &Value::Null).await?)
    }

    /// Writes an object back as it is given.
    pub(crate) async fn replace(
        &self,
        resource: &Resource,
        name: &str,
        object: &Value,
    ) -> anyhow::Result<Answer> {
        let path = format!("{}/{name}?fieldValidation=Strict", resource.path);
        self.send(Method::PUT, &path, None, object).await
    }

    /// Changes some fields (RFC 7386).
    pub(crate) async fn merge(
        &self,
        resource: &Resource,
        name: &str,
        patch: &Value,
    ) -> anyhow::Result<Answer> {
        let path = format!("{}/{name}?fieldValidation=Strict", resource.path);
        self.send(Method::PATCH, &path, Some(MERGE), patch).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: &Value,
    ) -> anyhow::Result<Answer> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", content_type.unwrap_or("application/json"))
            .body(if body.is_null() { Vec::new() } else { serde_json::to_vec(body)? })?;
        match self.0.request::<Value>(request).await {
            Ok(object) => Ok(Ok(object)),
            Err(kube::Error::Api(status)) => Ok(Err(status)),
            Err(error) => Err(error.into()),
        }
    }
}

fn validation(strict: bool) -> &'static str {
    if strict { "Strict" } else { "Ignore" }
}

/// The object; a refusal is an error.
pub(crate) fn good(answer: Answer) -> anyhow::Result<Value> {
    answer.map_err(|status| anyhow!("{}: {}", status.code, status.message))
}
