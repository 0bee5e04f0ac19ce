//! Exchanges put together from the providers' documentation, in variants that are rare on the wire:
//! each is read as documented, however its body is cut.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use tollmesh_usage::{
    Detection, Edits, RequestBody, RequestFacts, ResponseHead, Scan, Target, UsageScanner, detect,
};

const ANTHROPIC: &str = "api.anthropic.com /v1/messages";
const GEMINI: &str = "generativelanguage.googleapis.com /v1beta/models/g:generateContent";
const GEMINI_STREAM: &str =
    "generativelanguage.googleapis.com /v1beta/models/g:streamGenerateContent?alt=sse";
const VERTEX: &str = "us-central1-aiplatform.googleapis.com \
    /v1/projects/p/locations/us-central1/publishers";
const BEDROCK: &str = "bedrock-runtime.us-east-1.amazonaws.com /model";

/// One exchange: what was asked, what came, and what that means.
struct Row {
    /// Host and path.
    url: String,
    request: &'static str,
    status: u16,
    /// Headers as `name: value`; the content type comes first.
    headers: &'static [&'static str],
    body: Vec<u8>,
    /// What differs from [`usual`].
    expected: Value,
}

/// What an answer means where a row does not say otherwise.
fn usual() -> Value {
    json!({
        "model": null, "usage": {}, "billed": null, "source": "reported", "billable": true,
        "complete": null, "is_error": false, "finish_reason": null, "tool_calls": null,
        "tier": null, "extra": [], "trouble": null, "context": {},
    })
}

impl Row {
    fn json(url: impl Into<String>, body: Value, expected: Value) -> Row {
        Row {
            url: url.into(),
            request: "{}",
            status: 200,
            headers: &["application/json"],
            body: serde_json::to_vec_pretty(&body).unwrap(),
            expected,
        }
    }

    fn events(url: impl Into<String>, events: &[Value], expected: Value) -> Row {
        let body = events.iter().map(|event| format!("data: {event}\r\n\r\n"));
        Row {
            headers: &["text/event-stream; charset=utf-8"],
            body: body.collect::<String>().into_bytes(),
            ..Row::json(url, Value::Null, expected)
        }
    }

    fn lines(url: impl Into<String>, lines: &[Value], expected: Value) -> Row {
        let body = lines.iter().map(|line| format!("{line}\n"));
        Row {
            headers: &["application/x-ndjson"],
            body: body.collect::<String>().into_bytes(),
            ..Row::json(url, Value::Null, expected)
        }
    }

    /// A stream of AWS's, of `:event-type` or `:exception-type` and payload.
    fn messages(url: impl Into<String>, messages: &[(&str, Value)], expected: Value) -> Row {
        let body = messages
            .iter()
            .map(|(kind, payload)| message(kind, payload));
        Row {
            headers: &["application/vnd.amazon.eventstream"],
            body: body.collect::<Vec<_>>().concat(),
            ..Row::json(url, Value::Null, expected)
        }
    }

    fn target(&self) -> Target {
        let (host, path) = self.url.split_once(' ').unwrap();
        let method = match path.ends_with("/results") {
            true => "GET",
            false => "POST",
        };
        match detect(host, path.trim_start(), method) {
            Detection::Metered(target) => target,
            other => panic!("{}: {other:?}", self.url),
        }
    }

    fn scan(&self, target: &Target, n_chunk: usize) -> Scan {
        let mut request = RequestBody::new(target, Some("application/json"), Edits::default());
        request.push(self.request.as_bytes());
        let facts: RequestFacts = request.facts().clone();
        let (kind, others) = self.headers.split_first().unwrap();
        let others = others.iter().map(|header| header.split_once(": ").unwrap());
        let headers = std::iter::once(("content-type", *kind)).chain(others);
        let head = ResponseHead {
            status: self.status,
            headers: headers.map(|(n, v)| (n.to_owned(), v.to_owned())).collect(),
        };
        let mut scanner = UsageScanner::new(target, &facts, &head);
        self.body
            .chunks(n_chunk)
            .for_each(|chunk| scanner.push(chunk));
        let mut scan = scanner.finish();
        scan.settle_model(target, &facts);
        scan
    }

    fn check(&self) {
        let target = self.target();
        let mut expected = usual();
        expected["api"] = json!(target.api.name());
        for (name, value) in self.expected.as_object().unwrap() {
            expected[name] = value.clone();
        }
        for n_chunk in [1, 7, usize::MAX] {
            let scan = self.scan(&target, n_chunk);
            let got = as_json(&target, &scan);
            let body = self.body.escape_ascii();
            assert_eq!(got, expected, "{} in pieces of {n_chunk}: {body}", self.url);
        }
    }
}

fn as_json(target: &Target, scan: &Scan) -> Value {
    let extra = scan.extra_usage.iter();
    let extra = extra.map(|extra| json!([extra.kind, extra.model, extra.usage]));
    json!({
        "api": target.api.name(),
        "model": scan.model,
        "usage": scan.usage,
        "billed": scan.billed_usage,
        "source": scan.usage_source.name(),
        "billable": scan.billable,
        "complete": scan.complete,
        "is_error": scan.is_error,
        "finish_reason": scan.finish_reason,
        "tool_calls": scan.tool_calls,
        "tier": scan.service_tier,
        "extra": extra.collect::<Vec<_>>(),
        "trouble": scan.trouble.map(|trouble| trouble.name()),
        "context": scan.pricing_context,
    })
}

