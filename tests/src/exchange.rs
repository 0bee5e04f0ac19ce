//! One scripted exchange: what a client asks, and what the provider answers to it.

use std::fmt::Write as _;

use hyper::body::Bytes;
use sha2::{Digest, Sha256};

use crate::usage::Usage;

/// The pieces in which a generated body is made, so that none is ever whole in memory.
const GENERATED_PIECE_BYTES: usize = 64 * 1024;

/// A request, the reply to it, and what it used.
#[derive(Clone, Debug, Default)]
pub struct Exchange {
    /// What the client sends.
    pub ask: Ask,
    /// What the provider answers.
    pub reply: Reply,
    /// What the provider counts; `None` where it counts nothing.
    pub usage: Option<Usage>,
}

/// A request as the app writes it.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// The method.
    pub method: String,
    /// The authority.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// Headers beside host, length and request id; values may be any bytes that HTTP allows.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Payload,
}

/// A response as the provider writes it.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Headers beside those of the body's framing.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Payload,
    /// The body that goes out instead where the request asks for `include_usage`.
    pub body_with_usage: Option<Payload>,
    /// What the app must get where that is neither of the two: the body with usage, less the event
    /// that only the mesh asked for.
    pub app_sees: Option<Payload>,
    /// How the body is cut up.
    pub cut: Cut,
    /// Trailers after the body.
    pub trailers: Vec<(String, String)>,
    /// Whether trailers come without the header `trailer`, which HTTP/2 alone can send.
    pub hides_trailers: bool,
    /// What comes after the last byte.
    pub ending: Ending,
}

/// How a body is cut into writes, each flushed before the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cut {
    /// One write with a `content-length`.
    #[default]
    Whole,
    /// Writes of so many bytes, without a length.
    Every(usize),
    /// Writes that end at these offsets, without a length.
    At(Vec<usize>),
}

/// What a provider does after the last scripted byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// Ends the body as HTTP asks.
    #[default]
    Proper,
    /// Breaks the connection (HTTP/1) or the stream (HTTP/2).
    Reset,
    /// Says nothing more and keeps the stream open until the other side goes.
    Silence,
}

/// Bytes, or a rule that makes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// These bytes.
    Bytes(Bytes),
    /// `head`, then `n_pad_bytes` times `pad`, then `tail`: as large as one likes.
    Padded {
        /// The beginning.
        head: Bytes,
        /// The byte that is repeated.
        pad: u8,
        /// How often.
        n_pad_bytes: u64,
        /// The end.
        tail: Bytes,
    },
}

// === impl Exchange ===

impl Exchange {
    /// A `POST` of JSON to `host` and `path`, answered by an empty 200.
    pub fn post(host: &str, path: &str, body: impl Into<Bytes>) -> Exchange {
        let mut exchange = Exchange::default();
        exchange.ask.method = "POST".to_string();
        exchange.ask.host = host.to_string();
        exchange.ask.path = path.to_string();
        exchange.ask.headers = vec![("content-type".to_string(), b"application/json".to_vec())];
        exchange.ask.body = Payload::Bytes(body.into());
        exchange.reply.status = 200;
        exchange
    }

    /// Answers with `body` of that content type.
    pub fn answered(mut self, content_type: &str, body: impl Into<Bytes>) -> Exchange {
        self.reply.body = Payload::Bytes(body.into());
        self.reply_header("content-type", content_type)
    }

    /// Answers with that status.
    pub fn status(mut self, status: u16) -> Exchange {
        self.reply.status = status;
        self
    }

    /// Adds a response header.
    pub fn reply_header(mut self, name: &str, value: impl AsRef<[u8]>) -> Exchange {
        self.reply
            .headers
            .push((name.to_string(), value.as_ref().to_vec()));
        self
    }

    /// Adds a request header.
    pub fn ask_header(mut self, name: &str, value: impl AsRef<[u8]>) -> Exchange {
        self.ask
            .headers
            .push((name.to_string(), value.as_ref().to_vec()));
        self
    }

    /// Sends the reply in writes of `n` bytes.
    pub fn chunks_of(mut self, n: usize) -> Exchange {
        self.reply.cut = Cut::Every(n.max(1));
        self
    }

    /// Sends the reply in two writes, cut at that offset.
    pub fn cut_at(mut self, offset: usize) -> Exchange {
        self.reply.cut = Cut::At(vec![offset]);
        self
    }

    /// Ends the reply with trailers.
    pub fn trailers(mut self, trailers: &[(&str, &str)]) -> Exchange {
        self.reply.trailers = trailers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        self
    }

    /// Says nothing of its trailers beforehand.
    pub fn unannounced(mut self) -> Exchange {
        self.reply.hides_trailers = true;
        self
    }

    /// Breaks the reply after `n` bytes.
    pub fn reset_after(self, n: usize) -> Exchange {
        self.broken_off(n, Ending::Reset)
    }

    /// Falls silent after `n` bytes of the reply.
    pub fn silent_after(self, n: usize) -> Exchange {
        self.broken_off(n, Ending::Silence)
    }

