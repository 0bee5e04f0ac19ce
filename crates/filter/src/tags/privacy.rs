//! Tag values that must not be told in the clear.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher24};
use tollmesh_wire::plugin::{SecretKey, TagShape, TagSources};

/// What hashes start with, so that they are taken for nothing else.
const MARK: &str = "h:";
/// How credentials start that say so: those of providers, clouds, forges and chat services, and
/// tokens in the form of RFC 7519.
const KEY_STARTS: &[&str] = &[
    "sk-",
    "sk_",
    "pk_",
    "rk_",
    "gsk_",
    "xai-",
    "hf_",
    "r8_",
    "pplx-",
    "AIza",
    "ya29.",
    "AKIA",
    "ASIA",
    "ABSK",
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "eyJ",
];
/// The shortest word that is taken for a credential by how it starts, bytes.
const STARTED_BYTES_MIN: usize = 16;
/// The shortest word that is taken for a credential by its mixture of characters, bytes: 24 random
/// bytes in base64. Identifiers are shorter, or of digits and small letters.
const MIXED_BYTES_MIN: usize = 32;

/// The hash that stands for a tag's value; `None` where the value may be told.
pub(super) fn hashed(sources: &TagSources, tag: &str, value: &str) -> Option<String> {
    let key = sources.hash_key.as_ref()?;
    let is_listed = sources.hash.iter().any(|name| name == tag);
    let has_shape = || sources.hash_shapes.iter().any(|s| has_shape(*s, value));
    (is_listed || has_shape()).then(|| hash(key, value))
}

/// SipHash-2-4 with 128 bits: equal for equal values under one key, and without the key nobody can
/// test a guessed value against it.
fn hash(key: &SecretKey, value: &str) -> String {
    let mut hasher = SipHasher24::new_with_key(&key.0);
    hasher.write(value.as_bytes());
    // The order in which the paper writes its outputs.
    let hash = hasher.finish128().as_u128().swap_bytes();
    format!("{MARK}{hash:032x}")
}

fn has_shape(shape: TagShape, value: &str) -> bool {
    match shape {
        TagShape::Email => has_email(value),
        TagShape::Key => value.split_whitespace().any(is_key),
    }
}

/// Whether an address stands anywhere in the text, also with its `@` percent-encoded.
fn has_email(value: &str) -> bool {
    let plain = value.replace("%40", "@");
    let mut rest = plain.as_str();
    while let Some((local, domain)) = rest.split_once('@') {
        let is_local = |c: char| c.is_alphanumeric() || "!#$%&'*+/=?^_`{|}~.-\"".contains(c);
        if local.ends_with(is_local) && starts_with_domain(domain) {
            return true;
        }
        rest = domain;
    }
    false
}

/// Whether two labels with a dot between them come first.
fn starts_with_domain(text: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '-' || c == '.';
    let end = text.find(|c| !is_part(c)).unwrap_or(text.len());
    let domain = text.get(..end).unwrap_or_default().trim_end_matches('.');
    let last = domain.rsplit_once('.');
    last.is_some_and(|(first, last)| !first.is_empty() && last.chars().count() >= 2)
}

fn is_key(word: &str) -> bool {
    let is_started = KEY_STARTS.iter().any(|start| word.starts_with(start));
    let has = |is: fn(&u8) -> bool| word.as_bytes().iter().any(is);
    let is_token = word
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-_+/=.".contains(&b));
    let is_mixed =
        has(u8::is_ascii_digit) && has(u8::is_ascii_uppercase) && { has(u8::is_ascii_lowercase) };
    (is_started && word.len() >= STARTED_BYTES_MIN)
        || (is_token && is_mixed && word.len() >= MIXED_BYTES_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_other_texts() {
        for (value, expected) in [
            ("alice@example.com", true),
            ("Alice <alice.b+c@mail.example.co.uk>", true),
            ("alice%40example.com", true),
            ("mailto:älice@exämple.de;x", true),
            ("@@alice@example.com.", true),
            ("alice@localhost", false),
            ("@alice", false),
            ("v1.2@beta", false),
            ("a @ b.com", false),
            ("alice", false),
        ] {
            assert_eq!(has_shape(TagShape::Email, value), expected, "{value}");
        }
    }

    #[test]
    fn keys_are_told_from_other_texts() {
        for (value, expected) in [
            ("sk-proj-0123456789abcdef", true),
            ("Bearer sk-ant-api03-xxxxxxxxxxxx", true),
            ("AIzaSyA00000000000000000000000000000000", true),
            ("eyJhbGciOiJIUzI1NiJ9.e30.x", true),
            ("pTq8Zr2mXw9LkV4bNc7JdF1hGs6YtR3e", true),
            ("sk-team", false),
            ("550e8400-e29b-41d4-a716-446655440000", false),
            ("4bf92f3577b34da6a3ce929d0e0e4736", false),
            (
                "a sentence that Has 3 capitals, AND more than 32 bytes",
                false,
            ),
            ("checkout", false),
        ] {
            assert_eq!(has_shape(TagShape::Key, value), expected, "{value}");
        }
    }

    #[test]
    fn a_hash_is_siphash_and_hangs_on_the_key() {
        let key = SecretKey(std::array::from_fn(|i| i as u8));
        // The first of `vectors_sip128` in github.com/veorq/SipHash, vectors.h.
        assert_eq!(hash(&key, ""), "h:a3817f04ba25a8e66df67214c7550293");
        assert_ne!(hash(&key, "alice"), hash(&SecretKey([7; 16]), "alice"));
        assert_ne!(hash(&key, "alice"), hash(&key, "bob"));
    }
}
