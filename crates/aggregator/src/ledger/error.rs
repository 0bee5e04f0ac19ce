//! Why the ledger could not do what it was asked.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::ErrorCode;

use crate::ledger::schema;

/// Why a ledger cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The directory cannot be made or entered.
    #[error(
        "{}: cannot use this directory for the ledger; name a writable one as state_dir",
        path.display()
    )]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process writes this ledger.
    #[error(
        "{}: another tollmesh{} writes this ledger; \
         stop it, or give this one a state_dir of its own",
        path.display(),
        holder.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The process that holds it, where it left its id.
        holder: Option<u32>,
    },
    /// Whether there is a ledger cannot be seen.
    #[error(
        "{}: the ledger cannot be reached; ask as a user who may enter state_dir and read it",
        path.display()
    )]
    Unreachable {
        /// The file that was looked for.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no ledger to read.
    #[error("{}: no ledger here; start `tollmesh serve` with this state_dir first", path.display())]
    Missing {
        /// The file that was looked for.
        path: PathBuf,
    },
    /// The file is no SQLite database.
    #[error(
        "{}: not a ledger (no SQLite database); move the file away, or name another state_dir",
        path.display()
    )]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// The file is another application's database.
    #[error(
        "{}: not a ledger (a database of application id {found:#010x}, \
         a ledger has {wanted:#010x}); move the file away, or name another state_dir",
        path.display()
    )]
    Application {
        /// The file.
        path: PathBuf,
        /// The application id that it has.
        found: u32,
        /// The application id of ledgers.
        wanted: u32,
    },
    /// The ledger was written by another version.
    #[error(
        "{}: ledger of schema version {found}, this tollmesh knows version {wanted}; {}",
        path.display(),
        remedy(*found, *wanted)
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The version that it has.
        found: i64,
        /// The version that this build reads and writes.
        wanted: i64,
    },
    /// The file system does not do what a write-ahead log needs; network file systems do not.
    #[error(
        "{}: this file system cannot hold a write-ahead log (SQLite offers {journal:?}); \
         name a directory on a local disk as state_dir",
        path.display()
    )]
    NoWriteAheadLog {
        /// The file.
        path: PathBuf,
        /// The journal mode that SQLite offers.
        journal: String,
    },
    /// The file's structure is damaged.
    #[error("{}: damaged: {found}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite found.
        found: String,
    },
    /// A reader keeps the write-ahead log from being begun anew after a failure.
    #[error("{}: a reader holds the write-ahead log", path.display())]
    LogHeld {
        /// The file.
        path: PathBuf,
    },
    /// The files that are written are not those at the ledger's path any more.
    #[error("{}: {missed}. Stop tollmesh before its files are moved", path.display())]
    Moved {
        /// The file.
        path: PathBuf,
        /// What is missed there.
        missed: Missed,
    },
    /// What is open cannot be brought to where the ledger is found; it stays open, and is tried again.
    #[error(
        "{}: what the moved ledger recorded cannot be saved here; \
         do not stop tollmesh before it can: make room, or let it write in this directory",
        path.display()
    )]
    Unsaved {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// SQLite refused.
    #[error("{}: {doing}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// What budgets had spent before could not be read.
    #[error("{}: what was spent before cannot be read", path.display())]
    Unread {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<QueryError>,
    },
    /// The writer thread could not be started.
    #[error("cannot start the ledger's writer thread")]
    Thread(#[source] io::Error),
}

/// What is missed at the ledger's path while it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missed {
    /// Nothing is there.
    #[error("was moved or deleted while it was written; a copy of what is open takes its place")]
    File,
    /// The file is there, and its log or the log's index is not, or it is behind a link now.
    #[error(
        "its write-ahead log was moved or deleted while it was written; \
         what was in it is written into the file"
    )]
    Log,
    /// Another file is there.
    #[error(
        "another file took the ledger's place while it was written; what was recorded is copied \
         beside it as .recovered-N, the other file gone on with once it stands still, and the copy taken \
         into it"
    )]
    Replaced,
    /// The file is there, with another's content.
    #[error(
        "was overwritten by another program while it was written; once it stands still it is gone \
         on with, as what it is then. What stood in it alone is gone; a log that is none of the new \
         content's is moved aside as -wal.replaced-N"
    )]
    Overwritten,
}

/// Why entries were not taken. None of them is in the ledger; all may be sent again.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// More waits than the queue holds.
    #[error("the ledger is busy: {queued} events are waiting")]
    Busy {
        /// Events in the queue.
        queued: usize,
    },
    /// The commit failed; the next one is tried afresh.
    #[error("the ledger could not be written")]
    Storage(#[source] Arc<LedgerError>),
    /// The ledger is closed.
    #[error("the ledger is closed")]
    Closed,
}

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The cursor is none of this query's.
    #[error("cursor {0:?} is not one of this query; start without a cursor")]
    Cursor(String),
    /// An interval that divides nothing.
    #[error("interval of {0} ms; expected a positive one")]
    Interval(i64),
    /// The answer has more groups than one answer may.
    #[error(
        "more than {max} groups; ask for fewer dimensions, a longer interval or a shorter time"
    )]
    TooManyGroups {
        /// The most groups in one answer.
        max: usize,
    },
    /// The ledger cannot be opened for reading.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// SQLite refused.
    #[error("the ledger could not be read")]
    Sqlite(#[from] rusqlite::Error),
}

impl QueryError {
    /// Whether the file, and not the question, is what was wrong.
    pub(in crate::ledger) fn is_of_damage(&self) -> bool {
        match self {
            QueryError::Ledger(error) => schema::is_damage(error),
            QueryError::Sqlite(error) => matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
            ),
            _ => false,
        }
    }
}

/// What to do about a ledger of another version. An earlier one is migrated by its next writer.
fn remedy(found: i64, wanted: i64) -> &'static str {
    match (1..wanted).contains(&found) {
        true => "start `tollmesh serve` with this state_dir once, which brings it up to date",
        false => "run the release that wrote it, or move the file away to begin a new ledger",
    }
}
