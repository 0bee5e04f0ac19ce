//! The scanner's states, and the steps between values: brackets, commas, documents.
//!
//! Before changing this file: every state must survive a cut after any byte. Bytes are consumed by
//! `step`, which looks at one state and always either consumes or changes the state.

mod key;
mod run;
mod scalar;
mod skip;

use super::capture::Capture;
use super::schema::Node;
use super::{Container, Visitor};

/// The deepest wanted nesting. Schemas are shallower; a deeper one would skip what lies below.
const FRAMES_MAX: usize = 16;

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
}

/// The next byte that is no white space, with its index.
fn next_token(chunk: &[u8], at: usize) -> Option<(usize, u8)> {
    let rest = chunk.get(at..)?;
    let index = rest
        .iter()
        .position(|b| !matches!(b, b' ' | b'\t' | b'\n' | b'\r'))?;
    rest.get(index).map(|byte| (at + index, *byte))
}
