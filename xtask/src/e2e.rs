//! `cargo xtask e2e`: the product in a cluster.
mod crds;
mod faults;
mod identity;
mod latency;
mod scale;
mod story;

use clap::Args;

/// `e2e`
#[derive(Debug, Args)]
pub(crate) struct E2eArgs {}

pub(crate) fn e2e(_args: &E2eArgs) -> anyhow::Result<()> {
    todo!()
}
