//! One writer a ledger: an advisory lock on a file beside it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::ledger::error::LedgerError;
use crate::ledger::site::is_nothing;

/// The lock's file in the ledger's directory.
const LOCK_FILE: &str = "ledger.lock";

/// Held for as long as it lives; the kernel gives it up should the process die.
#[derive(Debug)]
pub struct Lock {
    dir: PathBuf,
    file: File,
}

impl Lock {
    /// Takes it anew where its file was moved or deleted: another process would find nothing in its
    /// way. Answers whether that was so: somebody may have written in between.
    pub fn hold(&mut self) -> Result<bool, LedgerError> {
        let there = fs::metadata(self.dir.join(LOCK_FILE));
        let is_held = match (self.file.metadata(), there) {
            (Ok(held), Ok(there)) => (held.dev(), held.ino()) == (there.dev(), there.ino()),
            (_, Err(error)) if is_nothing(&error) => false,
            // It cannot be known; what is held stays held.
            _ => true,
        };
        if !is_held {
            *self = take(&self.dir)?;
            let dir = self.dir.display();
            tracing::warn!(%dir, "the ledger's lock was moved or deleted, and is taken anew");
        }
        Ok(!is_held)
    }
}

/// Makes the directory where it is missing, and takes its lock.
pub fn take(dir: &Path) -> Result<Lock, LedgerError> {
    let unusable = |source| LedgerError::Directory {
        path: dir.to_owned(),
        source,
    };
    fs::create_dir_all(dir).map_err(unusable)?;
    let path = dir.join(LOCK_FILE);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => {
            // The process id is for people only; without it the lock holds as well.
            let _ = write_holder(&mut file);
            Ok(Lock {
                dir: dir.to_owned(),
                file,
            })
        }
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let _ = file.read_to_string(&mut text);
            Err(LedgerError::Locked {
                path,
                holder: text.trim().parse().ok(),
            })
        }
        Err(TryLockError::Error(source)) => Err(unusable(source)),
    }
}

fn write_holder(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}
