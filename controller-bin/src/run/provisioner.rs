//! Provisions proxies, while this replica leads.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use policy_model::NamespacedName;
use serde_json::Value;
use tokio::{sync::watch, time::Instant};

use crate::{
    lease::Membership,
    provision::{self, Proxy, Settings},
};

/// How often everything is applied again, whatever somebody did to it.
const AGAIN: Duration = Duration::from_secs(30);
/// How soon something that failed is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// How long a Gateway may be nobody's of ours (its class is being replaced, for instance) before its proxies go: they
/// would decide by policies that nobody updates.
const ABANDONED: Duration = Duration::from_secs(60);
/// How long the objects of one Gateway may take.
const PATIENCE: Duration = Duration::from_secs(60);

async fn bounded(work: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_elapsed) => Err("the API server does not answer".to_owned()),
    }
}

/// Runs until the process ends.
pub(super) async fn provision(
    client: kube::Client,
    settings: Settings,
    mut wanted: watch::Receiver<BTreeMap<NamespacedName, Proxy>>,
    mut finalizers: watch::Receiver<Arc<[Value]>>,
    mut abandoned: watch::Receiver<BTreeSet<NamespacedName>>,
    mut membership: watch::Receiver<Membership>,
    failures: watch::Sender<BTreeMap<NamespacedName, String>>,
) -> anyhow::Result<()> {
    let mut applied: BTreeMap<NamespacedName, Proxy> = BTreeMap::new();
    let mut failed: BTreeSet<NamespacedName> = BTreeSet::new();
    // Since when.
    let mut left_alone: BTreeMap<NamespacedName, Instant> = BTreeMap::new();
    let mut again = Instant::now() + AGAIN;
    loop {
        let wake = if failed.is_empty() { again } else { again.min(Instant::now() + RETRY) };
        tokio::select! {
            changed = wanted.changed() => changed.context("the reconciliation ended")?,
            changed = finalizers.changed() => changed.context("the reconciliation ended")?,
            changed = abandoned.changed() => changed.context("the reconciliation ended")?,
            changed = membership.changed() => changed.context("the leases ended")?,
            () = tokio::time::sleep_until(wake) => {}
        }
        if !membership.borrow_and_update().leader {
            // Whoever leads next may have changed things: all is applied again on gaining leadership.
            applied.clear();
            failed.clear();
            again = Instant::now() + AGAIN;
            failures.send_if_modified(|failures| !std::mem::take(failures).is_empty());
            continue;
        }
        let with_finalizers = Arc::clone(&finalizers.borrow_and_update());
        for object in with_finalizers.iter() {
            if let Err(message) = provision::release(&client, object).await {
                tracing::warn!(message, "a finalizer of another implementation stays; trying again");
            }
        }
        let gone = abandoned.borrow_and_update().clone();
        left_alone.retain(|gateway, _| gone.contains(gateway));
        for gateway in gone {
            let since = *left_alone.entry(gateway.clone()).or_insert_with(Instant::now);
            if since.elapsed() >= ABANDONED
                && let Err(message) = bounded(provision::remove(&client, &gateway)).await
            {
                tracing::warn!(%gateway, message, "its proxies cannot be removed; trying again");
            }
        }
        if again <= Instant::now() {
            applied.clear();
            again = Instant::now() + AGAIN;
        }
        let proxies = wanted.borrow_and_update().clone();
        applied.retain(|gateway, proxy| proxies.get(gateway) == Some(proxy));
        failed.clear();
        let mut messages = BTreeMap::new();
        for (gateway, proxy) in proxies {
            if applied.contains_key(&gateway) {
                continue;
            }
            match bounded(provision::apply(&client, &proxy, &settings)).await {
                Ok(()) => {
                    applied.insert(gateway, proxy);
                }
                Err(message) => {
                    tracing::warn!(%gateway, message, "its proxies cannot be provisioned");
                    failed.insert(gateway.clone());
                    messages.insert(gateway, message);
                }
            }
        }
        failures.send_if_modified(|before| {
            let differ = *before != messages;
            if differ {
                *before = messages;
            }
            differ
        });
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, task::Poll};

    use http::{Request, Response};
    use kube::client::Body;

    use super::*;
    use crate::provision::EnvoyImage;

    fn settings() -> Settings {
        Settings {
            gateway_image: "registry.example/gateway:1".to_owned(),
            envoy_image: EnvoyImage::read("registry.example/envoy:v1.40.0", None).unwrap(),
            xds_host: "controller.system.svc".to_owned(),
            xds_port: 15_010,
            xds_server_id: "spiffe://cluster.local/ns/system/sa/controller".to_owned(),
            trust_domain: "cluster.local".to_owned(),
            signer: "example.com/signer".to_owned(),
            flags: Vec::new(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_that_does_not_lead_rests() {
        let (service, _server) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let (_wanted, wanted) = watch::channel(BTreeMap::new());
        let (_finalizers, finalizers) = watch::channel(Arc::from([]));
        let (_abandoned, abandoned) = watch::channel(BTreeSet::new());
        let (_membership, membership) = watch::channel(Membership::default());
        let client = kube::Client::new(service, "default");
        let (failures, _) = watch::channel(BTreeMap::new());
        let mut provisioner =
            pin!(provision(client, settings(), wanted, finalizers, abandoned, membership, failures));
        let mut polls = 0;
        let ended = std::future::poll_fn(|context| {
            polls += 1;
            // One that is always ready would be polled without end, and time would stand still.
            if polls > 1000 { Poll::Ready(()) } else { provisioner.as_mut().poll(context).map(drop) }
        });
        let hour = tokio::time::timeout(Duration::from_secs(3600), ended).await;
        assert!(hour.is_err(), "polled {polls} times within an hour");
    }
}
