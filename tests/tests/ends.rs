//! How calls end that do not go well: hang-ups, silence, errors, retries.

use tollmesh_tests::dialect::Dialect;
use tollmesh_tests::fact::eventually;
use tollmesh_tests::{Ended, Exchange, Mesh, Shared, Usage, usage};

static MESH: Shared = Shared::new();

fn used(model: &str) -> Usage {
    usage(model).input(900).output(40)
}

#[test]
fn a_hang_up_is_an_aborted_event() {
    let Some(mesh) = MESH.mesh(Mesh::built) else {
        return;
    };
    for dialect in Dialect::ALL {
        for is_http2 in [false, true] {
            let whole = dialect.streamed(&used("gpt-4o"));
            let half = whole.reply.body.n_bytes() as usize / 2;
            let client = mesh.client("red").hangs_up_after(1);
            let client = if is_http2 { client.http2() } else { client };
            let answer = client.call(&whole.silent_after(half));
            assert_eq!(answer.ended, Ended::HungUp);
            let row = mesh.ledger().row_of(&answer);
            assert_eq!(
                row.text("outcome"),
                Some("aborted"),
                "{dialect:?}: {}",
                row.0
            );
        }
    }
}

#[test]
fn a_hang_up_reaches_the_provider() {
    let Some(mesh) = MESH.mesh(Mesh::built) else {
        return;
    };
    let whole = Dialect::Anthropic.streamed(&used("claude-sonnet-4-5"));
    let answer = mesh
        .client("red")
        .hangs_up_after(1)
        .call(&whole.silent_after(400));
    eventually("the provider's stream ends", || {
        let received = mesh.provider().received(&answer.request_id);
        let reply = &received.first().ok_or("nothing received")?.reply;
        if reply.is_over() {
            Ok(())
        } else {
            Err(format!("{} bytes sent", reply.n_bytes()))
        }
    });
}

#[test]
fn what_was_seen_before_a_hang_up_is_kept() {
    let Some(mesh) = MESH.mesh(Mesh::built) else {
        return;
    };
    // Anthropic states the input at the start, so a stream that is cut has told that much.
    let whole = Dialect::Anthropic.streamed(&used("claude-sonnet-4-5"));
    let half = whole.reply.body.n_bytes() as usize / 2;
    let answer = mesh
        .client("red")
        .hangs_up_after(half as u64)
        .call(&whole.silent_after(half));
    let row = mesh.ledger().row_of(&answer);
    assert_eq!(row.bucket("input"), Some(900), "{}", row.0);
}

#[test]
fn a_providers_error_is_an_error_event_at_no_cost() {
    let Some(mesh) = MESH.mesh(Mesh::built) else {
        return;
    };
    for status in [400, 401, 429, 500, 529] {
        let exchange = Exchange::post("api.anthropic.com", "/v1/messages", "{\"model\":\"m\"}")
            .answered(
                "application/json",
                r#"{"type":"error","error":{"type":"api_error"}}"#,
            )
            .status(status);
        let answer = mesh.client("red").call(&exchange);
        answer.is_what_was_sent(&exchange);
        let row = mesh.ledger().row_of(&answer);
        assert_eq!(row.text("outcome"), Some("error"), "{status}: {}", row.0);
        assert_eq!(row.0["status"], status);
        assert!(
            matches!(row.text("cost_usd"), None | Some("0")),
            "{status}: {}",
            row.0
        );
    }
}

#[test]
fn an_error_inside_a_success_is_an_error_event() {
    let Some(mesh) = MESH.mesh(Mesh::built) else {
        return;
    };
    let events = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\
                  \"message\":\"Overloaded\"}}\n\n";
    let exchange = Exchange::post("api.anthropic.com", "/v1/messages", "{\"stream\":true}")
        .answered("text/event-stream", events);
    let answer = mesh.client("red").call(&exchange);
    answer.is_what_was_sent(&exchange);
    let row = mesh.ledger().row_of(&answer);
    assert_eq!(row.text("outcome"), Some("error"), "{}", row.0);
}

#[test]
fn an_app_that_cannot_reach_the_provider_is_told_so_and_recorded() {
    let Some(mesh) = MESH.mesh(Mesh::built) else {
        return;
    };
    let exchange = Dialect::OpenAiChat.plain(&used("gpt-4o")).reset_after(0);
    let answer = mesh.client("red").call(&exchange);
    assert!(answer.status.is_none_or(|status| status >= 500) || answer.ended != Ended::Whole);
    let row = mesh.ledger().row_of(&answer);
    assert_ne!(row.text("outcome"), Some("success"), "{}", row.0);
}
