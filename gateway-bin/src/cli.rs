//! The command line. Every flag can also be given as an environment variable (`--help` names it).
mod common;
mod decide;
mod run;

use std::{net::SocketAddr, path::PathBuf};

use authz_core::DefaultAction;
use clap::{Args, Parser, Subcommand, ValueEnum};
use policy_model::NamespacedName;
use spiffe_id::{SpiffeId, TrustDomain};

pub use command_line::{BundleFile, ListenAt, ResolveTo, parse_duration};

pub use self::{
    common::{
        CommonArgs, LogFormat, ManifestArgs, OperationArgs, PolicyArgs, TlsArgs, UpstreamArgs, XdsArgs,
    },
    decide::{DecideArgs, ProcessorAddress},
    run::{LimitArgs, ListenerArgs, RunArgs},
};

/// A gateway for AI agents: MCP over mTLS, decided by `XAccessPolicy`.
#[derive(Debug, Parser)]
#[command(name = "agentic-gateway", version, about, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the Gateways of manifests
    Run(Box<RunArgs>),
    /// Decide for an Envoy, which asks over its external processing protocol (ext_proc)
    Decide(Box<DecideArgs>),
    /// The whole story in one process: servers, an authorizer, the gateway and an agent
    #[cfg(feature = "quickstart")]
    Quickstart(QuickstartArgs),
    /// Validate manifests and print the status of each object; exit 1 if any is not accepted
    Check(CheckArgs),
    /// Print how a request would be decided, and why
    Explain(Box<ExplainArgs>),
    /// Plain HTTP on loopback in, mTLS with this pod's identity out
    Sidecar(SidecarArgs),
}

/// `quickstart`
#[derive(Debug, Clone, Args)]
pub struct QuickstartArgs {
    /// Keep everything running and print how to reach it
    #[arg(long, env = "AGENTIC_GATEWAY_SERVE")]
    pub serve: bool,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// `check`
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Files or folders of manifests
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// How to print
    #[arg(short, long, default_value = "text", env = "AGENTIC_GATEWAY_OUTPUT")]
    pub output: Output,
    /// What the policies mean
    #[command(flatten)]
    pub resolution: ResolutionArgs,
}

/// What resolving manifests depends on.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Policies")]
pub struct ResolutionArgs {
    /// What happens where no policy has an Allow rule and nothing is delegated
    #[arg(long, default_value = "allow", value_name = "allow|deny", env = "AGENTIC_GATEWAY_DEFAULT_ACTION",
          value_parser = command_line::default_action)]
    pub default_action: DefaultAction,
    /// The trust domain of ServiceAccount sources
    #[arg(
        long,
        default_value = "cluster.local",
        value_name = "DOMAIN",
        env = "AGENTIC_GATEWAY_TRUST_DOMAIN"
    )]
    pub trust_domain: TrustDomain,
}

impl ResolutionArgs {
    /// As the resolution wants them.
    pub fn options(&self) -> xds_translate::Options {
        let mut options = xds_translate::Options::default();
        options.default_action = self.default_action;
        options.trust_domain = self.trust_domain.clone();
        options
    }
}

