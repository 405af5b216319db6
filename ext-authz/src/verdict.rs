//! What an authorizer answered.
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// The outcome of one question.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It allows.
    Allowed(Allowed),
    /// It denies.
    Denied(Denied),
    /// It could not be asked, or its answer makes no sense: denied, counted apart.
    Unreachable(Unreachable),
}

/// A change to one header of the upstream request or the response.
#[derive(Debug, Clone, PartialEq)]
pub enum HeaderChange {
    /// Replaces all lines of that name.
    Set(HeaderName, HeaderValue),
    /// Adds a line.
    Append(HeaderName, HeaderValue),
    /// Removes all lines of that name.
    Remove(HeaderName),
}

/// What an allowing answer asks for; already stripped of what an authorizer may not set
/// (`mcp-*`, `content-*`, authority, pseudo and hop-by-hop headers).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Allowed {
    /// For the upstream request.
    pub request_headers: Vec<HeaderChange>,
    /// For the response to the client.
    pub response_headers: Vec<HeaderChange>,
    /// Query parameters to set.
    pub query_set: Vec<(String, String)>,
    /// Query parameters to remove.
    pub query_remove: Vec<String>,
    /// `decision_id` of the dynamic metadata, for the log.
    pub decision_id: Option<String>,
}

/// A denial.
#[derive(Debug, Clone, PartialEq)]
pub struct Denied {
    /// 300 to 599; anything else was made 403.
    pub status: StatusCode,
    /// Its headers (hop-by-hop and framing ones removed).
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// The authorizer's reason (`x-ext-auth-reason`, or the gRPC status message), for the log only.
    pub reason: Option<String>,
}

impl Denied {
    /// 403 without `WWW-Authenticate`: the client gets the gateway's own answer.
    pub fn is_plain_forbidden(&self) -> bool {
        self.status == StatusCode::FORBIDDEN && !self.headers.contains_key(http::header::WWW_AUTHENTICATE)
    }
}

/// Why there is no answer. Each denies.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unreachable {
    /// No endpoint, no connection, or the call failed (HTTP: any 5xx).
    Failed(String),
    /// Over the deadline.
    TimedOut,
    /// An answer that cannot be read.
    Nonsense(String),
    /// The question cannot be put so that the authorizer sees what would be forwarded: integers beyond 2^53 or
    /// nesting over 32 in `params`.
    Unjudgeable(&'static str),
}
