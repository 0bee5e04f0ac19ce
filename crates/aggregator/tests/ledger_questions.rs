//! What the ledger is asked beyond sums: outcomes, traces, sessions, two periods, a copy, and
//! whether it agrees with itself.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tollmesh_aggregator::housekeeping::{Keeper, Retention};
use tollmesh_aggregator::ledger::query::{
    BackupError, ComparisonQuery, Dimension, Filter, Finding, OutcomesQuery, RequestsQuery, Span,
    SpendQuery, Unit, UnitRow, UnitSort, UnitsQuery,
};
use tollmesh_aggregator::ledger::{
    CallOutcome, CostRecord, Entry, Ledger, LedgerOptions, QueryError, Reader, Subject, Told,
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
    let day_1 = "(SELECT min(hour) FROM daily) + 24";
    let fifth = "(SELECT min(hour) FROM hourly) + 5";
    for (damage, repair, expected) in [
        (
            format!("UPDATE hourly SET output = output + 1 WHERE hour = {fifth}"),
            format!("UPDATE hourly SET output = output - 1 WHERE hour = {fifth}"),
            vec![Finding::Hour(at(5 * HOUR_MS)), Finding::Day(at(0))],
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
            "INSERT INTO metric_totals VALUES ('m', 's', '-99999999999999999999')".to_owned(),
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
