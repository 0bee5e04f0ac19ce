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
use tollmesh_aggregator::ledger::budgets::{Grant, SpendKey, Step};
use tollmesh_aggregator::ledger::{Ledger, LedgerOptions};
use tollmesh_aggregator::metrics::Metrics;
use tollmesh_aggregator::prices::Prices;

/// Milliseconds in a day.
const DAY_MS: i64 = 86_400_000;
/// Days of which the ledger holds accounts.
const DAYS: i64 = 100;
/// Accounts in one transaction.
const BATCH: usize = 20_000;
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
        fill(&dir.join("state"), n_accounts).await?;
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

/// Writes the accounts, as a store's grants are noted.
async fn fill(state: &Path, n_accounts: i64) -> Result<()> {
    let file = rusqlite::Connection::open(state.join("ledger.db"))?;
    let id: String = file.query_row("SELECT id FROM budgets", [], |row| row.get(0))?;
    drop(file);
    let budget: Arc<str> = id.into();
    let ledger = Ledger::open(LedgerOptions::new(state))?;
    let today_ms = jiff::Timestamp::now().as_millisecond() / DAY_MS * DAY_MS;
    for first in (0..n_accounts).step_by(BATCH) {
        let last = (first + BATCH as i64).min(n_accounts);
        let grants = (first..last).map(|n| {
            let window_ms = today_ms - n % DAYS * DAY_MS;
            Grant {
                at: SpendKey {
                    budget: Arc::clone(&budget),
                    key: format!("[\"user-{}\"]", n / DAYS).into(),
                    window_ms,
                },
                end_ms: window_ms + DAY_MS,
                granted: 0,
                memory: String::new(),
            }
        });
        ledger.budgets(Step::Grants(grants.collect())).await?;
    }
    ledger.close().await;
    Ok(())
}
