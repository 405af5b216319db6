//! The gRPC form: `envoy.service.auth.v3.Authorization/Check`.
use std::{
    error::Error,
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use ::http::{Request, Response, Uri, header, uri::PathAndQuery};
use bytes::{Buf, BufMut, Bytes};
use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout_at},
};
use tonic::{
    Code, Status,
    body::Body,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};
use tower_service::Service;

use super::{
    MAX_ANSWER, MAX_ANSWER_HEADERS, Settings,
    endpoints::{self, Endpoint, Endpoints},
};
use crate::{Unreachable, Verdict, verdict::answer};

const METHOD: PathAndQuery = PathAndQuery::from_static("/envoy.service.auth.v3.Authorization/Check");

/// One HTTP/2 connection per endpoint, made when needed.
#[derive(Debug)]
pub(super) struct GrpcAuthorizer {
    endpoints: Endpoints<Channel>,
    origin: Option<Uri>,
}

impl GrpcAuthorizer {
    pub(super) fn new(settings: &Settings) -> Self {
        let origin =
            Uri::builder().scheme("http").authority(&*settings.authority).path_and_query("/").build();
        Self {
            endpoints: Endpoints::new(settings.endpoints.iter().copied().map(Channel::new), Instant::now()),
            origin: origin.ok(),
        }
    }

    pub(super) async fn ask(
        &self,
        request: &CheckRequest,
        deadline: Instant,
    ) -> Result<Verdict, Unreachable> {
        let Some(origin) = &self.origin else {
            return Err(Unreachable::Failed("the authorizer's name is no authority".to_owned()));
        };
        let message = Bytes::from(request.encode_to_vec());
        let mut failure = Unreachable::Failed("the authorizer has no ready endpoint".to_owned());
        let order = self.endpoints.in_turn(Instant::now());
        let count = order.len();
        for (index, endpoint) in order.into_iter().enumerate() {
            match Self::ask_endpoint(endpoint, origin, &message, deadline, count - index - 1).await {
                Ok(answer) => {
                    let response = CheckResponse::decode(answer).map_err(|error| {
                        answer::nonsense(format!("the answer is no CheckResponse: {error}"))
                    })?;
                    return Ok(answer::to_verdict(response));
                }
                Err(Failure::Answered(unreachable)) => return Err(unreachable),
                Err(Failure::NotAnswered(unreachable)) => {
                    self.endpoints.avoid(endpoint, Instant::now());
                    failure = unreachable;
                }
            }
        }
        Err(failure)
    }

    /// Asks one endpoint. A connection from an earlier call may turn out to be gone: then once more on a new one.
    async fn ask_endpoint(
        endpoint: &Endpoint<Channel>,
        origin: &Uri,
        message: &Bytes,
        deadline: Instant,
        others: usize,
    ) -> Result<Bytes, Failure> {
        loop {
            let until = endpoints::share(Instant::now(), deadline, others);
            let (connection, reused) = match timeout_at(until, endpoint.via.connection(until)).await {
                Ok(Ok(connected)) => connected,
                Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => {
                    return Err(Failure::NotAnswered(Unreachable::TimedOut));
                }
                Ok(Err(error)) => {
                    let text = format!("no connection to `{}`: {error}", endpoint.via.address);
                    return Err(Failure::NotAnswered(Unreachable::Failed(text)));
                }
                Err(_) => return Err(Failure::NotAnswered(Unreachable::TimedOut)),
            };
            match connection.ask(origin, message, deadline).await {
                Err(Failure::NotAnswered(_)) if reused => {}
                result => return result,
            }
        }
    }
}

#[derive(Debug)]
enum Failure {
    /// No connection, or one that ended before anything came back: asking elsewhere is safe.
    NotAnswered(Unreachable),
    /// The question was put; asking again would not be more of an answer.
    Answered(Unreachable),
}

/// The way to one endpoint.
#[derive(Debug)]
struct Channel {
    address: SocketAddr,
    connection: Mutex<Option<Arc<Connection>>>,
}

impl Channel {
    fn new(address: SocketAddr) -> Self {
        Self { address, connection: Mutex::new(None) }
    }

