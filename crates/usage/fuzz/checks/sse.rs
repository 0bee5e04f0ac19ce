//! Server-sent events: a slow reading of the whole stream finds the documents that the scanner saw.

use tollmesh_usage::Scan;

use super::Input;
use super::read::{self, CALLS, CONTENT_TYPES};

/// What a slow reading finds between two blank lines.
#[derive(Default)]
struct Event {
    data: Vec<Vec<u8>>,
    has_error: bool,
    /// Whether the blank line came.
    is_ended: bool,
}

/// Checks one input.
pub fn check(input: &[u8]) {
    let Some(input) = Input::new(input) else {
        return;
    };
    let target = read::target(usize::from(input.choice) % CALLS.len());
    let scan = |bytes: &[u8], n_chunk: usize| {
        read::scan(&target, CONTENT_TYPES[1], None, bytes.chunks(n_chunk))
    };
    let (has_content, whole) = scan(input.body, input.body.len().max(1));
    let cut_up = scan(input.body, input.chunk_bytes);
    assert_eq!(cut_up, (has_content, whole.clone()), "chunks show");
    let Some(stream) = without_blanks(input.body) else {
        return;
    };
    let events = events(stream);
    let (same_content, same) = scan(&rewritten(&events), usize::MAX);
    assert_eq!(same_content, has_content, "the line ends show");
    assert_eq!(unmeasured(same), unmeasured(whole.clone()));
    let documents: Vec<Vec<u8>> = events.iter().filter_map(Event::document).collect();
    let is_comparable = !events.iter().any(|event| event.has_error);
    if is_comparable && read::are_documents(&documents) {
        assert_eq!(read::scan_lines(&target, &documents), read::said(whole));
    }
}

/// The stream from its first field on; `None` where it is JSON, whatever was promised.
fn without_blanks(body: &[u8]) -> Option<&[u8]> {
    let is_blank = |byte: &u8| b" \t\r\n\xEF\xBB\xBF".contains(byte);
    let first = body.iter().position(|byte| !is_blank(byte))?;
    let stream = &body[first..];
    (!matches!(stream[0], b'{' | b'[')).then_some(stream)
}

fn unmeasured(mut scan: Scan) -> Scan {
    scan.relayed.body_bytes = 0;
    scan
}

/// The events of a stream, as the HTML standard has them, and the one that the end cut off.
fn events(stream: &[u8]) -> Vec<Event> {
    let mut events = vec![Event::default()];
    for (line, is_ended) in lines(stream) {
        let event = events.last_mut().expect("there is always one");
        if line.is_empty() && is_ended {
            event.is_ended = true;
            events.push(Event::default());
            continue;
        }
        event.has_error |= line.starts_with(b"error:");
        // A line that is cut before its value says nothing.
        let (name, value) = match line.iter().position(|byte| *byte == b':') {
            Some(colon) if is_ended || colon + 1 < line.len() => {
                (&line[..colon], &line[colon + 1..])
            }
            None if is_ended => (line, &b""[..]),
            _ => continue,
        };
        // Names of one event may be several; any of them says so.
        event.has_error |= is_ended && name == b"event" && value.trim_ascii_start() == b"error";
        if name == b"data" {
            let value = value.strip_prefix(b" ").unwrap_or(value);
            event.data.push(value.to_vec());
        }
    }
    events
}

/// The lines of a stream without their ends; the last of them may have none.
fn lines(stream: &[u8]) -> Vec<(&[u8], bool)> {
    let mut lines = Vec::new();
    let mut rest = stream;
    while let Some(end) = rest.iter().position(|byte| b"\r\n".contains(byte)) {
        lines.push((&rest[..end], true));
        let n_end = if rest[end..].starts_with(b"\r\n") {
            2
        } else {
            1
        };
        rest = &rest[end + n_end..];
    }
    lines.push((rest, false));
    lines
}

/// The same events in the plainest form there is.
fn rewritten(events: &[Event]) -> Vec<u8> {
    // A comment, so that an empty stream is one of events too.
    let mut stream = b":\n".to_vec();
    for event in events {
        if event.has_error {
            stream.extend(b"error: \n");
        }
        let lines = event
            .data
            .iter()
            .map(|line| [b"data: ", &line[..]].concat());
        stream.extend(lines.collect::<Vec<_>>().join(&b'\n'));
        if event.is_ended {
            stream.extend(b"\n\n");
        }
    }
    stream
}

impl Event {
    /// The document that the event brings, if it is one.
    fn document(&self) -> Option<Vec<u8>> {
        let document = self.data.join(&b'\n');
        let is_none = document.is_empty() || document == b"[DONE]";
        (!is_none).then_some(document)
    }
}
