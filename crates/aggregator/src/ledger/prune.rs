//! Retention: rows of old hours go, in steps between which the writer does its other work.

use rusqlite::{Connection, params};
use tollmesh_wire::Timestamp;

use crate::ledger::outbox;
use crate::ledger::peaks;
use crate::ledger::rollup::HOUR_MS;

/// The key in `meta` under which the end of the newest deleted hour stands, in milliseconds.
pub const FORGOTTEN_BEFORE_MS: &str = "forgotten_before_ms";

/// Rows that one step deletes: some ten milliseconds of work.
pub const PRUNE_ROWS_MAX: i64 = 2_000;

/// Pages that one step gives back: more than a step's rows fill, so that none are left over.
const SHRINK_PAGES_MAX: u32 = 1_024;

/// Deletes the oldest rows of whole hours before that instant, at most [`PRUNE_ROWS_MAX`]. Whole
/// hours, since the sums of an hour and its rows are to agree for as long as there are rows. Where
/// the ledger `forwards`, rows that another store is yet to have stay, however old.
pub fn delete_some(
    connection: &Connection,
    before: Timestamp,
    forwards: bool,
) -> rusqlite::Result<i64> {
    let ms = before.as_unix_ms();
    let hour_ms = ms - ms.rem_euclid(HOUR_MS);
    let spared = match forwards {
        true => format!("AND {}", outbox::not_pending()),
        false => String::new(),
    };
    let n = connection
        .prepare_cached(&format!(
            "DELETE FROM events WHERE id IN
                 (SELECT id FROM events WHERE time_ms < ?1 {spared} ORDER BY time_ms LIMIT ?2)"
        ))?
        .execute(params![hour_ms, PRUNE_ROWS_MAX])?;
    let n = i64::try_from(n).unwrap_or(i64::MAX);
    if n > 0 {
        note(connection, hour_ms)?;
        peaks::forget(connection)?;
    }
    // With the last rows only: this looks at all late usage that there is.
    if (1..PRUNE_ROWS_MAX).contains(&n) {
        forget_what_they_left(connection)?;
    }
    Ok(n)
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

/// Notes that rows before that hour were deleted, though their sums are kept: an event of theirs
/// that is found in another record would be counted a second time.
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
