//! What a running gateway needs around it: servers that record, an authorizer, and certificates for everybody.
use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use agentic_gateway::{
    AccessLog, Gateway, Processor,
    cli::{Cli, Command},
    session::{Session, SessionKeys},
    tls::{ExtraRoots, IdentityFiles, certified_key, provider, sidecar_config},
};
use bytes::Bytes;
use clap::Parser as _;
use ext_authz::{Allowed, Authorizer, CheckedRequest, Denied, authorizer_service};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use policy_model::NamespacedName;
use rustls::{ClientConfig, ServerConfig, pki_types::ServerName};
use serde::Deserialize as _;
use serde_json::{Value, json};
use spiffe_id::{CaPool, IssuedSvid, KeyKind, SpiffeId, SvidRequest, TrustDomain};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use xds_server::ResourceSet;
use xds_translate::{
    BackendId, ClientCertificates, Objects, Options,
    envoy::{
        Resolve,
        processor::{self, clients_digest},
    },
    native,
};

use super::{
    controller::{CONTROLLER, Controller, resources, with_session_keys},
    envoy::{Envoy, escaped},
    real_envoy::{Pair, Program, Source},
    wire::Wire,
};

/// Each request of a test carries an id of its own in this header.
pub(crate) const CASE_ID: &str = "x-case-id";
const REMOTE_HOST: &str = "mcp.deepwiki.com";
pub(crate) const NAMESPACE: &str = "quickstart-ns";
/// The Gateway of the base.
pub(crate) const GATEWAY: &str = "quickstart-ns/agentic-net-gateway";
const BASE: &str = include_str!("../cases/base.yaml");
const SESSION_KEY: [u8; 32] = [7; 32];
const HOUR: Duration = Duration::from_secs(3600);
/// Longer than any response is given.
const YEARS: Duration = Duration::from_secs(800 * 24 * 3600);
/// Listener names of the base, and their ports.
pub(crate) const LISTENERS: [(&str, u16); 3] = [("https", 10_001), ("plain", 10_002), ("https2", 10_003)];

/// A request as a server saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Which server.
    pub(crate) upstream: &'static str,
    pub(crate) method: String,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    /// The id; several lines count as one that no test sends.
    pub(crate) fn id(&self) -> String {
        let lines: Vec<_> = self
            .headers
            .get_all(CASE_ID)
            .iter()
            .map(|line| String::from_utf8_lossy(line.as_bytes()))
            .collect();
        lines.join("; ")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// The servers' and the authorizers' common memory.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// With numbers of their own.
    seen: Mutex<Vec<(u64, Seen)>>,
    number: AtomicU64,
    asked: Mutex<Vec<String>>,
    allowing: AtomicBool,
}

impl Memory {
    /// What the servers have seen since the last call.
    pub(crate) fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().unwrap()).into_iter().map(|(_, seen)| seen).collect()
    }

    /// A request's head has come: also what never comes to its end has reached a server.
    fn see(&self, seen: Seen) -> u64 {
        let number = self.number.fetch_add(1, Ordering::SeqCst);
        self.seen.lock().unwrap().push((number, seen));
        number
    }

    fn see_body(&self, number: u64, body: &Bytes) {
        if let Some((_, seen)) = self.seen.lock().unwrap().iter_mut().find(|(of, _)| *of == number) {
            seen.body = body.clone();
        }
    }

    /// The ids that the authorizers were asked about since the last call.
    pub(crate) fn take_asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    /// What the authorizers say from now on.
    pub(crate) fn authorizers_allow(&self, allowing: bool) {
        self.allowing.store(allowing, Ordering::SeqCst);
    }

    fn ask(&self, id: Option<&str>) -> bool {
        self.asked.lock().unwrap().push(id.unwrap_or("no id").to_owned());
        self.allowing.load(Ordering::SeqCst)
    }
}

