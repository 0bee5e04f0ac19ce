//! Single calls, page by page.

use std::fmt;
use std::sync::LazyLock;

use rusqlite::{Connection, OptionalExtension};
use tollmesh_usage::Bucket;
use tollmesh_wire::Event;

use crate::ledger::entry::{CostRecord, Original};
use crate::ledger::error::QueryError;
use crate::ledger::outcomes;
use crate::ledger::peaks::{self, Rank};
use crate::ledger::query::filter::{Filter, Span};
use crate::ledger::query::highest;
use crate::ledger::query::looked::{Looked, LookedAt, Patience};
use crate::ledger::query::reader::Reader;
use crate::ledger::query::scope::{self, Dialect};
use crate::ledger::row;
use crate::ledger::stored;
use crate::money::PicoUsd;

/// Rows on one page, whatever was asked for.
pub const PAGE_ROWS_MAX: usize = 1_000;

/// What the calls are ordered by, the highest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// The latest first.
    #[default]
    Time,
    /// The dearest first; unpriced calls last.
    Cost,
    /// The longest first.
    Duration,
    /// Those with most tokens first.
    Tokens,
}

/// Which calls.
#[derive(Clone, Debug, Default)]
pub struct RequestsQuery {
    /// The time looked at.
    pub span: Span,
    /// Conditions, all of which must hold.
    pub filters: Vec<Filter>,
    /// The order.
    pub sort: Sort,
    /// Rows on the page; at most [`PAGE_ROWS_MAX`].
    pub limit: usize,
    /// Where the page begins: the last page's `next_cursor`.
    pub cursor: Option<String>,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRow {
    /// The row's number, which grows with the ledger.
    pub row: i64,
    /// The event as it came. Late usage that completed it stands in it.
    pub event: Event,
    /// Its cost.
    pub cost: CostRecord,
    /// What the provider says it charged.
    pub provider_cost: Option<PicoUsd>,
    /// Its first price, where it was priced anew.
    pub original: Option<Original>,
    /// What became of it, where that was told.
    pub outcome_label: Option<String>,
}

/// One page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The calls.
    pub items: Vec<RequestRow>,
    /// Where the next page begins; `None` on the last. Calls that arrive between two pages never
    /// make a call appear twice.
    pub next_cursor: Option<String>,
}

impl Sort {
    /// The order of that name, or `None`.
    pub fn parse(name: &str) -> Option<Sort> {
        Sort::ALL.into_iter().find(|s| s.name() == name)
    }

    /// Every order.
    pub const ALL: [Sort; 4] = [Sort::Time, Sort::Cost, Sort::Duration, Sort::Tokens];

    /// The name in queries.
    pub const fn name(self) -> &'static str {
        match self {
            Sort::Time => "time",
            Sort::Cost => "cost",
            Sort::Duration => "duration",
            Sort::Tokens => "tokens",
        }
    }
}

impl Reader {
    /// One page of calls.
    pub fn requests(&self, query: &RequestsQuery) -> Result<Page, QueryError> {
        Ok(self.requests_within(query, Patience::ENDLESS)?.answer)
    }

    /// One page of calls, of those hours that could be looked at in time.
    pub fn requests_within(
        &self,
        query: &RequestsQuery,
        patience: Patience,
    ) -> Result<Looked<Page>, QueryError> {
        let after = match &query.cursor {
            None => None,
            Some(text) => match Cursor::parse(text) {
                Some(cursor) if cursor.sort == query.sort => Some((cursor.key, cursor.row)),
                _ => return Err(QueryError::Cursor(text.clone())),
            },
        };
        self.ask(|connection| Ok(page(connection, query, after, patience)?))
    }
}

fn page(
    connection: &Connection,
    query: &RequestsQuery,
    after: Option<Rank>,
    patience: Patience,
) -> rusqlite::Result<Looked<Page>> {
    let limit = query.limit.clamp(1, PAGE_ROWS_MAX);
    let found = highest::ranks(connection, query, after, limit + 1, patience)?;
    let (ranks, at) = (found.answer, found.at);
    let last = match (ranks.get(limit), at) {
        (Some(_), _) => ranks.get(limit - 1).copied(),
        // There may be more before what was looked at.
        (
            None,
            Some(LookedAt {
                from: Some(from), ..
            }),
        ) => Some((from.as_unix_ms(), i64::MIN)),
        (None, _) => None,
    };
    let mut items = Vec::new();
    for (_, row) in ranks.into_iter().take(limit) {
        items.extend(call(connection, row)?);
    }
    let cursor = last.map(|(key, row)| Cursor {
        sort: query.sort,
        key,
        row,
    });
    Ok(Looked {
        answer: Page {
            items,
            next_cursor: cursor.map(|cursor| cursor.to_string()),
        },
        at,
    })
}

/// The call of that number.
fn call(connection: &Connection, row: i64) -> rusqlite::Result<Option<RequestRow>> {
    connection
        .prepare_cached(&CALL)?
        .query_row([row], |row| {
            let stored = stored::read(row)?;
            Ok(RequestRow {
                row: stored.row,
                event: stored.entry.event,
                cost: stored.entry.cost,
                provider_cost: stored.provider_cost,
                original: stored.original,
                outcome_label: row.get("outcome_label")?,
            })
        })
        .optional()
}

/// The row of a number with its words.
static CALL: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {}, {} AS outcome_label FROM events e {} WHERE e.id = ?1",
        row::select(),
        outcomes::label_of("e"),
        row::JOINS,
    )
});

/// What rows `t` are sorted by: an integer, never `NULL`.
pub(super) fn sort_key(sort: Sort, dialect: Dialect) -> String {
    match sort {
        Sort::Time => scope::time_ms(dialect).to_owned(),
        Sort::Cost => format!("coalesce(t.cost_pico, {})", peaks::UNPRICED),
        Sort::Duration => "t.duration_ms".to_owned(),
        Sort::Tokens => Bucket::ALL
            .map(|bucket| format!("coalesce(t.{}, 0)", bucket.name()))
            .join(" + "),
    }
}

/// The last row of a page, as text: order, key and row number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cursor {
    sort: Sort,
    key: i64,
    row: i64,
}

impl Cursor {
    fn parse(text: &str) -> Option<Cursor> {
        let mut parts = text.split('.');
        let cursor = Cursor {
            sort: Sort::parse(parts.next()?)?,
            key: parts.next()?.parse().ok()?,
            row: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(cursor)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.sort.name(), self.key, self.row)
    }
}
