//! A ledger whose files are moved, deleted or replaced while it is written: what was acknowledged is
//! found again, and somebody hears of it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tollmesh_aggregator::ledger::budgets::{Known, Spend};
use tollmesh_aggregator::ledger::query::SpendQuery;
use tollmesh_aggregator::ledger::recovered::TakenIn;
use tollmesh_aggregator::ledger::{
    AppendError, CallOutcome, Charger, Charges, CostRecord, Entry, Increments, Ledger, LedgerError,
    LedgerOptions, Meter, Missed, Occasion, Subject,
};
use tollmesh_aggregator::money::PicoUsd;
use tollmesh_usage::{Bucket, Usage};
use tollmesh_wire::{Event, Timestamp};

/// 2026-11-01T00:00:00Z.
const START_MS: i64 = 1_793_491_200_000;

/// Counts events.
struct Counting;

impl Meter for Counting {
    fn measure(&mut self, _: &Entry, _: Occasion<'_>, increments: &mut Increments) {
        increments.add("requests", "", 1);
    }
}

fn calls(ids: std::ops::Range<i64>) -> Vec<Entry> {
    let call = |n: i64| Entry {
        event: Event {
            event_id: format!("{n:016x}"),
            time: Timestamp::from_unix_ms(START_MS + n),
            provider: "openai".into(),
            model: Some("gpt-5".into()),
            usage: Usage::new().with(Bucket::Input, 1),
            usage_source: "reported".into(),
            billable: true,
            ..Event::default()
        },
        cost: CostRecord {
            total: Some(PicoUsd::from_pico(1)),
            ..CostRecord::free(Arc::from("digest"))
        },
    };
    ids.map(call).collect()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future)
}

fn open(dir: &Path) -> Ledger {
    Ledger::open(LedgerOptions::new(dir).meter(Counting)).unwrap()
}

/// As a filter does: sent until it is acknowledged.
fn append(ledger: &Ledger, ids: std::ops::Range<i64>) {
    eventually("they are acknowledged", || {
        run(ledger.append(calls(ids.clone()), vec![])).is_ok()
    });
}

fn eventually(fact: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {fact}");
        std::thread::yield_now();
    }
}

/// What a process would find that starts when this one was killed.
fn rows_after_a_kill(dir: &Path) -> u64 {
    let copies = tempfile::tempdir().unwrap();
    for name in ["ledger.db", "ledger.db-wal"] {
        let real = fs::canonicalize(dir.join("ledger.db")).unwrap();
        let from = real.with_file_name(name);
        if from.exists() {
            fs::copy(from, copies.path().join(name)).unwrap();
        }
    }
    rows(copies.path())
}

fn rows(dir: &Path) -> u64 {
    let ledger = open(dir);
    let rows = ledger.health().rows;
    let spend = ledger.reader().spend(&SpendQuery::default()).unwrap();
    assert_eq!(spend.iter().map(|row| row.requests).sum::<u64>(), rows);
    run(ledger.close());
    rows
}

fn counted(ledger: &Ledger) -> i128 {
    ledger.totals(|totals| totals.counter("requests").map(|(_, n)| n).sum())
}

