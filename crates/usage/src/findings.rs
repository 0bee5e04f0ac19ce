//! What the documents of one body have said so far, the same for every dialect.

use std::collections::BTreeMap;

use crate::batch;
use crate::bucket::Usage;
use crate::counts::{Count, Counts};
use crate::json::Value;
use crate::json::number::decimal_of;
use crate::relayed::{Relayed, TextKind};
use crate::scan::{ExtraUsage, Trouble};

/// The most entries of usage charged apart that are kept for one body: an entry has 250 bytes, a
/// stream 16 KiB in all. What has no room even in a sum is counted as `too_long`.
const EXTRA_USAGES_MAX: usize = 16;

/// Everything a dialect may find; settled into a scan when the body has ended.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) model: Option<String>,
    pub(crate) response_id: Option<String>,
    pub(crate) service_tier: Option<String>,
    pub(crate) finish_reason: Option<String>,
    pub(crate) cost: Option<String>,
    pub(crate) context: BTreeMap<&'static str, String>,
    /// Counts of the usage object that is being read.
    pub(crate) staged: Counts,
    /// Counts of the usage objects that were read whole.
    pub(crate) counts: Counts,
    pub(crate) has_usage: bool,
    /// How long the audio is.
    pub(crate) audio_seconds: Option<String>,
    /// How much of it, or of a video, is charged; holds where both are told.
    pub(crate) billed_seconds: Option<String>,
    /// Entries of the answer's `data[]`: images, vectors.
    pub(crate) n_items: u64,
    /// Web searches listed among a response's items.
    pub(crate) n_web_searches: u64,
    /// File searches listed among them.
    pub(crate) n_file_searches: u64,
    /// Containers that these items name.
    pub(crate) n_code_sessions: u64,
    pub(crate) extra: Vec<ExtraUsage>,
    pub(crate) tool_calls: Option<u32>,
    pub(crate) is_error: bool,
    /// The API's own last word was seen.
    pub(crate) is_terminated: bool,
    pub(crate) has_content: bool,
    pub(crate) relayed: Relayed,
    /// Bytes of [`TextKind::Answer`] that the document at hand brought.
    pub(crate) n_document_text: u64,
    /// The document at hand states what was produced.
    reports_output: bool,
    /// What was produced was last stated with, or after, the reason why the answer ended.
    pub(crate) is_report_last: bool,
    /// All text up to the document at hand.
    pub(crate) n_text_before: u64,
    /// [`Relayed::spoken_bytes`] up to the document at hand.
    pub(crate) n_spoken_before: u64,
    /// The event at hand brought something that must not be counted twice or passed over.
    pub(crate) is_eventful: bool,
    pub(crate) trouble: Option<Trouble>,
}

impl Findings {
    /// Remembers the gravest trouble.
    pub(crate) fn trouble(&mut self, trouble: Trouble) {
        let is_graver = |known| gravity(trouble) > gravity(known);
        if self.trouble.is_none_or(is_graver) {
            self.trouble = Some(trouble);
        }
    }

    pub(crate) fn note(&mut self, outcome: Result<(), Trouble>) {
        if let Err(trouble) = outcome {
            self.trouble(trouble);
        }
    }

    pub(crate) fn content(&mut self, kind: TextKind, n_bytes: usize) {
        self.has_content = true;
        self.relayed.add(kind, n_bytes as u64);
        if kind == TextKind::Answer {
            self.n_document_text += n_bytes as u64;
        }
    }

    /// What the document at hand has brought as an answer turns out to be something else; `None`
    /// is no text at all.
    pub(crate) fn reassign(&mut self, kind: Option<TextKind>) {
        let n_bytes = std::mem::take(&mut self.n_document_text);
        self.relayed.take_back(TextKind::Answer, n_bytes);
        if let Some(kind) = kind {
            self.relayed.add(kind, n_bytes);
        }
    }

    /// The document at hand has ended.
    pub(crate) fn end_document(&mut self) {
        self.n_document_text = 0;
        self.relayed
            .count_piece(self.n_spoken_before, self.n_text_before);
        self.n_spoken_before = self.relayed.spoken_bytes();
        self.n_text_before = self.relayed.text_bytes();
        if std::mem::take(&mut self.reports_output) {
            self.is_report_last = self.finish_reason.is_some();
        }
    }

    /// So many documents have gone by that brought text of one kind, and nothing else.
    pub(crate) fn pieces(&mut self, kind: TextKind, n_pieces: u64, n_bytes: u64) {
        self.has_content = true;
        self.relayed.add(kind, n_bytes);
        self.relayed.count_pieces(kind, n_pieces);
        self.n_spoken_before = self.relayed.spoken_bytes();
        self.n_text_before = self.relayed.text_bytes();
    }

    /// Whether the counts to come state what was produced: then they speak of the text so far.
    fn note_report(&mut self) {
        if self.staged.get(Count::Output).is_some() {
            self.relayed.reported_at = Some(self.relayed.text_bytes());
            self.reports_output = true;
            self.is_report_last = self.finish_reason.is_some();
        }
    }

    pub(crate) fn count(&mut self, count: Count, value: Value<'_>) {
        let outcome = self.staged.read(count, value);
        self.note(outcome);
    }

    pub(crate) fn error(&mut self) {
        self.is_error = true;
        self.is_eventful = true;
    }

