//! OpenAI's Responses API: objects, their streams, retrievals, compactions and input counts.
//!
//! <https://platform.openai.com/docs/api-reference/responses/object>, `…/responses-streaming`:
//! the usage stands in `response.usage` of the event that ends the stream
//! (`response.completed`, `.incomplete`, `.failed`); earlier events have `usage: null`. Details
//! lie within their totals.
//!
//! What the image tool used is charged at its own model's rates and is in no other count: it stands
//! in `tool_usage.image_gen` (observed; its model in the echoed `tools[]`), beside the number of
//! searches that are charged (`tool_usage.web_search.num_requests`).

mod items;
mod text;

use super::Field;
use crate::bucket::{Bucket, Usage};
use crate::counts::{Count, Counts, split};
use crate::distinct::Distinct;
use crate::findings::{Findings, take_text};
use crate::json::number::count_of;
use crate::json::{Node, Value};
use crate::scan::{ExtraUsage, Trouble};
use items::Items;
use text::Text;

const fn count(count: Count) -> Node<Field> {
    Node::leaf(Field::Count(count))
}

const USAGE: Node<Field> = Node::object(&[
    ("input_tokens", count(Count::Input)),
    ("output_tokens", count(Count::Output)),
    ("total_tokens", count(Count::Total)),
    (
        "input_tokens_details",
        Node::object(&[
            ("cached_tokens", count(Count::CacheRead)),
            ("cache_write_tokens", count(Count::CacheWrite)),
            // https://docs.perplexity.ai/docs/agent-api/quickstart
            ("cache_read_input_tokens", count(Count::CacheReadTwin)),
            ("cache_creation_input_tokens", count(Count::CacheCreation)),
            ("audio_tokens", count(Count::AudioInput)),
            // https://wavespeed.ai/blog/posts/fugu-ultra-api-guide/ (Sakana)
            (
                "orchestration_input_tokens",
                count(Count::OrchestrationInput),
            ),
            (
                "orchestration_input_cached_tokens",
                count(Count::OrchestrationCacheRead),
            ),
        ]),
    ),
    (
        "output_tokens_details",
        Node::object(&[
            ("reasoning_tokens", count(Count::Reasoning)),
            ("audio_tokens", count(Count::AudioOutput)),
            (
                "orchestration_output_tokens",
                count(Count::OrchestrationOutput),
            ),
        ]),
    ),
    (
        "cost",
        Node::object(&[("total_cost", Node::leaf(Field::Cost))]).named(Field::Cost),
    ),
    ("cost_in_usd_ticks", Node::leaf(Field::CostTicks)),
    // https://docs.x.ai/developers/tools/tool-usage-details: what succeeded, and is charged.
    // https://docs.x.ai/developers/pricing calls a search of collections `file_search` too, and a
    // search of attached files `attachment_search`, which was `document_search` before.
    (
        "server_side_tool_usage_details",
        Node::object(&[
            ("web_search_calls", count(Count::WebSearchCalls)),
            ("x_search_calls", count(Count::XSearches)),
            ("code_interpreter_calls", count(Count::CodeCalls)),
            ("file_search_calls", count(Count::FileSearches)),
            ("document_search_calls", count(Count::DocumentSearches)),
        ]),
    ),
    // https://www.alibabacloud.com/help/model-studio/qwen-api-via-openai-responses
    (
        "x_tools",
        Node::object(&[(
            "web_search",
            Node::object(&[("count", Node::leaf(Field::Query))]),
        )]),
    ),
    // https://docs.perplexity.ai/docs/agent-api/tools/web-search
    (
        "tool_calls_details",
        Node::object(&[(
            "search_web",
            Node::object(&[("invocation", Node::leaf(Field::Query))]),
        )]),
    ),
])
.named(Field::Usage);

const IMAGE_DETAILS_IN: Node<Field> = Node::object(&[("image_tokens", count(Count::ImageInput))]);
const IMAGE_DETAILS_OUT: Node<Field> = Node::object(&[("text_tokens", count(Count::Output))]);

/// <https://platform.openai.com/docs/guides/tools-image-generation>
const IMAGE_TOOL: Node<Field> = Node::object(&[
    ("input_tokens", count(Count::Input)),
    ("output_tokens", count(Count::ImageOutput)),
    ("input_tokens_details", IMAGE_DETAILS_IN),
    ("output_tokens_details", IMAGE_DETAILS_OUT),
])
.named(Field::ToolUsage);

const TOOL_USAGE: Node<Field> = Node::object(&[
    ("image_gen", IMAGE_TOOL),
    (
        "web_search",
        Node::object(&[("num_requests", Node::leaf(Field::Query))]),
    ),
]);

/// Of the tools only the image tool names a model.
const TOOL: Node<Field> = Node::object(&[("model", Node::leaf(Field::IterationModel))]);

