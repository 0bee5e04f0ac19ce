//! `tollmesh report`

use clap::Args;
use tollmesh_wire::Timestamp;

use super::output::{self, Format};
use super::{Files, Outcome};
use crate::ledger::query::Reader;
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
    let now = Timestamp::from_unix_ms(jiff::Timestamp::now().as_millisecond());
    let query = parts.spend(now)?;
    let reader = Reader::open(&files.load()?.state_dir)?;
    let sums = reader.spend(&query)?;
    let rows = rows::spend(&query.by, query.interval_ms.is_some(), &sums);
    output::write(&rows, arguments.format, &[])?;
    Ok(Outcome::Done)
}
