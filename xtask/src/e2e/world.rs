//! A cluster with the product in it, and how to wait for things.
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use kube::Client;
use serde_json::Value;

use super::DataPlane;
use crate::{
    cluster::{Access, ControlPlane, Node, binaries, images, install_gateway_api, namespaces},
    command::root,
};

/// The controller's namespace.
pub(super) const SYSTEM: &str = "agentic-net-system";
/// The quickstart's namespace.
pub(super) const QUICKSTART: &str = "quickstart-ns";
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// A cluster, and what has been installed.
#[derive(Debug)]
pub(super) struct World {
    pub(super) access: Access,
    /// `None`: the cluster is somebody else's.
    own: Option<Own>,
    /// Authorino's CRD, a file.
    pub(super) authorino_crd: PathBuf,
    release: bool,
    data_plane: DataPlane,
    /// Whether the product is installed.
    installed: bool,
}

/// A cluster that is this program's own.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) node: Node,
    pub(super) control_plane: ControlPlane,
    _folder: tempfile::TempDir,
}

/// Why a step is not run in somebody else's cluster.
pub(super) const NOT_OURS: &str = "only in the suite's own cluster, without KUBECONFIG";

impl World {
    /// Control plane, node and Gateway API's CRDs.
    pub(super) async fn start(release: bool, data_plane: DataPlane) -> anyhow::Result<Self> {
        // In memory, and gone with the namespaces.
        let folder = tempfile::tempdir_in(namespaces::MEMORY)?;
        let binaries = binaries::build()?;
        let control_plane = ControlPlane::start(&folder.path().join("control-plane"), &binaries).await?;
        let options = images::options(&binaries, release, data_plane != DataPlane::Native).await?;
        let node = Node::start(&control_plane, &folder.path().join("node"), options).await?;
        let access = control_plane.access();
        install_gateway_api(&access, &binaries).await?;
        let own = Own { node, control_plane, _folder: folder };
        Ok(Self {
            access,
            own: Some(own),
            authorino_crd: binaries.authorino_crd,
            release,
            data_plane,
            installed: false,
        })
    }

    /// The cluster of the environment's KUBECONFIG, which has everything that docs/kubernetes.md asks for.
    pub(super) async fn given(release: bool, data_plane: DataPlane) -> anyhow::Result<Self> {
        let access = Access::of_environment();
        let authorino_crd = binaries::authorino_crd()?;
        let world = Self { access, own: None, authorino_crd, release, data_plane, installed: false };
        world.kubectl("get --raw /readyz").await?;
        let gateways = "get customresourcedefinitions gateways.gateway.networking.k8s.io";
        world.kubectl(gateways).await.context("the CRDs of Gateway API are to be installed before")?;
        Ok(world)
    }

    /// What only the suite's own cluster has.
    pub(super) fn own(&self) -> anyhow::Result<&Own> {
        self.own.as_ref().context(NOT_OURS)
    }

    pub(super) fn own_mut(&mut self) -> anyhow::Result<&mut Own> {
        self.own.as_mut().context(NOT_OURS)
    }

    /// What the suite was told to serve Gateways with.
    pub(super) fn data_plane(&self) -> DataPlane {
        self.data_plane
    }

    /// What is measured here.
    pub(super) fn described(&self) -> String {
        let data_plane = match self.data_plane {
            DataPlane::Native => "our own gateway",
            DataPlane::Envoy => "Envoy and the engine",
            DataPlane::Filters => "Envoy alone",
        };
        let profile = if self.release { "release" } else { "dev" };
        format!("{data_plane}, {profile} profile")
    }

    /// Whether the cluster is the suite's own.
    pub(super) fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// An administrator's client.
    pub(super) async fn client(&self) -> anyhow::Result<Client> {
        self.access.client().await
    }

    /// Process id of a running container's program.
    pub(super) fn pid(&self, namespace: &str, pod: &str, container: &str) -> anyhow::Result<u32> {
        let pid = self.own()?.node.pid(namespace, pod, container);
        pid.with_context(|| format!("`{container}` of `{namespace}/{pod}` has no process"))
    }

    /// What a container wrote so far.
    pub(super) async fn logs(&self, namespace: &str, pod: &str, container: &str) -> anyhow::Result<String> {
        match &self.own {
            // Those of all its restarts.
            Some(own) => own.node.logs(namespace, pod, container),
            None => self.kubectl(&format!("logs {pod} -n {namespace} -c {container}")).await,
        }
    }

