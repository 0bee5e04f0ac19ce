//! `tollmesh report`

mod daily;

use std::io::{BufWriter, ErrorKind, Write};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value};

use super::output::{self, Format};
use super::say::say;
use super::store::Asks;
use super::{Files, Outcome};
use crate::clock;
use crate::ledger::query::{Column, Dimension, SpendQuery, SpendRow};
use crate::question::Parts;
use crate::report::{self, CHARGED_BY, Focus, FocusError, Store};
use crate::rows::{self, Rows};

/// Spend, tokens and requests by team, model, or whatever calls are tagged with.
///
/// Reads the ledger in state_dir, also while `tollmesh serve` writes it. Cost is that of priced
/// calls; how many are not priced stands beside it.
///
/// Example: tollmesh report --by team,model --from 2026-11-01 --where environment:production
///
/// Example: tollmesh report --chargeback --from 2026-11-01 --to 2026-12-01 --format csv
///
/// Example: tollmesh report --format focus --from 2026-11-01 > november.csv
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    sums: Sums,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One day: spend against budget and against the week before, and what changed why.
    Daily(daily::Arguments),
}

#[derive(Debug, Args)]
struct Sums {
    /// Tags or columns to group by, such as team,model,namespace,provider.
    #[arg(long, value_name = "NAMES")]
    by: Vec<String>,
    /// Who pays: by team and cost_center unless --by names others, with each one's share.
    #[arg(long)]
    chargeback: bool,
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
    /// With --format focus: the BillingAccountId; the provider's name where not given.
    #[arg(long, value_name = "ID")]
    billing_account: Option<String>,
    #[command(flatten)]
    store: Asks,
    /// How rows are written.
    #[arg(long, value_enum, default_value_t)]
    format: Written,
}

/// How a report is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Written {
    /// Aligned columns.
    #[default]
    #[value(alias = "text")]
    Table,
    /// One object with `items` and `next_cursor`, as the API answers.
    Json,
    /// A header and a line a row.
    Csv,
    /// A page that needs nothing else.
    Html,
    /// FOCUS cost and usage, as CSV: a row for each day, model, kind of token, price and tags.
    Focus,
}

/// Answers from the ledger.
pub fn run(files: &Files, arguments: Arguments) -> anyhow::Result<Outcome> {
    match arguments.command {
        Some(Command::Daily(daily)) => daily::run(files, daily),
        None => run_sums(files, arguments.sums),
    }
}

fn run_sums(files: &Files, sums: Sums) -> anyhow::Result<Outcome> {
    let mut parts = Parts {
        by: sums.by,
        from: sums.from,
        to: sums.to,
        filters: sums.filters,
        interval: sums.interval,
        ..Parts::default()
    };
    let is_asked_by_name = !parts.by.is_empty();
    if parts.by.is_empty() && sums.chargeback {
        parts.by = CHARGED_BY.map(str::to_owned).to_vec();
    }
    let is_focus = sums.format == Written::Focus;
    anyhow::ensure!(
        is_focus || !parts.by.is_empty(),
        "nothing to report by: add --by team,model, --chargeback or --format focus, or ask for \
         `tollmesh report daily`"
    );
    anyhow::ensure!(
        !is_focus || parts.by.is_empty() && parts.interval.is_none(),
        "--format focus has its own rows; remove --by, --chargeback and --interval"
    );
    let query = parts.spend(clock::now())?;
    let ledger = sums.store.open(files)?;
    if is_focus {
        return run_focus(&ledger, query, sums.billing_account);
    }
    let found = ledger.spend(&query)?;
    for line in doubts(&query, is_asked_by_name, &found) {
        say(line);
    }
    let has_interval = query.interval_ms.is_some();
    let mut rows = rows_of(&query.by, has_interval, &found, sums.chargeback);
    let format = match sums.format {
        Written::Json => Format::Json,
        Written::Csv => Format::Csv,
        _ => Format::Table,
    };
    if format != Format::Table {
        output::write(&rows, format, &[])?;
        return Ok(Outcome::Done);
    }
    if rows.items.len() > 1 {
        rows.items.extend(total(&ledger, &query, sums.chargeback)?);
    }
    if sums.format == Written::Html {
        write_page(&query, rows)?;
        return Ok(Outcome::Done);
    }
    output::write(&rows, Format::Table, &columns(&query))?;
    Ok(Outcome::Done)
}

/// Names that no call in the answer has, and that are no column's: tags, or mistyped.
fn doubts(query: &SpendQuery, is_asked_by_name: bool, found: &[SpendRow]) -> Vec<String> {
    let columns = Column::ALL.map(Column::name).join(", ");
    let remedy = format!("if it should be a column, that is one of {columns}");
    let by = query.by.iter().enumerate().filter_map(|(n, dimension)| {
        let has_it = |row: &SpendRow| row.key.get(n).is_some_and(Option::is_some);
        let name = tag(dimension)?;
        let is_doubtful = is_asked_by_name && !found.is_empty() && !found.iter().any(has_it);
        is_doubtful.then(|| format!("--by: no call in the answer has a tag {name:?}; {remedy}"))
    });
    let filters = query.filters.iter().filter_map(|filter| {
        let name = tag(&filter.dimension)?;
        let value = &filter.value;
        let is_doubtful = found.is_empty() && !value.is_empty();
        is_doubtful.then(|| {
            format!(
                "--where: no call is found; {name:?} is taken for a tag that is {value:?}; {remedy}"
            )
        })
    });
    by.chain(filters).collect()
}

