//! What each group of clients is to have.
use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::report::{Counters, Counts, Registration, Registry, Report};

/// Bytes of a hash that make a version; collisions are not to be found by chance or by search.
const VERSION_BYTES: usize = 16;

/// One resource: the value of its `Any`, and a version that is a function of its content alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Content hash (lower-case hexadecimal).
    pub version: Arc<str>,
    /// The serialized message, without the `Any` around it.
    pub body: Bytes,
}

impl Resource {
    /// A resource with the hash of its body as its version: the first 16 bytes of SHA-256, 32 digits.
    pub fn new(body: impl Into<Bytes>) -> Self {
        let body = body.into();
        Self { version: version(Sha256::new_with_prefix(&body)), body }
    }
}

/// Resources of one type by name.
pub(crate) type Resources = BTreeMap<Arc<str>, Resource>;

/// Everything that one group of clients is to have: resources by type URL and name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceSet {
    /// By type URL, then by name. A type that is not among them is not spoken of: clients that ask for it hear nothing and
    /// keep what they have. One without resources is: clients drop what they have of it.
    pub types: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Resource>>,
}

impl ResourceSet {
    /// Hash of the names and versions of all resources of a type (32 hexadecimal digits); a type without resources has
    /// one too. Reads all names of the type.
    pub fn version_of(&self, type_url: &str) -> Arc<str> {
        self.types.get(type_url).map_or_else(|| version_of(&Resources::new()), version_of)
    }
}

fn version_of(resources: &Resources) -> Arc<str> {
    let mut hash = Sha256::new();
    for (name, resource) in resources {
        for part in [name, &resource.version] {
            // With their lengths, so that no two lists of names and versions read alike.
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part.as_bytes());
        }
    }
    version(hash)
}

fn version(hash: Sha256) -> Arc<str> {
    use fmt::Write as _;
    let mut digits = String::with_capacity(2 * VERSION_BYTES);
    for byte in hash.finalize().iter().take(VERSION_BYTES) {
        // Writing to a String cannot fail.
        write!(digits, "{byte:02x}").unwrap_or_default();
    }
    digits.into()
}

/// A set with the versions of its types, computed once for all clients.
#[derive(Debug)]
pub(crate) struct Published {
    set: Arc<ResourceSet>,
    versions: BTreeMap<Arc<str>, Arc<str>>,
    /// The version of any type that the set does not have.
    empty: Arc<str>,
}

impl Published {
    pub(crate) fn new(set: Arc<ResourceSet>) -> Self {
        let versions =
            set.types.iter().map(|(type_url, resources)| (Arc::clone(type_url), version_of(resources)));
        Self { versions: versions.collect(), empty: version_of(&Resources::new()), set }
    }

    /// Whether anything is said of a type.
    pub(crate) fn has_type(&self, type_url: &str) -> bool {
        self.set.types.contains_key(type_url)
    }

    pub(crate) fn resources(&self, type_url: &str) -> &Resources {
        static NONE: Resources = Resources::new();
        self.set.types.get(type_url).unwrap_or(&NONE)
    }

    pub(crate) fn version_of(&self, type_url: &str) -> &Arc<str> {
        self.versions.get(type_url).unwrap_or(&self.empty)
    }
}

/// What a stream follows: the latest set of its group; `None` once the group is gone.
pub(crate) type Following = watch::Receiver<Option<Arc<Published>>>;

type Groups = BTreeMap<Arc<str>, watch::Sender<Option<Arc<Published>>>>;

/// The sets of all groups, and what their clients said; cheap to clone, all clones are one.
#[derive(Clone, Default)]
pub struct Cache {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    groups: Mutex<Groups>,
    registry: Arc<Registry>,
    counters: Counters,
}

impl Cache {
    /// Replaces what a group is to have. Clients get what differs, in one response per type: a response is applied as a
    /// whole, so that no client ever sees half of a change. A set that equals the last one wakes nobody.
    pub fn publish(&self, group: &str, set: Arc<ResourceSet>) {
        if self.set(group).is_some_and(|current| Arc::ptr_eq(&current, &set) || current == set) {
            return;
        }
        // Hashing and comparing is done without the lock.
        let published = Some(Arc::new(Published::new(set)));
        match self.groups().entry(group.into()) {
            Entry::Occupied(entry) => {
                entry.get().send_replace(published);
            }
            Entry::Vacant(entry) => {
                entry.insert(watch::Sender::new(published));
            }
        }
    }

    /// Forgets a group: its clients' streams end, and nobody of that group is served.
    pub fn remove(&self, group: &str) {
        if let Some(sender) = self.groups().remove(group) {
            sender.send_replace(None);
        }
    }

