//! `run`
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::asked_to_end;
use crate::{AccessLog, Gateway, cli::RunArgs};

/// Files that are open for other reasons than connections of clients, or to backends on their behalf.
const OTHER_FILES: u64 = 64;

pub(super) async fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let mut args = args.clone();
    let files = open_files();
    let most = connections_within(files);
    if args.limits.max_connections > most {
        tracing::warn!(
            files,
            max_connections = most,
            "--max-connections is {}, more than the limit of open files allows; raise the limit (ulimit -n, LimitNOFILE)",
            args.limits.max_connections
        );
        args.limits.max_connections = most;
    }
    let access_log = if args.common.operation.no_access_log { AccessLog::Off } else { AccessLog::stdout()? };
    let gateway = Gateway::start(&args, access_log).await?;
    tracing::info!(admin = %gateway.admin_address(), "ready");
    asked_to_end().await?;
    tracing::info!("asked to end; open requests may finish");
    gateway.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

/// How many files this process may have open, after it asked for as many as it may ask for.
fn open_files() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::debug!(%error, "the limit of open files stays");
        return current.unwrap_or(u64::MAX);
    }
    maximum.unwrap_or(u64::MAX)
}

/// Clients beyond these wait in the kernel, where they cost the others nothing. Without a file for a connection to its
/// backend, none of them is served: each may need two.
fn connections_within(files: u64) -> usize {
    usize::try_from(files.saturating_sub(OTHER_FILES) / 2).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_connection_may_need_two_files() {
        for (files, connections) in [(0, 1), (64, 1), (1024, 480), (20_064, 10_000)] {
            assert_eq!(connections_within(files), connections);
        }
        assert!(connections_within(u64::MAX) > 1_000_000);
    }
}
