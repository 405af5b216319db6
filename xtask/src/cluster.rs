//! `cargo xtask cluster`: a real control plane without containers, in namespaces of its own, with a stand-in for
//! scheduler and kubelet that runs Pods as local processes. A shell for people, a library for `cargo xtask e2e`.
//!
//! Everything below runs *inside* the namespaces (network, mounts, processes): [`enter`] starts this program again there.
pub(crate) mod access;
pub(crate) mod binaries;
pub(crate) mod control_plane;
mod deepwiki;
pub(crate) mod images;
pub(crate) mod namespaces;
pub(crate) mod node;

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand};

use self::binaries::Binaries;
pub(crate) use self::{access::Access, control_plane::ControlPlane, namespaces::enter, node::Node};

/// `cluster`
#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    /// What to run in it; $SHELL by default
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Brings a cluster up and gives a shell in it, KUBECONFIG set; everything ends with the shell.
pub(crate) fn cluster(args: &ClusterArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    if !namespaces::inside() {
        // Inside there is no network: everything is fetched and built before.
        binaries::build()?;
        runtime.block_on(images::prepare(false, true))?;
        let again: Vec<String> = env::args().skip(1).collect();
        return enter(&again);
    }
    let began = Instant::now();
    let binaries = binaries::build()?;
    let dir = Path::new(namespaces::MEMORY);
    let (control_plane, node) = runtime.block_on(async {
        let control_plane = ControlPlane::start(&dir.join("control-plane"), &binaries).await?;
        let node =
            Node::start(&control_plane, &dir.join("node"), images::options(&binaries, false, true).await?)
                .await?;
        install_gateway_api(&control_plane.access(), &binaries).await?;
        anyhow::Ok((control_plane, node))
    })?;
    let product = images::built("agentic-controller", false);
    eprintln!(
        "the cluster is up after {:.1} s: Kubernetes 1.36.3 with the CRDs of Gateway API 1.5.1\n\
         KUBECONFIG={} (kubectl is on PATH), logs in `{}`; everything ends when this command does\n\
         to begin: {} install | kubectl apply --server-side -f -",
        began.elapsed().as_secs_f64(),
        control_plane.kubeconfig().display(),
        dir.display(),
        product.display(),
    );
    let mut command = command(&args.command, &control_plane, &binaries)?;
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("`{program}` cannot be started"))?;
    // In the runtime, whose tasks the node has.
    runtime.block_on(async move { drop((node, control_plane)) });
    // A shell's own exit status is that of its last command.
    ensure!(args.command.is_empty() || status.success(), "`{program}` failed: {status}");
    Ok(())
}

/// Applies Gateway API's CRDs (and its policy on upgrades) and waits until they are served.
pub(crate) async fn install_gateway_api(access: &Access, binaries: &Binaries) -> anyhow::Result<()> {
    let folder = binaries.gateway_api_crds.to_str().context("a path that is no text")?;
    // Server-side, as Gateway API says: they are too large for the annotation of client-side apply.
    access.kubectl(&["apply", "--server-side", "-f", folder], "").await?;
    let wait = ["wait", "--for=condition=Established", "--timeout=30s", "crd", "--all"];
    access.kubectl(&wait, "").await?;
    Ok(())
}

/// The person's command in the cluster, with everything that kubectl needs in its environment.
fn command(words: &[String], control_plane: &ControlPlane, binaries: &Binaries) -> anyhow::Result<Command> {
    let shell = env::var("SHELL").unwrap_or_else(|_| "/bin/sh".to_owned());
    let (program, arguments) =
        words.split_first().map_or((&shell, &[][..]), |(program, rest)| (program, rest));
    let ours = binaries.kubectl.parent().map(PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(ours.into_iter().chain(env::split_paths(&path)))?;
    let mut command = Command::new(program);
    namespaces::unmarked(&mut command)
        .args(arguments)
        .env("PATH", path)
        .env("KUBECONFIG", control_plane.kubeconfig())
        .env("KUBECACHEDIR", control_plane.kubectl_cache());
    Ok(command)
}

/// Parts that are processes of their own, in Pods.
#[derive(Debug, Subcommand)]
pub(crate) enum Part {
    /// A stand-in for DeepWiki's MCP server
    Deepwiki(deepwiki::Deepwiki),
}

pub(crate) fn part(part: &Part) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match part {
        Part::Deepwiki(args) => runtime.block_on(deepwiki::serve(args)).map(|never| match never {}),
    }
}
