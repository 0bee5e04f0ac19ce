//! A call that passes more than one filter costs once: the one nearest the provider counts it.

use serde_json::json;
use tollmesh_tests::dialect::Dialect;
use tollmesh_tests::fact::eventually;
use tollmesh_tests::ledger::Row;
use tollmesh_tests::{Mesh, Shared, Usage, usage};

static TWO_HOPS: Shared = Shared::new();

fn used() -> Usage {
    used_by(Dialect::OpenAiChat)
}

fn used_by(dialect: Dialect) -> Usage {
    let model = match dialect {
        Dialect::OpenAiChat | Dialect::OpenAiResponses => "gpt-4o",
        Dialect::Anthropic => "claude-sonnet-4-5",
        Dialect::Gemini => "gemini-2.5-flash",
    };
    usage(model).input(300).output(25)
}

/// The row that counts and the row that says who does, of two.
#[track_caller]
fn counted_and_relayed(rows: Vec<Row>) -> (Row, Row) {
    let is_relayed = |row: &Row| row.text("outcome") == Some("relayed");
    let (mut relayed, mut counted): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(is_relayed);
    assert_eq!(
        (counted.len(), relayed.len()),
        (1, 1),
        "{counted:?} {relayed:?}"
    );
    (counted.remove(0), relayed.remove(0))
}

#[test]
fn a_call_through_sidecar_and_gateway_costs_once() {
    let Some(mesh) = TWO_HOPS.mesh(|| Mesh::built().with_gateway()) else {
        return;
    };
    for dialect in Dialect::ALL {
        let used = used_by(dialect);
        for exchange in [dialect.plain(&used), dialect.streamed(&used)] {
            let exchange = exchange.chunks_of(37);
            let answer = mesh.client("red").call(&exchange);
            // What the sidecar asked for, the sidecar cuts; to the gateway it is the app's wish.
            answer.is_what_was_sent(&exchange);
            let (counted, relayed) = counted_and_relayed(mesh.ledger().hops_of(&answer, 2));
            assert_eq!(
                counted.differences(&used),
                Vec::<String>::new(),
                "{}",
                counted.0
            );
            assert!(counted.text("cost_usd").is_some(), "{}", counted.0);
            assert!(
                matches!(relayed.text("cost_usd"), None | Some("0")),
                "{}",
                relayed.0
            );
            assert_eq!(relayed.bucket("input"), None, "{}", relayed.0);
            // The sidecar knows who asked, and keeps it.
            assert_eq!(relayed.tag("team"), Some("red"), "{}", relayed.0);
        }
    }
    mesh.has_not_trapped();
}

#[test]
fn an_app_that_asks_for_usage_itself_gets_it_through_two_hops() {
    let Some(mesh) = TWO_HOPS.mesh(|| Mesh::built().with_gateway()) else {
        return;
    };
    let mut exchange = Dialect::OpenAiChat.streamed(&used()).chunks_of(53);
    let ask = json!({
        "model": "gpt-4o", "messages": [], "stream": true,
        "stream_options": { "include_usage": true }
    });
    exchange.ask.body = tollmesh_tests::Payload::Bytes(ask.to_string().into());
    exchange.reply.app_sees = exchange.reply.body_with_usage.clone();
    let answer = mesh.client("red").call(&exchange);
    answer.is_what_was_sent(&exchange);
    let (counted, _) = counted_and_relayed(mesh.ledger().hops_of(&answer, 2));
    assert_eq!(
        counted.differences(&used()),
        Vec::<String>::new(),
        "{}",
        counted.0
    );
}

#[test]
fn a_call_to_the_apps_own_gateway_is_relayed() {
    let rule = json!({
        "host": "llm.internal", "path": "/v1/*", "api": "openai", "provider": "own-gateway",
        "role": "gateway"
    });
    let built = Mesh::built().every_host().plugin(json!({ "apis": [rule] }));
    let Some(mesh) = built.start() else { return };
    for mut exchange in [
        Dialect::OpenAiChat.plain(&used()),
        Dialect::OpenAiChat.streamed(&used()),
    ] {
        exchange.ask.host = "llm.internal".to_string();
        // Own hosts are asked for usage only where the rule says so.
        exchange.reply.app_sees = None;
        let answer = mesh.client("red").call(&exchange);
        answer.is_what_was_sent(&exchange);
        let row = mesh.ledger().row_of(&answer);
        assert_eq!(row.text("outcome"), Some("relayed"), "{}", row.0);
        assert!(
            matches!(row.text("cost_usd"), None | Some("0")),
            "{}",
            row.0
        );
    }
    mesh.has_not_trapped();
}

