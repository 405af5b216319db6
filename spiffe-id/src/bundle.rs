//! Trust bundles: the roots of one trust domain.
use std::fmt;

use rustls_pki_types::{CertificateDer, pem::PemObject};

use crate::{
    TrustDomain,
    x509::{CaUriError, Certificate, Malformed},
};

const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
const END: &[u8] = b"-----END CERTIFICATE-----";

/// Why a bundle could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleError {
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Empty,
    /// Line (from 1) and what is wrong there.
    Pem(usize, Pem),
    /// Certificate (from 1) and what is wrong with it.
    Certificate(usize, Fault),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pem {
    OtherBlock,
    Unexpected,
    Unfinished,
    Base64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Fault {
    Malformed(Malformed),
    NoCa,
    Uri(CaUriError),
    OtherDomain { own: String, wanted: String },
}

impl BundleError {
    /// There was no certificate at all.
    pub fn is_empty(&self) -> bool {
        self.kind == Kind::Empty
    }

    fn pem(line: usize, what: Pem) -> Self {
        Self { kind: Kind::Pem(line, what) }
    }
}

impl fmt::Display for BundleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Empty => f.write_str("the bundle holds no certificate; give at least one root"),
            Kind::Pem(line, what) => {
                write!(f, "line {line} of the bundle: ")?;
                f.write_str(match what {
                    Pem::OtherBlock => {
                        "a PEM line that is not of a `CERTIFICATE` block; a bundle holds nothing else, keys least \
                         of all"
                    }
                    Pem::Unexpected => {
                        "a PEM line out of place; a block goes from `BEGIN CERTIFICATE` to `END CERTIFICATE`"
                    }
                    Pem::Unfinished => "the block that begins here has no `END CERTIFICATE`",
                    Pem::Base64 => "the block that begins here is not base64",
                })
            }
            Kind::Certificate(number, fault) => {
                write!(f, "certificate {number} of the bundle: ")?;
                match fault {
                    Fault::Malformed(error) => error.fmt(f),
                    Fault::NoCa => f.write_str(
                        "it is no CA certificate (basicConstraints CA, keyUsage keyCertSign); give the roots, not \
                         what they signed",
                    ),
                    Fault::Uri(error) => error.fmt(f),
                    Fault::OtherDomain { own, wanted } => write!(
                        f,
                        "it is a root of the trust domain `{own}`, not of `{wanted}`; give it under its own name"
                    ),
                }
            }
        }
    }
}
impl std::error::Error for BundleError {}

/// The X.509 roots of one trust domain: at least one, none twice.
///
/// A chain counts only for identities of the bundle's own trust domain. A root that names another one in its URI
/// SAN (X509-SVID specification, section 3.2) is refused; one that names none is taken as given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustBundle {
    trust_domain: TrustDomain,
    roots: Vec<CertificateDer<'static>>,
}

impl TrustBundle {
    /// Reads `CERTIFICATE` blocks. Text between blocks is comment.
    ///
    /// # Errors
    /// No certificate, a block of another kind, or one that is no CA certificate.
    pub fn from_pem(trust_domain: TrustDomain, pem: &[u8]) -> Result<Self, BundleError> {
        Self::from_der(trust_domain, certificates_of_pem(pem)?)
    }

