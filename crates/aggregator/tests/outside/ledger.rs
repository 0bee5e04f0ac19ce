//! Outcomes, traces, sessions and periods over the API; backup and check of a live ledger.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::process::{BINARY, Process, config, event};

const TOKEN: &str = "s3cret";

/// A process whose operator side needs the token.
fn guarded(dir: &Path) -> Process {
    let token_file = dir.join("token");
    std::fs::write(&token_file, TOKEN).unwrap();
    let file = config(dir, "127.0.0.1:0", "127.0.0.1:0", "");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}token_file = {token_file:?}\n")).unwrap();
    Process::start_with(&file)
}

fn json_of(process: &Process, path: &str) -> Value {
    let answer = process.with_token("GET", path, TOKEN, "");
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

fn tell(process: &Process, outcomes: &Value) -> (u16, Value) {
    let body = outcomes.to_string();
    let answer = process.with_token("POST", "/api/v1/outcomes", TOKEN, &body);
    (answer.status, serde_json::from_str(&answer.body).unwrap())
}

/// A call of that trace and session.
fn call(id: &str, trace: &str, session: &str) -> Value {
    let mut event = event(id, "red");
    event["trace_id"] = json!(trace);
    event["tags"]["session_id"] = json!(session);
    event["tags"]["feature"] = json!("chat");
    event
}

#[test]
fn outcomes_are_told_by_who_has_the_token_before_and_after_their_calls() {
    let dir = tempfile::tempdir().unwrap();
    let process = guarded(dir.path());
    let accepted = json!({ "request_id": "request-a", "outcome": "accepted" });
    let answer = process.post("/api/v1/outcomes", None);
    assert_eq!(answer.status, 401, "{}", answer.body);
    assert_eq!(
        tell(&process, &accepted),
        (200, json!({ "new": 1, "unchanged": 0, "replaced": 0 }))
    );
    process.send(&[
        call("a", "t", "s"),
        call("b", "t", "s"),
        call("c", "u", "s"),
    ]);
    let both = json!([accepted, { "trace_id": "u", "outcome": "rejected" }]);
    assert_eq!(
        tell(&process, &both),
        (200, json!({ "new": 1, "unchanged": 1, "replaced": 0 }))
    );
    let (status, problem) = tell(
        &process,
        &json!({ "trace_id": "u", "outcome": "Not a word" }),
    );
    assert_eq!(status, 400, "{problem}");

    let items = &json_of(&process, "/api/v1/outcomes?by=feature")["items"];
    // gpt-4o-2024-08-06: 1,000 x $2.50 + 24 x $1.25 + 100 x $10, per million.
    let row = |label: Value, outcomes: u64, each: Value, all_in: Value| {
        json!({
            "feature": "chat", "outcome_label": label, "outcomes": outcomes, "requests": 1,
            "cost_usd": "0.00353", "cost_per_outcome_usd": each,
            "spend_usd": "0.01059", "spend_per_outcome_usd": all_in,
        })
    };
    let (each, all_in) = (json!("0.00353"), json!("0.01059"));
    assert_eq!(
        items[0],
        row(json!("accepted"), 1, each.clone(), all_in.clone())
    );
    assert_eq!(items[1], row(json!("rejected"), 1, each, all_in));
    assert_eq!(items[2], row(Value::Null, 0, Value::Null, Value::Null));
    let spend = json_of(&process, "/api/v1/spend?by=outcome_label&where=team:red");
    assert_eq!(spend["items"].as_array().unwrap().len(), 3, "{spend}");
    let calls = json_of(&process, "/api/v1/requests?where=outcome_label:accepted");
    assert_eq!(calls["items"][0]["event_id"], "a");
    assert_eq!(calls["items"][0]["outcome_label"], "accepted");
}

#[test]
fn writing_outcomes_needs_a_token_on_this_machine_too() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), "");
    assert_eq!(process.post("/api/v1/outcomes", None).status, 403);
    assert_eq!(process.get("/api/v1/outcomes").status, 200);
}

