//! Identities in X.509 certificates (X509-SVID specification).
use std::fmt;

use x509_parser::{
    asn1_rs::Any,
    certificate::{X509Certificate, X509CertificateParser},
    extensions::{BasicConstraints, GeneralName, KeyUsage, SubjectAlternativeName, X509Extension},
    nom::Parser,
    oid_registry::{
        OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_KEY_USAGE, OID_X509_EXT_SUBJECT_ALT_NAME, Oid,
    },
    prelude::{FromDer, X509Error, X509Version},
};

use crate::{IdError, SpiffeId, TrustDomain};

/// Why a certificate gives no identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityError {
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Malformed(Malformed),
    Ca,
    SigningKey,
    NoUri,
    SeveralUris(usize),
    Id(IdError),
}

impl IdentityError {
    /// The certificate has no URI SAN at all: it is an ordinary certificate, and no SVID.
    pub fn is_without_uri(&self) -> bool {
        self.kind == Kind::NoUri
    }

    /// What is wrong with the one URI SAN, if that is the reason.
    pub fn id_error(&self) -> Option<&IdError> {
        match &self.kind {
            Kind::Id(error) => Some(error),
            _ => None,
        }
    }
}

impl From<Malformed> for IdentityError {
    fn from(error: Malformed) -> Self {
        Self { kind: Kind::Malformed(error) }
    }
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Malformed(error) => error.fmt(f),
            Kind::Ca => f.write_str("a CA certificate is no identity; present the workload's own certificate"),
            Kind::SigningKey => f.write_str(
                "the key usage keyCertSign or cRLSign does not belong in a workload's certificate; issue it with \
                 digitalSignature",
            ),
            Kind::NoUri => {
                f.write_str("the certificate has no URI SAN; issue it with the workload's SPIFFE ID as URI SAN")
            }
            Kind::SeveralUris(count) => {
                write!(f, "the certificate has {count} URI SANs; an identity is exactly one")
            }
            Kind::Id(error) => write!(f, "the certificate's URI SAN {error}"),
        }
    }
}
impl std::error::Error for IdentityError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.id_error().map(|error| error as _)
    }
}

/// The identity in a leaf certificate (DER): exactly one URI SAN, a valid SPIFFE ID with a path; no CA
/// (X509-SVID specification, sections 2, 4 and 5.2). Other kinds of SAN may stand beside it.
/// Says nothing about whether the chain was verified.
///
/// # Errors
/// No URI SAN, several, an invalid one, a CA certificate, key usage keyCertSign or cRLSign, an extension that
/// is there twice, or DER that cannot be read.
pub fn identity_of(leaf_der: &[u8]) -> Result<SpiffeId, IdentityError> {
    let leaf = Certificate::parse(leaf_der)?;
    if leaf.is_ca {
        return Err(IdentityError { kind: Kind::Ca });
    }
    if leaf.key_usage.as_ref().is_some_and(|usage| usage.key_cert_sign() || usage.crl_sign()) {
        return Err(IdentityError { kind: Kind::SigningKey });
    }
    let mut uris = leaf.uris();
    match (uris.next(), uris.count()) {
        (None, _) => Err(IdentityError { kind: Kind::NoUri }),
        (Some(uri), 0) => uri.parse().map_err(|error| IdentityError { kind: Kind::Id(error) }),
        (Some(_), others) => Err(IdentityError { kind: Kind::SeveralUris(others + 1) }),
    }
}

/// Why a certificate cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Malformed {
    Der,
    Version,
    Twice(String),
    Extension(&'static str),
}
impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Der => f.write_str("the certificate is no single X.509 certificate in DER"),
            Self::Version => f.write_str("the certificate is not of X.509 version 3"),
            Self::Twice(oid) => write!(f, "the certificate has the extension `{oid}` more than once"),
            Self::Extension(name) => write!(f, "the certificate's extension `{name}` cannot be read"),
        }
    }
}

/// A certificate whose parts that matter here were read to their last byte.
pub(crate) struct Certificate<'a> {
    #[cfg(feature = "issue")]
    pub(crate) x509: X509Certificate<'a>,
    names: Vec<GeneralName<'a>>,
    pub(crate) is_ca: bool,
    #[cfg(feature = "issue")]
    pub(crate) path_len: Option<u32>,
    key_usage: Option<KeyUsage>,
}

