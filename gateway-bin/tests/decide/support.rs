//! A processor with its files, and what an Envoy would send to it.
use std::{fs, path::PathBuf, sync::LazyLock, time::SystemTime};

use agentic_gateway::{
    AccessLog, Processor, StartError,
    cli::{Cli, Command, DecideArgs},
    session::{Session, SessionKeys},
};
use clap::Parser as _;
use envoy_types::pb::envoy::{
    extensions::filters::http::ext_proc::v3::{
        ProcessingMode,
        processing_mode::{BodySendMode, HeaderSendMode},
    },
    service::ext_proc::v3::{
        CommonResponse, HeaderMutation, ImmediateResponse, ProcessingRequest, ProcessingResponse,
        processing_request::Request as Message, processing_response::Response as Kind,
    },
};
use spiffe_id::{CaPool, KeyKind, SvidRequest};
use tempfile::TempDir;
use xds_translate::{
    ClientCertificates,
    envoy::processor::{self, clients_digest},
};

use crate::envoy::{Call, Envoy, Lines, chunk, escaped, head, mutate};

pub(crate) const AGENT: &str = "spiffe://cluster.local/ns/ns/sa/agent";
pub(crate) const OTHER: &str = "spiffe://cluster.local/ns/ns/sa/other";
pub(crate) const SOURCE: &str = "192.0.2.7:40000";
/// Where the backend is, which nobody connects to here.
pub(crate) const ENDPOINT: &str = "10.0.0.1:3001";
pub(crate) const KEY: [u8; 32] = [9; 32];
pub(crate) const HOUR: std::time::Duration = std::time::Duration::from_secs(3600);
/// Longer than any response is given.
const YEARS: std::time::Duration = std::time::Duration::from_secs(800 * 24 * 3600);
/// 2100-01-01
pub(crate) const LATER: &str = "4102444800";
const DENIED: &str =
    r#"{"jsonrpc":"2.0","id":1,"error":{"code":403,"message":"Access to this tool is forbidden."}}"#;

/// One Gateway: an XBackend at `/mcp` that the agent may call `get-sum` of, others with filters, a Service at `/svc`.
pub(crate) const MANIFESTS: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: kube-agentic-networking}
spec: {controllerName: sigs.k8s.io/kube-agentic-networking-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: ns}
spec:
  gatewayClassName: kube-agentic-networking
  listeners:
  - {name: https, protocol: HTTPS, port: 10001}
  - {name: plain, protocol: HTTP, port: 10002}
---
apiVersion: v1
kind: Service
metadata: {name: server, namespace: ns}
spec: {ports: [{name: mcp, port: 3001}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: server-1, namespace: ns, labels: {kubernetes.io/service-name: server}}
addressType: IPv4
ports: [{name: mcp, port: 3001}]
endpoints: [{addresses: ["10.0.0.1"]}]
---
apiVersion: v1
kind: Service
metadata: {name: none, namespace: ns}
spec: {ports: [{name: mcp, port: 3001}]}
---
apiVersion: agentic.networking.x-k8s.io/v0alpha0
kind: XBackend
metadata: {name: server, namespace: ns}
spec: {mcp: {serviceName: server, port: 3001, path: /mcp}}
---
apiVersion: agentic.networking.x-k8s.io/v0alpha0
kind: XBackend
metadata: {name: remote, namespace: ns}
spec: {mcp: {hostname: mcp.example.com, port: 443}}
---
apiVersion: agentic.networking.x-k8s.io/v0alpha0
kind: XBackend
metadata: {name: loopback, namespace: ns}
spec: {mcp: {hostname: localhost, port: 443}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: mcp, namespace: ns}
spec:
  parentRefs: [{name: gw}]
  rules:
  - matches: [{path: {type: Exact, value: /mcp}}]
    backendRefs: [{group: agentic.networking.x-k8s.io, kind: XBackend, name: server}]
  - matches: [{path: {type: Exact, value: /rewritten}}]
    timeouts: {request: 10s}
    filters:
    - {type: URLRewrite, urlRewrite: {hostname: server.test, path: {type: ReplaceFullPath, replaceFullPath: /mcp}}}
    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-set, value: "1"}], remove: [x-gone]}}
    - {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-set, value: "2"}], remove: [server]}}
    backendRefs: [{group: agentic.networking.x-k8s.io, kind: XBackend, name: server}]
  - matches: [{path: {type: Exact, value: /cors}}]
    filters:
    - {type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /mcp}}}
    - {type: CORS, cors: {allowOrigins: ["https://app.test"]}}
    backendRefs: [{group: agentic.networking.x-k8s.io, kind: XBackend, name: server}]
  - matches: [{path: {type: Exact, value: /remote}}]
    filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /mcp}}}]
    backendRefs: [{group: agentic.networking.x-k8s.io, kind: XBackend, name: remote}]
  - matches: [{path: {type: Exact, value: /loopback}}]
    filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /mcp}}}]
    backendRefs: [{group: agentic.networking.x-k8s.io, kind: XBackend, name: loopback}]
  - matches: [{path: {type: PathPrefix, value: /svc}}]
    backendRefs: [{name: server, port: 3001}]
  - matches: [{path: {type: PathPrefix, value: /none}}]
    backendRefs: [{name: none, port: 3001}]
