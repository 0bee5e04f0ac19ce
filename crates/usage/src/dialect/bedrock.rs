//! Bedrock's Converse, and InvokeModel with the bodies of the models behind it.
//!
//! <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html>: input
//! excludes what was read from and written to the cache. InvokeModel tells the counts in the
//! headers `x-amzn-bedrock-*-token-count`, its stream in the last chunk's
//! `amazon-bedrock-invocationMetrics`; what a model's own body says comes first. The tier that
//! served a call stands in Converse's `serviceTier` and in InvokeModel's header
//! (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html>).

use super::Field;
use super::anthropic;
use crate::bucket::Usage;
use crate::counts::{Count, Counts};
use crate::detect::{Api, Target};
use crate::findings::{Findings, take_text};
use crate::json::number::count_of;
use crate::json::{Node, Value};
use crate::scan::Trouble;

const fn count(count: Count) -> Node<Field> {
    Node::leaf(Field::Count(count))
}

/// The headers in which InvokeModel tells its counts.
pub(super) const HEADERS: &[(&str, Count)] = &[
    ("x-amzn-bedrock-input-token-count", Count::Input),
    ("x-amzn-bedrock-output-token-count", Count::Output),
    (
        "x-amzn-bedrock-cache-read-input-token-count",
        Count::CacheRead,
    ),
    (
        "x-amzn-bedrock-cache-write-input-token-count",
        Count::CacheWrite,
    ),
];

/// The header in which InvokeModel tells the tier that served the call.
pub(super) const TIER_HEADER: &str = "x-amzn-bedrock-service-tier";

const CACHE_DETAIL: Node<Field> = Node::object(&[
    ("ttl", Node::leaf(Field::Modality)),
    ("inputTokens", Node::leaf(Field::ModalityTokens)),
])
.named(Field::Detail(Count::CacheWrite1h));

/// Converse's usage; Nova's InvokeModel spells the cache with `Count`.
const USAGE: Node<Field> = Node::object(&[
    ("inputTokens", count(Count::Input)),
    ("outputTokens", count(Count::Output)),
    ("totalTokens", count(Count::Total)),
    ("cacheReadInputTokens", count(Count::CacheRead)),
    ("cacheWriteInputTokens", count(Count::CacheWrite)),
    ("cacheReadInputTokenCount", count(Count::CacheRead)),
    ("cacheWriteInputTokenCount", count(Count::CacheWrite)),
    ("cacheDetails", Node::array(&CACHE_DETAIL)),
])
.named(Field::Usage);

const TEXT: Node<Field> = Node::text(Field::Content);
const THOUGHT: Node<Field> = Node::text(Field::Thought);
const CALL_TEXT: Node<Field> = Node::text(Field::CallText);
const CALL: Node<Field> = Node::object(&[("name", CALL_TEXT)]).named(Field::Call);
const FINISH: Node<Field> = Node::leaf(Field::Finish);

const REASONING: Node<Field> = Node::object(&[
    ("text", THOUGHT),
    ("redactedContent", Node::text(Field::HiddenThought)),
    ("reasoningText", Node::object(&[("text", THOUGHT)])),
]);

const PART: Node<Field> = Node::object(&[
    ("text", TEXT),
    ("toolUse", CALL),
    ("reasoningContent", REASONING),
]);

const OUTPUT: Node<Field> = Node::object(&[(
    "message",
    Node::object(&[("content", Node::array(&PART).named(Field::Envelope))]),
)]);

const DELTA: Node<Field> = Node::object(&[
    ("text", TEXT),
    ("reasoningContent", REASONING),
    ("toolUse", Node::object(&[("input", CALL_TEXT)])),
]);

const START: Node<Field> = Node::object(&[("toolUse", CALL)]);

/// Converse's answer, and the events of its stream, which are told apart by their keys.
pub(super) static CONVERSE_SCHEMA: Node<Field> = Node::object(&[
    ("output", OUTPUT),
    ("stopReason", FINISH),
    ("usage", USAGE),
    ("role", Node::leaf(Field::Envelope)),
    ("start", START),
    ("delta", DELTA),
    (
        "serviceTier",
        Node::object(&[("type", Node::leaf(Field::Tier))]),
    ),
    ("performanceConfig", PERFORMANCE),
    ("trace", Node::object(&[("promptRouter", PROMPT_ROUTER)])),
]);

/// How the call was served, which may be otherwise than it was asked for; `optimized` has rates of
/// its own (<https://docs.aws.amazon.com/bedrock/latest/userguide/latency-optimized-inference.html>).
const PERFORMANCE: Node<Field> =
    Node::object(&[("latency", Node::leaf(Field::Context("latency")))]);

