//! The aggregator's intake: events a second that are priced and durable, and what that takes.

mod plain;
pub mod send;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tollmesh_tests::aggregator::Aggregator;
use tollmesh_tests::envoy_config::Ingest;
use tollmesh_tests::http;

use crate::{median, quantile};
use plain::Plain;
use send::{EVENTS_PER_BATCH, Load, N_SENDERS};

/// Label sets of a small mesh: 300 series of counters.
const N_LABEL_SETS: u64 = 60;

/// Label sets of a large one: 10,000 series of counters, as many as the default cap lets be.
pub const N_LABEL_SETS_MANY: u64 = 1_930;

/// Rows in the ledger at a restart.
const N_ROWS: u64 = 1_000_000;

/// Events a second of the paced load, and events in each of its batches: a mesh whose 25 workers
/// send four times a second.
pub const PACED: (u64, u64) = (10_000, 100);

/// The goals, as the table says them.
const PER_CPU_SECOND_MIN: f64 = 50_000.0;
pub const ACK_P99_MS_MAX: f64 = 20.0;
const START_MS_MAX: f64 = 50.0;
const SCRAPE_MS_MAX: f64 = 20.0;
const REST_BYTES_MAX: u64 = 40 << 20;

/// An aggregator under one load.
struct Bench<'r> {
    runtime: &'r Runtime,
    aggregator: Aggregator,
    load: Load,
    _dir: TempDir,
}

/// Events a second and a CPU second, one figure a round.
#[derive(Default)]
struct Rates {
    per_second: Vec<f64>,
    per_cpu_second: Vec<f64>,
}

/// Measures and prints.
pub fn measure(tollmesh: &Path, n_rounds: u32, span: Duration) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    println!("\naggregator, batches of {EVENTS_PER_BATCH} events, {N_SENDERS} senders");
    let mut few = Bench::start(tollmesh, &runtime, N_LABEL_SETS)?;
    let many = Bench::start(tollmesh, &runtime, N_LABEL_SETS_MANY)?;
    let at_rest = few.process()?.resident_bytes()?;
    let dir = tempfile::tempdir()?;
    let mut yardstick = Plain::create(dir.path())?;
    let mut rates = [Rates::default(), Rates::default(), Rates::default()];
    for _ in 0..n_rounds {
        let [plain, of_few, of_many] = &mut rates;
        plain.add(yardstick.run(span)?);
        of_few.add(few.run(span)?);
        of_many.add(many.run(span)?);
    }
    tell_rates(rates);
    tell_waits(few.paced(span * n_rounds)?);
    tell_memory(at_rest, &few, &many)?;
    tell_scrape(&many)?;
    many.check()?;
    tell_start(&mut few)
}

fn tell_waits(waits: Vec<f64>) {
    let p99 = quantile(waits.clone(), 0.99);
    tell(
        p99,
        ACK_P99_MS_MAX,
        "ms p99 of an answer at 10,000 events/s",
    );
    println!("{:>12.1} ms median of the same", median(waits));
}

fn tell_scrape(many: &Bench<'_>) -> anyhow::Result<()> {
    let what = format!("ms for a scrape of {} series", many.n_series()?);
    let figure = scrape_ms(many.runtime, many.aggregator.operator())?;
    tell(figure, SCRAPE_MS_MAX, &what);
    Ok(())
}

fn tell_start(few: &mut Bench<'_>) -> anyhow::Result<()> {
    let n_rows = few.fill(N_ROWS)?;
    let started = start_ms(few.runtime, &mut few.aggregator)?;
    let what = format!("ms from start to ready with {n_rows} rows");
    tell(started, START_MS_MAX, &what);
    Ok(())
}

fn tell_rates(rates: [Rates; 3]) {
    let [plain, few, many] =
        rates.map(|rates| (median(rates.per_second), median(rates.per_cpu_second)));
    println!(
        "{:>12.0} rows/s, {:.0} a CPU second: a plain SQLite loop",
        plain.0, plain.1
    );
    for (what, figure) in [("few series", few), ("10,000 series", many)] {
        println!(
            "{:>12.0} events/s, priced and durable, {what}: {:.2} of plain SQLite",
            figure.0,
            figure.0 / plain.0
        );
        let per_cpu_second = format!(
            "events a CPU second, {what}: {:.2} of plain SQLite",
            figure.1 / plain.1
        );
        let verdict = verdict(figure.1 >= PER_CPU_SECOND_MIN);
        println!(
            "{:>12.0} {per_cpu_second} (goal {PER_CPU_SECOND_MIN}: {verdict})",
            figure.1
        );
    }
}

