//! The ledger as an outbox: which rows another store is yet to have, in an order that loses none.
//!
//! A new row is pending while its number is above `forwarded_row`. A row that was forwarded and is
//! altered afterwards is noted in `changes` by a trigger, with a revision that counts its
//! alterations, so that whoever updates a row need not know that anybody forwards it.

use std::collections::HashMap;

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params};
use tollmesh_wire::Timestamp;

use crate::ledger::error::QueryError;
use crate::ledger::outcomes::{self, CallOutcome};
use crate::ledger::query::Reader;
use crate::ledger::{exported, row};

/// The key in `meta` of the newest row such that it and all before it were forwarded.
const FORWARDED_ROW: &str = "forwarded_row";
/// The key in `meta` of the last outcome such that it and all told before it were forwarded.
pub(super) const FORWARDED_OUTCOME: &str = "forwarded_outcome";
/// The key in `meta` of the number of the last parcel that the store is known to have taken.
const LAST_PARCEL: &str = "forwarded_parcel";
/// The key in `meta` of the ledger's own name, which the store knows it by.
const LEDGER_ID: &str = "ledger_id";
/// What begins the keys in `meta` that say how often the store has lost a month, as last seen.
const LOST_PREFIX: &str = "forward_lost:";

/// Columns that hold text; all others hold integers.
const TEXTS: &[&str] = &[
    "event_id",
    "units",
    "billed_usage",
    "extra_usage",
    "pricing_context",
    "unpriced_because",
    "cost_lines",
    "response_id",
    "finish_reason",
    "request_id",
    "trace_id",
    "span_id",
    "reservation_id",
    "trouble",
    "fingerprint",
    "estimate_basis",
    "missing_tags",
];

/// What a row holds of its first price, where it has another now.
const ORIGINAL: [&str; 2] = ["original_cost_pico", "original_price_id"];

/// How far forwarding has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The ledger's own name: 32 hexadecimal digits, made with the file.
    pub ledger_id: String,
    /// This row and all before it were forwarded.
    pub forwarded_row: i64,
    /// The number of the last parcel that the store is known to have taken; 0 before the first. One
    /// that says another is not as it was then.
    pub last_parcel: i64,
    /// Rows that wait, new and altered ones.
    pub pending: u64,
    /// Outcomes that wait.
    pub pending_outcomes: u64,
    /// When the call of the first of them was made.
    pub oldest: Option<Timestamp>,
    /// How often the store had lost each month when this ledger last looked.
    pub lost: HashMap<String, i64>,
}

/// Some rows on their way, as columns, and some outcomes.
#[derive(Clone, Debug, Default)]
pub struct Parcel {
    /// A number that no other parcel has but by a chance of one in 2^63; never 0.
    pub number: i64,
    /// The last of them that is new; `None` where all are alterations.
    pub upto: Option<i64>,
    /// Number and revision of each row.
    pub rows: Vec<(i64, i64)>,
    /// Each column's name and cells, the revision's among them.
    pub columns: Vec<(&'static str, Cells)>,
    /// What the rows refer to.
    pub facts: Facts,
    /// The next outcomes, in the order in which they were told.
    pub outcomes: Vec<CallOutcome>,
    /// The place of the last of them in that order; `None` where there is none.
    pub outcomes_upto: Option<i64>,
}

/// One column's cells.
#[derive(Clone, Debug)]
pub enum Cells {
    /// Of integers.
    Integers(Vec<Option<i64>>),
    /// Of texts.
    Texts(Vec<Option<String>>),
}

/// The JSON of what rows refer to, by the ids that it has in this ledger.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Tags, as an object.
    pub tag_sets: HashMap<i64, String>,
    /// Who called, as an object.
    pub sources: HashMap<i64, String>,
    /// Provider, API, host, model, model asked for, service tier.
    pub models: HashMap<i64, String>,
    /// Price row, digest of the price tables.
    pub prices: HashMap<i64, String>,
}

