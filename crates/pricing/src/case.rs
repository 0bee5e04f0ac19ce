//! Usage as people write it, with inclusive totals, to a call that can be priced.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{self, Deserializer};
use tollmesh_usage::{Bucket, Quantity, Unit, Usage};

use crate::cost::Call;

/// A line of usage: what `tollmesh extract` writes and what people note down. Unknown keys are
/// ignored: such lines carry much that has no price.
#[derive(Clone, Debug, Deserialize)]
pub struct Case {
    /// Whatever the writer calls it, as text.
    #[serde(default, deserialize_with = "text")]
    pub id: Option<String>,
    /// Who bills it.
    #[serde(default, deserialize_with = "or_default")]
    pub provider: String,
    /// The model that served.
    #[serde(default)]
    pub model: Option<String>,
    /// The model asked for.
    #[serde(default)]
    pub model_requested: Option<String>,
    /// When, in milliseconds since 1970; in JSON RFC 3339 with any offset, or a day in UTC.
    #[serde(
        default,
        rename = "timestamp",
        alias = "time",
        deserialize_with = "rfc3339"
    )]
    pub unix_ms: Option<i64>,
    /// The service tier, in the provider's word.
    #[serde(default)]
    pub service_tier: Option<String>,
    /// Facts that prices depend on.
    #[serde(default, alias = "pricing_context", deserialize_with = "facts")]
    pub context: BTreeMap<String, String>,
    /// Disjoint counts, where the writer has them; they win.
    #[serde(default)]
    pub buckets: Option<Usage>,
    /// Counts with inclusive totals.
    #[serde(default)]
    pub usage: Option<Inclusive>,
}

/// Counts as providers' consoles show them: totals that contain their parts. Absent is not zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Inclusive {
    /// All tokens read: caches, sound and images included.
    #[serde(default)]
    pub input_tokens: Option<u64>,
    /// All tokens produced: reasoning, sound and images included.
    #[serde(default)]
    pub output_tokens: Option<u64>,
    /// Read from the cache, sound included.
    #[serde(default, alias = "cache_read_tokens")]
    pub cache_read: Option<u64>,
    /// Written to the cache with its default time to live, the one-hour part not included.
    #[serde(default)]
    pub cache_write_5m: Option<u64>,
    /// Written to the cache, the one-hour part included.
    #[serde(default)]
    pub cache_write_tokens: Option<u64>,
    /// Written to the cache for one hour.
    #[serde(default, alias = "cache_write_1h_tokens")]
    pub cache_write_1h: Option<u64>,
    /// Thought; part of the output.
    #[serde(default, alias = "reasoning_tokens")]
    pub reasoning: Option<u64>,
    /// Sound read, that from the cache included.
    #[serde(default, alias = "audio_input_tokens", alias = "input_audio_tokens")]
    pub audio_in: Option<u64>,
    /// Sound read from the cache; part of both `cache_read` and `audio_in`.
    #[serde(default, alias = "cache_read_audio")]
    pub cache_read_audio_tokens: Option<u64>,
    /// Images read.
    #[serde(default, alias = "image_in")]
    pub image_input_tokens: Option<u64>,
    /// Sound produced; part of the output.
    #[serde(default, alias = "audio_output_tokens", alias = "output_audio_tokens")]
    pub audio_out: Option<u64>,
    /// Images produced; part of the output.
    #[serde(default, alias = "image_out")]
    pub image_output_tokens: Option<u64>,
    /// Web searches that the provider ran.
    #[serde(default)]
    pub web_searches: Option<Quantity>,
    /// Pages that the provider fetched.
    #[serde(default)]
    pub web_fetches: Option<Quantity>,
    /// File searches that the provider ran.
    #[serde(default)]
    pub file_searches: Option<Quantity>,
    /// Code interpreter sessions.
    #[serde(default)]
    pub code_sessions: Option<Quantity>,
    /// Runs of code, where each is charged.
    #[serde(default)]
    pub code_calls: Option<Quantity>,
    /// Searches of X.
    #[serde(default)]
    pub x_searches: Option<Quantity>,
    /// Searches of attached files.
    #[serde(default)]
    pub document_searches: Option<Quantity>,
    /// Maps look-ups.
    #[serde(default)]
    pub maps_queries: Option<Quantity>,
    /// Prompts answered with grounding.
    #[serde(default)]
    pub grounded_prompts: Option<Quantity>,
    /// Units of search or rerank.
    #[serde(default)]
    pub search_units: Option<Quantity>,
    /// Pages read by OCR.
    #[serde(default)]
    pub pages: Option<Quantity>,
    /// Seconds of sound.
    #[serde(default)]
    pub audio_seconds: Option<Quantity>,
    /// Seconds of video.
    #[serde(default)]
    pub video_seconds: Option<Quantity>,
    /// Images by the piece.
    #[serde(default)]
    pub images: Option<Quantity>,
    /// Characters turned into speech.
    #[serde(default)]
    pub characters: Option<Quantity>,
    /// Calls charged by the piece.
    #[serde(default)]
    pub requests: Option<Quantity>,
}

