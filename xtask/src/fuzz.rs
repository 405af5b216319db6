//! Fuzzing with cargo-fuzz; on a nightly toolchain where there is one, else on the stable one told to act as one.
use std::process::Command;

use anyhow::{Context as _, ensure};
use clap::Args;

use crate::command::{cargo, root, run, succeeds};

const CARGO_FUZZ: &str = "0.13.2";

#[derive(Debug, Args)]
pub(crate) struct Smoke {
    /// Seconds for all targets together
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

#[derive(Debug, Args)]
pub(crate) struct One {
    /// Its name in fuzz/fuzz_targets
    target: String,
    /// Seconds
    #[arg(long, default_value_t = 1800)]
    seconds: u64,
}

pub(crate) fn smoke(smoke: &Smoke) -> anyhow::Result<()> {
    let targets = targets()?;
    let share = smoke.seconds.div_ceil(targets.len() as u64);
    prepare()?;
    run(fuzz().args(["build", "--release"]))?;
    for target in targets {
        fuzz_for(&target, share)?;
    }
    Ok(())
}

pub(crate) fn one(one: &One) -> anyhow::Result<()> {
    let targets = targets()?;
    ensure!(targets.contains(&one.target), "no target `{}`; there are: {}", one.target, targets.join(", "));
    prepare()?;
    fuzz_for(&one.target, one.seconds)
}

fn fuzz_for(target: &str, seconds: u64) -> anyhow::Result<()> {
    // New inputs go to a folder that is not committed; the committed corpus is read only.
    let found = root().join("target/fuzz-corpus").join(target);
    std::fs::create_dir_all(&found).with_context(|| format!("`{}` cannot be made", found.display()))?;
    let time = format!("-max_total_time={seconds}");
    run(fuzz()
        .args(["run", "--release", target])
        .arg(&found)
        .arg(root().join("fuzz/corpus").join(target))
        .args(["--", &time, "-timeout=10", "-rss_limit_mb=2048", "-verbosity=0", "-print_final_stats=1"]))
}

fn targets() -> anyhow::Result<Vec<String>> {
    let folder = root().join("fuzz/fuzz_targets");
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .with_context(|| format!("`{}` cannot be read", folder.display()))?
        .filter_map(Result::ok)
        .filter_map(|file| Some(file.file_name().to_str()?.strip_suffix(".rs")?.to_owned()))
        .collect();
    names.sort();
    ensure!(!names.is_empty(), "no fuzz targets in `{}`", folder.display());
    Ok(names)
}

fn prepare() -> anyhow::Result<()> {
    if succeeds(Command::new("cargo-fuzz").arg("--version")) {
        return Ok(());
    }
    run(cargo().args(["install", "cargo-fuzz", "--locked", "--version", CARGO_FUZZ]))
}

fn fuzz() -> Command {
    // `cargo +nightly` is rustup's; this process may run under a cargo that is pinned to stable.
    let nightly =
        succeeds(Command::new("cargo").args(["+nightly", "--version"]).env_remove("RUSTUP_TOOLCHAIN"));
    let mut command = Command::new("cargo");
    command.current_dir(root()).env_remove("RUSTUP_TOOLCHAIN").env_remove("RUSTC").env_remove("RUSTDOC");
    if nightly {
        command.arg("+nightly");
    } else {
        command.env("RUSTC_BOOTSTRAP", "1");
    }
    command.arg("fuzz");
    command
}
