//! Single calls, page by page.

use tollmesh_wire::Event;

use crate::ledger::entry::CostRecord;
use crate::ledger::error::QueryError;
use crate::ledger::query::filter::{Filter, Span};
use crate::ledger::query::reader::Reader;
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
        let _ = query;
        Ok(Page::default())
    }
}
