//! Server-sent events, framed as they stream by
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream>).
//!
//! An event's data goes to the JSON scanner piece by piece, whatever its size. Lines end with LF,
//! CRLF or CR; several data lines are one document; an event that the body's end cuts off counts
//! as far as it was whole. Beyond the standard: `data: [DONE]` ends a stream, white space behind it
//! or none; an event that is called `error` is one, whatever its data says of it
//! (<https://www.alibabacloud.com/help/model-studio/qwen-api-via-dashscope>: `code` and `message`;
//! <https://cloud.ibm.com/apidocs/watsonx-ai#text-chat-stream>: `errors`), and so is a field `error`
//! (llama.cpp writes errors so in the midst of a stream).

mod outline;

use std::ops::Range;

use memchr::{memchr, memchr2};

use crate::dialect::{Field, Reader};
use crate::json::Scanner;
use crate::scan::Trouble;
use outline::Outline;

/// OpenAI's last word (<https://platform.openai.com/docs/api-reference/chat/streaming>).
const DONE: &[u8] = b"[DONE]";

/// The name of events that tell an error.
const ERROR: &[u8] = b"error";

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// The longest field name that is told apart.
const NAME_BYTES_MAX: usize = 5;

/// Where in a line the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Start,
    Name {
        name: [u8; NAME_BYTES_MAX],
        length: usize,
    },
    /// After the colon: one space may follow.
    Colon {
        is_data: bool,
    },
    /// In an event's name, of which so many bytes have come, all as in [`ERROR`].
    Kind {
        n_same: usize,
    },
    Data,
    Ignored,
}

/// The framing of one body.
#[derive(Debug)]
pub(crate) struct Sse {
    scanner: Scanner<Field>,
    line: Line,
    after_cr: bool,
    /// Bytes of the byte order mark seen; more than its length once none can come any more.
    n_mark: usize,
    /// Nothing of the event at hand has been seen.
    is_between: bool,
    /// Bytes of the event at hand before the byte to come.
    n_event_bytes: usize,
    /// Where in the event its first data begins.
    payload: usize,
    n_data_lines: u32,
    /// Whether the event before brought one document, and that whole.
    was_whole: bool,
    /// Bytes of data so far that read `[DONE]`, withheld from the scanner.
    n_done: usize,
    is_done_possible: bool,
    outline: Outline,
    /// The first run of events of the last bytes that were passed over.
    passed: Range<usize>,
}

impl Sse {
    pub(crate) fn new(reader: &Reader) -> Sse {
        Sse {
            scanner: Scanner::new(reader.schema()),
            line: Line::Start,
            after_cr: false,
            n_mark: 0,
            is_between: true,
            n_event_bytes: 0,
            payload: 0,
            n_data_lines: 0,
            was_whole: false,
            n_done: 0,
            is_done_possible: true,
            outline: Outline::default(),
            passed: 0..0,
        }
    }

    pub(crate) fn push(&mut self, chunk: &[u8], reader: &mut Reader) {
        self.passed = 0..0;
        let mut at = 0;
        while let Some(rest) = chunk.get(at..).filter(|rest| !rest.is_empty()) {
            match self.pass_over(rest, reader) {
                Some(n_bytes) => {
                    self.note_passed(at..at + n_bytes);
                    at += n_bytes;
                }
                None => at += self.event(rest, reader),
            }
        }
    }

    fn note_passed(&mut self, event: Range<usize>) {
        if self.passed.is_empty() {
            self.passed = event;
        } else if self.passed.end == event.start {
            self.passed.end = event.end;
        }
    }

    /// The first run of whole events in the last bytes pushed that say nothing but text.
    pub(crate) fn passed(&self) -> Range<usize> {
        self.passed.clone()
    }

    /// Forgets that run, for a caller whose offsets are others.
    pub(crate) fn forget_passed(&mut self) {
        self.passed = 0..0;
    }

    /// The body has ended, perhaps within an event.
    pub(crate) fn finish(&mut self, reader: &mut Reader) {
        if self.n_data_lines > 0 {
            self.end_data(reader);
            if self.scanner.is_malformed() {
                reader.findings.trouble(Trouble::Malformed);
            }
        }
    }

