//! The CA pool in its Secret.
use std::{collections::BTreeMap, time::SystemTime};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::api::ObjectMeta;
use spiffe_id::{CaPool, IssueError, KeyKind, TrustDomain};

use super::POOL_SECRET;

/// The Secret's key.
const POOL_KEY: &str = "ca-pool.json";
/// How long a new root is valid. It is in nobody's hands to renew it in time but people's: rotation is theirs.
const ROOT_LIFETIME: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);
/// For clocks that are behind.
const BACKDATE: SignedDuration = SignedDuration::from_hours(1);

/// A pool with one new Ed25519 root that vouches for this trust domain alone, for ten years.
///
/// # Errors
/// As [`CaPool::generate`].
pub(super) fn new_pool(trust_domain: &TrustDomain, now: Timestamp) -> Result<CaPool, IssueError> {
    let begin = now.saturating_sub(BACKDATE).unwrap_or(now);
    let end = now.saturating_add(ROOT_LIFETIME).unwrap_or(Timestamp::MAX);
    let id = format!("ca-{}", now.as_second());
    CaPool::generate(&id, trust_domain, KeyKind::Ed25519, SystemTime::from(begin), SystemTime::from(end))
}

/// The Secret that holds a pool.
pub(super) fn pool_secret(namespace: &str, pool: &CaPool) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(POOL_SECRET.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(POOL_KEY.to_owned(), ByteString(pool.to_json().into_bytes()))])),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}

/// Reads the pool of a Secret.
///
/// # Errors
/// What is wrong with it; no secrets in the text.
pub(super) fn read_pool(secret: &Secret, trust_domain: &TrustDomain) -> Result<CaPool, String> {
    let json = secret
        .data
        .iter()
        .flatten()
        .find_map(|(key, value)| (key == POOL_KEY).then_some(&value.0))
        .ok_or_else(|| format!("it has no key `{POOL_KEY}`"))?;
    let pool = CaPool::from_json(json).map_err(|error| error.to_string())?;
    match pool.trust_domain() {
        Some(own) if own != trust_domain => Err(format!(
            "its roots are of the trust domain `{own}`, while this controller has `--trust-domain {trust_domain}`"
        )),
        _ => Ok(pool),
    }
}
