//! The price tables in force: shipped, then configured, re-read when their files change.

mod files;
mod watch;

use std::fmt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tollmesh_pricing::{Book, Problem, ReadFile, SourceFile};
use tollmesh_wire::Timestamp;

use files::Files;

use crate::last_good::LastGood;

/// Files read at a time. The largest file bounds what more threads would gain.
const READERS_MAX: usize = 4;

/// Why price files could not be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PricesError {
    /// A configured path cannot be read.
    #[error("{path}: cannot be read: {why}")]
    Unreadable {
        /// The path.
        path: String,
        /// The operating system's words, and the remedy.
        why: String,
    },
    /// The files are no valid tables.
    #[error("{}", .0.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))]
    Invalid(Vec<Problem>),
}

/// Price tables with the digest that rows record.
pub struct Tables {
    /// The tables.
    pub book: Book,
    /// [`Book::version`], shared by all rows that it prices.
    pub version: Arc<str>,
}

/// The tables in force, and the files they came from.
pub struct Prices {
    paths: Vec<PathBuf>,
    overrides: Option<PathBuf>,
    tables: ArcSwap<Tables>,
    state: Mutex<State>,
    /// Where good files are kept for the next start, if that is wanted.
    kept: Option<LastGood>,
    /// Has files looked at.
    changed: Arc<Notify>,
    /// Tells one who waits that other tables are in force.
    loaded: Notify,
}

struct State {
    /// The files as last looked at, good or bad; `None` where they could not be read.
    seen: Option<Files>,
    /// The files in force; `None` where they were never good.
    good: Option<Files>,
    /// Why the newest files are not in force.
    broken: Option<PricesError>,
}

/// What a look at the files found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing new.
    Same,
    /// New tables are in force, without what is gone from their files.
    Loaded {
        /// Places in the files.
        gone: Vec<String>,
    },
    /// The new files are bad; the old tables stay.
    Refused(PricesError),
}

// === impl PricesError ===

impl PricesError {
    /// All of it on one line, as a log wants it.
    fn line(&self) -> String {
        self.to_string().replace('\n', "; ")
    }
}

// === impl Tables ===

impl Tables {
    fn of(book: Book) -> Tables {
        Tables {
            version: book.version().into(),
            book,
        }
    }
}

// === impl Prices ===

impl Prices {
    /// Loads the shipped tables and those paths (files, or folders of `*.toml`), and the
    /// operator's own terms over them.
    pub fn load(paths: &[PathBuf], overrides: Option<&Path>) -> Result<Prices, PricesError> {
        let files = Files::read(paths, overrides)?;
        let book = read_book(&files)?;
        Ok(Prices {
            paths: paths.to_vec(),
            overrides: overrides.map(Path::to_owned),
            tables: ArcSwap::from_pointee(Tables::of(book)),
            state: Mutex::new(State {
                seen: Some(files.clone()),
                good: Some(files),
                broken: None,
            }),
            kept: None,
            changed: Arc::default(),
            loaded: Notify::new(),
        })
    }

    /// The same for a process that meters: where files are bad, those that were good last are in
    /// force, or else the shipped tables alone. Calls would go unmetered until somebody repairs
    /// them, and what was priced by other tables can be priced anew.
    pub fn start(paths: &[PathBuf], overrides: Option<&Path>, kept: LastGood) -> Prices {
        let mut prices = match Prices::load(paths, overrides) {
            Ok(prices) => prices,
            Err(error) => {
                let last = kept.read::<Files>();
                let (book, good, whose) = match last.map(|files| (read_book(&files), files)) {
                    Some((Ok(book), files)) => {
                        let whose = "those that were good last are in force";
                        (Ok(book), Some(files), whose)
                    }
                    _ => (
                        read_book(&Files::default()),
                        None,
                        "the shipped ones alone are in force, your own terms are not",
                    ),
                };
                let whose = match &book {
                    Ok(_) => whose,
                    Err(_) => "there are none: no call gets a price",
                };
                tracing::error!(error = error.line(), "price tables refused; {whose}");
                let state = State {
                    seen: None,
                    good,
                    broken: Some(error),
                };
                Prices {
                    paths: paths.to_vec(),
                    overrides: overrides.map(Path::to_owned),
                    tables: ArcSwap::from_pointee(Tables::of(book.unwrap_or_default())),
                    state: Mutex::new(state),
                    kept: None,
                    changed: Arc::default(),
                    loaded: Notify::new(),
                }
            }
        };
        prices.kept = Some(kept);
        prices
    }

    /// Keeps the files in force for the next start; [`Prices::start`] says where. Later ones are
    /// kept as they come.
    pub fn keep(&self) {
        let state = self.state();
        if let (Some(kept), Some(files), None) = (&self.kept, &state.seen, &state.broken) {
            kept.keep(files);
        }
    }

    /// The tables in force now.
    pub fn tables(&self) -> Arc<Tables> {
        self.tables.load_full()
    }

    /// Why the newest files are not in force; `None` where they are.
    pub fn broken(&self) -> Option<PricesError> {
        self.state().broken.clone()
    }

    /// How many configured files were read; shipped tables not counted.
    pub fn n_files(&self) -> usize {
        self.state().seen.as_ref().map_or(0, Files::len)
    }

    /// What the configured files make of rows that ended before `now`, where they do not say why.
    pub fn past_edits(&self, now: Timestamp) -> Vec<Problem> {
        let state = self.state();
        let tables = state.seen.iter().flat_map(|files| &files.tables);
        let mut sources = Book::shipped().to_vec();
        sources.extend(tables.map(source));
        Book::past_edits(&sources, now.as_unix_ms())
    }

