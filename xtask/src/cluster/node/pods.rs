//! Pods of this node: found, run, reported, ended.
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use k8s_openapi::{
    api::core::v1::{Binding, Container, ContainerStatus, ObjectReference, Pod, PodStatus},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use tokio::{sync::watch, task::JoinSet};

use super::{
    NODE_NAME,
    containers::{Role, supervise},
    context::{Context, Key, RETRY, Signal, changed_or, now},
    sandbox::Network,
    status::{self, State},
    volumes::{self, Volumes},
};

/// Kubernetes' default of `terminationGracePeriodSeconds`.
const GRACE: i64 = 30;
/// Volumes are looked at this often even if nothing is known to have changed: tokens and certificates run out.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Gives every Pod that has no node this one. There is nothing to choose.
pub(super) async fn schedule(context: Arc<Context>) {
    let mut changed = context.pods_changed.subscribe();
    loop {
        let waits = |pod: &Pod| {
            let spec = pod.spec.as_ref();
            pod.metadata.deletion_timestamp.is_none()
                && spec.is_some_and(|spec| {
                    spec.node_name.is_none()
                        && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
                        && spec.scheduler_name.as_deref().is_none_or(|name| name == "default-scheduler")
                })
        };
        for pod in context.pods.state().into_iter().filter(|pod| waits(pod)) {
            if let Err(error) = bind(&context, &pod).await {
                // Mostly one that was bound a moment ago, as the watch will say.
                let conflict =
                    matches!(&error, kube::Error::Api(status) if status.code == 409 || status.code == 404);
                if !conflict {
                    eprintln!("node: {}: not scheduled: {error}", pod.name_any());
                }
            }
        }
        changed_or(&mut changed, LOOK_AGAIN).await;
    }
}

async fn bind(context: &Context, pod: &Pod) -> Result<(), kube::Error> {
    let pods: Api<Pod> = Api::namespaced(context.admin.clone(), &pod.namespace().unwrap_or_default());
    let binding = Binding {
        metadata: ObjectMeta {
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            name: Some(NODE_NAME.into()),
            ..ObjectReference::default()
        },
    };
    let bound: serde_json::Value =
        pods.create_subresource("binding", &pod.name_any(), &PostParams::default(), &binding).await?;
    drop(bound);
    Ok(())
}

/// Runs the Pods that are bound to this node, each in a task of its own.
pub(super) async fn run(context: Arc<Context>) {
    let mut changed = context.pods_changed.subscribe();
    // By UID: a Pod that comes back under its name is another one.
    let mut running: BTreeMap<String, watch::Sender<Arc<Pod>>> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let mut seen = BTreeMap::new();
        for pod in context.pods.state() {
            let here = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(NODE_NAME);
            if let (true, Some(uid)) = (here, pod.uid()) {
                seen.insert(uid, pod);
            }
        }
        // Who is told by nobody any more knows that the Pod is gone.
        running.retain(|uid, _| seen.contains_key(uid));
        for (uid, pod) in seen {
            match running.get(&uid) {
                Some(pods) => {
                    pods.send_if_modified(|known| {
                        let other = known.resource_version() != pod.resource_version();
                        *known = pod;
                        other
                    });
                }
                None if is_over(&pod) && pod.metadata.deletion_timestamp.is_none() => {}
                None => {
                    let (sender, receiver) = watch::channel(pod);
                    running.insert(uid, sender);
                    tasks.spawn(live(Arc::clone(&context), receiver));
                }
            }
        }
        while tasks.try_join_next().is_some() {}
        changed_or(&mut changed, LOOK_AGAIN).await;
    }
}

fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// A Pod that runs here.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) context: Arc<Context>,
    pub(super) network: Network,
    /// Its folder on the node.
    pub(super) folder: PathBuf,
    key: Key,
    uid: String,
    pods: watch::Receiver<Arc<Pod>>,
    state: Mutex<State>,
    changed: Signal,
}

impl Unit {
    /// As it is now.
    pub(super) fn pod(&self) -> Arc<Pod> {
        Arc::clone(&self.pods.borrow())
    }

    pub(super) fn restart_policy(&self) -> String {
        let policy = self.pod().spec.as_ref().and_then(|spec| spec.restart_policy.clone());
        policy.unwrap_or_else(|| "Always".to_owned())
    }

