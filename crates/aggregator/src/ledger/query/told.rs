//! What calls cost by what became of them.

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use crate::ledger::error::QueryError;
use crate::ledger::outcomes;
use crate::ledger::query::filter::{Column, Dimension, Filter, Span};
use crate::ledger::query::reader::Reader;
use crate::ledger::query::scope::{Dialect, Scope, Table, word};
use crate::ledger::query::spend::GROUPS_MAX;
use crate::ledger::wide::Wide;
use crate::money::PicoSum;

/// Which calls.
#[derive(Clone, Debug, Default)]
pub struct OutcomesQuery {
    /// One group for each combination of these.
    pub by: Vec<Dimension>,
    /// The time looked at.
    pub span: Span,
    /// Conditions, all of which must hold; relayed calls as in a spend query.
    pub filters: Vec<Filter>,
}

/// The calls of a group of which the same became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutcomeRow {
    /// The values of [`OutcomesQuery::by`], in its order.
    pub key: Vec<Option<String>>,
    /// The word for what became of them; `None` for calls of which nobody told.
    pub label: Option<String>,
    /// Subjects with that label: calls, requests and traces, each once.
    pub outcomes: u64,
    /// Their calls.
    pub requests: u64,
    /// The cost of those that are priced.
    pub cost: PicoSum,
    /// The cost of all calls of the group, whatever became of them.
    pub spend: PicoSum,
}

impl Reader {
    /// The cost of each label in each group; the groups in order of their spend, the highest first.
    pub fn outcomes(&self, query: &OutcomesQuery) -> Result<Vec<OutcomeRow>, QueryError> {
        let mut rows = self.ask(|connection| sums(connection, query))?;
        rows.sort_by(|a, b| a.key.cmp(&b.key));
        for group in rows.chunk_by_mut(|a, b| a.key == b.key) {
            let spend = group.iter().map(|row| row.cost.as_pico()).sum();
            for row in group {
                row.spend = PicoSum::from_pico(spend);
            }
        }
        rows.sort_by(|a, b| {
            let by_spend = b.spend.cmp(&a.spend).then_with(|| a.key.cmp(&b.key));
            let told_first = a.label.is_none().cmp(&b.label.is_none());
            by_spend
                .then(told_first)
                .then(b.cost.cmp(&a.cost))
                .then_with(|| a.label.cmp(&b.label))
        });
        Ok(rows)
    }
}

fn sums(connection: &Connection, query: &OutcomesQuery) -> Result<Vec<OutcomeRow>, QueryError> {
    let mut scope = Scope::new(Dialect::Sqlite, Table::Events, query.span, &query.filters);
    scope = scope.without_relayed(&query.filters);
    let label = Dimension::Column(Column::OutcomeLabel);
    let dimensions = query.by.iter().chain([&label]);
    let groups: Vec<String> = dimensions.map(|by| scope.expression(by)).collect();
    let numbers: Vec<String> = (1..=groups.len()).map(|i| i.to_string()).collect();
    let sql = format!(
        "SELECT {}, count(DISTINCT {}), count(*), sum128(t.cost_pico) {} GROUP BY {} LIMIT {}",
        groups.join(", "),
        outcomes::subject_of("t"),
        scope.sql(),
        numbers.join(", "),
        GROUPS_MAX + 1
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut found = statement.query(params_from_iter(scope.into_values()))?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        if rows.len() == GROUPS_MAX {
            return Err(QueryError::TooManyGroups { max: GROUPS_MAX });
        }
        let key = (0..).zip(&query.by).map(|(at, dimension)| {
            let value: Value = row.get(at)?;
            Ok(word(dimension, value))
        });
        let at = query.by.len();
        rows.push(OutcomeRow {
            key: key.collect::<rusqlite::Result<_>>()?,
            label: row.get(at)?,
            outcomes: row.get(at + 1).map(i64::unsigned_abs)?,
            requests: row.get(at + 2).map(i64::unsigned_abs)?,
            cost: PicoSum::from_pico(row.get::<_, Wide>(at + 3)?.0),
            spend: PicoSum::ZERO,
        });
    }
    Ok(rows)
}
