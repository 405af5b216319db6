//! Real MCP clients, through the real gateway, to the real reference server.
mod rust;

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use serde_json::json;
use tokio::process::Command;

use super::{
    Run,
    certificates::{Certificates, Workload},
    everything::Everything,
    gateway::{DataPlane, Gateway, HTTPS, Manifests, NAMESPACE, Sidecar, inline_tools},
    http::Target,
    process::Process,
    quickstart::Quickstart,
    report::Report,
    session::{Session, next_event},
    tap::Tap,
};
use crate::command::root;

/// The steps of a visit, as the scripts in `xtask/peers` name them.
const INITIALIZE: &str = "initialize";
const LIST: &str = "tools/list";
const ALLOWED: &str = "get-sum is allowed";
const DENIED: &str = "echo is denied with code 403";
const STILL_ALIVE: &str = "the session is still alive";
const PROGRESS: &str = "progress notifications";
const SAMPLING: &str = "sampling round trip";
const ELICITATION: &str = "elicitation round trip";
const DELETE: &str = "DELETE ends the session";
const STEPS: [&str; 9] =
    [INITIALIZE, LIST, ALLOWED, DENIED, STILL_ALIVE, PROGRESS, SAMPLING, ELICITATION, DELETE];

/// The steps of a visit without a session (revision 2026-07-28).
const DISCOVER: &str = "server/discover";
const NEXT: &str = "the next call is served";
const STATELESS_STEPS: [&str; 5] = [DISCOVER, LIST, ALLOWED, DENIED, NEXT];

/// For one step.
const CALLS: Duration = Duration::from_secs(20);

const AGENT: &str = "adk-agent-sa";
const OTHER: &str = "other-agent-sa";

pub(crate) async fn run(run: &Run, plane: DataPlane, report: &mut Report) -> anyhow::Result<()> {
    report.suite(&format!("real clients, mTLS, {plane}, the reference server"));
    let folder = run.folder(&format!("clients-{plane:?}"))?;
    let everything = Everything::start(run).await?;
    let tap = Tap::start(everything.address).await?;
    let certificates = Certificates::new(&folder.join("certificates"))?;
    let agent = certificates.workload(NAMESPACE, AGENT)?;
    let other = certificates.workload(NAMESPACE, OTHER)?;
    let gateway_identity = certificates.workload(NAMESPACE, "gateway")?;
    // All but echo.
    let tools = inline_tools(&[
        "get-sum",
        "trigger-long-running-operation",
        "trigger-sampling-request",
        "trigger-elicitation-request",
        "toggle-simulated-logging",
    ]);
    let all_but_echo = json!({"type": "CEL", "cel": {"expression": "request.mcp.tool_name != 'echo'"}});
    Manifests::https(&certificates.server()?)
        .mcp_server("everything", tap.address.port())
        .policy("everything", &[(AGENT, tools), (OTHER, all_but_echo)])
        .write(&folder.join("manifests"))?;
    let mut gateway = Gateway::start(run, plane, &folder, Some(&gateway_identity), &[HTTPS]).await?;
    let address = gateway.address(HTTPS)?;
    let url = format!("https://localhost:{}/mcp", address.port());
    let visitor = Visitor { ca: certificates.web_ca(), workload: agent.clone() };

    typescript(run, report, &everything, &folder, &url, &visitor).await?;
    python(run, report, &everything, &folder, &url, &visitor).await?;
    for (name, alpn) in [("Rust SDK (rmcp)", "http/1.1"), ("Rust SDK (rmcp) over HTTP/2", "h2")] {
        let tls = certificates.client(Some(&agent), &[alpn])?;
        let ended_before = everything.ended_sessions();
        rust::visit(report, name, &url, tls.as_ref().clone()).await;
        report
            .step(&format!("{name}: the server saw the DELETE"), CALLS, deleted(&everything, ended_before))
            .await;
    }

    let sidecar = Sidecar::start(run.gateway()?, address, &agent, &certificates.web_ca()).await?;
    let plain = format!("http://{}/mcp", sidecar.address);
    let client = folder.join("typescript/client.mjs");
    let mut node = Command::new("node");
    node.arg(&client).args(["2", &plain]);
    let name = "TypeScript SDK 2 without a certificate, through the sidecar";
    script_visit(report, &everything, name, &mut node).await?;
    // What starts it all is large.
    Box::pin(stateless(run, plane, report, &client)).await?;

    let target = |workload: Option<&Workload>| -> anyhow::Result<Target> {
        Ok(Target::tls(address, certificates.client(workload, &["http/1.1"])?))
    };
    sessions(report, &tap, &target(Some(&agent))?, &target(Some(&other))?).await;
    nobody(report, &tap, &target(None)?).await;
    report
        .step("what was denied never reached the server", CALLS, async {
            ensure!(tap.saw("get-sum"), "nothing reached it");
            ensure!(!tap.saw("echo"), "a call of `echo` did");
            Ok(())
        })
        .await;
    gateway.still_runs()
}