#[test]
fn tags_that_the_sidecar_leaves_reach_the_row_that_costs_and_not_the_provider() {
    let leaves = json!({ "tags": { "strip": false } });
    let built = Mesh::built().with_gateway().plugin(leaves);
    let Some(mesh) = built.start() else { return };
    let exchange = Dialect::OpenAiChat.plain(&used());
    let answer = mesh.client("red").call(&exchange);
    let (counted, _) = counted_and_relayed(mesh.ledger().hops_of(&answer, 2));
    assert_eq!(counted.tag("team"), Some("red"), "{}", counted.0);
    let received = mesh.provider().received(&answer.request_id).remove(0);
    assert_eq!(received.header("x-llm-tag-team"), None);
}

#[test]
fn the_row_that_costs_has_the_tags_where_the_sidecar_knows_its_gateway() {
    let known = json!({ "apis": [{ "host": "*", "role": "gateway" }] });
    let built = Mesh::built().with_gateway().plugin(known);
    let Some(mesh) = built.start() else { return };
    for dialect in Dialect::ALL {
        let used = used_by(dialect);
        for exchange in [dialect.plain(&used), dialect.streamed(&used)] {
            let answer = mesh.client("red").call(&exchange);
            answer.is_what_was_sent(&exchange);
            let (counted, relayed) = counted_and_relayed(mesh.ledger().hops_of(&answer, 2));
            let differences = counted.differences(&used);
            assert_eq!(differences, Vec::<String>::new(), "{}", counted.0);
            assert_eq!(counted.tag("team"), Some("red"), "{}", counted.0);
            assert!(counted.text("cost_usd").is_some(), "{}", counted.0);
            assert_eq!(relayed.tag("team"), Some("red"), "{}", relayed.0);
            let received = mesh.provider().received(&answer.request_id).remove(0);
            assert_eq!(received.header("x-llm-tag-team"), None);
        }
    }
    mesh.has_not_trapped();
}

#[test]
fn a_proxy_that_proves_to_be_of_the_mesh_is_believed_to_have_counted() {
    let built = Mesh::built().gateway_called_by("spiffe://cluster.local/ns/a/sa/b", json!({}));
    let Some(mesh) = built.start() else { return };
    for exchange in [
        Dialect::OpenAiChat.plain(&used()),
        Dialect::OpenAiChat.streamed(&used()),
    ] {
        let answer = mesh.client("red").call(&exchange);
        answer.is_what_was_sent(&exchange);
        counted_and_relayed(mesh.ledger().hops_of(&answer, 2));
    }
    assert_eq!(mesh.counted("relay_claims_refused"), 0);
    mesh.has_not_trapped();
}

#[test]
fn a_provider_that_says_that_its_calls_were_counted_is_paid() {
    let hosts = [
        "api.openai.com",
        "api.anthropic.com",
        "generativelanguage.googleapis.com",
    ];
    for built in [
        // By its certificate it is no proxy of the mesh.
        Mesh::built().provider_certified_for(&hosts),
        Mesh::built().plugin(json!({ "relay": "never" })),
    ] {
        let Some(mesh) = built.start() else { return };
        for is_http2 in [false, true] {
            let client = mesh.client("red");
            let client = if is_http2 { client.http2() } else { client };
            let exchange = Dialect::OpenAiChat.plain(&used());
            let exchange = exchange.reply_header("x-tollmesh-event", "theirs-1");
            let answer = client.call(&exchange);
            let row = mesh.ledger().row_of(&answer);
            assert_eq!(row.text("outcome"), Some("success"), "{}", row.0);
            assert_eq!(row.differences(&used()), Vec::<String>::new(), "{}", row.0);
            let told = answer.header("x-tollmesh-event");
            assert_eq!(told, row.text("event_id"), "{}", row.0);
        }
        eventually("two claims", || {
            match mesh.counted("relay_claims_refused") {
                2 => Ok(()),
                n => Err(format!("{n} counted")),
            }
        });
        mesh.has_not_trapped();
    }
}
