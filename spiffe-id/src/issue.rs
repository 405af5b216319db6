//! Issuing X509-SVIDs from a CA pool (feature `issue`).
use std::{
    fmt,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData, SanType, SerialNumber,
    SubjectPublicKeyInfo,
};
use ring::hkdf::{HKDF_SHA256, Salt};
use rustls_pki_types::{CertificateDer, DnsName};
use x509_parser::{prelude::FromDer, public_key::PublicKey, x509::SubjectPublicKeyInfo as ParsedKey};

use crate::{SpiffeId, TrustDomain};

mod error;
mod held_key;
mod pool_file;

use self::error::Kind;
pub use self::{error::IssueError, held_key::HeldKey};

/// Seconds since 1970 of 9999-12-31T23:59:59Z, the last moment that a certificate can name (RFC 5280, section
/// 4.1.2.5).
const LAST_MOMENT: u64 = 253_402_300_799;
/// The shortest modulus of an RSA key that is certified, in bits.
const MIN_RSA_BITS: usize = 2048;
/// Sets [`Ca::derive`] apart from all else that could be made of a private key.
const DERIVE_SALT: &[u8] = b"spiffe-id CA derived secret v1";
/// The longest common name that X.520 knows, in characters.
const MAX_CA_ID: usize = 64;

/// The kind of a new CA key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// Ed25519
    Ed25519,
    /// ECDSA on P-256 with SHA-256
    EcdsaP256,
}

/// One CA of a pool: its root, its key, and the intermediates between them.
pub struct Ca {
    id: String,
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    /// In the order of the file.
    intermediates: Vec<CertificateDer<'static>>,
    /// The same, in the order of a chain: the signing certificate first.
    chain: Vec<CertificateDer<'static>>,
    trust_domain: Option<TrustDomain>,
    not_after: SystemTime,
}
impl Ca {
    /// Its name in the pool.
    pub fn id(&self) -> &str {
        &self.id
    }
    /// The root certificate (DER).
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }
    /// The trust domain in the root's URI SAN, if it has one.
    pub fn trust_domain(&self) -> Option<&TrustDomain> {
        self.trust_domain.as_ref()
    }
    /// When the first certificate on the way from the signing key to the root ends. It signs nothing that would
    /// outlive this moment.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }
    /// A secret of 32 bytes that everyone who holds this CA's private key can derive, and nobody else (HKDF-SHA256,
    /// RFC 5869). Secrets for different uses have a different `info`; none of them tells anything about the key.
    ///
    /// # Errors
    /// None that is known: 32 bytes are within what HKDF-SHA256 gives.
    pub fn derive(&self, info: &[u8]) -> Result<[u8; 32], IssueError> {
        let mut secret = [0; 32];
        Salt::new(HKDF_SHA256, DERIVE_SALT)
            .extract(self.issuer.key().serialized_der())
            .expand(&[info], HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut secret))
            .map_err(|_unspecified| Kind::Derive)?;
        Ok(secret)
    }
}
impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ca")
            .field("id", &self.id)
            .field("trust_domain", &self.trust_domain)
            .field("intermediates", &self.intermediates.len())
            .finish_non_exhaustive()
    }
}

/// A pool of CAs: the first signs, all roots are trusted. JSON:
/// `{"cas":[{"id","signingKeyPKCS8","rootCertificateDER","intermediateCertificatesDER":[]}]}`, DER in base64.
///
/// Where a root names a trust domain in its URI SAN (all that [`CaPool::generate`] makes do), the pool issues no
/// ID of another one.
#[derive(Debug)]
pub struct CaPool {
    /// Signs; the first of the file.
    signing: Ca,
    /// Roots that are trusted still, or already.
    standby: Vec<Ca>,
    trust_domain: Option<TrustDomain>,
}

