//! The same groups in two periods.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::ledger::error::QueryError;
use crate::ledger::query::filter::{Dimension, Filter, Span};
use crate::ledger::query::reader::Reader;
use crate::ledger::query::spend::{SpendQuery, SpendRow};

/// Which sums, and of which periods.
#[derive(Clone, Debug, Default)]
pub struct ComparisonQuery {
    /// One row for each combination of these.
    pub by: Vec<Dimension>,
    /// Conditions, all of which must hold; relayed calls as in a spend query.
    pub filters: Vec<Filter>,
    /// The earlier period.
    pub before: Span,
    /// The later one.
    pub after: Span,
}

/// A group in both periods; nothing but zeros where it has no calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// The values of [`ComparisonQuery::by`], in its order.
    pub key: Vec<Option<String>>,
    /// Its sums in the earlier period, without the key.
    pub before: SpendRow,
    /// Its sums in the later one, without the key.
    pub after: SpendRow,
}

impl Reader {
    /// Every group of either period, the largest difference in cost first.
    pub fn compare(&self, query: &ComparisonQuery) -> Result<Vec<Compared>, QueryError> {
        let sums = |span| {
            self.spend(&SpendQuery {
                by: query.by.clone(),
                interval_ms: None,
                span,
                filters: query.filters.clone(),
            })
        };
        let mut groups: BTreeMap<Vec<Option<String>>, Compared> = BTreeMap::new();
        for mut row in sums(query.before)? {
            let group = groups.entry(std::mem::take(&mut row.key)).or_default();
            group.before = row;
        }
        for mut row in sums(query.after)? {
            let group = groups.entry(std::mem::take(&mut row.key)).or_default();
            group.after = row;
        }
        let rows = groups
            .into_iter()
            .map(|(key, group)| Compared { key, ..group });
        let mut rows: Vec<Compared> = rows.collect();
        rows.sort_by_key(|row| {
            let (before, after) = (row.before.cost.as_pico(), row.after.cost.as_pico());
            Reverse(((after - before).unsigned_abs(), after))
        });
        Ok(rows)
    }
}
