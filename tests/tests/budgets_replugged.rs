//! The filter's configuration is replaced, or broken, while calls wait for their reservations.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tollmesh_tests::fact::eventually;
use tollmesh_tests::{Answer, Exchange, Judge, Mesh, Sentence};

/// How long the filter waits for the aggregator, milliseconds.
const ADMISSION_MS: u64 = 4_000;

const ANSWER: &str = r#"{"id":"r1","model":"gpt-4o","choices":[{"index":0,
    "message":{"content":"hi"},"finish_reason":"stop"}],
    "usage":{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17}}"#;

fn call() -> Exchange {
    Exchange::post(
        "api.openai.com",
        "/v1/chat/completions",
        r#"{"model":"gpt-4o","messages":[]}"#,
    )
    .answered("application/json", ANSWER)
}

fn mesh() -> Option<Mesh> {
    let budgets = json!([{ "budget": "b", "match": { "team": "red" }, "enforce": "strict",
        "on_unavailable": "closed", "limit": "1 USD", "window": "day" }]);
    let built = Mesh::built().judged_by(budgets).workers(1).replugged();
    let plugin = json!({ "admission": { "timeout_ms": ADMISSION_MS } });
    built.plugin(plugin).start()
}

/// Waits until the filter asks for calls of team red.
fn reserves(mesh: &Mesh) {
    eventually("the worker knows the budgets", || {
        let answer = mesh.client("red").call(&call());
        let is_asked = !mesh.judge().questions(&answer.request_id).is_empty();
        is_asked.then_some(()).ok_or("not asked".to_string())
    });
}

/// A call that waits while the filter is configured anew, and then hears that.
fn answered(mesh: &Mesh, change: fn(Value) -> Value, sentence: Sentence) -> Answer {
    mesh.judge().says(Sentence::Wait);
    let n_before = mesh.counted("reservations_asked");
    let client = mesh.client("red");
    let call = mesh
        .runtime()
        .spawn(async move { client.send(&call()).await.expect("Envoy is there") });
    eventually("the aggregator is asked", || {
        let n = mesh.counted("reservations_asked");
        (n > n_before).then_some(()).ok_or(n.to_string())
    });
    mesh.replug(change);
    mesh.judge().says(sentence);
    mesh.runtime().block_on(call).expect("no panic")
}

/// Of a key that nobody knows the filter makes nothing.
fn broken(mut plugin: Value) -> Value {
    plugin["nonsense"] = json!(1);
    plugin
}

fn other(mut plugin: Value) -> Value {
    plugin["tags"]["defaults"] = json!({ "region": "eu" });
    plugin
}

/// As before either of them.
fn repaired(mut plugin: Value) -> Value {
    plugin["tags"]["defaults"] = json!({});
    if let Some(plugin) = plugin.as_object_mut() {
        plugin.remove("nonsense");
    }
    plugin
}

#[test]
fn calls_that_wait_are_answered_whatever_becomes_of_the_configuration() {
    for change in [broken as fn(Value) -> Value, other] {
        let Some(mesh) = mesh() else { return };
        for (sentence, status) in [
            (Judge::allow(), 200),
            (Judge::deny(), 429),
            (Sentence::Broken, 429),
            (Sentence::Wait, 429),
        ] {
            reserves(&mesh);
            let began = Instant::now();
            let answer = answered(&mesh, change, sentence.clone());
            assert_eq!(
                answer.status,
                Some(status),
                "{sentence:?}: {:?}",
                answer.ended
            );
            assert!(
                began.elapsed() < Duration::from_millis(ADMISSION_MS + 10_000),
                "{sentence:?}"
            );
            let event = eventually("its event", || {
                let events = mesh.judge().events(&answer.request_id);
                events.first().cloned().ok_or("none".to_string())
            });
            let outcome = if status == 200 { "success" } else { "denied" };
            assert_eq!(event["outcome"], outcome, "{sentence:?}");
            mesh.judge().says(Judge::allow());
            mesh.replug(repaired);
        }
        mesh.has_not_trapped();
    }
}
