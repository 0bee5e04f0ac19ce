//! How much of the traffic is known: tagged, priced, reported.

use rusqlite::{Connection, params_from_iter};

use crate::ledger::codes;
use crate::ledger::error::QueryError;
use crate::ledger::query::filter::{Dimension, Filter, Span};
use crate::ledger::query::parts::{self, Part};
use crate::ledger::query::reader::Reader;
use crate::ledger::query::scope::Scope;

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
    /// Calls without counts whose price wanted some; images and speech are priced by the piece, and
    /// what failed costs nothing.
    pub absent: u64,
    /// Calls without each of the tags asked for, in their order.
    pub untagged: Vec<(String, u64)>,
}

impl Reader {
    /// The counts.
    pub fn coverage(&self, query: &CoverageQuery) -> Result<Coverage, QueryError> {
        let filtered = query.filters.iter().map(|filter| &filter.dimension);
        self.ask(|connection| {
            let mut coverage = Coverage::default();
            for part in parts::parts(connection, query.span, None, filtered)? {
                coverage.take_in(counts(connection, query, &part)?);
            }
            Ok(coverage)
        })
    }
}

impl Coverage {
    fn take_in(&mut self, part: Coverage) {
        self.requests += part.requests;
        self.unpriced += part.unpriced;
        self.assumed += part.assumed;
        self.estimated += part.estimated;
        self.absent += part.absent;
        if self.untagged.is_empty() {
            self.untagged = part.untagged;
        } else {
            for ((_, sum), (_, more)) in self.untagged.iter_mut().zip(part.untagged) {
                *sum += more;
            }
        }
    }
}

fn counts(
    connection: &Connection,
    query: &CoverageQuery,
    part: &Part,
) -> rusqlite::Result<Coverage> {
    let mut scope = Scope::of(part, &query.filters).without_relayed(&query.filters);
    let mut conditions = vec![
        "TRUE".to_owned(),
        format!("t.cost_status = {}", codes::UNPRICED),
        format!("t.cost_status = {}", codes::ASSUMED),
        format!("t.usage_source = {}", codes::ESTIMATED),
        format!(
            "t.usage_source = {} AND t.cost_status = {}",
            codes::ABSENT,
            codes::UNPRICED
        ),
    ];
    let n_fixed = conditions.len();
    for tag in &query.tags {
        let value = scope.expression(&Dimension::Tag(tag.clone()));
        conditions.push(format!("{value} IS NULL"));
    }
    let weight = scope.weight();
    let columns: Vec<String> = conditions
        .iter()
        .map(|condition| format!("coalesce(sum(CASE WHEN {condition} THEN {weight} END), 0)"))
        .collect();
    let sql = format!("SELECT {} {}", columns.join(", "), scope.sql());
    connection
        .prepare_cached(&sql)?
        .query_row(params_from_iter(scope.into_values()), |row| {
            let count = |at: usize| row.get(at).map(i64::unsigned_abs);
            let untagged = (n_fixed..).zip(&query.tags);
            Ok(Coverage {
                requests: count(0)?,
                unpriced: count(1)?,
                assumed: count(2)?,
                estimated: count(3)?,
                absent: count(4)?,
                untagged: untagged
                    .map(|(at, tag)| Ok((tag.clone(), count(at)?)))
                    .collect::<rusqlite::Result<_>>()?,
            })
        })
}
