//! What a decision of `agentic-gateway decide` takes by itself: one client on a unix socket asks for one request after
//! another as Envoy does (head, then body), and waits for the answer that decides.
//!
//! ```text
//! cargo run --release -p agentic-gateway --example decide_latency [-- COUNT]
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a measurement, not a part of anything"
)]

use std::time::{Duration, Instant};

use agentic_gateway::{
    AccessLog, Processor,
    cli::{Cli, Command},
};
use clap::Parser as _;
use envoy_types::pb::envoy::{
    config::core::v3::{HeaderMap, HeaderValue},
    service::ext_proc::v3::{
        HttpBody, HttpHeaders, ProcessingRequest, external_processor_client::ExternalProcessorClient,
        processing_request::Request as Message,
    },
};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, sync::mpsc};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Channel, Endpoint};

const MANIFESTS: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: kube-agentic-networking}
spec: {controllerName: sigs.k8s.io/kube-agentic-networking-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: ns}
spec: {gatewayClassName: kube-agentic-networking, listeners: [{name: plain, protocol: HTTP, port: 10002}]}
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
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: mcp, namespace: ns}
spec:
  parentRefs: [{name: gw}]
  rules: [{backendRefs: [{name: server, port: 3001}]}]
---
apiVersion: agentic.networking.x-k8s.io/v1alpha1
kind: XAccessPolicy
metadata: {name: tools, namespace: ns}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gw}]
  action: Allow
  rules:
  - name: r
    authorization: {type: Inline, mcp: {methods: [{name: tools/call, params: [get-sum]}]}}
"#;

#[tokio::main]
async fn main() {
    let count: usize = std::env::args().nth(1).map_or(20_000, |count| count.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("decide.sock");
    let manifests = dir.path().join("all.yaml");
    std::fs::write(&manifests, MANIFESTS).unwrap();
    let words = [
        "agentic-gateway".to_owned(),
        "decide".to_owned(),
        format!("--listen=unix:{}", socket.display()),
        format!("--manifests={}", manifests.display()),
        "--admin-addr=127.0.0.1:0".to_owned(),
    ];
    let Command::Decide(args) = Cli::parse_from(words).command else { return };
    let processor = Processor::start(&args, AccessLog::Off).await.unwrap();
    let connect = tower::service_fn(move |_: http::Uri| {
        let socket = socket.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
    });
    let channel = Endpoint::from_static("http://processor").connect_with_connector(connect).await.unwrap();

    let mut times = Vec::with_capacity(count);
    for at in 0..count + count / 10 {
        let took = one(&channel).await;
        // The first tenth warms up.
        if at >= count / 10 {
            times.push(took);
        }
    }
    times.sort_unstable();
    let at = |per_mille: usize| times.get(times.len() * per_mille / 1000).copied().unwrap_or_default();
    println!("{count} decisions, one after another: p50 {:?}, p90 {:?}, p99 {:?}", at(500), at(900), at(990));
    processor.shutdown().await;
}

/// One request, from opening the stream to its end.
async fn one(channel: &Channel) -> Duration {
    let begun = Instant::now();
    let (messages, outgoing) = mpsc::unbounded_channel();
    let lines = [
        (":authority", "gw.test"),
        (":path", "/mcp"),
        (":method", "POST"),
        (":scheme", "http"),
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
    ];
    let headers = lines.map(|(key, value)| HeaderValue {
        key: key.into(),
        raw_value: value.into(),
        ..HeaderValue::default()
    });
    messages
        .send(message(Message::RequestHeaders(HttpHeaders {
            headers: Some(HeaderMap { headers: headers.to_vec() }),
            ..HttpHeaders::default()
        })))
        .unwrap();
    let mut request = tonic::Request::new(UnboundedReceiverStream::new(outgoing));
    for (key, value) in [("x-agentic-port", "10002"), ("x-agentic-source", "192.0.2.1:1")] {
        request.metadata_mut().insert(key, value.parse().unwrap());
    }
    let mut answers =
        ExternalProcessorClient::new(channel.clone()).process(request).await.unwrap().into_inner();
    answers.message().await.unwrap().expect("the body is asked for");
    let body = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get-sum","arguments":{"a":1,"b":2}}}"#;
    messages
        .send(message(Message::RequestBody(HttpBody {
            body: body.to_vec(),
            end_of_stream: true,
            ..HttpBody::default()
        })))
        .unwrap();
    let decided = answers.message().await.unwrap().expect("a decision");
    assert!(decided.dynamic_metadata.is_some(), "it is allowed: {decided:?}");
    assert!(answers.message().await.unwrap().is_none(), "and the stream is over");
    begun.elapsed()
}

fn message(request: Message) -> ProcessingRequest {
    ProcessingRequest { request: Some(request), ..ProcessingRequest::default() }
}
