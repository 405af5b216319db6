use std::fmt;

use crate::{SpiffeId, TrustDomain, x509::CaUriError};

/// Why nothing was issued.
#[derive(Debug)]
pub struct IssueError {
    kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    // The request.
    CsrUnreadable,
    CsrSignature,
    KeyUnreadable,
    KeyRefused,
    RsaSignature,
    Possession,
    DnsName(String),
    OtherDomain { id: SpiffeId, own: TrustDomain },
    OutlivesCa(String),
    Times(&'static str),
    KeyElsewhere,
    // The pool.
    Json(String),
    Empty,
    CaId(String),
    CaTwice(String),
    Domains(TrustDomain, TrustDomain),
    Ca(String, CaFault),
    // The machine.
    Signing(rcgen::Error),
    Random(String),
    Derive,
}

/// What is wrong with one CA of a pool.
#[derive(Debug)]
pub(super) enum CaFault {
    Base64(&'static str),
    Key,
    /// Of the root (`None`) or an intermediate (from 1).
    Certificate(Option<usize>, String),
    NoCa(Option<usize>),
    Uri(CaUriError),
    Name,
    KeyMismatch,
    Chain,
    PathLength,
    Time,
}

impl IssueError {
    /// The request is at fault (its key, names or times), and will be whenever it is made again.
    pub fn is_bad_request(&self) -> bool {
        matches!(
            self.kind,
            Kind::CsrUnreadable
                | Kind::CsrSignature
                | Kind::KeyUnreadable
                | Kind::KeyRefused
                | Kind::RsaSignature
                | Kind::Possession
                | Kind::DnsName(_)
                | Kind::OtherDomain { .. }
                | Kind::OutlivesCa(_)
                | Kind::Times(_)
        )
    }

    /// The key is of a kind that gets no certificate: another kind will do.
    pub fn is_unsupported_key(&self) -> bool {
        matches!(self.kind, Kind::KeyRefused | Kind::RsaSignature)
    }

    /// The request would end after the CA that signs: ask for less, or rotate the CA.
    pub fn is_beyond_ca(&self) -> bool {
        matches!(self.kind, Kind::OutlivesCa(_))
    }
}

impl Kind {
    pub(super) fn signing(error: impl Into<rcgen::Error>) -> Self {
        Self::Signing(error.into())
    }
}

impl From<Kind> for IssueError {
    fn from(kind: Kind) -> Self {
        Self { kind }
    }
}

impl fmt::Display for IssueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::CsrUnreadable => f.write_str("the certificate request is no single PKCS#10 request in DER"),
            Kind::CsrSignature => f.write_str(
                "the certificate request is not signed with its own key; sign it with the key that it asks for",
            ),
            Kind::KeyUnreadable => f.write_str("the public key is no single SubjectPublicKeyInfo in DER"),
            Kind::KeyRefused => f.write_str(
                "a public key of this kind gets no certificate; use ECDSA on P-256 or P-384, Ed25519, or RSA of 2048 \
                 bits or more",
            ),
            Kind::RsaSignature => f.write_str(
                "an RSA key needs a PKCS#10 request, as its bare signature is not verified here; or use ECDSA on P-256 or \
                 P-384, or Ed25519",
            ),
            Kind::Possession => f.write_str(
                "the public key does not verify the signature that proves possession; sign with the private key that \
                 belongs to it",
            ),
            Kind::DnsName(name) => write!(f, "`{}` is no DNS name", name.escape_debug()),
            Kind::OtherDomain { id, own } => {
                write!(f, "`{id}` is not of the trust domain `{own}`, the only one that this CA vouches for")
            }
            Kind::OutlivesCa(ca) => write!(
                f,
                "the certificate would be valid for longer than its CA `{ca}`; ask for a shorter time, or rotate the CA"
            ),
            Kind::Times(reason) => write!(f, "the time of validity cannot be used: {reason}"),
            Kind::KeyElsewhere => {
                f.write_str("the private key was not made here; join the chain with the key where it is")
            }
            Kind::Json(error) => write!(f, "the CA pool cannot be read: {error}"),
            Kind::Empty => f.write_str("the CA pool holds no CA; it needs at least one under `cas`"),
            Kind::CaId(id) => write!(
                f,
                "`{}` cannot name a CA; use 1 to 64 of A-Z, a-z, 0-9, `.`, `-` and `_`",
                id.escape_debug()
            ),
            Kind::CaTwice(id) => write!(f, "the CA pool has `{}` more than once", id.escape_debug()),
            Kind::Domains(one, other) => write!(
                f,
                "the CA pool has roots of the trust domains `{one}` and `{other}`; keep a pool for each"
            ),
            Kind::Ca(id, fault) => write!(f, "the CA `{}` cannot be used: {fault}", id.escape_debug()),
            Kind::Signing(error) => write!(f, "signing failed: {error}"),
            Kind::Random(error) => write!(f, "no random number was to be had: {error}"),
            Kind::Derive => f.write_str("no secret could be derived from the CA's key"),
        }
    }
}

