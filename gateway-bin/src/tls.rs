//! TLS: identities of clients and of the gateway itself, and verified connections to upstreams.
mod identity;
mod listener;
mod trust;
mod upstream;

use std::sync::{Arc, OnceLock};

use rustls::{
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

pub use self::{
    identity::{IdentityFiles, Material},
    listener::{ClientVerifier, not_after, server_config},
    trust::{TrustDomains, Untrusted},
    upstream::{ExtraRoots, GatewayVerifier, UpstreamVerifier, sidecar_config, upstream_config},
};

/// The one crypto provider of the process: nothing relies on a global default.
pub fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(ring::default_provider()))
}

/// Reads a chain and its key, and checks that they belong together.
///
/// # Errors
/// PEM that cannot be read, no certificate, no key, a key of an unknown kind, or one of another certificate.
pub fn certified_key(certificate_pem: &[u8], key_pem: &[u8]) -> Result<CertifiedKey, String> {
    let chain = certificates(certificate_pem)?;
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|error| format!("the private key: {error}"))?;
    // `from_der` also compares the key with the certificate.
    CertifiedKey::from_der(chain, key, provider())
        .map_err(|error| format!("the certificate and its key: {error}"))
}

/// Reads every certificate of a PEM text.
///
/// # Errors
/// PEM that cannot be read, or no certificate in it.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("the certificates: {error}"))?;
    if chain.is_empty() {
        return Err("there is no certificate; give it as PEM".to_owned());
    }
    Ok(chain)
}
