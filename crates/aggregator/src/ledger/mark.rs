//! What the ledger's file was when this process wrote it last, so that what others write shows: a
//! file that is overwritten in place (`cp other.db ledger.db`) is still the same to the file system.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::ledger::pages;
use crate::stamp::Stamp;

/// The file's begin, by which it is known again, in bytes. The root of every table is in it: of
/// `meta` with the ledger's id and the number of the last row, which each commit changes, too.
const BEGIN_BYTES: u64 = 256 * 1024;

/// The file as it was left.
struct Mark {
    file: PathBuf,
    stamp: Stamp,
    /// The CRC-32 of its first [`BEGIN_BYTES`].
    begin: u32,
    /// How often the store that left it had written it.
    writes: u64,
}

/// A mark that a store keeps, and whoever opens one looks at.
#[derive(Clone, Default)]
pub struct Marked(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    mark: Option<Mark>,
    /// The file that was read last, for as long as it stands at its path. A process that closes a
    /// file loses all locks that it has on it (<https://www.sqlite.org/howtocorrupt.html>, 2.2), and
    /// without SQLite's, any other program that reads the ledger would take itself for the last one
    /// that does, fold the log into it, and delete the log under this process.
    open: Option<File>,
}

/// What somebody else did to the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alteration {
    /// The file as it is now.
    pub stamp: Stamp,
    /// What became of it.
    pub became: Became,
}

/// What a file became that was written by somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Became {
    /// Longer or shorter, with the begin that it had.
    AnotherLength,
    /// Another database.
    Another,
    /// No database, or not yet.
    Broken,
}

// === impl Marked ===

impl Marked {
    /// Notes how the file is left by who has written it so often, unless that is known.
    pub fn note(&self, file: &Path, writes: u64) {
        let mut held = self.lock();
        if held.mark.as_ref().is_none_or(|mark| mark.writes != writes) {
            held.mark = held.look(file, writes);
        }
    }

    /// Forgets the file: another is going to be opened, or the same afresh.
    pub fn forget(&self) {
        self.lock().mark = None;
    }

    /// What others did to the file since it was left; `None` where nothing, or where it is gone.
    pub fn alteration(&self) -> Option<Alteration> {
        let mut held = self.lock();
        let mark = held.mark.as_ref()?;
        let stamp = Stamp::of(&mark.file)?;
        if stamp == mark.stamp || !stamp.is_of_same_file(&mark.stamp) {
            return None;
        }
        let file = mark.file.clone();
        let begin = held.begin(&file, stamp)?;
        let mark = held.mark.as_mut()?;
        let became = match crc32fast::hash(&begin) == mark.begin {
            // Only its time was set, as `touch` does.
            true if stamp.is_as_long_as(&mark.stamp) => {
                mark.stamp = stamp;
                return None;
            }
            true => Became::AnotherLength,
            false if pages::is_database(&begin) => Became::Another,
            false => Became::Broken,
        };
        Some(Alteration { stamp, became })
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Held ===

impl Held {
    fn look(&mut self, file: &Path, writes: u64) -> Option<Mark> {
        let stamp = Stamp::of(file)?;
        Some(Mark {
            begin: crc32fast::hash(&self.begin(file, stamp)?),
            stamp,
            file: file.to_owned(),
            writes,
        })
    }

    /// What the file begins with that stands at its path with that stamp.
    fn begin(&mut self, path: &Path, stamp: Stamp) -> Option<Vec<u8>> {
        let opened = self.open.as_ref().and_then(Stamp::of_open);
        if !opened.is_some_and(|opened| opened.is_of_same_file(&stamp)) {
            // The former one stands there no more: nobody finds it by its path.
            self.open = Some(File::open(path).ok()?);
        }
        read_begin(self.open.as_ref()?)
    }
}

fn read_begin(file: &File) -> Option<Vec<u8>> {
    let mut begin = vec![0; usize::try_from(BEGIN_BYTES).ok()?];
    let mut n_read = 0;
    loop {
        let at = u64::try_from(n_read).ok()?;
        match file.read_at(begin.get_mut(n_read..)?, at).ok()? {
            0 => break,
            n => n_read += n,
        }
    }
    begin.truncate(n_read);
    Some(begin)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, FileTimes};
    use std::time::SystemTime;

    use rusqlite::OpenFlags;

    use super::*;

    fn database(path: &Path, table: &str) -> Vec<u8> {
        let connection = pages::open(path, OpenFlags::default()).unwrap();
        let sql =
            format!("CREATE TABLE {table} (x); INSERT INTO {table} VALUES (zeroblob(300000))");
        connection.execute_batch(&sql).unwrap();
        assert!(pages::writes(&connection) > 0);
        drop(connection);
        fs::read(path).unwrap()
    }

    #[test]
    fn what_others_write_shows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db");
        let own = database(&path, "own");
        let other = database(&dir.path().join("other.db"), "other");
        let marked = Marked::default();
        marked.note(&path, 1);
        let became = || marked.alteration().map(|altered| altered.became);
        assert_eq!(became(), None);
        for (content, expected) in [
            (other.as_slice(), Some(Became::Another)),
            (&other[..8_192], Some(Became::Another)),
            (&other[..4_095], Some(Became::Broken)),
            (b"", Some(Became::Broken)),
            (b"hello", Some(Became::Broken)),
            (&own[..8_192], Some(Became::Another)),
            (&own[..270_000], Some(Became::AnotherLength)),
            (own.as_slice(), None),
        ] {
            fs::write(&path, content).unwrap();
            assert_eq!(became(), expected, "{} bytes", content.len());
        }

        let file = File::options().write(true).open(&path).unwrap();
        let times = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
        file.set_times(times).unwrap();
        assert_eq!(became(), None);

        // Its own writes, which are counted.
        fs::write(&path, &other).unwrap();
        marked.note(&path, 1);
        assert_eq!(became(), Some(Became::Another));
        marked.note(&path, 2);
        assert_eq!(became(), None);
        fs::write(&path, b"").unwrap();
        marked.forget();
        assert_eq!(became(), None);
    }

    #[test]
    fn a_first_page_that_was_altered_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let mut content = database(&dir.path().join("a.db"), "a");
        assert!(pages::is_database(&content));
        content[200] ^= 1;
        assert!(!pages::is_database(&content));
    }
}