/// What has become of rows that were pending, or is to be done again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// The store has these.
    Forwarded {
        /// The parcel's `upto`.
        upto: Option<i64>,
        /// The parcel's `rows`.
        rows: Vec<(i64, i64)>,
        /// The parcel's `outcomes_upto`.
        outcomes_upto: Option<i64>,
        /// The parcel's number.
        parcel: i64,
    },
    /// The store has no row above this one, and of the others possibly a former state; which outcomes
    /// it has is not known.
    Restart {
        /// The row.
        from: i64,
        /// The number of the last parcel that the store has taken.
        parcel: i64,
    },
    /// The store has lost the rows of a month.
    Resend {
        /// The month's name, as `2026-11`.
        month: String,
        /// How often it was lost by now.
        lost: i64,
        /// The first instant in it, in milliseconds since 1970.
        from_ms: i64,
        /// The first instant after it.
        to_ms: i64,
    },
    /// A receiver of telemetry has this row and all before it.
    Exported {
        /// The row.
        upto: i64,
    },
}

impl Reader {
    /// How far forwarding has come.
    pub fn progress(&self) -> Result<Progress, QueryError> {
        self.ask(|connection| Ok(progress(connection)?))
    }

    /// The next rows to forward, at most that many; an empty parcel where none waits.
    pub fn parcel(&self, rows_max: usize) -> Result<Parcel, QueryError> {
        self.ask(|connection| Ok(parcel(connection, rows_max)?))
    }
}

/// The columns that are forwarded: those of a row but its number, which is this ledger's own.
pub fn columns() -> impl Iterator<Item = &'static str> {
    row::columns().filter(|name| *name != "id").chain(ORIGINAL)
}

/// Whether the column holds text.
pub fn is_text(column: &str) -> bool {
    TEXTS.contains(&column)
}

/// Takes a note, in the writer's transaction.
pub fn take(connection: &Connection, note: &Note) -> rusqlite::Result<()> {
    match note {
        Note::Forwarded {
            upto,
            rows,
            outcomes_upto,
            parcel,
        } => {
            put(connection, LAST_PARCEL, *parcel)?;
            if let Some(upto) = outcomes_upto {
                put(connection, FORWARDED_OUTCOME, *upto)?;
            }
            forwarded(connection, *upto, rows)
        }
        Note::Restart { from, parcel } => {
            put(connection, LAST_PARCEL, *parcel)?;
            put(connection, FORWARDED_OUTCOME, 0)?;
            restart(connection, *from)
        }
        Note::Resend {
            month,
            lost,
            from_ms,
            to_ms,
        } => {
            connection.execute(
                "INSERT OR IGNORE INTO changes (row)
                 SELECT id FROM events WHERE time_ms >= ?1 AND time_ms < ?2
                     AND id <= (SELECT value FROM meta WHERE key = ?3)",
                params![from_ms, to_ms, FORWARDED_ROW],
            )?;
            put(connection, &format!("{LOST_PREFIX}{month}"), *lost)
        }
        Note::Exported { upto } => exported::note(connection, *upto),
    }
}

/// A condition on `events` for rows that are not pending.
pub fn not_pending() -> String {
    format!(
        "id <= coalesce((SELECT value FROM meta WHERE key = '{FORWARDED_ROW}'), 0)
         AND id NOT IN (SELECT row FROM changes)"
    )
}

/// Whether every row is pending for being new: then none has to be looked at.
pub fn are_all_pending(connection: &Connection) -> rusqlite::Result<bool> {
    let from = noted(connection, FORWARDED_ROW)?;
    connection
        .prepare_cached("SELECT coalesce(min(id), ?1 + 1) > ?1 FROM events")?
        .query_row([from], |row| row.get(0))
}

/// Rows that were altered between their reading and this moment stay pending.
fn forwarded(
    connection: &Connection,
    upto: Option<i64>,
    rows: &[(i64, i64)],
) -> rusqlite::Result<()> {
    if let Some(upto) = upto {
        let from = noted(connection, FORWARDED_ROW)?;
        connection
            .prepare_cached(
                "INSERT OR IGNORE INTO changes (row)
                 SELECT id FROM events WHERE revision > 0 AND id > ?1 AND id <= ?2",
            )?
            .execute([from, upto])?;
        put(connection, FORWARDED_ROW, upto.max(from))?;
    }
    let mut settle = connection.prepare_cached(
        "DELETE FROM changes WHERE row = ?1
             AND NOT EXISTS (SELECT 1 FROM events WHERE id = ?1 AND revision <> ?2)",
    )?;
    for (row, revision) in rows {
        settle.execute([row, revision])?;
    }
    Ok(())
}

