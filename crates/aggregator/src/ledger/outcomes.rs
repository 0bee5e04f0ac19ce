//! What became of calls: accepted, edited, rejected, or any other short word that is told later.
//!
//! An outcome names a call, a request or a trace, and may come before the event or long after it.
//! Rows do not change; questions look outcomes up.

use rusqlite::{Connection, OptionalExtension, params};
use tollmesh_wire::Timestamp;

use crate::ledger::outbox::FORWARDED_OUTCOME;

/// What an outcome is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// One call, by its event's id.
    Event(String),
    /// All calls of one request, by `x-request-id`.
    Request(String),
    /// All calls of one trace.
    Trace(String),
}

/// An outcome of one subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallOutcome {
    /// What it is about.
    pub subject: Subject,
    /// The word for it.
    pub label: String,
    /// When it was told.
    pub told: Timestamp,
}

/// What telling an outcome did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The subject had none.
    New,
    /// The subject had the same; nothing was written.
    Already,
    /// The subject had this other one, which is forgotten.
    Replaced(String),
}

/// The label of a row of `events` under that name, as an SQL expression: the call's own, or else
/// its request's, or else its trace's.
pub fn label_of(row: &str) -> String {
    first_told(row, "o.label", "o.label", "o.label")
}

/// What that label is about, as one text that no other subject has.
pub fn subject_of(row: &str) -> String {
    let of = |kind: char| format!("'{kind}' || o.subject");
    first_told(row, &of('e'), &of('r'), &of('t'))
}

/// Whether something was told of a row of `events` under that name, as an SQL condition; `None` where
/// nothing was told at all.
pub fn is_told(connection: &Connection, row: &str) -> rusqlite::Result<Option<String>> {
    let mut known =
        connection.prepare_cached("SELECT 1 FROM outcomes WHERE subject_kind = ?1 LIMIT 1")?;
    let mut conditions = Vec::new();
    for (kind, column) in [(0, "event_id"), (1, "request_id"), (2, "trace_id")] {
        if known.exists([kind])? {
            conditions.push(format!(
                "EXISTS (SELECT 1 FROM outcomes o
                         WHERE o.subject_kind = {kind} AND o.subject = {row}.{column})"
            ));
        }
    }
    let any = format!("({})", conditions.join(" OR "));
    Ok((!conditions.is_empty()).then_some(any))
}

fn first_told(row: &str, of_event: &str, of_request: &str, of_trace: &str) -> String {
    format!(
        "coalesce(
             (SELECT {of_event} FROM outcomes o
              WHERE o.subject_kind = 0 AND o.subject = {row}.event_id),
             (SELECT {of_request} FROM outcomes o
              WHERE o.subject_kind = 1 AND o.subject = {row}.request_id),
             (SELECT {of_trace} FROM outcomes o
              WHERE o.subject_kind = 2 AND o.subject = {row}.trace_id))"
    )
}

/// Outcomes that one step of retention deletes.
const FORGET_OUTCOMES_MAX: i64 = 10_000;

/// Writes an outcome. The last word on a subject holds. Within a transaction.
pub fn tell(connection: &Connection, outcome: &CallOutcome) -> rusqlite::Result<Told> {
    let (kind, subject) = outcome.subject.columns();
    let before: Option<String> = connection
        .prepare_cached("SELECT label FROM outcomes WHERE subject_kind = ?1 AND subject = ?2")?
        .query_row(params![kind, subject], |row| row.get(0))
        .optional()?;
    if before.as_ref() == Some(&outcome.label) {
        return Ok(Told::Already);
    }
    connection
        .prepare_cached(
            "INSERT INTO outcomes (subject_kind, subject, label, told_ms, change)
             VALUES (?1, ?2, ?3, ?4, 1 + max(
                 (SELECT coalesce(max(change), 0) FROM outcomes),
                 coalesce((SELECT value FROM meta WHERE key = ?5), 0)))
             ON CONFLICT DO UPDATE SET label = excluded.label, told_ms = excluded.told_ms,
                 change = excluded.change",
        )?
        .execute(params![
            kind,
            subject,
            outcome.label,
            outcome.told.as_unix_ms(),
            FORWARDED_OUTCOME,
        ])?;
    Ok(match before {
        None => Told::New,
        Some(label) => Told::Replaced(label),
    })
}

/// Whether nothing was told of the outcome's subject since.
pub fn is_news(connection: &Connection, outcome: &CallOutcome) -> rusqlite::Result<bool> {
    let (kind, subject) = outcome.subject.columns();
    let told_ms = outcome.told.as_unix_ms();
    connection
        .prepare_cached(
            "SELECT NOT EXISTS (SELECT 1 FROM outcomes
                 WHERE subject_kind = ?1 AND subject = ?2 AND told_ms >= ?3)",
        )?
        .query_row(params![kind, subject, told_ms], |row| row.get(0))
}

/// The next outcomes that were told after that place in the order of telling, at most so many, with
/// the place of the last.
pub fn told_after(
    connection: &Connection,
    place: i64,
    n_max: i64,
) -> rusqlite::Result<(Vec<CallOutcome>, Option<i64>)> {
    let mut statement = connection.prepare_cached(
        "SELECT subject_kind, subject, label, told_ms, change FROM outcomes
         WHERE change > ?1 ORDER BY change LIMIT ?2",
    )?;
    let mut found = statement.query([place, n_max])?;
    let (mut outcomes, mut last) = (Vec::new(), None);
    while let Some(row) = found.next()? {
        outcomes.push(CallOutcome {
            subject: Subject::of_columns(row.get(0)?, row.get(1)?),
            label: row.get(2)?,
            told: Timestamp::from_unix_ms(row.get(3)?),
        });
        last = Some(row.get(4)?);
    }
    Ok((outcomes, last))
}

/// Deletes outcomes that were told before that instant, the oldest first. Their calls are older
/// still, or never came. Where the ledger `forwards`, those that another store is yet to have stay.
pub fn forget_some(
    connection: &Connection,
    before: Timestamp,
    forwards: bool,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "DELETE FROM outcomes WHERE (subject_kind, subject) IN
                 (SELECT subject_kind, subject FROM outcomes
                  WHERE told_ms < ?1 AND (NOT ?3
                      OR change <= coalesce((SELECT value FROM meta WHERE key = ?4), 0))
                  ORDER BY told_ms LIMIT ?2)",
        )?
        .execute(params![
            before.as_unix_ms(),
            FORGET_OUTCOMES_MAX,
            forwards,
            FORWARDED_OUTCOME
        ])?;
    Ok(())
}

// === impl Subject ===

impl Subject {
    fn of_columns(kind: i64, subject: String) -> Subject {
        match kind {
            0 => Subject::Event(subject),
            1 => Subject::Request(subject),
            _ => Subject::Trace(subject),
        }
    }

    /// Kind and name, as tables hold them.
    pub fn columns(&self) -> (i64, &str) {
        match self {
            Subject::Event(id) => (0, id),
            Subject::Request(id) => (1, id),
            Subject::Trace(id) => (2, id),
        }
    }
}
