//! The command line.
use clap::{Parser, Subcommand};

use crate::{
    install::{InstallArgs, MakeCaArgs},
    run::RunArgs,
    translate::TranslateArgs,
};

/// Control plane of the agentic gateway.
#[derive(Debug, Parser)]
#[command(name = "agentic-controller", version)]
pub struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Watch the cluster: statuses, identities, proxies and their configuration
    Run(Box<RunArgs>),
    /// Print the CustomResourceDefinitions of XAccessPolicy and XBackend as YAML
    Crds,
    /// Print everything that the controller needs in a cluster as YAML: namespace, CRDs, rights, Deployment, GatewayClass
    Install(InstallArgs),
    /// Print a Secret with a new CA pool as YAML
    MakeCa(MakeCaArgs),
    /// Print what an Envoy needs to serve a Gateway, as a bootstrap in JSON; exit 1 if anything is not accepted
    Translate(Box<TranslateArgs>),
}