fn restart(connection: &Connection, from: i64) -> rusqlite::Result<()> {
    put(connection, FORWARDED_ROW, from)?;
    connection.execute("DELETE FROM changes WHERE row > ?1", [from])?;
    connection.execute(
        "DELETE FROM meta WHERE key >= ?1 AND key < ?1 || 'a'",
        [LOST_PREFIX],
    )?;
    connection.execute(
        "INSERT OR IGNORE INTO changes (row)
         SELECT id FROM events WHERE revision > 0 AND id <= ?1",
        [from],
    )?;
    Ok(())
}

fn progress(connection: &Connection) -> rusqlite::Result<Progress> {
    let ledger_id = connection.query_row(
        "SELECT value FROM meta WHERE key = ?1",
        [LEDGER_ID],
        |row| row.get(0),
    )?;
    let forwarded_row = noted(connection, FORWARDED_ROW)?;
    let count = |sql: &str, values: &[i64]| -> rusqlite::Result<i64> {
        connection
            .prepare_cached(sql)?
            .query_row(rusqlite::params_from_iter(values), |row| row.get(0))
    };
    // Numbers are given one after the other, so their difference counts rows without reading them.
    let new = count(
        "SELECT coalesce(max(id), 0) - max(?1, coalesce(min(id), 1) - 1) FROM events",
        &[forwarded_row],
    )?;
    let altered = count("SELECT count(*) FROM changes", &[])?;
    let outcomes = count(
        "SELECT count(*) FROM outcomes WHERE change > ?1",
        &[noted(connection, FORWARDED_OUTCOME)?],
    )?;
    let oldest = connection
        .prepare_cached(
            "SELECT min(time_ms) FROM
                 (SELECT * FROM (SELECT time_ms FROM events WHERE id > ?1 ORDER BY id LIMIT 1)
                  UNION ALL
                  SELECT * FROM (SELECT time_ms FROM changes JOIN events ON id = row
                                 ORDER BY row LIMIT 1))",
        )?
        .query_row([forwarded_row], |row| row.get::<_, Option<i64>>(0))?;
    Ok(Progress {
        ledger_id,
        forwarded_row,
        last_parcel: noted(connection, LAST_PARCEL)?,
        pending: new.max(0).unsigned_abs() + altered.unsigned_abs(),
        pending_outcomes: outcomes.unsigned_abs(),
        oldest: oldest.map(Timestamp::from_unix_ms),
        lost: lost(connection)?,
    })
}

fn lost(connection: &Connection) -> rusqlite::Result<HashMap<String, i64>> {
    let mut statement = connection.prepare_cached(
        "SELECT substr(key, ?2), value FROM meta WHERE key >= ?1 AND key < ?1 || 'a'",
    )?;
    let after = i64::try_from(LOST_PREFIX.len() + 1).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![LOST_PREFIX, after], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?;
    rows.collect()
}

fn parcel(connection: &Connection, rows_max: usize) -> rusqlite::Result<Parcel> {
    let names: Vec<&'static str> = columns().collect();
    let selected = names.join(", ");
    let limit = i64::try_from(rows_max).unwrap_or(i64::MAX);
    let mut parcel = Parcel::new(&names);
    parcel.number = connection.query_row("SELECT random() | 1", [], |row| row.get(0))?;
    let from = noted(connection, FORWARDED_ROW)?;
    // Alterations first: they are few, and a flood of new rows must not starve them.
    let altered = format!(
        "SELECT id, revision, {selected} FROM changes JOIN events ON id = row
         ORDER BY row LIMIT ?1"
    );
    let mut statement = connection.prepare_cached(&altered)?;
    let mut found = statement.query([limit])?;
    while let Some(row) = found.next()? {
        parcel.add(row)?;
    }
    let n_altered = i64::try_from(parcel.rows.len()).unwrap_or(i64::MAX);
    let new =
        format!("SELECT id, revision, {selected} FROM events WHERE id > ?1 ORDER BY id LIMIT ?2");
    let mut statement = connection.prepare_cached(&new)?;
    let mut found = statement.query([from, limit - n_altered])?;
    while let Some(row) = found.next()? {
        parcel.upto = Some(parcel.add(row)?);
    }
    parcel.facts = facts(connection, &parcel)?;
    let told_upto = noted(connection, FORWARDED_OUTCOME)?;
    (parcel.outcomes, parcel.outcomes_upto) = outcomes::told_after(connection, told_upto, limit)?;
    Ok(parcel)
}

