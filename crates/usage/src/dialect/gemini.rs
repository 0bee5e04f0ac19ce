//! Gemini's `generateContent`, `streamGenerateContent`, embeddings, token counts and the messages
//! of the Live API, on the Gemini API and on Vertex AI.
//!
//! <https://ai.google.dev/api/generate-content#UsageMetadata>: the cached content lies within
//! `promptTokenCount`; thoughts and tool-use prompts are counted beside prompt and candidates. In
//! a stream every chunk may carry `usageMetadata`; observed that with server tools it goes up and
//! down, so that only the last object, taken whole, is the call's.
//! In the Live API (<https://ai.google.dev/api/live>, also for Vertex AI) any message of the server
//! may carry `usageMetadata`, whose output is `responseTokenCount`. A turn ends with `turnComplete`
//! or, for the client to answer, with a `toolCall`. The reference does not say what the counts sum
//! up; observed that they start anew with each turn, whose prompt has all turns before it
//! (143, 181, 224 over three turns: <https://github.com/pydantic/pydantic-ai/pull/7269>). Several
//! within one turn are taken for the same turn's, so that the last holds.
//! `predict` serves older embeddings, which count each text apart
//! (<https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api>:
//! `predictions[].embeddings.statistics.token_count`; what is charged is
//! `metadata.billableCharacterCount`), and images
//! (<https://ai.google.dev/gemini-api/docs/imagen>).
//! A batch (<https://ai.google.dev/gemini-api/docs/batch-api>) has the answers to requests that came
//! inline in it once it has ended; answers that are written to a file are not told by it.
//! <https://ai.google.dev/gemini-api/docs/pricing>: what grounding with Search or Maps reads is
//! not charged as input.

use super::Field;
use crate::bucket::{Bucket, Quantity, Unit, Usage};
use crate::counts::{Count, Counts, less, split};
use crate::detect::Api;
use crate::distinct::Distinct;
use crate::findings::{Findings, take_text};
use crate::json::number::count_of;
use crate::json::{Container, Node, Value};
use crate::relayed::TextKind;
use crate::scan::Trouble;

const fn count(count: Count) -> Node<Field> {
    Node::leaf(Field::Count(count))
}

/// The header that tells the tier which served the call: where the one that was asked for has no
/// room, it is the standard one (<https://ai.google.dev/gemini-api/docs/priority-inference>).
pub(super) const TIER_HEADER: &str = "x-gemini-service-tier";

const DETAIL: Node<Field> = Node::object(&[
    ("modality", Node::leaf(Field::Modality)),
    ("tokenCount", Node::leaf(Field::ModalityTokens)),
]);
const PROMPT_DETAIL: Node<Field> = DETAIL.named(Field::Detail(Count::AudioInput));
const CACHE_DETAIL: Node<Field> = DETAIL.named(Field::Detail(Count::CacheReadAudio));
const CANDIDATE_DETAIL: Node<Field> = DETAIL.named(Field::Detail(Count::AudioOutput));

const USAGE: Node<Field> = Node::object(&[
    ("promptTokenCount", count(Count::Input)),
    ("cachedContentTokenCount", count(Count::CacheRead)),
    ("candidatesTokenCount", count(Count::Output)),
    ("responseTokenCount", count(Count::Output)),
    ("thoughtsTokenCount", count(Count::Reasoning)),
    ("toolUsePromptTokenCount", count(Count::ToolUseInput)),
    ("totalTokenCount", count(Count::Total)),
    ("promptTokensDetails", Node::array(&PROMPT_DETAIL)),
    // Embeddings spell it so.
    ("promptTokenDetails", Node::array(&PROMPT_DETAIL)),
    ("cacheTokensDetails", Node::array(&CACHE_DETAIL)),
    ("candidatesTokensDetails", Node::array(&CANDIDATE_DETAIL)),
    ("responseTokensDetails", Node::array(&CANDIDATE_DETAIL)),
    ("serviceTier", Node::leaf(Field::Tier)),
    ("trafficType", Node::leaf(Field::Context("traffic_type"))),
])
.named(Field::Usage);

const PART: Node<Field> = Node::object(&[
    ("text", Node::text(Field::Content)),
    ("thought", Node::leaf(Field::IsThought)),
    (
        "executableCode",
        Node::object(&[("code", Node::text(Field::CallText))]),
    ),
    ("functionCall", Node::object(&[]).named(Field::Call)),
    (
        "inlineData",
        Node::object(&[("data", Node::text(Field::Media))]),
    ),
])
.named(Field::Part);

