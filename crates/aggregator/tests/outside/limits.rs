//! Budgets in force: what is reserved, charged, restored and told to filters.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::process::{Process, event};

/// Long enough for a busy machine, short enough for a test that fails.
const DEADLINE: Duration = Duration::from_secs(20);

/// Models of a provider of our own: a token of `rocket` costs a dollar a million, either way.
const PRICES: &str = "schema = 1\nprovider = \"acme\"\ncurrency = \"USD\"\n\
     [source]\nlist = \"https://acme.example/prices\"\n\
     [[model]]\nid = \"rocket\"\nmatch = [\"rocket\"]\nrate = [{ input = \"1\", output = \"1\", \
     src = \"list\", checked = 2026-11-09 }]\n";

/// Writes the files, and starts. `budgets` is the text of the budgets' file.
fn start(dir: &Path, budgets: &str) -> Process {
    std::fs::write(dir.join("acme.toml"), PRICES).unwrap();
    write_budgets(dir, budgets);
    Process::start(dir, &settings(dir))
}

fn settings(dir: &Path) -> String {
    format!(
        "pricing = [{:?}]\nbudgets = {:?}",
        dir.join("acme.toml"),
        dir.join("budgets.toml")
    )
}

/// As an editor or a ConfigMap does it: whole, in one step.
fn write_budgets(dir: &Path, text: &str) {
    let beside = dir.join("beside");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, dir.join("budgets.toml")).unwrap();
}

/// A budget of that limit for team red; `more` is appended.
fn budget(limit: &str, enforce: &str, more: &str) -> String {
    format!(
        "[[budget]]\nname = \"red\"\nmatch = {{ team = \"red\" }}\nlimit = {limit:?}\n\
         window = \"month\"\nenforce = {enforce:?}\n{more}\n"
    )
}

/// A call that costs a millionth of a dollar for each of that many tokens, now.
fn call(id: &str, tokens: u64) -> Value {
    let mut call = event(id, "red");
    call["time"] = json!(jiff::Timestamp::now().to_string());
    call["provider"] = json!("acme");
    call["model"] = json!("rocket");
    call["usage"] = json!({ "input": tokens });
    call
}

