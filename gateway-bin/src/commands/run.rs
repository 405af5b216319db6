//! `run`
use std::process::ExitCode;

use super::asked_to_end;
use crate::{AccessLog, Gateway, cli::RunArgs};

pub(super) async fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let access_log = if args.common.operation.no_access_log { AccessLog::Off } else { AccessLog::stdout()? };
    let gateway = Gateway::start(args, access_log).await?;
    tracing::info!(admin = %gateway.admin_address(), "ready");
    asked_to_end().await?;
    tracing::info!("asked to end; open requests may finish");
    gateway.shutdown().await;
    Ok(ExitCode::SUCCESS)
}
