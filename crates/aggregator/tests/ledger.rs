//! The ledger from outside: what was appended is there, once, and every sum agrees.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tollmesh_aggregator::ledger::query::{
    Column, CoverageQuery, Dimension, Filter, RequestsQuery, Sort, Span, SpendQuery,
};
use tollmesh_aggregator::ledger::reprice::Pricer;
use tollmesh_aggregator::ledger::{
    AppendError, Appended, CostLine, CostRecord, Entry, Increments, Ledger, LedgerError,
    LedgerOptions, Meter, Occasion, Quarantined, Reader, Recorded, Repricing,
};
use tollmesh_aggregator::money::{PicoSum, PicoUsd};
use tollmesh_pricing::Status;
use tollmesh_usage::{Bucket, Quantity, Unit, Usage};
use tollmesh_wire::event::Kind;
use tollmesh_wire::{Event, ExtraUsage, Outcome, Source, Timestamp};

const HOUR_MS: i64 = 3_600_000;

/// 2026-11-01T00:00:00Z.
const START_MS: i64 = 1_793_491_200_000;

/// Counts requests by team, and their costs.
struct TeamMeter;

impl Meter for TeamMeter {
    fn measure(&mut self, entry: &Entry, occasion: Occasion<'_>, increments: &mut Increments) {
        let team = entry.event.tags.get("team").map_or("", String::as_str);
        let pico = entry.cost.total.unwrap_or_default().as_pico();
        let more = match occasion {
            Occasion::New => i128::from(pico),
            Occasion::Completed(before) => {
                let counted = before.cost.total.unwrap_or_default().as_pico();
                (i128::from(pico) - i128::from(counted)).max(0)
            }
            Occasion::NewlyPriced => i128::from(pico),
        };
        if matches!(occasion, Occasion::New) {
            increments.add("requests", team, 1);
        }
        increments.add("cost", team, more);
        increments.observe("cost_histogram", "", &[1_000, 1_000_000], pico);
    }
}

fn event(id: &str) -> Event {
    Event {
        event_id: id.into(),
        time: Timestamp::from_unix_ms(START_MS),
        duration_ms: 1_200,
        ttft_ms: Some(300),
        provider: "openai".into(),
        api: "openai.chat".into(),
        host: "api.openai.com".into(),
        model: Some("gpt-5".into()),
        usage: Usage::new()
            .with(Bucket::Input, 100)
            .with(Bucket::Output, 20),
        usage_source: "reported".into(),
        billable: true,
        tags: tags(&[("team", "checkout")]),
        attempts: 1,
        ..Event::default()
    }
}

fn tags(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string()));
    owned.collect()
}

fn cost(pico: i64) -> CostRecord {
    CostRecord {
        total: Some(PicoUsd::from_pico(pico)),
        row: Some("openai.toml:gpt-5:1".into()),
        ..CostRecord::free(Arc::from("digest"))
    }
}

fn entry(event: Event, pico: i64) -> Entry {
    Entry {
        event,
        cost: cost(pico),
    }
}

fn open(dir: &Path) -> Ledger {
    Ledger::open(LedgerOptions::new(dir).meter(TeamMeter)).unwrap()
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

fn counter(ledger: &Ledger, metric: &str, series: &str) -> i128 {
    ledger.totals(|totals| {
        totals
            .counter(metric)
            .find(|(name, _)| *name == series)
            .map_or(0, |(_, n)| n)
    })
}

fn total_spend(reader: &Reader) -> (u64, PicoSum) {
    let rows = reader.spend(&SpendQuery::default()).unwrap();
    rows.first()
        .map_or((0, PicoSum::ZERO), |r| (r.requests, r.cost))
}

/// Waits for a fact, for at most ten seconds.
fn eventually(what: &str, fact: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !fact() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::yield_now();
    }
}

#[test]
fn an_event_counts_once_in_a_batch_between_batches_and_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let batch = || {
        vec![
            entry(event("a"), 5),
            entry(event("b"), 7),
            entry(event("a"), 5),
        ]
    };
    assert_eq!(
        append(&ledger, batch()).recorded,
        [Recorded::Accepted, Recorded::Accepted, Recorded::Duplicate]
    );
    assert_eq!(append(&ledger, batch()).duplicate(), 3);
    block_on(ledger.close());

    let ledger = open(dir.path());
    assert_eq!(append(&ledger, batch()).duplicate(), 3);
    assert_eq!(append(&ledger, vec![entry(event("c"), 8)]).accepted(), 1);
    assert_eq!(total_spend(ledger.reader()), (3, PicoSum::from_pico(20)));
    assert_eq!(ledger.health().rows, 3);
    assert_eq!(counter(&ledger, "requests", "checkout"), 3);
    assert_eq!(counter(&ledger, "cost", "checkout"), 20);
}

#[test]
fn totals_go_on_where_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    append(
        &ledger,
        vec![
            entry(event("a"), 1_000),
            entry(event("b"), 1_001),
            entry(event("c"), 5_000_000),
        ],
    );
    let before = ledger.totals(|totals| totals.clone());
    let (series, histogram) = before.histogram("cost_histogram").next().unwrap();
    assert_eq!((series, histogram.count()), ("", 3));
    assert_eq!(histogram.sum, 5_002_001);
    assert_eq!(
        histogram.buckets,
        BTreeMap::from([(1_000, 1), (1_000_000, 1), (i64::MAX, 1)])
    );
    block_on(ledger.close());
    assert_eq!(open(dir.path()).totals(|totals| totals.clone()), before);
}

#[test]
fn sums_outgrow_sixty_four_bits() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let dear = |id: &str| entry(event(id), i64::MAX);
    append(&ledger, vec![dear("a"), dear("b")]);
    append(&ledger, vec![dear("c")]);
    let sum = PicoSum::from_pico(3 * i128::from(i64::MAX));
    assert_eq!(total_spend(ledger.reader()), (3, sum));
    let unaligned = SpendQuery {
        span: Span {
            from: Some(Timestamp::from_unix_ms(1)),
            to: None,
        },
        ..SpendQuery::default()
    };
    assert_eq!(ledger.reader().spend(&unaligned).unwrap()[0].cost, sum);
    assert_eq!(counter(&ledger, "cost", "checkout"), sum.as_pico());
    block_on(ledger.close());
    assert_eq!(
        counter(&open(dir.path()), "cost", "checkout"),
        sum.as_pico()
    );
}

