//! Which values of an answer in OpenAI's dialect are wanted, under every name that hosts have for
//! them.

use super::Field;
use crate::counts::Count;
use crate::json::Node;

const fn count(count: Count) -> Node<Field> {
    Node::leaf(Field::Count(count))
}

const INPUT_DETAILS: Node<Field> = Node::object(&[
    ("cached_tokens", count(Count::CacheRead)),
    ("cache_write_tokens", count(Count::CacheWrite)),
    ("audio_tokens", count(Count::AudioInput)),
    ("image_tokens", count(Count::ImageInput)),
    // https://docs.litellm.ai/docs/completion/prompt_caching
    ("cache_creation_tokens", count(Count::CacheCreation)),
    ("cache_creation_token_details", WRITES_BY_AGE),
    // https://www.alibabacloud.com/help/en/model-studio/context-cache
    ("cache_creation_input_tokens", count(Count::CacheCreation)),
    ("cache_creation", WRITES_BY_AGE),
    ORCHESTRATION_INPUT,
    ORCHESTRATION_CACHED,
]);

/// Names of Sakana's (<https://wavespeed.ai/blog/posts/fugu-ultra-api-guide/>).
const ORCHESTRATION_INPUT: (&str, Node<Field>) = (
    "orchestration_input_tokens",
    count(Count::OrchestrationInput),
);
const ORCHESTRATION_CACHED: (&str, Node<Field>) = (
    "orchestration_input_cached_tokens",
    count(Count::OrchestrationCacheRead),
);
const ORCHESTRATION_OUTPUT: (&str, Node<Field>) = (
    "orchestration_output_tokens",
    count(Count::OrchestrationOutput),
);

/// Cache writes by how long they are kept, as gateways to Anthropic's models pass them on.
const WRITES_BY_AGE: Node<Field> =
    Node::object(&[("ephemeral_1h_input_tokens", count(Count::CacheWrite1h))]);

const OUTPUT_DETAILS: Node<Field> = Node::object(&[
    ("reasoning_tokens", count(Count::Reasoning)),
    ("audio_tokens", count(Count::AudioOutput)),
    ("image_tokens", count(Count::ImageOutput)),
    ORCHESTRATION_OUTPUT,
]);

const SERVER_TOOLS: Node<Field> =
    Node::object(&[("web_search_requests", count(Count::WebSearches))]);

/// Vertex AI's word for provisioned, shared or discounted capacity
/// (<https://cloud.google.com/vertex-ai/generative-ai/docs/migrate/openai/overview>).
const EXTRA_PROPERTIES: Node<Field> = Node::object(&[(
    "google",
    Node::object(&[("traffic_type", Node::leaf(Field::Context("traffic_type")))]),
)]);

/// What Mistral's conversations used (<https://docs.mistral.ai/agents/connectors/websearch>).
const CONNECTORS: Node<Field> = Node::object(&[("web_search", count(Count::WebSearches))]);

/// The same under the names that other APIs of this dialect have for them.
const INPUT_DETAILS_TWIN: Node<Field> = Node::object(&[
    ("cached_tokens", count(Count::CacheReadElsewhere)),
    ("cache_write_tokens", count(Count::CacheWrite)),
    ("audio_tokens", count(Count::AudioInput)),
    ("image_tokens", count(Count::ImageInput)),
    ORCHESTRATION_INPUT,
    ORCHESTRATION_CACHED,
]);

const OUTPUT_DETAILS_TWIN: Node<Field> = Node::object(&[
    ("reasoning_tokens", count(Count::ReasoningTwin)),
    ("audio_tokens", count(Count::AudioOutput)),
    ("image_tokens", count(Count::ImageOutput)),
    ORCHESTRATION_OUTPUT,
]);

/// What Qwen searched (<https://www.alibabacloud.com/help/model-studio/web-search>).
const PLUGINS: Node<Field> = Node::object(&[(
    "search",
    Node::object(&[("count", count(Count::WebSearches))]),
)]);

