//! The handle through which the rest of the program writes the ledger and asks how it is.

use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::Instant;

use tollmesh_wire::Timestamp;

use crate::ledger::budgets::{Adopted, Charger, Denial, Identity, NoCharger, Step};
use crate::ledger::clock::Believed;
use crate::ledger::dictionary::Dictionary;
use crate::ledger::entry::{Appended, Entry, Quarantined};
use crate::ledger::error::{AppendError, LedgerError, QueryError};
use crate::ledger::outbox::Note;
use crate::ledger::outcomes::{CallOutcome, Told};
use crate::ledger::prune::{Pruned, Pruning};
use crate::ledger::query::Reader;
use crate::ledger::queue::Queue;
use crate::ledger::reduce::Reduction;
use crate::ledger::regroup::{self, Due};
use crate::ledger::reprice::{Changes, Pricer, Repricing};
use crate::ledger::rollup::HOUR_MS;
use crate::ledger::store::Store;
use crate::ledger::sweep::SWEEP_IDS_MAX;
use crate::ledger::thin::Sums;
use crate::ledger::totals::{Meter, NoMeter, Totals};
use crate::ledger::writer::{self, Shared};

/// The ledger's file in its directory.
pub const LEDGER_FILE: &str = "ledger.db";

/// Events that may wait for the writer. At some 2 KiB each they stay well below the memory that
/// the aggregator may use; what does not fit is answered [`AppendError::Busy`] and comes again.
pub const QUEUE_EVENTS_MAX: usize = 8_192;

/// How a ledger is opened.
pub struct LedgerOptions {
    /// The directory of its files; made where it is missing.
    pub dir: PathBuf,
    /// What counts its events.
    pub meter: Box<dyn Meter>,
    /// What charges its events to budgets.
    pub charger: Box<dyn Charger>,
    /// What prices a call anew that late usage has completed; without it the late usage's own cost
    /// is taken.
    pub pricer: Option<Pricer>,
    /// Events that may wait for the writer.
    pub queue_events_max: usize,
    /// Whether another store is to have every row, so that retention spares those that it has not.
    pub forwards: bool,
}

/// A ledger open for writing. Clones are handles to the same one.
#[derive(Clone)]
pub struct Ledger {
    queue: Arc<Queue>,
    shared: Arc<Shared>,
    reader: Reader,
    forwards: bool,
}

/// What regrouping did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Regrouped {
    /// Days of which some sums became one.
    pub days: u64,
    last_day: Option<i64>,
}

/// How the ledger is.
#[derive(Clone, Debug)]
pub struct Health {
    /// Why commits fail, while they do; `None` when the last one succeeded.
    pub failing: Option<Failing>,
    /// Events that wait for the writer.
    pub queued_events: usize,
    /// Request-level rows in the ledger.
    pub rows: u64,
    /// Damaged files that were set aside since the process began, each replaced by an empty ledger
    /// whose counters go on.
    pub set_aside: u64,
    /// How often its files were moved, deleted or replaced while they were written, since the
    /// process began.
    pub moved: u64,
}

/// An ongoing failure.
#[derive(Clone, Debug)]
pub struct Failing {
    /// When the first of the failures in a row was.
    pub since: Instant,
    /// The last failure.
    pub error: Arc<LedgerError>,
}

impl LedgerOptions {
    /// A ledger in that directory that counts nothing.
    pub fn new(dir: impl Into<PathBuf>) -> LedgerOptions {
        LedgerOptions {
            dir: dir.into(),
            meter: Box::new(NoMeter),
            charger: Box::new(NoCharger),
            pricer: None,
            queue_events_max: QUEUE_EVENTS_MAX,
            forwards: false,
        }
    }

    /// The same with that meter.
    pub fn meter(mut self, meter: impl Meter) -> LedgerOptions {
        self.meter = Box::new(meter);
        self
    }

    /// The same with that charger.
    pub fn charger(mut self, charger: impl Charger) -> LedgerOptions {
        self.charger = Box::new(charger);
        self
    }

    /// The same with that pricer.
    pub fn pricer(mut self, pricer: Pricer) -> LedgerOptions {
        self.pricer = Some(pricer);
        self
    }

    /// The same, sparing rows from retention that are yet to be forwarded.
    pub fn forwards(mut self, forwards: bool) -> LedgerOptions {
        self.forwards = forwards;
        self
    }
}

impl Ledger {
    /// Opens or makes the ledger, takes its lock, and starts its writer thread.
    ///
    /// Blocks for some milliseconds. What a meter must know of the past, it may read from
    /// [`Ledger::totals`] before the first append.
    pub fn open(options: LedgerOptions) -> Result<Ledger, LedgerError> {
        let forwards = options.forwards;
        let (queue, shared, reader) = writer::start(options)?;
        Ok(Ledger {
            forwards,
            queue: Arc::new(queue),
            reader,
            shared,
        })
    }

