//! Calls priced anew, through a running process and without one.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::process::{BINARY, Process, config, event};

/// A table of `acme`'s models at these dollars for a million input tokens.
fn table(rates: &[(&str, &str)]) -> String {
    let models = rates.iter().map(|(model, input)| {
        format!(
            "[[model]]\nid = {model:?}\nmatch = [{model:?}]\nrate = [{{ input = {input:?}, \
             src = \"list\", checked = 2026-11-09 }}]\n"
        )
    });
    let models: String = models.collect();
    format!(
        "schema = 1\nprovider = \"acme\"\ncurrency = \"USD\"\n\
         [source]\nlist = \"https://acme.example/prices\"\n{models}"
    )
}

/// A call of a million tokens, of which the provider states what it charged.
fn call(id: &str, model: &str, stated: Option<&str>) -> Value {
    let mut event = event(id, "red");
    event["provider"] = json!("acme");
    event["model"] = json!(model);
    event["model_requested"] = json!(model);
    event["usage"] = json!({ "input": 1_000_000 });
    event["provider_cost_usd"] = json!(stated);
    event
}

/// A configuration whose operator side can be found again, with or without a token.
fn configured(dir: &Path, token: Option<&str>) -> PathBuf {
    // Free now; whoever takes it meanwhile makes the start fail, not the test pass.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let operator = free.local_addr().unwrap().to_string();
    drop(free);
    let prices = dir.join("acme.toml");
    let more = format!("pricing = [{prices:?}]");
    let file = config(dir, "127.0.0.1:0", &operator, &more);
    if let Some(token) = token {
        let token_file = dir.join("token");
        std::fs::write(&token_file, token).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("{text}token_file = {token_file:?}\n")).unwrap();
    }
    file
}

/// Runs `tollmesh reprice`; exit code, and standard output with standard error after it.
fn reprice(config: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(BINARY)
        .args(["reprice", "--config"])
        .arg(config)
        .args(arguments)
        .output()
        .unwrap();
    let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    let dir = config.parent().unwrap().display().to_string();
    (output.status.code(), told.replace(&dir, "DIR"))
}

fn rows(process: &Process) -> Vec<(String, Value, Value)> {
    let answer = process.ask(
        "/api/v1/requests?limit=100",
        "host: localhost\r\nauthorization: Bearer s3cret\r\n",
    );
    let answer: Value = serde_json::from_str(&answer.body).unwrap();
    let items = answer["items"].as_array().unwrap();
    let mut rows: Vec<_> = items
        .iter()
        .map(|row| {
            let id = row["event_id"].as_str().unwrap().to_owned();
            (
                id,
                row["cost_usd"].clone(),
                row["original_cost_usd"].clone(),
            )
        })
        .collect();
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    rows
}

