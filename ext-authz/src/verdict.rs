//! What an authorizer answered.
pub(crate) mod answer;

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

/// A change to one header of the upstream request or of the response, to be made in order with
/// [`HeaderChange::apply`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderChange {
    /// Replaces all lines of that name (`OVERWRITE_IF_EXISTS_OR_ADD`).
    Set(HeaderName, HeaderValue),
    /// Adds a line (`APPEND_IF_EXISTS_OR_ADD`).
    Append(HeaderName, HeaderValue),
    /// Adds a line unless there is one of that name (`ADD_IF_ABSENT`).
    AddIfAbsent(HeaderName, HeaderValue),
    /// Replaces all lines of that name if there are any (`OVERWRITE_IF_EXISTS`).
    SetIfPresent(HeaderName, HeaderValue),
    /// Removes all lines of that name.
    Remove(HeaderName),
}

impl HeaderChange {
    /// The header that changes.
    pub fn name(&self) -> &HeaderName {
        match self {
            Self::Set(name, _)
            | Self::Append(name, _)
            | Self::AddIfAbsent(name, _)
            | Self::SetIfPresent(name, _)
            | Self::Remove(name) => name,
        }
    }

    /// Makes the change.
    ///
    /// ```
    /// use ext_authz::HeaderChange;
    /// use http::{HeaderMap, HeaderName, HeaderValue};
    ///
    /// let mut headers = HeaderMap::new();
    /// let user = HeaderName::from_static("x-user");
    /// HeaderChange::Set(user.clone(), HeaderValue::from_static("alice")).apply(&mut headers);
    /// HeaderChange::AddIfAbsent(user, HeaderValue::from_static("nobody")).apply(&mut headers);
    /// assert_eq!(headers["x-user"], "alice");
    /// ```
    pub fn apply(self, headers: &mut HeaderMap) {
        match self {
            Self::Append(name, value) => {
                headers.append(name, value);
            }
            Self::AddIfAbsent(name, _) if headers.contains_key(&name) => {}
            Self::SetIfPresent(name, _) if !headers.contains_key(&name) => {}
            Self::Set(name, value) | Self::AddIfAbsent(name, value) | Self::SetIfPresent(name, value) => {
                headers.insert(name, value);
            }
            Self::Remove(name) => {
                headers.remove(name);
            }
        }
    }
}

/// What an allowing answer asks for; already stripped of what an authorizer may not set
/// (`mcp-*`, `content-*`, authority, pseudo and hop-by-hop headers).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Allowed {
    /// For the upstream request.
    pub request_headers: Vec<HeaderChange>,
    /// For the response to the client.
    pub response_headers: Vec<HeaderChange>,
    /// Query parameters to set: name and value as text, to be percent-encoded by whoever writes the query.
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
    /// The question cannot be put so that the authorizer sees what would be forwarded, and was not asked: integers
    /// beyond 2^53 or nesting over 32 in `params`, a header that is not UTF-8 (gRPC), or a method, path or host that
    /// HTTP cannot carry (HTTP).
    Unjudgeable(&'static str),
}
