//! The ledger neither fills its volume nor empties itself: what goes when it is too large or too old,
//! what stays, and that nothing is counted twice for it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use tollmesh_aggregator::housekeeping::{
    CLOCK_DOUBTS_MAX, CLOCK_LEAP_MS, Keeper, PENDING_PERCENT, Retention,
};
use tollmesh_aggregator::ledger::outbox::Note;
use tollmesh_aggregator::ledger::query::{Dimension, Span, SpendQuery};
use tollmesh_aggregator::ledger::reduce::{OTHER, SUM_LINES_MAX, SUM_VALUES_MAX};
use tollmesh_aggregator::ledger::{
    Appended, CostRecord, Entry, Increments, Ledger, LedgerOptions, Meter, Occasion, Recorded,
    Refusal,
};
use tollmesh_aggregator::metrics::Metrics;
use tollmesh_aggregator::money::{PicoSum, PicoUsd};
use tollmesh_aggregator::otlp::Signal;
use tollmesh_usage::{Bucket, Usage};
use tollmesh_wire::{Event, Source, Timestamp};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// 2026-11-01T00:00:00Z.
const START_MS: i64 = 1_793_491_200_000;

const TEAMS: usize = 5;

fn at(ms: i64) -> Timestamp {
    Timestamp::from_unix_ms(START_MS + ms)
}

/// The call of that number, so many milliseconds after the start: its own session, one of the teams.
fn call(n: usize, ms: i64) -> Entry {
    let tags = [
        ("session", format!("session-{n:08}-of-nobody-else")),
        ("team", format!("team-{}", n % TEAMS)),
    ];
    let event = Event {
        event_id: format!("event-{n:08}"),
        request_id: Some(format!("request-{n:08}")),
        time: at(ms),
        duration_ms: 10,
        provider: "openai".into(),
        model: Some("gpt-5".into()),
        usage: Usage::new().with(Bucket::Input, 100),
        usage_source: "reported".into(),
        billable: true,
        tags: tags
            .into_iter()
            .map(|(tag, value)| (tag.to_owned(), value))
            .collect::<BTreeMap<_, _>>(),
        source: Source {
            namespace: Some("shop".into()),
            pod: Some(format!("pod-{}", n % 3)),
            ..Source::default()
        },
        attempts: 1,
        ..Event::default()
    };
    let cost = CostRecord {
        total: Some(PicoUsd::from_pico(1_000_000_007 + n as i64)),
        ..CostRecord::free(Arc::from("digest"))
    };
    Entry { event, cost }
}

fn open(dir: &Path) -> Ledger {
    Ledger::open(LedgerOptions::new(dir)).unwrap()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

fn append(ledger: &Ledger, entries: Vec<Entry>) -> Appended {
    block_on(ledger.append(entries, vec![])).unwrap()
}

/// So many calls in each of those hours, the first of which has that number.
fn fill(ledger: &Ledger, first: usize, hours: std::ops::Range<i64>, per_hour: usize) -> usize {
    let mut n = first;
    for hour in hours {
        let calls = (0..per_hour).map(|i| call(n + i, hour * HOUR_MS + i as i64));
        append(ledger, calls.collect());
        n += per_hour;
    }
    n
}

fn retention(days: u32, bytes_max: u64) -> Retention {
    Retention {
        days,
        bytes_max: (bytes_max > 0).then_some(bytes_max),
    }
}

fn keeper(ledger: &Ledger, retention: Retention) -> (Keeper, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new().unwrap());
    let keeper = Keeper::new(ledger.clone(), retention, Arc::clone(&metrics));
    (keeper, metrics)
}

fn look(keeper: &mut Keeper, ms: i64) {
    block_on(keeper.look_after(at(ms))).unwrap();
}

/// Looks as often as a clock is believed whatever the retention, and at the end.
fn live(keeper: &mut Keeper, span: Range<i64>) {
    for ms in span.clone().step_by(8 * HOUR_MS as usize) {
        look(keeper, ms);
    }
    look(keeper, span.end);
}

