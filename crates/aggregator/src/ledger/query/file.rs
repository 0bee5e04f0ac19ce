//! How large the ledger's file is, and how far back it goes.

use tollmesh_wire::Timestamp;

use crate::ledger::error::QueryError;
use crate::ledger::query::reader::Reader;

/// The size of the ledger's file, without its write-ahead log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSize {
    /// All of it.
    pub bytes: u64,
    /// The part of it that is free, which retention gives back.
    pub free_bytes: u64,
}

impl FileSize {
    /// The part of it that holds something.
    pub fn used_bytes(self) -> u64 {
        self.bytes.saturating_sub(self.free_bytes)
    }
}

impl Reader {
    /// How large the file is.
    pub fn file_size(&self) -> Result<FileSize, QueryError> {
        self.ask(|connection| {
            let pragma =
                |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
            let page_bytes = pragma("page_size")?.unsigned_abs();
            Ok(FileSize {
                bytes: pragma("page_count")?.unsigned_abs() * page_bytes,
                free_bytes: pragma("freelist_count")?.unsigned_abs() * page_bytes,
            })
        })
    }

    /// When the oldest call that the ledger holds was.
    pub fn oldest_call(&self) -> Result<Option<Timestamp>, QueryError> {
        self.ask(|connection| {
            let oldest: Option<i64> =
                connection.query_row("SELECT min(time_ms) FROM events", [], |row| row.get(0))?;
            Ok(oldest.map(Timestamp::from_unix_ms))
        })
    }
}
