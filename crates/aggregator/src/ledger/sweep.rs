//! Entries of dictionaries that nothing refers to any more go: tag sets, sources, models.
//!
//! What is referred to is found beside the writer, which notes meanwhile what it hands out anew: an
//! entry goes only if it was not needed before and has not been since.

use std::collections::HashSet;

use rusqlite::{Connection, params};

use crate::ledger::dictionary::{Dictionaries, Dictionary};
use crate::ledger::error::QueryError;
use crate::ledger::query::Reader;

/// Entries that one step deletes: some ten milliseconds of work.
pub const SWEEP_IDS_MAX: usize = 500;

/// Entries that are found at a time; where there are more, the next sweep finds them.
const FOUND_MAX: usize = 200_000;

impl Dictionary {
    /// Those that are swept.
    pub const ALL: [Dictionary; 3] = [Dictionary::TagSets, Dictionary::Sources, Dictionary::Models];

    /// Its table.
    pub const fn table(self) -> &'static str {
        match self {
            Dictionary::TagSets => "tag_sets",
            Dictionary::Sources => "sources",
            Dictionary::Models => "models",
        }
    }

    /// Questions for what is referred to. Rows are not asked: each is in the sums of its hour.
    const fn references(self) -> &'static [&'static str] {
        match self {
            Dictionary::TagSets => &[
                "SELECT tag_set FROM hourly",
                "SELECT tag_set FROM daily",
                "SELECT tag_set FROM monthly",
            ],
            Dictionary::Sources => &[
                "SELECT source_id FROM hourly",
                "SELECT source_id FROM daily",
                "SELECT source_id FROM monthly",
                "SELECT source_id FROM daily_sources",
                // One source's owner is handed out with it.
                "SELECT owner_id FROM sources WHERE owner_id IS NOT NULL",
            ],
            Dictionary::Models => &[
                "SELECT model_id FROM hourly",
                "SELECT model_id FROM daily",
                "SELECT model_id FROM monthly",
                "SELECT model_id FROM daily_sources",
            ],
        }
    }
}

impl Reader {
    /// Entries of that dictionary that nothing refers to, the oldest first, at most some 200,000.
    pub(in crate::ledger) fn unreferenced(
        &self,
        dictionary: Dictionary,
    ) -> Result<Vec<i64>, QueryError> {
        self.ask(|connection| Ok(unreferenced(connection, dictionary)?))
    }
}

fn unreferenced(connection: &Connection, dictionary: Dictionary) -> rusqlite::Result<Vec<i64>> {
    let mut referred: HashSet<i64> = HashSet::new();
    for question in dictionary.references() {
        let mut statement = connection.prepare_cached(question)?;
        let mut found = statement.query([])?;
        while let Some(line) = found.next()? {
            referred.insert(line.get(0)?);
        }
    }
    let sql = format!("SELECT id FROM {} ORDER BY id", dictionary.table());
    let mut statement = connection.prepare_cached(&sql)?;
    let mut found = statement.query([])?;
    let mut free = Vec::new();
    while let Some(line) = found.next()? {
        let id = line.get(0)?;
        if !referred.contains(&id) {
            free.push(id);
        }
        if free.len() >= FOUND_MAX {
            break;
        }
    }
    Ok(free)
}

/// Deletes these entries, unless they were handed out since the sweep began; says how many. Within
/// a transaction.
pub fn delete(
    connection: &Connection,
    dictionaries: &mut Dictionaries,
    dictionary: Dictionary,
    ids: &[i64],
) -> rusqlite::Result<u64> {
    let free = dictionaries.give_up(dictionary, ids);
    let sql = format!("DELETE FROM {} WHERE id = ?1", dictionary.table());
    let mut entry = connection.prepare_cached(&sql)?;
    let mut tags = connection.prepare_cached("DELETE FROM tags WHERE tag_set = ?1")?;
    for id in &free {
        entry.execute(params![id])?;
        if dictionary == Dictionary::TagSets {
            tags.execute(params![id])?;
        }
    }
    Ok(free.len() as u64)
}
