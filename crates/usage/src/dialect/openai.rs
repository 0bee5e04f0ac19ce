//! OpenAI chat completions, legacy completions, embeddings, images, audio, moderations and runs,
//! as spoken by OpenAI and by the many hosts that answer in its shape.
//!
//! Fields: <https://platform.openai.com/docs/api-reference/chat/object> (`usage`),
//! `…/chat/streaming` (the last chunk, with `choices: []`, carries `usage` where
//! `stream_options.include_usage` was asked for), `…/images/object`, `…/audio/json-object`,
//! `…/runs/object`, `…/images-streaming`, `…/audio/transcript-text-done-event`,
//! `…/audio/speech-audio-done-event`. Details lie within their totals unless [`super::quirks`] says
//! otherwise.

use super::Field;
use super::quirks::Quirks;
use crate::bucket::{Bucket, Usage};
use crate::counts::{Count, Counts, less, split};
use crate::detect::Api;
use crate::findings::{Findings, take_text};
use crate::json::number::count_of;
use crate::json::{Node, Value};
use crate::scan::Trouble;

/// The most streamed tool calls that are told apart; more are counted as too long.
const CALLS_MAX: usize = 128;

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
]);

/// Cache writes by how long they are kept, as gateways to Anthropic's models pass them on.
const WRITES_BY_AGE: Node<Field> =
    Node::object(&[("ephemeral_1h_input_tokens", count(Count::CacheWrite1h))]);

