//! Whether the ledger agrees with itself: its pages, its rows and the sums of them.

use std::fmt;

use rusqlite::{Connection, OptionalExtension, params};
use tollmesh_wire::Timestamp;

use crate::ledger::error::{LedgerError, QueryError};
use crate::ledger::fold::{self, Folded};
use crate::ledger::pages;
use crate::ledger::peaks;
use crate::ledger::prune::Forgotten;
use crate::ledger::query::reader::Reader;
use crate::ledger::rollup::{self, HOUR_MS};
use crate::ledger::thin::{self, Sums};

/// Damages that are told; where there are more, the file is to be replaced anyway.
const DAMAGES_MAX: usize = 10;

/// Findings of sums that are kept; more say nothing new.
const FINDINGS_MAX: usize = 100;

/// What was looked at, and what is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Calls in the ledger.
    pub rows: u64,
    /// Hours of which sums were compared with their rows.
    pub hours: u64,
    /// Calls in all sums: those in the ledger, and those that retention deleted.
    pub summed_requests: i64,
    /// What is wrong, at most some hundred; empty where all is well.
    pub findings: Vec<Finding>,
}

/// Something that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// SQLite finds pages or indices damaged.
    Damage(String),
    /// The ledger says that it has another number of rows than there are.
    RowCount {
        /// What it says.
        stated: i64,
        /// What there are.
        found: i64,
    },
    /// The sums of an hour are not those of its rows, or a row exceeds its peaks.
    Hour(Timestamp),
    /// The sums of a day are not those of its hours.
    Day(Timestamp),
    /// The sums of a month are not those of its days.
    Month(Timestamp),
    /// Rows refer to a dictionary's entry that is not there.
    Dangling {
        /// The dictionary.
        dictionary: &'static str,
        /// Rows and sums that do.
        n: i64,
    },
    /// A counter is below zero.
    NegativeCounter {
        /// Its metric.
        metric: String,
        /// Its labels.
        series: String,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Damage(what) => write!(f, "damaged: {what}"),
            Finding::RowCount { stated, found } => {
                write!(f, "{found} calls, but the ledger states {stated}")
            }
            Finding::Hour(at) => write!(f, "the sums of hour {at} are not those of its calls"),
            Finding::Day(at) => write!(f, "the sums of day {at} are not those of its hours"),
            Finding::Month(at) => write!(f, "the sums of month {at} are not those of its days"),
            Finding::Dangling { dictionary, n } => {
                write!(f, "{n} rows refer to {dictionary} that are not there")
            }
            Finding::NegativeCounter { metric, series } => {
                write!(f, "counter {metric}{{{series}}} is below zero")
            }
        }
    }
}

impl Reader {
    /// Looks at everything, an hour at a time, while the writer goes on. After each hour `told`
    /// receives how many were looked at.
    pub fn audit(&self, told: &mut dyn FnMut(u64)) -> Result<Audit, QueryError> {
        let mut audit = Audit::default();
        audit.findings.extend(match self.ask(damages) {
            // It could not even be looked through.
            Err(QueryError::Ledger(LedgerError::Damaged { found, .. })) => {
                vec![Finding::Damage(found)]
            }
            said => said?,
        });
        if !audit.findings.is_empty() {
            // What a damaged page holds is told by no comparison.
            return Ok(audit);
        }
        self.ask(|connection| Ok(audit.count(connection)?))?;
        self.compare_all(NEXT_HOUR, hour_differs, &mut |start, differs| {
            audit.hours += 1;
            audit.note(differs.then_some(Finding::Hour(start)));
            told(audit.hours);
        })?;
        let next_day = next_of("daily", "hourly", "?1 + 24", fold::day_of);
        let next_month = next_of("monthly", "daily", NEXT_MONTH, fold::month_of);
        self.compare_all(&next_day, day_differs, &mut |start, differs| {
            audit.note(differs.then_some(Finding::Day(start)));
        })?;
        let next_day = next_of("daily_sources", "hourly", "?1 + 24", fold::day_of);
        self.compare_all(&next_day, day_by_source_differs, &mut |start, differs| {
            audit.note(differs.then_some(Finding::Day(start)));
        })?;
        let next_day = next_of("daily_pods", "hourly", "?1 + 24", fold::day_of);
        self.compare_all(&next_day, day_by_pod_differs, &mut |start, differs| {
            audit.note(differs.then_some(Finding::Day(start)));
        })?;
        self.compare_all(&next_month, month_differs, &mut |start, differs| {
            audit.note(differs.then_some(Finding::Month(start)));
        })?;
        audit.findings.extend(self.ask(dangling)?);
        audit.findings.extend(self.ask(negative_counters)?);
        Ok(audit)
    }

