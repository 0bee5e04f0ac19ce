//! A push scanner for JSON: chunk-blind, without recursion, in constant memory.
//!
//! It is driven by a static tree of [`Node`]s and tells a [`Visitor`] the wanted values with their
//! absolute byte offsets. Everything else is skipped sixteen bytes at a time: inside an unwanted
//! object only braces and quotes are looked at, inside an unwanted array only brackets and quotes.
//! It never fails. The levels that the tree names are checked against the grammar and a breach is
//! remembered ([`Scanner::is_malformed`]); what is skipped is not checked. After one document the
//! next may follow (concatenated documents, lines of NDJSON).

mod capture;
pub mod grammar;
pub mod number;
mod scanner;
mod schema;

pub use capture::SCALAR_BYTES_MAX;
pub use scanner::Scanner;
pub use schema::Node;

/// A scalar as captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, as it was written; see [`number`].
    Number(&'a str),
    /// A string, unescaped.
    Text(&'a str),
    /// A scalar longer than [`SCALAR_BYTES_MAX`].
    TooLong,
    /// Neither a number nor a literal, or a string that is not UTF-8.
    Unreadable,
}

/// The bytes `start..end` of the body; a string's quotes are inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u64,
    /// Offset after the last byte.
    pub end: u64,
}

/// An object or an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// `{…}`
    Object,
    /// `[…]`
    Array,
}

/// A value that was passed over and whose bytes therefore mean nothing to the visitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// An unwanted string.
    String,
    /// A string that was measured ([`Node::text`]).
    Text,
    /// An unwanted number.
    Number,
}

/// Who is told what was found. All offsets count from the first byte after the last
/// [`Scanner::reset`].
pub trait Visitor<F> {
    /// A wanted scalar has ended.
    fn scalar(&mut self, field: F, value: Value<'_>, span: Span);

    /// A wanted object or array begins; `at` is the offset of its bracket.
    fn open(&mut self, field: F, container: Container, at: u64) {
        let _ = (field, container, at);
    }

    /// A wanted object or array ends; `at` is the offset of its closing bracket.
    fn close(&mut self, field: F, container: Container, at: u64, is_empty: bool) {
        let _ = (field, container, at, is_empty);
    }

    /// So many more bytes of a measured string, escapes counted as written; told piece by piece.
    fn text(&mut self, field: F, n_bytes: usize) {
        let _ = (field, n_bytes);
    }

    /// The same, with the bytes themselves, for visitors that ask more of them than their length.
    fn text_piece(&mut self, field: F, piece: &[u8]) {
        self.text(field, piece.len());
    }

    /// A string or number outside every node, or a measured string, has ended.
    fn passed(&mut self, passed: Passed, span: Span) {
        let _ = (passed, span);
    }

    /// One document has ended.
    fn document(&mut self) {}
}

#[cfg(test)]
mod tests;
