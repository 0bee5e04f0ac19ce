//! How many priced events a second the ledger makes durable, beside SQLite itself.
//!
//! `cargo run --release -p tollmesh-aggregator --example ledger_speed [EVENTS] [DIRECTORY]`

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rust_decimal::Decimal;
use tollmesh_aggregator::ledger::query::{Dimension, RequestsQuery, Sort, SpendQuery};
use tollmesh_aggregator::ledger::{
    CostLine, CostRecord, Entry, Increments, Ledger, LedgerOptions, Meter, Occasion,
};
use tollmesh_aggregator::money::PicoUsd;
use tollmesh_usage::{Bucket, Usage};
use tollmesh_wire::{Event, Source, Timestamp};

/// Events that a filter sends at once.
const BATCH_EVENTS: u64 = 500;

/// Filter workers that send at the same time.
const WORKERS: u64 = 4;

/// Counts what the aggregator's metrics count: requests, cost, tokens by bucket, three histograms.
struct LikeMetrics;

impl Meter for LikeMetrics {
    fn measure(&mut self, entry: &Entry, _: Occasion<'_>, increments: &mut Increments) {
        let event = &entry.event;
        let team = event.tags.get("team").map_or("", String::as_str);
        let model = event.model.as_deref().unwrap_or_default();
        let series = format!(
            r#"team="{team}",environment="production",provider="{}",model="{model}""#,
            event.provider
        );
        increments.add("tollmesh_requests_total", &series, 1);
        let pico = entry.cost.total.unwrap_or_default().as_pico();
        increments.add("tollmesh_cost_usd_total", &series, i128::from(pico));
        for (bucket, n) in event.usage.tokens() {
            increments.add(bucket.name(), &series, i128::from(n));
        }
        let bounds = [100, 300, 1_000, 3_000, 10_000, 30_000];
        let ms = i64::try_from(event.duration_ms).unwrap_or(i64::MAX);
        increments.observe("tollmesh_request_duration_seconds", model, &bounds, ms);
        increments.observe("tollmesh_time_to_first_token_seconds", model, &bounds, 400);
        increments.observe("tollmesh_request_cost_usd", model, &[1_000_000_000], pico);
    }
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let n_events: u64 = args.next().map_or(Ok(200_000), |n| n.parse())?;
    let scratch = match args.next() {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    plain_sqlite(&scratch.path().join("plain.db"), n_events)?;
    through_the_ledger(&scratch.path().join("ledger"), n_events)
}

/// The yardstick: narrow rows, one prepared statement, transactions of the same size.
fn plain_sqlite(path: &Path, n_events: u64) -> Result<()> {
    let connection = rusqlite::Connection::open(path)?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         CREATE TABLE t (id INTEGER PRIMARY KEY, event_id TEXT NOT NULL UNIQUE, a, b, c, d, e);",
    )?;
    let (started, cpu) = (Instant::now(), cpu_time()?);
    for batch in 0..n_events / BATCH_EVENTS {
        let transaction = connection.unchecked_transaction()?;
        let mut insert = transaction.prepare_cached(
            "INSERT INTO t (event_id, a, b, c, d, e) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        for i in batch * BATCH_EVENTS..(batch + 1) * BATCH_EVENTS {
            insert.execute((event_id(i), 1, 2, 3, 4, "five"))?;
        }
        drop(insert);
        transaction.commit()?;
    }
    let cpu = cpu_time()? - cpu;
    report("plain SQLite, 7 columns", n_events, started.elapsed(), cpu);
    Ok(())
}

fn through_the_ledger(dir: &Path, n_events: u64) -> Result<()> {
    let ledger = Ledger::open(LedgerOptions::new(dir).meter(LikeMetrics))?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    // Made beforehand: parsing and pricing are not the ledger's.
    let batches: Vec<Vec<Entry>> = (0..n_events / BATCH_EVENTS)
        .map(|b| {
            (b * BATCH_EVENTS..(b + 1) * BATCH_EVENTS)
                .map(entry)
                .collect()
        })
        .collect();
    let queue = std::rc::Rc::new(std::cell::RefCell::new(batches));
    let (started, cpu) = (Instant::now(), cpu_time()?);
    let accepted = tokio::task::LocalSet::new().block_on(&runtime, async {
        let workers: Vec<_> = (0..WORKERS)
            .map(|_| tokio::task::spawn_local(send_all(ledger.clone(), queue.clone())))
            .collect();
        let mut accepted = 0;
        for worker in workers {
            accepted += worker.await.context("a worker panicked")??;
        }
        Ok::<u64, anyhow::Error>(accepted)
    })?;
    let cpu = cpu_time()? - cpu;
    report("the ledger", accepted, started.elapsed(), cpu);
    ask(&ledger)?;
    let path = ledger.path().to_owned();
    runtime.block_on(ledger.close());
    let bytes = std::fs::metadata(path)?.len();
    println!(
        "{:>34}: {} bytes",
        "file, for each event",
        bytes / accepted.max(1)
    );
    let started = Instant::now();
    let ledger = Ledger::open(LedgerOptions::new(dir))?;
    println!("{:>34}: {:?}", "opening it again", started.elapsed());
    runtime.block_on(ledger.close());
    Ok(())
}

