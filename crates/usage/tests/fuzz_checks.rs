//! The fuzz targets' checks on stable, with bytes that look like the ones that matter.

#[path = "../fuzz/checks/mod.rs"]
mod checks;

use proptest::prelude::*;

/// Pieces of requests and other JSON, as regular expressions.
const JSON: &[&str] = &[
    r"[\[\]{}:, \n]",
    r#""(stream(_options)?|include_usage|model|usage|n|text|items|max_tokens)":"#,
    r#""[a-z"]?""#,
    r"true|false|null|[0-9.e-]",
    r"\\|é",
];

/// Pieces of streams.
const STREAM: &[&str] = &[
    r"[\r\n]|\n\n|\r\n",
    r"data: ?|event: x|: ",
    r#"\{|\}|,|"choices":\[\]|"usage":(\{\}|null)"#,
    r"\[DONE\]|é",
];

/// Pieces of responses of every kind.
const RESPONSE: &[&str] = &[
    r"[\[\]{}:, \r\n]|\n\n|data: ?|event: ",
    r#""(usage|usageMetadata|response|message|delta|type|choices|model|error)":"#,
    r#""(input_tokens|prompt_tokens|promptTokenCount)":"#,
    r#""[a-z_.]{0,9}"|[0-9]|null|é"#,
];

fn text_of(pieces: &[&str]) -> impl Strategy<Value = String> + use<> {
    let any_piece = format!("({}){{0,50}}", pieces.join("|"));
    prop::string::string_regex(&any_piece).unwrap()
}

/// Chunk size, choice and body, of which some byte may be another.
fn input(pieces: &[&str]) -> impl Strategy<Value = Vec<u8>> + use<> {
    let damage = any::<Option<(prop::sample::Index, u8)>>();
    (text_of(pieces), 1u8..9, any::<u8>(), damage).prop_map(|(body, size, choice, damage)| {
        let mut input = [&[size, choice], body.as_bytes()].concat();
        if let Some((at, byte)) = damage.filter(|_| !body.is_empty()) {
            input[2 + at.index(body.len())] = byte;
        }
        input
    })
}

const USAGE: &str = r#"data: {"id":"c","choices":[],"usage":{"prompt_tokens":3}}"#;
const CONTENT: &str = r#"data:{"id":"c","choices":[{"delta":{"content":"Hi"}}],"usage":null}"#;

fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => Just(USAGE.to_owned()),
        3 => Just(CONTENT.to_owned()),
        5 => Just(String::new()),
        1 => Just("data: [DONE]".to_owned()),
        1 => Just("data:".to_owned()),
        1 => Just("data: {\"choices\":".to_owned()),
        1 => Just("data: [],\"usage\":{}}".to_owned()),
        1 => Just("event: e".to_owned()),
        1 => Just(": comment".to_owned()),
        1 => (2000usize..4200).prop_map(|n_bytes| "x".repeat(n_bytes)),
        1 => "[ -~é]{0,8}",
    ]
}

/// Lines with every kind of end, of which the last may be missing.
fn stream_of_lines() -> impl Strategy<Value = Vec<u8>> {
    let line_end = prop::sample::select(vec!["\n", "\r\n", "\r", "\n\n"]);
    let lines = prop::collection::vec((line(), line_end), 0..12);
    (lines, any::<u8>(), 0usize..3).prop_map(|(lines, size, n_lost)| {
        let lines = lines.iter().map(|(line, end)| format!("{line}{end}"));
        let mut stream: String = lines.collect();
        (0..n_lost).for_each(|_| _ = stream.pop());
        [&[size, 0], stream.as_bytes()].concat()
    })
}

/// Pieces of messages of live servers and clients.
const LIVE: &[&str] = &[
    r"[{}\[\],:]",
    r#""(type|response|usage|session|usageMetadata|serverContent|turnComplete|setup)":"#,
    r#""(id|model|delta|input_tokens|promptTokenCount|modelTurn|error)":"#,
    r#""response\.(created|done|create|x)"|"error"|"[a-z]"|[0-9]|true|null"#,
];

/// Frames of every kind, few of them against the RFC, some masked.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        8 => prop::sample::select(vec![0x81, 0x82, 0x01, 0x80, 0x89]),
        1 => any::<u8>(),
    ];
    let frame = (first, text_of(LIVE), any::<Option<[u8; 4]>>());
    let frames = prop::collection::vec(frame, 0..8);
    (frames, 1u8..9, any::<u8>()).prop_map(|(frames, size, choice)| {
        let mut input = vec![size, choice];
        for (first, text, key) in frames {
            let masked = if key.is_some() { 0x80 } else { 0 };
            input.extend([first, masked | 126]);
            input.extend((text.len() as u16).to_be_bytes());
            input.extend(key.into_iter().flatten());
            let keys = key.unwrap_or_default().into_iter().cycle();
            input.extend(text.bytes().zip(keys).map(|(byte, key)| byte ^ key));
        }
        input
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn live(input in frames()) {
        checks::live::check(&input);
    }

    #[test]
    fn splice(input in input(JSON)) {
        checks::splice::check(&input);
    }

    #[test]
    fn cutter(input in input(STREAM)) {
        checks::cutter::check(&input);
    }

    #[test]
    fn cutter_of_lines(input in stream_of_lines()) {
        checks::cutter::check(&input);
    }

    #[test]
    fn json(input in input(JSON)) {
        checks::json::check(&input);
    }

    #[test]
    fn scan(input in input(RESPONSE)) {
        checks::scan::check(&input);
    }
}
