//! Budgets as operators work with them: what others would have done to the past.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::process::{BINARY, Process, event};

/// A call of `team` that costs a dollar, so many days before now.
fn dollar(id: &str, team: &str, days_ago: i64) -> Value {
    let mut event = event(id, team);
    let now_ms = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis() as i64;
    let noon_ms = (now_ms / 86_400_000 - days_ago) * 86_400_000 + 43_200_000;
    let at = jiff::Timestamp::from_millisecond(noon_ms.min(now_ms - 60_000)).unwrap();
    event["time"] = json!(at.to_string());
    event["provider"] = json!("acme");
    event["model"] = json!("m");
    event["model_requested"] = json!("m");
    event["usage"] = json!({ "input": 1_000_000 });
    event
}

fn tollmesh(dir: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(BINARY)
        .args(arguments)
        .arg("--config")
        .arg(dir.join("tollmesh.toml"))
        .current_dir(dir)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn prices(dir: &Path) -> String {
    let file = dir.join("acme.toml");
    let table = "schema = 1\nprovider = \"acme\"\ncurrency = \"USD\"\n\
                 [source]\nlist = \"https://acme.example/prices\"\n\
                 [[model]]\nid = \"m\"\nmatch = [\"m\"]\n\
                 rate = [{ input = \"1\", src = \"list\", checked = 2026-01-09 }]\n";
    std::fs::write(&file, table).unwrap();
    format!("pricing = [{file:?}]")
}

#[test]
fn a_new_policy_passes_the_calls_of_the_past() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), &prices(dir.path()));
    let mut events: Vec<Value> = (0..5).map(|n| dollar(&format!("a{n}"), "red", 2)).collect();
    events.extend((0..3).map(|n| dollar(&format!("b{n}"), "blue", 2)));
    events.extend((0..2).map(|n| dollar(&format!("c{n}"), "red", 1)));
    events.push(dollar("old", "red", 40));
    process.send(&events);

    let file = dir.path().join("new.toml");
    std::fs::write(
        &file,
        "[[budget]]\nname = \"teams\"\nper = [\"team\"]\nlimit = \"2 USD\"\nwindow = \"day\"\n\
         enforce = \"strict\"\ntiers = [ { at = \"100%\", do = \"deny\" } ]\n",
    )
    .unwrap();
    // While it serves, and without a token: nothing is written.
    let arguments = ["budgets", "replay", "new.toml", "--format", "json"];
    let (code, out, told) = tollmesh(dir.path(), &arguments);
    assert_eq!(code, Some(0), "{told}");
    let answer: Value = serde_json::from_str(&out).unwrap();
    let rows: Vec<Value> = answer["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            json!([
                row["key"]["team"],
                row["requests"],
                row["denied_requests"],
                row["windows"],
                row["windows_denied"],
                row["cost_usd"],
                row["saved_usd"],
                row["peak_percent"],
            ])
        })
        .collect();
    assert_eq!(
        rows,
        [
            json!(["red", 7, 3, 2, 1, "7", "3", "250"]),
            json!(["blue", 3, 1, 1, 1, "3", "1", "150"]),
        ]
    );
    assert!(told.contains("10 calls"), "{told}");
    let arguments = ["budgets", "replay", "new.toml", "--days", "60"];
    let (_, out, told) = tollmesh(dir.path(), &arguments);
    assert!(
        out.contains("\"all\"") && told.contains("11 calls"),
        "{out}{told}"
    );

    std::fs::write(&file, "[[budget]]\nname = \"teams\"\n").unwrap();
    let (code, _, told) = tollmesh(dir.path(), &["budgets", "replay", "new.toml"]);
    assert_eq!(code, Some(2));
    assert!(
        told.contains("new.toml: budget[0].limit: missing"),
        "{told}"
    );
    assert!(process.stop().success());
}

/// A receiver on this machine: the bodies that were posted to it.
fn receiver() -> (String, std::sync::mpsc::Receiver<Value>) {
    use std::io::{BufRead, BufReader, Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, bodies) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let mut length = 0;
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if let Some(n) = line.to_lowercase().strip_prefix("content-length:") {
                    length = n.trim().parse().unwrap();
                }
                if line.trim().is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            reader.get_mut().write_all(answer).unwrap();
            if sender.send(serde_json::from_slice(&body).unwrap()).is_err() {
                return;
            }
        }
    });
    (url, bodies)
}

