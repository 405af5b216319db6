//! Decision cases through a running gateway, between real connections: the requests that the servers see are exactly
//! those that were to be allowed, and every client is told what the specification says (section 5).
use std::collections::BTreeSet;

use serde_json::{Value, value::RawValue};

use super::{
    case::{self, Case, CaseFile, Expect},
    wire::{Reply, exchange, replies},
    world::{CASE_ID, Feed, Running, Seen, World},
};

const FORBIDDEN: &str = r#"{"code":403,"message":"Access to this tool is forbidden."}"#;

/// What the case's request must come to in this run.
fn forwarded(case: &Case, authorizer_allows: bool) -> bool {
    match case.expect {
        Expect::Allow => true,
        Expect::Delegate => authorizer_allows && !case.unanswerable,
        Expect::Deny | Expect::Reject => false,
    }
}

/// The routes to XBackends rewrite these prefixes; everything else goes on as it came.
fn xbackend_path(path: &str) -> Option<String> {
    ["/local/mcp", "/remote/mcp", "/cors/mcp"]
        .iter()
        .find_map(|prefix| path.strip_prefix(prefix))
        .filter(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
        .map(|rest| format!("/mcp{rest}"))
}

fn is_stateless(case: &Case) -> bool {
    case.headers().any(|header| header == ("mcp-protocol-version", "2026-07-28"))
}

/// Whether the case's session id stands for one that must be opened first.
fn wants_session(case: &Case) -> bool {
    xbackend_path(case.path()).is_some() && !is_stateless(case)
}

async fn send(
    gateway: &Running<'_>,
    case: &Case,
    id: &str,
    method: &str,
    body: Option<&str>,
    headers: &[(&str, &str)],
) -> Result<Reply, String> {
    let host = case.host.as_deref().unwrap_or("localhost");
    let mut head = format!("{method} {} HTTP/1.1\r\nhost: {host}\r\n{CASE_ID}: {id}\r\n", case.path());
    let given = |name: &str| headers.iter().any(|(header, _)| header.eq_ignore_ascii_case(name));
    if method == "POST" && body.is_some() {
        for implied in
            [("content-type", "application/json"), ("accept", "application/json, text/event-stream")]
        {
            if !given(implied.0) {
                head.push_str(&format!("{}: {}\r\n", implied.0, implied.1));
            }
        }
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(body) = body {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    head.push_str("connection: close\r\n\r\n");
    head.push_str(body.unwrap_or_default());
    let listener = case.listener.as_deref().unwrap_or("https");
    let identity = case.identity();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let mut wire = gateway
        .connect(listener, identity.as_deref(), name)
        .await
        .map_err(|error| format!("no connection: {error}"))?;
    let received = exchange(&mut *wire, head.as_bytes()).await.map_err(|error| error.to_string())?;
    match replies(&received, method == "HEAD")?.as_slice() {
        [reply] => Ok(reply.clone()),
        replies => Err(format!("one response is to come, not {replies:?}")),
    }
}

/// Opens a session as the case's caller at a gateway that has no policies and shares the key, as replicas do.
async fn open_session(opener: &Running<'_>, case: &Case) -> Result<String, String> {
    let initialize = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}"#;
    let reply = send(opener, case, "opener", "POST", Some(initialize), &[]).await?;
    let sealed = reply.header("mcp-session-id").ok_or_else(|| format!("no session was opened: {reply:?}"))?;
    if sealed.contains("session") {
        return Err(format!("the session id is the server's own: {sealed}"));
    }
    Ok(sealed.to_owned())
}

/// The case's request, sent. Sessions are opened first.
async fn replay(gateway: &Running<'_>, opener: &Running<'_>, case: &Case, id: &str) -> Result<Reply, String> {
    let mut session = None;
    let headers: Vec<(&str, &str)> = case.headers().collect();
    if wants_session(case) && headers.iter().any(|(name, _)| *name == "mcp-session-id") {
        session = Some(open_session(opener, case).await?);
    }
    let headers: Vec<(&str, &str)> = headers
        .into_iter()
        .map(|(name, value)| match &session {
            Some(session) if name == "mcp-session-id" => (name, session.as_str()),
            _ => (name, value),
        })
        .collect();
    send(gateway, case, id, case.method(), case.body.as_deref(), &headers).await
}

/// The messages of a body, each with the exact token of its id; `None`: the body is no JSON-RPC.
fn messages(body: &str) -> Option<(Vec<Option<String>>, bool)> {
    #[derive(serde::Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        jsonrpc: Option<&'a RawValue>,
        #[serde(borrow)]
        id: Option<&'a RawValue>,
        #[serde(borrow)]
        method: Option<&'a RawValue>,
    }
    let batch = body.trim_start().starts_with('[');
    let all: Vec<Message<'_>> =
        if batch { serde_json::from_str(body).ok()? } else { vec![serde_json::from_str(body).ok()?] };
    all.iter().all(|message| message.jsonrpc.is_some()).then_some(())?;
    // A response has an id too, but nobody waits for its answer.
    let ids =
        all.iter().map(|message| message.method.and(message.id).map(|id| id.get().to_owned())).collect();
    Some((ids, batch))
}

/// What the client of a request that was denied must have got.
pub(crate) fn denial_fault(method: &str, body: Option<&str>, is_json: bool, reply: &Reply) -> Option<String> {
    let error = |id: &String| format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{FORBIDDEN}}}"#);
    let expected = match (method, body.and_then(messages)) {
        ("POST", Some((ids, batch))) if is_json => {
            let errors: Vec<String> = ids.iter().flatten().map(error).collect();
            match errors.as_slice() {
                [] => (403, "application/json", Some(format!(r#"{{"jsonrpc":"2.0","error":{FORBIDDEN}}}"#))),
                [only] if !batch => (200, "application/json", Some(only.clone())),
                errors => (200, "application/json", Some(format!("[{}]", errors.join(",")))),
            }
        }
        _ => (403, "text/plain; charset=utf-8", None),
    };
    let (status, content_type, body) = expected;
    let fault = reply.status != status
        || reply.header("content-type") != Some(content_type)
        || body.as_ref().is_some_and(|body| reply.text() != *body)
        || (body.is_none() && !(1..100).contains(&reply.body.len()));
    fault.then(|| format!("denied with {reply:?}, not {status} {content_type} {body:?}"))
}

fn rejection_fault(case: &Case, reply: &Reply) -> Option<String> {
    let fits = case.status.map_or((400..500).contains(&reply.status), |status| reply.status == status);
    let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    let code = &body["error"]["code"];
    (!fits || case.code.is_some_and(|expected| code != expected))
        .then(|| format!("rejected with {reply:?}, not {:?} {:?}", case.status, case.code))
}

fn reply_fault(case: &Case, forwarded: bool, reply: &Reply) -> Option<String> {
    if forwarded {
        let upstream = reply.header("x-upstream").filter(|_| reply.status == 200);
        return upstream.is_none().then(|| format!("not the server's answer: {reply:?}"));
    }
    if reply.header("x-upstream").is_some() {
        return Some(format!("an answer of the server: {reply:?}"));
    }
    match case.expect {
        Expect::Reject => rejection_fault(case, reply),
        _ => {
            let is_json =
                case.headers().all(|header| header.0 != "content-type" || header.1 == "application/json");
            denial_fault(case.method(), case.body.as_deref(), is_json, reply)
        }
    }
}

/// Whom the server is told that the request came from: whomever the client named, and the client itself, once.
fn is_forwarded_for_client(case: &Case, seen: &Seen) -> bool {
    let lines = seen.headers.get_all("x-forwarded-for").iter();
    let told = lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(',').map(str::trim));
    let named = case.headers().filter(|(name, _)| *name == "x-forwarded-for").map(|(_, value)| value);
    told.eq(named.chain(["127.0.0.1"]))
}

/// What the server must have seen of a request that was let through.
fn seen_fault(case: &Case, seen: &Seen) -> Option<String> {
    let upstream = match case.path() {
        path if path.starts_with("/local/") => "mcp-everything-svc",
        path if path.starts_with("/remote/") => "mcp.deepwiki.com",
        _ => seen.upstream,
    };
    let path = xbackend_path(case.path()).unwrap_or_else(|| case.path().to_owned());
    let session = case.headers().find(|(name, _)| *name == "mcp-session-id").map(|(_, value)| value);
    let session = match session {
        _ if xbackend_path(case.path()).is_some() && is_stateless(case) => None,
        Some(_) if wants_session(case) => Some(format!("{upstream}-session")),
        untouched => untouched.map(str::to_owned),
    };
    let same = seen.upstream == upstream
        && seen.method == case.method()
        && seen.path == path
        && seen.body == case.body.as_deref().unwrap_or_default()
        && seen.header("mcp-session-id") == session.as_deref()
        && seen.header("x-forwarded-client-cert").is_none()
        && is_forwarded_for_client(case, seen);
    (!same).then(|| format!("the server saw {seen:?}; expected {upstream} {path} session {session:?}"))
}

/// How a case came out otherwise than the specification says.
#[derive(Debug)]
pub(crate) struct Fault {
    /// `file: case`
    pub(crate) case: String,
    /// Nothing was sent up, and the client was refused: a difference on the safe side.
    pub(crate) refused: bool,
    pub(crate) what: String,
}

/// Whether the client was told that it gets nothing: an HTTP error, or a JSON-RPC error for a whole message or batch.
pub(crate) fn is_refusal(reply: &Reply) -> bool {
    let errors = |body: &Value| match body {
        Value::Array(answers) => {
            !answers.is_empty() && answers.iter().all(|answer| answer.get("error").is_some())
        }
        answer => answer.get("error").is_some(),
    };
    reply.status >= 400 || serde_json::from_slice(&reply.body).is_ok_and(|body: Value| errors(&body))
}

/// One case; `None`: all was as it is to be.
async fn replay_case(
    world: &World,
    gateway: &Running<'_>,
    opener: &Running<'_>,
    case: &Case,
    id: &str,
    allowing: bool,
) -> Option<(bool, String)> {
    let forwarded = forwarded(case, allowing);
    let mut faults = Vec::new();
    let mut refused = true;
    match replay(gateway, opener, case, id).await {
        Ok(reply) => {
            refused &= is_refusal(&reply);
            faults.extend(reply_fault(case, forwarded, &reply));
        }
        // An opener that fails is no refusal of this request, and a connection that breaks is no answer.
        Err(error) => {
            refused = false;
            faults.push(error);
        }
    }
    let seen = world.memory.take_seen();
    let mut ids = BTreeSet::new();
    for seen in seen.iter().filter(|seen| seen.id() != "opener") {
        refused = false;
        faults.extend(seen_fault(case, seen));
        if !ids.insert(seen.id()) {
            faults.push("sent twice".to_owned());
        }
    }
    let expected: BTreeSet<String> = forwarded.then(|| id.to_owned()).into_iter().collect();
    if ids != expected {
        faults.push(format!("the servers saw {ids:?}, not {expected:?}"));
    }
    // Nobody is asked about what local rules decide.
    let asked = world.memory.take_asked();
    let foreign = asked.iter().any(|asked| *asked != id);
    if foreign || asked.is_empty() == (case.expect == Expect::Delegate && !case.unanswerable) {
        faults.push(format!("the authorizers were asked about {asked:?}"));
    }
    (!faults.is_empty()).then(|| (refused, format!("authorizer allows: {allowing}: {}", faults.join("; "))))
}

async fn replay_file(world: &World, feed: &Feed, opener: &Running<'_>, file: &CaseFile) -> Vec<Fault> {
    let gateway = world.gateway(&file.name, feed, &file.manifests, &file.flags).await;
    let mut faults = Vec::new();
    for allowing in [true, false] {
        world.memory.authorizers_allow(allowing);
        for (at, case) in file.cases.iter().enumerate() {
            let id = format!("{}-{at}-{allowing}", file.name);
            if let Some((refused, what)) = replay_case(world, &gateway, opener, case, &id, allowing).await {
                faults.push(Fault { case: format!("{}: {}", file.name, case.name), refused, what });
            }
        }
    }
    gateway.stop().await;
    faults
}

/// Replays every case, with gateways that get their configuration as the feed says; sessions are opened at another one.
pub(crate) async fn faults(world: &World, feed: &Feed, opener: &Feed) -> Vec<Fault> {
    let opener = world.gateway("opener", opener, "", &[]).await;
    let mut faults = Vec::new();
    for file in case::load() {
        faults.extend(replay_file(world, feed, &opener, &file).await);
    }
    opener.stop().await;
    faults
}

/// Replays every case; none may come out otherwise.
pub(crate) async fn every_case(world: &World, feed: &Feed) {
    let faults = faults(world, feed, &Feed::Files).await;
    let lines: Vec<String> = faults.iter().map(|fault| format!("{}: {}", fault.case, fault.what)).collect();
    assert!(lines.is_empty(), "{} failed:\n{}", lines.len(), lines.join("\n"));
}
