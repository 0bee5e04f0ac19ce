//! Strings, numbers and literals: kept, measured or passed over.

use memchr::memchr2;

use super::{Purpose, Scanner, run};
use crate::json::{Passed, SCALAR_BYTES_MAX, Span, Value, Visitor};

impl<F: Copy> Scanner<F> {
    pub(super) fn start_scalar(&mut self, at: usize) {
        self.capture.clear();
        self.is_escaped = false;
        self.start = self.offset(at);
    }

    pub(super) fn in_string(
        &mut self,
        chunk: &[u8],
        at: usize,
        purpose: Purpose,
        visitor: &mut impl Visitor<F>,
    ) -> usize {
        match (purpose, self.is_escaped) {
            (Purpose::Ignore | Purpose::Measure, _) => self.pass_over(chunk, at, purpose, visitor),
            (Purpose::Keep, true) => self.in_escape(chunk, at),
            (Purpose::Keep, false) => self.keep(chunk, at, visitor),
        }
    }

    /// Text that is at most measured.
    pub(super) fn pass_over(
        &mut self,
        chunk: &[u8],
        at: usize,
        purpose: Purpose,
        visitor: &mut impl Visitor<F>,
    ) -> usize {
        let rest = chunk.get(at..).unwrap_or_default();
        let run = run::run(rest, self.is_escaped);
        self.is_escaped = run.is_escaped;
        self.measure(
            purpose,
            rest.get(..run.n_bytes).unwrap_or_default(),
            visitor,
        );
        let end = at + run.n_bytes;
        if run.ends {
            self.end_string(purpose, end, visitor);
        }
        end + usize::from(run.ends)
    }

    /// Text that is captured.
    pub(super) fn keep(&mut self, chunk: &[u8], at: usize, visitor: &mut impl Visitor<F>) -> usize {
        let rest = chunk.get(at..).unwrap_or_default();
        let length = memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
        let piece = rest.get(..length).unwrap_or_default();
        let end = at + length;
        match chunk.get(end) {
            Some(b'"') if self.capture.is_empty() => {
                self.tell_text(piece, end, visitor);
                return end + 1;
            }
            _ => self.capture.plain(piece),
        }
        match chunk.get(end) {
            Some(b'"') => self.end_string(Purpose::Keep, end, visitor),
            Some(_) => {
                self.is_escaped = true;
                self.capture.start_escape();
            }
            None => return end,
        }
        end + 1
    }

    pub(super) fn measure(&self, purpose: Purpose, piece: &[u8], visitor: &mut impl Visitor<F>) {
        let field = self.node.and_then(|node| node.field);
        if let (Purpose::Measure, Some(field), false) = (purpose, field, piece.is_empty()) {
            visitor.text_piece(field, piece);
        }
    }

    pub(super) fn end_string(
        &mut self,
        purpose: Purpose,
        end: usize,
        visitor: &mut impl Visitor<F>,
    ) {
        let span = self.span_to(end + 1);
        match purpose {
            Purpose::Ignore => visitor.passed(Passed::String, span),
            Purpose::Measure => visitor.passed(Passed::Text, span),
            Purpose::Keep => {
                let field = self.node.and_then(|node| node.field);
                let value = text_value(self.capture.finish());
                if let Some(field) = field {
                    visitor.scalar(field, value, span);
                }
            }
        }
        self.end_value(visitor);
    }

    /// A string that lies whole in the chunk is told without a copy.
    pub(super) fn tell_text(&mut self, text: &[u8], end: usize, visitor: &mut impl Visitor<F>) {
        let kept = (text.len() <= SCALAR_BYTES_MAX).then_some(text);
        if let Some(field) = self.node.and_then(|node| node.field) {
            visitor.scalar(field, text_value(kept), self.span_to(end + 1));
        }
        self.end_value(visitor);
    }

    pub(super) fn span_to(&self, end: usize) -> Span {
        Span {
            start: self.start,
            end: self.offset(end),
        }
    }

    pub(super) fn in_atom(
        &mut self,
        chunk: &[u8],
        at: usize,
        purpose: Purpose,
        visitor: &mut impl Visitor<F>,
    ) -> usize {
        let rest = chunk.get(at..).unwrap_or_default();
        let length = rest.iter().position(|b| ends_atom(*b));
        let piece = rest.get(..length.unwrap_or(rest.len())).unwrap_or_default();
        if purpose != Purpose::Ignore {
            self.capture.plain(piece);
        }
        let end = at + piece.len();
        if length.is_some() {
            self.end_atom(purpose, self.offset(end), visitor);
        }
        end
    }

    pub(super) fn end_atom(&mut self, purpose: Purpose, end: u64, visitor: &mut impl Visitor<F>) {
        let span = Span {
            start: self.start,
            end,
        };
        let field = self.node.and_then(|node| node.field);
        match (purpose, field) {
            (Purpose::Measure | Purpose::Keep, Some(field)) => {
                let value = atom_value(self.capture.finish());
                self.is_malformed |= value == Value::Unreadable;
                visitor.scalar(field, value, span);
            }
            _ if self.starts_number => visitor.passed(Passed::Number, span),
            _ => {}
        }
        self.end_value(visitor);
    }
}

fn ends_atom(byte: u8) -> bool {
    matches!(
        byte,
        b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t' | b':' | b'"' | b'{' | b'['
    )
}

fn text_value(kept: Option<&[u8]>) -> Value<'_> {
    match kept.map(std::str::from_utf8) {
        None => Value::TooLong,
        Some(Ok(text)) => Value::Text(text),
        Some(Err(_)) => Value::Unreadable,
    }
}

fn atom_value(kept: Option<&[u8]>) -> Value<'_> {
    let Some(kept) = kept else {
        return Value::TooLong;
    };
    match kept {
        b"null" => Value::Null,
        b"true" => Value::Bool(true),
        b"false" => Value::Bool(false),
        _ => match std::str::from_utf8(kept) {
            Ok(text) if is_number(kept) => Value::Number(text),
            _ => Value::Unreadable,
        },
    }
}

/// Whether the bytes may be a number: its exact grammar is checked where its value is read.
fn is_number(bytes: &[u8]) -> bool {
    let is_part = |b: &u8| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-');
    matches!(bytes.first(), Some(b'-' | b'0'..=b'9')) && bytes.iter().all(is_part)
}