/// What gateways are, and where they get their configuration from.
#[derive(Debug)]
pub(crate) enum Feed {
    /// Our own gateway, which reads files.
    Files,
    /// Our own gateway, fed by a controller.
    Controller(Controller),
    /// Files, of a processor with a stand-in for Envoy before it.
    Processor,
    /// An Envoy.
    Envoy(Program, Source),
}

/// Everything around the gateways.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) memory: Arc<Memory>,
    dir: TempDir,
    cas: BTreeMap<&'static str, CaPool>,
    clients: Mutex<HashMap<String, Arc<ClientConfig>>>,
    /// Port of the server behind a Service; the last serves every Service that is not named.
    services: [(&'static str, u16); 2],
    grpc_authorizer: u16,
    http_authorizer: u16,
    remote: SocketAddr,
}

impl World {
    pub(crate) async fn start() -> Self {
        let memory = Arc::new(Memory::default());
        let now = SystemTime::now();
        let dir = tempfile::tempdir().unwrap();
        let ca = |domain: &str| {
            CaPool::generate(
                "1",
                &domain.parse().unwrap(),
                KeyKind::EcdsaP256,
                now - HOUR,
                now + YEARS + HOUR,
            )
            .unwrap()
        };
        let cas = BTreeMap::from(["cluster.local", "other.domain"].map(|domain| (domain, ca(domain))));
        let public = ca(REMOTE_HOST);
        fs::write(dir.path().join("public.pem"), public.roots_pem()).unwrap();
        fs::write(dir.path().join("other.pem"), cas["other.domain"].roots_pem()).unwrap();
        fs::write(dir.path().join("session.key"), SESSION_KEY).unwrap();

        let id: SpiffeId = format!("spiffe://{REMOTE_HOST}/server").parse().unwrap();
        let svid = public
            .issue(&SvidRequest::new(&id, now - HOUR, now + HOUR).with_dns_names(&[REMOTE_HOST.to_owned()]))
            .unwrap();
        let key = certified_key(svid.chain_pem().as_bytes(), svid.key_pem.unwrap().as_bytes()).unwrap();
        let tls = ServerConfig::builder_with_provider(Arc::clone(provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)));
        let world = Self {
            services: [
                ("mcp-everything-svc", record("mcp-everything-svc", None, &memory).await.port()),
                ("mcp-two-svc", record("mcp-two-svc", None, &memory).await.port()),
            ],
            grpc_authorizer: serve_grpc_authorizer(&memory).await,
            http_authorizer: serve_http_authorizer(&memory).await,
            remote: record(REMOTE_HOST, Some(TlsAcceptor::from(Arc::new(tls))), &memory).await,
            memory,
            dir,
            cas,
            clients: Mutex::default(),
        };
        world.write_identity("gateway", &gateway_id());
        world
    }

    /// A controller for the gateways of this world.
    pub(crate) async fn controller(&self) -> Controller {
        let id = gateway_id();
        Controller::start(&self.cas["cluster.local"], &[(id.as_str(), GATEWAY)]).await
    }

    /// Starts a gateway on the base, more manifests, and endpoints for all their Services.
    pub(crate) async fn gateway(
        &self,
        name: &str,
        feed: &Feed,
        manifests: &str,
        flags: &[String],
    ) -> Running<'_> {
        let running = |front| Running { world: self, front };
        let command = if matches!(feed, Feed::Processor) { "decide" } else { "run" };
        let mut words = vec!["agentic-gateway".to_owned(), command.to_owned()];
        match feed {
            Feed::Files | Feed::Processor => words.extend(self.files_of(&self.write(name, manifests))),
            Feed::Controller(controller) => {
                controller.cache.publish(GATEWAY, self.published(manifests, &Options::default()));
                words.extend(from_controller(controller));
            }
            Feed::Envoy(program, source) => {
                let pair = Pair::start(self, program, source, name, manifests, flags).await;
                return running(Front::Envoy(Box::new(pair)));
            }
        }
        words.extend(self.about_the_world());
        words.extend(flags.iter().cloned());
        if matches!(feed, Feed::Processor) {
            let socket = self.file(&format!("{name}.sock"));
            words.push(format!("--listen=unix:{}", socket.display()));
            let Command::Decide(args) = Cli::try_parse_from(words).unwrap().command else {
                panic!("no `decide`")
            };
            let processor = Processor::start(&args, AccessLog::Off)
                .await
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            let envoy = Envoy::connect(&socket, Some(&self.file("public.pem"))).await;
            return running(Front::Processor(Box::new(processor), envoy));
        }
        words.push("--listen-address=127.0.0.1".to_owned());
        words.extend(LISTENERS.iter().map(|(_, port)| format!("--listen={port}=127.0.0.1:0")));
        let Command::Run(args) = Cli::try_parse_from(words).unwrap().command else { panic!("not a `run`") };
        let gateway =
            Gateway::start(&args, AccessLog::Off).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        if let Feed::Controller(controller) = feed {
            let types = [native::OBJECT, native::SESSION_KEYS];
            // Not that of a gateway before, which may have had the same.
            controller.until_fed(&[&types], || *gateway.generation().borrow() > 0).await;
        }
        running(Front::Gateway(Box::new(gateway)))
    }

    /// A folder with the base, more manifests, and endpoints for all their Services.
    pub(crate) fn write(&self, name: &str, manifests: &str) -> PathBuf {
        let folder = self.folder(name);
        fs::write(folder.join("base.yaml"), BASE).unwrap();
        // Perhaps nothing more than the base.
        fs::write(folder.join("more.yaml"), format!("# Of {name}.\n{manifests}")).unwrap();
        fs::write(folder.join("endpoints.yaml"), self.endpoints(&[BASE, manifests])).unwrap();
        folder
    }

    /// A new folder.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let folder = self.file(name);
        fs::create_dir(&folder).unwrap();
        folder
    }

    /// A file of the world's.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The base, more manifests, and endpoints for all their Services.
    pub(crate) fn objects(&self, manifests: &str) -> Objects {
        let mut objects = Objects::default();
        for (name, text) in
            [("base", BASE), ("more", manifests), ("endpoints", &self.endpoints(&[BASE, manifests]))]
        {
            objects.add_yaml(name, text).unwrap();
        }
        objects
    }

    /// One more endpoint of the first Service: the second one's.
    pub(crate) fn second_endpoint(&self) -> String {
        let (service, port) = (self.services[0].0, self.services[1].1);
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": format!("{service}-more"), "namespace": NAMESPACE,
                         "labels": {"kubernetes.io/service-name": service}},
            "ports": [{"name": "mcp", "port": port}], "endpoints": [{"addresses": ["127.0.0.1"]}],
        });
        format!("---\n{slice}\n")
    }

    /// Where the server outside is.
    pub(crate) fn remote(&self) -> Resolve {
        Resolve { host: REMOTE_HOST.to_owned(), port: 443, address: self.remote }
    }

    /// What a controller sends to our own proxies of the Gateway.
    pub(crate) fn published(&self, manifests: &str, options: &Options) -> Arc<ResourceSet> {
        let endpoints = self.endpoints(&[BASE, manifests]);
        with_session_keys(&resources(&[BASE, manifests, &endpoints], GATEWAY, options), &[SESSION_KEY])
    }

    /// Flags of `run` and `decide`.
    pub(crate) fn files_of(&self, folder: &Path) -> Vec<String> {
        vec![
            format!("--manifests={}", folder.display()),
            format!("--session-key-file={}", self.file("session.key").display()),
        ]
    }

    /// Flags of `run` and `decide`.
    pub(crate) fn about_the_world(&self) -> Vec<String> {
        let file = |name: &str| self.file(name).display().to_string();
        vec![
            format!("--identity-dir={}", file("gateway")),
            format!("--trust-bundle=other.domain={}", file("other.pem")),
            format!("--extra-ca={}", file("public.pem")),
            format!("--resolve={REMOTE_HOST}:443:{}", self.remote),
            "--admin-addr=127.0.0.1:0".to_owned(),
            "--drain-timeout=5s".to_owned(),
        ]
    }

    /// EndpointSlices on loopback for the Services of manifests. A Service named `authz...` gets an authorizer
    /// (over HTTP if `http` is in its name, none if `down` is), every other one a server.
    fn endpoints(&self, manifests: &[&str]) -> String {
        let mut out = String::new();
        for text in manifests {
            for document in serde_yaml_ng::Deserializer::from_str(text) {
                let object = Value::deserialize(document).unwrap();
                let (kind, name) = (&object["kind"], object["metadata"]["name"].as_str().unwrap_or_default());
                if kind != "Service" || name.contains("down") {
                    continue;
                }
                let target = match name {
                    name if name.starts_with("authz") && name.contains("http") => self.http_authorizer,
                    name if name.starts_with("authz") => self.grpc_authorizer,
                    name if name == self.services[0].0 => self.services[0].1,
                    _ => self.services[1].1,
                };
                let ports: Vec<Value> = object["spec"]["ports"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|port| json!({"name": port["name"], "port": target}))
                    .collect();
                let slice = json!({
                    "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                    "metadata": {"name": name, "namespace": object["metadata"]["namespace"],
                                 "labels": {"kubernetes.io/service-name": name}},
                    "ports": ports, "endpoints": [{"addresses": ["127.0.0.1"]}],
                });
                out.push_str(&format!("---\n{slice}\n"));
            }
        }
        out
    }

    fn svid(&self, id: &SpiffeId, lasts: Duration) -> IssuedSvid {
        let now = SystemTime::now();
        self.cas[id.trust_domain()].issue(&SvidRequest::new(id, now - HOUR, now + lasts)).unwrap()
    }

    /// The certificate of a client, as Envoy says it.
    fn shown(&self, identity: &str) -> String {
        escaped(&self.svid(&identity.parse().unwrap(), YEARS).chain_pem())
    }

    fn write_identity(&self, folder: &str, id: &SpiffeId) -> PathBuf {
        let folder = self.dir.path().join(folder);
        fs::create_dir(&folder).unwrap();
        let svid = self.svid(id, HOUR);
        fs::write(folder.join("credential-bundle.pem"), svid.credential_bundle_pem().unwrap()).unwrap();
        fs::write(folder.join("cluster.local.trust-bundle.pem"), self.cas["cluster.local"].roots_pem())
            .unwrap();
        folder
    }

    /// A connection: with an identity over TLS, else plain.
    pub(crate) async fn wire(
        &self,
        address: SocketAddr,
        identity: Option<&str>,
        server_name: &str,
    ) -> std::io::Result<Box<dyn Wire>> {
        let stream = TcpStream::connect(address).await?;
        let Some(identity) = identity else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(server_name.to_owned()).unwrap();
        Ok(Box::new(TlsConnector::from(self.client(identity)).connect(name, stream).await?))
    }

    /// A session of the first Service with its endpoint, as whoever opened it has it.
    pub(crate) fn session(&self, backend: &NamespacedName, identity: Option<&str>) -> String {
        let (server, port) = self.services[0];
        let session = Session {
            server_id: format!("{server}-session"),
            backend: processor::cluster_name(&BackendId::XBackend(backend.clone())),
            endpoint: Some((Ipv4Addr::LOCALHOST, port).into()),
            identity: identity.map(str::to_owned),
        };
        SessionKeys::new([SESSION_KEY]).seal(&session).unwrap()
    }

    /// The TLS settings of a client with this identity; without ALPN.
    pub(crate) fn client(&self, identity: &str) -> Arc<ClientConfig> {
        let mut clients = self.clients.lock().unwrap();
        let folder = format!("client-{}", clients.len());
        Arc::clone(clients.entry(identity.to_owned()).or_insert_with(|| {
            let dir = Some(self.write_identity(&folder, &identity.parse().unwrap()));
            let material = IdentityFiles { dir, bundles: Vec::new() }.read().unwrap();
            let roots = ExtraRoots::read(&[]).unwrap();
            let mut config = sidecar_config(&material, Some(&gateway_id()), &roots).unwrap();
            config.alpn_protocols.clear();
            Arc::new(config)
        }))
    }
}

