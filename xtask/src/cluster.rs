//! `cargo xtask cluster`: a real control plane without containers, in namespaces of its own, with a stand-in for
//! scheduler and kubelet that runs Pods as local processes. A shell for people, a library for `cargo xtask e2e`.
//!
//! Everything below runs *inside* the namespaces (network, mounts, processes): [`enter`] starts this program again there.
pub(crate) mod binaries;
pub(crate) mod control_plane;
pub(crate) mod namespaces;
pub(crate) mod node;

use clap::Args;

pub(crate) use self::{control_plane::ControlPlane, namespaces::enter, node::Node};

/// `cluster`
#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {}

/// Brings a cluster up and gives a shell in it, KUBECONFIG set; everything ends with the shell.
pub(crate) fn cluster(_args: &ClusterArgs) -> anyhow::Result<()> {
    todo!()
}
