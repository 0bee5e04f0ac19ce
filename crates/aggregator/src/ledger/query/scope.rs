//! The part of a query that says which calls: tables, joins and conditions, with their values.

use std::sync::LazyLock;

use rusqlite::params_from_iter;
use rusqlite::types::Value;
use tollmesh_pricing::Status;
use tollmesh_usage::UsageSource;
use tollmesh_wire::{Outcome, Timestamp};

use crate::ledger::codes::{self, Coded};
use crate::ledger::outcomes;
use crate::ledger::query::filter::{Column, Dimension, Filter, Span};
use crate::ledger::query::forms;
use crate::ledger::query::parts::Part;
use crate::ledger::query::terms::{Terms, Way};
use crate::ledger::rollup::HOUR_MS;

/// The word for calls without a price: exactly those have no cost.
const UNPRICED: &str = Status::Unpriced.name();

/// What answers a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Sums of months that are folded.
    Monthly,
    /// Sums of days that are folded.
    Daily,
    /// Sums of days that are folded, by pod and node and not by tags.
    DailySources,
    /// Sums of days that are folded, by pod and node and tags.
    DailyPods,
    /// Hourly sums.
    Hourly,
    /// The rows themselves.
    Events,
}

/// Whose SQL it is. The tables have the same names and columns in both, but for instants, which are
/// integers of milliseconds in the one and timestamps in the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// A sidecar's own ledger.
    Sqlite,
    /// The cluster's shared one.
    Postgres,
}

/// SQL under construction: `FROM ... WHERE ...` over one table, which is called `t`.
#[derive(Debug)]
pub struct Scope {
    pub dialect: Dialect,
    pub table: Table,
    joins: String,
    conditions: Vec<String>,
    join_values: Vec<Value>,
    condition_values: Vec<Value>,
    joins_models: bool,
    joins_sources: bool,
    n_tag_joins: usize,
}

impl Scope {
    /// All calls in the span that meet the filters, by a statement that reads them all.
    pub fn new(dialect: Dialect, table: Table, span: Span, filters: &[Filter]) -> Scope {
        let mut scope = Scope::all(dialect, table, span);
        for filter in filters {
            scope.add_filter(filter, Way::Listed);
        }
        scope
    }

    /// All calls in a part of what a question is about that meet the conditions.
    pub fn of_terms(table: Table, span: Span, terms: &Terms<'_>) -> Scope {
        let mut scope = Scope::all(Dialect::Sqlite, table, span);
        for (filter, way) in terms.iter() {
            scope.add_filter(filter, way);
        }
        scope
    }

    fn all(dialect: Dialect, table: Table, span: Span) -> Scope {
        let mut scope = Scope {
            dialect,
            table,
            joins: String::new(),
            conditions: Vec::new(),
            join_values: Vec::new(),
            condition_values: Vec::new(),
            joins_models: false,
            joins_sources: false,
            n_tag_joins: 0,
        };
        if let Some(from) = span.from {
            scope.add_time_condition(">=", from);
        }
        if let Some(to) = span.to {
            scope.add_time_condition("<", to);
        }
        if (dialect, table) == (Dialect::Postgres, Table::Events) {
            // The mark of a partition is no call.
            scope.add_condition("t.event_id <> ''", []);
        }
        scope
    }

    /// All calls in a part of a span that meet the filters.
    pub fn of(part: &Part, filters: &[Filter]) -> Scope {
        let mut scope = Scope::new(Dialect::Sqlite, part.table, part.span, filters);
        if let Some(folded) = part.after {
            let values = [folded.hour.into(), folded.tag_set.into()];
            scope.add_condition("(t.hour, t.tag_set) >= (?, ?)", values);
        }
        scope
    }

    /// Leaves out relayed calls, unless the filters speak of outcomes themselves: a filter nearer
    /// to the provider counts them.
    pub fn without_relayed(mut self, filters: &[Filter]) -> Scope {
        let outcome = Dimension::Column(Column::Outcome);
        if !filters.iter().any(|filter| filter.dimension == outcome) {
            self.conditions
                .push(format!("t.outcome <> {}", codes::RELAYED));
        }
        self
    }

