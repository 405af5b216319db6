//! The external processor: decides for an Envoy that asks over ext_proc, with the code that decides in our own gateway.
//!
//! Envoy is both ends here. The request that it describes goes through [`ConnectionService`](crate::connection), and
//! where our own gateway would send it to a backend, [`carrier`] lets it through in Envoy, rewritten. What both agree on
//! is in [`xds_translate::envoy::processor`].
mod answer;
mod carrier;
mod chain;
mod drain;
mod exchange;
mod lines;
mod metadata;
mod serve;
mod socket;
mod watch;

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use tokio::{sync::mpsc, task::JoinHandle};

pub(crate) use self::drain::drain;
use self::serve::Server;
use crate::{
    cli::{DecideArgs, ProcessorAddress},
    gateway::{Base, Serves, StartError},
    telemetry::AccessLog,
};

/// A processor that serves. Dropping it does not stop it; [`shutdown`](Self::shutdown) does.
#[derive(Debug)]
pub struct Processor {
    base: Base,
    address: ProcessorAddress,
    serving: JoinHandle<()>,
    ended: mpsc::Receiver<()>,
    drain_timeout: Duration,
}

impl Processor {
    /// Reads the configuration, binds the socket and serves, within the current tokio runtime. With `--xds` it returns
    /// before there is a configuration, unless one was saved.
    ///
    /// # Errors
    /// Manifests that an API server would refuse, identities or keys that cannot be used, a socket that cannot be bound.
    pub async fn start(args: &DecideArgs, access_log: AccessLog) -> Result<Self, StartError> {
        // Bodies come whole: Envoy's own limits are what a slow client meets.
        let serves = Serves { terminates_tls: false, body_timeout: Duration::MAX };
        let base = Base::start(&args.common, serves, access_log, |_, _| None).await?;
        let is_tcp = matches!(args.listen, ProcessorAddress::Tcp(_));
        if is_tcp && args.client_ids.is_empty() {
            return Err(anyhow::anyhow!(
                "a TCP address is served over mTLS: --client-id says whose connections are taken"
            )
            .into());
        }
        if is_tcp && base.shared.runtime.load().material.credential.is_none() {
            return Err(anyhow::anyhow!(
                "a TCP address is served over mTLS, which needs an identity: a folder with credential-bundle.pem at \
                 --identity-dir"
            )
            .into());
        }
        let listener = serve::Listener::bind(&args.listen)
            .await
            .with_context(|| format!("cannot listen on `{}`", args.listen))?;
        let address = listener.address()?;
        let (alive, ended) = mpsc::channel(1);
        let server = Server {
            shared: base.shared.clone(),
            client_ids: args.client_ids.as_slice().into(),
            max_message: args.common.max_body_bytes.saturating_mul(2).saturating_add(serve::SLACK),
            phase: base.phase.subscribe(),
            watches: watch::Watches::new(base.shared.instance),
            alive,
        };
        tracing::info!(%address, "listening");
        let serving = tokio::spawn(server.run(listener));
        Ok(Self { base, address, serving, ended, drain_timeout: args.common.operation.drain_timeout })
    }

    /// Where it listens.
    pub fn address(&self) -> &ProcessorAddress {
        &self.address
    }

    /// Where /healthz, /readyz and /metrics are.
    pub fn admin_address(&self) -> SocketAddr {
        self.base.admin
    }

    /// Where /healthz and /readyz alone are, with `--health-addr`.
    pub fn health_address(&self) -> Option<SocketAddr> {
        self.base.probes
    }

    /// Changes with each configuration that is put in force; the first is 1, and 0 is none yet.
    pub fn generation(&self) -> tokio::sync::watch::Receiver<u64> {
        self.base.shared.changes.subscribe()
    }

    /// Accepts no more, lets open requests end for the drain timeout, then closes what is left. Returns whether
    /// everything ended by itself.
    pub async fn shutdown(self) -> bool {
        let Self { base, serving, mut ended, drain_timeout, .. } = self;
        let ended = async move {
            ended.recv().await;
        };
        let clean = base.shutdown(ended, drain_timeout).await;
        if serving.await.is_err() {
            tracing::error!("the task that accepts connections had failed");
        }
        clean
    }
}