    /// Takes roots that are at hand as DER.
    ///
    /// # Errors
    /// No certificate, one that cannot be read, one that is no CA certificate, or one that names another trust
    /// domain.
    pub fn from_der(
        trust_domain: TrustDomain,
        certificates: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<Self, BundleError> {
        let mut roots = Vec::new();
        for (at, der) in certificates.into_iter().enumerate() {
            check_root(&der, &trust_domain)
                .map_err(|fault| BundleError { kind: Kind::Certificate(at + 1, fault) })?;
            if !roots.contains(&der) {
                roots.push(der);
            }
        }
        if roots.is_empty() {
            return Err(BundleError { kind: Kind::Empty });
        }
        Ok(Self { trust_domain, roots })
    }

    /// Whose roots these are.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }
    /// The roots (DER), in the order they were given.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }
}

fn check_root(der: &[u8], trust_domain: &TrustDomain) -> Result<(), Fault> {
    let root = Certificate::parse(der).map_err(Fault::Malformed)?;
    if !root.may_sign() {
        return Err(Fault::NoCa);
    }
    match root.ca_trust_domain().map_err(Fault::Uri)? {
        Some(own) if own != *trust_domain => {
            Err(Fault::OtherDomain { own: own.to_string(), wanted: trust_domain.to_string() })
        }
        _ => Ok(()),
    }
}

/// Finds the blocks line by line, so that a block of another kind is seen and not skipped.
fn certificates_of_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, BundleError> {
    let mut certificates = Vec::new();
    let mut block: Option<(usize, Vec<u8>)> = None;
    for (line, number) in pem.split(|byte| *byte == b'\n').zip(1..) {
        let line = line.trim_ascii();
        match &mut block {
            None if line == BEGIN => block = Some((number, [BEGIN, b"\n"].concat())),
            None if line == END => return Err(BundleError::pem(number, Pem::Unexpected)),
            None if has_dashes(line) => return Err(BundleError::pem(number, Pem::OtherBlock)),
            None => {}
            Some((begin, text)) if line == END => {
                text.extend_from_slice(END);
                let certificate = CertificateDer::from_pem_slice(text)
                    .map_err(|_error| BundleError::pem(*begin, Pem::Base64))?;
                certificates.push(certificate);
                block = None;
            }
            Some(_) if has_dashes(line) => return Err(BundleError::pem(number, Pem::Unexpected)),
            Some((_, text)) => {
                text.extend_from_slice(line);
                text.push(b'\n');
            }
        }
    }
    match block {
        None => Ok(certificates),
        Some((begin, _)) => Err(BundleError::pem(begin, Pem::Unfinished)),
    }
}

/// Whether a line holds the mark of a PEM boundary, wherever in the line.
fn has_dashes(line: &[u8]) -> bool {
    [b"-----BEGIN".as_slice(), b"-----END"]
        .iter()
        .any(|mark| line.windows(mark.len()).any(|part| part == *mark))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SanType};

    use super::*;

    fn domain() -> TrustDomain {
        "td".parse().unwrap()
    }

