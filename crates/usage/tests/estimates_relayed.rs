//! What counts as relayed text, once each, wherever a stream is cut; and what an answer shows of
//! what it does not relay.

use tollmesh_usage::estimate::{Calibration, Call};
use tollmesh_usage::{
    Bucket, Detection, Relayed, RequestBody, RequestFacts, ResponseHead, Scan, Target,
    UsageScanner, detect,
};

const RESPONSES: (&str, &str) = ("api.openai.com", "/v1/responses");
const CHAT: (&str, &str) = ("openrouter.ai", "/api/v1/chat/completions");
const INTERACTIONS: (&str, &str) = ("generativelanguage.googleapis.com", "/v1beta/interactions");

fn target((host, path): (&str, &str)) -> Target {
    match detect(host, path, "POST") {
        Detection::Metered(target) => target,
        other => panic!("{host}{path}: {other:?}"),
    }
}

fn facts(target: &Target, body: &str) -> RequestFacts {
    let mut request = RequestBody::new(target, Some("application/json"), Default::default());
    request.push(body.as_bytes());
    request.finish();
    request.facts().clone()
}

/// The scan of events, of which the last ends as it stands here: cut, where no blank line follows.
fn scanned(place: (&str, &str), events: &[&str]) -> Scan {
    let head = ResponseHead {
        status: 200,
        headers: vec![("content-type".to_owned(), "text/event-stream".to_owned())],
    };
    let body: Vec<String> = events
        .iter()
        .map(|event| format!("data: {event}"))
        .collect();
    let request = RequestFacts::default();
    let mut scanner = UsageScanner::new(&target(place), &request, &head);
    scanner.push(body.join("\n\n").as_bytes());
    scanner.finish()
}

fn texts(relayed: &Relayed) -> (u64, u64, u64) {
    (
        relayed.answer_bytes,
        relayed.call_bytes,
        relayed.thought_bytes,
    )
}

/// The scan completed as one of a stream that was cut, by nothing but defaults.
fn estimated(place: (&str, &str), request: &str, mut scan: Scan) -> (Option<u64>, String) {
    let target = target(place);
    let request = facts(&target, request);
    let call = Call {
        api: target.api,
        request: &request,
        status: Some(200),
        has_ended: false,
    };
    Calibration::default().complete(&mut scan, &call);
    let basis = scan.estimate_basis.expect("an estimate");
    (scan.usage.get(Bucket::Output), basis.to_string())
}

#[test]
fn a_message_that_repeats_deltas_is_no_text() {
    let so_far = [
        r#"{"choices":[{"index":0,"message":{"content":"One"},"delta":{"content":"One"}}]}"#,
        r#"{"choices":[{"index":0,"message":{"content":"One two"},"delta":{"content":" two"}}]}"#,
        r#"{"choices":[{"index":0,"message":{"content":"One two"},"delta":{"content":""}}]}"#,
    ];
    let last_whole = [
        r#"{"choices":[{"index":0,"delta":{"content":"One"}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"content":" two"}}]}"#,
        r#"{"choices":[{"index":0,"message":{"content":"One two"}}]}"#,
    ];
    let delta_first = [
        r#"{"choices":[{"index":0,"delta":{"content":"One"},"message":{"content":"One"}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"content":" two"},"message":{"content":" two"}}]}"#,
    ];
    let messages_only = [
        r#"{"choices":[{"index":0,"message":{"content":"One"}}]}"#,
        r#"{"choices":[{"index":0,"message":{"content":" two"}}]}"#,
    ];
    for events in [&so_far[..], &last_whole, &delta_first, &messages_only] {
        let mut events = events.to_vec();
        // Whole, and so often that what they have in common is learnt.
        events.push("[DONE]\n\n");
        assert_eq!(
            texts(&scanned(CHAT, &events).relayed),
            (7, 0, 0),
            "{events:?}"
        );
    }
    let pieces = vec![delta_first[1]; 50];
    let relayed = scanned(CHAT, &[&pieces[..], &["[DONE]\n\n"]].concat()).relayed;
    assert_eq!(texts(&relayed), (200, 0, 0));
    let tool = r#"{"choices":[{"index":0,"message":{"tool_calls":[{"index":0,"id":"a","function":{"name":"weather","arguments":"{}"}}]},"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"weather","arguments":"{}"}}]}}]}"#;
    assert_eq!(texts(&scanned(CHAT, &[tool, ""]).relayed), (0, 9, 0));
}

