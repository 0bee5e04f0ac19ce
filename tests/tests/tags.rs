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

#[test]
fn a_cap_holds_for_baggage_over_http2_too() {
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
    // 10,000 members, of which one is ours; its value is longer than a tag's, and has a line end.
    let members: Vec<String> = (0..10_000).map(|n| format!("{n:x}=")).collect();
    let long = "y".repeat(1_000);
    for (member, kept) in [
        (format!("app.feature={long}"), Some("y".repeat(256))),
        ("app.feature=a%0D%0Ax-evil:%20b".to_string(), None),
    ] {
        let baggage = format!("{},{member}", members.join(","));
        let exchange = call();
        let client = mesh.anonymous().http2().header("baggage", &baggage);
        let answer = client.call(&exchange);
        answer.is_what_was_sent(&exchange);
        let row = mesh.ledger().row_of(&answer);
        assert_eq!(row.tag("feature").map(str::to_string), kept);
        let received = arrived(&mesh, &answer);
        let left = received.header("baggage").unwrap_or_default();
        assert_eq!(left, members.join(","), "what is not ours was changed");
        assert_eq!(received.header("x-evil"), None);
    }
    mesh.has_not_trapped();
}

/// What users of other tools send already.
const OTHERS: [(&str, &str); 6] = [
    ("Helicone-User-Id", "u1"),
    ("Helicone-Property-Feature", "search"),
    (
        "x-portkey-metadata",
        r#"{"_user":"u2","environment":"prod"}"#,
    ),
    ("x-litellm-tags", "team:red, nightly"),
    ("x-litellm-spend-logs-metadata", r#"{"cost-center":"cc9"}"#),
    ("x-litellm-customer-id", "acme"),
];

#[test]
fn other_tools_headers_are_tags_where_one_word_says_so() {
    let aliases = json!({ "tags": { "aliases": ["helicone", "portkey", "litellm"] } });
    for (plugin, is_on) in [(json!({}), false), (aliases, true)] {
        let Some(mesh) = Mesh::built().plugin(plugin).start() else {
            return;
        };
        let client = OTHERS
            .iter()
            .fold(mesh.anonymous(), |client, (name, value)| {
                client.header(name, value)
            });
        let answer = client.call(&call());
        let row = mesh.ledger().row_of(&answer);
        let wanted = json!({
            "user": "u1", "feature": "search", "environment": "prod", "team": "red",
            "tags": "nightly", "cost_center": "cc9", "customer": "acme"
        });
        let wanted = if is_on { wanted } else { json!({}) };
        assert_eq!(row.0["tags"], wanted);
        let received = arrived(&mesh, &answer);
        for (name, value) in OTHERS {
            let left = received.header(&name.to_ascii_lowercase());
            assert_eq!(left.as_deref(), (!is_on).then_some(value), "{name}");
        }
    }
}

#[test]
fn a_call_without_required_tags_is_told_so() {
    let plugin = json!({ "tags": { "required": ["team", "tier"], "on_missing": "header" } });
    let Some(mesh) = Mesh::built().plugin(plugin).start() else {
        return;
    };
    let answer = mesh.client("red").call(&call());
    assert_eq!(answer.header("x-tollmesh-missing-tags"), Some("tier"));
    mesh.ledger().row_of(&answer);
    let whole = mesh.client("red").tag("tier", "gold").call(&call());
    assert_eq!(whole.header("x-tollmesh-missing-tags"), None);
    mesh.ledger().row_of(&whole);
    let metrics = mesh.aggregator().metrics().expect("metrics");
    let untagged = |tag: &str| metrics.sum("tollmesh_untagged_requests_total", &[tag]);
    assert_eq!(untagged("tag=\"tier\""), 1.0, "{}", metrics.0);
    assert_eq!(untagged("tag=\"team\""), 0.0);
    tollmesh_tests::fact::eventually("one untagged call", || {
        match mesh.counted("untagged_requests") {
            1 => Ok(()),
            n => Err(format!("{n} counted")),
        }
    });
}

#[test]
fn a_call_without_required_tags_is_refused_in_its_providers_words() {
    let plugin = json!({ "tags": { "required": ["team"], "on_missing": "deny" } });
    let Some(mesh) = Mesh::built().plugin(plugin).start() else {
        return;
    };
    let usage = usage("some-model").input(10).output(2);
    for (dialect, pointer) in [
        (Dialect::OpenAiChat, "/error/code"),
        (Dialect::OpenAiResponses, "/error/type"),
        (Dialect::Anthropic, "/error/type"),
        (Dialect::Gemini, "/error/status"),
    ] {
        let exchange = dialect.plain(&usage);
        let answer = mesh.anonymous().call(&exchange);
        assert_eq!(answer.status, Some(400), "{dialect:?}");
        let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("is JSON");
        assert!(body.pointer(pointer).is_some(), "{body}");
        let message = body.pointer("/error/message").and_then(|m| m.as_str());
        let message = message.unwrap_or_default();
        assert!(message.contains("\"team\"") && message.contains("\"x-llm-tag-team\""));
        assert!(mesh.provider().received(&answer.request_id).is_empty());
        let row = mesh.ledger().row_of(&answer);
        assert_eq!(row.text("outcome"), Some("denied"));
        let tagged = mesh.client("red").call(&exchange);
        assert_eq!(tagged.status, Some(200));
    }
}

fn header_option(name: &str, value: &str) -> serde_json::Value {
    json!([{ "header": { "key": name, "value": value } }])
}

#[test]
fn the_mesh_can_tag_before_the_filter_and_not_after_it() {
    let mutation = json!({
        "name": "envoy.filters.http.header_mutation",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
            "mutations": { "request_mutations": [
                { "append": { "header": { "key": "x-llm-tag-team", "value": "mesh" },
                              "append_action": "OVERWRITE_IF_EXISTS_OR_ADD" } }
            ] }
        }
    });
    let late = json!({ "request_headers_to_add": header_option("x-llm-tag-tier", "late") });
    let Some(mesh) = Mesh::built().filter_before(mutation).hosts(late).start() else {
        return;
    };
    let answer = mesh.client("forged").call(&call());
    let row = mesh.ledger().row_of(&answer);
    assert_eq!(row.tag("team"), Some("mesh"));
    let received = arrived(&mesh, &answer);
    assert_eq!(received.header("x-llm-tag-team"), None);
    // What a route adds comes after all filters: no tag, and the provider has it.
    assert_eq!(row.tag("tier"), None);
    assert_eq!(received.header("x-llm-tag-tier").as_deref(), Some("late"));

    let admin = mesh.envoy().admin();
    let dump = tollmesh_tests::http::get(admin, "/config_dump");
    let dump = mesh.runtime().block_on(dump).expect("a dump");
    let file = mesh.dir().join("dump.json");
    std::fs::write(&file, &dump.body).expect("is written");
    let file = file.display().to_string();
    let told = mesh
        .aggregator()
        .command(&["check", "--config-dump", &file]);
    let told = String::from_utf8(told.expect("it runs").stdout).expect("is text");
    let late: Vec<&str> = told.lines().filter(|line| line.contains(&file)).collect();
    assert!(!late.is_empty(), "{told}");
    assert!(
        late.iter().all(|line| line.contains("x-llm-tag-tier")),
        "{told}"
    );
}