fn tag(dimension: &Dimension) -> Option<&str> {
    match dimension {
        Dimension::Tag(name) => Some(name),
        Dimension::Column(_) => None,
    }
}

fn rows_of(by: &[Dimension], has_interval: bool, sums: &[SpendRow], is_chargeback: bool) -> Rows {
    match is_chargeback {
        true => report::chargeback(by, has_interval, sums),
        false => rows::spend(by, has_interval, sums),
    }
}

fn run_focus(
    store: &impl Store,
    query: SpendQuery,
    account: Option<String>,
) -> anyhow::Result<Outcome> {
    let focus = Focus {
        span: query.span,
        filters: query.filters,
        account,
    };
    let exported = match focus.export(store, BufWriter::new(std::io::stdout().lock())) {
        Err(FocusError::Write(error)) if has_nobody_read(&error) => return Ok(Outcome::Done),
        exported => exported?,
    };
    if exported.unpriced > 0 {
        let n = exported.unpriced;
        say(format_args!(
            "{n} requests have no price and no row; `tollmesh report --by model` names them"
        ));
    }
    if exported.forgotten > 0 {
        let n = exported.forgotten;
        say(format_args!(
            "{n} requests have no row: retention deleted their lines, and only their sums are left"
        ));
    }
    Ok(match (exported.unpriced, exported.forgotten) {
        (0, 0) => Outcome::Done,
        _ => Outcome::Findings,
    })
}

/// Whether the reader of standard output has seen enough.
fn has_nobody_read(error: &csv::Error) -> bool {
    matches!(error.kind(), csv::ErrorKind::Io(io) if io.kind() == ErrorKind::BrokenPipe)
}

fn write_page(query: &SpendQuery, mut rows: Rows) -> anyhow::Result<()> {
    let shown = columns(query);
    rows.columns
        .retain(|column| shown.contains(&column.as_str()));
    let by: Vec<&str> = query.by.iter().map(Dimension::name).collect();
    let instant = |at: Option<tollmesh_wire::Timestamp>| at.map(|at| at.to_string());
    let span = match (instant(query.span.from), instant(query.span.to)) {
        (None, None) => String::new(),
        (from, to) => format!(
            ", {} to {}",
            from.as_deref().unwrap_or("the beginning"),
            to.as_deref().unwrap_or("now")
        ),
    };
    let title = format!("LLM spend by {}{span}", by.join(", "));
    let mut out = std::io::stdout().lock();
    out.write_all(report::page(&title, &rows).as_bytes())?;
    out.flush()?;
    Ok(())
}

/// The sums of all rows, under the word `total` in place of the first dimension.
fn total(
    store: &impl Store,
    query: &SpendQuery,
    is_chargeback: bool,
) -> anyhow::Result<Vec<Map<String, Value>>> {
    let all = SpendQuery {
        by: Vec::new(),
        interval_ms: None,
        ..query.clone()
    };
    let mut items = rows_of(&[], false, &store.spend(&all)?, is_chargeback).items;
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
        "share_percent",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_call_has_are_told() {
        let doubts = |by: &[&str], filters: &[&str], keys: &[&[Option<&str>]]| {
            let parts = Parts {
                by: by.iter().map(|name| (*name).to_owned()).collect(),
                filters: filters.iter().map(|text| (*text).to_owned()).collect(),
                ..Parts::default()
            };
            let found = keys.iter().map(|key| SpendRow {
                key: key.iter().map(|value| value.map(str::to_owned)).collect(),
                ..SpendRow::default()
            });
            let found: Vec<SpendRow> = found.collect();
            doubts(&parts.spend(clock::now()).unwrap(), !by.is_empty(), &found)
        };
        let told = doubts(&["taem", "model"], &[], &[&[None, None]]);
        assert_eq!(told.len(), 1);
        assert!(told[0].starts_with("--by: no call in the answer has a tag \"taem\"; "));
        assert!(told[0].contains("provider, api"), "{told:?}");
        let told = doubts(&["model"], &["modle:x", "model:x"], &[]);
        assert_eq!(told.len(), 1);
        assert!(told[0].contains("\"modle\" is taken for a tag"), "{told:?}");
        for (by, filters, keys) in [
            (
                &["team"][..],
                &["team:a"][..],
                &[&[Some("a")][..], &[None]][..],
            ),
            (&["team"], &[], &[]),
            (&["model"], &["team:"], &[]),
        ] {
            assert_eq!(doubts(by, filters, keys), [""; 0], "{by:?} {filters:?}");
        }
    }
}
