//! Transcripts: what the proxy says, line by line, and just what is done about it.

use super::*;
use crate::edit::HeaderEdit;
use crate::fingerprint::Fingerprint;
use proptest::prelude::*;
use serde_json::{Value, json};
use tollmesh_wire::plugin::SecretKey;

mod budgets;
mod live;

const CHAT: &[(&str, &str)] = &[
    (":authority", "api.openai.com"),
    (":path", "/v1/chat/completions?key=secret"),
    (":method", "POST"),
    ("content-type", "application/json"),
];
const PLAIN_BODY: &[u8] = br#"{"model":"gpt-4o","messages":[]}"#;
const STREAM_BODY: &[u8] = br#"{"model":"gpt-4o","stream":true}"#;
const STREAM_BODY_ASKING: &[u8] =
    br#"{"model":"gpt-4o","stream":true,"stream_options":{"include_usage":true}}"#;
const ANSWER: &[u8] = br#"{"id":"r1","model":"gpt-4o-2024-08-06","choices":[{"index":0,
    "message":{"content":"hi"},"finish_reason":"stop"}],
    "usage":{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17}}"#;
const JSON_HEAD: &[(&str, &str)] = &[(":status", "200"), ("content-type", "application/json")];
const SSE_HEAD: &[(&str, &str)] = &[
    (":status", "200"),
    ("content-type", "text/event-stream; charset=utf-8"),
    ("content-length", "999"),
];
const CHUNK: &str = concat!(
    r#"data: {"id":"r1","model":"gpt-4o-2024-08-06","choices":[{"index":0,"#,
    r#""delta":{"content":"hi"},"finish_reason":"stop"}]}"#,
    "\n\n"
);
const USAGE_EVENT: &str = concat!(
    r#"data: {"id":"r1","model":"gpt-4o-2024-08-06","choices":[],"#,
    r#""usage":{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17}}"#,
    "\n\n"
);
const DONE: &str = "data: [DONE]\n\n";
const CLIENT_GONE: u64 = 1 << 14;

/// A call as it is played: its session, and a clock that runs ten milliseconds a line.
struct Play {
    site: Site,
    session: Session,
    now_ms: i64,
}

impl Play {
    fn with(config: &str) -> Play {
        let mut whole: Value = serde_json::from_str(config).unwrap();
        whole["aggregator"] = json!({"cluster": "tollmesh"});
        let site = Site::new(
            PluginConfig::parse(whole.to_string().as_bytes()).unwrap(),
            EventIds::named("vm".to_owned()),
            Source::default(),
        );
        Play {
            site,
            session: Session::default(),
            now_ms: 1_795_320_000_000,
        }
    }

    fn new() -> Play {
        Play::with("{}")
    }

    fn step(&mut self, input: Input<'_>) -> Effects {
        let now = match self.session.needs_time(&input) {
            true => Timestamp::from_unix_ms(self.now_ms),
            false => Timestamp::default(),
        };
        self.now_ms += 10;
        self.session.step(&self.site, input, now)
    }

    fn request(&mut self, heads: &[&[(&str, &str)]]) -> Effects {
        let headers = headers(heads);
        let ends = false;
        self.step(Input::RequestHead {
            headers: &headers,
            peer: None,
            ends,
        })
    }

    fn request_body(&mut self, chunk: &[u8]) -> Effects {
        self.step(Input::RequestBody { chunk, ends: true })
    }

    fn response(&mut self, heads: &[&[(&str, &str)]]) -> Effects {
        self.response_from(true, heads)
    }

    fn response_from(&mut self, is_from_mesh: bool, heads: &[&[(&str, &str)]]) -> Effects {
        let headers = headers(heads);
        let ends = false;
        let is_asked = self.session.asks_who_answers(&headers);
        self.step(Input::ResponseHead {
            headers: &headers,
            is_from_mesh: is_asked && is_from_mesh,
            ends,
        })
    }

    fn response_body(&mut self, chunk: &[u8], ends: bool) -> Effects {
        self.step(Input::ResponseBody { chunk, ends })
    }

    fn end(&mut self, response_flags: u64) -> (Value, Vec<(Counter, u64)>) {
        let attempts = 1;
        let principal = None;
        let effects = self.step(Input::End(Ending {
            response_flags,
            attempts,
            principal,
        }));
        let [event] = effects.events.as_slice() else {
            panic!("a metered call gives an event: {effects:?}");
        };
        (serde_json::from_str(event).unwrap(), effects.counts)
    }
}

