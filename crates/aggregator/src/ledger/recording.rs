//! One transaction's record: rows, roll-up, counters, charges and quarantine of batches.

use std::sync::LazyLock;

use rusqlite::{CachedStatement, Connection};
use tollmesh_wire::event::Kind;
use tollmesh_wire::{Event, Timestamp};

use crate::clock;
use crate::ledger::budgets::{self, Charger, Charges, Settled};
use crate::ledger::checked::Checked;
use crate::ledger::dictionary::Dictionaries;
use crate::ledger::entry::{Appended, Entry, Recorded, Refusal};
use crate::ledger::late::{self, Found};
use crate::ledger::prune::Forgotten;
use crate::ledger::queue::Batch;
use crate::ledger::reprice::Pricer;
use crate::ledger::rollup::Rollup;
use crate::ledger::row_count::RowCount;
use crate::ledger::stored::Stored;
use crate::ledger::totals::{Increments, Meter, Occasion};
use crate::ledger::{counters, quarantine, row};

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
    /// What prices a call that late usage has completed.
    pub pricer: Option<&'m Pricer>,
}

/// What is known of the file's content from one transaction to the next. After one that failed it
/// is to be dropped: it speaks of what never was.
pub struct Memory {
    /// Numbers of tag sets, models and the like.
    pub dictionaries: Dictionaries,
    /// Numbers of series.
    pub numbers: counters::Numbers,
    /// How many rows there are.
    pub count: RowCount,
    /// Which rows were deleted.
    pub forgotten: Option<Forgotten>,
}

/// One transaction at work.
pub struct Recording<'t, 'm> {
    connection: &'t Connection,
    insert: CachedStatement<'t>,
    memory: &'t mut Memory,
    now: Timestamp,
    rollup: Rollup,
    measuring: Measuring<'m>,
}

/// A row's statements, made once.
static INSERT: LazyLock<String> = LazyLock::new(row::insert_sql);
static UPDATE: LazyLock<String> = LazyLock::new(row::update_sql);

impl<'t, 'm> Recording<'t, 'm> {
    /// Begins within an open transaction.
    pub fn begin(
        connection: &'t Connection,
        memory: &'t mut Memory,
        measuring: Measuring<'m>,
    ) -> rusqlite::Result<Recording<'t, 'm>> {
        Ok(Recording {
            connection,
            insert: connection.prepare_cached(&INSERT)?,
            memory,
            now: clock::now(),
            rollup: Rollup::default(),
            measuring,
        })
    }

    /// Records a batch; its sums are written at the [end](Recording::finish).
    pub fn record_batch(&mut self, batch: &Batch) -> rusqlite::Result<Appended> {
        for bad in &batch.quarantine {
            quarantine::keep(self.connection, bad)?;
            if let Some(event_id) = &bad.event_id {
                // The call is over, and no other event of it will come.
                self.settle_by(event_id, None, self.measuring.charges.charges.len());
            }
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
                if entry.event.kind == Kind::Call {
                    self.settle(&entry.event, self.measuring.charges.charges.len());
                }
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
            self.settle(checked.event(), self.measuring.charges.charges.len());
            return Ok(told);
        }
        let ids = self
            .memory
            .dictionaries
            .ids(self.connection, checked.entry)?;
        let row = self.memory.count.last_row + 1;
        row::bind(&mut self.insert, row, checked, ids)?;
        if self.insert.raw_execute()? == 0 {
            // The answer to its first coming may be what was lost: its reservation is not left open.
            self.settle(checked.event(), self.measuring.charges.charges.len());
            return Ok(Recorded::Duplicate);
        }
        self.memory.count.last_row = row;
        self.memory.count.rows += 1;
        self.rollup.add(checked, ids, row);
        self.measuring
            .meter
            .measure(checked.entry, Occasion::New, self.measuring.increments);
        self.charge(checked.entry, Occasion::New);
        Ok(Recorded::Accepted)
    }

    /// What becomes of an event whose row may have been deleted. Whether it was counted, nobody knows,
    /// so that it is not counted (again).
    fn forgotten(&self, checked: &Checked<'_>) -> rusqlite::Result<Option<Recorded>> {
        let event = checked.event();
        let Some(forgotten) = self.memory.forgotten else {
            return Ok(None);
        };
        if !forgotten.may_include(event, self.now) {
            return Ok(None);
        }
        let is_here = self
            .connection
            .prepare_cached("SELECT 1 FROM events WHERE event_id = ?1")?
            .exists([&event.event_id])?;
        Ok(Some(match is_here {
            true => Recorded::Duplicate,
            false => Recorded::Refused(Refusal::Forgotten {
                before: forgotten.before(self.now),
            }),
        }))
    }

    fn charge(&mut self, entry: &Entry, occasion: Occasion<'_>) {
        let first = self.measuring.charges.charges.len();
        self.measuring
            .charger
            .charge(entry, occasion, self.measuring.charges);
        self.settle(&entry.event, first);
    }

    /// Notes what the event charged, from that charge on.
    fn settle(&mut self, event: &Event, first: usize) {
        // Also without a reservation's id: a filter that gave up waiting for it does not know it.
        self.settle_by(&event.event_id, event.reservation_id.as_deref(), first);
    }

    fn settle_by(&mut self, event_id: &str, reservation_id: Option<&str>, first: usize) {
        let charges = first..self.measuring.charges.charges.len();
        if !self.measuring.charger.is_absent() {
            self.measuring.charges.settled.push(Settled {
                event_id: event_id.to_owned(),
                reservation_id: reservation_id.map(str::to_owned),
                charges,
            });
        }
    }

    fn complete(&mut self, waiting: &Stored, late: &Checked<'_>) -> rusqlite::Result<Recorded> {
        let mut merged = late::merge(&waiting.entry, late.entry);
        // What the answer does not repeat, as the model, the row may know; and when the call was.
        if let Some(pricer) = self.measuring.pricer {
            merged.cost = pricer(&merged.event);
        }
        let (Ok(before), Ok(after)) = (Checked::new(&waiting.entry), Checked::new(&merged)) else {
            // Both parts were checked when they came; a row that fails now was altered by hand.
            return Ok(Recorded::Unmatched);
        };
        let ids = self.memory.dictionaries.ids(self.connection, &merged)?;
        let mut update = self.connection.prepare_cached(&UPDATE)?;
        row::bind(&mut update, waiting.row, &after, ids)?;
        update.raw_execute()?;
        late::note(self.connection, late.event(), waiting.row)?;
        self.rollup.remove(&before, waiting.ids);
        self.rollup.add(&after, ids, waiting.row);
        // Counters have the first cost, whatever the row was repriced to.
        let mut counted = waiting.entry.clone();
        counted.cost.total = waiting.first_cost();
        let occasion = Occasion::Completed(&counted);
        self.measuring
            .meter
            .measure(&merged, occasion, self.measuring.increments);
        self.charge(&merged, occasion);
        Ok(Recorded::Completed)
    }

    /// Writes what was gathered.
    pub fn finish(self) -> rusqlite::Result<()> {
        let Measuring {
            increments,
            charger,
            charges,
            ..
        } = self.measuring;
        self.rollup.write(self.connection)?;
        counters::add(self.connection, increments, &mut self.memory.numbers)?;
        charges.totals = budgets::add(self.connection, &charges.charges)?;
        budgets::keep_denials(self.connection, &charges.denials)?;
        if charger.is_absent() {
            budgets::set_ids(self.connection, &[])?;
        }
        self.memory.count.write(self.connection)
    }
}
