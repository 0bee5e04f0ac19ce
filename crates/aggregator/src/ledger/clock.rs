//! What the ledger remembers of the wall clock, so that one that jumps ahead deletes nothing.

use rusqlite::{Connection, OptionalExtension, params};
use tollmesh_wire::Timestamp;

use crate::ledger::error::QueryError;
use crate::ledger::query::Reader;

/// The key in `meta` of the last time that was believed, in milliseconds since 1970.
const BELIEVED_MS: &str = "clock_ms";
/// The key in `meta` that says how often in a row the clock has not been believed.
const DOUBTS: &str = "clock_doubts";

/// The clock, as it was believed last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Believed {
    /// The time; where none was noted yet, that of the newest call.
    pub at: Timestamp,
    /// How often in a row it was not believed since.
    pub doubts: u32,
    /// Whether this was noted before.
    pub is_noted: bool,
}

impl Reader {
    /// The clock as it was believed last; `None` in a ledger that knows no time yet.
    pub fn believed_clock(&self) -> Result<Option<Believed>, QueryError> {
        self.ask(|connection| {
            let value = |key: &str| -> rusqlite::Result<Option<i64>> {
                connection
                    .prepare_cached("SELECT value FROM meta WHERE key = ?1")?
                    .query_row([key], |row| row.get(0))
                    .optional()
            };
            let newest =
                || connection.query_row("SELECT max(time_ms) FROM events", [], |row| row.get(0));
            let noted = value(BELIEVED_MS)?;
            let at = match noted {
                None => newest()?,
                known => known,
            };
            let doubts = value(DOUBTS)?.unwrap_or(0);
            Ok(at.map(|ms| Believed {
                at: Timestamp::from_unix_ms(ms),
                doubts: u32::try_from(doubts).unwrap_or(0),
                is_noted: noted.is_some(),
            }))
        })
    }
}

/// Notes what is believed, in the writer's transaction.
pub fn note(connection: &Connection, believed: Believed) -> rusqlite::Result<()> {
    let mut put = connection.prepare_cached(
        "INSERT INTO meta (key, value) VALUES (?1, ?2)
         ON CONFLICT DO UPDATE SET value = excluded.value",
    )?;
    put.execute(params![BELIEVED_MS, believed.at.as_unix_ms()])?;
    put.execute(params![DOUBTS, believed.doubts])?;
    Ok(())
}
