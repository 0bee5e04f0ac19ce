//! What ends up in the ledger: model, counts, cost and facts of calls that went well.

use serde_json::json;
use tollmesh_tests::dialect::Dialect;
use tollmesh_tests::fixture::Fixture;
use tollmesh_tests::recorded::is_retrieval;
use tollmesh_tests::{Answer, Exchange, Mesh, Shared, Usage, usage};

static MESH: Shared = Shared::new();
static MESH_FOR_EVERY_HOST: Shared = Shared::new();

fn used(model: &str) -> Usage {
    usage(model).input(1_234).cache_read(2_048).output(96)
}

fn model(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::OpenAiChat => "gpt-4o",
        Dialect::OpenAiResponses => "gpt-5-mini",
        Dialect::Anthropic => "claude-sonnet-4-5",
        Dialect::Gemini => "gemini-2.5-flash",
    }
}

/// Every dialect, answered whole and as a stream.
fn exchanges() -> Vec<Exchange> {
    let both = |dialect: Dialect| {
        let used = used(model(dialect));
        [dialect.plain(&used), dialect.streamed(&used)]
    };
    Dialect::ALL.into_iter().flat_map(both).collect()
}

#[track_caller]
fn are_metered(mesh: &Mesh, exchanges: &[Exchange], http2: bool) {
    let client = mesh.client("red");
    let client = if http2 { client.http2() } else { client };
    let answers: Vec<Answer> = exchanges
        .iter()
        .map(|exchange| client.call(exchange))
        .collect();
    let expected: Vec<(&Answer, Usage)> = answers
        .iter()
        .zip(exchanges)
        .map(|(answer, exchange)| (answer, exchange.usage.clone().unwrap_or_default()))
        .collect();
    mesh.ledger().settles_to(&expected);
}

#[test]
fn every_api_is_metered() {
    let Some(mesh) = MESH.mesh(Mesh::built) else {
        return;
    };
    are_metered(&mesh, &exchanges(), false);
}

#[test]
fn every_api_is_metered_over_http2() {
    let Some(mesh) = MESH.mesh(Mesh::built) else {
        return;
    };
    are_metered(&mesh, &exchanges(), true);
}

#[test]
fn chunk_borders_do_not_matter() {
    let Some(mesh) = MESH.mesh(Mesh::built) else {
        return;
    };
    for n_bytes in [1, 7] {
        let cut: Vec<Exchange> = exchanges()
            .into_iter()
            .map(|e| e.chunks_of(n_bytes))
            .collect();
        are_metered(&mesh, &cut, false);
    }
}

