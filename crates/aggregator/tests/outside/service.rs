//! The aggregator from outside: what filters send, what operators are answered, what survives.

use std::time::{Duration, Instant};

use crate::process::{Process, config, event};
use serde_json::{Value, json};

/// Waits for a fact.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn events_are_taken_once_and_bad_ones_spoil_nothing_but_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), "");
    let mut bad = event("bad", "red");
    bad["time"] = json!("yesterday");
    let mut odd = event("odd", "red");
    odd["usage_source"] = json!("guessed");
    let events = [event("a", "red"), bad, event("b", "blue"), odd];
    insta::assert_json_snapshot!("events_reply", process.send(&events));
    let again = process.send(&[event("a", "red"), event("c", "red")]);
    assert_eq!(
        again,
        json!({ "accepted": 1, "duplicate": 1, "rejected": [] })
    );
    assert_eq!(process.json("/api/v1/coverage")["items"][0]["requests"], 3);

    for (body, status, detail) in [
        (
            r#"{"v":2,"events":[]}"#.to_owned(),
            400,
            "wire version 2 is not spoken here (this side speaks 1); run filter and aggregator \
             of the same release",
        ),
        (
            "{".to_owned(),
            400,
            "not a message of wire version 1: EOF while parsing an object at line 1 column 1",
        ),
        (
            " ".repeat(8 * 1024 * 1024 + 1),
            413,
            "the body is larger than 8388608 bytes",
        ),
    ] {
        let answer = process.ingest("POST", "/v1/events", &body);
        let problem: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(answer.status, status);
        assert_eq!(problem["detail"], detail);
        assert!(
            answer
                .head
                .contains("content-type: application/problem+json")
        );
    }
    assert_eq!(process.ingest("GET", "/v1/events", "").status, 405);
    assert_eq!(process.ingest("GET", "/metrics", "").status, 404);
}

#[test]
fn filters_are_answered_without_budgets() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("ingest.sock");
    let ingest = format!("unix:{}", socket.display());
    let process = Process::start_with(&config(dir.path(), &ingest, "127.0.0.1:0", ""));
    let table = r#"{"v":1,"version":1,"budgets":[]}"#;
    assert_eq!(
        process.ingest("GET", "/v1/decisions?after=0", "").body,
        table
    );
    let begun = Instant::now();
    let path = "/v1/decisions?after=1&wait_ms=200";
    assert_eq!(process.ingest("GET", path, "").body, table);
    assert!(begun.elapsed() >= Duration::from_millis(200));
    let body = r#"{"v":1,"event_id":"e"}"#;
    let allowed = process.ingest("POST", "/v1/reservations", body).body;
    assert_eq!(allowed, r#"{"decision":"allow"}"#);
    assert_eq!(process.send(&[event("a", "red")])["accepted"], 1);
    assert!(process.stop().success());
    assert!(!socket.exists());
}

/// The word "ready" is what an orchestrator may answer with a stop.
#[test]
fn a_stop_right_after_the_start_is_clean() {
    let ends: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(|| {
                let dir = tempfile::tempdir().unwrap();
                Process::start(dir.path(), "").stop()
            })
        })
        .collect();
    for end in ends {
        let status = end.join().unwrap();
        assert!(status.success(), "{status}");
    }
}

