//! The asynchronous edge: writes statuses.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, future, stream};
use kube::{
    Client,
    core::{
        ObjectMeta,
        params::{Patch, PatchParams},
    },
};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;
use xds_translate::ObjectRef;

use super::Write;
use crate::{backoff::Backoff, provision::FIELD_MANAGER, watch::plural};

/// How many are written at a time.
const AT_ONCE: usize = 16;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What became of a write.
enum Done {
    /// It is as wanted.
    Written { outdated: bool },
    /// It can never be written as it stands: it is not tried again.
    Dropped { outdated: bool },
    /// The API server could not: it is tried again.
    Failed,
}

/// A write that was answered.
struct Settled {
    write: Write,
    /// Whether the object is of another version since: then no status that was computed from this one can be written.
    outdated: bool,
}

impl Settled {
    /// Whether nothing would come of trying this one. Until the event of a write has come back, statuses are computed from
    /// the object before it, and differ in their times only.
    fn settles(&self, write: &Write) -> bool {
        self.write == *write || self.outdated && self.write.resource_version == write.resource_version
    }
}

/// Writes the statuses that are `desired`, always the latest list, until its sender is gone. Each write holds only for the
/// version of the object that it was computed from; where the object has changed since, the write is dropped: the change
/// arrives as an event, and the status is computed again. Failures are tried again.
/// `answered` is told of each answer: `written`, `dropped` or `failed`.
pub async fn write_all(
    client: Client,
    mut desired: watch::Receiver<Arc<[Write]>>,
    answered: impl Fn(&'static str),
) {
    let mut backoff = Backoff::new();
    // Of the latest list.
    let mut settled: BTreeMap<ObjectRef, Settled> = BTreeMap::new();
    loop {
        let list = Arc::clone(&desired.borrow_and_update());
        let objects: BTreeSet<_> = list.iter().map(|write| &write.object).collect();
        settled.retain(|object, _| objects.contains(object));
        let is_due = |write: &Write| !settled.get(&write.object).is_some_and(|known| known.settles(write));
        let due = list.iter().enumerate().filter(|(_, write)| is_due(write)).map(|(at, _)| at);
        let due: Vec<usize> = due.collect();
        let (current, wanted) = (&desired, &list);
        let mut answers = stream::iter(due)
            // A newer list is to be begun with.
            .take_while(|_| future::ready(!current.has_changed().unwrap_or(true)))
            // Not before its turn: there may be ten thousand.
            .filter_map(|at| future::ready(wanted.get(at).cloned()))
            .map(|due| {
                let client = client.clone();
                async move {
                    let done = write(&client, &due).await;
                    (due, done)
                }
            })
            .buffer_unordered(AT_ONCE);
        let mut failed = false;
        while let Some((write, done)) = answers.next().await {
            let (result, outdated) = match done {
                Done::Written { outdated } => ("written", Some(outdated)),
                Done::Dropped { outdated } => ("dropped", Some(outdated)),
                Done::Failed => ("failed", None),
            };
            answered(result);
            match outdated {
                Some(outdated) => {
                    settled.insert(write.object.clone(), Settled { write, outdated });
                }
                None => failed = true,
            }
        }
        drop(answers);
        if !failed {
            backoff.reset();
        }
        let changed = desired.changed();
        let gone = if failed {
            tokio::time::timeout(backoff.next(), changed).await.is_ok_and(|changed| changed.is_err())
        } else {
            changed.await.is_err()
        };
        if gone {
            return;
        }
    }
}

async fn write(client: &Client, write: &Write) -> Done {
    let object = &write.object;
    let Some(request) = request(write) else {
        tracing::error!(?object, "no request can be made of a status");
        return Done::Dropped { outdated: false };
    };
    let answer = tokio::time::timeout(PATIENCE, client.request_text(request)).await;
    match answer {
        Ok(Ok(text)) => {
            tracing::debug!(?object, "status written");
            let version = serde_json::from_str::<Answer>(&text).ok();
            let version = version.and_then(|answer| answer.metadata.resource_version);
            Done::Written { outdated: version.is_some_and(|version| version != write.resource_version) }
        }
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => {
            tracing::debug!(?object, "the object has changed since its status was computed");
            Done::Dropped { outdated: true }
        }
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 400 | 404 | 405 | 422) => {
            tracing::warn!(?object, error = %status.message, "the API server does not take a status");
            Done::Dropped { outdated: false }
        }
        Ok(Err(error)) => {
            tracing::warn!(?object, %error, "a status cannot be written; trying again");
            Done::Failed
        }
        Err(_elapsed) => {
            tracing::warn!(
                ?object,
                "a status cannot be written: the API server does not answer; trying again"
            );
            Done::Failed
        }
    }
}

/// What is read of an object that was written.
#[derive(Deserialize)]
struct Answer {
    metadata: ObjectMeta,
}

/// A JSON merge patch (RFC 7386) on the subresource, for that version of the object alone.
fn request(write: &Write) -> Option<http::Request<Vec<u8>>> {
    let object = &write.object;
    let plural = plural(&object.group, &object.kind)?;
    let root = if object.group.is_empty() { "api" } else { "apis" };
    let namespace = match object.namespace.as_str() {
        "" => String::new(),
        namespace => format!("/namespaces/{namespace}"),
    };
    let url = format!("/{root}/{}{namespace}/{plural}", write.api_version);
    let body = json!({"metadata": {"resourceVersion": write.resource_version}, "status": write.status});
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    kube::core::Request::new(url).patch_subresource("status", &object.name, &params, &Patch::Merge(body)).ok()
}

#[cfg(test)]
mod tests;
