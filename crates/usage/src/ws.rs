//! WebSocket frames (RFC 6455): one direction of a connection, cut anywhere, to its messages.
//!
//! Nothing is kept of a payload: it is handed on piece by piece, unmasked on the side where it was
//! masked. Frames with reserved bits belong to an extension (`permessage-deflate`), which is not
//! read: from the first frame that is against the RFC on, the rest of the direction is passed over.

/// Bytes of payload that are unmasked at a time, on the stack.
const UNMASKED_BYTES_MAX: usize = 512;
/// Two bytes, an extended length of eight, a masking key of four.
const HEAD_BYTES_MAX: usize = 14;
/// The longest payload of a control frame (RFC 6455, 5.5).
const CONTROL_BYTES_MAX: u64 = 125;

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PONG: u8 = 0xA;

/// A piece of what a direction carries, control frames left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// The next bytes of the message, text or binary.
    Data(&'a [u8]),
    /// The message has ended.
    End,
}

/// Reads the frames of one direction.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    state: State,
    /// Whether a message has begun whose last frame has not come.
    is_mid_message: bool,
}

#[derive(Debug)]
enum State {
    Head(Head),
    Payload(Payload),
    /// After a close frame nothing is sent any more.
    Closed,
    Broken,
}

/// The bytes of a frame's head that have come.
#[derive(Debug, Default)]
struct Head {
    bytes: [u8; HEAD_BYTES_MAX],
    n_bytes: usize,
}

#[derive(Debug)]
struct Payload {
    n_left: u64,
    key: Option<[u8; 4]>,
    /// Which byte of the key is next.
    key_at: usize,
    opcode: u8,
    is_final: bool,
}

impl Default for State {
    fn default() -> State {
        State::Head(Head::default())
    }
}

impl Frames {
    /// Takes the next bytes of the connection.
    pub(crate) fn push(&mut self, chunk: &[u8], mut take: impl FnMut(Part<'_>)) {
        let mut rest = chunk;
        while !rest.is_empty() {
            rest = match &mut self.state {
                State::Head(head) => {
                    let (byte, after) = rest.split_at(1);
                    head.push(byte.first().copied().unwrap_or(0));
                    if head.is_whole() {
                        self.begin(&mut take);
                    }
                    after
                }
                State::Payload(payload) => {
                    let after = payload.push(rest, &mut take);
                    if payload.n_left == 0 {
                        self.end(&mut take);
                    }
                    after
                }
                State::Closed | State::Broken => return,
            };
        }
    }

    /// Whether a frame was against the RFC, or used an extension.
    pub(crate) fn is_broken(&self) -> bool {
        matches!(self.state, State::Broken)
    }

    /// A frame's head has come.
    fn begin(&mut self, take: &mut impl FnMut(Part<'_>)) {
        let State::Head(head) = &self.state else {
            return;
        };
        match head.payload(self.is_mid_message) {
            None => self.state = State::Broken,
            Some(payload) => {
                let is_empty = payload.n_left == 0;
                self.state = State::Payload(payload);
                if is_empty {
                    self.end(take);
                }
            }
        }
    }

    /// A frame's last byte has come.
    fn end(&mut self, take: &mut impl FnMut(Part<'_>)) {
        let State::Payload(payload) = &self.state else {
            return;
        };
        if payload.is_data() {
            self.is_mid_message = !payload.is_final;
            if payload.is_final {
                take(Part::End);
            }
        }
        self.state = match payload.opcode {
            CLOSE => State::Closed,
            _ => State::default(),
        };
    }
}

impl Head {
    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.n_bytes) {
            *slot = byte;
        }
        self.n_bytes += 1;
    }

    fn is_whole(&self) -> bool {
        self.n_bytes >= 2 && self.n_bytes == 2 + self.n_length_bytes() + 4 * self.n_keys()
    }

    fn n_length_bytes(&self) -> usize {
        match self.bytes[1] & 0x7F {
            126 => 2,
            127 => 8,
            _ => 0,
        }
    }

    fn n_keys(&self) -> usize {
        usize::from(self.bytes[1] >> 7)
    }

    /// The bytes after the first two, in two groups: extended length, masking key.
    fn groups(&self) -> Option<(&[u8], &[u8])> {
        let after = self.bytes.get(2..self.n_bytes)?;
        after.split_at_checked(self.n_length_bytes())
    }

    /// The payload that follows; `None` where the frame is against the RFC.
    fn payload(&self, is_mid_message: bool) -> Option<Payload> {
        let [first, second, ..] = self.bytes;
        let (length, key) = self.groups()?;
        let n_left = match length.is_empty() {
            true => u64::from(second & 0x7F),
            false => length.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)),
        };
        let payload = Payload {
            n_left,
            key: key.try_into().ok(),
            key_at: 0,
            opcode: first & 0x0F,
            is_final: first & 0x80 != 0,
        };
        let has_reserved_bits = first & 0x70 != 0;
        // The highest bit of a long length is always 0 (5.2).
        let is_legal = !has_reserved_bits
            && n_left >> 63 == 0
            && match payload.opcode {
                CONTINUATION => is_mid_message,
                TEXT | BINARY => !is_mid_message,
                CLOSE..=PONG => payload.is_final && n_left <= CONTROL_BYTES_MAX,
                _ => false,
            };
        is_legal.then_some(payload)
    }
}

