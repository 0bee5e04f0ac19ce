//! What a request's headers claim about the call: tags, read and then taken out.

use std::borrow::Cow;
use std::collections::BTreeMap;

use percent_encoding::percent_decode;
use tollmesh_wire::plugin::{TAG_VALUE_BYTES_MAX, TagSources, is_tag_name};

use crate::edit::HeaderEdit;
use crate::headers::Headers;
use crate::signature::Signature;

/// The most tags that one event carries, so that a caller cannot make events large. Those beyond
/// it are counted as `tags_refused`.
pub const TAGS_MAX: usize = 64;

/// The tags of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tagged {
    /// Name to value.
    pub tags: BTreeMap<String, String>,
    /// What takes the headers that carried them out of the request.
    pub edits: Vec<HeaderEdit>,
    /// Claims that could not be tags (not text, too many), and values that were cut.
    pub n_refused: u64,
}

/// Reads the tags of a request. Where several sources name a tag, a mapped header comes before a
/// prefixed one, before baggage, before a default; of a repeated header the first counts.
pub fn tags(sources: &TagSources, headers: &Headers<'_>, signature: &Signature<'_>) -> Tagged {
    let mut tagged = Tagged::default();
    mapped(sources, headers, &mut tagged);
    prefixed(sources, headers, &mut tagged);
    if !sources.baggage.is_empty() {
        baggage(sources, headers, &mut tagged);
    }
    for (name, value) in &sources.defaults {
        if !tagged.tags.contains_key(name) {
            tagged.tags.insert(name.clone(), value.clone());
        }
    }
    let strip = sources.strip;
    let may_edit = |edit: &HeaderEdit| strip && signature.leaves_header_free(edit.name());
    tagged.edits.retain(may_edit);
    tagged
}

/// The first required tag that is not there.
pub fn missing<'a>(sources: &'a TagSources, tags: &BTreeMap<String, String>) -> Option<&'a str> {
    let mut required = sources.required.iter();
    let absent = required.find(|name| !tags.contains_key(name.as_str()));
    absent.map(String::as_str)
}

fn mapped(sources: &TagSources, headers: &Headers<'_>, tagged: &mut Tagged) {
    for (tag, header) in &sources.headers {
        let mut values = headers.iter().filter(|(n, _)| *n == header.as_bytes());
        if let Some((_, value)) = values.next() {
            tagged.claim(tag, value);
            tagged.remove(header);
        }
    }
}

fn prefixed(sources: &TagSources, headers: &Headers<'_>, tagged: &mut Tagged) {
    let Some(prefix) = sources.header_prefix.as_deref() else {
        return;
    };
    for (header, value) in headers.iter() {
        let Some(tag) = header.strip_prefix(prefix.as_bytes()) else {
            continue;
        };
        let Ok(header) = std::str::from_utf8(header) else {
            continue;
        };
        match std::str::from_utf8(tag).ok().filter(|tag| is_tag_name(tag)) {
            Some(tag) => tagged.claim(tag, value),
            None => tagged.n_refused += 1,
        }
        tagged.remove(header);
    }
}

/// Members of `baggage` (<https://www.w3.org/TR/baggage/>) that are on the list become tags and
/// leave the header; the others stay as they are, byte for byte.
fn baggage(sources: &TagSources, headers: &Headers<'_>, tagged: &mut Tagged) {
    let mut rest: Vec<u8> = Vec::new();
    let mut has_taken = false;
    let lines = headers.iter().filter(|(name, _)| *name == b"baggage");
    for member in lines.flat_map(|(_, line)| line.split(|b| *b == b',')) {
        let Some((tag, value)) = wanted(sources, member) else {
            if !member.trim_ascii().is_empty() {
                rest.extend_from_slice(if rest.is_empty() { b"" } else { b"," });
                rest.extend_from_slice(member);
            }
            continue;
        };
        has_taken = true;
        let decoded: Cow<'_, [u8]> = percent_decode(value).into();
        tagged.claim(tag, &decoded);
    }
    if !has_taken {
        return;
    }
    tagged.remove("baggage");
    if !rest.is_empty() {
        let rest = rest.trim_ascii().to_vec();
        tagged.edits.push(HeaderEdit::Set("baggage".into(), rest));
    }
}

/// The tag that a baggage member stands for, and its value still encoded.
fn wanted<'s, 'm>(sources: &'s TagSources, member: &'m [u8]) -> Option<(&'s str, &'m [u8])> {
    let pair = member.split(|b| *b == b';').next()?;
    let equals = pair.iter().position(|b| *b == b'=')?;
    let (key, value) = pair.split_at_checked(equals)?;
    let value = value.strip_prefix(b"=")?.trim_ascii();
    let mut list = sources.baggage.iter();
    let (tag, _) = list.find(|(_, wanted)| wanted.as_bytes() == key.trim_ascii())?;
    Some((tag, value))
}

impl Tagged {
    fn claim(&mut self, tag: &str, value: &[u8]) {
        if self.tags.contains_key(tag) || value.trim_ascii().is_empty() {
            return;
        }
        let text = std::str::from_utf8(value.trim_ascii()).ok();
        let text = text.filter(|text| !text.chars().any(char::is_control));
        let Some(text) = text.filter(|_| self.tags.len() < TAGS_MAX) else {
            self.n_refused += 1;
            return;
        };
        let kept = text.floor_char_boundary(TAG_VALUE_BYTES_MAX);
        self.n_refused += u64::from(kept < text.len());
        let value = text.get(..kept).unwrap_or_default();
        self.tags.insert(tag.to_owned(), value.to_owned());
    }

