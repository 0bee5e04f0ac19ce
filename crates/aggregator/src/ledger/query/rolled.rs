//! Calls that belong together, rolled up: one row for each trace, or for each session.

use std::fmt;

use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};
use tollmesh_usage::Bucket;
use tollmesh_wire::Timestamp;

use crate::ledger::codes;
use crate::ledger::error::QueryError;
use crate::ledger::query::filter::{Column, Dimension, Filter, Span};
use crate::ledger::query::reader::Reader;
use crate::ledger::query::requests::PAGE_ROWS_MAX;
use crate::ledger::query::scope::{Dialect, Scope, Table};
use crate::ledger::wide::Wide;
use crate::money::PicoSum;

/// What calls belong together by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Their trace.
    Trace,
    /// The value of the first of these tags that a call has.
    Tags(Vec<String>),
}

/// What units are ordered by, the highest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnitSort {
    /// The dearest first.
    #[default]
    Cost,
    /// Those with most calls first.
    Requests,
    /// Those with most tokens first.
    Tokens,
    /// Those with most retries and repetitions first.
    Retries,
    /// From the first call to the last, the longest first.
    Span,
    /// The one with the latest call first.
    Time,
}

/// Which units.
#[derive(Clone, Debug)]
pub struct UnitsQuery {
    /// What they are.
    pub unit: Unit,
    /// The time looked at. Calls outside of it do not count.
    pub span: Span,
    /// Conditions that calls must meet; relayed calls as in a spend query.
    pub filters: Vec<Filter>,
    /// The order.
    pub sort: UnitSort,
    /// Rows on the page; at most [`PAGE_ROWS_MAX`].
    pub limit: usize,
    /// Where the page begins: the last page's `next_cursor`.
    pub cursor: Option<String>,
}

/// One trace or session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitRow {
    /// Its id.
    pub id: String,
    /// Its calls.
    pub requests: u64,
    /// The cost of those that are priced.
    pub cost: PicoSum,
    /// Calls without a price.
    pub unpriced: u64,
    /// Calls whose counts are estimated.
    pub estimated: u64,
    /// Calls that failed or were cut.
    pub failed: u64,
    /// Tokens by bucket, in [`Bucket::ALL`]'s order.
    pub tokens: [u128; Bucket::ALL.len()],
    /// Tools that models asked for.
    pub tool_calls: u64,
    /// Attempts beyond the first of each call, made by the proxy.
    pub retries: u64,
    /// Calls with the same body as an earlier one, made by the app.
    pub repeated: u64,
    /// Different models that served.
    pub models: u64,
    /// The calls' durations together, in milliseconds.
    pub duration_ms: u128,
    /// When the first of its calls was.
    pub first: Timestamp,
    /// When the last was.
    pub last: Timestamp,
    /// What became of it, where that was told of the trace.
    pub outcome_label: Option<String>,
}

/// One page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitsPage {
    /// The units.
    pub items: Vec<UnitRow>,
    /// Where the next page begins; `None` on the last. A unit that gets further calls between two
    /// pages may move up, and so be missed or come again with its new sums.
    pub next_cursor: Option<String>,
}

// === impl UnitSort ===

impl UnitSort {
    /// Every order.
    pub const ALL: [UnitSort; 6] = [
        UnitSort::Cost,
        UnitSort::Requests,
        UnitSort::Tokens,
        UnitSort::Retries,
        UnitSort::Span,
        UnitSort::Time,
    ];

    /// The order of that name, or `None`.
    pub fn parse(name: &str) -> Option<UnitSort> {
        UnitSort::ALL.into_iter().find(|s| s.name() == name)
    }

    /// The name in queries.
    pub const fn name(self) -> &'static str {
        match self {
            UnitSort::Cost => "cost",
            UnitSort::Requests => "requests",
            UnitSort::Tokens => "tokens",
            UnitSort::Retries => "retries",
            UnitSort::Span => "span",
            UnitSort::Time => "time",
        }
    }

    /// What groups of rows `t` are sorted by, never `NULL`.
    fn key(self) -> String {
        match self {
            UnitSort::Cost => "sum128(t.cost_pico)".to_owned(),
            UnitSort::Requests => "count(*)".to_owned(),
            UnitSort::Tokens => {
                let buckets = Bucket::ALL.map(|b| format!("coalesce(t.{}, 0)", b.name()));
                format!("sum128({})", buckets.join(" + "))
            }
            UnitSort::Retries => format!("{RETRIES} + {REPEATED}"),
            UnitSort::Span => "max(t.time_ms) - min(t.time_ms)".to_owned(),
            UnitSort::Time => "max(t.time_ms)".to_owned(),
        }
    }
}

/// Attempts of a group beyond the first of each call.
const RETRIES: &str = "sum(max(t.attempts - 1, 0))";

/// Calls of a group whose body an earlier one had.
const REPEATED: &str = "(count(t.fingerprint) - count(DISTINCT t.fingerprint))";

