//! The controller's half on loopback: its index, its discovery server, an identity. No Kubernetes.
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use agentic_controller::index::{Index, Settings};
use agentic_gateway::tls::{certified_key, provider};
use policy_model::NamespacedName;
use prost::Message as _;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use serde::Deserialize as _;
use serde_json::Value;
use spiffe_id::{CaPool, SpiffeId, SvidRequest};
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
    task::JoinHandle,
};
use xds_server::{Admit, Cache, Report, Resource, ResourceSet, serve};
use xds_translate::{Options, native};

pub(crate) const CONTROLLER: &str = "spiffe://cluster.local/ns/agentic-net-system/sa/agentic-controller";
const HOUR: Duration = Duration::from_secs(3600);

/// A discovery server that runs.
#[derive(Debug)]
pub(crate) struct Controller {
    pub(crate) cache: Cache,
    pub(crate) address: SocketAddr,
    end: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Controller {
    /// Serves clients of one CA; `members`: identities, and the Gateway that each belongs to.
    pub(crate) async fn start(ca: &CaPool, members: &[(&str, &str)]) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), ca, members, Cache::default()).await
    }

    /// The same at an address that was another's before.
    pub(crate) async fn start_at(
        address: SocketAddr,
        ca: &CaPool,
        members: &[(&str, &str)],
        cache: Cache,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_, tls) = watch::channel(Arc::new(tls(ca)));
        let members: BTreeMap<String, Arc<str>> =
            members.iter().map(|(id, group)| ((*id).to_owned(), Arc::from(*group))).collect();
        let admit: Admit = Arc::new(move |id: &SpiffeId| members.get(id.as_str()).cloned());
        let (end, ended) = oneshot::channel();
        let served = serve(listener, tls, admit, cache.clone(), async move { drop(ended.await) });
        let serving = tokio::spawn(async move { served.await.unwrap() });
        Self { cache, address, end, serving }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The version of the objects that a Gateway is to have.
    pub(crate) fn version(&self, gateway: &str) -> Arc<str> {
        self.cache.set(gateway).unwrap().version_of(native::OBJECT)
    }

    /// Whether so many proxies of a Gateway have acknowledged all that it is to have.
    pub(crate) fn has_acknowledged(&self, gateway: &str, proxies: usize) -> bool {
        let version = self.version(gateway);
        let reports = self.cache.reports();
        let of_gateway = reports.iter().filter(|report| *report.group == *gateway);
        of_gateway.filter(|report| report.acknowledged.get(native::OBJECT) == Some(&version)).count()
            == proxies
    }

    /// Waits until there are exactly these clients, by the types that each takes, with all that they are to have.
    pub(crate) async fn until_fed(&self, clients: &[&[&str]], ready: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        let has_all = |report: &Report, types: &[&str]| {
            let set = self.cache.set(&report.group).unwrap_or_default();
            types.iter().all(|url| report.acknowledged.get(*url) == Some(&set.version_of(url)))
        };
        let is_fed = || {
            let reports = self.cache.reports();
            reports.len() == clients.len()
                && clients.iter().all(|types| reports.iter().any(|report| has_all(report, types)))
                && ready()
        };
        while !is_fed() {
            assert!(Instant::now() < deadline, "{:?}", self.cache.reports());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn stop(self) {
        drop(self.end);
        self.serving.await.unwrap();
    }
}

fn tls(ca: &CaPool) -> ServerConfig {
    let now = SystemTime::now();
    let id: SpiffeId = CONTROLLER.parse().unwrap();
    let svid = ca.issue(&SvidRequest::new(&id, now - HOUR, now + HOUR)).unwrap();
    let key = certified_key(svid.chain_pem().as_bytes(), svid.key_pem.unwrap().as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(ca.roots_pem().as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider())).build().unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)));
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// What the controller would publish for a Gateway of these manifests.
pub(crate) fn resources(manifests: &[&str], gateway: &str, options: &Options) -> Arc<ResourceSet> {
    let mut index = Index::new(Settings { options: options.clone() });
    for text in manifests {
        for document in serde_yaml_ng::Deserializer::from_str(text) {
            let mut object = Value::deserialize(document).unwrap();
            // As an API server does.
            if let Some(reference) = native::object_ref(&object)
                && !reference.namespace.is_empty()
            {
                object["metadata"]["namespace"] = reference.namespace.into();
            }
            if !object.is_null() {
                index.apply(&object);
            }
        }
    }
    let (namespace, name) = gateway.split_once('/').unwrap();
    let mut outcome = index.outcome();
    outcome.gateways.remove(&NamespacedName::new(namespace, name)).unwrap().resources
}

/// The same with session keys.
pub(crate) fn with_session_keys(set: &ResourceSet, keys: &[[u8; 32]]) -> Arc<ResourceSet> {
    let body = native::SessionKeys { keys: keys.iter().map(|key| key.to_vec()).collect() }.encode_to_vec();
    let mut set = set.clone();
    let keys = BTreeMap::from([(Arc::from("session-keys"), Resource::new(body))]);
    set.types.insert(native::SESSION_KEYS.into(), keys);
    Arc::new(set)
}