/// Totals that are less than their parts: such usage is wrong, and no price of it is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{total} is {tokens}, less than its parts together, {parts}")]
pub struct BadTotal {
    /// Which total.
    pub total: &'static str,
    /// What it says.
    pub tokens: u64,
    /// What its parts say.
    pub parts: u64,
}

impl Case {
    /// The disjoint counts.
    pub fn disjoint(&self) -> Result<Usage, BadTotal> {
        match (&self.buckets, &self.usage) {
            (Some(buckets), _) => Ok(buckets.clone()),
            (None, Some(inclusive)) => inclusive.disjoint(),
            (None, None) => Ok(Usage::new()),
        }
    }

    /// The call, to be priced at `now_ms` where the line names no instant.
    pub fn call<'a>(&'a self, usage: &'a Usage, now_ms: i64) -> Call<'a> {
        Call {
            provider: &self.provider,
            model: self.model.as_deref(),
            model_requested: self.model_requested.as_deref(),
            unix_ms: self.unix_ms.unwrap_or(now_ms),
            service_tier: self.service_tier.as_deref(),
            usage,
            inputs: None,
            context: &self.context,
        }
    }
}

impl Inclusive {
    /// Takes the parts out of the totals; a total that was not given is the sum of its parts.
    pub fn disjoint(&self) -> Result<Usage, BadTotal> {
        let cached_audio = self.cache_read_audio_tokens;
        let without = |total: &'static str, all: Option<u64>, part: Option<u64>| {
            all.map(|all| rest(total, all, &[part])).transpose()
        };
        let cached_text = without("cache_read", self.cache_read, cached_audio)?;
        let fresh_audio = without("audio_in", self.audio_in, cached_audio)?;
        let write = match self.cache_write_5m {
            Some(default) => Some(default),
            None => without(
                "cache_write_tokens",
                self.cache_write_tokens,
                self.cache_write_1h,
            )?,
        };
        let inputs = [
            (Bucket::CacheRead, cached_text),
            (Bucket::CacheWrite, write),
            (Bucket::CacheWrite1h, self.cache_write_1h),
            (Bucket::AudioInput, fresh_audio),
            (Bucket::CacheReadAudio, cached_audio),
            (Bucket::ImageInput, self.image_input_tokens),
        ];
        let outputs = [
            (Bucket::Reasoning, self.reasoning),
            (Bucket::AudioOutput, self.audio_out),
            (Bucket::ImageOutput, self.image_output_tokens),
        ];
        let mut usage = Usage::new();
        if let Some(total) = self.input_tokens {
            let parts = inputs.map(|(_, tokens)| tokens);
            usage.set(Bucket::Input, rest("input_tokens", total, &parts)?);
        }
        if let Some(total) = self.output_tokens {
            let parts = outputs.map(|(_, tokens)| tokens);
            usage.set(Bucket::Output, rest("output_tokens", total, &parts)?);
        }
        for (bucket, tokens) in inputs.into_iter().chain(outputs) {
            usage.set(bucket, tokens);
        }
        for (unit, amount) in self.units() {
            usage.set_unit(unit, amount);
        }
        Ok(usage)
    }

    fn units(&self) -> impl Iterator<Item = (Unit, Quantity)> {
        let amount = |unit| match unit {
            Unit::WebSearches => self.web_searches,
            Unit::WebFetches => self.web_fetches,
            Unit::FileSearches => self.file_searches,
            Unit::CodeSessions => self.code_sessions,
            Unit::CodeCalls => self.code_calls,
            Unit::XSearches => self.x_searches,
            Unit::DocumentSearches => self.document_searches,
            Unit::MapsQueries => self.maps_queries,
            Unit::GroundedPrompts => self.grounded_prompts,
            Unit::SearchUnits => self.search_units,
            Unit::Pages => self.pages,
            Unit::AudioSeconds => self.audio_seconds,
            Unit::VideoSeconds => self.video_seconds,
            Unit::Images => self.images,
            Unit::Characters => self.characters,
            Unit::Requests => self.requests,
        };
        Unit::ALL
            .into_iter()
            .filter_map(move |unit| Some((unit, amount(unit)?)))
    }
}

fn rest(total: &'static str, tokens: u64, parts: &[Option<u64>]) -> Result<u64, BadTotal> {
    let parts = parts
        .iter()
        .flatten()
        .fold(0u64, |sum, n| sum.saturating_add(*n));
    tokens.checked_sub(parts).ok_or(BadTotal {
        total,
        tokens,
        parts,
    })
}

/// A value that is one text, however it was written; anything else is none.
#[derive(Deserialize)]
#[serde(untagged)]
enum Word {
    Text(String),
    Flag(bool),
    Count(i64),
    Other(de::IgnoredAny),
}

