//! What the ledger is asked beyond sums: outcomes, traces, sessions, two periods, a copy, and
//! whether it agrees with itself.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tollmesh_aggregator::housekeeping::{Keeper, Retention};
use tollmesh_aggregator::ledger::query::{
    BackupError, ComparisonQuery, Dimension, Filter, Finding, LookedAt, OutcomesQuery, Patience,
    RequestRow, RequestsQuery, Sort, Span, SpendQuery, Unit, UnitRow, UnitSort, UnitsQuery,
};
use tollmesh_aggregator::ledger::{
    CallOutcome, CostRecord, Entry, Ledger, LedgerOptions, QueryError, Reader, Repricing, Subject,
    Told,
};
use tollmesh_aggregator::metrics::Metrics;
use tollmesh_aggregator::money::{PicoSum, PicoUsd};
use tollmesh_usage::{Bucket, Usage};
use tollmesh_wire::{Event, Outcome, Timestamp};

const HOUR_MS: i64 = 3_600_000;

/// 2026-11-01T00:00:00Z.
const START_MS: i64 = 1_793_491_200_000;

fn at(ms: i64) -> Timestamp {
    Timestamp::from_unix_ms(START_MS + ms)
}

/// A call of that trace and session, so many milliseconds after the start, of that many
/// pico-dollars.
fn call(id: &str, trace: &str, session: &str, ms: i64, pico: i64) -> Entry {
    let tags = [("feature", "chat"), ("session_id", session)];
    let tags = tags.iter().filter(|(_, value)| !value.is_empty());
    let event = Event {
        event_id: id.into(),
        request_id: Some(format!("request-{id}")),
        trace_id: (!trace.is_empty()).then(|| trace.to_owned()),
        time: at(ms),
        duration_ms: 10,
        provider: "openai".into(),
        model: Some("gpt-5".into()),
        usage: Usage::new().with(Bucket::Input, 100),
        usage_source: "reported".into(),
        billable: true,
        tags: tags
            .map(|(tag, value)| (tag.to_string(), value.to_string()))
            .collect::<BTreeMap<_, _>>(),
        attempts: 1,
        ..Event::default()
    };
    let cost = CostRecord {
        total: Some(PicoUsd::from_pico(pico)),
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

fn append(ledger: &Ledger, entries: Vec<Entry>) {
    block_on(ledger.append(entries, vec![])).unwrap();
}

fn tell(ledger: &Ledger, subject: Subject, label: &str) -> Told {
    let outcome = CallOutcome {
        subject,
        label: label.into(),
        told: at(0),
    };
    block_on(ledger.tell(vec![outcome])).unwrap().remove(0)
}

fn pico(n: i128) -> PicoSum {
    PicoSum::from_pico(n)
}

fn units(unit: Unit, sort: UnitSort) -> UnitsQuery {
    UnitsQuery {
        unit,
        span: Span::default(),
        filters: vec![],
        sort,
        limit: 10,
        cursor: None,
    }
}

#[test]
fn an_outcome_may_come_before_its_event_and_holds_once() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let early = Subject::Request("request-a".into());
    assert_eq!(tell(&ledger, early.clone(), "accepted"), Told::New);
    let entries = vec![
        call("a", "t", "", 0, 10),
        call("b", "t", "", 1, 20),
        call("c", "u", "", 2, 40),
        call("d", "u", "", 3, 80),
        call("e", "", "", 4, 160),
    ];
    append(&ledger, entries);
    assert_eq!(tell(&ledger, early.clone(), "accepted"), Told::Already);
    assert_eq!(
        tell(&ledger, Subject::Trace("t".into()), "rejected"),
        Told::New
    );
    let of_trace = Subject::Trace("u".into());
    assert_eq!(tell(&ledger, of_trace.clone(), "rejected"), Told::New);
    assert_eq!(
        tell(&ledger, of_trace, "accepted"),
        Told::Replaced("rejected".into())
    );
    assert_eq!(
        tell(&ledger, Subject::Event("d".into()), "escalated"),
        Told::New
    );

    let query = OutcomesQuery {
        by: vec![Dimension::parse("feature")],
        ..OutcomesQuery::default()
    };
    let rows = ledger.reader().outcomes(&query).unwrap();
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            assert_eq!(row.key, [Some("chat".to_owned())]);
            assert_eq!(row.spend, pico(310));
            let label = row.label.as_deref();
            (label, row.outcomes, row.requests, row.cost)
        })
        .collect();
    // The request's word on a beats its trace's, the call's own on d that of its trace.
    let expected = [
        (Some("escalated"), 1, 1, pico(80)),
        (Some("accepted"), 2, 2, pico(50)),
        (Some("rejected"), 1, 1, pico(20)),
        (None, 0, 1, pico(160)),
    ];
    assert_eq!(rows, expected);

    // The same as a dimension of spend, a condition, and a column of calls.
    let spend = ledger.reader().spend(&SpendQuery {
        by: vec![Dimension::parse("outcome_label")],
        ..SpendQuery::default()
    });
    let spend = spend.unwrap().into_iter();
    let spend: Vec<_> = spend.map(|row| (row.key[0].clone(), row.cost)).collect();
    let accepted = Some("accepted".to_owned());
    assert_eq!(spend[2], (accepted.clone(), pico(50)));
    assert_eq!(spend[0], (None, pico(160)));
    let page = ledger.reader().requests(&RequestsQuery {
        filters: vec![Filter::new("outcome_label", "accepted")],
        limit: 10,
        ..RequestsQuery::default()
    });
    let items = page.unwrap().items.into_iter();
    let items: Vec<_> = items
        .map(|item| (item.event.event_id, item.outcome_label))
        .collect();
    assert_eq!(
        items,
        [
            ("c".to_owned(), accepted.clone()),
            ("a".to_owned(), accepted)
        ]
    );
}

