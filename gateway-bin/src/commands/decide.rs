//! `decide`
use std::process::ExitCode;

use super::asked_to_end;
use crate::{AccessLog, Processor, cli::DecideArgs};

pub(super) async fn decide(args: &DecideArgs) -> anyhow::Result<ExitCode> {
    let access_log = if args.common.operation.no_access_log { AccessLog::Off } else { AccessLog::stdout()? };
    let processor = Processor::start(args, access_log).await?;
    tracing::info!(admin = %processor.admin_address(), "ready");
    asked_to_end().await?;
    tracing::info!("asked to end; open requests may finish");
    if let Some(admin) = args.envoy_admin {
        crate::decide::drain(admin, args.common.operation.drain_timeout).await;
    }
    processor.shutdown().await;
    Ok(ExitCode::SUCCESS)
}
