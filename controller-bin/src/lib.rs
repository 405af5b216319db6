#![doc = include_str!("../README.md")]
#![warn(missing_docs, clippy::missing_errors_doc, clippy::missing_panics_doc)]

mod backoff;
mod cli;
mod crds;
pub mod envoy;
pub mod identity;
pub mod index;
mod install;
pub mod lease;
pub mod provision;
pub mod run;
pub mod status;
mod translate;
pub mod watch;

use std::io::Write;

pub use crate::cli::Args;
pub use crate::crds::crd_yaml;

/// Runs a command, writing to `out`.
///
/// # Errors
/// What could not be done, `out` that cannot be written to included.
pub fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<()> {
    match &args.command {
        cli::Command::Crds => out.write_all(crd_yaml()?.as_bytes())?,
        cli::Command::Install(args) => install::install(args, out)?,
        cli::Command::MakeCa(args) => install::make_ca(args, out)?,
        cli::Command::Run(args) => run::run(args)?,
        cli::Command::Translate(args) => translate::print(args, out, &mut std::io::stderr().lock())?,
    }
    out.flush()?;
    Ok(())
}