const GROUNDING_CHUNK: Node<Field> =
    Node::object(&[("maps", Node::object(&[]).named(Field::Maps))]);
const QUERY: Node<Field> = Node::leaf(Field::Query);

const GROUNDING: Node<Field> = Node::object(&[
    (
        "webSearchQueries",
        Node::array(&QUERY).named(Field::Iterations),
    ),
    ("groundingChunks", Node::array(&GROUNDING_CHUNK)),
]);

const CANDIDATE: Node<Field> = Node::object(&[
    ("index", Node::leaf(Field::Index)),
    ("finishReason", Node::leaf(Field::Finish)),
    ("content", Node::object(&[("parts", Node::array(&PART))])),
    ("groundingMetadata", GROUNDING),
])
.named(Field::Choice);

const CHUNK: Node<Field> = Node::object(&[
    ("candidates", Node::array(&CANDIDATE)),
    // Without `blockReason` it only rates the prompt, and the answer follows.
    (
        "promptFeedback",
        Node::object(&[("blockReason", Node::leaf(Field::Envelope))]),
    ),
    ("usageMetadata", USAGE),
    ("modelVersion", Node::leaf(Field::Model)),
    ("responseId", Node::leaf(Field::ResponseId)),
    ("error", Node::object(&[]).named(Field::Error)),
])
.named(Field::Block);

/// One answer or chunk; without `alt=sse` a stream is an array of chunks.
pub(super) static SCHEMA: Node<Field> = CHUNK.or_array(&CHUNK);

const STATISTICS: Node<Field> = Node::object(&[("token_count", Node::leaf(Field::ModalityTokens))])
    .named(Field::Detail(Count::Input));

/// An embedding or an image.
const PREDICTION: Node<Field> = Node::object(&[
    ("embeddings", Node::object(&[("statistics", STATISTICS)])),
    ("bytesBase64Encoded", Node::leaf(Field::Image)),
]);

const BILLED: Node<Field> = Node::object(&[(
    "billableCharacterCount",
    Node::leaf(Field::BilledCharacters),
)]);

/// The answer of `predict`.
pub(super) static PREDICT_SCHEMA: Node<Field> = Node::object(&[
    ("predictions", Node::array(&PREDICTION).named(Field::Usage)),
    ("metadata", BILLED),
    ("error", Node::object(&[]).named(Field::Error)),
])
.named(Field::Block);

/// What one request of a batch was answered.
const RESULT: Node<Field> = Node::object(&[
    ("modelVersion", Node::leaf(Field::Model)),
    ("candidates", Node::array(&GROUNDED)),
    ("usageMetadata", USAGE),
])
.named(Field::BatchResult);
const GROUNDED: Node<Field> = Node::object(&[("groundingMetadata", GROUNDING)]);
const RESULT_ENTRY: Node<Field> = Node::object(&[("response", RESULT)]);
const INLINED: Node<Field> = Node::object(&[("inlinedResponses", Node::array(&RESULT_ENTRY))]);

/// A batch; what stands in its `response` stands in `metadata.output` too.
pub(super) static BATCH_SCHEMA: Node<Field> = Node::object(&[
    ("name", Node::leaf(Field::ResponseId)),
    ("response", Node::object(&[("inlinedResponses", INLINED)])),
    ("error", Node::object(&[]).named(Field::Error)),
])
.named(Field::Block);

const SERVER_CONTENT: Node<Field> = Node::object(&[
    (
        "modelTurn",
        Node::object(&[("parts", Node::array(&PART))]).named(Field::Iteration),
    ),
    (
        "outputTranscription",
        Node::object(&[("text", Node::text(Field::Content))]),
    ),
    ("turnComplete", Node::leaf(Field::Status)),
    ("turnCompleteReason", Node::leaf(Field::Reason)),
    ("interrupted", Node::leaf(Field::Kind)),
    ("groundingMetadata", GROUNDING),
]);

const TOOL_CALL: Node<Field> = Node::object(&[(
    "functionCalls",
    Node::array(&LIVE_CALL).named(Field::Envelope),
)]);
const LIVE_CALL: Node<Field> = Node::object(&[]).named(Field::Call);

/// One message of a live server.
pub(super) static LIVE_SCHEMA: Node<Field> = Node::object(&[
    ("serverContent", SERVER_CONTENT),
    ("toolCall", TOOL_CALL),
    ("usageMetadata", USAGE),
])
.named(Field::Block);

