//! Connections of Envoy's, and the gRPC service on them.
use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use authz_tower::ResponseBody;
use envoy_types::pb::envoy::service::ext_proc::v3::{
    ProcessingRequest,
    external_processor_server::{ExternalProcessor, ExternalProcessorServer},
};
use http::{Request, StatusCode, header::CONTENT_LENGTH};
use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::pki_types::UnixTime;
use spiffe_id::SpiffeId;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener},
    sync::{Mutex, mpsc, watch},
    time::Instant,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::{Response, Status, Streaming, metadata::MetadataMap};
use xds_translate::{
    ClientCertificates, ListenerTls,
    envoy::processor::{MAX_HEADERS, PEER_CHAIN},
};

use super::{
    answer::{Answer, Answers},
    carrier::{Envoy, HeldBody},
    exchange::{Broken, Exchange},
    lines, metadata,
    socket::{self, SocketFile},
    watch::{self as event_streams, Watches},
};
use crate::{
    cli::ProcessorAddress,
    connection::{ConnectionService, Shared},
    forward::plain,
    listen::Phase,
    tls::{not_after, server_config},
};

/// What a message may hold besides a body.
pub(super) const SLACK: usize = 1 << 20;
/// Envoy has one stream per request, all on few connections.
const MAX_STREAMS: u32 = 65_536;
/// A body of the usual largest size needs no window update on its way.
const WINDOW: u32 = 2 << 20;
/// How often what nobody asked about is forgotten where no request does it.
const TIDY: Duration = Duration::from_secs(60);
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A bound socket.
#[derive(Debug)]
pub(super) enum Listener {
    Unix(UnixListener, SocketFile),
    Tcp(TcpListener),
}

impl Listener {
    pub(super) async fn bind(address: &ProcessorAddress) -> anyhow::Result<Self> {
        Ok(match address {
            ProcessorAddress::Socket(path) => {
                let (listener, file) = socket::bind(path).await?;
                Self::Unix(listener, file)
            }
            ProcessorAddress::Tcp(address) => Self::Tcp(TcpListener::bind(address).await?),
        })
    }

    pub(super) fn address(&self) -> anyhow::Result<ProcessorAddress> {
        Ok(match self {
            Self::Unix(_, file) => ProcessorAddress::Socket(file.path.clone()),
            Self::Tcp(listener) => ProcessorAddress::Tcp(listener.local_addr().context("it has no address")?),
        })
    }
}

/// Serves Envoys.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) shared: Arc<Shared>,
    /// Whose TCP connections are taken.
    pub(super) client_ids: Arc<[SpiffeId]>,
    /// The largest message, in bytes.
    pub(super) max_message: usize,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) watches: Arc<Watches>,
    /// Held by every connection: all are gone when its receiver says so.
    pub(super) alive: mpsc::Sender<()>,
}

impl Server {
    /// Accepts until the process drains.
    pub(super) async fn run(self, listener: Listener) {
        let mut phase = self.phase.clone();
        let mut draining = pin!(phase.wait_for(|phase| *phase != Phase::Serving));
        let mut tidies = tokio::time::interval(TIDY);
        loop {
            let server = self.clone();
            let accepted = tokio::select! {
                _ = &mut draining => return,
                _ = tidies.tick() => {
                    self.watches.tidy();
                    continue;
                }
                accepted = accept(&listener) => accepted,
            };
            match accepted {
                Ok(Accepted::Unix(stream)) => {
                    tokio::spawn(server.connection(stream, None));
                }
                Ok(Accepted::Tcp(stream)) => {
                    tokio::spawn(server.tls(stream));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    // Out of file descriptors, most likely: trying again at once would only burn time.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn tls(self, stream: TcpStream) {
        match tokio::time::timeout(HANDSHAKE, self.handshake(stream)).await {
            Ok(Ok((stream, ends))) => self.connection(stream, Some(ends)).await,
            Ok(Err(error)) => tracing::warn!(error, "a connection was refused"),
            Err(_) => tracing::warn!("a TLS handshake took too long"),
        }
    }

    /// TLS with the identity in force, and who the client is; until when its certificate is valid.
    async fn handshake(&self, stream: TcpStream) -> Result<(TlsStream<TcpStream>, Duration), String> {
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let material = Arc::clone(&self.shared.runtime.load().material);
        let terms = ListenerTls { certificates: Vec::new(), clients: ClientCertificates::SpiffeRequired };
        let config = server_config(&terms, &material)?;
        let stream =
            TlsAcceptor::from(Arc::new(config)).accept(stream).await.map_err(|error| error.to_string())?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let id = material.trust.client_identity(chain, UnixTime::now()).map_err(|error| error.to_string())?;
        if !self.client_ids.contains(&id) {
            return Err(format!("`{id}` is not among --client-id"));
        }
        let end = chain.first().and_then(|leaf| not_after(leaf)).ok_or("the certificate cannot be read")?;
        let end = Duration::from_secs(u64::try_from(end).unwrap_or_default().saturating_add(1));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok((stream, end.saturating_sub(now)))
    }

    /// One connection, to its end.
    async fn connection<IO>(self, io: IO, ends: Option<Duration>)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { shared, max_message, mut phase, watches, alive: _alive, .. } = self;
        let decider = Decider { shared, watches, phase: phase.clone() };
        let service = ExternalProcessorServer::new(decider).max_decoding_message_size(max_message);
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW * 8)
            .max_header_list_size(256 * 1024);
        let mut serving = pin!(http.serve_connection(TokioIo::new(io), TowerToHyperService::new(service)));
        let mut expiry = pin!(tokio::time::sleep(ends.unwrap_or(Duration::from_secs(31_536_000))));
        let mut told = false;
        loop {
            let draining =
                phase.wait_for(|phase| *phase == Phase::Ended || *phase == Phase::Draining && !told);
            let now = tokio::select! {
                ended = serving.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection of the proxy failed");
                    }
                    return;
                }
                () = expiry.as_mut(), if ends.is_some() => {
                    tracing::info!("closed: the client's certificate has expired");
                    return;
                }
                phase = draining => phase.map_or(Phase::Ended, |phase| *phase),
            };
            if now == Phase::Ended {
                return;
            }
            told = true;
            serving.as_mut().graceful_shutdown();
        }
    }
}

