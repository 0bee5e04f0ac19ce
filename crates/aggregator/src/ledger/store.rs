//! The open file: each step that is taken in it, in a transaction of its own or not at all.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::ledger::budgets::{self, Adopted, Charges, Identity, Known, Spend};
use crate::ledger::clock::{self, Believed};
use crate::ledger::counters::{self, Numbers};
use crate::ledger::dictionary::{Dictionaries, Dictionary};
use crate::ledger::entry::{Appended, Entry};
use crate::ledger::error::LedgerError;
use crate::ledger::mark::Marked;
use crate::ledger::outbox::{self, Note};
use crate::ledger::outcomes::{self, CallOutcome, Told};
use crate::ledger::prune::{self, Forgotten, Pruned, Pruning};
use crate::ledger::queue::Batch;
use crate::ledger::recording::{Measuring, Memory, Recording};
use crate::ledger::recovered::Charged;
use crate::ledger::reduce::Reduction;
use crate::ledger::regroup::{self, Due};
use crate::ledger::reprice::{self, Place, Repricing, Sinks, Step};
use crate::ledger::rollup::Key;
use crate::ledger::row_count::RowCount;
use crate::ledger::site::Site;
use crate::ledger::thin::{self, Sums};
use crate::ledger::totals::{Increments, Meter, NoMeter, Totals};
use crate::ledger::{counted, fold, pages, schema, sweep};

/// What fails where sums are deleted or regrouped.
const KEEPING_SMALL: &str = "sums cannot be kept small";

/// Pages that are copied at a time: 16 MiB.
const COPY_PAGES: i32 = 4_096;

/// The open file with what is known of its content. After any error it is to be dropped: what it
/// knows may be of a transaction that never was. Dropped, it leaves file and log as they are.
pub struct Store {
    path: PathBuf,
    connection: Connection,
    memory: Memory,
    /// What was opened; `None` where it was gone again before it could be looked at.
    site: Option<Site>,
    /// How the file is left after each write.
    marked: Marked,
}

impl Store {
    /// Opens the file, or makes it, and marks there how it leaves it.
    pub fn open(path: &Path, marked: &Marked) -> Result<Store, LedgerError> {
        // First: opening may write, and fail after that, which is not to be taken for another's doing.
        marked.forget();
        let connection = schema::open_writable(path)?;
        // A file that was overwritten meanwhile must not get pages of this one's log.
        connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
            .map_err(schema::failed(path, "cannot be set up for writing"))?;
        let known = RowCount::read(&connection)
            .and_then(|count| Ok((count, Forgotten::read(&connection)?)));
        let (count, forgotten) = known.map_err(schema::failed(path, "cannot be read"))?;
        let store = Store {
            site: Site::at(path).ok().flatten(),
            marked: marked.clone(),
            path: path.to_owned(),
            connection,
            memory: Memory {
                dictionaries: Dictionaries::default(),
                numbers: Numbers::default(),
                count,
                forgotten,
            },
        };
        store.mark();
        Ok(store)
    }

    /// What is open, by what the file system calls it.
    pub fn site(&self) -> Option<&Site> {
        self.site.as_ref()
    }

    /// Marks how the file is left, where it was written at all: most commits are in the log only.
    fn mark(&self) {
        if let Some(site) = &self.site {
            self.marked
                .note(site.file(), pages::writes(&self.connection));
        }
    }

    /// Copies all that is open, wherever its file is now, into a new file, durably; says what name of
    /// its own the copy has.
    pub fn copy(&self, to: &Path) -> rusqlite::Result<String> {
        let mut copy = match pages::has_guards(&self.connection) {
            true => pages::open(to, OpenFlags::default())?,
            false => Connection::open(to)?,
        };
        let backup = Backup::new(&self.connection, &mut copy)?;
        while backup.step(COPY_PAGES)? != StepResult::Done {}
        drop(backup);
        // One file, without a log beside it.
        copy.pragma_update(None, "journal_mode", "DELETE")?;
        let name = counted::name(&copy)?;
        copy.close().map_err(|(_, error)| error)?;
        Ok(name)
    }

