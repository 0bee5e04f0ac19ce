//! Fingerprints of request bodies: equal bodies are recognised, and nothing else is learnt.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher24};
use tollmesh_wire::plugin::SecretKey;

/// The keyed hash of a body as it streams by: SipHash-2-4 with 128 bits, a pseudo-random function
/// (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012). Without the key nobody can
/// test whether a guessed prompt was sent.
pub struct Fingerprint {
    hasher: SipHasher24,
    is_whole: bool,
}

impl Fingerprint {
    /// The fingerprint of no bytes yet.
    pub fn new(key: &SecretKey) -> Fingerprint {
        Fingerprint {
            hasher: SipHasher24::new_with_key(&key.0),
            is_whole: false,
        }
    }

    /// Takes the next bytes, as the app sent them.
    pub fn push(&mut self, chunk: &[u8], ends: bool) {
        self.hasher.write(chunk);
        self.is_whole |= ends;
    }

    /// 32 hexadecimal digits; `None` for a body whose end was not seen.
    pub fn finish(&self) -> Option<String> {
        let hash = self.hasher.finish128().as_u128();
        // The order in which the paper writes its outputs.
        self.is_whole.then(|| format!("{:032x}", hash.swap_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: SecretKey = SecretKey([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);

    fn of(pieces: &[&[u8]]) -> Option<String> {
        let mut fingerprint = Fingerprint::new(&KEY);
        for (i, piece) in pieces.iter().enumerate() {
            fingerprint.push(piece, i + 1 == pieces.len());
        }
        fingerprint.finish()
    }

    #[test]
    fn it_is_siphash() {
        // The first of `vectors_sip128` in github.com/veorq/SipHash, vectors.h.
        let none = of(&[b""]);
        assert_eq!(none.as_deref(), Some("a3817f04ba25a8e66df67214c7550293"));
    }

    #[test]
    fn a_body_that_was_cut_has_none() {
        let mut fingerprint = Fingerprint::new(&KEY);
        fingerprint.push(b"half", false);
        assert_eq!(fingerprint.finish(), None);
    }

    #[test]
    fn another_key_gives_another_fingerprint() {
        let mut other = Fingerprint::new(&SecretKey([7; 16]));
        other.push(b"body", true);
        assert_ne!(other.finish(), of(&[b"body"]));
    }

    proptest! {
        #[test]
        fn cuts_make_no_difference(body: Vec<u8>, at: prop::sample::Index) {
            let (head, tail) = body.split_at(at.index(body.len() + 1));
            prop_assert_eq!(of(&[head, tail]), of(&[&body]));
        }
    }
}
