//! The access log as the second record: a lost ledger comes back from it, and a whole one stays.

use std::process::Output;

use serde_json::Value;
use tollmesh_tests::aggregator::Aggregator;
use tollmesh_tests::dialect::Dialect;
use tollmesh_tests::fact::eventually;
use tollmesh_tests::ledger::{Ledger, Row};
use tollmesh_tests::websocket::{Provider, Script, Side};
use tollmesh_tests::{Answer, Exchange, Mesh, artifacts, http, usage};

/// Metered calls of the test.
const N_CALLS: u64 = 40;

/// Calls of every dialect, plain and streamed, of several teams, models and outcomes.
fn traffic(mesh: &Mesh) -> Vec<Answer> {
    let mut answers: Vec<Answer> = (0..N_CALLS - 2)
        .map(|n| {
            let dialect = Dialect::ALL[n as usize % Dialect::ALL.len()];
            let model = match dialect {
                Dialect::OpenAiChat | Dialect::OpenAiResponses => "gpt-4o",
                Dialect::Anthropic => "claude-sonnet-4-5",
                Dialect::Gemini => "gemini-2.5-flash",
            };
            let used = usage(model).input(1_000 + n).output(1 + n % 50);
            let exchange = match n % 3 {
                0 => dialect.plain(&used),
                _ => dialect.streamed(&used),
            };
            let team = ["red", "blue", "of \"Zoë\", née \\ Søren"][n as usize % 3];
            let client = mesh.client(team).tag("feature", &format!("f{}", n % 5));
            client.call(&exchange)
        })
        .collect();
    let long = Dialect::Anthropic
        .streamed(&usage("claude-sonnet-4-5").input(9).output(60))
        .chunks_of(40);
    answers.push(mesh.client("red").hangs_up_after(200).call(&long));
    let refused = Exchange::post(
        "api.openai.com",
        "/v1/chat/completions",
        r#"{"model":"gpt-4o"}"#,
    )
    .status(429)
    .answered("application/json", r#"{"error":{"message":"slow down"}}"#);
    answers.push(mesh.anonymous().call(&refused));
    answers
}

/// Waits until Envoy has written its log out, which it does every ten seconds.
fn access_log(mesh: &Mesh) -> std::path::PathBuf {
    eventually("a line for each call", || {
        let log = mesh.envoy().process().log();
        match log.matches(r#"\"event_id\""#).count() as u64 {
            N_CALLS => Ok(()),
            n => Err(format!("{n} lines")),
        }
    });
    mesh.dir().join("envoy.log")
}

fn import(mesh: &Mesh, arguments: &[&str]) -> Output {
    let log = mesh.dir().join("envoy.log");
    let log = log.to_str().expect("a path in plain ASCII");
    let arguments = [&["import", "--access-log", log], arguments].concat();
    mesh.aggregator().command(&arguments).expect("it runs")
}

/// What it said; asserts that it ended so.
#[track_caller]
fn said(output: &Output, code: i32) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{error}");
    match code {
        0 => String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned(),
        _ => error.trim_end().to_owned(),
    }
}

/// All that an aggregator says about its ledger.
#[derive(Debug, PartialEq)]
struct Books {
    rows: Vec<Row>,
    sums: Value,
    counters: Vec<String>,
}

impl Books {
    fn of(mesh: &Mesh, aggregator: &Aggregator) -> Books {
        let ledger = Ledger::new(mesh.runtime().handle().clone(), aggregator.operator());
        Books {
            rows: rows(&ledger),
            sums: sums(mesh, aggregator),
            counters: counters(aggregator),
        }
    }
}

/// Rows in the order of their ids; their numbers tell only the order in which they came.
fn rows(ledger: &Ledger) -> Vec<Row> {
    let mut rows = ledger.rows().expect("the ledger answers");
    rows.sort_by_key(|row| row.text("event_id").map(str::to_owned));
    rows
}

fn sums(mesh: &Mesh, aggregator: &Aggregator) -> Value {
    let path = "/api/v1/spend?by=team,feature,model,provider,outcome&interval=1h";
    let reply = mesh
        .runtime()
        .block_on(http::get(aggregator.operator(), path));
    let reply = reply.expect("an answer");
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json().expect("JSON")
}

