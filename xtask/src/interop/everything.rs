//! The reference MCP server, `@modelcontextprotocol/server-everything`.
use std::{net::SocketAddr, time::Duration};

use tokio::process::Command;

use super::{
    Run,
    gateway::loopback,
    process::{Process, accepts, free_port},
};
use crate::command::root;

/// It runs as long as this value lives.
#[derive(Debug)]
pub(crate) struct Everything {
    process: Process,
    pub(crate) address: SocketAddr,
}

impl Everything {
    /// Starts it on loopback, with its MCP endpoint at `/mcp`.
    pub(crate) async fn start(run: &Run) -> anyhow::Result<Self> {
        let modules = run.peers.node_modules("typescript").await?;
        let address = loopback(free_port()?);
        let mut node = Command::new("node");
        node.arg("-r")
            .arg(root().join("xtask/peers/typescript/loopback.cjs"))
            .arg(modules.join("@modelcontextprotocol/server-everything/dist/index.js"))
            .arg("streamableHttp")
            .env("PORT", address.port().to_string());
        let mut process = Process::start("server-everything", &mut node)?;
        process.until_ready(Duration::from_secs(30), async || accepts(address).await).await?;
        Ok(Self { process, address })
    }

    /// How many sessions clients ended with DELETE.
    pub(crate) fn ended_sessions(&self) -> usize {
        self.process.count("Received session termination request")
    }
}
