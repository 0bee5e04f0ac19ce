//! Copies of what a replaced ledger had recorded (`ledger.db.recovered-N`): taken into the ledger that
//! is gone on with, call by call, and deleted then.
//!
//! A call is known by its event's id, so that one which the ledger has, or which an interrupted taking
//! in has brought, changes nothing. Where the process that made the copy opened the other file as well,
//! counters and accounts of budgets went on from memory there, and have these calls already; where it
//! ended before, as of a copy that somebody else put there, the calls are counted and charged now
//! ([`counted`]).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::spawn_blocking;

use crate::ledger::aside::{self, Aside};
use crate::ledger::budgets::{Charger, Charges, Known, Spend};
use crate::ledger::error::{AppendError, LedgerError, QueryError};
use crate::ledger::handle::Ledger;
use crate::ledger::query::Reader;
use crate::ledger::totals::Occasion;
use crate::ledger::{Entry, counted, outcomes, rescue, schema};

/// Rows that one step takes: some milliseconds, between which events are committed.
const STEP_ROWS_MAX: usize = 200;

/// What was taken out of copies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TakenIn {
    /// Copies that were taken in whole, and are deleted.
    pub copies: u64,
    /// Calls that the ledger had not.
    pub calls: u64,
    /// Calls of a time whose rows are deleted here, or that are none.
    pub refused: u64,
    /// Outcomes that the ledger had not.
    pub outcomes: u64,
    /// Copies that cannot be read, and count among damaged ledgers now.
    pub damaged: u64,
    /// Copies that could not be taken in, or not be deleted, for another reason.
    pub waiting: u64,
}

/// Why a copy was not taken in. The next try does the rest.
#[derive(Debug, thiserror::Error)]
pub enum TakeInError {
    /// The ledger could not take it.
    #[error(transparent)]
    Write(#[from] AppendError),
    /// It could not be read.
    #[error(transparent)]
    Read(#[from] QueryError),
    /// It could not be opened, or the folder not be used.
    #[error("{}: cannot be taken into the ledger", path.display())]
    File {
        /// The copy, or the ledger.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The process is about to end.
    #[error("a copy was not read to its end")]
    Lost(#[from] tokio::task::JoinError),
}

/// Copies that wait beside that ledger, the oldest first.
pub fn all(ledger: &Path) -> std::io::Result<Vec<Aside>> {
    rescue::recovered(ledger)
}

impl Ledger {
    /// Takes in what copies of replaced ledgers hold and this one does not, the oldest copy first, and
    /// deletes each when it is done. Other batches are committed in between. A copy that is no sound
    /// ledger is set aside among damaged ones; one that fails otherwise waits, and holds up no other.
    pub async fn take_in(&self) -> Result<TakenIn, TakeInError> {
        let mut taken = TakenIn::default();
        let path = self.path().to_owned();
        let copies = spawn_blocking(move || all(&path)).await?;
        for copy in copies.map_err(unusable(self.path()))? {
            match self.take_in_and_delete(&copy, &mut taken).await {
                Ok(()) => {}
                // The ledger takes none of the others either, or the process is about to end.
                Err(error @ (TakeInError::Write(_) | TakeInError::Lost(_))) => return Err(error),
                Err(error) => {
                    let path = copy.path.display();
                    tracing::warn!(%path, %error, "a copy of a ledger is not taken in yet");
                    taken.waiting += 1;
                }
            }
        }
        Ok(taken)
    }

    async fn take_in_and_delete(
        &self,
        copy: &Aside,
        taken: &mut TakenIn,
    ) -> Result<(), TakeInError> {
        match self.take_in_copy(copy, taken).await {
            Ok(()) => {
                aside::delete(copy).map_err(unusable(&copy.path))?;
                taken.copies += 1;
            }
            Err(TakeInError::Read(error)) if is_damage(&error) => {
                let to = aside::rename(copy, self.path()).map_err(unusable(&copy.path))?;
                let (path, to) = (copy.path.display(), to.display());
                tracing::error!(%path, %to, %error, "a copy of a ledger cannot be read");
                aside::keep_few(self.path());
                taken.damaged += 1;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn take_in_copy(&self, copy: &Aside, taken: &mut TakenIn) -> Result<(), TakeInError> {
        let path = copy.path.clone();
        // A later release may have begun since the copy was made.
        spawn_blocking(move || schema::open_writable(&path).map(drop))
            .await?
            .map_err(QueryError::from)?;
        let reader = Reader::new(copy.path.clone(), Arc::default());
        let source = reader.clone();
        let named = move || source.ask(|copy| Ok(counted::name_of(copy)?));
        let name = spawn_blocking(named).await??;
        let mut row = 0;
        loop {
            let source = reader.clone();
            let calls = spawn_blocking(move || source.calls_after(row, STEP_ROWS_MAX)).await??;
            let Some(last) = calls.last() else { break };
            row = last.row;
            let entries = calls.into_iter().map(|call| Entry {
                event: call.event,
                cost: call.cost,
            });
            let entries: Vec<Entry> = entries.collect();
            let n = entries.len();
            let appended = self.take_in_calls(entries, name.clone()).await?;
            taken.calls += appended.accepted();
            taken.refused += n as u64 - appended.accepted() - appended.duplicate();
        }
        let mut place = Some(i64::MIN);
        while let Some(after) = place {
            let source = reader.clone();
            let told = move || source.ask(|c| Ok(outcomes::told_after(c, after, OUTCOMES_MAX)?));
            let (outcomes, last) = spawn_blocking(told).await??;
            taken.outcomes += self.chore(move |store| store.retell(&outcomes)).await?;
            place = last;
        }
        Ok(())
    }
}

/// Outcomes that one step takes.
const OUTCOMES_MAX: i64 = 1_000;

fn is_damage(error: &QueryError) -> bool {
    let is_none = |error: &LedgerError| {
        schema::is_damage(error) || matches!(error, LedgerError::Application { .. })
    };
    matches!(error, QueryError::Ledger(error) if is_none(error)) || error.is_of_damage()
}

fn unusable(path: &Path) -> impl Fn(std::io::Error) -> TakeInError {
    move |source| TakeInError::File {
        path: path.to_owned(),
        source,
    }
}

/// Charges nothing, and lets the budgets be that rows are charged to.
pub struct Charged;

impl Charger for Charged {
    fn charge(&mut self, _: &Entry, _: Occasion<'_>, _: &mut Charges) {}

    fn committed(&mut self, _: Charges) {}

    fn known(&mut self) -> Known {
        Known::default()
    }

    fn past(&mut self, _: &str, _: &Entry) -> i128 {
        0
    }

    fn counts_after_ms(&self) -> i64 {
        i64::MAX
    }

    fn opened(&mut self, _: Vec<Spend>) {}

    fn adopted(&mut self) {}
}