    /// The time that its containers have to end.
    pub(super) fn grace(&self) -> Duration {
        let pod = self.pod();
        let seconds = pod.metadata.deletion_grace_period_seconds;
        let seconds =
            seconds.or_else(|| pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds));
        Duration::from_secs(u64::try_from(seconds.unwrap_or(GRACE)).unwrap_or(0))
    }

    pub(super) fn logs(&self) -> PathBuf {
        let (namespace, name) = &self.key;
        self.context.dir.join("logs").join(format!("{namespace}_{name}_{}", self.uid))
    }

    pub(super) fn volume(&self, name: &str) -> PathBuf {
        self.folder.join("volumes").join(name)
    }

    /// Changes what is reported of a container.
    pub(super) fn update(&self, container: &str, change: impl FnOnce(&mut ContainerStatus)) {
        self.change(|state| {
            if let Some(status) = state.container(container) {
                change(status);
            }
        });
    }

    pub(super) fn started_at(&self, container: &str) -> Option<Time> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.container(container)?.state.as_ref()?.running.as_ref()?.started_at.clone()
    }

    /// A container's program has this process id.
    pub(super) fn running(&self, container: &str, pid: u32) {
        self.context.record(&self.key, |record| {
            record.pids.insert(container.to_owned(), pid);
        });
    }

    pub(super) fn forget(&self, container: &str) {
        self.context.record(&self.key, |record| {
            record.pids.remove(container);
        });
    }

    pub(super) async fn warn(&self, reason: &str, note: String) {
        self.event("Warning", reason, note).await;
    }

    pub(super) async fn event(&self, kind: &str, reason: &str, note: String) {
        self.context.event(&self.pod(), kind, reason, note).await;
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.send();
    }

    fn snapshot(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn api(&self) -> Api<Pod> {
        Api::namespaced(self.context.node.clone(), &self.key.0)
    }
}

/// A Pod's whole life on this node.
async fn live(context: Arc<Context>, pods: watch::Receiver<Arc<Pod>>) {
    let pod = Arc::clone(&pods.borrow());
    let key = (pod.namespace().unwrap_or_default(), pod.name_any());
    let uid = pod.uid().unwrap_or_default();
    let network = match context.network() {
        Ok(network) => network,
        Err(error) => return context.event(&pod, "Warning", "Failed", format!("{error:#}")).await,
    };
    let unit = Arc::new(Unit {
        folder: context.dir.join("pods").join(&uid),
        network,
        key,
        uid,
        pods,
        state: Mutex::new(State::new(&pod)),
        changed: Signal::default(),
        context,
    });
    let logs = unit.logs();
    unit.context.record(&unit.key, |record| record.logs = logs);
    let mut reporting = JoinSet::new();
    reporting.spawn(report(Arc::clone(&unit)));
    let mut volumes = Volumes::new(unit.folder.join("volumes"));
    let (stop, stopping) = watch::channel(None);
    // Main containers end before the sidecars, which serve them.
    let (stop_sidecars, sidecars_stopping) = watch::channel(None);
    let (mut containers, mut sidecars) = (JoinSet::new(), JoinSet::new());
    let deleted = tokio::select! {
        () = deleted(&unit) => true,
        () = begin_and_serve(
            &unit,
            &mut volumes,
            (&mut containers, &stopping),
            (&mut sidecars, &sidecars_stopping),
        ) => false,
    };
    if deleted {
        let ended = async {
            stop.send_replace(Some(unit.grace()));
            while containers.join_next().await.is_some() {}
            stop_sidecars.send_replace(Some(unit.grace()));
            while sidecars.join_next().await.is_some() {}
        };
        tokio::select! {
            () = ended => {}
            // Removed by force: nobody waits any more.
            () = gone(&unit) => {}
        }
    } else {
        stop_sidecars.send_replace(Some(unit.grace()));
        while sidecars.join_next().await.is_some() {}
    }
    // By force, or there is nobody left.
    containers.shutdown().await;
    sidecars.shutdown().await;
    if deleted {
        unit.change(|state| state.stopped = true);
    }
    if let Err(error) = clean(&unit, &volumes).await {
        eprintln!("node: {}/{}: not cleaned up: {error:#}", unit.key.0, unit.key.1);
    }
    if !deleted {
        // Its status stays until somebody removes it.
        self::deleted(&unit).await;
    }
    remove(&unit).await;
    reporting.shutdown().await;
}

/// Waits until somebody deletes the Pod.
async fn deleted(unit: &Unit) {
    let mut pods = unit.pods.clone();
    // An error: it is gone altogether.
    drop(pods.wait_for(|pod| pod.metadata.deletion_timestamp.is_some()).await);
}

/// Waits until the Pod is gone.
async fn gone(unit: &Unit) {
    let mut pods = unit.pods.clone();
    while pods.changed().await.is_ok() {}
}

type Running<'a> = (&'a mut JoinSet<bool>, &'a watch::Receiver<Option<Duration>>);

/// Brings the Pod up and keeps its volumes current. Returns when all of its containers have ended for good.
async fn begin_and_serve(
    unit: &Arc<Unit>,
    volumes: &mut Volumes,
    (containers, stop): Running<'_>,
    (sidecars, stop_sidecars): Running<'_>,
) {
    let pod = unit.pod();
    let Some(spec) = &pod.spec else { return };
    let sysctls = spec.security_context.as_ref().and_then(|security| security.sysctls.clone());
    if let Err(error) = unit.network.create(&sysctls.unwrap_or_default()).await {
        unit.warn("FailedCreatePodSandBox", format!("{error:#}")).await;
        return std::future::pending().await;
    }
    unit.change(|state| state.address = Some(unit.network.address));
    up_to_date(unit, volumes).await;
    let serve = async {
        for container in spec.init_containers.iter().flatten() {
            if container.restart_policy.as_deref() == Some("Always") {
                let supervised =
                    supervise(Arc::clone(unit), container.clone(), Role::Sidecar, stop_sidecars.clone());
                sidecars.spawn(supervised);
                until_started(unit, container).await;
            } else {
                containers.spawn(supervise(Arc::clone(unit), container.clone(), Role::Init, stop.clone()));
                if !matches!(containers.join_next().await, Some(Ok(true))) {
                    return;
                }
            }
        }
        for container in &spec.containers {
            containers.spawn(supervise(Arc::clone(unit), container.clone(), Role::Main, stop.clone()));
        }
        while containers.join_next().await.is_some() {}
    };
    tokio::select! {
        () = serve => {}
        () = keep_up_to_date(unit, volumes) => {}
    }
}

