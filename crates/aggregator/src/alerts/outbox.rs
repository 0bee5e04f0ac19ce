//! What is yet to be told, and what was told already, in a file that outlives the process.
//!
//! It stands beside the ledger, not in it: a damaged ledger takes no alert with it, and an alert
//! never waits for events.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use crate::alerts::alert::Alert;
use crate::alerts::receiver::ChannelKind;

/// The outbox in the state directory.
pub const OUTBOX_FILE: &str = "alerts.db";

/// "TolA": tells an outbox from other SQLite files.
const APPLICATION_ID: i32 = 0x546f_6c41;

/// The version of `outbox.sql`.
const SCHEMA_VERSION: i64 = 1;

/// Deliveries that may wait: a day of failures of a receiver that is told of ten thousand users. More
/// would be read by nobody.
pub const DELIVERIES_MAX: i64 = 10_000;

/// How long a lock is waited for: another process, looking at the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The file, open.
pub struct Outbox {
    connection: Connection,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// SQLite refuses.
    #[error("{}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The file is another application's, or a later release's.
    #[error("{}: no outbox of this release; remove it to begin a new one", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
}

/// An alert of which it is not clear yet who tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unclaimed {
    /// The alert.
    pub alert: Alert,
    /// Whom it is for, as in `budgets.toml`.
    pub notify: Vec<String>,
    /// When it came here, in milliseconds since 1970.
    pub since_ms: i64,
    /// When nobody needs to remember it any more.
    pub until_ms: i64,
}

/// An alert on its way to one receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its number.
    pub id: i64,
    /// To whom.
    pub receiver: String,
    /// Which way.
    pub channel: ChannelKind,
    /// What is told.
    pub alert: Alert,
    /// When it was first to go, in milliseconds since 1970.
    pub since_ms: i64,
    /// How often it was tried.
    pub attempts: u32,
}

impl Outbox {
    /// Opens the outbox in that directory; makes it where it is missing. A damaged one is set aside.
    pub fn open(dir: &Path) -> Result<Outbox, OutboxError> {
        let path = dir.join(OUTBOX_FILE);
        match Outbox::open_file(&path) {
            Err(OutboxError::Sqlite { source, .. }) if is_damage(&source) => {
                let aside = path.with_extension("db.damaged");
                tracing::error!(
                    error = %source,
                    to = %aside.display(),
                    "what was to be told is damaged; set aside, and a new outbox begun"
                );
                // If it cannot be renamed, opening it again says why.
                let _ = std::fs::rename(&path, aside);
                for part in ["alerts.db-wal", "alerts.db-shm"] {
                    let _ = std::fs::remove_file(dir.join(part));
                }
                Outbox::open_file(&path)
            }
            opened => opened,
        }
    }

    fn open_file(path: &Path) -> Result<Outbox, OutboxError> {
        let failed = |source| OutboxError::Sqlite {
            path: path.to_owned(),
            source,
        };
        let mut connection = Connection::open(path).map_err(failed)?;
        let found = set_up(&mut connection).map_err(failed)?;
        match found {
            (APPLICATION_ID, SCHEMA_VERSION) => Ok(Outbox { connection }),
            _ => Err(OutboxError::Foreign {
                path: path.to_owned(),
            }),
        }
    }

    /// Notes an alert until it is clear who tells it. One that is known already is left as it is.
    pub fn note(&self, unclaimed: &Unclaimed) -> rusqlite::Result<bool> {
        let noted = self
            .connection
            .prepare_cached(
                "INSERT OR IGNORE INTO told (id, until_ms, since_ms, state, alert, notify)
                 VALUES (?1, ?2, ?3, 0, ?4, ?5)",
            )?
            .execute(params![
                unclaimed.alert.id,
                unclaimed.until_ms,
                unclaimed.since_ms,
                json(&unclaimed.alert)?,
                json(&unclaimed.notify)?,
            ])?;
        Ok(noted > 0)
    }

