//! Sums of long ago go where the file has no room for them: what finer sums say, coarser ones still
//! hold.

use rusqlite::{Connection, OptionalExtension, params};

use crate::ledger::regroup;

/// Lines that one step deletes: some ten milliseconds of work.
pub const THIN_LINES_MAX: i64 = 1_000;

/// Sums that may go, those of least worth first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sums {
    /// Of hours; days hold them.
    Hours,
    /// Of days by tags, pod and node.
    TagsAndPods,
    /// Of days by pod and node.
    Pods,
    /// Of days; months hold them.
    Days,
}

impl Sums {
    /// Their table.
    pub const fn table(self) -> &'static str {
        match self {
            Sums::Hours => "hourly",
            Sums::TagsAndPods => "daily_pods",
            Sums::Pods => "daily_sources",
            Sums::Days => "daily",
        }
    }

    /// The key in `meta` of the hour before which they are gone.
    const fn mark(self) -> &'static str {
        match self {
            Sums::Hours => "hours_from",
            Sums::TagsAndPods => "tags_and_pods_from",
            Sums::Pods => "pods_from",
            Sums::Days => "days_from",
        }
    }

    /// The hour before which they may go, as SQL over `?1`, before which all hours are regrouped:
    /// the begin of its day, or of its month.
    fn limit(self) -> String {
        match self {
            Sums::Hours | Sums::TagsAndPods | Sums::Pods => crate::ledger::fold::day_of("?1"),
            Sums::Days => crate::ledger::fold::month_of("?1"),
        }
    }
}

/// Before which hour those sums are gone; `None` where none are.
pub fn gone_before(connection: &Connection, sums: Sums) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT value FROM meta WHERE key = ?1")?
        .query_row([sums.mark()], |row| row.get(0))
        .optional()
}

/// Deletes some of the oldest of those sums, of days or months whose calls are all deleted; says how
/// many. Within a transaction.
pub fn delete_some(connection: &Connection, sums: Sums) -> rusqlite::Result<u64> {
    let regrouped = regroup::regrouped_hour(connection)?;
    if regrouped == i64::MIN {
        return Ok(0);
    }
    let limit: Option<i64> = connection
        .prepare_cached(&format!("SELECT {}", sums.limit()))?
        .query_row([regrouped], |row| row.get(0))?;
    let table = sums.table();
    let oldest: Option<i64> = connection
        .prepare_cached(&format!("SELECT min(hour) FROM {table}"))?
        .query_row([], |row| row.get(0))?;
    let (Some(limit), Some(oldest)) = (limit, oldest) else {
        return Ok(0);
    };
    if oldest >= limit {
        return Ok(0);
    }
    let part = match sums {
        Sums::Pods => "source_id",
        Sums::Hours | Sums::TagsAndPods | Sums::Days => "tag_set",
    };
    let upto: Option<i64> = connection
        .prepare_cached(&format!(
            "SELECT {part} FROM {table} WHERE hour = ?1 ORDER BY {part} LIMIT 1 OFFSET ?2"
        ))?
        .query_row([oldest, THIN_LINES_MAX], |row| row.get(0))
        .optional()?;
    let n = connection
        .prepare_cached(&format!(
            "DELETE FROM {table} WHERE hour = ?1 AND {part} <= ?2"
        ))?
        .execute([oldest, upto.unwrap_or(i64::MAX)])?;
    connection
        .prepare_cached(
            "INSERT INTO meta (key, value) VALUES (?1, ?2)
             ON CONFLICT DO UPDATE SET value = max(value, excluded.value)",
        )?
        .execute(params![sums.mark(), oldest + 1])?;
    Ok(n as u64)
}
