//! What CI holds every change to.
use std::process::Command;

use crate::{
    command::{cargo, root, run, succeeds},
    documents,
};

const CARGO_DENY: &str = "0.20.2";

pub(crate) fn run_all() -> anyhow::Result<()> {
    documents::check()?;
    run(cargo().args(["fmt", "--all", "--", "--check"]))?;
    run(cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--locked",
        "--",
        "-D",
        "warnings",
    ]))?;
    run(cargo()
        .args(["doc", "--workspace", "--no-deps", "--all-features", "--locked"])
        .env("RUSTDOCFLAGS", "-D warnings"))?;
    dependencies()?;
    fuzz_workspace()?;
    package()
}

fn dependencies() -> anyhow::Result<()> {
    if !succeeds(Command::new("cargo-deny").arg("--version")) {
        run(cargo().args(["install", "cargo-deny", "--locked", "--version", CARGO_DENY]))?;
    }
    run(cargo().args(["deny", "--log-level", "error", "check", "licenses", "bans", "sources"]))
}

/// `fuzz/` is a workspace of its own; it is held to the same format.
fn fuzz_workspace() -> anyhow::Result<()> {
    run(cargo().current_dir(root().join("fuzz")).args(["fmt", "--all", "--", "--check"]))
}

/// Every published crate can be packaged: its manifest is complete and its files are in it.
fn package() -> anyhow::Result<()> {
    run(cargo().args([
        "package",
        "--workspace",
        "--exclude",
        "xtask",
        "--exclude",
        "agentic-generators",
        "--allow-dirty",
        "--no-verify",
        "--locked",
        "--quiet",
    ]))
}
