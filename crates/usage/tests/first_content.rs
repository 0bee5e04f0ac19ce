//! When an answer begins: with the first piece of text, thought or tool call, and never with a
//! frame that only says that there will be one.

use tollmesh_usage::{Detection, RequestFacts, ResponseHead, UsageScanner, detect};

struct Stream {
    host: &'static str,
    path: &'static str,
    /// Events before the first content.
    before: &'static [&'static str],
    /// Each of them begins the answer.
    beginnings: &'static [&'static str],
}

const STREAMS: &[Stream] = &[
    Stream {
        host: "api.openai.com",
        path: "/v1/chat/completions",
        before: &[
            r#"{"choices":[],"prompt_filter_results":[]}"#,
            r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}],"usage":null}"#,
            r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":null}}]}"#,
        ],
        beginnings: &[
            r#"{"choices":[{"index":0,"delta":{"content":"a"}}]}"#,
            r#"{"choices":[{"index":0,"delta":{"reasoning_content":"a"}}]}"#,
            r#"{"choices":[{"index":0,"delta":{"reasoning":"a"}}]}"#,
            r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c"}]}}]}"#,
        ],
    },
    Stream {
        host: "api.openai.com",
        path: "/v1/responses",
        before: &[
            r#"{"type":"response.created","response":{"id":"r","status":"queued","output":[]}}"#,
            r#"{"type":"response.in_progress","response":{"id":"r","status":"in_progress"}}"#,
        ],
        beginnings: &[
            r#"{"type":"response.output_text.delta","item_id":"m","delta":"a"}"#,
            r#"{"type":"response.reasoning_summary_text.delta","item_id":"m","delta":"a"}"#,
        ],
    },
    Stream {
        host: "api.anthropic.com",
        path: "/v1/messages",
        before: &[
            r#"{"type":"message_start","message":{"id":"m","content":[],"usage":{"input_tokens":3,"output_tokens":1}}}"#,
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
            r#"{"type":"ping"}"#,
        ],
        beginnings: &[
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"a"}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{"}}"#,
        ],
    },
    Stream {
        host: "generativelanguage.googleapis.com",
        path: "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
        before: &[r#"{"candidates":[{"index":0}],"usageMetadata":{"promptTokenCount":3}}"#],
        beginnings: &[
            r#"{"candidates":[{"content":{"parts":[{"text":"a"}]}}]}"#,
            r#"{"candidates":[{"content":{"parts":[{"text":"a","thought":true}]}}]}"#,
            r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{}}}]}}]}"#,
        ],
    },
    Stream {
        host: "api.cohere.com",
        path: "/v2/chat",
        before: &[
            r#"{"type":"message-start","id":"c","delta":{"message":{"role":"assistant","content":[]}}}"#,
        ],
        beginnings: &[
            r#"{"type":"content-delta","index":0,"delta":{"message":{"content":{"text":"a"}}}}"#,
            r#"{"type":"content-delta","index":0,"delta":{"message":{"content":{"thinking":"a"}}}}"#,
        ],
    },
];

impl Stream {
    fn scanner(&self) -> UsageScanner {
        let Detection::Metered(target) = detect(self.host, self.path, "POST") else {
            panic!("{}{} is not metered", self.host, self.path);
        };
        let head = ResponseHead {
            status: 200,
            headers: vec![("content-type".to_owned(), "text/event-stream".to_owned())],
        };
        UsageScanner::new(&target, &RequestFacts::default(), &head)
    }
}

#[test]
fn an_answer_begins_with_its_first_content() {
    for stream in STREAMS {
        for beginning in stream.beginnings {
            let mut scanner = stream.scanner();
            for event in stream.before {
                scanner.push(format!("data: {event}\n\n").as_bytes());
                assert!(!scanner.has_content(), "{}: {event}", stream.path);
            }
            scanner.push(format!("data: {beginning}\n\n").as_bytes());
            assert!(scanner.has_content(), "{}: {beginning}", stream.path);
        }
    }
}
