//! `gzip` (RFC 1952) and `deflate` (RFC 1950, and the raw RFC 1951 that some send instead).
//!
//! Checksums are not verified: a body that the client will refuse is metered as far as it goes.

use flate2::{Decompress, FlushDecompress, Status};

use super::Volume;
use super::pool::{DecoderPool, Reservation};
use crate::scan::Trouble;

/// The buffer through which everything is decoded, on the stack.
const BUFFER_BYTES: usize = 4096;

/// What a decoder takes: deflate's window of 32 KiB and its tables.
const DECODER_BYTES: u64 = 48 << 10;

/// gzip's trailer: checksum and length.
const TRAILER_BYTES: usize = 8;

/// gzip's flags: which optional fields the header has.
const FLAG_HEADER_CRC: u8 = 2;
const FLAG_EXTRA: u8 = 4;
const FLAG_NAME: u8 = 8;
const FLAG_COMMENT: u8 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The ten bytes with which a gzip member begins.
    Fixed {
        n_seen: usize,
    },
    ExtraLength {
        n_seen: usize,
        length: usize,
    },
    Extra {
        n_left: usize,
    },
    Name,
    Comment,
    HeaderCrc {
        n_left: usize,
    },
    Body,
    Trailer {
        n_left: usize,
    },
    /// The first byte of a `deflate` body: zlib or raw?
    Guess,
    /// A `deflate` body has ended.
    Ended,
}

/// The state of one body.
#[derive(Debug)]
pub(crate) struct Inflater {
    stage: Stage,
    is_gzip: bool,
    flags: u8,
    inner: Decompress,
    n_members: u32,
    volume: Volume,
    _memory: Reservation,
}

impl Inflater {
    pub(super) fn gzip(pool: &DecoderPool) -> Result<Inflater, Trouble> {
        Ok(Inflater {
            _memory: pool.reserve(DECODER_BYTES)?,
            stage: Stage::Fixed { n_seen: 0 },
            is_gzip: true,
            flags: 0,
            inner: Decompress::new(false),
            n_members: 0,
            volume: Volume::default(),
        })
    }

    pub(super) fn deflate(pool: &DecoderPool) -> Result<Inflater, Trouble> {
        Ok(Inflater {
            stage: Stage::Guess,
            is_gzip: false,
            ..Inflater::gzip(pool)?
        })
    }

    pub(super) fn is_complete(&self) -> bool {
        match self.stage {
            Stage::Fixed { n_seen: 0 } => self.n_members > 0,
            Stage::Ended => true,
            _ => false,
        }
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
        while let Some(byte) = rest.first() {
            let n_bytes = match self.stage {
                Stage::Body => self.body(rest, sink)?,
                Stage::Guess => {
                    // zlib's first byte names the method 8 in its low half (RFC 1950, 2.2); a raw
                    // block that begins so would be of the reserved type or stored and odd.
                    self.inner.reset(byte & 0x0F == 8);
                    self.stage = Stage::Body;
                    0
                }
                Stage::Ended => return Ok(()),
                _ => {
                    self.stage = self.header(*byte)?;
                    1
                }
            };
            rest = rest.get(n_bytes..).unwrap_or_default();
        }
        Ok(())
    }

    /// One byte outside the compressed data of a gzip member.
    fn header(&mut self, byte: u8) -> Result<Stage, Trouble> {
        Ok(match self.stage {
            Stage::Fixed { n_seen } => self.fixed(n_seen, byte)?,
            Stage::ExtraLength { n_seen: 0, .. } => Stage::ExtraLength {
                n_seen: 1,
                length: usize::from(byte),
            },
            Stage::ExtraLength { length, .. } => match length | usize::from(byte) << 8 {
                0 => self.after(FLAG_EXTRA),
                n_left => Stage::Extra { n_left },
            },
            Stage::Extra { n_left: 1 } => self.after(FLAG_EXTRA),
            Stage::Extra { n_left } => Stage::Extra { n_left: n_left - 1 },
            Stage::Name if byte == 0 => self.after(FLAG_NAME),
            Stage::Comment if byte == 0 => self.after(FLAG_COMMENT),
            Stage::HeaderCrc { n_left: 1 } => self.after(FLAG_HEADER_CRC),
            Stage::HeaderCrc { n_left } => Stage::HeaderCrc { n_left: n_left - 1 },
            Stage::Trailer { n_left: 1 } => {
                self.n_members += 1;
                Stage::Fixed { n_seen: 0 }
            }
            Stage::Trailer { n_left } => Stage::Trailer { n_left: n_left - 1 },
            other => other,
        })
    }