/// Calls and cost by a tag.
fn by(ledger: &Ledger, tag: &str) -> BTreeMap<String, (u64, PicoSum)> {
    let query = SpendQuery {
        by: vec![Dimension::parse(tag)],
        ..SpendQuery::default()
    };
    let rows = ledger.reader().spend(&query).unwrap().into_iter();
    rows.map(|row| {
        let value = row.key[0].clone().unwrap_or_default();
        (value, (row.requests, row.cost))
    })
    .collect()
}

/// What the teams of the calls before that number spent.
fn by_hand(n_calls: usize) -> BTreeMap<String, (u64, PicoSum)> {
    let mut sums: BTreeMap<String, (u64, PicoSum)> = BTreeMap::new();
    for n in 0..n_calls {
        let (requests, cost) = sums.entry(format!("team-{}", n % TEAMS)).or_default();
        *requests += 1;
        *cost += PicoSum::from_pico(1_000_000_007 + n as i128);
    }
    sums
}

fn count(ledger: &Ledger, table: &str) -> i64 {
    let connection = rusqlite::Connection::open(ledger.path()).unwrap();
    let sql = format!("SELECT count(*) FROM {table}");
    connection.query_row(&sql, [], |row| row.get(0)).unwrap()
}

fn findings(ledger: &Ledger) -> Vec<String> {
    let audit = ledger.reader().audit(&mut |_| {}).unwrap();
    audit.findings.iter().map(ToString::to_string).collect()
}

#[test]
fn a_session_for_each_call_fills_no_volume_and_empties_no_ledger() {
    const BYTES_MAX: u64 = 6 << 20;
    const PER_HOUR: usize = 600;
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let (mut keeper, metrics) = keeper(&ledger, retention(90, BYTES_MAX));
    let (mut n, mut largest, mut kept_min) = (0, 0, usize::MAX);
    for hour in 0..40 {
        n = fill(&ledger, n, hour..hour + 1, PER_HOUR);
        look(&mut keeper, (hour + 1) * HOUR_MS - 1);
        largest = largest.max(ledger.reader().file_size().unwrap().bytes);
        if hour >= 10 {
            kept_min = kept_min.min(ledger.health().rows as usize);
        }
    }
    assert!(largest <= BYTES_MAX, "{largest} bytes");
    assert!(kept_min >= 2 * PER_HOUR, "{kept_min} calls were left");
    let kept = ledger.health().rows as usize;
    let oldest = at((40 - (kept / PER_HOUR) as i64) * HOUR_MS);
    assert_eq!(ledger.reader().oldest_call().unwrap(), Some(oldest));
    assert_eq!(by(&ledger, "team"), by_hand(n));
    let sessions = by(&ledger, "session");
    assert_eq!(sessions[OTHER].0 as usize, n - kept, "of deleted calls");
    assert_eq!(sessions.len() - 1, kept, "of calls that are here");
    let n_sets = count(&ledger, "tag_sets") as usize;
    assert!(n_sets <= kept + TEAMS, "{n_sets} tag sets");
    assert_eq!(count(&ledger, "tags") as usize, 2 * n_sets);
    assert_eq!(findings(&ledger), [""; 0]);
    assert_eq!(metrics.ledger_bytes_max.get(), BYTES_MAX as i64);
    let over = metrics.ledger_over_bound.with_label_values(&["sums"]);
    assert_eq!(over.get(), 0);
    // What a sweep deleted comes again like anything else.
    append(&ledger, vec![call(7, 41 * HOUR_MS)]);
    assert_eq!(findings(&ledger), [""; 0]);
}