fn headers<'a>(heads: &[&'a [(&'a str, &'a str)]]) -> Headers<'a> {
    let pairs = heads.iter().flat_map(|head| head.iter());
    pairs.map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect()
}

fn remove(name: &'static str) -> HeaderEdit {
    HeaderEdit::Remove(name.into())
}

fn set(name: &'static str, value: &str) -> HeaderEdit {
    HeaderEdit::Set(name.into(), value.as_bytes().to_vec())
}

fn edits(edits: &[HeaderEdit]) -> Effects {
    Effects {
        edits: edits.to_vec(),
        ..Effects::default()
    }
}

fn counts(counter: Counter) -> Effects {
    Effects {
        counts: vec![(counter, 1)],
        ..Effects::default()
    }
}

#[test]
fn what_is_not_ours_is_never_touched() {
    let mut play = Play::new();
    let other = &[(":authority", "example.com"), ("x-llm-tag-a", "1")];
    assert_eq!(play.request(&[other]), Effects::default());
    assert!(!play.session.reads_bodies() && !play.session.is_metered());
    assert_eq!(play.response(&[JSON_HEAD]), Effects::default());
    assert_eq!(play.response_body(ANSWER, true), Effects::default());
    assert_eq!(play.step(Input::End(Ending::default())), Effects::default());
}

