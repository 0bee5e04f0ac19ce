//! Content encodings, undone on the side and in bounded memory.
//!
//! A decoder is fed what is on the wire and gives its output piece by piece to a sink, through one
//! small buffer. Adding an encoding is adding a file and a variant.

mod brotli;
mod inflate;
mod pool;
mod zstd;

use crate::scan::Trouble;
use brotli::Brotli;
use inflate::Inflater;
pub use pool::{DecoderPool, POOL_BYTES_MAX};
use zstd::Zstd;

/// Decoded bytes that any body may have, however few bytes it came from.
const DECODED_BYTES_FREE: u64 = 16 << 20;

/// Decoded bytes for each encoded one beyond that. Deflate reaches 1,032; text reaches 20. A body
/// beyond it is a bomb: it passes, but is no longer read, as `bad_encoding`.
const EXPANSION_MAX: u64 = 100;

/// The encoded bytes that one bound holds for. Whether a body is a bomb is decided at fixed places
/// of it, whatever the chunks: so it depends on the bytes alone.
const STEP_BYTES: u64 = 4096;

/// The decoder of one body.
#[derive(Debug)]
pub(crate) enum Decoder {
    /// Nothing to undo.
    Identity,
    /// `gzip` and `deflate`.
    Inflate(Box<Inflater>),
    /// `br`
    Brotli(Box<Brotli>),
    /// `zstd`
    Zstd(Box<Zstd>),
    /// An encoding that cannot be undone, or a body that could not be.
    Unreadable,
}

/// Bytes in and out of one decoder.
#[derive(Debug, Default)]
struct Volume {
    n_encoded: u64,
    n_decoded: u64,
}

impl Volume {
    /// The next bytes that are decoded under one bound, which counts them; and the bytes behind.
    fn step<'a>(&mut self, encoded: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        let n_step = STEP_BYTES - self.n_encoded % STEP_BYTES;
        let n_step = usize::try_from(n_step).unwrap_or(usize::MAX);
        let (step, behind) = encoded.split_at_checked(n_step).unwrap_or((encoded, &[]));
        self.n_encoded += step.len() as u64;
        (step, behind)
    }

    /// Hands on decoded bytes; an error, and no more than the bound, once they are too many.
    fn pass_on(&mut self, decoded: &[u8], sink: &mut impl FnMut(&[u8])) -> Result<(), Trouble> {
        let n_encoded = self.n_encoded.next_multiple_of(STEP_BYTES);
        let bound = n_encoded
            .saturating_mul(EXPANSION_MAX)
            .saturating_add(DECODED_BYTES_FREE);
        let n_room = usize::try_from(bound.saturating_sub(self.n_decoded)).unwrap_or(usize::MAX);
        let within = decoded.get(..n_room).unwrap_or(decoded);
        self.n_decoded += within.len() as u64;
        sink(within);
        match within.len() == decoded.len() {
            true => Ok(()),
            false => Err(Trouble::BadEncoding),
        }
    }
}

impl Decoder {
    /// The decoder that a `content-encoding` header asks for; its memory comes out of the pool.
    pub(crate) fn new(
        content_encoding: Option<&str>,
        pool: &DecoderPool,
    ) -> Result<Decoder, Trouble> {
        let mut names = content_encoding
            .unwrap_or_default()
            .split(',')
            .map(|name| name.trim().to_ascii_lowercase())
            .filter(|name| !name.is_empty() && name != "identity");
        let (name, further) = (names.next(), names.next());
        match (name.as_deref(), further) {
            (None, _) => Ok(Decoder::Identity),
            (Some("gzip" | "x-gzip"), None) => {
                Ok(Decoder::Inflate(Box::new(Inflater::gzip(pool)?)))
            }
            (Some("deflate"), None) => Ok(Decoder::Inflate(Box::new(Inflater::deflate(pool)?))),
            (Some("br"), None) => Ok(Decoder::Brotli(Box::new(Brotli::new(pool)?))),
            (Some("zstd"), None) => Ok(Decoder::Zstd(Box::new(Zstd::new(pool)))),
            _ => Err(Trouble::UnknownEncoding),
        }
    }

    /// Takes the next encoded bytes; `sink` is given what they decode to.
    pub(crate) fn push(
        &mut self,
        chunk: &[u8],
        mut sink: impl FnMut(&[u8]),
    ) -> Result<(), Trouble> {
        let outcome = match self {
            Decoder::Identity => {
                sink(chunk);
                Ok(())
            }
            Decoder::Inflate(inflater) => inflater.push(chunk, &mut sink),
            Decoder::Brotli(brotli) => brotli.push(chunk, &mut sink),
            Decoder::Zstd(zstd) => zstd.push(chunk, &mut sink),
            Decoder::Unreadable => Ok(()),
        };
        if outcome.is_err() {
            *self = Decoder::Unreadable;
        }
        outcome
    }

    /// The body has ended, perhaps too early; `sink` is given what was still held.
    pub(crate) fn finish(&mut self, mut sink: impl FnMut(&[u8])) -> Result<(), Trouble> {
        match self {
            Decoder::Zstd(zstd) => zstd.finish(&mut sink),
            _ => Ok(()),
        }
    }

