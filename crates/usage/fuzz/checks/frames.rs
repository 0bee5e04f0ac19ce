//! WebSocket frames: however messages are framed, masked and cut, the same answers are read.

use tollmesh_usage::{Api, LiveAnswer, LiveScanner, Target};

use super::Input;

const APIS: [Api; 3] = [Api::OpenAiRealtime, Api::OpenAiResponses, Api::GeminiLive];

/// What a slow reading of a direction finds.
#[derive(Default)]
struct Messages {
    whole: Vec<Vec<u8>>,
    /// The message that has begun, if one has.
    begun: Option<Vec<u8>>,
    is_broken: bool,
}

/// Checks one input: what a server sends.
pub fn check(input: &[u8]) {
    let Some(input) = Input::new(input) else {
        return;
    };
    let choice = usize::from(input.choice);
    let target = Target::new(APIS[choice % APIS.len()], "provider");
    let (is_broken, answers) = answers(&target, input.body.chunks(input.body.len().max(1)));
    let cut_up = self::answers(&target, input.chunks());
    assert_eq!(cut_up, (is_broken, answers.clone()), "chunks show");
    let messages = Messages::read(input.body);
    assert_eq!(is_broken, messages.is_broken);
    let key = [input.choice, 0x5A, input.choice.rotate_left(3), 0];
    for (key, n_piece) in [
        (None, usize::MAX),
        (Some(key), usize::MAX),
        (None, input.chunk_bytes),
        (Some(key), input.chunk_bytes),
    ] {
        let bytes = messages.written(key, n_piece);
        let (is_broken, same) = self::answers(&target, bytes.chunks(input.chunk_bytes));
        assert!(!is_broken);
        assert_eq!(same, answers, "pieces of {n_piece}, masked with {key:?}");
    }
}

fn answers<'a>(target: &Target, chunks: impl Iterator<Item = &'a [u8]>) -> (bool, Vec<LiveAnswer>) {
    let mut scanner = LiveScanner::new(target);
    let mut answers = Vec::new();
    for chunk in chunks {
        answers.extend(scanner.push_server(chunk, 0));
    }
    answers.extend(scanner.finish(0));
    (scanner.is_broken(), answers)
}

impl Messages {
    /// Reads frame by frame (RFC 6455, 5.2), up to the first that is against the RFC.
    fn read(mut rest: &[u8]) -> Messages {
        let mut messages = Messages::default();
        while let Some((head, behind)) = Head::read(rest) {
            if !head.is_legal(messages.begun.is_some()) {
                messages.is_broken = true;
                break;
            }
            let n_own =
                usize::try_from(head.n_payload).map_or(behind.len(), |n| n.min(behind.len()));
            let (payload, later) = behind.split_at(n_own);
            let is_whole = n_own as u64 == head.n_payload;
            rest = later;
            if head.opcode < 8 {
                let keys = head.key.iter().cycle();
                let plain = payload.iter().zip(keys).map(|(byte, key)| byte ^ key);
                messages.begun.get_or_insert_default().extend(plain);
            }
            if !is_whole || (head.opcode == 8) {
                break;
            }
            if head.opcode < 8 && head.is_final {
                messages.whole.extend(messages.begun.take());
            }
        }
        messages
    }

    /// The same messages, in pieces of at most so many bytes with pings between.
    fn written(&self, key: Option<[u8; 4]>, n_piece: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let ended = self.whole.iter().map(|message| (message, true));
        let begun = self.begun.iter().map(|message| (message, false));
        for (message, is_ended) in ended.chain(begun) {
            // What is in small pieces may also have empty ones.
            let n_pieces = message.len().div_ceil(n_piece) + usize::from(n_piece < 3);
            for i in 0..n_pieces.max(1) {
                let from = (i.saturating_mul(n_piece)).min(message.len());
                let to = from.saturating_add(n_piece).min(message.len());
                let opcode = if i == 0 { 1 } else { 0 };
                let is_final = is_ended && i + 1 == n_pieces.max(1);
                let first = opcode | if is_final { 0x80 } else { 0 };
                frame(&mut bytes, first, key, &message[from..to]);
                if n_piece != usize::MAX {
                    frame(&mut bytes, 0x89, key, b"ping");
                }
            }
        }
        bytes
    }
}

/// The head of one frame.
struct Head {
    reserved: u8,
    opcode: u8,
    is_final: bool,
    n_payload: u64,
    key: [u8; 4],
}

impl Head {
    /// The head that the bytes begin with, and what is behind it; `None` where it is cut.
    fn read(bytes: &[u8]) -> Option<(Head, &[u8])> {
        let (&[first, second], rest) = bytes.split_first_chunk::<2>()?;
        let (n_payload, rest) = match second & 0x7F {
            126 => {
                let (length, rest) = rest.split_first_chunk::<2>()?;
                (u64::from(u16::from_be_bytes(*length)), rest)
            }
            127 => {
                let (length, rest) = rest.split_first_chunk::<8>()?;
                (u64::from_be_bytes(*length), rest)
            }
            n => (u64::from(n), rest),
        };
        let (key, rest) = match second & 0x80 {
            0 => (&[0; 4], rest),
            _ => rest.split_first_chunk::<4>()?,
        };
        let head = Head {
            reserved: first & 0x70,
            opcode: first & 0x0F,
            is_final: first & 0x80 != 0,
            n_payload,
            key: *key,
        };
        Some((head, rest))
    }

    fn is_legal(&self, is_mid_message: bool) -> bool {
        let is_known = matches!(self.opcode, 0..=2 | 8..=10);
        let is_control = self.opcode >= 8;
        let is_short = self.is_final && self.n_payload <= 125;
        let is_in_turn = (self.opcode == 0) == is_mid_message;
        self.reserved == 0
            && is_known
            && i64::try_from(self.n_payload).is_ok()
            && if is_control { is_short } else { is_in_turn }
    }
}

fn frame(bytes: &mut Vec<u8>, first: u8, key: Option<[u8; 4]>, payload: &[u8]) {
    let masked = if key.is_some() { 0x80 } else { 0 };
    bytes.push(first);
    match payload.len() {
        n @ 0..=125 => bytes.push(masked | n as u8),
        n => {
            bytes.push(masked | 127);
            bytes.extend((n as u64).to_be_bytes());
        }
    }
    bytes.extend(key.iter().flatten());
    let keys = key.unwrap_or_default().into_iter().cycle();
    bytes.extend(payload.iter().zip(keys).map(|(byte, key)| byte ^ key));
}
