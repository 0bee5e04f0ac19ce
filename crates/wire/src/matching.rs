//! The one judgement of whether a budget concerns a call, shared by both sides.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tollmesh_usage::pattern::{self, SNAPSHOT_DATES};

use crate::event::{Event, Source};

/// The key whose value is a pattern of names, and not one value.
pub const MODEL: &str = "model";

/// What a call must be for a budget to concern it: every named value must be equal, and the model
/// named so that the pattern fits ([`names_model`]).
///
/// Keys are `provider`, `model`, the fields of [`Source`], and else names of tags. Values of
/// `provider` and of a source come from the mesh; a tag can never stand in for them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Match {
    wanted: BTreeMap<String, String>,
    /// Further patterns of which one may fit the model's name.
    #[serde(skip)]
    other_names: Option<Arc<[String]>>,
}

/// Other names of models, as patterns, by the name that a `match` or an `except` says.
pub type ModelNames = BTreeMap<String, Arc<[String]>>;

/// The pattern in lower case, and, where it is a plain name, those of its dated snapshots: what it
/// means is what one of them fits.
pub fn forms(pattern: &str) -> impl Iterator<Item = String> {
    let pattern = pattern.to_ascii_lowercase();
    let dates = if is_pattern(&pattern) {
        &[]
    } else {
        &SNAPSHOT_DATES[..]
    };
    let dated = dates.iter().map(|date| format!("{pattern}{date}"));
    let dated: Vec<String> = dated.collect();
    std::iter::once(pattern).chain(dated)
}

/// Whether it stands for more than one name and its dated snapshots.
pub fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?', '#'])
}

/// Whether the pattern means the model of that name, in any case of letters: `*` stands for any
/// text, `?` for any one byte, `#` for a digit. One without them means that very name, and those of
/// its dated snapshots ([`SNAPSHOT_DATES`]), since apps choose between these and are served the same.
pub fn names_model(pattern: &str, name: &str) -> bool {
    let is_plain = !is_pattern(pattern);
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    if fits(pattern, name) {
        return true;
    }
    let date = name.split_at_checked(pattern.len());
    is_plain
        && date.is_some_and(|(stem, date)| {
            let mut dates = SNAPSHOT_DATES.iter();
            stem.eq_ignore_ascii_case(pattern) && dates.any(|form| fits(form.as_bytes(), date))
        })
}

/// What these say of the model of that name, by what [`names_model`] means: a name's word counts
/// before its model's, and that before those of patterns, of which the longest counts.
pub fn said_of<'m>(models: &'m BTreeMap<String, String>, name: &str) -> Option<&'m str> {
    if let Some(said) = models.get(name) {
        return Some(said);
    }
    let fitting = models.iter().filter(|(own, _)| names_model(own, name));
    let first = fitting.min_by_key(|(own, _)| (is_pattern(own), Reverse(own.len())));
    first.map(|(_, said)| said.as_str())
}

/// The model to be asked for in the place of that one, by what these replace. One that is meant by
/// a wider name than its own, and already is what would be put, stays.
pub fn replacement<'m>(models: &'m BTreeMap<String, String>, asked: &str) -> Option<&'m str> {
    let put = said_of(models, asked)?;
    let is_named = models.contains_key(asked);
    (is_named || !names_model(put, asked)).then_some(put)
}

/// Whether the whole name fits.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let takes = |wanted: &u8, byte| takes(*wanted, byte);
    pattern::fits(pattern, name, |part| *part == b'*', takes)
}

