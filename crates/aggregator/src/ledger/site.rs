//! What stands at the ledger's path, told apart by what the file system calls it: a file that is
//! moved, deleted or replaced goes on being written by whoever has it open, and nothing fails.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::ledger::error::Missed;

/// Device and inode.
type FileId = (u64, u64);

/// The ledger's files, as they are found from its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Where the path leads, through links: SQLite keeps its log beside that.
    leads_to: PathBuf,
    file: FileId,
    log: Option<FileId>,
    index: Option<FileId>,
}

impl Site {
    /// What is there; `None` where nothing is. An error says that it cannot be known.
    pub fn at(path: &Path) -> io::Result<Option<Site>> {
        let leads_to = match fs::canonicalize(path) {
            Ok(leads_to) => leads_to,
            Err(error) if is_nothing(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(file) = id(&leads_to)? else {
            return Ok(None);
        };
        Ok(Some(Site {
            log: id(&beside(&leads_to, "-wal"))?,
            index: id(&beside(&leads_to, "-shm"))?,
            leads_to,
            file,
        }))
    }

    /// The file itself, behind links.
    pub fn file(&self) -> &Path {
        &self.leads_to
    }

    /// What of `opened` is missed there; `None` where all of it is there.
    pub fn misses(&self, opened: &Site) -> Option<Missed> {
        match self == opened {
            true => None,
            false if self.file == opened.file => Some(Missed::Log),
            false => Some(Missed::Replaced),
        }
    }

    /// The log, where it is another's than `opened` has, and holds something.
    pub fn foreign_log(&self, opened: &Site) -> Option<PathBuf> {
        let log = beside(&self.leads_to, "-wal");
        let has_content = fs::metadata(&log).is_ok_and(|log| log.len() > 0);
        (self.log != opened.log && has_content).then_some(log)
    }

    /// Deletes the log and its index where they are those of `opened`, which is another file: with
    /// them, that file's pages would be taken for this one's.
    pub fn disown(&self, opened: &Site) -> io::Result<()> {
        for (suffix, is, was) in [
            ("-wal", self.log, opened.log),
            ("-shm", self.index, opened.index),
        ] {
            if is.is_some() && is == was {
                fs::remove_file(beside(&self.leads_to, suffix))?;
            }
        }
        Ok(())
    }
}

/// The path with that at its end.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Whether the error says that nothing is at a path.
pub fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn id(path: &Path) -> io::Result<Option<FileId>> {
    match fs::metadata(path) {
        Ok(file) => Ok(Some((file.dev(), file.ino()))),
        Err(error) if is_nothing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_themselves_and_not_by_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db");
        assert_eq!(Site::at(&path).unwrap(), None);
        for name in ["ledger.db", "ledger.db-wal", "other"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        // Open, so that no other file has its inode.
        let _log = fs::File::open(dir.path().join("ledger.db-wal")).unwrap();
        let opened = Site::at(&path).unwrap().unwrap();
        assert_eq!(Site::at(&path).unwrap().unwrap().misses(&opened), None);

        // A link to what it was: the same file, and its log would be another.
        fs::create_dir(dir.path().join("big")).unwrap();
        fs::rename(&path, dir.path().join("big/ledger.db")).unwrap();
        std::os::unix::fs::symlink("big/ledger.db", &path).unwrap();
        let linked = Site::at(&path).unwrap().unwrap();
        assert_eq!(linked.misses(&opened), Some(Missed::Log));

        fs::rename(dir.path().join("other"), &path).unwrap();
        let other = Site::at(&path).unwrap().unwrap();
        assert_eq!(other.misses(&opened), Some(Missed::Replaced));
        assert_eq!(other.foreign_log(&opened), None);
        other.disown(&opened).unwrap();
        assert!(!dir.path().join("ledger.db-wal").exists());

        fs::write(dir.path().join("ledger.db-wal"), "another's").unwrap();
        let with_another = Site::at(&path).unwrap().unwrap();
        with_another.disown(&opened).unwrap();
        let log = dir.path().canonicalize().unwrap().join("ledger.db-wal");
        assert_eq!(with_another.foreign_log(&opened), Some(log));
    }
}
