//! `agentic-controller run`: the parts put together, each supervised.
mod admit;
mod envoy;
mod health;
mod metrics;
mod provisioner;
mod reconcile;
mod supervise;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use authz_core::DefaultAction;
use clap::{Args, ValueEnum};
use policy_model::NamespacedName;
use spiffe_id::{SpiffeId, TrustDomain};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use tracing_subscriber::EnvFilter;
use xds_server::Cache;

use self::{admit::Admitted, health::Health, metrics::Metrics, reconcile::Reconciler, supervise::Supervised};
use crate::{identity, index, lease, lease::Membership, provision, status, watch as watches};

/// Events that may wait between the watches and the index.
const EVENTS: usize = 1024;

/// How long the API server may be silent within a response.
const SILENCE: Duration = Duration::from_secs(300);

/// `run`
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// GatewayClasses with this controllerName are served
    #[arg(
        long,
        value_name = "NAME",
        env = "AGENTIC_CONTROLLER_NAME",
        default_value = "sigs.k8s.io/kube-agentic-networking-controller"
    )]
    pub controller_name: String,
    /// The trust domain of the identities that are signed, and of ServiceAccount sources
    #[arg(
        long,
        value_name = "DOMAIN",
        default_value = "cluster.local",
        env = "AGENTIC_CONTROLLER_TRUST_DOMAIN"
    )]
    pub trust_domain: TrustDomain,
    /// What happens where no policy has an Allow rule and nothing is delegated
    #[arg(long, value_enum, default_value = "allow", env = "AGENTIC_CONTROLLER_DEFAULT_ACTION")]
    pub default_action: Action,
    /// The controller's own namespace
    #[arg(long, value_name = "NAMESPACE", default_value = "agentic-net-system", env = "POD_NAMESPACE")]
    pub namespace: String,
    /// The name of this Pod: it tells replicas apart
    #[arg(long, value_name = "POD", env = "POD_NAME")]
    pub pod_name: String,
    /// The controller's own ServiceAccount: proxies accept a control plane with this identity only
    #[arg(
        long,
        value_name = "NAME",
        default_value = "agentic-controller",
        env = "AGENTIC_CONTROLLER_SERVICE_ACCOUNT"
    )]
    pub service_account: String,
    /// The host name under which proxies reach the discovery service [default: SERVICE-ACCOUNT.NAMESPACE.svc]
    #[arg(long, value_name = "HOST", env = "AGENTIC_CONTROLLER_SERVICE")]
    pub service: Option<String>,
    /// Where the discovery service (gRPC over mTLS) listens
    #[arg(
        long,
        value_name = "ADDR:PORT",
        default_value = "0.0.0.0:15010",
        env = "AGENTIC_CONTROLLER_XDS_ADDR"
    )]
    pub xds_addr: SocketAddr,
    /// Where /healthz, /readyz and /metrics are (plain HTTP)
    #[arg(
        long,
        value_name = "ADDR:PORT",
        default_value = "0.0.0.0:15020",
        env = "AGENTIC_CONTROLLER_ADMIN_ADDR"
    )]
    pub admin_addr: SocketAddr,
    /// Image of proxies whose GatewayClass names none
    #[arg(long, value_name = "IMAGE", env = "AGENTIC_CONTROLLER_GATEWAY_IMAGE",
          default_value = concat!("ghcr.io/agentic-access/agentic-gateway:", env!("CARGO_PKG_VERSION")))]
    pub gateway_image: String,
    /// Image of Envoy where a GatewayClass has `dataPlane: envoy` and names none; its tag tells the version
    #[arg(long, value_name = "IMAGE", env = "AGENTIC_CONTROLLER_ENVOY_IMAGE", value_parser = envoy_image,
          default_value = provision::ENVOY_IMAGE)]
    pub envoy_image: provision::EnvoyImage,
    /// How long a replica that says nothing keeps its Leases; another one leads then
    #[arg(long, value_name = "SECONDS", default_value_t = 15, env = "AGENTIC_CONTROLLER_LEASE_SECONDS",
          value_parser = clap::value_parser!(u16).range(3..=300))]
    pub lease_seconds: u16,
    /// How long a new root is published before it signs
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 600,
        env = "AGENTIC_CONTROLLER_BUNDLE_SPREAD_SECONDS"
    )]
    pub bundle_spread_seconds: u32,
    /// How log messages (on standard error) look
    #[arg(long, value_enum, default_value = "json", env = "AGENTIC_CONTROLLER_LOG_FORMAT")]
    pub log_format: LogFormat,
    /// Which messages are logged (tracing's syntax); what the API server refuses is told by whoever asked
    #[arg(
        long,
        value_name = "FILTER",
        default_value = "info,kube_client=off",
        env = "AGENTIC_CONTROLLER_LOG"
    )]
    pub log: String,
}

