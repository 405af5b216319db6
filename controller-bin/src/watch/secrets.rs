//! Secrets: nobody here may list or watch them, so those that are named are fetched one by one.
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use kube::{
    Api, Client, Resource as _,
    core::{ApiResource, GroupVersionKind},
};
use policy_model::NamespacedName;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use xds_translate::ObjectRef;

use super::{Closed, Event, raw::Raw, send};
use crate::backoff::Backoff;

/// How often all of them are looked at.
const INTERVAL: Duration = Duration::from_secs(5);
/// How many are fetched at a time.
const AT_ONCE: usize = 8;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Follows the wanted Secrets until the receiver is gone.
pub(super) async fn follow(
    client: Client,
    mut wanted: watch::Receiver<BTreeSet<NamespacedName>>,
    events: mpsc::Sender<Event>,
) {
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", "Secret"), "secrets");
    let mut secrets = Secrets { client, resource, events, known: BTreeMap::new() };
    let mut backoff = Backoff::new();
    let mut all_at = Instant::now();
    loop {
        let names = wanted.borrow_and_update().clone();
        let all = Instant::now() >= all_at;
        if all {
            all_at = Instant::now() + INTERVAL;
        }
        let Ok(complete) = secrets.update(&names, all).await else { return };
        let again = if complete {
            backoff.reset();
            all_at
        } else {
            all_at.min(Instant::now() + backoff.next())
        };
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() {
                // Nobody will want others: go on with these.
                tokio::select! {
                    () = tokio::time::sleep_until(again) => {}
                    () = secrets.events.closed() => return,
                }
            },
            () = tokio::time::sleep_until(again) => {}
            () = secrets.events.closed() => return,
        }
    }
}

struct Secrets {
    client: Client,
    resource: ApiResource,
    events: mpsc::Sender<Event>,
    /// What was told last of each: its resourceVersion, or that there is none.
    known: BTreeMap<NamespacedName, Option<String>>,
}

impl Secrets {
    /// Fetches what is wanted and not known, or all. Whether all that is wanted is known then.
    async fn update(&mut self, wanted: &BTreeSet<NamespacedName>, all: bool) -> Result<bool, Closed> {
        let unwanted: Vec<_> = self.known.keys().filter(|name| !wanted.contains(*name)).cloned().collect();
        for name in unwanted {
            self.known.remove(&name);
            send(&self.events, Event::Delete(reference(name))).await?;
        }
        let due = wanted.iter().filter(|name| all || !self.known.contains_key(*name)).cloned();
        let (client, resource) = (self.client.clone(), self.resource.clone());
        let mut answers = stream::iter(due.collect::<Vec<_>>())
            .map(|name| {
                let api: Api<Raw> = Api::namespaced_with(client.clone(), &name.namespace, &resource);
                async move {
                    let answer = tokio::time::timeout(PATIENCE, api.get(&name.name)).await;
                    (name, answer)
                }
            })
            .buffer_unordered(AT_ONCE);
        let mut complete = true;
        while let Some((name, answer)) = answers.next().await {
            // An error keeps what was known.
            let secret = match answer {
                Ok(Ok(secret)) => Some(secret),
                Ok(Err(kube::Error::Api(status))) if status.code == 404 => None,
                Ok(Err(error)) => {
                    tracing::warn!(secret = %name, %error, "a Secret cannot be read");
                    complete = false;
                    // A refusal is an answer: whoever waits for all Secrets does not wait for this one.
                    if is_refusal(&error) && !self.known.contains_key(&name) {
                        send(&self.events, Event::Delete(reference(name))).await?;
                    }
                    continue;
                }
                Err(_elapsed) => {
                    tracing::warn!(secret = %name, "a Secret cannot be read: the API server does not answer");
                    complete = false;
                    continue;
                }
            };
            let version =
                secret.as_ref().map(|secret| secret.meta().resource_version.clone().unwrap_or_default());
            if self.known.get(&name) == Some(&version) {
                continue;
            }
            self.known.insert(name.clone(), version);
            let event = match secret {
                Some(secret) => Event::Apply(Box::new(secret.into_value(&self.resource))),
                None => Event::Delete(reference(name)),
            };
            send(&self.events, event).await?;
        }
        Ok(complete)
    }
}

/// Whether asking again right away would bring the same answer.
fn is_refusal(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => (400..500).contains(&status.code) && status.code != 429,
        kube::Error::BuildRequest(_) => true,
        _ => false,
    }
}

fn reference(name: NamespacedName) -> ObjectRef {
    ObjectRef { group: String::new(), kind: "Secret".to_owned(), namespace: name.namespace, name: name.name }
}
