//! What a provider did not report, inferred from what was relayed.
//!
//! A stream that is cut, or an answer that reports nothing, still costs money. What the provider
//! did state is kept; what is missing is the relayed text divided by the bytes that a token of
//! this model usually has. A placeholder that a first event states (Anthropic's `message_start`)
//! is no report. Reasoning that never passed by is not guessed: the [`Basis`] says that it may
//! be missing.

mod defaults;
mod line;

use std::fmt;

use crate::bucket::{Bucket, Unit, Usage};
use crate::detect::Api;
use crate::relayed::Relayed;
use crate::request::RequestFacts;
use crate::scan::{Scan, UsageSource};
use defaults::Defaults;
use line::Line;

/// The largest estimate of one side of a call, in tokens: no model reads or writes more at once.
const ESTIMATE_TOKENS_MAX: u64 = 2_000_000;

/// Bytes of a stream that could not be decoded for each token of output: the median of 144 recorded
/// streams, compressed by gzip event by event. The events' own words are most of it.
const UNDECODED_STREAM_BYTES_PER_TOKEN: u64 = 14;

/// The same of 325 recorded answers that were no streams, compressed whole.
const UNDECODED_BYTES_PER_TOKEN: u64 = 7;

/// What an estimate was made from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Basis {
    /// Counts that the provider stated before the answer was over; what followed was estimated.
    pub partial_report: bool,
    /// Text of the answer that was relayed.
    pub relayed_text: bool,
    /// Bytes of the answer, which could not be decoded.
    pub body_bytes: bool,
    /// Bytes of the request.
    pub request_bytes: bool,
    /// The model may have reasoned, unseen; that is billed and not in the estimate.
    pub unseen_reasoning: bool,
}

impl fmt::Display for Basis {
    /// The parts' names with `+` between them: `relayed_text+request_bytes`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.partial_report, "partial_report"),
            (self.relayed_text, "relayed_text"),
            (self.body_bytes, "body_bytes"),
            (self.request_bytes, "request_bytes"),
            (self.unseen_reasoning, "unseen_reasoning"),
        ];
        let named = parts.into_iter().filter(|(is_part, _)| *is_part);
        for (i, (_, name)) in named.enumerate() {
            if i > 0 {
                f.write_str("+")?;
            }
            f.write_str(name)?;
        }
        Ok(())
    }
}

/// What the answers of one model that reported their usage have taught.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calibration {
    output: Line,
    input: Line,
    /// An answer reported reasoning of which nothing was relayed.
    hides_reasoning: bool,
}

/// One call, as far as an estimate depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The API that was called.
    pub api: Api,
    /// What its request said.
    pub request: &'a RequestFacts,
    /// The HTTP status; `None` where nobody answered, and what went upstream may be charged.
    pub status: Option<u16>,
    /// Whether the proxy saw the response's end.
    pub has_ended: bool,
}

impl Calibration {
    /// Learns from an answer that reported its usage; others teach nothing.
    pub fn learn(&mut self, scan: &Scan, call: &Call<'_>) {
        let is_whole = scan.complete != Some(false) && !scan.is_error;
        if scan.usage_source != UsageSource::Reported || !is_whole {
            return;
        }
        let defaults = Defaults::of(call.api);
        let n_request = call.request.text_bytes();
        if let Some(n_tokens) = scan.usage.input_total().filter(|_| n_request > 0) {
            self.input.learn(Defaults::input_milli(n_request), n_tokens);
        }
        let relayed = &scan.relayed;
        let reasoning = scan.usage.get(Bucket::Reasoning);
        let is_hidden = relayed.hides_reasoning || relayed.thought_bytes == 0;
        self.hides_reasoning |= is_hidden && reasoning.is_some_and(|n| n > 0);
        let Some(output) = scan.usage.get(Bucket::Output) else {
            return;
        };
        let spoken = defaults.spoken_milli(relayed, n_calls(scan));
        match reasoning {
            // How much of the output was thought is not told.
            None if relayed.hides_reasoning => {}
            None if relayed.thought_bytes > 0 => {
                let thought = defaults.text_milli(relayed.thought_bytes);
                self.output.learn(spoken.saturating_add(thought), output);
            }
            _ if relayed.spoken_bytes() == 0 => {}
            _ => self.output.learn(spoken, output),
        }
    }

    /// Completes a scan whose usage is less than whole. Leaves alone what is not charged, what
    /// was reported, and what is charged by other units than tokens.
    pub fn complete(&self, scan: &mut Scan, call: &Call<'_>) {
        let is_cut = scan.complete == Some(false) || (scan.complete.is_none() && !call.has_ended);
        if !is_estimated(scan, call, is_cut) {
            return;
        }
        let mut basis = Basis::default();
        let n_request = call.request.text_bytes();
        if scan.usage.input_total().is_none() && n_request > 0 {
            let expected = Defaults::input_milli(n_request);
            let n_tokens = self.input.tokens(expected, 0);
            scan.usage
                .set(Bucket::Input, n_tokens.min(ESTIMATE_TOKENS_MAX));
            basis.request_bytes = true;
        }
        if makes_text(call.api) {
            self.complete_output(scan, call, &mut basis);
        } else {
            scan.usage.set(Bucket::Output, 0);
        }
        scan.usage_source = UsageSource::Estimated;
        scan.estimate_basis = Some(basis);
    }

