//! The budgets' file: read again when it changes; a bad one leaves the old budgets in force.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::Budgets;
use crate::alerts::Receivers;
use crate::config::budgets::{self, Limits};
use crate::config::{Problem, Problems, notified};
use crate::folders::Folders;
use crate::last_good::LastGood;
use crate::stamp::Stamp;

/// How often the file is looked at although nothing was notified: network file systems and some
/// volumes notify nobody.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// How long a file stands still before it is read: a mounted ConfigMap changes in several steps, and
/// some editors write in place.
const SETTLE: Duration = Duration::from_millis(200);
/// The same for one that lifts limits: half a file may say less than the whole.
const SETTLE_LESS: Duration = Duration::from_secs(3);
/// A file that never stands still is read after this time all the same.
const SETTLE_MAX: Duration = Duration::from_secs(10);
/// A read that takes longer is told: a network file system hangs.
const READ_TIME_MAX: Duration = Duration::from_secs(30);

/// The file, as it was last looked at.
pub struct File {
    path: PathBuf,
    seen: Mutex<Seen>,
    /// Set while a look at it does not end.
    is_stuck: AtomicBool,
    /// Who can be notified; unset, nobody looks.
    receivers: OnceLock<Receivers>,
    /// Where a good text is kept for the next start, if that is wanted.
    kept: Option<LastGood>,
}

#[derive(Default)]
struct Seen {
    /// Its text, good or bad; `None` where it could not be read.
    text: Option<String>,
    /// Why it is not in force.
    broken: Option<String>,
    /// What is in force.
    good: Good,
}

/// A text that was good, and the names of its budgets and guards.
#[derive(Clone, Default)]
struct Good {
    text: String,
    names: BTreeSet<String>,
}

/// What a look at the file found.
enum Look {
    Same,
    New(Limits),
    Refused(String),
}

impl Good {
    fn of(text: String, limits: &Limits) -> Good {
        Good {
            names: limits.names().map(str::to_owned).collect(),
            text,
        }
    }

    /// The names that are no longer there.
    fn lacking(&self, limits: &Limits) -> Vec<&str> {
        let names: BTreeSet<&str> = limits.names().collect();
        let old = self.names.iter().map(String::as_str);
        old.filter(|name| !names.contains(name)).collect()
    }

    /// Refuses to lift every limit because of a text that says nothing: it is what a file looks like
    /// that is being saved, or was not for want of room.
    fn check(&self, file: &str, limits: &Limits) -> Result<(), String> {
        if limits.is_deliberate || self.names.is_empty() || limits.names().next().is_some() {
            return Ok(());
        }
        let n = self.names.len();
        Err(format!(
            "{file}: holds neither a budget nor a guard, and {n} are in force; \
             write `budget = []` to lift them all"
        ))
    }
}

impl File {
    /// Reads the file for the first time.
    pub fn read(path: PathBuf) -> Result<(File, Limits), Problems> {
        let refused = |what| Problems(vec![problem(&path, what)]);
        let text = budgets::read_text(&path).map_err(refused)?;
        let limits = budgets::parse_all(&path.display().to_string(), &text)?;
        let good = Good::of(text.clone(), &limits);
        Ok((File::of(path, Some(text), None, good), limits))
    }

    fn of(path: PathBuf, text: Option<String>, broken: Option<String>, good: Good) -> File {
        File {
            path,
            seen: Mutex::new(Seen { text, broken, good }),
            is_stuck: AtomicBool::new(false),
            receivers: OnceLock::new(),
            kept: None,
        }
    }

    /// The same for a start that must not fail: what was good last counts in a bad one's place.
    pub fn start(path: PathBuf, kept: LastGood) -> (File, Limits) {
        let name = path.display().to_string();
        let last = kept.read::<String>().and_then(|text| {
            let limits = budgets::parse_all(&name, &text).ok()?;
            Some((Good::of(text, &limits), limits))
        });
        let read = File::read(path.clone()).map_err(|problems| problems.to_string());
        let read = read.and_then(|(file, limits)| {
            match last.as_ref().map(|(good, _)| good.check(&name, &limits)) {
                Some(Err(why)) => Err(why),
                _ => Ok((file, limits)),
            }
        });
        let (mut file, limits) = read.unwrap_or_else(|why| {
            let whose = match &last {
                Some(_) => "those that were good last are put in force",
                None => "NO BUDGET IS IN FORCE",
            };
            tracing::error!(error = line(&why), "budgets refused; {whose}");
            let (good, limits) = last.unwrap_or_default();
            (File::of(path, None, Some(why), good), limits)
        });
        file.kept = Some(kept);
        (file, limits)
    }

    /// Keeps the text in force for the next start; [`File::start`] says where. Blocks.
    fn keep(&self) {
        let text = {
            let seen = self.seen();
            seen.text.clone().filter(|_| seen.broken.is_none())
        };
        if let (Some(kept), Some(text)) = (&self.kept, text) {
            kept.keep(&text);
        }
    }

