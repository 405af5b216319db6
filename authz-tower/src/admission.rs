//! The pure part: what is refused before policy, and what is decided on. Used by the layer, by `explain`, and by
//! anything else that decides on requests (an external processor), so that all of them agree.
mod media;
mod origin;
mod subject;
mod target;

use std::fmt;

use authz_core::{BackendKind, Traffic};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode,
    header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE},
    request::Parts,
};
use mcp_jsonrpc::{
    Body, HeaderError, Json, Kind, MirroredHeaders, ParseError, ReplyId, Revision, error_reply, parse,
    parse_json,
};

use self::media::Lines;
pub use self::{
    media::is_event_stream,
    origin::origin_matches,
    subject::{Subject, admit},
    target::{check_target, request_host},
};
pub(crate) use self::{
    media::{has_identity_coding, is_strict_json, names_json},
    subject::errors,
};
use crate::{Context, Options};

pub(crate) static MCP_SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
pub(crate) static MCP_METHOD: HeaderName = HeaderName::from_static("mcp-method");
pub(crate) static MCP_NAME: HeaderName = HeaderName::from_static("mcp-name");
static MCP_PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");

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
    /// A refusal with a short plain text.
    pub(crate) fn plain(status: StatusCode, message: &str) -> Self {
        Self {
            status,
            body: Bytes::copy_from_slice(message.as_bytes()),
            json: false,
            allow: None,
            detail: message.to_owned(),
        }
    }

    /// A refusal with a JSON-RPC error.
    pub(crate) fn json(status: StatusCode, id: ReplyId<'_>, code: i64, message: impl fmt::Display) -> Self {
        let detail = message.to_string();
        Self { status, body: error_reply(id, code, &detail).into(), json: true, allow: None, detail }
    }

    fn invalid(status: StatusCode, message: &str) -> Self {
        Self::json(status, ReplyId::Null, mcp_jsonrpc::error_code::INVALID_REQUEST, message)
    }

    pub(crate) fn too_large(options: &Options) -> Self {
        let message = format!("the body is over the limit of {} bytes", options.limits.max_bytes);
        Self::invalid(StatusCode::PAYLOAD_TOO_LARGE, &message)
    }

    fn unparsable(error: &ParseError) -> Self {
        let status =
            if error.is_too_large() { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST };
        Self::json(status, ReplyId::Null, error.code(), error)
    }

    fn headers(error: &HeaderError, body: Option<&Body<'_>>) -> Self {
        let id = match body {
            Some(Body::One(message)) if error.has_request_id() && message.kind() == Kind::Request => {
                message.id()
            }
            _ => None,
        };
        Self::json(StatusCode::BAD_REQUEST, id.map_or(ReplyId::Null, ReplyId::Token), error.code(), error)
    }

    /// As a response.
    pub fn into_response(self) -> Response<Bytes> {
        let mut response = Response::new(self.body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        let content_type = if self.json { "application/json" } else { "text/plain; charset=utf-8" };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status.as_u16(), self.detail)
    }
}
impl std::error::Error for Rejection {}

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

impl HeadTraffic {
    /// What the engine is asked.
    pub fn traffic(self) -> Traffic<'static> {
        match self {
            Self::EventStream => Traffic::EventStream,
            Self::EndSession => Traffic::EndSession,
            Self::NoBody => Traffic::NoBody,
        }
    }
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
    /// What the engine is asked, message by message. Never empty.
    pub fn traffic(&self) -> impl Iterator<Item = Traffic<'_>> {
        let (messages, other) = match self {
            Self::Mcp { body, .. } => (body.messages(), None),
            Self::OtherJson => (&[][..], Some(Traffic::OtherJson)),
        };
        messages.iter().map(Traffic::Message).chain(other)
    }
}