/// An event in which every field says something.
fn full_event() -> Event {
    let mut usage = Usage::new();
    for (n, bucket) in (1..).zip(Bucket::ALL) {
        usage.set(bucket, n);
    }
    usage.set(Bucket::ImageInput, 0);
    usage.set(Bucket::ImageOutput, None);
    usage.set_unit(Unit::AudioSeconds, Quantity::thousandths(1_500));
    Event {
        request_id: Some("r".into()),
        trace_id: Some("t".into()),
        span_id: Some("s".into()),
        model_requested: Some("gpt-5-latest".into()),
        response_id: Some("resp_1".into()),
        stream: true,
        usage,
        billed_usage: Some(Usage::new().with(Bucket::Input, 3)),
        extra_usage: vec![ExtraUsage {
            kind: "advisor".into(),
            model: Some("gpt-5-mini".into()),
            usage: Usage::new().with(Bucket::Output, 9),
        }],
        provider_cost_usd: Some("0.0125".into()),
        service_tier: Some("priority".into()),
        pricing_context: tags(&[("region", "eu")]),
        finish_reason: Some("stop".into()),
        tool_calls: Some(2),
        status: Some(200),
        outcome: Outcome::Aborted,
        response_flags: u64::MAX,
        attempts: 3,
        tags: tags(&[("team", "checkout"), ("feature", "\"q\u{1f600}")]),
        source: Source {
            namespace: Some("shop".into()),
            workload: Some("cart".into()),
            service_account: Some("sa".into()),
            principal: Some("spiffe://x".into()),
            pod: Some("cart-1".into()),
            node: Some("n1".into()),
            cluster: Some("c1".into()),
        },
        reservation_id: Some("res".into()),
        trouble: Some("truncated".into()),
        estimate_basis: Some("relayed_text+request_bytes".into()),
        missing_tags: vec!["cost_center".into(), "\"user\"".into()],
        ..event("full")
    }
}

#[test]
fn a_row_gives_back_the_event_and_its_cost() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let line = CostLine {
        what: "input".into(),
        amount: 100.into(),
        rate: "1.25".parse().unwrap(),
        times: "0.5".parse().unwrap(),
        usd: "0.0000625".parse().unwrap(),
        assumed: true,
        extra: Some(0),
        row: Some("openai.toml:gpt-5-mini:2".into()),
    };
    let priced = Entry {
        event: full_event(),
        cost: CostRecord {
            status: Status::Assumed,
            list: Some(PicoUsd::from_pico(9)),
            lines: vec![line],
            ..cost(62_500_000)
        },
    };
    let unpriced = Entry {
        event: event("plain"),
        cost: CostRecord::unpriced(Arc::from("digest"), "no_row"),
    };
    append(&ledger, vec![priced.clone(), unpriced.clone()]);
    let page = ledger.reader().requests(&RequestsQuery {
        sort: Sort::Cost,
        limit: 10,
        ..RequestsQuery::default()
    });
    let items = page.unwrap().items;
    assert_eq!(items.len(), 2);
    for (item, entry) in items.iter().zip([priced, unpriced]) {
        assert_eq!(item.event, entry.event);
        assert_eq!(item.cost, entry.cost);
    }
    assert_eq!(
        items[0].provider_cost,
        Some(PicoUsd::from_pico(12_500_000_000))
    );
}

#[test]
fn late_usage_completes_the_waiting_row_once() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let waiting = Event {
        usage: Usage::new(),
        usage_source: "absent".into(),
        response_id: Some("resp_1".into()),
        model: None,
        model_requested: Some("gpt-5".into()),
        ..event("call")
    };
    let waiting = Entry {
        event: waiting,
        cost: CostRecord::unpriced(Arc::from("digest"), "usage_absent"),
    };
    let late = |id: &str, response: &str| {
        let event = Event {
            kind: Kind::LateUsage,
            response_id: Some(response.into()),
            tags: tags(&[("team", "poller")]),
            time: Timestamp::from_unix_ms(START_MS + 5 * HOUR_MS),
            ..event(id)
        };
        entry(event, 40)
    };
    let batch = vec![
        waiting,
        late("l1", "resp_1"),
        late("l1", "resp_1"),
        late("l2", "resp_1"),
        late("l3", "resp_9"),
    ];
    assert_eq!(
        append(&ledger, batch).recorded,
        [
            Recorded::Accepted,
            Recorded::Completed,
            Recorded::Duplicate,
            Recorded::Unmatched,
            Recorded::Unmatched
        ]
    );
    let by = vec![
        Dimension::parse("team"),
        Dimension::Column(Column::UsageSource),
        Dimension::Column(Column::Model),
    ];
    let rows = ledger.reader().spend(&SpendQuery {
        by,
        ..SpendQuery::default()
    });
    let rows = rows.unwrap();
    assert_eq!(rows.len(), 1);
    let key: Vec<_> = rows[0].key.iter().map(Option::as_deref).collect();
    assert_eq!(key, [Some("checkout"), Some("reported"), Some("gpt-5")]);
    assert_eq!((rows[0].requests, rows[0].unpriced), (1, 0));
    assert_eq!(rows[0].cost, PicoSum::from_pico(40));
    assert_eq!(counter(&ledger, "requests", "checkout"), 1);
    assert_eq!(counter(&ledger, "cost", "checkout"), 40);
    assert_eq!(ledger.health().rows, 1);
}

