//! What was good of the operator's files, kept for a start at which they are not.
//!
//! A process that runs keeps what it has when a file turns bad. One that starts has nothing: a slip in
//! a ConfigMap would do no harm until pods roll, and then stop them all.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// One file below the state directory.
#[derive(Clone, Debug)]
pub struct LastGood {
    path: PathBuf,
}

impl LastGood {
    /// What is kept under that name.
    pub fn of(state_dir: &Path, name: &str) -> LastGood {
        LastGood {
            path: state_dir.join(format!("{name}.last-good.json")),
        }
    }

    /// Keeps it in place of what was kept before. A failure is told and harms nothing now.
    pub fn keep(&self, good: &impl Serialize) {
        let path = self.path.display();
        let text = match serde_json::to_vec(good) {
            Ok(text) => text,
            Err(error) => return tracing::warn!(%error, %path, "cannot be kept"),
        };
        if fs::read(&self.path).is_ok_and(|kept| kept == text) {
            return;
        }
        let new = self.path.with_extension("new");
        let kept = write_durably(&new, &text).and_then(|()| fs::rename(&new, &self.path));
        if let Err(error) = kept {
            tracing::warn!(%error, %path, "what is good of the configured files cannot be kept");
        }
    }

    /// What was kept last; `None` where nothing was, or it cannot be read.
    pub fn read<T: DeserializeOwned>(&self) -> Option<T> {
        let path = self.path.display();
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(%error, %path, "cannot be read");
                return None;
            }
        };
        serde_json::from_slice(&text)
            .inspect_err(
                |error| tracing::warn!(%error, %path, "is damaged; nothing is taken of it"),
            )
            .ok()
    }
}

/// A rename may reach the disk before what it renames: after a power loss the file would be empty.
fn write_durably(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_last_is_read_and_damage_is_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let kept = LastGood::of(dir.path(), "prices");
        assert_eq!(kept.read::<Vec<String>>(), None);
        kept.keep(&["a"]);
        kept.keep(&["b", "c"]);
        assert_eq!(kept.read(), Some(vec!["b".to_owned(), "c".to_owned()]));
        fs::write(dir.path().join("prices.last-good.json"), b"[\"b\"").expect("is written");
        assert_eq!(kept.read::<Vec<String>>(), None);
    }
}
