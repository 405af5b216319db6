//! What the layer must be told about a request.
use std::{future::Future, net::SocketAddr, pin::Pin, sync::Arc, time::SystemTime};

use authz_core::{AuthorizerId, BackendKind, Decision, Engine, Levels};
use mcp_jsonrpc::Limits;
use spiffe_id::SpiffeId;
use tokio::sync::watch;

/// Settings shared by all requests.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// Limits on MCP bodies (bytes also bound what is buffered).
    pub limits: Limits,
    /// `--filter-lists`
    pub filter_lists: bool,
    /// `--allowed-origins`: `scheme://host[:port]`, or `*`; patterns as [`crate::origin_matches`] reads them.
    pub allowed_origins: Vec<String>,
    /// The denial's message. Default `Access to this tool is forbidden.`
    pub denial_message: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            filter_lists: false,
            allowed_origins: Vec::new(),
            denial_message: "Access to this tool is forbidden.".to_owned(),
        }
    }
}

/// Both ends of the connection.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    /// The client's address.
    pub source: Option<SocketAddr>,
    /// The gateway's address.
    pub destination: Option<SocketAddr>,
    /// The gateway's own SPIFFE ID.
    pub destination_id: Option<Arc<SpiffeId>>,
    /// Whether the connection is TLS (`https`).
    pub tls: bool,
}

/// Asks authorizers: the gateway's client pool, or a test's stand-in.
pub trait Ask: Send + Sync + std::fmt::Debug {
    /// Asks the authorizer of that id of the context's engine.
    fn ask<'a>(
        &'a self,
        authorizer: AuthorizerId,
        check: ext_authz::Check<'a>,
    ) -> Pin<Box<dyn Future<Output = ext_authz::Verdict> + Send + 'a>>;
}

/// Decides again when policies changed: gives the context that the same request would get now; `None`: it would get no route.
pub trait Recheck: Send + Sync + std::fmt::Debug {
    /// Whether policies or routes changed since the request's first context was made; asked when a body has come, which
    /// may take long.
    fn has_changed(&self) -> bool;
    /// Ticks when policies or routes changed.
    fn changes(&self) -> watch::Receiver<u64>;
    /// The context of this request now. `recheck` and `observer` of it are not used. `parts` are those of the request
    /// as received, without extensions.
    fn context(&self, parts: &http::request::Parts) -> Option<Context>;
}

/// Told once per request what came of it, for logs and metrics.
pub trait Observer: Send + Sync + std::fmt::Debug {
    /// The outcome; borrowed, so that nothing is allocated for those who do not care. A batch calls it once per message.
    fn decided(&self, outcome: &Outcome<'_>);
}

/// What came of a request (or of one message of a batch).
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Outcome<'a> {
    /// `allow`, `deny`, `reject`; a delegated call ends as allow or deny.
    pub effect: &'static str,
    /// The MCP method (empty where there is none). Client-chosen: bound its cardinality before using it as a label.
    pub method: &'a str,
    /// The tool, prompt or uri. Client-chosen.
    pub target: Option<&'a str>,
    /// The engine's decision; `None` where the request was refused before policy.
    pub decision: Option<Decision<'a>>,
    /// The authorizer's word, where it was asked: `allowed`, `denied`, `unreachable`, `timeout`, `nonsense`, `unjudgeable`.
    pub authorizer: Option<&'static str>,
    /// Why: the rejection's message, or the authorizer's reason.
    pub detail: Option<&'a str>,
}

/// Everything about one request that the layer cannot see in it.
#[derive(Debug, Clone)]
pub struct Context {
    /// The policies.
    pub engine: Arc<Engine>,
    /// Which of them apply.
    pub levels: Levels,
    /// The verified identity of the connection.
    pub identity: Option<Arc<SpiffeId>>,
    /// The listener's name.
    pub listener: Arc<str>,
    /// The listener's port.
    pub port: u16,
    /// What the route chose.
    pub backend: BackendKind,
    /// Origins that the route's CORS filter allows, in addition (patterns as in Gateway API).
    pub cors_origins: Option<Arc<[String]>>,
    /// Shared settings.
    pub options: Arc<Options>,
    /// Whom delegated calls are put to.
    pub ask: Arc<dyn Ask>,
    /// Both ends.
    pub peer: Peer,
    /// For what outlives a change of policy: a body that is collected, an event stream.
    pub recheck: Option<Arc<dyn Recheck>>,
    /// For logs and metrics.
    pub observer: Option<Arc<dyn Observer>>,
    /// An id of this request.
    pub request_id: Arc<str>,
    /// When it arrived.
    pub now: SystemTime,
}
