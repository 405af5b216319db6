//! Envoy's engine absent, killed under load, silent, hostile; Envoy killed. What needs a decision is denied as long as
//! there is none, and never arrives upstream; answers that run go on; what is back is used at once. Event streams end when a
//! changed policy would deny them.
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinSet};

use super::{
    Run,
    certificates::Certificates,
    envoy::{MINORS, NEWEST, Pair},
    gateway::{HTTPS, Manifests, NAMESPACE, inline_tools},
    hostile::{Hostile, Misdeed},
    http::{Connection, Target},
    process::Process,
    report::Report,
    session::{Session, fresh_id},
    upstream::Upstream,
};

const AGENT: &str = "agent";
const ALLOWED: &str = "get-sum";
const FORBIDDEN: &str = "get-env";
/// Its answer is an event stream where the call says how long it is to be.
const STREAMING: &str = "stream";
/// Bytes of a body that are let through, by default.
const LIMIT: usize = 1 << 20;
const FAR_OVER: usize = 10 << 20;
const SMALL: usize = 300;
/// Within this, after it is back, a call is served.
const SERVED: Duration = Duration::from_secs(1);
/// Envoy waits 10 s for an answer.
const CALL: Duration = Duration::from_secs(25);
/// Within this, a policy in a file is in force.
const CHANGED: Duration = Duration::from_secs(15);
const STEP: Duration = Duration::from_secs(60);
const UP: Duration = Duration::from_millis(700);
const DOWN: Duration = Duration::from_millis(1500);
/// Bytes of an answer of which half comes before a fault and half during it.
const STREAM: u64 = 512 * 1024;

pub(super) async fn run(run: &Run, report: &mut Report) -> anyhow::Result<()> {
    let minors = if run.long { MINORS.as_slice() } else { &[NEWEST] };
    for minor in minors {
        report.suite(&format!("Envoy {minor}: its engine absent, killed, silent, hostile; Envoy killed"));
        World::start(run, minor).await?.suite(report).await?;
    }
    Ok(())
}

/// A pair, what is behind it, and two ways of asking it.
struct World {
    pair: Pair,
    /// Without policies, and where they are.
    manifests: Manifests,
    folder: PathBuf,
    /// Whoever starts it again when it is gone is this test.
    envoy: Option<Process>,
    upstream: Upstream,
    http1: Target,
    http2: Target,
}

impl World {
    /// Envoy without an engine.
    async fn start(run: &Run, minor: &str) -> anyhow::Result<Self> {
        let folder = run.folder(&format!("faults-{minor}"))?;
        let upstream = Upstream::start().await?;
        let certificates = Certificates::new(&folder.join("certificates"))?;
        let identity = certificates.workload(NAMESPACE, "gateway")?;
        let agent = certificates.workload(NAMESPACE, AGENT)?;
        let manifests =
            Manifests::https(&certificates.server()?).mcp_server("upstream", upstream.address.port());
        let at = folder.join("manifests");
        allow(&manifests, &at, &[ALLOWED, STREAMING])?;
        let pair = Pair::new(run.envoy(minor).await?, &folder, Some(&identity), &[HTTPS]).await?;
        let envoy = Some(pair.envoy().await?);
        let target = |alpn: &str| -> anyhow::Result<Target> {
            Ok(Target::tls(pair.address(HTTPS)?, certificates.client(Some(&agent), &[alpn])?))
        };
        let (http1, http2) = (target("http/1.1")?, target("h2")?);
        Ok(Self { pair, manifests, folder: at, envoy, upstream, http1, http2 })
    }

    async fn suite(mut self, report: &mut Report) -> anyhow::Result<()> {
        let absent = report.step("absent: everything is denied", STEP, self.all_denied()).await;
        if let Some(figures) = absent {
            report.note(&figures);
        }
        let started = async {
            let engine = self.pair.decide().await?;
            self.served_soon().await.map(|took| (engine, took))
        };
        let Some((engine, took)) = report.step("started: served within a second", STEP, started).await else {
            return Ok(());
        };
        report.note(&format!("the first call after {} ms", took.as_millis()));
        report.step("bodies at, one over and far over the limit", STEP, self.sizes()).await;
        report.step("event streams end when a changed policy would deny them", STEP, self.watched()).await;
        let killed = report.step("killed under load", STEP, self.killed(engine)).await;
        let Some((engine, figures)) = killed else { return Ok(()) };
        report.note(&figures);
        let silent =
            report.step("silent: everything is denied, answers go on", STEP, self.silent(engine)).await;
        if let Some(figures) = silent {
            report.note(&figures);
        }
        for misdeed in Misdeed::ALL {
            let name = format!("an engine that misbehaves ({misdeed:?}): everything is denied");
            let figures = report.step(&name, STEP, self.hostile(misdeed)).await;
            if let Some(figures) = figures {
                report.note(&figures);
            }
        }
        report
            .step("the engine is back: served within a second; Envoy killed: sessions live on", STEP, async {
                let _engine = self.pair.decide().await?;
                self.served_soon().await?;
                self.envoy_killed().await
            })
            .await;
        self.envoy.as_mut().context("Envoy is gone")?.still_runs()
    }