/// One message of AWS's event stream.
fn message(kind: &str, payload: &Value) -> Vec<u8> {
    let is_exception = kind.ends_with("Exception");
    let (message_type, name) = match is_exception {
        true => ("exception", ":exception-type"),
        false => ("event", ":event-type"),
    };
    let mut headers = Vec::new();
    for (name, value) in [(name, kind), (":message-type", message_type)] {
        headers.push(name.len() as u8);
        headers.extend_from_slice(name.as_bytes());
        headers.push(7);
        headers.extend_from_slice(&(value.len() as u16).to_be_bytes());
        headers.extend_from_slice(value.as_bytes());
    }
    let payload = match kind {
        "chunk" => json!({"bytes": BASE64.encode(payload.to_string()), "p": "abcdef"}).to_string(),
        _ => payload.to_string(),
    };
    let total = 16 + headers.len() + payload.len();
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&(total as u32).to_be_bytes());
    bytes.extend_from_slice(&(headers.len() as u32).to_be_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
    bytes.extend_from_slice(&headers);
    bytes.extend_from_slice(payload.as_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
    bytes
}

fn check(rows: impl IntoIterator<Item = Row>) {
    rows.into_iter().for_each(|row| row.check());
}

/// <https://platform.claude.com/docs/en/build-with-claude/refusals-and-fallback>
#[test]
fn a_model_that_serves_in_anothers_place_is_told_from_the_one_that_declined() {
    let declined = json!({"type": "message", "model": "claude-fable-5", "input_tokens": 2,
        "cache_creation_input_tokens": 10, "cache_read_input_tokens": 70, "output_tokens": 5});
    let unheard = json!({"type": "message", "model": "claude-fable-5", "input_tokens": 2,
        "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 0});
    let served = json!({"type": "fallback_message", "model": "claude-opus-4-8",
        "input_tokens": 3, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 70,
        "output_tokens": 40});
    let usage = |iterations: Value| {
        json!({"input_tokens": 3, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 70,
            "output_tokens": 40, "iterations": iterations})
    };
    let buckets = json!({"input": 3, "cache_read": 70, "cache_write": 0, "output": 40});
    let whole = |iterations: Value| {
        json!({"id": "msg_1", "type": "message", "model": "claude-opus-4-8", "content": [
            {"type": "fallback", "from": {"model": "claude-fable-5"},
             "to": {"model": "claude-opus-4-8"}}, {"type": "text", "text": "hi"}],
            "stop_reason": "end_turn", "usage": usage(iterations)})
    };
    let common = json!({"model": "claude-opus-4-8", "usage": buckets, "tool_calls": 0,
        "finish_reason": "end_turn"});
    let charged = json!([["message", "claude-fable-5",
        {"input": 2, "cache_read": 70, "cache_write": 10, "output": 5}]]);
    let with = |name: &str, value: &Value, base: &Value| {
        let mut base = base.clone();
        base[name] = value.clone();
        base
    };
    let heard = with("extra", &charged, &common);
    check([
        Row::json(ANTHROPIC, whole(json!([declined, served])), heard.clone()),
        Row::json(ANTHROPIC, whole(json!([unheard, served])), common.clone()),
        Row::json(ANTHROPIC, whole(json!([served])), common.clone()),
        Row::json(ANTHROPIC, whole(Value::Null), common),
        Row::events(
            ANTHROPIC,
            &[
                json!({"type": "message_start", "message": {"id": "msg_1", "content": [],
                    "model": "claude-fable-5", "stop_reason": null,
                    "usage": {"input_tokens": 2, "output_tokens": 1}}}),
                json!({"type": "content_block_delta", "index": 0,
                    "delta": {"type": "text_delta", "text": "hi"}}),
                json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"},
                    "usage": usage(json!([declined, served]))}),
                json!({"type": "message_stop"}),
            ],
            with("complete", &json!(true), &heard),
        ),
    ]);
}

/// The same page, on billing: what was refused before any output is not charged.
#[test]
fn a_refusal_before_any_output_charges_nothing() {
    let refused = |content: Value| {
        json!({"type": "message", "model": "m", "content": content, "stop_reason": "refusal",
            "stop_details": {"type": "refusal", "category": "cyber"},
            "usage": {"input_tokens": 106, "output_tokens": 1}})
    };
    let expected = json!({"model": "m", "usage": {"input": 106, "output": 1}, "tool_calls": 0,
        "finish_reason": "refusal"});
    let mut unheard = expected.clone();
    unheard["billed"] = json!({"input": 0, "output": 0});
    let spoken = refused(json!([{"type": "text", "text": "Sure"}]));
    let path = format!("{BEDROCK}/us.anthropic.claude-fable-5/invoke");
    check([
        Row::json(ANTHROPIC, refused(json!([])), unheard.clone()),
        Row::json(path, refused(json!([])), unheard),
        Row::json(ANTHROPIC, spoken, expected),
    ]);
}

/// <https://platform.claude.com/docs/en/build-with-claude/streaming#error-events>,
/// `…/api/messages` (`usage`), `…/build-with-claude/batch-processing#retrieve-batch-results`
#[test]
fn anthropic_says_many_things_beside_the_counts() {
    let start = json!({"type": "message_start", "message": {"id": "msg_1", "model": "m",
        "content": [], "usage": {"input_tokens": 10, "output_tokens": 1}}});
    let overloaded = json!({"type": "error",
        "error": {"type": "overloaded_error", "message": "Overloaded"}});
    let path = "api.anthropic.com /v1/messages/batches/b/results";
    let result = |result: Value| json!({"custom_id": "a", "result": result});
    let message = json!({"type": "message", "model": "m", "usage": {"input_tokens": 10,
        "output_tokens": 4, "server_tool_use": {"web_search_requests": 2}}});
    check([
        Row::events(
            ANTHROPIC,
            &[start.clone(), json!({"type": "ping"}), overloaded.clone()],
            json!({"model": "m", "usage": {"input": 10, "output": 1}, "tool_calls": 0,
                "complete": false, "is_error": true, "trouble": "truncated"}),
        ),
        Row {
            status: 529,
            ..Row::json(
                ANTHROPIC,
                overloaded,
                json!({"is_error": true, "billable": false, "source": "absent"}),
            )
        },
        Row::json(
            ANTHROPIC,
            json!({"type": "message", "model": "m", "content": [
                {"type": "server_tool_use", "name": "web_search", "input": {"usage": {"input_tokens": 7}}},
                {"type": "web_search_tool_result", "content": [{"input_tokens": 9}]},
                {"type": "mcp_tool_use", "name": "x"}, {"type": "tool_use", "name": "y", "input": {}}],
                "stop_reason": "tool_use", "usage": {"input_tokens": 10, "output_tokens": 4,
                "cache_creation_input_tokens": 30, "cache_read_input_tokens": 5,
                "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 10},
                "output_tokens_details": {"thinking_tokens": 3}, "service_tier": "priority",
                "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 1},
                "inference_geo": "us", "speed": "fast", "unknown": {"input_tokens": 99}}}),
            json!({"model": "m", "finish_reason": "tool_use", "tool_calls": 1, "tier": "priority",
                "context": {"inference_geo": "us", "speed": "fast"},
                "usage": {"input": 10, "cache_read": 5, "cache_write": 20, "cache_write_1h": 10,
                "output": 1, "reasoning": 3, "web_searches": 2, "web_fetches": 1}}),
        ),
        Row::lines(
            path,
            &[
                result(json!({"type": "succeeded", "message": message})),
                result(json!({"type": "errored", "error": {"type": "error",
                    "error": {"type": "invalid_request_error"}}})),
                result(json!({"type": "canceled"})),
                result(json!({"type": "expired"})),
                result(json!({"type": "succeeded", "message": message})),
            ],
            json!({"billable": false, "source": "absent",
                "extra": [["batch_result", "m", {"input": 20, "output": 8, "web_searches": 4,
                    "requests": 2}]]}),
        ),
    ]);
}

/// <https://platform.claude.com/docs/en/build-with-claude/streaming>: the counts of `message_delta`
/// are cumulative and have no split by time to live; hosts that only speak the dialect leave out
/// what they do not know.
#[test]
fn the_last_word_of_an_anthropic_stream_counts() {
    let start = |usage: Value| {
        json!({"type": "message_start", "message": {"id": "msg_1", "model": "m", "content": [],
            "usage": usage}})
    };
    let end = |usage: Value| json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage});
    let stop = json!({"type": "message_stop"});
    let written = json!({"input_tokens": 5, "cache_creation_input_tokens": 40,
        "cache_read_input_tokens": 0, "output_tokens": 1, "service_tier": "standard",
        "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 30}});
    let told = |usage: Value| {
        json!({"model": "m", "usage": usage, "tool_calls": 0, "finish_reason": "end_turn",
            "complete": true})
    };
    let standard = |usage: Value| {
        let mut told = told(usage);
        told["tier"] = json!("standard");
        told
    };
    check([
        Row::events(
            ANTHROPIC,
            &[
                start(written.clone()),
                end(json!({"input_tokens": 9, "cache_creation_input_tokens": 0,
                    "cache_read_input_tokens": 7, "output_tokens": 8})),
                stop.clone(),
            ],
            standard(
                json!({"input": 9, "cache_read": 7, "cache_write": 0, "cache_write_1h": 0,
                "output": 8}),
            ),
        ),
        Row::events(
            ANTHROPIC,
            &[
                start(written),
                end(json!({"output_tokens": 8})),
                stop.clone(),
            ],
            standard(
                json!({"input": 5, "cache_read": 0, "cache_write": 10, "cache_write_1h": 30,
                "output": 8}),
            ),
        ),
        Row::events(
            "openrouter.ai /api/v1/messages",
            &[
                start(json!({"input_tokens": 0, "output_tokens": 0})),
                end(
                    json!({"input_tokens": 5, "cache_creation_input_tokens": null,
                    "output_tokens": 8, "cache_creation": null, "server_tool_use": null,
                    "iterations": null, "service_tier": null}),
                ),
                stop.clone(),
            ],
            told(json!({"input": 5, "output": 8})),
        ),
        Row::events(
            "gw.internal /team/v1/messages",
            &[
                start(Value::Null),
                end(json!({"input_tokens": 5.0, "output_tokens": 8e0})),
                stop,
            ],
            told(json!({"input": 5, "output": 8})),
        ),
    ]);
}

/// <https://docs.aws.amazon.com/claude-platform/latest/userguide/making-requests.html>,
/// <https://www.alibabacloud.com/help/en/model-studio/anthropic-api-messages>,
/// <https://api-docs.deepseek.com/guides/anthropic_api>, and others that speak it under a prefix
#[test]
fn others_speak_anthropics_dialect() {
    for (url, provider) in [
        (
            "aws-external-anthropic.us-west-2.api.aws /v1/messages",
            "claude-aws",
        ),
        (
            "dashscope-intl.aliyuncs.com /apps/anthropic/v1/messages",
            "alibaba",
        ),
        ("api.novita.ai /anthropic/v1/messages", "novita"),
        ("api.deepseek.com /anthropic/v1/messages", "deepseek"),
        ("api.z.ai /api/anthropic/v1/messages", "zai"),
        ("api.minimax.io /anthropic/v1/messages", "minimax"),
        ("api.moonshot.ai /anthropic/v1/messages", "moonshotai"),
        ("r.services.ai.azure.com /anthropic/v1/messages", "azure"),
        (
            "bedrock-mantle.us-east-1.api.aws /anthropic/v1/messages",
            "bedrock-mantle",
        ),
    ] {
        let row = Row::json(
            url,
            json!({"type": "message", "model": "m", "content": [], "stop_reason": "end_turn",
                "usage": {"input_tokens": 4, "cache_read_input_tokens": null, "output_tokens": 2}}),
            json!({"model": "m", "usage": {"input": 4, "output": 2}, "tool_calls": 0,
                "finish_reason": "end_turn"}),
        );
        assert_eq!(row.target().provider, provider);
        row.check();
    }
}

/// <https://ai.google.dev/api/generate-content#PromptFeedback>, `…#UsageMetadata`
#[test]
fn gemini_ends_where_it_says_why() {
    let rated = json!({"candidates": [{"content": {"parts": [{"text": "a"}]}, "index": 0}],
        "promptFeedback": {"safetyRatings": [{"category": "C", "probability": "NEGLIGIBLE"}]},
        "usageMetadata": {"promptTokenCount": 4, "totalTokenCount": 4}, "modelVersion": "g-1"});
    let last = json!({"candidates": [{"finishReason": "STOP", "index": 0},
        {"finishReason": "SAFETY", "index": 1}], "usageMetadata": {"promptTokenCount": 4,
        "candidatesTokenCount": 6, "totalTokenCount": 10}, "modelVersion": "g-1"});
    let blocked = json!({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"},
        "usageMetadata": {"promptTokenCount": 4, "totalTokenCount": 4}, "modelVersion": "g-1"});
    check([
        Row::events(
            GEMINI_STREAM,
            &[rated.clone(), last],
            json!({"model": "g-1", "usage": {"input": 4, "output": 6}, "complete": true,
                "tool_calls": 0, "finish_reason": "STOP"}),
        ),
        Row::events(
            GEMINI_STREAM,
            &[rated],
            json!({"model": "g-1", "usage": {"input": 4}, "complete": false, "tool_calls": 0,
                "trouble": "truncated"}),
        ),
        Row::events(
            GEMINI_STREAM,
            std::slice::from_ref(&blocked),
            json!({"model": "g-1", "usage": {"input": 4}, "complete": true}),
        ),
        Row::json(
            GEMINI,
            blocked,
            json!({"model": "g-1", "usage": {"input": 4}}),
        ),
        Row::json(
            GEMINI,
            json!({"candidates": [{"content": {"parts": [{"inlineData": {"mimeType": "image/png",
                "data": "iVBORw0KGgo="}}]}, "finishReason": "STOP"}], "usageMetadata": {
                "promptTokenCount": 1000, "candidatesTokenCount": 1300, "totalTokenCount": 2400,
                "thoughtsTokenCount": 100, "cachedContentTokenCount": 200, "promptTokensDetails": [
                {"modality": "TEXT", "tokenCount": 400}, {"modality": "AUDIO", "tokenCount": 350},
                {"modality": "VIDEO", "tokenCount": 200}, {"modality": "DOCUMENT", "tokenCount": 50}],
                "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 50},
                {"modality": "TEXT", "tokenCount": 150}], "candidatesTokensDetails": [
                {"modality": "IMAGE", "tokenCount": 1290}, {"modality": "TEXT", "tokenCount": 10}]}}),
            json!({"model": "g", "finish_reason": "STOP", "tool_calls": 0,
                "usage": {"input": 500, "cache_read": 150, "audio_input": 300,
                "cache_read_audio": 50, "output": 10, "reasoning": 100, "image_output": 1290}}),
        ),
    ]);
}

