//! Load balancers: an address for each Service of type LoadBalancer, and TCP forwarders to its ready endpoints.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams},
};
use tokio::{
    net::{TcpListener, TcpStream},
    process::Command,
    sync::watch,
    task::JoinSet,
};

use super::{
    context::{Context, Key, RETRY, changed_or},
    hosts::Hosts,
    sandbox::succeed,
};

/// Changes that come together are worked off together.
const SETTLE: Duration = Duration::from_millis(20);
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// A load balancer tries a backend for so long.
const CONNECT: Duration = Duration::from_secs(5);

/// Keeps load balancers and the hosts file as Services and EndpointSlices say.
pub(super) async fn run(context: Arc<Context>, mut hosts: Hosts) {
    let mut changed = context.services_changed.subscribe();
    let mut balancers = Balancers::default();
    loop {
        let services = context.services.state();
        let slices = context.slices.state();
        let slices = by_service(&slices);
        if let Err(error) = hosts.write(&services, &slices, &context.options.external_names) {
            eprintln!("node: hosts file not written: {error:#}");
        }
        let again = match balancers.bring_up_to_date(&context, &services, &slices).await {
            Ok(()) => LOOK_AGAIN,
            Err(error) => {
                eprintln!("node: load balancers: {error:#}");
                RETRY
            }
        };
        changed_or(&mut changed, again).await;
        tokio::time::sleep(SETTLE).await;
    }
}

#[derive(Debug, Default)]
struct Balancers {
    addresses: BTreeMap<Key, Ipv4Addr>,
    forwarders: BTreeMap<SocketAddr, Forwarder>,
}

impl Balancers {
    async fn bring_up_to_date(
        &mut self,
        context: &Context,
        services: &[Arc<Service>],
        slices: &Slices<'_>,
    ) -> anyhow::Result<()> {
        let balanced: Vec<_> = services.iter().filter(|service| is_balanced(service)).collect();
        let keys: BTreeSet<_> = balanced.iter().map(|service| key(service)).collect();
        let gone: Vec<_> = self.addresses.keys().filter(|key| !keys.contains(*key)).cloned().collect();
        for key in gone {
            if let Some(address) = self.addresses.remove(&key) {
                self.forwarders.retain(|at, _| at.ip() != IpAddr::V4(address));
                ip_address("del", address).await?;
            }
        }
        let mut wanted = BTreeSet::new();
        for service in balanced {
            let address = self.address(service).await?;
            publish(context, service, address).await?;
            for (port, backends) in backends(service, slices) {
                let at = SocketAddr::from((address, port));
                wanted.insert(at);
                let forwarder = self.forwarders.entry(at).or_insert_with(|| Forwarder::new(at));
                forwarder.backends.send_if_modified(|known| {
                    let other = *known != backends;
                    *known = backends;
                    other
                });
            }
        }
        self.forwarders.retain(|at, _| wanted.contains(at));
        Ok(())
    }

    /// The Service's address; a new one is put on the loopback interface of the cluster's network.
    async fn address(&mut self, service: &Service) -> anyhow::Result<Ipv4Addr> {
        let key = key(service);
        if let Some(address) = self.addresses.get(&key) {
            return Ok(*address);
        }
        let taken: BTreeSet<_> = self.addresses.values().copied().collect();
        let address = free(&taken).context("no more addresses for load balancers")?;
        ip_address("add", address).await?;
        self.addresses.insert(key, address);
        Ok(address)
    }
}

/// A class means somebody else's load balancer.
fn is_balanced(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.is_some_and(|spec| {
        spec.type_.as_deref() == Some("LoadBalancer") && spec.load_balancer_class.is_none()
    }) && service.metadata.deletion_timestamp.is_none()
}

pub(super) fn key(service: &Service) -> Key {
    (service.namespace().unwrap_or_default(), service.name_any())
}

/// The first address of 10.245.0.0/16 that nobody has, from 10.245.0.1.
fn free(taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    let addresses = (0..=255).flat_map(|third| (1..=254).map(move |fourth| [10, 245, third, fourth]));
    addresses.map(Ipv4Addr::from).find(|address| !taken.contains(address))
}

/// Takes away what a node that was here before has left.
pub(super) async fn clean() -> anyhow::Result<()> {
    succeed(Command::new("ip").args(["address", "flush", "dev", "lo", "to", "10.245.0.0/16"])).await
}

