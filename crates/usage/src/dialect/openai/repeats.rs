//! Text that a stream tells twice, which counts once.
//!
//! Some hosts tell the piece and all so far
//! (<https://docs.perplexity.ai/docs/sonar/pro-search/stream-mode>, `full`), the piece twice
//! (observed of Writer), or the whole message at the end
//! (<https://platform.minimax.io/docs/api-reference/text-post>): where deltas have text, messages
//! repeat it.

use crate::findings::Findings;
use crate::relayed::{Relayed, TextKind};

/// What the messages beside a stream's deltas have brought; bytes by kind of text.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    /// A delta has brought text.
    has_deltas: bool,
    /// Text relayed before the delta or message at hand.
    before: [u64; 3],
    /// Text of the message of the choice at hand.
    message: [u64; 3],
}

impl Repeats {
    /// A choice begins.
    pub(super) fn begin(&mut self) {
        self.message = [0; 3];
    }

    /// A delta or a message begins.
    pub(super) fn open(&mut self, relayed: &Relayed) {
        self.before = relayed.by_kind();
    }

    /// A delta has ended.
    pub(super) fn end_delta(&mut self, relayed: &Relayed) {
        self.has_deltas |= self.before != relayed.by_kind();
    }

    /// A message has ended.
    pub(super) fn end_message(&mut self, relayed: &Relayed) {
        self.message = relayed.by_kind();
        for (n_bytes, before) in self.message.iter_mut().zip(self.before) {
            *n_bytes = n_bytes.saturating_sub(before);
        }
    }

    /// The choice at hand has ended, or was cut: takes back what its message repeats. Such an event
    /// is no model for others.
    pub(super) fn drop_message(&mut self, findings: &mut Findings) {
        let message = std::mem::take(&mut self.message);
        if !self.has_deltas || message == [0; 3] {
            return;
        }
        findings.is_eventful = true;
        for (kind, n_bytes) in TextKind::ALL.into_iter().zip(message) {
            findings.relayed.take_back(kind, n_bytes);
        }
    }
}
