//! How an API server is reached: by kubectl and by a client.
use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, bail};
use kube::{
    Client,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::{io::AsyncWriteExt as _, process::Command};

/// What kubectl and clients need.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    kubectl: PathBuf,
    /// The kubeconfig and kubectl's cache; `None`: as the environment says.
    files: Option<(PathBuf, PathBuf)>,
}

impl Access {
    /// By this kubeconfig.
    ///
    /// `cache` is kubectl's own, of what the API server serves: another cluster at the same address has had another.
    pub(crate) fn of_files(kubectl: &Path, kubeconfig: &Path, cache: &Path) -> Self {
        Self { kubectl: kubectl.to_owned(), files: Some((kubeconfig.to_owned(), cache.to_owned())) }
    }

    /// By the environment's KUBECONFIG, with the `kubectl` on PATH.
    pub(crate) fn of_environment() -> Self {
        Self { kubectl: "kubectl".into(), files: None }
    }

    /// A client.
    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
        // HTTP clients ask for one; it may have been installed before.
        drop(rustls::crypto::ring::default_provider().install_default());
        let options = KubeConfigOptions::default();
        let config = match &self.files {
            Some((kubeconfig, _)) => {
                kube::Config::from_custom_kubeconfig(Kubeconfig::read_from(kubeconfig)?, &options).await?
            }
            None => kube::Config::from_kubeconfig(&options).await?,
        };
        Ok(Client::try_from(config)?)
    }

    /// Runs kubectl with `input` on its standard input; its standard output. An error has its standard error.
    pub(crate) async fn kubectl(&self, args: &[&str], input: &str) -> anyhow::Result<String> {
        let shown = format!("kubectl {}", args.join(" "));
        let mut command = Command::new(&self.kubectl);
        if let Some((kubeconfig, cache)) = &self.files {
            command.env("KUBECONFIG", kubeconfig).env("KUBECACHEDIR", cache);
        }
        let mut child = command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("`{shown}` cannot be started"))?;
        let mut stdin = child.stdin.take().context("no pipe")?;
        // At once: it may print before it has read all. One that does not read its input says so itself.
        let write = async move {
            let written = stdin.write_all(input.as_bytes()).await;
            drop(stdin);
            written
        };
        let (_, output) = tokio::join!(write, child.wait_with_output());
        let output = output.with_context(|| format!("`{shown}`"))?;
        if !output.status.success() {
            bail!("`{shown}` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        String::from_utf8(output.stdout).with_context(|| format!("`{shown}` does not print UTF-8"))
    }
}
