//! A certificate authority, a server, clients.
use std::{
    collections::BTreeMap,
    future::Future,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use envoy_types::pb::{
    envoy::service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
    google::rpc,
};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{PrivateKeyDer, ServerName, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use spiffe_id::{CaPool, IssuedSvid, KeyKind, SpiffeId, SvidRequest, TrustDomain};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot, watch},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};
use xds_server::{Admit, Cache, Counts, Report, Resource, ResourceSet, serve};

pub(crate) const TYPE: &str = "type.googleapis.com/example.v1.Object";
const HOUR: Duration = Duration::from_secs(3600);

pub(crate) async fn deadline<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(20), future).await {
        Ok(done) => done,
        Err(_) => panic!("took too long: {what}"),
    }
}

pub(crate) fn set(of: &[(&str, &str)]) -> Arc<ResourceSet> {
    let resources = of.iter().map(|&(name, body)| (Arc::from(name), Resource::new(body.to_owned())));
    Arc::new(ResourceSet { types: BTreeMap::from([(TYPE.into(), resources.collect())]) })
}

pub(crate) struct Authority {
    pool: CaPool,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let now = SystemTime::now();
        let domain: TrustDomain = "example.org".parse().unwrap();
        let pool =
            CaPool::generate("test", &domain, KeyKind::EcdsaP256, now - HOUR, now + 24 * HOUR).unwrap();
        Self { pool }
    }

    pub(crate) fn issue(&self, id: &str, lasts: Duration) -> IssuedSvid {
        let now = SystemTime::now();
        self.issue_between(id, now - Duration::from_secs(60), now + lasts)
    }

    pub(crate) fn issue_expired(&self, id: &str) -> IssuedSvid {
        let now = SystemTime::now();
        self.issue_between(id, now - HOUR, now - Duration::from_secs(5))
    }

    fn issue_between(&self, id: &str, from: SystemTime, to: SystemTime) -> IssuedSvid {
        let id: SpiffeId = id.parse().unwrap();
        self.pool.issue(&SvidRequest::new(&id, from, to).with_dns_names(&["localhost".to_owned()])).unwrap()
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        for ca in self.pool.cas() {
            roots.add(ca.root().clone()).unwrap();
        }
        Arc::new(roots)
    }

    fn server(&self) -> Arc<ServerConfig> {
        let svid = self.issue("spiffe://example.org/ns/system/sa/control-plane", HOUR);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(self.roots(), Arc::clone(&provider)).build().unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(svid.chain.clone(), key(&svid))
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    }

    /// A client that trusts this authority's servers.
    pub(crate) fn client(&self, svid: Option<&IssuedSvid>, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots());
        let mut config = match svid {
            Some(svid) => builder.with_client_auth_cert(svid.chain.clone(), key(svid)).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    }
}

fn key(svid: &IssuedSvid) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(svid.key_pem.as_ref().unwrap().as_bytes()).unwrap()
}

