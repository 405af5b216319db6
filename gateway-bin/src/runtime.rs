//! One configuration, ready to serve: immutable, swapped as a whole. Connections to backends and authorizers are kept
//! from one to the next where they are the same.
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use anyhow::bail;
use policy_model::NamespacedName;
use rustls::ServerConfig;
use xds_translate::{
    BackendId, ClientCertificates, ListenerTls, Protocol, Router, Snapshot, envoy::processor::clients_digest,
};

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
    /// Why listeners are not served, each named: their certificates or CAs cannot be used.
    pub(crate) faults: Vec<String>,
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
    /// Of an HTTPS listener; `None`: nobody can be served there.
    pub(crate) tls: Option<ListenerTlsRuntime>,
}

/// How a listener does TLS.
#[derive(Debug)]
pub(crate) struct ListenerTlsRuntime {
    /// `None`: another process terminates TLS.
    pub(crate) config: Option<Arc<ServerConfig>>,
    /// The same `Arc` as long as nothing changes: connections that were admitted under other terms are told by it.
    pub(crate) clients: Arc<ClientCertificates>,
    /// The digest of them.
    pub(crate) digest: String,
}

/// What making a runtime needs besides snapshots.
#[derive(Debug)]
pub(crate) struct RuntimeSettings {
    pub(crate) upstream: UpstreamSettings,
    pub(crate) authorizer_timeout: Duration,
    /// Whether this process terminates TLS.
    pub(crate) terminates_tls: bool,
}

impl Runtime {
    /// Makes a runtime of snapshots. A listener that cannot be served is left out and named in `faults`: what else
    /// changed, permissions that were taken back for one, does not wait for it.
    ///
    /// # Errors
    /// Two Gateways that want one port.
    pub(crate) fn new(
        snapshots: Vec<Snapshot>,
        material: Arc<Material>,
        settings: &RuntimeSettings,
        previous: Option<&Self>,
    ) -> anyhow::Result<Self> {
        let mut gateways = Vec::with_capacity(snapshots.len());
        let mut ports = BTreeMap::new();
        let mut faults = Vec::new();
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
                &mut faults,
            )));
        }
        Ok(Self { gateways, ports, material, faults })
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

    /// Ports with a listener that can be served.
    pub(crate) fn ports(&self) -> BTreeSet<u16> {
        let of = |gateway: &Arc<GatewayRuntime>| {
            let listeners = gateway.snapshot.listeners.iter().zip(&gateway.listeners);
            let served = listeners
                .filter(|(listener, runtime)| listener.protocol == Protocol::Http || runtime.tls.is_some());
            served.map(|(listener, _)| listener.port).collect::<Vec<_>>()
        };
        self.gateways.iter().flat_map(of).collect()
    }
}

impl GatewayRuntime {
    pub(crate) fn new(
        snapshot: Snapshot,
        material: &Material,
        settings: &RuntimeSettings,
        previous: Option<&Self>,
        faults: &mut Vec<String>,
    ) -> Self {
        let listeners = snapshot
            .listeners
            .iter()
            .map(|listener| {
                let previous = previous
                    .and_then(|previous| previous.listener(listener.port, &listener.name))
                    .and_then(|previous| previous.tls.as_ref());
                let tls = match listener.protocol {
                    Protocol::Http => None,
                    Protocol::Https => {
                        listener_tls(listener.tls.as_ref(), material, settings.terminates_tls, previous)
                            .map_err(|error| {
                                let (name, gateway) = (&listener.name, &snapshot.gateway);
                                faults.push(format!("listener `{name}` of Gateway `{gateway}`: {error}"));
                            })
                            .ok()
                    }
                };
                ListenerRuntime { name: listener.name.as_str().into(), tls }
            })
            .collect();
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
        Self { snapshot, router, upstreams, authorizers, listeners, turn: AtomicU64::new(0) }
    }

    /// The listener of that name on that port.
    pub(crate) fn listener(&self, port: u16, name: &str) -> Option<&ListenerRuntime> {
        self.listener_index(port, name).and_then(|at| self.listeners.get(at))
    }

    pub(crate) fn listener_index(&self, port: u16, name: &str) -> Option<usize> {
        self.snapshot.listeners.iter().position(|listener| listener.port == port && listener.name == name)
    }
}

fn listener_tls(
    tls: Option<&ListenerTls>,
    material: &Material,
    terminates: bool,
    previous: Option<&ListenerTlsRuntime>,
) -> Result<ListenerTlsRuntime, String> {
    let tls = tls.ok_or("it is HTTPS without TLS settings")?;
    let config = if terminates { Some(Arc::new(server_config(tls, material)?)) } else { None };
    let clients = previous
        .map(|previous| &previous.clients)
        .filter(|previous| ***previous == tls.clients)
        .map_or_else(|| Arc::new(tls.clients.clone()), Arc::clone);
    let digest = clients_digest(&clients);
    Ok(ListenerTlsRuntime { config, clients, digest })
}
