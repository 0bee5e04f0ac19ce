//! The document inside `{"bytes":"…base64…"}`, as InvokeModel's stream wraps it
//! (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_PayloadPart.html>).

/// The key whose value is the document. Beside it stands only padding (`p`), which has no quotes.
const KEY: &[u8] = b"\"bytes\"";

/// The buffer through which everything is decoded, on the stack.
const BUFFER_BYTES: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// So many bytes of the key have come.
    Key {
        n_seen: usize,
    },
    /// The quote that begins the value is due.
    Quote,
    Value,
    Ended,
}

/// The state of one payload.
#[derive(Debug)]
pub(super) struct Unwrapper {
    stage: Stage,
    bits: u32,
    n_bits: u32,
}

impl Default for Unwrapper {
    fn default() -> Unwrapper {
        Unwrapper {
            stage: Stage::Key { n_seen: 0 },
            bits: 0,
            n_bits: 0,
        }
    }
}

impl Unwrapper {
    /// Takes the next bytes of the payload; `sink` is given the document's.
    pub(super) fn push(&mut self, piece: &[u8], mut sink: impl FnMut(&[u8])) {
        let mut buffer = [0; BUFFER_BYTES];
        let mut n_made = 0;
        for byte in piece {
            let Some(made) = self.byte(*byte) else {
                continue;
            };
            if let Some(slot) = buffer.get_mut(n_made) {
                *slot = made;
                n_made += 1;
            }
            if n_made == BUFFER_BYTES {
                sink(&buffer);
                n_made = 0;
            }
        }
        sink(buffer.get(..n_made).unwrap_or_default());
    }

    fn byte(&mut self, byte: u8) -> Option<u8> {
        match self.stage {
            Stage::Key { n_seen } => {
                let n_seen = match KEY.get(n_seen) == Some(&byte) {
                    true => n_seen + 1,
                    false => usize::from(byte == b'"'),
                };
                self.stage = match n_seen == KEY.len() {
                    true => Stage::Quote,
                    false => Stage::Key { n_seen },
                };
                None
            }
            Stage::Quote => {
                if byte == b'"' {
                    self.stage = Stage::Value;
                }
                None
            }
            Stage::Value if byte == b'"' => {
                self.stage = Stage::Ended;
                None
            }
            Stage::Value => self.digit(six_bits(byte)?),
            Stage::Ended => None,
        }
    }

    fn digit(&mut self, six: u32) -> Option<u8> {
        self.bits = self.bits << 6 | six;
        self.n_bits += 6;
        if self.n_bits < 8 {
            return None;
        }
        self.n_bits -= 8;
        let made = self.bits >> self.n_bits;
        self.bits &= (1 << self.n_bits) - 1;
        u8::try_from(made & 0xFF).ok()
    }
}

/// The value of a base64 digit (RFC 4648, 4); padding and anything else have none.
fn six_bits(byte: u8) -> Option<u32> {
    Some(u32::from(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn documents_are_unwrapped_in_any_chunks() {
        for document in [
            "",
            "a",
            "{\"ab\":1}",
            "{\"text\":\"é😀\"}",
            &"x".repeat(5000),
        ] {
            let base64 = STANDARD.encode(document);
            for payload in [
                format!(r#"{{"bytes":"{base64}","p":"abc"}}"#),
                format!(r#"{{ "p" : "abc", "bytes" : "{base64}" }}"#),
            ] {
                for n_chunk in [1, 3, payload.len()] {
                    let mut unwrapper = Unwrapper::default();
                    let mut out = Vec::new();
                    for piece in payload.as_bytes().chunks(n_chunk) {
                        unwrapper.push(piece, |bytes| out.extend_from_slice(bytes));
                    }
                    assert_eq!(String::from_utf8(out).unwrap(), document);
                }
            }
        }
    }
}
