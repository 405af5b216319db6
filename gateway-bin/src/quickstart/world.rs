//! Everything that the story needs, started on free ports of loopback; its files live in a folder that goes with it.
use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, anyhow};
use clap::Parser as _;
use rustls::{ClientConfig, ServerConfig};
use spiffe_id::{CaPool, IssuedSvid, KeyKind, SpiffeId, SvidRequest, TrustDomain};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::mpsc::UnboundedReceiver, task::JoinSet};
use tokio_rustls::TlsAcceptor;

use super::{
    agent::Session,
    arrivals::Arrivals,
    authorizer::{self, RegoAuthorizer},
    servers::{self, Everything, Wiki},
    story::{Call, Server},
    table::Row,
};
use crate::{
    Gateway, Sidecar,
    cli::{Cli, Command, RunArgs, SidecarArgs},
    commands::asked_to_end,
    telemetry::AccessLog,
    tls::{ExtraRoots, IdentityFiles, certified_key, provider, sidecar_config},
};

/// The manifests as they are; endpoints are written anew, since their ports are whatever is free.
const MANIFESTS: [(&str, &str); 6] = [
    ("gateway.yaml", include_str!("../../quickstart/gateway.yaml")),
    ("backends.yaml", include_str!("../../quickstart/backends.yaml")),
    ("routes.yaml", include_str!("../../quickstart/routes.yaml")),
    ("policies.yaml", include_str!("../../quickstart/policies.yaml")),
    ("reference-grant.yaml", include_str!("../../quickstart/reference-grant.yaml")),
    ("services.yaml", include_str!("../../quickstart/services.yaml")),
];
const ENDPOINTS: &str = include_str!("../../quickstart/endpoints.yaml");

const REMOTE_HOST: &str = "mcp.deepwiki.com";
/// The listener's port in the Gateway.
const LISTENER: u16 = 10_001;
/// Where the ADK example looks for the sidecar.
const SIDECAR: u16 = 15_001;
const VALID_FOR: Duration = Duration::from_secs(24 * 3_600);
/// Certificates begin a little in the past, for clocks that differ.
const BACKDATED: Duration = Duration::from_secs(120);

pub(crate) fn rego() -> &'static str {
    include_str!("../../quickstart/allowed-repos.rego")
}

pub(crate) fn narrowed_rego() -> &'static str {
    include_str!("../../quickstart/allowed-repos-narrowed.rego")
}

/// The running parts.
#[derive(Debug)]
pub(crate) struct World {
    files: Files,
    gateway: Gateway,
    log: UnboundedReceiver<String>,
    /// Where the gateway serves.
    pub(crate) address: SocketAddr,
    /// Whose Rego can be changed.
    pub(crate) authorizer: RegoAuthorizer,
    /// What the servers were asked.
    pub(crate) arrivals: Arrivals,
    /// Servers and authorizer.
    parts: JoinSet<io::Result<()>>,
}

/// What lies in the folder.
#[derive(Debug)]
struct Files {
    /// Removed when it is dropped.
    dir: TempDir,
    agent_id: SpiffeId,
    gateway_id: SpiffeId,
    remote: SocketAddr,
}

impl World {
    /// Starts everything.
    ///
    /// # Errors
    /// Sockets, files or certificates that cannot be made.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let everything = TcpListener::bind("127.0.0.1:0").await?;
        let wiki = TcpListener::bind("127.0.0.1:0").await?;
        let authz = TcpListener::bind("127.0.0.1:0").await?;
        let ports = [everything.local_addr()?.port(), authz.local_addr()?.port()];
        let dir = tempfile::Builder::new().prefix("agentic-quickstart-").tempdir()?;
        let trust_domain = TrustDomain::default();
        let id = |name| SpiffeId::for_service_account(&trust_domain, "quickstart-ns", name);
        let files = Files {
            agent_id: id("adk-agent-sa")?,
            gateway_id: id("agentic-net-gateway")?,
            remote: wiki.local_addr()?,
            dir,
        };
        files.write_manifests(ports)?;
        let remote_tls = files.write_identities(&trust_domain)?;