    /// Records entries and quarantined events, and returns after the commit that made them durable.
    ///
    /// All or none of a batch is committed; one bad entry is only itself refused. On an error
    /// nothing was recorded, or, if the answer of the disk was lost, everything may be: sending
    /// the batch again is always right.
    pub async fn append(
        &self,
        entries: Vec<Entry>,
        quarantine: Vec<Quarantined>,
    ) -> Result<Appended, AppendError> {
        let answer = self.queue.push(entries, quarantine)?;
        answer.await.map_err(|_| AppendError::Closed)?
    }

    /// Deletes the rows of all whole hours before that instant, and says how many they were. Sums
    /// and counters keep what they held; where the ledger is forwarded, rows that the other store is
    /// yet to have stay. Other batches are committed in between.
    ///
    /// An event of that time that comes afterwards is refused, unless its row is still here.
    pub async fn prune(&self, before: Timestamp) -> Result<u64, AppendError> {
        let pruning = Pruning {
            before,
            spares_pending: self.forwards,
        };
        Ok(self.prune_as(pruning).await?.rows)
    }

    /// Deletes the rows that are to go, and says which they were. Other batches are committed in
    /// between.
    pub async fn prune_as(&self, pruning: Pruning) -> Result<Pruned, AppendError> {
        let mut all = Pruned::default();
        loop {
            let step = self.chore(move |store| store.prune(pruning)).await?;
            if step.rows == 0 {
                return Ok(all);
            }
            all.rows += step.rows;
            all.not_forwarded += step.not_forwarded;
            all.not_exported += step.not_exported;
        }
    }

    /// Takes out of the sums of hours whose rows are all deleted what would make a sum of each call,
    /// and deletes what only they referred to; `named` are the tags that are worth most. What the
    /// sums add up to stays the same. Other batches are committed in between.
    pub async fn regroup(&self, named: &[String]) -> Result<Regrouped, AppendError> {
        let mut regrouped = Regrouped::default();
        while let Some((due, reduction)) = self.find(due_hours(named.to_vec())).await? {
            if reduction.is_nothing() {
                self.chore(move |store| store.note_regrouped(due.end))
                    .await?;
                continue;
            }
            regrouped.days += u64::from(regrouped.last_day != Some(due.day));
            regrouped.last_day = Some(due.day);
            let (reduction, mut after) = (Arc::new(reduction), None);
            loop {
                let reduction = Arc::clone(&reduction);
                after = self
                    .chore(move |store| store.regroup(&reduction, due, after))
                    .await?;
                if after.is_none() {
                    break;
                }
            }
        }
        Ok(regrouped)
    }

    /// Deletes what dictionaries hold and nothing refers to, and says how much. Other batches are
    /// committed in between.
    pub async fn sweep(&self) -> Result<u64, AppendError> {
        let mut n_swept = 0;
        for dictionary in Dictionary::ALL {
            let mut after = Some(i64::MIN);
            while let Some(place) = after {
                self.chore(|store| {
                    store.begin_sweep();
                    Ok(())
                })
                .await?;
                let found = self.find(move |reader| reader.unreferenced(dictionary, place));
                let found = found.await;
                for ids in found.iter().flat_map(|f| f.free.chunks(SWEEP_IDS_MAX)) {
                    let ids = ids.to_vec();
                    n_swept += self
                        .chore(move |store| store.sweep(dictionary, &ids))
                        .await?;
                }
                self.chore(|store| {
                    store.end_sweep();
                    Ok(())
                })
                .await?;
                after = found?.last;
            }
        }
        Ok(n_swept)
    }

    /// Deletes some of the oldest of those sums, of days whose calls are all deleted; says how many.
    pub async fn thin(&self, sums: Sums) -> Result<u64, AppendError> {
        self.chore(move |store| store.thin(sums)).await
    }

    /// Notes what is believed of the clock.
    pub async fn note_clock(&self, believed: Believed) -> Result<(), AppendError> {
        self.chore(move |store| store.note_clock(believed)).await
    }

    /// Whether another store is to have every row.
    pub fn forwards(&self) -> bool {
        self.forwards
    }

    pub(in crate::ledger) async fn chore<T: Send + 'static>(
        &self,
        step: impl FnOnce(&mut Store) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, AppendError> {
        let answer = self.queue.chore(step)?;
        answer.await.map_err(|_| AppendError::Closed)?
    }

    /// Records calls of the copy with that name; they are counted and charged unless that is done.
    pub(in crate::ledger) async fn take_in_calls(
        &self,
        entries: Vec<Entry>,
        copy: Option<String>,
    ) -> Result<Appended, AppendError> {
        let answer = self.queue.take_in(entries, copy)?;
        answer.await.map_err(|_| AppendError::Closed)?
    }

