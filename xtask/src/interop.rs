//! `cargo xtask interop`: the gateway among other people's programs. Real MCP servers, clients and agents, and a real
//! authorizer, each a process on loopback; nothing is skipped because something is missing.
pub(crate) mod adk;
mod authorizer;
pub(crate) mod certificates;
mod clients;
mod conformance;
pub(crate) mod envoy;
mod envoy_cases;
mod envoy_corpus;
mod envoy_faults;
mod envoy_tls;
mod everything;
pub(crate) mod gateway;
mod hostile;
pub(crate) mod http;
mod idle;
mod load;
mod parsers;
pub(crate) mod peers;
mod pki;
pub(crate) mod process;
mod quickstart;
pub(crate) mod report;
pub(crate) mod session;
mod tap;
mod upstream;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use self::{envoy::Programs, gateway::DataPlane, peers::Peers, report::Report};

#[derive(Debug, Args)]
pub(crate) struct Interop {
    /// Only these; by default all, the last only with --long
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Suite>,
    /// A million bodies for parsers instead of 10,000; 200 sessions for 30 s instead of 50 for 6 s, and memory is held to its
    /// limit; 10,000 idle connections instead of 1,000; every Envoy, configured either way
    #[arg(long)]
    long: bool,
    /// This gateway instead of one that is built first (with the feature `quickstart`)
    #[arg(long, value_name = "FILE")]
    gateway: Option<PathBuf>,
    /// This controller instead of one that is built first
    #[arg(long, value_name = "FILE")]
    controller: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// Bodies of MCP messages, as parsers in Node.js, Python and Go read them
    Parsers,
    /// MCP SDKs in TypeScript, Python and Rust, and raw requests, to the reference server
    Clients,
    /// The MCP conformance suite, directly and through the gateway
    Conformance,
    /// Large messages, many sessions, reloads; thousands of idle connections
    Load,
    /// An external authorizer that goes and comes back
    Authorizer,
    /// Google's ADK agent with the quickstart's servers
    Adk,
    /// The decision cases, and policies at random, through Envoy
    Envoy,
    /// What the inputs that fuzzing keeps translate to, validated by Envoy
    EnvoyCorpus,
    /// Envoy's engine absent, killed, silent, hostile; Envoy killed
    EnvoyFaults,
    /// Who clients are: every kind of certificate on every kind of listener, natively and through Envoy; mTLS to the engine
    EnvoyTls,
    /// The clients and the conformance suite, through Envoy with the engine beside it
    EnvoyPeers,
}

/// Parts that are processes of their own.
#[derive(Debug, Subcommand)]
pub(crate) enum Part {
    /// An external authorizer (gRPC)
    Authorizer(authorizer::Part),
    /// Clients that say nothing
    Idle(idle::Part),
}

/// What the suites share.
#[derive(Debug)]
pub(crate) struct Run {
    /// The gateway's binary, where a suite needs it.
    gateway: Option<PathBuf>,
    /// The controller's binary, where a suite needs it.
    controller: Option<PathBuf>,
    peers: Peers,
    temporary: tempfile::TempDir,
    long: bool,
}

impl Run {
    /// A folder of a suite's own; it goes when the run ends.
    fn folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = self.temporary.path().join(name);
        std::fs::create_dir_all(&folder).with_context(|| format!("`{}` cannot be made", folder.display()))?;
        Ok(folder)
    }

    fn gateway(&self) -> anyhow::Result<&Path> {
        self.gateway.as_deref().context("no gateway was built")
    }

    /// What is needed to run Envoy of a minor version with the engine beside it.
    async fn envoy(&self, minor: &str) -> anyhow::Result<Programs> {
        Ok(Programs {
            gateway: self.gateway()?.to_owned(),
            controller: self.controller.clone().context("no controller was built")?,
            envoy: self.peers.envoy(minor).await?,
            minor: minor.to_owned(),
            threads: 2,
        })
    }
}

