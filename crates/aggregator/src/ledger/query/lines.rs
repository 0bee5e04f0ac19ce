//! What hourly sums know of conditions that rows are to meet.

use rusqlite::types::Value;
use rusqlite::{Connection, params, params_from_iter};

use crate::ledger::query::filter::{Dimension, Filter, Span};
use crate::ledger::query::scope::{Scope, Table};
use crate::ledger::query::terms::{self, Terms};

/// Tag sets that are counted at most, to know whether to list them: half a millisecond of work.
const COUNTED_MAX: u32 = 10_000;

/// The most that a line of an hour sums up, where it has any that meets the conditions.
pub struct Lines {
    filters: Vec<Filter>,
    sums: String,
    /// The condition that the fewest tag sets meet, and how many these are.
    narrowest: Option<(usize, u32)>,
}

impl Lines {
    /// Of lines that meet those of the conditions that sums know; `sums` is what is asked of them.
    /// `None` where they know none.
    pub fn of(
        connection: &Connection,
        filters: &[Filter],
        sums: impl Into<String>,
    ) -> rusqlite::Result<Option<Lines>> {
        let is_known = |filter: &&Filter| match filter.dimension {
            Dimension::Tag(_) => true,
            Dimension::Column(column) => !column.is_of_rows_only(),
        };
        let filters: Vec<Filter> = filters.iter().filter(is_known).cloned().collect();
        if filters.is_empty() {
            return Ok(None);
        }
        Ok(Some(Lines {
            narrowest: narrowest(connection, &filters)?,
            sums: sums.into(),
            filters,
        }))
    }

    /// The most that a line of that hour has; `None` where the hour has no such line.
    pub fn most(&self, connection: &Connection, hour: i64) -> rusqlite::Result<Option<i64>> {
        // Tag sets that are listed are looked up in the hour one by one: right where its lines are
        // more.
        let listed = match self.narrowest {
            Some((at, n)) if has_more(connection, hour, n)? => Some(at),
            _ => None,
        };
        let terms = Terms::with_listed(&self.filters, listed);
        let mut scope = Scope::of_terms(Table::Hourly, Span::default(), &terms);
        scope.add_condition("t.hour = ?", [Value::Integer(hour)]);
        let sql = format!("SELECT max({}) {}", self.sums, scope.sql());
        let most: Value = connection
            .prepare_cached(&sql)?
            .query_row(params_from_iter(scope.into_values()), |row| row.get(0))?;
        Ok(match most {
            Value::Null => None,
            Value::Integer(most) => Some(most),
            // Digits that no integer holds.
            _ => Some(i64::MAX),
        })
    }
}

/// The condition that the fewest tag sets meet, with their number; `None` where even these are too
/// many to be listed for an hour.
fn narrowest(
    connection: &Connection,
    filters: &[Filter],
) -> rusqlite::Result<Option<(usize, u32)>> {
    let mut narrowest: Option<(usize, u32)> = None;
    for (at, filter) in filters.iter().enumerate() {
        let is_of_tag_sets = matches!(filter.dimension, Dimension::Tag(_));
        if !is_of_tag_sets || filter.value.is_empty() {
            continue;
        }
        let n_max = narrowest.map_or(COUNTED_MAX, |(_, n)| n);
        let n = terms::n_listed(connection, filter, n_max)?;
        if n < n_max {
            narrowest = Some((at, n));
        }
    }
    Ok(narrowest)
}

/// Whether an hour has more lines than that.
fn has_more(connection: &Connection, hour: i64, n: u32) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM hourly WHERE hour = ?1 LIMIT 1 OFFSET ?2")?
        .exists(params![hour, n])
}