/// <https://ai.google.dev/gemini-api/docs/google-search>, on pricing: the unique queries of a prompt
/// are charged; empty ones are not.
#[test]
fn geminis_queries_are_counted_once_each() {
    let candidate = |index: u64, queries: Value| {
        json!({"content": {"parts": [{"text": "a"}]}, "index": index, "finishReason": "STOP",
            "groundingMetadata": {"webSearchQueries": queries}})
    };
    let answer = |candidates: Value| {
        json!({"candidates": candidates, "usageMetadata": {"promptTokenCount": 4,
            "candidatesTokenCount": 6, "totalTokenCount": 10}, "modelVersion": "g-1"})
    };
    let one = |queries: Value| answer(json!([candidate(0, queries)]));
    let wanted = |n: u64| {
        let mut usage = json!({"input": 4, "output": 6, "grounded_prompts": 1});
        if n > 0 {
            usage["web_searches"] = json!(n);
        }
        json!({"model": "g-1", "usage": usage, "tool_calls": 0, "finish_reason": "STOP"})
    };
    let whole = |answer: Value, n: u64| Row::json(GEMINI, answer, wanted(n));
    let streamed = |chunks: &[Value], n: u64| {
        let mut wanted = wanted(n);
        wanted["complete"] = json!(true);
        Row::events(GEMINI_STREAM, chunks, wanted)
    };
    let (long, longer) = ("q".repeat(300), "q".repeat(400));
    check([
        whole(one(json!(["", "a", "", "b"])), 2),
        whole(one(json!(["a", "a"])), 1),
        whole(one(json!([""])), 0),
        whole(one(json!(["caf\u{e9}", "cafe"])), 2),
        whole(
            answer(json!([
                candidate(0, json!(["a", "b"])),
                candidate(1, json!(["c"]))
            ])),
            3,
        ),
        whole(
            answer(json!([
                candidate(0, json!(["a", "b"])),
                candidate(1, json!(["b"]))
            ])),
            2,
        ),
        streamed(&[one(json!(["a", "b"])), one(json!([]))], 2),
        streamed(&[one(json!(["a"])), one(json!(["a", "b"]))], 2),
        whole(one(json!([long, longer])), 2),
        streamed(&[one(json!([long])), one(json!([long]))], 1),
    ]);
}

/// <https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api>,
/// <https://ai.google.dev/gemini-api/docs/imagen>
#[test]
fn predictions_are_embeddings_or_images() {
    let embedding = |n: f64| {
        json!({"embeddings": {"values": [0.1], "statistics":
        {"truncated": false, "token_count": n}}})
    };
    let image = json!({"bytesBase64Encoded": "iVBO".repeat(500), "mimeType": "image/png"});
    let imagen = "generativelanguage.googleapis.com /v1beta/models/imagen-4:predict";
    check([
        Row::json(
            format!("{VERTEX}/google/models/text-embedding-005:predict"),
            json!({"predictions": [embedding(7.0), embedding(5.0)],
                "metadata": {"billableCharacterCount": 40}}),
            json!({"model": "text-embedding-005",
                "usage": {"input": 12, "output": 0, "characters": 40}}),
        ),
        Row::json(
            imagen,
            json!({"predictions": [image, image, {"raiFilteredReason": "x"}]}),
            json!({"model": "imagen-4", "usage": {"images": 2}, "source": "absent"}),
        ),
    ]);
}