thread_local! {
    /// What this thread has logged.
    static LOG: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Where all threads log to, each for itself. A subscriber of one thread alone would miss places
/// that another thread passes first.
struct Log;

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.with_borrow_mut(|log| log.write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_many_hours_lose_at_one_look_is_one_line_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let n = fill(&ledger, 0, 0..12, 600);
    let bytes_max = ledger.reader().file_size().unwrap().bytes / 3;
    let (mut keeper, _) = keeper(&ledger, retention(90, bytes_max));
    let subscriber = tracing_subscriber::fmt().with_writer(|| Log);
    tracing::subscriber::set_global_default(subscriber.finish()).expect("no other test sets one");
    look(&mut keeper, 12 * HOUR_MS);
    assert!(n - ledger.health().rows as usize > 2 * 600, "many hours go");
    let text = LOG.with_borrow(|log| String::from_utf8(log.clone()).unwrap());
    let lines = text.lines().filter(|line| line.contains(OTHER));
    assert_eq!(lines.count(), 1, "{text}");
}

#[test]
fn few_values_stay_in_the_sums_of_deleted_calls_and_named_tags_up_to_a_bound() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let metrics = Arc::new(Metrics::new().unwrap());
    let mut keeper = Keeper::new(ledger.clone(), retention(1, 0), Arc::clone(&metrics))
        .named(Box::new(|| vec!["user".to_owned()]));
    // The first day has few sessions, the second too many, in two parts; users are as many.
    let few = SUM_VALUES_MAX / 2;
    let many = SUM_VALUES_MAX + 200;
    let with_user = |n: usize, ms: i64| {
        let mut entry = call(n, ms);
        let user = entry.event.tags["session"].replace("session", "user");
        entry.event.tags.insert("user".into(), user);
        entry
    };
    append(&ledger, (0..few).map(|n| with_user(n, 5)).collect());
    let second = |n: usize| with_user(n, DAY_MS + (n % 2) as i64 * 12 * HOUR_MS);
    append(&ledger, (few..few + many).map(second).collect());
    look(&mut keeper, 2 * DAY_MS);
    look(&mut keeper, 2 * DAY_MS + HOUR_MS);
    assert_eq!(
        by(&ledger, "session").len(),
        few + 1 + many / 2,
        "half a day is left"
    );
    look(&mut keeper, 2 * DAY_MS + 13 * HOUR_MS);
    look(&mut keeper, 3 * DAY_MS);
    assert_eq!(ledger.health().rows, 0);
    let sessions = by(&ledger, "session");
    assert_eq!(sessions[OTHER].0 as usize, many);
    assert_eq!(
        sessions.len(),
        few + 1,
        "those of the first day, and one for others"
    );
    let users = by(&ledger, "user");
    assert_eq!(users[OTHER].0 as usize, many - SUM_VALUES_MAX);
    assert_eq!(users.len(), few + SUM_VALUES_MAX + 1);
    assert!(users.iter().all(|(user, sum)| user == OTHER || sum.0 == 1));
    assert_eq!(by(&ledger, "team"), by_hand(few + many));
    assert_eq!(findings(&ledger), [""; 0]);
}

#[test]
fn models_and_pods_that_callers_make_up_are_bounded_too() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let (mut keeper, _) = keeper(&ledger, retention(1, 0));
    let n_calls = SUM_VALUES_MAX + 300;
    let odd = |n: usize| {
        let mut entry = call(n, n as i64);
        entry.event.model_requested = Some(format!("model-{n}"));
        entry.event.source.pod = Some(format!("pod-of-{n}"));
        entry.event.tags.insert(format!("tag-{n}"), "x".into());
        entry
    };
    append(&ledger, (0..n_calls).map(odd).collect());
    live(&mut keeper, 0..2 * DAY_MS);
    assert_eq!(ledger.health().rows, 0);
    // One entry stands for the others; the newest stays though nothing refers to it.
    let but_the_newest = |table: &str| {
        let but_one = format!("{table} WHERE id < (SELECT max(id) FROM {table})");
        count(&ledger, &but_one) as usize
    };
    let models = but_the_newest("models");
    assert!(models <= SUM_VALUES_MAX + 1, "{models} models");
    let sources = but_the_newest("sources");
    assert!(sources <= SUM_VALUES_MAX + 1, "{sources} sources");
    assert_eq!(by(&ledger, "team"), by_hand(n_calls));
    let names = count(&ledger, "(SELECT DISTINCT tag FROM tags)");
    assert!(names <= 66, "{names} names of tags");
    assert_eq!(findings(&ledger), [""; 0]);
}

