//! The CRDs on a real API server: they install beside Gateway API's; every rule of their schemas accepts what it should
//! and refuses what it should; nothing is lost between versions.
mod api;
mod backends;
mod policies;
mod rules;
mod table;
mod versions;

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, bail, ensure};
use futures_util::{StreamExt as _, stream};
use serde::Deserialize as _;
use serde_json::Value;

use self::{
    api::{Api, Resource},
    table::{Case, Table},
};
use super::world::{World, until};
use crate::interop::report::Report;

/// The version whose CRDs are to be there.
const GATEWAY_API: &str = "v1.5.1";

/// Requests at a time.
const AT_ONCE: usize = 8;

/// For one version of one kind, which is a thousand requests.
const VERSION: Duration = Duration::from_secs(120);

pub(super) async fn run(world: &mut World, report: &mut Report) -> anyhow::Result<()> {
    report.suite("the CustomResourceDefinitions, rule by rule");
    let api = Api::new(world.client().await?);
    let installed = report.step("they install beside Gateway API's", VERSION, install(world, &api)).await;
    let Some(definitions) = installed else { return Ok(()) };
    let namespace = api.namespace().await?;
    let mut resources = Vec::new();
    for definition in &definitions {
        for version in rules::versions(definition) {
            let resource = Resource::new(&namespace, definition, version)?;
            let name = resource.to_string();
            let checked = report.step(&name, VERSION, rule_by_rule(&api, &resource, version)).await;
            if let Some(checked) = checked {
                report.note(&format!("{} rules, {} objects", checked.rules, checked.objects));
            }
            resources.push(resource);
        }
    }
    let name = "what is written in one version is whole in the other, and no update makes a mixture";
    report.step(name, VERSION, versions::check(&api, &resources)).await;
    api.delete(&format!("/api/v1/namespaces/{namespace}")).await
}

/// What was checked of a version.
#[derive(Debug, Clone, Copy)]
struct Checked {
    /// Rules of the schema, each with an accepted and a refused object.
    rules: usize,
    /// Objects that were sent.
    objects: usize,
}

/// Every row of the kind's table; an error has a line for everything that is not as it should be.
async fn rule_by_rule(api: &Api, resource: &Resource, version: &Value) -> anyhow::Result<Checked> {
    let schema = version.pointer("/schema/openAPIV3Schema").context("a version without a schema")?;
    let table = table(&resource.kind)?;
    api.create(resource, &resource.object(&resource.version, &table.for_status()?)).await?;
    let cases = table.cases(resource)?;
    let results = stream::iter(&cases).map(|case| verify(api, resource, case));
    let results: Vec<_> = results.buffer_unordered(AT_ONCE).collect().await;
    let refuted = results.into_iter().filter_map(Result::err).map(|error| format!("{error:#}"));
    // Sorted: the order in which requests come back is nobody's.
    let failures: BTreeSet<String> = table.missing(schema).into_iter().chain(refuted).collect();
    if !failures.is_empty() {
        bail!("{} failures\n{}", failures.len(), Vec::from_iter(failures).join("\n"));
    }
    Ok(Checked { rules: rules::rules(schema).len(), objects: cases.len() })
}

fn table(kind: &str) -> anyhow::Result<Table> {
    match kind {
        "XAccessPolicy" => Ok(policies::table()),
        "XBackend" => Ok(backends::table()),
        other => bail!("no table for the kind `{other}`"),
    }
}

fn read(definitions: &str) -> anyhow::Result<Vec<Value>> {
    let documents = serde_yaml_ng::Deserializer::from_str(definitions);
    let documents: Result<Vec<Value>, _> = documents.map(Value::deserialize).collect();
    documents.context("what `crds` prints is no YAML")
}

async fn verify(api: &Api, resource: &Resource, case: &Case) -> anyhow::Result<()> {
    let answer = if case.status {
        api.dry_run_status(resource, &case.object, case.strict).await?
    } else {
        api.dry_run(resource, &case.object, case.strict).await?
    };
    case.judge(answer)
}