    fn broken_off(mut self, n: usize, ending: Ending) -> Exchange {
        self.reply.body = self.reply.body.first(n);
        self.reply.body_with_usage = self.reply.body_with_usage.map(|body| body.first(n));
        self.reply.app_sees = None;
        self.reply.ending = ending;
        self
    }

    /// What the provider counts.
    pub fn uses(mut self, usage: Usage) -> Exchange {
        self.usage = Some(usage);
        self
    }
}

// === impl Payload ===

impl Default for Payload {
    fn default() -> Payload {
        Payload::Bytes(Bytes::new())
    }
}

impl Payload {
    /// How many bytes.
    pub fn n_bytes(&self) -> u64 {
        match self {
            Payload::Bytes(bytes) => bytes.len() as u64,
            Payload::Padded {
                head,
                n_pad_bytes,
                tail,
                ..
            } => head.len() as u64 + n_pad_bytes + tail.len() as u64,
        }
    }

    /// SHA-256 of all of it, in hex.
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        self.clone()
            .pieces(&Cut::Whole)
            .for_each(|piece| hash.update(piece));
        hex(&hash.finalize())
    }

    /// The first `n` bytes of a payload of plain bytes; a generated one is left as it is.
    fn first(self, n: usize) -> Payload {
        match self {
            Payload::Bytes(bytes) => Payload::Bytes(bytes.slice(..n.min(bytes.len()))),
            padded @ Payload::Padded { .. } => padded,
        }
    }

    /// The payload in pieces, as `cut` says; generated ones in pieces of their own.
    pub fn pieces(self, cut: &Cut) -> Pieces {
        let (head, pad, n_pad_bytes, tail) = match self {
            Payload::Bytes(bytes) => {
                let ends = ends(bytes.len(), cut);
                return Pieces::Cut {
                    bytes,
                    from: 0,
                    ends: ends.into_iter(),
                };
            }
            Payload::Padded {
                head,
                pad,
                n_pad_bytes,
                tail,
            } => (head, pad, n_pad_bytes, tail),
        };
        let block = Bytes::from(vec![pad; GENERATED_PIECE_BYTES]);
        Pieces::Generated {
            head: Some(head),
            block,
            n_left: n_pad_bytes,
            tail: Some(tail),
        }
    }
}

/// The pieces of a payload, in order.
#[derive(Debug)]
pub enum Pieces {
    /// Slices of bytes that are all there.
    Cut {
        /// All of it.
        bytes: Bytes,
        /// Where the next piece begins.
        from: usize,
        /// Where each piece ends.
        ends: std::vec::IntoIter<usize>,
    },
    /// Made on the way.
    Generated {
        /// Still to come first.
        head: Option<Bytes>,
        /// A piece of padding.
        block: Bytes,
        /// Padding still to come.
        n_left: u64,
        /// Still to come last.
        tail: Option<Bytes>,
    },
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        match self {
            Pieces::Cut { bytes, from, ends } => {
                let end = ends.next()?;
                let piece = bytes.slice(*from..end);
                *from = end;
                Some(piece)
            }
            Pieces::Generated {
                head,
                block,
                n_left,
                tail,
            } => {
                if let Some(head) = head.take() {
                    return Some(head);
                }
                if *n_left == 0 {
                    return tail.take();
                }
                let n = (*n_left).min(block.len() as u64);
                *n_left -= n;
                Some(block.slice(..n as usize))
            }
        }
    }
}

fn ends(n_bytes: usize, cut: &Cut) -> Vec<usize> {
    let mut ends: Vec<usize> = match cut {
        Cut::Whole => Vec::new(),
        Cut::Every(n) => (*n..n_bytes).step_by(*n).collect(),
        Cut::At(offsets) => offsets
            .iter()
            .copied()
            .filter(|at| (1..n_bytes).contains(at))
            .collect(),
    };
    if n_bytes > 0 {
        ends.push(n_bytes);
    }
    ends
}

/// Bytes in lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(cut: Cut) -> Vec<String> {
        let payload = Payload::Bytes(Bytes::from_static(b"abcdefg"));
        payload
            .pieces(&cut)
            .map(|piece| String::from_utf8_lossy(&piece).into_owned())
            .collect()
    }

    #[test]
    fn every_cut_keeps_every_byte() {
        assert_eq!(cut(Cut::Whole), ["abcdefg"]);
        assert_eq!(cut(Cut::Every(3)), ["abc", "def", "g"]);
        assert_eq!(cut(Cut::Every(7)), ["abcdefg"]);
        assert_eq!(cut(Cut::Every(1)).len(), 7);
        assert_eq!(cut(Cut::At(vec![2])), ["ab", "cdefg"]);
        assert_eq!(cut(Cut::At(vec![0, 7, 99])), ["abcdefg"]);
    }

    #[test]
    fn a_padded_payload_is_what_it_says() {
        let padded = Payload::Padded {
            head: Bytes::from_static(b"["),
            pad: b' ',
            n_pad_bytes: 70_000,
            tail: Bytes::from_static(b"]"),
        };
        let plain = format!("[{}]", " ".repeat(70_000));
        assert_eq!(padded.n_bytes(), 70_002);
        assert_eq!(padded.sha256(), Payload::Bytes(plain.into()).sha256());
    }
}
