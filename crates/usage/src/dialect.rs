//! The dialects: which values of an API's documents are wanted, and what they mean together.

mod anthropic;
mod bedrock;
mod cohere;
mod gemini;
mod interactions;
mod openai;
mod plain;
mod quirks;
mod realtime;
mod responses;
mod settle;

use crate::counts::{Count, Counts};
use crate::detect::{Api, Target};
use crate::findings::{Findings, take_text};
use crate::json::{Container, Node, Passed, Span, Value, Visitor};
use crate::relayed::TextKind;
use crate::scan::Trouble;
use quirks::Quirks;

/// A place of a document that some dialect wants. The first group means the same everywhere, the
/// second is read by the dialect that names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Model,
    ResponseId,
    /// The id by which the answer is to be fetched, of an answer that has none yet.
    RequestId,
    Tier,
    Cost,
    CostTicks,
    Context(&'static str),
    Count(Count),
    Usage,
    Error,
    Content,
    /// Names and arguments of tool calls.
    CallText,
    /// Reasoning that is relayed, or its summary.
    Thought,
    /// Reasoning that is relayed encrypted.
    HiddenThought,
    /// Images and sound, as base64: content, and no text.
    Media,
    /// One part of a content of several.
    Part,
    /// Whether the part at hand is a thought.
    IsThought,
    /// How long the audio is.
    AudioSeconds,
    /// How long the audio or video is that is charged.
    BilledSeconds,
    /// How many characters the provider charges.
    BilledCharacters,

    /// The word by which a document or event says what it is.
    Kind,
    /// The word by which a document says so beside that.
    ObjectKind,
    /// An object that may come several times in one document: a response, a batch line.
    Envelope,
    Choice,
    Index,
    Finish,
    Status,
    Reason,
    /// A tool call that is listed once.
    Call,
    /// A piece of a streamed tool call.
    CallPiece,
    CallIndex,
    CallId,
    LegacyCall,
    Block,
    BlockKind,
    BlockAction,
    Iterations,
    Iteration,
    IterationKind,
    IterationModel,
    Detail(Count),
    Modality,
    ModalityTokens,
    Query,
    /// The container that code ran in.
    CodeContainer,
    Maps,
    Image,
    /// What a tool of the provider's used, apart from the model's own usage.
    ToolUsage,
    /// Counts that the host states beside the model's own.
    Metrics,
    /// The answer to one request of a batch.
    BatchResult,
    /// How many of its requests were answered.
    BatchRequests,
}

/// What one message of a live connection means for the response that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It belongs to none.
    Aside,
    /// The response has begun, or goes on where nothing else says that it has begun.
    Begins,
    /// The response goes on, if it has begun.
    GoesOn,
    /// The response has ended.
    Ended,
    /// A piece of input was transcribed, by a model of its own.
    Transcribed,
}

/// The most values remembered for an outline; an event with more is not learnt.
const OUTLINE_GAPS_MAX: usize = 16;

/// The state of one dialect between values.
#[derive(Debug)]
enum Dialect {
    OpenAi(openai::State),
    Responses(Box<responses::State>),
    Realtime(realtime::State),
    Anthropic(Box<anthropic::State>),
    Gemini(gemini::State),
    Interactions(Box<interactions::State>),
    Bedrock(Box<bedrock::State>),
    Cohere(cohere::State),
    Plain(plain::State),
}

/// Reads documents of one API; the visitor of every scanner on the response side.
#[derive(Debug)]
pub(crate) struct Reader {
    dialect: Dialect,
    api: Api,
    /// The path names the response.
    is_asked_by_id: bool,
    pub(crate) findings: Findings,
    /// Where the tool call at hand began.
    call_at: u64,
    /// Where the values of the event at hand stood that meant nothing.
    outline: Vec<(Passed, Span)>,
    is_outlining: bool,
}

impl Reader {
    pub(crate) fn new(target: &Target) -> Reader {
        let mut findings = Findings::default();
        findings.response_id.clone_from(&target.path_response_id);
        let quirks = Quirks::of(&target.provider, target.api);
        Reader {
            dialect: dialect_of(target, quirks),
            api: target.api,
            is_asked_by_id: target.path_response_id.is_some(),
            findings,
            call_at: 0,
            outline: Vec::new(),
            is_outlining: false,
        }
    }

