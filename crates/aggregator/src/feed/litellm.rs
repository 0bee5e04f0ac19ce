//! LiteLLM's list: one object a model, dollars for one token.
//!
//! Read from <https://github.com/BerriAI/litellm>, `model_prices_and_context_window.json`: the
//! provider stands in `litellm_provider`, variants of a price in the ends of its key
//! (`input_cost_per_token_above_200k_tokens`, `output_cost_per_token_priority`).

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use tollmesh_usage::Bucket;

use super::{Feed, Key, Listed};

/// Their name of a provider, and ours.
const PROVIDERS: &[(&str, &str)] = &[
    ("anthropic", "anthropic"),
    ("azure", "azure"),
    ("bedrock", "aws-bedrock"),
    ("bedrock_converse", "aws-bedrock"),
    ("bedrock_mantle", "aws-bedrock"),
    ("cerebras", "cerebras"),
    ("cohere", "cohere"),
    ("cohere_chat", "cohere"),
    ("crusoe", "crusoe"),
    ("dashscope", "alibaba"),
    ("deepinfra", "deepinfra"),
    ("deepseek", "deepseek"),
    ("fireworks_ai", "fireworks"),
    ("gemini", "google"),
    ("groq", "groq"),
    ("meta_llama", "meta"),
    ("minimax", "minimax"),
    ("mistral", "mistral"),
    ("moonshot", "moonshotai"),
    ("nebius", "nebius"),
    ("novita", "novita"),
    ("openai", "openai"),
    ("openrouter", "openrouter"),
    ("perplexity", "perplexity"),
    ("sambanova", "sambanova"),
    ("text-completion-openai", "openai"),
    ("together_ai", "together"),
    ("vercel_ai_gateway", "vercel-ai-gateway"),
    ("voyage", "voyage"),
    ("watsonx", "watsonx"),
    ("xai", "xai"),
    ("zai", "zai"),
];

/// Their name of a price, and the bucket.
const PRICES: &[(&str, Bucket)] = &[
    ("input_cost_per_token", Bucket::Input),
    ("output_cost_per_token", Bucket::Output),
    ("cache_read_input_token_cost", Bucket::CacheRead),
    ("cache_creation_input_token_cost", Bucket::CacheWrite),
    (
        "cache_creation_input_token_cost_above_1hr",
        Bucket::CacheWrite1h,
    ),
    ("input_cost_per_audio_token", Bucket::AudioInput),
    ("cache_read_input_audio_token_cost", Bucket::CacheReadAudio),
    ("output_cost_per_audio_token", Bucket::AudioOutput),
    ("output_cost_per_reasoning_token", Bucket::Reasoning),
    ("input_cost_per_image_token", Bucket::ImageInput),
    ("output_cost_per_image_token", Bucket::ImageOutput),
];

/// The ends of keys that stand for a tier.
const TIERS: &[(&str, &str)] = &[
    ("_batches", "batch"),
    ("_flex", "flex"),
    ("_priority", "priority"),
];

/// Keys that say nothing of prices, by their beginnings.
const NO_PRICES: &[&str] = &[
    "supports_",
    "supported_",
    "max_",
    "mode",
    "litellm_provider",
    "source",
    "metadata",
    "deprecation_date",
    "comment",
    "rpm",
    "tpm",
];

/// What names begin with where two providers have the model.
const BEGINS: &[&str] = &[
    "azure/",
    "azure_ai/",
    "bedrock/",
    "bedrock_mantle/",
    "cerebras/",
    "cohere/",
    "crusoe/",
    "dashscope/",
    "deepinfra/",
    "deepseek/",
    "fireworks_ai/",
    "gemini/",
    "groq/",
    "meta_llama/",
    "minimax/",
    "mistral/",
    "moonshot/",
    "nebius/",
    "novita/",
    "openrouter/",
    "perplexity/",
    "sambanova/",
    "together_ai/",
    "vercel_ai_gateway/",
    "vertex_ai/",
    "voyage/",
    "watsonx/",
    "xai/",
    "zai/",
];

/// What the list's names for open models of some size begin with.
const CLASSES: &[&str] = &["fireworks-ai-", "together-ai-"];

/// The entry that explains the others.
const EXAMPLE: &str = "sample_spec";

