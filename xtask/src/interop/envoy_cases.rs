//! The decision cases through Envoy: `gateway-bin/tests/replay/through_envoy.rs`, told where Envoys are.
use std::time::Duration;

use anyhow::ensure;
use tokio::process::Command;

use super::{Run, process::finish, report::Report};
use crate::command::{cargo, run as run_command};

/// With `--long`, 10 minutes on two idle cores.
const CASES: Duration = Duration::from_secs(40 * 60);

/// In CI: the oldest version from files, the newest by discovery, and some random policies. All versions both ways, and
/// many more of those, with `--long`.
const SHORT: [&str; 3] = [
    "through_envoy::translated_1_36",
    "through_envoy::discovered_1_40",
    "through_envoy::differential::policies_at_random",
];

/// Requests at random, in CI and with `--long`.
const RANDOM: &str = "400";
const MANY_AT_RANDOM: &str = "10000";

/// Those of `xtask/peers/envoy` that the cases go through.
const MINORS: [&str; 3] = ["1.36", "1.38", "1.40"];

pub(super) async fn run(run: &Run, report: &mut Report) -> anyhow::Result<()> {
    report.suite("the decision cases, through Envoy");
    // The features of dependencies that all packages have together, as `cargo test --workspace` builds them: once for both.
    let test = |more: &[&str]| {
        let mut cargo = cargo();
        cargo.args(["test", "--locked", "--workspace", "--features", "agentic-gateway/envoy-tests"]);
        cargo.args(["--test", "replay"]).args(more);
        cargo
    };
    run_command(&mut test(&["--no-run"]))?;
    let mut cases = Command::from(test(&["--", "--test-threads=1", "--nocapture"]));
    if run.long {
        cases.arg("through_envoy::");
    } else {
        cases.args(SHORT).arg("--exact");
    }
    cases.env("DIFFERENTIAL_CASES", if run.long { MANY_AT_RANDOM } else { RANDOM });
    for minor in MINORS {
        let variable = format!("ENVOY_{}", minor.replace('.', "_"));
        cases.env(variable, run.peers.envoy(minor).await?);
    }
    report
        .step("every case is decided as by the gateway", CASES, async {
            let output = finish("cargo test --test replay", &mut cases, CASES).await?;
            let text = String::from_utf8_lossy(&output.stdout);
            ensure!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
            let passed = text.lines().filter_map(passed).sum::<usize>();
            ensure!(passed >= SHORT.len(), "{passed} tests only\n{text}");
            Ok(())
        })
        .await;
    Ok(())
}

/// How many tests passed, where a line says how all of them ended.
fn passed(line: &str) -> Option<usize> {
    line.strip_prefix("test result: ok. ")?.split_once(" passed;")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::passed;

    #[test]
    fn the_last_line_counts() {
        let last = "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 17 filtered out; finished in 194.05s";
        assert_eq!(passed(last), Some(3));
        assert_eq!(passed("test through_envoy::discovered_1_40 ... ok"), None);
        assert_eq!(passed("test result: FAILED. 2 passed; 1 failed; 0 ignored"), None);
    }
}