/// Every spelling that hosts of this dialect use; where one uses two, [`crate::counts::Counts::unite`]
/// says which holds.
const USAGE: Node<Field> = Node::object(&[
    ("prompt_tokens", count(Count::Input)),
    ("input_tokens", count(Count::InputTwin)),
    ("completion_tokens", count(Count::Output)),
    ("output_tokens", count(Count::OutputTwin)),
    ("total_tokens", count(Count::Total)),
    ("prompt_tokens_details", INPUT_DETAILS),
    ("prompt_token_details", INPUT_DETAILS),
    ("input_tokens_details", INPUT_DETAILS_TWIN),
    ("input_token_details", INPUT_DETAILS_TWIN),
    ("completion_tokens_details", OUTPUT_DETAILS),
    ("completion_token_details", OUTPUT_DETAILS),
    ("output_tokens_details", OUTPUT_DETAILS_TWIN),
    ("num_cached_tokens", count(Count::CacheReadElsewhere)),
    ("cached_tokens", count(Count::CacheReadElsewhere)),
    ("prompt_cache_hit_tokens", count(Count::CacheReadElsewhere)),
    // Gateways to Anthropic's models write both
    // (https://docs.litellm.ai/docs/completion/prompt_caching).
    ("cache_read_input_tokens", count(Count::CacheReadTwin)),
    ("cache_creation_input_tokens", count(Count::CacheCreation)),
    ("cache_creation", WRITES_BY_AGE),
    ("reasoning_tokens", count(Count::ReasoningTwin)),
    // https://openrouter.ai/docs/api-reference/rerank
    ("search_units", count(Count::SearchUnits)),
    ("extra_properties", EXTRA_PROPERTIES),
    ("seconds", Node::leaf(Field::BilledSeconds)),
    // Beside its tokens, sound is charged by the second (https://mistral.ai/pricing#api-pricing).
    ("prompt_audio_seconds", Node::leaf(Field::BilledSeconds)),
    (
        "cost",
        Node::object(&[("total_cost", Node::leaf(Field::Cost))]).named(Field::Cost),
    ),
    ("cost_in_usd_ticks", Node::leaf(Field::CostTicks)),
    // https://deepinfra.com/docs/openai_api
    ("estimated_cost", Node::leaf(Field::Cost)),
    // https://docs.perplexity.ai/docs/getting-started/pricing (Sonar Deep Research)
    ("num_search_queries", count(Count::WebSearches)),
    ("citation_tokens", count(Count::CitationInput)),
    // The same page: the fee of a request goes by it.
    (
        "search_context_size",
        Node::leaf(Field::Context("search_context_size")),
    ),
    // https://docs.mistral.ai/api/#tag/ocr
    ("pages_processed", count(Count::Pages)),
    // https://console.upstage.ai/api/document-digitization/document-parsing
    ("pages", count(Count::Pages)),
    // https://www.alibabacloud.com/help/model-studio/qwen-tts, https://docs.mistral.ai/api/#tag/audio.speech
    ("characters", count(Count::Characters)),
    ("connectors", CONNECTORS),
    ("connector_tokens", count(Count::ToolUseInput)),
    ("plugins", PLUGINS),
    // https://www.alibabacloud.com/help/model-studio/qwen-image-api
    ("image_count", count(Count::Images)),
    ("server_tool_use", SERVER_TOOLS),
    ("server_tool_use_details", SERVER_TOOLS),
])
.named(Field::Usage);

/// What each model behind a compound one used
/// (<https://github.com/groq/groq-python/blob/main/src/groq/types/chat/chat_completion.py>,
/// `UsageBreakdown`).
const BREAKDOWN: Node<Field> =
    Node::object(&[("models", Node::array(&MODEL_USAGE).named(Field::Iterations))]);
const MODEL_USAGE: Node<Field> = Node::object(&[
    ("model", Node::leaf(Field::IterationModel)),
    (
        "usage",
        Node::object(&[
            ("prompt_tokens", count(Count::Input)),
            ("completion_tokens", count(Count::Output)),
            ("total_tokens", count(Count::Total)),
            ("prompt_tokens_details", INPUT_DETAILS),
            ("completion_tokens_details", OUTPUT_DETAILS),
        ]),
    ),
])
.named(Field::Iteration);

const THOUGHT: Node<Field> = Node::text(Field::Thought);
const CALL_TEXT: Node<Field> = Node::text(Field::CallText);

/// Mistral's reasoning models answer in parts, of which some are thoughts
/// (<https://docs.mistral.ai/capabilities/reasoning>).
const PART: Node<Field> = Node::object(&[
    ("text", Node::text(Field::Content)),
    (
        "thinking",
        THOUGHT.or_array(&Node::object(&[("text", THOUGHT)])),
    ),
]);
const FUNCTION: Node<Field> = Node::object(&[("name", CALL_TEXT), ("arguments", CALL_TEXT)]);
const TEXT: Node<Field> = Node::text(Field::Content);
const TEXT_OR_PARTS: Node<Field> = TEXT.or_array(&PART);
const CALL: Node<Field> = Node::object(&[
    ("index", Node::leaf(Field::CallIndex)),
    ("id", Node::leaf(Field::CallId)),
    ("function", FUNCTION),
])
.named(Field::Call);