fn gateway_id() -> SpiffeId {
    SpiffeId::for_service_account(&TrustDomain::default(), NAMESPACE, "agentic-net-gateway").unwrap()
}

/// Flags of `run` and `decide`.
pub(crate) fn from_controller(controller: &Controller) -> [String; 3] {
    [
        format!("--xds={}", controller.url()),
        format!("--xds-server-id={CONTROLLER}"),
        format!("--gateway={GATEWAY}"),
    ]
}

/// A gateway in its world.
#[derive(Debug)]
pub(crate) struct Running<'w> {
    pub(crate) world: &'w World,
    front: Front,
}

/// What a client talks to.
#[derive(Debug)]
enum Front {
    Gateway(Box<Gateway>),
    Processor(Box<Processor>, Envoy),
    Envoy(Box<Pair>),
}

impl Running<'_> {
    /// Where a listener is.
    pub(crate) fn address(&self, listener: &str) -> SocketAddr {
        match &self.front {
            Front::Gateway(gateway) => gateway.bound()[&port_of(listener)],
            Front::Envoy(pair) => pair.address(port_of(listener)),
            Front::Processor(..) => panic!("a stand-in has no address"),
        }
    }

    /// A connection to a listener: with the identity over TLS, or plain.
    pub(crate) async fn connect(
        &self,
        listener: &str,
        identity: Option<&str>,
        server_name: &str,
    ) -> std::io::Result<Box<dyn Wire>> {
        if let Front::Processor(_, envoy) = &self.front {
            let (near, far) = tokio::io::duplex(1 << 16);
            let shown = (listener != "plain").then(|| {
                self.world.shown(identity.expect("an HTTPS listener of the base wants an identity"))
            });
            let metadata = metadata(listener, port_of(listener), shown);
            tokio::spawn(envoy.clone().serve(far, metadata));
            return Ok(Box::new(near));
        }
        let identity =
            (listener != "plain").then(|| identity.expect("an HTTPS listener of the base wants an identity"));
        self.world.wire(self.address(listener), identity, server_name).await
    }

    pub(crate) async fn stop(self) {
        match self.front {
            Front::Gateway(gateway) => _ = gateway.shutdown().await,
            Front::Processor(processor, envoy) => {
                drop(envoy);
                processor.shutdown().await;
            }
            Front::Envoy(pair) => pair.stop().await,
        }
    }
}

