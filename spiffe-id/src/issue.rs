//! Issuing X509-SVIDs from a CA pool (feature `issue`).
use std::{fmt, time::SystemTime};

use rustls_pki_types::CertificateDer;

use crate::{SpiffeId, TrustDomain};

/// Why nothing was issued.
#[derive(Debug)]
pub struct IssueError {
    _private: (),
}
impl fmt::Display for IssueError {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}
impl std::error::Error for IssueError {}

/// The kind of a new CA key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// Ed25519
    Ed25519,
    /// ECDSA on P-256 with SHA-256
    EcdsaP256,
}

/// One root with its key.
pub struct Ca {
    _private: (),
}
impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ca").finish_non_exhaustive()
    }
}

/// A pool of CAs: the first signs, all roots are trusted. JSON:
/// `{"cas":[{"id","signingKeyPKCS8","rootCertificateDER","intermediateCertificatesDER":[]}]}`, DER in base64.
#[derive(Debug)]
pub struct CaPool {
    _private: (),
}

/// What to issue.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SvidRequest<'a> {
    /// The URI SAN.
    pub id: &'a SpiffeId,
    /// DNS names to add (a gateway's own certificate).
    pub dns_names: &'a [String],
    /// First moment of validity.
    pub not_before: SystemTime,
    /// Last moment of validity.
    pub not_after: SystemTime,
}
impl<'a> SvidRequest<'a> {
    /// A request without DNS names.
    pub fn new(id: &'a SpiffeId, not_before: SystemTime, not_after: SystemTime) -> Self {
        Self { id, dns_names: &[], not_before, not_after }
    }
}

/// A certificate chain, leaf first, roots left out; with the key where this crate made it.
#[derive(Clone)]
pub struct IssuedSvid {
    /// Leaf, then intermediates (DER).
    pub chain: Vec<CertificateDer<'static>>,
    /// PKCS#8 PEM of the key, if it was made here.
    pub key_pem: Option<String>,
}
impl fmt::Debug for IssuedSvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedSvid").field("chain", &self.chain.len()).finish_non_exhaustive()
    }
}
impl IssuedSvid {
    /// The chain as PEM.
    pub fn chain_pem(&self) -> String {
        todo!()
    }
    /// Key and chain in one PEM file, as a kubelet writes `credential-bundle.pem` (key first).
    ///
    /// # Errors
    /// The key was not made here.
    pub fn credential_bundle_pem(&self) -> Result<String, IssueError> {
        todo!()
    }
}

impl CaPool {
    /// A pool with one new self-signed root, valid from `not_before` to `not_after`.
    ///
    /// # Errors
    /// Key generation or signing failed.
    pub fn generate(id: &str, trust_domain: &TrustDomain, kind: KeyKind, not_before: SystemTime, not_after: SystemTime) -> Result<Self, IssueError> {
        let _ = (id, trust_domain, kind, not_before, not_after);
        todo!()
    }
    /// Reads the JSON form.
    ///
    /// # Errors
    /// JSON, base64 or DER that cannot be read, a key that does not fit its certificate, an empty pool.
    pub fn from_json(json: &[u8]) -> Result<Self, IssueError> {
        let _ = json;
        todo!()
    }
    /// Writes the JSON form.
    pub fn to_json(&self) -> String {
        todo!()
    }
    /// All roots as PEM: the trust bundle to publish.
    pub fn roots_pem(&self) -> String {
        todo!()
    }
    /// Makes an ECDSA P-256 key and signs an SVID for it with the first CA.
    ///
    /// # Errors
    /// Signing failed.
    pub fn issue(&self, request: &SvidRequest<'_>) -> Result<IssuedSvid, IssueError> {
        let _ = request;
        todo!()
    }
    /// Signs an SVID for the key of a PKCS#10 request (DER), whose own signature is verified; nothing
    /// else of it is taken over.
    ///
    /// # Errors
    /// A request that cannot be read or does not verify; signing failed.
    pub fn issue_for_csr(&self, csr_der: &[u8], request: &SvidRequest<'_>) -> Result<IssuedSvid, IssueError> {
        let _ = (csr_der, request);
        todo!()
    }
    /// Signs an SVID for a public key (SubjectPublicKeyInfo, DER).
    ///
    /// # Errors
    /// A key that cannot be read; signing failed.
    pub fn issue_for_public_key(&self, spki_der: &[u8], request: &SvidRequest<'_>) -> Result<IssuedSvid, IssueError> {
        let _ = (spki_der, request);
        todo!()
    }
}