/// Checks the head, in this order (the first that fails is what the client is told):
///
/// 1. [`check_target`] (400, on every route).
/// 2. XBackends: `Origin` (403).
/// 3. MCP path: the method (405 with `Allow`). GET and DELETE: `MCP-Protocol-Version` (400), 405 under 2026-07-28. A
///    POST's version is checked with its body, so that the reply can bear its id.
/// 4. MCP path: `Mcp-Session-Id` repeated (400).
/// 5. POST: Content-Type (415), Content-Encoding (415), transfer codings other than `chunked` (400), a declared length
///    over the limit (413), no body (400). GET: a body (400), Accept (406). DELETE: a body (400), no session id (400).
///
/// Under `/.well-known/` only GET without a body passes. On a Service, a POST whose Content-Type names JSON
/// (`application/json`, `text/json`, `*+json`) is read where [`authz_core::Engine::needs_body`] says so, and its codings
/// and declared length are then checked as above; everything else is left alone.
///
/// # Errors
/// What semantics sections 3 and 5 refuse before policy.
pub fn admit_head(parts: &Parts, has_body: bool, context: &Context) -> Result<Admission, Rejection> {
    check_target(parts)?;
    match context.backend {
        BackendKind::XBackendMcp => admit_mcp_path(parts, has_body, context),
        BackendKind::XBackendWellKnown => admit_well_known(parts, has_body, context),
        BackendKind::Service => admit_service(parts, has_body, context),
    }
}

fn admit_mcp_path(parts: &Parts, has_body: bool, context: &Context) -> Result<Admission, Rejection> {
    let headers = &parts.headers;
    if !origin::is_admitted(parts, context) {
        let message = "the Origin is not allowed here";
        let code = mcp_jsonrpc::error_code::INVALID_REQUEST;
        return Err(Rejection::json(StatusCode::FORBIDDEN, ReplyId::Absent, code, message));
    }
    if ![Method::POST, Method::GET, Method::DELETE].contains(&parts.method) {
        return Err(not_allowed("GET, POST, DELETE"));
    }
    if parts.method != Method::POST {
        let revision = Mirrored::of(headers).check(|headers| headers.revision());
        if revision.map_err(|error| Rejection::headers(&error, None))?.is_stateless() {
            return Err(not_allowed("POST"));
        }
    }
    let session = Lines::of(headers, &MCP_SESSION_ID);
    if session.as_slice().len() > 1 {
        return Err(Rejection::invalid(
            StatusCode::BAD_REQUEST,
            "the Mcp-Session-Id header is repeated; send it once",
        ));
    }
    match parts.method {
        Method::POST => {
            if !is_strict_json(headers) {
                return Err(wrong_content_type());
            }
            check_readable(headers, &context.options)?;
            if !has_body {
                return Err(Rejection::json(
                    StatusCode::BAD_REQUEST,
                    ReplyId::Null,
                    mcp_jsonrpc::error_code::PARSE_ERROR,
                    "the body is empty; send one JSON-RPC message",
                ));
            }
            Ok(Admission::ReadBody)
        }
        _ if has_body => Err(Rejection::invalid(StatusCode::BAD_REQUEST, "only a POST has a body here")),
        Method::GET if media::accepts_event_stream(headers) => Ok(Admission::Head(HeadTraffic::EventStream)),
        Method::GET => {
            let message = "a GET must name `text/event-stream` in its Accept header";
            Err(Rejection::invalid(StatusCode::NOT_ACCEPTABLE, message))
        }
        _ if session.only().is_some_and(|id| !id.is_empty()) => Ok(Admission::Head(HeadTraffic::EndSession)),
        _ => Err(Rejection::invalid(
            StatusCode::BAD_REQUEST,
            "a DELETE must name its session in `Mcp-Session-Id`",
        )),
    }
}

fn admit_well_known(parts: &Parts, has_body: bool, context: &Context) -> Result<Admission, Rejection> {
    if !origin::is_admitted(parts, context) {
        return Err(Rejection::plain(StatusCode::FORBIDDEN, "the Origin is not allowed here"));
    }
    if parts.method != Method::GET {
        let rejection = Rejection::plain(StatusCode::METHOD_NOT_ALLOWED, "only GET is allowed here");
        return Err(Rejection { allow: Some("GET"), ..rejection });
    }
    if has_body {
        return Err(Rejection::plain(StatusCode::BAD_REQUEST, "a GET has no body here"));
    }
    Ok(Admission::Head(HeadTraffic::NoBody))
}

