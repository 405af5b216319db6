//! The flags of `decide`.
use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

use clap::Args;
use spiffe_id::SpiffeId;

use super::CommonArgs;

/// `decide`
#[derive(Debug, Clone, Args)]
pub struct DecideArgs {
    /// Where Envoy asks: a unix socket (whoever can open it is Envoy: keep its folder to the two), or a TCP address, which
    /// is served over mTLS with the certificate of --identity-dir
    #[arg(long, value_name = "unix:PATH|ADDR:PORT", env = "AGENTIC_GATEWAY_LISTEN")]
    pub listen: ProcessorAddress,
    /// SPIFFE ID of an Envoy that may ask over TCP
    #[arg(
        long = "client-id",
        value_name = "SPIFFE-ID",
        value_delimiter = ',',
        env = "AGENTIC_GATEWAY_CLIENT_ID"
    )]
    pub client_ids: Vec<SpiffeId>,
    /// Administration address of an Envoy in the same Pod. On SIGTERM it is told to end its requests, within
    /// --drain-timeout, and then to end; only then does this process
    #[arg(long, value_name = "ADDR:PORT", env = "AGENTIC_GATEWAY_ENVOY_ADMIN")]
    pub envoy_admin: Option<SocketAddr>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would print it as help")]
    pub common: CommonArgs,
}

/// Where a processor listens: `unix:PATH` or `ADDR:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessorAddress {
    /// Path of a unix socket.
    Socket(PathBuf),
    /// Over mTLS.
    Tcp(SocketAddr),
}

impl FromStr for ProcessorAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some("") => Err("`unix:` has no path; write unix:/run/decide/decide.sock".to_owned()),
            Some(path) => Ok(Self::Socket(PathBuf::from(path))),
            None => text.parse().map(Self::Tcp).map_err(|_error| {
                format!("`{text}` is neither unix:PATH nor ADDR:PORT; write unix:/run/decide/decide.sock")
            }),
        }
    }
}

impl fmt::Display for ProcessorAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "{address}"),
        }
    }
}