/// Gemini's batch tells no model, and a result of it need not.
#[test]
fn a_completed_row_is_priced_by_all_that_is_known_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let pricer: Pricer = Arc::new(|event| match event.model_requested.as_deref() {
        Some("gemini-2.5-pro") if event.time.as_unix_ms() == START_MS => cost(70),
        _ => CostRecord::unpriced(Arc::from("digest"), "no_model"),
    });
    let options = LedgerOptions::new(dir.path()).meter(TeamMeter);
    let ledger = Ledger::open(options.pricer(pricer)).unwrap();
    let waiting = Event {
        usage: Usage::new(),
        usage_source: "absent".into(),
        response_id: Some("batches/b".into()),
        model: None,
        model_requested: Some("gemini-2.5-pro".into()),
        time: Timestamp::from_unix_ms(START_MS),
        ..event("call")
    };
    let late = Event {
        kind: Kind::LateUsage,
        response_id: Some("batches/b".into()),
        model: None,
        model_requested: None,
        time: Timestamp::from_unix_ms(START_MS + 5 * HOUR_MS),
        ..event("late")
    };
    let unpriced = |event, why| Entry {
        event,
        cost: CostRecord::unpriced(Arc::from("digest"), why),
    };
    let batch = vec![unpriced(waiting, "no_usage"), unpriced(late, "no_model")];
    let recorded = append(&ledger, batch).recorded;
    assert_eq!(recorded, [Recorded::Accepted, Recorded::Completed]);
    let rows = ledger.reader().spend(&SpendQuery::default()).unwrap();
    assert_eq!((rows[0].requests, rows[0].unpriced), (1, 0));
    assert_eq!(rows[0].cost, PicoSum::from_pico(70));
    assert_eq!(counter(&ledger, "cost", "checkout"), 70);
}

#[test]
fn reported_late_usage_beats_an_estimate_once() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let call = |id: &str, response: &str, usage_source: &str, pico: i64| {
        let event = Event {
            response_id: Some(response.into()),
            usage_source: usage_source.into(),
            outcome: Outcome::Aborted,
            ..event(id)
        };
        entry(event, pico)
    };
    let late = |id: &str, response: &str, usage_source: &str, pico: i64| {
        let mut late = call(id, response, usage_source, pico);
        late.event.kind = Kind::LateUsage;
        late.event.usage = Usage::new().with(Bucket::Output, 7);
        late
    };
    let batch = vec![
        call("a", "resp_less", "estimated", 40),
        call("b", "resp_more", "estimated", 40),
        call("c", "resp_told", "reported", 40),
        late("l0", "resp_less", "estimated", 10),
        late("l1", "resp_less", "reported", 25),
        late("l1", "resp_less", "reported", 25),
        late("l2", "resp_less", "reported", 25),
        late("l3", "resp_more", "reported", 70),
        late("l4", "resp_told", "reported", 70),
    ];
    assert_eq!(
        append(&ledger, batch).recorded,
        [
            Recorded::Accepted,
            Recorded::Accepted,
            Recorded::Accepted,
            Recorded::Unmatched,
            Recorded::Completed,
            Recorded::Duplicate,
            Recorded::Unmatched,
            Recorded::Completed,
            Recorded::Unmatched,
        ]
    );
    // Rows and sums say what was reported; the counter kept the 40 of the first and grew by the 30
    // that the second was more.
    let sum = PicoSum::from_pico(25 + 70 + 40);
    assert_eq!(total_spend(ledger.reader()), (3, sum));
    assert_eq!(counter(&ledger, "cost", "checkout"), 40 + 70 + 40);
    assert_eq!(counter(&ledger, "requests", "checkout"), 3);
    let page = ledger.reader().requests(&RequestsQuery {
        limit: 10,
        ..RequestsQuery::default()
    });
    for row in page.unwrap().items {
        let event = row.event;
        assert_eq!(event.usage_source, "reported", "{}", event.event_id);
        assert_eq!(event.outcome, Outcome::Aborted, "{}", event.event_id);
        let output = if event.event_id == "c" { 20 } else { 7 };
        assert_eq!(event.usage.get(Bucket::Output), Some(output));
    }
}

#[test]
fn a_bad_entry_is_only_itself_refused() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let bad = Event {
        usage_source: "guessed".into(),
        ..event("bad")
    };
    let unreadable = Quarantined {
        received: Timestamp::from_unix_ms(START_MS),
        event_id: None,
        reason: "expected value at line 1 column 1".into(),
        body: "ü".repeat(4_000),
    };
    let entries = vec![entry(event("a"), 1), entry(bad, 1), entry(event("b"), 1)];
    let appended = block_on(ledger.append(entries, vec![unreadable; 1_200])).unwrap();
    assert_eq!(appended.accepted(), 2);
    let refused: Vec<_> = appended
        .refused()
        .map(|(i, why)| (i, why.to_string()))
        .collect();
    let why = r#"usage_source is "guessed"; expected "reported", "estimated" or "absent""#;
    assert_eq!(refused, [(1, why.to_owned())]);

    let held = ledger.reader().quarantined(2).unwrap();
    assert_eq!(held.n_events, 1_000);
    let latest: Vec<_> = held.latest.iter().map(|q| q.event_id.as_deref()).collect();
    assert_eq!(latest, [Some("bad"), None]);
    assert_eq!(held.latest[1].body.len(), 4_096);
}

#[test]
fn pages_go_through_all_rows_once_while_rows_arrive() {
    let dir = tempfile::tempdir().unwrap();
    for sort in Sort::ALL {
        let ledger = open(&dir.path().join(sort.name()));
        // Ties of every kind, and rows without a cost.
        let call = |i: i64| {
            let mut event = event(&format!("{i}"));
            event.time = Timestamp::from_unix_ms(START_MS + i % 3);
            event.duration_ms = i.unsigned_abs() % 4;
            event.usage.set(Bucket::Input, i.unsigned_abs() % 5);
            let mut entry = entry(event, i % 6);
            if i % 7 == 0 {
                entry.cost = CostRecord::unpriced(Arc::from("digest"), "no_row");
            }
            entry
        };
        append(&ledger, (0..50).map(call).collect());
        let mut query = RequestsQuery {
            sort,
            limit: 7,
            ..RequestsQuery::default()
        };
        let mut seen = Vec::new();
        for arriving in 50.. {
            let page = ledger.reader().requests(&query).unwrap();
            seen.extend(page.items.into_iter().map(|item| item.event.event_id));
            append(&ledger, vec![call(arriving)]);
            query.cursor = page.next_cursor;
            if query.cursor.is_none() {
                break;
            }
        }
        let mut old: Vec<i64> = seen.iter().map(|id| id.parse().unwrap()).collect();
        old.sort_unstable();
        assert!(
            old.windows(2).all(|w| w[0] < w[1]),
            "{sort:?}: twice in {seen:?}"
        );
        let n_old = old.iter().filter(|id| **id < 50).count();
        assert_eq!(n_old, 50, "{sort:?}");
    }
}