async fn until_started(unit: &Unit, container: &Container) {
    let mut changed = unit.changed.subscribe();
    let is_up = || {
        let mut state = unit.snapshot();
        state.container(&container.name).is_some_and(|status| status.started == Some(true))
    };
    while !is_up() {
        changed_or(&mut changed, LOOK_AGAIN).await;
    }
}

/// Makes all volumes; says, whenever it changes, what they wait for.
async fn up_to_date(unit: &Unit, volumes: &mut Volumes) {
    let mut changed = unit.context.sources_changed.subscribe();
    let mut said = String::new();
    loop {
        let address = unit.network.address.to_string();
        let Err(error) = volumes.bring_up_to_date(&unit.context, &unit.pod(), &address).await else { return };
        let message = format!("{error:#}");
        if message != said {
            unit.change(|state| {
                let all = state.init.iter_mut().chain(&mut state.main);
                for waiting in all.filter_map(|status| status.state.as_mut()?.waiting.as_mut()) {
                    waiting.message = Some(message.clone());
                }
            });
            unit.warn("FailedMount", message.clone()).await;
            said = message;
        }
        changed_or(&mut changed, RETRY).await;
    }
}

/// Keeps volumes current; never returns.
async fn keep_up_to_date(unit: &Unit, volumes: &mut Volumes) {
    let mut changed = unit.context.sources_changed.subscribe();
    let mut pods = unit.pods.clone();
    let mut said = String::new();
    loop {
        tokio::select! {
            () = changed_or(&mut changed, LOOK_AGAIN) => {}
            Ok(()) = pods.changed() => {}
        }
        let address = unit.network.address.to_string();
        let updated = volumes.bring_up_to_date(&unit.context, &unit.pod(), &address).await;
        let message = updated.err().map(|error| format!("{error:#}")).unwrap_or_default();
        if !message.is_empty() && message != said {
            unit.warn("FailedMount", message.clone()).await;
        }
        said = message;
    }
}

async fn clean(unit: &Unit, volumes: &Volumes) -> anyhow::Result<()> {
    volumes.remove(&unit.pod()).await?;
    volumes::remove_folder(&unit.folder)?;
    if unit.network.exists() { unit.network.remove().await } else { Ok(()) }
}

/// Writes the Pod's status whenever it is another one.
async fn report(unit: Arc<Unit>) {
    let mut changed = unit.changed.subscribe();
    let mut pods = unit.pods.clone();
    let mut written = unit.pod().status.clone().unwrap_or_default();
    let mut failed = false;
    loop {
        match write_status(&unit, &mut written).await {
            Ok(()) => failed = false,
            Err(error) => {
                if !failed && !is_not_found(&error) {
                    eprintln!("node: {}/{}: status not written: {error:#}", unit.key.0, unit.key.1);
                }
                failed = true;
            }
        }
        tokio::select! {
            () = changed_or(&mut changed, if failed { RETRY } else { Duration::from_secs(60) }) => {}
            Ok(()) = pods.changed() => {}
        }
    }
}

fn is_not_found(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if status.code == 404 || status.code == 409)
}

async fn write_status(unit: &Unit, written: &mut PodStatus) -> anyhow::Result<()> {
    let wanted = status::status(&unit.pod(), &unit.snapshot(), written, now());
    if wanted == *written {
        return Ok(());
    }
    // With the UID: another Pod of that name is not spoken of.
    let patch = serde_json::json!({"metadata": {"uid": unit.uid}, "status": wanted});
    unit.api().patch_status(&unit.key.1, &PatchParams::default(), &Patch::Merge(patch)).await?;
    *written = wanted;
    Ok(())
}

/// The last word on a deleted Pod: its final status, and then it is gone from the API server.
async fn remove(unit: &Unit) {
    let mut written = unit.pod().status.clone().unwrap_or_default();
    loop {
        // What the status says now, nobody waits for.
        let reported = write_status(unit, &mut written).await;
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(unit.uid.clone()), resource_version: None }),
            ..DeleteParams::default()
        };
        let deleted = unit.api().delete(&unit.key.1, &params).await.context("not removed");
        match deleted {
            Ok(_) => return,
            Err(error) if is_not_found(&error) => return,
            Err(error) => {
                let reported = reported.err().map(|error| format!("{error:#}; ")).unwrap_or_default();
                eprintln!("node: {}/{}: {reported}{error:#}", unit.key.0, unit.key.1);
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}
