//! Price files that change while events arrive.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::process::{Process, event};

/// Batches that each of two senders sends at least.
const BATCHES_MIN: usize = 40;
/// Events in a batch.
const BATCH_EVENTS: usize = 25;

/// A table that prices a token of `rocket` at that many dollars a million.
fn table(rate: usize) -> String {
    format!(
        "schema = 1\nprovider = \"acme\"\ncurrency = \"USD\"\n\
         [source]\nlist = \"https://acme.example/prices\"\n\
         [[model]]\nid = \"rocket\"\nmatch = [\"rocket\"]\nrate = [{{ input = \"{rate}\", \
         src = \"list\", checked = 2026-11-09 }}]\n"
    )
}

/// Sends until it is told to stop, and at least [`BATCHES_MIN`] batches; says how many events.
fn send(process: &Process, sender: usize, stop: &AtomicBool) -> usize {
    let mut n = 0;
    while n < BATCHES_MIN * BATCH_EVENTS || !stop.load(Ordering::Relaxed) {
        let batch: Vec<_> = (n..n + BATCH_EVENTS)
            .map(|i| {
                let mut event = event(&format!("{sender}-{i}"), "red");
                event["provider"] = json!("acme");
                event["model"] = json!("rocket");
                event["usage"] = json!({ "input": 1_000_000 });
                event
            })
            .collect();
        assert_eq!(process.send(&batch)["accepted"], BATCH_EVENTS);
        n += BATCH_EVENTS;
    }
    n
}

#[test]
fn no_event_is_lost_or_unpriced_while_tables_change_and_break() {
    let dir = tempfile::tempdir().unwrap();
    let pricing = dir.path().join("pricing");
    std::fs::create_dir(&pricing).unwrap();
    let file = pricing.join("acme.toml");
    // As an editor or a ConfigMap does it: whole, in one step.
    let write = |text: String| {
        let beside = dir.path().join("beside");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(&beside, &file).unwrap();
    };
    write(table(1));
    let process = Process::start(dir.path(), &format!("pricing = [{pricing:?}]"));
    let refused = || process.json("/readyz")["prices"]["refused"].clone();
    let until = |what: &str, fact: &dyn Fn() -> bool| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !fact() {
            assert!(Instant::now() < deadline, "never: {what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    };

    let stop = AtomicBool::new(false);
    let sent: usize = std::thread::scope(|scope| {
        let (process, stop) = (&process, &stop);
        let senders = [0, 1].map(|sender| scope.spawn(move || send(process, sender, stop)));
        let version = || process.json("/readyz")["prices"]["pricing_version"].clone();
        for rate in 2..=4 {
            let before = version();
            write(table(rate));
            until("the new table is in force", &|| version() != before);
            write("provider = 3\n".to_owned());
            until("the bad one is refused", &|| refused().is_string());
        }
        stop.store(true, Ordering::Relaxed);
        senders.map(|sender| sender.join().unwrap()).iter().sum()
    });

    let row = &process.json("/api/v1/spend")["items"][0];
    assert_eq!(row["requests"], sent);
    assert_eq!(row["unpriced_requests"], 0);
    // Every call has the price of one of the good tables, and the last of them priced the last.
    let mut by_cost = BTreeMap::new();
    let mut path = "/api/v1/requests?limit=1000&sort=time".to_owned();
    loop {
        let page = process.json(&path);
        for item in page["items"].as_array().unwrap() {
            let cost = item["cost_usd"].as_str().unwrap().to_owned();
            *by_cost.entry(cost).or_insert(0) += 1;
        }
        let Some(cursor) = page["next_cursor"].as_str() else {
            break;
        };
        path = format!("/api/v1/requests?limit=1000&sort=time&cursor={cursor}");
    }
    assert_eq!(by_cost.values().sum::<usize>(), sent);
    let costs: Vec<&str> = by_cost.keys().map(String::as_str).collect();
    assert!(
        costs.iter().all(|cost| ["1", "2", "3", "4"].contains(cost)),
        "{costs:?}"
    );
    assert!(costs.contains(&"4"), "{costs:?}");
    assert!(costs.len() > 1, "{costs:?}");
}

/// Whoever starts has no old tables in memory, and must meter all the same.
#[test]
fn a_start_with_bad_prices_takes_those_that_were_good_last() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("acme.toml");
    std::fs::write(&file, table(7)).unwrap();
    let more = format!("pricing = [{file:?}]");
    assert!(Process::start(dir.path(), &more).stop().success());
    std::fs::write(&file, "provider = 3\n").unwrap();

    let costs = |process: &Process, id: &str| {
        let mut event = event(id, "red");
        event["provider"] = json!("acme");
        event["model"] = json!("rocket");
        event["usage"] = json!({ "input": 1_000_000 });
        assert_eq!(process.send(&[event])["accepted"], 1);
        let rows = process.json("/api/v1/requests?sort=time&limit=1");
        rows["items"][0]["cost_usd"].clone()
    };
    let process = Process::start(dir.path(), &more);
    assert_eq!(costs(&process, "a"), "7");
    let refused = &process.json("/readyz")["prices"]["refused"];
    let why = refused.as_str().unwrap();
    assert!(why.contains("acme.toml"), "{why}");
    let metric = "tollmesh_price_reload_successful 0";
    assert_eq!(
        process.metrics("tollmesh_price_reload_successful"),
        [metric]
    );
    assert!(process.stop().success());

    // A folder that is new, as in a pod that has just been made: the shipped tables alone.
    let new = tempfile::tempdir().unwrap();
    let process = Process::start(new.path(), &more);
    assert_eq!(costs(&process, "b"), json!(null));
    std::fs::write(&file, table(3)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !process.json("/readyz")["prices"]["refused"].is_null() {
        assert!(
            Instant::now() < deadline,
            "the repaired file is never taken"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(costs(&process, "c"), "3");
}

#[test]
fn a_start_with_bad_budgets_takes_those_that_were_good_last() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("budgets.toml");
    let good = "[[budget]]\nname = \"all\"\nlimit = \"5 USD\"\nwindow = \"day\"\n";
    std::fs::write(&file, good).unwrap();
    let more = format!("budgets = {file:?}");
    let names = |process: &Process| {
        let budgets = process.json("/api/v1/budgets");
        let names = budgets["items"].as_array().unwrap().iter();
        names.map(|item| item["budget"].clone()).collect::<Vec<_>>()
    };
    let process = Process::start(dir.path(), &more);
    assert_eq!(names(&process), ["all"]);
    assert!(process.stop().success());

    std::fs::write(&file, good.replace("5 USD", "much")).unwrap();
    let process = Process::start(dir.path(), &more);
    assert_eq!(names(&process), ["all"]);
    let refused = &process.json("/readyz")["budgets"]["refused"];
    let why = refused.as_str().unwrap();
    assert!(
        why.contains("budgets.toml") && why.contains("limit"),
        "{why}"
    );
    let metric = "tollmesh_budget_reload_successful 0";
    assert_eq!(
        process.metrics("tollmesh_budget_reload_successful"),
        [metric]
    );
    assert!(process.stop().success());

    // Nothing was kept in a folder that is new: calls are metered, and no budget holds them.
    let new = tempfile::tempdir().unwrap();
    let process = Process::start(new.path(), &more);
    assert_eq!(process.send(&[event("a", "red")])["accepted"], 1);
    assert_eq!(names(&process), [json!(null); 0]);
}
