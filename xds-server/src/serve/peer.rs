//! Who is at the other end of a connection.
use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::pki_types::CertificateDer;
use spiffe_id::SpiffeId;
use tokio::time::Instant;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::Admit;

/// Timers are set for no longer than this.
const FAR: Duration = Duration::from_secs(365 * 86_400);

/// An admitted client.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) id: SpiffeId,
    pub(super) group: Arc<str>,
    pub(super) address: IpAddr,
    /// When its certificate has expired.
    pub(super) expires: Instant,
}

impl Peer {
    /// The client with this chain, which rustls has verified; or why it is not admitted.
    pub(super) fn admitted(
        chain: Option<&[CertificateDer<'_>]>,
        address: IpAddr,
        admit: &Admit,
    ) -> Result<Self, String> {
        let leaf = chain.and_then(<[_]>::first).ok_or("the client shows no certificate")?;
        let id = spiffe_id::identity_of(leaf).map_err(|error| error.to_string())?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?;
        let left = valid_for(leaf, now).ok_or("the client's certificate has expired")?;
        let group = admit(&id).ok_or_else(|| format!("`{id}` belongs to no group"))?;
        Ok(Self { id, group, address, expires: Instant::now() + left })
    }
}

/// How long a certificate is valid from `now` (since 1970) on; not at all: `None`.
fn valid_for(leaf: &[u8], now: Duration) -> Option<Duration> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    let not_after = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    // A certificate that is valid to the end of a second is so for all of it (RFC 5280, section 4.1.2.5).
    let left = Duration::from_secs(not_after.checked_add(1)?).checked_sub(now)?;
    (!left.is_zero()).then_some(left.min(FAR))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(not_after: u64) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::default();
        params.not_after = (UNIX_EPOCH + Duration::from_secs(not_after)).into();
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn a_certificate_lasts_through_its_last_second() {
        let at = |millis: u64| Duration::from_millis(millis);
        let leaf = leaf(1_900_000_000);
        assert_eq!(valid_for(&leaf, at(1_899_999_990_500)), Some(at(10_500)));
        assert_eq!(valid_for(&leaf, at(1_900_000_000_999)), Some(at(1)));
        assert_eq!(valid_for(&leaf, at(1_900_000_001_000)), None);
        assert_eq!(valid_for(&leaf, at(1_900_000_005_000)), None);
        assert_eq!(valid_for(&leaf, at(0)), Some(FAR));
        assert_eq!(valid_for(b"no certificate", at(0)), None);
    }
}
