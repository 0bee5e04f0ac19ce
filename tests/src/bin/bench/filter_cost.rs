//! What each set-up makes of each load: Envoy's CPU time a request, and the time to first byte.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::runtime::Runtime;
use tollmesh_tests::artifacts::Artifacts;
use tollmesh_tests::envoy::{Envoy, Launch};
use tollmesh_tests::envoy_config::Ingest;

use crate::load::{LOADS, Sending};
use crate::setups::Setup;
use crate::table::{Cell, Figure, Table};
use crate::{quantile, sink, upstream};

/// The head start of a load before its measurement: connections are made and caches are warm.
const WARM_UP: Duration = Duration::from_millis(300);

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
        let envoy = Envoy::start(Launch::new(&artifacts.envoy, config, 1, &dir), handle);
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
    let table = Table {
        cells: &cells,
        loads: wanted(only).collect(),
    };
    table.print(n_rounds, span);
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
        sending.first_bytes_us();
        let (cpu, n, started) = (
            envoy.process().cpu_time_of_threads()?,
            sending.n_answers(),
            Instant::now(),
        );
        tokio::time::sleep(span).await;
        let cpu = envoy.process().cpu_time_of_threads()?.saturating_sub(cpu);
        let n = sending.n_answers() - n;
        let took = started.elapsed();
        let first_bytes = sending.first_bytes_us();
        sending.stop().await?;
        ensure!(n > 0, "{}: no answer in {took:?}", LOADS[load].name);
        Ok(Figure {
            cpu_us_per_request: cpu.as_secs_f64() * 1e6 / n as f64,
            requests_per_second: n as f64 / took.as_secs_f64(),
            first_byte_us: quantile(first_bytes.clone(), 0.5),
            first_byte_p99_us: quantile(first_bytes, 0.99),
        })
    })
}
