//! One transaction: rows, roll-up, counters and quarantine of a group of batches, or none of them.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};
use tollmesh_wire::event::Kind;
use tollmesh_wire::{Event, Timestamp};

use crate::ledger::budgets::{self, Adopted, Charger, Charges, Identity, Known, Settled, Spend};
use crate::ledger::checked::Checked;
use crate::ledger::clock::{self, Believed};
use crate::ledger::dictionary::{Dictionaries, Dictionary};
use crate::ledger::entry::{Appended, Entry, Recorded, Refusal};
use crate::ledger::error::LedgerError;
use crate::ledger::late::{self, Found};
use crate::ledger::outbox::{self, Note};
use crate::ledger::outcomes::{self, CallOutcome, Told};
use crate::ledger::prune::{self, Pruned, Pruning};
use crate::ledger::queue::Batch;
use crate::ledger::reduce::Reduction;
use crate::ledger::regroup::{self, Due};
use crate::ledger::reprice::{self, Place, Repricing, Sinks, Step};
use crate::ledger::rollup::{Key, Rollup};
use crate::ledger::row;
use crate::ledger::stored::Stored;
use crate::ledger::thin::{self, Sums};
use crate::ledger::totals::{Increments, Meter, Occasion, Totals};
use crate::ledger::{counters, fold, quarantine, schema, sweep};

/// The open file with what is known of its content. After any error it is to be dropped: what it
/// knows may be of a transaction that never was.
pub struct Store {
    path: PathBuf,
    connection: Connection,
    dictionaries: Dictionaries,
    numbers: counters::Numbers,
    count: RowCount,
    /// Before when rows were deleted, in milliseconds since 1970.
    forgotten_before_ms: Option<i64>,
    insert_sql: String,
    update_sql: String,
}

/// How many rows there are, and the number of the last that ever was. Numbers are not used again
/// when rows are deleted, so that they can tell how far a reader has come.
#[derive(Clone, Copy)]
struct RowCount {
    rows: i64,
    last_row: i64,
}

/// One transaction at work.
struct Recording<'t> {
    connection: &'t Connection,
    insert: rusqlite::CachedStatement<'t>,
    update_sql: &'t str,
    dictionaries: &'t mut Dictionaries,
    numbers: &'t mut counters::Numbers,
    count: RowCount,
    forgotten_before_ms: Option<i64>,
    rollup: Rollup,
    increments: &'t mut Increments,
    meter: &'t mut dyn Meter,
    charges: &'t mut Charges,
    charger: &'t mut dyn Charger,
}

/// Who measures what a transaction brings, and what they make of it.
pub struct Measuring<'m> {
    /// The counters' meter.
    pub meter: &'m mut dyn Meter,
    /// What it added.
    pub increments: &'m mut Increments,
    /// The budgets' charger.
    pub charger: &'m mut dyn Charger,
    /// What it charged.
    pub charges: &'m mut Charges,
}

impl Store {
    /// Opens the file, or makes it.
    pub fn open(path: &Path) -> Result<Store, LedgerError> {
        let connection = schema::open_writable(path)?;
        let known = RowCount::read(&connection)
            .and_then(|count| Ok((count, prune::forgotten_before_ms(&connection)?)));
        let (count, forgotten_before_ms) = known.map_err(schema::failed(path, "cannot be read"))?;
        Ok(Store {
            path: path.to_owned(),
            connection,
            dictionaries: Dictionaries::default(),
            numbers: counters::Numbers::default(),
            count,
            forgotten_before_ms,
            insert_sql: row::insert_sql(),
            update_sql: row::update_sql(),
        })
    }

    /// Request-level rows in the file.
    pub fn rows(&self) -> u64 {
        self.count.rows.unsigned_abs()
    }