/// <https://platform.openai.com/docs/api-reference/responses/object>: `code_interpreter_call` names
/// its container, `shell_call` within its `environment`.
const CONTAINER: Node<Field> = Node::leaf(Field::CodeContainer);
const ENVIRONMENT: Node<Field> = Node::object(&[("container_id", CONTAINER)]);

/// An output item; the text in it was relayed before as deltas, or is told by [`WHOLE_ITEM`].
const ITEM: Node<Field> = Node::object(&[
    ("type", Node::leaf(Field::BlockKind)),
    ("action", ACTION),
    ("container_id", CONTAINER),
    ("environment", ENVIRONMENT),
]);

/// An output item that a stream adds or has done; no delta brings the name of what it calls.
const STREAMED_ITEM: Node<Field> = Node::object(&[
    ("type", Node::leaf(Field::BlockKind)),
    ("action", ACTION),
    ("container_id", CONTAINER),
    ("environment", ENVIRONMENT),
    ("name", Node::text(Field::CallText)),
])
.named(Field::Call);

const ACTION: Node<Field> = Node::object(&[("type", Node::leaf(Field::BlockAction))]);

/// An item of a response that was not streamed.
const WHOLE_ITEM: Node<Field> = Node::object(&[
    ("type", Node::leaf(Field::BlockKind)),
    ("action", ACTION),
    ("container_id", CONTAINER),
    ("environment", ENVIRONMENT),
    (
        "content",
        Node::array(&Node::object(&[("text", Node::text(Field::Content))])),
    ),
    ("name", Node::text(Field::CallText)),
    ("arguments", Node::text(Field::CallText)),
    (
        "summary",
        Node::array(&Node::object(&[("text", Node::text(Field::Thought))])),
    ),
])
.named(Field::Block);

const LISTED_ITEM: Node<Field> = ITEM.named(Field::Block);

const INCOMPLETE: Node<Field> = Node::object(&[("reason", Node::leaf(Field::Reason))]);

const RESPONSE: Node<Field> = Node::object(&[
    ("id", Node::leaf(Field::ResponseId)),
    ("model", Node::leaf(Field::Model)),
    ("status", Node::leaf(Field::Status)),
    ("incomplete_details", INCOMPLETE),
    ("service_tier", Node::leaf(Field::Tier)),
    ("output", Node::array(&LISTED_ITEM).named(Field::Envelope)),
    ("usage", USAGE),
    ("tool_usage", TOOL_USAGE),
    ("tools", Node::array(&TOOL)),
    ("error", Node::object(&[]).named(Field::Error)),
]);

/// A response, or an event of its stream with the response in it.
pub(super) static SCHEMA: Node<Field> = Node::object(&[
    ("type", Node::leaf(Field::Kind)),
    ("response", RESPONSE),
    // What it is a piece of, the event's type says.
    ("delta", Node::text(Field::Content)),
    ("item", STREAMED_ITEM),
    ("id", Node::leaf(Field::ResponseId)),
    ("model", Node::leaf(Field::Model)),
    ("status", Node::leaf(Field::Status)),
    ("incomplete_details", INCOMPLETE),
    ("service_tier", Node::leaf(Field::Tier)),
    ("output", Node::array(&WHOLE_ITEM).named(Field::Envelope)),
    ("usage", USAGE),
    ("tool_usage", TOOL_USAGE),
    ("tools", Node::array(&TOOL)),
    ("error", Node::object(&[]).named(Field::Error)),
]);

/// The document that is being read, and the items seen so far.
#[derive(Debug, Default)]
pub(super) struct State {
    kind: Option<String>,
    status: Option<String>,
    reason: Option<String>,
    item_kind: Option<String>,
    item_action: Option<String>,
    /// Of the list in the response object; the last list holds.
    listed: Items,
    /// Of the stream's `response.output_item.done` events.
    done: Items,
    item: Items,
    text: Text,
    /// A call was added that is not done.
    is_calling: bool,
    /// Searches that the response itself says were made.
    searches_told: u64,
    /// An item is told up to three times: as it is added, as it is done, and in the list.
    containers: Distinct,
    tool_model: Option<String>,
    tool_usage: Option<Usage>,
}

impl State {
    pub(super) fn scalar(&mut self, findings: &mut Findings, field: Field, value: Value<'_>) {
        let slot = match field {
            Field::Kind => &mut self.kind,
            Field::Status => &mut self.status,
            Field::Reason => &mut self.reason,
            Field::BlockKind => &mut self.item_kind,
            Field::BlockAction => &mut self.item_action,
            Field::IterationModel => &mut self.tool_model,
            Field::Query => {
                if let Value::Number(text) = value {
                    self.searches_told = count_of(text).unwrap_or(self.searches_told);
                }
                return;
            }
            Field::CodeContainer => {
                if let Value::Text(id) = value
                    && !id.is_empty()
                    && !self.containers.insert(id)
                {
                    findings.trouble(Trouble::TooLong);
                }
                return;
            }
            _ => return,
        };
        findings.note(take_text(slot, value));
    }

