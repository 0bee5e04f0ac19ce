//! A few read-only connections that questions take turns on.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;

use crate::ledger::error::{LedgerError, QueryError};
use crate::ledger::schema;

/// Idle connections that are kept. Each has its own page cache; a dashboard and a report at a time
/// are served without opening files.
const IDLE_CONNECTIONS_MAX: usize = 2;

/// Answers questions about a ledger, whether or not a writer is at work. Clones share connections.
///
/// All its methods read files and block; call them where blocking is allowed.
#[derive(Clone)]
pub struct Reader {
    path: Arc<Path>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Reader {
    /// Reads the ledger in that directory, which another process may be writing.
    pub fn open(dir: &Path) -> Result<Reader, LedgerError> {
        let reader = Reader::new(dir.join(super::super::handle::LEDGER_FILE));
        let connection = schema::open_read_only(&reader.path)?;
        reader.keep(connection);
        Ok(reader)
    }

    pub(in crate::ledger) fn new(path: PathBuf) -> Reader {
        Reader {
            path: path.into(),
            idle: Arc::default(),
        }
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
    pub(super) fn ask<T>(
        &self,
        question: impl FnOnce(&Connection) -> Result<T, QueryError>,
    ) -> Result<T, QueryError> {
        let idle = self.idle().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => schema::open_read_only(&self.path)?,
        };
        let transaction = connection.transaction()?;
        let answer = question(&transaction)?;
        transaction.finish()?;
        self.keep(connection);
        Ok(answer)
    }

    fn keep(&self, connection: Connection) {
        let mut idle = self.idle();
        if idle.len() < IDLE_CONNECTIONS_MAX {
            idle.push(connection);
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
