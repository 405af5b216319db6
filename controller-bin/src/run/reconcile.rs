//! From events to what follows from them: configurations of proxies, identities to admit, proxies to run, statuses.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use policy_model::NamespacedName;
use prost::Message as _;
use serde_json::Value;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use xds_server::{Cache, Report, Resource, ResourceSet};
use xds_translate::native;

use super::{
    admit::Admitted,
    envoy::{self, Connected, Envoys},
    group,
    health::Health,
    metrics::Metrics,
};
use crate::{
    identity::{Serving, session_keys},
    index::{Index, Outcome},
    lease::Membership,
    provision::Proxy,
    status::{self, EnvoyVersion, Observed, Proxies},
    watch::{Event, Synced},
};

/// What the reconciler listens to.
pub(super) struct Inputs {
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) serving: watch::Receiver<Option<Serving>>,
    pub(super) membership: watch::Receiver<Membership>,
    /// What proxies said to this replica.
    pub(super) published: watch::Receiver<BTreeMap<NamespacedName, Proxies>>,
    /// Gateways with an Envoy that is connected to this replica.
    pub(super) envoys: watch::Receiver<BTreeMap<NamespacedName, Connected>>,
    /// What provisioning could not do.
    pub(super) provisioning: watch::Receiver<BTreeMap<NamespacedName, String>>,
}

/// Holds the index, and tells everybody else what follows from it.
pub(super) struct Reconciler {
    pub(super) index: Index,
    pub(super) cache: Cache,
    pub(super) envoys: Envoys,
    pub(super) admitted: Admitted,
    pub(super) health: Arc<Health>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) secrets: watch::Sender<BTreeSet<NamespacedName>>,
    pub(super) gateways: watch::Sender<BTreeSet<NamespacedName>>,
    pub(super) proxies: watch::Sender<BTreeMap<NamespacedName, Proxy>>,
    pub(super) abandoned: watch::Sender<BTreeSet<NamespacedName>>,
    /// Objects of ours that have finalizers.
    pub(super) finalizers: watch::Sender<Arc<[Value]>>,
    pub(super) writes: watch::Sender<Arc<[status::Write]>>,
}

/// At most this many events are taken up before what follows from them is computed, so that a flood delays nobody for ever.
const AT_ONCE: usize = 4096;

/// So many events that wait are a flood: somebody writes a great many objects.
const FLOOD: usize = 16;

/// The longest rest in a flood.
const REST: Duration = Duration::from_secs(1);

