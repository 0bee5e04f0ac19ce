//! What passes and must be found nowhere: planted words in every place that content or keys have.

use std::fs;
use std::path::Path;

use serde_json::json;
use tollmesh_tests::dialect::Dialect;
use tollmesh_tests::{Answer, Exchange, Mesh, Payload, http, usage};

/// Every planted word has this in it, and nothing else has.
const CANARY: &str = "canary7f3";

/// Calls with the word in prompt, answer, tool call, error, credential and query.
fn calls() -> Vec<Exchange> {
    let chat = |stream: bool| {
        json!({
            "model": "gpt-4o", "stream": stream, "user": "canary7f3-body-user",
            "messages": [{ "role": "user", "content": "canary7f3-prompt" }],
            "tools": [{ "type": "function", "function": { "name": "canary7f3-tool" } }],
            "metadata": { "note": "canary7f3-metadata" }
        })
    };
    let answer = json!({
        "id": "chatcmpl-1", "model": "gpt-4o", "system_fingerprint": "canary7f3-print",
        "choices": [{ "index": 0, "finish_reason": "tool_calls", "message": {
            "role": "assistant", "content": "canary7f3-completion", "refusal": "canary7f3-refusal",
            "tool_calls": [{ "id": "canary7f3-call", "type": "function", "function": {
                "name": "canary7f3-tool", "arguments": "{\"x\":\"canary7f3-argument\"}" } }]
        } }],
        "usage": { "prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12 }
    });
    let delta = json!({ "id": "chatcmpl-2", "model": "gpt-4o", "choices": [{
        "index": 0, "delta": { "content": "canary7f3-delta" } }] });
    let error = json!({ "error": { "message": "canary7f3-error", "code": "canary7f3-code",
        "type": "invalid_request_error" } });
    let openai = |stream: bool| {
        Exchange::post(
            "api.openai.com",
            "/v1/chat/completions",
            chat(stream).to_string(),
        )
        .ask_header("authorization", "Bearer sk-canary7f3-bearer")
        .ask_header("x-api-key", "canary7f3-x-api-key")
        .ask_header("api-key", "canary7f3-api-key")
        .ask_header("cookie", "session=canary7f3-cookie")
        .ask_header("openai-organization", "canary7f3-organization")
    };
    let whole = openai(false).answered("application/json", answer.to_string());
    let stream = format!("data: {delta}\n\n");
    let n_bytes = stream.len();
    let cut = openai(true)
        .answered("text/event-stream", stream)
        .reset_after(n_bytes);
    let refused = openai(false)
        .answered("application/json", error.to_string())
        .status(400);
    let broken = openai(false).answered("application/json", "{\"canary7f3-broken\": nonsense");
    let mut gemini = Dialect::Gemini.plain(&usage("gemini-2.5-flash").input(4).output(2));
    gemini
        .ask
        .path
        .push_str("?key=AIza-canary7f3-query&alt=canary7f3-alt");
    gemini.ask.body = Payload::Bytes(
        json!({ "contents": [{ "parts": [{ "text": "canary7f3-part" }] }] })
            .to_string()
            .into(),
    );
    let gemini = gemini.ask_header("x-goog-api-key", "canary7f3-goog");
    let unreadable = Exchange::post(
        "api.openai.com",
        "/v1/canary7f3-new/endpoint?key=canary7f3-key",
        "{\"prompt\":\"canary7f3-unreadable\"}",
    )
    .answered("application/json", answer.to_string());
    vec![whole, cut, refused, broken, gemini, unreadable]
}

/// The places in which some bytes are, by name; `found` is told of each that has the word.
fn search(name: &str, bytes: &[u8], found: &mut Vec<String>) {
    let at = bytes
        .windows(CANARY.len())
        .position(|window| window == CANARY.as_bytes());
    if let Some(at) = at {
        let around = &bytes[at.saturating_sub(60)..bytes.len().min(at + 60)];
        found.push(format!("{name}: …{}…", String::from_utf8_lossy(around)));
    }
}

fn search_files(dir: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).expect("is a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            search_files(&path, found);
        } else if let Ok(bytes) = fs::read(&path) {
            search(&path.display().to_string(), &bytes, found);
        }
    }
}

#[test]
fn content_and_keys_pass_and_are_kept_nowhere() {
    let tags = json!({ "tags": {
        "aliases": ["helicone", "portkey", "litellm"],
        "hash": ["user"], "hash_shapes": ["email", "key"],
        "hash_key": "000102030405060708090a0b0c0d0e0f",
        "required": ["team", "tier"], "on_missing": "header"
    } });
    let Some(mesh) = Mesh::built().plugin(tags).with_chaos().start() else {
        return;
    };
    let client = mesh
        .client("red")
        .header("helicone-user-id", "canary7f3-hidden-user")
        .header("helicone-auth", "Bearer canary7f3-helicone")
        .tag("customer", "canary7f3@example.com")
        .tag("session", "sk-proj-canary7f3-000000");
    let answers: Vec<(Exchange, Answer)> = calls()
        .into_iter()
        .map(|call| (call.clone(), client.call(&call)))
        .collect();
    let (metered, last) = answers.split_at(answers.len() - 1);
    for (_, answer) in metered {
        let row = mesh.ledger().row_of(answer);
        assert!(row.tag("user").is_some_and(|user| user.starts_with("h:")));
    }
    // The words did pass, in both directions.
    let (whole, first) = &metered[0];
    first.is_what_was_sent(whole);
    let received = mesh.provider().received(&first.request_id).remove(0);
    let bearer = received.header("authorization").unwrap_or_default();
    assert!(bearer.contains(CANARY));
    assert_eq!(last[0].1.status, Some(200));

    let mut found = Vec::new();
    search("events as sent", &mesh.chaos().heard(), &mut found);
    assert!(mesh.chaos().heard().len() > 1_000, "nothing was sent");
    search(
        "Envoy's logs",
        mesh.envoy().process().log().as_bytes(),
        &mut found,
    );
    let aggregator = mesh.aggregator();
    let log = aggregator.process().expect("it runs").log();
    search("the aggregator's log", log.as_bytes(), &mut found);
    for (name, address, path) in [
        ("operator", mesh.operator(), "/metrics"),
        ("operator", mesh.operator(), "/healthz"),
        ("operator", mesh.operator(), "/readyz"),
        ("operator", mesh.operator(), "/api/v1/requests?limit=100"),
        (
            "operator",
            mesh.operator(),
            "/api/v1/spend?by=team,user,customer,session,model",
        ),
        ("operator", mesh.operator(), "/api/v1/coverage"),
        ("Envoy", mesh.envoy().admin(), "/stats"),
        ("Envoy", mesh.envoy().admin(), "/stats/prometheus"),
    ] {
        let reply = mesh.runtime().block_on(http::get(address, path));
        let reply = reply.expect("an answer");
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        search(&format!("{name}{path}"), &reply.body, &mut found);
    }
    drop(aggregator);
    // The ledger with its log, the configurations, and what both processes wrote.
    search_files(mesh.dir(), &mut found);
    assert!(found.is_empty(), "{found:#?}");
    mesh.has_not_trapped();
}
