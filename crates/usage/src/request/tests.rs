//! Tables of reading and editing; each body is pushed whole, byte by byte and cut at each place.

mod properties;

use serde_json::{Value, json};

use super::*;
use crate::detect::{Api, Family, LimitKey};

fn target(api: Api, provider: &str) -> Target {
    Target::new(api, provider)
}

fn asking() -> Edits {
    Edits {
        include_usage: true,
        ..Edits::default()
    }
}

fn capping(n_tokens: u64) -> Edits {
    Edits {
        max_output_tokens: Some(n_tokens),
        ..Edits::default()
    }
}

/// Pushes the chunks; what was sent, whether it came as changed, and what was read.
fn relay(mut body: RequestBody, chunks: &[&[u8]]) -> (Vec<u8>, bool, RequestFacts) {
    let mut sent = Vec::new();
    let mut is_changed = false;
    for chunk in chunks {
        let edited = body.push(chunk);
        is_changed |= edited.is_some();
        sent.extend(edited.unwrap_or(chunk.to_vec()));
    }
    // What was withheld to the end stood there anyway.
    if let Some(rest) = body.finish() {
        is_changed &= chunks.len() > 1;
        sent.extend(rest);
    }
    (sent, is_changed, body.facts().clone())
}

fn body_of(api: Api, edits: &Edits) -> RequestBody {
    body_at("openai", api, edits)
}

fn body_at(provider: &str, api: Api, edits: &Edits) -> RequestBody {
    RequestBody::new(
        &target(api, provider),
        Some("application/json"),
        edits.clone(),
    )
}

fn relay_whole(api: Api, edits: &Edits, text: &str) -> (String, RequestFacts) {
    relay_whole_at("openai", api, edits, text)
}

fn relay_whole_at(provider: &str, api: Api, edits: &Edits, text: &str) -> (String, RequestFacts) {
    let body = || body_at(provider, api, edits);
    let whole = relay(body(), &[text.as_bytes()]);
    for cut in 0..=text.len() {
        let (head, tail) = text.as_bytes().split_at(cut);
        let cut_up = relay(body(), &[head, tail]);
        assert_eq!(
            (&cut_up.0, &cut_up.2),
            (&whole.0, &whole.2),
            "{text} cut at {cut}"
        );
    }
    let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
    let cut_up = relay(body(), &bytes);
    assert_eq!(
        (&cut_up.0, &cut_up.2),
        (&whole.0, &whole.2),
        "{text} byte by byte"
    );
    assert_eq!(whole.1, whole.0 != text.as_bytes(), "{text}");
    (String::from_utf8(whole.0).unwrap(), whole.2)
}

#[test]
fn the_usage_event_is_asked_for_by_these_rules() {
    for (body, sent) in [
        (
            r#"{"stream":true}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
        ),
        (
            "{\"stream\" : true\n}\n",
            "{\"stream\" : true\n,\"stream_options\":{\"include_usage\":true}}\n",
        ),
        (
            "\u{feff}{\"stream\":true}",
            "\u{feff}{\"stream\":true,\"stream_options\":{\"include_usage\":true}}",
        ),
        (
            r#"{"str\u0065am":true}"#,
            r#"{"str\u0065am":true,"stream_options":{"include_usage":true}}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
        ),
        (
            r#"{"stream_options":{"a":[{}] },"stream":true}"#,
            r#"{"stream_options":{"a":[{}] ,"include_usage":true},"stream":true}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{"include_usage":false,"a":1}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true,"a":1}}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{"include_usage": null }}"#,
            r#"{"stream":true,"stream_options":{"include_usage": true }}"#,
        ),
        (
            r#"{"stream":true,"stream_options":null}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
        ),
        (
            r#"{"stream":false,"stream":true}"#,
            r#"{"stream":false,"stream":true,"stream_options":{"include_usage":true}}"#,
        ),
        (
            r#"{"stream":true,"x":[{"stream":false}]}"#,
            r#"{"stream":true,"x":[{"stream":false}],"stream_options":{"include_usage":true}}"#,
        ),
    ] {
        let (edited, facts) = relay_whole(Api::OpenAiChat, &asking(), body);
        assert_eq!(edited, sent);
        assert!(
            facts.usage_injected && facts.streams && !facts.app_includes_usage,
            "{body}"
        );
    }
}

#[test]
fn an_object_of_stream_options_is_completed_before_the_stream_is_known() {
    // The provider takes the object with streams only: the body was as wrong before.
    let body = r#"{"stream_options":{},"stream":false}"#;
    let (edited, facts) = relay_whole(Api::OpenAiChat, &asking(), body);
    assert_eq!(
        edited,
        r#"{"stream_options":{"include_usage":true},"stream":false}"#
    );
    assert!(!facts.usage_injected);
    // An absent object and a null are valid without a stream, and stay so.
    let body = r#"{"stream":true,"stream_options":null,"stream":false}"#;
    let (edited, facts) = relay_whole(Api::OpenAiChat, &asking(), body);
    let edited: Value = serde_json::from_str(&edited).unwrap();
    assert_eq!(edited, json!({"stream": false, "stream_options": null}));
    assert!(!facts.usage_injected);
}

