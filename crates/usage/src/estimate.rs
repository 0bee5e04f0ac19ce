//! What a provider did not report, inferred from what was relayed.
//!
//! A stream that is cut, or an answer that reports nothing, still costs money. What the provider
//! did state is kept; what is missing is what tokens the relayed text should have ([`defaults`]),
//! times how the model's earlier answers compared with that ([`ratio`]). A placeholder that a first
//! event states (Anthropic's `message_start`) is no report. What never passed by, reasoning or what
//! the model wrote to a router's own tools, is not guessed: the [`Basis`] says that it may be
//! missing.

mod defaults;
mod line;
mod ratio;

use std::fmt;

use crate::bucket::{Bucket, Unit, Usage};
use crate::detect::Api;
use crate::relayed::Relayed;
use crate::request::RequestFacts;
use crate::scan::{Scan, Trouble, UsageSource};
use defaults::Defaults;
use line::Line;
use ratio::Ratio;

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
    /// The host may have run tools of its own between turns of the model; what the model wrote to
    /// call them is billed, not relayed, and not in the estimate.
    pub unseen_turns: bool,
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
            (self.unseen_turns, "unseen_turns"),
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
    output: Ratio,
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
        let n_request = call.request.text_bytes();
        if let Some(n_tokens) = scan.usage.input_total().filter(|_| n_request > 0) {
            self.input.learn(Defaults::input_milli(n_request), n_tokens);
        }
        // What was written to call the host's tools is in the count, and not in the text.
        if !call.request.has_router_tools {
            self.learn_output(scan, defaults(scan, call));
        }
    }

    fn learn_output(&mut self, scan: &Scan, defaults: &Defaults) {
        let relayed = &scan.relayed;
        let reasoning = scan.usage.get(Bucket::Reasoning);
        let is_hidden = relayed.hides_reasoning || relayed.thought_bytes == 0;
        let has_hidden = is_hidden && reasoning.is_some_and(|n| n > 0);
        self.hides_reasoning |= has_hidden;
        let is_lost = relayed.hides_reasoning || defaults.summarises_thoughts();
        let Some(output) = scan.usage.get(Bucket::Output) else {
            return;
        };
        let spoken = defaults.whole_milli(relayed, n_calls(scan));
        match reasoning {
            // Unseen reasoning is reported in round numbers (OpenAI's in multiples of 64), and
            // the rest of the output has what the rounding left.
            Some(_) if has_hidden => {}
            None if relayed.thought_bytes > 0 && !is_lost => {
                let thought = defaults.thought_milli(relayed);
                self.output.learn(spoken.saturating_add(thought), output);
            }
            // How much of the output was thought is not told.
            None if relayed.hides_reasoning || relayed.thought_bytes > 0 => {}
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
        let mut basis = Basis {
            partial_report: !is_cut && has_unread(scan, call.api),
            ..Basis::default()
        };
        let n_request = call.request.text_bytes();
        if scan.usage.input_total().is_none() && n_request > 0 {
            let expected = Defaults::input_milli(n_request);
            let n_tokens = self.input.tokens(expected, 0);
            scan.usage
                .set(Bucket::Input, n_tokens.min(ESTIMATE_TOKENS_MAX));
            basis.request_bytes = true;
        }
        if !is_cut && scan.usage.output_total().is_some() {
            // Told; it was the input that could not be read.
        } else if makes_text(call.api) {
            self.complete_output(scan, call, is_cut, &mut basis);
        } else {
            scan.usage.set(Bucket::Output, 0);
        }
        scan.usage_source = UsageSource::Estimated;
        scan.estimate_basis = Some(basis);
    }

    fn complete_output(&self, scan: &mut Scan, call: &Call<'_>, is_cut: bool, basis: &mut Basis) {
        let relayed = scan.relayed;
        let defaults = defaults(scan, call);
        let n_calls = match (call.api, n_calls(scan)) {
            // The call whose event was cut is not counted, though its name was relayed.
            (Api::OpenAiChat, 0) if relayed.call_bytes > 0 => 1,
            (_, n_calls) => n_calls,
        };
        let usage = &mut scan.usage;
        let is_reasoning_told = usage.get(Bucket::Reasoning).is_some();
        // A later report may have taken back what an earlier one stated.
        let is_output_told = usage.get(Bucket::Output).is_some();
        if relayed.is_undecoded && relayed.text_bytes() == 0 {
            let each = match call.request.streams {
                true => UNDECODED_STREAM_BYTES_PER_TOKEN,
                false => UNDECODED_BYTES_PER_TOKEN,
            };
            let n_tokens = relayed.body_bytes.div_ceil(each);
            add(usage, Bucket::Output, n_tokens.min(ESTIMATE_TOKENS_MAX));
            basis.body_bytes = true;
        } else if let Some(at) = relayed.reported_at.filter(|at| *at > 0 && is_output_told) {
            let n_bytes = relayed.text_bytes().saturating_sub(at);
            add(
                usage,
                Bucket::Output,
                self.tokens(defaults.text_milli(n_bytes)),
            );
            if n_calls == 0 && relayed.call_bytes > 0 {
                // Where the provider runs calls itself, each round is reported anew (Gemini's code
                // execution), and only the last report sums them up.
                let n_least = self.tokens(defaults.cut_milli(&relayed, n_calls));
                raise(usage, Bucket::Output, n_least);
            }
            basis.partial_report = true;
            basis.relayed_text = n_bytes > 0;
        } else {
            // What was stated before any text was relayed is a placeholder.
            let spoken = match (relayed.spoken_bytes(), is_cut) {
                (0, _) => 0,
                (_, true) => defaults.cut_milli(&relayed, n_calls),
                (_, false) => defaults.whole_milli(&relayed, n_calls),
            };
            // Streams hardly ever cut a token in two: a piece is a token at least.
            let n_tokens = self.tokens(spoken).max(relayed.n_spoken_pieces);
            usage.set(Bucket::Output, n_tokens);
            if relayed.thought_bytes > 0 && !is_reasoning_told {
                let n_tokens = self.tokens(defaults.thought_milli(&relayed));
                usage.set(Bucket::Reasoning, n_tokens);
            }
            basis.relayed_text = true;
        }
        basis.unseen_reasoning = !is_reasoning_told && self.may_hide(&relayed, call, defaults);
        basis.unseen_turns = call.request.has_router_tools;
    }

    /// Whether the model may have reasoned beyond what was relayed.
    fn may_hide(&self, relayed: &Relayed, call: &Call<'_>, defaults: &Defaults) -> bool {
        let may_be_whole = match relayed.thought_bytes {
            0 => !call.request.asks_reasoning && !defaults.always_reasons(),
            _ => !defaults.summarises_thoughts(),
        };
        relayed.hides_reasoning || self.hides_reasoning || !may_be_whole
    }

    fn tokens(&self, expected_milli: u64) -> u64 {
        self.output.tokens(expected_milli).min(ESTIMATE_TOKENS_MAX)
    }
}

