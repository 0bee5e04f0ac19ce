//! Where hosts that speak OpenAI's chat dialect count otherwise than OpenAI does.

use crate::detect::Api;

/// What a host includes in what. The default is OpenAI's rule: every part lies in its whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Quirks {
    /// `completion_tokens` excludes `reasoning_tokens`.
    pub(crate) reasoning_is_additional: bool,
    /// The same, but only in answers that count their searches.
    pub(crate) reasoning_beside_searches: bool,
    /// `total_tokens` has reasoning in it, so that it tells whether `completion_tokens` has too.
    pub(crate) total_tells_reasoning: bool,
    /// `prompt_tokens` excludes `audio_tokens`.
    pub(crate) audio_is_additional: bool,
    /// Cached tokens beyond `prompt_tokens` are additional to them.
    pub(crate) cached_is_additional: bool,
    /// Thinking shows in `total_tokens` alone.
    pub(crate) output_from_total: bool,
    /// A `cache_creation_input_tokens` of 0 is a count too.
    pub(crate) reports_cache_creation: bool,
}

const NONE: Quirks = Quirks {
    reasoning_is_additional: false,
    reasoning_beside_searches: false,
    total_tells_reasoning: false,
    audio_is_additional: false,
    cached_is_additional: false,
    output_from_total: false,
    reports_cache_creation: false,
};

/// Provider, and how its chat completions differ.
const QUIRKS: &[(&str, Quirks)] = &[
    // https://docs.x.ai/docs/guides/reasoning: reasoning is billed on top of `completion_tokens`;
    // observed: `total_tokens` and `cost_in_usd_ticks` are those of the sum.
    (
        "xai",
        Quirks {
            reasoning_is_additional: true,
            total_tells_reasoning: true,
            ..NONE
        },
    ),
    // https://vercel.com/docs/ai-gateway: observed that `usage.cost` is the price of
    // `completion_tokens` + `reasoning_tokens`, while `total_tokens` leaves reasoning out.
    (
        "vercel-ai-gateway",
        Quirks {
            reasoning_is_additional: true,
            reports_cache_creation: true,
            ..NONE
        },
    ),
    // https://docs.perplexity.ai/docs/getting-started/pricing: Sonar Deep Research charges reasoning
    // and `num_search_queries` beside output; observed far above `completion_tokens`, and in no
    // total. What other models think is part of their answer.
    (
        "perplexity",
        Quirks {
            reasoning_beside_searches: true,
            ..NONE
        },
    ),
    // https://docs.mistral.ai/capabilities/audio: observed that
    // `total_tokens` = `prompt_tokens` + `audio_tokens` + `completion_tokens`.
    (
        "mistral",
        Quirks {
            audio_is_additional: true,
            ..NONE
        },
    ),
    // https://learn.microsoft.com/azure/ai-foundry (Grok models): observed `cached_tokens` above
    // `prompt_tokens`, whose `text_tokens` equal `prompt_tokens`.
    (
        "azure",
        Quirks {
            cached_is_additional: true,
            ..NONE
        },
    ),
    // https://ai.google.dev/gemini-api/docs/openai: observed that thinking tokens are part of
    // `total_tokens` and of no other count.
    (
        "google",
        Quirks {
            output_from_total: true,
            ..NONE
        },
    ),
    // The same server answers there
    // (https://cloud.google.com/vertex-ai/generative-ai/docs/migrate/openai/overview).
    (
        "vertex",
        Quirks {
            output_from_total: true,
            ..NONE
        },
    ),
];

impl Quirks {
    /// The quirks of that provider at that API.
    pub(crate) fn of(provider: &str, api: Api) -> Quirks {
        let counts_so = matches!(
            api,
            Api::OpenAiChat | Api::OpenAiAsyncChat | Api::OpenAiAudio | Api::OpenAiBatches
        );
        if !counts_so {
            return NONE;
        }
        QUIRKS
            .iter()
            .find(|(name, _)| *name == provider)
            .map_or(NONE, |(_, quirks)| *quirks)
    }
}
