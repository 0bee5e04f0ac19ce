//! How many different texts went by, without keeping them.

use std::hash::{DefaultHasher, Hash, Hasher};

/// The most texts told apart for one answer; 2 KiB of hashes. An answer that searches has a few.
const TEXTS_MAX: usize = 256;

/// Texts, counted once each.
#[derive(Debug, Default)]
pub(crate) struct Distinct {
    hashes: Vec<u64>,
    /// Those that were new beyond the bound; each time counts.
    n_more: u64,
}

impl Distinct {
    /// Counts a text that was not counted before; false where there is no room to remember it, and
    /// a second time of it would count again.
    pub(crate) fn insert(&mut self, text: impl Hash) -> bool {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let hash = hasher.finish();
        if self.hashes.contains(&hash) {
            return true;
        }
        let has_room = self.hashes.len() < TEXTS_MAX;
        match has_room {
            true => self.hashes.push(hash),
            false => self.n_more = self.n_more.saturating_add(1),
        }
        has_room
    }

    /// How many different texts there were.
    pub(crate) fn count(&self) -> u64 {
        self.n_more.saturating_add(self.hashes.len() as u64)
    }

    /// Forgets them all.
    pub(crate) fn clear(&mut self) {
        *self = Distinct::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_count_once_and_none_is_lost_beyond_the_bound() {
        let mut texts = Distinct::default();
        assert!(["a", "b", "a"].iter().all(|text| texts.insert(text)));
        assert_eq!(texts.count(), 2);
        texts.clear();
        let all = TEXTS_MAX as u64;
        assert!((0..all).all(|n| texts.insert(n)));
        assert!(texts.insert(0u64), "known, so that no room is needed");
        assert!(!texts.insert(all));
        assert!(!texts.insert(all));
        assert_eq!(texts.count(), all + 2);
    }
}