/// What to issue.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SvidRequest<'a> {
    /// The URI SAN.
    pub id: &'a SpiffeId,
    /// DNS names to add (a gateway's own certificate). A leading `*.` is a wildcard.
    pub dns_names: &'a [String],
    /// First moment of validity; fractions of a second are dropped.
    pub not_before: SystemTime,
    /// Last moment of validity; fractions of a second are dropped.
    pub not_after: SystemTime,
}
impl<'a> SvidRequest<'a> {
    /// A request without DNS names.
    pub fn new(id: &'a SpiffeId, not_before: SystemTime, not_after: SystemTime) -> Self {
        Self { id, dns_names: &[], not_before, not_after }
    }
    /// The same with these DNS names.
    #[must_use]
    pub fn with_dns_names(self, dns_names: &'a [String]) -> Self {
        Self { dns_names, ..self }
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
        self.chain.iter().map(|der| certificate_pem(der)).collect()
    }
    /// Key and chain in one PEM file, as a kubelet writes `credential-bundle.pem` (key first).
    ///
    /// # Errors
    /// The key was not made here.
    pub fn credential_bundle_pem(&self) -> Result<String, IssueError> {
        let key = self.key_pem.as_deref().ok_or(Kind::KeyElsewhere)?;
        let line_end = if key.ends_with('\n') { "" } else { "\n" };
        Ok(format!("{key}{line_end}{}", self.chain_pem()))
    }
}