        let authorizer = RegoAuthorizer::new(rego())?;
        let mut parts = JoinSet::new();
        // The gateway sends each backend the Host that the client used, unless a route rewrites it.
        let hosts = vec!["127.0.0.1".to_owned(), "localhost".to_owned(), REMOTE_HOST.to_owned()];
        let arrivals = Arrivals::default();
        let note = |server| (server, arrivals.clone());
        parts.spawn(servers::serve(everything, None, hosts.clone(), note(Server::Local), Everything::new));
        parts.spawn(servers::serve(wiki, Some(remote_tls), hosts, note(Server::Remote), Wiki::new));
        parts.spawn(authorizer::serve(authz, authorizer.clone()));

        let (sender, log) = tokio::sync::mpsc::unbounded_channel();
        let gateway = Gateway::start(&files.run_args(&[])?, AccessLog::Channel(sender)).await?;
        let address = address_of(&gateway)?;
        Ok(Self { files, gateway, log, address, authorizer, arrivals, parts })
    }

    pub(crate) fn gateway_id(&self) -> &SpiffeId {
        &self.files.gateway_id
    }

    pub(crate) fn agent_id(&self) -> &SpiffeId {
        &self.files.agent_id
    }

    /// Opens the agent's session with a server, through the gateway.
    ///
    /// # Errors
    /// The session cannot be opened.
    pub(crate) async fn open(&self, server: Server) -> anyhow::Result<Session> {
        self.files.open(self.address, server).await
    }

    /// Why the gateway ended the last such call as it did, from its log.
    pub(crate) fn why(&mut self, call: &Call) -> String {
        why(&mut self.log, call)
    }

    /// A second gateway on the same manifests that filters lists.
    ///
    /// # Errors
    /// It does not start.
    pub(crate) async fn filtering(&self) -> anyhow::Result<Filtering<'_>> {
        let (sender, log) = tokio::sync::mpsc::unbounded_channel();
        let args = self.files.run_args(&["--filter-lists"])?;
        Ok(Filtering {
            files: &self.files,
            gateway: Gateway::start(&args, AccessLog::Channel(sender)).await?,
            log,
        })
    }

    /// Says how to reach everything, and waits for Ctrl-C.
    ///
    /// # Errors
    /// The sidecar does not start, or a part ended.
    pub(crate) async fn serve(&mut self) -> anyhow::Result<()> {
        let sidecar = match Sidecar::start(&self.files.sidecar_args(self.address, SIDECAR)?).await {
            Ok(sidecar) => sidecar,
            // Somebody has the usual port.
            Err(_) => Sidecar::start(&self.files.sidecar_args(self.address, 0)?).await?,
        };
        let at = sidecar.address();
        let dir = self.files.dir.path();
        println!(
            "\nEverything keeps running until Ctrl-C. Files are in {dir}\n\
             Each tool call that reaches a server is printed.\n\
             gateway  https://{gateway} (mTLS)\n\
             sidecar  http://{at} (plain HTTP on loopback, speaks as {agent})\n\n\
             A call with curl, over mTLS:\n\n  \
             curl -k --cert {dir}/agent/credential-bundle.pem \\\n    \
             https://{gateway}/remote/mcp -H 'content-type: application/json' \\\n    \
             -H 'accept: application/json, text/event-stream' \\\n    \
             -d '{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{{\"name\":\"ask_question\",\
             \"arguments\":{{\"repoName\":\"kubernetes/kubernetes\",\"question\":\"?\"}}}}}}'\n\n\
             (-k, because curl compares DNS names and the gateway has a SPIFFE ID; the sidecar verifies that.)\n\n\
             For any MCP client, through the sidecar:\n\n  \
             {{\"mcpServers\": {{\n    \
             \"local\": {{\"type\": \"http\", \"url\": \"http://{at}/local/mcp\"}},\n    \
             \"remote\": {{\"type\": \"http\", \"url\": \"http://{at}/remote/mcp\"}}}}}}\n",
            dir = dir.display(),
            gateway = self.address,
            agent = self.files.agent_id,
        );
        self.arrivals.tell();
        tokio::select! {
            ended = asked_to_end() => ended?,
            part = self.parts.join_next() => match part {
                Some(part) => part?.context("a server ended")?,
                None => return Err(anyhow!("the servers ended")),
            },
        }
        sidecar.shutdown().await;
        Ok(())
    }

    /// Stops the gateway, then everything behind it.
    pub(crate) async fn stop(mut self) {
        self.gateway.shutdown().await;
        self.parts.shutdown().await;
    }
}