/// What it is called, and how it is made in the state directory.
type Mistake = (&'static str, fn(&Path));

/// What an operator, or a script of one, does by mistake.
const MISTAKES: [Mistake; 7] = [
    ("rm ledger.db", |dir| remove(dir, "ledger.db")),
    ("mv ledger.db", |dir| {
        fs::rename(dir.join("ledger.db"), dir.join("away.db")).unwrap();
    }),
    ("rm ledger.db-wal", |dir| remove(dir, "ledger.db-wal")),
    ("rm ledger.db-shm", |dir| remove(dir, "ledger.db-shm")),
    ("another log", |dir| {
        remove(dir, "ledger.db-wal");
        fs::write(dir.join("ledger.db-wal"), "another's").unwrap();
    }),
    ("rm -rf", |dir| fs::remove_dir_all(dir).unwrap()),
    ("mv ledger.db, and a link to it", |dir| {
        fs::create_dir(dir.join("big")).unwrap();
        fs::rename(dir.join("ledger.db"), dir.join("big/ledger.db")).unwrap();
        symlink("big/ledger.db", dir.join("ledger.db")).unwrap();
    }),
];

fn remove(dir: &Path, name: &str) {
    fs::remove_file(dir.join(name)).unwrap();
}

#[test]
fn what_was_acknowledged_is_found_again_under_load() {
    for (mistake, make) in MISTAKES {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let ledger = open(&state);
        append(&ledger, 0..10);
        let before = ledger.reader().spend(&SpendQuery::default()).unwrap();
        make(&state);
        append(&ledger, 10..20);
        assert_eq!(rows_after_a_kill(&state), 20, "{mistake}");
        append(&ledger, 0..25);
        assert_eq!(rows_after_a_kill(&state), 25, "{mistake}");
        let health = ledger.health();
        assert_eq!((health.rows, health.moved), (25, 1), "{mistake}");
        assert_eq!((health.set_aside, counted(&ledger)), (0, 25), "{mistake}");
        let after = ledger.reader().spend(&SpendQuery::default()).unwrap();
        assert_eq!(
            (before[0].requests, after[0].requests),
            (10, 25),
            "{mistake}"
        );
        run(ledger.close());
        assert_eq!(rows(&state), 25, "{mistake}");
    }
}

#[test]
fn an_idle_ledger_notices_by_itself() {
    for (mistake, make) in MISTAKES {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let ledger = open(&state);
        append(&ledger, 0..10);
        make(&state);
        eventually(mistake, || {
            let health = ledger.health();
            health.moved == 1 && health.failing.is_none()
        });
        assert_eq!(rows_after_a_kill(&state), 10, "{mistake}");
        run(ledger.close());
    }
}

#[test]
fn a_ledger_that_is_stopped_at_once_is_whole() {
    for (mistake, make) in MISTAKES {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let ledger = open(&state);
        append(&ledger, 0..10);
        make(&state);
        run(ledger.close());
        assert_eq!(rows(&state), 10, "{mistake}");
    }
}

#[test]
fn another_file_is_gone_on_with_and_what_was_recorded_stands_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let ledger = open(&state);
    append(&ledger, 0..10);
    let backup = dir.path().join("backup.db");
    ledger.reader().backup(&backup, &mut |_| {}).unwrap();
    append(&ledger, 10..20);
    fs::rename(&backup, state.join("ledger.db")).unwrap();

    let refused = run(ledger.append(calls(20..30), vec![])).unwrap_err();
    let AppendError::Storage(error) = &refused else {
        panic!("{refused:?}");
    };
    let LedgerError::Moved { missed, .. } = &**error else {
        panic!("{error:?}");
    };
    assert_eq!(*missed, Missed::Replaced);
    assert!(ledger.health().failing.is_some());
    // Already, whatever becomes of the process now.
    let recovered = state.join("ledger.db.recovered-1");
    assert!(recovered.exists() && !state.join("ledger.db-wal").exists());

    append(&ledger, 20..30);
    assert_eq!(rows_after_a_kill(&state), 20);
    assert_eq!((ledger.health().moved, counted(&ledger)), (1, 30));
    // What that file lacks may be sent again.
    append(&ledger, 0..30);
    assert_eq!(rows_after_a_kill(&state), 30);
    run(ledger.close());

    fs::rename(&recovered, state.join("ledger.db")).unwrap();
    assert_eq!(rows(&state), 20);
}

fn label(event: &str, label: &str, ms: i64) -> CallOutcome {
    CallOutcome {
        subject: Subject::Event(event.into()),
        label: label.into(),
        told: Timestamp::from_unix_ms(ms),
    }
}