/// For one suite, the first time with its peers still to be installed.
const SUITE: Duration = Duration::from_secs(20 * 60);

/// For one suite in its long form.
const LONG_SUITE: Duration = Duration::from_secs(60 * 60);

impl Interop {
    fn suites(&self) -> impl Iterator<Item = Suite> {
        let all = Suite::value_variants().iter().copied();
        all.filter(|suite| match self.only.as_slice() {
            [] => self.long || *suite != Suite::EnvoyPeers,
            only => only.contains(suite),
        })
    }
}

impl Suite {
    fn needs_peers(self) -> bool {
        !matches!(self, Self::Load | Self::Authorizer)
    }

    fn needs_gateway(self) -> bool {
        self != Self::Parsers
    }

    fn needs_controller(self) -> bool {
        matches!(self, Self::EnvoyCorpus | Self::EnvoyFaults | Self::EnvoyTls | Self::EnvoyPeers)
    }
}

pub(crate) fn interop(interop: &Interop) -> anyhow::Result<()> {
    let runtime = runtime()?;
    let peers = Peers::new()?;
    // Before minutes of building.
    if interop.suites().any(Suite::needs_peers) {
        runtime.block_on(peers.check())?;
    }
    let program = |given: &Option<PathBuf>, package: &str| match given {
        Some(path) => path.canonicalize().with_context(|| format!("`{}`", path.display())),
        None => gateway::build(package),
    };
    let where_needed = |needs: fn(Suite) -> bool, given, package| {
        interop.suites().any(needs).then(|| program(given, package)).transpose()
    };
    let gateway = where_needed(Suite::needs_gateway, &interop.gateway, "agentic-gateway")?;
    let controller = where_needed(Suite::needs_controller, &interop.controller, "agentic-controller")?;
    let run = Run { gateway, controller, peers, temporary: tempfile::tempdir()?, long: interop.long };
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        // Whatever ends this ends the peers: each is killed when its value is dropped.
        tokio::select! {
            done = suites(interop, &run) => done,
            _ = interrupt.recv() => bail!("interrupted"),
            _ = terminate.recv() => bail!("terminated"),
        }
    })
}

async fn suites(interop: &Interop, run: &Run) -> anyhow::Result<()> {
    let mut report = Report::new();
    let time = if run.long { LONG_SUITE } else { SUITE };
    for suite in interop.suites() {
        let began = Instant::now();
        let report = &mut report;
        let done = tokio::time::timeout(time, async {
            match suite {
                Suite::Parsers => parsers::run(run, report).await,
                Suite::Clients => clients::run(run, DataPlane::Native, report).await,
                Suite::Conformance => conformance::run(run, DataPlane::Native, report).await,
                Suite::Load => {
                    load::run(run, report).await?;
                    idle::run(run, report).await
                }
                Suite::Authorizer => authorizer::run(run, report).await,
                Suite::Adk => adk::run(run, report).await,
                Suite::Envoy => envoy_cases::run(run, report).await,
                Suite::EnvoyCorpus => envoy_corpus::run(run, report).await,
                Suite::EnvoyFaults => envoy_faults::run(run, report).await,
                Suite::EnvoyTls => envoy_tls::run(run, report).await,
                Suite::EnvoyPeers => {
                    clients::run(run, DataPlane::Envoy, report).await?;
                    conformance::run(run, DataPlane::Envoy, report).await
                }
            }
        })
        .await;
        if let Err(error) = done.unwrap_or_else(|_| Err(anyhow!("not done after {} s", time.as_secs()))) {
            report.failed("the suite as a whole", began.elapsed(), &error);
        }
    }
    report.end()
}

pub(crate) fn part(part: &Part) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        match part {
            Part::Authorizer(part) => authorizer::serve(part).await.map(|never| match never {}),
            Part::Idle(part) => idle::hold(part).await.map(|never| match never {}),
        }
    })
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build()?)
}
