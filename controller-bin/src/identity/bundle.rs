//! The ClusterTrustBundle, and which CA of the pool signs: one whose root everybody has had time to learn.
use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1beta1::{ClusterTrustBundle, ClusterTrustBundleSpec};
use kube::api::ObjectMeta;
use sha2::{Digest, Sha256};
use spiffe_id::{CaPool, TrustBundle, TrustDomain};

use super::{BUNDLE, SIGNER};

/// Annotation of the bundle: a JSON object of the roots' SHA-256 and the time from which their CA may sign.
pub(super) const SIGNS_FROM: &str = "agentic.networking.x-k8s.io/signs-from";
/// What the labels begin with that a Pod's `clusterTrustBundle` source selects by.
const LABELS: &str = "kube-agentic-networking.sigs.k8s.io";

/// From when the CA of each root may sign, by [`fingerprint`].
pub(super) type SignsFrom = BTreeMap<String, Timestamp>;

/// SHA-256 of a root's DER in hex.
pub(super) fn fingerprint(root: &[u8]) -> String {
    Sha256::digest(root).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The fingerprints of a pool's roots, in its order.
pub(super) fn fingerprints(pool: &CaPool) -> Vec<String> {
    pool.cas().map(|ca| fingerprint(ca.root())).collect()
}

/// What a bundle says of the roots that it really holds. Of roots without a word about them, and where the annotation
/// cannot be read, nothing is known.
pub(super) fn signs_from(bundle: &ClusterTrustBundle, trust_domain: &TrustDomain) -> SignsFrom {
    let said: SignsFrom = bundle
        .metadata
        .annotations
        .iter()
        .flatten()
        .find(|(key, _value)| *key == SIGNS_FROM)
        .and_then(|(_key, json)| serde_json::from_str(json).ok())
        .unwrap_or_default();
    let Ok(held) = TrustBundle::from_pem(trust_domain.clone(), bundle.spec.trust_bundle.as_bytes()) else {
        return SignsFrom::new();
    };
    held.roots()
        .iter()
        .map(|root| fingerprint(root))
        .filter_map(|root| said.get(&root).map(|from| (root, *from)))
        .collect()
}

/// From when the CAs of these roots may sign, if they are published now. `known` is what was published so far; `None`
/// where nothing ever was: then nobody trusts an older root, and there is nobody to wait for.
pub(super) fn schedule(
    roots: &[String],
    known: Option<&SignsFrom>,
    now: Timestamp,
    spread: SignedDuration,
) -> SignsFrom {
    let fresh = match known {
        None => now,
        Some(_) => now.saturating_add(spread).unwrap_or(Timestamp::MAX),
    };
    // Whole seconds, as the annotation has them.
    let fresh = Timestamp::from_second(fresh.as_second()).unwrap_or(fresh);
    roots
        .iter()
        .map(|root| (root.clone(), known.and_then(|known| known.get(root)).copied().unwrap_or(fresh)))
        .collect()
}

/// The place in the pool of the CA that signs: the first whose time has come. Otherwise when the next one's comes, if
/// any root is published.
pub(super) fn signer(
    roots: &[String],
    published: &SignsFrom,
    now: Timestamp,
) -> Result<usize, Option<Timestamp>> {
    let from = |root: &String| published.get(root).copied();
    roots
        .iter()
        .position(|root| from(root).is_some_and(|from| from <= now))
        .ok_or_else(|| roots.iter().filter_map(from).min())
}

/// The bundle as it is to be, made from the one that is there: labels and annotations of others stay. `None` if it is
/// so already.
pub(super) fn desired(
    there: Option<&ClusterTrustBundle>,
    pool: &CaPool,
    from: &SignsFrom,
    trust_domain: &TrustDomain,
) -> Option<ClusterTrustBundle> {
    let mut bundle = there.cloned().unwrap_or_else(|| ClusterTrustBundle {
        metadata: ObjectMeta { name: Some(BUNDLE.to_owned()), ..ObjectMeta::default() },
        spec: ClusterTrustBundleSpec::default(),
    });
    bundle.spec.signer_name = Some(SIGNER.to_owned());
    bundle.spec.trust_bundle = pool.roots_pem();
    let labels = bundle.metadata.labels.get_or_insert_default();
    for (name, value) in [
        ("canarying", "live"),
        ("workload-trust-domain", trust_domain.as_str()),
        ("peer-trust-domain", trust_domain.as_str()),
    ] {
        labels.insert(format!("{LABELS}/{name}"), value.to_owned());
    }
    let said = bundle.metadata.annotations.get_or_insert_default();
    let times: BTreeMap<&str, String> =
        from.iter().map(|(root, from)| (root.as_str(), from.to_string())).collect();
    said.insert(SIGNS_FROM.to_owned(), serde_json::json!(times).to_string());
    (there != Some(&bundle)).then_some(bundle)
}
