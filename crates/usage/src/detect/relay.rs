//! A host that passes calls on to the provider that their path names.

use super::pattern::{normal_path, with_open_slashes};

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

/// The provider that gets the call, and the path that it gets, as servers take it and with the query
/// that it came with; `None` where the path names none.
pub(super) fn passed_on(host: &str, path: &str) -> Option<(&'static str, String)> {
    if host != HOST {
        return None;
    }
    let normal = normal_path(path);
    let query = path.find('?').and_then(|at| path.get(at..));
    let named = named(&normal).or_else(|| {
        let open = with_open_slashes(&normal)?;
        named(&normal_path(&open))
    });
    named.map(|(provider, rest)| (provider, rest + query.unwrap_or_default()))
}

/// What a path names, which is normal.
fn named(path: &str) -> Option<(&'static str, String)> {
    let mut parts = path.trim_start_matches('/').splitn(5, '/');
    let (version, name) = (parts.next()?, parts.nth(2)?);
    let rest = parts
        .next()
        .filter(|_| version.eq_ignore_ascii_case("v1"))?;
    let mut names = NAMES.iter();
    let (_, provider) = names.find(|(known, _)| known.eq_ignore_ascii_case(name))?;
    Some((provider, rest.to_owned()))
}