impl CaPool {
    /// A pool with one new self-signed root, valid from `not_before` to `not_after` (in whole seconds). `id` is
    /// the CA's name in the pool and its common name: 1 to 64 of `A-Z a-z 0-9 . _ -`. The root carries the trust
    /// domain as its URI SAN, and signs leaves only (path length 0).
    ///
    /// # Errors
    /// An `id` or times that no certificate can hold; key generation or signing failed.
    pub fn generate(
        id: &str,
        trust_domain: &TrustDomain,
        kind: KeyKind,
        not_before: SystemTime,
        not_after: SystemTime,
    ) -> Result<Self, IssueError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        if id.is_empty() || id.len() > MAX_CA_ID || !id.chars().all(is_plain) {
            return Err(Kind::CaId(id.chars().take(2 * MAX_CA_ID).collect()).into());
        }
        let key = KeyPair::generate_for(match kind {
            KeyKind::Ed25519 => &PKCS_ED25519,
            KeyKind::EcdsaP256 => &PKCS_ECDSA_P256_SHA256,
        })
        .map_err(Kind::signing)?;
        let mut params = validity(not_before, not_after)?;
        params.serial_number = Some(serial()?);
        params.distinguished_name.push(DnType::CommonName, id);
        params.subject_alt_names = vec![uri_name(&trust_domain.uri())?];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root = params.self_signed(&key).map_err(Kind::signing)?;
        let signing = Ca::new(id.to_owned(), key, root.der().clone(), Vec::new())
            .map_err(|fault| Kind::Ca(id.to_owned(), fault))?;
        Self::of(vec![signing])
    }

    /// Reads the JSON form. The field names may also be written as Go writes them by default (`CAs`, `ID`,
    /// `SigningKeyPKCS8`, ...), and the intermediates may be `null` or left out.
    ///
    /// The key belongs to the root, or to one of the intermediates where there are any; their order does not
    /// matter, but every one of them must stand between that key and the root.
    ///
    /// # Errors
    /// JSON, base64 or DER that cannot be read, a key that does not fit its certificate, intermediates that do not
    /// lead to the root, an ID that is there twice, roots of different trust domains, an empty pool.
    pub fn from_json(json: &[u8]) -> Result<Self, IssueError> {
        Self::of(pool_file::read(json)?)
    }

    fn of(cas: Vec<Ca>) -> Result<Self, IssueError> {
        let mut trust_domain: Option<TrustDomain> = None;
        for (at, ca) in cas.iter().enumerate() {
            if cas.iter().take(at).any(|other| other.id == ca.id) {
                return Err(Kind::CaTwice(ca.id.clone()).into());
            }
            match (&trust_domain, &ca.trust_domain) {
                (Some(one), Some(other)) if one != other => {
                    return Err(Kind::Domains(one.clone(), other.clone()).into());
                }
                (None, Some(one)) => trust_domain = Some(one.clone()),
                _ => {}
            }
        }
        let mut cas = cas.into_iter();
        let signing = cas.next().ok_or(Kind::Empty)?;
        Ok(Self { signing, standby: cas.collect(), trust_domain })
    }

    /// Writes the JSON form, private keys included.
    pub fn to_json(&self) -> String {
        pool_file::write(self.cas())
    }

    /// All CAs; the first signs.
    pub fn cas(&self) -> impl Iterator<Item = &Ca> {
        std::iter::once(&self.signing).chain(&self.standby)
    }

    /// The same pool with another of its CAs signing; the order of the others stays. `None` if it has no CA of that
    /// ID.
    #[must_use]
    pub fn signing_with(self, id: &str) -> Option<Self> {
        let mut cas: Vec<Ca> = std::iter::once(self.signing).chain(self.standby).collect();
        let signing = cas.iter().position(|ca| ca.id == id).map(|at| cas.remove(at))?;
        Some(Self { signing, standby: cas, trust_domain: self.trust_domain })
    }

    /// The trust domain of the roots, if one of them names it. The pool issues no ID of another.
    pub fn trust_domain(&self) -> Option<&TrustDomain> {
        self.trust_domain.as_ref()
    }

    /// The last moment that a request may ask for: when the first CA's own certificates end.
    pub fn not_after(&self) -> SystemTime {
        self.signing.not_after
    }

    /// All roots as PEM: the trust bundle to publish.
    pub fn roots_pem(&self) -> String {
        let mut roots: Vec<&CertificateDer<'_>> = Vec::new();
        for ca in self.cas() {
            if !roots.contains(&&ca.root) {
                roots.push(&ca.root);
            }
        }
        roots.into_iter().map(|der| certificate_pem(der)).collect()
    }

    /// Makes an ECDSA P-256 key and signs an SVID for it with the first CA.
    ///
    /// # Errors
    /// As [`CaPool::issue_for_public_key`].
    pub fn issue(&self, request: &SvidRequest<'_>) -> Result<IssuedSvid, IssueError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(Kind::signing)?;
        let chain = self.sign(&key, request)?;
        Ok(IssuedSvid { chain, key_pem: Some(key.serialize_pem()) })
    }

    /// Signs an SVID for the key of a PKCS#10 request (DER), whose own signature is verified; nothing
    /// else of it is taken over.
    ///
    /// # Errors
    /// A request that cannot be read or does not verify; else as [`CaPool::issue_for_public_key`].
    pub fn issue_for_csr(&self, csr_der: &[u8], request: &SvidRequest<'_>) -> Result<IssuedSvid, IssueError> {
        self.issue_for_public_key(HeldKey::of_csr(csr_der)?.spki_der(), request)
    }

    /// Signs an SVID for a public key (SubjectPublicKeyInfo, DER): ECDSA on P-256 or P-384 (points uncompressed),
    /// Ed25519, or RSA of 2048 bits and more. That the asker holds the private key is for the caller to know.
    ///
    /// # Errors
    /// A key that cannot be read or is of another kind; a request whose ID is of another trust domain than the
    /// pool, whose DNS names are none, or whose times are out of order or beyond [`CaPool::not_after`]; signing
    /// failed.
    pub fn issue_for_public_key(
        &self,
        spki_der: &[u8],
        request: &SvidRequest<'_>,
    ) -> Result<IssuedSvid, IssueError> {
        let chain = self.sign(&public_key(spki_der)?, request)?;
        Ok(IssuedSvid { chain, key_pem: None })
    }

    fn sign(
        &self,
        key: &impl PublicKeyData,
        request: &SvidRequest<'_>,
    ) -> Result<Vec<CertificateDer<'static>>, IssueError> {
        let params = self.leaf(request)?;
        let leaf = params.signed_by(key, &self.signing.issuer).map_err(Kind::signing)?;
        Ok(std::iter::once(leaf.der().clone()).chain(self.signing.chain.iter().cloned()).collect())
    }

    /// X509-SVID specification, sections 2 and 4; RFC 5280, section 4.2.1.6 (the SAN is critical, as there is no
    /// subject).
    fn leaf(&self, request: &SvidRequest<'_>) -> Result<CertificateParams, IssueError> {
        if let Some(own) = &self.trust_domain
            && !request.id.is_member_of(own)
        {
            return Err(Kind::OtherDomain { id: request.id.clone(), own: own.clone() }.into());
        }
        let mut params = validity(request.not_before, request.not_after)?;
        if params.not_after > self.signing.not_after {
            return Err(Kind::OutlivesCa(self.signing.id.clone()).into());
        }
        params.serial_number = Some(serial()?);
        params.subject_alt_names.push(uri_name(request.id.as_str())?);
        for name in request.dns_names {
            params.subject_alt_names.push(dns_name(name)?);
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
}

/// Parameters with nothing but the times, which are checked: rcgen would panic on what a certificate cannot hold.
fn validity(not_before: SystemTime, not_after: SystemTime) -> Result<CertificateParams, IssueError> {
    let whole_seconds = |moment: SystemTime| {
        moment
            .duration_since(SystemTime::UNIX_EPOCH)
            .ok()
            .map(|since| since.as_secs())
            .filter(|seconds| *seconds <= LAST_MOMENT)
            .ok_or(Kind::Times("it must lie between the years 1970 and 9999"))
    };
    let (begin, end) = (whole_seconds(not_before)?, whole_seconds(not_after)?);
    if begin >= end {
        return Err(Kind::Times("it must end after it begins").into());
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = (SystemTime::UNIX_EPOCH + Duration::from_secs(begin)).into();
    params.not_after = (SystemTime::UNIX_EPOCH + Duration::from_secs(end)).into();
    Ok(params)
}

/// 126 random bits: positive, not zero, and of one length (RFC 5280, section 4.1.2.2: at most 20 bytes).
fn serial() -> Result<SerialNumber, IssueError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Kind::Random(error.to_string()))?;
    if let Some(first) = bytes.first_mut() {
        *first = (*first & 0x3f) | 0x40;
    }
    Ok(SerialNumber::from_slice(&bytes))
}

