//! What an answer's counts come to, whatever its dialect.

use super::{Dialect, Reader, anthropic, cohere, interactions, plain, realtime, responses};
use crate::bucket::{Quantity, Unit, Usage};
use crate::counts::{Count, Counts};
use crate::detect::Api;
use crate::findings::Findings;
use crate::scan::Trouble;

impl Reader {
    /// The counts made disjoint, and what the provider charges where that differs.
    pub(crate) fn settle(&mut self) -> (Usage, Option<Usage>) {
        let counts = std::mem::take(&mut self.findings.counts);
        let mut usage = Usage::new();
        let mut billed = None;
        let outcome = match &mut self.dialect {
            Dialect::OpenAi(state) => {
                let findings = &mut self.findings;
                let (outcome, parts) = state.settle(findings, &counts, self.api, &mut usage);
                billed = parts;
                outcome
            }
            Dialect::Responses(_) => responses::settle(&counts, &mut usage),
            Dialect::Realtime(_) => realtime::settle(&counts, &mut usage),
            Dialect::Anthropic(_) => {
                let outcome = anthropic::settle(&counts, &mut usage);
                billed = anthropic::uncharged(&self.findings, &usage);
                outcome
            }
            Dialect::Gemini(state) => state.settle(&counts, self.api, &mut usage, &mut billed),
            Dialect::Interactions(_) => {
                let outcome = interactions::settle(&counts, &mut usage);
                billed = interactions::without_grounding(&counts, &usage);
                outcome
            }
            Dialect::Bedrock(state) => {
                let outcome = state.settle(&counts, &mut usage);
                billed = anthropic::uncharged(&self.findings, &usage);
                outcome
            }
            Dialect::Cohere(_) => cohere::settle(&counts, self.api, &mut usage, &mut billed),
            Dialect::Plain(_) => {
                plain::settle(&counts, self.api, &mut usage);
                Ok(())
            }
        };
        self.findings.note(outcome);
        set_units(&counts, &mut usage);
        let makes_images = matches!(
            self.api,
            Api::OpenAiImages | Api::BedrockInvoke | Api::GeminiPredict
        );
        if makes_images && self.findings.n_items > 0 {
            usage.set_unit(Unit::Images, Quantity::whole(self.findings.n_items));
        }
        set_tools(&self.findings, &counts, &mut usage);
        let findings = &mut self.findings;
        let seconds = findings.billed_seconds.take();
        if let Some(text) = seconds.or(findings.audio_seconds.take()) {
            let unit = match self.api {
                Api::OpenAiVideos => Unit::VideoSeconds,
                _ => Unit::AudioSeconds,
            };
            match Quantity::parse(&text) {
                Some(seconds) => usage.set_unit(unit, seconds),
                None => self.findings.trouble(Trouble::BadCount),
            }
        }
        if let Dialect::OpenAi(state) = &self.dialect {
            billed = billed.or_else(|| state.with_citations(&counts, &usage));
        }
        (usage, billed)
    }
}

/// What the provider's tools did. A number that the usage tells stands before that of the items,
/// of which some may have failed and are not charged.
fn set_tools(findings: &Findings, counts: &Counts, usage: &mut Usage) {
    let told_or = |count, listed| counts.get(count).or(Some(listed));
    let web_searches = told_or(Count::WebSearchCalls, findings.n_web_searches);
    let file_searches = told_or(Count::FileSearches, findings.n_file_searches);
    for (n, unit) in [
        (web_searches, Unit::WebSearches),
        (file_searches, Unit::FileSearches),
        (counts.get(Count::DocumentSearches), Unit::DocumentSearches),
        (counts.get(Count::XSearches), Unit::XSearches),
        (counts.get(Count::CodeCalls), Unit::CodeCalls),
        (Some(findings.n_code_sessions), Unit::CodeSessions),
    ] {
        if let Some(n) = n.filter(|n| *n > 0) {
            usage.set_unit(unit, Quantity::whole(n));
        }
    }
}

/// What is charged and is no token.
pub(super) fn set_units(counts: &Counts, usage: &mut Usage) {
    for (count, unit) in [
        (Count::WebSearches, Unit::WebSearches),
        (Count::WebFetches, Unit::WebFetches),
        (Count::MapsQueries, Unit::MapsQueries),
        (Count::SearchUnits, Unit::SearchUnits),
        (Count::Images, Unit::Images),
        (Count::Characters, Unit::Characters),
        (Count::Pages, Unit::Pages),
    ] {
        if let Some(n) = counts.get(count) {
            usage.set_unit(unit, Quantity::whole(n));
        }
    }
}
