//! One request's messages, in the order that Envoy keeps to: each is answered before the next comes.
use std::{fmt, future::poll_fn, net::SocketAddr, pin::Pin, sync::Arc, task::Poll};

use authz_tower::{ResponseBody, is_event_stream};
use bytes::Bytes;
use envoy_types::pb::{
    envoy::{
        extensions::filters::http::ext_proc::v3::processing_mode::BodySendMode,
        service::ext_proc::v3::{
            HeaderMutation, HttpHeaders, ProcessingRequest, ProcessingResponse,
            processing_request::Request as Message,
        },
    },
    google::protobuf::{Struct, value::Kind},
};
use http::{Response, header::CONTENT_LENGTH};
use http_body::Body;
use http_body_util::BodyExt as _;
use tokio::sync::mpsc;
use tonic::Streaming;

use super::{
    answer::{self, Answer},
    lines::{self, Line},
    watch::{Awaited, Open, Watches, cut_off},
};
use crate::upstream::{RelayedBody, UpstreamBody};

/// Envoy went away, or does not keep to the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken(pub(super) &'static str);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Broken {}

/// What Envoy waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// An answer to the request's head.
    Head,
    /// Nothing: it was asked for the body.
    BodyAsked,
    /// An answer to the request's body.
    Body,
    /// Nothing: the request is on its way, and the response's head is wanted.
    Sent,
    /// An answer to the response's head.
    Response,
    /// Nothing any more.
    Over,
}

/// One request's messages.
#[derive(Debug)]
pub(super) struct Exchange {
    messages: Streaming<ProcessingRequest>,
    answers: mpsc::UnboundedSender<Answer>,
    stage: Stage,
    /// The request as Envoy has it.
    request: Vec<Line>,
    /// The response as Envoy has it, and where its body's bytes go if they are wanted.
    response: Vec<Line>,
    chunks: Option<mpsc::UnboundedSender<Bytes>>,
    /// Bytes of the request's body, if it was read.
    body_bytes: usize,
    /// Trailers of the request follow its body.
    has_trailers: bool,
    watches: Arc<Watches>,
    /// What the event stream will be asked about that may be the response.
    awaited: Option<Awaited>,
}

/// The first message.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) has_body: bool,
    pub(super) version: http::Version,
}

impl Exchange {
    /// Begins with the first message, which must be the request's head.
    pub(super) async fn begin(
        mut messages: Streaming<ProcessingRequest>,
        answers: mpsc::UnboundedSender<Answer>,
        watches: Arc<Watches>,
    ) -> Result<(Self, Head), Broken> {
        let first = next(&mut messages).await?;
        if first.observability_mode {
            return Err(Broken("the proxy only observes, and would not wait for a decision"));
        }
        let protocol = attribute(&first, "request.protocol").map(str::to_owned);
        let Some(Message::RequestHeaders(HttpHeaders { headers, end_of_stream, .. })) = first.request else {
            return Err(Broken("the first message is not the head of a request"));
        };
        let head = Head {
            has_body: !end_of_stream,
            version: match protocol.as_deref() {
                Some("HTTP/1.0") => http::Version::HTTP_10,
                Some("HTTP/2") => http::Version::HTTP_2,
                Some("HTTP/3") => http::Version::HTTP_3,
                _ => http::Version::HTTP_11,
            },
        };
        let exchange = Self {
            messages,
            answers,
            stage: Stage::Head,
            request: lines::lines(headers),
            response: Vec::new(),
            chunks: None,
            body_bytes: 0,
            has_trailers: false,
            watches,
            awaited: None,
        };
        Ok((exchange, head))
    }

    /// The request as Envoy has it.
    pub(super) fn request(&self) -> &[Line] {
        &self.request
    }

    fn say(&self, message: ProcessingResponse, is_last: bool) -> Result<(), Broken> {
        let answer = Answer { message: Box::new(message), is_last };
        self.answers.send(answer).map_err(|_error| Broken("the proxy waits for no answer any more"))
    }

    async fn next(&mut self) -> Result<ProcessingRequest, Broken> {
        next(&mut self.messages).await
    }

    /// Asks for the request's body, and waits for it.
    pub(super) async fn body(&mut self) -> Result<Bytes, Broken> {
        if self.stage != Stage::Head {
            return Err(Broken("the body was asked for before"));
        }
        self.say(answer::body_wanted(), false)?;
        self.stage = Stage::BodyAsked;
        match self.next().await?.request {
            Some(Message::RequestBody(body)) => {
                self.stage = Stage::Body;
                self.body_bytes = body.body.len();
                self.has_trailers = !body.end_of_stream;
                Ok(body.body.into())
            }
            // Envoy answered by itself (the body is too large for it, the client is too slow): nothing goes up, and there
            // is nothing to decide. The stream stays until Envoy ends it.
            Some(Message::ResponseHeaders(_)) => {
                self.say(answer::response_head(HeaderMutation::default(), BodySendMode::None), false)?;
                loop {
                    self.next().await?;
                }
            }
            _ => Err(Broken("the proxy did not send the body that it was asked for")),
        }
    }

