//! What the file system tells a file's state by, so that a change of it shows.

use std::fs::{self, File, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// A file as it stood: device, inode, length, and when it was written last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    dev: u64,
    ino: u64,
    len: u64,
    mtime: (i64, i64),
}

impl Stamp {
    /// Of the file at that path; `None` where none can be seen.
    pub fn of(path: &Path) -> Option<Stamp> {
        fs::metadata(path).ok().map(Stamp::from)
    }

    /// Of an open file, wherever it is.
    pub fn of_open(file: &File) -> Option<Stamp> {
        file.metadata().ok().map(Stamp::from)
    }

    /// Whether both are of files of one length.
    pub const fn is_as_long_as(&self, other: &Stamp) -> bool {
        self.len == other.len
    }

    /// Whether both are of one file, whatever stands in it.
    pub fn is_of_same_file(&self, other: &Stamp) -> bool {
        (self.dev, self.ino) == (other.dev, other.ino)
    }
}

impl From<Metadata> for Stamp {
    fn from(file: Metadata) -> Stamp {
        Stamp {
            dev: file.dev(),
            ino: file.ino(),
            len: file.len(),
            mtime: (file.mtime(), file.mtime_nsec()),
        }
    }
}
