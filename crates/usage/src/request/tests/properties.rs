//! Properties of editing: an edited body means what it meant, plus exactly the edit.

use std::fmt;

use proptest::prelude::*;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Value, json};

use super::*;

fn space() -> impl Strategy<Value = &'static str> {
    prop_oneof![5 => Just(""), 1 => Just(" "), 1 => Just("\r\n\t")]
}

fn scalar() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => Just("true".to_owned()),
        3 => Just("false".to_owned()),
        3 => Just("null".to_owned()),
        2 => prop::sample::select(vec!["0", "12", "-3.5e2", "4096"]).prop_map(str::to_owned),
        3 => "[a-z\\\\\"{}\\[\\],:é😀\n]{0,6}".prop_map(|text| json!(text).to_string()),
        1 => Just(r#""\ud83d\ude00\u0022,\"stream\":true}""#.to_owned()),
    ]
}

fn key() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        4 => Just("stream"),
        4 => Just("stream_options"),
        4 => Just("include_usage"),
        2 => Just("model"),
        1 => Just("max_tokens"),
        1 => Just("str\\u0065am"),
        1 => Just("stream\\u005Foptions"),
        1 => Just("\\u0069nclude_usage"),
        2 => Just("x"),
        1 => Just(""),
    ]
}

fn object(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let member = (space(), key(), space(), space(), value, space())
        .prop_map(|(a, key, b, c, value, d)| format!("{a}\"{key}\"{b}:{c}{value}{d}"));
    (space(), prop::collection::vec(member, 0..6))
        .prop_map(|(space, members)| format!("{{{space}{}}}", members.join(",")))
}

fn any_value() -> impl Strategy<Value = String> {
    scalar().prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            3 => object(inner.clone()),
            1 => prop::collection::vec(inner, 0..3)
                .prop_map(|items| format!("[{}]", items.join(" , "))),
        ]
    })
}

/// A well-formed body that is an object, with leading and trailing space.
fn any_body() -> impl Strategy<Value = String> {
    (space(), object(any_value()), space()).prop_map(|(a, body, b)| format!("{a}{body}{b}"))
}

/// The members of an object as they are written, each with its value.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// Whether the last `stream_options` is a null that came before a stream was asked for.
fn has_early_null(members: &Members) -> bool {
    let (mut streams, mut is_early) = (false, false);
    for (key, value) in &members.0 {
        match key.as_str() {
            "stream" => streams = *value == json!(true),
            "stream_options" => is_early = value.is_null() && !streams,
            _ => {}
        }
    }
    is_early
}

fn has_twice(members: &Members) -> bool {
    let mut keys: Vec<&str> = members.0.iter().map(|(key, _)| key.as_str()).collect();
    keys.sort_unstable();
    keys.windows(2).any(|two| two[0] == two[1])
}

