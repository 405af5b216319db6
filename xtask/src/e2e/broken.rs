//! A hundred good policies, and among them one with an expression that does not compile and one with a regular expression
//! that is none: the good ones keep changing, the targets of the others are closed, and their statuses say why.
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use super::{
    probe::{GATEWAY, Probe},
    world::{QUICKSTART, World, until},
};
use crate::interop::{http::Target, report::Report, session::Session};

const MINUTE: Duration = Duration::from_secs(60);
const AGENTIC: &str = "agentic.networking.x-k8s.io";
/// Targets with a good policy each.
const GOOD: usize = 99;
/// As many as an HTTPRoute may have.
const RULES: usize = 16;
/// Of the good ones, those that are looked at.
const LOOKED_AT: [usize; 4] = [0, 33, 66, 98];

pub(super) async fn run(world: &mut World, report: &mut Report) -> anyhow::Result<()> {
    report.suite("a bad expression and a bad regular expression among a hundred good policies");
    let Some(probe) = report.step("a Gateway to ask", 3 * MINUTE, Probe::up(world)).await else {
        return Ok(());
    };
    let (world, target) = (&*world, &probe.target);
    report
        .step(&format!("{GOOD} targets with a good policy"), 2 * MINUTE, async {
            world.apply(&good("echo").to_string()).await?;
            enforced(target, "echo", "get-sum").await
        })
        .await;
    for bad in [CEL, REGEX] {
        report
            .step(&format!("{}: its target was open", bad.name), MINUTE, async {
                world.apply(&list(with_route(bad.name, vec![backend(bad.name)])).to_string()).await?;
                until(MINUTE / 2, async || {
                    let mut session = Session::open_at(target, &path(bad.name)).await?;
                    session.call("echo", &json!({"message": "hello"})).await?.result().map(drop)
                })
                .await
            })
            .await;
        report
            .step(&format!("{}: its target is closed", bad.name), MINUTE, async {
                world.apply(&policy(bad.name, &(bad.rule)()).to_string()).await?;
                until(MINUTE / 2, async || closed(target, &path(bad.name)).await).await
            })
            .await;
        let name = format!("{}: its status says why", bad.name);
        let said = until(MINUTE / 2, async || status(world, bad).await);
        if let Some(message) = report.step(&name, MINUTE, said).await {
            report.note(&message);
        }
    }
    for (to, from) in [("get-sum", "echo"), ("echo", "get-sum")] {
        report
            .step(&format!("the good ones allow {to} in place of {from}"), 2 * MINUTE, async {
                world.apply(&good(to).to_string()).await?;
                enforced(target, to, from).await
            })
            .await;
    }
    report
        .step("the bad ones' targets are still closed, and the Gateway is programmed", MINUTE, async {
            closed(target, &path(CEL.name)).await?;
            closed(target, &path(REGEX.name)).await?;
            world.programmed(QUICKSTART, GATEWAY, MINUTE / 2).await
        })
        .await;
    report
        .step("all of it is deleted", MINUTE, async {
            let kinds = format!("xaccesspolicies.{AGENTIC},httproutes,xbackends.{AGENTIC}");
            // Waiting for each in turn takes kubectl longer than all of the rest.
            world.kubectl(&format!("delete {kinds} -n {QUICKSTART} -l suite=broken --wait=false")).await?;
            until(MINUTE / 2, async || {
                let left =
                    world.kubectl(&format!("get {kinds} -n {QUICKSTART} -l suite=broken -o name")).await?;
                ensure!(left.trim().is_empty(), "left: {left}");
                Ok(())
            })
            .await
        })
        .await;
    Ok(())
}

/// A policy that cannot be enforced as written.
#[derive(Debug, Clone, Copy)]
struct Bad {
    name: &'static str,
    rule: fn() -> Value,
    /// What the status names.
    named: &'static str,
}

const CEL: Bad = Bad {
    name: "bad-expression",
    rule: || {
        json!({"name": "tools", "authorization": {
            "type": "CEL", "cel": {"expression": "request.mcp.tool_name.matches('(')"},
        }})
    },
    named: "(",
};

const REGEX: Bad = Bad {
    name: "bad-regex",
    rule: || {
        json!({"name": "tools", "authorization": {
            "type": "Inline", "paths": [{"type": "RegularExpression", "value": "/x(["}],
        }})
    },
    named: "/x([",
};

