//! Identities in X.509 certificates (X509-SVID specification).
use std::fmt;

use crate::SpiffeId;

/// Why a certificate gives no identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityError {
    _private: (),
}
impl fmt::Display for IdentityError {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}
impl std::error::Error for IdentityError {}

/// The identity in a leaf certificate (DER): exactly one URI SAN, a valid SPIFFE ID with a path; no CA.
/// Says nothing about whether the chain was verified.
///
/// # Errors
/// No URI SAN, several, an invalid one, a CA certificate, or DER that cannot be read.
pub fn identity_of(leaf_der: &[u8]) -> Result<SpiffeId, IdentityError> {
    let _ = leaf_der;
    todo!()
}
