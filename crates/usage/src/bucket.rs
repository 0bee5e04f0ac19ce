//! The one vocabulary of counts: disjoint token buckets, and units for what is not tokens.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One class of tokens. Every token of a call is in exactly one bucket, so sums are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bucket {
    /// Text read by the model that came from no cache.
    Input,
    /// Text read from the provider's prompt cache.
    CacheRead,
    /// Text written to the prompt cache with its default time to live.
    CacheWrite,
    /// Text written to the prompt cache for one hour (Anthropic's `ephemeral_1h`).
    CacheWrite1h,
    /// Audio read by the model that came from no cache.
    AudioInput,
    /// Audio read from the prompt cache.
    CacheReadAudio,
    /// Images read by the model, where the provider counts them apart.
    ImageInput,
    /// Text that the caller sees.
    Output,
    /// Text that the model thought; billed as output, mostly not relayed.
    Reasoning,
    /// Audio produced by the model.
    AudioOutput,
    /// Images produced by the model, where they are counted in tokens.
    ImageOutput,
}

impl Bucket {
    /// Every bucket, in the order in which they are shown.
    pub const ALL: [Bucket; 11] = [
        Bucket::Input,
        Bucket::CacheRead,
        Bucket::CacheWrite,
        Bucket::CacheWrite1h,
        Bucket::AudioInput,
        Bucket::CacheReadAudio,
        Bucket::ImageInput,
        Bucket::Output,
        Bucket::Reasoning,
        Bucket::AudioOutput,
        Bucket::ImageOutput,
    ];

    /// The bucket's name on the wire, in price files, in metrics and in the ledger.
    pub const fn name(self) -> &'static str {
        match self {
            Bucket::Input => "input",
            Bucket::CacheRead => "cache_read",
            Bucket::CacheWrite => "cache_write",
            Bucket::CacheWrite1h => "cache_write_1h",
            Bucket::AudioInput => "audio_input",
            Bucket::CacheReadAudio => "cache_read_audio",
            Bucket::ImageInput => "image_input",
            Bucket::Output => "output",
            Bucket::Reasoning => "reasoning",
            Bucket::AudioOutput => "audio_output",
            Bucket::ImageOutput => "image_output",
        }
    }

    /// The bucket of that name, or `None`.
    pub fn parse(name: &str) -> Option<Bucket> {
        Bucket::ALL.into_iter().find(|b| b.name() == name)
    }

    /// Whether the tokens were read (true) or produced (false) by the model.
    pub const fn is_input(self) -> bool {
        (self as usize) < (Bucket::Output as usize)
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Something that providers charge for and that is not a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unit {
    /// Web searches that the provider ran.
    WebSearches,
    /// Pages that the provider fetched for the model.
    WebFetches,
    /// File searches that the provider ran.
    FileSearches,
    /// Containers that code ran in, as the answer names them. Another answer may have used the same.
    CodeSessions,
    /// Runs of code, where each is charged.
    CodeCalls,
    /// Searches of posts and users of X.
    XSearches,
    /// Searches of the files attached to a message.
    DocumentSearches,
    /// Maps look-ups used to ground an answer.
    MapsQueries,
    /// Prompts answered with grounding (Gemini 2.x charges these and not queries).
    GroundedPrompts,
    /// Units of search or rerank (Cohere).
    SearchUnits,
    /// Pages read by OCR.
    Pages,
    /// Seconds of audio transcribed or produced.
    AudioSeconds,
    /// Seconds of video produced.
    VideoSeconds,
    /// Images produced, where they are charged by the piece.
    Images,
    /// Characters turned into speech.
    Characters,
    /// Calls charged by the piece.
    Requests,
}

impl Unit {
    /// Every unit, in the order in which they are shown.
    pub const ALL: [Unit; 16] = [
        Unit::WebSearches,
        Unit::WebFetches,
        Unit::FileSearches,
        Unit::CodeSessions,
        Unit::CodeCalls,
        Unit::XSearches,
        Unit::DocumentSearches,
        Unit::MapsQueries,
        Unit::GroundedPrompts,
        Unit::SearchUnits,
        Unit::Pages,
        Unit::AudioSeconds,
        Unit::VideoSeconds,
        Unit::Images,
        Unit::Characters,
        Unit::Requests,
    ];

    /// The unit's name on the wire, in price files and in the ledger.
    pub const fn name(self) -> &'static str {
        match self {
            Unit::WebSearches => "web_searches",
            Unit::WebFetches => "web_fetches",
            Unit::FileSearches => "file_searches",
            Unit::CodeSessions => "code_sessions",
            Unit::CodeCalls => "code_calls",
            Unit::XSearches => "x_searches",
            Unit::DocumentSearches => "document_searches",
            Unit::MapsQueries => "maps_queries",
            Unit::GroundedPrompts => "grounded_prompts",
            Unit::SearchUnits => "search_units",
            Unit::Pages => "pages",
            Unit::AudioSeconds => "audio_seconds",
            Unit::VideoSeconds => "video_seconds",
            Unit::Images => "images",
            Unit::Characters => "characters",
            Unit::Requests => "requests",
        }
    }

    /// The unit of that name, or `None`.
    pub fn parse(name: &str) -> Option<Unit> {
        Unit::ALL.into_iter().find(|u| u.name() == name)
    }
}

