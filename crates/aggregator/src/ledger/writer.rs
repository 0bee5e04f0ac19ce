//! The writer thread, which commits what waits and answers it.

mod whereabouts;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::ledger::aside;
use crate::ledger::budgets::{self, Adopted, Charger, Charges};
use crate::ledger::entry::{Appended, Entry};
use crate::ledger::error::{AppendError, LedgerError};
use crate::ledger::fold::FOLD_GROUPS_MAX;
use crate::ledger::handle::{Failing, LEDGER_FILE, LedgerOptions};
use crate::ledger::lock::{self, Lock};
use crate::ledger::mark::Marked;
use crate::ledger::query::Reader;
use crate::ledger::queue::{self, After, Answer, Batch, Group, Message, Queue, Repriced};
use crate::ledger::recording::Measuring;
use crate::ledger::reprice::{Place, Pricer, Repricing};
use crate::ledger::rescue::{self, Rescue};
use crate::ledger::schema;
use crate::ledger::store::Store;
use crate::ledger::totals::{Committed, Increments, Meter, Totals};

/// How often an ailing ledger is tried while nobody appends, so that readiness comes back.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// What the writer lets others see.
#[derive(Default)]
pub struct Shared {
    /// The counters as of the last commit.
    pub totals: RwLock<Totals>,
    /// Set while commits fail.
    pub failing: RwLock<Option<Failing>>,
    /// Set when a reader found the file damaged; the writer looks for itself.
    pub suspected: Arc<AtomicBool>,
    rows: AtomicU64,
    set_aside: AtomicU64,
    moved: AtomicU64,
}

/// Opens the ledger and starts the thread.
pub fn start(options: LedgerOptions) -> Result<(Queue, Arc<Shared>, Reader), LedgerError> {
    let lock = lock::take(&options.dir)?;
    let shared = Arc::new(Shared::default());
    let path = options.dir.join(LEDGER_FILE);
    let reader = Reader::new(path.clone(), Arc::clone(&shared.suspected));
    rescue::forget_partial(&path);
    let mut writer = Writer {
        reader: reader.clone(),
        path,
        store: None,
        meter: options.meter,
        charger: options.charger,
        pricer: options.pricer,
        shared: Arc::clone(&shared),
        lock,
        rescue: Rescue::default(),
        marked: Marked::default(),
    };
    writer.store = Some(writer.first_store()?);
    let (queue, receiver, events) = queue::bounded(options.queue_events_max);
    thread::Builder::new()
        .name("ledger".into())
        .spawn(move || writer.run(&receiver, &events))
        .map_err(LedgerError::Thread)?;
    Ok((queue, shared, reader))
}

/// What runs on the thread.
pub struct Writer {
    path: PathBuf,
    reader: Reader,
    /// The open file, unless the last use of it failed.
    store: Option<Store>,
    meter: Box<dyn Meter>,
    charger: Box<dyn Charger>,
    pricer: Option<Pricer>,
    shared: Arc<Shared>,
    lock: Lock,
    rescue: Rescue,
    /// How the file was left, whether or not it is open.
    marked: Marked,
}

// === impl Shared ===

impl Shared {
    /// Request-level rows in the ledger.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Damaged files that were set aside since the process began.
    pub fn set_aside(&self) -> u64 {
        self.set_aside.load(Ordering::Relaxed)
    }

    /// How often the files were not where they were written, since the process began.
    pub fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }
}

/// The value under a lock. Values are replaced or added to in one step, so a panic elsewhere has
/// left a whole one behind.
fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

// === impl Writer ===

impl Writer {
    fn run(mut self, receiver: &Receiver<Message>, events: &AtomicUsize) {
        loop {
            if self.shared.suspected.swap(false, Ordering::AcqRel) {
                self.examine();
            }
            let first = match receiver.recv_timeout(PROBE_INTERVAL) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => {
                    self.probe();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return self.end(),
            };
            let group = Group::gather(first, receiver);
            self.commit(&group.batches, group.answers, events);
            match group.after {
                None => {}
                Some(After::Chore(chore)) => chore(&mut self),
                Some(After::Note(note, answer)) => {
                    // Whoever asked may have gone.
                    let _ = answer.send(self.step(|store| store.note(&note)));
                }
                Some(After::Reprice(repricing, place, answer)) => {
                    let _ = answer.send(self.reprice(&repricing, place));
                }
                Some(After::Tell(outcomes, answer)) => {
                    let _ = answer.send(self.step(|store| store.tell(&outcomes)));
                }
                Some(After::Fold(before_hour, answer)) => {
                    let _ =
                        answer.send(self.step(|store| store.fold(before_hour, FOLD_GROUPS_MAX)));
                }
                Some(After::Begin(answer)) => {
                    let _ = answer.send(self.step(Store::begin_budgets));
                }
                Some(After::Adopt(budgets, answer)) => {
                    let _ = answer.send(self.adopt(&budgets));
                }
                Some(After::Budgets(step, answer)) => {
                    let _ = answer.send(self.step(|store| store.take_budget_step(&step)));
                }
                Some(After::Close(done)) => {
                    self.end();
                    // The lock goes before the answer.
                    drop(self);
                    let _ = done.send(());
                    return;
                }
            }
        }
    }

