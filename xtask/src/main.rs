//! Developer commands: `cargo xtask --help`.
mod command;
mod fuzz;
mod lint;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The vocabulary of this repository. CI says nothing that these commands do not.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Formatting, clippy, rustdoc, licences and sources of dependencies, packaging
    Lint,
    /// Every fuzz target for a share of the given time
    FuzzSmoke(fuzz::Smoke),
    /// One fuzz target for as long as you like
    Fuzz(fuzz::One),
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Lint => lint::run_all(),
        Task::FuzzSmoke(smoke) => fuzz::smoke(&smoke),
        Task::Fuzz(one) => fuzz::one(&one),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
