//! The real gateway, with manifests of its own.
use std::{
    collections::BTreeMap,
    fmt, fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tokio::process::Command;

use super::{
    Run,
    certificates::{ServerCertificate, Workload},
    envoy::{NEWEST, Pair},
    http::{self, Target},
    process::{Process, accepts, free_port},
};
use crate::command::{cargo, run, target_folder};

/// The namespace that everything is in.
pub(crate) const NAMESPACE: &str = "interop";
/// The Gateway of [`Manifests`].
pub(crate) const GATEWAY: &str = "interop/interop";
/// The port of [`Manifests::https`].
pub(crate) const HTTPS: u16 = 8443;
/// The port of [`Manifests::http`].
pub(crate) const HTTP: u16 = 8080;

const AGENTIC: &str = "agentic.prototype.x-k8s.io";
const START: Duration = Duration::from_secs(20);

/// Builds one of our programs as the workspace's dev profile says and gives the path of the binary.
pub(crate) fn build(package: &str) -> anyhow::Result<PathBuf> {
    run(cargo().args(["build", "--locked", "-p", package]))?;
    Ok(target_folder().join("debug").join(package))
}

/// Objects, as a user would write them.
#[derive(Debug, Clone)]
pub(crate) struct Manifests(Vec<Value>);

impl Manifests {
    /// A Gateway with a plain listener.
    pub(crate) fn http() -> Self {
        Self::gateway(json!({"listeners": [{"name": "http", "protocol": "HTTP", "port": HTTP}]}))
    }

    /// A Gateway with an HTTPS listener that has a certificate of its own: client certificates are verified, and optional.
    pub(crate) fn https(certificate: &ServerCertificate) -> Self {
        Self::gateway(json!({"listeners": [{
            "name": "https", "protocol": "HTTPS", "port": HTTPS,
            "tls": {"mode": "Terminate", "certificateRefs": [{"name": "server-certificate"}]},
        }]}))
        .server_certificate(certificate)
    }

    /// The Secret `server-certificate`.
    #[must_use]
    pub(crate) fn server_certificate(self, certificate: &ServerCertificate) -> Self {
        self.with(json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {"name": "server-certificate", "namespace": NAMESPACE},
            "data": {
                "tls.crt": STANDARD.encode(&certificate.certificate_pem),
                "tls.key": STANDARD.encode(&certificate.key_pem),
            },
        }))
    }

    /// One more object.
    #[must_use]
    pub(crate) fn with(mut self, object: Value) -> Self {
        self.0.push(object);
        self
    }

    /// A Gateway with this spec; its class is filled in.
    pub(crate) fn gateway(mut spec: Value) -> Self {
        if let Some(spec) = spec.as_object_mut() {
            spec.insert("gatewayClassName".to_owned(), json!("interop"));
        }
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
                "spec": spec,
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

    /// A v1alpha1 policy for an MCP server: anyone may call these tools.
    #[must_use]
    pub(crate) fn open_policy(mut self, backend: &str, tools: &[&str]) -> Self {
        self.0.push(json!({
            "apiVersion": "agentic.networking.x-k8s.io/v1alpha1",
            "kind": "XAccessPolicy",
            "metadata": {"name": format!("for-{backend}"), "namespace": NAMESPACE},
            "spec": {
                "targetRefs": [{"group": AGENTIC, "kind": "XBackend", "name": backend}],
                "action": "Allow",
                "rules": [{"name": "tools", "authorization": {"type": "Inline", "mcp": {
                    "methods": [{"name": "tools/call", "params": tools}],
                }}}],
            },
        }));
        self
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

/// Who stands between clients and servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DataPlane {
    /// `agentic-gateway run`
    Native,
    /// Envoy, and `agentic-gateway decide` beside it.
    Envoy,
}

impl fmt::Display for DataPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "the gateway",
            Self::Envoy => "Envoy and the engine",
        })
    }
}

/// A gateway that runs.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) process: Process,
    /// What decides for it, if that is another process.
    engine: Option<Process>,
    addresses: BTreeMap<u16, SocketAddr>,
}

impl Gateway {
    /// Starts it with the listeners of these ports on free ports of loopback, and waits until it is ready.
    pub(crate) async fn start(
        run: &Run,
        plane: DataPlane,
        folder: &Path,
        identity: Option<&Workload>,
        ports: &[u16],
    ) -> anyhow::Result<Self> {
        match plane {
            DataPlane::Native => {
                let manifests = folder.join("manifests");
                let (process, addresses) = native(run.gateway()?, &manifests, identity, ports, &[]).await?;
                Ok(Self { process, engine: None, addresses })
            }
            DataPlane::Envoy => {
                let pair = Pair::new(run.envoy(NEWEST).await?, folder, identity, ports).await?;
                let engine = pair.decide().await?;
                let process = pair.envoy().await?;
                Ok(Self { process, engine: Some(engine), addresses: pair.addresses })
            }
        }
    }

    /// Where the listeners of a port are.
    pub(crate) fn address(&self, port: u16) -> anyhow::Result<SocketAddr> {
        self.addresses.get(&port).copied().with_context(|| format!("no listener on port {port}"))
    }

    /// How many requests its log says were decided so. One is logged when its response has ended.
    pub(crate) fn logged(&self, decision: &str) -> usize {
        let decides = self.engine.as_ref().unwrap_or(&self.process);
        decides.count_holding(&format!("\"decision\":\"{decision}\""))
    }

    /// Fails if something of it ended by itself.
    pub(crate) fn still_runs(&mut self) -> anyhow::Result<()> {
        self.engine.as_mut().map_or(Ok(()), Process::still_runs)?;
        self.process.still_runs()
    }
}

/// Starts our own gateway, with more arguments.
pub(crate) async fn native(
    binary: &Path,
    manifests: &Path,
    identity: Option<&Workload>,
    ports: &[u16],
    more: &[&str],
) -> anyhow::Result<(Process, BTreeMap<u16, SocketAddr>)> {
    let admin = loopback(free_port()?);
    let addresses = free_addresses(ports)?;
    let mut command = Command::new(binary);
    command
        .arg("run")
        .arg("--manifests")
        .arg(manifests)
        .args(["--admin-addr", &admin.to_string()])
        .args(more);
    for (port, address) in &addresses {
        command.args(["--listen", &format!("{port}={address}")]);
    }
    if let Some(identity) = identity {
        command.arg("--identity-dir").arg(&identity.identity_dir);
    }
    let mut process = Process::start("agentic-gateway run", &mut command)?;
    until_ready(&mut process, &addresses, &Target::plain(admin), "/readyz").await?;
    Ok((process, addresses))
}

/// Waits until all listeners accept connections and the process says that it is ready.
pub(super) async fn until_ready(
    process: &mut Process,
    addresses: &BTreeMap<u16, SocketAddr>,
    admin: &Target,
    path: &str,
) -> anyhow::Result<()> {
    process
        .until_ready(START, async || {
            for address in addresses.values() {
                if !accepts(*address).await {
                    return false;
                }
            }
            http::status(admin, path).await.is_ok_and(|status| status == 200)
        })
        .await
}

/// A free port of loopback for the listeners of each port.
pub(super) fn free_addresses(ports: &[u16]) -> anyhow::Result<BTreeMap<u16, SocketAddr>> {
    ports.iter().map(|port| Ok((*port, loopback(free_port()?)))).collect()
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
