//! `br` (RFC 7932).

use std::fmt;

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};

use super::Volume;
use super::pool::{DecoderPool, Reservation};
use crate::scan::Trouble;

/// The buffer through which everything is decoded, on the stack.
const BUFFER_BYTES: usize = 4096;

/// What a decoder takes beside its window: its state, prefix codes and context maps.
const FIXED_BYTES: u64 = 128 << 10;

/// The state of one body. The decoder allocates the window that the sender declared, at most
/// 16 MiB: "large windows" beyond RFC 7932 are refused.
pub(crate) struct Brotli {
    inner: BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>,
    is_complete: bool,
    volume: Volume,
    pool: DecoderPool,
    /// What the window takes, once the first byte has declared it.
    window: Option<Reservation>,
    _memory: Reservation,
}

impl fmt::Debug for Brotli {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Brotli")
            .field("is_complete", &self.is_complete)
            .field("volume", &self.volume)
            .finish_non_exhaustive()
    }
}

impl Brotli {
    pub(super) fn new(pool: &DecoderPool) -> Result<Brotli, Trouble> {
        let alloc = StandardAlloc::default;
        let mut inner = BrotliState::new_strict(alloc(), alloc(), alloc());
        // The window at once: one that grows by doubling takes half as much again while it is
        // copied. A body that comes in one piece is still given no more than what it needs.
        inner.set_initial_ring_buffer_size(u32::MAX);
        Ok(Brotli {
            _memory: pool.reserve(FIXED_BYTES)?,
            pool: pool.clone(),
            window: None,
            inner,
            is_complete: false,
            volume: Volume::default(),
        })
    }

    pub(super) fn is_complete(&self) -> bool {
        self.is_complete
    }

    pub(super) fn push(
        &mut self,
        chunk: &[u8],
        sink: &mut impl FnMut(&[u8]),
    ) -> Result<(), Trouble> {
        if let (None, Some(first)) = (&self.window, chunk.first()) {
            self.window = Some(self.pool.reserve(window_bytes(*first))?);
        }
        let mut rest = chunk;
        while !rest.is_empty() && !self.is_complete {
            let (step, behind) = self.volume.step(rest);
            self.step(step, sink)?;
            rest = behind;
        }
        Ok(())
    }

    /// Decodes bytes that have one bound.
    fn step(&mut self, chunk: &[u8], sink: &mut impl FnMut(&[u8])) -> Result<(), Trouble> {
        let mut buffer = [0; BUFFER_BYTES];
        let (mut n_left, mut n_used, mut n_total) = (chunk.len(), 0, 0);
        while !self.is_complete {
            let (mut n_room, mut n_made) = (BUFFER_BYTES, 0);
            let result = BrotliDecompressStream(
                &mut n_left,
                &mut n_used,
                chunk,
                &mut n_room,
                &mut n_made,
                &mut buffer,
                &mut n_total,
                &mut self.inner,
            );
            let made = buffer.get(..n_made).unwrap_or_default();
            self.volume.pass_on(made, sink)?;
            match result {
                BrotliResult::ResultSuccess => self.is_complete = true,
                BrotliResult::NeedsMoreInput => return Ok(()),
                BrotliResult::NeedsMoreOutput => {}
                BrotliResult::ResultFailure => return Err(Trouble::BadEncoding),
            }
        }
        Ok(())
    }
}

