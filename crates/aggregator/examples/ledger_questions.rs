//! How fast a large ledger opens and answers: makes one of that many calls, and asks it.
//!
//! `cargo run --release -p tollmesh-aggregator --example ledger_questions [CALLS] [DIRECTORY]`
//!
//! Calls are spread over 90 days: 12 teams with 6 features in 2 environments, 1,000 users, 4 models
//! and 40 pods. Where the directory holds a ledger already, it is asked as it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use tollmesh_aggregator::ledger::query::{
    Dimension, RequestsQuery, Sort, Span, SpendQuery, Unit, UnitSort, UnitsQuery,
};
use tollmesh_aggregator::ledger::{CostRecord, Entry, Ledger, LedgerOptions, Reader};
use tollmesh_aggregator::money::PicoUsd;
use tollmesh_usage::{Bucket, Usage};
use tollmesh_wire::{Event, Source, Timestamp};

/// Calls in one transaction.
const BATCH_CALLS: u64 = 4_000;

/// 2026-08-24T00:00:00Z, so that the last call is of 2026-11-21.
const START_MS: i64 = 1_787_529_600_000;

/// The time that calls are spread over.
const SPAN_MS: u64 = 90 * 86_400_000;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let n_calls: u64 = args.next().map_or(Ok(1_000_000), |n| n.parse())?;
    let scratch = tempfile::tempdir()?;
    let dir = args.next().map(PathBuf::from);
    let dir = dir.as_deref().unwrap_or(scratch.path());
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    if !dir.join("ledger.db").exists() {
        runtime.block_on(make(dir, n_calls))?;
    }
    let started = Instant::now();
    let ledger = Ledger::open(LedgerOptions::new(dir))?;
    tell(
        "opening it",
        started,
        &format!("{} calls", ledger.health().rows),
    );
    ask(ledger.reader())?;
    let started = Instant::now();
    runtime.block_on(ledger.fold(Timestamp::from_unix_ms(i64::MAX)))?;
    tell("folding what is not folded", started, "");
    ask(ledger.reader())?;
    let size = ledger.reader().file_size()?;
    println!("{:>44}: {} MB", "file", size.bytes / 1_000_000);
    println!("{:>44}: {} MB", "peak memory", peak_memory_kib()? / 1_024);
    runtime.block_on(ledger.close());
    Ok(())
}

async fn make(dir: &Path, n_calls: u64) -> Result<()> {
    let ledger = Ledger::open(LedgerOptions::new(dir))?;
    let started = Instant::now();
    for first in (0..n_calls).step_by(BATCH_CALLS as usize) {
        let last = (first + BATCH_CALLS).min(n_calls);
        let calls = (first..last).map(|n| call(n, n_calls));
        ledger.append(calls.collect(), vec![]).await?;
    }
    ledger.close().await;
    tell("making it", started, "");
    Ok(())
}

fn ask(reader: &Reader) -> Result<()> {
    let by = |names: &str| names.split(',').map(Dimension::parse).collect::<Vec<_>>();
    for names in [
        "team,model",
        "feature",
        "environment",
        "user",
        "namespace",
        "pod",
    ] {
        let query = SpendQuery {
            by: by(names),
            ..SpendQuery::default()
        };
        let started = Instant::now();
        let rows = reader.spend(&query)?;
        let what = format!("spend by {names}");
        tell(&what, started, &format!("{} groups", rows.len()));
    }
    let last_30_days = Span {
        from: Some(Timestamp::from_unix_ms(START_MS + 60 * 86_400_000)),
        to: None,
    };
    let started = Instant::now();
    reader.spend(&SpendQuery {
        by: by("team,model"),
        span: last_30_days,
        ..SpendQuery::default()
    })?;
    tell("spend by team,model of 30 days", started, "");
    let last_day = Span {
        from: Some(Timestamp::from_unix_ms(START_MS + 89 * 86_400_000)),
        to: None,
    };
    let started = Instant::now();
    let page = reader.units(&UnitsQuery {
        unit: Unit::Trace,
        span: last_day,
        filters: vec![],
        sort: UnitSort::Cost,
        limit: 50,
        cursor: None,
    })?;
    tell(
        "dearest traces of a day",
        started,
        &format!("{} rows", page.items.len()),
    );
    let started = Instant::now();
    let page = reader.requests(&RequestsQuery {
        span: last_day,
        sort: Sort::Cost,
        limit: 50,
        ..RequestsQuery::default()
    })?;
    tell(
        "dearest calls of a day",
        started,
        &format!("{} rows", page.items.len()),
    );
    Ok(())
}

fn tell(what: &str, started: Instant, more: &str) {
    println!("{what:>44}: {:.1?} {more}", started.elapsed());
}

/// The most memory that this process ever had.
fn peak_memory_kib() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let text = line.context("/proc/self/status has no VmHWM")?;
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    Ok(digits.parse()?)
}

fn call(n: u64, n_calls: u64) -> Entry {
    // A cheap hash, so that tags do not go in step with time.
    let hash = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let user = hash % 1_000;
    let team = user % 12;
    let model =
        ["gpt-5", "gpt-5-mini", "claude-opus-4-6", "gemini-3-pro"][(hash / 1_000 % 4) as usize];
    let tags = [
        ("team", format!("team-{team}")),
        ("feature", format!("feature-{}", user / 12 % 6)),
        (
            "environment",
            ["production", "staging"][(user % 2) as usize].to_owned(),
        ),
        ("user", format!("user-{user}")),
    ];
    let usage = Usage::new()
        .with(Bucket::Input, 1_000 + hash % 700)
        .with(Bucket::CacheRead, 8_000)
        .with(Bucket::Output, 300 + hash % 90);
    Entry {
        event: Event {
            event_id: format!("{:08x}-{n:x}", n % 8),
            request_id: Some(format!("7c4a0f8e-8d1b-4c55-9a5e-{n:012x}")),
            trace_id: Some(format!("{:032x}", n / 5)),
            time: Timestamp::from_unix_ms(START_MS + (n * (SPAN_MS / n_calls.max(1))) as i64),
            duration_ms: 900 + hash % 4_000,
            ttft_ms: Some(350),
            provider: "openai".into(),
            api: "openai.chat".into(),
            host: "api.openai.com".into(),
            model_requested: Some(model.into()),
            model: Some(model.into()),
            response_id: Some(format!("chatcmpl-{n:x}")),
            stream: true,
            usage,
            usage_source: "reported".into(),
            billable: true,
            finish_reason: Some("stop".into()),
            status: Some(200),
            attempts: 1,
            tags: tags.map(|(tag, value)| (tag.to_owned(), value)).into(),
            source: Source {
                namespace: Some(format!("ns-{team}")),
                workload: Some(format!("app-{team}")),
                pod: Some(format!("app-{team}-{}", hash % 40)),
                ..Source::default()
            },
            ..Event::default()
        },
        cost: CostRecord {
            total: Some(PicoUsd::from_pico(
                2_500_000_000 + (hash % 1_000_000) as i64,
            )),
            row: Some(format!("openai.toml:{model}:1").into()),
            ..CostRecord::free(Arc::from("sha256:0123456789abcdef"))
        },
    }
}
