//! All calls of a time, one after another as they began.

use rusqlite::params_from_iter;

use crate::ledger::error::QueryError;
use crate::ledger::outcomes;
use crate::ledger::query::filter::Span;
use crate::ledger::query::reader::Reader;
use crate::ledger::query::requests::RequestRow;
use crate::ledger::query::scope::{Dialect, Scope, Table};
use crate::ledger::row;
use crate::ledger::stored;

/// Calls that one transaction reads, so that the write-ahead log can be folded in between.
const STEP_ROWS: usize = 2_000;

impl Reader {
    /// Shows every call that began in the span, the earliest first, those of one instant in the
    /// order in which they came. What comes while it reads is left out. Answers how many it showed.
    pub fn each_call(
        &self,
        span: Span,
        show: &mut dyn FnMut(RequestRow),
    ) -> Result<u64, QueryError> {
        let last_row = self.last_row()?;
        let (mut after, mut n_shown) = (None, 0);
        loop {
            let step = self.step(span, last_row, after)?;
            let Some(last) = step.last() else {
                return Ok(n_shown);
            };
            after = Some((last.event.time.as_unix_ms(), last.row));
            n_shown += step.len() as u64;
            step.into_iter().for_each(&mut *show);
        }
    }

    fn step(
        &self,
        span: Span,
        last_row: i64,
        after: Option<(i64, i64)>,
    ) -> Result<Vec<RequestRow>, QueryError> {
        let mut scope = Scope::new(Dialect::Sqlite, Table::Events, span, &[]);
        scope.add_condition("t.id <= ?", [last_row.into()]);
        if let Some((time_ms, row)) = after {
            scope.add_condition("(t.time_ms, t.id) > (?, ?)", [time_ms.into(), row.into()]);
        }
        let sql = format!(
            "WITH step AS (SELECT t.id AS id {} ORDER BY t.time_ms, t.id LIMIT {STEP_ROWS})
             SELECT {}, {} AS outcome_label FROM step JOIN events e ON e.id = step.id {}
             ORDER BY e.time_ms, e.id",
            scope.sql(),
            row::select(),
            outcomes::label_of("e"),
            row::JOINS,
        );
        self.ask(|connection| {
            let mut statement = connection.prepare_cached(&sql)?;
            let found = statement.query_map(params_from_iter(scope.into_values()), |row| {
                let stored = stored::read(row)?;
                Ok(RequestRow {
                    row: stored.row,
                    event: stored.entry.event,
                    cost: stored.entry.cost,
                    provider_cost: stored.provider_cost,
                    original: stored.original,
                    outcome_label: row.get("outcome_label")?,
                })
            })?;
            Ok(found.collect::<rusqlite::Result<_>>()?)
        })
    }
}