#[test]
fn a_cursor_of_another_order_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    for cursor in ["cost.1.1", "time.1", "time.1.2.3", "", "time.x.1"] {
        let query = RequestsQuery {
            cursor: Some(cursor.into()),
            ..RequestsQuery::default()
        };
        assert_eq!(
            ledger.reader().requests(&query).unwrap_err().to_string(),
            format!("cursor {cursor:?} is not one of this query; start without a cursor")
        );
    }
}

#[test]
fn coverage_counts_what_is_not_known() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let untagged = Event {
        tags: tags(&[("feature", "search")]),
        usage_source: "estimated".into(),
        ..event("untagged")
    };
    let relayed = Event {
        outcome: Outcome::Relayed,
        tags: BTreeMap::new(),
        ..event("relayed")
    };
    let unpriced = Entry {
        event: Event {
            usage_source: "absent".into(),
            ..event("unpriced")
        },
        cost: CostRecord::unpriced(Arc::from("digest"), "no_row"),
    };
    // An image has no tokens, and a price.
    let by_piece = Event {
        usage_source: "absent".into(),
        ..event("by_piece")
    };
    append(
        &ledger,
        vec![
            entry(event("a"), 1),
            entry(untagged, 1),
            entry(relayed, 0),
            entry(by_piece, 40_000),
            unpriced,
        ],
    );
    for from in [None, Some(Timestamp::from_unix_ms(1))] {
        let coverage = ledger.reader().coverage(&CoverageQuery {
            span: Span { from, to: None },
            filters: vec![],
            tags: vec!["team".into(), "feature".into()],
        });
        let coverage = coverage.unwrap();
        assert_eq!(coverage.requests, 4);
        assert_eq!((coverage.unpriced, coverage.assumed), (1, 0));
        assert_eq!((coverage.estimated, coverage.absent), (1, 1));
        assert_eq!(
            coverage.untagged,
            [("team".to_owned(), 1), ("feature".to_owned(), 3)]
        );
    }
}

#[test]
fn filters_join_tags_and_columns() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let other = Event {
        tags: tags(&[("team", "search"), ("provider", "forged")]),
        provider: "anthropic".into(),
        request_id: Some("r1".into()),
        status: Some(429),
        outcome: Outcome::Error,
        source: Source {
            namespace: Some("shop".into()),
            ..Source::default()
        },
        ..event("other")
    };
    append(&ledger, vec![entry(event("a"), 1), entry(other, 2)]);
    for (filters, n) in [
        (&[("team", "checkout")][..], 1),
        (&[("provider", "anthropic"), ("namespace", "shop")], 1),
        (&[("provider", "forged")], 0),
        (&[("outcome", "error")], 1),
        (&[("outcome", "odd")], 0),
        (&[("status", "429")], 1),
        (&[("request_id", "r1"), ("team", "search")], 1),
        (&[("team", "' OR 1=1 --")], 0),
        (&[("namespace", "")], 1),
        (&[("team", "")], 0),
        (&[("no_such_tag", "")], 2),
        (&[("request_id", ""), ("service_tier", "")], 1),
        (&[("model", "gpt-5")], 2),
    ] {
        let filters: Vec<Filter> = filters.iter().map(|(k, v)| Filter::new(k, *v)).collect();
        let page = ledger.reader().requests(&RequestsQuery {
            filters: filters.clone(),
            limit: 10,
            ..RequestsQuery::default()
        });
        assert_eq!(page.unwrap().items.len(), n, "{filters:?}");
        let spend = ledger.reader().spend(&SpendQuery {
            filters: filters.clone(),
            ..SpendQuery::default()
        });
        let requests: u64 = spend.unwrap().iter().map(|row| row.requests).sum();
        assert_eq!(requests, n as u64, "{filters:?}");
    }
}

#[test]
fn refusals_to_open_say_file_reason_and_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let refusal = |dir: &Path| match Ledger::open(LedgerOptions::new(dir)) {
        Ok(_) => panic!("opened {}", dir.display()),
        Err(error) => error.to_string(),
    };
    let with_file = |name: &str, make: &dyn Fn(&Path)| {
        let dir = dir.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        make(&dir.join("ledger.db"));
        let message = refusal(&dir);
        message.replace(dir.to_str().unwrap(), "DIR")
    };
    let database = |sql: &'static str| {
        move |file: &Path| {
            let connection = rusqlite::Connection::open(file).unwrap();
            connection.execute_batch(sql).unwrap();
        }
    };
    assert_eq!(
        with_file(
            "other",
            &database("CREATE TABLE t (x); PRAGMA application_id = 4660;")
        ),
        "DIR/ledger.db: not a ledger (a database of application id 0x00001234, a ledger has \
         0x546f6c4d); move the file away, or name another state_dir"
    );
    let newer = "CREATE TABLE t (x); PRAGMA application_id = 1416588365; PRAGMA user_version = 99;";
    assert_eq!(
        with_file("newer", &database(newer)),
        "DIR/ledger.db: ledger of schema version 99, this tollmesh knows version 9; run the \
         release that wrote it, or move the file away to begin a new ledger"
    );
    let text = dir.path().join("text");
    std::fs::create_dir(&text).unwrap();
    std::fs::write(text.join("ledger.db"), "not a database, but text").unwrap();
    assert_eq!(
        Reader::open(&text).err().map(|error| error.to_string()),
        Some(format!(
            "{}/ledger.db: not a ledger (no SQLite database); move the file away, or name another \
             state_dir",
            text.display()
        ))
    );
    let file = text.join("ledger.db");
    assert_eq!(
        refusal(&file),
        format!(
            "{}: cannot use this directory for the ledger; name a writable one as state_dir",
            file.display()
        )
    );
    let empty = dir.path().join("empty");
    assert_eq!(
        Reader::open(&empty).err().map(|error| error.to_string()),
        Some(format!(
            "{}: no ledger here; start `tollmesh serve` with this state_dir first",
            empty.join("ledger.db").display()
        ))
    );
}

