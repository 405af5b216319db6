//! What Envoy is told.
use std::{
    collections::HashMap,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use envoy_types::pb::{
    envoy::{
        extensions::filters::http::ext_proc::v3::{
            ProcessingMode,
            processing_mode::{BodySendMode, HeaderSendMode},
        },
        service::ext_proc::v3::{
            BodyMutation, BodyResponse, CommonResponse, HeaderMutation, HeadersResponse, ImmediateResponse,
            ProcessingResponse, TrailersResponse, body_mutation::Mutation,
            processing_response::Response as Kind,
        },
        r#type::v3::HttpStatus,
    },
    google::protobuf::{Struct, Value, value},
};
use http::{HeaderMap, StatusCode};
use tokio::{sync::mpsc, task::AbortHandle};
use tokio_stream::Stream;
use tonic::Status;
use xds_translate::envoy::processor::{DECIDED, ENDPOINT, NAMESPACE, SESSION, WATCHED};

use super::lines;

/// One answer, and whether it is the last that the request needs.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) message: Box<ProcessingResponse>,
    pub(super) is_last: bool,
}

/// The answers of one stream. Only the last answer ends it well: whatever else ends it (a panic, a return too early) is
/// an error for Envoy, which would let the request through after a stream that ended well.
#[derive(Debug)]
pub(super) struct Answers {
    pub(super) answers: mpsc::UnboundedReceiver<Answer>,
    pub(super) work: AbortHandle,
    pub(super) ended: bool,
}

impl Stream for Answers {
    type Item = Result<ProcessingResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(match ready!(self.answers.poll_recv(cx)) {
            Some(Answer { message, is_last }) => {
                self.ended = is_last;
                Ok(*message)
            }
            None => {
                self.ended = true;
                Err(Status::internal("the request was not decided"))
            }
        }))
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        // Envoy waits no longer. After the last answer there is only a line to be logged.
        if !self.ended {
            self.work.abort();
        }
    }
}

/// Of what Envoy sends more after an answer to headers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mode {
    pub(super) request_body: BodySendMode,
    pub(super) response_head: bool,
    pub(super) response_body: BodySendMode,
}

/// A mode replaces the one before as a whole: what is left out is not sent.
fn mode(mode: Mode) -> ProcessingMode {
    let head = if mode.response_head { HeaderSendMode::Send } else { HeaderSendMode::Skip };
    ProcessingMode {
        request_header_mode: HeaderSendMode::Send.into(),
        response_header_mode: head.into(),
        request_body_mode: mode.request_body.into(),
        response_body_mode: mode.response_body.into(),
        // Where the body comes whole, its end says whether there are any.
        request_trailer_mode: match mode.request_body {
            BodySendMode::Buffered => HeaderSendMode::Send.into(),
            _ => HeaderSendMode::Skip.into(),
        },
        response_trailer_mode: match mode.response_body {
            // The body may end with them.
            BodySendMode::Streamed => HeaderSendMode::Send.into(),
            _ => HeaderSendMode::Skip.into(),
        },
    }
}

fn message(kind: Kind) -> ProcessingResponse {
    ProcessingResponse { response: Some(kind), ..ProcessingResponse::default() }
}

/// The request's body is wanted, and perhaps the response's head.
pub(super) fn body_wanted() -> ProcessingResponse {
    let wanted = Mode {
        request_body: BodySendMode::Buffered,
        // Whether it is needed is known when the body is; a stream that has ended by then is not sent it.
        response_head: true,
        response_body: BodySendMode::None,
    };
    ProcessingResponse {
        mode_override: Some(mode(wanted)),
        ..message(Kind::RequestHeaders(HeadersResponse { response: Some(CommonResponse::default()) }))
    }
}

/// The request is let through, changed.
pub(super) fn let_through(
    change: HeaderMutation,
    metadata: Struct,
    had_body: bool,
    response_head: bool,
) -> ProcessingResponse {
    let common = CommonResponse {
        header_mutation: Some(change),
        clear_route_cache: true,
        ..CommonResponse::default()
    };
    let (kind, mode_override) = if had_body {
        (Kind::RequestBody(BodyResponse { response: Some(common) }), None)
    } else {
        let rest =
            Mode { request_body: BodySendMode::None, response_head, response_body: BodySendMode::None };
        (Kind::RequestHeaders(HeadersResponse { response: Some(common) }), Some(mode(rest)))
    };
    ProcessingResponse { dynamic_metadata: Some(metadata), mode_override, ..message(kind) }
}