/// Clients of `example.org` belong to the group that their namespace names, `east` or `west`.
pub(crate) struct Server {
    pub(crate) cache: Cache,
    pub(crate) address: SocketAddr,
    tls: watch::Sender<Arc<ServerConfig>>,
    group: Arc<Mutex<Option<&'static str>>>,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<tokio::task::JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(authority: &Authority) -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let (tls, receiver) = watch::channel(authority.server());
        let group = Arc::new(Mutex::new(None));
        let moved = Arc::clone(&group);
        let domain: TrustDomain = "example.org".parse().unwrap();
        let admit: Admit = Arc::new(move |id| {
            let namespace = id.service_account().filter(|_| id.is_member_of(&domain))?.namespace;
            let group = moved.lock().unwrap().unwrap_or(namespace);
            ["east", "west"].contains(&group).then(|| group.into())
        });
        let cache = Cache::default();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        let serving = serve(listener, receiver, admit, cache.clone(), shutdown);
        let serving = tokio::spawn(async { serving.await.unwrap() });
        Self { cache, address, tls, group, stop: Some(stop), serving: Some(serving) }
    }

    pub(crate) fn trust(&self, authority: &Authority) {
        self.tls.send_replace(authority.server());
    }

    pub(crate) fn move_everybody_to(&self, group: &'static str) {
        *self.group.lock().unwrap() = Some(group);
    }

    /// Begins to end the server; the future is ready when it has ended.
    pub(crate) fn stop(&mut self) -> impl Future<Output = ()> + use<> {
        self.stop.take().unwrap().send(()).unwrap();
        let serving = self.serving.take().unwrap();
        async { serving.await.unwrap() }
    }

    /// The reports once they are as expected.
    pub(crate) async fn reports(&self, expected: impl Fn(&[Report]) -> bool) -> Vec<Report> {
        let mut changed = self.cache.reports_changed();
        deadline("a report", async {
            loop {
                changed.mark_unchanged();
                let reports = self.cache.reports();
                if expected(&reports) {
                    return reports;
                }
                changed.changed().await.unwrap();
            }
        })
        .await
    }

    /// Waits until a client of a group has acknowledged a version.
    pub(crate) async fn acknowledged(&self, group: &str, version: &str) {
        self.reports(|reports| {
            reports.iter().any(|report| {
                &*report.group == group
                    && report.acknowledged.get(TYPE).is_some_and(|acknowledged| &**acknowledged == version)
                    && !report.refused.contains_key(TYPE)
            })
        })
        .await;
    }

    pub(crate) async fn until(&self, what: &str, expected: impl Fn(Counts) -> bool) {
        deadline(what, async {
            while !expected(self.cache.counts()) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    }
}

pub(crate) struct Client {
    ads: AggregatedDiscoveryServiceClient<Channel>,
}

impl Client {
    pub(crate) async fn connect(server: &Server, authority: &Authority, id: &str) -> Self {
        let svid = authority.issue(id, HOUR);
        Self::with(server.address, Some(authority.client(Some(&svid), &[b"h2"]))).await.unwrap()
    }

    pub(crate) async fn with(address: SocketAddr, tls: Option<Arc<ClientConfig>>) -> Result<Self, String> {
        let endpoint = Endpoint::from_static("http://localhost");
        let channel = match tls {
            None => {
                let connect = move |_| async move { TcpStream::connect(address).await.map(TokioIo::new) };
                endpoint.connect_with_connector(tower::service_fn(connect)).await
            }
            Some(tls) => {
                let connector = tokio_rustls::TlsConnector::from(tls);
                let connect = move |_| {
                    let connector = connector.clone();
                    async move {
                        let stream = TcpStream::connect(address).await?;
                        let name = ServerName::try_from("localhost").unwrap();
                        connector.connect(name, stream).await.map(TokioIo::new)
                    }
                };
                endpoint.connect_with_connector(tower::service_fn(connect)).await
            }
        };
        let channel = channel.map_err(|error| error.to_string())?;
        Ok(Self { ads: AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(256 << 20) })
    }

    /// A connection alone, on which nothing is said.
    pub(crate) async fn handshake(
        address: SocketAddr,
        authority: &Authority,
        id: &str,
    ) -> tokio_rustls::client::TlsStream<TcpStream> {
        let svid = authority.issue(id, HOUR);
        let connector = tokio_rustls::TlsConnector::from(authority.client(Some(&svid), &[b"h2"]));
        let stream = TcpStream::connect(address).await.unwrap();
        connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap()
    }

    pub(crate) async fn delta(
        &mut self,
        request: DeltaDiscoveryRequest,
    ) -> Result<Stream<DeltaDiscoveryRequest, DeltaDiscoveryResponse>, Status> {
        let (requests, receiver) = mpsc::channel(8);
        requests.send(DeltaDiscoveryRequest { type_url: TYPE.into(), ..request }).await.unwrap();
        let call = self.ads.delta_aggregated_resources(ReceiverStream::new(receiver));
        let responses = deadline("a stream", call).await?.into_inner();
        Ok(Stream { requests, responses })
    }

    /// A stream without a request.
    pub(crate) async fn silent(
        &mut self,
    ) -> Result<Stream<DeltaDiscoveryRequest, DeltaDiscoveryResponse>, Status> {
        let (requests, receiver) = mpsc::channel(8);
        let call = self.ads.delta_aggregated_resources(ReceiverStream::new(receiver));
        let responses = deadline("a stream", call).await?.into_inner();
        Ok(Stream { requests, responses })
    }

    pub(crate) async fn world(
        &mut self,
        request: DiscoveryRequest,
    ) -> Result<Stream<DiscoveryRequest, DiscoveryResponse>, Status> {
        let (requests, receiver) = mpsc::channel(8);
        requests.send(DiscoveryRequest { type_url: TYPE.into(), ..request }).await.unwrap();
        let call = self.ads.stream_aggregated_resources(ReceiverStream::new(receiver));
        let responses = deadline("a stream", call).await?.into_inner();
        Ok(Stream { requests, responses })
    }
}

#[derive(Debug)]
pub(crate) struct Stream<Q, R> {
    requests: mpsc::Sender<Q>,
    responses: Streaming<R>,
}

impl<Q, R> Stream<Q, R> {
    pub(crate) async fn next(&mut self) -> Result<R, Status> {
        deadline("a response", self.responses.message()).await.map(|response| response.expect("the end"))
    }

    pub(crate) async fn send(&self, request: Q) {
        assert!(self.requests.send(request).await.is_ok(), "the stream is closed");
    }
}

impl Stream<DeltaDiscoveryRequest, DeltaDiscoveryResponse> {
    pub(crate) async fn ack(&self, response: &DeltaDiscoveryResponse) {
        self.answer(response, None).await;
    }

    pub(crate) async fn answer(&self, response: &DeltaDiscoveryResponse, error_detail: Option<rpc::Status>) {
        let (type_url, response_nonce) = (response.type_url.clone(), response.nonce.clone());
        self.send(DeltaDiscoveryRequest { type_url, response_nonce, error_detail, ..Default::default() })
            .await;
    }

    /// `a=1` for resources, `-a` for removals, by name.
    pub(crate) fn contents(&self, response: &DeltaDiscoveryResponse) -> Vec<String> {
        let mut contents: Vec<_> = response
            .resources
            .iter()
            .map(|resource| {
                let body = String::from_utf8(resource.resource.as_ref().unwrap().value.clone()).unwrap();
                (resource.name.as_str(), format!("{}={body}", resource.name))
            })
            .chain(response.removed_resources.iter().map(|name| (name.as_str(), format!("-{name}"))))
            .collect();
        contents.sort();
        contents.into_iter().map(|(_, text)| text).collect()
    }
}

impl Stream<DiscoveryRequest, DiscoveryResponse> {
    pub(crate) async fn ack(&self, response: &DiscoveryResponse) {
        self.send(DiscoveryRequest {
            type_url: response.type_url.clone(),
            version_info: response.version_info.clone(),
            response_nonce: response.nonce.clone(),
            ..Default::default()
        })
        .await;
    }

    pub(crate) fn bodies(&self, response: &DiscoveryResponse) -> Vec<String> {
        response.resources.iter().map(|any| String::from_utf8(any.value.clone()).unwrap()).collect()
    }
}
