//! Bytes that mean harm: no panic, no dependence on cuts, no memory in proportion to the body.

#![allow(unsafe_code)] // a counting allocator is the only way to see what a scan keeps

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use tollmesh_usage::{
    Api, LiveScanner, RequestFacts, ResponseHead, Scan, Target, Trouble, UsageScanner,
};

/// What a stream may keep beside the idle scanner's own size, in bytes.
const IDENTITY_BYTES_MAX: usize = 16 << 10;
const GZIP_BYTES_MAX: usize = 64 << 10;

/// Counts what each thread holds, so that tests running beside each other do not meet.
struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged; counting touches only cells.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.get() + layout.size();
        HELD.set(held);
        PEAK.set(PEAK.get().max(held));
        // SAFETY: the caller keeps `GlobalAlloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.set(HELD.get().saturating_sub(layout.size()));
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn head(content_type: &str, encoding: &str) -> ResponseHead {
    ResponseHead {
        status: 200,
        headers: vec![
            ("content-type".to_owned(), content_type.to_owned()),
            ("content-encoding".to_owned(), encoding.to_owned()),
        ],
    }
}

fn scan(api: Api, head: &ResponseHead, pieces: &[&[u8]]) -> Scan {
    let target = Target::new(api, "provider");
    let mut scanner = UsageScanner::new(&target, &RequestFacts::default(), head);
    pieces.iter().for_each(|piece| scanner.push(piece));
    scanner.finish()
}

/// The most bytes held while a body is scanned in network-sized chunks.
fn peak(api: Api, head: &ResponseHead, body: &[u8]) -> usize {
    let before = HELD.get();
    PEAK.set(before);
    let target = Target::new(api, "provider");
    let mut scanner = UsageScanner::new(&target, &RequestFacts::default(), head);
    body.chunks(16 << 10).for_each(|piece| scanner.push(piece));
    let peak = PEAK.get() - before + size_of::<UsageScanner>();
    drop(scanner);
    peak
}

fn pieces<'a>(body: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|c| c.index(body.len() + 1)).collect();
    cuts.extend([0, body.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|w| &body[w[0]..w[1]]).collect()
}

