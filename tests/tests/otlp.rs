//! Export by OTLP: every call once, whatever the receiver does, with what the ledger says of it.

use serde_json::{Value, json};
use tollmesh_tests::dialect::Dialect;
use tollmesh_tests::fact::eventually;
use tollmesh_tests::otlp_receiver::{Mood, Receiver, Seen, ToldSpan};
use tollmesh_tests::tls::Identity;
use tollmesh_tests::{Answer, Mesh, usage};

/// A trace that a call is part of, and the span that made it.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn section(endpoint: &str, more: &str) -> String {
    format!("[otlp]\nendpoint = \"{endpoint}\"\ninterval = \"200ms\"\n{more}\n")
}

fn mesh_telling(receiver: &Receiver, more: &str) -> Option<Mesh> {
    let endpoint = format!("http://{}", receiver.address());
    Mesh::built().aggregator(&section(&endpoint, more)).start()
}

fn call(mesh: &Mesh, n: u64) -> Answer {
    let used = usage("claude-sonnet-4-5")
        .input(1_000 + n)
        .cache_read(2_048)
        .output(96);
    mesh.client("red").call(&Dialect::Anthropic.plain(&used))
}

/// Waits until each call has its span, exactly one.
#[track_caller]
fn are_told(receiver: &Receiver, answers: &[Answer]) -> Seen {
    eventually("a span of each call", || {
        let seen = receiver.seen();
        let mut n_told = 0;
        for answer in answers {
            n_told += usize::from(seen.span_of(&answer.request_id)?.is_some());
        }
        match n_told == answers.len() {
            true => Ok(seen),
            false => Err(format!("{n_told} of {}", answers.len())),
        }
    })
}