async fn status(world: &World, bad: Bad) -> anyhow::Result<String> {
    let policy = world.object(&format!("xaccesspolicies.{AGENTIC} {} -n {QUICKSTART}", bad.name)).await?;
    let policy = policy.context("there is no such policy")?;
    let conditions = policy.pointer("/status/ancestors/0/conditions");
    let Some(("False", reason, message)) = World::condition(conditions, "Accepted") else {
        bail!("{conditions:?}");
    };
    ensure!(message.contains(bad.named), "{reason}: {message}");
    Ok(format!("{reason}: {message}"))
}

/// The good policies allow the one tool and not the other.
async fn enforced(target: &Target, allowed: &str, denied: &str) -> anyhow::Result<()> {
    for number in LOOKED_AT {
        until(MINUTE / 2, async || {
            let mut session = Session::open_at(target, &path(&format!("good-{number}"))).await?;
            for (tool, forbidden) in [(allowed, false), (denied, true)] {
                let arguments = match tool {
                    "echo" => json!({"message": "hello"}),
                    _ => json!({"a": 2, "b": 3}),
                };
                let answer = session.call(tool, &arguments).await?;
                ensure!(
                    answer.is_forbidden() == forbidden && (forbidden || answer.is_result()),
                    "{answer:?}"
                );
            }
            Ok(())
        })
        .await
        .with_context(|| format!("good-{number}"))?;
    }
    Ok(())
}

/// Not even a session can be begun.
async fn closed(target: &Target, path: &str) -> anyhow::Result<()> {
    match Session::open_at(target, path).await {
        Ok(_) => bail!("`{path}` is open"),
        Err(error) => {
            let said = format!("{error:#}");
            ensure!(said.contains("Access to this tool is forbidden."), "{said}");
            Ok(())
        }
    }
}

fn path(name: &str) -> String {
    format!("/targets/{name}")
}

fn metadata(name: &str) -> Value {
    json!({"name": name, "namespace": QUICKSTART, "labels": {"suite": "broken"}})
}

fn backend(name: &str) -> Value {
    json!({
        "apiVersion": format!("{AGENTIC}/v0alpha0"), "kind": "XBackend", "metadata": metadata(name),
        "spec": {"mcp": {"serviceName": "mcp-everything-svc", "port": 3001}},
    })
}

fn policy(name: &str, rule: &Value) -> Value {
    json!({
        "apiVersion": format!("{AGENTIC}/v1alpha1"), "kind": "XAccessPolicy", "metadata": metadata(name),
        "spec": {
            "targetRefs": [{"group": AGENTIC, "kind": "XBackend", "name": name}],
            "action": "Allow",
            "rules": [rule],
        },
    })
}

fn rule(name: &str) -> Value {
    json!({
        "matches": [{"path": {"type": "Exact", "value": path(name)}}],
        "filters": [{"type": "URLRewrite", "urlRewrite": {
            "path": {"type": "ReplaceFullPath", "replaceFullPath": "/mcp"},
        }}],
        "backendRefs": [{"group": AGENTIC, "kind": "XBackend", "name": name}],
    })
}

fn route(name: &str, rules: &[Value]) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": metadata(name),
        "spec": {"parentRefs": [{"name": GATEWAY}], "rules": rules},
    })
}

fn with_route(name: &str, mut items: Vec<Value>) -> Vec<Value> {
    items.push(route(name, &[rule(name)]));
    items
}

fn list(items: Vec<Value>) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

/// All good policies, each allowing that tool, with their targets and routes.
fn good(tool: &str) -> Value {
    let names: Vec<String> = (0..GOOD).map(|number| format!("good-{number}")).collect();
    let allow = json!({
        "name": "tools",
        "authorization": {"type": "Inline", "mcp": {
            "mcpBaseProtocolMethodsOption": "MATCH_BASE_PROTOCOL_METHODS",
            "methods": [{"name": "tools/call", "params": [tool]}],
        }},
    });
    let mut items: Vec<Value> = names.iter().flat_map(|name| [backend(name), policy(name, &allow)]).collect();
    for (number, names) in names.chunks(RULES).enumerate() {
        let rules: Vec<Value> = names.iter().map(|name| rule(name)).collect();
        items.push(route(&format!("good-{number}"), &rules));
    }
    list(items)
}