impl fmt::Display for CaFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certificate = |number: Option<usize>| match number {
            None => "its root".to_owned(),
            Some(number) => format!("its intermediate {number}"),
        };
        match self {
            Self::Base64(field) => write!(f, "`{field}` is not base64"),
            Self::Key => f.write_str("`signingKeyPKCS8` is no PKCS#8 key of a known kind"),
            Self::Certificate(number, error) => write!(f, "{}: {error}", certificate(*number)),
            Self::NoCa(number) => write!(
                f,
                "{} is no CA certificate (basicConstraints CA, keyUsage keyCertSign)",
                certificate(*number)
            ),
            Self::Uri(error) => write!(f, "its root: {error}"),
            Self::Name => f.write_str(
                "the signing certificate's subject cannot be written again as it is (one attribute twice, or an unusual \
                 encoding); make the CA with a plain common name",
            ),
            Self::KeyMismatch => f.write_str(
                "`signingKeyPKCS8` is not the key of its root, nor, where there are intermediates, of one of them",
            ),
            Self::Chain => f.write_str("its intermediates do not lead, all of them, from the signing key to the root"),
            Self::PathLength => f.write_str("a certificate's path length does not allow the chain below it"),
            Self::Time => f.write_str("a certificate's end lies before 1970"),
        }
    }
}

impl std::error::Error for IssueError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            Kind::Signing(error) => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[track_caller]
    fn check(kind: Kind, is_bad_request: bool, expected: &str) {
        let error = IssueError::from(kind);
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.is_bad_request(), is_bad_request, "{error}");
        assert_eq!(error.source().is_some(), expected.starts_with("signing failed"));
    }

    #[test]
    fn requests_at_fault() {
        check(Kind::CsrUnreadable, true, "the certificate request is no single PKCS#10 request in DER");
        check(
            Kind::CsrSignature,
            true,
            "the certificate request is not signed with its own key; sign it with the key that it asks for",
        );
        check(Kind::KeyUnreadable, true, "the public key is no single SubjectPublicKeyInfo in DER");
        check(
            Kind::Possession,
            true,
            "the public key does not verify the signature that proves possession; sign with the private key that belongs to it",
        );
        check(Kind::DnsName("a\n".to_owned()), true, "`a\\n` is no DNS name");
        check(
            Kind::OutlivesCa("a".to_owned()),
            true,
            "the certificate would be valid for longer than its CA `a`; ask for a shorter time, or rotate the CA",
        );
        check(Kind::Times("x"), true, "the time of validity cannot be used: x");
        assert!(IssueError::from(Kind::KeyRefused).is_unsupported_key());
        assert!(IssueError::from(Kind::RsaSignature).is_unsupported_key());
        assert!(!IssueError::from(Kind::CsrSignature).is_unsupported_key());
        assert!(IssueError::from(Kind::OutlivesCa(String::new())).is_beyond_ca());
        assert!(!IssueError::from(Kind::Times("x")).is_beyond_ca());
    }

    #[test]
    fn pools_and_machines_at_fault() {
        check(
            Kind::KeyElsewhere,
            false,
            "the private key was not made here; join the chain with the key where it is",
        );
        check(Kind::Json("x".to_owned()), false, "the CA pool cannot be read: x");
        check(Kind::Empty, false, "the CA pool holds no CA; it needs at least one under `cas`");
        check(
            Kind::CaId("a b".to_owned()),
            false,
            "`a b` cannot name a CA; use 1 to 64 of A-Z, a-z, 0-9, `.`, `-` and `_`",
        );
        check(Kind::CaTwice("a".to_owned()), false, "the CA pool has `a` more than once");
        check(
            Kind::Signing(rcgen::Error::CouldNotParseCertificate),
            false,
            "signing failed: Could not parse certificate",
        );
        check(Kind::Random("x".to_owned()), false, "no random number was to be had: x");
        check(Kind::Derive, false, "no secret could be derived from the CA's key");
        for (fault, expected) in [
            (CaFault::Base64("rootX509"), "`rootX509` is not base64"),
            (CaFault::Key, "`signingKeyPKCS8` is no PKCS#8 key of a known kind"),
            (CaFault::Certificate(None, "x".to_owned()), "its root: x"),
            (CaFault::Certificate(Some(2), "x".to_owned()), "its intermediate 2: x"),
            (
                CaFault::NoCa(None),
                "its root is no CA certificate (basicConstraints CA, keyUsage keyCertSign)",
            ),
            (
                CaFault::Name,
                "the signing certificate's subject cannot be written again as it is (one attribute twice, or an unusual \
                 encoding); make the CA with a plain common name",
            ),
            (
                CaFault::KeyMismatch,
                "`signingKeyPKCS8` is not the key of its root, nor, where there are intermediates, of one of them",
            ),
            (CaFault::Chain, "its intermediates do not lead, all of them, from the signing key to the root"),
            (CaFault::PathLength, "a certificate's path length does not allow the chain below it"),
            (CaFault::Time, "a certificate's end lies before 1970"),
        ] {
            check(Kind::Ca("a".to_owned(), fault), false, &format!("the CA `a` cannot be used: {expected}"));
        }
    }
}
