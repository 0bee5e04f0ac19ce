//! The tables behind [`Totals`].

use rusqlite::{Connection, params};

use crate::ledger::totals::{Increments, Totals};
use crate::ledger::wide::Wide;

/// Adds increments to the tables.
pub fn add(connection: &Connection, increments: &Increments) -> rusqlite::Result<()> {
    let mut more = Additions::default();
    for (metric, series, n) in increments.counters() {
        more.totals.push((metric, series, n));
    }
    for (metric, series, histogram) in increments.histograms() {
        more.totals.push((metric, series, histogram.sum));
        let buckets = histogram.buckets.iter();
        more.buckets
            .extend(buckets.map(|(upto, n)| (metric, series, *upto, *n)));
    }
    more.write(connection)
}

/// What is to be added, gathered so that it can be written in the tables' own order: with ten
/// thousand series neighbours then share a page, and each page is looked for once.
#[derive(Default)]
struct Additions<'a> {
    /// Metric, series, amount.
    totals: Vec<(&'a str, &'a str, i128)>,
    /// Metric, series, upper bound, observations.
    buckets: Vec<(&'a str, &'a str, i64, u64)>,
}

impl Additions<'_> {
    fn write(mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.totals.sort_unstable();
        self.buckets.sort_unstable();
        add_totals(connection, &self.totals)?;
        add_buckets(connection, &self.buckets)
    }
}

/// Nearly all series are known, and to change a row takes a third of the steps of an upsert.
fn add_totals(connection: &Connection, totals: &[(&str, &str, i128)]) -> rusqlite::Result<()> {
    let mut update = connection.prepare_cached(
        "UPDATE metric_totals SET value = add128(value, ?3) WHERE metric = ?1 AND series = ?2",
    )?;
    let mut insert = connection
        .prepare_cached("INSERT INTO metric_totals (metric, series, value) VALUES (?1, ?2, ?3)")?;
    for (metric, series, n) in totals {
        let values = params![metric, series, Wide(*n)];
        if update.execute(values)? == 0 {
            insert.execute(values)?;
        }
    }
    Ok(())
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
    let mut values = connection.prepare("SELECT metric, series, value FROM metric_totals")?;
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
    let missing = Additions {
        totals: missing.totals,
        buckets: missing.buckets,
    };
    missing.write(connection)?;
    load(connection)
}
