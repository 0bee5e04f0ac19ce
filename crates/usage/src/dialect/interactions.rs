//! Gemini's Interactions API.
//!
//! <https://ai.google.dev/api/interactions-api>: `usage.total_*_tokens` of the interaction, in a
//! stream in `interaction.completed`; cached tokens lie within the input, thoughts and tool use
//! are counted beside input and output.
//! <https://ai.google.dev/gemini-api/docs/pricing>: grounding with Search or Maps is charged by the
//! prompt or the query, and what it reads is not charged as input.

use super::Field;
use crate::bucket::{Bucket, Quantity, Unit, Usage};
use crate::counts::{Count, Counts, split};
use crate::findings::{Findings, take_text};
use crate::json::{Node, Value};
use crate::scan::Trouble;

const fn count(count: Count) -> Node<Field> {
    Node::leaf(Field::Count(count))
}

const DETAIL: Node<Field> = Node::object(&[
    ("modality", Node::leaf(Field::Modality)),
    ("tokens", Node::leaf(Field::ModalityTokens)),
]);
const INPUT_DETAIL: Node<Field> = DETAIL.named(Field::Detail(Count::AudioInput));
const CACHE_DETAIL: Node<Field> = DETAIL.named(Field::Detail(Count::CacheReadAudio));
const OUTPUT_DETAIL: Node<Field> = DETAIL.named(Field::Detail(Count::AudioOutput));

const TOOL_COUNT: Node<Field> = Node::object(&[
    ("type", Node::leaf(Field::IterationKind)),
    ("count", Node::leaf(Field::Query)),
])
.named(Field::Iteration);

const USAGE: Node<Field> = Node::object(&[
    ("total_input_tokens", count(Count::Input)),
    ("total_cached_tokens", count(Count::CacheRead)),
    ("total_output_tokens", count(Count::Output)),
    ("total_thought_tokens", count(Count::Reasoning)),
    ("total_tool_use_tokens", count(Count::ToolUseInput)),
    ("total_tokens", count(Count::Total)),
    ("input_tokens_by_modality", Node::array(&INPUT_DETAIL)),
    ("cached_tokens_by_modality", Node::array(&CACHE_DETAIL)),
    ("output_tokens_by_modality", Node::array(&OUTPUT_DETAIL)),
    ("grounding_tool_count", Node::array(&TOOL_COUNT)),
])
.named(Field::Usage);

const TEXT: Node<Field> = Node::text(Field::Content);
const PART: Node<Field> =
    Node::object(&[("text", TEXT), ("arguments", Node::text(Field::CallText))]);

const STEP: Node<Field> = Node::object(&[
    ("type", Node::leaf(Field::BlockKind)),
    ("text", TEXT),
    ("content", Node::array(&PART)),
])
.named(Field::Block);

/// A step that begins in a stream; its text comes as deltas.
const STREAMED_STEP: Node<Field> =
    Node::object(&[("type", Node::leaf(Field::BlockKind))]).named(Field::Part);

const STEPS: Node<Field> = Node::array(&STEP).named(Field::Envelope);

const INTERACTION: Node<Field> = Node::object(&[
    ("id", Node::leaf(Field::ResponseId)),
    ("model", Node::leaf(Field::Model)),
    ("status", Node::leaf(Field::Status)),
    ("service_tier", Node::leaf(Field::Tier)),
    ("usage", USAGE),
    ("steps", STEPS),
    ("outputs", STEPS),
    ("error", Node::object(&[]).named(Field::Error)),
]);

/// An interaction, or an event of its stream.
pub(super) static SCHEMA: Node<Field> = Node::object(&[
    ("event_type", Node::leaf(Field::Kind)),
    ("interaction", INTERACTION),
    ("delta", PART),
    ("step", STREAMED_STEP),
    ("id", Node::leaf(Field::ResponseId)),
    ("model", Node::leaf(Field::Model)),
    ("status", Node::leaf(Field::Status)),
    ("service_tier", Node::leaf(Field::Tier)),
    ("usage", USAGE),
    ("steps", STEPS),
    ("outputs", STEPS),
    ("error", Node::object(&[]).named(Field::Error)),
]);

/// The event or step that is being read.
#[derive(Debug, Default)]
pub(super) struct State {
    kind: Option<String>,
    step_kind: Option<String>,
    tool_kind: Option<String>,
    tool_count: Counts,
    is_audio: bool,
    is_image: bool,
    modality_tokens: Counts,
}

