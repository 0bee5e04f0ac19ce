//! Repricing a ledger: rows, hourly sums and counters afterwards, step by step and beside ingest.

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use tollmesh_aggregator::ledger::query::{
    Dimension, Filter, RequestRow, RequestsQuery, Span, SpendQuery,
};
use tollmesh_aggregator::ledger::reprice::{Change, Pricer};
use tollmesh_aggregator::ledger::{
    Changes, CostLine, CostRecord, Entry, Increments, Ledger, LedgerOptions, Meter, Occasion,
    Repricing,
};
use tollmesh_aggregator::money::{PicoSum, PicoUsd};
use tollmesh_usage::{Bucket, Usage};
use tollmesh_wire::{Event, Outcome, Timestamp};

const HOUR_MS: i64 = 3_600_000;

/// 2026-11-01T00:00:00Z.
const START_MS: i64 = 1_793_491_200_000;

/// Counts costs when they are new, and says on which occasion.
struct CostMeter;

impl Meter for CostMeter {
    fn measure(&mut self, entry: &Entry, occasion: Occasion<'_>, increments: &mut Increments) {
        let pico = i128::from(entry.cost.total.unwrap_or_default().as_pico());
        increments.add("cost", "", pico);
        if matches!(occasion, Occasion::NewlyPriced) {
            increments.add("newly_priced", "", 1);
        }
    }
}

fn event(id: &str, model: &str, hour: i64) -> Event {
    Event {
        event_id: id.into(),
        time: Timestamp::from_unix_ms(START_MS + hour * HOUR_MS),
        provider: "maker".into(),
        api: "openai.chat".into(),
        host: "maker.example".into(),
        model: Some(model.into()),
        usage: Usage::new().with(Bucket::Input, 10),
        usage_source: "reported".into(),
        billable: true,
        attempts: 1,
        ..Event::default()
    }
}

/// The cost of ten tokens at that many pico-dollars each.
fn cost(rate: i64, version: &str) -> CostRecord {
    let line = CostLine {
        what: "input".into(),
        amount: 10.into(),
        rate: rate.into(),
        times: 1.into(),
        usd: (rate * 10).into(),
        assumed: false,
        extra: None,
        row: None,
    };
    CostRecord {
        total: Some(PicoUsd::from_pico(rate * 10)),
        row: Some(format!("maker.toml:m:{rate}").into()),
        lines: vec![line],
        ..CostRecord::free(Arc::from(version))
    }
}

fn unpriced(version: &str) -> CostRecord {
    CostRecord::unpriced(Arc::from(version), "unknown_model")
}

/// The tables of a version: `large` and what else there is at these rates, 0 for no row.
fn tables(version: &'static str, large: i64, small: i64) -> Pricer {
    Arc::new(move |event| {
        let rate = match event.model.as_deref() {
            Some("large") => large,
            _ => small,
        };
        match rate {
            0 => unpriced(version),
            rate => cost(rate, version),
        }
    })
}

fn all(pricer: Pricer) -> Repricing {
    Repricing {
        span: Span::default(),
        filters: vec![],
        last_row: i64::MAX,
        pricer,
    }
}

