//! What a worker has learnt outlives a change of the filter's configuration.

use serde_json::json;
use tollmesh_tests::fact::eventually;
use tollmesh_tests::{Exchange, Mesh};

/// Bytes of the text of each answer, and its tokens where it tells them: far more than of an unknown
/// model's are expected.
const N_TEXT_BYTES: usize = 1_000;

/// An answer that tells its usage, or does not.
fn call(tells: bool) -> Exchange {
    let text = "word ".repeat(N_TEXT_BYTES / 5);
    let mut answer = json!({ "id": "r1", "model": "gpt-4o", "choices": [{ "index": 0,
        "message": { "content": text }, "finish_reason": "stop" }] });
    if tells {
        answer["usage"] = json!({ "prompt_tokens": 12, "completion_tokens": N_TEXT_BYTES,
            "total_tokens": N_TEXT_BYTES + 12 });
    }
    let body = r#"{"model":"gpt-4o","messages":[]}"#;
    Exchange::post("api.openai.com", "/v1/chat/completions", body)
        .answered("application/json", answer.to_string())
}

/// The region that a call's event names, and the tokens of output.
fn told(mesh: &Mesh, exchange: &Exchange) -> (Option<String>, u64) {
    let answer = mesh.client("red").call(exchange);
    answer.is_what_was_sent(exchange);
    let row = mesh.ledger().row_of(&answer);
    let n_tokens = row.bucket("output").expect("it is estimated");
    (row.tag("region").map(str::to_string), n_tokens)
}

#[test]
fn what_answers_have_taught_holds_under_another_configuration() {
    let built = Mesh::built().workers(1).replugged().drains_for(1);
    let Some(mesh) = built.start() else { return };
    let (_, n_unknown) = told(&mesh, &call(false));
    assert!(n_unknown < N_TEXT_BYTES as u64 / 2, "{n_unknown}");
    for _ in 0..20 {
        mesh.client("red").call(&call(true));
    }
    let (_, n_known) = told(&mesh, &call(false));
    assert!(n_known > N_TEXT_BYTES as u64 / 2, "{n_known}");
    mesh.replug(|mut plugin| {
        plugin["tags"]["defaults"] = json!({ "region": "eu" });
        plugin
    });
    let n_later = eventually("the worker goes by the new configuration", || {
        match told(&mesh, &call(false)) {
            (Some(_), n_tokens) => Ok(n_tokens),
            before => Err(format!("{before:?}")),
        }
    });
    assert_eq!(n_later, n_known);
    mesh.has_not_trapped();
}