async fn send_all(
    ledger: Ledger,
    queue: std::rc::Rc<std::cell::RefCell<Vec<Vec<Entry>>>>,
) -> Result<u64> {
    let mut accepted = 0;
    loop {
        let Some(batch) = queue.borrow_mut().pop() else {
            return Ok(accepted);
        };
        accepted += ledger.append(batch, vec![]).await?.accepted();
    }
}

fn ask(ledger: &Ledger) -> Result<()> {
    const HALF_HOUR_MS: i64 = 1_800_000;
    for (what, interval_ms) in [
        ("spend from hourly sums", None),
        ("spend from hourly sums, again", None),
        ("spend from rows", Some(HALF_HOUR_MS)),
    ] {
        let started = Instant::now();
        let rows = ledger.reader().spend(&SpendQuery {
            by: vec![Dimension::parse("team"), Dimension::parse("model")],
            interval_ms,
            ..SpendQuery::default()
        })?;
        println!(
            "{what:>34}: {:?} ({} groups)",
            started.elapsed(),
            rows.len()
        );
    }
    for sort in [Sort::Time, Sort::Cost] {
        let started = Instant::now();
        let page = ledger.reader().requests(&RequestsQuery {
            sort,
            limit: 50,
            ..RequestsQuery::default()
        })?;
        let what = format!("{} calls by {}", page.items.len(), sort.name());
        println!("{what:>34}: {:?}", started.elapsed());
    }
    Ok(())
}

fn report(what: &str, n_events: u64, elapsed: Duration, cpu: Duration) {
    let rate = |time: Duration| n_events as f64 / time.as_secs_f64();
    println!(
        "{what:>34}: {:.0} events/s, {:.0} events a CPU second",
        rate(elapsed),
        rate(cpu)
    );
}

/// CPU time of this process, user and system.
fn cpu_time() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .context("/proc/self/stat has no ')'")?
        .split_whitespace()
        .collect();
    let ticks =
        |i: usize| -> Result<u64> { Ok(fields.get(i).context("a field is missing")?.parse()?) };
    // utime and stime, in hundredths of a second on every Linux that we run on.
    Ok(Duration::from_millis((ticks(11)? + ticks(12)?) * 10))
}

fn event_id(i: u64) -> String {
    format!(
        "{:016x}-{i:x}",
        (i % WORKERS).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    )
}

/// One of 5 teams x 10 features x 4 models x 3 hours, with four buckets and four cost lines.
fn entry(i: u64) -> Entry {
    let model = ["gpt-5", "gpt-5-mini", "claude-opus-4-6", "gemini-3-pro"][(i % 4) as usize];
    let tags: BTreeMap<String, String> = [
        ("team", format!("team-{}", i % 5)),
        ("feature", format!("feature-{}", i / 5 % 10)),
        ("environment", "production".to_owned()),
    ]
    .map(|(tag, value)| (tag.to_owned(), value))
    .into();
    let buckets = [
        (Bucket::Input, 1_200 + i % 700),
        (Bucket::CacheRead, 8_000),
        (Bucket::Output, 350 + i % 90),
        (Bucket::Reasoning, 128),
    ];
    let mut usage = Usage::new();
    buckets
        .iter()
        .for_each(|(bucket, n)| usage.set(*bucket, *n));
    let rate = Decimal::new(125, 2);
    let lines: Vec<CostLine> = buckets
        .iter()
        .map(|(bucket, n)| CostLine {
            what: bucket.name().into(),
            amount: (*n).into(),
            rate,
            times: Decimal::ONE,
            usd: Decimal::from(*n) * rate / Decimal::from(1_000_000),
            assumed: false,
            extra: None,
            row: None,
        })
        .collect();
    let usd: Decimal = lines.iter().map(|line| line.usd).sum();
    Entry {
        event: Event {
            event_id: event_id(i),
            request_id: Some(format!("7c4a0f8e-8d1b-4c55-9a5e-{i:012x}")),
            trace_id: Some(format!("{i:032x}")),
            time: Timestamp::from_unix_ms(1_793_491_200_000 + i as i64 * 40),
            duration_ms: 900 + i % 4_000,
            ttft_ms: Some(350),
            provider: "openai".into(),
            api: "openai.chat".into(),
            host: "api.openai.com".into(),
            model_requested: Some(model.into()),
            model: Some(model.into()),
            response_id: Some(format!("chatcmpl-{i:x}")),
            stream: true,
            usage,
            usage_source: "reported".into(),
            billable: true,
            service_tier: Some("default".into()),
            finish_reason: Some("stop".into()),
            status: Some(200),
            attempts: 1,
            tags,
            source: Source {
                namespace: Some("shop".into()),
                workload: Some("checkout".into()),
                pod: Some(format!("checkout-{}", i % 3)),
                ..Source::default()
            },
            ..Event::default()
        },
        cost: CostRecord {
            total: PicoUsd::from_usd(usd).ok(),
            lines,
            row: Some(format!("openai.toml:{model}:1").into()),
            ..CostRecord::free(Arc::from("sha256:0123456789abcdef"))
        },
    }
}