impl Reader {
    /// One page of traces or sessions.
    pub fn units(&self, query: &UnitsQuery) -> Result<UnitsPage, QueryError> {
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
    query: &UnitsQuery,
    cursor: Option<Cursor>,
) -> rusqlite::Result<UnitsPage> {
    let limit = query.limit.clamp(1, PAGE_ROWS_MAX);
    let mut scope = Scope::new(Dialect::Sqlite, Table::Events, query.span, &query.filters);
    scope = scope.without_relayed(&query.filters);
    let id = id_expression(&mut scope, &query.unit);
    scope.add_condition(format!("{id} <> ''"), []);
    let having = match &cursor {
        None => "",
        Some(_) => "HAVING (k, unit) < (?, ?)",
    };
    let sql = format!(
        "SELECT {id} AS unit, {} AS k, {} {} GROUP BY 1 {having} ORDER BY k DESC, unit DESC LIMIT {}",
        query.sort.key(),
        columns(),
        scope.sql(),
        limit + 1,
    );
    let mut values = scope.into_values();
    if let Some(cursor) = cursor {
        values.extend([cursor.key, cursor.id.into()]);
    }
    let mut statement = connection.prepare_cached(&sql)?;
    let mut found = statement.query(params_from_iter(values))?;
    let mut page = UnitsPage::default();
    let mut last = None;
    while let Some(row) = found.next()? {
        if page.items.len() == limit {
            page.next_cursor = last.map(|cursor: Cursor| cursor.to_string());
            break;
        }
        let mut unit = read(row)?;
        if query.unit == Unit::Trace {
            unit.outcome_label = label_of_trace(connection, &unit.id)?;
        }
        last = Some(Cursor {
            sort: query.sort,
            key: row.get("k")?,
            id: unit.id.clone(),
        });
        page.items.push(unit);
    }
    Ok(page)
}

fn id_expression(scope: &mut Scope, unit: &Unit) -> String {
    match unit {
        Unit::Trace => scope.expression(&Dimension::Column(Column::TraceId)),
        Unit::Tags(tags) => {
            let values: Vec<String> = tags
                .iter()
                .map(|tag| scope.expression(&Dimension::Tag(tag.clone())))
                .collect();
            // `coalesce` takes two at least.
            format!("coalesce({}, NULL)", values.join(", "))
        }
    }
}

/// The columns after id and order, as [`read`] reads them.
fn columns() -> String {
    let only = |condition: String| format!("count(CASE WHEN {condition} THEN 1 END)");
    let narrow = [
        "count(*)".to_owned(),
        only(format!("t.cost_status = {}", codes::UNPRICED)),
        only(format!("t.usage_source = {}", codes::ESTIMATED)),
        only(format!(
            "t.outcome IN ({}, {})",
            codes::ERROR,
            codes::ABORTED
        )),
        "coalesce(sum(t.tool_calls), 0)".to_owned(),
        RETRIES.to_owned(),
        REPEATED.to_owned(),
        "count(DISTINCT t.model_id)".to_owned(),
        "min(t.time_ms)".to_owned(),
        "max(t.time_ms)".to_owned(),
    ];
    let wide = ["cost_pico", "duration_ms"]
        .into_iter()
        .chain(Bucket::ALL.map(Bucket::name))
        .map(|name| format!("sum128(t.{name})"));
    narrow
        .into_iter()
        .chain(wide)
        .collect::<Vec<_>>()
        .join(", ")
}

fn read(row: &Row<'_>) -> rusqlite::Result<UnitRow> {
    let count = |at: usize| row.get(2 + at).map(i64::unsigned_abs);
    let wide = |at: usize| row.get(12 + at).map(|sum: Wide| sum.0);
    let mut tokens = [0; Bucket::ALL.len()];
    for (i, slot) in tokens.iter_mut().enumerate() {
        *slot = wide(2 + i)?.unsigned_abs();
    }
    Ok(UnitRow {
        id: row.get(0)?,
        requests: count(0)?,
        unpriced: count(1)?,
        estimated: count(2)?,
        failed: count(3)?,
        tool_calls: count(4)?,
        retries: count(5)?,
        repeated: count(6)?,
        models: count(7)?,
        first: Timestamp::from_unix_ms(row.get(10)?),
        last: Timestamp::from_unix_ms(row.get(11)?),
        cost: PicoSum::from_pico(wide(0)?),
        duration_ms: wide(1)?.unsigned_abs(),
        tokens,
        outcome_label: None,
    })
}

fn label_of_trace(connection: &Connection, id: &str) -> rusqlite::Result<Option<String>> {
    let mut label = connection
        .prepare_cached("SELECT label FROM outcomes WHERE subject_kind = 2 AND subject = ?1")?;
    let mut found = label.query_map([id], |row| row.get(0))?;
    found.next().transpose()
}

/// The last unit of a page, as text: order, key and id.
#[derive(Clone, Debug, PartialEq)]
struct Cursor {
    sort: UnitSort,
    /// An integer, or the digits of one that SQLite's do not hold.
    key: Value,
    id: String,
}

impl Cursor {
    fn parse(text: &str) -> Option<Cursor> {
        let mut parts = text.splitn(3, '.');
        let sort = UnitSort::parse(parts.next()?)?;
        let key: i128 = parts.next()?.parse().ok()?;
        Some(Cursor {
            sort,
            key: match i64::try_from(key) {
                Ok(key) => key.into(),
                Err(_) => key.to_string().into(),
            },
            id: parts.next()?.to_owned(),
        })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sort = self.sort.name();
        match &self.key {
            Value::Text(digits) => write!(f, "{sort}.{digits}.{}", self.id),
            Value::Integer(key) => write!(f, "{sort}.{key}.{}", self.id),
            _ => write!(f, "{sort}.0.{}", self.id),
        }
    }
}
