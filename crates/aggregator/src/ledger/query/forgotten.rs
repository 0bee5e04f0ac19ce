//! What the ledger held and deleted again, for whoever has another record of it.

use rusqlite::OptionalExtension;
use tollmesh_wire::Timestamp;

use crate::ledger::error::QueryError;
use crate::ledger::prune::FORGOTTEN_BEFORE_MS;
use crate::ledger::query::reader::Reader;

impl Reader {
    /// Before when retention has deleted rows, whose sums the ledger keeps; `None` where it has
    /// deleted none yet.
    pub fn forgotten_before(&self) -> Result<Option<Timestamp>, QueryError> {
        self.ask(|connection| {
            let value = "SELECT value FROM meta WHERE key = ?1";
            let ms: Option<i64> = connection
                .query_row(value, [FORGOTTEN_BEFORE_MS], |row| row.get(0))
                .optional()?;
            Ok(ms.map(Timestamp::from_unix_ms))
        })
    }
}