    /// Takes the counts that the host tells in headers.
    pub(crate) fn headers<'a>(&mut self, header: impl Fn(&str) -> Option<&'a str>) {
        let tier = match &mut self.dialect {
            Dialect::Bedrock(state) => {
                for (name, count) in bedrock::HEADERS {
                    if let Some(value) = header(name) {
                        self.findings.note(state.header(*count, value));
                    }
                }
                if let Some(value) = header(bedrock::LATENCY_HEADER) {
                    self.findings.context("latency", Value::Text(value));
                }
                bedrock::TIER_HEADER
            }
            Dialect::Gemini(_) | Dialect::Interactions(_) => gemini::TIER_HEADER,
            _ => return,
        };
        self.findings.service_tier = header(tier).map(str::to_owned);
    }

    /// Whether each message of an event stream wraps its document.
    pub(crate) fn is_wrapped(&self) -> bool {
        self.api == Api::BedrockInvokeStream
    }

    pub(crate) fn schema(&self) -> &'static Node<Field> {
        match (&self.dialect, self.api) {
            (Dialect::OpenAi(_), Api::OpenAiAssistantsRun) => &openai::RUN_SCHEMA,
            (Dialect::OpenAi(_), Api::OpenAiBatches) => &openai::BATCH_SCHEMA,
            (Dialect::OpenAi(_), Api::OpenAiVideos) => &openai::VIDEO_SCHEMA,
            (Dialect::OpenAi(_), Api::OpenAiAsyncChat) => &openai::ASYNC_SCHEMA,
            (Dialect::OpenAi(_), _) => &openai::SCHEMA,
            (Dialect::Responses(_), _) => &responses::SCHEMA,
            (Dialect::Realtime(_), _) => &realtime::SCHEMA,
            (Dialect::Anthropic(_), Api::AnthropicBatchResults) => &anthropic::BATCH_SCHEMA,
            (Dialect::Anthropic(_), _) => &anthropic::SCHEMA,
            (Dialect::Gemini(_), Api::GeminiLive) => &gemini::LIVE_SCHEMA,
            (Dialect::Gemini(_), Api::GeminiPredict) => &gemini::PREDICT_SCHEMA,
            (Dialect::Gemini(_), Api::GeminiBatches) => &gemini::BATCH_SCHEMA,
            (Dialect::Gemini(_), _) => &gemini::SCHEMA,
            (Dialect::Interactions(_), _) => &interactions::SCHEMA,
            (Dialect::Bedrock(_), Api::BedrockConverse | Api::BedrockConverseStream) => {
                &bedrock::CONVERSE_SCHEMA
            }
            (Dialect::Bedrock(_), _) => &bedrock::INVOKE_SCHEMA,
            (Dialect::Cohere(_), _) => &cohere::SCHEMA,
            (Dialect::Plain(_), _) => &plain::SCHEMA,
        }
    }

    /// A message of a live connection has ended: what it means for its response.
    pub(crate) fn turn(&mut self) -> Turn {
        let findings = &mut self.findings;
        if let Dialect::Realtime(state) = &mut self.dialect {
            return state.turn(findings);
        }
        // Gemini tells the usage of a turn at its end, or in a message of its own after it.
        let is_ended = match self.api {
            Api::GeminiLive => findings.is_terminated && findings.has_usage,
            _ => findings.is_terminated || findings.is_error,
        };
        let has_begun = findings.has_content
            || findings.has_usage
            || findings.response_id.is_some()
            || findings.tool_calls.is_some();
        match (is_ended, has_begun) {
            (true, _) => Turn::Ended,
            (false, true) => Turn::Begins,
            (false, false) => Turn::Aside,
        }
    }

    /// The model that transcribes a session's input, where the message named it.
    pub(crate) fn take_transcriber(&mut self) -> Option<String> {
        match &mut self.dialect {
            Dialect::Realtime(state) => state.transcriber.take(),
            _ => None,
        }
    }

    /// The body has ended, perhaps within a document: what that brought is told apart as far as it
    /// can be.
    pub(crate) fn cut(&mut self) {
        let findings = &mut self.findings;
        match &mut self.dialect {
            Dialect::Responses(state) => state.cut(findings),
            Dialect::OpenAi(state) => state.cut(findings),
            _ => {}
        }
    }

    /// From here on, remembers where values stand that mean nothing.
    pub(crate) fn start_outline(&mut self) {
        self.outline.clear();
        self.is_outlining = true;
    }

    /// The values since [`Reader::start_outline`]; to be given back for reuse.
    pub(crate) fn take_outline(&mut self) -> Vec<(Passed, Span)> {
        self.is_outlining = false;
        std::mem::take(&mut self.outline)
    }

    /// Takes the buffer back.
    pub(crate) fn give_back(&mut self, outline: Vec<(Passed, Span)>) {
        self.outline = outline;
    }
}

