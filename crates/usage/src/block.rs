//! Sixteen bytes at a time: the few questions about text that are asked of every byte of an answer.
//!
//! In a proxy's wasm VM no compiler finds vectors where a loop may end early, so that there they are
//! spelt out; elsewhere the same is said in loops that compilers do find vectors in.

/// The bytes that are looked at together.
pub(crate) const BLOCK_BYTES: usize = 16;

/// Sixteen bytes.
pub(crate) type Block = [u8; BLOCK_BYTES];

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
pub(crate) use plain::{
    difference, either, is_none, quotes_and_backslashes, quotes_backslashes_and_controls,
};
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub(crate) use vectors::{
    difference, either, is_none, quotes_and_backslashes, quotes_backslashes_and_controls,
};

/// Equality of two texts of one length. `memcmp` goes byte by byte in a wasm VM.
pub(crate) fn is_same(a: &[u8], b: &[u8]) -> bool {
    let (Some(a_end), Some(b_end)) = (a.last_chunk(), b.last_chunk()) else {
        return is_same_short(a, b);
    };
    // The last block overlaps the one before it, which is quicker than byte by byte.
    let blocks = a.as_chunks().0.iter().zip(b.as_chunks().0);
    let ends = difference(a_end, b_end);
    is_none(blocks.fold(ends, |before, (a, b)| either(before, difference(a, b))))
}

/// The same of texts shorter than a block: two overlapping halves, quarters, or bytes.
fn is_same_short(a: &[u8], b: &[u8]) -> bool {
    fn ends<const N: usize>(text: &[u8]) -> Option<([u8; N], [u8; N])> {
        Some((*text.first_chunk()?, *text.last_chunk()?))
    }
    match (ends::<8>(a), ends::<8>(b)) {
        (Some((a, a_end)), Some((b, b_end))) => {
            let number = u64::from_le_bytes;
            (number(a) ^ number(b)) | (number(a_end) ^ number(b_end)) == 0
        }
        _ => match (ends::<4>(a), ends::<4>(b)) {
            (Some((a, a_end)), Some((b, b_end))) => {
                let number = u32::from_le_bytes;
                (number(a) ^ number(b)) | (number(a_end) ^ number(b_end)) == 0
            }
            _ => a == b,
        },
    }
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod vectors {
    use core::arch::wasm32::{
        u8x16_bitmask, u8x16_eq, u8x16_lt, u8x16_splat, u64x2, v128, v128_any_true, v128_or,
        v128_xor,
    };

    use super::Block;

    /// A bit for each quote and backslash, the first byte's lowest.
    pub(crate) fn quotes_and_backslashes(block: &Block) -> u16 {
        u8x16_bitmask(quoting(vector(block)))
    }

    /// A bit for each byte that ends or changes a JSON string, or must not stand in one.
    pub(crate) fn quotes_backslashes_and_controls(block: &Block) -> u16 {
        let bytes = vector(block);
        let controls = u8x16_lt(bytes, u8x16_splat(0x20));
        u8x16_bitmask(v128_or(quoting(bytes), controls))
    }

    /// The bits in which two blocks differ.
    pub(crate) fn difference(a: &Block, b: &Block) -> v128 {
        v128_xor(vector(a), vector(b))
    }

    /// The bits of both.
    pub(crate) fn either(a: v128, b: v128) -> v128 {
        v128_or(a, b)
    }

    /// Whether there is no bit.
    pub(crate) fn is_none(difference: v128) -> bool {
        !v128_any_true(difference)
    }

    fn quoting(bytes: v128) -> v128 {
        let quotes = u8x16_eq(bytes, u8x16_splat(b'"'));
        v128_or(quotes, u8x16_eq(bytes, u8x16_splat(b'\\')))
    }

    fn vector(block: &Block) -> v128 {
        match block.as_chunks::<8>().0 {
            [low, high] => u64x2(u64::from_le_bytes(*low), u64::from_le_bytes(*high)),
            _ => u64x2(0, 0),
        }
    }
}

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
mod plain {
    use super::Block;

    /// A bit for each quote and backslash, the first byte's lowest.
    pub(crate) fn quotes_and_backslashes(block: &Block) -> u16 {
        mask(block, |byte| matches!(byte, b'"' | b'\\'))
    }

    /// A bit for each byte that ends or changes a JSON string, or must not stand in one.
    pub(crate) fn quotes_backslashes_and_controls(block: &Block) -> u16 {
        mask(block, |byte| matches!(byte, b'"' | b'\\') || byte < 0x20)
    }

    /// The bits in which two blocks differ.
    pub(crate) fn difference(a: &Block, b: &Block) -> u128 {
        u128::from_ne_bytes(*a) ^ u128::from_ne_bytes(*b)
    }

    /// The bits of both.
    pub(crate) fn either(a: u128, b: u128) -> u128 {
        a | b
    }

    /// Whether there is no bit.
    pub(crate) fn is_none(difference: u128) -> bool {
        difference == 0
    }

    /// No early end in the first loop, so that a block of plain text is one comparison of vectors.
    fn mask(block: &Block, is_special: impl Fn(u8) -> bool) -> u16 {
        let has_special = block
            .iter()
            .fold(false, |has, byte| has | is_special(*byte));
        if !has_special {
            return 0;
        }
        let bytes = block.iter().rev();
        bytes.fold(0, |mask, byte| mask << 1 | u16::from(is_special(*byte)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_at_every_place() {
        for byte in 0..=u8::MAX {
            for place in 0..BLOCK_BYTES {
                let mut block = [b'x'; BLOCK_BYTES];
                block[place] = byte;
                let bit = |is: bool| u16::from(is) << place;
                let is_quoting = byte == b'"' || byte == b'\\';
                assert_eq!(quotes_and_backslashes(&block), bit(is_quoting));
                let is_special = is_quoting || byte < b' ';
                assert_eq!(quotes_backslashes_and_controls(&block), bit(is_special));
                let difference = difference(&block, &[b'x'; BLOCK_BYTES]);
                assert_eq!(is_none(difference), byte == b'x');
            }
        }
    }

    #[test]
    fn one_byte_makes_the_difference_wherever_it_stands() {
        for length in 0..50 {
            let text = vec![b'x'; length];
            assert!(is_same(&text, &text.clone()));
            for at in 0..length {
                let mut other = text.clone();
                other[at] = b'y';
                assert!(!is_same(&text, &other), "{length} {at}");
            }
        }
    }
}
