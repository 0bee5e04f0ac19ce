//! Answers as providers document them, beyond what was recorded: one row a shape, each with the
//! page that describes it.

use serde_json::{Value, json};
use tollmesh_usage::{
    Api, Detection, Edits, Family, RequestBody, RequestFacts, ResponseHead, Scan, Target,
    UsageScanner, detect, detect_as,
};

/// One answer: where it is documented, the request's host and path, the body, and what is wanted
/// of its scan (what a row leaves out is not compared).
struct Row {
    source: &'static str,
    host: &'static str,
    path: &'static str,
    body: String,
    wanted: Value,
}

fn row(
    source: &'static str,
    host: &'static str,
    path: &'static str,
    body: impl Into<String>,
    wanted: Value,
) -> Row {
    Row {
        source,
        host,
        path,
        body: body.into(),
        wanted,
    }
}

/// A stream of those documents.
fn events(documents: &[&str]) -> String {
    let events = documents.iter().map(|data| format!("data: {data}\r\n\r\n"));
    events.collect()
}

impl Row {
    fn target(&self) -> Target {
        let looks = [
            "/v1/videos/",
            "/async/chat/completions/",
            "/async/sonar/",
            "/async-result/",
            "/deferred-completion/",
        ];
        let method = match looks.iter().any(|look| self.path.contains(look)) {
            true => "GET",
            false => "POST",
        };
        match detect(self.host, self.path, method) {
            Detection::Metered(target) => target,
            Detection::NotOurs => detect_as(Family::OpenAi, "own", self.path, "POST").unwrap(),
            unreadable @ Detection::Unreadable { .. } => panic!("{}: {unreadable:?}", self.source),
        }
    }

    fn scan(&self, n_chunk: usize) -> Scan {
        let is_stream = !self.body.trim_start().starts_with('{');
        let kind = match is_stream {
            true => "text/event-stream; charset=utf-8",
            false => "application/json",
        };
        let head = ResponseHead {
            status: 200,
            headers: vec![("content-type".to_owned(), kind.to_owned())],
        };
        let mut scanner = UsageScanner::new(&self.target(), &RequestFacts::default(), &head);
        for piece in self.body.as_bytes().chunks(n_chunk) {
            scanner.push(piece);
        }
        scanner.finish()
    }

    /// The wanted fields as they were got.
    fn got(&self, scan: &Scan) -> Value {
        let extra = scan.extra_usage.iter();
        let extra = extra.map(|e| json!({"kind": e.kind, "model": e.model, "usage": e.usage}));
        let all = json!({
            "api": self.target().api.name(),
            "provider": self.target().provider,
            "path_model": self.target().path_model,
            "model": scan.model,
            "usage": scan.usage,
            "usage_source": scan.usage_source.name(),
            "extra_usage": extra.collect::<Vec<_>>(),
            "billable": scan.billable,
            "complete": scan.complete,
            "error": scan.is_error,
            "finish_reason": scan.finish_reason,
            "tool_calls": scan.tool_calls,
            "service_tier": scan.service_tier,
            "response_id": scan.response_id,
            "cost": scan.provider_cost_usd,
            "context": scan.pricing_context,
            "trouble": scan.trouble.map(|trouble| trouble.name()),
            "billed": scan.billed_usage,
        });
        let wanted = self.wanted.as_object().unwrap();
        let fields = wanted.keys().map(|key| (key.clone(), all[key].clone()));
        Value::Object(fields.collect())
    }
}

fn check(rows: Vec<Row>) {
    for row in rows {
        let whole = row.scan(row.body.len());
        let (source, host, path) = (row.source, row.host, row.path);
        assert_eq!(
            row.got(&whole),
            row.wanted,
            "{source}\n{host}{path}\n{whole:?}"
        );
        for n_chunk in [1, 3, 64] {
            assert_eq!(row.scan(n_chunk), whole, "{source} by {n_chunk}");
        }
    }
}

#[test]
fn media_streams_end_with_an_event_of_their_own() {
    let images = "https://platform.openai.com/docs/api-reference/images-streaming";
    let partial = r#"{"type":"image_generation.partial_image","b64_json":"AAAA","created_at":1,"size":"1024x1024","partial_image_index":0}"#;
    check(vec![
        row(
            images,
            "api.openai.com",
            "/v1/images/generations",
            events(&[
                partial,
                r#"{"type":"image_generation.completed","b64_json":"AAAA","created_at":1,"usage":{"total_tokens":100,"input_tokens":50,"output_tokens":50,"input_tokens_details":{"text_tokens":10,"image_tokens":40}}}"#,
            ]),
            json!({"usage": {"input": 10, "image_input": 40, "image_output": 50, "images": 1},
                "complete": true, "trouble": null}),
        ),
        row(
            images,
            "api.openai.com",
            "/v1/images/edits",
            events(&[
                r#"{"type":"image_edit.completed","b64_json":"AAAA","usage":{"total_tokens":100,"input_tokens":50,"output_tokens":50,"input_tokens_details":{"text_tokens":10,"image_tokens":40}}}"#,
            ]),
            json!({"usage": {"input": 10, "image_input": 40, "image_output": 50, "images": 1},
                "complete": true, "trouble": null}),
        ),
        row(
            images,
            "api.openai.com",
            "/v1/images/generations",
            events(&[partial]),
            json!({"usage": {}, "complete": false, "trouble": "truncated"}),
        ),
        row(
            "https://platform.openai.com/docs/api-reference/audio/transcript-text-done-event",
            "api.openai.com",
            "/v1/audio/transcriptions",
            events(&[
                r#"{"type":"transcript.text.delta","delta":"I see"}"#,
                r#"{"type":"transcript.text.done","text":"I see","usage":{"type":"tokens","input_tokens":14,"input_token_details":{"text_tokens":4,"audio_tokens":10},"output_tokens":31,"total_tokens":45}}"#,
            ]),
            json!({"usage": {"input": 4, "audio_input": 10, "output": 31},
                "complete": true, "trouble": null}),
        ),
        row(
            "https://platform.openai.com/docs/api-reference/audio/speech-audio-done-event",
            "api.openai.com",
            "/v1/audio/speech",
            events(&[
                r#"{"type":"speech.audio.delta","audio":"AAAA"}"#,
                r#"{"type":"speech.audio.done","usage":{"input_tokens":14,"output_tokens":101,"total_tokens":115}}"#,
            ]),
            json!({"usage_source": "reported", "complete": true, "trouble": null}),
        ),
    ]);
}

#[test]
fn seconds_that_are_charged_hold() {
    let source = "https://platform.openai.com/docs/api-reference/audio/verbose-json-object";
    let seconds = json!({"usage": {"audio_seconds": 9}, "usage_source": "reported"});
    check(vec![
        row(
            source,
            "api.openai.com",
            "/v1/audio/transcriptions",
            r#"{"task":"transcribe","duration":8.47,"text":"a","usage":{"type":"duration","seconds":9}}"#,
            seconds.clone(),
        ),
        row(
            source,
            "api.openai.com",
            "/v1/audio/transcriptions",
            r#"{"usage":{"type":"duration","seconds":9},"duration":8.47,"text":"a"}"#,
            seconds,
        ),
        row(
            "https://platform.openai.com/docs/api-reference/chat/object",
            "llm.internal",
            "/v1/chat/completions",
            r#"{"model":"m","duration":812,"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#,
            json!({"usage": {"input": 1, "output": 2}}),
        ),
    ]);
}

