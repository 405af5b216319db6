//! What a client wants of one type, has of it, and said about it; both variants of the protocol keep it.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    Nack,
    cache::{Published, Resources},
};

/// Subscribes to all resources of a type.
pub(super) const ALL: &str = "*";

/// What a client has under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Held {
    Version(Arc<str>),
    /// It knows that there is no such resource.
    Nothing,
    /// It refused a response with it, and may have kept what it had or taken what was good (gRPC proposal A46).
    Unknown,
}

/// A resource that a client is to get; without a version, one that it is to drop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) name: Arc<str>,
    pub(super) version: Option<Arc<str>>,
}

/// A response that was not answered yet.
#[derive(Debug)]
struct Pending {
    nonce: String,
    version: Arc<str>,
    changes: Vec<Change>,
}

#[derive(Debug, Default)]
pub(super) struct Subscription {
    all: bool,
    named: BTreeSet<Arc<str>>,
    /// Whether a name, `*` included, was ever subscribed to: until then an empty list means all.
    explicit: bool,
    /// Holds names that are subscribed to only.
    held: BTreeMap<Arc<str>, Held>,
    /// Names that the next response has to tell about, whatever the client has.
    owed: BTreeSet<Arc<str>>,
    /// The next response is owed even if there is nothing to say: the client waits to hear that there is nothing.
    owes_response: bool,
    pending: Option<Pending>,
    last_nonce: Option<String>,
    acknowledged: Option<Arc<str>>,
    nack: Option<Nack>,
    /// What was refused: not sent again until it is something else.
    refused: Option<Vec<Change>>,
}

impl Subscription {
    pub(super) fn acknowledged(&self) -> Option<&Arc<str>> {
        self.acknowledged.as_ref()
    }

    pub(super) fn nack(&self) -> Option<&Nack> {
        self.nack.as_ref()
    }

    /// How many names, and bytes of names and versions, the client made this remember.
    pub(super) fn claimed(&self) -> (usize, usize) {
        let held = self.held.iter().map(|(name, held)| match held {
            Held::Version(version) => name.len() + version.len(),
            Held::Nothing | Held::Unknown => name.len(),
        });
        let named = self.named.iter().map(|name| name.len());
        // Names that came and went while a response waits for its answer.
        let owed = self.owed.iter().filter(|name| !self.named.contains(*name)).map(|name| name.len());
        let count = self.named.len().max(self.held.len()).saturating_add(owed.clone().count());
        (count, named.chain(held).chain(owed).sum())
    }

    pub(super) fn is_explicit(&self) -> bool {
        self.explicit
    }

    /// From now on an empty list of names means none.
    pub(super) fn set_explicit(&mut self) {
        self.explicit = true;
    }

    pub(super) fn wants_all(&self) -> bool {
        self.all
    }

    pub(super) fn wants_nothing(&self) -> bool {
        !self.all && self.named.is_empty()
    }

    pub(super) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether a nonce is that of the response that was sent last.
    pub(super) fn is_last(&self, nonce: &str) -> bool {
        self.last_nonce.as_deref() == Some(nonce)
    }

    /// The version of the response that a nonce answers, if it is the one that is waited for.
    pub(super) fn answers(&self, nonce: &str) -> Option<&Arc<str>> {
        self.pending.as_ref().filter(|pending| pending.nonce == nonce).map(|pending| &pending.version)
    }

    /// Subscribes to all.
    pub(super) fn add_all(&mut self) {
        if !self.all {
            self.all = true;
            self.owes_response = true;
        }
    }

    /// Subscribes to a name, or to all by `*`.
    pub(super) fn add(&mut self, name: String) {
        self.explicit = true;
        if name == ALL {
            self.add_all();
        } else {
            self.named.insert(name.into());
        }
    }

    /// Subscribes to a name of which the client has to hear in any case: it may have dropped it in between.
    pub(super) fn add_anew(&mut self, name: String) {
        if name != ALL {
            self.owed.insert(name.as_str().into());
        }
        self.add(name);
    }

    /// Ends the subscription to a name, or to all by `*`.
    pub(super) fn drop_name(&mut self, name: &str) {
        if name == ALL {
            self.all = false;
            self.owes_response = false;
            self.forget_others();
        } else if self.named.remove(name) {
            if self.all {
                // The client forgets it, but wants it as one of all.
                self.owed.insert(name.into());
            } else {
                self.forget_others();
            }
        }
    }

