//! An MCP client of few words, for what an SDK would hide: statuses, session ids, the order of bytes.
use std::{
    collections::BTreeSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::http::{Connection, Target};

const SESSION: &str = "mcp-session-id";
const REVISION: &str = "2025-06-18";

/// Every request of a run has an id of its own, so that what arrives upstream can be told apart; SDKs count from 0.
static IDS: AtomicU64 = AtomicU64::new(1_000_000);

/// An id that no other request of this run has.
pub(crate) fn fresh_id() -> u64 {
    IDS.fetch_add(1, Ordering::Relaxed)
}

/// How the requests of this run were answered, by their ids.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answered {
    /// With a result.
    pub(crate) served: BTreeSet<u64>,
    /// By a policy.
    pub(crate) forbidden: BTreeSet<u64>,
}

static ANSWERED: Mutex<Answered> =
    Mutex::new(Answered { served: BTreeSet::new(), forbidden: BTreeSet::new() });

/// How all requests so far were answered.
pub(crate) fn answered() -> Answered {
    ANSWERED.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// One session on one connection.
#[derive(Debug)]
pub(crate) struct Session {
    connection: Connection,
    path: String,
    id: Option<String>,
}

/// Where most gateways here have their MCP server.
const PATH: &str = "/mcp";

/// What came back for a request.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Of the request.
    pub(crate) id: u64,
    pub(crate) status: u16,
    /// The JSON-RPC message with the request's id; what there was if there was none.
    pub(crate) message: Value,
}

impl Answer {
    /// Whether it is HTTP 200 with a result.
    pub(crate) fn is_result(&self) -> bool {
        self.status == 200 && self.message.get("result").is_some()
    }

    /// Whether it is the refusal of a policy: HTTP 200, code 403, the known message, and nothing else.
    pub(crate) fn is_forbidden(&self) -> bool {
        let expected = json!({
            "jsonrpc": "2.0",
            "id": self.id,
            "error": {"code": 403, "message": "Access to this tool is forbidden."},
        });
        self.status == 200 && self.message == expected
    }

    /// The result; anything else is an error.
    pub(crate) fn result(mut self) -> anyhow::Result<Value> {
        ensure!(self.is_result(), "no result: {self:?}");
        Ok(self.message.get_mut("result").map(Value::take).unwrap_or_default())
    }
}

impl Session {
    /// A connection without a session, and the path that it asks for.
    async fn connect(target: &Target, path: &str) -> anyhow::Result<Self> {
        Ok(Self { connection: Connection::open(target).await?, path: path.to_owned(), id: None })
    }

    /// A connection that goes on with a session that another one began.
    pub(crate) async fn resume(target: &Target, id: &str) -> anyhow::Result<Self> {
        let id = Some(id.to_owned());
        Ok(Self { connection: Connection::open(target).await?, path: PATH.to_owned(), id })
    }

    /// A connection with a session of its own.
    pub(crate) async fn open(target: &Target) -> anyhow::Result<Self> {
        Self::open_at(target, PATH).await
    }

    /// The same, on another path.
    pub(crate) async fn open_at(target: &Target, path: &str) -> anyhow::Result<Self> {
        let mut session = Self::connect(target, path).await?;
        session.initialize().await?;
        Ok(session)
    }

    async fn initialize(&mut self) -> anyhow::Result<()> {
        let params = json!({
            "protocolVersion": REVISION,
            "capabilities": {},
            "clientInfo": {"name": "interop", "version": "1.0.0"},
        });
        let (id, response) = self.send("initialize", &params).await?;
        let session = response.headers().get(SESSION).cloned();
        read(id, response).await?.result().context("initialize")?;
        self.id = Some(session.context("initialize gave no session id")?.to_str()?.to_owned());
        let notification = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        let response = self.post(&notification).await?;
        ensure!(response.status() == 202, "notifications/initialized: {}", response.status());
        drain(response).await
    }

