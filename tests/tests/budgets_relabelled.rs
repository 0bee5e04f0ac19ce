//! Calls that call themselves something else, once a limit is reached.

use serde_json::json;
use tollmesh_tests::{Client, Exchange, Mesh};

const ANSWER: &str = r#"{"id":"r1","model":"gpt-4o","choices":[{"index":0,
    "message":{"content":"hi"},"finish_reason":"stop"}],
    "usage":{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17}}"#;
const BODY: &str = r#"{"model":"gpt-4o","messages":[]}"#;
const CHAT: &str = "/v1/chat/completions";

/// A call of that path, with such headers.
fn call(path: &str, headers: &[(&str, &str)]) -> Exchange {
    let call = Exchange::post("api.openai.com", path, BODY).answered("application/json", ANSWER);
    let set = |call: Exchange, (name, value): &(&str, &str)| call.ask_header(name, value);
    headers.iter().fold(call, set)
}

fn calls() -> Vec<(&'static str, Exchange)> {
    let mut calls = vec![
        (
            "as gRPC",
            call(CHAT, &[("content-type", "application/grpc")]),
        ),
        ("as text", call(CHAT, &[("content-type", "text/plain")])),
        (
            "with another method",
            call(CHAT, &[("x-http-method-override", "GET")]),
        ),
    ];
    calls.extend(
        [
            "/v1/chat/completion%73",
            "/v1/chat/completions;x=1",
            "/v1%2Fchat%2Fcompletions",
            "/v1/./chat//completions/",
            "/v1/files/../chat/completions",
            "/V1/Chat/Completions",
            "/v1/telepathy",
            "/ai.Chat/Complete",
            "/v1/batches",
            "/v1/threads/t/runs",
        ]
        .map(|path| (path, call(path, &[]))),
    );
    for host in ["api.openai.com:80", "API.OpenAI.com"] {
        let mut call = call(CHAT, &[]);
        call.ask.host = host.to_string();
        calls.push((host, call));
    }
    calls
}

#[test]
fn a_limit_that_is_reached_holds_however_a_call_is_written() {
    let spent = json!([{ "budget": "spent", "match": { "team": "spent", "provider": "openai" },
        "enforce": "cached", "limit": "1 USD", "window": "day",
        "tiers": [{ "at": "100%", "do": "deny" }],
        "reached": [{ "tier": 0, "reset_at": "2099-01-01T00:00:00Z" }] }]);
    let Some(mesh) = Mesh::built().judged_by(spent).start() else {
        return;
    };
    mesh.every_worker_knows("the budget", || {
        let answer = mesh.client("spent").call(&call(CHAT, &[]));
        (answer.status == Some(429)).then_some(answer)
    });
    let framings: [fn(Client) -> Client; 2] = [|client| client, Client::http2];
    for (what, exchange) in calls() {
        for framing in framings {
            let answer = framing(mesh.client("spent")).call(&exchange);
            assert_eq!(answer.status, Some(429), "{what}: {:?}", answer.ended);
            let budget = answer.header("x-tollmesh-budget").unwrap_or_default();
            assert!(
                budget.starts_with("spent; reason=budget_exceeded"),
                "{what}: {budget}"
            );
            assert!(
                mesh.provider().received(&answer.request_id).is_empty(),
                "{what}"
            );
            // Who has not spent passes, and the provider gets what the app wrote.
            let answer = framing(mesh.client("other")).call(&exchange);
            answer.is_what_was_sent(&exchange);
            let received = mesh.provider().received(&answer.request_id);
            let path = received.first().map(|received| received.path.as_str());
            assert_eq!(path, Some(exchange.ask.path.as_str()), "{what}");
        }
    }
    mesh.has_not_trapped();
}
