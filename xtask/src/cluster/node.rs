//! The stand-in for scheduler, kubelet, kube-proxy's load balancers and DNS.
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::ControlPlane;

/// How an image is run: containers' `command` (if given) replaces `program`'s, `args` are appended as Kubernetes does.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// The entry point: a program and its first arguments.
    pub(crate) entrypoint: Vec<String>,
    /// `CMD`: used where the container gives no args.
    pub(crate) arguments: Vec<String>,
    /// Environment of the image.
    pub(crate) env: BTreeMap<String, String>,
    /// Its working directory.
    pub(crate) working_dir: Option<PathBuf>,
}

/// Settings of the node.
#[derive(Debug, Clone)]
pub(crate) struct NodeOptions {
    /// Image name (without tag or digest) to what runs.
    pub(crate) images: BTreeMap<String, Image>,
    /// Extra names for the hosts file: name to `namespace/service` (`mcp.deepwiki.com` to the Service that stands in for it).
    pub(crate) external_names: BTreeMap<String, String>,
}

/// A node that runs Pods. All its processes end when it is dropped.
#[derive(Debug)]
pub(crate) struct Node {}

impl Node {
    /// Creates the Node object and starts the loops: scheduling, Pods, volumes, probes, logs, load balancers, hosts file.
    pub(crate) async fn start(
        _control_plane: &ControlPlane,
        _dir: &Path,
        _options: NodeOptions,
    ) -> anyhow::Result<Self> {
        todo!()
    }

    /// What a container wrote so far (standard output and error together), all restarts.
    pub(crate) fn logs(&self, _namespace: &str, _pod: &str, _container: &str) -> anyhow::Result<String> {
        todo!()
    }

    /// Process id of a running container's program as seen inside the cluster's namespaces, to be measured or killed.
    pub(crate) fn pid(&self, _namespace: &str, _pod: &str, _container: &str) -> Option<u32> {
        todo!()
    }
}
