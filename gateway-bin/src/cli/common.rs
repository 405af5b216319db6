//! The flags that `run` and `decide` have in common.
use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use http::Uri;
use policy_model::NamespacedName;
use spiffe_id::SpiffeId;

use super::ResolutionArgs;
use crate::cli::{BundleFile, ResolveTo, parse_duration};

/// What a gateway and a processor have in common.
#[derive(Debug, Clone, Args)]
pub struct CommonArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would print it as help")]
    pub manifests: ManifestArgs,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would print it as help")]
    pub xds: XdsArgs,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would print it as help")]
    pub resolution: ResolutionArgs,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would print it as help")]
    pub policy: PolicyArgs,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would print it as help")]
    pub tls: TlsArgs,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would print it as help")]
    pub upstream: UpstreamArgs,
    /// Largest MCP body, in bytes
    #[arg(long, default_value_t = 1 << 20, value_name = "BYTES", env = "AGENTIC_GATEWAY_MAX_BODY_BYTES",
          help_heading = "Limits")]
    pub max_body_bytes: usize,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would print it as help")]
    pub operation: OperationArgs,
}

/// Where the configuration comes from.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Configuration")]
pub struct ManifestArgs {
    /// Files or folders (*.yaml, *.yml, *.json) of manifests; read again when they change. An invalid file never
    /// replaces a good configuration. This or --xds
    #[arg(long = "manifests", required_unless_present = "url", conflicts_with = "url", num_args = 1.., value_name = "PATH", value_delimiter = ',',
          env = "AGENTIC_GATEWAY_MANIFESTS")]
    pub paths: Vec<PathBuf>,
    /// Serve this Gateway only; all that the manifests hold by default. With --xds: the one that this proxy belongs to
    #[arg(long = "gateway", value_name = "NAMESPACE/NAME", value_parser = command_line::namespaced_name,
          value_delimiter = ',', env = "AGENTIC_GATEWAY_GATEWAY")]
    pub gateways: Vec<NamespacedName>,
}

/// Where the configuration comes from in a cluster.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Configuration")]
pub struct XdsArgs {
    /// Take the configuration from this controller, `https://HOST[:PORT]`, over mTLS with the identity of
    /// --identity-dir. What is in force stays when the controller is away
    #[arg(
        long = "xds",
        requires = "server_id",
        requires = "gateways",
        value_name = "URL",
        env = "AGENTIC_GATEWAY_XDS"
    )]
    pub url: Option<Uri>,
    /// The controller's SPIFFE ID: nobody else's configuration is taken
    #[arg(
        long = "xds-server-id",
        requires = "url",
        value_name = "SPIFFE",
        env = "AGENTIC_GATEWAY_XDS_SERVER_ID"
    )]
    pub server_id: Option<SpiffeId>,
    /// Keep the last good configuration in this file (or in this folder), readable by its owner only as it may hold
    /// keys, and start with it until the controller is reached
    #[arg(long = "xds-state", requires = "url", value_name = "FILE|DIR", env = "AGENTIC_GATEWAY_XDS_STATE")]
    pub state: Option<PathBuf>,
}

/// What is let through.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Policies")]
pub struct PolicyArgs {
    /// Leave out of `tools/list` results what no policy could let the caller call
    #[arg(long, env = "AGENTIC_GATEWAY_FILTER_LISTS")]
    pub filter_lists: bool,
    /// Origins that are allowed besides the Host's own, `scheme://host[:port]`
    #[arg(long, value_delimiter = ',', value_name = "ORIGIN", env = "AGENTIC_GATEWAY_ALLOWED_ORIGINS")]
    pub allowed_origins: Vec<String>,
    /// How long an external authorizer may take; then the call is denied
    #[arg(long, default_value = "2s", value_name = "TIME", value_parser = parse_duration,
          env = "AGENTIC_GATEWAY_AUTHORIZER_TIMEOUT")]
    pub authorizer_timeout: Duration,
    /// Keys that seal session ids: one a line, 32 bytes in base64 or hex, or one raw key of 32 bytes. The first seals,
    /// all open. Without it they are the controller's (--xds), or a random one with which sessions end with the process
    #[arg(long, value_name = "FILE", env = "AGENTIC_GATEWAY_SESSION_KEY_FILE")]
    pub session_key_file: Option<PathBuf>,
}