/// `--default-action`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Action {
    /// Let it pass.
    Allow,
    /// Deny it.
    Deny,
}

/// How log messages look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Runs until the process is asked to end, or a part of it ends.
pub(crate) fn run(args: &RunArgs) -> anyhow::Result<()> {
    log_to_stderr(args)?;
    // Both providers of rustls may be linked by others; the choice is made once, here.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider was installed before");
    }
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(serve(args))
}

async fn serve(args: &RunArgs) -> anyhow::Result<()> {
    let mut config = kube::Config::infer()
        .await
        .context("cannot reach the API server: run in a Pod with a ServiceAccount, or set KUBECONFIG")?;
    // A watch says nothing for less than this; a server that vanished says nothing for ever.
    config.read_timeout = Some(SILENCE);
    let client = kube::Client::try_from(config).context("cannot reach the API server")?;
    let xds_listener = TcpListener::bind(args.xds_addr)
        .await
        .with_context(|| format!("cannot listen on {} for --xds-addr", args.xds_addr))?;
    let admin_listener = TcpListener::bind(args.admin_addr)
        .await
        .with_context(|| format!("cannot listen on {} for --admin-addr", args.admin_addr))?;

    let cache = Cache::default();
    let certificates = Arc::new(identity::Counts::default());
    let metrics = Arc::new(Metrics::new(cache.clone(), Arc::clone(&certificates)));
    let health = Arc::new(Health::default());
    let admitted = Admitted::new(args.trust_domain.clone());
    let stop = watch::Sender::new(false);
    let (events, seen) = mpsc::channel(EVENTS);
    let (secrets, wanted_secrets) = watch::channel(BTreeSet::new());
    let (published, to_publish) = watch::channel(BTreeMap::new());
    let (membership, members) = watch::channel(Membership::default());
    let (gateways, served) = watch::channel(BTreeSet::new());
    let (serving, server) = watch::channel(None);
    let (proxies, to_provision) = watch::channel(BTreeMap::new());
    let (finalizers, to_release) = watch::channel(Arc::default());
    let (abandoned, to_remove) = watch::channel(BTreeSet::new());
    let (failures, provisioning) = watch::channel(BTreeMap::new());
    let (writes, to_write) = watch::channel(Arc::default());
    let (envoys, connected) = watch::channel(BTreeMap::new());

    let mut tasks = Supervised::default();
    tasks.spawn("health", health::serve(admin_listener, Arc::clone(&health), Arc::clone(&metrics)));
    tasks.spawn("watches", watches::watch_all(client.clone(), wanted_secrets, events));
    tasks.spawn(
        "leases",
        lease::take_part(client.clone(), lease_settings(args), to_publish, membership, stop.subscribe()),
    );
    tasks.spawn(
        "identities",
        identity::run(
            client.clone(),
            identity_settings(args, certificates),
            args.pod_name.clone(),
            members.clone(),
            served,
            serving,
        ),
    );
    tasks.spawn("reports", reconcile::report(cache.clone(), published.clone(), envoys));
    let (written, counted) = (client.clone(), Arc::clone(&metrics));
    tasks.spawn("statuses", async move {
        status::write_all(written, to_write, move |result| counted.status(result)).await;
        Ok(())
    });
    tasks.spawn(
        "proxies",
        provisioner::provision(
            client,
            provision_settings(args)?,
            to_provision,
            to_release,
            to_remove,
            members.clone(),
            failures,
        ),
    );
    let reconciler = Reconciler {
        index: index::Index::new(index::Settings { options: options(args) }),
        cache: cache.clone(),
        envoys: envoy::Envoys::new(
            args.envoy_image.version,
            options(args).default_action,
            &args.trust_domain,
        ),
        admitted: admitted.clone(),
        health: Arc::clone(&health),
        metrics,
        secrets,
        gateways,
        proxies,
        abandoned,
        finalizers,
        writes,
    };
    tasks.spawn(
        "reconciliation",
        reconciler.run(reconcile::Inputs {
            events: seen,
            serving: server.clone(),
            membership: members,
            published: published.subscribe(),
            envoys: connected,
            provisioning,
        }),
    );
    tasks.spawn("discovery", discover(xds_listener, server, admitted, cache, health, stop.subscribe()));
    tasks.run_until(asked_to_end(), &stop).await
}

