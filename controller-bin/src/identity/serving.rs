//! The controller's own certificate, made in memory: a Pod that waits for its own signer would never start.
use std::sync::Arc;

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring::default_provider,
    pki_types::{PrivateKeyDer, pem::PemObject as _},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    version::TLS13,
};
use spiffe_id::{CaPool, SpiffeId, SvidRequest};

use super::{Serving, Settings, decide::Validity};

/// What [`spiffe_id::Ca::derive`] is given for the seeds.
const SEED_INFO: &[u8] = b"agentic-gateway session seed v1";

/// Makes the certificate with the pool's signing CA, and says when it is to be made anew: at half of its life.
pub(super) fn serving(
    pool: &CaPool,
    settings: &Settings,
    now: Timestamp,
) -> anyhow::Result<(Serving, Timestamp)> {
    let id = SpiffeId::for_service_account(
        &settings.trust_domain,
        &settings.namespace,
        &settings.service_account,
    )?;
    let ca_end = Timestamp::try_from(pool.not_after())?;
    let lifetime = SignedDuration::try_from(settings.lifetime)?;
    let validity = Validity::new(now, lifetime, ca_end, SignedDuration::ZERO)
        .context("the signing CA is over; rotate the CA pool")?;
    let request = SvidRequest::new(&id, validity.not_before.into(), validity.not_after.into());
    let svid = pool.issue(&request.with_dns_names(&settings.dns_names))?;
    let key = svid.key_pem.as_deref().context("a certificate without its key")?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;

    let mut roots = RootCertStore::empty();
    for ca in pool.cas() {
        roots.add(ca.root().clone())?;
    }
    let provider = Arc::new(default_provider());
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(clients)
        .with_single_cert(svid.chain, key)?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would carry an identity that was verified with older roots.
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    tls.send_tls13_tickets = 0;

    let seeds = pool.cas().map(|ca| ca.derive(SEED_INFO)).collect::<Result<Vec<_>, _>>()?;
    let serving = Serving { tls: Arc::new(tls), roots: pool.roots_pem().into(), seeds: seeds.into() };
    Ok((serving, validity.half_life))
}
