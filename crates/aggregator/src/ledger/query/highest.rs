//! The highest rows of a span, found without looking at all of it.
//!
//! Every hour has a bound that none of its rows exceeds: its peak, or less where hourly sums know the
//! conditions. The hour with the highest bound is looked at first, and the search ends where no bound
//! is left that exceeds the last row found: the answer is then the one that all rows would give.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rusqlite::{Connection, params_from_iter};
use tollmesh_usage::Bucket;
use tollmesh_wire::Timestamp;

use crate::ledger::peaks::Rank;
use crate::ledger::query::filter::{Column, Dimension, Filter, Span};
use crate::ledger::query::hours::{self, Slices};
use crate::ledger::query::lines::Lines;
use crate::ledger::query::looked::{Looked, LookedAt, Patience};
use crate::ledger::query::requests::{RequestsQuery, Sort, sort_key};
use crate::ledger::query::scope::{Dialect, Scope, Table};
use crate::ledger::query::terms::Terms;
use crate::ledger::rollup::HOUR_MS;

/// An hour, by the highest rank that a row of it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Bound {
    most: Rank,
    hour: i64,
    /// Whether hourly sums were asked.
    is_lowered: bool,
}

/// The ranks of the rows after that one, so many of the highest, in their order.
pub fn ranks(
    connection: &Connection,
    query: &RequestsQuery,
    after: Option<Rank>,
    n_max: usize,
    patience: Patience,
) -> rusqlite::Result<Looked<Vec<Rank>>> {
    let mut found = Found {
        query,
        after,
        terms: Terms::of_parts(connection, &query.filters)?,
        ranks: BinaryHeap::new(),
        n_max,
    };
    if is_of_one_row(&query.filters) {
        found.look(connection, query.span)?;
        return Ok(Looked::wholly(found.in_order()));
    }
    let lines = Lines::of(connection, &query.filters, most_of(query.sort))?;
    let mut bounds = bounds(connection, query, after)?;
    let mut hours = Looking {
        patience,
        slices: None,
        n_looked: 0,
    };
    // Hours are to be looked at too, even if only by their peaks.
    let lowering = patience.half();
    let of_hours = bounds.len() as u64;
    while let Some(bound) = bounds.pop() {
        if !found.may_take(bound.most) {
            break;
        }
        let is_lowered = bound.is_lowered || lowering.is_over();
        if let Some(lines) = lines.as_ref().filter(|_| !is_lowered) {
            match lowered(connection, lines, bound, query.sort)? {
                Some(bound) => bounds.push(bound),
                None => hours.n_looked += 1,
            }
            continue;
        }
        if let Some(from) = hours.look(connection, bound.hour, &mut found)? {
            let at = LookedAt {
                hours: hours.n_looked,
                of_hours,
                from: (query.sort == Sort::Time).then_some(from),
            };
            return Ok(Looked {
                answer: found.in_order(),
                at: Some(at),
            });
        }
    }
    Ok(Looked::wholly(found.in_order()))
}

/// Whether rows are asked for by an id that has an index.
fn is_of_one_row(filters: &[Filter]) -> bool {
    let id = Dimension::Column(Column::EventId);
    filters
        .iter()
        .any(|filter| filter.dimension == id && !filter.value.is_empty())
}

/// Looks at hours for as long as there is patience.
struct Looking {
    patience: Patience,
    slices: Option<Slices>,
    /// Hours that are done with.
    n_looked: u64,
}

impl Looking {
    /// Looks at an hour; where patience was over before its end, says from when on it was looked at.
    fn look(
        &mut self,
        connection: &Connection,
        hour: i64,
        found: &mut Found<'_>,
    ) -> rusqlite::Result<Option<Timestamp>> {
        let mut left = Some(hours::within(found.query.span, hour));
        while let Some(span) = left {
            // One part is looked at in any case.
            if self.slices.is_some() && self.patience.is_over() {
                return Ok(Some(span.to.unwrap_or(hours::end_of(hour))));
            }
            let slice;
            (slice, left) = match self.patience {
                Patience::ENDLESS => (span, None),
                _ => match &mut self.slices {
                    Some(slices) => slices.cut(span),
                    none => none.insert(Slices::of(connection, span)?).cut(span),
                },
            };
            found.look(connection, slice)?;
        }
        self.n_looked += 1;
        Ok(None)
    }
}

