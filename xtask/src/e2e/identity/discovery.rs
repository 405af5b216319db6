//! A subscription as a proxy makes it, with an identity of one's own choice.
use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use http::Request;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{body::Frame, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring::default_provider,
    pki_types::{
        CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime, pem::PemObject as _,
    },
    server::WebPkiClientVerifier,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const NAME: &str = "agentic-controller.agentic-net-system.svc";
const METHOD: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/// What our own gateway takes, and the engine beside Envoy.
pub(super) const OBJECT: &str = "type.googleapis.com/agentic.gateway.v1.Object";
/// What Envoy takes.
pub(super) const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
pub(super) const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
/// How long nothing more comes before it counts as the end.
const QUIET: Duration = Duration::from_secs(1);

/// A chain and its key (PKCS#8).
#[derive(Debug)]
pub(super) struct Credential {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: Vec<u8>,
}

/// What came back.
#[derive(Debug)]
pub(super) enum Answer {
    /// A gRPC status that is no success.
    Refused,
    /// The server closed the connection after the handshake, without a word.
    Closed,
    /// The bytes of all responses.
    Resources(Bytes),
}

fn roots(pem: &str) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(root?)?;
    }
    Ok(roots)
}

/// Verifies a client's chain.
pub(super) fn verify(roots_pem: &str, chain: &[CertificateDer<'_>]) -> anyhow::Result<()> {
    let (leaf, intermediates) = chain.split_first().context("no certificate")?;
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots(roots_pem)?), Arc::new(default_provider()))
        .build()?
        .verify_client_cert(leaf, intermediates, UnixTime::now())
        .context("the chain does not lead to the published roots")?;
    Ok(())
}

/// Subscribes to resources of a type over delta ADS; `*` is the name of all.
///
/// # Errors
/// A connection that came to nothing.
pub(super) async fn ask(
    address: SocketAddr,
    roots_pem: &str,
    credential: Option<&Credential>,
    r#type: &str,
    names: &[&str],
) -> anyhow::Result<Answer> {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(roots_pem)?);
    let mut config = match credential {
        None => builder.with_no_client_auth(),
        Some(Credential { chain, key }) => {
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.clone()));
            builder.with_client_auth_cert(chain.clone(), key)?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(address).await.context("cannot connect")?;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(ServerName::try_from(NAME)?, stream)
        .await
        .context("TLS")?;
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);

    // The client's half stays open, as a proxy's does.
    let said = stream::iter([Ok::<_, std::convert::Infallible>(Frame::data(subscription(r#type, names)?))]);
    let body = StreamBody::new(said.chain(stream::pending()));
    let request = Request::post(format!("https://{NAME}{METHOD}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)?;
    // However the end of the connection is noticed: the server counts whom it refused.
    let Ok(response) = sender.send_request(request).await else { return Ok(Answer::Closed) };
    if response.headers().contains_key("grpc-status") {
        return Ok(Answer::Refused);
    }
    let mut body = response.into_body();
    let mut bytes = BytesMut::new();
    // The first is waited for longer: the step has a limit.
    while let Some(frame) = if bytes.is_empty() {
        body.frame().await
    } else {
        tokio::time::timeout(QUIET, body.frame()).await.unwrap_or_default()
    } {
        match frame.context("the stream broke")?.into_data() {
            Ok(data) => bytes.extend_from_slice(&data),
            Err(_trailers) => return Ok(Answer::Refused),
        }
    }
    connection.abort();
    Ok(Answer::Resources(bytes.freeze()))
}

/// `DeltaDiscoveryRequest { type_url, resource_names_subscribe }` as a gRPC message: fields 2 and 3.
fn subscription(r#type: &str, names: &[&str]) -> anyhow::Result<Bytes> {
    let mut message = BytesMut::new();
    for (field, text) in [(2_u8, r#type)].into_iter().chain(names.iter().map(|name| (3, *name))) {
        message.put_u8((field << 3) | 2);
        // One byte of length.
        ensure!(text.len() < 128, "`{text}` is too long");
        message.put_u8(u8::try_from(text.len())?);
        message.put_slice(text.as_bytes());
    }
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len())?);
    framed.put_slice(&message);
    Ok(framed.freeze())
}