#[test]
fn tools_of_the_responses_api_are_counted_apart() {
    let body = r#"{"id":"r","status":"completed","model":"gpt-5","output":[
        {"type":"file_search_call","status":"completed","queries":["q"]},
        {"type":"file_search_call","status":"completed","queries":["r"]},
        {"type":"image_generation_call","status":"completed","result":"AAAA"},
        {"type":"message","content":[{"type":"output_text","text":"{\"usage\":{\"input_tokens\":9}}"}]}],
        "tools":[{"type":"file_search"},{"type":"image_generation","model":"gpt-image-1"},
        {"type":"function","name":"f","parameters":{"properties":{"model":{"type":"string"}}}}],
        "tool_usage":{"image_gen":{"input_tokens":60,"input_tokens_details":{"image_tokens":0,"text_tokens":60},
        "output_tokens":4160,"output_tokens_details":{"image_tokens":4160,"text_tokens":0},"total_tokens":4220},
        "web_search":{"num_requests":3}},
        "usage":{"input_tokens":10,"output_tokens":20,"output_tokens_details":{"reasoning_tokens":5},"total_tokens":30}}"#;
    let wanted = json!({
        "model": "gpt-5",
        "usage": {"input": 10, "output": 15, "reasoning": 5, "web_searches": 3, "file_searches": 2},
        "extra_usage": [{"kind": "image_gen", "model": "gpt-image-1",
            "usage": {"input": 60, "image_input": 0, "output": 0, "image_output": 4160}}],
        "tool_calls": 0,
        "trouble": null,
    });
    let source = "https://platform.openai.com/docs/guides/tools-image-generation";
    let plain: Value = serde_json::from_str(body).unwrap();
    let begun = json!({"type": "response.created", "response": {"id": "r", "status": "in_progress",
        "tool_usage": {"image_gen": {"input_tokens": 0, "output_tokens": 0},
            "web_search": {"num_requests": 0}}, "usage": null}});
    let ended = json!({"type": "response.completed", "response": plain});
    let stream = events(&[&begun.to_string(), &ended.to_string()]);
    check(vec![
        row(
            source,
            "api.openai.com",
            "/v1/responses",
            body,
            wanted.clone(),
        ),
        row(source, "api.openai.com", "/v1/responses", stream, wanted),
    ]);
}

/// <https://docs.x.ai/developers/tools/tool-usage-details>: what succeeded is charged, and told
/// apart from what was tried.
#[test]
fn xais_tools_are_counted_by_kind() {
    let source = "https://docs.x.ai/developers/tools/tool-usage-details";
    let answer = |output: &str, details: &str| {
        format!(
            r#"{{"id":"r","status":"completed","model":"grok-4.3","output":{output},"usage":{{"input_tokens":33069,
            "input_tokens_details":{{"cached_tokens":20224}},"output_tokens":1439,
            "output_tokens_details":{{"reasoning_tokens":0}},"total_tokens":34508,"num_sources_used":0,
            "num_server_side_tools_used":11,"cost_in_usd_ticks":786985500,
            "server_side_tool_usage_details":{details}}}}}"#
        )
    };
    let x = r#"{"web_search_calls":0,"x_search_calls":11,"code_interpreter_calls":0,
        "file_search_calls":0,"mcp_calls":0,"document_search_calls":0}"#;
    let all = r#"{"web_search_calls":1,"x_search_calls":2,"code_interpreter_calls":3,
        "file_search_calls":4,"mcp_calls":9,"document_search_calls":5}"#;
    let tried = r#"[{"type":"file_search_call","status":"completed"},
        {"type":"file_search_call","status":"failed"},
        {"type":"web_search_call","status":"completed","action":{"type":"search"}},
        {"type":"web_search_call","status":"failed","action":{"type":"search"}}]"#;
    let one = r#"{"file_search_calls":1,"web_search_calls":1}"#;
    let none = r#"{"file_search_calls":0,"web_search_calls":0}"#;
    let usage = |units: Value| {
        let mut usage = json!({"input": 12845, "cache_read": 20224, "output": 1439,
            "reasoning": 0});
        let units = units.as_object().unwrap().clone();
        usage.as_object_mut().unwrap().extend(units);
        json!({"usage": usage, "trouble": null})
    };
    let of = |output, details, units| {
        let body = answer(output, details);
        row(source, "api.x.ai", "/v1/responses", body, usage(units))
    };
    let streamed = format!(
        r#"{{"type":"response.completed","response":{}}}"#,
        answer("[]", all).replace('\n', "")
    );
    let by_kind = json!({"web_searches": 1, "x_searches": 2, "code_calls": 3, "file_searches": 4,
        "document_searches": 5});
    check(vec![
        of("[]", x, json!({"x_searches": 11})),
        of("[]", all, by_kind.clone()),
        of(tried, one, json!({"file_searches": 1, "web_searches": 1})),
        of(tried, none, json!({})),
        row(
            source,
            "api.x.ai",
            "/v1/responses",
            events(&[&streamed]),
            usage(by_kind),
        ),
    ]);
}

/// <https://developers.openai.com/api/docs/guides/tools-code-interpreter>, `…/tools-shell`: an item
/// names its container, which others of the answer, and other answers, may have used too.
#[test]
fn containers_that_code_ran_in_are_counted_once_each() {
    let source = "https://developers.openai.com/api/docs/guides/tools-code-interpreter";
    let run = |id: &str| {
        format!(
            r#"{{"type":"code_interpreter_call","code":"1","container_id":"{id}","outputs":null}}"#
        )
    };
    let shell = r#"{"type":"shell_call","action":{"commands":["ls"]},
        "environment":{"type":"container_reference","container_id":"cntr_b"}}"#
        .replace('\n', "");
    let local = r#"{"type":"shell_call","environment":{"type":"local"}}"#;
    let message = r#"{"type":"message","content":[{"type":"output_text","text":"1","annotations":[
        {"type":"container_file_citation","container_id":"cntr_z"}]}]}"#
        .replace('\n', "");
    let answer = |items: &[&str]| {
        let output = items.join(",");
        format!(
            r#"{{"id":"r","status":"completed","model":"gpt-5","output":[{output}],"usage":{{"input_tokens":10,"output_tokens":20,"total_tokens":30}}}}"#
        )
    };
    let (a, b) = (run("cntr_a"), run("cntr_b"));
    let items: [&str; 6] = [&a, &a, &b, &shell, local, &message];
    let added = format!(r#"{{"type":"response.output_item.added","item":{a}}}"#);
    let done = format!(r#"{{"type":"response.output_item.done","item":{a}}}"#);
    let whole = answer(&items);
    let ended = format!(r#"{{"type":"response.completed","response":{whole}}}"#);
    let stream = events(&[&added, &done, &ended]);
    let wanted = |units: Value| {
        let mut usage = json!({"input": 10, "output": 20});
        let units = units.as_object().unwrap().clone();
        usage.as_object_mut().unwrap().extend(units);
        json!({"usage": usage, "trouble": null, "tool_calls": 0})
    };
    let two = json!({"code_sessions": 2});
    let of = |body: String, units| {
        row(
            source,
            "api.openai.com",
            "/v1/responses",
            body,
            wanted(units),
        )
    };
    check(vec![
        of(answer(&items), two.clone()),
        of(stream, two),
        of(answer(&[local, &message]), json!({})),
    ]);
}

#[test]
fn reasoning_lies_where_the_total_says() {
    let usage = |host, body: &str, wanted: Value| {
        let body = format!(r#"{{"model":"m","choices":[],"usage":{body}}}"#);
        let source = "https://docs.x.ai/docs/guides/reasoning";
        row(
            source,
            host,
            "/v1/chat/completions",
            body,
            json!({"usage": wanted, "trouble": null}),
        )
    };
    let on_top = r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":115,"completion_tokens_details":{"reasoning_tokens":100}}"#;
    let within = r#"{"prompt_tokens":10,"completion_tokens":105,"total_tokens":115,"completion_tokens_details":{"reasoning_tokens":100}}"#;
    let wanted = json!({"input": 10, "output": 5, "reasoning": 100});
    check(vec![
        usage("api.x.ai", on_top, wanted.clone()),
        usage("api.x.ai", within, wanted.clone()),
        usage("api.openai.com", within, wanted.clone()),
        usage("gateway.internal", on_top, wanted.clone()),
        usage("r.services.ai.azure.com", on_top, wanted.clone()),
        usage("aiplatform.googleapis.com", on_top, wanted),
        usage(
            "gateway.internal",
            r#"{"prompt_tokens":3110,"completion_tokens":673,"total_tokens":4691,"completion_tokens_details":{"reasoning_tokens":909}}"#,
            json!({"input": 3110, "output": 672, "reasoning": 909}),
        ),
        usage(
            "gateway.internal",
            r#"{"prompt_tokens":21,"completion_tokens":0,"total_tokens":81,"completion_tokens_details":{"reasoning_tokens":60}}"#,
            json!({"input": 21, "output": 0, "reasoning": 60}),
        ),
        row(
            "https://docs.perplexity.ai/docs/getting-started/pricing",
            "api.perplexity.ai",
            "/chat/completions",
            r#"{"model":"sonar-deep-research","choices":[{"index":0,"finish_reason":"stop","message":{"content":"a"}}],
            "usage":{"prompt_tokens":33,"completion_tokens":7163,"total_tokens":7196,"citation_tokens":20016,
            "num_search_queries":28,"reasoning_tokens":95305,"cost":{"input_tokens_cost":0.0,
            "reasoning_tokens_cost":0.286,"total_cost":0.523}}}"#,
            json!({"usage": {"input": 33, "output": 7163, "reasoning": 95305, "web_searches": 28},
                "billed": {"input": 20049, "output": 7163, "reasoning": 95305, "web_searches": 28},
                "cost": "0.523", "trouble": null}),
        ),
        row(
            "https://docs.perplexity.ai/docs/getting-started/pricing",
            "api.perplexity.ai",
            "/chat/completions",
            r#"{"model":"sonar-reasoning-pro","choices":[],"usage":{"prompt_tokens":33,"completion_tokens":60,
            "total_tokens":93,"citation_tokens":7,"reasoning_tokens":40,"search_context_size":"high"}}"#,
            json!({"billed": null, "usage": {"input": 33, "output": 20, "reasoning": 40}, "trouble": null,
                "context": {"search_context_size": "high"}}),
        ),
    ]);
}