/// The figures of the model that answered, or that was asked.
fn defaults(scan: &Scan, call: &Call<'_>) -> &'static Defaults {
    let asked = call.request.model.as_deref();
    Defaults::of(call.api, scan.model.as_deref().or(asked))
}

fn n_calls(scan: &Scan) -> u64 {
    u64::from(scan.tool_calls.unwrap_or(0))
}

fn add(usage: &mut Usage, bucket: Bucket, n_tokens: u64) {
    let known = usage.get(bucket).unwrap_or(0);
    usage.set(bucket, known.saturating_add(n_tokens));
}

fn raise(usage: &mut Usage, bucket: Bucket, n_least: u64) {
    let known = usage.get(bucket).unwrap_or(0);
    usage.set(bucket, known.max(n_least));
}

fn is_estimated(scan: &Scan, call: &Call<'_>, is_cut: bool) -> bool {
    let is_success = call.status.is_none_or(|status| status / 100 == 2);
    let is_by_units = is_charged_by_units(call.api) || scan.usage.unit(Unit::Images).is_some();
    if !scan.billable || !is_success || is_by_units {
        return false;
    }
    if has_no_content(scan, call.status) {
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
    (scan.usage.is_empty() || has_unread(scan, call.api)) && !is_pending(scan, call.api)
}

/// Whether one side of the call was told by a number that is no count: it was not nothing.
fn has_unread(scan: &Scan, api: Api) -> bool {
    let usage = &scan.usage;
    let has_output = usage.output_total().is_some() || !makes_text(api);
    let is_whole = usage.input_total().is_some() && has_output;
    scan.trouble == Some(Trouble::BadCount) && !usage.is_empty() && !is_whole
}

/// Whether the answer says by its status that it has no content, and has none: nothing was
/// generated, and nothing was promised that a cut could have kept back (RFC 9110, 15.3.5 and
/// 15.3.6).
fn has_no_content(scan: &Scan, status: Option<u16>) -> bool {
    matches!(status, Some(204 | 205)) && scan.relayed.body_bytes == 0
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
            | Api::OpenAiVideos
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