fn span_of(seen: &Seen, answer: &Answer) -> ToldSpan {
    let span = seen.span_of(&answer.request_id).expect("one span");
    span.expect("a span").clone()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_call_is_a_span_with_what_the_ledger_says_of_it() {
    let receiver = Receiver::start(None);
    let more = "signals = [\"traces\", \"logs\", \"metrics\"]\nheaders = { x-dataset = \"llm\" }";
    let Some(mesh) = mesh_telling(&receiver, more) else {
        return;
    };
    let used = usage("claude-sonnet-4-5")
        .input(1_234)
        .cache_read(2_048)
        .output(96);
    let exchange = Dialect::Anthropic.streamed(&used);
    let answer = mesh
        .client("red")
        .tag("feature", "answer")
        .tag("session", "s-1")
        .header("traceparent", format!("00-{TRACE}-{PARENT}-01"))
        .call(&exchange);
    answer.is_what_was_sent(&exchange);
    let row = mesh.ledger().row_of(&answer);
    let seen = are_told(&receiver, std::slice::from_ref(&answer));
    let ToldSpan {
        resource,
        attributes,
        span,
    } = span_of(&seen, &answer);

    assert_eq!(hex(&span.trace_id), TRACE);
    assert_eq!(hex(&span.parent_span_id), PARENT);
    assert_eq!(
        (span.span_id.len(), span.name.as_str()),
        (8, "chat claude-sonnet-4-5")
    );
    let lasted_ms = (span.end_time_unix_nano - span.start_time_unix_nano) / 1_000_000;
    assert_eq!(json!(lasted_ms), row.0["duration_ms"]);
    assert!(span.status.is_none(), "{:?}", span.status);
    assert!(resource.contains_key("service.name"), "{resource:?}");
    for (key, value) in [
        ("gen_ai.operation.name", json!("chat")),
        ("gen_ai.provider.name", json!("anthropic")),
        ("gen_ai.request.model", json!("claude-sonnet-4-5")),
        ("gen_ai.response.id", row.0["response_id"].clone()),
        ("gen_ai.response.finish_reasons", json!(["end_turn"])),
        ("gen_ai.request.stream", json!(true)),
        ("gen_ai.usage.input_tokens", json!(1_234 + 2_048)),
        ("gen_ai.usage.output_tokens", json!(96)),
        ("gen_ai.usage.cache_read.input_tokens", json!(2_048)),
        ("server.address", json!("api.anthropic.com")),
        ("server.port", json!(443)),
        ("http.response.status_code", json!(200)),
        ("session.id", json!("s-1")),
        ("tollmesh.tag.team", json!("red")),
        ("tollmesh.tag.feature", json!("answer")),
        ("tollmesh.tokens.input", json!(1_234)),
        ("tollmesh.usage_source", json!("reported")),
        ("tollmesh.cost.exact_usd", row.0["cost_usd"].clone()),
        ("tollmesh.event_id", row.0["event_id"].clone()),
    ] {
        assert_eq!(attributes.get(key), Some(&value), "{key}");
    }
    // 1,234 at 3 dollars a million, 2,048 at 0.30, 96 at 15.
    assert_eq!(attributes["tollmesh.cost.usd"], json!(0.0057564));
    assert_eq!(attributes["gen_ai.usage.cost"], json!(0.0057564));
    let told = format!("{attributes:?} {resource:?}");
    assert!(!told.contains("error.type"), "{told}");

    let seen = eventually("the log record and the metrics", || {
        let seen = receiver.seen();
        match (seen.logs.len(), seen.sum("tollmesh.requests")) {
            (1, 1.0) => Ok(seen),
            other => Err(format!("{other:?}")),
        }
    });
    assert_eq!(seen.logs[0].attributes, attributes);
    assert_eq!(hex(&seen.logs[0].record.trace_id), TRACE);
    assert_eq!(seen.logs[0].record.span_id, span.span_id);
    assert_eq!(seen.sum("tollmesh.cost"), 0.0057564);
    assert_eq!(seen.sum("tollmesh.tokens"), 3_378.0);
    assert_eq!(seen.sum("gen_ai.client.token.usage"), 3_378.0);
    assert!(seen.sum("gen_ai.client.operation.duration") >= 0.0);
    assert_eq!(seen.headers["x-dataset"], "llm");
}

#[test]
fn a_call_that_fails_says_so() {
    let receiver = Receiver::start(None);
    let Some(mesh) = mesh_telling(&receiver, "") else {
        return;
    };
    let whole = Dialect::OpenAiChat.streamed(&usage("gpt-4o").input(10).output(60));
    let half = whole.reply.body.n_bytes() as usize / 2;
    let client = mesh.client("red").hangs_up_after(1);
    let aborted = client.call(&whole.silent_after(half));
    let seen = are_told(&receiver, std::slice::from_ref(&aborted));
    let ToldSpan {
        attributes, span, ..
    } = span_of(&seen, &aborted);
    assert_eq!(attributes["error.type"], "aborted");
    assert_eq!(attributes["tollmesh.usage_source"], "estimated");
    assert_eq!(span.status.map(|status| status.code), Some(2));
    // It was part of no trace, so it is one.
    assert!(span.parent_span_id.is_empty() && span.trace_id.iter().any(|byte| *byte > 0));
}

#[test]
fn nothing_is_lost_while_a_receiver_refuses_and_the_ledger_does_not_wait() {
    let receiver = Receiver::start(None);
    receiver.becomes(Mood::Refuses(503));
    let Some(mesh) = mesh_telling(&receiver, "") else {
        return;
    };
    let mut answers: Vec<Answer> = (0..20).map(|n| call(&mesh, n)).collect();
    eventually("refusals", || match receiver.seen().n_refused {
        0 | 1 => Err("few".into()),
        n => Ok(n),
    });
    // The ledger has them all the same, and the aggregator is ready and says what waits.
    mesh.ledger().rows_of(&answers.iter().collect::<Vec<_>>());
    let aggregator = mesh.aggregator();
    let (status, detail) = eventually("a word on it", || {
        let (status, detail) = aggregator.readiness()?;
        let detail: Value = serde_json::from_str(&detail).map_err(|error| error.to_string())?;
        match detail["exporting"]["pending_rows"] == 20 {
            true => Ok((status, detail)),
            false => Err(detail.to_string()),
        }
    });
    assert_eq!(status, 200);
    let why = detail["exporting"]["failing"]["error"]
        .as_str()
        .unwrap_or_default();
    assert!(why.ends_with("/v1/traces answers 503: not now"), "{why}");
    let metrics = aggregator.metrics().expect("a scrape");
    assert!(metrics.sum("tollmesh_otlp_failures_total", &[]) >= 2.0);
    assert_eq!(metrics.sum("tollmesh_otlp_pending_rows", &[]), 20.0);
    drop(aggregator);

    // Neither does it forget them over a restart.
    mesh.aggregator().restart().expect("it starts again");
    answers.push(call(&mesh, 21));
    receiver.becomes(Mood::Takes);
    let seen = are_told(&receiver, &answers);
    assert_eq!(seen.spans.len(), 21);
    eventually("metrics of all of them", || {
        match receiver.seen().sum("tollmesh.requests") {
            21.0 => Ok(()),
            n => Err(format!("{n} requests")),
        }
    });
    eventually("nothing that waits", || {
        let metrics = mesh
            .aggregator()
            .metrics()
            .map_err(|error| error.to_string())?;
        match metrics.sum("tollmesh_otlp_pending_rows", &[]) {
            0.0 => Ok(()),
            n => Err(format!("{n} wait")),
        }
    });
}

#[test]
fn a_receiver_that_is_away_is_told_at_its_return_and_of_nothing_twice() {
    let receiver = Receiver::start(None);
    let Some(mesh) = mesh_telling(&receiver, "") else {
        return;
    };
    let mut answers = vec![call(&mesh, 0)];
    are_told(&receiver, &answers);
    mesh.aggregator().stop().expect("it stops");
    mesh.aggregator().restart().expect("it starts");
    answers.extend((1..5).map(|n| call(&mesh, n)));
    let seen = are_told(&receiver, &answers);
    assert_eq!(seen.spans.len(), 5);
}

#[test]
fn a_span_that_is_refused_for_itself_holds_up_no_other() {
    let receiver = Receiver::start(None);
    receiver.becomes(Mood::RefusesSpan("chat gpt-4o".into()));
    let Some(mesh) = mesh_telling(&receiver, "") else {
        return;
    };
    let mut answers: Vec<Answer> = (0..6).map(|n| call(&mesh, n)).collect();
    let bad = mesh
        .client("red")
        .call(&Dialect::OpenAiChat.plain(&usage("gpt-4o").input(5).output(5)));
    answers.extend((6..9).map(|n| call(&mesh, n)));
    let seen = are_told(&receiver, &answers);
    assert!(seen.span_of(&bad.request_id).expect("none").is_none());
    eventually("a word on it", || {
        let metrics = mesh
            .aggregator()
            .metrics()
            .map_err(|error| error.to_string())?;
        match metrics.sum("tollmesh_otlp_skipped_rows_total", &["reason=\"refused\""]) {
            1.0 => Ok(()),
            n => Err(format!("{n} skipped")),
        }
    });
}

#[test]
fn what_a_receiver_rejects_of_a_request_is_counted() {
    let receiver = Receiver::start(None);
    receiver.becomes(Mood::RejectsOne);
    let Some(mesh) = mesh_telling(&receiver, "signals = [\"traces\"]") else {
        return;
    };
    call(&mesh, 0);
    eventually("a word on it", || {
        let metrics = mesh
            .aggregator()
            .metrics()
            .map_err(|error| error.to_string())?;
        match metrics.sum("tollmesh_otlp_skipped_rows_total", &["reason=\"rejected\""]) {
            1.0 => Ok(()),
            n => Err(format!("{n} skipped")),
        }
    });
}

#[test]
fn receivers_are_told_over_tls_and_only_where_they_prove_who_they_are() {
    let identity = Identity::of(&["localhost"]).expect("a certificate");
    let receiver = Receiver::start(Some(identity.acceptor.clone()));
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("ca.pem"), &identity.ca_pem).expect("a file");
    let other = Identity::of(&["localhost"]).expect("a certificate");
    std::fs::write(path("other.pem"), &other.ca_pem).expect("a file");
    std::fs::write(path("headers"), "Authorization: Bearer s3cret\n").expect("a file");

    let endpoint = format!("https://localhost:{}", receiver.address().port());
    let more = |ca: &str| {
        format!(
            "ca_file = {:?}\nheaders_file = {:?}",
            path(ca),
            path("headers")
        )
    };
    let built = |ca: &str| {
        Mesh::built()
            .aggregator(&section(&endpoint, &more(ca)))
            .start()
    };
    let Some(mesh) = built("ca.pem") else { return };
    let seen = are_told(&receiver, &[call(&mesh, 0)]);
    assert_eq!(seen.headers["authorization"], "Bearer s3cret");
    drop(mesh);

    let Some(mesh) = built("other.pem") else {
        return;
    };
    call(&mesh, 1);
    let why = eventually("a refusal", || {
        let (_, detail) = mesh.aggregator().readiness()?;
        let detail: Value = serde_json::from_str(&detail).map_err(|error| error.to_string())?;
        let why = detail["exporting"]["failing"]["error"].as_str();
        why.map(str::to_string).ok_or_else(|| detail.to_string())
    });
    assert!(why.contains("invalid peer certificate"), "{why}");
    assert_eq!(receiver.seen().spans.len(), 1);
}
