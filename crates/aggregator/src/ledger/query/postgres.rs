//! The questions to the ledger as the cluster's shared one takes them, which is a PostgreSQL.

use rusqlite::types::{Value, ValueRef};

use crate::ledger::query::Dimension;
use crate::ledger::query::parts::{self, Part};
use crate::ledger::query::repeats::{self, Repeats};
use crate::ledger::query::requests::{PAGE_ROWS_MAX, RequestRow, RequestsQuery, Sort, sort_key};
use crate::ledger::query::scope::{Dialect, Scope, Table};
use crate::ledger::query::spend::{self, SpendQuery, SpendRow};
use crate::ledger::{outcomes, row, stored};

pub use crate::ledger::query::spend::{GROUPS_MAX, in_order};

/// A row's cells by their place.
pub type Cells<'c, 'v> = &'c dyn Fn(usize) -> rusqlite::Result<ValueRef<'v>>;

/// A statement with its values.
#[derive(Clone, Debug)]
pub struct Statement {
    /// With `$1`, `$2`, … in it.
    pub sql: String,
    /// Integers, texts and nulls.
    pub values: Vec<Value>,
}

/// The statements that together answer for the query's span.
pub fn spend(query: &SpendQuery) -> Vec<Statement> {
    let filtered = query.filters.iter().map(|filter| &filter.dimension);
    let dimensions = query.by.iter().chain(filtered);
    let parts = parts::of_hours(query.span, query.interval_ms, dimensions);
    let statement = |part: Part| {
        let scope = Scope::new(Dialect::Postgres, part.table, part.span, &query.filters);
        let (sql, values) = spend::statement(query, scope);
        Statement::new(&sql, values)
    };
    parts.into_iter().map(statement).collect()
}

/// Reads a row of [`spend`].
pub fn spend_row(cells: Cells<'_, '_>, by: &[Dimension]) -> rusqlite::Result<SpendRow> {
    spend::read_row(cells, by)
}

/// One page of calls, and one more where there is a next page. `None` where the cursor is none of
/// this query's.
pub fn requests(query: &RequestsQuery) -> Option<Statement> {
    let mut scope = Scope::new(Dialect::Postgres, Table::Events, query.span, &query.filters);
    let columns = row::select_as(|name| match name {
        "id" => "0::bigint".to_owned(),
        "time_ms" => "(extract(epoch FROM e.time) * 1000)::bigint".to_owned(),
        "units" | "billed_usage" | "extra_usage" | "pricing_context" | "missing_tags" => {
            format!("e.{name}::text")
        }
        name => format!("e.{name}"),
    });
    let columns = ["g.body", "s.body"].iter().fold(columns, |sql, body| {
        sql.replace(body, &format!("{body}::text"))
    });
    let key = sort_key(query.sort, Dialect::Postgres);
    if let Some(text) = &query.cursor {
        let (sort, key_value, event_id) = read_cursor(text)?;
        if sort != query.sort {
            return None;
        }
        let values = [
            key_value.into(),
            key_value.into(),
            event_id.to_owned().into(),
        ];
        scope.add_condition(
            format!("({key} < ? OR {key} = ? AND t.event_id > ?)"),
            values,
        );
    }
    let sql = format!(
        "WITH page AS (SELECT t.time, t.event_id, {key} AS k {}
                       ORDER BY k DESC, t.event_id LIMIT {})
         SELECT {columns}, {} AS outcome_label, page.k FROM page JOIN events e USING (time, event_id) {}
         ORDER BY page.k DESC, e.event_id",
        scope.sql(),
        page_rows(query) + 1,
        outcomes::label_of("e"),
        row::JOINS,
    );
    Some(Statement::new(&sql, scope.into_values()))
}

/// Rows of one page of that query.
pub fn page_rows(query: &RequestsQuery) -> usize {
    query.limit.clamp(1, PAGE_ROWS_MAX)
}

/// Where the page after that row begins; `key` is what the row's last cell holds.
pub fn cursor_after(query: &RequestsQuery, row: &RequestRow, key: i64) -> String {
    format!("{}.{key}.{}", query.sort.name(), row.event.event_id)
}

/// Order, key and event id of the row that a cursor stands behind.
fn read_cursor(text: &str) -> Option<(Sort, i64, &str)> {
    let (sort, rest) = text.split_once('.')?;
    let (key, event_id) = rest.split_once('.')?;
    Some((Sort::parse(sort)?, key.parse().ok()?, event_id))
}

/// Reads a row of [`requests`].
pub fn request_row(cells: Cells<'_, '_>) -> rusqlite::Result<RequestRow> {
    let stored = stored::read_cells(cells)?;
    Ok(RequestRow {
        row: stored.row,
        event: stored.entry.event,
        cost: stored.entry.cost,
        provider_cost: stored.provider_cost,
        original: stored.original,
        outcome_label: stored::take(cells, row::n_selected())?,
    })
}

/// The statement that counts calls which repeat another one.
pub fn repeats(query: &SpendQuery) -> Statement {
    let (sql, values) = repeats::statement(query, Dialect::Postgres);
    Statement::new(&sql, values)
}

/// Reads a row of [`repeats`].
pub fn repeats_row(cells: Cells<'_, '_>, by: &[Dimension]) -> rusqlite::Result<Repeats> {
    repeats::read_row(cells, by)
}

impl Statement {
    /// Numbers the places, which is how PostgreSQL writes them. No other question mark stands in
    /// our statements: all words of others are values.
    fn new(sql: &str, values: Vec<Value>) -> Statement {
        let mut numbered = String::with_capacity(sql.len() + 2 * values.len());
        for (n, part) in sql.split('?').enumerate() {
            if n > 0 {
                numbered.push_str(&format!("${n}"));
            }
            numbered.push_str(part);
        }
        Statement {
            sql: numbered,
            values,
        }
    }
}
