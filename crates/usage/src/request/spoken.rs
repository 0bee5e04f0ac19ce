//! How many characters a text has, counted in its JSON as it streams by.
//!
//! <https://platform.openai.com/docs/api-reference/audio/createSpeech>: the answer is sound and
//! counts nothing; the older models are charged by the characters of `input`.

/// A text whose end has not come yet.
#[derive(Debug, Default)]
pub(super) struct CharCount {
    n_chars: u64,
    escape: Escape,
    /// A character has begun by the first half of a surrogate pair.
    is_half: bool,
}

/// Where within an escape the last byte was.
#[derive(Clone, Copy, Debug, Default)]
enum Escape {
    #[default]
    Outside,
    Begun,
    /// So many hexadecimal digits, and their number.
    Digits(u8, u32),
}

/// Digits of `\uXXXX`.
const DIGITS: u8 = 4;

impl CharCount {
    /// Takes the next bytes, escapes as they are written.
    pub(super) fn push(&mut self, raw: &[u8]) {
        for byte in raw {
            self.byte(*byte);
        }
    }

    /// The text has ended: how many characters it had. Another may begin.
    pub(super) fn take(&mut self) -> u64 {
        std::mem::take(self).n_chars
    }

    fn byte(&mut self, byte: u8) {
        self.escape = match (self.escape, byte) {
            (Escape::Outside, b'\\') => Escape::Begun,
            (Escape::Outside, _) => {
                // Bytes after a character's first begin with the bits 10.
                self.character(byte & 0b1100_0000 != 0b1000_0000);
                Escape::Outside
            }
            (Escape::Begun, b'u') => Escape::Digits(0, 0),
            (Escape::Begun, _) => {
                self.character(true);
                Escape::Outside
            }
            (Escape::Digits(n, unit), digit) => {
                let value = char::from(digit).to_digit(16).unwrap_or(0);
                let unit = unit << 4 | value;
                match n + 1 {
                    DIGITS => {
                        self.unit(unit);
                        Escape::Outside
                    }
                    n => Escape::Digits(n, unit),
                }
            }
        };
    }

    fn character(&mut self, begins: bool) {
        self.is_half = false;
        self.n_chars = self.n_chars.saturating_add(u64::from(begins));
    }

    /// A UTF-16 code unit.
    fn unit(&mut self, unit: u32) {
        match unit {
            0xDC00..=0xDFFF if self.is_half => self.is_half = false,
            _ => {
                self.character(true);
                self.is_half = matches!(unit, 0xD800..=0xDBFF);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_those_of_the_text() {
        for (raw, n_chars) in [
            ("", 0),
            ("Hi there", 8),
            ("Grüße, 世界 🙂", 11),
            (r#"a\"b\\c\n"#, 6),
            (r"\u00e9\u4e16", 2),
            (r"\ud83d\ude42!", 2),
            (r"\ud83dx\ude42", 3),
            (r"\ud83d\ud83d", 2),
            (r"\\u0041", 6),
        ] {
            for n in 1..=raw.len().max(1) {
                let mut count = CharCount::default();
                raw.as_bytes().chunks(n).for_each(|piece| count.push(piece));
                assert_eq!(count.take(), n_chars, "{raw} by {n}");
                assert_eq!(count.take(), 0);
            }
            let text: Option<String> = serde_json::from_str(&format!("\"{raw}\"")).ok();
            let parsed = text.map(|text| text.chars().count() as u64);
            assert!(parsed.is_none_or(|parsed| parsed == n_chars), "{raw}");
        }
    }
}
