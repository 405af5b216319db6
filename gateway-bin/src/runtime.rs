//! One configuration, ready to serve: immutable, swapped as a whole. Connections to backends and authorizers are kept
//! from one to the next where they are the same.
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use anyhow::{anyhow, bail};
use policy_model::NamespacedName;
use rustls::ServerConfig;
use xds_translate::{BackendId, ClientCertificates, Protocol, Router, Snapshot};

use crate::{
    authorizers::Authorizers,
    tls::{Material, server_config},
    upstream::{Upstream, UpstreamSettings},
};

/// Everything that is served.
#[derive(Debug)]
pub(crate) struct Runtime {
    gateways: Vec<Arc<GatewayRuntime>>,
    /// Port to index in `gateways`.
    ports: BTreeMap<u16, usize>,
    /// The identity and bundles that it was made with.
    pub(crate) material: Arc<Material>,
}

/// One Gateway.
#[derive(Debug)]
pub(crate) struct GatewayRuntime {
    pub(crate) snapshot: Snapshot,
    pub(crate) router: Router,
    pub(crate) upstreams: HashMap<BackendId, Arc<Upstream>>,
    pub(crate) authorizers: Arc<Authorizers>,
    /// Parallel to `snapshot.listeners`.
    pub(crate) listeners: Vec<ListenerRuntime>,
    /// Counts requests of rules with several backends.
    pub(crate) turn: AtomicU64,
}

/// One listener.
#[derive(Debug)]
pub(crate) struct ListenerRuntime {
    pub(crate) name: Arc<str>,
    pub(crate) tls: Option<ListenerTlsRuntime>,
}

/// How a listener does TLS.
#[derive(Debug)]
pub(crate) struct ListenerTlsRuntime {
    pub(crate) config: Arc<ServerConfig>,
    /// The same `Arc` as long as nothing changes: connections that were admitted under other terms are told by it.
    pub(crate) clients: Arc<ClientCertificates>,
}

/// What making a runtime needs besides snapshots.
#[derive(Debug)]
pub(crate) struct RuntimeSettings {
    pub(crate) upstream: UpstreamSettings,
    pub(crate) authorizer_timeout: Duration,
}

impl Runtime {
    /// Makes a runtime of snapshots.
    pub(crate) fn new(
        snapshots: Vec<Snapshot>,
        material: Arc<Material>,
        settings: &RuntimeSettings,
        previous: Option<&Self>,
    ) -> anyhow::Result<Self> {
        let mut gateways = Vec::with_capacity(snapshots.len());
        let mut ports = BTreeMap::new();
        for snapshot in snapshots {
            let previous = previous.and_then(|previous| previous.gateway(&snapshot.gateway));
            for listener in &snapshot.listeners {
                if let Some(other) = ports.insert(listener.port, gateways.len())
                    && other != gateways.len()
                {
                    bail!(
                        "port {} is used by two Gateways, `{}` among them; serve one with `--gateway NAMESPACE/NAME`",
                        listener.port,
                        snapshot.gateway
                    );
                }
            }
            gateways.push(Arc::new(GatewayRuntime::new(
                snapshot,
                &material,
                settings,
                previous.map(Arc::as_ref),
            )?));
        }
        Ok(Self { gateways, ports, material })
    }

    /// The snapshots that it was made of.
    pub(crate) fn snapshots(&self) -> impl Iterator<Item = &Snapshot> {
        self.gateways.iter().map(|gateway| &gateway.snapshot)
    }

    fn gateway(&self, name: &NamespacedName) -> Option<&Arc<GatewayRuntime>> {
        self.gateways.iter().find(|gateway| gateway.snapshot.gateway == *name)
    }

    /// The Gateway that has listeners on a port.
    pub(crate) fn on_port(&self, port: u16) -> Option<&Arc<GatewayRuntime>> {
        self.ports.get(&port).and_then(|at| self.gateways.get(*at))
    }

    /// Ports with the protocol of their listeners.
    pub(crate) fn ports(&self) -> impl Iterator<Item = (u16, Protocol)> {
        self.gateways.iter().flat_map(|gateway| {
            gateway.snapshot.listeners.iter().map(|listener| (listener.port, listener.protocol))
        })
    }
}

impl GatewayRuntime {
    pub(crate) fn new(
        snapshot: Snapshot,
        material: &Material,
        settings: &RuntimeSettings,
        previous: Option<&Self>,
    ) -> anyhow::Result<Self> {
        let listeners = snapshot
            .listeners
            .iter()
            .map(|listener| {
                let tls = match (&listener.tls, listener.protocol) {
                    (None, Protocol::Https) => {
                        bail!("listener `{}` is HTTPS without TLS settings", listener.name)
                    }
                    (_, Protocol::Http) => None,
                    (Some(tls), Protocol::Https) => {
                        let config = server_config(tls, material).map_err(|error| {
                            anyhow!("listener `{}` of Gateway `{}`: {error}", listener.name, snapshot.gateway)
                        })?;
                        let clients = previous
                            .and_then(|previous| previous.listener(listener.port, &listener.name))
                            .and_then(|previous| previous.tls.as_ref())
                            .map(|previous| &previous.clients)
                            .filter(|previous| ***previous == tls.clients)
                            .map_or_else(|| Arc::new(tls.clients.clone()), Arc::clone);
                        Some(ListenerTlsRuntime { config: Arc::new(config), clients })
                    }
                };
                Ok(ListenerRuntime { name: listener.name.as_str().into(), tls })
            })
            .collect::<anyhow::Result<_>>()?;
        let upstreams = snapshot
            .backends
            .iter()
            .map(|(id, backend)| {
                let previous = previous.and_then(|previous| previous.upstreams.get(id));
                let upstream = match previous {
                    Some(same) if same.backend() == backend => Arc::clone(same),
                    previous => {
                        Arc::new(Upstream::new(backend, &settings.upstream, previous.map(Arc::as_ref)))
                    }
                };
                (id.clone(), upstream)
            })
            .collect();
        let authorizers = Arc::new(Authorizers::new(
            &snapshot,
            settings.authorizer_timeout,
            previous.map(|previous| previous.authorizers.as_ref()),
        ));
        let router = Router::new(&snapshot);
        Ok(Self { snapshot, router, upstreams, authorizers, listeners, turn: AtomicU64::new(0) })
    }

    /// The listener of that name on that port.
    pub(crate) fn listener(&self, port: u16, name: &str) -> Option<&ListenerRuntime> {
        self.listener_index(port, name).and_then(|at| self.listeners.get(at))
    }

    pub(crate) fn listener_index(&self, port: u16, name: &str) -> Option<usize> {
        self.snapshot.listeners.iter().position(|listener| listener.port == port && listener.name == name)
    }
}