    /// A further condition with its values.
    pub fn add_condition(
        &mut self,
        sql: impl Into<String>,
        values: impl IntoIterator<Item = Value>,
    ) {
        self.conditions.push(sql.into());
        self.condition_values.extend(values);
    }

    /// The SQL expression of a dimension; joins what it needs.
    pub fn expression(&mut self, dimension: &Dimension) -> String {
        match dimension {
            Dimension::Tag(tag) => {
                let i = self.n_tag_joins;
                self.n_tag_joins += 1;
                self.joins.push_str(&format!(
                    " LEFT JOIN tags g{i} ON g{i}.tag_set = t.tag_set AND g{i}.tag = ?"
                ));
                self.join_values.push(Value::Text(tag.clone()));
                format!("g{i}.value")
            }
            Dimension::Column(column) => {
                let place = Place::of(*column);
                match place {
                    Place::Models(_) if !self.joins_models => {
                        self.joins_models = true;
                        self.joins.push_str(" JOIN models m ON m.id = t.model_id");
                    }
                    Place::Sources(_) if !self.joins_sources => {
                        self.joins_sources = true;
                        self.joins.push_str(" JOIN sources s ON s.id = t.source_id");
                    }
                    _ => {}
                }
                place.expression().to_owned()
            }
        }
    }

    /// The number of calls that one line of the table stands for.
    pub fn weight(&self) -> &'static str {
        match self.table {
            Table::Events => "1",
            _ => "t.requests",
        }
    }

    /// The begin of a line's interval in milliseconds.
    pub fn interval_start(&self, interval_ms: i64) -> String {
        // An integer, so it can stand in the text.
        format!("({0} - {0} % {interval_ms})", self.time_ms())
    }

    fn time_ms(&self) -> String {
        match (self.table, self.dialect) {
            (Table::Events, dialect) => time_ms(dialect).to_owned(),
            _ => format!("(t.hour * {HOUR_MS})"),
        }
    }

    /// `FROM ... WHERE ...`
    pub fn sql(&self) -> String {
        let table = match self.table {
            Table::Monthly => "monthly",
            Table::Daily => "daily",
            Table::DailySources => "daily_sources",
            Table::DailyPods => "daily_pods",
            Table::Hourly => "hourly",
            Table::Events => "events",
        };
        let conditions = match self.conditions.as_slice() {
            [] => String::new(),
            all => format!(" WHERE {}", all.join(" AND ")),
        };
        format!("FROM {table} t{}{conditions}", self.joins)
    }

    /// The values of [`Scope::sql`], in its order.
    pub fn into_values(self) -> Vec<Value> {
        let mut values = self.join_values;
        values.extend(self.condition_values);
        values
    }

    fn add_time_condition(&mut self, comparison: &str, at: Timestamp) {
        let (column, value) = match self.table {
            Table::Events => ("t.time_ms", at.as_unix_ms()),
            _ => ("t.hour", at.as_unix_ms().div_euclid(HOUR_MS)),
        };
        let condition = match (self.table, self.dialect) {
            (Table::Events, Dialect::Postgres) => {
                format!("t.time {comparison} timestamptz 'epoch' + ? * interval '1 millisecond'")
            }
            _ => format!("{column} {comparison} ?"),
        };
        self.add_condition(condition, [value.into()]);
    }

    fn add_filter(&mut self, filter: &Filter, way: Way) {
        let text = Value::Text(filter.value.clone());
        let (sql, values) = match &filter.dimension {
            Dimension::Tag(tag) => {
                let tag = Value::Text(tag.clone());
                match filter.value.is_empty() {
                    true => (without_tag(way), vec![tag]),
                    false => (with_tag(way), vec![tag, text]),
                }
            }
            Dimension::Column(column) => {
                return match filter.forms.as_slice() {
                    [] => self.add_column_filter(*column, &filter.value, way),
                    forms => self.add_forms_filter(*column, forms, way),
                };
            }
        };
        self.add_condition(sql, values);
    }

    /// The condition that a column's value has one of these forms, whatever the case of its letters.
    fn add_forms_filter(&mut self, column: Column, forms: &[String], way: Way) {
        let (test, value): (fn(&str) -> String, _) = match self.dialect {
            Dialect::Sqlite => (has_form_sqlite, forms::globs(forms)),
            Dialect::Postgres => (has_form_postgres, forms::regex(forms)),
        };
        let sql = match Place::of(column) {
            Place::Models(of) => of_id_where("t.model_id", "models m", "m.id", &test(of), way),
            Place::Sources(of) => of_id_where("t.source_id", "sources s", "s.id", &test(of), way),
            Place::Own(expression) => test(expression),
        };
        self.add_condition(sql, [Value::Text(value)]);
    }

    fn add_column_filter(&mut self, column: Column, word: &str, way: Way) {
        let (test, value) = match word {
            "" => ("IS NULL", None),
            // A word that is none of a closed set's equals no call's.
            word => ("= ?", Some(column_value(column, word))),
        };
        let sql = match Place::of(column) {
            Place::Models(of) => of_id("t.model_id", "models m", "m.id", of, test, way),
            Place::Sources(of) => of_id("t.source_id", "sources s", "s.id", of, test, way),
            Place::Own(expression) => format!("{expression} {test}"),
        };
        if (self.table, column, word) == (Table::Events, Column::CostStatus, UNPRICED) {
            // The index of such rows is found by this.
            self.add_condition("t.cost_pico IS NULL", []);
        }
        self.add_condition(sql, value);
    }
}

