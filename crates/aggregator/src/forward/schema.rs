//! The store's tables: made, brought up to date, and given a partition for every month.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::forward::error::{ForwardError, refused};
use crate::forward::month::Month;

/// What makes a store of each version one of the next; the first makes it from nothing.
const MIGRATIONS: &[&str] = &[include_str!("schema_1.sql"), include_str!("schema_2.sql")];

/// What a store of this version has, one a line: columns with their types, and indices with theirs that
/// no column tells of.
const SHAPE: &str = include_str!("shape.txt");

/// The least time between the droppings of two months, whichever sidecars do it: the clock of a server
/// that is set right within it has cost one month, not all.
const DROP_SECONDS_MIN: i64 = 3_600;

/// The advisory lock under which tables are made or altered, so that many sidecars may start at
/// once: "tollmesh" in ASCII. (`pg_advisory_xact_lock`,
/// <https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS>)
const LOCK: i64 = i64::from_be_bytes(*b"tollmesh");

/// How long a change of tables waits for those who read them; it is tried again later.
const LOCK_SECONDS_MAX: u32 = 5;

/// Months that have their partition before they begin.
pub const MONTHS_AHEAD: u32 = 2;

/// The version that this build knows.
pub fn known_version() -> u32 {
    u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX)
}

/// The version of what is in the database; `None` where nothing is.
pub async fn version(client: &Client) -> Result<Option<u32>, ForwardError> {
    let sql = "SELECT value FROM tollmesh.meta WHERE key = 'version'";
    let found = client
        .query_typed_opt(sql, &[])
        .await
        .map_err(refused("its version cannot be read"));
    match found {
        Ok(row) => Ok(row.and_then(|row| row.get::<_, &str>(0).parse().ok())),
        Err(error) if error.is_absence() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes the tables, or brings them up to date, where that is needed.
pub async fn migrate(client: &mut Client) -> Result<(), ForwardError> {
    let known = known_version();
    match version(client).await? {
        Some(found) if found == known => return check_shape(client).await,
        Some(found) if found > known => return Err(ForwardError::Version { found, known }),
        _ => {}
    }
    let failed = refused("its tables cannot be made");
    let transaction = client.transaction().await.map_err(&failed)?;
    transaction
        .batch_execute(&format!("SELECT pg_advisory_xact_lock({LOCK})"))
        .await
        .map_err(&failed)?;
    // Others may have done it while we waited. Asked in a way that cannot fail the transaction.
    let exists = "SELECT to_regclass('tollmesh.meta') IS NOT NULL,
                         to_regnamespace('tollmesh') IS NOT NULL";
    let row = transaction
        .query_typed_one(exists, &[])
        .await
        .map_err(&failed)?;
    let (has_tables, has_schema): (bool, bool) = (row.get(0), row.get(1));
    let found = match has_tables {
        true => version(transaction.client()).await?.unwrap_or(0),
        false => 0,
    };
    if found > known {
        return Err(ForwardError::Version { found, known });
    }
    if !has_schema {
        transaction
            .batch_execute("CREATE SCHEMA tollmesh")
            .await
            .map_err(&failed)?;
    }
    for step in MIGRATIONS.iter().skip(found as usize) {
        transaction.batch_execute(step).await.map_err(&failed)?;
    }
    transaction
        .batch_execute(&format!(
            "INSERT INTO tollmesh.meta VALUES ('version', '{known}')
             ON CONFLICT (key) DO UPDATE SET value = excluded.value"
        ))
        .await
        .map_err(&failed)?;
    check_shape(transaction.client()).await?;
    transaction.commit().await.map_err(&failed)
}

/// Finds out whether the store has what its version says: one that a build from before the first
/// release made may not, nor one that was altered by hand. What it has beyond that is no matter;
/// indices that it has not are told once.
pub async fn check_shape(client: &Client) -> Result<(), ForwardError> {
    let wanted: Vec<&str> = SHAPE.lines().collect();
    let sql = "SELECT wanted FROM unnest($1) wanted EXCEPT (
                   SELECT c.relname || '.' || a.attname || ' '
                              || format_type(a.atttypid, a.atttypmod)
                   FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
                   WHERE c.relnamespace = to_regnamespace('tollmesh')
                       AND a.attnum > 0 AND NOT a.attisdropped
                   UNION ALL
                   SELECT c.relname || ' ' || m.amname
                   FROM pg_class c JOIN pg_am m ON m.oid = c.relam
                   WHERE c.relnamespace = to_regnamespace('tollmesh') AND c.relkind = 'i')
               ORDER BY 1";
    let missing = client
        .query_typed(sql, &[(&wanted, Type::TEXT_ARRAY)])
        .await
        .map_err(refused("its tables cannot be looked at"))?;
    let missing: Vec<&str> = missing.iter().map(|row| row.get(0)).collect();
    let missing = missing_of(&missing);
    // Asked with each connection, and told once.
    static IS_TOLD: AtomicBool = AtomicBool::new(false);
    if !missing.indices.is_empty() && !IS_TOLD.swap(true, Ordering::Relaxed) {
        let indices = missing.indices.join(", ");
        tracing::warn!(
            indices,
            "the store has not these indices of its version; without others in their place it is slow"
        );
    }
    match missing.column {
        Some(column) => Err(ForwardError::Shape {
            known: known_version(),
            missing: column.to_owned(),
        }),
        None => Ok(()),
    }
}

/// What a store lacks of what its version says.
#[derive(Debug, PartialEq, Eq)]
struct Missing<'a> {
    /// The first column that is not there, or has another type: rows cannot be written.
    column: Option<&'a str>,
    /// Indices that are not there, or of another access method: other engines have methods of their
    /// own, and whoever runs the server may have built one anew under another name.
    indices: Vec<&'a str>,
}

