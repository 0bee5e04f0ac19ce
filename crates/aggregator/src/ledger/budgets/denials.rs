//! What budgets did to calls, for whoever asks why.

use rusqlite::{Connection, params};

use super::Denial;
use crate::ledger::error::QueryError;
use crate::ledger::query::Reader;

/// Denials that are kept: enough to explain those of the last hours, at some 400 bytes each.
const DENIALS_MAX: i64 = 20_000;

/// Keeps what budgets did, the last [`DENIALS_MAX`] times.
pub fn keep_denials(connection: &Connection, denials: &[Denial]) -> rusqlite::Result<()> {
    if denials.is_empty() {
        return Ok(());
    }
    let mut insert = connection.prepare_cached(
        "INSERT INTO denials (time_ms, event_id, request_id, budget, body)
         VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for denial in denials {
        insert.execute(params![
            denial.time_ms,
            denial.event_id,
            denial.request_id,
            denial.budget,
            denial.body
        ])?;
    }
    connection
        .prepare_cached("DELETE FROM denials WHERE id <= (SELECT max(id) FROM denials) - ?1")?
        .execute([DENIALS_MAX])?;
    Ok(())
}

impl Reader {
    /// What budgets did to the call with that id, or to the calls of that request; the latest first.
    pub fn denials(&self, id: &str) -> Result<Vec<Denial>, QueryError> {
        self.ask(|connection| Ok(denials_of(connection, id)?))
    }
}

fn denials_of(connection: &Connection, id: &str) -> rusqlite::Result<Vec<Denial>> {
    let mut statement = connection.prepare_cached(
        "SELECT time_ms, event_id, request_id, budget, body FROM denials
         WHERE event_id = ?1 OR request_id = ?1 ORDER BY id DESC",
    )?;
    let rows = statement.query_map([id], |row| {
        Ok(Denial {
            time_ms: row.get(0)?,
            event_id: row.get(1)?,
            request_id: row.get(2)?,
            budget: row.get(3)?,
            body: row.get(4)?,
        })
    })?;
    rows.collect()
}
