//! The JSON messages of one direction of a connection.

use crate::json::{Node, Scanner, Visitor};
use crate::ws::{Frames, Part};

/// Who is told what a direction's messages say.
pub(super) trait Taker<F>: Visitor<F> {
    /// A JSON message has ended; `is_whole` says whether it was well-formed.
    fn end_message(&mut self, is_whole: bool);
}

/// Reads the messages of one direction. Gemini sends its JSON in binary messages, so a message is
/// JSON if it begins like an object; others (raw audio) are passed over.
#[derive(Debug)]
pub(super) struct Messages<F: 'static> {
    frames: Frames,
    scanner: Scanner<F>,
    kind: Kind,
}

/// What the message at hand is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// No byte but white space has come.
    Undecided,
    Json,
    Other,
}

impl<F: Copy> Messages<F> {
    pub(super) fn new(schema: &'static Node<F>) -> Messages<F> {
        Messages {
            frames: Frames::default(),
            scanner: Scanner::new(schema),
            kind: Kind::Undecided,
        }
    }

    pub(super) fn push(&mut self, chunk: &[u8], taker: &mut impl Taker<F>) {
        let (scanner, kind) = (&mut self.scanner, &mut self.kind);
        self.frames.push(chunk, |part| match part {
            Part::Data(bytes) => {
                if *kind == Kind::Undecided {
                    *kind = kind_of(bytes);
                }
                if *kind == Kind::Json {
                    scanner.push(bytes, taker);
                }
            }
            Part::End => {
                if *kind == Kind::Json {
                    taker.end_message(scanner.is_complete() && !scanner.is_malformed());
                    scanner.reset();
                }
                *kind = Kind::Undecided;
            }
        });
    }

    pub(super) fn is_broken(&self) -> bool {
        self.frames.is_broken()
    }
}

fn kind_of(bytes: &[u8]) -> Kind {
    match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
        None => Kind::Undecided,
        Some(b'{') => Kind::Json,
        Some(_) => Kind::Other,
    }
}
