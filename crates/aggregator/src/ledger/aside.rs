//! Damaged ledgers, and what is none of the ledger's, beside the one in use: set aside as they are, the
//! newest of them kept.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::ledger::site::beside;

/// Damaged files that are kept beside the ledger. Each may be as large as the ledger is, and a disk
/// that damages one damages the next.
pub const ASIDE_MAX: usize = 2;

/// What stands between the ledger's name and the number of a damaged file.
const SUFFIX: &str = ".damaged-";

/// What belongs to a ledger beside its file. The log goes first: a log without its file is harmless,
/// a file with another's log is not.
const PARTS: [&str; 3] = ["-wal", "-shm", ""];

/// A file that was set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    /// Its number; later ones are higher.
    pub number: u64,
    /// Where it is.
    pub path: PathBuf,
    /// Its size, with that of its log.
    pub bytes: u64,
}

/// Moves a damaged ledger out of the way, as it is, and says where it is now: most of it can still be
/// read with SQLite's own tools.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let to = next(path, SUFFIX)?;
    move_parts(path, &to)?;
    Ok(to)
}

fn move_parts(path: &Path, to: &Path) -> io::Result<()> {
    for part in PARTS {
        match fs::rename(beside(path, part), beside(to, part)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Moves a copy beside the ledger in among its damaged files, and says where it is now.
pub fn rename(copy: &Aside, ledger: &Path) -> io::Result<PathBuf> {
    let to = next(ledger, SUFFIX)?;
    move_parts(&copy.path, &to)?;
    Ok(to)
}

/// Deletes the oldest damaged files beyond [`ASIDE_MAX`].
pub fn keep_few(ledger: &Path) {
    keep_few_of(ledger, SUFFIX);
}

/// Deletes the oldest files of that kind beyond [`ASIDE_MAX`].
pub fn keep_few_of(path: &Path, suffix: &str) {
    let found = numbered(path, suffix).unwrap_or_default();
    let n_over = found.len().saturating_sub(ASIDE_MAX);
    for old in &found[..n_over] {
        let path = old.path.display();
        match delete(old) {
            Ok(()) => tracing::warn!(%path, "the oldest file that was set aside was deleted"),
            Err(error) => tracing::warn!(%path, %error, "a file set aside cannot be deleted"),
        }
    }
}

/// The first name of that kind, after which no number is taken.
pub fn next(path: &Path, suffix: &str) -> io::Result<PathBuf> {
    let last = numbered(path, suffix)?
        .last()
        .map_or(0, |aside| aside.number);
    Ok(beside(path, &format!("{suffix}{}", last + 1)))
}

/// The files that are set aside, the oldest first.
pub fn all(path: &Path) -> io::Result<Vec<Aside>> {
    numbered(path, SUFFIX)
}

/// Files of that kind beside the ledger, the oldest first.
pub fn numbered(path: &Path, suffix: &str) -> io::Result<Vec<Aside>> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else {
        return Ok(Vec::new());
    };
    let prefix = format!("{name}{suffix}");
    let mut found = Vec::new();
    for file in fs::read_dir(dir)? {
        let file = file?;
        let name = file.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(&prefix));
        if let Some(number) = number.and_then(|number| number.parse().ok()) {
            let path = file.path();
            let size = |part: &str| fs::metadata(beside(&path, part)).map_or(0, |file| file.len());
            let bytes = PARTS.map(size).iter().sum();
            found.push(Aside {
                number,
                path,
                bytes,
            });
        }
    }
    found.sort_by_key(|aside| aside.number);
    Ok(found)
}

/// Deletes a file that was set aside.
pub fn delete(aside: &Aside) -> io::Result<()> {
    for part in PARTS {
        match fs::remove_file(beside(&aside.path, part)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_files_are_numbered_and_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db");
        for n in 1..=11_u64 {
            fs::write(&path, vec![0; 10]).unwrap();
            fs::write(beside(&path, "-wal"), vec![0; n as usize]).unwrap();
            let to = set_aside(&path).unwrap();
            assert_eq!(to, dir.path().join(format!("ledger.db.damaged-{n}")));
        }
        let found = all(&path).unwrap();
        let told: Vec<(u64, u64)> = found.iter().map(|a| (a.number, a.bytes)).collect();
        assert_eq!(told, (1..=11).map(|n| (n, 10 + n)).collect::<Vec<_>>());
        delete(&found[0]).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 20);
        assert_eq!(all(&path).unwrap()[0].number, 2);
    }
}
