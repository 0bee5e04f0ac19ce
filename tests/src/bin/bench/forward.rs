//! One PostgreSQL for a thousand sidecars: events a second, lag, and bytes a row.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};
use tollmesh_tests::artifacts;
use tollmesh_tests::postgres::{Postgres, Setup};

/// What is asked of the server: sidecars, events a second of all together, seconds between visits.
/// The last one finds out how much there would be room for.
const LOADS: &[(u32, u32, u32)] = &[(100, 1_000, 30), (1_000, 10_000, 30), (100, 0, 30)];

/// A server of a few gigabytes, as one would set it up; it waits for the disk.
const SETTINGS: &[&str] = &[
    "max_connections=200",
    "shared_buffers=256MB",
    "max_wal_size=4GB",
    "checkpoint_timeout=15min",
];

/// A measurement shorter than this would see less than two visits of each sidecar.
const SECONDS_MIN: u32 = 60;

/// Measures and prints.
pub fn measure(seconds: u32) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let program = artifacts::postgres().map_err(anyhow::Error::msg)?;
    let load = forward_load()?;
    let setup = Setup {
        waits_for_disk: true,
        settings: SETTINGS.iter().map(|setting| setting.to_string()).collect(),
        ..Setup::default()
    };
    println!(
        "forwarding to one PostgreSQL on this machine, sidecars included; 0 events/s asked for \
         means as many as it takes\n"
    );
    for (n_sidecars, per_second, interval) in LOADS {
        let server = Postgres::set_up(&program, &setup, runtime.handle())?;
        let status = Command::new(&load)
            .arg(server.url())
            .args([n_sidecars, per_second, interval, &seconds.max(SECONDS_MIN)].map(u32::to_string))
            .status()
            .with_context(|| format!("cannot run {}", load.display()))?;
        ensure!(status.success(), "the sidecars ended with {status}");
        tell_sizes(&server)?;
    }
    Ok(())
}

fn tell_sizes(server: &Postgres) -> anyhow::Result<()> {
    let figure = |sql: &str| -> anyhow::Result<f64> { Ok(server.ask(sql)?.parse()?) };
    let rows = figure("SELECT count(*) FROM tollmesh.calls")?;
    let of = |function: &str| {
        figure(&format!(
            "SELECT sum({function}(relid)) FROM pg_partition_tree('tollmesh.events') WHERE isleaf"
        ))
    };
    let (heap, index) = (of("pg_table_size")?, of("pg_indexes_size")?);
    let others = figure(
        "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c
         WHERE relnamespace = 'tollmesh'::regnamespace AND relkind = 'r'
         AND relname NOT LIKE 'events%'",
    )?;
    println!("{:>12.0} rows in the store", rows);
    println!("{:>12.0} bytes a row, of its table", heap / rows);
    println!("{:>12.0} bytes a row, of its index", index / rows);
    println!(
        "{:>12.0} bytes a row, of hourly sums and dictionaries\n",
        others / rows
    );
    Ok(())
}

fn forward_load() -> anyhow::Result<PathBuf> {
    let named = std::env::var_os("TOLLMESH_FORWARD_LOAD").map(PathBuf::from);
    let built = artifacts::root().join("target/driver/examples/forward_load");
    let path = named.unwrap_or(built);
    let build = "cargo build --profile driver -p tollmesh-aggregator --example forward_load";
    path.is_file()
        .then_some(path)
        .with_context(|| format!("the sidecars are not built: run `{build}`"))
}
