//! Envoy stopped, drained and replaced while streams are open: what has ended is in the ledger, what
//! was cut is there as cut, and the access log has what was still in Envoy's memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tollmesh_tests::books::nth;
use tollmesh_tests::dialect::Dialect;
use tollmesh_tests::envoy::HotRestart;
use tollmesh_tests::fact::eventually;
use tollmesh_tests::ledger::Row;
use tollmesh_tests::{Answer, Books, Ended, Mesh, http, ports, usage};

/// Streams that are open when Envoy is asked to go.
const N_STREAMS: usize = 4;
/// Envoy takes a moment to close what is open.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// What the provider has said in a stream that is cut: the input, and some of the output.
const INPUT_TOKENS: u64 = 900;

/// Opens streams that the provider leaves open; gives the answers once something has ended them.
fn with_open_streams(mesh: &mut Mesh, n: usize, meanwhile: impl FnOnce(&mut Mesh)) -> Vec<Answer> {
    let whole =
        Dialect::Anthropic.streamed(&usage("claude-sonnet-4-5").input(INPUT_TOKENS).output(40));
    let half = whole.reply.body.n_bytes() as usize / 2;
    let exchange = whole.silent_after(half);
    let client = mesh.client("red");
    let n_before = mesh.provider().n_requests();
    std::thread::scope(|scope| {
        let streams: Vec<_> = (0..n)
            .map(|_| scope.spawn(|| client.call(&exchange)))
            .collect();
        eventually("all streams are open", || {
            match mesh.provider().n_requests() - n_before {
                n_open if n_open == n as u64 => Ok(()),
                n_open => Err(format!("{n_open} are")),
            }
        });
        // The first half has passed Envoy when another call, begun later, is through.
        client.call(&nth(1).0);
        meanwhile(mesh);
        let ended = streams.into_iter().map(|stream| stream.join());
        ended.map(|answer| answer.expect("an answer")).collect()
    })
}

/// Asserts that a stream which was cut is one row that says so, with what had been reported.
#[track_caller]
fn is_cut(row: &Row) {
    assert_eq!(row.text("outcome"), Some("aborted"), "{}", row.0);
    assert_eq!(row.bucket("input"), Some(INPUT_TOKENS), "{}", row.0);
    assert_eq!(row.text("usage_source"), Some("estimated"), "{}", row.0);
}

/// Sets a flag when it goes.
struct SetOnDrop<'f>(&'f AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Waits for so many calls more.
#[track_caller]
fn goes_on(books: &Books, n_calls: usize) {
    let was = books.len();
    eventually("calls go on", || match books.len() - was {
        n if n >= n_calls => Ok(()),
        n => Err(format!("{n} of {n_calls}")),
    });
}

#[test]
fn at_sigterm_what_is_in_memory_is_in_the_access_log() {
    let Some(mut mesh) = Mesh::start() else {
        return;
    };
    let books = Books::default();
    books.call(&mesh, 20);
    let streams = with_open_streams(&mut mesh, N_STREAMS, |mesh| {
        // Of these the last are in Envoy's memory only.
        books.call(mesh, 5);
        let ended = mesh.envoy_mut().process_mut().terminate(STOP_PATIENCE);
        assert!(ended.expect("it ends").success());
    });
    assert!(streams.iter().all(|answer| answer.ended != Ended::Whole));
    let n_calls = 20 + 5 + N_STREAMS + 1;
    mesh.import_access_log(n_calls);
    let answers: Vec<&Answer> = streams.iter().collect();
    mesh.ledger().rows_of(&answers).iter().for_each(is_cut);
    assert_eq!(books.n_missing_beside(&mesh, N_STREAMS + 1), 0);
    // Once more adds nothing.
    mesh.import_access_log(n_calls);
    assert_eq!(mesh.ledger().spend().expect("an answer").0, n_calls as u64);
}

