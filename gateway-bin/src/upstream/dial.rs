//! Making one connection: address, TCP, TLS, HTTP version.
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::{OutBody, UpstreamSettings};
use crate::cli::ResolveTo;

/// Where an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Address {
    /// An address from an EndpointSlice.
    Socket(SocketAddr),
    /// A host name, lower case, resolved for each connection.
    Name(String, u16),
}

impl Address {
    /// The address of an EndpointSlice's endpoint; a host name is one endpoint as a whole.
    pub(crate) fn socket(&self) -> Option<SocketAddr> {
        match self {
            Self::Socket(address) => Some(*address),
            Self::Name(..) => None,
        }
    }
}

/// `--resolve`, then DNS.
#[derive(Debug, Default)]
pub(crate) struct Resolver {
    given: Vec<ResolveTo>,
    /// Whether names may lead to this machine: to an operator's own gateway they may, to a backend they may not.
    lenient: bool,
}

impl Resolver {
    pub(crate) fn new(given: Vec<ResolveTo>) -> Self {
        Self { given, lenient: false }
    }

    pub(crate) fn lenient(given: Vec<ResolveTo>) -> Self {
        Self { given, lenient: true }
    }

    pub(crate) async fn addresses(&self, address: &Address) -> Result<Vec<SocketAddr>, String> {
        let (host, port) = match address {
            Address::Socket(address) => return Ok(vec![*address]),
            Address::Name(host, port) => (host, *port),
        };
        let given: Vec<_> = self
            .given
            .iter()
            .filter(|entry| entry.host == *host && entry.port == port)
            .map(|entry| entry.address)
            .collect();
        if !given.is_empty() {
            return Ok(given);
        }
        let found = tokio::net::lookup_host((host.as_str(), port))
            .await
            .map_err(|error| format!("`{host}` does not resolve: {error}"))?;
        let (refused, usable): (Vec<_>, Vec<_>) =
            found.partition(|address| !self.lenient && is_local(address.ip()));
        if usable.is_empty() {
            return Err(match refused.first() {
                Some(address) => format!(
                    "`{host}` resolves to {}, which is loopback or link-local; `--resolve {host}:{port}:{}` permits it",
                    address.ip(),
                    address.ip()
                ),
                None => format!("`{host}` has no address"),
            });
        }
        Ok(usable)
    }
}

/// Addresses that lead to this machine or its link: a name that resolves there must not reach what listens there
/// (cloud metadata services, admin pages).
fn is_local(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            ip.is_loopback()
                || ip.is_link_local()
                || ip.is_unspecified()
                || ip.is_broadcast()
                || ip.is_multicast()
        }
        IpAddr::V6(ip) => {
            ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unspecified() || ip.is_multicast()
        }
    }
}

/// How connections to a backend are made.
#[derive(Debug)]
pub(crate) struct Dialer {
    tls: Option<(ArcSwap<ClientConfig>, ServerName<'static>)>,
    h2c: bool,
    resolver: Arc<Resolver>,
    timeout: Duration,
    pub(super) idle_timeout: Duration,
}

/// A connection that is ready for requests.
pub(super) enum Sender {
    Http1(http1::SendRequest<OutBody>),
    Http2(http2::SendRequest<OutBody>),
}

impl Dialer {
    pub(crate) fn new(
        tls: Option<(ClientConfig, String)>,
        h2c: bool,
        settings: &UpstreamSettings,
    ) -> Result<Self, String> {
        let tls = match tls {
            None => None,
            Some((config, name)) => {
                let server = ServerName::try_from(name.clone())
                    .map_err(|error| format!("the server name `{name}`: {error}"))?;
                Some((ArcSwap::from_pointee(config), server))
            }
        };
        Ok(Self {
            tls,
            h2c,
            resolver: Arc::clone(&settings.resolver),
            timeout: settings.connect_timeout,
            idle_timeout: settings.idle_timeout,
        })
    }

    /// Connections from now on are made with this configuration.
    pub(crate) fn use_tls(&self, config: ClientConfig) {
        if let Some((current, _)) = &self.tls {
            current.store(Arc::new(config));
        }
    }

    pub(super) fn scheme(&self) -> http::uri::Scheme {
        if self.tls.is_some() { http::uri::Scheme::HTTPS } else { http::uri::Scheme::HTTP }
    }

    /// Whether a connection may turn out to be HTTP/2.
    pub(super) fn may_be_http2(&self) -> bool {
        self.tls.is_some() || self.h2c
    }

    /// Where a host name is, within the time that connecting may take.
    pub(super) async fn addresses(&self, address: &Address) -> Result<Vec<SocketAddr>, String> {
        match tokio::time::timeout(self.timeout, self.resolver.addresses(address)).await {
            Ok(result) => result,
            Err(_) => Err(format!("no address within {:?}", self.timeout)),
        }
    }

    pub(super) async fn connect(&self, address: &Address) -> Result<Sender, String> {
        match tokio::time::timeout(self.timeout, self.connect_any(address)).await {
            Ok(result) => result,
            Err(_) => Err(format!("no connection within {:?}", self.timeout)),
        }
    }

    async fn connect_any(&self, address: &Address) -> Result<Sender, String> {
        let mut last = String::new();
        for address in self.resolver.addresses(address).await? {
            match self.connect_to(address).await {
                Ok(sender) => return Ok(sender),
                Err(error) => last = format!("{address}: {error}"),
            }
        }
        Err(last)
    }

    async fn connect_to(&self, address: SocketAddr) -> Result<Sender, String> {
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let Some((config, name)) = &self.tls else {
            return handshake(stream, self.h2c).await;
        };
        let stream = TlsConnector::from(config.load_full())
            .connect(name.clone(), stream)
            .await
            .map_err(|error| error.to_string())?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        handshake(stream, http2).await
    }
}

async fn handshake<T>(io: T, http2: bool) -> Result<Sender, String>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(io);
    if http2 {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10))
            .max_header_list_size(256 * 1024)
            .handshake(io)
            .await
            .map_err(|error| error.to_string())?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an upstream connection ended");
            }
        });
        Ok(Sender::Http2(sender))
    } else {
        let (sender, connection) =
            http1::Builder::new().handshake(io).await.map_err(|error| error.to_string())?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an upstream connection ended");
            }
        });
        Ok(Sender::Http1(sender))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_addresses() {
        for local in [
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "0.0.0.0",
            "::1",
            "::",
            "fe80::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
        ] {
            assert!(is_local(local.parse().unwrap()), "{local}");
        }
        for remote in ["10.0.0.1", "192.168.1.1", "8.8.8.8", "fd00::1", "2001:db8::1"] {
            assert!(!is_local(remote.parse().unwrap()), "{remote}");
        }
    }

    #[tokio::test]
    async fn a_name_on_loopback_is_reached_only_by_resolve() {
        let name = Address::Name("localhost".to_owned(), 1);
        let error = Resolver::default().addresses(&name).await.unwrap_err();
        assert!(error.contains("--resolve localhost:1:"), "{error}");
        let given = Resolver::new(vec!["localhost:1:127.0.0.1:99".parse().unwrap()]);
        assert_eq!(given.addresses(&name).await.unwrap(), ["127.0.0.1:99".parse().unwrap()]);
        let other_port = Address::Name("localhost".to_owned(), 2);
        assert!(given.addresses(&other_port).await.is_err());
        let literal = Address::Name("127.0.0.1".to_owned(), 1);
        assert!(Resolver::default().addresses(&literal).await.is_err());
    }
}