/// Tells lines of [`SHAPE`] that a store lacks apart.
fn missing_of<'a>(lines: &[&'a str]) -> Missing<'a> {
    let (columns, indices): (Vec<&str>, _) = lines.iter().partition(|line| line.contains('.'));
    Missing {
        column: columns.first().copied(),
        indices,
    }
}

/// The months that have a partition, with how often the rows of each were lost. A partition that
/// has been emptied or dropped is made anew and counted here.
pub async fn months(client: &mut Client) -> Result<BTreeMap<Month, i64>, ForwardError> {
    let failed = refused("its months cannot be read");
    let sql = "SELECT m.month::text, m.lost, EXISTS (
                   SELECT 1 FROM tollmesh.events e
                   WHERE e.time = m.month::timestamp AT TIME ZONE 'UTC' AND e.event_id = '')
               FROM tollmesh.months m";
    let rows = client.query_typed(sql, &[]).await.map_err(failed)?;
    let mut months = BTreeMap::new();
    for row in rows {
        let (name, mut lost, is_whole): (&str, i64, bool) = (row.get(0), row.get(1), row.get(2));
        let Some(month) = Month::parse(name) else {
            continue;
        };
        if !is_whole {
            lost = restore(client, month).await?;
        }
        months.insert(month, lost);
    }
    Ok(months)
}

/// Makes the partition of a month, unless it is there.
pub async fn make(client: &mut Client, month: Month) -> Result<(), ForwardError> {
    let failed = refused("the partition of a month cannot be made");
    let transaction = client.transaction().await.map_err(&failed)?;
    transaction
        .batch_execute(&take_lock())
        .await
        .map_err(&failed)?;
    attach(&transaction, month).await.map_err(&failed)?;
    transaction
        .execute_typed(
            "INSERT INTO tollmesh.months (month) VALUES ($1::text::date) ON CONFLICT DO NOTHING",
            &[(&month.first_day(), Type::TEXT)],
        )
        .await
        .map_err(&failed)?;
    transaction.commit().await.map_err(&failed)
}

/// Drops the partition of the oldest month before that one, with all its rows, and the outcomes that
/// were told until it ended; answers which month that was. Hourly sums stay. `None` where there is none,
/// or where a sidecar has dropped one within [`DROP_SECONDS_MIN`].
pub async fn drop_month_before(
    client: &mut Client,
    first: Month,
) -> Result<Option<Month>, ForwardError> {
    let failed = refused("the partition of a month beyond retention cannot be dropped");
    let transaction = client.transaction().await.map_err(&failed)?;
    transaction
        .batch_execute(&take_lock())
        .await
        .map_err(&failed)?;
    // What was noted by a clock that was ahead is no reason to wait for it.
    let due = "SELECT month::text FROM tollmesh.months
               WHERE month < $1::text::date AND NOT EXISTS (
                   SELECT 1 FROM tollmesh.meta WHERE key = 'month_dropped'
                       AND extract(epoch FROM now())::bigint - value::bigint BETWEEN 0 AND $2 - 1)
               ORDER BY month LIMIT 1";
    let due = transaction
        .query_typed_opt(
            due,
            &[
                (&first.first_day(), Type::TEXT),
                (&DROP_SECONDS_MIN, Type::INT8),
            ],
        )
        .await
        .map_err(&failed)?;
    let Some(month) = due.and_then(|row| Month::parse(row.get(0))) else {
        return Ok(None);
    };
    transaction
        .batch_execute(&format!(
            "DELETE FROM tollmesh.months WHERE month = '{}';
             DELETE FROM tollmesh.outcomes WHERE told < '{} 00:00:00+00';
             DROP TABLE IF EXISTS tollmesh.{};
             INSERT INTO tollmesh.meta
                 VALUES ('month_dropped', extract(epoch FROM now())::bigint::text)
                 ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            month.first_day(),
            month.after(1).first_day(),
            month.partition()
        ))
        .await
        .map_err(&failed)?;
    transaction.commit().await.map_err(&failed)?;
    tracing::info!(%month, "the store's calls of a month beyond retention were dropped");
    Ok(Some(month))
}