/// The header in which InvokeModel says so.
pub(super) const LATENCY_HEADER: &str = "x-amzn-bedrock-performanceconfig-latency";

/// A router's path does not name the model that it chose
/// (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_PromptRouterTrace.html>).
const PROMPT_ROUTER: Node<Field> = Node::object(&[("invokedModelId", Node::leaf(Field::Model))]);

/// Messages, Converse and chat completions each have their own words for the same counts.
const ANY_USAGE: Node<Field> = Node::object(&[
    ("inputTokens", count(Count::Input)),
    ("outputTokens", count(Count::Output)),
    ("cacheReadInputTokens", count(Count::CacheRead)),
    ("cacheWriteInputTokens", count(Count::CacheWrite)),
    ("cacheReadInputTokenCount", count(Count::CacheRead)),
    ("cacheWriteInputTokenCount", count(Count::CacheWrite)),
    ("input_tokens", count(Count::Input)),
    ("output_tokens", count(Count::Output)),
    ("cache_read_input_tokens", count(Count::CacheRead)),
    ("cache_creation_input_tokens", count(Count::CacheWrite)),
    ("cache_creation", anthropic::CACHE_CREATION),
    ("output_tokens_details", anthropic::OUTPUT_DETAILS),
    ("server_tool_use", anthropic::SERVER_TOOLS),
    ("service_tier", Node::leaf(Field::Tier)),
    ("inference_geo", Node::leaf(Field::Context("inference_geo"))),
    ("speed", Node::leaf(Field::Context("speed"))),
    ("iterations", anthropic::ITERATIONS),
    ("prompt_tokens", count(Count::InputTwin)),
    ("prompt_tokens_details", CHAT_INPUT_DETAILS),
    ("completion_tokens", count(Count::Output)),
    (
        "completion_tokens_details",
        Node::object(&[("reasoning_tokens", count(Count::Reasoning))]),
    ),
])
.named(Field::Usage);

/// Parts of `prompt_tokens`, which is gross as at OpenAI
/// (<https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-openai.html>: the body is
/// a chat completion of OpenAI's).
const CHAT_INPUT_DETAILS: Node<Field> = Node::object(&[
    ("cached_tokens", count(Count::CacheRead)),
    ("cache_write_tokens", count(Count::CacheWrite)),
]);

const METRICS: Node<Field> = Node::object(&[
    ("inputTokenCount", count(Count::Input)),
    ("outputTokenCount", count(Count::Output)),
    ("cacheReadInputTokenCount", count(Count::CacheRead)),
    ("cacheWriteInputTokenCount", count(Count::CacheWrite)),
])
.named(Field::Metrics);

const MESSAGE: Node<Field> = Node::object(&[
    ("id", Node::leaf(Field::ResponseId)),
    ("model", Node::leaf(Field::Model)),
    (
        "content",
        Node::array(&anthropic::BLOCK).named(Field::Envelope),
    ),
    ("stop_reason", FINISH),
    ("usage", ANY_USAGE),
]);

const FUNCTION: Node<Field> = Node::object(&[("name", CALL_TEXT), ("arguments", CALL_TEXT)]);

/// A call of a chat completion; in a stream its later pieces have no id.
const CHAT_CALL: Node<Field> =
    Node::object(&[("id", Node::leaf(Field::CallId)), ("function", FUNCTION)])
        .named(Field::CallPiece);
const CHAT_CALLS: Node<Field> = Node::array(&CHAT_CALL).named(Field::Envelope);
const CHAT_MESSAGE: Node<Field> = Node::object(&[
    ("content", TEXT),
    ("reasoning_content", THOUGHT),
    ("reasoning", THOUGHT),
    ("tool_calls", CHAT_CALLS),
]);

/// What several families call a result: Titan, Mistral, Cohere, Jurassic, chat completions.
const RESULT: Node<Field> = Node::object(&[
    ("index", Node::leaf(Field::Index)),
    ("tokenCount", count(Count::Output)),
    ("outputText", TEXT),
    ("text", TEXT),
    ("completionReason", RESULT_FINISH),
    ("stop_reason", RESULT_FINISH),
    ("finish_reason", RESULT_FINISH),
    ("finishReason", Node::object(&[("reason", RESULT_FINISH)])),
    ("message", CHAT_MESSAGE),
    ("delta", CHAT_MESSAGE),
])
.named(Field::Choice);
const RESULT_FINISH: Node<Field> = Node::leaf(Field::Reason);
const RESULTS: Node<Field> = Node::array(&RESULT);

