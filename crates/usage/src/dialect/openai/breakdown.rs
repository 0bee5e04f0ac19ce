//! What each model behind a compound one used, where that says what is charged.
//!
//! <https://console.groq.com/docs/compound/systems/compound>: a compound system has no rates of its
//! own, each model that it asks is charged at that model's. Observed that the entries of
//! `usage_breakdown.models[]` sum to `usage`; in streams each has repeated the whole, which tells
//! nothing of the parts.

use crate::bucket::Usage;
use crate::counts::Counts;
use crate::findings::Findings;
use crate::scan::{ExtraUsage, Trouble};

/// The kind of the parts, in the provider's word.
const KIND: &str = "usage_breakdown";

/// The most models told apart; beyond them the breakdown is not taken. Groq's systems ask two.
const MODELS_MAX: usize = 8;

/// The parts so far, one a model.
#[derive(Debug, Default)]
pub(super) struct Breakdown {
    parts: Vec<ExtraUsage>,
    /// The counts around the entry at hand.
    outer: Counts,
    /// An entry names no model, or there are too many of them.
    is_vague: bool,
}

impl Breakdown {
    /// An entry begins.
    pub(super) fn open(&mut self, findings: &mut Findings) {
        self.outer = std::mem::take(&mut findings.staged);
    }

    /// The entry has ended: its counts.
    pub(super) fn close(&mut self, findings: &mut Findings) -> Counts {
        findings.is_eventful = true;
        let outer = std::mem::take(&mut self.outer);
        std::mem::replace(&mut findings.staged, outer)
    }

    /// Takes what that model used.
    pub(super) fn add(&mut self, model: Option<String>, usage: Usage) {
        let has_room = self.parts.len() < MODELS_MAX;
        let known = self.parts.iter_mut().find(|part| part.model == model);
        match known {
            Some(part) => part.usage.add(&usage),
            None if has_room && model.is_some() => self.parts.push(ExtraUsage {
                kind: KIND.to_owned(),
                model,
                usage,
            }),
            None => self.is_vague = true,
        }
    }

    /// Makes the parts what is charged; the whole is charged nothing beside them then. Parts that do
    /// not sum to the whole are no parts of it.
    pub(super) fn charge(self, findings: &mut Findings, whole: &Usage) -> Option<Usage> {
        if self.parts.is_empty() {
            return None;
        }
        let mut sum = Usage::new();
        self.parts.iter().for_each(|part| sum.add(&part.usage));
        let totals = |usage: &Usage| (usage.input_total(), usage.output_total());
        if self.is_vague || totals(&sum) != totals(whole) {
            findings.trouble(Trouble::Inconsistent);
            return None;
        }
        self.parts.into_iter().for_each(|part| findings.extra(part));
        Some(Usage::new())
    }
}
