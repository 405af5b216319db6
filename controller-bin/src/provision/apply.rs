//! Server-side apply of a proxy's objects.
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, Preconditions},
};
use policy_model::NamespacedName;
use serde_json::Value;

use super::{FIELD_MANAGER, GATEWAY_LABEL, Proxy, Settings, drift, gateway_label, objects, proxy_name};

/// Every kind that is made for a Gateway, in the order of [`objects`].
const KINDS: [(&str, &str, &str, &str); 5] = [
    ("", "v1", "ServiceAccount", "serviceaccounts"),
    ("", "v1", "ConfigMap", "configmaps"),
    ("apps", "v1", "Deployment", "deployments"),
    ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    ("", "v1", "Service", "services"),
];

/// Applies them by server-side apply (field manager [`FIELD_MANAGER`], forced), and removes what is no longer wanted of
/// ours for this Gateway. An object is written only when it is not as it was applied last, so that this may be called
/// again and again, and is what repairs an object that somebody changed or deleted. An object of the same name that
/// belongs to someone else is left alone. Upstream's finalizers are [`release`](super::release)'s work.
///
/// # Errors
/// For people: which object, and what the API server said. The other objects were applied all the same.
pub async fn apply(client: &kube::Client, proxy: &Proxy, settings: &Settings) -> Result<(), String> {
    let wanted = objects(proxy, settings);
    let mut errors = Vec::new();
    for object in made_for(client, &proxy.gateway) {
        let wanted =
            wanted.iter().find(|wanted| wanted.get("kind").and_then(Value::as_str) == Some(object.kind));
        let done = match wanted {
            Some(wanted) => object.ensure(wanted).await,
            None => object.remove(|_| true).await,
        };
        errors.extend(done.err());
    }
    if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) }
}

/// Removes what this controller applied for a Gateway that is no longer its own; what another implementation has under the
/// same names stays.
///
/// # Errors
/// For people: which object, and what the API server said. The other objects were removed all the same.
pub async fn remove(client: &kube::Client, gateway: &NamespacedName) -> Result<(), String> {
    let mut errors = Vec::new();
    for object in made_for(client, gateway) {
        errors.extend(object.remove(drift::is_sealed).await.err());
    }
    if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) }
}

/// What there may be for a Gateway.
fn made_for<'a>(client: &kube::Client, gateway: &'a NamespacedName) -> impl Iterator<Item = Object<'a>> {
    KINDS.into_iter().map(|(group, version, kind, plural)| Object {
        api: Api::namespaced_with(
            client.clone(),
            &gateway.namespace,
            &ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural),
        ),
        kind,
        name: proxy_name(gateway),
        gateway,
    })
}

struct Object<'a> {
    api: Api<DynamicObject>,
    kind: &'static str,
    name: String,
    gateway: &'a NamespacedName,
}

impl Object<'_> {
    async fn ensure(&self, wanted: &Value) -> Result<(), String> {
        if let Some(live) = self.live().await? {
            if !self.is_ours(&live) {
                return Err(format!(
                    "{} `{}/{}` belongs to someone else; delete it, or give the Gateway another name",
                    self.kind, self.gateway.namespace, self.name
                ));
            }
            if live.metadata.deletion_timestamp.is_some() {
                return Err(format!(
                    "{} `{}` is being deleted; it is made again when it is gone",
                    self.kind, self.name
                ));
            }
            let selector = "/spec/selector/matchLabels";
            let replace =
                self.kind == "Deployment" && live.data.pointer(selector) != wanted.pointer(selector);
            let live_json = serde_json::to_value(&live)
                .map_err(|error| format!("{} `{}`: {error}", self.kind, self.name))?;
            let same_selector = self.kind == "Deployment"
                || live.data.pointer("/spec/selector") == wanted.pointer("/spec/selector");
            if same_selector && drift::has(&live_json, wanted) {
                return Ok(());
            }
            // A selector cannot be changed, and upstream's proxies are selected by another one.
            if replace {
                self.delete(&live).await?;
            }
        }
        let params = PatchParams::apply(FIELD_MANAGER).force();
        match self.api.patch(&self.name, &params, &Patch::Apply(wanted)).await {
            Ok(_) => {
                tracing::info!(kind = self.kind, name = self.name, gateway = %self.gateway, "applied");
                Ok(())
            }
            Err(error) => Err(self.failed("apply", &error)),
        }
    }

    async fn remove(&self, also: impl Fn(&DynamicObject) -> bool) -> Result<(), String> {
        match self.live().await? {
            Some(live)
                if self.is_ours(&live) && also(&live) && live.metadata.deletion_timestamp.is_none() =>
            {
                self.delete(&live).await
            }
            _ => Ok(()),
        }
    }

    async fn live(&self) -> Result<Option<DynamicObject>, String> {
        self.api.get_opt(&self.name).await.map_err(|error| self.failed("read", &error))
    }

    /// The object that was looked at, not one that came in its place.
    async fn delete(&self, live: &DynamicObject) -> Result<(), String> {
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: live.metadata.uid.clone(), resource_version: None }),
            ..DeleteParams::background()
        };
        match self.api.delete(&self.name, &params).await {
            Ok(_) => {
                tracing::info!(kind = self.kind, name = self.name, gateway = %self.gateway, "deleted");
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(self.failed("delete", &error)),
        }
    }

    /// Owned by this Gateway (or one of this name that was there before: the owner is then replaced), or owned by nobody
    /// and labelled with its name, as upstream does.
    fn is_ours(&self, live: &DynamicObject) -> bool {
        let owners = live.metadata.owner_references.as_deref().unwrap_or_default();
        let by_gateway = owners.iter().any(|owner| {
            owner.kind == "Gateway"
                && owner.api_version.starts_with("gateway.networking.k8s.io/")
                && owner.name == self.gateway.name
        });
        let labelled = live.metadata.labels.as_ref().and_then(|labels| labels.get(GATEWAY_LABEL))
            == Some(&gateway_label(self.gateway));
        by_gateway || (labelled && !owners.iter().any(|owner| owner.controller == Some(true)))
    }

    fn failed(&self, what: &str, error: &kube::Error) -> String {
        describe(what, self.kind, &self.name, error)
    }
}

/// For people.
pub(super) fn describe(what: &str, kind: &str, name: &str, error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => {
            format!("cannot {what} {kind} `{name}`: the API server says: {}", status.message)
        }
        error => format!("cannot {what} {kind} `{name}`: {error}"),
    }
}

#[cfg(test)]
mod tests;
