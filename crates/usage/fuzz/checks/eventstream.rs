//! AWS's messages: what a slow reading of the whole finds in them is what the scanner saw.
//!
//! Most inputs are repaired first: their checksums are put right, so that a fuzzer gets beyond
//! them. The rest stay as they are, for the checksums' own sake.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;
use tollmesh_usage::{Api, Scan, Target};

use super::Input;
use super::read::{self, CONTENT_TYPES};

/// The headers that are looked at, in bytes.
const HEADER_BYTES_MAX: usize = 1024;

const APIS: [Api; 2] = [Api::BedrockConverseStream, Api::BedrockInvokeStream];

/// What a slow reading finds.
#[derive(Default)]
struct Messages<'a> {
    /// Headers and payload of each message that came whole.
    whole: Vec<(&'a [u8], &'a [u8])>,
    /// A message was cut, by the end of the body.
    is_cut: bool,
    /// A prelude was wrong, so that nothing after it can be read.
    is_lost: bool,
    /// A message had another checksum than it said.
    is_damaged: bool,
}

/// Checks one input.
pub fn check(input: &[u8]) {
    let Some(input) = Input::new(input) else {
        return;
    };
    let api = APIS[usize::from(input.choice) % APIS.len()];
    let call = read::CALLS.iter().position(|(_, _, of)| *of == api);
    let target = read::target(call.expect("a call of each"));
    let body = match input.choice & 0x0E {
        0 => input.body.to_vec(),
        _ => repaired(input.body),
    };
    let scan = |n_chunk| read::scan(&target, CONTENT_TYPES[3], None, body.chunks(n_chunk));
    let (has_content, whole) = scan(body.len().max(1));
    assert_eq!(
        scan(input.chunk_bytes),
        (has_content, whole.clone()),
        "chunks show"
    );
    // Brackets begin JSON, and white space before it counts as nothing.
    let is_json_or_blank = |byte: &u8| b" \t\r\n\xEF\xBB\xBF{[".contains(byte);
    if body.first().is_none_or(is_json_or_blank) {
        return;
    }
    let messages = Messages::read(&body);
    if messages.is_lost || messages.is_damaged {
        assert!(whole.trouble.is_some(), "damage went unnoticed");
    }
    if messages.is_lost || messages.is_cut {
        assert_ne!(whole.complete, Some(true));
        return;
    }
    compare(&messages, &target, whole);
}

/// A body that is whole scans like its payloads, one a line.
fn compare(messages: &Messages<'_>, target: &Target, whole: Scan) {
    let headers = || messages.whole.iter().map(|(headers, _)| *headers);
    if headers().any(|headers| headers.len() > HEADER_BYTES_MAX) {
        return;
    }
    let is_failed = headers().any(is_exception);
    assert!(whole.is_error || !is_failed, "an exception went unnoticed");
    let payloads = messages.whole.iter().map(|(_, payload)| *payload);
    let documents: Option<Vec<Vec<u8>>> = match target.api {
        Api::BedrockInvokeStream => payloads.map(unwrapped).collect(),
        _ => Some(payloads.filter(|p| !p.is_empty()).map(Vec::from).collect()),
    };
    if let Some(documents) = documents.filter(|documents| read::are_documents(documents)) {
        let mut expected = read::scan_lines(target, &documents);
        expected.is_error |= is_failed;
        assert_eq!(read::said(whole), expected);
    }
}

/// The bytes as messages whose checksums are right, as far as their lengths allow.
fn repaired(bytes: &[u8]) -> Vec<u8> {
    let mut body = bytes.to_vec();
    let mut at = 0;
    while let Some((total, n_headers)) = lengths(&body[at..]) {
        let prelude = crc32fast::hash(&body[at..at + 8]).to_be_bytes();
        body[at + 8..at + 12].copy_from_slice(&prelude);
        if total < 16 || n_headers > total - 16 || total > body.len() - at {
            break;
        }
        let end = at + total;
        let message = crc32fast::hash(&body[at..end - 4]).to_be_bytes();
        body[end - 4..end].copy_from_slice(&message);
        at = end;
    }
    body
}

/// Total and header length of the prelude that the bytes begin with.
fn lengths(bytes: &[u8]) -> Option<(usize, usize)> {
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four"));
    (bytes.len() >= 12).then(|| (number(0) as usize, number(4) as usize))
}

impl Messages<'_> {
    fn read(body: &[u8]) -> Messages<'_> {
        let mut messages = Messages::default();
        let mut rest = body;
        while !rest.is_empty() {
            let Some((total, n_headers)) = lengths(rest) else {
                messages.is_cut = true;
                break;
            };
            let is_right = crc32fast::hash(&rest[..8]).to_be_bytes() == rest[8..12];
            if !is_right || total < 16 || n_headers > total - 16 {
                messages.is_lost = true;
                break;
            }
            if total > rest.len() {
                messages.is_cut = true;
                break;
            }
            let (message, later) = rest.split_at(total);
            let (content, checksum) = message.split_at(total - 4);
            messages.is_damaged |= crc32fast::hash(content).to_be_bytes() != *checksum;
            messages.whole.push(content[12..].split_at(n_headers));
            rest = later;
        }
        messages
    }
}

/// Whether the first header of that name says that this is no event.
fn is_exception(mut headers: &[u8]) -> bool {
    loop {
        let Some((name, rest)) = sized(headers, 1) else {
            return false;
        };
        let Some((kind, rest)) = rest.split_first() else {
            return false;
        };
        let n_fixed = [0, 0, 1, 2, 4, 8, 0, 0, 8, 16];
        let value = match kind {
            6 | 7 => sized(rest, 2),
            _ => n_fixed
                .get(usize::from(*kind))
                .and_then(|n| rest.split_at_checked(*n)),
        };
        let Some((value, rest)) = value else {
            return false;
        };
        if name == b":message-type" && *kind == 7 {
            return value != b"event";
        }
        headers = rest;
    }
}

/// The bytes whose length stands before them, and those behind.
fn sized(bytes: &[u8], n_length: usize) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_at_checked(n_length)?;
    let length = length.iter().fold(0, |n, byte| n << 8 | usize::from(*byte));
    rest.split_at_checked(length)
}

/// The document in `{"bytes":"…","p":"…"}`; `None` where the payload is of another form.
fn unwrapped(payload: &[u8]) -> Option<Vec<u8>> {
    let is_plain = |text: &str| !text.contains(['\\', '"']);
    let Ok(Json::Object(members)) = serde_json::from_slice(payload) else {
        return None;
    };
    let padding = members.get("p").map_or(Some(""), Json::as_str)?;
    let bytes = members.get("bytes")?.as_str()?;
    let has_others = members.keys().any(|key| key != "bytes" && key != "p");
    let is_once = payload
        .windows(7)
        .filter(|word| word == b"\"bytes\"")
        .count()
        == 1;
    if has_others
        || !is_once
        || padding == "bytes"
        || !is_plain(padding)
        || payload.contains(&b'\\')
    {
        return None;
    }
    STANDARD.decode(bytes).ok()
}