/// The hours of the span, each with its peak.
fn bounds(
    connection: &Connection,
    query: &RequestsQuery,
    after: Option<Rank>,
) -> rusqlite::Result<BinaryHeap<Bound>> {
    let columns = match query.sort {
        // Every row of an hour began before the next.
        Sort::Time => format!("(hour + 1) * {HOUR_MS}, {}", i64::MAX),
        Sort::Cost => "cost_pico, cost_row".to_owned(),
        Sort::Duration => "duration_ms, duration_row".to_owned(),
        Sort::Tokens => "tokens, tokens_row".to_owned(),
    };
    let sql = format!("SELECT {columns}, hour FROM peaks WHERE hour BETWEEN ?1 AND ?2");
    let mut peaks = connection.prepare_cached(&sql)?;
    let bounds = peaks.query_map(hours::first_and_last(query.span), |row| {
        Ok(Bound {
            most: (row.get(0)?, row.get(1)?),
            hour: row.get(2)?,
            is_lowered: false,
        })
    })?;
    // The pages before have what is later than the last of their rows.
    let is_left = |bound: &Bound| match (query.sort, after) {
        (Sort::Time, Some(last)) => (bound.hour.saturating_mul(HOUR_MS), i64::MIN) < last,
        _ => true,
    };
    let bounds: Vec<Bound> = bounds.collect::<rusqlite::Result<_>>()?;
    Ok(bounds.into_iter().filter(is_left).collect())
}

/// The hour's bound by its lines; `None` where none of them meets the conditions.
fn lowered(
    connection: &Connection,
    lines: &Lines,
    bound: Bound,
    sort: Sort,
) -> rusqlite::Result<Option<Bound>> {
    let most = lines.most(connection, bound.hour)?;
    Ok(most.map(|most| Bound {
        most: match sort {
            // Of time, lines say no more than that they are there.
            Sort::Time => bound.most,
            _ => bound.most.min((most, i64::MAX)),
        },
        is_lowered: true,
        ..bound
    }))
}

/// What a line of hourly sums has that none of its rows exceeds.
fn most_of(sort: Sort) -> String {
    match sort {
        Sort::Time => "1".to_owned(),
        Sort::Cost => "t.cost_pico".to_owned(),
        Sort::Duration => "t.duration_ms".to_owned(),
        // A sum beyond integers is no integer any more, and bounds nothing.
        Sort::Tokens => Bucket::ALL
            .map(|bucket| format!("t.{}", bucket.name()))
            .join(" + "),
    }
}

/// The highest ranks so far, at most so many; the lowest on top.
struct Found<'q> {
    query: &'q RequestsQuery,
    after: Option<Rank>,
    terms: Terms<'q>,
    ranks: BinaryHeap<Reverse<Rank>>,
    n_max: usize,
}

impl Found<'_> {
    /// Whether a row of that rank would be among them.
    fn may_take(&self, rank: Rank) -> bool {
        let lowest = self.ranks.peek().map(|lowest| lowest.0);
        self.ranks.len() < self.n_max || lowest.is_some_and(|lowest| rank > lowest)
    }

    /// Takes in the highest rows of a span.
    fn look(&mut self, connection: &Connection, span: Span) -> rusqlite::Result<()> {
        let key = sort_key(self.query.sort, Dialect::Sqlite);
        let mut scope = Scope::of_terms(Table::Events, span, &self.terms);
        if let Some((key_value, row)) = self.after {
            let values = [key_value.into(), row.into()];
            scope.add_condition(format!("({key}, t.id) < (?, ?)"), values);
        }
        let sql = format!(
            "SELECT {key} AS k, t.id AS id {} ORDER BY k DESC, id DESC LIMIT {}",
            scope.sql(),
            self.n_max
        );
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(scope.into_values()))?;
        while let Some(row) = rows.next()? {
            let rank = (row.get(0)?, row.get(1)?);
            if !self.may_take(rank) {
                break;
            }
            self.ranks.push(Reverse(rank));
            if self.ranks.len() > self.n_max {
                self.ranks.pop();
            }
        }
        Ok(())
    }

    fn in_order(self) -> Vec<Rank> {
        let ranks = self.ranks.into_sorted_vec().into_iter();
        ranks.map(|Reverse(rank)| rank).collect()
    }
}