fn takes(wanted: u8, byte: u8) -> bool {
    match wanted {
        b'?' => true,
        b'#' => byte.is_ascii_digit(),
        own => own.eq_ignore_ascii_case(&byte),
    }
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
            MODEL => self.model,
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
        Match {
            wanted,
            other_names: None,
        }
    }

    /// The same, met too by those names of the model that it asks for.
    pub fn knowing(mut self, names: &ModelNames) -> Match {
        let own = self.wanted.get(MODEL).and_then(|model| names.get(model));
        self.other_names = own.cloned();
        self
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
        let mut others = self.wanted.iter().filter(|(own, _)| *own != key);
        others.all(|(own, value)| self.has(subject, own, value))
    }

    /// Whether every wanted value is there.
    pub fn matches(&self, subject: &Subject<'_>) -> bool {
        // The model comes last: it may have hundreds of names.
        let model = || self.wanted.get(MODEL);
        self.matches_but_for(MODEL, subject)
            && model().is_none_or(|model| self.has(subject, MODEL, model))
    }

    fn has(&self, subject: &Subject<'_>, key: &str, value: &str) -> bool {
        match (key, subject.value(key)) {
            (MODEL, Some(name)) => {
                let mut others = self.other_names.iter().flat_map(|names| names.iter());
                names_model(value, name) || others.any(|other| names_model(other, name))
            }
            (_, found) => found == Some(value),
        }
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

    #[test]
    fn a_model_is_known_by_each_of_its_names() {
        for (pattern, name, wanted) in [
            ("gpt-4o", "gpt-4o", true),
            ("gpt-4o", "GPT-4o", true),
            ("GPT-4o", "gpt-4O", true),
            ("gpt-4o", "gpt-4o-2024-08-06", true),
            ("gpt-4o", "GPT-4o-20240806", true),
            ("gpt-4o", "gpt-4o@20240806", true),
            ("gpt-4o", "gpt-4o@default", true),
            ("gpt-4o", "gpt-4o-mini", false),
            ("gpt-4o", "gpt-4o-mini-2024-07-18", false),
            ("gpt-4o", "gpt-4", false),
            ("gpt-4o-2024-08-06", "gpt-4o", false),
            ("gpt-4o-2024-08-06", "gpt-4o-2024-11-20", false),
            ("gpt-4o*", "GPT-4o-mini", true),
            ("*4o", "gpt-4o", true),
            // A pattern says itself where dates may stand.
            ("*4o", "gpt-4o-2024-08-06", false),
            ("gpt-4-0###", "gpt-4-0613", true),
            ("gpt-4-0###", "gpt-4-turbo", false),
            ("??.gpt", "eu.gpt", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b", false),
            ("*", "", true),
            ("gpt-\u{e4}", "gpt-\u{e4}", true),
            ("gpt", "gp\u{e4}", false),
        ] {
            assert_eq!(names_model(pattern, name), wanted, "{pattern} {name}");
            let lower = name.to_ascii_lowercase();
            let by_form = forms(pattern).any(|form| fits(form.as_bytes(), lower.as_bytes()));
            assert_eq!(by_form, wanted, "{pattern} {name}");
        }
    }

    #[test]
    fn a_replacement_is_found_by_each_name_and_the_nearest_one_counts() {
        let models = map(&[
            ("gpt-4o", "gpt-4o-mini"),
            ("gpt-4o-2024-08-06", "gpt-4o"),
            ("gpt-*", "gpt-5-nano"),
            ("gpt-4*", "gpt-4.1-mini"),
            ("a#####", "x"),
        ]);
        for (asked, wanted) in [
            ("gpt-4o", Some("gpt-4o-mini")),
            ("GPT-4o", Some("gpt-4o-mini")),
            ("gpt-4o-2024-11-20", Some("gpt-4o-mini")),
            ("gpt-4o-2024-08-06", Some("gpt-4o")),
            ("gpt-4-turbo", Some("gpt-4.1-mini")),
            ("gpt-4.1-mini", None),
            ("GPT-4.1-mini-2025-04-14", None),
            ("gpt-5", Some("gpt-5-nano")),
            ("gpt-5-nano", None),
            ("o3", None),
        ] {
            assert_eq!(replacement(&models, asked), wanted, "{asked}");
        }
    }

    #[test]
    fn other_names_of_a_model_meet_its_match_alone() {
        let names: ModelNames = [("gpt-4o".into(), ["chatgpt-4o".into()].into())].into();
        let (tags, source) = (map(&[("team", "gpt-4o")]), Source::default());
        let judge = |wanted: &[(&str, &str)], model: &str| {
            let subject = Subject {
                provider: "openai",
                model: Some(model),
                tags: &tags,
                source: &source,
            };
            Match::new(map(wanted)).knowing(&names).matches(&subject)
        };
        assert!(judge(&[("model", "gpt-4o")], "ChatGPT-4o-2026-01-02"));
        assert!(judge(&[("model", "gpt-4o"), ("team", "gpt-4o")], "gpt-4o"));
        assert!(!judge(&[("model", "gpt-5")], "chatgpt-4o"));
        // Tags are compared letter by letter.
        assert!(!judge(&[("team", "GPT-4o")], "gpt-4o"));
        assert!(!judge(&[("team", "gpt-*")], "gpt-4o"));
    }
}
