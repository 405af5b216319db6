//! Real sockets on loopback: a CA, an upstream that records, clients, and the gateway as its command line starts it.
use std::{
    collections::BTreeMap,
    convert::Infallible,
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use agentic_gateway::{
    AccessLog, Gateway,
    cli::{Cli, Command, RunArgs},
};
use bytes::Bytes;
use clap::Parser;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{body::Incoming, client::conn, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use spiffe_id::{CaPool, IssuedSvid, KeyKind, SpiffeId, SvidRequest};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

pub(crate) const AGENT: &str = "spiffe://cluster.local/ns/ns/sa/agent";
pub(crate) const OTHER: &str = "spiffe://cluster.local/ns/ns/sa/other";
const HOUR: Duration = Duration::from_secs(3600);

/// Waits until `check` holds, at most ten seconds.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut check: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !check().await {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn ca(trust_domain: &str) -> CaPool {
    let now = SystemTime::now();
    let domain = trust_domain.parse().unwrap();
    CaPool::generate("test", &domain, KeyKind::EcdsaP256, now - 2 * HOUR, now + 2 * HOUR).unwrap()
}

pub(crate) fn svid(ca: &CaPool, id: &str, not_after: SystemTime) -> IssuedSvid {
    let id: SpiffeId = id.parse().unwrap();
    let dns = ["gateway.test".to_owned()];
    let request = SvidRequest::new(&id, SystemTime::now() - HOUR, not_after).with_dns_names(&dns);
    ca.issue(&request).unwrap()
}

/// The folder that a kubelet would project.
pub(crate) fn write_identity(dir: &std::path::Path, ca: &CaPool, id: &str) {
    let bundle = svid(ca, id, SystemTime::now() + HOUR).credential_bundle_pem().unwrap();
    fs::write(dir.join("credential-bundle.pem"), bundle).unwrap();
    fs::write(dir.join("cluster.local.trust-bundle.pem"), ca.roots_pem()).unwrap();
}

/// What an upstream saw.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Remembers a request: its head at once, since what never comes to its end has reached us, too.
async fn see(request: Request<Incoming>, record: &Mutex<Vec<Seen>>) -> hyper::Result<Seen> {
    let (parts, body) = request.into_parts();
    let mut seen = Seen {
        method: parts.method,
        path: parts.uri.to_string(),
        headers: parts.headers,
        body: Bytes::new(),
    };
    let at = {
        let mut record = record.lock().unwrap();
        record.push(seen.clone());
        record.len() - 1
    };
    seen.body = body.collect().await?.to_bytes();
    record.lock().unwrap()[at].body = seen.body.clone();
    Ok(seen)
}

async fn serve<IO>(io: IO, record: Arc<Mutex<Vec<Seen>>>, answer: Answer)
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let (record, answer) = (Arc::clone(&record), Arc::clone(&answer));
        async move {
            let seen = see(request, &record).await?;
            match answer(&seen) {
                Some(answer) => Ok::<_, hyper::Error>(answer),
                None => std::future::pending().await,
            }
        }
    });
    let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(io), service);
    drop(served.await);
}

/// A server that gives sessions, as real ones do: an id for each `initialize`, and the same id with every answer.
pub(crate) async fn session_upstream() -> Upstream {
    Upstream::start(|seen| {
        let id = seen.headers.get("mcp-session-id").map_or("server-side-id", |id| id.to_str().unwrap());
        Response::builder()
            .header("content-type", "application/json")
            .header("mcp-session-id", id)
            .body(full(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#))
            .unwrap()
    })
    .await
}

/// An upstream behind TLS, with a certificate of a CA of its own.
pub(crate) struct TlsUpstream {
    pub(crate) address: SocketAddr,
    pub(crate) roots: PathBuf,
    seen: Arc<Mutex<Vec<Seen>>>,
    _dir: TempDir,
}

impl TlsUpstream {
    pub(crate) async fn start(name: &str) -> Self {
        Self::valid(name, SystemTime::now() - HOUR, SystemTime::now() + HOUR).await
    }

    /// With a certificate that is valid from then to then.
    pub(crate) async fn valid(name: &str, from: SystemTime, to: SystemTime) -> Self {
        let issuer = ca("upstream.test");
        let id: SpiffeId = "spiffe://upstream.test/server".parse().unwrap();
        let dns = [name.to_owned()];
        let request = SvidRequest::new(&id, from, to).with_dns_names(&dns);
        let own = issuer.issue(&request).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let roots = dir.path().join("roots.pem");
        fs::write(&roots, issuer.roots_pem()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(own.key_pem.as_ref().unwrap().as_bytes()).unwrap();
        let config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(own.chain, key)
                .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&seen);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, record) = (acceptor.clone(), Arc::clone(&record));
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, record, Arc::new(|_| Some(json_response("{}")))).await;
                    }
                });
            }
        });
        Self { address, roots, seen, _dir: dir }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

