//! Events that cannot be taken, kept with the reason, within bounds.

use rusqlite::{Connection, params};

use crate::ledger::entry::{Entry, Quarantined, Refusal};

/// Events in quarantine; the oldest go first. Enough to see a pattern.
pub const QUARANTINE_ROWS_MAX: i64 = 1_000;

/// Bytes of each text that are kept.
pub const QUARANTINE_TEXT_BYTES_MAX: usize = 4 * 1024;

/// Keeps an event that could not even be read.
pub fn keep(connection: &Connection, bad: &Quarantined) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO quarantine (received_ms, event_id, reason, body) VALUES (?1, ?2, ?3, ?4)",
    )?;
    insert.execute(params![
        bad.received.as_unix_ms(),
        bad.event_id.as_deref().map(cut),
        cut(&bad.reason),
        cut(&bad.body),
    ])?;
    Ok(())
}

/// Keeps an event that was read and refused. Its own time stands for that of its arrival.
pub fn keep_refused(connection: &Connection, entry: &Entry, why: &Refusal) -> rusqlite::Result<()> {
    let event = &entry.event;
    let bad = Quarantined {
        received: event.time,
        event_id: Some(event.event_id.clone()),
        reason: why.to_string(),
        body: serde_json::to_string(event).unwrap_or_default(),
    };
    keep(connection, &bad)
}

/// Lets go of what is beyond the bound.
pub fn trim(connection: &Connection) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM quarantine WHERE id <= (SELECT max(id) FROM quarantine) - ?1")?
        .execute([QUARANTINE_ROWS_MAX])?;
    Ok(())
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(QUARANTINE_TEXT_BYTES_MAX)]
}
