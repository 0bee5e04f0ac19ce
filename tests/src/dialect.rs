//! Exchanges in the providers' own shapes, made from counts: what the demo and the load serve.
//!
//! The shapes are those of the providers' references, named at each function. The text is made up.

use serde_json::{Value, json};

use crate::exchange::{Exchange, Payload};
use crate::usage::Usage;

/// An API that is spoken here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// OpenAI chat completions.
    OpenAiChat,
    /// OpenAI responses.
    OpenAiResponses,
    /// Anthropic messages.
    Anthropic,
    /// Gemini `generateContent` and `streamGenerateContent`.
    Gemini,
}

/// Words of an answer, at most; counts do not depend on how much text there is.
const WORDS_MAX: u64 = 60;

impl Dialect {
    /// Every dialect.
    pub const ALL: [Dialect; 4] = [
        Dialect::OpenAiChat,
        Dialect::OpenAiResponses,
        Dialect::Anthropic,
        Dialect::Gemini,
    ];

    /// A call that uses `usage`, answered whole.
    pub fn plain(self, usage: &Usage) -> Exchange {
        let exchange = match self {
            Dialect::OpenAiChat => openai_chat(usage),
            Dialect::OpenAiResponses => openai_responses(usage),
            Dialect::Anthropic => anthropic(usage),
            Dialect::Gemini => gemini(usage),
        };
        exchange.uses(usage.clone())
    }

    /// A call that uses `usage`, answered as a stream.
    pub fn streamed(self, usage: &Usage) -> Exchange {
        let exchange = match self {
            Dialect::OpenAiChat => openai_chat_stream(usage),
            Dialect::OpenAiResponses => openai_responses_stream(usage),
            Dialect::Anthropic => anthropic_stream(usage),
            Dialect::Gemini => gemini_stream(usage),
        };
        exchange.uses(usage.clone()).chunks_of(usize::MAX)
    }
}

fn words(usage: &Usage) -> impl Iterator<Item = String> {
    const WORDS: [&str; 6] = ["The", " order", " has", " left", " the", " house"];
    let n = usage.of("output").clamp(1, WORDS_MAX) as usize;
    WORDS.iter().cycle().take(n).map(ToString::to_string)
}

fn text(usage: &Usage) -> String {
    words(usage).collect()
}

fn messages() -> Value {
    json!([{ "role": "user", "content": "Where is my order?" }])
}

// === OpenAI, https://platform.openai.com/docs/api-reference/chat ===

const OPENAI: &str = "api.openai.com";

fn openai_chat(usage: &Usage) -> Exchange {
    let ask = json!({ "model": usage.model, "messages": messages() });
    let answer = json!({
        "id": "chatcmpl-made-up", "object": "chat.completion", "created": 1_760_000_000,
        "model": usage.model,
        "choices": [{
            "index": 0, "finish_reason": "stop",
            "message": { "role": "assistant", "content": text(usage) }
        }],
        "usage": openai_chat_usage(usage)
    });
    post_json(OPENAI, "/v1/chat/completions", &ask).answered("application/json", answer.to_string())
}

fn openai_chat_stream(usage: &Usage) -> Exchange {
    let ask = json!({ "model": usage.model, "messages": messages(), "stream": true });
    let chunks = |asked: bool| {
        let chunk = |choices: Value, counts: Value| {
            let mut chunk = json!({
                "id": "chatcmpl-made-up", "object": "chat.completion.chunk",
                "created": 1_760_000_000, "model": usage.model, "choices": choices
            });
            if asked {
                chunk["usage"] = counts;
            }
            format!("data: {chunk}\n\n")
        };
        let delta = |delta: Value, finish: Value| {
            chunk(
                json!([{ "index": 0, "delta": delta, "finish_reason": finish }]),
                Value::Null,
            )
        };
        let mut body = delta(json!({ "role": "assistant", "content": "" }), Value::Null);
        words(usage).for_each(|word| body += &delta(json!({ "content": word }), Value::Null));
        body += &delta(json!({}), json!("stop"));
        (body, chunk(json!([]), openai_chat_usage(usage)))
    };
    const DONE: &str = "data: [DONE]\n\n";
    let (silent, _) = chunks(false);
    let (asked, extra) = chunks(true);
    let mut exchange = post_json(OPENAI, "/v1/chat/completions", &ask).answered(
        "text/event-stream; charset=utf-8",
        format!("{silent}{DONE}"),
    );
    exchange.reply.body_with_usage = Some(Payload::Bytes(format!("{asked}{extra}{DONE}").into()));
    exchange.reply.app_sees = Some(Payload::Bytes(format!("{asked}{DONE}").into()));
    exchange
}