/// `explain`
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Files or folders of manifests
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// The Gateway that receives the request
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = command_line::namespaced_name, env = "AGENTIC_GATEWAY_GATEWAY")]
    pub gateway: NamespacedName,
    /// Its listener; the first one by default
    #[arg(long, value_name = "NAME", env = "AGENTIC_GATEWAY_LISTENER")]
    pub listener: Option<String>,
    /// The caller's SPIFFE ID; none by default
    #[arg(long, value_name = "SPIFFE-ID", env = "AGENTIC_GATEWAY_IDENTITY")]
    pub identity: Option<SpiffeId>,
    /// HTTP method; POST with a body, else GET
    #[arg(long, env = "AGENTIC_GATEWAY_METHOD")]
    pub method: Option<http::Method>,
    /// Path, with a query if any
    #[arg(long, default_value = "/", env = "AGENTIC_GATEWAY_PATH")]
    pub path: String,
    /// Host; by default what the listener is for, else `localhost`
    #[arg(long, env = "AGENTIC_GATEWAY_HOST")]
    pub host: Option<String>,
    /// A header; may be repeated
    #[arg(long = "header", short = 'H', value_name = "NAME:VALUE", value_parser = command_line::header,
          env = "AGENTIC_GATEWAY_HEADER")]
    pub headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// The body, or `@FILE`; a POST with one has `content-type: application/json` and
    /// `accept: application/json, text/event-stream` unless headers say otherwise
    #[arg(long, value_name = "JSON|@FILE", env = "AGENTIC_GATEWAY_BODY")]
    pub body: Option<String>,
    /// How to print
    #[arg(short, long, default_value = "text", env = "AGENTIC_GATEWAY_OUTPUT")]
    pub output: Output,
    /// What the policies mean
    #[command(flatten)]
    pub resolution: ResolutionArgs,
    /// Origins that are allowed besides the Host's own, `scheme://host[:port]`
    #[arg(long, value_delimiter = ',', value_name = "ORIGIN", env = "AGENTIC_GATEWAY_ALLOWED_ORIGINS")]
    pub allowed_origins: Vec<String>,
    /// Largest MCP body, in bytes
    #[arg(long, default_value_t = 1 << 20, value_name = "BYTES", env = "AGENTIC_GATEWAY_MAX_BODY_BYTES")]
    pub max_body_bytes: usize,
}

/// `sidecar`
#[derive(Debug, Clone, Args)]
pub struct SidecarArgs {
    /// The gateway
    #[arg(long, value_name = "https://HOST[:PORT]", env = "AGENTIC_GATEWAY_TO")]
    pub to: http::Uri,
    /// Folder with `credential-bundle.pem` and `<trust-domain>.trust-bundle.pem`; watched
    #[arg(
        long,
        value_name = "DIR",
        env = "AGENTIC_GATEWAY_IDENTITY_DIR",
        default_value = "/run/agent-identity-mtls"
    )]
    pub identity_dir: PathBuf,
    /// Where agents connect; loopback only
    #[arg(long, default_value = "127.0.0.1:15001", value_name = "ADDR:PORT", env = "AGENTIC_GATEWAY_LISTEN")]
    pub listen: SocketAddr,
    /// The gateway's SPIFFE ID; without it, its certificate must be for the DNS name, by a system root or `--extra-ca`
    #[arg(long, value_name = "SPIFFE-ID", env = "AGENTIC_GATEWAY_GATEWAY_ID")]
    pub gateway_id: Option<SpiffeId>,
    /// Connect to this address instead of asking DNS
    #[arg(long, value_name = "HOST:PORT:ADDR", env = "AGENTIC_GATEWAY_RESOLVE", value_delimiter = ',')]
    pub resolve: Vec<ResolveTo>,
    /// A root certificate (PEM) to trust besides the system's
    #[arg(long, value_name = "FILE", env = "AGENTIC_GATEWAY_EXTRA_CA", value_delimiter = ',')]
    pub extra_ca: Vec<PathBuf>,
    /// Origins (of web pages) that may use the sidecar besides its own
    #[arg(long, value_delimiter = ',', value_name = "ORIGIN", env = "AGENTIC_GATEWAY_ALLOWED_ORIGINS")]
    pub allowed_origins: Vec<String>,
    /// How long open requests may take to end on SIGTERM
    #[arg(long, default_value = "30s", value_name = "TIME", env = "AGENTIC_GATEWAY_DRAIN_TIMEOUT",
          value_parser = parse_duration)]
    pub drain_timeout: std::time::Duration,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// A flag that the environment cannot set would break the contract of `--help`.
    #[test]
    fn every_flag_has_an_environment_variable() {
        for command in Cli::command().get_subcommands() {
            for argument in command.get_arguments().filter(|argument| !argument.is_positional()) {
                if ["help", "version"].contains(&argument.get_id().as_str()) {
                    continue;
                }
                let variable = argument.get_env().unwrap_or_default().to_string_lossy().into_owned();
                assert!(
                    variable.starts_with("AGENTIC_GATEWAY_"),
                    "{} {}: `{variable}`",
                    command.get_name(),
                    argument.get_id()
                );
            }
        }
    }
}
