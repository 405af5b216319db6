//! Many sessions at a time while the configuration changes: nothing may fail, and memory must not grow.
use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::task::JoinSet;

use super::{
    Run,
    certificates::Certificates,
    gateway::{DataPlane, Gateway, HTTPS, Manifests, NAMESPACE, inline_tools},
    http::Target,
    report::Report,
    session::Session,
    upstream::Upstream,
};

const AGENT: &str = "agent";
/// Just under the gateway's default limit of 1 MiB for a body, message included.
const LARGE_CALL: usize = 1_048_000;
const LARGE_ANSWER: u64 = 10_000_000;
/// Twice what a gateway that reads ahead would have to hold: the server waits at its half.
const ENDLESS_ANSWER: u64 = 400_000_000;
/// What a gateway may hold of an answer that nobody reads.
const READ_AHEAD_KIB: u64 = 8 * 1024;
const RELOAD: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_secs(30);
const GROWTH: f64 = 1.1;

/// How much load, for how long.
#[derive(Debug, Clone, Copy)]
struct Load {
    sessions: usize,
    time: Duration,
}

/// What the sessions made of it.
#[derive(Debug, Default)]
struct Tally {
    requests: u64,
    failures: Vec<String>,
}

pub(crate) async fn run(run: &Run, report: &mut Report) -> anyhow::Result<()> {
    report.suite("load, while the manifests change every second");
    let load = if run.long {
        Load { sessions: 200, time: Duration::from_secs(30) }
    } else {
        Load { sessions: 50, time: Duration::from_secs(6) }
    };
    let folder = run.folder("load")?;
    let upstream = Upstream::start().await?;
    let certificates = Certificates::new(&folder.join("certificates"))?;
    let agent = certificates.workload(NAMESPACE, AGENT)?;
    let identity = certificates.workload(NAMESPACE, "gateway")?;
    let base = Manifests::https(&certificates.server()?).mcp_server("upstream", upstream.address.port());
    let reload = Reload { base, folder: folder.join("manifests") };
    reload.write(0)?;
    let mut gateway = Gateway::start(run, DataPlane::Native, &folder, Some(&identity), &[HTTPS]).await?;
    let target = Target::tls(gateway.address(HTTPS)?, certificates.client(Some(&agent), &["http/1.1"])?);

    let mut session = Session::open(&target).await?;
    report.step("a tools/call of 1 MB", STEP, large_call(&mut session)).await;
    let answer = report.step("a streamed answer of 10 MB", STEP, large_answer(&mut session, &upstream)).await;
    if let Some(bytes) = answer {
        report.note(&format!("{bytes} bytes; the first half was read before the server sent the second"));
    }

    let ahead = report
        .step("an answer that nobody reads is not read ahead", STEP, unread(&target, &gateway, &upstream))
        .await;
    if let Some((sent, grown)) = ahead {
        report.note(&format!("the server could send {sent} bytes; the gateway grew by {grown} KiB"));
    }

    let name = format!("{} sessions for {} s, a reload each second", load.sessions, load.time.as_secs());
    let limit = load.time + Duration::from_secs(60);
    let loaded = report.step(&name, limit, under_load(load, &target, &gateway, &reload, &upstream)).await;
    if let Some(figures) = loaded {
        report.note(&figures.to_string());
        if run.long {
            report
                .step("memory does not grow", STEP, async {
                    let growth = figures.growth();
                    ensure!(growth <= GROWTH, "RSS at the end is {growth:.2} x RSS after a third");
                    Ok(())
                })
                .await;
        }
    }
    gateway.still_runs()
}

/// What was measured under load.
#[derive(Debug)]
struct Figures {
    requests: u64,
    time: Duration,
    /// Calls of 1 MB, and as many answers of 10 MB.
    large: u32,
    reloads: u32,
    slowest_reload: Duration,
    rss_third_kib: u64,
    rss_end_kib: u64,
}

impl Figures {
    fn growth(&self) -> f64 {
        self.rss_end_kib as f64 / self.rss_third_kib as f64
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} requests ({:.0}/s), none failed; {} of 1 MB and as many answers of 10 MB; {} reloads, each in force within {} ms; RSS {} KiB after a third, {} KiB \
             at the end ({:.2}x)",
            self.requests,
            self.requests as f64 / self.time.as_secs_f64(),
            self.large,
            self.reloads,
            self.slowest_reload.as_millis(),
            self.rss_third_kib,
            self.rss_end_kib,
            self.growth()
        )
    }
}