/// The condition that a line's tags have one of that value.
fn with_tag(way: Way) -> &'static str {
    match way {
        Way::Listed => "t.tag_set IN (SELECT tag_set FROM tags WHERE tag = ? AND value = ?)",
        // What is no join is asked line by line, whatever seems best to SQLite.
        Way::OfEach => "(SELECT value FROM tags w WHERE w.tag_set = t.tag_set AND w.tag = ?) = ?",
    }
}

/// The condition that a line's tags have none of that name.
fn without_tag(way: Way) -> &'static str {
    match way {
        Way::Listed => "t.tag_set NOT IN (SELECT tag_set FROM tags WHERE tag = ? AND value <> '')",
        Way::OfEach => {
            "coalesce((SELECT value FROM tags w WHERE w.tag_set = t.tag_set AND w.tag = ?), '') = ''"
        }
    }
}

/// The condition that what a line's id stands for passes a test.
fn of_id(id: &str, table: &str, key: &str, value: &str, test: &str, way: Way) -> String {
    match way {
        Way::Listed => format!("{id} IN (SELECT {key} FROM {table} WHERE {value} {test})"),
        Way::OfEach => format!("(SELECT {value} FROM {table} WHERE {key} = {id}) {test}"),
    }
}

/// The same for a test that names the value itself.
fn of_id_where(id: &str, table: &str, key: &str, test: &str, way: Way) -> String {
    match way {
        Way::Listed => format!("{id} IN (SELECT {key} FROM {table} WHERE {test})"),
        Way::OfEach => format!("EXISTS (SELECT 1 FROM {table} WHERE {key} = {id} AND {test})"),
    }
}

fn has_form_sqlite(value: &str) -> String {
    format!("EXISTS (SELECT 1 FROM json_each(?) f WHERE lower({value}) GLOB f.value)")
}

fn has_form_postgres(value: &str) -> String {
    format!("lower({value} COLLATE \"C\") ~ ?")
}

/// A row's instant in milliseconds since 1970.
pub const fn time_ms(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => "t.time_ms",
        Dialect::Postgres => "(extract(epoch FROM t.time) * 1000)::bigint",
    }
}

/// What became of a call, as an SQL expression.
static LABEL: LazyLock<String> = LazyLock::new(|| outcomes::label_of("t"));

