//! The table of hosts and paths that are recognised, and where each was read.

use super::pattern::{match_host, match_path};
use super::{Api, Family};

/// A provider's hosts, and what they offer.
pub(super) struct Service {
    pub(super) provider: &'static str,
    hosts: &'static [&'static str],
    /// In the order in which they are tried.
    pub(super) families: &'static [Family],
    /// Whether `stream_options.include_usage` is documented there.
    pub(super) takes_include_usage: bool,
}

impl Service {
    pub(super) fn serves(&self, host: &str) -> bool {
        self.hosts.iter().any(|pattern| match_host(pattern, host))
    }
}

/// An endpoint of a family.
pub(super) struct PathRule {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) api: Api,
}

const fn post(path: &'static str, api: Api) -> PathRule {
    PathRule {
        method: "POST",
        path,
        api,
    }
}

const fn get(path: &'static str, api: Api) -> PathRule {
    PathRule {
        method: "GET",
        path,
        api,
    }
}

pub(super) const SERVICES: &[Service] = &[
    // https://platform.openai.com/docs/api-reference; regional hosts:
    // https://platform.openai.com/docs/guides/your-data#data-residency-controls
    Service {
        provider: "openai",
        hosts: &["api.openai.com", "*.api.openai.com"],
        families: &[Family::OpenAi],
        takes_include_usage: true,
    },
    // https://platform.claude.com/docs/en/api/overview
    Service {
        provider: "anthropic",
        hosts: &["api.anthropic.com"],
        families: &[Family::Anthropic, Family::OpenAi],
        takes_include_usage: true,
    },
    // https://ai.google.dev/api and https://ai.google.dev/gemini-api/docs/openai
    Service {
        provider: "google",
        hosts: &["generativelanguage.googleapis.com"],
        families: &[Family::Gemini, Family::OpenAi],
        takes_include_usage: true,
    },
    // https://cloud.google.com/vertex-ai/docs/reference/rest#service-endpoint
    Service {
        provider: "vertex",
        hosts: &[
            "aiplatform.googleapis.com",
            "*-aiplatform.googleapis.com",
            "aiplatform.*.rep.googleapis.com",
        ],
        families: &[Family::Vertex, Family::OpenAi],
        takes_include_usage: true,
    },
];

/// <https://platform.openai.com/docs/api-reference>; compatible hosts put them under prefixes.
pub(super) const OPENAI_PATHS: &[PathRule] = &[
    post("**/chat/completions", Api::OpenAiChat),
    post("**/completions", Api::OpenAiCompletions),
    post("**/embeddings", Api::OpenAiEmbeddings),
    post("**/responses", Api::OpenAiResponses),
    post("**/responses/compact", Api::OpenAiResponsesCompact),
    post("**/responses/input_tokens", Api::OpenAiCountTokens),
    post("**/responses/*/cancel", Api::OpenAiResponsesRetrieve),
    get("**/responses/*", Api::OpenAiResponsesRetrieve),
    post("**/images/generations", Api::OpenAiImages),
    post("**/images/edits", Api::OpenAiImages),
    post("**/images/variations", Api::OpenAiImages),
    post("**/audio/transcriptions", Api::OpenAiAudio),
    post("**/audio/translations", Api::OpenAiAudio),
    post("**/audio/speech", Api::OpenAiAudio),
    post("**/moderations", Api::OpenAiModerations),
    post("**/threads/runs", Api::OpenAiAssistantsRun),
    post("**/threads/*/runs", Api::OpenAiAssistantsRun),
    get("**/threads/*/runs/*", Api::OpenAiAssistantsRun),
    post("**/threads/*/runs/*", Api::OpenAiAssistantsRun),
    post("**/threads/*/runs/*/cancel", Api::OpenAiAssistantsRun),
    post(
        "**/threads/*/runs/*/submit_tool_outputs",
        Api::OpenAiAssistantsRun,
    ),
];

/// <https://platform.claude.com/docs/en/api/overview>
pub(super) const ANTHROPIC_PATHS: &[PathRule] = &[
    post("**/v1/messages", Api::AnthropicMessages),
    post("**/v1/messages/count_tokens", Api::AnthropicCountTokens),
    get(
        "**/v1/messages/batches/*/results",
        Api::AnthropicBatchResults,
    ),
    post("**/v1/complete", Api::AnthropicComplete),
];

/// <https://ai.google.dev/api/generate-content>, `…/tokens`, `…/embeddings`,
/// `…/interactions-api`
pub(super) const GEMINI_PATHS: &[PathRule] = &[
    post("**/*/{model}:generateContent", Api::GeminiGenerate),
    post(
        "**/*/{model}:streamGenerateContent",
        Api::GeminiStreamGenerate,
    ),
    post("**/*/{model}:embedContent", Api::GeminiEmbed),
    post("**/*/{model}:batchEmbedContents", Api::GeminiEmbed),
    post("**/*/{model}:countTokens", Api::GeminiCountTokens),
    post("**/interactions", Api::GeminiInteractions),
];

/// <https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference> and
/// <https://cloud.google.com/vertex-ai/generative-ai/docs/partner-models/claude/use-claude>
pub(super) const VERTEX_PATHS: &[PathRule] = &[
    post(
        "**/locations/{location}/publishers/anthropic/models/count-tokens:rawPredict",
        Api::AnthropicCountTokens,
    ),
    post(
        "**/locations/{location}/publishers/anthropic/models/{model}:rawPredict",
        Api::AnthropicMessages,
    ),
    post(
        "**/locations/{location}/publishers/anthropic/models/{model}:streamRawPredict",
        Api::AnthropicMessages,
    ),
    post(
        "**/locations/{location}/publishers/*/models/{model}:generateContent",
        Api::GeminiGenerate,
    ),
    post(
        "**/locations/{location}/publishers/*/models/{model}:streamGenerateContent",
        Api::GeminiStreamGenerate,
    ),
    post(
        "**/locations/{location}/publishers/*/models/{model}:countTokens",
        Api::GeminiCountTokens,
    ),
    post(
        "**/locations/{location}/publishers/*/models/{model}:embedContent",
        Api::GeminiEmbed,
    ),
    post(
        "**/locations/{location}/endpoints/{model}:generateContent",
        Api::GeminiGenerate,
    ),
    post(
        "**/locations/{location}/endpoints/{model}:streamGenerateContent",
        Api::GeminiStreamGenerate,
    ),
    // Express mode has neither project nor location.
    post(
        "**/publishers/*/models/{model}:generateContent",
        Api::GeminiGenerate,
    ),
    post(
        "**/publishers/*/models/{model}:streamGenerateContent",
        Api::GeminiStreamGenerate,
    ),
    post(
        "**/locations/{location}/endpoints/*/chat/completions",
        Api::OpenAiChat,
    ),
];

/// What is posted to a provider and charges nothing by itself.
pub(super) const FREE_PATHS: &[&str] = &[
    "**/files",
    "**/uploads",
    "**/uploads/*/parts",
    "**/uploads/*/complete",
    "**/batches",
    "**/batches/*/cancel",
    "**/assistants",
    "**/assistants/*",
    "**/threads",
    "**/threads/*",
    "**/threads/*/messages",
    "**/conversations",
    "**/conversations/*/items",
    "**/vector_stores",
    "**/vector_stores/*/files",
    "**/v1beta/cachedContents",
];

/// Sessions over WebSockets: <https://platform.openai.com/docs/guides/realtime-websocket>.
pub(super) fn is_live(path: &str) -> bool {
    match_path("**/realtime", path).is_some()
}
