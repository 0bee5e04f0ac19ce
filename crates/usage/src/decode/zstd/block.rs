//! What a block says of itself before it is decoded: its length, and the room that it will take.

use super::{CHECKSUM_BYTES, little_endian};
use crate::scan::Trouble;

/// The longest block, as it came and as it is decoded (RFC 8878, 3.1.1.2.4).
pub(super) const BLOCK_BYTES_MAX: usize = 128 << 10;

pub(super) const BLOCK_HEADER_BYTES: usize = 3;

/// Sequences of a block, at most: each decodes to three bytes at least (RFC 8878,
/// 3.1.1.3.2.1.1).
const SEQUENCES_MAX: usize = BLOCK_BYTES_MAX / 3;

/// What the decoder keeps for a sequence: three numbers.
const SEQUENCE_BYTES: usize = 12;

/// What the decoder takes for its tables, whatever a block has.
const TABLES_BYTES: usize = 64 << 10;

/// Bytes of the block that begins so, its header and what must come with it included; the
/// header's own where that has not come.
pub(super) fn block_length(begun: &[u8], has_checksum: bool) -> Result<usize, Trouble> {
    let Some(header) = begun.first_chunk::<BLOCK_HEADER_BYTES>() else {
        return Ok(BLOCK_HEADER_BYTES);
    };
    let header = usize::try_from(little_endian(header)).unwrap_or(usize::MAX);
    let (is_last, kind, size) = (header & 1 == 1, header >> 1 & 3, header >> 3);
    if size > BLOCK_BYTES_MAX {
        return Err(Trouble::BadEncoding);
    }
    let n_content = match kind {
        // One byte, repeated.
        1 => 1,
        _ => size,
    };
    let n_checksum = if is_last && has_checksum {
        CHECKSUM_BYTES
    } else {
        0
    };
    Ok(BLOCK_HEADER_BYTES + n_content + n_checksum)
}

/// The room that blocks take beside the ring. Its vectors grow, and never shrink within a frame.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// The longest block that came, by each of its parts, in bytes.
    n_encoded: usize,
    n_literals: usize,
    n_sequences: usize,
}

impl Scratch {
    /// Makes room for the block; the trouble is that no sender may send it.
    pub(super) fn make_room(&mut self, block: &[u8]) -> Result<(), Trouble> {
        let Some((header, content)) = block.split_first_chunk::<BLOCK_HEADER_BYTES>() else {
            return Err(Trouble::BadEncoding);
        };
        self.n_encoded = self.n_encoded.max(content.len());
        const COMPRESSED: u64 = 2;
        if little_endian(header) >> 1 & 3 != COMPRESSED {
            return Ok(());
        }
        let (n_literals, sequences) = literals(content).ok_or(Trouble::BadEncoding)?;
        let n_sequences = number_of_sequences(sequences).ok_or(Trouble::BadEncoding)?;
        if n_literals > BLOCK_BYTES_MAX || n_sequences > SEQUENCES_MAX {
            return Err(Trouble::BadEncoding);
        }
        self.n_literals = self.n_literals.max(n_literals);
        self.n_sequences = self.n_sequences.max(n_sequences * SEQUENCE_BYTES);
        Ok(())
    }

    /// What all of it may take. The block is kept here and by the decoder; a vector that grows has
    /// up to twice what it needs, and the longest may be copied once more as it does.
    pub(super) fn n_bytes(&self) -> u64 {
        let parts = [
            self.n_encoded,
            self.n_encoded,
            self.n_literals,
            self.n_sequences,
        ];
        let all = parts.iter().sum::<usize>() * 2;
        let longest = parts.into_iter().max().unwrap_or(0);
        (all + longest + TABLES_BYTES) as u64
    }
}

/// How many bytes the literals of a compressed block are, and what follows them (RFC 8878,
/// 3.1.1.3.1.1).
fn literals(content: &[u8]) -> Option<(usize, &[u8])> {
    let first = usize::from(*content.first()?);
    let (kind, format) = (first & 3, first >> 2 & 3);
    // The header's length, the bits of each size, and whether there are two of them.
    let (n_header, n_bits, shift) = match (kind, format) {
        (0 | 1, 0 | 2) => (1, 5, 3),
        (0 | 1, 1) => (2, 12, 4),
        (0 | 1, _) => (3, 20, 4),
        (_, 0 | 1) => (3, 10, 4),
        (_, 2) => (4, 14, 4),
        _ => (5, 18, 4),
    };
    let header = little_endian(content.get(..n_header)?);
    let mask = (1u64 << n_bits) - 1;
    let n_literals = usize::try_from(header >> shift & mask).ok()?;
    let n_content = match kind {
        0 => n_literals,
        1 => 1,
        _ => usize::try_from(header >> (shift + n_bits) & mask).ok()?,
    };
    Some((n_literals, content.get(n_header + n_content..)?))
}

/// RFC 8878, 3.1.1.3.2.1.
fn number_of_sequences(section: &[u8]) -> Option<usize> {
    let byte = |n: usize| section.get(n).copied().map(usize::from);
    Some(match byte(0)? {
        few @ 0..=127 => few,
        more @ 128..=254 => ((more - 128) << 8) + byte(1)?,
        _ => byte(1)? + (byte(2)? << 8) + 0x7F00,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_counted_before_they_are_decoded() {
        let raw = |n: u8| [&[n << 3][..], &vec![b'x'; n.into()], &[2]].concat();
        type Counted = Option<(usize, usize)>;
        let cases: [(&[u8], Counted); 7] = [
            (&raw(5), Some((5, 2))),
            // A byte repeated 1,000 times, then 300 sequences.
            (
                &[0b101 | (1000 << 4) as u8, (1000 >> 4) as u8, b'x', 129, 44],
                Some((1000, 300)),
            ),
            // Ten bits each: 600 literals from 2 bytes, then the most sequences there are.
            (
                &[
                    0b10 | (600 << 4) as u8,
                    (600 >> 4 | 2 << 6) as u8,
                    0,
                    1,
                    2,
                    255,
                    255,
                    255,
                ],
                Some((600, 0xFFFF + 0x7F00)),
            ),
            // 18 bits each: 70,000 literals from 1 byte.
            (&[0b1110, 0x17, 0x51, 0, 0, b'h', 0], Some((70_000, 0))),
            (&raw(5)[..4], None),
            (&raw(5)[..6], None),
            (&[], None),
        ];
        for (content, expected) in cases {
            let counted =
                literals(content).and_then(|(n, rest)| Some((n, number_of_sequences(rest)?)));
            assert_eq!(counted, expected, "{content:?}");
        }
    }
}
