//! The rules by which a JSON request body is read and edited.
//!
//! A key that is there twice counts as it was written last, as nearly every parser has it.
//!
//! *The usage event.* An object `stream_options` gets `"include_usage":true` inside it, a `false`
//! or `null` there becomes `true`. That happens even before `stream` is known: providers take the
//! object with streams only, so a body that turns out not to stream is no more wrong than it was.
//! `"stream_options":null` is valid without a stream, so it becomes an object only where `stream`
//! is known to be true. Where `stream` comes later the `null` stays, and nobody asks: the key is not
//! written a second time, since some servers refuse a key that is there twice. Where there is no such
//! key, the object stands before the closing bracket of the body. What has a wrong type is left for
//! the provider to refuse.
//!
//! *The output limit.* Numbers above the cap become the cap. Where there is none, the key that the
//! API has for it is added; a `null` under that key becomes the cap.
//!
//! *Data of one's own.* What answers a body with `data_sources`, which only Azure does, refuses `stream_options` and
//! `max_completion_tokens`, so neither is added to it. An object of stream options that stands before
//! them may have been completed by then, and is refused as it was; what was put in the place of a
//! `null` is taken back at the end, where the key stands twice only for this.

use super::characters::Characters;
use super::form::{Field, Form, NEWER_LIMIT};
use super::splice::Splice;
use super::write::{Members, json_string};
use super::{Edits, Replacer, RequestFacts};
use crate::json::number::count_of;
use crate::json::{Container, Passed, Span, Value, Visitor};

const OPTION: &str = r#""include_usage":true"#;
const OPTIONS: &str = r#"{"include_usage":true}"#;

/// The edits that this API's body can take.
pub(super) struct Wishes {
    include_usage: bool,
    /// The model to be put in the place of any.
    model: Option<String>,
    /// Says which model to put in the place of one.
    replacer: Option<Replacer>,
    cap: Option<u64>,
}

/// How far the reading of one body has come.
#[derive(Default)]
pub(super) struct Progress {
    /// Whether the first document has ended; others are not looked at.
    has_ended: bool,
    options: Options,
    option: Option<Asked>,
    limit: Option<u64>,
    other_limit: Option<u64>,
    /// Whether an output limit, or what should have been one, stands where limits stand.
    has_limit: bool,
    has_limit_parent: bool,
    /// Whether the body has `data_sources`.
    has_data_sources: bool,
    spoken: Characters,
}

impl Progress {
    /// Whether nothing that comes is edited any more.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }
}

/// What the last `stream_options` is.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Options {
    /// Not there.
    #[default]
    Absent,
    /// A `null` that was left.
    Null,
    /// A `null` in whose place we put an object.
    Put,
    /// An object.
    Object(Asked),
    /// Of a wrong type.
    Wrong,
}

/// Who asked for the usage event.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// Nobody.
    Nobody,
    /// The app.
    App,
    /// We.
    We,
}

/// One chunk's reading.
pub(super) struct Reader<'a> {
    pub(super) form: &'static Form,
    pub(super) names_model: bool,
    /// Whether the endpoint answers from data of one's own.
    pub(super) takes_data_sources: bool,
    pub(super) wishes: &'a Wishes,
    pub(super) facts: &'a mut RequestFacts,
    pub(super) progress: &'a mut Progress,
    pub(super) splice: Option<Splice<'a>>,
}

// === impl Wishes ===

impl Wishes {
    pub(super) fn new(form: &Form, names_model: bool, edits: Edits) -> Wishes {
        Wishes {
            include_usage: edits.include_usage && form.has_usage_option,
            model: edits.model.filter(|_| names_model),
            replacer: edits.replacer.filter(|_| names_model),
            cap: edits.max_output_tokens,
        }
    }

    /// Whether anything may be edited.
    pub(super) fn is_any(&self) -> bool {
        self.include_usage || self.may_put_model() || self.cap.is_some()
    }

    fn may_put_model(&self) -> bool {
        self.model.is_some() || self.replacer.is_some()
    }