fn uri_name(uri: &str) -> Result<SanType, IssueError> {
    Ok(SanType::URI(uri.try_into().map_err(Kind::signing)?))
}

fn dns_name(name: &str) -> Result<SanType, IssueError> {
    let bad = || Kind::DnsName(name.chars().take(256).collect());
    DnsName::try_from(name.strip_prefix("*.").unwrap_or(name)).map_err(|_error| bad())?;
    Ok(SanType::DnsName(name.try_into().map_err(|_error| bad())?))
}

/// Reads a public key, and only such that the certificate will carry the very bytes that were given.
fn public_key(spki_der: &[u8]) -> Result<SubjectPublicKeyInfo, IssueError> {
    let Ok(([], parsed)) = ParsedKey::from_der(spki_der) else {
        return Err(Kind::KeyUnreadable.into());
    };
    let key = SubjectPublicKeyInfo::from_der(spki_der).map_err(|_error| Kind::KeyRefused)?;
    let bits = parsed.subject_public_key.data.len() * 8;
    let of_right_size = match parsed.parsed() {
        Ok(PublicKey::RSA(rsa)) => rsa.key_size() >= MIN_RSA_BITS,
        // 0x04, x, y
        Ok(PublicKey::EC(point)) => {
            point.data().first() == Some(&4)
                && bits == 8 + 2 * if *key.algorithm() == PKCS_ECDSA_P256_SHA256 { 256 } else { 384 }
        }
        _ => *key.algorithm() == PKCS_ED25519 && bits == 256,
    };
    if !of_right_size {
        return Err(Kind::KeyRefused.into());
    }
    if key.subject_public_key_info() != spki_der {
        return Err(Kind::KeyUnreadable.into());
    }
    Ok(key)
}

/// RFC 7468, section 5.
fn certificate_pem(der: &[u8]) -> String {
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    // 48 bytes are a line of 64 characters.
    for line in der.chunks(48) {
        STANDARD.encode_string(line, &mut pem);
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}
