//! Writes statuses, while this replica leads.
use std::{collections::HashMap, sync::Arc};

use anyhow::Context as _;
use futures_util::{StreamExt as _, stream};
use tokio::sync::watch;
use xds_translate::ObjectRef;

use super::metrics::Metrics;
use crate::{
    lease::Membership,
    status::{self, Write},
};

/// Statuses that are written at a time.
const AT_ONCE: usize = 16;

/// Runs until the process ends.
pub(super) async fn write(
    client: kube::Client,
    mut writes: watch::Receiver<Arc<[Write]>>,
    mut membership: watch::Receiver<Membership>,
    metrics: Arc<Metrics>,
) -> anyhow::Result<()> {
    // What was written and has not come back through the watch yet is not written again.
    let mut written: HashMap<ObjectRef, Write> = HashMap::new();
    let mut led = false;
    loop {
        tokio::select! {
            changed = writes.changed() => changed.context("the reconciliation ended")?,
            changed = membership.changed() => changed.context("the leases ended")?,
        }
        let leads = membership.borrow_and_update().leader;
        if leads && !led {
            written.clear();
        }
        led = leads;
        if !leads {
            continue;
        }
        let wanted = writes.borrow_and_update().clone();
        let versions: HashMap<_, _> =
            wanted.iter().map(|write| (&write.object, &write.resource_version)).collect();
        written.retain(|object, write| versions.get(object) == Some(&&write.resource_version));
        let left: Vec<_> =
            wanted.iter().filter(|write| written.get(&write.object) != Some(*write)).cloned().collect();
        let membership = &membership;
        let done: Vec<(Write, bool)> = stream::iter(left)
            .map(|write| {
                let client = client.clone();
                let metrics = Arc::clone(&metrics);
                async move {
                    // Deposed in the middle of a long list: the rest is the next leader's.
                    if !membership.borrow().leader {
                        return (write, false);
                    }
                    let result = status::write(&client, &write).await;
                    metrics.status(if result { "written" } else { "failed" });
                    (write, result)
                }
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        written.extend(
            done.into_iter().filter(|(_, done)| *done).map(|(write, _)| (write.object.clone(), write)),
        );
    }
}
