//! One chunk of a stream on its way through, copied only where something is left out.

use std::mem;

/// One chunk on its way through: what of it was left out, and what comes before it.
pub(super) struct Relay<'a> {
    pub(super) chunk: &'a [u8],
    /// Where the part of the chunk begins that is neither in `out` nor left out.
    rest_from: usize,
    /// Where the part of the current event begins that came in this chunk.
    pub(super) event_from: usize,
    out: Vec<u8>,
    /// What is sent at most, in bytes: what was held of an event, and the chunk.
    n_out_max: usize,
    is_changed: bool,
}

impl<'a> Relay<'a> {
    /// The chunk with nothing left out, before which so many bytes are held.
    pub(super) fn new(chunk: &'a [u8], n_held: usize) -> Relay<'a> {
        Relay {
            chunk,
            rest_from: 0,
            event_from: 0,
            out: Vec::new(),
            n_out_max: n_held + chunk.len(),
            is_changed: false,
        }
    }

    fn part(&self, from: usize, to: usize) -> &'a [u8] {
        self.chunk.get(from..to).unwrap_or_default()
    }

    /// The current event up to `end`; an event that began in an earlier chunk is joined in `held`.
    pub(super) fn event<'b>(&'b mut self, held: &'b mut Vec<u8>, end: usize) -> &'b [u8] {
        if held.is_empty() {
            return self.part(self.event_from, end);
        }
        self.hold(held, end);
        held
    }

    /// Moves what this chunk has of the event, up to `end`, into `held`.
    pub(super) fn hold(&mut self, held: &mut Vec<u8>, end: usize) {
        if self.event_from < end {
            held.extend_from_slice(self.part(self.event_from, end));
            self.leave_out(self.event_from, end);
            self.event_from = end;
        }
    }

    /// Lets the event go as far as it came, up to `end`.
    pub(super) fn release(&mut self, held: &mut Vec<u8>, end: usize) {
        if !held.is_empty() {
            self.hold(held, end);
            self.is_changed = true;
            // Not `append`: what was held must not stay allocated for the rest of the stream.
            self.put(&mem::take(held));
        }
    }

    /// Lets the chunk pass up to `from`, and nothing from there to `to`.
    pub(super) fn leave_out(&mut self, from: usize, to: usize) {
        self.put(self.part(self.rest_from, from));
        self.rest_from = to;
        self.is_changed = true;
    }

    /// What is sent in the chunk's place; `None` where it passes as it is.
    pub(super) fn finish(mut self) -> Option<Vec<u8>> {
        if !self.is_changed {
            return None;
        }
        self.put(self.part(self.rest_from, self.chunk.len()));
        Some(self.out)
    }

    /// Appends to what is sent. Room is made once, for all that can come: a copy that grows has up to
    /// three times as much.
    fn put(&mut self, bytes: &[u8]) {
        if self.out.capacity() == 0 && !bytes.is_empty() {
            self.out.reserve_exact(self.n_out_max);
        }
        self.out.extend_from_slice(bytes);
    }
}