    pub(super) fn open(&mut self, findings: &mut Findings, field: Field) {
        match field {
            Field::ToolUsage => findings.staged = Counts::default(),
            Field::Envelope => self.listed = Items::default(),
            Field::Block | Field::Call => {
                self.item_kind = None;
                self.item_action = None;
                if field == Field::Call {
                    self.text.open_item(findings);
                }
            }
            _ => {}
        }
    }

    pub(super) fn close(&mut self, findings: &mut Findings, field: Field) {
        let (kind, action) = (self.item_kind.as_deref(), self.item_action.as_deref());
        match field {
            Field::Usage => {
                findings.staged.add_orchestration();
                findings.replace_usage();
            }
            Field::ToolUsage => {
                self.tool_usage = image_usage(&std::mem::take(&mut findings.staged))
            }
            Field::Block => {
                findings.is_eventful = true;
                findings.relayed.hides_reasoning |= kind == Some("reasoning");
                self.listed.add(kind, action);
            }
            Field::Call => {
                findings.is_eventful = true;
                findings.relayed.hides_reasoning |= kind == Some("reasoning");
                self.item = Items::default();
                self.item.add(kind, action);
                self.text.close_item(kind);
            }
            Field::Envelope => findings.takes_tool_calls(),
            _ => {}
        }
    }

    /// The document has ended: its kind is known now, wherever in it that stood.
    pub(super) fn document(&mut self, findings: &mut Findings) {
        let item = std::mem::take(&mut self.item);
        let kind = self.kind.take();
        self.text.settle(findings, kind.as_deref());
        match kind.as_deref() {
            Some("response.output_item.added") => self.is_calling = item.calls > 0,
            Some("response.output_item.done") => {
                self.is_calling = false;
                self.done.calls += item.calls;
                self.done.web_searches += item.web_searches;
                self.done.file_searches += item.file_searches;
            }
            Some("error") => findings.error(),
            _ => {}
        }
        let n_begun = self.done.calls + u32::from(self.is_calling);
        if findings.tool_calls.is_some() || n_begun > 0 {
            findings.tool_calls = Some(self.listed.calls.max(n_begun));
        }
        let listed = self.listed.web_searches.max(self.done.web_searches);
        findings.n_web_searches = listed.max(self.searches_told);
        findings.n_file_searches = self.listed.file_searches.max(self.done.file_searches);
        findings.n_code_sessions = self.containers.count();
        if let Some(status) = self.status.take() {
            self.end_response(findings, &status);
        }
    }

    /// The body has ended, perhaps within a document.
    pub(super) fn cut(&mut self, findings: &mut Findings) {
        let kind = self.kind.take();
        self.text.cut(findings, kind.as_deref());
    }

    /// The last response object holds, as it does for the usage.
    fn end_tools(&mut self, findings: &mut Findings) {
        findings.extra.clear();
        let model = self.tool_model.take();
        if let Some(usage) = self.tool_usage.take() {
            findings.extra(ExtraUsage {
                kind: "image_gen".to_owned(),
                model,
                usage,
            });
        }
    }

    fn end_response(&mut self, findings: &mut Findings, status: &str) {
        findings.is_eventful = true;
        self.end_tools(findings);
        findings.is_terminated |=
            matches!(status, "completed" | "incomplete" | "failed" | "cancelled");
        findings.is_error |= status == "failed";
        findings.finish_reason = Some(match (status, self.reason.take()) {
            ("incomplete", Some(reason)) => format!("incomplete:{reason}"),
            _ => status.to_owned(),
        });
    }
}

/// What the image tool used; `None` where it was not used.
fn image_usage(counts: &Counts) -> Option<Usage> {
    let whole = counts.get(Count::ImageOutput);
    let is_used = whole.max(counts.get(Count::Input)) > Some(0);
    let mut usage = Usage::new();
    let images = (Bucket::ImageInput, counts.get(Count::ImageInput));
    let text = (Bucket::Output, counts.get(Count::Output));
    let input = split(
        &mut usage,
        counts.get(Count::Input),
        Bucket::Input,
        &[images],
    );
    let output = split(&mut usage, whole, Bucket::ImageOutput, &[text]);
    (is_used && input.and(output).is_ok()).then_some(usage)
}

pub(super) fn settle(counts: &Counts, usage: &mut Usage) -> Result<(), Trouble> {
    let input = split(
        usage,
        counts.get(Count::Input),
        Bucket::Input,
        &[
            (Bucket::CacheRead, counts.cache_read()),
            (Bucket::CacheWrite, counts.cache_write()),
            (Bucket::AudioInput, counts.get(Count::AudioInput)),
        ],
    );
    let output = split(
        usage,
        counts.get(Count::Output),
        Bucket::Output,
        &[
            (Bucket::Reasoning, counts.get(Count::Reasoning)),
            (Bucket::AudioOutput, counts.get(Count::AudioOutput)),
        ],
    );
    input.and(output)
}
