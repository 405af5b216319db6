//! A running gateway: started from the flags of `run`, reloading, drained at the end.
mod reload;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use anyhow::{Context as _, bail};
use arc_swap::ArcSwap;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinHandle,
};

use self::reload::{Reloader, Source};
use crate::{
    admin::{self, Health},
    cli::RunArgs,
    config::ManifestError,
    connection::Shared,
    listen::{Acceptor, Http, Phase, Sockets},
    runtime::RuntimeSettings,
    session::SessionKeys,
    telemetry::{AccessLog, Metrics, Telemetry},
    tls::{ExtraRoots, IdentityFiles},
    upstream::{Resolver, UpstreamSettings},
};

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(String);

impl From<anyhow::Error> for StartError {
    fn from(error: anyhow::Error) -> Self {
        Self(format!("{error:#}"))
    }
}

impl From<ManifestError> for StartError {
    fn from(error: ManifestError) -> Self {
        Self(error.to_string())
    }
}

/// A gateway that serves. Dropping it does not stop it; [`shutdown`](Self::shutdown) does.
#[derive(Debug)]
pub struct Gateway {
    shared: Arc<Shared>,
    phase: watch::Sender<Phase>,
    ended: mpsc::Receiver<()>,
    bound: watch::Receiver<BTreeMap<u16, SocketAddr>>,
    admin: SocketAddr,
    reloading: JoinHandle<()>,
    serving_admin: JoinHandle<()>,
    drain_timeout: Duration,
}

impl Gateway {
    /// Reads the configuration, binds the sockets and serves, within the current tokio runtime.
    ///
    /// # Errors
    /// Manifests that an API server would refuse, identities or keys that cannot be used, ports that cannot be bound.
    pub async fn start(args: &RunArgs, access_log: AccessLog) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::new());
        let identity = IdentityFiles {
            dir: args.tls.identity_dir.clone().or_else(IdentityFiles::default_dir),
            bundles: args.tls.trust_bundles.clone(),
        };
        let settings = RuntimeSettings {
            upstream: UpstreamSettings {
                resolver: Arc::new(Resolver::new(args.upstream.resolve.clone())),
                roots: ExtraRoots::read(&args.upstream.extra_ca)?,
                connect_timeout: args.upstream.connect_timeout,
                idle_timeout: args.upstream.upstream_idle_timeout,
            },
            authorizer_timeout: args.policy.authorizer_timeout,
        };
        let source = Source {
            paths: args.manifests.paths.clone(),
            only: args.manifests.gateways.clone(),
            options: args.resolution.options(),
            identity,
            settings,
        };
        let (runtime, seen) = source.first()?;
        let keys = match &args.policy.session_key_file {
            Some(path) => SessionKeys::read(path)?,
            None => SessionKeys::random()?,
        };
        let shared = Arc::new(Shared {
            runtime: ArcSwap::from_pointee(runtime),
            changes: watch::Sender::new(1),
            options: Arc::new(layer_options(args)),
            keys,
            telemetry: Telemetry { metrics: Arc::clone(&metrics), access_log },
            body_timeout: args.limits.body_timeout,
            instance: random()?,
            count: AtomicU64::new(0),
        });
        let phase = watch::Sender::new(Phase::Serving);
        let (alive, ended) = mpsc::channel(1);
        let acceptor = Arc::new(Acceptor {
            shared: Arc::clone(&shared),
            http: Http::new(&args.limits),
            connections: Arc::new(Semaphore::new(args.limits.max_connections)),
            handshake_timeout: args.limits.handshake_timeout,
            header_timeout: args.limits.header_timeout,
            phase: phase.subscribe(),
            alive,
        });
        let mut sockets =
            Sockets::new(args.manifests.listen_address, args.manifests.listen.clone(), acceptor);
        let health = Arc::new(Health::default());
        let (admin, serving_admin) = admin::serve(
            args.operation.admin_addr,
            Arc::clone(&shared),
            Arc::clone(&health),
            phase.subscribe(),
        )
        .await?;
        let wanted: Vec<u16> = shared.runtime.load().ports().map(|(port, _)| port).collect();
        let opened = sockets.bind(wanted.iter().copied()).await?;
        sockets.serve(opened, |port| wanted.contains(&port));
        if wanted.is_empty() {
            tracing::warn!("no Gateway has a listener that can be served; see `agentic-gateway check`");
        }
        health.become_ready();
        metrics.generation.set(1);
        let (bound_sender, bound) = watch::channel(sockets.bound());
        let source = Arc::new(source);
        let reloader = Reloader { source, shared: Arc::clone(&shared), sockets, bound: bound_sender, seen };
        let reloading = tokio::spawn(reloader.run(phase.subscribe()));
        Ok(Self {
            shared,
            phase,
            ended,
            bound,
            admin,
            reloading,
            serving_admin,
            drain_timeout: args.operation.drain_timeout,
        })
    }

    /// The ports of the Gateways, and where each is served.
    pub fn bound(&self) -> BTreeMap<u16, SocketAddr> {
        self.bound.borrow().clone()
    }

    /// Where /healthz, /readyz and /metrics are.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Changes with each configuration that is put in force; the first is 1.
    pub fn generation(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Accepts no more, lets open requests end for the drain timeout, then closes what is left. Returns whether
    /// everything ended by itself.
    pub async fn shutdown(mut self) -> bool {
        self.phase.send_replace(Phase::Draining);
        if self.reloading.await.is_err() {
            tracing::error!("the task that reads configurations had failed");
        }
        let clean = tokio::time::timeout(self.drain_timeout, self.ended.recv()).await.is_ok();
        if !clean {
            tracing::warn!("the drain timeout is over; open requests are cut off");
        }
        self.phase.send_replace(Phase::Ended);
        self.serving_admin.abort();
        self.shared.telemetry.access_log.flush();
        clean
    }
}

fn layer_options(args: &RunArgs) -> authz_tower::Options {
    let mut options = authz_tower::Options::default();
    options.limits.max_bytes = args.limits.max_body_bytes;
    options.filter_lists = args.policy.filter_lists;
    options.allowed_origins =
        args.policy.allowed_origins.iter().map(|origin| origin.to_ascii_lowercase()).collect();
    options
}

fn random() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    if getrandom::fill(&mut bytes).is_err() {
        bail!("the system gives no randomness");
    }
    Ok(u64::from_le_bytes(bytes))
}

pub(crate) fn loopback_only(address: SocketAddr, what: &str) -> anyhow::Result<()> {
    if address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    Err(anyhow::anyhow!("`{address}` is not on loopback")).context(format!("{what} listens on loopback only"))
}
