//! The ledger's file: how it is made, recognised and opened.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::ledger::error::LedgerError;
use crate::ledger::{pages, wide};

/// "TolM": tells a ledger from other SQLite files.
pub const APPLICATION_ID: u32 = 0x546f_6c4d;

/// The version of `schema.sql`. A change of it comes with a migration from every earlier one.
pub const SCHEMA_VERSION: i64 = 9;

/// What makes a ledger of each earlier version one of the next, the first version's step first.
const MIGRATIONS: [&str; 8] = [
    // Version 2 keeps fingerprints of request bodies.
    "ALTER TABLE events ADD COLUMN fingerprint TEXT",
    // Version 3 keeps what estimates were made from, the first price of rows that were priced
    // anew, and hourly sums of what providers state; it finds estimated calls whose usage is
    // retrieved later.
    include_str!("schema_2_to_3.sql"),
    // Version 4 counts the alterations of rows, and notes which are to be forwarded again.
    include_str!("schema_3_to_4.sql"),
    // Version 5 keeps sums of days and months, filled in the background, and outcomes of calls.
    include_str!("schema_days_outcomes.sql"),
    // Version 6 keeps what calls charged to budgets, and what budgets did to calls.
    include_str!("schema_budgets.sql"),
    // Version 7 keeps the tags that calls lacked and sums of days by pod, and numbers outcomes.
    include_str!("schema_6_to_7.sql"),
    // Version 8 finds budgets' spend by when it ends to count, and calls that are charged otherwise
    // than their sums say.
    include_str!("schema_7_to_8.sql"),
    // Version 9 keeps the highest rows of each hour and sums of days by tags and pod, and numbers
    // counters.
    include_str!("schema_8_to_9.sql"),
];

/// How long a connection waits for a lock. The writer is alone by its lock file, and readers never
/// wait in WAL mode but while the log is recovered after a crash.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Page cache of the writer, in KiB: holds the hot pages of all indices at some million rows.
const WRITER_CACHE_KIB: u32 = 8 * 1024;

/// Page cache of a reader, in KiB. Scans gain nothing from more.
const READER_CACHE_KIB: u32 = 2 * 1024;

/// Pages in the write-ahead log that begin a checkpoint (16 MiB): large enough that a group of
/// commits shares one, small enough that recovery takes milliseconds.
const CHECKPOINT_PAGES: u32 = 4_096;

/// What the write-ahead log's file is cut to after a checkpoint, in bytes, should a long reader
/// have made it grow.
const WAL_FILE_BYTES_MAX: u32 = 64 * 1024 * 1024;

/// Prepared statements that a connection keeps; the writer has about forty.
const STATEMENTS_MAX: usize = 64;

/// Opens the ledger for writing; makes it where the file is missing or empty.
pub fn open_writable(path: &Path) -> Result<Connection, LedgerError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = connect(path, flags)?;
    let failed = failed(path, "cannot be set up for writing");
    if is_new(path, &connection)? {
        create(&mut connection).map_err(&failed)?;
    } else if application_id(path, &connection)? == APPLICATION_ID {
        migrate(&mut connection).map_err(&failed)?;
    }
    check(path, &connection)?;
    check_length(path, &connection)?;
    let journal: String = connection
        .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
        .map_err(&failed)?;
    if journal != "wal" {
        return Err(LedgerError::NoWriteAheadLog {
            path: path.to_owned(),
            journal,
        });
    }
    // References are documentation: every id comes from the dictionaries of the same transaction,
    // and looking four of them up again for each row would cost a tenth of its time.
    connection
        .execute_batch(&format!(
            "PRAGMA foreign_keys = OFF;
             PRAGMA synchronous = FULL;
             PRAGMA cache_size = -{WRITER_CACHE_KIB};
             PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES};
             PRAGMA journal_size_limit = {WAL_FILE_BYTES_MAX};
             PRAGMA temp_store = MEMORY;"
        ))
        .map_err(&failed)?;
    Ok(connection)
}