#[test]
fn what_was_recorded_in_a_replaced_ledger_is_taken_into_the_other_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let ledger = open(&state);
    append(&ledger, 0..10);
    let backup = dir.path().join("backup.db");
    ledger.reader().backup(&backup, &mut |_| {}).unwrap();
    append(&ledger, 10..500);
    let told = vec![label("a", "accepted", 2), label("b", "accepted", 2)];
    run(ledger.tell(told)).unwrap();
    fs::rename(&backup, state.join("ledger.db")).unwrap();
    append(&ledger, 495..510);
    let told = vec![label("a", "rejected", 3), label("b", "edited", 1)];
    run(ledger.tell(told)).unwrap();
    let counted_before = counted(&ledger);

    // A copy that was taken in half when the process was killed is one of which the ledger has half.
    let taken = run(ledger.take_in()).unwrap();
    let expected = TakenIn {
        copies: 1,
        calls: 485,
        outcomes: 1,
        ..TakenIn::default()
    };
    assert_eq!(taken, expected);
    assert_eq!(run(ledger.take_in()).unwrap(), TakenIn::default());
    assert_eq!(rows_after_a_kill(&state), 510);
    // They were counted when they came.
    assert_eq!(
        (ledger.health().rows, counted(&ledger)),
        (510, counted_before)
    );
    let names = fs::read_dir(&state).unwrap();
    let names = names.map(|file| file.unwrap().file_name().into_string().unwrap());
    assert!(names.into_iter().all(|name| !name.contains("recovered")));
    run(ledger.close());
}

/// Counts what it is to charge.
struct Charging(Arc<AtomicU64>);

impl Charger for Charging {
    fn charge(&mut self, _: &Entry, _: Occasion<'_>, _: &mut Charges) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn committed(&mut self, _: Charges) {}

    fn known(&mut self) -> Known {
        Known::default()
    }

    fn past(&mut self, _: &str, _: &Entry) -> i128 {
        0
    }

    fn counts_after_ms(&self) -> i64 {
        i64::MAX
    }

    fn opened(&mut self, _: Vec<Spend>) {}

    fn adopted(&mut self) {}
}

#[test]
fn a_copy_is_charged_where_its_process_ended_before_it_went_on() {
    for goes_on in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let ledger = open(dir.path());
        append(&ledger, 0..10);
        let backup = dir.path().join("backup.db");
        ledger.reader().backup(&backup, &mut |_| {}).unwrap();
        append(&ledger, 10..20);
        fs::rename(&backup, dir.path().join("ledger.db")).unwrap();
        if goes_on {
            append(&ledger, 20..21);
        }
        run(ledger.close());
        assert!(dir.path().join("ledger.db.recovered-1").exists());

        let charged = Arc::new(AtomicU64::new(0));
        let options = LedgerOptions::new(dir.path()).meter(Counting);
        let charger = Charging(Arc::clone(&charged));
        let ledger = Ledger::open(options.charger(charger)).unwrap();
        let before = counted(&ledger);
        assert_eq!(before, if goes_on { 21 } else { 10 });
        let taken = run(ledger.take_in()).unwrap();
        assert_eq!((taken.copies, taken.calls), (1, 10), "{goes_on}");
        let n = if goes_on { 0 } else { 10 };
        let charged = charged.load(Ordering::Relaxed);
        assert_eq!((counted(&ledger) - before, charged), (n.into(), n));
        run(ledger.close());
    }
}

#[test]
fn what_a_copy_brought_is_not_charged_again_in_the_next_file() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    append(&ledger, 0..10);
    let backup = |name: &str, ledger: &Ledger| {
        let path = dir.path().join(name);
        ledger.reader().backup(&path, &mut |_| {}).unwrap();
        path
    };
    let (first, second) = (backup("first.db", &ledger), backup("second.db", &ledger));
    append(&ledger, 10..20);
    fs::rename(&first, dir.path().join("ledger.db")).unwrap();
    append(&ledger, 20..30);
    run(ledger.close());

    // Another process knows of the first copy from the file that is replaced then.
    let ledger = open(dir.path());
    fs::rename(&second, dir.path().join("ledger.db")).unwrap();
    append(&ledger, 30..40);
    assert_eq!(counted(&ledger), 40);
    let taken = run(ledger.take_in()).unwrap();
    assert_eq!((taken.copies, taken.calls), (2, 20));
    assert_eq!((ledger.health().rows, counted(&ledger)), (40, 40));
    run(ledger.close());
}