    fn certificate(change: impl FnOnce(&mut CertificateParams)) -> rcgen::Certificate {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        change(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap()
    }

    fn root_for(uri: &str) -> rcgen::Certificate {
        certificate(|params| params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())])
    }

    #[test]
    fn blocks_with_comments_between_are_read_in_order() {
        let (one, two) = (certificate(|_| {}), root_for("spiffe://td"));
        for newline in ["\n", "\r\n"] {
            let pem = format!("# our roots\n\n{}\nsecond:\n{}trailing", one.pem(), two.pem());
            let pem = pem.replace('\n', newline);
            let bundle = TrustBundle::from_pem(domain(), pem.as_bytes()).unwrap();
            assert_eq!(bundle.roots(), [one.der().clone(), two.der().clone()]);
            assert_eq!(bundle.trust_domain(), &domain());
        }
    }

    #[test]
    fn a_root_that_is_given_twice_counts_once() {
        let root = certificate(|_| {});
        let bundle = TrustBundle::from_pem(domain(), root.pem().repeat(3).as_bytes()).unwrap();
        assert_eq!(bundle.roots(), [root.der().clone()]);
    }

    #[track_caller]
    fn refuses(pem: &str, expected: &Kind) {
        let error = TrustBundle::from_pem(domain(), pem.as_bytes()).unwrap_err();
        assert_eq!(error.kind, *expected, "{error}");
    }

    #[test]
    fn pem_that_is_not_only_certificates_is_refused() {
        let good = certificate(|_| {}).pem();
        let lines = good.lines().count();
        let key = KeyPair::generate().unwrap().serialize_pem();
        refuses("", &Kind::Empty);
        refuses("only a comment\n", &Kind::Empty);
        refuses(&key, &Kind::Pem(1, Pem::OtherBlock));
        refuses(&format!("{good}{key}"), &Kind::Pem(lines + 1, Pem::OtherBlock));
        refuses(&good.replace("CERTIFICATE", "TRUSTED CERTIFICATE"), &Kind::Pem(1, Pem::OtherBlock));
        refuses(&good.replace("-----BEGIN", "x-----BEGIN"), &Kind::Pem(1, Pem::OtherBlock));
        refuses(
            &good.replace("BEGIN CERTIFICATE-----", "BEGIN CERTIFICATE----"),
            &Kind::Pem(1, Pem::OtherBlock),
        );
        refuses(&format!("\u{feff}{good}"), &Kind::Pem(1, Pem::OtherBlock));
        refuses(&good.replace("-----END CERTIFICATE-----", ""), &Kind::Pem(1, Pem::Unfinished));
        refuses(&good.replace("-----BEGIN CERTIFICATE-----", ""), &Kind::Pem(lines, Pem::Unexpected));
        refuses(
            &good.replace("-----END CERTIFICATE-----", "-----END X-----"),
            &Kind::Pem(lines, Pem::Unexpected),
        );
        refuses(
            &format!("{}{good}", good.lines().next().unwrap().to_owned() + "\n"),
            &Kind::Pem(2, Pem::Unexpected),
        );
        refuses("-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n", &Kind::Pem(1, Pem::Base64));
    }

    #[test]
    fn what_is_no_root_of_the_domain_is_refused() {
        let good = certificate(|_| {}).pem();
        let leaf = certificate(|params| {
            params.is_ca = IsCa::NoCa;
            params.key_usages.clear();
        });
        let no_ca = certificate(|params| params.is_ca = IsCa::ExplicitNoCa);
        let no_sign = certificate(|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature]);
        for bad in [leaf, no_ca, no_sign] {
            refuses(&format!("{good}{}", bad.pem()), &Kind::Certificate(2, Fault::NoCa));
        }
        refuses(
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            &Kind::Certificate(1, Fault::Malformed(Malformed::Der)),
        );
        refuses(
            &root_for("spiffe://other").pem(),
            &Kind::Certificate(1, Fault::OtherDomain { own: "other".to_owned(), wanted: "td".to_owned() }),
        );
        for uri in ["spiffe://", "spiffe://TD", "SPIFFE://td", "spiffe://td/"] {
            let error = TrustBundle::from_pem(domain(), root_for(uri).pem().as_bytes()).unwrap_err();
            assert!(
                matches!(error.kind, Kind::Certificate(1, Fault::Uri(CaUriError::Id(_)))),
                "{uri}: {error}"
            );
        }
        let two = certificate(|params| {
            params.subject_alt_names =
                ["spiffe://td", "spiffe://td"].map(|uri| SanType::URI(uri.try_into().unwrap())).to_vec();
        });
        refuses(&two.pem(), &Kind::Certificate(1, Fault::Uri(CaUriError::Several)));
    }

    #[test]
    fn roots_that_name_no_other_domain_are_accepted() {
        for root in [
            root_for("spiffe://td"),
            root_for("spiffe://td/ca/1"),
            root_for("https://example.org/ca"),
            certificate(|params| params.key_usages.clear()),
        ] {
            TrustBundle::from_pem(domain(), root.pem().as_bytes()).unwrap();
        }
    }

    #[test]
    fn messages_say_where() {
        for (text, expected) in [
            (
                "-----END CERTIFICATE-----\n",
                "line 1 of the bundle: a PEM line out of place; a block goes from `BEGIN CERTIFICATE` to `END CERTIFICATE`",
            ),
            (
                "\n-----BEGIN CERTIFICATE-----\nAAAA\n",
                "line 2 of the bundle: the block that begins here has no `END CERTIFICATE`",
            ),
            (
                "-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n",
                "line 1 of the bundle: the block that begins here is not base64",
            ),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "certificate 1 of the bundle: the certificate is no single X.509 certificate in DER",
            ),
        ] {
            assert_eq!(TrustBundle::from_pem(domain(), text.as_bytes()).unwrap_err().to_string(), expected);
        }
        let error = TrustBundle::from_pem(domain(), b"\n-----BEGIN PRIVATE KEY-----\n").unwrap_err();
        assert_eq!(
            error.to_string(),
            "line 2 of the bundle: a PEM line that is not of a `CERTIFICATE` block; a bundle holds nothing else, \
             keys least of all"
        );
        let error = TrustBundle::from_pem(domain(), root_for("spiffe://other").pem().as_bytes()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "certificate 1 of the bundle: it is a root of the trust domain `other`, not of `td`; give it under its \
             own name"
        );
        assert!(TrustBundle::from_pem(domain(), b"").unwrap_err().is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_are_decided_without_panic(
            parts in proptest::collection::vec(
                prop_oneof![
                    Just(b"-----BEGIN CERTIFICATE-----\n".to_vec()),
                    Just(b"-----END CERTIFICATE-----\n".to_vec()),
                    Just(b"MAAA\n".to_vec()),
                    proptest::collection::vec(any::<u8>(), 0..40),
                ],
                0..12,
            ),
        ) {
            // No root can come out of it: none is in it.
            let error = TrustBundle::from_pem(domain(), &parts.concat()).unwrap_err();
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
