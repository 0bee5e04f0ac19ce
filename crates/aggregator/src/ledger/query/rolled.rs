//! Calls that belong together, rolled up: one row for each trace, or for each session.

use std::fmt;

use rusqlite::Connection;
use tollmesh_usage::Bucket;
use tollmesh_wire::Timestamp;

use crate::ledger::error::QueryError;
use crate::ledger::query::filter::{Filter, Span};
use crate::ledger::query::gathered::{self, Place};
use crate::ledger::query::looked::{Looked, Patience};
use crate::ledger::query::reader::Reader;
use crate::ledger::query::requests::PAGE_ROWS_MAX;
use crate::money::PicoSum;

/// What calls belong together by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Their trace.
    Trace,
    /// The value of the first of these tags that a call has.
    Tags(Vec<String>),
}

/// What units are ordered by, the highest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnitSort {
    /// The dearest first.
    #[default]
    Cost,
    /// Those with most calls first.
    Requests,
    /// Those with most tokens first.
    Tokens,
    /// Those with most retries and repetitions first.
    Retries,
    /// From the first call to the last, the longest first.
    Span,
    /// The one with the latest call first.
    Time,
}

/// Which units.
#[derive(Clone, Debug)]
pub struct UnitsQuery {
    /// What they are.
    pub unit: Unit,
    /// The time looked at. Calls outside of it do not count.
    pub span: Span,
    /// Conditions that calls must meet; relayed calls as in a spend query.
    pub filters: Vec<Filter>,
    /// The order.
    pub sort: UnitSort,
    /// Rows on the page; at most [`PAGE_ROWS_MAX`].
    pub limit: usize,
    /// Where the page begins: the last page's `next_cursor`.
    pub cursor: Option<String>,
}

/// One trace or session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitRow {
    /// Its id.
    pub id: String,
    /// Its calls.
    pub requests: u64,
    /// The cost of those that are priced.
    pub cost: PicoSum,
    /// Calls without a price.
    pub unpriced: u64,
    /// Calls whose counts are estimated.
    pub estimated: u64,
    /// Calls that failed or were cut.
    pub failed: u64,
    /// Tokens by bucket, in [`Bucket::ALL`]'s order.
    pub tokens: [u128; Bucket::ALL.len()],
    /// Tools that models asked for.
    pub tool_calls: u64,
    /// Attempts beyond the first of each call, made by the proxy.
    pub retries: u64,
    /// Calls with the same body as an earlier one, made by the app.
    pub repeated: u64,
    /// Different models that served.
    pub models: u64,
    /// The calls' durations together, in milliseconds.
    pub duration_ms: u128,
    /// When the first of its calls was.
    pub first: Timestamp,
    /// When the last was.
    pub last: Timestamp,
    /// What became of it, where that was told of the trace.
    pub outcome_label: Option<String>,
}

/// One page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitsPage {
    /// The units.
    pub items: Vec<UnitRow>,
    /// Where the next page begins; `None` on the last. A unit that gets further calls between two
    /// pages may move up, and so be missed or come again with its new sums.
    pub next_cursor: Option<String>,
}

// === impl UnitSort ===

impl UnitSort {
    /// Every order.
    pub const ALL: [UnitSort; 6] = [
        UnitSort::Cost,
        UnitSort::Requests,
        UnitSort::Tokens,
        UnitSort::Retries,
        UnitSort::Span,
        UnitSort::Time,
    ];

    /// The order of that name, or `None`.
    pub fn parse(name: &str) -> Option<UnitSort> {
        UnitSort::ALL.into_iter().find(|s| s.name() == name)
    }

    /// The name in queries.
    pub const fn name(self) -> &'static str {
        match self {
            UnitSort::Cost => "cost",
            UnitSort::Requests => "requests",
            UnitSort::Tokens => "tokens",
            UnitSort::Retries => "retries",
            UnitSort::Span => "span",
            UnitSort::Time => "time",
        }
    }
}

impl Reader {
    /// One page of traces or sessions.
    pub fn units(&self, query: &UnitsQuery) -> Result<UnitsPage, QueryError> {
        Ok(self.units_within(query, Patience::ENDLESS)?.answer)
    }

    /// One page of traces or sessions, by the calls of those hours that could be looked at in time.
    pub fn units_within(
        &self,
        query: &UnitsQuery,
        patience: Patience,
    ) -> Result<Looked<UnitsPage>, QueryError> {
        let after = match &query.cursor {
            None => None,
            Some(text) => match Cursor::parse(text) {
                Some(cursor) if cursor.sort == query.sort => Some((cursor.key, cursor.id)),
                _ => return Err(QueryError::Cursor(text.clone())),
            },
        };
        self.ask(|connection| Ok(page(connection, query, after.as_ref(), patience)?))
    }
}

fn page(
    connection: &Connection,
    query: &UnitsQuery,
    after: Option<&Place>,
    patience: Patience,
) -> rusqlite::Result<Looked<UnitsPage>> {
    let limit = query.limit.clamp(1, PAGE_ROWS_MAX);
    let looked = gathered::units(connection, query, after, limit + 1, patience)?;
    let (mut units, at) = (looked.answer, looked.at);
    let has_more = units.len() > limit;
    units.truncate(limit);
    let cursor = units.last().filter(|_| has_more).map(|(place, _)| Cursor {
        sort: query.sort,
        key: place.0,
        id: place.1.clone(),
    });
    let mut page = UnitsPage {
        items: units.into_iter().map(|(_, row)| row).collect(),
        next_cursor: cursor.map(|cursor| cursor.to_string()),
    };
    if query.unit == Unit::Trace {
        for unit in &mut page.items {
            unit.outcome_label = label_of_trace(connection, &unit.id)?;
        }
    }
    Ok(Looked { answer: page, at })
}

fn label_of_trace(connection: &Connection, id: &str) -> rusqlite::Result<Option<String>> {
    let mut label = connection
        .prepare_cached("SELECT label FROM outcomes WHERE subject_kind = 2 AND subject = ?1")?;
    let mut found = label.query_map([id], |row| row.get(0))?;
    found.next().transpose()
}

/// The last unit of a page, as text: order, key and id.
#[derive(Clone, Debug, PartialEq)]
struct Cursor {
    sort: UnitSort,
    key: i128,
    id: String,
}

impl Cursor {
    fn parse(text: &str) -> Option<Cursor> {
        let mut parts = text.splitn(3, '.');
        Some(Cursor {
            sort: UnitSort::parse(parts.next()?)?,
            key: parts.next()?.parse().ok()?,
            id: parts.next()?.to_owned(),
        })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.sort.name(), self.key, self.id)
    }
}
