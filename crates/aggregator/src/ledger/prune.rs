//! Retention: rows of old hours go, in steps between which the writer does its other work.

use rusqlite::{Connection, OptionalExtension, params};
use tollmesh_wire::Timestamp;

use crate::ledger::peaks;
use crate::ledger::rollup::HOUR_MS;
use crate::ledger::{exported, outbox};

/// The key in `meta` under which the end of the newest deleted hour stands, in milliseconds.
pub const FORGOTTEN_BEFORE_MS: &str = "forgotten_before_ms";

/// Rows that one step deletes: some ten milliseconds of work.
pub const PRUNE_ROWS_MAX: i64 = 2_000;

/// Pages that one step gives back: more than a step's rows fill, so that none are left over.
const SHRINK_PAGES_MAX: u32 = 1_024;

/// Which rows go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pruning {
    /// Rows of whole hours before that instant. Whole hours, since the sums of an hour and its rows
    /// are to agree for as long as there are rows.
    pub before: Timestamp,
    /// Whether rows that another store is yet to have stay, however old.
    pub spares_pending: bool,
}

/// What one step deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Rows.
    pub rows: u64,
    /// Those of them that a store which the ledger is forwarded to does not have, or not as they
    /// were last.
    pub not_forwarded: u64,
    /// Those of them that a receiver of telemetry was never told of; 0 where none ever was.
    pub not_exported: u64,
}

/// Deletes the oldest rows that are to go, at most [`PRUNE_ROWS_MAX`].
pub fn delete_some(connection: &Connection, pruning: Pruning) -> rusqlite::Result<Pruned> {
    let ms = pruning.before.as_unix_ms();
    let hour_ms = ms - ms.rem_euclid(HOUR_MS);
    let rows = match pruning.spares_pending && outbox::are_all_pending(connection)? {
        true => Vec::new(),
        false => oldest(connection, hour_ms, pruning.spares_pending)?,
    };
    let mut delete = connection.prepare_cached("DELETE FROM events WHERE id = ?1")?;
    let mut pruned = Pruned::default();
    for (id, is_pending, is_untold) in &rows {
        delete.execute([id])?;
        pruned.rows += 1;
        pruned.not_forwarded += u64::from(*is_pending);
        pruned.not_exported += u64::from(*is_untold);
    }
    if !rows.is_empty() {
        note(connection, hour_ms)?;
        peaks::forget(connection)?;
    }
    // With the last rows only: this looks at all late usage that there is.
    if (1..PRUNE_ROWS_MAX.unsigned_abs()).contains(&pruned.rows) {
        forget_what_they_left(connection)?;
    }
    Ok(pruned)
}

/// Deletes what speaks of rows that are gone.
fn forget_what_they_left(connection: &Connection) -> rusqlite::Result<()> {
    for sql in [
        "DELETE FROM late_usage
         WHERE NOT EXISTS (SELECT 1 FROM events WHERE events.id = late_usage.row)",
        "DELETE FROM changes WHERE NOT EXISTS (SELECT 1 FROM events WHERE events.id = changes.row)",
    ] {
        connection.prepare_cached(sql)?.execute([])?;
    }
    Ok(())
}

/// The numbers of the oldest rows before that hour; whether each is pending, and whether a receiver
/// of telemetry is yet to be told of it.
fn oldest(
    connection: &Connection,
    hour_ms: i64,
    spares_pending: bool,
) -> rusqlite::Result<Vec<(i64, bool, bool)>> {
    let not_pending = outbox::not_pending();
    let spared = match spares_pending {
        true => format!("AND {not_pending}"),
        false => String::new(),
    };
    let told = exported::TOLD;
    connection
        .prepare_cached(&format!(
            "SELECT id, NOT ({not_pending}), NOT ({told}) FROM events
             WHERE time_ms < ?1 {spared} ORDER BY time_ms LIMIT ?2"
        ))?
        .query_map(params![hour_ms, PRUNE_ROWS_MAX], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?
        .collect()
}

/// Before which instant, in milliseconds, rows were deleted; `None` where none were.
pub fn forgotten_before_ms(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT value FROM meta WHERE key = ?1")?
        .query_row([FORGOTTEN_BEFORE_MS], |row| row.get(0))
        .optional()
}

/// Notes that rows before that hour were deleted, though their sums are kept: an event of theirs
/// that comes again, or is found in another record, would be counted a second time.
fn note(connection: &Connection, hour_ms: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO meta (key, value) VALUES (?1, ?2)
             ON CONFLICT DO UPDATE SET value = max(value, excluded.value)",
        )?
        .execute(params![FORGOTTEN_BEFORE_MS, hour_ms])?;
    Ok(())
}

/// Gives free pages back to the file system.
pub fn shrink(connection: &Connection) -> rusqlite::Result<()> {
    let mut statement =
        connection.prepare_cached(&format!("PRAGMA incremental_vacuum({SHRINK_PAGES_MAX})"))?;
    let mut pages = statement.query([])?;
    while pages.next()?.is_some() {}
    Ok(())
}