enum Accepted {
    Unix(tokio::net::UnixStream),
    Tcp(TcpStream),
}

async fn accept(listener: &Listener) -> std::io::Result<Accepted> {
    Ok(match listener {
        Listener::Unix(listener, _) => Accepted::Unix(listener.accept().await?.0),
        Listener::Tcp(listener) => Accepted::Tcp(listener.accept().await?.0),
    })
}

/// The service.
#[derive(Debug)]
struct Decider {
    shared: Arc<Shared>,
    watches: Arc<Watches>,
    phase: watch::Receiver<Phase>,
}

#[tonic::async_trait]
impl ExternalProcessor for Decider {
    type ProcessStream = Answers;

    async fn process(
        &self,
        request: tonic::Request<Streaming<ProcessingRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let (metadata, _, messages) = request.into_parts();
        let (sender, answers) = mpsc::unbounded_channel();
        let Self { shared, watches, phase } = self;
        let (shared, watches, phase) = (Arc::clone(shared), Arc::clone(watches), phase.clone());
        // In a task of its own: whatever becomes of it, the stream of answers says so.
        let work = tokio::spawn(async move {
            if let Some(name) = event_streams::asked_about(&metadata) {
                let attended = event_streams::attend(&shared, &watches, name, messages, sender, phase).await;
                if let Err(broken) = attended {
                    tracing::debug!(error = %broken, "an event stream has ended");
                }
            } else if let Err(broken) = decide(shared, watches, &metadata, messages, sender).await {
                tracing::debug!(error = %broken, "a request was not decided");
            }
        });
        Ok(Response::new(Answers { answers, work: work.abort_handle(), ended: false }))
    }
}

/// One request, from its first message to the last answer.
async fn decide(
    shared: Arc<Shared>,
    watches: Arc<Watches>,
    metadata: &MetadataMap,
    messages: Streaming<ProcessingRequest>,
    answers: mpsc::UnboundedSender<Answer>,
) -> Result<(), Broken> {
    let (mut exchange, head) = Exchange::begin(messages, answers, watches).await?;
    let shown = lines::last(exchange.request(), PEER_CHAIN);
    let known = metadata::connection(metadata, shown, &shared.runtime.load(), SystemTime::now());
    let (connection, lasts) = match known {
        Ok(known) => known,
        Err(refused) => {
            tracing::warn!(
                error = refused.detail,
                "a request was refused: what the proxy says of it is not enough"
            );
            return exchange.conclude(plain(refused.status, refused.text).map(ResponseBody::Inner)).await;
        }
    };
    // Envoy holds a message to its own limit once more when it was changed, and needs room for the change.
    if lines::sent_by_client(exchange.request()) > MAX_HEADERS {
        tracing::info!("a request has too many header lines");
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        let refused = plain(status, "the request has too many header lines");
        return exchange.conclude(refused.map(ResponseBody::Inner)).await;
    }
    let mut parts = match lines::request(exchange.request(), head.version) {
        Ok(parts) => parts,
        Err(error) => {
            tracing::info!(error, "a request cannot be read");
            let refused = plain(StatusCode::BAD_REQUEST, "the request cannot be read");
            return exchange.conclude(refused.map(ResponseBody::Inner)).await;
        }
    };
    // What Envoy says there is about the connection, and nothing that a client has sent.
    parts.headers.remove(PEER_CHAIN);
    let announced = parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let until = lasts.and_then(|lasts| Instant::now().checked_add(lasts));
    let exchange = Arc::new(Mutex::new(exchange));
    let body = if head.has_body { HeldBody::new(&exchange, announced) } else { HeldBody::none() };
    let service = ConnectionService { shared, connection: Arc::new(connection) };
    let envoy = Envoy { exchange: Arc::clone(&exchange), until };
    let served = service.serve(Request::from_parts(parts, body), envoy);
    let response = match until {
        None => served.await,
        // A body may take its time, and so may whoever is asked.
        Some(until) => tokio::time::timeout_at(until, served).await.unwrap_or_else(|_| {
            tracing::info!("a request was refused: the client's certificate has expired meanwhile");
            plain(StatusCode::FORBIDDEN, metadata::NO_IDENTITY).map(ResponseBody::Inner)
        }),
    };
    exchange.lock().await.conclude(response).await
}
