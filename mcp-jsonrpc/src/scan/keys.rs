//! The keys of one object, to find one that comes twice.
use std::borrow::Cow;
use std::collections::HashSet;

use foldhash::quality::RandomState;

use super::Text;

/// Up to this many keys are compared pairwise.
const INLINE: usize = 16;

/// No key's tag: no byte of UTF-8 is 0xff.
const NO_TAG: u32 = u32::MAX;

/// Few keys in an array; more of them, or escaped ones, in a hash set seeded at random.
#[derive(Debug)]
pub(super) struct Keys<'a> {
    /// Parallel to `few`, so that most comparisons are of a row of integers.
    tags: [u32; INLINE],
    few: [&'a str; INLINE],
    len: usize,
    many: Option<HashSet<Cow<'a, str>, RandomState>>,
}

/// Differs for most keys that differ: first byte, last byte, length modulo 2^16.
#[inline]
fn tag(key: &str) -> u32 {
    let bytes = key.as_bytes();
    let first = bytes.first().copied().unwrap_or_default();
    let last = bytes.last().copied().unwrap_or_default();
    let [low, high, ..] = bytes.len().to_le_bytes();
    u32::from_le_bytes([first, last, low, high])
}

impl<'a> Keys<'a> {
    #[inline]
    pub(super) fn new() -> Self {
        Self { tags: [NO_TAG; INLINE], few: [""; INLINE], len: 0, many: None }
    }

    /// `false` if the key was there already; keys are compared decoded.
    #[inline]
    pub(super) fn insert(&mut self, key: Text<'a>) -> bool {
        let Some(plain) = key.unescaped() else {
            return self.insert_hashed(key);
        };
        let tag = tag(plain);
        if self.tags.iter().fold(false, |any, other| any | (*other == tag)) && self.few_has(plain) {
            return false;
        }
        // Once there is a hash set, it has all keys of the array too, and the array is full or never filled further.
        match (&self.many, self.tags.get_mut(self.len), self.few.get_mut(self.len)) {
            (None, Some(free_tag), Some(free)) => {
                (*free_tag, *free) = (tag, plain);
                self.len += 1;
                true
            }
            _ => self.insert_hashed(key),
        }
    }

    #[inline(never)]
    fn few_has(&self, key: &str) -> bool {
        self.few.iter().take(self.len).any(|other| *other == key)
    }

    #[cold]
    fn insert_hashed(&mut self, key: Text<'a>) -> bool {
        let many = self.many.get_or_insert_with(|| {
            let mut many = HashSet::with_capacity_and_hasher(2 * INLINE, RandomState::default());
            many.extend(self.few.iter().take(self.len).map(|key| Cow::Borrowed(*key)));
            many
        });
        many.insert(key.decode())
    }
}