    /// Whether output may be held back although its input has come, so that it does not tell when
    /// something was relayed.
    pub(crate) fn is_delayed(&self) -> bool {
        matches!(self, Decoder::Zstd(_))
    }

    /// Whether the encoding itself says that nothing is missing.
    pub(crate) fn is_complete(&self) -> bool {
        match self {
            Decoder::Identity | Decoder::Unreadable => true,
            Decoder::Inflate(inflater) => inflater.is_complete(),
            Decoder::Brotli(brotli) => brotli.is_complete(),
            Decoder::Zstd(zstd) => zstd.is_complete(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    fn decoded(encoding: &str, body: &[u8], n_chunk: usize) -> (Vec<u8>, Option<Trouble>, bool) {
        let mut decoder = Decoder::new(Some(encoding), &DecoderPool::default()).unwrap();
        let mut out = Vec::new();
        let mut trouble = None;
        for chunk in body.chunks(n_chunk) {
            let outcome = decoder.push(chunk, |bytes| out.extend_from_slice(bytes));
            trouble = trouble.or(outcome.err());
        }
        (out, trouble, decoder.is_complete())
    }

    fn plain() -> Vec<u8> {
        (0..20_000u32)
            .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
            .collect()
    }

    fn gzipped(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    /// What compresses as answers do, so that the window of 32 KiB wraps while input is left.
    fn prose(n_bytes: usize) -> Vec<u8> {
        let events = (0..20_000u32).map(|n| {
            let word = n.wrapping_mul(2_654_435_761);
            format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\" w{word:x}\"}}}}]}}\n\n")
        });
        let mut prose = events.collect::<String>().into_bytes();
        prose.truncate(n_bytes);
        prose
    }

    #[test]
    fn every_encoding_decodes_in_any_chunks() {
        for plain in [plain(), prose(32 << 10), prose(100_000), prose(1 << 20)] {
            decodes_in_any_chunks(&plain);
        }
    }

    fn decodes_in_any_chunks(plain: &[u8]) {
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(plain).unwrap();
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::best());
        raw.write_all(plain).unwrap();
        for (encoding, body) in [
            ("gzip", gzipped(plain)),
            ("X-GZip", gzipped(plain)),
            ("identity, gzip", gzipped(plain)),
            ("deflate", zlib.finish().unwrap()),
            ("deflate", raw.finish().unwrap()),
            ("identity", plain.to_vec()),
        ] {
            for n_chunk in [1, 7, 1000, 13_331, body.len()] {
                let (out, trouble, is_complete) = decoded(encoding, &body, n_chunk);
                assert!(out == plain, "{encoding} by {n_chunk}");
                assert_eq!((trouble, is_complete), (None, true), "{encoding}");
            }
        }
    }

    #[test]
    fn gzip_headers_members_and_tails_are_understood() {
        let mut body = b"\x1f\x8b\x08\x1e\0\0\0\0\0\x03\x03\0abcname\0comment\0xx".to_vec();
        body.extend_from_slice(&gzipped(b"hello ")[10..]);
        body.extend_from_slice(&gzipped(b"world"));
        for n_chunk in [1, 3, body.len()] {
            let (out, trouble, is_complete) = decoded("gzip", &body, n_chunk);
            assert_eq!(String::from_utf8(out).unwrap(), "hello world");
            assert_eq!((trouble, is_complete), (None, true));
        }
    }

    #[test]
    fn cut_and_broken_bodies_give_what_they_have() {
        let plain = plain();
        let body = gzipped(&plain);
        let (out, trouble, is_complete) = decoded("gzip", &body[..body.len() / 2], 100);
        assert!(!out.is_empty() && plain.starts_with(&out));
        assert_eq!((trouble, is_complete), (None, false));
        let (_, trouble, _) = decoded("gzip", b"{\"model\":\"not gzip\"}", 5);
        assert_eq!(trouble, Some(Trouble::BadEncoding));
        assert_eq!(
            Decoder::new(Some("gzip, gzip"), &DecoderPool::default()).err(),
            Some(Trouble::UnknownEncoding)
        );
    }

    #[test]
    fn whether_a_body_is_a_bomb_does_not_depend_on_chunks() {
        // Beyond the bound at its beginning, within it at its end.
        let noise = plain();
        let beginning = vec![b' '; 20 << 20];
        let body = gzipped(&[beginning.as_slice(), &noise.repeat(8)].concat());
        let (out, trouble, _) = decoded("gzip", &body, body.len());
        assert_eq!(trouble, Some(Trouble::BadEncoding));
        for n_chunk in [100, 4096, 5000] {
            let (cut_up, trouble, _) = decoded("gzip", &body, n_chunk);
            assert_eq!(trouble, Some(Trouble::BadEncoding), "by {n_chunk}");
            assert!(cut_up == out, "by {n_chunk}");
        }
    }

    #[test]
    fn a_bomb_is_not_followed() {
        let body = gzipped(&vec![b' '; 64 << 20]);
        let (out, trouble, _) = decoded("gzip", &body, 4096);
        assert_eq!(trouble, Some(Trouble::BadEncoding));
        assert!(out.len() < 32 << 20);
    }
}