fn tell_memory(at_rest: u64, few: &Bench<'_>, many: &Bench<'_>) -> anyhow::Result<()> {
    tell(
        (at_rest >> 20) as f64,
        (REST_BYTES_MAX >> 20) as f64,
        "MB resident at rest",
    );
    for (what, bench) in [("few series", few), ("10,000 series", many)] {
        let process = bench.process()?;
        println!(
            "{:>12} MB resident after the load, {} at its peak, {what}",
            process.resident_bytes()? >> 20,
            process.peak_resident_bytes()? >> 20
        );
    }
    Ok(())
}

fn tell(figure: f64, goal: f64, what: &str) {
    println!(
        "{figure:>12.1} {what} (goal {goal}: {})",
        verdict(figure <= goal)
    );
}

pub fn verdict(is_met: bool) -> &'static str {
    match is_met {
        true => "met",
        false => "missed",
    }
}

// === impl Rates ===

impl Rates {
    fn add(&mut self, rate: plain::Rate) {
        self.per_second.push(rate.per_second);
        self.per_cpu_second.push(rate.per_cpu_second);
    }
}

// === impl Bench ===

impl<'r> Bench<'r> {
    fn start(tollmesh: &Path, runtime: &'r Runtime, n_label_sets: u64) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let aggregator = Aggregator::start(tollmesh, dir.path(), false, "", runtime.handle())?;
        let Ingest::Tcp(ingest) = aggregator.ingest().clone() else {
            anyhow::bail!("the aggregator does not listen on TCP")
        };
        Ok(Bench {
            runtime,
            aggregator,
            load: Load {
                ingest,
                next_id: Arc::default(),
                n_label_sets,
                hour: send::present_hour(),
            },
            _dir: dir,
        })
    }

    fn process(&self) -> anyhow::Result<&tollmesh_tests::process::Running> {
        self.aggregator.process().context("the aggregator runs")
    }

    fn run(&self, span: Duration) -> anyhow::Result<plain::Rate> {
        let cpu = self.process()?.cpu_time()?;
        let started = Instant::now();
        let n = self.runtime.block_on(self.load.send_for(span))? as f64;
        Ok(plain::Rate {
            per_second: n / started.elapsed().as_secs_f64(),
            per_cpu_second: n / (self.process()?.cpu_time()? - cpu).as_secs_f64(),
        })
    }

    fn paced(&self, span: Duration) -> anyhow::Result<Vec<f64>> {
        let (per_second, per_batch) = PACED;
        let paced = self.load.send_paced(per_second, per_batch, span);
        self.runtime.block_on(paced)
    }

    /// Sends until the ledger has so many rows; says how many it has.
    fn fill(&self, n_rows: u64) -> anyhow::Result<u64> {
        while self.load.next_id.load(Ordering::Relaxed) < n_rows {
            self.run(Duration::from_secs(1))?;
        }
        self.check()?;
        Ok(self.load.next_id.load(Ordering::Relaxed))
    }

    /// Whether every event that was sent was taken once and is there.
    fn check(&self) -> anyhow::Result<()> {
        let sent = self.load.next_id.load(Ordering::Relaxed) as f64;
        let metrics = self.aggregator.metrics()?;
        for metric in ["tollmesh_events_accepted_total", "tollmesh_ledger_rows"] {
            let n = metrics.sum(metric, &[]);
            ensure!(n == sent, "{sent} events were sent; {metric} is {n}");
        }
        Ok(())
    }

    fn n_series(&self) -> anyhow::Result<usize> {
        let text = self.aggregator.metrics()?.0;
        Ok(text.lines().filter(|line| !line.starts_with('#')).count())
    }
}

fn scrape_ms(runtime: &Runtime, operator: SocketAddr) -> anyhow::Result<f64> {
    let mut figures = Vec::new();
    for _ in 0..9 {
        let started = Instant::now();
        runtime.block_on(http::get(operator, "/metrics"))?;
        figures.push(started.elapsed().as_secs_f64() * 1e3);
    }
    Ok(median(figures))
}

/// From a start to the first `/readyz` that says 200, asked every half millisecond.
fn start_ms(runtime: &Runtime, aggregator: &mut Aggregator) -> anyhow::Result<f64> {
    let mut figures = Vec::new();
    for _ in 0..5 {
        aggregator.stop()?;
        let started = Instant::now();
        aggregator.launch()?;
        loop {
            let reply = runtime.block_on(http::get(aggregator.operator(), "/readyz"));
            if reply.is_ok_and(|reply| reply.status == 200) {
                break;
            }
            ensure!(
                started.elapsed() < Duration::from_secs(20),
                "not ready after 20 s"
            );
            std::thread::sleep(Duration::from_micros(500));
        }
        figures.push(started.elapsed().as_secs_f64() * 1e3);
    }
    Ok(median(figures))
}