---
apiVersion: agentic.networking.x-k8s.io/v0alpha0
kind: XAccessPolicy
metadata: {name: tools, namespace: ns}
spec:
  targetRefs:
  - {group: agentic.networking.x-k8s.io, kind: XBackend, name: server}
  - {group: agentic.networking.x-k8s.io, kind: XBackend, name: remote}
  rules:
  - name: agent
    source: {type: ServiceAccount, serviceAccount: {name: agent, namespace: ns}}
    authorization: {type: InlineTools, tools: [get-sum]}
"#;

/// The CA that every world trusts.
static CA: LazyLock<CaPool> = LazyLock::new(|| ca("cluster.local"));

/// A processor and the one who asks it.
pub(crate) struct World {
    pub(crate) processor: Processor,
    pub(crate) envoy: Envoy,
    pub(crate) ca: &'static CaPool,
    pub(crate) dir: TempDir,
}

pub(crate) fn ca(domain: &str) -> CaPool {
    let now = SystemTime::now();
    CaPool::generate("1", &domain.parse().unwrap(), KeyKind::EcdsaP256, now - HOUR, now + YEARS + HOUR)
        .unwrap()
}

/// A folder with manifests, identity and keys.
pub(crate) fn folder(ca: &CaPool) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("identity")).unwrap();
    fs::create_dir(dir.path().join("manifests")).unwrap();
    let now = SystemTime::now();
    let id = "spiffe://cluster.local/ns/ns/sa/gw".parse().unwrap();
    let svid = ca.issue(&SvidRequest::new(&id, now - HOUR, now + HOUR)).unwrap();
    let identity = dir.path().join("identity");
    fs::write(identity.join("credential-bundle.pem"), svid.credential_bundle_pem().unwrap()).unwrap();
    fs::write(identity.join("cluster.local.trust-bundle.pem"), ca.roots_pem()).unwrap();
    fs::write(dir.path().join("manifests/all.yaml"), MANIFESTS).unwrap();
    fs::write(dir.path().join("session.key"), KEY).unwrap();
    dir
}

pub(crate) fn args(dir: &TempDir, listen: &str, more: &[&str]) -> DecideArgs {
    let at = |name: &str| dir.path().join(name).display().to_string();
    let mut words = vec!["agentic-gateway".to_owned(), "decide".to_owned()];
    words.push(format!("--listen={listen}"));
    words.push(format!("--manifests={}", at("manifests")));
    words.push(format!("--identity-dir={}", at("identity")));
    words.push(format!("--session-key-file={}", at("session.key")));
    words.extend(["--admin-addr=127.0.0.1:0", "--drain-timeout=5s"].map(str::to_owned));
    words.extend(more.iter().map(|word| (*word).to_owned()));
    let Command::Decide(args) = Cli::try_parse_from(words).unwrap().command else { panic!("no `decide`") };
    *args
}