/// Fragments of real bodies in any order, with noise between.
fn fragments() -> impl Strategy<Value = Vec<u8>> {
    let fragment = prop::sample::select(vec![
        "data: ",
        "data:",
        "\n",
        "\n\n",
        "\r\n\r\n",
        "\r",
        "event: x\n",
        "error: x\n",
        ": c\n",
        "[DONE]",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        "\\u12",
        "null",
        "12",
        "-1",
        "1e400",
        "\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}",
        "\"usage\":\"x\"",
        "\"usage\":",
        "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"}}]",
        "\"finish_reason\":\"stop\"",
        "data: {\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"}}]}\n\n",
        "data: {\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\"}}]}\n\n",
        "data: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"a\"}}\n\n",
        "data: {\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"c\"}]}}\n\n",
        "{\"usageMetadata\":{\"promptTokenCount\":1}}",
        "\"iterations\":[{\"type\":\"x\"}]",
        "\"type\":\"message_stop\"",
        "\"response\":{\"status\":\"completed\"}",
        "\u{feff}",
        "é",
    ]);
    let piece = prop_oneof![
        8 => fragment.prop_map(|f| f.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_bytes_in_any_chunks_for_every_api(
        body in prop_oneof![fragments(), prop::collection::vec(any::<u8>(), 0..300)],
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        api in prop::sample::select(Api::ALL),
        kind in prop::sample::select(vec!["text/event-stream", "application/json", "", "x/y"]),
    ) {
        let head = head(kind, "");
        let whole = scan(api, &head, &[&body]);
        prop_assert_eq!(&scan(api, &head, &pieces(&body, &cuts)), &whole);
        let bytes: Vec<&[u8]> = body.chunks(1).collect();
        prop_assert_eq!(&scan(api, &head, &bytes), &whole);
    }

    #[test]
    fn any_bytes_in_any_encoding(
        body in prop::collection::vec(any::<u8>(), 0..300),
        encoding in prop::sample::select(vec!["gzip", "deflate", "br", "zstd", "a, b"]),
    ) {
        scan(Api::OpenAiChat, &head("application/json", encoding), &[&body]);
        let gzip = [b"\x1f\x8b\x08\0\0\0\0\0\0\x03".as_slice(), &body].concat();
        scan(Api::OpenAiChat, &head("application/json", encoding), &[&gzip]);
    }
}

/// Eight mebibytes of everything that could be kept.
fn large_bodies() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let long = "x".repeat(8 << 20);
    let event = |body: &str| format!("data: {body}\n\n");
    let many = |text: &str| text.repeat((8 << 20) / text.len());
    let calls = (0..50_000)
        .map(|i| {
            event(&format!(
                r#"{{"choices":[{{"delta":{{"tool_calls":[{{"index":{i},"id":"c{i}"}}]}}}}]}}"#
            ))
        })
        .collect::<String>();
    let iteration = r#"{"type":"other","model":"m","input_tokens":1},"#;
    vec![
        (
            "json",
            "one string",
            format!(r#"{{"choices":[{{"message":{{"content":"{long}"}}}}]}}"#),
        ),
        ("json", "a long model", format!(r#"{{"model":"{long}"}}"#)),
        ("json", "a long key", format!(r#"{{"{long}":1}}"#)),
        (
            "json",
            "a long number",
            format!(r#"{{"usage":{{"prompt_tokens":{}}}}}"#, many("1")),
        ),
        ("json", "depth", many("[")),
        ("json", "wanted depth", many(r#"{"choices":[{"message":"#)),
        (
            "json",
            "iterations",
            format!(r#"{{"usage":{{"iterations":[{}"#, many(iteration)),
        ),
        (
            "event-stream",
            "one event",
            event(&format!(r#"{{"delta":{{"content":"{long}"}}}}"#)),
        ),
        ("event-stream", "a long name", long.clone()),
        ("event-stream", "data lines", many("data:\n")),
        (
            "event-stream",
            "events",
            many(&event(r#"{"choices":[{"delta":{"content":"a"}}]}"#)),
        ),
        ("event-stream", "tool calls", calls),
    ]
    .into_iter()
    .map(|(kind, name, body)| (kind, name, body.into_bytes()))
    .collect()
}

#[test]
fn memory_is_bounded_whatever_the_body() {
    println!("an idle scanner has {} bytes", size_of::<UsageScanner>());
    for (kind, name, body) in large_bodies() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&body).unwrap();
        let gzip = gzip.finish().unwrap();
        for api in [
            Api::OpenAiChat,
            Api::OpenAiResponses,
            Api::AnthropicMessages,
            Api::GeminiGenerate,
        ] {
            let kind = format!("text/{kind}").replace("text/json", "application/json");
            let n_identity = peak(api, &head(&kind, ""), &body);
            assert!(
                n_identity <= IDENTITY_BYTES_MAX,
                "{name}: {n_identity} for {}",
                api.name()
            );
            let n_gzip = peak(api, &head(&kind, "gzip"), &gzip);
            assert!(n_gzip <= GZIP_BYTES_MAX, "{name}: {n_gzip} gzipped");
        }
    }
}

/// A text message in one unmasked frame.
fn frame(text: &str) -> Vec<u8> {
    let n_bytes = (text.len() as u64).to_be_bytes();
    [&[0x81, 127], &n_bytes[..], text.as_bytes()].concat()
}

#[test]
fn memory_is_bounded_whatever_the_connection() {
    let long = "x".repeat(5 << 20);
    let strings = [
        format!(r#"{{"type":"response.output_audio.delta","delta":"{long}"}}"#),
        format!(r#"{{"type":"{long}","response":{{"id":"{long}"}}}}"#),
        format!(r#"{{"session":{{"model":"{long}"}},"setup":{{"model":"{long}"}}}}"#),
    ];
    let id = |i: usize| format!("{i:0>256}");
    let begun = (0..2000).map(|i| {
        format!(
            r#"{{"type":"response.created","response":{{"id":"{}"}}}}"#,
            id(i)
        )
    });
    let bodies = [
        strings.iter().map(|text| frame(text)).collect::<Vec<_>>(),
        begun.map(|text| frame(&text)).collect(),
        vec![
            b"\x81\x7f\x7f\xff\xff\xff\xff\xff\xff\xff{".to_vec(),
            long.into_bytes(),
        ],
    ];
    for (i, body) in bodies.into_iter().map(|frames| frames.concat()).enumerate() {
        for api in [Api::OpenAiRealtime, Api::OpenAiResponses, Api::GeminiLive] {
            let before = HELD.get();
            PEAK.set(before);
            let mut scanner = LiveScanner::new(&Target::new(api, "provider"));
            for piece in body.chunks(16 << 10) {
                scanner.push_client(piece, 0);
                assert_eq!(scanner.push_server(piece, 0), []);
            }
            let peak = PEAK.get() - before + size_of::<LiveScanner>();
            assert!(peak <= IDENTITY_BYTES_MAX, "{i}: {peak} for {}", api.name());
        }
    }
}

#[test]
fn impossible_counts_are_trouble_and_no_counts() {
    for count in [
        "-1",
        "1.5",
        "1e400",
        "9223372036854775808",
        "9007199254740993",
        "\"12\"",
        "true",
        "{}x",
    ] {
        let body = format!(r#"{{"choices":[],"usage":{{"prompt_tokens":{count}}}}}"#);
        let scan = scan(
            Api::OpenAiChat,
            &head("application/json", ""),
            &[body.as_bytes()],
        );
        assert!(scan.usage.is_empty(), "{count}");
        assert!(matches!(
            scan.trouble,
            Some(Trouble::BadCount | Trouble::UsageMissing | Trouble::Malformed)
        ));
    }
    for (usage, trouble) in [
        (r#""none""#, Trouble::BadCount),
        ("[1]", Trouble::UsageMissing),
        ("null", Trouble::UsageMissing),
        ("{}", Trouble::UsageMissing),
    ] {
        let body = format!(r#"{{"choices":[],"usage":{usage}}}"#);
        let scan = scan(
            Api::OpenAiChat,
            &head("application/json", ""),
            &[body.as_bytes()],
        );
        assert_eq!(
            (scan.usage.is_empty(), scan.trouble),
            (true, Some(trouble)),
            "{usage}"
        );
    }
}

#[test]
fn invalid_text_is_trouble_and_no_model() {
    let body = b"{\"model\":\"\xff\xfe\",\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}";
    let scan = scan(Api::OpenAiChat, &head("application/json", ""), &[body]);
    assert_eq!((scan.model, scan.trouble), (None, Some(Trouble::Malformed)));
    assert_eq!(scan.usage.input_total(), Some(1));
}