/// Opens the ledger for questions only.
pub fn open_read_only(path: &Path) -> Result<Connection, LedgerError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = connect(path, flags)?;
    check(path, &connection)?;
    // Sorts stay in memory: a container's root is often read-only, without a place for files.
    connection
        .execute_batch(&format!(
            "PRAGMA cache_size = -{READER_CACHE_KIB}; PRAGMA temp_store = MEMORY;"
        ))
        .map_err(failed(path, "cannot be set up for reading"))?;
    Ok(connection)
}

/// The error of a step that SQLite refused, told by what it says.
pub fn failed(path: &Path, doing: &'static str) -> impl Fn(rusqlite::Error) -> LedgerError {
    move |source| match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => LedgerError::NotADatabase {
            path: path.to_owned(),
        },
        _ if pages::is_refusal(&source) => LedgerError::Damaged {
            path: path.to_owned(),
            found: pages::refusal(),
        },
        _ => LedgerError::Sqlite {
            path: path.to_owned(),
            doing,
            source,
        },
    }
}

/// Whether the error means that the file's content is damaged, so that no later try can succeed.
pub fn is_damage(error: &LedgerError) -> bool {
    match error {
        LedgerError::NotADatabase { .. } | LedgerError::Damaged { .. } => true,
        LedgerError::Sqlite { source, .. } => {
            source.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt)
        }
        _ => false,
    }
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, LedgerError> {
    let open = || {
        let connection = pages::open(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        wide::register(&connection)?;
        Ok(connection)
    };
    open().map_err(failed(path, "cannot be opened"))
}

/// Whether the file holds nothing at all yet.
fn is_new(path: &Path, connection: &Connection) -> Result<bool, LedgerError> {
    connection
        .query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| {
            row.get(0)
        })
        .map_err(failed(path, "cannot be read"))
        .and_then(|empty: bool| Ok(empty && application_id(path, connection)? == 0))
}

fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    // Must precede the first table: retention gives pages back to the file system with it.
    connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL;")?;
    let transaction = connection.transaction()?;
    transaction.execute_batch(include_str!("schema.sql"))?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()
}

/// Brings a ledger of an earlier version up to this build's, in one transaction: a crash leaves it
/// as it was, to be migrated at the next start.
fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    let found: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let missing = (1..).zip(MIGRATIONS).skip_while(|(from, _)| *from < found);
    // A version that is none, or newer than this build, is `check`'s to refuse.
    if !(1..SCHEMA_VERSION).contains(&found) {
        return Ok(());
    }
    for (_, step) in missing {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()
}

/// Whether the file is a ledger of the one version that this build knows.
fn check(path: &Path, connection: &Connection) -> Result<(), LedgerError> {
    let found = application_id(path, connection)?;
    if found != APPLICATION_ID {
        return Err(LedgerError::Application {
            path: path.to_owned(),
            found,
            wanted: APPLICATION_ID,
        });
    }
    let found = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(failed(path, "cannot be read"))?;
    if found != SCHEMA_VERSION {
        return Err(LedgerError::Version {
            path: path.to_owned(),
            found,
            wanted: SCHEMA_VERSION,
        });
    }
    Ok(())
}

/// Refuses a file that ends before its last page. SQLite reads zeros where a page should be, and in a
/// page of text nothing would tell them from what was there. While there is a log, the missing pages
/// may well be in it.
fn check_length(path: &Path, connection: &Connection) -> Result<(), LedgerError> {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    if fs::metadata(log).is_ok_and(|log| log.len() > 0) {
        return Ok(());
    }
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let pages = number("page_count").and_then(|n| Ok(n * number("page_size")?));
    let wanted = pages.map_err(failed(path, "cannot be read"))?;
    match fs::metadata(path) {
        Ok(file) if file.len() < wanted.unsigned_abs() => Err(LedgerError::Damaged {
            path: path.to_owned(),
            found: format!("{} bytes of {wanted}", file.len()),
        }),
        _ => Ok(()),
    }
}

fn application_id(path: &Path, connection: &Connection) -> Result<u32, LedgerError> {
    let id: i32 = connection
        .pragma_query_value(None, "application_id", |row| row.get(0))
        .map_err(failed(path, "cannot be read"))?;
    Ok(id.cast_unsigned())
}
