//! The tables behind [`Totals`].

use rusqlite::{Connection, params};

use crate::ledger::totals::{Increments, Totals};
use crate::ledger::wide::Wide;

/// Adds increments to the tables.
pub fn add(connection: &Connection, increments: &Increments) -> rusqlite::Result<()> {
    for (metric, series, n) in increments.counters() {
        add_total(connection, metric, series, n)?;
    }
    for (metric, series, histogram) in increments.histograms() {
        add_total(connection, metric, series, histogram.sum)?;
        for (upto, n) in &histogram.buckets {
            add_bucket(connection, metric, series, *upto, *n)?;
        }
    }
    Ok(())
}

fn add_total(
    connection: &Connection,
    metric: &str,
    series: &str,
    value: i128,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO metric_totals (metric, series, value) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET value = add128(value, excluded.value)",
        )?
        .execute(params![metric, series, Wide(value)])?;
    Ok(())
}

fn add_bucket(
    connection: &Connection,
    metric: &str,
    series: &str,
    upto: i64,
    n: u64,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO metric_buckets (metric, series, upto, n) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET n = n + excluded.n",
        )?
        .execute(params![
            metric,
            series,
            upto,
            i64::try_from(n).unwrap_or(i64::MAX)
        ])?;
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
    for (metric, series, value) in missing.totals {
        add_total(connection, metric, series, value)?;
    }
    for (metric, series, upto, n) in missing.buckets {
        add_bucket(connection, metric, series, upto, n)?;
    }
    load(connection)
}
