//! `cargo xtask bench-proxy`: the gateway beside a bare hyper proxy, in the same run.
//!
//! Both are processes of their own on one worker thread, on plain HTTP/1.1 keep-alive over loopback, in front of the same
//! upstream. The gateway runs with its defaults: request log into a pipe, metrics, timeouts, one policy that allows the tool.
//! CPU per request is the proxy process's user and system time, the figure that a noisy machine disturbs least.
pub(crate) mod envoy;
mod load;
mod parts;

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};

use self::load::{Figures, load};
use crate::{
    command::{cargo, run, target_folder},
    interop::process::cpu_of,
};

#[derive(Debug, Args)]
pub(crate) struct BenchProxy {
    /// Rounds; in each, both proxies are measured in turn
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of load per proxy, round and number of connections
    #[arg(long, default_value_t = 3)]
    seconds: u64,
}

/// The parts of the measurement that are processes of their own.
#[derive(Debug, Subcommand)]
pub(crate) enum Part {
    /// Answers every POST with the same JSON
    Upstream,
    /// Forwards every request to `to`, its body buffered
    BareProxy {
        /// The upstream
        to: SocketAddr,
    },
}

pub(crate) fn part(part: &Part) -> anyhow::Result<()> {
    match part {
        Part::Upstream => parts::upstream(),
        Part::BareProxy { to } => parts::bare_proxy(*to),
    }
}

/// Builds the gateway as a release has it, and the parts.
fn build_release() -> anyhow::Result<()> {
    run(cargo().args([
        "build",
        "--release",
        "--locked",
        "--no-default-features",
        "-p",
        "agentic-gateway",
        "-p",
        "xtask",
    ]))
}

pub(crate) fn bench_proxy(bench: &BenchProxy) -> anyhow::Result<()> {
    ensure!(bench.rounds > 0 && bench.seconds > 0, "at least one round of one second");
    build_release()?;
    let release = target_folder().join("release");
    let xtask = release.join("xtask");

    let (_upstream, upstream) =
        Process::start(Command::new(&xtask).args(["bench-part", "upstream"]), "listening ")?;
    let (bare, bare_at) = Process::start(
        Command::new(&xtask).args(["bench-part", "bare-proxy", &upstream.to_string()]),
        "listening ",
    )?;
    let manifests = tempfile::tempdir()?;
    std::fs::write(manifests.path().join("bench.yaml"), manifest(upstream.port()))?;
    let (gateway, gateway_at) = gateway(&release.join("agentic-gateway"), manifests.path())?;

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let time = Duration::from_secs(bench.seconds);
    for connections in [1, 16] {
        println!("\n{connections} connection(s), median of {} rounds of {} s", bench.rounds, bench.seconds);
        println!("{:<12}{:>12}{:>12}{:>12}{:>16}", "", "req/s", "p50 us", "p99 us", "CPU us/request");
        let mut rows: [Vec<Figures>; 3] = Default::default();
        for _ in 0..bench.rounds {
            let targets = [(upstream, None), (bare_at, Some(&bare)), (gateway_at, Some(&gateway))];
            for (row, (address, process)) in rows.iter_mut().zip(targets) {
                let before = process.map(Process::cpu).transpose()?;
                let mut figures = runtime.block_on(load(address, connections, time))?;
                if let (Some(process), Some(before)) = (process, before) {
                    let used = process.cpu()?.saturating_sub(before);
                    figures.cpu_us = used.as_secs_f64() * 1e6 / figures.requests as f64;
                }
                row.push(figures);
            }
        }
        let medians = rows.map(|row| Figures::median(&row));
        for (name, figures) in ["direct", "bare hyper", "gateway"].into_iter().zip(&medians) {
            println!(
                "{name:<12}{:>12.0}{:>12.1}{:>12.1}{:>16.2}",
                figures.per_second, figures.p50_us, figures.p99_us, figures.cpu_us
            );
        }
        let [_, bare, gateway] = medians;
        println!(
            "gateway / bare: CPU {:.2} (+{:.2} us), p50 {:.2} (+{:.2} us), p99 {:.2}",
            gateway.cpu_us / bare.cpu_us,
            gateway.cpu_us - bare.cpu_us,
            gateway.p50_us / bare.p50_us,
            gateway.p50_us - bare.p50_us,
            gateway.p99_us / bare.p99_us
        );
    }
    println!("\nRSS: bare hyper {} KiB, gateway {} KiB", bare.rss_kib()?, gateway.rss_kib()?);
    Ok(())
}

/// Starts the gateway on a free port; its request log goes into a pipe that is read and thrown away.
fn gateway(binary: &Path, manifests: &Path) -> anyhow::Result<(Process, SocketAddr)> {
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let admin = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut child = Command::new(binary)
        .args(["run", "--workers", "1", "--manifests"])
        .arg(manifests)
        .args(["--listen", &format!("8080={address}"), "--admin-addr", &admin.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("`{}` cannot be started", binary.display()))?;
    let mut log = child.stdout.take().context("no pipe")?;
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    let process = Process(child);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while std::net::TcpStream::connect(address).is_err() {
        ensure!(std::time::Instant::now() < deadline, "the gateway does not listen");
        std::thread::yield_now();
    }
    Ok((process, address))
}

/// A child that ends with this value.
struct Process(Child);

impl Process {
    /// Starts a part and waits for the line in which it says where it listens.
    fn start(command: &mut Command, prefix: &str) -> anyhow::Result<(Self, SocketAddr)> {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("a part cannot be started")?;
        let mut process = Self(child);
        let mut line = String::new();
        BufReader::new(process.0.stdout.take().context("no pipe")?).read_line(&mut line)?;
        let Some(address) = line.trim().strip_prefix(prefix) else { bail!("a part said `{}`", line.trim()) };
        Ok((process, address.parse()?))
    }

    /// User and system time so far.
    fn cpu(&self) -> anyhow::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        cpu_of(&stat)
    }

    fn rss_kib(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            eprintln!("a part cannot be ended: {error}");
        }
    }
}

fn manifest(upstream: u16) -> String {
    format!(
        r#"apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: bench}}
spec: {{controllerName: sigs.k8s.io/kube-agentic-networking-controller}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: bench, namespace: bench}}
spec:
  gatewayClassName: bench
  listeners: [{{name: http, protocol: HTTP, port: 8080}}]
---
apiVersion: v1
kind: Service
metadata: {{name: upstream, namespace: bench}}
spec: {{ports: [{{name: mcp, port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: upstream, namespace: bench, labels: {{kubernetes.io/service-name: upstream}}}}
addressType: IPv4
ports: [{{name: mcp, port: {upstream}}}]
endpoints: [{{addresses: [127.0.0.1]}}]
---
apiVersion: agentic.networking.x-k8s.io/v0alpha0
kind: XBackend
metadata: {{name: upstream, namespace: bench}}
spec: {{mcp: {{serviceName: upstream, port: 80, path: /mcp}}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: upstream, namespace: bench}}
spec:
  parentRefs: [{{name: bench}}]
  rules:
  - backendRefs: [{{group: agentic.networking.x-k8s.io, kind: XBackend, name: upstream}}]
---
apiVersion: agentic.networking.x-k8s.io/v1alpha1
kind: XAccessPolicy
metadata: {{name: tools, namespace: bench}}
spec:
  targetRefs: [{{group: agentic.networking.x-k8s.io, kind: XBackend, name: upstream}}]
  action: Allow
  rules:
  - name: two-tools
    authorization:
      type: Inline
      mcp: {{methods: [{{name: tools/call, params: [get-sum, get-tiny-image]}}]}}
"#
    )
}
