//! `tollmesh top`

use clap::{Args, ValueEnum};

use super::output::{self, Format};
use super::store::Asks;
use super::{Files, Outcome};
use crate::clock;
use crate::question::Parts;
use crate::report::Store;
use crate::rows;

/// The calls that stand out.
///
/// Example: tollmesh top --by cost --from 24h --where team:checkout
#[derive(Debug, Args)]
pub struct Arguments {
    /// What makes a call stand out.
    #[arg(long, value_enum, default_value_t)]
    by: Measure,
    /// From when on: 2026-11-22T04:00:00Z, 2026-11-22, or an age such as 24h.
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Before when.
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Only calls with that tag or column; may be given several times.
    #[arg(long = "where", value_name = "NAME:VALUE")]
    filters: Vec<String>,
    /// How many.
    #[arg(long, value_name = "N", default_value = "20")]
    limit: String,
    #[command(flatten)]
    store: Asks,
    /// How rows are written.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Measure {
    /// The dearest.
    #[default]
    Cost,
    /// Those with most tokens.
    Tokens,
    /// The longest.
    Duration,
    /// The latest.
    Time,
}

/// What a screen has room for.
const COLUMNS: &[&str] = &[
    "time",
    "provider",
    "model",
    "outcome",
    "input_tokens",
    "output_tokens",
    "cost_usd",
    "estimate_basis",
    "duration_ms",
    "request_id",
    "tags",
];

/// Answers from the ledger.
pub fn run(files: &Files, arguments: Arguments) -> anyhow::Result<Outcome> {
    let sort = match arguments.by {
        Measure::Cost => "cost",
        Measure::Tokens => "tokens",
        Measure::Duration => "duration",
        Measure::Time => "time",
    };
    let parts = Parts {
        from: arguments.from,
        to: arguments.to,
        filters: arguments.filters,
        sort: Some(sort.to_owned()),
        limit: Some(arguments.limit),
        ..Parts::default()
    };
    let query = parts.requests(clock::now())?;
    let page = arguments.store.open(files)?.requests(&query)?;
    let rows = rows::requests(&page.items, page.next_cursor);
    output::write(&rows, arguments.format, COLUMNS)?;
    Ok(Outcome::Done)
}
