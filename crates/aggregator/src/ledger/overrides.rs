//! Temporary limits of budgets, on the record: who set which, when, for how long and why.
//!
//! They stand in `meta`, where their key begins with [`PREFIX`]; none is ever deleted.

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};
use tollmesh_wire::Timestamp;

use crate::ledger::error::QueryError;
use crate::ledger::query::Reader;

/// What the keys of overrides begin with.
const PREFIX: &str = "override:";

/// A limit that holds for a while in place of the file's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// Its name, which no other has.
    pub id: String,
    /// The budget's name.
    pub budget: String,
    /// The limit, as in the file.
    pub limit: String,
    /// When it was set.
    pub from: Timestamp,
    /// When it ends by itself.
    pub until: Timestamp,
    /// Why.
    pub reason: String,
    /// Who says to have set it.
    pub by: String,
    /// When it was ended before its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// Who says to have ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_by: Option<String>,
}

impl Override {
    /// Whether it holds at that instant.
    pub fn holds(&self, now: Timestamp) -> bool {
        self.from <= now && now < self.until && self.ended.is_none()
    }
}

/// Writes an override, or what became of it.
pub fn keep(connection: &Connection, one: &Override) -> rusqlite::Result<()> {
    let body = serde_json::to_string(one)
        .map_err(|source| rusqlite::Error::ToSqlConversionFailure(Box::new(source)))?;
    connection
        .prepare_cached(
            "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value",
        )?
        .execute(params![format!("{PREFIX}{}", one.id), body])?;
    Ok(())
}

impl Reader {
    /// All overrides that ever were, the earliest first.
    pub fn overrides(&self) -> Result<Vec<Override>, QueryError> {
        self.ask(|connection| Ok(all(connection)?))
    }
}

fn all(connection: &Connection) -> rusqlite::Result<Vec<Override>> {
    let mut statement =
        connection.prepare_cached("SELECT value FROM meta WHERE key >= ?1 AND key < ?2")?;
    let end = format!("{}~", PREFIX.trim_end_matches(':'));
    let found = statement.query_map([PREFIX, &end], |row| row.get::<_, String>(0))?;
    let mut overrides = Vec::new();
    for text in found {
        // One that another release wrote in another way is left alone.
        overrides.extend(serde_json::from_str::<Override>(&text?).ok());
    }
    overrides.sort_by(|a, b| (a.from, &a.id).cmp(&(b.from, &b.id)));
    Ok(overrides)
}
