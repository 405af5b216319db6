//! An external processor that does what it must not, to see what becomes of requests then.
use std::{convert::Infallible, path::Path, time::Duration};

use anyhow::Context as _;
use envoy_types::pb::envoy::service::ext_proc::v3::{
    BodyResponse, HeadersResponse, ProcessingRequest, ProcessingResponse,
    external_processor_server::{ExternalProcessor, ExternalProcessorServer},
    processing_request::Request as Asked,
    processing_response::Response as Answer,
};
use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tokio::{
    net::UnixListener,
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// What it does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Misdeed {
    /// Ends its stream with OK before it has said anything.
    EndsAtOnce,
    /// Lets the head pass, and ends its stream with OK.
    EndsAfterTheHead,
    /// Panics in the task that answers: the stream ends with OK.
    Panics,
    /// Takes a message that is larger than it reads for the end of the stream.
    StopsAtLargeMessages,
    /// Lets everything pass without having decided.
    LetsPass,
    /// Ends its stream with an error.
    Fails,
    /// Says nothing.
    Hangs,
}

impl Misdeed {
    pub(super) const ALL: [Self; 7] = [
        Self::EndsAtOnce,
        Self::EndsAfterTheHead,
        Self::Panics,
        Self::StopsAtLargeMessages,
        Self::LetsPass,
        Self::Fails,
        Self::Hangs,
    ];
}

/// One that listens, as long as this value lives.
#[derive(Debug)]
pub(super) struct Hostile(JoinHandle<Infallible>);

impl Hostile {
    pub(super) fn start(socket: &Path, misdeed: Misdeed) -> anyhow::Result<Self> {
        let listener = UnixListener::bind(socket)
            .with_context(|| format!("`{}` cannot be listened on", socket.display()))?;
        let limit = if misdeed == Misdeed::StopsAtLargeMessages { 4096 } else { usize::MAX };
        let service = ExternalProcessorServer::new(Processor(misdeed)).max_decoding_message_size(limit);
        let service = TowerToHyperService::new(service);
        Ok(Self(tokio::spawn(async move {
            // They end with this task: nobody is to be left with a connection to one that is gone.
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                };
                while connections.try_join_next().is_some() {}
                let service = service.clone();
                connections.spawn(async move {
                    let mut server = http2::Builder::new(TokioExecutor::new());
                    server.initial_stream_window_size(16 << 20).initial_connection_window_size(64 << 20);
                    // Envoy comes and goes.
                    drop(server.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        })))
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Debug, Clone)]
struct Processor(Misdeed);

type Answers = mpsc::Sender<Result<ProcessingResponse, Status>>;

#[tonic::async_trait]
impl ExternalProcessor for Processor {
    type ProcessStream = ReceiverStream<Result<ProcessingResponse, Status>>;

    async fn process(
        &self,
        request: Request<Streaming<ProcessingRequest>>,
    ) -> Result<Response<Self::ProcessStream>, Status> {
        let (answers, received) = mpsc::channel(4);
        tokio::spawn(misbehave(self.0, request.into_inner(), answers));
        Ok(Response::new(ReceiverStream::new(received)))
    }
}

/// The stream ends with OK when this does.
async fn misbehave(misdeed: Misdeed, mut asked: Streaming<ProcessingRequest>, answers: Answers) {
    if misdeed == Misdeed::EndsAtOnce {
        return;
    }
    while let Ok(Some(message)) = asked.message().await {
        match misdeed {
            Misdeed::EndsAtOnce => return,
            // Without the words that a panic prints.
            Misdeed::Panics => std::panic::resume_unwind(Box::new("misdeed")),
            Misdeed::Fails => {
                drop(answers.send(Err(Status::internal("misdeed"))).await);
                return;
            }
            Misdeed::Hangs => continue,
            Misdeed::EndsAfterTheHead | Misdeed::StopsAtLargeMessages | Misdeed::LetsPass => {}
        }
        let answer = match message.request {
            Some(Asked::RequestHeaders(_)) => Answer::RequestHeaders(HeadersResponse::default()),
            Some(Asked::RequestBody(_)) => Answer::RequestBody(BodyResponse::default()),
            _ => return,
        };
        let answer = ProcessingResponse { response: Some(answer), ..ProcessingResponse::default() };
        if answers.send(Ok(answer)).await.is_err() || misdeed == Misdeed::EndsAfterTheHead {
            return;
        }
    }
}