    /// Asks the file beside the writer.
    async fn find<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Reader) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, AppendError> {
        let reader = self.reader.clone();
        let unread = |source| {
            AppendError::Storage(Arc::new(LedgerError::Unread {
                path: self.path().to_owned(),
                source: Box::new(source),
            }))
        };
        match tokio::task::spawn_blocking(move || question(&reader)).await {
            Ok(found) => found.map_err(unread),
            Err(_) => Err(AppendError::Closed),
        }
    }

    /// Notes what has become of rows on their way to another store; returns after the commit.
    pub async fn note(&self, note: Note) -> Result<(), AppendError> {
        let answer = self.queue.note(note)?;
        answer.await.map_err(|_| AppendError::Closed)?
    }

    /// Folds the sums of all whole hours before that instant into days and months, which makes long
    /// questions quick. What comes late for an hour before it goes into its day and month, too.
    /// Other batches are committed in between.
    pub async fn fold(&self, before: Timestamp) -> Result<(), AppendError> {
        let before_hour = before.as_unix_ms().div_euclid(HOUR_MS);
        loop {
            let answer = self.queue.fold(before_hour)?;
            let has_more = answer.await.map_err(|_| AppendError::Closed)??;
            if !has_more {
                return Ok(());
            }
        }
    }

    /// Writes what became of calls, durably, all or none, with one answer for each. The last word
    /// on a subject holds; telling it again changes nothing.
    pub async fn tell(&self, outcomes: Vec<CallOutcome>) -> Result<Vec<Told>, AppendError> {
        let answer = self.queue.tell(outcomes)?;
        answer.await.map_err(|_| AppendError::Closed)?
    }

    /// Prices rows anew and says what changed. Other batches are committed in between.
    ///
    /// Counters keep what they held, and receive the cost of calls that have their first price now.
    /// Doing it again changes nothing. On an error the rows up to some instant are done. After each
    /// step `told` receives what has changed so far.
    pub async fn reprice(
        &self,
        repricing: &Repricing,
        told: &mut (dyn FnMut(&Changes) + Send),
    ) -> Result<Changes, AppendError> {
        let mut changes = Changes::default();
        let mut place = None;
        loop {
            let answer = self.queue.reprice(repricing.clone(), place)?;
            let step = answer.await.map_err(|_| AppendError::Closed)??;
            changes.merge(step.changes);
            told(&changes);
            match step.next {
                None => return Ok(changes),
                next => place = next,
            }
        }
    }

    /// Notes that another life of the budgets' enforcement begins, and says which it is.
    pub async fn begin(&self) -> Result<Identity, AppendError> {
        let answer = self.queue.begin()?;
        answer.await.map_err(|_| AppendError::Closed)?
    }

    /// Has events charged to these budgets from here on. What calls of the past spent in the windows
    /// of those that are new here is charged first, so that no call is left out or counted twice.
    /// After the commit the charger hears of the new accounts, and then [`Charger::adopted`].
    pub async fn adopt(&self, budgets: Vec<Adopted>) -> Result<(), AppendError> {
        let answer = self.queue.adopt(budgets)?;
        answer.await.map_err(|_| AppendError::Closed)?
    }

    /// Takes a step of the budgets' own; returns after the commit.
    pub async fn budgets(&self, step: Step) -> Result<(), AppendError> {
        let answer = self.queue.budgets(step)?;
        answer.await.map_err(|_| AppendError::Closed)?
    }

    /// What budgets did to the call with that id, or to the calls of that request; the latest first.
    /// Blocks.
    pub fn denials(&self, id: &str) -> Result<Vec<Denial>, QueryError> {
        self.reader.denials(id)
    }

    /// Questions to this ledger; they do not hold up the writer.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Shows all counters since the ledger began, as of the last commit. The writer waits while
    /// `look` runs, so it should be quick.
    pub fn totals<T>(&self, look: impl FnOnce(&Totals) -> T) -> T {
        look(&read(&self.shared.totals))
    }

    /// How the ledger is.
    pub fn health(&self) -> Health {
        Health {
            failing: read(&self.shared.failing).clone(),
            queued_events: self.queue.events(),
            rows: self.shared.rows(),
            set_aside: self.shared.set_aside(),
            moved: self.shared.moved(),
        }
    }

    /// The ledger's file.
    pub fn path(&self) -> &Path {
        self.reader.path()
    }

    /// Commits what waits, folds the write-ahead log into the file and gives up the lock. Appends
    /// by other handles are answered [`AppendError::Closed`] from now on.
    pub async fn close(self) {
        self.reader.close();
        if let Some(done) = self.queue.close() {
            // An error means that the writer is gone, which is what was wanted.
            let _ = done.await;
        }
    }
}

/// The next hours to regroup, and what their sums are to do without.
fn due_hours(
    named: Vec<String>,
) -> impl FnOnce(&Reader) -> Result<Option<(Due, Reduction)>, QueryError> + Send + 'static {
    move |reader| {
        reader.ask(|connection| {
            let Some(due) = regroup::due(connection)? else {
                return Ok(None);
            };
            let reduction = regroup::reduction(connection, due.day, &named)?;
            Ok(Some((due, reduction)))
        })
    }
}

/// The value under a lock; a panic elsewhere has left whole values behind, since each is replaced
/// or added to in one step.
fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