    /// The response may be an event stream that has to end early: what it is to be called when Envoy asks about it.
    pub(super) fn is_watched(&mut self) -> String {
        let head = self.request.iter().map(|line| line.name.len().saturating_add(line.value.len()));
        let bytes = head.fold(self.body_bytes, usize::saturating_add);
        let (awaited, name) = self.watches.expect(bytes);
        self.awaited = Some(awaited);
        name
    }

    /// The body of a response that is not seen here: it does not end by itself.
    pub(super) fn unseen(&mut self) -> UpstreamBody {
        let (body, chunks) = RelayedBody::new(false);
        self.chunks = Some(chunks);
        UpstreamBody::Relayed(body)
    }

    /// Lets the request through, without its trailers; with `waits` the response's head is to come.
    pub(super) async fn let_through(
        &mut self,
        change: HeaderMutation,
        metadata: Struct,
        waits: bool,
    ) -> Result<(), Broken> {
        let had_body = match self.stage {
            Stage::Head => false,
            Stage::Body => true,
            _ => return Err(Broken("the request cannot be let through now")),
        };
        let has_trailers = self.has_trailers;
        self.say(answer::let_through(change, metadata, had_body, waits), !waits && !has_trailers)?;
        if has_trailers {
            let Some(Message::RequestTrailers(trailers)) = self.next().await?.request else {
                self.stage = Stage::Over;
                return Err(Broken("the proxy did not send the trailers of the request"));
            };
            let names = lines::lines(trailers.trailers).into_iter().map(|line| line.name).collect();
            self.say(answer::no_trailers(names), !waits)?;
        }
        self.stage = if waits { Stage::Sent } else { Stage::Over };
        Ok(())
    }

    /// Waits for the response's head, and for the address that it came from.
    pub(super) async fn response(&mut self) -> Result<(Response<UpstreamBody>, Option<SocketAddr>), Broken> {
        if self.stage != Stage::Sent {
            return Err(Broken("no response is to come"));
        }
        let message = self.next().await?;
        let address = attribute(&message, "upstream.address").and_then(|address| address.parse().ok());
        let Some(Message::ResponseHeaders(HttpHeaders { headers, end_of_stream, .. })) = message.request
        else {
            // It does not keep to the protocol: there is no last answer, which is an error.
            self.stage = Stage::Over;
            return Err(Broken("the proxy did not send the head of the response"));
        };
        self.stage = Stage::Response;
        self.response = lines::lines(headers);
        let parts = lines::response(&self.response)
            .map_err(|_error| Broken("the head of the response cannot be read"))?;
        let (body, chunks) = RelayedBody::new(end_of_stream);
        self.chunks = Some(chunks);
        Ok((Response::from_parts(parts, UpstreamBody::Relayed(body)), address))
    }

    /// Tells Envoy what the pipeline came to, wherever the request is by now.
    pub(super) async fn conclude(
        &mut self,
        response: Response<ResponseBody<UpstreamBody>>,
    ) -> Result<(), Broken> {
        match self.stage {
            Stage::Over => {
                self.hand_over(response.into_body());
                return Ok(());
            }
            Stage::Head | Stage::BodyAsked | Stage::Body => {}
            // The pipeline waits no longer: what comes is replaced.
            Stage::Sent => {
                drop(self.response().await?);
            }
            Stage::Response if is_filtered(response.body()) => return self.filter(response).await,
            Stage::Response => match response.body() {
                ResponseBody::Inner(UpstreamBody::Relayed(_)) | ResponseBody::Guarded(_) => {
                    let change = self.response_change(&response);
                    self.stage = Stage::Over;
                    self.hand_over(response.into_body());
                    return self.say(answer::response_head(change, BodySendMode::None), true);
                }
                _ => {}
            },
        }
        self.stage = Stage::Over;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(|_error| Broken("the answer cannot be read"))?;
        self.say(answer::instead(parts.status, &parts.headers, body.to_bytes().into()), true)
    }

    /// What ends when the event stream must is kept for whoever asks about it.
    fn hand_over(&mut self, body: ResponseBody<UpstreamBody>) {
        let (Some(awaited), Some(chunks)) = (self.awaited.take(), self.chunks.take()) else { return };
        if let ResponseBody::Guarded(body) = body {
            awaited.is(Open::Elsewhere { body, chunks });
        }
    }

