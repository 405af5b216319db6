//! The quickstart's agent for real: Google ADK with its web API, two MCP toolsets, sidecar, gateway, authorizer.
use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tokio::process::Command;

use super::{
    Run,
    gateway::loopback,
    http::{self, Target},
    process::{Process, accepts, free_port},
    quickstart::Quickstart,
    report::Report,
};
use crate::command::root;

const START: Duration = Duration::from_secs(60);
/// For one prompt.
pub(crate) const PROMPT: Duration = Duration::from_secs(30);
const FORBIDDEN: &str = "Access to this tool is forbidden.";

/// A row of one of the quickstart's tables.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) prompt: &'static str,
    /// The call that the agent makes, if any.
    tool: Option<&'static str>,
    /// What its answer contains.
    says: &'static [&'static str],
}

impl Row {
    /// What is to come of it, and what the user says.
    pub(crate) fn name(&self) -> String {
        let expected = if self.is_refused() { "refused" } else { "answered" };
        format!("{expected}: {}", self.prompt)
    }

    fn is_refused(&self) -> bool {
        self.says == [FORBIDDEN]
    }

    /// What must reach a server because of it, as the quickstart's servers say.
    fn reaches(&self) -> Option<String> {
        let (server, tool) = self.tool.filter(|_| !self.is_refused())?.split_once('_')?;
        Some(format!("{server}: {tool}"))
    }
}

/// The first table.
pub(crate) const FIRST: [Row; 9] = [
    Row {
        prompt: "What can you do?",
        tool: None,
        says: &["local_get-sum", "local_echo", "remote_read_wiki_structure", "remote_ask_question"],
    },
    Row { prompt: "What is the sum of 2 and 3?", tool: Some("local_get-sum"), says: &["5"] },
    Row { prompt: "Echo back 'hello'.", tool: Some("local_echo"), says: &[FORBIDDEN] },
    Row {
        prompt: "Read the wiki structure of the GitHub repo kubernetes-sigs/kube-agentic-networking",
        tool: Some("remote_read_wiki_structure"),
        says: &["kubernetes-sigs/kube-agentic-networking"],
    },
    Row {
        prompt: "What's the GitHub repo kubernetes-sigs/kube-agentic-networking?",
        tool: Some("remote_ask_question"),
        says: &["kubernetes-sigs/kube-agentic-networking"],
    },
    Row {
        prompt: "Read the wiki structure of the GitHub repo kubernetes-sigs/gateway-api",
        tool: Some("remote_read_wiki_structure"),
        says: &["kubernetes-sigs/gateway-api"],
    },
    Row {
        prompt: "What's the GitHub repo kubernetes/kubernetes?",
        tool: Some("remote_ask_question"),
        says: &[FORBIDDEN],
    },
    Row {
        prompt: "Read the wiki structure of the GitHub repo cncf/toc",
        tool: Some("remote_read_wiki_structure"),
        says: &[FORBIDDEN],
    },
    // And on it goes, in the same session, after refusals on both servers.
    Row { prompt: "What is the sum of 40 and 2?", tool: Some("local_get-sum"), says: &["42"] },
];

/// The second table, after the authorizer's list has become shorter.
pub(crate) const SECOND: [Row; 3] = [
    Row { prompt: "What is the sum of 2 and 3?", tool: Some("local_get-sum"), says: &["5"] },
    Row {
        prompt: "What's the GitHub repo kubernetes-sigs/kube-agentic-networking?",
        tool: Some("remote_ask_question"),
        says: &["kubernetes-sigs/kube-agentic-networking"],
    },
    Row {
        prompt: "Read the wiki structure of the GitHub repo kubernetes-sigs/gateway-api",
        tool: Some("remote_read_wiki_structure"),
        says: &[FORBIDDEN],
    },
];