impl<'a> Certificate<'a> {
    /// Reads one certificate. Trailing bytes, after the certificate or within an extension that is read, and
    /// extensions that are there twice are errors: another parser might see another certificate in them.
    pub(crate) fn parse(der: &'a [u8]) -> Result<Self, Malformed> {
        let mut parser = X509CertificateParser::new().with_deep_parse_extensions(false);
        let Ok(([], x509)) = parser.parse(der) else {
            return Err(Malformed::Der);
        };
        if x509.version != X509Version::V3 {
            return Err(Malformed::Version);
        }
        for (at, extension) in x509.extensions().iter().enumerate() {
            if x509.extensions().iter().skip(at + 1).any(|other| other.oid == extension.oid) {
                return Err(Malformed::Twice(extension.oid.to_id_string()));
            }
        }
        let names: Option<SubjectAlternativeName<'a>> =
            extension(&x509, &OID_X509_EXT_SUBJECT_ALT_NAME, "subjectAltName")?;
        let names = names.map(|names| names.general_names).unwrap_or_default();
        let is_unclear = |name: &GeneralName<'_>| matches!(name, GeneralName::Invalid(..));
        if names.iter().any(is_unclear) || !names_are_exact(&x509) {
            return Err(Malformed::Extension("subjectAltName"));
        }
        let constraints: Option<BasicConstraints> =
            extension(&x509, &OID_X509_EXT_BASIC_CONSTRAINTS, "basicConstraints")?;
        let key_usage = extension(&x509, &OID_X509_EXT_KEY_USAGE, "keyUsage")?;
        Ok(Self {
            names,
            is_ca: constraints.as_ref().is_some_and(|constraints| constraints.ca),
            #[cfg(feature = "issue")]
            path_len: constraints.and_then(|constraints| constraints.path_len_constraint),
            key_usage,
            #[cfg(feature = "issue")]
            x509,
        })
    }

    fn uris(&self) -> impl Iterator<Item = &str> {
        self.names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
    }

    /// Whether it may sign certificates: basicConstraints says CA, and keyUsage, where there is one, keyCertSign.
    pub(crate) fn may_sign(&self) -> bool {
        self.is_ca && self.key_usage.as_ref().is_none_or(KeyUsage::key_cert_sign)
    }

    /// The trust domain that a CA certificate says it is for (X509-SVID specification, section 3.2), if it says
    /// so. URIs of other schemes are of no concern.
    pub(crate) fn ca_trust_domain(&self) -> Result<Option<TrustDomain>, CaUriError> {
        let is_spiffe =
            |uri: &&str| uri.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe:"));
        let mut uris = self.uris().filter(is_spiffe);
        match (uris.next(), uris.next()) {
            (None, _) => Ok(None),
            (Some(uri), None) => TrustDomain::of_ca_uri(uri).map(Some).map_err(CaUriError::Id),
            (Some(_), Some(_)) => Err(CaUriError::Several),
        }
    }
}

/// What is wrong with the SPIFFE ID of a CA certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CaUriError {
    Id(IdError),
    Several,
}
impl fmt::Display for CaUriError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(error) => write!(f, "its URI SAN {error}"),
            Self::Several => f.write_str("it has more than one SPIFFE ID"),
        }
    }
}

/// Whether subjectAltName is DER and each name in it has the tag of its kind (RFC 5280, section 4.2.1.6): all of them
/// context-specific, those that hold elements constructed, the others not. The parser looks at the number in the tag alone, and
/// would take an object identifier, whose number is 6, for a URI; and it takes lengths with leading zeros.
fn names_are_exact(x509: &X509Certificate<'_>) -> bool {
    let is_names = |extension: &&X509Extension<'_>| extension.oid == OID_X509_EXT_SUBJECT_ALT_NAME;
    let Some(extension) = x509.extensions().iter().find(is_names) else { return true };
    let Some((_, mut rest)) = split_element(extension.value) else { return false };
    while let Some(tag) = rest.first() {
        let (0xa0 | 0x81 | 0x82 | 0xa3..=0xa5 | 0x86..=0x88, Some((after, _))) = (tag, split_element(rest))
        else {
            return false;
        };
        rest = after;
    }
    true
}

/// What comes after the first element, and its contents; `None` unless its length is written as short as can be.
fn split_element(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (after, element) = Any::from_der(der).ok()?;
    let contents = element.data;
    let header = match contents.len() {
        0..=0x7f => 2,
        0x80..=0xff => 3,
        0x100..=0xffff => 4,
        _ => 5,
    };
    (header + contents.len() + after.len() == der.len()).then_some((after, contents))
}

fn extension<'a, T: FromDer<'a, X509Error>>(
    x509: &X509Certificate<'a>,
    oid: &Oid<'_>,
    name: &'static str,
) -> Result<Option<T>, Malformed> {
    let Some(extension) = x509.extensions().iter().find(|extension| extension.oid == *oid) else {
        return Ok(None);
    };
    match T::from_der(extension.value) {
        Ok(([], value)) => Ok(Some(value)),
        _ => Err(Malformed::Extension(name)),
    }
}

#[cfg(test)]
mod tests;