/// <https://cloud.google.com/vertex-ai/generative-ai/docs/partner-models/mistral>, `…/ai21`
#[test]
fn publishers_on_vertex_speak_chat_completions() {
    let chunk = |finish: Value, usage: Value| {
        json!({"id": "c", "model": "m-1", "choices": [{"index": 0, "delta": {"content": "a"},
            "finish_reason": finish}], "usage": usage})
    };
    let usage = json!({"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7});
    let expected = json!({"model": "m-1", "usage": {"input": 5, "output": 2}, "tool_calls": 0,
        "finish_reason": "stop"});
    let mut streamed = expected.clone();
    streamed["complete"] = json!(true);
    check([
        Row::json(
            format!("{VERTEX}/ai21/models/jamba-1.5-mini@001:rawPredict"),
            json!({"id": "c", "model": "m-1", "choices": [{"index": 0, "message":
                {"content": "a", "tool_calls": null}, "finish_reason": "stop"}], "usage": usage}),
            expected,
        ),
        Row::events(
            format!("{VERTEX}/mistralai/models/mistral-small-2503:streamRawPredict"),
            &[chunk(Value::Null, Value::Null), chunk(json!("stop"), usage)],
            streamed,
        ),
    ]);
}

/// <https://ai.google.dev/api/interactions-api>
#[test]
fn interactions_count_by_modality() {
    check([Row::json(
        "generativelanguage.googleapis.com /v1beta/interactions",
        json!({"id": "v1_1", "model": "g", "status": "completed", "steps": [], "usage": {
            "total_input_tokens": 20, "total_output_tokens": 1130, "total_tokens": 1150,
            "output_tokens_by_modality": [{"modality": "image", "tokens": 1120},
            {"modality": "text", "tokens": 10}]}}),
        json!({"model": "g", "finish_reason": "completed", "tool_calls": 0,
            "usage": {"input": 20, "output": 10, "image_output": 1120}}),
    )]);
    // What grounding read is not charged; what was looked up is.
    let grounded = |tools: Value| {
        json!({"id": "v1_1", "model": "g", "status": "completed", "steps": [], "usage": {
            "total_input_tokens": 20, "total_tool_use_tokens": 300, "total_output_tokens": 10,
            "total_thought_tokens": 5, "total_tokens": 335, "grounding_tool_count": tools}})
    };
    let url = "generativelanguage.googleapis.com /v1beta/interactions";
    let tools = json!([{"type": "google_search", "count": 3}, {"type": "google_maps", "count": 2}]);
    let units = json!({"web_searches": 3, "maps_queries": 2, "grounded_prompts": 1});
    let with = |input: u64| {
        let mut all = json!({"input": input, "output": 10, "reasoning": 5});
        let all_units = units.as_object().unwrap().clone();
        all.as_object_mut().unwrap().extend(all_units);
        all
    };
    check([
        Row::json(
            url,
            grounded(tools),
            json!({"model": "g", "finish_reason": "completed", "tool_calls": 0, "usage": with(320),
                "billed": with(20)}),
        ),
        Row::json(
            url,
            grounded(json!([{"type": "retrieval", "count": 1}])),
            json!({"model": "g", "finish_reason": "completed", "tool_calls": 0,
                "usage": {"input": 320, "output": 10, "reasoning": 5}}),
        ),
        Row::json(
            url,
            json!({"id": "v1_1", "status": "failed", "usage": {"total_input_tokens": 2}}),
            json!({"finish_reason": "failed", "is_error": true, "usage": {"input": 2},
                "trouble": "error_in_body"}),
        ),
    ]);
}

/// <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html> (`trace`,
/// `serviceTier`, `usage.cacheDetails`), `…/API_runtime_ConverseStreamOutput.html` (exceptions)
#[test]
fn converse_tells_router_tier_and_exceptions() {
    let usage = json!({"inputTokens": 10, "outputTokens": 4, "totalTokens": 64,
        "cacheReadInputTokens": 20, "cacheWriteInputTokens": 30, "cacheDetails": [
        {"ttl": "5m", "inputTokens": 10}, {"ttl": "1h", "inputTokens": 20}]});
    let router = json!({"promptRouter": {"invokedModelId": "arn:aws:bedrock:us-east-1::x/nova"}});
    let buckets = json!({"input": 10, "cache_read": 20, "cache_write": 10, "cache_write_1h": 20,
        "output": 4});
    let path = format!("{BEDROCK}/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Aprompt-router%2Fr");
    let expected = json!({"model": "arn:aws:bedrock:us-east-1::x/nova", "usage": buckets,
        "finish_reason": "end_turn", "tier": "flex", "tool_calls": 0});
    let mut streamed = expected.clone();
    streamed["complete"] = json!(true);
    check([
        Row::json(
            format!("{path}/converse"),
            json!({"output": {"message": {"role": "assistant", "content": [{"text": "a"}]}},
                "stopReason": "end_turn", "usage": usage, "trace": router,
                "serviceTier": {"type": "flex"}, "metrics": {"latencyMs": 1}}),
            expected,
        ),
        Row::messages(
            format!("{path}/converse-stream"),
            &[
                ("messageStart", json!({"role": "assistant"})),
                (
                    "contentBlockDelta",
                    json!({"contentBlockIndex": 0, "delta": {"text": "a"}}),
                ),
                ("messageStop", json!({"stopReason": "end_turn"})),
                (
                    "metadata",
                    json!({"usage": usage, "metrics": {"latencyMs": 1},
                    "trace": router, "serviceTier": {"type": "flex"}}),
                ),
            ],
            streamed,
        ),
        Row::messages(
            format!("{BEDROCK}/amazon.nova-lite-v1%3A0/converse-stream"),
            &[
                ("messageStart", json!({"role": "assistant"})),
                (
                    "contentBlockDelta",
                    json!({"contentBlockIndex": 0, "delta": {"text": "a"}}),
                ),
                (
                    "throttlingException",
                    json!({"message": "Too many \"usage\""}),
                ),
            ],
            json!({"model": null, "source": "absent", "is_error": true, "complete": false,
                "tool_calls": 0, "trouble": "truncated"}),
        ),
    ]);
}

/// <https://github.com/earendil-works/pi/issues/8752>, <https://github.com/maximhq/bifrost/pull/6942>
#[test]
fn streams_of_openais_models_on_bedrock_count_the_cache_in_the_input() {
    let told = |model: &str, input: u64, read: u64, written: u64, net: u64| {
        let usage = json!({"inputTokens": input, "outputTokens": 19,
            "totalTokens": input + read + written + 19, "cacheReadInputTokens": read,
            "cacheWriteInputTokens": written});
        let expected = json!({"model": model, "finish_reason": "end_turn", "tool_calls": 0,
            "usage": {"input": net, "cache_read": read, "cache_write": written, "output": 19}});
        let mut streamed = expected.clone();
        streamed["complete"] = json!(true);
        let streamed = Row::messages(
            format!("{BEDROCK}/{model}/converse-stream"),
            &[
                ("messageStart", json!({"role": "assistant"})),
                ("messageStop", json!({"stopReason": "end_turn"})),
                ("metadata", json!({"usage": usage})),
            ],
            streamed,
        );
        let whole = Row::json(
            format!("{BEDROCK}/{model}/converse"),
            json!({"output": {"message": {"role": "assistant", "content": [{"text": "a"}]}},
                "stopReason": "end_turn", "usage": usage}),
            expected,
        );
        (streamed, whole)
    };
    let (streamed, _) = told("openai.gpt-5.6", 4995, 0, 4993, 2);
    streamed.check();
    let (streamed, _) = told("us.openai.gpt-5.6", 12401, 8367, 4032, 2);
    streamed.check();
    // As the reference has it.
    let (streamed, whole) = told("openai.gpt-5.6", 2, 8367, 4032, 2);
    check([streamed, whole]);
    let (_, whole) = told("openai.gpt-5.6", 5000, 8, 4, 5000);
    whole.check();
    let (streamed, whole) = told("us.anthropic.claude-opus-4-8", 5000, 8, 4, 5000);
    check([streamed, whole]);
}

/// <https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html> (Jamba, gpt-oss,
/// Titan, Stability, Claude), `…/APIReference/API_runtime_InvokeModel.html` (headers)
#[test]
fn invoked_models_have_bodies_of_their_own() {
    let call =
        |id: Value| json!({"index": 0, "id": id, "function": {"name": "f", "arguments": "{"}});
    let chat = json!({"id": "c", "choices": [
        {"index": 1, "message": {"content": "b"}, "finish_reason": "length"},
        {"index": 0, "message": {"content": null, "tool_calls": [call(json!("a")), call(json!("b"))]},
         "finish_reason": "tool_calls"}], "usage": {"prompt_tokens": 9, "completion_tokens": 6,
        "total_tokens": 15, "completion_tokens_details": {"reasoning_tokens": 2}}});
    let piece = |call: Value| json!({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]});
    let image = "iVBO".repeat(500);
    let compaction = json!({"type": "compaction", "input_tokens": 90, "output_tokens": 8});
    check([
        Row {
            headers: &["application/json", "x-amzn-bedrock-service-tier: priority"],
            ..Row::json(
                format!("{BEDROCK}/ai21.jamba-1-5-mini-v1%3A0/invoke"),
                chat,
                json!({"model": "ai21.jamba-1-5-mini-v1:0", "finish_reason": "tool_calls",
                    "usage": {"input": 9, "output": 4, "reasoning": 2}, "tool_calls": 2,
                    "tier": "priority"}),
            )
        },
        Row::messages(
            format!("{BEDROCK}/openai.gpt-oss-20b-1%3A0/invoke-with-response-stream"),
            &[
                ("chunk", piece(call(json!("a")))),
                ("chunk", piece(call(Value::Null))),
                (
                    "chunk",
                    json!({"choices": [{"index": 0, "delta": {}, "finish_reason":
                    "tool_calls"}], "amazon-bedrock-invocationMetrics": {"inputTokenCount": 9,
                    "outputTokenCount": 6}}),
                ),
            ],
            json!({"model": "openai.gpt-oss-20b-1:0", "usage": {"input": 9, "output": 6},
                "finish_reason": "tool_calls", "tool_calls": 1, "complete": true}),
        ),
        Row::json(
            format!("{BEDROCK}/qwen.qwen3-coder-480b-a35b-v1%3A0/invoke"),
            json!({"choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 90, "completion_tokens": 6, "total_tokens": 96,
                "prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 4}}}),
            json!({"model": "qwen.qwen3-coder-480b-a35b-v1:0", "finish_reason": "stop",
                "usage": {"input": 26, "cache_read": 64, "output": 2, "reasoning": 4}}),
        ),
        // The headers tell net input beside the cache, the body the whole.
        Row {
            headers: &[
                "application/json",
                "x-amzn-bedrock-input-token-count: 26",
                "x-amzn-bedrock-output-token-count: 6",
                "x-amzn-bedrock-cache-read-input-token-count: 64",
            ],
            ..Row::json(
                format!("{BEDROCK}/openai.gpt-oss-120b-1%3A0/invoke"),
                json!({"choices": [{"index": 0, "message": {"content": "a"}, "finish_reason":
                    "stop"}], "usage": {"prompt_tokens": 90, "completion_tokens": 6}}),
                json!({"model": "openai.gpt-oss-120b-1:0", "finish_reason": "stop",
                    "usage": {"input": 26, "cache_read": 64, "output": 6}}),
            )
        },
        Row::messages(
            format!("{BEDROCK}/moonshot.kimi-k2-thinking/invoke-with-response-stream"),
            &[
                (
                    "chunk",
                    json!({"choices": [{"index": 0, "delta": {"content": "a"},
                    "finish_reason": "stop"}]}),
                ),
                (
                    "chunk",
                    json!({"choices": [], "usage": {"prompt_tokens": 90,
                    "completion_tokens": 6, "prompt_tokens_details": {"cached_tokens": 64}},
                    "amazon-bedrock-invocationMetrics": {"inputTokenCount": 90,
                    "outputTokenCount": 6}}),
                ),
            ],
            json!({"model": "moonshot.kimi-k2-thinking", "finish_reason": "stop", "complete": true,
                "usage": {"input": 26, "cache_read": 64, "output": 6}}),
        ),
        Row::json(
            format!("{BEDROCK}/amazon.titan-image-generator-v2%3A0/invoke"),
            json!({"images": [image, image, null], "error": null}),
            json!({"model": "amazon.titan-image-generator-v2:0", "usage": {"images": 2},
                "source": "absent"}),
        ),
        Row::json(
            format!("{BEDROCK}/us.anthropic.claude-opus-4-6-v1/invoke"),
            json!({"type": "message", "model": "claude-opus-4-6", "content": [],
                "stop_reason": "end_turn", "usage": {"input_tokens": 5, "output_tokens": 3,
                "iterations": [compaction, {"type": "message", "input_tokens": 5,
                "output_tokens": 3}]}}),
            json!({"model": "claude-opus-4-6", "usage": {"input": 5, "output": 3},
                "finish_reason": "end_turn", "tool_calls": 0,
                "extra": [["compaction", null, {"input": 90, "output": 8}]]}),
        ),
    ]);
}

/// <https://docs.aws.amazon.com/bedrock/latest/userguide/latency-optimized-inference.html>,
/// `…/APIReference/API_runtime_InvokeModel.html`
#[test]
fn bedrock_tells_whether_a_call_was_served_with_less_latency() {
    let usage = json!({"inputTokens": 7, "outputTokens": 9, "totalTokens": 16});
    let metadata = json!({"metrics": {"latencyMs": 1}, "usage": usage,
        "performanceConfig": {"latency": "optimized"}});
    let whole = |latency: &str| {
        json!({"output": {"message": {"role": "assistant", "content": [{"text": "a"}]}},
            "performanceConfig": {"latency": latency}, "stopReason": "end_turn", "usage": usage})
    };
    let expected = |latency: &str| {
        json!({"model": "us.amazon.nova-pro-v1:0", "usage": {"input": 7, "output": 9},
            "tool_calls": 0, "finish_reason": "end_turn", "context": {"latency": latency}})
    };
    let mut streamed = expected("optimized");
    streamed["complete"] = json!(true);
    let path = format!("{BEDROCK}/us.amazon.nova-pro-v1%3A0");
    check([
        Row::json(
            format!("{path}/converse"),
            whole("optimized"),
            expected("optimized"),
        ),
        Row::json(
            format!("{path}/converse"),
            whole("standard"),
            expected("standard"),
        ),
        Row::messages(
            format!("{path}/converse-stream"),
            &[
                ("messageStart", json!({"role": "assistant"})),
                ("messageStop", json!({"stopReason": "end_turn"})),
                ("metadata", metadata),
            ],
            streamed,
        ),
        Row {
            headers: &[
                "application/json",
                "x-amzn-bedrock-performanceconfig-latency: optimized",
            ],
            ..Row::json(
                format!("{path}/invoke"),
                json!({"output": {"message": {"role": "assistant", "content": [{"text": "a"}]}},
                    "stopReason": "end_turn", "usage": {"inputTokens": 7, "outputTokens": 9}}),
                expected("optimized"),
            )
        },
    ]);
}

/// <https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-diffusion-1-0-text-image.html>,
/// `…/model-parameters-diffusion-3-5-large.html`, `…/model-parameters-cohere-command-r-plus.html`
#[test]
fn invoked_models_name_images_and_calls_in_words_of_their_own() {
    let image = "iVBO".repeat(50);
    let command = "cohere.command-r-plus-v1%3A0";
    let calls = json!([{"name": "query", "parameters": {"day": "2023-09-29"}},
        {"name": "catalog", "parameters": {}}]);
    let counted: &[&str] = &[
        "application/json",
        "x-amzn-bedrock-input-token-count: 10",
        "x-amzn-bedrock-output-token-count: 5",
    ];
    let called = json!({"model": "cohere.command-r-plus-v1:0", "usage": {"input": 10, "output": 5},
        "finish_reason": "COMPLETE", "tool_calls": 2});
    let mut streamed = called.clone();
    streamed["complete"] = json!(true);
    check([
        Row::json(
            format!("{BEDROCK}/stability.stable-diffusion-xl-v1/invoke"),
            json!({"result": "success", "artifacts": [
                {"seed": 1, "base64": image, "finishReason": "SUCCESS"},
                {"seed": 2, "base64": image, "finishReason": "CONTENT_FILTERED"}]}),
            json!({"model": "stability.stable-diffusion-xl-v1", "usage": {"images": 2},
                "source": "absent"}),
        ),
        Row::json(
            format!("{BEDROCK}/stability.sd3-5-large-v1%3A0/invoke"),
            json!({"seeds": [1, 2], "finish_reasons": [null, "Filter reason: output image"],
                "images": [image, ""]}),
            json!({"model": "stability.sd3-5-large-v1:0", "usage": {"images": 1},
                "source": "absent"}),
        ),
        Row {
            headers: counted,
            ..Row::json(
                format!("{BEDROCK}/{command}/invoke"),
                json!({"response_id": "r", "text": "", "generation_id": "g", "chat_history": [],
                    "finish_reason": "COMPLETE", "tool_calls": calls}),
                called,
            )
        },
        Row::messages(
            format!("{BEDROCK}/{command}/invoke-with-response-stream"),
            &[
                (
                    "chunk",
                    json!({"is_finished": false, "event_type": "tool-calls-generation",
                    "tool_calls": calls}),
                ),
                (
                    "chunk",
                    json!({"is_finished": true, "event_type": "stream-end", "finish_reason":
                    "COMPLETE", "response": {"tool_calls": calls, "finish_reason": "COMPLETE"},
                    "amazon-bedrock-invocationMetrics": {"inputTokenCount": 10,
                    "outputTokenCount": 5}}),
                ),
            ],
            streamed,
        ),
    ]);
}

/// <https://docs.cohere.com/v1/reference/chat-stream>, <https://docs.cohere.com/reference/chat-stream>,
/// <https://docs.cohere.com/reference/rerank>
#[test]
fn cohere_tells_what_it_processed_and_what_it_charges() {
    let meta = json!({"billed_units": {"input_tokens": 4, "output_tokens": 2},
        "tokens": {"input_tokens": 60, "output_tokens": 3}});
    let usage = json!({"input": 60, "output": 3});
    let billed = json!({"input": 4, "output": 2});
    check([
        Row {
            request: r#"{"model":"command-r","stream":true}"#,
            ..Row::lines(
                "api.cohere.com /v1/chat",
                &[
                    json!({"is_finished": false, "event_type": "stream-start"}),
                    json!({"is_finished": false, "event_type": "text-generation", "text": "a"}),
                    json!({"is_finished": true, "event_type": "stream-end", "finish_reason":
                        "COMPLETE", "response": {"text": "a", "meta": meta}}),
                ],
                json!({"model": "command-r", "usage": usage, "billed": billed, "complete": true,
                    "finish_reason": "COMPLETE", "tool_calls": 0}),
            )
        },
        Row {
            request: r#"{"model":"command-a","stream":true}"#,
            ..Row::events(
                "api.cohere.com /v2/chat",
                &[
                    json!({"type": "message-start", "id": "1", "delta": {"message": {"content": []}}}),
                    json!({"type": "message-end", "delta": {"finish_reason": "ERROR",
                        "error": "upstream", "usage": meta}}),
                ],
                json!({"usage": usage, "billed": billed, "complete": true, "is_error": true,
                    "finish_reason": "ERROR", "tool_calls": 0, "trouble": "error_in_body"}),
            )
        },
        Row {
            request: r#"{"model":"rerank-v3.5"}"#,
            ..Row::json(
                "api.cohere.com /v2/rerank",
                json!({"id": "1", "results": [], "meta": {"billed_units": {"search_units": 3}}}),
                json!({"model": "rerank-v3.5", "usage": {"search_units": 3}}),
            )
        },
        Row {
            request: r#"{"model":"rerank-v3.5"}"#,
            ..Row::json(
                "api.cohere.com /v2/rerank",
                json!({"id": "1", "results": [], "meta": {"billed_units": {"search_units": 3},
                    "tokens": {"input_tokens": 67}}}),
                json!({"model": "rerank-v3.5", "usage": {"input": 67, "search_units": 3},
                    "billed": {"search_units": 3}}),
            )
        },
        // https://docs.cohere.com/reference/embed: images beside texts.
        Row {
            request: r#"{"model":"embed-v4.0"}"#,
            ..Row::json(
                "api.cohere.com /v2/embed",
                json!({"id": "1", "embeddings": {}, "meta": {"billed_units": {"input_tokens": 12,
                    "image_tokens": 1500, "images": 2}, "tokens": {"input_tokens": 14}}}),
                json!({"model": "embed-v4.0", "usage": {"input": 14, "image_input": 1500,
                    "images": 2, "output": 0}, "billed": {"input": 12, "image_input": 1500,
                    "images": 2}}),
            )
        },
        // https://docs.cohere.com/v1/reference/chat: a connector that searched.
        Row {
            request: r#"{"model":"command-r"}"#,
            ..Row::json(
                "api.cohere.com /v1/chat",
                json!({"text": "a", "finish_reason": "COMPLETE", "meta": {"billed_units": {
                    "input_tokens": 4, "output_tokens": 2, "search_units": 1},
                    "tokens": {"input_tokens": 60, "output_tokens": 3}}}),
                json!({"model": "command-r", "finish_reason": "COMPLETE", "tool_calls": 0,
                    "usage": {"input": 60, "output": 3, "search_units": 1},
                    "billed": {"input": 4, "output": 2, "search_units": 1}}),
            )
        },
    ]);
}

/// <https://github.com/ollama/ollama/blob/main/docs/api.md>,
/// <https://cloud.ibm.com/apidocs/watsonx-ai#text-embeddings>,
/// <https://docs.voyageai.com/reference/multimodal-embeddings-api>
#[test]
fn plain_counts_stand_at_the_top() {
    check([
        Row::lines(
            "localhost:11434 /api/chat",
            &[
                json!({"model": "l", "message": {"content": "a"}, "done": false}),
                json!({"model": "l", "message": {"content": ""}, "done": true, "done_reason":
                    "stop", "eval_count": 3}),
            ],
            json!({"model": "l", "usage": {"output": 3}, "complete": true, "tool_calls": 0,
                "finish_reason": "stop"}),
        ),
        Row::lines(
            "localhost:11434 /api/chat",
            &[
                json!({"model": "l", "message": {"content": "a"}, "done": false}),
                json!({"error": "model runner has unexpectedly stopped"}),
            ],
            json!({"model": "l", "source": "absent", "complete": false, "is_error": true,
                "tool_calls": 0, "trouble": "truncated"}),
        ),
        Row::json(
            "us-south.ml.cloud.ibm.com /ml/v1/text/embeddings?version=2024-01-01",
            json!({"model_id": "ibm/slate", "results": [{"embedding": [0.1]}],
                "input_token_count": 11}),
            json!({"model": "ibm/slate", "usage": {"input": 11, "output": 0}}),
        ),
        Row::json(
            "us-south.ml.cloud.ibm.com /ml/v1/deployments/d/text/generation",
            json!({"model_id": "ibm/granite", "results": [{"generated_text": "a",
                "generated_token_count": 5, "input_token_count": 7, "stop_reason": "eos_token"}]}),
            json!({"model": "ibm/granite", "usage": {"input": 7, "output": 5},
                "finish_reason": "eos_token"}),
        ),
        Row::json(
            "api.voyageai.com /v1/multimodalembeddings",
            json!({"object": "list", "data": [{"embedding": [0.1]}], "model": "voyage-multimodal-3",
                "usage": {"text_tokens": 5, "image_pixels": 2000000, "total_tokens": 3576}}),
            json!({"model": "voyage-multimodal-3", "usage": {"input": 3576, "output": 0}}),
        ),
    ]);
}

/// JSON leaves much open (RFC 8259): order, white space, doubled and unknown keys.
#[test]
fn what_json_leaves_open_changes_nothing() {
    let expected = json!({"model": "m", "usage": {"input": 5, "output": 2}, "tool_calls": 0,
        "finish_reason": "end_turn"});
    let with = |body: &str, expected: &Value| Row {
        body: body.as_bytes().to_vec(),
        ..Row::json(ANTHROPIC, Value::Null, expected.clone())
    };
    let mut doubtful = expected.clone();
    doubtful["usage"] = json!({"output": 2});
    doubtful["trouble"] = json!("bad_count");
    let whole = r#"{"usage":{"output_tokens":2,"input_tokens":5},"model":"m","content":[],
        "stop_reason":"end_turn"}"#;
    check([
        with(whole, &expected),
        with(
            &format!("\u{feff}\r\n\t{}\r\n", whole.replace(':', " : ")),
            &expected,
        ),
        with(
            &whole.replace("input_tokens", r"in\u0070ut_tokens"),
            &expected,
        ),
        with(
            &whole.replace("\"usage\":", r#""usage":{"input_tokens":1},"usage":"#),
            &expected,
        ),
        with(
            &whole.replace(
                "[]",
                r#"[{"type":"text","text":"\"usage\":{\"input_tokens\":9} é😀"}]"#,
            ),
            &expected,
        ),
        with(&whole.replace('5', "\"5\""), &doubtful),
        with(&whole.replace('5', "-5"), &doubtful),
    ]);
}

/// RFC 9110, 15: what a status means; and bodies whose header says less than they are.
#[test]
fn statuses_and_headers_are_taken_for_what_they_are() {
    let asks = r#"{"model":"m","stream":true}"#;
    let none = json!({"source": "absent", "billable": false, "is_error": true});
    let missing = json!({"source": "absent", "trouble": "usage_missing"});
    let events = Row::events(
        ANTHROPIC,
        &[
            json!({"type": "message_start", "message": {"model": "m", "content": [], "usage":
                {"input_tokens": 3, "output_tokens": 1}}}),
            json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage":
                {"output_tokens": 9}}),
            json!({"type": "message_stop"}),
        ],
        json!({"model": "m", "usage": {"input": 3, "output": 9}, "complete": true,
            "tool_calls": 0, "finish_reason": "end_turn"}),
    );
    let empty = |status: u16, kind: &'static [&'static str], body: &str, expected: &Value| Row {
        status,
        headers: kind,
        body: body.as_bytes().to_vec(),
        ..Row::json(ANTHROPIC, Value::Null, expected.clone())
    };
    check([
        empty(308, &[""], "", &none),
        empty(502, &["text/html"], "<html>Bad Gateway</html>", &none),
        empty(200, &["text/html"], "<html>Log in</html>", &missing),
        empty(204, &[""], "", &missing),
        Row {
            request: asks,
            headers: &["text/plain; charset=utf-8"],
            ..events
        },
    ]);
}

