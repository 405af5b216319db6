//! The watch of one kind.
use std::{pin::pin, time::Duration};

use futures_util::StreamExt as _;
use kube::{
    Api, Client,
    core::{ApiResource, GroupVersionKind},
    runtime::watcher,
};
use serde_json::Value;
use tokio::sync::mpsc;
use xds_translate::native;

use super::{Closed, Event, Watched, pause, raw::Raw, send};
use crate::backoff::Backoff;

/// How often a kind is looked for whose CRD is not installed.
const ABSENT: Duration = Duration::from_secs(1);

/// How often in a row a kind that was there must be missing before its objects are forgotten. Who deletes a CRD deletes
/// its objects first, so nobody waits for this; an API server that starts must not empty what policies are enforced from.
pub(super) const GONE: u32 = 5;

/// How long one watch lasts. The next goes on where it ended. A connection that died unnoticed is noticed soon after.
const WATCH_SECONDS: u32 = 60;

/// Why a watch in one version ended.
enum Ended {
    /// The API server does not know the kind in this version.
    Unknown,
    /// It is to be listed again.
    Expired,
    Closed,
}

impl From<Closed> for Ended {
    fn from(Closed: Closed) -> Self {
        Self::Closed
    }
}

/// Follows a kind until the receiver is gone.
pub(super) async fn follow(client: Client, watched: &'static Watched, events: mpsc::Sender<Event>) {
    let mut this = Follower {
        client,
        watched,
        events,
        backoff: Backoff::new(),
        told: Told::Nothing,
        missing: 0,
        failing: false,
    };
    loop {
        for version in watched.versions {
            loop {
                match this.version(version).await {
                    Ended::Unknown => break,
                    Ended::Expired => {}
                    Ended::Closed => return,
                }
            }
        }
        if this.absent().await.is_err() {
            return;
        }
    }
}

/// What the receiver knows.
#[derive(PartialEq)]
enum Told {
    Nothing,
    /// A list.
    Listed,
    /// That the kind is not served: an empty list.
    Absent,
}

struct Follower {
    client: Client,
    watched: &'static Watched,
    events: mpsc::Sender<Event>,
    backoff: Backoff,
    /// What was told last.
    told: Told,
    /// How often in a row no version was known.
    missing: u32,
    /// Whether the last thing that happened was an error, which is logged once.
    failing: bool,
}

impl Follower {
    /// Watches in one version.
    async fn version(&mut self, version: &str) -> Ended {
        let Watched { group, kind, plural, .. } = self.watched;
        let resource =
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        let api: Api<Raw> = Api::all_with(self.client.clone(), &resource);
        let config = watcher::Config::default().timeout(WATCH_SECONDS);
        let mut seen = pin!(watcher(api, config));
        // The list so far: nobody sees half of one.
        let mut list: Vec<Value> = Vec::new();
        loop {
            let next = tokio::select! {
                next = seen.next() => next,
                () = self.events.closed() => return Ended::Closed,
            };
            let sent = match next {
                None => return Ended::Expired,
                Some(Ok(watcher::Event::Init)) => {
                    list.clear();
                    Ok(())
                }
                Some(Ok(watcher::Event::InitApply(object))) => {
                    list.push(object.into_value(&resource));
                    Ok(())
                }
                Some(Ok(watcher::Event::InitDone)) => self.listed(std::mem::take(&mut list)).await,
                Some(Ok(watcher::Event::Apply(object))) => {
                    self.succeeded();
                    send(&self.events, Event::Apply(Box::new(object.into_value(&resource)))).await
                }
                Some(Ok(watcher::Event::Delete(object))) => {
                    self.succeeded();
                    match native::object_ref(&object.into_value(&resource)) {
                        Some(object) => send(&self.events, Event::Delete(object)).await,
                        None => Ok(()),
                    }
                }
                Some(Err(error)) => match self.failed(&error).await {
                    Ok(()) => Ok(()),
                    Err(ended) => return ended,
                },
            };
            if let Err(Closed) = sent {
                return Ended::Closed;
            }
        }
    }

    fn succeeded(&mut self) {
        self.backoff.reset();
        self.failing = false;
    }

    async fn listed(&mut self, objects: Vec<Value>) -> Result<(), Closed> {
        self.succeeded();
        self.missing = 0;
        self.told = Told::Listed;
        send(&self.events, Event::Reset(self.watched.kind(), objects)).await
    }

    /// After an error: what was seen stays as it is.
    async fn failed(&mut self, error: &watcher::Error) -> Result<(), Ended> {
        use watcher::Error::{
            InitialListFailed, NoResourceVersion, WatchError, WatchFailed, WatchStartFailed,
        };
        let code = match error {
            InitialListFailed(kube::Error::Api(status))
            | WatchStartFailed(kube::Error::Api(status))
            | WatchFailed(kube::Error::Api(status)) => Some(status.code),
            WatchError(status) => Some(status.code),
            InitialListFailed(_) | WatchStartFailed(_) | WatchFailed(_) | NoResourceVersion => None,
        };
        if code == Some(404) {
            return Err(Ended::Unknown);
        }
        let wait = self.backoff.next();
        let Watched { group, kind, .. } = self.watched;
        if code == Some(410) {
            tracing::debug!(group, kind, "the watch expired; listing again");
        } else if self.failing {
            tracing::debug!(group, kind, %error, retry_in = ?wait, "the API server still cannot be watched");
        } else {
            tracing::warn!(group, kind, %error, retry_in = ?wait, "the API server cannot be watched; trying again");
        }
        self.failing = true;
        pause(&self.events, wait).await?;
        match (code, error) {
            // The watcher would ask for the same version again.
            (Some(410), WatchStartFailed(_) | WatchFailed(_)) => Err(Ended::Expired),
            // What is no event may be the plain text of an error, whose status only a list shows.
            (_, WatchFailed(kube::Error::SerdeError(_))) => Err(Ended::Expired),
            _ => Ok(()),
        }
    }

    /// The API server knows none of the versions.
    async fn absent(&mut self) -> Result<(), Closed> {
        self.missing = self.missing.saturating_add(1);
        let enough = match self.told {
            Told::Nothing => true,
            Told::Listed => self.missing >= GONE,
            Told::Absent => false,
        };
        if enough {
            let Watched { group, kind, .. } = self.watched;
            tracing::info!(
                group,
                kind,
                "the API server does not serve this kind; waiting for its definition"
            );
            self.told = Told::Absent;
            send(&self.events, Event::Reset(self.watched.kind(), Vec::new())).await?;
        }
        pause(&self.events, ABSENT).await
    }
}
