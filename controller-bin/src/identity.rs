//! The identity signer: PodCertificateRequests, trust bundles, the CA pool.
use std::{collections::BTreeSet, sync::Arc, time::Duration};

use policy_model::NamespacedName;
use spiffe_id::TrustDomain;
use tokio::sync::watch;

use crate::lease::Membership;

/// Name of the signer.
pub const SIGNER: &str = "kube-agentic-networking.sigs.k8s.io/identity";
/// Name of the ClusterTrustBundle.
pub const BUNDLE: &str = "kube-agentic-networking.sigs.k8s.io:identity:primary-bundle";
/// Name of the CA pool's Secret, in the controller's namespace.
pub const POOL_SECRET: &str = "agentic-identity-ca-pool";

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
}

/// What the rest of the controller needs of it.
#[derive(Debug, Clone)]
pub struct Serving {
    /// For the discovery service: the controller's own certificate, and clients verified against the pool's roots. Made anew before it expires and when the pool changes.
    pub tls: Arc<rustls::ServerConfig>,
    /// Secrets from which [`session_keys`] are derived, the signing CA's first.
    pub seeds: Arc<[[u8; 32]]>,
}

/// The keys that seal sessions at a Gateway: derived (HKDF-SHA256) from each seed, so that every replica of controller
/// and proxy has the same without storing anything.
pub fn session_keys(_seeds: &[[u8; 32]], _gateway: &NamespacedName) -> Vec<[u8; 32]> {
    todo!()
}

/// Runs the signer: waits for (or, as the leader, creates) the CA pool, publishes the bundle as the leader, answers the
/// PodCertificateRequests whose [`owner`](crate::lease::owner) is this replica. `gateways` are the Gateways of ours that
/// exist: a proxy's identity is given only to Pods that their Deployment owns.
///
/// # Errors
/// Only what waiting cannot mend.
pub async fn run(
    _client: kube::Client,
    _settings: Settings,
    _replica: String,
    _membership: watch::Receiver<Membership>,
    _gateways: watch::Receiver<BTreeSet<NamespacedName>>,
    _serving: watch::Sender<Option<Serving>>,
) -> anyhow::Result<()> {
    todo!()
}
