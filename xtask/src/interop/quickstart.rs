//! `agentic-gateway quickstart --serve`: servers, authorizer, gateway and sidecar, from the very binary.
use std::time::Duration;

use anyhow::Context as _;
use tokio::process::Command;

use super::{Run, process::Process};

const START: Duration = Duration::from_secs(60);

/// It runs as long as this value lives.
#[derive(Debug)]
pub(crate) struct Quickstart {
    pub(crate) process: Process,
    /// Where the sidecar is, without a slash at the end.
    pub(crate) sidecar: String,
}

impl Quickstart {
    pub(crate) async fn start(run: &Run) -> anyhow::Result<Self> {
        let mut command = Command::new(&run.gateway);
        // It is killed at the end, and then cannot tidy up: its files go with ours.
        command.args(["quickstart", "--serve"]).env("TMPDIR", run.folder("quickstart")?);
        let mut process = Process::start("quickstart --serve", &mut command)?;
        let said = process.line("sidecar", START).await?;
        let sidecar = said
            .split_whitespace()
            .find(|word| word.starts_with("http://"))
            .with_context(|| format!("no URL in `sidecar{said}`"))?
            .trim_end_matches('/')
            .to_owned();
        Ok(Self { process, sidecar })
    }
}