#[test]
fn traces_sessions_and_periods_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), "");
    let mut late = call("d", "u", "s2");
    late["time"] = json!("2026-11-23T04:00:00Z");
    process.send(&[
        call("a", "t", "s"),
        call("b", "t", "s"),
        call("c", "u", "s"),
        late,
    ]);

    let traces = process.json("/api/v1/traces?sort=requests&limit=1");
    assert_eq!(traces["items"][0]["trace_id"], "u");
    assert_eq!(traces["items"][0]["requests"], 2);
    assert_eq!(traces["items"][0]["last"], "2026-11-23T04:00:00.000Z");
    let cursor = traces["next_cursor"].as_str().unwrap();
    let next = process.json(&format!(
        "/api/v1/traces?sort=requests&limit=1&cursor={cursor}"
    ));
    assert_eq!(next["items"][0]["trace_id"], "t");
    assert_eq!(next["items"][0]["cost_usd"], "0.00706");
    assert_eq!(next["next_cursor"], Value::Null);
    let sessions = process.json("/api/v1/sessions");
    assert_eq!(sessions["items"][0]["session"], "s");
    assert_eq!(sessions["items"][0]["requests"], 3);
    let by_feature = process.json("/api/v1/sessions?tag=feature");
    assert_eq!(by_feature["items"][0]["session"], "chat");

    let periods = "from=2026-11-23&to=2026-11-24&compare=previous";
    let compared = process.json(&format!("/api/v1/spend?by=team&{periods}"));
    let expected = [
        ("cost_before_usd", json!("0.01059")),
        ("cost_after_usd", json!("0.00353")),
        ("difference_usd", json!("-0.00706")),
        ("requests_before", json!(3)),
        ("requests_difference", json!(-2)),
        ("input_tokens_after", json!(1_024)),
    ];
    for (name, value) in expected {
        assert_eq!(compared["items"][0][name], value, "{name}");
    }
    let columns = |path: &str| {
        let csv = process
            .ask(path, "host: localhost\r\naccept: text/csv\r\n")
            .body;
        let lines: Vec<Vec<String>> = csv
            .lines()
            .map(|line| line.split(',').map(str::to_owned).collect())
            .collect();
        let at = |name: &str| lines[0].iter().position(|column| column == name);
        ["input_tokens_after", "input_tokens"].map(|name| Some(lines[1][at(name)?].clone()))
    };
    let compared_csv = columns(&format!("/api/v1/spend?by=team&{periods}"));
    assert_eq!(compared_csv, [Some("1024".to_owned()), None]);
    let sessions_csv = columns("/api/v1/sessions");
    assert_eq!(sessions_csv, [None, Some("3072".to_owned())]);
    let named = "from=2026-11-23&to=2026-11-24&compare=2026-11-22/2026-11-23";
    assert_eq!(
        process.json(&format!("/api/v1/spend?by=team&{named}")),
        compared
    );
    for (path, message) in [
        ("/api/v1/spend?compare=previous", "previous needs from"),
        (
            "/api/v1/spend?from=1d&compare=week",
            "expected previous or FROM/TO",
        ),
        (
            "/api/v1/spend?from=1d&compare=previous&interval=1h",
            "interval: cannot be had",
        ),
        (
            "/api/v1/traces?sort=price",
            "expected one of cost, requests",
        ),
        ("/api/v1/traces?cursor=time.1.x", "is not one of this query"),
        ("/api/v1/sessions?tag=,", "tag: expected the names"),
        (
            "/api/v1/outcomes?by=outcome_label",
            "is in the answer already",
        ),
    ] {
        let answer = process.get(path);
        assert_eq!(answer.status, 400, "{path}");
        assert!(answer.body.contains(message), "{path}: {}", answer.body);
    }
}

/// Runs the binary; exit code, and all that it said, with the folder's name for its path.
fn run(dir: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let state = dir.join("state");
    let output = Command::new(BINARY)
        .arg("--state-dir")
        .arg(&state)
        .args(arguments)
        .output()
        .unwrap();
    let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (
        output.status.code(),
        told.replace(&*dir.to_string_lossy(), "DIR"),
    )
}

