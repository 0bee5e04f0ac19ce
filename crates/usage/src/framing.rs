//! How a body is cut up: which framing it has, decided by its header and its first byte.

use crate::dialect::{Field, Reader};
use crate::eventstream::EventStream;
use crate::json::Scanner;
use crate::scan::Trouble;
use crate::sse::Sse;

/// What a `content-type` promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    /// `text/event-stream`
    Events,
    /// `application/vnd.amazon.eventstream`
    Messages,
    /// JSON, or nothing that can be relied on.
    Anything,
    /// Text, audio, images: nothing to read, unless it is JSON after all.
    Other,
}

/// The framing of one body.
#[derive(Debug)]
pub(crate) enum Framing {
    /// No byte but white space has come.
    Undecided { promise: Promise },
    /// One JSON document, one after another (NDJSON), or an array of chunks.
    Json(Box<Scanner<Field>>),
    /// Server-sent events.
    Sse(Box<Sse>),
    /// AWS's binary messages.
    EventStream(Box<EventStream>),
    /// Nothing that could be read: speech, images, plain text.
    Opaque,
}

impl Framing {
    /// The framing of a body of that type. Some servers send their events as `text/plain`: where
    /// events were asked for, text may be events.
    pub(crate) fn new(content_type: Option<&str>, is_asked_to_stream: bool) -> Framing {
        let kind = content_type
            .and_then(|value| value.split(';').next())
            .map(|kind| kind.trim().to_ascii_lowercase());
        let promise = match kind.as_deref() {
            Some("text/event-stream") => Promise::Events,
            Some("application/vnd.amazon.eventstream") => Promise::Messages,
            None | Some("" | "application/octet-stream") => Promise::Anything,
            Some(kind) if kind.contains("json") => Promise::Anything,
            Some(kind) if kind.starts_with("text/plain") && is_asked_to_stream => Promise::Anything,
            Some(_) => Promise::Other,
        };
        Framing::Undecided { promise }
    }

    pub(crate) fn push(&mut self, bytes: &[u8], reader: &mut Reader) {
        let mut bytes = bytes;
        let n_bytes = bytes.len();
        if let Framing::Undecided { promise } = self {
            let is_blank = |b: &u8| matches!(b, b' ' | b'\t' | b'\n' | b'\r' | 0xEF | 0xBB | 0xBF);
            let Some(first) = bytes.iter().position(|b| !is_blank(b)) else {
                return;
            };
            bytes = bytes.get(first..).unwrap_or_default();
            *self = decided(*promise, bytes.first().copied().unwrap_or(0), reader);
        }
        match self {
            Framing::Json(scanner) => scanner.push(bytes, reader),
            Framing::Sse(sse) => {
                sse.push(bytes, reader);
                if bytes.len() < n_bytes {
                    sse.forget_passed();
                }
            }
            Framing::EventStream(stream) => stream.push(bytes, reader),
            Framing::Undecided { .. } | Framing::Opaque => {}
        }
    }

    pub(crate) fn finish(&mut self, reader: &mut Reader) {
        match self {
            Framing::Json(scanner) => {
                scanner.finish(reader);
                if scanner.is_malformed() {
                    reader.findings.trouble(Trouble::Malformed);
                }
            }
            Framing::Sse(sse) => sse.finish(reader),
            Framing::EventStream(_) | Framing::Undecided { .. } | Framing::Opaque => {}
        }
    }
}

/// Brackets begin JSON whatever was promised (errors come so to those who asked for events). A
/// field name or a comment begins events where nothing else was promised.
fn decided(promise: Promise, first: u8, reader: &Reader) -> Framing {
    match (first, promise) {
        (b'{' | b'[', _) => Framing::Json(Box::new(Scanner::new(reader.schema()))),
        (_, Promise::Messages) | (0, Promise::Anything) => {
            Framing::EventStream(Box::new(EventStream::new(reader, reader.is_wrapped())))
        }
        (_, Promise::Events) | (b'd' | b'e' | b'i' | b'r' | b':', Promise::Anything) => {
            Framing::Sse(Box::new(Sse::new(reader)))
        }
        _ => Framing::Opaque,
    }
}
