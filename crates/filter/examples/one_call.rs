//! Plays one usual call against the session again and again, for profilers:
//! `valgrind --tool=callgrind target/release/examples/one_call 2000`.

use tollmesh_filter::headers::Headers;
use tollmesh_filter::ids::EventIds;
use tollmesh_filter::session::{Ending, Input, Session, Site};
use tollmesh_wire::{PluginConfig, Source, Timestamp};

const REQUEST: &[(&str, &str)] = &[
    (":authority", "api.openai.com"),
    (":path", "/v1/chat/completions"),
    (":method", "POST"),
    (":scheme", "http"),
    ("content-type", "application/json"),
    ("accept-encoding", "gzip, deflate"),
    ("content-length", "120"),
    ("user-agent", "OpenAI/Python 2.8.0"),
    ("authorization", "Bearer sk-0000000000000000000000000000"),
    ("x-request-id", "0f5cbb0e-5b0a-4f0e-9d8e-3a3a0f0e9d8e"),
    (
        "traceparent",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ),
    ("x-llm-tag-team", "checkout"),
    ("x-llm-tag-feature", "summary"),
];
const BODY: &[u8] = br#"{"model":"gpt-4o","messages":[{"role":"user","content":"Say hi"}]}"#;
const RESPONSE: &[(&str, &str)] = &[
    (":status", "200"),
    ("content-type", "application/json"),
    ("content-length", "1024"),
    ("server", "envoy"),
    ("date", "Sun, 22 Nov 2026 05:00:00 GMT"),
];

fn main() {
    let n_calls: u64 = std::env::args()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(100_000);
    let site = Site::new(
        PluginConfig::parse(br#"{"aggregator":{"cluster":"tollmesh"}}"#).unwrap(),
        EventIds::named("0123456789abcdef".to_owned()),
        Source::default(),
    );
    let content = "word ".repeat(150);
    let answer = format!(
        r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1795320000,
        "model":"gpt-4o-2024-08-06","choices":[{{"index":0,"message":{{"role":"assistant",
        "content":"{content}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":12,
        "completion_tokens":5,"total_tokens":17,"prompt_tokens_details":{{"cached_tokens":0}},
        "completion_tokens_details":{{"reasoning_tokens":0}}}},"service_tier":"default"}}"#
    );
    let pairs = |head: &'static [(&str, &str)]| -> Headers<'static> {
        head.iter()
            .map(|(n, v)| (n.as_bytes(), v.as_bytes()))
            .collect()
    };
    let started = std::time::Instant::now();
    let mut n_bytes = 0;
    for call in 0..n_calls {
        let now = Timestamp::from_unix_ms(1_795_320_000_000 + call as i64);
        let mut session = Session::default();
        let headers = pairs(REQUEST);
        session.step(
            &site,
            Input::RequestHead {
                headers: &headers,
                peer: None,
                ends: false,
            },
            now,
        );
        session.step(
            &site,
            Input::RequestBody {
                chunk: BODY,
                ends: true,
            },
            now,
        );
        let headers = pairs(RESPONSE);
        session.step(
            &site,
            Input::ResponseHead {
                headers: &headers,
                is_from_mesh: false,
                ends: false,
            },
            now,
        );
        let chunk = answer.as_bytes();
        session.step(&site, Input::ResponseBody { chunk, ends: true }, now);
        let ending = Ending {
            attempts: 1,
            ..Ending::default()
        };
        let effects = session.step(&site, Input::End(ending), now);
        n_bytes += effects.events.iter().map(String::len).sum::<usize>();
    }
    let each = started.elapsed() / u32::try_from(n_calls).unwrap_or(u32::MAX);
    println!(
        "{each:?} a call, {} bytes an event",
        n_bytes as u64 / n_calls.max(1)
    );
}