#[test]
fn bodies_that_need_no_usage_event_or_can_take_none_pass_as_they_are() {
    for (body, app_includes_usage) in [
        (
            r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
            true,
        ),
        (
            r#"{"stream_options":{"include_usage":true,"a":2},"stream":true}"#,
            true,
        ),
        (r#"{"stream":false}"#, false),
        (r#"{"stream":null,"stream_options":null}"#, false),
        // To ask, the key would have to stand there twice.
        (r#"{"stream_options":null,"stream":true}"#, false),
        (
            r#"{"stream_options":null,"messages":[],"stream":true}"#,
            false,
        ),
        (r#"{"stream":"true"}"#, false),
        ("{}", false),
        (
            r#"{"messages":[{"stream":true}],"x":{"stream":true}}"#,
            false,
        ),
        (r#"{"stream":true,"stream_options":5}"#, false),
        (r#"{"stream":true,"stream_options":[]}"#, false),
        (
            r#"{"stream":true,"stream_options":{"include_usage":"no"}}"#,
            false,
        ),
        (
            r#"{"stream":true,"stream_options":{"include_usage":{}}}"#,
            false,
        ),
        // Not whole, or not JSON.
        ("", false),
        (r#"{"stream":true"#, false),
        (r#"{"stream":true,}"#, false),
        (r#"{"stream":true]"#, false),
        (r#"{"stream":true,"x":[}"#, false),
        (r#"{"stream":true,"x":[{"a" 1}]}"#, false),
        (r#"{"stream":true,"x":nul}"#, false),
        ("{\"stream\":true,\"x\":\"\n\"}", false),
        (
            r#"{"stream":true,"stream_options":{"include_usage":fal"#,
            false,
        ),
        (
            r#"{"stream":true,"stream_options":{"include_usage":falsy}}"#,
            false,
        ),
        (r#"[{"stream":true}]"#, false),
        (r#""stream""#, false),
        ("stream=true", false),
    ] {
        let (edited, facts) = relay_whole(Api::OpenAiChat, &asking(), body);
        assert_eq!(edited, body);
        assert_eq!(
            (facts.app_includes_usage, facts.usage_injected),
            (app_includes_usage, false),
            "{body}"
        );
    }
}

/// What answers from data of one's own takes no such option, wherever it stands.
#[test]
fn data_of_ones_own_takes_back_what_was_asked_before() {
    for body in [
        r#"{"stream":true,"data_sources":[{"type":"a"}]}"#,
        r#"{"data_sources":[{}],"stream":true}"#,
        r#"{"data_sources":{"a":[]},"stream":true}"#,
        r#"{"data_sources":[],"stream":true,"stream_options":null}"#,
        r#"{"data_sources":[],"stream":true,"stream_options":{}}"#,
        r#"{"data_sources":[],"stream_options":{"include_usage":false},"stream":true}"#,
    ] {
        let (edited, facts) = relay_whole_at("azure", Api::OpenAiChat, &asking(), body);
        assert_eq!(edited, body);
        assert!(!facts.app_includes_usage && !facts.usage_injected, "{body}");
        // Only Azure does.
        for provider in ["openai", "vllm"] {
            let (edited, facts) = relay_whole_at(provider, Api::OpenAiChat, &asking(), body);
            let edited: Value = serde_json::from_str(&edited).unwrap();
            assert_eq!(edited["stream_options"], json!({"include_usage": true}));
            assert!(facts.usage_injected, "{body}");
        }
    }
    let own = crate::detect::detect_as(
        Family::Azure,
        "own",
        "/openai/deployments/d/chat/completions",
        "POST",
    );
    assert!(own.is_some_and(|target| target.is_azure));
    let body = r#"{"stream":true,"stream_options":null,"data_sources":[{"a":1}]}"#;
    let (edited, facts) = relay_whole_at("azure", Api::OpenAiChat, &asking(), body);
    let meant: Value = serde_json::from_str(body).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&edited).unwrap(), meant);
    assert!(!facts.usage_injected);
    // None is there, or it is within something else.
    for body in [
        r#"{"data_sources":null,"stream":true}"#,
        r#"{"data_sources":[],"data_sources":null,"stream":true}"#,
        r#"{"messages":[{"data_sources":[]}],"stream":true}"#,
    ] {
        let (edited, facts) = relay_whole_at("azure", Api::OpenAiChat, &asking(), body);
        let expected = format!(
            r#"{},"stream_options":{{"include_usage":true}}}}"#,
            &body[..body.len() - 1]
        );
        assert_eq!(edited, expected);
        assert!(facts.usage_injected, "{body}");
    }
}

#[test]
fn a_limit_is_not_added_under_a_key_that_may_be_refused() {
    let capped = |limit_key, body: &str| {
        let target = Target {
            limit_key,
            ..target(Api::OpenAiChat, "azure")
        };
        let mut whole = None;
        for n_chunk in [1, 5, body.len()] {
            let chunks: Vec<&[u8]> = body.as_bytes().chunks(n_chunk).collect();
            let (sent, _, facts) = relay(RequestBody::new(&target, None, capping(10)), &chunks);
            let sent = String::from_utf8(sent).unwrap();
            let got = (sent, facts.cap_put, facts.is_cap_unsure);
            assert_eq!(
                whole.get_or_insert(got.clone()),
                &got,
                "{body} by {n_chunk}"
            );
        }
        whole.unwrap()
    };
    use LimitKey::{MaxCompletionTokens, MaxTokens, Unsure};
    let (older, newer) = (r#"{"max_tokens":10}"#, r#"{"max_completion_tokens":10}"#);
    for (key, body, sent, put, is_unsure) in [
        (MaxTokens, "{}", older, Some(10), false),
        (MaxCompletionTokens, "{}", newer, Some(10), false),
        (Unsure, "{}", "{}", None, true),
        (Unsure, r#"{"max_tokens":99}"#, older, Some(10), false),
        (
            Unsure,
            r#"{"max_completion_tokens":99}"#,
            newer,
            Some(10),
            false,
        ),
        (Unsure, r#"{"max_tokens":10}"#, older, None, false),
        (
            Unsure,
            r#"{"max_tokens":null}"#,
            r#"{"max_tokens":null}"#,
            None,
            true,
        ),
        (
            MaxCompletionTokens,
            r#"{"data_sources":[]}"#,
            r#"{"data_sources":[]}"#,
            None,
            true,
        ),
        (
            MaxCompletionTokens,
            r#"{"data_sources":[],"max_tokens":99}"#,
            r#"{"data_sources":[],"max_tokens":10}"#,
            Some(10),
            false,
        ),
        (
            MaxTokens,
            r#"{"data_sources":[]}"#,
            r#"{"data_sources":[],"max_tokens":10}"#,
            Some(10),
            false,
        ),
    ] {
        assert_eq!(
            capped(key, body),
            (sent.to_owned(), put, is_unsure),
            "{key:?}"
        );
    }
}

#[test]
fn other_apis_and_types_are_not_asked() {
    let body = r#"{"stream":true}"#;
    for api in Api::ALL {
        let is_asked = matches!(api, Api::OpenAiChat | Api::OpenAiCompletions);
        assert_eq!(relay_whole(*api, &asking(), body).0 != body, is_asked);
        assert_eq!(body_of(*api, &asking()).may_change(), is_asked);
    }
    for (content_type, is_edited) in [
        (None, true),
        (Some("application/json; charset=utf-8"), true),
        (Some("Application/JSON"), true),
        (Some("application/vnd.api+json"), true),
        (Some("text/plain"), false),
        (Some("multipart/form-data; boundary=x"), false),
        (Some("application/jsonl"), false),
    ] {
        let target = target(Api::OpenAiChat, "openai");
        let body_reader = || RequestBody::new(&target, content_type, asking());
        assert_eq!(body_reader().may_change(), is_edited, "{content_type:?}");
        let (_, is_changed, _) = relay(body_reader(), &[body.as_bytes()]);
        assert_eq!(is_changed, is_edited, "{content_type:?}");
    }
    assert!(!body_of(Api::OpenAiChat, &Edits::default()).may_change());
}

#[test]
fn models_are_replaced_where_the_body_names_one() {
    let edits = Edits {
        model: Some("mini \"4\"\n".to_owned()),
        ..Edits::default()
    };
    let long = format!(r#"{{"model":"{}"}}"#, "m".repeat(257));
    for (body, sent) in [
        (
            r#"{"model":"gpt-4o","x":{"model":"y"}}"#,
            r#"{"model":"mini \"4\"\u000a","x":{"model":"y"}}"#,
        ),
        (
            r#"{"model": "a\"\u00e9" }"#,
            r#"{"model": "mini \"4\"\u000a" }"#,
        ),
        (
            r#"{"model":"a","model":"b"}"#,
            r#"{"model":"mini \"4\"\u000a","model":"mini \"4\"\u000a"}"#,
        ),
        (r#"{"model":null}"#, r#"{"model":null}"#),
        (r#"{"model":["a"]}"#, r#"{"model":["a"]}"#),
        (r#"{"model":"cut"#, r#"{"model":"cut"#),
        (r#"{"model":cut"#, r#"{"model":cut"#),
        ("{}", "{}"),
        (long.as_str(), long.as_str()),
    ] {
        assert_eq!(relay_whole(Api::OpenAiChat, &edits, body).0, sent);
    }
    let (_, facts) = relay_whole(Api::OpenAiChat, &edits, r#"{"model":"gpt-4o"}"#);
    assert_eq!(facts.model.as_deref(), Some("gpt-4o"));
}

#[test]
fn output_limits_are_lowered_or_added_under_the_apis_own_key() {
    for (api, body, sent) in [
        (
            Api::OpenAiChat,
            r#"{"max_tokens":500}"#,
            r#"{"max_tokens":100}"#,
        ),
        (
            Api::OpenAiChat,
            r#"{"max_completion_tokens": 1e3 }"#,
            r#"{"max_completion_tokens": 100 }"#,
        ),
        (
            Api::OpenAiChat,
            r#"{"max_tokens":99999999999999999999}"#,
            r#"{"max_tokens":100}"#,
        ),
        (
            Api::OpenAiChat,
            r#"{"max_tokens":100}"#,
            r#"{"max_tokens":100}"#,
        ),
        (
            Api::OpenAiChat,
            r#"{"max_tokens":"500"}"#,
            r#"{"max_tokens":"500"}"#,
        ),
        (
            Api::OpenAiChat,
            r#"{"max_tokens":1.5}"#,
            r#"{"max_tokens":1.5}"#,
        ),
        (
            Api::OllamaChat,
            r#"{"options":{"num_predict":-1}}"#,
            r#"{"options":{"num_predict":100}}"#,
        ),
        (Api::OpenAiChat, "{}", r#"{"max_completion_tokens":100}"#),
        (
            Api::OpenAiChat,
            r#"{"max_completion_tokens":null}"#,
            r#"{"max_completion_tokens":100}"#,
        ),
        (
            Api::OpenAiChat,
            r#"{"max_tokens":7,"max_completion_tokens":null}"#,
            r#"{"max_tokens":7,"max_completion_tokens":null}"#,
        ),
        (
            Api::OpenAiChat,
            r#"{"max_tokens":null}"#,
            r#"{"max_tokens":null,"max_completion_tokens":100}"#,
        ),
        (
            Api::OpenAiChat,
            r#"{"x":{"max_tokens":500}}"#,
            r#"{"x":{"max_tokens":500},"max_completion_tokens":100}"#,
        ),
        (
            Api::OpenAiResponses,
            r#"{"a":1}"#,
            r#"{"a":1,"max_output_tokens":100}"#,
        ),
        (Api::OpenAiCompletions, "{}", r#"{"max_tokens":100}"#),
        (
            Api::OpenAiAssistantsRun,
            r#"{"max_completion_tokens":101}"#,
            r#"{"max_completion_tokens":100}"#,
        ),
        (Api::OpenAiAssistantsRun, "{}", "{}"),
        (Api::OpenAiEmbeddings, "{}", "{}"),
        (
            Api::AnthropicComplete,
            r#"{"max_tokens_to_sample":101}"#,
            r#"{"max_tokens_to_sample":100}"#,
        ),
        (
            Api::GeminiInteractions,
            "{}",
            r#"{"generation_config":{"max_output_tokens":100}}"#,
        ),
        (
            Api::AnthropicMessages,
            r#"{"max_tokens":4096}"#,
            r#"{"max_tokens":100}"#,
        ),
        (Api::AnthropicMessages, r#"{"a":1}"#, r#"{"a":1}"#),
        (
            Api::GeminiGenerate,
            r#"{"generationConfig":{"maxOutputTokens":800}}"#,
            r#"{"generationConfig":{"maxOutputTokens":100}}"#,
        ),
        (
            Api::GeminiGenerate,
            r#"{"generation_config":{"max_output_tokens":80}}"#,
            r#"{"generation_config":{"max_output_tokens":80}}"#,
        ),
        (
            Api::GeminiGenerate,
            r#"{"generationConfig":{"maxOutputTokens":5},"generationConfig":{}}"#,
            concat!(
                r#"{"generationConfig":{"maxOutputTokens":5},"#,
                r#""generationConfig":{"maxOutputTokens":100}}"#
            ),
        ),
        (
            Api::GeminiGenerate,
            r#"{"generationConfig":{"a":1}}"#,
            r#"{"generationConfig":{"a":1,"maxOutputTokens":100}}"#,
        ),
        (
            Api::GeminiGenerate,
            r#"{"generationConfig":null}"#,
            r#"{"generationConfig":{"maxOutputTokens":100}}"#,
        ),
        (
            Api::GeminiGenerate,
            r#"{}"#,
            r#"{"generationConfig":{"maxOutputTokens":100}}"#,
        ),
        (
            Api::GeminiGenerate,
            r#"{"maxOutputTokens":5}"#,
            r#"{"maxOutputTokens":5,"generationConfig":{"maxOutputTokens":100}}"#,
        ),
    ] {
        assert_eq!(relay_whole(api, &capping(100), body).0, sent);
    }
    let compatible = target(Api::OpenAiChat, "groq");
    let (sent, ..) = relay(RequestBody::new(&compatible, None, capping(9)), &[b"{}"]);
    assert_eq!(sent, br#"{"max_tokens":9}"#);
}

#[test]
fn all_edits_go_together() {
    let edits = Edits {
        include_usage: true,
        model: Some("mini".to_owned()),
        max_output_tokens: Some(10),
        ..Edits::default()
    };
    let body = r#"{"model":"big","stream":true}"#;
    let sent = [
        r#"{"model":"mini","stream":true,"max_completion_tokens":10,"#,
        r#""stream_options":{"include_usage":true}}"#,
    ];
    assert_eq!(relay_whole(Api::OpenAiChat, &edits, body).0, sent.concat());
}

#[test]
fn facts_are_read_as_each_api_writes_them() {
    let facts = |api, body| relay_whole(api, &Edits::default(), body).1;
    let chat = facts(
        Api::OpenAiChat,
        r#"{"messages":[{"model":"no"}],"model":"gpt-4o","max_tokens":5,"max_completion_tokens":7,
            "service_tier":"flex","stream":true,"model":"gpt-\u0034o-mini",
            "tools":[{"n":9}],"n":2}"#,
    );
    assert_eq!((chat.n_choices, chat.has_tools), (Some(2), true));
    assert_eq!(chat.model.as_deref(), Some("gpt-4o-mini"));
    assert_eq!(chat.max_output_tokens, Some(7));
    assert_eq!(chat.service_tier.as_deref(), Some("flex"));
    assert!(chat.streams && !chat.usage_injected);
    let responses = facts(
        Api::OpenAiResponses,
        r#"{"max_output_tokens":9,"max_tokens":1}"#,
    );
    assert_eq!(responses.max_output_tokens, Some(9));
    let gemini = facts(
        Api::GeminiStreamGenerate,
        r#"{"generationConfig":{"maxOutputTokens":9,"candidateCount":4},
            "generation_config":{"max_output_tokens":3,"candidate_count":5},"tools":[]}"#,
    );
    assert_eq!((gemini.n_choices, gemini.has_tools), (Some(5), false));
    assert_eq!((gemini.max_output_tokens, gemini.streams), (Some(3), true));
    let second = facts(
        Api::OpenAiChat,
        r#"{"model":"a"} {"model":"b","stream":true}"#,
    );
    assert_eq!(
        (second.model.as_deref(), second.streams),
        (Some("a"), false)
    );
    assert_eq!(second.body_bytes, 41);
}

#[test]
fn an_agent_is_asked_in_a_models_place() {
    let body = r#"{"agent":"deep-research-preview","input":"a","background":true}"#;
    let (_, facts) = relay_whole(Api::GeminiInteractions, &Edits::default(), body);
    assert_eq!(facts.model.as_deref(), Some("deep-research-preview"));
}

#[test]
fn the_last_of_two_limits_holds() {
    for (api, body, n_tokens) in [
        (Api::OpenAiChat, r#"{"max_tokens":0,"max_tokens":{}}"#, None),
        (
            Api::OpenAiChat,
            r#"{"max_tokens":5,"max_tokens":[7]}"#,
            None,
        ),
        (
            Api::OpenAiChat,
            r#"{"max_tokens":5,"max_tokens":"7"}"#,
            None,
        ),
        (
            Api::OpenAiChat,
            r#"{"max_tokens":5,"max_tokens":null}"#,
            None,
        ),
        (
            Api::OpenAiChat,
            r#"{"max_tokens":{},"max_tokens":5}"#,
            Some(5),
        ),
        (
            Api::OpenAiChat,
            r#"{"max_tokens":5,"max_completion_tokens":{}}"#,
            Some(5),
        ),
        (
            Api::GeminiGenerate,
            r#"{"generationConfig":{"maxOutputTokens":5,"maxOutputTokens":{}}}"#,
            None,
        ),
    ] {
        let (_, facts) = relay_whole(api, &Edits::default(), body);
        assert_eq!(facts.max_output_tokens, n_tokens, "{body}");
    }
}

#[test]
fn reasoning_is_asked_for_in_several_ways() {
    for (api, body, asks_reasoning) in [
        (Api::OpenAiChat, "{}", false),
        (Api::OpenAiChat, r#"{"reasoning_effort":"low"}"#, true),
        (Api::OpenAiChat, r#"{"reasoning_effort":"none"}"#, false),
        (Api::OpenAiChat, r#"{"reasoning":{"enabled":true}}"#, true),
        (
            Api::OpenAiResponses,
            r#"{"reasoning":{"effort":"high"}}"#,
            true,
        ),
        (Api::OpenAiResponses, r#"{"reasoning":null}"#, false),
        (
            Api::AnthropicMessages,
            r#"{"thinking":{"type":"enabled","budget_tokens":2000}}"#,
            true,
        ),
        (
            Api::AnthropicMessages,
            r#"{"thinking":{"type":"disabled"}}"#,
            false,
        ),
        (
            Api::GeminiGenerate,
            r#"{"generationConfig":{"thinkingConfig":{"thinkingBudget":0}}}"#,
            false,
        ),
        (
            Api::GeminiGenerate,
            r#"{"generationConfig":{"thinkingConfig":{"thinkingBudget":-1}}}"#,
            true,
        ),
    ] {
        let (_, facts) = relay_whole(api, &Edits::default(), body);
        assert_eq!(facts.asks_reasoning, asks_reasoning, "{body}");
    }
}

#[test]
fn models_are_replaced_one_by_one() {
    let edits = Edits {
        replacer: Some(Replacer::new(|asked| {
            (asked == "big").then(|| "small".to_owned())
        })),
        ..Edits::default()
    };
    for (body, expected, put) in [
        (r#"{"model":"big"}"#, r#"{"model":"small"}"#, Some("small")),
        (
            r#"{"model":"b\u0069g"}"#,
            r#"{"model":"small"}"#,
            Some("small"),
        ),
        (r#"{"model":"bigger"}"#, r#"{"model":"bigger"}"#, None),
        (
            r#"{"model":"big","model":"other"}"#,
            r#"{"model":"small","model":"other"}"#,
            None,
        ),
    ] {
        let (sent, facts) = relay_whole(Api::OpenAiChat, &edits, body);
        assert_eq!(sent, expected);
        assert_eq!(facts.model_put.as_deref(), put, "{body}");
        assert_ne!(facts.model.as_deref(), Some("small"), "the app's own word");
    }
}

#[test]
fn a_cap_that_was_put_is_told() {
    for (api, body, put) in [
        (Api::OpenAiChat, r#"{"max_tokens":50}"#, Some(10)),
        (Api::OpenAiChat, r#"{"max_tokens":5}"#, None),
        (Api::OpenAiChat, r#"{}"#, Some(10)),
        (
            Api::GeminiGenerate,
            r#"{"generationConfig":null}"#,
            Some(10),
        ),
        (Api::GeminiGenerate, r#"{"generationConfig":{}}"#, Some(10)),
        (Api::OpenAiEmbeddings, r#"{}"#, None),
    ] {
        let (_, facts) = relay_whole(api, &capping(10), body);
        assert_eq!(facts.cap_put, put, "{body}");
    }
}

#[test]
fn every_model_that_is_read_is_replaced() {
    let edits = Edits {
        model: Some("mini".to_owned()),
        ..Edits::default()
    };
    let escaped = |n_letters: usize| r"\u0061".repeat(n_letters);
    for (model, is_read) in [
        (escaped(60), true),
        (escaped(256), true),
        ("a".repeat(256), true),
        ("a".repeat(257), false),
        (escaped(257), false),
    ] {
        let body = format!(r#"{{"model":"{model}"}}"#);
        let expected = if is_read {
            r#"{"model":"mini"}"#
        } else {
            &body
        };
        for n_chunk in [1, 7, 300, body.len()] {
            let chunks: Vec<&[u8]> = body.as_bytes().chunks(n_chunk).collect();
            let (sent, _, facts) = relay(body_of(Api::OpenAiChat, &edits), &chunks);
            assert_eq!(String::from_utf8(sent).unwrap(), expected, "by {n_chunk}");
            assert_eq!(facts.model.is_some(), is_read);
        }
    }
}

#[test]
fn a_model_in_the_path_goes_before_one_in_the_body() {
    let mut deployment = target(Api::OpenAiChat, "azure");
    deployment.path_model = Some("prod-4o".to_owned());
    let edits = Edits {
        model: Some("mini".to_owned()),
        ..Edits::default()
    };
    for body in ["{}", r#"{"model":"gpt-4o"}"#, r#"{"model":[]}"#] {
        let (sent, _, facts) = relay(
            RequestBody::new(&deployment, None, edits.clone()),
            &[body.as_bytes()],
        );
        assert_eq!(facts.model.as_deref(), Some("prod-4o"));
        assert_eq!(sent, body.as_bytes());
    }
}

#[test]
fn forms_are_read_for_their_model() {
    let file = format!(
        "model\n--xy\r{}\nname=\"model\"\r\n",
        "\u{0}\r\n".repeat(400)
    );
    let body = format!(
        "--xy\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\
         Content-Type: audio/wav\r\n\r\n{file}\r\n--xy\r\n\
         content-disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--xy\r\n\
         Content-Disposition: form-data; name=stream\r\n\r\ntrue\r\n--xy--\r\n"
    );
    let target = target(Api::OpenAiChat, "openai");
    let form = || {
        let content_type = Some("multipart/form-data; charset=utf-8; boundary=\"xy\"");
        RequestBody::new(&target, content_type, asking())
    };
    for cut in 0..=body.len() {
        let (head, tail) = body.as_bytes().split_at(cut);
        let (sent, is_changed, facts) = relay(form(), &[head, tail]);
        assert_eq!((sent.as_slice(), is_changed), (body.as_bytes(), false));
        assert_eq!(facts.model.as_deref(), Some("whisper-1"), "{cut}");
        assert!(facts.streams && facts.body_bytes == body.len() as u64);
    }
}

#[test]
fn what_a_file_is_called_names_no_field() {
    let is_field = |disposition: &str| {
        let body =
            format!("--xy\r\nContent-Disposition: {disposition}\r\n\r\nwhisper-1\r\n--xy--\r\n");
        let target = target(Api::OpenAiAudio, "openai");
        let content_type = Some("multipart/form-data; boundary=xy");
        let form = RequestBody::new(&target, content_type, Edits::default());
        relay(form, &[body.as_bytes()]).2.model.is_some()
    };
    for (disposition, is_model) in [
        (r#"form-data; name="model""#, true),
        (r#"form-data;name=model"#, true),
        (r#"form-data; filename="a;b"; name="model""#, true),
        (r#"form-data; filename="a\"; b"; NAME = "model""#, true),
        (r#"form-data; filename="a\\"; name="model""#, true),
        (r#"form-data; name="mod\el""#, true),
        (
            r#"form-data; filename="a; name=model; b"; name="file""#,
            false,
        ),
        (
            r#"form-data; filename="a\"; name=model; b"; name="file""#,
            false,
        ),
        (r#"form-data; name="file"; filename="a; name=model""#, false),
        (r#"form-data; filename="a; name=model"#, false),
        (r#"form-data; filename*=utf-8''a; name*=model"#, false),
    ] {
        assert_eq!(is_field(disposition), is_model, "{disposition}");
    }
}

/// Servers differ in what they take for a part, for its name, and in which of two of one name counts.
#[test]
fn forms_that_servers_may_read_otherwise_are_known() {
    let named = |name: &str| format!("Content-Disposition: form-data; {name}");
    let part = |head: &str, value: &str| format!("--xy\r\n{head}\r\n\r\n{value}\r\n");
    let model = |value: &str| part(&named(r#"name="model""#), value);
    let xy = "boundary=xy";
    let long = "a".repeat(600);
    for (boundary, body, expected, is_unsure) in [
        (xy, model("m"), Some("m"), false),
        (xy, model("m") + &model("m"), Some("m"), false),
        ("boundary=\"xy\"", model("m"), Some("m"), false),
        (
            xy,
            part(&named(&format!(r#"name="file"; filename="{long}""#)), "m"),
            None,
            false,
        ),
        (
            xy,
            part(&named(r#"name="file"; filename="C:\a.wav""#), "m"),
            None,
            false,
        ),
        (
            xy,
            part(&named(r#"name="file"; filename="a\"b.wav""#), "x\r\ny") + &model("m"),
            Some("m"),
            false,
        ),
        // Which counts?
        (xy, model("dear") + &model("m"), Some("m"), true),
        (
            xy,
            model("m") + &part(&named(r#"name="mod\el""#), "m2"),
            Some("m2"),
            true,
        ),
        // Escapes and names, undone or not.
        (xy, part(&named(r#"name="\model""#), "m"), Some("m"), true),
        (
            xy,
            part(&named(r#"name="file"; name="model""#), "m"),
            Some("m"),
            true,
        ),
        (xy, part(&named("name*=utf-8''model"), "m"), None, true),
        (
            xy,
            part(&named(r#"name*0="mo"; name*1="del""#), "m"),
            None,
            true,
        ),
        (
            xy,
            part(&named(r#"filename="a\\"; x="; name=model; y=""#), "m"),
            None,
            true,
        ),
        (
            xy,
            part(&named(&format!(r#"x="{long}"; name="model""#)), "m"),
            None,
            true,
        ),
        (
            xy,
            part("Content-Disposition: form-data;\r\n name=\"model\"", "m"),
            None,
            true,
        ),
        (
            xy,
            part("Content-Disposition : form-data; name=model", "m"),
            Some("m"),
            true,
        ),
        (
            xy,
            part(
                &format!("{}\r\n{}", named("name=file"), named("name=model")),
                "m",
            ),
            Some("m"),
            true,
        ),
        // What ends a part.
        (
            xy,
            part(&format!("{}\r\n--xyz: 1", named("name=model")), "m"),
            None,
            true,
        ),
        (
            xy,
            format!("--xy{}\r\n{}", " ".repeat(600), &model("m")[6..]),
            None,
            true,
        ),
        (xy, model("\r\nm"), Some(""), true),
        (xy, model(&long), None, true),
        (r#"boundary="x\y""#, model("m"), None, true),
        ("boundary*=utf-8''xy", model("m"), Some("m"), true),
        (&format!("boundary={long}"), model("m"), None, true),
    ] {
        let body = body + "--xy--\r\n";
        let target = target(Api::OpenAiAudio, "openai");
        let content_type = format!("multipart/form-data; {boundary}");
        for n_chunk in [1, 100, body.len()] {
            let mut form = RequestBody::new(&target, Some(&content_type), Edits::default());
            for chunk in body.as_bytes().chunks(n_chunk) {
                form.push(chunk);
            }
            form.finish();
            let found = (form.facts().model.as_deref(), form.is_unsure());
            assert_eq!(found, (expected, is_unsure), "{boundary}\n{body}");
        }
    }
}

#[test]
fn large_and_deep_bodies_take_no_more_than_small_ones() {
    let long = "x".repeat(1 << 20);
    let body = format!(r#"{{"model":"{long}","messages":["{long}"],"stream":true}}"#);
    let edits = Edits {
        model: Some("m".to_owned()),
        ..asking()
    };
    let mut reader = body_of(Api::OpenAiChat, &edits);
    let mut n_sent = 0;
    for (i, chunk) in body.as_bytes().chunks(1000).enumerate() {
        n_sent += reader
            .push(chunk)
            .map_or(chunk.len(), |edited| edited.len());
        assert!(
            (i + 1) * 1000 - n_sent <= splice::WITHHELD_BYTES_MAX || reader.facts.usage_injected
        );
    }
    assert_eq!(
        n_sent,
        body.len() + r#","stream_options":{"include_usage":true}"#.len()
    );
    let deep = format!(r#"{{"stream":true,"x":{}"#, "[".repeat(100_000));
    let (sent, is_changed, _) = relay(body_of(Api::OpenAiChat, &edits), &[deep.as_bytes()]);
    assert_eq!((sent.len(), is_changed), (deep.len(), false));
}

#[test]
fn encoded_bodies_are_read_as_what_they_decode_to() {
    use std::io::Write;
    let pool = DecoderPool::default();
    let n_left = pool.n_bytes_left();
    let long = "x".repeat(100_000);
    let plain = format!(r#"{{"messages":["{long}"],"stream":true,"model":"gpt-4o"}}"#);
    let compressed = || {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(plain.as_bytes()).unwrap();
        let mut brotli = Vec::new();
        let params = brotli::enc::BrotliEncoderParams::default();
        brotli::BrotliCompress(&mut plain.as_bytes(), &mut brotli, &params).unwrap();
        let level = ruzstd::encoding::CompressionLevel::Fastest;
        let zstd = ruzstd::encoding::compress_to_vec(plain.as_bytes(), level);
        [
            ("gzip", gzip.finish().unwrap()),
            ("br", brotli),
            ("zstd", zstd),
        ]
    };
    let target = target(Api::OpenAiChat, "openai");
    let body = |encoding| RequestBody::encoded(&target, Some("application/json"), encoding, &pool);
    let is_read = |facts: &RequestFacts| {
        facts.model.as_deref() == Some("gpt-4o")
            && facts.streams
            && facts.body_bytes == plain.len() as u64
    };
    for (encoding, sent) in compressed() {
        for n_chunk in [1, 7, sent.len()] {
            let mut reader = body(encoding);
            for chunk in sent.chunks(n_chunk) {
                assert_eq!(reader.push(chunk), None);
            }
            assert_eq!(reader.finish(), None);
            assert!(is_read(reader.facts()), "{encoding} {:?}", reader.facts());
            assert_eq!(reader.n_bytes_sent(), sent.len() as u64);
            assert_eq!(pool.n_bytes_left(), n_left, "its memory is given back");
            assert!(!reader.may_change());
        }
        // What is not what its header says.
        let (sent_back, is_changed, facts) = relay(body(encoding), &[plain.as_bytes()]);
        assert!(is_read(&facts), "{encoding} {facts:?}");
        assert_eq!(
            (sent_back.as_slice(), is_changed),
            (plain.as_bytes(), false)
        );
    }
    for encoding in ["gzip, gzip", "x-own", "", "identity, identity"] {
        let (.., facts) = relay(body(encoding), &[plain.as_bytes()]);
        assert!(is_read(&facts), "{encoding} {facts:?}");
    }
    // Where no memory is left for a decoder, the body is read as it is.
    let none = DecoderPool::of(0);
    for (encoding, sent) in compressed() {
        let mut reader = RequestBody::encoded(&target, None, encoding, &none);
        reader.push(&sent);
        reader.finish();
        assert_eq!(reader.facts().model, None);
        assert!(reader.is_unsure() && reader.lacks_memory(), "{encoding}");
    }
}

/// What comes behind the break may say otherwise, and counts then.
#[test]
fn bodies_that_decode_in_part_are_not_known_for_sure() {
    use std::io::Write;
    let gzipped = |plain: &[u8]| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(plain).unwrap();
        gzip.finish().unwrap()
    };
    let zstd = |plain: &[u8]| {
        let level = ruzstd::encoding::CompressionLevel::Fastest;
        ruzstd::encoding::compress_to_vec(plain, level)
    };
    let first = r#"{"model":"cheap","max_tokens":1,"n":1,"#;
    let rest = r#""model":"dear","max_tokens":9,"n":9}"#;
    // Descriptor 0, no content size; a window of 16 MiB; one raw block, the last.
    let mut wide = vec![0x28, 0xB5, 0x2F, 0xFD, 0, 14 << 3];
    wide.extend_from_slice(&((rest.len() as u32) << 3 | 1).to_le_bytes()[..3]);
    wide.extend_from_slice(rest.as_bytes());
    let spaces = " ".repeat(20 << 20);
    let whole = [first, rest].concat();
    let cut = gzipped(whole.as_bytes());
    let broken = [
        ("zstd", [zstd(first.as_bytes()), wide].concat()),
        ("gzip", gzipped([first, &spaces, rest].concat().as_bytes())),
        ("gzip", cut[..cut.len() - 4].to_vec()),
        (
            "gzip",
            [gzipped(first.as_bytes()), b"\x1f\x00".to_vec()].concat(),
        ),
    ];
    let target = target(Api::OpenAiChat, "openai");
    let pool = DecoderPool::default();
    let read = |encoding: &str, sent: &[u8], n_chunk: usize| {
        let mut body = RequestBody::encoded(&target, None, encoding, &pool);
        for chunk in sent.chunks(n_chunk) {
            body.push(chunk);
        }
        body.finish();
        body
    };
    for (encoding, sent) in broken {
        for n_chunk in [7, sent.len()] {
            let body = read(encoding, &sent, n_chunk);
            assert!(body.is_unsure() && !body.lacks_memory(), "{encoding}");
            let facts = body.facts();
            assert!(facts.model.is_some(), "{encoding}");
            assert_eq!((facts.max_output_tokens, facts.n_choices), (None, None));
        }
    }
    for (encoding, sent) in [
        ("gzip", gzipped(whole.as_bytes())),
        (
            "zstd",
            [zstd(first.as_bytes()), zstd(rest.as_bytes())].concat(),
        ),
    ] {
        let body = read(encoding, &sent, 7);
        assert!(!body.is_unsure(), "{encoding}");
        let facts = body.facts();
        let limits = (facts.max_output_tokens, facts.n_choices);
        assert_eq!(facts.model.as_deref(), Some("dear"));
        assert_eq!(limits, (Some(9), Some(9)));
    }
}
