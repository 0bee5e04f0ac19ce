//! `tollmesh report`

use clap::Args;
use serde_json::{Map, Value};

use super::output::{self, Format};
use super::store::{Opened, Store};
use super::{Files, Outcome};
use crate::clock;
use crate::ledger::query::{Dimension, SpendQuery};
use crate::question::Parts;
use crate::rows;

/// Spend, tokens and requests by team, model, or whatever calls are tagged with.
///
/// Reads the ledger in state_dir, also while `tollmesh serve` writes it. Cost is that of priced
/// calls; how many are not priced stands beside it.
///
/// Example: tollmesh report --by team,model --from 2026-11-01 --where environment:production
#[derive(Debug, Args)]
pub struct Arguments {
    /// Tags or columns to group by, such as team,model,namespace,provider.
    #[arg(long, value_name = "NAMES", required = true)]
    by: Vec<String>,
    /// From when on: 2026-11-22T04:00:00Z, 2026-11-22, or an age such as 24h.
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Before when.
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Only calls with that tag or column; may be given several times.
    #[arg(long = "where", value_name = "NAME:VALUE")]
    filters: Vec<String>,
    /// A row for each interval, such as 1h or 1d.
    #[arg(long, value_name = "DURATION")]
    interval: Option<String>,
    #[command(flatten)]
    store: Store,
    /// How rows are written.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Answers from the ledger.
pub fn run(files: &Files, arguments: Arguments) -> anyhow::Result<Outcome> {
    let parts = Parts {
        by: arguments.by,
        from: arguments.from,
        to: arguments.to,
        filters: arguments.filters,
        interval: arguments.interval,
        ..Parts::default()
    };
    let query = parts.spend(clock::now())?;
    let mut ledger = arguments.store.open(files)?;
    let sums = ledger.spend(&query)?;
    let mut rows = rows::spend(&query.by, query.interval_ms.is_some(), &sums);
    if arguments.format != Format::Table {
        output::write(&rows, arguments.format, &[])?;
        return Ok(Outcome::Done);
    }
    if rows.items.len() > 1 {
        rows.items.extend(total(&mut ledger, &query)?);
    }
    output::write(&rows, Format::Table, &columns(&query))?;
    Ok(Outcome::Done)
}

/// The sums of all rows, under the word `total` in place of the first dimension.
fn total(ledger: &mut Opened, query: &SpendQuery) -> anyhow::Result<Vec<Map<String, Value>>> {
    let all = SpendQuery {
        by: Vec::new(),
        interval_ms: None,
        ..query.clone()
    };
    let mut items = rows::spend(&[], false, &ledger.spend(&all)?).items;
    let first = query.interval_ms.map(|_| "start");
    let first = first.or(query.by.first().map(Dimension::name));
    for item in &mut items {
        if let Some(first) = first {
            item.insert(first.to_owned(), "total".into());
        }
    }
    Ok(items)
}

/// What a screen has room for, beside the dimensions.
fn columns(query: &SpendQuery) -> Vec<&str> {
    let sums = [
        "requests",
        "cost_usd",
        "unpriced_requests",
        "input_tokens",
        "cache_read_tokens",
        "output_tokens",
    ];
    let dimensions = query.by.iter().map(Dimension::name);
    ["start"]
        .into_iter()
        .chain(dimensions)
        .chain(sums)
        .collect()
}