#[test]
fn hosts_that_name_their_counts_otherwise_are_read() {
    check(vec![
        row(
            "https://docs.litellm.ai/docs/completion/prompt_caching",
            "litellm.internal:4000",
            "/chat/completions",
            r#"{"model":"m","choices":[],"usage":{"prompt_tokens":100,"completion_tokens":7,"total_tokens":107,
            "cache_creation_input_tokens":20,"cache_read_input_tokens":50}}"#,
            json!({"usage": {"input": 30, "cache_read": 50, "cache_write": 20, "output": 7}}),
        ),
        row(
            "https://docs.litellm.ai/docs/completion/prompt_caching",
            "litellm.internal:4000",
            "/v1/chat/completions",
            r#"{"model":"m","choices":[],"usage":{"prompt_tokens":100,"completion_tokens":7,"total_tokens":107,
            "prompt_tokens_details":{"cached_tokens":50,"text_tokens":20,"cache_write_tokens":0,"cache_creation_tokens":30,
            "cache_creation_token_details":{"ephemeral_5m_input_tokens":10,"ephemeral_1h_input_tokens":20}},
            "cache_creation_input_tokens":30,"cache_read_input_tokens":50}}"#,
            json!({"usage": {"input": 20, "cache_read": 50, "cache_write": 10, "cache_write_1h": 20,
                "output": 7}, "trouble": null}),
        ),
        row(
            "https://www.alibabacloud.com/help/en/model-studio/context-cache",
            "dashscope-intl.aliyuncs.com",
            "/compatible-mode/v1/chat/completions",
            r#"{"model":"qwen3-coder-plus","choices":[],"usage":{"prompt_tokens":2014,"completion_tokens":3,"total_tokens":2017,
            "prompt_tokens_details":{"cached_tokens":0,"cache_creation_input_tokens":2000,
            "cache_creation":{"ephemeral_5m_input_tokens":2000},"cache_type":"ephemeral"}}}"#,
            json!({"provider": "alibaba",
                "usage": {"input": 14, "cache_read": 0, "cache_write": 2000, "output": 3}}),
        ),
        row(
            "https://cloud.google.com/vertex-ai/generative-ai/docs/migrate/openai/overview",
            "us-central1-aiplatform.googleapis.com",
            "/v1/projects/p/locations/us-central1/endpoints/openapi/chat/completions",
            r#"{"model":"google/gemini-2.5-pro","choices":[],"usage":{"completion_tokens":566,
            "completion_tokens_details":{"reasoning_tokens":946},"extra_properties":{"google":{"traffic_type":"ON_DEMAND"}},
            "prompt_tokens":9,"total_tokens":1521}}"#,
            json!({"usage": {"input": 9, "output": 566, "reasoning": 946},
                "context": {"traffic_type": "ON_DEMAND"}, "trouble": null}),
        ),
        row(
            "https://docs.databricks.com/aws/en/machine-learning/foundation-model-apis/api-reference",
            "dbc-1.cloud.databricks.com",
            "/serving-endpoints/databricks-claude-sonnet-4/invocations",
            r#"{"model":"us.anthropic.claude-sonnet-4","choices":[{"index":0,"finish_reason":"stop","message":{"content":"a"}}],
            "usage":{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12}}"#,
            json!({"api": "openai.chat", "provider": "databricks",
                "path_model": "databricks-claude-sonnet-4", "usage": {"input": 7, "output": 5}}),
        ),
        row(
            "https://docs.litellm.ai/docs/rerank",
            "litellm.internal:4000",
            "/v1/rerank",
            r#"{"id":"r","results":[],"meta":{"billed_units":{"search_units":1},"tokens":{"input_tokens":67}}}"#,
            json!({"usage": {"input": 67, "output": 0, "search_units": 1}, "usage_source": "reported"}),
        ),
        row(
            "https://deepinfra.com/docs/openai_api",
            "api.deepinfra.com",
            "/v1/openai/chat/completions",
            r#"{"model":"m","choices":[],"usage":{"prompt_tokens":15,"completion_tokens":16,"total_tokens":31,
            "estimated_cost":5.7e-05}}"#,
            json!({"usage": {"input": 15, "output": 16}, "cost": "0.000057"}),
        ),
        row(
            "https://docs.perplexity.ai/docs/agent-api/quickstart",
            "api.perplexity.ai",
            "/v1/agent",
            r#"{"id":"r","status":"completed","model":"openai/gpt-5.4-mini","output":[],"usage":{"input_tokens":11575,
            "input_tokens_details":{"cache_creation_input_tokens":6296,"cache_read_input_tokens":5270,"cached_tokens":5270},
            "output_tokens":227,"output_tokens_details":{"reasoning_tokens":28},"total_tokens":11802,
            "tool_calls_details":{"search_web":{"cost_usd":0.005,"invocation":2}},
            "cost":{"currency":"USD","input_cost":0,"tool_calls_cost":0.005,"total_cost":0.00747}}}"#,
            json!({"api": "openai.responses", "cost": "0.00747", "trouble": null,
                "usage": {"input": 9, "cache_read": 5270, "cache_write": 6296, "output": 199,
                    "reasoning": 28, "web_searches": 2}}),
        ),
        row(
            "https://docs.x.ai/docs/guides/tools/overview",
            "api.x.ai",
            "/v1/responses",
            r#"{"id":"r","status":"completed","model":"grok-4","output":[],"usage":{"input_tokens":100,
            "input_tokens_details":{"cached_tokens":48},"output_tokens":16,"output_tokens_details":{"reasoning_tokens":6},
            "total_tokens":116,"num_server_side_tools_used":3,"cost_in_usd_ticks":737683500,
            "server_side_tool_usage_details":{"web_search_calls":3,"x_search_calls":0}}}"#,
            json!({"cost": "0.0737683500", "trouble": null, "usage": {"input": 52, "cache_read": 48,
                "output": 10, "reasoning": 6, "web_searches": 3}}),
        ),
        row(
            "https://docs.mistral.ai/capabilities/audio",
            "api.mistral.ai",
            "/v1/chat/completions",
            r#"{"model":"voxtral-small-latest","choices":[],"usage":{"prompt_audio_seconds":5,"prompt_tokens":11,
            "completion_tokens":15,"total_tokens":401,"prompt_tokens_details":{"audio_tokens":375}}}"#,
            json!({"usage": {"input": 11, "audio_input": 375, "output": 15, "audio_seconds": 5},
                "trouble": null}),
        ),
        row(
            "https://docs.mistral.ai/api/#tag/ocr",
            "api.mistral.ai",
            "/v1/ocr",
            r#"{"pages":[{"index":0,"markdown":"a"}],"model":"mistral-ocr-2505-completion",
            "usage_info":{"pages_processed":29,"doc_size_bytes":null}}"#,
            json!({"api": "mistral.ocr", "model": "mistral-ocr-2505-completion",
                "usage": {"pages": 29}, "usage_source": "reported", "trouble": null}),
        ),
        row(
            "https://console.upstage.ai/api/document-digitization/document-parsing",
            "api.upstage.ai",
            "/v1/document-digitization",
            r#"{"api":"2.0","model":"document-parse-251217","content":{"html":"<p>a</p>"},"usage":{"pages":3}}"#,
            json!({"model": "document-parse-251217", "usage": {"pages": 3}, "trouble": null}),
        ),
        row(
            "https://docs.mistral.ai/api/#tag/beta.conversations",
            "api.mistral.ai",
            "/v1/conversations",
            r#"{"conversation_id":"c","usage":{"prompt_tokens":188,"completion_tokens":55,"total_tokens":7355,
            "connector_tokens":7112,"connectors":{"web_search":1}},"outputs":[{"type":"tool.execution","name":"web_search"},
            {"type":"message.output","model":"mistral-medium-2505","content":[{"type":"text","text":"a"}]}]}"#,
            json!({"api": "mistral.conversations", "model": "mistral-medium-2505",
                "usage": {"input": 7300, "output": 55, "web_searches": 1}, "trouble": null}),
        ),
        row(
            "https://docs.mistral.ai/api/#tag/beta.conversations",
            "api.mistral.ai",
            "/v1/conversations",
            events(&[
                r#"{"type":"conversation.response.started","conversation_id":"c"}"#,
                r#"{"type":"message.output.delta","content":"a","model":"mistral-medium-2505"}"#,
                r#"{"type":"conversation.response.done","usage":{"prompt_tokens":8,"completion_tokens":5,"total_tokens":13}}"#,
            ]),
            json!({"model": "mistral-medium-2505", "usage": {"input": 8, "output": 5},
                "complete": true, "trouble": null}),
        ),
        row(
            "https://www.alibabacloud.com/help/model-studio/qwen-api-via-dashscope",
            "dashscope-intl.aliyuncs.com",
            "/api/v1/services/aigc/text-generation/generation",
            "id:1\nevent:result\n:HTTP_STATUS/200\ndata:{\"output\":{\"choices\":[{\"message\":{\"content\":\"a\",\"role\":\"assistant\"},\"finish_reason\":\"null\"}]},\"usage\":{\"total_tokens\":27,\"output_tokens\":1,\"input_tokens\":26},\"request_id\":\"r\"}\n\n\
             id:2\nevent:result\n:HTTP_STATUS/200\ndata:{\"output\":{\"choices\":[{\"message\":{\"content\":\"\",\"role\":\"assistant\"},\"finish_reason\":\"stop\"}]},\"usage\":{\"total_tokens\":57,\"output_tokens\":31,\"input_tokens\":26,\"prompt_tokens_details\":{\"cached_tokens\":6}},\"request_id\":\"r\"}\n\n",
            json!({"api": "dashscope.generate", "provider": "alibaba",
                "usage": {"input": 20, "cache_read": 6, "output": 31}, "finish_reason": "stop",
                "complete": true, "trouble": null}),
        ),
        row(
            "https://www.alibabacloud.com/help/model-studio/qwen-api-via-dashscope",
            "dashscope.aliyuncs.com",
            "/api/v1/services/aigc/text-generation/generation",
            r#"{"output":{"finish_reason":"stop","text":"a"},"usage":{"output_tokens":3,"input_tokens":2,"total_tokens":5}}"#,
            json!({"usage": {"input": 2, "output": 3}, "finish_reason": "stop", "trouble": null}),
        ),
        row(
            "https://www.alibabacloud.com/help/model-studio/web-search",
            "dashscope-intl.aliyuncs.com",
            "/compatible-mode/v1/chat/completions",
            r#"{"model":"qwen-plus","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":2,"total_tokens":12,
            "plugins":{"search":{"count":2,"strategy":"agent"}}}}"#,
            json!({"usage": {"input": 10, "output": 2, "web_searches": 2}, "trouble": null}),
        ),
        row(
            "https://www.alibabacloud.com/help/model-studio/qwen-api-via-openai-responses",
            "dashscope-intl.aliyuncs.com",
            "/api/v2/apps/protocols/compatible-mode/v1/responses",
            r#"{"id":"r","status":"completed","model":"qwen3-max","output":[{"type":"web_search_call","status":"completed"}],
            "usage":{"input_tokens":10,"output_tokens":4,"total_tokens":14,"x_details":[{"input_tokens":10,"output_tokens":4,
            "plugins":{"web_search":{"count":3}}}],"x_tools":{"web_search":{"count":3}}}}"#,
            json!({"provider": "alibaba", "usage": {"input": 10, "output": 4, "web_searches": 3},
                "trouble": null}),
        ),
        row(
            "https://openrouter.ai/docs/guides/overview/multimodal/image-generation",
            "openrouter.ai",
            "/api/v1/images",
            r#"{"created":0,"data":[{"b64_json":"AAAA"}],"usage":{"prompt_tokens":5,"completion_tokens":1537,"total_tokens":1542,
            "cost":0.03422675,"is_byok":false,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":
            {"reasoning_tokens":0,"image_tokens":1120}}}"#,
            json!({"api": "openai.images", "cost": "0.03422675", "usage": {"input": 5, "cache_read": 0,
                "output": 417, "reasoning": 0, "image_output": 1120, "images": 1}, "trouble": null}),
        ),
        row(
            "https://developers.cloudflare.com/workers-ai/get-started/rest-api/",
            "api.cloudflare.com",
            "/client/v4/accounts/a/ai/run/@cf/meta/llama-3.1-8b-instruct",
            r#"{"result":{"response":"Hi","tool_calls":[{"name":"f","arguments":{}}],"usage":{"prompt_tokens":10,
            "completion_tokens":4,"total_tokens":14}},"success":true,"errors":[],"messages":[]}"#,
            json!({"api": "openai.chat", "provider": "cloudflare", "path_model": "llama-3.1-8b-instruct",
                "usage": {"input": 10, "output": 4}, "tool_calls": 1, "error": false, "trouble": null}),
        ),
        row(
            "https://developers.cloudflare.com/workers-ai/get-started/rest-api/",
            "api.cloudflare.com",
            "/client/v4/accounts/a/ai/run/@cf/meta/llama-3.1-8b-instruct",
            events(&[
                r#"{"response":"Hi","p":"abd"}"#,
                r#"{"response":"","usage":{"prompt_tokens":10,"completion_tokens":4,"total_tokens":14}}"#,
                "[DONE]",
            ]),
            json!({"usage": {"input": 10, "output": 4}, "complete": true, "trouble": null}),
        ),
        row(
            "https://www.alibabacloud.com/help/model-studio/qwen-tts",
            "dashscope-intl.aliyuncs.com",
            "/api/v1/services/aigc/multimodal-generation/generation",
            r#"{"output":{"finish_reason":"stop","audio":{"url":"https://x/y.wav"}},"usage":{"characters":195},"request_id":"r"}"#,
            json!({"usage": {"characters": 195}, "finish_reason": "stop", "trouble": null}),
        ),
        row(
            "https://www.alibabacloud.com/help/model-studio/qwen-image-api",
            "dashscope-intl.aliyuncs.com",
            "/api/v1/services/aigc/multimodal-generation/generation",
            r#"{"output":{"choices":[{"finish_reason":"stop","message":{"role":"assistant","content":[{"image":"https://x/y.png"}]}}]},
            "usage":{"height":1328,"image_count":2,"width":1328},"request_id":"r"}"#,
            json!({"usage": {"images": 2}, "finish_reason": "stop", "trouble": null}),
        ),
        row(
            "https://platform.minimax.io/docs/api-reference/text-post",
            "api.minimax.io",
            "/v1/text/chatcompletion_v2",
            r#"{"base_resp":{"status_code":1004,"status_msg":"login fail"}}"#,
            json!({"error": true, "trouble": "error_in_body"}),
        ),
        row(
            "https://docs.voyageai.com/reference/multimodal-embeddings-api",
            "api.voyageai.com",
            "/v1/multimodalembeddings",
            r#"{"object":"list","data":[],"model":"voyage-multimodal-3","usage":{"text_tokens":5,"image_pixels":2000000,"total_tokens":3576}}"#,
            json!({"api": "openai.embeddings", "usage": {"input": 3576, "output": 0}}),
        ),
        row(
            "https://cloud.ibm.com/apidocs/watsonx-ai#text-embeddings",
            "us-south.ml.cloud.ibm.com",
            "/ml/v1/text/embeddings?version=2024-05-02",
            r#"{"model_id":"ibm/slate-30m-english-rtrvr","results":[{"embedding":[0.1]}],"input_token_count":10}"#,
            json!({"model": "ibm/slate-30m-english-rtrvr", "usage": {"input": 10, "output": 0},
                "usage_source": "reported"}),
        ),
        row(
            "https://docs.snowflake.com/developer-guide/snowflake-rest-api/reference/cortex-inference",
            "acme.snowflakecomputing.com",
            "/api/v2/cortex/inference:complete",
            events(&[
                r#"{"id":"i","model":"m","choices":[{"delta":{"type":"text","content":"a","text":"a"}}],"usage":{}}"#,
                r#"{"id":"i","model":"m","choices":[{"delta":{"type":"text","content":"b","text":"b"}}],"usage":{"prompt_tokens":18,"completion_tokens":2,"total_tokens":20}}"#,
            ]),
            json!({"model": "m", "usage": {"input": 18, "output": 2}}),
        ),
    ]);
}

