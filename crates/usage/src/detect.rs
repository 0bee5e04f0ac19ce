//! What a request is, by host, path and method alone.

use std::collections::BTreeMap;

/// One provider API whose bodies can be read: an endpoint family with one dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Api {
    /// `POST /v1/chat/completions`
    OpenAiChat,
    /// `POST /v1/responses`
    OpenAiResponses,
    /// `POST /v1/messages`
    AnthropicMessages,
    /// `POST …:generateContent`
    GeminiGenerate,
    /// `POST …:streamGenerateContent`
    GeminiStreamGenerate,
}

impl Api {
    /// The API's name on the wire and in the ledger, as `openai.chat`.
    pub const fn name(self) -> &'static str {
        match self {
            Api::OpenAiChat => "openai.chat",
            Api::OpenAiResponses => "openai.responses",
            Api::AnthropicMessages => "anthropic.messages",
            Api::GeminiGenerate => "gemini.generate",
            Api::GeminiStreamGenerate => "gemini.stream_generate",
        }
    }
}

/// A request that will be metered: everything that host, path and method say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The API that reads its bodies.
    pub api: Api,
    /// Who serves and bills it: `openai`, `anthropic`, `google`, `azure`, …
    pub provider: String,
    /// The model, where the path names it.
    pub path_model: Option<String>,
    /// Whether `stream_options.include_usage` may be asked for where the app did not.
    pub may_include_usage: bool,
    /// False for endpoints that charge nothing (token counting, retrievals).
    pub billable: bool,
    /// Whether the answer repeats the usage of an earlier call (`GET /v1/responses/{id}`).
    pub is_retrieval: bool,
    /// What host and path say that prices depend on (`region`, `vertex_location`, …).
    pub pricing_context: BTreeMap<String, String>,
}

/// The answer of [`detect`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detection {
    /// A call to be metered.
    Metered(Target),
    /// A provider's traffic that cannot be read (gRPC, unknown paths): counted, not scanned.
    Unreadable {
        /// The provider that the host belongs to.
        provider: &'static str,
    },
    /// Nothing of ours.
    NotOurs,
}

/// Decides what a request is. `path` may carry a query; nothing of it is kept.
pub fn detect(host: &str, path: &str, method: &str) -> Detection {
    let _ = (host, path, method);
    Detection::NotOurs
}
