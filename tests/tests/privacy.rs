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

/// Tells `found` of a place by its name, where its bytes have the word in them.
fn search(word: &str, name: &str, bytes: &[u8], found: &mut Vec<String>) {
    let mut windows = bytes.windows(word.len());
    if let Some(at) = windows.position(|window| window == word.as_bytes()) {
        let around = &bytes[at.saturating_sub(60)..bytes.len().min(at + 60)];
        found.push(format!("{name}: …{}…", String::from_utf8_lossy(around)));
    }
}

/// Everything that leaves the filter and the aggregator, by name.
fn places(mesh: &Mesh) -> Vec<(String, Vec<u8>)> {
    let aggregator = mesh.aggregator();
    let log = aggregator.process().expect("it runs").log();
    let mut places = vec![
        ("events as sent".to_string(), mesh.chaos().heard()),
        ("the aggregator's log".to_string(), log.into_bytes()),
        (
            "Envoy's logs".to_string(),
            mesh.envoy().process().log().into_bytes(),
        ),
    ];
    let (operator, admin) = (mesh.operator(), mesh.envoy().admin());
    for (address, path) in [
        (operator, "/metrics"),
        (operator, "/healthz"),
        (operator, "/readyz"),
        (operator, "/api/v1/requests?limit=100"),
        (
            operator,
            "/api/v1/spend?by=team,user,customer,session,model",
        ),
        (operator, "/api/v1/coverage"),
        (admin, "/stats"),
        (admin, "/stats/prometheus"),
    ] {
        let reply = mesh.runtime().block_on(http::get(address, path));
        let reply = reply.expect("an answer");
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        places.push((path.to_string(), reply.body.to_vec()));
    }
    // The ledger with its log, the configurations, and what both processes wrote.
    files(mesh.dir(), &mut places);
    places
}

fn files(dir: &Path, places: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(dir).expect("is a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, places);
        } else if let Ok(bytes) = fs::read(&path) {
            places.push((path.display().to_string(), bytes));
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

    let places = places(&mesh);
    let search_all = |word: &str| {
        let mut found = Vec::new();
        for (name, bytes) in &places {
            search(word, name, bytes, &mut found);
        }
        found
    };
    let found = search_all(CANARY);
    assert!(found.is_empty(), "{found:#?}");
    // What is told is found, so what is not found is not told.
    let told = search_all("gpt-4o").join("\n");
    for place in [
        "events as sent",
        "Envoy's logs",
        "/metrics",
        "/api/v1/requests",
        "/api/v1/spend",
        "state/ledger.db",
    ] {
        assert!(told.contains(place), "{place} is not among {told}");
    }
    mesh.has_not_trapped();
}