#[test]
fn counters_go_on_after_any_end() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), "[metrics]\nmax_values_per_label = 2");
    let teams = ["red", "blue", "green"];
    let events = teams.map(|team| event(&format!("first-{team}"), team));
    process.send(&events);
    let kept = |process: &Process| {
        let mut lines = process.metrics("tollmesh_cost_usd_total");
        lines.extend(process.metrics("tollmesh_tokens_total"));
        lines.extend(process.metrics("tollmesh_request"));
        lines
    };
    let before = kept(&process);
    assert!(
        before
            .iter()
            .any(|line| line.contains(r#"team="__other__""#))
    );
    process.kill();

    let process = Process::start(dir.path(), "[metrics]\nmax_values_per_label = 2");
    assert_eq!(kept(&process), before);
    assert_eq!(process.send(&events)["duplicate"], 3);
    assert_eq!(kept(&process), before);
    // The slots of the first life are taken: blue still has its own, green still has none.
    process.send(&[event("second-blue", "blue"), event("second-green", "green")]);
    let costs = process.metrics("tollmesh_cost_usd_total");
    let begin = r#"tollmesh_cost_usd_total{provider="openai",model="gpt-4o-2024-08-06","#;
    let begin = format!(r#"{begin}namespace="shop",service="web","#);
    assert_eq!(
        costs,
        [
            format!(r#"{begin}team="__other__"}} 0.00706"#),
            format!(r#"{begin}team="blue"}} 0.00706"#),
            format!(r#"{begin}team="red"}} 0.00353"#),
        ]
    );
    assert!(process.stop().success());
}

#[test]
fn labels_that_are_no_longer_configured_are_summed_away() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), "");
    process.send(&[event("a", "red"), event("b", "blue")]);
    assert_eq!(process.metrics("tollmesh_cost_usd_total").len(), 2);
    process.kill();
    let process = Process::start(dir.path(), "[metrics]\nlabels = []");
    let costs = process.metrics("tollmesh_cost_usd_total");
    assert_eq!(costs.len(), 1);
    assert!(costs[0].ends_with(" 0.00706"), "{costs:?}");
}

#[test]
fn operators_are_answered_in_json_and_csv() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), "");
    let mut formula = event("b", "=cmd|' /C calc'!A0");
    formula["usage"] = json!({ "input": 1 });
    formula["model"] = json!("nonesuch");
    formula["model_requested"] = Value::Null;
    formula["fingerprint"] = json!("a3817f04ba25a8e66df67214c7550293");
    process.send(&[event("a", "red"), formula]);

    insta::assert_json_snapshot!(
        "spend",
        process.json("/api/v1/spend?by=team,model&interval=1h&from=2026-11-22&to=2026-11-23")
    );
    let requests = process.json("/api/v1/requests?sort=cost&limit=1");
    let mut shown = requests.clone();
    // Prices change with every release, the shape does not.
    shown["items"][0]["pricing_version"] = json!("[digest]");
    shown["items"][0]["price_row"] = json!("[row]");
    insta::assert_json_snapshot!("requests", shown);
    let cursor = requests["next_cursor"].as_str().unwrap();
    let next = process.json(&format!(
        "/api/v1/requests?sort=cost&limit=1&cursor={cursor}"
    ));
    assert_eq!(next["items"][0]["event_id"], "b");
    assert_eq!(next["items"][0]["cost_usd"], Value::Null);
    assert_eq!(next["items"][0]["unpriced_because"], "unknown_model");
    insta::assert_json_snapshot!("coverage", process.json("/api/v1/coverage"));
    let csv = process.ask(
        "/api/v1/spend?by=team",
        "host: localhost\r\naccept: text/csv\r\n",
    );
    assert!(csv.head.contains("content-type: text/csv; charset=utf-8"));
    insta::assert_snapshot!("spend.csv", csv.body);
    let filtered = process.json("/api/v1/requests?where=team:red&where=provider:openai");
    assert_eq!(filtered["items"].as_array().unwrap().len(), 1);

    let same_body = "/api/v1/requests?where=fingerprint:a3817f04ba25a8e66df67214c7550293";
    let same_body = process.json(same_body);
    assert_eq!(same_body["items"].as_array().unwrap().len(), 1);
    assert_eq!(same_body["items"][0]["event_id"], "b");

    let bad = process.get("/api/v1/spend?group=team");
    assert_eq!(bad.status, 400);
    insta::assert_snapshot!("bad_question", bad.body);
    assert_eq!(process.get("/api/v2").status, 404);
    assert_eq!(process.get("/healthz").body, "ok\n");
    assert_eq!(process.json("/readyz")["ready"], true);
}