    /// Reads the counters; those that are known to be higher are raised.
    pub fn restore_totals(&mut self, known: &Totals) -> Result<Totals, LedgerError> {
        let restore = |connection: &mut Connection| {
            let transaction = begin(connection)?;
            let totals = counters::restore(&transaction, known)?;
            transaction.commit()?;
            Ok(totals)
        };
        restore(&mut self.connection).map_err(schema::failed(
            &self.path,
            "the counters cannot be restored",
        ))
    }

    /// Records all batches durably, with one answer for each, and leaves in `measuring` what was
    /// counted and charged.
    pub fn transact(
        &mut self,
        batches: &[Batch],
        measuring: Measuring<'_>,
    ) -> Result<Vec<Appended>, LedgerError> {
        self.try_transact(batches, measuring)
            .map_err(schema::failed(&self.path, "a transaction failed"))
    }

    fn try_transact(
        &mut self,
        batches: &[Batch],
        measuring: Measuring<'_>,
    ) -> rusqlite::Result<Vec<Appended>> {
        let transaction = begin(&mut self.connection)?;
        let mut recording = Recording {
            connection: &transaction,
            insert: transaction.prepare_cached(&self.insert_sql)?,
            update_sql: &self.update_sql,
            dictionaries: &mut self.dictionaries,
            numbers: &mut self.numbers,
            count: self.count,
            forgotten_before_ms: self.forgotten_before_ms,
            rollup: Rollup::default(),
            increments: measuring.increments,
            meter: measuring.meter,
            charges: measuring.charges,
            charger: measuring.charger,
        };
        let appended = batches
            .iter()
            .map(|batch| recording.record_batch(batch))
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let count = recording.finish()?;
        transaction.commit()?;
        self.count = count;
        Ok(appended)
    }

    /// Deletes some of the rows that are to go, the oldest first, and gives their pages back to the
    /// file system; says which. Sums and counters stay.
    pub fn prune(&mut self, pruning: Pruning) -> Result<Pruned, LedgerError> {
        let prune = |connection: &mut Connection, mut count: RowCount| {
            let transaction = begin(connection)?;
            let pruned = prune::delete_some(&transaction, pruning)?;
            outcomes::forget_some(&transaction, pruning.before, pruning.spares_pending)?;
            count.rows -= pruned.rows.cast_signed();
            count.write(&transaction)?;
            let forgotten_before_ms = prune::forgotten_before_ms(&transaction)?;
            transaction.commit()?;
            prune::shrink(connection)?;
            Ok((count, forgotten_before_ms, pruned))
        };
        let (count, forgotten_before_ms, pruned) = prune(&mut self.connection, self.count)
            .map_err(schema::failed(&self.path, "old rows cannot be deleted"))?;
        self.count = count;
        self.forgotten_before_ms = forgotten_before_ms;
        Ok(pruned)
    }

    /// Regroups some sums of those hours, those after that place; says where the next step begins,
    /// or `None` where all are done.
    pub fn regroup(
        &mut self,
        reduction: &Reduction,
        due: Due,
        after: Option<Key>,
    ) -> Result<Option<Key>, LedgerError> {
        self.keep_small(|connection, dictionaries| {
            regroup::regroup_some(connection, dictionaries, reduction, due, after)
        })
    }

    /// Notes that hours before that one need no regrouping.
    pub fn note_regrouped(&mut self, hour: i64) -> Result<(), LedgerError> {
        self.keep_small(|connection, _| regroup::note(connection, hour))
    }

    /// Begins to note what dictionaries hand out, so that a sweep spares it.
    pub fn begin_sweep(&mut self) {
        self.dictionaries.begin_sweep();
    }

    /// Ends a sweep.
    pub fn end_sweep(&mut self) {
        self.dictionaries.end_sweep();
    }

    /// Deletes entries of a dictionary that nothing refers to, nor has since the sweep began; says
    /// how many.
    pub fn sweep(&mut self, dictionary: Dictionary, ids: &[i64]) -> Result<u64, LedgerError> {
        self.keep_small(|connection, dictionaries| {
            sweep::delete(connection, dictionaries, dictionary, ids)
        })
    }

