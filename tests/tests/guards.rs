//! Runaway guards through the real Envoy: too large a prompt, too dear a call, too many calls, a loop.

use serde_json::{Value, json};
use tollmesh_tests::{Answer, Client, Exchange, Mesh};

/// Each for a team of its own, so that no other comes in its way.
const GUARDS: &str = r#"
[[guard]]
name = "size"
match = { team = "size" }
max_input_tokens = 1000
enforce = "strict"

[[guard]]
name = "cost"
match = { team = "cost" }
max_request_cost = "0.01 USD"
enforce = "strict"

[[guard]]
name = "pace"
match = { team = "pace" }
per = ["session_id"]
max_requests_per_minute = 5
enforce = "strict"

[[guard]]
name = "loop"
match = { team = "loop" }
per = ["session_id"]
max_identical_requests = 3
enforce = "strict"
except = { priority = "critical" }

[[guard]]
name = "watched"
match = { team = "watched" }
max_input_tokens = 1
enforce = "observe"
"#;

const ANSWER: &str = r#"{"id":"r1","model":"gpt-4o","choices":[{"index":0,
    "message":{"content":"hi"},"finish_reason":"stop"}],
    "usage":{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17}}"#;

fn mesh() -> Option<Mesh> {
    let plugin = json!({ "fingerprint": { "key": "000102030405060708090a0b0c0d0e0f" } });
    let mesh = Mesh::built().budgets(GUARDS).plugin(plugin).start()?;
    mesh.every_worker_knows("the guards", || {
        let answer = mesh.client("size").call(&chat(8_000, 1));
        (answer.status == Some(429)).then_some(answer)
    });
    Some(mesh)
}

/// A call with so many bytes of text, that asks for so many tokens at most. In words: what has no
/// spaces may be a picture.
fn chat(n_text_bytes: usize, max_tokens: u64) -> Exchange {
    let text: String = "word ".chars().cycle().take(n_text_bytes).collect();
    let ask = json!({
        "model": "gpt-4o", "max_tokens": max_tokens,
        "messages": [{ "role": "user", "content": text }]
    });
    Exchange::post("api.openai.com", "/v1/chat/completions", ask.to_string())
        .answered("application/json", ANSWER)
}

/// Whether it was refused for that reason, in the provider's own shape of errors.
#[track_caller]
fn is_refused(answer: &Answer, reason: &str) {
    assert_eq!(answer.status, Some(429), "{:?}", answer.body);
    let body: Value = serde_json::from_slice(&answer.body).expect("is JSON");
    assert_eq!(body["tollmesh"]["reason"], reason, "{body}");
    assert!(body["error"]["message"].is_string(), "{body}");
    assert_eq!(answer.header("x-should-retry"), Some("false"));
}

#[track_caller]
fn passes(client: &Client, exchange: &Exchange) {
    let answer = client.call(exchange);
    assert_eq!(answer.status, Some(200), "{:?}", answer.body);
    answer.is_what_was_sent(exchange);
}

#[test]
fn what_runs_away_is_stopped_before_it_leaves() {
    let Some(mesh) = mesh() else { return };

    // Four bytes of text a token.
    let size = mesh.client("size");
    passes(&size, &chat(3_000, 1));
    let n_before = mesh.provider().n_requests();
    let stopped = size.call(&chat(5_000, 1));
    is_refused(&stopped, "guard_input");
    // What has left of the request was never whole.
    let received = mesh.provider().received(&stopped.request_id);
    assert!(received.iter().all(|received| !received.is_whole));
    assert!(mesh.provider().n_requests() <= n_before + 1);

    // A thousand tokens of gpt-4o's answer are a cent.
    let cost = mesh.client("cost");
    passes(&cost, &chat(100, 500));
    is_refused(&cost.call(&chat(100, 2_000)), "guard_cost");

    let pace = |session: &str| mesh.client("pace").tag("session_id", session);
    for n in 0..5 {
        passes(&pace("one"), &chat(100 + n, 1));
    }
    let stopped = pace("one").call(&chat(200, 1));
    is_refused(&stopped, "guard_rate");
    // A minute, told by its twelfths.
    let seconds = stopped.header("retry-after").and_then(|s| s.parse().ok());
    assert!(
        seconds.is_some_and(|s: u64| (1..=65).contains(&s)),
        "{seconds:?}"
    );
    passes(&pace("two"), &chat(200, 1));
    // Without a session nothing belongs together.
    for n in 0..7 {
        passes(&mesh.client("pace"), &chat(100 + n, 1));
    }

    let looping = |session: &str| mesh.client("loop").tag("session_id", session);
    for _ in 0..3 {
        passes(&looping("one"), &chat(100, 1));
    }
    is_refused(&looping("one").call(&chat(100, 1)), "guard_loop");
    passes(&looping("one"), &chat(101, 1));
    passes(&looping("two"), &chat(100, 1));
    passes(&looping("one").tag("priority", "critical"), &chat(100, 1));

    // What is only watched passes, and is counted.
    passes(&mesh.client("watched"), &chat(100, 1));
    let metrics = mesh.aggregator().metrics().expect("it answers");
    for (guard, reason, action) in [
        ("size", "guard_input", "deny"),
        ("cost", "guard_cost", "deny"),
        ("pace", "guard_rate", "deny"),
        ("loop", "guard_loop", "deny"),
        ("watched", "guard_input", "observe"),
    ] {
        let labels = [("guard", guard), ("reason", reason), ("action", action)];
        let labels = labels.map(|(name, value)| format!("{name}=\"{value}\""));
        let labels = labels.each_ref().map(String::as_str);
        let n = metrics.sum("tollmesh_guard_trips_total", &labels);
        assert!(n >= 1.0, "{labels:?}: {n}");
    }
    mesh.has_not_trapped();
}
