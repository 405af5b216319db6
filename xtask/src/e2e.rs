//! `cargo xtask e2e`: the product in a cluster, with a real control plane, a real authorizer, real MCP servers and a real
//! agent. Everything runs in namespaces of its own and ends with the command. Where KUBECONFIG is set, it is that cluster
//! instead; what needs the suite's own control plane or its node is told as not run then.
mod broken;
mod crds;
mod faults;
mod filters;
mod identity;
mod latency;
mod probe;
mod scale;
mod story;
mod switch;
mod world;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{anyhow, bail, ensure};
use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use self::world::{QUICKSTART, World};
use crate::{
    cluster::{self, binaries, images},
    interop::{
        peers::Peers,
        report::Report,
        session::{Answered, answered},
    },
};

/// `e2e`
#[derive(Debug, Args)]
pub(crate) struct E2eArgs {
    /// Only these, and what they build on; all by default
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Suite>,
    /// Everything at full length: 10,000 policies, not 500; with Envoy also what is seen with our own gateway anyway
    #[arg(long)]
    long: bool,
    /// What serves the Gateways
    #[arg(long, value_enum, default_value = "native")]
    data_plane: DataPlane,
    /// The product built for release, as measurements should have it
    #[arg(long)]
    release: bool,
}

/// What serves the Gateways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DataPlane {
    /// Our own gateway
    Native,
    /// Envoy, with our engine beside it
    Envoy,
    /// Envoy alone
    Filters,
}

/// Parts of the suite, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// The CustomResourceDefinitions, rule by rule, against the API server
    Crds,
    /// The quickstart: installed with kubectl, both tables asked of the agent, the HTTP protocol, and all of it deleted
    Story,
    /// Certificates in another's name, configurations of another Gateway
    Identity,
    /// From a policy's change to its enforcement, 200 times
    Latency,
    /// A bad expression and a bad regular expression among a hundred good policies
    Broken,
    /// Controller, API server, watches and leader lost
    Faults,
    /// Many policies, targets and routes
    Scale,
    /// From one data plane to the other and back, under load
    Switch,
    /// Envoy alone: a policy outside the subset, and to the engine and our own gateway and back, under load
    Filters,
}

/// For one suite.
const SUITE: Duration = Duration::from_secs(15 * 60);

impl E2eArgs {
    fn suites(&self) -> impl Iterator<Item = Suite> {
        let all = Suite::value_variants().iter().copied();
        all.filter(|suite| match self.only.as_slice() {
            [] => suite.is_of(self.data_plane, self.long),
            only => only.contains(suite),
        })
    }
}

impl Suite {
    /// Whether it is part of all of them: what does not depend on the data plane is seen with one of them, and what depends
    /// on both with Envoy.
    fn is_of(self, data_plane: DataPlane, long: bool) -> bool {
        match data_plane {
            DataPlane::Native => !matches!(self, Self::Broken | Self::Switch | Self::Filters),
            DataPlane::Envoy => match self {
                Self::Story | Self::Broken | Self::Switch => true,
                Self::Identity | Self::Latency | Self::Faults => long,
                Self::Crds | Self::Scale | Self::Filters => false,
            },
            DataPlane::Filters => matches!(self, Self::Story | Self::Filters),
        }
    }
}

pub(crate) fn e2e(args: &E2eArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build()?;
    let inside = cluster::namespaces::inside();
    // Inside, the environment's is not meant: the cluster is there.
    let given = std::env::var("KUBECONFIG").ok().filter(|files| !files.is_empty() && !inside);
    if given.is_some() {
        images::build("agentic-controller", args.release)?;
    } else if !inside {
        // Inside there is no network: everything is fetched and built before.
        runtime.block_on(Peers::new()?.check())?;
        binaries::build()?;
        runtime.block_on(images::prepare(args.release, args.data_plane != DataPlane::Native))?;
        drop(runtime);
        return cluster::enter(&std::env::args().skip(1).collect::<Vec<_>>());
    }
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            done = suites(args, given.as_deref()) => done,
            _ = interrupt.recv() => bail!("interrupted"),
            _ = terminate.recv() => bail!("terminated"),
        }
    })
}

async fn suites(args: &E2eArgs, given: Option<&str>) -> anyhow::Result<()> {
    let mut report = Report::new();
    let world = match given {
        Some(files) => {
            report.suite(&format!("the cluster of KUBECONFIG={files}"));
            report.note("what is installed and made in it stays there (docs/kubernetes.md, `The suite in your cluster`)");
            report.step("it answers", SUITE, World::given(args.release, args.data_plane)).await
        }
        None => {
            report.suite("a cluster");
            report
                .step("it is up", Duration::from_secs(120), World::start(args.release, args.data_plane))
                .await
        }
    };
    let Some(mut world) = world else { return report.end() };
    for suite in args.suites() {
        let began = Instant::now();
        let (world, report) = (&mut world, &mut report);
        let done = tokio::time::timeout(SUITE, async {
            match suite {
                Suite::Crds => crds::run(world, report).await,
                Suite::Story => story::run(world, report).await,
                Suite::Identity => Box::pin(identity::run(world, report)).await,
                Suite::Latency => latency::run(world, report).await,
                Suite::Broken => broken::run(world, report).await,
                Suite::Faults => faults::run(world, report).await,
                Suite::Scale => scale::run(world, report, args.long).await,
                Suite::Switch => switch::run(world, report).await,
                Suite::Filters => Box::pin(filters::run(world, report)).await,
            }
        })
        .await;
        if let Err(error) = done.unwrap_or_else(|_| Err(anyhow!("not done after {} s", SUITE.as_secs()))) {
            report.failed(&format!("{suite:?} as a whole"), began.elapsed(), &error);
            world.tell().await;
        }
    }
    let answered = answered();
    if world.is_own() && !answered.served.is_empty() {
        let arrived = report
            .step("of all that was refused, nothing reached the server", Duration::from_secs(60), async {
                nothing_forbidden_arrived(&world, &answered).await
            })
            .await;
        if let Some(arrived) = arrived {
            report.note(&arrived);
        }
    }
    report.end()
}

/// Holds the requests of all suites against what the reference server was asked; `recorder.cjs` prints that.
async fn nothing_forbidden_arrived(world: &World, answered: &Answered) -> anyhow::Result<String> {
    let mut asked = BTreeSet::new();
    for (pod, _) in world.ready_pods(QUICKSTART, "app=mcp-everything").await? {
        let said = world.logs(QUICKSTART, &pod, "mcp-everything").await?;
        let ids = said
            .lines()
            .filter_map(|line| line.strip_prefix("asked ")?.split_once(' ')?.0.parse::<u64>().ok());
        asked.extend(ids);
    }
    let Answered { served, forbidden } = answered;
    let unseen = served.difference(&asked).count();
    ensure!(
        unseen == 0,
        "of {} requests that were served, {unseen} were not noted by the server",
        served.len()
    );
    let arrived: Vec<_> = forbidden.intersection(&asked).collect();
    ensure!(arrived.is_empty(), "requests {arrived:?} were refused and reached the server");
    Ok(format!("{} requests were refused, {} arrived and were served", forbidden.len(), served.len()))
}
