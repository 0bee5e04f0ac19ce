//! Questions that only rows can answer, hour by hour: which hours, in which order, for how long.
//!
//! Whoever asks may be patient and have every row looked at, or not: then an answer is of the hours
//! that were looked at in time, and says which these are.

use std::time::{Duration, Instant};

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use tollmesh_wire::Timestamp;

use crate::ledger::query::filter::{Column, Dimension, Filter, Span};
use crate::ledger::query::scope::{Dialect, Scope, Table};
use crate::ledger::rollup::HOUR_MS;

/// How long a question may be looked into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patience(Option<Instant>);

/// An answer, and of what it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked<T> {
    /// What was found.
    pub answer: T,
    /// Of which hours; `None` where it is of all in the span.
    pub at: Option<LookedAt>,
}

/// The hours of an answer that is not of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookedAt {
    /// Hours that were looked at.
    pub hours: u64,
    /// Hours of the span that have calls.
    pub of_hours: u64,
    /// The answer is of all calls from here on; `None` where hours were not looked at in the order
    /// of time.
    pub from: Option<Timestamp>,
}

/// The hours of a span that have rows, the latest first.
pub struct Hours {
    span: Span,
    left: std::vec::IntoIter<i64>,
    n_all: u64,
    n_looked: u64,
    last: Option<i64>,
    is_cut: bool,
}

// === impl Patience ===

impl Patience {
    /// Until all is looked at.
    pub const ENDLESS: Patience = Patience(None);

    /// For so long from now on.
    pub fn of(time: Duration) -> Patience {
        Patience(Instant::now().checked_add(time))
    }

    /// Whether it is over.
    pub fn is_over(self) -> bool {
        self.0.is_some_and(|end| Instant::now() >= end)
    }

    /// Half of what is left of it.
    pub fn half(self) -> Patience {
        let now = Instant::now();
        let half = |end: Instant| now + end.saturating_duration_since(now) / 2;
        Patience(self.0.map(half))
    }
}

// === impl Looked ===

impl<T> Looked<T> {
    /// An answer of all that there is.
    pub fn wholly(answer: T) -> Looked<T> {
        Looked { answer, at: None }
    }

    /// The same with what that makes of it.
    pub fn map<U>(self, made_of: impl FnOnce(T) -> U) -> Looked<U> {
        Looked {
            answer: made_of(self.answer),
            at: self.at,
        }
    }
}

// === impl Hours ===

impl Hours {
    /// All of them.
    pub fn of(connection: &Connection, span: Span) -> rusqlite::Result<Hours> {
        let all: Vec<i64> = connection
            .prepare_cached(
                "SELECT hour FROM peaks WHERE hour BETWEEN ?1 AND ?2 ORDER BY hour DESC",
            )?
            .query_map(first_and_last(span), |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Hours {
            span,
            n_all: all.len() as u64,
            left: all.into_iter(),
            n_looked: 0,
            last: None,
            is_cut: false,
        })
    }

    /// The next hour, with the part of it that is in the span; `None` after the last, and where
    /// patience is over. One is looked at in any case.
    pub fn next(&mut self, patience: Patience) -> Option<(i64, Span)> {
        if self.n_looked > 0 && self.left.len() > 0 && patience.is_over() {
            self.is_cut = true;
            return None;
        }
        let hour = self.left.next()?;
        self.n_looked += 1;
        self.last = Some(hour);
        Some((hour, within(self.span, hour)))
    }

    /// What was looked at, where it is not all.
    pub fn looked_at(&self) -> Option<LookedAt> {
        self.is_cut.then(|| LookedAt {
            hours: self.n_looked,
            of_hours: self.n_all,
            from: self.last.map(start_of),
        })
    }

    /// The span of what was looked at.
    pub fn looked_span(&self) -> Span {
        match self.looked_at() {
            Some(at) => Span {
                from: at.from.max(self.span.from),
                ..self.span
            },
            None => self.span,
        }
    }
}

/// The first and the last hour that a span has a part of.
pub fn first_and_last(span: Span) -> [i64; 2] {
    let hour_of = |ms: i64| ms.div_euclid(HOUR_MS);
    let from = span
        .from
        .map_or(i64::MIN, |from| hour_of(from.as_unix_ms()));
    let to = span
        .to
        .map_or(i64::MAX, |to| hour_of(to.as_unix_ms().saturating_sub(1)));
    [from, to]
}

/// The part of a span that is in that hour.
pub fn within(span: Span, hour: i64) -> Span {
    let end = end_of(hour);
    Span {
        from: span.from.max(Some(start_of(hour))),
        to: Some(span.to.map_or(end, |to| to.min(end))),
    }
}

/// The first instant after that hour.
pub fn end_of(hour: i64) -> Timestamp {
    start_of(hour.saturating_add(1))
}

fn start_of(hour: i64) -> Timestamp {
    Timestamp::from_unix_ms(hour.saturating_mul(HOUR_MS))
}

/// What hourly sums know of conditions: the most that a line of an hour sums up, where it has any.
pub struct Lines {
    filters: Vec<Filter>,
    sums: &'static str,
}

impl Lines {
    /// Of lines that meet those of the conditions that sums know; `sums` is what is asked of them.
    /// `None` where they know none.
    pub fn of(filters: &[Filter], sums: &'static str) -> Option<Lines> {
        let is_known = |filter: &&Filter| match filter.dimension {
            Dimension::Tag(_) => true,
            Dimension::Column(column) => !column.is_of_rows_only(),
        };
        let filters: Vec<Filter> = filters.iter().filter(is_known).cloned().collect();
        (!filters.is_empty()).then_some(Lines { filters, sums })
    }

    /// The most that a line of that hour has; `None` where the hour has no such line.
    pub fn most(&self, connection: &Connection, hour: i64) -> rusqlite::Result<Option<i64>> {
        let span = Span::default();
        let mut scope = Scope::new(Dialect::Sqlite, Table::Hourly, span, &self.filters);
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

/// Whether rows are asked for by an id that has an index.
pub fn is_of_one_row(filters: &[Filter]) -> bool {
    let id = Dimension::Column(Column::EventId);
    filters
        .iter()
        .any(|filter| filter.dimension == id && !filter.value.is_empty())
}
