//! Tables of cutting, and that chunks never show; `fuzz/checks` compares with a slower reading.

use proptest::prelude::*;

use super::*;
use crate::{Api, RequestFacts, ResponseHead, Target, UsageScanner};

const USAGE: &str = r#"{"id":"c","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5}}"#;
const CONTENT: &str = r#"{"id":"c","choices":[{"index":0,"delta":{"content":"Hi"}}],"usage":null}"#;

/// Pushes the chunks and asserts what is promised of memory and of delay, and that it makes no
/// difference to be told what need not be looked at.
fn relay(chunks: &[&[u8]], ends_apart: bool) -> Vec<u8> {
    let mut cutter = EventCutter::new();
    let mut told = EventCutter::new();
    let mut scanner = scanner();
    let mut sent = Vec::new();
    for (i, chunk) in chunks.iter().enumerate() {
        let is_last = i + 1 == chunks.len() && !ends_apart;
        let n_held = cutter.held.len();
        let body = cutter.push(chunk, is_last);
        let room = body.as_ref().map_or(0, Vec::capacity);
        assert!(
            room <= n_held + chunk.len(),
            "{room} bytes for what is sent"
        );
        scanner.push(chunk);
        let plain = scanner.plain_events();
        assert_eq!(told.push_past(chunk, plain, is_last), body);
        sent.extend(body.unwrap_or(chunk.to_vec()));
        assert!(cutter.held.len() <= EventCutter::HELD_BYTES_MAX);
        assert!(cutter.stage == Stage::Event || cutter.held.is_empty());
    }
    if ends_apart {
        sent.extend(cutter.push(b"", true).unwrap_or_default());
    }
    assert!(cutter.held.is_empty());
    sent
}

fn scanner() -> UsageScanner {
    let target = Target::new(Api::OpenAiChat, "openai");
    let head = ResponseHead {
        status: 200,
        headers: vec![("content-type".into(), "text/event-stream".into())],
    };
    UsageScanner::new(&target, &RequestFacts::default(), &head)
}

fn relay_any_way(stream: &str) -> String {
    let stream = stream.as_bytes();
    let whole = relay(&[stream], false);
    for cut in 0..=stream.len() {
        let (head, tail) = stream.split_at(cut);
        assert_eq!(relay(&[head, tail], true), whole, "cut at {cut}");
    }
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(relay(&bytes, true), whole, "byte by byte");
    String::from_utf8(whole).unwrap()
}

#[test]
fn the_usage_event_is_cut_with_any_line_ends() {
    for end in ["\n", "\r\n", "\r"] {
        let event = |data: &str| format!("data: {data}{end}{end}");
        let stream = [event(CONTENT), event(USAGE), event("[DONE]")].concat();
        let expected = [event(CONTENT), event("[DONE]")].concat();
        assert_eq!(relay_any_way(&stream), expected);
    }
}

#[test]
fn what_is_cut_and_what_is_not() {
    let long = "x".repeat(EventCutter::HELD_BYTES_MAX);
    let c = CONTENT;
    let u = USAGE;
    for (stream, sent) in [
        // Other fields and other spellings of the same event.
        (format!("data:{u}\n\n"), String::new()),
        (format!("event: x\nid: 7\ndata: {u}\n\n"), String::new()),
        (
            "data: {\"choices\" :\ndata: [ ] ,\ndata: \"usage\":{}}\n\nx".into(),
            "x".into(),
        ),
        (format!("data: {u}\n\ndata: {u}\n\n"), String::new()),
        (
            "data: {\"usage\":null,\"usage\":{},\"choices\":[{}],\"choices\":[]}\n\n".into(),
            String::new(),
        ),
        (
            "data: {\"choices\":[\ndata: ],\"usage\":{}}\n\n".into(),
            String::new(),
        ),
        // A comment is no part of the event, and a byte order mark none of the line.
        (
            format!(": ping\n\ndata: {u}\n\n: pong\n"),
            ": ping\n\n: pong\n".into(),
        ),
        (format!(": ping\ndata: {u}\n\n"), ": ping\n".into()),
        (format!("\u{feff}data: {u}\n\n"), "\u{feff}".into()),
        (format!("\n\n\ndata: {u}\n\n\n"), "\n\n\n\n".into()),
        // A stream that ends without the last line ends.
        (
            format!("data: {c}\n\ndata: {u}\n"),
            format!("data: {c}\n\n"),
        ),
        (format!("data: {c}\n\ndata: {u}"), format!("data: {c}\n\n")),
    ] {
        assert_eq!(relay_any_way(&stream), sent, "{stream}");
    }
    for stream in [
        String::new(),
        format!("data: {c}\n\ndata: [DONE]\n\n"),
        // Usage with the last content, no usage, no choices, an error.
        "data: {\"choices\":[{\"finish_reason\":\"stop\"}],\"usage\":{\"n\":1}}\n\n".into(),
        "data: {\"choices\":[],\"usage\":null}\n\n".into(),
        "data: {\"choices\":[],\"prompt_filter_results\":[]}\n\n".into(),
        "data: {\"usage\":{\"n\":1}}\n\n".into(),
        "data: {\"choices\":null,\"usage\":{\"n\":1}}\n\n".into(),
        "data: {\"choices\":[],\"usage\":[]}\n\n".into(),
        "data: {\"choices\":[],\"usage\":{},\"error\":{\"code\":500}}\n\n".into(),
        // Look-alikes: in strings, nested, twice, cut, not data, not one document.
        "data: {\"choices\":[{\"delta\":\"\\\"choices\\\":[],\\\"usage\\\":{}\"}]}\n\n".into(),
        "data: {\"x\":{\"choices\":[],\"usage\":{}}}\n\n".into(),
        "data: {\"x\":{\"choices\":[]},\"choices\":[{}],\"usage\":{}}\n\n".into(),
        "data: {\"choices\":[],\"choices\":[{}],\"usage\":{}}\n\n".into(),
        "data: [{\"choices\":[],\"usage\":{}}]\n\n".into(),
        "data: {\"choices\":[],\"usage\":{}\n\n".into(),
        "data: {\"choices\":[],\"usage\":{}} {}\n\n".into(),
        "data: {\"choices\":[],\"usage\":{}}\ndata: [DONE]\n\n".into(),
        "data: {\"choices\":[],\"usage\":{n}}\n\n".into(),
        "Data: {\"choices\":[],\"usage\":{}}\n\n".into(),
        " data: {\"choices\":[],\"usage\":{}}\n\n".into(),
        format!(": {u}\n\n"),
        format!("\u{feff}\u{feff}data: {u}\n\n"),
        format!("{u}\n\n"),
        format!("event: {long}\ndata: {u}\n\n"),
        // Behind the end everything passes.
        format!("data: [DONE]\n\ndata: {u}\n\n"),
        format!("data:[DONE] \ndata: {u}\n\n"),
        format!("event: x\r\ndata: [DONE]\r\n\r\ndata: {u}\r\n\r\n"),
        "\u{feff}\n: \r\r\n data".into(),
        "{\"error\":{\"message\":\"no stream\"}}".into(),
    ] {
        assert_eq!(relay_any_way(&stream), stream);
    }
}