/// The only call of older models; some hosts write it with empty strings where there is none.
const LEGACY_CALL: Node<Field> = Node::object(&[
    ("name", Node::leaf(Field::CallId)),
    ("arguments", CALL_TEXT),
])
.named(Field::LegacyCall);
const CALL_PIECE: Node<Field> = Node::object(&[
    ("index", Node::leaf(Field::CallIndex)),
    ("id", Node::leaf(Field::CallId)),
    ("function", FUNCTION),
    ("name", CALL_TEXT),
    ("arguments", CALL_TEXT),
])
.named(Field::CallPiece);

/// What routers relay of reasoning that is encrypted
/// (<https://openrouter.ai/docs/use-cases/reasoning-tokens>, `reasoning.encrypted`); the text of
/// other details stands in `reasoning` too.
const REASONING_DETAILS: Node<Field> =
    Node::array(&Node::object(&[("data", Node::text(Field::HiddenThought))]));

const MESSAGE: Node<Field> = Node::object(&[
    ("content", TEXT_OR_PARTS),
    ("reasoning_content", THOUGHT),
    ("reasoning", THOUGHT),
    ("reasoning_details", REASONING_DETAILS),
    ("refusal", TEXT),
    ("tool_calls", Node::array(&CALL)),
    ("function_call", LEGACY_CALL),
])
.named(Field::Block);

const DELTA: Node<Field> = Node::object(&[
    ("content", TEXT_OR_PARTS),
    ("reasoning_content", THOUGHT),
    ("reasoning", THOUGHT),
    ("reasoning_details", REASONING_DETAILS),
    ("refusal", TEXT),
    ("tool_calls", Node::array(&CALL_PIECE)),
    ("function_call", CALL_PIECE),
])
.named(Field::Envelope);

const CHOICE: Node<Field> = Node::object(&[
    ("index", Node::leaf(Field::Index)),
    ("finish_reason", Node::leaf(Field::Finish)),
    ("delta", DELTA),
    ("message", MESSAGE),
    ("text", TEXT),
    ("usage", USAGE),
])
.named(Field::Choice);

/// DashScope's own API puts what others have at the top into an object
/// (<https://www.alibabacloud.com/help/model-studio/qwen-api-via-dashscope>); its older form has
/// text and reason there, as a choice has.
const OUTPUT: Node<Field> = Node::object(&[
    ("choices", Node::array(&CHOICE)),
    ("text", TEXT),
    ("finish_reason", Node::leaf(Field::Finish)),
])
.named(Field::Choice);

/// Cloudflare wraps what a model of its own answers, or what a partner's does
/// (<https://developers.cloudflare.com/workers-ai/get-started/rest-api/>).
const WRAPPED: Node<Field> = Node::object(&[
    ("id", Node::leaf(Field::ResponseId)),
    ("model", Node::leaf(Field::Model)),
    ("response", TEXT),
    ("tool_calls", Node::array(&CALL)),
    ("choices", Node::array(&CHOICE)),
    ("usage", USAGE),
]);

/// An entry of a conversation of Mistral's (<https://docs.mistral.ai/api/#tag/beta.conversations>).
const ENTRY: Node<Field> = Node::object(&[("model", Node::leaf(Field::Model))]);

/// Ranks in Cohere's shape, as gateways and hosts copy it
/// (<https://docs.litellm.ai/docs/rerank>, <https://docs.siliconflow.com/en/api-reference/rerank>).
const META: Node<Field> = Node::object(&[
    (
        "billed_units",
        Node::object(&[("search_units", count(Count::SearchUnits))]),
    ),
    (
        "tokens",
        Node::object(&[("input_tokens", count(Count::Input))]),
    ),
])
.named(Field::Usage);

/// Ends an exchange with MiniMax (<https://platform.minimax.io/docs/api-reference/text-post>):
/// 0 is success, whatever the HTTP status says.
const BASE_RESPONSE: Node<Field> = Node::object(&[("status_code", Node::leaf(Field::Reason))]);

pub(in crate::dialect) static SCHEMA: Node<Field> = Node::object(&[
    ("type", Node::leaf(Field::Kind)),
    ("id", Node::leaf(Field::ResponseId)),
    // https://docs.x.ai/docs/guides/deferred-chat-completions
    ("request_id", Node::leaf(Field::RequestId)),
    ("model", Node::leaf(Field::Model)),
    ("service_tier", Node::leaf(Field::Tier)),
    ("choices", Node::array(&CHOICE)),
    ("usage", USAGE),
    ("usage_info", USAGE),
    ("output", OUTPUT),
    ("result", WRAPPED),
    ("response", TEXT),
    ("outputs", Node::array(&ENTRY)),
    ("base_resp", BASE_RESPONSE),
    // https://cloud.ibm.com/apidocs/watsonx-ai#text-chat
    ("model_id", Node::leaf(Field::Model)),
    ("meta", META),
    ("usage_breakdown", BREAKDOWN),
    (
        "x_groq",
        Node::object(&[("usage", USAGE), ("usage_breakdown", BREAKDOWN)]),
    ),
    ("error", Node::object(&[]).named(Field::Error)),
    // https://github.com/vllm-project/vllm/blob/v0.8.5/vllm/entrypoints/openai/protocol.py
    // (`ErrorResponse`): what goes wrong within a stream has no key `error`.
    ("object", Node::leaf(Field::ObjectKind)),
    ("delta", TEXT),
    ("text", TEXT),
    ("duration", Node::leaf(Field::AudioSeconds)),
    ("data", Node::array(&ITEM)),
]);

