//! Envoy with the engine beside it: the bootstrap that `agentic-controller translate` prints, `agentic-gateway decide`
//! on a unix socket, and a real Envoy, each a process that can be ended and started again.
use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use tokio::{net::UnixStream, process::Command};

use super::{
    certificates::Workload,
    gateway::{GATEWAY, free_addresses, loopback, until_ready},
    http::Target,
    process::{Process, accepts, finish, free_port, shown},
};

/// The versions that are pinned in `xtask/peers/envoy`.
pub(crate) const MINORS: [&str; 4] = ["1.36", "1.38", "1.39", "1.40"];
/// What suites use that need only one.
pub(crate) const NEWEST: &str = "1.40";

const START: Duration = Duration::from_secs(20);

/// What is run.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) gateway: PathBuf,
    pub(crate) controller: PathBuf,
    pub(crate) envoy: PathBuf,
    /// Envoy's minor version.
    pub(crate) minor: String,
    /// Worker threads of each.
    pub(crate) threads: u16,
}

/// An Envoy and its engine, which may or may not run; their files are in a folder.
#[derive(Debug)]
pub(crate) struct Pair {
    programs: Programs,
    folder: PathBuf,
    identity: Option<PathBuf>,
    admin: SocketAddr,
    pub(crate) addresses: BTreeMap<u16, SocketAddr>,
    /// The engine's port and who it must be, where Envoy reaches it over mTLS and not at its socket.
    port: Option<(SocketAddr, String)>,
}

impl Pair {
    /// For the manifests in `folder/manifests`; listeners of these ports get free ports of loopback.
    pub(crate) async fn new(
        programs: Programs,
        folder: &Path,
        identity: Option<&Workload>,
        ports: &[u16],
    ) -> anyhow::Result<Self> {
        let pair = Self {
            programs,
            folder: folder.to_owned(),
            identity: identity.map(|identity| identity.identity_dir.clone()),
            admin: loopback(free_port()?),
            addresses: free_addresses(ports)?,
            port: None,
        };
        fs::write(pair.bootstrap(), pair.translated().await?)?;
        Ok(pair)
    }

    /// The same with an engine at a port of loopback, over mTLS; it must have this SPIFFE ID.
    pub(crate) async fn at_a_port(self, id: &str) -> anyhow::Result<Self> {
        let pair = Self { port: Some((loopback(free_port()?), id.to_owned())), ..self };
        fs::write(pair.bootstrap(), pair.translated().await?)?;
        Ok(pair)
    }

    fn bootstrap(&self) -> PathBuf {
        self.folder.join("bootstrap.json")
    }

    /// Where the engine listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("decide.sock")
    }

    async fn translated(&self) -> anyhow::Result<Vec<u8>> {
        let mut command = Command::new(&self.programs.controller);
        command
            .arg("translate")
            .arg(self.folder.join("manifests"))
            .args(["--gateway", GATEWAY, "--envoy-version", &self.programs.minor])
            .args(["--admin", &self.admin.to_string()]);
        match &self.port {
            None => command.arg("--processor").arg(self.socket()),
            Some((address, id)) => command.args(["--processor", &address.to_string(), "--processor-id", id]),
        };
        for (port, address) in &self.addresses {
            command.args(["--listen", &format!("{port}={address}")]);
        }
        if let Some(identity) = &self.identity {
            command.arg("--identity-dir").arg(identity);
        }
        let output = finish("agentic-controller translate", &mut command, START).await?;
        ensure!(output.status.success(), "agentic-controller translate failed\n{}", shown(&output));
        Ok(output.stdout)
    }

    /// Starts the engine and waits until it answers.
    pub(crate) async fn decide(&self) -> anyhow::Result<Process> {
        self.no_engine()?;
        let mut command = self.engine(&format!("unix:{}", self.socket().display()));
        if let Some(identity) = &self.identity {
            command.arg("--identity-dir").arg(identity);
        }
        let mut process = Process::start("agentic-gateway decide", &mut command)?;
        process.until_ready(START, async || UnixStream::connect(self.socket()).await.is_ok()).await?;
        Ok(process)
    }

    fn engine(&self, listen: &str) -> Command {
        let mut command = Command::new(&self.programs.gateway);
        command.arg("decide").arg("--manifests").arg(self.folder.join("manifests"));
        command.args(["--gateway", GATEWAY, "--admin-addr", "127.0.0.1:0"]);
        command.args(["--workers", &self.programs.threads.to_string(), "--listen", listen]);
        command
    }

    /// Starts an engine at the port ([`Pair::at_a_port`]) with this identity, which serves this client only.
    pub(crate) async fn decide_at(&self, identity_dir: &Path, client_id: &str) -> anyhow::Result<Process> {
        let (address, _) = self.port.as_ref().context("the engine has a socket")?;
        let mut command = self.engine(&address.to_string());
        command.args(["--client-id", client_id]).arg("--identity-dir").arg(identity_dir);
        let mut process = Process::start("agentic-gateway decide", &mut command)?;
        process.until_ready(START, async || accepts(*address).await).await?;
        Ok(process)
    }

    /// Takes away the socket that one which was killed has left.
    pub(crate) fn no_engine(&self) -> anyhow::Result<()> {
        match fs::remove_file(self.socket()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Starts Envoy and waits until it serves, engine or not.
    pub(crate) async fn envoy(&self) -> anyhow::Result<Process> {
        let mut command = Command::new(&self.programs.envoy);
        command
            .args(["--concurrency", &self.programs.threads.to_string()])
            .args(["--use-dynamic-base-id", "-l", "warn", "-c"])
            .arg(self.bootstrap());
        let name = format!("Envoy {}", self.programs.minor);
        let mut process = Process::start(&name, &mut command)?;
        until_ready(&mut process, &self.addresses, &Target::plain(self.admin), "/ready").await?;
        Ok(process)
    }

    /// Where the listeners of a port are.
    pub(crate) fn address(&self, port: u16) -> anyhow::Result<SocketAddr> {
        self.addresses.get(&port).copied().with_context(|| format!("no listener on port {port}"))
    }
}