    /// Deletes some of the oldest of those sums; says how many.
    pub fn thin(&mut self, sums: Sums) -> Result<u64, LedgerError> {
        self.keep_small(|connection, _| thin::delete_some(connection, sums))
    }

    /// Notes what is believed of the clock.
    pub fn note_clock(&mut self, believed: Believed) -> Result<(), LedgerError> {
        self.keep_small(|connection, _| clock::note(connection, believed))
    }

    /// One step in a transaction, after which free pages go back to the file system.
    fn keep_small<T>(
        &mut self,
        step: impl FnOnce(&Connection, &mut Dictionaries) -> rusqlite::Result<T>,
    ) -> Result<T, LedgerError> {
        let take = |connection: &mut Connection, dictionaries: &mut Dictionaries| {
            let transaction = begin(connection)?;
            let taken = step(&transaction, dictionaries)?;
            transaction.commit()?;
            prune::shrink(connection)?;
            Ok(taken)
        };
        take(&mut self.connection, &mut self.dictionaries)
            .map_err(schema::failed(&self.path, "sums cannot be kept small"))
    }

    /// Notes what has become of rows on their way to another store.
    pub fn note(&mut self, note: &Note) -> Result<(), LedgerError> {
        let take = |connection: &mut Connection| {
            let transaction = begin(connection)?;
            outbox::take(&transaction, note)?;
            transaction.commit()
        };
        take(&mut self.connection).map_err(schema::failed(
            &self.path,
            "the progress of forwarding cannot be noted",
        ))
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
        let mut sinks = Sinks {
            dictionaries: &mut self.dictionaries,
            meter,
            increments,
        };
        let numbers = &mut self.numbers;
        let mut reprice = |connection: &mut Connection| {
            let transaction = begin(connection)?;
            let step = reprice::write(&transaction, repricing, after, &mut sinks)?;
            counters::add(&transaction, sinks.increments, numbers)?;
            transaction.commit()?;
            Ok(step)
        };
        reprice(&mut self.connection)
            .map_err(schema::failed(&self.path, "rows cannot be priced anew"))
    }

    /// Writes what became of calls, with one answer for each.
    pub fn tell(&mut self, outcomes: &[CallOutcome]) -> Result<Vec<Told>, LedgerError> {
        let tell = |connection: &mut Connection| {
            let transaction = begin(connection)?;
            let told = outcomes
                .iter()
                .map(|outcome| outcomes::tell(&transaction, outcome))
                .collect::<rusqlite::Result<Vec<_>>>()?;
            transaction.commit()?;
            Ok(told)
        };
        tell(&mut self.connection).map_err(schema::failed(&self.path, "outcomes cannot be written"))
    }

    /// Folds some sums of the hours before that one into their days and months; says whether there
    /// may be more.
    pub fn fold(&mut self, before_hour: i64, groups_max: i64) -> Result<bool, LedgerError> {
        let fold = |connection: &mut Connection| {
            let transaction = begin(connection)?;
            let has_more = fold::fold_some(&transaction, before_hour, groups_max)?;
            transaction.commit()?;
            Ok(has_more)
        };
        fold(&mut self.connection).map_err(schema::failed(
            &self.path,
            "hours cannot be folded into days",
        ))
    }

    /// Raises accounts to what is known, and says what stands in them then.
    pub fn restore_budgets(&mut self, known: &Known) -> Result<Vec<Spend>, LedgerError> {
        self.budgets(|connection| budgets::restore(connection, known))
    }

    /// Begins another life of the budgets' enforcement.
    pub fn begin_budgets(&mut self) -> Result<Identity, LedgerError> {
        self.budgets(budgets::begin)
    }

    /// The budgets that rows have been charged to without a gap.
    pub fn budget_ids(&mut self) -> Result<Vec<String>, LedgerError> {
        self.budgets(budgets::ids)
    }