const RUN_TEXT: Node<Field> = Node::object(&[("text", Node::object(&[("value", TEXT)]))]);

/// A run, or an event of its stream, which also tells of threads, messages and steps
/// (<https://platform.openai.com/docs/api-reference/assistants-streaming/events>).
pub(in crate::dialect) static RUN_SCHEMA: Node<Field> = Node::object(&[
    ("id", Node::leaf(Field::ResponseId)),
    ("object", Node::leaf(Field::Kind)),
    ("model", Node::leaf(Field::Model)),
    ("status", Node::leaf(Field::Status)),
    (
        "delta",
        Node::object(&[("content", Node::array(&RUN_TEXT))]),
    ),
    ("usage", USAGE),
    ("error", Node::object(&[]).named(Field::Error)),
]);

/// What one request of a batch of Mistral's was answered.
const RESULT: Node<Field> = Node::object(&[
    ("model", Node::leaf(Field::IterationModel)),
    ("usage", USAGE),
])
.named(Field::BatchResult);

const RESULT_ENTRY: Node<Field> = Node::object(&[("response", Node::object(&[("body", RESULT)]))]);

/// <https://platform.openai.com/docs/api-reference/batch/object>; a batch of Mistral's whose requests
/// came inline has its answers in it, and no sum
/// (<https://docs.mistral.ai/capabilities/batch>, `outputs`).
pub(in crate::dialect) static BATCH_SCHEMA: Node<Field> = Node::object(&[
    ("id", Node::leaf(Field::ResponseId)),
    ("model", Node::leaf(Field::Model)),
    ("status", Node::leaf(Field::Status)),
    ("usage", USAGE),
    (
        "request_counts",
        Node::object(&[("completed", Node::leaf(Field::BatchRequests))]),
    ),
    ("outputs", Node::array(&RESULT_ENTRY)),
    ("error", Node::object(&[]).named(Field::Error)),
]);

/// A chat completion that may not be there yet: within an object that says so
/// (<https://docs.perplexity.ai/api-reference/async-chat-completions-request_id-get>, `response`), or
/// with a word that does (<https://docs.bigmodel.cn/api-reference>, `task_status`). The id that it
/// has itself is not the one that is asked for.
pub(in crate::dialect) static ASYNC_SCHEMA: Node<Field> = Node::object(&[
    ("id", Node::leaf(Field::ResponseId)),
    ("model", Node::leaf(Field::Model)),
    ("choices", Node::array(&CHOICE)),
    ("usage", USAGE),
    (
        "response",
        Node::object(&[
            ("model", Node::leaf(Field::Model)),
            ("choices", Node::array(&CHOICE)),
            ("usage", USAGE),
        ]),
    ),
    ("error", Node::object(&[]).named(Field::Error)),
]);

/// <https://platform.openai.com/docs/api-reference/videos/object> (`seconds`),
/// <https://docs.x.ai/docs/guides/video-generations> (`request_id`, `video.duration`).
pub(in crate::dialect) static VIDEO_SCHEMA: Node<Field> = Node::object(&[
    ("id", Node::leaf(Field::ResponseId)),
    ("request_id", Node::leaf(Field::ResponseId)),
    ("model", Node::leaf(Field::Model)),
    ("status", Node::leaf(Field::Status)),
    ("seconds", Node::leaf(Field::BilledSeconds)),
    (
        "video",
        Node::object(&[("duration", Node::leaf(Field::BilledSeconds))]),
    ),
    // https://docs.together.ai/docs/videos-overview
    (
        "outputs",
        Node::object(&[("cost", Node::leaf(Field::Cost))]),
    ),
    (
        "usage",
        Node::object(&[
            ("cost", Node::leaf(Field::Cost)),
            ("cost_in_usd_ticks", Node::leaf(Field::CostTicks)),
        ]),
    ),
    ("error", Node::object(&[]).named(Field::Error)),
]);

const ITEM: Node<Field> = Node::object(&[]).named(Field::Image);
