//! Single calls, page by page.

use std::fmt;

use rusqlite::{Connection, params_from_iter};
use tollmesh_usage::Bucket;
use tollmesh_wire::Event;

use crate::ledger::entry::{CostRecord, Original};
use crate::ledger::error::QueryError;
use crate::ledger::query::filter::{Filter, Span};
use crate::ledger::query::reader::Reader;
use crate::ledger::query::scope::{self, Dialect, Scope, Table};
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
        let cursor = match &query.cursor {
            None => None,
            Some(text) => match Cursor::parse(text) {
                Some(cursor) if cursor.sort == query.sort => Some(cursor),
                _ => return Err(QueryError::Cursor(text.clone())),
            },
        };
        self.ask(|connection| Ok(page(connection, query, cursor)?))
    }
}

fn page(
    connection: &Connection,
    query: &RequestsQuery,
    cursor: Option<Cursor>,
) -> rusqlite::Result<Page> {
    let limit = query.limit.clamp(1, PAGE_ROWS_MAX);
    let key = sort_key(query.sort, Dialect::Sqlite);
    let mut scope = Scope::new(Dialect::Sqlite, Table::Events, query.span, &query.filters);
    if let Some(cursor) = cursor {
        let values = [cursor.key.into(), cursor.row.into()];
        scope.add_condition(format!("({key}, t.id) < (?, ?)"), values);
    }
    // The page's rows are chosen by narrow columns first, so that no wide row is ever sorted.
    let sql = format!(
        "WITH page AS (SELECT t.id AS id, {key} AS k {} ORDER BY k DESC, t.id DESC LIMIT {})
         SELECT {}, page.k FROM page JOIN events e ON e.id = page.id {}
         ORDER BY page.k DESC, e.id DESC",
        scope.sql(),
        limit + 1,
        row::select(),
        row::JOINS,
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut found = statement.query(params_from_iter(scope.into_values()))?;
    let mut page = Page::default();
    let mut last = None;
    while let Some(row) = found.next()? {
        if page.items.len() == limit {
            page.next_cursor = last.map(|cursor: Cursor| cursor.to_string());
            break;
        }
        let stored = stored::read(row)?;
        last = Some(Cursor {
            sort: query.sort,
            key: row.get("k")?,
            row: stored.row,
        });
        page.items.push(RequestRow {
            row: stored.row,
            event: stored.entry.event,
            cost: stored.entry.cost,
            provider_cost: stored.provider_cost,
            original: stored.original,
        });
    }
    Ok(page)
}

/// What rows `t` are sorted by: an integer, never `NULL`.
pub(super) fn sort_key(sort: Sort, dialect: Dialect) -> String {
    match sort {
        Sort::Time => scope::time_ms(dialect).to_owned(),
        Sort::Cost => format!("coalesce(t.cost_pico, {})", i64::MIN),
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
