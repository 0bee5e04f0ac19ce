//! The dialects: which values of an API's documents are wanted, and what they mean together.

mod anthropic;
mod gemini;
mod interactions;
mod openai;
mod quirks;
mod responses;

use crate::bucket::{Quantity, Unit, Usage};
use crate::counts::{Count, Counts};
use crate::detect::{Api, Target};
use crate::findings::{Findings, take_text};
use crate::json::{Container, Node, Passed, Span, Value, Visitor};
use crate::scan::Trouble;
use quirks::Quirks;

/// A place of a document that some dialect wants. The first group means the same everywhere, the
/// second is read by the dialect that names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Model,
    ResponseId,
    Tier,
    Cost,
    CostTicks,
    Context(&'static str),
    Count(Count),
    Usage,
    Error,
    Content,
    AudioSeconds,

    /// The word by which a document or event says what it is.
    Kind,
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
    Maps,
    Image,
}

/// The most values remembered for an outline; an event with more is not learnt.
const OUTLINE_GAPS_MAX: usize = 16;

/// The state of one dialect between values.
#[derive(Debug)]
enum Dialect {
    OpenAi(openai::State),
    Responses(responses::State),
    Anthropic(Box<anthropic::State>),
    Gemini(gemini::State),
    Interactions(interactions::State),
}

/// Reads documents of one API; the visitor of every scanner on the response side.
#[derive(Debug)]
pub(crate) struct Reader {
    dialect: Dialect,
    api: Api,
    quirks: Quirks,
    pub(crate) findings: Findings,
    /// Where the values of the event at hand stood that meant nothing.
    outline: Vec<(Passed, Span)>,
    is_outlining: bool,
}

impl Reader {
    pub(crate) fn new(target: &Target) -> Reader {
        Reader {
            dialect: dialect_of(target.api),
            api: target.api,
            quirks: Quirks::of(&target.provider, target.api),
            findings: Findings::default(),
            outline: Vec::new(),
            is_outlining: false,
        }
    }

    pub(crate) fn schema(&self) -> &'static Node<Field> {
        match (&self.dialect, self.api) {
            (Dialect::OpenAi(_), _) => &openai::SCHEMA,
            (Dialect::Responses(_), _) => &responses::SCHEMA,
            (Dialect::Anthropic(_), Api::AnthropicBatchResults) => &anthropic::BATCH_SCHEMA,
            (Dialect::Anthropic(_), _) => &anthropic::SCHEMA,
            (Dialect::Gemini(_), _) => &gemini::SCHEMA,
            (Dialect::Interactions(_), _) => &interactions::SCHEMA,
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

    /// The counts made disjoint, and what the provider charges where that differs.
    pub(crate) fn settle(&mut self) -> (Usage, Option<Usage>) {
        let counts = std::mem::take(&mut self.findings.counts);
        let mut usage = Usage::new();
        let mut billed = None;
        let outcome = match &self.dialect {
            Dialect::OpenAi(_) => openai::settle(&counts, self.api, self.quirks, &mut usage),
            Dialect::Responses(_) => responses::settle(&counts, &mut usage),
            Dialect::Anthropic(_) => anthropic::settle(&counts, &mut usage),
            Dialect::Gemini(state) => state.settle(&counts, self.api, &mut usage, &mut billed),
            Dialect::Interactions(_) => interactions::settle(&counts, &mut usage),
        };
        self.findings.note(outcome);
        set_units(&counts, &mut usage);
        if self.api == Api::OpenAiImages && self.findings.n_items > 0 {
            usage.set_unit(Unit::Images, Quantity::whole(self.findings.n_items));
        }
        if self.findings.n_web_searches > 0 {
            let n = Quantity::whole(self.findings.n_web_searches);
            usage.set_unit(Unit::WebSearches, n);
        }
        if let Some(text) = &self.findings.audio_seconds {
            match Quantity::parse(text) {
                Some(seconds) => usage.set_unit(Unit::AudioSeconds, seconds),
                None => self.findings.trouble(Trouble::BadCount),
            }
        }
        (usage, billed)
    }
}

fn set_units(counts: &Counts, usage: &mut Usage) {
    for (count, unit) in [
        (Count::WebSearches, Unit::WebSearches),
        (Count::WebFetches, Unit::WebFetches),
        (Count::SearchUnits, Unit::SearchUnits),
        (Count::Images, Unit::Images),
    ] {
        if let Some(n) = counts.get(count) {
            usage.set_unit(unit, Quantity::whole(n));
        }
    }
}

fn dialect_of(api: Api) -> Dialect {
    match api {
        Api::OpenAiChat
        | Api::OpenAiCompletions
        | Api::OpenAiEmbeddings
        | Api::OpenAiImages
        | Api::OpenAiAudio
        | Api::OpenAiModerations
        | Api::OpenAiAssistantsRun => Dialect::OpenAi(openai::State::default()),
        Api::OpenAiResponses
        | Api::OpenAiResponsesRetrieve
        | Api::OpenAiResponsesCompact
        | Api::OpenAiCountTokens => Dialect::Responses(responses::State::default()),
        Api::AnthropicMessages
        | Api::AnthropicComplete
        | Api::AnthropicCountTokens
        | Api::AnthropicBatchResults => Dialect::Anthropic(Box::default()),
        Api::GeminiGenerate
        | Api::GeminiStreamGenerate
        | Api::GeminiEmbed
        | Api::GeminiCountTokens => Dialect::Gemini(gemini::State::default()),
        Api::GeminiInteractions => Dialect::Interactions(interactions::State::default()),
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
            Field::ResponseId => {
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
            Field::Content => {}
            Field::AudioSeconds => {
                let outcome = take_text(&mut findings.audio_seconds, value);
                findings.note(outcome);
            }
            _ => match &mut self.dialect {
                Dialect::OpenAi(state) => state.scalar(findings, self.api, field, value),
                Dialect::Responses(state) => state.scalar(findings, field, value),
                Dialect::Anthropic(state) => state.scalar(findings, field, value),
                Dialect::Gemini(state) => state.scalar(findings, field, value),
                Dialect::Interactions(state) => state.scalar(findings, field, value),
            },
        }
    }

    fn open(&mut self, field: Field, container: Container, _: u64) {
        let findings = &mut self.findings;
        match field {
            Field::Usage => findings.staged = Counts::default(),
            Field::Error => {}
            _ => match &mut self.dialect {
                Dialect::OpenAi(state) => state.open(findings, field),
                Dialect::Responses(state) => state.open(field),
                Dialect::Anthropic(state) => state.open(findings, field),
                Dialect::Gemini(state) => state.open(findings, field, container),
                Dialect::Interactions(state) => state.open(findings, field),
            },
        }
    }

    fn close(&mut self, field: Field, container: Container, _: u64, is_empty: bool) {
        let findings = &mut self.findings;
        if field == Field::Error {
            if !is_empty {
                findings.error();
            }
            return;
        }
        match &mut self.dialect {
            Dialect::OpenAi(state) => state.close(findings, field),
            Dialect::Responses(state) => state.close(findings, field),
            Dialect::Anthropic(state) => state.close(findings, field),
            Dialect::Gemini(state) => state.close(findings, field, container),
            Dialect::Interactions(state) => state.close(findings, field),
        }
    }

    fn text(&mut self, field: Field, n_bytes: usize) {
        if field == Field::Content {
            self.findings.content(n_bytes);
        }
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
            Dialect::OpenAi(state) => state.document(findings),
            Dialect::Anthropic(_) | Dialect::Gemini(_) => {}
        }
    }
}