fn open(dir: &Path) -> Ledger {
    Ledger::open(LedgerOptions::new(dir).meter(CostMeter)).unwrap()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

fn append(ledger: &Ledger, events: Vec<Event>, pricer: &Pricer) {
    let priced = events.into_iter().map(|event| Entry {
        cost: pricer(&event),
        event,
    });
    block_on(ledger.append(priced.collect(), vec![])).unwrap();
}

fn reprice(ledger: &Ledger, repricing: &Repricing) -> Changes {
    block_on(ledger.reprice(repricing, &mut |_| {})).unwrap()
}

fn counter(ledger: &Ledger, metric: &str) -> i128 {
    ledger.totals(|totals| totals.counter(metric).map(|(_, n)| n).sum())
}

fn rows(ledger: &Ledger) -> Vec<RequestRow> {
    let page = ledger.reader().requests(&RequestsQuery {
        limit: 1_000,
        ..RequestsQuery::default()
    });
    page.unwrap().items
}

fn row(ledger: &Ledger, id: &str) -> RequestRow {
    let mut rows = rows(ledger).into_iter();
    rows.find(|row| row.event.event_id == id).unwrap()
}

/// The ledger's sums, from the hours and from the rows, which must agree.
fn spend(ledger: &Ledger) -> (u64, i128) {
    let sums = |by: &str| {
        let query = SpendQuery {
            by: vec![Dimension::parse(by)],
            ..SpendQuery::default()
        };
        let rows = ledger.reader().spend(&query).unwrap();
        let unpriced = rows.iter().map(|row| row.unpriced).sum::<u64>();
        (unpriced, rows.iter().map(|row| row.cost.as_pico()).sum())
    };
    let of_hours: (u64, i128) = sums("model");
    assert_eq!(of_hours, sums("event_id"));
    of_hours
}

fn pico(pico: i64) -> Option<PicoUsd> {
    Some(PicoUsd::from_pico(pico))
}

#[test]
fn what_changed_is_said_by_model_and_stands_in_rows_sums_and_counters() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let old = tables("old", 7, 0);
    let events = vec![
        event("a", "large", 0),
        event("b", "large", 1),
        event("c", "small", 1),
        event("late", "large", 9),
        Event {
            outcome: Outcome::Relayed,
            ..event("relayed", "large", 1)
        },
    ];
    append(&ledger, events, &old);
    assert_eq!((spend(&ledger), counter(&ledger, "cost")), ((1, 210), 280));

    let mut repricing = all(tables("new", 5, 2));
    repricing.span.to = Some(Timestamp::from_unix_ms(START_MS + 2 * HOUR_MS));
    let large = Change {
        requests: 2,
        changed: 2,
        before: PicoSum::from_pico(140),
        after: PicoSum::from_pico(100),
        ..Change::default()
    };
    let small = Change {
        requests: 1,
        changed: 1,
        newly_priced: 1,
        after: PicoSum::from_pico(20),
        ..Change::default()
    };
    let key = |model: &str| ("maker".to_owned(), Some(model.to_owned()));
    let expected = Changes {
        by_model: [(key("large"), large), (key("small"), small)].into(),
    };
    // Told first, without a trace in the ledger.
    assert_eq!(
        ledger.reader().reprice(&repricing, &mut |_| {}).unwrap(),
        expected
    );
    assert_eq!((spend(&ledger), counter(&ledger, "cost")), ((1, 210), 280));

    assert_eq!(reprice(&ledger, &repricing), expected);
    // Counters keep 280, and get what had no price before.
    assert_eq!((spend(&ledger), counter(&ledger, "cost")), ((0, 190), 300));
    assert_eq!(counter(&ledger, "newly_priced"), 1);
    let (a, c) = (row(&ledger, "a"), row(&ledger, "c"));
    assert_eq!(a.cost, cost(5, "new"));
    let first = a.original.unwrap();
    assert_eq!(first.total, pico(70));
    assert_eq!(first.row.as_deref(), Some("maker.toml:m:7"));
    assert_eq!(&*first.pricing_version, "old");
    let first = c.original.unwrap();
    assert_eq!((first.total, first.row), (None, None));
    for untouched in ["late", "relayed"] {
        assert_eq!(row(&ledger, untouched).original, None, "{untouched}");
    }

    let before = rows(&ledger);
    let again = reprice(&ledger, &repricing).total();
    assert_eq!((again.requests, again.changed), (3, 0));
    assert_eq!(again.difference(), PicoSum::ZERO);
    assert_eq!(rows(&ledger), before);
    assert_eq!(counter(&ledger, "cost"), 300);
}

