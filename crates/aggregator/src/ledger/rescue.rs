//! A ledger whose files were moved, deleted or replaced while they were written: what it has is
//! brought to where it is found again.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::ledger::aside::{self, Aside};
use crate::ledger::error::{LedgerError, Missed};
use crate::ledger::schema;
use crate::ledger::site::{Site, beside, is_nothing};
use crate::ledger::store::Store;
use crate::stamp::Stamp;

/// What stands between the ledger's name and the number of a copy of what was recorded.
const SUFFIX: &str = ".recovered-";

/// What a copy's name ends with until it is whole.
const PARTIAL: &str = ".partial";

/// What stands between the name of a log and its number, where it is no log of the ledger's.
const LOG_SUFFIX: &str = ".replaced-";

/// How long another file stands still before it is taken for whole: whoever puts it there may be
/// copying.
const SETTLE: Duration = Duration::from_secs(1);

/// How long after a failure the next try is. Each may fill a disk.
const RETRY: Duration = Duration::from_secs(1);

/// What has been done so far about files that are not where they were.
#[derive(Default)]
pub struct Rescue {
    /// When the last try failed.
    failed: Option<Instant>,
    /// Another file in the ledger's place, and since when it is as it is.
    settling: Option<(Stamp, Instant)>,
    /// The ledger's own file, overwritten, and since when it is as it is.
    overwritten: Option<(Stamp, Instant)>,
    /// Copies whose calls are in what is known of counters and accounts.
    pub counted: BTreeSet<String>,
}

/// Copies of what replaced ledgers had recorded, the oldest first.
pub fn recovered(path: &Path) -> io::Result<Vec<Aside>> {
    aside::numbered(path, SUFFIX)
}

/// Deletes copies that a process was killed over: each is as large as the ledger was. Before the ledger is
/// opened, by whoever holds its lock.
pub fn forget_partial(path: &Path) {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else {
        return;
    };
    let prefix = format!("{name}{SUFFIX}");
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    for file in files {
        let name = file.file_name();
        let is_partial = |name: &str| name.starts_with(&prefix) && name.ends_with(PARTIAL);
        if name.to_str().is_some_and(is_partial)
            && let Err(error) = fs::remove_file(file.path())
        {
            let path = file.path();
            tracing::warn!(path = %path.display(), %error, "half a copy cannot be deleted");
        }
    }
}

/// What is missed at the ledger's path of what is open; `None` where all of it is there.
pub fn missed(store: &Store, found: Option<&Site>) -> Option<Missed> {
    match (found, store.site()) {
        (None, _) => Some(Missed::File),
        (Some(found), Some(opened)) => found.misses(opened),
        (Some(_), None) => Some(Missed::Replaced),
    }
}

// === impl Rescue ===

impl Rescue {
    /// Brings all that is open to the disk, so that the store may be dropped; where `is_ours` is
    /// not, another process writes at that path, and nothing is put there.
    pub fn save(
        &mut self,
        path: &Path,
        store: &Store,
        found: Option<&Site>,
        is_ours: bool,
    ) -> Result<(), LedgerError> {
        let missed = missed(store, found).unwrap_or(Missed::File);
        if self.failed.is_some_and(|failed| failed.elapsed() < RETRY) {
            return Err(moved(path, missed));
        }
        let saved = match (missed, found.zip(store.site())) {
            (Missed::Log, Some((found, opened))) if is_ours => write_out(store, found, opened),
            (Missed::File, _) if is_ours => self.put_back(path, store),
            _ => copy_beside(path, store).and_then(|(copy, name)| {
                self.counted.insert(name);
                let found = found.filter(|_| is_ours);
                self.leave_beside(path, &copy, store, found)
            }),
        };
        self.failed = saved.is_err().then(Instant::now);
        saved
    }

    /// Whether the file at that path stands still, where it is another than was written.
    pub fn settle(&mut self, path: &Path) -> Result<(), LedgerError> {
        let Some((seen, since)) = &mut self.settling else {
            return Ok(());
        };
        let now = Stamp::of(path);
        if now.as_ref() != Some(seen) {
            self.settling = now.map(|now| (now, Instant::now()));
        } else if since.elapsed() >= SETTLE {
            self.settling = None;
            tracing::warn!(path = %path.display(), "the ledger goes on in another file");
        }
        match self.settling {
            Some(_) => Err(moved(path, Missed::Replaced)),
            None => Ok(()),
        }
    }

    /// Whether a file that was overwritten stands still, and is as it is for now.
    pub fn stands_still(&mut self, now: Stamp) -> bool {
        match self.overwritten {
            Some((seen, since)) if seen == now => since.elapsed() >= SETTLE,
            _ => {
                self.overwritten = Some((now, Instant::now()));
                false
            }
        }
    }