    fn targets(&self) -> [(&'static str, &Target); 2] {
        [("HTTP/1.1", &self.http1), ("HTTP/2", &self.http2)]
    }

    /// Every kind of request, over both protocols, at the same time.
    async fn all_denied(&self) -> anyhow::Result<String> {
        let before = self.upstream.requests();
        let began = Instant::now();
        let mut asked = JoinSet::new();
        for (protocol, target) in self.targets() {
            for ask in Ask::all() {
                let target = target.clone();
                asked.spawn(async move { (protocol, ask.name.clone(), ask.outcome(&target).await) });
            }
        }
        let (mut denied, mut broken) = (0, 0);
        while let Some(answered) = asked.join_next().await {
            let (protocol, name, outcome) = answered?;
            match outcome {
                Outcome::Denied(_) => denied += 1,
                // Whoever sends a large body may see the connection end before the answer.
                Outcome::Broken(_) if name.starts_with("a body") => broken += 1,
                other => bail!("{name} over {protocol}: {other:?}"),
            }
        }
        let arrived = self.upstream.requests() - before;
        ensure!(arrived == 0, "{arrived} requests arrived upstream");
        Ok(format!(
            "{denied} denied, {broken} cut off while they were sent, none seen upstream, in {} ms",
            began.elapsed().as_millis()
        ))
    }

    /// How long it takes until a call is served, which is soon.
    async fn served_soon(&self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        for (protocol, target) in self.targets() {
            loop {
                let outcome = Ask::call(SMALL).outcome(target).await;
                if outcome == Outcome::Served {
                    break;
                }
                ensure!(began.elapsed() <= SERVED, "over {protocol}, after a second: {outcome:?}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        ensure!(began.elapsed() <= SERVED, "served after {} ms", began.elapsed().as_millis());
        Ok(began.elapsed())
    }

    /// With the engine there.
    async fn sizes(&self) -> anyhow::Result<()> {
        for (protocol, target) in self.targets() {
            for (size, served) in [(SMALL, true), (LIMIT, true), (LIMIT + 1, false), (FAR_OVER, false)] {
                let before = self.upstream.requests();
                let outcome = Ask::call(size).outcome(target).await;
                let arrived = self.upstream.requests() - before;
                let fits = match &outcome {
                    Outcome::Served => served && arrived == 1,
                    Outcome::Denied(status) => !served && *status == 413 && arrived == 0,
                    Outcome::Broken(_) => !served && size == FAR_OVER && arrived == 0,
                };
                ensure!(fits, "{size} bytes over {protocol}: {outcome:?}, {arrived} arrived upstream");
            }
        }
        Ok(())
    }

    /// Changes policies while answers run.
    async fn watched(&self) -> anyhow::Result<()> {
        let mut running = [Running::begin(&self.http1).await?, Running::begin(&self.http2).await?];
        allow(&self.manifests, &self.folder, &[ALLOWED, STREAMING, FORBIDDEN])?;
        self.until(FORBIDDEN, true).await?;
        for running in &mut running {
            running.still_runs().await.context("after a change that allows more")?;
        }
        allow(&self.manifests, &self.folder, &[ALLOWED])?;
        for running in running {
            running.cut_off().await.context("after a change that denies it")?;
        }
        allow(&self.manifests, &self.folder, &[ALLOWED, STREAMING])?;
        self.until(STREAMING, true).await?;
        // And one that the policy before would have ended.
        Running::begin(&self.http1).await?.end(&self.upstream).await
    }

    /// Waits until calls of a tool are served, or are not.
    async fn until(&self, tool: &str, served: bool) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let outcome = Ask::tool(tool, SMALL).outcome(&self.http1).await;
            if (outcome == Outcome::Served) == served {
                return Ok(());
            }
            ensure!(began.elapsed() <= CHANGED, "`{tool}` after a change: {outcome:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Kills the engine while calls are made and an answer runs, and starts it again.
    async fn killed(&self, engine: Process) -> anyhow::Result<(Process, String)> {
        let (stop, stopped) = watch::channel(false);
        let (mut callers, mut forbidden) = (JoinSet::new(), JoinSet::new());
        for (_, target) in self.targets() {
            for size in [SMALL, SMALL, 64 * 1024, LIMIT] {
                callers.spawn(caller(target.clone(), ALLOWED, size, stopped.clone()));
            }
            forbidden.spawn(caller(target.clone(), FORBIDDEN, SMALL, stopped.clone()));
        }
        let running = Running::begin(&self.http1).await?;
        tokio::time::sleep(UP).await;
        let killing = Instant::now();
        engine.end().await?;
        let killed = Instant::now();
        running.end(&self.upstream).await.context("an answer that ran when the engine was killed")?;
        tokio::time::sleep(DOWN).await;
        let restarting = Instant::now();
        let engine = self.pair.decide().await?;
        let back = Instant::now();
        let took = self.served_soon().await?;
        tokio::time::sleep(UP).await;
        stop.send_replace(true);
        let calls: Vec<Call> = callers.join_all().await.concat();
        let forbidden: Vec<Call> = forbidden.join_all().await.concat();
        let all = |of: &dyn Fn(&Call) -> bool, served: bool, least: usize| -> anyhow::Result<usize> {
            let found: Vec<&Call> = calls.iter().filter(|call| of(call)).collect();
            let wrong = found.iter().find(|call| (call.outcome == Outcome::Served) != served);
            ensure!(wrong.is_none(), "{wrong:?}");
            ensure!(found.len() >= least, "{} calls only", found.len());
            Ok(found.len())
        };
        let before = all(&|call| call.ended < killing, true, 20).context("before it was killed")?;
        let denied = all(&|call| call.began > killed && call.ended < restarting, false, 20)
            .context("while it was gone")?;
        let after = all(&|call| call.began > back + took, true, 5).context("after it was back")?;
        // What was decided when the engine died may have been sent up, and its answer lost.
        let crosses = |call: &Call| call.began < killed && call.ended > killing;
        let (lost, leaked): (Vec<&Call>, Vec<&Call>) = calls
            .iter()
            .filter(|call| call.outcome != Outcome::Served && self.upstream.saw(call.id))
            .partition(|call| crosses(call));
        ensure!(leaked.is_empty(), "denied, and arrived upstream: {leaked:?}");
        let passed =
            forbidden.iter().find(|call| call.outcome == Outcome::Served || self.upstream.saw(call.id));
        ensure!(passed.is_none(), "forbidden, and let through: {passed:?}");
        ensure!(forbidden.len() >= 20, "{} forbidden calls only", forbidden.len());
        Ok((
            engine,
            format!(
                "{before} of {before} served before, {denied} of {denied} denied meanwhile, none of them seen upstream; {} that \
                 were decided lost their answers; back after {} ms, {after} of {after} served; {} forbidden ones all denied",
                lost.len(),
                took.as_millis(),
                forbidden.len(),
            ),
        ))
    }

    /// Stops the engine: it keeps its connections and says nothing.
    async fn silent(&self, engine: Process) -> anyhow::Result<String> {
        let running = Running::begin(&self.http2).await?;
        engine.suspend().await?;
        let figures = self.all_denied().await?;
        running.end(&self.upstream).await.context("an answer that ran when the engine was stopped")?;
        engine.end().await?;
        let engine = self.pair.decide().await?;
        let took = self.served_soon().await?;
        engine.end().await?;
        Ok(format!("{figures}; another one: served after {} ms", took.as_millis()))
    }

    async fn hostile(&self, misdeed: Misdeed) -> anyhow::Result<String> {
        self.pair.no_engine()?;
        let _hostile = Hostile::start(&self.pair.socket(), misdeed)?;
        self.all_denied().await
    }

    /// With an engine.
    async fn envoy_killed(&mut self) -> anyhow::Result<()> {
        let session = Session::open(&self.http1).await?;
        let id = session.id()?.to_owned();
        self.envoy.take().context("Envoy is gone")?.end().await?;
        self.envoy = Some(self.pair.envoy().await?);
        for (_, target) in self.targets() {
            Session::resume(target, &id).await?.call(ALLOWED, &json!({})).await?.result()?;
        }
        Ok(())
    }
}

/// The agent may call these tools.
fn allow(manifests: &Manifests, folder: &Path, tools: &[&str]) -> anyhow::Result<()> {
    manifests.clone().policy("upstream", &[(AGENT, inline_tools(tools))]).write(folder)
}

/// A request.
#[derive(Debug, Clone)]
struct Ask {
    name: String,
    id: u64,
    method: Method,
    body: Bytes,
}

impl Ask {
    fn all() -> Vec<Self> {
        let message = |name: &str, message: &Value| Self {
            name: name.to_owned(),
            id: 0,
            method: Method::POST,
            body: Bytes::from(message.to_string()),
        };
        let empty = |method: Method| Self { name: method.to_string(), id: 0, method, body: Bytes::new() };
        let large = [LIMIT, LIMIT + 1, FAR_OVER].map(|size| {
            let mut ask = Self::call(size);
            ask.name = format!("a body of {size} bytes");
            ask
        });
        let initialize = json!({"jsonrpc": "2.0", "id": fresh_id(), "method": "initialize", "params": {
            "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}});
        let mut all = vec![
            Self::call(SMALL),
            message("initialize", &initialize),
            message("a notification", &json!({"jsonrpc": "2.0", "method": "notifications/initialized"})),
            empty(Method::GET),
            empty(Method::DELETE),
        ];
        all.extend(large);
        all
    }

    /// A `tools/call` that is allowed, of so many bytes.
    fn call(size: usize) -> Self {
        Self::tool(ALLOWED, size)
    }

    fn tool(tool: &str, size: usize) -> Self {
        let id = fresh_id();
        let message = |text: &str| {
            json!({"jsonrpc": "2.0", "id": id, "method": "tools/call",
                   "params": {"name": tool, "arguments": {"text": text}}})
            .to_string()
        };
        let padding = size.saturating_sub(message("").len());
        let body = Bytes::from(message(&"x".repeat(padding)));
        Self { name: "a call".to_owned(), id, method: Method::POST, body }
    }

    async fn outcome(self, target: &Target) -> Outcome {
        let asked = async {
            let mut builder = Request::builder().method(self.method.clone()).uri("/mcp");
            if self.method == Method::POST {
                builder = builder
                    .header(header::CONTENT_TYPE, "application/json")
                    .header(header::ACCEPT, "application/json, text/event-stream");
            } else {
                builder =
                    builder.header(header::ACCEPT, "text/event-stream").header("mcp-session-id", "none");
            }
            let request = builder.body(Full::new(self.body.clone()))?;
            let mut connection = Connection::open(target).await?;
            let response = connection.send(request).await?;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.context("the answer broke off")?.to_bytes();
            anyhow::Ok((status, body))
        };
        match tokio::time::timeout(CALL, asked).await {
            Err(_) => Outcome::Broken(format!("no answer within {} s", CALL.as_secs())),
            Ok(Err(error)) => Outcome::Broken(format!("{error:#}")),
            Ok(Ok((status, body))) => {
                let message: Value = serde_json::from_slice(&body).unwrap_or_default();
                if status < 400 && message.get("error").is_none() {
                    Outcome::Served
                } else {
                    Outcome::Denied(status)
                }
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Served,
    Denied(u16),
    Broken(String),
}

#[derive(Debug, Clone)]
struct Call {
    id: u64,
    began: Instant,
    ended: Instant,
    outcome: Outcome,
}

async fn caller(
    target: Target,
    tool: &'static str,
    size: usize,
    stopped: watch::Receiver<bool>,
) -> Vec<Call> {
    let mut calls = Vec::new();
    while !*stopped.borrow() {
        let ask = Ask::tool(tool, size);
        let (id, began) = (ask.id, Instant::now());
        let outcome = ask.outcome(&target).await;
        calls.push(Call { id, began, ended: Instant::now(), outcome });
        // Some load, not all that two processors can bear: others build here.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    calls
}

/// An answer that runs: its first half has come, the second waits to be let go.
struct Running {
    body: Incoming,
    _session: Session,
}

impl Running {
    async fn begin(target: &Target) -> anyhow::Result<Self> {
        let mut session = Session::open(target).await?;
        let params = json!({"name": STREAMING, "arguments": {"bytes": STREAM}});
        let (_, response) = session.send("tools/call", &params).await?;
        ensure!(response.status() == 200, "{}", response.status());
        let mut body = response.into_body();
        let frame = body.frame().await.context("no first event")??;
        ensure!(frame.is_data(), "no first event");
        Ok(Self { body, _session: session })
    }

    /// Takes what has come; more is to come.
    async fn still_runs(&mut self) -> anyhow::Result<()> {
        while let Ok(frame) = tokio::time::timeout(UP, self.body.frame()).await {
            frame.context("it ended")?.context("it broke off")?;
        }
        Ok(())
    }

    /// It ends without its second half, which nobody lets go. (Envoy 1.36 ends it, later ones break it off.)
    async fn cut_off(self) -> anyhow::Result<()> {
        let rest = tokio::time::timeout(CHANGED, self.body.collect()).await.context("it goes on")?;
        let rest = rest.map(|rest| rest.to_bytes()).unwrap_or_default();
        ensure!(!String::from_utf8_lossy(&rest).contains("streamed"), "it is complete");
        Ok(())
    }

    async fn end(self, upstream: &Upstream) -> anyhow::Result<()> {
        upstream.go_on();
        let rest = self.body.collect().await.context("it broke off")?.to_bytes();
        ensure!(String::from_utf8_lossy(&rest).contains("streamed"), "it ended after {} bytes", rest.len());
        Ok(())
    }
}