    /// Commits a group and answers each of its batches.
    fn commit(
        &mut self,
        batches: &[Batch],
        answers: Vec<oneshot::Sender<Answer>>,
        events: &AtomicUsize,
    ) {
        let n: usize = batches.iter().map(Batch::len).sum();
        if batches.is_empty() {
            return;
        }
        let outcome = self.try_commit(batches);
        events.fetch_sub(n, Ordering::AcqRel);
        match outcome {
            // An answer that nobody waits for any more is no matter: the commit stands.
            Ok(appended) => answers
                .into_iter()
                .zip(appended)
                .for_each(|(to, appended)| {
                    let _ = to.send(Ok(appended));
                }),
            Err(error) => {
                let error = self.ail(error);
                for to in answers {
                    let _ = to.send(Err(AppendError::Storage(Arc::clone(&error))));
                }
            }
        }
    }

    fn try_commit(&mut self, batches: &[Batch]) -> Result<Vec<Appended>, LedgerError> {
        let started = Instant::now();
        let mut store = self.take_store()?;
        let mut increments = Increments::default();
        let mut charges = Charges::default();
        let rows_before = store.rows();
        let measuring = Measuring {
            meter: self.meter.as_mut(),
            increments: &mut increments,
            charger: self.charger.as_mut(),
            charges: &mut charges,
            pricer: self.pricer.as_ref(),
        };
        let appended = store.transact(batches, measuring)?;
        let rows = store.rows();
        self.store = Some(store);
        self.shared.rows.store(rows, Ordering::Relaxed);
        write(&self.shared.totals).merge(&increments);
        if !self.charger.is_absent() {
            self.charger.committed(charges);
        }
        self.recover();
        self.meter.committed(Committed {
            elapsed: started.elapsed(),
            n_rows: rows - rows_before,
        });
        Ok(appended)
    }

    /// One step of repricing.
    fn reprice(&mut self, repricing: &Repricing, after: Option<Place>) -> Repriced {
        let repriced = self.take_store().and_then(|mut store| {
            let mut increments = Increments::default();
            let meter = self.meter.as_mut();
            let step = store.reprice(repricing, after, meter, &mut increments)?;
            self.store = Some(store);
            write(&self.shared.totals).merge(&increments);
            Ok(step)
        });
        repriced.map_err(|error| AppendError::Storage(self.ail(error)))
    }

    /// Has events charged to these budgets. What was spent before in the windows of those that are
    /// new here is read from rows; nobody writes any meanwhile.
    fn adopt(&mut self, adopted: &[Adopted]) -> Result<(), AppendError> {
        let done = self.take_store().and_then(|mut store| {
            let known = store.budget_ids()?;
            let mut before = Vec::new();
            let new = adopted
                .iter()
                .filter(|b| !known.iter().any(|id| **id == *b.id));
            for (budget, past) in new.flat_map(|b| b.windows.iter().map(move |past| (b, past))) {
                let mut charge = |entry: &Entry| self.charger.past(&budget.id, entry);
                let spent = budgets::spent(&self.reader, budget, past, &mut charge);
                before.extend(spent.map_err(|source| LedgerError::Unread {
                    path: self.path.clone(),
                    source: Box::new(source),
                })?);
            }
            let counts_after_ms = self.charger.counts_after_ms();
            let spends = store.adopt(adopted, &before, counts_after_ms)?;
            self.store = Some(store);
            self.charger.opened(spends);
            self.charger.adopted();
            Ok(())
        });
        done.map_err(|error| AppendError::Storage(self.ail(error)))
    }

    /// One step that changes no counters.
    pub fn step<T>(
        &mut self,
        step: impl FnOnce(&mut Store) -> Result<T, LedgerError>,
    ) -> Result<T, AppendError> {
        let done = self.take_store().and_then(|mut store| {
            let done = step(&mut store)?;
            self.shared.rows.store(store.rows(), Ordering::Relaxed);
            self.store = Some(store);
            Ok(done)
        });
        done.map_err(|error| AppendError::Storage(self.ail(error)))
    }

