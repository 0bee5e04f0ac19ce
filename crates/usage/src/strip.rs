//! Cuts the usage event that we asked for out of a stream, and nothing else.
//!
//! A chat completion that is asked for `stream_options.include_usage` sends one event more than
//! the app expects: `choices` is an empty array and `usage` is not null, before `data: [DONE]`
//! (<https://platform.openai.com/docs/api-reference/chat/create#chat-create-stream_options>). The
//! other events gain at most a `"usage":null`; they are relayed as they are.
//!
//! Lines and events are those of the HTML standard
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream>): a
//! line ends in LF, CR or CRLF, an event in an empty line. Comments before an event do not belong
//! to it: they are relayed at once, and stay.
//!
//! What is cut depends on the bytes alone, never on where they were cut into chunks. For whoever
//! changes this file: every test of an event's bytes happens at the end of a line, and a test that
//! also happens at the end of a chunk may only rule out what the end of the line would rule out
//! too.

mod relay;
mod usage_event;

use std::mem;
use std::ops::Range;

use memchr::memchr2;
use relay::Relay;
use usage_event::is_usage_event;

/// The mark that a stream may begin with; it is no part of the first line.
const BYTE_ORDER_MARK: [u8; 3] = [0xEF, 0xBB, 0xBF];

/// The data of the last event.
const END_MARK: &[u8] = b"[DONE]";

/// Copies an SSE body, leaving out the extra usage event of a chat completion.
///
/// Holds back at most one incomplete event of at most [`EventCutter::HELD_BYTES_MAX`] bytes.
#[derive(Default)]
pub struct EventCutter {
    stage: Stage,
    /// The bytes of an incomplete event that came in earlier chunks.
    held: Vec<u8>,
    /// Where the current line begins, in bytes of the event.
    line_from: usize,
    /// Whether the current line has a byte.
    line_has_bytes: bool,
    /// Whether the event has a data line with something in it.
    event_has_data: bool,
    /// Whether the last byte was a CR: a LF that follows belongs to the same line end.
    is_after_cr: bool,
    /// Whether that LF would end an event that was cut.
    cuts_line_feed: bool,
}

/// Where in the stream the next byte is.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    /// At its very start.
    #[default]
    Start,
    /// Behind that many bytes of the byte order mark.
    Mark(usize),
    /// At the start of a line, outside of any event.
    Between,
    /// In a comment line outside of any event.
    Comment,
    /// In an event that may be the one.
    Event,
    /// In an event that is not the one.
    Passing,
    /// Behind `data: [DONE]`.
    Done,
}

// === impl EventCutter ===

impl EventCutter {
    /// The most bytes ever held back; a longer event is passed on as it is. A usage event has a
    /// few hundred bytes, a kilobyte with every detail that hosts are known to add.
    pub const HELD_BYTES_MAX: usize = 4096;

    /// A cutter at the start of a body.
    pub fn new() -> EventCutter {
        EventCutter::default()
    }

    /// Takes the next bytes; `Some` are the bytes to send in their place. At `end_of_stream`
    /// nothing stays held.
    pub fn push(&mut self, chunk: &[u8], end_of_stream: bool) -> Option<Vec<u8>> {
        self.push_past(chunk, 0..0, end_of_stream)
    }

    /// The same, where a scanner of the same chunk has told which events say nothing but text
    /// ([`UsageScanner::plain_events`](crate::UsageScanner::plain_events)): they are not looked at.
    pub fn push_past(
        &mut self,
        chunk: &[u8],
        plain: Range<usize>,
        end_of_stream: bool,
    ) -> Option<Vec<u8>> {
        let mut relay = Relay::new(chunk, self.held.len());
        let mut at = 0;
        while let Some(&byte) = chunk.get(at) {
            if mem::take(&mut self.is_after_cr) && byte == b'\n' {
                at += 1;
                self.take_line_feed(at, &mut relay);
                continue;
            }
            match self.stage {
                Stage::Done => break,
                Stage::Start => self.enter_mark_or_line(byte),
                Stage::Mark(seen) => at += self.match_mark(seen, byte),
                Stage::Between if at == plain.start && at < plain.end => {
                    self.cuts_line_feed = false;
                    self.is_after_cr = chunk.get(plain.end - 1) == Some(&b'\r');
                    at = plain.end;
                }
                Stage::Between => at += self.enter_line(byte, at, &mut relay),
                Stage::Comment | Stage::Event | Stage::Passing => {
                    at = self.take_line(at, &mut relay);
                }
            }
        }
        if self.stage == Stage::Event {
            self.take_tail(end_of_stream, &mut relay);
        }
        relay.finish()
    }

    /// The second half of a CRLF, which ends before `end`.
    fn take_line_feed(&mut self, end: usize, relay: &mut Relay<'_>) {
        match self.stage {
            Stage::Between if self.cuts_line_feed => relay.leave_out(end - 1, end),
            Stage::Event => self.line_from += 1,
            _ => {}
        }
    }