    /// A part of the answer, or a tool call, is whole. Where it ended is news, also where an event
    /// like it said so before.
    pub(crate) fn end_part(&mut self) {
        self.is_eventful = true;
        self.relayed.end_part();
    }

    pub(crate) fn tool_call(&mut self) {
        self.is_eventful = true;
        let n = self.tool_calls.unwrap_or(0);
        self.tool_calls = Some(n.saturating_add(1));
    }

    /// The API has tool calls; there may have been none.
    pub(crate) fn takes_tool_calls(&mut self) {
        self.tool_calls.get_or_insert(0);
    }

    /// A usage object has ended: it replaces what earlier ones said.
    pub(crate) fn replace_usage(&mut self) {
        self.is_eventful = true;
        self.note_report();
        if !self.staged.is_empty() {
            self.counts = std::mem::take(&mut self.staged);
            self.has_usage = true;
        }
    }

    /// A usage object has ended: what it names replaces what earlier ones said.
    pub(crate) fn overlay_usage(&mut self) {
        self.note_report();
        if !self.staged.is_empty() {
            self.is_eventful = true;
            self.counts.overlay(&self.staged);
            self.staged = Counts::default();
            self.has_usage = true;
        }
    }

    /// Counts have ended of which the largest of each is the call's.
    pub(crate) fn largest_usage(&mut self) {
        self.note_report();
        if !self.staged.is_empty() {
            self.is_eventful = true;
            self.counts.raise(&self.staged);
            self.staged = Counts::default();
            self.has_usage = true;
        }
    }

    pub(crate) fn context(&mut self, name: &'static str, value: Value<'_>) {
        let mut text = None;
        self.note(take_text(&mut text, value));
        if let Some(text) = text {
            self.context.insert(name, text);
        }
    }

    pub(crate) fn cost(&mut self, value: Value<'_>) {
        match value {
            Value::Number(text) | Value::Text(text) => {
                // Nobody is paid for a call: a figure below zero is none.
                let stated = decimal_of(text).filter(|cost| !cost.starts_with('-'));
                self.cost = stated.or(self.cost.take());
            }
            _ => {}
        }
    }

    /// One dollar is 10^10 ticks (docs.x.ai, "usage and pricing": `cost_in_usd_ticks`).
    pub(crate) fn cost_ticks(&mut self, value: Value<'_>) {
        if let Value::Number(text) = value {
            let stated = decimal_of(&format!("{text}e-10"));
            self.cost = stated
                .filter(|cost| !cost.starts_with('-'))
                .or(self.cost.take());
        }
    }

    /// Takes usage charged apart. Beyond the bound it is added to an entry of its kind and model,
    /// so that no token is lost.
    pub(crate) fn extra(&mut self, extra: ExtraUsage) {
        if self.extra.len() < EXTRA_USAGES_MAX {
            self.extra.push(extra);
        } else {
            self.extra_sum(extra);
        }
    }

    /// Takes what one request of a batch used; one that failed used nothing.
    pub(crate) fn batch_result(&mut self, model: Option<String>, usage: Usage) {
        if usage.is_empty() {
            return;
        }
        if !batch::add(&mut self.extra, model, usage, EXTRA_USAGES_MAX) {
            self.trouble(Trouble::TooLong);
        }
    }

    /// Takes usage charged apart into the entry of its kind and model.
    pub(crate) fn extra_sum(&mut self, extra: ExtraUsage) {
        let has_room = self.extra.len() < EXTRA_USAGES_MAX;
        let known = self
            .extra
            .iter_mut()
            .find(|known| known.kind == extra.kind && known.model == extra.model);
        match known {
            Some(known) => known.usage.add(&extra.usage),
            None if has_room => self.extra.push(extra),
            None => self.trouble(Trouble::TooLong),
        }
    }
}

/// Text or number as the provider wrote it; `null`, booleans and empty strings say nothing.
pub(crate) fn take_text(slot: &mut Option<String>, value: Value<'_>) -> Result<(), Trouble> {
    match value {
        Value::Text("") | Value::Null | Value::Bool(_) => Ok(()),
        Value::Text(text) | Value::Number(text) => {
            if slot.as_deref() != Some(text) {
                *slot = Some(text.to_owned());
            }
            Ok(())
        }
        Value::TooLong => Err(Trouble::TooLong),
        Value::Unreadable => Err(Trouble::Malformed),
    }
}

/// Which trouble is told where there are several: what makes the counts doubtful comes first.
fn gravity(trouble: Trouble) -> u8 {
    match trouble {
        Trouble::BadEncoding => 9,
        Trouble::UnknownEncoding => 8,
        Trouble::DecoderBudget => 7,
        Trouble::BadCount => 6,
        Trouble::Inconsistent => 5,
        Trouble::Truncated => 4,
        Trouble::ErrorInBody => 3,
        Trouble::Malformed => 2,
        Trouble::TooLong => 1,
        Trouble::UsageMissing => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cost_is_below_zero() {
        let mut findings = Findings::default();
        findings.cost(Value::Text("-5"));
        findings.cost_ticks(Value::Number("-50000000000"));
        assert_eq!(findings.cost, None);
        findings.cost(Value::Number("0.25"));
        findings.cost(Value::Number("-1"));
        assert_eq!(findings.cost.as_deref(), Some("0.25"));
    }
}
