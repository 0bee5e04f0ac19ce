//! The aggregator gone, slow or killed: traffic goes on, and the books are right afterwards.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tollmesh_tests::chaos::Fault;
use tollmesh_tests::dialect::Dialect;
use tollmesh_tests::fact::eventually;
use tollmesh_tests::{Answer, Ended, Exchange, Mesh, Usage, usage};

/// Kills in the test of kills.
const N_KILLS: usize = 20;

/// The n-th call: each one uses something else, so that one row cannot pass for another.
fn nth(n: u64) -> (Exchange, Usage) {
    let used = usage("claude-sonnet-4-5").input(100 + n).output(1 + n % 50);
    let exchange = if n.is_multiple_of(2) {
        Dialect::Anthropic.plain(&used)
    } else {
        Dialect::Anthropic.streamed(&used)
    };
    (exchange, used)
}

#[track_caller]
fn call(mesh: &Mesh, n: u64) -> (Answer, Usage) {
    let (exchange, used) = nth(n);
    let answer = mesh.client("red").call(&exchange);
    answer.is_what_was_sent(&exchange);
    (answer, used)
}

#[track_caller]
fn books_are_right(mesh: &Mesh, calls: &[(Answer, Usage)]) {
    let want: Vec<(&Answer, Usage)> = calls
        .iter()
        .map(|(answer, used)| (answer, used.clone()))
        .collect();
    mesh.ledger().settles_to(&want);
    let rows = mesh.ledger().rows().expect("the ledger answers");
    assert_eq!(rows.len(), calls.len(), "rows beside those of the calls");
    assert_eq!(
        mesh.counted("events_dropped"),
        0,
        "the filter dropped events"
    );
}

#[test]
fn killed_under_load_loses_nothing_and_counts_nothing_twice() {
    let Some(mesh) = Mesh::start() else { return };
    let is_over = AtomicBool::new(false);
    let calls = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..2)
            .map(|caller| {
                let (mesh, is_over) = (&mesh, &is_over);
                scope.spawn(move || {
                    let mut calls = Vec::new();
                    let mut n = caller;
                    while !is_over.load(Ordering::Acquire) {
                        calls.push(call(mesh, n));
                        n += 2;
                    }
                    calls
                })
            })
            .collect();
        for kill in 1..=N_KILLS {
            // Not before the ledger has grown since the last kill: then batches are on their way.
            eventually("rows come in", || {
                let rows = mesh.ledger().rows().map_err(|error| format!("{error:#}"))?;
                let n_wanted = kill * 40;
                if rows.len() >= n_wanted {
                    Ok(())
                } else {
                    Err(format!("{} rows", rows.len()))
                }
            });
            mesh.aggregator().restart().expect("it starts again");
        }
        is_over.store(true, Ordering::Release);
        callers
            .into_iter()
            .flat_map(|caller| caller.join().expect("calls pass"))
            .collect::<Vec<_>>()
    });
    books_are_right(&mesh, &calls);
    let n_input: u64 = calls.iter().map(|(_, used)| used.of("input")).sum();
    let metrics = mesh.aggregator().metrics().expect("a scrape");
    let input = metrics.sum("tollmesh_tokens_total", &["bucket=\"input\""]);
    assert_eq!(
        input, n_input as f64,
        "counters went on where they had been"
    );
}

#[test]
fn away_for_a_while_is_made_good() {
    let Some(mesh) = Mesh::start() else { return };
    let mut calls: Vec<_> = (0..10).map(|n| call(&mesh, n)).collect();
    mesh.aggregator().kill();
    calls.extend((10..200).map(|n| call(&mesh, n)));
    mesh.aggregator().restart().expect("it starts again");
    books_are_right(&mesh, &calls);
}

#[test]
fn answers_that_get_lost_do_not_make_rows_twice() {
    let Some(mesh) = Mesh::built().with_chaos().start() else {
        return;
    };
    mesh.chaos().now(Fault::LosesAnswers);
    let calls: Vec<_> = (0..20).map(|n| call(&mesh, n)).collect();
    eventually("batches are sent again", || {
        match mesh.counted("batches_resent") {
            0 => Err("none".to_string()),
            n => Ok(n),
        }
    });
    mesh.chaos().now(Fault::None);
    books_are_right(&mesh, &calls);
    let metrics = mesh.aggregator().metrics().expect("a scrape");
    assert!(
        metrics.sum("tollmesh_events_duplicate_total", &[]) >= 1.0,
        "nothing came twice"
    );
}

#[test]
fn a_slow_or_dead_aggregator_slows_no_call() {
    let Some(mesh) = Mesh::built().with_chaos().start() else {
        return;
    };
    let mut calls = vec![call(&mesh, 0)];
    for fault in [
        Fault::Slow(Duration::from_secs(3)),
        Fault::HalfOpen,
        Fault::Refuses,
    ] {
        mesh.chaos().now(fault);
        for _ in 0..30 {
            let started = Instant::now();
            calls.push(call(&mesh, calls.len() as u64));
            let took = started.elapsed();
            assert!(
                took < Duration::from_secs(1),
                "{fault:?}: a call took {took:?}"
            );
        }
    }
    mesh.chaos().now(Fault::None);
    books_are_right(&mesh, &calls);
}

#[test]
fn stopping_is_clean_and_keeps_everything() {
    let Some(mesh) = Mesh::start() else { return };
    let calls: Vec<_> = (0..25).map(|n| call(&mesh, n)).collect();
    mesh.aggregator().stop().expect("exit code 0");
    mesh.aggregator().restart().expect("it starts again");
    books_are_right(&mesh, &calls);
}

#[test]
fn over_a_unix_socket_it_is_the_same() {
    let Some(mesh) = Mesh::built().on_unix_socket().start() else {
        return;
    };
    let mut calls: Vec<_> = (0..5).map(|n| call(&mesh, n)).collect();
    mesh.aggregator()
        .restart()
        .expect("it starts again on its old socket");
    calls.extend((5..10).map(|n| call(&mesh, n)));
    books_are_right(&mesh, &calls);
}

#[test]
fn what_was_in_flight_at_the_kill_is_metered_too() {
    let Some(mesh) = Mesh::start() else { return };
    let (exchange, used) = nth(1);
    let answer = mesh.client("red").call(&exchange.chunks_of(1));
    assert_eq!(answer.ended, Ended::Whole);
    // No tick has passed for certain: the event may be queued, on its way, or in the ledger.
    mesh.aggregator().restart().expect("it starts again");
    books_are_right(&mesh, &[(answer, used)]);
}
