//! The keys of the objects that are being read, to find one that comes twice.
use std::borrow::Cow;
use std::collections::HashSet;

use foldhash::quality::RandomState;

use super::Text;

/// Up to this many keys of an object are compared pairwise.
const FEW: usize = 16;

/// Room for the keys of all objects that are open at one time; those of the innermost come last. One allocation
/// serves a whole body.
#[derive(Debug)]
pub(super) struct Open<'a>(Vec<&'a str>);

impl Open<'_> {
    pub(super) fn new() -> Self {
        Self(Vec::with_capacity(2 * FEW))
    }
}

/// The keys of one object: few of them in the common room; more of them, or escaped ones, in a hash set of its own,
/// seeded at random.
#[derive(Debug)]
pub(super) struct Keys<'a> {
    /// Where this object's keys begin in the common room.
    start: usize,
    /// One bit per class of keys seen: an unset bit says that a key is new without comparing it.
    classes: u64,
    many: Option<Box<Set<'a>>>,
}

/// Boxed, so that an object that needs none pays for one word.
#[derive(Debug)]
struct Set<'a>(HashSet<Cow<'a, str>, RandomState>);

/// One of 64 classes, by first byte, last byte and length.
#[inline]
fn class(key: &str) -> u64 {
    let bytes = key.as_bytes();
    let first = bytes.first().copied().unwrap_or_default();
    let last = bytes.last().copied().unwrap_or_default();
    let [length, ..] = bytes.len().to_le_bytes();
    let mixed = first.wrapping_mul(5) ^ last.wrapping_mul(11) ^ length.wrapping_mul(7);
    1 << (mixed % 64)
}

impl<'a> Keys<'a> {
    #[inline]
    pub(super) fn new(open: &Open<'a>) -> Self {
        Self { start: open.0.len(), classes: 0, many: None }
    }

    /// `false` if the key was there already; keys are compared decoded.
    #[inline]
    pub(super) fn insert(&mut self, open: &mut Open<'a>, key: Text<'a>) -> bool {
        let Some(plain) = key.unescaped() else {
            return self.insert_hashed(open, key);
        };
        let class = class(plain);
        if self.many.is_some() || open.0.len() - self.start >= FEW {
            return self.insert_hashed(open, key);
        }
        if self.classes & class != 0 && self.few_has(open, plain) {
            return false;
        }
        self.classes |= class;
        open.0.push(plain);
        true
    }

    #[inline(never)]
    fn few_has(&self, open: &Open<'a>, key: &str) -> bool {
        open.0.iter().skip(self.start).any(|other| *other == key)
    }

    #[cold]
    fn insert_hashed(&mut self, open: &Open<'a>, key: Text<'a>) -> bool {
        let many = self.many.get_or_insert_with(|| {
            let mut many = HashSet::with_capacity_and_hasher(2 * FEW, RandomState::default());
            many.extend(open.0.iter().skip(self.start).map(|key| Cow::Borrowed(*key)));
            Box::new(Set(many))
        });
        many.0.insert(key.decode())
    }

    /// The object is read: makes room.
    #[inline]
    pub(super) fn close(self, open: &mut Open<'a>) {
        open.0.truncate(self.start);
    }
}
