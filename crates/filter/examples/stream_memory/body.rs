//! Bodies of any length, made while they are read and never held.

use std::io::Read;

use crate::framing::Framing;

/// One answer of a provider: its opening, as many pieces as fill it, its closing.
pub struct Body {
    framing: &'static Framing,
    /// Bytes still to be made, the closing aside.
    n_left: u64,
    is_closed: bool,
    ready: Vec<u8>,
    n_read: usize,
    words: Words,
}

impl Body {
    /// A body of about `n_bytes`.
    pub fn new(framing: &'static Framing, n_bytes: u64) -> Body {
        let mut ready = Vec::new();
        (framing.open)(&mut ready);
        let mut closing = Vec::new();
        (framing.close)(&mut closing);
        let n_fixed = (ready.len() + closing.len()) as u64;
        Body {
            framing,
            n_left: n_bytes.saturating_sub(n_fixed),
            is_closed: false,
            ready,
            n_read: 0,
            words: Words(0x9E37_79B9_7F4A_7C15),
        }
    }

    /// Makes what comes next; false at the end.
    fn refill(&mut self) -> bool {
        self.ready.clear();
        self.n_read = 0;
        if self.n_left > 0 {
            let text = self.words.next();
            (self.framing.piece)(&mut self.ready, &text);
            self.n_left = self.n_left.saturating_sub(self.ready.len() as u64);
            return true;
        }
        let closes = !self.is_closed;
        if closes {
            (self.framing.close)(&mut self.ready);
            self.is_closed = true;
        }
        closes
    }
}

impl Read for Body {
    fn read(&mut self, room: &mut [u8]) -> std::io::Result<usize> {
        let mut n_given = 0;
        while n_given < room.len() {
            if self.n_read == self.ready.len() && !self.refill() {
                break;
            }
            let piece = &self.ready[self.n_read..];
            let n_bytes = piece.len().min(room.len() - n_given);
            room[n_given..n_given + n_bytes].copy_from_slice(&piece[..n_bytes]);
            self.n_read += n_bytes;
            n_given += n_bytes;
        }
        Ok(n_given)
    }
}

/// Text that compresses about as text does: what repeats without end would be taken for a bomb.
struct Words(u64);

impl Words {
    fn next(&mut self) -> String {
        let mut text = String::with_capacity(64);
        for _ in 0..3 {
            // xorshift64: any sequence without a short period will do.
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            text += &format!(" word{:016x}", self.0);
        }
        text
    }
}