#[test]
fn a_live_ledger_is_copied_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), "");
    process.send(&[call("a", "t", "s"), call("b", "t", "s")]);
    let copy = dir.path().join("copy.db");
    let copy = copy.to_str().unwrap();
    let (code, told) = run(dir.path(), &["backup", copy]);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.starts_with("DIR/copy.db: 2 calls, "), "{told}");
    let nowhere = run(
        dir.path(),
        &["backup", &copy.replace("copy.db", "no/copy.db")],
    );
    let remedy = "tollmesh: DIR/no: no such folder; make it, or mount what belongs there\n";
    assert_eq!(nowhere, (Some(2), remedy.to_owned()));
    let again = run(dir.path(), &["backup", copy]);
    let refused = "Error: DIR/copy.db: exists; name a new file";
    assert_eq!(again.0, Some(2));
    assert!(
        again.1.contains("DIR/copy.db: exists; name a new file"),
        "{} {refused}",
        again.1
    );
    let (code, told) = run(dir.path(), &["check", "--ledger"]);
    assert_eq!(code, Some(0), "{told}");
    process.kill();

    // Restored after a loss, it is a ledger of the same calls.
    std::fs::remove_dir_all(dir.path().join("state")).unwrap();
    std::fs::create_dir(dir.path().join("state")).unwrap();
    std::fs::copy(copy, dir.path().join("state/ledger.db")).unwrap();
    let (code, told) = run(dir.path(), &["check", "--ledger"]);
    assert_eq!(code, Some(0), "{told}");
    let process = Process::start(dir.path(), "");
    let told = process.send(&[call("a", "t", "s"), call("c", "t", "s")]);
    assert_eq!(
        (&told["accepted"], &told["duplicate"]),
        (&json!(1), &json!(1))
    );
    drop(process);

    let connection = rusqlite::Connection::open(dir.path().join("state/ledger.db")).unwrap();
    connection
        .execute("UPDATE hourly SET requests = 9", [])
        .unwrap();
    let (code, told) = run(dir.path(), &["check", "--ledger"]);
    assert_eq!(code, Some(2), "{told}");
    let hour = "the sums of hour 2026-11-22T04:00:00.000Z are not those of its calls";
    assert!(told.contains(hour), "{told}");
    let counter = "tollmesh_requests_total is 3, less than the 9 calls in its sums";
    assert!(told.contains(counter), "{told}");
}

/// A `sqlite3` shell, a browser of databases, a script that backs up: each folds the log into the
/// file and deletes it, where it believes to be the last one that has the file open.
#[test]
fn another_program_reads_the_ledger_and_is_not_alone_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), "");
    let file = dir.path().join("state/ledger.db");
    for n in 1..=3 {
        let told = process.send(&[call(&format!("a{n}"), "t", "s")]);
        assert_eq!(told["accepted"], 1, "{told}");
        let rows = |connection: &rusqlite::Connection| {
            let sql = "SELECT count(*) FROM events";
            connection.query_row(sql, [], |row| row.get::<_, i64>(0))
        };
        let reading = rusqlite::Connection::open(&file).unwrap();
        assert_eq!(rows(&reading), Ok(n));
        drop(reading);
        let alone = rusqlite::Connection::open(&file).unwrap();
        alone.busy_timeout(std::time::Duration::ZERO).unwrap();
        alone
            .pragma_update(None, "locking_mode", "EXCLUSIVE")
            .unwrap();
        let code = rows(&alone).map_err(|error| error.sqlite_error_code());
        assert_eq!(code, Err(Some(rusqlite::ErrorCode::DatabaseBusy)));
        drop(alone);
        assert!(file.with_file_name("ledger.db-wal").exists());
    }
    assert_eq!(
        process.metrics("tollmesh_ledger_rows"),
        ["tollmesh_ledger_rows 3"]
    );
    assert!(process.stop().success());
}