    /// The session's id, as the server gave it.
    pub(crate) fn id(&self) -> anyhow::Result<&str> {
        self.id.as_deref().context("no session")
    }

    /// A request and its answer.
    pub(crate) async fn request(&mut self, method: &str, params: &Value) -> anyhow::Result<Answer> {
        let (id, response) = self.send(method, params).await?;
        read(id, response).await
    }

    /// `tools/call`
    pub(crate) async fn call(&mut self, tool: &str, arguments: &Value) -> anyhow::Result<Answer> {
        self.request("tools/call", &json!({"name": tool, "arguments": arguments})).await
    }

    /// A request; its response is still to be read.
    pub(crate) async fn send(
        &mut self,
        method: &str,
        params: &Value,
    ) -> anyhow::Result<(u64, Response<Incoming>)> {
        let id = fresh_id();
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        Ok((id, self.post(&message).await?))
    }

    async fn post(&mut self, message: &Value) -> anyhow::Result<Response<Incoming>> {
        let request = self
            .builder(Method::POST)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, text/event-stream")
            .body(Full::new(Bytes::from(message.to_string())))?;
        self.connection.send(request).await
    }

    /// GET: the session's event stream.
    pub(crate) async fn events(&mut self) -> anyhow::Result<Response<Incoming>> {
        let request =
            self.builder(Method::GET).header(header::ACCEPT, "text/event-stream").body(Full::default())?;
        self.connection.send(request).await
    }

    /// DELETE: ends the session; gives the status.
    pub(crate) async fn delete(&mut self) -> anyhow::Result<u16> {
        let request = self.builder(Method::DELETE).body(Full::default())?;
        let response = self.connection.send(request).await?;
        let status = response.status().as_u16();
        drain(response).await?;
        Ok(status)
    }

    fn builder(&self, method: Method) -> http::request::Builder {
        let mut builder = Request::builder().method(method).uri(self.path.as_str());
        if let Some(id) = &self.id {
            builder = builder.header(SESSION, id).header("mcp-protocol-version", REVISION);
        }
        builder
    }
}

/// Waits on an event stream for a message that the predicate accepts.
pub(crate) async fn next_event(
    body: &mut Incoming,
    accept: impl Fn(&Value) -> bool,
) -> anyhow::Result<Value> {
    let mut text = String::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            text.push_str(std::str::from_utf8(&data).context("an event is cut inside a character")?);
        }
        while let Some((line, rest)) = text.split_once('\n') {
            let event =
                line.strip_prefix("data:").and_then(|data| serde_json::from_str::<Value>(data.trim()).ok());
            if let Some(event) = event.filter(&accept) {
                return Ok(event);
            }
            text = rest.to_owned();
        }
    }
    bail!("the event stream ended")
}

async fn read(id: u64, response: Response<Incoming>) -> anyhow::Result<Answer> {
    let status = response.status().as_u16();
    let kind = response.headers().get(header::CONTENT_TYPE).cloned();
    let body = response.into_body().collect().await.context("the response broke off")?.to_bytes();
    let text = String::from_utf8_lossy(&body);
    let is_stream = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    let message = if is_stream {
        text.lines()
            .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data:")?.trim()).ok())
            .find(|message| message.get("id") == Some(&json!(id)))
            .with_context(|| format!("{status}: no answer in the event stream"))?
    } else {
        serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.into_owned()))
    };
    let answer = Answer { id, status, message };
    let mut answered = ANSWERED.lock().unwrap_or_else(PoisonError::into_inner);
    if answer.is_result() {
        answered.served.insert(id);
    } else if answer.is_forbidden() {
        answered.forbidden.insert(id);
    }
    drop(answered);
    Ok(answer)
}

async fn drain(response: Response<Incoming>) -> anyhow::Result<()> {
    response.into_body().collect().await.context("the response broke off")?;
    Ok(())
}
