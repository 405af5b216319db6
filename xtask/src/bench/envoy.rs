//! `cargo xtask bench-envoy`: what the engine beside Envoy costs, in one run.
//!
//! Three ways to the same upstream, over plain HTTP/1.1 keep-alive on loopback, one worker thread each: Envoy alone, which
//! only routes; Envoy with `agentic-gateway decide` beside it, as `agentic-controller translate` configures them; our own
//! gateway. One policy allows the tool. Request logs go into pipes that are read.
use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, ensure};
use clap::Args;
use serde_json::{Value, json};

use super::{
    Process as Part,
    load::{Figures, load},
};
use crate::{
    command::{cargo, run, target_folder},
    interop::{
        envoy::{NEWEST, Pair, Programs},
        gateway::{HTTP, Manifests, loopback, native},
        http::{self, Target},
        peers::Peers,
        process::{Process, free_port},
    },
};

#[derive(Debug, Args)]
pub(crate) struct BenchEnvoy {
    /// Rounds; in each, all are measured in turn
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of load each, per round and number of connections
    #[arg(long, default_value_t = 3)]
    seconds: u64,
}

pub(crate) fn bench_envoy(bench: &BenchEnvoy) -> anyhow::Result<()> {
    ensure!(bench.rounds > 0 && bench.seconds > 0, "at least one round of one second");
    super::build_release()?;
    run(cargo().args(["build", "--locked", "-p", "agentic-controller"]))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build()?;
    runtime.block_on(measure(bench))
}

async fn measure(bench: &BenchEnvoy) -> anyhow::Result<()> {
    let release = target_folder().join("release");
    let mut upstream = Command::new(release.join("xtask"));
    let (_upstream, upstream) = Part::start(upstream.args(["bench-part", "upstream"]), "listening ")?;
    let temporary = tempfile::tempdir()?;
    let folder = temporary.path();
    Manifests::http()
        .mcp_server("upstream", upstream.port())
        .open_policy("upstream", &["get-sum", "get-tiny-image"])
        .write(&folder.join("manifests"))?;
    let programs = Programs {
        gateway: release.join("agentic-gateway"),
        controller: target_folder().join("debug/agentic-controller"),
        envoy: Peers::new()?.envoy(NEWEST).await?,
        minor: NEWEST.to_owned(),
        threads: 1,
    };
    let (alone, alone_at) = alone(&programs.envoy, folder, upstream.port()).await?;
    let pair = Pair::new(programs.clone(), folder, None, &[HTTP]).await?;
    let (engine, envoy) = (pair.decide().await?, pair.envoy().await?);
    let (gateway, addresses) =
        native(&programs.gateway, &folder.join("manifests"), None, &[HTTP], &["--workers", "1"]).await?;
    let gateway_at = addresses.get(&HTTP).copied().context("no listener")?;
    let rows = [
        ("direct", upstream, vec![]),
        ("Envoy alone", alone_at, vec![&alone]),
        ("Envoy, engine", pair.address(HTTP)?, vec![&envoy, &engine]),
        ("gateway", gateway_at, vec![&gateway]),
    ];

    let time = Duration::from_secs(bench.seconds);
    for connections in [1, 16] {
        println!("\n{connections} connection(s), median of {} rounds of {} s", bench.rounds, bench.seconds);
        println!("{:<14}{:>12}{:>12}{:>12}{:>16}", "", "req/s", "p50 us", "p99 us", "CPU us/request");
        let mut figures: [Vec<Figures>; 4] = Default::default();
        for _ in 0..bench.rounds {
            for (row, (_, address, processes)) in figures.iter_mut().zip(&rows) {
                let before = cpu(processes)?;
                let mut round = load(*address, connections, time).await?;
                round.cpu_us = (cpu(processes)? - before).as_secs_f64() * 1e6 / round.requests as f64;
                row.push(round);
            }
        }
        let medians = figures.map(|row| Figures::median(&row));
        for ((name, ..), figures) in rows.iter().zip(&medians) {
            println!(
                "{name:<14}{:>12.0}{:>12.1}{:>12.1}{:>16.2}",
                figures.per_second, figures.p50_us, figures.p99_us, figures.cpu_us
            );
        }
        let [_, alone, engine, _] = medians;
        println!(
            "Envoy with the engine / Envoy alone: p50 {:.2} (+{:.1} us), p99 {:.2}, CPU {:.2} (+{:.1} us)",
            engine.p50_us / alone.p50_us,
            engine.p50_us - alone.p50_us,
            engine.p99_us / alone.p99_us,
            engine.cpu_us / alone.cpu_us,
            engine.cpu_us - alone.cpu_us
        );
    }
    println!("\nRSS: Envoy {} KiB, the engine {} KiB", envoy.rss_kib()?, engine.rss_kib()?);
    Ok(())
}

fn cpu(processes: &[&Process]) -> anyhow::Result<Duration> {
    processes.iter().map(|process| process.cpu()).sum()
}

/// An Envoy that sends everything to the upstream.
async fn alone(
    program: &Path,
    folder: &Path,
    upstream: u16,
) -> anyhow::Result<(Process, std::net::SocketAddr)> {
    let (at, admin) = (loopback(free_port()?), loopback(free_port()?));
    let address = |port: u16| json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    let extension = |name: &str, kind: &str, mut config: Value| {
        if let Some(fields) = config.as_object_mut() {
            fields.insert("@type".to_owned(), json!(format!("type.googleapis.com/envoy.extensions.{kind}")));
        }
        json!({"name": name, "typed_config": config})
    };
    let router =
        extension("router", "filters.http.router.v3.Router", json!({"suppress_envoy_headers": true}));
    let manager = extension(
        "http",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        json!({
            "stat_prefix": "alone",
            "generate_request_id": false,
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                {"match": {"prefix": "/"}, "route": {"cluster": "upstream", "timeout": "0s"}},
            ]}]},
            "http_filters": [router],
        }),
    );
    let bootstrap = json!({
        "admin": {"address": address(admin.port())},
        "static_resources": {
            "listeners": [{
                "name": "alone",
                "address": address(at.port()),
                "filter_chains": [{"filters": [manager]}],
            }],
            "clusters": [{
                "name": "upstream",
                "type": "STATIC",
                "load_assignment": {"cluster_name": "upstream", "endpoints": [
                    {"lb_endpoints": [{"endpoint": {"address": address(upstream)}}]},
                ]},
            }],
        },
    });
    let file = folder.join("alone.json");
    fs::write(&file, bootstrap.to_string())?;
    let mut command = tokio::process::Command::new(program);
    command.args(["--concurrency", "1", "--use-dynamic-base-id", "-l", "warn", "-c"]).arg(file);
    let mut process = Process::start("Envoy alone", &mut command)?;
    let ready =
        async || http::status(&Target::plain(admin), "/ready").await.is_ok_and(|status| status == 200);
    process.until_ready(Duration::from_secs(20), ready).await?;
    Ok((process, at))
}