#[test]
fn in_kubernetes_order_nothing_needs_the_access_log() {
    let Some(mut mesh) = Mesh::start() else {
        return;
    };
    let books = Books::default();
    // The app goes first. Its last calls have ended when Envoy is told to drain.
    books.call(&mesh, 40);
    let drain = http::send(
        mesh.envoy().admin(),
        "POST",
        "/drain_listeners?graceful",
        &[],
        Default::default(),
    );
    let reply = mesh.runtime().block_on(drain).expect("an answer");
    assert_eq!(reply.status, 200);
    // While it drains it ticks; Istio's agent gives it five seconds, here the fact is waited for.
    eventually("the last batch is sent", || {
        match mesh.counted("events_sent") {
            40 => Ok(()),
            n => Err(format!("{n} events sent")),
        }
    });
    mesh.envoy_mut().process_mut().kill();
    // The sidecar that was started first is stopped last.
    mesh.aggregator().stop().expect("it ends with exit code 0");
    mesh.aggregator().restart().expect("it starts again");
    books.are_restored_in(&mesh);
}

#[test]
fn told_to_stop_at_once_with_its_filters_the_aggregator_takes_what_still_comes() {
    let Some(mut mesh) = Mesh::start() else {
        return;
    };
    let books = Books::default();
    books.call(&mesh, 10);
    // Without an order of termination all containers get SIGTERM together, and calls go on.
    let client = mesh.client("red");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let over = SetOnDrop(&is_over);
        let (books, is_over) = (&books, &is_over);
        scope.spawn(move || {
            while !is_over.load(Ordering::Acquire) {
                books.call_from(&client);
            }
        });
        goes_on(books, 20);
        let aggregator = mesh.aggregator();
        let process = aggregator.process().expect("it runs");
        process.tell_to_end().expect("it is told");
        goes_on(books, 100);
        drop(over);
    });
    eventually("the last batch is sent", || {
        match mesh.counted("events_sent") {
            n if n == books.len() as u64 => Ok(()),
            n => Err(format!("{n} events sent of {}", books.len())),
        }
    });
    mesh.aggregator().stop().expect("it ends with exit code 0");
    mesh.envoy_mut().process_mut().kill();
    mesh.aggregator().restart().expect("it starts again");
    books.are_restored_in(&mesh);
}

#[test]
fn a_hot_restart_loses_no_call_and_counts_none_twice() {
    let place = HotRestart {
        base_id: u32::from(ports::free().port()),
        epoch: 0,
        drain_seconds: 1,
        parent_shutdown_seconds: 2,
    };
    let Some(mut mesh) = Mesh::built().hot_restarts(place).start() else {
        return;
    };
    let books = Books::default();
    books.call(&mesh, 20);
    let mut parent = None;
    let streams = with_open_streams(&mut mesh, N_STREAMS, |mesh| {
        let client = mesh.client("red");
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // However this ends, the caller ends too.
            let over = SetOnDrop(&is_over);
            let (books, is_over) = (&books, &is_over);
            scope.spawn(move || {
                while !is_over.load(Ordering::Acquire) {
                    books.call_from(&client);
                }
            });
            let successor = mesh.envoy().start_successor().expect("it starts");
            let mut was = std::mem::replace(mesh.envoy_mut(), successor);
            eventually("the parent ends", || match was.process_mut().ended() {
                Some(status) if status.success() => Ok(()),
                other => Err(format!("{other:?}")),
            });
            parent = Some(was);
            goes_on(books, 20);
            drop(over);
        });
    });
    let n_calls = books.len() + N_STREAMS + 1;
    mesh.import_access_log(n_calls);
    let answers: Vec<&Answer> = streams.iter().collect();
    mesh.ledger().rows_of(&answers).iter().for_each(is_cut);
    assert_eq!(books.n_missing_beside(&mesh, N_STREAMS + 1), 0);
    mesh.has_not_trapped();
}