/// An amount of a [`Unit`], exact to a thousandth (audio is reported in fractions of a second).
///
/// In JSON a whole number where it is whole, else a decimal string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Quantity {
    thousandths: u64,
}

impl Quantity {
    /// `n` whole units; saturates at the largest quantity there is.
    pub const fn whole(n: u64) -> Quantity {
        Quantity {
            thousandths: n.saturating_mul(1000),
        }
    }

    /// `n` thousandths of a unit.
    pub const fn thousandths(n: u64) -> Quantity {
        Quantity { thousandths: n }
    }

    /// The quantity in thousandths of a unit.
    pub const fn as_thousandths(self) -> u64 {
        self.thousandths
    }

    /// A plain decimal such as `12`, `12.5` or `0.0404`; further digits are rounded half up.
    /// `None` for signs, exponents and anything else.
    pub fn parse(text: &str) -> Option<Quantity> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(fraction) {
            return None;
        }
        let mut thousandths = whole.parse::<u64>().ok()?.checked_mul(1000)?;
        let mut place = 100;
        for digit in fraction.bytes().take(3) {
            thousandths = thousandths.checked_add(u64::from(digit - b'0') * place)?;
            place /= 10;
        }
        if fraction.as_bytes().get(3).is_some_and(|d| *d >= b'5') {
            thousandths = thousandths.checked_add(1)?;
        }
        Some(Quantity { thousandths })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.thousandths / 1000, self.thousandths % 1000);
        if rest == 0 {
            return write!(f, "{whole}");
        }
        let text = format!("{whole}.{rest:03}");
        f.write_str(text.trim_end_matches('0'))
    }
}

/// Token counts by bucket, and amounts by unit. Absent is not zero: a count that the provider did
/// not report is `None`.
///
/// In JSON one flat object of bucket and unit names; absent counts are left out, unknown names are
/// ignored on reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    tokens: [Option<u64>; Bucket::ALL.len()],
    units: BTreeMap<Unit, Quantity>,
}

impl Usage {
    /// No count at all.
    pub fn new() -> Usage {
        Usage::default()
    }

    /// The tokens in that bucket, if the provider reported them.
    pub fn get(&self, bucket: Bucket) -> Option<u64> {
        self.tokens.get(bucket as usize).copied().flatten()
    }

    /// Sets a bucket; `None` makes it unreported.
    pub fn set(&mut self, bucket: Bucket, tokens: impl Into<Option<u64>>) {
        if let Some(slot) = self.tokens.get_mut(bucket as usize) {
            *slot = tokens.into();
        }
    }

    /// The same usage with one bucket set; for tables and tests.
    pub fn with(mut self, bucket: Bucket, tokens: u64) -> Usage {
        self.set(bucket, tokens);
        self
    }

    /// The amount of that unit, if the provider reported one.
    pub fn unit(&self, unit: Unit) -> Option<Quantity> {
        self.units.get(&unit).copied()
    }

    /// Sets the amount of a unit.
    pub fn set_unit(&mut self, unit: Unit, amount: Quantity) {
        self.units.insert(unit, amount);
    }

    /// Adds what another usage has; saturates.
    pub(crate) fn add(&mut self, other: &Usage) {
        for (bucket, n) in other.tokens() {
            let known = self.get(bucket).unwrap_or(0);
            self.set(bucket, known.saturating_add(n));
        }
        for (unit, quantity) in other.units() {
            let known = self.unit(unit).unwrap_or_default().as_thousandths();
            let whole = known.saturating_add(quantity.as_thousandths());
            self.set_unit(unit, Quantity::thousandths(whole));
        }
    }

