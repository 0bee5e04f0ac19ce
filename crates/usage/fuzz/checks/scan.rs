//! Responses: the usage that is read does not depend on chunks, whatever the bytes are.

use tollmesh_usage::estimate::{Calibration, Call};
use tollmesh_usage::{
    Api, Detection, RequestFacts, ResponseHead, Scan, Target, Usage, UsageScanner, UsageSource,
    detect,
};

use super::Input;

const CALLS: [(&str, &str); 5] = [
    ("api.openai.com", "/v1/chat/completions"),
    ("api.openai.com", "/v1/responses"),
    ("api.anthropic.com", "/v1/messages"),
    (
        "generativelanguage.googleapis.com",
        "/v1beta/models/gemini-2.5-pro:generateContent",
    ),
    (
        "generativelanguage.googleapis.com",
        "/v1beta/models/gemini-2.5-pro:streamGenerateContent",
    ),
];

const CONTENT_TYPES: [&str; 4] = [
    "application/json",
    "text/event-stream",
    "application/x-ndjson",
    "application/vnd.amazon.eventstream",
];

/// Checks one input.
pub fn check(input: &[u8]) {
    let Some(input) = Input::new(input) else {
        return;
    };
    let choice = usize::from(input.choice);
    let content_type = CONTENT_TYPES[choice / CALLS.len() % CONTENT_TYPES.len()];
    let (host, path) = CALLS[choice % CALLS.len()];
    let Detection::Metered(target) = detect(host, path, "POST") else {
        panic!("{host}{path} is not metered");
    };
    let whole = scan(&target, content_type, [input.body].into_iter());
    assert_eq!(scan(&target, content_type, input.chunks()), whole);
    estimate(&target, whole.1);
}

/// Whatever was read can be learnt from and completed, and no estimate is absurd.
fn estimate(target: &Target, whole: Scan) {
    let request = RequestFacts {
        body_bytes: whole.relayed.body_bytes,
        ..RequestFacts::default()
    };
    let call = Call {
        api: target.api,
        request: &request,
        status: Some(200),
        has_ended: false,
    };
    let mut calibration = Calibration::default();
    calibration.learn(&whole, &call);
    let mut silent = Scan {
        usage: Usage::new(),
        usage_source: UsageSource::Absent,
        complete: Some(false),
        billable: true,
        ..whole
    };
    calibration.complete(&mut silent, &call);
    for (bucket, n_tokens) in silent.usage.tokens() {
        let name = bucket.name();
        assert!(n_tokens <= 4_000_000, "{n_tokens} tokens of {name}");
    }
}

fn scan<'a>(
    target: &Target,
    content_type: &str,
    chunks: impl Iterator<Item = &'a [u8]>,
) -> (bool, Scan) {
    let request = RequestFacts {
        streams: target.api == Api::GeminiStreamGenerate,
        ..RequestFacts::default()
    };
    let head = ResponseHead {
        status: 200,
        headers: vec![("content-type".to_owned(), content_type.to_owned())],
    };
    let mut scanner = UsageScanner::new(target, &request, &head);
    chunks.for_each(|chunk| scanner.push(chunk));
    (scanner.has_content(), scanner.finish())
}
