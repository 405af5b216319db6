//! Whether everything was seen once.
use std::collections::BTreeSet;

use policy_model::NamespacedName;
use xds_translate::native;

use super::{Event, kinds};
use crate::index::Kind;

/// Tells when everything has been listed: before that, a policy that was not seen yet would be one that does not exist.
#[derive(Debug)]
pub struct Synced {
    missing: BTreeSet<Kind>,
    /// Secrets that were fetched, or are known not to exist.
    secrets: BTreeSet<NamespacedName>,
    done: bool,
}

impl Default for Synced {
    fn default() -> Self {
        Self::new()
    }
}

impl Synced {
    /// Nothing was seen.
    pub fn new() -> Self {
        Self { missing: kinds().into_iter().collect(), secrets: BTreeSet::new(), done: false }
    }

    /// Takes note of an event.
    pub fn see(&mut self, event: &Event) {
        if self.done {
            return;
        }
        let secret = match event {
            Event::Reset(kind, _) => {
                self.missing.remove(kind);
                None
            }
            Event::Apply(object) => native::object_ref(object),
            Event::Delete(object) => Some(object.clone()),
        };
        if let Some(secret) = secret.filter(|object| object.group.is_empty() && object.kind == "Secret") {
            self.secrets.insert(NamespacedName::new(secret.namespace, secret.name));
        }
    }

    /// The kinds that were not listed yet.
    pub fn missing(&self) -> impl Iterator<Item = &Kind> {
        self.missing.iter()
    }

    /// Whether every kind was listed: only then is it known which Secrets are wanted.
    pub fn is_listed(&self) -> bool {
        self.missing.is_empty()
    }

    /// Whether every kind was listed and the Secrets that are `wanted` were looked for. Once so, always so.
    pub fn is_done(&mut self, wanted: &BTreeSet<NamespacedName>) -> bool {
        self.done = self.done || (self.is_listed() && wanted.is_subset(&self.secrets));
        self.done
    }
}
