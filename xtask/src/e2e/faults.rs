//! Controller, API server, watches and leader lost: proxies keep serving, statuses converge, nothing is pushed without need.
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde_json::{Value, json};

use super::{
    probe::{POLICY, Probe, REPLICAS, Replica, Tool, pushes},
    world::{NOT_OURS, QUICKSTART, SYSTEM, World, until},
};
use crate::interop::{report::Report, session::Session};

const MINUTE: Duration = Duration::from_secs(60);
/// From the leader's last renewal until another claims the Lease: its time of 15 s, 2 s until a replica whose watch is late
/// has seen that renewal, and 3 s for one answer of the API server that does not come.
const TAKEOVER: Duration = Duration::from_secs(20);
const LEADER: &str = "agentic-controller-leader";
const CONTROLLER: &str = "agentic-controller";

pub(super) async fn run(world: &mut World, report: &mut Report) -> anyhow::Result<()> {
    report.suite("what is lost and comes back");
    let Some(probe) = report.step("a Gateway to ask", 3 * MINUTE, Probe::up(world)).await else {
        return Ok(());
    };
    let traffic = probe.traffic();
    report.step("two replicas: one leads, both serve", MINUTE, two_replicas(world)).await;
    let (all, api, watches) = (
        "every controller is killed and comes back",
        "the API server is killed and comes back",
        "watches expire while they are stopped (410)",
    );
    if world.is_own() {
        report.step(all, 2 * MINUTE, killed(world, &probe)).await;
        report.step(api, 2 * MINUTE, api_server(world, &probe)).await;
        report.step(watches, 2 * MINUTE, expired(world, &probe)).await;
    } else {
        for name in [all, api, watches] {
            report.not_run(name, NOT_OURS);
        }
    }
    let took =
        report.step("the leader is lost: the other takes over", 3 * MINUTE, leader_lost(world, &probe)).await;
    if let Some(Takeover { renewed, lost }) = took {
        let (renewed, lost) = (renewed.as_secs_f64(), lost.as_secs_f64());
        report.note(&format!("{renewed:.1} s after its last renewal, {lost:.1} s after it was lost"));
    }
    let served =
        report.step("all the while, every request was served", MINUTE, async { traffic.end() }).await;
    if let Some(served) = served {
        report.note(&format!("{served} requests"));
    }
    Ok(())
}

async fn two_replicas(world: &World) -> anyhow::Result<()> {
    until(MINUTE, async || {
        let replicas = Replica::all(world).await?;
        ensure!(replicas.len() == REPLICAS, "{replicas:?}");
        let leader = Replica::leader(world).await?;
        for replica in replicas {
            let written = replica.metric("status_writes").await?;
            ensure!((written > 0) == (replica == leader), "{} wrote {written} statuses", replica.pod);
        }
        Ok(())
    })
    .await
}

/// Kills a container's program; the kubelet starts it again.
async fn kill(world: &World, pod: &str, signal: &str) -> anyhow::Result<()> {
    let id = world.pid(SYSTEM, pod, "controller")?;
    let done = tokio::process::Command::new("kill").args([signal, &id.to_string()]).status().await?;
    ensure!(done.success(), "kill {signal} {id}: {done}");
    Ok(())
}

async fn connected(world: &World) -> anyhow::Result<()> {
    let mut streams = 0;
    for replica in Replica::all(world).await? {
        streams += replica.metric("xds_streams").await?;
    }
    ensure!(streams > 0, "no proxy is connected");
    Ok(())
}

/// New processes count from zero: whatever they sent, they sent without need.
async fn killed(world: &World, probe: &Probe) -> anyhow::Result<()> {
    let before = Replica::all(world).await?;
    for replica in &before {
        kill(world, &replica.pod, "-KILL").await?;
    }
    world.rolled_out(SYSTEM, CONTROLLER, MINUTE).await?;
    until(MINUTE, async || connected(world).await).await?;
    let sent = pushes(world).await?;
    ensure!(sent == 0, "{sent} responses to proxies that had everything");
    enforced(world, probe).await?;
    ensure!(pushes(world).await? > 0, "a change was not pushed");
    converged(world).await
}

async fn api_server(world: &mut World, probe: &Probe) -> anyhow::Result<()> {
    let before = pushes(world).await?;
    world.own_mut()?.control_plane.stop_api_server().await?;
    let mut session = Session::open(&probe.target).await?;
    ensure!(probe.allows(&mut session, Tool::Echo).await?, "the policy changed by itself");
    world.own_mut()?.control_plane.start_api_server().await?;
    world.rolled_out(SYSTEM, CONTROLLER, MINUTE).await?;
    converged(world).await?;
    let after = pushes(world).await?;
    ensure!(after == before, "{before} responses to proxies became {after} without a change");
    enforced(world, probe).await
}

