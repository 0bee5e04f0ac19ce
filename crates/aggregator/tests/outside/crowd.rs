//! Many who want much of a running aggregator: each is kept within its bounds, and nobody else waits.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::process::{Process, config, event};

/// A client that may wait so long for an answer; generous, since machines are busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to filters' side that has announced a thousand bytes and sent one.
fn slow_poster(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = "POST /v1/events HTTP/1.1\r\nhost: aggregator\r\ncontent-length: 1000\r\n\r\n{";
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

/// What the server says until it closes.
fn rest(mut stream: TcpStream) -> String {
    let mut said = String::new();
    let _ = stream.read_to_string(&mut said);
    said
}

#[test]
fn slow_posters_hold_no_batch_up_and_are_cut() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), "");
    let slow: Vec<TcpStream> = (0..100)
        .map(|_| slow_poster(process.ingest_address()))
        .collect();
    let begun = Instant::now();
    for n in 0..20 {
        let taken = process.send(&[event(&format!("e-{n}"), "red")]);
        assert_eq!(taken["accepted"], 1);
    }
    // Sixteen of them used to hold every place for ten seconds, again and again.
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    let n = slow.len();
    for stream in slow {
        let said = rest(stream);
        assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
    }
    let late = format!("tollmesh_bodies_late_total {n}");
    assert_eq!(process.metrics("tollmesh_bodies_late_total"), [late]);
}

#[test]
fn a_batch_of_tiny_events_costs_no_more_than_its_size() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), "");
    let batch = |n: usize| {
        let events = vec!["1"; n].join(",");
        process.ingest(
            "POST",
            "/v1/events",
            &format!(r#"{{"v":1,"events":[{events}]}}"#),
        )
    };
    let answer = batch(8_192);
    assert_eq!(answer.status, 200);
    assert!(answer.body.len() < 20_000, "{} bytes", answer.body.len());
    let reply: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(reply["rejected"].as_array().unwrap().len(), 100);
    assert_eq!(reply["rejected_unnamed"], 8_092);
    let counted = process.metrics("tollmesh_events_rejected_total");
    assert_eq!(counted, ["tollmesh_events_rejected_total 8192"]);

    let refused = batch(500_000);
    assert_eq!(refused.status, 413);
    let problem: Value = serde_json::from_str(&refused.body).unwrap();
    assert_eq!(
        problem["detail"],
        "more than 8192 events; send them in smaller batches"
    );
    // A good event among many bad ones is taken, wherever it stands.
    let mut events = vec![json!(1); 300];
    events.push(event("good", "red"));
    assert_eq!(process.send(&events)["accepted"], 1);
}

#[test]
fn probes_are_answered_when_all_places_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), "");
    // Heads that never end: the server waits a while for each.
    let idle: Vec<TcpStream> = (0..512)
        .map(|_| {
            let mut stream = TcpStream::connect(process.operator_address()).unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\n").unwrap();
            stream
        })
        .collect();
    let begun = Instant::now();
    assert_eq!(process.get("/healthz").body, "ok\n");
    assert_eq!(process.get("/readyz").status, 200);
    let other = process.get("/api/v1");
    // The places are taken for fifteen seconds; on a machine that took longer so far, they are not.
    if begun.elapsed() < Duration::from_secs(5) {
        assert_eq!(other.status, 503, "{}", other.body);
        assert!(other.head.contains("retry-after: 5"), "{}", other.head);
    }
    assert!(
        begun.elapsed() < Duration::from_secs(12),
        "{:?}",
        begun.elapsed()
    );
    drop(idle);
}

#[test]
fn many_groups_are_answered_by_the_largest_and_a_sum_of_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), "");
    let events: Vec<Value> = (0..12)
        .map(|n| {
            let mut event = event(&format!("e-{n}"), &format!("team-{n:02}"));
            event["usage"] = json!({ "input": 1_000 * (12 - n) });
            event
        })
        .collect();
    process.send(&events);
    let spend = |more: &str| {
        let path = format!("/api/v1/spend?by=team&from=2026-11-22&to=2026-11-23{more}");
        process.json(&path)["items"].as_array().unwrap().clone()
    };
    let all = spend("");
    assert_eq!(all.len(), 12);
    let short = spend("&limit=3");
    let teams: Vec<&str> = short
        .iter()
        .map(|row| row["team"].as_str().unwrap())
        .collect();
    assert_eq!(teams, ["__other__", "team-00", "team-01", "team-02"]);
    let sum = |rows: &[Value], name: &str| -> u64 {
        rows.iter().map(|row| row[name].as_u64().unwrap()).sum()
    };
    for name in ["requests", "input_tokens"] {
        assert_eq!(sum(&short, name), sum(&all, name), "{name}");
    }
    let compared = spend("&limit=3&compare=2026-11-21/2026-11-22");
    let teams: Vec<&str> = compared
        .iter()
        .map(|row| row["team"].as_str().unwrap())
        .collect();
    assert_eq!(teams, ["team-00", "team-01", "team-02", "__other__"]);
    assert_eq!(sum(&compared, "requests_after"), 12);
    let bad = process.get("/api/v1/spend?by=team&limit=0");
    assert_eq!(bad.status, 400);
    assert!(
        bad.body.contains("expected a number from 1 to 100000"),
        "{}",
        bad.body
    );
}

#[test]
fn keys_of_budgets_are_had_page_by_page() {
    let dir = tempfile::tempdir().unwrap();
    let budgets = dir.path().join("budgets.toml");
    let text = "[[budget]]\nname = \"users\"\nper = [\"user\"]\nlimit = \"100 requests\"\n\
                window = \"month\"\n[[budget]]\nname = \"all\"\nlimit = \"100 requests\"\n\
                window = \"month\"\n";
    std::fs::write(&budgets, text).unwrap();
    let process = Process::start_with(&config(
        dir.path(),
        "127.0.0.1:0",
        "127.0.0.1:0",
        &format!("budgets = {budgets:?}"),
    ));
    let calls: Vec<Value> = (0..7)
        .map(|n| {
            let mut call = event(&format!("e-{n}"), "red");
            call["time"] = json!(jiff::Timestamp::now().to_string());
            call["tags"] = json!({ "user": format!("user-{}", n % 5) });
            call
        })
        .collect();
    process.send(&calls);
    let whole = process.json("/api/v1/budgets");
    assert_eq!(whole["next_cursor"], Value::Null);
    let whole = whole["items"].as_array().unwrap();
    let told = |row: &Value| {
        (
            row["budget"].clone(),
            row["key"].clone(),
            row["spent"].clone(),
        )
    };
    let mut seen = Vec::new();
    let mut path = "/api/v1/budgets?limit=2".to_owned();
    loop {
        let page = process.json(&path);
        let items = page["items"].as_array().unwrap();
        assert!((1..=2).contains(&items.len()));
        seen.extend(items.iter().map(told));
        let Some(cursor) = page["next_cursor"].as_str() else {
            break;
        };
        path = format!("/api/v1/budgets?limit=2&cursor={cursor}");
    }
    assert_eq!(seen.len(), 6);
    assert_eq!(seen, whole.iter().map(told).collect::<Vec<_>>());
    let bad = process.get("/api/v1/budgets?cursor=x");
    assert_eq!(bad.status, 400);
    assert!(bad.body.contains("begin again without it"), "{}", bad.body);
}