    /// The product, as `agentic-controller install` prints it; once.
    pub(super) async fn install(&mut self) -> anyhow::Result<()> {
        if self.installed {
            return Ok(());
        }
        let manifests = self.printed("install").await?;
        self.access.kubectl(&["apply", "--server-side", "-f", "-"], &manifests).await?;
        self.rolled_out(SYSTEM, "agentic-controller", Duration::from_secs(60)).await?;
        if self.data_plane != DataPlane::Native {
            self.give_parameters().await?;
            self.change_data_plane(self.data_plane).await?;
        }
        self.installed = true;
        Ok(())
    }

    /// Gives the class the parameters of the example with Envoy. By a manager of their own: the quickstart's files have the
    /// class too, without parameters.
    pub(super) async fn give_parameters(&self) -> anyhow::Result<()> {
        let file = example("kubernetes/envoy.yaml").display().to_string();
        let manager = ["--field-manager=parameters", "--force-conflicts"];
        self.access.kubectl(&[&["apply", "--server-side", "-f", &file], &manager[..]].concat(), "").await?;
        Ok(())
    }

    /// Waits until all Pods of a Gateway are of a data plane (by default what the suite was told to run with), and one at
    /// least is ready.
    pub(super) async fn served_by(
        &self,
        namespace: &str,
        gateway: &str,
        data_plane: Option<DataPlane>,
        within: Duration,
    ) -> anyhow::Result<()> {
        let wanted: &[&str] = match data_plane.unwrap_or(self.data_plane) {
            DataPlane::Native => &["agentic-gateway"],
            DataPlane::Envoy => &["envoy", "decide"],
            DataPlane::Filters => &["envoy"],
        };
        let label = format!("gateway.networking.k8s.io/gateway-name={gateway}");
        until(within, async || {
            let list = self.object(&format!("pods -n {namespace} -l {label}")).await?.unwrap_or_default();
            let pods = list.get("items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            if pods.is_empty() {
                bail!("{gateway} has no Pods");
            }
            for pod in pods {
                let all = pod.pointer("/spec/containers").and_then(Value::as_array);
                let names = all.into_iter().flatten().filter_map(|container| container.get("name")?.as_str());
                let names: Vec<&str> = names.collect();
                if names != wanted {
                    bail!("a Pod of {gateway} runs {names:?}");
                }
                match Self::condition(pod.pointer("/status/conditions"), "Ready") {
                    Some(("True", ..)) => {}
                    other => bail!("a Pod of {gateway} is not ready: {other:?}"),
                }
            }
            Ok(())
        })
        .await
    }