    /// The alerts of which it is not clear yet who tells them, the first first.
    pub fn unclaimed(&self) -> rusqlite::Result<Vec<Unclaimed>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT alert, notify, since_ms, until_ms FROM told WHERE state = 0
             ORDER BY since_ms, id LIMIT 100",
        )?;
        let found = statement.query_map([], |row| {
            Ok(Unclaimed {
                alert: from_json(row, 0)?,
                notify: from_json(row, 1)?,
                since_ms: row.get(2)?,
                until_ms: row.get(3)?,
            })
        })?;
        found.collect()
    }

    /// Another sidecar tells it.
    pub fn leave(&self, id: &str) -> rusqlite::Result<()> {
        let sql = "UPDATE told SET state = 2, alert = NULL, notify = NULL WHERE id = ?1";
        self.connection.execute(sql, [id])?;
        Ok(())
    }

    /// It is ours to tell, to those receivers. Answers how many there was no room for.
    pub fn take(
        &mut self,
        alert: &Alert,
        to: &[(String, ChannelKind)],
        now_ms: i64,
    ) -> rusqlite::Result<usize> {
        let transaction = self.connection.transaction()?;
        let sql = "UPDATE told SET state = 1, alert = NULL, notify = NULL WHERE id = ?1";
        transaction.execute(sql, [&alert.id])?;
        let waiting: i64 =
            transaction.query_row("SELECT count(*) FROM deliveries", [], |row| row.get(0))?;
        let room = usize::try_from(DELIVERIES_MAX - waiting).unwrap_or(0);
        for (receiver, channel) in to.iter().take(room) {
            transaction.execute(
                "INSERT OR IGNORE INTO deliveries
                     (alert_id, receiver, channel, alert, since_ms, due_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?5)",
                params![alert.id, receiver, channel.name(), json(alert)?, now_ms],
            )?;
        }
        transaction.commit()?;
        Ok(to.len().saturating_sub(room))
    }

    /// Deliveries that are due, those that have waited longest first.
    pub fn due(&self, now_ms: i64, max: usize) -> rusqlite::Result<Vec<Delivery>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT id, receiver, channel, alert, since_ms, attempts FROM deliveries
             WHERE due_ms <= ?1 ORDER BY due_ms, id LIMIT ?2",
        )?;
        let found = statement.query_map(params![now_ms, max as i64], |row| {
            let channel: String = row.get(2)?;
            let channel = ChannelKind::parse(&channel);
            Ok(Delivery {
                id: row.get(0)?,
                receiver: row.get(1)?,
                channel: channel.ok_or(rusqlite::Error::InvalidQuery)?,
                alert: from_json(row, 3)?,
                since_ms: row.get(4)?,
                attempts: row.get(5)?,
            })
        })?;
        found.collect()
    }

    /// When the next delivery is due, in milliseconds since 1970.
    pub fn next_due_ms(&self) -> rusqlite::Result<Option<i64>> {
        let sql = "SELECT min(due_ms) FROM deliveries";
        self.connection.query_row(sql, [], |row| row.get(0))
    }

    /// Nothing more is done about a delivery.
    pub fn finish(&self, id: i64) -> rusqlite::Result<()> {
        let sql = "DELETE FROM deliveries WHERE id = ?1";
        self.connection.execute(sql, [id])?;
        Ok(())
    }

    /// A delivery is tried again then.
    pub fn postpone(&self, id: i64, due_ms: i64) -> rusqlite::Result<()> {
        let sql = "UPDATE deliveries SET due_ms = ?2, attempts = attempts + 1 WHERE id = ?1";
        self.connection.execute(sql, [id, due_ms])?;
        Ok(())
    }

    /// Forgets what was told of windows that have ended.
    pub fn forget(&self, now_ms: i64) -> rusqlite::Result<()> {
        let sql = "DELETE FROM told WHERE until_ms < ?1 AND state <> 0";
        self.connection.execute(sql, [now_ms])?;
        Ok(())
    }

    /// Whether it is known who tells that alert, and whether it is us.
    pub fn is_ours(&self, id: &str) -> rusqlite::Result<Option<bool>> {
        let sql = "SELECT state FROM told WHERE id = ?1 AND state > 0";
        let state = self.connection.query_row(sql, [id], |row| row.get(0));
        Ok(state.optional()?.map(|state: i64| state == 1))
    }
}

/// Makes the tables in a new file; answers application and version.
fn set_up(connection: &mut Connection) -> rusqlite::Result<(i32, i64)> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let transaction = connection.transaction()?;
    let sql = "SELECT count(*) = 0 FROM sqlite_schema";
    if transaction.query_row(sql, [], |row| row.get(0))? {
        transaction.execute_batch(include_str!("outbox.sql"))?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    }
    let application = transaction.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    transaction.commit()?;
    Ok((application, version))
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

