//! The stand-in for scheduler, kubelet, kube-proxy's load balancers and DNS.
//!
//! Pods run as processes of this machine, each in namespaces of its own. It must itself run as root inside the cluster's
//! namespaces. What differs from a real node, besides that there are no containers' images:
//!
//! - A Service's names are in a hosts file and lead to its ready endpoints; there are no ClusterIPs. So the port of a Service
//!   must be the port that its Pods listen on, and a name without a ready endpoint does not exist.
//! - A load balancer's address is on the node; connections that it forwards come from the node's address.
//! - Containers that crash are started again after 0.2 s to 5 s, not 10 s to 5 min; a probe that has not succeeded yet is tried
//!   between its periods too, though only its successes count then.
//! - The program is process 1 of its container, as in Kubernetes. One that does not handle SIGTERM, which such a process
//!   therefore ignores, is killed at once and not when its time is over.
//! - Volumes and variables that are not known here keep a Pod waiting, with the reason in its status and an Event; what only
//!   limits or places a Pod (resources, affinity, tolerations, seccomp, host namespaces) is not looked at.
//! - The kubelet API serves logs only, to everybody in the cluster's network.
mod certificates;
mod containers;
mod context;
mod environment;
mod files;
mod hosts;
mod logs;
mod pods;
mod probes;
mod sandbox;
mod services;
mod status;
mod volumes;

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, ensure};
use k8s_openapi::{
    api::core::v1::{
        DaemonEndpoint, Node as NodeObject, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeStatus,
        NodeSystemInfo,
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{ObjectMeta, Time},
    },
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
};
use tokio::task::JoinSet;

use self::{context::Context, hosts::Hosts};
use super::{ControlPlane, control_plane::NODE_NAME};

/// The node's address, on the bridge that Pods are on. The API server listens there too.
const NODE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
const API_SERVER_PORT: u16 = 6443;
const KUBELET_PORT: u16 = 10250;

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
pub(crate) struct Node {
    context: Arc<Context>,
    _tasks: JoinSet<()>,
}

impl Node {
    /// Creates the Node object and starts the loops: scheduling, Pods, volumes, probes, logs, load balancers, hosts file.
    pub(crate) async fn start(
        control_plane: &ControlPlane,
        dir: &Path,
        options: NodeOptions,
    ) -> anyhow::Result<Self> {
        ensure!(
            maps_users(&std::fs::read_to_string("/proc/self/uid_map")?),
            "Pods run as users of their own: run this as root (`sudo`), not as root of a user namespace"
        );
        // HTTPS probes take the process's own. An error: it is there already.
        drop(rustls::crypto::ring::default_provider().install_default());
        std::fs::create_dir_all(dir).context("the node's folder")?;
        // What is in it is the node's own: volumes are for the containers that mount them.
        std::fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        let dir = dir.canonicalize()?;
        let (admin, node) = (control_plane.access().client().await?, control_plane.node_client().await?);
        sandbox::clean().await?;
        services::clean().await?;
        let (listener, tls) = logs::listen().await?;
        let hosts = Hosts::open("/etc/hosts".into()).context("the hosts file")?;
        let uid = register(&admin).await.context("the Node object")?;
        let mut tasks = JoinSet::new();
        let context = Arc::new(Context::new(dir, options, (admin, node, uid), &mut tasks));
        tasks.spawn(pods::schedule(Arc::clone(&context)));
        tasks.spawn(pods::run(Arc::clone(&context)));
        tasks.spawn(services::run(Arc::clone(&context), hosts));
        tasks.spawn(logs::serve(Arc::clone(&context), listener, tls));
        Ok(Self { context, _tasks: tasks })
    }

    /// What a container wrote so far (standard output and error together), all restarts. Of a Pod that is gone, too; of the
    /// newest, if there were several of that name.
    pub(crate) fn logs(&self, namespace: &str, pod: &str, container: &str) -> anyhow::Result<String> {
        let record = self.context.recorded(namespace, pod);
        let record = record.with_context(|| format!("no Pod `{namespace}/{pod}` ran on this node"))?;
        logs::all(&record.logs.join(container)).with_context(|| format!("`{namespace}/{pod}/{container}`"))
    }

    /// Process id of a running container's program as seen inside the cluster's namespaces, to be measured or killed.
    pub(crate) fn pid(&self, namespace: &str, pod: &str, container: &str) -> Option<u32> {
        self.context.recorded(namespace, pod)?.pids.get(container).copied()
    }
}

/// Whether there are other users than root, by `/proc/self/uid_map` (user_namespaces(7)).
fn maps_users(uid_map: &str) -> bool {
    let lengths = uid_map.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok());
    lengths.sum::<u64>() > 65_535
}

/// Makes the Node object, ready; its UID.
async fn register(admin: &Client) -> anyhow::Result<String> {
    let nodes: Api<NodeObject> = Api::all(admin.clone());
    let labels = [
        ("kubernetes.io/hostname", NODE_NAME),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }),
    ];
    let labels = labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let node = NodeObject {
        metadata: ObjectMeta { name: Some(NODE_NAME.into()), labels: Some(labels), ..ObjectMeta::default() },
        ..NodeObject::default()
    };
    match nodes.create(&PostParams::default(), &node).await {
        // It was here before.
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        created => drop(created?),
    }
    let now = Time(context::now());
    let amounts = [("cpu", "16"), ("memory", "64Gi"), ("pods", "10000"), ("ephemeral-storage", "1Ti")];
    let amounts: BTreeMap<_, _> =
        amounts.into_iter().map(|(name, much)| (name.to_owned(), Quantity(much.to_owned()))).collect();
    let status = NodeStatus {
        // Not the host's name, which the API server would prefer and nobody knows.
        addresses: Some(vec![NodeAddress {
            type_: "InternalIP".to_owned(),
            address: NODE_ADDRESS.to_string(),
        }]),
        allocatable: Some(amounts.clone()),
        capacity: Some(amounts),
        conditions: Some(vec![NodeCondition {
            type_: "Ready".into(),
            status: "True".into(),
            reason: Some("KubeletReady".into()),
            message: Some("Pods run as processes of this machine".into()),
            last_heartbeat_time: Some(now.clone()),
            last_transition_time: Some(now),
        }]),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(KUBELET_PORT) }),
        }),
        node_info: Some(NodeSystemInfo {
            kubelet_version: "v1.36.0-processes".into(),
            operating_system: "linux".into(),
            container_runtime_version: "processes://1".into(),
            ..NodeSystemInfo::default()
        }),
        ..NodeStatus::default()
    };
    let patch = Patch::Merge(serde_json::json!({"status": status}));
    let node = nodes.patch_status(NODE_NAME, &PatchParams::default(), &patch).await?;
    node.uid().context("a Node without a UID")
}

#[cfg(test)]
mod tests {
    use super::maps_users;

    #[test]
    fn users_of_namespaces() {
        assert!(maps_users("         0          0 4294967295\n"));
        assert!(maps_users("         0       1000          1\n         1     100000      65536\n"));
        assert!(!maps_users("         0          0          1\n"));
        assert!(!maps_users(""));
    }
}
