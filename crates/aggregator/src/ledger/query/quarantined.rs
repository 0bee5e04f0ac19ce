//! What is in quarantine, for whoever looks for the reason.

use tollmesh_wire::Timestamp;

use crate::ledger::entry::Quarantined;
use crate::ledger::error::QueryError;
use crate::ledger::query::reader::Reader;

/// Events that could not be taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// How many are kept; the oldest have gone where there were more than the ledger keeps.
    pub n_events: u64,
    /// The latest of them first.
    pub latest: Vec<Quarantined>,
}

impl Reader {
    /// The number of events in quarantine, and the latest, at most `limit`.
    pub fn quarantined(&self, limit: u32) -> Result<Held, QueryError> {
        self.ask(|connection| {
            let count = "SELECT count(*) FROM quarantine";
            let n_events: i64 = connection.query_row(count, [], |row| row.get(0))?;
            let mut statement = connection.prepare_cached(
                "SELECT received_ms, event_id, reason, body FROM quarantine
                 ORDER BY id DESC LIMIT ?1",
            )?;
            let latest = statement.query_map([limit], |row| {
                Ok(Quarantined {
                    received: Timestamp::from_unix_ms(row.get(0)?),
                    event_id: row.get(1)?,
                    reason: row.get(2)?,
                    body: row.get(3)?,
                })
            })?;
            Ok(Held {
                n_events: n_events.unsigned_abs(),
                latest: latest.collect::<rusqlite::Result<_>>()?,
            })
        })
    }
}
