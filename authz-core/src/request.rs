//! What is decided on: everything borrowed.
use http::HeaderMap;
use mcp_jsonrpc::Message;
use spiffe_id::SpiffeId;

/// One message (or one request that is no MCP message) to decide on.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The verified identity of the connection.
    pub identity: Option<&'a SpiffeId>,
    /// Name of the listener that received it (a policy's `sectionName`).
    pub listener: &'a str,
    /// The listener's port.
    pub port: u16,
    /// The HTTP request as received, before any rewrite.
    pub http: Http<'a>,
    /// What the route chose.
    pub backend: BackendKind,
    /// What the request carries.
    pub traffic: Traffic<'a>,
    /// Now, nanoseconds since the Unix epoch: CEL's `request.time`.
    pub now_unix_nanos: i64,
}

/// The HTTP part, as received.
#[derive(Debug, Clone, Copy)]
pub struct Http<'a> {
    /// `POST`
    pub method: &'a str,
    /// Path with query, as received (`/local/mcp?x=1`).
    pub path_and_query: &'a str,
    /// Host (authority) as received, with port.
    pub host: &'a str,
    /// All headers as received (names are lower case).
    pub headers: &'a HeaderMap,
}

impl<'a> Http<'a> {
    /// The path as received, without the query.
    pub fn path(&self) -> &'a str {
        self.path_and_query.split('?').next().unwrap_or_default()
    }
}

/// What kind of backend the route chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BackendKind {
    /// An XBackend, on its MCP path.
    XBackendMcp,
    /// An XBackend, GET under `/.well-known/`: not MCP traffic.
    XBackendWellKnown,
    /// A Service (or anything else that is no XBackend).
    Service,
}

/// What a request carries.
#[derive(Debug, Clone, Copy)]
pub enum Traffic<'a> {
    /// An MCP message.
    Message(&'a Message<'a>),
    /// GET for the event stream on an XBackend's MCP path: base protocol.
    EventStream,
    /// DELETE with a session id on an XBackend's MCP path: base protocol.
    EndSession,
    /// Not MCP: the body was parsed and is strict JSON that is none.
    OtherJson,
    /// Not MCP: the request has no body.
    NoBody,
    /// Not MCP as far as is known: a body that was not parsed (not JSON). MCP conditions do not match;
    /// in an ExternalAuth policy they count as matching.
    Unparsed,
}

impl Request<'_> {
    /// Whether the headers that mirror the body were compared with it: the message is of a revision in which they are
    /// (SEP-2243), which names its version in `_meta`. What such a header says cannot be told otherwise.
    pub(crate) fn mirrors_are_checked(&self) -> bool {
        matches!(self.traffic, Traffic::Message(message) if message.meta_protocol_version().is_some())
    }
}

/// Whether a header (lower case) mirrors the body.
pub(crate) fn mirrors_the_body(header: &str) -> bool {
    matches!(header, "mcp-method" | "mcp-name") || header.starts_with("mcp-param-")
}