    /// Takes one step in a transaction of its own.
    fn write<T>(
        &mut self,
        doing: &'static str,
        step: impl FnOnce(&Connection, &mut Memory) -> rusqlite::Result<T>,
    ) -> Result<T, LedgerError> {
        let write = |connection: &mut Connection, memory: &mut Memory| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = step(&transaction, memory)?;
            transaction.commit()?;
            Ok(done)
        };
        let done = write(&mut self.connection, &mut self.memory);
        self.mark();
        done.map_err(schema::failed(&self.path, doing))
    }

    /// One that deletes: free pages go back to the file system after it.
    fn delete<T>(
        &mut self,
        doing: &'static str,
        step: impl FnOnce(&Connection, &mut Memory) -> rusqlite::Result<T>,
    ) -> Result<T, LedgerError> {
        let done = self.write(doing, step)?;
        let shrunk = prune::shrink(&self.connection);
        self.mark();
        shrunk.map_err(schema::failed(&self.path, doing))?;
        Ok(done)
    }

    /// Request-level rows in the file.
    pub fn rows(&self) -> u64 {
        self.memory.count.rows.unsigned_abs()
    }

    /// Reads the counters; those that are known to be higher are raised.
    pub fn restore_totals(&mut self, known: &Totals) -> Result<Totals, LedgerError> {
        self.write("the counters cannot be restored", |connection, _| {
            counters::restore(connection, known)
        })
    }

    /// Records all batches durably, with one answer for each, and leaves in `measuring` what was
    /// counted and charged.
    pub fn transact(
        &mut self,
        batches: &[Batch],
        measuring: Measuring<'_>,
    ) -> Result<Vec<Appended>, LedgerError> {
        self.write("a transaction failed", |connection, memory| {
            let mut recording = Recording::begin(connection, memory, measuring)?;
            let appended = batches
                .iter()
                .map(|batch| recording.record_batch(batch))
                .collect::<rusqlite::Result<_>>()?;
            recording.finish()?;
            Ok(appended)
        })
    }

    /// Notes of which copies counters and accounts have the calls, and adds those that are known to
    /// `names`.
    pub fn note_counted(&mut self, names: &mut BTreeSet<String>) -> Result<(), LedgerError> {
        self.write("copies cannot be noted", |connection, _| {
            counted::note(connection, names)
        })
    }

    /// Whether counters and accounts have the calls of the copy with that name.
    pub fn has_counted(&self, name: &str) -> Result<bool, LedgerError> {
        counted::has(&self.connection, name).map_err(schema::failed(&self.path, "cannot be read"))
    }

    /// Records calls that are in counters and accounts already.
    pub fn take_in(&mut self, entries: Vec<Entry>) -> Result<Appended, LedgerError> {
        self.write("a copy cannot be taken in", |connection, memory| {
            let measuring = Measuring {
                meter: &mut NoMeter,
                increments: &mut Increments::default(),
                charger: &mut Charged,
                charges: &mut Charges::default(),
                pricer: None,
            };
            let mut recording = Recording::begin(connection, memory, measuring)?;
            let appended = recording.record_batch(&Batch {
                entries,
                quarantine: Vec::new(),
            })?;
            recording.finish()?;
            Ok(appended)
        })
    }

    /// Deletes some of the rows that are to go, the oldest first, and gives their pages back to the
    /// file system; says which. Sums and counters stay.
    pub fn prune(&mut self, pruning: Pruning) -> Result<Pruned, LedgerError> {
        self.delete("old rows cannot be deleted", |connection, memory| {
            let pruned = prune::delete_some(connection, pruning)?;
            outcomes::forget_some(connection, pruning.before, pruning.spares_pending)?;
            memory.count.rows -= pruned.rows.cast_signed();
            memory.count.write(connection)?;
            memory.forgotten = Forgotten::read(connection)?;
            Ok(pruned)
        })
    }

    /// Regroups some sums of those hours, those after that place; says where the next step begins,
    /// or `None` where all are done.
    pub fn regroup(
        &mut self,
        reduction: &Reduction,
        due: Due,
        after: Option<Key>,
    ) -> Result<Option<Key>, LedgerError> {
        self.delete(KEEPING_SMALL, |connection, memory| {
            regroup::regroup_some(connection, &mut memory.dictionaries, reduction, due, after)
        })
    }

    /// Notes that hours before that one need no regrouping.
    pub fn note_regrouped(&mut self, hour: i64) -> Result<(), LedgerError> {
        self.write(KEEPING_SMALL, |connection, _| {
            regroup::note(connection, hour)
        })
    }

    /// Begins to note what dictionaries hand out, so that a sweep spares it.
    pub fn begin_sweep(&mut self) {
        self.memory.dictionaries.begin_sweep();
    }

    /// Ends a sweep.
    pub fn end_sweep(&mut self) {
        self.memory.dictionaries.end_sweep();
    }

    /// Deletes entries of a dictionary that nothing refers to, nor has since the sweep began; says
    /// how many.
    pub fn sweep(&mut self, dictionary: Dictionary, ids: &[i64]) -> Result<u64, LedgerError> {
        self.delete(KEEPING_SMALL, |connection, memory| {
            sweep::delete(connection, &mut memory.dictionaries, dictionary, ids)
        })
    }

    /// Deletes some of the oldest of those sums; says how many.
    pub fn thin(&mut self, sums: Sums) -> Result<u64, LedgerError> {
        self.delete(KEEPING_SMALL, |connection, _| {
            thin::delete_some(connection, sums)
        })
    }

    /// Notes what is believed of the clock.
    pub fn note_clock(&mut self, believed: Believed) -> Result<(), LedgerError> {
        self.write("the clock cannot be noted", |connection, _| {
            clock::note(connection, believed)
        })
    }

    /// Notes what has become of rows on their way to another store.
    pub fn note(&mut self, note: &Note) -> Result<(), LedgerError> {
        let doing = "the progress of forwarding cannot be noted";
        self.write(doing, |connection, _| outbox::take(connection, note))
    }

    /// Prices some rows anew, those after that place, and leaves in `increments` what the meter
    /// added.
    pub fn reprice(
        &mut self,
        repricing: &Repricing,
        after: Option<Place>,
        meter: &mut dyn Meter,
        increments: &mut Increments,
    ) -> Result<Step, LedgerError> {
        self.write("rows cannot be priced anew", |connection, memory| {
            let mut sinks = Sinks {
                dictionaries: &mut memory.dictionaries,
                meter,
                increments,
            };
            let step = reprice::write(connection, repricing, after, &mut sinks)?;
            counters::add(connection, sinks.increments, &mut memory.numbers)?;
            Ok(step)
        })
    }

    /// Writes what became of calls, with one answer for each.
    pub fn tell(&mut self, outcomes: &[CallOutcome]) -> Result<Vec<Told>, LedgerError> {
        self.write("outcomes cannot be written", |connection, _| {
            outcomes
                .iter()
                .map(|outcome| outcomes::tell(connection, outcome))
                .collect()
        })
    }

    /// Writes outcomes of another ledger that this one does not know, or only earlier ones; says how
    /// many.
    pub fn retell(&mut self, outcomes: &[CallOutcome]) -> Result<u64, LedgerError> {
        self.write("outcomes cannot be written", |connection, _| {
            let mut n = 0;
            for outcome in outcomes {
                if outcomes::is_news(connection, outcome)? {
                    n += u64::from(outcomes::tell(connection, outcome)? != Told::Already);
                }
            }
            Ok(n)
        })
    }

    /// Folds some sums of the hours before that one into their days and months; says whether there
    /// may be more.
    pub fn fold(&mut self, before_hour: i64, groups_max: i64) -> Result<bool, LedgerError> {
        self.write("hours cannot be folded into days", |connection, _| {
            fold::fold_some(connection, before_hour, groups_max)
        })
    }

    /// Raises accounts to what is known, and says what stands in them then.
    pub fn restore_budgets(&mut self, known: &Known) -> Result<Vec<Spend>, LedgerError> {
        self.write_budgets(|connection| budgets::restore(connection, known))
    }

    /// Begins another life of the budgets' enforcement.
    pub fn begin_budgets(&mut self) -> Result<Identity, LedgerError> {
        self.write_budgets(budgets::begin)
    }

    /// The budgets that rows have been charged to without a gap.
    pub fn budget_ids(&mut self) -> Result<Vec<String>, LedgerError> {
        self.write_budgets(budgets::ids)
    }

    /// Has rows charged to exactly these budgets, and raises accounts to what was spent before;
    /// says what stands then in those whose windows end after that instant.
    pub fn adopt(
        &mut self,
        adopted: &[Adopted],
        before: &[Spend],
        counts_after_ms: i64,
    ) -> Result<Vec<Spend>, LedgerError> {
        self.write_budgets(|connection| {
            budgets::set_ids(connection, adopted)?;
            budgets::raise(connection, before)?;
            budgets::load(connection, counts_after_ms)
        })
    }

    /// Takes a step of the budgets' own.
    pub fn take_budget_step(&mut self, step: &budgets::Step) -> Result<(), LedgerError> {
        self.write_budgets(|connection| budgets::take(connection, step))
    }

    fn write_budgets<T>(
        &mut self,
        step: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, LedgerError> {
        self.write("budgets cannot be written", |connection, _| {
            step(connection)
        })
    }

    /// Finds out whether the file can be written, by a commit that changes nothing that matters.
    pub fn probe(&mut self) -> Result<(), LedgerError> {
        self.write("cannot be written", |connection, memory| {
            // A page has to change for the disk to be asked at all.
            connection.execute(
                "INSERT INTO meta VALUES ('probes', 1)
                 ON CONFLICT DO UPDATE SET value = value + 1",
                [],
            )?;
            memory.count.write(connection)
        })
    }

    /// Moves all that the write-ahead log holds into the file, and begins the log anew.
    ///
    /// For after a failure: the kernel forgets which pages of a file it could not write, and says
    /// so only once. Commits after pages of the log that never reached the disk would be lost with
    /// them in a crash, however well they were synced themselves.
    pub fn write_out(&self) -> Result<(), LedgerError> {
        let is_held = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
        let held = self
            .connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], is_held);
        self.mark();
        match held {
            Ok(0) => Ok(()),
            // A reader was at work for all of the busy time-out; the next try is soon.
            Ok(_) => Err(LedgerError::LogHeld {
                path: self.path.clone(),
            }),
            Err(error) => Err(schema::failed(&self.path, "cannot be written out")(error)),
        }
    }

    /// Looks for damage in the whole file: takes seconds for a million rows. On a connection of its
    /// own, since this one remembers pages as they were.
    pub fn examine(&self) -> Result<(), LedgerError> {
        let found: String = schema::open_read_only(&self.path)?
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(schema::failed(&self.path, "cannot be examined"))?;
        match found.as_str() {
            "ok" => Ok(()),
            _ => Err(LedgerError::Damaged {
                path: self.path.clone(),
                found,
            }),
        }
    }

    /// Folds the write-ahead log into the file. What cannot be folded now, for a reader's sake, is
    /// at the next opening.
    pub fn close(self) {
        if let Err(error) = self
            .connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        {
            tracing::warn!(%error, "the ledger's write-ahead log stays beside it");
        }
        // The log goes with the last connection, where it has nothing any more.
        let _ = self
            .connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false);
        self.marked.forget();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::ledger::site::beside;

    #[test]
    fn what_opening_left_behind_is_not_held_against_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db");
        let marked = Marked::default();
        drop(Store::open(&path, &marked).unwrap());
        for suffix in ["-wal", "-shm"] {
            let _ = fs::remove_file(beside(&path, suffix));
        }
        fs::write(&path, [b'x'; 5_000]).unwrap();
        assert!(marked.alteration().is_some());
        assert!(Store::open(&path, &marked).is_err());
        assert_eq!(marked.alteration(), None);
    }
}