pub(crate) async fn start(dir: &TempDir, listen: &str, more: &[&str]) -> Result<Processor, StartError> {
    Processor::start(&args(dir, listen, more), AccessLog::Off).await
}

impl World {
    pub(crate) async fn start(more: &[&str]) -> Self {
        let ca = &*CA;
        let dir = folder(ca);
        let socket = Self::socket_in(&dir);
        let processor = start(&dir, &format!("unix:{}", socket.display()), more).await.unwrap();
        let envoy = Envoy::connect(&socket, None).await;
        Self { processor, envoy, ca, dir }
    }

    pub(crate) fn socket_in(dir: &TempDir) -> PathBuf {
        dir.path().join("decide.sock")
    }

    /// Adds objects, in the place of what was added before, and waits until they are in force.
    pub(crate) async fn change(&self, objects: &str) {
        let mut generation = self.processor.generation();
        generation.mark_unchanged();
        fs::write(self.dir.path().join("manifests/more.yaml"), objects).unwrap();
        tokio::time::timeout(HOUR / 180, generation.changed()).await.unwrap().unwrap();
    }

    /// A request's stream, on a connection of the agent's.
    pub(crate) async fn call(&self) -> Call {
        self.envoy.call(&tls_metadata(AGENT)).await.unwrap()
    }

    /// Asks for a request that is wanted whole, or not at all: the answer that decides, and the stream.
    pub(crate) async fn decide(&self, lines: &Lines, body: Option<&str>) -> (ProcessingResponse, Call) {
        let mut call = self.call().await;
        let mut answer = call.exchange(request(lines, body.is_none())).await;
        if let (Some(body), true) = (body, wants_body(&answer)) {
            answer = call.exchange(chunk(Message::RequestBody, body.as_bytes(), true)).await;
        }
        (answer, call)
    }
}

/// A sealed session of the agent's at the backend's endpoint.
pub(crate) fn sealed(endpoint: &str) -> String {
    let session = Session {
        server_id: "server-own".to_owned(),
        backend: "xbackend/ns/server".to_owned(),
        endpoint: Some(endpoint.parse().unwrap()),
        identity: Some(AGENT.to_owned()),
    };
    SessionKeys::new([KEY]).seal(&session).unwrap()
}

pub(crate) fn opened(sealed: &str) -> Session {
    SessionKeys::new([KEY]).open(sealed.as_bytes()).unwrap()
}

pub(crate) fn required() -> String {
    clients_digest(&ClientCertificates::SpiffeRequired)
}

/// What Envoy says of a client that has shown a certificate of this CA.
pub(crate) fn certificate(ca: &CaPool, identity: &str) -> String {
    let (id, now) = (identity.parse().unwrap(), SystemTime::now());
    escaped(&ca.issue(&SvidRequest::new(&id, now - HOUR, now + YEARS)).unwrap().chain_pem())
}

pub(crate) fn tls_metadata(identity: &str) -> Vec<(&'static str, String)> {
    vec![
        (processor::GATEWAY, "ns/gw".to_owned()),
        (processor::PORT, "10001".to_owned()),
        (processor::SOURCE, SOURCE.to_owned()),
        (processor::DESTINATION, "10.0.0.9:10001".to_owned()),
        (processor::LISTENER, "https".to_owned()),
        (processor::CLIENTS, required()),
        (processor::PEER_CERTIFICATE, certificate(&CA, identity)),
        (processor::PEER_NOT_AFTER, LATER.to_owned()),
    ]
}

pub(crate) fn plain_metadata() -> Vec<(&'static str, String)> {
    vec![(processor::PORT, "10002".to_owned()), (processor::SOURCE, SOURCE.to_owned())]
}

/// The head of a request as Envoy has it.
pub(crate) fn lines(method: &str, path: &str, more: &[(&str, &str)]) -> Lines {
    [(":authority", "gw.test"), (":path", path), (":method", method), (":scheme", "https")]
        .iter()
        .chain(more)
        .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
        .collect()
}