/// Makes a ledger with the schema that releases of version 2 made, and these rows in it.
fn write_version_2(dir: &Path, rows: &str) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(dir.join("ledger.db")).unwrap();
    connection
        .execute_batch(concat!(
            include_str!("ledger_versions/2.sql"),
            "INSERT INTO tag_sets VALUES (1, '{\"team\":\"checkout\"}');
             INSERT INTO tags VALUES (1, 'team', 'checkout');
             INSERT INTO sources (id, body) VALUES (1, '{}');
             INSERT INTO models (id, body, provider, api, host, model)
             VALUES (1, '[]', 'openrouter', 'openai.chat', 'openrouter.ai', 'gpt-5');
             INSERT INTO prices VALUES (1, '[]', 'openrouter.toml:gpt-5:1', 'digest');
             PRAGMA application_id = 1416588365;
             PRAGMA user_version = 2;"
        ))
        .unwrap();
    connection.execute_batch(rows).unwrap();
    connection
}

/// A call as version 2 kept it, with its hour's sums: outcome, cost status, our cost, the
/// provider's.
fn version_2_row(id: &str, outcome: i64, status: i64, ours: &str, theirs: &str) -> String {
    format!(
        "INSERT INTO events (event_id, time_ms, duration_ms, model_id, tag_set, source_id, outcome,
             stream, usage_source, billable, input, cost_pico, provider_cost_pico, cost_status,
             price_id, response_flags, attempts)
         VALUES ('{id}', {START_MS}, 7, 1, 1, 1, {outcome}, 0, 0, 1, 3, {ours}, {theirs}, {status},
             1, 0, 1);
         INSERT INTO hourly VALUES ({START_MS} / 3600000, 1, 1, 1, {outcome}, 0, {status}, 1,
             coalesce({ours}, 0), 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0)
         ON CONFLICT DO UPDATE SET requests = requests + 1,
             cost_pico = cost_pico + excluded.cost_pico, input = input + 3,
             duration_ms = duration_ms + 7;"
    )
}

#[test]
fn a_ledger_of_the_first_version_is_brought_up_to_date_with_its_rows() {
    let dir = tempfile::tempdir().unwrap();
    let connection = write_version_2(dir.path(), &version_2_row("a", 0, 0, "1", "NULL"));
    let back = "ALTER TABLE events DROP COLUMN fingerprint; PRAGMA user_version = 1;";
    connection.execute_batch(back).unwrap();
    drop(connection);
    let refused = Reader::open(dir.path()).err().unwrap().to_string();
    assert!(refused.contains("start `tollmesh serve`"), "{refused}");

    let ledger = open(dir.path());
    let print = Some("a3817f04ba25a8e66df67214c7550293".to_owned());
    let fingerprinted = Event {
        fingerprint: print.clone(),
        ..event("b")
    };
    append(&ledger, vec![entry(fingerprinted, 1)]);
    assert_eq!(total_spend(ledger.reader()).0, 2);
    let found = |value: &str| {
        let filters = vec![Filter::new("fingerprint", value)];
        let page = ledger.reader().requests(&RequestsQuery {
            filters,
            limit: 10,
            ..RequestsQuery::default()
        });
        let rows = page.unwrap().items.into_iter();
        let events = rows.map(|row| (row.event.event_id, row.event.fingerprint));
        events.collect::<Vec<_>>()
    };
    assert_eq!(found(print.as_deref().unwrap()), [("b".to_owned(), print)]);
    assert_eq!(found(""), [("a".to_owned(), None)]);
}

#[test]
fn a_ledger_of_the_second_version_gets_sums_of_what_providers_state() {
    let dir = tempfile::tempdir().unwrap();
    let rows = [
        version_2_row("more", 0, 0, "10", "12"),
        version_2_row("less", 0, 0, "10", "9"),
        version_2_row("silent", 0, 0, "10", "NULL"),
        version_2_row("unpriced", 0, 2, "NULL", "100"),
        version_2_row("relayed", 4, 0, "0", "1000"),
    ];
    drop(write_version_2(dir.path(), &rows.concat()));
    let ledger = open(dir.path());
    let estimated = Event {
        estimate_basis: Some("relayed_text".into()),
        provider_cost_usd: Some("0.000000000015".into()),
        ..event("new")
    };
    append(&ledger, vec![entry(estimated, 20)]);

    let sums = |span| {
        let query = SpendQuery {
            span,
            ..SpendQuery::default()
        };
        ledger.reader().spend(&query).unwrap().remove(0)
    };
    // Once from the hours, once from the rows.
    let until = Timestamp::from_unix_ms(START_MS + 1);
    let of_rows = Span {
        from: None,
        to: Some(until),
    };
    for span in [Span::default(), of_rows] {
        let row = sums(span);
        assert_eq!((row.requests, row.cost), (5, PicoSum::from_pico(50)));
        assert_eq!(
            (row.stated, row.provider_cost),
            (4, PicoSum::from_pico(136))
        );
        assert_eq!(row.drift, PicoSum::from_pico(2 - 1 - 5));
    }
    let page = ledger.reader().requests(&RequestsQuery {
        limit: 10,
        ..RequestsQuery::default()
    });
    let items = page.unwrap().items;
    assert_eq!(
        items[0].event.estimate_basis.as_deref(),
        Some("relayed_text")
    );
    assert!(items.iter().all(|item| item.original.is_none()));
}

#[test]
fn a_ledger_that_was_brought_up_to_date_has_the_tables_of_a_new_one() {
    let columns = |dir: &Path| {
        block_on(open(dir).close());
        let connection = rusqlite::Connection::open(dir.join("ledger.db")).unwrap();
        let mut statement = connection
            .prepare(
                "SELECT t.name, c.name, c.type, c.\"notnull\", c.dflt_value, c.pk
                 FROM sqlite_schema t, pragma_table_info(t.name) c
                 WHERE t.type IN ('table', 'index') ORDER BY 1, 2",
            )
            .unwrap();
        let rows = statement.query_map([], |row| {
            (0..6)
                .map(|i| row.get(i))
                .collect::<rusqlite::Result<Vec<rusqlite::types::Value>>>()
        });
        rows.unwrap().map(Result::unwrap).collect::<Vec<_>>()
    };
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    drop(write_version_2(old.path(), ""));
    let new = columns(new.path());
    assert_eq!(columns(old.path()), new);
    assert!(new.len() > 100, "{} columns", new.len());
}

