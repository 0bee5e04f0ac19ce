//! Ollama's own API, and watsonx.ai's text generation, embeddings and reranking: counts at the top
//! of each line or event, or in its results.
//!
//! <https://github.com/ollama/ollama/blob/main/docs/api.md>: the line with `done: true` has
//! `prompt_eval_count` and `eval_count`; a prompt that was cached whole leaves the first out.
//! <https://cloud.ibm.com/apidocs/watsonx-ai#text-generation-stream>: observed that the input
//! count stands in the first event and is 0 later, while the output count is cumulative, so that
//! the largest of each is the call's.

use super::Field;
use crate::bucket::{Bucket, Usage};
use crate::counts::{Count, Counts};
use crate::detect::Api;
use crate::findings::{Findings, take_text};
use crate::json::{Node, Value};

const fn count(count: Count) -> Node<Field> {
    Node::leaf(Field::Count(count))
}

const TEXT: Node<Field> = Node::text(Field::Content);
const THOUGHT: Node<Field> = Node::text(Field::Thought);
const CALL: Node<Field> = Node::object(&[]).named(Field::Call);

const RESULT: Node<Field> = Node::object(&[
    ("generated_text", TEXT),
    ("input_token_count", count(Count::Input)),
    ("generated_token_count", count(Count::Output)),
    ("stop_reason", Node::leaf(Field::Reason)),
]);

/// A line of Ollama's or an event of watsonx.ai's.
pub(super) static SCHEMA: Node<Field> = Node::object(&[
    ("model", Node::leaf(Field::Model)),
    ("response", TEXT),
    ("thinking", THOUGHT),
    (
        "message",
        Node::object(&[
            ("content", TEXT),
            ("thinking", THOUGHT),
            ("tool_calls", Node::array(&CALL)),
        ]),
    ),
    ("done", Node::leaf(Field::Status)),
    ("done_reason", Node::leaf(Field::Finish)),
    ("prompt_eval_count", count(Count::Input)),
    ("eval_count", count(Count::Output)),
    ("model_id", Node::leaf(Field::Model)),
    // Embeddings and ranks have the count here, texts in their results.
    ("input_token_count", count(Count::Input)),
    ("results", Node::array(&RESULT)),
    ("error", Node::object(&[]).named(Field::Error)),
    ("errors", Node::array(&CALL).named(Field::Error)),
]);

/// The document that is being read.
#[derive(Debug, Default)]
pub(super) struct State {
    /// It says that no other follows.
    is_last: bool,
}

impl State {
    pub(super) fn scalar(&mut self, findings: &mut Findings, field: Field, value: Value<'_>) {
        match (field, value) {
            (Field::Status, Value::Bool(true)) => self.is_last = true,
            (Field::Reason, Value::Text("not_finished")) => {}
            (Field::Finish | Field::Reason, _) => {
                let outcome = take_text(&mut findings.finish_reason, value);
                findings.note(outcome);
                self.is_last |= matches!(value, Value::Text(_));
            }
            _ => {}
        }
    }

    pub(super) fn close(&mut self, findings: &mut Findings, field: Field) {
        if field == Field::Call {
            findings.has_content = true;
            findings.tool_call();
        }
    }

    pub(super) fn document(&mut self, findings: &mut Findings, api: Api) {
        if matches!(api, Api::OllamaChat | Api::OllamaGenerate) && !findings.is_error {
            findings.takes_tool_calls();
        }
        findings.largest_usage();
        findings.is_terminated |= self.is_last;
    }
}

pub(super) fn settle(counts: &Counts, api: Api, usage: &mut Usage) {
    let embeds = matches!(api, Api::OllamaEmbed | Api::WatsonxEmbed);
    let made_nothing = (embeds && !counts.is_empty()).then_some(0);
    usage.set(Bucket::Input, counts.get(Count::Input));
    usage.set(Bucket::Output, counts.get(Count::Output).or(made_nothing));
}