/// The head of an MCP message.
pub(crate) fn post(path: &str, more: &[(&str, &str)]) -> Lines {
    let mut headers =
        vec![("content-type", "application/json"), ("accept", "application/json, text/event-stream")];
    headers.extend(more);
    lines("POST", path, &headers)
}

pub(crate) fn tool(name: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{name}"}}}}"#)
}

pub(crate) fn request(lines: &Lines, ends: bool) -> ProcessingRequest {
    head(Message::RequestHeaders, lines, ends, &[])
}

/// The head of a response from an endpoint.
pub(crate) fn response(headers: &[(&str, &str)], endpoint: Option<&str>, ends: bool) -> ProcessingRequest {
    let attributes: Vec<_> =
        endpoint.iter().map(|endpoint| ("upstream.address", (*endpoint).to_owned())).collect();
    head(Message::ResponseHeaders, &response_lines(headers), ends, &attributes)
}

pub(crate) fn response_lines(headers: &[(&str, &str)]) -> Lines {
    let line = |(name, value): &(&str, &str)| ((*name).to_owned(), value.as_bytes().to_vec());
    [(":status", "200")].iter().chain(headers).map(line).collect()
}

pub(crate) fn wants_body(answer: &ProcessingResponse) -> bool {
    mode_of(answer).is_some_and(|mode| mode.request_body_mode == i32::from(BodySendMode::Buffered))
}

pub(crate) fn mode_of(answer: &ProcessingResponse) -> Option<ProcessingMode> {
    answer.mode_override
}

/// A mode: of the request's body, the response's head and the response's body.
#[track_caller]
pub(crate) fn check_mode(
    answer: &ProcessingResponse,
    body: BodySendMode,
    response: HeaderSendMode,
    response_body: BodySendMode,
) {
    let expected = ProcessingMode {
        request_header_mode: HeaderSendMode::Send.into(),
        response_header_mode: response.into(),
        request_body_mode: body.into(),
        response_body_mode: response_body.into(),
        request_trailer_mode: match body {
            BodySendMode::Buffered => HeaderSendMode::Send.into(),
            _ => HeaderSendMode::Skip.into(),
        },
        response_trailer_mode: match response_body {
            BodySendMode::Streamed => HeaderSendMode::Send.into(),
            _ => HeaderSendMode::Skip.into(),
        },
    };
    assert_eq!(mode_of(answer), Some(expected));
}

#[track_caller]
pub(crate) fn common(answer: &ProcessingResponse) -> &CommonResponse {
    match answer.response.as_ref().unwrap() {
        Kind::RequestHeaders(answer) | Kind::ResponseHeaders(answer) => answer.response.as_ref().unwrap(),
        Kind::RequestBody(answer) | Kind::ResponseBody(answer) => answer.response.as_ref().unwrap(),
        other => panic!("{other:?}"),
    }
}

/// What a change makes of a message's lines, in order of their names.
#[track_caller]
pub(crate) fn changed(lines: &Lines, change: Option<&HeaderMutation>) -> Vec<(String, String)> {
    let mut lines = lines.clone();
    mutate(&mut lines, change.unwrap_or(&HeaderMutation::default()));
    lines.sort_by(|one, other| one.0.cmp(&other.0));
    lines.into_iter().map(|(name, value)| (name, String::from_utf8(value).unwrap())).collect()
}

#[track_caller]
pub(crate) fn immediate(answer: &ProcessingResponse) -> &ImmediateResponse {
    assert_eq!(answer.dynamic_metadata, None);
    match answer.response.as_ref().unwrap() {
        Kind::ImmediateResponse(response) => response,
        other => panic!("{other:?}"),
    }
}

/// The status and the text of a response that takes the place of the backend's.
#[track_caller]
pub(crate) fn refusal(answer: &ProcessingResponse) -> (i32, String) {
    let response = immediate(answer);
    (response.status.unwrap().code, String::from_utf8(response.body.clone()).unwrap())
}

#[track_caller]
pub(crate) fn check_denied(answer: &ProcessingResponse) {
    assert_eq!(refusal(answer), (200, DENIED.to_owned()));
}