#[test]
fn tags_of_few_values_whose_combinations_are_too_many_go_the_largest_first() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let (mut keeper, _) = keeper(&ledger, retention(1, 0));
    let n_calls = SUM_LINES_MAX + 200;
    let odd = |n: usize| {
        let mut entry = call(n, n as i64);
        let tags = &mut entry.event.tags;
        tags.insert("session".into(), format!("{}", n % 103));
        tags.insert("feature".into(), format!("{}", n % 101));
        entry
    };
    for calls in (0..n_calls).collect::<Vec<_>>().chunks(3_000) {
        append(&ledger, calls.iter().map(|n| odd(*n)).collect());
    }
    live(&mut keeper, 0..2 * DAY_MS);
    assert_eq!(ledger.health().rows, 0);
    assert_eq!(by(&ledger, "session").keys().collect::<Vec<_>>(), [OTHER]);
    assert_eq!(by(&ledger, "feature").len(), 101);
    assert_eq!(by(&ledger, "team"), by_hand(n_calls));
    let n_lines = count(&ledger, "daily");
    assert!(n_lines <= 101 * TEAMS as i64, "{n_lines} lines");
    assert_eq!(findings(&ledger), [""; 0]);
}

#[test]
fn long_ago_sums_go_before_calls_that_are_not_what_takes_the_room() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let (mut by_age, _) = keeper(&ledger, retention(1, 0));
    // Two months of days with many sums, and no calls left of them.
    let mut n = 0;
    for day in 0..60 {
        let calls = (0..300).map(|i| {
            let mut entry = call(n + i, day * DAY_MS + i as i64);
            let session = format!("session-{i}-of-every-day");
            entry.event.tags.insert("session".into(), session);
            entry
        });
        append(&ledger, calls.collect());
        n += 300;
        live(
            &mut by_age,
            day * DAY_MS + HOUR_MS + 11 * 60_000..(day + 1) * DAY_MS,
        );
    }
    let end = 60 * DAY_MS;
    live(&mut by_age, end..end + DAY_MS);
    n = fill(&ledger, n, 60 * 24..60 * 24 + 2, 10);
    let before = ledger.reader().file_size().unwrap().bytes;
    let (mut keeper, metrics) = keeper(&ledger, retention(90, before / 2));
    look(&mut keeper, end + 2 * HOUR_MS - 1);
    assert_eq!(ledger.health().rows, 20, "no call goes");
    assert!(ledger.reader().file_size().unwrap().bytes <= before / 2);
    assert_eq!(by(&ledger, "team"), by_hand(n));
    assert_eq!(findings(&ledger), [""; 0]);
    // Nothing but months is left to take: that is said, and no call goes for it.
    let over = metrics.ledger_over_bound.with_label_values(&["sums"]);
    assert_eq!(over.get(), 0);
    let (mut keeper, metrics) = self::keeper(&ledger, retention(90, before / 50));
    look(&mut keeper, end + 2 * HOUR_MS - 1);
    assert_eq!(ledger.health().rows, 20);
    assert_eq!(by(&ledger, "team"), by_hand(n));
    assert_eq!(findings(&ledger), [""; 0]);
    let over = |because| {
        metrics
            .ledger_over_bound
            .with_label_values(&[because])
            .get()
    };
    assert_eq!(over("sums"), 0);
}

