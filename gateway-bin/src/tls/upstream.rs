//! TLS to upstreams: always verified.
use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use anyhow::{Context as _, anyhow};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use spiffe_id::SpiffeId;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};
use xds_translate::UpstreamTls;

use super::{Material, TrustDomains, certificates, provider};

/// Roots of `--extra-ca`, and the system's, which are read when first needed.
#[derive(Debug, Default)]
pub struct ExtraRoots {
    extra: Vec<CertificateDer<'static>>,
    all: OnceLock<Arc<RootCertStore>>,
}

impl ExtraRoots {
    /// Reads the files.
    ///
    /// # Errors
    /// A file that cannot be read or holds no certificate.
    pub fn read(files: &[PathBuf]) -> anyhow::Result<Self> {
        let mut extra = Vec::new();
        for path in files {
            let pem = std::fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
            extra.extend(certificates(&pem).map_err(|error| anyhow!("`{}`: {error}", path.display()))?);
        }
        Ok(Self { extra, all: OnceLock::new() })
    }

    fn all(&self) -> &Arc<RootCertStore> {
        self.all.get_or_init(|| {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(self.extra.iter().cloned());
            let system = rustls_native_certs::load_native_certs();
            for error in &system.errors {
                tracing::warn!(%error, "a system root could not be read");
            }
            roots.add_parsable_certificates(system.certs);
            Arc::new(roots)
        })
    }
}

/// Verifies the certificate of a backend: the chain, and the server name or any of the given SANs.
#[derive(Debug)]
pub struct UpstreamVerifier {
    roots: Arc<RootCertStore>,
    dns: Vec<ServerName<'static>>,
    uris: Vec<String>,
}

impl ServerCertVerifier for UpstreamVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let leaf = ParsedCertificate::try_from(end_entity)?;
        let algorithms = provider().signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&leaf, &self.roots, intermediates, now, algorithms)?;
        if self.dns.is_empty() && self.uris.is_empty() {
            verify_server_name(&leaf, server_name)?;
        } else if !self.dns.iter().any(|name| verify_server_name(&leaf, name).is_ok())
            && !has_uri(end_entity, &self.uris)
        {
            return Err(Error::InvalidCertificate(CertificateError::NotValidForName));
        }
        Ok(ServerCertVerified::assertion())
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

fn has_uri(leaf: &[u8], wanted: &[String]) -> bool {
    let Ok((_, leaf)) = X509Certificate::from_der(leaf) else { return false };
    let Ok(Some(names)) = leaf.subject_alternative_name() else { return false };
    names
        .value
        .general_names
        .iter()
        .any(|name| matches!(name, GeneralName::URI(uri) if wanted.iter().any(|wanted| wanted == uri)))
}

/// The configuration of connections to a backend.
///
/// # Errors
/// CA certificates or names that cannot be used.
pub fn upstream_config(tls: &UpstreamTls, system: &ExtraRoots) -> Result<ClientConfig, String> {
    let roots = if tls.ca_pem.is_empty() {
        Arc::clone(system.all())
    } else {
        let mut roots = RootCertStore::empty();
        for pem in &tls.ca_pem {
            for root in certificates(pem)? {
                roots.add(root).map_err(|error| format!("a CA certificate: {error}"))?;
            }
        }
        Arc::new(roots)
    };
    let dns = tls
        .san_names
        .iter()
        .map(|name| ServerName::try_from(name.clone()).map_err(|error| format!("the name `{name}`: {error}")))
        .collect::<Result<_, _>>()?;
    let verifier = UpstreamVerifier { roots, dns, uris: tls.san_uris.clone() };
    let mut config = with_verifier(Arc::new(verifier))?.with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn with_verifier(
    verifier: Arc<dyn ServerCertVerifier>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, String> {
    Ok(ClientConfig::builder_with_provider(Arc::clone(provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier))
}

/// Verifies a gateway by its SPIFFE ID, against the roots of that ID's trust domain.
#[derive(Debug)]
pub struct GatewayVerifier {
    /// Who it must be.
    pub id: SpiffeId,
    /// The roots.
    pub trust: Arc<TrustDomains>,
}

impl ServerCertVerifier for GatewayVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let mut chain = Vec::with_capacity(intermediates.len() + 1);
        chain.push(end_entity.clone());
        chain.extend(intermediates.iter().cloned());
        let id = self.trust.server_identity(&chain, now).map_err(|error| {
            Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
        })?;
        if id != self.id {
            return Err(Error::InvalidCertificate(CertificateError::NotValidForName));
        }
        Ok(ServerCertVerified::assertion())
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

/// The configuration of a sidecar's connections: its own certificate, and the gateway verified by its SPIFFE ID, or
/// (`None`) by its DNS name.
///
/// # Errors
/// There is no own certificate.
pub fn sidecar_config(
    material: &Material,
    gateway: Option<&SpiffeId>,
    system: &ExtraRoots,
) -> Result<ClientConfig, String> {
    let own =
        material.credential.as_ref().ok_or("there is no credential-bundle.pem in the identity folder")?;
    let verifier: Arc<dyn ServerCertVerifier> = match gateway {
        Some(id) => Arc::new(GatewayVerifier { id: id.clone(), trust: Arc::clone(&material.trust) }),
        None => {
            Arc::new(UpstreamVerifier { roots: Arc::clone(system.all()), dns: Vec::new(), uris: Vec::new() })
        }
    };
    let mut config = with_verifier(verifier)?
        .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(Arc::clone(own))));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A resumed session would keep the identity of an older certificate.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}