    /// Has rows charged to exactly these budgets, and raises accounts to what was spent before;
    /// says what stands then in those whose windows end after that instant.
    pub fn adopt(
        &mut self,
        adopted: &[Adopted],
        before: &[Spend],
        counts_after_ms: i64,
    ) -> Result<Vec<Spend>, LedgerError> {
        self.budgets(|connection| {
            budgets::set_ids(connection, adopted)?;
            budgets::raise(connection, before)?;
            budgets::load(connection, counts_after_ms)
        })
    }

    /// Takes a step of the budgets' own.
    pub fn take_budget_step(&mut self, step: &budgets::Step) -> Result<(), LedgerError> {
        self.budgets(|connection| budgets::take(connection, step))
    }

    fn budgets<T>(
        &mut self,
        take: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, LedgerError> {
        let take = |connection: &mut Connection| {
            let transaction = begin(connection)?;
            let taken = take(&transaction)?;
            transaction.commit()?;
            Ok(taken)
        };
        take(&mut self.connection).map_err(schema::failed(&self.path, "budgets cannot be written"))
    }

    /// Finds out whether the file can be written, by a commit that changes nothing that matters.
    pub fn probe(&mut self) -> Result<(), LedgerError> {
        let write = |connection: &mut Connection, count: RowCount| {
            let transaction = begin(connection)?;
            // A page has to change for the disk to be asked at all.
            transaction.execute(
                "INSERT INTO meta VALUES ('probes', 1)
                 ON CONFLICT DO UPDATE SET value = value + 1",
                [],
            )?;
            count.write(&transaction)?;
            transaction.commit()
        };
        write(&mut self.connection, self.count)
            .map_err(schema::failed(&self.path, "cannot be written"))
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
    }
}

fn begin(connection: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}

// === impl RowCount ===

impl RowCount {
    fn read(connection: &Connection) -> rusqlite::Result<RowCount> {
        let value = |key: &str| -> rusqlite::Result<i64> {
            connection
                .query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| {
                    row.get(0)
                })
                .optional()
                .map(Option::unwrap_or_default)
        };
        let newest: Option<i64> =
            connection.query_row("SELECT max(id) FROM events", [], |row| row.get(0))?;
        Ok(RowCount {
            rows: value("rows")?,
            last_row: value("last_row")?.max(newest.unwrap_or(0)),
        })
    }

    fn write(self, connection: &Connection) -> rusqlite::Result<()> {
        let mut put = connection.prepare_cached(
            "INSERT INTO meta (key, value) VALUES (?1, ?2)
             ON CONFLICT DO UPDATE SET value = excluded.value",
        )?;
        put.execute(("rows", self.rows))?;
        put.execute(("last_row", self.last_row))?;
        Ok(())
    }
}

// === impl Recording ===