/// Gateways that speak several dialects know counts under two names, and write both.
#[test]
fn counts_under_two_names_are_one_count() {
    let chat = |usage: &str, wanted: Value| {
        row(
            "https://github.com/QuantumNous/new-api/blob/main/dto/openai_response.go",
            "new-api.internal:3000",
            "/v1/chat/completions",
            format!(r#"{{"model":"m","choices":[],"usage":{usage}}}"#),
            json!({"usage": wanted, "usage_source": "reported", "trouble": null}),
        )
    };
    check(vec![
        chat(
            r#"{"prompt_tokens":100,"completion_tokens":20,"total_tokens":120,"prompt_tokens_details":{"cached_tokens":40},
            "completion_tokens_details":{"reasoning_tokens":8},"input_tokens":0,"output_tokens":0,"input_tokens_details":null}"#,
            json!({"input": 60, "cache_read": 40, "output": 12, "reasoning": 8}),
        ),
        chat(
            r#"{"prompt_tokens":0,"completion_tokens":0,"total_tokens":120,"input_tokens":100,"output_tokens":20,
            "input_tokens_details":{"cached_tokens":40},"prompt_tokens_details":{"cached_tokens":0}}"#,
            json!({"input": 60, "cache_read": 40, "output": 20}),
        ),
        chat(
            r#"{"prompt_tokens":100,"completion_tokens":20,"prompt_tokens_details":{"cached_tokens":40},"prompt_cache_hit_tokens":0,
            "cached_tokens":0,"completion_tokens_details":{"reasoning_tokens":8},"reasoning_tokens":0}"#,
            json!({"input": 60, "cache_read": 40, "output": 12, "reasoning": 8}),
        ),
        chat(
            r#"{"input_tokens":0,"output_tokens":0,"cached_tokens":0}"#,
            json!({"input": 0, "cache_read": 0, "output": 0}),
        ),
    ]);
}

