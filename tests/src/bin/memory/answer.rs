//! The answers that are sent: an opening, a piece again and again, a closing.

use flate2::{Compress, Compression, Crc, FlushCompress};

/// Tokens that every answer reports.
pub const INPUT: u64 = 812;
/// Tokens that every answer reports.
pub const OUTPUT: u64 = 498;

/// Bytes of an opening, before encoding: more than any limit of a stream that is not a window.
const OPENING_BYTES: usize = 24 << 10;
/// Bytes of a piece, before encoding.
const PIECE_BYTES: usize = 64 << 10;
/// Text in one event.
const TEXT_BYTES: usize = 60;

/// One answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its name in the tables.
    pub name: &'static str,
    /// The authority that is asked.
    pub host: &'static str,
    /// The path that is asked.
    pub path: &'static str,
    /// The request's body.
    pub ask: &'static str,
    content_type: &'static str,
    encoding: Option<&'static str>,
    /// What comes first; it ends in the middle of something.
    pub opening: Vec<u8>,
    /// What may come many times.
    pub piece: Vec<u8>,
    /// How many times it comes.
    pub n_pieces: u64,
    /// What comes last, usage in it.
    pub closing: Vec<u8>,
}

impl Answer {
    /// A chat completion in one document, most of it one string.
    pub fn json() -> Answer {
        let mut words = Words::new();
        let fixed = r#"{"id":"c-1","model":"gpt-4o","choices":[{"index":0,"message":{"content":""#;
        Answer {
            name: "JSON",
            host: "api.openai.com",
            path: "/v1/chat/completions",
            ask: r#"{"model":"gpt-4o","messages":[]}"#,
            content_type: "application/json",
            encoding: None,
            opening: (fixed.to_string() + &words.take(OPENING_BYTES)).into(),
            piece: words.take(PIECE_BYTES).into(),
            n_pieces: 0,
            closing: format!(
                r#""}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":{INPUT},
                "completion_tokens":{OUTPUT},"total_tokens":{}}}}}"#,
                INPUT + OUTPUT
            )
            .into(),
        }
    }

    /// A stream whose usage the filter asks for and cuts out.
    pub fn sse() -> Answer {
        let mut words = Words::new();
        let mut opening = filled(OPENING_BYTES, || chat_event(&words.take(TEXT_BYTES)));
        // The longest that is held back is an event that has not ended.
        let begun = r#"data: {"id":"c-1","choices":[{"delta":{"content":""#;
        opening.extend_from_slice(begun.as_bytes());
        opening.extend_from_slice(words.take(3000).as_bytes());
        let mut closing = b"\"}}]}\n\n".to_vec();
        closing.extend_from_slice(chat_closing().as_bytes());
        let mut piece = b"\"}}]}\n\n".to_vec();
        piece.extend(filled(PIECE_BYTES, || chat_event(&words.take(TEXT_BYTES))));
        piece.extend_from_slice(begun.as_bytes());
        Answer {
            name: "SSE, cut",
            ask: r#"{"model":"gpt-4o","stream":true,"messages":[]}"#,
            content_type: "text/event-stream",
            opening,
            piece,
            closing,
            ..Answer::json()
        }
    }

    /// AWS's event stream.
    pub fn eventstream() -> Answer {
        let mut words = Words::new();
        let mut delta = || {
            let text = words.take(TEXT_BYTES);
            let payload = format!(r#"{{"contentBlockIndex":0,"delta":{{"text":"{text}"}}}}"#);
            message("contentBlockDelta", &payload)
        };
        let mut opening = message("messageStart", r#"{"role":"assistant"}"#);
        opening.extend(filled(OPENING_BYTES, &mut delta));
        let last = delta();
        let (begun, rest) = last.split_at(last.len() - 9);
        opening.extend_from_slice(begun);
        let mut piece = rest.to_vec();
        piece.extend(filled(PIECE_BYTES, &mut delta));
        piece.extend_from_slice(begun);
        let mut closing = rest.to_vec();
        closing.extend(message("messageStop", r#"{"stopReason":"end_turn"}"#));
        let usage = format!(
            r#"{{"usage":{{"inputTokens":{INPUT},"outputTokens":{OUTPUT},"totalTokens":{}}}}}"#,
            INPUT + OUTPUT
        );
        closing.extend(message("metadata", &usage));
        Answer {
            name: "eventstream",
            host: "bedrock-runtime.us-east-1.amazonaws.com",
            path: "/model/amazon.nova-lite-v1:0/converse-stream",
            ask: r#"{"messages":[]}"#,
            content_type: "application/vnd.amazon.eventstream",
            opening,
            piece,
            closing,
            ..Answer::json()
        }
    }

    /// The same answer under `gzip`, for so many pieces.
    pub fn gzipped(self, name: &'static str, n_pieces: u64) -> Answer {
        let mut crc = Crc::new();
        crc.update(&self.opening);
        (0..n_pieces).for_each(|_| crc.update(&self.piece));
        crc.update(&self.closing);
        let mut opening = vec![0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 0xFF];
        let mut deflate = Compress::new(Compression::default(), false);
        // A full flush forgets the window, so that what comes next may come again.
        opening.extend(deflated(&mut deflate, &self.opening, FlushCompress::Full));
        let piece = deflated(&mut deflate, &self.piece, FlushCompress::Full);
        let mut closing = deflated(&mut deflate, &self.closing, FlushCompress::Finish);
        closing.extend_from_slice(&crc.sum().to_le_bytes());
        closing.extend_from_slice(&crc.amount().to_le_bytes());
        Answer {
            name,
            encoding: Some("gzip"),
            opening,
            piece,
            n_pieces,
            closing,
            ..self
        }
    }

    /// A stream under `zstd` whose sender declares a window of 8 MiB and has filled it: with blank
    /// lines, of which a block takes four bytes (RFC 8878, 3.1.1.2.2).
    pub fn wide_window() -> Answer {
        const WINDOW_OF_8_MIB: u8 = 13 << 3;
        const BLOCK_BYTES: usize = 128 << 10;
        const BLOCKS: usize = 72;
        let mut opening = vec![0x28, 0xB5, 0x2F, 0xFD, 0, WINDOW_OF_8_MIB];
        for _ in 0..BLOCKS {
            opening.extend_from_slice(&block_header(BLOCK_BYTES, 1, false));
            opening.push(b'\n');
        }
        let event = chat_event("words");
        opening.extend_from_slice(&block_header(event.len(), 0, false));
        opening.extend_from_slice(&event);
        let last = chat_closing();
        let mut closing = block_header(last.len(), 0, true).to_vec();
        closing.extend_from_slice(last.as_bytes());
        Answer {
            name: "zstd, 8 MiB windows",
            encoding: Some("zstd"),
            opening,
            piece: Vec::new(),
            closing,
            ..Answer::sse()
        }
    }

    /// The same answer with so many pieces.
    pub fn with_pieces(self, n_pieces: u64) -> Answer {
        Answer { n_pieces, ..self }
    }

    /// Bytes of a body with all its pieces, as sent.
    pub fn n_bytes(&self) -> u64 {
        let fixed = self.opening.len() + self.closing.len();
        fixed as u64 + self.n_pieces * self.piece.len() as u64
    }

    /// The head of the response; the body ends with the connection.
    pub fn head(&self) -> String {
        let encoding = self
            .encoding
            .map(|name| format!("content-encoding: {name}\r\n"));
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {}\r\n{}connection: close\r\n\r\n",
            self.content_type,
            encoding.unwrap_or_default()
        )
    }

    /// Bytes of the opening that reach the app before the rest comes: all but an event that has
    /// not ended, which may have to be cut out.
    pub fn n_bytes_relayed(&self) -> usize {
        let is_cut = self.encoding.is_none() && self.content_type == "text/event-stream";
        let mut ends = self.opening.windows(2).rposition(|pair| pair == b"\n\n");
        let end = ends.take_if(|_| is_cut);
        end.map_or(self.opening.len(), |end| end + 2)
    }
}

fn filled(n_bytes: usize, mut part: impl FnMut() -> Vec<u8>) -> Vec<u8> {
    let mut all = Vec::with_capacity(n_bytes + 1024);
    while all.len() < n_bytes {
        all.extend(part());
    }
    all
}

fn chat_event(text: &str) -> Vec<u8> {
    format!(
        "data: {{\"id\":\"c-1\",\"object\":\"chat.completion.chunk\",\"model\":\"gpt-4o\",\
         \"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":null}}],\
         \"usage\":null}}\n\n"
    )
    .into()
}