fn facts(connection: &Connection, parcel: &Parcel) -> rusqlite::Result<Facts> {
    let look_up = |columns: &[&str], table: &str| -> rusqlite::Result<HashMap<i64, String>> {
        let mut found = HashMap::new();
        let sql = format!("SELECT body FROM {table} WHERE id = ?1");
        let mut statement = connection.prepare_cached(&sql)?;
        for id in columns
            .iter()
            .flat_map(|name| parcel.integers(name))
            .flatten()
        {
            if !found.contains_key(id) {
                found.insert(*id, statement.query_row([id], |row| row.get(0))?);
            }
        }
        Ok(found)
    };
    Ok(Facts {
        tag_sets: look_up(&["tag_set"], "tag_sets")?,
        sources: look_up(&["source_id"], "sources")?,
        models: look_up(&["model_id"], "models")?,
        prices: look_up(&["price_id", "original_price_id"], "prices")?,
    })
}

fn noted(connection: &Connection, key: &str) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("SELECT value FROM meta WHERE key = ?1")?
        .query_row([key], |row| row.get(0))
        .optional()
        .map(Option::unwrap_or_default)
}

fn put(connection: &Connection, key: &str, value: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO meta (key, value) VALUES (?1, ?2)
             ON CONFLICT DO UPDATE SET value = excluded.value",
        )?
        .execute(params![key, value])?;
    Ok(())
}

// === impl Parcel ===

impl Parcel {
    fn new(names: &[&'static str]) -> Parcel {
        let cells = |name: &str| match is_text(name) {
            true => Cells::Texts(Vec::new()),
            false => Cells::Integers(Vec::new()),
        };
        Parcel {
            columns: std::iter::once(&"revision")
                .chain(names)
                .map(|name| (*name, cells(name)))
                .collect(),
            ..Parcel::default()
        }
    }

    /// Its rows or its outcomes, whichever are more.
    pub fn len(&self) -> usize {
        self.rows.len().max(self.outcomes.len())
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.outcomes.is_empty()
    }

    /// The cells of a column of integers.
    pub fn integers(&self, column: &str) -> &[Option<i64>] {
        let cells = self.columns.iter().find(|(name, _)| *name == column);
        match cells {
            Some((_, Cells::Integers(cells))) => cells,
            _ => &[],
        }
    }

    /// Takes number, revision and the columns; answers the number.
    fn add(&mut self, row: &Row<'_>) -> rusqlite::Result<i64> {
        let id = row.get(0)?;
        for (at, (_, cells)) in (1..).zip(&mut self.columns) {
            cells.push(row.get_ref(at)?)?;
        }
        self.rows.push((id, row.get(1)?));
        Ok(id)
    }
}

impl Cells {
    fn push(&mut self, value: ValueRef<'_>) -> rusqlite::Result<()> {
        match (self, Value::try_from(value)) {
            (Cells::Integers(cells), Ok(Value::Integer(n))) => cells.push(Some(n)),
            (Cells::Texts(cells), Ok(Value::Text(text))) => cells.push(Some(text)),
            (Cells::Integers(cells), Ok(Value::Null)) => cells.push(None),
            (Cells::Texts(cells), Ok(Value::Null)) => cells.push(None),
            // The tables are strict: only a file that was altered by hand has another type.
            _ => return Err(rusqlite::Error::InvalidQuery),
        }
        Ok(())
    }
}
