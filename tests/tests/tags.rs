//! Where tags come from, where they go, and where they must not.

use serde_json::json;
use tollmesh_tests::dialect::Dialect;
use tollmesh_tests::provider::Received;
use tollmesh_tests::{Answer, Exchange, Mesh, Shared, usage};

static MESH: Shared = Shared::new();
static MESH_WITH_SOURCES: Shared = Shared::new();

fn call() -> Exchange {
    Dialect::OpenAiChat.plain(&usage("gpt-4o").input(10).output(2))
}

fn arrived(mesh: &Mesh, answer: &Answer) -> Received {
    mesh.provider().received(&answer.request_id).remove(0)
}

#[test]
fn tags_reach_the_ledger_and_not_the_provider() {
    let Some(mesh) = MESH.mesh(Mesh::built) else {
        return;
    };
    let answer = mesh.client("red").tag("feature", "answer").call(&call());
    let row = mesh.ledger().row_of(&answer);
    assert_eq!(
        (row.tag("team"), row.tag("feature")),
        (Some("red"), Some("answer"))
    );
    let headers = arrived(&mesh, &answer).headers;
    let leaked: Vec<_> = headers
        .iter()
        .filter(|(name, _)| name.contains("llm"))
        .collect();
    assert!(leaked.is_empty(), "the provider saw {leaked:?}");
}

#[test]
fn tags_do_not_reach_a_provider_whose_traffic_cannot_be_read() {
    let Some(mesh) = MESH.mesh(Mesh::built) else {
        return;
    };
    let unknown = Exchange::post("api.openai.com", "/v1/some/new/endpoint", "{}")
        .answered("application/json", "{}");
    let answer = mesh.client("red").call(&unknown);
    answer.is_what_was_sent(&unknown);
    let headers = arrived(&mesh, &answer).headers;
    assert!(
        headers.iter().all(|(name, _)| !name.contains("llm")),
        "{headers:?}"
    );
    tollmesh_tests::fact::eventually("an unmetered provider call", || {
        match mesh.counted("unmetered_provider_calls") {
            0 => Err("none counted".to_string()),
            n => Ok(n),
        }
    });
}

#[test]
fn keys_pass_and_are_kept_nowhere() {
    let Some(mesh) = MESH.mesh(Mesh::built) else {
        return;
    };
    let answer = mesh
        .client("red")
        .header("authorization", "Bearer sk-very-secret")
        .header("x-api-key", "sk-also-secret")
        .call(&call());
    let received = arrived(&mesh, &answer);
    assert_eq!(
        received.header("authorization").as_deref(),
        Some("Bearer sk-very-secret")
    );
    let row = mesh.ledger().row_of(&answer);
    assert!(!row.0.to_string().contains("secret"), "{}", row.0);
    let words = mesh.envoy().process().log();
    assert!(
        !words.contains("very-secret") && !words.contains("also-secret"),
        "Envoy logged a key"
    );
    let aggregator = mesh.aggregator();
    let words = aggregator.process().expect("it runs").log();
    assert!(!words.contains("secret"), "the aggregator logged a key");
}

#[test]
fn a_query_key_is_kept_nowhere() {
    let Some(mesh) = MESH.mesh(Mesh::built) else {
        return;
    };
    let mut exchange = Dialect::Gemini.plain(&usage("gemini-2.5-flash").input(4).output(2));
    exchange.ask.path.push_str("?key=AIza-very-secret");
    let answer = mesh.client("red").call(&exchange);
    assert_eq!(arrived(&mesh, &answer).path, exchange.ask.path);
    let row = mesh.ledger().row_of(&answer);
    assert!(!row.0.to_string().contains("AIza"), "{}", row.0);
}

#[test]
fn headers_and_baggage_and_defaults_name_tags() {
    let built = || {
        Mesh::built().plugin(json!({ "tags": {
            "headers": { "team": "x-cost-centre" },
            "baggage": { "feature": "app.feature" },
            "defaults": { "environment": "staging", "team": "nobody" }
        } }))
    };
    let Some(mesh) = MESH_WITH_SOURCES.mesh(built) else {
        return;
    };
    let answer = mesh
        .anonymous()
        .header("x-cost-centre", "red")
        .header("baggage", "app.feature=check%20out,tenant=7")
        .call(&call());
    let row = mesh.ledger().row_of(&answer);
    assert_eq!(row.tag("team"), Some("red"));
    assert_eq!(row.tag("feature"), Some("check out"));
    assert_eq!(row.tag("environment"), Some("staging"));
    let received = arrived(&mesh, &answer);
    assert_eq!(received.header("x-cost-centre"), None);
    let baggage = received.header("baggage").unwrap_or_default();
    assert!(!baggage.contains("app.feature"), "{baggage}");
    assert!(
        baggage.contains("tenant=7"),
        "what is not ours was taken: {baggage:?}"
    );
}

#[test]
fn a_tag_of_any_bytes_or_length_stops_nothing() {
    let Some(mesh) = MESH.mesh(Mesh::built) else {
        return;
    };
    let long = "x".repeat(16 * 1024);
    let values: [&[u8]; 4] = [b"\xff\xfe", b"caf\xc3\xa9", b"", long.as_bytes()];
    for value in values {
        let exchange = call();
        let answer = mesh
            .anonymous()
            .header("x-llm-tag-team", value)
            .call(&exchange);
        answer.is_what_was_sent(&exchange);
        let row = mesh.ledger().row_of(&answer);
        let kept = row.tag("team").unwrap_or_default();
        assert!(kept.len() <= 256, "a tag of {} bytes was kept", kept.len());
    }
    mesh.has_not_trapped();
}

#[test]
fn many_tags_are_capped_and_stop_nothing() {
    let Some(mesh) = MESH.mesh(Mesh::built) else {
        return;
    };
    let mut client = mesh.client("red");
    for n in 0..80 {
        client = client.tag(&format!("t{n}"), "v");
    }
    let exchange = call();
    let answer = client.call(&exchange);
    answer.is_what_was_sent(&exchange);
    let row = mesh.ledger().row_of(&answer);
    let n_kept = row.0["tags"].as_object().map_or(0, serde_json::Map::len);
    assert!((1..=64).contains(&n_kept), "{n_kept} tags were kept");
    mesh.has_not_trapped();
}
