//! Keys: which node of the tree the value after one belongs to.

use memchr::memchr2;

use super::{Scanner, State, next_token};
use crate::json::Visitor;

/// The longest key that is compared, in bytes; schemas have shorter ones, longer keys are unknown.
const KEY_BYTES_MAX: usize = 64;

impl<F: Copy> Scanner<F> {
    pub(super) fn key(
        &mut self,
        chunk: &[u8],
        at: usize,
        may_close: bool,
        visitor: &mut impl Visitor<F>,
    ) -> usize {
        let (at, byte) = match next_token(chunk, at) {
            Some(found) => found,
            None => return chunk.len(),
        };
        match byte {
            b'"' => {
                self.capture.clear();
                self.is_escaped = false;
                self.is_unknown_key = false;
                self.state = State::InKey;
            }
            b'}' | b']' => {
                self.is_malformed |= !may_close;
                return self.close(byte, at, visitor);
            }
            _ => self.is_malformed = true,
        }
        at + 1
    }

    pub(super) fn in_key(&mut self, chunk: &[u8], at: usize) -> usize {
        if self.is_escaped {
            return self.in_escape(chunk, at);
        }
        let rest = chunk.get(at..).unwrap_or_default();
        let length = memchr2(b'"', b'\\', rest);
        let piece = rest.get(..length.unwrap_or(rest.len())).unwrap_or_default();
        let end = at + piece.len();
        match chunk.get(end) {
            Some(b'"') => {
                self.end_key(piece);
                end + 1
            }
            Some(_) => {
                self.keep_key(piece);
                self.capture.start_escape();
                self.is_escaped = true;
                end + 1
            }
            None => {
                self.keep_key(piece);
                end
            }
        }
    }

    pub(super) fn keep_key(&mut self, piece: &[u8]) {
        self.is_unknown_key |= piece.len() > KEY_BYTES_MAX;
        if !self.is_unknown_key {
            self.capture.plain(piece);
        }
    }

    pub(super) fn end_key(&mut self, piece: &[u8]) {
        self.state = State::Colon;
        let Some(frame) = self.frames.last() else {
            self.node = None;
            return;
        };
        self.node = if self.is_unknown_key {
            None
        } else if self.capture.is_empty() {
            frame.node.child(piece)
        } else {
            self.capture.plain(piece);
            let node = frame.node;
            self.capture.finish().and_then(|key| node.child(key))
        };
    }

    pub(super) fn colon(&mut self, chunk: &[u8], at: usize) -> usize {
        match next_token(chunk, at) {
            None => chunk.len(),
            Some((at, b':')) => {
                self.state = State::Value { may_close: false };
                at + 1
            }
            Some((at, _)) => {
                self.is_malformed = true;
                self.state = State::Value { may_close: false };
                at
            }
        }
    }
}
