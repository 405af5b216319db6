//! `agentic-controller run`: the parts put together, each supervised.
use clap::Args;

/// `run`
#[derive(Debug, Clone, Args)]
pub struct RunArgs {}

pub(crate) fn run(_args: &RunArgs) -> anyhow::Result<()> {
    todo!()
}
