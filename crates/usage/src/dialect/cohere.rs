//! Cohere's chat (versions 1 and 2), embeddings, rerank and audio.
//!
//! <https://docs.cohere.com/reference/chat>: `usage.tokens` (version 1: `meta.tokens`) are what
//! was processed, `billed_units` what is charged, often far less; cached tokens lie within the
//! processed input. The model stands in the request alone.

use super::Field;
use super::settle::set_units;
use crate::bucket::{Bucket, Usage};
use crate::counts::{Count, Counts, split};
use crate::detect::Api;
use crate::findings::{Findings, take_text};
use crate::json::{Node, Value};
use crate::scan::Trouble;

const fn count(count: Count) -> Node<Field> {
    Node::leaf(Field::Count(count))
}

const USAGE: Node<Field> = Node::object(&[
    (
        "tokens",
        Node::object(&[
            ("input_tokens", count(Count::Input)),
            ("output_tokens", count(Count::Output)),
            ("reasoning_tokens", count(Count::Reasoning)),
        ]),
    ),
    (
        "billed_units",
        Node::object(&[
            ("input_tokens", count(Count::BilledInput)),
            ("output_tokens", count(Count::BilledOutput)),
            ("image_tokens", count(Count::BilledImage)),
            ("search_units", count(Count::SearchUnits)),
            ("images", count(Count::Images)),
        ]),
    ),
    ("cached_tokens", count(Count::CacheRead)),
])
.named(Field::Usage);

const TEXT: Node<Field> = Node::text(Field::Content);
const THOUGHT: Node<Field> = Node::text(Field::Thought);
const CALL_TEXT: Node<Field> = Node::text(Field::CallText);
const PART: Node<Field> = Node::object(&[("text", TEXT), ("thinking", THOUGHT)]);
const FUNCTION: Node<Field> = Node::object(&[("name", CALL_TEXT), ("arguments", CALL_TEXT)]);
const CALL: Node<Field> = Node::object(&[("function", FUNCTION)]).named(Field::Call);
const CALLS: Node<Field> = Node::array(&CALL).named(Field::Envelope);

/// In an event of a stream, contents and calls come one by one and not as lists.
const MESSAGE: Node<Field> = Node::object(&[
    ("content", PART.or_array(&PART)),
    ("tool_calls", CALL.or_array(&CALL).named(Field::CallPiece)),
    ("tool_plan", TEXT),
]);

const RESPONSE: Node<Field> = Node::object(&[
    ("finish_reason", Node::leaf(Field::Finish)),
    ("meta", USAGE),
    ("tool_calls", CALLS),
]);

/// An answer, an event of version 2's stream, or a line of version 1's.
pub(super) static SCHEMA: Node<Field> = Node::object(&[
    ("id", Node::leaf(Field::ResponseId)),
    ("response_id", Node::leaf(Field::ResponseId)),
    ("type", Node::leaf(Field::Kind)),
    ("event_type", Node::leaf(Field::Kind)),
    ("finish_reason", Node::leaf(Field::Finish)),
    ("text", TEXT),
    (
        "message",
        Node::object(&[
            ("content", Node::array(&PART)),
            ("tool_calls", CALLS),
            ("tool_plan", TEXT),
        ]),
    ),
    ("tool_calls", CALLS),
    (
        "delta",
        Node::object(&[
            ("message", MESSAGE),
            ("finish_reason", Node::leaf(Field::Finish)),
            ("usage", USAGE),
            ("error", Node::leaf(Field::Error)),
        ]),
    ),
    ("response", RESPONSE),
    (
        "generations",
        Node::array(&Node::object(&[
            ("text", TEXT),
            ("finish_reason", Node::leaf(Field::Finish)),
        ])),
    ),
    ("usage", USAGE),
    ("meta", USAGE),
]);

/// The document that is being read, and the calls seen so far.
#[derive(Debug, Default)]
pub(super) struct State {
    kind: Option<String>,
    n_listed: u32,
    n_started: u32,
    has_piece: bool,
}

impl State {
    pub(super) fn scalar(&mut self, findings: &mut Findings, field: Field, value: Value<'_>) {
        let outcome = match field {
            Field::Kind => take_text(&mut self.kind, value),
            Field::Finish => take_text(&mut findings.finish_reason, value),
            _ => Ok(()),
        };
        findings.note(outcome);
    }

    pub(super) fn open(&mut self, field: Field) {
        match field {
            Field::Envelope => self.n_listed = 0,
            Field::CallPiece => self.has_piece = true,
            _ => {}
        }
    }

    pub(super) fn close(&mut self, findings: &mut Findings, field: Field) {
        match field {
            Field::Usage => findings.overlay_usage(),
            Field::Call => {
                findings.is_eventful = true;
                self.n_listed += 1;
            }
            _ => {}
        }
    }

    pub(super) fn document(&mut self, findings: &mut Findings, api: Api) {
        let has_piece = std::mem::take(&mut self.has_piece);
        match self.kind.take().as_deref() {
            Some("content-end" | "tool-call-end") => findings.end_part(),
            Some("message-end" | "stream-end") => {
                findings.is_terminated = true;
                findings.is_eventful = true;
            }
            Some("tool-call-start") if has_piece => {
                findings.is_eventful = true;
                self.n_started += 1;
            }
            _ => {}
        }
        let is_chat = matches!(api, Api::CohereChat | Api::CohereV1Chat);
        if is_chat && findings.finish_reason.is_some() {
            findings.tool_calls = Some(self.n_listed.max(self.n_started));
        }
    }
}

pub(super) fn settle(
    counts: &Counts,
    api: Api,
    usage: &mut Usage,
    billed: &mut Option<Usage>,
) -> Result<(), Trouble> {
    let (billed_input, billed_output) = (
        counts.get(Count::BilledInput),
        counts.get(Count::BilledOutput),
    );
    let processed = counts.get(Count::Input);
    let input = split(
        usage,
        processed.or(billed_input),
        Bucket::Input,
        &[(Bucket::CacheRead, counts.get(Count::CacheRead))],
    );
    usage.set(
        Bucket::ImageInput,
        counts.get(Count::BilledImage).filter(|n| *n > 0),
    );
    let nothing_made = (api == Api::CohereEmbed && !counts.is_empty()).then_some(0);
    let output = split(
        usage,
        counts.get(Count::Output).or(billed_output).or(nothing_made),
        Bucket::Output,
        &[(Bucket::Reasoning, counts.get(Count::Reasoning))],
    );
    if processed.is_some() {
        let mut charged = Usage::new();
        charged.set(Bucket::Input, billed_input);
        charged.set(Bucket::Output, billed_output);
        charged.set(Bucket::ImageInput, usage.get(Bucket::ImageInput));
        set_units(counts, &mut charged);
        *billed = Some(charged).filter(|charged| !charged.is_empty());
    }
    input.and(output)
}
