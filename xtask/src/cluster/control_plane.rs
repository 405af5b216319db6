//! etcd, kube-apiserver and kube-controller-manager, started, watched and stopped.
mod component;
mod credentials;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::process::Command;

use self::{component::Component, credentials::Credentials};
use super::{access::Access, binaries::Binaries, namespaces::NODE_ADDRESS};

/// The one node's name.
pub(crate) const NODE_NAME: &str = "node-1";

/// Where the API server is reached.
pub(crate) const API_SERVER: &str = "https://10.244.0.1:6443";

const ETCD: &str = "http://127.0.0.1:2379";
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// kubectl's cache.
const CACHE: &str = "kubectl-cache";
const START: Duration = Duration::from_secs(60);

/// Feature gates and API versions for PodCertificateRequests and ClusterTrustBundles. The gate for the projection too, or
/// the API server drops `clusterTrustBundle` sources of volumes without a word.
const FEATURES: &str = "--feature-gates=PodCertificateRequest=true,ClusterTrustBundle=true,\
                        ClusterTrustBundleProjection=true";

/// What a test needs of the controller manager. Nothing here runs Pods or routes Services: that is the node's.
const CONTROLLERS: &str = "--controllers=deployment-controller,replicaset-controller,\
                           endpointslice-controller,garbage-collector-controller,namespace-controller,\
                           serviceaccount-controller,serviceaccount-token-controller,\
                           root-ca-certificate-publisher-controller,disruption-controller";

/// A control plane that serves. Its processes end when it is dropped.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    dir: PathBuf,
    binaries: Binaries,
    credentials: Credentials,
    // In this order they are dropped: who asks goes before who answers.
    _controller_manager: Component,
    api_server: Component,
    _etcd: Component,
}

impl ControlPlane {
    /// Starts all three and waits until `/readyz` is ok and the `default` ServiceAccount exists. `dir` holds data, keys and
    /// logs. The API server listens on `https://10.244.0.1:6443` (certificate for that, 127.0.0.1, kubernetes.default.svc
    /// and the service address), Pods reach it there.
    ///
    /// # Errors
    /// If a file cannot be written or a process does not get ready within a minute; with the end of its log.
    pub(crate) async fn start(dir: &Path, binaries: &Binaries) -> anyhow::Result<Self> {
        for folder in ["", "etcd", CACHE] {
            let folder = dir.join(folder);
            std::fs::create_dir_all(&folder)
                .with_context(|| format!("`{}` cannot be made", folder.display()))?;
        }
        // HTTP clients ask for one; it may have been installed before.
        drop(rustls::crypto::ring::default_provider().install_default());
        let credentials = Credentials::write(dir)?;
        let mut etcd = Component::start("etcd", dir, etcd(dir, binaries))?;
        let http = reqwest::Client::new();
        etcd.until(START, async || {
            let health = http.get(format!("{ETCD}/health")).send().await;
            health.is_ok_and(|response| response.status().is_success())
        })
        .await?;
        let mut api_server =
            Component::start("kube-apiserver", dir, api_server(dir, binaries, &credentials))?;
        let access = Access::of_files(&binaries.kubectl, &credentials.admin, &dir.join(CACHE));
        let client = access.client().await?;
        until_ready(&mut api_server, &client).await?;
        let mut controller_manager = Component::start(
            "kube-controller-manager",
            dir,
            controller_manager(dir, binaries, &credentials),
        )?;
        let accounts: Api<ServiceAccount> = Api::namespaced(client, "default");
        controller_manager
            .until(START, async || accounts.get_opt("default").await.is_ok_and(|found| found.is_some()))
            .await?;
        Ok(Self {
            dir: dir.to_owned(),
            binaries: binaries.clone(),
            credentials,
            _controller_manager: controller_manager,
            api_server,
            _etcd: etcd,
        })
    }

