//! The identity signer: PodCertificateRequests, trust bundles, the CA pool.
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use policy_model::NamespacedName;
use ring::hkdf::{HKDF_SHA256, Salt};
use spiffe_id::TrustDomain;
use tokio::sync::watch;

use crate::lease::Membership;

mod authority;
mod bundle;
mod decide;
mod pool;
mod queue;
mod requests;
mod serving;

/// Name of the signer.
pub const SIGNER: &str = "kube-agentic-networking.sigs.k8s.io/identity";
/// Name of the ClusterTrustBundle.
pub const BUNDLE: &str = "kube-agentic-networking.sigs.k8s.io:identity:primary-bundle";
/// Name of the CA pool's Secret, in the controller's namespace.
pub const POOL_SECRET: &str = "agentic-identity-ca-pool";

/// What the API server is to be started with where it does not know the kinds.
const GATES: &str = "start the API server with `--feature-gates=PodCertificateRequest=true,ClusterTrustBundle=true,\
                     ClusterTrustBundleProjection=true --runtime-config=certificates.k8s.io/v1beta1=true`, and the kubelets with the \
                     same gates";

/// Settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The controller's namespace.
    pub namespace: String,
    /// The controller's ServiceAccount.
    pub service_account: String,
    /// Trust domain.
    pub trust_domain: TrustDomain,
    /// How long certificates last: 24 h, or the requested time if shorter.
    pub lifetime: Duration,
    /// DNS names of the controller's own serving certificate.
    pub dns_names: Vec<String>,
    /// How long a bundle takes to spread: a new root signs only after it.
    pub spread: Duration,
    /// What this replica did, for metrics.
    pub counts: Arc<Counts>,
}

/// PodCertificateRequests that this replica answered since it started.
#[derive(Debug, Default)]
pub struct Counts {
    issued: AtomicU64,
    denied: AtomicU64,
    failed: AtomicU64,
}
impl Counts {
    /// With a certificate.
    pub fn issued(&self) -> u64 {
        self.issued.load(Ordering::Relaxed)
    }
    /// With a denial.
    pub fn denied(&self) -> u64 {
        self.denied.load(Ordering::Relaxed)
    }
    /// With a failure.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

/// What the rest of the controller needs of it.
#[derive(Debug, Clone)]
pub struct Serving {
    /// For the discovery service: the controller's own certificate, and clients verified against the pool's roots. Made anew before it expires and when the pool changes.
    pub tls: Arc<rustls::ServerConfig>,
    /// The pool's roots (PEM): whose identities are accepted.
    pub roots: Arc<str>,
    /// Secrets from which [`session_keys`] are derived, the signing CA's first.
    pub seeds: Arc<[[u8; 32]]>,
}

/// The keys that seal sessions at a Gateway: derived (HKDF-SHA256) from each seed, so that every replica of controller
/// and proxy has the same without storing anything.
pub fn session_keys(seeds: &[[u8; 32]], gateway: &NamespacedName) -> Vec<[u8; 32]> {
    let gateway = gateway.to_string();
    let info = [b"agentic-gateway session keys v1".as_slice(), gateway.as_bytes()];
    let derive = |seed: &[u8; 32]| {
        let mut key = [0; 32];
        let prk = Salt::new(HKDF_SHA256, &[]).extract(seed);
        // Fails for more than 255 hashes' worth only (RFC 5869, section 2.3); this is one.
        prk.expand(&info, HKDF_SHA256).and_then(|okm| okm.fill(&mut key)).ok()?;
        Some(key)
    };
    seeds.iter().filter_map(derive).collect()
}

/// Runs the signer: waits for (or, as the leader, creates) the CA pool, publishes the bundle as the leader, answers the
/// PodCertificateRequests whose [`owner`](crate::lease::owner) is this replica. `gateways` are the Gateways of ours that
/// exist: a proxy's identity is given only to Pods that their Deployment owns.
///
/// # Errors
/// Only what waiting cannot mend.
pub async fn run(
    client: kube::Client,
    settings: Settings,
    replica: String,
    membership: watch::Receiver<Membership>,
    gateways: watch::Receiver<BTreeSet<NamespacedName>>,
    serving: watch::Sender<Option<Serving>>,
) -> anyhow::Result<()> {
    let settings = Arc::new(settings);
    let (sender, authority) = watch::channel(None);
    tokio::select! {
        done = authority::keep(client.clone(), Arc::clone(&settings), membership.clone(), sender, serving) => done,
        done = requests::answer(client, settings, replica, membership, gateways, authority) => done,
    }
}

#[cfg(test)]
mod tests;
