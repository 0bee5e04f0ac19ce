//! How many calls repeat another one.

use rusqlite::params_from_iter;
use rusqlite::types::Value;

use crate::ledger::error::QueryError;
use crate::ledger::query::filter::Dimension;
use crate::ledger::query::postgres::Cells;
use crate::ledger::query::reader::Reader;
use crate::ledger::query::scope::{self, Dialect, Scope, Table, word};
use crate::ledger::query::spend::{GROUPS_MAX, SpendQuery};
use crate::ledger::rollup::HOUR_MS;
use crate::ledger::stored::take;

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
        let (sql, values) = statement(query, Dialect::Sqlite);
        self.ask(|connection| {
            let mut statement = connection.prepare_cached(&sql)?;
            let mut found = statement.query(params_from_iter(values))?;
            let mut all = Vec::new();
            while let Some(row) = found.next()? {
                if all.len() == GROUPS_MAX {
                    return Err(QueryError::TooManyGroups { max: GROUPS_MAX });
                }
                all.push(read_row(&|at| row.get_ref(at), &query.by)?);
            }
            Ok(all)
        })
    }
}

/// The statement whose rows [`read_row`] reads, with its values.
pub(super) fn statement(query: &SpendQuery, dialect: Dialect) -> (String, Vec<Value>) {
    let mut scope = Scope::new(dialect, Table::Events, query.span, &query.filters)
        .without_relayed(&query.filters);
    scope.add_condition("t.fingerprint IS NOT NULL", []);
    let by = query.by.iter();
    let groups: Vec<String> = by.map(|dimension| scope.expression(dimension)).collect();
    let sql = repeats_sql(&groups, &scope);
    (sql, scope.into_values())
}

/// Reads a group.
pub(super) fn read_row(cells: Cells<'_, '_>, by: &[Dimension]) -> rusqlite::Result<Repeats> {
    let key = (0..)
        .zip(by)
        .map(|(at, dimension)| Ok(word(dimension, take::<Value>(cells, at)?)));
    Ok(Repeats {
        key: key.collect::<rusqlite::Result<_>>()?,
        requests: take(cells, by.len()).map(i64::unsigned_abs)?,
    })
}

fn repeats_sql(groups: &[String], scope: &Scope) -> String {
    let hour = format!("({} / {HOUR_MS})", scope::time_ms(scope.dialect));
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