/// Where a column stands, as an SQL expression.
pub enum Place {
    /// In `models m`.
    Models(&'static str),
    /// In `sources s`.
    Sources(&'static str),
    /// In the table itself.
    Own(&'static str),
}

impl Place {
    /// Of that column.
    pub fn of(column: Column) -> Place {
        match column {
            Column::Provider => Place::Models("m.provider"),
            Column::Api => Place::Models("m.api"),
            Column::Host => Place::Models("m.host"),
            Column::Model => Place::Models("coalesce(m.model, m.model_requested)"),
            Column::ModelRequested => Place::Models("m.model_requested"),
            Column::ModelJudged => {
                Place::Models("coalesce(m.body ->> 6, m.model_requested, m.model)")
            }
            Column::ServiceTier => Place::Models("m.service_tier"),
            Column::Namespace => Place::Sources("s.namespace"),
            Column::Workload => Place::Sources("s.workload"),
            Column::ServiceAccount => Place::Sources("s.service_account"),
            Column::Principal => Place::Sources("s.principal"),
            Column::Pod => Place::Sources("s.pod"),
            Column::Node => Place::Sources("s.node"),
            Column::Cluster => Place::Sources("s.cluster"),
            Column::Outcome => Place::Own("t.outcome"),
            Column::UsageSource => Place::Own("t.usage_source"),
            Column::CostStatus => Place::Own("t.cost_status"),
            Column::EventId => Place::Own("t.event_id"),
            Column::RequestId => Place::Own("t.request_id"),
            Column::TraceId => Place::Own("t.trace_id"),
            Column::ResponseId => Place::Own("t.response_id"),
            Column::Status => Place::Own("t.status"),
            Column::FinishReason => Place::Own("t.finish_reason"),
            Column::Trouble => Place::Own("t.trouble"),
            Column::Fingerprint => Place::Own("t.fingerprint"),
            Column::OutcomeLabel => Place::Own(&LABEL),
        }
    }

    fn expression(&self) -> &'static str {
        match self {
            Place::Models(sql) | Place::Sources(sql) | Place::Own(sql) => sql,
        }
    }
}

/// How what an id of a line stands for is found.
pub struct Lookup {
    /// The line's column that holds the id.
    pub column: &'static str,
    /// The question for it, unless the id is the value itself.
    pub sql: Option<String>,
    tag: Option<String>,
}

impl Lookup {
    /// For a dimension that sums know.
    pub fn of(dimension: &Dimension) -> Lookup {
        let column = match dimension {
            Dimension::Tag(tag) => {
                let sql = "SELECT value FROM tags WHERE tag_set = ? AND tag = ?";
                return Lookup {
                    column: "tag_set",
                    sql: Some(sql.to_owned()),
                    tag: Some(tag.clone()),
                };
            }
            Dimension::Column(column) => *column,
        };
        let (column, sql) = match Place::of(column) {
            Place::Models(value) => ("model_id", Some(("models m WHERE m.id = ?", value))),
            Place::Sources(value) => ("source_id", Some(("sources s WHERE s.id = ?", value))),
            Place::Own(column) => (column.trim_start_matches("t."), None),
        };
        Lookup {
            column,
            sql: sql.map(|(place, value)| format!("SELECT {value} FROM {place}")),
            tag: None,
        }
    }

    /// The values of the question.
    pub fn values(&self, id: i64) -> impl rusqlite::Params {
        let tag = self.tag.clone().map(Value::Text);
        params_from_iter([Value::Integer(id)].into_iter().chain(tag))
    }
}

/// What a column holds for a word; `NULL`, which equals nothing, where it holds no such word.
fn column_value(column: Column, word: &str) -> Value {
    let code = |code: Option<i64>| code.map_or(Value::Null, Value::Integer);
    match column {
        Column::Outcome => code(Outcome::from_name(word).map(Coded::code)),
        Column::UsageSource => code(UsageSource::from_name(word).map(Coded::code)),
        Column::CostStatus => code(Status::from_name(word).map(Coded::code)),
        Column::Status => code(word.parse().ok()),
        _ => Value::Text(word.to_owned()),
    }
}

/// The word for what a column holds; `None` for `NULL`.
pub fn word(dimension: &Dimension, value: Value) -> Option<String> {
    match (dimension, value) {
        (Dimension::Column(column), Value::Integer(n)) => Some(match column {
            Column::Outcome => Outcome::from_code(n)?.word().to_owned(),
            Column::UsageSource => UsageSource::from_code(n)?.word().to_owned(),
            Column::CostStatus => Status::from_code(n)?.word().to_owned(),
            _ => n.to_string(),
        }),
        (_, Value::Text(text)) => Some(text),
        _ => None,
    }
}
