//! The server.
use std::{future::Future, sync::Arc};

use spiffe_id::SpiffeId;
use tokio::{net::TcpListener, sync::watch};

use crate::Cache;

/// Which group a verified identity belongs to; `None` refuses it. Asked at each connection and each stream.
pub type Admit = Arc<dyn Fn(&SpiffeId) -> Option<Arc<str>> + Send + Sync>;

/// Why the server ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The socket.
    #[error("the discovery service cannot accept connections: {0}")]
    Accept(#[from] std::io::Error),
}

/// Serves ADS until `shutdown` ends. `tls` is read at each new connection: a configuration that requires and verifies
/// client certificates (the leaf's SPIFFE ID is read here, after rustls verified the chain) and offers ALPN `h2`.
/// Reports and counts are read from the cache.
///
/// # Errors
/// A socket that fails for good.
pub async fn serve(
    _listener: TcpListener,
    _tls: watch::Receiver<Arc<rustls::ServerConfig>>,
    _admit: Admit,
    _cache: Cache,
    _shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    todo!()
}
