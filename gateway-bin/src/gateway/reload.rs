//! From files to a runtime, at first and whenever files change.
use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc};

use policy_model::NamespacedName;
use tokio::sync::watch;
use xds_translate::{ConditionStatus, ObjectStatus, Resolution, resolve};

use super::StartError;
use crate::{
    config::{self, Watch},
    connection::Shared,
    listen::{Phase, Sockets},
    runtime::{Runtime, RuntimeSettings},
    tls::{IdentityFiles, Material, not_after},
};

/// Where configurations come from.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) paths: Vec<PathBuf>,
    /// Serve these Gateways only; empty: all.
    pub(super) only: Vec<NamespacedName>,
    pub(super) options: xds_translate::Options,
    pub(super) identity: IdentityFiles,
    pub(super) settings: RuntimeSettings,
}

impl Source {
    /// The first configuration: it must be good.
    pub(super) fn first(&self) -> Result<(Runtime, Seen), StartError> {
        let material = Arc::new(self.identity.read()?);
        let contents = config::contents(&self.paths)?;
        let manifests = config::parse(&contents)?;
        if !manifests.skipped.is_empty() {
            tracing::info!(kinds = manifests.skipped.join(", "), "objects of other kinds were skipped");
        }
        let resolution = resolve(&manifests.objects, &self.options);
        if let Some(missing) = self.only.iter().find(|name| !resolution.gateways.contains_key(*name)) {
            return Err(StartError(format!("there is no Gateway `{missing}` of ours in the manifests")));
        }
        report(&resolution.statuses, &[]);
        let seen = Seen { manifests: contents, statuses: resolution.statuses.clone(), error: String::new() };
        Ok((self.runtime(resolution, material, None)?, seen))
    }

    fn runtime(
        &self,
        resolution: Resolution,
        material: Arc<Material>,
        previous: Option<&Runtime>,
    ) -> anyhow::Result<Runtime> {
        let snapshots = resolution
            .gateways
            .into_iter()
            .filter(|(name, _)| self.only.is_empty() || self.only.contains(name))
            .map(|(_, snapshot)| snapshot)
            .collect();
        Runtime::new(snapshots, material, &self.settings, previous)
    }
}

/// Logs conditions that are not as a healthy object's, unless they were so before.
fn report(statuses: &[ObjectStatus], before: &[ObjectStatus]) {
    for status in statuses.iter().filter(|status| !status.is_accepted() && !before.contains(status)) {
        let object = &status.object;
        for condition in &status.conditions {
            let healthy =
                if condition.r#type == "Conflicted" { ConditionStatus::False } else { ConditionStatus::True };
            if condition.status != healthy {
                tracing::warn!(
                    kind = object.kind,
                    namespace = object.namespace,
                    name = object.name,
                    scope = status.scope,
                    condition = condition.r#type,
                    reason = condition.reason,
                    message = condition.message,
                    "an object is not as it should be"
                );
            }
        }
    }
}

/// Keeps the configuration in force up to date.
pub(super) struct Reloader {
    pub(super) source: Source,
    pub(super) shared: Arc<Shared>,
    pub(super) sockets: Sockets,
    pub(super) bound: watch::Sender<BTreeMap<u16, SocketAddr>>,
    pub(super) seen: Seen,
}

/// What was read last, to be told apart from what is read next.
#[derive(Debug)]
pub(super) struct Seen {
    manifests: config::Contents,
    statuses: Vec<ObjectStatus>,
    /// The last error, which is logged once.
    error: String,
}

impl Reloader {
    /// Runs until the process drains; then closes the sockets.
    pub(super) async fn run(mut self, mut phase: watch::Receiver<Phase>) {
        let watch =
            Watch::new(self.source.paths.iter().map(PathBuf::as_path).chain(self.source.identity.folders()));
        self.note_expiry();
        loop {
            tokio::select! {
                _ = phase.wait_for(|phase| *phase != Phase::Serving) => break,
                () = watch.changed() => {}
            }
            match self.reload().await {
                Ok(false) => {}
                Ok(true) => {
                    self.seen.error.clear();
                    self.shared.telemetry.metrics.reload("applied");
                    self.note_expiry();
                    let generation = self.shared.changes.borrow().wrapping_add(1);
                    self.shared.telemetry.metrics.generation.set(generation);
                    self.shared.changes.send_replace(generation);
                    tracing::info!(generation, "a new configuration is in force");
                }
                Err(error) => {
                    // Tried again at the next look: a port may be free by then.
                    self.seen.manifests.clear();
                    let error = error.to_string();
                    if error != self.seen.error {
                        self.shared.telemetry.metrics.reload("refused");
                        tracing::error!(
                            error,
                            "the configuration was refused; the one before stays in force"
                        );
                        self.seen.error = error;
                    }
                }
            }
        }
        self.sockets.close();
    }

    /// Reads everything; true if a new runtime was put in force.
    async fn reload(&mut self) -> Result<bool, StartError> {
        let now = self.shared.runtime.load_full();
        let material = match self.source.identity.read() {
            Ok(material) if material.is_same_as(&now.material) => Arc::clone(&now.material),
            Ok(material) => Arc::new(material),
            // A rotation that is half done: the identity before is still good, and manifests need not wait for it.
            Err(error) => {
                let error = format!("{error:#}");
                if error != self.seen.error {
                    tracing::error!(
                        error,
                        "the identity files cannot be used; the identity before stays in force"
                    );
                    self.seen.error = error;
                }
                Arc::clone(&now.material)
            }
        };
        let same_identity = Arc::ptr_eq(&material, &now.material);
        let contents = config::contents(&self.source.paths)?;
        if same_identity && contents == self.seen.manifests {
            return Ok(false);
        }
        let manifests = config::parse(&contents);
        self.seen.manifests = contents;
        let resolution = resolve(&manifests?.objects, &self.source.options);
        report(&resolution.statuses, &self.seen.statuses);
        let statuses = resolution.statuses.clone();
        let runtime = self.source.runtime(resolution, material, Some(&now))?;
        let ports: Vec<u16> = runtime.ports().map(|(port, _)| port).collect();
        let opened = self.sockets.bind(ports.iter().copied()).await?;
        // Connections find their listener in the runtime: it is there before they come.
        self.shared.runtime.store(Arc::new(runtime));
        self.sockets.serve(opened, |port| ports.contains(&port));
        self.bound.send_replace(self.sockets.bound());
        self.seen.statuses = statuses;
        Ok(true)
    }

    fn note_expiry(&self) {
        let runtime = self.shared.runtime.load();
        let leaf = runtime.material.credential.as_ref().and_then(|own| own.cert.first());
        if let Some(end) = leaf.and_then(|leaf| not_after(leaf)) {
            self.shared.telemetry.metrics.identity_expiry.set(end);
        }
    }
}
