//! Controller, API server, watches and leader lost: proxies keep serving, statuses converge, nothing is pushed without need.
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::{
    probe::{POLICY, Probe, Replica, Tool, pushes},
    world::{QUICKSTART, SYSTEM, World, until},
};
use crate::interop::{report::Report, session::Session};

const MINUTE: Duration = Duration::from_secs(60);
/// The Lease's time of 15 s, from when the other replica saw it renewed last, and what a busy machine adds.
const TAKEOVER: Duration = Duration::from_secs(30);
const CONTROLLER: &str = "agentic-controller";

pub(super) async fn run(world: &mut World, report: &mut Report) -> anyhow::Result<()> {
    report.suite("what is lost and comes back");
    let Some(probe) = report.step("a Gateway to ask", 3 * MINUTE, Probe::up(world)).await else {
        return Ok(());
    };
    let traffic = probe.traffic();
    report.step("two replicas: one leads, both serve", MINUTE, two_replicas(world)).await;
    report.step("every controller is killed and comes back", 2 * MINUTE, killed(world, &probe)).await;
    report.step("the API server is killed and comes back", 2 * MINUTE, api_server(world, &probe)).await;
    report.step("watches expire while they are stopped (410)", 2 * MINUTE, expired(world, &probe)).await;
    let took =
        report.step("the leader is lost: the other takes over", 2 * MINUTE, leader_lost(world, &probe)).await;
    if let Some(took) = took {
        report.note(&format!("after {:.1} s", took.as_secs_f64()));
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
        ensure!(replicas.len() == 2, "{replicas:?}");
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
    let id = world.node.pid(SYSTEM, pod, "controller").context("the controller has no process")?;
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
    ensure!(pushes(world).await? == 0, "{} responses to proxies that had everything", pushes(world).await?);
    enforced(world, probe).await?;
    ensure!(pushes(world).await? > 0, "a change was not pushed");
    converged(world).await
}

async fn api_server(world: &mut World, probe: &Probe) -> anyhow::Result<()> {
    let before = pushes(world).await?;
    world.control_plane.stop_api_server().await?;
    let mut session = Session::open(&probe.target).await?;
    ensure!(probe.allows(&mut session, Tool::Echo).await?, "the policy changed by itself");
    world.control_plane.start_api_server().await?;
    world.rolled_out(SYSTEM, CONTROLLER, MINUTE).await?;
    converged(world).await?;
    let after = pushes(world).await?;
    ensure!(after == before, "{} responses without a change", after - before);
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
        world.control_plane.compact_etcd().await?;
        // What the API server remembers goes with it.
        world.control_plane.stop_api_server().await?;
        world.control_plane.start_api_server().await
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
    let sent = pushes(world).await? - before;
    ensure!(sent == 1, "one change at one proxy was {sent} responses");
    enforced(world, probe).await?;
    converged(world).await
}

async fn leader_lost(world: &World, probe: &Probe) -> anyhow::Result<Duration> {
    let before = Replica::leader(world).await?;
    world
        .kubectl(&format!("delete pod {} -n {SYSTEM} --grace-period=0 --force --wait=false", before.pod))
        .await?;
    let lost = Instant::now();
    until(TAKEOVER, async || {
        let now = Replica::leader(world).await?;
        ensure!(now.pod != before.pod, "{} still leads", now.pod);
        Ok(())
    })
    .await?;
    let took = lost.elapsed();
    world.rolled_out(SYSTEM, CONTROLLER, MINUTE).await?;
    enforced(world, probe).await?;
    converged(world).await?;
    Ok(took)
}

/// A change is enforced, and back.
async fn enforced(world: &World, probe: &Probe) -> anyhow::Result<()> {
    let mut session = Session::open(&probe.target).await?;
    probe.change(&mut session, Tool::Sum).await?;
    probe.change(&mut session, Tool::Echo).await?;
    connected(world).await
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
