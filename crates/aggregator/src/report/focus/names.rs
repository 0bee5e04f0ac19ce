//! Names as finance tools show them.

/// Providers whose bills bear another name than ours for them; others are shown as we name them.
const PROVIDERS: &[(&str, &str)] = &[
    ("alibaba", "Alibaba Cloud"),
    ("anthropic", "Anthropic"),
    ("aws-bedrock", "AWS"),
    ("azure", "Microsoft"),
    ("bedrock-mantle", "AWS"),
    ("cerebras", "Cerebras"),
    ("claude-aws", "Anthropic"),
    ("cohere", "Cohere"),
    ("crusoe", "Crusoe"),
    ("databricks", "Databricks"),
    ("deepinfra", "DeepInfra"),
    ("deepseek", "DeepSeek"),
    ("fireworks", "Fireworks AI"),
    ("google", "Google"),
    ("groq", "Groq"),
    ("minimax", "MiniMax"),
    ("mistral", "Mistral AI"),
    ("moonshotai", "Moonshot AI"),
    ("nebius", "Nebius"),
    ("novita", "Novita AI"),
    ("openai", "OpenAI"),
    ("openrouter", "OpenRouter"),
    ("perplexity", "Perplexity"),
    ("sambanova", "SambaNova"),
    ("snowflake", "Snowflake"),
    ("together", "Together AI"),
    ("vercel-ai-gateway", "Vercel"),
    ("vertex", "Google Cloud"),
    ("voyage", "Voyage AI"),
    ("watsonx", "IBM"),
    ("xai", "xAI"),
    ("zai", "Z.ai"),
];

/// The provider's own name.
pub fn provider(name: &str) -> &str {
    let found = PROVIDERS.iter().find(|(ours, _)| *ours == name);
    found.map_or(name, |(_, shown)| shown)
}

/// `cache_write_1h` as `Cache Write 1h`.
pub fn titled(name: &str) -> String {
    let words = name.split('_').map(|word| {
        let mut letters = word.chars();
        match letters.next() {
            Some(first) => first.to_uppercase().chain(letters).collect(),
            None => String::new(),
        }
    });
    words.collect::<Vec<String>>().join(" ")
}