fn chat_closing() -> String {
    format!(
        "data: {{\"id\":\"c-1\",\"model\":\"gpt-4o\",\"choices\":[{{\"index\":0,\"delta\":{{}},\
         \"finish_reason\":\"stop\"}}]}}\n\n\
         data: {{\"id\":\"c-1\",\"model\":\"gpt-4o\",\"choices\":[],\"usage\":{{\"prompt_tokens\":\
         {INPUT},\"completion_tokens\":{OUTPUT},\"total_tokens\":{}}}}}\n\ndata: [DONE]\n\n",
        INPUT + OUTPUT
    )
}

/// A message as <https://docs.aws.amazon.com/lexv2/latest/dg/event-stream-encoding.html> has it.
fn message(kind: &str, payload: &str) -> Vec<u8> {
    const STRING: u8 = 7;
    const PRELUDE_AND_CHECKSUMS: usize = 16;
    let mut headers = Vec::new();
    for (name, value) in [(":event-type", kind), (":message-type", "event")] {
        headers.push(name.len() as u8);
        headers.extend_from_slice(name.as_bytes());
        headers.push(STRING);
        headers.extend_from_slice(&(value.len() as u16).to_be_bytes());
        headers.extend_from_slice(value.as_bytes());
    }
    let total = PRELUDE_AND_CHECKSUMS + headers.len() + payload.len();
    let mut message = (total as u32).to_be_bytes().to_vec();
    message.extend_from_slice(&(headers.len() as u32).to_be_bytes());
    message.extend_from_slice(&checksum(&message));
    message.extend_from_slice(&headers);
    message.extend_from_slice(payload.as_bytes());
    message.extend_from_slice(&checksum(&message));
    message
}