fn port_of(listener: &str) -> u16 {
    LISTENERS.iter().find(|(name, _)| *name == listener).unwrap().1
}

/// What Envoy says of a connection.
fn metadata(listener: &str, port: u16, shown: Option<String>) -> Vec<(&'static str, String)> {
    let mut metadata = vec![
        (processor::GATEWAY, GATEWAY.to_owned()),
        (processor::PORT, port.to_string()),
        (processor::SOURCE, "127.0.0.1:40000".to_owned()),
        (processor::DESTINATION, format!("127.0.0.1:{port}")),
    ];
    if let Some(shown) = shown {
        metadata.extend([
            (processor::LISTENER, listener.to_owned()),
            (processor::CLIENTS, clients_digest(&ClientCertificates::SpiffeRequired)),
            (processor::PEER_CERTIFICATE, shown),
            (processor::PEER_NOT_AFTER, "4102444800".to_owned()),
        ]);
    }
    metadata
}

/// A server that remembers what it is sent, and answers as a simple MCP server would.
async fn record(upstream: &'static str, tls: Option<TlsAcceptor>, memory: &Arc<Memory>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let memory = Arc::clone(memory);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (memory, tls) = (Arc::clone(&memory), tls.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let memory = Arc::clone(&memory);
                async move {
                    let (parts, body) = request.into_parts();
                    let number = memory.see(Seen {
                        upstream,
                        method: parts.method.to_string(),
                        path: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
                        headers: parts.headers,
                        body: Bytes::new(),
                    });
                    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                    memory.see_body(number, &body);
                    Ok::<_, Infallible>(answer(upstream, &parts.method, &body))
                }
            });
            tokio::spawn(async move {
                let mut server = auto::Builder::new(TokioExecutor::new());
                // Whoever forwards adds some to as many as a client may send.
                server.http1().max_headers(200);
                // A connection that breaks shows in what the client gets.
                let _ended = match tls {
                    None => server.serve_connection(TokioIo::new(stream), service).await,
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => server.serve_connection(TokioIo::new(stream), service).await,
                        Err(_) => Ok(()),
                    },
                };
            });
        }
    });
    address
}