    /// The model to be put in the place of that one.
    fn model_for(&self, asked: &str) -> Option<String> {
        let replacer = self.replacer.as_ref();
        let other = replacer.and_then(|replacer| replacer.model_for(asked));
        other.or_else(|| self.model.clone())
    }

    /// Whether that value may be replaced.
    pub(super) fn may_replace(&self, field: Field) -> bool {
        match field {
            Field::Model => self.may_put_model(),
            Field::StreamOptions | Field::IncludeUsage => self.include_usage,
            Field::LimitParent | Field::Limit | Field::OtherLimit => self.cap.is_some(),
            Field::Root
            | Field::Stream
            | Field::Tier
            | Field::Tools
            | Field::ToolKind
            | Field::Choices
            | Field::Reasoning
            | Field::ReasoningKind
            | Field::Speech
            | Field::DataSources => false,
        }
    }
}

// === impl Reader ===

impl Visitor<Field> for Reader<'_> {
    fn scalar(&mut self, field: Field, value: Value<'_>, span: Span) {
        if self.progress.has_ended {
            return;
        }
        match field {
            Field::Root | Field::Speech => {}
            Field::Model if self.names_model => self.model(value, span),
            Field::Model => {}
            Field::Stream => self.facts.streams = self.is_stream(value),
            Field::Tier => self.facts.service_tier = text_of(value),
            Field::Tools => self.facts.has_tools = false,
            Field::ToolKind => self.facts.has_router_tools |= is_router_tool(value),
            Field::Choices => self.facts.n_choices = count_in(value),
            Field::Reasoning => self.facts.asks_reasoning = asks(value),
            Field::ReasoningKind => self.facts.asks_reasoning &= asks(value),
            Field::StreamOptions => self.null_options(value, span),
            Field::IncludeUsage => self.option(value, span),
            Field::DataSources => self.data_sources(value != Value::Null),
            Field::LimitParent => self.null_limit_parent(value, span),
            Field::Limit | Field::OtherLimit => self.limit(field, value, span),
        }
    }

    fn open(&mut self, field: Field, _: Container, _: u64) {
        if self.progress.has_ended {
            return;
        }
        match field {
            Field::StreamOptions => self.progress.option = None,
            Field::Tools => self.facts.has_router_tools = false,
            Field::Reasoning => self.facts.asks_reasoning = true,
            Field::DataSources => self.data_sources(true),
            Field::LimitParent => {
                self.progress.has_limit_parent = true;
                self.progress.has_limit = false;
                self.facts.n_choices = None;
                self.set_limit(Field::Limit, None);
                self.set_limit(Field::OtherLimit, None);
            }
            _ => {}
        }
    }

    fn close(&mut self, field: Field, container: Container, at: u64, is_empty: bool) {
        if self.progress.has_ended {
            return;
        }
        match (field, container) {
            (Field::Root, Container::Object) => self.end_body(at, is_empty),
            (Field::StreamOptions, Container::Object) => self.end_options(at, is_empty),
            (Field::StreamOptions, Container::Array) => self.set_options(Options::Wrong),
            (Field::LimitParent, Container::Object) => self.end_limit_parent(at, is_empty),
            (Field::IncludeUsage, _) => self.progress.option = Some(Asked::Nobody),
            (Field::Limit | Field::OtherLimit, _) => self.wrong_limit(field),
            (Field::Model, _) if self.names_model => self.facts.model = None,
            (Field::Tools, _) => self.facts.has_tools = !is_empty,
            (Field::Choices, _) => self.facts.n_choices = None,
            (Field::Tier, _) => self.facts.service_tier = None,
            (Field::Stream, _) => self.facts.streams = false,
            _ => {}
        }
    }

    fn text_piece(&mut self, field: Field, piece: &[u8]) {
        if field == Field::Speech && !self.progress.has_ended {
            self.progress.spoken.push(piece);
        }
    }

    fn passed(&mut self, passed: Passed, _: Span) {
        // Speech is the only text that is measured.
        if passed == Passed::Text && !self.progress.has_ended {
            self.facts.n_spoken = Some(self.progress.spoken.end());
        }
    }

    fn document(&mut self) {
        self.progress.has_ended = true;
    }
}

