//! From what a source has to what is in force: at first, whenever it changes, and whenever the identity does.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use xds_translate::{ConditionStatus, ObjectStatus, Resolution};

use super::{
    StartError,
    source::{Outcome, Source},
};
use crate::{
    admin::Health,
    config::Watch,
    connection::Shared,
    listen::{Phase, Sockets},
    runtime::{Runtime, RuntimeSettings},
    tls::{IdentityFiles, Material, not_after},
    xds::{Changes, Message, Mirror, Saved, StateFile},
};

/// Changes within this time are saved together.
const SAVE_AFTER: Duration = Duration::from_millis(500);

/// What reading needs: used on threads where nobody's requests wait.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) source: Source,
    pub(super) options: xds_translate::Options,
    pub(super) identity: IdentityFiles,
    pub(super) settings: RuntimeSettings,
    /// What was reported last: each status is logged once.
    statuses: Vec<ObjectStatus>,
    identity_error: String,
}

/// What became of one look.
struct Look {
    /// To be put in force, if anything changed.
    runtime: Option<Runtime>,
    /// Whether there is something in it that the source offered.
    is_offered: bool,
    /// Why the offer was refused.
    refused: Option<StartError>,
}

impl Reader {
    pub(super) fn new(
        source: Source,
        options: xds_translate::Options,
        identity: IdentityFiles,
        settings: RuntimeSettings,
    ) -> Self {
        Self { source, options, identity, settings, statuses: Vec::new(), identity_error: String::new() }
    }

    fn look(&mut self, now: &Runtime) -> Look {
        let material = self.material(now);
        let offered = match self.source.offer(&self.options) {
            Ok(None) => None,
            Ok(Some(resolution)) => Some(self.runtime(resolution, &material, now)),
            Err(error) => Some(Err(StartError(error.to_string()))),
        };
        match offered {
            Some(Ok(runtime)) => Look { runtime: Some(runtime), is_offered: true, refused: None },
            // Certificates that rotate do not wait for a configuration that is wrong.
            not_offered => Look {
                runtime: self.rotated(material, now),
                is_offered: false,
                refused: not_offered.and_then(Result::err),
            },
        }
    }

    fn runtime(
        &mut self,
        resolution: Resolution,
        material: &Arc<Material>,
        now: &Runtime,
    ) -> Result<Runtime, StartError> {
        report(&resolution.statuses, &self.statuses);
        let snapshots = resolution
            .gateways
            .into_iter()
            .filter(|(name, _)| self.source.serves(name))
            .map(|(_, snapshot)| snapshot)
            .collect();
        let runtime = Runtime::new(snapshots, Arc::clone(material), &self.settings, Some(now))?;
        self.statuses = resolution.statuses;
        Ok(runtime)
    }

    /// What is in force, with another identity; `None`: it is the same one.
    fn rotated(&mut self, material: Arc<Material>, now: &Runtime) -> Option<Runtime> {
        if Arc::ptr_eq(&material, &now.material) {
            return None;
        }
        let snapshots = now.snapshots().cloned().collect();
        match Runtime::new(snapshots, material, &self.settings, Some(now)) {
            Ok(runtime) => Some(runtime),
            Err(error) => {
                self.identity_is_of_no_use(format!("{error:#}"));
                None
            }
        }
    }

    fn material(&mut self, now: &Runtime) -> Arc<Material> {
        match self.identity.read() {
            Ok(material) if material.is_same_as(&now.material) => {
                self.identity_error.clear();
                Arc::clone(&now.material)
            }
            Ok(mut material) => {
                // Listeners that are served with it would close.
                if material.credential.is_none() && now.material.credential.is_some() {
                    self.identity_is_of_no_use("there is no credential-bundle.pem any more".to_owned());
                    material.credential.clone_from(&now.material.credential);
                    material.own_id.clone_from(&now.material.own_id);
                }
                Arc::new(material)
            }
            // A rotation that is half done: the identity before is still good, and nothing else need wait for it.
            Err(error) => {
                self.identity_is_of_no_use(format!("{error:#}"));
                Arc::clone(&now.material)
            }
        }
    }

