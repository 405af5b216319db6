//! Handshakes: SNI chooses the listener, the client's chain gives the identity.
use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::pki_types::UnixTime;
use spiffe_id::SpiffeId;
use tokio::net::TcpStream;
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};
use xds_translate::ClientCertificates;

use super::{
    Acceptor,
    accept::{address_value, serve_http},
};
use crate::{connection::Connection, tls::not_after};

struct Handshaken {
    stream: TlsStream<TcpStream>,
    listener: Arc<str>,
    clients: Arc<ClientCertificates>,
    identity: Option<Arc<SpiffeId>>,
    /// Until the client's certificate expires.
    ends: Option<Duration>,
}

pub(super) async fn serve(acceptor: &Acceptor, stream: TcpStream, peer: SocketAddr, port: u16) {
    let metrics = &acceptor.shared.telemetry.metrics;
    let local = stream.local_addr().ok();
    let handshaken =
        tokio::time::timeout(acceptor.handshake_timeout, handshake(acceptor, stream, port)).await;
    let handshaken = match handshaken {
        Ok(Ok(handshaken)) => handshaken,
        Ok(Err(error)) => {
            metrics.handshake("failed");
            tracing::info!(%peer, port, error, "a TLS handshake failed");
            return;
        }
        Err(_) => {
            metrics.handshake("timeout");
            tracing::info!(%peer, port, "a TLS handshake took too long");
            return;
        }
    };
    metrics.handshake(if handshaken.identity.is_some() { "identified" } else { "anonymous" });
    let connection = Connection {
        gateway: None,
        port,
        peer,
        local,
        tls: true,
        admitted: Some((handshaken.listener, handshaken.clients)),
        identity: handshaken.identity,
        forwarded_for: address_value(peer),
        backend: None,
        used: AtomicBool::new(false),
        closing: AtomicBool::new(false),
    };
    let http2 = handshaken.stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let http = if http2 { &acceptor.http.http2 } else { &acceptor.http.http1 };
    serve_http(acceptor, http, handshaken.stream, connection, handshaken.ends).await;
}

async fn handshake(acceptor: &Acceptor, stream: TcpStream, port: u16) -> Result<Handshaken, String> {
    let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream)
        .await
        .map_err(|error| error.to_string())?;
    let (config, listener, clients, trust) = {
        let runtime = acceptor.shared.runtime.load();
        let gateway = runtime.on_port(port).ok_or("the port is not served any more")?;
        let hello = start.client_hello();
        let at =
            gateway.router.listener(port, hello.server_name()).ok_or_else(|| match hello.server_name() {
                Some(name) => format!("no listener is for `{}`", name.escape_debug()),
                None => "no listener is for connections without a server name".to_owned(),
            })?;
        let listener = gateway.listeners.get(at).ok_or("the listener is gone")?;
        let tls = listener.tls.as_ref().ok_or("the listener has no TLS settings")?;
        (
            Arc::clone(tls.config.as_ref().ok_or("somebody else serves the listener")?),
            Arc::clone(&listener.name),
            Arc::clone(&tls.clients),
            Arc::clone(&runtime.material.trust),
        )
    };
    let stream = start.into_stream(config).await.map_err(|error| error.to_string())?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    // Whatever let the connection in, an identity comes from the trust bundles only.
    let identity = trust.client_identity(chain, UnixTime::now()).map(Arc::new);
    if let (ClientCertificates::SpiffeRequired, Err(error)) = (&*clients, &identity) {
        return Err(error.to_string());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Under insecure fallback a certificate that gives no identity is as good as none.
    let is_fallback = matches!(*clients, ClientCertificates::Frontend { insecure_fallback: true, .. });
    let ends = match chain.first() {
        Some(leaf) if identity.is_ok() || !is_fallback => {
            let end = not_after(leaf).ok_or("the client's certificate cannot be read")?;
            // A certificate that is valid to the end of a second is so for all of it.
            let end = Duration::from_secs(u64::try_from(end).unwrap_or_default().saturating_add(1));
            Some(end.saturating_sub(now).min(Duration::from_secs(31_536_000)))
        }
        _ => None,
    };
    Ok(Handshaken { stream, listener, clients, identity: identity.ok(), ends })
}