    /// Changes the data plane of the class, which has parameters then.
    pub(super) async fn change_data_plane(&self, to: DataPlane) -> anyhow::Result<()> {
        let (name, policy) = match to {
            DataPlane::Native => ("native", "null"),
            DataPlane::Envoy => ("envoy", "null"),
            DataPlane::Filters => ("envoy", r#""filters""#),
        };
        let patch = format!(r#"{{"data":{{"dataPlane":"{name}","envoyPolicy":{policy}}}}}"#);
        self.kubectl(&format!("patch configmap gateway-parameters -n {SYSTEM} --type=merge -p {patch}"))
            .await?;
        Ok(())
    }

    /// What a command of the controller prints.
    pub(super) async fn printed(&self, command: &str) -> anyhow::Result<String> {
        let output = tokio::process::Command::new(images::built("agentic-controller", self.release))
            .arg(command)
            .output()
            .await
            .context("agentic-controller cannot be started")?;
        anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// kubectl with words separated by blanks.
    pub(super) async fn kubectl(&self, words: &str) -> anyhow::Result<String> {
        self.access.kubectl(&words.split_whitespace().collect::<Vec<_>>(), "").await
    }

    pub(super) async fn apply(&self, manifests: &str) -> anyhow::Result<String> {
        self.access.kubectl(&["apply", "-f", "-"], manifests).await
    }

    /// Applies a file or folder.
    pub(super) async fn apply_file(&self, path: &Path) -> anyhow::Result<String> {
        self.access.kubectl(&["apply", "--server-side", "-f", &path.display().to_string()], "").await
    }

    /// Applies files of the repository's examples.
    pub(super) async fn apply_examples(&self, names: &[&str]) -> anyhow::Result<()> {
        for name in names {
            self.apply_file(&example(name)).await.with_context(|| format!("examples/{name}"))?;
        }
        Ok(())
    }

    /// An object, `None` if there is none.
    pub(super) async fn object(&self, words: &str) -> anyhow::Result<Option<Value>> {
        let text = self.kubectl(&format!("get {words} -o json --ignore-not-found")).await?;
        if text.trim().is_empty() {
            return Ok(None);
        }
        Ok(Some(serde_json::from_str(&text)?))
    }

    /// Waits until a Deployment has all its replicas ready.
    pub(super) async fn rolled_out(
        &self,
        namespace: &str,
        name: &str,
        within: Duration,
    ) -> anyhow::Result<()> {
        until(within, async || {
            let Some(deployment) = self.object(&format!("deployment {name} -n {namespace}")).await? else {
                bail!("there is no Deployment {namespace}/{name}");
            };
            let count = |pointer: &str| deployment.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
            let wanted = count("/spec/replicas");
            let (updated, available, all) = (
                count("/status/updatedReplicas"),
                count("/status/availableReplicas"),
                count("/status/replicas"),
            );
            if count("/status/observedGeneration") < count("/metadata/generation")
                || (updated, available, all) != (wanted, wanted, wanted)
            {
                bail!("Deployment {namespace}/{name}: {updated} updated, {available} available, {all} in all, {wanted} wanted");
            }
            Ok(())
        })
        .await
    }

    /// The message and status of a condition.
    pub(super) fn condition<'v>(
        conditions: Option<&'v Value>,
        r#type: &str,
    ) -> Option<(&'v str, &'v str, &'v str)> {
        let condition = conditions?
            .as_array()?
            .iter()
            .find(|condition| condition.get("type").and_then(Value::as_str) == Some(r#type))?;
        let field = |name: &str| condition.get(name).and_then(Value::as_str).unwrap_or_default();
        Some((field("status"), field("reason"), field("message")))
    }

    /// Waits until a Gateway is programmed at its current generation; its address.
    pub(super) async fn programmed(
        &self,
        namespace: &str,
        name: &str,
        within: Duration,
    ) -> anyhow::Result<String> {
        until(within, async || {
            let gateway = self
                .object(&format!("gateways.gateway.networking.k8s.io {name} -n {namespace}"))
                .await?
                .context("there is no such Gateway")?;
            let conditions = gateway.pointer("/status/conditions");
            match Self::condition(conditions, "Programmed") {
                Some(("True", ..)) => {}
                other => bail!("Gateway {namespace}/{name} is not programmed: {other:?}"),
            }
            let address = gateway.pointer("/status/addresses/0/value").and_then(Value::as_str);
            Ok(address.context("it has no address")?.to_owned())
        })
        .await
    }

    /// The Pods of a label selector that are ready: name and address.
    pub(super) async fn ready_pods(
        &self,
        namespace: &str,
        selector: &str,
    ) -> anyhow::Result<Vec<(String, String)>> {
        let pods = self.object(&format!("pods -n {namespace} -l {selector}")).await?.unwrap_or_default();
        let pods = pods.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
        Ok(pods
            .iter()
            .filter(|pod| pod.pointer("/metadata/deletionTimestamp").is_none())
            .filter(|pod| {
                Self::condition(pod.pointer("/status/conditions"), "Ready")
                    .is_some_and(|(status, ..)| status == "True")
            })
            .filter_map(|pod| {
                let name = pod.pointer("/metadata/name")?.as_str()?.to_owned();
                Some((name, pod.pointer("/status/podIP")?.as_str()?.to_owned()))
            })
            .collect())
    }

    /// The one ready Pod of a selector, at a port.
    pub(super) async fn pod_address(
        &self,
        namespace: &str,
        selector: &str,
        port: u16,
    ) -> anyhow::Result<SocketAddr> {
        let pods = self.ready_pods(namespace, selector).await?;
        let (_, address) = pods.first().with_context(|| format!("no Pod of {selector} is ready"))?;
        Ok(SocketAddr::new(address.parse()?, port))
    }

    /// Prints what a person would look at when something failed: Pods that are not ready, with the end of their logs.
    pub(super) async fn tell(&self) {
        let Ok(pods) = self.kubectl("get pods -A -o wide").await else { return };
        println!("{pods}");
        let Ok(Some(list)) = self.object("pods -A").await else { return };
        for pod in list.get("items").and_then(Value::as_array).into_iter().flatten() {
            let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
            for container in pod.pointer("/spec/containers").and_then(Value::as_array).into_iter().flatten() {
                let container = container.get("name").and_then(Value::as_str).unwrap_or_default();
                let logs = self.logs(namespace, name, container).await.unwrap_or_default();
                let lines: Vec<_> = logs.lines().collect();
                println!("-- {namespace}/{name} {container}");
                for line in lines.iter().skip(lines.len().saturating_sub(LAST_LINES)) {
                    println!("   {line}");
                }
            }
        }
    }
}

/// Lines of each log that are shown when something failed.
const LAST_LINES: usize = 15;

/// Tries until it succeeds; the last error after the time is over.
pub(super) async fn until<T>(
    within: Duration,
    mut attempt: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + within;
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= deadline => {
                return Err(error.context(format!("not so after {} s", within.as_secs_f32())));
            }
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

/// A file or folder of the examples.
pub(super) fn example(name: &str) -> PathBuf {
    root().join("examples").join(name)
}
