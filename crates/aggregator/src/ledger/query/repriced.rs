//! What repricing would change, told without writing.

use crate::ledger::error::QueryError;
use crate::ledger::query::reader::Reader;
use crate::ledger::reprice::{self, Changes, Repricing};

impl Reader {
    /// The number of the last row; 0 where there is none.
    pub fn last_row(&self) -> Result<i64, QueryError> {
        self.ask(|connection| {
            let newest: Option<i64> =
                connection.query_row("SELECT max(id) FROM events", [], |row| row.get(0))?;
            Ok(newest.unwrap_or(0))
        })
    }

    /// What [`Ledger::reprice`](crate::ledger::Ledger::reprice) would change.
    pub fn reprice(
        &self,
        repricing: &Repricing,
        told: &mut dyn FnMut(&Changes),
    ) -> Result<Changes, QueryError> {
        let mut changes = Changes::default();
        let mut place = None;
        loop {
            let step = self.ask(|connection| Ok(reprice::look(connection, repricing, place)?))?;
            changes.merge(step.changes);
            told(&changes);
            match step.next {
                None => return Ok(changes),
                next => place = next,
            }
        }
    }
}