/// Serves discovery once there is something true to serve: a new replica that has not listed everything yet would take
/// from proxies what they have.
async fn discover(
    listener: TcpListener,
    mut serving: watch::Receiver<Option<identity::Serving>>,
    admitted: Admitted,
    cache: Cache,
    health: Arc<Health>,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    health.reconciled().await;
    let first = serving
        .wait_for(Option::is_some)
        .await
        .context("the identities ended")?
        .as_ref()
        .map(|serving| Arc::clone(&serving.tls))
        .context("no certificate to serve with")?;
    let (tls, configs) = watch::channel(first);
    health.become_ready();
    tracing::info!(address = %listener.local_addr().context("the discovery socket has no address")?, "ready");
    let renew = async move {
        while serving.changed().await.is_ok() {
            if let Some(serving) = serving.borrow_and_update().as_ref() {
                tls.send_replace(Arc::clone(&serving.tls));
            }
        }
        anyhow::bail!("the identities ended")
    };
    let served = xds_server::serve(listener, configs, admitted.admit(), cache, async move {
        // An error means that the process ends as well.
        drop(stop.wait_for(|stop| *stop).await);
    });
    tokio::select! {
        served = served => Ok(served?),
        ended = renew => ended,
    }
}

fn options(args: &RunArgs) -> xds_translate::Options {
    let mut options = xds_translate::Options::default();
    options.controller_name.clone_from(&args.controller_name);
    options.trust_domain = args.trust_domain.clone();
    options.default_action = match args.default_action {
        Action::Allow => DefaultAction::Allow,
        Action::Deny => DefaultAction::Deny,
    };
    options
}

fn service(args: &RunArgs) -> String {
    args.service.clone().unwrap_or_else(|| format!("{}.{}.svc", args.service_account, args.namespace))
}

fn lease_settings(args: &RunArgs) -> lease::Settings {
    lease::Settings {
        namespace: args.namespace.clone(),
        identity: args.pod_name.clone(),
        duration: Duration::from_secs(args.lease_seconds.into()),
    }
}

fn identity_settings(args: &RunArgs, counts: Arc<identity::Counts>) -> identity::Settings {
    identity::Settings {
        namespace: args.namespace.clone(),
        service_account: args.service_account.clone(),
        trust_domain: args.trust_domain.clone(),
        lifetime: Duration::from_secs(24 * 60 * 60),
        dns_names: vec![service(args)],
        spread: Duration::from_secs(args.bundle_spread_seconds.into()),
        counts,
    }
}

fn provision_settings(args: &RunArgs) -> anyhow::Result<provision::Settings> {
    let own = SpiffeId::for_service_account(&args.trust_domain, &args.namespace, &args.service_account)
        .context("the controller's namespace and ServiceAccount make no SPIFFE ID")?;
    let flags = match args.default_action {
        Action::Allow => Vec::new(),
        Action::Deny => vec!["--default-action=deny".to_owned()],
    };
    Ok(provision::Settings {
        gateway_image: args.gateway_image.clone(),
        envoy_image: args.envoy_image.clone(),
        xds_host: service(args),
        xds_port: args.xds_addr.port(),
        xds_server_id: own.as_str().to_owned(),
        trust_domain: args.trust_domain.as_str().to_owned(),
        signer: identity::SIGNER.to_owned(),
        flags,
    })
}

fn envoy_image(text: &str) -> Result<provision::EnvoyImage, String> {
    provision::EnvoyImage::read(text, None)
}

/// The group of a Gateway in the discovery service.
fn group(gateway: &NamespacedName) -> String {
    format!("{}/{}", gateway.namespace, gateway.name)
}

fn log_to_stderr(args: &RunArgs) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&args.log)
        .with_context(|| format!("`{}` is no log filter; try `info`", args.log))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let set = match args.log_format {
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
        LogFormat::Text => builder.try_init(),
    };
    set.map_err(|error| anyhow::anyhow!("cannot log: {error}"))
}

/// Completes when the process is asked to end.
async fn asked_to_end() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