/// What the body must mean after the usage event was asked for.
fn with_usage_asked(mut body: Value, has_early_null: bool) -> Value {
    let streams = body["stream"] == json!(true);
    match body.get_mut("stream_options") {
        Some(Value::Null) if has_early_null => {}
        None | Some(Value::Null) if streams => {
            body["stream_options"] = json!({"include_usage": true});
        }
        Some(Value::Object(options)) => {
            let asked = options.entry("include_usage").or_insert(Value::Null);
            if matches!(asked, Value::Null | Value::Bool(false)) {
                *asked = json!(true);
            }
        }
        _ => {}
    }
    body
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn an_edited_body_means_what_it_meant_plus_the_edit(body in any_body()) {
        let meant: Value = serde_json::from_str(&body).unwrap();
        let (sent, facts) = relay_whole(Api::OpenAiChat, &asking(), &body);
        let members: Members = serde_json::from_str(&body).unwrap();
        let expected = with_usage_asked(meant.clone(), has_early_null(&members));
        prop_assert_eq!(&serde_json::from_str::<Value>(&sent).unwrap(), &expected);
        prop_assert!(has_twice(&members) || !has_twice(&serde_json::from_str(&sent).unwrap()));
        let asks = expected["stream_options"]["include_usage"] == json!(true);
        let app_asks = meant["stream_options"]["include_usage"] == json!(true);
        prop_assert_eq!(facts.streams, meant["stream"] == json!(true));
        prop_assert_eq!(facts.app_includes_usage, app_asks);
        prop_assert_eq!(facts.usage_injected, facts.streams && asks && !app_asks);
        prop_assert_eq!(facts.model.as_deref(), meant["model"].as_str());
        prop_assert_eq!(facts.max_output_tokens, meant["max_tokens"].as_u64());
        if !body.contains("options") && !body.contains("5Foptions") && !facts.streams {
            prop_assert_eq!(sent, body);
        }
    }

    #[test]
    fn model_and_limit_are_edited_and_nothing_else(body in any_body()) {
        let edits = Edits { model: Some("m".into()), ..capping(7) };
        let mut meant: Value = serde_json::from_str(&body).unwrap();
        let (sent, _) = relay_whole(Api::OpenAiChat, &edits, &body);
        if meant["model"].is_string() {
            meant["model"] = json!("m");
        }
        if let Some(limit) = meant.get("max_tokens").filter(|limit| !limit.is_null()) {
            if limit.as_u64().is_some_and(|n| n > 7) {
                meant["max_tokens"] = json!(7);
            }
        } else if body.matches("max_tokens").count() == 0 {
            meant["max_completion_tokens"] = json!(7);
        } else {
            return Ok(());
        }
        let mut sent: Value = serde_json::from_str(&sent).unwrap();
        sent.as_object_mut().unwrap().retain(|key, _| meant.get(key).is_some());
        let meant_members = meant.as_object_mut().unwrap();
        meant_members.retain(|key, value| !value.is_null() || sent.get(key).is_some());
        prop_assert_eq!(sent, meant);
    }

    #[test]
    fn a_broken_body_passes_as_it_is(
        body in any_body(), at in any::<prop::sample::Index>(), byte in any::<u8>(), is_cut: bool,
    ) {
        // Without the one key that is edited in the midst of a body.
        let body = body.replace("options", "choices");
        let mut body = body.into_bytes();
        let at = at.index(body.len());
        if is_cut {
            body.truncate(at);
        } else {
            body[at] = byte;
        }
        let first = serde_json::Deserializer::from_slice(&body).into_iter::<Value>().next();
        prop_assume!(!matches!(first, Some(Ok(_))));
        // An escaped surrogate without its other half is JSON by RFC 8259, 8.2, though no text.
        let skimmed = serde_json::Deserializer::from_slice(&body).into_iter::<IgnoredAny>().next();
        let is_json = matches!(skimmed, Some(Ok(_))) && std::str::from_utf8(&body).is_ok();
        prop_assume!(!is_json);
        let (sent, is_changed, facts) = relay(body_of(Api::OpenAiChat, &asking()), &[&body]);
        prop_assert_eq!(sent, body);
        prop_assert!(!is_changed && !facts.usage_injected);
    }

    #[test]
    fn any_bytes_in_any_chunks_are_survived(
        body in "([\\[\\]{}:,\"\\\\ 0-9é]|\"stream(_options)?\":|\"model\":\"m\"|true|null){0,30}",
        size in 1usize..9,
    ) {
        let edits = Edits { model: Some("n".into()), include_usage: true, ..capping(3) };
        let whole = relay(body_of(Api::OpenAiChat, &edits), &[body.as_bytes()]);
        let chunks: Vec<&[u8]> = body.as_bytes().chunks(size).collect();
        let cut = relay(body_of(Api::OpenAiChat, &edits), &chunks);
        prop_assert_eq!((cut.0, cut.2), (whole.0, whole.2));
    }
}