fn money(process: &Process) -> Vec<String> {
    let mut lines = process.metrics("tollmesh_cost_");
    lines.extend(process.metrics("tollmesh_provider_cost_"));
    let labels = |line: &str| !line.contains("direction") || !line.ends_with(" 0");
    let lines = lines.into_iter().filter(|line| labels(line));
    lines
        .map(|line| line.replace(r#",namespace="shop",service="web",team="red""#, ""))
        .collect()
}

#[test]
fn a_running_process_prices_anew_for_who_has_its_token() {
    let dir = tempfile::tempdir().unwrap();
    let prices = dir.path().join("acme.toml");
    std::fs::write(&prices, table(&[("rocket", "3")])).unwrap();
    let file = configured(dir.path(), Some("s3cret"));
    let process = Process::start_with(&file);
    process.send(&[
        call("a", "rocket", Some("2.5")),
        call("b", "glider", Some("1")),
        call("c", "glider", None),
    ]);
    insta::assert_debug_snapshot!("money_before", money(&process));

    // The configured table has another price and one more model; the process is to take them.
    std::fs::write(&prices, table(&[("rocket", "2"), ("glider", "0.5")])).unwrap();
    let (code, told) = reprice(&file, &["--from", "2026-11-22", "--dry-run"]);
    assert_eq!(code, Some(0), "{told}");
    insta::assert_snapshot!("dry_run", told);
    assert_eq!(
        rows(&process)[1],
        ("b".to_owned(), Value::Null, Value::Null)
    );

    let path = "/api/v1/reprice?from=2026-11-22&where=model:rocket&dry_run=true";
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !process
        .post(path, Some("s3cret"))
        .body
        .contains("\"cost_after_usd\":\"2\"")
    {
        assert!(
            std::time::Instant::now() < deadline,
            "never: new prices are in force"
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let (code, told) = reprice(&file, &["--from", "2026-11-22"]);
    assert_eq!(code, Some(0), "{told}");
    insta::assert_snapshot!("repriced", told);
    let row = |id: &str, now: &str, first: Value| (id.to_owned(), json!(now), first);
    let expected = [
        row("a", "2", json!("3")),
        row("b", "0.5", Value::Null),
        row("c", "0.5", Value::Null),
    ];
    assert_eq!(rows(&process), expected);
    // 3 stays counted for the rocket; the gliders had never been.
    insta::assert_debug_snapshot!("money_after", money(&process));

    let (code, told) = reprice(&file, &["--from", "2026-11-22", "--format", "csv"]);
    assert_eq!(code, Some(0));
    insta::assert_snapshot!("repriced_again", told);
    let counted = money(&process);
    insta::assert_debug_snapshot!("money_after", counted);

    for (path, token, status, detail) in [
        ("?from=2026-11-22", None, 401, "send the token of"),
        ("", Some("s3cret"), 400, "from: missing"),
        ("?from=1h&by=team", Some("s3cret"), 400, "unknown parameter"),
        (
            "?from=1h&dry_run=no",
            Some("s3cret"),
            400,
            "expected true or false",
        ),
    ] {
        let answer = process.post(&format!("/api/v1/reprice{path}"), token);
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert!(answer.body.contains(detail), "{path}: {}", answer.body);
    }
    let with_token = "host: localhost\r\nauthorization: Bearer s3cret\r\n";
    assert_eq!(
        process.ask("/api/v1/reprice?from=1h", with_token).status,
        405
    );
}

#[test]
fn without_a_token_the_process_has_to_be_stopped_first() {
    let dir = tempfile::tempdir().unwrap();
    let prices = dir.path().join("acme.toml");
    std::fs::write(&prices, table(&[("rocket", "3")])).unwrap();
    let file = configured(dir.path(), None);
    let process = Process::start_with(&file);
    process.send(&[call("a", "rocket", None), call("b", "glider", None)]);
    assert_eq!(process.post("/api/v1/reprice?from=1h", None).status, 403);

    std::fs::write(&prices, table(&[("rocket", "2"), ("glider", "0.5")])).unwrap();
    let (code, told) = reprice(&file, &["--from", "2026-11-22"]);
    assert_eq!(code, Some(2));
    let (process_id, _) = told
        .split_once("(process ")
        .unwrap()
        .1
        .split_once(')')
        .unwrap();
    insta::assert_snapshot!("reprice_refused", told.replace(process_id, "PID"));

    assert!(process.stop().success());
    let (code, told) = reprice(&file, &["--from", "2026-11-22", "--format", "json"]);
    assert_eq!(code, Some(0), "{told}");
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["items"][0]["difference_usd"], "-1");
    assert_eq!(told["items"][1]["newly_priced_requests"], 1);
    let process = Process::start_with(&file);
    let rows: Vec<Value> = rows(&process)
        .into_iter()
        .map(|(_, cost, _)| cost)
        .collect();
    assert_eq!(rows, [json!("2"), json!("0.5")]);
    insta::assert_debug_snapshot!("money_without_token", money(&process));
}

#[test]
fn a_missing_ledger_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let file = configured(dir.path(), None);
    let (code, told) = reprice(&file, &["--from", "1h"]);
    assert_eq!(code, Some(2));
    assert!(told.contains("no ledger here"), "{told}");
    assert!(!dir.path().join("state").exists());
}
