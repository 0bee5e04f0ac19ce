//! The fuzz targets' checks on stable, with bytes that look like the ones that matter.

#[path = "../fuzz/checks/mod.rs"]
mod checks;

use proptest::prelude::*;

/// Pieces of requests and other JSON, as regular expressions.
const JSON: &[&str] = &[
    r"[\[\]{}:, \n]",
    r#""(stream(_options)?|include_usage|model|usage|n|text|items|max_tokens|data_sources)":"#,
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

/// AWS's documents: Converse's, and such as are wrapped.
const DOCUMENTS: [&[&str]; 2] = [
    &[
        r#"\{"contentBlockIndex":0,"delta":\{"text":"[a-z]{0,9}"\},"p":"ab"\}"#,
        r#"\{"usage":\{"inputTokens":[0-9]{1,5},"outputTokens":7\}\}"#,
        r#"\{"stopReason":"end_turn"\}|\{"role":"assistant"\}"#,
    ],
    &[
        r#"\{"bytes":"eyJ1c2FnZSI6eyJpbnB1dF90b2tlbnMiOjV9fQ==","p":"[a-z]{0,9}"\}"#,
        r#"\{"bytes":"eyJ0eXBlIjoibWVzc2FnZV9zdG9wIn0="\}"#,
    ],
];

/// A message whose lengths are right mostly; the check puts its checksums right.
fn message(documents: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let document = prop::string::string_regex(&documents.join("|")).unwrap();
    let payload = prop_oneof![19 => document, 1 => text_of(documents)];
    let kind = prop_oneof![7 => Just("event"), 1 => Just("exception"), 2 => Just("")];
    (kind, payload, 0usize..60).prop_map(|(kind, payload, lie)| {
        let headers = match kind {
            "" => Vec::new(),
            _ => [
                b"\x0d:message-type\x07\0",
                &[kind.len() as u8][..],
                kind.as_bytes(),
            ]
            .concat(),
        };
        let n_payload = payload.len() + usize::from(lie == 7);
        let total = (16 + headers.len() + n_payload) as u32;
        let lengths = [total, headers.len() as u32, 0].map(u32::to_be_bytes);
        [lengths.concat(), headers, payload.into_bytes(), vec![0; 4]].concat()
    })
}

/// Messages of one kind, mostly such as the API that is chosen sends.
fn messages() -> impl Strategy<Value = Vec<u8>> {
    let of = |documents| prop::collection::vec(message(documents), 0..6);
    (of(DOCUMENTS[0]), of(DOCUMENTS[1]), any::<(u8, u8)>()).prop_map(
        |(plain, wrapped, (size, choice))| {
            let messages = if choice & 1 == 0 { plain } else { wrapped };
            [vec![size % 9, choice], messages.concat()].concat()
        },
    )
}

/// Bodies that decode, and any bytes after the beginning of some that do.
fn encoded() -> impl Strategy<Value = Vec<u8>> {
    let begun = prop_oneof![
        Just(b"\x1f\x8b\x08\0\0\0\0\0\0\x03".to_vec()),
        Just(b"\x28\xb5\x2f\xfd\0\x58".to_vec()),
        Just(b"\x78\x9c".to_vec()),
        Just(Vec::new()),
    ];
    let bytes = prop::collection::vec(any::<u8>(), 0..200);
    let broken = (begun, bytes, 1u8..9, any::<u8>()).prop_map(|(begun, bytes, size, choice)| {
        [vec![size, choice & 0x7F], begun, bytes].concat()
    });
    let right = (stream_of_lines(), any::<u8>()).prop_map(|(mut input, choice)| {
        input[1] = choice | 0x80;
        input
    });
    prop_oneof![broken, right]
}

/// What the parts of a form are filled with.
const FORM: &[&str] = &[
    r"\x00[\x00-\x0f]?",
    r"(--b-1(--)?)?\r?\n|Content-Disposition: form-data; name=",
    r"model|stream|true|on|yes|[a-z]{0,3}|é|[x]{400}",
];

/// A check, and what it is to be fed.
type Found = (fn(&[u8]), &'static [u8]);

/// What fuzzing has found, each cut down to what matters.
const FOUND: &[Found] = &[
    // A field without a colon is one with an empty value: these are two lines of data.
    (checks::sse::check, b"\x07\0data\ndata: [DONE]\n\n"),
    (checks::sse::check, b"\x01\0data: {\ndata\ndata: }\n\n"),
    (
        checks::scan::check,
        b"\x07\x10data: {\"choices\":[{\"text\":\"b\",\"finish_reason\":\"stop\"}]}\n\n\
          data: {\"choices\":[{\"text\":\"b\",\"finish_reason\":\"stop\"}]}\n\n\
          data: {\"choices\":[{\"text\":\"b\",\"finish_reason\":\"stop\"}]}\n\n",
    ),
    (
        checks::sse::check,
        b"\x07\0data: {}\n\nevent: error\ndata: {\"message\":\"x\"}\n\n",
    ),
    // A document that is cut is no model for those after it.
    (
        checks::sse::check,
        b"\x07\0data: {\"choices\":[{\"delta\":{\"content\":\"a\"}\n\n\
          data: {\"choices\":[{\"delta\":{\"content\":\"b\"}\n\n",
    ),
    // The third event takes back what the second one said.
    (
        checks::sse::check,
        b"\x07\0data: {\"id\":\"a\",\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n\
          data: {\"id\":\"b\"}\n\n\
          data: {\"id\":\"a\",\"choices\":[{\"delta\":{\"content\":\"c\"}}]}\n\n",
    ),
];

#[test]
fn what_was_found_stays_mended() {
    for (check, input) in FOUND {
        check(input);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn sse(input in input(RESPONSE)) {
        checks::sse::check(&input);
    }

    #[test]
    fn sse_of_lines(input in stream_of_lines()) {
        checks::sse::check(&input);
    }

    #[test]
    fn eventstream(input in messages()) {
        checks::eventstream::check(&input);
    }

    #[test]
    fn decode(input in encoded()) {
        checks::decode::check(&input);
    }

    #[test]
    fn frames_are_read_as_written(input in frames()) {
        checks::frames::check(&input);
    }

    #[test]
    fn form(input in input(FORM)) {
        checks::form::check(&input);
    }

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
