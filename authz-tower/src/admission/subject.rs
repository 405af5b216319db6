//! What one request is decided on, as a whole.
use authz_core::Traffic;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE, request::Parts};
use mcp_jsonrpc::{Body, Kind, Message, ReplyId, error_code, error_reply};

use super::{Admission, Admitted, HeadTraffic, Rejection, admit_body, admit_head};
use crate::{Context, Options};

/// What a request that was admitted carries, and with it how a denial of it looks.
#[derive(Debug, Clone, PartialEq)]
pub enum Subject<'a> {
    /// Known from the head.
    Head(HeadTraffic),
    /// A body that was read.
    Body(Admitted<'a>),
    /// A body that was not read.
    Unread,
}

/// [`admit_head`], and [`admit_body`] where the head asks for it: all that stands between a request at hand and the
/// engine. `body` is `None` where the request has none.
///
/// # Errors
/// As the two.
pub fn admit<'a>(parts: &Parts, body: Option<&'a [u8]>, context: &Context) -> Result<Subject<'a>, Rejection> {
    match admit_head(parts, body.is_some(), context)? {
        Admission::Head(head) => Ok(Subject::Head(head)),
        Admission::StreamBody => Ok(Subject::Unread),
        Admission::ReadBody => {
            admit_body(parts, body.unwrap_or_default(), context.backend, &context.options).map(Subject::Body)
        }
    }
}

impl Subject<'_> {
    /// What the engine is asked, message by message. Never empty.
    pub fn traffic(&self) -> impl Iterator<Item = Traffic<'_>> {
        let (admitted, single) = match self {
            Self::Head(head) => (None, Some(head.traffic())),
            Self::Body(admitted) => (Some(admitted), None),
            Self::Unread => (None, Some(Traffic::Unparsed)),
        };
        admitted.into_iter().flat_map(Admitted::traffic).chain(single)
    }

    /// The denial by policy, as semantics section 5 has it: an MCP request gets 200 and a JSON-RPC error with its id, a
    /// batch 200 and an array of one error per request id, messages without a request 403 and a JSON-RPC error without
    /// id, everything else 403 and a short plain text. The message is [`Options::denial_message`].
    pub fn denial(&self, options: &Options) -> Response<Bytes> {
        let message = &options.denial_message;
        let Self::Body(Admitted::Mcp { body, .. }) = self else {
            return answer(StatusCode::FORBIDDEN, "text/plain; charset=utf-8", message.as_bytes().to_vec());
        };
        match errors(body, |_| true, error_code::FORBIDDEN, message) {
            Some(errors) => answer(StatusCode::OK, "application/json", errors),
            None => {
                let error = error_reply(ReplyId::Absent, error_code::FORBIDDEN, message);
                answer(StatusCode::FORBIDDEN, "application/json", error)
            }
        }
    }
}

/// An error for the request, or an array of one for each request of a batch that is chosen; `None` where there is none.
pub(crate) fn errors(
    body: &Body<'_>,
    chosen: impl Fn(&Message<'_>) -> bool,
    code: i64,
    text: &str,
) -> Option<Vec<u8>> {
    let requests =
        body.messages().iter().filter(|message| message.kind() == Kind::Request && chosen(message));
    let mut errors = requests.filter_map(Message::id).map(|id| error_reply(ReplyId::Token(id), code, text));
    let mut all = errors.next()?;
    if body.is_batch() {
        all.insert(0, b'[');
        for error in errors {
            all.push(b',');
            all.extend_from_slice(&error);
        }
        all.push(b']');
    }
    Some(all)
}

pub(crate) fn answer(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
