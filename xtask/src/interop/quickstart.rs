//! `agentic-gateway quickstart --serve`: servers, authorizer, gateway and sidecar, from the very binary.
use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use serde::Deserialize as _;
use serde_json::{Value, json};
use tokio::process::Command;

use super::{Run, process::Process};

const START: Duration = Duration::from_secs(60);

/// It runs as long as this value lives.
#[derive(Debug)]
pub(crate) struct Quickstart {
    pub(crate) process: Process,
    /// Where the sidecar is, without a slash at the end.
    pub(crate) sidecar: String,
    files: PathBuf,
}

impl Quickstart {
    pub(crate) async fn start(run: &Run) -> anyhow::Result<Self> {
        let mut command = Command::new(run.gateway()?);
        // It is killed at the end, and then cannot tidy up: its files go with ours.
        command.args(["quickstart", "--serve"]).env("TMPDIR", run.folder("quickstart")?);
        let mut process = Process::start("quickstart --serve", &mut command)?;
        let said = process.line("Everything keeps running until Ctrl-C. Files are in ", START).await?;
        let files = PathBuf::from(said.trim());
        let said = process.line("sidecar", START).await?;
        let sidecar = said
            .split_whitespace()
            .find(|word| word.starts_with("http://"))
            .with_context(|| format!("no URL in `sidecar{said}`"))?
            .trim_end_matches('/')
            .to_owned();
        Ok(Self { process, sidecar, files })
    }

    /// Holds the tool calls that its servers were asked until the last of these against them, as in `local: get-sum`.
    pub(crate) async fn was_asked(&self, expected: &[String]) -> anyhow::Result<()> {
        loop {
            let reached = self.process.rests("reached ");
            if reached.len() < expected.len() {
                // Printed, and not read yet.
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            let tools: Vec<&str> = reached
                .iter()
                .map(|call| call.split_once(" {").map_or(call.as_str(), |(tool, _)| tool))
                .collect();
            ensure!(tools == expected, "calls that arrived: {reached:?}");
            return Ok(());
        }
    }

    /// The port of loopback where its local MCP server is, which speaks 2026-07-28.
    pub(crate) fn local_server(&self) -> anyhow::Result<u16> {
        let endpoints = fs::read_to_string(self.files.join("manifests/endpoints.yaml"))?;
        for document in serde_yaml_ng::Deserializer::from_str(&endpoints) {
            let slice = Value::deserialize(document)?;
            let service = slice.pointer("/metadata/labels/kubernetes.io~1service-name");
            if service == Some(&json!("mcp-everything-svc")) {
                let port = slice.pointer("/ports/0/port").and_then(Value::as_u64).context("no port")?;
                return Ok(u16::try_from(port)?);
            }
        }
        anyhow::bail!("no endpoints of the local server in `{endpoints}`")
    }
}
