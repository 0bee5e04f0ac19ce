//! Forwards to a PostgreSQL as many sidecars do, through the very code that they run.
//!
//! `cargo run --release -p tollmesh-aggregator --example forward_load URL SIDECARS EVENTS_A_SECOND
//! INTERVAL_SECONDS SECONDS`; with 0 events a second, each visit brings a full parcel and the next
//! one follows at once.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use tokio::sync::Semaphore;
use tollmesh_aggregator::forward::{ForwardError, KnownIds, Place, Store};
use tollmesh_aggregator::ledger::outbox::{self, Cells, Facts, Parcel};
use tollmesh_usage::Bucket;

/// Rows in a parcel, as the sidecar has them.
const PARCEL_ROWS_MAX: u64 = 1_000;

/// Connections at a time; a pooler would have the others wait, too.
const CONNECTIONS_MAX: usize = 50;

/// What one sidecar did.
#[derive(Default)]
struct Tally {
    rows: u64,
    visits: u64,
    failures: u64,
    busy: Duration,
    /// Of each visit: how long the oldest event waited from its making to its commit.
    lags: Vec<Duration>,
}

/// The load of each sidecar.
#[derive(Clone)]
struct Load {
    place: Place,
    /// Events that one sidecar makes in a second; `None` for as many as go.
    per_second: Option<f64>,
    interval: Duration,
    span: Duration,
    room: Arc<Semaphore>,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, sidecars, per_second, interval, seconds] = arguments.as_slice() else {
        anyhow::bail!("URL SIDECARS EVENTS_A_SECOND INTERVAL_SECONDS SECONDS");
    };
    let (n_sidecars, per_second): (u32, u32) = (sidecars.parse()?, per_second.parse()?);
    let load = Load {
        place: Place::parse(url).map_err(anyhow::Error::msg)?,
        per_second: (per_second > 0).then(|| f64::from(per_second) / f64::from(n_sidecars)),
        interval: Duration::from_secs(interval.parse()?),
        span: Duration::from_secs(seconds.parse()?),
        room: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let started = Instant::now();
    let tally = runtime.block_on(all(n_sidecars, &load))?;
    tell(n_sidecars, per_second, &load, &tally, started.elapsed());
    Ok(())
}

/// All sidecars at once; what they did together.
async fn all(n_sidecars: u32, load: &Load) -> Result<Tally> {
    let tasks: Vec<_> = (0..n_sidecars)
        .map(|n| tokio::spawn(sidecar(n, load.clone())))
        .collect();
    let mut sum = Tally::default();
    for task in tasks {
        let tally = task.await.context("a sidecar panicked")?;
        sum.rows += tally.rows;
        sum.visits += tally.visits;
        sum.failures += tally.failures;
        sum.busy += tally.busy;
        sum.lags.extend(tally.lags);
    }
    sum.lags.sort();
    Ok(sum)
}

async fn sidecar(n: u32, load: Load) -> Tally {
    let mut tally = Tally::default();
    let mut known = KnownIds::default();
    let chance = RandomState::new().hash_one(n);
    let id = format!("{:016x}{:016x}", RandomState::new().hash_one(n), chance);
    let begun = Instant::now();
    // Sidecars are in the middle of an interval each, wherever they stand in it.
    let mut next = load.interval.mul_f64((chance % 1_000) as f64 / 1_000.0);
    let mut oldest = Duration::ZERO;
    while begun.elapsed() < load.span {
        if load.per_second.is_some() {
            let until = next.min(load.span);
            tokio::time::sleep(until.saturating_sub(begun.elapsed())).await;
        }
        let _permit = load.room.acquire().await;
        let due = match load.per_second {
            Some(rate) => (begun.elapsed().as_secs_f64() * rate) as u64 - tally.rows,
            None => PARCEL_ROWS_MAX,
        };
        let read_at = begun.elapsed();
        let visit = Instant::now();
        match bring(n, &id, &load.place, tally.rows, due, &mut known).await {
            Ok(()) => tally.rows += due,
            Err(error) => {
                tally.failures += 1;
                if tally.failures == 1 {
                    eprintln!("sidecar {n}: {}", error.chain());
                }
            }
        }
        tally.visits += 1;
        tally.busy += visit.elapsed();
        tally.lags.push(begun.elapsed() - oldest);
        oldest = read_at;
        let jitter = 0.5 + (RandomState::new().hash_one(n) % 1_000) as f64 / 1_000.0;
        next = begun.elapsed() + load.interval.mul_f64(jitter);
    }
    tally
}

/// One visit with so many rows.
async fn bring(
    sidecar: u32,
    id: &str,
    place: &Place,
    first: u64,
    n_rows: u64,
    known: &mut KnownIds,
) -> Result<(), ForwardError> {
    let mut store = Store::open(place, id, 13).await?;
    let mut sent = 0;
    while sent < n_rows {
        let rows = (n_rows - sent).min(PARCEL_ROWS_MAX);
        store
            .deliver(&parcel(sidecar, id, first + sent, rows), known)
            .await?;
        sent += rows;
    }
    Ok(())
}