impl Word {
    fn into_text(self) -> Option<String> {
        match self {
            Word::Text(text) => Some(text),
            Word::Flag(flag) => Some(flag.to_string()),
            Word::Count(count) => Some(count.to_string()),
            Word::Other(_) => None,
        }
    }
}

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Word::deserialize(deserializer)?.into_text())
}

fn facts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let facts = Option::<BTreeMap<String, Word>>::deserialize(deserializer)?.unwrap_or_default();
    let facts = facts.into_iter();
    Ok(facts
        .filter_map(|(fact, word)| Some((fact, word.into_text()?)))
        .collect())
}

fn rfc3339<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else {
        return Ok(None);
    };
    let day = || {
        let day: jiff::civil::Date = text.parse().ok()?;
        Some(day.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
    };
    let instant = text.parse::<jiff::Timestamp>().ok().or_else(day);
    let instant =
        instant.ok_or_else(|| de::Error::invalid_value(de::Unexpected::Str(&text), &"RFC 3339"))?;
    Ok(Some(instant.as_millisecond()))
}

fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disjoint(json: &str) -> Result<Usage, BadTotal> {
        serde_json::from_str::<Case>(json).unwrap().disjoint()
    }

    #[test]
    fn parts_leave_the_totals() {
        let usage = disjoint(
            r#"{"usage":{"input_tokens":100,"cache_read":20,"cache_write_5m":5,"cache_write_1h":7,
                "audio_in":8,"output_tokens":50,"reasoning":30,"audio_out":0,"web_searches":2}}"#,
        )
        .unwrap();
        assert_eq!(usage.get(Bucket::Input), Some(60));
        assert_eq!(usage.get(Bucket::Output), Some(20));
        assert_eq!(usage.get(Bucket::AudioOutput), Some(0));
        assert_eq!(usage.get(Bucket::ImageInput), None);
        assert_eq!(usage.unit(Unit::WebSearches), Some(Quantity::whole(2)));
        assert_eq!(
            (usage.input_total(), usage.output_total()),
            (Some(100), Some(50))
        );
    }

    #[test]
    fn the_one_hour_part_is_inside_cache_write_tokens_only() {
        let usage = disjoint(
            r#"{"usage":{"input_tokens":100,"cache_write_tokens":30,"cache_write_1h_tokens":10}}"#,
        )
        .unwrap();
        assert_eq!(usage.get(Bucket::CacheWrite), Some(20));
        assert_eq!(usage.get(Bucket::Input), Some(70));
    }

    #[test]
    fn totals_below_their_parts_are_refused() {
        let bad = disjoint(r#"{"usage":{"input_tokens":10,"cache_read":11}}"#).unwrap_err();
        assert_eq!(
            bad.to_string(),
            "input_tokens is 10, less than its parts together, 11"
        );
        assert!(disjoint(r#"{"usage":{"output_tokens":1,"reasoning":2}}"#).is_err());
    }

    #[test]
    fn cached_sound_is_in_both_totals() {
        let usage = disjoint(
            r#"{"usage":{"input_tokens":100,"cache_read_tokens":40,"audio_input_tokens":50,
                "cache_read_audio_tokens":30}}"#,
        )
        .unwrap();
        let count = |bucket| usage.get(bucket);
        assert_eq!(
            (count(Bucket::CacheRead), count(Bucket::CacheReadAudio)),
            (Some(10), Some(30))
        );
        assert_eq!(
            (count(Bucket::AudioInput), count(Bucket::Input)),
            (Some(20), Some(40))
        );
        assert_eq!(usage.input_total(), Some(100));
    }

    #[test]
    fn facts_and_names_may_be_written_in_any_way() {
        let line = r#"{"id":7,"provider":null,"timestamp":"2026-11-15",
            "context":{"a":"x","b":true,"c":1,"d":null,"e":[1]}}"#;
        let case: Case = serde_json::from_str(line).unwrap();
        assert_eq!(
            (case.id.as_deref(), case.provider.as_str()),
            (Some("7"), "")
        );
        let facts: Vec<_> = case
            .context
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        assert_eq!(facts, [("a", "x"), ("b", "true"), ("c", "1")]);
        assert_eq!(case.unix_ms, Some(1_794_700_800_000));
        assert!(serde_json::from_str::<Case>(r#"{"timestamp":"yesterday"}"#).is_err());
    }

    #[test]
    fn buckets_win_and_nulls_are_absent() {
        let line = r#"{"id":"a","provider":"openai","context":null,"service_tier":null,
            "timestamp":"2026-07-30T02:00:00+09:00","buckets":{"input":3},
            "usage":{"input_tokens":9,"cache_read":null}}"#;
        let case: Case = serde_json::from_str(line).unwrap();
        assert_eq!(case.disjoint().unwrap().get(Bucket::Input), Some(3));
        assert_eq!(case.unix_ms, Some(1_785_344_400_000));
    }
}
