//! The result of scanning one exchange: the usage found, and what was wrong.

use std::collections::BTreeMap;

use crate::bucket::Usage;
use crate::estimate::Basis;
use crate::relayed::Relayed;

/// Where the counts of a call come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum UsageSource {
    /// The provider stated them.
    Reported,
    /// The provider did not, or not all of them; what is missing was inferred from what was
    /// relayed.
    Estimated,
    /// There are none.
    #[default]
    Absent,
}

impl UsageSource {
    /// The name on the wire and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            UsageSource::Reported => "reported",
            UsageSource::Estimated => "estimated",
            UsageSource::Absent => "absent",
        }
    }
}

/// Why a scan is less than whole. Counted by kind; never a reason to touch traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// The body ended before its end: a cut JSON document, or a stream without its last word.
    Truncated,
    /// The body is not what its framing promises.
    Malformed,
    /// A usage field holds what no count can be: negative, fractional, too large, a string.
    BadCount,
    /// A complete, successful answer without usage.
    UsageMissing,
    /// The counts contradict each other (a part is larger than its whole); the whole was kept.
    Inconsistent,
    /// A content encoding that cannot be read.
    UnknownEncoding,
    /// The compressed body is broken, or expands beyond the bound.
    BadEncoding,
    /// The decoders' shared memory is spent; the call was not decoded.
    DecoderBudget,
    /// A status of success with an error inside.
    ErrorInBody,
    /// A value that had to be read is longer than the scanner keeps.
    TooLong,
}

impl Trouble {
    /// Every kind, for counters that are defined ahead.
    pub const ALL: [Trouble; 10] = [
        Trouble::Truncated,
        Trouble::Malformed,
        Trouble::BadCount,
        Trouble::UsageMissing,
        Trouble::Inconsistent,
        Trouble::UnknownEncoding,
        Trouble::BadEncoding,
        Trouble::DecoderBudget,
        Trouble::ErrorInBody,
        Trouble::TooLong,
    ];

    /// The kind's name on the wire and in counters.
    pub const fn name(self) -> &'static str {
        match self {
            Trouble::Truncated => "truncated",
            Trouble::Malformed => "malformed",
            Trouble::BadCount => "bad_count",
            Trouble::UsageMissing => "usage_missing",
            Trouble::Inconsistent => "inconsistent",
            Trouble::UnknownEncoding => "unknown_encoding",
            Trouble::BadEncoding => "bad_encoding",
            Trouble::DecoderBudget => "decoder_budget",
            Trouble::ErrorInBody => "error_in_body",
            Trouble::TooLong => "too_long",
        }
    }
}

/// Usage nested in a call and charged apart from it (Anthropic's `iterations[]`, advisor models,
/// models behind a compound one, lines of a batch result).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtraUsage {
    /// What it is, in the provider's word (`compaction`, `advisor_message`, …).
    pub kind: String,
    /// The model whose rates apply; `None` means the call's own.
    pub model: Option<String>,
    /// The counts, not contained in what is charged of the call's usage.
    pub usage: Usage,
}

/// What was read out of one exchange.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// The model that the provider says served the call.
    pub model: Option<String>,
    /// The provider's id of the response.
    pub response_id: Option<String>,
    /// Disjoint counts.
    pub usage: Usage,
    /// What the provider charges, where it says that this differs from what it processed. Empty
    /// where `extra_usage` has all of it, by model.
    pub billed_usage: Option<Usage>,
    /// Where `usage` comes from.
    pub usage_source: UsageSource,
    /// What the estimated part of `usage` was made from; `None` where nothing is estimated.
    pub estimate_basis: Option<Basis>,
    /// How much of the answer was relayed.
    pub relayed: Relayed,
    /// Usage charged apart from `usage`.
    pub extra_usage: Vec<ExtraUsage>,
    /// Whether the exchange is charged at all: false for token counting, for retrievals, and for
    /// statuses of redirects and errors (300 and above) without usage.
    ///
    /// An error within a status of success leaves it true, reported usage or not: providers send
    /// such errors once they have begun to produce (in the midst of a stream, or as a response
    /// whose status is `failed`), and charge what was produced up to there.
    pub billable: bool,
    /// Whether the body reached its end; `None` where the framing has no end of its own.
    pub complete: Option<bool>,
    /// Whether the answer came in events, whatever its headers said.
    pub is_stream: bool,
    /// Whether the provider answered with an error, whatever the status said.
    pub is_error: bool,
    /// The provider's own word for why the first choice ended.
    pub finish_reason: Option<String>,
    /// Client tool calls over all choices; `None` where the API has no such thing.
    pub tool_calls: Option<u32>,
    /// The service tier that the provider says it used.
    pub service_tier: Option<String>,
    /// What the provider says it charged, US dollars, as a plain decimal.
    pub provider_cost_usd: Option<String>,
    /// Facts that prices depend on (`inference_geo`, `speed`, `region`, …).
    pub pricing_context: BTreeMap<String, String>,
    /// The gravest thing that was wrong.
    pub trouble: Option<Trouble>,
}
