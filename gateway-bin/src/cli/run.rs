//! The flags of `run`.
use std::{net::IpAddr, time::Duration};

use clap::Args;

use super::CommonArgs;
use crate::cli::{ListenAt, parse_duration};

/// `run`
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would print it as help")]
    pub common: CommonArgs,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would print it as help")]
    pub listeners: ListenerArgs,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would print it as help")]
    pub limits: LimitArgs,
}

/// Where the Gateways' listeners are.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Configuration")]
pub struct ListenerArgs {
    /// The address that listeners bind
    #[arg(long, default_value = "0.0.0.0", value_name = "IP", env = "AGENTIC_GATEWAY_LISTEN_ADDRESS")]
    pub listen_address: IpAddr,
    /// Serve the listeners of a port at another address (port 0: a free one, which is logged)
    #[arg(long, value_name = "PORT=ADDR:PORT", value_delimiter = ',', env = "AGENTIC_GATEWAY_LISTEN")]
    pub listen: Vec<ListenAt>,
}

/// What one client can take.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitArgs {
    /// Open client connections, all listeners together; more wait to be accepted
    #[arg(long, default_value_t = 10_000, value_name = "COUNT", env = "AGENTIC_GATEWAY_MAX_CONNECTIONS")]
    pub max_connections: usize,
    /// Bytes of a request's head (at least 8192)
    #[arg(long, default_value_t = 65_536, value_name = "BYTES", env = "AGENTIC_GATEWAY_MAX_HEADER_BYTES",
          value_parser = clap::value_parser!(u32).range(8192..=1_048_576))]
    pub max_header_bytes: u32,
    /// Header lines of a request
    #[arg(long, default_value_t = 100, value_name = "COUNT", env = "AGENTIC_GATEWAY_MAX_HEADERS")]
    pub max_headers: usize,
    /// Requests at a time on one HTTP/2 connection
    #[arg(long, default_value_t = 128, value_name = "COUNT", env = "AGENTIC_GATEWAY_MAX_STREAMS")]
    pub max_streams: u32,
    /// How long a TLS handshake may take
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = parse_duration,
          env = "AGENTIC_GATEWAY_HANDSHAKE_TIMEOUT")]
    pub handshake_timeout: Duration,
    /// How long a request's head may take, and how long an HTTP/1.1 connection may wait for the next one
    #[arg(long, default_value = "60s", value_name = "TIME", value_parser = parse_duration,
          env = "AGENTIC_GATEWAY_HEADER_TIMEOUT")]
    pub header_timeout: Duration,
    /// How long a client may pause while it sends a body
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = parse_duration,
          env = "AGENTIC_GATEWAY_BODY_TIMEOUT")]
    pub body_timeout: Duration,
}