    /// What a group has now.
    pub fn set(&self, group: &str) -> Option<Arc<ResourceSet>> {
        let groups = self.groups();
        let published = groups.get(group)?.borrow();
        published.as_ref().map(|published| Arc::clone(&published.set))
    }

    /// [`ResourceSet::version_of`] what a group has now; computed once for each set.
    pub fn version_of(&self, group: &str, type_url: &str) -> Option<Arc<str>> {
        let groups = self.groups();
        let published = groups.get(group)?.borrow();
        published.as_ref().map(|published| Arc::clone(published.version_of(type_url)))
    }

    /// What every connected client (each of its streams) last said.
    pub fn reports(&self) -> Vec<Report> {
        self.inner.registry.reports()
    }

    /// Changes whenever [`reports`](Self::reports) does; the number has no meaning of its own.
    pub fn reports_changed(&self) -> watch::Receiver<u64> {
        self.inner.registry.changed()
    }

    /// How much was sent and refused so far.
    pub fn counts(&self) -> Counts {
        self.inner.counters.read()
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.inner.counters
    }

    pub(crate) fn register(&self, report: Report) -> Registration {
        Registry::register(&self.inner.registry, report)
    }

    /// The sets of a group from now on; `None`: nothing is published for it.
    pub(crate) fn follow(&self, group: &str) -> Option<Following> {
        self.groups().get(group).map(watch::Sender::subscribe)
    }

    fn groups(&self) -> MutexGuard<'_, Groups> {
        // Nothing that can panic runs with the lock held.
        self.inner.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("groups", &self.groups().len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(of: &[(&str, &str, &str)]) -> Arc<ResourceSet> {
        let mut set = ResourceSet::default();
        for &(type_url, name, body) in of {
            let resource = Resource::new(body.to_owned());
            set.types.entry(type_url.into()).or_default().insert(name.into(), resource);
        }
        Arc::new(set)
    }

    #[test]
    fn a_resources_version_is_the_start_of_its_sha256() {
        // FIPS 180-2, appendix B.1.
        assert_eq!(&*Resource::new("abc").version, "ba7816bf8f01cfea414140de5dae2223");
        assert_eq!(&*Resource::new("").version, "e3b0c44298fc1c149afbf4c8996fb924");
    }

    #[test]
    fn the_version_of_a_type_tells_names_and_contents_apart() {
        let sets = [
            set(&[]),
            set(&[("t", "a", "1")]),
            set(&[("t", "a", "2")]),
            set(&[("t", "b", "1")]),
            set(&[("t", "a", "1"), ("t", "b", "1")]),
            set(&[("t", "ab", "1"), ("t", "b", "1")]),
        ];
        let versions: std::collections::BTreeSet<_> = sets.iter().map(|set| set.version_of("t")).collect();
        assert_eq!(versions.len(), sets.len(), "{versions:?}");
        // Of the other type there is nothing in any of them, whether it is listed or not.
        let mut listed = ResourceSet::default();
        listed.types.insert("u".into(), BTreeMap::new());
        for set in &sets {
            assert_eq!(set.version_of("u"), listed.version_of("u"));
        }
        assert_eq!(&*sets[0].version_of("t"), "e3b0c44298fc1c149afbf4c8996fb924");
    }

    #[test]
    fn publishing_wakes_only_the_group_and_only_for_a_difference() {
        let cache = Cache::default();
        assert!(cache.follow("a").is_none());
        cache.publish("a", set(&[("t", "x", "1")]));
        cache.publish("b", set(&[]));
        let (mut a, mut b) = (cache.follow("a").unwrap(), cache.follow("b").unwrap());
        let mut woken = |what: &str, expected: (bool, bool)| {
            assert_eq!((a.has_changed().unwrap(), b.has_changed().unwrap()), expected, "{what}");
            a.mark_unchanged();
            b.mark_unchanged();
        };
        cache.publish("a", set(&[("t", "x", "1")]));
        woken("the same again", (false, false));
        cache.publish("a", set(&[("t", "x", "2")]));
        woken("another content", (true, false));
        cache.publish("b", set(&[("t", "x", "2")]));
        woken("the other group", (false, true));
        assert_eq!(cache.set("a"), Some(set(&[("t", "x", "2")])));
    }

    #[test]
    fn a_removed_group_is_gone_for_its_followers_even_if_it_comes_back() {
        let cache = Cache::default();
        cache.publish("a", set(&[("t", "x", "1")]));
        let mut before = cache.follow("a").unwrap();
        cache.remove("a");
        assert!(cache.set("a").is_none() && cache.follow("a").is_none());
        cache.publish("a", set(&[("t", "x", "1")]));
        assert!(before.borrow_and_update().is_none());
        assert!(cache.follow("a").unwrap().borrow().is_some());
    }
}
