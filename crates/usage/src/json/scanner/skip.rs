//! Containers that nobody wants: passed over by brackets and quotes alone.

use memchr::memchr3;

use super::{Scanner, State, run};
use crate::json::{Container, Visitor};

impl<F: Copy> Scanner<F> {
    pub(super) fn skip(
        &mut self,
        chunk: &[u8],
        at: usize,
        container: Container,
        depth: u64,
        visitor: &mut impl Visitor<F>,
    ) -> usize {
        let (open, close) = match container {
            Container::Object => (b'{', b'}'),
            Container::Array => (b'[', b']'),
        };
        let rest = chunk.get(at..).unwrap_or_default();
        let Some(found) = memchr3(b'"', open, close, rest) else {
            return chunk.len();
        };
        let at = at + found;
        let (depth, in_string) = match rest.get(found) {
            Some(b'"') => (depth, true),
            Some(byte) if *byte == open => (depth + 1, false),
            _ => (depth - 1, false),
        };
        if depth == 0 {
            self.end_value(visitor);
        } else {
            self.is_escaped = false;
            self.state = State::Skip {
                container,
                depth,
                in_string,
            };
        }
        at + 1
    }

    pub(super) fn skip_string(
        &mut self,
        chunk: &[u8],
        at: usize,
        container: Container,
        depth: u64,
    ) -> usize {
        let run = run::run(chunk.get(at..).unwrap_or_default(), self.is_escaped);
        self.is_escaped = run.is_escaped;
        if run.ends {
            self.state = State::Skip {
                container,
                depth,
                in_string: false,
            };
        }
        at + run.n_bytes + usize::from(run.ends)
    }
}