async fn under_load(
    load: Load,
    target: &Target,
    gateway: &Gateway,
    reload: &Reload,
    upstream: &Upstream,
) -> anyhow::Result<Figures> {
    let mut opening = JoinSet::new();
    for _ in 0..load.sessions {
        let target = target.clone();
        opening.spawn(async move { Session::open(&target).await });
    }
    let mut sessions = Vec::with_capacity(load.sessions);
    while let Some(session) = opening.join_next().await {
        sessions.push(session?.context("opening a session")?);
    }

    let began = Instant::now();
    let end = began + load.time;
    let mut running = JoinSet::new();
    for session in sessions {
        running.spawn(until(end, session));
    }
    // Beside them: reloads, the large ones, and a look at memory.
    let (mut reloader, mut carrier) = (Session::open(target).await?, Session::open(target).await?);
    let ((reloads, slowest_reload), large, rss_third_kib) = tokio::try_join!(
        reload.every_second(end, &mut reloader, upstream),
        large_until(end, &mut carrier, upstream),
        async {
            tokio::time::sleep_until((began + load.time / 3).into()).await;
            gateway.process.rss_kib()
        },
    )?;
    tokio::time::sleep_until(end.into()).await;
    let rss_end_kib = gateway.process.rss_kib()?;
    let mut total = Tally::default();
    while let Some(tally) = running.join_next().await {
        let tally = tally?;
        total.requests += tally.requests;
        total.failures.extend(tally.failures);
    }
    if let Some(first) = total.failures.first() {
        bail!("{} of {} requests failed; the first: {first}", total.failures.len(), total.requests);
    }
    ensure!(total.requests > load.sessions as u64, "only {} requests", total.requests);
    Ok(Figures {
        requests: total.requests,
        time: began.elapsed(),
        large,
        reloads,
        slowest_reload,
        rss_third_kib,
        rss_end_kib,
    })
}

/// One session: a call after the other, and a list now and then.
async fn until(end: Instant, mut session: Session) -> Tally {
    let mut tally = Tally::default();
    while Instant::now() < end {
        tally.requests += 1;
        let request = async {
            if tally.requests.is_multiple_of(8) {
                session.request("tools/list", &json!({})).await
            } else {
                session.call("get-sum", &json!({"a": tally.requests, "b": 3})).await
            }
        };
        let failure = match tokio::time::timeout(STEP, request).await {
            Ok(Ok(answer)) if answer.is_result() => continue,
            Ok(Ok(answer)) => format!("{answer:?}"),
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => format!("no answer within {} s", STEP.as_secs()),
        };
        tally.failures.push(failure);
        // The connection may be gone.
        return tally;
    }
    tally
}

/// Calls of 1 MB and answers of 10 MB, one after the other; how many pairs.
async fn large_until(end: Instant, session: &mut Session, upstream: &Upstream) -> anyhow::Result<u32> {
    let mut pairs = 0;
    while Instant::now() < end {
        large_call(session).await.context("1 MB under load")?;
        large_answer(session, upstream).await.context("10 MB under load")?;
        pairs += 1;
    }
    Ok(pairs)
}

async fn large_call(session: &mut Session) -> anyhow::Result<()> {
    let result = session.call("get-sum", &json!({"text": "x".repeat(LARGE_CALL)})).await?.result()?;
    let expected = json!({"content": [{"type": "text", "text": format!("{LARGE_CALL} bytes")}]});
    ensure!(result == expected, "{result}");
    Ok(())
}

/// Gives the bytes of the whole answer.
async fn large_answer(session: &mut Session, upstream: &Upstream) -> anyhow::Result<u64> {
    let params = json!({"name": "stream", "arguments": {"bytes": LARGE_ANSWER}});
    let (id, response) = session.send("tools/call", &params).await?;
    ensure!(response.status() == 200, "{}", response.status());
    let mut body = response.into_body();
    let (mut read, mut asked, mut end) = (0, false, Vec::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.context("the answer broke off")?.into_data() else { continue };
        read += data.len() as u64;
        end.extend_from_slice(&data);
        end.drain(..end.len().saturating_sub(1024));
        // A little less than a half, for the whole ends in the middle of an event.
        if !asked && read >= LARGE_ANSWER / 2 - 32 * 1024 {
            asked = true;
            upstream.go_on();
        }
    }
    ensure!(read >= LARGE_ANSWER, "{read} bytes only");
    let end = String::from_utf8_lossy(&end);
    ensure!(end.contains(&format!("\"id\":{id}")) && end.contains("streamed"), "it ends in `{end}`");
    Ok(read)
}