#[test]
fn retention_forgets_outcomes_that_were_told_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    append(&ledger, vec![call("a", "", "", 0, 1)]);
    tell(&ledger, Subject::Event("a".into()), "accepted");
    block_on(ledger.prune(at(HOUR_MS))).unwrap();
    let connection = rusqlite::Connection::open(ledger.path()).unwrap();
    let n: i64 = connection
        .query_row("SELECT count(*) FROM outcomes", [], |row| row.get(0))
        .unwrap();
    assert_eq!(n, 0);
}

#[test]
fn calls_of_a_trace_or_session_stand_together() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let with = |mut entry: Entry, change: fn(&mut Event)| {
        change(&mut entry.event);
        entry
    };
    let entries = vec![
        with(call("a", "t", "s", 0, 10), |e| {
            e.tool_calls = Some(2);
            e.fingerprint = Some("f".into());
            e.attempts = 3;
        }),
        with(call("b", "t", "s", 5_000, 20), |e| {
            e.tool_calls = Some(1);
            e.fingerprint = Some("f".into());
            e.outcome = Outcome::Error;
        }),
        with(call("c", "t", "s2", 2_000, 5), |e| {
            e.fingerprint = Some("g".into());
            e.model = Some("gpt-5-mini".into());
        }),
        with(call("relayed", "t", "s", 9_000, 0), |e| {
            e.outcome = Outcome::Relayed;
        }),
        call("d", "u", "s2", 1_000, 1_000),
        call("e", "", "", 1_000, 7),
    ];
    append(&ledger, entries);
    tell(&ledger, Subject::Trace("t".into()), "accepted");

    let page = ledger.reader().units(&units(Unit::Trace, UnitSort::Cost));
    let page = page.unwrap();
    assert_eq!(page.next_cursor, None);
    let ids: Vec<&str> = page.items.iter().map(|row| &*row.id).collect();
    assert_eq!(ids, ["u", "t"]);
    let mut tokens = [0; Bucket::ALL.len()];
    tokens[Bucket::Input as usize] = 300;
    let expected = UnitRow {
        id: "t".into(),
        requests: 3,
        cost: pico(35),
        failed: 1,
        tokens,
        tool_calls: 3,
        retries: 2,
        repeated: 1,
        models: 2,
        duration_ms: 30,
        first: at(0),
        last: at(5_000),
        outcome_label: Some("accepted".into()),
        ..UnitRow::default()
    };
    assert_eq!(page.items[1], expected);

    let tags = Unit::Tags(vec!["session_id".into(), "session".into()]);
    let ids = |sort| {
        let page = ledger.reader().units(&units(tags.clone(), sort)).unwrap();
        let rows = page.items.into_iter().map(|row| (row.id, row.cost));
        rows.collect::<Vec<_>>()
    };
    let (s, s2) = (("s".to_owned(), pico(30)), ("s2".to_owned(), pico(1_005)));
    for sort in UnitSort::ALL {
        let expected = match sort {
            UnitSort::Cost | UnitSort::Requests | UnitSort::Tokens => [s2.clone(), s.clone()],
            UnitSort::Retries | UnitSort::Span | UnitSort::Time => [s.clone(), s2.clone()],
        };
        assert_eq!(ids(sort), expected, "{sort:?}");
    }
}