const ADDED: &str = r#"{"type":"response.output_item.added","item":{"type":"function_call","name":"weather","arguments":""}}"#;
const ARGUMENTS: &str =
    r#"{"type":"response.function_call_arguments.delta","delta":"{\"city\":1}"}"#;
const DONE: &str = r#"{"type":"response.output_item.done","item":{"type":"function_call","name":"weather","arguments":"{\"city\":1}"}}"#;

#[test]
fn a_function_of_a_responses_stream_is_named_once_and_counted_when_it_begins() {
    let n_bytes = (7, "{\\\"city\\\":1}".len() as u64);
    for (events, bytes, is_between) in [
        (&[ADDED, ""][..], n_bytes.0, false),
        (&[ADDED, ARGUMENTS, ""], n_bytes.0 + n_bytes.1, false),
        (&[ADDED, ARGUMENTS, DONE, ""], n_bytes.0 + n_bytes.1, true),
        // Cut within the event that says it again, before and behind the name.
        (
            &[ADDED, ARGUMENTS, &DONE[..100]],
            n_bytes.0 + n_bytes.1,
            true,
        ),
    ] {
        let scan = scanned(RESPONSES, events);
        assert_eq!(texts(&scan.relayed), (0, bytes, 0), "{events:?}");
        assert_eq!(scan.tool_calls, Some(1), "{events:?}");
        assert_eq!(scan.relayed.is_between_parts(), is_between, "{events:?}");
    }
    let two = scanned(RESPONSES, &[ADDED, ARGUMENTS, DONE, ADDED, ""]);
    assert_eq!(two.tool_calls, Some(2));
}

