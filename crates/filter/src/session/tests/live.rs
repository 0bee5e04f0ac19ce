//! Connections over WebSocket.

use super::*;

const REALTIME: &[(&str, &str)] = &[
    (":authority", "api.openai.com"),
    (":path", "/v1/realtime?model=gpt-realtime"),
    (":method", "GET"),
    ("upgrade", "WebSocket"),
    ("x-request-id", "q1"),
    ("x-llm-tag-team", "red"),
];
const SWITCHED: &[(&str, &str)] = &[(":status", "101"), ("upgrade", "websocket")];
const SESSION: &str = r#"{"type":"session.created","session":{"model":"gpt-realtime-x"}}"#;
const CREATE: &str = r#"{"type":"response.create"}"#;
const CREATED: &str = r#"{"type":"response.created","response":{"id":"r1"}}"#;
const DELTA: &str = r#"{"type":"response.output_audio.delta","response_id":"r1","delta":"A"}"#;
const DONE: &str = concat!(
    r#"{"type":"response.done","response":{"id":"r1","status":"completed","#,
    r#""usage":{"input_tokens":12,"output_tokens":5}}}"#
);

/// Text in one frame, unmasked, or masked by a key that changes nothing.
fn frame(text: &str, is_masked: bool) -> Vec<u8> {
    let (bit, key): (u8, &[u8]) = if is_masked { (0x80, &[0; 4]) } else { (0, &[]) };
    let length = u16::try_from(text.len()).unwrap().to_be_bytes();
    [&[0x81, bit | 126], &length[..], key, text.as_bytes()].concat()
}

impl Play {
    /// A connection up to the switch of protocols.
    fn connected() -> Play {
        let mut play = Play::new();
        let effects = play.request(&[REALTIME]);
        assert_eq!(effects, edits(&[remove("x-llm-tag-team")]));
        let effects = play.response(&[SWITCHED]);
        assert_eq!(effects, edits(&[set("x-tollmesh-event", "vm-0")]));
        assert!(play.session.is_upgraded() && play.session.reads_bodies());
        let known = Ending {
            attempts: 1,
            principal: Some("spiffe://mesh/ns/shop/sa/cart"),
            ..Ending::default()
        };
        assert_eq!(play.step(Input::Upgraded(known)), Effects::default());
        play
    }

    fn client(&mut self, text: &str) -> Effects {
        let chunk = frame(text, true);
        self.step(Input::RequestBody {
            chunk: &chunk,
            ends: false,
        })
    }

    fn server(&mut self, text: &str) -> Effects {
        self.response_body(&frame(text, false), false)
    }
}

fn told(effects: &Effects) -> Vec<Value> {
    let parsed = |json: &String| serde_json::from_str(json).unwrap();
    effects.events.iter().map(parsed).collect()
}

#[test]
fn each_response_is_an_event_when_it_ends() {
    let mut play = Play::connected();
    for text in [SESSION, CREATED, DELTA] {
        if text == CREATED {
            assert_eq!(play.client(CREATE), Effects::default());
        }
        assert_eq!(play.server(text), Effects::default());
    }
    let first = told(&play.server(DONE));
    let [event] = first.as_slice() else {
        panic!("{first:?}");
    };
    for (key, value) in [
        ("event_id", json!("vm-0.1")),
        ("request_id", json!("q1")),
        ("api", json!("openai.realtime")),
        ("model_requested", json!("gpt-realtime")),
        ("model", json!("gpt-realtime-x")),
        ("response_id", json!("r1")),
        ("outcome", json!("success")),
        ("usage_source", json!("reported")),
        ("status", json!(101)),
        ("stream", json!(true)),
        ("duration_ms", json!(30)),
        ("ttft_ms", json!(20)),
        ("attempts", json!(1)),
        ("tags", json!({"team": "red"})),
    ] {
        assert_eq!(event[key], value, "{key}");
    }
    assert_eq!(event["source"]["namespace"], "shop");
    play.server(CREATED);
    let second = told(&play.server(DONE));
    assert_eq!(second[0]["event_id"], "vm-0.2");
    assert_eq!(play.step(Input::End(Ending::default())), Effects::default());
    assert!(!play.session.is_metered());
}

