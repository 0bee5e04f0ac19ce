//! How many rows the ledger holds, as the file itself remembers it.

use rusqlite::{Connection, OptionalExtension};

/// How many rows there are, and the number of the last that ever was. Numbers are not used again
/// when rows are deleted, so that they can tell how far a reader has come.
#[derive(Clone, Copy)]
pub struct RowCount {
    /// Rows in the file.
    pub rows: i64,
    /// The number of the newest that there ever was.
    pub last_row: i64,
}

impl RowCount {
    /// Reads it; a row that is beyond what was written counts.
    pub fn read(connection: &Connection) -> rusqlite::Result<RowCount> {
        let value = |key: &str| -> rusqlite::Result<i64> {
            connection
                .query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| {
                    row.get(0)
                })
                .optional()
                .map(Option::unwrap_or_default)
        };
        let newest: Option<i64> =
            connection.query_row("SELECT max(id) FROM events", [], |row| row.get(0))?;
        Ok(RowCount {
            rows: value("rows")?,
            last_row: value("last_row")?.max(newest.unwrap_or(0)),
        })
    }

    /// Writes it.
    pub fn write(self, connection: &Connection) -> rusqlite::Result<()> {
        let mut put = connection.prepare_cached(
            "INSERT INTO meta (key, value) VALUES (?1, ?2)
             ON CONFLICT DO UPDATE SET value = excluded.value",
        )?;
        put.execute(("rows", self.rows))?;
        put.execute(("last_row", self.last_row))?;
        Ok(())
    }
}