/// Images, as base64 each
/// (<https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-image.html>,
/// `…/model-parameters-stability-diffusion.html`).
const IMAGES: Node<Field> = Node::array(&IMAGE);
const IMAGE: Node<Field> = Node::leaf(Field::Image);

/// An image of Stable Diffusion XL's
/// (<https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-diffusion-1-0-text-image.html>).
const ARTIFACT: Node<Field> = Node::object(&[("base64", IMAGE)]);

/// What Command R wants called, whole also within a stream
/// (<https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-cohere-command-r-plus.html>).
const COMMAND_CALLS: Node<Field> = Node::array(&CALL).named(Field::Envelope);

/// The answer or chunk of any model.
pub(super) static INVOKE_SCHEMA: Node<Field> = Node::object(&[
    // Claude
    ("type", Node::leaf(Field::Kind)),
    ("message", MESSAGE),
    ("content_block", anthropic::BLOCK),
    (
        "delta",
        Node::object(&[
            ("text", TEXT),
            ("thinking", THOUGHT),
            ("partial_json", CALL_TEXT),
            ("stop_reason", FINISH),
        ]),
    ),
    ("id", Node::leaf(Field::ResponseId)),
    ("model", Node::leaf(Field::Model)),
    (
        "content",
        Node::array(&anthropic::BLOCK).named(Field::Envelope),
    ),
    ("completion", TEXT),
    // Nova
    ("output", OUTPUT),
    ("stopReason", FINISH),
    ("contentBlockStart", Node::object(&[("start", START)])),
    ("contentBlockDelta", Node::object(&[("delta", DELTA)])),
    ("messageStop", Node::object(&[("stopReason", FINISH)])),
    ("metadata", Node::object(&[("usage", ANY_USAGE)])),
    // Titan
    ("inputTextTokenCount", count(Count::Input)),
    // Nova's embeddings
    // (https://docs.aws.amazon.com/nova/latest/userguide/embeddings-schema.html)
    ("inputTokenCount", count(Count::Input)),
    ("totalOutputTextTokenCount", count(Count::Output)),
    ("outputText", TEXT),
    ("completionReason", FINISH),
    ("results", RESULTS),
    // Llama
    ("prompt_token_count", count(Count::Input)),
    ("generation_token_count", count(Count::Output)),
    ("generation", TEXT),
    ("stop_reason", FINISH),
    // Mistral, Cohere, Jurassic, chat completions
    ("outputs", RESULTS),
    ("generations", RESULTS),
    ("completions", RESULTS),
    ("choices", RESULTS),
    ("text", TEXT),
    ("finish_reason", FINISH),
    // TwelveLabs
    ("finishReason", FINISH),
    ("images", IMAGES),
    ("artifacts", Node::array(&ARTIFACT)),
    ("response", Node::object(&[("finish_reason", FINISH)])),
    ("tool_calls", COMMAND_CALLS),
    ("usage", ANY_USAGE),
    ("amazon-bedrock-invocationMetrics", METRICS),
]);

/// What headers and metrics said, beneath what the body says.
#[derive(Debug, Default)]
pub(super) struct State {
    inner: anthropic::State,
    stated: Counts,
    outer: Counts,
    has_metrics: bool,
    is_one_hour: bool,
    detail: Counts,
    /// The result at hand: how many the document had before it, and what it says of itself.
    n_results: u64,
    index: u64,
    result_finish: Option<String>,
    has_call_id: bool,
    /// Input has in it what was read from and written to the cache.
    is_input_gross: bool,
}

impl State {
    /// `inputTokens` of OpenAI's models has the cached tokens in it where they are streamed, against
    /// the reference, and `totalTokens` has them twice; what is not streamed keeps to it
    /// (<https://github.com/maximhq/bifrost/pull/6942>: 4,995 with 4,993 written, where an answer in
    /// one piece said 2; <https://github.com/earendil-works/pi/issues/8752>).
    pub(super) fn new(target: &Target) -> State {
        let is_stream = target.api == Api::BedrockConverseStream;
        let model = target.path_model.as_deref();
        State {
            is_input_gross: is_stream && model.is_some_and(|model| model.contains("openai.")),
            ..State::default()
        }
    }

    /// Takes a header's count. The cache headers also come, as 0, where no cache was asked for;
    /// then they report nothing.
    pub(super) fn header(&mut self, count: Count, value: &str) -> Result<(), Trouble> {
        let n = count_of(value).ok_or(Trouble::BadCount)?;
        if n > 0 || matches!(count, Count::Input | Count::Output) {
            self.stated.set(count, n);
        }
        Ok(())
    }

