//! TLS of listeners: which certificate is served, and what is asked of clients (semantics, section 2).
use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    ServerConfig, SignatureScheme,
    client::{danger::HandshakeSignatureValid, verify_server_name},
    crypto::{verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use x509_parser::prelude::FromDer;
use xds_translate::{ClientCertificates, ListenerTls};

use super::{Material, TrustDomains, certificates, certified_key, provider};

/// Verifies the certificates that clients present.
#[derive(Debug)]
pub struct ClientVerifier {
    mode: Mode,
    trust: Arc<TrustDomains>,
}

#[derive(Debug)]
enum Mode {
    /// An identity from the trust bundles is required.
    Required,
    /// A certificate may be left out; one that is presented must give an identity.
    Optional,
    /// These roots admit a connection. What identity it has, if any, is another question.
    Frontend { admits: Arc<dyn ClientCertVerifier>, insecure_fallback: bool },
}

impl ClientVerifier {
    /// What a listener asks of its clients.
    ///
    /// # Errors
    /// Frontend roots that cannot be used.
    pub fn new(clients: &ClientCertificates, trust: Arc<TrustDomains>) -> Result<Self, String> {
        let mode = match clients {
            ClientCertificates::SpiffeRequired => Mode::Required,
            ClientCertificates::SpiffeOptional => Mode::Optional,
            ClientCertificates::Frontend { ca_pem, insecure_fallback } => {
                let mut roots = RootCertStore::empty();
                for pem in ca_pem {
                    for root in certificates(pem)? {
                        roots.add(root).map_err(|error| format!("a frontend CA certificate: {error}"))?;
                    }
                }
                let admits =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider()))
                        .build()
                        .map_err(|error| format!("the frontend CA certificates: {error}"))?;
                Mode::Frontend { admits, insecure_fallback: *insecure_fallback }
            }
        };
        Ok(Self { mode, trust })
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        match &self.mode {
            Mode::Required => true,
            Mode::Optional => false,
            Mode::Frontend { insecure_fallback, .. } => !insecure_fallback,
        }
    }

    /// No hints: a client with one SVID should present it, whoever signed it.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match &self.mode {
            Mode::Required | Mode::Optional => {
                let mut chain = Vec::with_capacity(intermediates.len() + 1);
                chain.push(end_entity.clone());
                chain.extend(intermediates.iter().cloned());
                match self.trust.client_identity(&chain, now) {
                    Ok(_) => Ok(ClientCertVerified::assertion()),
                    Err(error) => {
                        Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error)))))
                    }
                }
            }
            Mode::Frontend { admits, insecure_fallback } => {
                match admits.verify_client_cert(end_entity, intermediates, now) {
                    Err(_) if *insecure_fallback => Ok(ClientCertVerified::assertion()),
                    verified => verified,
                }
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// The configuration of a listener's handshakes.
///
/// Sessions are never resumed: a resumed one would carry an identity that was verified under older bundles.
///
/// # Errors
/// A certificate, key or CA that cannot be used, or a listener that needs the gateway's own certificate where there is none.
pub fn server_config(tls: &ListenerTls, material: &Material) -> Result<ServerConfig, String> {
    let certificates = if tls.certificates.is_empty() {
        let own = material.credential.as_ref().ok_or(
            "it has no certificateRefs and so serves with the gateway's own SPIFFE certificate, but there is none; \
             give `--identity-dir` a folder with credential-bundle.pem",
        )?;
        vec![Arc::clone(own)]
    } else {
        tls.certificates
            .iter()
            .map(|pair| certified_key(&pair.certificate_pem, &pair.key_pem).map(Arc::new))
            .collect::<Result<_, _>>()?
    };
    let verifier = ClientVerifier::new(&tls.clients, Arc::clone(&material.trust))?;
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(ByName { certificates }));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The first certificate for the name that the client asks for, else the first.
#[derive(Debug)]
struct ByName {
    certificates: Vec<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = || {
            let name = ServerName::try_from(hello.server_name()?).ok()?;
            self.certificates.iter().find(|key| {
                key.end_entity_cert()
                    .and_then(ParsedCertificate::try_from)
                    .is_ok_and(|leaf| verify_server_name(&leaf, &name).is_ok())
            })
        };
        match self.certificates.as_slice() {
            [only] => Some(Arc::clone(only)),
            all => named().or_else(|| all.first()).map(Arc::clone),
        }
    }
}

/// The end of a certificate's validity, in seconds since the Unix epoch.
pub fn not_after(certificate: &[u8]) -> Option<i64> {
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(certificate).ok()?;
    Some(certificate.validity().not_after.timestamp())
}