#[test]
fn pages_of_traces_hold_each_once() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    // Sums beyond 64 bits among them, and many that are equal.
    let entries = (0..40).map(|n| {
        let pico = if n % 10 < 2 { i64::MAX } else { n % 3 };
        call(&n.to_string(), &format!("trace.{}", n % 10), "", n, pico)
    });
    append(&ledger, entries.collect());
    for sort in UnitSort::ALL {
        let mut query = UnitsQuery {
            limit: 3,
            ..units(Unit::Trace, sort)
        };
        let mut seen = Vec::new();
        loop {
            let page = ledger.reader().units(&query).unwrap();
            seen.extend(page.items);
            assert!(seen.len() <= 10, "{sort:?}: some come twice");
            query.cursor = match page.next_cursor {
                Some(cursor) => Some(cursor),
                None => break,
            };
        }
        if sort == UnitSort::Cost {
            assert!(seen.is_sorted_by(|a, b| a.cost >= b.cost));
        }
        let mut ids: Vec<String> = seen.into_iter().map(|row| row.id).collect();
        ids.sort();
        let all: Vec<String> = (0..10).map(|n| format!("trace.{n}")).collect();
        assert_eq!(ids, all, "{sort:?}");
    }
    let foreign = UnitsQuery {
        cursor: Some("time.5.trace.1".into()),
        ..units(Unit::Trace, UnitSort::Cost)
    };
    let refused = ledger.reader().units(&foreign);
    assert!(matches!(refused, Err(QueryError::Cursor(_))));
}

#[test]
fn two_periods_stand_beside_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let entries = vec![
        call("a", "", "gone", 0, 5),
        call("b", "", "both", 1, 10),
        call("c", "", "both", HOUR_MS, 4),
        call("d", "", "both", HOUR_MS + 1, 4),
        call("e", "", "new", HOUR_MS, 70),
        call("f", "", "out", 2 * HOUR_MS, 1_000),
    ];
    append(&ledger, entries);
    let span = |from, to| Span {
        from: Some(at(from)),
        to: Some(at(to)),
    };
    let query = ComparisonQuery {
        by: vec![Dimension::parse("session_id")],
        filters: vec![],
        before: span(0, HOUR_MS),
        after: span(HOUR_MS, 2 * HOUR_MS),
    };
    let rows = ledger.reader().compare(&query).unwrap();
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            let (before, after) = (&row.before, &row.after);
            let name = row.key[0].as_deref().unwrap();
            (
                name,
                before.cost,
                after.cost,
                before.requests,
                after.requests,
            )
        })
        .collect();
    let expected = [
        ("new", pico(0), pico(70), 0, 1),
        ("gone", pico(5), pico(0), 1, 0),
        ("both", pico(10), pico(8), 1, 2),
    ];
    assert_eq!(rows, expected);
}

