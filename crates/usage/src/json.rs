//! A push scanner for JSON: chunk-blind, without recursion, in constant memory.
//!
//! It is driven by a static tree of [`Node`]s and tells a [`Visitor`] the wanted values with their
//! absolute byte offsets. Everything else is skipped sixteen bytes at a time: inside an unwanted
//! object only braces and quotes are looked at, inside an unwanted array only brackets and quotes.
//! It never fails. The levels that the tree names are checked against the grammar and a breach is
//! remembered ([`Scanner::is_malformed`]); what is skipped is not checked. After one document the
//! next may follow (concatenated documents, lines of NDJSON).
//!
//! Before changing this file: every state must survive a cut after any byte. Bytes are consumed by
//! `step`, which looks at one state and always either consumes or changes the state.

mod capture;
pub mod grammar;
pub mod number;
mod run;
mod schema;

use memchr::{memchr2, memchr3};

use capture::Capture;
pub use capture::SCALAR_BYTES_MAX;
pub use schema::Node;

/// The deepest wanted nesting. Schemas are shallower; a deeper one would skip what lies below.
const FRAMES_MAX: usize = 16;

/// The longest key that is compared, in bytes; schemas have shorter ones, longer keys are unknown.
const KEY_BYTES_MAX: usize = 64;

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

/// What is done with the scalar at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Ignore,
    Measure,
    Keep,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A value is due; right after `[` the array may also end.
    Value {
        may_close: bool,
    },
    /// A key is due; right after `{` the object may also end.
    Key {
        may_close: bool,
    },
    InKey,
    Colon,
    /// A comma or a closing bracket is due; at the top, the end or the next document.
    AfterValue,
    InString(Purpose),
    /// Inside a number or literal.
    InAtom(Purpose),
    /// Inside an unwanted container.
    Skip {
        container: Container,
        depth: u64,
        in_string: bool,
    },
}

#[derive(Debug)]
struct Frame<F: 'static> {
    node: &'static Node<F>,
    container: Container,
    is_empty: bool,
}

/// The scanner of one body, or of one document after another.
#[derive(Debug)]
pub struct Scanner<F: 'static> {
    root: &'static Node<F>,
    state: State,
    frames: Vec<Frame<F>>,
    /// The node of the value that is due or at hand.
    node: Option<&'static Node<F>>,
    /// Offset of the first byte of the chunk at hand.
    base: u64,
    /// Offset of the scalar at hand.
    start: u64,
    capture: Capture,
    is_escaped: bool,
    is_unknown_key: bool,
    starts_number: bool,
    is_malformed: bool,
    n_documents: u64,
}

impl<F: Copy> Scanner<F> {
    /// A scanner at the start of a body.
    pub fn new(root: &'static Node<F>) -> Scanner<F> {
        Scanner {
            root,
            state: State::Value { may_close: false },
            frames: Vec::new(),
            node: Some(root),
            base: 0,
            start: 0,
            capture: Capture::default(),
            is_escaped: false,
            is_unknown_key: false,
            starts_number: false,
            is_malformed: false,
            n_documents: 0,
        }
    }

    /// Begins anew at offset 0, whatever came before; buffers stay.
    pub fn reset(&mut self) {
        self.frames.clear();
        self.capture.clear();
        self.state = State::Value { may_close: false };
        self.node = Some(self.root);
        self.base = 0;
        self.is_escaped = false;
        self.is_malformed = false;
        self.n_documents = 0;
    }

    /// Takes the next bytes.
    pub fn push(&mut self, chunk: &[u8], visitor: &mut impl Visitor<F>) {
        let mut at = 0;
        while at < chunk.len() {
            at = self.step(chunk, at, visitor);
        }
        self.base += chunk.len() as u64;
    }

    /// The body has ended: a number at the top, which only the end can end, is told now.
    pub fn finish(&mut self, visitor: &mut impl Visitor<F>) {
        if let (State::InAtom(purpose), true) = (self.state, self.frames.is_empty()) {
            self.end_atom(purpose, self.base, visitor);
        }
    }

    /// Whether the grammar was broken at a level that the schema names.
    pub fn is_malformed(&self) -> bool {
        self.is_malformed
    }