#[test]
fn the_longest_event_that_is_cut_has_4096_bytes() {
    let padded = |n_bytes: usize| {
        let shell = r#"data: {"choices":[],"usage":{"x":""}}"#.len() + 2;
        let x = "x".repeat(n_bytes - shell);
        format!("data: {{\"choices\":[],\"usage\":{{\"x\":\"{x}\"}}}}\n\n")
    };
    assert_eq!(relay_any_way(&padded(4096)), "");
    assert_eq!(relay_any_way(&padded(4097)), padded(4097));
    // An end mark that lies further behind is not seen either.
    for (n_bytes, is_seen) in [(4096, true), (4097, false)] {
        let line = "event: ".to_owned() + &"x".repeat(n_bytes - "event: \ndata: [DONE]".len());
        let end = format!("{line}\ndata: [DONE]\n\n");
        let behind = format!("data: {USAGE}\n\n");
        let left = if is_seen { behind.as_str() } else { "" };
        assert_eq!(
            relay_any_way(&format!("{end}{behind}")),
            format!("{end}{left}")
        );
    }
}

#[test]
fn only_what_may_be_the_event_is_held() {
    let mut cutter = EventCutter::new();
    let event = format!("data: {CONTENT}\n\n");
    for chunk in [
        event.as_str(),
        ": ping",
        "\n\n",
        "data: hel",
        "lo\n\n",
        &event.repeat(50),
    ] {
        assert_eq!(cutter.push(chunk.as_bytes(), false), None, "{chunk}");
    }
    assert_eq!(cutter.push(b"data: {\"choices\":[", false), Some(vec![]));
    let rest = "]}\n\ndata: {\"ch";
    let sent = b"data: {\"choices\":[]}\n\n".to_vec();
    assert_eq!(cutter.push(rest.as_bytes(), false), Some(sent));
    // A host that closes late must not keep the app waiting for the end.
    assert_eq!(
        cutter.push(b"\n\n", false),
        Some(b"data: {\"ch\n\n".to_vec())
    );
    assert_eq!(cutter.push(b"data: [DO", false), Some(vec![]));
    let sent = b"data: [DONE]".to_vec();
    assert_eq!(cutter.push(b"NE]", false), Some(sent));
    assert_eq!(cutter.push(b"\n\ndata: {", false), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_bytes_are_survived_alike(
        stream in "([\r\n:,}é]|data: ?|\\{|\"choices\":\\[\\]|\"usage\":\\{\\}|\\[DONE\\]){0,40}",
        size in 1usize..7,
    ) {
        let chunks: Vec<&[u8]> = stream.as_bytes().chunks(size).collect();
        prop_assert_eq!(relay(&chunks, true), relay(&[stream.as_bytes()], false));
    }
}

#[test]
fn what_says_nothing_but_text_is_not_looked_at() {
    for end in ["\n", "\r\n"] {
        let event = |text: &str| format!("data: {}{end}{end}", CONTENT.replace("Hi", text));
        let texts = ["a", "b b", "", "\\\"choices\\\":[]", "c"]
            .map(event)
            .concat();
        let usage = format!("data: {USAGE}{end}{end}");
        let stream = [texts.as_str(), &usage, &texts, &usage].concat();
        assert_eq!(relay_any_way(&stream), texts.repeat(2));
        let mut scanner = scanner();
        scanner.push(stream.as_bytes());
        assert_eq!(scanner.plain_events().is_empty(), end == "\r\n");
    }
}
