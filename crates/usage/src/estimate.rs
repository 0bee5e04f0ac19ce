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

use crate::bucket::{Bucket, Usage};
use crate::detect::Api;
use crate::relayed::Relayed;
use crate::request::RequestFacts;
use crate::scan::{Scan, UsageSource};
use defaults::Defaults;
use line::Line;

/// The largest estimate of one side of a call, in tokens: no model reads or writes more at once.
const ESTIMATE_TOKENS_MAX: u64 = 2_000_000;

/// Bytes of a body that could not be decoded for each token of output. Measured over recorded
/// streams, each compressed by gzip event by event: the events' own words are most of it.
const UNDECODED_BYTES_PER_TOKEN: u64 = 30;

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
            self.input.learn(defaults.input_milli(n_request), n_tokens);
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
            let expected = Defaults::of(call.api).input_milli(n_request);
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
        if relayed.is_undecoded && relayed.text_bytes() == 0 {
            let n_tokens = relayed.body_bytes.div_ceil(UNDECODED_BYTES_PER_TOKEN);
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
            if relayed.thought_bytes > 0 && usage.get(Bucket::Reasoning).is_none() {
                let n_tokens = self.text_tokens(relayed.thought_bytes, call.api);
                usage.set(Bucket::Reasoning, n_tokens);
            }
            basis.relayed_text = true;
        }
        let is_asked = call.request.asks_reasoning && relayed.thought_bytes == 0;
        basis.unseen_reasoning = relayed.hides_reasoning || self.hides_reasoning || is_asked;
    }

    fn spoken_tokens(&self, relayed: &Relayed, n_calls: u64, api: Api) -> u64 {
        if relayed.spoken_bytes() == 0 {
            return 0;
        }
        let defaults = Defaults::of(api);
        let expected = defaults.spoken_milli(relayed, n_calls);
        let n_tokens = self.output.tokens(expected, defaults.offset_milli());
        // Streams hardly ever cut a token in two.
        match relayed.thought_bytes {
            0 => n_tokens.max(relayed.n_pieces),
            _ => n_tokens,
        }
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
    if !scan.billable || !is_success || is_charged_by_units(call.api) {
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
        Api::OpenAiEmbeddings | Api::GeminiEmbed | Api::CohereEmbed | Api::OllamaEmbed
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &str = r#"{"model":"m","stream":true,"messages":[{"content":"hello there"}]}"#;

    fn call(api: Api, request: &RequestFacts) -> Call<'_> {
        Call {
            api,
            request,
            status: Some(200),
            has_ended: true,
        }
    }

    fn request() -> RequestFacts {
        RequestFacts {
            body_bytes: REQUEST.len() as u64,
            ..RequestFacts::default()
        }
    }

    /// A scan of a stream that was cut after so much text.
    fn cut(answer_bytes: u64, usage: Usage, reported_at: Option<u64>) -> Scan {
        Scan {
            usage_source: match usage.is_empty() {
                true => UsageSource::Absent,
                false => UsageSource::Reported,
            },
            usage,
            billable: true,
            complete: Some(false),
            relayed: Relayed {
                answer_bytes,
                reported_at,
                ..Relayed::default()
            },
            ..Scan::default()
        }
    }

    fn completed(api: Api, scan: &Scan) -> (Usage, String) {
        let request = request();
        let mut scan = scan.clone();
        Calibration::default().complete(&mut scan, &call(api, &request));
        let basis = scan.estimate_basis.map(|basis| basis.to_string());
        assert_eq!(basis.is_some(), scan.usage_source == UsageSource::Estimated);
        (scan.usage, basis.unwrap_or_default())
    }

    fn tokens(input: u64, output: u64) -> Usage {
        let usage = Usage::new().with(Bucket::Input, input);
        usage.with(Bucket::Output, output)
    }

    #[test]
    fn only_what_is_missing_is_estimated() {
        let nothing = Usage::new();
        for (name, api, scan, usage, basis) in [
            (
                "nothing reported",
                Api::OpenAiChat,
                cut(400, nothing.clone(), None),
                tokens(12, 102),
                "relayed_text+request_bytes",
            ),
            (
                "a placeholder",
                Api::AnthropicMessages,
                cut(450, tokens(2000, 1), Some(0)),
                tokens(2000, 103),
                "relayed_text",
            ),
            (
                "a placeholder, and nothing relayed",
                Api::AnthropicMessages,
                cut(0, tokens(2000, 8), Some(0)),
                tokens(2000, 0),
                "relayed_text",
            ),
            (
                "a report that text followed",
                Api::GeminiStreamGenerate,
                cut(600, tokens(30, 90), Some(400)),
                tokens(30, 140),
                "partial_report+relayed_text",
            ),
            (
                "a report that nothing followed",
                Api::GeminiStreamGenerate,
                cut(400, tokens(30, 90), Some(400)),
                tokens(30, 90),
                "partial_report",
            ),
        ] {
            let (got, got_basis) = completed(api, &scan);
            assert_eq!((&got, got_basis.as_str()), (&usage, basis), "{name}");
        }
    }

    #[test]
    fn what_is_final_or_free_is_left_alone() {
        let silent = || Scan {
            complete: Some(true),
            ..cut(400, Usage::new(), None)
        };
        let with = |change: fn(&mut Scan)| {
            let mut scan = silent();
            change(&mut scan);
            scan
        };
        let chat = Api::OpenAiChat;
        for (name, api, scan, is_estimated) in [
            ("a silent answer", chat, silent(), true),
            ("free", chat, with(|s| s.billable = false), false),
            ("reported", chat, with(|s| s.usage = tokens(1, 2)), false),
            (
                "cut behind its report",
                chat,
                with(|s| {
                    s.usage = tokens(1, 2);
                    s.complete = Some(false);
                    s.relayed.is_report_final = true;
                }),
                false,
            ),
            (
                "failed before it began",
                chat,
                with(|s| {
                    s.is_error = true;
                    s.relayed.answer_bytes = 0;
                }),
                false,
            ),
            (
                "failed in its midst",
                chat,
                with(|s| s.is_error = true),
                true,
            ),
            ("images", Api::OpenAiImages, silent(), false),
            ("speech", Api::OpenAiAudio, silent(), false),
            (
                "in the background",
                Api::OpenAiResponses,
                with(|s| s.finish_reason = Some("queued".to_owned())),
                false,
            ),
        ] {
            let (_, basis) = completed(api, &scan);
            assert_eq!(!basis.is_empty(), is_estimated, "{name}");
        }
        for status in [301, 404, 500] {
            let (request, mut scan) = (request(), silent());
            let call = Call {
                status: Some(status),
                ..call(chat, &request)
            };
            Calibration::default().complete(&mut scan, &call);
            assert_eq!(scan.usage_source, UsageSource::Absent, "{status}");
        }
    }

    #[test]
    fn reasoning_is_estimated_where_it_was_relayed_and_named_where_it_may_hide() {
        let mut scan = cut(400, Usage::new(), None);
        scan.relayed.thought_bytes = 800;
        let (usage, basis) = completed(Api::OpenAiChat, &scan);
        assert_eq!(usage, tokens(12, 102).with(Bucket::Reasoning, 200));
        assert_eq!(basis, "relayed_text+request_bytes");
        scan.relayed.hides_reasoning = true;
        let (_, basis) = completed(Api::OpenAiChat, &scan);
        assert_eq!(basis, "relayed_text+request_bytes+unseen_reasoning");

        let asking = RequestFacts {
            asks_reasoning: true,
            ..request()
        };
        let mut scan = cut(400, Usage::new(), None);
        Calibration::default().complete(&mut scan, &call(Api::OpenAiChat, &asking));
        assert!(scan.estimate_basis.unwrap().unseen_reasoning);

        let mut calibration = Calibration::default();
        let mut whole = cut(400, tokens(10, 100).with(Bucket::Reasoning, 64), Some(400));
        whole.complete = Some(true);
        let request = request();
        calibration.learn(&whole, &call(Api::OpenAiChat, &request));
        let mut scan = cut(400, Usage::new(), None);
        calibration.complete(&mut scan, &call(Api::OpenAiChat, &request));
        assert!(scan.estimate_basis.unwrap().unseen_reasoning);
        assert_eq!(scan.usage.get(Bucket::Reasoning), None);
    }

    #[test]
    fn bodies_that_were_not_decoded_are_estimated_by_their_size() {
        let mut scan = cut(0, Usage::new(), None);
        scan.relayed.is_undecoded = true;
        scan.relayed.body_bytes = 3000;
        let (usage, basis) = completed(Api::OpenAiChat, &scan);
        assert_eq!(
            (usage, basis.as_str()),
            (tokens(12, 100), "body_bytes+request_bytes")
        );
    }

    #[test]
    fn vectors_have_no_output() {
        let mut scan = cut(0, Usage::new(), None);
        scan.complete = None;
        let (usage, basis) = completed(Api::OpenAiEmbeddings, &scan);
        assert_eq!((usage, basis.as_str()), (tokens(12, 0), "request_bytes"));
    }
}
