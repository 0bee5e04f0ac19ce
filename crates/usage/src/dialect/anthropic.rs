//! Anthropic's Messages API (also as served by Vertex and Bedrock), legacy completions, token
//! counting and the results of batches.
//!
//! <https://platform.claude.com/docs/en/api/messages>: `input_tokens` excludes what was read from
//! and written to the cache. <https://platform.claude.com/docs/en/build-with-claude/streaming>:
//! the usage of `message_delta` is cumulative; observed that each of its keys replaces what
//! `message_start` said, input included, upwards and downwards, and that 0 is a value.
//!
//! <https://platform.claude.com/docs/en/build-with-claude/refusals-and-fallback>: where a model
//! declined and another one served, the usage is that of the one that served, which only
//! `iterations[]` (`fallback_message`) names once a stream has begun; an attempt that was declined
//! after it had begun to produce is charged at its own model's rates, one before that is not.

use super::Field;
use crate::bucket::{Bucket, Usage};
use crate::counts::{Count, Counts, split};
use crate::findings::{Findings, take_text};
use crate::json::{Node, Value};
use crate::scan::{ExtraUsage, Trouble};

const fn count(count: Count) -> Node<Field> {
    Node::leaf(Field::Count(count))
}

pub(super) const CACHE_CREATION: Node<Field> = Node::object(&[
    ("ephemeral_5m_input_tokens", count(Count::CacheWrite5m)),
    ("ephemeral_1h_input_tokens", count(Count::CacheWrite1h)),
]);

pub(super) const OUTPUT_DETAILS: Node<Field> =
    Node::object(&[("thinking_tokens", count(Count::Reasoning))]);

const ITERATION: Node<Field> = Node::object(&[
    ("type", Node::leaf(Field::IterationKind)),
    ("model", Node::leaf(Field::IterationModel)),
    ("input_tokens", count(Count::Input)),
    ("cache_creation_input_tokens", count(Count::CacheWrite)),
    ("cache_read_input_tokens", count(Count::CacheRead)),
    ("cache_creation", CACHE_CREATION),
    ("output_tokens", count(Count::Output)),
    ("output_tokens_details", OUTPUT_DETAILS),
])
.named(Field::Iteration);

pub(super) const SERVER_TOOLS: Node<Field> = Node::object(&[
    ("web_search_requests", count(Count::WebSearches)),
    ("web_fetch_requests", count(Count::WebFetches)),
]);

pub(super) const ITERATIONS: Node<Field> = Node::array(&ITERATION).named(Field::Iterations);

const USAGE: Node<Field> = Node::object(&[
    ("input_tokens", count(Count::Input)),
    ("cache_creation_input_tokens", count(Count::CacheWrite)),
    ("cache_read_input_tokens", count(Count::CacheRead)),
    ("cache_creation", CACHE_CREATION),
    ("output_tokens", count(Count::Output)),
    ("output_tokens_details", OUTPUT_DETAILS),
    ("server_tool_use", SERVER_TOOLS),
    ("service_tier", Node::leaf(Field::Tier)),
    ("inference_geo", Node::leaf(Field::Context("inference_geo"))),
    ("speed", Node::leaf(Field::Context("speed"))),
    ("iterations", ITERATIONS),
    // https://openrouter.ai/docs/use-cases/usage-accounting: what the host itself charges.
    ("cost", Node::leaf(Field::Cost)),
])
.named(Field::Usage);

const TEXT: Node<Field> = Node::text(Field::Content);
const THOUGHT: Node<Field> = Node::text(Field::Thought);
const CALL_TEXT: Node<Field> = Node::text(Field::CallText);

pub(super) const BLOCK: Node<Field> = Node::object(&[
    ("type", Node::leaf(Field::BlockKind)),
    ("text", TEXT),
    ("thinking", THOUGHT),
    ("name", CALL_TEXT),
])
.named(Field::Block);

const MESSAGE: Node<Field> = Node::object(&[
    ("id", Node::leaf(Field::ResponseId)),
    ("model", Node::leaf(Field::Model)),
    ("content", Node::array(&BLOCK).named(Field::Envelope)),
    ("stop_reason", Node::leaf(Field::Finish)),
    ("usage", USAGE),
]);