    /// Records calls of the copy with that name, and counts and charges them unless that is done.
    pub fn take_in(&mut self, entries: Vec<Entry>, copy: Option<&str>) -> Answer {
        let has_counted = |store: &mut Store| match copy {
            Some(name) => store.has_counted(name),
            None => Ok(false),
        };
        if self.step(has_counted)? {
            return self.step(|store| store.take_in(entries));
        }
        let batch = Batch {
            entries,
            quarantine: Vec::new(),
        };
        let appended = self.try_commit(&[batch]);
        let mut appended = appended.map_err(|error| AppendError::Storage(self.ail(error)))?;
        // One batch has one answer.
        Ok(appended.pop().unwrap_or_default())
    }

    /// The open store. Whoever takes it puts it back only when all went well: after a failure it
    /// speaks of a transaction that never was, and the next use opens the file afresh.
    fn take_store(&mut self) -> Result<Store, LedgerError> {
        self.look()?;
        if let Some(store) = self.store.take() {
            return Ok(store);
        }
        self.rescue.settle(&self.path)?;
        let mut store = Store::open(&self.path, &self.marked)?;
        if self.ails() {
            store.write_out()?;
        }
        let mut totals = write(&self.shared.totals);
        *totals = store.restore_totals(&totals)?;
        if !self.charger.is_absent() {
            let spends = store.restore_budgets(&self.charger.known())?;
            self.charger.opened(spends);
        }
        // After them: what is counted and not noted is rather counted twice than never.
        store.note_counted(&mut self.rescue.counted)?;
        self.shared.rows.store(store.rows(), Ordering::Relaxed);
        self.reader.follow(store.site().cloned());
        Ok(store)
    }

    /// The store at the start. A damaged file must not keep the process from starting.
    fn first_store(&mut self) -> Result<Store, LedgerError> {
        match self.take_store() {
            Err(error) if schema::is_damage(&error) => {
                drop(self.ail(error));
                let store = self.take_store()?;
                self.recover();
                Ok(store)
            }
            other => other,
        }
    }

    /// Looks through a file that a reader found damaged; a sound one is gone on with.
    fn examine(&mut self) {
        let examined = self.take_store().and_then(|store| {
            store.examine()?;
            Ok(store)
        });
        match examined {
            Ok(store) => self.store = Some(store),
            Err(error) => drop(self.ail(error)),
        }
    }

    fn ails(&self) -> bool {
        write(&self.shared.failing).is_some()
    }

    /// Looks whether the ledger is still where it was, and tries an ailing one with a write that
    /// changes nothing else.
    fn probe(&mut self) {
        if let Err(error) = self.look() {
            drop(self.ail(error));
            return;
        }
        if !self.ails() {
            return;
        }
        let tried = self.take_store().and_then(|mut store| {
            store.probe()?;
            Ok(store)
        });
        match tried {
            Ok(store) => {
                self.store = Some(store);
                self.recover();
            }
            Err(error) => drop(self.ail(error)),
        }
    }

    /// Notes a failure. A damaged file is set aside, so that the next use begins a new one; its
    /// counters go on from what is known.
    fn ail(&mut self, error: LedgerError) -> Arc<LedgerError> {
        if self.store.is_none() {
            self.reader.follow(None);
        }
        if schema::is_damage(&error) {
            self.marked.forget();
            match aside::set_aside(&self.path) {
                Ok(path) => {
                    self.shared.set_aside.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(path = %path.display(), "a damaged ledger was set aside");
                    aside::keep_few(&self.path);
                }
                Err(error) => tracing::error!(%error, "a damaged ledger cannot be set aside"),
            }
        }
        let error = Arc::new(error);
        let mut failing = self
            .shared
            .failing
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let since = match failing.as_ref() {
            Some(earlier) => earlier.since,
            None => {
                tracing::error!(error = %chain(&error), "the ledger cannot be written");
                Instant::now()
            }
        };
        *failing = Some(Failing {
            since,
            error: Arc::clone(&error),
        });
        error
    }

    fn recover(&mut self) {
        if self.ails() {
            tracing::info!("the ledger can be written again");
            *write(&self.shared.failing) = None;
        }
    }

    fn end(&mut self) {
        if let Err(error) = self.look() {
            tracing::error!(error = %chain(&error), "the ledger is not where it was written");
        }
        if self.is_parted() {
            return;
        }
        if let Some(store) = self.store.take() {
            store.close();
        }
    }
}

/// An error with its causes, on one line.
fn chain(error: &LedgerError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
