//! OpenAI chat completions, legacy completions, embeddings, images, audio, moderations, runs and
//! batches, as spoken by OpenAI and by the many hosts that answer in its shape.
//!
//! Fields: <https://platform.openai.com/docs/api-reference/chat/object> (`usage`),
//! `…/chat/streaming` (the last chunk, with `choices: []`, carries `usage` where
//! `stream_options.include_usage` was asked for), `…/images/object`, `…/audio/json-object`,
//! `…/runs/object`, `…/images-streaming`, `…/audio/transcript-text-done-event`,
//! `…/audio/speech-audio-done-event`. Details lie within their totals unless [`super::quirks`] says
//! otherwise.

mod breakdown;
mod repeats;
mod schema;
mod settle;

use super::Field;
use super::quirks::Quirks;
use crate::bucket::{Quantity, Unit, Usage};
use crate::counts::Counts;
use crate::detect::Api;
use crate::findings::{Findings, take_text};
use crate::json::Value;
use crate::json::number::count_of;
use crate::scan::Trouble;
use breakdown::Breakdown;
use repeats::Repeats;
pub(super) use schema::{ASYNC_SCHEMA, BATCH_SCHEMA, RUN_SCHEMA, SCHEMA, VIDEO_SCHEMA};
use settle::{settle, with_citations};

/// The most streamed tool calls that are told apart; more are counted as too long.
const CALLS_MAX: usize = 128;

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
    /// Calls that the messages of the document at hand list, and of the document that lists most.
    n_listed: u32,
    n_listed_max: u32,
    /// Messages are pieces of one, as deltas are elsewhere.
    lists_pieces: bool,
    repeats: Repeats,
    quirks: Quirks,
    /// The model that answered the request of a batch that is being read.
    result_model: Option<String>,
    /// How many requests of a batch were answered.
    n_answered: u64,
    kind: EventKind,
    /// The run's own id; steps and messages have theirs.
    run_id: Option<String>,
    /// The document at hand is a step, a message or a thread, whose counts lie in the run's.
    is_aside: bool,
    /// What models behind the one that was asked used of the whole, where that is told.
    breakdown: Option<Box<Breakdown>>,
}

/// What the event at hand is, of those that say so and end a stream which has no `[DONE]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum EventKind {
    #[default]
    Other,
    /// A whole image: `image_generation.completed`, `image_edit.completed`.
    Image,
    /// The end of a transcript (Mistral's is `transcription.done`,
    /// <https://docs.mistral.ai/api/#tag/audio.transcriptions>), of speech, of a conversation of
    /// Mistral's.
    Last,
    /// The end of one that failed.
    Error,
}

impl EventKind {
    fn of(value: Value<'_>) -> EventKind {
        match value {
            Value::Text("image_generation.completed" | "image_edit.completed") => EventKind::Image,
            Value::Text(
                "transcript.text.done"
                | "transcription.done"
                | "speech.audio.done"
                | "conversation.response.done",
            ) => EventKind::Last,
            Value::Text("conversation.response.error") => EventKind::Error,
            _ => EventKind::Other,
        }
    }
}

impl State {
    pub(super) fn new(api: Api, quirks: Quirks) -> State {
        State {
            // https://www.alibabacloud.com/help/model-studio/qwen-api-via-dashscope: each event of a
            // stream has a `message`, with all of the answer so far or (`incremental_output`) with
            // the piece that is new.
            lists_pieces: api == Api::DashScopeGenerate,
            quirks,
            ..State::default()
        }
    }

