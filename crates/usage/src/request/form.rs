//! What a request body of each API looks like, as far as metering looks.

use crate::detect::{Api, LimitKey, Target};
use crate::json::Node;

/// A value in a request body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// The body itself.
    Root,
    /// The model asked for.
    Model,
    /// Whether a stream is asked for.
    Stream,
    /// The object of stream options.
    StreamOptions,
    /// Whether the usage event is asked for.
    IncludeUsage,
    /// The object that the output limit is in, where it is not at the top.
    LimitParent,
    /// The output limit under its present name.
    Limit,
    /// The output limit under an older name, or in another spelling.
    OtherLimit,
    /// The service tier.
    Tier,
    /// The tools that the model may use.
    Tools,
    /// The type of one of them.
    ToolKind,
    /// How many answers are asked for.
    Choices,
    /// How much, or whether, the model shall reason.
    Reasoning,
    /// The same, within an object that says it.
    ReasoningKind,
    /// What shall be spoken.
    Speech,
    /// The data that Azure answers from, which leaves a body without much that others have.
    DataSources,
}

/// One API's form of a request.
#[derive(Debug)]
pub(super) struct Form {
    pub(super) root: &'static Node<Field>,
    /// Whether it is a stream where the body does not say.
    pub(super) streams: bool,
    /// Whether the body has `stream_options.include_usage`.
    pub(super) has_usage_option: bool,
    /// The key of the object that the output limit is in, if it is not at the top.
    pub(super) limit_parent: Option<&'static str>,
    /// The key of the output limit, where we have to add one; `None` where we never do.
    pub(super) limit: Option<&'static str>,
    /// Whether there is an output limit that we cannot add, since its key is not known.
    pub(super) is_limit_unsure: bool,
}

impl Form {
    /// The form of the requests to that target.
    pub(super) fn of(target: &Target) -> &'static Form {
        match target.api {
            Api::OpenAiChat => match target.limit_key {
                LimitKey::MaxTokens => &COMPATIBLE_CHAT,
                LimitKey::MaxCompletionTokens => &CHAT,
                LimitKey::Unsure => &DEPLOYED_CHAT,
            },
            Api::OpenAiCompletions => &COMPATIBLE_CHAT,
            Api::OpenAiResponses => &RESPONSES,
            Api::OpenAiAssistantsRun => &RUN,
            Api::OpenAiAudio => &SPEECH,
            Api::AnthropicMessages | Api::AnthropicComplete => &MESSAGES,
            Api::GeminiGenerate => &GENERATE,
            Api::GeminiStreamGenerate => &STREAM_GENERATE,
            Api::GeminiInteractions => &INTERACTIONS,
            Api::OpenAiEmbeddings
            | Api::OpenAiImages
            | Api::OpenAiModerations
            | Api::OpenAiResponsesRetrieve
            | Api::OpenAiResponsesCompact
            | Api::OpenAiCountTokens
            | Api::OpenAiRealtime
            | Api::OpenAiBatches
            | Api::OpenAiVideos
            | Api::OpenAiAsyncChat
            | Api::MistralOcr
            | Api::MistralConversations
            | Api::DashScopeGenerate
            | Api::GeminiLive
            | Api::AnthropicCountTokens
            | Api::AnthropicBatches
            | Api::AnthropicBatchResults
            | Api::GeminiBatches
            | Api::GeminiEmbed
            | Api::GeminiPredict
            | Api::GeminiInteractionsRetrieve
            | Api::GeminiCountTokens
            | Api::BedrockCountTokens
            | Api::BedrockApplyGuardrail
            | Api::CohereEmbed
            | Api::CohereRerank
            | Api::CohereAudio
            | Api::OllamaEmbed
            | Api::Rerank => &UNLIMITED,
            Api::CohereChat | Api::CohereV1Chat => &COHERE,
            Api::OllamaChat | Api::OllamaGenerate => &OLLAMA,
            Api::WatsonxGenerate | Api::WatsonxEmbed => &WATSONX,
            Api::BedrockConverse => &CONVERSE,
            Api::BedrockConverseStream => &CONVERSE_STREAM,
            Api::BedrockInvoke => &INVOKE,
            Api::BedrockInvokeStream => &INVOKE_STREAM,
        }
    }
}

