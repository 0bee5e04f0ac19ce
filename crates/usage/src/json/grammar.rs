//! Whether the bytes so far are the beginning of one well-formed JSON text (RFC 8259).
//!
//! A scanner that is after a few values need not judge the rest; an editor must, since a body that
//! the provider will refuse has to reach it as the app wrote it.

use memchr::memchr2;

/// How deep values may nest. Parsers give up near here or sooner (CPython's at about 1,000,
/// `serde_json` at 128); a text that goes deeper counts as broken, so that it is never edited.
const DEPTH_MAX: usize = 1024;

/// A checker of one text, chunk by chunk.
#[derive(Debug)]
pub struct Grammar {
    state: State,
    /// How many objects and arrays are open.
    depth: usize,
    /// One bit for each open value, the outermost first: set for an object.
    objects: [u64; DEPTH_MAX / 64],
    /// The beginning of a character whose end is in the next chunk.
    cut_character: Vec<u8>,
}

/// What may come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A byte order mark or the value.
    Start,
    /// The rest of a byte order mark.
    Mark(&'static [u8]),
    /// A value.
    Value,
    /// A value, or the end of an array that is still empty.
    ValueOrEnd,
    /// A key.
    Key,
    /// A key, or the end of an object that is still empty.
    KeyOrEnd,
    /// The colon behind a key.
    Colon,
    /// A comma, or the end of what is open.
    CommaOrEnd,
    /// More of a string; a key if so said.
    Text { is_key: bool },
    /// The character behind a backslash.
    Escape { is_key: bool },
    /// That many more hexadecimal digits.
    Hex { is_key: bool, missing: u8 },
    /// The rest of `true`, `false` or `null`.
    Word(&'static [u8]),
    /// A number.
    Number(Digits),
    /// Nothing but white space.
    End,
    /// The text is broken.
    Broken,
}

/// Where in a number the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Digits {
    /// Behind the minus.
    Minus,
    /// Behind a leading zero.
    Zero,
    /// Behind a digit of the integer.
    Whole,
    /// Behind the point.
    Point,
    /// Behind a digit of the fraction.
    Fraction,
    /// Behind the `e`.
    Mark,
    /// Behind the exponent's sign.
    Sign,
    /// Behind a digit of the exponent.
    Exponent,
}

// === impl Grammar ===

impl Default for Grammar {
    fn default() -> Grammar {
        Grammar::new()
    }
}

impl Grammar {
    /// A checker at the start of a text.
    pub fn new() -> Grammar {
        Grammar {
            state: State::Start,
            depth: 0,
            objects: [0; DEPTH_MAX / 64],
            cut_character: Vec::new(),
        }
    }

    /// Whether all that was pushed may be the beginning of a well-formed text.
    pub fn is_sound(&self) -> bool {
        self.state != State::Broken
    }

    /// Whether what was pushed is a whole text.
    pub fn is_whole(&self) -> bool {
        match self.state {
            State::End => true,
            State::Number(digits) => self.depth == 0 && digits.may_end(),
            _ => false,
        }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, chunk: &[u8]) {
        if !self.take_characters(chunk) {
            self.state = State::Broken;
        }
        let mut rest = chunk;
        while let Some((&byte, behind)) = rest.split_first() {
            match self.state {
                State::Broken => return,
                State::Text { is_key } => rest = self.take_text(rest, is_key),
                State::Number(digits) => match digits.follow(byte) {
                    Some(next) => {
                        self.state = State::Number(next);
                        rest = behind;
                    }
                    // What is no part of the number is looked at again.
                    None if digits.may_end() => self.state = self.after_value(),
                    None => self.state = State::Broken,
                },
                state => {
                    self.state = self.step(state, byte);
                    rest = behind;
                }
            }
        }
    }