/// Waits until the process has noted so many answers: one that is killed before tells again.
fn wait_for_taken(process: &Process, n: usize) {
    let taken = "tollmesh_alert_deliveries_total{channel=\"webhook\",outcome=\"taken\"";
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !process.metrics(taken)[0].ends_with(&format!(" {n}")) {
        assert!(
            std::time::Instant::now() < until,
            "{:?}",
            process.metrics(taken)
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn people_are_told_once_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let (url, bodies) = receiver();
    let budgets = dir.path().join("budgets.toml");
    let tier = |at: &str| format!("{{ at = {at:?}, do = \"warn\", notify = [\"eng\"] }}");
    let tiers: Vec<String> = ["60%", "85%", "100%"].map(tier).into();
    let text = format!(
        "[[budget]]\nname = \"red\"\nmatch = {{ team = \"red\" }}\nlimit = \"10 USD\"\n\
         window = \"month\"\ntiers = [ {} ]\n",
        tiers.join(", ")
    );
    std::fs::write(&budgets, text).unwrap();
    // Settings before the first table of `config`.
    let more = format!(
        "{}\nbudgets = {budgets:?}\nalerts.eng.webhook.url = {url:?}\n\
         alerts.eng.allow_private = true",
        prices(dir.path())
    );
    let spend = |process: &Process, from: usize, n: usize| {
        let calls = (from..from + n).map(|n| dollar(&format!("e{n}"), "red", 0));
        process.send(&calls.collect::<Vec<_>>());
    };
    let told = || {
        let body = bodies.recv_timeout(std::time::Duration::from_secs(20));
        let body = body.expect("nobody was told");
        assert_eq!(
            (&body["budget"], &body["unit"]),
            (&json!("red"), &json!("USD"))
        );
        (
            body["tier"].as_str().unwrap().to_owned(),
            body["spent"].as_str().unwrap().to_owned(),
        )
    };
    let process = Process::start(dir.path(), &more);
    spend(&process, 0, 5);
    spend(&process, 5, 1);
    assert_eq!(told(), ("60%".to_owned(), "6".to_owned()));
    wait_for_taken(&process, 1);
    process.kill();
    let process = Process::start(dir.path(), &more);
    spend(&process, 6, 1);
    // Two tiers at once.
    spend(&process, 7, 3);
    let mut both = [told().0, told().0];
    both.sort();
    assert_eq!(both, ["100%", "85%"]);
    spend(&process, 10, 1);
    wait_for_taken(&process, 2);
    assert!(process.stop().success());
    assert!(bodies.try_recv().is_err());
}

#[test]
fn guards_stop_what_runs_away_and_tell() {
    let dir = tempfile::tempdir().unwrap();
    let (url, bodies) = receiver();
    let budgets = dir.path().join("budgets.toml");
    let text = "[[guard]]\nname = \"traces\"\nper = [\"trace_id\"]\nmax_requests_per_minute = 2\n\
                max_cost = \"3 USD\"\nenforce = \"strict\"\nnotify = [\"eng\"]\n";
    std::fs::write(&budgets, text).unwrap();
    let more = format!(
        "{}\nbudgets = {budgets:?}\nalerts.eng.webhook.url = {url:?}\n\
         alerts.eng.allow_private = true",
        prices(dir.path())
    );
    let process = Process::start(dir.path(), &more);
    let ask = |id: &str, trace: &str| -> Value {
        let body = json!({ "v": 1, "event_id": id, "trace_id": trace, "provider": "acme",
                           "model": "m", "body_bytes": 100 });
        let answer = process.ingest("POST", "/v1/reservations", &body.to_string());
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    };
    // Filters are told to ask.
    let table = process
        .ingest("GET", "/v1/decisions?after=0&wait_ms=5000", "")
        .body;
    let table: Value = serde_json::from_str(&table).unwrap();
    assert_eq!(table["budgets"][0]["budget"], "traces");
    assert_eq!(table["budgets"][0]["enforce"], "strict");
    for id in ["a", "b"] {
        assert_eq!(ask(id, "t1")["decision"], "allow");
    }
    let denied = ask("c", "t1");
    assert_eq!(denied["decision"], "deny");
    assert_eq!(
        (&denied["budget"], &denied["reason"]),
        (&json!("traces"), &json!("guard_rate"))
    );
    assert_eq!(denied["limit"], "2 requests a minute per trace_id");
    let told = bodies
        .recv_timeout(std::time::Duration::from_secs(20))
        .unwrap();
    assert_eq!(
        (&told["kind"], &told["key"]["trace_id"]),
        (&json!("guard"), &json!("t1"))
    );
    // What calls cost is known by their events.
    let calls = (0..3).map(|n| {
        let mut event = dollar(&format!("t2-{n}"), "red", 0);
        event["trace_id"] = json!("t2");
        event
    });
    process.send(&calls.collect::<Vec<_>>());
    let denied = ask("d", "t2");
    assert_eq!(denied["reason"], "guard_cost");
    assert_eq!(denied["limit"], "3 USD per trace_id");
    assert_eq!(ask("e", "t3")["decision"], "allow");
    let trips = process.metrics("tollmesh_guard_trips_total{");
    assert_eq!(trips.len(), 2, "{trips:?}");
    // Without guards nobody has to ask any more.
    std::fs::write(&budgets, "budget = []\n").unwrap();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while ask("f", "t2")["decision"] != "allow" {
        assert!(std::time::Instant::now() < until, "the guard stays");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!(process.stop().success());
}

/// A configuration with budgets, whose operator side can be found again, with the token `s3cret`.
fn operated(dir: &Path, budgets: &str) -> std::path::PathBuf {
    let budgets_file = dir.join("budgets.toml");
    std::fs::write(&budgets_file, budgets).unwrap();
    let token_file = dir.join("token");
    std::fs::write(&token_file, "s3cret").unwrap();
    // Free now; whoever takes it meanwhile makes the start fail, not the test pass.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let operator = free.local_addr().unwrap().to_string();
    drop(free);
    let more = format!("{}\nbudgets = {budgets_file:?}", prices(dir));
    let file = crate::process::config(dir, "127.0.0.1:0", &operator, &more);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}token_file = {token_file:?}\n")).unwrap();
    file
}

const RED: &str = "[[budget]]\nname = \"red\"\nmatch = { team = \"red\" }\nper = [\"team\"]\n\
                   limit = \"2 USD\"\nwindow = \"month\"\nenforce = \"strict\"\n\
                   tiers = [ { at = \"100%\", do = \"deny\" } ]\n";

fn asked(process: &Process, id: &str) -> Value {
    let body = json!({ "v": 1, "event_id": id, "request_id": format!("request-{id}"),
                       "provider": "acme", "model": "m", "body_bytes": 1000,
                       "tags": { "team": "red" } });
    let answer = process.ingest("POST", "/v1/reservations", &body.to_string());
    serde_json::from_str(&answer.body).unwrap()
}

#[test]
fn a_limit_is_overridden_for_a_while_and_on_the_record() {
    let dir = tempfile::tempdir().unwrap();
    let file = operated(dir.path(), RED);
    let process = Process::start_with(&file);
    let calls = (0..2).map(|n| dollar(&format!("e{n}"), "red", 0));
    process.send(&calls.collect::<Vec<_>>());
    assert_eq!(asked(&process, "a")["reason"], "budget_exceeded");
    let set = [
        "budgets", "override", "red", "--limit", "5USD", "--until", "2h", "--reason", "launch",
        "--by", "ann",
    ];
    let (code, out, told) = tollmesh(dir.path(), &set);
    assert_eq!(code, Some(0), "{told}");
    assert!(
        out.starts_with("red: 5 USD until ") && out.ends_with(", by ann\n"),
        "{out}"
    );
    let allowed = asked(&process, "b");
    assert_eq!(
        (
            &allowed["decision"],
            asked(&process, "b")["reservation_id"].is_string()
        ),
        (&json!("allow"), true)
    );
    // It outlives the process, and is on the record.
    process.kill();
    let process = Process::start_with(&file);
    assert_eq!(asked(&process, "c")["decision"], "allow");
    let (_, out, _) = tollmesh(dir.path(), &["budgets", "overrides", "--format", "json"]);
    let listed: Value = serde_json::from_str(&out).unwrap();
    let one = &listed["items"][0];
    assert_eq!(
        (&one["by"], &one["reason"], &one["holds"]),
        (&json!("ann"), &json!("launch"), &json!(true))
    );
    let (code, _, told) = tollmesh(
        dir.path(),
        &["budgets", "override", "red", "--end", "--by", "bob"],
    );
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(asked(&process, "d")["reason"], "budget_exceeded");
    for (arguments, why) in [
        (
            [
                "budgets", "override", "rde", "--limit", "5USD", "--until", "2h",
            ],
            "no budget \"rde\"; GET /api/v1/budgets lists those in force",
        ),
        (
            [
                "budgets", "override", "red", "--limit", "5 tokens", "--until", "2h",
            ],
            "budget \"red\" is in USD; give the limit in the same unit",
        ),
        (
            [
                "budgets", "override", "red", "--limit", "5USD", "--until", "2y",
            ],
            "until: \"2y\"; expected an instant such as 2026-11-23T00:00:00Z, a day, or a span \
             such as 4h",
        ),
    ] {
        let all: Vec<&str> = arguments
            .into_iter()
            .chain(["--reason", "x", "--by", "y"])
            .collect();
        let (code, _, told) = tollmesh(dir.path(), &all);
        assert_eq!(code, Some(2));
        assert!(told.contains(why), "{told}");
    }
    // Nobody overrides a limit without the token.
    let refused = process.post("/api/v1/budgets/red/overrides", None);
    assert_eq!(refused.status, 401);
    // It ends by itself; not before a busy machine has set it and asked.
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(8);
    let soon = soon.to_string();
    let set = [
        "budgets", "override", "red", "--limit", "5USD", "--until", &soon, "--reason", "launch",
        "--by", "ann",
    ];
    assert_eq!(tollmesh(dir.path(), &set).0, Some(0));
    assert_eq!(asked(&process, "e")["decision"], "allow");
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let mut n = 0;
    while asked(&process, &format!("f{n}"))["decision"] == "allow" {
        assert!(std::time::Instant::now() < until, "the override stays");
        std::thread::sleep(std::time::Duration::from_millis(100));
        n += 1;
    }
    assert!(process.stop().success());
}

#[test]
fn a_refusal_is_explained_and_spend_reckoned_anew() {
    let dir = tempfile::tempdir().unwrap();
    let file = operated(dir.path(), RED);
    let process = Process::start_with(&file);
    let calls = (0..2).map(|n| dollar(&format!("e{n}"), "red", 0));
    process.send(&calls.collect::<Vec<_>>());
    assert_eq!(asked(&process, "a")["decision"], "deny");
    let mut denied = dollar("a", "red", 0);
    denied["outcome"] = json!("denied");
    denied["status"] = json!(429);
    denied["usage"] = json!({});
    denied["applied"] = json!([{ "budget": "red", "do": "deny", "reason": "budget_exceeded" }]);
    process.send(&[denied]);
    let (code, out, told) = tollmesh(dir.path(), &["explain", "request-a"]);
    assert_eq!(code, Some(0), "{told}");
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].ends_with("request-a  event a"), "{out}");
    let expected = "  refused: budget_exceeded, by budget red (team = red): 2 of 2 USD per month, \
                    0.001 asked for this call, tier 100%";
    assert_eq!(lines[1], expected);
    assert!(lines[2].contains("or raise the limit for a while"), "{out}");
    let token = "authorization: Bearer s3cret\r\nhost: localhost\r\n";
    let answer = process.ask("/api/v1/explain?request_id=request-a", token);
    let answer: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(answer["items"][0]["spent"], "2");
    assert_eq!(
        process
            .ask("/api/v1/explain?request_id=request-b", token)
            .status,
        404
    );
    let (code, _, told) = tollmesh(dir.path(), &["explain", "request-b"]);
    assert_eq!(code, Some(2), "{told}");

    let (code, out, told) = tollmesh(dir.path(), &["budgets", "recount", "--format", "json"]);
    assert_eq!(code, Some(0), "{told}");
    let rows: Value = serde_json::from_str(&out).unwrap();
    let row = &rows["items"][0];
    assert_eq!(
        (&row["charged"], &row["in_rows"], &row["raised"]),
        (&json!("2"), &json!("2"), &json!(false))
    );
    assert_eq!(
        (&row["key"]["team"], &row["released"]),
        (&json!("red"), &json!(true))
    );
    assert!(process.stop().success());
}
