//! How many characters a JSON string has, counted as its bytes stream by.

/// Where in an escape the next byte stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    /// After a backslash.
    Started,
    /// Inside `\u`, with what its digits say so far of the second half of a surrogate pair.
    Hex { n_digits: u8, may_be_low: bool },
}

/// The count of one string.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Characters {
    n: u64,
    escape: Escape,
    has_ended: bool,
}

impl Characters {
    /// Takes the next bytes of the string, escapes as written; those of another begin anew.
    pub(super) fn push(&mut self, piece: &[u8]) {
        if self.has_ended {
            *self = Characters::default();
        }
        for byte in piece {
            self.byte(*byte);
        }
    }

    /// The string has ended: how many characters it has.
    pub(super) fn end(&mut self) -> u64 {
        if self.has_ended {
            self.n = 0;
        }
        self.has_ended = true;
        self.n
    }

    fn byte(&mut self, byte: u8) {
        self.escape = match (self.escape, byte) {
            (Escape::None, b'\\') => Escape::Started,
            // The first byte of a character in UTF-8.
            (Escape::None, _) => {
                self.n += u64::from(byte & 0xC0 != 0x80);
                Escape::None
            }
            (Escape::Started, b'u') => Escape::Hex {
                n_digits: 0,
                may_be_low: true,
            },
            (Escape::Started, _) => {
                self.n += 1;
                Escape::None
            }
            (
                Escape::Hex {
                    n_digits,
                    may_be_low,
                },
                _,
            ) => self.digit(byte, n_digits, may_be_low),
        };
    }

    /// Two escapes make one character beyond the basic plane: the second, from `\uDC00` on, is none
    /// of its own.
    fn digit(&mut self, byte: u8, n_digits: u8, may_be_low: bool) -> Escape {
        let fits = match n_digits {
            0 => byte.eq_ignore_ascii_case(&b'd'),
            1 => matches!(byte, b'c'..=b'f' | b'C'..=b'F'),
            _ => true,
        };
        let may_be_low = may_be_low && fits;
        if n_digits < 3 {
            return Escape::Hex {
                n_digits: n_digits + 1,
                may_be_low,
            };
        }
        self.n += u64::from(!may_be_low);
        Escape::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_counted_in_any_pieces() {
        for (text, n) in [
            ("", 0),
            ("Hi there.", 9),
            ("h\u{e9}llo \u{1f600}", 7),
            (r#"a\n\"\\\/\u00e9"#, 6),
            (r"\ud83d\ude00\uD83D\uDE00!", 3),
            (r"\ud7ff\ue000", 2),
        ] {
            for n_piece in [1, 2, 5, 100] {
                let mut characters = Characters::default();
                for piece in text.as_bytes().chunks(n_piece) {
                    characters.push(piece);
                }
                assert_eq!(characters.end(), n, "{text} by {n_piece}");
            }
        }
    }

    #[test]
    fn another_string_begins_anew() {
        let mut characters = Characters::default();
        characters.push(b"abc");
        assert_eq!(characters.end(), 3);
        characters.push(b"a");
        assert_eq!(characters.end(), 1);
        assert_eq!(characters.end(), 0);
    }
}