    /// Whether at least one document has ended and no other has begun.
    pub fn is_complete(&self) -> bool {
        self.n_documents > 0 && self.frames.is_empty() && self.state == State::AfterValue
    }

    /// The wanted scalar that has begun and not ended: its field, and the offset of its first byte.
    pub fn at_hand(&self) -> Option<(F, u64)> {
        match self.state {
            State::InString(Purpose::Keep) | State::InAtom(Purpose::Keep) => {
                Some((self.node?.field?, self.start))
            }
            _ => None,
        }
    }

    /// How many documents have ended.
    pub fn n_documents(&self) -> u64 {
        self.n_documents
    }

    fn step(&mut self, chunk: &[u8], at: usize, visitor: &mut impl Visitor<F>) -> usize {
        match self.state {
            State::Value { may_close } => self.value(chunk, at, may_close, visitor),
            State::Key { may_close } => self.key(chunk, at, may_close, visitor),
            State::InKey => self.in_key(chunk, at),
            State::Colon => self.colon(chunk, at),
            State::AfterValue => self.after_value(chunk, at, visitor),
            State::InString(purpose) => self.in_string(chunk, at, purpose, visitor),
            State::InAtom(purpose) => self.in_atom(chunk, at, purpose, visitor),
            State::Skip {
                container,
                depth,
                in_string: true,
            } => self.skip_string(chunk, at, container, depth),
            State::Skip {
                container, depth, ..
            } => self.skip(chunk, at, container, depth, visitor),
        }
    }

    fn offset(&self, at: usize) -> u64 {
        self.base + at as u64
    }