#[test]
fn a_backup_is_the_ledger_of_one_instant_while_it_is_written() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ledger = open(dir.path());
    // Several steps of a backup.
    let big = (0..6_000).map(|n| {
        let mut entry = call(&n.to_string(), "t", "", n, 3);
        entry.event.finish_reason = Some("x".repeat(2_000));
        entry
    });
    append(&ledger, big.collect());
    let copy = other.path().join("ledger.db");
    let mut n = 6_000;
    let mut n_steps = 0;
    let made = ledger.reader().backup(&copy, &mut |_| {
        append(&ledger, vec![call(&n.to_string(), "t", "", n, 3)]);
        (n, n_steps) = (n + 1, n_steps + 1);
    });
    let made = made.unwrap();
    assert!(n_steps > 2, "{n_steps} steps");
    assert_eq!(made.rows, 6_000);
    assert_eq!(made.bytes, std::fs::metadata(&copy).unwrap().len());
    let files = std::fs::read_dir(other.path()).unwrap().count();
    assert_eq!(files, 1, "one file and nothing beside it");

    let restored = Reader::open(other.path()).unwrap();
    let sums = restored.spend(&SpendQuery::default()).unwrap();
    assert_eq!((sums[0].requests, sums[0].cost), (6_000, pico(18_000)));
    assert_eq!(restored.audit(&mut |_| {}).unwrap().findings, []);
    let again = ledger.reader().backup(&copy, &mut |_| {});
    assert!(matches!(again, Err(BackupError::Exists(_))));
    // Nobody makes files there; why is the system's word, and not SQLite's.
    let there = ledger
        .reader()
        .backup(Path::new("/sys/copy.db"), &mut |_| {});
    assert!(matches!(there, Err(BackupError::File { .. })), "{there:?}");
    // It is a ledger to go on with.
    let second = open(other.path());
    append(&second, vec![call("next", "t", "", 0, 3)]);
    assert_eq!(second.health().rows, 6_001);
}

#[test]
fn an_audit_finds_what_does_not_agree() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let entries = (0..50).map(|n| call(&n.to_string(), "t", "s", n * HOUR_MS, 3));
    append(&ledger, entries.collect());
    block_on(ledger.fold(at(49 * HOUR_MS))).unwrap();
    block_on(ledger.prune(at(2 * HOUR_MS))).unwrap();
    let reader = ledger.reader().clone();
    let audit = reader.audit(&mut |_| {}).unwrap();
    assert_eq!(audit.findings, []);
    assert_eq!(
        (audit.rows, audit.hours, audit.summed_requests),
        (48, 50, 50)
    );
    block_on(ledger.close());

    let connection = rusqlite::Connection::open(reader.path()).unwrap();
    let series = "INSERT INTO metric_series VALUES (1, 'm', 's')";
    connection.execute(series, []).unwrap();
    let day_1 = "(SELECT min(hour) FROM daily) + 24";
    let fifth = "(SELECT min(hour) FROM hourly) + 5";
    for (damage, repair, expected) in [
        (
            format!("UPDATE hourly SET output = output + 1 WHERE hour = {fifth}"),
            format!("UPDATE hourly SET output = output - 1 WHERE hour = {fifth}"),
            vec![Finding::Hour(at(5 * HOUR_MS)), Finding::Day(at(0))],
        ),
        (
            format!("UPDATE peaks SET cost_pico = 2 WHERE hour = {fifth}"),
            format!("UPDATE peaks SET cost_pico = 3 WHERE hour = {fifth}"),
            vec![Finding::Hour(at(5 * HOUR_MS))],
        ),
        (
            format!("UPDATE daily_pods SET requests = 25 WHERE hour = {day_1}"),
            format!("UPDATE daily_pods SET requests = 24 WHERE hour = {day_1}"),
            vec![Finding::Day(at(24 * HOUR_MS))],
        ),
        (
            format!("UPDATE daily SET requests = 25 WHERE hour = {day_1}"),
            format!("UPDATE daily SET requests = 24 WHERE hour = {day_1}"),
            vec![Finding::Day(at(24 * HOUR_MS)), Finding::Month(at(0))],
        ),
        (
            "UPDATE monthly SET cost_pico = '1'".to_owned(),
            "UPDATE monthly SET cost_pico = 147".to_owned(),
            vec![Finding::Month(at(0))],
        ),
        (
            "UPDATE meta SET value = 7 WHERE key = 'rows'".to_owned(),
            "UPDATE meta SET value = 48 WHERE key = 'rows'".to_owned(),
            vec![Finding::RowCount {
                stated: 7,
                found: 48,
            }],
        ),
        (
            "INSERT INTO metric_totals VALUES (1, '-99999999999999999999')".to_owned(),
            "DELETE FROM metric_totals".to_owned(),
            vec![Finding::NegativeCounter {
                metric: "m".into(),
                series: "s".into(),
            }],
        ),
        (
            "UPDATE prices SET id = id + 1".to_owned(),
            "UPDATE prices SET id = id - 1".to_owned(),
            vec![Finding::Dangling {
                dictionary: "prices",
                n: 48,
            }],
        ),
    ] {
        connection
            .execute_batch("PRAGMA foreign_keys = OFF")
            .unwrap();
        assert!(connection.execute(&damage, []).unwrap() > 0, "{damage}");
        let found = Reader::open(dir.path())
            .unwrap()
            .audit(&mut |_| {})
            .unwrap();
        assert_eq!(found.findings, expected, "{damage}");
        connection.execute(&repair, []).unwrap();
    }
    let audit = Reader::open(dir.path())
        .unwrap()
        .audit(&mut |_| {})
        .unwrap();
    assert_eq!(audit.findings, []);
}