    fn identity_is_of_no_use(&mut self, error: String) {
        if error != self.identity_error {
            tracing::error!(error, "the identity files cannot be used; the identity before stays in force");
            self.identity_error = error;
        }
    }

    fn mirror(&mut self) -> Option<&mut Mirror> {
        match &mut self.source {
            Source::Files(_) => None,
            Source::Controller(mirror) => Some(mirror),
        }
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

/// What the one who follows a controller is told, and where what it sent is kept.
#[derive(Debug)]
pub(super) struct Following {
    /// What it sends.
    pub(super) messages: mpsc::Receiver<Message>,
    /// The identity to use from now on.
    pub(super) identity: watch::Sender<Arc<Material>>,
    pub(super) state: Option<StateFile>,
    /// Whether session keys are the controller's to give; `--session-key-file` wins.
    pub(super) takes_session_keys: bool,
    /// When to write what is in force there.
    save_at: Option<Instant>,
}

impl Following {
    pub(super) fn new(
        messages: mpsc::Receiver<Message>,
        identity: watch::Sender<Arc<Material>>,
        state: Option<StateFile>,
        takes_session_keys: bool,
    ) -> Self {
        Self { messages, identity, state, takes_session_keys, save_at: None }
    }
}

/// Keeps the configuration in force up to date.
#[derive(Debug)]
pub(super) struct Reloader {
    pub(super) reader: Arc<Mutex<Reader>>,
    pub(super) shared: Arc<Shared>,
    pub(super) health: Arc<Health>,
    /// `None`: another process serves the listeners' ports.
    pub(super) sockets: Option<Sockets>,
    pub(super) bound: watch::Sender<BTreeMap<u16, SocketAddr>>,
    /// `None`: the configuration is in files.
    pub(super) following: Option<Following>,
    /// The last error: each is logged once.
    pub(super) error: String,
    /// Why ports could not be bound: they are tried at each look.
    pub(super) unbound: Vec<String>,
}

/// What is to be done next.
enum Next {
    End,
    Look,
    Take(Message),
    Save,
}

impl Reloader {
    /// Runs until the process drains; then closes the sockets.
    pub(super) async fn run(mut self, mut phase: watch::Receiver<Phase>) {
        let watch = {
            let reader = self.reader();
            let paths = reader.source.paths();
            Watch::new(paths.iter().map(PathBuf::as_path).chain(reader.identity.folders()))
        };
        loop {
            match self.next(&watch, &mut phase).await {
                Next::End => break,
                Next::Look => self.look().await,
                Next::Take(message) => self.take(message).await,
                Next::Save => self.save().await,
            }
        }
        if self.following.as_ref().is_some_and(|following| following.save_at.is_some()) {
            self.save().await;
        }
        if let Some(sockets) = &mut self.sockets {
            sockets.close();
        }
    }

    async fn next(&mut self, watch: &Watch, phase: &mut watch::Receiver<Phase>) -> Next {
        let ended = phase.wait_for(|phase| *phase != Phase::Serving);
        let Some(following) = &mut self.following else {
            return tokio::select! {
                _ = ended => Next::End,
                () = watch.changed() => Next::Look,
            };
        };
        let save_at = following.save_at;
        let due = async move {
            match save_at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = ended => Next::End,
            () = watch.changed() => Next::Look,
            Some(message) = following.messages.recv() => Next::Take(message),
            () = due => Next::Save,
        }
    }

    fn reader(&self) -> MutexGuard<'_, Reader> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at files without being told what changed.
    async fn look(&mut self) {
        match self.reload(None).await {
            Ok(()) => self.error.clear(),
            Err(error) => {
                let error = error.to_string();
                if error != self.error {
                    self.shared.telemetry.metrics.reload("refused");
                    tracing::error!(error, "the configuration was refused; the one before stays in force");
                    self.error = error;
                }
            }
        }
        if !self.unbound.is_empty() {
            let ports = self.shared.runtime.load().ports();
            let opened = self.bind(&ports).await;
            self.serve(opened, &ports);
        }
    }

    /// Takes what the controller sent, and answers. An answer that nobody waits for any more is no fault: the stream has
    /// ended, and the next one begins with what is in force.
    async fn take(&mut self, message: Message) {
        match message {
            Message::Connecting(reply) => {
                let versions = self.reader().mirror().map(Mirror::reset).unwrap_or_default();
                drop(reply.send(versions));
            }
            Message::Objects(changes, verdict) => {
                let result = self.reload(Some(changes)).await;
                if result.is_err() {
                    self.shared.telemetry.metrics.reload("refused");
                }
                drop(verdict.send(result.map_err(|error| error.to_string())));
            }
            Message::SessionKeys(changes, verdict) => {
                let taken = self.reader().mirror().map(|mirror| mirror.take_keys(changes));
                let result = match taken {
                    Some(Ok(Some(keys))) => {
                        self.shared.keys.store(Arc::new(keys));
                        self.save_soon();
                        tracing::info!("the controller's session keys are in use");
                        Ok(())
                    }
                    Some(Err(error)) => Err(format!("{error:#}")),
                    Some(Ok(None)) | None => Ok(()),
                };
                drop(verdict.send(result));
            }
        }
    }

    /// Looks at everything, with changes of the controller's if there are any, on a thread where nobody's requests wait,
    /// and puts in force what is new.
    pub(super) async fn reload(&mut self, changes: Option<Changes>) -> Result<(), StartError> {
        let now = self.shared.runtime.load_full();
        let reader = Arc::clone(&self.reader);
        let looked = tokio::task::spawn_blocking(move || {
            let mut reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
            if let (Some(changes), Some(mirror)) = (changes, reader.mirror()) {
                mirror.take(changes);
            }
            reader.look(&now)
        });
        let Look { runtime, is_offered, refused } = looked
            .await
            .map_err(|error| StartError(format!("the configuration could not be read: {error}")))?;
        if let Some(runtime) = runtime {
            self.apply(runtime, is_offered).await?;
        }
        if let Some(error) = refused {
            self.reader().source.settle(Outcome::Refused);
            return Err(error);
        }
        if is_offered {
            self.reader().source.settle(Outcome::InForce);
            self.save_soon();
        }
        Ok(())
    }

    /// Binds ports that are not open yet. Those that cannot be bound do not hold up the others.
    async fn bind(&mut self, ports: &BTreeSet<u16>) -> Vec<(u16, TcpListener)> {
        let Some(sockets) = &self.sockets else { return Vec::new() };
        let (opened, unbound) = sockets.bind(ports).await;
        for error in unbound.iter().filter(|error| !self.unbound.contains(error)) {
            tracing::error!(error, "a port is not served; it is tried again");
        }
        self.unbound = unbound;
        opened
    }

    fn serve(&mut self, opened: Vec<(u16, TcpListener)>, ports: &BTreeSet<u16>) {
        let Some(sockets) = &mut self.sockets else { return };
        sockets.serve(opened, |port| ports.contains(&port));
        self.bound.send_replace(sockets.bound());
    }

    async fn apply(&mut self, runtime: Runtime, is_offered: bool) -> Result<(), StartError> {
        let ports = runtime.ports();
        let opened = self.bind(&ports).await;
        // Files must be good at first.
        if self.following.is_none()
            && !self.health.is_ready()
            && let Some(fault) = runtime.faults.iter().chain(&self.unbound).next()
        {
            return Err(StartError(fault.clone()));
        }
        let before = self.shared.runtime.load_full();
        for error in runtime.faults.iter().filter(|fault| !before.faults.contains(fault)) {
            tracing::error!(error, "a listener is not served");
        }
        let material = Arc::clone(&runtime.material);
        // Connections find their listener in the runtime: it is there before they come.
        self.shared.runtime.store(Arc::new(runtime));
        self.serve(opened, &ports);
        if let Some(following) = &self.following {
            following.identity.send_if_modified(|current| {
                let changed = !Arc::ptr_eq(current, &material);
                *current = material;
                changed
            });
        }
        self.note_expiry();
        if !is_offered && !self.health.is_ready() {
            // Another identity, and nothing to serve with it yet.
            return Ok(());
        }
        self.shared.telemetry.metrics.reload("applied");
        let generation = self.shared.changes.borrow().wrapping_add(1);
        self.shared.telemetry.metrics.generation.set(generation);
        self.shared.changes.send_replace(generation);
        self.health.become_ready();
        tracing::info!(generation, "a new configuration is in force");
        if ports.is_empty() {
            tracing::warn!("no Gateway has a listener that can be served; see `agentic-gateway check`");
        }
        Ok(())
    }

    pub(super) fn note_expiry(&self) {
        let runtime = self.shared.runtime.load();
        let leaf = runtime.material.credential.as_ref().and_then(|own| own.cert.first());
        if let Some(end) = leaf.and_then(|leaf| not_after(leaf)) {
            self.shared.telemetry.metrics.identity_expiry.set(end);
        }
    }

    fn save_soon(&mut self) {
        if let Some(following) = &mut self.following
            && following.state.is_some()
        {
            following.save_at.get_or_insert_with(|| Instant::now() + SAVE_AFTER);
        }
    }

    /// Writes what is in force; what is not in force yet is not written.
    async fn save(&mut self) {
        let Some(following) = &mut self.following else { return };
        following.save_at = None;
        let Some(state) = following.state.clone() else { return };
        let saved = {
            let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
            reader.mirror().filter(|mirror| mirror.is_settled()).map(|mirror| {
                let (objects, session_keys) = mirror.contents();
                Saved { gateway: mirror.gateway().clone(), objects, session_keys }
            })
        };
        let Some(saved) = saved else { return };
        let written = tokio::task::spawn_blocking(move || state.write(saved)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(
                error = format!("{error:#}"),
                "the configuration is not saved; without the controller the next start has an older one, or none"
            );
        }
    }

    /// Puts in force what was saved, until the controller says more. What cannot be used is not used.
    pub(super) async fn restore(&mut self) {
        let Some(state) = self.following.as_ref().and_then(|following| following.state.clone()) else {
            return;
        };
        let restored = self.restored(&state).await;
        if let Err(error) = restored {
            if let Some(mirror) = self.reader().mirror() {
                *mirror = Mirror::new(mirror.gateway().clone());
            }
            tracing::warn!(
                error = format!("{error:#}"),
                "the saved configuration is of no use; nothing is served until the controller is reached"
            );
        }
    }

    async fn restored(&mut self, state: &StateFile) -> anyhow::Result<()> {
        let takes_keys = self.following.as_ref().is_some_and(|following| following.takes_session_keys);
        let (objects, keys) = {
            let mut reader = self.reader();
            let Some(mirror) = reader.mirror() else { return Ok(()) };
            let Some(saved) = state.read(mirror.gateway())? else { return Ok(()) };
            let (objects, keys) = saved.into_changes();
            let keys = keys.filter(|_| takes_keys).map(|keys| mirror.take_keys(keys));
            (objects, keys.transpose()?.flatten())
        };
        self.reload(Some(objects)).await?;
        if let Some(keys) = keys {
            self.shared.keys.store(Arc::new(keys));
        }
        // It is what was read.
        if let Some(following) = &mut self.following {
            following.save_at = None;
        }
        tracing::info!("the saved configuration is in force until the controller is reached");
        Ok(())
    }
}
