//! The class's data plane is changed in place, while clients call: nobody's request fails, and sessions live on.
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde_json::json;
use tokio::task::JoinSet;

use super::{
    DataPlane,
    probe::{GATEWAY, PORT, Probe},
    world::{QUICKSTART, World},
};
use crate::interop::{http::Target, report::Report, session::Session};

const MINUTE: Duration = Duration::from_secs(60);
const CLIENTS: usize = 4;

pub(super) async fn run(world: &mut World, report: &mut Report) -> anyhow::Result<()> {
    report.suite("one data plane and the other, in place");
    let Some(_probe) = report.step("a Gateway to ask", 3 * MINUTE, Probe::up(world)).await else {
        return Ok(());
    };
    let world = &*world;
    world.give_parameters().await?;
    report.step("our own gateway serves it", 3 * MINUTE, changed(world, DataPlane::Native)).await;
    let address = world.programmed(QUICKSTART, GATEWAY, MINUTE).await?;
    let load = Load::start(&Target::plain((address.parse::<std::net::IpAddr>()?, PORT).into())).await?;
    report.step("it becomes Envoy under load", 3 * MINUTE, changed(world, DataPlane::Envoy)).await;
    let with_envoy = load.served();
    report.step("and our own gateway again", 3 * MINUTE, changed(world, DataPlane::Native)).await;
    let name = format!("no request of {CLIENTS} clients failed, each in the session that it began with");
    if let Some(served) = report.step(&name, MINUTE, load.end()).await {
        report.note(&format!("{served} were served, {with_envoy} of them until Envoy was there"));
    }
    Ok(())
}

/// Changes the class, and waits until the new Pods serve and the old ones are gone.
async fn changed(world: &World, to: DataPlane) -> anyhow::Result<()> {
    world.change_data_plane(to).await?;
    world.served_by(QUICKSTART, GATEWAY, Some(to), 2 * MINUTE).await?;
    world.programmed(QUICKSTART, GATEWAY, MINUTE).await?;
    let label = format!("gateway.networking.k8s.io/gateway-name={GATEWAY}");
    let maps = world.object(&format!("configmaps -n {QUICKSTART} -l {label}")).await?.unwrap_or_default();
    let data = maps.pointer("/items/0/data").cloned().unwrap_or_default();
    ensure!(data.get("envoy.json").is_some() == (to == DataPlane::Envoy), "the ConfigMap has {data}");
    Ok(())
}

/// Clients that call until they are told to end.
#[derive(Debug)]
struct Load {
    served: Arc<AtomicU64>,
    end: Arc<AtomicBool>,
    clients: JoinSet<anyhow::Result<()>>,
}

impl Load {
    async fn start(target: &Target) -> anyhow::Result<Self> {
        let mut load = Self { served: Arc::default(), end: Arc::default(), clients: JoinSet::new() };
        for _ in 0..CLIENTS {
            let session = Session::open(target).await?;
            let (target, served, end) = (target.clone(), Arc::clone(&load.served), Arc::clone(&load.end));
            load.clients.spawn(async move { client(&target, session, &served, &end).await });
        }
        Ok(load)
    }

    fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// How many were served; an error if one was not.
    async fn end(mut self) -> anyhow::Result<u64> {
        self.end.store(true, Ordering::Relaxed);
        while let Some(client) = self.clients.join_next().await {
            client?.with_context(|| format!("after {} that were served", self.served()))?;
        }
        Ok(self.served())
    }
}

async fn client(
    target: &Target,
    mut session: Session,
    served: &AtomicU64,
    end: &AtomicBool,
) -> anyhow::Result<()> {
    let id = session.id()?.to_owned();
    while !end.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        match tokio::time::timeout(MINUTE / 6, session.request("tools/list", &json!({}))).await? {
            Ok(answer) => {
                answer.result()?;
                served.fetch_add(1, Ordering::Relaxed);
            }
            // A connection that was closed between two requests is no failure: any client opens another.
            Err(error) if never_sent(&error) => session = Session::resume(target, &id).await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether the server can have seen nothing of the request.
pub(super) fn never_sent(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<hyper::Error>())
        .any(|error| error.is_canceled() || error.is_closed())
}
