//! An external authorizer that is stopped, killed and started again while calls go on.
use std::{
    convert::Infallible,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use clap::Args;
use ext_authz::{Allowed, Authorizer, CheckedRequest, Denied, authorizer_service};
use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, process::Command, sync::watch, task::JoinSet};

use super::{
    Run,
    certificates::Certificates,
    gateway::{DataPlane, Gateway, HTTPS, Manifests, NAMESPACE, inline_tools, loopback},
    http::Target,
    process::{Process, free_port},
    report::Report,
    session::Session,
    upstream::Upstream,
};

/// Its calls are delegated.
const AGENT: &str = "agent";
/// Its calls are decided by the gateway alone.
const OPERATOR: &str = "operator";

const UP: Duration = Duration::from_secs(1);
/// The gateway waits 2 s for an authorizer: time for the call that was under way, and for one that begins afterwards.
const SILENT: Duration = Duration::from_secs(5);
const DOWN: Duration = Duration::from_secs(2);
/// Within this, after it is back, a delegated call is served.
const SERVED: Duration = Duration::from_secs(1);
const CALL: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_secs(30);

/// What a caller asks for, again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Delegated; the authorizer agrees.
    Permitted,
    /// Delegated; the authorizer refuses.
    Refused,
    /// Decided without the authorizer: another identity, another rule.
    Undelegated,
    /// Not a `tools/call`, by the identity whose calls are delegated.
    List,
}

const CALLERS: [(Kind, usize); 4] =
    [(Kind::Permitted, 4), (Kind::Refused, 2), (Kind::Undelegated, 4), (Kind::List, 2)];

#[derive(Debug)]
struct Call {
    kind: Kind,
    id: u64,
    began: Instant,
    ended: Instant,
    outcome: Outcome,
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Served,
    Forbidden,
    Other(String),
}

/// When what happened to the authorizer.
#[derive(Debug)]
struct Times {
    silenced: Instant,
    silent: Instant,
    killing: Instant,
    killed: Instant,
    restarting: Instant,
    back: Instant,
}

pub(crate) async fn run(run: &Run, report: &mut Report) -> anyhow::Result<()> {
    report.suite("an authorizer that is stopped, killed and started again under load");
    let folder = run.folder("authorizer")?;
    let upstream = Upstream::start().await?;
    let certificates = Certificates::new(&folder.join("certificates"))?;
    let identity = certificates.workload(NAMESPACE, "gateway")?;
    let address = loopback(free_port()?);
    let delegated = json!({
        "type": "ExternalAuth",
        "externalAuth": {
            "protocol": "GRPC",
            "grpc": {},
            "backendRef": {"kind": "Service", "name": "authorizer", "port": address.port()},
        },
    });
    Manifests::https(&certificates.server()?)
        .mcp_server("upstream", upstream.address.port())
        .authorizer("authorizer", address.port())
        .policy("upstream", &[(AGENT, delegated), (OPERATOR, inline_tools(&["get-sum"]))])
        .write(&folder.join("manifests"))?;
    let mut gateway = Gateway::start(run, DataPlane::Native, &folder, Some(&identity), &[HTTPS]).await?;
    let target = |account: &str| -> anyhow::Result<Target> {
        let workload = certificates.workload(NAMESPACE, account)?;
        Ok(Target::tls(gateway.address(HTTPS)?, certificates.client(Some(&workload), &["http/1.1"])?))
    };
    let (agent, operator) = (target(AGENT)?, target(OPERATOR)?);

    let lived = report.step("calls go on through all of it", STEP, live(&agent, &operator, address)).await;
    let Some((times, calls)) = lived else { return Ok(()) };
    let saw = |id| upstream.saw(id);
    let checks: [(&str, anyhow::Result<String>); 6] = [
        ("up: what the authorizer allows is served", up(&calls, &times)),
        ("what the authorizer refuses never arrives upstream", refused(&calls, saw)),
        ("silent: every delegated call is denied", outage(&calls, saw, times.silenced, times.silent)),
        ("killed: every delegated call is denied", outage(&calls, saw, times.killed, times.restarting)),
        ("what is not delegated is unaffected", unaffected(&calls, &times)),
        ("back: served within a second", back(&calls, &times)),
    ];
    for (name, checked) in checks {
        if let Some(figures) = report.step(name, STEP, async { checked }).await {
            report.note(&figures);
        }
    }
    gateway.still_runs()
}