const MODEL: (&str, Node<Field>) = ("model", Node::leaf(Field::Model));
const STREAM: (&str, Node<Field>) = ("stream", Node::leaf(Field::Stream));
const TOOLS: (&str, Node<Field>) = ("tools", Node::leaf(Field::Tools));
const TYPED_TOOLS: (&str, Node<Field>) = (
    "tools",
    Node::array(&Node::object(&[("type", Node::leaf(Field::ToolKind))])).named(Field::Tools),
);
const N: (&str, Node<Field>) = ("n", Node::leaf(Field::Choices));
/// <https://platform.openai.com/docs/api-reference/chat/create>
const EFFORT: (&str, Node<Field>) = ("reasoning_effort", Node::leaf(Field::Reasoning));

/// <https://platform.openai.com/docs/api-reference/responses/create>; hosts of the chat dialect
/// take it too (<https://openrouter.ai/docs/use-cases/reasoning-tokens>).
const REASONING: (&str, Node<Field>) = (
    "reasoning",
    Node::object(&[
        ("effort", Node::leaf(Field::ReasoningKind)),
        ("enabled", Node::leaf(Field::ReasoningKind)),
    ])
    .named(Field::Reasoning),
);

/// <https://platform.claude.com/docs/en/build-with-claude/extended-thinking>; hosts of the chat
/// dialect take it too.
const THINKING: (&str, Node<Field>) = (
    "thinking",
    Node::object(&[("type", Node::leaf(Field::ReasoningKind))]).named(Field::Reasoning),
);

/// <https://ai.google.dev/gemini-api/docs/thinking>
const THINKING_CONFIG: Node<Field> = Node::object(&[
    ("thinkingBudget", Node::leaf(Field::ReasoningKind)),
    ("thinking_budget", Node::leaf(Field::ReasoningKind)),
])
.named(Field::Reasoning);

const TIER: (&str, Node<Field>) = ("service_tier", Node::leaf(Field::Tier));

/// The name of the limit that not every chat completion takes.
pub(super) const NEWER_LIMIT: &str = "max_completion_tokens";

/// <https://platform.openai.com/docs/api-reference/chat/create>: `max_tokens` is the older name of
/// `max_completion_tokens`, and reasoning models refuse it.
static CHAT: Form = Form {
    root: &CHAT_BODY,
    streams: false,
    has_usage_option: true,
    limit_parent: None,
    limit: Some(NEWER_LIMIT),
    is_limit_unsure: false,
};

/// The same, of a model that is not known: reasoning models refuse the one key, others the other
/// ([`LimitKey::Unsure`]).
static DEPLOYED_CHAT: Form = Form {
    root: &CHAT_BODY,
    streams: false,
    has_usage_option: true,
    limit_parent: None,
    limit: None,
    is_limit_unsure: true,
};

/// Hosts that speak OpenAI's chat: each takes the older name of the limit
/// (<https://docs.mistral.ai/api/>, <https://api-docs.deepseek.com/api/create-chat-completion>),
/// not each the newer. OpenAI's own completions know no other
/// (<https://platform.openai.com/docs/api-reference/completions/create>).
static COMPATIBLE_CHAT: Form = Form {
    root: &COMPATIBLE_CHAT_BODY,
    streams: false,
    has_usage_option: true,
    limit_parent: None,
    limit: Some("max_tokens"),
    is_limit_unsure: false,
};

const STREAM_OPTIONS: (&str, Node<Field>) = (
    "stream_options",
    Node::object(&[("include_usage", Node::leaf(Field::IncludeUsage))]).named(Field::StreamOptions),
);

/// <https://learn.microsoft.com/azure/ai-foundry/openai/references/on-your-data>. Only
/// Azure takes it; and what answers it refuses `stream_options`
/// (<https://github.com/openai/openai-python/issues/2296>) and `max_completion_tokens`.
const DATA_SOURCES: (&str, Node<Field>) = ("data_sources", Node::leaf(Field::DataSources));

static CHAT_BODY: Node<Field> = Node::object(&[
    MODEL,
    STREAM,
    TIER,
    TOOLS,
    N,
    EFFORT,
    REASONING,
    THINKING,
    STREAM_OPTIONS,
    DATA_SOURCES,
    ("max_completion_tokens", Node::leaf(Field::Limit)),
    ("max_tokens", Node::leaf(Field::OtherLimit)),
])
.named(Field::Root);

