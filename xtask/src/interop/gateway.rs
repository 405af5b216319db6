//! The real gateway, with manifests of its own.
use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tokio::process::Command;

use super::{
    certificates::{ServerCertificate, Workload},
    http::{self, Target},
    process::{Process, accepts, free_port},
};
use crate::command::{cargo, run, target_folder};

/// The namespace that everything is in.
pub(crate) const NAMESPACE: &str = "interop";
/// The port of [`Manifests::https`].
pub(crate) const HTTPS: u16 = 8443;
/// The port of [`Manifests::http`].
pub(crate) const HTTP: u16 = 8080;

const AGENTIC: &str = "agentic.prototype.x-k8s.io";
const START: Duration = Duration::from_secs(20);

/// Builds the gateway as the workspace's dev profile says and gives the path of the binary.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    run(cargo().args(["build", "--locked", "-p", "agentic-gateway"]))?;
    Ok(target_folder().join("debug/agentic-gateway"))
}

/// Objects, as a user would write them.
#[derive(Debug, Clone)]
pub(crate) struct Manifests(Vec<Value>);

impl Manifests {
    /// A Gateway with a plain listener.
    pub(crate) fn http() -> Self {
        Self::gateway(json!({"name": "http", "protocol": "HTTP", "port": HTTP}))
    }

    /// A Gateway with an HTTPS listener that has a certificate of its own: client certificates are verified, and optional.
    pub(crate) fn https(certificate: &ServerCertificate) -> Self {
        let mut manifests = Self::gateway(json!({
            "name": "https", "protocol": "HTTPS", "port": HTTPS,
            "tls": {"mode": "Terminate", "certificateRefs": [{"name": "server-certificate"}]},
        }));
        manifests.0.push(json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {"name": "server-certificate", "namespace": NAMESPACE},
            "data": {
                "tls.crt": STANDARD.encode(&certificate.certificate_pem),
                "tls.key": STANDARD.encode(&certificate.key_pem),
            },
        }));
        manifests
    }

    fn gateway(listener: Value) -> Self {
        Self(vec![
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "GatewayClass",
                "metadata": {"name": "interop"},
                "spec": {"controllerName": "sigs.k8s.io/kube-agentic-networking-controller"},
            }),
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "Gateway",
                "metadata": {"name": "interop", "namespace": NAMESPACE},
                "spec": {"gatewayClassName": "interop", "listeners": [listener]},
            }),
        ])
    }

    /// An MCP server at `/mcp` of a port of loopback, reached at `/mcp` of the gateway.
    #[must_use]
    pub(crate) fn mcp_server(mut self, name: &str, port: u16) -> Self {
        self.service(name, port);
        self.0.push(json!({
            "apiVersion": format!("{AGENTIC}/v0alpha0"),
            "kind": "XBackend",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"mcp": {"serviceName": name, "port": port, "path": "/mcp"}},
        }));
        self.0.push(json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {
                "parentRefs": [{"name": "interop"}],
                "rules": [{
                    "matches": [{"path": {"type": "PathPrefix", "value": "/mcp"}}],
                    "backendRefs": [{"group": AGENTIC, "kind": "XBackend", "name": name}],
                }],
            },
        }));
        self
    }

    /// An authorizer on a port of loopback.
    #[must_use]
    pub(crate) fn authorizer(mut self, name: &str, port: u16) -> Self {
        self.service(name, port);
        self
    }

    fn service(&mut self, name: &str, port: u16) {
        self.0.push(json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"ports": [{"name": "main", "port": port}]},
        }));
        self.0.push(json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "ports": [{"name": "main", "port": port}],
            "endpoints": [{"addresses": ["127.0.0.1"]}],
        }));
    }

    /// A v0alpha0 policy for an MCP server; rules as `(service account, authorization)`.
    #[must_use]
    pub(crate) fn policy(mut self, backend: &str, rules: &[(&str, Value)]) -> Self {
        let rules: Vec<Value> = rules
            .iter()
            .map(|(account, authorization)| {
                json!({
                    "name": format!("for-{account}"),
                    "source": {"type": "ServiceAccount", "serviceAccount": {"name": account}},
                    "authorization": authorization,
                })
            })
            .collect();
        self.0.push(json!({
            "apiVersion": format!("{AGENTIC}/v0alpha0"),
            "kind": "XAccessPolicy",
            "metadata": {"name": format!("for-{backend}"), "namespace": NAMESPACE},
            "spec": {"targetRefs": [{"group": AGENTIC, "kind": "XBackend", "name": backend}], "rules": rules},
        }));
        self
    }

    /// Writes one file into a folder, replacing it as a whole.
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        // JSON is YAML.
        let text: String = self.0.iter().map(|object| format!("---\n{object}\n")).collect();
        fs::create_dir_all(folder)?;
        let new = folder.join(".new");
        fs::write(&new, text)?;
        fs::rename(&new, folder.join("interop.yaml"))
            .with_context(|| format!("`{}` cannot be written", folder.display()))
    }
}