    /// For an administrator.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.credentials.admin.clone()
    }

    /// kubectl's own cache of what the API server serves: another cluster at the same address has had another.
    pub(crate) fn kubectl_cache(&self) -> PathBuf {
        self.dir.join(CACHE)
    }

    /// A client for the kubelet of [`NODE_NAME`]: `system:node:node-1` in the group `system:nodes`, held to its rights by the
    /// Node authorizer and NodeRestriction.
    pub(crate) async fn node_client(&self) -> anyhow::Result<Client> {
        Access::of_files(&self.binaries.kubectl, &self.credentials.node, &self.kubectl_cache()).client().await
    }

    /// As an administrator.
    pub(crate) fn access(&self) -> Access {
        Access::of_files(&self.binaries.kubectl, &self.credentials.admin, &self.kubectl_cache())
    }

    /// Kills the API server (SIGKILL) and waits until it is gone.
    pub(crate) async fn stop_api_server(&mut self) -> anyhow::Result<()> {
        self.api_server.kill().await
    }

    /// Starts it again and waits until it is ready.
    pub(crate) async fn start_api_server(&mut self) -> anyhow::Result<()> {
        let command = api_server(&self.dir, &self.binaries, &self.credentials);
        self.api_server = Component::start("kube-apiserver", &self.dir, command)?;
        let client = self.access().client().await?;
        until_ready(&mut self.api_server, &client).await
    }

    /// Compacts etcd's history up to now, so that a watch that was interrupted before gets 410 (from an API server that
    /// was started since; one that ran on still remembers).
    pub(crate) async fn compact_etcd(&self) -> anyhow::Result<()> {
        let http = reqwest::Client::new();
        let ask = async |path: &str, body: Value| -> anyhow::Result<Value> {
            let body = serde_json::to_vec(&body)?;
            let response = http.post(format!("{ETCD}{path}")).body(body).send().await?;
            let status = response.status();
            let text = response.text().await?;
            ensure!(status.is_success(), "etcd's `{path}` answers {status}: {text}");
            Ok(serde_json::from_str(&text)?)
        };
        // Keys are base64; this one ("a") need not exist, the header has the revision.
        let found = ask("/v3/kv/range", json!({"key": "YQ=="})).await?;
        let revision = found.pointer("/header/revision").context("etcd gives no revision")?;
        ask("/v3/kv/compaction", json!({"revision": revision, "physical": true})).await?;
        Ok(())
    }
}

async fn until_ready(api_server: &mut Component, client: &Client) -> anyhow::Result<()> {
    api_server
        .until(START, async || {
            let Ok(request) = http::Request::get("/readyz").body(Vec::new()) else { return false };
            client.request_text(request).await.is_ok()
        })
        .await
}

fn etcd(dir: &Path, binaries: &Binaries) -> Command {
    let peers = "http://127.0.0.1:2380";
    let mut command = Command::new(&binaries.etcd);
    command.arg("--data-dir").arg(dir.join("etcd"));
    command.args(["--listen-client-urls", ETCD, "--advertise-client-urls", ETCD]);
    command.args(["--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers]);
    command.args(["--initial-cluster", &format!("default={peers}")]);
    // It need not survive a power cut.
    command.args(["--unsafe-no-fsync", "--log-level=warn"]);
    command
}

fn api_server(dir: &Path, binaries: &Binaries, credentials: &Credentials) -> Command {
    let mut command = Command::new(&binaries.kube_apiserver);
    command.args(["--etcd-servers", ETCD, "--secure-port=6443", "--bind-address=0.0.0.0"]);
    command.args(["--advertise-address", NODE_ADDRESS, "--service-cluster-ip-range=10.0.0.0/24"]);
    command.arg("--cert-dir").arg(dir);
    command.arg("--tls-cert-file").arg(&credentials.serving_certificate);
    command.arg("--tls-private-key-file").arg(&credentials.serving_key);
    command.arg("--service-account-key-file").arg(&credentials.service_account_public_key);
    command.arg("--service-account-signing-key-file").arg(&credentials.service_account_key);
    command.args(["--service-account-issuer", ISSUER]);
    command.arg("--token-auth-file").arg(&credentials.tokens);
    command.args(["--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction"]);
    command.args([FEATURES, "--runtime-config=certificates.k8s.io/v1beta1=true"]);
    command
}

fn controller_manager(dir: &Path, binaries: &Binaries, credentials: &Credentials) -> Command {
    let mut command = Command::new(&binaries.kube_controller_manager);
    command.arg("--kubeconfig").arg(&credentials.admin);
    command.arg("--cert-dir").arg(dir);
    command.arg("--root-ca-file").arg(&credentials.ca);
    command.arg("--service-account-private-key-file").arg(&credentials.service_account_key);
    command.args(["--leader-elect=false", CONTROLLERS]);
    command
}