    fn remove(&mut self, header: &str) {
        if self.edits.iter().all(|edit| edit.name() != header) {
            let name = Cow::Owned(header.to_owned());
            self.edits.push(HeaderEdit::Remove(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sources() -> TagSources {
        let map = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(k, v)| (k.to_string(), v.to_string()))
                .collect()
        };
        TagSources {
            headers: map(&[("team", "x-llm-team")]),
            baggage: map(&[("feature", "app.feature"), ("user", "enduser.id")]),
            defaults: map(&[("environment", "production")]),
            required: vec!["team".to_owned(), "feature".to_owned()],
            ..TagSources::default()
        }
    }

    fn read(pairs: &[(&str, &[u8])]) -> Tagged {
        let headers = pairs.iter().map(|(n, v)| (n.as_bytes(), *v)).collect();
        tags(&sources(), &headers, &Signature::None)
    }

    fn shown(tagged: &Tagged) -> String {
        let pairs = tagged.tags.iter().map(|(k, v)| format!("{k}={v}"));
        pairs.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_source_in_its_rank() {
        for (pairs, expected) in [
            (&[][..], "environment=production"),
            (
                &[("x-llm-team", b" red " as &[u8])],
                "environment=production team=red",
            ),
            (
                &[("x-llm-tag-team", b"blue"), ("x-llm-team", b"red")],
                "environment=production team=red",
            ),
            (&[("x-llm-tag-environment", b"test")], "environment=test"),
            (
                &[("x-llm-team", b""), ("x-llm-tag-team", b"blue")],
                "environment=production team=blue",
            ),
            (
                &[("x-llm-team", b"red"), ("x-llm-team", b"blue")],
                "environment=production team=red",
            ),
            (
                &[(
                    "baggage",
                    b"other=1, app.feature = caf%C3%A9%20bar ;p=1,x=y",
                )],
                "environment=production feature=café bar",
            ),
        ] {
            assert_eq!(shown(&read(pairs)), expected, "{pairs:?}");
        }
    }

    #[test]
    fn what_carried_a_tag_leaves_the_request() {
        let tagged = read(&[
            ("x-llm-team", b"red"),
            ("x-llm-tag-a", b"\xff"),
            ("x-llm-tag-a", b"2"),
            ("x-llm-tag-", b"nameless"),
            ("baggage", b"a=1,app.feature=f"),
            ("baggage", b"enduser.id=%ff, b=2;q"),
            ("x-other", b"stays"),
        ]);
        assert_eq!(
            shown(&tagged),
            "a=2 environment=production feature=f team=red"
        );
        assert_eq!(tagged.n_refused, 3);
        assert_eq!(
            tagged.edits,
            [
                HeaderEdit::Remove("x-llm-team".into()),
                HeaderEdit::Remove("x-llm-tag-a".into()),
                HeaderEdit::Remove("x-llm-tag-".into()),
                HeaderEdit::Remove("baggage".into()),
                HeaderEdit::Set("baggage".into(), b"a=1, b=2;q".to_vec()),
            ]
        );
        assert_eq!(read(&[("baggage", b"a=1")]).edits, []);
        let lone = read(&[("baggage", b"app.feature=f")]);
        assert_eq!(lone.edits, [HeaderEdit::Remove("baggage".into())]);
    }

    #[test]
    fn signed_headers_and_unstripped_ones_stay() {
        let pairs: [(&[u8], &[u8]); 2] = [(b"x-llm-team", b"red"), (b"x-llm-tag-a", b"1")];
        let headers = pairs.into_iter().collect();
        let signature = Signature::Aws {
            signed_headers: "host;x-llm-team",
        };
        let tagged = tags(&sources(), &headers, &signature);
        assert_eq!(tagged.edits, [HeaderEdit::Remove("x-llm-tag-a".into())]);
        let unstripped = TagSources {
            strip: false,
            ..sources()
        };
        let tagged = tags(&unstripped, &headers, &Signature::None);
        assert_eq!(tagged.edits, []);
        assert_eq!(tagged.tags["team"], "red");
    }

    #[test]
    fn missing_is_the_first_required_tag_that_is_not_there() {
        let sources = sources();
        let tagged = read(&[("x-llm-team", b"red")]);
        assert_eq!(missing(&sources, &tagged.tags), Some("feature"));
        assert_eq!(missing(&sources, &BTreeMap::new()), Some("team"));
    }

    #[test]
    fn bounds_hold_and_are_counted() {
        let names: Vec<String> = (0..100).map(|i| format!("x-llm-tag-n{i}")).collect();
        let pairs: Vec<(&str, &[u8])> = names.iter().map(|n| (n.as_str(), &b"v"[..])).collect();
        let tagged = read(&pairs);
        assert_eq!(tagged.tags.len(), TAGS_MAX + 1, "and one default");
        assert_eq!(tagged.n_refused, 36);
        assert_eq!(tagged.edits.len(), 100);

        let long = "é".repeat(200);
        let tagged = read(&[("x-llm-team", long.as_bytes())]);
        assert_eq!(tagged.tags["team"].len(), TAG_VALUE_BYTES_MAX);
        assert_eq!(tagged.n_refused, 1);
    }

    proptest! {
        #[test]
        fn any_header_is_harmless(
            values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 4)
        ) {
            let names = ["x-llm-team", "x-llm-tag-a", "baggage", "baggage"];
            let pairs: Vec<(&str, &[u8])> =
                names.iter().zip(&values).map(|(n, v)| (*n, v.as_slice())).collect();
            let tagged = read(&pairs);
            prop_assert!(tagged.tags.values().all(|v| v.len() <= TAG_VALUE_BYTES_MAX));
        }
    }
}