#[test]
fn pending_calls_may_exceed_the_bound_by_so_much_and_the_oldest_go_beyond_it() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(LedgerOptions::new(dir.path()).forwards(true)).unwrap();
    fill(&ledger, 0, 0..10, 300);
    look(&mut keeper(&ledger, retention(90, 0)).0, 10 * HOUR_MS);
    let bytes = ledger.reader().file_size().unwrap().bytes;
    // A tenth too large: within what pending calls may take beyond the bound.
    let (mut spares, metrics) = keeper(&ledger, retention(90, bytes * 10 / 11));
    look(&mut spares, 10 * HOUR_MS);
    assert_eq!(ledger.health().rows, 3_000);
    let pending = metrics.ledger_over_bound.with_label_values(&["pending"]);
    assert_eq!(pending.get(), 1);
    // Half as large again as the bound.
    let bytes_max = bytes * 2 / 3;
    let (mut keeper, metrics) = keeper(&ledger, retention(90, bytes_max));
    look(&mut keeper, 10 * HOUR_MS);
    let left = ledger.health().rows;
    assert!((900..3_000).contains(&left), "{left} calls are left");
    let now = ledger.reader().file_size().unwrap().bytes;
    assert!(now <= bytes_max / 100 * (100 + PENDING_PERCENT), "{now}");
    let skipped = metrics
        .forward_skipped_rows_total
        .with_label_values(&["no_room"]);
    assert_eq!(skipped.get(), 3_000 - left);
    assert_eq!(ledger.reader().progress().unwrap().pending, left);
    // What was forwarded goes first.
    let parcel = ledger.reader().parcel(600).unwrap();
    let note = Note::Forwarded {
        upto: parcel.upto,
        rows: parcel.rows,
        outcomes_upto: None,
        parcel: parcel.number,
    };
    block_on(ledger.note(note)).unwrap();
    look(&mut keeper, 10 * HOUR_MS);
    let pending = ledger.reader().progress().unwrap().pending;
    assert_eq!(pending, left - 600, "none of those that wait");
    assert!(ledger.health().rows < left);
    assert_eq!(skipped.get(), 3_000 - left);
    assert_eq!(by(&ledger, "team"), by_hand(3_000));
    assert_eq!(findings(&ledger), [""; 0]);
}

#[test]
fn calls_that_are_deleted_before_they_were_exported_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    fill(&ledger, 0, 0..10, 300);
    block_on(ledger.note(Note::Exported { upto: 100 })).unwrap();
    let metrics = Arc::new(Metrics::new().unwrap());
    let bytes = ledger.reader().file_size().unwrap().bytes;
    let mut keeper = Keeper::new(
        ledger.clone(),
        retention(90, bytes / 2),
        Arc::clone(&metrics),
    )
    .exported(vec![Signal::Traces, Signal::Metrics]);
    look(&mut keeper, 10 * HOUR_MS);
    let deleted = 3_000 - ledger.health().rows;
    assert!(deleted > 100);
    for (signal, n) in [
        ("traces", deleted - 100),
        ("metrics", deleted - 100),
        ("logs", 0),
    ] {
        let skipped = metrics
            .otlp_skipped_rows_total
            .with_label_values(&[signal, "deleted"]);
        assert_eq!(skipped.get(), n, "{signal}");
    }
}

#[test]
fn a_clock_that_jumps_ahead_deletes_nothing_for_a_day() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    fill(&ledger, 0, 0..2, 10);
    let (mut keeper, metrics) = keeper(&ledger, retention(7, 0));
    look(&mut keeper, 2 * HOUR_MS);
    let jumped = 400 * DAY_MS;
    // Filters share the machine's clock.
    fill(&ledger, 20, 400 * 24..400 * 24 + 1, 10);
    look(&mut keeper, jumped);
    assert_eq!(ledger.health().rows, 30);
    let ahead = metrics.ledger_clock_ahead_seconds.get();
    assert_eq!(ahead, (jumped - 2 * HOUR_MS) / 1_000);
    assert_eq!(ledger.reader().forgotten_before().unwrap(), None);
    // Set right again, it goes on as if nothing had been.
    look(&mut keeper, 3 * HOUR_MS);
    assert_eq!(metrics.ledger_clock_ahead_seconds.get(), 0);
    look(&mut keeper, 3 * HOUR_MS + CLOCK_LEAP_MS);
    assert_eq!(metrics.ledger_clock_ahead_seconds.get(), 0);
    // One that stays ahead is believed in the end, over a restart too.
    for n in 0..=CLOCK_DOUBTS_MAX {
        assert_eq!(ledger.health().rows, 30, "look {n}");
        if n == 5 {
            keeper = self::keeper(&ledger, retention(7, 0)).0;
        }
        look(&mut keeper, jumped + i64::from(n) * 60_000);
    }
    assert_eq!(ledger.health().rows, 10);
}