impl Recording<'_> {
    fn record_batch(&mut self, batch: &Batch) -> rusqlite::Result<Appended> {
        for bad in &batch.quarantine {
            quarantine::keep(self.connection, bad)?;
        }
        let recorded = batch
            .entries
            .iter()
            .map(|entry| self.record(entry))
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let refused = recorded.iter().any(|r| matches!(r, Recorded::Refused(_)));
        if refused || !batch.quarantine.is_empty() {
            quarantine::trim(self.connection)?;
        }
        Ok(Appended { recorded })
    }

    fn record(&mut self, entry: &Entry) -> rusqlite::Result<Recorded> {
        let checked = match Checked::new(entry) {
            Ok(checked) => checked,
            Err(why) => {
                quarantine::keep_refused(self.connection, entry, &why)?;
                return Ok(Recorded::Refused(why));
            }
        };
        match entry.event.kind {
            Kind::Call => self.add(&checked),
            Kind::LateUsage => match late::find(self.connection, &checked)? {
                Found::Row(waiting) => self.complete(&waiting, &checked),
                Found::Already => Ok(Recorded::Duplicate),
                Found::Nothing => Ok(Recorded::Unmatched),
            },
        }
    }

    fn add(&mut self, checked: &Checked<'_>) -> rusqlite::Result<Recorded> {
        if let Some(told) = self.forgotten(checked)? {
            self.settle(checked.event(), self.charges.charges.len());
            return Ok(told);
        }
        let ids = self.dictionaries.ids(self.connection, checked.entry)?;
        let row = self.count.last_row + 1;
        row::bind(&mut self.insert, row, checked, ids)?;
        if self.insert.raw_execute()? == 0 {
            // The answer to its first coming may be what was lost: its reservation is not left open.
            self.settle(checked.event(), self.charges.charges.len());
            return Ok(Recorded::Duplicate);
        }
        self.count.last_row = row;
        self.count.rows += 1;
        self.rollup.add(checked, ids, row);
        self.meter
            .measure(checked.entry, Occasion::New, self.increments);
        self.charge(checked.entry, Occasion::New);
        Ok(Recorded::Accepted)
    }

    /// What becomes of an event of before the time that rows are kept of. Whether it was counted,
    /// and its row deleted, nobody knows, so that it is not counted (again).
    fn forgotten(&self, checked: &Checked<'_>) -> rusqlite::Result<Option<Recorded>> {
        let event = checked.event();
        let Some(before) = self.forgotten_before_ms else {
            return Ok(None);
        };
        if event.time.as_unix_ms() >= before {
            return Ok(None);
        }
        let is_here = self
            .connection
            .prepare_cached("SELECT 1 FROM events WHERE event_id = ?1")?
            .exists([&event.event_id])?;
        Ok(Some(match is_here {
            true => Recorded::Duplicate,
            false => Recorded::Refused(Refusal::Forgotten {
                before: Timestamp::from_unix_ms(before),
            }),
        }))
    }

    fn charge(&mut self, entry: &Entry, occasion: Occasion<'_>) {
        let first = self.charges.charges.len();
        self.charger.charge(entry, occasion, self.charges);
        self.settle(&entry.event, first);
    }

    /// Notes what the event charged, from that charge on.
    fn settle(&mut self, event: &Event, first: usize) {
        let charges = first..self.charges.charges.len();
        // Also without a reservation's id: a filter that gave up waiting for it does not know it.
        if !self.charger.is_absent() {
            self.charges.settled.push(Settled {
                event_id: event.event_id.clone(),
                reservation_id: event.reservation_id.clone(),
                charges,
            });
        }
    }

    fn complete(&mut self, waiting: &Stored, late: &Checked<'_>) -> rusqlite::Result<Recorded> {
        let merged = late::merge(&waiting.entry, late.entry);
        let (Ok(before), Ok(after)) = (Checked::new(&waiting.entry), Checked::new(&merged)) else {
            // Both parts were checked when they came; a row that fails now was altered by hand.
            return Ok(Recorded::Unmatched);
        };
        let ids = self.dictionaries.ids(self.connection, &merged)?;
        let mut update = self.connection.prepare_cached(self.update_sql)?;
        row::bind(&mut update, waiting.row, &after, ids)?;
        update.raw_execute()?;
        late::note(self.connection, late.event(), waiting.row)?;
        self.rollup.remove(&before, waiting.ids);
        self.rollup.add(&after, ids, waiting.row);
        // Counters have the first cost, whatever the row was repriced to.
        let mut counted = waiting.entry.clone();
        counted.cost.total = waiting.first_cost();
        let occasion = Occasion::Completed(&counted);
        self.meter.measure(&merged, occasion, self.increments);
        self.charge(&merged, occasion);
        Ok(Recorded::Completed)
    }

    /// Writes what was gathered.
    fn finish(self) -> rusqlite::Result<RowCount> {
        self.rollup.write(self.connection)?;
        counters::add(self.connection, self.increments, self.numbers)?;
        self.charges.totals = budgets::add(self.connection, &self.charges.charges)?;
        budgets::keep_denials(self.connection, &self.charges.denials)?;
        if self.charger.is_absent() {
            budgets::set_ids(self.connection, &[])?;
        }
        self.count.write(self.connection)?;
        Ok(self.count)
    }
}