#[test]
fn a_delta_that_is_cut_is_a_piece_of_the_item_at_hand() {
    let added = |kind: &str| {
        format!(r#"{{"type":"response.output_item.added","item":{{"type":"{kind}"}}}}"#)
    };
    for (kind, cut, bytes) in [
        ("reasoning", r#"{"delta":"It may be"#, (0, 0, 9)),
        ("function_call", r#"{"delta":"{}"#, (0, 2, 0)),
        ("message", r#"{"delta":"Hello"#, (5, 0, 0)),
        // Its own word goes before that.
        (
            "message",
            r#"{"type":"response.reasoning_text.delta","delta":"It may be"#,
            (0, 0, 9),
        ),
        (
            "reasoning",
            r#"{"type":"response.output_text.delta","delta":"Hello"#,
            (5, 0, 0),
        ),
    ] {
        let relayed = scanned(RESPONSES, &[&added(kind), cut]).relayed;
        assert_eq!(texts(&relayed), bytes, "{kind}: {cut}");
    }
    // A host that adds no items: what nothing says is the answer's.
    assert_eq!(
        texts(&scanned(RESPONSES, &[r#"{"delta":"Hello"#]).relayed),
        (5, 0, 0)
    );
}

#[test]
fn what_has_ended_has_all_its_overhead() {
    let request = r#"{"model":"gpt-4o","stream":true}"#;
    let call = |events: &[&str]| estimated(RESPONSES, request, scanned(RESPONSES, events)).0;
    let (open, closed) = (
        call(&[ADDED, ARGUMENTS, ""]),
        call(&[ADDED, ARGUMENTS, DONE, ""]),
    );
    assert_eq!((open, closed), (Some(12), Some(15)));
    let begun = r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"weather","#;
    let chat = estimated(CHAT, request, scanned(CHAT, &[begun]));
    assert_eq!(chat.0, Some(5), "one call, of which seven bytes are there");
}

#[test]
fn turns_between_which_a_router_runs_tools_are_named() {
    let text = r#"{"choices":[{"index":0,"delta":{"content":"One two three"}}]}"#;
    for (tools, is_named) in [
        (r#"[{"type":"openrouter:web_search"}]"#, true),
        (
            r#"[{"type":"function"},{"type":"openrouter:advisor"}]"#,
            true,
        ),
        (
            r#"[{"type":"function","function":{"name":"openrouter:web_search"}}]"#,
            false,
        ),
        ("[]", false),
        ("null", false),
        // As it was written last.
        (
            r#"[{"type":"openrouter:web_search"}],"tools":[{"type":"function"}]"#,
            false,
        ),
    ] {
        let request = format!(r#"{{"model":"gpt-4o","stream":true,"tools":{tools}}}"#);
        let (_, basis) = estimated(CHAT, &request, scanned(CHAT, &[text, ""]));
        assert_eq!(
            basis.ends_with("+unseen_turns"),
            is_named,
            "{request}: {basis}"
        );
    }
}

#[test]
fn an_answer_with_unseen_turns_teaches_nothing_about_text() {
    let target = target(CHAT);
    let text = r#"{"choices":[{"index":0,"delta":{"content":"One two three"}}]}"#;
    let end = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":900}}"#;
    let whole = scanned(CHAT, &[text, end, "[DONE]\n\n"]);
    let request = facts(&target, r#"{"tools":[{"type":"openrouter:web_search"}]}"#);
    let call = Call {
        api: target.api,
        request: &request,
        status: Some(200),
        has_ended: true,
    };
    let mut calibration = Calibration::default();
    calibration.learn(&whole, &call);
    let mut cut = scanned(CHAT, &[text, ""]);
    calibration.complete(&mut cut, &call);
    assert_eq!(cut.usage.get(Bucket::Output), Some(4));
}

#[test]
fn reasoning_that_is_relayed_encrypted_or_not_at_all_is_named() {
    let text = r#"{"choices":[{"index":0,"delta":{"content":"One two three"}}]}"#;
    let encrypted = r#"{"choices":[{"index":0,"delta":{"reasoning_details":[{"type":"reasoning.encrypted","data":"c2VjcmV0"}]}}]}"#;
    let readable = r#"{"choices":[{"index":0,"delta":{"reasoning":"Hm","reasoning_details":[{"type":"reasoning.text","text":"Hm"}]}}]}"#;
    let thought = r#"{"event_type":"step.start","index":0,"step":{"type":"thought"}}"#;
    let step = r#"{"event_type":"step.delta","index":1,"delta":{"type":"text","text":"One"}}"#;
    for (place, model, events, is_named) in [
        (CHAT, "x-ai/grok-4", &[encrypted, text, ""][..], true),
        (CHAT, "x-ai/grok-4", &[readable, text, ""], false),
        (CHAT, "x-ai/grok-4", &[text, ""], false),
        // The first gpt-5 always reasons, whether it was asked to or not.
        (CHAT, "openai/gpt-5-mini", &[text, ""], true),
        (CHAT, "openai/gpt-5.2", &[text, ""], false),
        (
            INTERACTIONS,
            "gemini-2.5-flash-lite",
            &[thought, step, ""],
            true,
        ),
        (INTERACTIONS, "gemini-2.5-flash-lite", &[step, ""], false),
    ] {
        let request = format!(r#"{{"model":"{model}","stream":true}}"#);
        let (_, basis) = estimated(place, &request, scanned(place, events));
        let is_said = basis.contains("unseen_reasoning");
        assert_eq!(is_said, is_named, "{model} {events:?}: {basis}");
    }
    let low = r#"{"model":"gemini-a","generation_config":{"thinking_level":"low"},"stream":true}"#;
    let (_, basis) = estimated(INTERACTIONS, low, scanned(INTERACTIONS, &[step, ""]));
    assert!(basis.contains("unseen_reasoning"), "{basis}");
}
