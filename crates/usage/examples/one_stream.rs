//! Reads one burst of server-sent events again and again, for profilers:
//! `valgrind --tool=callgrind target/release/examples/one_stream 200 [cut]`.

use std::time::{Duration, Instant};

use tollmesh_usage::{Api, EventCutter, RequestFacts, ResponseHead, Target, UsageScanner};

/// What Envoy shows at once of a fast answer.
const CHUNK_BYTES: usize = 16 * 1024;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let n_streams: usize = arguments
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(1000);
    let is_cut = arguments.next().is_some();
    let body = body();
    let target = Target::new(Api::OpenAiChat, "openai");
    let head = ResponseHead {
        status: 200,
        headers: vec![("content-type".into(), "text/event-stream".into())],
    };
    let mut n_tokens = 0;
    let mut least = Duration::MAX;
    for _ in 0..n_streams {
        let started = Instant::now();
        let mut cutter = is_cut.then(EventCutter::new);
        let mut scanner = UsageScanner::new(&target, &RequestFacts::default(), &head);
        for chunk in body.chunks(CHUNK_BYTES) {
            scanner.push(chunk);
            if let Some(cutter) = &mut cutter {
                std::hint::black_box(cutter.push_past(chunk, scanner.plain_events(), false));
            }
        }
        let scan = scanner.finish();
        least = least.min(started.elapsed());
        n_tokens += scan.usage.tokens().map(|(_, n)| n).sum::<u64>();
    }
    let n_bytes = body.len();
    println!("{least:?} at best for {n_bytes} bytes; {n_tokens} tokens in all");
}

fn body() -> Vec<u8> {
    let mut body = String::new();
    let mut event = |choices: &str, usage: &str| {
        body += &format!(
            "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\
             \"created\":1760000000,\"model\":\"gpt-4o\",\"choices\":[{choices}],\
             \"usage\":{usage}}}\n\n"
        );
    };
    for n in 1..500 {
        event(
            &format!(
                "{{\"index\":0,\"delta\":{{\"content\":\" word{n}\"}},\"logprobs\":null,\
                 \"finish_reason\":null}}"
            ),
            "null",
        );
    }
    event(
        "",
        r#"{"prompt_tokens":20,"completion_tokens":500,"total_tokens":520}"#,
    );
    body += "data: [DONE]\n\n";
    body.into_bytes()
}
