//! What all loops of the node share: clients, what the API server has, what runs.
use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use k8s_openapi::{
    api::{
        certificates::v1beta1::{ClusterTrustBundle, PodCertificateRequest},
        core::v1::{ConfigMap, Event, EventSource, Pod, Secret, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{ObjectMeta, PostParams},
    runtime::{
        WatchStreamExt as _,
        reflector::{self, ObjectRef, Store},
        utils::Backoff,
        watcher,
    },
};
use tokio::{sync::watch, task::JoinSet};

use super::{NODE_NAME, NodeOptions, sandbox::Network};

/// How long until something that failed is tried again: short, since tests wait for it.
pub(super) const RETRY: Duration = Duration::from_millis(200);

/// A signal that something changed; how often says nothing.
#[derive(Debug, Clone, Default)]
pub(super) struct Signal(watch::Sender<()>);

impl Signal {
    pub(super) fn send(&self) {
        self.0.send_replace(());
    }

    /// Sees every change from now on.
    pub(super) fn subscribe(&self) -> watch::Receiver<()> {
        self.0.subscribe()
    }
}

/// Waits for a change, or for the time after which to look again anyway.
pub(super) async fn changed_or(changed: &mut watch::Receiver<()>, at_most: Duration) {
    // The error, that nobody sends any more, comes when everything ends: then the time passes.
    let change = async {
        if changed.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    drop(tokio::time::timeout(at_most, change).await);
}

/// Namespace and name.
pub(super) type Key = (String, String);

/// What the outside may ask of a Pod that runs or ran.
#[derive(Debug, Clone, Default)]
pub(super) struct Record {
    /// The folder with a folder of logs for each container.
    pub(super) logs: PathBuf,
    /// Running containers' programs.
    pub(super) pids: BTreeMap<String, u32>,
}

pub(super) struct Context {
    pub(super) dir: PathBuf,
    pub(super) options: NodeOptions,
    /// An administrator: what scheduler, load balancer and DNS do, and all watches.
    pub(super) admin: Client,
    /// The node's own identity: what a kubelet writes, checked by the API server as a kubelet's.
    pub(super) node: Client,
    pub(super) node_uid: String,
    pub(super) pods: Store<Pod>,
    pub(super) config_maps: Store<ConfigMap>,
    pub(super) secrets: Store<Secret>,
    pub(super) bundles: Store<ClusterTrustBundle>,
    pub(super) requests: Store<PodCertificateRequest>,
    pub(super) services: Store<Service>,
    pub(super) slices: Store<EndpointSlice>,
    pub(super) pods_changed: Signal,
    /// ConfigMaps, Secrets, ClusterTrustBundles, PodCertificateRequests.
    pub(super) sources_changed: Signal,
    /// Services and EndpointSlices.
    pub(super) services_changed: Signal,
    records: Mutex<BTreeMap<Key, Record>>,
    networks: Mutex<u16>,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Context {
    /// Connects; the watches run in `tasks`.
    pub(super) fn new(
        dir: PathBuf,
        options: NodeOptions,
        (admin, node, node_uid): (Client, Client, String),
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let (pods_changed, sources_changed, services_changed) =
            (Signal::default(), Signal::default(), Signal::default());
        Self {
            pods: follow(&admin, &pods_changed, tasks),
            config_maps: follow(&admin, &sources_changed, tasks),
            secrets: follow(&admin, &sources_changed, tasks),
            bundles: follow(&admin, &sources_changed, tasks),
            requests: follow(&admin, &sources_changed, tasks),
            services: follow(&admin, &services_changed, tasks),
            slices: follow(&admin, &services_changed, tasks),
            dir,
            options,
            admin,
            node,
            node_uid,
            pods_changed,
            sources_changed,
            services_changed,
            records: Mutex::default(),
            networks: Mutex::default(),
        }
    }

    pub(super) fn config_map(&self, namespace: &str, name: &str) -> Option<Arc<ConfigMap>> {
        self.config_maps.get(&ObjectRef::new(name).within(namespace))
    }

    pub(super) fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Secret>> {
        self.secrets.get(&ObjectRef::new(name).within(namespace))
    }

    /// A network that no Pod had before.
    pub(super) fn network(&self) -> anyhow::Result<Network> {
        let mut next = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
        let network = Network::new(*next)?;
        *next = next.checked_add(1).context("no more networks")?;
        Ok(network)
    }

    /// Changes what is known of a Pod.
    pub(super) fn record(&self, key: &Key, change: impl FnOnce(&mut Record)) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        change(records.entry(key.clone()).or_default());
    }

    pub(super) fn recorded(&self, namespace: &str, pod: &str) -> Option<Record> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.get(&(namespace.to_owned(), pod.to_owned())).cloned()
    }

    /// An Event about a Pod. That it cannot be written is not worth more than a line.
    pub(super) async fn event(&self, pod: &Pod, kind: &str, reason: &str, message: String) {
        let namespace = pod.namespace().unwrap_or_default();
        let now = Time(now());
        let event = Event {
            metadata: ObjectMeta {
                generate_name: Some(format!("{}-", pod.name_any())),
                ..ObjectMeta::default()
            },
            involved_object: pod.object_ref(&()),
            type_: Some(kind.to_owned()),
            reason: Some(reason.to_owned()),
            // The API allows 1 kB.
            message: Some(message.chars().take(1000).collect()),
            source: Some(EventSource { component: Some("kubelet".into()), host: Some(NODE_NAME.into()) }),
            first_timestamp: Some(now.clone()),
            last_timestamp: Some(now),
            count: Some(1),
            ..Event::default()
        };
        let events: Api<Event> = Api::namespaced(self.node.clone(), &namespace);
        match events.create(&PostParams::default(), &event).await {
            Ok(_) => {}
            // Its namespace is going away.
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => {}
            Err(error) => eprintln!("node: {namespace}/{}: no event `{reason}`: {error}", pod.name_any()),
        }
    }
}

/// Always the same short time: the API server is on this machine and tests restart it.
#[derive(Debug)]
struct Again;

impl Iterator for Again {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(RETRY)
    }
}

impl Backoff for Again {
    fn reset(&mut self) {}
}

/// Keeps all objects of a kind at hand and signals each change.
fn follow<K>(client: &Client, changed: &Signal, tasks: &mut JoinSet<()>) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + fmt::Debug + serde::de::DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let objects = watcher(Api::<K>::all(client.clone()), watcher::Config::default()).backoff(Again);
    let changed = changed.clone();
    tasks.spawn(async move {
        let mut events = std::pin::pin!(reflector::reflector(writer, objects));
        let mut complained = false;
        while let Some(event) = events.next().await {
            match event {
                Ok(_) => {
                    complained = false;
                    changed.send();
                }
                // Once, not five times a second while the API server is away.
                Err(error) if !complained => {
                    complained = true;
                    eprintln!("node: {} are not seen: {error}", K::plural(&()));
                }
                Err(_) => {}
            }
        }
    });
    store
}

/// Now, as the API writes it.
pub(super) fn now() -> Timestamp {
    Timestamp::now()
}