    fn enter_mark_or_line(&mut self, byte: u8) {
        let is_mark = BYTE_ORDER_MARK.first() == Some(&byte);
        self.stage = if is_mark {
            Stage::Mark(0)
        } else {
            Stage::Between
        };
    }

    /// How many bytes were taken: the marks' own, which pass.
    fn match_mark(&mut self, seen: usize, byte: u8) -> usize {
        if BYTE_ORDER_MARK.get(seen) != Some(&byte) {
            // Some other text began alike; that part of the line is gone, so the event passes.
            self.line_has_bytes = true;
            self.stage = Stage::Passing;
            return 0;
        }
        let seen = seen + 1;
        self.stage = if seen < BYTE_ORDER_MARK.len() {
            Stage::Mark(seen)
        } else {
            Stage::Between
        };
        1
    }

    /// Decides by its first byte what a line outside of events is; how many bytes were taken.
    fn enter_line(&mut self, byte: u8, at: usize, relay: &mut Relay<'_>) -> usize {
        self.cuts_line_feed = false;
        match byte {
            b'\n' | b'\r' => {
                self.is_after_cr = byte == b'\r';
                1
            }
            b':' => {
                self.stage = Stage::Comment;
                0
            }
            _ => {
                self.stage = Stage::Event;
                self.line_from = 0;
                self.event_has_data = false;
                relay.event_from = at;
                0
            }
        }
    }

    /// Goes to the end of the line, or of the chunk; returns where that is.
    fn take_line(&mut self, at: usize, relay: &mut Relay<'_>) -> usize {
        let rest = relay.chunk.get(at..).unwrap_or_default();
        let Some(n_bytes) = memchr2(b'\n', b'\r', rest) else {
            self.line_has_bytes = true;
            return relay.chunk.len();
        };
        let end = at + n_bytes + 1;
        self.is_after_cr = rest.get(n_bytes) == Some(&b'\r');
        let is_blank = n_bytes == 0 && !self.line_has_bytes;
        self.line_has_bytes = false;
        match self.stage {
            Stage::Comment => self.stage = Stage::Between,
            Stage::Passing if is_blank => self.stage = Stage::Between,
            Stage::Event if is_blank => self.end_event(end, relay),
            Stage::Event => self.end_line(end, relay),
            _ => {}
        }
        end
    }

    /// A line of the event ended before `end`.
    fn end_line(&mut self, end: usize, relay: &mut Relay<'_>) {
        let event = relay.event(&mut self.held, end);
        let content = data_content(event, self.line_from);
        self.stage = judge(event, content.filter(|_| !self.event_has_data));
        self.event_has_data |= content.is_some();
        self.line_from = event.len();
        if self.stage != Stage::Event {
            relay.release(&mut self.held, end);
        }
    }

    /// The event ended before `end`, or the stream did: now it is cut or not.
    fn end_event(&mut self, end: usize, relay: &mut Relay<'_>) {
        self.stage = Stage::Between;
        let event = relay.event(&mut self.held, end);
        let is_cut = event.len() <= Self::HELD_BYTES_MAX && is_usage_event(event);
        self.cuts_line_feed = is_cut;
        if is_cut {
            self.held.clear();
            relay.leave_out(relay.event_from, end);
        } else {
            relay.release(&mut self.held, end);
        }
    }

    /// The chunk ended within an event: holds it, unless it cannot be the one.
    fn take_tail(&mut self, end_of_stream: bool, relay: &mut Relay<'_>) {
        let end = relay.chunk.len();
        if end_of_stream {
            self.end_event(end, relay);
            return;
        }
        let event = relay.event(&mut self.held, end);
        let content = data_content(event, self.line_from);
        self.stage = judge(event, content.filter(|_| !self.event_has_data));
        if self.stage == Stage::Event {
            relay.hold(&mut self.held, end);
        } else {
            relay.release(&mut self.held, end);
        }
    }
}

/// What the event is, so far, by its first data.
fn judge(event: &[u8], first_data: Option<&[u8]>) -> Stage {
    match first_data {
        Some(data) if data.starts_with(END_MARK) => Stage::Done,
        _ if event.len() > EventCutter::HELD_BYTES_MAX => Stage::Passing,
        Some(data) if data.starts_with(b"{") || END_MARK.starts_with(data) => Stage::Event,
        Some(_) => Stage::Passing,
        None => Stage::Event,
    }
}

/// What the line from there on carries as data, without the white space before it and without
/// what is too far behind to be held; `None` for other lines and for lines that carry nothing.
fn data_content(event: &[u8], line_from: usize) -> Option<&[u8]> {
    let kept = event.get(..EventCutter::HELD_BYTES_MAX).unwrap_or(event);
    let line = kept.get(line_from..)?;
    let content = line.strip_prefix(b"data:")?.trim_ascii_start();
    (!content.is_empty()).then_some(content)
}

#[cfg(test)]
mod tests;
