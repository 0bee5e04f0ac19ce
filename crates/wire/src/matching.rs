//! The one judgement of whether a budget concerns a call, shared by both sides.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::event::{Event, Source};

/// What a call must be for a budget to concern it: every named value must be equal.
///
/// Keys are `provider`, `model`, the fields of [`Source`], and else names of tags. Values of
/// `provider` and of a source come from the mesh; a tag can never stand in for them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Match {
    wanted: BTreeMap<String, String>,
}

/// The facts about a call that a [`Match`] can speak of.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Who serves and bills it.
    pub provider: &'a str,
    /// The model that the request asked its provider for; where it named none, the one that served.
    /// Not the other way round: budgets judge a call before they can know who serves it, and must
    /// charge it to where it was judged (`gpt-4o` is answered by `gpt-4o-2024-08-06`).
    pub model: Option<&'a str>,
    /// What the headers claim.
    pub tags: &'a BTreeMap<String, String>,
    /// What the mesh knows.
    pub source: &'a Source,
}

impl<'a> From<&'a Event> for Subject<'a> {
    fn from(event: &'a Event) -> Subject<'a> {
        Subject {
            provider: &event.provider,
            model: [&event.model_put, &event.model_requested, &event.model]
                .into_iter()
                .find_map(Option::as_deref),
            tags: &event.tags,
            source: &event.source,
        }
    }
}

impl<'a> Subject<'a> {
    /// The value of that key: a field of the mesh's knowledge where the name is one, else a tag.
    pub fn value(&self, key: &str) -> Option<&'a str> {
        match key {
            "provider" => Some(self.provider),
            "model" => self.model,
            "namespace" => self.source.namespace.as_deref(),
            "workload" => self.source.workload.as_deref(),
            "service_account" => self.source.service_account.as_deref(),
            "principal" => self.source.principal.as_deref(),
            "pod" => self.source.pod.as_deref(),
            "node" => self.source.node.as_deref(),
            "cluster" => self.source.cluster.as_deref(),
            tag => self.tags.get(tag).map(String::as_str),
        }
    }
}

impl Match {
    /// A match on these values.
    pub fn new(wanted: BTreeMap<String, String>) -> Match {
        Match { wanted }
    }

    /// Whether it asks for nothing, and so matches every call.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Whether it asks for a value of that key, so that it cannot be judged before that is known.
    pub fn asks_for(&self, key: &str) -> bool {
        self.wanted.contains_key(key)
    }

    /// Whether every wanted value but that key's is there.
    pub fn matches_but_for(&self, key: &str, subject: &Subject<'_>) -> bool {
        self.wanted
            .iter()
            .all(|(k, value)| k == key || subject.value(k) == Some(value.as_str()))
    }

    /// Whether every wanted value is there.
    pub fn matches(&self, subject: &Subject<'_>) -> bool {
        self.wanted
            .iter()
            .all(|(key, value)| subject.value(key) == Some(value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect()
    }

    #[test]
    fn all_must_match_and_a_tag_never_stands_in_for_a_source() {
        let source = Source {
            namespace: Some("shop".into()),
            ..Source::default()
        };
        let tags = map(&[("team", "checkout"), ("service_account", "forged")]);
        let subject = Subject {
            provider: "openai",
            model: Some("gpt-5"),
            tags: &tags,
            source: &source,
        };
        let judge = |wanted: &[(&str, &str)]| Match::new(map(wanted)).matches(&subject);

        assert!(judge(&[]));
        assert!(judge(&[
            ("team", "checkout"),
            ("namespace", "shop"),
            ("provider", "openai")
        ]));
        assert!(!judge(&[("team", "checkout"), ("model", "gpt-5-mini")]));
        assert!(!judge(&[("service_account", "forged")]));

        let other = Match::new(map(&[("team", "checkout"), ("model", "gpt-5-mini")]));
        assert!(other.asks_for("model") && !other.asks_for("user"));
        assert!(other.matches_but_for("model", &subject));
        assert!(!other.matches_but_for("team", &subject));
    }
}
