//! Thousands of connections that say nothing: others are served, each costs little, and more than the limit wait.
use std::{
    convert::Infallible,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use serde_json::json;
use tokio::{net::TcpStream, process::Command, task::JoinSet};
use tokio_rustls::TlsConnector;

use super::{
    Run,
    certificates::Certificates,
    gateway::{HTTPS, Manifests, NAMESPACE, free_addresses, inline_tools, loopback, until_ready},
    http::{self, Connection, Target},
    process::{Process, finish, free_port},
    report::Report,
    session::Session,
    upstream::Upstream,
};

const AGENT: &str = "agent";
/// Room for those who are served meanwhile.
const OTHERS: usize = 20;
/// Resident memory of the gateway for each connection, at most.
const EACH_KIB: f64 = 64.0;
const STEP: Duration = Duration::from_secs(30);
/// Ten thousand handshakes, both sides built for debugging.
const OPENING: Duration = Duration::from_secs(600);
/// As many open files as the kernel lets us have, then the program.
const MANY_FILES: &str = r#"ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)"; exec "$@""#;

pub(super) async fn run(run: &Run, report: &mut Report) -> anyhow::Result<()> {
    // The gateway takes two for each connection, and some more.
    let possible = many_files().await?.saturating_sub(64) / 2;
    let limit = possible.min(if run.long { 10_000 } else { 1_000 });
    report.suite(&format!("{limit} connections, nearly all of them idle"));
    let folder = run.folder("idle")?;
    let upstream = Upstream::start().await?;
    let certificates = Certificates::new(&folder.join("certificates"))?;
    let agent = certificates.workload(NAMESPACE, AGENT)?;
    let identity = certificates.workload(NAMESPACE, "gateway")?;
    Manifests::https(&certificates.server()?)
        .mcp_server("upstream", upstream.address.port())
        .policy("upstream", &[(AGENT, inline_tools(&["get-sum"]))])
        .write(&folder.join("manifests"))?;
    let admin = loopback(free_port()?);
    let addresses = free_addresses(&[HTTPS])?;
    let address = *addresses.get(&HTTPS).context("no address")?;
    let mut command = Command::new("sh");
    command
        .args(["-c", MANY_FILES, "sh"])
        .arg(run.gateway()?)
        .arg("run")
        .arg("--manifests")
        .arg(folder.join("manifests"))
        .arg("--identity-dir")
        .arg(&identity.identity_dir)
        .args(["--admin-addr", &admin.to_string(), "--listen", &format!("{HTTPS}={address}")])
        .args(["--max-connections", &limit.to_string(), "--header-timeout", "600s"]);
    let mut gateway = Process::start("agentic-gateway run", &mut command)?;
    until_ready(&mut gateway, &addresses, &Target::plain(admin), "/readyz").await?;
    let target = Target::tls(address, certificates.client(Some(&agent), &["http/1.1"])?);
    let metrics = Target::plain(admin);

    let mut session = Session::open(&target).await?;
    served(&mut session).await?;
    let before = gateway.rss_kib()?;
    let mut command = Command::new("sh");
    command
        .args(["-c", MANY_FILES, "sh"])
        .arg(std::env::current_exe()?)
        .args(["interop-part", "idle", &address.to_string(), &(limit - OTHERS).to_string()])
        .arg(certificates.web_ca())
        .args([&agent.certificate, &agent.key]);
    let mut clients = Process::start("idle clients", &mut command)?;
    let opened = report
        .step(&format!("{} clients of TLS, each with a certificate", limit - OTHERS), OPENING, async {
            clients.line("all are open", OPENING).await?;
            until(&metrics, limit - OTHERS + 1).await
        })
        .await;
    if opened.is_none() {
        return Ok(());
    }
    let rss = gateway.rss_kib()?;
    let each = rss.saturating_sub(before) as f64 / (limit - OTHERS) as f64;
    report
        .step("a connection costs little memory", STEP, async {
            ensure!(each <= EACH_KIB, "{each:.1} KiB");
            Ok(())
        })
        .await;
    report.note(&format!("{before} KiB before, {rss} KiB with them: {each:.1} KiB each"));
    let others = report
        .step("others are served: on a connection that was there, and on a new one", STEP, async {
            let began = Instant::now();
            served(&mut session).await?;
            served(&mut Session::open(&target).await?).await?;
            let took = began.elapsed();
            ensure!(took < Duration::from_secs(2), "after {} ms", took.as_millis());
            let denied = session.call("echo", &json!({})).await?;
            ensure!(denied.is_forbidden() && !upstream.saw(denied.id), "{denied:?}");
            Ok(took)
        })
        .await;
    if let Some(took) = others {
        report.note(&format!("both within {} ms", took.as_millis()));
    }
    report
        .step("over the limit a client waits until there is room", STEP, async {
            until(&metrics, limit - OTHERS + 1).await?;
            let mut full = Vec::new();
            for _ in 0..OTHERS - 1 {
                full.push(TcpStream::connect(address).await?);
            }
            until(&metrics, limit).await?;
            let waiting = Connection::open(&target);
            tokio::pin!(waiting);
            let early = tokio::time::timeout(Duration::from_millis(500), &mut waiting).await;
            ensure!(early.is_err(), "it was taken over the limit");
            ensure!(open(&metrics).await? == limit, "{} are open", open(&metrics).await?);
            full.pop();
            waiting.await.map(drop)
        })
        .await;
    report
        .step("when they go, all of it is given back", STEP, async {
            clients.end().await?;
            until(&metrics, 1).await?;
            served(&mut session).await
        })
        .await;
    gateway.still_runs()
}

/// How many files one process may have open here.
async fn many_files() -> anyhow::Result<usize> {
    let mut command = Command::new("sh");
    command.args(["-c", MANY_FILES, "sh", "sh", "-c", "ulimit -n"]);
    let output = finish("ulimit -n", &mut command, STEP).await?;
    let text = String::from_utf8(output.stdout)?;
    text.trim().parse().with_context(|| format!("`ulimit -n` says `{text}`"))
}

async fn served(session: &mut Session) -> anyhow::Result<()> {
    session.call("get-sum", &json!({"a": 2, "b": 3})).await?.result().map(drop)
}

/// Connections that the gateway says are open.
async fn open(metrics: &Target) -> anyhow::Result<usize> {
    let text = http::text(metrics, "/metrics").await?;
    let line = text.lines().find_map(|line| line.strip_prefix("agentic_gateway_connections "));
    Ok(line.context("no such metric")?.parse()?)
}

/// Waits until so many are open.
async fn until(metrics: &Target, count: usize) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let open = open(metrics).await?;
        if open == count {
            return Ok(());
        }
        ensure!(began.elapsed() < STEP, "{open} connections are open, not {count}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Clients that connect and say nothing, a process of their own as files are counted by process.
#[derive(Debug, Args)]
pub(crate) struct Part {
    /// The gateway
    address: SocketAddr,
    /// How many
    count: usize,
    /// Whom to trust (PEM)
    ca: PathBuf,
    /// Their certificate (PEM)
    certificate: PathBuf,
    /// Its key (PEM)
    key: PathBuf,
}

pub(crate) async fn hold(part: &Part) -> anyhow::Result<Infallible> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(&part.ca)? {
        roots.add(root?)?;
    }
    let chain = CertificateDer::pem_file_iter(&part.certificate)?.collect::<Result<Vec<_>, _>>()?;
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&part.key)?)?;
    let connector = TlsConnector::from(Arc::new(config));
    let mut opening = JoinSet::new();
    let mut held = Vec::with_capacity(part.count);
    for _ in 0..part.count {
        // A few handshakes at a time: they have 10 s each.
        if opening.len() >= 32
            && let Some(opened) = opening.join_next().await
        {
            held.push(opened??);
        }
        let (connector, address) = (connector.clone(), part.address);
        opening.spawn(async move {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
            connector.connect(name, stream).await
        });
    }
    while let Some(opened) = opening.join_next().await {
        held.push(opened??);
    }
    println!("all are open");
    std::future::pending::<()>().await;
    bail!("{} connections were held", held.len())
}
