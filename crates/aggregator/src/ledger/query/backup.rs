//! A copy of the ledger at one instant, made while it is written.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use crate::ledger::error::QueryError;
use crate::ledger::pages;
use crate::ledger::query::reader::Reader;

/// Pages that are copied between two looks at how far it is: 4 MiB.
const STEP_PAGES: i32 = 1_024;

/// A copy that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackedUp {
    /// Its size.
    pub bytes: u64,
    /// Calls in it.
    pub rows: u64,
}

/// Why no copy was made. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Nothing is ever overwritten.
    #[error("{}: exists; name a new file", .0.display())]
    Exists(PathBuf),
    /// A folder is not made by the way: on a volume that is not mounted it would be the wrong one.
    #[error("{}: no such folder; make it, or mount what belongs there", .0.display())]
    NoFolder(PathBuf),
    /// The file system refused.
    #[error("{}: {doing}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// SQLite refused.
    #[error("{}: {doing}", path.display())]
    Sqlite {
        /// The copy.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The copy is not whole: the disk gave back other bytes than it was given, or the ledger is
    /// damaged, too.
    #[error("{}: the copy is damaged: {what}", path.display())]
    Damaged {
        /// The copy.
        path: PathBuf,
        /// What SQLite found.
        what: String,
    },
    /// The ledger could not be read.
    #[error(transparent)]
    Query(#[from] QueryError),
}

impl Reader {
    /// Copies the ledger into a new file: as it is at one instant, whatever is written meanwhile,
    /// and checked. The writer goes on; its write-ahead log grows by what it writes in that time.
    /// After each step `told` receives how much of it is done, in thousandths.
    pub fn backup(&self, to: &Path, told: &mut dyn FnMut(u64)) -> Result<BackedUp, BackupError> {
        if to.exists() {
            return Err(BackupError::Exists(to.to_owned()));
        }
        // Of a bare name it is the empty path, which is the folder where we are.
        let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            return Err(BackupError::NoFolder(folder.to_owned()));
        }
        let mut name = to.as_os_str().to_owned();
        name.push(".partial");
        let partial = PathBuf::from(name);
        let made = self.copy(&partial, told).and_then(|made| {
            settle(&partial, to)?;
            Ok(made)
        });
        if made.is_err() {
            // Whether it was begun or not.
            let _ = fs::remove_file(&partial);
        }
        made
    }

    fn copy(&self, to: &Path, told: &mut dyn FnMut(u64)) -> Result<BackedUp, BackupError> {
        // What an interrupted backup left: SQLite would take it for a file to be continued.
        match fs::remove_file(to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(file_failed(to, "cannot be replaced")(error));
            }
            _ => {}
        }
        let failed = |source| BackupError::Sqlite {
            path: to.to_owned(),
            doing: "cannot be written",
            source,
        };
        // Pages are copied as they are, with room for checksums or without.
        let mut copy = match self.ask(|ledger| Ok(pages::has_guards(ledger)))? {
            true => pages::open(to, OpenFlags::default()),
            false => Connection::open(to),
        }
        .map_err(failed)?;
        self.ask(|ledger| {
            // Reading fixes the instant. As long as this transaction lasts, no step begins anew.
            let rows: i64 =
                ledger.query_row("SELECT count(*) FROM events", [], |row| row.get(0))?;
            Ok(copy_pages(ledger, &mut copy, told)
                .map(|()| rows.unsigned_abs())
                .map_err(failed))
        })?
        .and_then(|rows| {
            check(&copy, to)?;
            // One file, which can be read where nothing can be written.
            copy.pragma_update(None, "journal_mode", "DELETE")
                .map_err(failed)?;
            copy.close().map_err(|(_, error)| failed(error))?;
            let bytes = fs::metadata(to).map_err(file_failed(to, "cannot be read"))?;
            Ok(BackedUp {
                bytes: bytes.len(),
                rows,
            })
        })
    }
}

fn copy_pages(
    from: &Connection,
    to: &mut Connection,
    told: &mut dyn FnMut(u64),
) -> rusqlite::Result<()> {
    let backup = Backup::new(from, to)?;
    loop {
        let step = backup.step(STEP_PAGES)?;
        let progress = backup.progress();
        let (total, left) = (i64::from(progress.pagecount), i64::from(progress.remaining));
        told((1_000 * (total - left) / total.max(1)).unsigned_abs());
        if step == StepResult::Done {
            return Ok(());
        }
    }
}

fn check(copy: &Connection, path: &Path) -> Result<(), BackupError> {
    let said: Result<String, _> = copy.query_row("PRAGMA quick_check(1)", [], |row| row.get(0));
    let what = match said {
        Ok(said) if said == "ok" => return Ok(()),
        Ok(said) => said,
        Err(error) => error.to_string(),
    };
    Err(BackupError::Damaged {
        path: path.to_owned(),
        what,
    })
}

/// Gives the copy its name when it is on the disk.
fn settle(partial: &Path, to: &Path) -> Result<(), BackupError> {
    let failed = file_failed(to, "cannot be written");
    let file = File::open(partial).map_err(&failed)?;
    file.sync_all().map_err(&failed)?;
    fs::rename(partial, to).map_err(&failed)?;
    let parent = to.parent().filter(|dir| !dir.as_os_str().is_empty());
    let dir = File::open(parent.unwrap_or(Path::new("."))).map_err(&failed)?;
    dir.sync_all().map_err(&failed)
}

fn file_failed(path: &Path, doing: &'static str) -> impl Fn(io::Error) -> BackupError {
    move |source| BackupError::File {
        path: path.to_owned(),
        doing,
        source,
    }
}
