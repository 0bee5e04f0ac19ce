//! How far a string goes whose text is not wanted: to the quote that ends it, over escapes.
//!
//! Text has an escape every few dozen bytes (a line's end, a quote), so that a search which begins
//! anew behind each one spends most of its time on beginning. Here sixteen bytes become a mask of
//! what is special among them, and escapes are taken out of the mask.

use crate::block::{BLOCK_BYTES, quotes_and_backslashes};

/// A run of a string's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Its length, without the quote.
    pub(super) n_bytes: usize,
    /// Whether the quote that ends the string is next; if not, the bytes have ended.
    pub(super) ends: bool,
    /// Whether the bytes ended behind a backslash, so that the next one is escaped.
    pub(super) is_escaped: bool,
}

/// The run at the start of `bytes`; `is_escaped` says whether a backslash came before.
pub(super) fn run(bytes: &[u8], is_escaped: bool) -> Run {
    let mut is_escaped = is_escaped;
    let mut n_before = 0;
    let (blocks, rest) = bytes.as_chunks::<BLOCK_BYTES>();
    for block in blocks {
        let mut mask = quotes_and_backslashes(block) & !u16::from(is_escaped);
        is_escaped = false;
        while mask != 0 {
            let place = mask.trailing_zeros();
            let at = place as usize;
            if block.get(at) == Some(&b'"') {
                return Run {
                    n_bytes: n_before + at,
                    ends: true,
                    is_escaped: false,
                };
            }
            // The backslash, and whatever it escapes.
            is_escaped = at == BLOCK_BYTES - 1;
            mask &= !(0b11 << place);
        }
        n_before += BLOCK_BYTES;
    }
    for (at, byte) in rest.iter().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'"' => {
                return Run {
                    n_bytes: n_before + at,
                    ends: true,
                    is_escaped: false,
                };
            }
            b'\\' => is_escaped = true,
            _ => {}
        }
    }
    Run {
        n_bytes: bytes.len(),
        ends: false,
        is_escaped,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn byte_by_byte(bytes: &[u8], mut is_escaped: bool) -> Run {
        for (n_bytes, byte) in bytes.iter().enumerate() {
            if *byte == b'"' && !is_escaped {
                return Run {
                    n_bytes,
                    ends: true,
                    is_escaped,
                };
            }
            is_escaped = *byte == b'\\' && !is_escaped;
        }
        Run {
            n_bytes: bytes.len(),
            ends: false,
            is_escaped,
        }
    }

    proptest! {
        #[test]
        fn a_run_is_what_byte_by_byte_finds(
            bytes in proptest::collection::vec(
                prop_oneof![6 => Just(b'x'), 3 => Just(b'\\'), 1 => Just(b'"'), 1 => any::<u8>()],
                0..80,
            ),
            is_escaped in any::<bool>(),
        ) {
            prop_assert_eq!(run(&bytes, is_escaped), byte_by_byte(&bytes, is_escaped));
        }
    }

    #[test]
    fn a_quote_and_a_backslash_at_every_place() {
        for length in 0..50 {
            for at in 0..length {
                for special in [b'"', b'\\'] {
                    let mut bytes = vec![b'x'; length];
                    bytes[at] = special;
                    for is_escaped in [false, true] {
                        let expected = byte_by_byte(&bytes, is_escaped);
                        assert_eq!(run(&bytes, is_escaped), expected, "{length} {at}");
                    }
                }
            }
        }
    }
}