#[test]
fn a_ledger_that_grows_too_large_gives_its_oldest_hours_back() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let hours = (0..10).flat_map(|hour| (0..500).map(move |n| (hour, n)));
    let entries = hours.map(|(hour, n)| {
        let mut entry = call(&format!("{hour}-{n}"), "t", "", hour * HOUR_MS + n, 3);
        entry.event.finish_reason = Some("x".repeat(1_000));
        entry
    });
    append(&ledger, entries.collect());
    let reader = ledger.reader().clone();
    let before = reader.file_size().unwrap().bytes;
    let metrics = Arc::new(Metrics::new().unwrap());
    let retention = Retention {
        days: 3660,
        bytes_max: Some(before / 2),
    };
    let now = at(9 * HOUR_MS + 5);
    let mut keeper = Keeper::new(ledger.clone(), retention, Arc::clone(&metrics));
    block_on(keeper.look_after(now)).unwrap();
    let after = reader.file_size().unwrap();
    assert!(after.bytes <= before / 2, "{after:?} of {before}");
    assert!(after.bytes > before / 4, "{after:?} of {before}");
    let left = ledger.health().rows;
    assert_eq!(left % 500, 0, "whole hours");
    let oldest = at(HOUR_MS * (10 - i64::try_from(left).unwrap() / 500));
    assert_eq!(reader.oldest_call().unwrap(), Some(oldest));
    let deleted = metrics
        .ledger_deleted_rows_total
        .with_label_values(&["size"]);
    assert_eq!(deleted.get(), 5_000 - left);
    let sums = reader.spend(&SpendQuery::default()).unwrap();
    assert_eq!(sums[0].requests, 5_000);
    assert_eq!(reader.audit(&mut |_| {}).unwrap().findings, []);
}

/// Hours with three calls each, the latest of the hour the dearest; all of one trace.
fn twelve_hours(ledger: &Ledger) {
    let entries = (0..36).map(|n| {
        let ms = n / 3 * HOUR_MS + n % 3;
        call(&n.to_string(), "t", "s", ms, n % 3 + 1)
    });
    append(ledger, entries.collect());
}

