//! Tables and properties of cutting: a slow reading of the whole stream decides what must be left.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

const USAGE: &str = r#"{"id":"c","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5}}"#;
const CONTENT: &str = r#"{"id":"c","choices":[{"index":0,"delta":{"content":"Hi"}}],"usage":null}"#;

/// Pushes the chunks and asserts what is promised of memory and of delay.
fn relay(chunks: &[&[u8]], ends_apart: bool) -> Vec<u8> {
    let mut cutter = EventCutter::new();
    let mut sent = Vec::new();
    for (i, chunk) in chunks.iter().enumerate() {
        let is_last = i + 1 == chunks.len() && !ends_apart;
        sent.extend(cutter.push(chunk, is_last).unwrap_or(chunk.to_vec()));
        assert!(cutter.held.len() <= EventCutter::HELD_BYTES_MAX);
        assert!(cutter.stage == Stage::Event || cutter.held.is_empty());
    }
    if ends_apart {
        sent.extend(cutter.push(b"", true).unwrap_or_default());
    }
    assert!(cutter.held.is_empty());
    sent
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
    assert_eq!(cutter.push(b"data: [DONE]\n", false), None);
    assert_eq!(cutter.push(b"data: {", false), None);
}

/// What must be left of the stream, read as a whole, line by line.
fn reference(stream: &[u8]) -> Vec<u8> {
    let mut sent = Vec::new();
    let mut event: Vec<&[u8]> = Vec::new();
    let mut rest = stream;
    while !rest.is_empty() {
        let text = rest
            .iter()
            .position(|b| b"\r\n".contains(b))
            .unwrap_or(rest.len());
        let n_end = if rest[text..].starts_with(b"\r\n") {
            2
        } else {
            1.min(rest.len() - text)
        };
        let (line, behind) = rest.split_at(text + n_end);
        if event.is_empty() && (text == 0 || line[0] == b':') {
            sent.extend(line);
        } else {
            event.push(line);
            let is_first_data = data_of(&event) == data_of(&[line]);
            if is_first_data && data_of(&[line]).trim_ascii() == b"[DONE]" && n_end > 0 {
                break;
            }
            if text == 0 || behind.is_empty() {
                if !is_to_be_cut(&event) {
                    sent.extend(event.concat());
                }
                event.clear();
            }
        }
        rest = behind;
    }
    if !event.is_empty() {
        event.pop();
        sent.extend(event.concat());
        sent.extend(rest);
    }
    sent
}

fn data_of(event: &[&[u8]]) -> Vec<u8> {
    let data = event.iter().filter_map(|line| line.strip_prefix(b"data:"));
    let data: Vec<&[u8]> = data.filter(|d| !d.trim_ascii().is_empty()).collect();
    data.join(&b'\n')
}

fn is_to_be_cut(event: &[&[u8]]) -> bool {
    let n_bytes = event.concat().len() - usize::from(event.last() == Some(&&b"\r\n"[..]));
    let Ok(data) = serde_json::from_slice::<Value>(&data_of(event)) else {
        return false;
    };
    let has_no_choice = data["choices"].as_array().is_some_and(Vec::is_empty);
    n_bytes <= 4096 && has_no_choice && data["usage"].is_object() && data["error"].is_null()
}

fn line_end() -> impl Strategy<Value = &'static str> {
    prop_oneof![3 => Just("\n"), 2 => Just("\r\n"), 1 => Just("\r")]
}

fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => Just(format!("data: {USAGE}")),
        3 => Just(format!("data:{CONTENT}")),
        5 => Just(String::new()),
        1 => Just("data: [DONE]".to_owned()),
        1 => Just("data:".to_owned()),
        1 => Just("data: {\"choices\":".to_owned()),
        1 => Just("data: [],\"usage\":{}}".to_owned()),
        1 => Just("event: e".to_owned()),
        1 => Just(": comment".to_owned()),
        1 => Just(format!("x{}", "y".repeat(4000))),
        1 => "[ -~é]{0,8}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_stream_in_any_chunks_is_cut_as_the_reference_cuts_it(
        lines in prop::collection::vec((line(), line_end()), 0..10),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ends_apart: bool, n_lost in 0usize..3,
    ) {
        let mut stream: String = lines.iter().map(|(line, end)| format!("{line}{end}")).collect();
        (0..n_lost).for_each(|_| _ = stream.pop());
        let stream = stream.as_bytes();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let chunks: Vec<&[u8]> = cuts.windows(2).map(|w| &stream[w[0]..w[1]]).collect();
        let sent = relay(&chunks, ends_apart);
        let expected = reference(stream);
        prop_assert_eq!(sent.escape_ascii().to_string(), expected.escape_ascii().to_string());
    }

    #[test]
    fn any_bytes_are_survived_alike(
        stream in "([\r\n:,}é]|data: ?|\\{|\"choices\":\\[\\]|\"usage\":\\{\\}|\\[DONE\\]){0,40}",
        size in 1usize..7,
    ) {
        let chunks: Vec<&[u8]> = stream.as_bytes().chunks(size).collect();
        prop_assert_eq!(relay(&chunks, true), relay(&[stream.as_bytes()], false));
    }
}