    fn fixed(&mut self, n_seen: usize, byte: u8) -> Result<Stage, Trouble> {
        let expected = match n_seen {
            0 => 0x1F,
            1 => 0x8B,
            2 => 8,
            _ => byte,
        };
        if byte != expected {
            // Padding after a member is no member.
            let is_padding = n_seen == 0 && self.n_members > 0;
            return is_padding.then_some(self.stage).ok_or(Trouble::BadEncoding);
        }
        if n_seen == 3 {
            self.flags = byte;
        }
        Ok(match n_seen {
            9 => self.after(0),
            _ => Stage::Fixed { n_seen: n_seen + 1 },
        })
    }

    /// The stage after the optional field of that flag (0: after the fixed part).
    fn after(&mut self, flag: u8) -> Stage {
        let has = |wanted: u8, passed: &[u8]| self.flags & wanted != 0 && !passed.contains(&flag);
        let all = [FLAG_EXTRA, FLAG_NAME, FLAG_COMMENT, FLAG_HEADER_CRC];
        if has(FLAG_EXTRA, &all) {
            return Stage::ExtraLength {
                n_seen: 0,
                length: 0,
            };
        }
        if has(FLAG_NAME, &[FLAG_NAME, FLAG_COMMENT, FLAG_HEADER_CRC]) {
            return Stage::Name;
        }
        if has(FLAG_COMMENT, &[FLAG_COMMENT, FLAG_HEADER_CRC]) {
            return Stage::Comment;
        }
        if has(FLAG_HEADER_CRC, &[FLAG_HEADER_CRC]) {
            return Stage::HeaderCrc { n_left: 2 };
        }
        self.inner.reset(false);
        Stage::Body
    }

    fn body(&mut self, input: &[u8], sink: &mut impl FnMut(&[u8])) -> Result<usize, Trouble> {
        let mut buffer = [0; BUFFER_BYTES];
        let mut n_used = 0;
        loop {
            let rest = input.get(n_used..).unwrap_or_default();
            let (before_in, before_out) = (self.inner.total_in(), self.inner.total_out());
            let outcome = self
                .inner
                .decompress(rest, &mut buffer, FlushDecompress::None);
            let n_read = usize::try_from(self.inner.total_in() - before_in).unwrap_or(0);
            let n_made = usize::try_from(self.inner.total_out() - before_out).unwrap_or(0);
            n_used += n_read;
            let made = buffer.get(..n_made).unwrap_or_default();
            self.volume.pass_on(made, sink)?;
            // What was made before the breach is read too.
            let status = outcome.map_err(|_broken| Trouble::BadEncoding)?;
            if status == Status::StreamEnd {
                self.stage = self.after_body();
                return Ok(n_used);
            }
            // Neither a buffer that was not filled nor input that was not read means the end: the
            // decompressor hands over what is left of its window before it reads on.
            if n_read == 0 && n_made == 0 {
                return match n_used == input.len() {
                    true => Ok(n_used),
                    false => Err(Trouble::BadEncoding),
                };
            }
        }
    }

    fn after_body(&self) -> Stage {
        if self.is_gzip {
            return Stage::Trailer {
                n_left: TRAILER_BYTES,
            };
        }
        Stage::Ended
    }
}
