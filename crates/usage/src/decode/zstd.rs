//! `zstd` (RFC 8878).
//!
//! Frames and blocks are cut here, so that a block is given to the decoder when it is whole: it is
//! at most 128 KiB, and nothing else is carried over. The decoder gives its output back only once
//! it is a window old, or at the end of the frame: where a body is cut, an empty last block is put
//! in the place of what is missing, so that all that came is read. Checksums are not verified.

mod block;

use std::fmt;
use std::io::Read;

use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::Volume;
use super::pool::{DecoderPool, Reservation};
use crate::scan::Trouble;
use block::{BLOCK_BYTES_MAX, BLOCK_HEADER_BYTES, Scratch, block_length};

/// The buffer through which everything is read, on the stack.
const BUFFER_BYTES: usize = 4096;

const MAGIC: u32 = 0xFD2F_B528;

/// Frames that hold no content (RFC 8878, 3.1.2); the low half byte is free.
const SKIPPABLE_MAGIC: u32 = 0x184D_2A50;

/// The largest window that a sender may use over HTTP (RFC 9659, 3).
const WINDOW_BYTES_MAX: u64 = 8 << 20;

/// What the decoder's ring has beyond the power of two to which it grows: two blocks.
const RING_SLACK_BYTES: u64 = 256 << 10;

const CHECKSUM_BYTES: usize = 4;

/// An empty raw block that ends its frame, and zeros where a checksum may be due.
const LAST_BLOCK: [u8; BLOCK_HEADER_BYTES + CHECKSUM_BYTES] = [1, 0, 0, 0, 0, 0, 0];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Between frames, or within a frame's header.
    Header,
    Skip {
        n_left: u64,
    },
    Block {
        has_checksum: bool,
    },
}

/// The state of one body.
pub(crate) struct Zstd {
    pool: DecoderPool,
    stage: Stage,
    /// A header or block that has not come whole.
    carry: Vec<u8>,
    frame: Option<Frame>,
    n_frames: u32,
    /// The body ended within a frame.
    is_cut: bool,
    volume: Volume,
}

/// The frame at hand.
struct Frame {
    decoder: FrameDecoder,
    /// What the ring may take.
    ring_bytes: u64,
    scratch: Scratch,
    memory: Reservation,
}

impl fmt::Debug for Zstd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Zstd")
            .field("stage", &self.stage)
            .field("n_frames", &self.n_frames)
            .field("volume", &self.volume)
            .finish_non_exhaustive()
    }
}

