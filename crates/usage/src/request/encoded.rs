//! Bodies that apps send compressed: read, on the side, as what they decode to.

use super::{RequestBody, RequestFacts};
use crate::decode::{Decoder, DecoderPool};

/// Reads what an encoded body decodes to. Its decoder is gone when the body has ended.
pub(super) struct Encoded {
    decoder: Decoder,
    plain: RequestBody,
    is_broken: bool,
}

impl Encoded {
    /// A reader of that body. `None` where nothing can undo its encoding, or no memory is left for it.
    pub(super) fn new(
        content_encoding: &str,
        plain: RequestBody,
        pool: &DecoderPool,
    ) -> Option<Encoded> {
        let decoder = Decoder::new(Some(content_encoding), pool).ok()?;
        let is_broken = false;
        Some(Encoded {
            decoder,
            plain,
            is_broken,
        })
    }

    pub(super) fn push(&mut self, chunk: &[u8]) {
        let plain = &mut self.plain;
        let outcome = self.decoder.push(chunk, |decoded| {
            plain.push(decoded);
        });
        self.is_broken |= outcome.is_err();
    }

    pub(super) fn finish(&mut self) {
        let plain = &mut self.plain;
        let outcome = self.decoder.finish(|decoded| {
            plain.push(decoded);
        });
        self.is_broken |= outcome.is_err() || !self.decoder.is_complete();
        self.decoder = Decoder::Unreadable;
    }

    /// What was read. `None` where it came to nothing: the body is not what its header says, and
    /// servers that do not look at that header take it as it is.
    pub(super) fn facts(&self) -> Option<&RequestFacts> {
        let facts = &self.plain.facts;
        let is_nothing = self.is_broken && (facts.body_bytes == 0 || facts.model.is_none());
        (!is_nothing).then_some(facts)
    }
}
