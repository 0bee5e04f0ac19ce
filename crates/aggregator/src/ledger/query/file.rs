//! How large the ledger's file is, and how far back it goes.

use rusqlite::{Connection, OptionalExtension};
use tollmesh_wire::Timestamp;

use crate::ledger::error::QueryError;
use crate::ledger::query::reader::Reader;
use crate::ledger::{fold, outbox, regroup};

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
        self.call_time("SELECT min(time_ms) FROM events")
    }

    /// When the newest was.
    pub fn newest_call(&self) -> Result<Option<Timestamp>, QueryError> {
        self.call_time("SELECT max(time_ms) FROM events")
    }

    /// When the oldest of those was that a store which the ledger is forwarded to has.
    pub fn oldest_forwarded_call(&self) -> Result<Option<Timestamp>, QueryError> {
        let not_pending = outbox::not_pending();
        self.ask(|connection| {
            if outbox::are_all_pending(connection)? {
                return Ok(None);
            }
            let sql =
                format!("SELECT time_ms FROM events WHERE {not_pending} ORDER BY time_ms LIMIT 1");
            let ms: Option<i64> = connection
                .prepare_cached(&sql)?
                .query_row([], |row| row.get(0))
                .optional()?;
            Ok(ms.map(Timestamp::from_unix_ms))
        })
    }

    /// Bytes of the file that calls take, with sums of their days, outcomes, and what those refer to:
    /// all but what sums of days take whose calls are deleted, and what no call frees by going.
    pub fn bytes_of_calls(&self) -> Result<u64, QueryError> {
        let used = self.file_size()?.used_bytes();
        let of_others = self.ask(|connection| {
            let of_past = bytes_of_past(connection)?;
            Ok(of_past + bytes_that_stay(connection)?)
        })?;
        Ok(used.saturating_sub(of_others))
    }

    fn call_time(&self, sql: &str) -> Result<Option<Timestamp>, QueryError> {
        self.ask(|connection| {
            let ms: Option<i64> = connection.query_row(sql, [], |row| row.get(0))?;
            Ok(ms.map(Timestamp::from_unix_ms))
        })
    }
}

/// Tables that stay as they are, whichever calls are deleted.
const STAYING: &str = "'meta', 'metric_series', 'metric_totals', 'metric_buckets', 'budgets',
    'budget_spend', 'denials', 'quarantine'";

/// What those tables take, with their indices.
fn bytes_that_stay(connection: &Connection) -> rusqlite::Result<u64> {
    let sql = format!(
        "SELECT coalesce(sum(pgsize), 0) FROM dbstat WHERE aggregate = TRUE AND name IN
             (SELECT name FROM sqlite_schema WHERE tbl_name IN ({STAYING}))"
    );
    let bytes: i64 = connection
        .prepare_cached(&sql)?
        .query_row([], |row| row.get(0))?;
    Ok(bytes.unsigned_abs())
}

/// What sums of days and months take whose calls are all deleted: their share of the lines of each
/// table.
fn bytes_of_past(connection: &Connection) -> rusqlite::Result<u64> {
    let regrouped = regroup::regrouped_hour(connection)?;
    if regrouped == i64::MIN {
        return Ok(0);
    }
    let mut of_past = 0;
    for (table, end) in [
        ("hourly", "?1".to_owned()),
        ("daily", fold::day_of("?1")),
        ("daily_sources", fold::day_of("?1")),
        ("daily_pods", fold::day_of("?1")),
        ("monthly", fold::month_of("?1")),
    ] {
        let sql = format!(
            "SELECT coalesce(sum(pgsize), 0) * (SELECT count(*) FROM {table} WHERE hour < {end})
                 / (SELECT max(count(*), 1) FROM {table})
             FROM dbstat WHERE aggregate = TRUE AND name = '{table}'"
        );
        let bytes: i64 = connection
            .prepare_cached(&sql)?
            .query_row([regrouped], |row| row.get(0))?;
        of_past += bytes.unsigned_abs();
    }
    Ok(of_past)
}