#[test]
fn an_impatient_question_is_answered_of_the_latest_calls_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    twelve_hours(&ledger);
    tell(&ledger, Subject::Event("35".into()), "accepted");
    tell(&ledger, Subject::Event("3".into()), "accepted");
    let reader = ledger.reader();
    let impatient = Patience::of(Duration::ZERO);
    let latest = Some(LookedAt {
        hours: 1,
        of_hours: 12,
        from: Some(at(11 * HOUR_MS)),
    });

    let query = units(Unit::Trace, UnitSort::Cost);
    let looked = reader.units_within(&query, impatient).unwrap();
    assert_eq!(looked.at, latest);
    let unit = &looked.answer.items[0];
    assert_eq!((unit.requests, unit.cost), (3, pico(6)));
    let looked = reader.units_within(&query, Patience::ENDLESS).unwrap();
    assert_eq!(looked.at, None);
    assert_eq!(looked.answer.items[0].requests, 36);

    let query = OutcomesQuery::default();
    let looked = reader.outcomes_within(&query, impatient).unwrap();
    assert_eq!(looked.at, latest);
    let rows = |rows: Vec<_>| -> Vec<_> {
        let rows = rows.into_iter();
        let told = rows.map(|row: tollmesh_aggregator::ledger::query::OutcomeRow| {
            (row.label, row.outcomes, row.requests, row.cost, row.spend)
        });
        told.collect()
    };
    let accepted = Some("accepted".to_owned());
    let expected = [
        (accepted.clone(), 1, 1, pico(3), pico(6)),
        (None, 0, 2, pico(3), pico(6)),
    ];
    assert_eq!(rows(looked.answer), expected);
    let expected = [
        (accepted, 2, 2, pico(4), pico(72)),
        (None, 0, 34, pico(68), pico(72)),
    ];
    assert_eq!(rows(reader.outcomes(&query).unwrap()), expected);

    let query = SpendQuery {
        by: vec![Dimension::parse("status")],
        ..SpendQuery::default()
    };
    let looked = reader.spend_within(&query, impatient).unwrap();
    assert_eq!((looked.at, looked.answer[0].requests), (latest, 3));
    // What sums know is looked up as quickly as ever.
    let looked = reader.spend_within(&SpendQuery::default(), impatient);
    let looked = looked.unwrap();
    assert_eq!((looked.at, looked.answer[0].requests), (None, 36));
}

#[test]
fn an_impatient_list_of_calls_leads_on_to_all_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    twelve_hours(&ledger);
    let reader = ledger.reader();
    let impatient = Patience::of(Duration::ZERO);
    let mut query = RequestsQuery {
        limit: 5,
        ..RequestsQuery::default()
    };
    let mut seen = Vec::new();
    loop {
        let looked = reader.requests_within(&query, impatient).unwrap();
        let ids = looked
            .answer
            .items
            .into_iter()
            .map(|row| row.event.event_id);
        seen.extend(ids);
        assert!(seen.len() <= 36, "some come twice");
        query.cursor = match looked.answer.next_cursor {
            Some(cursor) => Some(cursor),
            None => break,
        };
    }
    let all: Vec<String> = (0..36).rev().map(|n| n.to_string()).collect();
    assert_eq!(seen, all);

    // The dearest are found at once: no other hour has any that is dearer.
    let query = RequestsQuery {
        sort: Sort::Cost,
        limit: 1,
        ..RequestsQuery::default()
    };
    let looked = reader.requests_within(&query, impatient).unwrap();
    assert_eq!(looked.answer.items[0].event.event_id, "35");
    let query = RequestsQuery { limit: 12, ..query };
    let looked = reader.requests_within(&query, impatient).unwrap();
    let at = looked.at.unwrap();
    assert_eq!((at.hours, at.of_hours, at.from), (1, 12, None));
}

#[test]
fn what_sums_say_of_hours_takes_patience_too() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    twelve_hours(&ledger);
    let reader = ledger.reader();
    for sort in Sort::ALL {
        let query = RequestsQuery {
            filters: vec![Filter::new("session_id", "none's")],
            sort,
            limit: 5,
            ..RequestsQuery::default()
        };
        // Half of the time goes into what sums say, and there is none.
        let impatient = Patience::of(Duration::ZERO);
        let looked = reader.requests_within(&query, impatient).unwrap();
        let at = looked.at.unwrap();
        assert_eq!((at.hours, at.of_hours), (1, 12), "{sort:?}");
        let looked = reader.requests_within(&query, Patience::ENDLESS).unwrap();
        assert_eq!(
            (looked.answer.items.len(), looked.at),
            (0, None),
            "{sort:?}"
        );
    }
    let mut query = RequestsQuery {
        filters: vec![Filter::new("session_id", "s")],
        limit: 5,
        ..RequestsQuery::default()
    };
    let mut n_seen = 0;
    loop {
        let impatient = Patience::of(Duration::ZERO);
        let page = reader.requests_within(&query, impatient).unwrap().answer;
        n_seen += page.items.len();
        query.cursor = match page.next_cursor {
            Some(cursor) => Some(cursor),
            None => break,
        };
    }
    assert_eq!(n_seen, 36);
}

