//! From a stream's initial metadata to the connection that a request came on: who the client is, and where it was received.
use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::StatusCode;
use policy_model::NamespacedName;
use rustls::pki_types::UnixTime;
use spiffe_id::SpiffeId;
use tonic::metadata::MetadataMap;
use xds_translate::{
    ClientCertificates, Protocol,
    envoy::processor::{
        ABSENT, BACKEND, CLIENTS, DESTINATION, GATEWAY, LISTENER, PEER_CERTIFICATE, PEER_NOT_AFTER, PORT,
        SOURCE,
    },
};

use super::chain::chain;
use crate::{
    connection::Connection,
    listen::address_value,
    runtime::Runtime,
    tls::{TrustDomains, not_after},
};

/// For clients whose certificate is none, or over.
pub(super) const NO_IDENTITY: &str = "the client's certificate gives no identity";

/// Why a request is refused before it is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    /// For the client.
    pub(super) text: &'static str,
    /// For the log.
    pub(super) detail: String,
}

fn misconfigured(detail: impl Into<String>) -> Refused {
    Refused {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        text: "the proxy says too little, or too much, of this connection",
        detail: detail.into(),
    }
}

/// What is said of the client's certificate.
#[derive(Debug)]
enum Peer {
    /// Nothing.
    Absent,
    /// It gives no identity; why.
    Unusable(String),
    /// Its time is over.
    Over,
    Known(SpiffeId),
}

/// One value; `None`: absent.
fn value<'a>(metadata: &'a MetadataMap, key: &'static str) -> Result<Option<&'a str>, Refused> {
    let mut values = metadata.get_all(key).iter();
    let (first, second) = (values.next(), values.next());
    if second.is_some() {
        return Err(misconfigured(format!("`{key}` is repeated")));
    }
    let Some(first) = first else { return Ok(None) };
    let text = first.to_str().map_err(|_error| misconfigured(format!("`{key}` is no text")))?;
    Ok(Some(text).filter(|text| !text.is_empty() && *text != ABSENT))
}

fn parsed<T: std::str::FromStr>(metadata: &MetadataMap, key: &'static str) -> Result<Option<T>, Refused> {
    let Some(text) = value(metadata, key)? else { return Ok(None) };
    text.parse().map(Some).map_err(|_error| misconfigured(format!("`{key}` cannot be read: `{text}`")))
}

/// The connection that a request came on, and how long the certificate that let its client in, or says who it is, is still
/// valid (`None`: there is none such). `shown`: the certificates that its client has shown, as Envoy forwards them
/// ([`xds_translate::envoy::processor::PEER_CHAIN`]).
///
/// # Errors
/// Metadata that is missing, repeated or unreadable; an identity that the listener requires and that is not there.
pub(super) fn connection(
    metadata: &MetadataMap,
    shown: Option<&[u8]>,
    runtime: &Runtime,
    now: SystemTime,
) -> Result<(Connection, Option<Duration>), Refused> {
    let required = |key: &'static str| move || misconfigured(format!("`{key}` is missing"));
    let port: u16 = parsed(metadata, PORT)?.ok_or_else(required(PORT))?;
    let source: SocketAddr = parsed(metadata, SOURCE)?.ok_or_else(required(SOURCE))?;
    let destination = parsed(metadata, DESTINATION)?;
    let backend = value(metadata, BACKEND)?.map(str::to_owned);
    let gateway = match value(metadata, GATEWAY)? {
        None => None,
        Some(text) => match text.split_once('/') {
            Some((namespace, name)) => Some(NamespacedName::new(namespace, name)),
            None => return Err(misconfigured(format!("`{GATEWAY}` is not NAMESPACE/NAME: `{text}`"))),
        },
    };
    let listener = value(metadata, LISTENER)?;
    let peer = [PEER_CERTIFICATE, PEER_NOT_AFTER, CLIENTS];
    let Client { admitted, identity, ends } = match listener {
        Some(name) => tls(metadata, shown, runtime, (port, name), now)?,
        None => {
            for key in peer {
                if value(metadata, key)?.is_some() {
                    return Err(misconfigured(format!("`{key}` of a connection without `{LISTENER}`")));
                }
            }
            // A connection without TLS has no business where TLS is.
            let is_https = runtime.on_port(port).is_some_and(|gateway| {
                let listeners = &gateway.snapshot.listeners;
                listeners.iter().any(|listener| listener.port == port && listener.protocol == Protocol::Https)
            });
            if is_https {
                return Err(misconfigured(format!(
                    "port {port} has HTTPS listeners, and `{LISTENER}` is missing"
                )));
            }
            Client::default()
        }
    };
    let lasts = ends.map(|ends| end(ends).saturating_sub(now.duration_since(UNIX_EPOCH).unwrap_or_default()));
    let connection = Connection {
        gateway,
        port,
        peer: source,
        local: destination,
        tls: listener.is_some(),
        admitted,
        identity: identity.map(Arc::new),
        forwarded_for: address_value(source),
        backend,
        used: AtomicBool::new(false),
        closing: AtomicBool::new(false),
    };
    Ok((connection, lasts))
}