fn dialect_of(target: &Target, quirks: Quirks) -> Dialect {
    match target.api {
        Api::OpenAiChat
        | Api::OpenAiCompletions
        | Api::OpenAiEmbeddings
        | Api::OpenAiImages
        | Api::OpenAiAudio
        | Api::OpenAiModerations
        | Api::OpenAiAssistantsRun
        | Api::OpenAiBatches
        | Api::OpenAiVideos
        | Api::OpenAiAsyncChat
        | Api::MistralOcr
        | Api::MistralConversations
        | Api::DashScopeGenerate
        | Api::Rerank => Dialect::OpenAi(openai::State::new(target.api, quirks)),
        Api::OpenAiResponses
        | Api::OpenAiResponsesRetrieve
        | Api::OpenAiResponsesCompact
        | Api::OpenAiCountTokens => Dialect::Responses(Box::default()),
        Api::OpenAiRealtime => Dialect::Realtime(realtime::State::default()),
        Api::AnthropicMessages
        | Api::AnthropicComplete
        | Api::AnthropicCountTokens
        | Api::AnthropicBatches
        | Api::AnthropicBatchResults => Dialect::Anthropic(Box::default()),
        Api::GeminiGenerate
        | Api::GeminiStreamGenerate
        | Api::GeminiEmbed
        | Api::GeminiPredict
        | Api::GeminiCountTokens
        | Api::GeminiBatches
        | Api::GeminiLive => Dialect::Gemini(gemini::State::default()),
        Api::GeminiInteractions | Api::GeminiInteractionsRetrieve => {
            Dialect::Interactions(Box::default())
        }
        Api::BedrockConverse
        | Api::BedrockConverseStream
        | Api::BedrockInvoke
        | Api::BedrockInvokeStream
        | Api::BedrockCountTokens
        | Api::BedrockApplyGuardrail => Dialect::Bedrock(Box::new(bedrock::State::new(target))),
        Api::CohereChat
        | Api::CohereV1Chat
        | Api::CohereEmbed
        | Api::CohereRerank
        | Api::CohereAudio => Dialect::Cohere(cohere::State::default()),
        Api::OllamaChat
        | Api::OllamaGenerate
        | Api::OllamaEmbed
        | Api::WatsonxGenerate
        | Api::WatsonxEmbed => Dialect::Plain(plain::State::default()),
    }
}

impl Visitor<Field> for Reader {
    fn scalar(&mut self, field: Field, value: Value<'_>, _: Span) {
        let findings = &mut self.findings;
        match field {
            Field::Model => {
                let outcome = take_text(&mut findings.model, value);
                findings.note(outcome);
            }
            // What was asked for by an id is known by that, whatever id it has itself.
            Field::ResponseId | Field::RequestId if self.is_asked_by_id => {}
            Field::RequestId if findings.response_id.is_some() => {}
            Field::ResponseId | Field::RequestId => {
                let outcome = take_text(&mut findings.response_id, value);
                findings.note(outcome);
            }
            Field::Tier => {
                let outcome = take_text(&mut findings.service_tier, value);
                findings.note(outcome);
            }
            Field::Cost => findings.cost(value),
            Field::CostTicks => findings.cost_ticks(value),
            Field::Context(name) => findings.context(name, value),
            Field::Count(count) => findings.count(count, value),
            Field::Usage if value != Value::Null => findings.trouble(Trouble::BadCount),
            Field::Usage => {}
            Field::Error => match value {
                Value::Null | Value::Bool(false) | Value::Text("") => {}
                _ => findings.error(),
            },
            Field::Content
            | Field::CallText
            | Field::Thought
            | Field::HiddenThought
            | Field::Media => {}
            Field::AudioSeconds if self.api != Api::OpenAiAudio => {}
            Field::AudioSeconds => {
                let outcome = take_text(&mut findings.audio_seconds, value);
                findings.note(outcome);
            }
            Field::BilledSeconds => {
                findings.has_usage |= value != Value::Null;
                let outcome = take_text(&mut findings.billed_seconds, value);
                findings.note(outcome);
            }
            _ => match &mut self.dialect {
                Dialect::OpenAi(state) => state.scalar(findings, self.api, field, value),
                Dialect::Responses(state) => state.scalar(findings, field, value),
                Dialect::Realtime(state) => state.scalar(findings, field, value),
                Dialect::Anthropic(state) => state.scalar(findings, field, value),
                Dialect::Gemini(state) => state.scalar(findings, field, value),
                Dialect::Interactions(state) => state.scalar(findings, field, value),
                Dialect::Bedrock(state) => state.scalar(findings, field, value),
                Dialect::Cohere(state) => state.scalar(findings, field, value),
                Dialect::Plain(state) => state.scalar(findings, field, value),
            },
        }
    }

