//! Bodies that apps send compressed: read, on the side, as what they decode to.

use super::{RequestBody, RequestFacts};
use crate::decode::{Decoder, DecoderPool};
use crate::scan::Trouble;

/// Reads what an encoded body decodes to. Its decoder is gone when the body has ended.
pub(super) struct Encoded {
    decoder: Decoder,
    plain: RequestBody,
    /// Whether not all of the body could be decoded.
    is_broken: bool,
    /// Whether that was for want of memory.
    lacks_memory: bool,
}

impl Encoded {
    /// A reader of that body; the trouble, where nothing can undo its encoding, or no memory is left
    /// for it.
    pub(super) fn new(
        content_encoding: &str,
        plain: RequestBody,
        pool: &DecoderPool,
    ) -> Result<Encoded, Trouble> {
        Ok(Encoded {
            decoder: Decoder::new(Some(content_encoding), pool)?,
            plain,
            is_broken: false,
            lacks_memory: false,
        })
    }

    pub(super) fn push(&mut self, chunk: &[u8]) {
        let plain = &mut self.plain;
        let outcome = self.decoder.push(chunk, |decoded| {
            plain.push(decoded);
        });
        if let Err(trouble) = outcome {
            self.break_off(Some(trouble));
        }
    }

    pub(super) fn finish(&mut self) {
        let plain = &mut self.plain;
        let outcome = self.decoder.finish(|decoded| {
            plain.push(decoded);
        });
        if outcome.is_err() || !self.decoder.is_complete() {
            self.break_off(outcome.err());
        }
        self.decoder = Decoder::Unreadable;
    }

    /// The rest of the body is not known. A key that is there twice counts as it was written last,
    /// so neither are the limits on what the call may cost.
    fn break_off(&mut self, trouble: Option<Trouble>) {
        self.is_broken = true;
        self.lacks_memory |= trouble == Some(Trouble::DecoderBudget);
        self.plain.facts.max_output_tokens = None;
        self.plain.facts.n_choices = None;
    }

    /// Whether what it says is not known for sure: not all of it could be decoded, or it says it in
    /// more than one way.
    pub(super) fn is_unsure(&self) -> bool {
        self.is_broken || self.plain.is_unsure()
    }

    /// Whether no memory was left to decode it.
    pub(super) fn lacks_memory(&self) -> bool {
        self.lacks_memory
    }

    /// What was read, of a body that breaks the part before. `None` where it came to nothing: the
    /// body is not what its header says, and servers that do not look at that header take it as it
    /// is.
    pub(super) fn facts(&self) -> Option<&RequestFacts> {
        let facts = &self.plain.facts;
        let is_nothing = self.is_broken && (facts.body_bytes == 0 || facts.model.is_none());
        (!is_nothing).then_some(facts)
    }
}