async fn live(agent: &Target, operator: &Target, address: SocketAddr) -> anyhow::Result<(Times, Vec<Call>)> {
    let authorizer = start(address).await?;
    let (stop, stopped) = watch::channel(false);
    let mut callers = JoinSet::new();
    for (kind, count) in CALLERS {
        for _ in 0..count {
            let target = if kind == Kind::Undelegated { operator } else { agent };
            let session = Session::open(target).await?;
            callers.spawn(caller(kind, session, stopped.clone()));
        }
    }
    tokio::time::sleep(UP).await;
    authorizer.suspend().await?;
    let silenced = Instant::now();
    tokio::time::sleep(SILENT).await;
    let silent = Instant::now();
    let killing = Instant::now();
    authorizer.end().await?;
    let killed = Instant::now();
    tokio::time::sleep(DOWN).await;
    let restarting = Instant::now();
    let authorizer = start(address).await?;
    let back = Instant::now();
    tokio::time::sleep(SERVED + UP).await;
    stop.send_replace(true);
    let mut calls = Vec::new();
    while let Some(made) = callers.join_next().await {
        calls.extend(made?);
    }
    authorizer.end().await?;
    Ok((Times { silenced, silent, killing, killed, restarting, back }, calls))
}

async fn start(address: SocketAddr) -> anyhow::Result<Process> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["interop-part", "authorizer", &address.to_string()]);
    let mut process = Process::start("the authorizer", &mut command)?;
    process.line("listening", Duration::from_secs(10)).await?;
    Ok(process)
}

async fn caller(kind: Kind, mut session: Session, stopped: watch::Receiver<bool>) -> Vec<Call> {
    let mut calls = Vec::new();
    while !*stopped.borrow() {
        let began = Instant::now();
        let request = async {
            match kind {
                Kind::List => session.request("tools/list", &json!({})).await,
                Kind::Refused => session.call("get-sum", &json!({"permit": false})).await,
                Kind::Permitted | Kind::Undelegated => {
                    session.call("get-sum", &json!({"permit": true})).await
                }
            }
        };
        let (id, outcome) = match tokio::time::timeout(CALL, request).await {
            Ok(Ok(answer)) if answer.is_result() => (answer.id, Outcome::Served),
            Ok(Ok(answer)) if answer.is_forbidden() => (answer.id, Outcome::Forbidden),
            Ok(Ok(answer)) => (answer.id, Outcome::Other(format!("{answer:?}"))),
            Ok(Err(error)) => (0, Outcome::Other(format!("{error:#}"))),
            Err(_) => (0, Outcome::Other("no answer".to_owned())),
        };
        let broken = matches!(outcome, Outcome::Other(_));
        calls.push(Call { kind, id, began, ended: Instant::now(), outcome });
        if broken {
            break;
        }
        // Some load, not all that two processors can bear: others build here.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    calls
}

fn of<'a>(calls: &'a [Call], kinds: &'a [Kind]) -> impl Iterator<Item = &'a Call> {
    calls.iter().filter(|call| kinds.contains(&call.kind))
}

/// All of these calls, at least `least` of them, came out as expected.
#[track_caller]
fn all<'a>(
    calls: impl Iterator<Item = &'a Call>,
    expected: &Outcome,
    least: usize,
) -> anyhow::Result<Vec<&'a Call>> {
    let calls: Vec<&Call> = calls.collect();
    if let Some(other) = calls.iter().find(|call| call.outcome != *expected) {
        anyhow::bail!("expected {expected:?}: {other:?}");
    }
    ensure!(calls.len() >= least, "{} calls only", calls.len());
    Ok(calls)
}

fn up(calls: &[Call], times: &Times) -> anyhow::Result<String> {
    let before =
        of(calls, &[Kind::Permitted]).filter(|call| call.ended < times.silenced - Duration::from_millis(50));
    let served = all(before, &Outcome::Served, 20)?;
    Ok(format!("{} of {} served", served.len(), served.len()))
}

fn refused(calls: &[Call], saw: impl Fn(u64) -> bool) -> anyhow::Result<String> {
    let refused = all(of(calls, &[Kind::Refused]), &Outcome::Forbidden, 20)?;
    let through = refused.iter().filter(|call| saw(call.id)).count();
    ensure!(through == 0, "{through} arrived upstream");
    Ok(format!("{} of {} denied, none seen upstream", refused.len(), refused.len()))
}

/// Calls that began after the authorizer was gone and ended before it was back.
fn outage(calls: &[Call], saw: impl Fn(u64) -> bool, from: Instant, to: Instant) -> anyhow::Result<String> {
    let during =
        of(calls, &[Kind::Permitted, Kind::Refused]).filter(|call| call.began > from && call.ended < to);
    let denied = all(during, &Outcome::Forbidden, 4)?;
    let through = denied.iter().filter(|call| saw(call.id)).count();
    ensure!(through == 0, "{through} arrived upstream");
    let slowest = denied.iter().map(|call| call.ended - call.began).max().unwrap_or_default();
    Ok(format!(
        "{} of {} denied, none seen upstream; the slowest took {} ms",
        denied.len(),
        denied.len(),
        slowest.as_millis()
    ))
}

fn unaffected(calls: &[Call], times: &Times) -> anyhow::Result<String> {
    let kinds = [Kind::Undelegated, Kind::List];
    let served = all(of(calls, &kinds), &Outcome::Served, 100)?;
    for (from, to) in [(times.silenced, times.killing), (times.killed, times.restarting)] {
        let during = served.iter().filter(|call| call.began > from && call.ended < to).count();
        ensure!(during >= 20, "only {during} calls during an outage");
    }
    let slowest = served.iter().map(|call| call.ended - call.began).max().unwrap_or_default();
    Ok(format!("{} of {} served; the slowest took {} ms", served.len(), served.len(), slowest.as_millis()))
}