impl Reconciler {
    /// Runs until the process ends.
    pub(super) async fn run(mut self, mut inputs: Inputs) -> anyhow::Result<()> {
        let mut synced = Synced::new();
        let mut current = Current::default();
        let mut done = false;
        let mut batch = Vec::new();
        loop {
            let mut changed_something = true;
            tokio::select! {
                count = inputs.events.recv_many(&mut batch, AT_ONCE) => {
                    anyhow::ensure!(count > 0, "the watches ended");
                    // At the start even a list of nothing is news.
                    changed_something = !done;
                    for event in batch.drain(..) {
                        self.metrics.events.inc();
                        synced.see(&event);
                        changed_something |= self.take_up(&event);
                    }
                }
                changed = inputs.serving.changed() => changed.context("the identities ended")?,
                changed = inputs.membership.changed() => changed.context("the leases ended")?,
                changed = inputs.published.changed() => changed.context("the reports ended")?,
                changed = inputs.envoys.changed() => changed.context("the reports ended")?,
                changed = inputs.provisioning.changed() => changed.context("the provisioning ended")?,
                () = current.settled() => {}
            }
            if !synced.is_listed() || !changed_something {
                continue;
            }
            let started = Instant::now();
            // The index may be large and the work is pure: the other tasks of this thread need not wait for it.
            let outcome = tokio::task::block_in_place(|| self.index.outcome());
            self.secrets.send_if_modified(|wanted| replace(wanted, &outcome.secrets));
            done = synced.is_done(&outcome.secrets);
            if !done {
                continue;
            }
            let serving = inputs.serving.borrow_and_update().clone();
            if let Some(serving) = serving {
                let connected = inputs.envoys.borrow_and_update().clone();
                tokio::task::block_in_place(|| self.publish(&outcome, &serving, &connected, &mut current));
                self.health.become_reconciled();
            }
            let membership = inputs.membership.borrow_and_update().clone();
            self.metrics.leader.set(u64::from(membership.leader));
            let proxies = merged(&membership.proxies, &inputs.published.borrow_and_update());
            current.acknowledged(&proxies);
            let observed = Observed {
                proxies,
                provisioning: inputs.provisioning.borrow_and_update().clone(),
                envoy: current.envoy_versions(),
                unserved: self.envoys.unserved(),
                refused: self.envoys.refused(),
                current_for: current.ages(),
            };
            let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            // Only the leader writes; it begins with all that differs.
            let writes = match membership.leader {
                true => {
                    tokio::task::block_in_place(|| status::writes(&self.index, &outcome, &observed, &now))
                }
                false => Vec::new(),
            };
            self.writes.send_if_modified(|before| replace(before, &writes.into()));
            self.finalizers.send_if_modified(|before| replace(before, &self.with_finalizers(&outcome)));
            let took = started.elapsed();
            self.metrics.reconciliations.observe(took.as_secs_f64());
            if inputs.events.len() >= FLOOD {
                // Everything is computed anew for each batch, and proxies do so for each push: whoever writes so much needs
                // the machine, and what comes meanwhile is taken up together. One change by itself waits for nothing.
                tokio::time::sleep(took.min(REST)).await;
            }
        }
    }

    fn take_up(&mut self, event: &Event) -> bool {
        match event {
            Event::Apply(object) => self.index.apply(object),
            Event::Delete(object) => self.index.delete(object),
            Event::Reset(kind, objects) => self.index.reset(kind, objects),
        }
    }

    /// Objects that have a status of ours, and finalizers.
    fn with_finalizers(&self, outcome: &Outcome) -> Arc<[Value]> {
        let has_finalizers = |object: &&Value| {
            object
                .pointer("/metadata/finalizers")
                .and_then(Value::as_array)
                .is_some_and(|all| !all.is_empty())
        };
        outcome
            .statuses
            .iter()
            .filter(|status| status.scope.is_object())
            .filter_map(|status| self.index.object(&status.object))
            .filter(has_finalizers)
            .cloned()
            .collect()
    }

    /// Tells the discovery service, the signer and the provisioner.
    fn publish(
        &mut self,
        outcome: &Outcome,
        serving: &Serving,
        connected: &BTreeMap<NamespacedName, Connected>,
        current: &mut Current,
    ) {
        let gateways: BTreeSet<_> = outcome.gateways.keys().cloned().collect();
        for (gateway, result) in &outcome.gateways {
            let plan = self.envoys.plan(
                gateway,
                result.proxy.as_ref().ok(),
                connected.get(gateway).copied(),
                &serving.roots,
            );
            if !current.differs(gateway, &result.resources, &serving.seeds, plan.as_ref()) {
                continue;
            }
            let keys = native::SessionKeys {
                keys: session_keys(&serving.seeds, gateway).iter().map(|key| key.to_vec()).collect(),
            };
            let keys = Resource::new(keys.encode_to_vec());
            let mut set = ResourceSet::clone(&result.resources);
            set.types.insert(native::SESSION_KEYS.into(), BTreeMap::from([(SESSION_KEYS_NAME.into(), keys)]));
            if let (Some(plan), Some(snapshot)) = (&plan, self.index.snapshots().get(gateway)) {
                set.types.extend(self.envoys.resources(gateway, snapshot, &plan.settings));
            }
            let version = match &plan {
                Some(plan) if plan.serves => envoy::version(|type_url| set.version_of(type_url)),
                _ => set.version_of(native::OBJECT).to_string(),
            };
            current.note(gateway, &result.resources, &serving.seeds, plan, version);
            self.cache.publish(&group(gateway), Arc::new(set));
        }
        self.envoys.retain(&gateways);
        // Who is new is admitted after there is something to get, who is gone is refused before it is taken away.
        self.admitted.set(&gateways);
        for gone in current.gone(&gateways) {
            self.cache.remove(&group(&gone));
        }
        self.metrics.gateways.set(u64::try_from(gateways.len()).unwrap_or(u64::MAX));
        self.gateways.send_if_modified(|before| replace(before, &gateways));
        self.abandoned.send_if_modified(|before| replace(before, &outcome.abandoned));
        let proxies: BTreeMap<_, _> = outcome
            .gateways
            .iter()
            .filter_map(|(gateway, result)| Some((gateway.clone(), result.proxy.clone().ok()?)))
            .collect();
        self.proxies.send_if_modified(|before| replace(before, &proxies));
    }
}

