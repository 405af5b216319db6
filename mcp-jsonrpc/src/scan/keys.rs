//! The keys of one object, to find one that comes twice.
use std::borrow::Cow;
use std::collections::HashSet;

use foldhash::quality::RandomState;

use super::Text;

/// Up to this many keys are compared pairwise.
const INLINE: usize = 8;

/// Few keys in an array; more of them, or escaped ones, in a hash set seeded at random.
#[derive(Debug)]
pub(super) struct Keys<'a> {
    few: [&'a str; INLINE],
    len: usize,
    many: Option<HashSet<Cow<'a, str>, RandomState>>,
}

impl<'a> Keys<'a> {
    #[inline]
    pub(super) fn new() -> Self {
        Self { few: [""; INLINE], len: 0, many: None }
    }

    /// `false` if the key was there already; keys are compared decoded.
    #[inline]
    pub(super) fn insert(&mut self, key: Text<'a>) -> bool {
        if self.many.is_none()
            && let Some(key) = key.unescaped()
        {
            if self.few.iter().take(self.len).any(|other| *other == key) {
                return false;
            }
            if let Some(free) = self.few.get_mut(self.len) {
                *free = key;
                self.len += 1;
                return true;
            }
        }
        self.insert_hashed(key)
    }

    #[cold]
    fn insert_hashed(&mut self, key: Text<'a>) -> bool {
        let many = self.many.get_or_insert_with(|| {
            let mut many = HashSet::with_capacity_and_hasher(4 * INLINE, RandomState::default());
            many.extend(self.few.iter().take(self.len).map(|key| Cow::Borrowed(*key)));
            many
        });
        many.insert(key.decode())
    }
}