async fn ip_address(what: &str, address: Ipv4Addr) -> anyhow::Result<()> {
    succeed(Command::new("ip").args(["address", what, &format!("{address}/32"), "dev", "lo"])).await
}

/// Writes the address into the Service's status, if it is not there.
async fn publish(context: &Context, service: &Service, address: Ipv4Addr) -> anyhow::Result<()> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_deref()).unwrap_or_default();
    let address = address.to_string();
    if matches!(ingress, [only] if only.ip.as_ref() == Some(&address)) {
        return Ok(());
    }
    let (namespace, name) = key(service);
    let services: Api<Service> = Api::namespaced(context.admin.clone(), &namespace);
    let status = serde_json::json!({"loadBalancer": {"ingress": [{"ip": address, "ipMode": "Proxy"}]}});
    let patch = Patch::Merge(serde_json::json!({"status": status}));
    match services.patch_status(&name, &PatchParams::default(), &patch).await {
        // Gone meanwhile, as the watch will say.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop).with_context(|| format!("status of Service `{namespace}/{name}`")),
    }
}

/// EndpointSlices by the Service that they are of. IPv4 only, as the cluster.
pub(super) type Slices<'a> = BTreeMap<Key, Vec<&'a EndpointSlice>>;

pub(super) fn by_service(slices: &[Arc<EndpointSlice>]) -> Slices<'_> {
    let mut all = Slices::new();
    for slice in slices.iter().map(AsRef::as_ref).filter(|slice| slice.address_type == "IPv4") {
        if let Some(service) = slice.labels().get("kubernetes.io/service-name") {
            let key = (slice.namespace().unwrap_or_default(), service.clone());
            all.entry(key).or_default().push(slice);
        }
    }
    all
}

/// Addresses of a slice's endpoints that are ready; not to say so means that they are.
pub(super) fn ready(slice: &EndpointSlice) -> impl Iterator<Item = IpAddr> {
    let endpoints = slice.endpoints.iter().flatten();
    let ready = endpoints.filter(|endpoint| {
        endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
    });
    ready.flat_map(|endpoint| endpoint.addresses.iter().filter_map(|address| address.parse().ok()))
}

/// Where each of a Service's TCP ports leads: ready endpoints of its slices, at the slice's port of the same name.
fn backends(service: &Service, slices: &Slices<'_>) -> BTreeMap<u16, Vec<SocketAddr>> {
    let mut all = BTreeMap::new();
    let slices = slices.get(&key(service)).map(Vec::as_slice).unwrap_or_default();
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    for port in ports.filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP") {
        let Ok(number) = u16::try_from(port.port) else { continue };
        let name = port.name.as_deref().unwrap_or_default();
        let mut backends = BTreeSet::new();
        for slice in slices {
            let same = slice.ports.iter().flatten().filter(|p| p.name.as_deref().unwrap_or_default() == name);
            for target in same.filter_map(|port| u16::try_from(port.port?).ok()) {
                backends.extend(ready(slice).map(|address| SocketAddr::new(address, target)));
            }
        }
        all.insert(number, backends.into_iter().collect());
    }
    all
}

/// A port of a load balancer. Ends, with its connections, when it is dropped.
#[derive(Debug)]
struct Forwarder {
    backends: watch::Sender<Vec<SocketAddr>>,
    _task: JoinSet<()>,
}

impl Forwarder {
    fn new(at: SocketAddr) -> Self {
        let (backends, receiver) = watch::channel(Vec::new());
        let mut task = JoinSet::new();
        task.spawn(forward(at, receiver));
        Self { backends, _task: task }
    }
}

/// Listens while there is a backend, so that connections are refused while there is none. Connections that were made stay,
/// whatever becomes of their backend.
async fn forward(at: SocketAddr, mut backends: watch::Receiver<Vec<SocketAddr>>) {
    let mut connections = JoinSet::new();
    let mut turn: usize = 0;
    loop {
        if backends.wait_for(|backends| !backends.is_empty()).await.is_err() {
            return;
        }
        let listener = match TcpListener::bind(at).await {
            Ok(listener) => listener,
            Err(error) => {
                eprintln!("node: load balancer {at}: {error}");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                changed = backends.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if backends.borrow_and_update().is_empty() {
                        break;
                    }
                    continue;
                }
                Some(_) = connections.join_next() => continue,
            };
            if let Ok((client, _)) = accepted {
                let mut tries = backends.borrow().clone();
                let start = turn.checked_rem(tries.len()).unwrap_or(0);
                tries.rotate_left(start);
                turn = turn.wrapping_add(1);
                connections.spawn(connect(client, tries));
            }
        }
    }
}