impl Payload {
    fn is_data(&self) -> bool {
        self.opcode < CLOSE
    }

    /// Takes what belongs to this frame, and gives back the rest.
    fn push<'a>(&mut self, bytes: &'a [u8], take: &mut impl FnMut(Part<'_>)) -> &'a [u8] {
        let n_left = usize::try_from(self.n_left).unwrap_or(usize::MAX);
        let (own, rest) = bytes.split_at(n_left.min(bytes.len()));
        self.n_left -= own.len() as u64;
        match self.key {
            _ if !self.is_data() => {}
            None => take(Part::Data(own)),
            Some(key) => self.unmask(key, own, take),
        }
        rest
    }

    fn unmask(&mut self, key: [u8; 4], bytes: &[u8], take: &mut impl FnMut(Part<'_>)) {
        let mut plain = [0; UNMASKED_BYTES_MAX];
        for piece in bytes.chunks(UNMASKED_BYTES_MAX) {
            let keys = key.iter().cycle().skip(self.key_at);
            for ((to, from), key) in plain.iter_mut().zip(piece).zip(keys) {
                *to = from ^ key;
            }
            self.key_at = (self.key_at + piece.len()) % key.len();
            take(Part::Data(plain.get(..piece.len()).unwrap_or_default()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A frame as RFC 6455, 5.2 draws it.
    fn frame(first: u8, key: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
        let masked = if key.is_some() { 0x80 } else { 0 };
        let mut bytes = vec![first];
        match payload.len() {
            n @ 0..=125 => bytes.push(masked | n as u8),
            n @ 126..=0xFFFF => {
                bytes.push(masked | 126);
                bytes.extend((n as u16).to_be_bytes());
            }
            n => {
                bytes.push(masked | 127);
                bytes.extend((n as u64).to_be_bytes());
            }
        }
        bytes.extend(key.unwrap_or_default().iter().take(4 * key.iter().len()));
        let keys = key.unwrap_or_default().into_iter().cycle();
        bytes.extend(payload.iter().zip(keys).map(|(byte, key)| byte ^ key));
        bytes
    }

    /// The messages of a direction, what has begun included, and whether it broke.
    fn read<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, bool) {
        let mut frames = Frames::default();
        let mut messages = vec![Vec::new()];
        for chunk in chunks {
            frames.push(chunk, |part| match part {
                Part::Data(bytes) => messages.last_mut().unwrap().extend_from_slice(bytes),
                Part::End => messages.push(Vec::new()),
            });
        }
        if messages.last().is_some_and(Vec::is_empty) {
            messages.pop();
        }
        (messages, frames.is_broken())
    }

    #[test]
    fn the_examples_of_the_rfc() {
        // RFC 6455, 5.7.
        let hello = b"Hello".to_vec();
        let long = vec![7; 65_536];
        for (bytes, messages) in [
            (b"\x81\x05\x48\x65\x6c\x6c\x6f".to_vec(), vec![&hello]),
            (
                b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58".to_vec(),
                vec![&hello],
            ),
            (
                b"\x01\x03\x48\x65\x6c\x80\x02\x6c\x6f".to_vec(),
                vec![&hello],
            ),
            (b"\x89\x05\x48\x65\x6c\x6c\x6f".to_vec(), vec![]),
            (
                b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58".to_vec(),
                vec![],
            ),
            (frame(0x82, None, &long), vec![&long]),
        ] {
            let expected: Vec<Vec<u8>> = messages.into_iter().cloned().collect();
            assert_eq!(read([bytes.as_slice()]), (expected, false));
        }
    }

    #[test]
    fn what_is_against_the_rfc_is_not_read() {
        let unfinished = frame(0x01, None, b"a");
        let after = |second: &[u8]| [unfinished.as_slice(), second].concat();
        for bytes in [
            frame(0xC1, None, b"compressed"),
            frame(0x91, None, b""),
            frame(0x83, None, b""),
            frame(0x8B, None, b""),
            frame(0x80, None, b"continues nothing"),
            after(&frame(0x81, None, b"before the last one's end")),
            frame(0x09, None, b"a ping in pieces"),
            frame(0x89, None, &[0; 126]),
            b"\x81\x7f\x80\0\0\0\0\0\0\0".to_vec(),
            b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0".to_vec(),
        ] {
            let whole = [bytes.as_slice(), &frame(0x81, None, b"x")].concat();
            let (messages, is_broken) = read([whole.as_slice()]);
            assert!(is_broken, "{bytes:x?}");
            assert!(!messages.contains(&b"x".to_vec()), "{bytes:x?}");
        }
    }

    #[test]
    fn a_length_that_never_comes_holds_nothing() {
        let mut bytes = b"\x81\x7f\x7f\xff\xff\xff\xff\xff\xff\xff".to_vec();
        bytes.extend([b'x'; 100]);
        let (messages, is_broken) = read([bytes.as_slice()]);
        assert_eq!(messages, [vec![b'x'; 100]]);
        assert!(!is_broken);
        assert!(size_of::<Frames>() <= 64);
    }

    #[test]
    fn after_a_close_nothing_is_read() {
        let bytes = [frame(0x88, None, b"\x03\xe8"), frame(0x81, None, b"x")].concat();
        assert_eq!(read([bytes.as_slice()]), (vec![], false));
    }

    /// The pieces of a message, and the key of its frames.
    type Message = (Vec<Vec<u8>>, Option<[u8; 4]>);

    /// Messages in frames: each in pieces, pings between them, masked or not.
    fn written(messages: &[Message]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (pieces, key) in messages {
            for (i, piece) in pieces.iter().enumerate() {
                let opcode = if i == 0 { TEXT } else { CONTINUATION };
                let is_final = if i + 1 == pieces.len() { 0x80 } else { 0 };
                bytes.extend(frame(is_final | opcode, *key, piece));
                bytes.extend(frame(0x89, *key, b"ping"));
            }
        }
        bytes
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in(
            messages in prop::collection::vec(
                (
                    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..700), 1..4),
                    prop::option::of(any::<[u8; 4]>()),
                ),
                0..5,
            ),
            n in 1..600_usize,
        ) {
            let bytes = written(&messages);
            let expected: Vec<Vec<u8>> = messages.iter().map(|(p, _)| p.concat()).collect();
            prop_assert_eq!(read(bytes.chunks(n)), (expected, false));
        }

        #[test]
        fn any_bytes_read_the_same_however_they_are_cut(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            n in 1..50_usize,
        ) {
            prop_assert_eq!(read(bytes.chunks(n)), read([bytes.as_slice()]));
        }
    }
}