/// A message, an event of its stream, or an error.
pub(super) static SCHEMA: Node<Field> = Node::object(&[
    ("type", Node::leaf(Field::Kind)),
    (
        "delta",
        Node::object(&[
            ("text", TEXT),
            ("thinking", THOUGHT),
            ("partial_json", CALL_TEXT),
            ("stop_reason", Node::leaf(Field::Finish)),
        ]),
    ),
    ("content_block", BLOCK),
    ("message", MESSAGE),
    ("usage", USAGE),
    ("error", Node::object(&[]).named(Field::Error)),
    ("id", Node::leaf(Field::ResponseId)),
    ("model", Node::leaf(Field::Model)),
    ("content", Node::array(&BLOCK).named(Field::Envelope)),
    ("stop_reason", Node::leaf(Field::Finish)),
    ("completion", TEXT),
]);

/// A line of a batch's results
/// (<https://platform.claude.com/docs/en/api/retrieving-message-batch-results>).
pub(super) static BATCH_SCHEMA: Node<Field> = Node::object(&[
    (
        "result",
        Node::object(&[(
            "message",
            Node::object(&[
                ("model", Node::leaf(Field::IterationModel)),
                ("usage", BATCH_USAGE),
            ])
            .named(Field::Iteration),
        )]),
    ),
    ("error", Node::object(&[]).named(Field::Error)),
]);

const BATCH_USAGE: Node<Field> = Node::object(&[
    ("input_tokens", count(Count::Input)),
    ("cache_creation_input_tokens", count(Count::CacheWrite)),
    ("cache_read_input_tokens", count(Count::CacheRead)),
    ("cache_creation", CACHE_CREATION),
    ("output_tokens", count(Count::Output)),
    ("output_tokens_details", OUTPUT_DETAILS),
    ("server_tool_use", SERVER_TOOLS),
    ("service_tier", Node::leaf(Field::Tier)),
    ("inference_geo", Node::leaf(Field::Context("inference_geo"))),
]);

/// The kind of an iteration that the top-level counts contain, unless its model declined.
const MESSAGE_KIND: &str = "message";

/// The kind of the iteration in which another model served what the first had declined.
const FALLBACK_KIND: &str = "fallback_message";

/// What a model that declines says.
const REFUSAL: &str = "refusal";

/// The most models that may have declined one call; requests name three at most.
const DECLINED_MAX: usize = 8;

/// The block or iteration that is being read.
#[derive(Debug, Default)]
pub(super) struct State {
    block_kind: Option<String>,
    iteration_kind: Option<String>,
    iteration_model: Option<String>,
    /// The counts around the iteration.
    outer: Counts,
    /// Iterations of type `message`, as long as nothing says whether their models declined.
    attempts: Vec<ExtraUsage>,
    /// The model of the iteration that served what others had declined.
    served_by: Option<String>,
}

impl State {
    pub(super) fn scalar(&mut self, findings: &mut Findings, field: Field, value: Value<'_>) {
        let slot = match field {
            Field::Kind => return kind(findings, value),
            Field::Finish => &mut findings.finish_reason,
            Field::BlockKind => &mut self.block_kind,
            Field::IterationKind => &mut self.iteration_kind,
            Field::IterationModel => &mut self.iteration_model,
            _ => return,
        };
        let outcome = take_text(slot, value);
        findings.note(outcome);
    }

    pub(super) fn open(&mut self, findings: &mut Findings, field: Field) {
        match field {
            Field::Envelope => findings.takes_tool_calls(),
            Field::Block => self.block_kind = None,
            Field::Iterations => {
                findings.extra.clear();
                self.attempts.clear();
                self.served_by = None;
            }
            Field::Iteration => {
                self.outer = std::mem::take(&mut findings.staged);
                self.iteration_kind = None;
                self.iteration_model = None;
            }
            _ => {}
        }
    }

    pub(super) fn close(&mut self, findings: &mut Findings, field: Field) {
        match field {
            Field::Usage => end_usage(findings),
            Field::Block => self.end_block(findings),
            Field::Iteration => self.end_iteration(findings),
            Field::Iterations => self.end_iterations(findings),
            _ => {}
        }
    }