/// <https://ai.google.dev/gemini-api/docs/priority-inference>, `…/docs/flex-inference`
#[test]
fn gemini_tells_the_tier_that_served_in_a_header_or_in_the_usage() {
    let answer = |usage: Value| {
        json!({"candidates": [{"content": {"parts": [{"text": "a"}]}, "finishReason": "STOP"}],
            "usageMetadata": usage, "modelVersion": "g-1"})
    };
    let told = json!({"model": "g-1", "usage": {"input": 4, "output": 1}, "tool_calls": 0,
        "finish_reason": "STOP", "tier": "standard"});
    check([
        Row {
            headers: &["application/json", "x-gemini-service-tier: standard"],
            ..Row::json(
                GEMINI,
                answer(json!({"promptTokenCount": 4, "candidatesTokenCount": 1})),
                told.clone(),
            )
        },
        Row::json(
            GEMINI,
            answer(json!({"promptTokenCount": 4, "candidatesTokenCount": 1,
                "serviceTier": "standard"})),
            told,
        ),
        Row {
            headers: &["application/json", "x-gemini-service-tier: priority"],
            ..Row::json(
                "generativelanguage.googleapis.com /v1beta/interactions",
                json!({"id": "v1_1", "model": "g", "status": "completed",
                    "usage": {"total_input_tokens": 20, "total_output_tokens": 10}}),
                json!({"model": "g", "usage": {"input": 20, "output": 10},
                    "finish_reason": "completed", "tier": "priority"}),
            )
        },
    ]);
}