#[test]
fn one_writer_and_any_readers() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let refused = Ledger::open(LedgerOptions::new(dir.path())).err().unwrap();
    assert!(matches!(refused, LedgerError::Locked { .. }));
    assert_eq!(
        refused.to_string(),
        format!(
            "{}: another tollmesh (process {}) writes this ledger; stop it, or give this one a \
             state_dir of its own",
            dir.path().join("ledger.lock").display(),
            std::process::id()
        )
    );
    append(&ledger, vec![entry(event("a"), 1)]);
    let reader = Reader::open(dir.path()).unwrap();
    assert_eq!(total_spend(&reader).0, 1);
    append(&ledger, vec![entry(event("b"), 1)]);
    assert_eq!(total_spend(&reader).0, 2);
    block_on(ledger.close());
    assert_eq!(total_spend(&reader).0, 2);
    open(dir.path());
}

#[test]
fn closing_commits_what_waits_and_refuses_what_comes() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let other = ledger.clone();
    block_on(async {
        let waiting = ledger.append(vec![entry(event("a"), 1)], vec![]);
        let (appended, ()) = tokio::join!(waiting, ledger.clone().close());
        assert_eq!(appended.unwrap().accepted(), 1);
        let refused = other.append(vec![entry(event("b"), 1)], vec![]).await;
        assert!(matches!(refused, Err(AppendError::Closed)));
    });
    assert_eq!(total_spend(&Reader::open(dir.path()).unwrap()).0, 1);
}

/// Lets an event pass only when it is told to.
struct GatedMeter(mpsc::Receiver<()>);

impl Meter for GatedMeter {
    fn measure(&mut self, _: &Entry, _: Occasion<'_>, _: &mut Increments) {
        self.0.recv().unwrap();
    }
}

#[test]
fn a_full_queue_is_busy_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let (open_gate, gate) = mpsc::channel();
    let mut options = LedgerOptions::new(dir.path()).meter(GatedMeter(gate));
    options.queue_events_max = 2;
    let ledger = Ledger::open(options).unwrap();
    let call = |id: &str| entry(event(id), 1);
    block_on(async {
        let first = ledger.append(vec![call("a"), call("b")], vec![]);
        let second = async {
            let refused = ledger.append(vec![call("c")], vec![]).await;
            assert!(matches!(refused, Err(AppendError::Busy { queued: 2 })));
            open_gate.send(()).unwrap();
            open_gate.send(()).unwrap();
        };
        assert_eq!(tokio::join!(first, second).0.unwrap().accepted(), 2);
        // Larger than the queue, but nothing else waits.
        (0..3).for_each(|_| open_gate.send(()).unwrap());
        let large = vec![call("c"), call("d"), call("e")];
        assert_eq!(ledger.append(large, vec![]).await.unwrap().accepted(), 3);
    });
    assert_eq!(ledger.health().queued_events, 0);
}

#[test]
fn a_failing_ledger_says_so_and_recovers_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    append(&ledger, vec![entry(event("a"), 1)]);
    let saboteur = rusqlite::Connection::open(ledger.path()).unwrap();
    saboteur
        .execute_batch("ALTER TABLE meta RENAME TO hidden")
        .unwrap();
    let batch = || vec![entry(event("b"), 2), entry(event("c"), 3)];
    let refused = block_on(ledger.append(batch(), vec![]));
    assert!(matches!(refused, Err(AppendError::Storage(_))));
    assert!(ledger.health().failing.is_some());
    assert_eq!(counter(&ledger, "cost", "checkout"), 1);

    saboteur
        .execute_batch("ALTER TABLE hidden RENAME TO meta")
        .unwrap();
    eventually("the ledger is well", || ledger.health().failing.is_none());
    assert_eq!(append(&ledger, batch()).accepted(), 2);
    assert_eq!(total_spend(ledger.reader()), (3, PicoSum::from_pico(6)));
    assert_eq!(counter(&ledger, "cost", "checkout"), 6);
}

#[test]
fn what_is_no_database_at_the_start_is_set_aside_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let text = "not a database, but text";
    std::fs::write(dir.path().join("ledger.db"), text).unwrap();
    let ledger = open(dir.path());
    let health = ledger.health();
    assert_eq!((health.rows, health.set_aside), (0, 1));
    assert!(health.failing.is_none());
    let aside = std::fs::read_to_string(dir.path().join("ledger.db.damaged-1"));
    assert_eq!(aside.unwrap(), text);
    assert_eq!(append(&ledger, vec![entry(event("a"), 5)]).accepted(), 1);
}

/// A file system of its own, so that it can be full; gone when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where this process may not mount.
    fn mount(size: &str) -> Option<SmallDisk> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tollmesh-test"])
            .arg(dir.path())
            .output();
        let mounted = mounted.is_ok_and(|output| output.status.success());
        mounted.then(|| SmallDisk(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("--lazy")
            .arg(self.0.path())
            .status();
    }
}

#[test]
fn a_full_disk_is_said_and_got_over() {
    let Some(disk) = SmallDisk::mount("4m") else {
        eprintln!("SKIPPED a_full_disk_is_said_and_got_over: this user may not mount a tmpfs");
        return;
    };
    let ledger = open(disk.0.path());
    append(&ledger, vec![entry(event("first"), 1)]);
    let filler = disk.0.path().join("filler");
    let filled = std::fs::write(&filler, vec![0; 8 << 20]);
    assert_eq!(filled.unwrap_err().kind(), std::io::ErrorKind::StorageFull);

    let batch = || -> Vec<Entry> {
        (0..2_000)
            .map(|i| entry(event(&format!("{i}")), 1))
            .collect()
    };
    let refused = block_on(ledger.append(batch(), vec![]));
    assert!(
        matches!(refused, Err(AppendError::Storage(_))),
        "{refused:?}"
    );
    assert!(ledger.health().failing.is_some());
    assert_eq!(counter(&ledger, "requests", "checkout"), 1);

    std::fs::remove_file(filler).unwrap();
    eventually("the ledger is well", || ledger.health().failing.is_none());
    assert_eq!(append(&ledger, batch()).accepted(), 2_000);
    assert_eq!(total_spend(ledger.reader()).0, 2_001);
    assert_eq!(counter(&ledger, "requests", "checkout"), 2_001);
    assert_eq!(ledger.health().set_aside, 0);
}