/// The candidate that is being read, and what grounded the answer.
#[derive(Debug, Default)]
pub(super) struct State {
    index: u64,
    finish: Option<String>,
    is_audio: bool,
    is_image: bool,
    modality_tokens: u64,
    queries: Distinct,
    /// Where in its list the query at hand stands.
    n_listed: u64,
    /// The list of queries was there, be they empty.
    is_searched: bool,
    n_maps: u64,
    n_characters: u64,
    /// The chunk at hand says why the answer ends.
    is_last: bool,
    /// The chunk at hand has a piece of a live turn.
    is_piece: bool,
    is_thought: bool,
}

impl State {
    pub(super) fn scalar(&mut self, findings: &mut Findings, field: Field, value: Value<'_>) {
        match field {
            Field::Finish => {
                let outcome = take_text(&mut self.finish, value);
                findings.note(outcome);
            }
            Field::Index => self.index = number(value).unwrap_or(0),
            Field::IsThought => self.is_thought = value == Value::Bool(true),
            Field::Modality => {
                // Protobuf's JSON may print enums by number (`Modality`: IMAGE 2, AUDIO 4).
                self.is_audio = matches!(value, Value::Text("AUDIO") | Value::Number("4"));
                self.is_image = matches!(value, Value::Text("IMAGE") | Value::Number("2"));
            }
            Field::ModalityTokens => match number(value) {
                Some(n) => self.modality_tokens = n,
                None => findings.trouble(Trouble::BadCount),
            },
            Field::BilledCharacters => match number(value) {
                Some(n) => self.n_characters = n,
                None => findings.trouble(Trouble::BadCount),
            },
            Field::Query => {
                findings.is_eventful = true;
                self.query(findings, value);
            }
            // A prompt that was refused has no candidate: this is the answer's last word.
            Field::Envelope if value != Value::Null => {
                findings.is_eventful = true;
                self.is_last = true;
            }
            Field::Image => findings.n_items += u64::from(value != Value::Null),
            Field::Status => self.is_last |= value == Value::Bool(true),
            Field::Reason => {
                let outcome = take_text(&mut findings.finish_reason, value);
                findings.note(outcome);
            }
            Field::Kind if value == Value::Bool(true) => {
                findings.finish_reason = Some("interrupted".to_owned());
            }
            _ => {}
        }
    }

    pub(super) fn open(&mut self, findings: &mut Findings, field: Field, _: Container) {
        match field {
            Field::Choice => {
                self.index = 0;
                self.finish = None;
                findings.takes_tool_calls();
            }
            Field::Envelope => findings.is_eventful = true,
            Field::Block => {
                self.is_last = false;
                self.is_piece = false;
            }
            Field::Iteration => self.is_piece = true,
            Field::Part => {
                self.is_thought = false;
                findings.n_document_text = 0;
            }
            Field::Iterations => self.n_listed = 0,
            Field::Detail(_) => {
                self.is_audio = false;
                self.is_image = false;
                self.modality_tokens = 0;
            }
            _ => {}
        }
    }

    pub(super) fn close(&mut self, findings: &mut Findings, field: Field, container: Container) {
        match field {
            Field::Usage => findings.replace_usage(),
            Field::BatchResult => self.end_result(findings),
            Field::Call => {
                findings.has_content = true;
                findings.tool_call();
            }
            // <https://ai.google.dev/gemini-api/docs/thinking>: thoughts are relayed as summaries
            // and charged whole.
            Field::Part if self.is_thought => {
                findings.reassign(Some(TextKind::Thought));
                findings.relayed.hides_reasoning = true;
            }
            Field::Maps => {
                findings.is_eventful = true;
                self.n_maps += 1;
            }
            Field::Choice => {
                if let (0, Some(finish)) = (self.index, self.finish.take()) {
                    findings.finish_reason = Some(finish);
                    self.is_last = true;
                }
            }
            Field::Detail(count) => self.end_detail(findings, count),
            // What a live turn waits for: the client's answers to these calls.
            Field::Envelope => self.is_last = true,
            Field::Block => {
                // A live turn goes on after a tool call that it told no usage of.
                findings.is_terminated &= !self.is_piece;
                findings.is_terminated |= self.is_last || container == Container::Array;
            }
            _ => {}
        }
    }