/// The month that it is, by the server's clock.
pub async fn present(client: &Client) -> Result<Month, ForwardError> {
    let sql = "SELECT (extract(epoch FROM now()) * 1000)::bigint";
    let row = client.query_typed_one(sql, &[]).await;
    let row = row.map_err(refused("its clock cannot be read"))?;
    Month::of(row.get(0)).ok_or(ForwardError::Broken)
}

/// A month's rows are gone: makes its partition where it is gone too, forgets the sums of rows that
/// will come again, and counts the loss, once whoever comes first. Answers the count.
async fn restore(client: &mut Client, month: Month) -> Result<i64, ForwardError> {
    let failed = refused("the partition of a month cannot be restored");
    let transaction = client.transaction().await.map_err(&failed)?;
    transaction
        .batch_execute(&take_lock())
        .await
        .map_err(&failed)?;
    attach(&transaction, month).await.map_err(&failed)?;
    let n_marks = mark(&transaction, month).await.map_err(&failed)?;
    let sql = "UPDATE tollmesh.months SET lost = lost + $2
               WHERE month = $1::text::date RETURNING lost";
    let lost = transaction
        .query_typed_opt(
            sql,
            &[(&month.first_day(), Type::TEXT), (&n_marks, Type::INT8)],
        )
        .await
        .map_err(&failed)?
        .map_or(0, |row| row.get(0));
    if n_marks > 0 {
        tracing::warn!(%month, "the store has lost the calls of a month; they are sent again");
        let (from, to) = (hour_of(month), hour_of(month.after(1)));
        transaction
            .batch_execute(&format!(
                "DELETE FROM tollmesh.hourly WHERE hour >= {from} AND hour < {to}"
            ))
            .await
            .map_err(&failed)?;
    }
    transaction.commit().await.map_err(&failed)?;
    Ok(lost)
}

/// Made beside its parent and then attached, which holds up nobody who writes to other months
/// (<https://www.postgresql.org/docs/current/ddl-partitioning.html>).
async fn attach(
    transaction: &tokio_postgres::Transaction<'_>,
    month: Month,
) -> Result<(), tokio_postgres::Error> {
    let name = month.partition();
    let sql = format!("SELECT to_regclass('tollmesh.{name}') IS NULL");
    let is_missing: bool = transaction.query_typed_one(&sql, &[]).await?.get(0);
    if !is_missing {
        return Ok(());
    }
    transaction
        .batch_execute(&format!(
            "CREATE TABLE tollmesh.{name} (LIKE tollmesh.events INCLUDING ALL);
             ALTER TABLE tollmesh.events ATTACH PARTITION tollmesh.{name}
                 FOR VALUES FROM ('{} 00:00:00+00') TO ('{} 00:00:00+00')",
            month.first_day(),
            month.after(1).first_day()
        ))
        .await?;
    let is_known = "SELECT EXISTS (SELECT 1 FROM tollmesh.months WHERE month = $1::text::date)";
    let known: bool = transaction
        .query_typed_one(is_known, &[(&month.first_day(), Type::TEXT)])
        .await?
        .get(0);
    // A known month without a partition has lost it, which the missing mark is to tell.
    if !known {
        mark(transaction, month).await?;
    }
    Ok(())
}

/// Puts the row that tells whether a partition has been emptied; answers 0 where it stands.
async fn mark(
    transaction: &tokio_postgres::Transaction<'_>,
    month: Month,
) -> Result<i64, tokio_postgres::Error> {
    let sql = format!(
        "INSERT INTO tollmesh.events (time, event_id, duration_ms, response_flags, model_id,
             tag_set, source_id, price_id, ledger, revision, outcome, usage_source, cost_status,
             stream, billable, attempts)
         VALUES ('{} 00:00:00+00', '', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
         ON CONFLICT DO NOTHING",
        month.first_day()
    );
    let n = transaction.execute_typed(&sql, &[]).await?;
    Ok(i64::try_from(n).unwrap_or(i64::MAX))
}

/// Takes turns with others who do the same, for as long as that takes; those who read or write are
/// waited for no longer than [`LOCK_SECONDS_MAX`].
fn take_lock() -> String {
    format!("SELECT pg_advisory_xact_lock({LOCK}); SET LOCAL lock_timeout = '{LOCK_SECONDS_MAX}s'")
}

/// Hours from 1970 to the month's begin.
fn hour_of(month: Month) -> i64 {
    month.start_ms().div_euclid(3_600_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_needed_and_an_index_is_told() {
        let lines = [
            "events.time bigint",
            "events_by_time btree",
            "tags.tag text",
            "tags_by_value hash",
        ];
        let missing = missing_of(&lines);
        assert_eq!(missing.column, Some("events.time bigint"));
        assert_eq!(
            missing.indices,
            ["events_by_time btree", "tags_by_value hash"]
        );
        // An engine that has other methods, or a server on which an index was built anew.
        assert_eq!(missing_of(&lines[1..2]).column, None);
        // All that a store has is told apart by this.
        let shape: Vec<&str> = SHAPE.lines().collect();
        let n_indices = missing_of(&shape).indices.len();
        assert!(n_indices > 0 && n_indices < shape.len());
    }
}