/// The request's trailers are dropped.
pub(super) fn no_trailers(names: Vec<String>) -> ProcessingResponse {
    let change = HeaderMutation { remove_headers: names, ..HeaderMutation::default() };
    message(Kind::RequestTrailers(TrailersResponse { header_mutation: Some(change) }))
}

/// The metadata of a request that is let through.
pub(super) fn metadata(endpoints: &[SocketAddr], session: Option<&str>, watched: &str) -> Struct {
    let endpoints: Vec<String> = endpoints.iter().map(SocketAddr::to_string).collect();
    let text = |text: &str| Value { kind: Some(value::Kind::StringValue(text.to_owned())) };
    let mut fields = HashMap::from([
        (DECIDED.to_owned(), text("1")),
        (ENDPOINT.to_owned(), text(&endpoints.join(","))),
        (WATCHED.to_owned(), text(watched)),
    ]);
    if let Some(session) = session {
        fields.insert(SESSION.to_owned(), text(session));
    }
    let own = Value { kind: Some(value::Kind::StructValue(Struct { fields })) };
    Struct { fields: HashMap::from([(NAMESPACE.to_owned(), own)]) }
}

/// The response's head goes on, changed; of its body comes what `body` says.
pub(super) fn response_head(change: HeaderMutation, body: BodySendMode) -> ProcessingResponse {
    let is_changed = !change.set_headers.is_empty() || !change.remove_headers.is_empty();
    let common =
        CommonResponse { header_mutation: is_changed.then_some(change), ..CommonResponse::default() };
    let rest = Mode { request_body: BodySendMode::None, response_head: true, response_body: body };
    ProcessingResponse {
        mode_override: (body != BodySendMode::None).then(|| mode(rest)),
        ..message(Kind::ResponseHeaders(HeadersResponse { response: Some(common) }))
    }
}

/// The response's trailers go on as they are.
pub(super) fn response_trailers() -> ProcessingResponse {
    message(Kind::ResponseTrailers(TrailersResponse::default()))
}

/// These bytes take the place of the ones that came.
pub(super) fn response_body(bytes: Vec<u8>) -> ProcessingResponse {
    let mutation = if bytes.is_empty() { Mutation::ClearBody(true) } else { Mutation::Body(bytes) };
    let common = CommonResponse {
        body_mutation: Some(BodyMutation { mutation: Some(mutation) }),
        ..CommonResponse::default()
    };
    message(Kind::ResponseBody(BodyResponse { response: Some(common) }))
}

/// The client gets this response, and the backend nothing more.
pub(super) fn instead(status: StatusCode, headers: &HeaderMap, body: Vec<u8>) -> ProcessingResponse {
    message(Kind::ImmediateResponse(ImmediateResponse {
        status: Some(HttpStatus { code: i32::from(status.as_u16()) }),
        headers: Some(lines::difference(&[], headers, &[], &lines::FRAMING)),
        body,
        grpc_status: None,
        details: "agentic".to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt as _;

    use super::*;

    async fn answers_of(work: impl FnOnce(mpsc::UnboundedSender<Answer>) + Send + 'static) -> Vec<bool> {
        let (sender, answers) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move { work(sender) });
        let mut answers = Answers { answers, work: task.abort_handle(), ended: false };
        let mut all = Vec::new();
        while let Some(answer) = answers.next().await {
            all.push(answer.is_ok());
        }
        all
    }

    fn say(sender: &mpsc::UnboundedSender<Answer>, is_last: bool) {
        sender.send(Answer { message: Box::new(body_wanted()), is_last }).unwrap();
    }

    #[tokio::test]
    async fn only_the_last_answer_ends_a_stream_well() {
        assert_eq!(answers_of(|sender| say(&sender, true)).await, [true]);
        assert_eq!(answers_of(drop).await, [false]);
        assert_eq!(answers_of(|sender| say(&sender, false)).await, [true, false]);
        let panics = |sender| {
            say(&sender, false);
            panic!("while deciding");
        };
        assert_eq!(answers_of(panics).await, [true, false]);
    }
}