#[test]
fn a_jump_that_reaches_what_is_new_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    fill(&ledger, 0, 0..2, 10);
    let (mut keeper, metrics) = keeper(&ledger, retention(1, 0));
    look(&mut keeper, 2 * HOUR_MS);
    look(&mut keeper, 2 * HOUR_MS + CLOCK_LEAP_MS - HOUR_MS);
    assert_eq!(ledger.health().rows, 20);
    assert!(metrics.ledger_clock_ahead_seconds.get() > 0);
}

#[test]
fn rows_deleted_by_a_clock_that_was_ahead_have_no_call_of_the_present_refused() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let now_ms = jiff::Timestamp::now().as_millisecond() - START_MS;
    append(
        &ledger,
        vec![call(1, now_ms), call(2, now_ms - 5 * HOUR_MS)],
    );
    block_on(ledger.prune(at(now_ms + 40 * DAY_MS))).unwrap();
    assert_eq!(ledger.health().rows, 0);
    let appended = append(
        &ledger,
        vec![call(3, now_ms), call(2, now_ms - 5 * HOUR_MS)],
    );
    assert_eq!((appended.accepted(), appended.forgotten()), (1, 1));
    let forgotten = ledger.reader().forgotten_before().unwrap().unwrap();
    assert!(forgotten <= at(now_ms), "{forgotten}");
}

#[test]
fn a_call_that_ended_after_its_hour_was_deleted_counts() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let now_ms = jiff::Timestamp::now().as_millisecond() - START_MS;
    append(&ledger, vec![call(1, now_ms - 5 * HOUR_MS)]);
    block_on(ledger.prune(at(now_ms - 2 * HOUR_MS))).unwrap();
    let lasted = |n: usize, hours: i64| {
        let mut call = call(n, now_ms - 5 * HOUR_MS);
        call.event.duration_ms = (hours * HOUR_MS).unsigned_abs();
        call
    };
    let appended = append(&ledger, vec![lasted(2, 4), lasted(3, 6)]);
    assert_eq!((appended.forgotten(), appended.accepted()), (1, 1));
}

#[test]
fn a_ledger_that_never_saw_a_clock_takes_its_newest_call_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    fill(&ledger, 0, 0..2, 10);
    look(&mut keeper(&ledger, retention(7, 0)).0, 400 * DAY_MS);
    assert_eq!(ledger.health().rows, 20);
}

#[test]
fn what_comes_again_after_its_row_was_deleted_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    fill(&ledger, 0, 0..4, 10);
    block_on(ledger.prune(at(2 * HOUR_MS))).unwrap();
    let again = |ledger: &Ledger| {
        append(
            ledger,
            vec![
                call(3, 3),
                call(99, HOUR_MS),
                call(25, 2 * HOUR_MS + 5),
                call(100, 2 * HOUR_MS + 7),
            ],
        )
    };
    let refused = || {
        Recorded::Refused(Refusal::Forgotten {
            before: at(2 * HOUR_MS),
        })
    };
    let appended = again(&ledger);
    let expected = [
        refused(),
        refused(),
        Recorded::Duplicate,
        Recorded::Accepted,
    ];
    assert_eq!(appended.recorded, expected);
    assert_eq!((appended.forgotten(), appended.accepted()), (2, 1));
    block_on(ledger.close());
    let ledger = open(dir.path());
    let expected = [
        refused(),
        refused(),
        Recorded::Duplicate,
        Recorded::Duplicate,
    ];
    assert_eq!(again(&ledger).recorded, expected);
    let requests: u64 = by(&ledger, "team").values().map(|(n, _)| n).sum();
    assert_eq!(requests, 41);
    assert_eq!(count(&ledger, "quarantine"), 0);
    assert_eq!(findings(&ledger), [""; 0]);
}

