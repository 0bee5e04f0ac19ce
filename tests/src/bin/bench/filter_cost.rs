//! CPU time of Envoy for each request, by set-up and load.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::runtime::Runtime;
use tollmesh_tests::artifacts::Artifacts;
use tollmesh_tests::envoy::Envoy;
use tollmesh_tests::envoy_config::Ingest;

use crate::load::{LOADS, N_CONNECTIONS, Sending};
use crate::setups::Setup;
use crate::{median, sink, upstream};

/// The head start of a load before its measurement: connections are made and caches are warm.
const WARM_UP: Duration = Duration::from_millis(300);

/// One measurement.
#[derive(Clone, Copy, Debug)]
struct Figure {
    cpu_us_per_request: f64,
    requests_per_second: f64,
}

/// Figures of one cell of the table, one for each round.
type Cell = Vec<Figure>;

/// Measures and prints the table, for the loads whose name contains `only`.
pub fn measure(
    artifacts: &Artifacts,
    noop: &Path,
    n_rounds: u32,
    span: Duration,
    only: &str,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let dir = tempfile::tempdir()?;
    let upstream = runtime.block_on(upstream::start())?;
    let handle = runtime.handle();
    let ingest = Ingest::Tcp(runtime.block_on(sink::start())?);
    let mut envoys = Vec::new();
    for setup in Setup::ALL {
        let dir = dir.path().join(format!("{setup:?}"));
        std::fs::create_dir(&dir)?;
        let config = setup.config(&artifacts.wasm, noop, &ingest, upstream)?;
        let envoy = Envoy::start(&artifacts.envoy, &config, 1, &dir, handle);
        envoys.push(envoy.with_context(|| setup.name())?);
    }
    let idle: Vec<u64> = resident(&envoys)?;
    let mut cells = vec![vec![Cell::new(); LOADS.len()]; envoys.len()];
    for round in 1..=n_rounds {
        eprintln!("round {round} of {n_rounds}");
        for load in wanted(only) {
            for (envoy, row) in envoys.iter().zip(&mut cells) {
                row[load].push(figure(&runtime, envoy, load, span)?);
            }
        }
    }
    print(&cells, n_rounds, span, only);
    for ((setup, before), after) in Setup::ALL.iter().zip(idle).zip(resident(&envoys)?) {
        println!(
            "{:<22} {} MB resident idle, {} MB after",
            setup.name(),
            before >> 20,
            after >> 20
        );
    }
    Ok(())
}

/// The places of the loads whose name contains `only`.
fn wanted(only: &str) -> impl Iterator<Item = usize> {
    (0..LOADS.len()).filter(move |load| LOADS[*load].name.contains(only))
}

fn resident(envoys: &[Envoy]) -> anyhow::Result<Vec<u64>> {
    envoys
        .iter()
        .map(|envoy| envoy.process().resident_bytes())
        .collect()
}

fn figure(runtime: &Runtime, envoy: &Envoy, load: usize, span: Duration) -> anyhow::Result<Figure> {
    runtime.block_on(async {
        let sending = Sending::start(envoy.listener(), load);
        tokio::time::sleep(WARM_UP).await;
        let (cpu, n, started) = (
            envoy.process().cpu_time()?,
            sending.n_answers(),
            Instant::now(),
        );
        tokio::time::sleep(span).await;
        let cpu = envoy.process().cpu_time()? - cpu;
        let n = sending.n_answers() - n;
        let took = started.elapsed();
        sending.stop().await?;
        ensure!(n > 0, "{}: no answer in {took:?}", LOADS[load].name);
        Ok(Figure {
            cpu_us_per_request: cpu.as_secs_f64() * 1e6 / n as f64,
            requests_per_second: n as f64 / took.as_secs_f64(),
        })
    })
}

fn print(cells: &[Vec<Cell>], n_rounds: u32, span: Duration, only: &str) {
    println!(
        "CPU of Envoy (1 worker, {N_CONNECTIONS} connections) in µs a request; median of \
         {n_rounds} rounds of {} s, set-ups alternating",
        span.as_secs()
    );
    println!(
        "{:<16} {:<22} {:>9} {:>9} {:>14} {:>9}",
        "load", "set-up", "µs", "x alone", "over empty, µs", "calls/s"
    );
    let middle = |cell: &Cell, of: fn(&Figure) -> f64| median(cell.iter().map(of).collect());
    let cpu = |setup: usize, load: usize| middle(&cells[setup][load], |f| f.cpu_us_per_request);
    let place = |setup: Setup| Setup::ALL.iter().position(|s| *s == setup).unwrap_or(0);
    for load in wanted(only) {
        let named = &LOADS[load];
        let (alone, empty) = (
            cpu(place(Setup::Alone), load),
            cpu(place(Setup::Empty), load),
        );
        for (row, setup) in Setup::ALL.iter().enumerate() {
            let us = cpu(row, load);
            let rate = middle(&cells[row][load], |f| f.requests_per_second);
            println!(
                "{:<16} {:<22} {us:>9.1} {:>9.2} {:>14.1} {rate:>9.0}",
                named.name,
                setup.name(),
                us / alone,
                us - empty
            );
        }
    }
}
