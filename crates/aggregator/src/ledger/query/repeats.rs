//! How many calls repeat another one.

use rusqlite::params_from_iter;
use rusqlite::types::Value;

use crate::ledger::error::QueryError;
use crate::ledger::query::filter::Dimension;
use crate::ledger::query::reader::Reader;
use crate::ledger::query::scope::{Dialect, Scope, Table, word};
use crate::ledger::query::spend::{GROUPS_MAX, SpendQuery};
use crate::ledger::rollup::HOUR_MS;

/// A group's calls that had to be made again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repeats {
    /// The values of [`SpendQuery::by`], in its order.
    pub key: Vec<Option<String>>,
    /// Calls whose body is that of another one within the same hour. Only calls with a fingerprint
    /// can be told to be such.
    pub requests: u64,
}

impl Reader {
    /// The counts of the groups that have any. Rows answer, so that calls beyond retention are not
    /// in it; the query's interval is not looked at.
    pub fn repeats(&self, query: &SpendQuery) -> Result<Vec<Repeats>, QueryError> {
        let table = Table::Events;
        let mut scope = Scope::new(Dialect::Sqlite, table, query.span, &query.filters)
            .without_relayed(&query.filters);
        scope.add_condition("t.fingerprint IS NOT NULL", []);
        let by = query.by.iter();
        let groups: Vec<String> = by.map(|dimension| scope.expression(dimension)).collect();
        let sql = repeats_sql(&groups, &scope);
        self.ask(|connection| {
            let mut statement = connection.prepare_cached(&sql)?;
            let mut found = statement.query(params_from_iter(scope.into_values()))?;
            let mut all = Vec::new();
            while let Some(row) = found.next()? {
                if all.len() == GROUPS_MAX {
                    return Err(QueryError::TooManyGroups { max: GROUPS_MAX });
                }
                let key = (0..)
                    .zip(&query.by)
                    .map(|(at, dimension): (_, &Dimension)| {
                        Ok(word(dimension, row.get::<_, Value>(at)?))
                    });
                all.push(Repeats {
                    key: key.collect::<rusqlite::Result<_>>()?,
                    requests: row.get(query.by.len()).map(i64::unsigned_abs)?,
                });
            }
            Ok(all)
        })
    }
}

fn repeats_sql(groups: &[String], scope: &Scope) -> String {
    let hour = format!("(t.time_ms / {HOUR_MS})");
    let repeated = format!("count(*) - count(DISTINCT t.fingerprint || ' ' || {hour})");
    let columns: Vec<&str> = groups
        .iter()
        .map(String::as_str)
        .chain([repeated.as_str()])
        .collect();
    let places: Vec<String> = (1..=groups.len()).map(|i| i.to_string()).collect();
    let grouping = match places.is_empty() {
        true => String::new(),
        false => format!(" GROUP BY {}", places.join(", ")),
    };
    let limit = GROUPS_MAX + 1;
    format!(
        "SELECT {} {}{grouping} HAVING {repeated} > 0 LIMIT {limit}",
        columns.join(", "),
        scope.sql(),
    )
}
