//! Envoy alone: a policy outside the subset says so and closes its target, while others change; then the engine comes to its
//! side, and our own gateway in its place, while clients call.
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    DataPlane,
    probe::{GATEWAY, PORT, Probe, Tool},
    switch::never_sent,
    world::{QUICKSTART, World, until},
};
use crate::interop::{http::Target, report::Report, session::Session};

const MINUTE: Duration = Duration::from_secs(60);
const AGENTIC: &str = "agentic.networking.x-k8s.io";
/// The backend, its route and its policy.
const OUTSIDE: &str = "outside";
const CLIENTS: usize = 4;

pub(super) async fn run(world: &mut World, report: &mut Report) -> anyhow::Result<()> {
    report.suite("Envoy alone");
    let up = async {
        world.install().await?;
        world.give_parameters().await?;
        world.change_data_plane(DataPlane::Filters).await?;
        Probe::up(world).await
    };
    let Some(probe) = report.step("a Gateway to ask", 3 * MINUTE, up).await else { return Ok(()) };
    let world = &*world;
    report
        .step("its Pods are of Envoy and nothing else", 3 * MINUTE, async {
            world.served_by(QUICKSTART, GATEWAY, Some(DataPlane::Filters), 2 * MINUTE).await
        })
        .await;
    let Some(probe) = report.step("it has a Pod", MINUTE, probe.again(world)).await else { return Ok(()) };
    report
        .step("a policy outside the subset closes its target", MINUTE, async {
            world.apply(&outside().to_string()).await?;
            until(MINUTE / 2, async || closed(&probe.target).await).await
        })
        .await;
    let said = until(MINUTE / 2, async || accepted(world).await.and_then(unsupported));
    if let Some(message) = report.step("its status says why, and behind which Gateway", MINUTE, said).await {
        report.note(&message);
    }
    report
        .step("a policy inside it changes, and the Gateway is programmed", MINUTE, async {
            let mut session = Session::open(&probe.target).await?;
            for tool in [Tool::Sum, Tool::Echo] {
                probe.change(&mut session, tool).await?;
            }
            closed(&probe.target).await?;
            world.programmed(QUICKSTART, GATEWAY, MINUTE / 2).await
        })
        .await;
    let address = world.programmed(QUICKSTART, GATEWAY, MINUTE).await?;
    let service = Target::plain((address.parse::<std::net::IpAddr>()?, PORT).into());
    let load = Load::start(&service);
    for (to, name) in [
        (DataPlane::Envoy, "the engine comes to its side: the policy holds as it is written"),
        (DataPlane::Native, "our own gateway in its place: it holds there too"),
    ] {
        report
            .step(name, 4 * MINUTE, async {
                changed(world, to).await?;
                // Envoys that are alone are told of filters until the last of them has gone.
                until(2 * MINUTE, async || enforced(&service).await).await?;
                until(MINUTE / 2, async || accepted(world).await.and_then(is_accepted)).await
            })
            .await;
    }
    report
        .step("Envoy alone again: its target is closed again", 4 * MINUTE, async {
            changed(world, DataPlane::Filters).await?;
            until(MINUTE, async || closed(&service).await).await?;
            until(MINUTE / 2, async || accepted(world).await.and_then(unsupported)).await
        })
        .await;
    let name = format!(
        "no request of {CLIENTS} clients failed, but for sessions that another data plane had sealed"
    );
    if let Some((served, lost)) = report.step(&name, MINUTE, load.end()).await {
        report.note(&format!("{served} were served; {lost} sessions were begun anew"));
    }
    report
        .step("all of it is deleted", 4 * MINUTE, async {
            let kinds = format!("xaccesspolicies.{AGENTIC},httproutes,xbackends.{AGENTIC}");
            world.kubectl(&format!("delete {kinds} {OUTSIDE} -n {QUICKSTART}")).await
        })
        .await;
    Ok(())
}

/// Changes the class, and waits until the new Pods serve and the old ones are gone.
async fn changed(world: &World, to: DataPlane) -> anyhow::Result<()> {
    world.change_data_plane(to).await?;
    world.served_by(QUICKSTART, GATEWAY, Some(to), 3 * MINUTE).await?;
    world.programmed(QUICKSTART, GATEWAY, MINUTE).await?;
    Ok(())
}

