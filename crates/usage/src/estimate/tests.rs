//! What is estimated, from what, and what is left alone.

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
            tokens(15, 100),
            "relayed_text+request_bytes",
        ),
        (
            "a placeholder",
            Api::AnthropicMessages,
            cut(450, tokens(2000, 1), Some(0)),
            tokens(2000, 135),
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
            tokens(30, 134),
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
fn a_count_that_cannot_be_read_is_missing_and_not_nothing() {
    let told = |bucket| Usage::new().with(bucket, 90);
    let both = "partial_report+relayed_text";
    for (name, api, usage, trouble, want, basis) in [
        (
            "the input",
            Api::OpenAiChat,
            told(Bucket::Output),
            Trouble::BadCount,
            tokens(15, 90),
            "partial_report+request_bytes",
        ),
        (
            "the output",
            Api::OpenAiChat,
            told(Bucket::Input),
            Trouble::BadCount,
            tokens(90, 100),
            both,
        ),
        (
            "a part",
            Api::OpenAiChat,
            tokens(1, 2),
            Trouble::BadCount,
            tokens(1, 2),
            "",
        ),
        (
            "the output of vectors",
            Api::OpenAiEmbeddings,
            told(Bucket::Input),
            Trouble::BadCount,
            told(Bucket::Input),
            "",
        ),
        (
            "nothing that was told",
            Api::OpenAiChat,
            told(Bucket::Output),
            Trouble::Malformed,
            told(Bucket::Output),
            "",
        ),
    ] {
        let scan = Scan {
            complete: Some(true),
            trouble: Some(trouble),
            ..cut(400, usage, Some(400))
        };
        let (got, got_basis) = completed(api, &scan);
        assert_eq!((&got, got_basis.as_str()), (&want, basis), "{name}");
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
    for (status, body_bytes, usage_source) in [
        (204, 0, UsageSource::Absent),
        (205, 0, UsageSource::Absent),
        (204, 9, UsageSource::Estimated),
        (200, 0, UsageSource::Estimated),
    ] {
        let (request, mut scan) = (request(), cut(0, Usage::new(), None));
        scan.complete = None;
        scan.relayed.body_bytes = body_bytes;
        let call = Call {
            status: Some(status),
            ..call(chat, &request)
        };
        Calibration::default().complete(&mut scan, &call);
        assert_eq!(scan.usage_source, usage_source, "{status} {body_bytes}");
    }
}

#[test]
fn reasoning_is_estimated_where_it_was_relayed_and_named_where_it_may_hide() {
    let mut scan = cut(400, Usage::new(), None);
    scan.relayed.thought_bytes = 800;
    let (usage, basis) = completed(Api::OpenAiChat, &scan);
    assert_eq!(usage, tokens(15, 100).with(Bucket::Reasoning, 200));
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
    scan.relayed.body_bytes = 700;
    let (usage, basis) = completed(Api::OpenAiChat, &scan);
    assert_eq!(
        (usage, basis.as_str()),
        (tokens(15, 100), "body_bytes+request_bytes")
    );
}

#[test]
fn vectors_have_no_output() {
    let mut scan = cut(0, Usage::new(), None);
    scan.complete = None;
    let (usage, basis) = completed(Api::OpenAiEmbeddings, &scan);
    assert_eq!((usage, basis.as_str()), (tokens(15, 0), "request_bytes"));
}

/// One half of a recorded stream: what had been relayed of it, and its share of the tokens that
/// the provider reported in the end, by the bytes of text.
struct Half {
    api: Api,
    model: &'static str,
    answer_bytes: u64,
    call_bytes: u64,
    n_pieces: u64,
    n_calls: u32,
    n_tokens: u64,
}

/// The first of each API and family of models among the streams that `defaults.rs` was not fitted
/// on, cut at 55 hundredths of their bytes.
#[rustfmt::skip]
const HALVES: [Half; 17] = [
    half(Api::BedrockInvokeStream, "anthropic.claude-3-sonnet", 50, 0, 10, 0, 13),
    half(Api::OpenAiChat, "anthropic/claude-haiku-4.5", 65, 0, 7, 0, 19),
    half(Api::OpenAiChat, "llama-3.3-70b-versatile", 0, 200, 1, 1, 66),
    half(Api::AnthropicMessages, "claude-3-5-sonnet-20240620", 175, 20, 13, 1, 102),
    half(Api::OpenAiResponses, "gpt-4.1", 552, 0, 10, 0, 140),
    half(Api::BedrockConverseStream, "anthropic.claude-3-sonnet", 69, 0, 13, 0, 36),
    half(Api::OpenAiChat, "google/gemini-3-pro-preview", 63, 0, 2, 0, 14),
    half(Api::BedrockInvokeStream, "amazon.titan-text-lite-v1", 43, 0, 0, 0, 10),
    half(Api::GeminiStreamGenerate, "gemini-2.0-flash-001", 0, 60, 0, 1, 7),
    half(Api::OpenAiChat, "deepseek-chat", 47, 0, 11, 0, 13),
    half(Api::CohereChat, "command", 157, 0, 45, 0, 50),
    half(Api::OpenAiChat, "moonshotai/kimi-k2-instruct-0905", 41, 0, 8, 0, 15),
    half(Api::OllamaChat, "llama3", 157, 0, 35, 0, 39),
    half(Api::OllamaGenerate, "llama3", 154, 0, 34, 0, 36),
    half(Api::OpenAiCompletions, "babbage-002", 33, 0, 14, 0, 13),
    half(Api::OpenAiResponses, "o4-mini", 45, 0, 8, 0, 14),
    half(Api::OllamaChat, "qwen3:4b", 397, 0, 106, 0, 108),
];

const fn half(
    api: Api,
    model: &'static str,
    answer_bytes: u64,
    call_bytes: u64,
    n_pieces: u64,
    n_calls: u32,
    n_tokens: u64,
) -> Half {
    Half {
        api,
        model,
        answer_bytes,
        call_bytes,
        n_pieces,
        n_calls,
        n_tokens,
    }
}

impl Half {
    fn estimated(&self) -> u64 {
        let mut scan = cut(self.answer_bytes, Usage::new(), None);
        scan.relayed.call_bytes = self.call_bytes;
        scan.relayed.n_spoken_pieces = self.n_pieces;
        scan.tool_calls = Some(self.n_calls);
        scan.model = Some(self.model.to_owned());
        let (usage, _) = completed(self.api, &scan);
        usage.get(Bucket::Output).unwrap()
    }
}

#[test]
fn halves_of_answers_are_estimated_close_without_any_calibration() {
    let mut percents = Vec::new();
    for half in &HALVES {
        let (estimated, told) = (half.estimated(), half.n_tokens);
        let (low, high) = (estimated.min(told), estimated.max(told));
        assert!(high <= 2 * low, "{}: {estimated} for {told}", half.model);
        percents.push((high - low) * 100 / told);
    }
    percents.sort_unstable();
    assert!(percents[percents.len() / 2] <= 15, "{percents:?}");
}

#[test]
fn short_pieces_are_tokens_and_long_ones_are_not() {
    let estimated = |api: Api, model: &str, answer_bytes: u64, n_pieces: u64| {
        let mut scan = cut(answer_bytes, Usage::new(), None);
        scan.relayed.n_spoken_pieces = n_pieces;
        scan.model = Some(model.to_owned());
        completed(api, &scan).0.get(Bucket::Output).unwrap()
    };
    let chat = Api::OpenAiChat;
    for (name, api, model, n_bytes, n_pieces, n_tokens) in [
        ("a token each", chat, "gpt-4o", 540, 100, 100),
        ("long words", chat, "gpt-4o", 800, 100, 100),
        ("dense text", chat, "gpt-4o", 100, 100, 100),
        ("several tokens each", chat, "gpt-4o", 800, 40, 200),
        ("too few to tell", chat, "gpt-4o", 24, 3, 6),
        ("Claude", chat, "anthropic/claude-4", 760, 100, 226),
        ("Claude's bytes", Api::AnthropicMessages, "", 760, 10, 226),
        ("Gemini", Api::GeminiStreamGenerate, "", 460, 60, 100),
    ] {
        let got = estimated(api, model, n_bytes, n_pieces);
        assert_eq!(got, n_tokens, "{name}");
    }
}

#[test]
fn a_call_that_was_cut_has_its_share_of_the_overhead() {
    let estimated = |call_bytes: u64, n_calls: u32, is_whole: bool| {
        let mut scan = cut(0, Usage::new(), None);
        scan.relayed.call_bytes = call_bytes;
        scan.tool_calls = Some(n_calls);
        scan.complete = Some(is_whole);
        completed(Api::OpenAiChat, &scan).0.get(Bucket::Output)
    };
    for (n_bytes, n_calls, is_whole, n_tokens) in [
        (15, 1, false, 4 + 5),
        (20, 1, true, 5 + 10),
        (40, 1, false, 10 + 10),
        (400, 1, false, 100 + 10),
        (80, 2, false, 20 + 20),
        // The first is whole, the second taken to be half.
        (30, 2, false, 8 + 10 + 5),
    ] {
        let got = estimated(n_bytes, n_calls, is_whole);
        assert_eq!(got, Some(n_tokens), "{n_bytes} bytes of {n_calls}");
    }
}

#[test]
fn rounds_that_the_provider_ran_itself_are_not_lost() {
    // Gemini's code execution: the first round's report, then one that takes it back.
    let mut scan = cut(18, Usage::new().with(Bucket::Input, 20), Some(14));
    scan.relayed.call_bytes = 14;
    let (usage, _) = completed(Api::GeminiStreamGenerate, &scan);
    assert_eq!(usage.get(Bucket::Output), Some(19));
    // The second round's report does not contain the first.
    let mut scan = cut(18, tokens(20, 9), Some(32));
    scan.relayed.call_bytes = 14;
    let (usage, basis) = completed(Api::GeminiStreamGenerate, &scan);
    assert_eq!(usage.get(Bucket::Output), Some(19));
    assert_eq!(basis, "partial_report");
}

#[test]
fn summaries_of_thoughts_are_no_measure_of_them() {
    let mut scan = cut(400, Usage::new(), None);
    scan.relayed.thought_bytes = 460;
    scan.model = Some("google/gemini-2.5-flash".to_owned());
    let (usage, basis) = completed(Api::OpenAiChat, &scan);
    assert_eq!(usage.get(Bucket::Reasoning), Some(100));
    assert_eq!(basis, "relayed_text+request_bytes+unseen_reasoning");

    let request = request();
    let mut calibration = Calibration::default();
    let mut whole = scan;
    whole.usage = tokens(15, 5000);
    whole.usage_source = UsageSource::Reported;
    whole.complete = Some(true);
    calibration.learn(&whole, &call(Api::OpenAiChat, &request));
    assert_eq!(calibration.output, Ratio::default());
}