/// The one resource of its type.
const SESSION_KEYS_NAME: &str = "session-keys";

fn replace<T: PartialEq + Clone>(before: &mut T, now: &T) -> bool {
    let differ = before != now;
    if differ {
        before.clone_from(now);
    }
    differ
}

/// What all replicas heard, what this one heard last included.
fn merged(
    others: &BTreeMap<NamespacedName, Proxies>,
    own: &BTreeMap<NamespacedName, Proxies>,
) -> BTreeMap<NamespacedName, Proxies> {
    let mut all = others.clone();
    for (gateway, heard) in own {
        let proxies = all.entry(gateway.clone()).or_default();
        proxies.acknowledged.extend(heard.acknowledged.iter().cloned());
        for refused in &heard.refused {
            if !proxies.refused.contains(refused) {
                proxies.refused.push(refused.clone());
            }
        }
    }
    all
}

/// What each Gateway's proxies are to have, and since when none has it: a status that waits for them is not taken back at once.
#[derive(Debug, Default)]
struct Current {
    gateways: BTreeMap<NamespacedName, Published>,
}

#[derive(Debug)]
struct Published {
    resources: Arc<ResourceSet>,
    seeds: Arc<[[u8; 32]]>,
    /// How Envoy gets it, if it does.
    envoy: Option<envoy::Plan>,
    /// Of all that a proxy is to have.
    version: String,
    /// Since when no proxy that is connected has it; `None` while one has.
    waiting: Option<Instant>,
}

impl Current {
    /// Whether it differs from what was published.
    fn differs(
        &self,
        gateway: &NamespacedName,
        resources: &Arc<ResourceSet>,
        seeds: &Arc<[[u8; 32]]>,
        envoy: Option<&envoy::Plan>,
    ) -> bool {
        let same = |before: &Published| {
            Arc::ptr_eq(&before.resources, resources)
                && before.seeds == *seeds
                && before.envoy.as_ref() == envoy
        };
        !self.gateways.get(gateway).is_some_and(same)
    }

    /// Takes note of what is published.
    fn note(
        &mut self,
        gateway: &NamespacedName,
        resources: &Arc<ResourceSet>,
        seeds: &Arc<[[u8; 32]]>,
        envoy: Option<envoy::Plan>,
        version: String,
    ) {
        let same = self.gateways.get(gateway).filter(|before| before.version == version);
        let waiting = same.map_or_else(|| Some(Instant::now()), |same| same.waiting);
        let (resources, seeds) = (Arc::clone(resources), Arc::clone(seeds));
        self.gateways.insert(gateway.clone(), Published { resources, seeds, envoy, version, waiting });
    }

