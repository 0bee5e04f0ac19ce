//! Edits to a body that streams by: bytes inserted, values replaced, nothing else touched.
//!
//! An edit happens only where the text up to it is well-formed. All that is ever withheld is one
//! value that may have to be replaced, while its end is not known.

use std::mem;

use crate::json::grammar::Grammar;
use crate::json::{SCALAR_BYTES_MAX, Span};

/// What a byte of text may take in JSON, as `\u0061` does.
const ESCAPED_BYTES_MAX: usize = 6;

/// The longest value that is replaced, in bytes, quotes included; it is withheld for that. Every
/// value that can be read is within it, so that nobody keeps a model by writing it in escapes.
pub(super) const WITHHELD_BYTES_MAX: usize = 2 + ESCAPED_BYTES_MAX * SCALAR_BYTES_MAX;

/// What lasts from chunk to chunk.
pub(super) struct Splicer {
    grammar: Grammar,
    /// The beginning of the value at hand, which came in earlier chunks.
    withheld: Vec<u8>,
}

/// One chunk on its way through. Offsets count from the start of the body.
pub(super) struct Splice<'a> {
    splicer: &'a mut Splicer,
    chunk: &'a [u8],
    /// Offset of the chunk's first byte.
    base: u64,
    /// Where the part of the chunk begins that the grammar has not seen.
    unchecked_from: usize,
    /// Where the part of the chunk begins that is neither in `out` nor left out.
    rest_from: usize,
    out: Vec<u8>,
    is_changed: bool,
}

// === impl Splicer ===

impl Splicer {
    /// For a body of which nothing was seen.
    pub(super) fn new() -> Splicer {
        Splicer {
            grammar: Grammar::new(),
            withheld: Vec::new(),
        }
    }

    /// Takes the next chunk, which begins at that offset.
    pub(super) fn start<'a>(&'a mut self, chunk: &'a [u8], base: u64) -> Splice<'a> {
        Splice {
            splicer: self,
            chunk,
            base,
            unchecked_from: 0,
            rest_from: 0,
            out: Vec::new(),
            is_changed: false,
        }
    }

    /// What is still withheld, now that the body has ended within a value.
    pub(super) fn take_withheld(&mut self) -> Vec<u8> {
        mem::take(&mut self.withheld)
    }
}

// === impl Splice ===

impl Splice<'_> {
    /// Puts the text before the byte at that offset, a closing bracket. False, and nothing is
    /// changed, where the body is broken.
    pub(super) fn insert(&mut self, at: u64, text: &str) -> bool {
        if !self.is_sound_through(at + 1) {
            return false;
        }
        self.release_withheld();
        let index = self.index(at);
        self.send_rest_to(index);
        self.out.extend_from_slice(text.as_bytes());
        self.is_changed = true;
        true
    }

    /// Puts the text in the place of a value. False, and nothing is changed, where the body is
    /// broken or the value too long.
    pub(super) fn replace(&mut self, span: Span, text: &str) -> bool {
        let is_short = span.end.saturating_sub(span.start) <= WITHHELD_BYTES_MAX as u64;
        if !is_short || !self.is_sound_through(span.end) {
            return false;
        }
        if span.start < self.base {
            if self.splicer.withheld.is_empty() {
                return false;
            }
            self.splicer.withheld.clear();
        } else {
            self.release_withheld();
        }
        let (start, end) = (self.index(span.start), self.index(span.end));
        self.send_rest_to(start);
        self.rest_from = end;
        self.out.extend_from_slice(text.as_bytes());
        self.is_changed = true;
        true
    }

    /// Ends the chunk, withholding the value that begins at that offset and has not ended.
    /// `None` where the chunk passes as it is.
    pub(super) fn finish(mut self, value_from: Option<u64>) -> Option<Vec<u8>> {
        let length = self.chunk.len();
        let is_sound = self.is_sound_through(self.base + length as u64);
        match value_from.filter(|_| is_sound) {
            Some(from) => self.withhold(from),
            None => self.release_withheld(),
        }
        self.changed()
    }

    /// Ends a chunk behind whose beginning nothing is edited any more, so that nobody asks whether
    /// it is well-formed.
    pub(super) fn finish_last(mut self) -> Option<Vec<u8>> {
        self.release_withheld();
        self.changed()
    }

    fn changed(mut self) -> Option<Vec<u8>> {
        if !self.is_changed {
            return None;
        }
        self.send_rest_to(self.chunk.len());
        Some(self.out)
    }

    fn withhold(&mut self, from: u64) {
        let goes_on = from < self.base;
        if goes_on && self.splicer.withheld.is_empty() {
            return; // It was too long already.
        }
        if !goes_on {
            self.release_withheld();
        }
        let index = self.index(from);
        let tail = self.chunk.get(index..).unwrap_or_default();
        if self.splicer.withheld.len() + tail.len() > WITHHELD_BYTES_MAX {
            self.release_withheld();
            return;
        }
        self.splicer.withheld.extend_from_slice(tail);
        self.send_rest_to(index);
        self.rest_from = self.chunk.len();
        self.is_changed = true;
    }

    /// Sends what was withheld: it stands before all of this chunk.
    fn release_withheld(&mut self) {
        if !self.splicer.withheld.is_empty() {
            self.out.append(&mut self.splicer.withheld);
            self.is_changed = true;
        }
    }

    fn send_rest_to(&mut self, index: usize) {
        let rest = self.chunk.get(self.rest_from..index).unwrap_or_default();
        self.out.extend_from_slice(rest);
        self.rest_from = self.rest_from.max(index);
    }

    fn is_sound_through(&mut self, end: u64) -> bool {
        let end = self.index(end);
        let unchecked = self.chunk.get(self.unchecked_from..end).unwrap_or_default();
        self.splicer.grammar.push(unchecked);
        self.unchecked_from = self.unchecked_from.max(end);
        self.splicer.grammar.is_sound()
    }

    /// The place of that offset in the chunk; what came before it is at 0.
    fn index(&self, offset: u64) -> usize {
        usize::try_from(offset.saturating_sub(self.base)).unwrap_or(usize::MAX)
    }
}