    /// Passes over events that say nothing new.
    fn pass_over(&mut self, bytes: &[u8], reader: &mut Reader) -> Option<usize> {
        if !self.is_between || self.after_cr {
            return None;
        }
        let run = self.outline.run(bytes)?;
        if run.n_pieces > 0 {
            let (kind, findings) = (self.outline.kind(), &mut reader.findings);
            findings.pieces(kind, run.n_pieces, run.n_text_bytes as u64);
        }
        Some(run.n_bytes)
    }

    /// Scans the bytes up to the end of the event at hand; learns it where that is possible.
    fn event(&mut self, bytes: &[u8], reader: &mut Reader) -> usize {
        if !self.is_between || self.after_cr || !has_whole_event(bytes) {
            return self.lines(bytes, reader);
        }
        let before = reader.findings.relayed;
        reader.findings.is_eventful = false;
        reader.start_outline();
        let n_bytes = self.lines(bytes, reader);
        let gaps = reader.take_outline();
        let brought = reader.findings.relayed.only_growth(&before);
        if let Some(kind) = brought
            && !reader.findings.is_eventful
            && self.is_between
            && self.was_whole
            && self.n_data_lines == 1
        {
            let event = bytes.get(..n_bytes).unwrap_or_default();
            self.outline.learn(event, self.payload, &gaps, kind);
        }
        reader.give_back(gaps);
        n_bytes
    }