#[test]
fn speech_is_charged_by_its_text() {
    let ask = r#"{"model":"tts-1","input":"Zo\u00eb said \"hi\".\n","voice":"alloy"}"#;
    let speak = |kind: &str, status: u16, answer: &[u8]| {
        let detected = detect("api.openai.com", "/v1/audio/speech", "POST");
        let Detection::Metered(target) = detected else {
            panic!("{detected:?}");
        };
        let mut request = RequestBody::new(&target, Some("application/json"), Edits::default());
        ask.as_bytes().chunks(3).for_each(|piece| {
            request.push(piece);
        });
        let head = ResponseHead {
            status,
            headers: vec![("content-type".to_owned(), kind.to_owned())],
        };
        let mut scanner = UsageScanner::new(&target, request.facts(), &head);
        scanner.push(answer);
        let scan = scanner.finish();
        (json!(scan.usage), scan.trouble)
    };
    assert_eq!(
        speak("audio/mpeg", 200, b"ID3\x04\0"),
        (json!({"characters": 15}), None)
    );
    assert_eq!(
        speak("application/json", 400, br#"{"error":{"message":"no"}}"#),
        (json!({}), None)
    );
    let told = br#"data: {"type":"speech.audio.done","usage":{"characters":17}}"#;
    assert_eq!(
        speak(
            "text/event-stream",
            200,
            &[told.as_slice(), b"\n\n"].concat()
        ),
        (json!({"characters": 17}), None)
    );
    let told =
        br#"data: {"type":"speech.audio.done","usage":{"input_tokens":14,"output_tokens":101}}"#;
    assert_eq!(
        speak(
            "text/event-stream",
            200,
            &[told.as_slice(), b"\n\n"].concat()
        ),
        (json!({"input": 14, "output": 101}), None)
    );
}

#[test]
fn a_call_that_is_told_again_is_one_call() {
    let source = "https://www.alibabacloud.com/help/model-studio/qwen-api-via-dashscope";
    let dashscope = |messages: &[&str], n_calls: u32| {
        let last = messages.len() - 1;
        let documents = messages.iter().enumerate().map(|(i, calls)| {
            let finish = if i == last { "tool_calls" } else { "null" };
            format!(
                r#"{{"output":{{"choices":[{{"finish_reason":"{finish}","message":{{"role":"assistant","content":"","tool_calls":[{calls}]}}}}]}},
                "usage":{{"input_tokens":9,"output_tokens":{i},"total_tokens":{}}}}}"#,
                9 + i
            )
            .replace('\n', "")
        });
        let documents: Vec<String> = documents.collect();
        let documents: Vec<&str> = documents.iter().map(String::as_str).collect();
        row(
            source,
            "dashscope.aliyuncs.com",
            "/api/v1/services/aigc/text-generation/generation",
            events(&documents),
            json!({"tool_calls": n_calls, "finish_reason": "tool_calls", "complete": true,
                "usage": {"input": 9, "output": last}}),
        )
    };
    let first =
        r#"{"index":0,"id":"call_a","type":"function","function":{"name":"f","arguments":"{"}}"#;
    let second =
        r#"{"index":1,"id":"call_b","type":"function","function":{"name":"g","arguments":""}}"#;
    let piece = r#"{"index":1,"id":"","type":"function","function":{"arguments":"{}"}}"#;
    let both = format!("{first},{second}");
    let minimax = events(&[
        &format!(r#"{{"id":"c","model":"m","choices":[{{"index":0,"delta":{{"tool_calls":[{first}]}}}}]}}"#),
        &format!(r#"{{"id":"c","model":"m","choices":[{{"index":0,"delta":{{"tool_calls":[{second}]}}}}]}}"#),
        &format!(
            r#"{{"id":"c","model":"m","choices":[{{"index":0,"finish_reason":"tool_calls","message":{{"tool_calls":[{both}]}}}}],
            "usage":{{"total_tokens":7,"prompt_tokens":4,"completion_tokens":3}},"base_resp":{{"status_code":0}}}}"#
        )
        .replace('\n', ""),
    ]);
    check(vec![
        // All of the answer so far in each event.
        dashscope(&[first, first, &both, &both], 2),
        // What is new in each event.
        dashscope(&[first, second, piece], 2),
        row(
            "https://platform.minimax.io/docs/api-reference/text-post",
            "api.minimax.io",
            "/v1/text/chatcompletion_v2",
            minimax,
            json!({"tool_calls": 2, "complete": true, "usage": {"input": 4, "output": 3}}),
        ),
    ]);
}

