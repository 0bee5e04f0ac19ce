//! The highest row of each hour by cost, duration and tokens: where the highest rows of a long span
//! can be, without looking at all of them.
//!
//! A peak is a bound, and never falls: a row that was priced anew or completed leaves it standing
//! where it now is lower. Who looks for the highest rows reads the hours in the order of their peaks,
//! and may stop where no further hour's peak reaches what was found.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};
use tollmesh_usage::Bucket;

use crate::ledger::checked::Checked;
use crate::ledger::rollup::HOUR_MS;
use crate::money::PicoUsd;

/// A row's place in an order: what it is ordered by, then its number.
pub type Rank = (i64, i64);

/// What rows of unpriced calls are ordered by.
pub const UNPRICED: i64 = i64::MIN;

/// The highest ranks of an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Peak {
    cost: Rank,
    duration: Rank,
    tokens: Rank,
}

/// What a transaction raises.
#[derive(Debug, Default)]
pub struct Peaks {
    hours: HashMap<i64, Peak>,
}

impl Peaks {
    /// Takes in a row as it is now.
    pub fn add(&mut self, checked: &Checked<'_>, row: i64) {
        let event = checked.event();
        let cost = checked.entry.cost.total.map_or(UNPRICED, PicoUsd::as_pico);
        let duration = i64::try_from(event.duration_ms).unwrap_or(i64::MAX);
        let tokens = Bucket::ALL.map(|bucket| event.usage.get(bucket).unwrap_or(0));
        let tokens = tokens.into_iter().fold(0_u64, u64::saturating_add);
        let tokens = i64::try_from(tokens).unwrap_or(i64::MAX);
        let peak = Peak {
            cost: (cost, row),
            duration: (duration, row),
            tokens: (tokens, row),
        };
        let hour = event.time.as_unix_ms().div_euclid(HOUR_MS);
        let slot = self.hours.entry(hour).or_insert(peak);
        *slot = Peak {
            cost: slot.cost.max(peak.cost),
            duration: slot.duration.max(peak.duration),
            tokens: slot.tokens.max(peak.tokens),
        };
    }

    /// Raises what the file has.
    pub fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        for (hour, peak) in &self.hours {
            connection.prepare_cached(RAISE)?.execute(params![
                hour,
                peak.cost.0,
                peak.cost.1,
                peak.duration.0,
                peak.duration.1,
                peak.tokens.0,
                peak.tokens.1,
            ])?;
        }
        Ok(())
    }
}

/// All right-hand sides are of the line as it was.
const RAISE: &str = "INSERT INTO peaks VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
    ON CONFLICT DO UPDATE SET
        cost_row = CASE WHEN (?2, ?3) > (cost_pico, cost_row) THEN ?3 ELSE cost_row END,
        cost_pico = max(cost_pico, ?2),
        duration_row = CASE WHEN (?4, ?5) > (duration_ms, duration_row) THEN ?5
                            ELSE duration_row END,
        duration_ms = max(duration_ms, ?4),
        tokens_row = CASE WHEN (?6, ?7) > (tokens, tokens_row) THEN ?7 ELSE tokens_row END,
        tokens = max(tokens, ?6)";

/// Forgets the hours before the first that has rows.
pub fn forget(connection: &Connection) -> rusqlite::Result<()> {
    let first: Option<i64> = connection
        .prepare_cached("SELECT min(time_ms) FROM events")?
        .query_row([], |row| row.get(0))
        .optional()?
        .flatten();
    let hour = first.map_or(i64::MAX, |ms| ms.div_euclid(HOUR_MS));
    connection
        .prepare_cached("DELETE FROM peaks WHERE hour < ?1")?
        .execute([hour])?;
    Ok(())
}

/// Whether a row of that hour exceeds what should bound it.
pub fn is_exceeded(connection: &Connection, hour: i64) -> rusqlite::Result<bool> {
    let tokens = Bucket::ALL.map(|bucket| format!("coalesce(t.{}, 0)", bucket.name()));
    let sql = format!(
        "SELECT 1 FROM events t LEFT JOIN peaks p ON p.hour = ?1
         WHERE t.time_ms >= ?1 * {HOUR_MS} AND t.time_ms < (?1 + 1) * {HOUR_MS}
             AND (p.hour IS NULL
                  OR (coalesce(t.cost_pico, {UNPRICED}), t.id) > (p.cost_pico, p.cost_row)
                  OR (t.duration_ms, t.id) > (p.duration_ms, p.duration_row)
                  OR ({}, t.id) > (p.tokens, p.tokens_row))
         LIMIT 1",
        tokens.join(" + ")
    );
    connection.prepare_cached(&sql)?.exists([hour])
}