pub fn read(text: &str) -> Result<Feed, serde_json::Error> {
    let list: BTreeMap<String, Box<RawValue>> = serde_json::from_str(text)?;
    let mut feed = Feed::default();
    for (name, fields) in list.into_iter().filter(|(name, _)| name != EXAMPLE) {
        if !fields.get().starts_with('{') {
            feed.aside.by_hand("list", &name, "is no model");
            continue;
        }
        let fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(fields.get())?;
        let theirs = fields.get("litellm_provider").map(|raw| raw.get());
        let theirs = theirs.unwrap_or_default().trim_matches('"');
        let ours = PROVIDERS.iter().find(|(name, _)| *name == theirs);
        // Vertex AI has a name for each maker whose models it serves.
        let vertex = theirs.starts_with("vertex_ai").then_some("vertex");
        match ours.map(|(_, ours)| *ours).or(vertex) {
            Some(provider) => read_model(&mut feed, provider, &name, &fields),
            None => feed.aside.provider(theirs),
        }
    }
    Ok(feed)
}

fn read_model(
    feed: &mut Feed,
    provider: &str,
    name: &str,
    fields: &BTreeMap<String, Box<RawValue>>,
) {
    let bare = BEGINS.iter().find_map(|begin| name.strip_prefix(begin));
    let bare = bare.unwrap_or(name);
    if is_a_part(provider, bare) {
        let why = "prices of a region, a zone, a size or a class of models";
        feed.aside.by_hand(provider, bare, why);
        return;
    }
    let mut listed = Listed {
        provider: provider.to_owned(),
        model: bare.to_owned(),
        ..Listed::default()
    };
    for (key, number) in fields {
        if NO_PRICES.iter().any(|begin| key.starts_with(begin)) {
            continue;
        }
        let Some((of, bucket)) = meaning(key) else {
            feed.aside.key(key);
            continue;
        };
        match super::rate(number, 6) {
            Some(rate) => listed.set(of, bucket, rate),
            None => {
                let why = format!("{key} = {} is no price that can be kept", number.get());
                feed.aside.by_hand(provider, &listed.model, &why);
            }
        }
    }
    listed.complete();
    feed.models.push(listed);
}

/// Whether a name is one of the list's own, for some of a model's calls or for several models.
fn is_a_part(provider: &str, name: &str) -> bool {
    let has_no_slashes = ["aws-bedrock", "azure", "openai"].contains(&provider);
    let is_class = CLASSES.iter().any(|begin| name.starts_with(begin));
    (has_no_slashes && name.contains('/')) || is_class
}

/// Which price a key stands for.
fn meaning(key: &str) -> Option<(Key, Bucket)> {
    let bucket = |name: &str| {
        let known = PRICES.iter().find(|(price, _)| *price == name);
        known.map(|(_, bucket)| *bucket)
    };
    let mut base = key;
    let mut tier = "standard";
    for (end, ours) in TIERS {
        if let Some(rest) = base.strip_suffix(end) {
            (base, tier) = (rest, ours);
        }
    }
    if let Some(bucket) = bucket(base) {
        return Some(((tier, None), bucket));
    }
    let (name, above) = base.strip_suffix("k_tokens")?.rsplit_once("_above_")?;
    let above = above.parse::<u64>().ok()?.checked_mul(1_000)?;
    Some(((tier, Some(above)), bucket(name)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_understood_by_their_ends() {
        for (key, wanted) in [
            (
                "input_cost_per_token",
                Some((("standard", None), Bucket::Input)),
            ),
            (
                "output_cost_per_token_above_200k_tokens",
                Some((("standard", Some(200_000)), Bucket::Output)),
            ),
            (
                "cache_creation_input_token_cost_above_1hr",
                Some((("standard", None), Bucket::CacheWrite1h)),
            ),
            (
                "cache_creation_input_token_cost_above_1hr_above_200k_tokens",
                Some((("standard", Some(200_000)), Bucket::CacheWrite1h)),
            ),
            (
                "input_cost_per_token_above_272k_tokens_priority",
                Some((("priority", Some(272_000)), Bucket::Input)),
            ),
            (
                "input_cost_per_token_batches",
                Some((("batch", None), Bucket::Input)),
            ),
            ("output_cost_per_image", None),
            ("input_cost_per_video_per_second", None),
        ] {
            assert_eq!(meaning(key), wanted, "{key}");
        }
    }
}