#[test]
fn half_a_copy_goes_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["ledger.db.recovered-3.partial", "ledger.db.partial"] {
        fs::write(dir.path().join(name), "half").unwrap();
    }
    run(open(dir.path()).close());
    assert!(!dir.path().join("ledger.db.recovered-3.partial").exists());
    // Whosever that is.
    assert!(dir.path().join("ledger.db.partial").exists());
}

#[test]
fn a_copy_that_cannot_be_read_is_a_damaged_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    append(&ledger, 0..10);
    fs::write(dir.path().join("ledger.db.recovered-7"), [b'x'; 5_000]).unwrap();
    let taken = run(ledger.take_in()).unwrap();
    assert_eq!((taken.copies, taken.damaged), (0, 1));
    assert!(dir.path().join("ledger.db.damaged-1").exists());
    assert!(!dir.path().join("ledger.db.recovered-7").exists());
    assert_eq!(ledger.health().rows, 10);
    run(ledger.close());
}

#[test]
fn a_copy_that_fails_holds_up_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    append(&ledger, 0..10);
    let second = dir.path().join("ledger.db.recovered-2");
    ledger.reader().backup(&second, &mut |_| {}).unwrap();
    let first = dir.path().join("ledger.db.recovered-1");
    fs::create_dir(&first).unwrap();
    let taken = run(ledger.take_in()).unwrap();
    assert_eq!((taken.copies, taken.waiting, taken.damaged), (1, 1, 0));
    assert!(first.exists() && !second.exists());
    run(ledger.close());
}

#[test]
fn a_deleted_lock_is_taken_anew_and_another_process_is_made_room_for() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    append(&ledger, 0..10);
    remove(dir.path(), "ledger.lock");
    append(&ledger, 10..11);
    let second = Ledger::open(LedgerOptions::new(dir.path()));
    assert!(matches!(second, Err(LedgerError::Locked { .. })));

    // Another takes it first.
    remove(dir.path(), "ledger.lock");
    let lock = fs::File::create(dir.path().join("ledger.lock")).unwrap();
    lock.lock().unwrap();
    let refused = run(ledger.append(calls(11..12), vec![])).unwrap_err();
    let AppendError::Storage(error) = &refused else {
        panic!("{refused:?}");
    };
    assert!(matches!(**error, LedgerError::Locked { .. }), "{error:?}");
    assert_eq!(rows_after_a_kill(dir.path()), 11);
    drop(lock);
    append(&ledger, 11..12);
    assert_eq!(rows_after_a_kill(dir.path()), 12);
    run(ledger.close());
}

#[test]
fn what_cannot_be_saved_stays_open_until_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let ledger = open(&state);
    append(&ledger, 0..10);
    fs::remove_dir_all(&state).unwrap();
    fs::write(&state, "in the way").unwrap();
    let refused = run(ledger.append(calls(10..20), vec![]));
    assert!(
        matches!(refused, Err(AppendError::Storage(_))),
        "{refused:?}"
    );
    fs::remove_file(&state).unwrap();
    append(&ledger, 10..20);
    assert_eq!(rows_after_a_kill(&state), 20);
    run(ledger.close());
}

/// What is copied over a ledger, made of the folder of another of the calls 20..30: how many rows are
/// gone on with, and where the log is then that was nobody else's.
type Copied = (&'static str, fn(&Path) -> Vec<u8>, u64, &'static str);