/// With what a client comes.
struct Visitor {
    ca: std::path::PathBuf,
    workload: Workload,
}

impl Visitor {
    fn give(&self, command: &mut Command) {
        command.arg(&self.ca).arg(&self.workload.certificate).arg(&self.workload.key);
    }
}

async fn typescript(
    run: &Run,
    report: &mut Report,
    everything: &Everything,
    folder: &Path,
    url: &str,
    visitor: &Visitor,
) -> anyhow::Result<()> {
    // Node.js looks for modules beside the script.
    let scripts = folder.join("typescript");
    fs::create_dir_all(&scripts)?;
    fs::copy(root().join("xtask/peers/typescript/client.mjs"), scripts.join("client.mjs"))?;
    std::os::unix::fs::symlink(run.peers.node_modules("typescript").await?, scripts.join("node_modules"))?;
    for sdk in ["1", "2"] {
        let mut node = Command::new("node");
        node.arg(scripts.join("client.mjs")).args([sdk, url]);
        visitor.give(&mut node);
        script_visit(report, everything, &format!("TypeScript SDK {sdk}"), &mut node).await?;
    }
    Ok(())
}

async fn python(
    run: &Run,
    report: &mut Report,
    everything: &Everything,
    folder: &Path,
    url: &str,
    visitor: &Visitor,
) -> anyhow::Result<()> {
    let script = folder.join("client.py");
    fs::copy(root().join("xtask/peers/python/client.py"), &script)?;
    for major in ["1", "2"] {
        let lock = root().join(format!("xtask/peers/python/mcp{major}.txt"));
        let bin = run.peers.python(&format!("mcp{major}"), &lock).await?;
        let mut python = Command::new(bin.join("python"));
        python.arg(&script).arg(url);
        visitor.give(&mut python);
        script_visit(report, everything, &format!("Python SDK {major}"), &mut python).await?;
    }
    Ok(())
}

/// A script's visit, and what the server saw at its end.
async fn script_visit(
    report: &mut Report,
    everything: &Everything,
    name: &str,
    command: &mut Command,
) -> anyhow::Result<()> {
    let ended_before = everything.ended_sessions();
    script(report, name, command, &STEPS).await?;
    report
        .step(&format!("{name}: the server saw the DELETE"), CALLS, deleted(everything, ended_before))
        .await;
    Ok(())
}

/// Runs a script to its end. Each line that it prints is a step; the first one that is missing failed.
async fn script(
    report: &mut Report,
    name: &str,
    command: &mut Command,
    steps: &[&str],
) -> anyhow::Result<()> {
    let mut script = Process::start(name, command)?;
    for step in steps {
        let line = format!("ok {step}");
        let said = script.line(&line, CALLS);
        if report.step(&format!("{name}: {step}"), CALLS * 2, said).await.is_none() {
            return Ok(());
        }
    }
    report
        .step(&format!("{name}: it ended well"), CALLS, async {
            ensure!(script.ended(CALLS).await?, "it failed\n{}", script.last_lines());
            Ok(())
        })
        .await;
    Ok(())
}

