//! The encodings that are measured, and what a stream may take under each.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use ruzstd::encoding::{CompressionLevel, FrameCompressor};

use crate::body::Body;
use crate::call::Call;
use crate::framing::Framing;

/// A stream without a decoder.
const IDENTITY_BYTES_MAX: u64 = 16 << 10;
/// A stream under `gzip` or `deflate`: the window of 32 KiB is in it.
const INFLATE_BYTES_MAX: u64 = 64 << 10;

/// The window that the bodies under `br` declare.
const BROTLI_WINDOW_BITS: u32 = 22;
/// What `br` takes beside window and stream: prefix codes and context maps of one metablock.
const BROTLI_FIXED_BYTES: u64 = 128 << 10;

/// The window that the encoder used here declares for the bodies under `zstd`.
const ZSTD_WINDOW_BYTES: u64 = 128 << 10;
/// What `zstd` takes beside window and stream: the next block as it came, as literals and as it is
/// decoded, 128 KiB each at most; room in which these grow; tables.
const ZSTD_FIXED_BYTES: u64 = 768 << 10;

/// What is undone beside the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Nothing.
    Identity,
    /// RFC 1952.
    Gzip,
    /// RFC 1950.
    Deflate,
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstd,
}

impl Encoding {
    /// Every encoding, in the order of the table.
    pub const ALL: [Encoding; 5] = [
        Encoding::Identity,
        Encoding::Gzip,
        Encoding::Deflate,
        Encoding::Brotli,
        Encoding::Zstd,
    ];

    /// Its name in the table.
    pub fn name(self) -> &'static str {
        self.header().unwrap_or("identity")
    }

    /// The value of `content-encoding`.
    pub fn header(self) -> Option<&'static str> {
        match self {
            Encoding::Identity => None,
            Encoding::Gzip => Some("gzip"),
            Encoding::Deflate => Some("deflate"),
            Encoding::Brotli => Some("br"),
            Encoding::Zstd => Some("zstd"),
        }
    }

    /// The most that a stream may take.
    pub fn bytes_max(self) -> u64 {
        match self {
            Encoding::Identity => IDENTITY_BYTES_MAX,
            Encoding::Gzip | Encoding::Deflate => INFLATE_BYTES_MAX,
            Encoding::Brotli => IDENTITY_BYTES_MAX + (1 << BROTLI_WINDOW_BITS) + BROTLI_FIXED_BYTES,
            Encoding::Zstd => IDENTITY_BYTES_MAX + ZSTD_WINDOW_BYTES + ZSTD_FIXED_BYTES,
        }
    }

    /// What the bound is made of.
    pub fn bound_is(self) -> &'static str {
        match self {
            Encoding::Identity | Encoding::Gzip | Encoding::Deflate => "",
            Encoding::Brotli => "(window of 4 MiB declared)",
            Encoding::Zstd => "(window of 128 KiB declared)",
        }
    }

    /// Makes a body of about `n_bytes` and sends it.
    pub fn send(self, framing: &'static Framing, n_bytes: u64, call: &mut Call) {
        let mut body = Body::new(framing, n_bytes);
        let sent = match self {
            Encoding::Identity => io::copy(&mut body, call).map(drop),
            Encoding::Gzip => {
                let mut encoder = GzEncoder::new(call, Compression::fast());
                io::copy(&mut body, &mut encoder).and_then(|_| encoder.finish().map(drop))
            }
            Encoding::Deflate => {
                let mut encoder = ZlibEncoder::new(call, Compression::fast());
                io::copy(&mut body, &mut encoder).and_then(|_| encoder.finish().map(drop))
            }
            Encoding::Brotli => {
                const BUFFER_BYTES: usize = 64 << 10;
                const QUALITY: u32 = 1;
                let bits = BROTLI_WINDOW_BITS;
                let mut encoder = brotli::CompressorWriter::new(call, BUFFER_BYTES, QUALITY, bits);
                io::copy(&mut body, &mut encoder).and_then(|_| encoder.flush())
            }
            Encoding::Zstd => {
                let mut encoder = FrameCompressor::new(CompressionLevel::Fastest);
                encoder.set_source(body);
                encoder.set_drain(call);
                encoder.compress();
                Ok(())
            }
        };
        sent.expect("a session takes every byte");
    }
}