    /// Takes note of the versions that proxies have which are connected.
    fn acknowledged(&mut self, proxies: &BTreeMap<NamespacedName, Proxies>) {
        for (gateway, published) in &mut self.gateways {
            let has = |proxies: &Proxies| proxies.acknowledged.contains(&published.version);
            published.waiting = match published.waiting {
                _ if proxies.get(gateway).is_some_and(has) => None,
                waiting => waiting.or_else(|| Some(Instant::now())),
            };
        }
    }

    /// Of the Gateways that Envoy serves.
    fn envoy_versions(&self) -> BTreeMap<NamespacedName, EnvoyVersion> {
        let version = |(gateway, published): (&NamespacedName, &Published)| {
            let plan = published.envoy.as_ref().filter(|plan| plan.serves)?;
            let version = EnvoyVersion { all: published.version.clone(), with_engine: plan.has_engine() };
            Some((gateway.clone(), version))
        };
        self.gateways.iter().filter_map(version).collect()
    }

    /// Forgets those that are not among the given ones, and tells which these were.
    fn gone(&mut self, left: &BTreeSet<NamespacedName>) -> Vec<NamespacedName> {
        let gone: Vec<_> = self.gateways.keys().filter(|gateway| !left.contains(*gateway)).cloned().collect();
        self.gateways.retain(|gateway, _| left.contains(gateway));
        gone
    }

    fn ages(&self) -> BTreeMap<NamespacedName, Duration> {
        let age = |published: &Published| published.waiting.map_or(Duration::ZERO, |since| since.elapsed());
        self.gateways.iter().map(|(gateway, published)| (gateway.clone(), age(published))).collect()
    }

    /// Completes when the next grace ends; never where none runs.
    async fn settled(&self) {
        let now = Instant::now();
        let waiting = self.gateways.values().filter_map(|published| published.waiting);
        match waiting.map(|since| since + status::GRACE).filter(|end| *end > now).min() {
            Some(end) => tokio::time::sleep_until(end).await,
            None => std::future::pending().await,
        }
    }
}

/// Tells what proxies say to this replica's discovery service, and which Gateways have an Envoy among them, whenever it
/// changes.
pub(super) async fn report(
    cache: Cache,
    published: watch::Sender<BTreeMap<NamespacedName, Proxies>>,
    envoys: watch::Sender<BTreeMap<NamespacedName, Connected>>,
) -> anyhow::Result<()> {
    let mut changed = cache.reports_changed();
    loop {
        let mut all: BTreeMap<NamespacedName, Proxies> = BTreeMap::new();
        let mut with_envoy = BTreeMap::new();
        // The containers of a Pod have one address: what they say, they say together.
        let mut pods: BTreeMap<(Arc<str>, IpAddr), Vec<Report>> = BTreeMap::new();
        for report in cache.reports() {
            pods.entry((Arc::clone(&report.group), report.address)).or_default().push(report);
        }
        for ((group, _), reports) in &pods {
            let Some((namespace, name)) = group.split_once('/') else { continue };
            let gateway = NamespacedName::new(namespace, name);
            let proxies = all.entry(gateway.clone()).or_default();
            for report in reports {
                if let Some(version) = report.acknowledged.get(native::OBJECT) {
                    proxies.acknowledged.insert(version.to_string());
                }
                if let Some(nack) = report.refused.get(native::OBJECT) {
                    proxies.refused.push((nack.version.to_string(), nack.message.clone()));
                }
            }
            if let Some(said) =
                envoy::said(reports, |type_url| cache.version_of(group, type_url).unwrap_or_default())
            {
                let connected = with_envoy.entry(gateway).or_insert(Connected { alone: false });
                connected.alone |= envoy::is_alone(reports);
                proxies.acknowledged.extend(said.acknowledged);
                proxies.refused.extend(said.refused);
            }
        }
        for proxies in all.values_mut() {
            proxies.refused.sort();
            proxies.refused.dedup();
        }
        envoys.send_if_modified(|before| replace(before, &with_envoy));
        published.send_if_modified(|before| replace(before, &all));
        changed.changed().await.context("the discovery service's cache is gone")?;
    }
}