fn back(calls: &[Call], times: &Times) -> anyhow::Result<String> {
    let first = of(calls, &[Kind::Permitted])
        .filter(|call| call.outcome == Outcome::Served && call.ended > times.restarting)
        .map(|call| call.ended)
        .min()
        .context("no delegated call was served any more")?;
    let took = first.saturating_duration_since(times.back);
    ensure!(took <= SERVED, "the first delegated call was served after {} ms", took.as_millis());
    let after = of(calls, &[Kind::Permitted]).filter(|call| call.began > first);
    let served = all(after, &Outcome::Served, 20)?;
    Ok(format!("the first after {} ms, then {} of {}", took.as_millis(), served.len(), served.len()))
}

/// The authorizer, a process of its own.
#[derive(Debug, Args)]
pub(crate) struct Part {
    /// Where to listen
    listen: SocketAddr,
}

/// Allows what has the argument `permit: true`.
#[derive(Debug)]
struct Permit;

impl Authorizer for Permit {
    async fn check(&self, request: CheckedRequest) -> Result<Allowed, Denied> {
        let permitted = request.mcp().is_some_and(|message| {
            message.pointer("/params/arguments/permit").and_then(Value::as_bool) == Some(true)
        });
        if permitted {
            return Ok(Allowed::default());
        }
        Err(Denied {
            status: http::StatusCode::FORBIDDEN,
            headers: http::HeaderMap::new(),
            body: bytes::Bytes::new(),
            reason: Some("not permitted".to_owned()),
        })
    }
}

pub(crate) async fn serve(part: &Part) -> anyhow::Result<Infallible> {
    let listener = TcpListener::bind(part.listen).await?;
    println!("listening {}", part.listen);
    let service = TowerToHyperService::new(authorizer_service(Permit));
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        while connections.try_join_next().is_some() {}
        let service = service.clone();
        connections.spawn(async move {
            // The gateway comes and goes.
            drop(
                http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await,
            );
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Silent from 1 s to 2 s, gone from 3 s to 4 s, back at 5 s.
    fn times(start: Instant) -> Times {
        let at = |seconds| start + Duration::from_secs(seconds);
        Times {
            silenced: at(1),
            silent: at(2),
            killing: at(3),
            killed: at(3),
            restarting: at(4),
            back: at(5),
        }
    }

    /// A call each 10 ms, for 8 s.
    fn calls(start: Instant, kind: Kind, outcome: impl Fn(u64) -> Outcome) -> Vec<Call> {
        (0..800)
            .map(|turn| {
                let began = start + Duration::from_millis(turn * 10);
                Call {
                    kind,
                    id: 0,
                    began,
                    ended: began + Duration::from_millis(1),
                    outcome: outcome(turn * 10),
                }
            })
            .collect()
    }

    #[track_caller]
    fn check(denied_at: impl Fn(u64) -> bool, expected: [bool; 3]) {
        let start = Instant::now();
        let times = times(start);
        let outcome = |ms| if denied_at(ms) { Outcome::Forbidden } else { Outcome::Served };
        let calls = calls(start, Kind::Permitted, outcome);
        let found = [
            up(&calls, &times).is_ok(),
            outage(&calls, |_| false, times.killed, times.restarting).is_ok(),
            back(&calls, &times).is_ok(),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_counts_as_well() {
        let outage = 1000..=5100;
        check(|ms| outage.contains(&ms), [true, true, true]);
        // Denied while it was up; served while it was gone; back too late; not for good.
        check(|ms| ms == 500 || outage.contains(&ms), [false, true, true]);
        check(|ms| ms != 3500 && outage.contains(&ms), [true, false, true]);
        check(|ms| (1000..=6100).contains(&ms), [true, true, false]);
        check(|ms| ms == 7000 || outage.contains(&ms), [true, true, false]);
    }

    #[test]
    fn a_denied_call_that_arrived_upstream_is_a_failure() {
        let start = Instant::now();
        let times = times(start);
        let denied = calls(start, Kind::Refused, |_| Outcome::Forbidden);
        assert!(refused(&denied, |_| false).is_ok());
        assert!(refused(&denied, |_| true).is_err());
        assert!(outage(&denied, |_| true, times.killed, times.restarting).is_err());
        assert!(outage(&[], |_| false, times.killed, times.restarting).is_err());
    }

    #[test]
    fn one_failure_affects() {
        let start = Instant::now();
        let times = times(start);
        let served = calls(start, Kind::Undelegated, |_| Outcome::Served);
        assert!(unaffected(&served, &times).is_ok());
        let one =
            calls(start, Kind::List, |ms| if ms == 3500 { Outcome::Forbidden } else { Outcome::Served });
        assert!(unaffected(&one, &times).is_err());
    }
}
