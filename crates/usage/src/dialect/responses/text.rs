//! What the text of a stream's deltas is, and the names of what its items call.

use crate::findings::Findings;
use crate::relayed::TextKind;

/// The item at hand, as far as it tells what its text is.
#[derive(Debug, Default)]
pub(super) struct Text {
    /// What its deltas bring, for one that is cut before it says so itself.
    of_item: Option<TextKind>,
    /// [`Relayed::call_bytes`](crate::relayed::Relayed::call_bytes) before the item that the
    /// document at hand tells.
    call_before: Option<u64>,
}

impl Text {
    /// An item begins, in an event of its own.
    pub(super) fn open_item(&mut self, findings: &Findings) {
        self.call_before = Some(findings.relayed.call_bytes);
    }

    /// The item has ended: its kind is known.
    pub(super) fn close_item(&mut self, kind: Option<&str>) {
        self.of_item = match kind {
            Some("message") => Some(TextKind::Answer),
            Some("reasoning") => Some(TextKind::Thought),
            Some("function_call" | "custom_tool_call" | "mcp_call" | "code_interpreter_call") => {
                Some(TextKind::Call)
            }
            _ => None,
        };
    }

    /// The document has ended, and is an event of that type: its text is of the kind that this
    /// says. An item's name is told once more when it is done.
    pub(super) fn settle(&mut self, findings: &mut Findings, event: Option<&str>) {
        let before = self.call_before.take();
        if let Some(before) = before.filter(|_| event != Some("response.output_item.added")) {
            let named = findings.relayed.call_bytes.saturating_sub(before);
            findings.relayed.take_back(TextKind::Call, named);
        }
        let Some(event) = event else { return };
        if findings.n_document_text > 0 {
            reassign(findings, event);
        }
        if event.ends_with(".done") {
            findings.end_part();
        }
    }

    /// The body has ended, and no document may have. Where a delta had not said yet what it is a
    /// piece of, it is a piece of the item at hand.
    pub(super) fn cut(&mut self, findings: &mut Findings, event: Option<&str>) {
        self.settle(findings, event);
        if let (Some(kind), None) = (self.of_item, event) {
            findings.reassign(Some(kind));
        }
    }
}

/// The kind of a delta's text, by the type of its event.
fn reassign(findings: &mut Findings, event: &str) {
    match event {
        "response.output_text.delta" | "response.refusal.delta" => {}
        "response.reasoning_text.delta" => findings.reassign(Some(TextKind::Thought)),
        "response.reasoning_summary_text.delta" => {
            findings.reassign(Some(TextKind::Thought));
            findings.relayed.hides_reasoning = true;
        }
        "response.function_call_arguments.delta"
        | "response.custom_tool_call_input.delta"
        | "response.mcp_call_arguments.delta"
        | "response.code_interpreter_call_code.delta" => {
            findings.reassign(Some(TextKind::Call));
        }
        // Sound and images, as base64; transcripts of the sound.
        _ if event.ends_with(".delta") => findings.reassign(None),
        _ => {}
    }
}