    /// Counters of that metric together, over all its series; `None` where it has none.
    pub fn counted(&self, metric: &str) -> Result<Option<i128>, QueryError> {
        self.ask(|connection| {
            let mut values = connection.prepare_cached(
                "SELECT value FROM metric_series JOIN metric_totals USING (id) WHERE metric = ?1",
            )?;
            let values = values.query_map([metric], |row| {
                row.get(0).map(|wide: crate::ledger::wide::Wide| wide.0)
            })?;
            values.map(|value| Ok(value?)).try_fold(
                None,
                |sum: Option<i128>, value: Result<i128, QueryError>| {
                    Ok(Some(sum.unwrap_or(0) + value?))
                },
            )
        })
    }

    /// Goes through all starts, each in a transaction of its own, so that the log does not grow.
    fn compare_all(
        &self,
        next: &str,
        differs: fn(&Connection, i64) -> rusqlite::Result<bool>,
        found: &mut dyn FnMut(Timestamp, bool),
    ) -> Result<(), QueryError> {
        let mut after = i64::MIN / HOUR_MS;
        loop {
            let compared = self.ask(|connection| {
                let start: Option<i64> = connection
                    .prepare_cached(next)?
                    .query_row([after], |row| row.get(0))?;
                Ok(match start {
                    None => None,
                    Some(start) => Some((start, differs(connection, start)?)),
                })
            })?;
            let Some((start, differs)) = compared else {
                return Ok(());
            };
            found(Timestamp::from_unix_ms(start * HOUR_MS), differs);
            after = start;
        }
    }
}

impl Audit {
    fn note(&mut self, finding: Option<Finding>) {
        // A day is summed in three ways.
        let finding = finding.filter(|finding| !self.findings.contains(finding));
        if self.findings.len() < FINDINGS_MAX {
            self.findings.extend(finding);
        }
    }

    fn count(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let one = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        let found = one("SELECT count(*) FROM events")?;
        let stated = one("SELECT coalesce((SELECT value FROM meta WHERE key = 'rows'), 0)")?;
        self.rows = found.unsigned_abs();
        self.summed_requests = summed_requests(connection)?;
        self.note((found != stated).then_some(Finding::RowCount { stated, found }));
        Ok(())
    }
}

/// Calls in months, and in those hours that are yet to be folded into them.
fn summed_requests(connection: &Connection) -> rusqlite::Result<i64> {
    let folded = Folded::read(connection)?;
    connection.query_row(
        "SELECT (SELECT coalesce(sum(requests), 0) FROM monthly)
             + (SELECT coalesce(sum(requests), 0) FROM hourly
                WHERE (hour, tag_set) >= (?1, ?2))",
        [folded.hour, folded.tag_set],
        |row| row.get(0),
    )
}

/// Whether sums that begin with that hour may lack those that they are made of.
fn has_lost(connection: &Connection, sums: Sums, hour: i64) -> rusqlite::Result<bool> {
    Ok(thin::gone_before(connection, sums)?.is_some_and(|gone| hour < gone))
}

fn damages(connection: &Connection) -> Result<Vec<Finding>, QueryError> {
    let mut check = connection.prepare(&format!("PRAGMA quick_check({DAMAGES_MAX})"))?;
    let said = check.query_map([], |row| row.get::<_, String>(0))?;
    let said: Vec<String> = said.collect::<rusqlite::Result<_>>()?;
    let damages = said.into_iter().filter(|said| said != "ok");
    let damages = damages.map(|said| Finding::Damage(pages::in_words(&said)));
    Ok(damages.collect())
}

