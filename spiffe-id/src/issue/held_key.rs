use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm,
};
use x509_parser::{
    certification_request::X509CertificationRequest, oid_registry::OID_SIG_ED25519, prelude::FromDer,
    public_key::PublicKey, x509::SubjectPublicKeyInfo as ParsedKey,
};

use super::{IssueError, error::Kind, public_key};

/// A public key of a kind that a pool certifies, whose private half somebody was seen to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldKey {
    spki_der: Vec<u8>,
}

impl HeldKey {
    /// The key of a PKCS#10 request (DER) whose signature verifies with it (RFC 2986, section 4.2). Nothing else of
    /// the request is read.
    ///
    /// # Errors
    /// A request that cannot be read or does not verify, or a key that gets no certificate
    /// ([`IssueError::is_unsupported_key`]).
    pub fn of_csr(csr_der: &[u8]) -> Result<Self, IssueError> {
        let Ok(([], csr)) = X509CertificationRequest::from_der(csr_der) else {
            return Err(Kind::CsrUnreadable.into());
        };
        let spki_der = csr.certification_request_info.subject_pki.raw;
        public_key(spki_der)?;
        csr.verify_signature().map_err(|_error| Kind::CsrSignature)?;
        Ok(Self { spki_der: spki_der.to_vec() })
    }

    /// The key (SubjectPublicKeyInfo, DER) that verifies a signature of `message`: ECDSA with SHA-256 (ASN.1) on
    /// P-256 or P-384, or Ed25519. That is how Kubernetes proves possession beside `pkixPublicKey` (KEP-4317); the
    /// RSASSA-PSS signatures of that form, with salts of any length, are not verified here: RSA keys come as
    /// PKCS#10 requests.
    ///
    /// # Errors
    /// A key that cannot be read, one of another kind ([`IssueError::is_unsupported_key`]), or a signature that it
    /// does not verify.
    pub fn of_signature(spki_der: &[u8], message: &[u8], signature: &[u8]) -> Result<Self, IssueError> {
        public_key(spki_der)?;
        let Ok(([], parsed)) = ParsedKey::from_der(spki_der) else {
            return Err(Kind::KeyUnreadable.into());
        };
        let algorithm: &dyn VerificationAlgorithm = match parsed.parsed() {
            Ok(PublicKey::EC(point)) if point.key_size() == 256 => &ECDSA_P256_SHA256_ASN1,
            Ok(PublicKey::EC(_)) => &ECDSA_P384_SHA256_ASN1,
            _ if parsed.algorithm.algorithm == OID_SIG_ED25519 => &ED25519,
            _ => return Err(Kind::RsaSignature.into()),
        };
        UnparsedPublicKey::new(algorithm, &parsed.subject_public_key.data)
            .verify(message, signature)
            .map_err(|_error| Kind::Possession)?;
        Ok(Self { spki_der: spki_der.to_vec() })
    }

    /// The key (SubjectPublicKeyInfo, DER).
    pub fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }
}