pub(super) async fn run(run: &Run, report: &mut Report) -> anyhow::Result<()> {
    report.suite("the ADK agent, through sidecar and gateway");
    let folder = run.folder("adk")?;
    let agent = root().join("examples/adk-agent");
    let bin = run.peers.python("adk", &agent.join("requirements.txt")).await?;

    let mut quickstart = Quickstart::start(run).await?;
    let (mut process, address) = serve(&bin, &agent, &folder, &quickstart.sidecar).await?;
    let target = Target::plain(address);
    begin(&target, "interop").await?;
    for row in &FIRST {
        if let Some(text) = report.step(&row.name(), PROMPT, ask(&target, "interop", row)).await {
            report.note(&text);
        }
    }
    let reaching: Vec<String> = FIRST.iter().filter_map(Row::reaches).collect();
    report.step("what was refused reached no server", PROMPT, quickstart.was_asked(&reaching)).await;
    process.still_runs()?;
    quickstart.process.still_runs()
}

/// `adk web`, on a copy of the agent so that what it writes stays out of the repository.
async fn serve(
    bin: &Path,
    agent: &Path,
    folder: &Path,
    sidecar: &str,
) -> anyhow::Result<(Process, SocketAddr)> {
    let home = folder.join("home");
    let package = folder.join("agents/mcp_agent");
    std::fs::create_dir_all(&home)?;
    std::fs::create_dir_all(&package)?;
    for entry in std::fs::read_dir(agent.join("mcp_agent"))? {
        let path = entry?.path();
        if let (Some(name), true) = (path.file_name(), path.extension().is_some_and(|end| end == "py")) {
            std::fs::copy(&path, package.join(name))?;
        }
    }
    let address = loopback(free_port()?);
    let mut adk = Command::new(bin.join("adk"));
    adk.args(["web", "--host", "127.0.0.1", "--port", &address.port().to_string()])
        .args(["--session_service_uri", "memory://", "."])
        .current_dir(folder.join("agents"))
        .env("HOME", &home)
        .env("GOOGLE_API_USE_CLIENT_CERTIFICATE", "false")
        .env("LOCAL_MCP_URL", format!("{sidecar}/local/mcp"))
        .env("REMOTE_MCP_URL", format!("{sidecar}/remote/mcp"));
    let mut process = Process::start("adk web", &mut adk)?;
    let target = Target::plain(address);
    process
        .until_ready(START, async || {
            accepts(address).await
                && http::text(&target, "/list-apps").await.is_ok_and(|apps| apps.contains("mcp_agent"))
        })
        .await?;
    Ok((process, address))
}

/// Begins a conversation.
pub(crate) async fn begin(target: &Target, session: &str) -> anyhow::Result<()> {
    let path = format!("/apps/mcp_agent/users/user/sessions/{session}");
    let (status, _) = http::post(target, &path, &json!({})).await?;
    ensure!(status == 200, "a session: {status}");
    Ok(())
}

/// Asks, and holds what came against the row; gives what the agent said.
pub(crate) async fn ask(target: &Target, session: &str, row: &Row) -> anyhow::Result<String> {
    let body = json!({
        "appName": "mcp_agent",
        "userId": "user",
        "sessionId": session,
        "newMessage": {"role": "user", "parts": [{"text": row.prompt}]},
    });
    let (status, events) = http::post(target, "/run", &body).await?;
    ensure!(status == 200, "{status}: {events}");
    let parts: Vec<&Value> = events
        .as_array()
        .context("no list of events")?
        .iter()
        .filter_map(|event| event.pointer("/content/parts")?.as_array())
        .flatten()
        .collect();
    let names = |what: &str| -> Vec<&str> {
        parts.iter().filter_map(|part| part.get(what)?.get("name")?.as_str()).collect()
    };
    let expected: Vec<&str> = row.tool.into_iter().collect();
    ensure!(names("functionCall") == expected, "calls: {:?}", names("functionCall"));
    ensure!(names("functionResponse") == expected, "responses: {:?}", names("functionResponse"));
    let refused = parts.iter().any(|part| {
        part.pointer("/functionResponse/response/error")
            .and_then(Value::as_str)
            .is_some_and(|error| error.contains(FORBIDDEN))
    });
    ensure!(refused == row.is_refused(), "refused is {refused}: {events}");
    let text =
        parts.iter().rev().find_map(|part| part.get("text")?.as_str()).context("the agent said nothing")?;
    for wanted in row.says {
        ensure!(text.contains(wanted), "`{text}` does not contain `{wanted}`");
    }
    Ok(text.replace('\n', " "))
}
