//! A host that passes calls on to the provider that their path names.

/// Where Cloudflare's AI gateway is: `/v1/{account}/{gateway}/{name}/…`, what follows being the
/// provider's own path (<https://developers.cloudflare.com/ai-gateway/get-started/>).
const HOST: &str = "gateway.ai.cloudflare.com";

/// The gateway's names for providers, and ours
/// (<https://developers.cloudflare.com/ai-gateway/usage/providers/>).
const NAMES: &[(&str, &str)] = &[
    ("openai", "openai"),
    ("anthropic", "anthropic"),
    ("google-ai-studio", "google"),
    ("google-vertex-ai", "vertex"),
    ("azure-openai", "azure"),
    ("aws-bedrock", "aws-bedrock"),
    ("groq", "groq"),
    ("grok", "xai"),
    ("mistral", "mistral"),
    ("cohere", "cohere"),
    ("deepseek", "deepseek"),
    ("perplexity-ai", "perplexity"),
    ("openrouter", "openrouter"),
    ("cerebras", "cerebras"),
    ("huggingface", "huggingface"),
    ("workers-ai", "cloudflare"),
];

/// The provider that gets the call, and the path that it gets; `None` where the path names none.
pub(super) fn passed_on<'a>(host: &str, path: &'a str) -> Option<(&'static str, &'a str)> {
    if host != HOST {
        return None;
    }
    let mut parts = path.trim_start_matches('/').splitn(5, '/');
    let (version, name) = (parts.next()?, parts.nth(2)?);
    let rest = parts.next().filter(|_| version == "v1")?;
    let (_, provider) = NAMES.iter().find(|(known, _)| *known == name)?;
    Some((provider, rest))
}