#[test]
fn who_calls_is_who_its_certificate_says_and_no_header() {
    let sidecar = json!({ "apis": [{ "host": "*", "role": "gateway" }] });
    let gateway = json!({ "tags": {
        "by_workload": [
            { "principal": "spiffe://*/ns/shop/sa/*", "tags": { "team": "checkout" } },
            { "namespace": "shop", "tags": { "tier": "gold" } }
        ],
        "precedence": { "team": ["by_workload"] }
    } });
    let caller = "spiffe://cluster.local/ns/shop/sa/cart";
    let built = Mesh::built().plugin(sidecar);
    let Some(mesh) = built.gateway_called_by(caller, gateway).start() else {
        return;
    };
    let forged = "By=spiffe://x;URI=spiffe://cluster.local/ns/bank/sa/vault";
    let client = mesh
        .client("forged")
        .tag("feature", "search")
        .tag("namespace", "bank")
        .header("x-forwarded-client-cert", forged)
        .header("x-envoy-peer-metadata-id", "sidecar~1~vault.bank~bank.svc");
    let answer = client.call(&call());
    let rows = mesh.ledger().hops_of(&answer, 2);
    let counted = rows
        .iter()
        .find(|row| row.text("outcome") == Some("success"))
        .expect("the gateway counts");
    let source = &counted.0["source"];
    assert_eq!(source["principal"], caller);
    assert_eq!(source["namespace"], "shop");
    assert_eq!(source["service_account"], "cart");
    assert_eq!(counted.tag("team"), Some("checkout"));
    assert_eq!(counted.tag("tier"), Some("gold"));
    assert_eq!(counted.tag("feature"), Some("search"));
    let received = arrived(&mesh, &answer);
    assert_eq!(received.header("x-llm-tag-team"), None);
    // The team and the namespace that were claimed.
    let gateway = mesh.gateway();
    tollmesh_tests::fact::eventually("two conflicts", || {
        match gateway.stat("wasmcustom.tollmesh_filter_tag_conflicts_total") {
            2 => Ok(()),
            n => Err(format!("{n} counted")),
        }
    });
    mesh.has_not_trapped();
}