/// `{type: InlineTools, tools}`
pub(crate) fn inline_tools(tools: &[&str]) -> Value {
    json!({"type": "InlineTools", "tools": tools})
}

/// A gateway that runs.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) process: Process,
    addresses: BTreeMap<u16, SocketAddr>,
}

impl Gateway {
    /// Starts it with the listeners of these ports on free ports of loopback, and waits until it is ready.
    pub(crate) async fn start(
        binary: &Path,
        manifests: &Path,
        identity: Option<&Workload>,
        ports: &[u16],
    ) -> anyhow::Result<Self> {
        let admin = loopback(free_port()?);
        let addresses: BTreeMap<u16, SocketAddr> =
            ports.iter().map(|port| Ok((*port, loopback(free_port()?)))).collect::<anyhow::Result<_>>()?;
        let mut command = Command::new(binary);
        command.arg("run").arg("--manifests").arg(manifests).args(["--admin-addr", &admin.to_string()]);
        for (port, address) in &addresses {
            command.args(["--listen", &format!("{port}={address}")]);
        }
        if let Some(identity) = identity {
            command.arg("--identity-dir").arg(&identity.identity_dir);
        }
        let mut process = Process::start("agentic-gateway run", &mut command)?;
        process
            .until_ready(START, async || {
                for address in addresses.values() {
                    if !accepts(*address).await {
                        return false;
                    }
                }
                http::status(&Target::plain(admin), "/readyz").await.is_ok_and(|status| status == 200)
            })
            .await?;
        Ok(Self { process, addresses })
    }

    /// Where the listeners of a port are.
    pub(crate) fn address(&self, port: u16) -> anyhow::Result<SocketAddr> {
        self.addresses.get(&port).copied().with_context(|| format!("no listener on port {port}"))
    }
}

/// A sidecar that runs.
#[derive(Debug)]
pub(crate) struct Sidecar {
    _process: Process,
    pub(crate) address: SocketAddr,
}

impl Sidecar {
    /// Starts it in front of a gateway on `localhost`, whose certificate is for that name.
    pub(crate) async fn start(
        binary: &Path,
        gateway: SocketAddr,
        identity: &Workload,
        ca: &Path,
    ) -> anyhow::Result<Self> {
        let address = loopback(free_port()?);
        let mut command = Command::new(binary);
        command
            .args(["sidecar", "--to", &format!("https://localhost:{}", gateway.port())])
            .args(["--listen", &address.to_string(), "--identity-dir"])
            .arg(&identity.identity_dir)
            .arg("--extra-ca")
            .arg(ca);
        let mut process = Process::start("agentic-gateway sidecar", &mut command)?;
        process.until_ready(START, async || accepts(address).await).await?;
        Ok(Self { _process: process, address })
    }
}

pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