#[test]
fn data_is_for_those_who_may_ask() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), "");
    let spend = "/api/v1/spend?by=team";
    assert_eq!(process.ask(spend, "host: localhost:4101\r\n").status, 200);
    assert_eq!(process.ask(spend, "host: evil.example\r\n").status, 403);
    assert_eq!(
        process.ask("/metrics", "host: tollmesh.svc\r\n").status,
        200
    );
    drop(process);

    let token_file = dir.path().join("token");
    std::fs::write(&token_file, "s3cret\n").unwrap();
    let file = config(dir.path(), "127.0.0.1:0", "127.0.0.1:0", "");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}token_file = {token_file:?}\n")).unwrap();
    let process = Process::start_with(&file);
    let with = |headers: &str| process.ask(spend, &format!("host: tollmesh.svc\r\n{headers}"));
    assert_eq!(with("").status, 401);
    assert!(with("").head.contains("www-authenticate: bearer"));
    assert_eq!(with("authorization: Bearer wrong\r\n").status, 401);
    assert_eq!(with("authorization: Bearer s3cret\r\n").status, 200);
    assert_eq!(process.ask("/readyz", "host: x\r\n").status, 200);
    drop(process);

    let file = config(dir.path(), "127.0.0.1:0", "0.0.0.0:0", "");
    let process = Process::start_with(&file);
    assert_eq!(process.get(spend).status, 403);
    assert_eq!(process.get("/").status, 403);
    assert_eq!(process.get("/metrics").status, 200);
}

#[test]
fn the_exposition_has_every_family_with_help() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), "");
    let mut unpriced = event("b", "red");
    unpriced["model"] = json!("nonesuch");
    let mut stated = event("a", "red");
    stated["provider_cost_usd"] = json!("0.004");
    process.send(&[stated, unpriced]);
    let text = process.get("/metrics").body;
    let heads: Vec<&str> = text.lines().filter(|line| line.starts_with('#')).collect();
    insta::assert_snapshot!("families", heads.join("\n"));
    let requests = process.metrics("tollmesh_request");
    insta::assert_snapshot!("requests_families", requests.join("\n"));
}

#[test]
fn price_files_are_taken_when_they_are_good() {
    let dir = tempfile::tempdir().unwrap();
    let pricing = dir.path().join("pricing");
    std::fs::create_dir(&pricing).unwrap();
    let process = Process::start(dir.path(), &format!("pricing = [{pricing:?}]"));
    let version = |process: &Process| {
        process.json("/readyz")["prices"]["pricing_version"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let shipped = version(&process);
    std::fs::write(pricing.join("broken.toml"), "provider = 3\n").unwrap();
    until("the broken file shows", || {
        let refused = process.json("/readyz")["prices"]["refused"].clone();
        refused
            .as_str()
            .filter(|why| why.contains("broken.toml"))
            .map(drop)
    });
    assert_eq!(version(&process), shipped);
    assert_eq!(
        process.metrics("tollmesh_price_reload_successful"),
        ["tollmesh_price_reload_successful 0"]
    );
    std::fs::remove_file(pricing.join("broken.toml")).unwrap();
    until("it is well again", || {
        process.json("/readyz")["prices"]["refused"]
            .is_null()
            .then_some(())
    });
    assert_eq!(version(&process), shipped);
}

#[test]
fn own_terms_are_taken_when_they_are_good_and_the_list_is_kept_beside_them() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("overrides.toml");
    let terms = |times: &str| {
        format!(
            "schema = 1\n[[override]]\nid = \"acme\"\nwhen = {{ provider = \"openai\" }}\n\
             times = {times:?}\n"
        )
    };
    std::fs::write(&file, terms("0.5")).unwrap();
    let process = Process::start(dir.path(), &format!("overrides = {file:?}"));
    let costs = |id: &str| {
        process.send(&[event(id, "red")]);
        let rows = process.json("/api/v1/requests?limit=100");
        let rows = rows["items"].as_array().unwrap();
        let row = rows.iter().find(|row| row["event_id"] == id).unwrap();
        let usd = |name: &str| row[name].as_str().map(str::to_owned);
        (usd("cost_usd"), usd("list_cost_usd"))
    };
    let usd = |text: &str| Some(text.to_owned());
    // 1000 x 2.50 + 24 x 1.25 + 100 x 10.00 for a million each.
    assert_eq!(costs("half"), (usd("0.001765"), usd("0.00353")));

    std::fs::write(&file, terms("0.1")).unwrap();
    let mut n = 0;
    until("new terms are in force", || {
        n += 1;
        (costs(&format!("tenth-{n}")) == (usd("0.000353"), usd("0.00353"))).then_some(())
    });
    std::fs::write(&file, "schema = 1\n[[overide]]\n").unwrap();
    until("broken terms are told", || {
        let ready = process.get("/readyz").body;
        ready.contains("overrides.toml").then_some(())
    });
    assert_eq!(costs("after"), (usd("0.000353"), usd("0.00353")));
}