/// A gateway that filters lists, for one call.
#[derive(Debug)]
pub(crate) struct Filtering<'w> {
    files: &'w Files,
    gateway: Gateway,
    log: UnboundedReceiver<String>,
}

impl Filtering<'_> {
    /// Makes a call in a session of its own, and stops.
    ///
    /// # Errors
    /// The session cannot be opened.
    pub(crate) async fn make(mut self, call: &Call) -> anyhow::Result<Row> {
        let session = self.files.open(address_of(&self.gateway)?, call.server).await?;
        let answer = session.make(call).await;
        session.close().await;
        let row = Row::new(call, &answer, &why(&mut self.log, call));
        self.gateway.shutdown().await;
        Ok(row)
    }
}

fn address_of(gateway: &Gateway) -> anyhow::Result<SocketAddr> {
    gateway.bound().get(&LISTENER).copied().context("the gateway serves no listener")
}

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `ports`: of the local MCP server and of the authorizer.
    fn write_manifests(&self, [everything, authorizer]: [u16; 2]) -> anyhow::Result<()> {
        let manifests = self.path("manifests");
        std::fs::create_dir(&manifests)?;
        for (name, text) in MANIFESTS {
            std::fs::write(manifests.join(name), text)?;
        }
        let endpoints = ENDPOINTS
            .replace("port: 3001", &format!("port: {everything}"))
            .replace("port: 50051", &format!("port: {authorizer}"));
        Ok(std::fs::write(manifests.join("endpoints.yaml"), endpoints)?)
    }

    /// Makes two CAs: the cluster's, for identities, and one that stands for the public CA of the remote host. Returns
    /// how the remote server does TLS.
    fn write_identities(&self, trust_domain: &TrustDomain) -> anyhow::Result<TlsAcceptor> {
        let now = SystemTime::now();
        let (from, to) = (now - BACKDATED, now + VALID_FOR);
        let cluster = CaPool::generate("quickstart", trust_domain, KeyKind::EcdsaP256, from, to)?;
        for (folder, id) in [("gateway", &self.gateway_id), ("agent", &self.agent_id)] {
            let folder = self.path(folder);
            std::fs::create_dir(&folder)?;
            let svid = cluster.issue(&SvidRequest::new(id, from, to))?;
            write_private(&folder.join("credential-bundle.pem"), &svid.credential_bundle_pem()?)?;
            std::fs::write(folder.join(format!("{trust_domain}.trust-bundle.pem")), cluster.roots_pem())?;
        }

        let public: TrustDomain = REMOTE_HOST.parse()?;
        let public_ca = CaPool::generate("public", &public, KeyKind::EcdsaP256, from, to)?;
        std::fs::write(self.path("public-ca.pem"), public_ca.roots_pem())?;
        let id: SpiffeId = format!("spiffe://{REMOTE_HOST}/server").parse()?;
        let names = [REMOTE_HOST.to_owned()];
        acceptor(&public_ca.issue(&SvidRequest::new(&id, from, to).with_dns_names(&names))?)
    }

    /// The gateway's command line, as a person would give it.
    fn run_args(&self, more: &[&str]) -> anyhow::Result<RunArgs> {
        let text = |path: PathBuf| path.display().to_string();
        let mut words = vec![
            "agentic-gateway".to_owned(),
            "run".to_owned(),
            format!("--manifests={}", text(self.path("manifests"))),
            format!("--identity-dir={}", text(self.path("gateway"))),
            format!("--listen={LISTENER}=127.0.0.1:0"),
            format!("--resolve={REMOTE_HOST}:443:{}", self.remote),
            format!("--extra-ca={}", text(self.path("public-ca.pem"))),
            "--admin-addr=127.0.0.1:0".to_owned(),
            "--drain-timeout=1s".to_owned(),
        ];
        words.extend(more.iter().map(|word| (*word).to_owned()));
        match Cli::try_parse_from(words)?.command {
            Command::Run(args) => Ok(*args),
            _ => Err(anyhow!("not a `run`")),
        }
    }

    fn sidecar_args(&self, gateway: SocketAddr, port: u16) -> anyhow::Result<SidecarArgs> {
        let words = [
            "agentic-gateway".to_owned(),
            "sidecar".to_owned(),
            format!("--to=https://{gateway}"),
            format!("--identity-dir={}", self.path("agent").display()),
            format!("--gateway-id={}", self.gateway_id),
            format!("--listen=127.0.0.1:{port}"),
        ];
        match Cli::try_parse_from(words)?.command {
            Command::Sidecar(args) => Ok(args),
            _ => Err(anyhow!("not a `sidecar`")),
        }
    }

    async fn open(&self, gateway: SocketAddr, server: Server) -> anyhow::Result<Session> {
        let url = format!("https://{gateway}/{}/mcp", server.name());
        Session::open(&url, self.agent_tls()?).await.with_context(|| format!("no session at {url}"))
    }

    /// The agent's TLS: its certificate, and the gateway verified by its SPIFFE ID.
    fn agent_tls(&self) -> anyhow::Result<ClientConfig> {
        let identity = IdentityFiles { dir: Some(self.path("agent")), bundles: Vec::new() };
        let material = identity.read()?;
        let mut config = sidecar_config(&material, Some(&self.gateway_id), &ExtraRoots::read(&[])?)
            .map_err(|error| anyhow!("the agent's TLS: {error}"))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn acceptor(svid: &IssuedSvid) -> anyhow::Result<TlsAcceptor> {
    let key = svid.key_pem.as_deref().context("no key")?;
    let key = certified_key(svid.chain_pem().as_bytes(), key.as_bytes()).map_err(|error| anyhow!(error))?;
    let config = ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)));
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The folder is the user's own; the file is nobody else's either.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?
        .write_all(text.as_bytes())
}