/// The counters that live in the ledger.
fn counters(aggregator: &Aggregator) -> Vec<String> {
    const FAMILIES: [&str; 8] = [
        "tollmesh_cost_usd_total",
        "tollmesh_tokens_total",
        "tollmesh_requests_total",
        "tollmesh_unpriced_requests_total",
        "tollmesh_request_cost_usd",
        "tollmesh_request_duration_seconds",
        "tollmesh_time_to_first_token_seconds",
        "tollmesh_untagged_requests_total",
    ];
    let text = aggregator.metrics().expect("a scrape").0;
    let is_ours = |line: &&str| FAMILIES.iter().any(|family| line.starts_with(family));
    let mut lines: Vec<String> = text.lines().filter(is_ours).map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn an_access_log_rebuilds_a_lost_ledger_and_adds_nothing_to_a_whole_one() {
    let Some(mesh) = Mesh::start() else { return };
    let answers = traffic(&mesh);
    mesh.ledger().rows_of(&answers.iter().collect::<Vec<_>>());
    access_log(&mesh);
    let live = Books::of(&mesh, &mesh.aggregator());
    assert_eq!(live.rows.len() as u64, N_CALLS);
    assert!(!live.counters.is_empty());

    let lost = mesh.dir().join("lost");
    let state = lost.join("state");
    let rebuilt = import(&mesh, &["--state-dir", state.to_str().expect("ASCII")]);
    let told = said(&rebuilt, 0);
    let want = format!("imported {N_CALLS}, already there 0, without usage ");
    assert!(told.starts_with(&want), "{told}");
    assert!(told.ends_with(", unreadable 0"), "{told}");
    assert!(rebuilt.stderr.is_empty(), "quiet where nobody watches");
    let binary = artifacts::tollmesh().expect("the mesh runs one");
    let handle = mesh.runtime().handle();
    let again = Aggregator::start(&binary, &lost, false, "", handle).expect("it starts");
    assert_eq!(Books::of(&mesh, &again), live);

    // Its own ledger is being written: a remedy, and then the remedy itself.
    let ingest = match mesh.aggregator().ingest() {
        tollmesh_tests::envoy_config::Ingest::Tcp(address) => address.to_string(),
        tollmesh_tests::envoy_config::Ingest::Unix(path) => format!("unix:{}", path.display()),
    };
    let refused = said(&import(&mesh, &[]), 2);
    let remedy = format!("send it the events with --to {ingest}, or stop it first");
    assert!(refused.ends_with(&remedy), "{refused}");
    let want = format!("imported 0, already there {N_CALLS}, without usage ");
    let told = said(&import(&mesh, &["--to", &ingest]), 0);
    assert!(told.starts_with(&want), "{told}");
    mesh.aggregator().stop().expect("exit code 0");
    let told = said(&import(&mesh, &[]), 0);
    assert!(told.starts_with(&want), "{told}");
    mesh.aggregator().restart().expect("it starts again");
    assert_eq!(Books::of(&mesh, &mesh.aggregator()), live);
}

#[test]
fn an_access_log_has_every_response_of_a_connection() {
    let provider = Provider::start().expect("a port on loopback is free");
    let built = Mesh::built().provider_at(provider.address());
    let Some(mesh) = built.start() else { return };
    let completed = |n: u64| {
        format!(
            r#"{{"type":"response.completed","response":{{"id":"r-{n}","status":"completed",
            "model":"gpt-5-2025-08-07","output":[],"usage":{{"input_tokens":{n},
            "output_tokens":9}}}}}}"#
        )
    };
    let ask = r#"{"type":"response.create","model":"gpt-5","input":[]}"#;
    let script = (1..=5).fold(Script::new(), |script, n| {
        script
            .text(Side::Client, ask)
            .text(Side::Server, &completed(n))
    });
    let head = "GET /v1/responses HTTP/1.1\r\nHost: api.openai.com\r\nx-llm-tag-team: red\r\n";
    let talk = provider.talk(mesh.envoy().listener(), "connection", head, &script);
    talk.expect("a conversation");
    eventually("a row for each response", || {
        match mesh.ledger().rows().map(|rows| rows.len()) {
            Ok(5) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    eventually("a line of the connection", || {
        let log = mesh.envoy().process().log();
        let n = log.matches(r#"\"event_id\""#).count();
        if n == 5 {
            Ok(())
        } else {
            Err(format!("{n} events"))
        }
    });
    let live = Books::of(&mesh, &mesh.aggregator());
    let lost = mesh.dir().join("lost");
    let state = lost.join("state");
    let rebuilt = import(&mesh, &["--state-dir", state.to_str().expect("ASCII")]);
    let told = said(&rebuilt, 0);
    assert!(
        told.starts_with("imported 5, already there 0, without usage "),
        "{told}"
    );
    let binary = artifacts::tollmesh().expect("the mesh runs one");
    let handle = mesh.runtime().handle();
    let again = Aggregator::start(&binary, &lost, false, "", handle).expect("it starts");
    assert_eq!(Books::of(&mesh, &again), live);
    mesh.has_not_trapped();
}
