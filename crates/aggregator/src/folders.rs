//! Folders that are watched for changes, again where one is made anew.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

/// Folders, and whom to wake when something in them changes. Editors and ConfigMaps replace files,
/// and a watch on the old one would then be deaf; so is one on a folder that was replaced.
pub struct Folders {
    /// Whose files are in them, as the log says it.
    of: &'static str,
    paths: Vec<PathBuf>,
    changed: Arc<Notify>,
    watched: Mutex<Watched>,
}

#[derive(Default)]
struct Watched {
    watcher: Option<RecommendedWatcher>,
    /// Device and inode of each folder; `None` where there is none.
    ids: Vec<Option<(u64, u64)>>,
}

impl Folders {
    /// Of those files, or folders of files.
    pub fn new<'p>(
        of: &'static str,
        files: impl IntoIterator<Item = &'p Path>,
        changed: &Arc<Notify>,
    ) -> Folders {
        let folder = |path: &Path| match path.is_dir() {
            true => Some(path.to_owned()),
            false => path.parent().map(Path::to_owned),
        };
        Folders {
            of,
            paths: files.into_iter().filter_map(folder).collect(),
            changed: Arc::clone(changed),
            watched: Mutex::default(),
        }
    }

    /// Watches them, unless it is they that are watched. Blocks.
    pub fn watch(&self) {
        let ids: Vec<_> = self.paths.iter().map(|path| id(path)).collect();
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if watched.ids != ids {
            watched.watcher = self.watcher();
            watched.ids = ids;
        }
    }

    fn watcher(&self) -> Option<RecommendedWatcher> {
        let changed = Arc::clone(&self.changed);
        let told = |error: &notify::Error, folder: &Path| {
            let (of, folder) = (self.of, folder.display());
            tracing::warn!(%error, %folder, "cannot watch the files of {of}; polling only");
        };
        let mut watcher = notify::recommended_watcher(move |_| changed.notify_one())
            .inspect_err(|error| told(error, Path::new("")))
            .ok()?;
        for folder in &self.paths {
            if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
                told(&error, folder);
            }
        }
        Some(watcher)
    }
}

fn id(folder: &Path) -> Option<(u64, u64)> {
    let folder = std::fs::metadata(folder).ok()?;
    Some((folder.dev(), folder.ino()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_folder_that_is_made_anew_is_watched_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("pricing");
        fs::create_dir(&folder).unwrap();
        let changed = Arc::new(Notify::new());
        let folders = Folders::new("tests", [folder.as_path()], &changed);
        folders.watch();
        // Kept open, so that the new one cannot have its inode.
        let _open = fs::File::open(&folder).unwrap();
        fs::remove_dir(&folder).unwrap();
        fs::create_dir(&folder).unwrap();
        folders.watch();
        // What the removal itself told.
        while tokio::time::timeout(Duration::from_millis(200), changed.notified())
            .await
            .is_ok()
        {}
        fs::write(folder.join("a.toml"), "").unwrap();
        tokio::time::timeout(Duration::from_secs(10), changed.notified())
            .await
            .expect("somebody is woken");
    }
}
