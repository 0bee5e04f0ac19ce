//! AWS's binary event stream, framed as it streams by
//! (<https://docs.aws.amazon.com/lexv2/latest/dg/event-stream-encoding.html>).
//!
//! A message is a prelude (total length, header length, checksum), headers, a payload and a
//! checksum. Payloads go to the JSON scanner piece by piece. InvokeModel wraps each document as
//! base64 in `{"bytes":"…"}`; the wrapping is undone on the way.

mod wrapped;

use crc32fast::Hasher;

use crate::dialect::{Field, Reader};
use crate::json::Scanner;
use crate::scan::Trouble;
use wrapped::Unwrapper;

const PRELUDE_BYTES: usize = 12;
const CHECKSUM_BYTES: usize = 4;

/// The bytes of a message's headers that are looked at; real ones have about a hundred.
const HEADER_BYTES_MAX: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Prelude,
    Headers {
        n_left: usize,
    },
    Payload {
        n_left: usize,
    },
    Checksum,
    /// The framing is lost: nothing more is read.
    Lost,
}

/// The framing of one body.
#[derive(Debug)]
pub(crate) struct EventStream {
    scanner: Scanner<Field>,
    unwrapper: Option<Unwrapper>,
    stage: Stage,
    /// Prelude, headers or checksum, as far as they have come.
    buffer: Vec<u8>,
    n_payload: usize,
    checksum: Hasher,
}

impl EventStream {
    pub(crate) fn new(reader: &Reader, is_wrapped: bool) -> EventStream {
        EventStream {
            scanner: Scanner::new(reader.schema()),
            unwrapper: is_wrapped.then(Unwrapper::default),
            stage: Stage::Prelude,
            buffer: Vec::new(),
            n_payload: 0,
            checksum: Hasher::new(),
        }
    }

    pub(crate) fn push(&mut self, chunk: &[u8], reader: &mut Reader) {
        let mut rest = chunk;
        while !rest.is_empty() {
            let n_bytes = match self.stage {
                Stage::Prelude => self.prelude(rest, reader),
                Stage::Headers { n_left } => self.headers(rest, n_left, reader),
                Stage::Payload { n_left } => self.payload(rest, n_left, reader),
                Stage::Checksum => self.checksum(rest, reader),
                Stage::Lost => return,
            };
            rest = rest.get(n_bytes..).unwrap_or_default();
        }
    }

    /// Whether the body ended between two messages.
    pub(crate) fn is_between(&self) -> bool {
        self.stage == Stage::Prelude && self.buffer.is_empty()
    }

    fn take(&mut self, bytes: &[u8], n_wanted: usize) -> usize {
        let n_bytes = bytes.len().min(n_wanted - self.buffer.len());
        let piece = bytes.get(..n_bytes).unwrap_or_default();
        self.buffer.extend_from_slice(piece);
        n_bytes
    }

    fn lose(&mut self, reader: &mut Reader) {
        reader.findings.trouble(Trouble::Malformed);
        self.stage = Stage::Lost;
    }

    fn prelude(&mut self, bytes: &[u8], reader: &mut Reader) -> usize {
        let n_bytes = self.take(bytes, PRELUDE_BYTES);
        let (Some(total), Some(headers), Some(stated), Some(checked)) = (
            number(&self.buffer, 0),
            number(&self.buffer, 4),
            number(&self.buffer, 8),
            self.buffer.get(..8),
        ) else {
            return n_bytes;
        };
        let n_payload = total
            .checked_sub(PRELUDE_BYTES + CHECKSUM_BYTES)
            .and_then(|n| n.checked_sub(headers));
        match n_payload {
            Some(n_payload) if hash(checked) == stated => {
                self.checksum = Hasher::new();
                self.checksum.update(&self.buffer);
                self.n_payload = n_payload;
                self.buffer.clear();
                self.scanner.reset();
                self.stage = match headers {
                    0 => self.begin_payload(),
                    n_left => Stage::Headers { n_left },
                };
                if self.stage == (Stage::Payload { n_left: 0 }) {
                    self.end_payload(reader);
                }
            }
            _ => self.lose(reader),
        }
        n_bytes
    }