/// The backend, behind a policy that looks at arguments.
fn outside() -> Value {
    let gateway = "gateway.networking.k8s.io";
    let metadata = json!({"name": OUTSIDE, "namespace": QUICKSTART});
    let backend = json!({"group": AGENTIC, "kind": "XBackend", "name": OUTSIDE});
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": format!("{AGENTIC}/v0alpha0"), "kind": "XBackend", "metadata": metadata,
            "spec": {"mcp": {"serviceName": "mcp-everything-svc", "port": 3001}},
        },
        {
            "apiVersion": format!("{AGENTIC}/v1alpha1"), "kind": "XAccessPolicy", "metadata": metadata,
            "spec": {
                "targetRefs": [backend],
                "action": "Allow",
                "rules": [
                    {"name": "base", "authorization": {"type": "Inline", "mcp": {
                        "mcpBaseProtocolMethodsOption": "MATCH_BASE_PROTOCOL_METHODS",
                    }}},
                    {"name": "small", "authorization": {"type": "CEL", "cel": {
                        "expression": "request.mcp.tool_name == 'get-sum' && request.mcp.arguments.a < 100",
                    }}},
                ],
            },
        },
        {
            "apiVersion": format!("{gateway}/v1"), "kind": "HTTPRoute", "metadata": metadata,
            "spec": {"parentRefs": [{"name": GATEWAY}], "rules": [{
                "matches": [{"path": {"type": "Exact", "value": path()}}],
                "filters": [{"type": "URLRewrite", "urlRewrite": {
                    "path": {"type": "ReplaceFullPath", "replaceFullPath": "/mcp"},
                }}],
                "backendRefs": [backend],
            }]},
        },
    ]})
}

fn path() -> String {
    format!("/{OUTSIDE}")
}

/// Not even a session can be begun.
async fn closed(target: &Target) -> anyhow::Result<()> {
    match Session::open_at(target, &path()).await {
        Ok(_) => bail!("`{}` is open", path()),
        Err(error) => {
            let said = format!("{error:#}");
            ensure!(said.contains("Access to this tool is forbidden."), "{said}");
            Ok(())
        }
    }
}

/// The policy does what it says.
async fn enforced(target: &Target) -> anyhow::Result<()> {
    let mut session = Session::open_at(target, &path()).await?;
    let small = session.call("get-sum", &json!({"a": 99, "b": 1})).await?;
    ensure!(small.is_result(), "{small:?}");
    let large = session.call("get-sum", &json!({"a": 100, "b": 1})).await?;
    ensure!(large.is_forbidden(), "{large:?}");
    Ok(())
}

/// Status, reason and message of the policy's Accepted.
async fn accepted(world: &World) -> anyhow::Result<(String, String, String)> {
    let policy = world.object(&format!("xaccesspolicies.{AGENTIC} {OUTSIDE} -n {QUICKSTART}")).await?;
    let policy = policy.context("there is no such policy")?;
    let condition = World::condition(policy.pointer("/status/ancestors/0/conditions"), "Accepted");
    let (status, reason, message) = condition.context("it has no status")?;
    Ok((status.to_owned(), reason.to_owned(), message.to_owned()))
}

fn unsupported((status, reason, message): (String, String, String)) -> anyhow::Result<String> {
    ensure!(
        (status.as_str(), reason.as_str()) == ("False", "UnsupportedValue"),
        "{status}/{reason}: {message}"
    );
    let behind = format!("behind Gateway `{QUICKSTART}/{GATEWAY}`: ");
    ensure!(message.starts_with(&behind) && message.contains("rule `small`"), "{message}");
    Ok(message)
}

fn is_accepted((status, reason, message): (String, String, String)) -> anyhow::Result<()> {
    ensure!(status == "True", "{status}/{reason}: {message}");
    Ok(())
}

/// Clients that call until they are told to end.
#[derive(Debug)]
struct Load {
    counts: Arc<Counts>,
    clients: JoinSet<anyhow::Result<()>>,
}

#[derive(Debug, Default)]
struct Counts {
    served: AtomicU64,
    /// Sessions that nobody knew any more.
    lost: AtomicU64,
    end: AtomicBool,
}

impl Load {
    fn start(target: &Target) -> Self {
        let mut load = Self { counts: Arc::default(), clients: JoinSet::new() };
        for _ in 0..CLIENTS {
            let (target, counts) = (target.clone(), Arc::clone(&load.counts));
            load.clients.spawn(async move { client(&target, &counts).await });
        }
        load
    }

    /// How many were served, and how many sessions were lost; an error if a request was answered otherwise.
    async fn end(mut self) -> anyhow::Result<(u64, u64)> {
        self.counts.end.store(true, Ordering::Relaxed);
        let served = || self.counts.served.load(Ordering::Relaxed);
        while let Some(client) = self.clients.join_next().await {
            client?.with_context(|| format!("after {} that were served", served()))?;
        }
        Ok((served(), self.counts.lost.load(Ordering::Relaxed)))
    }
}

async fn client(target: &Target, counts: &Counts) -> anyhow::Result<()> {
    let mut session = Session::open(target).await?;
    while !counts.end.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        match tokio::time::timeout(MINUTE / 6, session.request("tools/list", &json!({}))).await? {
            Ok(answer) if answer.is_result() => {
                counts.served.fetch_add(1, Ordering::Relaxed);
            }
            // An id that one data plane sealed is another's server's to know, and the other way round.
            Ok(answer) if matches!(answer.status, 400 | 404) => {
                counts.lost.fetch_add(1, Ordering::Relaxed);
                session = Session::open(target).await?;
            }
            Ok(answer) => bail!("{answer:?}"),
            // A connection that was closed between two requests is no failure: any client opens another.
            Err(error) if never_sent(&error) => {
                let id = session.id()?.to_owned();
                session = Session::resume(target, &id).await?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