    fn step(&mut self, state: State, byte: u8) -> State {
        match (state, byte) {
            (State::Escape { is_key }, b'u') => State::Hex { is_key, missing: 4 },
            (State::Escape { is_key }, _) if is_escaped_alone(byte) => State::Text { is_key },
            (State::Hex { is_key, missing }, _) if byte.is_ascii_hexdigit() => {
                if missing > 1 {
                    State::Hex {
                        is_key,
                        missing: missing - 1,
                    }
                } else {
                    State::Text { is_key }
                }
            }
            (State::Escape { .. } | State::Hex { .. }, _) => State::Broken,
            (State::Word([first, rest @ ..]), _) if byte == *first => {
                if rest.is_empty() {
                    self.after_value()
                } else {
                    State::Word(rest)
                }
            }
            (State::Start, 0xEF) => State::Mark(&[0xBB, 0xBF]),
            (State::Mark([first, rest @ ..]), _) if byte == *first => {
                if rest.is_empty() {
                    State::Value
                } else {
                    State::Mark(rest)
                }
            }
            (State::Word(_) | State::Mark(_), _) => State::Broken,
            (State::Start, b' ' | b'\t' | b'\n' | b'\r') => State::Value,
            (_, b' ' | b'\t' | b'\n' | b'\r') => state,
            (State::ValueOrEnd, b']') | (State::KeyOrEnd, b'}') => self.close(byte),
            (State::Start | State::Value | State::ValueOrEnd, _) => self.open_value(byte),
            (State::Key | State::KeyOrEnd, b'"') => State::Text { is_key: true },
            (State::Colon, b':') => State::Value,
            (State::CommaOrEnd, b',') if self.is_in_object() => State::Key,
            (State::CommaOrEnd, b',') => State::Value,
            (State::CommaOrEnd, b']' | b'}') => self.close(byte),
            _ => State::Broken,
        }
    }

    fn open_value(&mut self, byte: u8) -> State {
        match byte {
            b'{' if self.open(true) => State::KeyOrEnd,
            b'[' if self.open(false) => State::ValueOrEnd,
            b'"' => State::Text { is_key: false },
            b't' => State::Word(b"rue"),
            b'f' => State::Word(b"alse"),
            b'n' => State::Word(b"ull"),
            b'-' => State::Number(Digits::Minus),
            b'0' => State::Number(Digits::Zero),
            b'1'..=b'9' => State::Number(Digits::Whole),
            _ => State::Broken,
        }
    }

    /// Whether there is room for one more object or array.
    fn open(&mut self, is_object: bool) -> bool {
        let Some(word) = self.objects.get_mut(self.depth / 64) else {
            return false;
        };
        let bit = 1 << (self.depth % 64);
        *word = if is_object { *word | bit } else { *word & !bit };
        self.depth += 1;
        true
    }

    fn close(&mut self, byte: u8) -> State {
        if self.is_in_object() != (byte == b'}') {
            return State::Broken;
        }
        self.depth = self.depth.saturating_sub(1);
        self.after_value()
    }

    fn is_in_object(&self) -> bool {
        let innermost = self.depth.saturating_sub(1);
        let word = self.objects.get(innermost / 64).copied().unwrap_or(0);
        self.depth > 0 && word >> (innermost % 64) & 1 == 1
    }

    fn after_value(&self) -> State {
        if self.depth == 0 {
            State::End
        } else {
            State::CommaOrEnd
        }
    }

    /// Goes to the end of the string, or of the chunk; returns what is behind.
    fn take_text<'a>(&mut self, rest: &'a [u8], is_key: bool) -> &'a [u8] {
        let mut rest = rest;
        loop {
            let end = memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
            let (text, mark) = rest.split_at_checked(end).unwrap_or_default();
            if text.iter().any(|b| *b < b' ') {
                self.state = State::Broken;
                return &[];
            }
            match mark {
                [] => return &[],
                [b'"', behind @ ..] => {
                    self.state = if is_key {
                        State::Colon
                    } else {
                        self.after_value()
                    };
                    return behind;
                }
                [_, next, behind @ ..] if is_escaped_alone(*next) => rest = behind,
                [_, behind @ ..] => {
                    self.state = State::Escape { is_key };
                    return behind;
                }
            }
        }
    }

    /// Whether the bytes go on as UTF-8.
    fn take_characters(&mut self, text: &[u8]) -> bool {
        let mut text = text;
        while !self.cut_character.is_empty()
            && let Some((&byte, behind)) = text.split_first()
        {
            text = behind;
            self.cut_character.push(byte);
            match std::str::from_utf8(&self.cut_character) {
                Ok(_) => self.cut_character.clear(),
                Err(e) if e.error_len().is_none() => {}
                Err(_) => return false,
            }
        }
        match std::str::from_utf8(text) {
            Ok(_) => true,
            Err(e) if e.error_len().is_none() => {
                let cut = text.get(e.valid_up_to()..).unwrap_or_default();
                self.cut_character.extend_from_slice(cut);
                true
            }
            Err(_) => false,
        }
    }
}