fn json(value: &impl serde::Serialize) -> rusqlite::Result<String> {
    let written = serde_json::to_string(value);
    written.map_err(|source| rusqlite::Error::ToSqlConversionFailure(Box::new(source)))
}

fn from_json<T: serde::de::DeserializeOwned>(
    row: &rusqlite::Row<'_>,
    at: usize,
) -> rusqlite::Result<T> {
    let text: String = row.get(at)?;
    serde_json::from_str(&text).map_err(|source| {
        let kind = rusqlite::types::Type::Text;
        rusqlite::Error::FromSqlConversionFailure(at, kind, Box::new(source))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::alert::tests::reached;
    use tollmesh_wire::Timestamp;

    fn unclaimed() -> Unclaimed {
        Unclaimed {
            alert: reached().alert(Timestamp::from_unix_ms(5)),
            notify: vec!["eng".into()],
            since_ms: 5,
            until_ms: 1_000,
        }
    }

    #[test]
    fn what_waits_outlives_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let first = unclaimed();
        let outbox = Outbox::open(dir.path()).unwrap();
        assert!(outbox.note(&first).unwrap());
        assert!(!outbox.note(&first).unwrap());
        drop(outbox);
        let mut outbox = Outbox::open(dir.path()).unwrap();
        assert_eq!(outbox.unclaimed().unwrap(), std::slice::from_ref(&first));
        let to = [("eng".to_owned(), ChannelKind::Slack)];
        assert_eq!(outbox.take(&first.alert, &to, 7).unwrap(), 0);
        drop(outbox);
        let outbox = Outbox::open(dir.path()).unwrap();
        assert_eq!(outbox.unclaimed().unwrap(), []);
        assert!(!outbox.note(&first).unwrap());
        assert_eq!(outbox.due(6, 10).unwrap(), []);
        let [delivery] = outbox.due(7, 10).unwrap().try_into().unwrap();
        assert_eq!((delivery.attempts, &delivery.alert), (0, &first.alert));
        outbox.postpone(delivery.id, 90).unwrap();
        assert_eq!(outbox.due(89, 10).unwrap(), []);
        assert_eq!(outbox.next_due_ms().unwrap(), Some(90));
        assert_eq!(outbox.due(90, 10).unwrap()[0].attempts, 1);
        outbox.finish(delivery.id).unwrap();
        assert_eq!(outbox.next_due_ms().unwrap(), None);
        assert_eq!(outbox.is_ours(&first.alert.id).unwrap(), Some(true));
        outbox.forget(1_001).unwrap();
        assert!(outbox.note(&first).unwrap());
    }

    #[test]
    fn there_is_room_for_so_many() {
        let dir = tempfile::tempdir().unwrap();
        let mut outbox = Outbox::open(dir.path()).unwrap();
        let receivers = |n: usize| -> Vec<(String, ChannelKind)> {
            let names = (0..n).map(|n| (format!("r{n}"), ChannelKind::Webhook));
            names.collect()
        };
        let alert = unclaimed().alert;
        let max = DELIVERIES_MAX as usize;
        assert_eq!(outbox.take(&alert, &receivers(max - 1), 0).unwrap(), 0);
        let second = Alert {
            id: "second".into(),
            ..alert
        };
        assert_eq!(outbox.take(&second, &receivers(3), 0).unwrap(), 2);
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_anothers_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(OUTBOX_FILE);
        std::fs::write(
            &path,
            "no database, but longer than a header of one".repeat(50),
        )
        .unwrap();
        let outbox = Outbox::open(dir.path()).unwrap();
        assert!(outbox.note(&unclaimed()).unwrap());
        assert!(dir.path().join("alerts.db.damaged").exists());
        drop(outbox);
        Connection::open(&path)
            .and_then(|other| other.pragma_update(None, "application_id", 7))
            .unwrap();
        let refused = Outbox::open(dir.path()).err().map(|e| e.to_string());
        let expected = format!(
            "{}: no outbox of this release; remove it to begin a new one",
            path.display()
        );
        assert_eq!(refused, Some(expected));
    }
}