/// `None`: there is none, ever.
type Answer = Arc<dyn Fn(&Seen) -> Option<Response<BoxBody<Bytes, Infallible>>> + Send + Sync>;

/// An upstream that records requests and answers as it is told.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    _task: tokio::task::JoinHandle<()>,
}

impl Upstream {
    pub(crate) async fn start(
        answer: impl Fn(&Seen) -> Response<BoxBody<Bytes, Infallible>> + Send + Sync + 'static,
    ) -> Self {
        Self::answering(move |seen| Some(answer(seen))).await
    }

    /// Takes requests, and never answers.
    pub(crate) async fn silent() -> Self {
        Self::answering(|_| None).await
    }

    async fn answering(
        answer: impl Fn(&Seen) -> Option<Response<BoxBody<Bytes, Infallible>>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (record, answer): (_, Answer) = (Arc::clone(&seen), Arc::new(answer));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, Arc::clone(&record), Arc::clone(&answer)));
            }
        });
        Self { address, seen, _task: task }
    }

    /// Answers every request with a JSON-RPC result.
    pub(crate) async fn json() -> Self {
        Self::start(|_| json_response(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#)).await
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

pub(crate) fn full(body: &str) -> BoxBody<Bytes, Infallible> {
    Full::new(Bytes::from(body.to_owned())).boxed()
}

pub(crate) fn json_response(body: &str) -> Response<BoxBody<Bytes, Infallible>> {
    Response::builder().header("content-type", "application/json").body(full(body)).unwrap()
}

/// Manifests with one Gateway of three listeners, one XBackend at `/mcp` of the gateway and one Service at `/svc`.
pub(crate) fn manifests(upstream: SocketAddr, policy: &str) -> String {
    let port = upstream.port();
    format!(
        r#"
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: kube-agentic-networking}}
spec: {{controllerName: sigs.k8s.io/kube-agentic-networking-controller}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: gw, namespace: ns}}
spec:
  gatewayClassName: kube-agentic-networking
  listeners:
  - {{name: https, protocol: HTTPS, port: 10001}}
  - {{name: plain, protocol: HTTP, port: 10002}}
---
apiVersion: v1
kind: Service
metadata: {{name: server, namespace: ns}}
spec: {{ports: [{{name: mcp, port: {port}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: server-1, namespace: ns, labels: {{kubernetes.io/service-name: server}}}}
addressType: IPv4
ports: [{{name: mcp, port: {port}}}]
endpoints: [{{addresses: ["127.0.0.1"]}}]
---
apiVersion: agentic.networking.x-k8s.io/v0alpha0
kind: XBackend
metadata: {{name: server, namespace: ns}}
spec: {{mcp: {{serviceName: server, port: {port}, path: /mcp}}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: mcp, namespace: ns}}
spec:
  parentRefs: [{{name: gw}}]
  rules:
  - matches: [{{path: {{type: PathPrefix, value: /mcp}}}}]
    backendRefs: [{{group: agentic.networking.x-k8s.io, kind: XBackend, name: server}}]
  - matches: [{{path: {{type: PathPrefix, value: /svc}}}}]
    backendRefs: [{{name: server, port: {port}}}]
---
{policy}
"#
    )
}

/// A policy that lets the agent call these tools.
pub(crate) fn allow_tools(tools: &str) -> String {
    format!(
        r#"
apiVersion: agentic.networking.x-k8s.io/v0alpha0
kind: XAccessPolicy
metadata: {{name: tools, namespace: ns}}
spec:
  targetRefs: [{{group: agentic.networking.x-k8s.io, kind: XBackend, name: server}}]
  rules:
  - name: agent
    source: {{type: ServiceAccount, serviceAccount: {{name: agent, namespace: ns}}}}
    authorization: {{type: InlineTools, tools: [{tools}]}}
"#
    )
}

/// A gateway with its files.
pub(crate) struct World {
    pub(crate) gateway: Gateway,
    pub(crate) ca: CaPool,
    pub(crate) dir: TempDir,
    /// Roots of the listener's certificate, where they are not the identities'.
    pub(crate) server_roots: Option<String>,
}

impl World {
    pub(crate) async fn start_logged(
        manifests: &str,
    ) -> (Self, tokio::sync::mpsc::UnboundedReceiver<String>) {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        (Self::start_all(manifests, &[], AccessLog::Channel(sender)).await, receiver)
    }

    pub(crate) async fn start(manifests: &str) -> Self {
        Self::start_with(manifests, &[]).await
    }

    pub(crate) async fn start_with(manifests: &str, more: &[&str]) -> Self {
        Self::start_all(manifests, more, AccessLog::Off).await
    }

    async fn start_all(manifests: &str, more: &[&str], access_log: AccessLog) -> Self {
        let ca = ca("cluster.local");
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("identity")).unwrap();
        fs::create_dir(dir.path().join("manifests")).unwrap();
        write_identity(&dir.path().join("identity"), &ca, "spiffe://cluster.local/ns/ns/sa/gateway");
        fs::write(dir.path().join("manifests/all.yaml"), manifests).unwrap();
        let args = run_args(dir.path(), more);
        let gateway = Gateway::start(&args, access_log).await.unwrap();
        Self { gateway, ca, dir, server_roots: None }
    }

    pub(crate) fn manifests(&self) -> PathBuf {
        self.dir.path().join("manifests/all.yaml")
    }

    pub(crate) fn address(&self, port: u16) -> SocketAddr {
        self.gateway.bound()[&port]
    }

    /// What a metric says, given as `name{labels}`; 0 where there is none.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        metric(self.gateway.admin_address(), name).await
    }

    /// Requests that were counted, whatever came of them.
    pub(crate) async fn requests(&self) -> u64 {
        metrics(self.gateway.admin_address())
            .await
            .lines()
            .filter(|line| line.starts_with("agentic_gateway_requests_total{"))
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    }

    /// A TLS client with a certificate for this identity.
    pub(crate) async fn client(&self, id: &str) -> Client {
        self.try_client(Some(&svid(&self.ca, id, SystemTime::now() + HOUR))).await.unwrap()
    }

    pub(crate) async fn try_client(&self, svid: Option<&IssuedSvid>) -> Result<Client, String> {
        let roots = self.server_roots.clone().unwrap_or_else(|| self.ca.roots_pem());
        Client::tls(self.address(10001), &roots, svid, "gateway.test", false).await
    }

    pub(crate) async fn plain_client(&self) -> Client {
        Client::plain(self.address(10002)).await
    }
}

pub(crate) async fn metrics(admin: SocketAddr) -> String {
    Client::plain(admin).await.request("GET", "/metrics", &[], "").await.unwrap().body
}

pub(crate) async fn metric(admin: SocketAddr, name: &str) -> u64 {
    let text = metrics(admin).await;
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .map_or(0, |value| value.parse().unwrap())
}

/// Sends bytes as they are on a connection of their own; the answer, up to the end of the connection or one second of
/// silence.
pub(crate) async fn raw(address: SocketAddr, request: &[u8]) -> String {
    let (mut read, mut write) = TcpStream::connect(address).await.unwrap().into_split();
    let request = request.to_vec();
    // Who is refused early is not read to the end.
    let writing = tokio::spawn(async move {
        drop(write.write_all(&request).await);
        write
    });
    let mut answer = Vec::new();
    while let Ok(Ok(1..)) = tokio::time::timeout(Duration::from_secs(1), read.read_buf(&mut answer)).await {}
    writing.abort();
    String::from_utf8_lossy(&answer).into_owned()
}

pub(crate) fn run_args(dir: &std::path::Path, more: &[&str]) -> RunArgs {
    let manifests = dir.join("manifests");
    let identity = dir.join("identity");
    let mut arguments = vec![
        "agentic-gateway",
        "run",
        "--manifests",
        manifests.to_str().unwrap(),
        "--identity-dir",
        identity.to_str().unwrap(),
        "--admin-addr",
        "127.0.0.1:0",
        "--listen",
        "10001=127.0.0.1:0",
        "--listen",
        "10002=127.0.0.1:0",
        "--listen",
        "10003=127.0.0.1:0",
    ];
    arguments.extend(more);
    match Cli::try_parse_from(arguments).unwrap().command {
        Command::Run(args) => *args,
        other => panic!("{other:?}"),
    }
}

enum Sender {
    Http1(conn::http1::SendRequest<Full<Bytes>>),
    Http2(conn::http2::SendRequest<Full<Bytes>>),
}

/// One connection of a client.
pub(crate) struct Client {
    sender: Sender,
    tls: bool,
}

pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Client {
    pub(crate) async fn plain(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (sender, connection) = conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self { sender: Sender::Http1(sender), tls: false }
    }

    pub(crate) async fn tls(
        address: SocketAddr,
        server_roots: &str,
        svid: Option<&IssuedSvid>,
        name: &str,
        http2: bool,
    ) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(server_roots.as_bytes()) {
            roots.add(root.unwrap()).unwrap();
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match svid {
            None => builder.with_no_client_auth(),
            Some(svid) => {
                let key = PrivateKeyDer::from_pem_slice(svid.key_pem.as_ref().unwrap().as_bytes()).unwrap();
                builder.with_client_auth_cert(svid.chain.clone(), key).unwrap()
            }
        };
        config.alpn_protocols = vec![if http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        let stream = TcpStream::connect(address).await.unwrap();
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(ServerName::try_from(name.to_owned()).unwrap(), stream)
            .await
            .map_err(|error| error.to_string())?;
        let io = TokioIo::new(stream);
        let sender = if http2 {
            let (sender, connection) = conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            Sender::Http2(sender)
        } else {
            let (sender, connection) = conn::http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            Sender::Http1(sender)
        };
        Ok(Self { sender, tls: true })
    }

    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Sender::Http2(sender) => sender.send_request(request).await,
        }
    }

    /// Sends a request with these header lines besides Host.
    pub(crate) async fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> hyper::Result<Reply> {
        let mut request = match self.sender {
            Sender::Http1(_) => Request::builder().uri(path).header("host", "gateway.test"),
            Sender::Http2(_) => {
                let scheme = if self.tls { "https" } else { "http" };
                Request::builder().uri(format!("{scheme}://gateway.test{path}"))
            }
        };
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.method(method).body(Full::new(Bytes::from(body.to_owned()))).unwrap();
        let (parts, body) = self.send(request).await?.into_parts();
        let body = String::from_utf8(body.collect().await?.to_bytes().to_vec()).unwrap();
        Ok(Reply { status: parts.status, headers: parts.headers, body })
    }

    /// POSTs an MCP message to `/mcp`.
    pub(crate) async fn mcp(&mut self, body: &str, headers: &[(&str, &str)]) -> hyper::Result<Reply> {
        let mut all =
            vec![("content-type", "application/json"), ("accept", "application/json, text/event-stream")];
        all.extend(headers);
        self.request("POST", "/mcp", &all, body).await
    }

    pub(crate) async fn call(&mut self, tool: &str) -> Reply {
        self.mcp(&call(tool), &[]).await.unwrap()
    }
}

pub(crate) fn call(tool: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"{tool}","arguments":{{}}}}}}"#
    )
}

pub(crate) const DENIED: &str =
    r#"{"jsonrpc":"2.0","id":7,"error":{"code":403,"message":"Access to this tool is forbidden."}}"#;

#[track_caller]
pub(crate) fn check_headers(headers: &HeaderMap, expected: &[(&str, Option<&str>)]) {
    let found: BTreeMap<_, _> = expected
        .iter()
        .map(|(name, _)| (*name, headers.get(*name).map(|value| value.to_str().unwrap())))
        .collect();
    assert_eq!(found, expected.iter().copied().collect());
}
