//! How long budgets take to begin over a ledger that holds many accounts, nearly all of windows that
//! have ended.
//!
//! `cargo run --release -p tollmesh-aggregator --example budget_start ACCOUNTS DIRECTORY`
//!
//! A hundred days of one budget a day for each of so many users; those of today count.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use tollmesh_aggregator::budgets::Budgets;
use tollmesh_aggregator::budgets::store::MemoryStore;
use tollmesh_aggregator::ledger::{Ledger, LedgerOptions};
use tollmesh_aggregator::metrics::Metrics;
use tollmesh_aggregator::prices::Prices;

/// Milliseconds in a day.
const DAY_MS: i64 = 86_400_000;
/// Days of which the ledger holds accounts.
const DAYS: i64 = 100;
const BUDGETS: &str =
    "[[budget]]\nname = \"user\"\nper = [\"user\"]\nlimit = \"9 USD\"\nwindow = \"day\"\n";

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let n_accounts: i64 = args.next().context("how many accounts?")?.parse()?;
    let dir = args.next().context("in which directory?")?;
    let dir = Path::new(&dir);
    std::fs::create_dir_all(dir)?;
    std::fs::write(dir.join("budgets.toml"), BUDGETS)?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        begin(dir, "an empty ledger").await?;
        fill(&dir.join("state/ledger.db"), n_accounts)?;
        begin(dir, &format!("{n_accounts} accounts")).await?;
        begin(dir, "the same again").await
    })
}

/// Opens the ledger and puts the budgets in force twice, as a start and a reload do.
async fn begin(dir: &Path, what: &str) -> Result<()> {
    let prices = Arc::new(Prices::load(&[], None)?);
    let file = Some(dir.join("budgets.toml"));
    let (budgets, policies) = Budgets::load(file, prices, Arc::new(Metrics::new()?))?;
    let begun = Instant::now();
    let options = LedgerOptions::new(dir.join("state")).charger(budgets.bookkeeper());
    let ledger = Ledger::open(options)?;
    let opened = begun.elapsed();
    let again = policies.clone();
    let store = |node| Arc::new(MemoryStore::new(node)) as Arc<_>;
    budgets.begin(&ledger, policies, store).await?;
    let started = begun.elapsed();
    budgets.adopt(again).await?;
    let reloaded = begun.elapsed() - started;
    ledger.close().await;
    println!(
        "{what}: opened in {} ms, budgets in force after {} ms, a reload takes {} ms",
        opened.as_millis(),
        started.as_millis(),
        reloaded.as_millis()
    );
    Ok(())
}

fn fill(file: &Path, n_accounts: i64) -> Result<()> {
    let connection = rusqlite::Connection::open(file)?;
    let id: String = connection.query_row("SELECT id FROM budgets", [], |row| row.get(0))?;
    let today_ms = jiff::Timestamp::now().as_millisecond() / DAY_MS * DAY_MS;
    connection.execute(
        "INSERT INTO budget_spend (budget, key, window_ms, end_ms, amount, denied, granted, memory)
         WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1)
         SELECT ?2, '[\"user-' || (i / ?3) || '\"]', ?4 - (i % ?3) * ?5, ?4 - (i % ?3 - 1) * ?5,
             1000000, 0, 0, ''
         FROM n",
        rusqlite::params![n_accounts, id, DAYS, today_ms, DAY_MS],
    )?;
    Ok(())
}