    fn complete_output(&self, scan: &mut Scan, call: &Call<'_>, basis: &mut Basis) {
        let relayed = scan.relayed;
        let n_calls = n_calls(scan);
        let usage = &mut scan.usage;
        let is_reasoning_told = usage.get(Bucket::Reasoning).is_some();
        if relayed.is_undecoded && relayed.text_bytes() == 0 {
            let each = match call.request.streams {
                true => UNDECODED_STREAM_BYTES_PER_TOKEN,
                false => UNDECODED_BYTES_PER_TOKEN,
            };
            let n_tokens = relayed.body_bytes.div_ceil(each);
            add(usage, Bucket::Output, n_tokens.min(ESTIMATE_TOKENS_MAX));
            basis.body_bytes = true;
        } else if let Some(at) = relayed.reported_at.filter(|at| *at > 0) {
            let n_bytes = relayed.text_bytes().saturating_sub(at);
            add(usage, Bucket::Output, self.text_tokens(n_bytes, call.api));
            basis.partial_report = true;
            basis.relayed_text = n_bytes > 0;
        } else {
            // What was stated before any text was relayed is a placeholder.
            let n_tokens = self.spoken_tokens(&relayed, n_calls, call.api);
            usage.set(Bucket::Output, n_tokens.min(ESTIMATE_TOKENS_MAX));
            if relayed.thought_bytes > 0 && !is_reasoning_told {
                let n_tokens = self.text_tokens(relayed.thought_bytes, call.api);
                usage.set(Bucket::Reasoning, n_tokens);
            }
            basis.relayed_text = true;
        }
        let is_asked = call.request.asks_reasoning && relayed.thought_bytes == 0;
        let may_hide = relayed.hides_reasoning || self.hides_reasoning || is_asked;
        basis.unseen_reasoning = may_hide && !is_reasoning_told;
    }

    fn spoken_tokens(&self, relayed: &Relayed, n_calls: u64, api: Api) -> u64 {
        if relayed.spoken_bytes() == 0 {
            return 0;
        }
        let defaults = Defaults::of(api);
        let expected = defaults.spoken_milli(relayed, n_calls);
        let n_tokens = self.output.tokens(expected, defaults.offset_milli());
        // Streams hardly ever cut a token in two, so an event with text is a token at least.
        let n_least = match relayed.thought_bytes {
            0 => relayed.n_pieces,
            _ => 0,
        };
        n_tokens.max(n_least).min(ESTIMATE_TOKENS_MAX)
    }

    /// Tokens of text that is a part of an answer: the line's offset is counted elsewhere.
    fn text_tokens(&self, n_bytes: u64, api: Api) -> u64 {
        let expected = Defaults::of(api).text_milli(n_bytes);
        self.output.part(expected).min(ESTIMATE_TOKENS_MAX)
    }
}

fn n_calls(scan: &Scan) -> u64 {
    u64::from(scan.tool_calls.unwrap_or(0))
}

fn add(usage: &mut Usage, bucket: Bucket, n_tokens: u64) {
    let known = usage.get(bucket).unwrap_or(0);
    usage.set(bucket, known.saturating_add(n_tokens));
}

fn is_estimated(scan: &Scan, call: &Call<'_>, is_cut: bool) -> bool {
    let is_success = call.status.is_none_or(|status| status / 100 == 2);
    let is_by_units = is_charged_by_units(call.api) || scan.usage.unit(Unit::Images).is_some();
    if !scan.billable || !is_success || is_by_units {
        return false;
    }
    // What failed before it had begun to answer is not charged.
    if scan.is_error && scan.relayed.text_bytes() == 0 {
        return false;
    }
    if is_cut {
        let is_reported = scan.usage.output_total().is_some() && scan.relayed.is_report_final;
        return !is_reported;
    }
    scan.usage.is_empty() && !is_pending(scan, call.api)
}

/// Whether the answer only says that there will be one: a background response, whose usage comes
/// when it is retrieved (<https://platform.openai.com/docs/guides/background>).
fn is_pending(scan: &Scan, api: Api) -> bool {
    let may_be = matches!(api, Api::OpenAiResponses | Api::GeminiInteractions);
    may_be
        && matches!(
            scan.finish_reason.as_deref(),
            Some("queued" | "in_progress")
        )
}

/// Whether an answer without token counts is the normal case: images, audio by its duration,
/// ranks by the search, moderation for nothing.
fn is_charged_by_units(api: Api) -> bool {
    matches!(
        api,
        Api::OpenAiImages
            | Api::OpenAiAudio
            | Api::OpenAiModerations
            | Api::MistralOcr
            | Api::CohereAudio
            | Api::CohereRerank
            | Api::Rerank
            | Api::BedrockApplyGuardrail
    )
}

/// Whether the answer is text; vectors are no tokens.
fn makes_text(api: Api) -> bool {
    !matches!(
        api,
        Api::OpenAiEmbeddings
            | Api::GeminiEmbed
            | Api::GeminiPredict
            | Api::CohereEmbed
            | Api::OllamaEmbed
            | Api::WatsonxEmbed
            | Api::MistralOcr
    )
}

#[cfg(test)]
mod tests;