    /// The connection, and whether it was there before. Callers that come while one connects wait for it.
    async fn connection(&self, until: Instant) -> io::Result<(Arc<Connection>, bool)> {
        let mut current = self.connection.lock().await;
        if let Some(connection) = current.as_ref().filter(|connection| connection.is_usable()) {
            return Ok((Arc::clone(connection), true));
        }
        *current = None;
        let stream = endpoints::connect(self.address, until).await?;
        let (sender, driver) = http2::Builder::new(TokioExecutor::new())
            .max_header_list_size(u32::try_from(MAX_ANSWER_HEADERS).unwrap_or(u32::MAX))
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        let address = self.address;
        // Ends when the last sender is dropped, or the connection breaks.
        tokio::spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(%address, %error, "the connection to an authorizer broke");
            }
        });
        let connection =
            Arc::new(Connection { sender, given_up: AtomicBool::new(false), answers: AtomicU64::new(0) });
        *current = Some(Arc::clone(&connection));
        Ok((connection, false))
    }
}

#[derive(Debug)]
struct Connection {
    sender: SendRequest<Body>,
    /// Not to be used for further calls.
    given_up: AtomicBool,
    /// How many calls were answered; only whether it moved is of interest.
    answers: AtomicU64,
}

impl Connection {
    fn is_usable(&self) -> bool {
        !self.given_up.load(Ordering::Relaxed) && !self.sender.is_closed()
    }

    async fn ask(&self, origin: &Uri, message: &Bytes, deadline: Instant) -> Result<Bytes, Failure> {
        let answers = self.answers.load(Ordering::Relaxed);
        let result = timeout_at(deadline, self.call(origin, message.clone(), deadline)).await;
        match result {
            Ok(Ok(answer)) => {
                self.answers.fetch_add(1, Ordering::Relaxed);
                Ok(answer)
            }
            Ok(Err(status)) if status.source().is_some_and(|source| source.is::<NotAnswered>()) => {
                self.given_up.store(true, Ordering::Relaxed);
                let text = status.message().to_owned();
                Err(Failure::NotAnswered(Unreachable::Failed(text)))
            }
            Ok(Err(status)) => {
                self.answers.fetch_add(1, Ordering::Relaxed);
                Err(Failure::Answered(match status.code() {
                    Code::DeadlineExceeded => Unreachable::TimedOut,
                    Code::OutOfRange => answer::nonsense(status.message()),
                    code => Unreachable::Failed(format!("the call failed: {code:?}, `{}`", status.message())),
                }))
            }
            Err(_) => {
                // Nobody was answered meanwhile: the other end may have gone without a word.
                if self.answers.load(Ordering::Relaxed) == answers {
                    self.given_up.store(true, Ordering::Relaxed);
                }
                Err(Failure::Answered(Unreachable::TimedOut))
            }
        }
    }

    async fn call(&self, origin: &Uri, message: Bytes, deadline: Instant) -> Result<Bytes, Status> {
        let mut client = Grpc::with_origin(Call(self.sender.clone()), origin.clone())
            .max_decoding_message_size(MAX_ANSWER)
            .max_encoding_message_size(usize::MAX);
        client.ready().await.map_err(Status::from_error)?;
        let mut request = tonic::Request::new(message);
        request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        // Not as a unary call, which would take the first of several answers.
        let mut answers = client.server_streaming(request, METHOD, Raw).await?.into_inner();
        let Some(answer) = answers.message().await? else {
            return Err(Status::internal("there is no message in it"));
        };
        match answers.message().await? {
            None => Ok(answer),
            Some(_) => Err(Status::out_of_range("the answer has several messages")),
        }
    }
}

/// The connection ended before anything came back.
#[derive(Debug)]
struct NotAnswered(String);

impl fmt::Display for NotAnswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the connection ended without an answer: {}", self.0)
    }
}

impl Error for NotAnswered {}

impl NotAnswered {
    fn new(error: &hyper::Error) -> Self {
        // hyper's own text names only its part in it.
        Self(error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}")))
    }
}

/// An HTTP/2 connection as tonic wants it.
#[derive(Debug)]
struct Call(SendRequest<Body>);

impl Service<Request<Body>> for Call {
    type Response = Response<Incoming>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx).map_err(|error| NotAnswered::new(&error).into())
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let response = self.0.send_request(request);
        Box::pin(async move {
            let response = response.await.map_err(|error| NotAnswered::new(&error))?;
            let content_type =
                response.headers().get(header::CONTENT_TYPE).map_or(&b""[..], |it| it.as_bytes());
            if response.status().is_success() && !content_type.starts_with(b"application/grpc") {
                return Err(Status::out_of_range("the answer is not gRPC").into());
            }
            Ok(response)
        })
    }
}

/// Messages as bytes: encoded once for all attempts, and decoded where the answer is judged.
#[derive(Debug, Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(length)))
    }
}