    /// How long ago the newest price in force was checked; `None` where no row says.
    pub fn age(&self, now: Timestamp) -> Option<Duration> {
        let checked = self.tables().book.checked()?;
        let midnight = Timestamp::parse(&format!("{checked}T00:00:00Z"))?;
        let age_ms = now.as_unix_ms().saturating_sub(midnight.as_unix_ms());
        Some(Duration::from_millis(u64::try_from(age_ms).unwrap_or(0)))
    }

    /// Has whoever watches look at the files now.
    pub fn look_soon(&self) {
        self.changed.notify_one();
    }

    /// Waits until other tables are in force than when it was called last; for one who waits.
    pub async fn loaded(&self) {
        self.loaded.notified().await;
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Prices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prices")
            .field("paths", &self.paths)
            .finish_non_exhaustive()
    }
}

// === impl State ===

impl State {
    /// Notes why, and says so only the first time.
    fn refuse(&mut self, error: PricesError) -> Look {
        if self.broken.as_ref() == Some(&error) {
            return Look::Same;
        }
        self.broken = Some(error.clone());
        Look::Refused(error)
    }
}

/// Every mistake in those files, each on a line: one hides no other.
pub fn mistakes(paths: &[PathBuf], overrides: Option<&Path>) -> Vec<String> {
    let (files, errors) = Files::look(paths, overrides);
    let mut sources = Book::shipped().to_vec();
    sources.extend(files.tables.iter().map(source));
    let tables = load(&sources).err().unwrap_or_default();
    let own = files.overrides.as_ref().map(source);
    let own = own.and_then(|own| Book::default().with_overrides(&own).err());
    let problems = tables.into_iter().chain(own.unwrap_or_default());
    let errors = errors.iter().map(PricesError::to_string);
    errors
        .chain(problems.map(|problem| problem.to_string()))
        .collect()
}

/// The tables of that file or folder alone, without those that ship.
pub fn read_alone(path: &Path) -> Result<Book, PricesError> {
    let files = Files::read(&[path.to_owned()], None)?;
    let sources: Vec<SourceFile> = files.tables.iter().map(source).collect();
    Book::load(&sources).map_err(PricesError::Invalid)
}

fn source((name, text): &(String, String)) -> SourceFile {
    SourceFile {
        name: name.clone(),
        text: text.clone(),
    }
}

fn read_book(files: &Files) -> Result<Book, PricesError> {
    let mut sources = Book::shipped().to_vec();
    sources.extend(files.tables.iter().map(source));
    let book = load(&sources).map_err(PricesError::Invalid)?;
    match &files.overrides {
        Some(overrides) => book
            .with_overrides(&source(overrides))
            .map_err(PricesError::Invalid),
        None => Ok(book),
    }
}

/// Reads files side by side, since a start waits for them.
fn load(sources: &[SourceFile]) -> Result<Book, Vec<Problem>> {
    let n_threads = thread::available_parallelism().map_or(1, usize::from);
    let n_threads = n_threads.min(READERS_MAX).min(sources.len());
    if n_threads < 2 {
        return Book::load(sources);
    }
    let next = AtomicUsize::new(0);
    let read_some = || {
        let mut read = Vec::new();
        while let Some((n, source)) = next_of(sources, &next) {
            read.push((n, ReadFile::new(source)));
        }
        read
    };
    let mut read = thread::scope(|scope| {
        let others: Vec<_> = (1..n_threads).map(|_| scope.spawn(read_some)).collect();
        let mut read = read_some();
        for other in others {
            read.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        read
    });
    read.sort_unstable_by_key(|(n, _)| *n);
    let parts = read.into_iter().map(|(_, part)| part).collect();
    Book::put_together(sources, parts)
}

/// The next file that nobody reads yet, with its place.
fn next_of<'s>(sources: &'s [SourceFile], next: &AtomicUsize) -> Option<(usize, &'s SourceFile)> {
    let n = next.fetch_add(1, Ordering::Relaxed);
    sources.get(n).map(|source| (n, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_come_back_are_in_force_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("pricing");
        std::fs::create_dir(&folder).unwrap();
        let prices = Prices::load(std::slice::from_ref(&folder), None).unwrap();
        assert_eq!(prices.look(), Look::Same);

        std::fs::write(folder.join("own.toml"), "provider = 3").unwrap();
        assert!(matches!(
            prices.look(),
            Look::Refused(PricesError::Invalid(_))
        ));
        assert_eq!(prices.look(), Look::Same);
        assert!(prices.broken().is_some());

        std::fs::rename(&folder, dir.path().join("away")).unwrap();
        let refused = prices.look();
        let path = folder.display();
        assert_eq!(
            refused,
            Look::Refused(PricesError::Unreadable {
                path: path.to_string(),
                why: "No such file or directory (os error 2); correct the path or the file's \
                      permissions"
                    .to_owned(),
            })
        );
        std::fs::remove_file(dir.path().join("away/own.toml")).unwrap();
        std::fs::rename(dir.path().join("away"), &folder).unwrap();
        assert_eq!(prices.look(), Look::Loaded { gone: Vec::new() });
        assert_eq!(prices.broken(), None);
    }

    #[test]
    fn a_log_has_all_mistakes_on_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("own.toml");
        std::fs::write(&file, "provider = 3\nschema = \"x\"\n").unwrap();
        let error = Prices::load(std::slice::from_ref(&file), None).unwrap_err();
        assert!(error.to_string().lines().count() > 1, "{error}");
        assert!(!error.line().contains('\n'), "{}", error.line());
        assert_eq!(mistakes(&[file], None).join("; "), error.line());
    }
}