const OUTPUT_DETAILS: Node<Field> = Node::object(&[
    ("reasoning_tokens", count(Count::Reasoning)),
    ("audio_tokens", count(Count::AudioOutput)),
    ("image_tokens", count(Count::ImageOutput)),
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

/// Every spelling that hosts of this dialect use; a host uses one of each.
const USAGE: Node<Field> = Node::object(&[
    ("prompt_tokens", count(Count::Input)),
    ("input_tokens", count(Count::Input)),
    ("completion_tokens", count(Count::Output)),
    ("output_tokens", count(Count::Output)),
    ("total_tokens", count(Count::Total)),
    ("prompt_tokens_details", INPUT_DETAILS),
    ("prompt_token_details", INPUT_DETAILS),
    ("input_tokens_details", INPUT_DETAILS),
    ("input_token_details", INPUT_DETAILS),
    ("completion_tokens_details", OUTPUT_DETAILS),
    ("completion_token_details", OUTPUT_DETAILS),
    ("output_tokens_details", OUTPUT_DETAILS),
    ("num_cached_tokens", count(Count::CacheRead)),
    ("cached_tokens", count(Count::CacheRead)),
    ("prompt_cache_hit_tokens", count(Count::CacheRead)),
    // Gateways to Anthropic's models write both (https://docs.litellm.ai/docs/completion/prompt_caching).
    ("cache_read_input_tokens", count(Count::CacheReadTwin)),
    ("cache_creation_input_tokens", count(Count::CacheCreation)),
    ("cache_creation", WRITES_BY_AGE),
    ("reasoning_tokens", count(Count::Reasoning)),
    // https://openrouter.ai/docs/api-reference/rerank
    ("search_units", count(Count::SearchUnits)),
    ("extra_properties", EXTRA_PROPERTIES),
    ("seconds", Node::leaf(Field::BilledSeconds)),
    (
        "cost",
        Node::object(&[("total_cost", Node::leaf(Field::Cost))]).named(Field::Cost),
    ),
    ("cost_in_usd_ticks", Node::leaf(Field::CostTicks)),
    // https://deepinfra.com/docs/openai_api
    ("estimated_cost", Node::leaf(Field::Cost)),
    // https://docs.perplexity.ai/docs/getting-started/pricing (Sonar Deep Research)
    ("num_search_queries", count(Count::WebSearches)),
    // https://docs.mistral.ai/api/#tag/ocr
    ("pages_processed", count(Count::Pages)),
    ("connectors", CONNECTORS),
    ("server_tool_use", SERVER_TOOLS),
    ("server_tool_use_details", SERVER_TOOLS),
])
.named(Field::Usage);

/// Ranks in Cohere's shape (<https://docs.cohere.com/reference/rerank>), as gateways and hosts copy
/// it (<https://docs.litellm.ai/docs/rerank>, <https://docs.siliconflow.com/en/api-reference/rerank>).
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
const CALL: Node<Field> = Node::object(&[("function", FUNCTION)]).named(Field::Call);

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

const MESSAGE: Node<Field> = Node::object(&[
    ("content", TEXT_OR_PARTS),
    ("reasoning_content", THOUGHT),
    ("reasoning", THOUGHT),
    ("refusal", TEXT),
    ("tool_calls", Node::array(&CALL)),
    ("function_call", LEGACY_CALL),
])
.named(Field::Envelope);

const DELTA: Node<Field> = Node::object(&[
    ("content", TEXT_OR_PARTS),
    ("reasoning_content", THOUGHT),
    ("reasoning", THOUGHT),
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

/// An entry of a conversation of Mistral's (<https://docs.mistral.ai/api/#tag/beta.conversations>).
const ENTRY: Node<Field> = Node::object(&[("model", Node::leaf(Field::Model))]);

/// Ends an exchange with MiniMax (<https://platform.minimax.io/docs/api-reference/text-post>):
/// 0 is success, whatever the HTTP status says.
const BASE_RESPONSE: Node<Field> = Node::object(&[("status_code", Node::leaf(Field::Reason))]);

pub(super) static SCHEMA: Node<Field> = Node::object(&[
    ("type", Node::leaf(Field::Kind)),
    ("id", Node::leaf(Field::ResponseId)),
    ("model", Node::leaf(Field::Model)),
    ("service_tier", Node::leaf(Field::Tier)),
    ("status", Node::leaf(Field::Status)),
    ("choices", Node::array(&CHOICE)),
    ("usage", USAGE),
    ("usage_info", USAGE),
    ("output", OUTPUT),
    ("outputs", Node::array(&ENTRY)),
    ("base_resp", BASE_RESPONSE),
    // watsonx.ai's embeddings and ranks (https://cloud.ibm.com/apidocs/watsonx-ai#text-embeddings)
    ("model_id", Node::leaf(Field::Model)),
    ("input_token_count", count(Count::Input)),
    ("meta", META),
    ("x_groq", Node::object(&[("usage", USAGE)])),
    ("error", Node::object(&[]).named(Field::Error)),
    ("delta", TEXT),
    ("text", TEXT),
    ("duration", Node::leaf(Field::AudioSeconds)),
    ("data", Node::array(&ITEM)),
]);

const ITEM: Node<Field> = Node::object(&[]).named(Field::Image);

/// One streamed tool call as far as it is known.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    choice: u64,
    index: u64,
    id: u64,
}

/// The choice and the tool call that are being read.
#[derive(Debug, Default)]
pub(super) struct State {
    choice_index: u64,
    choice_finish: Option<String>,
    call_index: u64,
    call_id: u64,
    pieces: Vec<(u64, u64)>,
    calls: Vec<Call>,
    kind: EventKind,
}

/// What the event at hand is, of those that say so and end a stream which has no `[DONE]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum EventKind {
    #[default]
    Other,
    /// A whole image: `image_generation.completed`, `image_edit.completed`.
    Image,
    /// The end of a transcript, of speech, of a conversation of Mistral's.
    Last,
    /// The end of one that failed.
    Error,
}

impl EventKind {
    fn of(value: Value<'_>) -> EventKind {
        match value {
            Value::Text("image_generation.completed" | "image_edit.completed") => EventKind::Image,
            Value::Text(
                "transcript.text.done" | "speech.audio.done" | "conversation.response.done",
            ) => EventKind::Last,
            Value::Text("conversation.response.error") => EventKind::Error,
            _ => EventKind::Other,
        }
    }
}

impl State {
    pub(super) fn scalar(
        &mut self,
        findings: &mut Findings,
        api: Api,
        field: Field,
        value: Value<'_>,
    ) {
        match field {
            Field::Index => self.choice_index = index_of(value),
            Field::Kind => self.kind = EventKind::of(value),
            Field::Reason if !matches!(value, Value::Null | Value::Number("0")) => findings.error(),
            // DashScope's word for "not yet".
            Field::Finish if value == Value::Text("null") => {}
            Field::Finish => {
                let outcome = take_text(&mut self.choice_finish, value);
                findings.note(outcome);
            }
            Field::Status if api == Api::OpenAiAssistantsRun => {
                let outcome = take_text(&mut findings.finish_reason, value);
                findings.note(outcome);
            }
            Field::CallIndex => self.call_index = index_of(value),
            Field::CallId => self.call_id = id_of(value),
            _ => {}
        }
    }

    pub(super) fn open(&mut self, findings: &mut Findings, field: Field) {
        match field {
            Field::Choice => {
                self.choice_index = 0;
                self.choice_finish = None;
                self.pieces.clear();
            }
            Field::Envelope => findings.takes_tool_calls(),
            Field::CallPiece | Field::LegacyCall => {
                self.call_index = 0;
                self.call_id = 0;
            }
            _ => {}
        }
    }

    pub(super) fn close(&mut self, findings: &mut Findings, field: Field) {
        match field {
            Field::Usage => findings.replace_usage(),
            Field::LegacyCall if self.call_id == 0 => {}
            Field::Call | Field::LegacyCall => {
                findings.has_content = true;
                findings.tool_call();
            }
            Field::CallPiece => {
                findings.has_content = true;
                if self.pieces.len() < CALLS_MAX {
                    self.pieces.push((self.call_index, self.call_id));
                }
            }
            Field::Choice => self.end_choice(findings),
            Field::Image => findings.n_items += 1,
            _ => {}
        }
    }

    /// Some hosts end a stream without `[DONE]`: where reason and usage are told, nothing is due.
    pub(super) fn document(&mut self, findings: &mut Findings, api: Api) {
        if api == Api::OpenAiChat {
            findings.takes_tool_calls();
        }
        if matches!(api, Api::OpenAiEmbeddings | Api::Rerank) {
            findings.overlay_usage();
        }
        match std::mem::take(&mut self.kind) {
            EventKind::Other => {}
            EventKind::Image => {
                findings.n_items += 1;
                findings.is_terminated = true;
            }
            EventKind::Last => findings.is_terminated = true,
            EventKind::Error => findings.error(),
        }
        findings.is_terminated |=
            findings.finish_reason.is_some() && findings.has_usage && !findings.is_error;
    }

    fn end_choice(&mut self, findings: &mut Findings) {
        if let (0, Some(finish)) = (self.choice_index, self.choice_finish.take()) {
            findings.finish_reason = Some(finish);
        }
        for (index, id) in std::mem::take(&mut self.pieces) {
            self.piece(findings, index, id);
        }
    }

    /// Counts a streamed call once: by its index, and where a host gives every call the same
    /// index, by its id.
    fn piece(&mut self, findings: &mut Findings, index: u64, id: u64) {
        let choice = self.choice_index;
        let has_room = self.calls.len() < CALLS_MAX;
        let known = self
            .calls
            .iter_mut()
            .rfind(|call| call.choice == choice && call.index == index);
        match known {
            Some(call) if id == 0 || call.id == id => {}
            Some(call) if call.id == 0 => call.id = id,
            _ if has_room => {
                self.calls.push(Call { choice, index, id });
                findings.tool_call();
            }
            _ => findings.trouble(Trouble::TooLong),
        }
    }
}

fn index_of(value: Value<'_>) -> u64 {
    match value {
        Value::Number(text) => count_of(text).unwrap_or(0),
        _ => 0,
    }
}

/// A fingerprint of an id (FNV-1a); 0 for none.
fn id_of(value: Value<'_>) -> u64 {
    match value {
        Value::Text("") => 0,
        Value::Text(text) => text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        }),
        _ => 0,
    }
}

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
            (Bucket::CacheRead, cache_read_of(counts)),
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

