//! A few read-only connections that questions take turns on.

use std::path::{Path, PathBuf};
#[cfg(test)]
use std::sync::atomic::AtomicU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use crate::ledger::error::{LedgerError, Missed, QueryError};
use crate::ledger::site::Site;
use crate::ledger::{pages, rescue, schema};

/// Idle connections that are kept. Each has its own page cache; a dashboard and a report at a time
/// are served without opening files.
const IDLE_CONNECTIONS_MAX: usize = 2;

/// Answers questions about a ledger, whether or not a writer is at work. Clones share connections.
///
/// All its methods read files and block; call them where blocking is allowed.
#[derive(Clone)]
pub struct Reader {
    path: Arc<Path>,
    idle: Arc<Mutex<Vec<Open>>>,
    /// Set when an answer failed because the file is damaged.
    suspects: Arc<AtomicBool>,
    /// What this process's writer has open: no question opens anything else meanwhile, since two
    /// files with one log would be read as one.
    written: Arc<Mutex<Option<Site>>>,
    /// Set while it is not known whose content the file has.
    is_unknown: Arc<AtomicBool>,
}

/// A connection with what it was opened on: another file may take its place, when a damaged one is
/// set aside.
struct Open {
    site: Site,
    connection: Connection,
}

impl Reader {
    /// Reads the ledger in that directory, which another process may be writing.
    pub fn open(dir: &Path) -> Result<Reader, LedgerError> {
        let path = dir.join(super::super::handle::LEDGER_FILE);
        let reader = Reader::new(path, Arc::default());
        reader.keep(reader.connect()?);
        Ok(reader)
    }

    /// Tells of damage by setting `suspects`.
    pub(in crate::ledger) fn new(path: PathBuf, suspects: Arc<AtomicBool>) -> Reader {
        Reader {
            path: path.into(),
            idle: Arc::default(),
            suspects,
            written: Arc::default(),
            is_unknown: Arc::default(),
        }
    }

    /// Answers nothing while the file is of unknown content.
    pub(in crate::ledger) fn doubt(&self, is_unknown: bool) {
        if is_unknown {
            self.close();
        }
        self.is_unknown.store(is_unknown, Ordering::Release);
    }

    /// Opens nothing from here on but what this process's writer has open, if it has something.
    pub(in crate::ledger) fn follow(&self, written: Option<Site>) {
        *lock(&self.written) = written;
    }

    /// The ledger's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets go of idle connections.
    pub(in crate::ledger) fn close(&self) {
        self.idle().clear();
    }

    /// Asks within one read transaction, so that all answers are of the same instant.
    pub(in crate::ledger) fn ask<T>(
        &self,
        question: impl FnOnce(&Connection) -> Result<T, QueryError>,
    ) -> Result<T, QueryError> {
        let answer = self.try_ask(question).map_err(|error| match error {
            QueryError::Sqlite(error) if pages::is_refusal(&error) => {
                schema::failed(&self.path, "cannot be read")(error).into()
            }
            error => error,
        });
        if answer.as_ref().is_err_and(QueryError::is_of_damage) {
            self.suspects.store(true, Ordering::Release);
        }
        answer
    }

    fn try_ask<T>(
        &self,
        question: impl FnOnce(&Connection) -> Result<T, QueryError>,
    ) -> Result<T, QueryError> {
        if self.is_unknown.load(Ordering::Acquire) {
            return Err(rescue::moved(&self.path, Missed::Overwritten).into());
        }
        let present = Site::at(&self.path).ok().flatten();
        let idle = self.idle().pop();
        let mut open = match idle {
            Some(open) if Some(&open.site) == present.as_ref() => open,
            _ => self.connect()?,
        };
        let transaction = open.connection.transaction()?;
        let answer = question(&transaction)?;
        transaction.finish()?;
        self.keep(open);
        Ok(answer)
    }

    fn connect(&self) -> Result<Open, LedgerError> {
        // Asked for before opening: should the file be replaced in between, the connection counts
        // as that of the former one, and is used once.
        let path = || self.path.to_path_buf();
        let site = Site::at(&self.path).map_err(|source| LedgerError::Unreachable {
            path: path(),
            source,
        })?;
        let site = site.ok_or_else(|| LedgerError::Missing { path: path() })?;
        let written = lock(&self.written).clone();
        if let Some(missed) = written.and_then(|written| site.misses(&written)) {
            return Err(rescue::moved(&self.path, missed));
        }
        let connection = schema::open_read_only(&self.path)?;
        Ok(Open { site, connection })
    }

    fn keep(&self, open: Open) {
        let mut idle = self.idle();
        if idle.len() < IDLE_CONNECTIONS_MAX {
            idle.push(open);
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Open>> {
        lock(&self.idle)
    }
}

/// The value under a lock; it is replaced or added to in one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
impl Reader {
    /// Counts what SQLite does for the questions from here on, by so many steps of its own; they
    /// must come one after another.
    pub fn count_steps(&self, by: i32) -> Result<Arc<AtomicU64>, QueryError> {
        let mut open = self.connect()?;
        let n = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&n);
        let count = move || {
            counted.fetch_add(1, Ordering::Relaxed);
            false
        };
        open.connection.progress_handler(by, Some(count))?;
        self.close();
        self.keep(open);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_that_cannot_be_looked_for_is_not_said_to_be_absent() {
        let dir = tempfile::tempdir().unwrap();
        let error = |dir: &Path| Reader::open(dir).map(|_| ()).unwrap_err();
        assert!(matches!(error(dir.path()), LedgerError::Missing { .. }));
        // Nobody, whatever he may do elsewhere, can follow a link to itself.
        let itself = dir.path().join(super::super::super::handle::LEDGER_FILE);
        std::os::unix::fs::symlink(&itself, &itself).unwrap();
        let error = error(dir.path());
        assert!(matches!(error, LedgerError::Unreachable { .. }), "{error}");
    }
}