/// Rows as a sidecar's ledger has them of a busy pod: five teams' features, three models, three cost
/// lines, ids of the usual lengths.
fn parcel(sidecar: u32, id: &str, first: u64, n_rows: u64) -> Parcel {
    let rows = first..first + n_rows;
    let columns = std::iter::once("revision").chain(outbox::columns());
    Parcel {
        number: RandomState::new().hash_one(first).cast_signed() | 1,
        upto: i64::try_from(first + n_rows).ok(),
        rows: rows.clone().map(|n| (n as i64, 0)).collect(),
        columns: columns
            .map(|name| (name, cells(name, id, rows.clone())))
            .collect(),
        facts: facts(sidecar),
        ..Parcel::default()
    }
}

fn cells(name: &'static str, id: &str, rows: std::ops::Range<u64>) -> Cells {
    if outbox::is_text(name) {
        return Cells::Texts(rows.map(|n| text(name, id, n)).collect());
    }
    let now_ms = now_ms();
    Cells::Integers(rows.map(|n| integer(name, n, now_ms)).collect())
}

fn text(name: &str, id: &str, n: u64) -> Option<String> {
    let hash = RandomState::new().hash_one(n);
    Some(match name {
        "event_id" => format!("{}-{n:x}", id.get(..16)?),
        "response_id" => format!("chatcmpl-{hash:016x}{n:013x}"),
        "finish_reason" => "stop".into(),
        "request_id" => format!(
            "{hash:08.8x}-{n:04x}-4000-8000-{:012x}",
            hash & 0xffff_ffff_ffff
        ),
        "trace_id" => format!("{hash:016x}{n:016x}"),
        "span_id" => format!("{hash:016x}"),
        "cost_lines" => format!(
            "[[\"input\",\"{}\",\"2.50\",\"1\",\"0.003085\"],[\"cache_read\",\"512\",\"1.25\",\"1\",\
             \"0.00064\"],[\"output\",\"{}\",\"10.00\",\"1\",\"0.0096\"]]",
            300 + n % 1_000,
            90 + n % 300
        ),
        _ => return None,
    })
}

fn integer(name: &str, n: u64, now_ms: i64) -> Option<i64> {
    let n = n as i64;
    Some(match name {
        "time_ms" => now_ms - n % 1_000,
        "duration_ms" => 800 + n % 5_000,
        "ttft_ms" => 200 + n % 300,
        "input" => 300 + n % 1_000,
        "cache_read" => 512,
        "output" => 90 + n % 300,
        "cost_pico" => 13_325_000_000 + n,
        "model_id" | "price_id" => 1 + n % 3,
        "tag_set" => 1 + n % 5,
        "source_id" | "stream" | "billable" | "attempts" => 1,
        "status" => 200,
        "response_flags" | "revision" | "outcome" | "usage_source" | "cost_status"
        | "tool_calls" => 0,
        name if Bucket::ALL.iter().any(|bucket| bucket.name() == name) => return None,
        _ => return None,
    })
}

fn facts(sidecar: u32) -> Facts {
    let team = sidecar % 20;
    let model =
        |n: i64| format!("[\"openai\",\"openai.chat\",\"api.openai.com\",\"m{n}\",\"m{n}\",null]");
    Facts {
        tag_sets: (1..=5)
            .map(|n| {
                let tags = format!(
                    "{{\"environment\":\"production\",\"feature\":\"f{n}\",\"team\":\"t{team}\"}}"
                );
                (n, tags)
            })
            .collect(),
        sources: [(
            1,
            format!("{{\"namespace\":\"n{team}\",\"pod\":\"w{team}-{sidecar}\",\"workload\":\"w{team}\"}}"),
        )]
        .into(),
        models: (1..=3).map(|n| (n, model(n))).collect(),
        prices: (1..=3)
            .map(|n| (n, format!("[\"openai.toml:m{n}:1\",\"digest\"]")))
            .collect(),
    }
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis() as i64)
}

fn tell(n_sidecars: u32, per_second: u32, load: &Load, tally: &Tally, elapsed: Duration) {
    let seconds = elapsed.as_secs_f64();
    let percentile = |p: usize| {
        let at = tally.lags.len().saturating_sub(1) * p / 100;
        tally.lags.get(at).map_or(0.0, Duration::as_secs_f64)
    };
    let visits = tally.visits.max(1) as f64;
    println!(
        "{n_sidecars} sidecars, {per_second} events/s asked for, a visit every {} s each, {seconds:.0} s",
        load.interval.as_secs()
    );
    println!("{:>12.0} events/s taken", tally.rows as f64 / seconds);
    println!(
        "{:>12.1} visits/s, {} failed",
        visits / seconds,
        tally.failures
    );
    println!("{:>12.0} rows a visit", tally.rows as f64 / visits);
    println!(
        "{:>12.1} ms a visit",
        tally.busy.as_secs_f64() * 1e3 / visits
    );
    if load.per_second.is_some() {
        println!(
            "{:>12.1} s lag of the oldest event in the median visit, {:.1} s in the 99th of 100",
            percentile(50),
            percentile(99)
        );
    }
}