    fn response_change<B>(&self, response: &Response<B>) -> HeaderMutation {
        let status = response.status();
        // A length that no longer holds goes.
        let framing = lines::FRAMING.iter().filter(|name| response.headers().contains_key(*name));
        let except: Vec<_> = framing.cloned().collect();
        lines::difference(
            &self.response,
            response.headers(),
            &[(":status", status.as_str().as_bytes())],
            &except,
        )
    }

    /// Ends a response that has begun.
    fn cut(&mut self) -> Result<(), Broken> {
        self.stage = Stage::Over;
        self.say(cut_off(), true)
    }

    /// Passes the response's body through the filter that the pipeline put around it: an event stream chunk by chunk, as
    /// it comes; anything else takes the place of its last chunk, as a whole. (Envoy could hold it, but not as much.)
    async fn filter(&mut self, response: Response<ResponseBody<UpstreamBody>>) -> Result<(), Broken> {
        let change = self.response_change(&response);
        let is_stream = is_event_stream(response.headers());
        if let (true, Some(awaited)) = (is_stream, self.awaited.take()) {
            awaited.is(Open::Here);
        }
        self.say(answer::response_head(change, BodySendMode::Streamed), false)?;
        let mut body = response.into_body();
        // How much is still to come, where that was said: trailers may follow, and then no chunk says that it is the last.
        let announced = lines::last(&self.response, CONTENT_LENGTH.as_str()).filter(|_| !is_stream);
        let mut left: Option<usize> =
            announced.and_then(|length| std::str::from_utf8(length).ok()?.parse().ok());
        let mut filtered = Vec::new();
        let mut is_given = false;
        let mut has_ended = false;
        loop {
            let message = tokio::select! {
                biased;
                // Nothing came in, so that nothing comes out: a changed policy ends it.
                _ = body.frame(), if !has_ended => return self.cut(),
                message = next(&mut self.messages) => message?,
            };
            let chunk = match message.request {
                Some(Message::ResponseBody(chunk)) => chunk,
                Some(Message::ResponseTrailers(_)) if is_stream || is_given => {
                    self.stage = Stage::Over;
                    return self.say(answer::response_trailers(), true);
                }
                // There is no chunk left that the whole could take the place of.
                Some(Message::ResponseTrailers(_)) => return self.cut(),
                _ => return Err(Broken("the proxy did not send the body of the response")),
            };
            left = left.map(|left| left.saturating_sub(chunk.body.len()));
            let is_whole = chunk.end_of_stream || left == Some(0);
            if let Some(chunks) = &self.chunks {
                // A list that cannot be filtered has its answer already: the rest of it is dropped.
                drop(chunks.send(chunk.body.into()));
            }
            if is_whole {
                self.chunks = None;
            }
            ready_bytes(&mut body, &mut filtered).await?;
            has_ended = !is_stream && body.is_end_stream();
            let out = if is_stream || is_whole { std::mem::take(&mut filtered) } else { Vec::new() };
            if is_whole && !is_stream && !is_given {
                if out.is_empty() {
                    return self.cut();
                }
                is_given = true;
            }
            if chunk.end_of_stream {
                self.stage = Stage::Over;
            }
            self.say(answer::response_body(out), chunk.end_of_stream)?;
            if chunk.end_of_stream {
                return Ok(());
            }
        }
    }
}

fn is_filtered<B>(body: &ResponseBody<B>) -> bool {
    matches!(body, ResponseBody::Guarded(body) if body.is_filtered())
}

/// Adds all that a body has to give without more coming in.
async fn ready_bytes(body: &mut ResponseBody<UpstreamBody>, bytes: &mut Vec<u8>) -> Result<(), Broken> {
    poll_fn(|cx| {
        loop {
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending | Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Ready(Some(Ok(frame))) => {
                    if let Some(data) = frame.data_ref() {
                        bytes.extend_from_slice(data);
                    }
                }
                Poll::Ready(Some(Err(_))) => {
                    return Poll::Ready(Err(Broken("the response cannot be filtered")));
                }
            }
        }
    })
    .await
}

pub(super) async fn next(messages: &mut Streaming<ProcessingRequest>) -> Result<ProcessingRequest, Broken> {
    match messages.message().await {
        Ok(Some(message)) => Ok(message),
        Ok(None) => Err(Broken("the proxy ended the stream")),
        Err(status) => {
            tracing::debug!(%status, "a message of the proxy cannot be read");
            Err(Broken("a message of the proxy cannot be read"))
        }
    }
}

/// An attribute that Envoy was told to send (`request_attributes`, `response_attributes`).
fn attribute<'a>(message: &'a ProcessingRequest, name: &str) -> Option<&'a str> {
    let value = message.attributes.values().find_map(|group| group.fields.get(name))?;
    match value.kind.as_ref()? {
        Kind::StringValue(text) => Some(text),
        _ => None,
    }
}
