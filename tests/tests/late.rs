//! Calls that tell their usage only to those who look again: charged once, however often one looks.

use serde_json::{Value, json};
use tollmesh_tests::fact::eventually;
use tollmesh_tests::ledger::Row;
use tollmesh_tests::{Answer, Exchange, Mesh};

/// A response of gpt-5-mini in that state.
fn response(status: &str, usage: &Value) -> Value {
    json!({
        "id": "resp_late", "object": "response", "status": status, "background": true,
        "model": "gpt-5-mini-2025-08-07", "output": [], "usage": usage
    })
}

/// A run of gpt-4o in that state.
fn run(status: &str, usage: &Value) -> Value {
    json!({
        "id": "run_late", "object": "thread.run", "thread_id": "thread_1", "status": status,
        "model": "gpt-4o", "last_error": null, "usage": usage
    })
}

fn start(path: &str, ask: &str, answer: &Value) -> Exchange {
    Exchange::post("api.openai.com", path, ask.to_string())
        .answered("application/json", answer.to_string())
}

fn look(path: &str, answer: &Value) -> Exchange {
    let mut look = start(path, "", answer);
    look.ask.method = "GET".to_string();
    look
}

/// Starts, looks while nothing is known, and then twice more; the call's row.
#[track_caller]
fn started_and_looked_at(begun: &Exchange, path: &str, going: &Value, done: &Value) -> Option<Row> {
    // One worker, so that events come in the order of the calls.
    let mesh = Mesh::built().workers(1).start()?;
    let client = mesh.client("red");
    let answer = client.call(begun);
    answer.is_what_was_sent(begun);
    let waiting = mesh.ledger().row_of(&answer);
    assert_eq!(
        waiting.text("usage_source"),
        Some("absent"),
        "{}",
        waiting.0
    );
    assert_eq!(waiting.text("outcome"), Some("success"), "{}", waiting.0);
    let looks = [going, done, done].map(|shown| look(path, shown));
    let seen: Vec<Answer> = looks.iter().map(|look| client.call(look)).collect();
    let row = eventually("the row is completed", || {
        let row = mesh.ledger().row_of(&answer);
        match row.text("usage_source") {
            Some("reported") => Ok(row),
            _ => Err(row.0.to_string()),
        }
    });
    // A later call's row comes after all that the looks could change.
    let after = client.call(&look("/v1/responses/resp_of_nobody", done));
    let last = client.call(&start(
        "/v1/responses",
        "{}",
        &response("queued", &Value::Null),
    ));
    mesh.ledger().row_of(&last);
    for look in seen.iter().chain([&after]) {
        mesh.ledger().hops_of(look, 0);
    }
    assert_eq!(mesh.ledger().row_of(&answer), row, "charged more than once");
    let metrics = mesh.aggregator().metrics().expect("a scrape");
    let tokens = metrics.sum("tollmesh_tokens_total", &["bucket=\"output\""]);
    assert_eq!(Some(tokens), row.bucket("output").map(|n| n as f64));
    assert_eq!(row.tag("team"), Some("red"));
    Some(row)
}

#[test]
fn a_background_response_is_charged_when_it_is_looked_at() {
    let usage = json!({
        "input_tokens": 1000, "input_tokens_details": { "cached_tokens": 0 },
        "output_tokens": 500, "output_tokens_details": { "reasoning_tokens": 0 }
    });
    let ask = r#"{"model":"gpt-5-mini","background":true,"input":"Think"}"#;
    let queued = response("queued", &Value::Null);
    let begun = start("/v1/responses", ask, &queued);
    let going = response("in_progress", &Value::Null);
    let done = response("completed", &usage);
    let row = started_and_looked_at(&begun, "/v1/responses/resp_late", &going, &done);
    let Some(row) = row else { return };
    // 0.25 and 2 dollars a million tokens, https://platform.openai.com/docs/pricing.
    assert_eq!(row.text("cost_usd"), Some("0.00125"), "{}", row.0);
    assert_eq!(row.text("finish_reason"), Some("completed"), "{}", row.0);
}

#[test]
fn an_assistants_run_is_charged_when_it_is_looked_at() {
    let usage = json!({ "prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500 });
    let ask = r#"{"assistant_id":"asst_1"}"#;
    let queued = run("queued", &Value::Null);
    let begun = start("/v1/threads/thread_1/runs", ask, &queued);
    let going = run("in_progress", &Value::Null);
    let done = run("completed", &usage);
    let path = "/v1/threads/thread_1/runs/run_late";
    let Some(row) = started_and_looked_at(&begun, path, &going, &done) else {
        return;
    };
    // 2.50 and 10 dollars a million tokens, https://platform.openai.com/docs/pricing.
    assert_eq!(row.text("cost_usd"), Some("0.0075"), "{}", row.0);
    assert_eq!(row.text("response_id"), Some("run_late"), "{}", row.0);
}

#[test]
fn a_batch_of_messages_is_charged_by_its_results() {
    let answer = json!({
        "id": "msgbatch_late", "type": "message_batch", "processing_status": "in_progress",
        "request_counts": { "processing": 1 }, "results_url": null
    });
    let begun = Exchange::post(
        "api.anthropic.com",
        "/v1/messages/batches",
        r#"{"requests":[]}"#,
    )
    .answered("application/json", answer.to_string());
    let usage = json!({
        "input_tokens": 1000, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
        "output_tokens": 500, "service_tier": "batch"
    });
    let line = json!({ "custom_id": "0", "result": { "type": "succeeded", "message": {
        "id": "msg_1", "type": "message", "model": "claude-haiku-4-5-20251001", "usage": usage
    } } });
    let path = "/v1/messages/batches/msgbatch_late/results";
    let mut look = Exchange::post("api.anthropic.com", path, "")
        .answered("application/x-jsonl", format!("{line}\n"));
    look.ask.method = "GET".to_string();

    let Some(mesh) = Mesh::built().workers(1).start() else {
        return;
    };
    let client = mesh.client("red");
    let answer = client.call(&begun);
    let waiting = mesh.ledger().row_of(&answer);
    assert_eq!(waiting.text("response_id"), Some("msgbatch_late"));
    let looks = [client.call(&look), client.call(&look)];
    let row = eventually("the row is completed", || {
        let row = mesh.ledger().row_of(&answer);
        match row.text("usage_source") {
            Some("reported") => Ok(row),
            _ => Err(row.0.to_string()),
        }
    });
    // 1 and 5 dollars a million tokens, half of it in a batch,
    // https://platform.claude.com/docs/en/about-claude/pricing.
    assert_eq!(row.text("cost_usd"), Some("0.00175"), "{}", row.0);
    // A later call's row comes after all that the second look could change.
    mesh.ledger().row_of(&client.call(&begun));
    for look in &looks {
        mesh.ledger().hops_of(look, 0);
    }
    assert_eq!(mesh.ledger().row_of(&answer), row, "charged more than once");
}