    /// Takes bytes up to the end of the event at hand, or all of them.
    fn lines(&mut self, bytes: &[u8], reader: &mut Reader) -> usize {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            let before = at;
            let mut has_ended = false;
            match self.line {
                Line::Start => {
                    has_ended = self.start(*byte, reader);
                    at += 1;
                }
                Line::Name { name, length } => {
                    self.name(*byte, name, length, reader);
                    at += 1;
                }
                Line::Colon { is_data } => at += self.colon(*byte, is_data, reader),
                Line::Kind { n_same } => at = self.kind(bytes, at, n_same, reader),
                Line::Data => at = self.data(bytes, at, reader),
                Line::Ignored => at = self.ignored(bytes, at),
            }
            self.n_event_bytes += at - before;
            if has_ended {
                break;
            }
        }
        at
    }

    /// The first byte of a line; true where it ends the event.
    fn start(&mut self, byte: u8, reader: &mut Reader) -> bool {
        let is_second_half = std::mem::take(&mut self.after_cr) && byte == b'\n';
        if is_second_half || self.is_mark(byte) {
            return false;
        }
        match byte {
            b'\n' | b'\r' => {
                self.after_cr = byte == b'\r';
                return self.end_event(reader);
            }
            b':' => self.line = Line::Ignored,
            _ => {
                self.line = Line::Name {
                    name: [0; NAME_BYTES_MAX],
                    length: 0,
                };
                self.name(byte, [0; NAME_BYTES_MAX], 0, reader);
            }
        }
        self.begin_event();
        false
    }

    fn begin_event(&mut self) {
        if std::mem::take(&mut self.is_between) {
            self.n_event_bytes = 0;
            self.n_data_lines = 0;
            self.payload = 0;
            self.n_done = 0;
            self.is_done_possible = true;
        }
    }

    fn is_mark(&mut self, byte: u8) -> bool {
        if BYTE_ORDER_MARK.get(self.n_mark) == Some(&byte) {
            self.n_mark += 1;
            return true;
        }
        self.n_mark = BYTE_ORDER_MARK.len();
        false
    }

    fn name(&mut self, byte: u8, name: [u8; 5], length: usize, reader: &mut Reader) {
        self.line = match (byte, name.get(..length)) {
            (b'\n' | b'\r', name) => {
                // A line without a colon is a field without a value.
                if name == Some(b"data") {
                    self.begin_data(0, reader);
                }
                self.after_cr = byte == b'\r';
                Line::Start
            }
            (b':', Some(b"data")) => Line::Colon { is_data: true },
            (b':', Some(b"event")) => Line::Kind { n_same: 0 },
            (b':', Some(b"error")) => {
                reader.findings.error();
                Line::Colon { is_data: false }
            }
            (b':', _) => Line::Colon { is_data: false },
            _ => longer(byte, name, length),
        };
    }

    fn colon(&mut self, byte: u8, is_data: bool, reader: &mut Reader) -> usize {
        let n_bytes = usize::from(byte == b' ');
        if !is_data {
            self.line = Line::Ignored;
            return n_bytes;
        }
        self.line = Line::Data;
        self.begin_data(n_bytes, reader);
        n_bytes
    }

    /// The name of the event at hand; one space may stand before it.
    fn kind(&mut self, bytes: &[u8], at: usize, n_same: usize, reader: &mut Reader) -> usize {
        let rest = bytes.get(at..).unwrap_or_default();
        let end = memchr2(b'\n', b'\r', rest);
        let piece = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        let due = ERROR.get(n_same..).unwrap_or_default();
        let name = match n_same {
            0 => piece.trim_ascii_start(),
            _ => piece,
        };
        if !due.starts_with(name) {
            self.line = Line::Ignored;
        } else if end.is_some() && due.len() == name.len() {
            reader.findings.error();
        } else {
            let n_same = n_same + name.len();
            self.line = Line::Kind { n_same };
        }
        self.end_line(rest, end, at)
    }

    /// A data line, whose value begins so many bytes from here.
    fn begin_data(&mut self, n_bytes: usize, reader: &mut Reader) {
        if self.n_data_lines == 0 {
            self.payload = self.n_event_bytes + n_bytes;
        } else {
            self.payload(b"\n", reader);
        }
        self.n_data_lines += 1;
    }

    fn data(&mut self, bytes: &[u8], at: usize, reader: &mut Reader) -> usize {
        let rest = bytes.get(at..).unwrap_or_default();
        let end = memchr2(b'\n', b'\r', rest);
        let piece = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        self.payload(piece, reader);
        self.end_line(rest, end, at)
    }

    fn ignored(&mut self, bytes: &[u8], at: usize) -> usize {
        let rest = bytes.get(at..).unwrap_or_default();
        self.end_line(rest, memchr2(b'\n', b'\r', rest), at)
    }

    fn end_line(&mut self, rest: &[u8], end: Option<usize>, at: usize) -> usize {
        let Some(end) = end else {
            return at + rest.len();
        };
        self.after_cr = rest.get(end) == Some(&b'\r');
        self.line = Line::Start;
        at + end + 1
    }

    /// A piece of data: withheld while it may be `[DONE]`, else scanned.
    fn payload(&mut self, mut piece: &[u8], reader: &mut Reader) {
        while self.is_done_possible {
            let Some(byte) = piece.first() else { return };
            let is_behind = self.n_done == DONE.len() && matches!(byte, b' ' | b'\t');
            if is_behind || DONE.get(self.n_done) == Some(byte) {
                self.n_done += usize::from(!is_behind);
                piece = piece.get(1..).unwrap_or_default();
            } else {
                self.is_done_possible = false;
                let withheld = DONE.get(..self.n_done).unwrap_or_default();
                self.scanner.push(withheld, reader);
            }
        }
        self.scanner.push(piece, reader);
    }

    fn end_data(&mut self, reader: &mut Reader) {
        if self.is_done_possible && self.n_done == DONE.len() {
            reader.findings.is_terminated = true;
            reader.findings.is_eventful = true;
        } else if self.is_done_possible {
            let withheld = DONE.get(..self.n_done).unwrap_or_default();
            self.scanner.push(withheld, reader);
        }
        self.scanner.finish(reader);
    }

    /// A blank line; true where it ends an event.
    fn end_event(&mut self, reader: &mut Reader) -> bool {
        if std::mem::replace(&mut self.is_between, true) {
            return false;
        }
        if self.n_data_lines > 0 {
            // What it said may be taken back by an event that fits the outline of an earlier one.
            self.outline.forget();
            self.end_data(reader);
            let is_done = self.is_done_possible && self.n_done == DONE.len();
            let is_empty = self.is_done_possible && self.n_done == 0;
            let is_whole = self.scanner.is_complete() && !self.scanner.is_malformed();
            if !is_done && !is_empty && !is_whole {
                reader.findings.trouble(Trouble::Malformed);
            }
            self.was_whole = is_whole && self.scanner.n_documents() == 1;
            self.scanner.reset();
        }
        true
    }
}

fn longer(byte: u8, mut name: [u8; NAME_BYTES_MAX], length: usize) -> Line {
    match name.get_mut(length) {
        Some(slot) => {
            *slot = byte;
            Line::Name {
                name,
                length: length + 1,
            }
        }
        None => Line::Ignored,
    }
}

/// Whether an event with LF line ends lies whole in these bytes; others are not learnt.
fn has_whole_event(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(end) = memchr(b'\n', rest) {
        rest = rest.get(end + 1..).unwrap_or_default();
        match rest {
            [b'\n', ..] | [b'\r', b'\n', ..] => return true,
            _ => {}
        }
    }
    false
}
