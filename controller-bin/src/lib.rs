#![doc = include_str!("../README.md")]
#![warn(missing_docs, clippy::missing_errors_doc, clippy::missing_panics_doc)]

mod crds;

use std::io::Write;

use clap::{Parser, Subcommand};

pub use crate::crds::crd_yaml;

/// Control plane of the agentic gateway.
#[derive(Debug, Parser)]
#[command(name = "agentic-controller", version)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the CustomResourceDefinitions of XAccessPolicy and XBackend as YAML
    Crds,
}

/// Runs a command, writing to `out`.
///
/// # Errors
/// What could not be done, `out` that cannot be written to included.
pub fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<()> {
    match args.command {
        Command::Crds => out.write_all(crd_yaml()?.as_bytes())?,
    }
    out.flush()?;
    Ok(())
}