static COMPATIBLE_CHAT_BODY: Node<Field> = Node::object(&[
    MODEL,
    STREAM,
    TIER,
    TYPED_TOOLS,
    N,
    EFFORT,
    REASONING,
    THINKING,
    STREAM_OPTIONS,
    DATA_SOURCES,
    ("max_tokens", Node::leaf(Field::Limit)),
    ("max_completion_tokens", Node::leaf(Field::OtherLimit)),
])
.named(Field::Root);

/// <https://platform.openai.com/docs/api-reference/responses/create>: usage is always in the last
/// event; `stream_options` has no `include_usage` here.
static RESPONSES: Form = Form {
    root: &Node::object(&[
        MODEL,
        STREAM,
        TIER,
        TOOLS,
        REASONING,
        ("max_output_tokens", Node::leaf(Field::Limit)),
    ])
    .named(Field::Root),
    streams: false,
    has_usage_option: false,
    limit_parent: None,
    limit: Some("max_output_tokens"),
    is_limit_unsure: false,
};

/// <https://platform.openai.com/docs/api-reference/runs/createRun>: the same path takes requests
/// that have no limit.
static RUN: Form = Form {
    root: &Node::object(&[
        MODEL,
        STREAM,
        TOOLS,
        ("max_completion_tokens", Node::leaf(Field::Limit)),
    ])
    .named(Field::Root),
    streams: false,
    has_usage_option: false,
    limit_parent: None,
    limit: None,
    is_limit_unsure: false,
};

/// Endpoints whose output has no limit, or none that is asked for, or one at a place of its own.
static UNLIMITED: Form = Form {
    root: &Node::object(&[MODEL, STREAM, TIER, N]).named(Field::Root),
    streams: false,
    has_usage_option: false,
    limit_parent: None,
    limit: None,
    is_limit_unsure: false,
};

/// <https://platform.openai.com/docs/api-reference/audio/createSpeech>
static SPEECH: Form = Form {
    root: &Node::object(&[MODEL, STREAM, ("input", Node::text(Field::Speech))]).named(Field::Root),
    streams: false,
    has_usage_option: false,
    limit_parent: None,
    limit: None,
    is_limit_unsure: false,
};

/// <https://docs.cohere.com/reference/chat>
static COHERE: Form = Form {
    root: &Node::object(&[MODEL, STREAM, ("max_tokens", Node::leaf(Field::Limit))])
        .named(Field::Root),
    streams: false,
    has_usage_option: false,
    limit_parent: None,
    limit: Some("max_tokens"),
    is_limit_unsure: false,
};

/// <https://github.com/ollama/ollama/blob/main/docs/api.md>: streams unless told otherwise.
static OLLAMA: Form = Form {
    root: &Node::object(&[
        MODEL,
        STREAM,
        (
            "options",
            Node::object(&[("num_predict", Node::leaf(Field::Limit))]).named(Field::LimitParent),
        ),
    ])
    .named(Field::Root),
    streams: true,
    has_usage_option: false,
    limit_parent: Some("options"),
    limit: Some("num_predict"),
    is_limit_unsure: false,
};

/// <https://cloud.ibm.com/apidocs/watsonx-ai#text-generation>
static WATSONX: Form = Form {
    root: &Node::object(&[
        ("model_id", Node::leaf(Field::Model)),
        (
            "parameters",
            Node::object(&[("max_new_tokens", Node::leaf(Field::Limit))]).named(Field::LimitParent),
        ),
    ])
    .named(Field::Root),
    streams: false,
    has_usage_option: false,
    limit_parent: Some("parameters"),
    limit: Some("max_new_tokens"),
    is_limit_unsure: false,
};

const INFERENCE: (&str, Node<Field>) = (
    "inferenceConfig",
    Node::object(&[("maxTokens", Node::leaf(Field::Limit))]).named(Field::LimitParent),
);

/// <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html>; the model
/// stands in the path.
static CONVERSE: Form = Form {
    root: &Node::object(&[INFERENCE]).named(Field::Root),
    streams: false,
    has_usage_option: false,
    limit_parent: Some("inferenceConfig"),
    limit: Some("maxTokens"),
    is_limit_unsure: false,
};