impl Zstd {
    pub(super) fn new(pool: &DecoderPool) -> Zstd {
        Zstd {
            pool: pool.clone(),
            stage: Stage::Header,
            carry: Vec::new(),
            frame: None,
            n_frames: 0,
            is_cut: false,
            volume: Volume::default(),
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        let is_between = self.stage == Stage::Header && self.carry.is_empty();
        is_between && self.n_frames > 0 && !self.is_cut
    }

    pub(super) fn push(
        &mut self,
        chunk: &[u8],
        sink: &mut impl FnMut(&[u8]),
    ) -> Result<(), Trouble> {
        let mut rest = chunk;
        while !rest.is_empty() {
            let (step, behind) = self.volume.step(rest);
            self.step(step, sink)?;
            rest = behind;
        }
        Ok(())
    }

    /// Decodes bytes that have one bound.
    fn step(&mut self, chunk: &[u8], sink: &mut impl FnMut(&[u8])) -> Result<(), Trouble> {
        let mut rest = chunk;
        while !rest.is_empty() {
            if let Stage::Skip { n_left } = self.stage {
                let n_bytes = usize::try_from(n_left).unwrap_or(usize::MAX);
                let (skipped, later) = rest.split_at_checked(n_bytes).unwrap_or((rest, &[]));
                rest = later;
                self.stage = match n_left - skipped.len() as u64 {
                    0 => Stage::Header,
                    n_left => Stage::Skip { n_left },
                };
                continue;
            }
            let Some(unit) = self.take_unit(&mut rest)? else {
                return Ok(());
            };
            match self.stage {
                Stage::Block { .. } => self.block(&unit, sink)?,
                _ => self.header(&unit)?,
            }
            // Its memory is the next unit's.
            self.carry = unit;
            self.carry.clear();
        }
        Ok(())
    }

    /// The body has ended; gives what the decoder still holds of a frame that was cut.
    pub(super) fn finish(&mut self, sink: &mut impl FnMut(&[u8])) -> Result<(), Trouble> {
        self.is_cut = !self.is_complete();
        match self.stage {
            Stage::Block { .. } => self.block(&LAST_BLOCK, sink),
            _ => Ok(()),
        }
    }

    /// The header or block at hand, once it is whole.
    fn take_unit(&mut self, rest: &mut &[u8]) -> Result<Option<Vec<u8>>, Trouble> {
        loop {
            let n_wanted = match self.stage {
                Stage::Block { has_checksum } => block_length(&self.carry, has_checksum)?,
                _ => header_length(&self.carry)?,
            };
            let n_missing = n_wanted - self.carry.len().min(n_wanted);
            // A block that came in pieces would have room for nearly two.
            self.carry.reserve_exact(n_missing);
            if n_missing == 0 {
                return Ok(Some(std::mem::take(&mut self.carry)));
            }
            let (piece, later) = rest.split_at_checked(n_missing).unwrap_or((*rest, &[]));
            self.carry.extend_from_slice(piece);
            *rest = later;
            if piece.len() < n_missing {
                return Ok(None);
            }
        }
    }

    /// A frame's header: reserves its window, then starts its decoder.
    fn header(&mut self, header: &[u8]) -> Result<(), Trouble> {
        if is_skippable(header) {
            self.n_frames += 1;
            let n_left = little_endian(header.get(4..).unwrap_or_default());
            if n_left > 0 {
                self.stage = Stage::Skip { n_left };
            }
            return Ok(());
        }
        let window = window_bytes(header);
        if window > WINDOW_BYTES_MAX {
            return Err(Trouble::BadEncoding);
        }
        self.frame = None;
        let ring_bytes = ring_bytes(window);
        let scratch = Scratch::default();
        let memory = self.pool.reserve(ring_bytes + scratch.n_bytes())?;
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(WINDOW_BYTES_MAX);
        decoder
            .reset(header)
            .map_err(|_refused| Trouble::BadEncoding)?;
        let has_checksum = descriptor(header) & 4 != 0;
        self.frame = Some(Frame {
            decoder,
            ring_bytes,
            scratch,
            memory,
        });
        self.stage = Stage::Block { has_checksum };
        Ok(())
    }

    fn block(&mut self, block: &[u8], sink: &mut impl FnMut(&[u8])) -> Result<(), Trouble> {
        let Some(frame) = &mut self.frame else {
            return Err(Trouble::BadEncoding);
        };
        frame.scratch.make_room(block)?;
        let n_bytes = frame.ring_bytes + frame.scratch.n_bytes();
        frame.memory.raise_to(n_bytes)?;
        let decoder = &mut frame.decoder;
        let is_last = decoder
            .decode_blocks(block, BlockDecodingStrategy::UptoBlocks(1))
            .map_err(|_broken| Trouble::BadEncoding)?;
        let mut buffer = [0; BUFFER_BYTES];
        loop {
            let n_made = decoder.read(&mut buffer).unwrap_or(0);
            if n_made == 0 {
                break;
            }
            let made = buffer.get(..n_made).unwrap_or_default();
            self.volume.pass_on(made, sink)?;
        }
        if is_last {
            self.frame = None;
            self.n_frames += 1;
            self.stage = Stage::Header;
        }
        Ok(())
    }
}

/// What the decoder's ring may take for that window: it keeps a window, a block is decoded behind
/// it, and it grows by powers of two beyond two blocks, into room of its own.
fn ring_bytes(window: u64) -> u64 {
    let n_needed = window + window.min(BLOCK_BYTES_MAX as u64);
    match n_needed.checked_sub(RING_SLACK_BYTES) {
        None | Some(0) => RING_SLACK_BYTES + RING_SLACK_BYTES / 2,
        Some(n_beyond) => {
            let n_beyond = n_beyond.next_power_of_two();
            n_beyond + n_beyond / 2 + 2 * RING_SLACK_BYTES
        }
    }
}

/// Bytes of the frame header that begins so, as far as it tells.
fn header_length(begun: &[u8]) -> Result<usize, Trouble> {
    let Some(magic) = begun.first_chunk::<4>() else {
        return Ok(4);
    };
    if is_skippable(begun) {
        return Ok(8);
    }
    if u32::from_le_bytes(*magic) != MAGIC {
        return Err(Trouble::BadEncoding);
    }
    let Some(descriptor) = begun.get(4) else {
        return Ok(5);
    };
    let n_window = usize::from(!is_single_segment(*descriptor));
    Ok(5 + n_window + dictionary_length(*descriptor) + content_size_length(*descriptor))
}

fn is_skippable(header: &[u8]) -> bool {
    header
        .first_chunk::<4>()
        .is_some_and(|magic| u32::from_le_bytes(*magic) & !0xF == SKIPPABLE_MAGIC)
}

fn descriptor(header: &[u8]) -> u8 {
    header.get(4).copied().unwrap_or(0)
}

fn is_single_segment(descriptor: u8) -> bool {
    descriptor & 0x20 != 0
}

fn dictionary_length(descriptor: u8) -> usize {
    match descriptor & 3 {
        3 => 4,
        n => usize::from(n),
    }
}

fn content_size_length(descriptor: u8) -> usize {
    match descriptor >> 6 {
        0 => usize::from(is_single_segment(descriptor)),
        n => 1 << n,
    }
}

/// The window that a whole frame header declares (RFC 8878, 3.1.1.1.2). A single segment's is its
/// content.
fn window_bytes(header: &[u8]) -> u64 {
    let flags = descriptor(header);
    if is_single_segment(flags) {
        let n_bytes = content_size_length(flags);
        let size = header
            .get(5 + dictionary_length(flags)..)
            .unwrap_or_default();
        let offset = if n_bytes == 2 { 256 } else { 0 };
        return little_endian(size).saturating_add(offset);
    }
    let window = header.get(5).copied().unwrap_or(0);
    let base = 1u64 << (10 + (window >> 3));
    base + base / 8 * u64::from(window & 7)
}

/// The number that up to eight bytes are.
fn little_endian(bytes: &[u8]) -> u64 {
    let bytes = bytes.iter().take(8).rev();
    bytes.fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn encoded(plain: &[u8]) -> Vec<u8> {
        compress_to_vec(plain, CompressionLevel::Fastest)
    }

    fn decoded(body: &[u8], n_chunk: usize) -> (Vec<u8>, Result<(), Trouble>, bool) {
        let mut zstd = Zstd::new(&DecoderPool::default());
        let mut out = Vec::new();
        let mut sink = |bytes: &[u8]| out.extend_from_slice(bytes);
        let outcome = body
            .chunks(n_chunk)
            .try_for_each(|chunk| zstd.push(chunk, &mut sink))
            .and_then(|()| zstd.finish(&mut sink));
        (out, outcome, zstd.is_complete())
    }

    /// A frame with that window, of raw blocks and blocks of one repeated byte.
    fn frame(window: u8, blocks: &[(&[u8], bool)]) -> Vec<u8> {
        let mut frame = MAGIC.to_le_bytes().to_vec();
        frame.extend_from_slice(&[0, window]);
        for (i, (content, is_repeated)) in blocks.iter().enumerate() {
            let size = if *is_repeated {
                BLOCK_BYTES_MAX
            } else {
                content.len()
            };
            let is_last = usize::from(i + 1 == blocks.len());
            let header = is_last | usize::from(*is_repeated) << 1 | size << 3;
            frame.extend_from_slice(&header.to_le_bytes()[..3]);
            frame.extend_from_slice(content);
        }
        frame
    }

    #[test]
    fn frames_and_skippable_frames_are_read_in_any_chunks() {
        let text = "the same words again and again, 1234567890 ".repeat(3000);
        let (first, second) = text.split_at(70_000);
        let mut body = encoded(first.as_bytes());
        body.extend_from_slice(&[0x5A, 0x2A, 0x4D, 0x18, 3, 0, 0, 0, 9, 9, 9]);
        body.extend_from_slice(&[0x50, 0x2A, 0x4D, 0x18, 0, 0, 0, 0]);
        body.extend_from_slice(&encoded(second.as_bytes()));
        body.extend_from_slice(&frame(0x58, &[(b"raw", false), (b"r", true), (b"", false)]));
        let expected = format!("{text}raw{}", "r".repeat(BLOCK_BYTES_MAX));
        for n_chunk in [1, 7, 4096, body.len()] {
            let (out, outcome, is_complete) = decoded(&body, n_chunk);
            assert!(out == expected.as_bytes(), "by {n_chunk}");
            assert_eq!((outcome, is_complete), (Ok(()), true));
        }
    }

    #[test]
    fn a_cut_frame_gives_all_blocks_that_came() {
        let blocks: [(&[u8], bool); 3] = [(b"one ", false), (b"two ", false), (b"three", false)];
        let body = frame(0x58, &blocks);
        for (length, expected) in [
            (3, ""),
            (9, ""),
            (12, ""),
            (13, "one "),
            (20, "one two "),
            (body.len() - 1, "one two "),
        ] {
            let (out, outcome, is_complete) = decoded(&body[..length], 5);
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{length}");
            assert_eq!((outcome, is_complete), (Ok(()), false));
        }
        assert!(decoded(&body, 5).2);
    }

    #[test]
    fn what_no_sender_may_send_is_refused() {
        let bad = Err(Trouble::BadEncoding);
        // 8 MiB are the most; the next larger window are 9.
        assert_eq!(decoded(&frame(13 << 3, &[(b"ok", false)]), 9).1, Ok(()));
        assert_eq!(decoded(&frame(13 << 3 | 1, &[(b"ok", false)]), 9).1, bad);
        assert_eq!(decoded(b"{\"model\":\"not zstd\"}", 4).1, bad);
        let mut with_dictionary = MAGIC.to_le_bytes().to_vec();
        with_dictionary.extend_from_slice(&[1, 0, 77, 1, 0, 0]);
        assert_eq!(decoded(&with_dictionary, 3).1, bad);
        // 1 MiB of literals in one block, from one byte.
        let literals = [1 | 3 << 2, 0, 0, 0xF0, b'x', 0];
        let mut too_many = frame(0x58, &[]);
        let header = 1 | 2 << 1 | literals.len() << 3;
        too_many.extend_from_slice(&header.to_le_bytes()[..3]);
        too_many.extend_from_slice(&literals);
        assert_eq!(decoded(&too_many, 3).1, bad);
        let too_long = [&frame(0, &[])[..], &[0xFF, 0xFF, 0xFF]].concat();
        assert_eq!(decoded(&too_long, 3).1, bad);
        let bomb = frame(0x58, &vec![(&b"b"[..], true); 1000]);
        let (out, outcome, _) = decoded(&bomb, 64);
        assert!(outcome == bad && out.len() < 32 << 20);
    }

    proptest! {
        #[test]
        fn broken_frames_are_survived(
            places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            n_chunk in 1usize..300,
        ) {
            let text = "{\"delta\":{\"content\":\"some text\"},\"index\":0}\n".repeat(40);
            let mut body = encoded(text.as_bytes());
            for (place, byte) in places {
                let at = place.index(body.len());
                body[at] = byte;
            }
            let pool = DecoderPool::default();
            let left = pool.n_bytes_left();
            let mut zstd = Zstd::new(&pool);
            let chunks = || body.chunks(n_chunk);
            let _ = chunks().try_for_each(|chunk| zstd.push(chunk, &mut |_| {}));
            let _ = zstd.finish(&mut |_| {});
            drop(zstd);
            prop_assert_eq!(pool.n_bytes_left(), left);
        }
    }
}