    fn headers(&mut self, bytes: &[u8], n_left: usize, reader: &mut Reader) -> usize {
        let piece = bytes.get(..n_left).unwrap_or(bytes);
        self.checksum.update(piece);
        let n_kept = piece
            .len()
            .min(HEADER_BYTES_MAX.saturating_sub(self.buffer.len()));
        self.buffer
            .extend_from_slice(piece.get(..n_kept).unwrap_or_default());
        if piece.len() < n_left {
            self.stage = Stage::Headers {
                n_left: n_left - piece.len(),
            };
            return piece.len();
        }
        if is_exception(&self.buffer) {
            reader.findings.error();
        }
        self.buffer.clear();
        self.stage = self.begin_payload();
        if self.n_payload == 0 {
            self.end_payload(reader);
        }
        piece.len()
    }

    fn begin_payload(&mut self) -> Stage {
        if let Some(unwrapper) = &mut self.unwrapper {
            *unwrapper = Unwrapper::default();
        }
        Stage::Payload {
            n_left: self.n_payload,
        }
    }

    fn payload(&mut self, bytes: &[u8], n_left: usize, reader: &mut Reader) -> usize {
        let piece = bytes.get(..n_left).unwrap_or(bytes);
        self.checksum.update(piece);
        match &mut self.unwrapper {
            None => self.scanner.push(piece, reader),
            Some(unwrapper) => {
                let scanner = &mut self.scanner;
                unwrapper.push(piece, |inner| scanner.push(inner, reader));
            }
        }
        self.stage = Stage::Payload {
            n_left: n_left - piece.len(),
        };
        if piece.len() == n_left {
            self.end_payload(reader);
        }
        piece.len()
    }

    fn end_payload(&mut self, reader: &mut Reader) {
        self.scanner.finish(reader);
        self.stage = Stage::Checksum;
    }

    fn checksum(&mut self, bytes: &[u8], reader: &mut Reader) -> usize {
        let n_bytes = self.take(bytes, CHECKSUM_BYTES);
        let Some(stated) = number(&self.buffer, 0) else {
            return n_bytes;
        };
        let computed = std::mem::take(&mut self.checksum).finalize();
        if usize::try_from(computed).ok() != Some(stated) {
            reader.findings.trouble(Trouble::Malformed);
        }
        self.buffer.clear();
        self.stage = Stage::Prelude;
        n_bytes
    }
}

fn hash(bytes: &[u8]) -> usize {
    usize::try_from(crc32fast::hash(bytes)).unwrap_or(usize::MAX)
}

/// Four bytes, the most significant first.
fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let four = bytes.get(at..)?.first_chunk::<4>()?;
    usize::try_from(u32::from_be_bytes(*four)).ok()
}

/// Whether the headers say `:message-type` `exception` or `error`: name length, name, type 7
/// (string), value length, value.
fn is_exception(headers: &[u8]) -> bool {
    let mut rest = headers;
    while let Some((name, kind, value, later)) = header(rest) {
        if name == b":message-type" && kind == STRING {
            return value != b"event";
        }
        rest = later;
    }
    false
}

const STRING: u8 = 7;

/// The first header: name, type, value, and what follows.
fn header(bytes: &[u8]) -> Option<(&[u8], u8, &[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(*length))?;
    let (kind, rest) = rest.split_first()?;
    let (length, rest) = match kind {
        0 | 1 => (0, rest),
        2 => (1, rest),
        3 => (2, rest),
        4 => (4, rest),
        5 | 8 => (8, rest),
        6 | 7 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        9 => (16, rest),
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(length)?;
    Some((name, *kind, value, rest))
}