    /// At the rates of batches, whatever tier the answer names.
    fn end_result(&mut self, findings: &mut Findings) {
        let counts = std::mem::take(&mut findings.counts);
        findings.has_usage = false;
        findings.service_tier = Some("batch".to_owned());
        let (mut usage, mut billed) = (Usage::new(), None);
        let outcome = self.settle(&counts, Api::GeminiGenerate, &mut usage, &mut billed);
        findings.note(outcome);
        (self.is_searched, self.n_maps) = (false, 0);
        self.queries.clear();
        let model = findings.model.take();
        findings.batch_result(model, billed.unwrap_or(usage));
    }

    fn end_detail(&self, findings: &mut Findings, count: Count) {
        if self.is_audio || count == Count::Input {
            findings.staged.add(count, self.modality_tokens);
        } else if self.is_image && count == Count::AudioOutput {
            findings
                .staged
                .add(Count::ImageOutput, self.modality_tokens);
        }
    }

    /// <https://ai.google.dev/gemini-api/docs/google-search>, on pricing: unique queries are
    /// charged, and empty ones are not. Candidates and chunks list theirs each for itself. One that
    /// is too long to be read is told from others by its place.
    fn query(&mut self, findings: &mut Findings, value: Value<'_>) {
        self.n_listed += 1;
        self.is_searched = true;
        let is_known = match value {
            Value::Text("") => true,
            Value::Text(query) => self.queries.insert(query),
            _ => self.queries.insert((self.index, self.n_listed)),
        };
        if !is_known {
            findings.trouble(Trouble::TooLong);
        }
    }

    fn is_grounded(&self) -> bool {
        self.is_searched || self.n_maps > 0
    }

    pub(super) fn settle(
        &self,
        counts: &Counts,
        api: Api,
        usage: &mut Usage,
        billed: &mut Option<Usage>,
    ) -> Result<(), Trouble> {
        let tool_use = counts.get(Count::ToolUseInput);
        let outcome = settle(counts, api, tool_use, usage);
        if self.n_characters > 0 {
            usage.set_unit(Unit::Characters, Quantity::whole(self.n_characters));
        }
        if !self.is_grounded() {
            return outcome;
        }
        self.set_grounding(usage);
        if tool_use.is_some_and(|n| n > 0) {
            let mut charged = Usage::new();
            outcome.and(settle(counts, api, None, &mut charged))?;
            self.set_grounding(&mut charged);
            *billed = Some(charged);
        }
        outcome
    }

    fn set_grounding(&self, usage: &mut Usage) {
        usage.set_unit(Unit::GroundedPrompts, Quantity::whole(1));
        let n_queries = self.queries.count();
        if n_queries > 0 {
            usage.set_unit(Unit::WebSearches, Quantity::whole(n_queries));
        }
        if self.n_maps > 0 {
            usage.set_unit(Unit::MapsQueries, Quantity::whole(1));
        }
    }
}

fn number(value: Value<'_>) -> Option<u64> {
    match value {
        Value::Number(text) => count_of(text),
        _ => None,
    }
}

fn settle(
    counts: &Counts,
    api: Api,
    tool_use: Option<u64>,
    usage: &mut Usage,
) -> Result<(), Trouble> {
    let cached = counts.get(Count::CacheRead);
    let cached_audio = counts.get(Count::CacheReadAudio);
    let audio = counts.get(Count::AudioInput);
    let input = split(
        usage,
        counts.get(Count::Input),
        Bucket::Input,
        &[
            (Bucket::CacheReadAudio, cached_audio),
            (Bucket::CacheRead, less(cached, cached_audio)),
            (Bucket::AudioInput, less(audio, cached_audio)),
        ],
    );
    if let Some(tool_use) = tool_use {
        let text = usage.get(Bucket::Input).unwrap_or(0);
        usage.set(Bucket::Input, text.saturating_add(tool_use));
    }
    let output = split(
        usage,
        counts.get(Count::Output),
        Bucket::Output,
        &[
            (Bucket::AudioOutput, counts.get(Count::AudioOutput)),
            (Bucket::ImageOutput, counts.get(Count::ImageOutput)),
        ],
    );
    usage.set(Bucket::Reasoning, counts.get(Count::Reasoning));
    let embeds = matches!(api, Api::GeminiEmbed | Api::GeminiPredict);
    if embeds && usage.input_total().is_some() {
        usage.set(Bucket::Output, 0);
    }
    input.and(output)
}