/// Asks for a very long answer and reads none of it. Gives the bytes that the server got rid of, sockets' buffers included,
/// and by how many KiB the gateway grew.
async fn unread(target: &Target, gateway: &Gateway, upstream: &Upstream) -> anyhow::Result<(u64, u64)> {
    let mut session = Session::open(target).await?;
    let (sent_before, rss_before) = (upstream.sent(), gateway.process.rss_kib()?);
    let params = json!({"name": "stream", "arguments": {"bytes": ENDLESS_ANSWER}});
    let (_, response) = session.send("tools/call", &params).await?;
    ensure!(response.status() == 200, "{}", response.status());
    // Until the server has been stuck for a while.
    let (mut sent, mut since) = (upstream.sent(), Instant::now());
    while sent == sent_before || since.elapsed() < Duration::from_millis(500) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if upstream.sent() != sent {
            (sent, since) = (upstream.sent(), Instant::now());
        }
    }
    let (sent, grown) = (sent - sent_before, gateway.process.rss_kib()?.saturating_sub(rss_before));
    ensure!(sent < ENDLESS_ANSWER / 4, "{sent} bytes were read ahead");
    ensure!(grown < READ_AHEAD_KIB, "the gateway grew by {grown} KiB");
    drop(response);
    Ok((sent, grown))
}

/// Manifests that change: each generation allows a tool of its own.
struct Reload {
    base: Manifests,
    folder: std::path::PathBuf,
}

impl Reload {
    fn write(&self, generation: u32) -> anyhow::Result<()> {
        let tools = inline_tools(&["get-sum", "stream", &tool(generation)]);
        self.base.clone().policy("upstream", &[(AGENT, tools)]).write(Path::new(&self.folder))
    }

    /// Takes a new generation into force each second; how many, and how long the slowest took.
    async fn every_second(
        &self,
        end: Instant,
        session: &mut Session,
        upstream: &Upstream,
    ) -> anyhow::Result<(u32, Duration)> {
        let (mut generation, mut slowest) = (0, Duration::ZERO);
        let mut seconds = tokio::time::interval(RELOAD);
        while seconds.tick().await < end.into() {
            generation += 1;
            slowest = slowest.max(self.take_effect(generation, session, upstream).await?);
        }
        Ok((generation, slowest))
    }

    /// Writes a generation and waits until the gateway lets its tool through, which it did not before; how long it took.
    async fn take_effect(
        &self,
        generation: u32,
        session: &mut Session,
        upstream: &Upstream,
    ) -> anyhow::Result<Duration> {
        let tool = tool(generation);
        let before = session.call(&tool, &json!({})).await?;
        ensure!(before.is_forbidden(), "{tool} before it is allowed: {before:?}");
        ensure!(!upstream.saw(before.id), "{tool} was denied, and arrived upstream");
        let began = Instant::now();
        self.write(generation)?;
        loop {
            let answer = session.call(&tool, &json!({})).await?;
            if answer.is_result() {
                return Ok(began.elapsed());
            }
            ensure!(answer.is_forbidden() && !upstream.saw(answer.id), "{answer:?}");
            ensure!(began.elapsed() < STEP, "not in force after {} s", STEP.as_secs());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn tool(generation: u32) -> String {
    format!("generation-{generation}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The suite without the gateway: what fails here is the suite's fault.
    #[tokio::test]
    async fn directly() {
        let upstream = Upstream::start().await.unwrap();
        let mut session = Session::open(&Target::plain(upstream.address)).await.unwrap();
        large_call(&mut session).await.unwrap();
        assert!(large_answer(&mut session, &upstream).await.unwrap() > LARGE_ANSWER);
        let answer = session.call("get-sum", &json!({})).await.unwrap();
        assert!(upstream.saw(answer.id) && !upstream.saw(answer.id + 1));
        let tally = until(Instant::now() + Duration::from_millis(200), session).await;
        assert_eq!(tally.failures, Vec::<String>::new());
        assert!(tally.requests > 1);
    }
}