#[test]
fn streams_end_and_fail_in_words_of_their_own() {
    let chat = "https://platform.openai.com/docs/api-reference/chat/streaming";
    let piece = r#"{"model":"m","choices":[{"index":0,"delta":{"content":"a"}}]}"#;
    let usage = r#"{"model":"m","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#;
    let done = |done: &str| {
        let body = format!("data: {piece}\n\ndata: {usage}\n\ndata:{done}\n\n");
        let wanted = json!({"complete": true, "trouble": null, "usage": {"input": 1, "output": 2}});
        row(chat, "llm.internal", "/v1/chat/completions", body, wanted)
    };
    check(vec![
        done("[DONE]"),
        done(" [DONE] "),
        done("[DONE]\t \r"),
        row(
            "https://docs.mistral.ai/api/#tag/audio.transcriptions",
            "api.mistral.ai",
            "/v1/audio/transcriptions",
            "event: transcription.language\ndata: {\"type\":\"transcription.language\",\"audio_language\":\"en\"}\n\n\
             event: transcription.text.delta\ndata: {\"type\":\"transcription.text.delta\",\"text\":\"I see\"}\n\n\
             event: transcription.done\ndata: {\"type\":\"transcription.done\",\"model\":\"voxtral-mini-2507\",\"text\":\"I see\",\
             \"language\":\"en\",\"segments\":[],\"usage\":{\"prompt_audio_seconds\":203,\"prompt_tokens\":4,\"total_tokens\":3264,\
             \"completion_tokens\":635}}\n\n",
            json!({"model": "voxtral-mini-2507", "complete": true, "trouble": null,
                "usage": {"input": 4, "output": 635, "audio_seconds": 203}}),
        ),
        row(
            "https://www.alibabacloud.com/help/model-studio/qwen-api-via-dashscope",
            "dashscope.aliyuncs.com",
            "/api/v1/services/aigc/text-generation/generation",
            "id:1\nevent:error\n:HTTP_STATUS/400\ndata:{\"code\":\"InvalidParameter\",\"message\":\"Range of max_tokens\",\"request_id\":\"r\"}\n\n",
            json!({"error": true, "usage_source": "absent", "complete": false}),
        ),
        row(
            "https://cloud.ibm.com/apidocs/watsonx-ai#text-chat-stream",
            "us-south.ml.cloud.ibm.com",
            "/ml/v1/text/chat_stream?version=2024-10-08",
            "id: 1\nevent:  error\ndata: {\"errors\":[{\"code\":\"downstream_request_failed\"}],\"status_code\":500}\n\n",
            json!({"error": true, "usage_source": "absent", "complete": false}),
        ),
        row(
            "https://github.com/vllm-project/vllm/blob/v0.8.5/vllm/entrypoints/openai/protocol.py",
            "vllm.internal:8000",
            "/v1/chat/completions",
            format!(
                "data: {piece}\n\ndata: {}\n\ndata: [DONE]\n\n",
                r#"{"object":"error","message":"aborted","type":"InternalServerError","param":null,"code":500}"#
            ),
            json!({"error": true, "complete": true, "usage_source": "absent"}),
        ),
        row(
            chat,
            "llm.internal",
            "/v1/chat/completions",
            format!(
                "event: errors\ndata: {piece}\n\nevent: err\ndata: {usage}\n\ndata: [DONE]\n\n"
            ),
            json!({"error": false, "complete": true, "trouble": null}),
        ),
    ]);
}

#[test]
fn images_that_a_chat_model_made_have_their_own_rate() {
    check(vec![row(
        "https://openrouter.ai/docs/features/multimodal/image-generation",
        "openrouter.ai",
        "/api/v1/chat/completions",
        r#"{"model":"google/gemini-2.5-flash-image","choices":[],"usage":{"prompt_tokens":8,"completion_tokens":1300,
        "total_tokens":1308,"prompt_tokens_details":{"image_tokens":4},"completion_tokens_details":{"reasoning_tokens":0,"image_tokens":1290}}}"#,
        json!({"usage": {"input": 8, "output": 10, "reasoning": 0, "image_output": 1290}}),
    )]);
}

#[test]
fn events_that_are_called_text_are_read_where_they_were_asked_for() {
    let body = events(&[
        r#"{"model":"m","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}"#,
        r#"{"model":"m","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#,
        "[DONE]",
    ]);
    let target = Target::new(Api::OpenAiChat, "own");
    let head = ResponseHead {
        status: 200,
        headers: vec![(
            "content-type".to_owned(),
            "text/plain; charset=utf-8".to_owned(),
        )],
    };
    for (streams, n_output) in [(true, Some(2)), (false, None)] {
        let request = RequestFacts {
            streams,
            ..RequestFacts::default()
        };
        let mut scanner = UsageScanner::new(&target, &request, &head);
        scanner.push(body.as_bytes());
        assert_eq!(scanner.finish().usage.output_total(), n_output);
    }
}