fn openai_chat_usage(usage: &Usage) -> Value {
    let prompt = usage.of("input") + usage.of("cache_read");
    let completion = usage.of("output") + usage.of("reasoning");
    json!({
        "prompt_tokens": prompt, "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": { "cached_tokens": usage.of("cache_read"), "audio_tokens": 0 },
        "completion_tokens_details": {
            "reasoning_tokens": usage.of("reasoning"), "audio_tokens": 0,
            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0
        }
    })
}

// === OpenAI, https://platform.openai.com/docs/api-reference/responses ===

fn openai_responses(usage: &Usage) -> Exchange {
    let ask = json!({ "model": usage.model, "input": "Where is my order?" });
    let answer = openai_response(usage, "completed");
    post_json(OPENAI, "/v1/responses", &ask).answered("application/json", answer.to_string())
}

fn openai_responses_stream(usage: &Usage) -> Exchange {
    let ask = json!({ "model": usage.model, "input": "Where is my order?", "stream": true });
    let mut n_events = 0;
    let mut event = |name: &str, mut data: Value| {
        data["type"] = json!(name);
        data["sequence_number"] = json!(n_events);
        n_events += 1;
        format!("event: {name}\ndata: {data}\n\n")
    };
    let mut body = event(
        "response.created",
        json!({ "response": openai_response(usage, "in_progress") }),
    );
    for word in words(usage) {
        let delta = json!({
            "item_id": "msg_made_up", "output_index": 0, "content_index": 0, "delta": word
        });
        body += &event("response.output_text.delta", delta);
    }
    body += &event(
        "response.completed",
        json!({ "response": openai_response(usage, "completed") }),
    );
    post_json(OPENAI, "/v1/responses", &ask).answered("text/event-stream; charset=utf-8", body)
}

fn openai_response(usage: &Usage, status: &str) -> Value {
    let input = usage.of("input") + usage.of("cache_read");
    let output = usage.of("output") + usage.of("reasoning");
    let counts = json!({
        "input_tokens": input, "output_tokens": output, "total_tokens": input + output,
        "input_tokens_details": { "cached_tokens": usage.of("cache_read") },
        "output_tokens_details": { "reasoning_tokens": usage.of("reasoning") }
    });
    let is_done = status == "completed";
    let message = json!([{
        "type": "message", "id": "msg_made_up", "role": "assistant", "status": "completed",
        "content": [{ "type": "output_text", "text": text(usage), "annotations": [] }]
    }]);
    json!({
        "id": "resp_made_up", "object": "response", "created_at": 1_760_000_000,
        "status": status, "model": usage.model, "service_tier": "default",
        "output": if is_done { message } else { json!([]) },
        "usage": if is_done { counts } else { Value::Null }
    })
}

// === Anthropic, https://docs.anthropic.com/en/docs/build-with-claude/streaming ===

const ANTHROPIC: &str = "api.anthropic.com";

fn anthropic(usage: &Usage) -> Exchange {
    let ask = json!({ "model": usage.model, "max_tokens": 1024, "messages": messages() });
    let mut answer = anthropic_message(usage);
    answer["content"] = json!([{ "type": "text", "text": text(usage) }]);
    answer["stop_reason"] = json!("end_turn");
    answer["usage"] = anthropic_usage(usage, usage.of("output"));
    post_json(ANTHROPIC, "/v1/messages", &ask)
        .ask_header("anthropic-version", "2023-06-01")
        .answered("application/json", answer.to_string())
}

fn anthropic_stream(usage: &Usage) -> Exchange {
    let ask = json!({
        "model": usage.model, "max_tokens": 1024, "stream": true, "messages": messages()
    });
    let event = |name: &str, mut data: Value| {
        data["type"] = json!(name);
        format!("event: {name}\ndata: {data}\n\n")
    };
    let mut body = event(
        "message_start",
        json!({ "message": anthropic_message(usage) }),
    );
    let block = json!({ "index": 0, "content_block": { "type": "text", "text": "" } });
    body += &event("content_block_start", block);
    body += &event("ping", json!({}));
    for word in words(usage) {
        let delta = json!({ "index": 0, "delta": { "type": "text_delta", "text": word } });
        body += &event("content_block_delta", delta);
    }
    body += &event("content_block_stop", json!({ "index": 0 }));
    let delta = json!({
        "delta": { "stop_reason": "end_turn", "stop_sequence": null },
        "usage": anthropic_usage(usage, usage.of("output"))
    });
    body += &event("message_delta", delta);
    body += &event("message_stop", json!({}));
    post_json(ANTHROPIC, "/v1/messages", &ask)
        .ask_header("anthropic-version", "2023-06-01")
        .answered("text/event-stream; charset=utf-8", body)
}

