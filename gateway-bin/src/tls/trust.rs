//! Which chains give which identities: each trust domain is judged by its own roots only.
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, UnixTime},
    server::{ParsedCertificate, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use sha2::{Digest as _, Sha256};
use spiffe_id::{IdentityError, SpiffeId, TrustBundle, identity_of};

use super::{not_after, provider};

/// The trust bundles, by trust domain.
///
/// A CA of one trust domain never vouches for an identity of another: the identity is read from the leaf first, and
/// its own trust domain's roots alone are asked.
#[derive(Debug, Default)]
pub struct TrustDomains {
    domains: BTreeMap<String, Domain>,
    /// What [`known_identity`](Self::known_identity) has verified. Other bundles begin with nothing.
    known: Mutex<HashMap<[u8; 32], Known>>,
}

/// At most so many chains are remembered.
const KNOWN: usize = 1024;

/// A chain that was verified.
#[derive(Debug)]
struct Known {
    id: SpiffeId,
    /// When it was, and when the first of its certificates ends: in between verifying it again would say the same.
    verified: u64,
    ends: u64,
}

#[derive(Debug)]
struct Domain {
    clients: Arc<dyn ClientCertVerifier>,
    roots: RootCertStore,
}

/// Why a chain gives no identity.
#[derive(Debug)]
#[non_exhaustive]
pub enum Untrusted {
    /// No certificate was presented.
    NoCertificate,
    /// The leaf holds no usable SPIFFE ID.
    Identity(IdentityError),
    /// No bundle of the leaf's trust domain is known.
    UnknownDomain(String),
    /// The chain does not lead to a root of its trust domain, or it is not valid now.
    Chain(rustls::Error),
}

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCertificate => f.write_str("no certificate was presented"),
            Self::Identity(error) => write!(f, "the certificate gives no SPIFFE identity: {error}"),
            Self::UnknownDomain(domain) => write!(
                f,
                "there is no trust bundle for the trust domain `{domain}`; `--trust-bundle {domain}=FILE` adds one"
            ),
            Self::Chain(error) => write!(f, "the chain is not trusted in its trust domain: {error}"),
        }
    }
}
impl std::error::Error for Untrusted {}

impl TrustDomains {
    /// Takes bundles; two of the same trust domain are joined.
    ///
    /// # Errors
    /// A root that cannot be used as a trust anchor.
    pub fn new(bundles: impl IntoIterator<Item = TrustBundle>) -> Result<Self, rustls::Error> {
        let mut stores: BTreeMap<String, RootCertStore> = BTreeMap::new();
        for bundle in bundles {
            let store =
                stores.entry(bundle.trust_domain().as_str().to_owned()).or_insert_with(RootCertStore::empty);
            for root in bundle.roots() {
                store.add(root.clone())?;
            }
        }
        let domains = stores
            .into_iter()
            .map(|(name, roots)| {
                let clients = WebPkiClientVerifier::builder_with_provider(
                    Arc::new(roots.clone()),
                    Arc::clone(provider()),
                )
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
                Ok((name, Domain { clients, roots }))
            })
            .collect::<Result<_, rustls::Error>>()?;
        Ok(Self { domains, known: Mutex::default() })
    }

    /// Whether there is no bundle at all.
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty()
    }

    /// Whether there is a bundle of this trust domain.
    pub fn knows(&self, trust_domain: &str) -> bool {
        self.domains.contains_key(trust_domain)
    }

    /// The identity of a client's chain (leaf first), verified against the roots of its own trust domain.
    ///
    /// # Errors
    /// Why it gives none.
    pub fn client_identity(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<SpiffeId, Untrusted> {
        let (leaf, intermediates, id, domain) = self.read(chain)?;
        domain.clients.verify_client_cert(leaf, intermediates, now).map_err(Untrusted::Chain)?;
        Ok(id)
    }

    /// [`client_identity`](Self::client_identity) of a chain that comes with every request: what was verified once is
    /// remembered until one of its certificates ends.
    ///
    /// # Errors
    /// Why it gives none.
    pub fn known_identity(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<SpiffeId, Untrusted> {
        let mut hash = Sha256::new();
        for certificate in chain {
            hash.update(certificate.len().to_le_bytes());
            hash.update(certificate);
        }
        let key = hash.finalize().into();
        let seconds = now.as_secs();
        {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) =
                known.get(&key).filter(|known| (known.verified..=known.ends).contains(&seconds))
            {
                return Ok(known.id.clone());
            }
        }
        let id = self.client_identity(chain, now)?;
        let ends = chain.iter().map(|certificate| not_after(certificate).unwrap_or_default()).min();
        let ends = u64::try_from(ends.unwrap_or_default()).unwrap_or_default();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN {
            known.clear();
        }
        known.insert(key, Known { id: id.clone(), verified: seconds, ends });
        Ok(id)
    }

    /// The identity of a server's chain (leaf first), verified likewise. Names are not looked at.
    ///
    /// # Errors
    /// Why it gives none.
    pub fn server_identity(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<SpiffeId, Untrusted> {
        let (leaf, intermediates, id, domain) = self.read(chain)?;
        let parsed = ParsedCertificate::try_from(leaf).map_err(Untrusted::Chain)?;
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &domain.roots,
            intermediates,
            now,
            provider().signature_verification_algorithms.all,
        )
        .map_err(Untrusted::Chain)?;
        Ok(id)
    }

    fn read<'c, 'd>(&self, chain: &'c [CertificateDer<'d>]) -> Result<Read<'c, 'd, '_>, Untrusted> {
        let (leaf, intermediates) = chain.split_first().ok_or(Untrusted::NoCertificate)?;
        let id = identity_of(leaf).map_err(Untrusted::Identity)?;
        let domain = self
            .domains
            .get(id.trust_domain())
            .ok_or_else(|| Untrusted::UnknownDomain(id.trust_domain().to_owned()))?;
        Ok((leaf, intermediates, id, domain))
    }
}

type Read<'c, 'd, 's> = (&'c CertificateDer<'d>, &'c [CertificateDer<'d>], SpiffeId, &'s Domain);
