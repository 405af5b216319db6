//! The versions of one kind: what is written in one is read in the other, whole; and no update makes a mixture.
use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::{
    api::{Api, Resource, good},
    policies,
};

/// The group whose XAccessPolicies have two versions.
const GROUP: &str = "agentic.networking.x-k8s.io";

/// # Errors
/// The first thing that was lost, changed, or accepted though it should not be.
pub(crate) async fn check(api: &Api, resources: &[Resource]) -> anyhow::Result<()> {
    let version = |name: &str| {
        let found = resources
            .iter()
            .find(|one| one.kind == "XAccessPolicy" && one.group == GROUP && one.version == name);
        found.with_context(|| format!("XAccessPolicy is not served as {GROUP}/{name}"))
    };
    let (old, new) = (version("v0alpha0")?, version("v1alpha1")?);
    for (from, to) in [(old, new), (new, old)] {
        for (number, (example, policy)) in policies::examples().into_iter().enumerate() {
            let name = format!("kept-{number}-from-{}", from.version);
            kept(api, from, to, &name, &policy)
                .await
                .with_context(|| format!("{example}, written as {}, read as {}", from.version, to.version))?;
        }
        mixtures(api, from, to).await.with_context(|| format!("stored as {}", from.version))?;
    }
    Ok(())
}

/// Written in one version, read in the other, written back there as it was read, read in the first.
async fn kept(api: &Api, from: &Resource, to: &Resource, name: &str, policy: &Value) -> anyhow::Result<()> {
    let spec = policy.get("spec").context("an example without a spec")?;
    api.create(from, &from.object(name, &json!({"spec": spec}))).await?;
    let read = api.read(to, name).await?;
    same(&read, to, spec)?;
    let written = good(api.replace(to, name, &read).await?)?;
    same(&written, to, spec)?;
    let back = api.read(from, name).await?;
    same(&back, from, spec)?;
    // Writing what was read is no change.
    let generation = |object: &Value| object.pointer("/metadata/generation").cloned();
    ensure!(generation(&back) == Some(json!(1)), "it has been changed: {back}");
    Ok(())
}

fn same(object: &Value, resource: &Resource, spec: &Value) -> anyhow::Result<()> {
    let version = format!("{}/{}", resource.group, resource.version);
    ensure!(object.get("apiVersion") == Some(&json!(version)), "it is not in {version}: {object}");
    let found = object.get("spec").context("no spec")?;
    ensure!(found == spec, "written {spec}, read {found}");
    Ok(())
}

/// Changes that would leave a policy half in one shape and half in the other, in either version; and the whole change.
async fn mixtures(api: &Api, one: &Resource, other: &Resource) -> anyhow::Result<()> {
    let examples = policies::examples();
    let spec = |name: &str| {
        let found = examples.iter().find(|(example, _)| *example == name);
        found.and_then(|(_, policy)| policy.get("spec")).with_context(|| format!("no example `{name}`"))
    };
    let (tools, inline) = (spec("tools")?, spec("inline")?);
    let rules = |spec: &Value| spec.get("rules").cloned().unwrap_or_default();
    let inline_in_action = "authorization type must be 'Inline' or 'CEL' when action is set";
    let tools_without =
        "authorization type must be 'InlineTools', 'ExternalAuth' or 'CEL' when action is not set";
    for (number, (stored, patch, says)) in [
        (tools, json!({"action": "Allow"}), inline_in_action),
        (tools, json!({"rules": rules(inline)}), tools_without),
        (inline, json!({"action": null}), tools_without),
        (inline, json!({"rules": rules(tools)}), inline_in_action),
        (
            tools,
            json!({"externalAuth": {"protocol": "GRPC", "grpc": {}, "backendRef": {"name": "a", "port": 1}}}),
            "externalAuth may only be specified when action is set to 'ExternalAuth'",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("mixed-{number}-in-{}", one.version);
        let before = api.create(one, &one.object(&name, &json!({"spec": stored}))).await?;
        for version in [one, other] {
            let Err(refused) = api.merge(version, &name, &json!({"spec": patch})).await? else {
                anyhow::bail!("accepted as {}: {patch}", version.version);
            };
            ensure!(refused.code == 422, "{patch}: {}: {}", refused.code, refused.message);
            ensure!(refused.message.contains(says), "{patch}: does not say `{says}`: {}", refused.message);
        }
        ensure!(api.read(one, &name).await? == before, "{patch} was refused and changed something");
    }
    // From one shape to the other in one step.
    let name = format!("moved-in-{}", one.version);
    api.create(one, &one.object(&name, &json!({"spec": tools}))).await?;
    let mut moved = api.read(other, &name).await?;
    if let Some(fields) = moved.as_object_mut() {
        fields.insert("spec".to_owned(), inline.clone());
    }
    good(api.replace(other, &name, &moved).await?)?;
    same(&api.read(one, &name).await?, one, inline)
}
