//! Claims to tags: admitted by rank, bounded, and counted where they cannot be.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use tollmesh_wire::plugin::{TAG_VALUE_BYTES_MAX, TagOrigin, TagSources};

use super::privacy::hashed;
use super::{TAGS_MAX, Tagged};
use crate::edit::HeaderEdit;

/// Up to so many edits, a look at each is the quickest way to find a repetition.
const EDITS_FEW: usize = 16;

/// The tags of one request as they are read. Origins come in the order of [`TagOrigin::ALL`].
pub(super) struct Claims<'s> {
    sources: &'s TagSources,
    /// What the mesh knows of the caller.
    known: &'s [(&'s str, &'s str)],
    tagged: Tagged,
    /// The ranks of the tags that are there; kept only where a precedence is declared, for without
    /// one whatever comes later ranks lower.
    ranks: BTreeMap<String, usize>,
    n_claimed: usize,
    conflicts: BTreeSet<&'s str>,
}

impl<'s> Claims<'s> {
    pub fn new(sources: &'s TagSources, known: &'s [(&'s str, &'s str)]) -> Claims<'s> {
        Claims {
            sources,
            known,
            tagged: Tagged::default(),
            ranks: BTreeMap::new(),
            n_claimed: 0,
            conflicts: BTreeSet::new(),
        }
    }

    /// Takes a value for a tag, unless it is empty, ranks too low, or cannot be one.
    pub fn claim(&mut self, origin: TagOrigin, tag: &str, value: &[u8]) {
        let value = value.trim_ascii();
        if value.is_empty() {
            return;
        }
        if origin.is_claim() && !self.known.is_empty() {
            self.note_conflict(tag, value);
        }
        let Some(rank) = self.sources.rank(tag, origin) else {
            return;
        };
        let is_new = !self.tagged.tags.contains_key(tag);
        if !is_new && self.ranks.get(tag).is_none_or(|held| *held <= rank) {
            return;
        }
        let text = std::str::from_utf8(value).ok();
        let text = text.filter(|text| !text.chars().any(char::is_control));
        let is_beyond = is_new && origin.is_claim() && self.n_claimed >= TAGS_MAX;
        let Some(text) = text.filter(|_| !is_beyond) else {
            self.refuse();
            return;
        };
        self.n_claimed += usize::from(is_new && origin.is_claim());
        let value = self.kept(tag, text);
        self.tagged.tags.insert(tag.to_owned(), value);
        if !self.sources.precedence.is_empty() {
            self.ranks.insert(tag.to_owned(), rank);
        }
    }

    /// Counts a claim that cannot be a tag.
    pub fn refuse(&mut self) {
        self.tagged.n_refused += 1;
    }

    /// Has the header taken out of the request.
    pub fn remove(&mut self, header: &str) {
        let edits = &self.tagged.edits;
        if edits.len() <= EDITS_FEW && edits.iter().any(|edit| edit.name() == header) {
            return;
        }
        let name = Cow::Owned(header.to_owned());
        self.tagged.edits.push(HeaderEdit::Remove(name));
    }

    /// Has the header replaced by what of it is none of ours.
    pub fn set(&mut self, header: &'static str, value: Vec<u8>) {
        let edit = HeaderEdit::Set(header.into(), value);
        self.tagged.edits.push(edit);
    }

    pub fn finish(mut self) -> Tagged {
        self.tagged.edits = without_repetitions(self.tagged.edits);
        self.tagged.n_conflicts = self.conflicts.len() as u64;
        self.tagged
    }

    fn note_conflict(&mut self, tag: &str, value: &[u8]) {
        let known = self.known.iter().find(|(name, _)| *name == tag);
        if let Some((name, _)) = known.filter(|(_, known)| known.as_bytes() != value) {
            self.conflicts.insert(name);
        }
    }

    /// What an event says of the value: a hash of it, where the operator wants that, else the value
    /// as far as there is room.
    fn kept(&mut self, tag: &str, text: &str) -> String {
        if let Some(hash) = hashed(self.sources, tag, text) {
            return hash;
        }
        let end = text.floor_char_boundary(TAG_VALUE_BYTES_MAX);
        self.tagged.n_refused += u64::from(end < text.len());
        text.get(..end).unwrap_or_default().to_owned()
    }
}

/// A header that comes often is taken out once; removals and settings of one name are two things.
/// Among few edits there are no repetitions.
fn without_repetitions(edits: Vec<HeaderEdit>) -> Vec<HeaderEdit> {
    if edits.len() <= EDITS_FEW {
        return edits;
    }
    let mut seen = BTreeSet::new();
    let kind = |edit: &HeaderEdit| matches!(edit, HeaderEdit::Set(..));
    let is_first: Vec<bool> = edits
        .iter()
        .map(|edit| seen.insert((edit.name(), kind(edit))))
        .collect();
    let pairs = edits.into_iter().zip(is_first);
    pairs
        .filter_map(|(edit, first)| first.then_some(edit))
        .collect()
}