/// Identities.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Identity")]
pub struct TlsArgs {
    /// Folder with `credential-bundle.pem` and `<trust-domain>.trust-bundle.pem`, watched; by default
    /// /run/gateway-identity-mtls if that exists
    #[arg(long, value_name = "DIR", env = "AGENTIC_GATEWAY_IDENTITY_DIR")]
    pub identity_dir: Option<PathBuf>,
    /// Roots (PEM) of one more trust domain whose identities are accepted; watched
    #[arg(
        long = "trust-bundle",
        value_name = "DOMAIN=FILE",
        value_delimiter = ',',
        env = "AGENTIC_GATEWAY_TRUST_BUNDLE"
    )]
    pub trust_bundles: Vec<BundleFile>,
}

/// Backends.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Upstreams")]
pub struct UpstreamArgs {
    /// Connect to this address instead of asking DNS; the only way to reach a host name on loopback
    #[arg(long, value_name = "HOST:PORT:ADDR", value_delimiter = ',', env = "AGENTIC_GATEWAY_RESOLVE")]
    pub resolve: Vec<ResolveTo>,
    /// A root certificate (PEM) to trust besides the system's
    #[arg(long, value_name = "FILE", value_delimiter = ',', env = "AGENTIC_GATEWAY_EXTRA_CA")]
    pub extra_ca: Vec<PathBuf>,
    /// How long connecting (DNS and TLS included) may take
    #[arg(long, default_value = "5s", value_name = "TIME", value_parser = parse_duration,
          env = "AGENTIC_GATEWAY_CONNECT_TIMEOUT")]
    pub connect_timeout: Duration,
    /// How long an unused connection is kept
    #[arg(long, default_value = "60s", value_name = "TIME", value_parser = parse_duration,
          env = "AGENTIC_GATEWAY_UPSTREAM_IDLE_TIMEOUT")]
    pub upstream_idle_timeout: Duration,
}

/// Running it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Operation")]
pub struct OperationArgs {
    /// Address of /healthz, /readyz and /metrics (plain HTTP: keep it on loopback)
    #[arg(
        long,
        default_value = "127.0.0.1:15021",
        value_name = "ADDR:PORT",
        env = "AGENTIC_GATEWAY_ADMIN_ADDR"
    )]
    pub admin_addr: SocketAddr,
    /// Address of /healthz and /readyz alone, for probes from elsewhere; none by default
    #[arg(long, value_name = "ADDR:PORT", env = "AGENTIC_GATEWAY_HEALTH_ADDR")]
    pub health_addr: Option<SocketAddr>,
    /// How long open requests may take to end on SIGTERM
    #[arg(long, default_value = "30s", value_name = "TIME", env = "AGENTIC_GATEWAY_DRAIN_TIMEOUT",
          value_parser = parse_duration)]
    pub drain_timeout: Duration,
    /// Worker threads; one per processor by default
    #[arg(long, value_name = "COUNT", env = "AGENTIC_GATEWAY_WORKERS", value_parser = clap::value_parser!(u16).range(1..=512))]
    pub workers: Option<u16>,
    /// How the gateway's own messages (on standard error) look; requests are logged as JSON lines on standard output
    #[arg(long, default_value = "json", env = "AGENTIC_GATEWAY_LOG_FORMAT")]
    pub log_format: LogFormat,
    /// Which of its own messages are logged (tracing's syntax)
    #[arg(long, default_value = "info", value_name = "FILTER", env = "AGENTIC_GATEWAY_LOG")]
    pub log: String,
    /// Do not log requests
    #[arg(long, env = "AGENTIC_GATEWAY_NO_ACCESS_LOG")]
    pub no_access_log: bool,
}

/// How log messages look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}
