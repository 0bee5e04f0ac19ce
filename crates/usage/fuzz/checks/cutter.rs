//! Streams: what is left of one is what a slow reading of the whole leaves of it.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use tollmesh_usage::EventCutter;

use super::Input;

/// Checks one input.
pub fn check(input: &[u8]) {
    let Some(input) = Input::new(input) else {
        return;
    };
    // The reading below takes no key with half a surrogate pair, and no byte order mark.
    let is_odd = input.body.windows(2).any(|w| w == b"\\u" || w[0] == 0xEF);
    let sent = relay([input.body].into_iter(), false);
    assert_eq!(relay(input.chunks(), true), sent, "chunks show");
    if !is_odd {
        assert_eq!(sent, reference(input.body));
    }
}

fn relay<'a>(chunks: impl Iterator<Item = &'a [u8]>, ends_apart: bool) -> Vec<u8> {
    let mut cutter = EventCutter::new();
    let mut sent = Vec::new();
    let mut n_bytes = 0;
    for chunk in chunks {
        n_bytes += chunk.len();
        sent.extend(cutter.push(chunk, !ends_apart).unwrap_or(chunk.to_vec()));
    }
    if ends_apart {
        sent.extend(cutter.push(b"", true).unwrap_or_default());
    }
    assert!(sent.len() <= n_bytes);
    sent
}

/// What must be left of the stream, read as a whole, line by line.
pub fn reference(stream: &[u8]) -> Vec<u8> {
    let mut sent = Vec::new();
    let mut event: Vec<&[u8]> = Vec::new();
    let mut rest = stream;
    while !rest.is_empty() {
        let n_text = rest.iter().position(|b| b"\r\n".contains(b));
        let text = n_text.unwrap_or(rest.len());
        let is_crlf = rest[text..].starts_with(b"\r\n");
        let n_end = usize::from(n_text.is_some()) + usize::from(is_crlf);
        let (line, behind) = rest.split_at(text + n_end);
        rest = behind;
        if event.is_empty() && (text == 0 || line[0] == b':') {
            sent.extend(line);
            continue;
        }
        event.push(line);
        let n_seen = event.concat().len() - usize::from(is_crlf);
        if is_end_mark(&event) {
            break;
        }
        if text == 0 || rest.is_empty() {
            if n_seen > EventCutter::HELD_BYTES_MAX || !is_usage_event(&event) {
                sent.extend(event.concat());
            }
            event.clear();
        }
    }
    sent.extend(event.concat());
    sent.extend(rest);
    sent
}

/// Whether the last line is the event's first with data, and that the mark of the end.
fn is_end_mark(event: &[&[u8]]) -> bool {
    let (last, before) = event.split_last().expect("an event has a line");
    let data = data_of(&[last]).trim_ascii_start().to_vec();
    let n_seen = event.concat().len() - data.len() + "[DONE]".len();
    data.starts_with(b"[DONE]")
        && data_of(before).is_empty()
        && n_seen <= EventCutter::HELD_BYTES_MAX
}

fn data_of(event: &[&[u8]]) -> Vec<u8> {
    let data = event.iter().filter_map(|line| line.strip_prefix(b"data:"));
    let data: Vec<&[u8]> = data.filter(|d| !d.trim_ascii().is_empty()).collect();
    data.join(&b'\n')
}

fn is_usage_event(event: &[&[u8]]) -> bool {
    let data = data_of(event);
    let Ok(members) = serde_json::from_slice::<BTreeMap<String, Box<RawValue>>>(&data) else {
        return false;
    };
    let value = |key: &str| members.get(key).map_or("", |value| value.get());
    let choices = value("choices")
        .strip_prefix('[')
        .and_then(|v| v.strip_suffix(']'));
    choices.is_some_and(|items| items.trim_ascii().is_empty())
        && value("usage").starts_with('{')
        && matches!(value("error"), "" | "null")
}
