//! Clients: gRPC and HTTP.
use std::{net::SocketAddr, time::Duration};

use crate::{Check, Verdict};

/// Which form of the protocol, with its settings. Header names are lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// `envoy.service.auth.v3.Authorization/Check`
    Grpc {
        /// Headers to send; `None`: all.
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
    /// Host name of the Service (`name.namespace.svc`), the `:authority` of the calls.
    pub authority: String,
    /// Its ready endpoints; none: unreachable. Tried in turn, the next one when a connection cannot be made.
    pub endpoints: Vec<SocketAddr>,
    /// Bytes of the body to send; `None`: none.
    pub forward_body: Option<u32>,
    /// The whole call, connecting included. Default in the gateway: 2 s.
    pub timeout: Duration,
}

/// A client of one authorizer; cheap to clone, reuses connections.
#[derive(Debug, Clone)]
pub struct Client {
    _private: (),
}

impl Client {
    /// A client; connects when first asked. Must be called within a tokio runtime.
    pub fn new(settings: Settings) -> Self {
        let _ = settings;
        todo!()
    }

    /// Its settings.
    pub fn settings(&self) -> &Settings {
        todo!()
    }

    /// Asks. Fails closed: whatever goes wrong is a [`Verdict`] that denies.
    pub async fn check(&self, check: &Check<'_>) -> Verdict {
        let _ = check;
        todo!()
    }
}