/// A call whose amounts are often those of others.
fn any_call() -> impl Strategy<Value = Entry> {
    let what = (0..8_i64, 0..50_i64, 0..3_usize, 0..3_usize);
    let amounts = (prop::option::of(0..4_i64), 0..4_u64, 0..4_u64, 0..3_u8);
    (what, amounts, any::<bool>()).prop_map(|((hour, ms, team, trace), amounts, is_late)| {
        let (pico, duration_ms, tokens, source) = amounts;
        let mut entry = call("", ["", "t", "u"][trace], "s", hour * HOUR_MS + ms, 0);
        let event = &mut entry.event;
        event.kind = match is_late {
            true => tollmesh_wire::event::Kind::LateUsage,
            false => tollmesh_wire::event::Kind::Call,
        };
        event.event_id = format!("{hour}-{ms}-{is_late}");
        event.response_id = Some(format!("response-{}", ms % 9));
        event.usage_source = ["reported", "estimated", "absent"][usize::from(source)].into();
        event.duration_ms = duration_ms * 100;
        event.usage = Usage::new().with(Bucket::Output, tokens);
        event.tags.insert("team".into(), format!("team-{team}"));
        event.finish_reason = (ms % 2 == 0).then(|| "stop".to_owned());
        event.fingerprint = (ms % 3 == 0).then(|| format!("body-{}", ms % 2));
        event.attempts = 1 + u32::try_from(ms % 2).unwrap();
        entry.cost = match pico {
            Some(pico) => CostRecord {
                total: Some(PicoUsd::from_pico(pico)),
                ..CostRecord::free(Arc::from("digest"))
            },
            None => CostRecord::unpriced(Arc::from("digest"), "no_row"),
        };
        entry
    })
}

/// All rows, the latest first.
fn all_rows(ledger: &Ledger) -> Vec<RequestRow> {
    let page = ledger.reader().requests(&RequestsQuery {
        limit: 1_000,
        ..RequestsQuery::default()
    });
    let rows = page.unwrap().items;
    assert_eq!(rows.len() as u64, ledger.health().rows);
    rows
}