/// <https://ai.google.dev/gemini-api/docs/background-execution>
#[test]
fn an_interaction_that_is_fetched_charges_nothing_again() {
    let path = "/v1beta/interactions/v1_1";
    let detected = detect("generativelanguage.googleapis.com", path, "GET");
    let Detection::Metered(target) = detected else {
        panic!("{detected:?}");
    };
    let row = Row::json(
        "",
        json!({"id": "v1_1", "model": "g", "status": "completed",
            "usage": {"total_input_tokens": 20, "total_output_tokens": 10}}),
        Value::Null,
    );
    let scan = row.scan(&target, 3);
    assert!(target.is_retrieval && !scan.billable);
    assert_eq!(scan.response_id.as_deref(), Some("v1_1"));
    assert_eq!(json!(scan.usage), json!({"input": 20, "output": 10}));
}

/// <https://platform.openai.com/docs/api-reference/batch/object>
#[test]
fn a_batch_is_charged_by_what_it_used_in_the_end() {
    let usage = |n: u64| {
        json!({"input_tokens": 10 * n, "input_tokens_details": {"cached_tokens": 4 * n},
            "output_tokens": 5 * n, "output_tokens_details": {"reasoning_tokens": 3 * n},
            "total_tokens": 15 * n})
    };
    let batch = |status: &str, usage: Value| {
        json!({"id": "batch_1", "object": "batch", "endpoint": "/v1/responses", "model": "gpt-5-1",
            "errors": null, "status": status, "output_file_id": null, "usage": usage,
            "request_counts": {"total": 9, "completed": 8, "failed": 1}})
    };
    let used = json!({"input": 60, "cache_read": 40, "output": 20, "reasoning": 30, "requests": 8});
    let made = ("/v1/batches", "POST");
    let looked_at = ("/v1/batches/batch_1", "GET");
    for ((path, method), status, n, is_retrieval, buckets) in [
        (made, "validating", 0, false, json!({})),
        (looked_at, "in_progress", 3, true, json!({})),
        (looked_at, "finalizing", 10, true, json!({})),
        (looked_at, "completed", 10, true, used.clone()),
        (looked_at, "expired", 10, true, used.clone()),
        (
            ("/v1/batches/batch_1/cancel", "POST"),
            "cancelling",
            3,
            true,
            json!({}),
        ),
    ] {
        for (host, prefix) in [
            ("api.openai.com", ""),
            ("r.openai.azure.com", "/openai"),
            ("api.groq.com", "/openai"),
        ] {
            let path = format!("{prefix}{path}?api-version=1");
            let detected = detect(host, &path, method);
            let Detection::Metered(target) = detected else {
                panic!("{host}{path}: {detected:?}");
            };
            let row = Row::json("", batch(status, usage(n)), Value::Null);
            let scan = row.scan(&target, 7);
            assert_eq!(target.is_retrieval, is_retrieval, "{method} {path}");
            assert!(!scan.billable, "{method} {path}");
            assert_eq!(json!(scan.usage), buckets, "{status}");
            assert_eq!(scan.usage_source.name() == "reported", buckets == used);
            assert_eq!(scan.service_tier.as_deref(), Some("batch"));
            assert_eq!(scan.response_id.as_deref(), Some("batch_1"));
            assert_eq!(scan.model.as_deref(), Some("gpt-5-1"));
        }
    }
    for (host, path) in [
        ("api.anthropic.com", "/v1/messages/batches/b"),
        ("llm.internal", "/v1/batches/b"),
    ] {
        assert_eq!(
            detect(host, path, "GET"),
            Detection::NotOurs,
            "{host}{path}"
        );
    }
}