    /// What is billed is the whole of the thinking; what is relayed may be a summary of it, or
    /// nothing (<https://platform.claude.com/docs/en/build-with-claude/extended-thinking>).
    fn end_block(&self, findings: &mut Findings) {
        match self.block_kind.as_deref() {
            Some("tool_use") => {
                findings.has_content = true;
                findings.tool_call();
            }
            Some("thinking" | "redacted_thinking") => {
                findings.is_eventful = true;
                findings.relayed.hides_reasoning = true;
            }
            _ => {}
        }
    }

    /// Iterations of type `message` are contained in the top-level counts, and so is the one that
    /// served in another's place; others (`compaction`, `advisor_message`) are charged beside them.
    fn end_iteration(&mut self, findings: &mut Findings) {
        findings.is_eventful = true;
        let outer = std::mem::take(&mut self.outer);
        let counts = std::mem::replace(&mut findings.staged, outer);
        let mut usage = Usage::new();
        let outcome = settle(&counts, &mut usage);
        findings.note(outcome);
        let model = self.iteration_model.take();
        let Some(kind) = self.iteration_kind.take() else {
            super::settle::set_units(&counts, &mut usage);
            return findings.batch_result(model, usage);
        };
        let has_room = self.attempts.len() < DECLINED_MAX;
        match kind.as_str() {
            FALLBACK_KIND => self.served_by = model,
            MESSAGE_KIND if model.is_some() && usage.output_total() > Some(0) && has_room => {
                self.attempts.push(ExtraUsage { kind, model, usage });
            }
            MESSAGE_KIND => {}
            _ => findings.extra(ExtraUsage { kind, model, usage }),
        }
    }

    /// Where another model served, the attempts of those that declined are charged beside it.
    fn end_iterations(&mut self, findings: &mut Findings) {
        let attempts = std::mem::take(&mut self.attempts);
        let Some(served_by) = self.served_by.take() else {
            return;
        };
        for attempt in attempts {
            if attempt.model.as_ref() != Some(&served_by) {
                findings.extra(attempt);
            }
        }
        findings.model = Some(served_by);
    }
}

/// The split by time to live stands in `message_start` alone: a later total that is lower has less
/// of each part.
fn end_usage(findings: &mut Findings) {
    if let Some(whole) = findings.staged.get(Count::CacheWrite) {
        for part in [Count::CacheWrite5m, Count::CacheWrite1h] {
            let known = findings.counts.get(part);
            if let (None, Some(known)) = (findings.staged.get(part), known) {
                findings.counts.set(part, known.min(whole));
            }
        }
    }
    findings.overlay_usage();
}

/// What is charged of a call that was refused before it had produced anything: nothing
/// (`…/refusals-and-fallback`, "billing"), though its counts are reported.
pub(super) fn uncharged(findings: &Findings, usage: &Usage) -> Option<Usage> {
    let has_produced = findings.has_content || findings.relayed.hides_reasoning;
    let is_refused = findings.finish_reason.as_deref() == Some(REFUSAL);
    (is_refused && !has_produced && !usage.has_no_tokens()).then(|| {
        let mut charged = Usage::new();
        for (bucket, _) in usage.tokens() {
            charged.set(bucket, 0);
        }
        charged
    })
}

fn kind(findings: &mut Findings, value: Value<'_>) {
    match value {
        Value::Text("message_stop") => {
            findings.is_eventful = true;
            findings.is_terminated = true;
        }
        Value::Text("content_block_stop") => findings.end_part(),
        Value::Text("error") => findings.error(),
        _ => {}
    }
}

pub(super) fn settle(counts: &Counts, usage: &mut Usage) -> Result<(), Trouble> {
    usage.set(Bucket::Input, counts.get(Count::Input));
    usage.set(Bucket::CacheRead, counts.get(Count::CacheRead));
    let one_hour = counts.get(Count::CacheWrite1h);
    let five_minutes = counts.get(Count::CacheWrite5m);
    let parts = five_minutes.zip(one_hour).map(|(a, b)| a.saturating_add(b));
    let writes = split(
        usage,
        counts.get(Count::CacheWrite).or(parts),
        Bucket::CacheWrite,
        &[(Bucket::CacheWrite1h, one_hour)],
    );
    let output = split(
        usage,
        counts.get(Count::Output),
        Bucket::Output,
        &[(Bucket::Reasoning, counts.get(Count::Reasoning))],
    );
    writes.and(output)
}
