//! What lies in what among the counts of one usage object, by API and host.

use crate::bucket::{Bucket, Usage};
use crate::counts::{Count, Counts, less, split};
use crate::detect::Api;
use crate::dialect::quirks::Quirks;
use crate::scan::Trouble;

/// The whole, its parts, and where a host counts otherwise, the whole it means.
pub(super) fn settle(
    counts: &Counts,
    api: Api,
    quirks: Quirks,
    usage: &mut Usage,
) -> Result<(), Trouble> {
    let cache_write_1h = counts.get(Count::CacheWrite1h).filter(|n| *n > 0);
    let input = split(
        usage,
        input_of(counts, api, quirks),
        Bucket::Input,
        &[
            (Bucket::CacheRead, counts.cache_read()),
            (Bucket::CacheWrite1h, cache_write_1h),
            (
                Bucket::CacheWrite,
                less(cache_write_of(counts, quirks), cache_write_1h),
            ),
            (Bucket::AudioInput, counts.get(Count::AudioInput)),
            (
                Bucket::ImageInput,
                images_of(counts, api, Count::ImageInput),
            ),
        ],
    );
    let rest = match api {
        Api::OpenAiImages if counts.get(Count::ImageOutput).is_none() => Bucket::ImageOutput,
        _ => Bucket::Output,
    };
    let output = split(
        usage,
        output_of(counts, api, quirks),
        rest,
        &[
            (Bucket::Reasoning, counts.get(Count::Reasoning)),
            (Bucket::AudioOutput, counts.get(Count::AudioOutput)),
            (
                Bucket::ImageOutput,
                images_of(counts, api, Count::ImageOutput),
            ),
        ],
    );
    input.and(output)
}

fn cache_write_of(counts: &Counts, quirks: Quirks) -> Option<u64> {
    let creation = counts.get(Count::CacheCreation);
    let creation = creation.filter(|_| quirks.reports_cache_creation);
    counts.cache_write().or(creation)
}

/// Chat models charge the images that they read as text, and mostly make none; image models have
/// rates of their own for both.
fn images_of(counts: &Counts, api: Api, count: Count) -> Option<u64> {
    let is_made = |n: u64| count == Count::ImageOutput && n > 0;
    let is_apart = |n: &u64| api == Api::OpenAiImages || is_made(*n);
    counts.get(count).filter(is_apart)
}

fn input_of(counts: &Counts, api: Api, quirks: Quirks) -> Option<u64> {
    let only_input = matches!(api, Api::OpenAiEmbeddings | Api::Rerank);
    let total = counts.get(Count::Total).filter(|_| only_input);
    let input = counts.get(Count::Input).or(total)?;
    let audio = counts.get(Count::AudioInput).unwrap_or(0);
    let cached = counts.cache_read().unwrap_or(0);
    // https://docs.mistral.ai/agents/connectors/websearch: what tools gave the model to read lies
    // beside `prompt_tokens`; `total_tokens` is the sum of all three.
    let tool_use = counts.get(Count::ToolUseInput).unwrap_or(0);
    let mut whole = input.saturating_add(tool_use);
    if quirks.audio_is_additional {
        whole = whole.saturating_add(audio);
    }
    if quirks.cached_is_additional && cached > input {
        whole = whole.saturating_add(cached);
    }
    Some(whole.saturating_add(beside_input(counts, input)))
}

/// Anthropic's cache counts lie beside its input, and some that pass its usage on leave them there
/// (<https://platform.claude.com/docs/en/build-with-claude/prompt-caching>): it shows where one is
/// larger than the whole that it had to lie in, or where the total has them on top.
fn beside_input(counts: &Counts, input: u64) -> u64 {
    let parts = [Count::CacheReadTwin, Count::CacheCreation];
    let parts = parts.map(|count| counts.get(count).unwrap_or(0));
    let sum = parts
        .iter()
        .fold(0, |sum: u64, part| sum.saturating_add(*part));
    let output = counts.get(Count::Output).unwrap_or(0);
    let on_top = input.saturating_add(output).saturating_add(sum);
    let is_on_top = counts.get(Count::Total) == Some(on_top);
    let is_larger = parts.iter().any(|part| *part > input);
    match is_on_top || is_larger {
        true => sum,
        false => 0,
    }
}

/// Whether the answer is one of those whose parts are charged apart.
fn is_research(counts: &Counts, quirks: Quirks) -> bool {
    quirks.reasoning_beside_searches && counts.get(Count::WebSearches).is_some()
}

/// What is charged where that is more than what is called input: what a research model quotes, at
/// the rate of input (<https://docs.perplexity.ai/docs/getting-started/pricing>, "citation tokens";
/// observed that `cost.total_cost` has it).
pub(super) fn with_citations(counts: &Counts, quirks: Quirks, usage: &Usage) -> Option<Usage> {
    let citations = counts.get(Count::CitationInput).filter(|n| *n > 0)?;
    let input = usage.get(Bucket::Input)?;
    is_research(counts, quirks).then(|| {
        let mut charged = usage.clone();
        charged.set(Bucket::Input, input.saturating_add(citations));
        charged
    })
}

fn output_of(counts: &Counts, api: Api, quirks: Quirks) -> Option<u64> {
    let tool_use = counts.get(Count::ToolUseInput).unwrap_or(0);
    let input = counts.get(Count::Input);
    let input = input.map(|n| n.saturating_add(tool_use));
    let Some(output) = counts.get(Count::Output) else {
        // Embeddings and ranks are no tokens, and say so by leaving the count out.
        return input_of(counts, api, quirks)
            .filter(|_| matches!(api, Api::OpenAiEmbeddings | Api::Rerank))
            .map(|_| 0);
    };
    let reasoning = counts.get(Count::Reasoning).unwrap_or(0);
    let with_reasoning = output.saturating_add(reasoning);
    let is_beside_searches = is_research(counts, quirks);
    let total = counts.get(Count::Total).zip(input);
    match total.map(|(total, input)| total.saturating_sub(input)) {
        // Where the total has it on top, it is on top: also for hosts that pass on what another
        // counted.
        Some(produced) if produced == with_reasoning => Some(produced),
        Some(produced) if produced == output && quirks.total_tells_reasoning => Some(output),
        // It cannot lie within a smaller whole; some gateways' totals are off by a token or two
        // (https://github.com/vectorize-io/hindsight/pull/3920).
        Some(produced) if reasoning > output && produced >= reasoning => Some(produced),
        _ if quirks.reasoning_is_additional || is_beside_searches => Some(with_reasoning),
        Some(produced) if quirks.output_from_total => Some(produced.max(output)),
        _ => Some(output),
    }
}