/// <https://ai.google.dev/gemini-api/docs/batch-api>, <https://docs.mistral.ai/capabilities/batch>: the
/// answers to requests that came inline stand in the batch itself.
#[test]
fn a_batch_is_charged_by_the_answers_in_it_where_it_has_no_sum() {
    let answer = |model: &str, n: u64| {
        json!({"response": {"candidates": [{"content": {"parts": [{"text": "4"}]}, "index": 0,
            "finishReason": "STOP", "groundingMetadata": {"webSearchQueries": ["a", "b"]}}],
            "usageMetadata": {"promptTokenCount": 10 * n, "candidatesTokenCount": n,
            "thoughtsTokenCount": 3 * n, "totalTokenCount": 14 * n, "serviceTier": "standard",
            "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": n}]},
            "modelVersion": model, "responseId": "r"}, "metadata": {"custom_id": "0"}})
    };
    let list = json!({"inlinedResponses": {"inlinedResponses": [answer("g-1", 1), answer("g-2", 2),
        {"error": {"code": 13, "message": "no"}}, {"response": {}}, answer("g-1", 5),
        {"response": {"modelVersion": "g-1", "usageMetadata": {}}}, answer("g-1", 20_001)]}});
    let gemini = |has_ended: bool| {
        let mut batch = json!({"name": "batches/b", "metadata": {"model": "models/g-1",
            "state": "BATCH_STATE_RUNNING", "batchStats": {"requestCount": "4"}}});
        if has_ended {
            batch["metadata"]["output"] = list.clone();
            batch["done"] = json!(true);
            batch["response"] = list.clone();
        }
        batch
    };
    let told = json!([
        ["batch_result", "g-1", {"input": 54, "audio_input": 6, "output": 6, "reasoning": 18,
            "web_searches": 4, "grounded_prompts": 2, "requests": 2}],
        ["batch_result", "g-2", {"input": 18, "audio_input": 2, "output": 2, "reasoning": 6,
            "web_searches": 2, "grounded_prompts": 1, "requests": 1}],
        ["batch_result", "g-1", {"input": 180_009, "audio_input": 20_001, "output": 20_001,
            "reasoning": 60_003, "web_searches": 2, "grounded_prompts": 1, "requests": 1}],
    ]);
    let mistral = |status: &str, outputs: Value| {
        json!({"id": "b", "object": "batch", "model": "m", "status": status, "errors": [],
            "outputs": outputs, "total_requests": 2})
    };
    let body = json!({"id": "x", "model": "m", "usage": {"prompt_tokens": 27, "completion_tokens": 2,
        "total_tokens": 34, "prompt_audio_seconds": null, "prompt_tokens_details": {"cached_tokens": 7,
        "audio_tokens": 5}}, "choices": [{"index": 0, "finish_reason": "stop"}]});
    let output = json!({"id": "x", "response": {"status_code": 200, "body": body}, "error": null});
    let summed = json!([["batch_result", "m",
        {"input": 40, "cache_read": 14, "audio_input": 10, "output": 4, "requests": 2}]]);
    let failed = json!({"id": "y", "response": {"status_code": 500, "body": {}}, "error": "no"});
    let (google, mistral_ai) = ("generativelanguage.googleapis.com", "api.mistral.ai");
    for (host, path, method, body, extra) in [
        (
            google,
            "/v1beta/models/g-1:batchGenerateContent",
            "POST",
            gemini(false),
            json!([]),
        ),
        (google, "/v1beta/batches/b", "GET", gemini(false), json!([])),
        (google, "/v1beta/batches/b", "GET", gemini(true), told),
        (
            mistral_ai,
            "/v1/batch/jobs",
            "POST",
            mistral("QUEUED", Value::Null),
            json!([]),
        ),
        (
            mistral_ai,
            "/v1/batch/jobs/b",
            "GET",
            mistral("RUNNING", json!([output])),
            json!([]),
        ),
        (
            mistral_ai,
            "/v1/batch/jobs/b",
            "GET",
            mistral("SUCCESS", json!([output, failed, output])),
            summed.clone(),
        ),
        (
            mistral_ai,
            "/v1/batch/jobs/b",
            "GET",
            mistral("TIMEOUT_EXCEEDED", json!([output, output])),
            summed,
        ),
    ] {
        let detected = detect(host, path, method);
        let Detection::Metered(target) = detected else {
            panic!("{host}{path}: {detected:?}");
        };
        assert_eq!(target.is_retrieval, method == "GET", "{path}");
        let row = Row::json("", body, Value::Null);
        for n_chunk in [1, 7, usize::MAX] {
            let scan = row.scan(&target, n_chunk);
            assert_eq!(as_json(&target, &scan)["extra"], extra, "{path}");
            assert!(!scan.billable && scan.usage.is_empty(), "{path}");
            let id = scan.response_id.as_deref();
            assert!(id.is_some_and(|id| id.ends_with('b')), "{path}");
            assert!(extra == json!([]) || scan.service_tier.as_deref() == Some("batch"));
        }
    }
}