    /// The reported buckets with their tokens, in [`Bucket::ALL`]'s order.
    pub fn tokens(&self) -> impl Iterator<Item = (Bucket, u64)> + '_ {
        Bucket::ALL
            .into_iter()
            .filter_map(|b| Some((b, self.get(b)?)))
    }

    /// The reported units with their amounts.
    pub fn units(&self) -> impl Iterator<Item = (Unit, Quantity)> + '_ {
        self.units.iter().map(|(u, q)| (*u, *q))
    }

    /// Whether no token count was reported (units may have been).
    pub fn has_no_tokens(&self) -> bool {
        self.tokens.iter().all(Option::is_none)
    }

    /// Whether nothing at all was reported.
    pub fn is_empty(&self) -> bool {
        self.has_no_tokens() && self.units.is_empty()
    }

    /// All tokens read, caches and media included; `None` if no input bucket was reported.
    pub fn input_total(&self) -> Option<u64> {
        self.total_of(Bucket::is_input)
    }

    /// All tokens produced, reasoning and media included; `None` if no output bucket was reported.
    pub fn output_total(&self) -> Option<u64> {
        self.total_of(|b| !b.is_input())
    }

    fn total_of(&self, wanted: impl Fn(Bucket) -> bool) -> Option<u64> {
        self.tokens()
            .filter(|(b, _)| wanted(*b))
            .map(|(_, n)| n)
            .reduce(u64::saturating_add)
    }
}

// === serde ===

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.thousandths.is_multiple_of(1000) {
            serializer.serialize_u64(self.thousandths / 1000)
        } else {
            serializer.collect_str(self)
        }
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Quantity, D::Error> {
        struct AsQuantity;
        impl Visitor<'_> for AsQuantity {
            type Value = Quantity;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number or a decimal string")
            }
            fn visit_u64<E: de::Error>(self, n: u64) -> Result<Quantity, E> {
                Ok(Quantity::whole(n))
            }
            fn visit_str<E: de::Error>(self, s: &str) -> Result<Quantity, E> {
                Quantity::parse(s).ok_or_else(|| E::invalid_value(de::Unexpected::Str(s), &self))
            }
        }
        deserializer.deserialize_any(AsQuantity)
    }
}

impl Serialize for Usage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (bucket, tokens) in self.tokens() {
            map.serialize_entry(bucket.name(), &tokens)?;
        }
        for (unit, amount) in self.units() {
            map.serialize_entry(unit.name(), &amount)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Usage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Usage, D::Error> {
        struct AsUsage;
        impl<'de> Visitor<'de> for AsUsage {
            type Value = Usage;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of bucket and unit names")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Usage, A::Error> {
                let mut usage = Usage::new();
                while let Some(name) = map.next_key::<String>()? {
                    if let Some(bucket) = Bucket::parse(&name) {
                        usage.set(bucket, map.next_value::<Option<u64>>()?);
                    } else if let Some(unit) = Unit::parse(&name) {
                        if let Some(amount) = map.next_value::<Option<Quantity>>()? {
                            usage.set_unit(unit, amount);
                        }
                    } else {
                        map.next_value::<de::IgnoredAny>()?;
                    }
                }
                Ok(usage)
            }
        }
        deserializer.deserialize_map(AsUsage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for bucket in Bucket::ALL {
            assert_eq!(Bucket::parse(bucket.name()), Some(bucket));
        }
        for unit in Unit::ALL {
            assert_eq!(Unit::parse(unit.name()), Some(unit));
        }
    }

    #[test]
    fn totals_are_inclusive_and_absent_is_not_zero() {
        let usage = Usage::new()
            .with(Bucket::Input, 10)
            .with(Bucket::CacheRead, 0);
        assert_eq!(usage.input_total(), Some(10));
        assert_eq!(usage.output_total(), None);
        assert_eq!(usage.get(Bucket::CacheWrite), None);
    }

    #[test]
    fn usage_is_one_flat_object() {
        let mut usage = Usage::new()
            .with(Bucket::Input, 3)
            .with(Bucket::Reasoning, 4);
        usage.set_unit(Unit::AudioSeconds, Quantity::thousandths(1_250));
        usage.set_unit(Unit::WebSearches, Quantity::whole(2));
        let text = serde_json::to_string(&usage).unwrap();
        assert_eq!(
            text,
            r#"{"input":3,"reasoning":4,"web_searches":2,"audio_seconds":"1.25"}"#
        );
        assert_eq!(serde_json::from_str::<Usage>(&text).unwrap(), usage);
        let newer = r#"{"input":3,"telepathy":9}"#;
        assert_eq!(
            serde_json::from_str::<Usage>(newer).unwrap().input_total(),
            Some(3)
        );
    }

    #[test]
    fn quantities_parse_as_plain_decimals() {
        for (text, thousandths) in [
            ("0", Some(0)),
            ("12", Some(12_000)),
            ("1.5", Some(1_500)),
            ("0.0006", Some(1)),
            ("", None),
            ("-1", None),
            ("1e3", None),
            (".5", None),
        ] {
            let got = Quantity::parse(text).map(Quantity::as_thousandths);
            assert_eq!(got, thousandths, "{text}");
        }
    }
}