    pub(super) fn scalar(&mut self, findings: &mut Findings, field: Field, value: Value<'_>) {
        let outcome = match field {
            Field::Envelope => {
                findings.takes_tool_calls();
                Ok(())
            }
            Field::Finish => {
                if value != Value::Null {
                    findings.end_part();
                }
                take_text(&mut findings.finish_reason, value)
            }
            Field::Modality => {
                self.is_one_hour = value == Value::Text("1h");
                Ok(())
            }
            Field::ModalityTokens => self.detail.read(Count::CacheWrite1h, value),
            Field::Reason => take_text(&mut self.result_finish, value),
            Field::Index => {
                self.index = match value {
                    Value::Number(text) => count_of(text).unwrap_or(self.index),
                    _ => self.index,
                };
                Ok(())
            }
            Field::CallId => {
                self.has_call_id = !matches!(value, Value::Null | Value::Text(""));
                Ok(())
            }
            // An image that was filtered out is empty, and its reason stands beside it (`…/
            // model-parameters-diffusion-3-5-large.html`, `finish_reasons`).
            Field::Image => {
                let is_made = !matches!(value, Value::Null | Value::Text(""));
                findings.has_content |= is_made;
                findings.n_items += u64::from(is_made);
                Ok(())
            }
            _ => {
                self.inner.scalar(findings, field, value);
                Ok(())
            }
        };
        findings.note(outcome);
    }

    pub(super) fn open(&mut self, findings: &mut Findings, field: Field) {
        match field {
            Field::Metrics => self.outer = std::mem::take(&mut findings.staged),
            Field::Choice => {
                self.index = self.n_results;
                self.n_results += 1;
                self.result_finish = None;
            }
            Field::CallPiece => self.has_call_id = false,
            Field::Detail(_) => {
                self.is_one_hour = false;
                self.detail = Counts::default();
            }
            _ => self.inner.open(findings, field),
        }
    }

    pub(super) fn close(&mut self, findings: &mut Findings, field: Field) {
        match field {
            Field::Metrics => {
                findings.is_eventful = true;
                let outer = std::mem::take(&mut self.outer);
                let metrics = std::mem::replace(&mut findings.staged, outer);
                self.stated.overlay(&metrics);
                self.has_metrics = true;
            }
            Field::Call => {
                findings.has_content = true;
                findings.tool_call();
            }
            Field::CallPiece => {
                findings.has_content = true;
                if self.has_call_id {
                    findings.tool_call();
                }
            }
            // The first result is the answer, whatever order they come in.
            Field::Choice => {
                if let (0, Some(finish)) = (self.index, self.result_finish.take()) {
                    findings.finish_reason = Some(finish);
                }
            }
            Field::Detail(count) if self.is_one_hour => {
                if let Some(n) = self.detail.get(count) {
                    findings.staged.add(count, n);
                }
            }
            Field::Detail(_) => {}
            _ => self.inner.close(findings, field),
        }
    }

    /// Counts that stand outside any usage object are the document's.
    pub(super) fn document(&mut self, findings: &mut Findings, is_converse: bool) {
        findings.overlay_usage();
        self.n_results = 0;
        let is_counted = self.has_metrics || (is_converse && findings.has_usage);
        findings.is_terminated |= is_counted && findings.finish_reason.is_some();
    }

    pub(super) fn settle(&self, counts: &Counts, usage: &mut Usage) -> Result<(), Trouble> {
        let mut all = self.stated.clone();
        all.overlay(counts);
        let cached = [Count::CacheRead, Count::CacheWrite];
        let n_cached = cached.map(|count| all.get(count).unwrap_or(0));
        let n_cached = n_cached
            .iter()
            .fold(0, |sum: u64, n| sum.saturating_add(*n));
        let chat = counts.get(Count::InputTwin);
        // What a header says of the cache lies in a chat completion's input where the sum says so.
        let stated = self.stated.get(Count::Input);
        let is_sum = stated.map(|net| net.saturating_add(n_cached)) == chat;
        let tells_cache = cached.iter().any(|count| counts.get(*count).is_some());
        let is_gross = match chat {
            Some(_) => tells_cache || is_sum,
            None => self.is_input_gross,
        };
        if let Some(input) = chat.or(all.get(Count::Input)) {
            // Input that is less than that has none of it in it.
            let net = input.checked_sub(n_cached).filter(|_| is_gross);
            all.set(Count::Input, net.unwrap_or(input));
        }
        anthropic::settle(&all, usage)
    }
}
