//! Many policies, targets and routes on one provisioned Gateway: memory, time to the first push, time per change.
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use kube::{
    Client,
    api::{Api, ApiResource, DynamicObject, PostParams},
};
use serde_json::{Value, json};

use super::{
    latency,
    probe::{Probe, Replica},
    world::{NOT_OURS, QUICKSTART, SYSTEM, World, until},
};
use crate::interop::report::Report;

const MINUTE: Duration = Duration::from_secs(60);
const POLICIES_PER_TARGET: usize = 5;
const TARGETS_PER_ROUTE: usize = 2;
/// Objects that are created at a time.
const AT_ONCE: usize = 16;

pub(super) async fn run(world: &mut World, report: &mut Report, long: bool) -> anyhow::Result<()> {
    let routes = if long { 1000 } else { 50 };
    let (targets, policies) = (routes * TARGETS_PER_ROUTE, routes * TARGETS_PER_ROUTE * POLICIES_PER_TARGET);
    report.suite(&format!("{policies} policies on {targets} targets, {routes} routes, one Gateway"));
    let Some(probe) = report.step("a Gateway to ask", 3 * MINUTE, Probe::up(world)).await else {
        return Ok(());
    };
    let world = &*world;
    let small = memory(world).await;
    report.step("all objects are created", 8 * MINUTE, create(world, routes)).await;
    report.step("every policy has its status", 8 * MINUTE, accepted(world, policies)).await;
    report.note(&costs(world).await?);
    let full = memory(world).await;
    match (small, full) {
        (Ok(small), Ok(full)) => report.note(&format!("resident before: {small}; now: {full}")),
        _ => report.not_run("how much memory controllers and proxy have", NOT_OURS),
    }

    let first =
        report.step("a proxy that starts gets its configuration", 2 * MINUTE, first_push(world)).await;
    if let Some(took) = first {
        report
            .note(&format!("its Pod is ready {:.1} s after the one before was deleted", took.as_secs_f64()));
    }
    let restart = "a controller that starts reads it all";
    if world.is_own() {
        if let Some(took) = report.step(restart, 3 * MINUTE, restarted(world)).await {
            report.note(&format!("ready {:.1} s after it was killed", took.as_secs_f64()));
        }
    } else {
        report.not_run(restart, NOT_OURS);
    }
    // The proxy's Pod is another one now.
    let probe_again = probe.again(world).await?;
    let measured = report
        .step("20 changes of a policy are enforced", 3 * MINUTE, latency::changes(&probe_again, 20))
        .await;
    if let Some(times) = measured {
        report.note(&latency::summary(&times));
    }
    if let Ok(end) = memory(world).await {
        report.note(&format!("resident at the end: {end}"));
    }
    Ok(())
}

/// What the controllers did so far.
async fn costs(world: &World) -> anyhow::Result<String> {
    let leader = Replica::leader(world).await?;
    let mut all = Vec::new();
    for replica in Replica::all(world).await? {
        let role = if replica == leader { "the leader" } else { "the other" };
        let mut said = Vec::new();
        for name in ["events", "reconciliation_seconds_count", "reconciliation_seconds_sum", "status_writes"]
        {
            let values = replica.read(name).await?;
            said.extend(values.into_iter().map(|(labels, value)| format!("{name}{labels} {value}")));
        }
        all.push(format!("{role}: {}", said.join(", ")));
    }
    Ok(all.join("; "))
}

fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: format!("{group}/{version}"),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

const AGENTIC: &str = "agentic.networking.x-k8s.io";

async fn create(world: &World, routes: usize) -> anyhow::Result<()> {
    let client = world.client().await?;
    let targets = routes * TARGETS_PER_ROUTE;
    let backends = (0..targets).map(|target| {
        json!({
            "apiVersion": format!("{AGENTIC}/v0alpha0"), "kind": "XBackend",
            "metadata": {"name": format!("target-{target}"), "namespace": QUICKSTART},
            "spec": {"mcp": {"serviceName": "mcp-everything-svc", "port": 3001}},
        })
    });
    fill(&client, &resource(AGENTIC, "v0alpha0", "XBackend", "xbackends"), backends).await?;
    let routes = (0..routes).map(|route| {
        let rules: Vec<Value> = (0..TARGETS_PER_ROUTE)
            .map(|index| {
                let target = route * TARGETS_PER_ROUTE + index;
                json!({
                    "matches": [{"path": {"type": "Exact", "value": format!("/targets/{target}")}}],
                    "backendRefs": [{"group": AGENTIC, "kind": "XBackend", "name": format!("target-{target}")}],
                })
            })
            .collect();
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": format!("route-{route}"), "namespace": QUICKSTART},
            "spec": {"parentRefs": [{"name": "probe"}], "rules": rules},
        })
    });
    fill(&client, &resource("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes"), routes).await?;
    let policies = (0..targets * POLICIES_PER_TARGET).map(|policy| {
        json!({
            "apiVersion": format!("{AGENTIC}/v1alpha1"), "kind": "XAccessPolicy",
            "metadata": {"name": format!("policy-{policy}"), "namespace": QUICKSTART},
            "spec": {
                "targetRefs": [{"group": AGENTIC, "kind": "XBackend", "name": format!("target-{}", policy / POLICIES_PER_TARGET)}],
                "action": "Allow",
                "rules": [{
                    "name": "tools",
                    "source": {"type": "ServiceAccount", "serviceAccount": {"name": format!("agent-{policy}")}},
                    "authorization": {"type": "Inline", "mcp": {"methods": [
                        {"name": "tools/call", "params": ["echo", format!("tool-{policy}")]},
                    ]}},
                }],
            },
        })
    });
    fill(&client, &resource(AGENTIC, "v1alpha1", "XAccessPolicy", "xaccesspolicies"), policies).await
}

