//! Tags that travel as members of W3C baggage.

use std::borrow::Cow;

use percent_encoding::percent_decode;
use tollmesh_wire::plugin::{TagOrigin, TagSources};

use super::claims::Claims;
use crate::headers::Headers;

/// Members of `baggage` (<https://www.w3.org/TR/baggage/>) that are on the list become tags and
/// leave the header; the others stay as they are, byte for byte.
pub(super) fn read(sources: &TagSources, headers: &Headers<'_>, claims: &mut Claims<'_>) {
    let mut rest: Vec<u8> = Vec::new();
    let mut has_taken = false;
    let lines = headers.iter().filter(|(name, _)| *name == b"baggage");
    for member in lines.flat_map(|(_, line)| line.split(|b| *b == b',')) {
        if take(sources, member, claims) {
            has_taken = true;
        } else if !member.trim_ascii().is_empty() {
            rest.extend_from_slice(if rest.is_empty() { b"" } else { b"," });
            rest.extend_from_slice(member);
        }
    }
    if !has_taken {
        return;
    }
    claims.remove("baggage");
    if !rest.is_empty() {
        claims.set("baggage", rest.trim_ascii().to_vec());
    }
}

/// Claims every tag that the member stands for; whether it stands for any.
fn take(sources: &TagSources, member: &[u8], claims: &mut Claims<'_>) -> bool {
    let Some((key, value)) = pair(member) else {
        return false;
    };
    let mut is_wanted = false;
    for (tag, wanted) in &sources.baggage {
        if wanted.as_bytes() == key {
            is_wanted = true;
            let decoded: Cow<'_, [u8]> = percent_decode(value).into();
            claims.claim(TagOrigin::Baggage, tag, &decoded);
        }
    }
    is_wanted
}

/// A member's key, and its value still encoded, without its properties.
fn pair(member: &[u8]) -> Option<(&[u8], &[u8])> {
    let pair = member.split(|b| *b == b';').next()?;
    let equals = pair.iter().position(|b| *b == b'=')?;
    let (key, value) = pair.split_at_checked(equals)?;
    let value = value.strip_prefix(b"=")?.trim_ascii();
    Some((key.trim_ascii(), value))
}