/// A compound system is charged at the rates of the models that it asks.
#[test]
fn models_behind_a_compound_one_are_charged_apart() {
    let used = |input: u64, output: u64, reasoning: u64| {
        json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output,
            "queue_time": 0.2, "completion_tokens_details": {"reasoning_tokens": reasoning}})
    };
    let models = json!({"models": [
        {"model": "llama-3.3-70b-versatile", "usage": used(138, 4, 0)},
        {"model": "openai/gpt-oss-120b", "usage": used(2873, 161, 39)},
        {"model": "llama-3.3-70b-versatile", "usage": used(2285, 222, 0)}]});
    let whole = used(5296, 387, 39);
    let answer = json!({"id": "c", "model": "groq/compound", "service_tier": "on_demand",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "a"}}],
        "usage_breakdown": models, "usage": whole, "x_groq": {"id": "r"}});
    let last = |models: &Value| {
        let chunk = json!({"id": "c", "model": "groq/compound",
            "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
            "x_groq": {"id": "r", "usage": whole, "usage_breakdown": models}});
        events(&[&chunk.to_string(), "[DONE]"])
    };
    let repeated = json!({"models": [{"model": "llama-3.3-70b-versatile", "usage": whole},
        {"model": "openai/gpt-oss-120b", "usage": whole}]});
    let usage = json!({"input": 5296, "output": 348, "reasoning": 39});
    let parts = json!([
        {"kind": "usage_breakdown", "model": "llama-3.3-70b-versatile",
            "usage": {"input": 2423, "output": 226, "reasoning": 0}},
        {"kind": "usage_breakdown", "model": "openai/gpt-oss-120b",
            "usage": {"input": 2873, "output": 122, "reasoning": 39}}]);
    let apart = json!({"model": "groq/compound", "usage": usage, "billed": {},
        "extra_usage": parts, "trouble": null});
    let unknown = json!({"model": "groq/compound", "usage": usage, "billed": null,
        "extra_usage": [], "trouble": "inconsistent"});
    let none = json!({"usage": usage, "billed": null, "extra_usage": [], "trouble": null});
    let source = "https://console.groq.com/docs/compound/systems/compound";
    let groq = |body: String, wanted: Value| {
        let path = "/openai/v1/chat/completions";
        row(source, "api.groq.com", path, body, wanted)
    };
    check(vec![
        groq(answer.to_string(), apart.clone()),
        groq(last(&models), apart),
        groq(last(&repeated), unknown),
        groq(last(&json!({"models": null})), none.clone()),
        groq(last(&Value::Null), none),
    ]);
}

/// What a model spent on asking others is charged as input and output, beside what is called so.
#[test]
fn tokens_of_orchestration_are_charged_too() {
    let source = "https://wavespeed.ai/blog/posts/fugu-ultra-api-guide/";
    let sum = json!({"usage": {"input": 145, "cache_read": 15, "output": 95, "reasoning": 10},
        "provider": "sakana", "trouble": null});
    let told = |path, body: &str, wanted: &Value| {
        let body = format!(r#"{{"id":"r","model":"fugu-ultra","status":"completed",{body}}}"#);
        row(source, "api.sakana.ai", path, body, wanted.clone())
    };
    check(vec![
        told(
            "/v1/responses",
            r#""output":[],"usage":{"input_tokens":120,"input_tokens_details":{"cached_tokens":5,"orchestration_input_tokens":40,
            "orchestration_input_cached_tokens":10},"output_tokens":80,"output_tokens_details":{"reasoning_tokens":10,
            "orchestration_output_tokens":25},"total_tokens":265}"#,
            &sum,
        ),
        told(
            "/v1/chat/completions",
            r#""choices":[],"usage":{"prompt_tokens":120,"prompt_tokens_details":{"cached_tokens":5,"orchestration_input_tokens":40,
            "orchestration_input_cached_tokens":10},"completion_tokens":80,"completion_tokens_details":{"reasoning_tokens":10,
            "orchestration_output_tokens":25},"total_tokens":265}"#,
            &sum,
        ),
        told(
            "/v1/responses",
            r#""output":[],"usage":{"input_tokens":160,"input_tokens_details":{"cached_tokens":15,"orchestration_input_tokens":40},
            "output_tokens":105,"output_tokens_details":{"reasoning_tokens":10,"orchestration_output_tokens":25},
            "total_tokens":265}"#,
            &sum,
        ),
    ]);
}

/// A video is charged by its length, once it is made.
#[test]
fn videos_are_charged_when_they_are_made() {
    let openai = "https://platform.openai.com/docs/api-reference/videos/object";
    let xai = "https://docs.x.ai/docs/guides/video-generations";
    let video = |status: &str| {
        format!(
            r#"{{"id":"video_1","object":"video","model":"sora-2","status":"{status}","progress":0,
            "created_at":1,"seconds":"8","size":"1280x720","error":null}}"#
        )
    };
    let path = "/v1/videos/video_1";
    let none = json!({"api": "openai.videos", "response_id": "video_1", "usage": {},
        "usage_source": "absent", "billable": false, "trouble": null});
    check(vec![
        row(
            openai,
            "api.openai.com",
            "/v1/videos",
            video("queued"),
            none.clone(),
        ),
        row(
            openai,
            "api.openai.com",
            path,
            video("in_progress"),
            none.clone(),
        ),
        row(
            openai,
            "api.openai.com",
            path,
            video("completed"),
            json!({"model": "sora-2", "response_id": "video_1", "usage": {"video_seconds": 8},
                "usage_source": "reported", "finish_reason": "completed", "trouble": null}),
        ),
        row(openai, "api.openai.com", path, video("failed"), none),
        row(
            xai,
            "api.x.ai",
            "/v1/videos/r1",
            r#"{"status":"done","video":{"url":"https://x/y.mp4","duration":6,"respect_moderation":true},
            "model":"grok-imagine-video","usage":{"cost_in_usd_ticks":3000000000}}"#,
            json!({"model": "grok-imagine-video", "response_id": "r1", "cost": "0.3000000000",
                "usage": {"video_seconds": 6}, "usage_source": "reported"}),
        ),
        row(
            xai,
            "api.x.ai",
            "/v1/videos/r1",
            r#"{"status":"pending","progress":40}"#,
            json!({"response_id": "r1", "usage": {}, "usage_source": "absent"}),
        ),
    ]);
}

