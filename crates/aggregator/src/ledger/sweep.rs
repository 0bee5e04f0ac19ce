//! Entries of dictionaries that nothing refers to any more go: tag sets, sources, models.
//!
//! What is referred to is found beside the writer, which notes meanwhile what it hands out anew: an
//! entry goes only if it was not needed before and has not been since.

use rusqlite::{Connection, params};

use crate::ledger::dictionary::{Dictionaries, Dictionary};
use crate::ledger::error::QueryError;
use crate::ledger::query::Reader;

/// Entries that one step deletes: some ten milliseconds of work.
pub const SWEEP_IDS_MAX: usize = 500;

/// Entries that are looked at together: some 5 MB, and all sums are read for them.
const LOOKED_AT_MAX: i64 = 500_000;

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
                "SELECT tag_set FROM daily_pods",
            ],
            Dictionary::Sources => &[
                "SELECT source_id FROM hourly",
                "SELECT source_id FROM daily",
                "SELECT source_id FROM monthly",
                "SELECT source_id FROM daily_sources",
                "SELECT source_id FROM daily_pods",
                // One source's owner is handed out with it.
                "SELECT owner_id FROM sources WHERE owner_id IS NOT NULL",
            ],
            Dictionary::Models => &[
                "SELECT model_id FROM hourly",
                "SELECT model_id FROM daily",
                "SELECT model_id FROM monthly",
                "SELECT model_id FROM daily_sources",
                "SELECT model_id FROM daily_pods",
            ],
        }
    }
}

/// Some entries of a dictionary, one after another.
pub struct Found {
    /// Those of them that nothing refers to.
    pub free: Vec<i64>,
    /// The last of them; `None` where there were none.
    pub last: Option<i64>,
}

impl Reader {
    /// Looks at the next entries of that dictionary after that one.
    pub(in crate::ledger) fn unreferenced(
        &self,
        dictionary: Dictionary,
        after: i64,
    ) -> Result<Found, QueryError> {
        self.ask(|connection| Ok(unreferenced(connection, dictionary, after)?))
    }
}

fn unreferenced(
    connection: &Connection,
    dictionary: Dictionary,
    after: i64,
) -> rusqlite::Result<Found> {
    let sql = format!(
        "SELECT id FROM {} WHERE id > ?1 ORDER BY id LIMIT ?2",
        dictionary.table()
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let ids = statement.query_map(params![after, LOOKED_AT_MAX], |line| line.get(0))?;
    let ids: Vec<i64> = ids.collect::<rusqlite::Result<_>>()?;
    let mut is_referred = vec![false; ids.len()];
    for question in dictionary.references() {
        let mut statement = connection.prepare_cached(question)?;
        let mut found = statement.query([])?;
        while let Some(line) = found.next()? {
            let at = ids.binary_search(&line.get(0)?);
            if let Some(mark) = at.ok().and_then(|at| is_referred.get_mut(at)) {
                *mark = true;
            }
        }
    }
    let last = ids.last().copied();
    let marked = ids.into_iter().zip(is_referred);
    Ok(Found {
        free: marked.filter(|(_, is)| !is).map(|(id, _)| id).collect(),
        last,
    })
}

/// Deletes these entries, unless they were handed out since the sweep began; says how many. Within
/// a transaction.
///
/// The newest entry stays: SQLite numbers the next one after it, and a number that comes again would
/// mean something else to whoever remembers it, as the forwarding of rows does.
pub fn delete(
    connection: &Connection,
    dictionaries: &mut Dictionaries,
    dictionary: Dictionary,
    ids: &[i64],
) -> rusqlite::Result<u64> {
    let table = dictionary.table();
    let newest: Option<i64> = connection
        .prepare_cached(&format!("SELECT max(id) FROM {table}"))?
        .query_row([], |row| row.get(0))?;
    let old = ids.iter().copied().filter(|id| Some(*id) != newest);
    let free = dictionaries.give_up(dictionary, &old.collect::<Vec<_>>());
    let sql = format!("DELETE FROM {table} WHERE id = ?1");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_comes_twice() {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(concat!(
                include_str!("schema.sql"),
                "PRAGMA foreign_keys = OFF;"
            ))
            .unwrap();
        let mut all = Dictionaries::default();
        let add = |all: &mut Dictionaries, session: &str| {
            let tags = [("session".to_owned(), session.to_owned())].into();
            all.tag_set(&connection, &tags).unwrap()
        };
        let first: Vec<i64> = ["a", "b", "c"].map(|session| add(&mut all, session)).into();
        for sweep in 0..2 {
            all.begin_sweep();
            let found = unreferenced(&connection, Dictionary::TagSets, 0).unwrap();
            let n_swept = delete(&connection, &mut all, Dictionary::TagSets, &found.free).unwrap();
            all.end_sweep();
            assert_eq!(n_swept, [2, 0][sweep]);
        }
        for session in ["d", "e", "a"] {
            let id = add(&mut all, session);
            assert!(!first.contains(&id), "{session} has {id} of {first:?}");
        }
        assert_eq!(add(&mut all, "c"), first[2], "the newest has stayed");
    }
}
