//! The benchmark: what the filter costs a request, and what the aggregator takes a second.
//!
//! Everything is measured in one run, set-ups alternating within a round, and the median of the
//! rounds counts: on a shared machine two runs differ more than two set-ups do. The figure is CPU
//! time of the Envoy process for each request, from the kernel's books: throughput measures the load
//! generator too. So does latency, but for a paced load, under which nobody waits in a queue.

mod admission;
mod dashboard;
mod filter_cost;
mod forward;
mod ingest;
mod load;
mod questions;
mod reserve;
mod setups;
mod sink;
mod table;
mod upstream;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use tollmesh_tests::artifacts::{self, Artifacts};

/// The load of which only the aggregator knows.
const AGGREGATOR_ALONE: &str = "ingest";

/// The load of calls that strict budgets admit, as the aggregator sees it.
const RESERVE: &str = "reserve";

/// The same as clients see it.
const ADMISSION: &str = "admission";

/// Measures the filter's cost in Envoy against an empty filter and Envoy's own, and the
/// aggregator's intake.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Options {
    /// How often each set-up is measured; the median counts
    #[arg(long, value_name = "N", default_value_t = 9)]
    rounds: u32,
    /// How long each measurement lasts
    #[arg(long, value_name = "SECONDS", default_value_t = 1)]
    seconds: u32,
    /// Only the loads of the filter whose name contains this, and nothing of the aggregator; of
    /// "ingest" the aggregator alone, of "reserve" its admission by strict budgets, of "admission"
    /// what that adds to a call
    #[arg(long, value_name = "NAME")]
    load: Option<String>,
    /// Measure forwarding instead: a thousand sidecars that share one PostgreSQL
    #[arg(long)]
    postgres: bool,
    /// Measure questions instead: to a ledger of so many calls
    #[arg(long, value_name = "N")]
    ledger_rows: Option<u64>,
    /// Measure the dashboard instead: how fast it is drawn over a million calls
    #[arg(long)]
    dashboard: bool,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> anyhow::Result<()> {
    ensure!(options.rounds > 0, "--rounds: at least one");
    ensure!(options.seconds > 0, "--seconds: at least one");
    if options.postgres {
        return forward::measure(options.seconds);
    }
    if let Some(n_rows) = options.ledger_rows {
        return questions::measure(n_rows);
    }
    if options.dashboard {
        return dashboard::measure(options.rounds);
    }
    let span = Duration::from_secs(options.seconds.into());
    if options.load.as_deref() == Some(AGGREGATOR_ALONE) {
        let tollmesh = artifacts::tollmesh().map_err(anyhow::Error::msg)?;
        return ingest::measure(&tollmesh, options.rounds, span);
    }
    if options.load.as_deref() == Some(RESERVE) {
        let tollmesh = artifacts::tollmesh().map_err(anyhow::Error::msg)?;
        return reserve::measure(&tollmesh, span * options.rounds);
    }
    let artifacts = Artifacts::find().map_err(anyhow::Error::msg)?;
    if options.load.as_deref() == Some(ADMISSION) {
        return admission::measure(&artifacts, options.rounds, span);
    }
    let noop = noop_filter()?;
    let only = options.load.as_deref().unwrap_or_default();
    filter_cost::measure(&artifacts, &noop, options.rounds, span, only)?;
    if options.load.is_some() {
        return Ok(());
    }
    admission::measure(&artifacts, options.rounds, span)?;
    ingest::measure(&artifacts.tollmesh, options.rounds, span)?;
    reserve::measure(&artifacts.tollmesh, span * options.rounds)
}

fn noop_filter() -> anyhow::Result<PathBuf> {
    let named = std::env::var_os("TOLLMESH_NOOP_WASM").map(PathBuf::from);
    let built = artifacts::root().join("target/wasm32-wasip1/release/noop_filter.wasm");
    let path = named.unwrap_or(built);
    let build = "cargo build --release --manifest-path tests/noop-filter/Cargo.toml \
                 --target wasm32-wasip1 --target-dir target";
    path.is_file()
        .then_some(path)
        .with_context(|| format!("the empty filter is not built: run `{build}`"))
}

/// The middle of the figures; of two middles the lower.
fn median(figures: Vec<f64>) -> f64 {
    quantile(figures, 0.5)
}

/// The least figure that so large a part of them does not exceed.
fn quantile(mut figures: Vec<f64>, part: f64) -> f64 {
    figures.sort_by(f64::total_cmp);
    let place = (figures.len() as f64 * part).ceil() as usize;
    figures
        .get(place.saturating_sub(1))
        .copied()
        .unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![9.0, 1.0, 5.0]), 5.0);
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), 2.0);
        assert!(median(Vec::new()).is_nan());
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(quantile(hundred, 0.99), 99.0);
    }
}