/// Who is at the other end of a connection.
#[derive(Debug, Default)]
struct Client {
    /// For TLS: by which listener, and on which terms, it was let in.
    admitted: Option<(Arc<str>, Arc<ClientCertificates>)>,
    identity: Option<SpiffeId>,
    /// notAfter of the certificate that counts, in seconds since the epoch.
    ends: Option<i64>,
}

/// On which terms a TLS connection was let in, and who is at its end.
fn tls(
    metadata: &MetadataMap,
    shown: Option<&[u8]>,
    runtime: &Runtime,
    (port, name): (u16, &str),
    now: SystemTime,
) -> Result<Client, Refused> {
    let (peer, ends) = peer(metadata, shown, &runtime.material.trust, now)?;
    let digest = value(metadata, CLIENTS)?;
    let terms = runtime
        .on_port(port)
        .and_then(|gateway| gateway.listener(port, name))
        .and_then(|listener| listener.tls.as_ref())
        .filter(|tls| digest == Some(tls.digest.as_str()));
    let Some(terms) = terms else {
        // Other terms than anybody's: the connection is told to connect anew.
        let admitted = Some((Arc::from(name), Arc::new(ClientCertificates::SpiffeRequired)));
        return Ok(Client { admitted, identity: None, ends });
    };
    let clients = &terms.clients;
    let refused = |detail: String| Refused { status: StatusCode::FORBIDDEN, text: NO_IDENTITY, detail };
    let identity = match (peer, &**clients) {
        (Peer::Known(id), _) => Some(id),
        (Peer::Absent, ClientCertificates::SpiffeRequired) => {
            return Err(refused("the listener requires an identity, and there is none".to_owned()));
        }
        (Peer::Unusable(why), ClientCertificates::SpiffeRequired | ClientCertificates::SpiffeOptional) => {
            return Err(refused(why));
        }
        // It let the connection in, and does not any more.
        (Peer::Over, clients) if !is_fallback(clients) => {
            return Err(refused("the client's certificate has expired".to_owned()));
        }
        (Peer::Absent | Peer::Unusable(_) | Peer::Over, _) => None,
    };
    let counts = identity.is_some() || !is_fallback(clients);
    let admitted = Some((Arc::from(name), Arc::clone(clients)));
    Ok(Client { admitted, identity, ends: ends.filter(|_| counts) })
}

/// What the client's certificate says, and its notAfter.
fn peer(
    metadata: &MetadataMap,
    shown: Option<&[u8]>,
    trust: &TrustDomains,
    now: SystemTime,
) -> Result<(Peer, Option<i64>), Refused> {
    let ends: Option<i64> = parsed(metadata, PEER_NOT_AFTER)?;
    Ok(match value(metadata, PEER_CERTIFICATE)? {
        None => (Peer::Absent, ends),
        Some(escaped) => verified((escaped, shown), ends, trust, now),
    })
}

/// The certificate's own notAfter counts, and the one that is said of it, whichever comes first.
fn verified(
    (escaped, shown): (&str, Option<&[u8]>),
    said: Option<i64>,
    trust: &TrustDomains,
    now: SystemTime,
) -> (Peer, Option<i64>) {
    let chain = match chain(escaped, shown) {
        Ok(chain) => chain,
        Err(error) => return (Peer::Unusable(error), said),
    };
    let ends = said.into_iter().chain(chain.first().and_then(|leaf| not_after(leaf))).min();
    if ends.is_some_and(|ends| is_over(ends, now)) {
        return (Peer::Over, ends);
    }
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let peer = match trust.known_identity(&chain, UnixTime::since_unix_epoch(since)) {
        Ok(id) => Peer::Known(id),
        Err(error) => Peer::Unusable(error.to_string()),
    };
    (peer, ends)
}

/// Whether a certificate that nobody vouches for is as good as none.
fn is_fallback(clients: &ClientCertificates) -> bool {
    matches!(clients, ClientCertificates::Frontend { insecure_fallback: true, .. })
}

fn is_over(ends: i64, now: SystemTime) -> bool {
    now.duration_since(UNIX_EPOCH).unwrap_or_default() >= end(ends)
}

/// A certificate that is valid to the end of a second is so for all of it.
fn end(ends: i64) -> Duration {
    Duration::from_secs(u64::try_from(ends).unwrap_or_default().saturating_add(1))
}
