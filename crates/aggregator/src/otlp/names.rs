//! What OpenTelemetry's conventions call providers and operations.
//!
//! Well-known values of `gen_ai.provider.name` and `gen_ai.operation.name`:
//! <https://github.com/open-telemetry/semantic-conventions-genai/blob/main/docs/gen-ai/gen-ai-spans.md>,
//! read 2026-11-22. Where none applies, ours is told.

/// Our names of providers whose well-known name is another.
const PROVIDERS: &[(&str, &str)] = &[
    ("aws-bedrock", "aws.bedrock"),
    ("azure", "azure.ai.openai"),
    ("google", "gcp.gemini"),
    ("mistral", "mistral_ai"),
    ("moonshotai", "moonshot_ai"),
    ("vertex", "gcp.vertex_ai"),
    ("watsonx", "ibm.watsonx.ai"),
    ("xai", "x_ai"),
];

/// Parts of our names of APIs, the first that fits deciding; what fits none is a chat.
const OPERATIONS: &[(&str, &str)] = &[
    ("count_tokens", "count_tokens"),
    ("embed", "embeddings"),
    ("rerank", "rerank"),
    ("moderations", "moderation"),
    ("guardrail", "guardrail"),
    ("images", "image_generation"),
    ("audio", "audio"),
    ("ocr", "ocr"),
    ("openai.completions", "text_completion"),
    ("anthropic.complete", "text_completion"),
    ("ollama.generate", "text_completion"),
    ("watsonx.generate", "text_completion"),
    ("gemini.predict", "predict"),
    ("gemini.", "generate_content"),
];

/// `gen_ai.provider.name`
pub fn provider(ours: &str) -> &str {
    let known = PROVIDERS.iter().find(|(name, _)| *name == ours);
    known.map_or(ours, |(_, theirs)| theirs)
}

/// `gen_ai.operation.name`
pub fn operation(api: &str) -> &'static str {
    let known = OPERATIONS.iter().find(|(part, _)| api.contains(part));
    known.map_or("chat", |(_, operation)| operation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_of_apis() {
        for (api, want) in [
            ("openai.chat", "chat"),
            ("openai.responses.retrieve", "chat"),
            ("openai.completions", "text_completion"),
            ("anthropic.messages", "chat"),
            ("anthropic.count_tokens", "count_tokens"),
            ("gemini.stream_generate", "generate_content"),
            ("gemini.embed", "embeddings"),
            ("bedrock.converse", "chat"),
            ("bedrock.apply_guardrail", "guardrail"),
            ("cohere.rerank", "rerank"),
            ("watsonx.embed", "embeddings"),
        ] {
            assert_eq!(operation(api), want, "{api}");
        }
    }

    #[test]
    fn providers_keep_their_name_where_none_is_known() {
        assert_eq!(provider("vertex"), "gcp.vertex_ai");
        assert_eq!(provider("openai"), "openai");
        assert_eq!(provider("vllm"), "vllm");
    }
}
