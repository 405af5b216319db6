//! What a gateway and a processor have in common: a configuration that is kept up to date, health and metrics.
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::Duration,
};

use anyhow::{Context as _, bail};
use arc_swap::ArcSwap;
use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
};

use super::{
    StartError,
    reload::{Following, Reader, Reloader},
    source::{Files, Source},
};
use crate::{
    admin::{self, Health, Pages},
    cli::CommonArgs,
    connection::Shared,
    listen::{Phase, Sockets},
    runtime::{Runtime, RuntimeSettings},
    session::SessionKeys,
    telemetry::{AccessLog, Metrics, Telemetry},
    tls::{ExtraRoots, IdentityFiles, Material},
    upstream::{Resolver, UpstreamSettings},
    xds::{Client, ClientSettings, Mirror, StateFile},
};

/// In what they differ.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Serves {
    pub(crate) terminates_tls: bool,
    /// How long a client may pause while it sends a body.
    pub(crate) body_timeout: Duration,
}

/// What runs beside whatever serves requests.
#[derive(Debug)]
pub(crate) struct Base {
    pub(crate) shared: Arc<Shared>,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) bound: watch::Receiver<BTreeMap<u16, SocketAddr>>,
    pub(crate) admin: SocketAddr,
    pub(crate) probes: Option<SocketAddr>,
    reloading: JoinHandle<()>,
    /// All else that runs until the end: probes, and what follows a controller.
    tasks: JoinSet<()>,
}

impl Base {
    /// Reads the configuration; with `--xds` it returns before there is one, unless one was saved. `sockets` makes what
    /// serves the listeners' ports; `None`: nobody does, here.
    ///
    /// # Errors
    /// Manifests that an API server would refuse, identities or keys that cannot be used, ports that cannot be bound.
    pub(crate) async fn start(
        args: &CommonArgs,
        serves: Serves,
        access_log: AccessLog,
        sockets: impl FnOnce(&Arc<Shared>, &watch::Sender<Phase>) -> Option<Sockets>,
    ) -> Result<Self, StartError> {
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
            terminates_tls: serves.terminates_tls,
        };
        let material = Arc::new(identity.read()?);
        let keys = match &args.policy.session_key_file {
            Some(path) => SessionKeys::read(path)?,
            None => SessionKeys::random()?,
        };
        let shared = Arc::new(Shared {
            // Nothing is served yet.
            runtime: ArcSwap::from_pointee(Runtime::new(Vec::new(), Arc::clone(&material), &settings, None)?),
            changes: watch::Sender::new(0),
            options: Arc::new(layer_options(args)),
            keys: ArcSwap::from_pointee(keys),
            telemetry: Telemetry { metrics: Arc::clone(&metrics), access_log },
            body_timeout: serves.body_timeout,
            instance: random()?,
            count: AtomicU64::new(0),
        });
        let phase = watch::Sender::new(Phase::Serving);
        let sockets = sockets(&shared, &phase);
        let health = Arc::new(Health::default());
        let mut tasks = JoinSet::new();
        let mut serve_admin = async |address, pages| {
            let (bound, serving) =
                admin::serve(address, pages, Arc::clone(&health), phase.subscribe()).await?;
            tasks.spawn(serving);
            anyhow::Ok(bound)
        };
        let admin = serve_admin(args.operation.admin_addr, Pages::All(Arc::clone(&shared))).await?;
        let probes = match args.operation.health_addr {
            Some(address) => Some(serve_admin(address, Pages::Health).await?),
            None => None,
        };
        let (source, followed) = match follow(args, &material, &metrics)? {
            None => (Source::Files(Files::new(&args.manifests.paths, &args.manifests.gateways)), None),
            Some((mirror, following, client)) => {
                (Source::Controller(Box::new(mirror)), Some((following, client)))
            }
        };
        let (following, client) = followed.unzip();
        let (bound_sender, bound) = watch::channel(BTreeMap::new());
        let mut reloader = Reloader {
            reader: Arc::new(Mutex::new(Reader::new(source, args.resolution.options(), identity, settings))),
            shared: Arc::clone(&shared),
            health,
            sockets,
            bound: bound_sender,
            following,
            error: String::new(),
            unbound: Vec::new(),
        };
        reloader.note_expiry();
        match client {
            // Files must be good at first.
            None => {
                reloader.reload(None).await?;
            }
            Some(client) => {
                reloader.restore().await;
                tasks.spawn(client.run());
            }
        }
        let reloading = tokio::spawn(reloader.run(phase.subscribe()));
        Ok(Self { shared, phase, bound, admin, probes, reloading, tasks })
    }

    /// Accepts no more, lets what was begun end for `timeout` (until `ended` says so), then closes what is left. Returns
    /// whether everything ended by itself.
    pub(crate) async fn shutdown(mut self, ended: impl Future<Output = ()>, timeout: Duration) -> bool {
        self.phase.send_replace(Phase::Draining);
        if self.reloading.await.is_err() {
            tracing::error!("the task that reads configurations had failed");
        }
        let clean = tokio::time::timeout(timeout, ended).await.is_ok();
        if !clean {
            tracing::warn!("the drain timeout is over; open requests are cut off");
        }
        self.phase.send_replace(Phase::Ended);
        self.tasks.shutdown().await;
        self.shared.telemetry.access_log.flush();
        clean
    }
}

/// What follows a controller, and what keeps what it sends; `None`: the configuration is in files.
fn follow(
    args: &CommonArgs,
    material: &Arc<Material>,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Option<(Mirror, Following, Client)>> {
    let Some(url) = &args.xds.url else { return Ok(None) };
    let server_id = args.xds.server_id.clone().context("--xds needs --xds-server-id")?;
    let [gateway] = args.manifests.gateways.as_slice() else {
        bail!("--xds needs the one Gateway that this proxy belongs to: --gateway NAMESPACE/NAME");
    };
    if material.credential.is_none() {
        bail!("--xds needs an identity: a folder with credential-bundle.pem at --identity-dir");
    }
    let (host, port) = ClientSettings::place(url)?;
    let takes_session_keys = args.policy.session_key_file.is_none();
    let settings = ClientSettings {
        host,
        port,
        server_id,
        gateway: gateway.clone(),
        wants_session_keys: takes_session_keys,
        resolver: Resolver::lenient(args.upstream.resolve.clone()),
    };
    let (sender, messages) = mpsc::channel(1);
    let (identity_sender, identity) = watch::channel(Arc::clone(material));
    let client = Client { settings, identity, messages: sender, metrics: Arc::clone(metrics) };
    let state = args.xds.state.as_deref().map(StateFile::new);
    let following = Following::new(messages, identity_sender, state, takes_session_keys);
    Ok(Some((Mirror::new(gateway.clone()), following, client)))
}

fn layer_options(args: &CommonArgs) -> authz_tower::Options {
    let mut options = authz_tower::Options::default();
    options.limits.max_bytes = args.max_body_bytes;
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