/// The window that a body's first byte declares (RFC 7932, 9.1, WBITS).
fn window_bytes(first: u8) -> u64 {
    let (low, high) = (first >> 1 & 7, first >> 4 & 7);
    let n_bits = match (first & 1, low, high) {
        (0, _, _) => 16,
        (_, 1..=7, _) => 17 + low,
        (_, _, 2..=7) => 8 + high,
        // 1 is a "large window", which is refused.
        _ => 17,
    };
    1 << n_bits
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use brotli::enc::BrotliEncoderParams;

    use super::*;

    fn encoded(plain: &[u8], n_window_bits: i32) -> Vec<u8> {
        let parameters = BrotliEncoderParams {
            quality: 5,
            lgwin: n_window_bits,
            ..BrotliEncoderParams::default()
        };
        let mut out = Vec::new();
        brotli::BrotliCompress(&mut &plain[..], &mut out, &parameters).unwrap();
        out
    }

    fn decoded(body: &[u8], n_chunk: usize) -> (Vec<u8>, Option<Trouble>, bool) {
        let mut brotli = Brotli::new(&DecoderPool::default()).unwrap();
        let mut out = Vec::new();
        let mut sink = |bytes: &[u8]| out.extend_from_slice(bytes);
        let outcome = body
            .chunks(n_chunk)
            .try_for_each(|chunk| brotli.push(chunk, &mut sink));
        (out, outcome.err(), brotli.is_complete())
    }

    #[test]
    fn bodies_of_any_window_are_read_in_any_chunks() {
        let plain = "the same words again and again, 1234567890 ".repeat(5000);
        for n_window_bits in [10, 16, 17, 18, 22, 24] {
            let body = encoded(plain.as_bytes(), n_window_bits);
            for n_chunk in [1, 7, body.len()] {
                let (out, trouble, is_complete) = decoded(&body, n_chunk);
                assert!(out == plain.as_bytes(), "{n_window_bits} by {n_chunk}");
                assert_eq!((trouble, is_complete), (None, true));
            }
        }
    }

    #[test]
    fn cut_and_broken_bodies_give_what_they_have() {
        let plain: Vec<u8> = (0..50_000u32)
            .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
            .collect();
        let body = encoded(&plain, 22);
        let (out, trouble, is_complete) = decoded(&body[..body.len() / 2], 1000);
        assert!(!out.is_empty() && plain.starts_with(&out));
        assert_eq!((trouble, is_complete), (None, false));
        let (_, trouble, _) = decoded(b"\xFF\xFF\xFF\xFF", 1);
        assert_eq!(trouble, Some(Trouble::BadEncoding));
        let bomb = encoded(&vec![b' '; 64 << 20], 22);
        let (out, trouble, _) = decoded(&bomb, 64);
        assert_eq!(trouble, Some(Trouble::BadEncoding));
        assert!(out.len() < 32 << 20);
    }

    #[test]
    fn a_broken_body_is_broken_in_any_chunks() {
        // A block of commands that is longer than its metablock.
        let body = b"\0\0\0\0\0\0\0\x01\0\x01\x60\xd6\x7e\0\x07\xceand words, words, words";
        for n_chunk in 1..=body.len() {
            let (out, trouble, _) = decoded(body, n_chunk);
            assert_eq!(
                (out.len(), trouble),
                (0, Some(Trouble::BadEncoding)),
                "by {n_chunk}"
            );
        }
    }

    #[test]
    fn a_window_is_allocated_once() {
        let mut body = Vec::new();
        let mut encoder = brotli::CompressorWriter::new(&mut body, 4096, 5, 22);
        for _ in 0..40 {
            let piece = "{\"id\":1234567890},".repeat(5000);
            encoder.write_all(piece.as_bytes()).unwrap();
            encoder.flush().unwrap();
        }
        drop(encoder);
        let mut brotli = Brotli::new(&DecoderPool::default()).unwrap();
        let mut windows = std::collections::BTreeSet::new();
        for chunk in body.chunks(100) {
            brotli.push(chunk, &mut |_| ()).unwrap();
            windows.insert(brotli.inner.ringbuffer_size);
        }
        assert!(brotli.is_complete());
        windows.remove(&0);
        assert_eq!(windows.into_iter().collect::<Vec<_>>(), [1 << 22]);

        let body = encoded(&[b'x'; 1000], 22);
        let mut brotli = Brotli::new(&DecoderPool::default()).unwrap();
        brotli.push(&body, &mut |_| ()).unwrap();
        assert!(brotli.inner.ringbuffer_size <= 1024);
    }

    #[test]
    fn the_first_byte_declares_the_window() {
        for n_window_bits in 10..=24 {
            let body = encoded(&[b'x'; 100_000], n_window_bits);
            let declared = window_bytes(body[0]);
            assert!(declared >= 1 << n_window_bits.min(17), "{n_window_bits}");
            assert!(declared <= 1 << 24);
        }
        for (first, n_bits) in [
            (0, 16),
            (0b1, 17),
            (0b11, 18),
            (0b1111, 24),
            (0b10_0001, 10),
        ] {
            assert_eq!(window_bytes(first), 1 << n_bits, "{first:b}");
        }
    }
}
