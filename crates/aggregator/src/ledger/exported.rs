//! How far the rows of the ledger were exported to a receiver of telemetry, and the next ones.
//!
//! A receiver is told of each row once, in the order of their numbers: what is altered later is not
//! told again, since spans cannot be taken back.

use rusqlite::{Connection, OptionalExtension};
use tollmesh_wire::Timestamp;

use crate::ledger::error::QueryError;
use crate::ledger::query::{Reader, RequestRow};
use crate::ledger::{row, stored};

/// The key in `meta` of the newest row such that it and all before it were exported.
const EXPORTED_ROW: &str = "exported_row";

/// A condition on `events` for rows that a receiver was told of, or never is to be.
pub const TOLD: &str =
    "id <= coalesce((SELECT value FROM meta WHERE key = 'exported_row'), 9223372036854775807)";

/// How far exporting has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// This row and all before it were exported; `None` where nothing was ever noted.
    pub upto: Option<i64>,
    /// The newest row that there is; 0 where there is none.
    pub newest: i64,
    /// Rows that wait.
    pub pending: u64,
    /// When the call of the first of them was made.
    pub oldest: Option<Timestamp>,
}

impl Reader {
    /// How far exporting has come.
    pub fn exported(&self) -> Result<Exported, QueryError> {
        self.ask(|connection| Ok(exported(connection)?))
    }

    /// The calls after that row, at most so many, in the order of their rows.
    pub fn calls_after(&self, row: i64, limit: usize) -> Result<Vec<RequestRow>, QueryError> {
        self.ask(|connection| Ok(calls_after(connection, row, limit)?))
    }
}

/// Notes that this row and all before it were exported, in the writer's transaction.
pub fn note(connection: &Connection, upto: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO meta (key, value) VALUES (?1, ?2)
             ON CONFLICT DO UPDATE SET value = excluded.value",
        )?
        .execute(rusqlite::params![EXPORTED_ROW, upto])?;
    Ok(())
}

fn exported(connection: &Connection) -> rusqlite::Result<Exported> {
    let upto: Option<i64> = connection
        .prepare_cached("SELECT value FROM meta WHERE key = ?1")?
        .query_row([EXPORTED_ROW], |row| row.get(0))
        .optional()?;
    let from = upto.unwrap_or(0);
    // Numbers are given one after the other, so their difference counts rows without reading them.
    let (newest, pending): (i64, i64) = connection
        .prepare_cached(
            "SELECT coalesce(max(id), 0),
                 coalesce(max(id), 0) - max(?1, coalesce(min(id), 1) - 1) FROM events",
        )?
        .query_row([from], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let oldest: Option<i64> = connection
        .prepare_cached("SELECT time_ms FROM events WHERE id > ?1 ORDER BY id LIMIT 1")?
        .query_row([from], |row| row.get(0))
        .optional()?;
    Ok(Exported {
        upto,
        newest,
        pending: pending.max(0).unsigned_abs(),
        oldest: oldest.map(Timestamp::from_unix_ms),
    })
}

fn calls_after(
    connection: &Connection,
    after: i64,
    limit: usize,
) -> rusqlite::Result<Vec<RequestRow>> {
    let sql = format!(
        "SELECT {} FROM events e {} WHERE e.id > ?1 ORDER BY e.id LIMIT ?2",
        row::select(),
        row::JOINS,
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut found = statement.query([after, limit])?;
    let mut calls = Vec::new();
    while let Some(row) = found.next()? {
        let stored = stored::read(row)?;
        calls.push(RequestRow {
            row: stored.row,
            event: stored.entry.event,
            cost: stored.entry.cost,
            provider_cost: stored.provider_cost,
            original: stored.original,
            // What became of a call is told later than it is exported.
            outcome_label: None,
        });
    }
    Ok(calls)
}