/// Other services have paths of that shape too; only what names a model or reports usage is a call.
#[test]
fn an_unknown_host_is_metered_where_it_speaks_of_a_model() {
    let host = &[
        (":authority", "llm.internal"),
        (":path", "/v1/chat/completions"),
    ];
    let rest = &CHAT[2..];

    let mut play = Play::new();
    play.request(&[host, rest]);
    play.request_body(STREAM_BODY);
    play.response(&[JSON_HEAD]);
    play.response_body(ANSWER, true);
    let (event, _) = play.end(0);
    assert_eq!(event["provider"], "openai-compatible");
    assert_eq!(event["usage"], json!({"input": 12, "output": 5}));

    let mut play = Play::new();
    play.request(&[host, rest]);
    play.request_body(br#"{"text":"lunch?"}"#);
    play.response(&[JSON_HEAD]);
    play.response_body(br#"{"delivered":true}"#, true);
    assert_eq!(play.step(Input::End(Ending::default())), Effects::default());
}

#[test]
fn a_fingerprint_is_of_the_body_that_the_app_sent() {
    let key = r#"{"fingerprint":{"key":"000102030405060708090a0b0c0d0e0f"}}"#;
    let print = |config: &str, is_whole: bool| {
        let mut play = Play::with(config);
        play.request(&[CHAT]);
        let (head, tail) = STREAM_BODY.split_at(9);
        for (chunk, ends) in [(head, false), (tail, is_whole)] {
            play.step(Input::RequestBody { chunk, ends });
        }
        play.response(&[SSE_HEAD]);
        play.end(0).0["fingerprint"].clone()
    };
    // What is spliced into the body on its way is none of the app's.
    let mut sent = Fingerprint::new(&SecretKey(std::array::from_fn(|i| i as u8)));
    sent.push(STREAM_BODY, true);
    assert_eq!(print(key, true), json!(sent.finish().expect("whole")));
    assert_eq!(print(key, false), Value::Null);
    assert_eq!(print("{}", true), Value::Null);
}

#[test]
fn a_call_is_told_whole_in_one_event() {
    let mut play = Play::with(
        r#"{"tags":{"headers":{"team":"x-llm-team"},"defaults":{"environment":"test"}}}"#,
    );
    let extra = &[
        ("content-length", "32"),
        ("accept-encoding", "br, gzip"),
        ("x-llm-team", "red"),
        ("x-request-id", "req-1"),
        ("authorization", "Bearer secret"),
        (
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ),
    ];
    assert_eq!(
        play.request(&[CHAT, extra]),
        edits(&[
            remove("x-llm-team"),
            set("accept-encoding", "identity"),
            remove("content-length"),
        ])
    );
    assert_eq!(play.request_body(PLAIN_BODY), Effects::default());
    assert_eq!(
        play.response(&[JSON_HEAD]),
        edits(&[set("x-tollmesh-event", "vm-0")])
    );
    let (first, second) = ANSWER.split_at(40);
    assert_eq!(play.response_body(first, false), Effects::default());
    assert_eq!(play.response_body(second, true), Effects::default());
    let (event, counts) = play.end(0);
    assert_eq!(counts, []);
    assert_eq!(
        event,
        json!({
            "event_id": "vm-0", "kind": "call", "request_id": "req-1",
            "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "span_id": "00f067aa0ba902b7",
            "time": "2026-11-22T04:00:00.000Z", "duration_ms": 50,
            "ttft_ms": 40,
            "provider": "openai", "api": "openai.chat", "host": "api.openai.com",
            "model_requested": "gpt-4o", "model": "gpt-4o-2024-08-06", "response_id": "r1",
            "stream": false, "usage": {"input": 12, "output": 5}, "usage_source": "reported",
            "billable": true, "finish_reason": "stop", "tool_calls": 0, "status": 200,
            "outcome": "success", "attempts": 1,
            "tags": {"environment": "test", "team": "red"}, "source": {},
        })
    );
    assert!(!event.to_string().contains("secret"));
    assert!(!play.session.is_metered(), "one event a call");
}

#[test]
fn the_usage_event_is_asked_for_and_cut_out_again() {
    let mut play = Play::new();
    play.request(&[CHAT, &[("content-length", "32")]]);
    let spliced = play.request_body(STREAM_BODY).body.expect("a splice");
    let asked: Value = serde_json::from_slice(&spliced).unwrap();
    assert_eq!(asked["stream_options"], json!({"include_usage": true}));
    assert_eq!(
        play.response(&[SSE_HEAD]),
        edits(&[remove("content-length"), set("x-tollmesh-event", "vm-0")])
    );
    let stream = [CHUNK, USAGE_EVENT, DONE].concat();
    let mut relayed = Vec::new();
    for byte in stream.as_bytes().chunks(1) {
        let body = play.response_body(byte, false).body;
        relayed.extend(body.unwrap_or_else(|| byte.to_vec()));
    }
    relayed.extend(play.response_body(b"", true).body.unwrap_or_default());
    assert_eq!(String::from_utf8(relayed).unwrap(), [CHUNK, DONE].concat());
    let (event, _) = play.end(0);
    assert_eq!(event["usage"], json!({"input": 12, "output": 5}));
    assert_eq!(event["outcome"], "success");
    assert_eq!(event["stream"], true);
}

#[test]
fn an_app_that_asks_itself_gets_its_event() {
    let mut play = Play::new();
    play.request(&[CHAT]);
    assert_eq!(play.request_body(STREAM_BODY_ASKING).body, None);
    play.response(&[SSE_HEAD]);
    let stream = [CHUNK, USAGE_EVENT, DONE].concat();
    assert_eq!(
        play.response_body(stream.as_bytes(), true),
        Effects::default()
    );
    assert_eq!(play.end(0).0["usage"], json!({"input": 12, "output": 5}));
}

#[test]
fn what_cannot_be_cut_is_left_and_counted() {
    for extra in [("content-encoding", "gzip"), ("trailer", "x-checksum")] {
        let mut play = Play::new();
        play.request(&[CHAT]);
        play.request_body(STREAM_BODY);
        let head = play.response(&[SSE_HEAD, &[extra]]);
        assert_eq!(head.counts, [(Counter::UsageEventsLeft, 1)], "{extra:?}");
        assert_eq!(head.edits, [set("x-tollmesh-event", "vm-0")]);
        let body = play.response_body(USAGE_EVENT.as_bytes(), true);
        assert_eq!(body, Effects::default());
    }
}

#[test]
fn an_error_is_relayed_as_it_is() {
    let mut play = Play::new();
    play.request(&[CHAT]);
    play.request_body(STREAM_BODY);
    let status = &[(":status", "429"), ("content-type", "application/json")];
    assert_eq!(
        play.response(&[status]),
        edits(&[set("x-tollmesh-event", "vm-0")])
    );
    let body = play.response_body(br#"{"error":{"message":"slow down"}}"#, true);
    assert_eq!(body, Effects::default());
    let (event, _) = play.end(0);
    assert_eq!(event["outcome"], "error");
    assert_eq!(event["status"], 429);
    assert_eq!(event["billable"], false);
}

#[test]
fn signed_and_encoded_bodies_are_not_spliced() {
    for extra in [
        (
            "authorization",
            "AWS4-HMAC-SHA256 Credential=x, SignedHeaders=host, Signature=y",
        ),
        ("content-digest", "sha-256=:x:"),
        ("content-encoding", "gzip"),
    ] {
        let mut play = Play::new();
        let head = play.request(&[CHAT, &[("content-length", "32"), extra]]);
        assert_eq!(head, Effects::default(), "{extra:?}");
        assert_eq!(play.request_body(STREAM_BODY), Effects::default());
    }
    // What Envoy signs after us may be changed before.
    let mut play = Play::with(r#"{"signed_by":"envoy"}"#);
    let signed = "AWS4-HMAC-SHA256 Credential=x, SignedHeaders=host, Signature=y";
    play.request(&[CHAT, &[("authorization", signed)]]);
    assert_ne!(play.request_body(STREAM_BODY), Effects::default());
    let mut play = Play::with(r#"{"include_usage":"off"}"#);
    play.request(&[CHAT]);
    assert_eq!(play.request_body(STREAM_BODY), Effects::default());
}

#[test]
fn a_cut_stream_is_an_aborted_event() {
    let mut play = Play::new();
    play.request(&[CHAT]);
    play.request_body(STREAM_BODY);
    play.response(&[SSE_HEAD]);
    play.response_body(CHUNK.as_bytes(), false);
    let (event, counts) = play.end(CLIENT_GONE);
    assert_eq!(event["outcome"], "aborted");
    assert_eq!(event["response_flags"], CLIENT_GONE);
    assert_eq!(event["model"], "gpt-4o-2024-08-06");
    assert_eq!(event["trouble"], "truncated");
    assert_eq!(event["usage_source"], "estimated");
    assert_eq!(event["estimate_basis"], "relayed_text+request_bytes");
    assert_eq!(event["usage"], json!({"input": 8, "output": 1}));
    assert_eq!(
        counts,
        [(Counter::Trouble(tollmesh_usage::Trouble::Truncated), 1)]
    );
}

#[test]
fn what_a_cut_stream_reported_is_kept_and_its_placeholder_is_not() {
    let start = concat!(
        r#"data: {"type":"message_start","message":{"id":"m1","model":"claude-x","#,
        r#""usage":{"input_tokens":2000,"cache_read_input_tokens":500,"output_tokens":4}}}"#,
        "\n\n"
    );
    let delta = concat!(
        r#"data: {"type":"content_block_delta","index":0,"#,
        r#""delta":{"type":"text_delta","text":"twenty bytes of text"}}"#,
        "\n\n"
    );
    let mut play = Play::new();
    let host = &[
        (":authority", "api.anthropic.com"),
        (":path", "/v1/messages"),
    ];
    play.request(&[host, &CHAT[2..]]);
    play.request_body(br#"{"model":"claude-x","stream":true}"#);
    play.response(&[SSE_HEAD]);
    play.response_body(start.as_bytes(), false);
    play.response_body(delta.repeat(9).as_bytes(), false);
    let (event, _) = play.end(CLIENT_GONE);
    assert_eq!(
        event["usage"],
        json!({"input": 2000, "cache_read": 500, "output": 55})
    );
    assert_eq!(event["usage_source"], "estimated");
    assert_eq!(event["estimate_basis"], "relayed_text");
}

#[test]
fn an_answer_that_cannot_be_decoded_is_estimated_by_its_size() {
    let encoded = &[("content-encoding", "x-own-invention")];
    for (site_has_memory, encoding, trouble) in [
        (true, &encoded[..], "unknown_encoding"),
        (false, &[("content-encoding", "gzip")][..], "decoder_budget"),
    ] {
        let mut play = Play::new();
        if !site_has_memory {
            play.site.decoders = DecoderPool::of(0);
        }
        play.request(&[CHAT]);
        play.request_body(PLAIN_BODY);
        play.response(&[JSON_HEAD, encoding]);
        play.response_body(&[7; 700], true);
        let (event, _) = play.end(0);
        assert_eq!(event["trouble"], trouble);
        assert_eq!(event["usage"], json!({"input": 8, "output": 100}));
        assert_eq!(event["estimate_basis"], "body_bytes+request_bytes");
    }
}

#[test]
fn a_call_that_nobody_answered_is_an_event_too() {
    for (flags, outcome, billable) in [(CLIENT_GONE, "aborted", true), (4, "error", false)] {
        let mut play = Play::new();
        play.request(&[CHAT]);
        play.request_body(PLAIN_BODY);
        let (event, _) = play.end(flags);
        assert_eq!(event["outcome"], outcome);
        assert_eq!(event["billable"], billable);
        let source = if billable { "estimated" } else { "absent" };
        assert_eq!(event["usage_source"], source);
        assert_eq!(event.get("status"), None);
    }
}

#[test]
fn an_answer_may_come_before_the_request_has_ended() {
    let mut play = Play::new();
    play.request(&[CHAT]);
    let (first, second) = STREAM_BODY.split_at(10);
    play.step(Input::RequestBody {
        chunk: first,
        ends: false,
    });
    play.response(&[JSON_HEAD]);
    let late = play.request_body(second);
    assert!(late.body.is_some(), "the splice goes on");
    assert_eq!(late.counts, []);
    play.response_body(ANSWER, true);
    assert_eq!(play.end(0).0["outcome"], "success");
}

#[test]
fn the_filter_nearest_the_provider_counts() {
    let gateway = r#"{"apis":[{"host":"api.openai.com","api":"openai","role":"gateway"}]}"#;
    let counted = &[("x-tollmesh-event", "other-7")][..];
    for (config, extra) in [("{}", counted), (gateway, &[])] {
        let mut play = Play::with(config);
        play.request(&[CHAT]);
        play.request_body(PLAIN_BODY);
        let head = play.response(&[JSON_HEAD, extra]);
        assert_eq!(head, Effects::default());
        assert_eq!(play.response_body(ANSWER, true), Effects::default());
        let (event, _) = play.end(0);
        assert_eq!(event["outcome"], "relayed");
        assert_eq!(event["billable"], false);
        assert_eq!(event["usage"], json!({}));
        assert_eq!(event["model_requested"], "gpt-4o");
    }
}

/// A provider cannot make its calls free by saying that they were counted.
#[test]
fn only_another_proxy_is_believed_to_have_counted() {
    let stated = r#"{"apis":[{"host":"*","api":"openai","role":"provider"}]}"#;
    let own = r#"{"apis":[{"host":"*","api":"openai"}]}"#;
    let never = r#"{"relay":"never"}"#;
    let claim = &[("x-tollmesh-event", "other-7")][..];
    for (config, is_from_mesh, is_believed) in [
        ("{}", true, true),
        ("{}", false, false),
        (own, true, true),
        (own, false, false),
        (stated, true, true),
        (stated, false, false),
        (never, true, false),
    ] {
        let mut play = Play::with(config);
        play.request(&[CHAT]);
        play.request_body(PLAIN_BODY);
        let head = play.response_from(is_from_mesh, &[JSON_HEAD, claim]);
        play.response_body(ANSWER, true);
        let (event, _) = play.end(0);
        if is_believed {
            assert_eq!(head, Effects::default(), "{config}");
            assert_eq!(event["outcome"], "relayed", "{config}");
            continue;
        }
        assert_eq!(head.edits, [set("x-tollmesh-event", "vm-0")], "{config}");
        assert_eq!(head.counts, [(Counter::RelayClaimsRefused, 1)], "{config}");
        assert_eq!(event["outcome"], "success", "{config}");
        assert_eq!(event["usage"]["output"], 5, "{config}");
    }
    // What the operator says to be counted behind needs no word, and nobody is asked.
    let mut play = Play::with(r#"{"relay":"never","apis":[{"host":"*","role":"gateway"}]}"#);
    play.request(&[CHAT]);
    let head = play.response_from(false, &[JSON_HEAD, claim]);
    assert_eq!(head, Effects::default());
    assert_eq!(play.end(0).0["outcome"], "relayed");
}

/// Money has an owner: the event that costs is the gateway's, so the tags must reach it.
#[test]
fn tags_are_left_for_the_gateway_that_counts() {
    let tags = [("x-llm-tag-team", "red"), ("accept-encoding", "br, gzip")];
    for rule in [
        r#"{"host":"*","role":"gateway"}"#,
        r#"{"host":"api.openai.com","api":"openai","role":"gateway"}"#,
    ] {
        let mut play = Play::with(&format!(r#"{{"apis":[{rule}]}}"#));
        assert_eq!(play.request(&[CHAT, &tags]), Effects::default(), "{rule}");
        assert_eq!(play.request_body(STREAM_BODY), Effects::default());
        play.response(&[SSE_HEAD]);
        let (event, _) = play.end(0);
        assert_eq!(event["outcome"], "relayed");
        assert_eq!(event["tags"], json!({"team": "red"}));

        let grpc = [
            CHAT[0],
            (":path", "/ai.Chat/Complete"),
            CHAT[2],
            ("content-type", "application/grpc"),
        ];
        let mut play = Play::with(&format!(r#"{{"apis":[{rule}]}}"#));
        assert_eq!(play.request(&[&grpc, &tags]), Effects::default());
        assert!(!play.session.is_metered());
    }
}

#[test]
fn what_was_asked_for_here_is_cut_out_here() {
    let mut play = Play::new();
    play.request(&[CHAT]);
    play.request_body(STREAM_BODY);
    let head = play.response(&[SSE_HEAD, &[("x-tollmesh-event", "other-7")]]);
    assert_eq!(head, edits(&[remove("content-length")]));
    let stream = [CHUNK, USAGE_EVENT, DONE].concat();
    let relayed = play.response_body(stream.as_bytes(), true).body;
    assert_eq!(relayed, Some([CHUNK, DONE].concat().into_bytes()));
    assert_eq!(play.end(0).0["outcome"], "relayed");
}

#[test]
fn what_cannot_be_read_loses_its_tags_and_is_counted() {
    let host = (":authority", "api.openai.com");
    for head in [
        [
            host,
            (":path", "/v1/telepathy"),
            (":method", "POST"),
            ("x", ""),
        ],
        [host, CHAT[1], (":method", "GET"), ("upgrade", "WebSocket")],
        [
            host,
            (":path", "/ai.Chat/Complete"),
            CHAT[2],
            ("content-type", "application/grpc+proto"),
        ],
    ] {
        let mut play = Play::new();
        let effects = play.request(&[&head, &[("x-llm-tag-team", "red")]]);
        assert_eq!(effects.edits, [remove("x-llm-tag-team")], "{head:?}");
        assert_eq!(effects.counts, [(Counter::UnmeteredProviderCalls, 1)]);
        assert!(!play.session.is_metered());
    }
}

/// Nor what method it has, where the server goes by another.
#[test]
fn what_costs_nothing_loses_its_tags_too() {
    for (host, method, path) in [
        ("api.openai.com", "GET", "/v1/models"),
        ("api.openai.com", "POST", "/v1/files"),
        ("api.openai.com", "OPTIONS", "/v1/chat/completions"),
        ("api.anthropic.com", "GET", "/v1/models"),
    ] {
        let head = [
            (":authority", host),
            (":method", method),
            (":path", path),
            ("x-llm-tag-user", "alice"),
        ];
        let effects = Play::new().request(&[&head]);
        assert_eq!(
            effects,
            edits(&[remove("x-llm-tag-user")]),
            "{method} {path}"
        );
    }
}

#[test]
fn what_a_request_calls_itself_does_not_say_what_it_is() {
    let (host, path) = (CHAT[0], CHAT[1]);
    let grpc = ("content-type", "application/grpc");
    let put = ("x-http-method-override", "post");
    for head in [
        [host, path, (":method", "POST"), grpc],
        [host, path, (":method", "POST"), ("upgrade", "websocket")],
        [
            host,
            path,
            (":method", "POST"),
            ("x-http-method-override", "GET"),
        ],
        [host, path, (":method", "GET"), put],
        [host, path, (":method", "PUT"), put],
    ] {
        let mut play = Play::new();
        assert_eq!(play.request(&[&head]).counts, [], "{head:?}");
        play.request_body(PLAIN_BODY);
        play.response(&[JSON_HEAD]);
        play.response_body(ANSWER, true);
        let (event, _) = play.end(0);
        assert_eq!(event["model_requested"], "gpt-4o", "{head:?}");
        assert_eq!(event["usage"]["output"], 5, "{head:?}");
    }
    let mut play = Play::new();
    let head = [host, (":path", "/v1/models"), (":method", "GET"), put];
    assert_eq!(
        play.request(&[&head]).counts,
        [(Counter::UnmeteredProviderCalls, 1)]
    );
}

#[test]
fn a_request_that_ends_in_trailers_is_whole() {
    let key = r#"{"fingerprint":{"key":"000102030405060708090a0b0c0d0e0f"}}"#;
    let fingerprint = |has_trailers: bool| {
        let mut play = Play::with(key);
        play.request(&[CHAT]);
        let chunk = STREAM_BODY;
        let ends = !has_trailers;
        let sent = play.step(Input::RequestBody { chunk, ends }).body;
        assert_eq!(sent.as_deref(), Some(STREAM_BODY_ASKING));
        if has_trailers {
            assert_eq!(play.step(Input::RequestTrailers), Effects::default());
        }
        play.end(0).0["fingerprint"].clone()
    };
    assert!(fingerprint(false).is_string());
    assert_eq!(fingerprint(true), fingerprint(false));
}

#[test]
fn each_direction_is_asked_for_itself_whether_it_may_change() {
    for (request, asks, may_edit_request, may_edit_response) in [
        (STREAM_BODY, "{}", true, true),
        (PLAIN_BODY, "{}", true, false),
        (PLAIN_BODY, r#"{"include_usage":"off"}"#, false, false),
    ] {
        let mut play = Play::with(asks);
        play.request(&[CHAT]);
        assert_eq!(play.session.may_edit_request(), may_edit_request);
        assert!(!play.session.may_edit_response());
        play.request_body(request);
        play.response(&[if may_edit_response {
            SSE_HEAD
        } else {
            JSON_HEAD
        }]);
        assert_eq!(play.session.may_edit_request(), may_edit_request);
        assert_eq!(play.session.may_edit_response(), may_edit_response);
        assert!(play.session.reads_bodies());
        play.end(0);
        assert!(!play.session.may_edit_request());
    }
}

#[test]
fn a_call_without_a_required_tag_can_be_refused() {
    let mut play =
        Play::with(r#"{"tags":{"required":["team"],"on_missing":"deny","header_prefix":"t-"}}"#);
    let effects = play.request(&[CHAT]);
    let both = [(Counter::UntaggedRequests, 1), (Counter::DeniedRequests, 1)];
    assert_eq!(effects.counts, both);
    let denial = effects.denial.expect("a denial");
    assert_eq!(
        (denial.status, denial.details),
        (400, "tollmesh_missing_tag")
    );
    let body: Value = serde_json::from_str(&denial.body).unwrap();
    assert_eq!(body["error"]["code"], "tollmesh_missing_tag");
    assert!(
        body["error"]["message"]
            .as_str()
            .unwrap()
            .contains("\"team\"")
    );
    assert_eq!(play.response(&[&[(":status", "400")]]), Effects::default());
    let (event, _) = play.end(0);
    assert_eq!(event["outcome"], "denied");
    assert_eq!(event["status"], 400);
    assert_eq!(event["missing_tags"], json!(["team"]));

    let mut play = Play::with(r#"{"tags":{"required":["team"],"on_missing":"deny"}}"#);
    let tagged = play.request(&[CHAT, &[("x-llm-tag-team", "red")]]);
    assert_eq!(tagged.denial, None);
}

#[test]
fn a_call_without_required_tags_can_be_told_so() {
    let mut play =
        Play::with(r#"{"tags":{"required":["team","tier","user"],"on_missing":"header"}}"#);
    let effects = play.request(&[CHAT, &[("x-llm-tag-tier", "gold")]]);
    assert_eq!(effects.counts, [(Counter::UntaggedRequests, 1)]);
    assert_eq!(
        play.response(&[JSON_HEAD]).edits,
        [
            set("x-tollmesh-missing-tags", "team, user"),
            set("x-tollmesh-event", "vm-0"),
        ]
    );
    assert_eq!(play.end(0).0["missing_tags"], json!(["team", "user"]));

    let mut play = Play::with(r#"{"tags":{"required":["team"]}}"#);
    play.request(&[CHAT]);
    let edits = play.response(&[JSON_HEAD]).edits;
    assert_eq!(edits, [set("x-tollmesh-event", "vm-0")]);
    assert_eq!(play.end(0).0["missing_tags"], json!(["team"]));
}

#[test]
fn who_calls_says_tags_that_no_header_overrules() {
    let mut play = Play::with(
        r#"{"tags":{"by_workload":[{"namespace":"shop","tags":{"team":"checkout"}}],
            "precedence":{"team":["by_workload","header_prefix"]}}}"#,
    );
    assert!(play.site.tags_by_caller());
    let claim = &[("x-llm-tag-team", "red"), ("x-llm-tag-namespace", "bank")];
    let headers = headers(&[CHAT, claim]);
    let effects = play.step(Input::RequestHead {
        headers: &headers,
        peer: Some("spiffe://cluster.local/ns/shop/sa/checkout"),
        ends: false,
    });
    assert_eq!(effects.counts, [(Counter::TagConflicts, 1)]);
    let effects = play.step(Input::End(Ending {
        principal: Some("spiffe://cluster.local/ns/shop/sa/checkout"),
        ..Ending::default()
    }));
    let event: Value = serde_json::from_str(&effects.events[0]).unwrap();
    assert_eq!(event["tags"]["team"], "checkout");
    assert_eq!(event["source"]["namespace"], "shop");
    assert_eq!(effects.counts, [(Counter::TagConflicts, 1)], "a namespace");
}

#[test]
fn a_certificate_names_the_caller() {
    let mut play = Play::new();
    play.request(&[CHAT]);
    let effects = play.step(Input::End(Ending {
        principal: Some("spiffe://cluster.local/ns/shop/sa/checkout"),
        ..Ending::default()
    }));
    let event: Value = serde_json::from_str(&effects.events[0]).unwrap();
    assert_eq!(event["source"]["namespace"], "shop");
    assert_eq!(event["source"]["service_account"], "checkout");
}

#[test]
fn what_cannot_be_is_counted_and_changes_nothing() {
    let mut play = Play::new();
    assert_eq!(play.response_body(b"?", false), counts(Counter::Faults));
    play.request(&[CHAT]);
    assert_eq!(play.request(&[CHAT]), counts(Counter::Faults));
    assert_eq!(play.response_body(b"?", false), counts(Counter::Faults));
    play.response(&[JSON_HEAD]);
    assert_eq!(play.response(&[JSON_HEAD]), counts(Counter::Faults));
    play.response_body(ANSWER, true);
    assert_eq!(play.end(0).0["outcome"], "success");
    assert_eq!(play.request(&[CHAT]), counts(Counter::Faults));
}

#[test]
fn an_idle_session_is_two_words() {
    assert!(size_of::<Session>() <= 2 * size_of::<usize>());
    let call_bytes = size_of::<Answer>() + size_of::<Call>();
    assert!(call_bytes <= 4 * 1024, "{call_bytes} bytes");
}

#[derive(Clone, Debug)]
enum Line {
    Request,
    RequestBody(Vec<u8>, bool),
    Response(bool),
    ResponseBody(Vec<u8>, bool),
    Trailers,
    End,
}

fn line() -> impl Strategy<Value = Line> {
    let bytes = || {
        prop_oneof![
            Just(STREAM_BODY.to_vec()),
            Just(USAGE_EVENT.as_bytes().to_vec()),
            proptest::collection::vec(any::<u8>(), 0..40)
        ]
    };
    prop_oneof![
        Just(Line::Request),
        (bytes(), any::<bool>()).prop_map(|(b, e)| Line::RequestBody(b, e)),
        any::<bool>().prop_map(Line::Response),
        (bytes(), any::<bool>()).prop_map(|(b, e)| Line::ResponseBody(b, e)),
        Just(Line::Trailers),
        Just(Line::End),
    ]
}

proptest! {
    #[test]
    fn any_order_gives_at_most_one_event(lines in proptest::collection::vec(line(), 0..12)) {
        let mut play = Play::new();
        let mut n_events = 0;
        for line in &lines {
            let effects = match line {
                Line::Request => play.request(&[CHAT]),
                Line::RequestBody(chunk, ends) => {
                    play.step(Input::RequestBody { chunk, ends: *ends })
                }
                Line::Response(is_stream) => {
                    play.response(&[if *is_stream { SSE_HEAD } else { JSON_HEAD }])
                }
                Line::ResponseBody(chunk, ends) => play.response_body(chunk, *ends),
                Line::Trailers => play.step(Input::ResponseTrailers),
                Line::End => play.step(Input::End(Ending::default())),
            };
            n_events += effects.events.len();
        }
        prop_assert!(n_events <= 1);
    }
}
