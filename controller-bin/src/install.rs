//! `agentic-controller install` and `make-ca`.
use std::io::Write;

use clap::Args;

/// `install`
#[derive(Debug, Clone, Args)]
pub struct InstallArgs {}

/// `make-ca`
#[derive(Debug, Clone, Args)]
pub struct MakeCaArgs {}

pub(crate) fn install(_args: &InstallArgs, _out: &mut dyn Write) -> anyhow::Result<()> {
    todo!()
}

pub(crate) fn make_ca(_args: &MakeCaArgs, _out: &mut dyn Write) -> anyhow::Result<()> {
    todo!()
}