/// To the first that accepts.
async fn connect(mut client: TcpStream, backends: Vec<SocketAddr>) {
    for backend in backends {
        if let Ok(Ok(mut server)) = tokio::time::timeout(CONNECT, TcpStream::connect(backend)).await {
            if client.set_nodelay(true).and(server.set_nodelay(true)).is_ok() {
                // However it ends, it has ended.
                drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
            }
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn service() -> Service {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"type": "LoadBalancer", "ports": [
                {"name": "http", "port": 80, "targetPort": 8080},
                {"name": "tls", "port": 443},
                {"name": "dns", "port": 53, "protocol": "UDP"},
            ]},
        }))
        .unwrap()
    }

    fn slice(namespace: &str, service: &str, endpoints: serde_json::Value) -> Arc<EndpointSlice> {
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {
                    "name": "s", "namespace": namespace, "labels": {"kubernetes.io/service-name": service},
                },
                "addressType": "IPv4",
                "endpoints": endpoints,
                "ports": [{"name": "http", "port": 8080}],
            }))
            .unwrap(),
        )
    }

    #[test]
    fn ports_lead_to_ready_endpoints() {
        let slices = [
            slice(
                "shop",
                "web",
                json!([
                    {"addresses": ["10.244.1.2"], "conditions": {"ready": true}},
                    {"addresses": ["10.244.1.3"], "conditions": {"ready": false}},
                    {"addresses": ["10.244.1.4"]},
                ]),
            ),
            slice("shop", "web", json!([{"addresses": ["10.244.1.2"]}])),
            slice("shop", "other", json!([{"addresses": ["10.244.1.5"]}])),
            slice("else", "web", json!([{"addresses": ["10.244.1.6"]}])),
        ];
        let expected = BTreeMap::from([
            (80, vec!["10.244.1.2:8080".parse().unwrap(), "10.244.1.4:8080".parse().unwrap()]),
            (443, vec![]),
        ]);
        assert_eq!(backends(&service(), &by_service(&slices)), expected);
    }

    #[test]
    fn addresses_are_used_again() {
        let mut taken = BTreeSet::new();
        assert_eq!(free(&taken), Some(Ipv4Addr::new(10, 245, 0, 1)));
        taken.extend([Ipv4Addr::new(10, 245, 0, 1), Ipv4Addr::new(10, 245, 0, 3)]);
        assert_eq!(free(&taken), Some(Ipv4Addr::new(10, 245, 0, 2)));
    }

    /// A server that says its name to whoever comes.
    async fn server(name: &'static str) -> (SocketAddr, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut task = JoinSet::new();
        task.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.write_all(name.as_bytes()).await.unwrap();
            }
        });
        (address, task)
    }

    async fn ask(at: SocketAddr) -> Option<String> {
        let mut said = String::new();
        TcpStream::connect(at).await.ok()?.read_to_string(&mut said).await.ok()?;
        Some(said)
    }

    #[tokio::test]
    async fn connections_go_round_and_are_refused_without_a_backend() {
        let at = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let ((one, _one), (two, _two)) = (server("one").await, server("two").await);
        let forwarder = Forwarder::new(at);
        assert_eq!(ask(at).await, None);
        forwarder.backends.send_replace(vec![one, two]);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(at).await.is_err() {
            assert!(tokio::time::Instant::now() < deadline, "nothing listens");
            tokio::task::yield_now().await;
        }
        let mut answers = [ask(at).await.unwrap(), ask(at).await.unwrap()];
        answers.sort();
        assert_eq!(answers, ["one", "two"]);
        forwarder.backends.send_replace(vec![]);
        while ask(at).await.is_some() {
            assert!(tokio::time::Instant::now() < deadline, "it still listens");
            tokio::task::yield_now().await;
        }
    }
}