    fn value(
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
                self.start_scalar(at);
                self.state = State::InString(self.purpose());
                at + 1
            }
            b'{' => self.open(Container::Object, at, visitor),
            b'[' => self.open(Container::Array, at, visitor),
            b']' | b'}' => {
                self.is_malformed |= !may_close;
                self.close(byte, at, visitor)
            }
            b',' | b':' => {
                self.is_malformed = true;
                at + 1
            }
            _ if self.is_byte_order_mark(byte, at) => at + 1,
            _ => {
                self.start_scalar(at);
                self.starts_number = byte == b'-' || byte.is_ascii_digit();
                self.state = State::InAtom(self.purpose());
                at
            }
        }
    }

    /// A byte order mark before the first document is no part of it.
    fn is_byte_order_mark(&self, byte: u8, at: usize) -> bool {
        let expected = match self.offset(at) {
            0 => 0xEF,
            1 => 0xBB,
            2 => 0xBF,
            _ => return false,
        };
        byte == expected && self.frames.is_empty() && self.n_documents == 0
    }

    fn purpose(&self) -> Purpose {
        match self.node {
            Some(node) if node.is_text => Purpose::Measure,
            Some(node) if node.field.is_some() => Purpose::Keep,
            _ => Purpose::Ignore,
        }
    }

    fn start_scalar(&mut self, at: usize) {
        self.capture.clear();
        self.is_escaped = false;
        self.start = self.offset(at);
    }

    fn open(&mut self, container: Container, at: usize, visitor: &mut impl Visitor<F>) -> usize {
        let wanted = self.node.filter(|node| node.takes(container));
        let Some(node) = wanted.filter(|_| self.frames.len() < FRAMES_MAX) else {
            self.state = State::Skip {
                container,
                depth: 1,
                in_string: false,
            };
            return at + 1;
        };
        if let Some(field) = node.field {
            visitor.open(field, container, self.offset(at));
        }
        self.frames.push(Frame {
            node,
            container,
            is_empty: true,
        });
        self.state = match container {
            Container::Object => State::Key { may_close: true },
            Container::Array => State::Value { may_close: true },
        };
        self.node = node.items;
        at + 1
    }

    fn close(&mut self, byte: u8, at: usize, visitor: &mut impl Visitor<F>) -> usize {
        let Some(frame) = self.frames.pop() else {
            self.is_malformed = true;
            self.state = State::Value { may_close: false };
            self.node = Some(self.root);
            return at + 1;
        };
        let expected = match frame.container {
            Container::Object => b'}',
            Container::Array => b']',
        };
        self.is_malformed |= byte != expected;
        if let Some(field) = frame.node.field {
            visitor.close(field, frame.container, self.offset(at), frame.is_empty);
        }
        self.end_value(visitor);
        at + 1
    }

    /// A value has ended; the one around it goes on.
    fn end_value(&mut self, visitor: &mut impl Visitor<F>) {
        self.state = State::AfterValue;
        match self.frames.last_mut() {
            Some(frame) => frame.is_empty = false,
            None => {
                self.n_documents += 1;
                visitor.document();
            }
        }
    }

    fn key(
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

    fn in_key(&mut self, chunk: &[u8], at: usize) -> usize {
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

    fn keep_key(&mut self, piece: &[u8]) {
        self.is_unknown_key |= piece.len() > KEY_BYTES_MAX;
        if !self.is_unknown_key {
            self.capture.plain(piece);
        }
    }

    /// An escape in a key, or in text that is captured.
    fn in_escape(&mut self, chunk: &[u8], at: usize) -> usize {
        let Some(byte) = chunk.get(at) else {
            return chunk.len();
        };
        if matches!(byte, b'"' | b'\\') && self.capture.is_mid_hex() {
            self.capture.abandon_escape();
            self.is_malformed = true;
            self.is_escaped = false;
            return at;
        }
        self.capture.escaped(*byte);
        self.is_escaped = self.capture.is_escaping();
        at + 1
    }

    fn end_key(&mut self, piece: &[u8]) {
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

    fn colon(&mut self, chunk: &[u8], at: usize) -> usize {
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

    fn after_value(&mut self, chunk: &[u8], at: usize, visitor: &mut impl Visitor<F>) -> usize {
        let Some((at, byte)) = next_token(chunk, at) else {
            return chunk.len();
        };
        let Some(frame) = self.frames.last() else {
            self.state = State::Value { may_close: false };
            self.node = Some(self.root);
            return at;
        };
        match (byte, frame.container) {
            (b',', Container::Object) => self.state = State::Key { may_close: false },
            (b',', Container::Array) => {
                self.node = frame.node.items;
                self.state = State::Value { may_close: false };
            }
            (b'}' | b']', _) => return self.close(byte, at, visitor),
            _ => self.is_malformed = true,
        }
        at + 1
    }

    fn in_string(
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
    fn pass_over(
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
    fn keep(&mut self, chunk: &[u8], at: usize, visitor: &mut impl Visitor<F>) -> usize {
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

    fn measure(&self, purpose: Purpose, piece: &[u8], visitor: &mut impl Visitor<F>) {
        let field = self.node.and_then(|node| node.field);
        if let (Purpose::Measure, Some(field), false) = (purpose, field, piece.is_empty()) {
            visitor.text_piece(field, piece);
        }
    }

    fn end_string(&mut self, purpose: Purpose, end: usize, visitor: &mut impl Visitor<F>) {
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
    fn tell_text(&mut self, text: &[u8], end: usize, visitor: &mut impl Visitor<F>) {
        let kept = (text.len() <= SCALAR_BYTES_MAX).then_some(text);
        if let Some(field) = self.node.and_then(|node| node.field) {
            visitor.scalar(field, text_value(kept), self.span_to(end + 1));
        }
        self.end_value(visitor);
    }

    fn span_to(&self, end: usize) -> Span {
        Span {
            start: self.start,
            end: self.offset(end),
        }
    }

    fn in_atom(
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

    fn end_atom(&mut self, purpose: Purpose, end: u64, visitor: &mut impl Visitor<F>) {
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

    fn skip(
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

    fn skip_string(&mut self, chunk: &[u8], at: usize, container: Container, depth: u64) -> usize {
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

/// The next byte that is no white space, with its index.
fn next_token(chunk: &[u8], at: usize) -> Option<(usize, u8)> {
    let rest = chunk.get(at..)?;
    let index = rest
        .iter()
        .position(|b| !matches!(b, b' ' | b'\t' | b'\n' | b'\r'))?;
    rest.get(index).map(|byte| (at + index, *byte))
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

#[cfg(test)]
mod tests;
