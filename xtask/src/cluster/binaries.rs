//! etcd, kube-apiserver, kube-controller-manager and Authorino, built from Go modules (`xtask/peers/cluster/*`) and cached
//! outside the clone, keyed by the wrapper modules' `go.sum` and versions.
use std::path::PathBuf;

/// Where they are.
#[derive(Debug, Clone)]
pub(crate) struct Binaries {
    pub(crate) etcd: PathBuf,
    pub(crate) kube_apiserver: PathBuf,
    pub(crate) kube_controller_manager: PathBuf,
    pub(crate) authorino: PathBuf,
    /// Authorino's AuthConfig CRD (YAML), from its module.
    pub(crate) authorino_crd: PathBuf,
    /// Gateway API v1.5.1's standard CRDs (a folder of YAML files), from its module.
    pub(crate) gateway_api_crds: PathBuf,
    pub(crate) kubectl: PathBuf,
}

/// Builds what is not in the cache (about 8 minutes on 2 cores when nothing is). Call it before [`super::enter`].
pub(crate) fn build() -> anyhow::Result<Binaries> {
    todo!()
}