    pub(super) fn scalar(
        &mut self,
        findings: &mut Findings,
        api: Api,
        field: Field,
        value: Value<'_>,
    ) {
        match field {
            Field::Index => self.choice_index = index_of(value),
            Field::Kind if api == Api::OpenAiAssistantsRun => {
                self.is_aside = value != Value::Text("thread.run");
                self.settle_run_id(findings);
            }
            Field::Kind => self.kind = EventKind::of(value),
            Field::ObjectKind if value == Value::Text("error") => findings.error(),
            Field::Reason if !matches!(value, Value::Null | Value::Number("0")) => findings.error(),
            // DashScope's word for "not yet".
            Field::Finish if value == Value::Text("null") => {}
            Field::Finish => {
                let outcome = take_text(&mut self.choice_finish, value);
                findings.note(outcome);
            }
            Field::Status if !self.is_aside => {
                let outcome = take_text(&mut findings.finish_reason, value);
                findings.note(outcome);
            }
            Field::IterationModel => {
                let outcome = take_text(&mut self.result_model, value);
                findings.note(outcome);
            }
            Field::BatchRequests => self.n_answered = index_of(value),
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
                self.repeats.begin();
            }
            Field::Envelope | Field::Block => {
                findings.takes_tool_calls();
                self.repeats.open(&findings.relayed);
            }
            Field::Iterations => self.breakdown = None,
            Field::Iteration => self.breakdown.get_or_insert_default().open(findings),
            Field::Call | Field::CallPiece | Field::LegacyCall => {
                self.call_index = 0;
                self.call_id = 0;
            }
            _ => {}
        }
    }

    pub(super) fn close(&mut self, findings: &mut Findings, field: Field) {
        match field {
            Field::Usage if self.is_aside => findings.staged = Counts::default(),
            Field::Usage => {
                findings.staged.unite();
                findings.staged.add_orchestration();
                findings.replace_usage();
            }
            Field::BatchResult => self.end_result(findings),
            Field::Iteration => self.end_part(findings),
            Field::LegacyCall if self.call_id == 0 => {}
            Field::Call | Field::LegacyCall if !self.lists_pieces => {
                findings.has_content = true;
                self.n_listed = self.n_listed.saturating_add(1);
                self.note_calls(findings);
            }
            Field::Call | Field::CallPiece => {
                findings.has_content = true;
                if self.pieces.len() < CALLS_MAX {
                    self.pieces.push((self.call_index, self.call_id));
                }
            }
            Field::Envelope => self.repeats.end_delta(&findings.relayed),
            Field::Block => self.repeats.end_message(&findings.relayed),
            Field::Choice => self.end_choice(findings),
            Field::Image => findings.n_items += 1,
            _ => {}
        }
    }

    /// Some hosts end a stream without `[DONE]`: where reason and usage are told, nothing is due.
    pub(super) fn document(&mut self, findings: &mut Findings, api: Api) {
        self.n_listed = 0;
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
        if api == Api::OpenAiAssistantsRun {
            self.settle_run_id(findings);
            self.is_aside = false;
        }
        match api {
            Api::OpenAiBatches => settle_batch(findings),
            Api::OpenAiVideos => settle_video(findings),
            _ => {}
        }
        findings.is_terminated |=
            findings.finish_reason.is_some() && findings.has_usage && !findings.is_error;
    }

    /// The whole, and where it is charged by parts, those instead of it.
    pub(super) fn settle(
        &mut self,
        findings: &mut Findings,
        counts: &Counts,
        api: Api,
        usage: &mut Usage,
    ) -> (Result<(), Trouble>, Option<Usage>) {
        let outcome = settle(counts, api, self.quirks, usage);
        // A batch tells what its requests used together: how long each was is not known then.
        if self.n_answered > 0 && !usage.has_no_tokens() {
            usage.set_unit(Unit::Requests, Quantity::whole(self.n_answered));
        }
        let parts = self.breakdown.take();
        let charged = parts.and_then(|parts| parts.charge(findings, usage));
        (outcome, charged)
    }

    /// What is charged, where that is more than the counts have.
    pub(super) fn with_citations(&self, counts: &Counts, usage: &Usage) -> Option<Usage> {
        with_citations(counts, self.quirks, usage)
    }

    /// A model behind the one that was asked used that much of the whole.
    fn end_part(&mut self, findings: &mut Findings) {
        let model = self.result_model.take();
        let parts = self.breakdown.get_or_insert_default();
        let counts = parts.close(findings);
        let mut usage = Usage::new();
        let outcome = settle(&counts, Api::OpenAiChat, self.quirks, &mut usage);
        findings.note(outcome);
        parts.add(model, usage);
    }

    /// The request of a batch was answered by a chat completion.
    fn end_result(&mut self, findings: &mut Findings) {
        let counts = std::mem::take(&mut findings.counts);
        findings.has_usage = false;
        let mut usage = Usage::new();
        let outcome = settle(&counts, Api::OpenAiChat, self.quirks, &mut usage);
        findings.note(outcome);
        findings.batch_result(self.result_model.take(), usage);
    }

    /// A host that streams pieces may tell the whole message at the end
    /// (<https://platform.minimax.io/docs/api-reference/text-post>), so that the list and the pieces
    /// are the same calls.
    fn note_calls(&mut self, findings: &mut Findings) {
        findings.is_eventful = true;
        self.n_listed_max = self.n_listed_max.max(self.n_listed);
        let n_pieced = u32::try_from(self.calls.len()).unwrap_or(u32::MAX);
        findings.tool_calls = Some(self.n_listed_max.max(n_pieced));
    }

    fn settle_run_id(&mut self, findings: &mut Findings) {
        match self.is_aside {
            true => findings.response_id.clone_from(&self.run_id),
            false => self.run_id.clone_from(&findings.response_id),
        }
    }

    /// The body has ended, perhaps within a choice.
    pub(super) fn cut(&mut self, findings: &mut Findings) {
        self.repeats.drop_message(findings);
    }

    fn end_choice(&mut self, findings: &mut Findings) {
        self.repeats.drop_message(findings);
        if self.choice_finish.is_some() {
            findings.end_part();
        }
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
                self.note_calls(findings);
            }
            _ => findings.trouble(Trouble::TooLong),
        }
    }
}

/// The counts of a batch grow while it runs; those of its end are charged, at the rates of batches
/// (<https://platform.openai.com/docs/guides/batch>). Mistral's has other words for its end
/// (<https://docs.mistral.ai/api/#tag/batch>, `status`).
fn settle_batch(findings: &mut Findings) {
    let status = findings.finish_reason.as_deref();
    let has_ended = matches!(
        status,
        Some("completed" | "expired" | "cancelled" | "failed")
            | Some("SUCCESS" | "FAILED" | "TIMEOUT_EXCEEDED" | "CANCELLED")
    );
    if !has_ended {
        findings.counts = Counts::default();
        findings.has_usage = false;
        findings.extra.clear();
    }
    findings.service_tier = Some("batch".to_owned());
}

/// A video is charged once it is made, by its length; a host that tells none tells what it charges
/// (<https://platform.openai.com/docs/guides/video-generation>,
/// <https://openrouter.ai/docs/guides/overview/multimodal/video-generation>).
fn settle_video(findings: &mut Findings) {
    let status = findings.finish_reason.as_deref();
    if matches!(status, Some("completed" | "done")) {
        findings.has_usage |= findings.cost.is_some();
    } else {
        findings.billed_seconds = None;
        findings.cost = None;
        findings.has_usage = false;
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
