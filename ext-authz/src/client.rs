//! Clients: gRPC and HTTP.
mod endpoints;
mod grpc;
mod http;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::time::Instant;

use self::{grpc::GrpcAuthorizer, http::HttpAuthorizer};
use crate::{Check, Unreachable, Verdict};

/// Bytes of one answer; more is nonsense.
const MAX_ANSWER: usize = 1 << 20;
/// Bytes of the headers of one answer.
const MAX_ANSWER_HEADERS: usize = 64 << 10;

/// Which form of the protocol, with its settings. Header names are lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// `envoy.service.auth.v3.Authorization/Check`
    Grpc {
        /// Headers to send; `None`: all. With `forward_body`, Content-Type and Content-Length always.
        allowed_headers: Option<Vec<String>>,
    },
    /// The HTTP form.
    Http {
        /// Prefix of the path.
        path: String,
        /// Headers to send besides Host, Method, Path, Content-Length, Authorization.
        allowed_headers: Vec<String>,
        /// Headers of a 200 answer that are copied to the upstream request.
        allowed_response_headers: Vec<String>,
    },
}

/// How to ask one authorizer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Settings {
    /// gRPC or HTTP.
    pub protocol: Protocol,
    /// Host name of the Service (`name.namespace.svc`), the `:authority` of gRPC calls. An HTTP authorizer gets the
    /// client's Host.
    pub authority: String,
    /// Its ready endpoints; none: unreachable. Tried in turn, the next one when a connection cannot be made.
    pub endpoints: Vec<SocketAddr>,
    /// Bytes of the body to send; `None`: none.
    pub forward_body: Option<u32>,
    /// The whole call, connecting included. Default in the gateway: 2 s.
    pub timeout: Duration,
}

/// A client of one authorizer; cheap to clone, reuses connections.
///
/// gRPC calls share one HTTP/2 connection per endpoint; HTTP calls draw on a pool of connections per endpoint. A
/// connection that broke is made anew by the next question, without any delay.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: Settings,
    transport: Transport,
}

#[derive(Debug)]
enum Transport {
    Grpc(GrpcAuthorizer),
    Http(HttpAuthorizer),
}

impl Client {
    /// A client; connects when first asked. Must be called within a tokio runtime.
    pub fn new(settings: Settings) -> Self {
        let transport = match &settings.protocol {
            Protocol::Grpc { .. } => Transport::Grpc(GrpcAuthorizer::new(&settings)),
            Protocol::Http { .. } => Transport::Http(HttpAuthorizer::new(&settings)),
        };
        Self { inner: Arc::new(Inner { settings, transport }) }
    }

    /// Its settings.
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// Asks. Fails closed: whatever goes wrong is a [`Verdict`] that denies.
    ///
    /// The answer is there after [`Settings::timeout`] at the latest. Dropping the future abandons the question.
    pub async fn check(&self, check: &Check<'_>) -> Verdict {
        self.ask(check).await.unwrap_or_else(Verdict::Unreachable)
    }

    async fn ask(&self, check: &Check<'_>) -> Result<Verdict, Unreachable> {
        check.judgeable()?;
        let Settings { protocol, forward_body, timeout, .. } = &self.inner.settings;
        let deadline = Instant::now() + *timeout;
        match (&self.inner.transport, protocol) {
            (Transport::Grpc(authorizer), Protocol::Grpc { allowed_headers }) => {
                let request = check.to_request(*forward_body, allowed_headers.as_deref())?;
                authorizer.ask(&request, deadline).await
            }
            (
                Transport::Http(authorizer),
                Protocol::Http { path, allowed_headers, allowed_response_headers },
            ) => {
                let request = http::to_request(check, path, allowed_headers, *forward_body)?;
                authorizer.ask(&request, allowed_response_headers, deadline).await
            }
            // Both were made from the same settings.
            _ => Err(Unreachable::Failed("the authorizer's protocol is not its client's".to_owned())),
        }
    }
}
