//! The aggregator gone, slow or killed: traffic goes on, and the books are right afterwards.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tollmesh_tests::books::nth;
use tollmesh_tests::chaos::Fault;
use tollmesh_tests::fact::{self, eventually};
use tollmesh_tests::{Books, Ended, Mesh};

/// Calls whose events wait when the configuration is replaced.
const N_WAITING: usize = 300;

/// Kills in the test of kills.
const N_KILLS: u64 = 50;
/// Calls for each kill, at most: of all of them together, a kilobyte each, no filter's queue is full.
const CALLS_PER_KILL_MAX: u64 = 200;
/// What a hundred calls may leave behind in Envoy: its allocator keeps pages of them.
const ENVOY_GROWS_BYTES_MAX: u64 = 24 << 20;

#[test]
fn killed_under_load_loses_nothing_and_counts_nothing_twice() {
    let Some(mesh) = Mesh::start() else { return };
    let is_over = AtomicBool::new(false);
    let n_kills = AtomicU64::new(0);
    let books = Books::default();
    let is_far_ahead = || {
        let n_max = (n_kills.load(Ordering::Acquire) + 1) * CALLS_PER_KILL_MAX;
        books.len() as u64 >= n_max && !is_over.load(Ordering::Acquire)
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let client = mesh.client("red");
                while !is_over.load(Ordering::Acquire) {
                    books.call_from(&client);
                    // Where an aggregator is slow to start, what queues up must not be too much.
                    eventually("the next kill", || match is_far_ahead() {
                        true => Err(format!("{} calls", books.len())),
                        false => Ok(()),
                    });
                }
            });
        }
        // However this ends, the callers end too.
        let _over = SetOnDrop(&is_over);
        for kill in 1..=N_KILLS {
            // Not before the ledger has grown since the last kill: then batches are on their way.
            eventually("rows come in", || {
                let spend = mesh.ledger().spend();
                let (n_rows, _) = spend.map_err(|error| format!("{error:#}"))?;
                match n_rows >= kill * 20 {
                    true => Ok(()),
                    false => Err(format!("{n_rows} rows")),
                }
            });
            mesh.aggregator().restart().expect("it starts again");
            n_kills.store(kill, Ordering::Release);
        }
    });
    books.are_kept_by(&mesh);
    let metrics = mesh.aggregator().metrics().expect("a scrape");
    let requests = metrics.sum("tollmesh_requests_total", &[]);
    assert_eq!(
        requests,
        books.len() as f64,
        "counters went on where they had been"
    );
}

/// Sets a flag when it goes.
struct SetOnDrop<'f>(&'f AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn away_for_a_while_is_made_good() {
    let Some(mesh) = Mesh::start() else { return };
    let books = Books::default();
    books.call(&mesh, 10);
    mesh.aggregator().kill();
    let back = Instant::now() + fact::absence();
    books.call(&mesh, 190);
    while Instant::now() < back {
        books.call(&mesh, 1);
    }
    mesh.aggregator().restart().expect("it starts again");
    books.are_kept_by(&mesh);
}

#[test]
fn away_for_longer_than_the_queue_holds_loses_what_is_counted_as_dropped() {
    // One worker has one queue, of 8 MiB; tags make events of 14 KiB.
    let Some(mesh) = Mesh::built().workers(1).start() else {
        return;
    };
    let fat = "é".repeat(128);
    let client = (0..50).fold(mesh.client("red"), |client, n| {
        client.tag(&format!("tag-{n}"), &fat)
    });
    let books = Books::default();
    mesh.aggregator().kill();
    while mesh.counted("events_dropped") < 20 {
        books.call_from(&client);
        assert!(books.len() < 5_000, "the queue has no end");
    }
    mesh.aggregator().restart().expect("it starts again");
    eventually("the queue is empty", || {
        let n_left = books.len() as u64 - mesh.counted("events_dropped");
        match mesh.counted("events_sent") {
            n if n == n_left => Ok(()),
            n => Err(format!("{n} sent of {n_left}")),
        }
    });
    let n_dropped = mesh.counted("events_dropped");
    assert_eq!(books.contain_what_is_kept_by(&mesh) as u64, n_dropped);
    let metrics = mesh.aggregator().metrics().expect("a scrape");
    let told = metrics.sum("tollmesh_events_dropped_total", &[]);
    assert_eq!(told, n_dropped as f64, "what the aggregator says was lost");
    // The other record has them all.
    mesh.import_access_log(books.len());
    books.are_restored_in(&mesh);
}

#[test]
fn answers_that_get_lost_do_not_make_rows_twice() {
    let Some(mesh) = Mesh::built().with_chaos().start() else {
        return;
    };
    mesh.chaos().now(Fault::LosesAnswers);
    let books = Books::default();
    books.call(&mesh, 20);
    // That a batch is sent again is not enough: one whose time ran out may not have come the first time.
    eventually("events come twice", || {
        let metrics = mesh.aggregator().metrics();
        let metrics = metrics.map_err(|error| error.to_string())?;
        match metrics.sum("tollmesh_events_duplicate_total", &[]) {
            n if n >= 1.0 => Ok(()),
            _ => Err(format!(
                "{} batches went again",
                mesh.counted("batches_resent")
            )),
        }
    });
    mesh.chaos().now(Fault::None);
    books.are_kept_by(&mesh);
}