#[test]
fn every_fixture_is_metered_as_it_says() {
    let built = || Mesh::built().every_host();
    let Some(mesh) = MESH_FOR_EVERY_HOST.mesh(built) else {
        return;
    };
    let mut fixtures = Fixture::all().expect("the fixtures are readable");
    // A retrieval has no row of its own: it completes that of the call which it repeats.
    fixtures.retain(|fixture| !is_retrieval(&fixture.api));
    let client = mesh.client("red");
    let mut wrong = Vec::new();
    for n_bytes in [usize::MAX, 7, 1] {
        let exchanges: Vec<Exchange> = fixtures
            .iter()
            .map(|fixture| fixture.exchange.clone().chunks_of(n_bytes))
            .collect();
        let answers: Vec<Answer> = exchanges
            .iter()
            .map(|exchange| client.call(exchange))
            .collect();
        for (answer, exchange) in answers.iter().zip(&exchanges) {
            answer.is_what_was_sent(exchange);
        }
        let rows = mesh.ledger().rows_of(&answers.iter().collect::<Vec<_>>());
        for (fixture, row) in fixtures.iter().zip(rows) {
            let differences = fixture.differences(&row);
            if !differences.is_empty() {
                wrong.push(format!(
                    "{}, {n_bytes}: {}",
                    fixture.name,
                    differences.join(", ")
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn one_call_has_one_row_with_its_facts() {
    let Some(mesh) = MESH.mesh(Mesh::built) else {
        return;
    };
    let exchange = Dialect::Anthropic.streamed(&used("claude-sonnet-4-5"));
    let answer = mesh
        .client("red")
        .tag("feature", "answer")
        .header(
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )
        .call(&exchange);
    let row = mesh.ledger().row_of(&answer);
    assert_eq!(row.text("provider"), Some("anthropic"));
    assert_eq!(row.text("api"), Some("anthropic.messages"));
    assert_eq!(row.text("host"), Some("api.anthropic.com"));
    assert_eq!(row.text("model_requested"), Some("claude-sonnet-4-5"));
    assert_eq!(row.text("response_id"), Some("msg_made_up"));
    assert_eq!(row.text("finish_reason"), Some("end_turn"));
    assert_eq!(row.text("outcome"), Some("success"));
    assert_eq!(row.text("usage_source"), Some("reported"));
    assert_eq!(
        row.text("trace_id"),
        Some("0af7651916cd43dd8448eb211c80319c")
    );
    assert_eq!(row.0["stream"], true);
    assert_eq!(row.0["status"], 200);
    assert_eq!(
        (row.tag("team"), row.tag("feature")),
        (Some("red"), Some("answer"))
    );
    assert_eq!(row.text("cost_status"), Some("exact"));
}

#[test]
fn cost_is_exact() {
    let Some(mesh) = MESH.mesh(Mesh::built) else {
        return;
    };
    // Claude Sonnet 4.5: 3, 0.30 and 15 dollars a million tokens of input, cache read and output,
    // https://docs.claude.com/en/docs/about-claude/pricing.
    let exchange = Dialect::Anthropic.plain(&used("claude-sonnet-4-5"));
    let answer = mesh.client("red").call(&exchange);
    let row = mesh.ledger().row_of(&answer);
    assert_eq!(row.text("cost_usd"), Some("0.0057564"), "{}", row.0);
}

#[test]
fn an_unknown_host_is_metered_under_a_name_that_says_so() {
    let built = || Mesh::built().every_host();
    let Some(mesh) = MESH_FOR_EVERY_HOST.mesh(built) else {
        return;
    };
    for (dialect, provider) in [
        (Dialect::OpenAiChat, "openai-compatible"),
        (Dialect::Anthropic, "anthropic-compatible"),
        (Dialect::Gemini, "gemini-compatible"),
    ] {
        let used = used("our-own-model");
        for mut exchange in [dialect.plain(&used), dialect.streamed(&used)] {
            exchange.ask.host = "llm.internal".to_string();
            // Nothing is asked of a host that nobody has told about, so nothing is cut either.
            exchange.reply.body = exchange
                .reply
                .body_with_usage
                .take()
                .unwrap_or(exchange.reply.body);
            exchange.reply.app_sees = None;
            let answer = mesh.client("red").call(&exchange);
            answer.is_what_was_sent(&exchange);
            let row = mesh.ledger().row_of(&answer);
            assert_eq!(row.differences(&used), Vec::<String>::new(), "{}", row.0);
            assert_eq!(row.text("provider"), Some(provider), "{}", row.0);
            assert_eq!(row.text("cost_status"), Some("unpriced"), "{}", row.0);
        }
        let provider = format!("provider=\"{provider}\"");
        let metrics = mesh.aggregator().metrics().expect("a scrape");
        assert!(metrics.sum("tollmesh_requests_total", &[&provider]) >= 2.0);
    }
}

#[test]
fn a_host_of_ones_own_is_what_the_operator_says() {
    let rules = json!([
        { "host": "llm.internal", "path": "/team-a/*", "api": "openai", "provider": "vllm",
          "include_usage": true },
        { "host": "llm.internal", "path": "/team-b/*", "role": "ignore" }
    ]);
    let built = Mesh::built().every_host().plugin(json!({ "apis": rules }));
    let Some(mesh) = built.start() else { return };
    let used = used("our-own-model");
    let mut exchange = Dialect::OpenAiChat.streamed(&used);
    exchange.ask.host = "llm.internal".to_string();
    exchange.ask.path = "/team-a/v1/chat/completions".to_string();
    let answer = mesh.client("red").call(&exchange);
    // The host takes the question for usage, so the app gets its answer without that event.
    answer.is_what_was_sent(&exchange);
    let row = mesh.ledger().row_of(&answer);
    assert_eq!(row.differences(&used), Vec::<String>::new(), "{}", row.0);
    assert_eq!(row.text("provider"), Some("vllm"), "{}", row.0);
    exchange.ask.path = "/team-b/v1/chat/completions".to_string();
    let ignored = mesh.client("red").call(&exchange);
    assert!(!ignored.headers.contains_key("x-tollmesh-event"));
}

#[test]
fn what_is_no_provider_is_not_metered() {
    let built = || Mesh::built().every_host();
    let Some(mesh) = MESH_FOR_EVERY_HOST.mesh(built) else {
        return;
    };
    // A path that calls have, and nothing that a call says.
    let elsewhere = Exchange::post("shop.internal", "/v1/chat/completions", "{}")
        .answered("application/json", r#"{"delivered":true}"#);
    let client = mesh.client("red");
    let other = client.call(&elsewhere);
    other.is_what_was_sent(&elsewhere);
    let metered = client.call(&Dialect::OpenAiChat.plain(&used("gpt-4o")));
    mesh.ledger().row_of(&metered);
    let rows = mesh.ledger().by_request_id().expect("the ledger answers");
    assert!(
        !rows.contains_key(&other.request_id),
        "a row for a call to no provider"
    );
}

#[test]
fn metrics_tell_the_same_as_the_ledger() {
    let Some(mesh) = Mesh::start() else { return };
    let exchange = Dialect::Gemini.streamed(&used("gemini-2.5-flash"));
    let client = mesh.client("blue");
    let answers: Vec<Answer> = (0..5).map(|_| client.call(&exchange)).collect();
    mesh.ledger().rows_of(&answers.iter().collect::<Vec<_>>());
    let metrics = mesh.aggregator().metrics().expect("a scrape");
    let tokens = |bucket| {
        let bucket = format!("bucket=\"{bucket}\"");
        metrics.sum("tollmesh_tokens_total", &["team=\"blue\"", &bucket])
    };
    assert_eq!(tokens("input"), 5.0 * 1_234.0);
    assert_eq!(tokens("cache_read"), 5.0 * 2_048.0);
    assert_eq!(tokens("output"), 5.0 * 96.0);
    assert_eq!(
        metrics.sum("tollmesh_requests_total", &["outcome=\"success\""]),
        5.0
    );
}
