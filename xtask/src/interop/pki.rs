//! Client certificates of every kind, wrong ones too, from CAs that would not sign so.
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        ResolvesClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    sign::CertifiedKey,
};

/// A CA.
#[derive(Debug)]
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
    /// What is shown behind the certificates that it signs.
    path: Vec<CertificateDer<'static>>,
}

/// What is said of a client.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Leaf<'a> {
    pub(crate) uris: &'a [&'a str],
    pub(crate) dns: &'a [&'a str],
    pub(crate) validity: Validity,
    /// Without the key usage that SPIFFE wants of a leaf.
    pub(crate) bare: bool,
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Validity {
    #[default]
    Now,
    Over,
    NotYet,
}

/// What a client shows, and the key that it has.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

impl Authority {
    pub(crate) fn root(name: &str) -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let params = authority(name);
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem, path: Vec::new() })
    }

    /// Another that this one vouches for.
    pub(crate) fn intermediate(&self, name: &str) -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let params = authority(name);
        let certificate = params.signed_by(&key, &self.issuer)?;
        let path = [vec![certificate.der().clone()], self.path.clone()].concat();
        Ok(Self { issuer: Issuer::new(params, key), pem: certificate.pem(), path })
    }

    pub(crate) fn sign(&self, leaf: Leaf<'_>) -> anyhow::Result<Shown> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "client");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if !leaf.bare {
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        }
        for uri in leaf.uris {
            params.subject_alt_names.push(SanType::URI((*uri).try_into()?));
        }
        for name in leaf.dns {
            params.subject_alt_names.push(SanType::DnsName((*name).try_into()?));
        }
        match leaf.validity {
            Validity::Now => {}
            Validity::Over => params.not_after = date_time_ymd(2020, 1, 1),
            Validity::NotYet => params.not_before = date_time_ymd(2100, 1, 1),
        }
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let chain = [vec![certificate.der().clone()], self.path.clone()].concat();
        Ok(Shown { chain, key: key.serialize_der() })
    }
}

impl Shown {
    /// The same certificates in the hands of somebody who has another key.
    pub(crate) fn stolen_by(&self, thief: &Self) -> Self {
        Self { chain: self.chain.clone(), key: thief.key.clone() }
    }

    /// The first certificate alone.
    pub(crate) fn without_path(&self) -> Self {
        Self { chain: self.chain.iter().take(1).cloned().collect(), key: self.key.clone() }
    }
}

/// TLS for a client that shows this, if anything, whoever the server is and whomever it asks for.
pub(crate) fn client(shown: Option<&Shown>, alpn: &str) -> anyhow::Result<Arc<ClientConfig>> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider)));
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some(shown) => {
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(shown.key.as_slice()));
            let key = ring::sign::any_supported_type(&key)?;
            // Without the check that both belong together.
            let certified = Arc::new(CertifiedKey::new(shown.chain.clone(), key));
            builder.with_client_cert_resolver(Arc::new(Always(certified)))
        }
    };
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesClientCert for Always {
    fn resolve(&self, _issuers: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Who the server is, other suites ask.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