    fn open(&mut self, field: Field, container: Container, at: u64) {
        if field == Field::Call {
            self.call_at = at;
        }
        let findings = &mut self.findings;
        match field {
            Field::Usage => findings.staged = Counts::default(),
            Field::Error => {}
            _ => match &mut self.dialect {
                Dialect::OpenAi(state) => state.open(findings, field),
                Dialect::Responses(state) => state.open(findings, field),
                Dialect::Anthropic(state) => state.open(findings, field),
                Dialect::Gemini(state) => state.open(findings, field, container),
                Dialect::Interactions(state) => state.open(findings, field),
                Dialect::Bedrock(state) => state.open(findings, field),
                Dialect::Cohere(state) => state.open(field),
                Dialect::Plain(_) | Dialect::Realtime(_) => {}
            },
        }
    }

    fn close(&mut self, field: Field, container: Container, at: u64, is_empty: bool) {
        let findings = &mut self.findings;
        // These write arguments as objects and not as text: the whole call is measured.
        if field == Field::Call && matches!(self.dialect, Dialect::Gemini(_) | Dialect::Plain(_)) {
            let n_bytes = at.saturating_sub(self.call_at);
            findings.relayed.add(TextKind::Call, n_bytes);
            findings.end_part();
        }
        if field == Field::Error {
            if !is_empty {
                findings.error();
            }
            return;
        }
        match &mut self.dialect {
            Dialect::OpenAi(state) => state.close(findings, field),
            Dialect::Responses(state) => state.close(findings, field),
            Dialect::Realtime(state) => state.close(findings, field),
            Dialect::Anthropic(state) => state.close(findings, field),
            Dialect::Gemini(state) => state.close(findings, field, container),
            Dialect::Interactions(state) => state.close(findings, field),
            Dialect::Bedrock(state) => state.close(findings, field),
            Dialect::Cohere(state) => state.close(findings, field),
            Dialect::Plain(state) => state.close(findings, field),
        }
    }

    fn text(&mut self, field: Field, n_bytes: usize) {
        let kind = match field {
            Field::Content => TextKind::Answer,
            Field::CallText => TextKind::Call,
            Field::Thought => TextKind::Thought,
            Field::HiddenThought => {
                self.findings.relayed.hides_reasoning = true;
                return;
            }
            Field::Media => {
                self.findings.has_content = true;
                return;
            }
            _ => return,
        };
        self.findings.content(kind, n_bytes);
    }

    fn passed(&mut self, passed: Passed, span: Span) {
        if self.is_outlining && self.outline.len() < OUTLINE_GAPS_MAX {
            self.outline.push((passed, span));
        }
    }

    fn document(&mut self) {
        let findings = &mut self.findings;
        match &mut self.dialect {
            Dialect::Responses(state) => state.document(findings),
            Dialect::Interactions(state) => state.document(findings),
            Dialect::Bedrock(state) => {
                state.document(findings, self.api == Api::BedrockConverseStream);
            }
            Dialect::Cohere(state) => state.document(findings, self.api),
            Dialect::Plain(state) => state.document(findings, self.api),
            Dialect::OpenAi(state) => state.document(findings, self.api),
            Dialect::Anthropic(_) | Dialect::Gemini(_) | Dialect::Realtime(_) => {}
        }
        self.findings.end_document();
    }
}