    /// Why the newest file is not in force.
    pub fn broken(&self) -> Option<String> {
        match self.is_stuck.load(Ordering::Relaxed) {
            true => Some(format!(
                "{}: cannot be read: no answer for {} s; check the file system it is on",
                self.path.display(),
                READ_TIME_MAX.as_secs()
            )),
            false => self.seen().broken.clone(),
        }
    }

    /// Looks at the file when it stands still. Blocks, for as long as the file does.
    fn look(&self) -> Look {
        self.wait(SETTLE);
        let name = self.path.display().to_string();
        let mut read = budgets::read_text(&self.path);
        let (text, good) = {
            let seen = self.seen();
            (seen.text.clone(), seen.good.clone())
        };
        if read.is_ok() && read.as_ref().ok() == text.as_ref() {
            return Look::Same;
        }
        let mut parsed = self.parse(&name, &read, &good);
        if is_less(&read, &parsed, &good) {
            self.wait(SETTLE_LESS);
            read = budgets::read_text(&self.path);
            parsed = self.parse(&name, &read, &good);
        }
        let mut seen = self.seen();
        seen.text = read.ok();
        match parsed {
            Ok(limits) => {
                seen.broken = None;
                Look::New(limits)
            }
            Err(why) if seen.broken.as_ref() == Some(&why) => Look::Same,
            Err(why) => {
                seen.broken = Some(why.clone());
                Look::Refused(line(&why))
            }
        }
    }

    /// What that text says, where `tollmesh check` would find no mistake in it.
    fn parse(
        &self,
        name: &str,
        text: &Result<String, String>,
        good: &Good,
    ) -> Result<Limits, String> {
        let text = text.as_ref().map_err(|what| format!("{name}: {what}"))?;
        let limits = budgets::parse_all(name, text);
        let limits = limits.map_err(|problems| problems.to_string())?;
        good.check(name, &limits)?;
        let receivers = self.receivers.get();
        let unknown = receivers.map(|receivers| notified::unknown(name, &limits, receivers));
        match unknown.filter(|unknown| !unknown.is_empty()) {
            None => Ok(limits),
            Some(unknown) => Err(unknown.join("\n")),
        }
    }

    /// Waits until the file has not changed for that long.
    fn wait(&self, still: Duration) {
        let begun = Instant::now();
        let mut before = Stamp::of(&self.path);
        let mut since = begun;
        while since.elapsed() < still && begun.elapsed() < SETTLE_MAX {
            thread::sleep(SETTLE.min(still));
            let now = Stamp::of(&self.path);
            if now != before {
                (before, since) = (now, Instant::now());
            }
        }
    }

    /// Notes that its text is in force, and says which budgets and guards are not any more.
    fn take(&self, limits: &Limits) -> Vec<String> {
        let mut seen = self.seen();
        let lifted = seen.good.lacking(limits);
        let lifted = lifted.into_iter().map(str::to_owned).collect();
        let text = seen.text.clone().unwrap_or_default();
        seen.good = Good::of(text, limits);
        lifted
    }