fn checksum(bytes: &[u8]) -> [u8; 4] {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum().to_be_bytes()
}

fn deflated(deflate: &mut Compress, bytes: &[u8], flush: FlushCompress) -> Vec<u8> {
    // Room enough that one call takes all.
    let mut out = Vec::with_capacity(bytes.len() + 1024);
    let before = deflate.total_in();
    let done = deflate.compress_vec(bytes, &mut out, flush);
    assert!(done.is_ok() && deflate.total_in() - before == bytes.len() as u64);
    out
}

/// RFC 8878, 3.1.1.2; `kind` is 0 for raw blocks and 1 for blocks of one repeated byte.
fn block_header(n_bytes: usize, kind: usize, is_last: bool) -> [u8; 3] {
    let header = usize::from(is_last) | kind << 1 | n_bytes << 3;
    let [low, middle, high, ..] = header.to_le_bytes();
    [low, middle, high]
}

/// Text that compresses about as text does: what repeats without end would be taken for a bomb.
struct Words(u64);

impl Words {
    fn new() -> Words {
        Words(0x9E37_79B9_7F4A_7C15)
    }

    fn take(&mut self, n_bytes: usize) -> String {
        let mut text = String::with_capacity(n_bytes + 32);
        while text.len() < n_bytes {
            // xorshift64: any sequence without a short period will do.
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            text += &format!(" word{:016x}", self.0);
        }
        text.truncate(n_bytes);
        text
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn whole(answer: &Answer) -> Vec<u8> {
        let pieces = answer.piece.repeat(answer.n_pieces as usize);
        [&answer.opening[..], &pieces, &answer.closing].concat()
    }

    #[test]
    fn a_gzipped_answer_is_the_answer() {
        let plain = Answer::sse().with_pieces(3);
        let packed = whole(&Answer::sse().gzipped("x", 3));
        let mut out = Vec::new();
        let decoder = flate2::read::GzDecoder::new(&packed[..]);
        { decoder }
            .read_to_end(&mut out)
            .expect("is gzip, checksum and all");
        assert!(out == whole(&plain));
        assert!(packed.len() as u64 == Answer::sse().gzipped("x", 3).n_bytes());
    }

    #[test]
    fn what_has_ended_is_relayed_at_once() {
        let sse = Answer::sse();
        let held = sse.opening.len() - sse.n_bytes_relayed();
        assert!((3000..4096).contains(&held), "{held}");
        assert_eq!(
            Answer::json().n_bytes_relayed(),
            Answer::json().opening.len()
        );
    }
}