#[test]
fn a_damaged_ledger_is_set_aside_and_its_counters_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    append(&ledger, vec![entry(event("a"), 5), entry(event("b"), 6)]);
    assert_eq!(total_spend(ledger.reader()).0, 2);
    let saboteur = rusqlite::Connection::open(ledger.path()).unwrap();
    saboteur
        .execute_batch(
            "PRAGMA writable_schema = ON;
             UPDATE sqlite_schema SET sql = 'CREATE TABLE' WHERE name = 'events';
             PRAGMA schema_version = 1000;",
        )
        .unwrap();
    drop(saboteur);
    let batch = || vec![entry(event("c"), 7)];
    let refused = block_on(ledger.append(batch(), vec![]));
    assert!(matches!(refused, Err(AppendError::Storage(_))));
    assert_eq!(append(&ledger, batch()).accepted(), 1);

    let health = ledger.health();
    assert_eq!((health.rows, health.set_aside), (1, 1));
    assert!(health.failing.is_none());
    assert!(dir.path().join("ledger.db.damaged-1").exists());
    assert_eq!(total_spend(ledger.reader()), (1, PicoSum::from_pico(7)));
    assert_eq!(counter(&ledger, "requests", "checkout"), 3);
    assert_eq!(counter(&ledger, "cost", "checkout"), 18);
    let histogram = |ledger: &Ledger| {
        ledger.totals(|totals| {
            let (_, histogram) = totals.histogram("cost_histogram").next().unwrap();
            (histogram.count(), histogram.sum)
        })
    };
    assert_eq!(histogram(&ledger), (3, 18));
    block_on(ledger.close());
    let ledger = open(dir.path());
    assert_eq!(counter(&ledger, "cost", "checkout"), 18);
    assert_eq!(histogram(&ledger), (3, 18));
}

#[test]
fn old_rows_go_and_their_sums_stay() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let at = |i: i64, hour: i64| Event {
        time: Timestamp::from_unix_ms(START_MS + hour * HOUR_MS + i),
        finish_reason: Some("x".repeat(200)),
        ..event(&format!("{hour}-{i}"))
    };
    let hour = |hour: i64, n: i64| (0..n).map(|i| entry(at(i, hour), 1)).collect();
    let pages = || -> i64 {
        let connection = rusqlite::Connection::open(ledger.path()).unwrap();
        connection
            .query_row("PRAGMA page_count", [], |row| row.get(0))
            .unwrap()
    };
    // Each table and index of the schema has a page, however empty.
    let empty = pages();
    append(&ledger, hour(0, 4_500));
    append(&ledger, hour(1, 10));
    let before = pages() - empty;
    let middle_of_hour_1 = Timestamp::from_unix_ms(START_MS + HOUR_MS + 5);
    assert_eq!(block_on(ledger.prune(middle_of_hour_1)).unwrap(), 4_500);
    assert_eq!(block_on(ledger.prune(middle_of_hour_1)).unwrap(), 0);
    let after = pages() - empty;
    assert!(after * 10 < before, "{after} of {before} pages stay");
    assert_eq!(ledger.health().rows, 10);
    assert_eq!(total_spend(ledger.reader()).0, 4_510);
    assert_eq!(counter(&ledger, "requests", "checkout"), 4_510);

    // Row numbers are not used again, even when no row is left.
    let hour_2 = Timestamp::from_unix_ms(START_MS + 2 * HOUR_MS);
    assert_eq!(block_on(ledger.prune(hour_2)).unwrap(), 10);
    block_on(ledger.close());
    let ledger = open(dir.path());
    append(&ledger, vec![entry(at(0, 2), 1)]);
    let page = ledger.reader().requests(&RequestsQuery::default());
    assert_eq!(page.unwrap().items[0].row, 4_511);
}

/// Hours of calls since [`START_MS`], where a month begins: before and after the ends of hours, days
/// and months.
const HOURS: [i64; 6] = [-1, 0, 5, 23, 24, 35 * 24];

/// A random call, small in variety so that groups and ids collide.
fn any_entry() -> impl Strategy<Value = Entry> {
    let what = (
        0..3_usize,
        0..3_usize,
        0..HOURS.len(),
        0..5_usize,
        0..3_usize,
        0..40_u32,
    );
    let amounts = (
        prop::option::of(0..9_u64),
        0..9_u64,
        prop::option::of(any::<i64>()),
    );
    (what, amounts, any::<bool>()).prop_map(|(what, (input, output, pico), is_late)| {
        let (team, model, hour, outcome, source, id) = what;
        let outcomes = [
            Outcome::Success,
            Outcome::Error,
            Outcome::Aborted,
            Outcome::Denied,
            Outcome::Relayed,
        ];
        let sources = ["reported", "estimated", "absent"];
        let mut event = Event {
            kind: if is_late { Kind::LateUsage } else { Kind::Call },
            time: Timestamp::from_unix_ms(START_MS + HOURS[hour] * HOUR_MS + i64::from(id)),
            source: Source {
                namespace: Some("shop".into()),
                pod: Some(format!("pod-{}", id % 2)),
                ..Source::default()
            },
            tags: match ["", "checkout", "search"][team] {
                "" => BTreeMap::new(),
                name => tags(&[("team", name)]),
            },
            model: Some(["gpt-5", "gpt-5-mini", "o9"][model].into()),
            outcome: outcomes[outcome],
            usage_source: sources[source].into(),
            response_id: Some(format!("resp_{}", id % 5)),
            ttft_ms: input,
            duration_ms: output,
            ..event(&format!("{id}"))
        };
        event.usage = Usage::new().with(Bucket::Output, output);
        event.usage.set(Bucket::Input, input);
        event.provider_cost_usd = input.map(|n| format!("0.{n}"));
        event.billable = output != 8;
        let cost = match pico {
            Some(pico) => cost(pico),
            None => CostRecord::unpriced(Arc::from("digest"), "no_row"),
        };
        Entry { event, cost }
    })
}

/// The value of a dimension, told from the row itself.
fn value_of(event: &Event, cost: &CostRecord, name: &str) -> Option<String> {
    match name {
        "model" => event.model.clone(),
        "outcome" => Some(event.outcome.name().to_owned()),
        "usage_source" => Some(event.usage_source.clone()),
        "cost_status" => Some(cost.status.name().to_owned()),
        "namespace" => event.source.namespace.clone(),
        "pod" => event.source.pod.clone(),
        tag => event.tags.get(tag).cloned(),
    }
}