/// The first hour after that one that has rows or sums.
const NEXT_HOUR: &str = "SELECT min(hour) FROM (
    SELECT (SELECT min(hour) FROM hourly WHERE hour > ?1) AS hour
    UNION ALL
    SELECT (SELECT (t - ((t % 3600000) + 3600000) % 3600000) / 3600000
            FROM (SELECT min(time_ms) AS t FROM events WHERE time_ms >= (?1 + 1) * 3600000)))";

/// The hour at which the month that begins at `?1` ends; none where calendars do.
const NEXT_MONTH: &str = "coalesce(unixepoch(?1 * 3600, 'unixepoch', '+1 month') / 3600, ?1)";

/// The first start after that one that a table of sums has, or should have by what it is made of,
/// which goes on at `end`.
fn next_of(table: &str, parts: &str, end: &str, start_of: fn(&str) -> String) -> String {
    let later = start_of(&format!(
        "(SELECT min(hour) FROM {parts} WHERE hour >= {end})"
    ));
    format!(
        "SELECT min(hour) FROM (
             SELECT (SELECT min(hour) FROM {table} WHERE hour > ?1) AS hour
             UNION ALL SELECT {later})"
    )
}

/// Whether two sets of groups are not the same.
fn are_different(
    connection: &Connection,
    one: &str,
    other: &str,
    values: impl rusqlite::Params + Copy,
) -> rusqlite::Result<bool> {
    for (these, those) in [(one, other), (other, one)] {
        let sql = format!("SELECT 1 FROM (SELECT * FROM ({these}) EXCEPT SELECT * FROM ({those}))");
        let odd = connection
            .prepare_cached(&sql)?
            .query_row(values, |_| Ok(()))
            .optional()?;
        if odd.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The groups of a table of sums as they stand.
fn groups(table: &str, condition: &str) -> String {
    groups_by("tag_set", table, condition)
}

/// The same with that in a tag set's place.
fn groups_by(tag_set: &str, table: &str, condition: &str) -> String {
    let sums: Vec<&str> = rollup::sum_names().collect();
    format!(
        "SELECT hour, {tag_set}, source_id, model_id, outcome, usage_source, cost_status, {}
         FROM {table} WHERE {condition}",
        sums.join(", ")
    )
}

/// The groups that a table of sums should have, from the table of its parts.
fn folded_groups(
    table: &str,
    start: &str,
    [tag_set, source]: [&str; 2],
    condition: &str,
) -> String {
    let sums: Vec<String> = rollup::sum_names()
        .map(|name| format!("sum128(t.{name})"))
        .collect();
    format!(
        "SELECT {start}, {tag_set}, {source}, t.model_id, t.outcome, t.usage_source,
                t.cost_status, {}
         FROM {table} t LEFT JOIN sources s ON s.id = t.source_id WHERE {condition}
         GROUP BY 1, 2, 3, 4, 5, 6, 7",
        sums.join(", ")
    )
}

fn hour_differs(connection: &Connection, hour: i64) -> rusqlite::Result<bool> {
    let forgotten = Forgotten::read(connection)?;
    if forgotten.is_some_and(|forgotten| hour * HOUR_MS < forgotten.before_ms) {
        // Its rows are gone, or going.
        return Ok(false);
    }
    let sums = groups("hourly", "hour = ?1");
    Ok(
        are_different(connection, &sums, rollup::OF_ROWS.as_str(), [hour])?
            || peaks::is_exceeded(connection, hour)?,
    )
}

fn day_differs(connection: &Connection, day: i64) -> rusqlite::Result<bool> {
    if has_lost(connection, Sums::Hours, day)? || has_lost(connection, Sums::Days, day)? {
        return Ok(false);
    }
    let folded = Folded::read(connection)?;
    let days = groups("daily", "hour = ?1 AND ?2 = ?2 AND ?3 = ?3");
    let source = "coalesce(s.owner_id, t.source_id)";
    let hours = folded_groups("hourly", "?1", ["t.tag_set", source], FOLDED_OF_DAY);
    let values = params![day, folded.hour, folded.tag_set];
    are_different(connection, &days, &hours, values)
}

fn day_by_source_differs(connection: &Connection, day: i64) -> rusqlite::Result<bool> {
    if has_lost(connection, Sums::Hours, day)? || has_lost(connection, Sums::Pods, day)? {
        return Ok(false);
    }
    let folded = Folded::read(connection)?;
    let days = groups_by("0", "daily_sources", "hour = ?1 AND ?2 = ?2 AND ?3 = ?3");
    let hours = folded_groups("hourly", "?1", ["0", "t.source_id"], FOLDED_OF_DAY);
    let values = params![day, folded.hour, folded.tag_set];
    are_different(connection, &days, &hours, values)
}

fn day_by_pod_differs(connection: &Connection, day: i64) -> rusqlite::Result<bool> {
    if has_lost(connection, Sums::Hours, day)? || has_lost(connection, Sums::TagsAndPods, day)? {
        return Ok(false);
    }
    let folded = Folded::read(connection)?;
    let days = groups("daily_pods", "hour = ?1 AND ?2 = ?2 AND ?3 = ?3");
    let hours = folded_groups("hourly", "?1", ["t.tag_set", "t.source_id"], FOLDED_OF_DAY);
    let values = params![day, folded.hour, folded.tag_set];
    are_different(connection, &days, &hours, values)
}

/// The hours of a day, `?1`, before the place `?2`, `?3` up to which they are folded.
const FOLDED_OF_DAY: &str = "t.hour >= ?1 AND t.hour < ?1 + 24 AND (t.hour, t.tag_set) < (?2, ?3)";

fn month_differs(connection: &Connection, month: i64) -> rusqlite::Result<bool> {
    if has_lost(connection, Sums::Days, month)? {
        return Ok(false);
    }
    let months = groups("monthly", "hour = ?1");
    let days = folded_groups(
        "daily",
        "?1",
        ["t.tag_set", "t.source_id"],
        &format!(
            "t.hour >= ?1 AND t.hour <= ?1 + 31 * 24 AND {} = ?1",
            fold::month_of("t.hour")
        ),
    );
    are_different(connection, &months, &days, [month])
}

fn dangling(connection: &Connection) -> Result<Vec<Finding>, QueryError> {
    let mut findings = Vec::new();
    for (dictionary, table, column) in [
        ("tag_sets", "events", "tag_set"),
        ("sources", "events", "source_id"),
        ("models", "events", "model_id"),
        ("prices", "events", "price_id"),
        ("tag_sets", "hourly", "tag_set"),
        ("sources", "hourly", "source_id"),
        ("models", "hourly", "model_id"),
        ("tag_sets", "daily", "tag_set"),
        ("sources", "daily", "source_id"),
        ("models", "daily", "model_id"),
        ("sources", "daily_sources", "source_id"),
        ("models", "daily_sources", "model_id"),
        ("tag_sets", "daily_pods", "tag_set"),
        ("sources", "daily_pods", "source_id"),
        ("models", "daily_pods", "model_id"),
        ("tag_sets", "monthly", "tag_set"),
        ("sources", "monthly", "source_id"),
        ("models", "monthly", "model_id"),
    ] {
        let sql = format!(
            "SELECT count(*) FROM {table} WHERE {column} NOT IN (SELECT id FROM {dictionary})"
        );
        let n: i64 = connection.query_row(&sql, [], |row| row.get(0))?;
        if n > 0 {
            findings.push(Finding::Dangling { dictionary, n });
        }
    }
    Ok(findings)
}

fn negative_counters(connection: &Connection) -> Result<Vec<Finding>, QueryError> {
    // A number that no integer holds stands as its digits.
    let mut below = connection.prepare(
        "SELECT metric, series FROM metric_series JOIN metric_totals USING (id)
         WHERE CASE typeof(value) WHEN 'text' THEN value LIKE '-%' ELSE value < 0 END",
    )?;
    let below = below.query_map([], |row| {
        Ok(Finding::NegativeCounter {
            metric: row.get(0)?,
            series: row.get(1)?,
        })
    })?;
    Ok(below.take(FINDINGS_MAX).collect::<rusqlite::Result<_>>()?)
}
