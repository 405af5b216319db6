//! The edge: requests, timers and the watch around the rules.
use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    pin::pin,
    time::Duration,
};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, ObjectMeta, PostParams},
    runtime::watcher,
};
use policy_model::NamespacedName;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    LEADER, Membership, PROXIES, REPLICA, Settings,
    election::Election,
    replicas::{Replicas, joined},
    said,
};
use crate::status::Proxies;

/// The least time between two writes of what proxies said.
const COALESCE: Duration = Duration::from_millis(500);
/// After the watch failed.
const WATCH_PAUSE: Duration = Duration::from_secs(1);
/// How long each request of a clean end may take.
const GOODBYE: Duration = Duration::from_secs(2);

type Published = BTreeMap<NamespacedName, Proxies>;

/// What all parts work with.
struct Part {
    leases: Api<Lease>,
    settings: Settings,
    seconds: i32,
    start: Instant,
}

pub(super) async fn take_part(
    client: kube::Client,
    settings: Settings,
    published: watch::Receiver<Published>,
    membership: watch::Sender<Membership>,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let seconds = settings.duration.as_secs();
    let seconds = i32::try_from(seconds).ok().filter(|seconds| *seconds > 0);
    let seconds = seconds.with_context(|| {
        format!("a Lease cannot hold for {:?}; set a duration of whole seconds", settings.duration)
    })?;
    let leases = Api::namespaced(client, &settings.namespace);
    let part = Part { leases, settings, seconds, start: Instant::now() };
    let (leader_lease, leader_seen) = watch::channel(None);
    let leading = Leading(&membership);
    tokio::select! {
        never = part.lead(&leading, leader_seen) => match never {},
        never = part.stay(published.clone()) => match never {},
        never = part.look(published, &membership, &leader_lease) => match never {},
        // A sender that is gone cannot say stop any more, nor that this is to go on.
        _ = stop.wait_for(|stop| *stop) => {}
    }
    // Before anybody else may begin.
    drop(leading);
    part.leave().await;
    Ok(())
}

/// The place where it says whether this replica leads; when it is dropped, it does not.
struct Leading<'m>(&'m watch::Sender<Membership>);

impl Leading<'_> {
    fn set(&self, leads: bool) {
        let changed = self.0.send_if_modified(|membership| {
            let changed = membership.leader != leads;
            membership.leader = leads;
            changed
        });
        if changed {
            tracing::info!(leads, "leadership changed");
        }
    }
}

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        self.set(false);
    }
}

