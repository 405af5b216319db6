//! `sidecar`: agents that speak plain HTTP on loopback reach the gateway over mTLS with this pod's identity.
use std::process::ExitCode;

use super::asked_to_end;
use crate::{Sidecar, cli::SidecarArgs};

pub(super) async fn run(args: &SidecarArgs) -> anyhow::Result<ExitCode> {
    let sidecar = Sidecar::start(args).await?;
    tracing::info!(listening = %sidecar.address(), gateway = %args.to, "ready");
    asked_to_end().await?;
    sidecar.shutdown().await;
    Ok(ExitCode::SUCCESS)
}