impl Reader<'_> {
    fn model(&mut self, value: Value<'_>, span: Span) {
        self.facts.model = text_of(value);
        self.facts.model_put = None;
        if let Value::Text(asked) = value
            && let Some(model) = self.wishes.model_for(asked)
            && replace(&mut self.splice, span, &json_string(&model))
        {
            self.facts.model_put = Some(model);
        }
    }

    /// `null` is what is the case without the key.
    fn is_stream(&self, value: Value<'_>) -> bool {
        match value {
            Value::Bool(streams) => streams,
            Value::Null => self.form.streams,
            _ => false,
        }
    }

    // --- data of one's own ---

    /// Elsewhere the key means nothing, or is refused.
    fn data_sources(&mut self, is_there: bool) {
        self.progress.has_data_sources = is_there && self.takes_data_sources;
    }

    // --- the usage event ---

    /// Whether the usage event may be asked for, as far as the body is known.
    fn may_ask(&self) -> bool {
        self.wishes.include_usage && !self.progress.has_data_sources
    }

    fn null_options(&mut self, value: Value<'_>, span: Span) {
        let may_put = self.may_ask() && self.facts.streams;
        let options = match value {
            Value::Null if may_put && replace(&mut self.splice, span, OPTIONS) => Options::Put,
            Value::Null => Options::Null,
            _ => Options::Wrong,
        };
        self.set_options(options);
    }

    fn option(&mut self, value: Value<'_>, span: Span) {
        let may_ask = self.may_ask();
        let asked = match value {
            Value::Bool(true) => Asked::App,
            Value::Bool(false) | Value::Null
                if may_ask && replace(&mut self.splice, span, "true") =>
            {
                Asked::We
            }
            _ => Asked::Nobody,
        };
        self.progress.option = Some(asked);
    }

    fn end_options(&mut self, at: u64, is_empty: bool) {
        let may_ask = self.may_ask();
        let asked = self.progress.option.unwrap_or_else(|| {
            let members = Members::new(is_empty).and(OPTION);
            if may_ask && insert(&mut self.splice, at, &members) {
                Asked::We
            } else {
                Asked::Nobody
            }
        });
        self.set_options(Options::Object(asked));
    }

    fn set_options(&mut self, options: Options) {
        self.progress.options = options;
        self.facts.app_includes_usage = options == Options::Object(Asked::App);
    }

    // --- the output limit ---

    fn limit(&mut self, field: Field, value: Value<'_>, span: Span) {
        let n_tokens = count_in(value);
        self.set_limit(field, n_tokens);
        let Some(cap) = self.wishes.cap else {
            return;
        };
        let is_above = match value {
            Value::Number(text) => n_tokens.map_or(is_boundless(text), |n| n > cap),
            Value::Null => field == Field::Limit && !self.progress.has_limit,
            _ => false,
        };
        let is_capped = is_above && replace(&mut self.splice, span, &cap.to_string());
        self.note_cap(is_capped);
        self.progress.has_limit |= is_capped || value != Value::Null;
    }

    /// An object or array where a limit should stand: there is no limit that we could read, and
    /// none that we may add, for it is the provider's to refuse.
    fn wrong_limit(&mut self, field: Field) {
        self.set_limit(field, None);
        self.progress.has_limit = true;
    }

    fn set_limit(&mut self, field: Field, n_tokens: Option<u64>) {
        let progress = &mut self.progress;
        match field {
            Field::OtherLimit => progress.other_limit = n_tokens,
            _ => progress.limit = n_tokens,
        }
        self.facts.max_output_tokens = progress.limit.max(progress.other_limit);
    }

    fn null_limit_parent(&mut self, value: Value<'_>, span: Span) {
        self.set_limit(Field::Limit, None);
        self.set_limit(Field::OtherLimit, None);
        let object = self.limit_member().map(|member| format!("{{{member}}}"));
        let is_put = match (value, object) {
            (Value::Null, Some(object)) => replace(&mut self.splice, span, &object),
            _ => false,
        };
        self.note_cap(is_put);
        self.progress.has_limit_parent = is_put || value != Value::Null;
    }

    fn end_limit_parent(&mut self, at: u64, is_empty: bool) {
        if let Some(member) = self.limit_member().filter(|_| !self.progress.has_limit) {
            let is_put = insert(&mut self.splice, at, &Members::new(is_empty).and(&member));
            self.note_cap(is_put);
        }
    }

    fn note_cap(&mut self, is_put: bool) {
        if is_put {
            self.facts.cap_put = self.wishes.cap;
        }
    }

    /// The output limit as a member of the object that it belongs in.
    fn limit_member(&self) -> Option<String> {
        let (key, cap) = (self.form.limit?, self.wishes.cap?);
        if key == NEWER_LIMIT && self.progress.has_data_sources {
            return None;
        }
        Some(format!(r#""{key}":{cap}"#))
    }

    // --- the end ---

    fn end_body(&mut self, at: u64, is_empty: bool) {
        let mut members = Members::new(is_empty);
        let has_limit = match self.form.limit_parent {
            None => self.progress.has_limit,
            Some(_) => self.progress.has_limit_parent,
        };
        let limit_member = self.limit_member().filter(|_| !has_limit);
        let adds_limit = limit_member.is_some();
        if let Some(member) = limit_member {
            members = match self.form.limit_parent {
                None => members.and(&member),
                Some(parent) => members.and(&format!(r#""{parent}":{{{member}}}"#)),
            };
        }
        let asks = self.progress.options == Options::Absent && self.may_ask() && self.facts.streams;
        if asks {
            members = members.and(&format!(r#""stream_options":{OPTIONS}"#));
        }
        // Put in good faith, which a later `stream` or `data_sources` has taken away.
        let is_put = self.progress.options == Options::Put;
        let takes_back = is_put && !(self.may_ask() && self.facts.streams);
        if takes_back {
            members = members.and(r#""stream_options":null"#);
        }
        let is_inserted = !members.is_none() && insert(&mut self.splice, at, &members);
        self.note_cap(adds_limit && is_inserted);
        self.facts.is_cap_unsure = !has_limit && !adds_limit && self.is_limit_unsure();
        let is_asked = is_put && !takes_back || self.progress.options == Options::Object(Asked::We);
        self.facts.usage_injected = self.facts.streams && (is_asked || asks && is_inserted);
    }

    /// Whether there is a cap, and no key that the endpoint is sure to take it under.
    fn is_limit_unsure(&self) -> bool {
        let is_refused = self.form.limit == Some(NEWER_LIMIT) && self.progress.has_data_sources;
        self.wishes.cap.is_some() && (self.form.is_limit_unsure || is_refused)
    }
}

fn insert(splice: &mut Option<Splice<'_>>, at: u64, members: &Members) -> bool {
    splice.as_mut().is_some_and(|s| s.insert(at, &members.text))
}

fn replace(splice: &mut Option<Splice<'_>>, span: Span, text: &str) -> bool {
    splice.as_mut().is_some_and(|s| s.replace(span, text))
}

fn text_of(value: Value<'_>) -> Option<String> {
    match value {
        Value::Text(text) => Some(text.to_owned()),
        _ => None,
    }
}

/// Whether a value asks for reasoning: an effort, a budget, a kind; or says that there be none.
fn asks(value: Value<'_>) -> bool {
    !matches!(
        value,
        Value::Null | Value::Bool(false) | Value::Number("0") | Value::Text("none" | "disabled")
    )
}

/// OpenRouter's own tools are named so (`openrouter:web_search`).
fn is_router_tool(value: Value<'_>) -> bool {
    matches!(value, Value::Text(kind) if kind.starts_with("openrouter:"))
}

fn count_in(value: Value<'_>) -> Option<u64> {
    match value {
        Value::Number(text) => count_of(text),
        _ => None,
    }
}

/// Whether a number that is no count means as much as the model can: it is too large, or negative,
/// which Ollama (<https://github.com/ollama/ollama/blob/main/docs/modelfile.md>, `num_predict`) and
/// llama.cpp take for "no limit".
fn is_boundless(number: &str) -> bool {
    let digits = number.strip_prefix('-').unwrap_or(number);
    digits.bytes().all(|b| b.is_ascii_digit())
}
