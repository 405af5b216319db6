//! The other ends: servers that answer as told, and break when told.
use std::{
    convert::Infallible,
    future::{Future, pending},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use ext_authz::{Check, Client, Peer, Protocol, Settings, Unreachable, Verdict};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use mcp_jsonrpc::{Limits, parse};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
    time::timeout,
};

pub(crate) type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

pub(crate) const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read","arguments":{"repoName":"a/b"}}}"#;

/// A server on a socket of loopback; gone, connections included, when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Server {
    /// Hands every connection to `serve`.
    pub(crate) fn on<F, S>(listener: TcpListener, serve: F) -> Self
    where
        F: Fn(TcpStream) -> S + Send + 'static,
        S: Future<Output = ()> + Send + 'static,
    {
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            let mut tasks = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                tasks.spawn(serve(stream));
            }
        });
        Self { address, connections, task }
    }

    /// HTTP, either version.
    pub(crate) fn http<F, R>(listener: TcpListener, answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::on(listener, move |stream| {
            let answer = answer.clone();
            async move {
                let service = service_fn(move |request| {
                    let answer = answer(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                // A connection that the client leaves is no failure here.
                drop(
                    auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await,
                );
            }
        })
    }

    /// Answers every connection with these bytes and closes it.
    pub(crate) fn bytes(listener: TcpListener, bytes: Vec<u8>) -> Self {
        Self::on(listener, move |mut stream| {
            let bytes = bytes.clone();
            async move {
                let mut buffer = [0; 4096];
                if stream.read(&mut buffer).await.is_ok() && stream.write_all(&bytes).await.is_ok() {
                    drop(stream.shutdown().await);
                }
            }
        })
    }

    /// Accepts, and says nothing.
    pub(crate) fn silent(listener: TcpListener) -> Self {
        Self::on(listener, |stream| async move {
            let _stream = stream;
            pending::<()>().await;
        })
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Stops as a killed process does, and gives back its address, now refusing connections.
    pub(crate) async fn kill(mut self) -> SocketAddr {
        self.task.abort();
        assert!((&mut self.task).await.unwrap_err().is_cancelled());
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

pub(crate) async fn listen_on(address: SocketAddr) -> TcpListener {
    TcpListener::bind(address).await.unwrap()
}

/// An address that refuses connections. It stays bound, so that nobody else gets it.
pub(crate) fn refusing() -> (SocketAddr, socket::Bound) {
    let bound = socket::Bound::new();
    (bound.address, bound)
}

/// An address where connecting hangs, as with a peer that is cut off: its backlog is full and nobody accepts.
pub(crate) async fn hanging() -> (SocketAddr, TcpListener, Vec<TcpStream>) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
        waiting.push(stream.unwrap());
    }
    (address, listener, waiting)
}

mod socket {
    use std::net::SocketAddr;

    /// Bound and not listening.
    pub(crate) struct Bound {
        pub(super) address: SocketAddr,
        _socket: tokio::net::TcpSocket,
    }

    impl Bound {
        pub(super) fn new() -> Self {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
            Self { address: socket.local_addr().unwrap(), _socket: socket }
        }
    }
}

pub(crate) fn body(bytes: impl Into<Bytes>) -> Body {
    http_body_util::Full::new(bytes.into()).map_err(Into::into).boxed_unsync()
}

pub(crate) fn grpc() -> Protocol {
    Protocol::Grpc { allowed_headers: None }
}

pub(crate) fn client(protocol: Protocol, endpoints: &[SocketAddr]) -> Client {
    Client::new(settings(protocol, endpoints))
}

pub(crate) fn settings(protocol: Protocol, endpoints: &[SocketAddr]) -> Settings {
    Settings {
        protocol,
        authority: "authz.default.svc:9001".to_owned(),
        endpoints: endpoints.to_vec(),
        forward_body: None,
        timeout: Duration::from_secs(20),
    }
}

pub(crate) async fn ask(client: &Client) -> Verdict {
    ask_about(client, &HeaderMap::new(), CALL).await
}

pub(crate) async fn ask_about(client: &Client, headers: &HeaderMap, body: &str) -> Verdict {
    let body = Bytes::copy_from_slice(body.as_bytes());
    let message = parse(&body, &Limits::default()).unwrap();
    let check = Check {
        source: Peer { address: None, principal: Some("spiffe://cluster.local/ns/a/sa/b") },
        destination: Peer::default(),
        request_id: "r-1",
        method: "POST",
        path_and_query: "/mcp?x=1",
        host: "example.org",
        scheme: "https",
        http_version: "HTTP/2",
        headers,
        body: &body,
        message: message.messages().first(),
        time: UNIX_EPOCH,
    };
    client.check(&check).await
}

#[track_caller]
pub(crate) fn assert_allowed(verdict: &Verdict) {
    assert!(matches!(verdict, Verdict::Allowed(_)), "{verdict:?}");
}

#[track_caller]
pub(crate) fn assert_failed(verdict: &Verdict) {
    assert!(matches!(verdict, Verdict::Unreachable(Unreachable::Failed(_))), "{verdict:?}");
}

#[track_caller]
pub(crate) fn assert_nonsense(verdict: &Verdict) {
    assert!(matches!(verdict, Verdict::Unreachable(Unreachable::Nonsense(_))), "{verdict:?}");
}

#[track_caller]
pub(crate) fn assert_timed_out(verdict: &Verdict) {
    assert_eq!(*verdict, Verdict::Unreachable(Unreachable::TimedOut));
}

/// What was seen last.
#[derive(Debug)]
pub(crate) struct Seen<T>(Arc<Mutex<Option<T>>>);

impl<T> Seen<T> {
    pub(crate) fn nothing() -> Self {
        Self(Arc::default())
    }

    pub(crate) fn see(&self, it: T) {
        *self.0.lock().unwrap() = Some(it);
    }

    #[track_caller]
    pub(crate) fn take(&self) -> T {
        self.0.lock().unwrap().take().unwrap()
    }

    pub(crate) fn is_nothing(&self) -> bool {
        self.0.lock().unwrap().is_none()
    }
}

impl<T> Clone for Seen<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}
