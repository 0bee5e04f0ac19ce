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
            tokens(15, 102),
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
    assert_eq!(usage, tokens(15, 102).with(Bucket::Reasoning, 200));
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