/// What the aggregator answers a call that may use that many tokens.
fn reserve(process: &Process, id: &str, tokens: u64) -> Value {
    let request = json!({
        "v": 1, "event_id": id, "provider": "acme", "api": "openai.chat", "model": "rocket",
        "body_bytes": tokens / 2, "max_output_tokens": tokens - tokens / 2,
        "tags": { "team": "red", "user": "ann" },
    });
    let answer = process.ingest("POST", "/v1/reservations", &request.to_string());
    assert_eq!(answer.status, 200, "{}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

fn is_allowed(answer: &Value) -> bool {
    answer["decision"] == "allow"
}

/// The only budget's state.
fn state(process: &Process) -> Value {
    process.json("/api/v1/budgets")["items"][0].clone()
}

fn table(process: &Process, after: u64, wait_ms: u64) -> Value {
    let path = format!("/v1/decisions?after={after}&wait_ms={wait_ms}");
    let answer = process.ingest("GET", &path, "");
    serde_json::from_str(&answer.body).unwrap()
}

/// Waits until `look` answers what is wanted.
fn until(what: &str, wanted: &Value, look: impl Fn() -> Value) {
    let begun = Instant::now();
    loop {
        let seen = look();
        if seen == *wanted {
            return;
        }
        assert!(begun.elapsed() < DEADLINE, "{what}: {seen}, not {wanted}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn concurrent_calls_never_pass_a_strict_limit_and_use_it_up() {
    let dir = tempfile::tempdir().unwrap();
    let process = start(dir.path(), &budget("0.01 USD", "strict", ""));
    let (spent, n) = (AtomicU64::new(0), AtomicU64::new(0));
    // Ten thousand micro-dollars, a hundred calls of at most 300 that cost 100 to 300.
    std::thread::scope(|scope| {
        for client in 0..8 {
            let (process, spent, n) = (&process, &spent, &n);
            scope.spawn(move || {
                let begun = Instant::now();
                // Who is refused while others' calls are in flight comes again.
                for i in 0.. {
                    if spent.load(Ordering::Relaxed) > 9_400 || begun.elapsed() > DEADLINE {
                        return;
                    }
                    let id = format!("{client}-{i}");
                    let answer = reserve(process, &id, 300);
                    if !is_allowed(&answer) {
                        assert_eq!(answer["reason"], "budget_exceeded", "{answer}");
                        continue;
                    }
                    let tokens = 100 + (client * 40 + i) % 201;
                    let mut call = call(&id, tokens);
                    call["reservation_id"] = answer["reservation_id"].clone();
                    process.send(&[call]);
                    spent.fetch_add(tokens, Ordering::Relaxed);
                    n.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let spent = spent.into_inner();
    assert!(spent <= 10_000, "{spent} of 10000, {n:?} calls");
    assert!(spent > 9_000, "{spent} of 10000, {n:?} calls");
    let state = state(&process);
    let micro = |key: &str| {
        let usd: f64 = state[key].as_str().unwrap().parse().unwrap();
        (usd * 1e6).round() as u64
    };
    assert_eq!((micro("spent"), micro("reserved")), (spent, 0), "{state}");
}

#[test]
fn what_was_reserved_survives_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let limit = budget("0.01 USD", "strict", "");
    let process = start(dir.path(), &limit);
    // The same event asks twice, as after a time-out, and is held once.
    let first = reserve(&process, "a", 4_000);
    assert_eq!(reserve(&process, "a", 4_000), first);
    let second = reserve(&process, "b", 4_000);
    assert!(
        is_allowed(&first) && is_allowed(&second),
        "{first} {second}"
    );
    assert!(!is_allowed(&reserve(&process, "c", 4_000)));
    process.kill();

    // Both calls are in flight still: nothing that they may cost is given to others.
    let process = Process::start(dir.path(), &settings(dir.path()));
    assert!(!is_allowed(&reserve(&process, "d", 4_000)));
    let mut settled = call("a", 1_000);
    settled["reservation_id"] = first["reservation_id"].clone();
    assert_eq!(process.send(&[settled.clone()])["accepted"], 1);
    assert_eq!(process.send(&[settled])["duplicate"], 1);
    assert_eq!(state(&process)["spent"], "0.001");
    assert!(!is_allowed(&reserve(&process, "e", 4_000)));
    assert!(process.stop().success());

    let process = Process::start(dir.path(), &settings(dir.path()));
    assert_eq!(state(&process)["spent"], "0.001");
}

#[test]
fn a_call_that_never_left_gives_back_what_it_held() {
    let dir = tempfile::tempdir().unwrap();
    let process = start(dir.path(), &budget("0.01 USD", "strict", ""));
    let answer = reserve(&process, "a", 9_000);
    assert!(is_allowed(&answer));
    assert!(!is_allowed(&reserve(&process, "b", 9_000)));
    // A filter that gave up waiting refused the call, and knows no reservation.
    let mut refused = call("a", 0);
    refused["outcome"] = json!("denied");
    refused["usage"] = json!({});
    refused["usage_source"] = json!("absent");
    refused["applied"] =
        json!([{ "budget": "red", "do": "deny", "reason": "budget_unverifiable" }]);
    process.send(&[refused]);
    assert!(is_allowed(&reserve(&process, "c", 9_000)));
    let state = state(&process);
    assert_eq!(state["denied"], 1, "{state}");
    assert_eq!(
        process.metrics("tollmesh_budget_denied_requests_total"),
        [r#"tollmesh_budget_denied_requests_total{budget="red"} 1"#]
    );
}

#[test]
fn filters_hear_of_a_tier_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let tiers = "tiers = [ { at = \"50%\", do = \"downgrade\", models = { rocket = \"kite\" } },\n\
                 { at = \"100%\", do = \"deny\", except = { priority = \"critical\" } } ]\n\
                 per = [\"user\"]";
    let process = start(dir.path(), &budget("1000 tokens", "cached", tiers));
    let before = table(&process, 0, 0);
    assert_eq!(before["budgets"][0]["enforce"], "cached");
    assert_eq!(before["budgets"][0]["tiers"][0]["do"], "downgrade");
    assert_eq!(before["budgets"][0]["reached"], Value::Null);
    let version = before["version"].as_u64().unwrap();
    let newer = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| table(&process, version, 20_000));
        let mut of_ann = call("a", 600);
        of_ann["tags"] = json!({ "team": "red", "user": "ann" });
        let mut of_bob = call("b", 400);
        of_bob["tags"] = json!({ "team": "red", "user": "bob" });
        process.send(&[of_ann, of_bob]);
        waiting.join().unwrap()
    });
    assert!(newer["version"].as_u64() > Some(version));
    let reached = newer["budgets"][0]["reached"].as_array().unwrap();
    assert_eq!(reached.len(), 1, "{newer}");
    assert_eq!(
        (&reached[0]["key"], &reached[0]["tier"]),
        (&json!(["ann"]), &json!(0))
    );
    // `user` is no label, so its values are counted by tier.
    let mut keys = process.metrics("tollmesh_budget_keys{");
    keys.sort();
    assert_eq!(
        keys,
        [
            r#"tollmesh_budget_keys{budget="red",tier="50%"} 1"#,
            r#"tollmesh_budget_keys{budget="red",tier="none"} 1"#,
        ]
    );
    assert!(process.metrics("tollmesh_budget_tier").is_empty());
}

#[test]
fn a_budget_begins_with_what_was_spent_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let process = start(dir.path(), "");
    process.send(&[call("a", 300), call("b", 400)]);
    let mut other = call("c", 5_000);
    other["tags"] = json!({ "team": "blue" });
    process.send(&[other]);
    assert_eq!(process.json("/api/v1/budgets")["items"], json!([]));

    write_budgets(dir.path(), &budget("0.001 USD", "strict", ""));
    until("spent", &json!("0.0007"), || {
        state(&process)["spent"].clone()
    });
    assert!(!is_allowed(&reserve(&process, "d", 400)));
    assert!(is_allowed(&reserve(&process, "e", 200)));

    // A bad file changes nothing, and is told.
    write_budgets(dir.path(), "[[budget]]\nname = 3\n");
    let reloaded = || {
        process
            .metrics("tollmesh_budget_reload_successful")
            .join("")
    };
    until("bad", &json!("tollmesh_budget_reload_successful 0"), || {
        json!(reloaded())
    });
    let refused = process.json("/readyz")["budgets"]["refused"].clone();
    assert!(
        refused.as_str().unwrap().contains("budget[0].name"),
        "{refused}"
    );
    assert_eq!(state(&process)["limit"], "0.001");

    // A higher limit is in force at once, over the same spend.
    write_budgets(dir.path(), &budget("0.005 USD", "strict", ""));
    until("limit", &json!("0.005"), || {
        state(&process)["limit"].clone()
    });
    assert_eq!(state(&process)["spent"], "0.0007");
    assert!(is_allowed(&reserve(&process, "f", 4_000)));
    assert_eq!(reloaded(), "tollmesh_budget_reload_successful 1");
}

#[test]
fn a_file_that_notifies_nobody_known_is_refused_when_it_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let notifying = |limit: &str, who: &str| {
        let tiers = format!("tiers = [ {{ at = \"50%\", do = \"warn\", notify = [{who:?}] }} ]");
        budget(limit, "strict", &tiers)
    };
    std::fs::write(dir.path().join("acme.toml"), PRICES).unwrap();
    write_budgets(dir.path(), &notifying("1 USD", "eng"));
    let alerts = "alerts.eng.webhook.url = \"https://hooks.example/x\"";
    let process = Process::start(dir.path(), &format!("{}\n{alerts}", settings(dir.path())));
    write_budgets(dir.path(), &notifying("2 USD", "egn"));
    let refused = || process.json("/readyz")["budgets"]["refused"].clone();
    let why = format!(
        "{}: budget \"red\": tiers[0].notify: unknown receiver \"egn\"; did you mean \"eng\"? \
         expected \"eng\" or \"all\"; receivers are the sections [alerts.NAME] of tollmesh.toml",
        dir.path().join("budgets.toml").display()
    );
    until("refused", &json!(why), refused);
    assert_eq!(state(&process)["limit"], "1", "the old ones hold");
    write_budgets(dir.path(), &notifying("3 USD", "all"));
    until("limit", &json!("3"), || state(&process)["limit"].clone());
    assert_eq!(refused(), Value::Null);
}

/// Calls that budgets charge otherwise than sums of calls say.
fn odd_calls() -> Vec<Value> {
    let mut unpriced = call("a", 1_000);
    unpriced["model"] = json!("nonesuch");
    let mut with_extra = call("b", 500);
    with_extra["extra_usage"] =
        json!([{ "kind": "search", "model": "rocket", "usage": { "input": 70, "output": 30 } }]);
    let mut both = call("c", 40);
    both["model"] = json!("nonesuch");
    both["extra_usage"] = with_extra["extra_usage"].clone();
    let mut denied = call("d", 0);
    denied["model"] = json!("nonesuch");
    denied["outcome"] = json!("denied");
    vec![unpriced, with_extra, both, denied, call("e", 2)]
}

#[test]
fn a_budget_that_begins_later_counts_as_one_that_was_there() {
    for (limit, window, spent) in [
        // 1000 and 140 at the dearest rate, 600 and 2 at their own.
        ("1 USD", "month", "0.001742"),
        ("1M tokens", "month", "1742"),
        ("1000 requests", "month", "4"),
        ("1 USD", "rolling 24h", "0.001742"),
        ("1M tokens", "rolling 24h", "1742"),
    ] {
        let spent = json!(spent);
        let look = |process: &Process| state(process)["spent"].clone();
        let text = budget(limit, "cached", "").replace("\"month\"", &format!("{window:?}"));

        let dir = tempfile::tempdir().unwrap();
        let there = start(dir.path(), &text);
        there.send(&odd_calls());
        until(limit, &spent, || look(&there));
        let dir = tempfile::tempdir().unwrap();
        let later = start(dir.path(), "");
        later.send(&odd_calls());
        write_budgets(dir.path(), &text);
        until(limit, &spent, || look(&later));
    }
}

#[test]
fn a_call_without_a_price_is_charged_a_ceiling() {
    let dir = tempfile::tempdir().unwrap();
    let process = start(dir.path(), &budget("1 USD", "strict", ""));
    let mut unknown = call("a", 1_000);
    unknown["model"] = json!("nonesuch");
    process.send(&[unknown]);
    assert_eq!(state(&process)["spent"], "0.001");
    let request = json!({
        "v": 1, "event_id": "b", "provider": "acme", "api": "openai.chat", "model": "nonesuch",
        "body_bytes": 1_000, "max_output_tokens": 1_000, "tags": { "team": "red" },
    });
    let answer = process.ingest("POST", "/v1/reservations", &request.to_string());
    assert!(answer.body.contains("\"allow\""), "{}", answer.body);
    assert_eq!(state(&process)["reserved"], "0.002");
}