fn admit_service(parts: &Parts, has_body: bool, context: &Context) -> Result<Admission, Rejection> {
    if !has_body {
        return Ok(Admission::Head(HeadTraffic::NoBody));
    }
    // Another transfer coding would be forwarded as if it had been taken off.
    if !media::has_plain_framing(&parts.headers) {
        return Err(Rejection::plain(StatusCode::BAD_REQUEST, ONLY_CHUNKED));
    }
    let readable = parts.method == Method::POST && names_json(&parts.headers);
    if !readable || !context.engine.needs_body(context.levels, &context.listener) {
        return Ok(Admission::StreamBody);
    }
    check_readable(&parts.headers, &context.options)?;
    Ok(Admission::ReadBody)
}

fn not_allowed(allow: &'static str) -> Rejection {
    let rejection = Rejection::invalid(StatusCode::METHOD_NOT_ALLOWED, "the method is not allowed here");
    Rejection { allow: Some(allow), ..rejection }
}

fn wrong_content_type() -> Rejection {
    let message = "the content type must be `application/json`, given once, in UTF-8";
    Rejection::invalid(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
}

const ONLY_CHUNKED: &str = "the only transfer coding here is `chunked`";

/// The codings and the declared length of a body that is to be read.
fn check_readable(headers: &HeaderMap, options: &Options) -> Result<(), Rejection> {
    if !has_identity_coding(headers) {
        let message = "a content coding is not supported here; send the body as it is";
        return Err(Rejection::invalid(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    if !media::has_plain_framing(headers) {
        return Err(Rejection::invalid(StatusCode::BAD_REQUEST, ONLY_CHUNKED));
    }
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    // A number that does not fit is over the limit; what is no number did not pass `check_target`.
    if declared.is_some_and(|length| length.parse::<usize>().map_or(true, |n| n > options.limits.max_bytes)) {
        return Err(Rejection::too_large(options));
    }
    Ok(())
}

/// The lines of the headers that mirror the body.
struct Mirrored<'a> {
    protocol_version: Lines<'a>,
    method: Lines<'a>,
    name: Lines<'a>,
}

impl<'a> Mirrored<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        Self {
            protocol_version: Lines::of(headers, &MCP_PROTOCOL_VERSION),
            method: Lines::of(headers, &MCP_METHOD),
            name: Lines::of(headers, &MCP_NAME),
        }
    }

    fn check<T>(&self, question: impl FnOnce(&MirroredHeaders<'_>) -> T) -> T {
        question(&MirroredHeaders {
            protocol_version: self.protocol_version.as_slice(),
            method: self.method.as_slice(),
            name: self.name.as_slice(),
        })
    }
}

/// Parses a body and checks it against the headers. On a Service, MCP traffic is held to every rule of an MCP path,
/// the content type included; strict JSON that is none is [`Admitted::OtherJson`].
///
/// # Errors
/// What semantics section 3 refuses before policy.
pub fn admit_body<'a>(
    parts: &Parts,
    body: &'a [u8],
    backend: BackendKind,
    options: &Options,
) -> Result<Admitted<'a>, Rejection> {
    let unparsable = |error| Rejection::unparsable(&error);
    let body = match backend {
        BackendKind::XBackendMcp | BackendKind::XBackendWellKnown => {
            parse(body, &options.limits).map_err(unparsable)?
        }
        BackendKind::Service => match parse_json(body, &options.limits).map_err(unparsable)? {
            Json::Other => return Ok(Admitted::OtherJson),
            Json::Mcp(_) if !is_strict_json(&parts.headers) => return Err(wrong_content_type()),
            Json::Mcp(body) => body,
        },
    };
    let revision = Mirrored::of(&parts.headers).check(|headers| headers.check(&body));
    match revision {
        Ok(revision) => Ok(Admitted::Mcp { body, revision }),
        Err(error) => Err(Rejection::headers(&error, Some(&body))),
    }
}