#[test]
fn an_old_call_whose_row_is_spared_is_a_duplicate_still() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(LedgerOptions::new(dir.path()).forwards(true)).unwrap();
    fill(&ledger, 0, 0..1, 10);
    let parcel = ledger.reader().parcel(5).unwrap();
    let note = Note::Forwarded {
        upto: parcel.upto,
        rows: parcel.rows,
        outcomes_upto: None,
        parcel: parcel.number,
    };
    block_on(ledger.note(note)).unwrap();
    assert_eq!(block_on(ledger.prune(at(DAY_MS))).unwrap(), 5);
    let appended = append(&ledger, vec![call(0, 0), call(7, 7)]);
    assert_eq!((appended.forgotten(), appended.duplicate()), (1, 1));
    // Sums of an hour with rows are not regrouped, so that late usage finds its own.
    block_on(ledger.regroup(&[])).unwrap();
    assert_eq!(findings(&ledger), [""; 0]);
}

#[test]
fn the_last_hour_stays_however_small_the_bound() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    fill(&ledger, 0, 0..4, 100);
    let (mut keeper, metrics) = keeper(&ledger, retention(90, 1));
    look(&mut keeper, 4 * HOUR_MS - 1);
    assert_eq!(
        ledger.health().rows,
        200,
        "the present hour and what is left of the last"
    );
    let because = |word| metrics.ledger_over_bound.with_label_values(&[word]).get();
    assert_eq!((because("recent"), because("sums")), (1, 0));
    // A clock that is ahead makes no call old.
    look(&mut keeper, 30 * DAY_MS);
    assert_eq!(ledger.health().rows, 200);
    let newest = SpendQuery {
        span: Span {
            from: Some(at(3 * HOUR_MS)),
            to: None,
        },
        ..SpendQuery::default()
    };
    assert_eq!(ledger.reader().spend(&newest).unwrap()[0].requests, 100);
}

#[test]
fn damaged_files_count_and_go_first() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..4 {
        std::fs::write(dir.path().join("ledger.db"), vec![b'x'; 100_000 + n]).unwrap();
        let ledger = open(dir.path());
        assert_eq!(ledger.health().set_aside, 1);
        block_on(ledger.close());
    }
    let names = || {
        let files = std::fs::read_dir(dir.path()).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name.contains("damaged")).collect();
        names.sort();
        names
    };
    assert_eq!(names(), ["ledger.db.damaged-3", "ledger.db.damaged-4"]);
    let ledger = open(dir.path());
    fill(&ledger, 0, 0..3, 100);
    let (mut unbound, metrics) = keeper(&ledger, retention(90, 0));
    look(&mut unbound, 3 * HOUR_MS);
    let own = ledger.reader().file_size().unwrap().bytes;
    assert_eq!(metrics.ledger_bytes.get() as u64, own + 200_005);
    let (mut keeper, _) = keeper(&ledger, retention(90, own + 150_000));
    look(&mut keeper, 3 * HOUR_MS);
    assert_eq!(names(), ["ledger.db.damaged-4"]);
    assert_eq!(ledger.health().rows, 300);
}

/// Counts each call in a series of its own.
struct Wordy;

impl Meter for Wordy {
    fn measure(&mut self, entry: &Entry, _: Occasion<'_>, increments: &mut Increments) {
        let series = format!("call=\"{}{}\"", entry.event.event_id, "x".repeat(4_000));
        increments.add("requests", &series, 1);
    }
}

#[test]
fn counters_are_no_bytes_of_calls() {
    let bytes = |options: LedgerOptions| {
        let ledger = Ledger::open(options).unwrap();
        fill(&ledger, 0, 0..2, 100);
        let reader = ledger.reader();
        let used = reader.file_size().unwrap().used_bytes();
        (used, reader.bytes_of_calls().unwrap())
    };
    let dir = tempfile::tempdir().unwrap();
    let (plain, of_calls) = bytes(LedgerOptions::new(dir.path()));
    let dir = tempfile::tempdir().unwrap();
    let (wordy, of_the_same) = bytes(LedgerOptions::new(dir.path()).meter(Wordy));
    assert!(wordy > plain + 200 * 4_000, "{wordy} and {plain}");
    assert!(of_calls > 0 && of_calls < plain);
    assert_eq!(of_the_same, of_calls);
}
