//! A running gateway: started from the flags of `run`, reloading, drained at the end.
mod base;
mod reload;
mod source;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::sync::{Semaphore, mpsc, watch};

pub(crate) use self::base::{Base, Serves};
use crate::{
    cli::RunArgs,
    listen::{Acceptor, Http, Sockets},
    telemetry::AccessLog,
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

/// A gateway that serves. Dropping it does not stop it; [`shutdown`](Self::shutdown) does.
#[derive(Debug)]
pub struct Gateway {
    base: Base,
    ended: mpsc::Receiver<()>,
    drain_timeout: Duration,
}

impl Gateway {
    /// Reads the configuration, binds the sockets and serves, within the current tokio runtime. With `--xds` it returns
    /// before there is a configuration, unless one was saved.
    ///
    /// # Errors
    /// Manifests that an API server would refuse, identities or keys that cannot be used, ports that cannot be bound.
    pub async fn start(args: &RunArgs, access_log: AccessLog) -> Result<Self, StartError> {
        let (alive, ended) = mpsc::channel(1);
        let serves = Serves { terminates_tls: true, body_timeout: args.limits.body_timeout };
        let base = Base::start(&args.common, serves, access_log, |shared, phase| {
            let acceptor = Arc::new(Acceptor {
                shared: Arc::clone(shared),
                http: Http::new(&args.limits),
                connections: Arc::new(Semaphore::new(args.limits.max_connections)),
                handshake_timeout: args.limits.handshake_timeout,
                header_timeout: args.limits.header_timeout,
                phase: phase.subscribe(),
                alive,
            });
            Some(Sockets::new(args.listeners.listen_address, args.listeners.listen.clone(), acceptor))
        });
        Ok(Self { base: base.await?, ended, drain_timeout: args.common.operation.drain_timeout })
    }

    /// The ports of the Gateways, and where each is served.
    pub fn bound(&self) -> BTreeMap<u16, SocketAddr> {
        self.base.bound.borrow().clone()
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
    pub fn generation(&self) -> watch::Receiver<u64> {
        self.base.shared.changes.subscribe()
    }

    /// Accepts no more, lets open requests end for the drain timeout, then closes what is left. Returns whether
    /// everything ended by itself.
    pub async fn shutdown(self) -> bool {
        let Self { base, mut ended, drain_timeout } = self;
        let ended = async move {
            ended.recv().await;
        };
        base.shutdown(ended, drain_timeout).await
    }
}

pub(crate) fn loopback_only(address: SocketAddr, what: &str) -> anyhow::Result<()> {
    if address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    Err(anyhow::anyhow!("`{address}` is not on loopback")).context(format!("{what} listens on loopback only"))
}
