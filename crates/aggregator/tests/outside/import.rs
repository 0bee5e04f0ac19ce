//! Recovery from access logs.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tollmesh_aggregator::ledger::{Ledger, LedgerOptions};
use tollmesh_wire::Timestamp;

use crate::process::{BINARY, Process, event};

/// A line as `envoy/envoy.yaml` has Envoy write it.
fn line(event: &Value) -> String {
    json!({ "method": "POST", "status": 200, "tollmesh": event.to_string() }).to_string()
}

/// Runs an import of that text; exit code, standard output and standard error.
fn import(dir: &Path, arguments: &[&str], log: &str) -> (Option<i32>, String, String) {
    let mut child = Command::new(BINARY)
        .args(["import", "--access-log", "-", "--state-dir"])
        .arg(dir.join("state"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A command that refuses to begin reads nothing.
    let _ = stdin.write_all(log.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn broken_lines_are_told_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let whole = line(&event("a", "red"));
    let as_object = json!({ "tollmesh": event("b", "blue") }).to_string();
    let log = [
        whole.as_str(),
        as_object.as_str(),
        r#"{"method":"GET","tollmesh":null}"#,
        &whole[..60],
        &line(&json!({ "event_id": "c", "time": "soon" })),
        &line(&json!({ "event_id": "d" })),
        &line(&event(&"x".repeat(300), "red")),
        &whole,
    ];
    let log = log.join("\n");
    let (code, told, error) = import(dir.path(), &[], &log);
    assert_eq!(
        told,
        "imported 2, already there 1, without usage 1, unreadable 4\n"
    );
    insta::assert_snapshot!(error);
    assert_eq!(code, Some(1));
    let again = import(dir.path(), &[], &log);
    assert_eq!(
        again.1,
        "imported 0, already there 3, without usage 1, unreadable 4\n"
    );

    let process = Process::start(dir.path(), "");
    let spend = process.json("/api/v1/spend?by=team");
    let teams = spend["items"].as_array().unwrap();
    assert_eq!(teams.len(), 2, "{spend}");
}

#[test]
fn a_running_aggregator_takes_them_too() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), "");
    process.send(&[event("a", "red")]);
    let log: Vec<String> = (0..1_200)
        .map(|n| line(&event(&format!("n{n}"), "red")))
        .collect();
    let log = format!("{}\n{}\n", line(&event("a", "red")), log.join("\n"));
    let address = process.ingest_address().to_owned();
    let to = ["--to", address.as_str()];
    let (code, told, error) = import(dir.path(), &to, &log);
    assert_eq!((code, error.as_str()), (Some(0), ""));
    assert_eq!(
        told,
        "imported 1200, already there 1, without usage 0, unreadable 0\n"
    );
    let spend = process.json("/api/v1/spend?by=team");
    assert_eq!(spend["items"][0]["requests"], 1_201);

    let (code, _, error) = import(dir.path(), &[], &log);
    assert_eq!(code, Some(2));
    let remedy = "send it the events with --to 127.0.0.1:4100, or stop it first\n";
    assert!(error.ends_with(remedy), "{error}");
    drop(process);
    let (code, _, error) = import(dir.path(), &to, &log);
    assert_eq!(code, Some(2));
    let begin = format!(
        "tollmesh: stopped after 0 imported; the same command goes on from there: \
         the aggregator at {}: ",
        to[1]
    );
    assert!(error.starts_with(&begin), "{error}");
}

#[test]
fn late_usage_finds_a_call_that_stands_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut call = event("call", "red");
    call["response_id"] = "r1".into();
    call["usage_source"] = "absent".into();
    call["usage"] = json!({});
    let mut late = event("late", "red");
    late["kind"] = "late_usage".into();
    late["response_id"] = "r1".into();
    late["billable"] = false.into();
    let log = format!("{}\n{}\n", line(&late), line(&call));
    let (code, told, _) = import(dir.path(), &[], &log);
    assert_eq!(code, Some(0));
    assert_eq!(
        told,
        "imported 2, already there 0, without usage 0, unreadable 0\n"
    );
    let process = Process::start(dir.path(), "");
    let rows = process.json("/api/v1/requests");
    assert_eq!(rows["items"][0]["buckets"]["input"], 1000, "{rows}");
}

#[test]
fn what_retention_has_deleted_is_not_counted_again() {
    let dir = tempfile::tempdir().unwrap();
    let days_old = |days: i64, id: &str| {
        let mut event = event(id, "red");
        let now = jiff::Timestamp::now().as_millisecond();
        let time = jiff::Timestamp::from_millisecond(now - days * 86_400_000).unwrap();
        event["time"] = time.to_string().into();
        event
    };
    let log = [days_old(0, "new"), days_old(30, "old")]
        .map(|event| line(&event))
        .join("\n");
    let (_, told, _) = import(dir.path(), &[], &log);
    assert!(told.starts_with("imported 2, already there 0"), "{told}");
    delete_before(dir.path(), 7);
    let (code, told, _) = import(dir.path(), &[], &log);
    assert_eq!(code, Some(0));
    assert_eq!(
        told,
        "imported 0, already there 1, without usage 0, unreadable 0, \
         older than the ledger's rows 1\n"
    );

    // Another command's ledger than the one that knows: it is the one that says so.
    let process = Process::start(dir.path(), "");
    let elsewhere = tempfile::tempdir().unwrap();
    let to = ["--to", process.ingest_address()];
    let (code, told, error) = import(elsewhere.path(), &to, &log);
    assert_eq!(code, Some(0), "{error}");
    assert_eq!(
        told,
        "imported 0, already there 1, without usage 0, unreadable 0, \
         older than the ledger's rows 1\n"
    );
    let counted = process.metrics("tollmesh_events_");
    let is_there = |line: &str| counted.iter().any(|counted| counted == line);
    assert!(is_there("tollmesh_events_forgotten_total 1"), "{counted:?}");
    assert!(is_there("tollmesh_events_rejected_total 0"), "{counted:?}");
}

/// As housekeeping does for calls that are so many days old.
fn delete_before(dir: &Path, days: i64) {
    let ledger = Ledger::open(LedgerOptions::new(dir.join("state"))).unwrap();
    let now = jiff::Timestamp::now().as_millisecond();
    let before = Timestamp::from_unix_ms(now - days * 86_400_000);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    assert_eq!(runtime.block_on(ledger.prune(before)).unwrap(), 1);
    runtime.block_on(ledger.close());
}
