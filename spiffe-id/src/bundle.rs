//! Trust bundles: the roots of one trust domain.
use std::fmt;

use rustls_pki_types::CertificateDer;

use crate::TrustDomain;

/// Why a bundle could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleError {
    _private: (),
}
impl fmt::Display for BundleError {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}
impl std::error::Error for BundleError {}

/// The X.509 roots of one trust domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustBundle {
    trust_domain: TrustDomain,
    roots: Vec<CertificateDer<'static>>,
}

impl TrustBundle {
    /// Reads `CERTIFICATE` blocks.
    ///
    /// # Errors
    /// No certificate, a block of another kind, or one that is no CA certificate.
    pub fn from_pem(trust_domain: TrustDomain, pem: &[u8]) -> Result<Self, BundleError> {
        let _ = (trust_domain, pem);
        todo!()
    }
    /// Whose roots these are.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }
    /// The roots.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }
}