/// The message as `message_start` has it: input is counted, output has only begun.
fn anthropic_message(usage: &Usage) -> Value {
    json!({
        "id": "msg_made_up", "type": "message", "role": "assistant", "model": usage.model,
        "content": [], "stop_reason": null, "stop_sequence": null,
        "usage": anthropic_usage(usage, 1)
    })
}

fn anthropic_usage(usage: &Usage, output: u64) -> Value {
    json!({
        "input_tokens": usage.of("input"),
        "cache_creation_input_tokens": usage.of("cache_write"),
        "cache_read_input_tokens": usage.of("cache_read"),
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.of("cache_write"), "ephemeral_1h_input_tokens": 0
        },
        "output_tokens": output, "service_tier": "standard"
    })
}

// === Gemini, https://ai.google.dev/api/generate-content ===

const GEMINI: &str = "generativelanguage.googleapis.com";

fn gemini(usage: &Usage) -> Exchange {
    let path = format!("/v1beta/models/{}:generateContent", usage.model);
    let answer = gemini_chunk(usage, &text(usage), Some("STOP"));
    let answer = format!("{answer:#}");
    post_json(GEMINI, &path, &gemini_ask()).answered("application/json; charset=UTF-8", answer)
}

fn gemini_stream(usage: &Usage) -> Exchange {
    let path = format!(
        "/v1beta/models/{}:streamGenerateContent?alt=sse",
        usage.model
    );
    let mut body = String::new();
    for word in words(usage) {
        body += &format!("data: {}\r\n\r\n", gemini_chunk(usage, &word, None));
    }
    body += &format!("data: {}\r\n\r\n", gemini_chunk(usage, "", Some("STOP")));
    post_json(GEMINI, &path, &gemini_ask()).answered("text/event-stream", body)
}

fn gemini_ask() -> Value {
    json!({ "contents": [{ "role": "user", "parts": [{ "text": "Where is my order?" }] }] })
}

fn gemini_chunk(usage: &Usage, word: &str, finish: Option<&str>) -> Value {
    let prompt = usage.of("input") + usage.of("cache_read");
    let (output, reasoning) = (usage.of("output"), usage.of("reasoning"));
    let mut counts = json!({
        "promptTokenCount": prompt, "candidatesTokenCount": output,
        "totalTokenCount": prompt + output + reasoning,
        "promptTokensDetails": [{ "modality": "TEXT", "tokenCount": prompt }]
    });
    if reasoning > 0 {
        counts["thoughtsTokenCount"] = json!(reasoning);
    }
    if usage.of("cache_read") > 0 {
        counts["cachedContentTokenCount"] = json!(usage.of("cache_read"));
    }
    let content = json!({ "role": "model", "parts": [{ "text": word }] });
    let mut candidate = json!({ "content": content, "index": 0 });
    if let Some(finish) = finish {
        candidate["finishReason"] = json!(finish);
    }
    json!({
        "candidates": [candidate], "usageMetadata": counts,
        "modelVersion": usage.model, "responseId": "made-up"
    })
}

fn post_json(host: &str, path: &str, ask: &Value) -> Exchange {
    Exchange::post(host, path, ask.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage;

    #[test]
    fn an_asked_chat_stream_differs_by_one_event() {
        let exchange = Dialect::OpenAiChat.streamed(&usage("gpt-4o").input(3).output(2));
        let Some(Payload::Bytes(with)) = &exchange.reply.body_with_usage else {
            panic!("bytes")
        };
        let Some(Payload::Bytes(seen)) = &exchange.reply.app_sees else {
            panic!("bytes")
        };
        let n_events = |body: &[u8]| String::from_utf8_lossy(body).matches("data: ").count();
        assert_eq!(n_events(with), n_events(seen) + 1);
        assert!(String::from_utf8_lossy(with).contains("\"prompt_tokens\":3"));
        assert!(!String::from_utf8_lossy(seen).contains("prompt_tokens"));
    }

    #[test]
    fn every_dialect_states_its_counts() {
        let used = usage("m").input(4_321).output(87);
        for dialect in Dialect::ALL {
            let exchange = dialect.streamed(&used);
            let body = exchange
                .reply
                .body_with_usage
                .as_ref()
                .unwrap_or(&exchange.reply.body);
            let Payload::Bytes(body) = body else {
                panic!("bytes")
            };
            let body = String::from_utf8_lossy(body);
            assert!(
                body.contains("4321") && body.contains("87"),
                "{dialect:?}: {body}"
            );
        }
    }
}
