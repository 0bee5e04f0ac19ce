//! The price files' changes: seen when the file system tells, taken when the files stand still.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tollmesh_pricing::Book;

use super::files::{Files, stamps};
use super::{Look, Prices, PricesError, Tables, read_book};
use crate::folders::Folders;

/// How often files are looked at although nothing was notified: network file systems and some
/// volumes notify nobody.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// How long files stand still before they are read: a mounted ConfigMap changes in several steps,
/// and some editors write in place.
const SETTLE: Duration = Duration::from_millis(200);
/// The same where prices or terms are gone: half a file may say less than the whole.
const SETTLE_LESS: Duration = Duration::from_secs(3);
/// Files that never stand still are read after this time all the same.
const SETTLE_MAX: Duration = Duration::from_secs(10);
/// Places that are named where more are gone from the files.
const GONE_NAMED_MAX: usize = 20;
/// Files, and what they say.
type Read = (Files, Result<Book, PricesError>);

impl Prices {
    /// Looks at the files when they stand still; takes them if they are new and good. Blocks, for
    /// as long as files do.
    pub fn look(&self) -> Look {
        self.look_after(|still| self.wait(still))
    }

    /// The same; `wait` has the files stand still for that long.
    fn look_after(&self, wait: impl Fn(Duration)) -> Look {
        wait(SETTLE);
        let mut looked = match self.read() {
            Some(looked) => looked,
            None => return Look::Same,
        };
        let good = self.state().good.clone().unwrap_or_default();
        if let Ok((files, Ok(_))) = &looked
            && good.may_be_cut(files)
        {
            wait(SETTLE_LESS);
            looked = match self.read() {
                Some(looked) => looked,
                None => return Look::Same,
            };
        }
        self.take(looked)
    }

    /// The files and what they say; `None` where they are those that were seen last. No lock is
    /// held meanwhile: files may let one wait, and who asks how prices are must not.
    fn read(&self) -> Option<Result<Read, PricesError>> {
        match Files::read(&self.paths, self.overrides.as_deref()) {
            Err(error) => Some(Err(error)),
            Ok(files) if self.state().seen.as_ref() == Some(&files) => None,
            Ok(files) => {
                let book = read_book(&files);
                Some(Ok((files, book)))
            }
        }
    }

    fn take(&self, looked: Result<Read, PricesError>) -> Look {
        let (files, read) = match looked {
            Ok(looked) => looked,
            Err(error) => {
                let mut state = self.state();
                state.seen = None;
                return state.refuse(error);
            }
        };
        if let (Ok(_), Some(kept)) = (&read, &self.kept) {
            kept.keep(&files);
        }
        let mut state = self.state();
        state.seen = Some(files.clone());
        match read {
            Ok(book) => {
                state.broken = None;
                let old = state.good.replace(files.clone()).unwrap_or_default();
                drop(state);
                self.tables.store(Arc::new(Tables::of(book)));
                self.loaded.notify_one();
                Look::Loaded {
                    gone: old.lacking(&files),
                }
            }
            Err(error) => state.refuse(error),
        }
    }

    /// Waits until no file has changed for that long.
    fn wait(&self, still: Duration) {
        let stamps = || stamps(&self.paths, self.overrides.as_deref());
        let begun = Instant::now();
        let (mut before, mut since) = (stamps(), begun);
        while since.elapsed() < still && begun.elapsed() < SETTLE_MAX {
            thread::sleep(SETTLE.min(still));
            let now = stamps();
            if now != before {
                (before, since) = (now, Instant::now());
            }
        }
    }

    /// Keeps looking, at once when the file system says that something changed. Never returns.
    pub async fn watch(self: Arc<Prices>) {
        let changed = Arc::clone(&self.changed);
        let paths = self.paths.iter().chain(&self.overrides);
        let folders = Folders::new("prices", paths.map(PathBuf::as_path), &changed);
        folders.watch();
        let folders = Arc::new(folders);
        loop {
            tokio::select! {
                () = changed.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let (prices, folders) = (Arc::clone(&self), Arc::clone(&folders));
            let look = tokio::task::spawn_blocking(move || {
                folders.watch();
                prices.look()
            });
            let look = look.await;
            match look {
                Ok(Look::Loaded { gone }) => tell_loaded(&gone, &self.tables().version),
                Ok(Look::Refused(error)) => tracing::error!(
                    error = error.line(),
                    "price tables refused; the old ones stay in force"
                ),
                Ok(Look::Same) | Err(_) => {}
            }
        }
    }
}

fn tell_loaded(gone: &[String], pricing_version: &str) {
    if let Some(named) = gone.get(..gone.len().min(GONE_NAMED_MAX))
        && !named.is_empty()
    {
        let n = gone.len();
        tracing::warn!(n, gone = ?named, "prices or terms are gone from the files: lifted");
    }
    tracing::info!(pricing_version, "price tables loaded");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Terms over the shipped tables, one `[[override]]` each.
    fn terms(ids: &[&str]) -> String {
        let entry = |id: &&str| format!("[[override]]\nid = {id:?}\ntimes = \"0.5\"\n");
        let entries: String = ids.iter().map(entry).collect();
        format!("schema = 1\n{entries}")
    }

    #[test]
    fn a_file_that_is_half_saved_is_read_again_before_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("overrides.toml");
        let write = |ids: &[&str]| std::fs::write(&file, terms(ids)).unwrap();
        write(&["a", "b"]);
        let prices = Prices::load(&[], Some(&file)).unwrap();
        let before = prices.tables().version.clone();

        write(&["a"]);
        let look = prices.look_after(|still| {
            if still == SETTLE_LESS {
                assert_eq!(prices.tables().version, before, "half of it is in force");
                write(&["a", "b", "c"]);
            }
        });
        assert_eq!(look, Look::Loaded { gone: Vec::new() });
        assert_ne!(prices.tables().version, before);

        let waited = std::cell::RefCell::new(Vec::new());
        write(&["c", "d"]);
        let gone = ["a", "b"].map(|id| format!("{}: override {id:?}", file.display()));
        let look = prices.look_after(|still| waited.borrow_mut().push(still));
        assert_eq!(
            look,
            Look::Loaded {
                gone: gone.to_vec()
            }
        );
        write(&["c", "d", "e"]);
        prices.look_after(|still| waited.borrow_mut().push(still));
        assert_eq!(*waited.borrow(), [SETTLE, SETTLE_LESS, SETTLE]);
    }
}
