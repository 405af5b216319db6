//! The subcommands.
mod check;
mod decide;
mod explain;
mod run;
mod sidecar;

use std::process::ExitCode;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

use crate::cli::{Cli, Command, LogFormat};

/// Executes a command line: the whole program.
pub fn execute(cli: Cli) -> ExitCode {
    let result = match cli.command {
        Command::Run(args) => log_to_stderr(args.common.operation.log_format, &args.common.operation.log)
            .and_then(|()| runtime(args.common.operation.workers))
            .and_then(|runtime| runtime.block_on(run::run(&args))),
        Command::Decide(args) => log_to_stderr(args.common.operation.log_format, &args.common.operation.log)
            .and_then(|()| runtime(args.common.operation.workers))
            .and_then(|runtime| runtime.block_on(decide::decide(&args))),
        #[cfg(feature = "quickstart")]
        Command::Quickstart(args) => {
            runtime(None).and_then(|runtime| runtime.block_on(crate::quickstart::run(&args)))
        }
        Command::Check(args) => check::check(&args),
        Command::Explain(args) => explain::explain(&args),
        Command::Sidecar(args) => log_to_stderr(LogFormat::Text, "info")
            .and_then(|()| runtime(None))
            .and_then(|runtime| runtime.block_on(sidecar::run(&args))),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "the program's last word, where nothing may be logging")]
fn report(error: &anyhow::Error) {
    eprintln!("agentic-gateway: {error:#}");
}

fn runtime(workers: Option<u16>) -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = workers {
        builder.worker_threads(usize::from(workers));
    }
    builder.enable_all().build().context("cannot start the runtime")
}

fn log_to_stderr(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    let filter =
        EnvFilter::try_new(filter).with_context(|| format!("`{filter}` is no log filter; try `info`"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let set = match format {
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
        LogFormat::Text => builder.try_init(),
    };
    set.map_err(|error| anyhow::anyhow!("cannot log: {error}"))
}

/// Completes when the process is asked to end.
pub(crate) async fn asked_to_end() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
