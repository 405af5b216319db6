//! An MCP server that records: which requests arrived, by id; a tool whose answer is as long as one likes, and is sent in
//! two halves so that a test sees whether it streams.
use std::{
    collections::HashSet,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::{body::Frame, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc},
    task::JoinHandle,
};
use tokio_stream::wrappers::ReceiverStream;

type Body = BoxBody<Bytes, Infallible>;

/// Bytes of one event of a long answer.
const EVENT: usize = 16 * 1024;

/// The server; it ends with this value.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    sessions: AtomicU64,
    /// Requests of any kind that arrived, whole or not.
    requests: AtomicU64,
    /// Ids of the `tools/call` requests that arrived.
    calls: Mutex<HashSet<u64>>,
    /// Bytes of long answers that were taken off our hands.
    sent: AtomicU64,
    /// Lets the second half of a long answer go.
    go_on: Notify,
}

impl Upstream {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                // Small answers at once: without this every second one waits for an acknowledgement.
                drop(stream.set_nodelay(true));
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(request, Arc::clone(&state)));
                    // A gateway may close a connection at any time.
                    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        Ok(Self { address, state, task })
    }

    /// Whether a `tools/call` of this id arrived.
    pub(crate) fn saw(&self, id: u64) -> bool {
        self.state.calls.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }

    /// How many requests of any kind have arrived.
    pub(crate) fn requests(&self) -> u64 {
        self.state.requests.load(Ordering::Relaxed)
    }

    /// Bytes of long answers that were sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.state.sent.load(Ordering::Relaxed)
    }

    /// Sends the second half of a long answer.
    pub(crate) fn go_on(&self) {
        self.state.go_on.notify_one();
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(request: Request<Incoming>, state: Arc<State>) -> Result<Response<Body>, Infallible> {
    state.requests.fetch_add(1, Ordering::Relaxed);
    let is_post = request.method() == Method::POST;
    let body = match request.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Ok(status(StatusCode::BAD_REQUEST)),
    };
    let message: Value = match serde_json::from_slice(&body) {
        Ok(message) if is_post => message,
        _ => return Ok(status(StatusCode::METHOD_NOT_ALLOWED)),
    };
    let Some(id) = message.get("id").and_then(Value::as_u64) else { return Ok(status(StatusCode::ACCEPTED)) };
    let params = message.get("params").cloned().unwrap_or_default();
    Ok(match message.get("method").and_then(Value::as_str) {
        Some("initialize") => {
            let session = state.sessions.fetch_add(1, Ordering::Relaxed);
            let mut response = json_rpc(
                id,
                &json!({
                    "protocolVersion": params.get("protocolVersion"),
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "interop-upstream", "version": "1.0.0"},
                }),
            );
            if let Ok(session) = format!("session-{session}").parse() {
                response.headers_mut().insert("mcp-session-id", session);
            }
            response
        }
        Some("tools/list") => json_rpc(id, &json!({"tools": []})),
        Some("tools/call") => {
            state.calls.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
            call(id, &params, state)
        }
        _ => json_rpc(id, &json!({})),
    })
}

fn call(id: u64, params: &Value, state: Arc<State>) -> Response<Body> {
    let arguments = params.get("arguments").cloned().unwrap_or_default();
    match (params.get("name").and_then(Value::as_str), arguments.get("bytes").and_then(Value::as_u64)) {
        (Some("stream"), Some(bytes)) => stream(id, usize::try_from(bytes).unwrap_or(0), state),
        _ => {
            let length = arguments.get("text").and_then(Value::as_str).map_or(0, str::len);
            json_rpc(id, &text(&format!("{length} bytes")))
        }
    }
}

fn text(text: &str) -> Value {
    json!({"content": [{"type": "text", "text": text}]})
}

fn json_rpc(id: u64, result: &Value) -> Response<Body> {
    let message = json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string();
    let mut response = Response::new(Full::from(message).boxed());
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// Notifications of `bytes` in all, then the result. The second half waits for [`Upstream::go_on`].
fn stream(id: u64, bytes: usize, state: Arc<State>) -> Response<Body> {
    let (events, received) = mpsc::channel::<Result<Frame<Bytes>, Infallible>>(4);
    tokio::spawn(async move {
        let data = "x".repeat(EVENT);
        let count = bytes.div_ceil(EVENT).max(2);
        let event =
            |message: &Value| Ok(Frame::data(Bytes::from(format!("event: message\ndata: {message}\n\n"))));
        for sent in 0..count {
            if sent == count / 2 {
                tokio::select! {
                    () = state.go_on.notified() => {}
                    // Whoever is gone takes nothing from the next one.
                    () = events.closed() => return,
                }
            }
            let message = json!({
                "jsonrpc": "2.0",
                "method": "notifications/message",
                "params": {"level": "info", "data": data},
            });
            if events.send(event(&message)).await.is_err() {
                return;
            }
            state.sent.fetch_add(EVENT as u64, Ordering::Relaxed);
        }
        let result = json!({"jsonrpc": "2.0", "id": id, "result": text("streamed")});
        // The client may have gone.
        drop(events.send(event(&result)).await);
    });
    let mut response = Response::new(StreamBody::new(ReceiverStream::new(received)).boxed());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/event-stream"));
    response
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Full::default().boxed());
    *response.status_mut() = status;
    response
}