/// Reads what has been logged so far; the last line about such a call says why.
fn why(log: &mut UnboundedReceiver<String>, call: &Call) -> String {
    let method = if call.tool.is_some() { "tools/call" } else { "tools/list" };
    let mut found = None;
    while let Ok(line) = log.try_recv() {
        let Ok(line) = serde_json::from_str::<serde_json::Value>(&line) else { continue };
        let field =
            |name: &str| line.get(name).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
        if field("mcp_method") == method && (call.tool.is_none() || field("tool") == call.tool_name()) {
            found = Some([field("reason"), field("policy"), field("rule"), field("authorizer")]);
        }
    }
    let Some([reason, policy, rule, authorizer]) = found else {
        return "the gateway logged nothing".to_owned();
    };
    let policy = if policy.is_empty() { String::new() } else { format!("policy {policy}") };
    let rule = if rule.is_empty() { String::new() } else { format!(", rule {rule}") };
    match (authorizer.as_str(), reason.as_str()) {
        ("", "allowed") => format!("{policy}{rule}"),
        ("", "base_protocol") => "base protocol: anyone may list".to_owned(),
        ("", "no_rule_matches") => "no rule of the backend's policies matches".to_owned(),
        ("", reason) => format!("{reason} {policy}{rule}").trim_end().to_owned(),
        (authorizer, _) => format!("authorizer: {authorizer}; {policy}{rule}"),
    }
}