/// What was asked for and is fetched later is charged where it is told.
#[test]
fn chat_completions_that_are_polled_complete_the_call_that_asked() {
    let source = "https://docs.perplexity.ai/api-reference/async-chat-completions-request_id-get";
    let ask = "/async/chat/completions";
    let job = |status: &str, response: &str| {
        format!(
            r#"{{"id":"job","created_at":1,"model":"sonar-deep-research","status":"{status}","response":{response}}}"#
        )
    };
    let answer = r#"{"id":"inner","model":"sonar-deep-research","choices":[{"index":0,"finish_reason":"stop","message":{"content":"a"}}],
        "usage":{"prompt_tokens":9,"completion_tokens":50,"total_tokens":59,"citation_tokens":20,"num_search_queries":3,
        "reasoning_tokens":70,"cost":{"total_cost":0.5}}}"#;
    let none = json!({"api": "openai.chat.async", "response_id": "job", "usage": {},
        "usage_source": "absent", "billable": false, "trouble": null});
    check(vec![
        row(
            source,
            "api.perplexity.ai",
            ask,
            job("CREATED", "null"),
            none.clone(),
        ),
        row(
            source,
            "api.perplexity.ai",
            "/async/chat/completions/job",
            job("IN_PROGRESS", "null"),
            none.clone(),
        ),
        row(
            source,
            "api.perplexity.ai",
            "/async/chat/completions/job",
            job("COMPLETED", answer),
            json!({"response_id": "job", "model": "sonar-deep-research", "finish_reason": "stop",
                "usage": {"input": 9, "output": 50, "reasoning": 70, "web_searches": 3},
                "billed": {"input": 29, "output": 50, "reasoning": 70, "web_searches": 3},
                "usage_source": "reported", "cost": "0.5"}),
        ),
        row(
            "https://docs.perplexity.ai/api-reference/async-sonar-post",
            "api.perplexity.ai",
            "/v1/async/sonar",
            job("CREATED", "null"),
            none.clone(),
        ),
        row(
            "https://docs.perplexity.ai/api-reference/async-sonar-api-request-get",
            "api.perplexity.ai",
            "/v1/async/sonar/job",
            job("COMPLETED", answer),
            json!({"api": "openai.chat.async", "response_id": "job", "usage_source": "reported",
                "usage": {"input": 9, "output": 50, "reasoning": 70, "web_searches": 3}}),
        ),
        row(
            "https://docs.perplexity.ai/api-reference/sonar-post",
            "api.perplexity.ai",
            "/v1/sonar",
            r#"{"id":"s","model":"sonar","choices":[{"index":0,"finish_reason":"stop","message":{"content":"a"}}],
            "usage":{"prompt_tokens":14,"completion_tokens":70,"total_tokens":84,"search_context_size":"low",
            "cost":{"input_tokens_cost":0.000014,"output_tokens_cost":0.00007,"request_cost":0.005,"total_cost":0.005084}}}"#,
            json!({"api": "openai.chat", "provider": "perplexity", "model": "sonar",
                "usage": {"input": 14, "output": 70}, "cost": "0.005084"}),
        ),
        row(
            "https://docs.bigmodel.cn/api-reference",
            "open.bigmodel.cn",
            "/api/paas/v4/async/chat/completions",
            r#"{"id":"job","request_id":"r","model":"glm-4.6","task_status":"PROCESSING"}"#,
            none,
        ),
        row(
            "https://docs.bigmodel.cn/api-reference",
            "open.bigmodel.cn",
            "/api/paas/v4/async-result/job",
            r#"{"id":"job","request_id":"r","model":"glm-4.6","task_status":"SUCCESS",
            "choices":[{"index":0,"finish_reason":"stop","message":{"content":"a"}}],
            "usage":{"prompt_tokens":9,"completion_tokens":5,"total_tokens":14}}"#,
            json!({"response_id": "job", "model": "glm-4.6", "usage": {"input": 9, "output": 5},
                "usage_source": "reported"}),
        ),
    ]);
}

/// <https://docs.x.ai/docs/guides/deferred-chat-completions>: what asks looks like any other call,
/// and its answer is fetched by `request_id`, which is not the id of the completion.
#[test]
fn a_deferred_completion_is_known_by_the_id_that_it_is_fetched_by() {
    let source = "https://docs.x.ai/docs/guides/deferred-chat-completions";
    let answer = r#"{"id":"c0161816","object":"chat.completion","created":1,"model":"grok-4",
        "choices":[{"index":0,"message":{"role":"assistant","content":"42"},"finish_reason":"stop"}],
        "usage":{"prompt_tokens":27,"completion_tokens":48,"total_tokens":75,
        "prompt_tokens_details":{"text_tokens":27,"cached_tokens":7}}}"#;
    check(vec![
        row(
            source,
            "api.x.ai",
            "/v1/chat/completions",
            r#"{"request_id":"f15c114e"}"#,
            json!({"api": "openai.chat", "response_id": "f15c114e", "usage": {},
                "usage_source": "absent"}),
        ),
        row(
            source,
            "api.x.ai",
            "/v1/chat/deferred-completion/f15c114e",
            answer,
            json!({"api": "openai.chat.async", "response_id": "f15c114e", "model": "grok-4",
                "usage": {"input": 20, "cache_read": 7, "output": 48}, "billable": false,
                "usage_source": "reported", "finish_reason": "stop", "trouble": null}),
        ),
        row(
            "https://docs.z.ai/api-reference/llm/chat-completion",
            "api.z.ai",
            "/api/paas/v4/chat/completions",
            r#"{"id":"own","request_id":"asked","model":"glm-4.6","choices":[],"usage":
            {"prompt_tokens":9,"completion_tokens":5,"total_tokens":14}}"#,
            json!({"response_id": "own"}),
        ),
        row(
            "https://docs.z.ai/api-reference/llm/chat-completion",
            "api.z.ai",
            "/api/paas/v4/chat/completions",
            r#"{"request_id":"asked","id":"own","model":"glm-4.6","choices":[],"usage":
            {"prompt_tokens":9,"completion_tokens":5,"total_tokens":14}}"#,
            json!({"response_id": "own"}),
        ),
    ]);
}

/// Endpoints beside chat that answer in a shape which is read already.
#[test]
fn smaller_endpoints_count_as_their_siblings_do() {
    check(vec![
        row(
            "https://docs.cohere.com/v1/reference/generate",
            "api.cohere.com",
            "/v1/generate",
            r#"{"id":"g","generations":[{"id":"1","text":"hi","finish_reason":"COMPLETE"}],"prompt":"p",
            "meta":{"api_version":{"version":"1"},"billed_units":{"input_tokens":5,"output_tokens":7}}}"#,
            json!({"api": "cohere.v1.chat", "response_id": "g", "usage": {"input": 5, "output": 7},
                "finish_reason": "COMPLETE", "usage_source": "reported"}),
        ),
        row(
            "https://docs.mistral.ai/api/#tag/classifiers",
            "api.mistral.ai",
            "/v1/classifications",
            r#"{"id":"mod-1","model":"m","results":[{"intent":{"scores":{"a":0.9}}}],
            "usage":{"prompt_tokens":5,"completion_tokens":0,"total_tokens":5}}"#,
            json!({"api": "openai.moderations", "model": "m", "usage": {"input": 5, "output": 0}}),
        ),
        row(
            "https://docs.snowflake.com/developer-guide/snowflake-rest-api/cortex-embed/cortex-embed-introduction",
            "acme.snowflakecomputing.com",
            "/api/v2/cortex/inference:embed",
            r#"{"object":"list","data":[{"object":"embedding","embedding":[[0.1]],"index":0}],
            "model":"e5-base-v2","usage":{"total_tokens":17}}"#,
            json!({"provider": "snowflake", "model": "e5-base-v2",
                "usage": {"input": 17, "output": 0}}),
        ),
    ]);
}

/// Anthropic's cache counts lie beside its input, also where others pass them on so.
#[test]
fn cache_counts_that_cannot_lie_in_the_input_lie_beside_it() {
    let usage = |usage: &str, wanted: Value| {
        row(
            "https://platform.claude.com/docs/en/build-with-claude/prompt-caching",
            "acme.cloud.databricks.com",
            "/serving-endpoints/chat/completions",
            format!(r#"{{"model":"claude","choices":[],"usage":{usage}}}"#),
            json!({"usage": wanted, "trouble": null}),
        )
    };
    check(vec![
        usage(
            r#"{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12,"cache_read_input_tokens":1418,
            "cache_creation_input_tokens":30}"#,
            json!({"input": 7, "cache_read": 1418, "cache_write": 30, "output": 5}),
        ),
        usage(
            r#"{"prompt_tokens":100,"completion_tokens":5,"total_tokens":165,"cache_read_input_tokens":60,
            "cache_creation_input_tokens":0}"#,
            json!({"input": 100, "cache_read": 60, "output": 5}),
        ),
        usage(
            r#"{"prompt_tokens":100,"completion_tokens":5,"total_tokens":105,"cache_read_input_tokens":60,
            "cache_creation_input_tokens":0}"#,
            json!({"input": 40, "cache_read": 60, "output": 5}),
        ),
    ]);
}