/// Group, requests, cost, unpriced, input tokens, output tokens, duration, first tokens, calls of
/// which the provider states the cost, what it states, and its difference to ours.
type Sums = BTreeMap<(Option<i64>, Vec<Option<String>>), [i128; 10]>;

/// What a spend query has to answer, added up one row at a time.
fn sums_by_hand(reader: &Reader, query: &SpendQuery) -> Sums {
    let page = reader.requests(&RequestsQuery {
        span: query.span,
        limit: 1_000,
        ..RequestsQuery::default()
    });
    let mut sums = Sums::new();
    for item in page.unwrap().items {
        if item.event.outcome == Outcome::Relayed {
            continue;
        }
        let ms = item.event.time.as_unix_ms();
        let start = query.interval_ms.map(|interval| ms - ms % interval);
        let names = query.by.iter().map(Dimension::name);
        let key = names.map(|name| value_of(&item.event, &item.cost, name));
        let group = sums.entry((start, key.collect())).or_default();
        let tokens = |bucket| i128::from(item.event.usage.get(bucket).unwrap_or(0));
        let is_charged = item.event.billable && item.event.outcome != Outcome::Denied;
        let stated = item.provider_cost.filter(|_| is_charged);
        let stated = stated.map(|pico| i128::from(pico.as_pico()));
        let ours = item.cost.total.map(|pico| i128::from(pico.as_pico()));
        let more = [
            1,
            i128::from(item.cost.total.unwrap_or_default().as_pico()),
            i128::from(item.cost.total.is_none()),
            tokens(Bucket::Input),
            tokens(Bucket::Output),
            i128::from(item.event.duration_ms),
            i128::from(item.event.ttft_ms.unwrap_or(0)),
            i128::from(stated.is_some()),
            stated.unwrap_or(0),
            stated.zip(ours).map_or(0, |(stated, ours)| stated - ours),
        ];
        group.iter_mut().zip(more).for_each(|(sum, n)| *sum += n);
    }
    sums
}

fn sums_of_ledger(reader: &Reader, query: &SpendQuery) -> Sums {
    let rows = reader.spend(query).unwrap();
    let n_rows = rows.len();
    let tokens = |row: &[u128; 11], bucket: Bucket| row[bucket as usize].cast_signed();
    let sums: Sums = rows
        .into_iter()
        .map(|row| {
            let start = row.start.map(Timestamp::as_unix_ms);
            let sums = [
                i128::from(row.requests),
                row.cost.as_pico(),
                i128::from(row.unpriced),
                tokens(&row.tokens, Bucket::Input),
                tokens(&row.tokens, Bucket::Output),
                row.duration_ms.cast_signed(),
                row.ttft_ms.cast_signed(),
                i128::from(row.stated),
                row.provider_cost.as_pico(),
                row.drift.as_pico(),
            ];
            ((start, row.key), sums)
        })
        .collect();
    assert_eq!(sums.len(), n_rows, "a group stands twice");
    sums
}

/// An hour since [`START_MS`] at which something begins, or next to one.
fn any_hour() -> impl Strategy<Value = i64> {
    let edges = [
        -24,
        -1,
        0,
        5,
        23,
        24,
        48,
        30 * 24,
        35 * 24,
        36 * 24,
        61 * 24,
    ];
    (prop::sample::select(edges.to_vec()), 0..2_i64).prop_map(|(hour, more)| hour + more)
}

/// The begin or end of a span: none, on the hour, or anywhere near the events.
fn any_instant() -> impl Strategy<Value = Option<Timestamp>> {
    let at = |ms: i64| Timestamp::from_unix_ms(START_MS + ms);
    prop_oneof![
        Just(None),
        any_hour().prop_map(move |hour| Some(at(hour * HOUR_MS))),
        (any_hour(), 0..41_i64).prop_map(move |(hour, ms)| Some(at(hour * HOUR_MS + ms))),
    ]
}

/// A price that is any one, but the same for the same event in the same round.
fn odd_cost(event: &Event, round: usize) -> CostRecord {
    let id: i64 = event.event_id.parse().unwrap();
    match (id + i64::try_from(round).unwrap()) % 3 {
        0 => CostRecord::unpriced(Arc::from("digest 2"), "no_row"),
        n => cost(id * 1_000 + n),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn spend_is_the_sum_of_the_rows(
        batches in prop::collection::vec(
            (prop::collection::vec(any_entry(), 0..12), prop::option::of(any_hour())),
            1..6,
        ),
        spans in prop::collection::vec((any_instant(), any_instant()), 7),
        repriced in prop::collection::vec((any_instant(), any_instant()), 0..3),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let ledger = open(dir.path());
        for (batch, folded) in batches {
            append(&ledger, batch);
            if let Some(hour) = folded {
                let before = Timestamp::from_unix_ms(START_MS + hour * HOUR_MS);
                block_on(ledger.fold(before)).unwrap();
            }
        }
        for (n, (from, to)) in repriced.into_iter().enumerate() {
            let repricing = Repricing {
                span: Span { from, to },
                filters: vec![],
                last_row: i64::MAX,
                pricer: Arc::new(move |event| odd_cost(event, n)),
            };
            block_on(ledger.reprice(&repricing, &mut |_| {})).unwrap();
        }
        let by = [
            vec![],
            vec!["team"],
            vec!["model", "outcome", "cost_status"],
            vec!["usage_source", "team", "no_such_tag"],
            vec!["namespace", "model"],
            vec!["pod"],
            vec!["pod", "team"],
        ];
        for ((from, to), by) in spans.into_iter().zip(by) {
            for interval_ms in [0, 7, HOUR_MS, 2 * HOUR_MS, 24 * HOUR_MS, 48 * HOUR_MS] {
                let interval_ms = Some(interval_ms).filter(|ms| *ms > 0);
                let query = SpendQuery {
                    by: by.iter().map(|name| Dimension::parse(name)).collect(),
                    interval_ms,
                    span: Span { from, to },
                    filters: vec![],
                };
                prop_assert_eq!(
                    sums_of_ledger(ledger.reader(), &query),
                    sums_by_hand(ledger.reader(), &query)
                );
            }
        }
        prop_assert_eq!(ledger.reader().audit(&mut |_| {}).unwrap().findings, vec![]);
    }
}