/// What rows are ordered by.
fn rank(row: &RequestRow, sort: Sort) -> (i64, i64) {
    let key = match sort {
        Sort::Time => row.event.time.as_unix_ms(),
        Sort::Cost => row.cost.total.map_or(i64::MIN, PicoUsd::as_pico),
        Sort::Duration => i64::try_from(row.event.duration_ms).unwrap(),
        Sort::Tokens => {
            let tokens = row.event.usage.get(Bucket::Output);
            i64::try_from(tokens.unwrap_or(0)).unwrap()
        }
    };
    (key, row.row)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_highest_calls_are_those_that_all_calls_give(
        batches in prop::collection::vec(prop::collection::vec(any_call(), 1..20), 1..5),
        repriced in prop::collection::vec(0..7_i64, 0..3),
        from in prop::option::of(0..8 * HOUR_MS),
        limit in 1..6_usize,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let ledger = open(dir.path());
        batches.into_iter().for_each(|batch| append(&ledger, batch));
        for modulus in repriced {
            let repricing = Repricing {
                span: Span::default(),
                filters: vec![],
                last_row: i64::MAX,
                pricer: Arc::new(move |event| CostRecord {
                    total: Some(PicoUsd::from_pico(event.time.as_unix_ms() % (modulus + 1))),
                    ..CostRecord::free(Arc::from("another"))
                }),
            };
            block_on(ledger.reprice(&repricing, &mut |_| {})).unwrap();
        }
        let span = Span { from: from.map(at), to: None };
        let in_span = |row: &&RequestRow| span.from.is_none_or(|from| row.event.time >= from);
        let all = all_rows(&ledger);
        let team = Filter::new("team", "team-1");
        let stopped = Filter::new("finish_reason", "stop");
        for filters in [vec![], vec![team.clone()], vec![stopped.clone()], vec![team, stopped]] {
            let meets = |row: &&RequestRow| filters.iter().all(|filter| {
                let has = match filter.dimension.name() {
                    "team" => row.event.tags.get("team"),
                    _ => row.event.finish_reason.as_ref(),
                };
                has == Some(&filter.value)
            });
            for sort in Sort::ALL {
                let wanted = all.iter().filter(in_span).filter(meets);
                let mut wanted: Vec<_> = wanted.map(|row| rank(row, sort)).collect();
                wanted.sort_unstable_by(|a, b| b.cmp(a));
                let mut query = RequestsQuery {
                    span,
                    filters: filters.clone(),
                    sort,
                    limit,
                    cursor: None,
                };
                let mut found = Vec::new();
                loop {
                    let page = ledger.reader().requests(&query).unwrap();
                    found.extend(page.items.iter().map(|row| rank(row, sort)));
                    prop_assert!(found.len() <= wanted.len());
                    query.cursor = page.next_cursor;
                    if query.cursor.is_none() {
                        break;
                    }
                }
                prop_assert_eq!(&found, &wanted, "{:?} of {:?}", sort, filters);
            }
        }
        prop_assert_eq!(ledger.reader().audit(&mut |_| {}).unwrap().findings, vec![]);
    }

    #[test]
    fn traces_are_the_sums_of_their_calls(
        batches in prop::collection::vec(prop::collection::vec(any_call(), 1..20), 1..4),
        from in prop::option::of(0..8 * HOUR_MS),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let ledger = open(dir.path());
        batches.into_iter().for_each(|batch| append(&ledger, batch));
        let span = Span { from: from.map(at), to: None };
        let rows = all_rows(&ledger).into_iter();
        let rows = rows.filter(|row| span.from.is_none_or(|from| row.event.time >= from));
        let mut wanted: BTreeMap<String, Vec<RequestRow>> = BTreeMap::new();
        for row in rows {
            if let Some(trace) = row.event.trace_id.clone() {
                wanted.entry(trace).or_default().push(row);
            }
        }
        for sort in UnitSort::ALL {
            let query = UnitsQuery { span, ..units(Unit::Trace, sort) };
            let found = ledger.reader().units(&query).unwrap().items;
            prop_assert_eq!(found.len(), wanted.len());
            let key = |unit: &UnitRow| match sort {
                UnitSort::Cost => unit.cost.as_pico(),
                UnitSort::Requests => i128::from(unit.requests),
                UnitSort::Tokens => unit.tokens.iter().sum::<u128>().cast_signed(),
                UnitSort::Retries => i128::from(unit.retries + unit.repeated),
                UnitSort::Span => i128::from(unit.last.as_unix_ms() - unit.first.as_unix_ms()),
                UnitSort::Time => i128::from(unit.last.as_unix_ms()),
            };
            prop_assert!(found.is_sorted_by(|a, b| (key(a), &a.id) > (key(b), &b.id)));
            for unit in found {
                let calls = &wanted[&unit.id];
                let sum = |of: fn(&RequestRow) -> i128| calls.iter().map(of).sum::<i128>();
                let prints = calls.iter().filter_map(|row| row.event.fingerprint.clone());
                let prints: Vec<String> = prints.collect();
                let different: std::collections::BTreeSet<_> = prints.iter().collect();
                let times = || calls.iter().map(|row| row.event.time);
                prop_assert_eq!(unit.requests, calls.len() as u64);
                prop_assert_eq!(unit.cost.as_pico(), sum(|row| {
                    row.cost.total.map_or(0, |pico| pico.as_pico().into())
                }));
                prop_assert_eq!(unit.duration_ms.cast_signed(), sum(|row| {
                    row.event.duration_ms.into()
                }));
                prop_assert_eq!(i128::from(unit.unpriced), sum(|row| {
                    row.cost.total.is_none().into()
                }));
                prop_assert_eq!(i128::from(unit.retries), sum(|row| {
                    (row.event.attempts - 1).into()
                }));
                prop_assert_eq!(unit.repeated as usize, prints.len() - different.len());
                prop_assert_eq!(Some(unit.first), times().min());
                prop_assert_eq!(Some(unit.last), times().max());
            }
        }
    }
}