#[test]
fn a_slow_or_dead_aggregator_slows_no_call() {
    let Some(mesh) = Mesh::built().with_chaos().start() else {
        return;
    };
    let books = Books::default();
    books.call(&mesh, 10);
    let resident = || mesh.envoy().process().resident_bytes().expect("it runs");
    let before = resident();
    for fault in [
        Fault::Slow(Duration::from_secs(5)),
        Fault::HalfOpen,
        Fault::Refuses,
    ] {
        mesh.chaos().now(fault);
        for _ in 0..30 {
            let started = Instant::now();
            books.call(&mesh, 1);
            let took = started.elapsed();
            assert!(
                took < Duration::from_secs(1),
                "{fault:?}: a call took {took:?}"
            );
        }
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < ENVOY_GROWS_BYTES_MAX, "Envoy grew by {grown} bytes");
    mesh.chaos().now(Fault::None);
    books.are_kept_by(&mesh);
}

#[test]
fn stopping_is_clean_and_keeps_everything() {
    let Some(mesh) = Mesh::start() else { return };
    let books = Books::default();
    books.call(&mesh, 25);
    mesh.aggregator().stop().expect("exit code 0");
    mesh.aggregator().restart().expect("it starts again");
    books.are_kept_by(&mesh);
}

#[test]
fn over_a_unix_socket_it_is_the_same() {
    let Some(mesh) = Mesh::built().on_unix_socket().start() else {
        return;
    };
    let books = Books::default();
    books.call(&mesh, 5);
    mesh.aggregator()
        .restart()
        .expect("it starts again on its old socket");
    books.call(&mesh, 5);
    books.are_kept_by(&mesh);
}

#[test]
fn what_was_in_flight_at_the_kill_is_metered_too() {
    let Some(mesh) = Mesh::start() else { return };
    let (exchange, used) = nth(1);
    let answer = mesh.client("red").call(&exchange.chunks_of(1));
    assert_eq!(answer.ended, Ended::Whole);
    // No tick has passed for certain: the event may be queued, on its way, or in the ledger.
    mesh.aggregator().restart().expect("it starts again");
    let books = Books::default();
    books.enter(answer, used);
    books.are_kept_by(&mesh);
}

/// Waits until nothing of a configuration that was replaced is there any more.
fn replaced(mesh: &Mesh, region: &str) {
    mesh.replug(|mut plugin| {
        plugin["tags"]["defaults"] = serde_json::json!({ "region": region });
        plugin
    });
    eventually("the old filter chains are gone", || {
        let n = mesh.envoy().stats_with("total_filter_chains_draining");
        let is_gone = !n.is_empty() && n.iter().all(|(_, n)| *n == 0);
        is_gone.then_some(()).ok_or(format!("{n:?}"))
    });
}

/// Envoy knows what has to go by its configuration alone, and forgets the first of two that are equal.
#[test]
fn what_waits_outlives_changes_of_the_configuration_back_and_forth() {
    let built = Mesh::built().replugged().drains_for(1);
    let Some(mesh) = built.start() else { return };
    let books = Books::default();
    replaced(&mesh, "a");
    mesh.aggregator().kill();
    for region in ["b", "a", "b", "a"] {
        books.call(&mesh, N_WAITING);
        replaced(&mesh, region);
    }
    books.call(&mesh, 5);
    mesh.aggregator().restart().expect("it starts again");
    books.are_kept_by(&mesh);
    mesh.has_not_trapped();
}

/// As an upgrade does that rolls the aggregator and the proxies' configuration in one go.
#[test]
fn what_waits_for_the_aggregator_outlives_a_change_of_the_configuration() {
    let built = Mesh::built().replugged().drains_for(1);
    let Some(mesh) = built.start() else { return };
    let books = Books::default();
    mesh.aggregator().kill();
    books.call(&mesh, N_WAITING);
    mesh.replug(|mut plugin| {
        plugin["tags"]["defaults"] = serde_json::json!({ "region": "eu" });
        plugin
    });
    let n_tries = eventually("the old filter chains are gone", || {
        let n = mesh.envoy().stats_with("total_filter_chains_draining");
        match n.iter().all(|(_, n)| *n == 0) {
            true if !n.is_empty() => Ok(mesh.counted("batches_resent")),
            _ => Err(format!("{n:?}")),
        }
    });
    // More tries than one that hurries would have.
    eventually("who has to go keeps trying", || {
        match mesh.counted("batches_resent") - n_tries {
            n if n >= 4 => Ok(()),
            n => Err(format!("{n} tries")),
        }
    });
    books.call(&mesh, 5);
    mesh.aggregator().restart().expect("it starts again");
    books.are_kept_by(&mesh);
    mesh.has_not_trapped();
}
