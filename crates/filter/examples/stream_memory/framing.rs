//! The answers that are measured: one provider's for each way to cut up a body.

/// One way to answer.
pub struct Framing {
    /// Its name in the table.
    pub name: &'static str,
    /// The authority that is asked.
    pub host: &'static str,
    /// The path that is asked.
    pub path: &'static str,
    /// The request's body.
    pub ask: &'static str,
    /// The response's content type.
    pub content_type: &'static str,
    /// How a body opens.
    pub open: fn(&mut Vec<u8>),
    /// Some more of it, with that text in it.
    pub piece: fn(&mut Vec<u8>, &str),
    /// How it closes, with [`INPUT`] and [`OUTPUT`] tokens as its usage.
    pub close: fn(&mut Vec<u8>),
}

/// Tokens that every body reports.
pub const INPUT: u64 = 812;
/// Tokens that every body reports.
pub const OUTPUT: u64 = 498;

const CHAT_COMPLETIONS: &str = "/v1/chat/completions";

/// Every framing, in the order of the table.
pub static FRAMINGS: [Framing; 7] = [
    Framing {
        name: "JSON",
        host: "api.openai.com",
        path: CHAT_COMPLETIONS,
        ask: r#"{"model":"gpt-4o","messages":[]}"#,
        content_type: "application/json",
        open: |out| {
            put(
                out,
                r#"{"id":"c-1","model":"gpt-4o","choices":[{"index":0,"message":{"content":""#,
            )
        },
        piece: |out, text| put(out, text),
        close: |out| {
            put(
                out,
                r#""},"finish_reason":"stop"}],"usage":{"prompt_tokens":812,"#,
            );
            put(out, r#""completion_tokens":498,"total_tokens":1310}}"#);
        },
    },
    // Usage is not asked for, so that the event with it is asked for and cut out as well.
    Framing {
        name: "SSE, cut",
        host: "api.openai.com",
        path: CHAT_COMPLETIONS,
        ask: r#"{"model":"gpt-4o","stream":true,"messages":[]}"#,
        content_type: "text/event-stream",
        open: |_| {},
        piece: |out, text| sse(out, &choice(text), "null"),
        close: |out| {
            sse(out, "", OPENAI_USAGE);
            put(out, "data: [DONE]\n\n");
        },
    },
    Framing {
        name: "SSE, one event",
        host: "api.openai.com",
        path: CHAT_COMPLETIONS,
        ask: r#"{"model":"gpt-4o","stream":true,"stream_options":{"include_usage":true}}"#,
        content_type: "text/event-stream",
        open: |out| {
            put(
                out,
                r#"data: {"id":"c-1","model":"gpt-4o","choices":[{"delta":{"content":""#,
            )
        },
        piece: |out, text| put(out, text),
        close: |out| {
            put(out, "\"}}]}\n\n");
            sse(out, "", OPENAI_USAGE);
            put(out, "data: [DONE]\n\n");
        },
    },
    Framing {
        name: "SSE, Anthropic",
        host: "api.anthropic.com",
        path: "/v1/messages",
        ask: r#"{"model":"claude-sonnet-4-5","stream":true,"messages":[]}"#,
        content_type: "text/event-stream",
        open: |out| {
            put(
                out,
                "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\
                     \"m-1\",\"model\":\"claude-sonnet-4-5\",\"usage\":{\"input_tokens\":812,\
                     \"output_tokens\":1}}}\n\n",
            );
        },
        piece: |out, text| {
            put(
                out,
                "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\
                     \"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"",
            );
            put(out, text);
            put(out, "\"}}\n\n");
        },
        close: |out| {
            put(
                out,
                "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":\
                     {\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":498}}\n\n\
                     event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
            );
        },
    },
    Framing {
        name: "JSON lines",
        host: "localhost:11434",
        path: "/api/chat",
        ask: r#"{"model":"llama3.2","messages":[]}"#,
        content_type: "application/x-ndjson",
        open: |_| {},
        piece: |out, text| {
            put(
                out,
                r#"{"model":"llama3.2","message":{"role":"assistant","content":""#,
            );
            put(out, text);
            put(out, "\"},\"done\":false}\n");
        },
        close: |out| {
            put(
                out,
                r#"{"model":"llama3.2","message":{"role":"assistant","content":""},"#,
            );
            put(
                out,
                r#""done":true,"done_reason":"stop","prompt_eval_count":812,"#,
            );
            put(out, "\"eval_count\":498}\n");
        },
    },
    Framing {
        name: "JSON array",
        host: "generativelanguage.googleapis.com",
        path: "/v1beta/models/gemini-2.5-flash:streamGenerateContent",
        ask: r#"{"contents":[]}"#,
        content_type: "application/json",
        open: |out| put(out, "["),
        piece: |out, text| {
            put(out, r#"{"candidates":[{"content":{"parts":[{"text":""#);
            put(out, text);
            put(
                out,
                "\"}],\"role\":\"model\"},\"index\":0}],\"modelVersion\":\
                     \"gemini-2.5-flash\"}\n,\r\n",
            );
        },
        close: |out| {
            put(
                out,
                r#"{"candidates":[{"content":{"parts":[{"text":""}]},"finishReason":"STOP"}],"#,
            );
            put(
                out,
                r#""usageMetadata":{"promptTokenCount":812,"candidatesTokenCount":498,"#,
            );
            put(
                out,
                r#""totalTokenCount":1310},"modelVersion":"gemini-2.5-flash"}]"#,
            );
        },
    },
    Framing {
        name: "eventstream",
        host: "bedrock-runtime.us-east-1.amazonaws.com",
        path: "/model/amazon.nova-lite-v1:0/converse-stream",
        ask: r#"{"messages":[]}"#,
        content_type: "application/vnd.amazon.eventstream",
        open: |out| message(out, "messageStart", r#"{"role":"assistant"}"#),
        piece: |out, text| {
            let payload = format!(r#"{{"contentBlockIndex":0,"delta":{{"text":"{text}"}}}}"#);
            message(out, "contentBlockDelta", &payload);
        },
        close: |out| {
            message(out, "messageStop", r#"{"stopReason":"end_turn"}"#);
            let usage = r#"{"inputTokens":812,"outputTokens":498,"totalTokens":1310}"#;
            message(out, "metadata", &format!(r#"{{"usage":{usage}}}"#));
        },
    },
];

const OPENAI_USAGE: &str = r#"{"prompt_tokens":812,"completion_tokens":498,"total_tokens":1310}"#;

fn put(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

fn choice(text: &str) -> String {
    format!(r#"{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":null}}"#)
}

fn sse(out: &mut Vec<u8>, choices: &str, usage: &str) {
    put(
        out,
        "data: {\"id\":\"c-1\",\"object\":\"chat.completion.chunk\",\"model\":\"gpt-4o\",",
    );
    put(
        out,
        &format!("\"choices\":[{choices}],\"usage\":{usage}}}\n\n"),
    );
}

/// A message as <https://docs.aws.amazon.com/lexv2/latest/dg/event-stream-encoding.html> has it.
fn message(out: &mut Vec<u8>, kind: &str, payload: &str) {
    const STRING: u8 = 7;
    let mut headers = Vec::new();
    for (name, value) in [
        (":event-type", kind),
        (":content-type", "application/json"),
        (":message-type", "event"),
    ] {
        headers.push(name.len() as u8);
        put(&mut headers, name);
        headers.push(STRING);
        headers.extend_from_slice(&(value.len() as u16).to_be_bytes());
        put(&mut headers, value);
    }
    const PRELUDE_AND_CHECKSUMS: usize = 16;
    let total = PRELUDE_AND_CHECKSUMS + headers.len() + payload.len();
    let from = out.len();
    out.extend_from_slice(&(total as u32).to_be_bytes());
    out.extend_from_slice(&(headers.len() as u32).to_be_bytes());
    let prelude = crc32fast::hash(&out[from..]);
    out.extend_from_slice(&prelude.to_be_bytes());
    out.extend_from_slice(&headers);
    put(out, payload);
    let checksum = crc32fast::hash(&out[from..]);
    out.extend_from_slice(&checksum.to_be_bytes());
}
