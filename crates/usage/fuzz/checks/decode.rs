//! Content encodings: encoded and plain body are read alike, and no bytes hold or make too many.

use std::io::Write;

use brotli::enc::BrotliEncoderParams;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use tollmesh_usage::{Scan, Target, Trouble};

use super::Input;
use super::read::{self, CONTENT_TYPES};

/// Decoded bytes of any body, and for each encoded one: what the decoders promise.
const DECODED_BYTES_FREE: u64 = 16 << 20;
const EXPANSION_MAX: u64 = 100;

/// What is slack in that promise: the bound grows in steps of encoded bytes.
const STEP_BYTES: u64 = 4096;

/// What a short body is repeated to.
const LONG_BODY_BYTES: usize = 48 << 10;

const ENCODINGS: [&str; 5] = ["gzip", "deflate", "br", "zstd", "x-gzip"];

/// Checks one input: encoded bytes, or such as are encoded first.
pub fn check(input: &[u8]) {
    let Some(input) = Input::new(input) else {
        return;
    };
    let choice = usize::from(input.choice);
    let encoding = ENCODINGS[choice % ENCODINGS.len()];
    let target = read::target(0);
    let content_type = CONTENT_TYPES[usize::from(choice & 0x40 != 0)];
    if choice & 0x80 == 0 {
        any_bytes(&target, content_type, encoding, &input);
        return;
    }
    let is_raw = choice & 0x20 != 0;
    let body = repeated(&input);
    let encoded = encoded(encoding, is_raw, &body);
    let plain = read::scan(&target, content_type, None, [body.as_slice()].into_iter());
    let chunks = encoded.chunks(input.chunk_bytes);
    let decoded = read::scan(&target, content_type, Some(encoding), chunks);
    // A decoder that delays its output cannot tell when content came.
    assert!(decoded.0 == plain.0 || encoding == "zstd");
    assert_eq!(unmeasured(decoded.1), unmeasured(plain.1), "{encoding}");
    let n_bytes = encoded.len() * usize::from(input.choice & 0x1F) / 0x20;
    let chunks = encoded[..n_bytes].chunks(input.chunk_bytes);
    let (_, cut) = read::scan(&target, content_type, Some(encoding), chunks);
    assert_ne!(cut.trouble, Some(Trouble::BadEncoding), "cut, not broken");
}

/// The body, of every other size of chunks so often that it is longer than a window of deflate.
fn repeated(input: &Input<'_>) -> Vec<u8> {
    let n_times = match input.chunk_bytes % 2 {
        0 => 1,
        _ => (LONG_BODY_BYTES / input.body.len().max(1)).max(1),
    };
    input.body.repeat(n_times)
}

/// Broken bodies: chunks decide how much of what came before the breach is read, and nothing else.
fn any_bytes(target: &Target, content_type: &str, encoding: &str, input: &Input<'_>) {
    let scan = |n_chunk: usize| {
        let chunks = input.body.chunks(n_chunk);
        read::scan(target, content_type, Some(encoding), chunks)
    };
    let whole = scan(input.body.len().max(1));
    let cut_up = scan(input.chunk_bytes);
    let is_broken = |scan: &Scan| scan.trouble == Some(Trouble::BadEncoding);
    assert_eq!(is_broken(&cut_up.1), is_broken(&whole.1), "chunks show");
    if !is_broken(&whole.1) {
        assert_eq!(cut_up, whole, "chunks show");
    }
    let n_encoded = (input.body.len() as u64).next_multiple_of(STEP_BYTES);
    let n_text = whole.1.relayed.text_bytes();
    assert!(n_text <= DECODED_BYTES_FREE + EXPANSION_MAX * n_encoded);
}

fn unmeasured(mut scan: Scan) -> Scan {
    scan.relayed.body_bytes = 0;
    scan
}

fn encoded(encoding: &str, is_raw: bool, plain: &[u8]) -> Vec<u8> {
    let fast = Compression::fast();
    match encoding {
        "br" => {
            let parameters = BrotliEncoderParams {
                quality: 1,
                lgwin: 16,
                ..BrotliEncoderParams::default()
            };
            let mut out = Vec::new();
            brotli::BrotliCompress(&mut &plain[..], &mut out, &parameters).expect("memory");
            out
        }
        "zstd" => compress_to_vec(plain, CompressionLevel::Fastest),
        "deflate" if is_raw => {
            let mut encoder = DeflateEncoder::new(Vec::new(), fast);
            encoder.write_all(plain).expect("memory");
            encoder.finish().expect("memory")
        }
        "deflate" => {
            let mut encoder = ZlibEncoder::new(Vec::new(), fast);
            encoder.write_all(plain).expect("memory");
            encoder.finish().expect("memory")
        }
        _ => {
            let mut encoder = GzEncoder::new(Vec::new(), fast);
            encoder.write_all(plain).expect("memory");
            encoder.finish().expect("memory")
        }
    }
}