impl State {
    pub(super) fn scalar(&mut self, findings: &mut Findings, field: Field, value: Value<'_>) {
        let outcome = match field {
            Field::Kind => take_text(&mut self.kind, value),
            Field::Status => {
                if value == Value::Text("failed") {
                    findings.error();
                }
                take_text(&mut findings.finish_reason, value)
            }
            Field::BlockKind => take_text(&mut self.step_kind, value),
            Field::IterationKind => take_text(&mut self.tool_kind, value),
            Field::Query => self.tool_count.read(Count::WebSearches, value),
            Field::Modality => {
                self.is_audio = matches!(value, Value::Text("audio" | "AUDIO"));
                self.is_image = matches!(value, Value::Text("image" | "IMAGE"));
                Ok(())
            }
            Field::ModalityTokens => self.modality_tokens.read(Count::Input, value),
            _ => Ok(()),
        };
        findings.note(outcome);
    }

    pub(super) fn open(&mut self, findings: &mut Findings, field: Field) {
        match field {
            Field::Envelope => {
                findings.tool_calls = Some(0);
                findings.is_eventful = true;
            }
            Field::Block | Field::Part => self.step_kind = None,
            Field::Iteration => {
                self.tool_kind = None;
                self.tool_count = Counts::default();
            }
            Field::Detail(_) => {
                self.is_audio = false;
                self.is_image = false;
                self.modality_tokens = Counts::default();
            }
            _ => {}
        }
    }

    pub(super) fn close(&mut self, findings: &mut Findings, field: Field) {
        match field {
            Field::Usage => findings.replace_usage(),
            // https://ai.google.dev/gemini-api/docs/thinking: what is relayed is a summary at most.
            Field::Block | Field::Part if self.step_kind.as_deref() == Some("thought") => {
                findings.is_eventful = true;
                findings.relayed.hides_reasoning = true;
            }
            Field::Block if self.step_kind.as_deref() == Some("function_call") => {
                findings.has_content = true;
                findings.tool_call();
            }
            Field::Iteration => {
                let count = match self.tool_kind.as_deref() {
                    Some("google_search") => Count::WebSearches,
                    Some("google_maps") => Count::MapsQueries,
                    _ => return,
                };
                if let Some(n) = self.tool_count.get(Count::WebSearches) {
                    findings.staged.add(count, n);
                }
            }
            Field::Detail(count) => {
                let bucket = match (count, self.is_audio, self.is_image) {
                    (_, true, _) => count,
                    (Count::AudioOutput, _, true) => Count::ImageOutput,
                    _ => return,
                };
                if let Some(n) = self.modality_tokens.get(Count::Input) {
                    findings.staged.add(bucket, n);
                }
            }
            _ => {}
        }
    }

    pub(super) fn document(&mut self, findings: &mut Findings) {
        match self.kind.take().as_deref() {
            Some("interaction.completed" | "interaction.complete") => {
                findings.is_terminated = true;
                findings.is_eventful = true;
            }
            Some("error") => findings.error(),
            _ => {}
        }
    }
}

pub(super) fn settle(counts: &Counts, usage: &mut Usage) -> Result<(), Trouble> {
    let cached_audio = counts.get(Count::CacheReadAudio);
    let less = |n: u64| n.saturating_sub(cached_audio.unwrap_or(0));
    let input = split(
        usage,
        counts.get(Count::Input),
        Bucket::Input,
        &[
            (Bucket::CacheReadAudio, cached_audio),
            (Bucket::CacheRead, counts.get(Count::CacheRead).map(less)),
            (Bucket::AudioInput, counts.get(Count::AudioInput).map(less)),
        ],
    );
    if let Some(tool_use) = counts.get(Count::ToolUseInput) {
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
    if is_grounded(counts) {
        usage.set_unit(Unit::GroundedPrompts, Quantity::whole(1));
    }
    input.and(output)
}

fn is_grounded(counts: &Counts) -> bool {
    let looked_up = [Count::WebSearches, Count::MapsQueries].map(|count| counts.get(count));
    looked_up.into_iter().flatten().any(|n| n > 0)
}

/// What is charged where it was grounding that read; `None` where that is all that was used.
pub(super) fn without_grounding(counts: &Counts, usage: &Usage) -> Option<Usage> {
    let tool_use = counts.get(Count::ToolUseInput).filter(|n| *n > 0)?;
    let input = usage.get(Bucket::Input)?;
    is_grounded(counts).then(|| {
        let mut charged = usage.clone();
        charged.set(Bucket::Input, input.saturating_sub(tool_use));
        super::settle::set_units(counts, &mut charged);
        charged
    })
}