    /// Replaces what is subscribed to.
    pub(super) fn want(&mut self, all: bool, names: BTreeSet<Arc<str>>) {
        self.all = all;
        self.named = names;
        self.forget_others();
    }

    /// The next response is due even if nothing changed.
    pub(super) fn owe_response(&mut self) {
        self.owes_response = true;
    }

    /// What the client says that it has already.
    pub(super) fn has(&mut self, versions: impl IntoIterator<Item = (Arc<str>, Arc<str>)>) {
        let versions = versions.into_iter().map(|(name, version)| (name, Held::Version(version)));
        self.held.extend(versions);
        self.forget_others();
        self.owes_response &= self.held.is_empty();
    }

    fn forget_others(&mut self) {
        if !self.all {
            self.held.retain(|name, _| self.named.contains(name));
            self.owed.retain(|name| self.named.contains(name));
        }
    }

    /// The client has applied the response that is on its way.
    pub(super) fn acknowledge(&mut self) {
        let Some(pending) = self.pending.take() else { return };
        for Change { name, version } in pending.changes {
            let is_named = self.named.contains(&name);
            match version {
                Some(version) if self.all || is_named => self.held.insert(name, Held::Version(version)),
                None if is_named => self.held.insert(name, Held::Nothing),
                _ => self.held.remove(&name),
            };
        }
        self.settle(pending.version);
    }

    /// The client has refused the response that is on its way.
    pub(super) fn refuse(&mut self, message: String) {
        let Some(pending) = self.pending.take() else { return };
        for Change { name, .. } in &pending.changes {
            if self.all || self.named.contains(name) {
                self.held.insert(Arc::clone(name), Held::Unknown);
            }
        }
        self.nack = Some(Nack::new(pending.version, message));
        self.refused = Some(pending.changes);
    }

    fn settle(&mut self, version: Arc<str>) {
        self.acknowledged = Some(version);
        self.nack = None;
        self.refused = None;
    }

    /// What the client is to be told now, by name; `None`: nothing. `can_remove`: whether a response can say that
    /// there is no such resource.
    pub(super) fn due(
        &mut self,
        published: &Published,
        type_url: &str,
        can_remove: bool,
    ) -> Option<Vec<Change>> {
        if self.pending.is_some() || self.wants_nothing() || !published.has_type(type_url) {
            return None;
        }
        let resources = published.resources(type_url);
        let mut changes = self.changes(resources);
        if !can_remove {
            changes.retain(|change| {
                if change.version.is_none() {
                    self.held.insert(Arc::clone(&change.name), Held::Nothing);
                }
                change.version.is_some()
            });
        }
        let is_owed = self.owes_response || !self.owed.is_empty();
        if changes.is_empty() && !is_owed {
            self.settle(Arc::clone(published.version_of(type_url)));
            return None;
        }
        if !is_owed && self.refused.as_ref() == Some(&changes) {
            return None;
        }
        changes.sort_by(|a, b| a.name.cmp(&b.name));
        Some(changes)
    }

    /// Notes that a response with these changes is on its way.
    pub(super) fn sent(&mut self, nonce: String, version: Arc<str>, changes: Vec<Change>) {
        self.owed.clear();
        self.owes_response = false;
        self.last_nonce = Some(nonce.clone());
        self.pending = Some(Pending { nonce, version, changes });
    }

    /// The resources of a set that are subscribed to.
    pub(super) fn wanted<'s>(
        &'s self,
        resources: &'s Resources,
    ) -> impl Iterator<Item = (&'s Arc<str>, &'s crate::Resource)> {
        resources.iter().filter(|(name, _)| self.all || self.named.contains(*name))
    }

    fn changes(&self, resources: &Resources) -> Vec<Change> {
        let mut changes = Vec::new();
        for (name, resource) in self.wanted(resources) {
            let has =
                matches!(self.held.get(name), Some(Held::Version(version)) if *version == resource.version);
            if !has || self.owed.contains(name) {
                changes.push(Change { name: Arc::clone(name), version: Some(Arc::clone(&resource.version)) });
            }
        }
        let known: BTreeSet<&Arc<str>> = self
            .held
            .keys()
            .chain(&self.named)
            .chain(&self.owed)
            .filter(|name| !resources.contains_key(*name))
            .collect();
        for name in known {
            if self.held.get(name) != Some(&Held::Nothing) || self.owed.contains(name) {
                changes.push(Change { name: Arc::clone(name), version: None });
            }
        }
        changes
    }
}