static CONVERSE_STREAM: Form = Form {
    root: &Node::object(&[INFERENCE]).named(Field::Root),
    streams: true,
    has_usage_option: false,
    limit_parent: Some("inferenceConfig"),
    limit: Some("maxTokens"),
    is_limit_unsure: false,
};

/// <https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html>: each family of
/// models has a body of its own, so a limit is read and never added.
static INVOKE: Form = Form {
    root: &Node::object(&[
        THINKING,
        ("max_tokens", Node::leaf(Field::Limit)),
        ("max_gen_len", Node::leaf(Field::OtherLimit)),
    ])
    .named(Field::Root),
    streams: false,
    has_usage_option: false,
    limit_parent: None,
    limit: None,
    is_limit_unsure: false,
};

static INVOKE_STREAM: Form = Form {
    root: &Node::object(&[
        THINKING,
        ("max_tokens", Node::leaf(Field::Limit)),
        ("max_gen_len", Node::leaf(Field::OtherLimit)),
    ])
    .named(Field::Root),
    streams: true,
    has_usage_option: false,
    limit_parent: None,
    limit: None,
    is_limit_unsure: false,
};

/// <https://docs.anthropic.com/en/api/messages>, and `max_tokens_to_sample` of
/// <https://docs.anthropic.com/en/api/complete>.
static MESSAGES: Form = Form {
    root: &Node::object(&[
        MODEL,
        STREAM,
        TIER,
        TOOLS,
        THINKING,
        ("max_tokens", Node::leaf(Field::Limit)),
        ("max_tokens_to_sample", Node::leaf(Field::OtherLimit)),
    ])
    .named(Field::Root),
    streams: false,
    has_usage_option: false,
    limit_parent: None,
    // Required there, so the app set one.
    limit: None,
    is_limit_unsure: false,
};

/// <https://ai.google.dev/api/generate-content>: the model and whether it is a stream are in the
/// path. Protocol buffers' JSON takes keys in either spelling
/// (<https://protobuf.dev/programming-guides/json/>).
static GENERATE: Form = Form {
    root: &GENERATE_BODY,
    streams: false,
    has_usage_option: false,
    limit_parent: Some("generationConfig"),
    limit: Some("maxOutputTokens"),
    is_limit_unsure: false,
};

static STREAM_GENERATE: Form = Form {
    root: &GENERATE_BODY,
    streams: true,
    has_usage_option: false,
    limit_parent: Some("generationConfig"),
    limit: Some("maxOutputTokens"),
    is_limit_unsure: false,
};

const GENERATION_CONFIG: Node<Field> = Node::object(&[
    ("maxOutputTokens", Node::leaf(Field::Limit)),
    ("max_output_tokens", Node::leaf(Field::OtherLimit)),
    ("candidateCount", Node::leaf(Field::Choices)),
    ("candidate_count", Node::leaf(Field::Choices)),
    ("thinkingConfig", THINKING_CONFIG),
    ("thinking_config", THINKING_CONFIG),
])
.named(Field::LimitParent);

static GENERATE_BODY: Node<Field> = Node::object(&[
    ("generationConfig", GENERATION_CONFIG),
    ("generation_config", GENERATION_CONFIG),
    ("serviceTier", Node::leaf(Field::Tier)),
    TOOLS,
    TIER,
])
.named(Field::Root);

/// <https://ai.google.dev/api/interactions-api>
static INTERACTIONS: Form = Form {
    root: &Node::object(&[
        MODEL,
        // https://ai.google.dev/gemini-api/docs/interactions: an agent is asked in a model's place.
        ("agent", Node::leaf(Field::Model)),
        STREAM,
        TIER,
        TOOLS,
        (
            "generation_config",
            Node::object(&[
                ("max_output_tokens", Node::leaf(Field::Limit)),
                ("thinking_level", Node::leaf(Field::Reasoning)),
            ])
            .named(Field::LimitParent),
        ),
    ])
    .named(Field::Root),
    streams: false,
    has_usage_option: false,
    limit_parent: Some("generation_config"),
    limit: Some("max_output_tokens"),
    is_limit_unsure: false,
};