/// The reference server does not speak 2026-07-28 yet. The quickstart's servers do, being `rmcp`: behind its own gateway, or
/// behind an Envoy of ours.
async fn stateless(run: &Run, plane: DataPlane, report: &mut Report, client: &Path) -> anyhow::Result<()> {
    let mut quickstart = Quickstart::start(run).await?;
    let (url, _front) = match plane {
        DataPlane::Native => (format!("{}/local/mcp", quickstart.sidecar), None),
        DataPlane::Envoy => {
            let folder = run.folder("clients-stateless")?;
            let certificates = Certificates::new(&folder.join("certificates"))?;
            let (agent, identity) =
                (certificates.workload(NAMESPACE, AGENT)?, certificates.workload(NAMESPACE, "gateway")?);
            Manifests::https(&certificates.server()?)
                .mcp_server("local", quickstart.local_server()?)
                .policy("local", &[(AGENT, inline_tools(&["get-sum"]))])
                .write(&folder.join("manifests"))?;
            let gateway = Gateway::start(run, plane, &folder, Some(&identity), &[HTTPS]).await?;
            let at = gateway.address(HTTPS)?;
            let sidecar = Sidecar::start(run.gateway()?, at, &agent, &certificates.web_ca()).await?;
            (format!("http://{}/mcp", sidecar.address), Some((gateway, sidecar)))
        }
    };
    let mut node = Command::new("node");
    node.arg(client).args(["2026-07-28", &url]);
    script(report, "TypeScript SDK 2, 2026-07-28", &mut node, &STATELESS_STEPS).await?;
    rust::stateless_visit(report, "Rust SDK (rmcp), 2026-07-28", &url).await;
    // Each of the two called it before and after the call that was refused.
    let sums = vec!["local: get-sum".to_owned(); 4];
    report.step("what was refused reached no server", CALLS, quickstart.was_asked(&sums)).await;
    quickstart.process.still_runs()
}

/// Waits until the server has ended one more session.
async fn deleted(everything: &Everything, before: usize) -> anyhow::Result<()> {
    while everything.ended_sessions() <= before {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// What an SDK would hide.
async fn sessions(report: &mut Report, tap: &Tap, agent: &Target, other: &Target) {
    let sum = json!({"a": 2, "b": 3});
    report
        .step("event stream (GET): notifications arrive on it", CALLS, async {
            let mut calls = Session::open(agent).await?;
            let mut listener = Session::resume(agent, calls.id()?).await?;
            let response = listener.events().await?;
            ensure!(response.status() == 200, "{}", response.status());
            let mut events = response.into_body();
            calls.call("toggle-simulated-logging", &json!({})).await?.result()?;
            next_event(&mut events, |event| event.get("method") == Some(&json!("notifications/message")))
                .await
        })
        .await;
    report
        .step("another identity's session id: 404, and the session goes on", CALLS, async {
            let mut own = Session::open(agent).await?;
            let before = tap.bytes();
            let mut stranger = Session::resume(other, own.id()?).await?;
            let answer = stranger.call("get-sum", &sum).await?;
            ensure!(answer.status == 404, "{answer:?}");
            let status = stranger.events().await?.status();
            ensure!(status == 404, "event stream: {status}");
            let mut stranger = Session::resume(other, own.id()?).await?;
            let status = stranger.delete().await?;
            ensure!(status == 404, "DELETE: {status}");
            ensure!(tap.bytes() == before, "something of it reached the server");
            own.call("get-sum", &sum).await?.result()
        })
        .await;
    report
        .step("a session id that was made up: 404", CALLS, async {
            let before = tap.bytes();
            let answer = Session::resume(agent, "made-up").await?.call("get-sum", &sum).await?;
            ensure!(answer.status == 404, "{answer:?}");
            ensure!(tap.bytes() == before, "something of it reached the server");
            Ok(())
        })
        .await;
    let refused = report
        .step("after DELETE the session id is refused", CALLS, async {
            let mut session = Session::open(agent).await?;
            session.call("get-sum", &sum).await?.result()?;
            let status = session.delete().await?;
            ensure!((200..300).contains(&status), "DELETE: {status}");
            let answer = session.call("get-sum", &sum).await?;
            // By the server that ended it; the reference server says 400 where the specification says 404.
            ensure!([400, 404].contains(&answer.status), "{answer:?}");
            Ok(answer.status)
        })
        .await;
    if let Some(status) = refused {
        report.note(&format!("the server's answer, passed through: {status}"));
    }
}

async fn nobody(report: &mut Report, tap: &Tap, target: &Target) {
    report
        .step("no certificate, no identity: no tool may be called", CALLS, async {
            let mut session = Session::open(target).await.context("base protocol is open to anyone")?;
            let before = tap.bytes();
            let answer = session.call("get-sum", &json!({"a": 2, "b": 3})).await?;
            ensure!(answer.is_forbidden(), "{answer:?}");
            ensure!(tap.bytes() == before, "something of it reached the server");
            Ok(())
        })
        .await;
}