/// <https://docs.aws.amazon.com/bedrock/latest/userguide/inference-profiles-support.html>: the path
/// names a model, a profile or its ARN, whose escapes a proxy may have undone.
#[test]
fn bedrocks_paths_name_models_and_profiles() {
    for (path, model) in [
        (
            "/model/us.amazon.nova-lite-v1:0/converse",
            "us.amazon.nova-lite-v1:0",
        ),
        (
            "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Aprovisioned-model%2Fp/invoke",
            "arn:aws:bedrock:us-east-1:1:provisioned-model/p",
        ),
        (
            "/model/arn:aws:bedrock:us-east-1:1:inference-profile/eu.anthropic.claude/invoke",
            "eu.anthropic.claude",
        ),
    ] {
        for (host, region) in [
            ("bedrock-runtime.eu-west-1.amazonaws.com:443", "eu-west-1"),
            ("bedrock-runtime.us-gov-west-1.api.aws", "us-gov-west-1"),
            (
                "vpce-0123-4567.bedrock-runtime.ap-south-1.vpce.amazonaws.com",
                "ap-south-1",
            ),
        ] {
            let detected = detect(host, path, "POST");
            let Detection::Metered(target) = detected else {
                panic!("{host}{path}: {detected:?}");
            };
            assert_eq!(target.path_model.as_deref(), Some(model), "{path}");
            assert_eq!(target.provider, "aws-bedrock");
            assert_eq!(target.pricing_context["region"], region, "{host}");
        }
    }
    let agent = detect(
        "bedrock-agent-runtime.us-east-1.amazonaws.com",
        "/retrieveAndGenerate",
        "POST",
    );
    let is_counted = matches!(
        agent,
        Detection::Unreadable {
            provider: "aws-bedrock",
            ..
        }
    );
    assert!(is_counted, "{agent:?}");
}