/// Applies what `agentic-controller crds` prints, as its users do, where Gateway API's definitions are; gives it.
async fn install(world: &World, api: &Api) -> anyhow::Result<Vec<Value>> {
    for plural in ["gatewayclasses", "gateways", "httproutes", "referencegrants", "backendtlspolicies"] {
        let name = format!("{plural}.gateway.networking.k8s.io");
        let found = api.definition(&name).await?;
        let version = found.pointer("/metadata/annotations/gateway.networking.k8s.io~1bundle-version");
        ensure!(
            version.and_then(Value::as_str) == Some(GATEWAY_API),
            "`{name}` is of {version:?}, not of Gateway API {GATEWAY_API}"
        );
    }
    let text = world.printed("crds").await?;
    world.access.kubectl(&["apply", "--server-side", "-f", "-"], &text).await?;
    let definitions = read(&text)?;
    for definition in &definitions {
        established(api, definition).await?;
    }
    Ok(definitions)
}

/// Waits until the API server serves a definition; fails on any condition that speaks against it.
async fn established(api: &Api, definition: &Value) -> anyhow::Result<()> {
    let name = definition.pointer("/metadata/name").and_then(Value::as_str).context("no name")?;
    let found = until(Duration::from_secs(30), async || {
        let found = api.definition(name).await?;
        let status = condition(&found, "Established").map(|(status, _)| status.to_owned());
        ensure!(status.as_deref() == Some("True"), "`{name}`: Established is {status:?}");
        Ok(found)
    })
    .await?;
    for (kind, expected) in
        [("NamesAccepted", "True"), ("NonStructuralSchema", "False"), ("Terminating", "False")]
    {
        // One that speaks against nothing may be left out.
        if let Some((status, message)) = condition(&found, kind) {
            ensure!(status == expected, "`{name}`: {kind} is {status}: {message}");
        }
    }
    let (sent, got) = (rules::versions(definition), rules::versions(&found));
    for (sent, got) in sent.iter().zip(&got) {
        let schema = |version: &Value| version.pointer("/schema").cloned();
        ensure!(
            schema(sent) == schema(got),
            "`{name}`: the API server keeps another schema than it was sent"
        );
    }
    ensure!(sent.len() == got.len(), "`{name}`: the API server keeps other versions than it was sent");
    Ok(())
}

fn condition<'a>(definition: &'a Value, kind: &str) -> Option<(&'a str, &'a str)> {
    let conditions = definition.pointer("/status/conditions")?.as_array()?;
    let text = |condition: &'a Value, name: &str| condition.get(name).and_then(Value::as_str);
    let found = conditions.iter().find(|condition| text(condition, "type") == Some(kind))?;
    Some((text(found, "status")?, text(found, "message").unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::root;

    const FILES: [&str; 4] = [
        "xaccesspolicies.agentic.networking.x-k8s.io",
        "xaccesspolicies.agentic.prototype.x-k8s.io",
        "xbackends.agentic.networking.x-k8s.io",
        "xbackends.agentic.prototype.x-k8s.io",
    ];

    fn definitions() -> Vec<Value> {
        let folder = root().join("policy-model/tests/golden");
        let texts = FILES.map(|name| std::fs::read_to_string(folder.join(format!("{name}.yaml"))).unwrap());
        texts.iter().flat_map(|text| read(text).unwrap()).collect()
    }

    /// Who adds a rule adds its rows: without a cluster too.
    #[test]
    fn every_rule_has_its_rows() {
        let mut seen = 0;
        for definition in definitions() {
            let table = table(definition["spec"]["names"]["kind"].as_str().unwrap()).unwrap();
            for version in rules::versions(&definition) {
                let schema = &version["schema"]["openAPIV3Schema"];
                assert_eq!(table.missing(schema), Vec::<String>::new());
                seen += 1;
            }
        }
        assert_eq!(seen, 5);
    }

    #[test]
    fn a_rule_without_rows_is_told_and_so_is_a_row_without_its_rule() {
        let definition = definitions().pop().unwrap();
        let mut schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
        let table = backends::table();
        let mcp = &mut schema["properties"]["spec"]["properties"]["mcp"];
        mcp["properties"]["path"].as_object_mut().unwrap().remove("pattern");
        mcp["properties"]["port"]["multipleOf"] = 2.into();
        mcp["properties"]["new"] = serde_json::json!({"type": "string"});
        assert_eq!(
            table.missing(&schema),
            [
                "no row for `multipleOf` at `spec.mcp.port`",
                "a row for `pattern` at `spec.mcp.path`, where there is no such rule",
                "no example has `spec.mcp.new`",
            ]
        );
    }
}
