//! Which chains give which identities: each trust domain is judged by its own roots only.
use std::{collections::BTreeMap, fmt, sync::Arc};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, UnixTime},
    server::{ParsedCertificate, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use spiffe_id::{IdentityError, SpiffeId, TrustBundle, identity_of};

use super::provider;

/// The trust bundles, by trust domain.
///
/// A CA of one trust domain never vouches for an identity of another: the identity is read from the leaf first, and
/// its own trust domain's roots alone are asked.
#[derive(Debug, Default)]
pub struct TrustDomains {
    domains: BTreeMap<String, Domain>,
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
        Ok(Self { domains })
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
