//! Which copies of replaced ledgers have their calls in the counters and budgets' accounts of a ledger
//! already: those that the process went on from when it opened that ledger.
//!
//! Others have not. A process that made a copy may end before it opens the other file; then that file's
//! counters and accounts are what they were, and the copy's calls are counted as they are taken in.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension};

/// What `meta` calls the name that a copy has of its own: its path may become another's.
const NAME: &str = "copy_name";

/// What the keys begin with that `meta` has of copies.
const PREFIX: &str = "counted_copy:";

/// The first key behind those.
const END: &str = "counted_copy;";

/// Gives a new copy a name that no other has, and says which.
pub fn name(copy: &Connection) -> rusqlite::Result<String> {
    copy.query_row(
        "INSERT INTO meta VALUES (?1, lower(hex(randomblob(16))))
         ON CONFLICT DO UPDATE SET value = excluded.value
         RETURNING value",
        [NAME],
        |row| row.get(0),
    )
}

/// The name of a copy; `None` where it has none, which a file that was put there has not.
pub fn name_of(copy: &Connection) -> rusqlite::Result<Option<String>> {
    copy.query_row("SELECT value FROM meta WHERE key = ?1", [NAME], |row| {
        row.get(0)
    })
    .optional()
}

/// Whether that copy's calls are in the counters and accounts of this ledger.
pub fn has(ledger: &Connection, name: &str) -> rusqlite::Result<bool> {
    ledger
        .prepare_cached("SELECT 1 FROM meta WHERE key = ?1")?
        .exists([format!("{PREFIX}{name}")])
}

/// Notes that those copies' calls are in them as well, and adds the copies of which that is known to
/// `names`.
pub fn note(ledger: &Connection, names: &mut BTreeSet<String>) -> rusqlite::Result<()> {
    let known = known(ledger)?;
    let mut insert = ledger.prepare_cached("INSERT INTO meta VALUES (?1, 1)")?;
    for name in names.difference(&known) {
        insert.execute([format!("{PREFIX}{name}")])?;
    }
    names.extend(known);
    Ok(())
}

fn known(ledger: &Connection) -> rusqlite::Result<BTreeSet<String>> {
    ledger
        .prepare_cached(
            "SELECT substr(key, length(?1) + 1) FROM meta WHERE key >= ?1 AND key < ?2",
        )?
        .query_map([PREFIX, END], |row| row.get(0))?
        .collect()
}
