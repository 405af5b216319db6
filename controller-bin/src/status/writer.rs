//! The asynchronous edge: writes statuses.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, future, stream};
use kube::{
    Client,
    core::params::{Patch, PatchParams},
};
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
    Written,
    /// It can never be written as it stands: it is not tried again.
    Dropped,
    /// The API server could not: it is tried again.
    Failed,
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
    let mut settled: BTreeMap<ObjectRef, Write> = BTreeMap::new();
    loop {
        let list = Arc::clone(&desired.borrow_and_update());
        let objects: BTreeSet<_> = list.iter().map(|write| &write.object).collect();
        settled.retain(|object, _| objects.contains(object));
        let due = list.iter().filter(|write| settled.get(&write.object) != Some(*write));
        let due: Vec<Write> = due.cloned().collect();
        let current = &desired;
        let mut answers = stream::iter(due)
            // A newer list is to be begun with.
            .take_while(|_| future::ready(!current.has_changed().unwrap_or(true)))
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
            answered(match done {
                Done::Written => "written",
                Done::Dropped => "dropped",
                Done::Failed => "failed",
            });
            if matches!(done, Done::Failed) {
                failed = true;
            } else {
                settled.insert(write.object.clone(), write);
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
        return Done::Dropped;
    };
    let answer = tokio::time::timeout(PATIENCE, client.request_text(request)).await;
    match answer {
        Ok(Ok(_)) => {
            tracing::debug!(?object, "status written");
            Done::Written
        }
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => {
            tracing::debug!(?object, "the object has changed since its status was computed");
            Done::Dropped
        }
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 400 | 404 | 405 | 422) => {
            tracing::warn!(?object, error = %status.message, "the API server does not take a status");
            Done::Dropped
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
