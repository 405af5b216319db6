//! What the committed inputs of the fuzz target `policy_translate` translate to, given to a real Envoy: `--mode validate`
//! reads a configuration as far as Envoy does before it serves, and ends.
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use tokio::process::Command;

use super::{
    Run,
    certificates::{Certificates, Workload},
    envoy::{MINORS, NEWEST},
    gateway::NAMESPACE,
    process::{finish, shown},
    report::Report,
};
use crate::command::root;

/// What the inputs build on.
const BASE: &str = "gateway-bin/tests/cases/base.yaml";
const GATEWAY: &str = "quickstart-ns/agentic-net-gateway";
const INPUTS: &str = "fuzz/corpus/policy_translate";
/// Inputs that are no manifests are in the corpus too; so many have to be some.
const LEAST: usize = 30;
/// Envoys at a time.
const ABREAST: usize = 2;

const SUITE: Duration = Duration::from_secs(5 * 60);
const ONE: Duration = Duration::from_secs(30);

pub(super) async fn run(run: &Run, report: &mut Report) -> anyhow::Result<()> {
    let minors = if run.long { MINORS.as_slice() } else { &[NEWEST] };
    for minor in minors {
        report.suite(&format!("what fuzzing found worth keeping, validated by Envoy {minor}"));
        let folder = run.folder(&format!("corpus-{minor}"))?;
        let certificates = Certificates::new(&folder.join("certificates"))?;
        let validation = Validation {
            controller: run.controller.clone().context("no controller was built")?,
            envoy: run.peers.envoy(minor).await?,
            minor,
            identity: certificates.workload(NAMESPACE, "gateway")?,
            roots: certificates.web_ca(),
            folder,
        };
        // Envoy's own filters can refuse duplicate keys as of 1.39.
        let policies: &[&str] = if *minor < "1.39" { &["engine"] } else { &["engine", "filters"] };
        for policy in policies {
            let name = format!("every translation with `--policy {policy}` is one that Envoy takes");
            if let Some(count) = report.step(&name, SUITE, validation.all(policy)).await {
                report.note(&format!("{count} configurations"));
            }
        }
    }
    Ok(())
}

struct Validation<'a> {
    controller: PathBuf,
    envoy: PathBuf,
    minor: &'a str,
    identity: Workload,
    /// For external hosts.
    roots: PathBuf,
    folder: PathBuf,
}

impl Validation<'_> {
    /// How many configurations there were.
    async fn all(&self, policy: &str) -> anyhow::Result<usize> {
        let inputs = fs::read_dir(root().join(INPUTS)).with_context(|| format!("`{INPUTS}`"))?;
        let mut inputs = inputs.map(|input| Ok(input?.path())).collect::<anyhow::Result<Vec<_>>>()?;
        inputs.sort();
        let share = async |first: usize| {
            let mut count = 0;
            for input in inputs.iter().skip(first).step_by(ABREAST) {
                let name = input.file_name().unwrap_or_default().to_string_lossy();
                let folder = self.folder.join(policy).join(&*name);
                count +=
                    usize::from(self.one(policy, input, &folder).await.with_context(|| format!("`{name}`"))?);
            }
            Ok::<usize, anyhow::Error>(count)
        };
        let (one, other) = tokio::try_join!(share(0), share(1))?;
        let count = one + other;
        ensure!(count >= LEAST, "{count} inputs only are manifests");
        Ok(count)
    }

    /// Whether an input is manifests; then Envoy has to take what they translate to.
    async fn one(&self, policy: &str, input: &Path, folder: &Path) -> anyhow::Result<bool> {
        fs::create_dir_all(folder)?;
        fs::copy(root().join(BASE), folder.join("base.yaml"))?;
        fs::copy(input, folder.join("input.yaml"))?;
        let mut translate = Command::new(&self.controller);
        translate
            .arg("translate")
            .args([folder.join("base.yaml"), folder.join("input.yaml")])
            .args(["--gateway", GATEWAY, "--envoy-version", self.minor, "--policy", policy])
            .arg("--identity-dir")
            .arg(&self.identity.identity_dir)
            .arg("--system-roots")
            .arg(&self.roots);
        let translated = finish("agentic-controller translate", &mut translate, ONE).await?;
        if translated.stdout.is_empty() {
            // What an API server would refuse. It is printed as well where something is closed.
            ensure!(!translated.status.success() && !translated.stderr.is_empty(), "{}", shown(&translated));
            return Ok(false);
        }
        let bootstrap = folder.join("bootstrap.json");
        fs::write(&bootstrap, &translated.stdout)?;
        let mut envoy = Command::new(&self.envoy);
        envoy.args([
            "--mode",
            "validate",
            "--concurrency",
            "1",
            "--use-dynamic-base-id",
            "-l",
            "error",
            "-c",
        ]);
        let validated = finish("envoy --mode validate", envoy.arg(&bootstrap), ONE).await?;
        ensure!(validated.status.success(), "{}", shown(&validated));
        Ok(true)
    }
}