    /// The file is the one that is written, or another is gone on with.
    pub fn is_known_again(&mut self) {
        self.overwritten = None;
    }

    /// Nothing is there: a copy takes the file's place.
    fn put_back(&mut self, path: &Path, store: &Store) -> Result<(), LedgerError> {
        let (copy, name) = copy_beside(path, store)?;
        // Not by renaming: what somebody puts there in this moment is not ours to overwrite.
        match fs::hard_link(&copy, path) {
            Ok(()) => fs::remove_file(&copy),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let found = Site::at(path).ok().flatten();
                self.counted.insert(name);
                return self.leave_beside(path, &copy, store, found.as_ref());
            }
            // Some file systems have no hard links.
            Err(_) => fs::rename(&copy, path),
        }
        .and_then(|()| sync_folder(path))
        .and_then(|()| disown(store, Site::at(path)?.as_ref()))
        .map_err(unsaved(path))?;
        tracing::warn!(
            path = %path.display(),
            "the ledger was written again from what was open; nothing is lost"
        );
        Ok(())
    }

    /// Another file is there: the copy stays beside it.
    fn leave_beside(
        &mut self,
        path: &Path,
        copy: &Path,
        store: &Store,
        found: Option<&Site>,
    ) -> Result<(), LedgerError> {
        sync_folder(path)
            .and_then(|()| disown(store, found))
            .map_err(unsaved(path))?;
        self.settling = Stamp::of(path).map(|now| (now, Instant::now()));
        tracing::error!(
            copy = %copy.display(),
            "what the replaced ledger recorded is in this copy; the calls of it that the other file \
             lacks are taken into that within minutes, and the copy is deleted then"
        );
        Ok(())
    }
}

/// Its log is gone, or another's: all that it held goes into the file.
fn write_out(store: &Store, found: &Site, opened: &Site) -> Result<(), LedgerError> {
    store.write_out()?;
    let Some(log) = found.foreign_log(opened) else {
        return Ok(());
    };
    let aside = aside::next(&log, LOG_SUFFIX).and_then(|to| fs::rename(&log, &to).map(|()| to));
    let aside = aside.map_err(unsaved(&log))?;
    tracing::warn!(path = %aside.display(), "a log that is none of the ledger's was moved here");
    aside::keep_few_of(&log, LOG_SUFFIX);
    Ok(())
}

/// Moves the log away from a file that got another's content: with it, its pages would be taken for
/// that one's.
pub fn part(path: &Path) -> Result<(), LedgerError> {
    let failed = unsaved(path);
    let leads_to = fs::canonicalize(path).map_err(&failed)?;
    let log = beside(&leads_to, "-wal");
    if fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
        let aside = aside::next(&log, LOG_SUFFIX).map_err(&failed)?;
        fs::rename(&log, &aside).map_err(&failed)?;
        tracing::warn!(path = %aside.display(), "the log of the overwritten ledger was moved here");
        aside::keep_few_of(&log, LOG_SUFFIX);
    }
    for suffix in ["-wal", "-shm"] {
        match fs::remove_file(beside(&leads_to, suffix)) {
            Err(error) if !is_nothing(&error) => return Err(failed(error)),
            _ => {}
        }
    }
    sync_folder(&leads_to).map_err(&failed)
}

/// Leaves no log of ours beside a file that is not.
fn disown(store: &Store, found: Option<&Site>) -> io::Result<()> {
    match (found, store.site()) {
        (Some(found), Some(opened)) => found.disown(opened),
        _ => Ok(()),
    }
}

/// Copies all that is open into a new file, and says which name of its own that has. A file at that
/// path is whole.
fn copy_beside(path: &Path, store: &Store) -> Result<(PathBuf, String), LedgerError> {
    let to = aside::next(path, SUFFIX).map_err(unsaved(path))?;
    let partial = beside(&to, PARTIAL);
    let _ = fs::remove_file(&partial);
    let copied = store
        .copy(&partial)
        .map_err(schema::failed(
            &partial,
            "what was recorded cannot be copied",
        ))
        .and_then(|name| {
            fs::rename(&partial, &to).map_err(unsaved(&to))?;
            Ok(name)
        });
    match copied {
        Ok(name) => Ok((to, name)),
        Err(error) => {
            let _ = fs::remove_file(&partial);
            Err(error)
        }
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// The error while files are not where they were.
pub fn moved(path: &Path, missed: Missed) -> LedgerError {
    LedgerError::Moved {
        path: path.to_owned(),
        missed,
    }
}

fn unsaved(path: &Path) -> impl Fn(io::Error) -> LedgerError {
    move |source| LedgerError::Unsaved {
        path: path.to_owned(),
        source,
    }
}
