//! The budgets' file: read again when it changes; a bad one leaves the old budgets in force.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use notify::Watcher;
use tokio::sync::Notify;

use super::Budgets;
use crate::alerts::Receivers;
use crate::config::budgets::{self, Limits};
use crate::config::{Problem, Problems, notified};
use crate::last_good::LastGood;

/// How often the file is looked at although nothing was notified: network file systems and some
/// volumes notify nobody.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// A mounted ConfigMap changes in several steps; they are taken as one.
const SETTLE: Duration = Duration::from_millis(200);

/// The file, as it was last looked at.
pub struct File {
    path: PathBuf,
    seen: Mutex<Seen>,
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
}

/// What a look at the file found.
enum Look {
    Same,
    New(Limits),
    Refused(String),
}

impl File {
    /// Reads the file for the first time.
    pub fn read(path: PathBuf) -> Result<(File, Limits), Problems> {
        let text = read(&path).map_err(|what| {
            Problems(vec![Problem {
                file: path.display().to_string(),
                key: String::new(),
                what,
            }])
        })?;
        let limits = budgets::parse_all(&path.display().to_string(), &text)?;
        let seen = Mutex::new(Seen {
            text: Some(text),
            broken: None,
        });
        let file = File {
            path,
            seen,
            receivers: OnceLock::new(),
            kept: None,
        };
        Ok((file, limits))
    }

    /// The same for a start that must not fail: what was good last counts in a bad one's place.
    pub fn start(path: PathBuf, kept: LastGood) -> (File, Limits) {
        let name = path.display().to_string();
        let (mut file, limits) = File::read(path.clone()).unwrap_or_else(|problems| {
            let good = kept.read::<String>();
            let good = good.and_then(|text| budgets::parse_all(&name, &text).ok());
            let whose = match &good {
                Some(_) => "those that were good last are put in force",
                None => "NO BUDGET IS IN FORCE",
            };
            let why = problems.to_string();
            tracing::error!(error = why, "budgets refused; {whose}");
            let seen = Mutex::new(Seen {
                text: None,
                broken: Some(why),
            });
            let file = File {
                path,
                seen,
                receivers: OnceLock::new(),
                kept: None,
            };
            (file, good.unwrap_or_default())
        });
        file.kept = Some(kept);
        (file, limits)
    }

    /// Keeps the text in force for the next start; [`File::start`] says where.
    fn keep(&self) {
        let seen = self.seen();
        if let (Some(kept), Some(text), None) = (&self.kept, &seen.text, &seen.broken) {
            kept.keep(text);
        }
    }

    /// Why the newest file is not in force.
    pub fn broken(&self) -> Option<String> {
        self.seen().broken.clone()
    }

    fn look(&self) -> Look {
        let mut seen = self.seen();
        let name = self.path.display().to_string();
        let parsed = match read(&self.path) {
            Ok(text) if seen.text.as_ref() == Some(&text) => return Look::Same,
            Ok(text) => {
                let parsed = self.parse(&name, &text);
                seen.text = Some(text);
                parsed
            }
            Err(what) => {
                seen.text = None;
                Err(format!("{name}: {what}"))
            }
        };
        match parsed {
            Ok(limits) => {
                seen.broken = None;
                Look::New(limits)
            }
            Err(why) if seen.broken.as_ref() == Some(&why) => Look::Same,
            Err(why) => {
                seen.broken = Some(why.clone());
                Look::Refused(why)
            }
        }
    }

    /// What that text says, where `tollmesh check` would find no mistake in it.
    fn parse(&self, name: &str, text: &str) -> Result<Limits, String> {
        let limits = budgets::parse_all(name, text);
        let limits = limits.map_err(|problems| problems.to_string())?;
        let receivers = self.receivers.get();
        let unknown = receivers.map(|receivers| notified::unknown(name, &limits, receivers));
        match unknown.filter(|unknown| !unknown.is_empty()) {
            None => Ok(limits),
            Some(unknown) => Err(unknown.join("\n")),
        }
    }

    /// Has the file looked at again, though it is as it was: it could not be put in force.
    fn forget(&self) {
        self.seen().text = None;
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches the folder: editors and ConfigMaps replace files, and a watch on the old one would
    /// then be deaf.
    fn watcher(&self, changed: &Arc<Notify>) -> Option<notify::RecommendedWatcher> {
        let changed = Arc::clone(changed);
        let told = |error: &notify::Error| {
            tracing::warn!(%error, "cannot watch the budgets' file; polling only");
        };
        let mut watcher = notify::recommended_watcher(move |_| changed.notify_one())
            .inspect_err(told)
            .ok()?;
        let folder = self.path.parent()?;
        watcher
            .watch(folder, notify::RecursiveMode::NonRecursive)
            .inspect_err(told)
            .ok()?;
        Some(watcher)
    }
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path)
        .map_err(|error| format!("cannot be read: {error}; check the path"))
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
        if let Err(error) = file.parse(&file.path.display().to_string(), &text) {
            tracing::error!(error, "budgets hold, and not everybody is notified");
        }
    }

    /// Keeps looking at the file, at once when the file system says that something changed. Never
    /// returns where there is a file.
    pub async fn watch(self) {
        let Some(file) = &self.0.file else { return };
        file.keep();
        let changed = Arc::new(Notify::new());
        let _watcher = file.watcher(&changed);
        loop {
            tokio::select! {
                () = changed.notified() => tokio::time::sleep(SETTLE).await,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            match file.look() {
                Look::Same => {}
                Look::Refused(error) => {
                    tracing::error!(error, "budgets refused; the old ones stay in force");
                }
                Look::New(limits) => {
                    let (n_budgets, n_guards) = (limits.policies.len(), limits.guards.len());
                    self.0.guards.adopt(limits.guards);
                    match self.adopt(limits.policies).await {
                        Ok(()) => {
                            file.keep();
                            tracing::info!(n_budgets, n_guards, "budgets loaded");
                        }
                        Err(error) => {
                            file.forget();
                            tracing::error!(%error, "budgets cannot be put in force yet");
                        }
                    }
                }
            }
        }
    }
}