fn answer(upstream: &str, method: &http::Method, body: &[u8]) -> Response<Full<Bytes>> {
    let message: Value = serde_json::from_slice(body).unwrap_or_default();
    let mut response = Response::builder().header("x-upstream", upstream);
    let mut text = match message.get("method").and_then(Value::as_str) {
        Some("initialize") => {
            response = response.header("mcp-session-id", format!("{upstream}-session"));
            json!({"jsonrpc": "2.0", "id": message["id"],
                   "result": {"protocolVersion": "2025-11-25", "capabilities": {},
                              "serverInfo": {"name": upstream, "version": "1"}}})
        }
        Some("tools/list") => json!({"jsonrpc": "2.0", "id": message["id"],
                                     "result": {"tools": [{"name": "get-sum"}, {"name": "echo"}]}}),
        _ => json!({"jsonrpc": "2.0", "id": message["id"], "result": {}}),
    };
    let (content_type, body) = if method == http::Method::GET {
        ("text/event-stream", String::new())
    } else if message["params"]["cursor"] == "as-event" {
        ("text/event-stream", format!("event: message\ndata: {text}\n\n"))
    } else if message["params"]["cursor"] == "as-much" {
        // More than Envoy would hold.
        text["result"]["tools"][1]["description"] = "x".repeat(2_500_000).into();
        ("application/json", text.to_string())
    } else {
        ("application/json", text.to_string())
    };
    response.header("content-type", content_type).body(Full::from(body)).unwrap()
}

