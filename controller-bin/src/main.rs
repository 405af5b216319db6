//! The command `agentic-controller`.
use std::process::ExitCode;

use clap::Parser as _;

#[expect(clippy::print_stderr, reason = "the program's last word")]
fn main() -> ExitCode {
    let done = agentic_controller::run(&agentic_controller::Args::parse(), &mut std::io::stdout().lock());
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // The reader had enough (`| head`).
        Err(error) if error.downcast_ref().is_some_and(is_broken_pipe) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("agentic-controller: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::BrokenPipe
}