/// The controllers stand still while objects change, and etcd forgets the history in which they stood.
async fn expired(world: &mut World, probe: &Probe) -> anyhow::Result<()> {
    let replicas = Replica::all(world).await?;
    let before = pushes(world).await?;
    for replica in &replicas {
        kill(world, &replica.pod, "-STOP").await?;
    }
    let changed = async {
        probe.allow(Tool::Sum).await?;
        let control_plane = &mut world.own_mut()?.control_plane;
        control_plane.compact_etcd().await?;
        // What the API server remembers goes with it.
        control_plane.stop_api_server().await?;
        control_plane.start_api_server().await
    }
    .await;
    for replica in &replicas {
        kill(world, &replica.pod, "-CONT").await?;
    }
    changed?;
    let mut session = Session::open(&probe.target).await?;
    until(MINUTE, async || {
        ensure!(probe.allows(&mut session, Tool::Sum).await?, "the change that was missed does not show");
        Ok(())
    })
    .await?;
    let after = pushes(world).await?;
    ensure!(after == before + 1, "{before} responses to proxies became {after} by one change at one proxy");
    enforced(world, probe).await?;
    converged(world).await
}

/// How long nobody led.
#[derive(Debug)]
struct Takeover {
    /// From the last renewal until another claims the Lease, by the times in it, which are of one machine's clock.
    renewed: Duration,
    /// From the loss until the other says that it leads, kubectl's own time included.
    lost: Duration,
}

async fn leader_lost(world: &World, probe: &Probe) -> anyhow::Result<Takeover> {
    let leases: Api<Lease> = Api::namespaced(world.client().await?, SYSTEM);
    let before = until(MINUTE, async || Replica::leader(world).await).await?;
    if world.is_own() {
        // It stands still, or it might be asked to end before it is killed, and let go.
        kill(world, &before.pod, "-STOP").await?;
    }
    world
        .kubectl(&format!("delete pod {} -n {SYSTEM} --grace-period=0 --force --wait=false", before.pod))
        .await?;
    let lost = Instant::now();
    let mut renewed = None;
    let acquired = until(MINUTE, async || {
        let lease = leases.get(LEADER).await?.spec.unwrap_or_default();
        if lease.holder_identity.as_ref() == Some(&before.pod) {
            renewed = lease.renew_time;
            bail!("the Lease is still that of {}", before.pod);
        }
        lease.acquire_time.context("nobody has it")
    })
    .await?;
    let renewed = match renewed {
        Some(renewed) => {
            Duration::try_from(acquired.0.duration_since(renewed.0)).context("a clock went back")?
        }
        // Another's kubelet asks it to end first.
        None if !world.is_own() => Duration::ZERO,
        None => bail!("the leader was not lost but let go"),
    };
    ensure!(renewed <= TAKEOVER, "nobody led for {} s after the last renewal", renewed.as_secs_f64());
    until(MINUTE, async || {
        let now = Replica::leader(world).await?;
        ensure!(now.pod != before.pod, "{} still leads", now.pod);
        Ok(())
    })
    .await?;
    let lost = lost.elapsed();
    world.rolled_out(SYSTEM, CONTROLLER, MINUTE).await?;
    enforced(world, probe).await?;
    converged(world).await?;
    Ok(Takeover { renewed, lost })
}

/// A change is enforced, and back.
async fn enforced(world: &World, probe: &Probe) -> anyhow::Result<()> {
    let mut session = Session::open(&probe.target).await?;
    probe.change(&mut session, Tool::Sum).await?;
    probe.change(&mut session, Tool::Echo).await?;
    // Only replicas that are ready are asked, and one may not be for a moment.
    until(MINUTE, async || connected(world).await).await
}

/// The policy's status is that of its current generation.
async fn converged(world: &World) -> anyhow::Result<()> {
    until(MINUTE, async || {
        let policy = world
            .object(&format!("xaccesspolicies.agentic.networking.x-k8s.io {POLICY} -n {QUICKSTART}"))
            .await?
            .context("no policy")?;
        let generation = policy.pointer("/metadata/generation");
        let conditions = policy.pointer("/status/ancestors/0/conditions").and_then(Value::as_array);
        for condition in conditions.context("no conditions")? {
            ensure!(condition.get("observedGeneration") == generation, "{condition}");
            ensure!(condition.get("status") == Some(&json!("True")), "{condition}");
        }
        Ok(())
    })
    .await
}
