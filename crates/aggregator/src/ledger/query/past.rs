//! All calls of a time, one after another as they began.

use rusqlite::params_from_iter;

use crate::ledger::entry::Entry;
use crate::ledger::error::QueryError;
use crate::ledger::outcomes;
use crate::ledger::query::filter::{Dimension, Filter, Span};
use crate::ledger::query::reader::Reader;
use crate::ledger::query::requests::RequestRow;
use crate::ledger::query::scope::{Dialect, Scope, Table, word};
use crate::ledger::row;
use crate::ledger::stored;

/// Calls that one transaction reads, so that the write-ahead log can be folded in between.
const STEP_ROWS: usize = 2_000;

/// Calls of which budgets are charged something that sums of calls do not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsummed {
    /// Those without a price.
    Unpriced,
    /// Those of them that used tokens beside their own model's, or are billed for others than they
    /// used.
    UnpricedBeside,
    /// Those that used tokens beside their own model's.
    Extra,
}

impl Unsummed {
    /// As the partial indices of `events` have it.
    const fn condition(self) -> &'static str {
        match self {
            Unsummed::Unpriced => "t.cost_pico IS NULL",
            Unsummed::UnpricedBeside => {
                "t.cost_pico IS NULL AND (t.extra_usage IS NOT NULL OR t.billed_usage IS NOT NULL)"
            }
            Unsummed::Extra => "t.extra_usage IS NOT NULL",
        }
    }
}

impl Reader {
    /// Shows those calls of the span that meet the filters, each with its values of `by`. Relayed ones
    /// are left out, unless the filters speak of outcomes.
    pub fn each_unsummed(
        &self,
        which: Unsummed,
        span: Span,
        by: &[Dimension],
        filters: &[Filter],
        show: &mut dyn FnMut(&[Option<String>], &Entry),
    ) -> Result<(), QueryError> {
        let scope = Scope::new(Dialect::Sqlite, Table::Events, span, filters);
        let mut scope = scope.without_relayed(filters);
        scope.add_condition(which.condition(), []);
        let key: Vec<String> = by
            .iter()
            .enumerate()
            .map(|(n, dimension)| format!(", {} AS key{n}", scope.expression(dimension)))
            .collect();
        let columns: String = (0..by.len()).map(|n| format!(", found.key{n}")).collect();
        let sql = format!(
            "WITH found AS (SELECT t.id AS id{} {})
             SELECT {}{columns} FROM found JOIN events e ON e.id = found.id {}",
            key.concat(),
            scope.sql(),
            row::select(),
            row::JOINS,
        );
        self.ask(|connection| {
            let mut statement = connection.prepare_cached(&sql)?;
            let mut found = statement.query(params_from_iter(scope.into_values()))?;
            while let Some(row) = found.next()? {
                let stored = stored::read(row)?;
                let words = (row::n_selected()..).zip(by);
                let words = words.map(|(at, dimension)| Ok(word(dimension, row.get(at)?)));
                let words: Vec<Option<String>> = words.collect::<rusqlite::Result<_>>()?;
                show(&words, &stored.entry);
            }
            Ok(())
        })
    }

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
