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
        let seen = Seen { manifests: contents, statuses: resolution.statuses.clone(), ..Seen::default() };
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
                    scope = %status.scope,
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
    pub(super) source: Arc<Source>,
    pub(super) shared: Arc<Shared>,
    pub(super) sockets: Sockets,
    pub(super) bound: watch::Sender<BTreeMap<u16, SocketAddr>>,
    pub(super) seen: Seen,
}

/// What was read last, to be told apart from what is read next.
#[derive(Debug, Default)]
pub(super) struct Seen {
    manifests: config::Contents,
    statuses: Vec<ObjectStatus>,
    /// The last errors: each is logged once.
    error: String,
    identity_error: String,
}

/// What became of one look at the files.
struct Look {
    /// To be put in force, if anything changed.
    runtime: Option<Runtime>,
    /// Why the manifests were refused.
    refused: Option<StartError>,
}

impl Source {
    fn look(&self, now: &Runtime, seen: &mut Seen) -> Look {
        let material = self.material(now, seen);
        let same_identity = Arc::ptr_eq(&material, &now.material);
        match self.manifests(now, &material, same_identity, seen) {
            Ok(runtime) => Look { runtime, refused: None },
            Err(error) => {
                // Certificates that rotate do not wait for manifests that are wrong.
                let snapshots = || now.snapshots().cloned().collect();
                let runtime = (!same_identity)
                    .then(|| Runtime::new(snapshots(), material, &self.settings, Some(now)))
                    .and_then(Result::ok);
                Look { runtime, refused: Some(error) }
            }
        }
    }

    fn material(&self, now: &Runtime, seen: &mut Seen) -> Arc<Material> {
        match self.identity.read() {
            Ok(material) => {
                seen.identity_error.clear();
                if material.is_same_as(&now.material) {
                    Arc::clone(&now.material)
                } else {
                    Arc::new(material)
                }
            }
            // A rotation that is half done: the identity before is still good, and manifests need not wait for it.
            Err(error) => {
                let error = format!("{error:#}");
                if error != seen.identity_error {
                    tracing::error!(
                        error,
                        "the identity files cannot be used; the identity before stays in force"
                    );
                    seen.identity_error = error;
                }
                Arc::clone(&now.material)
            }
        }
    }

    fn manifests(
        &self,
        now: &Runtime,
        material: &Arc<Material>,
        same_identity: bool,
        seen: &mut Seen,
    ) -> Result<Option<Runtime>, StartError> {
        let contents = config::contents(&self.paths)?;
        if same_identity && contents == seen.manifests {
            return Ok(None);
        }
        let manifests = config::parse(&contents)?;
        let resolution = resolve(&manifests.objects, &self.options);
        report(&resolution.statuses, &seen.statuses);
        let statuses = resolution.statuses.clone();
        let runtime = self.runtime(resolution, Arc::clone(material), Some(now))?;
        seen.manifests = contents;
        seen.statuses = statuses;
        Ok(Some(runtime))
    }
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
                Ok(()) => self.seen.error.clear(),
                Err(error) => {
                    // Read again at the next look: a port may be free by then.
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

    /// Looks at the files, on a thread where nobody's requests wait, and puts in force what changed.
    async fn reload(&mut self) -> Result<(), StartError> {
        let now = self.shared.runtime.load_full();
        let source = Arc::clone(&self.source);
        let mut seen = std::mem::take(&mut self.seen);
        let looked = tokio::task::spawn_blocking(move || {
            let look = source.look(&now, &mut seen);
            (seen, look)
        });
        let (seen, look) =
            looked.await.map_err(|error| StartError(format!("the manifests could not be read: {error}")))?;
        self.seen = seen;
        if let Some(runtime) = look.runtime {
            self.apply(runtime).await?;
        }
        look.refused.map_or(Ok(()), Err)
    }

    async fn apply(&mut self, runtime: Runtime) -> Result<(), StartError> {
        let ports: Vec<u16> = runtime.ports().map(|(port, _)| port).collect();
        let opened = self.sockets.bind(ports.iter().copied()).await?;
        // Connections find their listener in the runtime: it is there before they come.
        self.shared.runtime.store(Arc::new(runtime));
        self.sockets.serve(opened, |port| ports.contains(&port));
        self.bound.send_replace(self.sockets.bound());
        self.shared.telemetry.metrics.reload("applied");
        self.note_expiry();
        let generation = self.shared.changes.borrow().wrapping_add(1);
        self.shared.telemetry.metrics.generation.set(generation);
        self.shared.changes.send_replace(generation);
        tracing::info!(generation, "a new configuration is in force");
        Ok(())
    }

    fn note_expiry(&self) {
        let runtime = self.shared.runtime.load();
        let leaf = runtime.material.credential.as_ref().and_then(|own| own.cert.first());
        if let Some(end) = leaf.and_then(|leaf| not_after(leaf)) {
            self.shared.telemetry.metrics.identity_expiry.set(end);
        }
    }
}
