//! The pure part: what is refused before policy, and what is decided on. Used by the layer, by `explain`, and by
//! anything else that decides on requests (an external processor), so that all of them agree.
use authz_core::{BackendKind, Traffic};
use bytes::Bytes;
use http::{Response, StatusCode, request::Parts};
use mcp_jsonrpc::{Body, Revision};

use crate::{Context, Options};

/// A refusal before policy, as the client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// 400, 403, 404, 405, 406, 413, 415.
    pub status: StatusCode,
    /// JSON-RPC error body where one makes sense, else a short plain text.
    pub body: Bytes,
    /// Whether `body` is JSON.
    pub json: bool,
    /// For 405: the `Allow` header.
    pub allow: Option<&'static str>,
    /// For the log.
    pub detail: String,
}

impl Rejection {
    /// As a response.
    pub fn into_response(self) -> Response<Bytes> {
        todo!()
    }
}

/// What is to be done after the head of a request was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Decide at once: a GET for the event stream, a DELETE, a GET under `/.well-known/`, a request without a body.
    Head(HeadTraffic),
    /// Read the body (to the limit), then [`admit_body`].
    ReadBody,
    /// Do not read the body: nothing here looks at it (a Service, or no JSON).
    StreamBody,
}

/// Traffic that is known from the head alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadTraffic {
    /// GET for the event stream.
    EventStream,
    /// DELETE of a session.
    EndSession,
    /// No body.
    NoBody,
}

/// A body that was admitted.
#[derive(Debug, Clone, PartialEq)]
pub enum Admitted<'a> {
    /// MCP: decide on each message.
    Mcp {
        /// The messages.
        body: Body<'a>,
        /// The revision that holds.
        revision: Revision,
    },
    /// Strict JSON that is no MCP traffic (a Service).
    OtherJson,
}

impl Admitted<'_> {
    /// What the engine is asked, message by message.
    pub fn traffic(&self) -> impl Iterator<Item = Traffic<'_>> {
        let _ = self;
        std::iter::empty()
    }
}

/// Checks the head: path, Host, Origin, method, Content-Type, Content-Encoding, Accept, protocol version.
///
/// # Errors
/// What semantics sections 3 and 5 refuse before policy.
pub fn admit_head(parts: &Parts, has_body: bool, context: &Context) -> Result<Admission, Rejection> {
    let _ = (parts, has_body, context);
    todo!()
}

/// Parses a body and checks it against the headers.
///
/// # Errors
/// What semantics section 3 refuses before policy.
pub fn admit_body<'a>(parts: &Parts, body: &'a [u8], backend: BackendKind, options: &Options) -> Result<Admitted<'a>, Rejection> {
    let _ = (parts, body, backend, options);
    todo!()
}