impl Part {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Tries to lead, for ever.
    async fn lead(&self, leading: &Leading<'_>, mut seen: watch::Receiver<Option<LeaseSpec>>) -> Infallible {
        let mut election = Election::new(self.settings.identity.clone(), self.seconds);
        loop {
            let (began, until) = (self.now(), election.leads_until());
            let result = {
                let mut trying = pin!(timeout(self.settings.patience(), self.try_to_lead(&mut election)));
                // Leading ends in time, whatever becomes of the request.
                tokio::select! {
                    result = &mut trying => result,
                    () = self.sleep_until(until) => {
                        leading.set(false);
                        trying.await
                    }
                }
            };
            leading.set(election.leads(self.now()));
            let pause = match result {
                Ok(Ok(())) if election.leads(self.now()) => self.settings.renewal(),
                // Another's: when its time is over, unless the watch says something else before.
                Ok(Ok(())) => election
                    .free_at()
                    .map_or(self.settings.retry(), |free_at| free_at.saturating_sub(began))
                    .clamp(self.settings.retry() / 4, self.settings.retry()),
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the leader's Lease could not be read or written");
                    self.settings.retry()
                }
                Err(_) => {
                    tracing::warn!("the API server does not answer about the leader's Lease");
                    self.settings.retry()
                }
            };
            let next = began + pause;
            loop {
                let until = election.leads_until();
                tokio::select! {
                    () = self.sleep_until(Some(next)) => break,
                    () = self.sleep_until(until), if election.leads(self.now()) => leading.set(false),
                    Ok(()) = seen.changed() => {
                        // What the watch says may be old, and then is none of the renewals that restart the
                        // candidate's clock: it is only a reason to look at once.
                        if election.is_news(self.now(), seen.borrow_and_update().as_ref()) {
                            break;
                        }
                    }
                }
            }
        }
    }

    async fn try_to_lead(&self, election: &mut Election) -> Result<(), kube::Error> {
        let lease = self.leases.get_opt(LEADER).await?;
        let now = self.now();
        let spec = lease.as_ref().map(|lease| lease.spec.clone().unwrap_or_default());
        election.observe(now, spec.as_ref());
        let Some(claim) = election.claim(now, Timestamp::now()) else { return Ok(()) };
        let metadata = lease.map(|lease| lease.metadata);
        let written = self.write(metadata, LEADER, claim, None).await?;
        // Counted from before it was sent: nobody else has seen it earlier.
        election.written(now, written.spec.unwrap_or_default());
        Ok(())
    }

    /// Keeps this replica's Lease, with what its proxies said.
    async fn stay(&self, mut published: watch::Receiver<Published>) -> Infallible {
        let name = format!("{REPLICA}{}", self.settings.identity);
        let mut is_published = true;
        loop {
            let said = said::encode(&published.borrow_and_update());
            let began = Instant::now();
            let pause = match timeout(self.settings.patience(), self.renew(&name, said)).await {
                Ok(Ok(())) => self.settings.renewal(),
                Ok(Err(error)) => {
                    tracing::warn!(%error, lease = name, "this replica's Lease could not be renewed");
                    self.settings.retry()
                }
                Err(_) => {
                    tracing::warn!(lease = name, "the API server does not answer about this replica's Lease");
                    self.settings.retry()
                }
            };
            tokio::select! {
                () = sleep_until(began + pause) => {}
                changed = published.changed(), if is_published => {
                    is_published = changed.is_ok();
                    sleep_until(began + COALESCE).await;
                }
            }
        }
    }

    async fn renew(&self, name: &str, said: String) -> Result<(), kube::Error> {
        let lease = self.leases.get_opt(name).await?;
        let now = MicroTime(Timestamp::now());
        let before = lease.as_ref().and_then(|lease| lease.spec.as_ref());
        let spec = LeaseSpec {
            holder_identity: Some(self.settings.identity.clone()),
            lease_duration_seconds: Some(self.seconds),
            acquire_time: before.and_then(|spec| spec.acquire_time.clone()).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            ..LeaseSpec::default()
        };
        self.write(lease.map(|lease| lease.metadata), name, spec, Some(said)).await?;
        Ok(())
    }

    /// Creates a Lease, or replaces the one with this metadata, if it still is of that `resourceVersion`.
    async fn write(
        &self,
        metadata: Option<ObjectMeta>,
        name: &str,
        spec: LeaseSpec,
        said: Option<String>,
    ) -> Result<Lease, kube::Error> {
        let is_new = metadata.is_none();
        let mut metadata =
            metadata.unwrap_or_else(|| ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() });
        // The API server keeps its own.
        metadata.managed_fields = None;
        if let Some(said) = said {
            metadata.annotations.get_or_insert_default().insert(PROXIES.to_owned(), said);
        }
        let lease = Lease { metadata, spec: Some(spec) };
        if is_new {
            self.leases.create(&PostParams::default(), &lease).await
        } else {
            self.leases.replace(name, &PostParams::default(), &lease).await
        }
    }

    /// Watches all Leases, and says who is there and what proxies said.
    async fn look(
        &self,
        mut published: watch::Receiver<Published>,
        membership: &watch::Sender<Membership>,
        leader: &watch::Sender<Option<LeaseSpec>>,
    ) -> Infallible {
        let mut replicas = Replicas::new(&self.settings.identity, self.settings.duration);
        let mut events = pin!(watcher(self.leases.clone(), watcher::Config::default()));
        let mut is_published = true;
        let (mut listen_at, mut asked_at, mut clean_at) = (self.now(), None, self.settings.duration);
        loop {
            self.say(&replicas, &published.borrow_and_update(), membership);
            let now = self.now();
            if replicas.is_doubtful(now) && asked_at.is_none_or(|at| now >= at + self.settings.retry()) {
                // The watch may be dead without knowing it.
                asked_at = Some(now);
                self.ask(&mut replicas).await;
                continue;
            }
            if now >= clean_at {
                clean_at = now + self.settings.duration;
                if membership.borrow().leader {
                    self.clean(&replicas).await;
                }
            }
            let again = replicas.is_doubtful(now).then(|| now + self.settings.retry());
            let next = [replicas.next_change(now), again, Some(clean_at)].into_iter().flatten().min();
            tokio::select! {
                () = self.sleep_until(next) => {}
                changed = published.changed(), if is_published => is_published = changed.is_ok(),
                event = async {
                    self.sleep_until(Some(listen_at)).await;
                    events.next().await
                } => match event {
                    Some(Ok(event)) => self.take(&mut replicas, event, leader),
                    Some(Err(error)) => {
                        tracing::warn!(%error, "the watch of Leases failed");
                        listen_at = self.now() + WATCH_PAUSE;
                    }
                    // It has no end.
                    None => listen_at = self.now() + WATCH_PAUSE,
                },
            }
        }
    }

    fn say(&self, replicas: &Replicas, own: &Published, membership: &watch::Sender<Membership>) {
        let now = self.now();
        let mut names: BTreeSet<String> = replicas.present(now).map(|(name, _)| name.to_owned()).collect();
        names.insert(self.settings.identity.clone());
        let others = replicas.present(now).map(|(_, proxies)| proxies);
        let proxies = joined(others.chain([own]));
        membership.send_if_modified(|membership| {
            if membership.replicas == names && membership.proxies == proxies {
                return false;
            }
            membership.replicas = names;
            membership.proxies = proxies;
            true
        });
    }

    fn take(
        &self,
        replicas: &mut Replicas,
        event: watcher::Event<Lease>,
        leader: &watch::Sender<Option<LeaseSpec>>,
    ) {
        let now = self.now();
        match event {
            watcher::Event::Init => replicas.begin_list(),
            watcher::Event::InitDone => replicas.end_list(),
            watcher::Event::InitApply(lease) | watcher::Event::Apply(lease) => {
                if lease.metadata.name.as_deref() == Some(LEADER) {
                    leader.send_replace(lease.spec);
                } else {
                    replicas.apply(now, lease);
                }
            }
            watcher::Event::Delete(lease) => {
                if lease.metadata.name.as_deref() == Some(LEADER) {
                    leader.send_replace(None);
                } else {
                    replicas.delete(&lease);
                }
            }
        }
    }

    /// Asks for all Leases as they are.
    async fn ask(&self, replicas: &mut Replicas) {
        match timeout(self.settings.patience(), self.leases.list(&ListParams::default())).await {
            Ok(Ok(list)) => {
                replicas.begin_list();
                let now = self.now();
                for lease in list {
                    replicas.apply(now, lease);
                }
                replicas.end_list();
            }
            Ok(Err(error)) => tracing::warn!(%error, "the Leases could not be listed"),
            Err(_) => tracing::warn!("the API server does not answer about Leases"),
        }
    }

    /// Deletes the Leases of replicas that are gone for good.
    async fn clean(&self, replicas: &Replicas) {
        for (name, preconditions) in replicas.abandoned(self.now()) {
            let only = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            match timeout(self.settings.patience(), self.leases.delete(&name, &only)).await {
                Ok(Ok(_)) => tracing::info!(lease = name, "deleted the Lease of a replica that is gone"),
                Ok(Err(error)) => tracing::debug!(%error, lease = name, "a Lease could not be deleted"),
                Err(_) => return,
            }
        }
    }

    /// Gives up both Leases, as far as the API server answers.
    async fn leave(&self) {
        let release = async {
            let Some(lease) = self.leases.get_opt(LEADER).await? else { return Ok(()) };
            let spec = lease.spec.unwrap_or_default();
            let Some(spec) = Election::release(&spec, &self.settings.identity, Timestamp::now()) else {
                return Ok(());
            };
            self.write(Some(lease.metadata), LEADER, spec, None).await.map(|_| ())
        };
        match timeout(GOODBYE, release).await {
            Ok(Ok::<(), kube::Error>(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the leader's Lease could not be released; it runs out"),
            Err(_) => tracing::warn!("the leader's Lease could not be released in time; it runs out"),
        }
        let name = format!("{REPLICA}{}", self.settings.identity);
        match timeout(GOODBYE, self.leases.delete(&name, &DeleteParams::default())).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, lease = name, "this replica's Lease could not be deleted")
            }
            Err(_) => tracing::warn!(lease = name, "this replica's Lease could not be deleted in time"),
        }
    }

    /// For ever, if there is no such moment.
    async fn sleep_until(&self, moment: Option<Duration>) {
        match moment {
            Some(moment) => sleep(moment.saturating_sub(self.now())).await,
            None => std::future::pending().await,
        }
    }
}
