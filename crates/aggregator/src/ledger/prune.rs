//! Retention: rows of old hours go, in steps between which the writer does its other work.

use rusqlite::{Connection, OptionalExtension, params};
use tollmesh_wire::{Event, Timestamp};

use crate::clock;
use crate::ledger::peaks;
use crate::ledger::rollup::HOUR_MS;
use crate::ledger::{exported, outbox};

/// The key in `meta` under which the end of the newest deleted hour stands, in milliseconds.
const FORGOTTEN_BEFORE_MS: &str = "forgotten_before_ms";
/// The key in `meta` of when rows were deleted last, in milliseconds.
const FORGOTTEN_AT_MS: &str = "forgotten_at_ms";

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
    for Old {
        id,
        is_pending,
        is_untold,
        ..
    } in &rows
    {
        delete.execute([id])?;
        pruned.rows += 1;
        pruned.not_forwarded += u64::from(*is_pending);
        pruned.not_exported += u64::from(*is_untold);
    }
    if let Some(newest) = rows.last() {
        note(connection, newest.time_ms)?;
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

/// A row that is to go.
struct Old {
    id: i64,
    time_ms: i64,
    /// Whether another store is yet to have it.
    is_pending: bool,
    /// Whether a receiver of telemetry is yet to be told of it.
    is_untold: bool,
}

/// The oldest rows before that hour, the oldest first.
fn oldest(
    connection: &Connection,
    hour_ms: i64,
    spares_pending: bool,
) -> rusqlite::Result<Vec<Old>> {
    let not_pending = outbox::not_pending();
    let spared = match spares_pending {
        true => format!("AND {not_pending}"),
        false => String::new(),
    };
    let told = exported::TOLD;
    connection
        .prepare_cached(&format!(
            "SELECT id, time_ms, NOT ({not_pending}), NOT ({told}) FROM events
             WHERE time_ms < ?1 {spared} ORDER BY time_ms LIMIT ?2"
        ))?
        .query_map(params![hour_ms, PRUNE_ROWS_MAX], |row| {
            Ok(Old {
                id: row.get(0)?,
                time_ms: row.get(1)?,
                is_pending: row.get(2)?,
                is_untold: row.get(3)?,
            })
        })?
        .collect()
}

/// Which calls had rows that were deleted, though their sums are kept: an event of theirs that comes
/// again, or is found in another record, would be counted a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgotten {
    /// The end of the newest hour of which rows were deleted, in milliseconds since 1970.
    pub before_ms: i64,
    /// When that was done last; `None` in files of before that was noted.
    pub at_ms: Option<i64>,
}

impl Forgotten {
    /// What was deleted; `None` where nothing was.
    pub fn read(connection: &Connection) -> rusqlite::Result<Option<Forgotten>> {
        let value = |key: &str| -> rusqlite::Result<Option<i64>> {
            connection
                .prepare_cached("SELECT value FROM meta WHERE key = ?1")?
                .query_row([key], |row| row.get(0))
                .optional()
        };
        let at_ms = value(FORGOTTEN_AT_MS)?;
        Ok(value(FORGOTTEN_BEFORE_MS)?.map(|before_ms| Forgotten { before_ms, at_ms }))
    }

    /// Rows that began before then were deleted. The last hour's always stay: a clock that was ahead
    /// when rows were deleted must not have every event refused until it is right.
    pub fn before(self, now: Timestamp) -> Timestamp {
        let kept_from_ms = now.as_unix_ms().saturating_sub(HOUR_MS);
        Timestamp::from_unix_ms(self.before_ms.min(kept_from_ms))
    }

    /// Whether a row of that event may have been deleted; one that ended since can have had none.
    pub fn may_include(self, event: &Event, now: Timestamp) -> bool {
        let lasted_ms = i64::try_from(event.duration_ms).unwrap_or(i64::MAX);
        let ended_ms = event.time.as_unix_ms().saturating_add(lasted_ms);
        event.time < self.before(now) && self.at_ms.is_none_or(|at_ms| ended_ms <= at_ms)
    }
}

/// Notes that rows of the hour of that instant, and before, were deleted now.
fn note(connection: &Connection, newest_ms: i64) -> rusqlite::Result<()> {
    let hour_end_ms = newest_ms - newest_ms.rem_euclid(HOUR_MS) + HOUR_MS;
    let mut raise = connection.prepare_cached(
        "INSERT INTO meta (key, value) VALUES (?1, ?2)
         ON CONFLICT DO UPDATE SET value = max(value, excluded.value)",
    )?;
    raise.execute(params![FORGOTTEN_BEFORE_MS, hour_end_ms])?;
    let mut put = connection.prepare_cached(
        "INSERT INTO meta (key, value) VALUES (?1, ?2)
         ON CONFLICT DO UPDATE SET value = excluded.value",
    )?;
    put.execute(params![FORGOTTEN_AT_MS, clock::now().as_unix_ms()])?;
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