/// Says what it is told to say.
struct Scripted(Arc<Memory>);

impl Authorizer for Scripted {
    async fn check(&self, request: CheckedRequest) -> Result<Allowed, Denied> {
        let http = request.request.attributes.and_then(|attributes| attributes.request?.http);
        if self.0.ask(http.as_ref().and_then(|http| http.headers.get(CASE_ID)).map(String::as_str)) {
            return Ok(Allowed::default());
        }
        let (headers, body) = (HeaderMap::new(), "the authorizer's own words".into());
        Err(Denied { status: StatusCode::FORBIDDEN, headers, body, reason: Some("told so".to_owned()) })
    }
}

async fn serve_grpc_authorizer(memory: &Arc<Memory>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let service = TowerToHyperService::new(authorizer_service(Scripted(Arc::clone(memory))));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service.clone();
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new()).http2_only();
                let _ended = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    port
}

async fn serve_http_authorizer(memory: &Arc<Memory>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let memory = Arc::clone(memory);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let memory = Arc::clone(&memory);
            let service = service_fn(move |request: Request<Incoming>| {
                let id = request.headers().get(CASE_ID).and_then(|id| id.to_str().ok());
                let status = if memory.ask(id) { StatusCode::OK } else { StatusCode::FORBIDDEN };
                let mut response = Response::new(Full::<Bytes>::default());
                *response.status_mut() = status;
                std::future::ready(Ok::<_, Infallible>(response))
            });
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                let _ended = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    port
}
