//! External authorizers that are slow, flap, or say what is no verdict.
use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpListener, sync::watch};

use crate::support::{AGENT, DENIED, OTHER, Upstream, World, eventually, manifests};

/// What an authorizer does when it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Allows,
    /// A message that is none.
    BadProtobuf,
    /// One without a status, so that nobody knows what it means.
    Empty,
    /// The call failed, and with it comes a yes.
    FailedYes,
    /// A web page.
    Page,
    /// Nothing, for ever.
    Silent,
    /// Every other time as it should be, and else it fails.
    Flapping,
    /// It is there, and takes no connections.
    Closes,
}

impl Mood {
    const ALL: [Self; 8] = [
        Self::Allows,
        Self::BadProtobuf,
        Self::Empty,
        Self::FailedYes,
        Self::Page,
        Self::Silent,
        Self::Flapping,
        Self::Closes,
    ];

    /// What the metric calls it.
    fn result(self) -> &'static str {
        match self {
            Self::Allows => "allowed",
            Self::BadProtobuf | Self::Empty | Self::Page => "nonsense",
            Self::FailedYes | Self::Closes | Self::Flapping => "unreachable",
            Self::Silent => "timeout",
        }
    }
}

/// A gRPC answer with this message.
fn answer(
    content_type: &str,
    message: &[u8],
    grpc_status: &'static str,
) -> Response<BoxBody<Bytes, Infallible>> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", grpc_status.parse().unwrap());
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let frame = [&[0], length.as_slice(), message].concat();
    let body = Full::new(Bytes::from(frame)).with_trailers(std::future::ready(Some(Ok(trailers))));
    Response::builder().header("content-type", content_type).body(body.boxed()).unwrap()
}

/// `status { code: 0 }`
const YES: &[u8] = b"\x0a\x00";

/// An authorizer, and what sets its mood.
async fn authorizer() -> (std::net::SocketAddr, watch::Sender<Mood>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, mood) = watch::channel(Mood::Allows);
    let asked = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (mood, asked) = (mood.clone(), Arc::clone(&asked));
            let mut closes = mood.clone();
            let service = service_fn(move |_: Request<Incoming>| {
                let now = *mood.borrow();
                let is_even = asked.fetch_add(1, Ordering::SeqCst).is_multiple_of(2);
                respond(now, is_even)
            });
            tokio::spawn(async move {
                let server = http2::Builder::new(TokioExecutor::new());
                tokio::select! {
                    _ = server.serve_connection(TokioIo::new(stream), service) => {}
                    _ = closes.wait_for(|mood| *mood == Mood::Closes) => {}
                }
            });
        }
    });
    (address, sender)
}

async fn respond(mood: Mood, is_even: bool) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    const GRPC: &str = "application/grpc";
    Ok(match mood {
        Mood::Allows => answer(GRPC, YES, "0"),
        Mood::Flapping if is_even => answer(GRPC, YES, "0"),
        Mood::BadProtobuf => answer(GRPC, b"\xff\xff\xff", "0"),
        Mood::Empty => answer(GRPC, b"", "0"),
        Mood::FailedYes | Mood::Flapping | Mood::Closes => answer(GRPC, YES, "14"),
        Mood::Page => answer("text/html", b"<html>", "0"),
        Mood::Silent => std::future::pending().await,
    })
}

fn policy(port: u16) -> String {
    format!(
        r#"
apiVersion: agentic.networking.x-k8s.io/v0alpha0
kind: XAccessPolicy
metadata: {{name: tools, namespace: ns}}
spec:
  targetRefs: [{{group: agentic.networking.x-k8s.io, kind: XBackend, name: server}}]
  rules:
  - name: agent
    source: {{type: ServiceAccount, serviceAccount: {{name: agent}}}}
    authorization: {{type: ExternalAuth, externalAuth: {{protocol: GRPC, grpc: {{}}, backendRef: {{kind: Service, name: authorizer, port: {port}}}}}}}
  - name: other
    source: {{type: ServiceAccount, serviceAccount: {{name: other}}}}
    authorization: {{type: InlineTools, tools: [get-sum]}}
---
apiVersion: v1
kind: Service
metadata: {{name: authorizer, namespace: ns}}
spec: {{ports: [{{name: grpc, port: {port}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: authorizer-1, namespace: ns, labels: {{kubernetes.io/service-name: authorizer}}}}
addressType: IPv4
ports: [{{name: grpc, port: {port}}}]
endpoints: [{{addresses: ["127.0.0.1"]}}]
"#
    )
}

#[tokio::test]
async fn what_is_no_verdict_denies_and_is_counted() {
    let upstream = Upstream::json().await;
    let (address, mood) = authorizer().await;
    let text = manifests(upstream.address, &policy(address.port()));
    let world = World::start_with(&text, &["--authorizer-timeout", "500ms"]).await;
    let (mut agent, mut other) = (world.client(AGENT).await, world.client(OTHER).await);
    for now in Mood::ALL {
        mood.send_replace(now);
        let counter = format!("agentic_gateway_authorizer_calls_total{{result=\"{}\"}}", now.result());
        let counted = world.metric(&counter).await;
        let (mut allowed, mut denied) = (0, 0);
        for _ in 0..6 {
            let before = upstream.seen().len();
            let began = Instant::now();
            let reply = agent.call("get-sum").await;
            assert!(began.elapsed() < Duration::from_secs(5), "{now:?}: {:?}", began.elapsed());
            assert_eq!(reply.status.as_u16(), 200, "{now:?}");
            let arrived = upstream.seen().len() - before;
            if reply.body == DENIED {
                denied += 1;
                assert_eq!(arrived, 0, "{now:?}: denied, and sent up");
            } else {
                allowed += 1;
                assert_eq!(arrived, 1, "{now:?}");
            }
            // Nobody needs to be asked about these.
            assert_ne!(other.call("get-sum").await.body, DENIED, "{now:?}");
            let list = r#"{"jsonrpc":"2.0","id":7,"method":"tools/list"}"#;
            assert_ne!(agent.mcp(list, &[]).await.unwrap().body, DENIED, "{now:?}");
        }
        match now {
            Mood::Allows => assert_eq!((allowed, denied), (6, 0)),
            Mood::Flapping => assert!(allowed > 0 && denied > 0, "{allowed} {denied}"),
            _ => assert_eq!((allowed, denied), (0, 6), "{now:?}"),
        }
        let of = if now == Mood::Allows { allowed } else { denied };
        assert_eq!(world.metric(&counter).await - counted, of, "{now:?}");
    }
    // And back.
    mood.send_replace(Mood::Allows);
    let agent = tokio::sync::Mutex::new(agent);
    eventually("delegated calls are served again", || async {
        agent.lock().await.call("get-sum").await.body != DENIED
    })
    .await;
}
