//! Headers of other tools' conventions, read so that their users need not change an app.

use serde_json::{Map, Value};
use tollmesh_wire::plugin::{TagAlias, TagOrigin, is_tag_name, standard_tag};

use super::claims::Claims;
use super::named_by_rest;
use crate::headers::Headers;

/// What has no name of its own in `x-litellm-tags`.
const NAMELESS: &str = "tags";

pub(super) fn read(alias: TagAlias, headers: &Headers<'_>, claims: &mut Claims<'_>) {
    match alias {
        TagAlias::Helicone => helicone(headers, claims),
        TagAlias::Portkey => object("x-portkey-metadata", headers, claims),
        TagAlias::LiteLlm => litellm(headers, claims),
    }
}

/// `Helicone-User-Id`, `Helicone-Session-Id` and `Helicone-Property-[Name]`
/// (<https://docs.helicone.ai/helicone-headers/header-directory>).
fn helicone(headers: &Headers<'_>, claims: &mut Claims<'_>) {
    whole("helicone-user-id", "user", headers, claims);
    whole("helicone-session-id", "session", headers, claims);
    named_by_rest("helicone-property-", TagOrigin::Aliases, headers, claims);
}

/// `x-litellm-customer-id` and `x-litellm-end-user-id`, `x-litellm-spend-logs-metadata` (a JSON
/// object), `x-litellm-tags` (words with commas between them)
/// (<https://docs.litellm.ai/docs/proxy/request_headers>).
fn litellm(headers: &Headers<'_>, claims: &mut Claims<'_>) {
    const TAGS: &str = "x-litellm-tags";
    whole("x-litellm-customer-id", "customer", headers, claims);
    whole("x-litellm-end-user-id", "user", headers, claims);
    object("x-litellm-spend-logs-metadata", headers, claims);
    if let Some(list) = headers.get(TAGS) {
        words(list, claims);
        claims.remove(TAGS);
    }
}

/// A header whose value is a tag's.
fn whole(header: &'static str, tag: &str, headers: &Headers<'_>, claims: &mut Claims<'_>) {
    if let Some(value) = headers.get(header) {
        claims.claim(TagOrigin::Aliases, tag, value);
        claims.remove(header);
    }
}

/// A header whose value is a JSON object of tags, as `x-portkey-metadata`
/// (<https://portkey.ai/docs/product/observability/metadata>): what names the user is
/// `_user` there, and other reserved keys start with `_`, too.
fn object(header: &'static str, headers: &Headers<'_>, claims: &mut Claims<'_>) {
    let Some(json) = headers.get(header) else {
        return;
    };
    claims.remove(header);
    let Ok(members) = serde_json::from_slice::<Map<String, Value>>(json) else {
        claims.refuse();
        return;
    };
    for (key, value) in &members {
        let key = key.strip_prefix('_').unwrap_or(key).to_ascii_lowercase();
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text.clone(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            Value::Array(_) | Value::Object(_) => {
                claims.refuse();
                continue;
            }
        };
        match is_tag_name(&key) {
            true => claims.claim(TagOrigin::Aliases, standard_tag(&key), text.as_bytes()),
            false => claims.refuse(),
        }
    }
}

/// `key:value` is a tag, as LiteLLM's own examples write `jobID:214590`; words without a key stand
/// together in one tag, in their order.
fn words(list: &[u8], claims: &mut Claims<'_>) {
    let mut nameless: Vec<u8> = Vec::new();
    for word in list.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
        if let Some((tag, value)) = named(word) {
            claims.claim(TagOrigin::Aliases, standard_tag(&tag), value);
        } else if !word.is_empty() {
            nameless.extend_from_slice(if nameless.is_empty() { b"" } else { b"," });
            nameless.extend_from_slice(word);
        }
    }
    claims.claim(TagOrigin::Aliases, NAMELESS, &nameless);
}

fn named(word: &[u8]) -> Option<(String, &[u8])> {
    let colon = word.iter().position(|b| *b == b':')?;
    let (key, value) = word.split_at_checked(colon)?;
    let value = value.strip_prefix(b":")?;
    let key = std::str::from_utf8(key).ok()?.trim().to_ascii_lowercase();
    // What follows the colon of an address is no value.
    (is_tag_name(&key) && !value.starts_with(b"//")).then_some((key, value))
}