#[test]
fn the_end_of_a_connection_is_an_event_only_for_what_it_cut() {
    let mut play = Play::connected();
    play.server(CREATED);
    let ending = Ending {
        response_flags: CLIENT_GONE,
        ..Ending::default()
    };
    let effects = play.step(Input::End(ending));
    let events = told(&effects);
    let [event] = events.as_slice() else {
        panic!("{events:?}");
    };
    assert_eq!(event["outcome"], "aborted");
    assert_eq!(event["response_id"], "r1");
    assert_eq!(event["response_flags"], CLIENT_GONE);
    let truncated = Counter::Trouble(tollmesh_usage::Trouble::Truncated);
    assert_eq!(effects.counts, [(truncated, 1)]);
}

#[test]
fn what_a_cut_text_did_not_report_is_estimated() {
    let mut play = Play::new();
    let path = (":path", "/v1/responses");
    play.request(&[&[REALTIME[0], path, REALTIME[2], REALTIME[3]]]);
    play.response(&[SWITCHED]);
    play.client(r#"{"type":"response.create","model":"gpt-5"}"#);
    let text = "word ".repeat(40);
    let delta = format!(r#"{{"type":"response.output_text.delta","delta":"{text}"}}"#);
    play.server(&delta);
    let events = told(&play.step(Input::End(Ending::default())));
    let [event] = events.as_slice() else {
        panic!("{events:?}");
    };
    assert_eq!(event["outcome"], "aborted");
    assert_eq!(event["usage_source"], "estimated");
    assert_eq!(event["estimate_basis"], "relayed_text");
    let n_tokens = event["usage"]["output"].as_u64();
    assert!(n_tokens.is_some_and(|n| (20..100).contains(&n)), "{event}");
}

#[test]
fn extensions_are_counted_and_not_read() {
    let mut play = Play::new();
    play.request(&[REALTIME]);
    let deflate = [("sec-websocket-extensions", "permessage-deflate")];
    let effects = play.response(&[SWITCHED, &deflate]);
    assert_eq!(effects, counts(Counter::UnmeteredProviderCalls));
    assert!(!play.session.is_metered() && !play.session.reads_bodies());
}

#[test]
fn frames_against_the_rfc_are_counted_once() {
    let mut play = Play::connected();
    let broken = [0xC1, 0x01, b'x'];
    let counted = counts(Counter::UnmeteredProviderCalls);
    assert_eq!(play.response_body(&broken, false), counted);
    assert_eq!(play.response_body(&broken, false), Effects::default());
    assert_eq!(play.client(CREATE), Effects::default());
}

#[test]
fn frames_are_never_edited() {
    let mut play = Play::new();
    let path = (":path", "/v1/responses");
    play.request(&[&[REALTIME[0], path, REALTIME[2], REALTIME[3]]]);
    // A client that does not wait for the handshake's answer.
    assert_eq!(
        play.client(r#"{"model":"m","stream":true}"#),
        Effects::default()
    );
    play.response(&[SWITCHED]);
    assert_eq!(
        play.client(r#"{"model":"m","stream":true}"#),
        Effects::default()
    );
}

#[test]
fn a_gateway_counts_its_own_connections() {
    let mut play = Play::new();
    play.request(&[REALTIME]);
    let elsewhere = [("x-tollmesh-event", "other-1")];
    assert_eq!(play.response(&[SWITCHED, &elsewhere]), Effects::default());
    assert!(!play.session.is_upgraded() && !play.session.reads_bodies());
    assert_eq!(play.end(0).0["outcome"], "relayed");
}

#[test]
fn a_handshake_that_fails_is_a_call_that_fails() {
    let mut play = Play::new();
    play.request(&[REALTIME]);
    play.response(&[&[(":status", "401"), ("content-type", "application/json")]]);
    play.response_body(br#"{"error":{"code":"invalid_api_key"}}"#, true);
    let (event, _) = play.end(0);
    assert_eq!(event["outcome"], "error");
    assert_eq!(event["billable"], false);
}
