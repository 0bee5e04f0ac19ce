//! The tables behind [`Totals`].

use std::collections::HashMap;
use std::sync::LazyLock;

use rusqlite::{Connection, OptionalExtension, params};

use crate::ledger::totals::{Increments, Totals};
use crate::ledger::wide::{self, Wide};

/// The numbers under which counters stand in their table, as far as they were looked up: with ten
/// thousand of them, to find each by its labels would take more time than all else of a row. There are
/// no more than the metrics' own bound lets be. Like all that is known of a file, they are worthless
/// after a rollback.
#[derive(Default)]
pub struct Numbers {
    by_metric: HashMap<&'static str, HashMap<Box<str>, i64>>,
}

/// Adds increments to the tables.
pub fn add(
    connection: &Connection,
    increments: &Increments,
    numbers: &mut Numbers,
) -> rusqlite::Result<()> {
    let sums = increments
        .histograms()
        .map(|(metric, series, histogram)| (metric, series, histogram.sum));
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for (metric, series, n) in increments.counters().chain(sums) {
        match numbers.of(metric, series) {
            Some(number) => known.push((number, n)),
            None => unknown.push((metric, series, n)),
        }
    }
    // Neighbours share a page, and new ones are to become neighbours.
    known.sort_unstable();
    unknown.sort_unstable();
    let mut update = connection.prepare_cached(&UPDATE)?;
    for (number, n) in known {
        update.execute(params![number, Wide(n)])?;
    }
    for (metric, series, n) in unknown {
        let number = add_by_name(connection, metric, series, n)?;
        let numbers = numbers.by_metric.entry(metric).or_default();
        numbers.insert(series.into(), number);
    }
    let mut buckets = Vec::new();
    for (metric, series, histogram) in increments.histograms() {
        let of_series = histogram.buckets.iter();
        buckets.extend(of_series.map(|(upto, n)| (metric, series, *upto, *n)));
    }
    buckets.sort_unstable();
    add_buckets(connection, &buckets)
}

impl Numbers {
    fn of(&self, metric: &str, series: &str) -> Option<i64> {
        self.by_metric.get(metric)?.get(series).copied()
    }
}

/// To change a row takes a third of the steps of an upsert.
static UPDATE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "UPDATE metric_totals SET value = {} WHERE id = ?1",
        wide::sum_of("value", "?2")
    )
});

/// Adds to a counter that may be new; says under which number it stands.
fn add_by_name(
    connection: &Connection,
    metric: &str,
    series: &str,
    n: i128,
) -> rusqlite::Result<i64> {
    let found: Option<i64> = connection
        .prepare_cached("SELECT id FROM metric_series WHERE metric = ?1 AND series = ?2")?
        .query_row([metric, series], |row| row.get(0))
        .optional()?;
    if let Some(number) = found {
        connection
            .prepare_cached(&UPDATE)?
            .execute(params![number, Wide(n)])?;
        return Ok(number);
    }
    connection
        .prepare_cached("INSERT INTO metric_series (metric, series) VALUES (?1, ?2)")?
        .execute([metric, series])?;
    let number = connection.last_insert_rowid();
    connection
        .prepare_cached("INSERT INTO metric_totals (id, value) VALUES (?1, ?2)")?
        .execute(params![number, Wide(n)])?;
    Ok(number)
}

fn add_buckets(
    connection: &Connection,
    buckets: &[(&str, &str, i64, u64)],
) -> rusqlite::Result<()> {
    let mut update = connection.prepare_cached(
        "UPDATE metric_buckets SET n = n + ?4 WHERE metric = ?1 AND series = ?2 AND upto = ?3",
    )?;
    let mut insert = connection.prepare_cached(
        "INSERT INTO metric_buckets (metric, series, upto, n) VALUES (?1, ?2, ?3, ?4)",
    )?;
    for (metric, series, upto, n) in buckets {
        let n = i64::try_from(*n).unwrap_or(i64::MAX);
        let values = params![metric, series, upto, n];
        if update.execute(values)? == 0 {
            insert.execute(values)?;
        }
    }
    Ok(())
}

/// Reads the tables whole. A series that has buckets is a histogram, and its total their sum.
pub fn load(connection: &Connection) -> rusqlite::Result<Totals> {
    let mut totals = Totals::default();
    let mut buckets = connection.prepare("SELECT metric, series, upto, n FROM metric_buckets")?;
    let mut rows = buckets.query([])?;
    while let Some(row) = rows.next()? {
        let n = u64::try_from(row.get::<_, i64>(3)?).unwrap_or(0);
        totals.set_bucket(
            &row.get::<_, String>(0)?,
            &row.get::<_, String>(1)?,
            row.get(2)?,
            n,
        );
    }
    let mut values = connection
        .prepare("SELECT metric, series, value FROM metric_series JOIN metric_totals USING (id)")?;
    let mut rows = values.query([])?;
    while let Some(row) = rows.next()? {
        let value: Wide = row.get(2)?;
        totals.set_total(
            &row.get::<_, String>(0)?,
            &row.get::<_, String>(1)?,
            value.0,
        );
    }
    Ok(totals)
}

/// Raises the tables to what is known already, and returns what they hold then: a file that was
/// emptied or replaced under a running process does not make its counters fall.
pub fn restore(connection: &Connection, known: &Totals) -> rusqlite::Result<Totals> {
    let stored = load(connection)?;
    let missing = known.beyond(&stored);
    if missing.is_empty() {
        return Ok(stored);
    }
    for (metric, series, n) in missing.totals {
        add_by_name(connection, metric, series, n)?;
    }
    add_buckets(connection, &missing.buckets)?;
    load(connection)
}
