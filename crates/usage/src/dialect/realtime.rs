//! OpenAI's Realtime API: the events that the server sends over a WebSocket.
//!
//! <https://platform.openai.com/docs/api-reference/realtime-server-events>: `response.done` has
//! the whole of a response, its usage too, which is what is charged; nothing is cumulative over
//! responses. Cached tokens lie within the tokens of their kind, and those within the totals.
//! Transcription of the input is done by a model of its own and charged at that model's rates: its
//! usage, in tokens or in seconds, stands in
//! `conversation.item.input_audio_transcription.completed`. Neither names a model; the session
//! does (`session.created`, `session.updated`).

use super::{Field, Turn};
use crate::bucket::{Bucket, Usage};
use crate::counts::{Count, Counts, less, split};
use crate::findings::{Findings, take_text};
use crate::json::{Node, Value};
use crate::scan::Trouble;

const fn count(count: Count) -> Node<Field> {
    Node::leaf(Field::Count(count))
}

const INPUT_DETAILS: Node<Field> = Node::object(&[
    ("cached_tokens", count(Count::CacheRead)),
    ("audio_tokens", count(Count::AudioInput)),
    ("image_tokens", count(Count::ImageInput)),
    (
        "cached_tokens_details",
        Node::object(&[
            ("audio_tokens", count(Count::CacheReadAudio)),
            ("image_tokens", count(Count::CacheReadImage)),
        ]),
    ),
]);

const OUTPUT_DETAILS: Node<Field> = Node::object(&[("audio_tokens", count(Count::AudioOutput))]);

const USAGE: Node<Field> = Node::object(&[
    ("input_tokens", count(Count::Input)),
    ("output_tokens", count(Count::Output)),
    ("total_tokens", count(Count::Total)),
    ("input_token_details", INPUT_DETAILS),
    ("output_token_details", OUTPUT_DETAILS),
    // https://www.alibabacloud.com/help/model-studio/realtime writes them so.
    ("input_tokens_details", INPUT_DETAILS),
    ("output_tokens_details", OUTPUT_DETAILS),
    ("seconds", Node::leaf(Field::BilledSeconds)),
    // https://docs.mistral.ai/capabilities/audio_transcription/realtime_transcription
    ("prompt_tokens", count(Count::Input)),
    ("completion_tokens", count(Count::Output)),
    ("prompt_audio_seconds", Node::leaf(Field::BilledSeconds)),
])
.named(Field::Usage);

const ITEM: Node<Field> =
    Node::object(&[("type", Node::leaf(Field::BlockKind))]).named(Field::Block);

const RESPONSE: Node<Field> = Node::object(&[
    ("id", Node::leaf(Field::ResponseId)),
    ("status", Node::leaf(Field::Status)),
    (
        "status_details",
        Node::object(&[("reason", Node::leaf(Field::Reason))]),
    ),
    ("output", Node::array(&ITEM).named(Field::Envelope)),
    ("usage", USAGE),
]);

const TRANSCRIPTION: Node<Field> = Node::object(&[("model", Node::leaf(Field::IterationModel))]);

const SESSION: Node<Field> = Node::object(&[
    ("model", Node::leaf(Field::Model)),
    (
        "audio",
        Node::object(&[("input", Node::object(&[("transcription", TRANSCRIPTION)]))]),
    ),
    // The beta's place for it.
    ("input_audio_transcription", TRANSCRIPTION),
]);

/// One event.
pub(super) static SCHEMA: Node<Field> = Node::object(&[
    ("type", Node::leaf(Field::Kind)),
    ("response_id", Node::leaf(Field::ResponseId)),
    ("delta", Node::text(Field::Content)),
    ("response", RESPONSE),
    ("session", SESSION),
    ("model", Node::leaf(Field::Model)),
    ("usage", USAGE),
]);

/// The event that is being read.
#[derive(Debug, Default)]
pub(super) struct State {
    kind: Option<String>,
    status: Option<String>,
    reason: Option<String>,
    item_kind: Option<String>,
    /// The model that transcribes the input, where the event names it.
    pub(super) transcriber: Option<String>,
}

impl State {
    pub(super) fn scalar(&mut self, findings: &mut Findings, field: Field, value: Value<'_>) {
        let slot = match field {
            Field::Kind => &mut self.kind,
            Field::Status => &mut self.status,
            Field::Reason => &mut self.reason,
            Field::BlockKind => &mut self.item_kind,
            Field::IterationModel => &mut self.transcriber,
            _ => return,
        };
        findings.note(take_text(slot, value));
    }

    pub(super) fn close(&mut self, findings: &mut Findings, field: Field) {
        let item_kind = self.item_kind.take();
        match field {
            Field::Usage => findings.replace_usage(),
            Field::Envelope => findings.takes_tool_calls(),
            Field::Block if item_kind.as_deref() == Some("function_call") => findings.tool_call(),
            _ => {}
        }
    }

    /// The event has ended: what it means for its response.
    pub(super) fn turn(&mut self, findings: &mut Findings) -> Turn {
        let kind = self.kind.take().unwrap_or_default();
        match kind.as_str() {
            "response.done" => {
                self.end_response(findings);
                Turn::Ended
            }
            "conversation.item.input_audio_transcription.completed" if findings.has_usage => {
                findings.is_terminated = true;
                Turn::Transcribed
            }
            // Mistral's sessions transcribe and do nothing else.
            "transcription.done" => {
                findings.is_terminated = true;
                Turn::Ended
            }
            "response.created" => Turn::Begins,
            kind if kind.starts_with("response.") => Turn::GoesOn,
            _ => Turn::Aside,
        }
    }

    fn end_response(&mut self, findings: &mut Findings) {
        findings.is_terminated = true;
        let Some(status) = self.status.take() else {
            return;
        };
        findings.is_error |= status == "failed";
        findings.finish_reason = Some(match self.reason.take() {
            Some(reason) => format!("{status}:{reason}"),
            None => status,
        });
    }
}

/// There is no bucket for cached images: their tokens are counted as cached text.
pub(super) fn settle(counts: &Counts, usage: &mut Usage) -> Result<(), Trouble> {
    let cached_audio = counts.get(Count::CacheReadAudio);
    let cached_image = counts.get(Count::CacheReadImage);
    let input = split(
        usage,
        counts.get(Count::Input),
        Bucket::Input,
        &[
            (Bucket::CacheReadAudio, cached_audio),
            (
                Bucket::CacheRead,
                less(counts.get(Count::CacheRead), cached_audio),
            ),
            (
                Bucket::AudioInput,
                less(counts.get(Count::AudioInput), cached_audio),
            ),
            (
                Bucket::ImageInput,
                less(counts.get(Count::ImageInput), cached_image),
            ),
        ],
    );
    let output = split(
        usage,
        counts.get(Count::Output),
        Bucket::Output,
        &[(Bucket::AudioOutput, counts.get(Count::AudioOutput))],
    );
    input.and(output)
}