    /// Has the file looked at again, though it is as it was: it could not be put in force.
    fn forget(&self) {
        self.seen().text = None;
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a good text may be only a part of what is being written: names are missing, or it is how
/// the text in force begins.
fn is_less(text: &Result<String, String>, parsed: &Result<Limits, String>, good: &Good) -> bool {
    let (Ok(text), Ok(limits)) = (text, parsed) else {
        return false;
    };
    let is_cut = text.len() < good.text.len() && good.text.starts_with(text);
    is_cut || !good.lacking(limits).is_empty()
}

/// All mistakes on one line, as a log wants them.
fn line(mistakes: &str) -> String {
    mistakes.replace('\n', "; ")
}

fn problem(path: &Path, what: String) -> Problem {
    Problem {
        file: path.display().to_string(),
        key: String::new(),
        what,
    }
}

impl Budgets {
    /// Has the file held against these receivers whenever it changes. That one of today names others
    /// is told: calls must be counted all the same, so it holds. To be called once, before
    /// [`Budgets::watch`].
    pub fn notifies(&self, receivers: Receivers) {
        let Some(file) = &self.0.file else { return };
        // Set once: nobody else begins.
        let _ = file.receivers.set(receivers);
        let text = file.seen().text.clone().unwrap_or_default();
        let name = file.path.display().to_string();
        if let Err(error) = file.parse(&name, &Ok(text), &Good::default()) {
            let error = line(&error);
            tracing::error!(error, "budgets hold, and not everybody is notified");
        }
    }

    /// Keeps looking at the file, at once when the file system says that something changed. Never
    /// returns where there is a file.
    pub async fn watch(self) {
        let Some(file) = &self.0.file else { return };
        let changed = Arc::clone(&self.0.changed);
        let path = file.path.clone();
        let folders = Arc::new(Folders::new("budgets", [path.as_path()], &changed));
        let watched = Arc::clone(&folders);
        self.apart(move |file| {
            watched.watch();
            file.keep();
        })
        .await;
        let mut is_renaming = false;
        loop {
            let is_loaded = tokio::select! {
                () = changed.notified() => false,
                () = self.0.prices.loaded() => true,
                () = tokio::time::sleep(LOOK_EVERY) => false,
            };
            is_renaming |= is_loaded;
            self.rename_if(&mut is_renaming).await;
            if is_loaded {
                continue;
            }
            let watched = Arc::clone(&folders);
            let look = self.apart(move |file| {
                watched.watch();
                file.look()
            });
            match look.await {
                None | Some(Look::Same) => {}
                Some(Look::Refused(error)) => {
                    tracing::error!(error, "budgets refused; the old ones stay in force");
                }
                Some(Look::New(limits)) => self.put_in_force(file, limits).await,
            }
        }
    }

    /// Holds limits by the new tables' names where that is to be done; where it fails, it is still to be.
    async fn rename_if(&self, is_renaming: &mut bool) {
        if !*is_renaming {
            return;
        }
        match self.rename().await {
            Ok(()) => *is_renaming = false,
            Err(error) => {
                tracing::error!(%error, "budgets do not know the new tables' names yet");
            }
        }
    }

    async fn put_in_force(&self, file: &File, limits: Limits) {
        let (n_budgets, n_guards) = (limits.policies.len(), limits.guards.len());
        let adopted = limits.clone();
        let tables = self.0.prices.tables();
        self.0.guards.adopt(limits.guards, &tables.book);
        match self.adopt(limits.policies).await {
            Ok(()) => {
                let lifted = file.take(&adopted);
                if !lifted.is_empty() {
                    tracing::warn!(?lifted, "budgets and guards are gone from the file: lifted");
                }
                self.apart(File::keep).await;
                tracing::info!(n_budgets, n_guards, "budgets loaded");
            }
            Err(error) => {
                file.forget();
                tracing::error!(%error, "budgets cannot be put in force yet");
            }
        }
    }

    /// What touches the file, on a thread of its own: a file system that hangs holds up whoever asks
    /// it. That it does is told by [`File::broken`].
    async fn apart<T: Send + 'static>(
        &self,
        what: impl FnOnce(&File) -> T + Send + 'static,
    ) -> Option<T> {
        let budgets = self.clone();
        let mut done = tokio::task::spawn_blocking(move || budgets.0.file.as_ref().map(what));
        let file = self.0.file.as_ref()?;
        let in_time = tokio::time::timeout(READ_TIME_MAX, &mut done).await;
        let done = match in_time {
            Ok(done) => done,
            Err(_) => {
                file.is_stuck.store(true, Ordering::Relaxed);
                tracing::error!(file = %file.path.display(), "the budgets' file does not answer");
                done.await
            }
        };
        file.is_stuck.store(false, Ordering::Relaxed);
        done.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::store::{MemoryStore, Store};
    use super::*;
    use crate::ledger::{Ledger, LedgerOptions};
    use crate::metrics::Metrics;
    use crate::prices::Prices;

    #[test]
    fn a_log_has_all_mistakes_on_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("budgets.toml");
        let budget = "[[budget]]\nname = \"b\"\nlimit = \"1 USD\"\nwindow = \"day\"\n";
        fs::write(&path, budget).unwrap();
        let (file, _) = File::read(path.clone()).unwrap();
        std::fs::write(
            &path,
            "[[budget]]\nname = \"b\"\nlimit = \"1\"\nwindow = 3\n",
        )
        .unwrap();
        let Look::Refused(told) = file.look() else {
            panic!("a bad file was taken");
        };
        let broken = file.broken().unwrap();
        assert!(broken.lines().count() > 1, "{broken}");
        assert_eq!(told, broken.lines().collect::<Vec<_>>().join("; "));
    }

    #[tokio::test]
    async fn new_names_are_tried_until_the_ledger_takes_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("budgets.toml");
        let text = "[[budget]]\nname = \"b\"\nlimit = \"9 requests\"\nwindow = \"day\"\n\
                    match.model = \"gpt-5\"";
        fs::write(&path, text).unwrap();
        let prices = Arc::new(Prices::load(&[], None).unwrap());
        let metrics = Arc::new(Metrics::new().unwrap());
        let (budgets, policies) = Budgets::load(Some(path), prices, metrics).unwrap();
        let state = dir.path().join("state");
        let options = LedgerOptions::new(&state).charger(budgets.bookkeeper());
        let ledger = Ledger::open(options).unwrap();
        let store = |node| -> Arc<dyn Store> { Arc::new(MemoryStore::new(node)) };
        budgets.begin(&ledger, policies, store).await.unwrap();

        fs::remove_dir_all(&state).unwrap();
        fs::write(&state, "in the way").unwrap();
        let mut is_renaming = true;
        budgets.rename_if(&mut is_renaming).await;
        assert!(is_renaming);
        fs::remove_file(&state).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while is_renaming {
            assert!(Instant::now() < deadline);
            budgets.rename_if(&mut is_renaming).await;
        }
        ledger.close().await;
    }
}