const COPIED: [Copied; 4] = [
    (
        "another ledger",
        |dir| fs::read(dir.join("ledger.db")).unwrap(),
        10,
        "ledger.db-wal.replaced-1",
    ),
    (
        "half of one",
        |dir| {
            let content = fs::read(dir.join("ledger.db")).unwrap();
            content[..content.len() / 2].to_vec()
        },
        0,
        "ledger.db-wal.replaced-1",
    ),
    (
        "no ledger",
        |_| b"hello".to_vec(),
        0,
        "ledger.db.damaged-1-wal",
    ),
    ("nothing", |_| Vec::new(), 0, "ledger.db.damaged-1-wal"),
];

#[test]
fn a_ledger_that_is_overwritten_in_place_goes_on_as_what_it_is_then() {
    for (copied, make, kept, log) in COPIED {
        let dir = tempfile::tempdir().unwrap();
        let other = dir.path().join("other");
        let ledger = open(&other);
        append(&ledger, 20..30);
        run(ledger.close());
        let content = make(&other);

        let state = dir.path().join("state");
        let ledger = open(&state);
        append(&ledger, 0..10);
        let file = state.join("ledger.db");
        // As `cp` does, in the same file; while it is at it, nothing is taken.
        fs::write(&file, &content[..content.len().min(100)]).unwrap();
        let refused = run(ledger.append(calls(10..20), vec![])).unwrap_err();
        let AppendError::Storage(error) = &refused else {
            panic!("{copied}: {refused:?}");
        };
        let is_told = matches!(
            **error,
            LedgerError::Moved {
                missed: Missed::Overwritten,
                ..
            }
        );
        assert!(is_told, "{copied}: {error:?}");
        assert!(ledger.reader().spend(&SpendQuery::default()).is_err());
        fs::write(&file, &content).unwrap();

        append(&ledger, 10..20);
        assert_eq!(rows_after_a_kill(&state), kept + 10, "{copied}");
        append(&ledger, 0..20);
        assert_eq!(rows_after_a_kill(&state), kept + 20, "{copied}");
        let spend = ledger.reader().spend(&SpendQuery::default()).unwrap();
        assert_eq!(spend[0].requests, kept + 20, "{copied}");
        let health = ledger.health();
        assert_eq!(health.set_aside, u64::from(kept == 0), "{copied}");
        assert_eq!(
            health.moved,
            u64::from(log.contains("replaced")),
            "{copied}"
        );
        assert!(fs::metadata(state.join(log)).unwrap().len() > 0, "{copied}");
        assert!(counted(&ledger) >= 20, "{copied}");
        run(ledger.close());
        assert_eq!(rows(&state), kept + 20, "{copied}");
    }
}

#[test]
fn a_ledger_that_is_stopped_when_it_was_overwritten_leaves_the_other_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let other = dir.path().join("other");
    let ledger = open(&other);
    append(&ledger, 20..30);
    run(ledger.close());
    let state = dir.path().join("state");
    let ledger = open(&state);
    append(&ledger, 0..10);
    let content = fs::read(other.join("ledger.db")).unwrap();
    fs::write(state.join("ledger.db"), &content).unwrap();
    run(ledger.close());
    assert!(fs::read(state.join("ledger.db")).unwrap() == content);
    assert!(state.join("ledger.db-wal.replaced-1").exists());
    assert_eq!(rows(&state), 10);
}

#[test]
fn a_ledger_whose_time_is_set_or_whose_own_bytes_come_back_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    append(&ledger, 0..10);
    let file = dir.path().join("ledger.db");
    let opened = fs::File::options().write(true).open(&file).unwrap();
    let times = fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH);
    opened.set_times(times).unwrap();
    run(ledger.append(calls(10..20), vec![])).unwrap();
    let content = fs::read(&file).unwrap();
    fs::write(&file, &content).unwrap();
    run(ledger.append(calls(20..30), vec![])).unwrap();
    let health = ledger.health();
    assert_eq!((health.rows, health.moved, health.set_aside), (30, 0, 0));
    run(ledger.close());
    assert_eq!(rows(dir.path()), 30);
}