#[test]
fn the_first_cost_stays_for_ever_and_is_counted_once() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    append(&ledger, vec![event("a", "large", 0)], &tables("1", 0, 0));
    let mut counted = Vec::new();
    let mut originals = Vec::new();
    for (version, rate) in [("2", 3), ("3", 0), ("4", 9), ("5", 0), ("6", 3)] {
        let changes = reprice(&ledger, &all(tables(version, rate, 0))).total();
        assert_eq!(changes.newly_priced, u64::from(rate > 0 && version != "1"));
        assert_eq!(changes.now_unpriced, u64::from(rate == 0));
        assert_eq!(
            spend(&ledger),
            (u64::from(rate == 0), i128::from(rate) * 10)
        );
        counted.push(counter(&ledger, "cost"));
        let original = row(&ledger, "a").original.unwrap();
        originals.push((original.total, original.pricing_version.to_string()));
    }
    assert_eq!(counted, [30; 5]);
    let first = (pico(30), "2".to_owned());
    let unpriced = (None, "1".to_owned());
    let kept = [unpriced, first.clone(), first.clone(), first.clone(), first];
    assert_eq!(originals, kept);
}

#[test]
fn the_same_cost_from_another_table_is_no_change_but_names_the_table() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    append(&ledger, vec![event("a", "large", 0)], &tables("1", 4, 0));
    let changes = reprice(&ledger, &all(tables("2", 4, 0))).total();
    assert_eq!((changes.requests, changes.changed), (1, 0));
    let row = row(&ledger, "a");
    assert_eq!(&*row.cost.pricing_version, "2");
    assert_eq!(row.original.unwrap().total, pico(40));
}

#[test]
fn conditions_choose_what_is_priced_anew() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let team = |id: &str, team: &str| Event {
        tags: [("team".to_owned(), team.to_owned())].into(),
        ..event(id, "large", 0)
    };
    let events = vec![team("a", "red"), team("b", "blue")];
    append(&ledger, events, &tables("1", 1, 0));
    let mut repricing = all(tables("2", 2, 0));
    repricing.filters = vec![Filter::new("team", "blue")];
    assert_eq!(reprice(&ledger, &repricing).total().requests, 1);
    assert_eq!(row(&ledger, "a").cost.total, pico(10));
    assert_eq!(row(&ledger, "b").cost.total, pico(20));
}

/// Waits for a fact, for at most ten seconds.
fn eventually(what: &str, fact: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !fact() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::yield_now();
    }
}

/// Steps are smaller than this ledger, and what comes between them is taken at once and left alone.
#[test]
fn ingest_goes_on_between_the_steps() {
    const ROWS: i64 = 1_700;
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let old = tables("old", 1, 0);
    // Many share an instant, so that steps end within one.
    let at = |n: i64| event(&format!("{n}"), "large", n / 700);
    append(&ledger, (0..ROWS).map(at).collect(), &old);

    let (begun, wait) = mpsc::channel();
    let n_priced = AtomicI64::new(0);
    let taken_between = Arc::new(AtomicI64::new(0));
    let new = tables("new", 3, 0);
    let pricer: Pricer = {
        let (ledger, taken_between) = (ledger.clone(), Arc::clone(&taken_between));
        Arc::new(move |event| {
            match n_priced.fetch_add(1, Ordering::Relaxed) {
                0 => {
                    begun.send(()).unwrap();
                    eventually("an event waits", || ledger.health().queued_events > 0);
                }
                last if last == ROWS - 1 => {
                    let rows = ledger.reader().last_row().unwrap();
                    taken_between.store(rows - ROWS, Ordering::Relaxed);
                }
                _ => {}
            }
            new(event)
        })
    };
    let mut repricing = all(pricer);
    repricing.last_row = ledger.reader().last_row().unwrap();
    let beside = ledger.clone();
    let repricer = std::thread::spawn(move || reprice(&beside, &repricing));
    wait.recv().unwrap();
    append(&ledger, vec![event("new", "large", 0)], &old);
    let total = repricer.join().unwrap().total();
    assert_eq!((total.requests, total.changed), (1_700, 1_700));
    assert_eq!(taken_between.load(Ordering::Relaxed), 1);
    assert_eq!(spend(&ledger), (0, i128::from(ROWS) * 30 + 10));
}
