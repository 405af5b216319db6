//! The command `agentic-gateway`.
use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    agentic_gateway::execute(agentic_gateway::cli::Cli::parse())
}
