//! etcd, kube-apiserver and kube-controller-manager, started, watched and stopped.
use std::path::{Path, PathBuf};

use super::binaries::Binaries;

/// A control plane that serves. Its processes end when it is dropped.
#[derive(Debug)]
pub(crate) struct ControlPlane {}

impl ControlPlane {
    /// Starts all three and waits until `/readyz` is ok and the `default` ServiceAccount exists. `dir` holds data, keys and
    /// logs. The API server listens on `https://10.244.0.1:6443` (certificate for that, 127.0.0.1, kubernetes.default.svc
    /// and the service address), Pods reach it there.
    pub(crate) async fn start(_dir: &Path, _binaries: &Binaries) -> anyhow::Result<Self> {
        todo!()
    }

    /// For an administrator.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        todo!()
    }

    /// PEM of the CA of the API server's certificate.
    pub(crate) fn ca_pem(&self) -> String {
        todo!()
    }

    /// An administrator's client.
    pub(crate) async fn client(&self) -> anyhow::Result<kube::Client> {
        todo!()
    }

    /// Runs kubectl as administrator with `input` on its standard input; its standard output. An error has its standard error.
    pub(crate) async fn kubectl(&self, _args: &[&str], _input: &str) -> anyhow::Result<String> {
        todo!()
    }

    /// Kills the API server (SIGKILL) and waits until it is gone.
    pub(crate) async fn stop_api_server(&mut self) -> anyhow::Result<()> {
        todo!()
    }

    /// Starts it again and waits until it is ready.
    pub(crate) async fn start_api_server(&mut self) -> anyhow::Result<()> {
        todo!()
    }

    /// Compacts etcd's history up to now, so that a watch that was interrupted before gets 410.
    pub(crate) async fn compact_etcd(&self) -> anyhow::Result<()> {
        todo!()
    }
}