/// Whether the byte behind a backslash is all of an escape.
fn is_escaped_alone(byte: u8) -> bool {
    matches!(byte, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't')
}

// === impl Digits ===

impl Digits {
    /// Where the number stands behind that byte; `None` if the byte is no part of it.
    fn follow(self, byte: u8) -> Option<Digits> {
        Some(match (self, byte) {
            (Digits::Minus, b'0') => Digits::Zero,
            (Digits::Minus | Digits::Whole, b'0'..=b'9') => Digits::Whole,
            (Digits::Zero | Digits::Whole, b'.') => Digits::Point,
            (Digits::Point | Digits::Fraction, b'0'..=b'9') => Digits::Fraction,
            (Digits::Zero | Digits::Whole | Digits::Fraction, b'e' | b'E') => Digits::Mark,
            (Digits::Mark, b'+' | b'-') => Digits::Sign,
            (Digits::Mark | Digits::Sign | Digits::Exponent, b'0'..=b'9') => Digits::Exponent,
            _ => return None,
        })
    }

    fn may_end(self) -> bool {
        matches!(
            self,
            Digits::Zero | Digits::Whole | Digits::Fraction | Digits::Exponent
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    fn soundness(chunks: &[&[u8]]) -> (bool, bool) {
        let mut grammar = Grammar::new();
        chunks.iter().for_each(|chunk| grammar.push(chunk));
        (grammar.is_sound(), grammar.is_whole())
    }

    fn is_json(text: &[u8]) -> bool {
        std::str::from_utf8(text).is_ok() && serde_json::from_slice::<IgnoredAny>(text).is_ok()
    }

    #[test]
    fn texts_are_judged_as_serde_json_judges_them() {
        let texts: &[&[u8]] = &[
            b"{}",
            b" [ ] ",
            b"{\"a\":[1,{\"b\":null}],\"c\":-0.5e+7}",
            b"\"\\u00e9\\n\\\"\"",
            b"0",
            b"-0",
            b"01",
            b"1.",
            b".5",
            b"1e",
            b"-",
            b"+1",
            b"1e5",
            b"tru",
            b"trueish",
            b"nul",
            b"[1,]",
            b"{\"a\":1,}",
            b"{\"a\" 1}",
            b"{a:1}",
            b"[1 2]",
            b"[1}",
            b"{\"a\":1]",
            b"{} {}",
            b"\"\x01\"",
            b"\"\\x\"",
            b"\"\\u12g4\"",
            b"\"\xff\"",
            b"\"\xc3\"",
            b"",
            b"\"\xc3\xa9\"",
            b"{\"a\":}",
            b"]",
            b"{,}",
            b"[,]",
            b"{\"a\":1 \"b\":2}",
        ];
        for text in texts {
            assert_eq!(
                soundness(&[text]).1,
                is_json(text),
                "{}",
                text.escape_ascii()
            );
        }
    }

    #[test]
    fn every_beginning_of_a_sound_text_is_sound() {
        let text =
            "{\"a\":[1.5e-3,\"\\u00e9ü😀\",{\"b\":null,\"c\":[[],{}]}],\"d\":true}".as_bytes();
        for cut in 0..text.len() {
            assert_eq!(soundness(&[&text[..cut]]), (true, false), "{cut}");
            assert_eq!(
                soundness(&[&text[..cut], &text[cut..]]),
                (true, true),
                "{cut}"
            );
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |n: usize| ["[".repeat(n), "]".repeat(n)].concat().into_bytes();
        assert_eq!(soundness(&[&nested(DEPTH_MAX)]), (true, true));
        assert_eq!(soundness(&[&nested(DEPTH_MAX + 1)]), (false, false));
        assert_eq!(soundness(&[&b"[".repeat(100_000)]), (false, false));
    }

    proptest! {
        #[test]
        fn any_text_is_judged_alike_wherever_it_is_cut(
            text in "[\\[\\]{}:,\"\\\\ua1e0.\\-+trufalsn é]{0,24}",
            cut in any::<prop::sample::Index>(),
        ) {
            let text = text.as_bytes();
            let (head, tail) = text.split_at(cut.index(text.len() + 1));
            let verdict = soundness(&[text]);
            prop_assert_eq!(verdict.1, is_json(text));
            prop_assert_eq!(soundness(&[head, tail]), verdict);
        }
    }
}
