//! One captured string or atom: unescaped as it arrives, bounded.

/// The longest scalar that is captured, in bytes: model names, ids and reasons are far shorter.
/// A longer one is reported as too long.
pub const SCALAR_BYTES_MAX: usize = 256;

/// Where the next byte of a string stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    /// After a backslash.
    Started,
    /// Inside a `\u` escape: digits read, value so far.
    Hex { n_digits: u8, value: u16 },
}

/// The bytes of one scalar across chunk borders.
#[derive(Debug, Default)]
pub(super) struct Capture {
    bytes: Vec<u8>,
    is_too_long: bool,
    escape: Escape,
    /// The first half of a surrogate pair whose second half is due.
    surrogate: Option<u16>,
}

impl Capture {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.is_too_long = false;
        self.escape = Escape::None;
        self.surrogate = None;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && !self.is_too_long && self.surrogate.is_none()
    }

    /// Whether the next byte belongs to an escape sequence.
    pub(super) fn is_escaping(&self) -> bool {
        self.escape != Escape::None
    }

    /// Bytes without a backslash or closing quote.
    pub(super) fn plain(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.end_surrogate();
            self.append(bytes);
        }
    }

    /// Whether digits of a `\u` escape are due.
    pub(super) fn is_mid_hex(&self) -> bool {
        matches!(self.escape, Escape::Hex { .. })
    }

    /// Forgets a broken `\u`, so that a quote within it ends the string as everywhere else.
    pub(super) fn abandon_escape(&mut self) {
        self.escape = Escape::None;
        self.end_surrogate();
        self.append_char(char::REPLACEMENT_CHARACTER);
    }

    pub(super) fn start_escape(&mut self) {
        self.escape = Escape::Started;
    }

    /// The next byte of an escape sequence.
    pub(super) fn escaped(&mut self, byte: u8) {
        self.escape = match (self.escape, byte) {
            (Escape::Hex { n_digits, value }, _) => self.hex(n_digits, value, byte),
            (_, b'u') => Escape::Hex {
                n_digits: 0,
                value: 0,
            },
            (_, other) => {
                self.end_surrogate();
                self.append(&[unescape(other)]);
                Escape::None
            }
        };
    }

    fn hex(&mut self, n_digits: u8, value: u16, byte: u8) -> Escape {
        let digit = char::from(byte).to_digit(16).unwrap_or(0);
        let value = value << 4 | u16::try_from(digit).unwrap_or(0);
        if n_digits < 3 {
            return Escape::Hex {
                n_digits: n_digits + 1,
                value,
            };
        }
        self.unit(value);
        Escape::None
    }

    /// One UTF-16 unit; halves that do not meet become U+FFFD.
    fn unit(&mut self, unit: u16) {
        if let Some(high) = self.surrogate.take() {
            if let Some(Ok(whole)) = char::decode_utf16([high, unit]).next() {
                return self.append_char(whole);
            }
            self.append_char(char::REPLACEMENT_CHARACTER);
        }
        match char::from_u32(u32::from(unit)) {
            Some(whole) => self.append_char(whole),
            None if unit < 0xDC00 => self.surrogate = Some(unit),
            None => self.append_char(char::REPLACEMENT_CHARACTER),
        }
    }

    fn end_surrogate(&mut self) {
        if self.surrogate.take().is_some() {
            self.append_char(char::REPLACEMENT_CHARACTER);
        }
    }

    fn append_char(&mut self, whole: char) {
        self.append(whole.encode_utf8(&mut [0; 4]).as_bytes());
    }

    fn append(&mut self, bytes: &[u8]) {
        if self.bytes.len() + bytes.len() > SCALAR_BYTES_MAX {
            self.is_too_long = true;
        } else {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// The whole, once the scalar has ended; `None` when it is too long.
    pub(super) fn finish(&mut self) -> Option<&[u8]> {
        self.end_surrogate();
        (!self.is_too_long).then_some(self.bytes.as_slice())
    }
}

fn unescape(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b't' => b'\t',
        b'r' => b'\r',
        b'b' => 0x08,
        b'f' => 0x0C,
        other => other,
    }
}