fn cache_read_of(counts: &Counts) -> Option<u64> {
    let twin = counts.get(Count::CacheReadTwin).filter(|n| *n > 0);
    counts.get(Count::CacheRead).max(twin)
}

/// Hosts that also serve Anthropic's models add its `cache_creation_input_tokens`, mostly as a 0
/// that reports nothing, since other models have no such count.
fn cache_write_of(counts: &Counts, quirks: Quirks) -> Option<u64> {
    let creation = counts.get(Count::CacheCreation);
    let creation = creation.filter(|n| *n > 0 || quirks.reports_cache_creation);
    counts.get(Count::CacheWrite).max(creation)
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
    let cached = cache_read_of(counts).unwrap_or(0);
    let mut whole = input;
    if quirks.audio_is_additional {
        whole = whole.saturating_add(audio);
    }
    if quirks.cached_is_additional && cached > input {
        whole = whole.saturating_add(cached);
    }
    Some(whole)
}

fn output_of(counts: &Counts, api: Api, quirks: Quirks) -> Option<u64> {
    let input = counts.get(Count::Input);
    let Some(output) = counts.get(Count::Output) else {
        // Embeddings and ranks are no tokens, and say so by leaving the count out.
        return input_of(counts, api, quirks)
            .filter(|_| matches!(api, Api::OpenAiEmbeddings | Api::Rerank))
            .map(|_| 0);
    };
    let reasoning = counts.get(Count::Reasoning).unwrap_or(0);
    let with_reasoning = output.saturating_add(reasoning);
    let total = counts.get(Count::Total).zip(input);
    match total.map(|(total, input)| total.saturating_sub(input)) {
        // Where the total has it on top, it is on top: also for hosts that pass on what another
        // counted.
        Some(produced) if produced == with_reasoning => Some(produced),
        Some(produced) if produced == output && quirks.total_tells_reasoning => Some(output),
        _ if quirks.reasoning_is_additional => Some(with_reasoning),
        Some(produced) if quirks.output_from_total => Some(produced.max(output)),
        _ => Some(output),
    }
}