async fn fill(
    client: &Client,
    kind: &ApiResource,
    objects: impl Iterator<Item = Value>,
) -> anyhow::Result<()> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), QUICKSTART, kind);
    stream::iter(objects)
        .map(|object| {
            let api = api.clone();
            async move {
                let object: DynamicObject = serde_json::from_value(object)?;
                api.create(&PostParams::default(), &object).await?;
                anyhow::Ok(())
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await
        .with_context(|| format!("{} cannot be created", kind.kind))
}

async fn accepted(world: &World, policies: usize) -> anyhow::Result<()> {
    let client = world.client().await?;
    let kind = resource(AGENTIC, "v1alpha1", "XAccessPolicy", "xaccesspolicies");
    let api: Api<DynamicObject> = Api::namespaced_with(client, QUICKSTART, &kind);
    until(8 * MINUTE, async || {
        let all = api.list(&kube::api::ListParams::default()).await?;
        let accepted = all
            .iter()
            .filter(|policy| {
                let conditions = policy.data.pointer("/status/ancestors/0/conditions");
                World::condition(conditions, "Accepted").is_some_and(|(status, ..)| status == "True")
            })
            .count();
        // The probe's own is one more.
        ensure!(accepted > policies, "{accepted} of {policies} are accepted");
        Ok(())
    })
    .await
}

/// From the deletion of the proxy's Pod until another one is ready, which it is only with a configuration in force.
async fn first_push(world: &World) -> anyhow::Result<Duration> {
    let selector = "gateway.networking.k8s.io/gateway-name=probe";
    let before = world.ready_pods(QUICKSTART, selector).await?;
    let (name, _) = before.first().context("no proxy is ready")?;
    world
        .kubectl(&format!("delete pod {name} -n {QUICKSTART} --grace-period=0 --force --wait=false"))
        .await?;
    let deleted = Instant::now();
    until(2 * MINUTE, async || {
        let now = world.ready_pods(QUICKSTART, selector).await?;
        ensure!(now.iter().any(|pod| !before.contains(pod)), "no other Pod is ready: {now:?}");
        Ok(())
    })
    .await?;
    Ok(deleted.elapsed())
}

async fn restarted(world: &World) -> anyhow::Result<Duration> {
    let leader = until(MINUTE, async || Replica::leader(world).await).await?;
    let id = world.pid(SYSTEM, &leader.pod, "controller")?;
    let done = tokio::process::Command::new("kill").args(["-KILL", &id.to_string()]).status().await?;
    ensure!(done.success(), "{done}");
    let killed = Instant::now();
    until(2 * MINUTE, async || {
        let now = world.pid(SYSTEM, &leader.pod, "controller")?;
        ensure!(now != id, "still the same process");
        let ready = Replica::all(world).await?;
        ensure!(ready.iter().any(|replica| replica.pod == leader.pod), "not ready");
        Ok(())
    })
    .await?;
    Ok(killed.elapsed())
}

/// Resident memory of the controllers and of the proxy.
async fn memory(world: &World) -> anyhow::Result<String> {
    let mut all = Vec::new();
    for (namespace, selector, container) in [
        (SYSTEM, "app.kubernetes.io/name=agentic-controller", "controller"),
        (QUICKSTART, "gateway.networking.k8s.io/gateway-name=probe", "agentic-gateway"),
    ] {
        for (pod, _) in world.ready_pods(namespace, selector).await? {
            let id = world.pid(namespace, &pod, container)?;
            let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
            let kib: u64 = status
                .lines()
                .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.trim().parse().ok())
                .context("no VmRSS")?;
            all.push(format!("{container} {} MiB", kib / 1024));
        }
    }
    Ok(all.join(", "))
}
