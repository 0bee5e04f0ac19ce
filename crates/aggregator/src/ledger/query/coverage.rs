//! How much of the traffic is known: tagged, priced, reported.

use crate::ledger::error::QueryError;
use crate::ledger::query::filter::{Filter, Span};
use crate::ledger::query::reader::Reader;

/// Which calls to look at.
#[derive(Clone, Debug, Default)]
pub struct CoverageQuery {
    /// The time looked at.
    pub span: Span,
    /// Conditions, all of which must hold; relayed calls as in a spend query.
    pub filters: Vec<Filter>,
    /// Tags that calls should carry.
    pub tags: Vec<String>,
}

/// How many calls are known how well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Calls.
    pub requests: u64,
    /// Calls without a price.
    pub unpriced: u64,
    /// Calls priced in part at a rate that was assumed.
    pub assumed: u64,
    /// Calls whose counts are estimated.
    pub estimated: u64,
    /// Calls without counts.
    pub absent: u64,
    /// Calls without each of the tags asked for, in their order.
    pub untagged: Vec<(String, u64)>,
}

impl Reader {
    /// The counts.
    pub fn coverage(&self, query: &CoverageQuery) -> Result<Coverage, QueryError> {
        let _ = query;
        Ok(Coverage::default())
    }
}
